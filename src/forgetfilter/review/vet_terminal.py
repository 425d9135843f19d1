"""`vet` in a terminal: a row is drawn as lines, one key is a verdict."""

from __future__ import annotations

import os
import select
import sys
import textwrap
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

from forgetfilter.display import spelled_out
from forgetfilter.filter.vet import Say, Screen
from forgetfilter.records import Row
from forgetfilter.review.shown import turns_of

FOLDED = 14  # lines of one turn shown before it is folded
KEYS = {"c": "clean", "u": "unsafe", "s": "unsure"}
ESCAPE, AT_ONCE = b"\x1b", 0.05  # seconds in which the other characters of one key arrive
HELP = ("c clean", "u unsafe", "s unsure", "b back", "n note", "m more", "q quit")


def asker(say: Say) -> Callable[[Screen], tuple[str, str]]:
    """What asks a person at this terminal: of a row, the verdict (or back, quit) and a note."""

    def ask(screen: Screen) -> tuple[str, str]:
        note, width, folded = "", _width(), True
        _show(screen, width, folded, say)
        while True:
            key = _key()
            if key in KEYS:
                say(f"> {KEYS[key]}")
                return KEYS[key], note
            if key in ("b", "q", "\x04", ""):
                return "back" if key == "b" else "quit", ""
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
    for line in filter(None, (screen.so_far, screen.pays)):
        _wrapped(line, width, say)
    for line in row_lines(screen.row, width, folded):
        say(line)
    say("")
    _help(width, say)


def row_lines(row: Row, width: int, folded: bool) -> Iterator[str]:
    """The row as the model reads it, in lines of at most `width`; a long turn is folded in its middle."""
    for role, content in turns_of(row):
        yield ""
        yield f"[{role}]"
        lines = [part for line in spelled_out(content).split("\n") for part in textwrap.wrap(
            line, width, replace_whitespace=False, drop_whitespace=True) or [""]]  # fmt: skip
        if folded and len(lines) > FOLDED:
            head, tail = FOLDED * 2 // 3, FOLDED // 3
            lines = [*lines[:head], f"... {len(lines) - head - tail} lines more (m) ...", *lines[-tail:]]
        yield from lines


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
    """The next key, small; "" where the terminal is gone. A key that sends several characters, such as an arrow, is
    Escape: its letters are no verdict."""
    terminal = sys.stdin.fileno()  # byte by byte: what is not read yet can be waited for

    def read(waits: float | None = None) -> bytes:
        return os.read(terminal, 1) if select.select([terminal], [], [], waits)[0] else b""

    with _raw():
        key = read()
        if key == ESCAPE and (read(AT_ONCE) in (b"[", b"O")):
            while (more := read(AT_ONCE)) and not b"@" <= more <= b"~":
                pass
        return key.decode("latin-1").lower()


def _line(prompt: str, say: Say) -> str:
    say(prompt + "(Enter ends it)")
    text = b""
    while (more := os.read(sys.stdin.fileno(), 1)) not in (b"\n", b""):
        text += more
    return " ".join(text.decode(errors="replace").split())
