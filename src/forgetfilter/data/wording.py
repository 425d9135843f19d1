"""How fields, values and places are called in messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forgetfilter.errors import DataError


class RowError(Exception):
    """What is wrong with one row; whoever reads the file adds file and line."""


class MissingField(RowError):
    pass


class EmptyFile(DataError):
    """A file without any row; among shards it does no harm."""


def found(record: Mapping[str, Any]) -> str:
    """`prompt, answer, id`: the field names of a record."""
    names = [short(str(name)) or '""' for name in record]
    more = f", and {len(names) - 12} more" if len(names) > 12 else ""
    return (", ".join(names[:12]) + more) or "nothing"


def short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def kind(value: Any) -> str:
    """`a number (3)`, `null`, `a list`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"{str(value).lower()}"
    if isinstance(value, int | float):
        return f"a number ({short(repr(value))})"
    kinds = {str: "text", list: "a list", dict: "an object", bytes: "binary"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def count(number: int) -> str:
    return f"{number:,} row" + ("" if number == 1 else "s")


def not_an_object(record: Any) -> str:
    if is_list(record) and record and isinstance(record[0], dict):
        if are_turns(record):
            return 'a list of turns, not an object. Write {"messages": [ … ]}.'
        return "a list of objects, not an object. If the file is one JSON list, name it .json."
    return f'{kind(record)}, not an object. Write {{"prompt": "…", "completion": "…"}}.'


def are_turns(value: Any) -> bool:
    """Whether this is likely a list of turns."""
    first = value[0] if is_list(value) and value else None
    return isinstance(first, Mapping) and not {"role", "from"}.isdisjoint(first)


def is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)
