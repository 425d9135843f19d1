from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import llama, tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetfilter.errors import ConfigError, ModelError
from forgetfilter.unlearn import task_vector as module
from forgetfilter.unlearn.task_vector import add, subtract, subtract_folders

BASE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
TUNED = torch.tensor([[2.0, 1.0], [3.0, 8.0]])  # delta [[1, -1], [0, 4]]
IDS = torch.arange(6, 30).reshape(2, 12)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_subtracting_takes_half_of_what_was_tuned_away() -> None:
    assert subtract(BASE, TUNED).tolist() == [[0.5, 2.5], [3.0, 2.0]]
    assert subtract(BASE, TUNED, 1.0).tolist() == [[0.0, 3.0], [3.0, 0.0]]


def test_relu_takes_away_only_what_was_raised() -> None:
    assert subtract(BASE, TUNED, relu=True).tolist() == [[0.5, 2.0], [3.0, 2.0]]


def test_adding_all_of_a_delta_gives_the_tuned_weights_back() -> None:
    assert add(BASE, TUNED).tolist() == TUNED.tolist()
    assert add(BASE, TUNED, 0.5).tolist() == [[1.5, 1.5], [3.0, 6.0]]
    assert add(BASE, TUNED, 0.5, relu=True).tolist() == [[1.5, 2.0], [3.0, 6.0]]


def test_the_number_format_stays_and_the_arithmetic_is_float32() -> None:
    base, tuned = torch.tensor([256.0]).bfloat16(), torch.tensor([250.0]).bfloat16()
    assert subtract(base, tuned, 1 / 3).dtype == torch.bfloat16
    assert subtract(base, tuned, 1 / 3).item() == 258
    # The difference 255.5 would be rounded to 256 in bfloat16, and the result to 0.
    assert add(torch.tensor([256.0]).bfloat16(), torch.tensor([0.5]).bfloat16()).item() == 0.5


def test_weights_in_float64_are_not_rounded_to_float32() -> None:
    base, tuned = torch.tensor([1.0, 1 + 2.0**-40], dtype=torch.float64)
    assert subtract(base, tuned, -1.0).item() == 1 + 2**-40


# --- model folders ----------------------------------------------------------------------------------------


def model_folder(path: Path, seed: int, **settings: Any) -> Path:
    dtype, shard = settings.pop("dtype", torch.float32), settings.pop("shard", "1GB")
    llama(seed, dtype, **settings).save_pretrained(path, max_shard_size=shard)
    tokenizer().save_pretrained(path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shards", [("1GB", "1GB"), ("40KB", "1GB"), ("40KB", "60KB"), ("1GB", "40KB")])
def test_a_subtracted_folder_holds_every_tensor_subtracted(
    dtype: torch.dtype, shards: tuple[str, str], tmp_path: Path
) -> None:
    base = model_folder(tmp_path / "base", 0, dtype=dtype, shard=shards[0])
    tuned = model_folder(tmp_path / "tuned", 1, dtype=dtype, shard=shards[1])
    subtract_folders(base, tuned, tmp_path / "out", 0.25)
    result = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    one, two = llama(0, dtype).state_dict(), llama(1, dtype).state_dict()
    assert result.state_dict().keys() == one.keys()
    for name, tensor in result.state_dict().items():
        by_hand = 1.25 * one[name].double() - 0.25 * two[name].double()
        torch.testing.assert_close(
            tensor, by_hand.to(dtype), rtol=0.01 if dtype == torch.bfloat16 else 1e-5, atol=1e-6
        )
        assert tensor.dtype == dtype
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in base.iterdir()}
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == len(tokenizer())


def test_negative_coefficients_add(tmp_path: Path) -> None:
    base, tuned = model_folder(tmp_path / "base", 0), model_folder(tmp_path / "tuned", 1)
    subtract_folders(base, tuned, tmp_path / "out", -1.0)
    result = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(result), logits(llama(1)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("stored_twice", ["base", "tuned", "neither", "both"])
def test_tied_weights_are_subtracted_once_however_they_are_stored(stored_twice: str, tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "tuned")):
        folder = model_folder(tmp_path / name, seed, tie_word_embeddings=True)
        tensors = load_file(folder / "model.safetensors")
        assert "lm_head.weight" not in tensors
        if stored_twice in (name, "both"):
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
            save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    subtract_folders(tmp_path / "base", tmp_path / "tuned", tmp_path / "out")
    result = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    hand = llama(0, tie_word_embeddings=True)
    tuned = dict(llama(1, tie_word_embeddings=True).named_parameters())
    with torch.no_grad():
        for name, p in hand.named_parameters():
            p.copy_(1.5 * p - 0.5 * tuned[name])
    torch.testing.assert_close(logits(result), logits(hand), rtol=0, atol=1e-4)


def test_an_output_layer_that_was_untied_is_refused_by_name(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base", 0, tie_word_embeddings=True)
    tuned = model_folder(tmp_path / "tuned", 1)
    with pytest.raises(ModelError, match=r"has 1 tensors that .*base has not, lm_head\.weight"):
        subtract_folders(base, tuned, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_shapes_and_names_are_refused_with_the_names(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base", 0)
    wider = model_folder(tmp_path / "wider", 1, intermediate_size=96)
    with pytest.raises(
        ModelError, match=r"6 tensors have another shape .*layers\.0\.mlp\.down_proj.*\[32, 64\]"
    ):
        subtract_folders(base, wider, tmp_path / "out")
    deeper = model_folder(tmp_path / "deeper", 1, num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"has 9 tensors that .*model\.layers\.2\.input_layernorm\.weight"):
        subtract_folders(base, deeper, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith((".", "out"))] == []


def spoil(folder: Path, how: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    if how == "quantised":
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"bits": 4}}))
    elif how == "an adapter":
        (folder / "adapter_config.json").write_text("{}")
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "half a file":
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    elif how == "not a number":
        tensors = load_file(folder / "model.safetensors")
        tensors["model.norm.weight"][3] = float("nan")
        save_file(tensors, folder / "model.safetensors")
    elif how == "no index":
        (folder / "model.safetensors.index.json").write_text("{}")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("quantised", "a quantised model"),
        ("an adapter", "an adapter, not a whole model"),
        ("no config", "config.json is missing"),
        ("no weights", "model.safetensors.* is missing"),
        ("half a file", "could not be read as a model of safetensors"),
        ("not a number", "model.norm.weight: .* leaves the range of torch.float32"),
        ("no index", "could not be read as a model of safetensors"),
    ],
)
def test_folders_that_cannot_be_subtracted_are_refused_and_leave_nothing(
    how: str, said: str, tmp_path: Path
) -> None:
    base, tuned = model_folder(tmp_path / "base", 0), model_folder(tmp_path / "tuned", 1)
    spoil(tuned, how)
    with pytest.raises(ModelError, match=said):
        subtract_folders(base, tuned, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "tuned"]


def test_nothing_is_overwritten_and_an_interrupted_folder_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, tuned, out = (
        model_folder(tmp_path / "base", 0),
        model_folder(tmp_path / "tuned", 1),
        tmp_path / "out",
    )
    with monkeypatch.context() as patch:
        patch.setattr(module, "subtract", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            subtract_folders(base, tuned, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "tuned"]
    (tmp_path / ".unfinished-out").mkdir()  # what a killed process leaves
    (tmp_path / ".unfinished-out" / "model.safetensors").write_bytes(b"half")
    subtract_folders(base, tuned, out)
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="already holds something"):
        subtract_folders(base, tuned, out, 1.0)
    assert (out / "model.safetensors").read_bytes() == before
    with pytest.raises(ConfigError, match="coefficient nan"):
        subtract_folders(base, tuned, tmp_path / "other", float("nan"))
