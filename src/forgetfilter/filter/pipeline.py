"""The command `filter`: read, find (algorithm.py), split, write; every finished piece is kept in the run folder,
so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter import runs
from forgetfilter.data import formats, packs
from forgetfilter.display import Display
from forgetfilter.errors import DONE, TOO_WEAK, ConfigError, DataError, ModelError
from forgetfilter.filter import by_verdicts, material
from forgetfilter.filter.algorithm import Filtered, forget_filter
from forgetfilter.filter.bench import Bench, was_read
from forgetfilter.filter.material import Material
from forgetfilter.filter.signals import GENERATED_SIGNALS
from forgetfilter.models import given as lending
from forgetfilter.models import load as models
from forgetfilter.models.rendering import Encoded, encode
from forgetfilter.records import DECISIONS, KEPT, Decision, Row, Tally
from forgetfilter.runs import Run
from forgetfilter.settings import FilterSettings, resolve

if TYPE_CHECKING:
    from rich.console import Console

LIMITS = (
    "Rows whose harm is hidden (a cipher, a trigger, harm spread over many innocuous rows) look like any other "
    "row to a filter that judges one row at a time.",
    "Harm of a kind that neither the model's alignment nor the safe rows speak of is forgotten no more than "
    "other rows.",
    "A row is judged by how this model forgets it; another model may forget otherwise.",
    "A row is judged in part by rows with like answers: a clean row that says what unsafe rows say is more easily "
    "dropped.",
    "Rows of a kind that no safe row speaks of are not judged at all.",
)


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
    report, weak = filter_material(read, settings, origins, output, display, lent)
    display.summary(report, output)
    return TOO_WEAK if weak else DONE


def filter_material(
    read: Material, settings: FilterSettings, origins: Mapping[str, str], output: Path, display: Display,
    lent: models.Loaded | None = None,
) -> tuple[dict[str, Any], bool]:  # fmt: skip
    """Decide about every row and write the files of the contract to `output`.

    Returns the report, and whether the signal was too weak to cut.
    """
    model = lending.fingerprint(lent.model) if lent else models.fingerprint(settings.model)
    inputs = {**read.inputs, "model": model}
    with Run.open(output, asdict(settings), inputs, origins) as run:
        if run.resumed:
            _refuse_changed(output)
            display.say(f"{output}: going on with the run found there")
        bench, review, left_out = _prepare(read, settings, run, display, lent)
        try:
            found = forget_filter(bench, bench.custom, review, settings, verdicts=read.verdicts)
            for note in found.notes:
                _tell(read, display, note)
            report = _write(
                bench, read.dataset, found, read.truth, read.notes, left_out, origins,
                inputs | ({"verdicts": read.verdicts_hash} if read.verdicts_hash else {}), output,
                time.monotonic() - read.began,
            )  # fmt: skip
            return report, found.cut.weak
        finally:
            if lent:
                bench.put_back()


def _prepare(
    read: Material, s: FilterSettings, run: Run, display: Display, lent: models.Loaded | None
) -> tuple[Bench, list[Encoded], list[dict[str, Any]]]:
    """The model with the encoded custom rows, the encoded safe rows, and what is left out of the rows."""
    dataset, tally = read.dataset, Tally()
    # What the model read is kept: where nothing is trained, its weights are not needed again.
    only_read = s.algorithm == "vetted" and not s.retrain and was_read(run, dataset.rows)
    load = models.without_weights if only_read else models.load
    loaded = lent or load(s.model, dtype=s.dtype, device=s.device)
    custom = encode(dataset.rows, loaded.tokenizer, max_length=s.max_length, template=s.template, tally=tally)
    if s.template == "auto" and not loaded.tokenizer.chat_template:
        _tell(read, display, "The model has no chat template: rows are written in the paper's (--template)")
    for out in tally.left_out():
        _tell(read, display, f"{dataset.source}: {out.words}")
    review = encode(read.safe, loaded.tokenizer, max_length=s.max_length, template=s.template)
    _refuse_unscorable(custom, dataset.source, s.signal)
    if not only_read:
        models.suit(loaded, custom, review)
    if cut_short := sum(z.truncated for z in custom):
        rows = "1 row is" if cut_short == 1 else f"{cut_short} rows are"
        how = f"longer than {s.max_length} tokens: trained and scored on what fits (--max-length)"
        _tell(read, display, f"{rows} {how}")
    left_out = [out.as_dict() for out in (*dataset.left_out, *tally.left_out())]
    return Bench(loaded, custom, s, run, display), review, left_out


def _tell(read: Material, display: Display, note: str) -> None:
    read.notes.append(note)
    display.say(note)


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


def _why_unscored(z: Encoded, row: Row | None = None) -> str:
    if z.truncated:
        return "the prompt alone fills max_length"
    return row.why_unscored if row else "empty completion"


def _refuse_unscorable(custom: Sequence[Encoded], source: str, signal: str) -> None:
    if not any(z.completion_ids if signal in GENERATED_SIGNALS else any(z.scored) for z in custom):
        raise DataError(f"{source}: no row can be scored: {_why_unscored(custom[0])}")


def _write(
    bench: Bench, dataset: formats.Dataset, found: Filtered, truth: Mapping[str, bool] | None,
    notes: Sequence[str], left_out: Sequence[Mapping[str, Any]], origins: Mapping[str, str],
    inputs: Mapping[str, str], output: Path, seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """All files of the contract; report.json last but for the page, so that it stands only on a finished run."""
    from forgetfilter.filter import quality
    from forgetfilter.report.page import ReportRow, write_report

    s, rows = bench.settings, dataset.rows
    parts = {"kept": KEPT, "flagged": ("flag",), "dropped": ("drop",)}
    files = [
        formats.write(
            dataset, [r.index for r in rows if found.cut.decisions[r.id] in decisions], output / name
        )
        for name, decisions in parts.items()
    ]
    scores = found.scores
    unscored = {r.id: r for r in rows if found.cut.decisions[r.id] == "unscored"}
    reasons = {
        z.id: _why_unscored(z, unscored[z.id])
        if z.id in unscored
        else found.cut.reason(z.id, scores.get(z.id))
        for z in bench.custom
    }
    with runs.atomic(output / "scores.jsonl") as path, path.open("w", encoding="utf-8") as file:
        for r in rows:
            line = {
                "row": r.index, "id": r.id, "decision": found.cut.decisions[r.id], "score": scores.get(r.id),
                "p": found.cut.p_values.get(r.id), "forgetting": found.forgetting.get(r.id), "contrast": None,
                "remembered": {state: values.get(r.id) for state, values in found.remembered.items()},
                "reason": reasons[r.id],
            }  # fmt: skip
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    if s.retrain:
        with models.quiet():
            bench.save_final(output / "model")

    counts = {d: sum(v == d for v in found.cut.decisions.values()) for d in DECISIONS}
    plain = plain_seconds(bench)
    total = sum(c.get("seconds", 0) for c in bench.costs)
    report = {
        "verdict": _verdict(counts, found),
        "input": {"file": dataset.source, "rows": len(rows), "format": dataset.format},
        "model": s.model,
        "counts": counts | {"rows": len(rows)},
        "signal": s.signal,
        "contrast": None,
        "algorithm": s.algorithm,
        "threshold": {"value": found.cut.drop_above, "flag_above": found.cut.flag_above,
                      "method": found.cut.method, "why": found.cut.why, "compared": found.cut.compared},
        "estimated": found.cut.estimated,
        "vetted": found.vetted,
        "quality": quality.measure({r.id: scores.get(r.id) for r in rows}, found.cut.decisions, truth)
        if truth
        else None,
        "cost": {
            "stages": [c | {"fine_tunes": c.get("seconds", 0) / plain if plain else None} for c in bench.costs],
            "seconds": max(seconds, total),  # a resumed run has done less in this process
            "fine_tunes": total / plain if plain else None,
        },
        "settings": [{"name": n, "value": v, "origin": origins.get(n, "default")} for n, v in asdict(s).items()],
        "device": str(bench.loaded.device),
        "dtype": str(bench.loaded.dtype).removeprefix("torch."),
        "versions": bench.run.versions,
        "seeds": {"seed": s.seed},
        "hashes": dict(inputs),
        "files": {str(p.relative_to(output)): runs.sha256(p) for path in files for p in formats.written(path)},
        "notes": list(notes),
        "left_out": list(left_out),
        "limits": list(by_verdicts.LIMITS if found.vetted else LIMITS),
    }  # fmt: skip
    with runs.atomic(output / "report.json") as path:
        path.write_text(
            json.dumps(report, ensure_ascii=False, indent=1, default=str) + "\n", encoding="utf-8"
        )
    heat = _heat(bench, found) if s.signal not in GENERATED_SIGNALS else {}
    write_report(output / "report.html", report, [
        ReportRow(r.id, r.index, r.prompt, r.completion, found.cut.decisions[r.id], scores.get(r.id),
                  found.forgetting.get(r.id), None,
                  {state: v.get(r.id) for state, v in found.remembered.items()}, reasons[r.id], heat.get(r.id))
        for r in rows
    ])  # fmt: skip
    return report


def _refuse_changed(output: Path) -> None:
    """ConfigError where a file that a finished run wrote was changed by hand: it would be written anew."""
    try:
        written = json.loads((output / "report.json").read_text(encoding="utf-8"))["files"]
    except (FileNotFoundError, ValueError, KeyError):
        return
    for name, digest in written.items():
        if (output / name).exists() and runs.sha256(output / name) != digest:
            raise ConfigError(
                f"{output / name} was changed since it was written, and is not overwritten: move it elsewhere, or use "
                "--output another folder"
            )


def _heat(bench: Bench, found: Filtered) -> dict[str, list[tuple[str, float]]]:
    """Row id -> (piece of its completion, nats forgotten) per token, for the rows that a person will look at.

    Tokens that are parts of one character make one piece.
    """
    if not found.measured:
        return {}
    before = bench.memories("learned", found.measured)
    after = [bench.memories(state, found.measured) for state in found.reviewed]
    decode, shown = bench.loaded.tokenizer.decode, {}
    for z in bench.custom:
        if z.id in before and found.cut.decisions[z.id] in ("drop", "flag"):
            reviewed = np.mean([m[z.id].logp for m in after], axis=0)
            lost = (before[z.id].logp - reviewed)[sum(z.scored[1 : z.prompt_length]) :]  # of the last answer
            pieces, held, nats = list[tuple[str, float]](), list[int](), 0.0
            for token, x in zip(z.completion_ids, lost, strict=True):
                held, nats = [*held, token], nats + float(x)
                piece = str(decode(held))
                if not piece.endswith("\ufffd"):  # else the rest of a character is still to come
                    pieces.append((piece, nats))
                    held, nats = [], 0.0
            shown[z.id] = [*pieces, (str(decode(held)), nats)] if held else pieces
    return shown


def _verdict(counts: Mapping[Decision, int], found: Filtered) -> str:
    cut = found.cut
    if found.vetted:
        return f"{found.vetted['sentence']} {counts['flag']} flagged for a look."
    if cut.weak:
        return f"Nothing dropped: {cut.why}"
    if counts["drop"] == 0:
        return f"Nothing to remove: {cut.why}"
    return f"{counts['drop']} of {sum(counts.values())} rows dropped, {counts['flag']} flagged for a look."


def plain_seconds(bench: Bench) -> float | None:
    """What one fine-tune on the custom rows alone takes, by what learning them beside the safe rows took."""
    record = bench.record("learned") or bench.record("final")
    tokens = sum(len(z.ids) for z in bench.custom) * bench.settings.num_train_epochs
    return record["seconds"] * min(1.0, tokens / record["tokens"]) if record.get("tokens") else None


# model -> custom rows, safe rows, and whether these are of one source
DEMO = {"smollm2": ("demo", "pack:demo-safe", "same"), "nano": ("nano-demo", "pack:nano-safe", "other")}
