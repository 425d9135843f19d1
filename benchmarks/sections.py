"""Sections of RESULTS.md: each benchmark writes its own, between markers, and leaves the rest alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from forgetfilter import runs
from forgetfilter.errors import ConfigError, ForgetfilterError

RESULTS = Path(__file__).with_name("RESULTS.md")


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def write_section(path: Path, name: str, text: str) -> None:
    """Put `text` between the markers of section `name`; the rest of the file stays as it is.

    A file without the markers gets them at its end. ConfigError where only one of the two stands.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    old = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    section = f"{begin}\n\n{text.strip()}\n\n{end}"
    if (old.count(begin), old.count(end)) == (0, 0):
        new = f"{old.rstrip()}\n\n{section}\n"
    elif (old.count(begin), old.count(end)) == (1, 1) and old.index(begin) < old.index(end):
        new = old[: old.index(begin)] + section + old[old.index(end) + len(end) :]
    else:
        raise ConfigError(f"{path}: the markers {begin} and {end} must stand once each, in this order")
    with runs.atomic(path) as file:
        file.write_text(new, encoding="utf-8")


def make_section(path: Path, name: str, make: Callable[[], str]) -> int:
    """Make section `name`, write it to `path` and print it; 0, or the exit code of what failed."""
    try:
        text = make()
        write_section(path, name, text)
    except ForgetfilterError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(text)
    return 0
