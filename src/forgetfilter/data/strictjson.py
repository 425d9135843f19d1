"""JSON as readers agree on it: a name that stands twice in one object is refused, since they do not agree there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from forgetfilter.data.wording import short
from forgetfilter.errors import DataError


class TwiceError(ValueError):
    """A name stands twice in one object."""


def loads(text: str) -> Any:
    """Like `json.loads`. Raises ValueError or RecursionError; TwiceError for a name that stands twice."""
    return DECODER.decode(text)


def line(text: str) -> Any:
    """Like `loads`, quicker for a line that is an object and nothing else."""
    if text[:1] == "{":
        try:
            value, end = SCAN(text, 0)
        except StopIteration:
            end = 0
        if end and (end == len(text) or not text[end:].strip(" \t\r\n")):
            return value
    return DECODER.decode(text)


def explained(name: str, error: Exception, hint: str, line: int | None = None) -> DataError:
    """What the decoder raised, in words; `line` is the file's where the decoder saw one line only."""
    place = f"{name} line {line}" if line else name
    if isinstance(error, json.JSONDecodeError):
        column = min(error.pos, len(error.doc.rstrip())) + 1 if line else error.colno
        where = f"line {line or error.lineno}, column {column}"
        return DataError(f"{name} {where}: not valid JSON ({error.msg}). {hint}")
    if isinstance(error, TwiceError):
        return DataError(f"{place}: {error}")
    if isinstance(error, RecursionError):
        return DataError(f"{place}: nested too deeply to be read. Flatten it or remove it.")
    return DataError(f"{place}: a number too long to be read. Write it as text in quotes.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise TwiceError(
            f'"{short(twice)}" stands twice in one object. Readers differ in which of the two they take, so what '
            "will be learned is not known. Remove one of them."
        )
    return made


DECODER = json.JSONDecoder(object_pairs_hook=_object)
SCAN: Callable[[str, int], tuple[Any, int]] = vars(DECODER)["scan_once"]


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def refuse(text: str, position: int, words: str) -> None:
    raise json.JSONDecodeError(words, text, position)


def refuse_rest(text: str, position: int) -> None:
    """JSONDecodeError where something follows the value that ends before `position`."""
    if position < len(text):
        refuse(text, position, "Extra data")
