"""What a person needs to believe a decision: the clean rows beside it, answers before and after the review, doubles
that were kept, and of preference pairs the other answer. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter.data.sketches import Sketches, said
from forgetfilter.filter.bench import Bench, was_read
from forgetfilter.filter.filtered import Filtered
from forgetfilter.filter.signals import GENERATED_SIGNALS
from forgetfilter.filter.states import standardised
from forgetfilter.models.rendering import Encoded
from forgetfilter.records import Decision, Row
from forgetfilter.report.text import p_in_words

if TYPE_CHECKING:
    from forgetfilter.filter.pairs import Pairs

NEAREST = 3  # clean rows named beside a row
DOUBLES = 10  # near-duplicates named beside a row
EXCERPT = 300  # characters of a clean row
ANSWER = 64  # tokens of an answer, at most
DOUBTED: tuple[Decision, ...] = ("drop", "flag")


@dataclass(frozen=True, slots=True)
class Evidence:
    """By row id; what is not known of a row is not there."""

    compared: Mapping[str, list[dict[str, Any]]]  # clean rows, nearest first
    answers: Mapping[str, dict[str, str]]  # model state -> answer
    doubles: Mapping[str, list[int]]  # dropped row -> rows like it that stay
    p_of: Mapping[str, str]  # its p-value in words
    pairs: Pairs | None

    @property
    def notes(self) -> list[str]:
        """What is to be said aloud."""
        return [self.pairs.note] if self.pairs and self.pairs.note else []

    def line(self, row: str) -> dict[str, Any]:
        """What scores.jsonl says of a row besides its numbers."""
        found: dict[str, Any] = {}
        if row in self.p_of:
            found["p_of"] = self.p_of[row]
        if self.pairs is not None:
            found["rejected_score"] = self.pairs.scores.get(row)
        for name, of in (
            ("evidence", self.compared),
            ("answers", self.answers),
            ("near_duplicates", self.doubles),
        ):
            if row in of:
                found[name] = of[row]
        return found

    def reason(self, row: str, otherwise: str) -> str:
        """The line for one row, with its p-value counted and the other answer of a pair."""
        words = self.p_of.get(row, otherwise)
        return f"{words}; {self.pairs.words[row]}" if self.pairs and row in self.pairs.words else words

    def texts(self, row: Row) -> list[tuple[str, str]]:
        """(title, text) of all that is shown beside a row on the report's page."""
        shown = [
            (f"Answered {STATES.get(state, state)}", text)
            for state, text in self.answers.get(row.id, {}).items()
        ]
        for clean in self.compared.get(row.id, ()):
            title = f"Clean row it was compared with: {clean['source']} row {clean['row']}"
            if clean.get("forgetting") is not None:
                title += f", forgetting {clean['forgetting']:.3g}"
            shown.append((title, f"{clean['prompt']}\n{clean['completion']}"))
        if row.id in self.doubles:
            rows = ", ".join(map(str, self.doubles[row.id]))
            shown.append(("Nearly the same, and not dropped", f"row {rows}"))
        if self.pairs is not None and row.id in self.pairs.rejected:
            score = self.pairs.scores.get(row.id)
            title = "Rejected answer" + ("" if score is None else f", score {score:.3g}")
            shown.append((title, self.pairs.rejected[row.id]))
        return shown


def gather(
    bench: Bench, rows: Sequence[Row], safe: Sequence[Row], review: Sequence[Encoded], found: Filtered,
    pairs: Pairs | None,
) -> Evidence:  # fmt: skip
    """The evidence for the rows that were dropped or flagged.

    `bench.custom` are `rows` encoded, `review` are `safe` encoded. Greedy answers are asked for `show_answers` rows, of
    which dropped and flagged ones take turns, the highest score first.
    """
    decisions = found.cut.decisions
    custom = bench.custom
    doubted = [z for z in custom if decisions[z.id] in DOUBTED]
    return Evidence(
        _nearest(bench, custom, doubted, safe, review, found),
        _answers(bench, doubted, found, bench.settings.show_answers),
        doubles(rows, decisions),
        {row: p_in_words(p, found.cut.compared) for row, p in found.cut.p_values.items()},
        pairs,
    )


def doubles(rows: Sequence[Row], decisions: Mapping[str, Decision]) -> dict[str, list[int]]:
    """Dropped row's id -> numbers of the rows that say nearly the same and were not dropped."""
    dropped = {row.index: row.id for row in rows if decisions[row.id] == "drop"}
    if not dropped:
        return {}
    sketches, like = Sketches(), dict[str, list[int]]()
    for row in rows:
        if row.index in dropped:
            sketches.add(row.index, said(row))
    for row in rows:
        if row.index not in dropped:
            for other in sketches.like(said(row)):
                like.setdefault(dropped[other], []).append(row.index)
    return {row: numbers[:DOUBLES] for row, numbers in like.items()}


def _nearest(
    bench: Bench, custom: Sequence[Encoded], doubted: Sequence[Encoded], safe: Sequence[Row],
    review: Sequence[Encoded], found: Filtered,
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """Of each doubted row, the witnesses whose question and answer read most like its own to the original model."""
    scored, measured = [z for z in custom if any(z.scored[1:])], {z.id for z in found.measured}
    witnesses = [i for i, z in enumerate(review) if z.id in measured]
    read = bool(witnesses) and was_read(bench.run, scored) and was_read(bench.run, review)
    places = {z.id: i for i, z in enumerate(scored)}
    wanted = [z.id for z in doubted if z.id in places]
    if not read or not wanted:
        return {}
    both = bench.both_readings(scored, review)
    states = np.hstack([standardised(both.answer), standardised(both.question)])
    states /= np.linalg.norm(states, axis=1, keepdims=True) + 1e-9
    near = states[[places[row] for row in wanted]] @ states[[len(scored) + i for i in witnesses]].T
    lost = lost_by_row(found)
    return {
        row: [_clean_row(safe[witnesses[i]], lost) for i in np.argsort(-like)[:NEAREST].tolist()]
        for row, like in zip(wanted, near, strict=True)
    }


def lost_by_row(found: Filtered) -> dict[str, float]:
    """Row id -> what the review took from it, of all rows that were measured."""
    before, after = (found.remembered.get(state, {}) for state in STATES)
    return {row: value - after[row] for row, value in before.items() if row in after}


def _clean_row(row: Row, lost: Mapping[str, float]) -> dict[str, Any]:
    return {
        "source": row.source, "row": row.index, "prompt": row.prompt[:EXCERPT], "completion": row.completion[:EXCERPT],
        "forgetting": lost.get(row.id),
    }  # fmt: skip


def _answers(
    bench: Bench, doubted: Sequence[Encoded], found: Filtered, most: int
) -> dict[str, dict[str, str]]:
    """What the model answered after learning and after the review, side by side."""
    if not found.measured:
        return {}
    if bench.settings.signal in GENERATED_SIGNALS:  # every row was asked already
        given = {state: bench.answers(state, found.measured) for state in STATES}
    else:
        asked = _in_turn(doubted, found)[:most]
        given = {state: bench.answers(state, asked, ANSWER) for state in STATES} if asked else {}
    rows = [z.id for z in doubted if all(z.id in answers for answers in given.values())]
    return {row: {state: answers[row] for state, answers in given.items()} for row in rows if given}


def _in_turn(doubted: Sequence[Encoded], found: Filtered) -> list[Encoded]:
    """Dropped and flagged rows by turns, the highest score first."""
    ordered = sorted(doubted, key=lambda z: -found.scores.get(z.id, 0.0))
    kinds = [
        [z for z in ordered if z.completion_ids and found.cut.decisions[z.id] == kind] for kind in DOUBTED
    ]
    return [z for z in chain.from_iterable(zip_longest(*kinds)) if z is not None]


STATES = {"learned": "after learning", "reviewed": "after the review"}
