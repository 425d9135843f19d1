"""Precision, device and attention: what suits the machine and the size of the model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from forgetfilter import ranks
from forgetfilter.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from forgetfilter.models.spec import Size


def usable_device(device: str) -> torch.device:
    """The device of this name; `auto`: the GPU where there is one. ConfigError where it cannot be used."""
    import torch

    if device == "auto" and ranks.size() > 1 and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
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
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if native else torch.float32
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in kinds:
        raise ConfigError(f"dtype {dtype!r}: use auto, {', '.join(kinds)}")
    return kinds[dtype]


def attention(size: Size, device: torch.device) -> str | None:
    """The attention that a model is loaded with; None leaves the library's choice.

    Training and measuring choose anew for each batch (`training.attention`); answers are written with this one.
    """
    if device.type != "cpu" or size == "large":
        return None
    return "eager" if size == "tiny" else "sdpa"
