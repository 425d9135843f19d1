"""A cache with room holds what a plain one holds, whoever else touches it, and does not move what it holds."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import pad
from transformers import DynamicCache

from forgetfilter.guide.caches import ROOM, roomy


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
        cache.batch_select_indices(torch.tensor([1, 1]))
        cache.update(*new(2, 1, 3), 0)
    assert mine.get_seq_length() == 5
    same(mine, theirs)


@pytest.mark.parametrize("touched", [False, True])
def test_the_first_positions_are_forgotten_and_new_ones_follow(touched: bool):
    cache = roomy()
    keys, values = new(2, 6, 0)
    cache.update(keys, values, 0)
    layer = cache.layers[0]
    if touched:
        layer.keys, layer.values = keys.clone(), values.clone()
    layer.drop_first(4)
    more = new(2, 1, 1)
    got = cache.update(*more, 0)
    for mine, old, last in zip(got, (keys, values), more, strict=True):
        assert torch.equal(mine, torch.cat([old[..., 4:, :], last], dim=-2))


@pytest.mark.parametrize("lengths", [(3, 5), (5, 3), (4, 4)])
def test_rows_that_join_stand_behind_with_zeros_in_front_of_the_shorter_ones(lengths: tuple[int, int]):
    one, other = roomy(), roomy()
    states = [new(2, lengths[0], 0), new(1, lengths[1], 1)]
    one.update(*states[0], 0)
    other.update(*states[1], 0)
    one.layers[0].join(other.layers[0])
    at = one.layers[0].keys.data_ptr()
    expected = [
        torch.cat([pad(s, (0, 0, max(lengths) - s.shape[-2], 0)) for s in pair])
        for pair in zip(*states, strict=True)
    ]
    assert torch.equal(one.layers[0].keys, expected[0])
    assert torch.equal(one.layers[0].values, expected[1])
    last = new(3, 1, 2)
    assert torch.equal(one.update(*last, 0)[1], torch.cat([expected[1], last[1]], dim=-2))
    assert one.layers[0].keys.data_ptr() == at  # with room left
