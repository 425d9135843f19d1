"""A batch that does not fit into memory is gone through in smaller parts, with the same result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import encoded, llama

from forgetfilter.errors import ForgetfilterError
from forgetfilter.filter.signals import token_memory
from forgetfilter.filter.states import read_rows
from forgetfilter.models.load import add_lora
from forgetfilter.training import finetune as engine
from forgetfilter.training import memory
from forgetfilter.training.finetune import finetune

ROWS = [encoded(3 + i % 5, 4, seed=i) for i in range(8)]


def crowded(model: Any, tokens: int) -> list[int]:
    """Let `model` run out of memory, at its last layer, with more than `tokens` at once; the sizes it was given."""
    sizes: list[int] = []

    def read(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = named["input_ids"]
        sizes.append(ids.numel())

    def full(*_: Any) -> None:
        if sizes[-1] > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    model.get_decoder().register_forward_pre_hook(read, with_kwargs=True)
    model.get_decoder().layers[-1].register_forward_hook(full)
    return sizes


def crowded_backwards(model: Any, tokens: int) -> None:
    """As `crowded`, on the way back: gradients of the last layers are there already."""
    first = model.get_decoder().layers[0]

    def full(_: Any, __: Any, out: tuple[Any, ...]) -> None:
        if out[0].shape[0] * out[0].shape[1] > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")

    first.register_full_backward_hook(full)


def learned(model: Any, folder: Path, **changed: Any) -> tuple[dict[str, torch.Tensor], Any]:
    done = finetune(
        model, ROWS, **{"learning_rate": 1e-2, "batch_size": 8, "steps": 3, "seed": 0, "folder": folder} | changed
    )  # fmt: skip
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}, done


@pytest.mark.parametrize("at", [crowded, crowded_backwards])
def test_a_step_that_does_not_fit_is_taken_in_halves_with_the_result_of_the_whole(
    at: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "price_of_a_pass", lambda model: float("inf"))
    whole, done = learned(add_lora(llama(), rank=2, alpha=4), tmp_path / "whole")
    model = add_lora(llama(), rank=2, alpha=4)
    sizes = at(model, 24)
    parts, again = learned(model, tmp_path / "parts")
    assert again.tokens == done.tokens and again.loss == pytest.approx(done.loss, abs=1e-4)
    for name, weight in whole.items():
        assert torch.allclose(parts[name], weight, atol=2e-4), name
    if sizes:
        assert max(sizes[-4:]) <= 24  # later steps begin with what fits


def test_a_single_row_that_does_not_fit_is_refused_with_what_to_lower(tmp_path: Path) -> None:
    model = add_lora(llama(), rank=2, alpha=4)
    crowded(model, 3)
    with pytest.raises(ForgetfilterError, match=r"single row of \d+ tokens. Lower --max-length"):
        learned(model, tmp_path)
    with pytest.raises(ForgetfilterError, match=r"single row of \d+ tokens. Lower --max-length"):
        token_memory(model, ROWS)


def test_a_batch_of_pairs_that_does_not_fit_says_what_to_lower(tmp_path: Path) -> None:
    model = add_lora(llama(), rank=2, alpha=4)
    crowded(model, 3)
    with pytest.raises(
        ForgetfilterError, match=r"8 rows of 11 tokens at once. Lower --per-device-train-batch"
    ):
        engine.train(
            model, ROWS, loss=engine.completion_loss, collate=lambda batch: engine.collate_right(batch, 0),
            learning_rate=1e-3, batch_size=8, steps=1, seed=0, folder=tmp_path, schedule="constant",
        )  # fmt: skip


def test_another_error_is_passed_on(tmp_path: Path) -> None:
    model = add_lora(llama(), rank=2, alpha=4)

    def broken(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    model.get_decoder().layers[-1].register_forward_hook(broken)
    with pytest.raises(RuntimeError, match="mat1"):
        learned(model, tmp_path)
    with pytest.raises(RuntimeError, match="mat1"):
        token_memory(model, ROWS)


def test_rows_that_do_not_fit_are_read_in_halves_with_the_same_scores_and_states() -> None:
    model = llama()
    scores, states = token_memory(model, ROWS), read_rows(model, ROWS).both()
    sizes = crowded(model, 24)
    again, seen = token_memory(model, ROWS), read_rows(model, ROWS).both()
    assert max(sizes) > 24
    for a, b in zip(scores, again, strict=True):
        assert b.logp == pytest.approx(a.logp, abs=1e-4)
    assert seen == pytest.approx(states, abs=1e-4)


def test_parts_are_cut_evenly_where_there_is_no_room() -> None:
    rows = sorted(ROWS, key=lambda r: len(r.ids))  # 7 to 11 tokens
    assert [len(p) for p in memory.cut([rows], memory.Room(float("inf")))] == [8]
    assert [len(p) for p in memory.cut([rows], memory.Room(33))] == [2, 3, 3]  # three at once
    assert [len(p) for p in memory.cut([rows], memory.Room(1))] == [1] * 8


def test_a_long_single_row_beside_short_ones_ends_the_halving() -> None:
    long, short = (
        engine.collate_right(rows, 0) | {"share": 0.5} for rows in ([encoded(40, 9, seed=1)], ROWS[:2])
    )
    room = memory.Room(float("inf"))
    with pytest.raises(ForgetfilterError, match="single row of 49 tokens"):
        memory.smaller_parts([long, short], room)
    halves = memory.smaller_parts([short], room)
    assert [len(half["input_ids"]) for half in halves] == [1, 1] and room.tokens == short[
        "input_ids"
    ].numel() / 2
    assert sum(half["share"] for half in halves) == pytest.approx(0.5)
