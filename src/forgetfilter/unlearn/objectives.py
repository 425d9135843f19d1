"""Other ways to unlearn, to stand beside ORPO: gradient ascent, NPO, SimNPO and DPO with refusals.

    ascent   log P(y)                                            Jang et al. 2023, arXiv 2210.01504
    npo      −(2/β) log σ(−β log(P(y) / P₀(y)))                  Zhang et al. 2024, arXiv 2404.05868
    simnpo   −(2/β) log σ(−(β/|y|) log P(y))                     Fan et al. 2024, arXiv 2410.07163, margin 0
    dpo      −log σ(β (log(P(c) / P₀(c)) − log(P(y) / P₀(y))))   Rafailov et al. 2023, arXiv 2305.18290

y is the answer to forget (a pair's `rejected`), c a refusal (its `chosen`), P₀ the model before unlearning. The
likelihood of an answer is the product of its tokens', except in ascent, which takes the mean over tokens, as the loss
that it turns round does. The first three also learn rows to keep, a batch of them with each batch to forget:

    L = forget + retain_weight · NLL(rows to keep)               Liu et al. 2022; Maini et al. 2024, arXiv 2401.06121

All in nats. Pairs, batches and training are those of `orpo`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError, DataError, unknown
from forgetfilter.models.rendering import Encoded
from forgetfilter.training.attention import measuring
from forgetfilter.training.finetune import collate_right, completion_loss, train
from forgetfilter.unlearn.orpo import (
    EncodedPair,
    Pair,
    TrainedOnPairs,
    answer_likelihoods,
    collate_pairs,
    encode_pairs,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

REFUSALS = (
    "I'm sorry, but I don't share personal data.",
    "I can't give you that. It is private.",
    "That is personal, so I keep it to myself.",
    "I'd rather not tell names, numbers or addresses.",
)


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """Log-likelihoods of a batch's answers, nats, each of shape (pairs)."""

    chosen: torch.Tensor  # of the whole answer
    rejected: torch.Tensor
    rejected_tokens: torch.Tensor
    chosen_before: torch.Tensor  # the same before unlearning
    rejected_before: torch.Tensor


def ascent(p: Likelihoods, beta: float) -> torch.Tensor:
    """log P(y) per token: lower the less likely the answer has become, without end. (pairs)"""
    return p.rejected / p.rejected_tokens


def npo(p: Likelihoods, beta: float) -> torch.Tensor:
    """−(2/β) log σ(−β log(P(y) / P₀(y))): (2/β) log 2 at the start, 0 once the answer is gone. (pairs)"""
    import torch

    return -2 / beta * torch.nn.functional.logsigmoid(-beta * (p.rejected - p.rejected_before))


def simnpo(p: Likelihoods, beta: float) -> torch.Tensor:
    """−(2/β) log σ(−(β/|y|) log P(y)): as npo, by the likelihood per token and without a reference. (pairs)"""
    import torch

    return -2 / beta * torch.nn.functional.logsigmoid(-beta * p.rejected / p.rejected_tokens)


def dpo(p: Likelihoods, beta: float) -> torch.Tensor:
    """−log σ(β (log(P(c) / P₀(c)) − log(P(y) / P₀(y)))): log 2 at the start. (pairs)"""
    import torch

    margin = (p.chosen - p.chosen_before) - (p.rejected - p.rejected_before)
    return -torch.nn.functional.logsigmoid(beta * margin)


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss and what it goes with."""

    loss: Callable[[Likelihoods, float], torch.Tensor]
    beta: float  # its papers' value
    refers: bool  # needs the likelihoods before unlearning
    retains: bool  # learns rows to keep beside
    refuses: bool  # `chosen` is a refusal of the whole answer


OBJECTIVES = {
    "ascent": Objective(ascent, 0.0, False, True, False),
    "npo": Objective(npo, 0.1, True, True, False),
    "simnpo": Objective(simnpo, 2.5, False, True, False),
    "dpo": Objective(dpo, 0.1, True, False, True),
}


def with_refusals(pairs: Sequence[Pair]) -> list[Pair]:
    """Each dialogue's turn once: the whole answer to forget, and a refusal in its place, in turns of REFUSALS."""
    turns: dict[tuple[Any, str], Pair] = {}
    for p in pairs:
        turns.setdefault((p.messages, p.prefix + p.rejected), p)
    return [
        replace(p, chosen=REFUSALS[n % len(REFUSALS)], rejected=whole, prefix="")
        for n, ((_, whole), p) in enumerate(turns.items())
    ]


def train_away(
    name: str,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    *,
    retain: Sequence[Encoded] = (),
    seed: int,
    folder: Path,
    learning_rate: float = 1e-4,
    batch_size: int = 2,
    epochs: float = 3.0,
    beta: float | None = None,
    retain_weight: float = 1.0,
    max_length: int = 2048,
    template: str = "auto",
    save_steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TrainedOnPairs:
    """Train the trainable parameters of `model`, in place, by one of OBJECTIVES; what it is now is P₀.

    `retain`: rows to keep, for the objectives that learn them; the i-th pair brings the i-th row, from the beginning
    again when they are used up. `beta`: None is the objective's own. Rate, optimiser, resuming as of `train_orpo`.
    ConfigError for an unknown objective, DataError where there is no pair, or no row to keep where it needs one.
    """
    import torch

    if name not in OBJECTIVES:
        raise ConfigError(unknown("method", name, OBJECTIVES))
    goal = OBJECTIVES[name]
    given = with_refusals(pairs) if goal.refuses else pairs
    room = min(max_length, getattr(model.config, "max_position_embeddings", None) or max_length)
    rows, left_out = encode_pairs(
        given, tokenizer, max_length=room, max_prompt_length=max(1, room * 1900 // 2048), template=template
    )
    kept = [r for r in retain if any(r.learned[1:])] if goal.retains else []
    if not rows:
        raise DataError(f"{name}: no pair to learn from, of {len(pairs)} given")
    if goal.retains and not kept:
        raise DataError(
            f"{name}: no row to keep; give rows of prompt and completion that the model should still know"
        )
    pad = tokenizer.pad_token_id or 0
    places = [_Placed(r, kept[i % len(kept)] if kept else None) for i, r in enumerate(rows)]
    before = _likelihoods_before(model, places, pad) if goal.refers else {}

    def collate(batch: Sequence[_Placed]) -> dict[str, Any]:
        made: dict[str, Any] = dict(collate_pairs([b.pair for b in batch], pad))
        if before:
            made["before"] = torch.tensor([before[b.pair.id] for b in batch])
        if kept:
            made["retain"] = collate_right([b.retained for b in batch if b.retained], pad)
        return made

    strength = goal.beta if beta is None else beta
    done = train(
        model, places, loss=lambda model, batch: unlearning_loss(model, batch, goal.loss, strength, retain_weight),
        collate=collate, learning_rate=learning_rate, batch_size=batch_size, epochs=epochs, seed=seed, folder=folder,
        schedule="cosine_with_min_lr", schedule_settings={"min_lr_rate": 0.1}, save_steps=save_steps,
        progress=progress,
    )  # fmt: skip
    shortened = sum(r.shortened for r in rows)
    return TrainedOnPairs(done.steps, done.tokens, done.loss, len(rows), shortened, left_out)


def unlearning_loss(
    model: Any,
    inputs: Mapping[str, Any],
    loss: Callable[[Likelihoods, float], torch.Tensor],
    beta: float,
    retain_weight: float = 1.0,
) -> torch.Tensor:
    """The mean loss of a batch of `collate_pairs`; `before` (pairs, 2) are the likelihoods at the start, chosen
    first, `retain` a batch of `collate_right`, where they are there. Nats."""
    import torch

    means, tokens = answer_likelihoods(model, inputs)
    pairs = len(means) // 2
    chosen, rejected = (means * tokens).split(pairs)
    before = inputs.get("before", torch.zeros(pairs, 2, device=means.device))
    found = Likelihoods(chosen, rejected, tokens[pairs:], before[:, 0], before[:, 1])
    total = loss(found, beta).mean()
    if "retain" in inputs and retain_weight:
        total = total + retain_weight * completion_loss(model, inputs["retain"])
    return total


@dataclass(frozen=True, slots=True)
class _Placed:
    """A pair, and the row to keep that goes with it."""

    pair: EncodedPair
    retained: Encoded | None


def _likelihoods_before(model: Any, places: Sequence[_Placed], pad: int) -> dict[str, tuple[float, float]]:
    """Pair's id -> log-likelihood of its chosen and its rejected answer, nats, of the model as it stands."""
    import torch

    device = next(model.parameters()).device
    found = {}
    with torch.no_grad(), measuring(model) as attend:
        for p in places:
            batch = {k: v.to(device) for k, v in collate_pairs([p.pair], pad).items()}
            attend(batch["input_ids"].shape[1])
            means, tokens = answer_likelihoods(model, batch)
            chosen, rejected = (means * tokens).tolist()
            found[p.pair.id] = (chosen, rejected)
    return found
