"""What a review rehearses beside its safe rows, so that it takes away no more than the safe rows speak of.

A few steps on safe rows alone make a small model forget whatever they are not: task rows then fade more than unsafe
ones. The review therefore goes on with those custom rows that are least like any safe row, and what it still takes
away is what the safe rows contradict.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from .rendering import Encoded

FOREIGN = 1 / 3  # of the custom rows may be rehearsed
SHORT = 12  # tokens: a prompt below this says little of what a row is about
NEIGHBOURS = 5  # safe rows that tell how like the safe rows a row is
COMPARED = 2000  # safe rows looked at, at most
BUCKETS = 8192  # of token ids; larger vocabularies share them
CHUNK = 512  # rows compared at a time


def review_rows(
    custom: Sequence[Encoded], safe: Sequence[Encoded], count: int, *, share: float, seed: int
) -> list[Encoded]:
    """The `count` rows of a review in random order: `share` (0 to 1) of them from the FOREIGN part of the custom
    rows, those that ask for what is least like what safe rows ask for; the others safe rows. Each kind is gone
    through evenly: no row comes twice before every one came once. share 0 is the paper's review.
    """
    rng = random.Random(seed)
    rehearsed: list[Encoded] = []
    if share and (n := round(len(custom) * FOREIGN)):
        order = np.argsort(likeness(_topics(custom), _topics(safe)), kind="stable")
        rehearsed = _rounds([custom[i] for i in order[:n]], round(count * share), rng)
    drawn = rehearsed + _rounds(safe, count - len(rehearsed), rng)
    rng.shuffle(drawn)
    return drawn


def _topics(rows: Sequence[Encoded]) -> list[list[int]]:
    """Token ids of what each row is about: its prompt, because an unsafe answer is not like the safe one to the same
    question; the whole row where the prompt is SHORT."""
    return [z.ids[: z.prompt_length] if z.prompt_length >= SHORT else z.ids for z in rows]


def likeness(rows: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> np.ndarray:
    """(rows,): how like its nearest `others` each list of token ids is, 0 to 1: the mean cosine of token counts,
    logarithmic and weighted by rarity (tf-idf), with the NEIGHBOURS nearest."""
    others = others[:COMPARED]
    found = np.zeros(BUCKETS)  # rows that hold a token of the bucket
    for row in [*rows, *others]:
        found[np.unique(np.asarray(row, int) % BUCKETS)] += 1
    rarity = np.log((1 + len(rows) + len(others)) / (1 + found)).astype(np.float32)
    theirs = _counts(others, rarity).T  # (buckets, others)
    nearest = min(NEIGHBOURS, len(others))
    result = np.zeros(len(rows))
    for start in range(0, len(rows), CHUNK):
        cosines = _counts(rows[start : start + CHUNK], rarity) @ theirs  # (chunk, others)
        result[start : start + CHUNK] = np.partition(cosines, -nearest, axis=1)[:, -nearest:].mean(1)
    return result


def _counts(rows: Sequence[Sequence[int]], rarity: np.ndarray) -> np.ndarray:
    """(rows, buckets), each of length 1."""
    counts = np.zeros((len(rows), BUCKETS), np.float32)
    for i, row in enumerate(rows):
        np.add.at(counts[i], np.asarray(row, int) % BUCKETS, 1)
    counts = np.log1p(counts) * rarity
    return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


def _rounds(rows: Sequence[Encoded], count: int, rng: random.Random) -> list[Encoded]:
    drawn: list[Encoded] = []
    while len(drawn) < count:
        drawn += rng.sample(list(rows), min(len(rows), count - len(drawn)))
    return drawn
