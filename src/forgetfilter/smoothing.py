"""What a row lost, with what rows that say the same lost.

How much one row is forgotten is a noisy measurement. Rows of one kind share words, so what the others lost tells what
this one should have lost: ridge regression from words to loss, each row predicted by all others. The mean of both is
the score. Where words tell nothing of the loss, no kind of row was forgotten, and each row stands for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .rehearsal import counts, rarity
from .rendering import Encoded

BUCKETS = 2048  # of token ids: as good as 8,192, and the work grows with the square
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # of the ridge; rows have length 1
TELLING = 0.25  # the share of the variance that words must explain to count as much as the row itself
MOST_TOGETHER = 20_000  # rows that predict one another; more are dealt into as many blocks as that takes


class Smoothed(NamedTuple):
    """Scores by row id, in units of the signal; and how much the words tell."""

    scores: dict[str, float]
    explained: float  # share of the variance of the losses, bent as below; below 0: worse than their mean


def smoothed(lost: Mapping[str, float], rows: Sequence[Encoded]) -> Smoothed:
    """The mean of what each row lost and what the others let expect, both on a scale that is linear near 0 and
    logarithmic beyond (asinh of multiples of the typical loss), the expected at the spread of the measured.

    The expected counts in full where it explains TELLING of the variance, less where less. Rows that are not in `lost`
    (unscored) are left out. A second for 1,000 rows, a minute for each 20,000.
    """
    scored = [z for z in rows if z.id in lost]
    losses = np.array([lost[z.id] for z in scored])
    if len(losses) < 3 or np.ptp(losses) < 1e-9:
        return Smoothed(dict(lost), 0.0)
    scale = float(np.median(np.abs(losses[losses != 0])))
    own = np.arcsinh(losses / scale)
    tokens = [z.ids for z in scored]
    rare, expected, blocks = rarity(tokens, BUCKETS), np.empty_like(own), -(-len(own) // MOST_TOGETHER)
    for first in range(blocks):
        expected[first::blocks] = predicted(counts(tokens[first::blocks], rare), own[first::blocks])
    explained = 1 - float(((own - expected) ** 2).sum() / ((own - own.mean()) ** 2).sum())
    spread = float(expected.std())
    weight = min(1.0, max(0.0, explained) / TELLING) if spread else 0.0
    of_others = own.mean() + (expected - expected.mean()) * (own.std() / spread if spread else 0.0)
    both = (own + weight * of_others) / (1 + weight)
    return Smoothed(
        dict(zip((z.id for z in scored), (np.sinh(both) * scale).tolist(), strict=True)), explained
    )


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
