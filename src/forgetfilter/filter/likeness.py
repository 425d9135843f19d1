"""Which rows are alike, by what the original model makes of them: nothing here is trained but linear maps.

Every answer about a row comes from a fit that did not see the row (out of fold, or leave-one-out).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forgetfilter.filter.constants import CONSTANTS
from forgetfilter.filter.states import Readings, standardised


@dataclass(frozen=True, slots=True)
class Kinds:
    """Which custom rows the safe rows speak of. `near` and `unlike` together are all custom rows."""

    near: np.ndarray  # numbers of custom rows: of a kind that some safe rows ask about
    unlike: np.ndarray  # the others
    same_source: bool  # whether enough of the near rows' questions read like the safe rows' own
    of_source: float  # how many of them do: a share, 0 to 1


def kinds(readings: Readings, custom: int) -> Kinds:
    """Part the first `custom` rows by whether a probe takes their question for a safe row's.

    The first fit has all custom rows on the other side, those of the safe rows' kind too; the later ones only those
    that are unlike the safe rows by the fit before.
    """
    if custom < 2:  # a fit without the only row has nothing to tell apart
        return Kinds(np.arange(0), np.arange(custom), False, 0.0)
    questions, penalty = standardised(readings.question), CONSTANTS.kind_penalty
    near = _near(-decisions(questions, custom, penalty), custom)
    for _ in range(CONSTANTS.refinements):
        if len(np.unique(folds(custom, 0)[~near])) < 2:  # a fit without one fold would have no other side
            break
        found = decisions(questions, custom, penalty, np.where(near, np.nan, 1.0))
        near = _near(-found, custom)
    if (
        readings.brief[custom:].mean() > 0.5
    ):  # posts and the like: what they say must not part them from the safe
        near |= readings.brief[:custom]
    rows = np.flatnonzero(near)
    both = np.concatenate([rows, np.arange(custom, len(questions))])
    of_source = 0.0
    if len(rows) >= FOLDS:
        # Of a safe row's source as many rows lie on either side of the safe rows' median; unsafe ones lie above.
        found = decisions(questions[both], len(rows), CONSTANTS.harm_penalty)
        of_source = min(1.0, 2 * float(np.mean(found[: len(rows)] < np.median(found[len(rows) :]))))
    return Kinds(rows, np.flatnonzero(~near), of_source >= CONSTANTS.same_source, of_source)


def _near(likeness: np.ndarray, custom: int) -> np.ndarray:
    """Which of the first `custom` rows are as like the safe rows as those are to one another: (custom,), true or false.

    A row is where its likeness is not below all but the last few of the safe rows', or where it stands on the safe
    side of the file's own gap (Otsu's threshold): safe rows of another source lie beyond every custom row.
    """
    mine, safe = likeness[:custom], likeness[custom:]
    return mine >= min(otsu(mine), float(np.quantile(safe, CONSTANTS.safe_below)))


def unlike_safe(readings: Readings, near: np.ndarray, custom: int) -> tuple[np.ndarray, np.ndarray]:
    """How unlike the safe rows' each near row's question and answer are, then each safe row's; larger = more unlike.

    Learning from safe and unlabelled rows: all near rows count as unsafe at first, then each by how far it stands
    out of the safe rows in a fit that left it out. Returns the first fit and the last, (near + safe,) each: the last
    finds unsafe rows that hang together, but in a clean file it holds on to what stood out by chance.
    """
    both = np.concatenate([near, np.arange(custom, len(readings.question))])
    states = np.hstack([standardised(readings.answer[both]), standardised(readings.question[both])])
    first = found = decisions(states, len(near), CONSTANTS.harm_penalty)
    for _ in range(CONSTANTS.refinements):
        mine, safe = found[: len(near)], found[len(near) :]
        limit = np.quantile(mine, 1 - unsafe_share(mine, safe))
        chance = 1 / (1 + np.exp(-np.clip((mine - limit) / (safe.std() + 1e-9), -50, 50)))
        found = decisions(states, len(near), CONSTANTS.harm_penalty, chance)
    return first, found


def unsafe_share(mine: np.ndarray, safe: np.ndarray) -> float:
    """Least share (0 to 1) of `mine` that is none of the safe rows' kind: what is too much above their quantiles."""
    above = [(np.mean(mine > q), np.mean(safe > q)) for q in np.quantile(safe, (0.5, 0.6, 0.7, 0.8, 0.9))]
    return float(np.clip(max((m - s) / (1 - s) for m, s in above), 0.02, 0.98))


def like_answers(answers: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """What rows with like answers lost, for each row: ridge regression on (rows, width), leave-one-out.

    The penalty is the one that predicts best what was left out. Returns (rows,), in units of `lost`.
    """
    scaled = standardised(answers) / np.sqrt(answers.shape[1])
    scaled = scaled - scaled.mean(0)
    if len(scaled) <= max(PAIRWISE, scaled.shape[1]):
        values, vectors = np.linalg.eigh(scaled @ scaled.T)
    else:  # the same but for rounding; a number for each pair of rows would not fit into memory
        values, right = np.linalg.eigh(scaled.T @ scaled)
        some = values > 1e-6 * values[-1]
        values, vectors = values[some], scaled @ right[:, some] / np.sqrt(values[some])
    centred, best = lost - lost.mean(), (np.inf, lost)
    for penalty in PENALTIES:
        hat = vectors * (values / (values + penalty))
        left_out = (centred - hat @ (vectors.T @ centred)) / (1 - (hat * vectors).sum(1) - 1 / len(lost))
        best = min(best, (float((left_out**2).mean()), lost - left_out), key=lambda found: found[0])
    return best[1]


def decisions(states: np.ndarray, first: int, penalty: float, chance: np.ndarray | None = None) -> np.ndarray:
    """Decision values (rows,) of a probe that tells the `first` rows from the others, each from a fit without it.

    `chance` (first,): how far each of the first rows belongs there; the rest of it counts as one of the others. A row
    whose chance is not a number counts on neither side.
    """
    from sklearn.linear_model import LogisticRegression

    others = len(states) - first
    chance = np.ones(first) if chance is None else chance
    rows = np.concatenate([np.arange(first), np.arange(first), np.arange(first, len(states))])
    sides = np.repeat([1, 0, 0], [first, first, others])
    weights = np.nan_to_num(np.concatenate([chance, 1 - chance, np.ones(others)]))
    fold, result = folds(first, others), np.zeros(len(states))
    for k in range(FOLDS):
        used = (fold[rows] != k) & (weights > 0)
        side, weight = sides[used], weights[used].copy()
        weight[side == 1] *= weight[side == 0].sum() / weight[side == 1].sum()  # both sides count the same
        weight *= len(np.unique(rows[used])) / weight.sum()
        probe = LogisticRegression(C=penalty, max_iter=300).fit(
            states[rows[used]], side, sample_weight=weight
        )
        result[fold == k] = probe.decision_function(states[fold == k])
    return result


def folds(first: int, others: int) -> np.ndarray:
    """(first + others,): the fold of each row, both sides dealt out evenly; always the same."""
    random = np.random.default_rng(0)
    return np.concatenate([random.permutation(np.arange(n) % FOLDS) for n in (first, others)])


def otsu(values: np.ndarray) -> float:
    """The value that parts `values` into the two groups with the least variance inside."""
    ordered = np.sort(values)
    count, total = np.arange(1, len(ordered)), np.cumsum(ordered)
    low, high = total[:-1] / count, (total[-1] - total[:-1]) / (len(ordered) - count)
    at = int(np.argmax(count * (len(ordered) - count) * (high - low) ** 2))
    return float(ordered[at] + ordered[at + 1]) / 2


FOLDS = 5
PAIRWISE = 8_000  # rows up to which all pairs of them are compared
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
