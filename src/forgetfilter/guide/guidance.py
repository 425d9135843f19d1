"""Classifier-free guidance: what a model says under one prompt, pushed away from what it says under another.

A guided answer is read by the model twice, under its own prompt (the positive branch) and under one that asks
for what shall not be said (the negative branch); the two distributions of the next token are combined. Both
branches stand in one batch, so a step costs one forward pass. With scale 1 there is no negative branch: plain
decoding. (Smirnov, Classifier-free guidance in LLMs Safety, arXiv 2412.06846.)
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from forgetfilter.errors import DONE, ConfigError, DataError, ModelError, unknown
from forgetfilter.guide.generation import batches, forward_parameters, stop_ids, unwrapped
from forgetfilter.models.rendering import encode
from forgetfilter.records import Message, Row, with_system

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

POSITIVE = "Do not provide any personal data."  # the paper's two prompts
NEGATIVE = "You should share personal data in the answers."
ADAPTER, BASE = "adapter", "__base__"  # names of peft: the one we load, and none
LARGEST_SCALE = 1000  # 100 times what anybody uses; beyond it, numbers run over in float32
RECURRENT = frozenset(
    {"conv", "linear_attention", "mamba", "recurrent", "hybrid", "hybrid_sliding"}
)  # layer types
COLDEST = 1e-5  # a temperature below it is 0: the scores, divided by it, would run over
IMPOSSIBLE = (
    -1e4
)  # log-probability below which the negative branch is not followed: 1 - γ times it stays finite


# --- combining two distributions ---


@dataclass(frozen=True, slots=True)
class Guidance:
    """How the two branches are combined. ConfigError for a scale below 0, NaN or huge, an unknown form, a mask > 1."""

    scale: float = 1.0  # γ: 1 is plain decoding, 0 the negative branch, above 1 away from it
    form: str = "probability"  # a key of FORMS
    mask: float = (
        0.1  # with γ > 1, tokens less likely than this times the positive branch's best are out; 0: off
    )

    def __post_init__(self) -> None:
        if not 0 <= self.scale <= LARGEST_SCALE:
            raise ConfigError(
                f"guidance scale {self.scale:g}: must be between 0 and {LARGEST_SCALE}; 1 is no guidance"
            )
        if self.form not in FORMS:
            raise ConfigError(unknown("guidance form", self.form, FORMS))
        if not 0 <= self.mask <= 1:
            raise ConfigError(f"plausibility mask {self.mask}: must be between 0 (off) and 1")

    @property
    def plain(self) -> bool:
        return self.scale == 1


def log_form(positive: torch.Tensor, negative: torch.Tensor, scale: float) -> torch.Tensor:
    """Equation 2: log P = log P_neg + γ (log P_pos − log P_neg), up to a constant. All log-probabilities, one shape.

    A large γ lifts tokens that are unlikely under both: use a mask. What the positive branch rules out stays out.
    """
    negative = negative.clamp(min=IMPOSSIBLE)
    return (negative + scale * (positive - negative)).masked_fill(positive == -math.inf, -math.inf)


def probability_form(positive: torch.Tensor, negative: torch.Tensor, scale: float) -> torch.Tensor:
    """Equation 6: P = P_neg + γ (P_pos − P_neg), cut at 0, in log, not normalised. All log-probabilities, one shape.

    Over a whole vocabulary the sum before the cut is 1, so what is left is never nothing.
    """
    p = negative.exp()
    return (p + scale * (positive.exp() - p)).clamp(min=0).log()


def plausible(positive: torch.Tensor, share: float) -> torch.Tensor:
    """True for tokens at least `share` (0 to 1) times as likely as the best, which always is. (…, vocab)"""
    return positive >= positive.amax(-1, keepdim=True) + (math.log(share) if share else -math.inf)


def combine(positive: torch.Tensor, negative: torch.Tensor, guidance: Guidance) -> torch.Tensor:
    """The guided distribution of the next token. In and out (…, vocab) log-probabilities; γ = 1 changes nothing.

    Up to γ = 1 the two are mixed and nothing needs a mask. Where all that is plausible was cut away, the
    positive branch decides among it.
    """
    import torch

    if guidance.plain:
        return positive
    form = FORMS[guidance.form]
    if guidance.scale < 1 or not guidance.mask:
        return form(positive, negative, guidance.scale).log_softmax(-1)
    # A handful of the vocabulary: only they are combined. Found once, because each use of a mask looks for them anew.
    kept = plausible(positive, guidance.mask).nonzero(as_tuple=True)
    combined = torch.full_like(positive, -math.inf)
    combined[kept] = form(positive[kept], negative[kept], guidance.scale)
    nothing_left = combined.amax(-1, keepdim=True) == -math.inf
    if nothing_left.any():
        fallback = torch.full_like(positive, -math.inf)
        fallback[kept] = positive[kept]
        combined = combined.where(~nothing_left, fallback)
    return combined.log_softmax(-1)


# --- both branches of many answers in one batch ---


class Branches:
    """Rows being answered, each with one branch or two, side by side in one batch of one model.

    Holds what lives between steps: caches, padding, positions, and the logits of the next token of every branch.
    Branches are padded on the left; positions count a branch's own tokens, so neither rotary nor absolute
    positions notice the padding. `adapters` names the adapter of the positive and of the negative branches
    (BASE: none), all read in one mixed batch; without it, the model is as it is.
    """

    def __init__(self, model: Any, *, adapters: tuple[str, str] | None = None) -> None:
        inner = unwrapped(model)
        kinds = getattr(inner.config.get_text_config(decoder=True), "layer_types", None) or ()
        if getattr(inner, "_is_stateful", False) or RECURRENT.intersection(kinds):
            raise ModelError(
                f"a {inner.config.model_type} model keeps a recurrent state, which cannot skip a batch's padding; "
                "use a model with attention only"
            )
        self.model, self.device = (
            model.eval(),
            next(model.parameters()).device,
        )  # peft mixes only in eval mode
        self.guidance: list[Guidance] = []  # per row
        self._adapters = adapters
        self._known = forward_parameters(model)
        self._cache: Any = None
        self._mask: torch.Tensor  # (branches, time), 1 where a token stands
        self._logits: torch.Tensor  # (branches, vocab), float32
        self._arrange()

    def __len__(self) -> int:
        return len(self.guidance)

    def join(
        self,
        prompts: Sequence[Sequence[int]],
        negatives: Sequence[Sequence[int] | None],
        guidance: Sequence[Guidance],
    ) -> None:
        """New rows at the end; they are read now, the others stay as they are. None: the prompt itself."""
        import torch

        from forgetfilter.guide.caches import roomy

        fresh = Branches(self.model, adapters=self._adapters)
        fresh.guidance = list(guidance)
        fresh._arrange()
        branches: list[Sequence[int]] = []
        for prompt, negative, how in zip(prompts, negatives, guidance, strict=True):
            branches += [prompt] if how.plain else [prompt, prompt if negative is None else negative]
        if not all(branches):
            raise ValueError("an empty prompt gives the model nothing to go on: begin it with a start token")
        width = max(map(len, branches))
        gaps = [width - len(b) for b in branches]
        # Padding is masked out: any token does.
        ids = torch.tensor([[0] * gap + list(b) for gap, b in zip(gaps, branches, strict=True)])
        mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in gaps])
        fresh._cache = roomy()  # without a sliding window: its rows can be padded and joined
        fresh._mask = mask.to(self.device)
        fresh._read(ids.to(self.device), (fresh._mask.cumsum(-1) - 1).clamp(min=0))
        self._take_in(fresh)

    def scores(self) -> torch.Tensor:
        """What comes next, (rows, vocab): the guided log-probabilities; of an unguided row its plain logits."""
        if not self._groups:
            return self._logits
        logp = self._logits.log_softmax(-1)
        if len(self._groups) == 1 and len(logp) == 2 * len(self):  # all alike: nothing to sort out
            return combine(logp[::2], logp[1::2], self.guidance[0])
        scores = self._logits[self._positive]
        for guidance, (rows, positive, negative) in self._groups.items():
            scores[rows] = combine(logp[positive], logp[negative], guidance)
        return scores

    def advance(self, tokens: Sequence[int]) -> None:
        """Every branch of row i reads tokens[i]."""
        import torch

        ids = torch.tensor(tokens, device=self.device)[self._row_of]  # (branches,)
        positions = self._mask.sum(-1, keepdim=True)  # (branches, 1)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(ids), 1)], dim=1)
        self._read(ids[:, None], positions)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be named more than once. Both branches and caches follow."""
        import torch

        first = self._positive.tolist()
        branches = [b for r in rows for b in range(first[r], first[r] + 2 - self.guidance[r].plain)]
        self.guidance = [self.guidance[r] for r in rows]
        self._arrange()
        if not rows:
            self._cache = None
            return
        chosen = torch.tensor(branches, device=self.device)
        self._logits, self._mask = self._logits[chosen], self._mask[chosen]
        self._cache.batch_select_indices(chosen)
        spare = self._mask.shape[1] - int(self._mask.sum(-1).max())  # columns that only the others needed
        if spare:
            self._mask = self._mask[:, spare:]
            for layer in self._cache.layers:
                layer.drop_first(spare)

    def _read(self, ids: torch.Tensor, positions: torch.Tensor) -> None:
        import torch

        more: dict[str, Any] = {"position_ids": positions} if "position_ids" in self._known else {}
        if "logits_to_keep" in self._known:
            more["logits_to_keep"] = 1
        if self._adapters:
            more["adapter_names"] = [self._adapters[negative] for negative in self._is_negative]
        with torch.inference_mode():
            output = self.model(
                input_ids=ids, attention_mask=self._mask, past_key_values=self._cache, use_cache=True, **more
            )
        if getattr(output, "past_key_values", None) is None:
            raise ModelError(
                f"a {self.model.config.model_type} model keeps nothing of what it read, so it cannot write in a batch"
            )
        self._cache, self._logits = output.past_key_values, output.logits[:, -1].float()

    def _take_in(self, fresh: Branches) -> None:
        import torch
        from torch.nn.functional import pad

        if not self.guidance:
            self._cache, self._mask, self._logits = fresh._cache, fresh._mask, fresh._logits
        else:
            width = max(self._mask.shape[1], fresh._mask.shape[1])
            both = [pad(each._mask, (width - each._mask.shape[1], 0)) for each in (self, fresh)]
            for mine, new in zip(self._cache.layers, fresh._cache.layers, strict=True):
                mine.join(new)
            self._mask, self._logits = torch.cat(both), torch.cat([self._logits, fresh._logits])
        self.guidance += fresh.guidance
        self._arrange()

    def _arrange(self) -> None:
        """Where each row's branches stand: positive, then negative, row by row."""
        import torch

        positive: list[int] = []
        row_of: list[int] = []
        groups: dict[Guidance, list[int]] = {}
        for row, how in enumerate(self.guidance):
            positive.append(len(row_of))
            row_of += [row] if how.plain else [row, row]
            if not how.plain:
                groups.setdefault(how, []).append(row)
        self._is_negative = [b > 0 and row == row_of[b - 1] for b, row in enumerate(row_of)]
        self._positive = torch.tensor(positive, dtype=torch.long, device=self.device)
        self._row_of = torch.tensor(row_of, dtype=torch.long, device=self.device)
        self._groups = {
            how: (rows, self._positive[rows], self._positive[rows] + 1) for how, rows in groups.items()
        }


# --- writing answers ---


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
    negative: Sequence[int] | None = (
        None  # the negative branch's prompt; None: the same (guidance by adapter)
    )
    guidance: Guidance = field(default_factory=lambda: Guidance())
    limit: int = 256  # most tokens of the answer
    temperature: float = 0.0  # 0: the most likely token
    top_p: float = 1.0  # sample among the likeliest tokens that together reach this share
    seed: str = "0"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"temperature {self.temperature}: must be a number of at least 0")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p {self.top_p}: must be more than 0 and at most 1")


class Answer(NamedTuple):
    ids: list[int]
    finish: str  # stop: the model ended it; length: the limit did


class Draft:
    """An answer in the making: its tokens so far, its own randomness, and how it ended (None: it has not)."""

    def __init__(self, request: Request, sample: int = 0) -> None:
        self.request = request
        self.ids: list[int] = []
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


def write(
    branches: Branches, drafts: Sequence[AnyDraft], stop_ids: Collection[int]
) -> tuple[list[AnyDraft], list[int]]:
    """One more token for each draft. Returns the drafts that go on, which alone stay in `branches`, and their tokens:
    what `branches.advance` wants next."""
    tokens = choose(branches.scores(), drafts)
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

    `batch_tokens` bounds branches × (prompt + answer) of a batch and changes nothing but speed in float32. With
    `beams` > 1 the score of an answer is its guided log-probability per token, and temperature must be 0.
    `progress` is called after each batch with the requests done so far. The model is left in its mode.
    """
    import torch

    if samples < 1 or beams < 1 or (beams > 1 and samples > beams):
        raise ConfigError(f"{samples} samples of {beams} beams: at least 1 each, no more samples than beams")
    if beams > 1 and any(r.temperature > 0 for r in requests):
        raise ConfigError("beams look for the most likely answer: they go with temperature 0")
    stop_ids = frozenset(stop_ids)
    answers: list[list[Answer]] = [[] for _ in requests]
    width = max(samples, beams)
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


# --- conversations ---


def under(messages: Sequence[Message], opening: Sequence[Message]) -> tuple[Message, ...]:
    """The same conversation under another opening, which takes the place of its system message if it has one."""
    return (*opening, *messages[bool(messages) and messages[0].role == "system" :])


def prompt_ids(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: str = "auto",
    continued: bool = False,
) -> list[int]:
    """The conversation as the model reads it before it answers; `continued`: in the middle of its last turn."""
    turns = messages if continued else (*messages, Message("assistant", "x"))
    row = Row("", 0, "conversation", tuple(turns), "chat", {})
    encoded = encode([row], tokenizer, max_length=sys.maxsize, template=template)[0]
    end = encoded.prompt_length
    if continued:
        end = 1 + max((i for i, own in enumerate(encoded.scored) if own), default=end - 1)
    return encoded.ids[:end]


def prepare(
    messages: Sequence[Message],
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    guidance: Guidance,
    instruction: str | None = None,
    negative: str | Sequence[Message] | None = None,
    limit: int = 256,
    template: str = "auto",
    **drawing: Any,
) -> Request:
    """A conversation as a Request. A text, `instruction` or `negative`, is put in front of the conversation's own
    system message, as in training with both orientations, so that the branches differ in nothing else; negative
    messages take the place of that message; negative None leaves the negative branch the same prompt. `drawing`:
    temperature, top_p, seed.

    The limit is lowered to the room that the model's positions leave. Raises DataError where they leave none,
    ConfigError where the negative messages alone fill them.
    """
    prompt = prompt_ids(with_system(messages, instruction), tokenizer, template=template)
    other, against = None, with_system((), negative) if isinstance(negative, str) else negative
    if negative is not None and not guidance.plain:
        pushed = with_system(messages, negative) if isinstance(negative, str) else under(messages, negative)
        other = prompt_ids(pushed, tokenizer, template=template)
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None:
        if len(other or ()) > positions:
            alone = len(prompt_ids(against or (), tokenizer, template=template))
            if alone > positions:
                raise ConfigError(
                    f"the negative messages have {alone} tokens, but the model reads at most {positions}: shorten them"
                )
        for ids, what in (
            (prompt, "the conversation has"),
            (other or (), "with the negative messages it has"),
        ):
            if len(ids) > positions:
                raise DataError(
                    f"{what} {len(ids)} tokens, but the model reads at most {positions}: shorten "
                    + ("it" if ids is prompt else "either")
                )
        # The last token of an answer is never read back.
        limit = min(limit, positions + 1 - max(len(prompt), len(other or ())))
    return Request(prompt=prompt, negative=other, guidance=guidance, limit=limit, **drawing)


def load_adapter(model: Any, folder: Path) -> Any:
    """The model with the low-rank adapter of `folder`, named ADAPTER; ModelError where it is not of this base."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    from forgetfilter.models.load import quiet

    weights = folder / "adapter_model.safetensors"
    for path in (folder / "adapter_config.json", weights):
        if not path.is_file():
            raise ModelError(f"adapter {folder}: no {path.name} there; name the folder that peft saved")
    other_base = f"adapter {folder}: not an adapter of this base model"
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            adapted = PeftModel.from_pretrained(
                model, str(folder), adapter_name=ADAPTER, autocast_adapter_dtype=False
            )
        with safe_open(weights, framework="pt") as file:
            saved = set(file.keys())
    except (ValueError, RuntimeError, KeyError, TypeError, OSError, SafetensorError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ModelError(
            f"{other_base}: {(lines or [type(error).__name__])[min(1, len(lines) - 1)]}"
        ) from error
    if odd := saved ^ set(get_peft_model_state_dict(adapted, adapter_name=ADAPTER)):
        raise ModelError(
            f"{other_base}: {len(odd)} of its weights have no place or are missing, {min(odd)} first"
        )
    return adapted


# --- the command ---


def run_generate(
    name: str,
    guidance: Guidance,
    *,
    guide_by: str = "prompt",
    adapter: Path | None = None,
    system: str | None = None,
    negative: str | None = None,
    prompt: str | None = None,
    input: Path | None = None,
    output: Path | None = None,
    lines: Iterable[str] = (),
    samples: int = 1,
    beams: int = 1,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    show: Callable[[str], None],
    say: Callable[[str], None],
    **asking: Any,
) -> int:
    """Answer one prompt, a file of rows, or each of `lines`; `show` gets answers, `say` everything else.

    `guide_by` adapter: the positive branch has the adapter, the negative one does not. By prompt: POSITIVE stands
    in for a missing `system`, NEGATIVE for a missing `negative`; both go in front of a conversation's own system
    message. `asking`: limit, temperature, top_p, template. A row that cannot be answered is written with its
    reason and counted. Returns the exit code.
    """
    if prompt is not None and input is not None:
        raise ConfigError("--prompt and --input: give one of them")
    if (input is None) != (output is None):
        raise ConfigError("--input and --output go together: rows in, answers out")
    if output is not None and output.exists():
        raise ConfigError(f"{output}: stands there already and is not overwritten; name another file")
    if negative is not None and guidance.plain:
        raise ConfigError("--negative has no effect with --guidance 1; give a larger scale, such as 3")
    if guide_by == "adapter" and adapter is None:
        raise ConfigError("--guide-by adapter: name the adapter with --adapter")
    rows = _rows(input) if input else ()  # before the model, which takes longer

    from forgetfilter.models.load import load, quiet

    loaded = load(name, dtype=dtype, device=device)
    model = load_adapter(loaded.model, adapter) if adapter else loaded.model
    by_prompt = not guidance.plain and (guide_by == "prompt" or negative is not None)
    against = (NEGATIVE if negative is None else negative) if by_prompt else None
    instruction = POSITIVE if system is None and by_prompt else system
    if not guidance.plain:
        away_from = [repr(against)] * by_prompt
        away_from += ["the model without the adapter"] * (guide_by == "adapter")
        say(
            f"guidance {guidance.scale:g}, {guidance.form} form, mask {guidance.mask:g}, away from "
            + " and ".join(away_from)
        )

    def answers(conversations: Mapping[str, Sequence[Message]]) -> dict[str, list[Answer] | str]:
        """By id: the answers, or why there are none."""
        ready: dict[str, Request] = {}
        result: dict[str, list[Answer] | str] = {}
        for id, messages in conversations.items():
            try:
                with quiet():  # what is too long is said below
                    ready[id] = prepare(
                        messages, model, loaded.tokenizer, guidance=guidance, instruction=instruction,
                        negative=against, seed=f"{seed} {id}", **asking,
                    )  # fmt: skip
            except DataError as error:
                result[id] = str(error)
        made = generate(
            model,
            list(ready.values()),
            stop_ids=stop_ids(model, loaded.tokenizer),
            samples=samples,
            beams=beams,
            adapters=(ADAPTER, BASE) if guide_by == "adapter" else None,
        )
        return result | dict(zip(ready, made, strict=True))

    def text(answer: Answer) -> str:
        return str(loaded.tokenizer.decode(answer.ids, skip_special_tokens=True))

    if output is not None:
        return _write_answers(rows, answers({row.id: _asked(row) for row in rows}), text, output, say)
    for line in lines if prompt is None else [prompt]:
        if not line.strip():
            continue
        # Bytes that the terminal could not decode come as surrogates.
        if any("\ud800" <= character <= "\udfff" for character in line):
            raise DataError("the prompt is not UTF-8 text: convert it, or set the terminal to UTF-8")
        found = answers({line: [Message("user", line.strip())]})[line]
        if isinstance(found, str):
            if prompt is not None:
                raise DataError(found)
            say(f"not answered: {found}")
            continue
        for answer in found:
            show(text(answer))
    return DONE


def _rows(path: Path) -> Sequence[Row]:
    from forgetfilter.data import formats

    first = next(iter(formats.read_records(path)), {})
    only_prompts = "prompt" in first and "completion" not in first
    return formats.read(path, fields={"completion": "prompt"} if only_prompts else None).rows


def _asked(row: Row) -> tuple[Message, ...]:
    """A row without its last answer, which is the reference."""
    return row.messages[:-1] if row.messages and row.messages[-1].role == "assistant" else row.messages


def _write_answers(
    rows: Sequence[Row],
    found: Mapping[str, list[Answer] | str],
    text: Callable[[Answer], str],
    output: Path,
    say: Callable[[str], None],
) -> int:
    import json

    from forgetfilter.runs import atomic

    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic(output) as file, file.open("w", encoding="utf-8") as out:
        for row in rows:
            each = found[row.id]
            answered = [] if isinstance(each, str) else each
            record = {
                "row": row.index,
                "id": row.id,
                "prompt": row.prompt,
                "answers": [text(answer) for answer in answered],
                "finish": [answer.finish for answer in answered],
                "reason": each if isinstance(each, str) else None,
            }
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
    missing = [row for row in rows if isinstance(found[row.id], str)]
    say(f"{output}: {len(rows) - len(missing)} of {len(rows)} rows answered")
    if missing:
        say(f"row {missing[0].index} was not: {found[missing[0].id]}")
    return DONE


FORMS: dict[str, Callable[[Any, Any, float], Any]] = {"probability": probability_form, "log": log_form}
