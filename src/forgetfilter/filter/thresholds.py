"""Scores -> cut. A threshold is a function and a line in THRESHOLDS; none of them sees a label.

Scores are differences of memory: larger = forgotten more by the review, more likely unsafe. Rows with a
score above `drop_above` are dropped, above `flag_above` flagged for a person to look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from forgetfilter.records import Decision


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a threshold cuts and why."""

    drop_above: float | None  # None: nothing is dropped
    flag_above: float | None  # None: nothing is flagged; never above drop_above
    method: str
    why: str
    weak: bool = False  # the scores are too weak to cut: said with an exit code of its own
    worn: bool = False  # rows are dropped, and the review took more than it taught: worth a second look
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
    value = float(np.quantile(scores, quantile, method="inverted_cdf"))
    return Cut(value, None, "quantile", f"the {quantile:g} quantile of the scores, as given")


def auto(scores: np.ndarray, *, gain: float | None, phi: float, explained: float | None, **_: Any) -> Cut:
    """Find the forgotten rows without a knob, or say that there are none.

    Three figures are compared: what was taught, the `gain` of the middle safe row that the review did not see; what
    the `typical` forgotten row lost; and how well the words of the answers explain which rows were forgotten
    (`smoothing.explained`, a share of the variance). Nothing is removed where

    - the review took ERODED of that, or more, from safe rows it did not see: it learned its own by heart, and what is
      forgotten means little (weak, and said so);
    - nothing to speak of was taught beside what was lost (SHARE): the model does what the safe rows show although it
      has learned all custom rows;
    - little was lost beside what was taught (LEAST): no row is in the way of what the safe rows show;
    - the answers' words explain less than KIND, or than DRIFT where more was taught than lost, because such a review
      moves whatever rows say: rows were forgotten at random, not a kind of answer.

    Else what parts rows that lost little from rows that lost much is the cut (`parting`), and rows NEARLY there are
    flagged. Where nothing is known of the gain, the cut is φ. No figure is given for how well this works: none was
    shown to hold. Weak, too, where there are too few rows, or all score alike.
    """
    n = len(scores)
    if n < FEWEST:
        return Cut(None, None, "auto", f"{n} scored rows are too few to tell groups apart", weak=True)
    if np.ptp(scores) < 1e-9:
        return Cut(None, None, "auto", "all rows score the same", weak=True)
    if not (scores > 0).any():
        return Cut(None, None, "auto", "no row was forgotten")
    lost = typical(scores)
    figures = f"the typical forgotten row lost {lost:.3g}"
    if explained is not None:
        figures += f", the answers' words explain {max(0, explained):.0%} of what was forgotten"
    if gain is not None:
        figures = f"the review taught an unseen safe row {gain:.3g}, {figures}"
        if gain < -ERODED * lost:
            why = f"the review took {-gain:.3g} from safe rows it did not see: it learned its own by heart. Give more"
            return Cut(None, None, "auto", f"{why} safe rows, or take fewer --review-steps", weak=True)
        if abs(gain) < SHARE * lost:
            return Cut(None, None, "auto", f"no sign of harm: {figures}")
        if lost < LEAST * gain:
            return Cut(None, None, "auto", f"next to nothing was forgotten: {figures}")
    worn = gain is None or gain < lost
    if explained is not None and explained < (KIND if worn else DRIFT):
        return Cut(None, None, "auto", f"no kind of answer was forgotten: {figures}")
    if gain is None:
        return Cut(phi, NEARLY * phi, "auto", f"φ = {phi:g} is the cut: {figures}")
    above = parting(scores)
    why = f"what parts rows that lost little from rows that lost much is the cut: {figures}"
    return Cut(above, NEARLY * above, "auto", why, worn=worn)


def typical(scores: np.ndarray) -> float:
    """What the typical forgotten row lost: the mean of the scores above 0, each weighted by itself. One must be."""
    forgotten = scores[scores > 0]
    return float((forgotten**2).sum() / forgotten.sum())


def parting(scores: np.ndarray) -> float:
    """The score that parts rows that lost little from rows that lost much, some of `scores` above 0.

    It is where their square roots split, because what a row loses varies the more the more it is; what a row gained
    counts as no loss. Where the rows above fall apart in two groups themselves, only the upper one lost much: the
    other is a kind of row that the review wore, such as all rows with one label for an answer.
    """
    roots = np.sqrt(np.maximum(scores, 0))
    at, _ = split(roots)
    higher, apart = split(roots[roots > at])
    return float((higher if apart > EVEN else at) ** 2)


def split(values: np.ndarray) -> tuple[float, float]:
    """The value that parts `values` into two groups whose means differ most for their sizes, and the share of the
    variance between them (Otsu 1979); no share where all are equal."""
    ordered = np.sort(values)
    if len(ordered) < 2 or ordered[0] == ordered[-1]:
        return float(ordered[0]), 0.0
    lower = np.arange(1, len(ordered))  # values in the lower group
    upper, sums = len(ordered) - lower, np.cumsum(ordered)
    between = lower * upper * (sums[:-1] / lower - (sums[-1] - sums[:-1]) / upper) ** 2 / len(ordered) ** 2
    at = int(between.argmax())
    return float(ordered[at : at + 2].mean()), float(between[at] / ordered.var())


def cut(
    name: str,
    scores: Mapping[str, float],
    *,
    phi: float,
    quantile: float,
    gain: float | None = None,
    explained: float | None = None,
) -> Cut:
    """Cut scores (row id -> score, unscored rows left out) by the threshold of this name. `gain` is what the
    review taught the middle safe row, in units of the score, None where it was not measured; `explained` is
    `smoothing.explained`, None where it is not known."""
    values = np.array(list(scores.values()))
    return THRESHOLDS[name](values, phi=phi, quantile=quantile, gain=gain, explained=explained)


FEWEST = 20  # scored rows that `auto` wants
SHARE = 0.05
LEAST = 0.16
ERODED = 0.2
KIND = 0.12
DRIFT = 0.26
EVEN = 0.75  # share of the variance between the halves of an even spread: more are two groups
NEARLY = 0.6
THRESHOLDS = {"auto": auto, "fixed": fixed, "quantile": quantile}
