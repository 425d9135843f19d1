"""Where to cut scores by vetted rows, and how good the cut is: a bound on false discoveries, and intervals.

The vetted rows that were drawn at random stand for the whole file; those that were proposed do not, and are only
counted as what they are.

Cut: conformal selection (Jin & Candès 2023). A row's p-value is (1 + clean random verdicts with a held-out score
at least as large) / (1 + random verdicts); Benjamini and Hochberg (1995) choose how many may be dropped. Of those the
rows that are more likely unsafe than clean are; where random verdicts are too few for the bound, these alone.
Intervals: exact binomial (Clopper & Pearson 1934) on the random verdicts, and prediction-powered inference
(Angelopoulos et al. 2023) where enough of them are on either side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from forgetfilter.errors import ConfigError
from forgetfilter.filter import probe
from forgetfilter.intervals import Estimate


@dataclass(frozen=True, slots=True)
class Constants:
    """Chosen on BBQ (Age, Nationality), Davidson and BeaverTails rows; see benchmarks/RESULTS.md."""

    fewest: int = 2  # verdicts of either kind: below, nothing is held out and nothing is cut
    fewest_for_odds: int = (
        5  # unsafe verdicts: with two to four, odds alone dropped more clean than unsafe rows
    )
    enough: int = 8  # random verdicts on either side before the normal approximation of PPI is used
    level: float = 0.95


CONSTANTS = Constants()


@dataclass(frozen=True, slots=True)
class Vetted:
    """Verdicts as arrays of one length; verdicts of `unsure` are left out."""

    row: np.ndarray  # row numbers
    unsafe: np.ndarray  # bool
    random: np.ndarray  # bool: drawn at random, not proposed
    held_out: np.ndarray  # scores from fits without the row


@dataclass(frozen=True, slots=True)
class Certified:
    """A cut, why, and what it is worth. Estimates are None where there is nothing to estimate from."""

    threshold: float  # unvetted rows with at least this score are dropped; inf: none
    dropped: np.ndarray  # (rows,) bool, the vetted unsafe rows among them
    how: Literal["fdr", "odds", "nothing"]
    why: str
    more: int | None  # random verdicts that would do for the bound, where they are too few
    share: Estimate | None  # of unsafe rows in the file
    precision: Estimate | None  # of what is dropped
    recall: Estimate | None
    left: Estimate | None  # unsafe rows that are not dropped, a number
    at_least: float | None  # precision, with 95 % confidence (one-sided)
    even: float = math.inf  # from this score on a row is more likely unsafe than clean; inf: nothing tells

    def sentence(self, rows: int) -> str:
        """`Of 1,000 rows 212 dropped; at least 93 % of them unsafe with 95 % confidence; about 21 (8-40) …`."""
        said = [f"Of {rows:,} rows {int(self.dropped.sum()):,} dropped"]
        if not self.dropped.any():
            said = [f"Of {rows:,} rows none is dropped"]
        elif math.isinf(self.threshold):
            said = [f"Of {rows:,} rows the {int(self.dropped.sum()):,} are dropped that were judged unsafe"]
        elif self.at_least is not None:
            said.append(f"at least {math.floor(100 * self.at_least)} % of them unsafe with 95 % confidence")
        if self.left is not None:
            low, high = math.floor(self.left.low or 0), math.ceil(self.left.high or 0)
            said.append(f"about {self.left.value:.0f} ({low}-{high}) unsafe rows are left")
        return "; ".join(said) + "."

    def as_dict(self) -> dict[str, Any]:
        """For the report: all but the rows; intervals as value, low, high, n."""
        found = {n: getattr(self, n) for n in ("share", "precision", "recall", "left")}
        return {
            "threshold": None if math.isinf(self.threshold) else self.threshold,
            "how": self.how,
            "why": self.why,
            "more": self.more,
            "at_least": self.at_least,
            **{name: value and value.as_dict() for name, value in found.items()},
        }


def cut(
    scores: np.ndarray,
    held_out: np.ndarray,
    vetted: np.ndarray,
    unsafe: np.ndarray,
    random: np.ndarray,
    fdr: float = 0.1,
) -> Certified:
    """Cut `scores` (rows,; larger = more likely unsafe) and say how good the cut is.

    `vetted` holds the numbers of the rows with a verdict, `unsafe`, `random` and `held_out` (vetted,) belong to
    them, as `probe.score` gives them. Vetted unsafe rows are dropped and vetted clean ones kept whatever their
    score. `fdr` bounds the expected share of clean rows among the dropped. ConfigError where `fdr` is no share.
    """
    if not 0 < fdr < 1:
        raise ConfigError(
            f"--fdr {fdr:g}: give a share between 0 and 1, such as 0.1: one dropped row in ten may be clean"
        )
    seen = Vetted(*(np.asarray(a) for a in (vetted, unsafe, random, held_out)))
    others = np.setdiff1d(np.arange(len(scores)), seen.row)
    threshold, how, why, more = _threshold(scores[others], seen, fdr)
    dropped = np.zeros(len(scores), bool)
    dropped[others] = scores[others] >= threshold
    dropped[seen.row[seen.unsafe]] = True
    told = min(seen.unsafe.sum(), (~seen.unsafe).sum()) >= CONSTANTS.fewest
    worth = _worth(scores, others, seen, threshold)
    return Certified(threshold, dropped, how, why, more, **worth, even=_even_odds(seen) if told else math.inf)


# --- the cut ---


class _Cut(NamedTuple):
    threshold: float
    how: Literal["fdr", "odds", "nothing"]
    why: str
    more: int | None


def _threshold(scores: np.ndarray, seen: Vetted, fdr: float) -> _Cut:
    """`scores` are those of the rows without a verdict."""
    known, clean = int(seen.unsafe.sum()), int((~seen.unsafe).sum())
    if not len(scores):
        return _Cut(math.inf, "nothing", "every row has a verdict", None)
    if min(known, clean) < CONSTANTS.fewest:
        short = "unsafe" if known <= clean else "clean"
        return _Cut(math.inf, "nothing", f"{min(known, clean)} {short} rows were seen, too few to tell others by: only "
                    "verdicts drop", None)  # fmt: skip
    n = int(seen.random.sum())
    witnesses = np.sort(seen.held_out[seen.random & ~seen.unsafe])
    even = _even_odds(seen)
    k, threshold = selected(scores, witnesses, n, known, fdr)
    tells = math.isfinite(even)
    if k and tells:
        return _Cut(max(threshold, even), "fdr", f"at most {fdr:.0%} of the dropped rows are clean on average "
                    f"(conformal p-values from {n} random verdicts, Benjamini-Hochberg), and each is more likely "
                    "unsafe than clean", None)  # fmt: skip
    more = needed(scores, witnesses, n, known, fdr) if not k else None
    wanted = f"{more} more random verdicts would do" if more else "verdicts do not part the rows well enough"
    short = f"no bound of {fdr:.0%} on clean rows among the dropped: {wanted}"
    if known < CONSTANTS.fewest_for_odds:
        return _Cut(math.inf, "nothing", f"{short}; {known} unsafe rows were seen, too few to go by odds, so only "
                    "verdicts drop", more)  # fmt: skip
    if not tells:
        return _Cut(math.inf, "nothing", f"{short}; scores do not tell unsafe verdicts from clean ones, so only "
                    "verdicts drop", more)  # fmt: skip
    return _Cut(even, "odds", f"{short}; dropped are rows more likely unsafe than clean by the odds of the "
                f"{known + clean} verdicts", more)  # fmt: skip


def _even_odds(seen: Vetted) -> float:
    """The score from which on a row is more likely unsafe than clean; inf where scores do not tell."""
    slope, intercept = _odds(seen)
    return -intercept / slope if slope > 0 else math.inf


def selected(scores: np.ndarray, witnesses: np.ndarray, n: int, known: int, fdr: float) -> tuple[int, float]:
    """How many of `scores` Benjamini-Hochberg drops, and the smallest score dropped (inf where none is).

    `witnesses`, ascending, are the held-out scores of the clean among `n` random verdicts. `known` unsafe rows
    are dropped besides, discoveries that cannot be false.
    """
    if not len(scores) or not n:
        return 0, math.inf
    ordered = np.sort(scores)[::-1]
    p = p_values(ordered, witnesses, n)
    last = np.append(ordered[1:] < ordered[:-1], True)  # rows of one score are dropped together
    passed = np.flatnonzero(last & (len(scores) * p <= fdr * (np.arange(1, len(scores) + 1) + known)))
    return (int(passed[-1]) + 1, float(ordered[passed[-1]])) if len(passed) else (0, math.inf)


def p_values(scores: np.ndarray, witnesses: np.ndarray, n: int) -> np.ndarray:
    """(rows,) conformal p-values: the share of `n` random verdicts that are clean with such a score, the row counted
    with them. `witnesses` are the held-out scores of the clean ones among the random verdicts."""
    below = np.searchsorted(np.sort(witnesses), scores, "left")
    return np.asarray(1 + len(witnesses) - below) / (n + 1)


def needed(scores: np.ndarray, witnesses: np.ndarray, n: int, known: int, fdr: float) -> int | None:
    """Random verdicts beyond `n` that would let the rows above all witnesses pass; None where no row is above."""
    above = int((scores > (witnesses[-1] if len(witnesses) else -math.inf)).sum())
    if not above:
        return None
    return max(1, math.ceil(len(scores) / (fdr * (above + known)) - 1e-9) - 1 - n)


# --- what it is worth ---


def _worth(scores: np.ndarray, others: np.ndarray, seen: Vetted, threshold: float) -> dict[str, Any]:
    """Share, precision, recall and what is left, as fields of `Certified`."""
    drawn, n = seen.random, int(seen.random.sum())
    if not n:
        return dict.fromkeys(("share", "precision", "recall", "left", "at_least"))
    proposed = ~drawn
    above, known = seen.held_out >= threshold, int(seen.unsafe.sum())
    beyond = len(scores) - n  # rows that the random ones stand for, proposed ones among them
    chance = _calibrated(np.concatenate([scores[others], seen.held_out]), seen)
    predicted = np.concatenate([chance[: len(others)], chance[len(others) :][proposed]])
    ours = chance[len(others) :][drawn]

    # False drops: clean rows above the threshold, of all that the random ones stand for, less those known.
    cuts = int((scores[others] >= threshold).sum())
    wrong = int((drawn & above & ~seen.unsafe).sum())
    known_wrong = int((proposed & above & ~seen.unsafe).sum())
    false = _count(remaining(wrong, n, beyond), beyond, known_wrong, cuts)
    # Left: unsafe rows below it, likewise.
    low_side = np.concatenate([scores[others], seen.held_out[proposed]]) < threshold
    below = drawn & ~above
    missed = rate(seen.unsafe[below], chance[len(others) :][below], predicted[low_side])
    known_below = int((proposed & ~above & seen.unsafe).sum())
    left = _count(missed, int(low_side.sum()), known_below, len(others) - cuts)
    share = rate(seen.unsafe[drawn], ours, predicted)
    in_all = _count(share, beyond, int((proposed & seen.unsafe).sum()), len(others))
    right = _Range(cuts - false.value, cuts - false.high, cuts - false.low)
    single = _count(remaining(wrong, n, beyond, 2 * CONSTANTS.level - 1), beyond, known_wrong, cuts)
    total = known + cuts
    return {
        "share": _shifted(in_all, known, len(scores), n),
        "precision": _shifted(right, known, total, n) if total else None,
        "recall": _recall(known, right, left, n),
        "left": Estimate(left.value, left.low, left.high, n),
        "at_least": (known + cuts - single.high) / total if total else None,
    }


class _Range(NamedTuple):
    value: float
    low: float
    high: float


def _count(share: Estimate | None, rows: int, known: int, most: int) -> _Range:
    """A share of `rows` as a number of rows, less the `known` among them; between 0 and `most`.

    Without an estimate anything from 0 to `most` is possible.
    """
    if share is None:
        return _Range(0.0, 0.0, float(most))
    value, low, high = (
        min(max(v * rows - known, 0.0), most) for v in (share.value, share.low or 0.0, share.high or 0.0)
    )
    return _Range(value, low, high)


def _shifted(found: _Range, known: int, rows: int, n: int) -> Estimate:
    """A number of rows with the `known` ones, as a share of `rows`."""
    return Estimate((known + found.value) / rows, (known + found.low) / rows, (known + found.high) / rows, n)


def _recall(known: int, right: _Range, left: _Range, n: int) -> Estimate | None:
    """Of all unsafe rows those dropped; the ends pair the worst with the worst. None where there is no unsafe row."""

    def share(hit: float, missed: float, otherwise: float) -> float:
        total = known + hit + missed
        return (known + hit) / total if total else otherwise

    value = share(right.value, left.value, math.nan)
    if math.isnan(value):
        return None
    return Estimate(value, share(right.low, left.high, 0.0), share(right.high, left.low, 1.0), n)


def rate(unsafe: np.ndarray, predicted: np.ndarray, predicted_all: np.ndarray) -> Estimate | None:
    """Share of unsafe rows among those of `predicted_all`, from verdicts on rows drawn at random from the same file.

    Prediction-powered inference with the power tuned (Angelopoulos, Duchi & Zrnic 2023), where verdicts of both
    kinds are enough; else exact binomial. `predicted` (verdicts,) are chances of being unsafe, 0 to 1. The rows that
    are asked about are a sample of their own: where half of a file has verdicts, the other half differs as much.
    """
    n, hits, rows = len(unsafe), int(unsafe.sum()), len(predicted_all)
    if min(hits, n - hits) < CONSTANTS.enough or not rows:
        return remaining(hits, n, rows)
    y = unsafe.astype(float)
    spread = float(np.var(predicted, ddof=1))
    power = min(1.0, max(0.0, float(np.cov(y, predicted, ddof=1)[0, 1]) / spread)) if spread > 0 else 0.0
    value = power * float(predicted_all.mean()) + float((y - power * predicted).mean())
    variance = float(np.var(y - power * predicted, ddof=2)) * (1 / n + 1 / rows)
    from scipy.special import stdtrit

    half = float(stdtrit(n - 2, 0.5 + CONSTANTS.level / 2)) * math.sqrt(variance)
    return Estimate(min(max(value, 0.0), 1.0), max(value - half, 0.0), min(value + half, 1.0), n)


def remaining(hits: int, n: int, rows: int, level: float = CONSTANTS.level) -> Estimate | None:
    """Share among the `rows` rows of a file that were not drawn, from `hits` among the `n` drawn at random.

    The exact interval of the whole file's share, less what was seen; as wide as `exact` where `rows` is large.
    """
    whole = exact(hits, n, level)
    if whole is None or not rows:
        return whole
    low, high = (
        min(max((end * (n + rows) - hits) / rows, 0.0), 1.0) for end in (whole.low or 0.0, whole.high or 0.0)
    )
    return Estimate(whole.value, low, high, n)


def exact(hits: float, n: int, level: float = CONSTANTS.level) -> Estimate | None:
    """A share with Clopper and Pearson's interval, which covers at least `level`; None of none."""
    from scipy.special import betaincinv  # scipy.stats has the same, and takes seconds to import

    if not n:
        return None
    tail = (1 - level) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return Estimate(hits / n, low, high, n)


def _calibrated(scores: np.ndarray, seen: Vetted) -> np.ndarray:
    """Scores as chances of being unsafe."""
    if not 0 < seen.unsafe.sum() < len(seen.unsafe):
        return np.full(len(scores), float(seen.unsafe.mean()))
    slope, intercept = _odds(seen)
    return 1 / (1 + np.exp(-np.clip(slope * scores + intercept, -500, 500)))


def _odds(seen: Vetted) -> tuple[float, float]:
    """Log-odds of being unsafe as slope * score + intercept (Platt 1999), from the held-out scores of the verdicts."""
    middle, spread = float(seen.held_out.mean()), float(seen.held_out.std()) + 1e-9
    shown = ((seen.held_out - middle) / spread)[:, None]
    slope, intercept = probe.logistic(shown, seen.unsafe, np.ones(len(shown)))
    return float(slope[0]) / spread, intercept - float(slope[0]) * middle / spread
