"""Scores -> cut. A threshold is a function and a line in THRESHOLDS; none of them sees a label.

Scores are differences of memory: larger = forgotten more by the review, more likely unsafe. Rows with a
score above `drop_above` are dropped, above `flag_above` flagged for a person to look at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .records import Decision


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a threshold cuts and why."""

    drop_above: float | None  # None: nothing is dropped
    flag_above: float | None  # None: nothing is flagged; never above drop_above
    method: str
    why: str
    weak: bool = False  # the scores are too weak to cut: said with an exit code of its own
    estimated: Mapping[str, Any] = field(
        default_factory=lambda: {"unsafe_share": None, "precision": None, "recall": None}
    )

    def decide(self, score: float | None) -> Decision:
        """What becomes of a row with this score; a row without one is unscored, which is not zero."""
        if score is None:
            return "unscored"
        if self.drop_above is not None and score > self.drop_above:
            return "drop"
        return "flag" if self.flag_above is not None and score > self.flag_above else "keep"

    def reason(self, score: float) -> str:
        """One line for one row."""
        if self.drop_above is None:
            return f"score {score:.3g}; {self.why}"
        side = "above" if score > self.drop_above else "not above"
        near = ", but close to it" if self.decide(score) == "flag" else ""
        return f"score {score:.3g} is {side} the cut {self.drop_above:.3g}{near}"


def fixed(scores: np.ndarray, *, phi: float, **_: Any) -> Cut:
    """Drop above a given φ: the paper's threshold."""
    return Cut(phi, None, "fixed", f"φ = {phi:g}, as given")


def quantile(scores: np.ndarray, *, quantile: float, **_: Any) -> Cut:
    """Drop above a quantile of the scores: 0.8 drops the upper fifth, fewer where scores are equal."""
    value = float(np.quantile(scores, quantile, method="higher"))
    return Cut(value, None, "quantile", f"the {quantile:g} quantile of the scores, as given")


def auto(scores: np.ndarray, *, gain: float | None, phi: float, **_: Any) -> Cut:
    """Find the forgotten group without a knob, or say that there is none.

    A mixture of up to MOST_GROUPS normal groups is fitted to the scores (their number by BIC). The group that
    lost least shows how far rows merely fade. Groups whose mean lies above it by more than DISTINCT of its
    widths, and by more than SHARE_OF_GAIN of what the review taught a safe row (`gain`, in units of the score;
    φ where it is not known), are taken for unsafe. The cut is where the F1 expected under the mixture is best;
    rows below it that are at least FLAG likely to be unsafe are flagged. What the mixture expects is not given
    as an estimate: on real rows its precision was far above the measured one. Weak (nothing dropped, said so) where
    there are too few rows, all score alike, or three rows in four lost more than the middle safe row was taught.
    """
    n = len(scores)
    if n < FEWEST:
        return Cut(None, None, "auto", f"{n} scored rows are too few to tell groups apart", weak=True)
    if np.ptp(scores) < 1e-9:
        return Cut(None, None, "auto", "all rows score the same", weak=True)
    # A few extreme scores must not make a group of their own.
    clipped = np.clip(scores, *np.quantile(scores, [0.005, 0.995]))
    groups = min((_fit(clipped, k) for k in range(1, MOST_GROUPS + 1)), key=lambda g: g.bic)
    faded, quarter = float(groups.means[0]), float(np.quantile(scores, 0.25))
    if gain is not None and gain <= max(0.0, quarter):
        why = f"three rows in four lost {quarter:.3g} or more, the middle safe row gained {gain:.3g}: too weak to tell"
        return Cut(None, None, "auto", why, weak=True)
    margin = SHARE_OF_GAIN * gain if gain is not None else phi
    least = faded + max(DISTINCT * float(groups.widths[0]), margin)
    unsafe = groups.means > least
    if not unsafe.any():
        why = f"no group of rows was forgotten by more than {least:.3g} on average; rows fade by {faded:.3g}"
        return Cut(None, None, "auto", why)
    order = np.argsort(-scores, kind="stable")
    likely = groups.memberships(clipped)[:, unsafe].sum(1)[order]
    likely = np.minimum.accumulate(likely)  # never likelier at a lower score: a wide group has two tails
    dropped, found, total = np.arange(1, n + 1), np.cumsum(likely), likely.sum()
    # Equal scores fall on one side together, so only the last of them can be a cut.
    last = np.append(scores[order][1:] < scores[order][:-1], True)
    best = int(np.argmax(np.where(last, 2 * found / (dropped + total), -1)))
    low = float(scores[order][best + 1]) if best + 1 < n else float(scores[order][best]) - 1e-6
    cut = (float(scores[order][best]) + low) / 2
    doubtful = scores[order][(likely > FLAG) & (scores[order] <= cut)]
    flag = float(np.nextafter(doubtful.min(), -np.inf)) if len(doubtful) else None
    why = f"a group of about {groups.weights[unsafe].sum():.0%} of the rows lost more than the others faded"
    return Cut(cut, flag, "auto", why)


@dataclass(frozen=True, slots=True)
class _Groups:
    """A mixture of normal distributions, groups by rising mean; arrays are (groups,)."""

    weights: np.ndarray
    means: np.ndarray
    widths: np.ndarray
    bic: float

    def memberships(self, x: np.ndarray) -> np.ndarray:
        """(rows, groups): how likely each row belongs to each group; rows sum to 1."""
        logs = _log_densities(x, self.weights, self.means, self.widths)
        logs -= logs.max(1, keepdims=True)
        return np.exp(logs) / np.exp(logs).sum(1, keepdims=True)


def _fit(x: np.ndarray, k: int, rounds: int = 300) -> _Groups:
    """Expectation-maximisation from k quantiles; deterministic."""
    weights, means = np.full(k, 1 / k), np.quantile(x, (np.arange(k) + 0.5) / k)
    widths, narrowest, before = np.full(k, x.std() / k), 0.02 * x.std(), -math.inf
    for _ in range(rounds):
        logs = _log_densities(x, weights, means, widths)
        top = logs.max(1, keepdims=True)
        each = top[:, 0] + np.log(np.exp(logs - top).sum(1))
        likelihood = float(each.sum())
        belongs = np.exp(logs - each[:, None])
        sizes = belongs.sum(0) + 1e-9
        weights, means = sizes / sizes.sum(), belongs.T @ x / sizes
        widths = np.sqrt((belongs * (x[:, None] - means) ** 2).sum(0) / sizes) + narrowest
        if likelihood - before < 1e-5:
            break
        before = likelihood
    rising = np.argsort(means)
    bic = (3 * k - 1) * math.log(len(x)) - 2 * likelihood
    return _Groups(weights[rising], means[rising], widths[rising], bic)


def _log_densities(x: np.ndarray, weights: np.ndarray, means: np.ndarray, widths: np.ndarray) -> np.ndarray:
    z = (x[:, None] - means) / widths
    return np.log(weights) - np.log(widths) - 0.5 * z**2 - 0.5 * math.log(2 * math.pi)


def cut(
    name: str, scores: Mapping[str, float], *, phi: float, quantile: float, gain: float | None = None
) -> Cut:
    """Cut scores (row id -> score, unscored rows left out) by the threshold of this name. `gain` is what the
    review taught the middle safe row, in units of the score, None where it was not measured."""
    return THRESHOLDS[name](np.array(list(scores.values())), phi=phi, quantile=quantile, gain=gain)


FEWEST = 20  # scored rows that `auto` wants
MOST_GROUPS = 4
DISTINCT = 2.0  # widths of the group that lost least
SHARE_OF_GAIN = 0.25
FLAG = 0.25
THRESHOLDS = {"auto": auto, "fixed": fixed, "quantile": quantile}
