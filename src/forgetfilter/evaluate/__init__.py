"""What a model does when it is used: one function a question, one call, one result record.

    found = EVALUATORS["toxicity"](model, tokenizer, rows)
    found["toxic_share"].estimate          # 0.120 [0.083, 0.170] (n=200)
    write(found, folder)                   # evaluation.json, and evidence.jsonl with a line a row

Each evaluator is `evaluate(model, tokenizer, rows, *, instruction=None, batch_tokens=4096, progress=None,
…own settings)`: `model` a loaded causal language model, `rows` plain records, `instruction` a text put in
front of every prompt (moral self-correction), `progress` called with rows done and rows in all.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from forgetfilter.evaluate.results import Evaluation, Metric, read, write

__all__ = ["EVALUATORS", "Evaluation", "Metric", "read", "write"]


def _lazily(name: str) -> Callable[..., Evaluation]:
    """The module's `evaluate`, imported when it is called."""

    def evaluate(model: Any, tokenizer: Any, rows: Any, **settings: Any) -> Evaluation:
        return import_module(f"{__name__}.{name}").evaluate(model, tokenizer, rows, **settings)

    evaluate.__doc__ = f"forgetfilter.evaluate.{name}.evaluate"
    return evaluate


# A further evaluator: a module beside this one, and a line here. Leakage stands apart: it needs a detector (`unlearn`).
EVALUATORS: dict[str, Callable[..., Evaluation]] = {
    name: _lazily(name) for name in ("toxicity", "bias", "harmfulness", "utility")
}
