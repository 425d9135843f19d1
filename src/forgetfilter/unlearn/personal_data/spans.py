"""What a detector gives, how findings are joined, and how they are masked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple


class Span(NamedTuple):
    """A piece of personal data: `value` is `text[start:end]`, `how` begins with a word of CERTAINTY."""

    start: int
    end: int
    kind: str
    value: str
    how: str


Detector = Callable[[str], list[Span]]

# From certain to guessed: which of two findings of equal length names the kind.
CERTAINTY = ("known", "checksum", "pattern", "fuzzy", "model", "context")


def merged(text: str, spans: Iterable[Span]) -> list[Span]:
    """Spans in order of place; those that overlap are one, from the first's start to the last's end.

    Its kind and `how` are the longest's; of equal lengths, the most certain's; then by name.
    """
    groups: list[list[Span]] = []
    end = 0
    for span in sorted(spans):
        if groups and span.start < end:
            groups[-1].append(span)
        else:
            groups.append([span])
        end = max(end, span.end) if len(groups[-1]) > 1 else span.end
    joined = []
    for group in groups:
        best = min(group, key=lambda s: (s.start - s.end, _rank(s.how), s))
        start, end = group[0].start, max(s.end for s in group)
        joined.append(Span(start, end, best.kind, text[start:end], best.how))
    return joined


def _rank(how: str) -> int:
    first = how.partition(" ")[0].rstrip(",")
    return CERTAINTY.index(first) if first in CERTAINTY else len(CERTAINTY)


def mask(text: str, spans: Iterable[Span]) -> str:
    """The text with `[KIND]` in each span's place. ValueError where spans overlap or leave the text."""
    parts, place = [], 0
    for span in sorted(spans):
        if not place <= span.start < span.end <= len(text):
            raise ValueError(f"span {span.start}-{span.end} overlaps another or lies outside the text")
        parts += [text[place : span.start], f"[{span.kind}]"]
        place = span.end
    return "".join([*parts, text[place:]])
