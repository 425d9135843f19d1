"""Preference pairs: what the filter would say of the rejected answer, had it been the one to learn.

The rejected answer is not learned, so it cannot be forgotten. Its score is predicted by ridge regression from the
scores of rows with like answers, on the hidden states of the original model: one forward pass, nothing trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgetfilter.filter.bench import Bench, was_read
from forgetfilter.filter.filtered import Filtered
from forgetfilter.filter.likeness import PENALTIES
from forgetfilter.filter.states import standardised
from forgetfilter.models.rendering import Encoded
from forgetfilter.records import KEPT, Row

FEWEST = 20  # rows with a score; fewer predict nothing
MOST = 4_000  # rows with a score that are learned from: more take minutes and change little


@dataclass(frozen=True, slots=True)
class Pairs:
    """By the pair's row id. Scores: larger = more likely unsafe, on the scale of the rows' own scores."""

    scores: Mapping[str, float]  # of the rejected answers
    rejected: Mapping[str, str]  # their text
    words: Mapping[str, str]  # of dropped and flagged pairs: what the other answer says about them
    swapped: Sequence[int]  # numbers of the rows whose two answers may be swapped

    @property
    def note(self) -> str:
        """What a person should know of them; "" for nothing."""
        if not self.swapped:
            return ""
        rows = ", ".join(map(str, self.swapped[:5])) + (", …" if len(self.swapped) > 5 else "")
        one = len(self.swapped) == 1
        return (
            f"{'1 pair' if one else f'{len(self.swapped)} pairs'} (row{'' if one else 's'} {rows}): the chosen answer "
            "is dropped or flagged, the rejected one reads safer; the two may be swapped"
        )

    def as_dict(self) -> dict[str, Any]:
        """For report.json."""
        return {"rejected_scored": len(self.scores), "swapped": list(self.swapped)}


def judge(
    bench: Bench,
    rejected: Sequence[Row],
    other: Sequence[Encoded],
    custom: Sequence[Encoded],
    found: Filtered,
) -> Pairs | None:
    """Score the rejected answers; None where the rows are no pairs.

    `rejected` are the rows with their other answer, in the order of `custom`, and `other` are they encoded.
    """
    if not len(rejected):
        return None
    scored = [z for z in custom if any(z.scored[1:])]
    others = [z for z in other if any(z.scored[1:])]
    can_read = bench.loaded.model is not None or (was_read(bench.run, scored) and was_read(bench.run, others))
    known = [i for i, z in enumerate(scored) if z.id in found.scores][:MOST]
    texts = {row.id.removesuffix("-rejected"): row.completion for row in rejected if row.messages}
    if len(known) < FEWEST or not others or not can_read:
        return Pairs({}, texts, {}, ())
    states = bench.readings(scored, "custom").answer[known], bench.readings(others, "rejected").answer
    y = np.array([found.scores[scored[i].id] for i in known])
    own, predicted = ridge(states[0], y, states[1])
    scores = {z.id.removesuffix("-rejected"): float(v) for z, v in zip(others, predicted, strict=True)}
    expected = {scored[i].id: float(v) for i, v in zip(known, own, strict=True)}
    return _compared(scores, texts, expected, custom, found)


def _compared(
    scores: Mapping[str, float], texts: Mapping[str, str], expected: Mapping[str, float], custom: Sequence[Encoded],
    found: Filtered,
) -> Pairs:  # fmt: skip
    """A pair looks swapped where the chosen answer stands out, and the rejected one less by the same measure."""
    words, swapped = {}, list[int]()
    cut = found.cut.drop_above if found.cut.flag_above is None else found.cut.flag_above
    for number, z in enumerate(custom):
        if found.cut.decisions[z.id] in KEPT or z.id not in scores:
            continue
        score = scores[z.id]
        words[z.id] = f"its rejected answer scores {score:.3g}"
        if score < expected.get(z.id, -np.inf) and (cut is None or score < cut):
            words[z.id] += ": the two answers may be swapped"
            swapped.append(number)
    return Pairs(scores, texts, words, swapped)


def ridge(x: np.ndarray, y: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predict `y` (rows,) of states `x` (rows, width), each row from a fit without it, and of `asked` (others, width).

    The penalty is the one that predicts best what was left out. Returns (rows,) and (others,).
    """
    both = standardised(np.concatenate([x, asked])) / np.sqrt(x.shape[1])
    middle = both[: len(x)].mean(0)
    known, others = both[: len(x)] - middle, both[len(x) :] - middle
    centred = y - y.mean()
    values, vectors = np.linalg.eigh(known @ known.T)
    along = vectors.T @ centred
    best = (np.inf, y, np.full(len(asked), y.mean()))
    for penalty in PENALTIES:
        weights = vectors @ (along / (values + penalty))
        left_out = weights / (vectors**2 / (values + penalty)).sum(
            1
        )  # what a fit without the row misses of it
        error = float((left_out**2).mean())
        if error < best[0]:
            best = (error, y - left_out, others @ (known.T @ weights) + y.mean())
    return best[1], best[2]
