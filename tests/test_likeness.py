"""Kinds, likeness and like answers: on synthetic hidden states with a known answer, and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from forgetfilter.filter import likeness
from forgetfilter.filter.constants import CONSTANTS
from forgetfilter.filter.states import Readings, standardised

WIDTH, NEAR, UNLIKE, SAFE = 24, 40, 40, 60


def readings(question: np.ndarray, answer: np.ndarray | None = None) -> Readings:
    answer = question if answer is None else answer
    return Readings(answer, question, np.zeros(len(question), bool))


def area_of(values: np.ndarray, unsafe: np.ndarray) -> float:
    """The share of pairs of an unsafe and a clean row in which the unsafe one is larger."""
    return float(np.mean(values[unsafe][:, None] > values[~unsafe]))


def along(seed: int) -> np.ndarray:
    """(WIDTH,): a direction that every column has a part in, as meaning has in hidden states."""
    return np.random.default_rng(seed).choice([-1.0, 1.0], WIDTH)


def two_kinds(*, apart: float = 0.0, kinds_apart: float = 1.5, seed: int = 0) -> Readings:
    """40 custom rows of the safe rows' kind, 40 of another, 60 safe rows; distances per column, in standard deviations.

    `apart`: of the safe rows' own source from the near rows. `kinds_apart`: of the two kinds of custom rows.
    """
    question = np.random.default_rng(seed).normal(size=(NEAR + UNLIKE + SAFE, WIDTH))
    question[NEAR : NEAR + UNLIKE] += kinds_apart * along(100)
    question[NEAR + UNLIKE :] += apart * along(101)
    return readings(question)


def test_custom_rows_of_the_safe_rows_kind_are_near_and_the_others_unlike():
    found = likeness.kinds(two_kinds(), NEAR + UNLIKE)
    assert found.near.tolist() == list(range(NEAR))
    assert found.unlike.tolist() == list(range(NEAR, NEAR + UNLIKE))


@pytest.mark.parametrize(("safe_brief", "near"), [(0.6, NEAR + 10), (0.4, NEAR)])
def test_brief_rows_are_near_whatever_they_say_where_most_safe_rows_are_brief(safe_brief, near):
    given = two_kinds()
    given.brief[NEAR : NEAR + 10] = True  # ten posts of the other kind
    given.brief[NEAR + UNLIKE :] = np.arange(SAFE) < safe_brief * SAFE
    assert likeness.kinds(given, NEAR + UNLIKE).near.tolist() == list(range(near))


def test_near_and_unlike_are_all_custom_rows_and_no_safe_row():
    found = likeness.kinds(two_kinds(kinds_apart=0.2, seed=3), NEAR + UNLIKE)
    assert sorted([*found.near, *found.unlike]) == list(range(NEAR + UNLIKE))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("apart", "same"), [(0.0, True), (0.8, False)])
def test_the_source_of_the_safe_rows_is_told_by_their_questions(apart, same, seed):
    found = likeness.kinds(two_kinds(apart=apart, seed=seed), NEAR + UNLIKE)
    assert found.same_source is same
    assert (found.of_source > 0.5) is same


def test_safe_rows_of_another_source_beyond_every_custom_row_still_find_their_kind():
    # Every safe row is further on the safe side than any custom row: the file's own gap decides.
    question = np.random.default_rng(1).normal(size=(NEAR + UNLIKE + SAFE, WIDTH)) / 3
    question += np.outer(np.repeat([0.0, -1.0, 1.5], [NEAR, UNLIKE, SAFE]), along(100))
    found = likeness.kinds(readings(question), NEAR + UNLIKE)
    assert found.near.tolist() == list(range(NEAR)) and not found.same_source


def known_answers(seed: int = 0) -> tuple[Readings, np.ndarray, np.ndarray]:
    """120 near rows, 40 of them unsafe by their answer, 80 safe rows; (readings, near, unsafe)."""
    random = np.random.default_rng(seed)
    states = random.normal(size=(200, WIDTH))
    unsafe = np.arange(120) < 40
    states[:120][unsafe] += 0.7 * along(102)
    return readings(random.normal(size=(200, WIDTH)), states), np.arange(120), unsafe


def test_unsafe_rows_are_more_unlike_the_safe_rows_than_clean_ones_and_clean_ones_are_like_them():
    found, near, unsafe = known_answers()
    first, last = likeness.unlike_safe(found, near, 120)
    assert first.shape == last.shape == (200,)
    assert area_of(first[:120], unsafe) > 0.8 and area_of(last[:120], unsafe) > 0.9
    for unlike in (first, last):
        clean, safe = unlike[:120][~unsafe], unlike[120:]
        both = np.concatenate([clean, safe])
        assert 0.35 < area_of(both, np.arange(len(both)) < len(clean)) < 0.65


def test_weighing_unlabelled_rows_beats_taking_them_all_for_unsafe():
    found, near, unsafe = known_answers(seed=1)
    plain, weighed = (fit[:120] for fit in likeness.unlike_safe(found, near, 120))
    assert area_of(weighed, unsafe) > area_of(plain, unsafe)


def test_the_unsafe_share_by_hand():
    safe = np.arange(100.0)
    # Half of them as the safe rows are, half beyond: a share m = 0.5 s + 0.5 is above where s of the safe rows are.
    assert likeness.unsafe_share(np.concatenate([safe, np.full(100, 1e3)]), safe) == pytest.approx(0.5)
    assert likeness.unsafe_share(safe, safe) == 0.02
    assert likeness.unsafe_share(safe + 1e3, safe) == 0.98


@pytest.mark.parametrize("row", [3, 33])  # of the first rows, of the others
def test_a_decision_comes_from_a_fit_that_did_not_see_the_row(row):
    states = np.random.default_rng(0).normal(size=(50, 6))
    states[:20, 0] += 1
    before, fold = likeness.decisions(states, 20, 1.0), likeness.folds(20, 30)
    states[row] = 40.0  # turned into nonsense
    after = likeness.decisions(states, 20, 1.0)
    mates = np.flatnonzero((fold == fold[row]) & (np.arange(50) != row))
    assert len(mates) >= 8 and after[mates] == pytest.approx(before[mates], abs=1e-12)
    assert np.abs(after - before)[fold != fold[row]].min() > 1e-9  # the others' fits did see it


@pytest.mark.parametrize("chance", [0.0, 0.5])
def test_a_rows_own_side_does_not_change_its_folds_fit(chance):
    random = np.random.default_rng(0)
    states = random.normal(size=(50, 6))
    belongs = np.ones(20)
    before = likeness.decisions(states, 20, 1.0, belongs)
    assert before == pytest.approx(likeness.decisions(states, 20, 1.0), abs=1e-12)
    belongs[3] = chance
    after, fold = likeness.decisions(states, 20, 1.0, belongs), likeness.folds(20, 30)
    own = fold == fold[3]
    assert own[3] and after[own] == pytest.approx(before[own], abs=1e-12)
    assert np.abs(after[~own] - before[~own]).min() > 1e-9


def test_folds_deal_both_sides_out_evenly_and_always_alike():
    fold = likeness.folds(23, 31)
    assert set(np.bincount(fold[:23])) == {4, 5} and set(np.bincount(fold[23:])) == {6, 7}
    assert (fold == likeness.folds(23, 31)).all()


def by_brute_force(answers: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Ridge regression with a free intercept, fitted anew without each row."""
    from sklearn.linear_model import Ridge

    scaled = standardised(answers) / np.sqrt(answers.shape[1])
    best, found = np.inf, lost
    for penalty in likeness.PENALTIES:
        said = np.array([
            Ridge(alpha=penalty).fit(np.delete(scaled, i, 0), np.delete(lost, i)).predict(scaled[i : i + 1])[0]
            for i in range(len(lost))
        ])  # fmt: skip
        if np.mean((said - lost) ** 2) < best:
            best, found = np.mean((said - lost) ** 2), said
    return found


@pytest.mark.parametrize(("rows", "width", "noise"), [(14, 4, 0.1), (14, 4, 3.0), (12, 30, 0.3)])
def test_what_like_answers_lost_is_ridge_regression_with_each_row_left_out(rows, width, noise):
    random = np.random.default_rng(rows + width)
    answers = random.normal(size=(rows, width)) * 3 + 1
    lost = answers[:, 0] + noise * random.normal(size=rows) + 5
    assert likeness.like_answers(answers, lost) == pytest.approx(by_brute_force(answers, lost), rel=1e-6)


def test_more_rows_than_can_be_compared_in_pairs_are_predicted_the_same(monkeypatch):
    random = np.random.default_rng(3)
    answers = random.normal(size=(300, 12)) * 3 + 1
    answers[:, 11] = answers[:, 10]  # a direction in which nothing differs
    lost = answers[:, 0] + random.normal(size=300)
    in_pairs = likeness.like_answers(answers, lost)
    monkeypatch.setattr(likeness, "PAIRWISE", 200)
    assert likeness.like_answers(answers, lost) == pytest.approx(in_pairs, rel=1e-9)


def test_a_rows_own_loss_has_no_part_in_what_like_answers_lost():
    random = np.random.default_rng(0)
    answers, lost = random.normal(size=(40, 8)), random.normal(size=40)
    lost = lost + 4 * answers[:, 0]
    other = lost.copy()
    other[7] += 0.01  # too little for another penalty to be best
    assert likeness.like_answers(answers, other)[7] == pytest.approx(
        likeness.like_answers(answers, lost)[7], abs=1e-9
    )


def test_otsus_value_parts_by_hand():
    assert likeness.otsu(np.array([10.0, 0.0, 11.0, 1.0])) == 5.5
    # Between-group variances n1 n2 (difference of means)²: 3 · 2 · 7.5² = 337.5 for {0 0 0 | 6 9}, which is the most:
    # 2 · 3 · 5² = 150 for {0 0 | 0 6 9}, 4 · 1 · 7.5² = 225 for {0 0 0 6 | 9}.
    assert likeness.otsu(np.array([0.0, 6.0, 0.0, 9.0, 0.0])) == 3.0


@pytest.mark.parametrize(
    "nonsense",
    [
        {"kind_penalty": 1e6},  # every row learned by heart: no coarse kinds
        {"safe_below": 0.99},
        {"same_source": 0.0},
        {"same_source": 1.1},
        {"harm_penalty": 1e6},
        {"refinements": 0},
    ],
    ids=str,
)
def test_nonsense_in_place_of_a_constant_is_noticed_by_what_the_tests_above_ask(nonsense, monkeypatch):
    def asked() -> tuple[bool, ...]:
        answers, near, unsafe = known_answers()
        mild = likeness.kinds(two_kinds(kinds_apart=0.6, seed=2), NEAR + UNLIKE)
        return (
            bool(likeness.kinds(two_kinds(apart=0.8), NEAR + UNLIKE).same_source is False),
            bool(likeness.kinds(two_kinds(), NEAR + UNLIKE).same_source is True),
            bool(np.isin(np.arange(NEAR), mild.near).mean() > 0.9),
            bool(np.isin(mild.near, np.arange(NEAR)).mean() > 0.9),
            bool(area_of(likeness.unlike_safe(answers, near, 120)[1][:120], unsafe) > 0.96),
        )

    assert all(asked())
    monkeypatch.setattr(likeness, "CONSTANTS", replace(CONSTANTS, **nonsense))
    assert not all(asked())
