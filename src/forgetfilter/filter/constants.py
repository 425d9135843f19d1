"""The filter's constants, all of them. Each was chosen on the sets that benchmarks/README.md names for choosing; the
tables are in benchmarks/RESULTS.md. A test counts them: another one has to earn its place there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Constants:
    """Shares are of 0 to 1; a penalty is C of a logistic regression, smaller = stronger."""

    witnesses: float = (
        0.5  # share of the safe rows never reviewed: the smallest p-value is one in their number
    )
    replay: float = 0.5  # share of a review's rows that are custom rows plainly unlike the safe ones
    kind_penalty: float = 1e-4  # of the probe that tells kinds apart by questions: only the coarse shows
    harm_penalty: float = 1e-3  # of the probes inside a kind: finer; 1e-4 and 1e-2 lose on one set or another
    safe_below: float = 0.02  # share of the safe rows that may count as unlike themselves
    # Share of the custom rows of a kind that have to read like the safe rows' source: on the choosing sets 0.6 or more
    # of them did where it is theirs, also where a third of them was unsafe, and at most 0.22 where it is not.
    same_source: float = 1 / 3
    refinements: int = 3  # of what is near, and of the unlabelled rows' weights; the third changes little
    flagged_at: float = 2.0  # times the false-discovery rate asked for: rows to look at


CONSTANTS = Constants()
