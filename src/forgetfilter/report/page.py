"""One HTML page for a run of `filter`: what was found, why, and how sure.

The page needs no network and its rows cannot act: every string is escaped, characters that would hide or
reorder text are spelled out, and the page's own security policy names the hash of the one script and the one
style it may use, so that even markup that slipped through could neither run nor load anything.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
import math
import os
import re
import shlex
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError
from forgetfilter.records import Decision

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

HEAT_FILE = "heat.jsonl"
EXACT_SCORES = 20_000  # up to here the page carries every score, beyond it counts at each stop of the cut
BARS = 50  # of the histogram, at most
STOPS = 1_000  # of the movable cut, at most
FARTHEST = 1e12  # ends of the axis: what lies beyond is no measurement any more
EXCERPT = 480  # characters of a prompt or completion shown before the rest is folded away
LONGEST = 4_000  # characters of a prompt or completion that the page carries at all
HEAT_LEVELS = 8
LEAST_HEAT = 0.5  # nats: a page on which nothing was forgotten must not glow


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One row as the report shows it. `score` is None where the row could not be scored.

    `score`, `forgetting`, `contrast`: larger = more likely unsafe. `remembered`: by model state (`learned`,
    `reviewed`, `control`), larger = better remembered. `tokens`: pieces of the completion in order, each with
    how much of it was forgotten in nats (positive = forgotten), or None where that was not measured. `beside`: title
    and text of what helps to decide about it.
    """

    id: str
    row: int  # 0-based position in the input
    prompt: str
    completion: str
    decision: Decision
    score: float | None
    forgetting: float | None
    contrast: float | None
    remembered: Mapping[str, float | None]
    reason: str
    tokens: Sequence[tuple[str, float]] | None = None
    beside: Sequence[tuple[str, str]] = ()


def write_report(path: Path, report: Mapping[str, Any], rows: Iterable[ReportRow]) -> None:
    """Write the page for `report` (content of report.json; entries may be missing or null) and its rows.

    `rows` are all rows of the run, in any order; they are read once and only those shown are held. Beside the page
    stands heat.jsonl, a line for each row with `tokens`, for the review page. Both appear whole or not at all. Raises
    ConfigError where they cannot be written.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    heat = path.with_name(f".{HEAT_FILE}.{os.getpid()}.unfinished")
    try:
        page = render_report(report, _noting_heat(rows, heat))
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        if heat.exists():
            heat.replace(path.with_name(HEAT_FILE))
        unfinished.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: the report cannot be written ({error.strerror}). Free some space or name another "
            f"folder with --output; report.json and scores.jsonl hold the same numbers."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
        heat.unlink(missing_ok=True)


def _noting_heat(rows: Iterable[ReportRow], path: Path) -> Iterator[ReportRow]:
    """The rows; those with tokens leave a line each at `path`, which is not made where none has any."""
    with ExitStack() as stack:
        file = None
        for row in rows:
            if row.tokens:
                file = file or stack.enter_context(path.open("w", encoding="ascii"))
                file.write(json.dumps({"row": row.row, "tokens": list(row.tokens)}) + "\n")
            yield row


def render_report(report: Mapping[str, Any], rows: Iterable[ReportRow]) -> str:
    """The page as text; see `write_report`."""
    return page_template("template.html").render(_context(report, rows))


@cache
def page_template(name: str) -> Template:
    """A page of this folder; what is put into it is escaped and its invisible characters are spelled out."""
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: spelled_out(value) if type(value) is str else value,
    )
    environment.filters |= FILTERS
    return environment.from_string(files("forgetfilter.report").joinpath(name).read_text("utf-8"))


# ---- what the page says --------------------------------------------------------------------------


def _context(report: Mapping[str, Any], rows: Iterable[ReportRow]) -> dict[str, Any]:
    """Everything the template prints; report.json may lack any entry."""
    found = _survey(rows)
    stated = _mapping(report, "counts")
    counts = {decision: int(_either(stated.get(decision), found.counts[decision])) for decision in SHOWN}
    total = int(_either(stated.get("rows"), sum(counts.values())))
    threshold = _mapping(report, "threshold")
    cut = _finite(threshold.get("value"))
    scores = sorted(found.scores)
    histogram = _histogram(scores, cut) if scores else None
    cost = _mapping(report, "cost")
    command = report.get("command")
    spent: dict[str, Any] = {"name": None, "seconds": None, "tokens": None, "fine_tunes": None}
    source = report.get("input")
    source = {"file": None, "format": None} | (
        dict(source) if isinstance(source, Mapping) else {"file": source}
    )
    return {
        "verdict": report.get("verdict") or _verdict(counts, total),
        "command": command if isinstance(command, str) or not command else shlex.join(map(str, command)),
        "input": source,
        "model": report.get("model"),
        "signal": report.get("signal"),
        "contrast": report.get("contrast"),
        "counts": counts,
        "total": total,
        "threshold": {"method": None, "why": None} | dict(threshold),
        "cut": cut,
        "estimated": list(_mapping(report, "estimated").items()),
        "quality": list(_mapping(report, "quality").items()),
        "notes": _list(report, "notes"),
        "limits": _list(report, "limits") or UNSTATED_LIMITS,
        "histogram": histogram,
        "nonfinite": found.nonfinite,
        "movable": _movable(scores, histogram, cut) if histogram else None,
        "now_above": len(scores) - bisect_right(scores, cut) if cut is not None else 0,
        "cards": [
            row for decision in ("drop", "flag", "keep", "not judged") for row in found.shown[decision]
        ],
        "unscored": found.shown["unscored"],
        "shown": {decision: len(shown) for decision, shown in found.shown.items()},
        "heat": _heat_ceiling(found.shown),
        "stages": [spent | stage for stage in _list(cost, "stages") if isinstance(stage, Mapping)],
        "cost": spent | dict(cost),
        "settings": _settings(report.get("settings")),
        "provenance": [
            (name, key, value)
            for name in ("versions", "seeds", "hashes")
            for key, value in _pairs(name, report.get(name))
        ],
    }


@dataclass(frozen=True, slots=True)
class _Survey:
    """What one pass over the rows gathers: every finite score, and per decision the rows worth showing."""

    scores: array[float]
    counts: Counter[str]
    shown: Mapping[str, list[ReportRow]]  # highest score first; unscored in input order
    nonfinite: int  # rows whose score is not a number or infinite


def _survey(rows: Iterable[ReportRow]) -> _Survey:
    scores, counts, nonfinite = array("d"), Counter(), 0
    best: dict[str, list[tuple[float, int, ReportRow]]] = {decision: [] for decision in SHOWN}
    for position, row in enumerate(rows):
        counts[row.decision] += 1
        score = _finite(row.score) if row.decision != "unscored" else None
        if score is not None:
            scores.append(score)
        elif row.decision != "unscored" and row.score is not None:
            nonfinite += 1
        # Of equal scores the earlier row ranks higher; the position also keeps rows from being compared.
        item = (-math.inf if score is None else score, -position, row)
        heap = best[row.decision]
        if len(heap) < SHOWN[row.decision]:
            heapq.heappush(heap, item)
        else:
            heapq.heappushpop(heap, item)
    shown = {decision: [row for _, _, row in sorted(heap, reverse=True)] for decision, heap in best.items()}
    return _Survey(scores, counts, shown, nonfinite)


def _verdict(counts: Mapping[str, int], total: int) -> str:
    if counts["drop"]:
        return f"{counts['drop']:,} of {in_rows(total)} dropped, {counts['flag']:,} flagged for a look."
    if counts["flag"]:
        return f"Nothing dropped; {counts['flag']:,} of {in_rows(total)} flagged for a look."
    return "Nothing to remove." if total else "There were no rows."


def _settings(settings: Any) -> list[tuple[str, Any, str]]:
    """Name, value and origin of each setting; a plain mapping of values has no origins."""
    if isinstance(settings, Mapping):
        settings = [
            {"name": name, **(value if isinstance(value, Mapping) and "value" in value else {"value": value})}
            for name, value in settings.items()
        ]
    rows = [setting for setting in settings or () if isinstance(setting, Mapping)]
    return [(str(row.get("name", "")), row.get("value"), str(row.get("origin") or "")) for row in rows]


def _pairs(name: str, value: Any) -> list[tuple[str, Any]]:
    if value is None or value == {} or value == []:
        return []
    return (
        [(str(key), item) for key, item in value.items()] if isinstance(value, Mapping) else [(name, value)]
    )


def _mapping(report: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = report.get(key)
    return value if isinstance(value, Mapping) else {}


def _list(report: Mapping[str, Any], key: str) -> list[Any]:
    value = report.get(key)
    return [value] if isinstance(value, str) else list(value or ())


def _either(value: Any, otherwise: int) -> int:
    return otherwise if value is None else value


def _finite(value: Any) -> float | None:
    """`value` as a float; None where it is none, or not finite."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


# ---- the histogram and the movable cut -----------------------------------------------------------


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


def _histogram(scores: Sequence[float], cut: float | None) -> Histogram:
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


def _movable(scores: Sequence[float], histogram: Histogram, cut: float | None) -> dict[str, Any]:
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


# ---- text that cannot act ------------------------------------------------------------------------

# Characters that are invisible or steer the text around them: controls except tab and line break, direction
# marks, soft hyphens, zero-width and filler characters, tag characters and the variation selectors that carry
# hidden data, line and paragraph separators, lone surrogates. Joiners stay where scripts and emoji need them.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b"
    "\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufdd0-\ufdef\ufe00-\ufe0d\ufeff\uffa0"
    "\ufff0-\ufffb\ufffe\uffff\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
    "|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)


def spelled_out(text: str) -> str:
    r"""`text` with every hidden or direction-steering character as its code, such as `\u202e`."""
    return HIDDEN.sub(lambda found: _code(found[0]), text.replace("\r\n", "\n"))


def _code(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def marked(text: str) -> Markup:
    """`text` escaped, spelled-out characters in a `<span class="code">`, so that no text passes for one."""
    from markupsafe import Markup, escape

    text = text.replace("\r\n", "\n")
    parts, end = [], 0
    for found in HIDDEN.finditer(text):
        parts.append(f'{escape(text[end : found.start()])}<span class="code">{_code(found[0])}</span>')
        end = found.end()
    return Markup("".join(parts) + str(escape(text[end:])))


def script_json(value: Any) -> Markup:
    """Compact JSON that may stand in a script element: ASCII only, no character that ends or opens markup."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def policy_hash(text: str) -> str:
    """The source expression by which a content security policy allows exactly this inline script or style."""
    digest = hashlib.sha256(str(text).encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


# ---- the heat map --------------------------------------------------------------------------------


def heat_level(nats: float, ceiling: float) -> int:
    """0 (not forgotten) to HEAT_LEVELS (forgotten by `ceiling` nats or more), in equal steps."""
    if not nats > 0:  # also where it is not a number
        return 0
    return min(HEAT_LEVELS, math.ceil(HEAT_LEVELS * min(nats / ceiling, 1.0)))


def _heat_ceiling(shown: Mapping[str, Sequence[ReportRow]]) -> float:
    """The forgetting drawn strongest, one for the page: 1 in 50 of the forgotten tokens shown exceed it."""
    forgotten = sorted(
        nats for rows in shown.values() for row in rows for _, nats in row.tokens or () if 0 < nats < math.inf
    )
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


# ---- numbers in words ----------------------------------------------------------------------------


def spoken(value: Any) -> str:
    """A value of report.json as one would write it: `1,204`, `0.0834`, `0.33 (0.29 to 0.37)`, `not known`."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
        return text.replace("e-", "e~").replace("-", "−").replace("e~", "e-")
    if isinstance(value, Mapping):
        if "value" in value:
            low, high = value.get("low"), value.get("high")
            between = "" if None in (value["value"], low, high) else f" ({spoken(low)} to {spoken(high)})"
            return spoken(value["value"]) + between
        return ", ".join(f"{key} {spoken(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(spoken(item) for item in value)
    return str(value)


def p_in_words(p: float, compared: str) -> str:
    """`2 of 119 witnesses stand out as far`; a share where the count cannot be told.

    A conformal p-value of n rows is (1 + how many of them score as high) / (1 + n). `compared` names the rows with
    their number; of several groups, p is the largest of theirs, and the group whose count fits is named.
    """
    for count, name in COUNTS.findall(compared):
        times = p * (int(count) + 1) - 1
        if abs(times - round(times)) < 0.01 and times > -0.01:
            return f"{max(0, round(times)):,} of {int(count):,} {name} stand out as far"
    return f"{100 * p:.1f} % of {compared or 'clean rows'} stand out as far"


def in_rows(count: int) -> str:
    """`1 row`, `1,204 rows`."""
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def duration(seconds: Any) -> str:
    """`4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    known = _finite(seconds)
    if known is None:
        return "not known"
    if known < 60:
        return f"{known:.1f} s"
    whole = round(known)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def share(part: int, whole: int) -> str:
    """`12.3 %`; a part that is there never reads as 0.0 %, one that is not all never as 100.0 %."""
    if not part:
        return "0 %"
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "< 0.1 %"
    if 99.95 <= percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %"


def title(name: str) -> str:
    """`unsafe_share` as a heading: `Unsafe share`."""
    text = str(name).replace("_", " ")
    return NAMES.get(str(name), text[:1].upper() + text[1:])


COUNTS = re.compile(r"(\d+) (\D+?)(?= and \d|$)")
NAMES = {"auc": "AUC", "f1": "F1"}

SHOWN = {
    "drop": 500,
    "flag": 500,
    "keep": 50,
    "not judged": 50,
    "unscored": 200,
}  # rows of each decision the page carries

UNSTATED_LIMITS = [
    "The filter finds rows that training on safe rows makes the model forget. Covert or encoded data, and "
    "rows that the model never learned, can pass unseen."
]

FILTERS = {
    "duration": duration,
    "in_rows": in_rows,
    "marked": marked,
    "most_forgotten": most_forgotten,
    "passage": passage,
    "policy_hash": policy_hash,
    "script_json": script_json,
    "share": share,
    "spoken": spoken,
    "title": title,
}
