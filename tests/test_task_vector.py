from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny import gpt2, llama, tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetfilter.errors import ConfigError, ForgetfilterError, ModelError
from forgetfilter.models.load import add_lora
from forgetfilter.unlearn import task_vector as module
from forgetfilter.unlearn.task_vector import add, combine_adapters, concatenate, subtract, subtract_folders

BASE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
TUNED = torch.tensor([[2.0, 1.0], [3.0, 8.0]])  # delta [[1, -1], [0, 4]]
IDS = torch.arange(6, 30).reshape(2, 12)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


# --- tensors ----------------------------------------------------------------------------------------------


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


# --- adapters ---------------------------------------------------------------------------------------------


def test_concatenated_factors_multiply_to_the_sum_of_the_products() -> None:
    a1, b1 = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [0.0]])  # b·a = [[1, 2], [0, 0]]
    a2, b2 = (
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        torch.tensor([[0.0, 1.0], [1.0, 1.0]]),
    )  # [[0, 1], [1, 1]]
    a, b = concatenate([(a1, b1, 2.0), (a2, b2, -3.0)])
    assert (a.shape, b.shape) == ((3, 2), (2, 3))
    assert (b @ a).tolist() == [[2.0, 4 - 3.0], [-3.0, -3.0]]
    # Summing A and B apart, filled up to one rank, as a linear merge does, is something else.
    wrong = (2 * torch.cat([b1, torch.zeros(2, 1)], 1) - 3 * b2) @ (torch.cat([a1, torch.zeros(1, 2)]) + a2)
    assert wrong.tolist() != (b @ a).tolist()
    padded = concatenate([(a1, b1, 2.0), (a2, b2, -3.0)], rank=5)
    assert (padded[0].shape, padded[1].shape) == ((5, 2), (2, 5))
    assert (padded[1] @ padded[0]).tolist() == (b @ a).tolist()


def adapter(path: Path, seed: int, base: Any = llama, **settings: Any) -> Path:
    rank, alpha = settings.pop("rank", 4), settings.pop("alpha", 6)
    model = add_lora(
        base(), rank=rank, alpha=alpha, seed=seed, target_modules=settings.pop("modules", "all-linear")
    )
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.copy_(0.1 * torch.randn(p.shape, generator=rng))
    model.save_pretrained(path)
    change(path, **settings)
    return path


def change(path: Path, **settings: Any) -> None:
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(config | settings))


def merged(adapters: list[tuple[Path, float]], base: Any = llama) -> Any:
    """The base's weights plus each adapter's delta, as PEFT merges it, times its coefficient."""
    plain, result = base(), base()
    with torch.no_grad():
        for folder, coefficient in adapters:
            tuned = PeftModel.from_pretrained(base(), folder).merge_and_unload()
            for (name, p), q in zip(plain.named_parameters(), tuned.parameters(), strict=True):
                result.get_parameter(name).add_(coefficient * (q - p))
    return result


DIFFERENT = {
    "ranks and scalings": ({"rank": 3, "alpha": 7}, {"rank": 5, "alpha": 2}),
    "layers": ({"modules": ["q_proj", "down_proj"]}, {"modules": ["q_proj", "v_proj", "o_proj"], "rank": 2}),
    "rank-stabilised": ({"use_rslora": True}, {}),
    "own alphas": ({"alpha_pattern": {"q_proj": 20, r"layers\.1\.mlp\.up_proj": 1}}, {"alpha": 1}),
}


@pytest.mark.parametrize("case", DIFFERENT.values(), ids=DIFFERENT)
@pytest.mark.parametrize("base", [llama, gpt2])
def test_a_combined_adapter_gives_the_logits_of_the_base_plus_the_sum_of_the_deltas(
    base: Any, case: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    if base is gpt2:
        swap = {"q_proj": "c_attn", "down_proj": "c_proj", "v_proj": "c_fc", "o_proj": "c_fc"}
        case = tuple(  # ty: ignore
            s | ({"modules": [swap.get(m, m) for m in s["modules"]]} if "modules" in s else {}) for s in case
        )
    terms = [
        (adapter(tmp_path / "a", 1, base, **case[0]), -0.5),
        (adapter(tmp_path / "b", 2, base, **case[1]), 1.3),
    ]
    combine_adapters(terms, tmp_path / "out")
    result = PeftModel.from_pretrained(base(), tmp_path / "out")
    expected = logits(merged(terms, base))
    torch.testing.assert_close(logits(result), expected, rtol=0, atol=1e-5)
    assert (expected - logits(base())).abs().max() > 0.05
    assert (expected - logits(merged(terms[:1], base))).abs().max() > 0.05


def test_an_adapter_and_its_negation_cancel_exactly(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a", 1, alpha=8)
    combine_adapters([(path, -1.0)], tmp_path / "negated")
    one, two = (load_file(p / "adapter_model.safetensors") for p in (path, tmp_path / "negated"))
    assert one.keys() == two.keys()
    for name in one:  # the scaling 8 / 4 moved into B
        assert two[name].equal(one[name] if "lora_A" in name else -2 * one[name])
    combine_adapters([(path, 1.0), (tmp_path / "negated", 1.0)], tmp_path / "nothing")
    result = PeftModel.from_pretrained(llama(), tmp_path / "nothing")
    torch.testing.assert_close(logits(result), logits(llama()), rtol=0, atol=1e-5)


def test_a_combined_adapter_has_the_union_of_the_layers_and_the_sum_of_the_ranks(tmp_path: Path) -> None:
    a = adapter(tmp_path / "a", 1, rank=3, modules=["q_proj"])
    b = adapter(tmp_path / "b", 2, rank=2, modules=["q_proj", "v_proj"])
    combine_adapters([(a, 1.0), (b, 1.0)], tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (5, 5, {})
    assert config["target_modules"] == [f"model.layers.{i}.self_attn.{m}_proj" for i in (0, 1) for m in "qv"]
    combine_adapters(
        [(tmp_path / "out", 1.0), (a, -1.0)], tmp_path / "again"
    )  # its own results can be combined
    result = PeftModel.from_pretrained(llama(), tmp_path / "again")
    torch.testing.assert_close(logits(result), logits(merged([(b, 1.0)])), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"base_model_name_or_path": "other/model"},
            "base_model_name_or_path 'other/model', but .* has None",
        ),
        ({"peft_type": "IA3"}, "an adapter of kind IA3"),
        ({"use_dora": True}, "use_dora True"),
        ({"bias": "lora_only"}, "bias 'lora_only'"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save \['lm_head'\]"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"from_the_future": 1}, "from_the_future 1"),
    ],
)
def test_adapters_that_are_no_plain_product_or_have_another_base_are_refused(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    a, b = adapter(tmp_path / "a", 1), adapter(tmp_path / "b", 2, **settings)
    with pytest.raises(ModelError, match=said):
        combine_adapters([(a, 1.0), (b, 1.0)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_broken_adapters_are_refused_in_words(tmp_path: Path) -> None:
    wide = adapter(tmp_path / "wide", 2, lambda: llama(intermediate_size=96))
    a, b, c, d = (adapter(tmp_path / n, 1) for n in "abcd")
    tensors = load_file(b / "adapter_model.safetensors")
    missing = tensors.pop("base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight")
    save_file(tensors, b / "adapter_model.safetensors")
    save_file(tensors | {"base_model.model.lm_head.weight": missing}, c / "adapter_model.safetensors")
    (d / "adapter_model.safetensors").unlink()
    cases: list[tuple[list[tuple[Path, float]], str]] = [
        (
            [(a, 1.0), (wide, 1.0)],
            r"down_proj: the adapters were made for layers of different sizes \[\(64, 32\)",
        ),
        ([(b, 1.0)], "layers.1.self_attn.q_proj: its A and B do not belong together"),
        ([(c, 1.0)], "more than a low-rank product .*lm_head.weight"),
        ([(d, 1.0)], "adapter_model.safetensors.* is missing"),
        ([(tmp_path / "none", 1.0)], "adapter_config.json is missing"),
        ([(a, float("nan"))], r"adapters \[nan\]"),
        ([], "give at least one"),
    ]
    for terms, said in cases:
        with pytest.raises(ForgetfilterError, match=said):
            combine_adapters(terms, tmp_path / "out")
    assert not (tmp_path / "out").exists()
