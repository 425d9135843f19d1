"""Precision, device and attention: what suits the machine, the size of the model and the length of its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from forgetfilter.models.spec import Size

# Tokens of the longest row up to which plain attention is used for small models on a CPU. Its scores take
# rows x heads x length x length numbers in every layer, and from 256 tokens on it is no longer the faster one.
SHORT_ROWS = 192


def usable_device(device: str) -> torch.device:
    """The device of this name; `auto`: the GPU where there is one. ConfigError where it cannot be used."""
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


def precision(dtype: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 where the hardware multiplies it, else float32. ConfigError for an unknown name."""
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


def attention(size: Size, device: torch.device, longest: int | None = None) -> str | None:
    """The attention for rows of up to `longest` tokens (None: not known); None leaves the library's choice.

    On a CPU the backward pass of the fused attention costs as much as the rest of a small model: training on short
    rows is almost twice as fast with the plain one.
    """
    if device.type != "cpu" or size == "large":
        return None
    if size == "tiny":
        return "eager"
    return "eager" if longest is not None and longest <= SHORT_ROWS else "sdpa"


def suit(model: Any, size: Size, device: torch.device, longest: int) -> None:
    """Give a loaded model, in place, the attention for rows of up to `longest` tokens."""
    chosen = attention(size, device, longest)
    if chosen and model.config._attn_implementation != chosen:
        model.set_attn_implementation(chosen)
