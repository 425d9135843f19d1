from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetfilter.intervals import (
    Estimate,
    auc_interval,
    bootstrap,
    count_below,
    mean_over_seeds,
    student_t,
    wilson,
)


def ends(estimate: Estimate | None) -> tuple[float, float]:
    assert estimate is not None and estimate.low is not None and estimate.high is not None
    return estimate.low, estimate.high


def known(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


def test_an_estimate_prints_value_interval_and_size():
    assert str(Estimate(0.9118, 0.8931, 0.931, 1200)) == "0.912 [0.893, 0.931] (n=1200)"
    assert str(Estimate(0.5, 0.25, 0.75, 3, seeds=3)) == "0.500 [0.250, 0.750] (seeds=3)"
    assert str(Estimate(0.5, None, None, 1, seeds=1)) == "0.500 [no interval] (seeds=1)"


def test_an_estimate_in_the_report_names_seeds_only_when_counted():
    assert Estimate(0.5, 0.4, 0.6, 9).as_dict() == {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    assert Estimate(0.5, 0.4, 0.6, 3, seeds=3).as_dict()["seeds"] == 3


def test_wilson_by_hand():
    # z = 1.959964, z² = 3.841459, n = 10, p = 0.8: middle (0.8 + 0.192073)/1.384146 = 0.716738,
    # half 1.959964·√(0.016 + 0.00960365)/1.384146 = 0.226578
    share = wilson(8, 10)
    assert known(share) == 0.8
    assert ends(share) == pytest.approx((0.490162, 0.943317), abs=1e-5)


def test_wilson_at_nothing_and_at_all_has_width():
    # with none of n: high = z²/(n + z²)
    assert ends(wilson(0, 20)) == (0.0, pytest.approx(3.841459 / 23.841459, abs=1e-6))
    assert ends(wilson(20, 20)) == (pytest.approx(20 / 23.841459, abs=1e-6), 1.0)


def test_no_trials_give_no_share():
    assert wilson(0, 0) is None
    with pytest.raises(ValueError, match="5 successes of 4"):
        wilson(5, 4)


@given(st.integers(1, 500), st.data())
def test_wilson_mirrors_and_holds_its_value(n: int, data: st.DataObject):
    hits = data.draw(st.integers(0, n))
    low, high = ends(wilson(hits, n))
    assert 0 <= low <= hits / n <= high <= 1
    assert ends(wilson(n - hits, n)) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),  # from printed tables
    [
        (0.975, 1, 12.706205),
        (0.975, 2, 4.302653),
        (0.975, 3, 3.182446),
        (0.975, 4, 2.776445),
        (0.975, 9, 2.262157),
        (0.975, 30, 2.042272),
        (0.95, 2, 2.919986),
        (0.995, 2, 9.924843),
        (0.995, 5, 4.032143),
        (0.5, 7, 0.0),
        (0.025, 2, -4.302653),
    ],
)
def test_t_quantiles_equal_the_printed_ones(probability: float, degrees: int, expected: float):
    assert student_t(probability, degrees) == pytest.approx(expected, abs=1e-6)


def test_t_quantiles_meet_closed_forms_and_the_normal_limit():
    # one degree: Cauchy; two degrees: (2p − 1)·√2/√(4p(1 − p))
    for p in (0.6, 0.9, 0.999):
        assert student_t(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)))
        assert student_t(p, 2) == pytest.approx((2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p))))
    assert student_t(0.975, 3000) == pytest.approx(1.959964, abs=2e-3)


def test_mean_over_three_seeds_by_hand():
    # mean 0.9, standard deviation 0.1, half width 4.302653·0.1/√3
    mean = mean_over_seeds([0.8, 0.9, 1.0])
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert known(mean) == pytest.approx(0.9)
    assert ends(mean) == pytest.approx((0.9 - half, 0.9 + half), abs=1e-6)
    assert mean is not None and mean.seeds == 3


def test_one_seed_gives_a_mean_without_an_interval_and_none_gives_nothing():
    assert mean_over_seeds([0.7]) == Estimate(0.7, None, None, 1, seeds=1)
    assert mean_over_seeds([]) is None


def test_bootstrap_of_a_mean_comes_near_the_t_interval():
    values = np.random.default_rng(0).normal(3, 2, 400)
    drawn, exact = bootstrap(values, np.mean, seed=1, draws=4000), mean_over_seeds(list(values))
    low, high = ends(exact)
    assert known(drawn) == pytest.approx(known(exact))
    assert ends(drawn) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_bootstrap_is_the_same_drawn_together_or_one_by_one_and_for_the_same_seed():
    values = np.random.default_rng(0).normal(size=50)
    together = bootstrap(values, np.median, seed=4)
    assert bootstrap(values, lambda sample: float(np.median(sample)), seed=4) == together
    assert bootstrap(values, np.median, seed=4) == together
    assert bootstrap(values, np.median, seed=5) != together


def test_bootstrap_draws_whole_rows():
    # the second column is always twice the first, so no draw can have another ratio
    pairs = np.array([[1.0, 2.0], [2.0, 4.0], [5.0, 10.0]])
    ratio = bootstrap(pairs, lambda rows: rows[:, 1].sum() / rows[:, 0].sum(), seed=0, draws=50)
    assert ratio == Estimate(2.0, 2.0, 2.0, 3)


def test_bootstrap_leaves_out_draws_where_the_statistic_is_undefined():
    def share_of_twos_among_positives(sample: np.ndarray) -> float | None:
        positives = sample[sample > 0]
        return float((positives == 2).mean()) if len(positives) else None

    estimate = bootstrap([0, 0, 0, 1, 2], share_of_twos_among_positives, seed=0)
    assert (known(estimate), *ends(estimate)) == (0.5, 0.0, 1.0)
    assert bootstrap([0, 0], share_of_twos_among_positives, seed=0) is None
    assert bootstrap([], np.mean, seed=0) is None


def test_count_below_counts_ties_half():
    # below 2: the 1, and three ties at a half each
    assert count_below(np.array([2.0, 0.0, 3.0]), np.array([1.0, 2.0, 2.0, 2.0])).tolist() == [2.5, 0, 4]


def test_delong_by_hand():
    # positives 2, 4; negatives 1, 3. 2 beats one of two, 4 both: placements ½, 1 (variance 1/8);
    # 1 lies below both, 3 below one: 1, ½ (1/8). AUC 3/4, variance (1/8)/2 + (1/8)/2 = 1/8.
    area = auc_interval([2, 4], [1, 3])
    assert area is not None
    assert (area.value, area.n) == (0.75, 4)
    half = 1.959964 * math.sqrt(1 / 8) / (0.75 * 0.25)
    expected = [1 / (1 + math.exp(-(math.log(3) + step))) for step in (-half, half)]
    assert ends(area) == pytest.approx(expected, abs=1e-6)


def test_delongs_standard_error_equals_the_pairwise_definition():
    rng = random.Random(2)
    positives = [round(rng.gauss(0.7, 1), 1) for _ in range(40)]
    negatives = [round(rng.gauss(0, 1), 1) for _ in range(55)]
    wins = [[(p > q) + 0.5 * (p == q) for q in negatives] for p in positives]
    by_positive = [sum(row) / 55 for row in wins]
    by_negative = [sum(column) / 40 for column in zip(*wins, strict=True)]
    area = sum(by_positive) / 40
    variance = (
        sum((v - area) ** 2 for v in by_positive) / 39 / 40
        + sum((v - area) ** 2 for v in by_negative) / 54 / 55
    )
    estimate = auc_interval(positives, negatives)
    assert known(estimate) == pytest.approx(area)
    low, high = ends(estimate)
    width = math.log(high / (1 - high)) - math.log(low / (1 - low))  # on the logit scale
    assert width / 2 * area * (1 - area) / 1.959964 == pytest.approx(math.sqrt(variance), abs=1e-6)


def test_classes_wholly_apart_still_leave_doubt_that_shrinks_with_rows():
    few, many = auc_interval(range(10, 15), range(5)), auc_interval(range(1000, 1500), range(500))
    (theta, few_high), (many_low, many_high) = ends(few), ends(many)
    assert known(few) == few_high == many_high == 1.0
    assert theta < 0.85
    assert 0.98 < many_low < 1.0
    # at the end, θ is z standard errors (Hanley & McNeil with Newcombe's common size) below 1
    spread = 4 * ((1 - theta) / (2 - theta) + theta / (1 + theta))
    assert 1 - theta == pytest.approx(1.959964 * math.sqrt(theta * (1 - theta) * (1 + spread) / 25), abs=1e-6)


def test_equal_scores_and_a_single_row_say_little():
    for positives, negatives in (([1] * 5, [1] * 5), ([1], [1] * 9)):
        area = auc_interval(positives, negatives)
        low, high = ends(area)
        assert known(area) == 0.5
        assert low < 0.3
        assert low == pytest.approx(1 - high, abs=1e-9)


def test_an_absent_class_has_no_auc():
    assert auc_interval([], [1, 2]) is None
    assert auc_interval([1, 2], []) is None


def test_about_95_of_100_delong_intervals_hold_the_true_area():
    # normal scores one standard deviation apart: the true area is Φ(1/√2) = 0.760250
    random_ = np.random.default_rng(5)
    intervals = [ends(auc_interval(random_.normal(1, 1, 40), random_.normal(0, 1, 60))) for _ in range(1000)]
    held = sum(low <= 0.760250 <= high for low, high in intervals)
    assert 925 <= held <= 975
