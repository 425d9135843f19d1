"""What verdict files of any known kind say: our own JSONL, exports of Argilla, Label Studio, doccano and cleanlab."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

from forgetfilter.errors import DataError

Answer = Literal["clean", "unsafe", "unsure"]


class Found(NamedTuple):
    """One verdict as a file holds it, before it is known which row it belongs to."""

    place: str  # "line 3", for messages
    row: Any
    value: Any
    sha256: str | None = None
    drawn: str = "random"
    texts: tuple[str, ...] = ()  # where there is no row number, texts of the row to know it by
    note: str | None = None
    by: str | None = None


def entries(file: str, records: Sequence[Mapping[str, Any]]) -> list[Found]:
    """What the records of a verdict file of any known kind say, in their order; `file` is its name, for messages.

    Records without a verdict say nothing. DataError for a file of no known kind, and for a record of another kind.
    """
    if not records:
        return []
    for name, fits, to_entries in KINDS:
        if fits(records[0]):
            return [
                e for i, record in enumerate(records) for e in _read(file, name, i + 1, record, to_entries)
            ]
    found = ", ".join(map(str, records[0]))
    raise DataError(
        f'{file}: no verdicts found (fields: {found[:200]}). Each line needs "row" and "verdict": '
        '{"row": 12, "verdict": "unsafe"}; exports of Argilla, Label Studio, doccano and cleanlab are read too'
    )


def _read(
    file: str, name: str, number: int, record: Mapping[str, Any], to_entries: Callable[..., list[Found]]
) -> list[Found]:
    place = f"{name}record {number}"
    try:
        return to_entries(place, record)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(
            f"{file} {place}: not as {name.strip()} writes it. Correct the record, or give a file of lines such as "
            '{"row": 12, "verdict": "unsafe"}'
        ) from None


def word(value: Any) -> str:
    """What is looked up in WORDS; tables write 1 as 1.0 where a column has gaps."""
    return " ".join(str(value).lower().replace("_", " ").replace("-", " ").split()).removesuffix(".0")


def is_empty(value: Any) -> bool:
    """Whether a field says nothing, so that there is no verdict."""
    return value is None or not str(value).strip()


def _own(place: str, record: Mapping[str, Any]) -> list[Found]:
    row = next((record[k] for k in ROW_NAMES if record.get(k) is not None), None)
    drawn, sha, value = record.get("drawn") or "random", record.get("sha256") or None, record.get("verdict")
    texts = tuple(text for k, v in record.items() if k not in OWN_FIELDS and (text := _text(v)))
    if is_empty(value):
        return []
    return [Found(place, row, value, sha, drawn, texts, record.get("note"), _by(record.get("by")))]


def _argilla(place: str, record: Mapping[str, Any]) -> list[Found]:
    """Responses by question, or (older) a list of people's values; one per person. Only submitted ones count."""
    row, texts = _about(record.get("metadata"), record.get("fields"), record)
    responses = record.get("responses") or {}
    by_question = isinstance(responses, Mapping)
    said = []
    for given in _answered(responses) or () if by_question else responses:
        value = given if by_question else _answered(given.get("values") or {})
        value = value.get("value") if isinstance(value, Mapping) else value
        if value is not None and (given.get("status") or "submitted") == "submitted":
            said.append(Found(place, row, value, texts=texts, by=_by(given.get("user_id"))))
    return said


def _argilla_table(place: str, record: Mapping[str, Any]) -> list[Found]:
    """The same as a data set of rows: answers, people and states of a question in columns of their own."""
    asked = {column: said or [] for column, said in record.items() if column.endswith(ANSWERS)}
    responses = {
        column.removesuffix(ANSWERS): [
            {"value": value, "user_id": who, "status": status}
            for value, who, status in zip_longest(
                said, record.get(f"{column}.users") or [], record.get(f"{column}.status") or []
            )
        ]
        for column, said in asked.items()
    }
    return _argilla(place, {**record, "responses": responses})


def _answered(by_question: Mapping[str, Any]) -> Any:
    """What was answered to the question that asks for the verdict: one of a known name, else the first."""
    named = [q for q in by_question if word(q) in ("verdict", "label", "unsafe")]
    return next((by_question[q] for q in (*named, *by_question)), None)


def _label_studio(place: str, record: Mapping[str, Any]) -> list[Found]:
    """The first choice of each annotation that was not cancelled."""
    row, texts = _about(record.get("meta"), record.get("data"))
    entries = []
    for annotation in record.get("annotations") or record.get("completions") or []:
        choices = [
            c for r in annotation.get("result") or [] for c in (r.get("value") or {}).get("choices") or []
        ]
        who = annotation.get("completed_by")
        who = who.get("email", who.get("id")) if isinstance(who, Mapping) else who
        if choices and not annotation.get("was_cancelled"):
            entries.append(Found(place, row, choices[0], texts=texts, by=_by(who)))
    return entries


def _doccano(place: str, record: Mapping[str, Any]) -> list[Found]:
    """The first label; a text without one has not been judged."""
    row, texts = _about(record.get("meta"), record)
    labels = record.get("label", record.get("labels", record.get("cats")))
    labels = labels if isinstance(labels, list) else [labels]
    return [Found(place, row, label, texts=texts) for label in labels[:1] if not is_empty(label)]


def _cleanlab(place: str, record: Mapping[str, Any]) -> list[Found]:
    """A row with an issue counts as unsafe, one without has no verdict: cleanlab judges issues, not safety."""
    flag = next((record[k] for k in CLEANLAB if k in record), None)
    row = next(
        (record[k] for k in ("", "Unnamed: 0", "index", *ROW_NAMES) if record.get(k) is not None), None
    )
    row = int(place.rpartition(" ")[2]) - 1 if row is None else row
    issue = WORDS.get(word(flag)) == "unsafe"
    return [Found(place, row, "unsafe", drawn="proposed", by="cleanlab")] if issue else []


def _about(*places: Any) -> tuple[Any, tuple[str, ...]]:
    """The row number that an export carries along, and its texts."""
    maps = [p for p in places if isinstance(p, Mapping)]
    row = next((m[k] for m in maps for k in ROW_NAMES if m.get(k) is not None), None)
    return row, tuple(text for m in maps for v in m.values() if (text := _text(v)))


def _text(value: Any) -> str:
    """A text, or what is said in a list of turns; "" of anything else."""
    if isinstance(value, str):
        return value
    turns = [turn for turn in value if isinstance(turn, Mapping)] if isinstance(value, list) else []
    said = (next((turn[key] for key in SPOKEN if turn.get(key)), "") for turn in turns)
    return "\n".join(text for text in said if isinstance(text, str))


def _by(who: Any) -> str | None:
    return None if who is None else str(who)


ANSWERS = ".responses"
SPOKEN = ("content", "value", "text")  # what a turn may call what it says
ROW_NAMES = ("row", "row_index", "row_number")
OWN_FIELDS = ("sha256", "verdict", "drawn", "time", "note", "by")
CLEANLAB = ("is_label_issue", "is_issue", "is_outlier_issue")
# How a first record tells what wrote the file: a name for messages, a test, a reader.
KINDS: tuple[tuple[str, Callable[[Mapping[str, Any]], bool], Callable[..., list[Found]]], ...] = (
    ("", lambda r: "verdict" in r, _own),
    ("Argilla ", lambda r: "responses" in r and "fields" in r, _argilla),
    ("Argilla ", lambda r: any(column.endswith(ANSWERS) for column in r), _argilla_table),
    ("Label Studio ", lambda r: ("annotations" in r or "completions" in r) and "data" in r, _label_studio),
    ("cleanlab ", lambda r: any(k in r for k in CLEANLAB), _cleanlab),
    ("doccano ", lambda r: ("label" in r or "labels" in r or "cats" in r) and ("text" in r or "data" in r), _doccano),
)  # fmt: skip
UNSAFE = ("unsafe", "toxic", "harmful", "biased", "bad", "hate", "offensive", "1", "true", "yes")
CLEAN = ("clean", "safe", "ok", "okay", "good", "harmless", "benign", "0", "false", "no")
WORDS: Mapping[str, Answer] = {
    **dict.fromkeys(UNSAFE, "unsafe"),
    **dict.fromkeys((*CLEAN, "not toxic", "non toxic", "not harmful", "not unsafe"), "clean"),
    **dict.fromkeys(("unsure", "skip", "unknown", "unclear", "?"), "unsure"),
}
