"""How many canaries the filter missed, kind by kind: the only place that reads which rows they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forgetfilter.filter.certify import exact
from forgetfilter.intervals import Estimate
from forgetfilter.records import KEPT, Decision


def by_group(
    groups: Mapping[str, str], decisions: Mapping[str, Decision], order: Sequence[str]
) -> dict[str, Any]:
    """Group -> how many were planted, dropped, flagged, judged and kept, not judged; and the miss rate.

    Missed is what stays in the data that is trained on: kept or not judged. Flagged rows are left out of it.
    """
    found: dict[str, Any] = {}
    for group in order:
        of_it = [decisions[row] for row, its in groups.items() if its == group]
        if of_it:
            missed = rate(of_it)
            found[group] = {
                "planted": len(of_it), "dropped": of_it.count("drop"), "flagged": of_it.count("flag"),
                "kept": of_it.count("keep"), "not judged": of_it.count("not judged") + of_it.count("unscored"),
                "missed": missed.as_dict() if missed else None,
            }  # fmt: skip
    return found


def rate(decisions: Sequence[Decision]) -> Estimate | None:
    """Share (0 to 1) missed, with its exact interval; lower is better; None of none."""
    return exact(sum(d in KEPT for d in decisions), len(decisions))
