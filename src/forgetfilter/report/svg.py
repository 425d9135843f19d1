"""What plots are drawn with: colours, one style, axes, words that are measured and cut to fit, SVG elements."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import accumulate

from forgetfilter.report.histogram import round_numbers
from forgetfilter.report.text import spelled_out, spoken

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
COLOURS = 6  # of series


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


def axis(
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


def whisker(place: float, low: float, high: float, colour: str = "", *, is_lying: bool = False) -> str:
    """An interval with caps, over a halo that parts it from what lies under it; `place` on the other axis."""
    a, b, c = number(low), number(high), number(place)
    cap, half = number(place - 4), 8
    if is_lying:
        path = f"M{a} {cap}v{half}M{a} {c}H{b}M{b} {cap}v{half}"
    else:
        path = f"M{cap} {a}h{half}M{c} {a}V{b}M{cap} {b}h{half}"
    kind = f"line {colour}" if colour else "whisker"
    return tag("path", class_="halo", d=path) + tag("path", class_=kind, d=path)


def decimal(value: float, digits: int) -> str:
    """Fixed digits behind the point; what is there never reads as zero, and nothing reads as minus zero."""
    text = f"{value:,.{digits}f}"
    if not text.strip("-0."):
        text = f"{value:.1g}" if value else text.lstrip("-")
    return text.replace("-", "−") if "e" not in text else text


def interval_text(digits: int, value: float, interval: tuple[float, float] | None) -> str:
    between = f" [{', '.join(decimal(end, digits) for end in interval)}]" if interval else ""
    return decimal(value, digits) + between


def digits_of(span: float) -> int:
    """Digits behind the point that tell a thousandth of an axis apart."""
    return max(0, 3 - math.ceil(math.log10(span)))


def tick_text(value: float) -> str:
    return spoken(int(value) if value == int(value) else value)


def known(value: float | None) -> float | None:
    return None if value is None or not abs(value) <= FARTHEST else float(value)


def ends_of(low: float | None, high: float | None) -> tuple[float, float] | None:
    """An interval; with one end unknown it is unknown."""
    low, high = known(low), known(high)
    return None if low is None or high is None else (low, high)


def heading(title: str, width: int) -> tuple[list[str], float]:
    return paragraph(title, width, 2, kind="head", size=HEAD)


def none_measured(top: float) -> list[str]:
    return [text(0, top + LINE, "No values were measured.")]


def paragraph(
    words: str, width: float, top: float, left: float = 0, *, kind: str = "", size: int = TEXT
) -> tuple[list[str], float]:
    """`words` in as many lines as they need, at most four; the parts and where they end."""
    step = LINE + size - TEXT
    rows = _wrapped(words, width - left, size)
    return (
        [text(left, top + step * (i + 1) - 3, row, kind=kind) for i, row in enumerate(rows)],
        top + step * len(rows) + 2,
    )


def _wrapped(words: str, width: float, size: int, most: int = 4) -> list[str]:
    rows: list[str] = []
    for word in spelled_out(words).split():
        longer = f"{rows[-1]} {word}" if rows else word
        if rows and width_of(longer, size) <= width:
            rows[-1] = longer
        elif len(rows) < most:
            rows.append(fitted(word, width, size))
        else:
            rows[-1] = fitted(rows[-1] + "…", width, size)
            break
    return rows


def short(name: str) -> str:
    name = " ".join(spelled_out(name).split())
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def fitted(words: str, width: float, size: int = TEXT) -> str:
    """`words`, cut so as to fit."""
    if width_of(words, size) <= width:
        return words
    taken = accumulate(width_of(character, size) for character in words)
    return words[: sum(end <= width - width_of("…", size) for end in taken)] + "…"


def width_of(words: str, size: int = TEXT) -> float:
    """Pixels that `words` take at most in the common fonts: nothing here can measure a font."""
    return size * sum(map(_breadth, words)) * (1.08 if size == HEAD else 1)  # headings are bold


def _breadth(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF" or character in "mwMW@%…—":
        return 1.05
    if character in " .,:;|!'()[]ijltfrI":
        return 0.42
    return 0.78 if character.isupper() else 0.65


def text(
    x: float, y: float, words: str, *, kind: str = "", anchor: str = "start", whole: str | None = None
) -> str:
    """Words on their baseline. `whole`: what was shortened, for the tooltip."""
    tip = tag("title", safe(whole)) if whole is not None and whole != words else ""
    where = {"x": x, "y": y, "text_anchor": "" if anchor == "start" else anchor}
    return tag("text", tip + safe(words), class_=kind, **where)


def tag(name: str, inside: str = "", /, **attributes: str | float) -> str:
    """An element around markup; attribute values are escaped, empty ones left out, `class_` is `class`."""
    spelled = "".join(
        f' {key.rstrip("_") if key.endswith("_") else key.replace("_", "-")}="'
        f'{escape(value) if isinstance(value, str) else number(value)}"'
        for key, value in attributes.items()
        if value != ""
    )
    return f"<{name}{spelled}>{inside}</{name}>" if inside else f"<{name}{spelled}/>"


def number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def safe(words: str) -> str:
    return escape(spelled_out(words))


def document(width: int, height: float, title: str, description: str, parts: Iterable[str]) -> str:
    head = tag("title", safe(title)) + tag("desc", safe(description[:4000]))
    box = f'viewBox="0 0 {width} {math.ceil(height)}" width="{width}" height="{math.ceil(height)}"'
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ff" role="img" {box}>\n{head}\n'
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def plot(title: str, wide: str, narrow: str) -> Svg:
    plot = Svg(wide)
    plot.heading, plot.narrow = title, narrow
    return plot


def tick_words(words: Mapping[float, str], top: float, width: int) -> tuple[list[str], float]:
    """Ticks and their words, in up to three rows where one has no room; the parts and where they end."""
    parts, taken = [], [-math.inf] * 3
    for x, word in sorted(words.items()):
        parts.append(tag("line", class_="axis", x1=x, x2=x, y1=top, y2=top + 4))
        word = fitted(word, width / 2)
        half = width_of(word) / 2
        middle = min(max(x, half), width - half)
        row = next((row for row, end in enumerate(taken) if middle - half >= end), None)
        if row is not None:  # else the tick stands without its word
            taken[row] = middle + half + 8
            parts.append(text(middle, top + LINE * (row + 1), word, anchor="middle"))
    rows = sum(end > -math.inf for end in taken)
    return parts, top + LINE * rows + 4
