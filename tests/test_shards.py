"""Measuring in pieces: what is kept, skipped, refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tiny import llama, mixed_rows

from forgetfilter.errors import ForgetfilterError
from forgetfilter.filter import shards
from forgetfilter.filter.signals import length_batches, token_memory
from forgetfilter.filter.states import Readings, read_rows, users_words


def test_pieces_hold_every_row_once_in_whole_batches() -> None:
    lengths = [7 + (i * 37) % 90 for i in range(5000)]
    found = shards.pieces(lengths, 512)
    assert sorted(i for piece in found for i in piece) == [*range(5000)]
    batches = length_batches(lengths, 512)  # about 500: pieces of 15 or 16 batches
    assert [i for b in batches for i in b] == [i for piece in found for i in piece]
    assert 32 <= len(found) <= 40
    for piece in found:  # a piece, batched by itself, makes the batches that it was made of
        again = length_batches([lengths[i] for i in piece], 512)
        assert [[piece[k] for k in b] for b in again] == [b for b in batches if b[0] in set(piece)]


def test_few_batches_are_a_piece_each() -> None:
    assert [len(p) for p in shards.pieces([10] * 9, 30)] == [3, 3, 3]


def test_what_is_there_is_not_measured_again(tmp_path: Path) -> None:
    ids, parts = [*"abcdef"], [[0, 3], [1, 2], [4, 5]]
    seen: list[list[int]] = []

    def work(some: Sequence[int]) -> shards.Columns:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append([*some])
        return {"value": np.array([10.0 * i for i in some])}

    with pytest.raises(KeyboardInterrupt):
        shards.measure(tmp_path, ids, parts, work, lambda done: None)
    assert seen == [[0, 3], [1, 2]]
    done: list[int] = []
    seen.clear()
    shards.measure(tmp_path, ids, parts, work, done.append)
    assert (seen, done) == ([[4, 5]], [6])
    assert [c["value"].tolist() for c in shards.kept(tmp_path, ids, parts)] == [[0, 30], [10, 20], [40, 50]]


def test_pieces_of_other_rows_are_refused(tmp_path: Path) -> None:
    shards.measure(tmp_path, ["a"], [[0]], lambda some: {"value": np.zeros(1)}, lambda done: None)
    with pytest.raises(ForgetfilterError, match="measurements of other rows lie there; remove the folder"):
        list(shards.kept(tmp_path, ["b"], [[0]]))


def test_rows_are_measured_in_pieces_as_in_one_go() -> None:
    rows, model = mixed_rows(23), llama()
    whole, words = token_memory(model, rows, batch_tokens=64), users_words(rows)
    readings = read_rows(model, rows, batch_tokens=64)
    for piece in shards.pieces([len(r.ids) for r in rows], 64):
        some = [rows[i] for i in piece]
        for i, memory in zip(piece, token_memory(model, some, batch_tokens=64), strict=True):
            np.testing.assert_allclose(memory.logp, whole[i].logp, atol=1e-5)
        part = read_rows(model, some, words=[words[i] for i in piece], batch_tokens=64)
        for name in Readings.__slots__:
            np.testing.assert_allclose(getattr(part, name), getattr(readings, name)[piece], atol=1e-5)
