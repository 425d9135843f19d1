"""Can the model still do its work? Answers against references, perplexity, and multiple choice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from forgetfilter.data.overlap import exact_match, f1, rouge1
from forgetfilter.errors import DataError
from forgetfilter.evaluate.asking import NO_ROOM, answers, memories, most_likely, name, need
from forgetfilter.evaluate.results import Evaluation, Metric
from forgetfilter.intervals import Estimate, bootstrap, wilson
from forgetfilter.settings import Count, Seed

VERSION = 1


def evaluate(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    instruction: str | None = None,
    batch_tokens: int = 4096,
    progress: Callable[[int, int], None] | None = None,
    max_new_tokens: Count = 64,
    template: str = "auto",
    seed: Seed = 0,
) -> Evaluation:
    """Utility on answer rows {prompt, completion, optional answers} and choice rows {prompt, choices, answer}.

    Answer rows: `f1`, `em` (exact match) and `rouge1` of the greedy answer, 0 to 1, the best over the
    completion and all `answers`; `perplexity`, the exponential of the mean loss per token of the completions,
    read teacher-forced, end of turn aside (better lower, at least 1). Choice rows: `accuracy` of the choice
    whose text has the largest mean log-probability per token; `answer` is a place in `choices` or one of
    their texts. Only metrics that some row can have are given; `seed` draws the intervals of means.

    DataError for rows of neither kind, or for no rows.
    """
    if not rows:
        raise DataError("utility: no rows to evaluate on")
    for index, row in enumerate(rows):
        _check(index, row)
    how = {"instruction": instruction, "batch_tokens": batch_tokens, "template": template}
    asked = [i for i, row in enumerate(rows) if "choices" not in row]
    chosen = [i for i, row in enumerate(rows) if "choices" in row]
    # Every choice is read once; an answer row is answered once and read once.
    steps = 2 * len(asked) + sum(len(rows[i]["choices"]) for i in chosen)

    def tell(before: int) -> Callable[[int], None] | None:
        if progress is None:
            return None
        return lambda done: progress((before + done) * len(rows) // steps, len(rows))

    evidence: dict[int, dict[str, Any]] = {}
    if asked:
        prompts = [rows[i]["prompt"] for i in asked]
        said = answers(model, tokenizer, prompts, max_new_tokens=max_new_tokens, progress=tell(0), **how)
        pairs = [(rows[i]["prompt"], rows[i]["completion"]) for i in asked]
        read = memories(model, tokenizer, pairs, progress=tell(len(asked)), **how)
        for i, answer, memory in zip(asked, said, read, strict=True):
            evidence[i] = _answered(rows[i], answer, memory.logp)
    if chosen:
        found = most_likely(
            model, tokenizer, [rows[i]["prompt"] for i in chosen], [rows[i]["choices"] for i in chosen],
            progress=tell(2 * len(asked)), **how,
        )  # fmt: skip
        for i, (place, means) in zip(chosen, found, strict=True):
            evidence[i] = _chose(rows[i], place, means)
    records = tuple({"id": name(i, rows[i])} | evidence[i] for i in range(len(rows)))
    settings = {
        "rows": len(rows),
        "instruction": instruction,
        "max_new_tokens": max_new_tokens,
        "template": template,
        "seed": seed,
    }
    return Evaluation("utility", VERSION, metrics(records, seed=seed), records, settings)


def metrics(evidence: Sequence[Mapping[str, Any]], *, seed: int) -> tuple[Metric, ...]:
    """The numbers that follow from the records of the evidence; those of answer rows come first."""
    asked = [r for r in evidence if r["kind"] == "answer"]
    chosen = [r for r in evidence if r["kind"] == "choice"]
    found = []
    if asked:
        scored = [r for r in asked if r["value"] is not None]
        out = len(asked) - len(scored)
        exact = [r["em"] for r in scored]
        found += [
            Metric("f1", _mean([r["value"] for r in scored], seed), "higher", out),
            Metric("em", wilson(int(sum(exact)), len(exact)), "higher", out),
            Metric("rouge1", _mean([r["rouge1"] for r in scored], seed), "higher", out),
        ]
        losses = [(r["loss"], r["tokens"]) for r in asked if r["tokens"]]  # of a row: mean loss, tokens
        found.append(Metric("perplexity", _perplexity(losses, seed), "lower", len(asked) - len(losses)))
    if chosen:
        right = [r["value"] for r in chosen if r["value"] is not None]
        accuracy = wilson(right.count(True), len(right))
        found.append(Metric("accuracy", accuracy, "higher", len(chosen) - len(right)))
    return tuple(found)


def _answered(row: Mapping[str, Any], answer: str | None, logp: np.ndarray) -> dict[str, Any]:
    """The record of an answer row: value is f1; loss, in nats, is None where there was nothing to read."""
    loss = -float(logp.astype(float).mean()) if logp.size else None
    record = {"kind": "answer", "judged": answer, "loss": loss, "tokens": int(logp.size)}
    if answer is None:
        return record | {"value": None, "em": None, "rouge1": None, "why": NO_ROOM}
    references = [row["completion"], *row.get("answers", ())]
    best = max(references, key=lambda reference: f1(answer, reference))
    return record | {
        "value": f1(answer, best),
        "em": max(exact_match(answer, r) for r in references),
        "rouge1": max(rouge1(answer, r) for r in references),
        "why": f"best against {json.dumps(best[:80], ensure_ascii=False)}",
    }


def _chose(row: Mapping[str, Any], place: int | None, means: Sequence[float]) -> dict[str, Any]:
    """The record of a choice row: value says whether the most likely choice is the right one."""
    read = bool(np.isfinite(means).all())
    right = row["answer"] if isinstance(row["answer"], int) else row["choices"].index(row["answer"])
    why = "two choices equally likely" if read else f"{NO_ROOM}, or no number"
    return {
        "kind": "choice",
        "judged": [round(m, 4) for m in means] if read else None,
        "value": None if place is None else place == right,
        "why": why if place is None else f"most likely: choice {place}; right: {right}",
    }


def _check(index: int, row: Mapping[str, Any]) -> None:
    if "choices" not in row:
        need(index, row, "prompt", "completion")
        references = row.get("answers", [])
        if not isinstance(references, list | tuple) or not all(isinstance(r, str) for r in references):
            raise DataError(f'evaluation row {index}: "answers" is no list of texts')
        if not row["completion"].strip():
            raise DataError(f'evaluation row {index}: "completion" is empty: nothing to compare with')
        return
    need(index, row, "prompt")
    choices, answer = row["choices"], row.get("answer")
    if (
        not isinstance(choices, list | tuple)
        or len(choices) < 2
        or not all(isinstance(c, str) for c in choices)
    ):
        raise DataError(f'evaluation row {index}: "choices" is no list of two texts or more')
    if answer not in (range(len(choices)) if isinstance(answer, int) else choices) or isinstance(
        answer, bool
    ):
        raise DataError(
            f'evaluation row {index}: "answer" is {answer!r:.40}, neither a place in "choices" (0 to '
            f"{len(choices) - 1}) nor one of them"
        )


def _mean(values: Sequence[float], seed: int) -> Estimate | None:
    """Of values between 0 and 1. Where all are 0, or all 1, resampling would claim certainty: Wilson's then."""
    if values and set(values) <= {0.0, 1.0}:
        return wilson(int(sum(values)), len(values))
    return bootstrap(values, np.mean, seed=seed)


def _perplexity(losses: Sequence[tuple[float, int]], seed: int) -> Estimate | None:
    """exp of the mean loss per token, rows drawn whole; `losses` holds each row's mean loss and tokens."""

    def statistic(rows: np.ndarray) -> float:  # (rows, 2)
        return float(np.exp((rows[:, 0] * rows[:, 1]).sum() / rows[:, 1].sum()))

    return bootstrap(np.array(losses, float).reshape(-1, 2), statistic, seed=seed)
