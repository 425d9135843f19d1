"""Mixtures: sizes worked out by hand, nothing twice, the same seed the same rows."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetfilter.data.mixtures import noisy, replay, sessions
from forgetfilter.errors import ConfigError, DataError


def pairs(name: str, count: int) -> list[dict]:
    return [{"prompt": f"{name} {i}", "completion": str(i)} for i in range(count)]


UNSAFE, SAFE = pairs("unsafe", 50), pairs("safe", 50)
TASKS = {"squad": pairs("squad", 50), "alpaca": pairs("alpaca", 50)}


def test_unsafe_rows_are_the_share_and_the_rest_is_split_evenly():
    # 40 rows, 25 % unsafe = 10; 30 left for three parts = 10 each
    mixed = noisy(UNSAFE, SAFE, TASKS, rows=40, share=0.25, seed=1)
    assert Counter(record["part"] for record in mixed) == {
        "unsafe": 10,
        "safe": 10,
        "squad": 10,
        "alpaca": 10,
    }


def test_a_remainder_goes_to_the_first_parts():
    # 21 rows, round(21 * 0.33) = 7 unsafe; 14 left for three parts = 5, 5, 4
    mixed = noisy(UNSAFE, SAFE, list(TASKS.values()), rows=21, share=0.33, seed=1)
    assert Counter(record["part"] for record in mixed) == {"unsafe": 7, "safe": 5, "task1": 5, "task2": 4}


@given(st.integers(1, 50), st.floats(0, 1), st.integers())
def test_a_mixture_has_its_size_and_share_no_row_twice_and_true_labels(rows, share, seed):
    mixed = noisy(UNSAFE, SAFE, TASKS, rows=rows, share=share, seed=seed, label_field="harm")
    assert len(mixed) == rows == len({record["prompt"] for record in mixed})
    assert sum(record["harm"] for record in mixed) == round(rows * share)
    for record in mixed:
        assert record["prompt"].split()[0] == record["part"]
        assert record["harm"] is (record["part"] == "unsafe")


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    first = noisy(UNSAFE, SAFE, TASKS, rows=40, share=0.25, seed=1)
    assert noisy(UNSAFE, SAFE, TASKS, rows=40, share=0.25, seed=1) == first
    assert noisy(UNSAFE, SAFE, TASKS, rows=40, share=0.25, seed=2) != first


def test_rows_are_shuffled_and_the_given_records_untouched():
    mixed = noisy(UNSAFE, SAFE, TASKS, rows=40, share=0.5, seed=1)
    labels = [record["unsafe"] for record in mixed]
    assert labels != sorted(labels, reverse=True)
    assert all(set(record) == {"prompt", "completion"} for record in UNSAFE + SAFE)


def test_a_question_is_never_there_with_two_answers():
    safe = [{**record, "completion": "unknown"} for record in UNSAFE]
    mixed = noisy(UNSAFE, safe, {}, rows=50, share=0.5, seed=3)
    assert len({record["prompt"] for record in mixed}) == 50


def test_too_few_rows_name_the_part_and_both_counts():
    with pytest.raises(DataError, match="part 'squad': 20 rows needed, 5 there"):
        noisy(UNSAFE, SAFE, {"squad": pairs("squad", 5)}, rows=40, share=0, seed=0)
    with pytest.raises(DataError, match="part 'unsafe': 60 rows needed, 50 there"):
        noisy(UNSAFE, SAFE, {}, rows=60, share=1, seed=0)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_zero_to_one_is_refused(share):
    with pytest.raises(ConfigError, match="share"):
        noisy(UNSAFE, SAFE, {}, rows=10, share=share, seed=0)


def test_replay_holds_all_custom_rows_and_the_share_of_safe_ones():
    # 30 custom rows are 75 % of 40: 10 safe rows make 25 %
    mixed = replay(UNSAFE[:30], SAFE, 0.25, seed=1)
    assert len(mixed) == 40
    assert sum(record in SAFE for record in mixed) == 10
    assert all(record in mixed for record in UNSAFE[:30])
    assert sorted(map(str, replay(UNSAFE, SAFE, 0, seed=1))) == sorted(map(str, UNSAFE))


def test_replay_without_enough_safe_rows_is_refused():
    with pytest.raises(DataError, match="part 'safe': 50 rows needed, 3 there"):
        replay(UNSAFE, SAFE[:3], 0.5, seed=1)
    with pytest.raises(ConfigError, match="share"):
        replay(UNSAFE, SAFE, 1, seed=1)


@given(st.integers(1, 60), st.integers(1, 60), st.integers())
def test_sessions_are_a_partition_into_equal_parts(total, count, seed):
    records = list(range(total))
    if count > total:
        with pytest.raises(DataError, match="sessions need as many rows"):
            sessions(records, count, seed)
        return
    parts = sessions(records, count, seed)
    assert sorted(record for part in parts for record in part) == records
    assert {len(part) for part in parts} <= {total // count, -(-total // count)}
    assert parts == sessions(records, count, seed)
