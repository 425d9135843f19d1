"""Does the model go on in a toxic way? It continues the first words of held-out text; a scorer judges what it adds.

ForgetFilter, section 5: three words of each text, the continuation scored alone, so that a toxic opening is
not held against the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from forgetfilter.errors import ConfigError, EvaluationError
from forgetfilter.evaluate import asking
from forgetfilter.evaluate.results import Evaluation, Metric
from forgetfilter.intervals import bootstrap, wilson
from forgetfilter.models.rendering import encode
from forgetfilter.models.scorers import Scorer, load
from forgetfilter.records import Message, Row
from forgetfilter.settings import Count, Seed, Share

VERSION = 1


def evaluate(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    instruction: str | None = None,
    batch_tokens: int = 4096,
    progress: Callable[[int, int], None] | None = None,
    scorer: str | Scorer = "ngram",
    threshold: Share | None = None,
    words: Count = 3,
    max_new_tokens: Count = 24,
    seed: Seed = 0,
) -> Evaluation:
    """Toxicity of greedy continuations of rows {text}: share and mean, both 0 to 1, lower is better.

    `toxic_share` counts continuations that score at least `threshold` (None: the scorer's own),
    `mean_toxicity` is the mean score. `scorer` is a name for `scorers.load`, or one loaded already. The model
    sees the first `words` words, with `instruction` and an empty line in front where one is given, as running
    text: no template. Rows with fewer words, with no room for an answer, or whose continuation is empty or
    cannot be judged are unscored. `seed` draws the bootstrap of the mean.

    Raises DataError for a row without a text, ConfigError for `words` or `max_new_tokens` below 1.
    """
    from forgetfilter.guide.generation import greedy, stop_ids

    if words < 1 or max_new_tokens < 1:
        raise ConfigError(f"words is {words}, max_new_tokens is {max_new_tokens}; both must be at least 1")
    for index, row in enumerate(rows):
        asking.need(index, row, "text")
    judge = load(scorer) if isinstance(scorer, str) else scorer
    cut = judge.threshold if threshold is None else threshold
    opening = re.compile(rf"\s*+(\S++(?:\s++\S++){{{words - 1}}})")
    matches = [opening.match(row["text"]) for row in rows]
    openings = [match[1] if match else None for match in matches]
    why = [None if match else f"fewer than {words} words" for match in matches]

    prompts = _prompts(tokenizer, openings, instruction)
    room = asking.positions(model) - max_new_tokens + 1  # the last token is never read back
    for i, ids in prompts.items():
        if len(ids) > room:
            why[i] = asking.NO_ROOM
    asked = [i for i in prompts if why[i] is None]
    added = greedy(
        model, [prompts[i] for i in asked], [max_new_tokens] * len(asked),
        batch_tokens=batch_tokens, stop_ids=stop_ids(model, tokenizer),
        progress=asking.out_of(len(rows), progress),
    )  # fmt: skip
    said = {
        i: str(tokenizer.decode(ids, skip_special_tokens=True)) for i, ids in zip(asked, added, strict=True)
    }
    scores = judge(list(said.values()))
    if len(scores) != len(said):
        raise EvaluationError(f"scorer {judge.name} gave {len(scores)} scores for {len(said)} texts")
    values = dict(zip(said, scores, strict=True))

    evidence = []
    for i, row in enumerate(rows):
        value = values.get(i)
        if value is not None:
            why[i] = f"{'at or above' if value >= cut else 'below'} {cut:g}"
        elif why[i] is None:
            why[i] = f"{judge.name} could not judge it" if said[i].strip() else "the model added nothing"
        judged = {"judged": said.get(i), "value": value, "why": why[i]}
        evidence.append({"id": asking.name(i, row), "prompt": openings[i], **judged})
    known = [value for value in values.values() if value is not None]
    metrics = _metrics(known, cut, len(rows) - len(known), seed)
    settings = {
        "rows": len(rows),
        "scorer": judge.name,
        "scorer_version": judge.version,
        "threshold": cut,
        "instruction": instruction,
        "words": words,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    return Evaluation("toxicity", VERSION, metrics, tuple(evidence), settings)


def _metrics(scores: Sequence[float], cut: float, unscored: int, seed: int) -> tuple[Metric, ...]:
    return (
        Metric("toxic_share", wilson(sum(s >= cut for s in scores), len(scores)), "lower", unscored),
        Metric("mean_toxicity", bootstrap(scores, np.mean, seed=seed), "lower", unscored),
    )


def _prompts(tokenizer: Any, openings: Sequence[str | None], instruction: str | None) -> dict[int, list[int]]:
    """Place of the row -> token ids of what the model continues, for the rows that have an opening."""
    before = f"{instruction}\n\n" if instruction else ""
    rows = [
        Row(str(i), i, "evaluation", (Message("user", before + text),), "text", {})
        for i, text in enumerate(openings)
        if text is not None
    ]
    encoded = encode(rows, tokenizer, max_length=asking.UNLIMITED)
    return {row.index: z.ids[: z.prompt_length] for row, z in zip(rows, encoded, strict=True)}
