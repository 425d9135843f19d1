"""Rows that say nearly the same, by MinHash (Broder 1997) over triples of words."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from heapq import nsmallest
from zlib import crc32

from forgetfilter.records import Row

SKETCH = 16  # smallest hashes kept of a row
ALIKE = 0.6  # share of the smallest hashes of both rows together that both have
COMMON = 64  # rows with one hash: more say that it belongs to a template
LONGEST = 20_000  # characters of a row that are compared
WORD = re.compile(r"\w+")


@dataclass(slots=True)
class Sketches:
    """Rows to be found again by what they say."""

    _of: dict[int, list[int]] = field(default_factory=dict)  # row -> its sketch
    _having: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, number: int, text: str) -> None:
        """One more row to be found."""
        self._of[number] = sketch(text)
        for value in self._of[number]:
            if len(self._having[value]) <= COMMON:
                self._having[value].append(number)

    def like(self, text: str) -> list[int]:
        """Up to three rows that say nearly the same as this text."""
        mine, having = sketch(text), self._having
        shared = Counter(n for h in mine if len(having.get(h, ())) <= COMMON for n in having.get(h, ()))
        return [n for n, _ in shared.most_common(3) if alike(mine, self._of[n]) >= ALIKE]


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


def said(row: Row) -> str:
    """Everything that stands in a row's turns."""
    return "\n".join(message.content for message in row.messages)
