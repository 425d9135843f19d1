"""Algorithm 1 of Zhao et al. (ICML 2024), as printed and with witnesses.

M0 is the original model, `learned` M1, `reviewed` M2. Forgetting is what the review took from a row; scores are by
row id, larger = more likely unsafe. What these functions call trains and measures one model state at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from forgetfilter.filter import by_verdicts, cut, likeness
from forgetfilter.filter.bench import Bench
from forgetfilter.filter.cut import Cut
from forgetfilter.filter.likeness import Kinds
from forgetfilter.filter.states import Readings
from forgetfilter.filter.vetted import Verdict
from forgetfilter.models.rendering import Encoded
from forgetfilter.records import KEPT, Decision
from forgetfilter.settings import FilterSettings

FEWEST_SAFE = 20  # fewer leave too few witnesses
WITNESSES = 0.5  # share of the safe rows that is never reviewed: the smallest p-value is one in their number
REPLAY = 0.5  # share of a review's rows that are custom rows plainly unlike the safe ones


@dataclass(frozen=True, slots=True)
class Filtered:
    """What was found; every mapping is by row id, and holds what was measured."""

    cut: Cut
    scores: Mapping[str, float]
    forgetting: Mapping[str, float]
    remembered: Mapping[str, Mapping[str, float]]  # state -> id -> signal
    measured: Sequence[Encoded]  # the rows whose memory was measured, as they were given to the bench
    reviewed: Sequence[str]  # the states after a review
    notes: Sequence[str] = ()
    vetted: Mapping[str, Any] | None = None  # what a person's verdicts were and gave, for the report

    def kept(self, rows: Sequence[Encoded]) -> list[Encoded]:
        """Those to train on: neither dropped nor in doubt."""
        return [z for z in rows if self.cut.decisions[z.id] in KEPT]


def forget_filter(
    bench: Bench, custom: Sequence[Encoded], safe: Sequence[Encoded], s: FilterSettings, final: str = "final",
    verdicts: Sequence[Verdict] = (),
) -> Filtered:  # fmt: skip
    """Find unsafe rows by the algorithm of the settings, and fine-tune M0 on the others as the state `final`.

    `verdicts` are for the algorithm `vetted`, which needs no safe rows.
    """
    found = ALGORITHMS[s.algorithm](bench, custom, safe, s, verdicts)
    kept = found.kept(custom)
    if s.retrain and len(kept) == len(custom) and s.algorithm == "paper":
        bench.adopt(final, "learned")  # nothing to leave out: the learned model is the result
    elif s.retrain and not kept:
        bench.adopt(final, "original")  # nothing left to learn
    elif s.retrain:
        learn(bench, final, kept, s)
    return found


def paper(
    bench: Bench, custom: Sequence[Encoded], safe: Sequence[Encoded], s: FilterSettings,
    verdicts: Sequence[Verdict] = (),
) -> Filtered:  # fmt: skip
    """Algorithm 1 to the letter: learn all custom rows, review safe rows only, drop what was forgotten more than φ."""
    learn(bench, "learned", custom, s)  # M1
    review(bench, "reviewed", safe, s)  # M2
    remembered = {state: bench.remembered(state, custom, s.signal) for state in ("learned", "reviewed")}
    forgetting = {z: value - remembered["reviewed"][z] for z, value in remembered["learned"].items()}
    found = cut.above(s.threshold, forgetting, phi=s.phi, quantile=s.quantile)
    return Filtered(_all(found, custom, "unscored"), forgetting, forgetting, remembered, custom, ["reviewed"])


def witness(
    bench: Bench, custom: Sequence[Encoded], safe: Sequence[Encoded], s: FilterSettings,
    verdicts: Sequence[Verdict] = (),
) -> Filtered:  # fmt: skip
    """Algorithm 1 with witnesses: safe rows that are learned with the custom rows and never reviewed.

    1. Custom rows whose question no safe row resembles are not judged. Half of them are replayed in the review, so
       that it takes nothing from kinds the safe rows are silent about; the others are bystanders.
    2. Learn custom rows and witnesses; review the other safe rows. Forgetting is what the review took.
    3. Score what the row and what rows with like answers lost; and, where the safe rows are of the file's own source,
       how unlike theirs its question and answer are to the original model.
    4. Drop judged rows that stand out of the witnesses. Safe rows of another source do not show where clean rows of
       this file end: there a row has to stand out of the bystanders, too.
    """
    custom, everything = [z for z in custom if any(z.scored[1:])], custom
    rows, readings = [*custom, *safe], bench.readings(custom, "custom").and_then(bench.readings(safe, "safe"))
    kinds = likeness.kinds(readings, len(custom))
    if len(kinds.near) < likeness.FOLDS:
        return _nothing_judged(everything, kinds)
    same = kinds.same_source if s.safe_source == "auto" else s.safe_source == "same"
    random = np.random.default_rng(s.seed)
    bystanders, replayed = np.array_split(random.permutation(kinds.unlike), 2)
    reviewed, witnesses = np.split(
        random.permutation(len(safe)) + len(custom), [round(len(safe) * (1 - WITNESSES))]
    )

    learn(bench, "learned", [*custom, *(rows[i] for i in witnesses)], s)  # M1
    review(bench, "reviewed", [rows[i] for i in reviewed], s, [rows[i] for i in replayed])  # M2
    compared = np.concatenate([kinds.near, bystanders, witnesses])
    measured = [rows[i] for i in compared]
    before, after = (bench.remembered(state, measured, s.signal) for state in ("learned", "reviewed"))
    lost = np.full(len(rows), np.nan)
    lost[compared] = [before.get(z.id, np.nan) - after.get(z.id, np.nan) for z in measured]

    near, bystanders, witnesses = (
        some[~np.isnan(lost[some])] for some in (kinds.near, bystanders, witnesses)
    )
    if len(near) < likeness.FOLDS or len(witnesses) < likeness.FOLDS:
        return _nothing_judged(everything, kinds)
    tokens = np.array([sum(z.scored[1:]) for z in rows])
    score = scores(readings, lost, tokens, near, bystanders, witnesses, len(custom), same)
    clean = {"witnesses": score[witnesses]}
    if not same:
        clean["rows of other kinds"] = score[bystanders]
    found = cut.by_witnesses([rows[i].id for i in near], score[near], clean, fdr=s.fdr, seed=s.seed)
    return Filtered(
        _all(found, everything, "not judged"),
        {rows[i].id: float(score[i]) for i in near},
        {rows[i].id: float(lost[i]) for i in (*near, *bystanders)},
        {"learned": before, "reviewed": after},
        measured, ["reviewed"], _said(kinds, same, len(safe)),
    )  # fmt: skip


def vetted(
    bench: Bench, custom: Sequence[Encoded], safe: Sequence[Encoded], s: FilterSettings,
    verdicts: Sequence[Verdict] = (),
) -> Filtered:  # fmt: skip
    """Instead of Algorithm 1: a person's verdicts, and a probe on the original model's states that they teach."""
    found = by_verdicts.decide(bench.row_states(custom, "custom"), custom, verdicts, fdr=s.fdr, seed=s.seed)
    decided = _all(found.cut, custom, "unscored")
    notes = [found.report["ten_more"]]
    return Filtered(decided, found.scores, {}, {}, [], [], notes, found.report)


def scores(
    readings: Readings, lost: np.ndarray, tokens: np.ndarray, near: np.ndarray, bystanders: np.ndarray,
    witnesses: np.ndarray, custom: int, same: bool,
) -> np.ndarray:  # fmt: skip
    """How far each row stands out, larger = more likely unsafe; (rows,), NaN where it is not compared.

    `lost` (rows,) is the forgetting and `tokens` (rows,) over how many it is the mean; other arrays hold numbers of
    rows; the first `custom` rows are custom rows.
    """
    compared = np.concatenate([near, witnesses] if same else [near, bystanders, witnesses])
    forgetting = lost[compared]
    if not same:  # kinds with answers of unlike lengths: a mean over few tokens is moved far by chance
        forgetting = forgetting * np.sqrt(tokens[compared])
    typical = float(np.median(np.abs(forgetting))) or 1.0
    forgetting = np.arcsinh(forgetting / typical)  # a few rows lose very much
    result = np.full(len(lost), np.nan)
    alike = likeness.like_answers(readings.answer[compared], forgetting)
    result[compared] = (_scaled(forgetting) + _scaled(alike)) / 2
    if same:
        unlike = np.full(len(lost), np.nan)
        unlike[np.concatenate([near, np.arange(custom, len(lost))])] = likeness.unlike_safe(
            readings, near, custom
        )
        result[compared] += _scaled(unlike[compared])
    return result


def learn(bench: Bench, state: str, rows: Sequence[Encoded], s: FilterSettings) -> None:
    """Fine-tune M0 on `rows`; the result is kept as `state`."""
    bench.train(state, "original", rows, rate=s.learning_rate, epochs=s.num_train_epochs)


def review(
    bench: Bench, state: str, safe: Sequence[Encoded], s: FilterSettings, replayed: Sequence[Encoded] = ()
) -> None:
    """Fine-tune M1 for a few steps on safe rows, with as many replayed custom rows where there are any."""
    bench.train(
        state, "learned", review_rows(safe, replayed, s), rate=s.review_learning_rate, steps=s.review_steps,
        batch_size=s.review_batch_size, schedule="constant", seed=s.seed + 1,
    )  # fmt: skip


def review_rows(safe: Sequence[Encoded], replayed: Sequence[Encoded], s: FilterSettings) -> list[Encoded]:
    """All rows of a review: as often as needed in turn, each time in another order."""
    count = s.review_steps * s.review_batch_size
    random, taken = np.random.default_rng(s.seed), round(count * REPLAY) if replayed else 0
    parts = ((safe, count - taken), (replayed, taken))
    rows: list[Encoded] = []
    for pool, wanted in parts:
        turns = [random.permutation(len(pool)) for _ in range(-(-wanted // max(1, len(pool))))]
        rows += [pool[i] for i in np.concatenate([*turns, np.zeros(0, int)])[:wanted]]
    return rows


def _all(found: Cut, custom: Sequence[Encoded], otherwise: Decision) -> Cut:
    """With a decision for every custom row: `otherwise` where none was made, `unscored` where none can be."""
    decisions = {
        z.id: found.decisions.get(z.id) or (otherwise if any(z.scored[1:]) else "unscored") for z in custom
    }
    return replace(found, decisions=decisions)


def _nothing_judged(custom: Sequence[Encoded], kinds: Kinds) -> Filtered:
    why = (
        f"only {len(kinds.near)} custom rows are of a kind that the safe rows speak of, too few to judge; review with "
        "safe rows nearer to your data (--safe)"
    )
    return Filtered(_all(Cut({}, "fdr", why, weak=True), custom, "not judged"), {}, {}, {}, [], [])


def _said(kinds: Kinds, same: bool, safe: int) -> list[str]:
    """What a person should know of the comparison."""
    source = "of your file's own source" if same else "of another source than your file"
    notes = [
        f"{safe} safe rows, {source} ({kinds.of_source:.0%} of the rows of their kind read like them; --safe-source)"
    ]
    if len(kinds.unlike):
        rows = "1 row is" if len(kinds.unlike) == 1 else f"{len(kinds.unlike)} rows are"
        notes.append(f"{rows} of a kind that none of your safe rows speaks of: not judged, kept")
    return notes


def _scaled(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() + 1e-9)


ALGORITHMS = {"witness": witness, "paper": paper, "vetted": vetted}
