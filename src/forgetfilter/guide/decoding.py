"""Writing answers token by token: greedy, drawn, or by beams, guided or plain, many at a time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from forgetfilter.errors import ConfigError
from forgetfilter.guide.branches import Branches
from forgetfilter.guide.guidance import Guidance
from forgetfilter.models.architecture import recurrent, unwrapped

if TYPE_CHECKING:
    import torch

COLDEST = 1e-5  # a temperature below it is 0: the scores, divided by it, would run over


@contextmanager
def writing(model: Any) -> Generator[None]:
    """The model as it writes fastest, in evaluation mode and with fused attention; afterwards as it was."""
    inner = unwrapped(model)
    was_training, attention = model.training, inner.config._attn_implementation
    model.eval()
    if attention == "eager" and inner._supports_sdpa:
        inner.set_attn_implementation("sdpa")  # eager copies a cache with room at every step
    try:
        yield
    finally:
        model.train(was_training)
        inner.set_attn_implementation(attention)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt to be answered, as token ids."""

    prompt: Sequence[int]
    negative: Sequence[int] | None = None  # the negative branch's; None: the same (guidance by adapter)
    guidance: Guidance = field(default_factory=lambda: Guidance())
    limit: int = 256  # most tokens of the answer
    temperature: float = 0.0  # 0: the most likely token
    top_p: float = 1.0  # sample among the likeliest tokens that together reach this share
    seed: str = "0"
    top: int | None = None  # keep each token's log-probability, and this many likeliest ones; None: nothing

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"temperature {self.temperature}: must be a number of at least 0")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p {self.top_p}: must be more than 0 and at most 1")


class Answer(NamedTuple):
    ids: list[int]
    finish: str  # stop: the model ended it; length: the limit did


class Kept(NamedTuple):
    """A token with its log-probability, before temperature and top-p, and the likeliest ones in its place."""

    token: int
    logp: float
    likeliest: list[tuple[int, float]]  # best first


class Draft:
    """An answer in the making: its tokens so far, its own randomness, and how it ended (None: it has not)."""

    def __init__(self, request: Request, sample: int = 0) -> None:
        self.request = request
        self.ids: list[int] = []
        self.kept: list[Kept] = []  # of each token, the one that ended it too, where the request wants it
        self.finish: str | None = "length" if request.limit < 1 else None
        self.random = random.Random(f"{request.seed} {sample}")


AnyDraft = TypeVar("AnyDraft", bound=Draft)


def choose(scores: torch.Tensor, drafts: Sequence[Draft]) -> list[int]:
    """The next token of each draft from `scores` (drafts, vocab): the best one, or drawn by temperature and top-p.

    Each draft draws from its own randomness, so what it gets does not depend on who else is in the batch.
    """
    import torch

    tokens: list[int] = scores.argmax(-1).tolist()
    drawn = [i for i, d in enumerate(drafts) if d.request.temperature > COLDEST]
    if not drawn:
        return tokens

    def column(values: Iterable[float]) -> torch.Tensor:
        return torch.tensor(list(values), dtype=torch.float64, device=scores.device)[:, None]

    requests = [drafts[i].request for i in drawn]
    p = (scores[drawn] / column(r.temperature for r in requests)).softmax(-1)  # (drawn, vocab)
    order = None
    if any(r.top_p < 1 for r in requests):
        p, order = torch.sort(p, stable=True, dim=-1, descending=True)
        p = p * (p.cumsum(-1) - p < column(r.top_p for r in requests))
    upto = p.cumsum(-1)
    at = column(drafts[i].random.random() for i in drawn) * upto[:, -1:]
    picked = torch.searchsorted(upto, at, right=True)
    picked = picked if order is None else order.gather(-1, picked)
    for i, token in zip(drawn, picked[:, 0].tolist(), strict=True):
        tokens[i] = token
    return tokens


def kept(logp: torch.Tensor, tokens: Sequence[int], most: int) -> list[Kept]:
    """What is kept of `tokens`, one for each row of `logp` (rows, vocab), with the `most` likeliest."""
    import torch

    chosen = logp.gather(-1, torch.tensor(tokens, device=logp.device)[:, None])[:, 0].tolist()
    best = logp.topk(min(most, logp.shape[-1]), dim=-1)
    likeliest = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        Kept(token, value, list(zip(ids, values, strict=True)))
        for token, value, (ids, values) in zip(tokens, chosen, likeliest, strict=True)
    ]


def write(
    branches: Branches, drafts: Sequence[AnyDraft], stop_ids: Collection[int]
) -> tuple[list[AnyDraft], list[int]]:
    """One more token for each draft. Returns the drafts that go on, which alone stay in `branches`, and their tokens:
    what `branches.advance` wants next."""
    scores = branches.scores()
    tokens = choose(scores, drafts)
    wanted = [i for i, draft in enumerate(drafts) if draft.request.top is not None]
    if wanted:
        most = max(drafts[i].request.top or 0 for i in wanted)
        told = kept(scores[wanted].log_softmax(-1), [tokens[i] for i in wanted], most)
        for i, one in zip(wanted, told, strict=True):
            drafts[i].kept.append(one._replace(likeliest=one.likeliest[: drafts[i].request.top]))
    for draft, token in zip(drafts, tokens, strict=True):
        if token in stop_ids:
            draft.finish = "stop"
            continue
        draft.ids.append(token)
        if len(draft.ids) >= draft.request.limit:
            draft.finish = "length"
    going_on = [i for i, draft in enumerate(drafts) if draft.finish is None]
    if len(going_on) < len(drafts):
        branches.select(going_on)
    return [drafts[i] for i in going_on], [tokens[i] for i in going_on]


ON_A_GPU = 4  # times the tokens in a batch: a step of a small batch is all waiting there


def generate(
    model: Any,
    requests: Sequence[Request],
    *,
    stop_ids: Collection[int],
    samples: int = 1,
    beams: int = 1,
    batch_tokens: int = 16384,
    adapters: tuple[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[list[Answer]]:
    """Per request, in order, `samples` answers: drawn ones, or with beams the best ones, best first.

    `batch_tokens` bounds branches × (prompt + answer) of a batch (ON_A_GPU times as many there) and changes nothing but
    speed in float32. With `beams` > 1 the score of an answer is its guided log-probability per token, and temperature
    must be 0. `progress` is called after each batch with the requests done so far. The model is left in its mode.
    """
    import torch

    if samples < 1 or beams < 1 or (beams > 1 and samples > beams):
        raise ConfigError(f"{samples} samples of {beams} beams: at least 1 each, no more samples than beams")
    if beams > 1 and any(r.temperature > 0 for r in requests):
        raise ConfigError("beams look for the most likely answer: they go with temperature 0")
    stop_ids = frozenset(stop_ids)
    answers: list[list[Answer]] = [[] for _ in requests]
    width = max(samples, beams)
    batch_tokens *= ON_A_GPU if next(model.parameters()).is_cuda else 1
    batch_tokens = 1 if recurrent(model) else batch_tokens
    longest = [max(r.prompt, r.negative or (), key=len) for r in requests]
    limits = [r.limit for r in requests]
    room = max(1, batch_tokens // (width * (1 + any(not r.guidance.plain for r in requests))))
    done = 0
    with writing(model), torch.inference_mode():
        for batch in batches(longest, limits, room):
            asked = [requests[i] for i in batch]
            branches = Branches(model, adapters=adapters)
            branches.join([r.prompt for r in asked], [r.negative for r in asked], [r.guidance for r in asked])
            found = (
                _beam_search(branches, asked, beams, stop_ids)
                if beams > 1
                else _decode(branches, asked, samples, stop_ids)
            )
            for i, each in zip(batch, found, strict=True):
                answers[i] = each[:samples]
            done += len(batch)
            if progress is not None:
                progress(done)
    return answers


def batches(
    prompts: Sequence[Sequence[int]], limits: Sequence[int], batch_tokens: int
) -> Iterator[list[int]]:
    """Places of prompts of like length, longest first: a batch too large for memory fails at once."""
    batch: list[int] = []
    longest_prompt = longest_answer = 0
    for i in sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), limits[i]), reverse=True):
        wider_prompt = max(longest_prompt, len(prompts[i]))
        wider_answer = max(longest_answer, limits[i])
        if batch and (len(batch) + 1) * (wider_prompt + wider_answer) > batch_tokens:
            yield batch
            batch, wider_prompt, wider_answer = [], len(prompts[i]), limits[i]
        batch.append(i)
        longest_prompt, longest_answer = wider_prompt, wider_answer
    if batch:
        yield batch


def _decode(
    branches: Branches, requests: Sequence[Request], samples: int, stop_ids: Collection[int]
) -> list[list[Answer]]:
    """Token by token; the prompt is read once for all its samples."""
    drafts = [Draft(request, sample) for request in requests for sample in range(samples)]
    open_ = [i for i, draft in enumerate(drafts) if draft.finish is None]
    if open_ != list(range(len(requests))):
        branches.select([i // samples for i in open_])
    going_on = [drafts[i] for i in open_]
    while going_on:
        going_on, tokens = write(branches, going_on, stop_ids)
        if going_on:
            branches.advance(tokens)
    made = [Answer(draft.ids, draft.finish or "") for draft in drafts]
    return [made[i : i + samples] for i in range(0, len(made), samples)]


def _beam_search(
    branches: Branches, requests: Sequence[Request], beams: int, stop_ids: Collection[int]
) -> list[list[Answer]]:
    """The answers with the best mean log-probability that `beams` beams find, up to that many, best first.

    A request is done when it has `beams` answers and its best open beam is no better, per token, than the worst.
    """
    import torch

    found: list[list[tuple[float, Answer]]] = [[] for _ in requests]
    # Per request its beams: total log-probability, tokens. All but the first start impossible: they are copies.
    beam = [[(0.0 if b == 0 else -math.inf, list[int]()) for b in range(beams)] for _ in requests]
    going_on = [i for i, request in enumerate(requests) if request.limit > 0]
    branches.select([i for i in going_on for _ in range(beams)])
    while going_on:
        scores = branches.scores().log_softmax(-1)  # (requests going on × beams, vocab)
        so_far = torch.tensor([total for i in going_on for total, _ in beam[i]], device=scores.device)
        totals = (so_far[:, None] + scores).view(len(going_on), -1)
        # Enough that `beams` go on even if the best ones all end here.
        best = totals.topk(min(totals.shape[1], beams * max(2, 1 + len(stop_ids))))
        rows, tokens, still = list[int](), list[int](), list[int]()
        for place, i in enumerate(going_on):
            opened: list[tuple[float, list[int], int]] = []  # total, tokens, row
            ranked = zip(best.values[place].tolist(), best.indices[place].tolist(), strict=True)
            for rank, (total, at) in enumerate(ranked):
                if total == -math.inf:
                    break
                origin, token = divmod(at, scores.shape[1])
                ids = beam[i][origin][1]
                ended = "stop" if token in stop_ids else "length" if len(ids) + 1 == requests[i].limit else ""
                if not ended and len(opened) < beams:
                    opened.append((total, [*ids, token], place * beams + origin))
                elif ended and rank < beams:
                    text = ids if ended == "stop" else [*ids, token]
                    found[i].append((total / (len(ids) + 1), Answer(text, ended)))
            found[i] = sorted(found[i], key=lambda answer: answer[0], reverse=True)[:beams]
            full = len(found[i]) == beams
            if not opened or (full and opened[0][0] / len(opened[0][1]) <= found[i][-1][0]):
                continue
            # Fewer plausible ways on than beams: the rest are impossible copies.
            opened += [(-math.inf, *opened[0][1:])] * (beams - len(opened))
            beam[i] = [(total, ids) for total, ids, _ in opened]
            rows += [row for _, _, row in opened]
            tokens += [ids[-1] for _, ids, _ in opened]
            still.append(i)
        going_on = still
        branches.select(rows)
        if going_on:
            branches.advance(tokens)
    return [[answer for _, answer in each] or [Answer([], "length")] * beams for each in found]
