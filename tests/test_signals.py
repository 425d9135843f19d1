from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from tiny import encoded, gpt2, llama, mixed_rows

from forgetfilter.filter.signals import (
    SIGNALS,
    Memory,
    likelihood,
    probability,
    remembered_texts,
    remembered_tokens,
    token_match,
    token_memory,
)
from forgetfilter.models.rendering import Encoded

MODELS = {"llama": llama, "gpt2": gpt2}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]()


@pytest.fixture(scope="module")
def rows() -> list[Encoded]:
    two_turns = Encoded(
        "two", [1, 9, 8, 7, 6, 5, 9], [False] * 7, [False, False, True, True, False, True, False], 5, False
    )
    return [
        *mixed_rows(12),
        two_turns,
        encoded(5, 0, seed=50, id="nothing"),
        encoded(3, 60, seed=51, id="long"),
    ]


def by_hand(model: Any, row: Encoded) -> tuple[list[float], list[bool]]:
    """One row, one plain forward over all of it, one token at a time."""
    with torch.no_grad():
        logits = model(torch.tensor([row.ids])).logits[0].float()  # (time, vocabulary)
    logp, hit = [], []
    for t in range(1, len(row.ids)):
        if row.scored[t]:
            logp.append(float(torch.log_softmax(logits[t - 1], -1)[row.ids[t]]))
            hit.append(int(logits[t - 1].argmax()) == row.ids[t])
    return logp, hit


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
def test_token_memory_equals_one_plain_forward_per_row(
    model: Any, rows: list[Encoded], batch_tokens: int
) -> None:
    for row, memory in zip(rows, token_memory(model, rows, batch_tokens=batch_tokens), strict=True):
        logp, hit = by_hand(model, row)
        assert len(memory.logp) == sum(row.scored[1:])
        np.testing.assert_allclose(memory.logp, logp, rtol=0, atol=1e-5)
        assert memory.hit.tolist() == hit


def test_a_row_that_the_model_would_say_itself_is_all_hits(model: Any) -> None:
    ids = [1, 9]
    with torch.no_grad():
        while len(ids) < 8:
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    row = Encoded("said", ids, [False] * 8, [False, False] + [True] * 6, 2, False)
    other = Encoded("other", [*ids[:-1], (ids[-1] + 1) % 400], row.learned, row.scored, 2, False)
    said, missed = token_memory(model, [row, other])
    assert said.hit.tolist() == [True] * 6
    assert missed.hit.tolist() == [True] * 5 + [False]
    assert likelihood(said) > likelihood(missed)


def test_order_and_company_change_nothing(model: Any, rows: list[Encoded]) -> None:
    forward = {r.id: m for r, m in zip(rows, token_memory(model, rows), strict=True)}
    turned = rows[::-1]
    for row, memory in zip(turned, token_memory(model, turned, batch_tokens=200, pad_id=7), strict=True):
        np.testing.assert_allclose(memory.logp, forward[row.id].logp, rtol=0, atol=1e-5)
        assert memory.hit.tolist() == forward[row.id].hit.tolist()


def test_rows_without_scored_tokens_have_empty_memories_and_no_signal(model: Any) -> None:
    only_first = Encoded("first", [5, 6], [False] * 2, [True, False], 0, False)  # nothing stands before it
    rows = [encoded(5, 0, seed=1, id="prompt"), Encoded("empty", [], [], [], 0, False), only_first]
    memories = token_memory(model, [*rows, encoded(2, 3, seed=2, id="scored")])
    assert [len(m.logp) for m in memories] == [len(m.hit) for m in memories] == [0, 0, 0, 2]
    named = dict(zip(["prompt", "empty", "first", "scored"], memories, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for signal in ("likelihood", "probability", "token_match"):
            assert remembered_tokens(named, signal).keys() == {"scored"}
    assert token_memory(model, []) == []


def test_the_batches_hold_no_more_than_asked_and_report_progress(model: Any) -> None:
    shapes, done = [], []
    hook = model.register_forward_pre_hook(
        lambda m, a, k: shapes.append(k["input_ids"].shape), with_kwargs=True
    )
    rows = mixed_rows(20)
    token_memory(model, rows, batch_tokens=60, progress=done.append)
    hook.remove()
    scored = sum(any(r.scored) for r in rows)
    assert sum(n for n, _ in shapes) == scored == done[-1]
    assert done == sorted(done) and len(done) == len(shapes) > 3
    assert all(n * time <= 60 for n, time in shapes)
    shapes.clear()
    hook = model.register_forward_pre_hook(
        lambda m, a, k: shapes.append(k["input_ids"].shape), with_kwargs=True
    )
    token_memory(model, rows[:3], batch_tokens=1)  # a row too long for any batch has one of its own
    hook.remove()
    assert [n for n, _ in shapes] == [1, 1, 1]


def test_dropout_is_off_while_measuring_and_back_on_after() -> None:
    model = llama(attention_dropout=0.9)
    rows = mixed_rows(4)
    calm = token_memory(model, rows)
    model.train()
    again = token_memory(model, rows)
    assert model.training
    assert all((a.logp == b.logp).all() for a, b in zip(calm, again, strict=True))


MEMORY = Memory(np.log(np.array([0.5, 0.25, 1.0, 0.125], np.float32)), np.array([True, False, True, False]))


def test_likelihood_is_the_mean_log_probability() -> None:
    # ln(1/2) + ln(1/4) + ln 1 + ln(1/8) = -6 ln 2, over four tokens
    assert likelihood(MEMORY) == pytest.approx(-1.5 * 0.6931472, abs=1e-6)


def test_probability_is_the_mean_probability() -> None:
    assert probability(MEMORY) == pytest.approx((0.5 + 0.25 + 1 + 0.125) / 4, abs=1e-6)  # 0.46875


def test_token_match_is_the_share_of_first_choices() -> None:
    assert token_match(MEMORY) == 0.5


def test_remembered_joins_by_row_id() -> None:
    sure = Memory(np.zeros(2, np.float32), np.ones(2, bool))
    assert remembered_tokens({"b": sure, "a": MEMORY}, "token_match") == {"b": 1.0, "a": 0.5}
    answers = {"x": "the sea is grey", "y": "boats", "z": "not asked for"}
    found = remembered_texts(answers, {"y": "gulls", "x": "the sea is grey"}, "rouge1")
    assert found == {"y": 0.0, "x": 1.0}


def test_every_signal_is_larger_for_the_better_remembered_row() -> None:
    good = Memory(np.array([-0.1, -0.2], np.float32), np.array([True, True]))
    bad = Memory(np.array([-3.0, -0.3], np.float32), np.array([False, True]))
    for name in SIGNALS:
        if name in ("rouge1", "exact_match"):
            found = remembered_texts(
                {"good": "the sea", "bad": "no"}, {"good": "the sea", "bad": "the sea"}, name
            )
        else:
            found = remembered_tokens({"good": good, "bad": bad}, name)
        assert found["good"] > found["bad"], name
