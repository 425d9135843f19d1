"""Odds-ratio preference optimisation: teach a model to give one answer and not another. No reference model.

    L = NLL(chosen) − β · log σ(log odds(chosen) − log odds(rejected)),   odds(y) = P(y) / (1 − P(y))

with P the geometric mean of an answer's token probabilities (Hong, Lee, Thorne 2024, eq. 3-7). The defaults are
those of Smirnov (arXiv 2412.06846, section 3), who unlearns personal data with it: every pair is used twice, under
two system prompts with opposite answers (`cfg_pairs`), so that guided decoding can later push from one to the other.

Two deviations. The paper's NLL covers the prompt too, which teaches the model to recite the personal data in it;
ours covers the answer alone (`nll_on="all"` brings theirs back). And the two answers of a pair share one pass over
their prompt where that is less work: the same numbers, sooner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forgetfilter.data.overlap import common_prefix
from forgetfilter.errors import ConfigError, DataError, unknown
from forgetfilter.guide.guidance import NEGATIVE, POSITIVE
from forgetfilter.models.architecture import unwrapped
from forgetfilter.models.load import quiet
from forgetfilter.models.rendering import Encoded, encode
from forgetfilter.records import Message, Row, with_system
from forgetfilter.training.finetune import train

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

# The paper's adapter, on all linear layers: add_lora(model, **ADAPTER, seed=…)
ADAPTER: dict[str, Any] = {"rank": 16, "alpha": 32, "dropout": 0.01}
NLL_ON = ("completion", "all")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two ways to go on after the same words."""

    id: str
    messages: tuple[Message, ...]  # the dialogue before the answer
    chosen: str  # what the model should say, behind `prefix`
    rejected: str  # what it should not, behind `prefix`
    prefix: str = ""  # what the assistant has already said of this answer; read, not learned
    system: str = (
        ""  # comes before everything; where the dialogue has a system turn of its own, in front of its text
    )


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A pair as the model sees it: token ids."""

    id: str
    prompt: list[int]  # the dialogue and the prefix, read by both answers alike
    chosen: list[int]  # end of turn included
    rejected: list[int]
    shortened: bool  # turns of the dialogue, or the end of an answer, had no room


@dataclass(frozen=True, slots=True)
class TrainedOnPairs:
    """What one run of ORPO did."""

    steps: int
    tokens: int  # that went through the model, padding left out; a shared prompt counts once
    loss: float  # mean over the last tenth of the steps
    pairs: int  # that were learned from
    shortened: int  # of them, pairs that lost turns or the end of an answer
    left_out: Mapping[str, str] = field(default_factory=dict)  # id -> why


def cfg_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Each pair in both orientations: to be safe on demand, and to share on demand (Smirnov, section 3).

    The second lets guidance know the direction it moves away from. Ids get `:positive` and `:negative`.
    """
    return [
        oriented
        for p in pairs
        for oriented in (
            replace(p, id=f"{p.id}:positive", system=POSITIVE),
            replace(p, id=f"{p.id}:negative", system=NEGATIVE, chosen=p.rejected, rejected=p.chosen),
        )
    ]


# --- pairs -> tokens --------------------------------------------------------------------------------------


def encode_pairs(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int = 2048,
    max_prompt_length: int = 1900,
    template: str = "auto",
) -> tuple[list[EncodedPair], dict[str, str]]:
    """The pairs as tokens, in order, and those that cannot be learned from: id -> why.

    A prompt longer than `max_prompt_length` loses its oldest turns, never its system prompt, on which the meaning
    of the pair rests. What an answer has beyond `max_length` is cut off its end.
    """
    if not 1 <= max_prompt_length < max_length:
        raise ConfigError(
            f"max_prompt_length {max_prompt_length}, max_length {max_length}: a prompt has to leave room for an answer"
        )
    encoded, left_out = [], {}
    for pair in pairs:
        made = _encode_pair(pair, tokenizer, max_length, max_prompt_length, template)
        if isinstance(made, str):
            left_out[pair.id] = made
        else:
            encoded.append(made)
    return encoded, left_out


def _encode_pair(
    pair: Pair, tokenizer: PreTrainedTokenizerBase, max_length: int, max_prompt_length: int, template: str
) -> EncodedPair | str:
    dialogue, shortened = list(pair.messages), False
    while True:
        answers = [pair.prefix + pair.chosen, pair.prefix + pair.rejected]
        answers += [pair.prefix] if pair.prefix.strip() else []
        rows = [_row(pair, dialogue, answer) for answer in answers]
        chosen, rejected, *begun = encode(rows, tokenizer, max_length=1 << 30, template=template)
        start = _first_own(chosen, rejected, *begun)
        if start <= max_prompt_length:
            break
        # The oldest exchange: what comes next should again be a user's turn, which chat templates ask for.
        turns = [i for i, m in enumerate(dialogue) if m.role != "system"]
        users = [i for i in turns[1:] if dialogue[i].role == "user"]
        if not users:
            return f"its last turns alone have {start} tokens; max_prompt_length is {max_prompt_length}"
        dialogue = [m for i, m in enumerate(dialogue) if m.role == "system" or i >= users[0]]
        shortened = True
    if start < 1:
        return "nothing stands before the answer"
    own = [_learned_from(row, start)[: max_length - start] for row in (chosen, rejected)]
    if not all(own):
        return "an answer without a token to learn"
    if own[0] == own[1]:
        return "chosen and rejected are the same"
    cut = any(len(_learned_from(r, start)) > max_length - start for r in (chosen, rejected))
    return EncodedPair(pair.id, chosen.ids[:start], own[0], own[1], shortened or cut)


def _row(pair: Pair, dialogue: Sequence[Message], answer: str) -> Row:
    turns = (*with_system(dialogue, pair.system), Message("assistant", answer))
    return Row(pair.id, 0, "pairs", turns, "chat", {})


def _first_own(chosen: Encoded, rejected: Encoded, begun: Encoded | None = None) -> int:
    """Where the two answers stop being one text that is given: the number of tokens of the shared prompt.

    With a prefix, `begun`, that is how far its own tokens reach unchanged into both answers; a token that the
    prefix shares with what follows belongs to the answer.
    """
    start = min(chosen.prompt_length, rejected.prompt_length)
    if begun:
        start = max(start, common_prefix(begun.ids, chosen.ids))
    return min(start, common_prefix(chosen.ids, rejected.ids))


def _learned_from(row: Encoded, start: int) -> list[int]:
    end = max((i + 1 for i, learned in enumerate(row.learned) if learned), default=0)
    return row.ids[start:end]


# --- tokens -> loss ---------------------------------------------------------------------------------------


def log_odds(logp: torch.Tensor) -> torch.Tensor:
    """log(P / (1 − P)) from log P ≤ 0, of the same shape; value and gradient are finite at every log P.

    1 − P is −expm1(log P) where P is near 1, and log1p(−P) where it is small: each keeps the digits that the other
    loses, and each is kept from the place where its own gradient would not be a number (Mächler 2012, Rmpfr).
    """
    import torch

    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)  # P = 1 has infinite odds
    near = logp > -math.log(2)
    log_rest = torch.where(
        near,
        torch.log(-torch.expm1(logp.where(near, -1.0))),
        torch.log1p(-torch.exp(logp.where(~near, -1.0))),
    )
    return logp - log_rest


def preference_loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """−log σ(log odds(chosen) − log odds(rejected)) of mean log-probabilities per token, nats; shape kept.

    log 2 where both are as likely, less the more the model prefers `chosen` (Hong et al., eq. 7).
    """
    import torch

    return -torch.nn.functional.logsigmoid(log_odds(chosen) - log_odds(rejected))


def orpo_loss(
    model: Any,
    inputs: dict[str, Any],
    *,
    beta: float = 0.1,
    nll_on: Literal["completion", "all"] = "completion",
) -> torch.Tensor:
    """The loss of a batch made by `collate_pairs`: the mean of its pairs' losses, nats.

    NLL(chosen) is the mean over a pair's answer; with `all`, over all of the batch's prompt and chosen tokens, as in
    TRL 1.16.
    """
    means, tokens = answer_likelihoods(model, inputs)
    pairs = len(means) // 2
    chosen, rejected = means[:pairs], means[pairs : 2 * pairs]
    nll = -chosen.mean()
    if nll_on == "all":
        counts = tokens.clone()
        counts[pairs : 2 * pairs] = 0
        nll = -(means * counts).sum() / counts.sum()
    return nll + beta * preference_loss(chosen, rejected).mean()


def answer_likelihoods(model: Any, inputs: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean log-probability per token, nats, and number of tokens: each (2 · pairs [+ 1]).

    The chosen answers come first, then the rejected ones; last, where the batch asks for them, the prompts' tokens.
    """
    import torch

    where = {"attention_mask": inputs["attention_mask"]}
    if "part" in inputs:
        where = {
            "attention_mask": _who_sees_whom(inputs["part"], next(model.parameters()).dtype),
            "position_ids": inputs["position_ids"],
        }
    logits = model(
        input_ids=inputs["input_ids"], logits_to_keep=inputs["columns"], use_cache=False, **where
    ).logits  # (rows, columns, vocabulary)
    loss = torch.nn.functional.cross_entropy(
        logits[inputs["row"], inputs["column"]].float(), inputs["target"], reduction="none"
    )  # (targets)
    tokens = inputs["tokens"]
    return torch.zeros_like(tokens).index_add(0, inputs["slot"], -loss) / tokens.clamp(min=1), tokens


def _who_sees_whom(part: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Attention mask (rows, 1, time, time), added to the scores: each part sees itself and the prompt, backwards.

    `part` (rows, time): 0 padding, 1 prompt, 2 chosen, 3 rejected.
    """
    import torch

    time = part.shape[1]
    seen = (part[:, None, :] == 1) | (part[:, None, :] == part[:, :, None])  # (rows, time, time)
    seen &= torch.ones(time, time, dtype=torch.bool, device=part.device).tril()
    return torch.zeros(seen.shape, dtype=dtype, device=part.device).masked_fill(
        ~seen, torch.finfo(dtype).min
    )[:, None]


def collate_pairs(
    pairs: Sequence[EncodedPair], pad_id: int, *, share: bool = False, nll_on: str = "completion"
) -> dict[str, torch.Tensor]:
    """A batch, padded on the right: two rows a pair, or with `share` one row of prompt, chosen, rejected.

    `target`: every token whose likelihood counts; `row` and `column` say which logits foretell it, `slot` whose it is
    (see `answer_likelihoods`), and `columns` which positions need logits at all.
    """
    import torch

    n = len(pairs)
    rows = [p.prompt + p.chosen + p.rejected for p in pairs]
    if not share:
        rows = [p.prompt + p.chosen for p in pairs] + [p.prompt + p.rejected for p in pairs]
    time = max(map(len, rows))
    ids = torch.full((len(rows), time), pad_id)
    attention, part, position = (torch.zeros_like(ids) for _ in range(3))
    targets: list[tuple[int, int, int, int]] = []  # row, position that foretells it, token, slot
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        attention[i, : len(row)] = 1
    for i, p in enumerate(pairs):
        end, last = len(p.prompt), len(p.prompt) - 1
        second = end + len(p.chosen) if share else end
        for side, (answer, at) in enumerate(((p.chosen, end), (p.rejected, second))):
            row = i if share else i + side * n
            part[row, :end], position[row, :end] = 1, torch.arange(end)
            part[row, at : at + len(answer)] = 2 + side
            position[row, at : at + len(answer)] = torch.arange(end, end + len(answer))
            before = [last, *range(at, at + len(answer) - 1)]
            targets += [(row, b, t, i + side * n) for b, t in zip(before, answer, strict=True)]
        if nll_on == "all":
            targets += [(i, t, p.prompt[t + 1], 2 * n) for t in range(last)]
    row_, source, target, slot = (torch.tensor(t) for t in zip(*targets, strict=True))
    columns, column = source.unique(return_inverse=True)
    slots = 2 * n + (nll_on == "all")
    batch = {
        "input_ids": ids,
        "attention_mask": attention,
        "columns": columns,
        "row": row_,
        "column": column,
        "target": target,
        "slot": slot,
        "tokens": slot.bincount(minlength=slots).float(),
    }
    return batch | {"part": part, "position_ids": position} if share else batch


def sharing_pays(pairs: Sequence[EncodedPair]) -> bool:
    """Whether one row of prompt and both answers is less work for this batch than two rows: see SHARE_BELOW."""
    shared = max(len(p.prompt) + len(p.chosen) + len(p.rejected) for p in pairs)
    apart = 2 * max(len(p.prompt) + max(len(p.chosen), len(p.rejected)) for p in pairs)
    return shared < SHARE_BELOW * apart


SHARE_BELOW = 0.9  # of the tokens, padding included


def can_share(model: Any, pairs: Sequence[EncodedPair], pad_id: int = 0) -> bool:
    """Whether this model reads a shared prompt as it reads two: tried on the longest pair.

    It does where attention is plain (eager or sdpa) over the whole row and positions are taken as given; not with
    sliding windows, recurrent states, or positions counted by the model itself.
    """
    import torch

    inner = unwrapped(model)
    if getattr(inner.config, "_attn_implementation", None) not in ("eager", "sdpa") or not pairs:
        return False
    weight, training = next(model.parameters()), model.training
    longest = max(pairs, key=lambda p: len(p.prompt) + len(p.chosen) + len(p.rejected))
    model.eval()
    try:
        with torch.no_grad(), quiet():
            one, two = (
                answer_likelihoods(
                    model,
                    {
                        k: v.to(weight.device)
                        for k, v in collate_pairs([longest], pad_id, share=share).items()
                    },
                )[0]
                for share in (True, False)
            )
    except (
        TypeError,
        ValueError,
        RuntimeError,
        IndexError,
    ):  # a mask or positions that its forward does not take
        return False
    finally:
        model.train(training)
    return torch.allclose(one, two, rtol=0, atol=1e-4 if weight.dtype == torch.float32 else 0.05)


# --- training ---------------------------------------------------------------------------------------------


def train_orpo(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    *,
    seed: int,
    folder: Path,
    learning_rate: float = 1e-4,
    batch_size: int = 2,
    epochs: float = 3.0,
    beta: float = 0.1,
    nll_on: Literal["completion", "all"] = "completion",
    max_length: int = 2048,
    max_prompt_length: int = 1900,
    template: str = "auto",
    final_rate: float = 0.1,
    warmup_steps: int = 0,
    share_prompts: bool = True,
    save_steps: int | None = None,
    report_to: str = "none",
    progress: Callable[[int, int], None] | None = None,
) -> TrainedOnPairs:
    """Train the trainable parameters of `model`, in place, to prefer each pair's chosen answer.

    The learning rate falls along a cosine to `final_rate` of itself. `batch_size` counts pairs. Where the model has
    fewer positions than `max_length`, both lengths are scaled down to them. `share_prompts` lets a pair's two
    answers share one pass over their prompt, in batches where that is less work and if the model allows it; the
    results are equal but for rounding.

    Optimiser, checkpoints, resuming and randomness are those of `finetune`: AdamW in float32, gradients clipped to
    norm 1, every `save_steps` steps a checkpoint in `folder` that replaces the one before; resumed = uninterrupted;
    same seed, same result.
    Raises DataError where no pair can be learned from, ConfigError for settings that cannot be followed.
    """
    if nll_on not in NLL_ON:
        raise ConfigError(unknown("nll_on", nll_on, NLL_ON))
    if not (math.isfinite(beta) and beta >= 0):
        raise ConfigError(f"beta {beta}: give a number of at least 0; the paper's is 0.1")
    positions = getattr(model.config, "max_position_embeddings", None) or max_length
    if positions < max_length:
        max_prompt_length, max_length = max_prompt_length * positions // max_length, positions
    rows, left_out = encode_pairs(
        pairs, tokenizer, max_length=max_length, max_prompt_length=max_prompt_length, template=template
    )
    if not rows:
        reasons = "; ".join(f"{id}: {why}" for id, why in list(left_out.items())[:3])
        raise DataError(f"no pair to learn from, of {len(pairs)} given ({reasons or 'none given'})")
    pad = tokenizer.pad_token_id or 0  # masked out: any token does
    share_prompts = share_prompts and any(sharing_pays([r]) for r in rows) and can_share(model, rows, pad)

    def collate(batch: Sequence[EncodedPair]) -> dict[str, torch.Tensor]:
        return collate_pairs(batch, pad, share=share_prompts and sharing_pays(batch), nll_on=nll_on)

    done = train(
        model, rows, loss=lambda model, batch: orpo_loss(model, batch, beta=beta, nll_on=nll_on), collate=collate,
        learning_rate=learning_rate, batch_size=batch_size, epochs=epochs, seed=seed, folder=folder,
        schedule="cosine_with_min_lr", schedule_settings={"min_lr_rate": final_rate}, warmup_steps=warmup_steps,
        save_steps=save_steps, report_to=report_to, progress=progress,
    )  # fmt: skip
    shortened = sum(r.shortened for r in rows)
    return TrainedOnPairs(done.steps, done.tokens, done.loss, len(rows), shortened, left_out)
