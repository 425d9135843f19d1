"""Parquet and Arrow files, folders of save_to_disk, and hub data sets <-> records.

Small tables lie in memory; a large Parquet file is unpacked to a temporary Arrow file that the system pages in.
Columns keep their types: what is written is cut from the table that was read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from forgetfilter.data import packing
from forgetfilter.data.containers import HAS_COLUMN, HELD
from forgetfilter.data.wording import short
from forgetfilter.errors import DataError

BATCH = 1000  # rows turned into Python objects at a time
MAPPED = 4 * HELD  # bytes of a Parquet file, unpacked, above which it is not held in memory


@dataclass(slots=True)
class Table:
    """A Parquet or Arrow file."""

    kind: str  # parquet or arrow
    name: str
    table: Any  # pyarrow.Table
    size: int  # bytes, unpacked, roughly
    codec: str = "snappy"  # of the Parquet file
    notes: list[str] = field(default_factory=list)
    keeps: Any = None  # what must live as long as the table: a temporary folder
    stream: bool = True  # of Arrow's two forms

    def scan(self) -> Iterator[Any]:
        with _explained(self.name, self.kind):
            self.table.validate(full=self.size < MAPPED)
            yield from self.walk()

    def __len__(self) -> int:
        return self.table.num_rows

    def get(self, index: int) -> Any:
        return next(_records(self.table.slice(index, 1)))

    def walk(self) -> Iterator[Any]:
        for start in range(0, len(self), BATCH):
            yield from _records(self.table.slice(start, BATCH))

    def place(self, index: int) -> str:
        return f"row {index}"

    def write(self, indices: Sequence[int], target: Path) -> None:
        self._write(cut(self.table, indices), target)

    def write_column(self, name: str, values: Sequence[float], target: Path) -> None:
        self._write(self.with_column(name, values), target)

    def with_column(self, name: str, values: Sequence[float]) -> Any:
        """The table with one more column, behind the others. DataError if it is there."""
        import pyarrow as pa

        if name in self.table.column_names:
            raise DataError(f"{self.name}: {HAS_COLUMN.format(short(name))}")
        return self.table.append_column(name, pa.array(values, pa.float64()))

    def _write(self, table: Any, target: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.kind == "parquet":
            pq.write_table(table, target, compression=self.codec)
            return
        form = pa.ipc.new_stream if self.stream else pa.ipc.new_file
        with pa.OSFile(str(target), "wb") as out, form(out, table.schema) as writer:
            writer.write_table(table)


def open_parquet(path: Path, name: str) -> Table:
    """The rows of a Parquet file. DataError if it cannot be read."""
    import pyarrow.parquet as pq

    with _explained(name, "parquet"):
        # Of this one file: read_table would add columns from folder names such as split=train.
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            batches, schema = file.iter_batches(batch_size=BATCH), file.schema_arrow
            table, size, folder = _within_limits(batches, schema, name, path.stat().st_size)
            # Asked only of a file that could be read: of some damaged ones it ends the process.
            codec = groups[0].column(0).compression.lower() if groups and groups[0].num_columns else "snappy"
        _refuse_twice(name, table.column_names)
        return Table("parquet", name, table, size, CODECS.get(codec, codec), keeps=folder)


def _within_limits(
    batches: Iterator[Any], schema: Any, name: str, packed: int
) -> tuple[Any, int, packing.Folder | None]:
    """The table, its bytes, and the folder where it lies if it is large. DataError for a bomb: a file says equal values
    once."""
    import pyarrow as pa

    held, size = [], 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        packing.refuse_bomb(name, packed, size, "export it as JSON lines")
        if size > MAPPED:
            break
    else:
        return pa.Table.from_batches(held, schema=schema), size, None
    folder = packing.Folder()
    path = folder.path / "table.arrow"
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, schema) as stream:
        while held:
            stream.write_batch(held.pop(0))
        for batch in batches:
            size += batch.nbytes
            packing.refuse_bomb(name, packed, size, "export it as JSON lines")
            stream.write_batch(batch)
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all(), size, folder


def open_arrow(path: Path, name: str) -> Table:
    """The rows of an Arrow file or stream. DataError if it cannot be read."""
    import pyarrow as pa

    with _explained(name, "arrow"):
        source = pa.memory_map(str(path))
        stream = source.read(6) != b"ARROW1"
        source.seek(0)
        table = (pa.ipc.open_stream if stream else pa.ipc.open_file)(source).read_all()
        _refuse_twice(name, table.column_names)
        return Table("arrow", name, table, path.stat().st_size, stream=stream)


@contextmanager
def _explained(name: str, kind: str) -> Generator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        what = "Parquet" if kind == "parquet" else "Arrow"
        raise DataError(f"{name}: not a readable {what} file ({reason}). Export or copy it again.") from error


def _refuse_twice(name: str, columns: Sequence[str]) -> None:
    if twice := [column for column in columns if columns.count(column) > 1]:
        raise DataError(f'{name}: the column "{short(twice[0])}" stands twice. Rename one of them.')


def _records(table: Any) -> Iterator[dict[str, Any]]:
    columns = [_values(column) for column in table.columns]
    names = table.column_names
    for row in zip(*columns, strict=True):
        yield dict(zip(names, row, strict=True))


def _values(column: Any) -> list[Any]:
    """A column's values; those Python cannot hold (a date past year 9999, an unknown time zone) stay Arrow's own."""
    import pyarrow as pa

    try:
        return column.to_pylist()
    except (OverflowError, ValueError, pa.ArrowException):
        return list(column)


def cut(table: Any, indices: Sequence[int]) -> Any:
    """The rows at `indices` of a pyarrow table."""
    import pyarrow as pa

    if all(a < b for a, b in pairwise(indices)):
        # A mask works chunk by chunk; `take` would join text columns beyond what 32-bit offsets hold.
        wanted = set(indices)
        try:
            return table.filter(pa.array([i in wanted for i in range(table.num_rows)], pa.bool_()))
        except pa.ArrowNotImplementedError:  # of columns that pyarrow cannot filter (string_view)
            return _by_slices(table, indices)
    try:
        return table.take(pa.array(indices, pa.int64()))
    except pa.ArrowNotImplementedError:
        return _by_slices(table, indices)


def _by_slices(table: Any, indices: Sequence[int]) -> Any:
    import pyarrow as pa

    return pa.concat_tables([table.slice(i, 1) for i in indices]) if indices else table.slice(0, 0)


def save_chosen(tables: Sequence[Table], indices: Sequence[Sequence[int]], folder: Path) -> None:
    """A folder of save_to_disk with the rows at `indices` (of each shard) alone."""
    save_to_disk([cut(one.table, rows) for one, rows in zip(tables, indices, strict=True)], folder)


def save_to_disk(tables: Sequence[Any], folder: Path) -> None:
    """A folder that `datasets.load_from_disk` reads, of as many shards as there are tables of pyarrow."""
    import datasets
    import pyarrow as pa

    chosen = pa.concat_tables(tables)
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        shards = max(1, min(len(tables), chosen.num_rows))
        datasets.Dataset(chosen).save_to_disk(os.fspath(folder), num_shards=shards)
    finally:
        if shown:
            datasets.enable_progress_bars()


# --- hub data sets ---


@dataclass(slots=True)
class HubRows:
    """A loaded hub data set, or rows given from Python; written back as JSONL, the container that holds most."""

    name: str
    dataset: Any  # a sequence of mappings: datasets.Dataset, a list
    kind: str = "hub"
    notes: list[str] = field(default_factory=list)
    lenient: bool = False  # what JSON cannot hold is written as its text; else it is refused

    @property
    def size(self) -> int:
        return int(getattr(self.dataset, "dataset_size", None) or 0)

    def scan(self) -> Iterator[Any]:
        for index, record in enumerate(self.walk()):
            self._line(index, record)  # what cannot be written is told before anything is trained
            yield record

    def __len__(self) -> int:
        return len(self.dataset)

    def get(self, index: int) -> Any:
        return _as_python(dict(self.dataset[index]))

    def walk(self) -> Iterator[Any]:
        return (_as_python(dict(record)) for record in self.dataset)

    def place(self, index: int) -> str:
        return f"row {index}"

    def write(self, indices: Sequence[int], target: Path) -> None:
        with target.open("wb") as out:
            out.writelines(self._line(index, self.get(index)) for index in indices)

    def write_column(self, name: str, values: Sequence[float], target: Path) -> None:
        with target.open("wb") as out:
            out.writelines(
                self._line(index, {**record, name: values[index]}) for index, record in enumerate(self.walk())
            )

    def _line(self, index: int, record: dict[str, Any]) -> bytes:
        try:
            line = json.dumps(record, ensure_ascii=False, default=str if self.lenient else _plain) + "\n"
        except TypeError as error:
            raise DataError(
                f"{self.name} row {index}: {error}. Remove that column, or give a local file."
            ) from error
        return line.encode("utf-8", "surrogatepass")


def open_hub(name: str, cache_dir: str | os.PathLike[str] | None) -> HubRows:
    """A hub data set, `owner/name` or `owner/name:split`; the one thing here that reaches for the network."""
    import datasets

    repository, _, split = name.partition(":")
    try:
        loaded = datasets.load_dataset(
            repository, split=split or "train", cache_dir=os.fspath(cache_dir) if cache_dir else None
        )
    except Exception as error:  # the hub's clients raise errors of half a dozen libraries
        reason = (str(error).splitlines() or [""])[0][:200]
        raise DataError(
            f"{name}: no such file here, and as a hub data set it cannot be loaded ({type(error).__name__}: "
            f"{reason}). Check the name and the split (owner/name:split) and the network connection, or "
            "download it and name the local file."
        ) from error
    return HubRows(name, loaded)


def _as_python(value: Any) -> Any:
    """Arrays and numbers of numpy as Python's own, at any depth: pandas and Ray give the lists of a table as arrays."""
    if type(value).__module__ == "numpy" and value.dtype.kind not in "mM":  # times have no such form
        value = value.tolist()
    if type(value) is dict:
        return {key: _as_python(inner) for key, inner in value.items()}
    if type(value) is list:
        return [_as_python(inner) for inner in value]
    return value


def _plain(value: Any) -> str:
    if hasattr(value, "isoformat"):  # dates and times
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON")


# Parquet's names for codecs that pyarrow writes under another name, or cannot write.
CODECS = {"uncompressed": "none", "lzo": "snappy", "lz4_raw": "lz4", "unknown": "snappy"}
