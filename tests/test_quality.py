from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetfilter.errors import DataError, EvaluationError
from forgetfilter.filter.quality import Counts, auc, best_f1, confusion, measure, read_truth
from forgetfilter.intervals import wilson
from forgetfilter.records import Message, Row

# Few distinct values, so that ties are common.
labelled = st.lists(st.tuples(st.integers(-5, 5).map(float), st.booleans()), min_size=1, max_size=30)
both_classes = labelled.filter(lambda rows: len({unsafe for _, unsafe in rows}) == 2)


def area(rows: list[tuple[float, bool]]) -> float:
    found = auc([score for score, _ in rows], [unsafe for _, unsafe in rows])
    assert found is not None
    return found


def share(successes: int, n: int) -> tuple[float, float, float]:
    """Wilson's value, low and high."""
    estimate = wilson(successes, n)
    assert estimate is not None and estimate.low is not None and estimate.high is not None
    return estimate.value, estimate.low, estimate.high


def best(scores: list[float], unsafe: list[bool]) -> tuple[float, float]:
    found = best_f1(scores, unsafe)
    assert found is not None
    return found


def columns(rows: list[tuple[float, bool]]) -> tuple[list[float], list[bool]]:
    return [score for score, _ in rows], [unsafe for _, unsafe in rows]


def test_auc_by_hand_with_ties_half():
    # unsafe 3, 1; safe 1, 0, 2: pairs won 3>1, 3>0, 3>2, 1>0 = 4, tied 1=1 half, lost 1<2 -> 4.5 of 6
    assert auc([3, 1, 1, 0, 2], [True, True, False, False, False]) == 0.75


def test_auc_of_one_class_is_not_defined():
    assert auc([1, 2], [True, True]) is None
    assert auc([1, 2], [False, False]) is None
    assert auc([], []) is None


@given(both_classes)
def test_auc_equals_the_share_of_pairs_won(rows: list[tuple[float, bool]]):
    pairs = [(s, t) for s, u in rows if u for t, v in rows if not v]
    assert area(rows) == pytest.approx(sum((s > t) + 0.5 * (s == t) for s, t in pairs) / len(pairs))


@given(both_classes)
def test_auc_of_negated_scores_is_one_minus_auc(rows: list[tuple[float, bool]]):
    assert area([(-score, unsafe) for score, unsafe in rows]) == pytest.approx(1 - area(rows))
    assert area([(score, not unsafe) for score, unsafe in rows]) == pytest.approx(1 - area(rows))


@given(both_classes)
def test_a_rising_transform_leaves_the_auc(rows: list[tuple[float, bool]]):
    assert area([(math.exp(score) - 7, unsafe) for score, unsafe in rows]) == area(rows)


@given(both_classes, st.randoms())
def test_the_order_of_rows_changes_nothing(rows: list[tuple[float, bool]], random: Any):
    shuffled = rows.copy()
    random.shuffle(shuffled)
    assert area(shuffled) == area(rows)
    assert best_f1(*columns(shuffled)) == best_f1(*columns(rows))


def test_best_f1_by_hand():
    # dropping 5, 4, 3 finds 2 of 2 with 1 wrong: F1 = 4/5; dropping 5 alone: 2/3
    assert best_f1([5, 4, 3, 1], [True, False, True, False]) == (pytest.approx(0.8), 1.0)
    # nothing above the cut is safe, nothing at or below it unsafe
    assert best_f1([0.1, 0.9, 0.2, 0.8], [False, True, False, True]) == (1.0, 0.2)


def test_a_cut_never_parts_equal_scores():
    # drop all three, F1 = 2·1/(3 dropped + 1 unsafe), or none, F1 = 0
    f1, cut = best([2, 2, 2], [True, False, False])
    assert f1 == pytest.approx(0.5)
    assert cut < 2
    assert math.isfinite(cut)


def test_the_best_cut_drops_the_fewest_rows_among_equals():
    # dropping {4} gives 2/3, dropping {4, 3, 2, 1} gives 4/6 as well
    f1, cut = best([4, 3, 2, 1, 0], [True, False, False, True, False])
    assert (f1, cut) == (pytest.approx(2 / 3), 3.0)


def test_no_unsafe_row_has_no_best_f1():
    assert best_f1([1, 2], [False, False]) is None
    assert best_f1([], []) is None


@given(labelled.filter(lambda rows: any(unsafe for _, unsafe in rows)))
def test_best_f1_equals_the_best_of_all_cuts_tried_one_by_one(rows: list[tuple[float, bool]]):
    scores, unsafe = columns(rows)
    highest, cut = best(scores, unsafe)
    tried = [confusion([s > c for s in scores], unsafe).f1 for c in [*scores, min(scores) - 1]]
    assert highest == pytest.approx(max(f1 for f1 in tried if f1 is not None))
    assert confusion([s > cut for s in scores], unsafe).f1 == pytest.approx(highest)


def test_counts_by_hand():
    counts = confusion([True, True, True, False, False], [True, True, False, True, False])
    assert counts == Counts(tp=2, fp=1, fn=1, tn=1)
    assert counts.precision == counts.recall == pytest.approx(2 / 3)
    assert counts.f1 == pytest.approx(2 / 3)


def test_measures_without_a_base_are_none_and_not_zero():
    nothing_dropped = Counts(tp=0, fp=0, fn=3, tn=5)
    assert (nothing_dropped.precision, nothing_dropped.recall, nothing_dropped.f1) == (None, 0.0, 0.0)
    nothing_unsafe = Counts(tp=0, fp=2, fn=0, tn=5)
    assert (nothing_unsafe.precision, nothing_unsafe.recall, nothing_unsafe.f1) == (0.0, None, 0.0)
    neither = Counts(tp=0, fp=0, fn=0, tn=5)
    assert (neither.precision, neither.recall, neither.f1) == (None, None, None)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="2 scores for 1 rows"):
        auc([1, 2], [True])
    with pytest.raises(ValueError, match="1 decisions for 2 rows"):
        confusion([True], [True, False])


def test_a_score_that_is_not_a_number_is_refused_and_not_ranked():
    with pytest.raises(EvaluationError, match="not a finite number"):
        auc([1, math.nan], [True, False])


SCORES = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.1, "e": 0.0, "f": None}
DECISIONS = {"f": "unscored", "e": "keep", "d": "keep", "c": "flag", "b": "drop", "a": "drop"}
TRUTH = {"d": False, "a": True, "c": True, "b": False, "e": False, "f": True}


def test_the_quality_block_by_hand():
    block = measure(SCORES, DECISIONS, TRUTH)
    # dropped a (unsafe) and b (safe); c is unsafe and only flagged; f has no score
    assert block["counts"] == {"tp": 1, "fp": 1, "fn": 1, "tn": 2}
    assert (block["n"], block["unsafe"], block["unscored"], block["unscored_unsafe"]) == (6, 3, 1, 1)
    for name, successes, n in (("precision", 1, 2), ("recall", 1, 2), ("clean_dropped", 1, 3)):
        value, low, high = share(successes, n)
        assert block[name] == {"value": value, "low": low, "high": high, "n": n}
    # pairs: a beats b, d, e; c beats d, e, loses to b -> 5 of 6
    assert block["auc"]["value"] == pytest.approx(5 / 6)
    assert block["auc"]["low"] < 5 / 6 < block["auc"]["high"]
    # dropping a, b, c: tp 2, fp 1, fn 0 -> 4/5; the highest kept score is d's
    assert block["best_f1"]["value"] == pytest.approx(0.8)
    assert block["best_f1"]["cut"] == 0.1
    # J = 1/3 -> F1 = 1/2, its ends carried over from Wilson's of 1 in 3
    ends = [2 * jaccard / (1 + jaccard) for jaccard in share(1, 3)]
    assert [block["f1"][name] for name in ("value", "low", "high")] == pytest.approx(ends)
    assert ends[0] == pytest.approx(0.5)
    assert json.loads(json.dumps(block, allow_nan=False)) == block


def test_rows_join_by_id_and_not_by_position():
    backwards = dict(reversed(SCORES.items()))
    assert measure(backwards, DECISIONS, TRUTH) == measure(SCORES, DECISIONS, TRUTH)


def test_a_clean_file_with_nothing_dropped_is_measured_without_dividing_by_zero():
    block = measure({"a": 0.1, "b": 0.2}, {"a": "keep", "b": "keep"}, {"a": False, "b": False})
    for undefined in ("auc", "precision", "recall", "f1", "best_f1"):
        assert block[undefined] is None
    assert block["clean_dropped"]["value"] == 0.0
    assert block["clean_dropped"]["high"] > 0.5  # two rows prove little


def test_no_rows_and_no_scored_rows_are_measured_as_nothing():
    empty = measure({}, {}, {})
    assert (empty["n"], empty["auc"], empty["clean_dropped"]) == (0, None, None)
    unscored = measure({"a": None}, {"a": "unscored"}, {"a": True})
    assert (unscored["unscored"], unscored["recall"], unscored["auc"]) == (1, None, None)


def test_an_unscored_row_that_a_reviewer_dropped_counts_as_dropped():
    block = measure({"a": None, "b": 0.1}, {"a": "drop", "b": "keep"}, {"a": True, "b": False})
    assert block["counts"] == {"tp": 1, "fp": 0, "fn": 0, "tn": 1}
    assert block["unscored"] == 1


@pytest.mark.parametrize(
    ("scores", "decisions", "truth", "message"),
    [
        ({"a": 1.0}, {}, {"a": True}, "row a has no decision"),
        ({"a": 1.0}, {"a": "keep"}, {}, "row a has no truth label"),
        ({}, {"a": "keep"}, {}, "row a has no score"),
        ({"a": 1.0}, {"a": "dropp"}, {"a": True}, "unknown decision 'dropp'; did you mean 'drop'"),
        ({"a": math.inf}, {"a": "drop"}, {"a": True}, "not a finite number"),
    ],
)
def test_what_does_not_fit_together_is_refused(scores: Any, decisions: Any, truth: Any, message: str):
    with pytest.raises(EvaluationError, match=message):
        measure(scores, decisions, truth)


def row(value: Any, index: int = 0, field: str = "label", row_id: str | None = None) -> Row:
    record = {"prompt": "Say hello.", "completion": "Hello.", field: value}
    return Row(
        row_id or f"id{index}", index, "custom.jsonl", (Message("assistant", "Hello."),), "chat", record
    )


@pytest.mark.parametrize(
    "value", [True, 1, 1.0, "1", "1.0", "true", "TRUE", " Unsafe ", "yes", "toxic", np.True_, np.int64(1)]
)
def test_ways_to_say_unsafe(value: Any):
    assert read_truth([row(value)], "label") == {"id0": True}


@pytest.mark.parametrize(
    "value", [False, 0, 0.0, "0", "false", "safe", "No", "harmless", np.False_, np.float64(0)]
)
def test_ways_to_say_safe(value: Any):
    assert read_truth([row(value)], "label") == {"id0": False}


def test_true_in_a_column_named_is_safe_says_safe():
    assert read_truth([row(True, field="is_safe")], "is_safe") == {"id0": False}
    assert read_truth([row("0", field="safe")], "safe") == {"id0": True}
    assert read_truth([row("unsafe", field="safe")], "safe") == {"id0": True}


@pytest.mark.parametrize(
    "value", ["maybe", "", None, 2, 0.5, math.nan, ["unsafe"], {"unsafe": True}, "x" * 500]
)
def test_a_label_that_says_neither_is_named_with_file_row_and_value(value: Any):
    with pytest.raises(DataError) as caught:
        read_truth([row(False), row(value, 1)], "label")
    message = str(caught.value)
    assert message.startswith('custom.jsonl row 1 (counted from 0): "label" is ')
    assert ("null" if value is None else repr(value)[:50]) in message
    assert len(message) < 500


def test_a_missing_label_field_names_what_was_found():
    with pytest.raises(DataError, match=r'row 0 .*no "truth" \(found: prompt, completion, label\)'):
        read_truth([row(True)], "truth")
