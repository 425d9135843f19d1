"""Questions to a chat model, many at once: what it answers, and how likely it finds an answer that is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from forgetfilter.errors import DataError
from forgetfilter.filter.signals import Memory, token_memory
from forgetfilter.models.rendering import Encoded, encode
from forgetfilter.records import Message, Row

UNLIMITED = 1 << 30
NO_ROOM = "longer than the model's positions"


def answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    instruction: str | None,
    max_new_tokens: int,
    batch_tokens: int,
    template: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> list[str | None]:
    """The model's greedy answer to each prompt, in order, without outer white space.

    None where prompt and answer do not fit the model's positions: nothing is cut. `progress` gets the number
    of answers done. `instruction` is the system message, or stands in front of the prompt where the template
    knows no system role.
    """
    from forgetfilter.guide.generation import greedy, stop_ids

    # A template may hide an empty answer; where the prompt ends is the same before any word.
    rows = _encode(tokenizer, [(p, "Yes") for p in prompts], instruction, template)
    asked = [row.ids[: row.prompt_length] for row in rows]
    room = positions(model) - max_new_tokens + 1  # the last token is never read back
    fit = [i for i, ids in enumerate(asked) if len(ids) <= room]
    found: list[str | None] = [None] * len(prompts)
    said = greedy(
        model,
        [asked[i] for i in fit],
        [max_new_tokens] * len(fit),
        batch_tokens=batch_tokens,
        stop_ids=stop_ids(model, tokenizer),
        progress=progress,
    )
    for i, ids in zip(fit, said, strict=True):
        found[i] = str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
    return found


def memories(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    *,
    instruction: str | None,
    batch_tokens: int,
    template: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> list[Memory]:
    """Log-probabilities, in nats, of each completion's tokens after its prompt, for (prompt, completion) pairs.

    Empty where the completion has no token or where the pair does not fit the model's positions.
    """
    rows = _encode(tokenizer, pairs, instruction, template)
    fit = [i for i, row in enumerate(rows) if len(row.ids) <= positions(model)]
    found = [Memory(np.zeros(0, np.float32), np.zeros(0, bool)) for _ in pairs]
    kept = token_memory(
        model,
        [rows[i] for i in fit],
        pad_id=tokenizer.pad_token_id or 0,
        batch_tokens=batch_tokens,
        progress=progress,
    )
    for i, memory in zip(fit, kept, strict=True):
        found[i] = memory
    return found


def most_likely(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    instruction: str | None,
    batch_tokens: int,
    template: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> list[tuple[int | None, list[float]]]:
    """Per prompt: the place of the choice with the largest mean log-probability per token, and all of these.

    The place is None, and unscored, where a choice could not be scored (NaN) or two share the first place.
    """
    pairs = [(p, c) for p, of_it in zip(prompts, choices, strict=True) for c in of_it]
    scored = iter(
        memories(
            model,
            tokenizer,
            pairs,
            instruction=instruction,
            batch_tokens=batch_tokens,
            template=template,
            progress=progress,
        )
    )
    found: list[tuple[int | None, list[float]]] = []
    for of_it in choices:
        means = [float(m.logp.mean()) if m.logp.size else float("nan") for m in (next(scored) for _ in of_it)]
        first = [i for i, mean in enumerate(means) if mean == max(means)]
        sure = len(first) == 1 and bool(np.isfinite(means).all())
        found.append((first[0] if sure else None, means))
    return found


def out_of(
    total: int, progress: Callable[[int, int], None] | None, *, each: int = 1
) -> Callable[[int], None] | None:
    """From a count of readings done, `each` of them a row, to rows done out of `total`."""
    return None if progress is None else lambda done: progress(done // each, total)


def need(index: int, row: Any, *fields: str) -> None:
    """DataError where the row lacks a field or holds something else than a text in it."""
    for field in fields:
        if not isinstance(row.get(field), str):
            found = ", ".join(map(str, row)) if field not in row else f"{field} is {row[field]!r:.40}"
            raise DataError(f'evaluation row {index}: no text in "{field}" (found: {found})')


def name(index: int, row: Any) -> str:
    """A row's own id, else its 0-based place."""
    return str(row.get("id", index))


def _encode(
    tokenizer: Any, pairs: Sequence[tuple[str, str]], instruction: str | None, template: str
) -> list[Encoded]:
    as_system = instruction is not None and knows_system(tokenizer, template)

    def messages(prompt: str, completion: str) -> tuple[Message, ...]:
        turns = (Message("user", prompt), Message("assistant", completion))
        if instruction is None:
            return turns
        if as_system:
            return (Message("system", instruction), *turns)
        return Message("user", f"{instruction}\n\n{prompt}"), turns[1]

    rows = [Row(str(i), i, "evaluation", messages(*pair), "chat", {}) for i, pair in enumerate(pairs)]
    return encode(rows, tokenizer, max_length=UNLIMITED, template=template)


def knows_system(tokenizer: Any, template: str) -> bool:
    """A template may refuse a system message, or leave it out without a word."""
    turns = (Message("user", "Why?"), Message("assistant", "Yes"))
    asked = [(Message("system", "Be brief."), *turns), turns]
    rows = [Row("", i, "evaluation", messages, "chat", {}) for i, messages in enumerate(asked)]
    try:
        with_it, without = encode(rows, tokenizer, max_length=UNLIMITED, template=template)
    except DataError:
        return False
    return with_it.ids != without.ids


def positions(model: Any) -> int:
    return getattr(model.config, "max_position_embeddings", None) or UNLIMITED
