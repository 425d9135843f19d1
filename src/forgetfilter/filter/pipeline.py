"""The command `filter`: read, find (algorithm.py), split, write; every finished piece is kept in the run folder,
so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter import runs
from forgetfilter.data import formats, packs
from forgetfilter.display import Display
from forgetfilter.errors import DONE, TOO_WEAK, ConfigError, DataError, ModelError, unknown
from forgetfilter.filter import evidence, pairs, sample, vetted
from forgetfilter.filter.algorithm import FEWEST_SAFE, Filtered, forget_filter
from forgetfilter.filter.bench import Bench, was_read
from forgetfilter.filter.output import refuse_changed, why_unscored, write
from forgetfilter.filter.signals import GENERATED_SIGNALS, SIGNALS
from forgetfilter.models import load as models
from forgetfilter.models.rendering import Encoded, encode
from forgetfilter.records import Row, Tally
from forgetfilter.runs import Run
from forgetfilter.settings import FilterSettings, resolve

if TYPE_CHECKING:
    from rich.console import Console

FEWEST_ROWS = 2  # below this nothing can stand out


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
    _refuse_overlap(dataset, safe)
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
    content = runs.sha256_of(row.id for row in dataset.rows) if settings.verdict_field else _hash(dataset)
    inputs = {own: content} | {name: _hash_of_rows(name) for name in review_files}
    inputs["model"] = models.fingerprint(settings.model)
    hashes = inputs | ({"verdicts": _hash_of_verdicts(verdicts)} if by_hand else {})
    with Run.open(output, asdict(settings), inputs, origins) as run:
        if run.resumed:
            refuse_changed(output)
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
        for note in _rendered(dataset, loaded, tally, settings):
            notes.append(note)
            display.say(note)
        review = encode(safe, loaded.tokenizer, max_length=settings.max_length, template=settings.template)
        _refuse_unscorable(custom, dataset.source, settings.signal)
        if not only_read:
            models.suit(loaded, custom, review)
        bench = Bench(loaded, custom, settings, run, display)
        if sample.wanted(custom, settings):
            found = sample.filter_by_sample(bench, custom, review, settings)
        else:
            found = forget_filter(bench, custom, review, settings, verdicts=verdicts)
        beside = _beside(bench, dataset, safe, review, found)
        for note in [*_cut_short(custom, settings), *found.notes, *beside.notes]:
            notes.append(note)
            display.say(note)
        left_out = [out.as_dict() for out in (*dataset.left_out, *tally.left_out())]
        report = write(
            bench, dataset, found, beside, truth, notes, left_out, origins, hashes, output,
            time.monotonic() - began,
        )  # fmt: skip
        display.summary(report, output)
        return TOO_WEAK if found.cut.weak else DONE


def _rendered(dataset: formats.Dataset, loaded: models.Loaded, tally: Tally, s: FilterSettings) -> list[str]:
    """What a person should know of how the rows were written for the model."""
    paper = "The model has no chat template: rows are written in the paper's (--template)"
    by_paper = s.template == "auto" and not loaded.tokenizer.chat_template
    return [*[paper] * by_paper, *(f"{dataset.source}: {one.words}" for one in tally.left_out())]


def _cut_short(custom: Sequence[Encoded], s: FilterSettings) -> list[str]:
    """A sentence about rows longer than the limit, where there are some."""
    count = sum(z.truncated for z in custom)
    rows = "1 row is" if count == 1 else f"{count} rows are"
    said = f"{rows} longer than {s.max_length} tokens: trained and scored on what fits (--max-length)"
    return [said] if count else []


def _beside(
    bench: Bench, dataset: formats.Dataset, safe: Sequence[Row], review: Sequence[Encoded], found: Filtered
) -> evidence.Evidence:
    """What a person needs to decide about the rows that were found; of pairs, the rejected answers' scores."""
    s = bench.settings
    other = encode(dataset.rejected, bench.loaded.tokenizer, max_length=s.max_length, template=s.template)
    of_pairs = pairs.judge(bench, dataset.rejected, other, bench.custom, found)
    return evidence.gather(bench, dataset.rows, safe, review, found, of_pairs)


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


def _refuse_overlap(dataset: formats.Dataset, safe: Sequence[Row]) -> None:
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


def _hash(dataset: formats.Dataset) -> str:
    return runs.sha256(dataset.path) if dataset.path else dataset.digest()


def _hash_of_rows(name: str) -> str:
    path = Path(_safe_path(name))
    return runs.sha256(path) if path.is_file() else runs.sha256_of(row.id for row in safe_rows(name))


def _refuse_unscorable(custom: Sequence[Encoded], source: str, signal: str) -> None:
    if not any(z.completion_ids if signal in GENERATED_SIGNALS else any(z.scored) for z in custom):
        raise DataError(f"{source}: no row can be scored: {why_unscored(custom[0])}")


# model -> custom rows, safe rows, and whether these are of one source
DEMO = {"smollm2": ("demo", "pack:demo-safe", "same"), "nano": ("nano-demo", "pack:nano-safe", "other")}
