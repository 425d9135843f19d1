"""Tables of results as Markdown, CSV, JSON and HTML, and the page that holds them beside their plots.

A cell that was not measured (None, or a number that is not finite) is an en dash, never 0. Where a column
says which direction is better, a mark stands on the best value and on every value that cannot be told apart
from it: one whose interval meets that of the best. A number without an interval is a point; an estimate whose
interval is unknown (one seed) cannot be told apart from anything. Where all measured values would be marked,
none is: the table then shows no winner.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Integral, Real
from typing import Any, Literal

from forgetfilter.intervals import Estimate
from forgetfilter.report import svg
from forgetfilter.report.svg import STYLE, Svg, decimal
from forgetfilter.report.text import page_template, spelled_out

Cell = str | int | float | bool | Estimate | None

MARKED = "Bold: the best, and what cannot be told apart from it (its interval meets that of the best)."


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `key` in the rows and files, `title` for readers, digits behind the point of a float."""

    key: str
    title: str
    better: Literal["higher", "lower"] | None = None
    digits: int = 3


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; the first column names the row. A key that a row lacks was not measured."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    note: str = ""

    def __post_init__(self) -> None:
        keys = [column.key for column in self.columns]
        if len(set(keys)) < len(keys):
            raise ValueError(f"table {self.title!r}: a column key occurs twice in {keys}")

    def column(self, column: Column) -> list[Cell]:
        """The cells of a column from the first row to the last."""
        return [_cell(row.get(column.key), column.key) for row in self.rows]


def best(cells: Sequence[Cell], better: Literal["higher", "lower"] | None) -> list[bool]:
    """Which cells carry the mark; the rule is at the top of this file."""
    spans = [_span(cell) for cell in cells]
    measured = [span for span in spans if span is not None]
    if better is None or not measured:
        return [False] * len(cells)
    top = (max if better == "higher" else min)(value for value, _, _ in measured)
    # Of equal best values the widest interval counts.
    low = min(low for value, low, _ in measured if value == top)
    high = max(high for value, _, high in measured if value == top)
    marks = [span is not None and span[1] <= high and low <= span[2] for span in spans]
    return marks if sum(marks) < len(measured) else [False] * len(cells)


def to_markdown(table: Table) -> str:
    """A GitHub-flavoured Markdown table under its title; marked cells in bold."""
    columns = [(column, table.column(column)) for column in table.columns]
    marks = [best(cells, column.better) for column, cells in columns]
    lines = [
        f"### {_markdown(table.title)}",
        "",
        _row([_markdown(column.title) + ARROWS[column.better] for column, _ in columns]),
        _row(["---:" if _is_numeric(cells) else "---" for _, cells in columns]),
    ]
    for r in range(len(table.rows)):
        words = [
            _markdown(cell) if isinstance(cell, str) else written(cell, column.digits)
            for column, cells in columns
            for cell in [cells[r]]
        ]
        lines.append(_row([f"**{w}**" if mark[r] else w for w, mark in zip(words, marks, strict=True)]))
    for note in _notes(table, marks):
        lines += ["", _markdown(note)]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """Comma-separated values under the keys, full precision, empty where not measured.

    A column that holds an Estimate becomes three: `key`, `key_low`, `key_high`. Text that a spreadsheet
    would run as a formula gets an apostrophe in front.
    """
    columns = [(column, table.column(column)) for column in table.columns]
    header: list[str] = []
    fields: list[list[str]] = []
    for column, cells in columns:
        header.append(column.key)
        fields.append([_field(cell.value if isinstance(cell, Estimate) else cell) for cell in cells])
        if any(isinstance(cell, Estimate) for cell in cells):
            for end in ("low", "high"):
                header.append(f"{column.key}_{end}")
                fields.append([_field(getattr(cell, end, None)) for cell in cells])
    if len(set(header)) < len(header):
        raise ValueError(f"table {table.title!r}: columns of the same name in CSV: {header}")
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(_field, header))
    writer.writerows(zip(*fields, strict=True))
    return file.getvalue()


def to_json(table: Table) -> str:
    """Title, note, columns and rows; an estimate with all it knows, null where not measured."""
    record = {
        "title": table.title,
        "note": table.note,
        "columns": [
            {"key": column.key, "title": column.title, "better": column.better} for column in table.columns
        ],
        "rows": [
            {
                column.key: cell.as_dict() if isinstance(cell, Estimate) else cell
                for column in table.columns
                for cell in [_cell(row.get(column.key), column.key)]
            }
            for row in table.rows
        ],
    }
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def to_html_fragment(table: Table) -> str:
    """The table under its title, escaped; `page` gives it its looks and makes its headers sort."""
    columns = [(column, table.column(column)) for column in table.columns]
    marks = [best(cells, column.better) for column, cells in columns]
    shared = [_shared_count(cells) for _, cells in columns]
    heads = "".join(
        _head(column, cells, count) for (column, cells), count in zip(columns, shared, strict=True)
    )
    body = []
    for r in range(len(table.rows)):
        cells = [
            _td(cells[r], column, is_first=c == 0, is_numeric=_is_numeric(cells), mark=marks[c][r],
                count="" if shared[c] else _count(cells[r]))
            for c, (column, cells) in enumerate(columns)
        ]  # fmt: skip
        body.append(f"<tr>{''.join(cells)}</tr>")
    name = _safe(table.title)
    notes = "".join(f'<p class="small soft">{_safe(note)}</p>\n' for note in _notes(table, marks))
    return (
        f'<h2>{name}</h2>\n<div class="scroll" role="region" aria-label="{name}" tabindex="0">'
        f'<table class="results" aria-label="{name}">\n<thead><tr>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(body)
        + f"\n</tbody></table></div>\n{notes}"
    )


def page(title: str, sections: Sequence[Table | Svg | str], *, subtitle: str = "") -> str:
    """One HTML file without network, light and dark, for desk, phone and paper.

    `sections` in order: a Table, a plot (`Svg`, the only thing printed unescaped), or plain text, whose
    blank lines part paragraphs. All text is escaped, hidden and direction-steering characters spelled out.
    """
    from markupsafe import Markup

    shown = []
    for section in sections:
        if isinstance(section, Table):
            shown.append({"kind": "table", "title": section.title, "html": Markup(to_html_fragment(section))})
        elif isinstance(section, Svg):
            wide, narrow = (
                Markup(_inline(plot, kind)) for plot, kind in ((section, "wide"), (section.narrow, "narrow"))
            )
            shown.append({"kind": "plot", "title": section.heading, "wide": wide, "narrow": narrow})
        else:
            shown.append(
                {
                    "kind": "text",
                    "title": "",
                    "paragraphs": [p for p in re.split(r"\n\s*\n", section.strip()) if p],
                }
            )
    for number, section in enumerate(shown):
        section["id"] = f"part-{number}"
    return page_template("results.html").render(
        title=title,
        subtitle=subtitle,
        sections=shown,
        titled=sum(bool(section["title"]) for section in shown),
        light=svg.variables(svg.LIGHT),
        dark=svg.variables(svg.DARK),
        plot_style=Markup(STYLE),
    )


def _inline(plot: str, kind: str) -> str:
    """A plot for use within a page, which states the one style of all plots itself."""
    return plot.replace(f"<style>{STYLE}</style>\n", "", 1).replace('class="ff"', f'class="ff {kind}"', 1)


# ---- cells ---------------------------------------------------------------------------------------


def _cell(value: Any, key: str) -> Cell:
    """A value as one of the kinds a table knows; not finite reads as not measured."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Estimate):
        return value if math.isfinite(value.value) else None
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"column {key!r}: a cell cannot hold {type(value).__name__}")


def _span(cell: Cell) -> tuple[float, float, float] | None:
    """Value and the ends it is known by; None where there is no number."""
    if cell is None or isinstance(cell, (str, bool)):
        return None
    if not isinstance(cell, Estimate):
        return float(cell), float(cell), float(cell)
    if cell.low is None or cell.high is None:
        return cell.value, -math.inf, math.inf
    return cell.value, cell.low, cell.high


def _is_numeric(cells: Sequence[Cell]) -> bool:
    known = [cell for cell in cells if cell is not None]
    return bool(known) and all(_span(cell) is not None for cell in known)


def written(cell: Cell, digits: int = 3) -> str:
    """A cell for readers: `0.912 [0.893, 0.931]`, `1,204`, `yes`, `–`."""
    if isinstance(cell, Estimate):
        return f"{decimal(cell.value, digits)} {_interval(cell, digits)}"
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}".replace("-", "−")
    return cell if isinstance(cell, str) else decimal(cell, digits)


def _interval(estimate: Estimate, digits: int) -> str:
    if estimate.low is None or estimate.high is None:
        return "[no interval]"
    return f"[{decimal(estimate.low, digits)}, {decimal(estimate.high, digits)}]"


def _count(cell: Cell) -> str:
    """What an estimate rests on: `n = 1,200`, `3 seeds`."""
    if not isinstance(cell, Estimate):
        return ""
    if cell.seeds is None:
        return f"n = {cell.n:,}"
    return f"{cell.seeds} seed{'' if cell.seeds == 1 else 's'}"


def _shared_count(cells: Sequence[Cell]) -> str:
    """The count that all estimates of a column rest on, for its header; empty where they differ."""
    counts = {_count(cell) for cell in cells} - {""}
    return counts.pop() if len(counts) == 1 else ""


def _notes(table: Table, marks: Sequence[Sequence[bool]]) -> list[str]:
    return [note for note in (table.note, MARKED if any(map(any, marks)) else "") if note]


# ---- escaping ------------------------------------------------------------------------------------

ARROWS = {"higher": "\N{NO-BREAK SPACE}↑", "lower": "\N{NO-BREAK SPACE}↓", None: ""}
DIRECTIONS = {"higher": "higher is better", "lower": "lower is better"}


def _markdown(text: str) -> str:
    """Text that Markdown prints as it is: no markup, no cell, no line of its own."""
    text = " ".join(spelled_out(text).split())
    text = re.sub(r"([\\`*\[\]|#~])", r"\\\1", text)
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _field(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if not isinstance(cell, str):
        return repr(cell)
    text = spelled_out(cell)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _head(column: Column, cells: Sequence[Cell], count: str) -> str:
    arrow = ""
    if column.better:
        arrow = (
            f'<span aria-hidden="true">{ARROWS[column.better]}</span>'
            f'<span class="unseen">, {DIRECTIONS[column.better]}</span>'
        )
    kind = ' class="n"' if _is_numeric(cells) else ""
    first = ' data-first="descending"' if column.better == "higher" else ""
    note = f'<span class="count">{count}</span>' if count else ""
    return f'<th scope="col"{kind}{first}><span class="name">{_safe(column.title)}{arrow}</span>{note}</th>'


def _td(cell: Cell, column: Column, *, is_first: bool, is_numeric: bool, mark: bool, count: str) -> str:
    span = _span(cell)
    kind = " ".join(name for name, holds in (("n", is_numeric), ("best", mark)) if holds)
    tag, attributes = ("th", ' scope="row"') if is_first else ("td", "")
    attributes += f' class="{kind}"' if kind else ""
    if span is not None:
        attributes += f' data-value="{span[0]!r}"'
    if cell is None:
        inside = '<span aria-hidden="true">–</span><span class="unseen">not measured</span>'
    elif isinstance(cell, Estimate):
        inside = (
            f"{decimal(cell.value, column.digits)} "
            f'<span class="interval">{_interval(cell, column.digits)}</span>'
        ) + (f' <span class="count">{count}</span>' if count else "")
    else:
        # Names such as self_correction may go on in the next line.
        inside = _safe(written(cell, column.digits)).replace("_", "_<wbr>")
    return f"<{tag}{attributes}>{inside}</{tag}>"


def _safe(text: str) -> str:
    return escape(spelled_out(text))
