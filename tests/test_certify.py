"""Cuts by vetted rows and the intervals beside them, against hand calculations and simulated files."""

import math

import numpy as np
import pytest
from scipy.stats import beta, binom

from forgetfilter.errors import ConfigError
from forgetfilter.filter import certify, probe, propose


def file_of(rows, share, gap, seed, width=8):
    """States (rows, width) whose first column stands `gap` higher in unsafe rows, and the truth."""
    random = np.random.default_rng(seed)
    unsafe = random.random(rows) < share
    states = random.normal(size=(rows, width))
    states[:, 0] += gap * unsafe
    return states, unsafe


def certified(states, unsafe, seen, drawn, fdr=0.1):
    scores, held_out = probe.score(states, seen, unsafe[seen])
    return certify.cut(scores, held_out, seen, unsafe[seen], np.arange(len(seen)) < drawn, fdr)


def test_the_exact_interval_is_where_the_binomial_tails_are():
    found = certify.exact(3, 20)
    assert binom.cdf(3, 20, found.high) == pytest.approx(0.025)
    assert binom.sf(2, 20, found.low) == pytest.approx(0.025)
    assert certify.exact(0, 20).low == 0 and certify.exact(0, 20).high == pytest.approx(
        beta.ppf(0.975, 1, 20)
    )
    assert certify.exact(0, 0) is None


def test_what_is_left_of_a_file_differs_from_what_was_drawn_as_much_as_the_other_way_round():
    # 3 of 20: 0.032 to 0.379 of 40 rows are 1.28 to 15.16 rows, less the 3 seen: 0 to 12.16 of the other 20.
    found = certify.remaining(3, 20, 20)
    assert (found.value, found.low) == (0.15, 0.0)
    assert found.high == pytest.approx(2 * certify.exact(3, 20).high - 0.15)
    assert certify.remaining(3, 20, 10**9).high == pytest.approx(certify.exact(3, 20).high)


@pytest.mark.parametrize("rows", [100, 1000])
def test_a_rate_holds_the_truth_where_half_of_the_file_was_drawn(rows):
    random, held = np.random.default_rng(1), []
    for _ in range(400):
        truth = random.random(100 + rows) < 0.3
        chance = np.clip(0.3 + 0.3 * (truth - 0.3) + 0.1 * random.normal(size=len(truth)), 0, 1)
        found = certify.rate(truth[:100], chance[:100], chance[100:])
        held.append(found.low <= truth[100:].mean() <= found.high)
    assert 0.92 <= np.mean(held) <= 0.985


def test_rows_are_selected_as_benjamini_hochberg_says_by_hand():
    # 19 random verdicts, witnesses at 0 and 1: p is 1/20 above both, 2/20 between, 3/20 below.
    scores = np.array([5.0, 4.0, 3.0, 2.0, 0.5, -1.0])
    # Of 6 rows at fdr 0.1 the k-th needs p <= k/60: four rows at 1/20 = 3/60 pass, five at 6/60 do not.
    assert certify.selected(scores, np.array([0.0, 1.0]), 19, 0, 0.1) == (4, 2.0)
    # Nothing is above the witnesses often enough with 8 verdicts: p >= 1/9 > 6/60.
    assert certify.selected(scores, np.array([0.0, 1.0]), 8, 0, 0.1) == (0, math.inf)
    # 20 known unsafe rows count as discoveries: p = 1/9 <= (20 + k) / 60.
    assert certify.selected(scores, np.array([0.0, 1.0]), 8, 20, 0.1)[0] == 6


def test_rows_of_one_score_are_dropped_together_or_not_at_all():
    k, threshold = certify.selected(np.array([3.0, 3.0, 3.0, 0.0]), np.array([]), 39, 0, 0.1)
    assert (k, threshold) == (4, 0.0)
    # Two alike at p = 2/40 need 4p <= 0.1 k, so k = 2 of them pass only together.
    k, threshold = certify.selected(
        np.array([1.0, 1.0, -5.0, -5.0]), np.array([0.0] * 30 + [2.0]), 39, 0, 0.1
    )
    assert (k, threshold) == (2, 1.0)


def test_how_many_more_verdicts_would_do_is_what_does():
    scores = np.array([5.0, 4.0, 3.0, *[-1.0] * 57])
    more = certify.needed(scores, np.array([0.0] * 9), 9, 0, 0.1)
    assert more == 200 - 1 - 9  # 60 p <= 0.1 * 3 where p = 1 / (n + 1)
    for n, dropped in ((9 + more, 3), (9 + more - 1, 0)):  # as many witnesses as verdicts, all of them clean
        assert certify.selected(scores, np.array([0.0] * n), n, 0, 0.1)[0] == dropped


@pytest.mark.parametrize("known", [0, 1])
def test_without_two_unsafe_verdicts_only_verdicts_drop(known):
    states, unsafe = file_of(200, 0.0, 0, 1)
    unsafe[:known] = True
    found = certified(states, unsafe, np.arange(50), 50)
    assert found.how == "nothing" and found.dropped.sum() == known
    assert f"{known} unsafe rows were seen" in found.why


def test_vetted_rows_are_decided_by_the_person_whatever_their_score():
    states, unsafe = file_of(300, 0.3, 6, 2)
    said = unsafe.copy()
    said[:5] = ~said[:5]
    found = certified(states, said, np.arange(80), 80)
    assert (found.dropped[:80] == said[:80]).all()


def test_separate_kinds_are_cut_with_the_bound():
    states, unsafe = file_of(400, 0.33, 8, 3)
    found = certified(states, unsafe, np.arange(60), 60)
    assert found.how == "fdr" and "at most 10%" in found.why
    assert (found.dropped == unsafe).mean() > 0.99
    assert found.at_least > 0.75 and found.left.low == 0
    assert "Of 400 rows" in found.sentence(400) and "with 95 % confidence" in found.sentence(400)


def test_few_verdicts_fall_back_to_odds_and_say_how_many_more_would_do():
    states, unsafe = file_of(400, 0.33, 8, 3)
    found = certified(states, unsafe, np.arange(24), 24)
    assert found.how == "odds" and f"{found.more} more random verdicts" in found.why
    assert unsafe[:24].sum() >= 5
    assert (found.dropped & ~unsafe).sum() <= 0.1 * found.dropped.sum()


@pytest.mark.parametrize("gap", [0, -6])
def test_where_held_out_scores_tell_nothing_only_verdicts_drop_and_it_is_not_called_odds(gap):
    unsafe = np.arange(60) % 2 == 0
    found = certify.cut(np.zeros(100), gap * unsafe, np.arange(60), unsafe, np.ones(60, bool))
    assert found.how == "nothing" and found.dropped.sum() == 30 and np.isinf(found.threshold)
    assert "scores do not tell unsafe verdicts from clean ones, so only verdicts drop" in found.why


def test_proposed_rows_carry_no_estimate():
    states, unsafe = file_of(400, 0.2, 8, 5)
    seen = np.concatenate([np.arange(30), 30 + np.flatnonzero(unsafe[30:])[:40]])
    share = certified(states, unsafe, seen, 30).share
    assert share.n == 30 and share.low <= unsafe.mean() <= share.high
    assert certified(states, unsafe, seen, 0).share is None


def test_a_share_of_no_sense_is_refused():
    with pytest.raises(ConfigError, match=r"--fdr 1\.5"):
        certify.cut(np.zeros(4), np.zeros(2), np.arange(2), np.array([True, False]), np.ones(2, bool), 1.5)


def test_predictions_narrow_a_share_and_false_ones_do_not_bias_it():
    random = np.random.default_rng(0)
    truth = random.random(2000) < 0.4
    good, bad = np.where(truth, 0.95, 0.05), np.where(truth, 0.1, 0.9)
    y = truth[:100]
    alone, helped = certify.exact(int(y.sum()), 100), certify.rate(y, good[:100], good[100:])
    assert helped.high - helped.low < 0.5 * (alone.high - alone.low)
    assert helped.low <= truth[100:].mean() <= helped.high
    assert certify.rate(y, bad[:100], bad[100:]).value == pytest.approx(y.mean(), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "gap"), [(0.33, 3), (0.05, 4)])
def test_intervals_hold_the_truth_and_the_bound_holds_on_average(share, gap):
    held, false = {"share": [], "precision": [], "recall": [], "left": []}, []
    for seed in range(100):
        states, unsafe = file_of(400, share, gap, seed)
        found = certified(states, unsafe, np.arange(60), 60)
        hit = (found.dropped & unsafe).sum()
        true = {"share": unsafe.mean(), "left": unsafe.sum() - hit, "recall": hit / max(1, unsafe.sum())}
        if found.dropped.any():
            true["precision"] = hit / found.dropped.sum()
        for name, value in true.items():
            estimate = getattr(found, name)
            if estimate is not None:
                held[name].append(estimate.low - 1e-9 <= value <= estimate.high + 1e-9)
        if found.how == "fdr":
            false.append(1 - true["precision"])
    assert all(np.mean(values) >= 0.9 for values in held.values()), {n: np.mean(v) for n, v in held.items()}
    assert not false or np.mean(false) <= 0.1


def test_held_out_scores_are_on_the_scale_of_all_scores():
    states, unsafe = file_of(600, 0.3, 3, 7)
    seen = np.arange(100)
    scores, held_out = probe.score(states, seen, unsafe[seen])
    # Of rows of one kind, the share above a line must be alike with and without a verdict.
    line = np.quantile(scores[100:], 0.8)
    assert abs((held_out >= line).mean() - 0.2) < 0.1
    assert scores[unsafe].mean() > scores[~unsafe].mean() + 1


def test_scores_do_not_depend_on_the_order_of_verdicts():
    states, unsafe = file_of(200, 0.3, 3, 8)
    seen = np.arange(40)
    scores, _ = probe.score(states, seen, unsafe[seen])
    turned, _ = probe.score(states, seen[::-1], unsafe[seen[::-1]])
    assert np.allclose(scores, turned, atol=1e-3)


def test_clean_verdicts_alone_rank_what_is_unlike_them():
    states, unsafe = file_of(300, 0.1, 12, 9)
    clean = np.flatnonzero(~unsafe)[:40]
    scores, _ = probe.score(states, clean, np.zeros(40, bool))
    assert np.median(scores[unsafe]) > np.quantile(scores[~unsafe], 0.9)


def test_proposals_find_rare_rows_that_random_looks_miss():
    states, unsafe = file_of(600, 0.02, 8, 10)
    order = propose.random_order(600, 0)
    seen = [*order[:30].tolist()]
    while len(seen) < 100:
        seen += propose.next_rows(states, np.array(seen), unsafe[seen])
    assert len(set(seen)) == 100
    assert unsafe[seen].sum() == unsafe.sum() > unsafe[order[:100]].sum()


def test_proposals_take_turns_between_rankings_and_end_with_the_file():
    other = np.array([np.nan, 5, 4, 3, 2, 1, 0, 0, 0, 0], float)
    states = np.random.default_rng(0).normal(size=(10, 3))
    chosen = propose.next_rows(states, np.array([1, 2]), np.array([False, False]), others=[other], count=20)
    assert sorted(chosen) == [0, 3, 4, 5, 6, 7, 8, 9]
    assert 3 in chosen[:2]
    assert propose.next_rows(states, np.array([1]), np.array([False]), leave_out=[0, 2], count=3)


def test_the_fit_is_that_of_another_solver():
    from scipy.optimize import minimize

    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 3)), random.random(40) < 0.4
    weights = np.where(y, 2.0, 0.5)
    slope, intercept = probe.logistic(x, y, weights)

    def loss(theta):
        return 0.5 * theta[:3] @ theta[:3] + weights @ np.logaddexp(
            0, np.where(y, -1, 1) * (x @ theta[:3] + theta[3])
        )

    assert np.allclose([*slope, intercept], minimize(loss, np.zeros(4), tol=1e-12).x, atol=1e-4)
