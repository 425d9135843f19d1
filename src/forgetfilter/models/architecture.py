"""What a model's own code says of itself: what its forward takes, what its cache is called, whether it recurs."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

CACHE_NAMES = ("cache", "past_key_values", "cache_params")
RECURRENT = frozenset(
    {"conv", "linear_attention", "mamba", "recurrent", "hybrid", "hybrid_sliding"}
)  # layer types


def recurrent(model: Any) -> bool:
    """Whether the model keeps a state that cannot skip the padding of a batch."""
    inner = unwrapped(model)
    kinds = getattr(inner.config.get_text_config(decoder=True), "layer_types", None) or ()
    return bool(getattr(inner, "_is_stateful", False) or RECURRENT.intersection(kinds))


def cache_name(model: Any) -> str:
    """What the model's forward calls the cache of what it has read: `cache` since transformers 5.24, in its output
    too; `past_key_values` before; `cache_params` where it is a recurrent state."""
    known = forward_parameters(model)
    return next((name for name in CACHE_NAMES if name in known), "past_key_values")


def forward_parameters(model: Any) -> Collection[str]:
    """What the architecture's forward takes; an adapter's wrapper hides it behind **kwargs."""
    return inspect.signature(unwrapped(model).forward).parameters


def unwrapped(model: Any) -> Any:
    """The model itself, without the wrapper of an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
