"""A model's head at exactly the positions that are asked for, a chunk of them at a time.

The logits of a batch are its largest tensor by far: of 16 rows of 1,000 tokens with a vocabulary of 49,152 they are
3 GB in float32, and training holds three of their kind. Only the tokens that are learned or scored need any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from forgetfilter.training.prefix import read_prefix

if TYPE_CHECKING:
    import torch

CHUNK = {"cpu": 32 << 20, "cuda": 512 << 20}  # bytes of float32 logits held at once


def summed_cross_entropy(
    model: Any, inputs: Mapping[str, torch.Tensor], wanted: torch.Tensor
) -> torch.Tensor:
    """Sum of the cross-entropy, nats, of the tokens that are `wanted` (batch, time) of `inputs`; a float32 scalar.

    The first token of a row stands behind nothing and is never wanted.
    """
    import torch

    hidden, logits = _read(model, inputs, wanted)
    target = inputs["input_ids"][wanted]
    if logits is not None:
        return torch.nn.functional.cross_entropy(logits.float(), target, reduction="sum")
    return _chunked_cross_entropy().apply(hidden, _head(model).weight, target)


def logits_of(model: Any, inputs: Mapping[str, torch.Tensor], wanted: torch.Tensor) -> Iterator[torch.Tensor]:
    """The float32 logits that predict the `wanted` tokens, row by row, in chunks of (tokens, vocabulary)."""
    hidden, logits = _read(model, inputs, wanted)
    if logits is not None:
        yield logits.float()
        return
    head = _head(model)
    for chunk in hidden.split(_chunk(head.weight)):
        yield head(chunk).float()


def _read(
    model: Any, inputs: Mapping[str, torch.Tensor], wanted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What the head is given for the `wanted` tokens (tokens, width); and its logits, where they have to be whole.

    The model runs as it always does, wrapped or not; only what reaches its head is chosen. Where the head is one plain
    product, it gets a single token, and what the model makes of that tells whether anything comes after the head.
    """
    import torch

    head, taken = _head(model), []
    before = torch.zeros_like(wanted)
    before[:, :-1] = wanted[:, 1:]  # a token is predicted one position earlier
    shared, rest = read_prefix(model, inputs, int(before.any(0).long().argmax()))
    before = before[:, shared:]
    plain = type(head) is torch.nn.Linear and head.bias is None and not getattr(model, "_more_than_head", 0)

    def choose(module: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        taken.append(given[0][before])  # (tokens, width)
        chosen = taken[0][:1].detach() if plain else taken[0]
        return (chosen[None], *given[1:])

    hook = head.register_forward_pre_hook(choose)
    try:
        logits = model(**rest).logits[0]  # (tokens or 1, vocabulary)
    finally:
        hook.remove()
    hidden = taken[0]
    if not plain:
        return hidden, logits
    with torch.no_grad():
        is_all = hidden.dtype == head.weight.dtype and torch.equal(logits, head(hidden[:1]).to(logits.dtype))
    if is_all:
        return hidden, None
    model._more_than_head = True  # a cap or a scale of the logits: the model's own it is, from now on
    return _read(model, inputs, wanted)


def _head(model: Any) -> Any:
    inner = model.module if hasattr(model, "no_sync") else model  # several processes wrap the model once more
    return inner.get_output_embeddings()


def _chunk(weight: torch.Tensor) -> int:
    """How many tokens' logits are held at once."""
    return max(1, CHUNK.get(weight.device.type, CHUNK["cuda"]) // (4 * weight.shape[0]))


@cache
def _chunked_cross_entropy() -> Any:
    import torch

    class ChunkedCrossEntropy(torch.autograd.Function):
        """Head and loss in one: the gradient is known as soon as a chunk's logits are, and they need not be kept."""

        @staticmethod
        def forward(
            ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, target: torch.Tensor
        ) -> torch.Tensor:
            total = hidden.new_zeros((), dtype=torch.float32)
            learns, learns_head = ctx.needs_input_grad[:2]
            d_hidden = torch.empty_like(hidden) if learns else None
            # Sums over chunks in float32: bfloat16 would round each of them.
            d_weight = torch.zeros_like(weight, dtype=torch.float32) if learns_head else None
            size = _chunk(weight)
            for i in range(0, len(hidden), size):
                part, truth = hidden[i : i + size], target[i : i + size, None]
                logits = (part @ weight.T).float()  # (tokens, vocabulary)
                norm = logits.logsumexp(1, keepdim=True)
                total += (norm - logits.gather(1, truth)).sum()
                if not (learns or learns_head):
                    continue
                error = logits.sub_(norm).exp_()  # probabilities
                error.scatter_add_(1, truth, error.new_full(truth.shape, -1.0))
                error = error.to(hidden.dtype)
                if d_hidden is not None:
                    torch.mm(error, weight, out=d_hidden[i : i + size])
                if d_weight is not None:
                    d_weight += error.T @ part
            d_weight = None if d_weight is None else d_weight.to(weight.dtype)
            ctx.save_for_backward(d_hidden, d_weight)
            return total

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, d_total: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            return *(None if d is None else d * d_total.to(d.dtype) for d in ctx.saved_tensors), None

    return ChunkedCrossEntropy
