"""Algorithm 1 of Zhao et al. (ICML 2024), as printed and with witnesses.

M0 is the original model, `learned` M1, `reviewed` M2. Forgetting is what the review took from a row; scores are by
row id, larger = more likely unsafe. What these functions call trains and measures one model state at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forgetfilter.filter import by_verdicts, cut, likeness
from forgetfilter.filter.bench import Bench
from forgetfilter.filter.constants import CONSTANTS
from forgetfilter.filter.filtered import Filtered, for_all, notes, nothing_judged
from forgetfilter.filter.score import scores
from forgetfilter.filter.vetted import Verdict
from forgetfilter.models.rendering import Encoded
from forgetfilter.settings import FilterSettings


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
    return Filtered(for_all(found, custom, "unscored"), forgetting, forgetting, remembered, custom)


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
    rows, readings = [*custom, *safe], bench.both_readings(custom, safe)
    kinds = likeness.kinds(readings, len(custom))
    if len(kinds.near) < likeness.FOLDS:
        return nothing_judged(everything, len(kinds.near))
    same = kinds.same_source if s.safe_source == "auto" else s.safe_source == "same"
    random = np.random.default_rng(s.seed)
    bystanders, replayed = np.array_split(random.permutation(kinds.unlike), 2)
    reviewed, witnesses = np.split(
        random.permutation(len(safe)) + len(custom), [round(len(safe) * (1 - CONSTANTS.witnesses))]
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
        return nothing_judged(everything, len(near), len(witnesses))
    tokens = np.array([sum(z.scored[1:]) for z in rows])
    score = scores(readings, lost, tokens, near, bystanders, witnesses, len(custom), same)
    clean = {"witnesses": score[witnesses]}
    if not same:
        clean["rows of other kinds"] = score[bystanders]
    found = cut.by_witnesses([rows[i].id for i in near], score[near], clean, fdr=s.fdr, seed=s.seed)
    return Filtered(
        for_all(found, everything, "not judged"),
        {rows[i].id: float(score[i]) for i in near},
        {rows[i].id: float(lost[i]) for i in (*near, *bystanders)},
        {"learned": before, "reviewed": after},
        measured, notes(kinds, same, len(safe)),
    )  # fmt: skip


def vetted(
    bench: Bench, custom: Sequence[Encoded], safe: Sequence[Encoded], s: FilterSettings,
    verdicts: Sequence[Verdict] = (),
) -> Filtered:  # fmt: skip
    """Instead of Algorithm 1: a person's verdicts, and a probe on the original model's states that they teach."""
    found = by_verdicts.decide(bench.row_states(custom, "custom"), custom, verdicts, fdr=s.fdr, seed=s.seed)
    decided = for_all(found.cut, custom, "unscored")
    return Filtered(decided, found.scores, {}, {}, [], [found.report["ten_more"]], found.report)


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
    random, taken = np.random.default_rng(s.seed), round(count * CONSTANTS.replay) if replayed else 0
    parts = ((safe, count - taken), (replayed, taken))
    rows: list[Encoded] = []
    for pool, wanted in parts:
        turns = [random.permutation(len(pool)) for _ in range(-(-wanted // max(1, len(pool))))]
        rows += [pool[i] for i in np.concatenate([*turns, np.zeros(0, int)])[:wanted]]
    return rows


ALGORITHMS = {"witness": witness, "paper": paper, "vetted": vetted}
