"""A probe on the original model's hidden states: which rows read like those that a person called unsafe.

Logistic regression on the states of the rows with a verdict, asked about all rows. What it says of a row with
a verdict comes from a fit without that row, brought to the scale of the fit with all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Constants:
    """Chosen on BBQ (Age, Nationality), Davidson and BeaverTails rows among Alpaca; see benchmarks/RESULTS.md,
    "Vetted rows: what was tried"."""

    inverse_penalty: float = 1e-2  # 1e-3 to 3e-2 are alike; 1e-4 loses 0.01 of AUC on bias
    components: int = 150  # 75, 150, 300 and all are alike
    folds: int = 20  # each fit misses a twentieth of the verdicts, so that it is nearly the fit with all
    fewest_unsafe: int = 2  # below, no held-out fit of the unsafe rows: the clean ones against the rest


CONSTANTS = Constants()


def score(
    states: np.ndarray, vetted: np.ndarray, unsafe: np.ndarray, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all rows (rows,) and held-out scores of the vetted ones (vetted,); larger = more likely unsafe.

    `states` is (rows, width), standardised over the file; `vetted` holds row numbers, `unsafe` (vetted,) their
    verdicts. Both results are on one scale: a held-out score is put where the fit with all verdicts has the same
    share of the unvetted rows above it. With fewer than two unsafe or two clean verdicts there is nothing to
    hold out; then the vetted clean rows are told from all the rest, and both results are of that one fit.
    """
    vetted, unsafe = np.asarray(vetted, int), np.asarray(unsafe, bool)
    if unsafe.sum() < CONSTANTS.fewest_unsafe or (~unsafe).sum() < 2:
        scores = unlike_clean(states, vetted[~unsafe])
        return scores, scores[vetted]
    coordinates = _span(states, vetted)
    scores = _fit(coordinates, vetted, unsafe)
    others = np.setdiff1d(np.arange(len(states)), vetted)
    held_out = np.zeros(len(vetted))
    for out in _folds(unsafe, seed):
        without = np.setdiff1d(np.arange(len(vetted)), out)
        said = _fit(coordinates, vetted[without], unsafe[without])
        held_out[out] = _same_rank(said[vetted[out]], said[others], scores[others])
    return scores, held_out


def fitted(states: np.ndarray, vetted: np.ndarray, unsafe: np.ndarray) -> np.ndarray:
    """Scores of all rows (rows,) from one fit on all verdicts, which must be of both kinds; nothing is held out."""
    return _fit(_span(states, vetted), vetted, unsafe)


def unlike_clean(states: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Scores (rows,) of a fit that tells the `clean` rows from all others; zeros where there are none."""
    others = np.setdiff1d(np.arange(len(states)), clean)
    if not len(clean) or not len(others):
        return np.zeros(len(states))
    order = np.concatenate([clean, others])
    return _fit(_span(states, order), order, np.arange(len(order)) >= len(clean))


def _fit(coordinates: np.ndarray, rows: np.ndarray, unsafe: np.ndarray) -> np.ndarray:
    """Decision values of all rows (rows,), fitted on `rows`; both classes weigh the same."""
    weights = np.where(unsafe, 0.5 / unsafe.mean(), 0.5 / (1 - unsafe.mean()))
    slope, intercept = logistic(coordinates[rows], unsafe, CONSTANTS.inverse_penalty * weights)
    return coordinates @ slope + intercept


def logistic(x: np.ndarray, y: np.ndarray, weights: np.ndarray, steps: int = 30) -> tuple[np.ndarray, float]:
    """Slope (features,) and intercept that minimise |slope|²/2 + Σ weights · log-loss; `y` (rows,) is bool.

    Newton's method, halved where a step would not descend: a few steps of microseconds, where a general solver
    takes as many milliseconds, and a round of proposals needs twenty fits.
    """
    design = np.column_stack([x, np.ones(len(x))])
    signs, penalty = np.where(y, 1.0, -1.0), np.append(np.ones(x.shape[1]), 1e-8)
    theta = np.zeros(design.shape[1])

    def loss(at: np.ndarray) -> float:
        return 0.5 * float(penalty @ at**2) + float(weights @ np.logaddexp(0, -signs * (design @ at)))

    now = loss(theta)
    for _ in range(steps):
        chance = 1 / (1 + np.exp(-np.clip(design @ theta, -500, 500)))
        gradient = penalty * theta + design.T @ (weights * (chance - y))
        curvature = (design.T * (weights * chance * (1 - chance))) @ design + np.diag(penalty)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while (then := loss(theta - size * step)) > now and size > 1e-6:
            size /= 2
        theta, before, now = theta - size * step, now, min(then, now)
        if before - now <= 1e-10 * max(1.0, abs(now)):
            break
    return theta[:-1], float(theta[-1])


def _span(states: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Coordinates (all rows, at most `components`) in the span of `rows`, centred there.

    A penalised fit on `rows` lies in their span, so that few rows lose nothing and a fit takes milliseconds.
    """
    middle = states[rows].mean(0)
    some = (states[rows] - middle).astype(np.float64)
    if min(some.shape) <= 1:
        return (states - middle).astype(np.float64)
    values, vectors = np.linalg.eigh(some @ some.T if len(rows) < some.shape[1] else some.T @ some)
    kept = np.flatnonzero(values > 1e-9 * values[-1])[-CONSTANTS.components :]
    basis = vectors[:, kept]
    if len(rows) < some.shape[1]:
        basis = some.T @ (basis / np.sqrt(values[kept]))
    return (states - middle) @ basis


def _folds(unsafe: np.ndarray, seed: int) -> list[np.ndarray]:
    """Places of the verdicts in parts, unsafe and clean ones dealt out evenly, never all unsafe ones in one."""
    random = np.random.default_rng(seed)
    dealt = np.concatenate([random.permutation(np.flatnonzero(kind)) for kind in (unsafe, ~unsafe)])
    count = max(2, min(CONSTANTS.folds, len(unsafe)))
    return [part for k in range(count) if len(part := dealt[k::count])]


def _same_rank(values: np.ndarray, theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """`values` among `theirs` -> what stands at the same rank among `ours`; beyond the ends, at like distance."""
    if len(ours) < 2:
        return values
    theirs, ours = np.sort(theirs), np.sort(ours)
    stretch = (ours[-1] - ours[0]) / max(theirs[-1] - theirs[0], 1e-12)
    beyond = np.maximum(values - theirs[-1], 0) + np.minimum(values - theirs[0], 0)
    return np.interp(values, theirs, ours) + stretch * beyond
