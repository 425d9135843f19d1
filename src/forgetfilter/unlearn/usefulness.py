"""What a model can still do after unlearning, and what 4-bit storage would do to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from forgetfilter.data.overlap import f1
from forgetfilter.evaluate.results import Evaluation, Metric
from forgetfilter.intervals import Estimate, bootstrap
from forgetfilter.models.rendering import encode
from forgetfilter.records import Row, with_system
from forgetfilter.unlearn import replacements
from forgetfilter.unlearn.dialogues import Prompt


def round_to_4_bits(model: Any, group: int = 64) -> None:
    """Round every linear layer's own weights, in place, to 15 levels of each group of `group` inputs' largest.

    About what 4-bit storage does to a model, where bitsandbytes, which does it, is missing. Adapters stay whole.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    with torch.no_grad():
        for name, layer in model.named_modules():
            if not isinstance(layer, torch.nn.Linear | Conv1D) or "lora_" in name:
                continue
            weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight  # GPT-2 keeps (in, out)
            for columns in weight.split(group, dim=1):  # (out, group)
                step = columns.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / 7
                columns.copy_((columns.float() / step).round() * step)


def utility(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[Row],
    prose: Sequence[Row],
    *,
    seed: int,
    max_new_tokens: int = 64,
    template: str = "auto",
    instruction: str | None = None,
    **guidance: Any,
) -> Evaluation:
    """What the model can do besides, asked in the way that it is asked for leakage: F1 of its greedy answers to
    `tasks`, and, unguided, its perplexity on the completions of `prose`. The first better high, the second low."""
    from forgetfilter.filter.signals import token_memory

    longest = max(len(tokenizer(row.completion)["input_ids"]) for row in tasks)
    writer = replacements.model_writer(
        model, tokenizer, temperature=0.0, max_new_tokens=min(max_new_tokens, longest), template=template,
        instruction=instruction, **guidance,
    )  # fmt: skip
    answers = [text for (text,) in writer([Prompt(row.id, row.messages[:-1]) for row in tasks], 1, seed)]
    scores = [f1(answer, row.completion) for answer, row in zip(answers, tasks, strict=True)]
    perplexity: Estimate | None = None
    if guidance.get("scale", 1.0) == 1:  # of a guided model it is another quantity
        # Turns of a running text are joined as they are.
        before = {"chat": instruction, "text": instruction and f"{instruction}\n\n"}
        told = [replace(x, messages=with_system(x.messages, before[x.kind])) for x in prose]
        positions = getattr(model.config, "max_position_embeddings", None) or 4096
        encoded = encode(told, tokenizer, max_length=positions, template=template)
        memories = token_memory(model, encoded, pad_id=tokenizer.pad_token_id or 0)
        sums = [(float(m.logp.sum()), len(m.logp)) for m in memories if len(m.logp)]
        perplexity = bootstrap(sums, lambda t: np.exp(-t[:, 0].sum() / t[:, 1].sum()), seed=seed)
    evidence = tuple(
        {"id": row.id, "text": answer, "reference": row.completion, "f1": score}
        for row, answer, score in zip(tasks, answers, scores, strict=True)
    )
    metrics = (
        Metric("task_f1", bootstrap(scores, np.mean, seed=seed), "higher"),
        Metric("perplexity", perplexity, "lower"),
    )
    settings = {"tasks": len(tasks), "prose": len(prose), "instruction": instruction, **guidance}
    return Evaluation("utility of unlearning", 1, metrics, evidence, settings)
