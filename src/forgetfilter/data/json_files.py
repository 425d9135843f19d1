"""JSON lines, JSON lists, and objects that hold a list -> rows by their place in the file."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from forgetfilter.data import csv_files, strictjson
from forgetfilter.data.containers import BOM, IsRow, Origin, Text, decoded, refuse_other_kind
from forgetfilter.data.wording import EmptyFile, kind, short
from forgetfilter.errors import DataError


def open_text(path: Path, suffix: str, name: str, is_row: IsRow) -> Text:
    """The store of a text file, not scanned yet; `suffix` says what it is. Raises DataError."""
    origin = Origin.of(path, name)
    with origin.open() as file:
        start = file.read(8)
    refuse_other_kind(name, start)
    if suffix in (".csv", ".tsv"):
        return csv_files.open_csv(origin, suffix)
    if suffix == ".json":
        return _json(origin, is_row)
    return _jsonl(origin)


# --- JSON lines ---


def _jsonl(origin: Origin, notes: Sequence[str] = ()) -> Text:
    return Text(
        "jsonl", origin, _parse_line, _scan_jsonl, list(notes), lines=array("q"), column=_column_of_json
    )


def _parse_line(chunk: bytes) -> Any:
    return strictjson.loads(chunk.decode("utf-8"))


def _scan_jsonl(store: Text) -> Iterator[Any]:
    name, start, blank, decode = store.name, 0, 0, strictjson.line
    with store.origin.open() as file:
        for number, line in enumerate(file, start=1):
            length = len(line)
            if number == 1:
                if line.startswith(BOM):
                    start, line = 3, line[3:]
                    length -= 3
                store.ending = b"\r\n" if line.endswith(b"\r\n") else b"\n"
            text = decoded(name, number, line)
            if text.isspace() or not text:
                blank += 1
            else:
                try:
                    record = decode(text)
                except (ValueError, RecursionError) as error:
                    raise strictjson.explained(name, error, _jsonl_hint(number, text), number) from error
                store.add(start, length, number)
                yield record
            start += length
    _refuse_empty(store)
    if blank:
        store.notes.append(f"{name}: {blank:,} blank line{'s' * (blank > 1)} left out")


def _jsonl_hint(number: int, text: str) -> str:
    if number == 1 and text.lstrip().startswith("["):
        return "This looks like one JSON list: name the file .json."
    if text.rstrip().endswith(("},", "};")):
        return f"Take out the {text.rstrip()[-1]!r} at the end of the line."
    if text.startswith("\ufeff"):
        return (
            "A byte order mark stands at the beginning of the line, as where files were joined: take it out."
        )
    if "\r" in text.strip():
        return "Its lines end in a bare carriage return: save it with line feeds."
    if text.strip() == "{":
        return "This looks like rows of several lines: write each on one line, or all as one list in a .json file."
    return "Each line must be one whole JSON object."


def _refuse_empty(store: Text) -> None:
    if not len(store):
        raise EmptyFile(f"{store.name}: is empty. Give a file with at least one row.")


def _column_of_json(chunk: bytes, name: str, value: str) -> bytes:
    """One more field before the object's closing brace."""
    end = chunk.rindex(b"}")
    comma = b"" if chunk[:end].rstrip().endswith(b"{") else b", "
    return chunk[:end] + comma + f"{strictjson.quoted(name)}: {value}".encode() + chunk[end:]


# --- one JSON list ---


def _json(origin: Origin, is_row: IsRow) -> Text:
    """A .json file: a list of rows, an object that holds one list of rows, or JSON lines under another name."""
    if note := _lines_in_json(origin, is_row):
        return _jsonl(origin, [f"{origin.name}: {note}"])
    store = Text("json", origin, _parse_line, lambda _: iter(()), column=_column_of_json)
    store.reader = lambda store: _scan_json(store, is_row)
    return store


def _lines_in_json(origin: Origin, is_row: IsRow) -> str:
    """Why the file is to be read line by line; "" if it is not."""
    with origin.open() as file:
        line = b""
        for line in file:
            if line.strip():
                break
        after = next((line.lstrip()[:1] for line in file if line.strip()), b"")
    if not line.removeprefix(BOM).lstrip().startswith(b"{"):
        return ""
    try:
        first = strictjson.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return ""
    if not isinstance(first, dict):
        return ""
    if after == b"{":
        return "one object per line, read as JSONL"
    if after or not is_row(first) or _one_object(first) != _one_object({}):
        return ""
    return "one object on one line, read as JSONL of one row"


def _scan_json(store: Text, is_row: IsRow) -> Iterator[Any]:
    name = store.name
    with store.origin.open() as file:
        data = file.read()
    marked = len(BOM) if data.startswith(BOM) else 0
    text = _whole_text(name, data[marked:])
    place = name
    try:
        opening = _opening(name, text, is_row)
        place = f"{name} row 0"
        position = _byte(text, 0, opening + 1) + marked
        store.head = data[marked:position]
        begin = opening + 1
        for value, end, ended in _cut_list(text, opening):
            length = _byte(text, begin, end)
            store.add(position, length)
            yield value
            place = f"{name} row {len(store)}"
            position += length + (0 if ended else 1)
            begin = end + (0 if ended else 1)
    except (ValueError, RecursionError) as error:
        place = place if isinstance(error, strictjson.TwiceError) else name
        raise strictjson.explained(place, error, "Mend the file or export it again.") from error
    store.between, store.tail = b",", data[position:]
    store.empty = store.head + store.tail.lstrip()


def _whole_text(name: str, data: bytes) -> str:
    try:
        if b"\0" in data:
            raise UnicodeError
        text = data.decode("utf-8")
    except UnicodeError:
        for number, line in enumerate(data.split(b"\n"), start=1):
            decoded(name, number, line)
        raise AssertionError("no line is wrong") from None
    if not text.strip():
        raise EmptyFile(f"{name}: is empty. Give a file with at least one row.")
    return text


def _byte(text: str, begin: int, end: int) -> int:
    """How many bytes these characters take."""
    return end - begin if text.isascii() else len(text[begin:end].encode())


def _opening(name: str, text: str, is_row: IsRow) -> int:
    """Position of the `[` of the list of rows: the file itself, or the one list in its object."""
    start = _skip(text, 0)
    if text[start] == "[":
        return start
    top, end = strictjson.DECODER.raw_decode(text, start)
    strictjson.refuse_rest(text, _skip(text, end))
    if not isinstance(top, dict):
        raise DataError(f"{name}: holds {kind(top)}, not a list of rows. Write [{{…}}, {{…}}].")
    if is_row(top):
        raise DataError(f"{name}: {_one_object(top)}")
    if set(top) >= SAVED:
        raise DataError(f"{name}: describes a data set saved with save_to_disk. Name its folder instead.")
    lists = [k for k, v in top.items() if isinstance(v, list) and (not v or isinstance(v[0], dict))]
    if len(lists) != 1:
        what = f"several lists ({', '.join(map(short, lists))})" if lists else "no list of rows"
        if not lists and top and all(isinstance(v, dict) for v in top.values()):
            raise DataError(
                f"{name}: an object of objects, not a list of rows. Write [{{…}}, {{…}}]; {RECORDS}."
            )
        raise DataError(f'{name}: an object with {what}. Keep one, such as {{"data": [ … ]}}.')
    position = _skip(text, start + 1)
    while True:
        key, position = strictjson.DECODER.raw_decode(text, position)
        position = _skip(text, _skip(text, position) + 1)  # past the colon
        if key == lists[0]:
            return position
        _, position = strictjson.DECODER.raw_decode(text, position)
        position = _skip(text, _skip(text, position) + 1)  # past the comma


def _one_object(top: dict[str, Any]) -> str:
    """What is wrong with an object that has the fields of a row, in place of a list of rows."""
    if all(isinstance(value, list | dict) and value for value in top.values()) and len(top) > 1:
        return f"an object of columns, not a list of rows. Write [{{…}}, {{…}}]; {RECORDS}."
    return "one row, not a list of rows. Put it in brackets: [ … ]."


def _cut_list(text: str, opening: int) -> Iterator[tuple[Any, int, bool]]:
    """(value, where its own text with the space behind it ends, is it the last); the rest of the file is checked."""
    position = _skip(text, opening + 1)
    if text[position : position + 1] == "]":
        strictjson.refuse_rest(text, _after(text, opening, position))
        return
    while True:
        value, end = strictjson.DECODER.raw_decode(text, position)
        after = _skip(text, end)
        mark = text[after : after + 1]
        if mark == "]":
            strictjson.refuse_rest(text, _after(text, opening, after))
            yield value, end, True
            return
        if mark != ",":
            strictjson.refuse(text, after, "Expecting ',' delimiter")
        yield value, after, False
        position = _skip(text, after + 1)


def _after(text: str, opening: int, closing: int) -> int:
    """Where the file should end: behind the list, or, in an object already found whole, at the end."""
    return _skip(text, closing + 1) if opening == _skip(text, 0) else len(text)


def _skip(text: str, position: int) -> int:
    space = JSON_SPACE.match(text, position)
    assert space is not None  # the pattern matches the empty string
    return space.end()


JSON_SPACE = re.compile(r"[ \t\n\r]*+")
RECORDS = 'with pandas, to_json(…, orient="records")'
SAVED = {"features", "citation"}  # in a dataset_info.json of save_to_disk
