"""A conversation -> the text of a chat template, and where in that text each turn stands.

A template is a program: it may refuse roles, cut thoughts out of turns, write tool calls in its own way. What it
writes of a turn is found by asking it again with a place-holder in that turn: what comes before and behind the
place-holder stays as it was, what stands between is the turn's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from forgetfilter.records import SPOKEN, Row, whole_characters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]  # of characters, or of tokens: first, one past the last
LeftOutHere = tuple[str, int, str]  # a key of records.LEFT_OUT, how often, of what


_FAILS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError)


class Refused(Exception):
    """The template refuses this conversation, whatever is changed in its roles."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn to be rendered."""

    role: str
    content: str
    learned: bool
    scored: bool
    beside: Mapping[str, Any] = field(default_factory=dict)  # goes to the template as it is
    pieces: tuple[Turn, ...] = ()  # the turns that were joined into this one

    @property
    def spoken(self) -> str:
        """All it says as text, for templates of our own: thoughts, the text, tool calls as JSON lines."""
        if not self.beside:
            return self.content
        calls = self.beside.get("tool_calls") or []
        calls = [*calls, self.beside["function_call"]] if "function_call" in self.beside else calls
        thoughts = [str(self.beside[k]) for k in sorted(SPOKEN & set(self.beside)) if k not in CALLS]
        lines = [json.dumps(call, ensure_ascii=False, default=str) for call in calls]
        return "\n".join(part for part in (*thoughts, self.content, *lines) if part)


@dataclass(slots=True)
class Rendered:
    text: str = ""
    learned: list[Span] = field(default_factory=list)  # of characters, end of turn included
    scored: list[Span] = field(default_factory=list)  # of characters, the turn's own text
    contents: list[Span] = field(default_factory=list)  # of characters, whatever came from the row
    completion_at: int = 0  # the character where the last assistant turn starts
    left_out: list[LeftOutHere] = field(default_factory=list)


def turns_of(row: Row) -> list[Turn]:
    return [
        Turn(
            m.role,
            whole_characters(m.content),
            row.learns(i),
            row.judges(i),
            _whole_values(row.beside.get(i, {})),
        )
        for i, m in enumerate(row.messages)
    ]


def _whole_values(value: Any) -> Any:
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, Mapping):
        return {str(key): _whole_values(inner) for key, inner in value.items()}
    return [_whole_values(inner) for inner in value] if isinstance(value, list | tuple) else value


def chat(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[Turn]], Rendered]:
    """The tokenizer's own template."""
    template = _Template(tokenizer)

    def render(turns: Sequence[Turn]) -> Rendered:
        if not turns:
            return Rendered()
        turns, left_out = template.adapted(turns)
        try:
            text = template.apply(turns)
        except _template_error():
            turns, dropped = _without_beside(turns)
            left_out += dropped
            try:
                text = template.apply(turns)
            except _template_error() as error:
                raise Refused(str(error)) from error
        made = _located(template, turns, text)
        made.left_out += left_out
        return made

    return render


def _located(template: _Template, turns: Sequence[Turn], text: str) -> Rendered:
    """Where each turn stands in `text`, what of it is learned and scored, and what the template left out."""
    frame = template.frame([t.role for t in turns])
    made = Rendered(text, completion_at=len(text))
    bodies: Sequence[Span | None] = [] if any(t.beside for t in turns) else _fill(frame, turns, text)
    verbatim = bool(bodies)
    if not verbatim:
        bodies = [_probe(template, turns, i, text) for i in range(len(turns))]
        made.left_out += _hidden(template, turns, text, bodies)
    for i, (turn, body) in enumerate(zip(turns, bodies, strict=True)):
        if body is None:
            continue
        if verbatim:
            made.contents += [body] if body[0] < body[1] else []
        else:
            made.contents += _spots(template.control, turn, text, body)
        if turn.role == "assistant" or turn.learned or turn.scored:
            _mark_turn(made, frame, i, turn, body)
    made.contents.sort()  # a template may write turns in another order
    return made


def _mark_turn(made: Rendered, frame: _Frame, i: int, turn: Turn, body: Span) -> None:
    """Add what is learned and scored of one turn to `made`."""
    text, (start, end) = made.text, body
    if turn.pieces and len({(p.learned, p.scored) for p in turn.pieces}) > 1:
        for piece, span in _pieces(turn, text, body):
            made.scored += [span] if piece.scored and text[span[0] : span[1]].strip() else []
            made.learned += [span] if piece.learned else []
        made.completion_at = start if turn.role == "assistant" else made.completion_at
        return
    if turn.scored and text[start:end].strip():
        made.scored.append((start, end))
    # What the template puts between the generation prompt and the answer, and behind the answer.
    start -= len(frame.before[i]) if text.endswith(frame.before[i], 0, start) else 0
    end += _shared(frame.tail[i], text[end : end + len(frame.tail[i])])
    if turn.learned:
        made.learned.append((start, end))
    if turn.role == "assistant":
        made.completion_at = start


def _pieces(turn: Turn, text: str, body: Span) -> list[tuple[Turn, Span]]:
    """Where the turns that were joined stand in the joined one."""
    found, at = [], body[0]
    for piece in turn.pieces:
        said = piece.content.strip()
        place = text.find(said, at, body[1])
        if said and place >= 0:
            at = place + len(said)
            found.append((piece, (place, at)))
    return found


# --- the template, and what it writes around turns ---


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a chat template writes around the turns of a conversation, whatever they say."""

    literals: list[str]  # before each turn's text, and one behind the last; empty: the template hides them
    before: list[str]  # per turn: what stands between the generation prompt and its text
    tail: list[str]  # per turn: what ends it


class _Template:
    """A tokenizer's chat template, with what has been found out about it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._frames: dict[tuple[str, ...], _Frame] = {}
        self._plans: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.control = sorted(
            {str(added.content) for added in tokenizer.added_tokens_decoder.values() if added.special},
            key=len, reverse=True,
        )  # fmt: skip

    def apply(self, turns: Sequence[Turn], opener: bool = False) -> str:
        listed = [{"role": t.role, "content": t.content, **t.beside} for t in turns]
        try:
            return str(
                self._tokenizer.apply_chat_template(listed, tokenize=False, add_generation_prompt=opener)
            )
        except _FAILS as error:
            # A template that does not expect this shape of a tool call, or its absence; or one that means harm.
            raise _template_error()(f"{type(error).__name__}: {error}") from error

    def attempt(self, turns: Sequence[Turn], opener: bool = False) -> str:
        """The text, "" where the template refuses: some do so for a conversation that stops half-way."""
        try:
            return self.apply(turns, opener) if turns else ""
        except _template_error():
            return ""

    def frame(self, roles: Sequence[str]) -> _Frame:
        key = tuple(roles)
        if key not in self._frames:
            self._frames[key] = _frame(self, key)
        return self._frames[key]

    def adapted(self, turns: Sequence[Turn]) -> tuple[list[Turn], list[LeftOutHere]]:
        """The turns in roles that the template writes, and what was changed for it."""
        roles = tuple(t.role for t in turns)
        if roles not in self._plans:
            self._plans[roles] = self._plan(roles)
        made, left_out = list(turns), list[LeftOutHere]()
        for step in self._plans[roles]:
            changed = CHANGES[step](made)
            if [t.role for t in changed] != [t.role for t in made]:
                left_out.append((step, 1, ""))
            made = changed
        return made, left_out

    def _plan(self, roles: tuple[str, ...]) -> tuple[str, ...]:
        """The fewest changes after which the template writes every turn; none if nothing helps."""
        turns = _stand_ins(roles)
        plans = sorted(product((False, True), repeat=len(CHANGES)), key=sum)
        for plan in plans:
            steps = tuple(step for step, taken in zip(CHANGES, plan, strict=True) if taken)
            changed = turns
            for step in steps:
                changed = CHANGES[step](changed)
            text = self.attempt(changed)
            if text and all(t.content in text for t in turns):
                return steps
        return ()


def _template_error() -> type[Exception]:
    from jinja2 import TemplateError

    return TemplateError


def _stand_ins(roles: Sequence[str]) -> list[Turn]:
    return [Turn(role, f"\ue000{i}\ue001", True, True) for i, role in enumerate(roles)]


def _frame(template: _Template, roles: Sequence[str]) -> _Frame:
    """Render place-holders, and look at what came around them."""
    turns = _stand_ins(roles)
    whole = template.attempt(turns)
    pieces = re.split("\ue000(\\d+)\ue001", whole)
    literals = pieces[::2] if pieces[1::2] == [str(i) for i in range(len(turns))] else []
    before, tail = [""] * len(turns), [""] * len(turns)
    for i, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        asked = template.attempt(turns[:i], opener=True)
        at = whole.find(turn.content)
        if asked and at >= len(asked) and whole.startswith(asked):
            before[i] = whole[len(asked) : at]
        tail[i] = template.attempt(turns[: i + 1]).rpartition(turn.content)[2]
    return _Frame(literals, before, tail)


def _fill(frame: _Frame, turns: Sequence[Turn], text: str) -> list[Span]:
    """Where each turn's text stands, trimmed or not, if `text` is the frame filled in; [] if it is not."""
    if not frame.literals or not text.startswith(frame.literals[0]):
        return []
    bodies, at = [], len(frame.literals[0])
    for turn, literal in zip(turns, frame.literals[1:], strict=True):
        whole = turn.content
        for body in (whole, whole.strip(), whole.lstrip(), whole.rstrip()):
            if text.startswith(body, at) and text.startswith(literal, at + len(body)):
                break
        else:
            return []
        bodies.append((at, at + len(body)))
        at += len(body) + len(literal)
    return bodies if at == len(text) else []


def _probe(template: _Template, turns: Sequence[Turn], i: int, text: str) -> Span | None:
    """Where the template writes turn `i`: between what stays the same when a place-holder stands in its stead.

    None where it does not write the turn.
    """
    mark = "\ue000probe\ue001"
    other = template.attempt([*turns[:i], replace(turns[i], content=mark, beside={}), *turns[i + 1 :]])
    at = other.find(mark)
    if at < 0:
        return None
    start = _shared(text[:at], other)
    behind = other[at + len(mark) :]
    end = len(text) - _shared(text[start:][::-1], behind[::-1])
    return (start, end) if end > start else (start, start)


def _hidden(
    template: _Template, turns: Sequence[Turn], text: str, bodies: Sequence[Span | None]
) -> list[LeftOutHere]:
    """What of the turns to be judged does not stand in the text."""
    found: list[LeftOutHere] = []
    for i, (turn, body) in enumerate(zip(turns, bodies, strict=True)):
        if not (turn.learned or turn.scored):
            continue
        if body is None:
            found += [("turns-hidden", 1, "")] if turn.content.strip() or turn.beside else []
            continue
        # White space is a template's own affair.
        if _squeezed(turn.content) not in _squeezed(text):
            found.append(("text-removed", 1, ""))
        for name in sorted(SPOKEN & set(turn.beside)):
            less = {key: value for key, value in turn.beside.items() if key != name}
            if template.attempt([*turns[:i], replace(turn, beside=less), *turns[i + 1 :]]) == text:
                found.append(("beside-not-written", 1, name))
    return found


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _spots(control: Sequence[str], turn: Turn, text: str, body: Span) -> list[Span]:
    """The control tokens that the turn itself spells, in what the template wrote of it: those are characters.

    The template's own control tokens in there (around a tool call, say) stay tokens, but for those that the turn
    spells as well.
    """
    said = turn.content + (json.dumps(turn.beside, ensure_ascii=False, default=str) if turn.beside else "")
    said += "".join(_strings(turn.beside))
    spots = []
    spelled = [token for token in control if token and token in said]
    if spelled:
        for match in re.finditer(
            r"\s*(?:" + "|".join(map(re.escape, spelled)) + r")\s*", text[body[0] : body[1]]
        ):
            spots.append((body[0] + match.start(), body[0] + match.end()))
    return spots


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [s for key, inner in value.items() for s in (str(key), *_strings(inner))]
    return [s for inner in value for s in _strings(inner)] if isinstance(value, list | tuple) else []


def _shared(a: str, b: str) -> int:
    """How many characters the two have in common from their beginning."""
    length = min(len(a), len(b))
    if a[:length] == b[:length]:
        return length
    low, high = 0, length  # the first is shared, the second is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle)
    return low


# --- changes for templates that know fewer roles ---


def _tools_as_users(turns: Sequence[Turn]) -> list[Turn]:
    return [replace(t, role="user", beside={}) if t.role == "tool" else t for t in turns]


def _system_folded(turns: Sequence[Turn]) -> list[Turn]:
    """The system texts in front of the first user turn, an empty line between; a user turn if there is none."""
    system = [t for t in turns if t.role == "system"]
    others = [t for t in turns if t.role != "system"]
    if not system:
        return list(turns)
    first = next((i for i, t in enumerate(others) if t.role == "user"), None)
    if first is None:
        return [replace(_joined(system), role="user"), *others]
    return [*others[:first], replace(_joined([*system, others[first]]), role="user"), *others[first + 1 :]]


def _neighbours_joined(turns: Sequence[Turn]) -> list[Turn]:
    """Turns of one role behind each other as one, an empty line between."""
    made: list[list[Turn]] = []
    for turn in turns:
        if made and made[-1][-1].role == turn.role:
            made[-1].append(turn)
        else:
            made.append([turn])
    return [_joined(group) if len(group) > 1 else group[0] for group in made]


def _joined(turns: Sequence[Turn]) -> Turn:
    said = [t.content.strip() for t in turns]
    beside: dict[str, Any] = {}
    for turn in turns:
        for key, value in turn.beside.items():
            both = isinstance(beside.get(key), list) and isinstance(value, list)
            beside[key] = beside[key] + value if both else value
    pieces = tuple(piece for t in turns for piece in (t.pieces or (t,)))
    return Turn(
        turns[-1].role, "\n\n".join(text for text in said if text),
        any(t.learned for t in turns), any(t.scored for t in turns), beside, pieces,
    )  # fmt: skip


def _without_beside(turns: Sequence[Turn]) -> tuple[list[Turn], list[LeftOutHere]]:
    """For a template that cannot write what stands beside the text: the text alone."""
    names = [name for t in turns for name in sorted(SPOKEN & set(t.beside)) if t.learned or t.scored]
    return [replace(t, beside={}) for t in turns], [
        ("beside-not-written", names.count(n), n) for n in sorted(set(names))
    ]


CALLS = ("tool_calls", "function_call")
# A key of records.LEFT_OUT -> the change; in this order where several are needed.
CHANGES: Mapping[str, Callable[[Sequence[Turn]], list[Turn]]] = {
    "tool-as-user": _tools_as_users,
    "system-folded": _system_folded,
    "turns-joined": _neighbours_joined,
}
