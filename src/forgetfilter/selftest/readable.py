"""Is there text that the original model cannot read, a cipher for instance? Forward passes; nothing is trained.

A language that a model knows costs it about one nat a letter. A cipher costs three and more, whatever it says, and so
do random strings. A row counts as unreadable by its worst turn, in nats per byte of letters and digits: short tokens,
other scripts and punctuation count as what they are. Addresses, handles and tags are left out: nobody reads those.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from forgetfilter.filter.signals import token_memory
from forgetfilter.models.rendering import Encoded, encode
from forgetfilter.records import Row

ADDRESS = re.compile(r"(?:https?://|www\.)\S+|[@#]\w+|&#?\w+;")


@dataclass(frozen=True, slots=True)
class Constants:
    """Chosen on the sets that benchmarks/README.md names for choosing; the table is in benchmarks/RESULTS.md."""

    fewest_bytes: int = 24  # of a turn: a label or a name is unlikely without being unreadable
    quantile: float = 0.99  # of rows known to be readable: what lies above is odd
    times: float = (
        1.35  # that, from which a row is unreadable: clean posts go up to 1.33 times, ciphers begin at 1.37
    )


CONSTANTS = Constants()


def nats(
    model: Any, tokenizer: Any, rows: Sequence[Row], *, max_length: int, template: str,
    progress: Callable[[int], None] | None = None,
) -> dict[str, float]:  # fmt: skip
    """Row id -> nats per byte of its worst turn, by the model in its present state. Rows whose turns are all too short
    to tell are left out."""
    every_turn = [replace(row, scored=(True,) * len(row.messages)) for row in rows]
    read = encode(every_turn, tokenizer, max_length=max_length, template=template)
    memories = token_memory(model, read, pad_id=tokenizer.pad_token_id or 0, progress=progress)
    found = {}
    for row, memory in zip(read, memories, strict=True):
        costs = turn_costs(row, memory.logp, tokenizer)
        if costs:
            found[row.id] = max(costs)
    return found


def turn_costs(row: Encoded, logp: np.ndarray, tokenizer: Any) -> list[float]:
    """Nats per byte of each turn that is long enough; `logp` (scored tokens,)."""
    places = [i for i in range(1, len(row.ids)) if row.scored[i]]
    of_token: Mapping[int, float] = dict(zip(places, logp.tolist(), strict=False))
    costs = []
    for turn in turns(row, places):
        said = [str(tokenizer.decode([row.ids[i]])) for i in turn]
        sizes = _readable_bytes(said)
        if sum(sizes) >= CONSTANTS.fewest_bytes:
            costs.append(-sum(of_token[i] for i, size in zip(turn, sizes, strict=True) if size) / sum(sizes))
    return costs


def turns(row: Encoded, places: Sequence[int]) -> list[list[int]]:
    """`places` of scored tokens in runs: neighbours on the same side of the border between question and answer."""
    found: list[list[int]] = []
    for i in places:
        if found and found[-1][-1] == i - 1 and row.learned[i] == row.learned[i - 1]:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def _readable_bytes(tokens: Sequence[str]) -> list[int]:
    """Per token its bytes of letters and digits that belong to no address."""
    text = "".join(tokens)
    counted = [c.isalnum() for c in text]
    for found in ADDRESS.finditer(text):
        counted[found.start() : found.end()] = [False] * len(found[0])
    sizes, at = [], 0
    for token in tokens:
        sizes.append(
            sum(
                len(c.encode("utf-8", "replace"))
                for c, c_counts in zip(token, counted[at:], strict=False)
                if c_counts
            )
        )
        at += len(token)
    return sizes


def limit(known: Sequence[float]) -> float:
    """Nats per byte from which a row is unreadable, by rows `known` to be ordinary text."""
    return CONSTANTS.times * float(np.quantile(known, CONSTANTS.quantile))
