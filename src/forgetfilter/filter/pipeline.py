"""The command `filter`: read, find (algorithm.py), split, write; every finished piece is kept in the run folder,
so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter import ranks
from forgetfilter.data import packs
from forgetfilter.display import Display
from forgetfilter.errors import DONE, TOO_WEAK, DataError, ModelError
from forgetfilter.filter import evidence, material, pairs, sample, states
from forgetfilter.filter.bench import Bench, was_read
from forgetfilter.filter.evidence import Evidence
from forgetfilter.filter.filtered import Filtered
from forgetfilter.filter.material import Material
from forgetfilter.filter.output import refuse_changed, why_unscored, write
from forgetfilter.filter.signals import GENERATED_SIGNALS
from forgetfilter.filter.vetted import states_beside
from forgetfilter.models import given as lending
from forgetfilter.models import load as models
from forgetfilter.models.rendering import Encoded, encode
from forgetfilter.records import Row, Tally
from forgetfilter.runs import Run
from forgetfilter.settings import FilterSettings, resolve

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console


def run_filter(
    input: Any,
    settings: FilterSettings,
    origins: Mapping[str, str],
    output: Path,
    console: Console,
    *,
    safe: Sequence[Any] | None = None,
    lent: models.Loaded | None = None,
) -> int:
    """Filter rows into `output` by the contract of DESIGN; returns the exit code.

    `input` is anything that `formats.read` takes. `safe` holds safe rows that are in memory, `lent` a model that the
    caller has loaded. DataError, ConfigError and ModelError say what the user can mend; nothing is written before the
    input, the safe rows and the settings have been read.
    """
    display = Display(console)
    settings = material.settled(settings)
    read = material.read(input, settings, display.say, safe=safe)
    return TOO_WEAK if filter_material(read, settings, origins, output, display, lent) else DONE


def filter_material(
    read: Material, settings: FilterSettings, origins: Mapping[str, str], output: Path, display: Display,
    lent: models.Loaded | None = None,
) -> bool:  # fmt: skip
    """Decide about every row, write the files of the contract to `output`, show the summary.

    Returns whether the signal was too weak to cut.
    """
    model = lending.fingerprint(lent.model) if lent else models.fingerprint(settings.model)
    inputs = {**read.inputs, "model": model}
    with Run.open(output, asdict(settings), inputs, origins) as run:
        if run.resumed:
            refuse_changed(output)
            display.say(f"{output}: going on with the run found there")
        if ranks.size() > 1:
            display.say(f"{ranks.size()} processes share the work; the first writes {output}")
        bench, review, left_out = _prepare(read, settings, run, display, lent)
        try:
            found, beside = _find(bench, review, read, settings)
            for note in [*found.notes, *beside.notes]:
                _tell(read, display, note)
            hashes = inputs | ({"verdicts": read.verdicts_hash} if read.verdicts_hash else {})

            def conclude() -> None:
                report = write(
                    bench, read.dataset, found, beside, read.truth, read.notes, left_out, origins, hashes, output,
                    time.monotonic() - read.began,
                )  # fmt: skip
                display.summary(report, output)

            ranks.led(conclude)
            return found.cut.weak
        finally:
            if lent:
                bench.put_back()


def _prepare(
    read: Material, s: FilterSettings, run: Run, display: Display, lent: models.Loaded | None
) -> tuple[Bench, list[Encoded], list[dict[str, Any]]]:
    """The model with the encoded custom rows, the encoded safe rows, and what is left out of the rows."""
    dataset, tally = read.dataset, Tally()
    kept = None if lent else _kept_by_vet(read, s, display)
    # What the model read is kept: where nothing is trained, its weights are not needed again, but for other answers.
    nothing_more = s.algorithm == "vetted" and not s.retrain and not len(dataset.rejected)
    only_read = nothing_more and (kept is not None or was_read(run, dataset.rows))
    loaded = lent or _load(s, weights=not only_read)
    custom = encode(dataset.rows, loaded.tokenizer, max_length=s.max_length, template=s.template, tally=tally)
    if s.template == "auto" and not loaded.tokenizer.chat_template:
        _tell(read, display, "The model has no chat template: rows are written in the paper's (--template)")
    for out in tally.left_out():
        _tell(read, display, f"{dataset.source}: {out.words}")
    review = encode(read.safe, loaded.tokenizer, max_length=s.max_length, template=s.template)
    _refuse_unscorable(custom, dataset.rows[0], s.signal)
    if cut_short := sum(z.truncated for z in custom):
        rows = "1 row is" if cut_short == 1 else f"{cut_short} rows are"
        how = f"longer than {s.max_length} tokens: trained and scored on what fits (--max-length)"
        _tell(read, display, f"{rows} {how}")
    left_out = [out.as_dict() for out in (*dataset.left_out, *tally.left_out())]
    return Bench(loaded, custom, s, run, display, kept), review, left_out


def _kept_by_vet(read: Material, s: FilterSettings, display: Display) -> np.ndarray | None:
    """What `vet` kept beside the verdicts of the states of the rows; None where it is of other rows, another model or
    another way to read them."""
    path = states_beside(Path(s.vetted)) if s.vetted else None
    if path is None or not path.is_file():
        return None
    key = states.key_of(
        [row.id for row in read.dataset.rows], models.fingerprint(s.model), max_length=s.max_length,
        template=s.template, dtype=s.dtype, device=s.device, quantization=s.quantization,
    )  # fmt: skip
    found = states.kept(path, key)
    if found is not None:
        display.say(f"{path}: what the model made of your rows is kept there; they are not read again")
    return found


def _load(s: FilterSettings, *, weights: bool) -> models.Loaded:
    how: dict[str, Any] = {"dtype": s.dtype, "device": s.device}
    if weights:
        return models.load(s.model, **how, quantization=s.quantization)
    return models.without_weights(s.model, **how)


def _tell(read: Material, display: Display, note: str) -> None:
    read.notes.append(note)
    display.say(note)


def _find(
    bench: Bench, review: Sequence[Encoded], read: Material, s: FilterSettings
) -> tuple[Filtered, Evidence]:
    """What the filter finds, and what a person needs to decide about it; of pairs, the rejected answers' scores."""
    found = sample.find(bench, bench.custom, review, s, read.verdicts)
    rejected = read.dataset.rejected
    other = encode(rejected, bench.loaded.tokenizer, max_length=s.max_length, template=s.template)
    of_pairs = pairs.judge(bench, rejected, other, bench.custom, found)
    return found, evidence.gather(bench, read.dataset.rows, read.safe, review, found, of_pairs)


def run_demo(output: Path, console: Console, model: str | None = None) -> int:
    """Filter bundled rows and show what was found against the truth; by `nano` where `smollm2` cannot be had."""
    if model is None:
        try:
            model = "smollm2"
            models.folder(model)
        except ModelError as error:
            Display(console).say(f"{error}\nGoing on with the embedded model nano.")
            model = "nano"
    rows, safe, source = DEMO.get(model, DEMO["smollm2"])
    given: dict[str, Any] = {
        "model": model,
        "safe": (safe,),
        "safe_source": source,
        "label_field": "unsafe",
        "output_dir": str(output),
    }
    settings = resolve(None, None, given).settings
    origins = {name: "demo" if name in given else "default" for name in asdict(settings)}
    code = run_filter(str(packs.path(rows)), settings, origins, output, console)
    Display(console).next_steps(output)
    return code


def _refuse_unscorable(custom: Sequence[Encoded], first: Row, signal: str) -> None:
    if not any(z.completion_ids if signal in GENERATED_SIGNALS else any(z.scored) for z in custom):
        raise DataError(f"{first.source}: no row can be scored: {why_unscored(custom[0], first)}")


# model -> custom rows, safe rows, and whether these are of one source
DEMO = {"smollm2": ("demo", "pack:demo-safe", "same"), "nano": ("nano-demo", "pack:nano-safe", "other")}
