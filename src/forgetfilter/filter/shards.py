"""Rows measured in pieces, each kept as soon as it is done, by one process or several.

The pieces follow from the rows alone. So a run that was cut off goes on at the next piece, with however many
processes, and what is measured does not depend on how many there were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter import ranks, runs
from forgetfilter.errors import ForgetfilterError
from forgetfilter.models.batches import length_batches

MOST_BATCHES = 16  # of a piece: at most this much work is lost
FEWEST_PIECES = 32  # where there are batches enough: as many processes can share them evenly

Columns = Mapping[str, np.ndarray]  # arrays; those of one value per row begin with the rows


def pieces(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Places of the rows, shortest first, in pieces of whole batches."""
    batches = length_batches(lengths, batch_tokens)
    size = min(MOST_BATCHES, max(1, len(batches) // FEWEST_PIECES))
    return [[i for b in batches[k : k + size] for i in b] for k in range(0, len(batches), size)]


def measure(
    folder: Path,
    ids: Sequence[str],
    parts: Sequence[Sequence[int]],
    work: Callable[[Sequence[int]], Columns],
    progress: Callable[[int], None],
) -> None:
    """Have `work` measure each of `parts`, places of rows, and keep what it gives in `folder`; all are there after.

    `progress` is called with the rows done so far; of several processes with an estimate.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = set(ranks.led(lambda: [n for n in range(len(parts)) if _path(folder, n).is_file()]))
    todo = [n for n in range(len(parts)) if n not in there]
    done = sum(len(parts[n]) for n in there)
    for n in todo[ranks.rank() :: ranks.size()]:
        found: dict[str, Any] = dict(work(parts[n]))
        with runs.atomic(_path(folder, n)) as path:
            np.savez(path, ids=np.array([ids[i] for i in parts[n]]), **found)
        done += len(parts[n]) * ranks.size()
        progress(min(done, len(ids)))
    ranks.wait()


def kept(folder: Path, ids: Sequence[str], parts: Sequence[Sequence[int]]) -> Iterator[Columns]:
    """What `measure` kept of each of `parts`. ForgetfilterError where a file is of other rows."""
    for n, places in enumerate(parts):
        path = _path(folder, n)
        with np.load(path, allow_pickle=False) as saved:
            columns = {name: saved[name] for name in saved.files}
        if columns.pop("ids").tolist() != [ids[i] for i in places]:
            raise ForgetfilterError(
                f"{path}: measurements of other rows lie there; remove the folder {folder}, and the same command "
                "measures anew"
            )
        yield columns


def _path(folder: Path, n: int) -> Path:
    return folder / f"piece-{n:05}.npz"
