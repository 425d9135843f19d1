"""The columns that no format reads: those with text in them are named, so that nothing goes unread in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forgetfilter.data.readers import HISTORY, LABELS, ROW_MARKS, UNLABELLED
from forgetfilter.data.turns import Columns, weight_of
from forgetfilter.data.wording import short
from forgetfilter.records import LEFT_OUT, MOST_NAMES, LeftOut


@dataclass(slots=True)
class Unread:
    """Counts, per column that is not read, the rows in which it says something."""

    known: frozenset[str]  # what the fields of all formats are called: said, however short they are
    used: frozenset[str] = frozenset()  # columns of the file being read that its format reads
    labels: frozenset[str] = frozenset()  # columns that `readers.wanted` looks at, or speaks of
    plain: frozenset[str] = frozenset()  # labels that are columns like others in this format
    weights: frozenset[str] = frozenset()
    _asked: dict[tuple[str, ...], list[tuple[str, bool, bool]]] = field(
        default_factory=dict
    )  # by a row's keys
    _rows: dict[str, int] = field(default_factory=dict)
    _first: dict[str, list[str]] = field(default_factory=dict)

    def begin(
        self, format: str, columns: Columns, names: Mapping[str, Sequence[str]], truth: str | None
    ) -> None:
        """The next file: its format, where the fields are, what they are called by themselves, the column of truth."""
        own = {field.rstrip("?"): named[0] for field, named in names.items()}
        self._asked.clear()
        self.used = frozenset({**own, **columns}.values()) | {truth or ""}
        if format == "prompt-completion":
            self.used |= {HISTORY}
        self.labels = frozenset((columns["label"],) if "label" in columns else LABELS)
        self.plain = self.labels if format in UNLABELLED else frozenset()
        self.weights = frozenset(() if "marks" in columns else ROW_MARKS)

    def count(self, record: Mapping[str, Any], where: Callable[[], str]) -> None:
        """One more row, of which `where` tells the place."""
        keys = tuple(record)
        asked = self._asked.get(keys)
        if asked is None:
            asked = self._asked_of(keys)
        for name, is_mark, is_known in asked:
            value = record[name]
            kind = type(value)
            if is_mark:
                says = value is not None and value != "" and not self._followed(name, value)
            elif kind is str:  # several words, or one where a field of that name would be learned
                says = bool(value) and (is_known or (" " in value and " " in value.strip()))
            else:
                says = kind in (list, dict) and bool(value)
            if says:
                self._add(name, where)

    def _asked_of(self, keys: tuple[str, ...]) -> list[tuple[str, bool, bool]]:
        """Of the columns that are not read: name, whether it is one of MARKS, whether a field is called so."""
        if len(self._asked) > MOST_SHAPES:
            self._asked.clear()
        names = [name for name in keys if name not in self.used and name != "tools"]
        marks = MARKS - self.plain
        self._asked[keys] = [(name, name in marks, str(name).strip().lower() in self.known) for name in names]
        return self._asked[keys]

    def _followed(self, name: str, value: Any) -> bool:
        if name in self.weights:
            return (name == "weight" or isinstance(value, bool | str)) and weight_of(value) is not None
        return name in self.labels

    def _add(self, name: str, where: Callable[[], str]) -> None:
        times = self._rows.get(name, 0)
        if times or len(self._rows) < MOST_NAMES:
            self._rows[name] = times + 1
            if times < 3:
                self._first.setdefault(name, []).append(where())

    def left_out(self) -> tuple[LeftOut, ...]:
        """An entry for each column, in the order they were met."""
        return tuple(
            LeftOut("columns", rows, rows, tuple(self._first[name]), _words(name, rows))
            for name, rows in self._rows.items()
        )

    def named(self) -> str:
        """`source, thinking`; "" where there are none."""
        names = [short(str(name)) for name in self._rows]
        more = f", and {len(names) - MOST_SAID} more" if len(names) > MOST_SAID else ""
        return ", ".join(names[:MOST_SAID]) + more


def _words(name: str, rows: int) -> str:
    return LEFT_OUT["columns"].format(
        name=short(str(name)), rows=f"{rows:,} row" + ("" if rows == 1 else "s")
    )


MOST_SAID = 8
MOST_SHAPES = 1_000  # sets of keys remembered; a file of rows that all differ must not fill the memory
# Columns that look as if they said which rows are learned.
MARKS = frozenset(
    {
        *("label", "kto_tag", "weight", "train"),
        *("desirable", "is_desirable", "undesirable", "trainable", "mask", "loss_weight", "sample_weight"),
        *("loss_mask", "train_on_inputs"),
    }
)
