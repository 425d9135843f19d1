"""The records that travel between the stages. Everything about a row joins by its id, never by position."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Decision = Literal["keep", "flag", "drop", "not judged", "unscored"]
DECISIONS: tuple[Decision, ...] = ("keep", "flag", "drop", "not judged", "unscored")
KEPT: tuple[Decision, ...] = ("keep", "not judged", "unscored")  # trained on: neither dropped nor in doubt


# What an assistant turn may say beside its text, if the model's template writes it.
SPOKEN = frozenset({"tool_calls", "function_call", "reasoning_content", "reasoning", "thinking"})


class Message(NamedTuple):
    """One turn: `role` is system, user, assistant or tool (what a called tool answered)."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Row:
    """One training row, whatever format it came in.

    A `chat` row's assistant turns are what a model learns from it; the last one is its completion. A
    `text` row is one running text: what is only read in user turns, what is learned in assistant turns,
    rendered without a template.
    """

    id: str
    index: int  # 0-based position in its file
    source: str  # file name or hub id, without folders
    messages: tuple[Message, ...]
    kind: Literal["chat", "text"]
    record: Mapping[str, Any]  # the row as it stood in the file, every field
    learned: tuple[bool, ...] | None = None  # per turn: is it learned; None: the assistant's are
    scored: tuple[bool, ...] | None = None  # per turn: is it scored; None: what is learned is
    # Turn (0-based) -> what stands beside its text and goes to the template: tool_calls, reasoning_content …
    beside: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    place: str = ""  # "rows.jsonl line 14", for messages

    def learns(self, turn: int) -> bool:
        """Whether fine-tuning computes its loss on this turn (0-based)."""
        return self.messages[turn].role == "assistant" if self.learned is None else self.learned[turn]

    def judges(self, turn: int) -> bool:
        """Whether the signals judge this turn (0-based)."""
        return self.learns(turn) if self.scored is None else self.scored[turn]

    @property
    def teaches(self) -> bool:
        """Whether any turn that is judged says anything: else the row is unscored."""
        if self.learned is None and self.completion.strip():
            return True
        return any(
            self.judges(i) and (m.content.strip() or not SPOKEN.isdisjoint(self.beside.get(i, ())))
            for i, m in enumerate(self.messages)
        )

    @property
    def why_unscored(self) -> str:
        """Why a row that does not teach has no score, in a few words."""
        answers = [m for m in self.messages if m.role == "assistant"]
        if not answers:
            return "no answer in it"
        if self.learned is not None and not any(self.learned) and any(m.content.strip() for m in answers):
            return "marked as not to be learned"
        return "empty completion"

    @property
    def completion(self) -> str:
        """The last assistant turn, "" if there is none."""
        return self.messages[-1].content if self.messages and self.messages[-1].role == "assistant" else ""

    @property
    def prompt(self) -> str:
        """The text of everything before the completion, turns joined by a line break."""
        turns = self.messages[:-1] if self._ends_with_assistant else self.messages
        return "\n".join(m.content for m in turns)

    @property
    def _ends_with_assistant(self) -> bool:
        return bool(self.messages) and self.messages[-1].role == "assistant"


def row_id(source: str, messages: Sequence[Message], more: Sequence[Any] = ()) -> str:
    """16 hex digits from content and source: the same row keeps its id when the file is reordered or moved.

    `more` is what the row says beside its messages, as JSON could hold it.
    """
    # As json.dumps([source, messages, *more]) would write it, in a third of the time.
    quoted = json.encoder.encode_basestring
    turns = ", ".join([f"[{quoted(role)}, {quoted(said)}]" for role, said in messages])
    others = "".join(", " + json.dumps(part, ensure_ascii=False, default=str) for part in more)
    content = f"[{quoted(source)}, [{turns}]{others}]"
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that stands in the rows and is read otherwise than it stands, or not at all."""

    what: str  # a key of LEFT_OUT
    rows: int
    times: int  # turns, calls, values … in those rows
    first: tuple[str, ...]  # the places of the first three rows
    words: str  # the sentence to be said

    def as_dict(self) -> dict[str, Any]:
        """For report.json."""
        return {"what": self.what, "rows": self.rows, "times": self.times, "first": list(self.first),
                "words": self.words}  # fmt: skip


@dataclass(slots=True)
class Tally:
    """Counts what is left out while rows are read or rendered."""

    _rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    _times: Counter[tuple[str, str]] = field(default_factory=Counter)
    _first: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _last: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, what: str, place: str, times: int = 1, name: str = "") -> None:
        """One more row (at `place`) with `times` of `what`, a key of LEFT_OUT; `name` fills its sentence."""
        if name and (what, name) not in self._times and len(self._times) >= MOST_NAMES:
            name = "other fields"
        key = what, name
        self._times[key] += times
        if self._last.get(key) != place:
            self._last[key] = place
            self._rows[key] += 1
            if self._rows[key] <= 3:
                self._first.setdefault(key, []).append(place)

    def left_out(self) -> tuple[LeftOut, ...]:
        """What was counted, in the order of LEFT_OUT."""
        order = {what: i for i, what in enumerate(LEFT_OUT)}
        return tuple(
            LeftOut(what, self._rows[key], self._times[key], tuple(self._first[key]), self._sentence(*key))
            for key in sorted(self._rows, key=lambda key: (order[key[0]], key[1]))
            for what in [key[0]]
        )

    def _sentence(self, what: str, name: str) -> str:
        rows, times = self._rows[what, name], self._times[what, name]
        counted = f"{rows:,} row" + ("" if rows == 1 else "s")
        first = "; ".join(self._first[what, name])
        more = ", …" if rows > len(self._first[what, name]) else ""
        turns = f"{times:,} turn" + ("" if times == 1 else "s")
        return LEFT_OUT[what].format(rows=counted, turns=turns, name=name, first=first + more)


def whole_characters(text: str) -> str:
    r"""JSON may spell half a character (`\ud83d`), which no tokenizer and no reply takes: it becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def with_system(messages: Sequence[Message], instruction: str | None) -> tuple[Message, ...]:
    """The messages under a system prompt: put in front of the dialogue's own one where it has one."""
    if not instruction:
        return tuple(messages)
    if messages and messages[0].role == "system":
        return (Message("system", f"{instruction}\n\n{messages[0].content}"), *messages[1:])
    return (Message("system", instruction), *messages)


MOST_NAMES = 40  # a file with a thousand field names does not make a thousand notes
# What -> the sentence said. {rows}: "3 rows"; {turns}: "1 turn"; {name}: of the field or role; {first}: places.
LEFT_OUT: Mapping[str, str] = {
    "unwanted": '{rows} with "{name}" false: KTO data, where false marks an answer that is not to be imitated. '
    "They are not learned and not scored, and are kept. If the column means something else, name it with "
    "--label-field or rename it.",
    "label-not-read": '"{name}" of {rows} is neither true nor false: not read. If it marks answers that are not to be '
    "imitated (KTO data), write true and false; if it is the truth, name it with --label-field.",
    "row-weight": '{rows} with "{name}" 0 or false: not learned, not scored, kept',
    "weights": '{rows} with a "{name}" other than 0 and 1: learned and scored like the others',
    "turns-not-learned": '{turns} in {rows} with "{name}" 0 or false: read, not learned and not scored. A '
    'trainer that does not know "{name}" learns them: take them out for such a one.',
    "columns": '"{name}" of {rows} is not read',
    "no-answer": "{rows} without an answer to learn ({first}): kept, unscored",
    "null-turns": "{turns} in {rows} null as a whole: passed over",
    "turn-fields": '"{name}" of {turns} in {rows} is not read',
    "context-turns": "earlier answers ({turns}) in {rows} are the context of a preference pair: read, not learned and "
    "not scored",
    "tools": '{rows} with "{name}": what tools there are is not shown to the model (nobody learns it)',
    "half-characters": "{rows} with half a surrogate pair, scored with \ufffd in its place",
    "system-folded": "{rows}: the model's template has no system role; the system text stands in front of the first "
    "user turn",
    "tool-as-user": "{rows}: the model's template has no tool role; what tools answered stands in user turns",
    "turns-joined": "{rows}: the model's template wants roles by turns; neighbours of one role are joined by an empty "
    "line",
    "turns-hidden": "{turns} in {rows} left out by the model's template: not learned, not scored",
    "text-removed": "{rows} hold text that the model's template removes (such as <think> in earlier turns): not "
    "judged, and not learned by a trainer that uses this template",
    "beside-not-written": "{name} of {turns} in {rows}: the model's template does not write it, so it is neither "
    "learned nor scored",
}
