"""Norms, gates and rotations in one pass each give what the model's own give, and leave the model as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_head import gemma
from tiny import llama

from forgetfilter.models.load import add_lora
from forgetfilter.training import fused

IDS = torch.arange(5, 29).view(2, 12)


def both_ways(make: Any, compiled: bool) -> tuple[list[torch.Tensor], list[torch.Tensor], Any]:
    model = make()
    plain = states(model)
    with fused.replaced(model, compiled):
        other = states(model)
    return plain, other, model


def states(model: Any) -> list[torch.Tensor]:
    """Logits, and the gradients of what is learned."""
    model.zero_grad()
    logits = model(input_ids=IDS, use_cache=False).logits
    logits.float().pow(2).mean().backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("make", [llama, gemma, lambda: add_lora(llama(), rank=2, alpha=4)])
def test_logits_and_gradients_stay_the_same(make: Any) -> None:
    plain, other, model = both_ways(make, compiled=False)
    for a, b in zip(plain, other, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert not any("forward" in vars(m) for m in model.modules())


@pytest.mark.slow
def test_compiled_gates_and_rotations_give_the_same() -> None:
    from transformers.models.llama import modeling_llama

    before = modeling_llama.apply_rotary_pos_emb
    plain, other, _ = both_ways(llama, compiled=True)
    for a, b in zip(plain, other, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert modeling_llama.apply_rotary_pos_emb is before


def test_a_norm_that_computes_something_else_keeps_its_own_way() -> None:
    model = llama()

    class OddRMSNorm(type(model.model.norm)):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model.model.norm.__class__ = OddRMSNorm
    with fused.replaced(model, compiled=False):
        assert "forward" not in vars(model.model.norm)
        assert "forward" in vars(model.model.layers[0].input_layernorm)


def test_a_cpu_keeps_what_it_has() -> None:
    model = llama()
    with fused.fused(model):
        assert not any("forward" in vars(m) for m in model.modules())
