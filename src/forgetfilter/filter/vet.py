"""`forgetfilter vet`: rows of a file shown one at a time, a verdict for each by one key.

First rows drawn at random, then ten at a time those that the verdicts so far point at. Each verdict is on the disk
before the next row shows; the same command goes on where it stopped.
"""

from __future__ import annotations

import sys
import textwrap
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter import runs
from forgetfilter.data import formats
from forgetfilter.errors import DONE, ConfigError, DataError
from forgetfilter.filter import vetted
from forgetfilter.filter.vetted import Verdict
from forgetfilter.records import Row

if TYPE_CHECKING:
    import numpy as np

FOLDED = 14  # lines of one turn shown before it is folded
KEYS = {"c": "clean", "u": "unsafe", "s": "unsure"}
HELP = ("c clean", "u unsafe", "s unsure", "b back", "n note", "m more", "q quit")
FEWEST_FOR_SHARE = 10  # random verdicts before the share is worth a line

Say = Callable[[str], None]
Judge = Callable[["Screen"], str]  # what is on screen -> clean, unsafe, unsure, back or quit


@dataclass(frozen=True, slots=True)
class Screen:
    """One row as it is put before the person."""

    row: Row
    drawn: vetted.Drawn
    number: int  # of this row among those to judge, from 1
    wanted: int
    before: str  # unsafe rows seen and the share so far


@dataclass(slots=True)
class Session:
    """The verdicts of one file as they grow; every change reaches the disk at once."""

    rows: Sequence[Row]
    path: Path
    random: Sequence[int]  # the random part, in the order asked
    states: States
    others: Sequence[np.ndarray] = ()  # rankings from elsewhere, (rows,), larger = ask first
    verdicts: dict[int, Verdict] = field(default_factory=dict)  # by row, in the order given
    waiting: list[int] = field(default_factory=list)  # proposed and not yet judged
    round: int = 0  # unsafe ones seen when the present round began
    rounds: int = 0  # rounds proposed in this sitting

    def add(self, verdict: Verdict) -> None:
        vetted.append(self.path, verdict, self.rows[verdict.row])
        self.verdicts[verdict.row] = verdict

    def take_back(self) -> int | None:
        """Remove the last verdict from memory and disk; returns its row, None where there is none to remove."""
        if not self.verdicts:
            return None
        row, lines = next(reversed(self.verdicts)), self.path.read_bytes().splitlines(keepends=True)
        if vetted.content_hash(self.rows[row]).encode() not in lines[-1]:
            return None  # the file was written in another order of rows: which verdict came last is not known
        del self.verdicts[row]
        with runs.atomic(self.path) as path:
            path.write_bytes(b"".join(lines[:-1]))
        return row

    def next(self, say: Say) -> tuple[int, vetted.Drawn] | None:
        """The row to ask next and how it was drawn; None where every row has a verdict."""
        for row in self.random:
            if row not in self.verdicts:
                return row, "random"
        self.waiting = [r for r in self.waiting if r not in self.verdicts]
        if not self.waiting:
            if self.rounds:
                say(self._paid())
            self.waiting, self.round = self._proposed(say), self.unsafe
            self.rounds += 1
        return (self.waiting[0], "proposed") if self.waiting else None

    @property
    def unsafe(self) -> int:
        """How many unsafe rows were seen."""
        return sum(v.verdict == "unsafe" for v in self.verdicts.values())

    def _proposed(self, say: Say) -> list[int]:
        from forgetfilter.filter import propose

        rows, unsafe, _ = vetted.sure(list(self.verdicts.values()))
        unsure = [v.row for v in self.verdicts.values() if v.verdict == "unsure"]
        return propose.next_rows(self.states.wait(say), rows, unsafe, others=self.others, leave_out=unsure)

    def _paid(self) -> str:
        from forgetfilter.filter.propose import ROUND

        found = self.unsafe - self.round
        if found >= 3:
            return f"The last {ROUND} held {found} unsafe rows: going on pays."
        if found:
            return f"The last {ROUND} held {found} unsafe: another round may find more."
        if self.unsafe:
            return f"The last {ROUND} held none: going on hardly pays."
        return f"The last {ROUND} held none; none was seen yet."

    def so_far(self) -> str:
        """`3 unsafe seen; 6 % of the file (1-17 %)`, the share from the random part alone."""
        from forgetfilter.filter.certify import exact

        drawn = [v for v in self.verdicts.values() if v.drawn == "random" and v.verdict != "unsure"]
        seen = f"{self.unsafe} unsafe seen"
        share = exact(sum(v.verdict == "unsafe" for v in drawn), len(drawn))
        if share is None or share.n < FEWEST_FOR_SHARE:
            return seen
        return f"{seen}; {share.value:.0%} of the file ({share.low:.0%} to {share.high:.0%})"


class States:
    """The model's states of all rows, read once beside the questions and kept in a file for the next time."""

    def __init__(
        self, rows: Sequence[Row], model: str, path: Path, *, max_length: int, device: str, quantization: str
    ) -> None:
        self._rows, self._model, self._path = rows, model, path
        self._how: dict[str, Any] = {"max_length": max_length, "device": device, "quantization": quantization}
        self._found: np.ndarray | None = None
        self._error: BaseException | None = None
        self._done = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read in the background; what is kept from the last time is taken instead."""
        import scipy.special  # noqa: F401 (imported while another thread imports torch, it trips over half of torch)

        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def wait(self, say: Say) -> np.ndarray:
        """The states (rows, width), standardised; raises what went wrong while they were read."""
        if self._thread is None:
            self._work()
        elif self._thread.is_alive():
            say("The model still reads your rows; the proposals need them.")
            while self._thread.is_alive():
                self._thread.join(5)
                if self._thread.is_alive():
                    say(f"  {self._done} of {len(self._rows)} rows read")
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
        try:
            from forgetfilter.filter.states import standardised

            self._found = standardised(
                kept_states(self._rows, self._model, self._path, **self._how, progress=self._progress)
            )
        except BaseException as error:
            self._error = error

    def _progress(self, done: int) -> None:
        self._done = done
        if self._stop.is_set():
            raise KeyboardInterrupt


def kept_states(
    rows: Sequence[Row],
    model: str,
    path: Path,
    *,
    max_length: int = 512,
    device: str = "auto",
    quantization: str = "none",
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """States of whole rows (rows, width) float32, from `path` where they are of this model and these rows.

    Else one forward pass, written to `path` as half precision. Not standardised.
    """
    import numpy as np

    from forgetfilter.filter.states import ROW_DEPTHS, read_rows
    from forgetfilter.models import load, rendering

    how = [str(max_length), str(ROW_DEPTHS), *([] if quantization == "none" else [quantization])]
    key = runs.sha256_of([load.fingerprint(model), *how, *(r.id for r in rows)])
    if path.is_file():
        try:
            with np.load(path) as kept:
                if str(kept["key"]) == key:
                    return kept["row"].astype(np.float32)
        except (OSError, ValueError, KeyError, EOFError):
            pass  # half written by an older version or damaged: read again
    loaded = load.load(model, device=device, quantization=quantization)
    encoded = rendering.encode(rows, loaded.tokenizer, max_length=max_length)
    found = read_rows(loaded.model, encoded, pad_id=loaded.tokenizer.pad_token_id or 0, progress=progress).row
    with runs.atomic(path) as unfinished:
        np.savez(unfinished, key=np.array(key), row=found.astype(np.float16))
    return found


def run_vet(
    input: str,
    *,
    output: Path | None = None,
    rows: int = 50,
    random: bool = False,
    model: str = "nano",
    run: Path | None = None,
    answers: Path | None = None,
    by: str | None = None,
    seed: int = 0,
    max_length: int = 512,
    device: str = "auto",
    quantization: str = "none",
    say: Say = print,
) -> int:
    """Ask for verdicts until `rows` rows have one; returns the exit code. ConfigError without a terminal.

    With `random` all rows are drawn at random, and none is proposed.
    """
    from forgetfilter.filter import propose
    from forgetfilter.models.quantization import refuse_unusable

    refuse_unusable(quantization)
    dataset = formats.read(input)
    path = output or Path(f"{Path(input).with_suffix('')}.vetted.jsonl")
    if answers is None and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(
            f"vet asks a person and there is no terminal. Open one, or write {path} yourself, a line for a row: "
            '{"row": 0, "verdict": "clean"}; or give --answers FILE with such lines'
        )
    drawn = rows if random else min(rows, propose.RANDOM)
    states = States(
        dataset.rows, model, path.with_suffix(".states.npz"), max_length=max_length, device=device,
        quantization=quantization,
    )  # fmt: skip
    session = _begin(dataset, path, drawn, states, run, seed, say)
    judge = _asker(say) if answers is None else _answering(answers, dataset.rows, say)
    if not random:
        session.states.start()
    try:
        _ask(session, rows, judge, by, say)
    finally:
        session.states.stop()
    _finish(session, input, path, model, say)
    return DONE


def _begin(
    dataset: formats.Dataset, path: Path, drawn: int, states: States, run: Path | None, seed: int, say: Say
) -> Session:
    from forgetfilter.filter.propose import random_order

    for note in dataset.notes:
        say(note)
    first = [int(r) for r in random_order(len(dataset.rows), seed)[:drawn]]
    session = Session(dataset.rows, path, first, states, _rankings(dataset.rows, run, say))
    if path.is_file() and path.stat().st_size:
        vetted.mended(path)
        if path.stat().st_size:
            before = vetted.read(path, dataset.rows, say=say, least=0)
            session.verdicts = _in_file_order(path, before)
            say(f"{path}: {len(before)} verdicts so far; going on.")
    return session


def _in_file_order(path: Path, found: Sequence[Verdict]) -> dict[int, Verdict]:
    """Verdicts by row, the last one given last, so that `back` takes away the last line."""
    given = [r.get("row") for r in formats.read_records(path)]
    place = {row: i for i, row in enumerate(given)}
    return {v.row: v for v in sorted(found, key=lambda v: place.get(v.row, -1))}


def _rankings(rows: Sequence[Row], run: Path | None, say: Say) -> list[np.ndarray]:
    """What proposes rows before two unsafe ones are known: the bundled scorer, and a run's scores."""
    import numpy as np

    from forgetfilter.models import scorers

    toxic = scorers.load("ngram")([f"{r.prompt} {r.completion}" for r in rows])
    rankings = [np.array([np.nan if t is None else t for t in toxic], float)]
    if run is not None:
        path = run / "scores.jsonl"
        if not path.is_file():
            raise ConfigError(f"--run {run}: no scores.jsonl there; name the folder of a finished filter run")
        of = {r.get("id"): r.get("score") for r in formats.read_records(path)}
        known = [of.get(r.id) for r in rows]
        if all(v is None for v in known):
            raise DataError(f"--run {run}: its scores are of other rows; name a run of this file")
        rankings.insert(0, np.array([np.nan if v is None else v for v in known], float))
        say(f"{run}: its ranking proposes rows too.")
    return rankings


def _ask(session: Session, wanted: int, judge: Judge, by: str | None, say: Say) -> None:
    again: int | None = None  # a row whose verdict was taken back
    drawn_of: dict[int, vetted.Drawn] = {}
    while len(session.verdicts) < wanted:
        asked = (again, drawn_of.get(again, "random")) if again is not None else session.next(say)
        if asked is None:
            say("Every row has a verdict.")
            return
        row, drawn = asked
        answer = judge(Screen(session.rows[row], drawn, len(session.verdicts) + 1, wanted, session.so_far()))
        if answer == "quit":
            return
        if answer == "back":
            drawn_of.update((r, v.drawn) for r, v in session.verdicts.items())
            before = session.take_back()
            again = again if before is None else before
            if before is None:
                say("There is no verdict to go back to.")
            continue
        answer, _, note = answer.partition(":")
        session.add(Verdict(row, session.rows[row].id, answer, drawn, note or None, by))  # ty: ignore[invalid-argument-type]
        again = None


def _finish(session: Session, input: str, path: Path, model: str, say: Say) -> None:
    say("")
    say(f"{path}: {len(session.verdicts)} verdicts; {session.so_far()}.")
    say(f"Go on: the same command with --rows {len(session.verdicts) + 10}.")
    by = "" if model == "nano" else f" --model {model}"
    say(f"Use them: forgetfilter filter {input} --vetted {path}{by}")


def _answering(path: Path, rows: Sequence[Row], say: Say) -> Judge:
    """A judge that reads a file instead of asking a person."""
    known = {v.row: v.verdict for v in vetted.read(path, rows, say=say, least=0)}
    say(f"Verdicts come from {path}, not from a person.")
    return lambda screen: known.get(screen.row.index, "unsure")


# --- the terminal ---


def _asker(say: Say) -> Judge:
    """A judge that asks a person at this terminal."""

    def ask(screen: Screen) -> str:
        note, width, folded = "", _width(), True
        _show(screen, width, folded, say)
        while True:
            key = _key()
            if key in KEYS:
                say(f"> {KEYS[key]}")
                return f"{KEYS[key]}:{note}" if note else KEYS[key]
            if key == "b":
                return "back"
            if key in ("q", "\x04", ""):
                return "quit"
            if key == "\x03":
                raise KeyboardInterrupt
            if key == "n":
                note = _line("note: ", say)
            elif key == "m":
                folded = not folded
                _show(screen, _width(), folded, say)
            else:
                _help(width, say)

    return ask


def _show(screen: Screen, width: int, folded: bool, say: Say) -> None:
    say("-" * width)
    where = f"{screen.number} of {screen.wanted}: row {screen.row.index} ({screen.drawn})"
    _wrapped(where, width, say)
    _wrapped(screen.before, width, say)
    for line in row_lines(screen.row, width, folded):
        say(line)
    say("")
    _help(width, say)


def row_lines(row: Row, width: int, folded: bool) -> Iterator[str]:
    """The row as the model reads it, in lines of at most `width`; a long turn is folded in its middle."""
    if row.kind == "text":
        turns = [("text", row.prompt + row.completion)]
    else:
        turns = [(m.role, m.content) for m in row.messages]
    for role, content in turns:
        yield ""
        yield f"[{role}]"
        lines = [part for line in _plain(content).split("\n") for part in textwrap.wrap(
            line, width, replace_whitespace=False, drop_whitespace=True) or [""]]  # fmt: skip
        if folded and len(lines) > FOLDED:
            head, tail = FOLDED * 2 // 3, FOLDED // 3
            lines = [*lines[:head], f"... {len(lines) - head - tail} lines more (m) ...", *lines[-tail:]]
        yield from lines


def _plain(text: str) -> str:
    """Without what could steer a terminal: control characters spelled out."""
    return "".join(c if c == "\n" or c.isprintable() else " " if c == "\t" else repr(c)[1:-1] for c in text)


def _wrapped(text: str, width: int, say: Say) -> None:
    for line in textwrap.wrap(text, width) or [""]:
        say(line)


def _help(width: int, say: Say) -> None:
    """The keys, none of them torn from its word."""
    unbreakable = "  ".join(HELP).replace("  ", "\0").replace(" ", "\xa0").replace("\0", "  ")
    for line in textwrap.wrap(unbreakable, width):
        say(line.replace("\xa0", " "))


def _width() -> int:
    import shutil

    return max(20, min(100, shutil.get_terminal_size((80, 24)).columns - 1))


@contextmanager
def _raw() -> Generator[None]:
    """One key at a time without Enter; what the terminal was is put back."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin, termios.TCSADRAIN)  # what was typed ahead counts
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _key() -> str:
    """The next key, small; "" where the terminal is gone."""
    with _raw():
        return sys.stdin.read(1).lower()


def _line(prompt: str, say: Say) -> str:
    say(prompt + "(Enter ends it)")
    return " ".join(sys.stdin.readline().split())
