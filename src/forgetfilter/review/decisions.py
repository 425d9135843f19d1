"""What reviewers decide: one line a decision in a verdict file, on disk before the page hears of it.

Several servers and several people may write to one file: a lock orders them, nobody's line is taken for another's.
"""

from __future__ import annotations

import fcntl
import json
import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from forgetfilter import runs
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.filter import vetted
from forgetfilter.filter.vetted import Answer, Verdict
from forgetfilter.records import Row

NAME = "review.jsonl"
NONE, CLEAN, UNSAFE, UNSURE = range(4)  # what is said of a row, in the array `said`
CODES: Mapping[Answer, int] = {"clean": CLEAN, "unsafe": UNSAFE, "unsure": UNSURE}


class Change(NamedTuple):
    """What one reviewer did to one row."""

    row: int
    before: Answer | None
    after: Answer | None


class OtherwiseError(Exception):
    """The row has another verdict under this name than the one the reviewer saw."""

    def __init__(self, found: Answer | None) -> None:
        super().__init__(found)
        self.found = found


@dataclass(slots=True)
class Decisions:
    """The verdict file of a run of `rows` rows, as it is on disk."""

    path: Path
    rows: int
    said: np.ndarray = field(init=False)  # (rows,), uint8: NONE, CLEAN, UNSAFE or UNSURE
    given: dict[int, dict[str, Answer]] = field(default_factory=dict)  # row -> reviewer -> verdict
    version: int = 0  # grows with every change, also by others
    _seen: tuple[int, int, int] | None = None  # inode, size, time of what was read
    _done: dict[str, list[Change]] = field(default_factory=dict)  # by reviewer, for undo
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.said = np.zeros(self.rows, np.uint8)
        with self._alone():
            pass

    def refresh(self) -> int:
        """Take in what others wrote; returns `version`."""
        with self._lock:
            if _stamp(self.path) != self._seen:
                with self._alone():
                    pass
            return self.version

    def give(
        self, row: int, verdict: Answer | None, by: str, text: Row | None, *, expects: Answer | None
    ) -> Change:
        """Put `by`'s verdict on a row, or take it back (None); on disk when this returns.

        `text` is the row's turns, None where they cannot be read. `expects` is what the reviewer saw there;
        OtherwiseError where it is something else by now.
        """
        with self._alone():
            change = self._give(row, verdict, by, text, expects)
            if change.before != change.after:
                self._done.setdefault(by, []).append(change)
            return change

    def undo(self, by: str, text: Callable[[int], Row | None]) -> Change | None:
        """Put back what `by` changed last; after a restart, take back their last line. None: nothing to undo.

        `text` gives a row's turns by its number. OtherwiseError where the row was changed since under this name from
        elsewhere: that change is let be, and the next undo goes to the one before.
        """
        with self._alone():
            history = self._done.get(by, [])
            if history:
                last = history[-1]
            else:
                own = [row for row, people in self._in_file_order() if people == by]
                if not own:
                    return None
                last = Change(own[-1], None, self.given[own[-1]][by])
            try:
                change = self._give(last.row, last.before, by, text(last.row), last.after)
            except OtherwiseError:
                history[-1:] = []
                raise
            history[-1:] = []
            return change

    def _give(
        self, row: int, verdict: Answer | None, by: str, text: Row | None, expects: Answer | None
    ) -> Change:
        before = self.given.get(row, {}).get(by)
        if before != expects:
            raise OtherwiseError(before)
        if before != verdict:
            line = vetted.line(Verdict(row, "", verdict, "proposed", by=by or None), text) if verdict else ""
            if before is None:
                _append(self.path, line)
            else:
                self._replace(row, by, line)
            self._note(row, by, verdict)
            self._seen = _stamp(self.path)
            self.version += 1
        return Change(row, before, verdict)

    @contextmanager
    def _alone(self) -> Generator[None]:
        """No other thread or process writes meanwhile, and what they wrote before is known."""
        with self._lock:
            try:
                lock = self.path.with_name(f".{self.path.name}.lock").open("a")
            except OSError as error:
                raise ConfigError(
                    f"{self.path.parent}: decisions cannot be written here ({error.strerror}). Copy the run to a "
                    "folder of yours"
                ) from error
            with lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if _stamp(self.path) != self._seen:
                    self._read()
                yield

    def _read(self) -> None:
        entries: list[tuple[int, str, Answer]] = []
        if self.path.exists():
            try:
                vetted.mended(self.path)
                entries = list(_entries(self.path, self.rows))
            except OSError as error:
                raise ConfigError(
                    f"{self.path}: decisions cannot be read ({error.strerror or error}). Move it away, or make it "
                    "yours to read and write"
                ) from error
        read: dict[int, dict[str, Answer]] = {}
        for row, by, given in entries:
            read.setdefault(row, {})[by] = given
        said = np.zeros(self.rows, np.uint8)
        for row, people in read.items():
            said[row] = _settled(people)
        self.given, self.said = read, said  # at once: others read meanwhile
        self._seen = _stamp(self.path)
        self.version += 1

    def _in_file_order(self) -> list[tuple[int, str]]:
        return [(row, by) for row, by, _ in _entries(self.path, self.rows)] if self.path.exists() else []

    def _note(self, row: int, by: str, given: Answer | None) -> None:
        # A dictionary of its own: another thread may be reading the one there was.
        people = {who: one for who, one in self.given.get(row, {}).items() if who != by}
        if given:
            people[by] = given
        self.said[row] = _settled(people)
        if people:
            self.given[row] = people
        else:
            self.given.pop(row, None)

    def _replace(self, row: int, by: str, line: str) -> None:
        kept = [raw for raw in self.path.read_bytes().splitlines(keepends=True) if not _is_of(raw, row, by)]
        with runs.atomic(self.path) as path:
            path.write_bytes(b"".join(kept) + line.encode())


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="ascii") as file:
        runs.put_down(file, line)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _is_of(raw: bytes, row: int, by: str) -> bool:
    if not raw.strip():
        return False
    line = json.loads(raw)
    return line["row"] == row and str(line.get("by") or "") == by


def _entries(path: Path, rows: int) -> Generator[tuple[int, str, Answer]]:
    """Row, reviewer and verdict of each line. DataError, naming the line, for what is none."""
    known: dict[tuple[int, str], tuple[str, int]] = {}
    for number, raw in enumerate(path.read_bytes().splitlines(), start=1):
        if not raw.strip():
            continue
        row, by, given = _entry(f"{path} line {number}", raw, rows)
        said, first = known.setdefault((row, by), (given, number))
        if said != given:
            raise DataError(
                f"{path} line {number}: row {row} is {given} here and {said} in line {first}. "
                "Delete one of the lines"
            )
        yield row, by, given


def _entry(place: str, raw: bytes, rows: int) -> tuple[int, str, Answer]:
    try:
        line = json.loads(raw)
        row, verdict, drawn = line["row"], line["verdict"], line.get("drawn", "random")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{place}: no verdict ({raw[:60].decode('utf-8', 'replace')!r}). Mend it, such as "
            '{"row": 12, "verdict": "unsafe"}, or delete the line'
        ) from None
    if isinstance(row, bool) or not isinstance(row, int) or not 0 <= row < rows:
        raise DataError(
            f'{place}: "row" is {str(row)[:40]!r}; the run has rows 0 to {rows - 1:,}. Mend or delete the line'
        )
    answer = vetted.WORDS.get(str(verdict).strip().lower())
    if answer is None or drawn not in ("random", "proposed"):
        name, value = ("verdict", verdict) if answer is None else ("drawn", drawn)
        known = ", ".join(CODES) if answer is None else "random, proposed"
        raise DataError(f'{place}: "{name}" is {str(value)[:40]!r}; known: {known}. Mend or delete the line')
    return row, str(line.get("by") or ""), answer


def _settled(people: Mapping[str, Answer]) -> int:
    """The majority's verdict; a tie is unsure."""
    if not people:
        return NONE
    votes = Counter(people.values()).most_common()
    tie = len(votes) > 1 and votes[0][1] == votes[1][1]
    return UNSURE if tie else CODES[votes[0][0]]
