"""How likely a model holds a text that is already there: guided log-probabilities of its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from forgetfilter.guide.decoding import Kept, Request, kept
from forgetfilter.guide.guidance import combine
from forgetfilter.models.architecture import cache_name, forward_parameters

if TYPE_CHECKING:
    import torch

PIECE = 256  # tokens read at once: it bounds the memory that a whole vocabulary for each takes


def likelihood(
    model: Any, request: Request, count: int, *, adapters: tuple[str, str] | None = None
) -> list[Kept | None]:
    """The log-probability of each of the last `count` tokens of the request's prompt, given all before it, with the
    `request.top` likeliest ones beside it. Both branches end in these tokens. None: nothing stands before the first.
    """
    import torch

    negative = request.prompt if request.negative is None else request.negative
    text = list(request.prompt[len(request.prompt) - count :])
    shortest = min(len(request.prompt), len(negative) if not request.guidance.plain else len(request.prompt))
    first = max(0, count + 1 - shortest)  # how many have nothing before them
    names = adapters or (None, None)
    read: list[Kept | None] = [None] * first
    with torch.inference_mode():
        ways = [_pieces(model, request.prompt, count - first, names[0])]
        if not request.guidance.plain:
            ways.append(_pieces(model, negative, count - first, names[1]))
        for logp in zip(*ways, strict=True):  # of a piece, under each branch: (time, vocab)
            guided = logp[0] if len(logp) == 1 else combine(*logp, request.guidance)
            tokens = text[len(read) : len(read) + len(guided)]
            read += kept(guided, tokens, request.top or 0)
    return read


def _pieces(model: Any, ids: Sequence[int], count: int, adapter: str | None) -> Iterator[torch.Tensor]:
    """Log-probabilities of what follows, piece by piece, where the last `count` tokens are to be predicted."""
    import torch

    device, known = next(model.parameters()).device, forward_parameters(model)
    cache: Any = None

    def read(start: int, end: int, keep: int) -> torch.Tensor:
        nonlocal cache
        more: dict[str, Any] = {cache_name(model): cache}
        if "logits_to_keep" in known:
            more["logits_to_keep"] = keep
        if "position_ids" in known:
            more["position_ids"] = torch.arange(start, end, device=device)[None]
        if adapter:
            more["adapter_names"] = [adapter]
        output = model(input_ids=torch.tensor([ids[start:end]], device=device), use_cache=True, **more)
        cache = getattr(output, cache_name(model))
        return output.logits[0, -keep:].float().log_softmax(-1)

    at = len(ids) - count - 1  # the last token before them
    for start in range(0, at, PIECE):
        read(start, min(at, start + PIECE), 1)
    for start in range(at, len(ids) - 1, PIECE):
        end = min(len(ids) - 1, start + PIECE)
        yield read(start, end, end - start)
