"""Which attention a batch is read with, by the length of its rows."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from forgetfilter.models.hardware import PLAIN_UP_TO


@contextmanager
def attention_by_length(model: Any) -> Generator[Callable[[int], None]]:
    """Inside, what is given is called with the padded length of each batch before the model reads it.

    On a CPU short rows are read with plain attention and long ones with the fused; a model that came with another
    kind, or is elsewhere, keeps its own. Afterwards everything is as it was.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    came_with = getattr(inner.config, "_attn_implementation", None)
    here = next(model.parameters()).device.type == "cpu"
    chooses = here and came_with in ("eager", "sdpa") and getattr(inner, "_supports_sdpa", False)

    def choose(time: int) -> None:
        wanted = "eager" if time <= PLAIN_UP_TO else "sdpa"
        if chooses and inner.config._attn_implementation != wanted:
            inner.set_attn_implementation(wanted)

    try:
        yield choose
    finally:
        if chooses and inner.config._attn_implementation != came_with:
            inner.set_attn_implementation(came_with)


@contextmanager
def measuring(model: Any) -> Generator[Callable[[int], None]]:
    """`attention_by_length` with dropout off; the model trains on afterwards if it did before."""
    was_training = model.training
    model.eval()
    try:
        with attention_by_length(model) as attend:
            yield attend
    finally:
        model.train(was_training)
