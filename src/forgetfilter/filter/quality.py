"""How good was the filter, where the truth is known: the only place that reads it.

No signal, threshold or defence imports this module. Scores and decisions meet the truth by row id. Scores
are larger where a row is more likely unsafe; a row is found when it is dropped, and a flagged row, which
stays in the data until someone decides, is not. A measure without a base (precision with nothing dropped,
recall with nothing unsafe, AUC of one class) is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from forgetfilter.errors import DataError, EvaluationError, unknown
from forgetfilter.intervals import Estimate, auc_interval, wilson
from forgetfilter.records import Decision, Row


@dataclass(frozen=True, slots=True)
class Counts:
    """Dropped or not against unsafe or not."""

    tp: int  # unsafe, dropped
    fp: int  # safe, dropped
    fn: int  # unsafe, not dropped
    tn: int  # safe, not dropped

    @property
    def precision(self) -> float | None:
        """Share of the dropped rows that are unsafe; None when nothing was dropped."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else None

    @property
    def recall(self) -> float | None:
        """Share of the unsafe rows that were dropped; None when none is unsafe."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None when no row is unsafe and none was dropped."""
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn) if self.tp + self.fp + self.fn else None


def auc(scores: Sequence[float] | np.ndarray, unsafe: Sequence[bool] | np.ndarray) -> float | None:
    """Chance that an unsafe row scores above a safe one, ties half (mid-ranks). None with one class only."""
    scores, unsafe = _arrays(scores, unsafe)
    found = auc_interval(scores[unsafe], scores[~unsafe])
    return None if found is None else found.value


def auc_by_id(scores: Mapping[str, float], truth: Mapping[str, bool]) -> Estimate | None:
    """`auc` of scores by row id, with its interval; None where all rows are of one class."""
    return auc_interval([scores[i] for i in scores if truth[i]], [scores[i] for i in scores if not truth[i]])


def best_f1(
    scores: Sequence[float] | np.ndarray, unsafe: Sequence[bool] | np.ndarray
) -> tuple[float, float] | None:
    """The best F1 any cut reaches, and that cut: rows with score > cut are dropped, equal ones kept.

    The cut is the highest score that is kept, or just below the lowest one where dropping all is best; of
    equally good cuts the highest, which drops the fewest rows. A bound for thresholds, not one of them: it
    has seen the truth. None where no row is unsafe.
    """
    scores, unsafe = _arrays(scores, unsafe)
    if not unsafe.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    found = np.concatenate([[0], np.cumsum(unsafe[order])])  # (n + 1,): unsafe rows among the k highest
    dropped = np.arange(len(scores) + 1)
    f1 = 2 * found / (dropped + unsafe.sum())  # 2tp / (2tp + fp + fn)
    # A cut cannot part equal scores.
    possible = np.concatenate([[True], ordered[:-1] > ordered[1:], [True]])
    k = int(np.argmax(np.where(possible, f1, -1.0)))
    cut = float(ordered[k]) if k < len(scores) else math.nextafter(float(ordered[-1]), -math.inf)
    return float(f1[k]), cut


def confusion(dropped: Sequence[bool] | np.ndarray, unsafe: Sequence[bool] | np.ndarray) -> Counts:
    """Counts of what was dropped against what is unsafe, row for row."""
    dropped, unsafe = np.asarray(dropped, bool), np.asarray(unsafe, bool)
    if dropped.shape != unsafe.shape:
        raise ValueError(f"{len(dropped)} decisions for {len(unsafe)} rows")
    return Counts(
        tp=int((dropped & unsafe).sum()),
        fp=int((dropped & ~unsafe).sum()),
        fn=int((~dropped & unsafe).sum()),
        tn=int((~dropped & ~unsafe).sum()),
    )


def measure(
    scores: Mapping[str, float | None], decisions: Mapping[str, str], truth: Mapping[str, bool]
) -> dict[str, Any]:
    """The `quality` block of report.json, all three joined by row id.

    Estimates are {value, low, high, n} at 95 %, or None where undefined. AUC and the best F1 are over the
    rows with a score; precision, recall, F1 and the share of clean rows dropped over the rows with a
    decision (a reviewer may decide on a row that had no score). `unscored` counts the rows that are left out
    of either, `unscored_unsafe` the unsafe ones among them: they stay in the data and no recall counts them.

    EvaluationError where the three do not speak of the same rows, or a decision is none we know.
    """
    for name, ids in (("decision", decisions.keys()), ("truth label", truth.keys())):
        for missing in sorted(scores.keys() ^ ids)[:1]:
            lacks = name if missing in scores else "score"
            raise EvaluationError(
                f"row {missing} has no {lacks}: scores, decisions and truth must be of the same rows"
            )
    for decision in decisions.values():
        if decision not in get_args(Decision):
            raise EvaluationError(unknown("decision", decision, get_args(Decision)))
    scored = {i: s for i, s in scores.items() if s is not None and decisions[i] != "unscored"}
    decided = [i for i, decision in decisions.items() if decision != "unscored"]
    left_out = [i for i in scores if i not in scored]
    unsafe = np.array([truth[i] for i in scored], bool)
    values = np.array(list(scored.values()), float)
    values, unsafe = _arrays(values, unsafe)
    counts = confusion([decisions[i] == "drop" for i in decided], [truth[i] for i in decided])
    best = best_f1(values, unsafe)
    best_counts = None if best is None else confusion(values > best[1], unsafe)
    return {
        "n": len(scores),
        "unsafe": sum(map(bool, truth.values())),
        "unscored": len(left_out),
        "unscored_unsafe": sum(bool(truth[i]) for i in left_out),
        "auc": _block(auc_interval(values[unsafe], values[~unsafe])),
        "precision": _block(wilson(counts.tp, counts.tp + counts.fp)),
        "recall": _block(wilson(counts.tp, counts.tp + counts.fn)),
        "f1": _block(_f1_interval(counts)),
        "best_f1": None
        if best is None or best_counts is None
        else {**(_block(_f1_interval(best_counts)) or {}), "cut": best[1]},
        "clean_dropped": _block(wilson(counts.fp, counts.fp + counts.tn)),
        "counts": {"tp": counts.tp, "fp": counts.fp, "fn": counts.fn, "tn": counts.tn},
    }


def read_truth(rows: Sequence[Row], field: str) -> dict[str, bool]:
    """Row id -> is it unsafe, from a column of the user's file.

    Reads true/false, 0/1 and the words of TRUTH_WORDS, in any case. In a column named `safe`, `is_safe` or
    the like, true and 1 say that the row is safe; the words "safe" and "unsafe" mean themselves everywhere.
    DataError, naming file, row and value, for anything else: a truth half read is worse than none.
    """
    says_safe = field.strip().lower().replace("-", "_") in _SAFE_FIELDS
    truth: dict[str, bool] = {}
    for row in rows:
        where = f"{row.source} row {row.index} (counted from 0)"
        if field not in row.record:
            raise DataError(
                f'{where}: no "{field}" (found: {", ".join(map(str, row.record))}). '
                "Name the column that holds the truth with --label-field."
            )
        unsafe = _reading(row.record[field], says_safe)
        if unsafe is None:
            raise DataError(
                f'{where}: "{field}" is {_shown(row.record[field])}, which says neither safe nor unsafe. '
                f"Use true, 1 or one of {_listed(True)} for unsafe; "
                f"false, 0 or one of {_listed(False)} for safe."
            )
        truth[row.id] = unsafe
    return truth


def _reading(value: Any, says_safe: bool) -> bool | None:
    """True for unsafe, False for safe, None for neither. numpy's and CSV's ways of saying so included."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in TRUTH_WORDS:
            return TRUTH_WORDS[word]
        yes = _YES_NO.get(word)
    else:
        yes = (
            bool(value)
            if isinstance(value, (bool, np.bool_, int, float, np.number)) and value in (0, 1)
            else None
        )
    return None if yes is None else yes != says_safe


def _f1_interval(counts: Counts) -> Estimate | None:
    """F1 with Wilson's interval of J = tp / (tp + fp + fn), carried over: F1 = 2J / (1 + J) rises with J."""
    jaccard = wilson(counts.tp, counts.tp + counts.fp + counts.fn)
    if jaccard is None or jaccard.low is None or jaccard.high is None:
        return None
    value, low, high = (2 * j / (1 + j) for j in (jaccard.value, jaccard.low, jaccard.high))
    return Estimate(value, low, high, jaccard.n)


def _block(estimate: Estimate | None) -> dict[str, float | int | None] | None:
    return None if estimate is None else estimate.as_dict()


def _arrays(
    scores: Sequence[float] | np.ndarray, unsafe: Sequence[bool] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    scores, unsafe = np.asarray(scores, float), np.asarray(unsafe, bool)
    if scores.shape != unsafe.shape:
        raise ValueError(f"{len(scores)} scores for {len(unsafe)} rows")
    if not np.isfinite(scores).all():
        raise EvaluationError("a score is not a finite number: a row that cannot be scored has none (null)")
    return scores, unsafe


def _shown(value: Any) -> str:
    shown = "null" if value is None else repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "…"


def _listed(unsafe: bool) -> str:
    return ", ".join(f'"{word}"' for word, means in TRUTH_WORDS.items() if means is unsafe)


TRUTH_WORDS = {
    "unsafe": True,
    "harmful": True,
    "toxic": True,
    "biased": True,
    "safe": False,
    "harmless": False,
    "non-toxic": False,
    "unbiased": False,
    "neutral": False,
}
_YES_NO = {
    **dict.fromkeys(("true", "yes", "1", "1.0"), True),
    **dict.fromkeys(("false", "no", "0", "0.0"), False),
}
_SAFE_FIELDS = frozenset({"safe", "is_safe", "issafe", "harmless", "is_harmless"})
