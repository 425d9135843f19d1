from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import encoded, gpt2, llama

from forgetfilter.filter.signals import token_memory
from forgetfilter.filter.states import read_rows
from forgetfilter.models.load import add_lora
from forgetfilter.training.attention import PLAIN_UP_TO, attention_by_length
from forgetfilter.training.finetune import finetune

LONG = PLAIN_UP_TO + 8
MODELS = {"llama": llama, "gpt2": gpt2, "lora": lambda: add_lora(llama(), rank=2, alpha=4, seed=0)}


def kind(model: Any) -> str:
    return model.config._attn_implementation


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("came_with", ["eager", "sdpa"])
def test_short_rows_get_plain_attention_and_long_ones_the_fused(make: Any, came_with: str) -> None:
    model, used = make(), []
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner.set_attn_implementation(came_with)
    with attention_by_length(model) as attend:
        for time in (5, PLAIN_UP_TO, PLAIN_UP_TO + 1, 7):
            attend(time)
            used.append(kind(model))
    assert used == ["eager", "eager", "sdpa", "eager"]
    assert kind(model) == came_with


def test_another_kind_of_attention_is_kept() -> None:
    model = llama()
    model.config._attn_implementation = "of somebody's own"
    with attention_by_length(model) as attend:
        attend(5)
        assert kind(model) == "of somebody's own"


def test_every_pass_chooses_and_leaves_the_model_as_it_came(tmp_path: Path) -> None:
    model, used = llama(), []
    came_with = kind(model)
    model.model.register_forward_pre_hook(
        lambda m, given, named: used.append((named["input_ids"].shape[1], kind(m))), with_kwargs=True
    )
    rows = [encoded(8, 4, seed=1), encoded(LONG - 4, 4, seed=2)]
    token_memory(model, rows, batch_tokens=1)
    read_rows(model, rows, batch_tokens=1)
    finetune(model, rows, learning_rate=1e-3, batch_size=1, steps=2, seed=0, folder=tmp_path)
    assert sorted(used) == [(12, "eager")] * 3 + [(LONG, "sdpa")] * 3
    assert kind(model) == came_with and not model.training


def test_both_kinds_give_the_same_memories() -> None:
    rows = [encoded(PLAIN_UP_TO - 4, 4, seed=1), encoded(9, 7, seed=2)]
    model = llama()
    found = token_memory(model, rows)  # one batch, plain
    fused = token_memory(
        model, [*rows, encoded(LONG, 4, seed=3)], batch_tokens=10_000
    )  # with a long row: fused
    for a, b in zip(found, fused, strict=False):
        np.testing.assert_allclose(a.logp, b.logp, rtol=0, atol=1e-5)
