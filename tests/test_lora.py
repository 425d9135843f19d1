from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from tiny import gpt2, llama, mixed_rows

from forgetfilter.models.load import add_lora, restore, trainable_state
from forgetfilter.models.lora import _quick_linear, quicken
from forgetfilter.training.finetune import collate_right, completion_loss, finetune

ROWS = mixed_rows(10)
BATCH = collate_right([r for r in ROWS if any(r.learned[1:])][:4], 0)
IDS = torch.arange(1, 25).view(2, 12)
MODELS = {"llama": llama, "gpt2": gpt2}


def pefts_own(model: Any) -> Any:
    """The same adapter in the layers of PEFT itself."""
    plain = copy.deepcopy(model)
    for layer in plain.modules():
        if type(layer) is _quick_linear():
            layer.__class__ = Linear
    return plain


def moved(model: Any) -> Any:
    """B is zero at first: an adapter that does something."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.05)
    return model


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    completion_loss(model, BATCH).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_loss_and_gradients_are_those_of_pefts_layers(make: Any) -> None:
    ours = moved(add_lora(make(), rank=4, alpha=12, seed=1))  # in eval mode: GPT-2 has dropout of its own
    theirs = pefts_own(ours)
    assert sum(type(m) is _quick_linear() for m in ours.modules()) >= 8
    assert not any(type(m) is _quick_linear() for m in theirs.modules())
    torch.testing.assert_close(completion_loss(ours, BATCH), completion_loss(theirs, BATCH))
    found, expected = gradients(ours), gradients(theirs)
    assert found.keys() == expected.keys() and all("lora_" in name for name in found)
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_steps_lead_where_pefts_lead(make: Any, steps: int, tmp_path: Path) -> None:
    ours = add_lora(make(), rank=4, alpha=8, seed=1)
    theirs = pefts_own(ours)
    for name, model in (("ours", ours), ("theirs", theirs)):
        finetune(model, ROWS, learning_rate=1e-3, batch_size=3, steps=steps, seed=5, folder=tmp_path / name)
    expected = trainable_state(theirs)
    for name, tensor in trainable_state(ours).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=2e-6 * steps)


def test_in_bfloat16_it_is_no_further_from_the_truth_than_pefts_layers() -> None:
    truth = moved(add_lora(llama(), rank=4, alpha=12, seed=1))
    truth.to(torch.bfloat16).to(torch.float32)  # the values that bfloat16 can hold
    exact = gradients(truth.train())
    off = {}
    ours = copy.deepcopy(truth).bfloat16()
    for name, model in (("ours", ours), ("theirs", pefts_own(ours))):
        found = gradients(model.train())
        off[name] = sum(float((found[n].float() - g).norm() / g.norm()) for n, g in exact.items())
    assert off["ours"] <= 1.1 * off["theirs"]


def test_it_is_saved_and_loaded_and_merged_as_an_adapter_of_peft(tmp_path: Path) -> None:
    model = moved(add_lora(llama(), rank=4, alpha=8, seed=1)).eval()
    with torch.no_grad():
        expected = model(IDS).logits
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(llama(), tmp_path).eval()
        torch.testing.assert_close(loaded(IDS).logits, expected)
        torch.testing.assert_close(quicken(loaded)(IDS).logits, expected)
        merged = model.merge_and_unload()
    assert not any("lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(merged(IDS).logits, expected)


def test_without_the_adapter_the_model_is_the_plain_one() -> None:
    model = moved(add_lora(llama(), rank=4, alpha=8, seed=1)).eval()
    with torch.no_grad():
        adapted = model(IDS).logits
        with model.disable_adapter():
            assert torch.equal(model(IDS).logits, llama()(IDS).logits)
        assert torch.equal(model(IDS).logits, adapted)


def test_dropout_while_training_is_pefts() -> None:
    ours = moved(add_lora(llama(), rank=4, alpha=8, dropout=0.5, seed=1)).train()
    theirs = pefts_own(ours).train()
    found = []
    for model in (ours, theirs):
        torch.manual_seed(7)
        found.append(gradients(model))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(IDS).logits, theirs.eval()(IDS).logits)


CHANGES = {
    "an optimiser's step": lambda m, state: torch.optim.SGD([p for p in m.parameters() if p.requires_grad], 1.0),
    "a state put back": lambda m, state: restore(m, state),
    "another scale": lambda m, state: [
        layer.scaling.update(default=9.0) for layer in m.modules() if isinstance(layer, Linear)
    ],
    "other base weights": lambda m, state: [
        layer.base_layer.weight.mul_(1.1) for layer in m.modules() if isinstance(layer, Linear)
    ],
    "another tensor in its place": lambda m, state: m.load_state_dict(
        {n: t * 1.5 for n, t in m.state_dict().items()}, assign=True
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_what_was_built_of_older_weights_is_never_used(make: Any, how: str) -> None:
    model = moved(add_lora(make(), rank=4, alpha=8, seed=1)).eval()
    state = {n: t * 2 for n, t in trainable_state(model).items()}
    with torch.inference_mode():
        before = model(IDS).logits
        assert torch.equal(model(IDS).logits, before)
    if isinstance(optimiser := torch.no_grad()(CHANGES[how])(model, state), torch.optim.Optimizer):
        gradients(model)
        optimiser.step()
    with torch.no_grad():
        after, expected = model(IDS).logits, pefts_own(model)(IDS).logits
    assert not torch.allclose(after, before, atol=1e-4)
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)


def test_the_sum_is_built_once_for_many_batches_and_not_held_while_training(tmp_path: Path) -> None:
    model = moved(add_lora(llama(), rank=4, alpha=8, seed=1)).eval()
    layers = [m for m in model.modules() if type(m) is _quick_linear()]
    with torch.no_grad():
        model(IDS)
        first = [layer._whole[1] for layer in layers]
        model(IDS)
        assert all(layer._whole[1] is built for layer, built in zip(layers, first, strict=True))
    model.train()
    completion_loss(model, BATCH)
    assert all(layer._whole is None for layer in layers)


def test_in_bfloat16_no_sum_is_built() -> None:
    model = add_lora(llama(dtype=torch.bfloat16), rank=4, alpha=8, seed=1).eval()
    with torch.no_grad():
        model(IDS)
    assert all(m._whole is None for m in model.modules() if type(m) is _quick_linear())


def test_layers_that_it_does_not_know_are_left_alone() -> None:
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], use_dora=True, task_type="CAUSAL_LM")
    ours = quicken(get_peft_model(llama(), config)).train()
    theirs = pefts_own(ours).train()
    found, expected = gradients(ours), gradients(theirs)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
