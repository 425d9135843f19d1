"""Load and save models and tokenizers, adapters, precision, device.

The states a filter run moves between (original, learned, reviewed, control) share one resident model:
a state is the dictionary of its trainable tensors, taken with `trainable_state`, put back with
`restore`. With LoRA that is the adapter; with full fine-tuning, every weight.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NANO = Path(__file__).resolve().parents[1] / "nano"
MIB = 1 << 20
_ADAPTER = "adapter_config.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@dataclass(slots=True)
class Loaded:
    """A model on its device, its tokenizer, and where it came from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    device: torch.device
    dtype: torch.dtype
    merged: bool = False  # an adapter on its base: no name stands for these weights


def is_hub_id(name: str) -> bool:
    """`owner/name` that is no path here: the only thing for which the network may be used."""
    return (
        name != "nano"
        and not Path(name).exists()
        and name.count("/") == 1
        and not name.startswith((".", "/", "~"))
    )


def load(name: str = "nano", *, dtype: str = "auto", device: str = "auto") -> Loaded:
    """Load a causal language model: `nano`, a folder, or a hub id. Safetensors only, no code from the model.

    The folder of a LoRA adapter is loaded on the base that it names and merged into it. Only a hub id may use the
    network. Raises ModelError in the user's words when the folder is missing, is not a whole model, or does not
    load, ConfigError for a device or number format that is not there.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = _folder(name)
    if isinstance(source, Path) and (source / _ADAPTER).exists():
        return _merged(name, source, dtype, device)
    where = usable_device(device)
    kind = _dtype(dtype, where)
    # Weights of another shape are passed over here and refused below, by name.
    loading = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    common: dict[str, Any] = {"trust_remote_code": False, "local_files_only": isinstance(source, Path)}
    # At this size, plain attention is faster on a CPU than the fused one.
    attention = {"attn_implementation": "eager"} if name == "nano" and where.type == "cpu" else {}
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            tokenizer = AutoTokenizer.from_pretrained(str(source), **common)
            model, found = AutoModelForCausalLM.from_pretrained(  # ty: ignore[not-iterable]
                str(source), dtype=kind, **loading, **attention, **common
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        if isinstance(source, str) and _unreachable(error):
            raise ModelError(
                f"model {name}: no such folder here, and as a hub id it is neither in the local cache nor can the "
                "hub be reached. Check the path, or go online once"
            ) from error
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"model {name}: could not be loaded as a causal language model: {first}") from error
    missing = sorted({*found["missing_keys"], *(str(key[0]) for key in found["mismatched_keys"])})
    if missing:  # transformers fills these in at random
        raise ModelError(
            f"model {name}: not a whole causal language model: {len(missing)} of its weights are missing or of "
            f"another shape, {missing[0]} first"
        )
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
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Loaded(model.to(where), tokenizer, name, where, kind)


def _merged(name: str, folder: Path, dtype: str, device: str) -> Loaded:
    """An adapter on its base, merged in the base's number format."""
    from peft import PeftModel
    from safetensors import SafetensorError

    base = json.loads((folder / _ADAPTER).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"model {name}: an adapter whose {_ADAPTER} names no base_model_name_or_path")
    if Path(base).parts[-2:] == NANO.parts[-2:]:  # saved where nano lay elsewhere
        base = "nano"
    try:
        loaded = load(base, dtype=dtype, device=device)
    except ModelError as error:
        raise ModelError(f"model {name}: an adapter, and its base could not be loaded. {error}") from error
    try:
        with quiet():
            tuned = PeftModel.from_pretrained(loaded.model, str(folder), local_files_only=True)
            loaded.model = tuned.merge_and_unload()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"model {name}: the adapter does not fit its base {base}: {first}") from error
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
    model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)


@contextmanager
def quiet() -> Generator[None]:
    """No progress bars, log lines or warnings of transformers and peft inside; everything as it was after."""
    import warnings

    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def fingerprint(name: str) -> str:
    """What tells one model from another without reading all its weights; a hub id stands for itself.

    For a folder: 64 hex digits from its weights', settings' and templates' names, sizes, first and last MiB. The
    middle of a large weights file is not read: two models that differ only there have one fingerprint.
    """
    folder = _folder(name)
    if isinstance(folder, str):
        return folder
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
    return digest.hexdigest()


def _unreachable(error: BaseException) -> bool:
    """The hub did not answer (or was told not to be asked), as opposed to: it answered no."""
    return "connect" in str(error).lower() or "offline" in str(error).lower()


def _folder(name: str) -> Path | str:
    if name == "nano":
        if not (NANO / "model.safetensors").exists():
            raise ModelError("model nano: its weights are not in this installation; reinstall forgetfilter")
        return NANO
    path = Path(name).expanduser()
    if path.is_dir():
        if (path / _ADAPTER).exists():
            if not (path / "adapter_model.safetensors").exists():
                raise ModelError(f"model {name}: an adapter without adapter_model.safetensors in this folder")
            return path
        if not (path / "config.json").exists():
            raise ModelError(f"model {name}: this folder has no config.json, so it is not a model folder")
        if not any((path / w).exists() for w in _WEIGHTS):
            raise ModelError(
                f"model {name}: no safetensors weights in this folder. Pickled weights (.bin, .pt) are not loaded, "
                "because they can run code; convert them with transformers' save_pretrained"
            )
        return path
    if path.exists():
        raise ModelError(
            f"model {name}: a file, not a model folder; name the folder that holds its config.json"
        )
    if is_hub_id(name):
        return name
    raise ModelError(
        f"model {name}: no such folder. Use nano, a folder with config.json, or a hub id owner/name"
    )


def usable_device(device: str) -> torch.device:
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(
            f"device {device!r}: not usable here ({first}); use auto, cpu, cuda, cuda:1, mps"
        ) from error


def _dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 where the hardware multiplies it, else float32."""
    import torch

    if dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in kinds:
        raise ConfigError(f"dtype {dtype!r}: use auto, {', '.join(kinds)}")
    return kinds[dtype]


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
    made quick by `training.lora`. Raises ConfigError where no layer has a name in `target_modules`.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    from forgetfilter.training.lora import quicken

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
