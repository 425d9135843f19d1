"""What the original model makes of each row before anything is learned: mean hidden states, one forward pass.

Two readings of a row: its *answer*, at several depths, and what its *user asked*, at one. Rows with like answers say
like things; rows with like questions are of one kind; whether an answer is unsafe may hang on both.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter import runs
from forgetfilter.data.overlap import common_to_all
from forgetfilter.filter.signals import refuse_overflow
from forgetfilter.models.batches import length_batches
from forgetfilter.models.rendering import Encoded
from forgetfilter.records import Row

if TYPE_CHECKING:
    import torch

ANSWER_DEPTHS = (0.4, 2 / 3, 14 / 15)  # of the layers: 12, 20 and 28 of 30
QUESTION_DEPTH = 2 / 3
FEWEST_WORDS = 8  # tokens of the user; a shorter question is read together with its answer


@dataclass(frozen=True, slots=True)
class Readings:
    """Of rows in order, as the model gives them: not centred, not scaled."""

    answer: np.ndarray  # (rows, depths * width) float32, mean over the scored tokens
    question: np.ndarray  # (rows, width) float32, mean over the user's own words
    brief: (
        np.ndarray
    )  # (rows,) bool, the user said so little that the question is read together with its answer

    def both(self) -> np.ndarray:
        """Answer and question side by side, (rows, (depths + 1) * width)."""
        return np.concatenate([self.answer, self.question], 1)

    def and_then(self, other: Readings) -> Readings:
        """These rows, then those of `other`."""
        parts = ((getattr(self, part), getattr(other, part)) for part in Readings.__slots__)
        return Readings(*(np.concatenate(pair) for pair in parts))


def read_rows(
    model: Any,
    rows: Sequence[Encoded],
    *,
    pad_id: int = 0,
    words: Sequence[tuple[int, int]] | None = None,
    batch_tokens: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Readings:
    """Hidden states of `rows` in the model's present state, in order; batches of like length.

    `batch_tokens` as of `token_memory`.

    What all prompts of `rows` share at their beginning and end (a system turn, an instruction template) is not
    read as the user's words: give the rows of one file at a time, or some of them with the `words` (see `users_words`)
    that were found in all. A row without scored tokens reads as zeros. ModelError where the model's numbers overflow.
    """
    import torch

    from forgetfilter.training import memory as room
    from forgetfilter.training.attention import measuring
    from forgetfilter.training.finetune import collate_right
    from forgetfilter.training.prefix import read_prefix

    spans = users_words(rows) if words is None else words
    depth, width = model.config.num_hidden_layers, model.config.hidden_size
    layers = [max(1, round(share * depth)) for share in ANSWER_DEPTHS]
    asked_at = max(1, round(QUESTION_DEPTH * depth))
    answer = np.zeros((len(rows), len(layers) * width), np.float32)
    question = np.zeros((len(rows), width), np.float32)
    device, done = next(model.parameters()).device, 0
    with measuring(model) as attend:

        def read(batch: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
            collated = collate_right([rows[i] for i in batch], pad_id)
            inputs = {name: each.to(device) for name, each in collated.items()}
            attend(inputs["input_ids"].shape[1])
            places = [
                [np.flatnonzero(rows[i].scored) for i in batch],
                [np.arange(*spans[i]) for i in batch],
            ]
            first = min((int(at[0]) for part in places for at in part if len(at)), default=0)
            with torch.inference_mode():
                shared, rest = read_prefix(model, inputs, first, output_hidden_states=True)
                states = model.get_decoder()(**rest).hidden_states  # layers + 1 of (batch, time, width)
                said, asked = (_weights([at - shared for at in part], states[0].shape[1]) for part in places)
                answers = np.concatenate([_mean(states[layer], said) for layer in layers], 1)
                return answers, _mean(states[asked_at], asked)

        batches = length_batches([len(r.ids) for r in rows], batch_tokens or room.reading_room(model))
        for batch, found in room.halving(batches, read, lambda i: len(rows[i].ids)):
            answer[batch], question[batch] = found
            done += len(batch)
            if progress:
                progress(done)
    refuse_overflow((answer, question))
    brief = np.array([last > row.prompt_length for row, (_, last) in zip(rows, spans, strict=True)], bool)
    return Readings(answer, question, brief)


def kept_or_read(
    rows: Sequence[Row],
    model: str,
    path: Path,
    *,
    max_length: int,
    device: str = "auto",
    quantization: str = "none",
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Answer and question (rows, width) as `Readings.both`: kept in `path` (see `kept`), else read and kept there."""
    from forgetfilter.models import load, rendering

    how = key_of(
        [row.id for row in rows], load.fingerprint(model), max_length=max_length, device=device,
        quantization=quantization,
    )  # fmt: skip
    found = kept(path, how)
    if found is None:
        loaded = load.load(model, device=device, quantization=quantization)
        encoded = rendering.encode(rows, loaded.tokenizer, max_length=max_length)
        found = read_rows(
            loaded.model, encoded, pad_id=loaded.tokenizer.pad_token_id or 0, progress=progress
        ).both()
        keep(path, how, found)
    return found


def key_of(
    ids: Sequence[str], fingerprint: str, *, max_length: int, template: str = "auto", dtype: str = "auto",
    device: str = "auto", quantization: str = "none",
) -> str:  # fmt: skip
    """What the states of rows depend on: the rows by their ids, the model, and how it reads them."""
    from forgetfilter.models.hardware import precision, usable_device

    read_as = precision(dtype, usable_device(device))
    return runs.sha256_of(
        [
            fingerprint,
            str(max_length),
            template,
            str(read_as),
            quantization,
            str((ANSWER_DEPTHS, QUESTION_DEPTH)),
            *ids,
        ]
    )


def keep(path: Path, key: str, states: np.ndarray) -> None:
    """Write states for `kept`."""
    with runs.atomic(path) as unfinished:
        np.savez(unfinished, key=np.array(key), both=states)


def kept(path: Path, key: str) -> np.ndarray | None:
    """Answer and question (rows, width) float32 in a file; None where there are none with this key."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            return found["both"].astype(np.float32) if str(found["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # absent, or damaged: read again


def users_words(rows: Sequence[Encoded], beside: Sequence[Encoded] = ()) -> list[tuple[int, int]]:
    """Per row the tokens (first, one past the last) of its prompt without what all prompts share at either end.

    `beside` are rows that these are compared with: what all their prompts share is no user's word here either. Else one
    row of these without the instruction that all the others have would make it a part of every question here alone.
    """
    frames = [frame(some) for some in (rows, beside) if some]
    spans = []
    for row in rows:
        prompt = list(row.ids[: row.prompt_length])
        first = max((len(start) for start, _ in frames if prompt[: len(start)] == start), default=0)
        last = len(prompt) - max(
            (len(end) for _, end in frames if prompt[len(prompt) - len(end) :] == end), default=0
        )
        spans.append((first, last) if last - first >= FEWEST_WORDS else (min(first, last), len(row.ids)))
    return spans


def frame(rows: Sequence[Encoded]) -> tuple[list[int], list[int]]:
    """Tokens that the prompts of all rows begin with, and those that they end with.

    Rows that were cut to length may have lost what they share with the others: they have no say in it.
    """
    whole = [r.ids[: r.prompt_length] for r in rows if not r.truncated]
    if len(whole) < 2:
        whole = [r.ids[: r.prompt_length] for r in rows]
    if len(whole) < 2:  # one alone shares nothing
        return [], []
    head = common_to_all(whole)
    tail = common_to_all([p[head:][::-1] for p in whole])
    return list(whole[0][:head]), list(whole[0][len(whole[0]) - tail :])


def _weights(places: Sequence[np.ndarray], time: int) -> torch.Tensor:
    """(batch, time) float32: 1 / count at each place, so that a product with the states is their mean."""
    import torch

    weights = torch.zeros(len(places), time)
    for b, at in enumerate(places):
        weights[b, at] = 1 / max(1, len(at))
    return weights


def _mean(states: torch.Tensor, weights: torch.Tensor) -> np.ndarray:
    """(batch, time, width) and (batch, time) -> (batch, width)."""
    return (weights.to(states.device)[:, None] @ states.float()).squeeze(1).cpu().numpy()


def standardised(values: np.ndarray) -> np.ndarray:
    """Each column with mean 0 and variance 1; a constant column is 0."""
    return (values - values.mean(0)) / (values.std(0) + 1e-3)
