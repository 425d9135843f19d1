"""The histogram of scores on the report's page, and what moves its cut."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

EXACT_SCORES = 20_000  # up to here the page carries every score, beyond it counts at each stop of the cut
BARS = 50  # of the histogram, at most
STOPS = 1_000  # of the movable cut, at most
FARTHEST = 1e12  # ends of the axis: what lies beyond is no measurement any more


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of scores in bars (edges[i], edges[i+1]]; scores beyond the edges count in the end bars."""

    edges: Sequence[float]
    counts: Sequence[int]
    beyond: int  # how many of the scores lie outside the edges

    def at(self, score: float) -> float:
        """Where a score stands on the axis, in per cent of its width, 0 to 100."""
        low, high = self.edges[0], self.edges[-1]
        return round(min(100.0, max(0.0, 100 * (score - low) / (high - low))), 3)

    def height(self, count: int) -> float:
        """Height of a bar in per cent: by the square root of the count, so that small groups stay visible."""
        return round(100 * math.sqrt(count / max(self.counts)), 3)

    @property
    def bars(self) -> list[tuple[float, float, int]]:
        """Low edge, high edge and count of each bar."""
        return list(zip(self.edges[:-1], self.edges[1:], self.counts, strict=True))

    @property
    def score_ticks(self) -> list[float]:
        low, high = self.edges[0], self.edges[-1]
        return [tick for tick in round_numbers(low, high, 6) if low <= tick <= high]

    @property
    def count_ticks(self) -> list[int]:
        """1, 2 or 5 times a power of ten, far enough apart to be read."""
        peak, ticks = max(self.counts), []
        for power in range(len(str(peak)), -1, -1):
            for tick in (5 * 10**power, 2 * 10**power, 10**power):
                if tick <= peak and (
                    not ticks or math.sqrt(ticks[-1] / peak) - math.sqrt(tick / peak) > 0.22
                ):
                    ticks.append(tick)
        return ticks


def histogram_of(scores: Sequence[float], cut: float | None) -> Histogram:
    """Bars of round width over sorted scores; a cut at an edge parts bars as it parts rows (score > cut)."""
    low, high = _axis(scores, cut)
    edges = round_numbers(low, high, BARS)
    counts = [0] * (len(edges) - 1)
    for score in scores:
        counts[min(max(bisect_left(edges, score) - 1, 0), len(counts) - 1)] += 1
    beyond = bisect_left(scores, edges[0]) + len(scores) - bisect_right(scores, edges[-1])
    return Histogram(edges, counts, beyond)


def _axis(scores: Sequence[float], cut: float | None) -> tuple[float, float]:
    """The span drawn: all scores and the cut, unless a few would press the rest into a bar or two."""
    low, high = (min(max(score, -FARTHEST), FARTHEST) for score in (scores[0], scores[-1]))
    bulk_low, bulk_high = scores[len(scores) // 200], scores[-1 - len(scores) // 200]
    bulk = bulk_high - bulk_low
    if 0 < 40 * bulk < high - low:
        low, high = max(low, bulk_low - 2 * bulk), min(high, bulk_high + 2 * bulk)
    span = high - low
    if span <= 1e-9 * max(abs(low), abs(high), 1e-3):
        span = max(abs(high), 1.0)
        low, high = low - span / 2, high + span / 2
    if cut is not None and low - 3 * span <= cut <= high + 3 * span:
        low, high = min(low, cut), max(high, cut)
    return low, high


def round_numbers(low: float, high: float, most: int) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, evenly spaced, about `most` of them."""
    power = math.floor(math.log10((high - low) / most))
    factor = next(f for f in (1, 2, 5, 10) if f * 10.0**power * most >= (high - low) * (1 - 1e-9))
    step = factor * 10.0**power
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Read from their decimal spelling, not multiplied: 0.3, as a user will type it, not 0.30000000000000004.
    return [float(f"{k * factor}e{power}") for k in range(first, max(last, first + 1) + 1)]


def movable(scores: Sequence[float], histogram: Histogram, cut: float | None) -> dict[str, Any]:
    """What the page's script needs to move the cut: its stops, and the scores or the rows above each stop."""
    grid = round_numbers(histogram.edges[0], histogram.edges[-1], STOPS)
    data: dict[str, Any] = {
        "low": histogram.edges[0],
        "high": histogram.edges[-1],
        "cut": cut,
        "rows": len(scores),
        "step": float(f"{grid[1] - grid[0]:.3g}"),
        "stops": sorted({*grid, cut} if cut is not None else grid),
    }
    if len(scores) <= EXACT_SCORES:
        return data | {"scores": list(scores)}
    return data | {"above": [len(scores) - bisect_right(scores, stop) for stop in data["stops"]]}
