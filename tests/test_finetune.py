from __future__ import annotations

import dataclasses
import gc
import json
import logging
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import encoded, gpt2, llama, mixed_rows, same, weights

from forgetfilter.errors import DataError
from forgetfilter.models.load import add_lora, trainable_state
from forgetfilter.models.rendering import Encoded
from forgetfilter.training import finetune as module
from forgetfilter.training.finetune import (
    Trained,
    collate_right,
    completion_loss,
    finetune,
    parts_of_like_length,
)

ROWS = mixed_rows(10)
LEARNED = sum(any(r.learned[1:]) for r in ROWS)


def tune(model: Any, folder: Path, rows: Any = ROWS, **changes: Any) -> Trained:
    settings: dict[str, Any] = {"learning_rate": 1e-2, "batch_size": 3, "seed": 5, **changes}
    if "steps" not in settings and "epochs" not in settings:
        settings["steps"] = 6
    return finetune(model, rows, folder=folder, **settings)


def lora(dtype: torch.dtype = torch.float32, dropout: float = 0.1) -> Any:
    return add_lora(llama(dtype=dtype), rank=4, alpha=8, dropout=dropout, seed=1)


STATES = {
    "full": llama,
    "full bf16": lambda: llama(dtype=torch.bfloat16),
    "lora": lora,
    "lora bf16": lambda: lora(torch.bfloat16),
}


@pytest.fixture(scope="module", autouse=True)
def little_garbage_to_look_through() -> Iterator[None]:
    """The Trainer collects garbage at its end: most of a second each time, all of it spent on imported modules."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Killed(Exception):
    pass


def killer(step: int) -> Any:
    def progress(done: int, in_all: int) -> None:
        if done == step:
            raise Killed

    return progress


# --- the loss ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [llama, gpt2])
def test_the_loss_is_the_mean_over_the_learned_tokens_of_the_batch(make: Any) -> None:
    model, rows = make(), [encoded(3, 5, seed=1), encoded(9, 2, seed=2)]
    losses = []
    for row in rows:  # each row alone, all logits
        logits = model(torch.tensor([row.ids])).logits[0]
        for t in range(1, len(row.ids)):
            if row.learned[t]:
                losses.append(-float(torch.log_softmax(logits[t - 1], -1)[row.ids[t]].detach()))
    assert len(losses) == 7
    assert completion_loss(model, collate_right(rows, 5)).item() == pytest.approx(sum(losses) / 7, abs=1e-5)


def test_padding_is_on_the_right_and_never_learned() -> None:
    batch = collate_right([encoded(1, 2, seed=1), encoded(2, 3, seed=2)], pad_id=9)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["input_ids"][0, 3:].tolist() == [9, 9]
    assert batch["learned"].tolist() == [[False, True, True, False, False], [False, False, True, True, True]]


def test_a_learned_first_token_is_left_out_of_the_loss() -> None:
    row = encoded(2, 3, seed=1)
    first = dataclasses.replace(row, learned=[True, *row.learned[1:]])
    model = llama()
    assert completion_loss(model, collate_right([first], 0)) == completion_loss(
        model, collate_right([row], 0)
    )


def test_the_batchs_padding_changes_the_loss_by_nothing_but_rounding() -> None:
    model, short, long = llama(), encoded(3, 4, seed=1), encoded(20, 0, seed=2)
    alone = completion_loss(model, collate_right([short], 0)).item()
    assert completion_loss(model, collate_right([short, long], 0)).item() == pytest.approx(alone, abs=1e-5)


# --- parts of a batch ---


@pytest.mark.parametrize(
    ("lengths", "price", "parts"),
    [
        # one part: 4 x 40 = 160; short and long apart: 2 x 10 + 2 x 40 = 100 and the price of one more
        ((10, 40, 40, 10), 59, [[10, 10], [40, 40]]),
        ((10, 40, 40, 10), 61, [[10, 10, 40, 40]]),
        ((10, 40, 40, 10), float("inf"), [[10, 10, 40, 40]]),
        ((3, 1, 2), 0, [[1], [2], [3]]),
        ((7,), 5, [[7]]),
    ],
)
def test_a_batch_is_cut_where_less_padding_is_worth_one_more_pass(
    lengths: tuple[int, ...], price: float, parts: list[list[int]]
) -> None:
    rows = [encoded(n - 1, 1, seed=n, id=str(i)) for i, n in enumerate(lengths)]
    found = parts_of_like_length(rows, price)
    assert [[len(r.ids) for r in part] for part in found] == parts
    assert sorted(r.id for part in found for r in part) == [str(i) for i in range(len(lengths))]


@pytest.mark.parametrize("make", [llama, lambda: lora(dropout=0.0)], ids=["full", "lora"])
def test_steps_in_parts_are_the_steps_of_whole_batches(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut, passes = make(), make(), []
    monkeypatch.setattr(module, "price_of_a_pass", lambda model: float("inf"))
    expected = tune(whole, tmp_path / "whole", learning_rate=1e-3)
    monkeypatch.setattr(module, "price_of_a_pass", lambda model: 1.0)
    cut.register_forward_pre_hook(lambda *_: passes.append(1))
    found = tune(cut, tmp_path / "cut", learning_rate=1e-3)
    assert len(passes) > found.steps == expected.steps
    assert found.tokens == expected.tokens
    assert found.loss == pytest.approx(expected.loss, abs=1e-5)
    moved = weights(cut)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(moved[name], tensor, rtol=0, atol=1e-5)


# --- what a fine-tune does --------------------------------------------------------------------------------


def test_a_fine_tune_is_adamw_on_the_clipped_gradient_of_the_loss(tmp_path: Path) -> None:
    rows = [encoded(3, 5, seed=1), encoded(9, 2, seed=2)]
    model, hand = llama(), llama()
    done = tune(model, tmp_path, rows, batch_size=2, steps=3)
    optimiser = torch.optim.AdamW(hand.parameters(), lr=1e-2, weight_decay=0.0)
    losses = []
    for _ in range(3):  # one batch of both rows, whatever their order
        loss = completion_loss(hand, collate_right(rows, 0))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(hand.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    moved = weights(model)
    for name, expected in weights(hand).items():
        torch.testing.assert_close(moved[name], expected, rtol=0, atol=1e-4)
    assert done.steps == 3
    assert done.tokens == 3 * (8 + 11)
    assert done.loss == pytest.approx(losses[-1], abs=1e-4)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("make", STATES.values(), ids=STATES)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(make: Any, tmp_path: Path) -> None:
    a, b, c = make(), make(), make()
    assert tune(a, tmp_path / "a") == tune(b, tmp_path / "b")
    tune(c, tmp_path / "c", seed=6)
    assert same(weights(a), weights(b))
    assert not same(weights(a), weights(c))


@pytest.mark.parametrize("killed_at", [2, 4, 5, 7])
@pytest.mark.parametrize("make", STATES.values(), ids=STATES)
def test_a_killed_and_resumed_run_equals_the_uninterrupted_one(
    make: Any, killed_at: int, tmp_path: Path
) -> None:
    rate = 1e-3  # small against bfloat16's steps: what the masters hold is not what the weights show
    settings: dict[str, Any] = {"learning_rate": rate, "epochs": 2.0, "save_steps": 2, "schedule": "linear"}
    whole, first, again = make(), make(), make()
    expected = tune(whole, tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        tune(first, tmp_path / "cut", progress=killer(killed_at), **settings)
    steps: list[int] = []
    resumed = tune(again, tmp_path / "cut", progress=lambda done, in_all: steps.append(done), **settings)
    # Killed in step 2 or 4, the checkpoint of that step was not yet written.
    assert steps[0] == {2: 1, 4: 3, 5: 5, 7: 7}[killed_at]
    assert resumed == expected
    assert same(weights(again), weights(whole))
    assert [p.dtype for p in again.parameters()] == [p.dtype for p in whole.parameters()]


def test_a_checkpoint_that_was_cut_off_while_written_is_passed_over(tmp_path: Path) -> None:
    whole, cut = llama(), llama()
    expected = tune(whole, tmp_path / "whole", steps=7)
    with pytest.raises(Killed):
        tune(llama(), tmp_path / "cut", steps=7, save_steps=2, progress=killer(3))
    half = tmp_path / "cut" / "checkpoint-4"
    half.mkdir()
    (half / "trainable.safetensors").write_bytes(b"half")
    assert tune(cut, tmp_path / "cut", steps=7, save_steps=2) == expected
    assert same(weights(cut), weights(whole))


def test_one_checkpoint_is_kept_and_none_where_save_steps_is_not_reached(tmp_path: Path) -> None:
    tune(llama(), tmp_path / "some", steps=7, save_steps=2)
    assert [p.name for p in (tmp_path / "some").iterdir()] == ["checkpoint-6"]
    tune(llama(), tmp_path / "none", steps=6, save_steps=100)
    tune(llama(), tmp_path / "never", steps=6)
    tune(llama(), tmp_path / "at the end", steps=6, save_steps=6)
    for name in ("none", "never", "at the end"):
        assert list((tmp_path / name).iterdir()) == []


def test_a_checkpoint_holds_what_is_trained_and_no_more(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = lora()
    with pytest.raises(Killed):
        tune(model, tmp_path, save_steps=2, progress=killer(3))
    saved = load_file(tmp_path / "checkpoint-2" / "trainable.safetensors")
    assert saved.keys() == trainable_state(model).keys()
    assert len(json.loads((tmp_path / "checkpoint-2" / "tally.json").read_text())["losses"]) == 2


def test_only_the_adapter_moves(tmp_path: Path) -> None:
    model = lora()
    before = weights(model)
    tune(model, tmp_path)
    for name, now in weights(model).items():
        assert torch.equal(now, before[name]) == ("lora_" not in name), name


def test_prompts_are_never_learned(tmp_path: Path) -> None:
    learned = [r for r in ROWS if any(r.learned)]
    prompts = [encoded(8, 0, seed=90 + i) for i in range(4)]
    with_them, without = llama(), llama()
    assert tune(with_them, tmp_path / "a", [*prompts, *learned]) == tune(without, tmp_path / "b", learned)
    assert same(weights(with_them), weights(without))
    model = llama()
    completion_loss(model, collate_right([encoded(3, 5, seed=1), prompts[0]], 0)).backward()
    only_prompt = set(prompts[0].ids) - set(encoded(3, 5, seed=1).ids)
    assert (model.get_input_embeddings().weight.grad[sorted(only_prompt)] == 0).all()


def test_nothing_to_learn_is_said() -> None:
    first = Encoded("z", [5, 6], [True, False], [True, False], 0, False)
    for rows in ([], [encoded(4, 0, seed=1)], [first]):
        with pytest.raises(DataError, match="no row with a completion"):
            tune(llama(), Path("unused"), rows)
    assert not Path("unused").exists()


@pytest.mark.parametrize(
    ("asked", "steps"),
    # ten rows in batches of three: four steps an epoch
    [
        ({"epochs": 1.0}, 4),
        ({"epochs": 2}, 8),
        ({"epochs": 0.5}, 2),
        ({"epochs": 0.3}, 2),
        ({"steps": 5}, 5),
        ({"steps": 1}, 1),
    ],
)
def test_epochs_are_passes_and_steps_are_steps(asked: dict[str, Any], steps: int, tmp_path: Path) -> None:
    rows, seen = [encoded(3, 4, seed=i) for i in range(10)], []
    done = tune(llama(), tmp_path, rows, progress=lambda n, in_all: seen.append((n, in_all)), **asked)
    assert done.steps == steps
    assert seen == [(n + 1, steps) for n in range(steps)]


def test_an_epoch_sees_every_row_once(tmp_path: Path) -> None:
    done = tune(llama(), tmp_path, epochs=3)
    assert done.tokens == 3 * sum(len(r.ids) for r in ROWS if any(r.learned))


def test_epochs_or_steps_not_both_and_not_neither(tmp_path: Path) -> None:
    for asked in ({}, {"epochs": 1.0, "steps": 3}):
        with pytest.raises(ValueError, match="either epochs or steps"):
            finetune(llama(), ROWS, learning_rate=1e-3, batch_size=2, seed=0, folder=tmp_path, **asked)


def test_a_warm_up_is_not_ignored(tmp_path: Path) -> None:
    still, warm = llama(), llama()
    tune(still, tmp_path / "a", steps=1, warmup_steps=4)  # the first step of a warm-up has rate 0
    tune(warm, tmp_path / "b", steps=2, warmup_steps=4)
    assert same(weights(still), weights(llama()))
    assert not same(weights(warm), weights(llama()))


def test_it_is_silent_and_leaves_warnings_logs_and_randomness_as_they_were(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.enable_propagation()
    filters, verbosity = list(warnings.filters), transformers_logging.get_verbosity()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.INFO):
        warnings.simplefilter("always")
        with pytest.raises(Killed):
            tune(lora(), tmp_path, epochs=2.0, save_steps=2, progress=killer(5))
        tune(lora(), tmp_path, epochs=2.0, save_steps=2)
        tune(gpt2(), tmp_path / "gpt2", steps=1)
    transformers_logging.disable_propagation()
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in warned] == []
    assert [
        r.getMessage() for r in caplog.records if r.name.startswith(("transformers", "peft", "accelerate"))
    ] == []
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected
    assert warnings.filters == filters and transformers_logging.get_verbosity() == verbosity
    assert transformers_logging.is_progress_bar_enabled()


def test_the_model_is_left_ready_to_be_asked(tmp_path: Path) -> None:
    for model, stop in ((lora(), None), (lora(), killer(2))):
        try:
            tune(model, tmp_path, progress=stop)
        except Killed:
            assert stop
        assert not model.training
        assert all(p.grad is None for p in model.parameters())


# --- the optimiser ----------------------------------------------------------------------------------------


def steps(optimiser_of: Any, dtype: torch.dtype, rate: float, n: int = 20) -> tuple[torch.nn.Parameter, Any]:
    weight = torch.nn.Parameter(torch.linspace(0.5, 2, 12).to(dtype))
    optimiser = optimiser_of([weight], lr=rate, weight_decay=0.0)
    for i in range(n):
        optimiser.zero_grad()
        weight.grad = torch.linspace(0.1, 1, 12).to(dtype) * (1 + i % 3)
        optimiser.step()
    return weight, optimiser


def test_in_float32_it_is_torchs_adamw() -> None:
    ours, _ = steps(module.master_adamw(), torch.float32, 1e-2)
    theirs, _ = steps(torch.optim.AdamW, torch.float32, 1e-2)
    assert torch.equal(ours, theirs)


def test_small_steps_add_up_in_bfloat16_where_plain_adamw_stands_still() -> None:
    # Between 1 and 2 a bfloat16 moves by 1/128 at least; sixty steps of about 2e-4 are 0.012.
    ours, optimiser = steps(module.master_adamw(), torch.bfloat16, 2e-4, n=60)
    theirs, _ = steps(torch.optim.AdamW, torch.bfloat16, 2e-4, n=60)
    exact, _ = steps(torch.optim.AdamW, torch.float32, 2e-4, n=60)
    start = torch.linspace(0.5, 2, 12)
    assert torch.equal(theirs, start.bfloat16())
    assert (ours < start.bfloat16()).all()
    assert ours.dtype == torch.bfloat16
    moved, expected = optimiser._masters[0].detach() - start.bfloat16(), exact.detach() - start
    torch.testing.assert_close(moved, expected, rtol=0.01, atol=0)


def test_the_optimisers_state_holds_the_masters() -> None:
    whole, _ = steps(module.master_adamw(), torch.bfloat16, 2e-4, n=20)
    half, saved = steps(module.master_adamw(), torch.bfloat16, 2e-4, n=9)
    fresh = module.master_adamw()([torch.nn.Parameter(half.detach().clone())], lr=2e-4, weight_decay=0.0)
    fresh.load_state_dict(saved.state_dict())
    weight = fresh._weights[0]
    for i in range(9, 20):
        fresh.zero_grad()
        weight.grad = torch.linspace(0.1, 1, 12).bfloat16() * (1 + i % 3)
        fresh.step()
    assert torch.equal(weight, whole)
