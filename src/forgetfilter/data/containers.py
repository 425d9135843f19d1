"""Bytes <-> records: JSON, JSONL and CSV files, cut into rows by their place in the file.

Every store here and in `tables.py` answers the same calls: `scan` reads the rows once, in order, and notes where
they lie; `get` and `walk` read them again; `write` copies the rows' own bytes. Records stay on disk: a file of
2 GB needs a few bytes of memory per row.
"""

from __future__ import annotations

import csv
import io
import os
import re
from array import array
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from forgetfilter.data import strictjson
from forgetfilter.data.wording import found, kind, not_an_object, short
from forgetfilter.errors import DataError

HELD = (
    64 * 2**20
)  # bytes: a smaller file is kept in memory, so that it may change or go away after it was read

IsRow = Callable[[Mapping[str, Any]], bool]  # whether an object has the fields of a row


class Store(Protocol):
    """The records of one file."""

    kind: str  # json, jsonl, csv, parquet, arrow or hub
    notes: list[str]

    @property
    def size(self) -> int:
        """Bytes, roughly; what is held in memory is decided by it."""
        ...

    def scan(self) -> Iterator[Any]:
        """All records in order, checked; to be run through once, before any other call."""
        ...

    def __len__(self) -> int: ...

    def get(self, index: int) -> Any:
        """One record."""
        ...

    def walk(self) -> Iterator[Any]:
        """All records in order, once more."""
        ...

    def place(self, index: int) -> str:
        """`line 14` or `row 13`."""
        ...

    def write(self, indices: Sequence[int], target: Path) -> None:
        """A new file of these rows (0-based, in this order), their bytes as they stood."""
        ...

    def write_column(self, name: str, values: Sequence[float], target: Path) -> None:
        """A new file of all rows, with one more field; all else as it stood."""
        ...


@dataclass(slots=True)
class Origin:
    """Where the bytes of a text file come from: memory for a small one, else the disk, watched for changes."""

    path: Path
    name: str  # for messages
    held: bytes | None = None
    _seen: tuple[int, int, int] | None = None  # device's inode, size, time of the last change

    @classmethod
    def of(cls, path: Path, name: str | None = None) -> Origin:
        origin = cls(path, name or path.name)
        if origin.size <= HELD:
            with origin.open() as file:
                origin.held = file.read()
        return origin

    @property
    def size(self) -> int:
        return len(self.held) if self.held is not None else self.path.stat().st_size

    @contextmanager
    def open(self) -> Generator[BinaryIO]:
        """The bytes; DataError if the file changed since it was first opened, at either end of the block."""
        if self.held is not None:
            yield io.BytesIO(self.held)
            return
        with self.path.open("rb") as file:
            self._check(file)
            yield file
            self._check(file)

    def _check(self, file: BinaryIO) -> None:
        status = os.fstat(file.fileno())
        now = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._seen is None:
            self._seen = now
        if now != self._seen:
            grew = f"grew by {now[1] - self._seen[1]:,} bytes" if now[1] > self._seen[1] else "was changed"
            raise DataError(
                f"{self.name}: {grew} while it was read. Wait until it is written, or copy it, and run again."
            )


@dataclass(slots=True)
class Text:
    """A text file cut into rows: head + chunks joined by `between` + tail is the file again."""

    kind: str
    origin: Origin
    parse: Callable[[bytes], Any]
    reader: Callable[[Text], Iterator[Any]]
    notes: list[str] = field(default_factory=list)
    starts: array[int] = field(default_factory=lambda: array("q"))  # byte where each row's chunk begins
    lengths: array[int] = field(default_factory=lambda: array("q"))
    lines: array[int] | None = None  # 1-based line per row; None: rows are counted instead
    head: bytes = b""
    between: bytes = b""
    tail: bytes = b""
    empty: bytes = b""  # a valid file of this container without any row
    ending: bytes = b"\n"
    column: Callable[[bytes, str, str], bytes] = lambda chunk, name, value: chunk

    @property
    def name(self) -> str:
        return self.origin.name

    @property
    def size(self) -> int:
        return self.origin.size

    def add(self, start: int, length: int, line: int | None = None) -> None:
        self.starts.append(start)
        self.lengths.append(length)
        if line is not None and self.lines is not None:
            self.lines.append(line)

    def scan(self) -> Iterator[Any]:
        return self.reader(self)

    def __len__(self) -> int:
        return len(self.starts)

    def get(self, index: int) -> Any:
        with self.origin.open() as file:
            return self.parse(self._chunk(file, index))

    def walk(self) -> Iterator[Any]:
        with self.origin.open() as file:
            for index in range(len(self)):
                yield self.parse(self._chunk(file, index))

    def place(self, index: int) -> str:
        return f"row {index}" if self.lines is None else f"line {self.lines[index]}"

    def write(self, indices: Sequence[int], target: Path) -> None:
        with self.origin.open() as file:
            self._write((self._chunk(file, index) for index in indices), len(indices), target)

    def write_column(self, name: str, values: Sequence[float], target: Path) -> None:
        head = self.column(self.head, name, name) if self.kind == "csv" else self.head
        with self.origin.open() as file:
            chunks = (
                self.column(self._chunk(file, index), name, repr(float(value)))
                for index, value in enumerate(values)
            )
            self._write(chunks, len(self), target, head)

    def _chunk(self, file: BinaryIO, index: int) -> bytes:
        file.seek(self.starts[index])
        return file.read(self.lengths[index])

    def _write(self, chunks: Iterator[bytes], count: int, target: Path, head: bytes | None = None) -> None:
        with target.open("wb") as out:
            if not count:
                out.write(self.empty)
                return
            out.write(self.head if head is None else head)
            for place, chunk in enumerate(chunks):
                if place:
                    out.write(self.between)
                if self.kind != "json" and not chunk.endswith((b"\n", b"\r")):
                    chunk += self.ending  # the file's last line may lack it
                out.write(chunk)
            out.write(self.tail)


def open_text(path: Path, suffix: str, name: str, is_row: IsRow) -> Text:
    """The store of a text file, not scanned yet; `suffix` says what it is. Raises DataError."""
    origin = Origin.of(path, name)
    with origin.open() as file:
        start = file.read(8)
    refuse_other_kind(name, start)
    if suffix in (".csv", ".tsv"):
        return _csv(origin, suffix)
    if suffix == ".json":
        return _json(origin, is_row)
    return _jsonl(origin)


def refuse_other_kind(name: str, start: bytes) -> None:
    """DataError where the first bytes say that a file is no plain text."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{name}: is UTF-16, not UTF-8. Save it as UTF-8.")
    for magic, (what, remedy) in OTHER_KINDS.items():
        if start.startswith(magic):
            raise DataError(f"{name}: is {what}, not plain text. {remedy}")


# --- JSON lines ---


def _jsonl(origin: Origin, notes: Sequence[str] = ()) -> Text:
    return Text(
        "jsonl", origin, _parse_line, _scan_jsonl, list(notes), lines=array("q"), column=_column_of_json
    )


def _parse_line(chunk: bytes) -> Any:
    return strictjson.loads(chunk.decode("utf-8"))


def _scan_jsonl(store: Text) -> Iterator[Any]:
    name, start, blank, decode = store.name, 0, 0, strictjson.DECODER.decode
    with store.origin.open() as file:
        for number, line in enumerate(file, start=1):
            length = len(line)
            if number == 1:
                if line.startswith(BOM):
                    start, line = 3, line[3:]
                    length -= 3
                store.ending = b"\r\n" if line.endswith(b"\r\n") else b"\n"
            text = _decoded(name, number, line)
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


def _decoded(name: str, number: int, line: bytes) -> str:
    """A line as text; DataError with line and byte where it is none."""
    if (nul := line.find(b"\0")) >= 0:
        raise DataError(
            f"{name} line {number}, byte {nul + 1}: a NUL byte; this is no plain text. "
            "Remove it (in JSON, write \\u0000) or save the file as UTF-8."
        )
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} line {number}, byte {error.start + 1}: 0x{line[error.start]:02x} is not valid UTF-8. "
            "Save the file as UTF-8."
        ) from error


def _jsonl_hint(number: int, text: str) -> str:
    if number == 1 and text.lstrip().startswith("["):
        return "This looks like one JSON list: name the file .json."
    return "Each line must be one whole JSON object."


def _refuse_empty(store: Text) -> None:
    if not len(store):
        raise DataError(f"{store.name}: is empty. Give a file with at least one row.")


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
    return "one object on one line, read as JSONL of one row" if not after and is_row(first) else ""


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
            _decoded(name, number, line)
        raise AssertionError("no line is wrong") from None
    if not text.strip():
        raise DataError(f"{name}: is empty. Give a file with at least one row.")
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
        raise DataError(f"{name}: one row, not a list of rows. Put it in brackets: [ … ].")
    if set(top) >= SAVED:
        raise DataError(f"{name}: describes a data set saved with save_to_disk. Name its folder instead.")
    lists = [k for k, v in top.items() if isinstance(v, list) and (not v or isinstance(v[0], dict))]
    if len(lists) != 1:
        what = f"several lists ({', '.join(map(short, lists))})" if lists else "no list of rows"
        raise DataError(f'{name}: an object with {what}. Keep one, such as {{"data": [ … ]}}.')
    position = _skip(text, start + 1)
    while True:
        key, position = strictjson.DECODER.raw_decode(text, position)
        position = _skip(text, _skip(text, position) + 1)  # past the colon
        if key == lists[0]:
            return position
        _, position = strictjson.DECODER.raw_decode(text, position)
        position = _skip(text, _skip(text, position) + 1)  # past the comma


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


# --- CSV ---


def _csv(origin: Origin, suffix: str) -> Text:
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
        raise DataError(f"{name}: is empty. Give a file with at least one row.")
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
            yield _decoded(store.name, number, line).removeprefix("\ufeff" if number == 1 else "")

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
        if b"\r" in line[:-2]:
            yield from re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", line)
        else:
            yield line


def _delimiter(start: str) -> str:
    """The one of , ; tab | that cuts the header line into most cells; a comma if none does."""
    header = re.split("[\r\n]", start.lstrip("\r\n"), maxsplit=1)[0]
    return max(",;\t|", key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


def _check_header(place: str, header: Sequence[str]) -> None:
    # An unnamed column is common (an index that was saved along) and harmless.
    if twice := [name for name, times in Counter(header).items() if name and times > 1]:
        raise DataError(f'{place}: the column "{short(twice[0])}" stands twice. Rename one of them.')


def _column_of_csv(chunk: bytes, value: str, delimiter: str, ending: bytes) -> bytes:
    bare = chunk.rstrip(b"\r\n")
    return bare + (delimiter + value).encode() + (chunk[len(bare) :] or ending)


def refuse_no_objects(place: str, record: Any) -> None:
    if not isinstance(record, dict):
        raise DataError(f"{place}: {not_an_object(record)}")


BOM = b"\xef\xbb\xbf"
JSON_SPACE = re.compile(r"[ \t\n\r]*+")
SAVED = {"features", "citation"}  # in a dataset_info.json of save_to_disk
OTHER_KINDS = {
    b"\x1f\x8b": ("gzip", "Add .gz to its name, or unpack it with gunzip."),
    b"\x28\xb5\x2f\xfd": ("zstandard", "Add .zst to its name, or unpack it with unzstd."),
    b"BZh": ("bzip2", "Add .bz2 to its name, or unpack it with bunzip2."),
    b"\xfd7zXZ\0": ("xz", "Unpack it with unxz."),
    b"PK\x03\x04": ("a zip archive", "Unpack it with unzip."),
    b"PAR1": ("Parquet", "Name it .parquet."),
    b"ARROW1\0": ("an Arrow file", "Name it .arrow."),
}
