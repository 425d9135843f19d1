"""Load and save models and tokenizers, adapters, precision, device.

The states a filter run moves between (original, learned, reviewed) share one resident model:
a state is the dictionary of its trainable tensors, taken with `trainable_state`, put back with
`restore`. With LoRA that is the adapter; with full fine-tuning, every weight.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError, ModelError
from forgetfilter.models import quantization as quantizing
from forgetfilter.models import spec as specs
from forgetfilter.models.hardware import attention, precision, usable_device
from forgetfilter.models.library import first_line as first_line
from forgetfilter.models.library import quiet as quiet
from forgetfilter.models.spec import NANO as NANO
from forgetfilter.models.spec import ModelSpec, resolve
from forgetfilter.models.spec import is_hub_id as is_hub_id

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MIB = 1 << 20
PLAIN = "TokenizersBackend"  # what transformers calls a tokenizer without ways of its own


@dataclass(slots=True)
class Loaded:
    """A model on its device, its tokenizer, and where it came from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    device: torch.device
    dtype: torch.dtype
    merged: bool = False  # an adapter on its base: no name stands for these weights


def load(
    name: str = "nano", *, dtype: str = "auto", device: str = "auto", quantization: str = "none"
) -> Loaded:
    """Load a causal language model by any name that `spec.resolve` knows. Safetensors only, no code from the model.

    A pulled model that is not there yet is pulled, aloud; a GGUF file is converted once. The folder of a LoRA adapter
    is loaded on the base that it names and merged into it. `quantization` nf4 or int8 holds the linear layers in 4 or 8
    bits (bitsandbytes); an adapter stays beside them, whole. Only a hub id may use the hub. Raises ModelError in the
    user's words when the folder is missing, is not a whole model, or does not load, ConfigError for a device or
    number format that is not there.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = resolve(name)
    if spec.kind == "adapter":
        return _merged(spec, dtype, device, quantization)
    where = usable_device(device)
    kind = precision(dtype, where)
    source = str(_ready(spec) or name)
    # Weights of another shape are passed over here and refused below, by name.
    loading: dict[str, Any] = {
        "use_safetensors": True,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
    }
    common: dict[str, Any] = {"trust_remote_code": False, "local_files_only": spec.kind != "hub"}
    if chosen := attention(spec.size, where):
        loading["attn_implementation"] = chosen
    loading |= quantizing.loading(quantization, where, kind)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            tokenizer: Any = AutoTokenizer.from_pretrained(source, **common)
            model, found = AutoModelForCausalLM.from_pretrained(  # ty: ignore[not-iterable]
                source, dtype=kind, **loading, **common
            )
    except Exception as error:  # a damaged folder makes the libraries raise anything
        if spec.kind == "hub" and _unreachable(error):
            raise ModelError(
                f"model {name}: no such folder here, and as a hub id it is neither in the local cache nor can the "
                "hub be reached. Check the path, or go online once"
            ) from error
        raise ModelError(
            f"model {name}: could not be loaded as a causal language model: {first_line(error)}"
        ) from error
    _refuse_incomplete(name, model, found, tokenizer, kind)
    if spec.kind == "pulled":
        model.name_or_path = (
            name  # what an adapter saved on it names as its base: a name is found again elsewhere
        )
    elif spec.kind == "gguf" and spec.path:
        model.name_or_path = str(spec.path.resolve())
    quantizing.keep_layout(model)
    placed = model if quantization != "none" else model.to(where)
    return Loaded(placed, _padding(tokenizer), name, where, kind)


def without_weights(name: str, *, dtype: str = "auto", device: str = "auto") -> Loaded:
    """As `load`, but `model` is None: for what asks the tokenizer alone. ModelError where there is none.

    Device and number format are None, too, where neither is named: nothing is computed, and torch is not imported.
    """
    spec = resolve(name)
    if spec.kind == "adapter" and spec.base and not _brings_tokenizer(spec):
        return replace(without_weights(spec.base, dtype=dtype, device=device), name=name, merged=True)
    where: Any = None
    kind: Any = None
    if (dtype, device) != ("auto", "auto"):
        where = usable_device(device)
        kind = precision(dtype, where)
    try:
        with quiet():
            source = _ready(spec)
            tokenizer: Any = _tokenizer_class(source).from_pretrained(
                str(source or name), trust_remote_code=False, local_files_only=spec.kind != "hub"
            )
    except Exception as error:
        raise ModelError(f"model {name}: its tokenizer could not be loaded: {first_line(error)}") from error
    absent: Any = None
    return Loaded(absent, _padding(tokenizer), name, where, kind, spec.kind == "adapter")


def _tokenizer_class(folder: Path | None) -> Any:
    """The library's own class where the folder names it, else what finds the class: that takes torch, and seconds."""
    config = folder / "tokenizer_config.json" if folder else None
    if config and config.is_file() and json.loads(config.read_text("utf-8")).get("tokenizer_class") == PLAIN:
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def _brings_tokenizer(adapter: ModelSpec) -> bool:
    """Whether a tokenizer lies beside an adapter: the one, and the chat template, that it was trained with."""
    return adapter.path is not None and (adapter.path / "tokenizer_config.json").is_file()


def _padding(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _refuse_incomplete(
    name: str, model: Any, found: Mapping[str, Any], tokenizer: Any, kind: torch.dtype
) -> None:
    if lacking := lacks(found):
        raise ModelError(f"model {name}: not a whole causal language model: {lacking}")
    if model.dtype != kind:
        raise ModelError(f"model {name}: asked for {kind}, loaded {model.dtype}")
    if tokenizer is None or not len(tokenizer):
        raise ModelError(
            f"model {name}: no tokenizer beside the weights; copy the model's tokenizer.json there"
        )
    if not tokenizer.is_fast:
        raise ModelError(
            f"model {name}: its tokenizer has no fast version, which gives each token's place in the text"
        )


def lacks(found: Mapping[str, Any]) -> str | None:
    """What `from_pretrained`'s loading info says is missing, in words: transformers fills it in at random."""
    missing = sorted({*found["missing_keys"], *(str(key[0]) for key in found["mismatched_keys"])})
    if not missing:
        return None
    return f"{len(missing)} of its weights are missing or of another shape, {missing[0]} first"


def folder(name: str) -> Path | None:
    """The folder of `name` that transformers can load, pulled or converted where needed; None: a hub id."""
    return _ready(resolve(name))


def _ready(spec: ModelSpec) -> Path | None:
    from forgetfilter.models import pulling

    if spec.kind == "pulled" and not spec.present:
        return pulling.pull(spec.name)
    if spec.kind == "gguf" and spec.path:
        return pulling.converted(spec.path, spec.name)
    return spec.path


def _merged(spec: ModelSpec, dtype: str, device: str, quantization: str) -> Loaded:
    """An adapter on its base, merged in the base's number format; on a quantised base it stays by itself. The
    tokenizer is the adapter's where it brings one."""
    from peft import PeftModel

    name, base = spec.name, spec.base
    if not base:
        raise ModelError(f"model {name}: an adapter whose {specs.ADAPTER} names no base_model_name_or_path")
    try:
        loaded = load(base, dtype=dtype, device=device, quantization=quantization)
    except ModelError as error:
        raise ModelError(f"model {name}: an adapter, and its base could not be loaded. {error}") from error
    try:
        with quiet():
            tuned: Any = PeftModel.from_pretrained(loaded.model, str(spec.path), local_files_only=True)
            if quantizing.is_quantized(loaded.model):
                loaded.model = tuned
            else:  # PEFT froze what it was put on; merged, it is a whole model like any other
                loaded.model = tuned.merge_and_unload().requires_grad_(True)
    except Exception as error:
        raise ModelError(
            f"model {name}: the adapter does not fit its base {base}: {first_line(error)}"
        ) from error
    if _brings_tokenizer(spec):
        loaded.tokenizer = without_weights(name, device=device).tokenizer
        places = len(loaded.model.get_input_embeddings().weight)
        if len(loaded.tokenizer) > places:
            raise ModelError(
                f"model {name}: its tokenizer has {len(loaded.tokenizer)} tokens, its base {base} places for {places}"
            )
    loaded.name, loaded.merged = name, True
    return loaded


def save(loaded: Loaded, folder: Path) -> None:
    """Model and tokenizer in the library's own form; the last thing done with `loaded`.

    An adapter trained on a model that is an adapter on its base is merged and saved as a whole model: by itself it
    would be put on the base alone, without the first adapter.
    """
    model: Any = loaded.model
    if loaded.merged and hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    with quiet():  # peft would warn that a base by name has no settings file
        model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)


def fingerprint(name: str) -> str:
    """What tells one model from another without reading all its weights; a hub id stands for itself.

    A pulled model and a GGUF file: 64 hex digits of the file's own hash, the same on every machine and with every
    version of transformers. A pulled one that is not there is pulled first. A folder: 64 hex digits from its weights',
    settings' and templates' names, sizes, first and last MiB; of an adapter, its base's besides. The middle of a large
    weights file is not read: two models that differ only there have one fingerprint.
    """
    from forgetfilter.models import pulling

    spec = resolve(name)
    folder = _ready(spec) if spec.kind == "pulled" else spec.path
    if folder is None:
        return name
    if spec.kind in ("pulled", "gguf"):
        return pulling.hash_of(spec)
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".safetensors", ".json", ".jinja", ".model") or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(MIB))
            if size > MIB:
                file.seek(max(MIB, size - MIB))
                digest.update(file.read(MIB))
    if spec.base:
        with suppress(ModelError):  # said where it is loaded
            digest.update(fingerprint(spec.base).encode())
    return digest.hexdigest()


def _unreachable(error: BaseException) -> bool:
    """The hub did not answer (or was told not to be asked), as opposed to: it answered no."""
    return "connect" in str(error).lower() or "offline" in str(error).lower()


def add_lora(
    model: PreTrainedModel,
    *,
    rank: int,
    alpha: int,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    seed: int = 0,
) -> PreTrainedModel:
    """Wrap the model, in place, with a fresh LoRA adapter; its output counts alpha / rank.

    B starts at zero, so the wrapped model equals the plain one; A is drawn from `seed` alone. The layers are PEFT's,
    made quick by `lora.quicken` where the model is not quantised. Raises ConfigError where no layer has a name in
    `target_modules`, or a quantised model has an adapter already.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    from forgetfilter.models.lora import quicken

    if quantizing.is_quantized(model):
        if hasattr(model, "peft_config"):
            raise ConfigError(
                "an adapter on a quantised base cannot get a second one; `forgetfilter merge` makes one whole model of "
                "it, which can be quantised and trained"
            )
        model = quantizing.prepare(model)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=target_modules if isinstance(target_modules, str) else list(target_modules),
        task_type="CAUSAL_LM",
    )
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # of the CPU only, where peft draws
            return quicken(get_peft_model(model, config, autocast_adapter_dtype=False))
    except ValueError as error:
        raise ConfigError(f"lora_target_modules {target_modules!r}: {str(error).splitlines()[0]}") from error


def trainable_state(model: Any) -> dict[str, torch.Tensor]:
    """A copy, on the CPU, of every trainable tensor."""
    return {n: p.detach().to("cpu", copy=True) for n, p in model.named_parameters() if p.requires_grad}


def restore(model: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Put a state taken with `trainable_state` back, in place.

    Raises ModelError, and changes nothing, where names, shapes or number formats are not this model's.
    """
    import torch

    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if {n: (p.shape, p.dtype) for n, p in parameters.items()} != {
        n: (t.shape, t.dtype) for n, t in state.items()
    }:
        raise ModelError("the saved state belongs to another model or another adapter")
    with torch.no_grad():
        for name, tensor in state.items():
            parameters[name].copy_(tensor)
