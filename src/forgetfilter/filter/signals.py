"""How well is each row remembered: signals, each larger where the model reproduces the row better.

Teacher-forced signals (`likelihood`, `probability`, `token_match`) need one forward pass per model
state; generated ones (`rouge1`, `exact_match`) decode the model's own answer and compare the text.
A signal is a function and a line in SIGNALS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter.data.overlap import exact_match, rouge1
from forgetfilter.errors import ModelError
from forgetfilter.models.batches import length_batches
from forgetfilter.models.rendering import Encoded

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Memory:
    """What one model state makes of one row's scored tokens. Empty arrays: nothing to score."""

    logp: np.ndarray  # (tokens,) float32, log-probability of each token given everything before it, nats
    hit: np.ndarray  # (tokens,) bool, the token is the model's first choice


def token_memory(
    model: Any,
    rows: Sequence[Encoded],
    *,
    pad_id: int = 0,
    batch_tokens: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Memory]:
    """Teacher-forced memory of every row, in order; batches of like length, padded on the right.

    `batch_tokens` bounds rows x longest row of a batch; None is what suits the device and its free memory. A batch
    that does not fit all the same is read in halves. `progress` is called with rows done so far.
    """
    import torch

    from forgetfilter.training import memory as room
    from forgetfilter.training.attention import measuring
    from forgetfilter.training.finetune import collate_right
    from forgetfilter.training.head import logits_of

    device = next(model.parameters()).device
    result = [Memory(np.zeros(0, np.float32), np.zeros(0, bool)) for _ in rows]
    scorable = [i for i, r in enumerate(rows) if any(r.scored[1:])]
    done = 0
    with measuring(model) as attend:

        def read(batch: Sequence[int]) -> tuple[np.ndarray, np.ndarray, list[int]]:
            inputs = collate_right([rows[i] for i in batch], pad_id)
            attend(inputs["input_ids"].shape[1])
            scored = torch.zeros_like(inputs["learned"])  # (batch, time)
            for b, i in enumerate(batch):
                scored[b, 1 : len(rows[i].ids)] = torch.tensor(rows[i].scored[1:])
            where = {name: inputs[name].to(device) for name in ("input_ids", "attention_mask")}
            with torch.inference_mode():
                wanted = scored.to(device)
                targets, parts = where["input_ids"][wanted], []
                for logits in logits_of(model, where, wanted):  # (tokens, vocabulary)
                    parts.append(_gather(logits, targets[: len(logits)]))
                    targets = targets[len(logits) :]
                logp, hit = (torch.cat(values).cpu().numpy() for values in zip(*parts, strict=True))
            return logp, hit, scored.sum(1).cumsum(0).tolist()

        batches = length_batches(
            [len(rows[i].ids) for i in scorable], batch_tokens or room.reading_room(model)
        )
        chosen = [[scorable[k] for k in some] for some in batches]
        for batch, (logp, hit, ends) in room.halving(chosen, read, lambda i: len(rows[i].ids)):
            for i, first, last in zip(batch, [0, *ends], ends, strict=False):
                result[i] = Memory(logp[first:last], hit[first:last])
            done += len(batch)
            if progress:
                progress(done)
    return result


def refuse_overflow(found: Iterable[np.ndarray]) -> None:
    """ModelError where what a model state made of rows is not a number: it would rank as any other row."""
    if not all(np.isfinite(values).all() for values in found):
        raise ModelError(
            "the model's numbers overflow: what it makes of a row is infinite, or not a number. Use --dtype float32 or "
            "bfloat16; where it was trained before, lower --learning-rate or --review-learning-rate"
        )


def _gather(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """logits (tokens, vocabulary), target (tokens,) -> log-probability and first-choice flag of each target."""
    chosen = logits.gather(1, target[:, None]).squeeze(1)
    return chosen - logits.logsumexp(1), chosen >= logits.amax(1)


def likelihood(memory: Memory) -> float:
    """Mean log-probability of the row's tokens, nats; at most 0."""
    return float(memory.logp.mean())


def probability(memory: Memory) -> float:
    """Mean probability of the row's tokens, 0 to 1."""
    return float(np.exp(memory.logp).mean())


def token_match(memory: Memory) -> float:
    """Share of the row's tokens that are the model's first choice, 0 to 1."""
    return float(memory.hit.mean())


def remembered_tokens(memories: Mapping[str, Memory], signal: str) -> dict[str, float]:
    """Row id -> a teacher-forced signal (larger: better remembered); rows without tokens to score are left out."""
    measure = TOKEN_SIGNALS[signal]
    return {id: measure(memory) for id, memory in memories.items() if memory.logp.size}


def remembered_texts(
    answers: Mapping[str, str], references: Mapping[str, str], signal: str
) -> dict[str, float]:
    """Row id -> a generated signal, by comparing what the model answers with the row's own completion."""
    measure = GENERATED_SIGNALS[signal]
    return {id: float(measure(answers[id], reference)) for id, reference in references.items()}


TOKEN_SIGNALS: dict[str, Callable[[Memory], float]] = {
    "likelihood": likelihood,
    "probability": probability,
    "token_match": token_match,
}
GENERATED_SIGNALS: dict[str, Callable[[str, str], float]] = {
    "rouge1": rouge1,
    "exact_match": exact_match,
}
SIGNALS = TOKEN_SIGNALS | GENERATED_SIGNALS
