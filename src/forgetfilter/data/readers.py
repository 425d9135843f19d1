"""One function per format: a record -> what it says. The table of them is FORMATS, below."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from forgetfilter.data.detection import Format
from forgetfilter.data.overlap import common_prefix
from forgetfilter.data.turns import Reading, Talk, listed, one_turn, read_turns, text_of, value_of, weight_of
from forgetfilter.data.wording import RowError, is_list, kind
from forgetfilter.records import Message

Record = Mapping[str, Any]


def prompt_completion(record: Record, r: Reading) -> Talk:
    c = r.columns
    prompt, completion = value_of(record, c, "prompt"), value_of(record, c, "completion")
    if is_list(prompt) or is_list(completion):  # TRL's conversational form: lists of turns
        before = read_turns(prompt, c["prompt"], r) if is_list(prompt) else _user(prompt, c["prompt"])
        return before + _answer(completion, c["completion"], r)
    if isinstance(completion, Mapping):
        answer = one_turn(completion, c["completion"], r)
    else:  # a text is what is learned, also one that is JSON
        answer = Talk((Message("assistant", text_of(completion, c["completion"], may_be_null=True)),))
    return _earlier(record, r) + _user(prompt, c["prompt"]) + answer


def conversation(record: Record, r: Reading) -> Talk:
    """Messages and ShareGPT: a list of turns, perhaps a system text beside it."""
    turns = read_turns(value_of(record, r.columns, "messages"), r.columns["messages"], r)
    _say_tools(record, r)
    return _under_system(turns, record, r)


def contents(record: Record, r: Reading) -> Talk:
    """Gemini's turns, as Vertex tunes on them: the text of each in `parts`."""
    r.text_keys = ("parts",)
    return conversation(record, r)


def has_parts(record: Record, columns: Mapping[str, str]) -> bool:
    """Whether the turns are Gemini's, and no column that happens to have the same name."""
    turns = record.get(columns["messages"])
    return isinstance(turns, list | tuple) and any(isinstance(t, Mapping) and "parts" in t for t in turns)


def alpaca(record: Record, r: Reading) -> Talk:
    """Instruction and input, the turns before them in `history`, and the answer. Earlier answers are learned."""
    c = r.columns
    output = text_of(value_of(record, c, "completion"), c["completion"], may_be_null=True)
    return (
        _system(record, r)
        + _history(record, r)
        + Talk((Message("user", _instruction(record, r)), Message("assistant", output)))
    )


def text(record: Record, r: Reading) -> Talk:
    """Running text: the first three words are the prompt, as in the paper."""
    whole = text_of(value_of(record, r.columns, "text"), r.columns["text"], may_be_null=True)
    opening = FIRST_WORDS.match(whole)
    cut = opening.end() if opening else len(whole)
    if not whole[cut:].strip():  # three words or fewer: nothing is left to be learned
        cut = len(whole)
    return Talk((Message("user", whole[:cut]), Message("assistant", whole[cut:])), text=True)


def segments(record: Record, r: Reading) -> Talk:
    """axolotl's pieces of text, each learned (`label` true) or only read; nothing is put between them."""
    column = r.columns["segments"]
    value = value_of(record, r.columns, "segments")
    messages = []
    for number, piece in enumerate(
        listed(value, column, "segments", '[{"label": true, "text": "…"}, …]'), start=1
    ):
        place = f'"{column}" segment {number}'
        if piece is None:
            continue
        if not isinstance(piece, Mapping):
            raise RowError(f'{place} is {kind(piece)}, not an object. Write {{"label": true, "text": "…"}}.')
        label = piece.get("label")
        if not isinstance(label, bool):
            raise RowError(
                f'{place}: "label" is {kind(label)}, not true or false. Say whether it is learned.'
            )
        said = text_of(piece.get("text"), f"{place} text", may_be_null=True)
        messages.append(Message("assistant" if label else "user", said))
    return Talk(tuple(messages), text=True)


def preference(record: Record, r: Reading) -> Talk:
    """Two answers to one prompt: the chosen one is learned, the rejected one is kept beside it.

    The prompt may stand in a column of its own, as text or turns, or at the beginning of both answers.
    """
    c = r.columns
    chosen, rejected = value_of(record, c, "chosen"), value_of(record, c, "rejected")
    before = _before(record, r)
    texts = isinstance(chosen, str) and isinstance(rejected, str)
    if before is None and texts and not (TURNS.match(chosen) and TURNS.match(rejected)):
        return _pair_of_texts(chosen, rejected)
    good = _whole(before, _answer(chosen, c["chosen"], r), record, c)
    bad = _whole(before, _answer(rejected, c["rejected"], r), record, c)
    begin = parting(good.messages, bad.messages)
    good.learned = _from(begin, good)
    if earlier := sum(m.role == "assistant" for m in good.messages[:begin]):
        r.say("context-turns", earlier)
    good.rejected = bad.messages
    return good


def is_asked(record: Record, columns: Mapping[str, str]) -> bool:
    """Whether the turns beside two answers wait for one of them; turns that end with an answer teach it."""
    if record.get(columns.get("messages", "")) is None:
        return False
    try:
        turns = read_turns(record[columns["messages"]], columns["messages"], Reading({}))
    except RowError:
        return False
    return bool(turns.messages) and turns.messages[-1].role != "assistant"


def wanted(record: Record, r: Reading, *, format: str, truth: str | None) -> bool:
    """Whether the row is one to imitate: not the false ones of KTO data, none of weight 0."""
    taken = {truth, *r.columns.values()} - {r.columns.get("label")}
    for key in (r.columns["label"],) if "label" in r.columns else LABELS:
        if not key or key in taken or key not in record or format in UNLABELLED:
            continue
        label = record[key]
        if label is False or (isinstance(label, str) and label.strip().lower() == "false"):
            r.say("unwanted", name=key)
            return False
        if label is not None and label is not True and str(label).strip().lower() != "true":
            r.say("label-not-read", name=key)
    for key in () if "marks" in r.columns else ROW_MARKS:  # the lists of trainers know none
        weight = weight_of(record.get(key)) if key in record and key not in taken else None
        if weight is None or (key == "train" and not isinstance(record[key], bool | str)):
            continue
        if weight <= 0:
            r.say("row-weight", name=key)
            return False
        if weight != 1:
            r.say("weights", name=key)
    return True


def _say_tools(record: Record, r: Reading) -> None:
    if record.get("tools") not in (None, "", "[]", []):
        r.say("tools", name="tools")


def _user(value: Any, column: str) -> Talk:
    return Talk((Message("user", text_of(value, column)),))


def _answer(value: Any, column: str, r: Reading) -> Talk:
    if isinstance(value, Mapping):
        return one_turn(value, column, r)
    if is_list(value):
        return read_turns(value, column, r)
    if isinstance(value, str) and TURNS.match(value) and (turns := _turns_in_text(value, column, r)):
        return turns
    return Talk((Message("assistant", text_of(value, column, may_be_null=True)),))


def _turns_in_text(value: str, column: str, r: Reading) -> Talk | None:
    """The turns that a text holds as JSON, as CSV does; None where it is an answer that looks like some."""
    try:
        return read_turns(value, column, r)
    except RowError:
        return None


def _beside(record: Record, r: Reading, field: str) -> tuple[str, Any]:
    """Column and value of a field that may be absent; None where it is, or is to be left unread."""
    column = r.columns.get(field, field)
    # "" is to be left unread, and is also what a CSV file calls an unnamed column
    return column, record.get(column) if column else None


def _system(record: Record, r: Reading) -> Talk:
    column, beside = _beside(record, r, "system")
    value = _text_of_parts(beside)
    if value is not None and not isinstance(value, str):
        r.say("columns", name=column)
    return Talk((Message("system", value),) if isinstance(value, str) and value.strip() else ())


def _text_of_parts(value: Any) -> Any:
    """The text of `[{"text": …}]` (Bedrock) and of `{"parts": [{"text": …}]}` (Vertex); anything else as it is."""
    parts = value.get("parts") if isinstance(value, Mapping) else value
    if (
        is_list(parts)
        and parts
        and all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in parts)
    ):
        return "".join(part["text"] for part in parts)
    return value


def _under_system(turns: Talk, record: Record, r: Reading) -> Talk:
    """The turns, behind the system text beside them; where they begin with one of their own, that holds."""
    beside = _system(record, r)
    if not turns.messages or turns.messages[0].role != "system":
        return beside + turns
    if beside.messages and beside.messages[0].content != turns.messages[0].content:
        r.say("columns", name=r.columns.get("system", "system"))
    return turns


def _instruction(record: Record, r: Reading) -> str:
    instruction = text_of(value_of(record, r.columns, "prompt"), r.columns["prompt"])
    column, extra = _beside(record, r, "input")
    given = text_of(extra, column, may_be_null=True)
    return f"{instruction}\n\n{given}" if given.strip() else instruction


def _history(record: Record, r: Reading) -> Talk:
    column, value = _beside(record, r, "history")
    if value is None or value == "":
        return Talk(())
    messages: list[Message] = []
    for number, pair in enumerate(listed(value, column, "pairs", '[["question", "answer"], …]'), start=1):
        if pair is None:
            continue
        if not is_list(pair) or len(pair) != 2:
            raise RowError(
                f'"{column}" pair {number} is {kind(pair)}, not a question with its answer. '
                'Write ["question", "answer"].'
            )
        for role, said in zip(("user", "assistant"), pair, strict=True):
            messages.append(Message(role, text_of(said, f'"{column}" pair {number}', may_be_null=True)))
    return Talk(tuple(messages))


def _earlier(record: Record, r: Reading) -> Talk:
    """The turns in a `history` of pairs, as Alpaca rows have it; one of another kind is a column like others."""
    value = record.get(HISTORY)
    if not is_list(value) or not value or not all(is_list(pair) and len(pair) == 2 for pair in value):
        if value not in (None, "", []):
            r.say("columns", name=HISTORY)
        return Talk(())
    return _history(record, r)


def _before(record: Record, r: Reading) -> Talk | None:
    """The prompt of a preference pair; None where the answers hold it."""
    c = r.columns
    there = {
        f: record[c[f]] for f in ("messages", "prompt", "input") if c.get(f) and record.get(c[f]) is not None
    }
    field = next((f for f, asked in there.items() if f != "input" or asked != ""), None)
    if field is None:
        return None
    asked, column = there[field], c[field]
    if isinstance(asked, Mapping) and "messages" in asked:  # OpenAI's pairs: what was asked, with its tools
        _say_tools(asked, r)
        asked, column = asked["messages"], f"{column}.messages"
    whole = is_list(asked) or isinstance(asked, Mapping) or (isinstance(asked, str) and TURNS.match(asked))
    if field == "messages" or whole:
        turns = read_turns(asked, column, r)
    elif field == "prompt":
        turns = _history(record, r) + _user(_instruction(record, r), column)
    else:
        turns = _history(record, r) + _user(asked, column)
    return _under_system(turns, record, r)


def _whole(before: Talk | None, answer: Talk, record: Record, columns: Mapping[str, str]) -> Talk:
    """The conversation with this answer: the answer may hold the prompt itself."""
    if before is None:
        return answer
    asked = [m.content.strip() for m in answer.messages if m.role == "user"]
    last = next((m.content.strip() for m in reversed(before.messages) if m.role == "user"), None)
    if asked and (asked[-1] == last or answer.messages[: len(before.messages)] == before.messages):
        return answer
    return before + answer


def parting(a: Sequence[Message], b: Sequence[Message]) -> int:
    """The first turn in which two conversations differ; the last turn where they do not."""
    return max(0, min(common_prefix(a, b), len(a) - 1))


def _from(begin: int, talk: Talk) -> tuple[bool, ...]:
    return tuple(mark and i >= begin for i, mark in enumerate(talk.marks()))


def _pair_of_texts(chosen: str, rejected: str) -> Talk:
    """Two texts that begin alike: what they share is the prompt, up to the last space of it."""
    shared = chosen[: common_prefix(chosen, rejected)]
    cut = max(shared.rfind(" "), shared.rfind("\n")) + 1
    ask = Message("user", chosen[:cut])
    return Talk(
        (ask, Message("assistant", chosen[cut:])),
        text=True,
        rejected=(ask, Message("assistant", rejected[cut:])),
    )


FIRST_WORDS = re.compile(r"\s*+(?:\S++\s++){3}")  # the paper's prompt of a plain text
TURNS = re.compile(r'\s*\[\s*\{\s*"(role|from|content|value)"')  # JSON text of turns, in a CSV cell
LABELS = ("label", "kto_tag")
UNLABELLED = ("text", "segments", "preference")  # formats of which a label says nothing about learning
ROW_MARKS = ("weight", "train")
HISTORY = "history"


# Order matters where a row fits several: pairs first, then conversations, running text late.
FORMATS: Mapping[str, Format] = {
    "preference": Format(
        {
            "chosen": ("chosen", "chosen_response", "preferred_output"),
            "rejected": ("rejected", "rejected_response", "non_preferred_output"),
            "messages?": ("messages", "conversations"),
            "prompt?": ("prompt", "instruction", "question"),
            "input?": ("input",),
            "system?": ("system",),
            "history?": ("history",),
        },
        preference,
        is_asked,
    ),
    "segments": Format({"segments": ("segments",)}, segments),
    "messages": Format({"messages": ("messages",), "system?": ("system",)}, conversation),
    "sharegpt": Format({"messages": ("conversations",), "system?": ("system",)}, conversation),
    "prompt-completion": Format(
        {"prompt": ("prompt",), "completion": ("completion", "response", "answer", "output")},
        prompt_completion,
    ),
    "alpaca": Format(
        {
            "prompt": ("instruction",),
            "input?": ("input",),
            "completion": ("output",),
            "system?": ("system",),
            "history?": ("history",),
        },
        alpaca,
    ),
    "text": Format({"text": ("text",)}, text),
    "vertex": Format(
        {"messages": ("contents",), "system?": ("systemInstruction", "system_instruction")},
        contents,
        shaped=has_parts,
    ),
}
