"""How many tokens go through a model at once: as memory allows, and half of them where that was too many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from forgetfilter import ranks
from forgetfilter.errors import ForgetfilterError

READ_ON_CPU = (
    4096  # tokens of a batch that is read, padding included: more are no faster; pieces are of such batches
)
READ_ON_GPU = 16384
USED = 0.8  # of what is free: estimates are not exact, and freed blocks lie apart


@dataclass(slots=True)
class Room:
    """How many tokens, padding included, one part of a training batch may have."""

    tokens: float


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a batch did not fit, on a GPU or on a CPU."""
    import torch

    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in said for words in ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED"))
    )


def learning_room(model: Any) -> Room:
    """What fits while learning, by the memory that is free on the model's GPU; a CPU learns batches as they are.

    A decoder keeps for each token and layer about ten vectors of its width and four of its inner width. The optimiser
    keeps three numbers in float32 for each weight that is learned, beside the gradient.
    """
    weight = next(model.parameters())
    config = model.config.get_text_config(decoder=True)
    if weight.device.type != "cuda" or not getattr(config, "hidden_size", None):
        return Room(float("inf"))
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    a_token = config.num_hidden_layers * (10 * config.hidden_size + 4 * inner) * weight.itemsize
    learned = sum(p.numel() * (12 + p.itemsize) for p in model.parameters() if p.requires_grad)
    return Room(max(1.0, (USED * _free(weight.device) - learned) / a_token))


def reading_room(model: Any) -> int:
    """Tokens of a batch that is read without learning, padding included."""
    weight = next(model.parameters())
    if weight.device.type != "cuda":
        return READ_ON_CPU
    config = model.config.get_text_config(decoder=True)
    width = getattr(config, "hidden_size", None) or 4096
    depth = getattr(config, "num_hidden_layers", None) or 32
    inner = getattr(config, "intermediate_size", None) or 4 * width
    # The states of all layers, where they are asked for, and what one layer computes with.
    a_token = (depth * width + 16 * width + 4 * inner) * weight.itemsize
    return int(min(READ_ON_GPU, max(READ_ON_CPU, USED * _free(weight.device) / a_token)))


def _free(device: Any) -> int:
    """Bytes that can still be had on a GPU: what nobody holds, and what PyTorch holds for later."""
    import torch

    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def halving(
    batches: Iterable[Sequence[int]], work: Callable[[Sequence[int]], Any], tokens: Callable[[int], int]
) -> Iterator[tuple[Sequence[int], Any]]:
    """Each batch and what `work` makes of it; where one does not fit into memory, it and all later ones in halves.

    Batches are of places of rows. ForgetfilterError where a single row does not fit; `tokens` says how long it is.
    """
    left = [*batches][::-1]
    while left:
        batch, made, fits = left.pop(), None, True
        try:
            made = work(batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise no_room(tokens(batch[0])) from error
            fits = False
        if fits:
            yield batch, made
            continue
        release()  # outside of `except`: the error holds what the batch had computed
        left = [half for other in [*left, batch] for half in _halves(other)[::-1]]


def _halves(batch: Sequence[int]) -> list[Sequence[int]]:
    middle = (len(batch) + 1) // 2
    return [part for part in (batch[:middle], batch[middle:]) if len(part)]


def cut(parts: Iterable[Sequence[Any]], room: Room) -> list[Sequence[Any]]:
    """The rows of each part, in order, in as few equal pieces as have room; one row may be longer."""
    pieces: list[Sequence[Any]] = []
    for rows in parts:
        longest = max(len(r.ids) for r in rows)
        at_once = max(1, min(len(rows), int(min(room.tokens, 1 << 60)) // longest))
        count = -(-len(rows) // at_once)
        bounds = [len(rows) * i // count for i in range(count + 1)]
        pieces += [rows[a:b] for a, b in pairwise(bounds)]
    return pieces


def smaller_parts(parts: Sequence[dict[str, Any]], room: Room) -> list[dict[str, Any]]:
    """The parts of a step that ran out of memory, in halves, each with its share of the loss; `room` shrinks to them.

    A part is as `finetune` makes it: tensors of (rows, time), and its `share` by the tokens it learns.
    ForgetfilterError where the largest is a single row.
    """
    largest = max((part["input_ids"] for part in parts), key=lambda ids: ids.numel())
    room.tokens = largest.numel() / 2
    made: list[dict[str, Any]] = []
    for part in parts:
        rows = len(part["input_ids"])
        if part["input_ids"].numel() <= room.tokens or rows == 1:
            made.append(part)
            continue
        whole = float(part["learned"][:, 1:].sum())
        for at in (slice(0, (rows + 1) // 2), slice((rows + 1) // 2, rows)):
            half = {k: v[at] for k, v in part.items() if k in ("input_ids", "attention_mask", "learned")}
            made.append(half | {"share": part["share"] * float(half["learned"][:, 1:].sum()) / whole})
    if len(made) == len(parts):
        raise no_room(largest.shape[1])
    return made


def room_to_halve(parts: Sequence[dict[str, Any]], room: Room | None, error: BaseException) -> Room:
    """`room`, or ForgetfilterError where a step that ran out of memory cannot be taken in smaller parts."""
    longest = max(part["input_ids"].shape[1] for part in parts)
    largest = max(len(part["input_ids"]) for part in parts)
    if room is None or ranks.size() > 1:
        raise ForgetfilterError(
            f"out of memory with {largest} rows of {longest} tokens at once. Lower --per-device-train-batch-size or "
            "--max-length, or hold the model in 4 bits (--quantization nf4). What is finished is kept: the same "
            "command resumes"
        ) from error
    return room


def no_room(tokens: int) -> ForgetfilterError:
    return ForgetfilterError(
        f"out of memory with a single row of {tokens} tokens. Lower --max-length, take a smaller model, or hold it in "
        "4 bits (--quantization nf4). What is finished is kept: the same command resumes"
    )


def release() -> None:
    """Give back what PyTorch holds for later."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
