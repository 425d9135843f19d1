"""One HTML page for a run of `filter`: what was found, why, and how sure.

The page needs no network and its rows cannot act: every string is escaped, characters that would hide or
reorder text are spelled out, and the page's own security policy names the hash of the one script and the one
style it may use, so that even markup that slipped through could neither run nor load anything.
"""

from __future__ import annotations

import heapq
import json
import math
import shlex
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetfilter.errors import ConfigError
from forgetfilter.records import Decision
from forgetfilter.report.heat import most_forgotten, passage, strongest
from forgetfilter.report.histogram import histogram_of, movable
from forgetfilter.report.text import finite, in_rows, page_template
from forgetfilter.runs import atomic

HEAT_FILE = "heat.jsonl"


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One row as the report shows it. `score` is None where the row could not be scored.

    `score`, `forgetting`: larger = more likely unsafe. `remembered`: by model state (`learned`,
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
    try:
        with ExitStack() as whole:
            unfinished = whole.enter_context(atomic(path))
            heat = unfinished.with_name(f".{unfinished.name}-{HEAT_FILE}")
            whole.callback(heat.unlink, missing_ok=True)
            unfinished.write_text(render_report(report, _noting_heat(rows, heat)), "utf-8", newline="\n")
            if heat.exists():
                heat.replace(path.with_name(HEAT_FILE))
    except OSError as error:
        raise ConfigError(
            f"{path}: the report cannot be written ({error.strerror}). Free some space or name another "
            f"folder with --output; report.json and scores.jsonl hold the same numbers."
        ) from error


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
    return page_template("template.html", passage=passage, most_forgotten=most_forgotten).render(
        _context(report, rows)
    )


def _context(report: Mapping[str, Any], rows: Iterable[ReportRow]) -> dict[str, Any]:
    """Everything the template prints; report.json may lack any entry."""
    found = _survey(rows)
    stated = _mapping(report, "counts")
    counts = {decision: int(_either(stated.get(decision), found.counts[decision])) for decision in SHOWN}
    total = int(_either(stated.get("rows"), sum(counts.values())))
    threshold = _mapping(report, "threshold")
    cut = finite(threshold.get("value"))
    scores = sorted(found.scores)
    histogram = histogram_of(scores, cut) if scores else None
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
        "movable": movable(scores, histogram, cut) if histogram else None,
        "now_above": len(scores) - bisect_right(scores, cut) if cut is not None else 0,
        "cards": [
            row for decision in ("drop", "flag", "keep", "not judged") for row in found.shown[decision]
        ],
        "unscored": found.shown["unscored"],
        "shown": {decision: len(shown) for decision, shown in found.shown.items()},
        "heat": strongest(row.tokens for rows in found.shown.values() for row in rows),
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
        score = finite(row.score) if row.decision != "unscored" else None
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
