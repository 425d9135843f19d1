"""Models held in 4 and 8 bits: what is stored, what is learned, what is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("bitsandbytes", reason="bitsandbytes (forgetfilter[quantization]) is not installed")

from tiny import mixed_rows

from forgetfilter.errors import ConfigError
from forgetfilter.filter.signals import token_memory
from forgetfilter.models import load as models
from forgetfilter.models import quantization
from forgetfilter.settings import resolve
from forgetfilter.training.finetune import finetune

ROWS = mixed_rows(12)
# Levels of 4-bit NormalFloat, from the paper's appendix E.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def likelihood(model: Any) -> float:
    """Mean log-probability of all tokens, nats."""
    memories = [m.logp for m in token_memory(model, ROWS) if len(m.logp)]
    return float(sum(m.sum() for m in memories) / sum(len(m) for m in memories))


def linears(model: Any) -> dict[str, Any]:
    return {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in n}


def test_nf4_holds_each_weight_in_half_a_byte_at_the_nearest_level_of_its_block() -> None:
    import bitsandbytes

    plain = linears(models.load("nano", dtype="float32").model)
    packed = linears(models.load("nano", dtype="float32", quantization="nf4").model)
    name, layer = next(iter(packed.items()))
    whole = plain[name].weight.detach()
    assert layer.weight.numel() * layer.weight.element_size() == whole.numel() // 2
    assert layer.weight.quant_state.nested  # the scales are quantised once more
    unpacked = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    blocks, found = whole.reshape(-1, 64), unpacked.reshape(-1, 64).float()
    scale = blocks.abs().amax(1, keepdim=True)
    levels = torch.tensor(NF4)
    nearest = levels[((blocks / scale)[..., None] - levels).abs().argmin(-1)] * scale
    assert (found - nearest).abs().max() < 0.02 * scale.max()  # what quantised scales are off by


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantised_model_scores_almost_as_the_whole_one(kind: str) -> None:
    whole = likelihood(models.load("nano", dtype="float32").model)
    fewer = likelihood(models.load("nano", dtype="float32", quantization=kind).model)
    assert fewer == pytest.approx(whole, abs=0.5 if kind == "nf4" else 0.1)
    assert fewer != whole


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_an_adapter_learns_on_a_quantised_model_whose_own_weights_stay(kind: str, tmp_path: Path) -> None:
    loaded = models.load("nano", dtype="bfloat16", quantization=kind)
    model: Any = models.add_lora(loaded.model, rank=4, alpha=8)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    assert {n.rpartition("lora_")[2][0] for n, p in model.named_parameters() if p.requires_grad} == {"A", "B"}
    before = likelihood(model)
    done = finetune(model, ROWS, learning_rate=5e-3, batch_size=4, epochs=6, seed=0, folder=tmp_path)
    assert math.isfinite(done.loss) and likelihood(model) > before + 0.3
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_what_was_scored_before_it_learns_has_the_same_gradients(kind: str) -> None:
    from forgetfilter.training.finetune import collate_right, completion_loss

    batch = collate_right([r for r in ROWS if any(r.learned[1:])][:4], 0)
    gradients = []
    for scored in (False, True):
        model: Any = models.add_lora(
            models.load("nano", dtype="bfloat16", quantization=kind).model, rank=4, alpha=8
        )
        if scored:
            token_memory(model, ROWS)
        model.train()
        completion_loss(model, batch).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if "lora_B" in n})
    first, second = gradients
    assert all(g is not None and g.abs().max() > 0 for g in first.values())
    assert all(torch.equal(g, second[n]) for n, g in first.items())


def test_the_adapter_names_its_base_and_is_put_on_it_whole_again(tmp_path: Path) -> None:
    loaded = models.load("nano", dtype="float32", quantization="nf4")
    loaded.model = models.add_lora(loaded.model, rank=4, alpha=8)
    finetune(loaded.model, ROWS, learning_rate=5e-3, batch_size=4, steps=4, seed=0, folder=tmp_path / "t")
    learned = likelihood(loaded.model)
    models.save(loaded, tmp_path / "adapter")
    assert models.resolve(str(tmp_path / "adapter")).base == "nano"
    again = models.load(str(tmp_path / "adapter"), dtype="float32", quantization="nf4")
    assert quantization.is_quantized(again.model)
    assert likelihood(again.model) == pytest.approx(learned, abs=0.02)
    with pytest.raises(ConfigError, match="second one; `forgetfilter merge`"):
        models.add_lora(again.model, rank=4, alpha=8)
    whole = models.load(str(tmp_path / "adapter"), dtype="float32")
    assert not quantization.is_quantized(whole.model)


def test_quantization_takes_an_adapter_of_itself_and_refuses_to_train_all_weights() -> None:
    found = resolve(None, None, {"quantization": "nf4"})
    assert (found.settings.tuning, found.origins["tuning"]) == ("lora", "--quantization")
    with pytest.raises(
        ConfigError, match="nf4 with tuning full: weights held in so few bits cannot be trained"
    ):
        resolve(None, None, {"quantization": "nf4", "tuning": "full"})
    with pytest.raises(ConfigError, match="nf5"):
        resolve(None, None, {"quantization": "nf5"})
    with pytest.raises(ConfigError, match="quantization: unknown value 'nf5'"):
        models.load("nano", quantization="nf5")


def test_without_bitsandbytes_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'forgetfilter\[quantization\]'"):
        models.load("nano", quantization="int8")


@pytest.mark.slow
def test_a_python_program_hears_nothing_of_an_optional_kernel(environment: Mapping[str, str]) -> None:
    program = (
        "from forgetfilter.models import load; m = load.load('nano', quantization='nf4').model; "
        "load.add_lora(m, rank=2, alpha=4); import bitsandbytes"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=dict(environment), capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == ""


def test_vet_reads_hidden_states_of_a_model_in_4_bits_and_keeps_them_apart(tmp_path: Path) -> None:
    from forgetfilter.data import formats
    from forgetfilter.filter.states import kept_or_read
    from forgetfilter.review import vet

    path = tmp_path / "rows.jsonl"
    lines = [{"prompt": f"What is {i}?", "completion": f"A number, {i}."} for i in range(6)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows, kept = formats.read(path).rows, tmp_path / "states.npz"
    whole = kept_or_read(rows, "nano", kept, max_length=64)
    fewer = kept_or_read(rows, "nano", kept, max_length=64, quantization="nf4")
    apart = np.linalg.norm(fewer - whole, axis=1) / np.linalg.norm(whole, axis=1)
    assert apart.min() > 0.001 and apart.max() < 0.5
    with pytest.raises(ConfigError, match="nf5"):
        vet.run_vet(str(path), answers=path, quantization="nf5")


def test_weights_of_a_quantised_model_are_not_subtracted(tmp_path: Path) -> None:
    from forgetfilter.errors import ModelError
    from forgetfilter.unlearn.task_vector import subtract_folders

    for name in ("base", "tuned"):
        models.load("nano", quantization="nf4").model.save_pretrained(tmp_path / name)
    with pytest.raises(ModelError, match="quantised model, whose weights cannot be subtracted"):
        subtract_folders(tmp_path / "base", tmp_path / "tuned", tmp_path / "out", 0.5, False)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_filter_and_evaluate_run_on_four_bits(command: Callable[..., Any], tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Name a number after {i}.", "completion": f"The number {i + 1} comes after {i}."}
        for i in range(24)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    quick = ("--quantization", "nf4", "--num-train-epochs", "1", "--review-steps", "2")
    done = command(
        "filter", "rows.jsonl", *quick, "--algorithm", "paper", "--threshold", "fixed", "-o", "run"
    )
    assert done.returncode in (0, 3), done.stderr
    adapter = json.loads((tmp_path / "run/model/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"].endswith("nano")
    asked = command("generate", "run/model", "--prompt", "Name a number.", "--max-new-tokens", "4",
                    "--quantization", "nf4")  # fmt: skip
    assert asked.returncode == 0, asked.stderr
