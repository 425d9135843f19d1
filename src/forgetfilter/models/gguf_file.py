"""The model inside a GGUF file as safetensors; the file's header has been checked before (`gguf_header`)."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from forgetfilter.errors import ModelError
from forgetfilter.models.gguf_header import Header, read_header
from forgetfilter.models.library import first_line, quiet
from forgetfilter.runs import is_disk_full


def convert(path: Path, folder: Path, name: str) -> None:
    """Write the model in the GGUF file `path` to `folder`: safetensors, settings, tokenizer.

    Quantised weights become bfloat16, which holds them to 8 bits; float16 and float32 stay what they are. ModelError
    where the architecture is not one that transformers reads, or the file holds no whole causal language model.
    """
    header = read_header(path, name)
    _refuse_unknown(header.architecture, name)
    try:
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # a progress bar that cannot be turned off
            model, tokenizer = _read(path, header)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except ModelError as error:
        raise ModelError(f"model {name}: {error}") from error
    except Exception as error:
        if is_disk_full(error) or (
            isinstance(error, OSError) and error.errno
        ):  # the machine's, not the file's
            raise
        raise ModelError(
            f"model {name}: the GGUF file could not be read as a causal language model: {first_line(error)}"
        ) from error


def _refuse_unknown(architecture: str, name: str) -> None:
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    known = sorted({*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_CONFIG_ARCHS})
    if architecture not in known:
        raise ModelError(
            f"model {name}: a GGUF file of the architecture {architecture!r}, which transformers does not read; it "
            f"reads {', '.join(known)}. Use a folder of safetensors, or a hub id"
        )


def _read(path: Path, header: Header) -> tuple[Any, Any]:
    """A plain model, its weights unpacked, and its tokenizer."""
    import copy

    import torch
    import transformers

    dtype = {frozenset({0}): torch.float32, frozenset({1}): torch.float16}.get(header.types, torch.bfloat16)
    place: dict[str, Any] = {"gguf_file": path.name, "trust_remote_code": False, "local_files_only": True}
    config = transformers.AutoConfig.from_pretrained(str(path.parent), **place)
    _refuse_larger(config, header)
    unpacked: dict[str, Any] = {}
    if hasattr(
        transformers, "GgufConfig"
    ):  # later versions keep the blocks packed where they can multiply them
        unpacked = {"quantization_config": transformers.GgufConfig(dequantize=True)}
    with torch.random.fork_rng(devices=[]):
        read, found = transformers.AutoModelForCausalLM.from_pretrained(  # ty: ignore[not-iterable]
            str(path.parent), dtype=dtype, output_loading_info=True, **unpacked, **place
        )
    if missing := sorted(found["missing_keys"]):
        raise ModelError(
            f"not a whole causal language model: {len(missing)} of its weights are missing, {missing[0]} first"
        )
    # What was read so counts as quantised and cannot be saved or trained: a plain model takes its weights.
    settings = copy.deepcopy(read.config)
    if hasattr(settings, "quantization_config"):
        del settings.quantization_config
    state = read.state_dict()
    assert {type(t) for t in state.values()} == {torch.Tensor} and {t.dtype for t in state.values()} == {
        dtype
    }
    with torch.device("meta"):
        model = type(read)(settings)
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), **place)
    return model, tokenizer


def _refuse_larger(config: Any, header: Header) -> None:
    """A model that its settings make larger than its weights would be filled up with random numbers."""
    import torch
    from transformers import AutoModelForCausalLM

    if getattr(config, "num_hidden_layers", 0) > header.layers:
        raise ModelError(
            f"{config.num_hidden_layers} layers in its settings, {header.layers} in its weights: damaged"
        )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    wanted = sum(p.numel() for p in model.parameters())
    if wanted > header.parameters * 1.01:
        raise ModelError(
            f"its settings make a model of {wanted:,} weights, and it holds {header.parameters:,}: damaged"
        )
