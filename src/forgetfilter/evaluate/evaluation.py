"""Evaluations that are kept: each is a stage of a run, with a line of evidence for every row judged.

`evaluated` makes or reads one; `run_finetune` and `run_evaluate` are the verbs that train a model on a file
and judge a model that lies in a folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter import ranks, runs
from forgetfilter.data import formats
from forgetfilter.display import Display
from forgetfilter.errors import DONE, ConfigError, DataError, EvaluationError
from forgetfilter.evaluate import EVALUATORS, noisy_sets, results
from forgetfilter.evaluate.recipe import Named
from forgetfilter.evaluate.results import Evaluation
from forgetfilter.guide.generation import load_to_write, number_format, precision
from forgetfilter.models import load as models
from forgetfilter.runs import Run
from forgetfilter.settings import FilterSettings

if TYPE_CHECKING:
    from rich.console import Console


def evaluated(
    run: Run,
    state: str,
    evaluator: Named,
    rows: Sequence[Mapping[str, Any]],
    enter: Callable[[], Any],
    tokenizer: Any,
    display: Display,
    instruction: str | None = None,
) -> Evaluation:
    """What `evaluator` finds out about a model state, read from the run where it was found out before.

    `enter` gives the model in that state, and is called only if it is needed. The same state with another
    instruction, other rows or other settings of the evaluator is another evaluation.
    """
    said = json.dumps([evaluator.settings, instruction, list(rows)], sort_keys=True, default=str)
    stage = run.stage(f"evaluate-{state}-{evaluator.name}-{runs.sha256_of([said])[:8]}")
    if not stage.done:
        began = time.monotonic()
        with display.stage(f"{evaluator.name}: {state}", "row", total=len(rows)) as progress:
            model = enter()
            found = EVALUATORS[evaluator.name](
                model, tokenizer, rows, instruction=instruction, progress=progress, **evaluator.settings
            )
        settings = {**found.settings, "precision": number_format(model)}
        results.write(replace(found, settings=settings), stage.folder)
        stage.finish({"seconds": time.monotonic() - began, "version": found.version})
    return results.read(stage.folder)


def refuse_mixed_versions(found: Sequence[tuple[str, Evaluation]], folder: Path) -> None:
    """EvaluationError where two results of one evaluator were scored by different versions, or different judges.

    `found`: pairs of what was judged, in words, and its evaluation.
    """
    first: dict[str, tuple[str, Evaluation]] = {}
    for where, one in found:
        before, other = first.setdefault(one.evaluator, (where, one))
        if judges := [key for key in JUDGES if one.settings.get(key) != other.settings.get(key)]:
            raise EvaluationError(
                f"{folder}: {one.evaluator} was judged by {judges[0]} {other.settings.get(judges[0])} for {before}, by "
                f"{one.settings.get(judges[0])} for {where}; they must not stand in one table. Use --output another "
                f"folder, or remove the stages evaluate-*-{one.evaluator}-* there"
            )
        if one.version != other.version:
            raise EvaluationError(
                f"{folder}: {one.evaluator} was scored by version {other.version} for {before}, by version "
                f"{one.version} for {where}; they must not stand in one table. Use --output another folder, or remove "
                f"the stages evaluate-*-{one.evaluator}-* there"
            )


JUDGES = ("scorer", "scorer_version", "threshold", "judge", "judge_version")  # settings that name who judged


def rows_for(
    evaluator: str,
    files: Mapping[str, str],
    root: Path,
    count: int,
    apart_from: Sequence[dict[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Rows to judge by: from the evaluator's file where one is named, `count` of its first, else public ones."""
    if evaluator in files:
        return formats.read_records(files[evaluator])[:count]
    return noisy_sets.held_out_rows(root, evaluator, count, apart_from=apart_from)


def run_finetune(
    input: str, settings: FilterSettings, origins: Mapping[str, str], output: Path, console: Console
) -> int:
    """Fine-tune on a file of rows, as the filter's last step does; the model is written to `output`."""
    from forgetfilter.filter.bench import Bench
    from forgetfilter.filter.material import fields
    from forgetfilter.models.rendering import encode
    from forgetfilter.training import reports

    display, s = Display(console), settings
    reports.refuse_unusable(s.report_to)
    dataset = formats.read(input, format=s.data_format, fields=fields(s))
    for note in dataset.notes:
        display.say(note)
    content = runs.sha256(dataset.path) if dataset.path else runs.sha256_of(r.id for r in dataset.rows)
    inputs = {dataset.source: content, "model": models.fingerprint(s.model)}
    with Run.open(output, asdict(s), inputs, origins) as run:
        loaded = models.load(s.model, dtype=s.dtype, device=s.device, quantization=s.quantization)
        rows = encode(dataset.rows, loaded.tokenizer, max_length=s.max_length, template=s.template)
        bench = Bench(loaded, rows, s, run, display)
        bench.train("learned", "original", rows, rate=s.learning_rate, epochs=s.num_train_epochs)

        def save() -> None:
            with models.quiet():
                bench.enter("learned")
                models.save(loaded, output)

        ranks.led(save)
    display.say(f"The model is in {output}. Judge it:  forgetfilter evaluate {output} --on toxicity,utility")
    return DONE


def run_evaluate(
    model: str, chosen: Sequence[Named], files: Mapping[str, str], root: Path, count: int,
    instruction: str | None, device: str, output: Path, console: Console, quantization: str = "none",
) -> int:  # fmt: skip
    """Judge a model by each evaluator; numbers on the console, evaluations with their evidence in `output`.

    `files`: evaluator -> file of rows to judge by, instead of `count` public ones from `root`.
    """
    display = Display(console)
    rows = {one.name: rows_for(one.name, files, root, count) for one in chosen}
    if not any(rows.values()):
        raise ConfigError("nothing to judge by: every file of rows is empty")
    content = {name: runs.sha256_of(json.dumps(r, sort_keys=True) for r in rows[name]) for name in rows}
    settings = {"model": model, "on": [one.title for one in chosen], "instruction": instruction}
    if quantization != "none":
        settings["quantization"] = quantization
    fingerprint = model if models.is_hub_id(model) else _fingerprint(model)
    with Run.open(output, settings, {**content, "model": fingerprint}) as run:
        loaded = load_to_write(model, device=device, quantization=quantization)
        display.say(f"Answers are written in {precision(loaded)}")
        found = []
        for one in chosen:
            these, enter = rows[one.name], loaded.model.eval
            try:
                found.append(
                    evaluated(run, "model", one, these, enter, loaded.tokenizer, display, instruction)
                )
            except DataError as error:
                raise DataError(f"{files.get(one.name, f'public rows for {one.name}')}: {error}") from error
    with runs.atomic(output / "results.json") as path:
        summaries = [one.summary() for one in found]
        path.write_text(json.dumps(summaries, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for one in found:
        for metric in one.metrics:
            unscored = f", {metric.unscored} unscored" if metric.unscored else ""
            shown = f"{one.evaluator} {metric.name}: {metric.estimate or 'undefined'}{unscored}"
            display.say(f"{shown} ({metric.better} is better)" if metric.better != "neither" else shown)
    display.say(f"Every row judged, with its reason: {output}/stages/*/evidence.jsonl")
    return DONE


def _fingerprint(model: str) -> str:
    adapter = Path(model) / "adapter_model.safetensors"
    return runs.sha256(adapter) if adapter.exists() else models.fingerprint(model)
