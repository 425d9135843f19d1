"""Plots as hand-made SVG: lines with interval bands, bars with whiskers.

A plot reads in light and dark: in a page it takes the page's colours, alone as an .svg file it follows the
system. It reads without colour (dashes and markers differ too) and without sight (title, description, and a
title on every value). It needs no script, no font file and no network, and every name in it is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from forgetfilter.intervals import Estimate
from forgetfilter.report import svg
from forgetfilter.report.histogram import round_numbers
from forgetfilter.report.text import spoken

# Numbers of colours, markers and dashes share no divisor: series are told apart up to 6 x 7 x 5 of them.
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
) -> svg.Svg:
    """Lines over a number, each with the band of its intervals; a value without neighbours has a whisker.

    A gap stays a gap: lines and bands stop before it and go on after it. `y_range`: ends of the axis, such
    as (0, 1) for a share; bands are cut off there, but a value beyond widens the axis, so none is hidden.
    `x_ticks`: where to put ticks, with their words if it is a mapping (for a logarithmic axis pass
    logarithms as x, and here the words); None: at the measured x where there are few, else at round numbers.
    """
    wide, narrow = (
        _lines(width, list(series), title, x_label, y_label, y_range, x_ticks)
        for width in (svg.WIDE, svg.NARROW)
    )
    return svg.plot(title, wide, narrow)


def bars(
    groups: Mapping[str, Mapping[str, Estimate | float | None]],
    *,
    title: str,
    value_label: str,
    value_range: tuple[float, float] | None = None,
    emphasis: Collection[str] = (),
) -> svg.Svg:
    """Lying bars from zero with interval whiskers: `groups[metric][defence]`, all on one scale.

    A value that was not measured (None, or not finite) has no bar and says so. `value_range`: as `y_range`
    of `lines`; the axis always holds zero. `emphasis`: names of bars drawn in the accent colour.
    """
    wide, narrow = (
        _bars(width, groups, title, value_label, value_range, emphasis) for width in (svg.WIDE, svg.NARROW)
    )
    return svg.plot(title, wide, narrow)


_Place = Callable[[float], float]  # from a value to pixels
_Bar = tuple[float, tuple[float, float] | None]  # a value and its interval


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """Where lines are drawn, in pixels, and the ends of both axes."""

    left: float
    right: float
    top: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at_x(self, x: float) -> float:
        low, high = self.x
        share = (x - low) / (high - low) if high > low else 0.5
        inset = 12  # markers at the ends stay off the frame
        return self.left + inset + share * (self.right - self.left - 2 * inset)

    def at_y(self, y: float) -> float:
        low, high = self.y
        return self.bottom - (y - low) / (high - low) * (self.bottom - self.top)


def _line(place: int, series: Series) -> _Line:
    unknown = [None] * len(series.x)
    read: list[tuple[float, _Point | None]] = []
    for x, y, low, high in zip(
        series.x, series.y, series.low or unknown, series.high or unknown, strict=True
    ):
        at, value = svg.known(x), svg.known(y)
        if at is not None:
            point = None if value is None else _Point(at, value, svg.ends_of(low, high))
            read.append((at, point))
    read.sort(key=lambda pair: pair[0])
    points = [point for _, point in read]
    return _Line(place, svg.short(series.name), _runs(points, lambda _: True), [x for x, _ in read])


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
    parts, top = svg.heading(title, width)
    if not drawn:
        return svg.document(width, top + 2 * svg.LINE, title, "No values.", [*parts, *svg.none_measured(top)])

    points = [point for line in drawn for point in line.points]
    ends = [end for point in points for end in point.interval or ()]
    y_low, y_high, y_ticks = svg.axis([point.y for point in points], ends, y_range)
    xs, words = sorted({x for line in drawn for x in line.xs}), _given_words(x_ticks)

    # Names stand at the ends of their lines where there is room for them, else in a key above.
    room = max(svg.width_of(line.name) for line in drawn) + 44
    is_direct = room <= 0.3 * width
    if not is_direct:
        key, top = _key(drawn, width, top)
        parts += key
    label, top = svg.paragraph(y_label, width, top)
    parts += label
    top += 10
    frame = _Frame(
        left=max(svg.width_of(svg.tick_text(tick)) for tick in y_ticks) + 8,
        right=width - (room if is_direct else 14),
        top=top,
        bottom=top + max(280 if width == svg.WIDE else 220, svg.LINE * (len(drawn) - 1) if is_direct else 0),
        x=(min([*xs, *words]), max([*xs, *words])),
        y=(y_low, y_high),
    )
    words = words or _x_words(xs, frame.at_x)
    parts += _grid(frame, y_ticks)
    ticks, below = svg.tick_words({frame.at_x(x): word for x, word in words.items()}, frame.bottom, width)
    label, below = svg.paragraph(x_label, width, below, frame.left)
    parts += [*ticks, *label, _certainties(drawn, frame)]
    for line in drawn:
        parts += _strokes(line, words, svg.digits_of(y_high - y_low), frame.at_x, frame.at_y)
    if is_direct:
        parts += _names(drawn, frame)
    if missing:
        note, below = svg.paragraph("not measured: " + ", ".join(missing), width, below + 4)
        parts += note
    return svg.document(width, below + 8, title, _said(drawn, missing, x_label, y_label), parts)


def _given_words(ticks: Sequence[float] | Mapping[float, str] | None) -> dict[float, str]:
    """Where ticks were asked for -> their words; none where they are to be chosen."""
    named = ticks if isinstance(ticks, Mapping) else {x: svg.tick_text(float(x)) for x in ticks or ()}
    return {float(x): svg.short(str(word)) for x, word in named.items() if svg.known(x) is not None}


def _grid(frame: _Frame, ticks: Sequence[float]) -> list[str]:
    """A line with its number at each tick, and the axis below."""
    parts = []
    for tick in ticks:
        at = frame.at_y(tick)
        parts.append(svg.tag("line", class_="grid", x1=frame.left, x2=frame.right, y1=at, y2=at))
        parts.append(svg.text(frame.left - 8, at + 4, svg.tick_text(tick), anchor="end"))
    ends = {"x1": frame.left, "x2": frame.right, "y1": frame.bottom, "y2": frame.bottom}
    return [*parts, svg.tag("line", class_="axis", **ends)]


def _certainties(drawn: Sequence[_Line], frame: _Frame) -> str:
    """All bands and whiskers, cut off at the frame."""
    under = [
        _certainty(line.place, run, frame.at_x, frame.at_y)
        for line in drawn
        for whole in line.runs
        for run in _runs(whole, lambda p: p.interval is not None)
    ]
    box = {"x": frame.left, "y": frame.top - 2, "width": frame.right - frame.left,
           "height": frame.bottom - frame.top + 4}  # fmt: skip
    view = " ".join(svg.number(side) for side in box.values())
    return svg.tag("svg", "".join(under), viewBox=view, **box)


def _names(drawn: Sequence[_Line], frame: _Frame) -> list[str]:
    """Each name at the end of its line, moved apart where they would overlap."""
    parts: list[str] = []
    heights = [frame.at_y(line.points[-1].y) for line in drawn]
    places = _apart(heights, svg.LINE, frame.top, frame.bottom)
    for line, own, at in zip(drawn, heights, places, strict=True):
        end = line.points[-1].x
        if abs(at - own) > 3 or end < frame.x[1]:
            lead = {"x1": frame.at_x(end) + 7, "x2": frame.right + 6, "y1": own, "y2": at}
            parts.append(svg.tag("line", class_="lead", **lead))
        parts += _sample(line.place, frame.right + 8, at)
        parts.append(svg.text(frame.right + 38, at + 4, line.name, kind="name"))
    return parts


def _strokes(line: _Line, words: Mapping[float, str], digits: int, at_x: _Place, at_y: _Place) -> list[str]:
    """A series' stretches of line, and its markers with their value as a tooltip."""
    parts = []
    dash = DASHES[line.place % len(DASHES)]
    for run in line.runs:
        if len(run) > 1:
            path = "M" + "L".join(f"{svg.number(at_x(p.x))} {svg.number(at_y(p.y))}" for p in run)
            kind = f"line c{line.place % svg.COLOURS}"
            parts.append(svg.tag("path", class_=kind, d=path, stroke_dasharray=dash))
    is_marked = len(line.points) <= MOST_MARKED
    for run in line.runs:
        for point in run if is_marked or len(run) == 1 else ():
            at = words.get(point.x) or svg.tick_text(point.x)
            said = f"{line.name}: {svg.interval_text(digits, point.y, point.interval)} at {at}"
            parts.append(_marker(line.place, at_x(point.x), at_y(point.y), said))
    return parts


def _certainty(place: int, run: list[_Point], at_x: _Place, at_y: _Place) -> str:
    """The band of a stretch of intervals; one alone is a whisker."""
    highs = [(point.x, point.interval[1]) for point in run if point.interval]
    lows = [(point.x, point.interval[0]) for point in run if point.interval]
    if len(run) == 1:
        return svg.whisker(at_x(run[0].x), at_y(lows[0][1]), at_y(highs[0][1]), f"c{place % svg.COLOURS}")
    around = [f"{svg.number(at_x(x))} {svg.number(at_y(y))}" for x, y in [*highs, *reversed(lows)]]
    return svg.tag("path", class_=f"band c{place % svg.COLOURS}", d="M" + "L".join(around) + "z")


def _marker(i: int, x: float, y: float, title: str = "") -> str:
    return svg.tag(
        "path",
        svg.tag("title", svg.safe(title)) if title else "",
        class_=f"mark c{i % svg.COLOURS}",
        d=MARKERS[i % len(MARKERS)],
        transform=f"translate({svg.number(x)} {svg.number(y)})",
    )


def _sample(i: int, x: float, y: float) -> list[str]:
    """24 pixels of a series' line with its marker, for a key."""
    path = f"M{svg.number(x)} {svg.number(y)}h24"
    dash = DASHES[i % len(DASHES)]
    return [
        svg.tag("path", class_=f"line c{i % svg.COLOURS}", d=path, stroke_dasharray=dash),
        _marker(i, x + 12, y),
    ]


def _key(drawn: list[_Line], width: int, top: float) -> tuple[list[str], float]:
    """Samples and names in as many rows as they need; the parts and where they end."""
    parts, x = [], 0.0
    for line in drawn:
        words = svg.fitted(line.name, width - 34)
        needed = 34 + svg.width_of(words)
        if x and x + needed > width:
            x, top = 0.0, top + svg.LINE + 2
        parts += _sample(line.place, x, top + svg.LINE - 6)
        parts.append(svg.text(x + 30, top + svg.LINE - 2, words, kind="name", whole=line.name))
        x += needed + 18
    return parts, top + svg.LINE + 8


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
    measured = {x: svg.tick_text(x) for x in xs}
    places = [(at_x(x), svg.width_of(word)) for x, word in measured.items()]
    if all(b - a > (one + two) / 2 + 10 for (a, one), (b, two) in pairwise(places)):
        return measured
    widest = max(width for _, width in places)
    most = max(2, int((places[-1][0] - places[0][0]) / (widest + 24)))
    return {x: svg.tick_text(x) for x in round_numbers(xs[0], xs[-1], most) if xs[0] <= x <= xs[-1]}


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
    parts, top = svg.heading(title, width)
    if not measured:
        return svg.document(width, top + 2 * svg.LINE, title, "No values.", [*parts, *svg.none_measured(top)])
    ends = [end for _, interval in measured for end in interval or ()]
    low, high, ticks = svg.axis(
        [value for value, _ in measured] + [0.0], ends, value_range, 7 if width == svg.WIDE else 4
    )
    digits = svg.digits_of(high - low)

    def spelled(point: _Bar | None) -> str:
        return "not measured" if point is None else svg.interval_text(digits, *point)

    names = [svg.short(name) for members in read.values() for name in members]
    written = [spelled(point) for members in read.values() for point in members.values()]
    beside, room = max(map(svg.width_of, names)) + 12, max(map(svg.width_of, written)) + 12
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
        lines_of_group, y = svg.paragraph(group, width, y, kind="group") if group else ([], y)
        marks += lines_of_group
        y += 4
        for name, point in members.items():
            value = spelled(point)
            said = f"{svg.short(name)}: {value}"
            text_y = y + (14 if is_stacked else height / 2 + 4)
            bar_y = y + (20 if is_stacked else (height - thick) / 2)
            where = (0, "start") if is_stacked else (left - 12, "end")
            shown = svg.fitted(svg.short(name), name_room)
            marks.append(svg.text(where[0], text_y, shown, kind="name", anchor=where[1], whole=name))
            marks.append(svg.text(width, text_y, value, anchor="end"))
            if point is not None:
                marks += _bar(point, at, bar_y, thick, said, name in emphasis)
            y += height
        y += 8
    for tick in ticks:
        x = at(tick)
        parts.append(svg.tag("line", class_="axis" if tick == 0 else "grid", x1=x, x2=x, y1=grid_top, y2=y))
    words, below = svg.tick_words({at(tick): svg.tick_text(tick) for tick in ticks}, y, width)
    label, below = svg.paragraph(value_label, width, below, 0 if is_stacked else left)
    said = [
        f"{group + ', ' if group else ''}{name}: {spelled(point)}."
        for group, members in read.items()
        for name, point in members.items()
    ]
    description = " ".join([f"{value_label}.", *said])
    return svg.document(width, below + 8, title, description, [*parts, *marks, *words, *label])


def _bar(
    point: _Bar,
    at: _Place,
    top: float,
    thick: float,
    said: str,
    is_main: bool,
) -> list[str]:
    """A bar from zero with its interval, and `said` as its tooltip."""
    size, interval = point
    start, end = sorted((at(0.0), at(size)))
    box = {"x": start, "y": top, "width": max(end - start, 1.0), "height": thick}
    kind = "bar main" if is_main else "bar"
    parts = [svg.tag("rect", svg.tag("title", svg.safe(said)), class_=kind, **box)]
    if interval:
        parts.append(svg.whisker(top + thick / 2, at(interval[0]), at(interval[1]), is_lying=True))
    return parts


def _estimate(value: Estimate | float | None) -> _Bar | None:
    """Value and interval of a bar; None where nothing was measured."""
    known = svg.known(value.value if isinstance(value, Estimate) else value)
    if known is None:
        return None
    return known, svg.ends_of(value.low, value.high) if isinstance(value, Estimate) else None
