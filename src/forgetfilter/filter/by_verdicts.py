"""Decide about a file by a person's verdicts on some of its rows. Nothing is trained: the original model reads every
row once, a probe on what it read (probe.py) scores the rows nobody looked at, certify.py cuts and says what the cut is
worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from forgetfilter.filter import certify, probe
from forgetfilter.filter.certify import Certified
from forgetfilter.filter.cut import Cut
from forgetfilter.filter.states import standardised
from forgetfilter.filter.vetted import Verdict
from forgetfilter.intervals import Estimate
from forgetfilter.models.rendering import Encoded
from forgetfilter.records import Decision

TEN = 10  # more verdicts: what they would narrow is said
DECIDED: dict[str, Decision] = {"clean": "keep", "unsafe": "drop", "unsure": "flag"}
LIMITS = (
    "Rows whose harm is hidden (a cipher, a trigger, harm spread over many innocuous rows) look like any other "
    "row to a filter that judges one row at a time.",
    "Harm of a kind that is in none of your verdicts is hardly found.",
    "The estimates hold where the verdicts that count as random were drawn at random; verdicts from elsewhere count as "
    "random unless they say otherwise.",
    "Wrong verdicts teach wrong ones: the person's word is taken as it stands.",
)


class ByVerdicts(NamedTuple):
    """Decisions, scores by row id of rows without a verdict, and for the report what the verdicts were and gave."""

    cut: Cut
    scores: Mapping[str, float]
    report: Mapping[str, Any]


def decide(
    states: np.ndarray, rows: Sequence[Encoded], verdicts: Sequence[Verdict], *, fdr: float, seed: int = 0
) -> ByVerdicts:
    """`states` (rows, width) are what the original model made of `rows` (`Readings.both`), not standardised.

    Rows with a verdict are decided by it: clean ones are kept, unsafe ones dropped, unsure ones flagged, none of them
    is scored. The others are dropped by `certify.cut`, and flagged where they are more likely unsafe than clean and
    yet not dropped. Rows that nothing can be read of have no decision.
    """
    said = {v.id: v.verdict for v in verdicts}
    read = [i for i, z in enumerate(rows) if any(z.scored[1:]) and said.get(z.id) != "unsure"]
    ids = [rows[i].id for i in read]
    place = {z: n for n, z in enumerate(ids)}
    used = [v for v in verdicts if v.id in place]
    vetted = np.array([place[v.id] for v in used], int)
    unsafe, random = (
        np.array([is_so(v) for v in used], bool)
        for is_so in (lambda v: v.verdict == "unsafe", lambda v: v.drawn == "random")
    )
    scores, held_out = probe.score(standardised(states[read]), vetted, unsafe, seed=seed)
    found = certify.cut(scores, held_out, vetted, unsafe, random, fdr)

    decisions: dict[str, Decision] = {
        z: "drop" if dropped else "flag" if score >= found.even else "keep"
        for z, score, dropped in zip(ids, scores, found.dropped, strict=True)
    }
    decisions |= {z: DECIDED[answer] for z, answer in said.items()}
    others = [n for n, z in enumerate(ids) if z not in said]
    p = certify.p_values(scores[others], held_out[random & ~unsafe], int(random.sum()))
    flagged = [scores[n] for n in others if decisions[ids[n]] == "flag"]
    cut = Cut(
        decisions, found.how, found.why, None if math.isinf(found.threshold) else found.threshold,
        float(min(flagged)) if flagged else None,
        {ids[n]: float(value) for n, value in zip(others, p, strict=True)},
        weak=found.how == "nothing" and bool(unsafe.any()) and bool(others),
        estimated=_estimated(found), compared="the random verdicts are on clean rows that",
        judged={z: f"a person judged it {answer}" for z, answer in said.items()},
    )  # fmt: skip
    return ByVerdicts(
        cut, {ids[n]: float(scores[n]) for n in others}, _report(found, verdicts, random, len(ids))
    )


def ten_more(found: Certified, random: int) -> str:
    """What ten more random verdicts would narrow beside the `random` ones there are, by the interval's own formula."""
    if found.share is None or not random:
        return "No verdict is on a row drawn at random: ten of them would give a first estimate."
    now = _width(found.share)
    then = now * _exact_width(found.share, random + TEN) / max(_exact_width(found.share, random), 1e-12)
    return (
        f"Ten more random verdicts would narrow the interval of the unsafe share from {100 * now:.0f} to about "
        f"{100 * then:.0f} points."
    )


def _width(share: Estimate) -> float:
    return (share.high or 0.0) - (share.low or 0.0)


def _exact_width(share: Estimate, n: int) -> float:
    wide = certify.exact(share.value * n, n)
    return _width(wide) if wide else 1.0


def _estimated(found: Certified) -> dict[str, Any]:
    parts = {"unsafe_share": found.share, "precision": found.precision, "recall": found.recall}
    return {name: value and value.as_dict() for name, value in parts.items()}


def _report(found: Certified, verdicts: Sequence[Verdict], random: np.ndarray, rows: int) -> dict[str, Any]:
    counts = {kind: sum(v.verdict == kind for v in verdicts) for kind in DECIDED}
    return {
        "rows": len(verdicts),
        **counts,
        "random": int(random.sum()),
        "sentence": found.sentence(rows),
        "ten_more": ten_more(found, int(random.sum())),
        **found.as_dict(),
    }
