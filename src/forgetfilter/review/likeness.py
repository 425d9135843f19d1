"""Rows that say nearly the same as a dropped one, by MinHash (Broder 1997) over triples of words."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import nsmallest
from zlib import crc32

import numpy as np

from forgetfilter.errors import ForgetfilterError
from forgetfilter.records import Row
from forgetfilter.review.run_files import DROP, RunFiles

SKETCH = 16  # smallest hashes kept of a row
ALIKE = 0.6  # share of the smallest hashes of both rows together that both have
QUIET = 0.2  # seconds without a request before the search goes on
COMMON = 64  # dropped rows with one hash: more say that it belongs to a template
LONGEST = 20_000  # characters of a row that are compared
WORD = re.compile(r"\w+")


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


def sketch(text: str) -> list[int]:
    """The smallest hashes of a text's word triples, ascending; case, punctuation and digits aside."""
    words = ["0" if w.isdigit() else w for w in WORD.findall(text[:LONGEST].casefold())]
    triples = {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))} if words else set()
    return nsmallest(SKETCH, {crc32(t.encode("utf-8", "surrogatepass")) for t in triples})


def alike(one: list[int], other: list[int]) -> float:
    """An estimate of the share of word triples that two texts have in common, 0 to 1."""
    together = nsmallest(SKETCH, {*one, *other})
    both = set(one) & set(other)
    return sum(h in both for h in together) / len(together) if together else 0.0


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
    sketches: dict[int, list[int]] = {}
    having: defaultdict[int, list[int]] = defaultdict(list)
    dropped = run.decision == DROP
    wanted = np.flatnonzero(dropped)
    for done, (number, text) in enumerate(_texts(run, wanted, twins)):
        sketches[number] = sketch(text)
        for value in sketches[number]:
            if len(having[value]) <= COMMON:
                having[value].append(number)
        twins.share = done / len(run)
    for done, (number, text) in enumerate(_texts(run, np.flatnonzero(~dropped), twins), start=len(wanted)):
        mine = sketch(text)
        shared = Counter(d for h in mine if len(having.get(h, ())) <= COMMON for d in having.get(h, ()))
        for other, _ in shared.most_common(3):
            if alike(mine, sketches[other]) >= ALIKE:
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


def said(row: Row) -> str:
    """Everything that stands in a row's turns."""
    return "\n".join(message.content for message in row.messages)
