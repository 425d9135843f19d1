"""A file too large to learn whole: the filter learns a sample, and judges the other rows by rows like them.

Ridge regression on the original model's hidden states predicts what a row that was not learned would have lost, from
what learned rows with like answers lost. That is compared with the same prediction for the witnesses, each from a fit
without itself. So the row's p-value means what a learned row's means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from forgetfilter.filter import cut, likeness
from forgetfilter.filter.algorithm import forget_filter, learn
from forgetfilter.filter.bench import Bench
from forgetfilter.filter.cut import Cut
from forgetfilter.filter.evidence import lost_by_row
from forgetfilter.filter.filtered import Filtered, for_all
from forgetfilter.filter.pairs import ridge
from forgetfilter.filter.states import Readings, standardised
from forgetfilter.filter.vetted import Verdict
from forgetfilter.models.rendering import Encoded
from forgetfilter.settings import FilterSettings

KINDS = 16  # groups of rows with like questions that the sample is drawn from
OTHERS = "rows of other kinds"  # as `algorithm.witness` calls bystanders where it compares with them


def find(
    bench: Bench, custom: Sequence[Encoded], review: Sequence[Encoded], s: FilterSettings,
    verdicts: Sequence[Verdict] = (),
) -> Filtered:  # fmt: skip
    """`forget_filter`, on a sample where the settings ask for one."""
    if wanted(custom, s):
        return filter_by_sample(bench, custom, review, s)
    return forget_filter(bench, custom, review, s, verdicts=verdicts)


def wanted(custom: Sequence[Encoded], s: FilterSettings) -> bool:
    """Whether the settings ask for a sample of these rows."""
    learnable = sum(any(z.scored[1:]) for z in custom)
    return s.algorithm != "vetted" and 0 < s.max_train_samples < learnable


def filter_by_sample(
    bench: Bench, custom: Sequence[Encoded], review: Sequence[Encoded], s: FilterSettings
) -> Filtered:
    """As `forget_filter`, learning at most `max_train_samples` rows; all that can be scored are scored."""
    scored = [z for z in custom if any(z.scored[1:])]
    mine = bench.readings(scored, "custom", review)
    chosen = draw(mine.question, s.max_train_samples, s.seed)
    found = forget_filter(bench, [scored[i] for i in chosen], review, replace(s, retrain=False))
    others = np.setdiff1d(np.arange(len(scored)), chosen)
    if found.measured:
        found = _extended(found, scored, others, review, mine, bench.readings(review, "safe"), s)
    note = (
        f"Learned a sample of {len(chosen):,} of {len(scored):,} rows (--max-train-samples); the others are judged by "
        "what learned rows with like answers lost"
    )
    otherwise = "not judged" if s.algorithm == "witness" else "unscored"
    found = replace(found, cut=for_all(found.cut, custom, otherwise), notes=[*found.notes, note])
    kept = found.kept(custom)
    if s.retrain and kept:
        learn(bench, "final", kept, s)
    elif s.retrain:
        bench.adopt("final", "original")
    return found


def draw(questions: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Numbers of `most` rows, ascending, from each kind of question in proportion, and from every kind at least one.

    `questions` are (rows, width) hidden states; rows of one kind are near each other (k-means).
    """
    from sklearn.cluster import MiniBatchKMeans

    random, count = np.random.default_rng(seed), min(KINDS, most)
    kinds = MiniBatchKMeans(count, n_init=1, random_state=seed).fit_predict(standardised(questions))
    sizes = np.bincount(kinds, minlength=count)
    due = sizes * most / len(questions)
    quota = np.minimum(np.maximum(1, np.floor(due)).astype(int), sizes)
    while quota.sum() > most:
        quota[np.argmax(np.where(quota > 1, quota - due, -np.inf))] -= 1
    while quota.sum() < most:
        quota[np.argmax(np.where(quota < sizes, due - quota, -np.inf))] += 1
    drawn = [random.permutation(np.flatnonzero(kinds == k))[:n] for k, n in enumerate(quota)]
    return np.sort(np.concatenate(drawn))


def _extended(
    found: Filtered, scored: Sequence[Encoded], others: np.ndarray, review: Sequence[Encoded], mine: Readings,
    safe: Readings, s: FilterSettings,
) -> Filtered:  # fmt: skip
    """What was found on the sample, with scores and decisions for the `others` (numbers of `scored` rows)."""
    lost = lost_by_row(found)
    places = {z.id: i for i, z in enumerate([*scored, *review])}
    measured = [z.id for z in found.measured if z.id in lost]
    at = np.array([places[row] for row in measured])
    states = np.concatenate([mine.answer, safe.answer])
    y = np.array([lost[row] for row in measured])
    if s.algorithm == "paper":
        _, predicted = ridge(states[at], y, mine.answer[others])
        return _above(found, {scored[i].id: float(v) for i, v in zip(others, predicted, strict=True)})
    near = np.intersect1d(others, likeness.kinds(mine.and_then(safe), len(scored)).near)
    if not len(near):
        return found
    if OTHERS in found.cut.compared:  # as the algorithm weighs them where it compares kinds
        tokens = {z.id: sum(z.scored[1:]) for z in found.measured}
        y = y * np.sqrt([tokens[row] for row in measured])
    typical = float(np.median(np.abs(y))) or 1.0
    own, predicted = ridge(states[at], np.arcsinh(y / typical), mine.answer[near])
    judged = np.array([row in found.scores for row in measured])
    clean = {"witnesses": own[at >= len(scored)]}
    if OTHERS in found.cut.compared:
        clean[OTHERS] = own[~judged & (at < len(scored))]
    ids = [scored[i].id for i in near]
    more = cut.by_witnesses(ids, predicted, clean, fdr=s.fdr, seed=s.seed)
    known = np.array([found.scores[row] for row in measured if row in found.scores])
    scores = _on_scale_of(predicted, own[judged], known)
    return replace(
        found,
        cut=_joined(found.cut, more, s),
        scores={**found.scores, **dict(zip(ids, scores.tolist(), strict=True))},
    )


def _above(found: Filtered, predicted: Mapping[str, float]) -> Filtered:
    """The others by the cut of the sample."""
    limit = found.cut.drop_above
    more = {row: "drop" if limit is not None and v > limit else "keep" for row, v in predicted.items()}
    return replace(
        found,
        cut=replace(found.cut, decisions={**found.cut.decisions, **more}),
        scores={**found.scores, **predicted},
    )


def _on_scale_of(values: np.ndarray, theirs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The score that stands at the same rank among `scores` as each value among `theirs`."""
    return np.interp(values, np.sort(theirs), np.sort(scores))


def _joined(learned: Cut, others: Cut, s: FilterSettings) -> Cut:
    """Both groups' decisions; each keeps the bound on clean rows among its dropped ones."""
    decisions, p = {**learned.decisions, **others.decisions}, {**learned.p_values, **others.p_values}
    dropped = np.array([decisions[row] == "drop" for row in p])
    known = min(learned.known, others.known)
    return replace(
        learned,
        decisions=decisions,
        p_values=p,
        why=f"{learned.why}. Rows that were not learned: {others.why}",
        weak=learned.weak and others.weak,
        known=known,
        estimated=cut.estimates(np.array(list(p.values())), dropped, known, s.seed),
    )
