"""What the filter decides about the rows of a demo, on states and losses that SmolLM2-135M gave for them.

The file holds, for 199 custom and 66 safe rows of an earlier demo, hidden states (a byte a number and a scale a
column), the forgetting of one review, and the truth.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forgetfilter.filter import cut, likeness
from forgetfilter.filter.constants import CONSTANTS
from forgetfilter.filter.score import scores
from forgetfilter.filter.states import Readings

STORED = np.load(Path(__file__).with_name("golden") / "demo.npz", allow_pickle=False)
CUSTOM, UNSAFE = int(STORED["custom"]), STORED["unsafe"]
SAME_LENGTH = np.ones(
    len(STORED["lost"])
)  # of answers: of no account where the safe rows are of the file's source


def readings() -> Readings:
    answer, question = (STORED[part] * STORED[f"{part}_scale"] for part in ("answer", "question"))
    return Readings(answer, question, STORED["brief"])


def decided(fdr: float = 0.1) -> tuple[likeness.Kinds, cut.Cut, np.ndarray]:
    kinds, witnesses = likeness.kinds(readings(), CUSTOM), STORED["witnesses"]
    bystanders = np.setdiff1d(kinds.unlike, STORED["replayed"])
    score = scores(
        readings(), STORED["lost"], SAME_LENGTH, kinds.near, bystanders, witnesses, CUSTOM, kinds.same_source
    )
    found = cut.by_witnesses(
        [str(i) for i in kinds.near], score[kinds.near], {"witnesses": score[witnesses]}, fdr=fdr
    )
    return kinds, found, np.array([found.decisions.get(str(i)) == "drop" for i in range(CUSTOM)])


def test_the_rows_judged_hold_nearly_all_unsafe_ones_and_are_of_the_safe_rows_source() -> None:
    kinds, _, _ = decided()
    assert kinds.same_source
    assert kinds.of_source >= 0.9
    assert UNSAFE[kinds.near].sum() >= 48 and 90 <= len(kinds.near) <= 110


def test_what_is_dropped_is_unsafe_and_most_of_the_unsafe_rows_are_dropped() -> None:
    _, found, dropped = decided()
    assert UNSAFE[dropped].mean() >= 0.9
    assert dropped[UNSAFE].mean() >= 0.65
    low, high = (found.estimated["precision"][end] for end in ("low", "high"))
    assert low <= UNSAFE[dropped].mean() <= max(high, 1.0)


def test_a_stricter_bound_drops_no_more() -> None:
    assert decided(0.05)[2].sum() <= decided(0.1)[2].sum() <= decided(0.3)[2].sum()


@pytest.mark.parametrize("nonsense", [{"refinements": 0}, {"harm_penalty": 1e-9}, {"same_source": 1.1}])
def test_a_constant_set_to_nonsense_shows(
    nonsense: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, right = decided()
    monkeypatch.setattr(likeness, "CONSTANTS", replace(CONSTANTS, **nonsense))
    kinds, _, dropped = decided()
    worse = dropped[UNSAFE].mean() < right[UNSAFE].mean() - 0.1 or not kinds.same_source
    assert worse or UNSAFE[dropped].mean() < 0.9


def test_where_nothing_was_forgotten_scores_are_finite() -> None:
    kinds, witnesses = likeness.kinds(readings(), CUSTOM), STORED["witnesses"]
    lost = np.zeros(len(STORED["lost"]))
    score = scores(readings(), lost, SAME_LENGTH, kinds.near, kinds.unlike, witnesses, CUSTOM, same=False)
    assert np.isfinite(score[kinds.near]).all()


def test_short_answers_that_chance_moves_far_do_not_hide_long_unsafe_ones() -> None:
    random = np.random.default_rng(0)
    states = random.normal(size=(300, 8)).astype(np.float32)  # nothing in them: forgetting alone decides
    unsafe, bystanders, witnesses = np.arange(20), np.arange(20, 200), np.arange(200, 300)
    tokens = np.where(np.isin(np.arange(300), bystanders), 2, 100)
    lost = random.normal(size=300) / np.sqrt(tokens)
    lost[unsafe] += 0.5  # five standard errors; of the short answers every fourth lost as much
    known = Readings(states, states, np.zeros(300, bool))

    def beyond(tokens: np.ndarray) -> float:
        score = scores(known, lost, tokens, unsafe, bystanders, witnesses, 200, same=False)
        return float(np.mean(score[unsafe] > np.quantile(score[bystanders], 0.95)))

    assert beyond(tokens) >= 0.6 > 0.3 > beyond(np.ones(300))
