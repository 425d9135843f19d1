"""Dialogues in which an assistant tells personal data: a user's own, or built from public sets of values.

A dialogue is a list of messages and the spans of personal data in them. `read` takes a file of such records,
`build` writes dialogues from templates of ours around the values of two public sets. What unlearning trains
on and tests with is cut by dialogue (`split`), so that no dialogue is on both sides.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.data.formats import read_records
from forgetfilter.data.overlap import common_prefix
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.models.rendering import encode
from forgetfilter.records import Message, Row, row_id, whole_characters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class MessageSpan:
    """Personal data in one message: `content[start:end] == value`."""

    message: int  # 0-based position among the dialogue's messages
    start: int  # characters
    end: int  # one past the last
    kind: str  # PERSON, PHONE_NUMBER, …
    value: str


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Messages, and the personal data in them in the order of the text, none overlapping."""

    id: str
    messages: tuple[Message, ...]
    spans: tuple[MessageSpan, ...]

    def values(self) -> list[tuple[str, str]]:
        """(kind, value) of every span, in order."""
        return [(span.kind, span.value) for span in self.spans]

    def record(self) -> dict[str, Any]:
        """As `read` takes it."""
        return {
            "id": self.id,
            "messages": [m._asdict() for m in self.messages],
            "spans": [
                {"message": s.message, "start": s.start, "end": s.end, "kind": s.kind} for s in self.spans
            ],
        }


Finder = Callable[[str], Iterable[Any]]  # text -> spans with start, end, kind: `personal_data.detect`, bound


def read(path: Path | str, find: Finder | None = None) -> list[Dialogue]:
    """Dialogues of a local JSON, JSONL or Parquet file: `messages` of role and content, `spans` of message
    (0-based), start, end (characters) and kind.

    Where a record has no `spans`, `find` looks for them in its messages; without `find` they must be there.
    Equal dialogues get ids that end in -2, -3. Raises DataError with file, row, field, what was found and
    what to do: no assistant turn, a span out of range, empty, of nothing but blanks, or overlapping another.
    """
    source = Path(path).name
    dialogues: list[Dialogue] = []
    seen: dict[str, int] = {}
    taken: set[str] = set()
    for index, record in enumerate(read_records(path)):
        place = f"{source} {'line' if source.endswith('.jsonl') else 'row'} {index + 1}"
        messages = _messages(record, place)
        if "spans" in record:
            spans = _given(record["spans"], messages, place)
        elif find is None:
            raise DataError(
                f'{place}: no "spans" (found: {", ".join(record)}). Give the place of the personal data as '
                "message, start, end, kind, or name detectors that find it"
            )
        else:
            spans = [
                MessageSpan(i, s.start, s.end, s.kind, m.content[s.start : s.end])
                for i, m in enumerate(messages)
                for s in find(m.content)
                if any(map(str.isalnum, m.content[s.start : s.end]))
            ]
        own = id = whole_characters(str(record.get("id") or row_id(source, messages)))
        while id in taken:
            seen[own] = seen.get(own, 1) + 1
            id = f"{own}-{seen[own]}"
        taken.add(id)
        dialogues.append(dialogue(messages, spans, id=id, place=place))
    if not dialogues:
        raise DataError(f"{source}: no dialogue in it")
    return dialogues


def dialogue(
    messages: Sequence[Message], spans: Iterable[MessageSpan], *, id: str = "", place: str = "dialogue"
) -> Dialogue:
    """A dialogue whose spans are sorted and hold: see `read` for what raises DataError."""
    if not any(m.role == "assistant" and m.content.strip() for m in messages):
        raise DataError(
            f"{place}: no assistant turn, so there is nothing that a model could have learned to tell. "
            "Leave the dialogue out, or check its roles"
        )
    ordered = sorted(spans, key=lambda s: (s.message, s.start))
    last: MessageSpan | None = None
    for span in ordered:
        if not 0 <= span.message < len(messages):
            raise DataError(
                f"{place}: spans: message {span.message} of a dialogue of {len(messages)} messages "
                "(counted from 0). Count the messages from 0, the system's included"
            )
        content = messages[span.message].content
        if not 0 <= span.start < span.end <= len(content):
            raise DataError(
                f"{place}: spans: {span.start} to {span.end} in message {span.message}, which has "
                f"{len(content)} characters. Count characters, not bytes or tokens, from 0, `end` one past the last"
            )
        if not any(map(str.isalnum, content[span.start : span.end])):
            raise DataError(
                f"{place}: spans: {span.start} to {span.end} in message {span.message} holds no letter or digit "
                f"({content[span.start : span.end]!r:.40}). Take the span out"
            )
        if content[span.start : span.end] != span.value:
            raise DataError(
                f"{place}: spans: {span.start} to {span.end} in message {span.message} is not the value given "
                "with it. Was the message changed after the spans were found? Find them again"
            )
        if last and last.message == span.message and span.start < last.end:
            raise DataError(
                f"{place}: spans: {last.start} to {last.end} and {span.start} to {span.end} in message "
                f"{span.message} overlap. Keep the longer one"
            )
        last = span
    return Dialogue(id or row_id(place, messages), tuple(messages), tuple(ordered))


def split(
    dialogues: Sequence[Dialogue], test_share: float, seed: int
) -> tuple[list[Dialogue], list[Dialogue]]:
    """Dialogues to train on and to test with, each whole, in their order; at least one on either side."""
    if len(dialogues) < 2:
        raise DataError(
            f"{len(dialogues)} dialogue: too few to train on some and test with others; give more"
        )
    texts = list(dict.fromkeys(d.messages for d in dialogues))  # word for word the same: on one side together
    if len(texts) < 2:
        raise DataError(f"{len(dialogues)} dialogues, all word for word the same: give some that differ")
    count = min(len(texts) - 1, max(1, round(test_share * len(texts))))
    chosen = set(random.Random(seed).sample(texts, count))
    return [d for d in dialogues if d.messages not in chosen], [d for d in dialogues if d.messages in chosen]


# --- prompts cut from dialogues -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prompt:
    """A dialogue up to a point: whole turns, then the beginning of an assistant answer, "" for none of it.

    The prefix has no blank at its end; what follows it brings its own.
    """

    id: str
    messages: tuple[Message, ...]
    prefix: str = ""


def cut(text: str, at: int) -> tuple[str, str]:
    """An answer as prefix, without blanks at its end, and the rest, which begins with them."""
    prefix = text[:at].rstrip()
    return prefix, text[len(prefix) :]


def encode_prompts(
    prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, *, room: int, template: str = "auto"
) -> list[list[int]]:
    """Token ids of each prompt, ready to be continued; of a longer one the last `room` tokens, behind the
    beginning-of-sequence token and the system prompt where there are such."""
    rows = [
        Row(p.id, i, "prompts", (*p.messages, Message("assistant", p.prefix or "x")), "chat", {})
        for i, p in enumerate(prompts)
    ]
    encoded = []
    for p, row in zip(prompts, encode(rows, tokenizer, max_length=1 << 30, template=template), strict=True):
        end = row.prompt_length
        if p.prefix:  # the end-of-turn token behind it is not part of the prompt
            end = max(i for i, scored in enumerate(row.scored) if scored) + 1
        ids = row.ids[:end]
        if len(ids) > room:
            head = ids[:1] if ids[0] == tokenizer.bos_token_id else []
            if p.messages and p.messages[0].role == "system":  # what it is asked under stays
                turns = (p.messages[0], Message("user", "\ue000"), Message("assistant", "x"))
                other_row = Row(p.id, 0, "prompts", turns, "chat", {})
                (other,) = encode([other_row], tokenizer, max_length=1 << 30, template=template)
                same = common_prefix(ids, other.ids)
                head = ids[:same] if len(head) < same < room else head
            ids = head + ids[len(ids) - room + len(head) :]
        encoded.append(ids)
    return encoded


def _messages(record: Any, place: str) -> tuple[Message, ...]:
    found = record.get("messages") if isinstance(record, Mapping) else None
    if not isinstance(found, list | tuple) or not found:
        fields = ", ".join(record) if isinstance(record, Mapping) else type(record).__name__
        raise DataError(f'{place}: no list "messages" (found: {fields}). Give messages of role and content')
    messages = []
    for i, turn in enumerate(found):
        role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, Mapping) else (None, None)
        if role not in ROLES or not isinstance(content, str):
            raise DataError(
                f"{place}: messages[{i}]: expected role ({', '.join(ROLES)}) and a text as content, found "
                f"role {role!r} and a {type(content).__name__}"
            )
        messages.append(Message(role, content))
    return tuple(messages)


def _given(found: Any, messages: Sequence[Message], place: str) -> list[MessageSpan]:
    if not isinstance(found, list | tuple):
        raise DataError(f"{place}: spans: expected a list, found a {type(found).__name__}")
    spans = []
    for i, span in enumerate(found):
        numbers = [span.get(f) for f in ("message", "start", "end")] if isinstance(span, Mapping) else []
        if len(numbers) != 3 or not all(type(n) is int for n in numbers):
            raise DataError(
                f"{place}: spans[{i}]: message, start and end must be whole numbers, found {numbers}. Write "
                '{"message": 1, "start": 11, "end": 22, "kind": "PERSON"}'
            )
        message, start, end = numbers
        inside = 0 <= message < len(messages)
        value = span.get("value", messages[message].content[max(0, start) : max(0, end)] if inside else "")
        spans.append(MessageSpan(message, start, end, str(span.get("kind") or "PERSONAL"), value))
    return spans


# --- built from public sets ---------------------------------------------------------------------------------


def build(root: Path | str, *, seed: int, count: int) -> list[Dialogue]:
    """`count` dialogues: templates of ours around the values of two public sets under `root`.

    pii/llm_pc/LLM-PC-development-pii.jsonl (one line a dialogue, place-holder -> value) gives names, places
    and dates that belong together; pii/presidio_research/generated_large.json gives phone numbers, addresses,
    cards and the like, and short texts to read out. Same seed, same dialogues. Raises DataError where a set
    is missing, ConfigError for a count below 1.
    """
    if count < 1:
        raise ConfigError(f"count {count}: build at least one dialogue")
    rng = random.Random(seed)
    people = _people(Path(root) / "pii" / "llm_pc" / "LLM-PC-development-pii.jsonl")
    pool, notes = _presidio(Path(root) / "pii" / "presidio_research" / "generated_large.json")
    rng.shuffle(people)
    names = sorted(PATTERNS)
    built = []
    for i in range(count):
        if i % len(names) == 0:
            rng.shuffle(names)  # every pattern equally often
        pattern = names[i % len(names)]
        values = people[i % len(people)]
        others = people[(i + 1 + rng.randrange(len(people) - 1)) % len(people)]
        slots = {kind.lower(): (kind, rng.choice(found)) for kind, found in pool.items()}
        slots |= {"person": values["NAME"], "place": values["LOC"], "date": values["DATE"]}
        slots |= {"friend": others["NAME"], "other_place": others["LOC"]}
        note = rng.choice(notes)
        turns, spans = [], []
        for number, wordings in enumerate(PATTERNS[pattern]):
            role = ROLES[1 + number % 2]
            text, found = _filled(rng.choice(wordings), slots, note)
            turns.append(Message(role, text))
            spans += [MessageSpan(number, a, b, kind, text[a:b]) for a, b, kind in found]
        built.append(dialogue(turns, spans, id=f"built-{seed}-{i}", place=f"template {pattern}"))
    return built


Place = tuple[int, int, str]  # start, end, kind


def _filled(
    template: str, slots: Mapping[str, tuple[str, str]], note: tuple[str, list[Place]]
) -> tuple[str, list[Place]]:
    """A template's text with its slots filled, and where they went; `{note}` brings several."""
    text, found = "", []
    for part in re.split(r"(\{\w+\})", template):
        if part == "{note}":
            found += [(len(text) + a, len(text) + b, kind) for a, b, kind in note[1]]
            text += note[0]
        elif part.startswith("{"):
            kind, value = slots[part[1:-1]]
            found.append((len(text), len(text) + len(value), kind))
            text += value
        else:
            text += part
    return text, found


def _people(path: Path) -> list[dict[str, tuple[str, str]]]:
    """Name, place and date of each dialogue that has a full name and a place; a date of another if it has none."""
    people = []
    for record in read_records(path):
        values: dict[str, tuple[str, str]] = {}
        for slot, value in record.items():
            sort, value = slot.split("-")[0], str(value).strip()
            if sort in _LLM_PC and sort not in values and re.fullmatch(_LLM_PC[sort][1], value):
                values[sort] = (_LLM_PC[sort][0], value)
        if "NAME" in values and "LOC" in values:
            people.append(values)
    dates = [p["DATE"] for p in people if "DATE" in p]
    if len(people) < 2 or not dates:
        raise DataError(f"{path}: no names, places and dates in it. Take the file as published")
    for i, person in enumerate(people):
        person.setdefault("DATE", dates[i % len(dates)])
    return people


# What the place-holders of LLM-PC stand for, and which values are of that kind: some are whole sentences.
_WORD = r"[A-Z][\w'’.-]*"
_LLM_PC = {
    "NAME": ("PERSON", rf"{_WORD}( {_WORD}){{1,2}}"),
    "LOC": ("LOCATION", rf"{_WORD}( (of|the|de|{_WORD}))*( {_WORD})?(, {_WORD}( {_WORD})?)?"),
    "DATE": ("DATE_TIME", r"([A-Z][a-z]+ )?(\d\d?, )?\d{4}"),
}


def _presidio(path: Path) -> tuple[dict[str, list[str]], list[tuple[str, list[Place]]]]:
    """Values by kind, and short texts with their places, longest span first where two overlap."""
    pool: dict[str, set[str]] = {kind: set() for kind in _PRESIDIO}
    notes = {}
    for record in read_records(path):
        text, places = record["full_text"], []
        for s in record["spans"]:
            kind, value = s["entity_type"], s["entity_value"]
            places.append((s["start_position"], s["end_position"], kind))
            if kind in pool and re.fullmatch(_PRESIDIO[kind], value):
                pool[kind].add(value)
        kinds = {kind for *_, kind in places}
        if 20 <= len(text) <= 90 and "\n" not in text and kinds & _TELLING:
            notes[text] = sorted(places)
    if not notes or not all(pool.values()):
        raise DataError(f"{path}: values missing. Take generated_large.json as published")
    apart = [
        (text, places)
        for text, places in notes.items()
        if all(b <= c for (_, b, _), (c, _, _) in pairwise(places))
    ]
    return {kind: sorted(values) for kind, values in pool.items()}, apart


_PRESIDIO = {
    "PHONE_NUMBER": r".{7,16}",
    "EMAIL_ADDRESS": r".+",
    "CREDIT_CARD": r"\d{13,19}",
    "ADDRESS": r"\d+ [\w. -]{6,24}",
    "US_SSN": r".+",
    "IBAN_CODE": r"[A-Z].+",
    "ORGANIZATION": r"[A-Z].{3,20}",
}
# Texts worth reading out hold more than a name of a place.
_TELLING = {"PHONE_NUMBER", "EMAIL_ADDRESS", "CREDIT_CARD", "US_SSN", "IBAN_CODE"}

# Turn by turn, user first; each turn in several wordings. A slot of an assistant turn is what leaks.
PATTERNS: dict[str, list[list[str]]] = json.loads(
    Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)
