"""A cache with room holds what a plain one holds, whoever else touches it, and does not move what it holds."""

from __future__ import annotations

import torch
from transformers import DynamicCache

from forgetfilter.caches import ROOM, roomy


def new(rows: int, tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(rows, 2, tokens, 4, generator=made) for _ in range(2))
    return keys, values


def same(one: object, other: object) -> None:
    for mine, theirs in zip(one.layers, other.layers, strict=True):  # ty: ignore[unresolved-attribute]
        assert torch.equal(mine.keys, theirs.keys)
        assert torch.equal(mine.values, theirs.values)


def test_it_holds_what_a_plain_cache_holds_over_many_steps_and_layers():
    mine, theirs = roomy(), DynamicCache()
    for step in range(2 * ROOM + 3):  # beyond the room, twice
        for layer in range(2):
            keys, values = new(3, 5 if step == 0 else 1, 10 * step + layer)
            got, expected = (cache.update(keys, values, layer) for cache in (mine, theirs))
            assert torch.equal(got[0], expected[0])
            assert torch.equal(got[1], expected[1])
    assert mine.get_seq_length() == 5 + 2 * ROOM + 2


def test_a_new_token_is_written_where_room_was_left():
    cache = roomy()
    cache.update(*new(2, 3, 0), 0)
    at = cache.layers[0].keys.data_ptr()
    for step in range(ROOM):
        cache.update(*new(2, 1, step), 0)
        assert cache.layers[0].keys.data_ptr() == at
    cache.update(*new(2, 1, 99), 0)
    assert cache.layers[0].keys.data_ptr() != at


def test_rows_picked_cut_and_set_from_outside_are_what_it_goes_on_from():
    mine, theirs = roomy(), DynamicCache()
    for cache in (mine, theirs):
        cache.update(*new(3, 6, 0), 0)
        cache.batch_select_indices(torch.tensor([2, 0, 2]))
        cache.update(*new(3, 1, 1), 0)
        cache.layers[0].keys = cache.layers[0].keys[..., 2:, :]
        cache.layers[0].values = cache.layers[0].values[..., 2:, :]
        cache.update(*new(3, 1, 2), 0)
        cache.crop(-2)
        cache.update(*new(3, 1, 3), 0)
    assert mine.get_seq_length() == 5
    same(mine, theirs)
