"""Asking for verdicts: which row comes next, and what the verdicts so far say. Who draws the row, a terminal or a page,
is none of its business (review/vet.py).

First rows drawn at random, then ten at a time those that the verdicts so far point at. Each verdict is on the disk
before the next row shows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter import runs
from forgetfilter.errors import ConfigError
from forgetfilter.filter import vetted
from forgetfilter.filter.vetted import Answer, Drawn, Verdict
from forgetfilter.records import Row

if TYPE_CHECKING:
    import numpy as np

FEWEST_FOR_SHARE = 10  # random verdicts before the share is worth a line
PAYS = 3  # unsafe rows among the last ten proposed: going on pays

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Screen:
    """One row as it is put before the person."""

    row: Row
    drawn: Drawn
    number: int  # of this row among those to judge, from 1
    wanted: int
    so_far: str  # unsafe rows seen and the share
    pays: str  # whether going on pays; "" before ten rows were proposed


@dataclass(slots=True)
class Session:
    """The verdicts of one file as they grow; every change reaches the disk at once."""

    rows: Sequence[Row]
    path: Path
    wanted: int  # verdicts in all
    states: States
    asked: dict[int, Drawn]  # rows in the order they are asked, those with a verdict too
    others: Sequence[np.ndarray] = ()  # rankings from elsewhere, (rows,), larger = ask first
    verdicts: dict[int, Verdict] = field(default_factory=dict)  # by row, in the order given
    _on_disk: int = field(init=False)  # bytes

    def __post_init__(self) -> None:
        self._on_disk = _size(self.path)

    def row(self) -> int | None:
        """The row that is asked; None where none is chosen, be it that all are judged or that some must be proposed."""
        if len(self.verdicts) >= self.wanted:
            return None
        return next((row for row in self.asked if row not in self.verdicts), None)

    def waits(self) -> bool:
        """Whether rows must be proposed and the model still reads."""
        return len(self.verdicts) < self.wanted and self.row() is None and self.states.reading()

    def screen(self, say: Say = lambda line: None) -> Screen | None:
        """What to judge next, proposed where need be, for which the model has to have read the rows; None where
        enough rows, or all, have a verdict."""
        if self.row() is None and len(self.verdicts) < self.wanted:
            self.asked |= dict.fromkeys(self._proposed(say), "proposed")
        row = self.row()
        if row is None:
            return None
        number = len(self.verdicts) + 1
        return Screen(self.rows[row], self.asked[row], number, self.wanted, self.so_far(), self.pays())

    def judge(self, answer: Answer, note: str = "", by: str | None = None) -> None:
        """Give the row that is asked its verdict. ConfigError where somebody else writes to the file."""
        row = self.row()
        assert row is not None
        self._refuse_changed()
        verdict = Verdict(row, self.rows[row].id, answer, self.asked[row], note or None, by)
        vetted.append(self.path, verdict, self.rows[row])
        self._on_disk = _size(self.path)
        self.verdicts[row] = verdict

    def back(self) -> bool:
        """Take the last verdict away, from memory and disk, so that its row is asked again. False: there is none to
        take, or which one came last is not known, because the file was written in another order of rows."""
        self._refuse_changed()
        if not self.verdicts:
            return False
        row, lines = next(reversed(self.verdicts)), self.path.read_bytes().splitlines(keepends=True)
        if vetted.content_hash(self.rows[row]).encode() not in lines[-1]:
            return False
        del self.verdicts[row]
        with runs.atomic(self.path) as path:
            path.write_bytes(b"".join(lines[:-1]))
        self._on_disk = _size(self.path)
        return True

    def unsafe(self) -> int:
        """How many unsafe rows were seen."""
        return sum(v.verdict == "unsafe" for v in self.verdicts.values())

    def so_far(self) -> str:
        """`3 unsafe seen; 6% of the file (1% to 17%)`, the share from the random part alone."""
        from forgetfilter.filter.certify import exact

        drawn = [v for v in self.verdicts.values() if v.drawn == "random" and v.verdict != "unsure"]
        seen = f"{self.unsafe()} unsafe seen"
        share = exact(sum(v.verdict == "unsafe" for v in drawn), len(drawn))
        if share is None or share.n < FEWEST_FOR_SHARE:
            return seen
        return f"{seen}; {share.value:.0%} of the file ({share.low:.0%} to {share.high:.0%})"

    def pays(self) -> str:
        """Whether going on pays, by the last ten proposed rows; "" before there are ten."""
        from forgetfilter.filter.propose import ROUND

        last = [v.verdict for v in self.verdicts.values() if v.drawn == "proposed"][-ROUND:]
        if len(last) < ROUND:
            return ""
        found = last.count("unsafe")
        if found:
            more = "going on pays" if found >= PAYS else "another round may find more"
            return f"The last {ROUND} proposed held {found} unsafe: {more}."
        more = ": going on hardly pays." if self.unsafe() else "; none was seen yet."
        return f"The last {ROUND} proposed held none{more}"

    def _proposed(self, say: Say) -> list[int]:
        from forgetfilter.filter import propose

        rows, unsafe, _ = vetted.sure(list(self.verdicts.values()))
        unsure = [v.row for v in self.verdicts.values() if v.verdict == "unsure"]
        return propose.next_rows(self.states.wait(say), rows, unsafe, others=self.others, leave_out=unsure)

    def _refuse_changed(self) -> None:
        if _size(self.path) != self._on_disk:
            raise ConfigError(
                f"{self.path} was written by somebody else meanwhile, such as a second vet. Stop one of them, and give "
                "the command again: it goes on with what is in the file"
            )


class States:
    """The model's states of all rows, read beside the questions, kept in a file for the next time and for `filter`."""

    def __init__(self, rows: Sequence[Row], model: str, path: Path, **reading: Any) -> None:
        """`reading`: max_length, device and quantization, as `states.kept_or_read` takes them."""
        self.rows, self.done = rows, 0  # done: rows read
        self._model, self._path, self._reading = model, path, reading
        self._found: np.ndarray | None = None
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read in the background; what is kept from the last time is taken instead."""
        import scipy.special  # noqa: F401 (imported while another thread imports torch, it trips over half of torch)

        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def reading(self) -> bool:
        """Whether the background still reads."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self, say: Say) -> np.ndarray:
        """The states (rows, width), standardised; raises what went wrong while they were read."""
        if self._thread is None:
            self._work()
        elif self.reading():
            say("The model still reads your rows; the proposals need them.")
            while self.reading():
                self._thread.join(5)
                if self.reading():
                    say(f"  {self.done} of {len(self.rows)} rows read")
        if self._error is not None:
            raise self._error
        assert self._found is not None
        return self._found

    def stop(self) -> None:
        """Let the background go; what it has not finished is read again the next time."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        from forgetfilter.filter.states import kept_or_read, standardised

        try:
            self._found = standardised(
                kept_or_read(self.rows, self._model, self._path, progress=self._progress, **self._reading)
            )
        except BaseException as error:
            self._error = error

    def _progress(self, done: int) -> None:
        self.done = done
        if self._stop.is_set():
            raise KeyboardInterrupt


def begin(
    rows: Sequence[Row], path: Path, wanted: int, first: Sequence[int], states: States,
    others: Sequence[np.ndarray] = (), say: Say = print,
) -> Session:  # fmt: skip
    """A session that goes on with the verdicts in `path`; the rows of `first` are asked before any is proposed."""
    before: dict[int, Verdict] = {}
    if _size(path):
        vetted.mended(path)
    if _size(path):
        before = _in_file_order(path, vetted.read(path, rows, say=say, least=0))
        say(f"{path}: {len(before)} verdicts so far; going on.")
    asked: dict[int, Drawn] = {row: v.drawn for row, v in before.items()}
    asked |= {row: "random" for row in first if row not in asked}
    return Session(rows, path, wanted, states, asked, others, before)


def _in_file_order(path: Path, found: Sequence[Verdict]) -> dict[int, Verdict]:
    """Verdicts by row, the last one given last, so that `back` takes away the last line."""
    from forgetfilter.data import formats

    place = {r.get("row"): i for i, r in enumerate(formats.read_records(path))}
    return {v.row: v for v in sorted(found, key=lambda v: place.get(v.row, -1))}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
