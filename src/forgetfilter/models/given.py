"""A model that a Python program has loaded itself: borrowed for one run, and handed back as it came."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ModelError
from forgetfilter.models.load import Loaded
from forgetfilter.models.spec import ModelSpec, Size

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SAMPLED = 1024  # numbers at each end of a weight that go into the fingerprint


def size(model: PreTrainedModel) -> Size:
    """The row of `spec.DEFAULTS` that is meant for it."""
    count = sum(p.numel() for p in model.parameters())
    return ModelSpec(name=name(model), kind="folder", parameters=count).size


def name(model: PreTrainedModel) -> str:
    """What the model is called in a report: the folder or hub id it was loaded from, else its class."""
    return str(getattr(model, "name_or_path", "") or type(model).__name__)


@contextmanager
def borrowed(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Generator[Loaded]:
    """The model for one run, every weight trainable. Afterwards its layers, attention, mode and what is trainable are
    as before; who trained the weights puts those back (`Bench.put_back`).

    ModelError for a model with adapters on it and for a tokenizer without places of its tokens.
    """
    _refuse_unfit(model, tokenizer)
    weights: Any = dict(model.named_parameters())
    trainable = {key: p.requires_grad for key, p in weights.items()}
    mode, attention, padding = model.training, model.config._attn_implementation, tokenizer.pad_token
    for p in weights.values():
        p.requires_grad_(p.is_floating_point())
    if padding is None:
        tokenizer.pad_token = tokenizer.eos_token
    loaded = Loaded(model.eval(), tokenizer, name(model), model.device, model.dtype)
    try:
        yield loaded
    finally:
        tuned: Any = loaded.model
        if hasattr(tuned, "peft_config"):
            tuned.unload()
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
        for key, p in weights.items():
            p.requires_grad_(trainable[key])
        model.train(mode)
        tokenizer.pad_token = padding


def fingerprint(model: PreTrainedModel) -> str:
    """64 hex digits from names, shapes and both ends of all weights: what tells one model from another."""
    import torch

    digest = hashlib.sha256()
    for key, tensor in model.state_dict().items():
        digest.update(f"{key}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        flat = tensor.detach().reshape(-1)
        ends = torch.cat([flat[:SAMPLED], flat[-SAMPLED:]]).cpu().contiguous()
        digest.update(ends.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _refuse_unfit(model: Any, tokenizer: Any) -> None:
    if hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            f"model {name(model)}: has an adapter on it; merge it first (merge_and_unload), or give its folder"
        )
    if tokenizer is None:
        raise ModelError(f"model {name(model)}: give its tokenizer too: model=(model, tokenizer)")
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"model {name(model)}: its tokenizer has no fast version, which gives each token's place in the text"
        )
