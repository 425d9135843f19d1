"""Greedy answers to many prompts at once: what a model says when asked for a row's completion."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def greedy(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    *,
    batch_tokens: int = 8192,
    stop_ids: Collection[int],
    progress: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """The most likely next token, again and again, for each prompt; answers in the order of the prompts.

    `model` is a causal language model or an adapter's wrapper of one. `prompts` are token ids, at least one
    each. Answer i ends after `limits[i]` tokens (the length of the
    reference: what lies beyond it cannot raise the overlap) or before the first token in `stop_ids`, which
    is not part of it. `batch_tokens` bounds rows × (prompt + answer) of a batch, padding included, and
    changes nothing but speed in float32; coarser number formats may round a near tie the other way.
    `progress` is called after each batch with the answers done so far. Models with a recurrent state
    (Mamba and its kin) read the padding of a batch: give those a `batch_tokens` of 1, one row a batch.

    ModelError where a prompt and its answer do not fit the model's positions.
    """
    import torch

    if len(prompts) != len(limits):
        raise ValueError(f"{len(prompts)} prompts but {len(limits)} limits")
    if not all(prompts):
        raise ValueError("an empty prompt gives the model nothing to go on: begin it with a start token")
    _refuse_what_does_not_fit(model, prompts, limits)
    pad = tokenizer.pad_token_id or 0  # masked out: any token does
    answers: list[list[int]] = [[] for _ in prompts]
    done = 0
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches(prompts, limits, batch_tokens):
                batch_prompts, batch_limits = [prompts[i] for i in batch], [limits[i] for i in batch]
                decoded = _decode(model, batch_prompts, batch_limits, frozenset(stop_ids), pad)
                for i, answer in zip(batch, decoded, strict=True):
                    answers[i] = answer
                done += len(batch)
                if progress is not None:
                    progress(done)
    finally:
        model.train(was_training)
    return answers


def _decode(
    model: Any, prompts: Sequence[Sequence[int]], limits: Sequence[int], stop_ids: Collection[int], pad: int
) -> list[list[int]]:
    """One batch, padded on the left so that every row's newest token stands in the last column."""
    import torch

    answers: list[list[int]] = [[] for _ in prompts]
    # Rows still being answered, by their place in the batch; rows asked for nothing never enter it.
    rows = [i for i, limit in enumerate(limits) if limit > 0]
    if not rows:
        return answers
    device = next(model.parameters()).device
    width = max(len(prompts[i]) for i in rows)
    ids = torch.tensor([[pad] * (width - len(prompts[i])) + list(prompts[i]) for i in rows], device=device)
    mask = torch.tensor(
        [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in rows], device=device
    )
    positions = (mask.cumsum(-1) - 1).clamp(min=0)  # a row's first own token has position 0, padded or not
    known = forward_parameters(model)
    only_last = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
    cache, done = None, set[int]()
    while True:
        where = {"position_ids": positions} if "position_ids" in known else {}
        output = model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **where, **only_last
        )
        cache = output.past_key_values
        chosen = output.logits[:, -1].argmax(-1)  # (rows,)
        for i, token in zip(rows, chosen.tolist(), strict=True):
            if i in done:  # kept in the batch only because taking it out was not worth it yet
                continue
            if token not in stop_ids:
                answers[i].append(token)
            if token in stop_ids or len(answers[i]) == limits[i]:
                done.add(i)
        places = [place for place, i in enumerate(rows) if i not in done]
        if not places:
            return answers
        if 2 * len(places) <= len(rows) and hasattr(cache, "batch_select_indices"):
            keep = torch.tensor(places, device=device)
            cache.batch_select_indices(keep)
            rows, chosen, mask, positions = (
                [rows[p] for p in places],
                chosen[keep],
                mask[keep],
                positions[keep],
            )
        ids, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)  # (rows, time)


def stop_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that end an answer: the tokenizer's end of sequence and padding, and the ends of turns that chat
    models list in their generation settings besides."""
    listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = {
        *(listed if isinstance(listed, list) else [listed]),
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    }
    return {i for i in ids if i is not None}


def batches(
    prompts: Sequence[Sequence[int]], limits: Sequence[int], batch_tokens: int
) -> Iterator[list[int]]:
    """Places of prompts of like length, longest first: a batch too large for memory fails at once."""
    batch: list[int] = []
    longest_prompt = longest_answer = 0
    for i in sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), limits[i]), reverse=True):
        wider_prompt = max(longest_prompt, len(prompts[i]))
        wider_answer = max(longest_answer, limits[i])
        if batch and (len(batch) + 1) * (wider_prompt + wider_answer) > batch_tokens:
            yield batch
            batch, wider_prompt, wider_answer = [], len(prompts[i]), limits[i]
        batch.append(i)
        longest_prompt, longest_answer = wider_prompt, wider_answer
    if batch:
        yield batch


def forward_parameters(model: Any) -> Collection[str]:
    """What the architecture's forward takes; an adapter's wrapper hides it behind **kwargs."""
    return inspect.signature(unwrapped(model).forward).parameters


def unwrapped(model: Any) -> Any:
    """The model itself, without the wrapper of an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _refuse_what_does_not_fit(model: Any, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        return
    for i, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        if limit > 0 and len(prompt) + limit - 1 > positions:  # the last token is never read back
            raise ModelError(
                f"prompt {i} has {len(prompt)} tokens and may be answered with {limit}, but the model has "
                f"{positions} positions: shorten the prompt or lower max_length"
            )
