"""Rows of each known format <-> Row; whatever is written back is the input's own text, cut by row.

A file has a container (JSON, JSONL, CSV, Parquet, a hub data set), which says where one row ends and the
next begins, and a format, which says which fields are the conversation. The two are independent. To read
a new format, write one function from a record to messages and add one line to FORMATS.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from forgetfilter.errors import DataError, unknown
from forgetfilter.records import Message, Row, row_id

Columns = Mapping[str, str]  # field ("prompt", "completion", "messages", "text", …) -> name in the file


@dataclass(frozen=True, slots=True)
class Layout:
    """A text file cut into rows: head + chunks joined by `between` + tail is the file again."""

    head: bytes
    chunks: tuple[bytes, ...]  # one per row, the bytes as they stood
    between: bytes
    tail: bytes
    empty: bytes  # a valid file of this container without any row


@dataclass(frozen=True, slots=True)
class Dataset:
    """The rows of one file, and all that is needed to write any of them back unchanged."""

    rows: tuple[Row, ...]
    format: str  # a name of FORMATS
    container: str  # json, jsonl, csv, parquet or hub
    source: str  # file name without folders, or hub id
    path: Path | None  # None for a hub data set
    columns: Columns  # where the format's fields were found
    notes: tuple[str, ...]  # what was detected, one sentence each, to be said aloud
    layout: Layout | None  # None for Parquet
    table: Any = None  # the pyarrow.Table of a Parquet file

    @property
    def suffix(self) -> str:
        """What a file of these rows is called at the end: the input's own suffix, .jsonl for a hub set."""
        return self.path.suffix if self.path else ".jsonl"


class Format(NamedTuple):
    """How one format is recognised and read.

    `names` lists, per field, what it is called in a file: the first is its own name, the others are
    accepted when exactly one of them is there. A field ending in `?` may be absent.
    """

    names: Mapping[str, tuple[str, ...]]
    to_messages: Callable[[Mapping[str, Any], Columns], tuple[Message, ...]]
    text: bool = False  # running text, rendered without a template


class _Container(NamedTuple):
    """What every container is brought to before its format is looked at."""

    kind: str
    records: list[Any]
    places: Sequence[str]  # "line 14" or "row 13", one per record
    notes: list[str]
    layout: Layout | None
    table: Any = None


class _RowError(Exception):
    """What is wrong with one row; `read` adds file and line."""


class _MissingField(_RowError):
    pass


def read(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    fields: Mapping[str, str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Read a .json, .jsonl, .csv, .tsv or .parquet file, or a hub data set: `owner/name`, `owner/name:split`.

    The format is detected from the first row and must hold for all rows; `format` names it instead.
    `fields` maps a field to its name in the file: {"prompt": "question", "completion": "answer"}; the
    fields are prompt, completion, input, messages and text. Columns outside the format are left alone.
    Only a hub id reaches for the network; `cache_dir` is where that download is kept.

    Row ids come from content and source; the second and third of equal rows end in -2 and -3. A row
    without an answer is a row like others (its completion is ""). Raises DataError, naming file, line,
    field, what was found and what to do.
    """
    chosen = _chosen_fields(fields or {})
    if format is not None and format not in FORMATS:
        raise DataError(unknown("format", format, FORMATS))
    name = os.fspath(path)
    if _is_hub_id(name):
        return _dataset(name, None, _read_hub(name, cache_dir), format, chosen)
    file = Path(name)
    return _dataset(file.name, file, _read_container(file), format, chosen)


def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a local file of any container, whatever their fields. Raises DataError like `read`."""
    file = Path(path)
    container = _read_container(file)
    for place, record in zip(container.places, container.records, strict=True):
        if not isinstance(record, dict):
            raise DataError(f"{file.name} {place}: {_not_an_object(record)}")
    return container.records


def write(dataset: Dataset, indices: Sequence[int], stem: Path) -> Path:
    """Write the rows at `indices` (0-based, in the order given) to stem + the input's suffix; returns it.

    Container, fields and field order are the input's; JSON, JSONL and CSV rows keep their very bytes. No
    rows give a valid empty file. The file appears whole or not at all. Raises DataError if it cannot be
    written, IndexError for an index outside the data set.
    """
    for index in indices:
        if not 0 <= index < len(dataset.rows):
            raise IndexError(f"row {index} of {len(dataset.rows)}")
    target = stem.with_name(stem.name + dataset.suffix)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as out:
            if dataset.layout is None:
                _write_parquet(dataset.table, indices, out)
            else:
                _write_layout(dataset.layout, indices, out)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(target)
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error}). Free space or name another folder."
        ) from error
    finally:
        partial.unlink(missing_ok=True)  # gone already when all went well
    return target


def as_prompt_completion(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with a prompt and a completion made from whatever known one-answer format it has.

    Alpaca: instruction and input become the prompt. Text: the first three words do. The fields it was made
    from are left out, all others stay. Raises DataError for conversations and unknown formats.
    """
    found = _detect(record, {})
    if found is None or FORMATS[found[0]].to_messages is _read_turns:
        raise DataError(f"no prompt and completion can be made of the fields {_found(record)}")
    name, columns = found
    try:
        messages = FORMATS[name].to_messages(record, columns)
    except _RowError as error:
        raise DataError(str(error)) from error
    if [m.role for m in messages] != ["user", "assistant"]:
        raise DataError(f"a conversation is no single prompt and completion (fields {_found(record)})")
    others = {key: value for key, value in record.items() if key not in columns.values()}
    return {"prompt": messages[0].content, "completion": messages[1].content, **others}


# --- rows: which format, and what it says ---


def _dataset(
    source: str, path: Path | None, container: _Container, format: str | None, chosen: Columns
) -> Dataset:
    records, places = container.records, container.places
    if not records:
        raise DataError(f"{source}: holds no rows. Give a file with at least one.")
    for place, record in zip(places, records, strict=True):
        if not isinstance(record, dict):
            raise DataError(f"{source} {place}: {_not_an_object(record)}")
    name, columns = _settle_format(f"{source} {places[0]}", records[0], format, chosen)
    rows: list[Row] = []
    seen: Counter[str] = Counter()
    halves = 0
    for index, (place, record) in enumerate(zip(places, records, strict=True)):
        messages = _messages(f"{source} {place}", record, name, columns, chosen)
        clean = tuple(Message(m.role, _without_half_characters(m.content)) for m in messages)
        halves += clean != messages
        key = row_id(source, clean)
        seen[key] += 1
        rows.append(
            Row(
                id=key if seen[key] == 1 else f"{key}-{seen[key]}",
                index=index,
                source=source,
                messages=clean,
                kind="text" if FORMATS[name].text else "chat",
                record=record,
            )
        )
    notes = [f"{source}: {_count(len(rows))}, format {name} ({_describe(name, columns)})", *container.notes]
    notes += _format_notes(source, records[0], name, columns, named=format is not None)
    repeated = len(rows) - len(seen)
    if repeated:
        notes.append(f"{source}: {_count(repeated)} the same as an earlier one")
    if silent := sum(not row.completion.strip() for row in rows):
        notes.append(f"{source}: {_count(silent)} without a completion")
    if halves:
        notes.append(
            f"{source}: {_count(halves)} with half a surrogate pair, scored with \ufffd in its place"
        )
    return Dataset(
        rows=tuple(rows),
        format=name,
        container=container.kind,
        source=source,
        path=path,
        columns=columns,
        notes=tuple(notes),
        layout=container.layout,
        table=container.table,
    )


def _chosen_fields(fields: Mapping[str, str]) -> dict[str, str]:
    known = {field.rstrip("?") for form in FORMATS.values() for field in form.names}
    chosen: dict[str, str] = {}
    for field, column in fields.items():
        field = SAME_FIELD.get(field, field)
        if field not in known:
            raise DataError(unknown("field", field, known))
        chosen[field] = column
    return chosen


def _settle_format(
    place: str, record: Mapping[str, Any], format: str | None, chosen: Columns
) -> tuple[str, Columns]:
    """The format of a file from its first row, and where its fields are; raises if none fits."""
    if format is not None:
        if strange := set(chosen) - {f.rstrip("?") for f in FORMATS[format].names}:
            raise DataError(
                f"format {format} has no field {sorted(strange)[0]!r}; its fields: {_own_names(format)}"
            )
        columns = _columns(record, format, chosen, exact=False)
        if columns is None:
            raise DataError(f"{place}: {_missing(record, format, chosen)}")
        return format, columns
    if found := _detect(record, chosen):
        return found
    # Nothing fits: explain by the format of which most is there.
    fitting = [name for name in FORMATS if set(chosen) <= {f.rstrip("?") for f in FORMATS[name].names}]
    if not fitting:
        raise DataError(f"no format has all the mapped fields: {', '.join(sorted(chosen))}")
    partly = {name: len(_present(record, name, chosen)) for name in fitting}
    best = max(fitting, key=lambda name: partly[name])
    if partly[best] or chosen:
        raise DataError(f"{place}: {_missing(record, best, chosen)}")
    forms = "; ".join(f"{name} ({_own_names(name)})" for name in FORMATS)
    raise DataError(
        f"{place}: no known format (found: {_found(record)}). Known: {forms}. "
        f"Map the fields: {_likely_flags(record)}."
    )


def _detect(record: Mapping[str, Any], chosen: Columns) -> tuple[str, Columns] | None:
    """The first format of FORMATS that fits by its own field names, else by accepted other names."""
    for exact in (True, False):
        for name, form in FORMATS.items():
            if set(chosen) <= {field.rstrip("?") for field in form.names}:
                columns = _columns(record, name, chosen, exact=exact)
                if columns is not None:
                    return name, columns
    return None


def _columns(record: Mapping[str, Any], format: str, chosen: Columns, *, exact: bool) -> Columns | None:
    """Where the fields of `format` are in this record; None if a required one is absent or ambiguous."""
    columns: dict[str, str] = {}
    for field, names in FORMATS[format].names.items():
        required, field = not field.endswith("?"), field.rstrip("?")
        if field in chosen:
            present = [chosen[field]] if chosen[field] in record else []
            required = True  # what the user mapped must be there
        elif names[0] in record:
            present = [names[0]]
        else:
            present = [] if exact else [n for n in names[1:] if n in record and n not in chosen.values()]
        if len(present) == 1:
            columns[field] = present[0]
        elif required:
            return None
    return columns


def _present(record: Mapping[str, Any], format: str, chosen: Columns) -> list[str]:
    required = [field for field in FORMATS[format].names if not field.endswith("?")]
    return [f for f in required if chosen.get(f, FORMATS[format].names[f][0]) in record]


def _messages(
    place: str, record: Mapping[str, Any], name: str, columns: Columns, chosen: Columns
) -> tuple[Message, ...]:
    try:
        return FORMATS[name].to_messages(record, columns)
    except _MissingField as error:
        other = _detect(record, chosen)
        if other and (other[0] != name or other[1] != columns):
            raise DataError(
                f"{place}: a row of format {other[0]} ({_describe(*other)}) in a file of format {name} "
                f"({_describe(name, columns)}). Put rows of one format in one file."
            ) from error
        raise DataError(f"{place}: {error}") from error
    except RecursionError as error:
        raise DataError(f"{place}: nested too deeply to be read. Remove the row or flatten it.") from error
    except _RowError as error:
        raise DataError(f"{place}: {error}") from error


def _read_prompt_completion(record: Mapping[str, Any], columns: Columns) -> tuple[Message, ...]:
    prompt, completion = _value(record, columns, "prompt"), _value(record, columns, "completion")
    if _is_list(prompt):  # TRL's conversational form: both are lists of turns
        before = _turns(prompt, columns["prompt"])
        if _is_list(completion):
            return before + _turns(completion, columns["completion"])
        return (*before, Message("assistant", _text(completion, columns["completion"], may_be_null=True)))
    return (
        Message("user", _text(prompt, columns["prompt"])),
        Message("assistant", _text(completion, columns["completion"], may_be_null=True)),
    )


def _read_turns(record: Mapping[str, Any], columns: Columns) -> tuple[Message, ...]:
    turns = _turns(_value(record, columns, "messages"), columns["messages"])
    if turns and turns[0].role == "system":
        return turns
    return _system(record, columns) + turns


def _read_alpaca(record: Mapping[str, Any], columns: Columns) -> tuple[Message, ...]:
    instruction = _text(_value(record, columns, "prompt"), columns["prompt"])
    extra = columns.get("input", "input")
    given = _text(record.get(extra), extra, may_be_null=True)
    user = f"{instruction}\n\n{given}" if given.strip() else instruction
    output = _text(_value(record, columns, "completion"), columns["completion"], may_be_null=True)
    return (*_system(record, columns), Message("user", user), Message("assistant", output))


def _read_text(record: Mapping[str, Any], columns: Columns) -> tuple[Message, ...]:
    text = _text(_value(record, columns, "text"), columns["text"], may_be_null=True)
    opening = FIRST_WORDS.match(text)
    cut = opening.end() if opening else len(text)
    if not text[cut:].strip():  # three words or fewer: nothing is left to be learned
        cut = len(text)
    return Message("user", text[:cut]), Message("assistant", text[cut:])


def _system(record: Mapping[str, Any], columns: Columns) -> tuple[Message, ...]:
    value = record.get(columns.get("system", "system"))
    return (Message("system", value),) if isinstance(value, str) and value.strip() else ()


def _turns(value: Any, column: str) -> tuple[Message, ...]:
    """A list of {role, content} or of {from, value}."""
    if isinstance(value, str) and value.lstrip().startswith("["):  # a CSV cell
        try:
            value = json.loads(value)
        except ValueError as error:
            raise _RowError(
                f'"{column}" looks like a list of turns but is not valid JSON ({error})'
            ) from error
    if not _is_list(value):
        raise _RowError(
            f'"{column}" is {_kind(value)}, not a list of turns. '
            'Write [{"role": "user", "content": "…"}, …].'
        )
    return tuple(_turn(turn, f'"{column}" turn {number}') for number, turn in enumerate(value, start=1))


def _turn(turn: Any, place: str) -> Message:
    if not isinstance(turn, Mapping):
        raise _RowError(f'{place} is {_kind(turn)}, not an object. Write {{"role": "user", "content": "…"}}.')
    role_key = "role" if "role" in turn or "from" not in turn else "from"
    text_key = "content" if "content" in turn or "value" not in turn else "value"
    for key in (role_key, text_key):
        if key not in turn:
            raise _RowError(
                f'{place}: no "{key}" (found: {_found(turn)}). Every turn needs a role and a text.'
            )
    role = turn[role_key]
    if not isinstance(role, str) or role not in ROLES:
        shown = role if isinstance(role, str) else _kind(role)
        raise _RowError(f"{place}: {unknown('role', _short(shown), ROLES)}. Rename or remove that turn.")
    content = turn[text_key]
    if _is_list(content):  # parts: [{"type": "text", "text": "…"}]
        content = "".join(_part(part, place) for part in content)
    # A null is how an assistant turn that only called a tool is written.
    return Message(ROLES[role], _text(content, f"{place} {text_key}", may_be_null=ROLES[role] == "assistant"))


def _part(part: Any, place: str) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type") if isinstance(part, Mapping) else None
    raise _RowError(
        f"{place}: a part of type {kind or _kind(part)!r}; only text can be read. Remove that part."
    )


def _value(record: Mapping[str, Any], columns: Columns, field: str) -> Any:
    column = columns[field]
    if column not in record:
        raise _MissingField(_absent(record, field, column, columns.values()))
    return record[column]


def _text(value: Any, column: str, *, may_be_null: bool = False) -> str:
    if isinstance(value, str):
        return value
    if value is None and may_be_null:
        return ""
    label = column if column.startswith('"') else f'"{column}"'
    raise _RowError(f"{label} is {_kind(value)}, not text. Write it as text in quotes, or remove the row.")


def _without_half_characters(text: str) -> str:
    """JSON may hold one half of a surrogate pair, which no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


# --- words for messages and notes ---


def _missing(record: Mapping[str, Any], format: str, chosen: Columns) -> str:
    """The sentence for the first required field of `format` that the record lacks."""
    taken = [chosen.get(f, FORMATS[format].names[f][0]) for f in _present(record, format, chosen)]
    for key, names in FORMATS[format].names.items():
        field = key.rstrip("?")
        if key.endswith("?") and field not in chosen:
            continue
        column = chosen.get(field, names[0])
        several = [n for n in names[1:] if n in record and field not in chosen]
        if column not in record and len(several) != 1:
            return _absent(record, field, column, taken)
    raise AssertionError("nothing is missing")


def _absent(record: Mapping[str, Any], field: str, column: str, taken: Any) -> str:
    free = [n for n, v in record.items() if n not in set(taken) and (isinstance(v, str) or _is_list(v))]
    near = [n for n in LIKELY_NAMES.get(field, ()) if n in free] + difflib.get_close_matches(
        column, free, n=1
    )
    guess = near[0] if near else free[0] if len(free) == 1 else "NAME"
    return f'no "{column}" (found: {_found(record)}). Map it with --{field}-field {_short(guess)}.'


def _not_an_object(record: Any) -> str:
    return f'{_kind(record)}, not an object. Write {{"prompt": "…", "completion": "…"}}.'


def _found(record: Mapping[str, Any]) -> str:
    names = [_short(str(name)) or '""' for name in record]
    more = f", and {len(names) - 12} more" if len(names) > 12 else ""
    return (", ".join(names[:12]) + more) or "nothing"


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"{str(value).lower()}"
    if isinstance(value, int | float):
        return f"a number ({_short(repr(value))})"
    kinds = {str: "text", list: "a list", dict: "an object", bytes: "binary"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def _count(number: int) -> str:
    return f"{number:,} row" + ("" if number == 1 else "s")


def _own_names(format: str) -> str:
    """The required fields, as they are called in a file of that format."""
    return ", ".join(names[0] for field, names in FORMATS[format].names.items() if not field.endswith("?"))


def _likely_flags(record: Mapping[str, Any]) -> str:
    """`--prompt-field question --completion-field answer`, as far as the names give it away."""
    guess = {
        field: next((n for n in names if isinstance(record.get(n), str)), None)
        for field, names in LIKELY_NAMES.items()
    }
    if guess["text"] and not (guess["prompt"] and guess["completion"]):
        return f"--text-field {guess['text']}"
    return f"--prompt-field {guess['prompt'] or 'NAME'} --completion-field {guess['completion'] or 'NAME'}"


def _describe(format: str, columns: Columns) -> str:
    """`instruction, input, output`; a field under another name as `completion = answer`."""
    own = {field.rstrip("?"): names[0] for field, names in FORMATS[format].names.items()}
    return ", ".join(c if c == own[field] else f"{own[field]} = {c}" for field, c in columns.items())


def _format_notes(
    source: str, record: Mapping[str, Any], name: str, columns: Columns, *, named: bool
) -> Iterator[str]:
    if named:
        return
    used = set(columns.values())
    for other in FORMATS:
        fit = _columns(record, other, {}, exact=True)
        if fit and other != name and not set(fit.values()) <= used:
            yield (
                f"{source}: also fits format {other} ({_describe(other, fit)}); "
                f"choose it with --data-format {other} if {name} is wrong"
            )


# --- containers: where one row ends and the next begins ---


def _read_container(path: Path) -> _Container:
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix.lower() in CONTAINERS)[:3]
        hint = f" Name a file in it, such as {path.name}/{inside[0]}." if inside else " Name a file."
        raise DataError(f"{path}: is a folder, not a file of rows.{hint}")
    if not path.exists():
        raise DataError(f"{path}: no such file.{_nearest_file(path)}")
    reader = CONTAINERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path.name}: {path.suffix or 'no suffix'!r} is no known kind of file; known: "
            f"{', '.join(CONTAINERS)}. Rename it or convert it to one of them."
        )
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path.name}: is empty. Give a file with at least one row.")
        return reader(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" There is no folder {path.parent} either."
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1, cutoff=0.6)
    return f" Did you mean {path.with_name(near[0])}?" if near else f" Look in {path.parent.resolve()}."


def _read_text_file(path: Path) -> tuple[bytes, str, bool]:
    """Bytes and text without a byte order mark, and whether there was one; checked for NULs and encoding."""
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path.name}: is UTF-16, not UTF-8. Save it as UTF-8.")
    marked = data.startswith(b"\xef\xbb\xbf")
    data = data[3:] if marked else data
    if (nul := data.find(b"\0")) >= 0:
        line, column = _line_of(data, nul)
        raise DataError(
            f"{path.name} line {line}, byte {column}: a NUL byte; this is no plain text. "
            "Remove it (in JSON, write \\u0000) or save the file as UTF-8."
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _line_of(data, error.start)
        raise DataError(
            f"{path.name} line {line}, byte {column}: 0x{data[error.start]:02x} is not valid UTF-8. "
            "Save the file as UTF-8."
        ) from error
    if not text.strip():
        raise DataError(f"{path.name}: is empty. Give a file with at least one row.")
    return data, text, marked


def _line_of(data: bytes, offset: int) -> tuple[int, int]:
    """1-based line, and 1-based byte in that line."""
    return data.count(b"\n", 0, offset) + 1, offset - (data.rfind(b"\n", 0, offset) + 1) + 1


def _read_jsonl(path: Path) -> _Container:
    data, _, _ = _read_text_file(path)
    return _jsonl(path.name, data, [])


def _jsonl(name: str, data: bytes, notes: list[str]) -> _Container:
    lines = data.split(b"\n")  # not splitlines: JSON text may hold U+2028 and its like
    ending = b"\r\n" if lines[0].endswith(b"\r") else b"\n"
    if not lines[-1]:
        lines.pop()
    records, places, chunks = [], [], []
    for number, line in enumerate(lines, start=1):
        text = line.decode("utf-8")
        if not text.strip():
            continue
        try:
            records.append(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise _json_error(name, error, _jsonl_hint(number, text), number) from error
        places.append(f"line {number}")
        chunks.append(line + (b"\n" if number < len(lines) or data.endswith(b"\n") else ending))
    if blank := len(lines) - len(records):
        notes = [*notes, f"{name}: {blank:,} blank line{'s' * (blank > 1)} left out"]
    return _Container("jsonl", records, places, notes, Layout(b"", tuple(chunks), b"", b"", b""))


def _jsonl_hint(number: int, text: str) -> str:
    if number == 1 and text.lstrip().startswith("["):
        return "This looks like one JSON list: name the file .json."
    return "Each line must be one whole JSON object."


def _read_json(path: Path) -> _Container:
    data, text, _ = _read_text_file(path)
    decoder = json.JSONDecoder()
    start = _skip(text, 0)
    try:
        top, end = decoder.raw_decode(text, start)
        after = _skip(text, end)
        if after < len(text):
            if isinstance(top, dict) and text[after] == "{" and "\n" in text[end:after]:
                return _jsonl(path.name, data, [f"{path.name}: one object per line, read as JSONL"])
            raise json.JSONDecodeError("Extra data", text, after)
        if isinstance(top, dict) and "\n" not in text[start:end] and _detect(top, {}):
            return _jsonl(path.name, data, [f"{path.name}: one object on one line, read as JSONL of one row"])
        opening = _find_list(path.name, top, text, start, decoder)
        records, chunks, tail = _cut_list(text, opening, decoder)
    except (ValueError, RecursionError) as error:
        raise _json_error(path.name, error, "Mend the file or export it again.") from error
    layout = Layout(
        head=text[: opening + 1].encode(),
        chunks=tuple(chunk.encode() for chunk in chunks),
        between=b",",
        tail=tail.encode(),
        empty=(text[: opening + 1] + tail.lstrip()).encode(),
    )
    return _Container("json", records, _row_places(records), [], layout)


def _find_list(name: str, top: Any, text: str, start: int, decoder: json.JSONDecoder) -> int:
    """Position of the `[` of the list of rows: the file itself, or the one list in its object `top`."""
    if isinstance(top, list):
        return start
    if not isinstance(top, dict):
        raise DataError(f"{name}: holds {_kind(top)}, not a list of rows. Write [{{…}}, {{…}}].")
    if _detect(top, {}):
        raise DataError(f"{name}: one row, not a list of rows. Put it in brackets: [ … ].")
    lists = [k for k, v in top.items() if isinstance(v, list) and (not v or isinstance(v[0], dict))]
    if len(lists) != 1:
        what = f"several lists ({', '.join(map(_short, lists))})" if lists else "no list of rows"
        raise DataError(f'{name}: an object with {what}. Keep one, such as {{"data": [ … ]}}.')
    position, opening = _skip(text, start + 1), -1
    while text[position] != "}":
        key, position = decoder.raw_decode(text, position)
        position = _skip(text, _skip(text, position) + 1)  # past the colon
        if key == lists[0]:
            opening = position  # of a key that stands twice the last counts, as in `top`
        _, position = decoder.raw_decode(text, position)
        position = _skip(text, position)
        if text[position] == ",":
            position = _skip(text, position + 1)
    return opening


def _cut_list(text: str, opening: int, decoder: json.JSONDecoder) -> tuple[list[Any], list[str], str]:
    """Values, their own text with the space before it, and what follows the last; `text` is known valid."""
    values: list[Any] = []
    chunks: list[str] = []
    begin = opening + 1
    position = _skip(text, begin)
    if text[position] == "]":
        return values, chunks, text[position:]
    while True:
        value, end = decoder.raw_decode(text, position)
        values.append(value)
        after = _skip(text, end)
        if text[after] == "]":
            chunks.append(text[begin:end])
            return values, chunks, text[end:]
        chunks.append(text[begin:after])
        begin = after + 1
        position = _skip(text, begin)


def _skip(text: str, position: int) -> int:
    found = JSON_SPACE.match(text, position)
    assert found is not None  # the pattern matches the empty string
    return found.end()


def _json_error(name: str, error: Exception, hint: str, line: int | None = None) -> DataError:
    """What the JSON decoder raised, in words; `line` is the file's where the decoder saw one line only."""
    if isinstance(error, json.JSONDecodeError):
        where = f"line {line or error.lineno}, column {error.colno}"
        return DataError(f"{name} {where}: not valid JSON ({error.msg}). {hint}")
    place = f"{name} line {line}" if line else name
    if isinstance(error, RecursionError):
        return DataError(f"{place}: nested too deeply to be read. Flatten it or remove it.")
    return DataError(f"{place}: a number too long to be read. Write it as text in quotes.")


def _row_places(records: Sequence[Any]) -> list[str]:
    return [f"row {index}" for index in range(len(records))]


def _read_csv(path: Path) -> _Container:
    _, text, marked = _read_text_file(path)
    csv.field_size_limit(2**31 - 1)  # the default refuses cells above 128 kB
    ending = "\r\n" if text.split("\n", 1)[0].endswith("\r") else "\n"
    if not text.endswith(("\n", "\r")):
        text += ending
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    head, header = "\ufeff" if marked else "", None
    records: list[dict[str, str]] = []
    places, chunks = [], []
    blank = 0
    for line, cells, raw in _csv_records(path.name, text, delimiter):
        if header is None:
            head += raw
            if cells:
                header = cells
                _check_header(f"{path.name} line {line}", header)
        elif not cells:
            blank += 1
        elif len(cells) != len(header):
            raise DataError(
                f"{path.name} line {line}: {len(cells)} cells, the header has {len(header)} "
                f"({_found(dict.fromkeys(header))}). "
                "Put cells that hold a delimiter or a line break in double quotes."
            )
        else:
            records.append(dict(zip(header, cells, strict=True)))
            places.append(f"line {line}")
            chunks.append(raw.encode())
    notes = []
    if delimiter != "," and path.suffix.lower() == ".csv":
        notes.append(f"{path.name}: cells divided by {delimiter!r}")
    if blank:
        notes.append(f"{path.name}: {blank:,} blank line{'s' * (blank > 1)} left out")
    return _Container(
        "csv", records, places, notes, Layout(head.encode(), tuple(chunks), b"", b"", head.encode())
    )


def _csv_records(name: str, text: str, delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """(1-based line where the record begins, its cells, its own text)."""
    raw: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            raw.append(line)
            yield line

    # strict: a quote that is never closed would otherwise swallow the rest of the file without a word.
    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    begin = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{name} line {begin}: not valid CSV ({error}). "
                "Close every double quote, and double those inside a quoted cell."
            ) from error
        yield begin, cells, "".join(raw)
        raw.clear()
        begin = reader.line_num + 1


def _delimiter(text: str) -> str:
    """The one of , ; tab | that cuts the header line into most cells; a comma if none does."""
    header = re.split("[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    return max(",;\t|", key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


def _check_header(place: str, header: Sequence[str]) -> None:
    # An unnamed column is common (an index that was saved along) and harmless.
    if twice := [name for name, times in Counter(header).items() if name and times > 1]:
        raise DataError(f'{place}: the column "{_short(twice[0])}" stands twice. Rename one of them.')


def _read_parquet(path: Path) -> _Container:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Of this one file: read_table would add columns from folder names such as split=train.
        with pq.ParquetFile(path) as file:
            table = file.read()
        table.validate(full=True)
        columns = [_values(column) for column in table.columns]
        records = [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(
            f"{path.name}: not a readable Parquet file ({reason}). Export or copy it again."
        ) from error
    return _Container("parquet", records, _row_places(records), [], None, table)


def _values(column: Any) -> list[Any]:
    """A column's values; those Python cannot hold (a date past year 9999, an unknown time zone) stay Arrow's own."""
    import pyarrow as pa

    try:
        return column.to_pylist()
    except (OverflowError, ValueError, pa.ArrowException):
        return list(column)


def _write_parquet(table: Any, indices: Sequence[int], out: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if all(a < b for a, b in pairwise(indices)):
        # A mask works chunk by chunk; `take` would join text columns beyond what 32-bit offsets hold.
        wanted = set(indices)
        chosen = table.filter(pa.array([i in wanted for i in range(table.num_rows)], pa.bool_()))
    else:
        chosen = table.take(pa.array(indices, pa.int64()))
    pq.write_table(chosen, out)


def _write_layout(layout: Layout, indices: Sequence[int], out: Any) -> None:
    if not indices:
        out.write(layout.empty)
        return
    out.write(layout.head)
    for place, index in enumerate(indices):
        if place:
            out.write(layout.between)
        out.write(layout.chunks[index])
    out.write(layout.tail)


def _is_hub_id(name: str) -> bool:
    """Looks like owner/name or owner/name:split, and cannot be meant as a file."""
    if not HUB_ID.fullmatch(name) or Path(name).exists():
        return False
    # A mistyped data/custom.jsonl must not turn into a download.
    return Path(name).suffix.lower() not in CONTAINERS and not Path(name).parent.is_dir()


def _read_hub(name: str, cache_dir: str | os.PathLike[str] | None) -> _Container:
    import datasets

    repository, _, split = name.partition(":")
    try:
        table = datasets.load_dataset(
            repository, split=split or "train", cache_dir=os.fspath(cache_dir) if cache_dir else None
        )
    except Exception as error:  # the hub's clients raise errors of half a dozen libraries
        reason = (str(error).splitlines() or [""])[0][:200]
        raise DataError(
            f"{name}: no such file here, and as a hub data set it cannot be loaded ({type(error).__name__}: "
            f"{reason}). Check the name and the split (owner/name:split) and the network connection, or "
            "download it and name the local file."
        ) from error
    return _hub_container(name, table)


def _hub_container(name: str, table: Any) -> _Container:
    """A loaded hub data set; written back as JSONL, the one container that holds all it can hold."""
    records = [dict(record) for record in table]
    chunks = []
    for index, record in enumerate(records):
        try:
            line = json.dumps(record, ensure_ascii=False, default=_plain) + "\n"
        except TypeError as error:
            raise DataError(
                f"{name} row {index}: {error}. Remove that column, or give a local file."
            ) from error
        chunks.append(line.encode("utf-8", "surrogatepass"))
    return _Container("hub", records, _row_places(records), [], Layout(b"", tuple(chunks), b"", b"", b""))


def _plain(value: Any) -> str:
    if hasattr(value, "isoformat"):  # dates and times
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON")


ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}

# The same field under the name it has in one format.
SAME_FIELD = {"instruction": "prompt", "output": "completion", "conversations": "messages"}

# What a missing field is likely to be called, for the remedy in a message only.
LIKELY_NAMES = {
    "prompt": ("question", "query", "instruction", "input", "user", "context", "goal"),
    "completion": ("answer", "response", "output", "reply", "target", "chosen", "assistant"),
    "messages": ("conversations", "conversation", "dialogue", "dialog", "chat"),
    "text": ("content", "body", "comment", "tweet", "sentence"),
}

FIRST_WORDS = re.compile(r"\s*+(?:\S++\s++){3}")  # the paper's prompt of a plain text
JSON_SPACE = re.compile(r"[ \t\n\r]*+")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?::[\w.\[\]%:-]+)?")

# Container by suffix. A .json file of one object per line is read as JSONL.
CONTAINERS: Mapping[str, Callable[[Path], _Container]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}

# Order matters where a row fits several: conversations first, running text last.
FORMATS: Mapping[str, Format] = {
    "messages": Format({"messages": ("messages",), "system?": ("system",)}, _read_turns),
    "sharegpt": Format({"messages": ("conversations",), "system?": ("system",)}, _read_turns),
    "prompt-completion": Format(
        {"prompt": ("prompt",), "completion": ("completion", "response", "answer", "output")},
        _read_prompt_completion,
    ),
    "alpaca": Format(
        {"prompt": ("instruction",), "input?": ("input",), "completion": ("output",), "system?": ("system",)},
        _read_alpaca,
    ),
    "text": Format({"text": ("text",)}, _read_text, text=True),
}
