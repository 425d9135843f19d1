"""Conversations as the token ids of a prompt, and of the negative prompt beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError, DataError
from forgetfilter.guide.decoding import Request
from forgetfilter.guide.guidance import Guidance
from forgetfilter.guide.tools import concerned, in_words, takes_tools, templated_ids
from forgetfilter.models.rendering import encode
from forgetfilter.records import Message, Row, whole_characters, with_system

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def under(messages: Sequence[Message], opening: Sequence[Message]) -> tuple[Message, ...]:
    """The same conversation under another opening, which takes the place of its system message if it has one."""
    return (*opening, *messages[bool(messages) and messages[0].role == "system" :])


def prompt_ids(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: str = "auto",
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[int]:
    """The conversation as the model reads it before it answers.

    Where `tools`, calls of them or their answers play a part, the chat template writes them if it can; else, or where
    it refuses this conversation, they are said in words.
    """
    if concerned(messages, tools):
        if (
            template in ("auto", "chat")
            and takes_tools(tokenizer)
            and (ids := templated_ids(messages, tools, tokenizer))
        ):
            return ids
        messages = in_words(messages, tools)
    # Of the answer, x, alone is told where it stands: a template may join it to an assistant's turn before it.
    row = Row(
        "", 0, "conversation", (*messages, Message("assistant", "x")), "chat", {},
        learned=(*[False] * len(messages), True), place="conversation",
    )  # fmt: skip
    [encoded] = encode([row], tokenizer, max_length=sys.maxsize, template=template)
    joined = messages[-1:] and messages[-1].role == "assistant" and True in encoded.learned
    return encoded.ids[: encoded.learned.index(True) if joined else encoded.prompt_length]


def prepare(
    messages: Sequence[Message],
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    guidance: Guidance,
    instruction: str | None = None,
    negative: str | Sequence[Message] | None = None,
    limit: int = 256,
    template: str = "auto",
    tools: Sequence[Mapping[str, Any]] = (),
    **drawing: Any,
) -> Request:
    """A conversation as a Request. A text, `instruction` or `negative`, is put in front of the conversation's own
    system message, as in training with both orientations, so that the branches differ in nothing else; negative
    messages take the place of that message; negative None leaves the negative branch the same prompt. `drawing`:
    temperature, top_p, seed, top.

    The limit is lowered to the room that the model's positions leave. Raises DataError where they leave none,
    ConfigError where the negative messages alone fill them.
    """
    prompt = prompt_ids(with_system(messages, instruction), tokenizer, template=template, tools=tools)
    other, against = None, with_system((), negative) if isinstance(negative, str) else negative
    if negative is not None and not guidance.plain:
        pushed = with_system(messages, negative) if isinstance(negative, str) else under(messages, negative)
        other = prompt_ids(pushed, tokenizer, template=template, tools=tools)
    return fitted(
        Request(prompt=prompt, negative=other, guidance=guidance, limit=limit, **drawing), model,
        # What the negative messages take by themselves, where they take the conversation's place.
        alone=lambda: len(prompt_ids(against or (), tokenizer, template=template)),
    )  # fmt: skip


def fitted(request: Request, model: Any, *, alone: Callable[[], int] = lambda: 0) -> Request:
    """The request with its limit lowered to the room that the model's positions leave. Raises DataError where they
    leave none, ConfigError where the negative messages fill them `alone`."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        return request
    prompt, other = request.prompt, request.negative or ()
    if len(other) > positions and (own := alone()) > positions:
        raise ConfigError(
            f"the negative messages have {own} tokens, but the model reads at most {positions}: shorten them"
        )
    for ids, what in ((prompt, "the conversation has"), (other, "with the negative messages it has")):
        if len(ids) > positions:
            raise DataError(
                f"{what} {len(ids)} tokens, but the model reads at most {positions}: shorten "
                + ("it" if ids is prompt else "either")
            )
    # The last token of an answer is never read back.
    return replace(request, limit=min(request.limit, positions + 1 - max(len(prompt), len(other))))


def raw_prompt(
    text: str | Sequence[int],
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    guidance: Guidance,
    instruction: str | None = None,
    negative: str | Sequence[Message] | None = None,
    limit: int = 256,
    **drawing: Any,
) -> tuple[Request, int]:
    """A text without turns, or its token ids, as a Request, and how many tokens at its end are the text's own, the
    start token aside.

    No template: what is put in front, `instruction` and in the negative branch `negative`, stands on lines of its
    own before the text, behind the start token. A text begins with the start token where the model has one; ids are
    taken as they are. Raises DataError for ids beyond the vocabulary and for what does not fit.
    """

    def read(words: str) -> list[int]:
        return list(tokenizer(whole_characters(words), add_special_tokens=False)["input_ids"])

    bos = tokenizer.bos_token_id
    ids = read(text) if isinstance(text, str) else list(text)
    known = min(len(tokenizer), len(model.get_input_embeddings().weight))
    if ids and max(ids) >= known:
        raise DataError(f"token {max(ids)} is none of the model's, which has {known}")
    started = ids[:1] == [bos]
    starts = bos is not None and (isinstance(text, str) or started)
    own = ids[started:]

    def behind(words: str | None) -> list[int]:
        front = read(f"{words}\n\n") if words else []
        return [*([bos] * starts), *front, *own]

    if negative is None or isinstance(negative, str):
        against = negative
    else:
        against = "\n\n".join(message.content for message in negative)
    other = behind(against) if against is not None and not guidance.plain else None
    request = Request(prompt=behind(instruction), negative=other, guidance=guidance, limit=limit, **drawing)
    if not request.prompt:
        raise DataError("an empty prompt gives the model nothing to go on")
    return fitted(request, model), len(own)
