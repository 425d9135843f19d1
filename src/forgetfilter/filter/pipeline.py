"""The command `filter`: read, find (algorithm.py), split, write; every finished piece is kept in the run folder,
so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter import runs
from forgetfilter.data import formats, packs
from forgetfilter.display import Display
from forgetfilter.errors import DONE, TOO_WEAK, ConfigError, DataError, ModelError, unknown
from forgetfilter.filter import by_verdicts, vetted
from forgetfilter.filter.algorithm import FEWEST_SAFE, Filtered, forget_filter
from forgetfilter.filter.bench import Bench, was_read
from forgetfilter.filter.signals import GENERATED_SIGNALS, SIGNALS
from forgetfilter.models import load as models
from forgetfilter.models.rendering import Encoded, encode
from forgetfilter.records import DECISIONS, KEPT, Decision, Row, Tally
from forgetfilter.runs import Run
from forgetfilter.settings import FilterSettings, resolve

if TYPE_CHECKING:
    from rich.console import Console

FEWEST_ROWS = 2  # below this nothing can stand out
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
    input: str | Sequence[str],
    settings: FilterSettings,
    origins: Mapping[str, str],
    output: Path,
    console: Console,
) -> int:
    """Filter a file of rows into `output` by the contract of DESIGN; returns the exit code.

    DataError, ConfigError and ModelError say what the user can mend; nothing is written before the input,
    the safe rows and the settings have been read.
    """
    display, began = Display(console), time.monotonic()
    refuse_mismatch(settings)
    settings = with_packs_apart(settings)
    dataset = formats.read(
        input, format=settings.data_format, fields=fields(settings), truth=settings.label_field
    )
    by_hand = settings.algorithm == "vetted"
    review_files = () if by_hand else settings.safe
    safe = [row for name in review_files for row in safe_rows(name, fields(settings))]
    _refuse_too_few(dataset.rows, dataset.source)
    refuse_overlap(dataset, safe)
    if settings.algorithm == "witness" and len(safe) < FEWEST_SAFE:
        raise DataError(
            f"{', '.join(settings.safe)}: {len(safe)} safe rows; at least {FEWEST_SAFE} are needed, a third of them as "
            "witnesses. Add some, or use a bundled pack beside them (--safe pack:general)"
        )
    truth = _truth(dataset, settings)
    notes = list(dataset.notes)
    for note in notes:
        display.say(note)
    verdicts = _verdicts(dataset, settings, notes, display) if by_hand else []

    own = f"custom {dataset.source}" if dataset.source in review_files else dataset.source
    # Verdicts may be added between two runs of a command; they are recorded, and are not part of what it is.
    content = (
        runs.sha256_of(row.id for row in dataset.rows) if settings.verdict_field else content_hash(dataset)
    )
    inputs = {own: content} | {name: hash_of_rows(name) for name in review_files}
    inputs["model"] = models.fingerprint(settings.model)
    hashes = inputs | ({"verdicts": _hash_of_verdicts(verdicts)} if by_hand else {})
    with Run.open(output, asdict(settings), inputs, origins) as run:
        if run.resumed:
            _refuse_changed(output)
            display.say(f"{output}: going on with the run found there")
        only_read = by_hand and not settings.retrain and was_read(run, dataset.rows)
        load = models.without_weights if only_read else models.load
        loaded = load(settings.model, dtype=settings.dtype, device=settings.device)
        tally = Tally()
        custom = encode(
            dataset.rows,
            loaded.tokenizer,
            max_length=settings.max_length,
            template=settings.template,
            tally=tally,
        )
        if settings.template == "auto" and not loaded.tokenizer.chat_template:
            notes.append("The model has no chat template: rows are written in the paper's (--template)")
            display.say(notes[-1])
        for left_out in tally.left_out():
            notes.append(f"{dataset.source}: {left_out.words}")
            display.say(notes[-1])
        review = encode(safe, loaded.tokenizer, max_length=settings.max_length, template=settings.template)
        _refuse_unscorable(custom, dataset.source, settings.signal)
        if not only_read:
            models.suit(loaded, custom, review)
        cut_short = sum(z.truncated for z in custom)
        if cut_short:
            rows = "1 row is" if cut_short == 1 else f"{cut_short} rows are"
            notes.append(
                f"{rows} longer than {settings.max_length} tokens: trained and scored on what fits (--max-length)"
            )
            display.say(notes[-1])

        bench = Bench(loaded, custom, settings, run, display)
        found = forget_filter(bench, custom, review, settings, verdicts=verdicts)
        for note in found.notes:
            notes.append(note)
            display.say(note)
        left_out = [out.as_dict() for out in (*dataset.left_out, *tally.left_out())]
        report = _write(
            bench, dataset, found, truth, notes, left_out, origins, hashes, output, time.monotonic() - began
        )
        display.summary(report, output)
        return TOO_WEAK if found.cut.weak else DONE


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


def fields(s: FilterSettings) -> dict[str, str]:
    """Field -> its name in the user's file, for those that were named."""
    given = {
        "prompt": s.prompt_field,
        "completion": s.completion_field,
        "messages": s.messages_field,
        "text": s.text_field,
    }
    return {name: value for name, value in given.items() if value is not None}


def _safe_path(name: str) -> str:
    return str(packs.path(name)) if name.startswith("pack:") else name


def safe_rows(name: str, named: Mapping[str, str] | None = None) -> Sequence[Row]:
    """The rows of a file or a bundled pack that have something to review; DataError where none has.

    `named` (see `fields`) is how the custom rows' fields are called; tried where the file has no format by itself.
    """
    try:
        rows = formats.read(_safe_path(name)).rows
    except DataError:
        if not named:
            raise
        rows = formats.read(_safe_path(name), fields=named).rows
    usable = [row for row in rows if row.completion.strip()]
    if not usable:
        raise DataError(f"{name}: no safe row with a completion; the review needs some")
    return usable


def with_packs_apart(s: FilterSettings) -> FilterSettings:
    """Bundled rows are never of the user's source, however alike they read, unless the user says so."""
    packs_alone = all(name.startswith("pack:") for name in s.safe)
    return replace(s, safe_source="other") if packs_alone and s.safe_source == "auto" else s


def refuse_mismatch(s: FilterSettings) -> None:
    """ConfigError for settings that do not go together."""
    if s.signal not in SIGNALS:
        raise ConfigError(unknown("signal", s.signal, SIGNALS))
    if s.vetted and s.verdict_field:
        raise ConfigError("--vetted and --verdict-field: two sources of verdicts; give one")
    if (s.vetted or s.verdict_field) and s.algorithm != "vetted":
        raise ConfigError(
            f"algorithm {s.algorithm} does not read verdicts; leave --algorithm out, or --vetted and --verdict-field"
        )
    if s.algorithm == "vetted" and not (s.vetted or s.verdict_field):
        raise ConfigError(
            "algorithm vetted needs verdicts: --vetted FILE or --verdict-field FIELD; forgetfilter vet makes them"
        )
    if (s.algorithm == "paper") == (s.threshold == "fdr"):
        raise ConfigError(
            f"threshold {s.threshold}: algorithm {s.algorithm} cuts by "
            + ("a fixed φ or a quantile (--threshold fixed --phi 0.1)" if s.algorithm == "paper" else "fdr; "
               "for a cut of the plain forgetting add --algorithm paper")
        )  # fmt: skip


def _refuse_too_few(rows: Sequence[Row], source: str) -> None:
    if len(rows) < FEWEST_ROWS:
        raise DataError(
            f"{source}: {len(rows)} row; a filter compares rows with each other and needs at least 2"
        )


def refuse_overlap(dataset: formats.Dataset, safe: Sequence[Row]) -> None:
    """A row on both sides would be reviewed back into memory and never look forgotten."""
    known = {row.messages: row for row in safe}
    shared = [(row, known[row.messages]) for row in dataset.rows if row.messages in known]
    if shared:
        row, twin = shared[0]
        raise DataError(
            f"{dataset.source} row {row.index}: the same row is in the safe rows ({twin.source} row {twin.index}); "
            f"{len(shared)} rows in all. Take them out of one of the two: a reviewed row cannot look forgotten"
        )


def _truth(dataset: formats.Dataset, s: FilterSettings) -> dict[str, bool] | None:
    """The truth column, read at the door so that a wrong one is told before an hour of training; used at the end."""
    from forgetfilter.filter.quality import read_truth

    return read_truth(dataset.rows, s.label_field) if s.label_field else None


def _verdicts(
    dataset: formats.Dataset, s: FilterSettings, notes: list[str], display: Display
) -> list[vetted.Verdict]:
    """The verdicts that the settings name; what a person should know of them is said and noted."""

    def say(line: str) -> None:
        notes.append(line)
        display.say(line)

    if s.vetted:
        found = vetted.read(s.vetted, dataset.rows, say=say)
    else:
        found = vetted.from_column(dataset.rows, str(s.verdict_field), say=say)
    where = s.vetted or f'column "{s.verdict_field}"'
    say(
        f"algorithm vetted: {len(found)} verdicts ({where}) decide; nothing is trained to find unsafe rows, and safe "
        "rows are not used"
    )
    if s.label_field:
        say(
            "Rows with a verdict have no score: AUC is of the others; precision and recall count the judged ones"
        )
    return found


def _hash_of_verdicts(verdicts: Sequence[vetted.Verdict]) -> str:
    return runs.sha256_of(f"{v.id} {v.verdict} {v.drawn}" for v in verdicts)


def content_hash(dataset: formats.Dataset) -> str:
    return runs.sha256(dataset.path) if dataset.path else dataset.digest()


def hash_of_rows(name: str) -> str:
    path = Path(_safe_path(name))
    return runs.sha256(path) if path.is_file() else runs.sha256_of(row.id for row in safe_rows(name))


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
