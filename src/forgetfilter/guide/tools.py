"""Tools that a model may call: said to it in its chat template's way or in words, and read out of its answer."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from forgetfilter.records import Message, whole_characters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CALL, CALL_END = "<tool_call>", "</tool_call>"
WORDS = (
    "You may call these functions:\n{tools}\n"
    f'To call one, answer with {CALL}{{{{"name": NAME, "arguments": OBJECT}}}}{CALL_END} and nothing else.'
)
MARKER = "forgetfilter_probe"  # a tool of this name shows whether a template writes tools at all
CUT = "\ufdd0"  # no character: marks where a control token that is spelled out in a text is cut in two


class Call(NamedTuple):
    name: str
    arguments: Any  # an object; a text where the model or the client gave no JSON
    id: str | None = None  # the client's

    @property
    def shown(self) -> dict[str, Any]:
        return {"name": self.name, "arguments": self.arguments}


class Turn(Message):
    """A message with what it has to do with tools: the calls of an assistant; of a tool's answer, the tool's name and
    the id of the call."""

    calls: tuple[Call, ...] = ()
    name: str | None = None
    answers: str | None = None

    def using(self, calls: Sequence[Call] = (), name: str | None = None, answers: str | None = None) -> Turn:
        made = Turn(self.role, self.content)
        made.calls, made.name, made.answers = tuple(calls), name, answers
        return made


def concerned(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> bool:
    """Whether tools play a part in this conversation."""
    return bool(tools) or any(m.role == "tool" or getattr(m, "calls", ()) for m in messages)


def takes_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer's chat template writes the tools that it is given."""
    if not tokenizer.chat_template:
        return False
    probe = {"name": MARKER, "description": "", "parameters": {"type": "object", "properties": {}}}
    try:
        shown = tokenizer.apply_chat_template(
            [{"role": "user", "content": "x"}],
            tools=[{"type": "function", "function": probe}],
            tokenize=False,
        )
    except Exception:  # a template may fail in any way on what it was not made for
        return False
    return MARKER in str(shown)


def in_words(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """The same conversation for a model whose template knows nothing of tools: they stand in the system turn, calls in
    the assistant's turns, and what a tool answered in a user turn."""
    turns = []
    for message in messages:
        if message.role == "tool":
            turns.append(Message("user", f"<tool_response>{message.content}</tool_response>"))
            continue
        calls = [
            CALL + json.dumps(call.shown, ensure_ascii=False) + CALL_END
            for call in getattr(message, "calls", ())
        ]
        turns.append(Message(message.role, "\n".join([*filter(None, [message.content]), *calls])))
    if not tools:
        return tuple(turns)
    listed = "\n".join(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
    said = WORDS.format(tools=listed)
    if turns and turns[0].role == "system":
        return (Message("system", f"{turns[0].content}\n\n{said}"), *turns[1:])
    return (Message("system", said), *turns)


def templated_ids(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> list[int] | None:
    """The prompt as the tokenizer's own template writes it, tools, calls and answers included; None where the template
    refuses it.

    A control token spelled out in a text is read as the characters it is written with.
    """
    control = [str(added) for added in tokenizer.added_tokens_decoder.values() if added.special]
    listed: list[dict[str, Any]] = []
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if calls := getattr(message, "calls", ()):
            turn["tool_calls"] = [
                ({"id": call.id} if call.id else {}) | {"type": "function", "function": call.shown}
                for call in calls
            ]
        for key, own in (("name", "name"), ("tool_call_id", "answers")):
            if value := getattr(message, own, None):
                turn[key] = value
        listed.append(_cut(turn, control))
    try:
        text = str(
            tokenizer.apply_chat_template(
                listed, tools=[_cut(tool, control) for tool in tools] or None, tokenize=False,
                add_generation_prompt=True,
            )
        )  # fmt: skip
    except Exception:  # a template may fail in any way on what it was not made for
        return None
    pieces = [piece for piece in text.split(CUT) if piece]
    ids = [token for piece in pieces for token in tokenizer(piece, add_special_tokens=False)["input_ids"]]
    bos = tokenizer.bos_token_id
    return ids if bos is None or ids[:1] == [bos] else [bos, *ids]


def _cut(value: Any, control: Sequence[str]) -> Any:
    """The same with every control token in its texts cut in two, and no half character."""
    if isinstance(value, str):
        value = whole_characters(value)
        for token in control:
            value = value.replace(token, token[:1] + CUT + token[1:])
        return value
    if isinstance(value, Mapping):
        return {_cut(key, control): _cut(each, control) for key, each in value.items()}
    return [_cut(each, control) for each in value] if isinstance(value, list | tuple) else value


def calls_in(text: str, names: Collection[str]) -> tuple[str, list[Call]]:
    """The words of an answer and the calls it holds: between <tool_call> tags, or an answer that is nothing but JSON
    with a name and arguments (or parameters). A call of no offered tool, or in no JSON, is left in the words."""
    calls: list[Call] = []

    def take(match: re.Match[str]) -> str:
        found = _read(match[1], names)
        calls.extend(found)
        return "" if found else match[0]

    words = re.sub(rf"{CALL}(.*?)(?:{CALL_END}|\Z)", take, text, flags=re.DOTALL)
    if calls:
        return words.strip(), calls
    alone = _read(text.strip().removeprefix("<|python_tag|>"), names)
    return ("", alone) if alone else (text, [])


def _read(text: str, names: Collection[str]) -> list[Call]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    calls = []
    for each in found if isinstance(found, list) else [found]:
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str) or name not in names:
            return []
        calls.append(Call(name, each.get("arguments", each.get("parameters", {}))))
    return calls


def before_a_call(text: str) -> int:
    """How many characters of an unfinished answer surely stand outside a call and may be shown."""
    if text.lstrip()[:1] in ("", "{", "["):  # it may turn out to be nothing but a call
        return 0
    if (at := text.find(CALL)) >= 0:
        return at
    return len(text) - begun(text, CALL)


def begun(text: str, mark: str) -> int:
    """How many characters at the end of `text` may be the beginning of `mark`."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)
