"""The filter as a Python function: rows in memory or in a file -> each row's score, decision and reason."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.data import formats, given
from forgetfilter.errors import TOO_WEAK, ConfigError
from forgetfilter.records import KEPT, Decision
from forgetfilter.settings import FilterSettings, resolve

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from forgetfilter.models.load import Loaded
    from forgetfilter.models.spec import Size

DECIDED = ("dtype", "device", "quantization")  # by a model that comes loaded
SCORE, DECISION = "forgetfilter_score", "forgetfilter_decision"  # columns of `to_dataset`


@dataclass(frozen=True, slots=True)
class FilterResult:
    """What the filter found. `scores`, `decisions` and `reasons` have one entry per row, in the order given."""

    scores: Sequence[float | None]
    """How far each row stands out: larger = more likely unsafe. Without unit, and comparable within one run only.
    None where a row was not scored: it is of a kind that no safe row speaks of, has no answer, or has a verdict."""
    decisions: Sequence[Decision]
    """keep, flag, drop, not judged or unscored; rows that were not judged or not scored are kept."""
    reasons: Sequence[str]
    """Why, in a few words."""
    report: Mapping[str, Any]
    """The content of report.json: counts, cut, estimates with intervals, cost, settings with origin, notes."""
    weak: bool
    """Whether the signal was too weak to cut (exit code 3): then nothing was dropped but rows you judged unsafe."""
    rows: Any
    """The rows as given; the records of a file where a path was given."""

    @property
    def kept(self) -> Any:
        """Rows to train on: neither dropped nor flagged.

        As they were given: a Dataset of a Dataset, a DataFrame of a DataFrame, else a list of the same objects.
        """
        return self._where(KEPT)

    @property
    def dropped(self) -> Any:
        """Rows that are likely unsafe; as `kept`."""
        return self._where(("drop",))

    @property
    def flagged(self) -> Any:
        """Rows in doubt, to be looked at; as `kept`."""
        return self._where(("flag",))

    def to_dataset(self) -> Dataset:
        """All rows with the columns `forgetfilter_score` (float, null where None) and `forgetfilter_decision`.

        Raises DataError where the rows have such a column already, or make no table.
        """
        return given.with_columns(self.rows, {SCORE: self.scores, DECISION: self.decisions})

    def _where(self, decisions: Sequence[Decision]) -> Any:
        return given.chosen(self.rows, [i for i, d in enumerate(self.decisions) if d in decisions])


def filter_rows(
    rows: Any,
    *,
    safe: Any = "pack:harmfulness",
    model: Any = "nano",
    tokenizer: PreTrainedTokenizerBase | None = None,
    vetted: Any = None,
    output_dir: str | os.PathLike[str] | None = None,
    progress: bool = False,
    **settings: Any,
) -> FilterResult:
    """Find the rows that would make `model` unsafe if it were fine-tuned on them; what `forgetfilter filter` does.

    Args:
        rows: What to filter: a list of dicts, a `datasets.Dataset` or `IterableDataset` (read into memory), a pandas
            DataFrame, or whatever the command reads: a file, a folder, a hub id. In any known format (prompt and
            completion, messages, Alpaca …), at least 2 rows.
        safe: Rows that show the behaviour you want, at least 20: the same kinds, or a bundled pack
            (`pack:harmfulness`). A list of names joins files and packs. Not used where there are verdicts.
        model: The model you are about to fine-tune: a name, folder, .gguf file or hub id, or a model of transformers
            that you have loaded, as `(model, tokenizer)` or with `tokenizer=`. A loaded model keeps its device and
            number format, is trained in place, and is given back with the weights, layers and mode it came with.
        tokenizer: The tokenizer of a loaded model.
        vetted: Verdicts on some of the rows instead of safe rows: dicts, or a table, with `row` (0-based) and `verdict`
            (clean, unsafe or unsure); or a file of them.
        output_dir: Folder that keeps the run, as the command's `--output`: the same call resumes there. Without it a
            temporary folder takes the states of the model (adapters, or all weights) while the call lasts.
        progress: Show the stages and the summary on stderr.
        **settings: Settings of the command by their Python names, such as `fdr=0.05`, `review_steps=30` or
            `preset="paper"`. `retrain` (the fine-tune on the kept rows) is off unless there is an `output_dir`.

    Returns:
        Score, decision and reason for each row, the rows by decision, and the report.

    Raises:
        ConfigError: An unknown setting, a value that is not allowed, or settings that do not go together.
        DataError: Rows, safe rows or verdicts that cannot be used as they are.
        ModelError: A model or tokenizer that cannot be loaded or used.
    """
    # Standard input can be read only once.
    rows = formats.read_records(rows) if isinstance(rows, str) and rows == "-" else rows
    named = given.is_path(rows)
    custom: Any = rows if named else given.held(rows, "rows")
    lenient = output_dir is None
    with tempfile.TemporaryDirectory(prefix="forgetfilter-") as scratch:
        output = Path(output_dir) if output_dir is not None else Path(scratch) / "run"
        safe_names, safe_sources = _safe(safe, lenient)
        chosen: dict[str, Any] = {
            **settings, "safe": safe_names, "vetted": _verdict_file(vetted, Path(scratch)),
            "retrain": settings.get("retrain", not lenient), "output_dir": None if lenient else str(output),
        }  # fmt: skip
        with _lent(model, tokenizer) as lent:
            chosen["model"] = lent.name if lent else os.fspath(model)
            _refuse_decided(settings if lent else {})
            size = _size(lent) if lent else None
            resolved = resolve(chosen.pop("preset", None), None, chosen, called=str, size=size)
            source = custom if named else given.store(custom, "rows", lenient=lenient)
            code = _run(source, resolved.settings, resolved.origins, output, progress, safe_sources, lent)
        return _result(output, formats.read_records(custom) if named else custom, code)


def _run(
    source: Any, settings: FilterSettings, origins: Mapping[str, str], output: Path, progress: bool,
    safe: Sequence[Any] | None, lent: Loaded | None,
) -> int:  # fmt: skip
    from rich.console import Console

    from forgetfilter.filter.pipeline import run_filter

    console = Console(stderr=True, markup=False, highlight=False) if progress else Console(file=io.StringIO())
    return run_filter(source, settings, origins, output, console, safe=safe, lent=lent)


def _result(output: Path, rows: Any, code: int) -> FilterResult:
    with (output / "scores.jsonl").open(encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    return FilterResult(
        [f["score"] for f in found], [f["decision"] for f in found], [f["reason"] for f in found],
        json.loads((output / "report.json").read_text(encoding="utf-8")), code == TOO_WEAK, rows,
    )  # fmt: skip


def _size(lent: Loaded) -> Size:
    from forgetfilter.models import given as models

    return models.size(lent.model)


def _refuse_decided(settings: Mapping[str, Any]) -> None:
    """ConfigError for a setting that a loaded model has decided already."""
    if decided := [name for name in DECIDED if settings.get(name) is not None]:
        raise ConfigError(f"{decided[0]}: the model that you have loaded has its own; leave it out")


def _safe(safe: Any, lenient: bool) -> tuple[tuple[str, ...], list[Any] | None]:
    """Names of the safe rows for the record, and where they are held, if they are."""
    if given.is_path(safe):
        names = safe if isinstance(safe, list | tuple) else [safe]
        return tuple(os.fspath(name) for name in names), None
    return ("safe rows",), [given.store(given.held(safe, "safe rows"), "safe rows", lenient=lenient)]


def _verdict_file(vetted: Any, scratch: Path) -> str | None:
    """The file that the verdicts lie in; those in memory are written into one."""
    if vetted is None or given.is_path(vetted):
        return None if vetted is None else os.fspath(vetted)
    path, verdicts = (
        scratch / "vetted.jsonl",
        given.store(given.held(vetted, "vetted"), "vetted", lenient=True),
    )
    verdicts.write(range(len(verdicts)), path)
    return str(path)


@contextmanager
def _lent(model: Any, tokenizer: Any) -> Generator[Loaded | None]:
    """A model that was given loaded; None where it was named."""
    if isinstance(model, tuple):
        if len(model) != 2:
            raise ConfigError(f"model: a tuple of {len(model)}; give (model, tokenizer)")
        model, tokenizer = model
    if isinstance(model, str | os.PathLike):
        if tokenizer is not None:
            raise ConfigError(
                f"tokenizer: {model} comes with its own; leave it out, or give the model loaded"
            )
        yield None
        return
    if not callable(getattr(model, "named_parameters", None)):
        raise ConfigError(f"model: a {type(model).__name__}; give a name, a path, or a model of transformers")
    from forgetfilter.models import given as lent

    with lent.borrowed(model, tokenizer) as loaded:
        yield loaded
