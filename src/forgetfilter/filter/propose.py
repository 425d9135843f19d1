"""Which rows to ask a person about next: at random first, then those that the verdicts so far point at.

Compared with the rows in most doubt, spread out, and mixtures (uncertainty and diversity sampling, Settles 2009),
asking for the most unsafe ones finds the most unsafe rows; see benchmarks/RESULTS.md, "Vetted rows".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forgetfilter.filter import probe

RANDOM = 30  # rows drawn at random before any is proposed: they carry the estimates
ROUND = 10  # rows between two fits


def random_order(rows: int, seed: int) -> np.ndarray:
    """All row numbers in a random order; the first of them are the random part, whatever its size."""
    return np.random.default_rng(seed).permutation(rows)


def next_rows(
    states: np.ndarray,
    vetted: np.ndarray,
    unsafe: np.ndarray,
    *,
    count: int = ROUND,
    others: Sequence[np.ndarray] = (),
    leave_out: Sequence[int] = (),
) -> list[int]:
    """`count` rows without a verdict, those to ask first in front.

    `states` (rows, width) standardised; `vetted` and `unsafe` (vetted,) the verdicts so far. With two unsafe ones
    known, the rows that the probe finds most unsafe. Before, by turns: rows unlike the clean ones, rows like the
    one unsafe row, and the rankings of `others` (rows,), larger = ask first, NaN = last. `leave_out`: rows not to
    ask, such as unsure ones.
    """
    vetted, unsafe = np.asarray(vetted, int), np.asarray(unsafe, bool)
    asked = {*vetted.tolist(), *leave_out}
    if unsafe.sum() >= probe.CONSTANTS.fewest_unsafe and not unsafe.all():
        rankings = [probe.fitted(states, vetted, unsafe)]
    else:
        rankings = [probe.unlike_clean(states, vetted[~unsafe]), *others]
        if 0 < unsafe.sum() < len(unsafe):
            rankings.append(probe.fitted(states, vetted, unsafe))
    return _by_turns([_order(r) for r in rankings], asked, count)


def _order(scores: np.ndarray) -> list[int]:
    return np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable").tolist()


def _by_turns(orders: Sequence[Sequence[int]], asked: set[int], count: int) -> list[int]:
    """The first of each order in turn that is neither asked nor chosen yet."""
    left, chosen = [iter(o) for o in orders], []
    while len(chosen) < count and left:
        for order in list(left):
            row = next((r for r in order if r not in asked), None)
            if row is None:
                left.remove(order)
            elif len(chosen) < count:
                chosen.append(row)
                asked.add(row)
    return chosen
