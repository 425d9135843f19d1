"""The heat map: prompts and completions coloured by how much of each token was forgotten."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetfilter.report.text import marked

if TYPE_CHECKING:
    from markupsafe import Markup

EXCERPT = 480  # characters of a prompt or completion shown before the rest is folded away
LONGEST = 4_000  # characters of a prompt or completion that the page carries at all
HEAT_LEVELS = 8
LEAST_HEAT = 0.5  # nats: a page on which nothing was forgotten must not glow


def heat_level(nats: float, ceiling: float) -> int:
    """0 (not forgotten) to HEAT_LEVELS (forgotten by `ceiling` nats or more), in equal steps."""
    if not nats > 0:  # also where it is not a number
        return 0
    return min(HEAT_LEVELS, math.ceil(HEAT_LEVELS * min(nats / ceiling, 1.0)))


def strongest(rows: Iterable[Sequence[tuple[str, float]] | None]) -> float:
    """The forgetting drawn strongest, in nats, one for all rows: 1 in 50 of their forgotten tokens exceed it."""
    forgotten = sorted(nats for tokens in rows for _, nats in tokens or () if 0 < nats < math.inf)
    return max(LEAST_HEAT, forgotten[math.ceil(0.98 * (len(forgotten) - 1))]) if forgotten else LEAST_HEAT


@dataclass(frozen=True, slots=True)
class Passage:
    """A prompt or completion ready to print: what is seen at once, what is folded away, what was left out."""

    excerpt: Markup
    rest: Markup
    rest_characters: int
    left_out: int  # characters that only the data files hold
    unmeasured: bool  # some of its text carries no heat because it was not scored


def passage(text: str, tokens: Sequence[tuple[str, float]] | None, ceiling: float) -> Passage:
    """Cut `text` into a Passage, coloured by `tokens` where there are some."""
    pieces: list[tuple[str, float | None]] = list(tokens or ())
    covered = "".join(piece for piece, _ in pieces)
    if not pieces:
        pieces = [(text, None)]
    elif len(covered) < len(text) and text.startswith(covered):
        pieces.append((text[len(covered) :], None))
    unmeasured = bool(tokens) and pieces[-1][1] is None
    length = sum(len(piece) for piece, _ in pieces)
    # A rest of a few words is not worth a click.
    fold = EXCERPT if length > EXCERPT * 5 // 4 else length
    halves: tuple[list[str], list[str]] = ([], [])
    start = 0
    for piece, nats in pieces:
        for half, low, high in ((0, 0, fold), (1, fold, LONGEST)):
            part = piece[max(low - start, 0) : max(high - start, 0)]
            if part:
                halves[half].append(_token(part, nats, ceiling))
        start += len(piece)
    from markupsafe import Markup

    return Passage(
        excerpt=Markup("".join(halves[0])),
        rest=Markup("".join(halves[1])),
        rest_characters=max(min(length, LONGEST) - fold, 0),
        left_out=max(length - LONGEST, 0),
        unmeasured=unmeasured,
    )


def _token(piece: str, nats: float | None, ceiling: float) -> str:
    if nats is None:
        return str(marked(piece))
    level = heat_level(nats, ceiling)
    heat = f' class="h{level}"' if level else ""
    return f'<span{heat} title="{nats:.2f} nats">{marked(piece)}</span>'


def most_forgotten(tokens: Sequence[tuple[str, float]] | None) -> list[tuple[str, float]]:
    """The up to three tokens forgotten most, blank ones aside: the heat map for who cannot see or hover."""
    forgotten = [(piece.strip(), nats) for piece, nats in tokens or () if nats > 0 and piece.strip()]
    return heapq.nlargest(3, forgotten, key=lambda token: token[1])
