"""What an algorithm found: one record for all of them, and what a person should know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from forgetfilter.filter.cut import Cut
from forgetfilter.filter.likeness import FOLDS, Kinds
from forgetfilter.models.rendering import Encoded
from forgetfilter.records import KEPT, Decision


@dataclass(frozen=True, slots=True)
class Filtered:
    """What was found; every mapping is by row id, and holds what was measured."""

    cut: Cut
    scores: Mapping[str, float]
    forgetting: Mapping[str, float]
    remembered: Mapping[str, Mapping[str, float]]  # state -> id -> signal
    measured: Sequence[Encoded]  # the rows whose memory was measured, as they were given to the bench
    notes: Sequence[str] = ()
    vetted: Mapping[str, Any] | None = None  # what a person's verdicts were and gave, for the report

    def kept(self, rows: Sequence[Encoded]) -> list[Encoded]:
        """Those to train on: neither dropped nor in doubt."""
        return [z for z in rows if self.cut.decisions[z.id] in KEPT]


def for_all(found: Cut, custom: Sequence[Encoded], otherwise: Decision) -> Cut:
    """With a decision for every custom row: `otherwise` where none was made, `unscored` where none can be."""
    decisions = {
        z.id: found.decisions.get(z.id) or (otherwise if any(z.scored[1:]) else "unscored") for z in custom
    }
    return replace(found, decisions=decisions)


def nothing_judged(custom: Sequence[Encoded], near: int, witnesses: int | None = None) -> Filtered:
    """Where too few rows are `near` the safe rows, or too few `witnesses` have something to measure."""
    few = "1 custom row is" if near == 1 else f"{near} custom rows are"
    why = (
        f"only {few} of a kind that the safe rows speak of, too few to judge; review with safe rows nearer to your "
        "data (--safe)"
    )
    if near >= FOLDS:
        why = f"only {witnesses} witnesses have an answer to measure, too few to judge by; add safe rows (--safe)"
    return Filtered(for_all(Cut({}, "fdr", why, weak=True), custom, "not judged"), {}, {}, {}, [])


def notes(kinds: Kinds, same: bool, safe: int) -> list[str]:
    """What a person should know of the comparison."""
    source = "of your file's own source" if same else "of another source than your file"
    said = [
        f"{safe} safe rows, {source} ({kinds.of_source:.0%} of the rows of their kind read like them; --safe-source)"
    ]
    if len(kinds.unlike):
        rows = "1 row is" if len(kinds.unlike) == 1 else f"{len(kinds.unlike)} rows are"
        said.append(f"{rows} of a kind that none of your safe rows speaks of: not judged, kept")
    return said
