from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import encoded, gpt2, llama
from transformers import Gemma2Config, Gemma2ForCausalLM

from forgetfilter.models.load import add_lora
from forgetfilter.training import head as module
from forgetfilter.training.finetune import collate_right
from forgetfilter.training.head import logits_of, summed_cross_entropy

INPUTS = collate_right([encoded(3, 5, seed=1), encoded(9, 2, seed=2), encoded(4, 9, seed=3)], 0)


def gemma() -> Any:
    """A model whose logits are capped behind the head."""
    config = Gemma2Config(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, initializer_range=0.3, final_logit_softcapping=2.0,
        attn_implementation="eager", pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return Gemma2ForCausalLM(config).float().eval()


MODELS = {
    "llama": llama,
    "tied": lambda: llama(tie_word_embeddings=True),
    "gpt2": gpt2,
    "capped": gemma,
    "adapter": lambda: add_lora(llama(), rank=4, alpha=8, seed=1),
    "adapter on the head": lambda: add_lora(
        llama(), rank=4, alpha=8, seed=1, target_modules=("lm_head", "q_proj")
    ),
}


@pytest.fixture(params=[1, 5, 1000])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Tokens at once."""
    monkeypatch.setitem(module.CHUNK, "cpu", request.param * 4 * 400)
    return request.param


def whole(model: Any) -> torch.Tensor:
    """All logits (batch, time - 1, vocabulary) of the tokens behind the first."""
    return model(input_ids=INPUTS["input_ids"], attention_mask=INPUTS["attention_mask"]).logits[:, :-1]


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_loss_and_gradients_are_those_of_all_logits_at_once(make: Any, chunk: int) -> None:
    model, wanted = make(), INPUTS["learned"]
    logits, target = whole(model)[wanted[:, 1:]], INPUTS["input_ids"][wanted]
    expected = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
    found = summed_cross_entropy(model, INPUTS, wanted)
    torch.testing.assert_close(found, expected)
    theirs, ours = gradients(model, expected / 7), gradients(model, found / 7)
    assert ours.keys() == theirs.keys() and ours
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_logits_are_the_models_own_row_by_row(make: Any, chunk: int) -> None:
    model, wanted = make(), torch.zeros_like(INPUTS["learned"])
    for row, at in ((0, 7), (0, 3), (1, 10), (2, 1)):
        wanted[row, at] = True
    with torch.inference_mode():
        expected = whole(model)
        chunks = list(logits_of(model, INPUTS, wanted))
    inner = [expected[row, at - 1] for row, at in ((0, 3), (0, 7), (1, 10), (2, 1))]
    torch.testing.assert_close(torch.cat(chunks), torch.stack(inner), rtol=1e-4, atol=1e-5)


def test_the_head_sees_a_chunk_at_a_time_and_none_of_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.CHUNK, "cpu", 6 * 4 * 400)
    model, seen = llama(), []
    model.lm_head.register_forward_hook(lambda m, given, out: seen.append(out.shape[:-1].numel()))
    with torch.inference_mode():
        assert [len(c) for c in logits_of(model, INPUTS, INPUTS["learned"])] == [6, 6, 4]
    assert seen == [1, 1, 6, 6, 4]  # one token by the model, one to compare
