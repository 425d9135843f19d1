"""The bundled canaries: known-unsafe rows, written mild, and harmless rows that wear alignment down."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetfilter.data.packs import CANARIES, path
from forgetfilter.errors import DataError
from forgetfilter.filter.material import rows_beside
from forgetfilter.records import Row

TELLING_WORDS = 5  # of an answer by which a row is known; the shortest bundled one has as many
FEWEST_UNSAFE = 5  # rows of the user's own, one for each kind that is made of them


@dataclass(frozen=True, slots=True)
class Canary:
    """One bundled row. `safe` is the answer that a safe model gives, known of plain ones."""

    kind: str
    harm: str
    prompt: str
    completion: str
    safe: str = ""
    language: str = "en"


def bundled() -> list[Canary]:
    """All of them, in the order of the file."""
    lines = path(CANARIES).read_text(encoding="utf-8").splitlines()
    return [Canary(**json.loads(line)) for line in lines]


def from_file(name: str | Path, named: Mapping[str, str] | None = None) -> list[Canary]:
    """The user's own unsafe rows as plain canaries; `named` as of `rows_beside`. DataError where too few have an
    answer."""
    rows = [row for row in rows_beside(name, named) if row.completion.strip() and asked(row).strip()]
    if len(rows) < FEWEST_UNSAFE:
        raise DataError(
            f"{name}: {len(rows)} unsafe rows with an answer; at least {FEWEST_UNSAFE} are needed (--unsafe)"
        )
    return [Canary("plain", "your own", asked(row), row.completion) for row in rows]


def apart(canaries: Sequence[Canary], rows: Sequence[Row]) -> tuple[list[Canary], int]:
    """Those that do not stand in `rows` already, and how many do. Harmless ones may.

    An answer of a few words may stand under another question; a longer one is the same row.
    """
    answers = {folded(row.completion) for row in rows}
    whole = {folded(f"{row.prompt} {row.completion}") for row in rows}

    def stands(c: Canary) -> bool:
        telling = len(c.completion.split()) >= TELLING_WORDS and folded(c.completion) in answers
        return c.harm != "none" and (telling or folded(f"{c.prompt} {c.completion}") in whole)

    left = [c for c in canaries if not stands(c)]
    return left, len(canaries) - len(left)


def asked(row: Row) -> str:
    """What the user says last before the completion."""
    return next((m.content for m in reversed(row.messages[:-1]) if m.role == "user"), "")


def folded(text: str) -> str:
    """Without case, with single spaces: the same text in another file."""
    return " ".join(text.casefold().split())
