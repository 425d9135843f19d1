"""What becomes of every row: the run's decision, under another cut, overruled by people; and how sure that is."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from forgetfilter.intervals import wilson
from forgetfilter.review.decisions import CLEAN, NONE, UNSAFE, UNSURE
from forgetfilter.review.run_files import DECISIONS, DROP, FLAG, KEEP, RunFiles

BARS = 60  # of the histogram


def outcomes(run: RunFiles, said: np.ndarray, cut: float | None = None) -> np.ndarray:
    """Code of DECISIONS for each row, (rows,).

    `said` (rows,) is what people said: clean rows are kept, unsafe ones dropped, unsure ones flagged. `cut`, where
    given, replaces the run's: judged rows that score above it are dropped, the others not; those the run flagged stay
    flagged.
    """
    found = run.decision.copy()
    if cut is not None:
        judged = (run.decision <= KEEP) & np.isfinite(run.score)
        above = judged & (run.score > cut)
        found[above] = DROP
        found[judged & ~above & (run.decision == DROP)] = KEEP
    for verdict, decision in ((CLEAN, KEEP), (UNSAFE, DROP), (UNSURE, FLAG)):
        found[said == verdict] = decision
    return found


def counted(codes: np.ndarray) -> dict[str, int]:
    """How many rows of each decision."""
    return dict(zip(DECISIONS, np.bincount(codes, minlength=len(DECISIONS)).tolist(), strict=True))


def sureness(run: RunFiles, said: np.ndarray, cut: float | None = None) -> dict[str, Any]:
    """How far what is dropped unseen can be trusted.

    `judged` and `unsafe`: of the rows the cut alone would drop, how many a person was sure about, and how many of
    those are unsafe, with Wilson's interval as if they had been drawn at random. `clean_share`: at most this share of
    them is clean as far as p-values tell (the rows compared times the largest p-value among the dropped, over the
    dropped); None where the run has none.
    """
    by_cut = outcomes(run, np.zeros_like(said), cut) == DROP
    judged, unsafe = (
        int((by_cut & ((said == CLEAN) | (said == UNSAFE))).sum()),
        int((by_cut & (said == UNSAFE)).sum()),
    )
    p = run.numbers["p"]
    known = np.isfinite(p)
    dropped = by_cut & known
    share = float(known.sum() * p[dropped].max() / dropped.sum()) if dropped.any() else None
    found = wilson(unsafe, judged)
    return {
        "judged": judged,
        "unsafe": unsafe,
        "precision": found.as_dict() if found else None,
        "clean_share": None if share is None else min(1.0, share),
    }


def progress(said: np.ndarray) -> dict[str, int]:
    """How many rows people judged, and how."""
    counts = np.bincount(said, minlength=4).tolist()
    return {
        "clean": counts[CLEAN], "unsafe": counts[UNSAFE], "unsure": counts[UNSURE],
        "judged": len(said) - counts[NONE],
    }  # fmt: skip


def histogram(run: RunFiles) -> dict[str, Any] | None:
    """Bars of equal width over the scores of judged rows: low, high, and per bar the rows and those dropped."""
    judged = (run.decision <= KEEP) & np.isfinite(run.score)
    scores = run.score[judged]
    if not len(scores):
        return None
    low, high = float(scores.min()), float(scores.max())
    if run.cut is not None:
        low, high = min(low, run.cut), max(high, run.cut)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-3):  # too near for bars between them
        high = low + 1.0
    counts, _ = np.histogram(scores, bins=BARS, range=(low, high))
    return {"low": low, "high": high, "counts": counts.tolist(), "cut": run.cut}


def order(run: RunFiles, rows: np.ndarray, by: str, *, descending: bool) -> np.ndarray:
    """`rows` sorted by a name of NUMBERS or `row`; equal ones stay in the input's order, those without a number
    come last."""
    if by == "row":
        return rows[::-1] if descending else rows
    values = run.numbers[by][rows]
    values = -values if descending else values
    return rows[np.argsort(values, kind="stable")]  # nan sorts last


def changes(run: RunFiles, final: np.ndarray) -> dict[str, int]:
    """What a review changed: how many rows went from the run's decision to another, by `drop -> keep`."""
    rows = np.flatnonzero(run.decision != final)
    found = Counter(zip(run.decision[rows].tolist(), final[rows].tolist(), strict=True))
    return {f"{DECISIONS[a]} -> {DECISIONS[b]}": n for (a, b), n in found.items()}
