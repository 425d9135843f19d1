"""Rows -> token ids and masks. The only home of templates.

Every row becomes one sequence with two masks: `learned` marks what fine-tuning computes its loss on
(the assistant turns and the end-of-turn tokens behind them), `scored` what the signals judge (the
assistant turns' own tokens). Prompts are read, never learned: a row is what a model is taught to
answer.

Rows are hostile text. A control token spelled out in a row (`<|end|>`, `</s>`) is encoded as the
characters it is written with, so that no row can end its own turn or open another one. Two limits: a chat
template that rewrites the text of a prompt leaves no trace of where that text went, so what it rewrote is
not looked through; and the paper's template marks turns with ordinary words, which a row may use too.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError, DataError, unknown
from forgetfilter.records import Message, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The template of the ForgetFilter paper, for models that bring none of their own.
PAPER = {"system": "{}\n\n", "user": "### Input:\n{}\n\n"}
PAPER_OPENER = "### Response:\n"

Span = tuple[int, int]  # of characters, or of tokens: first, one past the last


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row as the model sees it. All sequences have the same length (time)."""

    id: str
    ids: list[int]
    learned: list[bool]  # loss is computed on these tokens
    scored: list[bool]  # signals are computed on these tokens; empty of True: the row is unscored
    prompt_length: int  # tokens before the last assistant turn: where generation starts
    truncated: bool  # the row was longer than max_length; what fits is here

    @property
    def completion_ids(self) -> list[int]:
        """Tokens of the last assistant turn's own text: the reference that generation is compared with."""
        start = self.prompt_length
        return [t for t, s in zip(self.ids[start:], self.scored[start:], strict=True) if s]


@dataclass(frozen=True, slots=True)
class _Rendered:
    text: str
    learned: list[Span]  # of characters, end of turn included
    scored: list[Span]  # of characters, the assistant's own text
    contents: list[Span]  # of characters, whatever came from the row
    completion_at: int  # the character where the last assistant turn starts


def encode(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, *, max_length: int = 512, template: str = "auto"
) -> list[Encoded]:
    """Encode rows, in order. `template` is a key of TEMPLATES or `auto`: the tokenizer's own chat template
    where it has one, else the paper's. A `text` row needs no template.

    A token belongs to a turn when it holds a character of it, so one that reaches over the border between
    prompt and answer is part of the answer. The very first token of a row is neither learned nor scored:
    nothing stands before it to predict it from.

    Raises ConfigError for an unknown template, DataError for a row that the chat template refuses.
    """
    from jinja2 import TemplateError

    render = _choose(tokenizer, template)
    rendered = []
    for row in rows:
        messages = [Message(m.role, _without_surrogates(m.content)) for m in row.messages]
        try:
            rendered.append(_text(messages) if row.kind == "text" else render(messages))
        except TemplateError as error:
            raise DataError(
                f"{row.source} row {row.index}: the model's chat template refuses this row: {error}. "
                "Change the row, or use --template paper"
            ) from error
    if not rendered:
        return []
    tokens = tokenizer(
        [r.text for r in rendered], add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    control = {t for t, added in tokenizer.added_tokens_decoder.items() if added.special}
    bos = tokenizer.bos_token_id
    encoded = []
    for row, r, ids, offsets in zip(
        rows, rendered, tokens["input_ids"], tokens["offset_mapping"], strict=True
    ):
        if not control.isdisjoint(ids):
            ids, offsets = _spell_out(r, ids, offsets, control, tokenizer)
        extents = _extents(offsets)
        learned, scored = _mark(extents, r.learned), _mark(extents, r.scored)
        start = bisect_right(extents, r.completion_at, key=lambda extent: extent[1])
        if bos is not None and ids[:1] != [bos]:
            # The first token too needs something before it to be predicted from.
            ids, learned, scored, start = [bos, *ids], [False, *learned], [False, *scored], start + 1
        encoded.append(_fit(row.id, ids, learned, scored, start, max_length, bos))
    return encoded


def _choose(tokenizer: PreTrainedTokenizerBase, template: str) -> Callable[[Sequence[Message]], _Rendered]:
    if template == "auto":
        template = "chat" if tokenizer.chat_template else "paper"
    if template not in TEMPLATES:
        raise ConfigError(unknown("template", template, [*TEMPLATES, "auto"]))
    if template == "chat" and not tokenizer.chat_template:
        raise ConfigError("template chat: this model's tokenizer has no chat template; use --template paper")
    return TEMPLATES[template](tokenizer)


def _chat(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[Message]], _Rendered]:
    """The tokenizer's own template."""
    frames: dict[tuple[str, ...], _Frame] = {}

    def render(messages: Sequence[Message]) -> _Rendered:
        if not messages:
            return _Rendered("", [], [], [], 0)
        roles = tuple(m.role for m in messages)
        if roles not in frames:
            frames[roles] = _frame(roles, tokenizer)
        frame = frames[roles]
        text = _apply(tokenizer, messages)
        bodies = _fill(frame, messages, text) or _search(frame, messages, text, tokenizer)
        learned, scored, completion_at = [], [], len(text)
        for i, message in enumerate(messages):
            body = bodies[i]
            if message.role != "assistant" or body is None:
                continue
            start, end = body
            if text[start:end].strip():
                scored.append((start, end))
            # What the template puts between the generation prompt and the answer, and behind the answer.
            start -= len(frame.before[i]) if text.endswith(frame.before[i], 0, start) else 0
            end += _shared(frame.tail[i], text[end : end + len(frame.tail[i])])
            learned.append((start, end))
            completion_at = start
        return _Rendered(text, learned, scored, [s for s in bodies if s and s[0] < s[1]], completion_at)

    return render


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a chat template writes around the turns of a conversation, whatever they say."""

    literals: list[str]  # before each turn's text, and one behind the last; empty: the template hides them
    before: list[str]  # per turn: what stands between the generation prompt and its text
    tail: list[str]  # per turn: what ends it


def _frame(roles: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> _Frame:
    """Render place-holders, and look at what came around them."""
    from jinja2 import TemplateError

    turns = [Message(role, f"\ue000{i}\ue001") for i, role in enumerate(roles)]

    def attempt(turns: Sequence[Message], opener: bool = False) -> str:
        try:
            return _apply(tokenizer, turns, opener) if turns else ""
        except TemplateError:  # some templates refuse a conversation that stops half-way
            return ""

    whole = attempt(turns)
    pieces = re.split("\ue000(\\d+)\ue001", whole)
    literals = pieces[::2] if pieces[1::2] == [str(i) for i in range(len(turns))] else []
    before, tail = [""] * len(turns), [""] * len(turns)
    for i, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        asked = attempt(turns[:i], opener=True)
        at = whole.find(turn.content)
        if asked and at >= len(asked) and whole.startswith(asked):
            before[i] = whole[len(asked) : at]
        tail[i] = attempt(turns[: i + 1]).rpartition(turn.content)[2]
    return _Frame(literals, before, tail)


def _fill(frame: _Frame, messages: Sequence[Message], text: str) -> list[Span]:
    """Where each turn's text stands, trimmed or not, if `text` is the frame filled in; [] if it is not."""
    if not frame.literals or not text.startswith(frame.literals[0]):
        return []
    bodies, at = [], len(frame.literals[0])
    for message, literal in zip(messages, frame.literals[1:], strict=True):
        whole = message.content
        for body in (whole, whole.strip(), whole.lstrip(), whole.rstrip()):
            if text.startswith(body, at) and text.startswith(literal, at + len(body)):
                break
        else:
            return []
        bodies.append((at, at + len(body)))
        at += len(body) + len(literal)
    return bodies if at == len(text) else []


def _search(
    frame: _Frame, messages: Sequence[Message], text: str, tokenizer: PreTrainedTokenizerBase
) -> list[Span | None]:
    """The same for a template that decides by what the turns say: each text at its first place behind the one
    before it; a rewritten answer where the conversation up to it and the one with it differ; else None."""
    from jinja2 import TemplateError

    bodies: list[Span | None] = []
    at = 0
    for i, message in enumerate(messages):
        body = message.content.strip()
        literal = frame.literals[i] if frame.literals else ""
        found = (
            text.find(literal + body, at) + len(literal)
            if literal + body in text[at:]
            else text.find(body, at)
        )
        span = (found, found + len(body)) if body and found >= 0 else None
        if span is None and message.role == "assistant" and i:
            try:
                asked, told = _apply(tokenizer, messages[:i], True), _apply(tokenizer, messages[: i + 1])
            except TemplateError:
                asked, told = "", ""
            end = len(told) - len(frame.tail[i])
            if asked and text.startswith(told) and told.startswith(asked) and told.endswith(frame.tail[i]):
                span = (len(asked), end) if end >= len(asked) else None
        bodies.append(span)
        at = span[1] if span else at
    return bodies


def _shared(a: str, b: str) -> int:
    """How many characters the two have in common from their beginning."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _apply(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], opener: bool = False) -> str:
    listed: list[dict[str, Any]] = [{"role": m.role, "content": m.content} for m in turns]
    return str(tokenizer.apply_chat_template(listed, tokenize=False, add_generation_prompt=opener))


def _paper(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[Message]], _Rendered]:
    """`### Input:` … `### Response:` …, with the end-of-sequence token behind every response."""

    def render(messages: Sequence[Message]) -> _Rendered:
        text, learned, scored, contents = "", [], [], []
        for message in messages:
            if message.role == "assistant":
                text += PAPER_OPENER
                start, body = len(text), message.content.strip()
                text += body + (tokenizer.eos_token or "")
                learned.append((start, len(text)))
                if body:
                    scored.append((start, start + len(body)))
                contents.append((start, start + len(body)))
            else:
                opener, _, closer = PAPER.get(message.role, "{}\n\n").partition("{}")
                start = len(text) + len(opener)
                contents.append((start, start + len(message.content)))
                text += opener + message.content + closer
        return _Rendered(text, learned, scored, contents, learned[-1][0] if learned else len(text))

    return render


def _plain(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[Message]], _Rendered]:
    """The turns' texts on lines of their own, nothing added."""

    def render(messages: Sequence[Message]) -> _Rendered:
        return _text(
            [Message(m.role, m.content if i == 0 else "\n" + m.content) for i, m in enumerate(messages)]
        )

    return render


def _text(messages: Sequence[Message]) -> _Rendered:
    """One running text: what the assistant turns hold is learned, no end-of-turn token."""
    text, spans, completion_at = "", [], -1
    for message in messages:
        if message.role == "assistant":
            completion_at = len(text)
            if message.content.strip():
                spans.append((len(text), len(text) + len(message.content)))
        text += message.content
    completion_at = completion_at if completion_at >= 0 else len(text)
    return _Rendered(text, spans, list(spans), [(0, len(text))], completion_at)


def _without_surrogates(text: str) -> str:
    """JSON may spell half a character (`\\ud83d`); no tokenizer takes one. It becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _spell_out(
    rendered: _Rendered,
    ids: Sequence[int],
    offsets: Sequence[Span],
    control: set[int],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[list[int], list[Span]]:
    """Replace the control tokens that stand in the row's own text by the tokens of their spelling."""
    starts = [start for start, _ in rendered.contents]
    new_ids: list[int] = []
    new_offsets: list[Span] = []
    for token, (a, b) in zip(ids, offsets, strict=True):
        i = bisect_right(starts, a) - 1
        if token not in control or i < 0 or b > rendered.contents[i][1] or a == b:
            new_ids.append(token)
            new_offsets.append((a, b))
            continue
        spelled = tokenizer(
            rendered.text[a:b],
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
        )
        new_ids += spelled["input_ids"]
        new_offsets += [(a + x, a + y) for x, y in spelled["offset_mapping"]]
    return new_ids, new_offsets


def _extents(offsets: Sequence[Span]) -> list[Span]:
    """Offsets without gaps: some tokenizers leave out a token's leading space, which makes a line break empty."""
    extents, end = [], 0
    for a, b in offsets:
        start, end = min(a, end), max(b, end)
        extents.append((start, end))
    return extents


def _mark(extents: Sequence[Span], spans: Sequence[Span]) -> list[bool]:
    """True for the tokens that hold a character of a span."""
    marks = [False] * len(extents)
    for start, end in spans:
        first = bisect_right(extents, start, key=lambda extent: extent[1])
        last = bisect_left(extents, end, key=lambda extent: extent[0])
        marks[first:last] = [True] * (last - first)
    return marks


def _fit(
    id: str,
    ids: list[int],
    learned: list[bool],
    scored: list[bool],
    start: int,
    max_length: int,
    bos: int | None,
) -> Encoded:
    """Cut to max_length. An answer longer than half the room loses its end; the prompt gets what is left
    and loses its beginning, but for the beginning-of-sequence token."""
    truncated = len(ids) > max_length
    if truncated:
        first = min(len(ids) - max_length, max(0, start - max_length // 2))
        window = slice(first, first + max_length)
        keeps_bos = first > 0 and start > first and ids[0] == bos
        ids, learned, scored, start = ids[window], learned[window], scored[window], start - first
        if keeps_bos and bos is not None:
            ids[0] = bos
    if ids:
        learned[0] = scored[0] = False
    return Encoded(id, ids, learned, scored, start, truncated)


TEMPLATES = {"chat": _chat, "paper": _paper, "plain": _plain}
