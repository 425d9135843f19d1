"""Bytes <-> records: a text file cut into rows by their place in it. What cuts it: `json_files.py`, `csv_files.py`.

Every store here and in `tables.py` answers the same calls: `scan` reads the rows once, in order, and notes where
they lie; `get` and `walk` read them again; `write` copies the rows' own bytes. Records stay on disk: a file of
2 GB needs a few bytes of memory per row.
"""

from __future__ import annotations

import io
import os
from array import array
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from forgetfilter.data.wording import not_an_object, short
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

        def chunks(file: BinaryIO) -> Iterator[bytes]:
            for index, value in enumerate(values):
                chunk = self._chunk(file, index)
                if name in self.parse(chunk):
                    raise DataError(f"{self.name} {self.place(index)}: {HAS_COLUMN.format(short(name))}")
                yield self.column(chunk, name, repr(float(value)))

        with self.origin.open() as file:
            self._write(chunks(file), len(self), target, head)

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


def refuse_other_kind(name: str, start: bytes) -> None:
    """DataError where the first bytes say that a file is no plain text."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        wide = start.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff"))
        raise DataError(f"{name}: is UTF-{32 if wide else 16}, not UTF-8. Save it as UTF-8.")
    for magic, (what, remedy) in OTHER_KINDS.items():
        if start.startswith(magic):
            raise DataError(f"{name}: is {what}, not plain text. {remedy}")


def decoded(name: str, number: int, line: bytes) -> str:
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


def refuse_no_objects(place: str, record: Any) -> None:
    if not isinstance(record, dict):
        raise DataError(f"{place}: {not_an_object(record)}")


HAS_COLUMN = 'has a field "{}" already. Rename it, or take it out.'
BOM = b"\xef\xbb\xbf"
OTHER_KINDS = {
    b"\x1f\x8b": ("gzip", "Add .gz to its name, or unpack it with gunzip."),
    b"\x28\xb5\x2f\xfd": ("zstandard", "Add .zst to its name, or unpack it with unzstd."),
    b"BZh": ("bzip2", "Add .bz2 to its name, or unpack it with bunzip2."),
    b"\xfd7zXZ\0": ("xz", "Unpack it with unxz."),
    b"PK\x03\x04": ("a zip archive", "Unpack it with unzip."),
    b"PAR1": ("Parquet", "Name it .parquet."),
    b"ARROW1\0": ("an Arrow file", "Name it .arrow."),
}
