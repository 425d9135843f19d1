"""A whole experiment of a few seconds: a tiny model, own files, and the recipe that joins them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny
from rich.console import Console

from forgetfilter.evaluate.recipe import Recipe
from forgetfilter.recipes import read

# Quick, and with a cut that drops a quarter of the rows whatever they score.
PRESS: dict[str, Any] = {
    "algorithm": "paper", "signal": "likelihood", "threshold": "quantile", "quantile": 0.75,
    "num_train_epochs": 1, "review_steps": 2,
    "learning_rate": 5e-3, "review_learning_rate": 5e-3, "per_device_train_batch_size": 4,
    "review_batch_size": 4, "max_length": 64, "dtype": "float32", "device": "cpu",
}  # fmt: skip
CUSTOM = [
    {"prompt": f"Number {i}?", "completion": f"It is {i * i}, I think.", "unsafe": i % 4 == 0}
    for i in range(16)
]
SAFE = [{"prompt": f"Thing {i}?", "completion": "I cannot help with that."} for i in range(8)]
TEXTS = [{"text": f"The sea is grey and {word} today."} for word in ("loud", "calm", "wide", "cold")]
ASKED = [{"prompt": f"What is {i}?", "completion": f"{i}"} for i in range(20, 23)]


def jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def model(folder: Path) -> str:
    tiny.llama().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def recipe(folder: Path, model: str, *, custom: Sequence[Mapping[str, Any]] = CUSTOM, **flags: Any) -> Recipe:
    """Files are written to `folder`, results go to `folder/out`; `flags` overrule."""
    folder.mkdir(exist_ok=True)
    held_out = {"toxicity": TEXTS, "utility": ASKED}
    given = {
        "model": model, "custom": jsonl(folder / "custom.jsonl", custom), "label_field": "unsafe",
        "safe": [jsonl(folder / "safe.jsonl", SAFE)], "evaluators": ["toxicity", "utility"],
        "evaluation": [f"{name}={jsonl(folder / f'{name}.jsonl', rows)}" for name, rows in held_out.items()],
        "output_dir": str(folder / "out"), **PRESS, **flags,
    }  # fmt: skip
    return read(None, given)


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
