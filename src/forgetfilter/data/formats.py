"""Rows of each known format <-> Row; whatever is written back is the input's own text, cut by row.

A file has a container (`containers.py`, `tables.py`), which says where one row ends and the next begins, and a
format, which says which fields are the conversation. The two are independent. To read a new format, write one
function from a record to a Talk and one line of FORMATS, both in `readers.py`.
"""

from __future__ import annotations

import json
import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from forgetfilter.data import containers, detection, files, given, json_files, packing, readers, tables
from forgetfilter.data.columns import Unread
from forgetfilter.data.files import Input, Inputs
from forgetfilter.data.packing import appearing
from forgetfilter.data.readers import FORMATS as FORMATS
from forgetfilter.data.turns import Columns, Reading, Talk, named_roles
from forgetfilter.data.wording import EmptyFile, RowError, count, found
from forgetfilter.errors import DataError, unknown
from forgetfilter.records import LeftOut, Message, Row, Tally, row_id, whole_characters

MANY = 50_000  # rows: of more than this, or of files larger than containers.HELD, none is held in memory


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a data set."""

    input: Input
    store: containers.Store
    format: str
    columns: Columns
    first: int  # index in the data set of its first row
    keys: array[int]  # per row, the first 64 bits of its id


@dataclass(frozen=True, slots=True)
class Dataset:
    """The rows of one data set, and all that is needed to write any of them back unchanged."""

    rows: Sequence[Row]
    format: str  # a name of FORMATS, of the first file
    container: str  # json, jsonl, csv, parquet, arrow, hub or given, of the first file
    source: str  # file or folder name without the folders above, or hub id
    path: Path | None  # where the data set is one local file
    columns: Columns  # where the format's fields were found
    notes: tuple[str, ...]  # what was detected, one sentence each, to be said aloud
    left_out: tuple[LeftOut, ...]  # what is not read, or otherwise than it stands; for report.json
    rejected: Sequence[
        Row
    ]  # of preference pairs: the conversations with the other answer, judged, never learned
    parts: tuple[Part, ...]
    inputs: Inputs
    keeps: Any = None  # the temporary folder of unpacked files

    @property
    def suffix(self) -> str:
        """What a file of these rows is called at the end: the input's own suffix, "" for a folder of files."""
        return self.parts[0].input.endings if self.inputs.shape in ("file", "hub") else ""

    @property
    def saved(self) -> list[tables.Table]:
        """The shards of a folder of save_to_disk."""
        return [part.store for part in self.parts if isinstance(part.store, tables.Table)]

    def digest(self) -> str:
        """SHA-256 of what was read: of the files, of the rows where there are none, and of how a list had them read."""
        from forgetfilter import runs

        pieces = [
            runs.sha256(part.input.path)
            if part.input.path
            else runs.sha256_of(f"{key:016x}" for key in part.keys)
            for part in self.parts
        ]
        if as_listed := read_as(self):
            pieces.append(json.dumps(as_listed, sort_keys=True))
        return pieces[0] if len(pieces) == 1 else runs.sha256_of(pieces)


def read(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | tables.HubRows,
    *,
    format: str | None = None,
    fields: Mapping[str, str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    truth: str | None = None,
) -> Dataset:
    """Read rows from whatever holds them.

    A .json, .jsonl, .csv, .tsv, .parquet or .arrow file, the text ones also .gz, .bz2 or .zst; a folder of such
    files; a pattern; several of these in a list; a folder of save_to_disk; `dataset_info.json:NAME` of
    LLaMA-Factory; a YAML of axolotl; `-` for standard input; a hub id `owner/name` or `owner/name:split`. Rows that
    are in memory come as `given.store` makes them.

    The format is detected from the first row of each file and must hold for all its rows; `format` names it
    instead. `fields` maps a field to its name in the file: {"prompt": "question", "completion": "answer"}.
    Columns outside the format are left alone; `truth` names one that holds labels and nothing about learning.
    Only a hub id reaches for the network; `cache_dir` is where that download is kept.

    Row ids come from content and source; the second and third of equal rows end in -2 and -3. A row
    without an answer is a row like others (its completion is ""). Raises DataError, naming file, line,
    field, what was found and what to do.
    """
    chosen = detection.chosen_fields(fields or {}, FORMATS)
    if format is not None and format not in FORMATS:
        raise DataError(unknown("format", format, FORMATS))
    folder = packing.Folder()
    inputs = given.inputs(path) if isinstance(path, tables.HubRows) else files.find(path, folder.path)
    ahead = _Scan(inputs.source, truth)
    for one in inputs.files:
        columns = {**one.fields, **chosen}
        store = path if isinstance(path, tables.HubRows) else opened(one, folder.path, columns, cache_dir)
        ahead.scan(one, store, one.format or format, columns, inputs)
    return ahead.dataset(inputs, folder, named=format is not None)


def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of anything `read` takes, whatever their fields. Raises DataError like `read`."""
    folder = packing.Folder()
    records = []
    inputs = files.find(path, folder.path).files
    for one in inputs:
        store = opened(one, folder.path, {})
        for index, record in enumerate(_unless_empty(store, alone=len(inputs) == 1)):
            containers.refuse_no_objects(f"{one.name} {store.place(index)}", record)
            records.append(record)
    return records


def write(dataset: Dataset, indices: Sequence[int], stem: Path) -> Path:
    """Write the rows at `indices` (0-based, in the order given) as the input was; returns where.

    One file: stem + the input's suffix, packed as it was. Several: a folder `stem` with a file for each, also for
    those without a row left. Container, fields and field order are the input's; JSON, JSONL and CSV rows keep
    their very bytes. No rows give a valid empty file. All appears whole or not at all. Raises DataError if it
    cannot be written, IndexError for an index outside the data set.
    """
    firsts = [part.first for part in dataset.parts]
    chosen: list[list[int]] = [[] for _ in firsts]
    for index in indices:
        if not 0 <= index < len(dataset.rows):
            raise IndexError(f"row {index} of {len(dataset.rows)}")
        at = bisect_right(firsts, index) - 1  # the last part to begin there: those before it have no rows
        chosen[at].append(index - firsts[at])
    if dataset.inputs.shape == "saved":
        with appearing(stem) as partial:
            tables.save_chosen(dataset.saved, chosen, partial)
        return stem
    of = {part.input.name: rows for part, rows in zip(dataset.parts, chosen, strict=True)}
    return write_parts(dataset, stem, lambda part, target: part.store.write(of[part.input.name], target))


def written(path: Path) -> list[Path]:
    """The files that `write` made at the path it returned."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def write_parts(dataset: Dataset, stem: Path, put: Callable[[Part, Path], None]) -> Path:
    """One file or a folder of files at `stem`, as the input was; `put` writes a part to the path it is given."""
    if dataset.suffix:
        target = stem.with_name(stem.name + dataset.suffix)
        part = dataset.parts[0]
        with appearing(target) as partial, packing.packed(partial, part.input.packing) as plain:
            put(part, plain)
        return target
    with appearing(stem) as partial:
        partial.mkdir()
        for part in dataset.parts:
            with packing.packed(partial / name_of(part), part.input.packing) as plain:
                put(part, plain)
    return stem


def name_of(part: Part) -> str:
    """What its file is called in a folder that is written."""
    name = part.input.name.replace("/", "--").replace(":", "-")
    return name if part.input.path is not None else name + ".jsonl"


def read_as(dataset: Dataset) -> list[dict[str, Any]]:
    """How a trainer's list had its files read, for `rejoin`, as JSON can hold it; [] where there is no list."""
    return [
        {"file": name_of(part), "format": part.format, "columns": dict(part.columns)}
        for part in dataset.parts
        if part.input.fields and part.format
    ]


def as_prompt_completion(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with a prompt and a completion made from whatever known one-answer format it has.

    Alpaca: instruction and input become the prompt. Text: the first three words do. The fields it was made
    from are left out, all others stay. Raises DataError for conversations and unknown formats.
    """
    detected = detection.detect(record, {}, FORMATS)
    if detected is None or detected[0] not in ONE_ANSWER:
        raise DataError(f"no prompt and completion can be made of the fields {found(record)}")
    name, columns = detected
    try:
        messages = FORMATS[name].read(record, Reading(columns)).messages
    except RowError as error:
        raise DataError(str(error)) from error
    if [m.role for m in messages] != ["user", "assistant"]:
        raise DataError(f"a conversation is no single prompt and completion (fields {found(record)})")
    others = {key: value for key, value in record.items() if key not in columns.values()}
    return {"prompt": messages[0].content, "completion": messages[1].content, **others}


# --- reading ---


def opened(
    one: Input, folder: Path, chosen: Columns, cache_dir: str | os.PathLike[str] | None = None
) -> containers.Store:
    """The records of one file, before anything of it is read; `folder` takes what must be unpacked.

    `chosen` are the columns that the user mapped: they tell a row from an object that holds rows.
    """
    if one.path is None:
        return tables.open_hub(one.hub, cache_dir)
    try:
        path = packing.unpack(one.path, one.packing, folder) if one.packing else one.path
        if one.suffix == ".parquet":
            return tables.open_parquet(path, one.name)
        if one.suffix == ".arrow":
            return tables.open_arrow(path, one.name)
        is_row = lambda record: detection.fits(record, chosen, FORMATS)  # noqa: E731
        return json_files.open_text(path, one.suffix, one.name, is_row)
    except OSError as error:
        raise DataError(f"{one.path}: cannot be read ({error.strerror or error}).") from error


def _unless_empty(store: containers.Store, *, alone: bool) -> Iterator[Any]:
    """The records; none of an empty file beside others."""
    try:
        yield from store.scan()
    except EmptyFile:
        if alone:
            raise


class _Scan:
    """Reads files one after the other, once, and counts what is in them."""

    def __init__(self, source: str, truth: str | None) -> None:
        self.source, self.truth, self.tally = source, truth, Tally()
        self.parts: list[Part] = []
        self.notes: list[str] = []
        self.renamed: dict[str, str] = {}
        self.rows: list[Row] | None = []
        self.seen: dict[int, int] = {}  # key -> how often, for keys seen more than once
        self.keys: set[int] = set()
        self.repeats: dict[int, int] = {}  # row index -> 2 for the second of equal rows, and so on
        self.rejected = 0
        self.unread = Unread(
            frozenset(n for form in FORMATS.values() for ns in form.names.values() for n in ns)
        )
        self.size = self.total = 0

    def scan(
        self, one: Input, store: containers.Store, format: str | None, chosen: Columns, inputs: Inputs
    ) -> None:
        """All rows of one file. DataError for the first that is wrong."""
        keys: array[int] = array("Q")
        first, index = self.total, -1
        reading, name, columns = Reading({}), "", dict[str, str]()
        self.size += store.size
        known: Iterator[str] = iter(())
        for index, record in enumerate(_unless_empty(store, alone=len(inputs.files) == 1)):
            place = index  # of this turn of the loop, for the place asked for below
            where = lambda: f"{one.name} {store.place(place)}"  # noqa: B023, E731
            if type(record) is not dict:
                containers.refuse_no_objects(where(), record)
            if not index:
                name, columns = detection.settle(where(), record, format, chosen, FORMATS)
                self._refuse_other_schema(one, name, columns, inputs.shape)
                reading = Reading(columns, self.tally, where)
                self.unread.begin(name, columns, FORMATS[name].names, self.truth)
                known = detection.format_notes(
                    one.name, record, name, columns, FORMATS, named=format is not None
                )
            reading.place = where
            talk = detection.talk_of(where, record, name, reading, chosen, FORMATS)
            row = row_of(talk, record, reading, name, self.truth, self.source, first + index, where())
            self._count(row, talk, where)
            self.unread.count(record, where)
            keys.append(int(row.id, 16))
            self._hold(row)
        if index < 0:
            known = iter([f"{one.name}: holds no rows"])
        self.renamed |= reading.renamed
        self.total += len(keys)
        self.parts.append(Part(one, store, name, columns, first, keys))
        self.notes += [*store.notes, *known]

    def _first(self) -> Part | None:
        """The first file with rows."""
        return next((part for part in self.parts if len(part.keys)), None)

    def _refuse_other_schema(self, one: Input, name: str, columns: Columns, shape: str) -> None:
        first = self._first()
        if shape == "list" or first is None:
            return
        both = columns.keys() & first.columns.keys()  # a column that may be absent makes no other schema
        if name != first.format or any(columns[field] != first.columns[field] for field in both):
            raise DataError(
                f"{one.name}: holds rows of format {name} ({detection.describe(name, columns, FORMATS)}), "
                f"{first.input.name} beside it of format {first.format} "
                f"({detection.describe(first.format, first.columns, FORMATS)}). "
                "Shards must be alike: take one of the two away, or name the files to read."
            )

    def _count(self, row: Row, talk: Talk, where: Callable[[], str]) -> None:
        key = int(row.id, 16)
        if key in self.keys:
            self.seen[key] = self.seen.get(key, 1) + 1
            self.repeats[row.index] = self.seen[key]
        self.keys.add(key)
        self.rejected += talk.rejected is not None
        if not row.teaches and (row.learned is None or any(row.learned)):
            self.tally.add("no-answer", where())

    def _hold(self, row: Row) -> None:
        if self.rows is None:
            return
        if row.index >= MANY or self.size > containers.HELD:
            self.rows = None
            return
        repeat = self.repeats.get(row.index)
        self.rows.append(replace(row, id=f"{row.id}-{repeat}") if repeat else row)

    def dataset(self, inputs: Inputs, keeps: Any, *, named: bool) -> Dataset:
        """The data set of all that was read."""
        first = self._first()
        if first is None:
            raise DataError(f"{self.source}: holds no rows. Give a file with at least one.")
        lazy = Rows(self.parts, self.source, self.truth, self.repeats)
        large = self.rows is None or self.size > containers.HELD
        path = first.input.path if inputs.shape == "file" and inputs.source != "stdin" else None
        return Dataset(
            rows=lazy if large else tuple(self.rows or ()),
            format=first.format,
            container=first.store.kind,
            source=self.source,
            path=path,
            columns=first.columns,
            notes=tuple(self._notes(inputs, first)),
            left_out=(*self.tally.left_out(), *self.unread.left_out()),
            rejected=Rows(self.parts, self.source, self.truth, self.repeats, rejected=True)
            if self.rejected
            else (),
            parts=tuple(self.parts),
            inputs=inputs,
            keeps=keeps,
        )

    def _notes(self, inputs: Inputs, first: Part) -> Iterator[str]:
        name = detection.describe(first.format, first.columns, FORMATS)
        many = f" in {len(self.parts)} files" if len(self.parts) > 1 else ""
        yield f"{self.source}: {count(self.total)}{many}, format {first.format} ({name})"
        for part in self.parts:
            if part.format not in ("", first.format):
                name = detection.describe(part.format, part.columns, FORMATS)
                yield f"{part.input.name}: {count(len(part.store))}, format {part.format} ({name})"
        yield from inputs.notes
        yield from dict.fromkeys(self.notes)
        if named := list(named_roles(self.renamed)):
            yield f"{self.source}: roles read: {'; '.join(named)}"
        if self.rejected:
            yield f"{self.source}: {count(self.rejected)} of two answers: the chosen one is learned, the rejected not"
        if self.repeats:
            yield f"{self.source}: {count(len(self.repeats))} the same as an earlier one"
        yield from (f"{self.source}: {one.words}" for one in self.tally.left_out())
        if names := self.unread.named():
            yield f"{self.source}: columns that are not read: {names}"


def row_of(
    talk: Talk, record: Mapping[str, Any], reading: Reading, format: str, truth: str | None, source: str,
    index: int, place: str,
) -> Row:  # fmt: skip
    """The row that a reader's Talk of a record makes; its id is that of the first of equal rows."""
    messages = _whole_characters(talk.messages, reading)
    learned = talk.learned
    if not readers.wanted(record, reading, format=format, truth=truth):
        learned = (False,) * len(messages)
    more: list[Any] = [talk.beside, learned] if talk.beside or learned is not None else []
    if talk.rejected:
        more.append(talk.rejected)
    key = row_id(source, messages, more)
    kind = "text" if talk.text else "chat"
    return Row(key, index, source, messages, kind, record, learned, None, talk.beside, place)


def _whole_characters(messages: tuple[Message, ...], reading: Reading) -> tuple[Message, ...]:
    """JSON may hold one half of a surrogate pair, which no tokenizer takes."""
    if all(m.content.isascii() for m in messages):
        return messages
    whole = tuple(Message(m.role, whole_characters(m.content)) for m in messages)
    if whole != messages:
        reading.say("half-characters")
    return whole


class Rows(Sequence[Row]):
    """Rows that stay on disk: each is read when it is asked for."""

    def __init__(
        self, parts: Sequence[Part], source: str, truth: str | None, repeats: Mapping[int, int], *,
        rejected: bool = False,
    ) -> None:  # fmt: skip
        self._parts, self._source, self._truth, self._repeats = tuple(parts), source, truth, repeats
        self._rejected = rejected

    def __len__(self) -> int:
        return sum(len(part.keys) for part in self._parts)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        for part in self._parts:
            if part.first <= at < part.first + len(part.keys):
                return self._make(
                    part, at - part.first, part.store.get(at - part.first), Reading(part.columns)
                )
        raise IndexError(f"row {index} of {len(self)}")

    def __iter__(self) -> Iterator[Row]:
        for part in self._parts:
            reading = Reading(part.columns)
            for i, record in enumerate(part.store.walk()):
                yield self._make(part, i, record, reading)

    def id(self, index: int) -> str:
        """The id of a row, without reading it."""
        part = next(p for p in self._parts if p.first <= index < p.first + len(p.keys))
        return self._id(part, index - part.first)

    def _id(self, part: Part, i: int) -> str:
        repeat = self._repeats.get(part.first + i)
        return f"{part.keys[i]:016x}" + (f"-{repeat}" if repeat else "")

    def _make(self, part: Part, i: int, record: Mapping[str, Any], reading: Reading) -> Row:
        talk = FORMATS[part.format].read(record, reading)
        place = f"{part.input.name} {part.store.place(i)}"
        row = row_of(talk, record, reading, part.format, self._truth, self._source, part.first + i, place)
        row = replace(row, id=self._id(part, i))
        return _with_rejected(row, talk) if self._rejected else row


def _with_rejected(row: Row, talk: Talk) -> Row:
    """The same row with its other answer, which is judged but never learned."""
    other = talk.rejected or ()
    begin = readers.parting(other, talk.messages)
    scored = tuple(m.role == "assistant" and i >= begin for i, m in enumerate(other))
    quiet = Reading({})
    return replace(
        row, id=f"{row.id}-rejected", messages=_whole_characters(other, quiet), learned=(False,) * len(other),
        scored=scored, beside={i: more for i, more in talk.beside.items() if i < begin},
    )  # fmt: skip


ONE_ANSWER = ("prompt-completion", "alpaca", "text")
