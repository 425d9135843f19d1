"""Scores that borrow from rows that say the same: by hand, and against leaving each row out one by one."""

from __future__ import annotations

import numpy as np
import pytest

from forgetfilter.filter import smoothing
from forgetfilter.filter.smoothing import explained, predicted, smoothed
from forgetfilter.models.rendering import Encoded


def row(name: str, ids: list[int], asked: int = 0) -> Encoded:
    own = [i >= asked for i in range(len(ids))]
    return Encoded(name, ids, own, own, asked, False)


def two_kinds(count: int, seed: int = 0) -> tuple[list[Encoded], dict[str, float], dict[str, bool]]:
    """Rows of two kinds that differ in their words, one of which loses more, by a noisy measurement."""
    rng = np.random.default_rng(seed)
    rows, lost, bad = [], {}, {}
    for i in range(count):
        kind = i % 2
        words = rng.integers(100 * kind, 100 * kind + 30, 12)
        rows.append(row(f"r{i}", [int(t) for t in words]))
        lost[f"r{i}"], bad[f"r{i}"] = float(rng.normal(kind, 1.0)), bool(kind)
    return rows, lost, bad


def auc(scores: dict[str, float], bad: dict[str, bool]) -> float:
    pairs = [(scores[a], scores[b]) for a in scores if bad[a] for b in scores if not bad[b]]
    return float(np.mean([x > y for x, y in pairs]))


def test_the_closed_form_is_what_leaving_each_row_out_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoothing, "PENALTIES", (0.3,))
    rng = np.random.default_rng(1)
    features, values = rng.normal(size=(20, 6)), rng.normal(size=20)
    expected = predicted(features, values)
    for i in range(20):
        others = np.arange(20) != i
        # Ridge with a free intercept on the other 19 rows, solved outright.
        x = np.column_stack([features[others], np.ones(19)])
        solved = np.linalg.solve(x.T @ x + np.diag([0.3] * 6 + [0.0]), x.T @ values[others])
        assert expected[i] == pytest.approx(float(np.append(features[i], 1) @ solved))


def test_the_penalty_is_the_one_with_the_least_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(30, 8))
    values = features[:, 0] + rng.normal(size=30)
    best = ((values - predicted(features, values)) ** 2).sum()
    one_by_one = []
    for penalty in smoothing.PENALTIES:
        monkeypatch.setattr(smoothing, "PENALTIES", (penalty,))
        one_by_one.append(((values - predicted(features, values)) ** 2).sum())
    assert best == min(one_by_one) < max(one_by_one)


def test_many_rows_are_dealt_into_blocks_that_do_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, lost, bad = two_kinds(400)
    together = smoothed(lost, rows)
    seen: list[int] = []

    def watched(features: np.ndarray, values: np.ndarray) -> np.ndarray:
        seen.append(len(values))
        return predicted(features, values)

    monkeypatch.setattr(smoothing, "MOST_TOGETHER", 150)
    monkeypatch.setattr(smoothing, "predicted", watched)
    dealt = smoothed(lost, rows)
    assert seen == [134, 133, 133] and set(dealt) == set(lost)
    assert auc(dealt, bad) > auc(together, bad) - 0.05


def test_a_noisy_loss_of_rows_of_a_kind_is_told_better_with_the_others() -> None:
    rows, lost, bad = two_kinds(200)
    found = smoothed(lost, rows)
    assert explained(lost, rows) > 0.1
    assert auc(dict(lost), bad) < 0.8
    assert auc(found, bad) > auc(dict(lost), bad) + 0.1


def test_where_words_tell_nothing_each_row_stands_for_itself() -> None:
    rows, _, _ = two_kinds(120)
    rng = np.random.default_rng(3)
    lost = {z.id: float(x) for z, x in zip(rows, rng.normal(size=120), strict=True)}
    found = smoothed(lost, rows)
    assert explained(lost, rows) < 0.05
    order = np.array([[lost[z.id], found[z.id]] for z in rows]).argsort(0).argsort(0)
    assert np.corrcoef(order.T)[0, 1] > 0.95


def test_scores_keep_their_unit() -> None:
    rows, lost, _ = two_kinds(100)
    one = smoothed(lost, rows)
    ten = smoothed({z: 10 * x for z, x in lost.items()}, rows)
    assert all(ten[z] == pytest.approx(10 * one[z], rel=1e-6, abs=1e-9) for z in one)


def test_unscored_rows_are_left_out_and_too_few_or_equal_ones_stay_as_they_are() -> None:
    rows, lost, _ = two_kinds(40)
    del lost["r3"]
    assert set(smoothed(lost, rows)) == set(lost)
    assert smoothed({"r0": 1.0, "r1": 2.0}, rows) == {"r0": 1.0, "r1": 2.0}
    same = {z.id: 0.5 for z in rows}
    assert smoothed(same, rows) == same and explained(same, rows) == 0
    assert smoothed({}, rows) == {} and explained({}, rows) == 0


def test_it_counts_whether_a_row_was_forgotten_not_how_much() -> None:
    rows, _, bad = two_kinds(200)
    rng = np.random.default_rng(4)
    wide = {z: float(np.exp(rng.normal(0, 0.5))) if is_bad else -0.5 for z, is_bad in bad.items()}
    even = {z: 1.0 if is_bad else -0.5 for z, is_bad in bad.items()}
    assert explained(wide, rows) > explained(even, rows) - 0.15 > 0.5
    assert explained({z: -abs(x) for z, x in wide.items()}, rows) == 0


def test_rows_that_all_say_the_same_tell_nothing() -> None:
    rows = [row(f"r{i}", [1, 2, 3]) for i in range(10)]
    lost = {z.id: float(i) for i, z in enumerate(rows)}
    found = smoothed(lost, rows)
    assert explained(lost, rows) <= 0 and found == pytest.approx(lost)


def test_only_what_is_answered_tells_a_kind_of_answer() -> None:
    rng = np.random.default_rng(5)
    kinds = [i % 2 for i in range(120)]
    lost = {f"r{i}": float(rng.normal(3 * kind, 1.0)) for i, kind in enumerate(kinds)}

    def words(kind: int) -> list[int]:
        return [int(t) for t in rng.integers(100 * kind, 100 * kind + 30, 8)]

    asked = [row(f"r{i}", words(kind) + words(5), asked=8) for i, kind in enumerate(kinds)]
    answered = [row(f"r{i}", words(5) + words(kind), asked=8) for i, kind in enumerate(kinds)]
    assert explained(lost, asked) < 0.1 < 0.5 < explained(lost, answered)
    assert np.corrcoef([smoothed(lost, asked)[z] for z in lost], kinds)[0, 1] > 0.85  # the score goes by both
