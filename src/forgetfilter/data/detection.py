"""Which format a record has, where its fields are, and what is missing, in words."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from shlex import quote as quoted
from typing import Any, NamedTuple

from forgetfilter.data.turns import Columns, Reading, Talk
from forgetfilter.data.wording import MissingField, RowError, are_turns, found, short
from forgetfilter.errors import DataError, unknown


class Format(NamedTuple):
    """How one format is recognised and read.

    `names` lists, per field, what it is called in a file: the first is its own name, the others are
    accepted when exactly one of them is there. A field ending in `?` may be absent.
    """

    names: Mapping[str, tuple[str, ...]]
    read: Callable[[Mapping[str, Any], Reading], Talk]
    # Whether other names of its fields are as good as their own in this record, with the columns found.
    alike: Callable[[Mapping[str, Any], Columns], bool] = lambda record, columns: False
    # Whether what stands in its fields may be of this format, where a name alone says little.
    shaped: Callable[[Mapping[str, Any], Columns], bool] = lambda record, columns: True


Formats = Mapping[str, Format]  # by name


def chosen_fields(fields: Mapping[str, str], formats: Formats) -> dict[str, str]:
    """What the user mapped, by our names of the fields."""
    known = {field.rstrip("?") for form in formats.values() for field in form.names}
    chosen: dict[str, str] = {}
    for field, column in fields.items():
        field = SAME_FIELD.get(field, field)
        if field not in known:
            raise DataError(unknown("field", field, known))
        chosen[field] = column
    return chosen


def settle(
    place: str, record: Mapping[str, Any], format: str | None, chosen: Columns, formats: Formats
) -> tuple[str, dict[str, str]]:
    """The format of a file from its first row, and where its fields are; raises if none fits."""
    reading = {key: value for key, value in chosen.items() if _of_reading(key)}
    chosen = _of_format(chosen)
    if format is not None:
        if strange := set(chosen) - {f.rstrip("?") for f in formats[format].names}:
            raise DataError(
                f"format {format} has no field {sorted(strange)[0]!r}; its fields: {_own_names(format, formats)}"
            )
        columns = _columns(record, format, chosen, formats, exact=False)
        if columns is None:
            raise DataError(f"{place}: {_missing(record, format, chosen, formats)}")
        return format, {**columns, **reading}
    if fits := detect(record, chosen, formats):
        return fits[0], {**fits[1], **reading}
    # Nothing fits: explain by the format of which most is there.
    fitting = [name for name in formats if set(chosen) <= {f.rstrip("?") for f in formats[name].names}]
    if not fitting:
        raise DataError(f"no format has all the mapped fields: {', '.join(sorted(chosen))}")
    partly = {name: len(_present(record, name, chosen, formats)) for name in fitting}
    best = max(fitting, key=lambda name: partly[name])
    if partly[best] or chosen:
        raise DataError(f"{place}: {_missing(record, best, chosen, formats)}")
    forms = "; ".join(f"{name} ({_own_names(name, formats)})" for name in formats)
    raise DataError(
        f"{place}: no known format (found: {found(record)}). Known: {forms}. "
        f"Map the fields: {_likely_flags(record)}."
    )


def fits(record: Mapping[str, Any], chosen: Columns, formats: Formats) -> bool:
    """Whether a record is a row of some format."""
    return detect(record, _of_format(chosen), formats) is not None


def detect(record: Mapping[str, Any], chosen: Columns, formats: Formats) -> tuple[str, dict[str, str]] | None:
    """The first format that fits by its own field names, else by accepted other names."""
    for exact in (True, False):
        for name, form in formats.items():
            if set(chosen) <= {field.rstrip("?") for field in form.names}:
                columns = _columns(record, name, chosen, formats, exact=exact)
                if columns is None and exact:
                    other = _columns(record, name, chosen, formats, exact=False)
                    columns = other if other and form.alike(record, other) else None
                if columns is not None and form.shaped(record, columns):
                    return name, columns
    return None


def talk_of(
    place: Callable[[], str], record: Mapping[str, Any], name: str, reading: Reading, chosen: Columns,
    formats: Formats,
) -> Talk:  # fmt: skip
    """What a record says by the format of its file; DataError that names the place."""
    try:
        return formats[name].read(record, reading)
    except MissingField as error:
        other = detect(record, _of_format(chosen), formats)
        if other and (other[0] != name or other[1] != reading.columns):
            raise DataError(
                f"{place()}: a row of format {other[0]} ({describe(*other, formats)}) in a file of format {name} "
                f"({describe(name, reading.columns, formats)}). Put rows of one format in one file."
            ) from error
        field = str(error)
        raise DataError(
            f"{place()}: {_absent(record, field, reading.columns[field], reading.columns.values())}"
        ) from error
    except RecursionError as error:
        raise DataError(f"{place()}: nested too deeply to be read. Remove the row or flatten it.") from error
    except RowError as error:
        raise DataError(f"{place()}: {error}") from error


def describe(format: str, columns: Columns, formats: Formats) -> str:
    """`instruction, input, output`; a field under another name as `completion = answer`."""
    own = {field.rstrip("?"): names[0] for field, names in formats[format].names.items()}
    named = {field: c for field, c in columns.items() if field in own and c}
    return ", ".join(c if c == own[field] else f"{own[field]} = {c}" for field, c in named.items())


def format_notes(
    source: str, record: Mapping[str, Any], name: str, columns: Columns, formats: Formats, *, named: bool
) -> Iterator[str]:
    """Which other formats the file would fit as well."""
    if named:
        return
    used = set(columns.values())
    for other in formats:
        fit = _columns(record, other, {}, formats, exact=other != "preference")
        if fit and other != name and not set(fit.values()) <= used:
            yield (
                f"{source}: also fits format {other} ({describe(other, fit, formats)}); "
                f"choose it with --data-format {other} if {name} is wrong"
            )


def _of_reading(field: str) -> bool:
    """Whether a mapping says how turns and labels are read, and is no field of a format."""
    return field in ("role", "content", "marks", "learned", "label") or field.startswith("role:")


def _of_format(chosen: Columns) -> dict[str, str]:
    """The mappings that name fields of a format."""
    return {key: value for key, value in chosen.items() if not _of_reading(key)}


def _columns(
    record: Mapping[str, Any], format: str, chosen: Columns, formats: Formats, *, exact: bool
) -> dict[str, str] | None:
    """Where the fields of `format` are in this record; None if a required one is absent or ambiguous."""
    columns: dict[str, str] = {}
    for field, names in formats[format].names.items():
        required, field = not field.endswith("?"), field.rstrip("?")
        if field in chosen:
            if not chosen[field]:  # said to be left unread
                columns[field] = ""
                continue
            present = [chosen[field]] if chosen[field] in record else []
            required = required or field not in LENIENT  # what the user mapped must be there
        elif names[0] in record and (required or names[0] not in chosen.values()):
            present = [names[0]]
        else:
            present = (
                []
                if exact and required
                else [n for n in names[1:] if n in record and n not in chosen.values()]
            )
        if len(present) == 1:
            columns[field] = present[0]
        elif required:
            return None
        elif field in chosen:
            columns[field] = chosen[field]
        elif names[0] in chosen.values():
            columns[field] = ""  # mapped to another field: not read a second time under its own name
    return columns


def _present(record: Mapping[str, Any], format: str, chosen: Columns, formats: Formats) -> list[str]:
    required = [field for field in formats[format].names if not field.endswith("?")]
    return [f for f in required if chosen.get(f, formats[format].names[f][0]) in record]


def _missing(record: Mapping[str, Any], format: str, chosen: Columns, formats: Formats) -> str:
    """The sentence for the first required field of `format` that the record lacks."""
    names_of = formats[format].names
    taken = [chosen.get(f, names_of[f][0]) for f in _present(record, format, chosen, formats)]
    for key, names in names_of.items():
        field = key.rstrip("?")
        if key.endswith("?") and (field not in chosen or field in LENIENT):
            continue
        column = chosen.get(field, names[0])
        several = [n for n in names[1:] if n in record and field not in chosen]
        if column not in record and len(several) != 1:
            return _absent(record, field, column, taken)
    raise AssertionError("nothing is missing")


def _absent(record: Mapping[str, Any], field: str, column: str, taken: Any) -> str:
    if field not in LIKELY_NAMES:
        return f'no "{column}" (found: {found(record)}).{OTHERWISE.get(field, "")}'
    free = [n for n, v in record.items() if n not in set(taken) and (isinstance(v, str) or are_turns(v))]
    near = [n for n in LIKELY_NAMES.get(field, ()) if n in free] + difflib.get_close_matches(
        column, free, n=1
    )
    guess = near[0] if near else free[0] if len(free) == 1 else "NAME"
    return f'no "{column}" (found: {found(record)}). Map it with --{field}-field {quoted(short(guess))}.'


def _own_names(format: str, formats: Formats) -> str:
    """The required fields, as they are called in a file of that format."""
    return ", ".join(names[0] for field, names in formats[format].names.items() if not field.endswith("?"))


def _likely_flags(record: Mapping[str, Any]) -> str:
    """`--prompt-field question --completion-field answer`, as far as the names give it away."""
    spelled = {n.strip().lower(): n for n in reversed(list(record)) if isinstance(n, str)}  # of any case
    guess = {
        field: next(
            (
                spelled[n]
                for n in (field, *names)
                if n in spelled
                and isinstance(record[spelled[n]], list | dict if field == "messages" else str)
            ),
            None,
        )
        for field, names in LIKELY_NAMES.items()
    }
    if guess["messages"]:
        return f"--messages-field {quoted(guess['messages'])}"
    if guess["text"] and not (guess["prompt"] and guess["completion"]):
        return f"--text-field {quoted(guess['text'])}"
    named = {field: quoted(guess[field] or "NAME") for field in ("prompt", "completion")}
    return f"--prompt-field {named['prompt']} --completion-field {named['completion']}"


# What to do about a required field that no flag maps.
OTHERWISE = {
    "chosen": " Rename the column of the better answer to chosen.",
    "rejected": " To judge the chosen answers alone: --data-format prompt-completion --completion-field chosen.",
}
# The same field under the name it has in one format.
SAME_FIELD = {"instruction": "prompt", "output": "completion", "conversations": "messages"}
# Fields that a job may name though rows lack them: LLaMA-Factory names `input` where there is none.
LENIENT = frozenset({"input", "system", "history"})

# What a missing field is likely to be called, for the remedy in a message only.
LIKELY_NAMES = {
    "prompt": ("question", "query", "instruction", "input", "user", "context", "goal"),
    "completion": ("answer", "response", "output", "reply", "target", "chosen", "assistant"),
    "messages": ("conversations", "conversation", "dialogue", "dialog", "chat"),
    "text": ("content", "body", "comment", "tweet", "sentence"),
}
