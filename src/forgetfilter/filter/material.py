"""What a filter run works on: custom rows, safe rows and verdicts, read and checked before anything is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forgetfilter import runs
from forgetfilter.data import formats, handback, packs
from forgetfilter.errors import ConfigError, DataError, unknown
from forgetfilter.filter import vetted
from forgetfilter.filter.signals import SIGNALS
from forgetfilter.records import Row
from forgetfilter.settings import FilterSettings
from forgetfilter.training import reports

FEWEST_ROWS = 2  # below this nothing can stand out
FEWEST_SAFE = 20  # fewer leave too few witnesses

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Material:
    """Custom rows, safe rows, verdicts, and what is known of them before a model is loaded."""

    dataset: formats.Dataset
    safe: Sequence[Row]
    verdicts: Sequence[vetted.Verdict]
    truth: Mapping[str, bool] | None  # row id -> unsafe; read where quality is measured, nowhere else
    inputs: Mapping[str, str]  # what makes it this very run: name of an input -> SHA-256 of its content
    verdicts_hash: str | None
    notes: list[str]  # all that was said, for the report
    began: float  # time.monotonic when reading began


def read(input: Any, s: FilterSettings, say: Say, *, safe: Sequence[Any] | None = None) -> Material:
    """Read and check everything the settings name; `input` is anything `formats.read` takes.

    `safe` holds the safe rows where `s.safe` does not name files or packs (`given.store`). DataError and ConfigError
    say what the user can mend.
    """
    began, notes = time.monotonic(), list[str]()

    def tell(line: str) -> None:
        notes.append(line)
        say(line)

    dataset = formats.read(input, format=s.data_format, fields=fields(s), truth=s.label_field)
    by_hand = s.algorithm == "vetted"
    sources: Sequence[Any] = () if by_hand else s.safe if safe is None else safe
    rows = [row for source in sources for row in safe_rows(source, fields(s))]
    if s.algorithm == "witness":
        rows = _each_once(rows, tell)
    _refuse_too_few(dataset)
    if s.weights:
        handback.refuse_column(dataset, "weight")
    refuse_overlap(dataset, rows)
    _refuse_few_safe(rows, s)
    truth = _truth(dataset, s)
    for note in dataset.notes:
        tell(note)
    verdicts = _verdicts(dataset, s, tell) if by_hand else []
    names = [] if by_hand else list(s.safe)
    if names and {*names} <= {f"pack:{pack}" for pack in packs.BY_HARM}:
        tell(
            f"safe rows: {', '.join(s.safe)}, bundled; such rows find harmful answers hidden among tasks. Biased "
            "answers and toxic posts need safe rows of your file's own source (--safe)"
        )
    own = f"custom {dataset.source}" if dataset.source in names else dataset.source
    # Verdicts may be added between two runs of a command; they are recorded, and are not part of what it is.
    content = runs.sha256_of(row.id for row in dataset.rows) if s.verdict_field else content_hash(dataset)
    hashes = {own: content} | {n: hash_of_rows(one) for n, one in zip(names, sources, strict=True)}
    spoken = runs.sha256_of(f"{v.id} {v.verdict} {v.drawn}" for v in verdicts) if by_hand else None
    return Material(dataset, rows, verdicts, truth, hashes, spoken, notes, began)


def fields(s: FilterSettings) -> dict[str, str]:
    """Field -> its name in the user's file, for those that were named."""
    given = {
        "prompt": s.prompt_field,
        "completion": s.completion_field,
        "messages": s.messages_field,
        "text": s.text_field,
    }
    return {name: value for name, value in given.items() if value is not None}


def safe_rows(source: Any, named: Mapping[str, str] | None = None) -> Sequence[Row]:
    """The rows of a file, a bundled pack or a store that have something to review; DataError where none has.

    `named` as of `rows_beside`.
    """
    rows = rows_beside(_safe_path(source), named)
    usable = [row for row in rows if row.completion.strip() and row.teaches]
    if not usable:
        name = source if isinstance(source, str) else "safe rows"
        raise DataError(f"{name}: no safe row with a completion; the review needs some")
    return usable


def rows_beside(source: Any, named: Mapping[str, str] | None = None) -> Sequence[Row]:
    """The rows of a file that is given beside the custom rows.

    `named` (see `fields`) is how the custom rows' fields are called; tried where the file has no format by itself.
    """
    try:
        return formats.read(source).rows
    except DataError:
        if not named:
            raise
        return formats.read(source, fields=named).rows


def settled(s: FilterSettings) -> FilterSettings:
    """The settings a run goes by, after those that do not go together were refused with ConfigError."""
    refuse_mismatch(s)
    reports.refuse_unusable(s.report_to)
    return with_packs_apart(s)


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
            f"algorithm {s.algorithm} does not read verdicts; leave out --algorithm and --preset, or --vetted and "
            "--verdict-field"
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


def _safe_path(source: Any) -> Any:
    return str(packs.path(source)) if isinstance(source, str) and source.startswith("pack:") else source


def _refuse_too_few(dataset: formats.Dataset) -> None:
    if len(dataset.rows) < FEWEST_ROWS:
        raise DataError(f"{dataset.notes[0]}; a filter compares rows with each other and needs at least 2")


def _each_once(safe: Sequence[Row], say: Say) -> list[Row]:
    """Without rows that say the same as an earlier one: it would be reviewed, and be a witness that was not."""
    once = {row.messages: row for row in reversed(safe)}
    if len(once) < len(safe):
        say(
            f"safe rows: {len(safe)} of which {len(safe) - len(once)} say the same as another; each counts once"
        )
    return [row for row in safe if once[row.messages] is row]


def _refuse_few_safe(safe: Sequence[Row], s: FilterSettings) -> None:
    if s.algorithm == "witness" and len(safe) < FEWEST_SAFE:
        raise DataError(
            f"{', '.join(s.safe)}: {len(safe)} safe rows; at least {FEWEST_SAFE} are needed, half of them as "
            "witnesses. Add some, or use a bundled pack beside them (--safe pack:harmfulness)"
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


def _verdicts(dataset: formats.Dataset, s: FilterSettings, say: Say) -> list[vetted.Verdict]:
    """The verdicts that the settings name; what a person should know of them is said."""
    if s.vetted:
        found = vetted.read(s.vetted, dataset.rows, say=say)
    else:
        found = vetted.from_column(dataset.rows, str(s.verdict_field), say=say)
    where = s.vetted or f'column "{s.verdict_field}"'
    say(
        f"algorithm vetted: {len(found)} verdicts ({where}) decide; nothing is trained to find unsafe rows, and safe "
        "rows are not used"
    )
    plain = FilterSettings()
    others = [n for n in ("signal", "max_train_samples") if getattr(s, n) != getattr(plain, n)]
    if others:
        say(f"not used with verdicts: {' and '.join('--' + n.replace('_', '-') for n in others)}")
    if s.label_field:
        say(
            "Rows with a verdict have no score: AUC is of the others; precision and recall count the judged ones"
        )
    return found


def content_hash(dataset: formats.Dataset) -> str:
    """SHA-256 of a data set's file, or of what was read where there are several or none."""
    return runs.sha256(dataset.path) if dataset.path else dataset.digest()


def hash_of_rows(source: Any) -> str:
    """SHA-256 of a file or pack of safe rows; of the rows' ids where they are in no single file."""
    path = _safe_path(source)
    if isinstance(path, str) and Path(path).is_file():
        return runs.sha256(path)
    return runs.sha256_of(row.id for row in safe_rows(source))
