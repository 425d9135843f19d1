"""A model whose linear layers are held in 4 or 8 bits, by bitsandbytes; an adapter trained on it is QLoRA.

Dettmers et al., NeurIPS 2023: weights in 4-bit NormalFloat with quantised scales, products in the number format that
was asked for, the adapter whole.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from forgetfilter.errors import ConfigError, unknown
from forgetfilter.models.architecture import unwrapped

if TYPE_CHECKING:
    import torch

Quantization = Literal["none", "nf4", "int8"]
KINDS: tuple[Quantization, ...] = ("none", "nf4", "int8")


def installed() -> bool:
    """Whether models can be held in 4 or 8 bits here."""
    return find_spec("bitsandbytes") is not None


def refuse_unusable(quantization: str) -> None:
    """ConfigError for an unknown kind, or where bitsandbytes is not installed for it."""
    if quantization not in KINDS:
        raise ConfigError(f"quantization: {unknown('value', quantization, KINDS)}")
    if quantization != "none" and not installed():
        raise ConfigError(
            f"quantization {quantization} needs bitsandbytes, which is not installed: "
            "pip install 'forgetfilter[quantization]'"
        )


def loading(quantization: str, device: torch.device, compute: torch.dtype) -> dict[str, Any]:
    """What `from_pretrained` is given besides, for a model that is quantised as it is read; {} for "none".

    ConfigError as of `refuse_unusable`.
    """
    refuse_unusable(quantization)
    if quantization == "none":
        return {}
    from transformers import BitsAndBytesConfig

    if quantization == "nf4":
        how = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    else:
        how = BitsAndBytesConfig(load_in_8bit=True)
    return {"quantization_config": how, "device_map": {"": device}}


def keep_layout(model: Any) -> None:
    """Have bitsandbytes leave the weights as they are stored, in place.

    On some CPUs it packs them anew in the first pass without gradients, for a product that passes none on: whatever
    was scored before it learned would then learn in its last layers only.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def is_quantized(model: Any) -> bool:
    """Whether a model, wrapped in an adapter or not, was loaded in fewer bits."""
    return getattr(unwrapped(model), "hf_quantizer", None) is not None


def prepare(model: Any) -> Any:
    """Make a quantised model ready to train an adapter, in place, as PEFT does: what is not quantised in float32."""
    from peft import prepare_model_for_kbit_training

    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def refuse_full(quantization: str, tuning: str) -> None:
    """ConfigError where weights in 4 or 8 bits are to be trained themselves."""
    if quantization != "none" and tuning == "full":
        raise ConfigError(
            f"quantization {quantization} with tuning full: weights held in so few bits cannot be trained; use "
            "--tuning lora, which trains an adapter on them, or leave --quantization out"
        )
