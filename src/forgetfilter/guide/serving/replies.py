"""Answers in OpenAI's form: whole ones, streams of events, and log-probabilities."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from forgetfilter.guide.decoding import Kept
from forgetfilter.guide.serving.engine import Bell, Choice, Job
from forgetfilter.guide.serving.fields import Refused
from forgetfilter.guide.tools import Call, before_a_call, calls_in
from forgetfilter.records import whole_characters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IMPOSSIBLE = -9999.0  # stands for minus infinity, which JSON has not


class Asked(NamedTuple):
    """One request on its way: its jobs, in the order of its prompts, and what its replies have in common."""

    jobs: tuple[Job, ...]
    bell: Bell
    head: Mapping[str, Any]
    tokenizer: PreTrainedTokenizerBase
    until: float  # of the loop's clock
    late: Refused
    names: frozenset[str] = frozenset()  # of the tools that may be called
    echo: tuple[tuple[int, ...], ...] | None = None  # per prompt the tokens to give back; None: none of them
    with_usage: bool = False

    @property
    def choices(self) -> list[Choice]:
        return [choice for job in self.jobs for choice in job.choices]

    @property
    def over(self) -> bool:
        return all(job.over for job in self.jobs)

    def usage(self) -> dict[str, int]:
        read = sum(len(job.prompt.prompt) for job in self.jobs)
        written = sum(len(choice.ids) for choice in self.choices)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def fail(self) -> None:
        """Raise the error that ended one of the jobs, if there is one."""
        for job in self.jobs:
            if job.error is not None:
                raise job.error

    def leave(self) -> None:
        """The request is over, late, or nobody waits: what is still open leaves the batch."""
        for job in self.jobs:
            job.cancelled = True


# --- tokens and their log-probabilities ---


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> tuple[str, list[int]]:
    """A token as text, and its bytes, which may be a part of a character."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    shown = str(tokenizer.decode([token]))
    if "\ufffd" not in shown:
        return shown, list(shown.encode())
    raw = str(tokenizer.convert_ids_to_tokens(token))
    if found := re.fullmatch("<0x([0-9A-Fa-f]{2})>", raw):
        return shown, [int(found[1], 16)]
    table = {character: byte for byte, character in bytes_to_unicode().items()}  # of byte-level vocabularies
    known = all(character in table for character in raw)
    return shown, [table[c] for c in raw] if known else list(shown.encode())


def _finite(logp: float) -> float:
    return max(logp, IMPOSSIBLE)


def chat_logprobs(tokenizer: PreTrainedTokenizerBase, kept: Sequence[Kept]) -> list[dict[str, Any]]:
    def entry(token: int, logp: float) -> dict[str, Any]:
        shown, own = token_text(tokenizer, token)
        return {"token": shown, "logprob": _finite(logp), "bytes": own}

    return [
        entry(one.token, one.logp) | {"top_logprobs": [entry(*best) for best in one.likeliest]}
        for one in kept
    ]


def text_logprobs(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], kept: Sequence[Kept | None]
) -> dict[str, Any]:
    """The form of completions; a token with nothing before it has null. The token's own is always among the top."""
    shown = [token_text(tokenizer, token)[0] for token in tokens]
    offsets, at = [], 0
    for text in shown:
        offsets.append(at)
        at += len(text)
    top: list[dict[str, float] | None] = []
    for one in kept:
        if one is None:
            top.append(None)
            continue
        found: dict[str, float] = {}
        for token, logp in [*one.likeliest, (one.token, one.logp)]:
            text = token_text(tokenizer, token)[0]  # two tokens may read the same: the likelier one stands
            found[text] = max(found.get(text, IMPOSSIBLE), _finite(logp))
        top.append(found)
    values = [None if one is None else _finite(one.logp) for one in kept]
    return {"tokens": shown, "token_logprobs": values, "top_logprobs": top, "text_offset": offsets}


def shown_tokens(choice: Choice, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many of the choice's tokens its text holds: a stop sequence may have cut some off."""
    if choice.ended != "stop" or not choice.job.stops:
        return len(choice.ids)
    at = 0
    for i, token in enumerate(choice.ids):
        if at >= len(choice.ready):
            return i
        at += len(str(tokenizer.decode([token], skip_special_tokens=True)))
    return len(choice.ids)


# --- chat completions ---


def chat_reply(asked: Asked) -> dict[str, Any]:
    choices = []
    for i, choice in enumerate(asked.choices):
        content, calls = calls_in(choice.ready, asked.names) if asked.names else (choice.ready, [])
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if calls:
            message |= {"content": content or None, "tool_calls": listed_calls(calls)}
        logprobs = None
        if choice.job.prompt.top is not None:
            count = shown_tokens(choice, asked.tokenizer)
            logprobs = {"content": chat_logprobs(asked.tokenizer, choice.kept[:count]), "refusal": None}
        finish = "tool_calls" if calls else choice.ended
        choices.append({"index": i, "message": message, "logprobs": logprobs, "finish_reason": finish})
    return {**asked.head, "object": "chat.completion", "choices": choices, "usage": asked.usage()}


def listed_calls(calls: Collection[Call], *, indexed: bool = False) -> list[dict[str, Any]]:
    """Calls as a reply lists them, in a stream with their places."""
    listed = []
    for i, call in enumerate(calls):
        said = call.arguments
        said = whole_characters(said if isinstance(said, str) else json.dumps(said, ensure_ascii=False))
        listed.append(
            ({"index": i} if indexed else {})
            # Nine letters and digits: the templates of Mistral's models take no other ids back.
            | {
                "id": secrets.token_hex(5)[:9],
                "type": "function",
                "function": {"name": call.name, "arguments": said},
            }
        )
    return listed


class _Sent:
    """How far one choice has been sent."""

    def __init__(self) -> None:
        self.text = self.tokens = 0
        self.ended = False


def _chat_delta(asked: Asked, choice: Choice, sent: _Sent) -> list[tuple[dict[str, Any], Any, str | None]]:
    """What has come since: deltas, each with its log-probabilities and, the last one, why it ended."""
    over, text = choice.ended, choice.ready  # in this order: a text is whole before it has ended
    calls: list[Call] = []
    if asked.names:
        if over:
            text, calls = calls_in(text, asked.names)
        else:
            text = text[: before_a_call(text)]
    deltas: list[tuple[dict[str, Any], Any, str | None]] = []
    new = text[sent.text :]
    if new or (over and choice.job.prompt.top is not None):
        logprobs = None
        if choice.job.prompt.top is not None:
            upto = shown_tokens(choice, asked.tokenizer) if over else len(choice.ids)
            told = chat_logprobs(asked.tokenizer, choice.kept[sent.tokens : upto])
            logprobs, sent.tokens = {"content": told, "refusal": None}, max(upto, sent.tokens)
        deltas.append(({"content": new}, logprobs, None))
        sent.text += len(new)
    if calls:
        deltas.append(({"tool_calls": listed_calls(calls, indexed=True)}, None, None))
    if over:
        deltas.append(({}, None, "tool_calls" if calls else over))
        sent.ended = True
    return deltas


def chat_events(asked: Asked) -> AsyncGenerator[str]:
    """Server-sent events: what has come since the last one, so a slow reader gets fewer and longer ones."""

    def chunk(i: int, delta: Mapping[str, Any], logprobs: Any = None, finish: str | None = None) -> Any:
        return {"index": i, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def more(i: int, choice: Choice, sent: _Sent) -> list[dict[str, Any]]:
        return [chunk(i, *each) for each in _chat_delta(asked, choice, sent)]

    opening = [chunk(i, {"role": "assistant", "content": ""}) for i in range(len(asked.choices))]
    return _events(asked, "chat.completion.chunk", more, opening)


async def _events(
    asked: Asked,
    kind: str,
    more: Callable[[int, Choice, _Sent], list[dict[str, Any]]],
    opening: Sequence[Mapping[str, Any]] = (),
) -> AsyncGenerator[str]:
    def event(choices: Sequence[Mapping[str, Any]], **rest: Any) -> str:
        return f"data: {json.dumps({**asked.head, 'object': kind, 'choices': choices, **rest})}\n\n"

    sent = [_Sent() for _ in asked.choices]
    try:
        if opening:
            yield event(opening)
        while not all(one.ended for one in sent):
            async with asyncio.timeout_at(asked.until):
                await asked.bell.rung()
            asked.fail()
            for i, (choice, one) in enumerate(zip(asked.choices, sent, strict=True)):
                if not one.ended:
                    for each in more(i, choice, one):
                        yield event([each])
        if asked.with_usage:
            yield event([], usage=asked.usage())
        yield "data: [DONE]\n\n"
    except (TimeoutError, Refused) as error:
        yield f"data: {json.dumps((error if isinstance(error, Refused) else asked.late).body)}\n\n"


# --- completions ---


def _completion_choice(
    asked: Asked, i: int, choice: Choice, sent: _Sent, *, over: str | None
) -> dict[str, Any]:
    """What has come of a choice since it was last sent; its first piece begins with the prompt where that is wanted."""
    place, tokenizer = i // len(choice.job.choices), asked.tokenizer
    first, text = not sent.text and not sent.tokens, choice.ready
    echoed = asked.echo[place] if asked.echo is not None and first else ()
    shown = str(tokenizer.decode(list(echoed), skip_special_tokens=True)) if echoed else ""
    found: dict[str, Any] = {"index": i, "text": shown + text[sent.text :], "logprobs": None}
    if choice.job.prompt.top is not None:
        upto = len(choice.kept) if over else len(choice.ids)
        if over == "stop" and choice.job.stops:
            upto = max(sent.tokens, shown_tokens(choice, tokenizer))
        new = choice.kept[sent.tokens : upto]
        before = [None] * (len(echoed) - len(choice.job.read)) + choice.job.read if echoed else []
        tokens = [*echoed, *(one.token for one in new)]
        found["logprobs"] = text_logprobs(tokenizer, tokens, [*before, *new])
        sent.tokens = upto
    sent.text, sent.ended = len(text), bool(over)
    return {**found, "finish_reason": over}


def completion_reply(asked: Asked) -> dict[str, Any]:
    choices = [
        _completion_choice(asked, i, choice, _Sent(), over=choice.ended)
        for i, choice in enumerate(asked.choices)
    ]
    return {**asked.head, "object": "text_completion", "choices": choices, "usage": asked.usage()}


def completion_events(asked: Asked) -> AsyncGenerator[str]:
    def more(i: int, choice: Choice, sent: _Sent) -> list[dict[str, Any]]:
        over = choice.ended
        grown = len(choice.ready) > sent.text
        return [_completion_choice(asked, i, choice, sent, over=over)] if grown or over else []

    return _events(asked, "text_completion", more)
