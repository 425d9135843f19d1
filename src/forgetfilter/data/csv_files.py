"""CSV and TSV files -> rows by their place in the file."""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from forgetfilter.data.containers import Origin, Text, decoded
from forgetfilter.data.wording import EmptyFile, found, short
from forgetfilter.errors import DataError


def open_csv(origin: Origin, suffix: str) -> Text:
    """The store of a file of cells; .tsv ones are divided by tabs, for others the header line tells."""
    csv.field_size_limit(2**31 - 1)  # the default refuses cells above 128 kB
    with origin.open() as file:
        start = file.read(2**20).decode("utf-8-sig", "replace")
    delimiter = "\t" if suffix == ".tsv" else _delimiter(start)
    store = Text(
        "csv", origin, lambda chunk: chunk, lambda store: _scan_csv(store, delimiter), lines=array("q")
    )
    store.column = lambda chunk, name, value: _column_of_csv(chunk, value, delimiter, store.ending)
    if delimiter != "," and suffix == ".csv":
        store.notes.append(f"{origin.name}: cells divided by {delimiter!r}")
    return store


def _scan_csv(store: Text, delimiter: str) -> Iterator[Any]:
    name = store.name
    header: list[str] | None = None
    blank, position, head = 0, 0, b""
    for line, cells, raw in _csv_records(store, delimiter):
        start, position = position, position + len(raw)
        if header is None:
            head += raw
            if cells:
                header = cells
                _check_header(f"{name} line {line}", header)
                store.ending = b"\r\n" if raw.endswith(b"\r\n") else b"\r" if raw.endswith(b"\r") else b"\n"
                if not head.endswith((b"\n", b"\r")):
                    head += store.ending
                store.head = store.empty = head
                store.parse = _parse_csv(header, delimiter)
        elif not cells:
            blank += 1
        elif len(cells) != len(header):
            raise DataError(
                f"{name} line {line}: {len(cells)} cells, the header has {len(header)} "
                f"({found(dict.fromkeys(header))}). "
                "Put cells that hold a delimiter or a line break in double quotes."
            )
        else:
            store.add(start, len(raw), line)
            yield dict(zip(header, cells, strict=True))
    if header is None:
        raise EmptyFile(f"{name}: is empty. Give a file with at least one row.")
    if blank:
        store.notes.append(f"{name}: {blank:,} blank line{'s' * (blank > 1)} left out")


def _parse_csv(header: Sequence[str], delimiter: str) -> Callable[[bytes], Any]:
    def parse(chunk: bytes) -> Any:
        cells = next(csv.reader(io.StringIO(chunk.decode("utf-8"), newline=""), delimiter=delimiter))
        return dict(zip(header, cells, strict=True))

    return parse


def _csv_records(store: Text, delimiter: str) -> Iterator[tuple[int, list[str], bytes]]:
    """(1-based line where the record begins, its cells, its own bytes)."""
    raw: list[bytes] = []
    number = 0

    def lines(file: BinaryIO) -> Iterator[str]:
        nonlocal number
        for line in _lines(file):
            number += 1
            raw.append(line)
            yield decoded(store.name, number, line).removeprefix("\ufeff" if number == 1 else "")

    with store.origin.open() as file:
        # strict: a quote that is never closed would otherwise swallow the rest of the file without a word.
        reader = csv.reader(lines(file), delimiter=delimiter, strict=True)
        begin = 1
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(
                    f"{store.name} line {begin}: not valid CSV ({error}). "
                    "Close every double quote, and double those inside a quoted cell."
                ) from error
            yield begin, cells, b"".join(raw)
            raw.clear()
            begin = reader.line_num + 1


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines that end in \\n, \\r\\n or a bare \\r."""
    for line in file:
        if b"\r" in line.removesuffix(b"\r\n")[:-1]:
            yield from re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", line)
        else:
            yield line


def _delimiter(start: str) -> str:
    """The one of , ; tab | that cuts the header line into most cells; a comma if none does."""
    header = re.split("[\r\n]", start.lstrip("\r\n"), maxsplit=1)[0]
    return max(",;\t|", key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


def _check_header(place: str, header: Sequence[str]) -> None:
    if header[0].lower().startswith("sep=") and not any(header[1:]):
        raise DataError(
            f"{place}: a note for spreadsheet programs (sep=), not the names of the columns. Take out that line."
        )
    # An unnamed column is common (an index that was saved along) and harmless.
    if twice := [name for name, times in Counter(header).items() if name and times > 1]:
        raise DataError(f'{place}: the column "{short(twice[0])}" stands twice. Rename one of them.')


def _column_of_csv(chunk: bytes, value: str, delimiter: str, ending: bytes) -> bytes:
    bare = chunk.rstrip(b"\r\n")
    return bare + (delimiter + value).encode() + (chunk[len(bare) :] or ending)
