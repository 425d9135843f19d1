"""Lists of turns, in every spelling -> messages, which of them are learned, and what stands beside their text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forgetfilter.data import strictjson
from forgetfilter.data.wording import MissingField, RowError, found, is_list, kind, short
from forgetfilter.errors import unknown
from forgetfilter.records import SPOKEN, Message, Tally

Columns = Mapping[str, str]  # field ("prompt", "completion", "messages", "text", …) -> name in the file


@dataclass(slots=True)
class Talk:
    """What one record says."""

    messages: tuple[Message, ...]
    learned: tuple[bool, ...] | None = None  # per turn; None: the assistant's
    beside: dict[int, dict[str, Any]] = field(default_factory=dict)
    text: bool = False  # one running text, rendered without a template
    rejected: tuple[Message, ...] | None = (
        None  # of a preference pair: the conversation with the other answer
    )

    def __add__(self, other: Talk) -> Talk:
        """This one, then the other."""
        shift = len(self.messages)
        beside = self.beside | {i + shift: more for i, more in other.beside.items()}
        learned = None
        if self.learned is not None or other.learned is not None:
            learned = (*self.marks(), *other.marks())
        return Talk(self.messages + other.messages, learned, beside)

    def marks(self) -> tuple[bool, ...]:
        return tuple(m.role == "assistant" for m in self.messages) if self.learned is None else self.learned


@dataclass(slots=True)
class Reading:
    """How the records of one file are read, and where what is left out of them is counted."""

    columns: Columns
    tally: Tally | None = None  # None: counted already
    place: Callable[[], str] = str  # of the record being read
    renamed: dict[str, str] = field(
        default_factory=dict
    )  # role in the file -> ours, for those to be said aloud
    role_keys: tuple[str, ...] = ("role", "from")
    text_keys: tuple[str, ...] = ("content", "value")
    mark_keys: tuple[str, ...] = ("weight", "train", "train_on_turn", "training", "loss")
    roles: Mapping[str, str] = field(default_factory=dict)
    learned: frozenset[str] = frozenset({"assistant"})

    def __post_init__(self) -> None:
        columns = self.columns
        if "role" in columns:
            self.role_keys = (columns["role"],)
        if "content" in columns:
            self.text_keys = (columns["content"],)
        if "marks" in columns:
            self.mark_keys = (columns["marks"],)
        own = {key.removeprefix("role:"): value for key, value in columns.items() if key.startswith("role:")}
        self.roles = {**ROLES, **own}
        if "learned" in columns:
            named = columns["learned"].split(",")
            roles = {"system", "user", "assistant", "tool"}
            self.learned = frozenset(
                roles if "all" in named else {self.roles.get(r, r) for r in named} & roles
            )

    def role_of(self, name: Any) -> str | None:
        """Our role for what a file calls one, in any spelling; None for one that is not known."""
        if not isinstance(name, str):
            return None
        return self.roles.get(name) or self.roles.get(re.sub(r"[\s-]+", "_", name.strip().lower()))

    def say(self, what: str, times: int = 1, name: str = "") -> None:
        if self.tally is not None:
            self.tally.add(what, self.place(), times, name)


def value_of(record: Mapping[str, Any], columns: Columns, field: str) -> Any:
    column = columns[field]
    if column not in record:
        raise MissingField(field)
    return record[column]


def text_of(value: Any, column: str, *, may_be_null: bool = False) -> str:
    if isinstance(value, str):
        return value
    if value is None and may_be_null:
        return ""
    label = column if column.startswith('"') else f'"{column}"'
    raise RowError(f"{label} is {kind(value)}, not text. Write it as text in quotes, or remove the row.")


def read_turns(value: Any, column: str, r: Reading) -> Talk:
    """A list of {role, content} or of {from, value}, or JSON text of one, as CSV and some Parquet files hold it."""
    if isinstance(value, Mapping):
        value = _turned(value)
    value = listed(value, column, "turns", '[{"role": "user", "content": "…"}, …]')
    messages, marks, beside = [], [], {}
    unmarked = r.learned == {"assistant"}
    for number, turn in enumerate(value, start=1):
        if type(turn) is dict and len(turn) == 2 and (quick := _quick(turn, r)):
            messages.append(quick)
            marks.append(quick.role in r.learned)
            continue
        if turn is None or (isinstance(turn, Mapping) and turn and _is_null(turn)):
            r.say("null-turns")  # how tables pad rows of fewer turns
            continue
        message, mark, more = _turn(turn, f'"{column}" turn {number}', r)
        if mark is not None:
            unmarked = False
        if more:
            beside[len(messages)] = more
        marks.append(message.role in r.learned if mark is None else mark)
        messages.append(message)
    return Talk(tuple(messages), None if unmarked else tuple(marks), beside)


def _quick(turn: dict[str, Any], r: Reading) -> Message | None:
    """The message of a turn of the usual shape; None for any other."""
    for role_key, text_key in zip(r.role_keys, r.text_keys, strict=False):
        name, said = turn.get(role_key), turn.get(text_key)
        if type(said) is str and type(name) is str and name in PLAIN:
            role = r.roles.get(name)
            return None if role is None else Message(role, said)
    return None


def listed(value: Any, column: str, what: str, example: str) -> Sequence[Any]:
    """The value as a list; a text that holds one as JSON is read."""
    if isinstance(value, str) and value.lstrip().startswith("["):  # a CSV cell
        try:
            value = strictjson.loads(value)
        except strictjson.TwiceError as error:
            raise RowError(f'"{column}": {error}') from error
        except (ValueError, RecursionError) as error:
            raise RowError(
                f'"{column}" looks like a list of {what} but is not valid JSON ({error}). Write {example}, '
                "with double quotes, or remove the row."
            ) from error
    if not is_list(value):
        raise RowError(f'"{column}" is {kind(value)}, not a list of {what}. Write {example}.')
    return value


def _turned(columns: Mapping[str, Any]) -> Any:
    """A list of turns from an object of lists, as older data sets keep them; anything else as it is."""
    if not columns or not all(is_list(values) for values in columns.values()):
        return columns
    if len({len(values) for values in columns.values()}) > 1:
        return columns
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def one_turn(turn: Any, column: str, r: Reading) -> Talk:
    """A single turn that stands by itself, as a list of one."""
    return read_turns([turn], column, r)


def _is_null(turn: Mapping[str, Any]) -> bool:
    return all(value is None for value in turn.values())


def _turn(turn: Any, place: str, r: Reading) -> tuple[Message, bool | None, dict[str, Any]]:
    """The message, whether the turn says that it is (not) learned, and what stands beside its text."""
    if not isinstance(turn, Mapping):
        raise RowError(f'{place} is {kind(turn)}, not an object. Write {{"role": "user", "content": "…"}}.')
    name = _either(turn, r.role_keys, place)
    role = r.role_of(name)
    if role is None:
        shown = name if isinstance(name, str) else kind(name)
        known = {key for key in r.roles if key == key.lower()}
        raise RowError(f"{place}: {unknown('role', short(shown), known)}. Rename or remove that turn.")
    if name not in PLAIN:
        r.renamed[name] = role
    bare = len(turn) == 2 and any(key in turn for key in r.text_keys)
    mark, more = (None, {}) if bare else _others(turn, role, r)
    may_be_null = role in ("assistant", "tool")  # how a turn that only calls a tool is written
    content = _either(turn, r.text_keys, place, optional=may_be_null and bool(more))
    if role == "tool" and _is_data(content):  # what a tool answered, not yet made text
        content = json.dumps(content, ensure_ascii=False, default=str)
    if is_list(content):  # parts: [{"type": "text", "text": "…"}]
        content = "".join(_part(part, place) for part in content if part is not None)
    return Message(role, text_of(content, f"{place} {r.text_keys[0]}", may_be_null=may_be_null)), mark, more


def _either(turn: Mapping[str, Any], keys: Sequence[str], place: str, *, optional: bool = False) -> Any:
    """The value under the one of these keys that is there and not null."""
    value, at = None, ""
    for key in keys:
        other = turn.get(key)
        if other is None:
            continue
        if value is not None and other != value:
            raise RowError(
                f'{place}: "{at}" and "{key}" are both there and differ, and readers differ in which they take. '
                "Remove one of them."
            )
        value, at = other, key
    if value is None and not optional and not any(key in turn for key in keys):
        raise RowError(f'{place}: no "{keys[0]}" (found: {found(turn)}). Every turn needs a role and a text.')
    return value


def _others(turn: Mapping[str, Any], role: str, r: Reading) -> tuple[bool | None, dict[str, Any]]:
    """Of the turn's other fields: whether it is learned, and what goes to the template."""
    mark, more = None, {}
    for key, value in turn.items():
        if value is None or key in r.role_keys or key in r.text_keys:
            continue
        if key in r.mark_keys and (weight := weight_of(value)) is not None:
            positive = not weight <= 0  # NaN, too: a trainer does not leave the turn out for it
            mark = positive if role in r.learned or (positive and key != "weight") else mark
            if not positive and role in r.learned:
                r.say("turns-not-learned", name=key)
            elif weight not in (0, 1):
                r.say("weights", name=key)
        elif key in PASSED or (key in SPOKEN and role == "assistant"):
            if value not in ("", [], {}):
                more[key] = _calls(value, key) if key == "tool_calls" else without_nulls(value)
        elif key not in IDS and (
            isinstance(value, bool)
            or (isinstance(value, str | list | tuple | dict) and value)
            or (isinstance(value, int | float) and MASK.search(key))
        ):
            r.say("turn-fields", name=short(str(key)))
    return mark, more


def _calls(value: Any, key: str) -> list[Any]:
    """A list of calls, as templates want it; some files hold JSON text of one, or a call by itself."""
    if isinstance(value, str):
        value = listed(
            f"[{value}]" if value.lstrip().startswith("{") else value, key, "calls", '[{"name": "…"}]'
        )
    value = without_nulls(value)
    return [value] if isinstance(value, Mapping) else value


def weight_of(value: Any) -> float | None:
    """0 and 1 for false and true, numbers as they are; also as text, as in CSV. None for anything else."""
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("true", "false"):
            return float(word == "true")
        try:
            return float(word)
        except ValueError:
            return None
    return None


def without_nulls(value: Any) -> Any:
    """Tables give every object all keys of its column; those it did not have are null."""
    if isinstance(value, Mapping):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    if is_list(value):
        return [without_nulls(inner) for inner in value]
    return value


def _part(part: Any, place: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        type_ = part.get("type")
        key = "refusal" if type_ == "refusal" else "text"
        if type_ in (None, "text", "input_text", "output_text", "refusal") and isinstance(part.get(key), str):
            return part[key]
    raise RowError(f"{place}: a part {_held(part)}; only text can be read. Remove that part.")


def _held(part: Any) -> str:
    if not isinstance(part, Mapping):
        return f"that is {kind(part)}"
    held = {key: value for key, value in part.items() if value is not None}
    return f"of type {held['type']!r}" if held.get("type") else f"with {found(held)}"


def _is_data(content: Any) -> bool:
    """An object, or a list that is none of parts of text."""
    if not is_list(content):
        return isinstance(content, Mapping)
    return any(
        not isinstance(part, str | Mapping | None) or (isinstance(part, Mapping) and "type" not in part)
        for part in content
    )


def named_roles(renamed: Mapping[str, str]) -> Iterable[str]:
    """`bing, bard as assistant; observation as tool`."""
    for ours in ("system", "user", "assistant", "tool"):
        if names := sorted(short(name) for name, role in renamed.items() if role == ours):
            yield f"{', '.join(names)} as {ours}"


ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(
        (
            *(
                "assistant",
                "gpt",
                "chatgpt",
                "gpt4",
                "gpt_4",
                "ai",
                "model",
                "bing",
                "bard",
                "claude",
                "bot",
                "chatbot",
            ),
            *("function_call", "function_calls", "tool_call", "tool_calls"),
        ),
        "assistant",
    ),
    **dict.fromkeys(
        (
            *("tool", "function", "observation", "ipython", "tool_response", "function_response"),
            *("tool_result", "tool_results", "tool_output", "tool_outputs"),
        ),
        "tool",
    ),
}
PLAIN = frozenset({"system", "user", "human", "assistant", "gpt", "tool"})  # not worth a word
PASSED = frozenset({"name", "tool_call_id"})  # templates of tool dialogues ask for them
MASK = re.compile(
    r"mask|loss|train|weight", re.IGNORECASE
)  # a number under such a name may say what is learned
IDS = frozenset({"id", "index", "timestamp", "created_at", "updated_at", "date", "lang", "language", "model"})
