"""Precision, device and attention: what suits the machine, the size of the model and the length of its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from forgetfilter.models.spec import Size

# Padded tokens of a row up to which plain attention is used for small models on a CPU. SmolLM2-135M and nano on one
# thread of a CPU with AMX, batches of 1,024 tokens: the plain attention takes 0.75-0.82 of the fused one's time to
# learn from rows of 64 and 128, 0.85-0.99 at 192, 0.95-1.17 at 256, 1.3-1.7 at 1,024; to read them, 0.8-1.07 up to
# 192, 1.4-1.9 at 1,024. Its scores take rows x heads x length x length numbers in every layer.
PLAIN_UP_TO = 192


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
    return "eager" if longest is not None and longest <= PLAIN_UP_TO else "sdpa"


def suit(model: Any, size: Size, device: torch.device, longest: int) -> None:
    """Give a loaded model, in place, the attention for rows of up to `longest` tokens."""
    chosen = attention(size, device, longest)
    if chosen and model.config._attn_implementation != chosen:
        model.set_attn_implementation(chosen)
