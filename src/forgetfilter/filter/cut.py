"""Scores -> decisions. No threshold sees a label.

`by_witnesses` is the product's: a row is dropped where hardly any clean row that we know of stands out as far
(conformal p-values, Benjamini-Hochberg). `fixed` and `quantile` cut a score, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from forgetfilter.filter.constants import CONSTANTS
from forgetfilter.records import Decision

NOTHING_KNOWN: dict[str, Any] = {"unsafe_share": None, "precision": None, "recall": None}
DRAWS = 200  # of the bootstrap behind an estimate's interval


@dataclass(frozen=True, slots=True)
class Cut:
    """What becomes of the rows, and why. Scores: larger = more likely unsafe."""

    decisions: Mapping[str, Decision]  # by row id, of all rows
    method: str
    why: str
    drop_above: float | None = None  # the lowest score dropped lies at or above it; None: nothing is dropped
    flag_above: float | None = None
    p_values: Mapping[str, float] = field(default_factory=dict)  # by row id, of judged rows
    weak: bool = False  # nothing can be cut, and not because nothing is there: an exit code of its own
    known: int = 0  # clean rows that a p-value counts among; 0: none is counted
    estimated: Mapping[str, Any] = field(default_factory=lambda: dict(NOTHING_KNOWN))
    compared: str = ""  # what a p-value counts, in words
    judged: Mapping[str, str] = field(default_factory=dict)  # by row id: what a person said of it, in words

    def reason(self, row: str, score: float | None) -> str:
        """One line for one row."""
        if row in self.judged:
            return self.judged[row]
        if self.decisions[row] == "not judged":
            return "of a kind that none of the safe rows speaks of"
        if score is None:
            return "empty completion"
        if row in self.p_values:
            return f"{self.p_values[row]:.1%} of {self.compared} stand out as far"
        if self.drop_above is None:
            return f"score {score:.3g}; {self.why}"
        side = "above" if score > self.drop_above else "not above"
        return f"score {score:.3g} is {side} the cut {self.drop_above:.3g}"


def by_witnesses(
    ids: list[str], scores: np.ndarray, clean: Mapping[str, np.ndarray], *, fdr: float, seed: int = 0
) -> Cut:
    """Decide about judged rows by rows known to be clean, or of kinds no safe row contradicts.

    `scores` (rows,) of `ids`; `clean`: name -> (rows,) scores of rows to compare with. With several, a row has to
    stand out of each: its p-value is the largest. `fdr` bounds the expected share of clean rows among the dropped.
    """
    p = np.max([conformal(scores, known) for known in clean.values()], axis=0)

    def discovered(p: np.ndarray, rate: float) -> np.ndarray:
        # The largest of several p-values is not even among clean rows, so it cannot tell their share.
        return discoveries(p, rate * (1 / clean_share(p) if len(clean) == 1 else 1.0))

    dropped, doubtful = discovered(p, fdr), discovered(p, min(0.5, CONSTANTS.flagged_at * fdr))
    fewest, few = min((len(known), name) for name, known in clean.items())
    within_reach = bool(discovered(np.full(len(p), 1 / (fewest + 1)), fdr).any())  # if all stood out of all
    decisions: dict[str, Decision] = {
        z: "drop" if d else "flag" if f else "keep" for z, d, f in zip(ids, dropped, doubtful, strict=True)
    }
    counted = " and ".join(f"{len(known)} {name}" for name, known in clean.items())
    bound = f"at most {fdr:.0%} of the dropped rows are expected to be clean"
    if dropped.any():
        why = f"{int(dropped.sum())} of {len(ids)} judged rows stand out of {counted}; {bound}"
    elif doubtful.any():
        why = (
            f"{int(doubtful.sum())} of {len(ids)} judged rows stand out of {counted}, too little to drop any"
        )
    elif within_reach:
        why = f"no judged row stands out of {counted}"
    else:
        why = (
            f"{fewest} {few} are too few to compare with: at --fdr {fdr:g} no row could be dropped, whatever it lost; "
            "review with safe rows of your file's own source (--safe, --safe-source same), or allow a larger --fdr"
        )
    lowest = [float(scores[some].min()) if some.any() else None for some in (dropped, doubtful)]
    return Cut(
        decisions, "fdr", why, lowest[0], lowest[1], dict(zip(ids, p.tolist(), strict=True)),
        weak=not dropped.any() and bool(doubtful.any() or not within_reach), known=fewest,
        estimated=estimates(p, dropped, fewest, seed), compared=counted,
    )  # fmt: skip


def conformal(scores: np.ndarray, known: np.ndarray) -> np.ndarray:
    """p-value of each score: the share of known clean rows that stand out as far, the row itself counted with them."""
    ordered = np.sort(known)
    return np.asarray(1 + len(known) - np.searchsorted(ordered, scores, side="left")) / (len(known) + 1)


def discoveries(p: np.ndarray, fdr: float) -> np.ndarray:
    """(rows,) bool: Benjamini and Hochberg's rejections at `fdr`; equal p-values share their fate."""
    ordered = np.sort(p)
    passing = np.flatnonzero(ordered <= fdr * np.arange(1, len(p) + 1) / max(1, len(p)))
    return p <= ordered[passing[-1]] if len(passing) else np.zeros(len(p), bool)


def clean_share(p: np.ndarray) -> float:
    """Share (0 to 1) of the rows that are clean, by Storey (2002): their p-values are even, so that half of them lie
    above a half. Where many rows are unsafe, a bound on the share of clean ones among the dropped may count on it."""
    return min(1.0, 2 * (float(np.sum(p > 0.5)) + 1) / max(1, len(p)))


def estimates(p: np.ndarray, dropped: np.ndarray, known: int, seed: int) -> dict[str, Any]:
    """Unsafe share of the judged rows, precision and recall of the dropped, each with a 95 % bootstrap interval.

    `known`: clean rows behind the p-values. They are few, and so are the clean rows dropped: what they tell of the rate
    of false drops is drawn anew (Beta), and the false drops by it (binomial). None where no row was dropped.
    """
    if not dropped.any():
        return dict(NOTHING_KNOWN)
    limit, random, counted = float(p[dropped].max()), np.random.default_rng(seed), known + 1

    def once(some: np.ndarray, clean: float, false: float) -> tuple[float, float, float]:
        taken = float(np.mean(some <= limit))
        precision = max(0.0, 1 - false / taken) if taken else 1.0
        # Where a p-value is the largest of several, many are near one and nearly all rows seem clean.
        unsafe = max(1 - clean, taken * precision)
        return unsafe, precision, taken * precision / max(unsafe, 1e-9)

    def again() -> tuple[float, float, float]:
        some = random.choice(p, len(p))
        clean = clean_share(some)
        rate = random.beta(counted * limit, max(counted * (1 - limit), 1e-9))
        return once(some, clean, random.binomial(round(clean * len(p)), rate) / len(p))

    whole = clean_share(p)
    value = once(p, whole, whole * limit)
    drawn = np.array([value, *(again() for _ in range(DRAWS))])
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    low, high = np.minimum(low, value), np.maximum(high, value)
    names = ("unsafe_share", "precision", "recall")
    return {
        n: {"value": v, "low": float(a), "high": float(b)}
        for n, v, a, b in zip(names, value, low, high, strict=True)
    }


def fixed(scores: Mapping[str, float], *, phi: float, **_: Any) -> tuple[float, str]:
    """Drop above a given φ: the paper's threshold."""
    return phi, f"φ = {phi:g}, as given"


def quantile(scores: Mapping[str, float], *, quantile: float, **_: Any) -> tuple[float, str]:
    """Drop above a quantile of the scores: 0.8 drops the upper fifth, fewer where scores are equal."""
    value = float(np.quantile(list(scores.values()), quantile, method="inverted_cdf"))
    return value, f"the {quantile:g} quantile of the scores, as given"


def above(name: str, scores: Mapping[str, float], **settings: Any) -> Cut:
    """Decide by a threshold of THRESHOLDS on the scores; what has none is left to the caller."""
    value, why = THRESHOLDS[name](scores, **settings)
    decisions: dict[str, Decision] = {z: "drop" if score > value else "keep" for z, score in scores.items()}
    return Cut(decisions, name, why, value)


THRESHOLDS = {"fixed": fixed, "quantile": quantile}
