"""What all rows of a batch begin with is read once: loss, gradients, scores and states stay what they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_head import gemma, gradients
from tiny import gpt2, llama

from forgetfilter.filter.signals import token_memory
from forgetfilter.filter.states import read_rows
from forgetfilter.models.load import add_lora
from forgetfilter.models.rendering import Encoded
from forgetfilter.training import prefix
from forgetfilter.training.finetune import collate_right, completion_loss, shared_prefix
from forgetfilter.training.prefix import leading, read_prefix

SHARED = list(range(3, 23))  # twenty tokens, as a template's


def row(prompt: list[int], answer: list[int]) -> Encoded:
    ids = SHARED + prompt + answer
    scored = [False] * (len(ids) - len(answer)) + [True] * len(answer)
    return Encoded(str(ids), ids, scored, scored, len(ids) - len(answer), False)


ROWS = [
    row([30, 31, 32, 33, 34, 35, 36, 37, 38, 9], [40, 41]),
    row([50, 51, 52, 53, 54, 55, 56, 57, 58, 9], [60]),
    row([70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 9], [80, 81, 82, 83]),
]
INPUTS = collate_right(ROWS, 0)
MODELS = {
    "llama": llama,
    "gpt2": gpt2,
    "adapter": lambda: add_lora(llama(), rank=4, alpha=8, seed=1),
}


@pytest.fixture
def passes_cost(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what one more pass costs, in tokens."""
    return lambda tokens: monkeypatch.setattr(prefix, "price_of_a_pass", lambda model: tokens)


def lengths_read(model: Any) -> list[tuple[int, ...]]:
    """The shapes of what the embedding is given, appended to as the model reads."""
    shapes: list[tuple[int, ...]] = []
    model.get_input_embeddings().register_forward_pre_hook(
        lambda _, given: shapes.append(tuple(given[0].shape))
    )
    return shapes


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_loss_and_gradients_are_those_of_rows_read_whole(make: Any, passes_cost: Any) -> None:
    model = make().train()
    if "gpt2" in type(model).__module__:
        model.eval()  # its dropout would be another for each row
    passes_cost(float("inf"))
    loss = completion_loss(model, INPUTS)
    expected = gradients(model, loss)
    passes_cost(0)
    shapes = lengths_read(model)
    found = completion_loss(model, INPUTS)
    assert found.item() == pytest.approx(loss.item(), abs=1e-5)
    for name, gradient in gradients(model, found).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)
    assert shapes == [(1, 20), (3, 15)]


def test_scores_and_states_are_those_of_rows_read_whole(passes_cost: Any) -> None:
    model = llama().eval()
    passes_cost(float("inf"))
    memories, readings = token_memory(model, ROWS), read_rows(model, ROWS)
    passes_cost(0)
    shapes = lengths_read(model)
    for memory, expected in zip(token_memory(model, ROWS), memories, strict=True):
        assert memory.logp == pytest.approx(expected.logp, abs=1e-5)
    found = read_rows(model, ROWS)
    for part in ("answer", "question"):
        assert getattr(found, part) == pytest.approx(getattr(readings, part), abs=1e-4)
    assert shapes == [(1, 20), (3, 15)] * 2


@pytest.mark.parametrize(("price", "columns"), [(39, 20), (40, 0)])
def test_a_prefix_is_read_apart_where_that_saves_more_than_a_pass_costs(
    passes_cost: Any, price: int, columns: int
) -> None:
    passes_cost(price)  # the other two rows need not read 20 tokens each
    assert read_prefix(llama().eval(), INPUTS, 29)[0] == columns


def test_windows_and_dropout_leave_the_rows_whole(passes_cost: Any) -> None:
    passes_cost(0)
    assert read_prefix(gemma(), INPUTS, 29)[0] == 0  # every other layer of it has a window
    assert read_prefix(gpt2().train(), INPUTS, 29)[0] == 0
    adapted = add_lora(llama(), rank=4, alpha=8, dropout=0.1, seed=1)
    assert read_prefix(adapted.train(), INPUTS, 29)[0] == 0
    assert read_prefix(adapted.eval(), INPUTS, 29)[0] == 20


def test_what_is_shared_ends_before_the_first_token_that_is_predicted() -> None:
    same = [row([30], [40, 41]), row([30], [40, 42])]
    inputs = collate_right(same, 0)
    # 20 shared, then 30; the token at 21 is learned, so that what predicts it, column 20, has to be read in each row.
    assert leading(inputs["input_ids"], inputs["attention_mask"], 20) == shared_prefix(same) == 20
    assert shared_prefix([*same, Encoded("x", [5, 6], [True, True], [True, True], 0, False)]) == 0
    padded = collate_right([same[0], Encoded("y", SHARED[:4], [False] * 4, [False] * 4, 4, False)], SHARED[4])
    assert leading(padded["input_ids"], padded["attention_mask"], 20) == 4
