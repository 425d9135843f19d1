"""The columns that no format reads: those with text in them are named, so that nothing goes unread in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forgetfilter.data.readers import HISTORY
from forgetfilter.data.turns import Columns, weight_of
from forgetfilter.data.wording import short
from forgetfilter.records import LEFT_OUT, MOST_NAMES, LeftOut


@dataclass(slots=True)
class Unread:
    """Counts, per column that is not read, the rows in which it says something."""

    known: frozenset[str]  # what the fields of all formats are called: said, however short they are
    used: frozenset[str] = frozenset()  # columns of the file being read that its format reads
    _rows: Counter[str] = field(default_factory=Counter)
    _first: dict[str, list[str]] = field(default_factory=dict)

    def begin(
        self, format: str, columns: Columns, names: Mapping[str, Sequence[str]], truth: str | None
    ) -> None:
        """The next file: its format, where the fields are, what they are called by themselves, the column of truth."""
        own = {field.rstrip("?"): named[0] for field, named in names.items()}
        self.used = frozenset({**own, **columns}.values()) | {truth or ""}
        if format == "prompt-completion":
            self.used |= {HISTORY}

    def count(self, record: Mapping[str, Any], where: Callable[[], str]) -> None:
        """One more row, of which `where` tells the place."""
        for name, value in record.items():
            if value is None or name in self.used or not self._says_something(name, value):
                continue
            if name not in self._rows and len(self._rows) >= MOST_NAMES:
                continue
            self._rows[name] += 1
            if self._rows[name] <= 3:
                self._first.setdefault(name, []).append(where())

    def _says_something(self, name: str, value: Any) -> bool:
        """Whether a trainer might learn it: text of several words, lists, objects, and marks that are not followed."""
        kind = type(value)
        if name in MARKS:
            return value != "" and not _followed(name, value)
        if kind is str:
            return " " in value.strip() or (bool(value) and name.strip().lower() in self.known)
        return kind in (list, dict) and bool(value) and name != "tools"

    def left_out(self) -> tuple[LeftOut, ...]:
        """An entry for each column, in the order they were met."""
        return tuple(
            LeftOut("columns", rows, rows, tuple(self._first[name]), _words(name, rows))
            for name, rows in self._rows.items()
        )

    def named(self) -> str:
        """`source, thinking`; "" where there are none."""
        names = [short(name) for name in self._rows]
        more = f", and {len(names) - MOST_SAID} more" if len(names) > MOST_SAID else ""
        return ", ".join(names[:MOST_SAID]) + more


def _followed(name: str, value: Any) -> bool:
    """Whether `readers.wanted` or the note about labels speaks of it."""
    if name == "train":
        return isinstance(value, bool | str) and weight_of(value) is not None
    return name in ("label", "kto_tag") or (name == "weight" and weight_of(value) is not None)


def _words(name: str, rows: int) -> str:
    return LEFT_OUT["columns"].format(name=short(name), rows=f"{rows:,} row" + ("" if rows == 1 else "s"))


MOST_SAID = 8
# Columns that look as if they said which rows are learned.
MARKS = frozenset(
    {
        *("label", "kto_tag", "weight", "train"),
        *("desirable", "is_desirable", "undesirable", "trainable", "mask", "loss_weight", "sample_weight"),
    }
)
