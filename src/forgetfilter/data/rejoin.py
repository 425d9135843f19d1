"""The files that a run cut an input into -> that input again, in its old order, without the input itself.

`formats.write` copies rows' own bytes, so what was cut can be put together and cut otherwise.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from forgetfilter.data import detection, files, formats, packing, tables
from forgetfilter.data.containers import BOM, Origin, Store, Text
from forgetfilter.data.files import Input, Inputs
from forgetfilter.data.turns import Reading
from forgetfilter.data.wording import EmptyFile, count
from forgetfilter.errors import DataError
from forgetfilter.records import Row

if TYPE_CHECKING:
    import numpy as np


class Piece(NamedTuple):
    """A file or folder that `formats.write` wrote, and the numbers of its rows in the input (0-based, ascending)."""

    path: Path
    rows: np.ndarray  # (rows of the piece,)


@dataclass(slots=True)
class _Shard:
    """One file of the input: its rows lie in a file of each piece."""

    input: Input
    stores: list[tuple[int, Store]]  # piece, rows; in the pieces' order
    format: str = ""  # no format fits, or a trainer's list did not say
    columns: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(store) for _, store in self.stores)


def rejoin(
    pieces: Sequence[Piece], ids: Sequence[str], source: str, *, format: str | None = None,
    fields: Mapping[str, str] | None = None, truth: str | None = None, read_as: Sequence[Mapping[str, Any]] = (),
) -> formats.Dataset:  # fmt: skip
    """The data set that `pieces` were cut from; `ids` are its rows' ids in order, `source` what it was called.

    Rows are found, not checked and not held in memory. `format`, `fields` and `truth` as for `formats.read`;
    `read_as` is what `formats.read_as` said of the input. Where no format fits, the result's `format` is "": its
    rows can be written, and have no turns to read. DataError where the pieces do not hold the rows they should.
    """
    folder = packing.Folder()
    chosen = detection.chosen_fields(fields or {}, formats.FORMATS)
    shape, shards = _opened(pieces, folder.path, chosen, read_as)
    _refuse_other_counts(pieces, shards)
    for shard in shards:
        if not shard.format:
            _settle(shard, format, chosen)
    parts, taken, first = [], [0] * len(pieces), 0
    for shard in _in_order(shards, ids, source, truth):
        rows = [_next(pieces, taken, k, len(store)) for k, store in shard.stores]
        store = _joined([store for _, store in shard.stores], rows, first)
        keys = array("Q", (int(key.partition("-")[0], 16) for key in ids[first : first + len(shard)]))
        parts.append(formats.Part(shard.input, store, shard.format, shard.columns, first, keys))
        first += len(shard)
    return _dataset(parts, ids, Inputs(source, tuple(p.input for p in parts), shape), truth, folder)


def reread(dataset: formats.Dataset, index: int, truth: str | None = None) -> Row | None:
    """One row, with the id that its content gives now; None where it is no row of the data set's format."""
    part = next(p for p in dataset.parts if p.first <= index < p.first + len(p.keys))
    return _read(part.store.get(index - part.first), part.format, part.columns, dataset.source, truth, index)


def is_as_scored(dataset: formats.Dataset, row: Row) -> bool:
    """Whether a row that was read again is the one that the run scored."""
    part = next(p for p in dataset.parts if p.first <= row.index < p.first + len(p.keys))
    return int(row.id, 16) == part.keys[row.index - part.first]


# --- finding the rows ---


def _opened(
    pieces: Sequence[Piece], folder: Path, chosen: Mapping[str, str], read_as: Sequence[Mapping[str, Any]]
) -> tuple[str, list[_Shard]]:
    shape, shards = "file", dict[str, _Shard]()
    for k, piece in enumerate(pieces):
        if not piece.path.exists():
            raise DataError(f"{piece.path}: no such file. Put it back, or filter again.")
        shape = _shape(piece.path)
        for path in _files(piece.path):
            one = files.find(path, folder).files[0]
            name = path.name if shape == "folder" else ""
            known: Mapping[str, Any] = next((of for of in read_as if name in ("", of["file"])), {})
            columns = known.get("columns", {})
            store = formats.opened(one, folder, {**columns, **chosen})
            _find_rows(store)
            shards.setdefault(name, _Shard(one, [], known.get("format", ""), columns)).stores.append(
                (k, store)
            )
    return shape, list(shards.values())


def _shape(path: Path) -> str:
    return "file" if not path.is_dir() else "saved" if (path / "state.json").exists() else "folder"


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.iterdir() if p.suffix == ".arrow" or not (path / "state.json").exists())


def _find_rows(store: Store) -> None:
    """Where each row lies. Rows were checked before they were written, so lines are not parsed again."""
    if isinstance(store, tables.Table):
        return
    if isinstance(store, Text) and store.kind == "jsonl":
        with store.origin.open() as file:
            start = 0
            for line in file:
                skip = len(BOM) if not start and line.startswith(BOM) else 0
                if not line.isspace():
                    store.add(start + skip, len(line) - skip)
                start += len(line)
                store.ending = b"\r\n" if line.endswith(b"\r\n") else b"\n"
        return
    try:
        for _ in store.scan():
            pass
    except EmptyFile:
        pass


def _refuse_other_counts(pieces: Sequence[Piece], shards: Sequence[_Shard]) -> None:
    for k, piece in enumerate(pieces):
        there = sum(len(store) for shard in shards for of, store in shard.stores if of == k)
        if there != len(piece.rows):
            raise DataError(
                f"{piece.path}: holds {count(there)}, scores.jsonl gives it {len(piece.rows):,}. The file was changed "
                "since the run: put the old one back, or filter again."
            )


def _settle(shard: _Shard, format: str | None, chosen: Mapping[str, str]) -> None:
    record = next((store.get(0) for _, store in shard.stores if len(store)), None)
    if record is None:
        return
    try:
        shard.format, shard.columns = detection.settle(
            shard.input.name, record, format, chosen, formats.FORMATS
        )
    except DataError:
        shard.format = ""


def _in_order(shards: list[_Shard], ids: Sequence[str], source: str, truth: str | None) -> list[_Shard]:
    """The shards as they stood in the input: by the number of the first row each piece has of them."""
    if len(shards) < 2:
        return shards
    number = {key: row for row, key in reversed(list(enumerate(ids)))}

    def first(shard: _Shard) -> int:
        found = []
        for _, store in shard.stores:
            row = _read(store.get(0), shard.format, shard.columns, source, truth) if len(store) else None
            found += [number[row.id]] if row is not None and row.id in number else []
        return min(found, default=len(ids))

    return sorted(shards, key=first)


def _next(pieces: Sequence[Piece], taken: list[int], piece: int, length: int) -> np.ndarray:
    taken[piece] += length
    return pieces[piece].rows[taken[piece] - length : taken[piece]]


def _read(
    record: Any, format: str, columns: Mapping[str, str], source: str, truth: str | None, index: int = 0
) -> Row | None:
    """A record as a row; None where no format fits."""
    if not format:
        return None
    reading = Reading(columns)
    try:
        talk = formats.FORMATS[format].read(record, reading)
    except Exception:  # a reader meets a record that was changed by hand
        return None
    return formats.row_of(talk, record, reading, format, truth, source, index, "")


# --- putting them together ---


def _joined(stores: Sequence[Store], rows: Sequence[np.ndarray], first: int) -> Store:
    """One store of the rows of several, by their numbers in the input; the first is number `first`."""
    import numpy as np

    numbers = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    order = np.argsort(numbers, kind="stable")
    if not np.array_equal(numbers[order], np.arange(first, first + len(numbers))):
        raise DataError(
            "The run's files do not hold the rows in the order of scores.jsonl: one of them was changed or renamed. "
            "Put the old one back, or filter again."
        )
    # A file without rows does not tell how its rows would be written.
    like = max(stores, key=lambda store: len(store) > 0)
    if isinstance(like, tables.Table):
        import pyarrow as pa

        table = pa.concat_tables([cast(tables.Table, store).table for store in stores])
        size = sum(store.size for store in stores)
        return replace(like, table=tables.cut(table, order.tolist()), keeps=stores, size=size)
    texts = [cast(Text, store) for store in stores if len(store)] or [cast(Text, like)]
    origin = _Several.of([text.origin for text in texts])
    starts = np.concatenate(
        [np.asarray(text.starts) + base for text, base in zip(texts, origin.bases, strict=True)]
    )
    lengths = np.concatenate([np.asarray(text.lengths) for text in texts])
    return replace(
        cast(Text, like), origin=cast(Origin, origin), starts=array("q", starts[order].tolist()),
        lengths=array("q", lengths[order].tolist()), lines=None,
    )  # fmt: skip


@dataclass(slots=True)
class _Several:
    """Several text files as one, for reading by place: what `Origin` is of one."""

    origins: list[Origin]
    bases: list[int]  # where each begins

    @classmethod
    def of(cls, origins: list[Origin]) -> _Several:
        bases, end = [], 0
        for origin in origins:
            bases.append(end)
            end += origin.size
        return cls(origins, bases)

    @property
    def name(self) -> str:
        return self.origins[0].name

    @property
    def size(self) -> int:
        return sum(origin.size for origin in self.origins)

    @contextmanager
    def open(self) -> Generator[BinaryIO]:
        with ExitStack() as stack:
            yield cast(BinaryIO, _Reader([stack.enter_context(o.open()) for o in self.origins], self.bases))


@dataclass(slots=True)
class _Reader:
    """Reads at a place of several files put end to end; no reading goes beyond its file."""

    open_files: list[BinaryIO]
    bases: list[int]
    at: int = 0

    def seek(self, place: int) -> None:
        self.at = bisect_right(self.bases, place) - 1
        self.open_files[self.at].seek(place - self.bases[self.at])

    def read(self, length: int) -> bytes:
        return self.open_files[self.at].read(length)


def _dataset(
    parts: Sequence[formats.Part], ids: Sequence[str], inputs: Inputs, truth: str | None, keeps: Any
) -> formats.Dataset:
    repeats = {row: int(end) for row, key in enumerate(ids) if (end := key.partition("-")[2]).isdecimal()}
    first = next((part for part in parts if len(part.keys)), parts[0])
    return formats.Dataset(
        rows=formats.Rows(parts, inputs.source, truth, repeats), format=first.format, container=first.store.kind,
        source=inputs.source, path=None, columns=first.columns, notes=(), left_out=(), rejected=(),
        parts=tuple(parts), inputs=inputs, keeps=keeps,
    )  # fmt: skip
