"""Which attention a batch is read with, by the length of its rows."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

# Padded tokens of a row up to which plain attention is used for small models on a CPU. SmolLM2-135M and nano on one
# thread of a CPU with AMX, batches of 1,024 tokens: the plain attention takes 0.75-0.82 of the fused one's time to
# learn from rows of 64 and 128, 0.85-0.99 at 192, 0.95-1.17 at 256, 1.3-1.7 at 1,024; to read them, 0.8-1.07 up to
# 192, 1.4-1.9 at 1,024. Its scores take rows x heads x length x length numbers in every layer.
PLAIN_UP_TO = 192


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
