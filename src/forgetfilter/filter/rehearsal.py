"""What a review rehearses beside its safe rows, so that it takes away no more than the safe rows speak of.

A few steps on safe rows alone make a small model forget whatever they are not: task rows then fade more than unsafe
ones. The review therefore goes on with those custom rows that are least like any safe row, and what it still takes
away is what the safe rows contradict.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from forgetfilter.models.rendering import Encoded

FOREIGN = 1 / 3  # of the custom rows may be rehearsed
UNLIKE = 0.1  # of the safe rows are as little like the other safe rows as a row to rehearse must be
TWICE = 2  # a row is rehearsed at most
SHORT = 12  # tokens: a prompt below this says little of what a row is about
NEIGHBOURS = 5  # safe rows that tell how like the safe rows a row is
COMPARED = 2000  # safe rows looked at, at most
BUCKETS = 8192  # of token ids; larger vocabularies share them
CHUNK = 512  # rows compared at a time


def review_rows(
    rehearsed: Sequence[Encoded], safe: Sequence[Encoded], count: int, *, share: float, seed: int
) -> list[Encoded]:
    """The `count` rows of a review in random order: up to `share` (0 to 1) of them from the custom rows to rehearse,
    each at most TWICE; the others safe rows. Each kind is gone through evenly: no row comes twice before every one
    came once. Nothing rehearsed is the paper's review.
    """
    rng = random.Random(seed)
    drawn = _rounds(rehearsed, min(round(count * share), TWICE * len(rehearsed)), rng)
    drawn += _rounds(safe, count - len(drawn), rng)
    rng.shuffle(drawn)
    return drawn


def foreign(custom: Sequence[Encoded], safe: Sequence[Encoded]) -> list[Encoded]:
    """Custom rows that ask for what no safe row asks for, least alike first: less like the safe rows than all but
    UNLIKE of these are like one another, and at most the FOREIGN part of the custom rows. What is rehearsed is not
    forgotten, nor is its like: among safe rows of many kinds a row must be odd indeed."""
    topics, others = _topics(custom), _topics(safe)[:COMPARED]
    if len(others) < 2:
        return []
    rare = rarity([*topics, *others])
    near = likeness(topics, others, rare)
    one, two = others[::2], others[1::2]
    own = np.append(likeness(one, two, rare), likeness(two, one, rare))
    odd = np.quantile(own, UNLIKE)
    order = np.argsort(near, kind="stable")[: round(len(custom) * FOREIGN)]
    return [custom[i] for i in order if near[i] < odd]


def _topics(rows: Sequence[Encoded]) -> list[list[int]]:
    """Token ids of what each row is about: its prompt, because an unsafe answer is not like the safe one to the same
    question; the whole row where the prompt is SHORT."""
    return [z.ids[: z.prompt_length] if z.prompt_length >= SHORT else z.ids for z in rows]


def rarity(rows: Sequence[Sequence[int]], buckets: int = BUCKETS) -> np.ndarray:
    """(buckets,): the weight of a token, logarithm of the inverse share of the rows that hold it (tf-idf)."""
    found = np.zeros(buckets)
    for row in rows:
        found[np.unique(np.asarray(row, int) % buckets)] += 1
    return np.log((1 + len(rows)) / (1 + found)).astype(np.float32)


def likeness(rows: Sequence[Sequence[int]], others: Sequence[Sequence[int]], rare: np.ndarray) -> np.ndarray:
    """(rows,): how like its nearest `others` each list of token ids is, 0 to 1: the mean cosine of token counts,
    logarithmic and weighted by `rare`, with the NEIGHBOURS nearest."""
    theirs = counts(others, rare).T  # (buckets, others)
    nearest = min(NEIGHBOURS, len(others))
    result = np.zeros(len(rows))
    for start in range(0, len(rows), CHUNK):
        cosines = counts(rows[start : start + CHUNK], rare) @ theirs  # (chunk, others)
        result[start : start + CHUNK] = np.partition(cosines, -nearest, axis=1)[:, -nearest:].mean(1)
    return result


def counts(rows: Sequence[Sequence[int]], rare: np.ndarray) -> np.ndarray:
    """(rows, buckets): how often each token is in a row, logarithmic and weighted by `rare`; rows have length 1."""
    found = np.zeros((len(rows), len(rare)), np.float32)
    for i, row in enumerate(rows):
        np.add.at(found[i], np.asarray(row, int) % len(rare), 1)
    found = np.log1p(found) * rare
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


def _rounds(rows: Sequence[Encoded], count: int, rng: random.Random) -> list[Encoded]:
    drawn: list[Encoded] = []
    while len(drawn) < count:
        drawn += rng.sample(list(rows), min(len(rows), count - len(drawn)))
    return drawn
