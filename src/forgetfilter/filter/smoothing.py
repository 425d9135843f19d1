"""What a row lost, with what rows that say the same lost.

How much one row is forgotten is a noisy measurement. Rows of one kind share words, so what the others lost tells what
this one should have lost: ridge regression from words to loss, each row predicted by all others. The mean of both is
the score. Where the words of the answers tell nothing of the loss, no kind of answer was forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from forgetfilter.filter.rehearsal import counts, rarity
from forgetfilter.filter.thresholds import typical
from forgetfilter.models.rendering import Encoded

BUCKETS = 2048  # of token ids: as good as 8,192, and the work grows with the square
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # of the ridge; rows have length 1
ENOUGH = 1 / 3
TELLING = 0.25  # the share of the variance that words must explain to count as much as the row itself
MOST_TOGETHER = 20_000  # rows that predict one another; more are dealt into as many blocks as that takes


def smoothed(lost: Mapping[str, float], rows: Sequence[Encoded]) -> dict[str, float]:
    """Row id -> the mean of what the row lost and what the others let expect, both bent as in `_bent`, the expected at
    the spread of the measured; in units of the signal.

    The expected counts in full where it explains TELLING of the variance, less where less. Rows that are not in `lost`
    (unscored) are left out. A second for 1,000 rows, a minute for each 20,000.
    """
    scored = [z for z in rows if z.id in lost]
    losses = np.array([lost[z.id] for z in scored])
    if _alike(losses):
        return dict(lost)
    own, scale = _bent(losses)
    expected = _expected([z.ids for z in scored], own)
    spread = float(expected.std())
    weight = min(1.0, max(0.0, _share(own, expected)) / TELLING) if spread else 0.0
    of_others = own.mean() + (expected - expected.mean()) * (own.std() / spread if spread else 0.0)
    both = (own + weight * of_others) / (1 + weight)
    return dict(zip((z.id for z in scored), (np.sinh(both) * scale).tolist(), strict=True))


def explained(lost: Mapping[str, float], rows: Sequence[Encoded]) -> float:
    """The share of the variance of what rows lost or gained that the words of their completions predict, each row by
    all others; below 0 where worse than their mean. What is asked tells the topic, which a review wears as a whole;
    what is answered tells a kind of answer from others. Losses and gains above ENOUGH of what the typical forgotten row
    lost count alike: whether a row was forgotten is asked, not how much.
    """
    scored = [z for z in rows if z.id in lost]
    losses = np.array([lost[z.id] for z in scored])
    if not (losses > 0).any():
        return 0.0
    most = ENOUGH * typical(losses)
    capped = np.clip(losses, -most, most)
    if _alike(capped):
        return 0.0
    answers = [[token for token, answered in zip(z.ids, z.scored, strict=True) if answered] for z in scored]
    return _share(capped, _expected(answers, capped))


def _alike(losses: np.ndarray) -> bool:
    return len(losses) < 3 or bool(np.ptp(losses) < 1e-9)


def _bent(losses: np.ndarray) -> tuple[np.ndarray, float]:
    """Losses on a scale that is linear near 0 and logarithmic beyond (asinh of multiples of their median size), and
    that size."""
    scale = float(np.median(np.abs(losses[losses != 0])))
    return np.arcsinh(losses / scale), scale


def _expected(texts: Sequence[Sequence[int]], values: np.ndarray) -> np.ndarray:
    """(texts,): each of `values` as the words of the other texts predict it."""
    rare, expected, blocks = rarity(texts, BUCKETS), np.empty_like(values), -(-len(values) // MOST_TOGETHER)
    for first in range(blocks):
        expected[first::blocks] = predicted(counts(texts[first::blocks], rare), values[first::blocks])
    return expected


def _share(values: np.ndarray, expected: np.ndarray) -> float:
    return 1 - float(((values - expected) ** 2).sum() / ((values - values.mean()) ** 2).sum())


def predicted(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(rows,): each of `values`, (rows,), as ridge regression on `features`, (rows, features), predicts it from the
    others. The penalty is the one with the least error.

    Leave-one-out in closed form (Allen 1974): the error of a row left out is its error when fitted, divided by one
    minus its leverage.
    """
    centre = values - values.mean()
    directions, sizes, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
    along = directions.T @ centre
    missed = []
    for penalty in PENALTIES:
        kept = sizes**2 / (sizes**2 + penalty)
        leverage = directions**2 @ kept + 1 / len(values)
        missed.append((centre - directions @ (kept * along)) / (1 - leverage))
    return values - min(missed, key=lambda m: float(m @ m))
