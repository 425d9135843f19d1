"""Batches of texts of like length."""

from __future__ import annotations

from collections.abc import Sequence


def length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Positions of `lengths`, shortest first, in batches of at most `batch_tokens` padded tokens (one row at least)."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and (len(batches[-1]) + 1) * lengths[i] <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
