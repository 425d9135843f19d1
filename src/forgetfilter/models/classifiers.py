"""Trained classifiers of texts or of their tokens, by folder or hub id: safetensors only, no code from the model."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from forgetfilter.errors import ModelError
from forgetfilter.models import load as models


class Classifier(NamedTuple):
    """A model on its device, dropout off, and its tokenizer, which can pad."""

    model: Any
    tokenizer: Any
    fingerprint: str  # tells one model from another


def load(
    name: str, *, of: Literal["sequence", "token"] = "sequence", device: str = "auto", role: str = "model"
) -> Classifier:
    """The classifier `name` of whole sequences or of tokens; `role` is what messages call it.

    Only a hub id may use the network. ModelError where it does not load or is not trained to classify,
    ConfigError for a device that is not there.
    """
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        AutoTokenizer,
    )

    auto = {"sequence": AutoModelForSequenceClassification, "token": AutoModelForTokenClassification}[of]
    fingerprint = models.fingerprint(name)  # refuses what is no model folder
    hub = models.is_hub_id(name)
    source = str(models.folder(name) or name)
    where = models.usable_device(device)
    common: dict[str, Any] = {"trust_remote_code": False, "local_files_only": not hub}
    # Weights of another shape are passed over here and refused below, by name.
    loading = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        with models.quiet(), torch.random.fork_rng(devices=[]):
            tokenizer: Any = AutoTokenizer.from_pretrained(source, **common)
            loaded: Any = auto.from_pretrained(source, **loading, **common)
    except Exception as error:  # a damaged folder makes the libraries raise anything
        why = models.first_line(error)
        raise ModelError(f"{role} {name}: could not be loaded as a {of} classifier: {why}") from error
    model, found = loaded
    if lacking := models.lacks(found):  # a language model would become a judge that guesses
        raise ModelError(f"{role} {name}: not a trained {of} classifier: {lacking}")
    if tokenizer is None or not len(tokenizer):
        raise ModelError(f"{role} {name}: no tokenizer beside the weights; copy its tokenizer.json there")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:  # decoder classifiers look for the last token before the padding
        model.config.pad_token_id = tokenizer.pad_token_id
    return Classifier(model.to(where).eval(), tokenizer, fingerprint)
