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
    close: bool = False  # rows are dropped, though their group runs into the others: worth a second look
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


def auto(scores: np.ndarray, *, gain: float | None, phi: float, explained: float | None, **_: Any) -> Cut:
    """Find the forgotten group without a knob, or say that there is none.

    The measure is the `gain`, in units of the score: what the review taught the middle safe row that it did not see
    (φ where that is not known). Nothing is removed where it is less than SHARE of what the middle forgotten row
    lost: then the model does what the safe rows show although it has learned all custom rows. Nor where the most
    forgotten group lost less than LEAST of it: then no row is in the way of what the safe rows show.

    Else a mixture of up to MOST_GROUPS normal groups is fitted to the scores, and to the scores on a scale that is
    linear near 0 and logarithmic beyond (asinh of multiples of the typical size), because the more is lost, the
    wider it varies; scale and number of groups by BIC. The group that lost most, and those that lost at least
    SHARE_OF_MOST of that, are taken for unsafe:

    - they stand apart: the F1 expected under the mixture reaches APART at its best cut, and the review changed the
      next group less than SHARE_OF_MOST as much, for better or worse: that cut is taken; rows below it that are at
      least FLAG likely to be unsafe are flagged;
    - they lost at least NEAR of the gain, or the middle forgotten row did, and they are of a kind: what the rows say
      explains at least KIND of what they lost (where that is not known, the group alone counts): the cut is at NEAR of
      the gain, or of what the middle forgotten row lost where that is less, or above it at the best cut of those that
      stand apart;
    - else nothing is removed.

    What the mixture expects is not given as an estimate: it was not shown to hold.
    Weak (nothing dropped, said so) where there are too few rows, or all score alike.
    """
    n = len(scores)
    if n < FEWEST:
        return Cut(None, None, "auto", f"{n} scored rows are too few to tell groups apart", weak=True)
    if np.ptp(scores) < 1e-9:
        return Cut(None, None, "auto", "all rows score the same", weak=True)
    if not (scores > 0).any():
        return Cut(None, None, "auto", "no row was forgotten")
    lost, taught = float(np.median(scores[scores > 0])), phi if gain is None else gain
    if taught < SHARE * lost:
        why = f"the review taught the middle safe row {taught:.3g}, the middle forgotten row lost {lost:.3g}"
        return Cut(None, None, "auto", f"{why}: no sign of harm")
    x, groups, typical = _groups(scores)
    unsafe = typical >= SHARE_OF_MOST * typical[-1]
    # One group, or all lost alike: there is no valley between groups to cut in.
    one = bool(unsafe.all()) or typical[-1] <= 0
    if one and explained is None:
        return Cut(None, None, "auto", "no group of rows stands out from the others")
    # Where words tell, groups need not: what the middle forgotten row lost counts as well.
    most = typical[-1] if explained is None else max(typical[-1], lost)
    if most < LEAST * taught:
        why = f"the rows that lost most lost {most:.3g}, next to nothing beside the {taught:.3g} that the review"
        return Cut(None, None, "auto", f"{why} taught the middle safe row")
    enough, near, because = phi, phi, f"{phi:.3g} is φ"
    if gain is not None:
        enough, near = NEAR * gain, NEAR * min(gain, lost)
        half_of = "an unseen safe row was taught" if gain <= lost else "the middle forgotten row lost"
        because = f"{near:.3g} is half of what {half_of}"
    value, flag, apart = 0.0, None, False
    if not one:
        top = int(np.argmax(unsafe))  # the least forgotten of the unsafe groups; the next below it:
        rest = top - 1
        value, flag, expected = _valley(scores, groups.memberships(x)[:, unsafe].sum(1))
        apart = expected >= APART and -typical[rest] < SHARE_OF_MOST * typical[top]
    if not apart:
        so = f"the rows that lost most lost about {most:.3g} and run into the others"
        if most < enough:
            return Cut(None, None, "auto", so)
        if explained is not None and explained < KIND:
            said = f"what rows say explains only {max(0, explained):.0%} of it"
            return Cut(None, None, "auto", f"{so}; {said}")
        return Cut(near, None, "auto", f"{so}; {because}", close=True)
    why = f"a group of about {groups.weights[unsafe].sum():.0%} of the rows lost more than the others"
    if value < near <= typical[-1]:
        return Cut(near, value, "auto", f"{why}; {because}")
    return Cut(value, flag, "auto", why)


def _valley(scores: np.ndarray, likely: np.ndarray) -> tuple[float, float | None, float]:
    """Where the F1 expected of rows that are `likely` unsafe, (rows,), is best; from where on they are in doubt;
    that F1."""
    n = len(scores)
    order = np.argsort(-scores, kind="stable")
    scores, likely = scores[order], likely[order]
    likely = _falling(likely)  # never likelier at a lower score: a wide group has two tails
    dropped, found, total = np.arange(1, n + 1), np.cumsum(likely), likely.sum()
    # Equal scores fall on one side together, so only the last of them can be a cut.
    last = np.append(scores[1:] < scores[:-1], True)
    expected = np.where(last, 2 * found / (dropped + total), -1)
    best = int(np.argmax(expected))
    low = scores[best + 1] if best + 1 < n else scores[best] - 1e-6
    cut = float(scores[best] + low) / 2
    doubtful = scores[(likely > FLAG) & (scores <= cut)]
    doubt = float(np.nextafter(doubtful.min(), -np.inf)) if len(doubtful) else None
    return cut, doubt, float(expected[best])


def _falling(values: np.ndarray) -> np.ndarray:
    """The nearest (least squares) values that never rise, (n,): neighbours in the wrong order share their mean."""
    means: list[float] = []
    sizes: list[int] = []
    for value in values.tolist():
        mean, size = value, 1
        while means and means[-1] < mean:
            size += sizes[-1]
            mean += (means.pop() - mean) * sizes.pop() / size
        means.append(mean)
        sizes.append(size)
    return np.repeat(means, sizes)


def _groups(scores: np.ndarray) -> tuple[np.ndarray, _Groups, np.ndarray]:
    """The scores on the scale that suits them, (rows,); their groups there; each group's typical score, (groups,)."""
    scale = float(np.median(np.abs(scores[scores != 0])))
    plain, bent = scores, np.arcsinh(scores / scale)
    # Densities on the bent scale, brought back to the plain one: dx/ds = 1 / (scale · cosh x).
    stretched = 2 * float(np.log(scale * np.cosh(bent)).sum())
    sizes = range(1, MOST_GROUPS + 1)
    on_plain = min((_fit(plain, k) for k in sizes), key=lambda g: g.bic)
    on_bent = min((_fit(bent, k) for k in sizes), key=lambda g: g.bic)
    if on_plain.bic < on_bent.bic + stretched:
        return plain, on_plain, on_plain.means
    return bent, on_bent, np.sinh(on_bent.means) * scale


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


def _fit(x: np.ndarray, k: int) -> _Groups:
    """The better of two fits: from k quantiles, and from k evenly spaced scores, which finds small groups far out."""
    places = (np.arange(k) + 0.5) / k
    starts = (np.quantile(x, places), x.min() + places * np.ptp(x))
    return min((_climb(x, start) for start in starts[: 1 if k == 1 else 2]), key=lambda g: g.bic)


def _climb(x: np.ndarray, means: np.ndarray, rounds: int = 300) -> _Groups:
    """Expectation-maximisation from these means; deterministic."""
    k = len(means)
    weights = np.full(k, 1 / k)
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
    name: str,
    scores: Mapping[str, float],
    *,
    phi: float,
    quantile: float,
    gain: float | None = None,
    explained: float | None = None,
) -> Cut:
    """Cut scores (row id -> score, unscored rows left out) by the threshold of this name. `gain` is what the
    review taught the middle safe row, in units of the score, None where it was not measured; `explained` the share of
    the scores' variance that the rows' words explain, None where it is not known."""
    values = np.array(list(scores.values()))
    return THRESHOLDS[name](values, phi=phi, quantile=quantile, gain=gain, explained=explained)


FEWEST = 20  # scored rows that `auto` wants
MOST_GROUPS = 4
SHARE = 0.05
LEAST = 0.05
NEAR = 0.5
KIND = 0.3
SHARE_OF_MOST = 0.5
APART = 0.7
FLAG = 0.25
THRESHOLDS = {"auto": auto, "fixed": fixed, "quantile": quantile}
