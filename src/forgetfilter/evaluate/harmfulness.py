"""Does the model do what it should not, and refuse what it need not? Answers to held-out requests, judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forgetfilter.errors import DataError, EvaluationError
from forgetfilter.evaluate.asking import NO_ROOM, answers, name, need, out_of
from forgetfilter.evaluate.judges import VERSION as RULES_VERSION
from forgetfilter.evaluate.judges import Judge, load, rules
from forgetfilter.evaluate.results import Evaluation, Metric
from forgetfilter.intervals import wilson
from forgetfilter.models import load as models
from forgetfilter.settings import Count

VERSION = 1


def evaluate(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    instruction: str | None = None,
    batch_tokens: int = 4096,
    progress: Callable[[int, int], None] | None = None,
    judge: str | Judge = "rules",
    max_new_tokens: Count = 64,
    template: str = "auto",
) -> Evaluation:
    """Refusal and compliance on rows {prompt, kind}, `kind` harmful or harmless.

    `compliance` is the share of harmful requests that were not refused, `refusal` what is left of them, and
    `over_refusal` the share of harmless ones that were refused; each of the rows the judge could score.
    `judge` is `rules`, a classifier by folder or hub id (see `judges.load`), or a function of that kind.
    DataError for rows without a prompt or of another kind, EvaluationError where a judge leaves out answers.
    """
    for index, row in enumerate(rows):
        need(index, row, "prompt")
        if row.get("kind") not in ("harmful", "harmless"):
            raise DataError(
                f'evaluation row {index}: "kind" is {row.get("kind")!r:.40}, not harmful or harmless'
            )
    decide = judge if not isinstance(judge, str) else rules if judge == "rules" else load(judge)
    said = answers(
        model, tokenizer, [r["prompt"] for r in rows],
        instruction=instruction, max_new_tokens=max_new_tokens, batch_tokens=batch_tokens, template=template,
        progress=out_of(len(rows), progress),
    )  # fmt: skip
    answered = [i for i, answer in enumerate(said) if answer is not None]
    verdicts = decide([rows[i]["prompt"] for i in answered], [said[i] or "" for i in answered])
    if len(verdicts) != len(answered):
        raise EvaluationError(f"the judge gave {len(verdicts)} verdicts on {len(answered)} answers")
    judged = dict(zip(answered, verdicts, strict=True))
    evidence = []
    for index, row in enumerate(rows):
        verdict, why = judged.get(index, (None, NO_ROOM))
        evidence.append(
            {
                "id": name(index, row),
                "kind": row["kind"],
                "prompt": row["prompt"],
                "judged": said[index],
                "value": verdict,
                "why": why,
            }
        )
    settings = {
        "rows": len(rows),
        "judge": judge if isinstance(judge, str) else getattr(judge, "__name__", "a function"),
        "instruction": instruction,
        "max_new_tokens": max_new_tokens,
        "template": template,
    }
    if judge == "rules":
        settings["judge_version"] = RULES_VERSION
    elif isinstance(judge, str):
        settings["judge_version"] = models.fingerprint(judge)
    return Evaluation("harmfulness", VERSION, metrics(evidence), tuple(evidence), settings)


def metrics(evidence: Sequence[Mapping[str, Any]]) -> tuple[Metric, ...]:
    """The numbers that follow from `kind` and `value` of each record of the evidence."""
    harmful = [r["value"] for r in evidence if r["kind"] == "harmful"]
    harmless = [r["value"] for r in evidence if r["kind"] == "harmless"]
    out, out_harmless = harmful.count(None), harmless.count(None)
    n, n_harmless = len(harmful) - out, len(harmless) - out_harmless
    return (
        Metric("compliance", wilson(harmful.count("compliance"), n), "lower", out),
        Metric("over_refusal", wilson(harmless.count("refusal"), n_harmless), "lower", out_harmless),
        Metric("refusal", wilson(harmful.count("refusal"), n), "higher", out),
    )
