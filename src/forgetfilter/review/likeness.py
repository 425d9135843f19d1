"""Rows of a run that say nearly the same as a dropped one, found while somebody looks at the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from forgetfilter.data.sketches import Sketches, said
from forgetfilter.errors import ForgetfilterError
from forgetfilter.review.run_files import DROP, RunFiles

QUIET = 0.2  # seconds without a request before the search goes on


@dataclass(slots=True)
class Twins:
    """Near-duplicates across the cut, found in the background. `share` is how much is done, 0 to 1."""

    share: float = 0.0
    kept_like: dict[int, list[int]] = field(
        default_factory=dict
    )  # dropped row -> rows like it that were not dropped
    dropped_like: dict[int, list[int]] = field(default_factory=dict)  # the other way round
    stop: threading.Event = field(default_factory=threading.Event)
    asked: float = 0.0  # when the page last asked for something, by the monotonic clock

    def stand_aside(self) -> None:
        """Whoever looks at the page comes first."""
        while not self.stop.is_set() and time.monotonic() - self.asked < QUIET:
            self.stop.wait(QUIET)
        self.stop.wait(0.001)


def search(run: RunFiles, twins: Twins, say: Callable[[str], None]) -> None:
    """`find` in a thread of its own; rows that cannot be read are said."""
    try:
        if run.data.format:
            find(run, twins)
        else:
            twins.share = 1.0
            say("no format fits the rows: they are shown as they stand, near-duplicates are not looked for")
    except ForgetfilterError as error:
        say(f"near-duplicates are not looked for: {error}")


def find(run: RunFiles, twins: Twins) -> None:
    """Fill `twins` in; ends early when it is told to stop."""
    sketches = Sketches()
    dropped = run.decision == DROP
    wanted = np.flatnonzero(dropped)
    for done, (number, text) in enumerate(_texts(run, wanted, twins)):
        sketches.add(number, text)
        twins.share = done / len(run)
    for done, (number, text) in enumerate(_texts(run, np.flatnonzero(~dropped), twins), start=len(wanted)):
        for other in sketches.like(text):
            twins.kept_like.setdefault(other, []).append(number)
            twins.dropped_like.setdefault(number, []).append(other)
        twins.share = done / len(run)
    twins.share = 1.0 if not twins.stop.is_set() else twins.share


def _texts(run: RunFiles, numbers: np.ndarray, twins: Twins) -> Iterator[tuple[int, str]]:
    for place, number in enumerate(numbers.tolist()):
        if twins.stop.is_set():
            return
        if place % 10 == 0:
            twins.stand_aside()
        row = run.peek(number)
        yield number, said(row) if row else ""
