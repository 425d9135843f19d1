"""Where attention keeps what it has read: keys and values with room for the tokens to come.

Imports transformers; to be imported where a model is at hand.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 16  # positions made in advance; more are copied with every row that leaves, fewer are soon used up


class RoomyLayer(DynamicLayer):
    """Keys and values (rows, heads, positions, width) as views of larger tensors, into which new tokens are written.

    A `DynamicLayer` copies everything it holds at every step; this one where rows leave or join, and where the room
    is used up. Whoever sets `keys` and `values` from outside is noticed: what was set is copied once.
    """

    keys: torch.Tensor  # ty: ignore[incompatible-mutable-override]
    values: torch.Tensor  # ty: ignore[incompatible-mutable-override]
    _made: tuple[torch.Tensor, ...] = ()  # the larger tensors: of keys, of values
    _first = _end = 0  # the positions of them that are shown
    _shown: torch.Tensor | None = None  # `keys` as they were left here

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append new positions; returns all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[-2]
        if self.get_seq_length() == 0:
            self._make((key_states, value_states), len(key_states), new)
        elif self.keys is not self._shown or self._end + new > self._made[0].shape[-2]:
            self._gather(self, more=new)
        for made, states in zip(self._made, (key_states, value_states), strict=True):
            made[..., self._end : self._end + new, :] = states
        return self._show(self._first, self._end + new)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows, in this order."""
        self._own()
        self._made = tuple(made[indices] for made in self._made)  # the room too, or all is copied once more
        self._show(self._first, self._end)

    def drop_first(self, positions: int) -> None:
        """Forget the first `positions`."""
        self._own()
        self._show(self._first + positions, self._end)

    def join(self, other: RoomyLayer) -> None:
        """The rows of `other` behind these. Those with fewer positions get zeros in front, which are to be masked."""
        self._gather(self, other)

    def _own(self) -> None:
        if self.keys is not self._shown:
            self._gather(self)

    def _gather(self, *layers: RoomyLayer, more: int = 0) -> None:
        """Their rows under one another, in larger tensors made anew."""
        held = [(layer.keys, layer.values) for layer in layers]
        width = max(keys.shape[-2] for keys, _ in held)
        self._make(held[0], sum(len(keys) for keys, _ in held), width + more)
        row = 0
        for pair in held:
            for made, states in zip(self._made, pair, strict=True):
                mine, gap = made[row : row + len(states)], width - states.shape[-2]
                mine[..., :gap, :] = 0  # masked, but what is not a number would come through
                mine[..., gap:width, :] = states
            row += len(pair[0])
        self._show(0, width)

    def _make(self, like: tuple[torch.Tensor, torch.Tensor], rows: int, width: int) -> None:
        self._made = tuple(each.new_empty(rows, each.shape[1], width + ROOM, each.shape[-1]) for each in like)
        self._first = self._end = 0

    def _show(self, first: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (made[..., first:end, :] for made in self._made)
        self._first, self._end = first, end
        self.keys, self.values, self._shown = keys, values, keys
        return keys, values


def roomy() -> Cache:
    """An empty cache of such layers, as many as the model asks for; none has a sliding window."""
    return Cache(layer_class_to_replicate=RoomyLayer)
