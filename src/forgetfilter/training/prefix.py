"""What all rows of a batch begin with is read once for all of them, not once a row.

A chat template opens every row with the same turn: with SmolLM2's that is 30 tokens, half of a short row. Their keys
and values are the same for all rows, and what the rows ask of them adds up in the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forgetfilter.models.architecture import cache_name, unwrapped

if TYPE_CHECKING:
    import torch


def price_of_a_pass(model: Any) -> float:
    """What one more pass through the model costs beside its tokens, in tokens.

    Measured on a CPU with SmolLM2-135M: about 30 with an adapter, and 400 where every weight gets its gradient once
    more (130-210 with nano). A GPU computes a batch at once and has no use for smaller ones.
    """
    import torch

    weights = list(model.parameters())
    if weights[0].device.type != "cpu":
        return math.inf
    learned = sum(p.numel() for p in weights if p.requires_grad) / sum(p.numel() for p in weights)
    return 32 + 400 * learned * torch.is_grad_enabled()


def leading(ids: torch.Tensor, attention: torch.Tensor, first: int) -> int:
    """How many leading columns of (batch, time) hold the same token in every row, and lie before column `first`."""
    same = ((ids == ids[:1]) & (attention == 1)).all(0)[:first].long()
    return int(same.cumprod(0).sum())


def read_prefix(
    model: Any, inputs: Mapping[str, torch.Tensor], first: int, **wanted: Any
) -> tuple[int, dict[str, Any]]:
    """Read what the rows of a batch share before column `first`, where that saves more tokens than a pass costs.

    Returns how many columns that is, and the arguments by which the model then reads the other columns of all rows.
    `inputs` holds `input_ids` and `attention_mask`, each (batch, time), padded on the right; `wanted` is asked of both
    passes.
    """
    ids, attention = inputs["input_ids"], inputs["attention_mask"]
    rest = {"input_ids": ids, "attention_mask": attention, "use_cache": False, **wanted}
    inner = unwrapped(
        model.module if hasattr(model, "no_sync") else model
    )  # one of several processes is wrapped
    shared = leading(ids, attention, first)
    if (
        shared * (len(ids) - 1) <= price_of_a_pass(model)
        or _drops_out(model)
        or hasattr(inner, "_reads_whole")
    ):
        return 0, rest
    name = cache_name(inner)
    cache: Any = getattr(
        inner.get_decoder()(input_ids=ids[:1, :shared], use_cache=True, **wanted), name, None
    )
    if not _plain(cache):
        inner._reads_whole = True  # no need to try again with every batch
        return 0, rest
    cache.batch_repeat_interleave(len(ids))
    return shared, rest | {"input_ids": ids[:, shared:], name: cache}


def _plain(cache: Any) -> bool:
    """Whether every layer keeps all keys and values: a window or a recurrent state is left to the model."""
    from transformers.cache_utils import DynamicLayer

    return bool(getattr(cache, "layers", None)) and all(type(layer) is DynamicLayer for layer in cache.layers)


def _drops_out(model: Any) -> bool:
    """Whether rows would share what dropout takes from the prefix."""
    import torch

    return model.training and any(m.p > 0 for m in model.modules() if isinstance(m, torch.nn.Dropout))
