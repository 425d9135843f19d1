"""Where attention keeps what it has read: keys and values with room for the tokens to come.

Imports transformers; to be imported where a model is at hand.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # positions made in advance; what they cost in memory is a small part of any answer


class RoomyLayer(DynamicLayer):
    """Keys and values as views of larger tensors, into which a new token is written: a `DynamicLayer` copies
    everything it holds at every step. Whoever sets `keys` and `values` anew is noticed, and makes it copy once."""

    _made: tuple[torch.Tensor, ...] = ()  # (rows, heads, positions and room, width), keys and values
    _shown: torch.Tensor | None = None  # `keys` as they were left here

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append (rows, heads, new positions, width) of each; returns all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if self.keys is not self._shown or after > self._made[0].shape[-2]:
            self._made = tuple(
                new.new_empty(*new.shape[:2], after + ROOM, new.shape[-1])
                for new in (key_states, value_states)
            )
            if self.keys is not None and self.values is not None and before:
                self._made[0][..., :before, :] = self.keys
                self._made[1][..., :before, :] = self.values
        for made, new in zip(self._made, (key_states, value_states), strict=True):
            made[..., before:after, :].copy_(new)
        self.keys, self.values = (made[..., :after, :] for made in self._made)
        self._shown = self.keys
        return self.keys, self.values


def roomy() -> Cache:
    """An empty cache of such layers, as many as the model asks for; none has a sliding window."""
    return Cache(layer_class_to_replicate=RoomyLayer)
