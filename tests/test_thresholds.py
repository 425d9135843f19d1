"""Scores -> cut, on scores whose groups are known because the test drew them."""

from __future__ import annotations

import numpy as np
import pytest

from forgetfilter.filter import thresholds
from forgetfilter.filter.thresholds import Cut, cut


def named(values) -> dict[str, float]:
    return {f"r{i}": float(v) for i, v in enumerate(values)}


def groups(
    share: float, *, n: int = 900, distance: float = 4.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Clean rows around -0.2, unsafe ones `distance` widths above; the mask tells which is which."""
    rng = np.random.default_rng(seed)
    unsafe = np.arange(n) < round(share * n)
    return np.where(unsafe, 0.25 * distance - 0.2, -0.2) + 0.25 * rng.standard_normal(n), unsafe


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
    assert sum(s > found.drop_above for s in scores) == 2
    for n, share, dropped in ((40, 0.95, 2), (40, 0.5, 20), (5, 0.8, 1), (7, 0.5, 3)):  # at most the share
        found = cut("quantile", named(np.arange(float(n))), phi=0, quantile=share)
        assert sum(s > found.drop_above for s in range(n)) == dropped
    equal = cut("quantile", named([1.0] * 10), phi=0, quantile=0.8)
    assert equal.drop_above == 1.0


def auto(scores, *, gain=0.8, explained=0.4) -> Cut:
    return cut("auto", named(scores), phi=0, quantile=0, gain=gain, explained=explained)


@pytest.mark.parametrize(
    ("share", "gain"),  # the gain less and more than the unsafe rows lost
    [(0.1, 3.0), (0.25, 3.0), (0.5, 3.0), (0.75, 3.0), (0.25, 0.3), (0.5, 0.3), (0.75, 0.3)],
)
def test_auto_comes_near_the_best_possible_f1_at_any_share(share, gain):
    scores, unsafe = groups(share)
    best = max(f1(scores > c, unsafe) for c in scores)
    assert f1(scores > auto(scores, gain=gain).drop_above, unsafe) > best - (0.07 if share == 0.1 else 0.05)


@pytest.mark.parametrize("gain", [-0.05, 0.2, 0.5, 2.0])
def test_auto_parts_what_lost_little_from_what_lost_much_whatever_was_taught(gain):
    scores = np.append(np.full(30, 0.4), np.full(70, -0.1))
    found = auto(scores, gain=gain)
    assert found.drop_above == pytest.approx(0.1)  # the square of half of the root
    assert found.flag_above == pytest.approx(0.1 * thresholds.NEARLY)
    assert found.worn == (gain < 0.4)


def test_the_typical_forgotten_row_counts_each_row_by_what_it_lost():
    scores = np.concatenate([np.full(20, 0.3), np.full(30, 0.1), np.full(50, -0.5)])
    typical = (20 * 0.09 + 30 * 0.01) / (20 * 0.3 + 30 * 0.1)
    assert thresholds.typical(scores) == pytest.approx(typical)
    assert auto(scores, gain=0.99 * typical).worn and not auto(scores, gain=1.01 * typical).worn


def test_where_no_gain_is_known_the_cut_is_phi():
    scores = np.append(np.full(30, 0.4), np.full(70, -0.1))
    unknown = cut("auto", named(scores), phi=0.3, quantile=0, gain=None, explained=0.4)
    assert unknown.drop_above == 0.3 and not unknown.worn
    assert cut("auto", named(scores), phi=0, quantile=0, gain=None, explained=0.4).drop_above == 0


def test_of_two_groups_that_lost_only_the_upper_one_is_dropped_but_one_wide_group_as_a_whole():
    rng = np.random.default_rng(2)
    gained, worn, gone = rng.normal(-0.3, 0.05, 400), rng.normal(0.4, 0.05, 400), rng.normal(1.5, 0.1, 200)
    assert 0.6 < thresholds.parting(np.concatenate([gained, worn, gone])) < 1.2
    wide = rng.normal(1.0, 0.2, 300) ** 2
    assert 0 < thresholds.parting(np.concatenate([gained, wide])) < np.quantile(wide, 0.05)


def test_the_split_has_the_largest_variance_between_its_groups():
    values = np.random.default_rng(4).exponential(size=60)

    def between(at: float) -> float:
        low, high = values[values <= at], values[values > at]
        mean = values.mean()
        return len(low) * (low.mean() - mean) ** 2 + len(high) * (high.mean() - mean) ** 2

    at, share = thresholds.split(values)
    assert between(at) == pytest.approx(max(between(v) for v in values if v < values.max()))
    assert share == pytest.approx(between(at) / (len(values) * values.var()))
    assert thresholds.split(np.array([5.0, 0.0, 0.0, 1.0]))[0] == 3.0
    assert thresholds.split(np.linspace(0, 1, 1000))[1] == pytest.approx(thresholds.EVEN, abs=1e-3)
    assert thresholds.split(np.array([2.0])) == thresholds.split(np.array([2.0, 2.0])) == (2.0, 0.0)


def test_auto_scales_with_the_scores_and_goes_by_no_order():
    scores, _ = groups(0.3)
    one = auto(scores, gain=0.6)
    assert auto(10 * scores, gain=6.0).drop_above == pytest.approx(10 * one.drop_above)
    assert auto(scores[::-1], gain=0.6).drop_above == pytest.approx(one.drop_above)


def test_auto_says_weak_where_it_cannot_tell():
    assert auto([0.1] * 50, gain=1.0).weak  # all the same
    assert auto(range(5), gain=1.0).weak  # too few


def test_auto_says_weak_where_the_review_took_from_safe_rows_it_did_not_see():
    scores = np.append(np.full(30, 0.4), np.full(70, -0.1))
    most = thresholds.ERODED * 0.4
    found = auto(scores, gain=-1.01 * most)
    assert found.drop_above is None and found.weak
    assert "more safe rows" in found.why and f"{1.01 * most:.3g}" in found.why
    assert auto(scores, gain=-0.99 * most).drop_above is not None


@pytest.mark.parametrize(
    ("most", "told"), [(thresholds.SHARE, "no sign of harm"), (1 / thresholds.LEAST, "next to nothing")]
)
def test_auto_removes_nothing_where_little_was_taught_or_little_was_lost_beside_the_other(most, told):
    lost = 0.4
    scores = np.append(np.full(30, lost), np.full(70, -0.1))
    inside, outside = (1.01, 0.99) if most < 1 else (0.99, 1.01)
    assert auto(scores, gain=inside * most * lost).drop_above is not None
    found = auto(scores, gain=outside * most * lost)
    assert found.drop_above is None and not found.weak and told in found.why
    assert "no sign" in auto(scores, gain=-0.99 * thresholds.SHARE * lost).why


@pytest.mark.parametrize(("gain", "least"), [(0.3, thresholds.KIND), (3.0, thresholds.DRIFT)])
def test_auto_drops_only_where_the_answers_tell_that_a_kind_of_them_was_forgotten(gain, least):
    scores, _ = groups(0.3)
    assert auto(scores, gain=gain, explained=1.01 * least).drop_above is not None
    found = auto(scores, gain=gain, explained=0.99 * least)
    assert found.drop_above is None and not found.weak and f"{0.99 * least:.0%}" in found.why
    assert "explain 0%" in auto(scores, gain=gain, explained=-0.2).why


def test_auto_removes_nothing_where_no_row_was_forgotten():
    found = auto(-np.arange(1.0, 31.0), gain=1.0)
    assert found.drop_above is None and not found.weak


@pytest.mark.parametrize("name", ["fixed", "auto"])
def test_estimates_that_were_not_shown_to_hold_are_null(name):
    assert cut(name, named(groups(0.3)[0]), phi=0.5, quantile=0, gain=0.8, explained=0.4).estimated == {
        "unsafe_share": None, "precision": None, "recall": None,
    }  # fmt: skip
    assert set(thresholds.THRESHOLDS) == {"auto", "fixed", "quantile"}
