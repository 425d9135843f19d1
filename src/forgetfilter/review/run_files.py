"""What a run folder holds, row by row: numbers in memory, text and reasons on disk until they are asked for."""

from __future__ import annotations

import json
import re
import threading
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from forgetfilter import runs
from forgetfilter.data.rejoin import Piece, is_as_scored, rejoin, reread
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.records import Row
from forgetfilter.report.heat import strongest
from forgetfilter.report.text import finite

if TYPE_CHECKING:
    from forgetfilter.data.formats import Dataset

# In the order of their codes in every array here. Kept here as words: a run may know others than this version.
DECISIONS = ("drop", "flag", "keep", "not judged", "unscored")
DROP, FLAG, KEEP, NOT_JUDGED, UNSCORED = range(len(DECISIONS))
CODES = {word: code for code, word in enumerate(DECISIONS)}
FILES = ("dropped", "flagged", "kept", "kept", "kept")  # the file that holds the rows of each
SAMPLED = 300  # rows whose heat decides how strongly forgetting is drawn
NUMBERS = ("score", "forgetting", "p")  # of a row, larger = more likely unsafe but for p


@dataclass(eq=False)
class RunFiles:
    """A finished run. Arrays are (rows,), in the input's order; nan where a row has no such number."""

    folder: Path
    report: Mapping[str, Any]
    ids: list[str]
    decision: np.ndarray  # uint8, see DECISIONS
    numbers: Mapping[str, np.ndarray]  # float64, by name of NUMBERS
    lines: array[int]  # where each row's line of scores.jsonl begins
    heat: Mapping[int, int]  # row -> where its line of heat.jsonl begins
    answers: Mapping[str, Path]  # model state -> its answers.jsonl
    _data: list[Dataset] = field(default_factory=list)
    _joining: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def score(self) -> np.ndarray:
        """What the cut cuts; larger = more likely unsafe."""
        return self.numbers["score"]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The run's settings by name."""
        listed = self.report.get("settings") or []
        return {str(s["name"]): s.get("value") for s in listed if isinstance(s, Mapping) and "name" in s}

    @property
    def truth(self) -> str | None:
        """The column of labels that the run was told of; read for no decision, only not taken for a KTO label."""
        name = self.settings.get("label_field")
        return name if isinstance(name, str) else None

    @property
    def threshold(self) -> Mapping[str, Any]:
        """How the run cut: value, method, why, and more."""
        found = self.report.get("threshold")
        return found if isinstance(found, Mapping) else {}

    @property
    def cut(self) -> float | None:
        """The score the run cut at, None where it made no cut."""
        return finite(self.threshold.get("value"))

    @property
    def source(self) -> str:
        """What the input was called, without folders."""
        found = self.report.get("input")
        return str(found.get("file")) if isinstance(found, Mapping) else str(found)

    @property
    def data(self) -> Dataset:
        """The input, put together from the run's files when first asked for."""
        with self._joining:
            if not self._data:
                self._data.append(_data(self))
            return self._data[0]

    def row(self, number: int) -> Row | None:
        """A row's turns; None where no format fits or the row is not what was scored."""
        row = self.peek(number)
        return row if row is not None and is_as_scored(self.data, row) else None

    def peek(self, number: int) -> Row | None:
        """A row's turns as its file has them now; None where no format fits."""
        return reread(self.data, number, self.truth)

    def record(self, number: int) -> Mapping[str, Any]:
        """A row as it stands in its file, every field."""
        part = next(p for p in self.data.parts if p.first <= number < p.first + len(p.keys))
        return part.store.get(number - part.first)

    def line(self, number: int) -> dict[str, Any]:
        """What scores.jsonl says of a row."""
        path = self.folder / "scores.jsonl"
        with path.open("rb") as file:
            file.seek(self.lines[number])
            return _parsed(path, number, file.readline())

    def tokens(self, number: int) -> list[tuple[str, float]] | None:
        """Pieces of the completion, each with the nats forgotten; None where that is not on disk."""
        if number not in self.heat:
            return None
        try:
            found = _line_at(self.folder / HEAT, self.heat[number])["tokens"]
            return [(str(piece), float(nats)) for piece, nats in found]
        except (ValueError, TypeError, KeyError, UnicodeError):  # damaged: the row is shown without
            return None

    @cached_property
    def ceiling(self) -> float:
        """The forgetting drawn strongest, in nats, by the first rows that have a heat map."""
        return strongest(map(self.tokens, islice(self.heat, SAMPLED)))

    def said_by(self, number: int) -> dict[str, str]:
        """Model state -> what it answered to the row's prompt, where the run let it answer."""
        places = {state: lines.get(self.ids[number]) for state, lines in self._answered.items()}
        return {
            state: str(_line_at(self.answers[state], place).get("answer", ""))
            for state, place in places.items()
            if place is not None
        }

    @cached_property
    def _answered(self) -> dict[str, dict[str, int]]:
        """Model state -> row id -> where the line of its answer begins."""
        found: dict[str, dict[str, int]] = {}
        for state, path in self.answers.items():
            at = 0
            with path.open("rb") as file:
                for raw in file:
                    found.setdefault(state, {})[json.loads(raw)["id"]] = at
                    at += len(raw)
        return found


def open_run(folder: Path) -> RunFiles:
    """The files of a finished run. ConfigError, with what to do, where it is unfinished, newer or damaged."""
    report = _report(folder)
    _refuse_newer(folder, report)
    path = folder / "scores.jsonl"
    ids, codes, lines = list[str](), array("B"), array("q")
    numbers = {name: array("d") for name in NUMBERS}
    at = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file):
            line = _parsed(path, number, raw)
            ids.append(line["id"])
            codes.append(CODES[line["decision"]])
            lines.append(at)
            for name, values in numbers.items():
                values.append(_number(line.get(name)))
            at += len(raw)
    _refuse_other_count(folder, report, len(ids))
    return RunFiles(
        folder, report, ids, np.array(codes, np.uint8), {n: np.array(v) for n, v in numbers.items()}, lines,
        _heat(folder), {p.parent.name.removeprefix("generate-"): p for p in folder.glob(ANSWERS)},
    )  # fmt: skip


def refuse_changed(run: RunFiles) -> None:
    """ConfigError where a file of rows is not the one that the run wrote."""
    for name, digest in (run.report.get("files") or {}).items():
        path = run.folder / name
        if not path.is_file():
            raise ConfigError(
                f"{path}: is gone since the run. Put it back, or run the same filter command again"
            )
        if runs.sha256(path) != digest:
            raise ConfigError(
                f"{path}: was changed since the run wrote it. Put the old one back, or filter into another folder"
            )


def _report(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder. Name the output folder of a finished filter run")
    path = folder / "report.json"
    if not path.exists():
        if (folder / "settings.yaml").exists():
            raise ConfigError(
                f"{folder}: the run is not finished (no report.json). Run its filter command again: it resumes"
            )
        raise ConfigError(f"{folder}: holds no run. Name the output folder of a finished filter run")
    try:
        report = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Run the same filter command again") from error
    if not isinstance(report, dict) or not (folder / "scores.jsonl").is_file():
        what = "no scores.jsonl" if isinstance(report, dict) else "report.json is no report"
        raise ConfigError(f"{folder}: the run is not whole ({what}). Run the same filter command again")
    for name, (kind, word) in REPORTED.items():
        if report.get(name) is not None and not isinstance(report[name], kind):
            raise ConfigError(
                f'{path}: "{name}" is no {word}. The file was changed: run the same filter command again'
            )
    return report


def _refuse_newer(folder: Path, report: Mapping[str, Any]) -> None:
    """A later minor version may have files of another meaning."""
    there = (report.get("versions") or {}).get("forgetfilter")
    here = runs.versions()["forgetfilter"]
    if isinstance(there, str) and here and _version(there) > _version(here):
        raise ConfigError(
            f"{folder}: is a run of forgetfilter {there}, this is {here}. Upgrade: pip install -U forgetfilter"
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text.split("+")[0])[:2])


def _parsed(path: Path, number: int, raw: bytes) -> dict[str, Any]:
    try:
        line = json.loads(raw.decode())
        if line["row"] == number and isinstance(line["id"], str) and line["decision"] in CODES:
            int(line["id"].partition("-")[0], 16)
            return line
        found = f"row {line['row']}, decision {str(line['decision'])[:40]!r}"
    except (ValueError, KeyError, TypeError, AttributeError):
        found = "no line of a run"
    raise ConfigError(
        f"{path} line {number + 1}: {found}; expected row {number} with a decision of "
        f"{', '.join(DECISIONS)}. The file was changed, or a newer version wrote it: run its filter command again"
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan


def _refuse_other_count(folder: Path, report: Mapping[str, Any], rows: int) -> None:
    stated = (report.get("counts") or {}).get("rows", rows)
    if stated != rows:
        raise ConfigError(
            f"{folder / 'scores.jsonl'}: {rows:,} lines, report.json says {stated} rows. "
            "Run the same filter command again"
        )


def _data(run: RunFiles) -> Dataset:
    s = {name: value for name, value in run.settings.items() if isinstance(value, str)}
    pieces = []
    for name in dict.fromkeys(FILES):
        codes = [code for code, file in enumerate(FILES) if file == name]
        pieces.append(Piece(_piece(run.folder, name), np.flatnonzero(np.isin(run.decision, codes))))
    fields = {n: s[f"{n}_field"] for n in ("prompt", "completion", "messages", "text") if s.get(f"{n}_field")}
    return rejoin(
        pieces, run.ids, run.source, format=s.get("data_format"), fields=fields, truth=s.get("label_field"),
        read_as=_read_as(run.report.get("input")),
    )  # fmt: skip


def _read_as(found: Any) -> list[Mapping[str, Any]]:
    """How a trainer's list had the files read, where the report says so."""
    listed = found.get("read_as") if isinstance(found, Mapping) else None
    return [
        one for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and {"file", "format", "columns"} <= set(one) and isinstance(one["columns"], dict)
    ]  # fmt: skip


def _piece(folder: Path, stem: str) -> Path:
    found = [p for p in folder.iterdir() if p.name == stem or p.name.startswith(f"{stem}.")]
    if len(found) != 1:
        what = f"no {stem}.* there" if not found else f"several: {', '.join(sorted(p.name for p in found))}"
        raise DataError(
            f"{folder}: {what}. The run's own {stem} file is needed: put it back, or filter again"
        )
    return found[0]


def _heat(folder: Path) -> dict[int, int]:
    """Where each row's heat map begins; {} of a run without."""
    path, found, at = folder / HEAT, dict[int, int](), 0
    if not path.is_file():
        return found
    with path.open("rb") as file:
        for raw in file:
            if row := HEAT_ROW.match(raw):
                found[int(row[1])] = at
            at += len(raw)
    return found


def _line_at(path: Path, place: int) -> dict[str, Any]:
    with path.open("rb") as file:
        file.seek(place)
        return cast("dict[str, Any]", json.loads(file.readline()))


# What report.json holds of each kind, where it holds it.
REPORTED: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "counts": (dict, "object"), "versions": (dict, "object"), "files": (dict, "object"),
    "threshold": (dict, "object"), "settings": (list, "list"), "limits": (list, "list"),
    "input": ((dict, str), "object"),
}  # fmt: skip
HEAT = "heat.jsonl"
HEAT_ROW = re.compile(rb'\{"row": (\d+),')
ANSWERS = "stages/generate-*/answers.jsonl"
