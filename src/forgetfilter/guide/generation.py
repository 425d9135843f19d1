"""Greedy answers to many prompts at once: what a model says when asked for a row's completion."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ModelError
from forgetfilter.guide.branches import ADAPTER, BASE, load_adapter
from forgetfilter.guide.decoding import Request, generate
from forgetfilter.guide.settings import GuideSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from forgetfilter.models.load import Loaded

SMALL = 1_000_000_000  # weights; in float32 they take 4 GB


def greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    *,
    batch_tokens: int = 8192,
    stop_ids: Collection[int],
    progress: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """The most likely next token, again and again, for each prompt; answers in the order of the prompts.

    `model` is a causal language model or an adapter's wrapper of one. `prompts` are token ids, at least one each.
    Answer i ends after `limits[i]` tokens (the length of the reference: what lies beyond it cannot raise the overlap)
    or before the first token in `stop_ids`, which is not part of it. `batch_tokens` bounds rows × (prompt + answer) of
    a batch, padding included, and changes nothing but speed in float32; coarser number formats may round a near tie the
    other way. `progress` is called after each batch with the answers done so far. Models with a recurrent state (Mamba
    and its kin) would read the padding of a batch: those answer one row at a time.

    ModelError where a prompt and its answer do not fit the model's positions.
    """
    if len(prompts) != len(limits):
        raise ValueError(f"{len(prompts)} prompts but {len(limits)} limits")
    if not all(prompts):
        raise ValueError("an empty prompt gives the model nothing to go on: begin it with a start token")
    _refuse_what_does_not_fit(model, prompts, limits)
    requests = [Request(prompt=p, limit=n) for p, n in zip(prompts, limits, strict=True)]
    made = generate(model, requests, stop_ids=stop_ids, batch_tokens=batch_tokens, progress=progress)
    return [answer.ids for [answer] in made]


def load_to_write(
    name: str, *, dtype: str = "auto", device: str = "auto", quantization: str = "none"
) -> Loaded:
    """A model loaded to write answers with. `auto` is float32 for a small model.

    Coarser formats round so much that an answer depends on the rows beside it in the batch; in float32 it does not,
    but for ties that are closer than rounding. Errors as of `models.load.load`.
    """
    from forgetfilter.models.load import load

    loaded = load(name, dtype=dtype, device=device, quantization=quantization)
    small = sum(p.numel() for p in loaded.model.parameters()) <= SMALL
    if dtype == "auto" and small and precision(loaded) != "float32":
        loaded = load(name, dtype="float32", device=device, quantization=quantization)
    return loaded


def precision(loaded: Loaded) -> str:
    """The number format that answers are written in, such as float32."""
    return str(loaded.dtype).removeprefix("torch.")


def number_format(model: Any) -> str:
    """The same of a model without its tokenizer."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


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


def load_guided(s: GuideSettings) -> tuple[Loaded, Any, tuple[str, str] | None]:
    """What the settings load, the model with its adapter, and the adapters of both branches where these guide."""
    loaded = load_to_write(s.model, dtype=s.dtype, device=s.device, quantization=s.quantization)
    model = load_adapter(loaded.model, Path(s.adapter)) if s.adapter else loaded.model
    return loaded, model, (ADAPTER, BASE) if s.guide_by == "adapter" else None
