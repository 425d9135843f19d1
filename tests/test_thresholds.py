"""Scores -> cut, on scores whose groups are known because the test drew them."""

from __future__ import annotations

import numpy as np
import pytest

from forgetfilter import thresholds
from forgetfilter.thresholds import Cut, cut


def named(values) -> dict[str, float]:
    return {f"r{i}": float(v) for i, v in enumerate(values)}


def groups(
    share: float, *, n: int = 900, distance: float = 4.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Clean rows around 0.1, unsafe ones `distance` widths above; the mask tells which is which."""
    rng = np.random.default_rng(seed)
    unsafe = np.arange(n) < round(share * n)
    return np.where(unsafe, 0.1 + 0.25 * distance, 0.1) + 0.25 * rng.standard_normal(n), unsafe


def f1(dropped: np.ndarray, unsafe: np.ndarray) -> float:
    return 2 * (dropped & unsafe).sum() / (dropped.sum() + unsafe.sum())


def test_a_score_equal_to_the_cut_is_kept_and_one_between_flag_and_cut_is_flagged():
    found = Cut(1.0, 0.5, "fixed", "")
    assert [found.decide(s) for s in (1.1, 1.0, 0.6, 0.5, -3.0, None)] == [
        "drop", "flag", "flag", "keep", "keep", "unscored",
    ]  # fmt: skip


def test_fixed_cuts_at_phi():
    assert cut("fixed", named([0.0, 0.2]), phi=0.1, quantile=0.8).drop_above == 0.1


def test_quantile_drops_the_upper_share_and_none_of_equal_scores():
    scores = np.arange(10.0)
    found = cut("quantile", named(scores), phi=0, quantile=0.8)
    assert sum(s > found.drop_above for s in scores) == 1  # the 0.8 quantile of 0..9 is 7.2, "higher": 8
    equal = cut("quantile", named([1.0] * 10), phi=0, quantile=0.8)
    assert equal.drop_above == 1.0


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75])
def test_auto_comes_near_the_best_possible_f1_at_any_share(share):
    scores, unsafe = groups(share)
    found = cut("auto", named(scores), phi=0, quantile=0, gain=0.6)
    best = max(f1(scores > c, unsafe) for c in scores)
    assert f1(scores > found.drop_above, unsafe) > best - 0.03


def test_auto_finds_nothing_to_remove_where_no_group_was_forgotten():
    scores, _ = groups(0.0)
    found = cut("auto", named(scores), phi=0, quantile=0, gain=0.6)
    assert found.drop_above is None and not found.weak


def test_auto_takes_the_share_of_rows_from_no_label_and_no_order():
    scores, _ = groups(0.3)
    forth = cut("auto", named(scores), phi=0, quantile=0, gain=0.6)
    back = cut("auto", named(scores[::-1]), phi=0, quantile=0, gain=0.6)
    assert forth.drop_above == pytest.approx(back.drop_above)


def test_auto_scales_with_the_scores():
    scores, _ = groups(0.3)
    one = cut("auto", named(scores), phi=0, quantile=0, gain=0.6)
    ten = cut("auto", named(10 * scores), phi=0, quantile=0, gain=6.0)
    assert ten.drop_above == pytest.approx(10 * one.drop_above, rel=1e-3)


def test_auto_says_weak_where_it_cannot_tell():
    assert cut("auto", named([0.1] * 50), phi=0, quantile=0, gain=1.0).weak  # all the same
    assert cut("auto", named(range(5)), phi=0, quantile=0, gain=1.0).weak  # too few


def test_auto_removes_nothing_where_the_review_taught_the_safe_rows_little():
    scores, _ = groups(0.3)
    lost = float(np.median(scores[scores > 0]))
    little = thresholds.SHARE * lost
    assert cut("auto", named(scores), phi=0, quantile=0, gain=1.01 * little).drop_above is not None
    found = cut("auto", named(scores), phi=0, quantile=0, gain=0.99 * little)
    assert found.drop_above is None and not found.weak and "no sign of harm" in found.why


def test_auto_removes_nothing_where_the_forgotten_lost_next_to_nothing_beside_what_the_review_taught():
    scores, unsafe = groups(0.3)
    lost = float(scores[unsafe].mean())
    assert cut("auto", named(scores), phi=0, quantile=0, gain=0.9 * lost / thresholds.LEAST).drop_above
    found = cut("auto", named(scores), phi=0, quantile=0, gain=1.1 * lost / thresholds.LEAST)
    assert found.drop_above is None and not found.weak and "next to nothing" in found.why


def test_auto_goes_by_what_a_safe_row_was_taught_where_the_forgotten_run_into_the_others():
    rng = np.random.default_rng(0)  # one peak, with a shoulder
    scores = np.append(0.05 + 0.1 * rng.standard_normal(600), 0.25 + 0.25 * rng.standard_normal(300))
    near = cut("auto", named(scores), phi=0, quantile=0, gain=0.3)
    lost = np.median(scores[scores > 0])  # less than the gain
    assert near.drop_above == pytest.approx(lost * thresholds.NEAR) and "run into the others" in near.why
    nearer = cut("auto", named(scores), phi=0, quantile=0, gain=0.1)
    assert nearer.drop_above == pytest.approx(0.1 * thresholds.NEAR) and nearer.drop_above < near.drop_above
    far = cut("auto", named(scores), phi=0, quantile=0, gain=4.0)
    assert far.drop_above is None and not far.weak
    # Told so that it can be looked at again; and not done where no kind of row lost what was lost.
    assert near.close and not far.close
    kind = cut("auto", named(scores), phi=0, quantile=0, gain=0.3, explained=thresholds.KIND)
    assert kind == near
    none = cut("auto", named(scores), phi=0, quantile=0, gain=0.3, explained=thresholds.KIND - 0.01)
    assert none.drop_above is None and not none.close and "explains only 29%" in none.why


def test_auto_cuts_one_wide_group_only_where_words_tell_that_a_kind_of_row_was_forgotten():
    scores = 0.1 + 0.2 * np.random.default_rng(0).standard_normal(900)
    lost = np.median(scores[scores > 0])
    found = cut("auto", named(scores), phi=0, quantile=0, gain=0.2, explained=0.4)
    assert found.drop_above == pytest.approx(thresholds.NEAR * min(0.2, lost)) and found.close
    for gain, explained in ((0.2, 0.2), (0.2, None), (1.0, 0.4)):
        found = cut("auto", named(scores), phi=0, quantile=0, gain=gain, explained=explained)
        assert found.drop_above is None and not found.weak


def test_auto_is_not_in_doubt_where_groups_stand_apart():
    scores, _ = groups(0.3)
    found = cut("auto", named(scores), phi=0, quantile=0, gain=0.3, explained=0.0)
    assert found.drop_above is not None and not found.close


def test_auto_finds_a_narrow_unsafe_group_among_the_upper_tail_of_a_wide_safe_one():
    rng = np.random.default_rng(0)
    scores = np.append(rng.laplace(-0.005, 0.045, 600), rng.normal(0.06, 0.015, 500))
    unsafe = np.arange(1100) >= 600
    found = cut("auto", named(scores), phi=0, quantile=0, gain=0.2)
    best = max(f1(scores > c, unsafe) for c in scores)
    assert best < 0.95  # the wide group's upper tail lies above the unsafe rows
    assert f1(scores > found.drop_above, unsafe) > best - 0.03


def test_values_in_the_wrong_order_share_their_mean():
    assert thresholds._falling(np.array([3.0, 1, 2, 0])).tolist() == [3, 1.5, 1.5, 0]
    assert thresholds._falling(np.array([0.0, 0, 3])).tolist() == [1, 1, 1]
    assert thresholds._falling(np.array([2.0, 1])).tolist() == [2, 1]


def test_auto_does_not_take_rows_that_stayed_for_forgotten_where_others_gained():
    scores = np.concatenate(
        [groups(0.0)[0] - 3.0, groups(0.0, seed=1)[0]]
    )  # rows that gained, rows that stayed
    assert cut("auto", named(scores), phi=0, quantile=0, gain=1.0).drop_above is None


def test_auto_removes_nothing_where_no_row_was_forgotten():
    found = cut("auto", named(-np.arange(1.0, 31.0)), phi=0, quantile=0, gain=1.0)
    assert found.drop_above is None and not found.weak


def test_auto_never_flags_what_it_drops():
    scores, _ = groups(0.4, distance=3.0)
    found = cut("auto", named(scores), phi=0, quantile=0, gain=0.3)
    assert found.flag_above < found.drop_above


@pytest.mark.parametrize("name", ["fixed", "auto"])
def test_estimates_that_were_not_shown_to_hold_are_null(name):
    assert cut(name, named(groups(0.3)[0]), phi=0.5, quantile=0, gain=0.6).estimated == {
        "unsafe_share": None, "precision": None, "recall": None,
    }  # fmt: skip
    assert set(thresholds.THRESHOLDS) == {"auto", "fixed", "quantile"}
