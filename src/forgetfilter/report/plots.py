"""Plots as hand-made SVG: lines with interval bands, bars with whiskers.

A plot reads in light and dark: in a page it takes the page's colours, alone as an .svg file it follows the
system. It reads without colour (dashes and markers differ too) and without sight (title, description, and a
title on every value). It needs no script, no font file and no network, and every name in it is escaped.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, pairwise

from forgetfilter.intervals import Estimate
from forgetfilter.report.page import round_numbers, spelled_out, spoken

WIDE, NARROW = 720, 360  # pixels: a desk or paper, and a phone
TEXT, HEAD = 13, 17  # font sizes in pixels
LINE = 18  # from one line of text to the next
LONGEST = 48  # characters of a name; the rest is in its tooltip
FARTHEST = 1e15  # what lies beyond is no measurement any more

# c0 to c5 stand out by 3 to 1 on the paper, and from each other under each of the three colour blindnesses.
LIGHT = {
    **{"paper": "#fcfcfa", "ink": "#1c2226", "soft": "#565e65", "rule": "#d8d8d2", "bar": "#868d92"},
    **{"accent": "#a23b12", "c0": "#144fc9", "c1": "#961700", "c2": "#16a36f", "c3": "#a5338c"},
    **{"c4": "#b18a00", "c5": "#2a3332"},
}
DARK = {
    **{"paper": "#14171a", "ink": "#e5e7e4", "soft": "#a2abb1", "rule": "#363c42", "bar": "#69727a"},
    **{"accent": "#f29a6b", "c0": "#5a8df3", "c1": "#d47b4e", "c2": "#33e996", "c3": "#a695bb"},
    **{"c4": "#debe40", "c5": "#e5e7e4"},
}
# Numbers of colours, markers and dashes share no divisor: series are told apart up to 6 x 7 x 5 of them.
COLOURS = 6
MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.6-3.6h7.2v7.2h-7.2z",
    "M0-4.8L4.6 3.4H-4.6z",
    "M0-5.2L4.4 0 0 5.2-4.4 0z",
    "M0 4.8L4.6-3.4H-4.6z",
    "M-1.6-4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
    "M-5.4-2.4h10.8v4.8h-10.8z",
)
DASHES = ("", "7 4", "2 3", "10 3 2 3", "4 3")
MOST_MARKED = 40  # values of a series that are all marked; beyond, only those without neighbours


def variables(colours: Mapping[str, str]) -> str:
    """CSS declarations of a palette, for a page that holds plots: `--paper: #fcfcfa; …`."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def _style() -> str:
    """One style for every plot. A viewer that knows no variables keeps the literal light colours."""

    def paint(selector: str, place: str, name: str, more: str = "") -> str:
        return f".ff {selector} {{ {place}: {LIGHT[name]}; {place}: var(--{name}); {more}}}"

    return "\n".join(
        [
            f".ff:root {{ color-scheme: light dark; {variables(LIGHT)} background: var(--paper); }}",
            f"@media (prefers-color-scheme: dark) {{ .ff:root {{ {variables(DARK)} }} }}",
            f'.ff {{ font: {TEXT}px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", '
            '"Liberation Sans", sans-serif; font-variant-numeric: tabular-nums; }',
            paint("text", "fill", "soft"),
            # Words stay legible where a grid line passes under them.
            paint(
                "text", "stroke", "paper", "stroke-width: 4px; stroke-linejoin: round; paint-order: stroke; "
            ),
            paint(".name", "fill", "ink"),
            paint(".head", "fill", "ink", f"font-size: {HEAD}px; font-weight: 600; "),
            paint(".group", "fill", "ink", "font-weight: 600; "),
            paint(".grid", "stroke", "rule"),
            paint(".axis", "stroke", "soft"),
            paint(".lead", "stroke", "soft", "stroke-dasharray: 1 2; "),
            paint(".bar", "fill", "bar"),
            paint(".bar.main", "fill", "accent"),
            paint(".whisker", "stroke", "ink", "stroke-width: 1.5; fill: none; "),
            paint(".halo", "stroke", "paper", "stroke-width: 3.5; fill: none; "),
            ".ff .line { fill: none; stroke-width: 2; stroke-linejoin: round; }",
            ".ff .band { fill-opacity: .16; stroke: none; }",
            paint(".mark", "stroke", "paper", "stroke-width: 1; "),
            *(paint(f".line.c{i}", "stroke", f"c{i}") for i in range(COLOURS)),
            *(paint(f".band.c{i}, .ff .mark.c{i}", "fill", f"c{i}") for i in range(COLOURS)),
        ]
    )


STYLE = _style()


class Svg(str):
    """A plot of this module, a whole SVG document as text. `heading`: its title in plain text; `narrow`: for a phone.

    A type of its own because a page prints it unescaped, which it does with no other string.
    """

    heading: str
    narrow: str


@dataclass(frozen=True, slots=True)
class Series:
    """One line: `y` over `x`, and the ends of each value's interval.

    None or a number that is not finite is a gap in `y`, and an unknown interval in `low` and `high`.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None

    def __post_init__(self) -> None:
        lengths = {len(part) for part in (self.x, self.y, self.low, self.high) if part is not None}
        if len(lengths) != 1 or (self.low is None) != (self.high is None):
            raise ValueError(f"series {self.name!r}: x, y, low and high must go together, value by value")


def series_of(name: str, x: Sequence[float], estimates: Sequence[Estimate | None]) -> Series:
    """A Series of estimates over `x`; None where nothing was measured."""
    return Series(
        name,
        x,
        [None if e is None else e.value for e in estimates],
        [None if e is None else e.low for e in estimates],
        [None if e is None else e.high for e in estimates],
    )


def lines(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    x_ticks: Sequence[float] | Mapping[float, str] | None = None,
) -> Svg:
    """Lines over a number, each with the band of its intervals; a value without neighbours has a whisker.

    A gap stays a gap: lines and bands stop before it and go on after it. `y_range`: ends of the axis, such
    as (0, 1) for a share; bands are cut off there, but a value beyond widens the axis, so none is hidden.
    `x_ticks`: where to put ticks, with their words if it is a mapping (for a logarithmic axis pass
    logarithms as x, and here the words); None: at the measured x where there are few, else at round numbers.
    """
    wide, narrow = (
        _lines(width, list(series), title, x_label, y_label, y_range, x_ticks) for width in (WIDE, NARROW)
    )
    return _svg(title, wide, narrow)


def bars(
    groups: Mapping[str, Mapping[str, Estimate | float | None]],
    *,
    title: str,
    value_label: str,
    value_range: tuple[float, float] | None = None,
    emphasis: Collection[str] = (),
) -> Svg:
    """Lying bars from zero with interval whiskers: `groups[metric][defence]`, all on one scale.

    A value that was not measured (None, or not finite) has no bar and says so. `value_range`: as `y_range`
    of `lines`; the axis always holds zero. `emphasis`: names of bars drawn in the accent colour.
    """
    wide, narrow = (
        _bars(width, groups, title, value_label, value_range, emphasis) for width in (WIDE, NARROW)
    )
    return _svg(title, wide, narrow)


_Place = Callable[[float], float]  # from a value to pixels


# ---- lines ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Point:
    x: float
    y: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class _Line:
    """A series ready to draw: its stretches without a gap, in the order of x."""

    place: int  # in the list of series; decides colour, marker and dash
    name: str
    runs: list[list[_Point]]
    xs: list[float]  # of gaps too

    @property
    def points(self) -> list[_Point]:
        return [point for run in self.runs for point in run]


def _line(place: int, series: Series) -> _Line:
    unknown = [None] * len(series.x)
    read: list[tuple[float, _Point | None]] = []
    for x, y, low, high in zip(
        series.x, series.y, series.low or unknown, series.high or unknown, strict=True
    ):
        at, value = _finite(x), _finite(y)
        if at is not None:
            point = None if value is None else _Point(at, value, _ends(low, high))
            read.append((at, point))
    read.sort(key=lambda pair: pair[0])
    points = [point for _, point in read]
    return _Line(place, _short(series.name), _runs(points, lambda _: True), [x for x, _ in read])


def _runs(points: Iterable[_Point | None], belongs: Callable[[_Point], bool]) -> list[list[_Point]]:
    """The longest stretches of neighbouring points that all belong."""
    runs: list[list[_Point]] = []
    goes_on = False
    for point in points:
        if point is None or not belongs(point):
            goes_on = False
            continue
        if not goes_on:
            runs.append([])
        runs[-1].append(point)
        goes_on = True
    return runs


def _lines(
    width: int,
    series: list[Series],
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None,
    x_ticks: Sequence[float] | Mapping[float, str] | None,
) -> str:
    read = [_line(place, one) for place, one in enumerate(series)]
    drawn = [line for line in read if line.runs]
    missing = [line.name for line in read if not line.runs]
    parts, top = _heading(title, width)
    if not drawn:
        return _document(width, top + 2 * LINE, title, "No values.", [*parts, *_none_measured(top)])

    points = [point for line in drawn for point in line.points]
    ends = [end for point in points for end in point.interval or ()]
    y_low, y_high, y_ticks = _axis([point.y for point in points], ends, y_range)
    digits = _digits(y_high - y_low)
    xs = sorted({x for line in drawn for x in line.xs})
    words: dict[float, str] = {}
    if x_ticks is not None:
        named = x_ticks if isinstance(x_ticks, Mapping) else {x: _tick(float(x)) for x in x_ticks}
        words = {float(x): _short(str(word)) for x, word in named.items() if _finite(x) is not None}
    x_low, x_high = min([*xs, *words]), max([*xs, *words])

    # Names stand at the ends of their lines where there is room for them, else in a key above.
    room = max(_width(line.name) for line in drawn) + 44
    is_direct = room <= 0.3 * width
    if not is_direct:
        key, top = _key(drawn, width, top)
        parts += key
    label, top = _paragraph(y_label, width, top)
    parts += label
    top += 10
    left = max(_width(_tick(tick)) for tick in y_ticks) + 8
    right = width - (room if is_direct else 14)
    bottom = top + max(280 if width == WIDE else 220, LINE * (len(drawn) - 1) if is_direct else 0)

    inset = 12  # markers at the ends stay off the frame

    def at_x(x: float) -> float:
        share = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        return left + inset + share * (right - left - 2 * inset)

    def at_y(y: float) -> float:
        return bottom - (y - y_low) / (y_high - y_low) * (bottom - top)

    for tick in y_ticks:
        at = at_y(tick)
        parts.append(_tag("line", class_="grid", x1=left, x2=right, y1=at, y2=at))
        parts.append(_text(left - 8, at + 4, _tick(tick), anchor="end"))
    parts.append(_tag("line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom))
    words = words or _x_words(xs, at_x)
    ticks, below = _tick_words({at_x(x): word for x, word in words.items()}, bottom, width)
    parts += ticks
    label, below = _paragraph(x_label, width, below, left)
    parts += label

    under = []
    for line in drawn:
        for run in [
            stretch for whole in line.runs for stretch in _runs(whole, lambda p: p.interval is not None)
        ]:
            under.append(_certainty(line.place, run, at_x, at_y))
    box = {"x": left, "y": top - 2, "width": right - left, "height": bottom - top + 4}
    view = " ".join(_number(side) for side in box.values())
    parts.append(_tag("svg", "".join(under), viewBox=view, **box))
    for line in drawn:
        parts += _strokes(line, words, digits, at_x, at_y)

    if is_direct:
        heights = [at_y(line.points[-1].y) for line in drawn]
        for line, own, at in zip(drawn, heights, _apart(heights, LINE, top, bottom), strict=True):
            end = line.points[-1].x
            if abs(at - own) > 3 or end < x_high:
                parts.append(_tag("line", class_="lead", x1=at_x(end) + 7, x2=right + 6, y1=own, y2=at))
            parts += _sample(line.place, right + 8, at)
            parts.append(_text(right + 38, at + 4, line.name, kind="name"))
    if missing:
        note, below = _paragraph("not measured: " + ", ".join(missing), width, below + 4)
        parts += note
    return _document(width, below + 8, title, _said(drawn, missing, x_label, y_label), parts)


def _strokes(line: _Line, words: Mapping[float, str], digits: int, at_x: _Place, at_y: _Place) -> list[str]:
    """A series' stretches of line, and its markers with their value as a tooltip."""
    parts = []
    dash = DASHES[line.place % len(DASHES)]
    for run in line.runs:
        if len(run) > 1:
            path = "M" + "L".join(f"{_number(at_x(p.x))} {_number(at_y(p.y))}" for p in run)
            kind = f"line c{line.place % COLOURS}"
            parts.append(_tag("path", class_=kind, d=path, stroke_dasharray=dash))
    is_marked = len(line.points) <= MOST_MARKED
    for run in line.runs:
        for point in run if is_marked or len(run) == 1 else ():
            at = words.get(point.x) or _tick(point.x)
            said = f"{line.name}: {_interval(digits, point.y, point.interval)} at {at}"
            parts.append(_marker(line.place, at_x(point.x), at_y(point.y), said))
    return parts


def _certainty(place: int, run: list[_Point], at_x: _Place, at_y: _Place) -> str:
    """The band of a stretch of intervals; one alone is a whisker."""
    highs = [(point.x, point.interval[1]) for point in run if point.interval]
    lows = [(point.x, point.interval[0]) for point in run if point.interval]
    if len(run) == 1:
        return _whisker(at_x(run[0].x), at_y(lows[0][1]), at_y(highs[0][1]), f"c{place % COLOURS}")
    around = [f"{_number(at_x(x))} {_number(at_y(y))}" for x, y in [*highs, *reversed(lows)]]
    return _tag("path", class_=f"band c{place % COLOURS}", d="M" + "L".join(around) + "z")


def _marker(i: int, x: float, y: float, title: str = "") -> str:
    return _tag(
        "path",
        _tag("title", _safe(title)) if title else "",
        class_=f"mark c{i % COLOURS}",
        d=MARKERS[i % len(MARKERS)],
        transform=f"translate({_number(x)} {_number(y)})",
    )


def _sample(i: int, x: float, y: float) -> list[str]:
    """24 pixels of a series' line with its marker, for a key."""
    path = f"M{_number(x)} {_number(y)}h24"
    dash = DASHES[i % len(DASHES)]
    return [
        _tag("path", class_=f"line c{i % COLOURS}", d=path, stroke_dasharray=dash),
        _marker(i, x + 12, y),
    ]


def _key(drawn: list[_Line], width: int, top: float) -> tuple[list[str], float]:
    """Samples and names in as many rows as they need; the parts and where they end."""
    parts, x = [], 0.0
    for line in drawn:
        words = _fitted(line.name, width - 34)
        needed = 34 + _width(words)
        if x and x + needed > width:
            x, top = 0.0, top + LINE + 2
        parts += _sample(line.place, x, top + LINE - 6)
        parts.append(_text(x + 30, top + LINE - 2, words, kind="name", whole=line.name))
        x += needed + 18
    return parts, top + LINE + 8


def _apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near to those wanted as `gap` between neighbours allows (least squares), within the ends.

    Pool adjacent violators: with i gaps taken off the i-th place, neighbours only have to be in order.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    pools: list[tuple[float, int]] = []  # mean and size
    for rank, i in enumerate(order):
        mean, size = wanted[i] - rank * gap, 1
        while pools and pools[-1][0] > mean:
            before, count = pools.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        pools.append((mean, size))
    placed = [mean for mean, size in pools for _ in range(size)]
    places = [0.0] * len(wanted)
    for rank, i in enumerate(order):
        places[i] = min(max(placed[rank], low), high - (len(wanted) - 1) * gap) + rank * gap
    return places


def _x_words(xs: list[float], at_x: _Place) -> dict[float, str]:
    """Ticks at the measured x where their words fit side by side, else at round numbers in between."""
    measured = {x: _tick(x) for x in xs}
    places = [(at_x(x), _width(word)) for x, word in measured.items()]
    if all(b - a > (one + two) / 2 + 10 for (a, one), (b, two) in pairwise(places)):
        return measured
    widest = max(width for _, width in places)
    most = max(2, int((places[-1][0] - places[0][0]) / (widest + 24)))
    return {x: _tick(x) for x in round_numbers(xs[0], xs[-1], most) if xs[0] <= x <= xs[-1]}


def _tick_words(words: Mapping[float, str], top: float, width: int) -> tuple[list[str], float]:
    """Ticks and their words, in up to three rows where one has no room; the parts and where they end."""
    parts, taken = [], [-math.inf] * 3
    for x, word in sorted(words.items()):
        parts.append(_tag("line", class_="axis", x1=x, x2=x, y1=top, y2=top + 4))
        word = _fitted(word, width / 2)
        half = _width(word) / 2
        middle = min(max(x, half), width - half)
        row = next((row for row, end in enumerate(taken) if middle - half >= end), None)
        if row is not None:  # else the tick stands without its word
            taken[row] = middle + half + 8
            parts.append(_text(middle, top + LINE * (row + 1), word, anchor="middle"))
    rows = sum(end > -math.inf for end in taken)
    return parts, top + LINE * rows + 4


def _said(drawn: list[_Line], missing: list[str], x_label: str, y_label: str) -> str:
    """The plot in words."""
    sentences = [f"{y_label} over {x_label}."]
    for line in drawn:
        first, last, values = line.points[0], line.points[-1], [point.y for point in line.points]
        said = f"{line.name}: {spoken(first.y)} at {spoken(first.x)}"
        if len(values) > 1:
            said += (
                f", {spoken(last.y)} at {spoken(last.x)}, {len(values)} values "
                f"between {spoken(min(values))} and {spoken(max(values))}"
            )
        gaps = len(line.xs) - len(values)
        sentences.append(said + (f", {gaps} not measured." if gaps else "."))
    return " ".join([*sentences, *(f"{name}: not measured." for name in missing)])


# ---- bars ----------------------------------------------------------------------------------------


def _bars(
    width: int,
    groups: Mapping[str, Mapping[str, Estimate | float | None]],
    title: str,
    value_label: str,
    value_range: tuple[float, float] | None,
    emphasis: Collection[str],
) -> str:
    read = {
        group: {name: _estimate(value) for name, value in members.items()}
        for group, members in groups.items()
    }
    measured = [point for members in read.values() for point in members.values() if point is not None]
    parts, top = _heading(title, width)
    if not measured:
        return _document(width, top + 2 * LINE, title, "No values.", [*parts, *_none_measured(top)])
    ends = [end for _, interval in measured for end in interval or ()]
    low, high, ticks = _axis(
        [value for value, _ in measured] + [0.0], ends, value_range, 7 if width == WIDE else 4
    )
    digits = _digits(high - low)

    names = [_short(name) for members in read.values() for name in members]
    written = [
        "not measured" if point is None else _interval(digits, *point)
        for members in read.values()
        for point in members.values()
    ]
    beside, room = max(map(_width, names)) + 12, max(map(_width, written)) + 12
    # Where name, bar and number have no room side by side, the bar goes under the other two.
    is_stacked = beside + room > 0.55 * width
    left, right = (8.0, width - 8.0) if is_stacked else (beside, width - room)
    name_room = width - room if is_stacked else math.inf
    height, thick = (40, 12) if is_stacked else (24, 14)

    def at(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (right - left)

    grid_top, marks = top + 6, []
    y = grid_top
    for group, members in read.items():
        lines_of_group, y = _paragraph(group, width, y, kind="group") if group else ([], y)
        marks += lines_of_group
        y += 4
        for name, point in members.items():
            text_y = y + (14 if is_stacked else height / 2 + 4)
            bar_y = y + (20 if is_stacked else (height - thick) / 2)
            value = "not measured" if point is None else _interval(digits, *point)
            said = f"{_short(name)}: {value}"
            shown = _fitted(_short(name), name_room)
            if is_stacked:
                marks.append(_text(0, text_y, shown, kind="name", whole=name))
            else:
                marks.append(_text(left - 12, text_y, shown, kind="name", anchor="end", whole=name))
            marks.append(_text(width, text_y, value, anchor="end"))
            if point is not None:
                size, interval = point
                start, end = sorted((at(0.0), at(size)))
                kind = "bar main" if name in emphasis else "bar"
                box = {"x": start, "y": bar_y, "width": max(end - start, 1.0), "height": thick}
                marks.append(_tag("rect", _tag("title", _safe(said)), class_=kind, **box))
                if interval:
                    marks.append(_whisker(bar_y + thick / 2, at(interval[0]), at(interval[1]), is_lying=True))
            y += height
        y += 8
    for tick in ticks:
        x = at(tick)
        parts.append(_tag("line", class_="axis" if tick == 0 else "grid", x1=x, x2=x, y1=grid_top, y2=y))
    words, below = _tick_words({at(tick): _tick(tick) for tick in ticks}, y, width)
    label, below = _paragraph(value_label, width, below, 0 if is_stacked else left)
    said = [
        f"{group + ', ' if group else ''}{name}: {'not measured' if point is None else _interval(digits, *point)}."
        for group, members in read.items()
        for name, point in members.items()
    ]
    description = " ".join([f"{value_label}.", *said])
    return _document(width, below + 8, title, description, [*parts, *marks, *words, *label])


def _estimate(value: Estimate | float | None) -> tuple[float, tuple[float, float] | None] | None:
    """Value and interval of a bar; None where nothing was measured."""
    known = _finite(value.value if isinstance(value, Estimate) else value)
    if known is None:
        return None
    return known, _ends(value.low, value.high) if isinstance(value, Estimate) else None


# ---- what both share -----------------------------------------------------------------------------


def _axis(
    values: Sequence[float], ends: Sequence[float], wanted: tuple[float, float] | None, most: int = 6
) -> tuple[float, float, list[float]]:
    """Low end, high end and round ticks of an axis that shows every value, and every interval if it may."""
    if wanted is not None:
        low, high = min([wanted[0], *values]), max([wanted[1], *values])
    else:
        low, high = min([*values, *ends]), max([*values, *ends])
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low or high else (0.0, 1.0)
    ticks = round_numbers(low, high, most)
    # An end that was asked for stays where it is; any other is a round number.
    low = low if wanted and low == wanted[0] else ticks[0]
    high = high if wanted and high == wanted[1] else ticks[-1]
    return low, high, [tick for tick in ticks if low <= tick <= high]


def _whisker(place: float, low: float, high: float, colour: str = "", *, is_lying: bool = False) -> str:
    """An interval with caps, over a halo that parts it from what lies under it; `place` on the other axis."""
    a, b, c = _number(low), _number(high), _number(place)
    cap, half = _number(place - 4), 8
    if is_lying:
        path = f"M{a} {cap}v{half}M{a} {c}H{b}M{b} {cap}v{half}"
    else:
        path = f"M{cap} {a}h{half}M{c} {a}V{b}M{cap} {b}h{half}"
    kind = f"line {colour}" if colour else "whisker"
    return _tag("path", class_="halo", d=path) + _tag("path", class_=kind, d=path)


def decimal(value: float, digits: int) -> str:
    """Fixed digits behind the point; what is there never reads as zero, and nothing reads as minus zero."""
    text = f"{value:,.{digits}f}"
    if not text.strip("-0."):
        text = f"{value:.1g}" if value else text.lstrip("-")
    return text.replace("-", "−") if "e" not in text else text


def _interval(digits: int, value: float, interval: tuple[float, float] | None) -> str:
    between = f" [{', '.join(decimal(end, digits) for end in interval)}]" if interval else ""
    return decimal(value, digits) + between


def _digits(span: float) -> int:
    """Digits behind the point that tell a thousandth of an axis apart."""
    return max(0, 3 - math.ceil(math.log10(span)))


def _tick(value: float) -> str:
    return spoken(int(value) if value == int(value) else value)


def _finite(value: float | None) -> float | None:
    return None if value is None or not abs(value) <= FARTHEST else float(value)


def _ends(low: float | None, high: float | None) -> tuple[float, float] | None:
    """An interval; with one end unknown it is unknown."""
    known = _finite(low), _finite(high)
    return None if known[0] is None or known[1] is None else (known[0], known[1])


def _heading(title: str, width: int) -> tuple[list[str], float]:
    return _paragraph(title, width, 2, kind="head", size=HEAD)


def _none_measured(top: float) -> list[str]:
    return [_text(0, top + LINE, "No values were measured.")]


def _paragraph(
    words: str, width: float, top: float, left: float = 0, *, kind: str = "", size: int = TEXT
) -> tuple[list[str], float]:
    """`words` in as many lines as they need, at most four; the parts and where they end."""
    step = LINE + size - TEXT
    rows = _wrapped(words, width - left, size)
    return (
        [_text(left, top + step * (i + 1) - 3, row, kind=kind) for i, row in enumerate(rows)],
        top + step * len(rows) + 2,
    )


def _wrapped(words: str, width: float, size: int, most: int = 4) -> list[str]:
    rows: list[str] = []
    for word in spelled_out(words).split():
        longer = f"{rows[-1]} {word}" if rows else word
        if rows and _width(longer, size) <= width:
            rows[-1] = longer
        elif len(rows) < most:
            rows.append(_fitted(word, width, size))
        else:
            rows[-1] = _fitted(rows[-1] + "…", width, size)
            break
    return rows


def _short(name: str) -> str:
    name = " ".join(spelled_out(name).split())
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _fitted(words: str, width: float, size: int = TEXT) -> str:
    """`words`, cut so as to fit."""
    if _width(words, size) <= width:
        return words
    taken = accumulate(_width(character, size) for character in words)
    return words[: sum(end <= width - _width("…", size) for end in taken)] + "…"


def _width(words: str, size: int = TEXT) -> float:
    """Pixels that `words` take at most in the common fonts: nothing here can measure a font."""
    return size * sum(map(_breadth, words)) * (1.08 if size == HEAD else 1)  # headings are bold


def _breadth(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF" or character in "mwMW@%…—":
        return 1.05
    if character in " .,:;|!'()[]ijltfrI":
        return 0.42
    return 0.78 if character.isupper() else 0.65


def _text(
    x: float, y: float, words: str, *, kind: str = "", anchor: str = "start", whole: str | None = None
) -> str:
    """Words on their baseline. `whole`: what was shortened, for the tooltip."""
    tip = _tag("title", _safe(whole)) if whole is not None and whole != words else ""
    where = {"x": x, "y": y, "text_anchor": "" if anchor == "start" else anchor}
    return _tag("text", tip + _safe(words), class_=kind, **where)


def _tag(name: str, inside: str = "", **attributes: str | float) -> str:
    """An element around markup; attribute values are escaped, empty ones left out, `class_` is `class`."""
    spelled = "".join(
        f' {key.rstrip("_") if key.endswith("_") else key.replace("_", "-")}="'
        f'{escape(value) if isinstance(value, str) else _number(value)}"'
        for key, value in attributes.items()
        if value != ""
    )
    return f"<{name}{spelled}>{inside}</{name}>" if inside else f"<{name}{spelled}/>"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _safe(words: str) -> str:
    return escape(spelled_out(words))


def _document(width: int, height: float, title: str, description: str, parts: Iterable[str]) -> str:
    head = _tag("title", _safe(title)) + _tag("desc", _safe(description[:4000]))
    box = f'viewBox="0 0 {width} {math.ceil(height)}" width="{width}" height="{math.ceil(height)}"'
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ff" role="img" {box}>\n{head}\n'
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def _svg(title: str, wide: str, narrow: str) -> Svg:
    plot = Svg(wide)
    plot.heading, plot.narrow = title, narrow
    return plot
