"""A number never travels alone: estimates with the 95 % interval that their sample size allows.

Functions return None where there is nothing to estimate from (no trial, an absent class), never 0.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, stdev
from typing import Any

import numpy as np

Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value between the ends of its interval; the ends are None where one seed cannot tell them."""

    value: float
    low: float | None
    high: float | None
    n: int  # observations behind the value: rows, or seeds in a mean over seeds
    seeds: int | None = None  # seeds behind the value, where more than one run was made

    def __str__(self) -> str:
        """`0.912 [0.893, 0.931] (n=1200)`, or `(seeds=3)` for a mean over seeds."""
        around = "[no interval]" if self.low is None else f"[{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f} {around} ({f'n={self.n}' if self.seeds is None else f'seeds={self.seeds}'})"

    def as_dict(self) -> dict[str, float | int | None]:
        """What the report holds: value, low, high, n, and seeds where they were counted."""
        known = {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        return known if self.seeds is None else known | {"seeds": self.seeds}


def wilson(successes: int, n: int) -> Estimate | None:
    """A share (0 to 1) with Wilson's score interval (1927): never empty, not even at 0 or n of n."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return None
    share = successes / n
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    # The ends meet 0 and 1 exactly there; rounding would leave a trace of 1e-17.
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == n else middle + half
    return Estimate(share, low, high, n)


def bootstrap(
    values: Sequence[Any] | np.ndarray,
    statistic: Callable[..., Any],
    *,
    seed: int,
    draws: int = 1000,
) -> Estimate | None:
    """A statistic of rows with its percentile bootstrap interval (Efron 1979).

    `values` is (n,) or (n, …), one row each; whole rows are drawn with replacement, so what belongs
    together stays together. `statistic` takes such an array and gives a number, or None or NaN where it is
    undefined: such draws are left out. One that takes `axis`, as numpy's do, sees many draws at a time,
    with the same result. None where the statistic of `values` is itself undefined. An interval of no
    width (every draw alike, as at a share of 0 or 1) understates the doubt: use `wilson` for shares.
    """
    rows = np.asarray(values)
    value = _defined(statistic(rows)) if len(rows) else math.nan
    if math.isnan(value):
        return None
    random = np.random.default_rng(seed)
    at_once = rows.ndim == 1 and _takes_axis(statistic)
    drawn: list[float] = []
    per_chunk = max(1, 4_000_000 // rows.size)  # numbers held at a time, whatever the draws
    for start in range(0, draws, per_chunk):
        places = random.integers(0, len(rows), (min(per_chunk, draws - start), len(rows)))
        if at_once:
            drawn.extend(np.asarray(statistic(rows[places], axis=1), float).tolist())
        else:
            drawn.extend(_defined(statistic(rows[chosen])) for chosen in places)
    defined = [d for d in drawn if not math.isnan(d)]
    if not defined:
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return Estimate(value, float(low), float(high), len(rows))


def mean_over_seeds(values: Sequence[float]) -> Estimate | None:
    """The mean of one number per seed with Student's t interval; no interval from a single seed."""
    if not values:
        return None
    count, mean = len(values), fmean(values)
    if count == 1:
        return Estimate(mean, None, None, 1, seeds=1)
    half = student_t(0.975, count - 1) * stdev(values) / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half, count, seeds=count)


def over_seeds(estimates: Sequence[Estimate | None]) -> Estimate | None:
    """The mean over the seeds where there is an estimate; of one seed alone, that with the interval of its rows."""
    if len(estimates) == 1:
        return estimates[0]
    known = [e for e in estimates if e is not None]
    found = mean_over_seeds([e.value for e in known])
    if found is None or found.low != found.high or found.low is None:
        return found
    # Seeds that agree to the last digit (0 of 200 each) have no spread; the doubt that each has of its own remains.
    ends = [end for e in known for end in (e.low, e.high) if end is not None]
    if len(ends) < 2 * len(known):
        return replace(found, low=None, high=None)
    return replace(found, low=min(ends), high=max(ends))


def auc_interval(
    positives: Sequence[float] | np.ndarray, negatives: Sequence[float] | np.ndarray
) -> Estimate | None:
    """The area under the ROC curve of two samples of scores, larger expected among `positives`.

    Interval: DeLong's variance (1988) from the exact placements, in n log n, on the logit scale, which
    keeps it within 0 and 1. Where that variance is none (classes apart, all scores alike, a class of one
    row) it would claim certainty: there the interval is Newcombe's score interval (2006, method 5).
    """
    positives, negatives = np.asarray(positives, float), np.asarray(negatives, float)
    if not len(positives) or not len(negatives):
        return None
    n, pairs = len(positives) + len(negatives), len(positives) * len(negatives)
    wins = count_below(positives, negatives)  # (positives,)
    losses = count_below(negatives, positives)  # (negatives,)
    area = float(wins.sum()) / pairs
    variance = 0.0
    if min(len(positives), len(negatives)) > 1:
        by_positive, by_negative = wins / len(negatives), losses / len(positives)
        variance = float(by_positive.var(ddof=1) / len(positives) + by_negative.var(ddof=1) / len(negatives))
    if variance <= 1e-18 or not 0 < area < 1:
        return Estimate(area, *_newcombe(area, len(positives), len(negatives)), n)
    logit, half = math.log(area / (1 - area)), Z * math.sqrt(variance) / (area * (1 - area))
    return Estimate(area, _logistic(logit - half), _logistic(logit + half), n)


def count_below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each score, how many `others` are below it, ties counted half. Shape of `scores`; n log n.

    Halves add up without rounding, so sums of these are the same in any order.
    """
    ordered = np.sort(others)
    return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / 2


def student_t(probability: float, degrees: int) -> float:
    """The quantile of Student's t distribution, `probability` between 0 and 1."""
    from scipy.special import stdtrit

    if not 0 < probability < 1 or degrees < 1:
        raise ValueError(f"no t quantile for probability {probability}, {degrees} degrees of freedom")
    return float(stdtrit(degrees, probability))


def _newcombe(area: float, positives: int, negatives: int) -> tuple[float, float]:
    """All areas θ whose own standard error (Hanley & McNeil 1982) puts `area` within Z of them."""

    def too_far(theta: float) -> bool:
        others = (positives + negatives) / 2 - 1
        spread = 1 + others * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(area - theta) > Z * math.sqrt(theta * (1 - theta) * spread / (positives * negatives))

    def end(outer: float) -> float:
        inner = area
        if inner == outer:
            return outer
        for _ in range(60):
            middle = (inner + outer) / 2
            inner, outer = (inner, middle) if too_far(middle) else (middle, outer)
        return inner

    return end(0.0), end(1.0)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _defined(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _takes_axis(statistic: Callable[..., Any]) -> bool:
    try:
        return "axis" in inspect.signature(statistic).parameters
    except ValueError:  # some compiled functions do not say
        return False
