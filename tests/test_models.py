from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import gpt2, llama, same, tokenizer, weights

from forgetfilter.errors import ConfigError, ModelError
from forgetfilter.models import load as models
from forgetfilter.models.load import add_lora, fingerprint, is_hub_id, load, restore, trainable_state

IDS = torch.tensor([[7, 8, 9, 10, 11]])


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    llama().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


# --- loading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_number_format_asked_for_is_the_one_loaded(saved: Path, dtype: str) -> None:
    loaded = load(str(saved), dtype=dtype, device="cpu")
    assert {p.dtype for p in loaded.model.parameters()} == {getattr(torch, dtype)} == {loaded.dtype}
    expected = {n: p.to(getattr(torch, dtype)) for n, p in weights(llama()).items()}
    assert same(weights(loaded.model), expected)
    assert loaded.name == str(saved) and loaded.device == torch.device("cpu")


def test_loading_is_silent_and_leaves_the_random_state_alone(
    saved: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(str(saved), dtype="float32", device="cpu")
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_tokenizer_without_padding_pads_with_its_end(copied: Path) -> None:
    path = copied / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["pad_token"]
    path.write_text(json.dumps(settings))
    loaded = load(str(copied), dtype="float32", device="cpu")
    assert loaded.tokenizer.pad_token == "<|end|>"


def without(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def half_missing(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def other_shape(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["model.norm.weight"] = torch.ones(7)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def own_code(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    settings |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    }
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "evil.py").write_text("import pathlib; pathlib.Path('ran').touch()")


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def said(name: str, **settings: Any) -> Callable[[Path], None]:
    """Settings in `name` that no library expects."""

    def change(folder: Path) -> None:
        found = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(found | settings))

    return change


BROKEN = {
    "no config": (without("config.json"), "no config.json"),
    "no weights": (without("model.safetensors"), "no safetensors weights"),
    "pickle": (pickled, "Pickled weights .* not loaded"),
    "a weight missing": (half_missing, r"1 of its weights .* model\.layers\.1\.mlp\.up_proj\.weight"),
    "another shape": (other_shape, "norm"),
    "cut off": (cut_off, "could not be loaded"),
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), "tokenizer"),
    "not json": (lambda f: (f / "config.json").write_text("{"), "could not be loaded"),
    "own code": (own_code, "could not be loaded"),
    "a size in words": (said("config.json", hidden_size="32"), "'hidden_size': TypeError: .* expected int"),
    "no heads": (said("config.json", num_attention_heads=0), "could not be loaded"),
    "an unknown precision": (said("config.json", dtype="float99"), "could not be loaded"),
    "a tokenizer of no kind": (said("tokenizer_config.json", tokenizer_class=5), "could not be loaded"),
    "a list for a tokenizer": (
        lambda f: (f / "tokenizer_config.json").write_text("[]"),
        "could not be loaded",
    ),
    "adapter": (adapter, "an adapter without adapter_model.safetensors"),
}


@pytest.mark.parametrize(("change", "words"), BROKEN.values(), ids=BROKEN)
def test_a_folder_that_is_no_whole_model_is_refused_in_one_line(
    change: Callable[[Path], None],
    words: str,
    copied: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: Any,
) -> None:
    monkeypatch.chdir(copied)
    change(copied)
    with pytest.raises(ModelError, match=words) as caught:
        load(str(copied), dtype="float32", device="cpu")
    assert str(caught.value).startswith(f"model {copied}: ")
    assert "\n" not in str(caught.value)
    assert not (copied / "ran").exists()
    assert capfd.readouterr() == ("", "")


def test_a_file_and_a_folder_that_is_not_there_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a file, not a model folder"):
        load(str(saved / "model.safetensors"))
    for name in (str(tmp_path / "nowhere"), "nowhere", "nowhere/", "./a/b", "../x"):
        with pytest.raises(ModelError, match="no such folder"):
            load(name)


def test_a_hub_id_offline_is_one_line_that_says_what_to_do() -> None:
    with pytest.raises(ModelError, match="neither in the local cache") as caught:
        load("someone/something-that-is-not-here", dtype="float32", device="cpu")
    assert "\n" not in str(caught.value)


def test_what_counts_as_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = {n: is_hub_id(n) for n in ("a/b", "nano", "a", "a/b/c", "./a", "/a", "~/a", "../a", "own/model")}
    assert found == {n: n == "a/b" for n in found}


def test_unusable_devices_and_number_formats_are_named(saved: Path) -> None:
    for device in ("cdua", "cuda:99", "meta:x"):
        with pytest.raises(ConfigError, match=f"device '{device}'"):
            load(str(saved), device=device)
    with pytest.raises(ConfigError, match="dtype 'int4'"):
        load(str(saved), dtype="int4", device="cpu")


# --- fingerprints -----------------------------------------------------------------------------------------


def test_a_fingerprint_belongs_to_the_contents_not_to_the_folder(saved: Path, copied: Path) -> None:
    assert fingerprint(str(saved)) == fingerprint(str(copied))
    assert len(fingerprint(str(saved))) == 64
    (copied / "README.md").write_text("a word")
    assert fingerprint(str(saved)) == fingerprint(str(copied))
    assert fingerprint("owner/name") == "owner/name"


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"]
)
def test_a_fingerprint_changes_with_size_and_with_content(name: str, copied: Path) -> None:
    path = copied / name
    before, content = fingerprint(str(copied)), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # the same size
    changed = fingerprint(str(copied))
    path.write_bytes(content + b" ")
    longer = fingerprint(str(copied))
    path.unlink()
    if name in ("model.safetensors", "config.json"):
        with pytest.raises(ModelError):
            fingerprint(str(copied))
        return
    assert len({before, changed, longer, fingerprint(str(copied))}) == 4


@pytest.mark.parametrize("size", [models.MIB + 3, 2 * models.MIB + 3])
def test_the_beginning_and_the_end_of_a_large_file_count(size: int, copied: Path) -> None:
    found = set()
    for place in (None, 0, models.MIB - 1, size - models.MIB, size - 1):
        content = bytearray(size)
        if place is not None:
            content[place] = 1
        (copied / "model.safetensors").write_bytes(content)
        found.add(fingerprint(str(copied)))
    assert len(found) == 5 - (size - models.MIB == models.MIB - 1)


# --- adapters and states ----------------------------------------------------------------------------------


def an_adapter(saved: Path, folder: Path, **settings: Any) -> tuple[Path, torch.Tensor]:
    """An adapter that changes every answer, saved on the base `saved`; its folder and its logits for IDS."""
    loaded = load(str(saved), dtype="float32", device="cpu")
    model = add_lora(loaded.model, rank=4, alpha=8, seed=3)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.1)
        model.peft_config["default"].base_model_name_or_path = settings.get("base", str(saved))
        model.save_pretrained(folder)
        return folder, model.eval()(IDS).logits


def test_an_adapter_is_loaded_on_the_base_it_names(saved: Path, tmp_path: Path) -> None:
    folder, logits = an_adapter(saved, tmp_path / "adapter")
    loaded = load(str(folder), dtype="float32", device="cpu")
    assert loaded.name == str(folder) and not hasattr(loaded.model, "peft_config")
    with torch.no_grad():
        assert torch.allclose(loaded.model(IDS).logits, logits, atol=1e-4)
        assert not torch.allclose(load(str(saved), dtype="float32").model(IDS).logits, logits, atol=1e-2)


def test_an_adapter_brings_its_own_tokenizer_and_chat_template(saved: Path, tmp_path: Path) -> None:
    folder, _ = an_adapter(saved, tmp_path / "adapter")
    theirs = tokenizer("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    theirs.save_pretrained(folder)
    loaded = load(str(folder), dtype="float32", device="cpu")
    assert loaded.tokenizer.chat_template == theirs.chat_template
    assert models.without_weights(str(folder)).tokenizer.chat_template == theirs.chat_template
    theirs.add_tokens([f"added{i}" for i in range(20)])
    theirs.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"its tokenizer has 414 tokens, its base .* places for 400"):
        load(str(folder), dtype="float32", device="cpu")


def test_the_fingerprint_of_an_adapter_changes_with_its_base(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "base")
    folder, _ = an_adapter(tmp_path / "base", tmp_path / "adapter")
    before = fingerprint(str(folder))
    assert before == fingerprint(str(folder))
    other_shape(tmp_path / "base")
    assert fingerprint(str(folder)) != before
    shutil.rmtree(tmp_path / "base")
    assert len(fingerprint(str(folder))) == 64  # that it is gone is said where it is loaded


def test_what_is_trained_on_an_adapter_keeps_that_adapter(saved: Path, tmp_path: Path) -> None:
    folder, logits = an_adapter(saved, tmp_path / "adapter")
    loaded = load(str(folder), dtype="float32", device="cpu")
    loaded.model = add_lora(loaded.model, rank=2, alpha=4, seed=5)  # a fresh adapter changes nothing
    models.save(loaded, tmp_path / "second")
    with torch.no_grad():
        again = load(str(tmp_path / "second"), dtype="float32", device="cpu")
        assert torch.allclose(again.model(IDS).logits, logits, atol=1e-4)


def test_an_adapter_merged_into_its_base_can_be_trained_as_a_whole(saved: Path, tmp_path: Path) -> None:
    folder, _ = an_adapter(saved, tmp_path / "adapter")
    loaded = load(str(folder), dtype="float32", device="cpu")
    assert set(models.trainable_state(loaded.model)) == {n for n, _ in loaded.model.named_parameters()}


def test_without_weights_the_tokenizer_is_the_same_and_nothing_has_a_device() -> None:
    whole, alone = load("nano", device="cpu"), models.without_weights("nano")
    assert type(alone.tokenizer) is type(whole.tokenizer)
    assert (alone.model, alone.device, alone.dtype) == (None, None, None)
    said = [{"role": "user", "content": "Is the sea grey?"}, {"role": "assistant", "content": " It is. "}]
    read = [
        loaded.tokenizer.apply_chat_template(said, tokenize=True)["input_ids"] for loaded in (whole, alone)
    ]
    assert read[0] == read[1] and whole.tokenizer.get_vocab() == alone.tokenizer.get_vocab()
    assert models.without_weights("nano", device="cpu").device == torch.device("cpu")


def test_an_adapter_whose_base_is_missing_or_another_says_so(saved: Path, tmp_path: Path) -> None:
    folder, _ = an_adapter(saved, tmp_path / "moved", base=str(tmp_path / "gone"))
    with pytest.raises(ModelError, match=r"moved: an adapter, and its base .*gone: no such folder"):
        load(str(folder))
    folder, _ = an_adapter(saved, tmp_path / "other", base="nano")
    with pytest.raises(ModelError, match=r"other: the adapter does not fit its base nano"):
        load(str(folder))


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_fresh_adapter_changes_no_logit(make: Any) -> None:
    with torch.no_grad():
        plain = make()(IDS).logits
        model = add_lora(make(), rank=4, alpha=8, seed=3)
        assert torch.equal(model(IDS).logits, plain)
    assert {n.split(".")[-3] for n in trainable_state(model)} == {"lora_A", "lora_B"} or all(
        "lora_" in n for n in trainable_state(model)
    )


def test_the_adapter_depends_on_its_seed_alone_and_the_random_state_is_left_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = trainable_state(add_lora(llama(), rank=4, alpha=8, seed=3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert same(first, trainable_state(add_lora(llama(), rank=4, alpha=8, seed=3)))
    assert not same(first, trainable_state(add_lora(llama(), rank=4, alpha=8, seed=4)))


def test_the_adapter_has_the_models_number_format_and_sits_where_asked() -> None:
    model = add_lora(llama(dtype=torch.bfloat16), rank=4, alpha=8, target_modules=("q_proj",), seed=0)
    state = trainable_state(model)
    assert {t.dtype for t in state.values()} == {torch.bfloat16}
    assert len(state) == 4 and all("q_proj" in n for n in state)  # A and B in each of two layers
    with pytest.raises(ConfigError, match="lora_target_modules"):
        add_lora(llama(), rank=4, alpha=8, target_modules="no_such_layer")


STATES = {
    "lora": lambda: add_lora(llama(), rank=4, alpha=8, seed=0),
    "full": llama,
    "full bf16": lambda: llama(dtype=torch.bfloat16),
    "tied": lambda: llama(tie_word_embeddings=True),
}


@pytest.mark.parametrize("make", STATES.values(), ids=STATES)
def test_a_state_put_back_is_the_state_taken(make: Any) -> None:
    model = make()
    before, state = weights(model), trainable_state(model)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(1)
    assert same(state, {n: t for n, t in before.items() if n in state})  # a copy, not a view
    restore(model, state)
    assert same(weights(model), before)


def changed(state: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    name = next(iter(state))
    if how == "one missing":
        return {n: t for n, t in state.items() if n != name}
    if how == "one too many":
        return state | {"another": torch.ones(1)}
    if how == "a shape that would spread":
        return state | {name: torch.ones(1, 1)}
    return state | {name: state[name].bfloat16()}


@pytest.mark.parametrize(
    "how", ["one missing", "one too many", "a shape that would spread", "another number format"]
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(how: str) -> None:
    model = STATES["lora"]()
    before = weights(model)
    with pytest.raises(ModelError, match="another model or another adapter"):
        restore(model, changed({n: t + 1 for n, t in trainable_state(model).items()}, how))
    assert same(weights(model), before)


def test_the_state_of_an_adapter_of_another_rank_is_refused() -> None:
    other = trainable_state(add_lora(llama(), rank=1, alpha=8, seed=0))
    with pytest.raises(ModelError):
        restore(STATES["lora"](), other)
