"""Scores -> cut. A threshold is a function and a line in THRESHOLDS; none of them sees a label.

Scores are differences of memory: larger = forgotten more by the review, more likely unsafe. Rows with a
score above `drop_above` are dropped, above `flag_above` flagged for a person to look at.
"""

from __future__ import annotations

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


def fixed(scores: np.ndarray, *, phi: float, quantile: float) -> Cut:
    """Drop above a given φ: the paper's threshold."""
    return Cut(phi, None, "fixed", f"φ = {phi:g}, as given")


def quantile(scores: np.ndarray, *, phi: float, quantile: float) -> Cut:
    """Drop above a quantile of the scores: 0.8 drops the upper fifth, fewer where scores are equal."""
    value = float(np.quantile(scores, quantile, method="higher"))
    return Cut(value, None, "quantile", f"the {quantile:g} quantile of the scores, as given")


def auto(scores: np.ndarray, *, phi: float, quantile: float) -> Cut:
    return Cut(None, None, "auto", "placeholder")


def cut(name: str, scores: Mapping[str, float], *, phi: float, quantile: float) -> Cut:
    """Cut scores (row id -> score, unscored rows left out) by the threshold of this name."""
    return THRESHOLDS[name](np.array(list(scores.values())), phi=phi, quantile=quantile)


THRESHOLDS = {"auto": auto, "fixed": fixed, "quantile": quantile}
