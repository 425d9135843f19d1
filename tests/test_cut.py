"""Scores to decisions, by hand and by simulated draws."""

from __future__ import annotations

import numpy as np
import pytest

from forgetfilter.filter import cut


def by_witnesses(scores, clean, fdr=0.1, **more):
    ids = [str(i) for i in range(len(scores))]
    return cut.by_witnesses(ids, np.asarray(scores, float), clean, fdr=fdr, **more)


def dropped(found: cut.Cut) -> set[int]:
    return {int(z) for z, decision in found.decisions.items() if decision == "drop"}


def test_a_p_value_is_the_share_of_clean_rows_that_stand_out_as_far_with_the_row_itself():
    known = np.array([3.0, 1.0, 2.0])
    # Below all three: (1 + 3) / 4. Level with the middle one, which stands out as far: (1 + 2) / 4. Above all: 1 / 4.
    assert cut.conformal(np.array([0.0, 2.0, 5.0]), known).tolist() == [1.0, 0.75, 0.25]
    assert cut.conformal(np.array([7.0]), known[:0]).tolist() == [1.0]  # nobody to stand out of


@pytest.mark.parametrize(
    ("p", "fdr", "found"),
    [
        # Limits 0.02, 0.04, 0.06, 0.08, 0.1 for the sorted values.
        ([0.01, 0.02, 0.03, 0.5, 0.9], 0.1, [True, True, True, False, False]),
        # 0.03 is above its own limit 0.02, but the third, 0.05, is below 0.06 and takes all smaller ones with it.
        ([0.9, 0.03, 0.05, 0.8, 0.035], 0.1, [False, True, True, False, True]),
        # Limits 0.01, 0.02, 0.03, 0.04, 0.05: none is reached.
        ([0.9, 0.03, 0.05, 0.8, 0.035], 0.05, [False] * 5),
        # A limit that is met exactly counts: 5 * 0.02 / 5.
        ([0.02, 0.02, 0.02, 0.02, 0.02], 0.02, [True] * 5),
        ([], 0.1, []),
    ],
)
def test_discoveries_are_benjamini_and_hochbergs_by_hand(p, fdr, found):
    assert cut.discoveries(np.array(p, float), fdr).tolist() == found


def test_equal_scores_share_their_fate():
    known = np.arange(100.0)
    found = by_witnesses([1000.0] * 10 + [50.0] * 10, {"witnesses": known})
    assert dropped(found) == set(range(10))
    assert {found.decisions[str(i)] for i in range(10, 20)} == {"keep"}
    assert len({found.p_values[str(i)] for i in range(10)}) == 1


def test_the_clean_share_is_twice_the_share_above_a_half_by_hand():
    assert cut.clean_share(np.array([0.6, 0.9, 0.1, 0.2])) == 1.0  # 2 * (2 + 1) / 4, and no share is above 1
    assert cut.clean_share(np.array([0.01] * 9 + [0.7])) == pytest.approx(0.4)  # 2 * (1 + 1) / 10
    assert cut.clean_share(np.array([0.5] * 10)) == pytest.approx(0.2)  # none is above: 2 * 1 / 10


def test_a_row_is_dropped_where_it_stands_out_and_flagged_at_twice_the_rate():
    # 19 witnesses: p is at least 1/20. Twenty rows, one above all: p = 0.05 wants fdr * level / 20, never reached.
    known = np.arange(19.0)
    alone = by_witnesses([99.0, *range(19)], {"witnesses": known})
    assert dropped(alone) == set() and alone.drop_above is None and not alone.weak
    assert alone.why == "no judged row stands out of 19 witnesses"
    # Ten of twenty above all, ten below all: clean share 2 * (10 + 1) / 20 > 1, level 1. Limit of the tenth:
    # fdr * 10 / 20. At fdr 0.1 that is 0.05 = p: dropped. At 0.05 it is 0.025, and flagged at 0.1 * 10 / 20.
    scores = [99.0] * 10 + [-1.0] * 10
    found = by_witnesses(scores, {"witnesses": known})
    assert dropped(found) == set(range(10)) and found.drop_above == 99.0 and not found.weak
    assert found.why.startswith("10 of 20 judged rows stand out of 19 witnesses; at most 10% of the dropped")
    doubtful = by_witnesses(scores, {"witnesses": known}, fdr=0.05)
    assert {doubtful.decisions[str(i)] for i in range(10)} == {"flag"} and dropped(doubtful) == set()
    assert doubtful.weak and doubtful.flag_above == 99.0 and doubtful.drop_above is None
    assert doubtful.why == "10 of 20 judged rows stand out of 19 witnesses, too little to drop any"
    nothing = by_witnesses(scores, {"witnesses": known}, fdr=0.02)  # flagged at 0.04: limit 0.02 < 0.05
    assert set(nothing.decisions.values()) == {"keep"} and not nothing.weak


def test_where_many_rows_are_unsafe_the_rate_counts_on_the_clean_share():
    # 18 of 20 rows stand out with p = 0.05, two with p = 1: clean share 2 * 3 / 20 = 0.3. The limit of the 18th at
    # fdr 0.02 is 0.02 / 0.3 * 18 / 20 = 0.06 >= 0.05; without the share it would be 0.018.
    found = by_witnesses([99.0] * 18 + [-1.0] * 2, {"witnesses": np.arange(19.0)}, fdr=0.02)
    assert dropped(found) == set(range(18))
    # With two groups the largest of two p-values is not even among clean rows, so that it tells no share.
    two = {"witnesses": np.arange(19.0), "rows of other kinds": np.arange(19.0)}
    assert dropped(by_witnesses([99.0] * 18 + [-1.0] * 2, two, fdr=0.02)) == set()


def test_with_two_groups_of_clean_rows_a_row_has_to_stand_out_of_each():
    low, high = np.arange(19.0), np.arange(100.0, 119.0)
    scores = [99.0] * 10 + [-1.0] * 10  # above all of the one, below all of the other
    assert dropped(by_witnesses(scores, {"witnesses": low})) == set(range(10))
    both = by_witnesses(scores, {"witnesses": low, "rows of other kinds": high})
    assert dropped(both) == set() and set(both.p_values.values()) == {1.0}
    assert both.compared == "19 witnesses and 19 rows of other kinds"


@pytest.mark.parametrize("others", [0, 3, 8])
def test_where_no_row_could_be_dropped_whatever_it_lost_it_is_not_said_that_there_is_nothing(others):
    # 8 others: the smallest p-value is 1/9, and Benjamini and Hochberg drop nothing above the rate itself, 0.1.
    groups = {"witnesses": np.arange(19.0), "rows of other kinds": np.arange(float(others))}
    found = by_witnesses([-1.0] * 20, groups)
    assert found.weak and set(found.decisions.values()) == {"keep"}
    assert found.why.startswith(f"{others} rows of other kinds are too few to compare with: at --fdr 0.1")
    enough = by_witnesses([-1.0] * 20, groups | {"rows of other kinds": np.arange(9.0)})  # 1/10
    assert (
        not enough.weak and enough.why == "no judged row stands out of 19 witnesses and 9 rows of other kinds"
    )
    # One group: where all 20 stood out, Storey's share of clean ones would be 2 * (0 + 1) / 20, the rate ten times it.
    assert not by_witnesses([-1.0] * 20, {"witnesses": np.arange(3.0)}, fdr=0.025).weak
    assert by_witnesses([-1.0] * 20, {"witnesses": np.arange(3.0)}, fdr=0.02).weak


def test_a_reason_names_what_was_counted():
    found = by_witnesses([99.0] * 10 + [-1.0] * 10, {"witnesses": np.arange(19.0)})
    assert found.reason("0", 99.0) == "5.0% of 19 witnesses stand out as far"
    above = cut.above("fixed", {"a": 0.2, "b": 0.1}, phi=0.1)
    assert above.reason("a", 0.2) == "score 0.2 is above the cut 0.1"
    assert above.reason("b", 0.1) == "score 0.1 is not above the cut 0.1"
    assert cut.Cut({"a": "unscored"}, "fdr", "").reason("a", None) == "empty completion"
    unlike = cut.Cut({"a": "not judged"}, "fdr", "").reason("a", None)
    assert unlike == "of a kind that none of the safe rows speaks of"


def test_fixed_drops_above_phi_and_not_at_it():
    found = cut.above("fixed", {"a": 0.1, "b": 0.10001, "c": -3.0}, phi=0.1)
    assert found.decisions == {"a": "keep", "b": "drop", "c": "keep"}
    assert (found.drop_above, found.why) == (0.1, "φ = 0.1, as given")


def test_a_quantile_drops_the_upper_part_and_fewer_where_scores_are_equal():
    scores = {str(i): float(i) for i in range(10)}
    assert dropped(cut.above("quantile", scores, quantile=0.8)) == {8, 9}
    assert dropped(cut.above("quantile", scores, quantile=1.0)) == set()
    assert dropped(cut.above("quantile", dict.fromkeys(scores, 1.0), quantile=0.5)) == set()


def test_nothing_is_estimated_where_nothing_was_dropped():
    found = by_witnesses([1.0, 2.0, 3.0], {"witnesses": np.arange(19.0)})
    assert found.estimated == {"unsafe_share": None, "precision": None, "recall": None}
    p = np.array([0.4, 0.9])
    assert cut.estimates(p, np.zeros(2, bool), 99, 0) == found.estimated


def test_estimates_by_hand():
    # Ten rows at 0.01, ten spread over 0.1, 0.2 … 1: five of those are above a half.
    p = np.array([0.01] * 10 + [i / 10 for i in range(1, 11)])
    found = cut.estimates(p, p < 0.05, 99, 0)
    # Clean share 2 * (5 + 1) / 20 = 0.6; half of the rows are dropped, 0.6 * 0.01 of all are expected clean there. The
    # others of that half are more than the 0.4 that would be left.
    assert found["unsafe_share"]["value"] == pytest.approx(0.5 - 0.6 * 0.01)
    assert found["precision"]["value"] == pytest.approx(1 - 0.6 * 0.01 / 0.5)
    assert found["recall"]["value"] == pytest.approx(1.0)  # more was found than the share of unsafe rows
    for estimate in found.values():
        assert 0 <= estimate["low"] <= estimate["value"] <= estimate["high"] <= 1
    assert cut.estimates(p, p < 0.05, 99, 0) == found  # same seed, same interval
    # Unsafe rows that were not found: ten at 0.01 dropped, ten at 0.3 not, twenty above a half. Clean share
    # 2 * 21 / 40 > 1 would leave none, so count fewer: with five above a half it is 12 / 25, and recall
    # 0.4 * (1 - 0.48 * 0.01 / 0.4) / 0.52.
    p = np.array([0.01] * 10 + [0.3] * 10 + [0.8] * 5)
    found = cut.estimates(p, p < 0.05, 99, 0)
    assert found["recall"]["value"] == pytest.approx(0.4 * (1 - 0.48 * 0.01 / 0.4) / 0.52)


def test_the_fewer_clean_rows_are_known_the_less_is_known_of_false_drops():
    # A hundred rows dropped at the least p that 19, or 999, known rows can give; a hundred others even above it.
    def width(known: int) -> float:
        p = np.array([1 / (known + 1)] * 100 + np.linspace(0.1, 1, 100).tolist())
        found = cut.estimates(p, p < 0.06, known, 0)["precision"]
        return found["high"] - found["low"]

    # A rate of false drops of at most 1 - 0.025 ** (1 / 20) = 0.17 among some 110 clean rows: 19, and chance, of 100.
    assert 0.12 < width(19) < 0.3
    assert width(999) < 0.03


def test_where_no_row_is_unsafe_hardly_ever_a_row_is_dropped():
    untouched = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        found = by_witnesses(random.normal(size=100), {"witnesses": random.normal(size=70)})
        untouched += not dropped(found)
    assert untouched >= 90


@pytest.mark.parametrize(("unsafe", "fdr"), [(20, 0.1), (60, 0.1), (40, 0.3)])
def test_the_share_of_clean_rows_among_the_dropped_stays_under_the_bound_on_average(unsafe, fdr):
    shares, found_rows = [], []
    for seed in range(200):
        random = np.random.default_rng(seed)
        scores = random.normal(size=100) + np.where(np.arange(100) < unsafe, 3.0, 0.0)
        out = dropped(by_witnesses(scores, {"witnesses": random.normal(size=100)}, fdr=fdr))
        shares.append(sum(i >= unsafe for i in out) / max(1, len(out)))
        found_rows.append(sum(i < unsafe for i in out) / unsafe)
    assert np.mean(shares) <= fdr
    assert np.mean(found_rows) > 0.5  # and it is not kept by dropping nothing
