"""What a study measured, averaged over its seeds, drawn and written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from forgetfilter import runs
from forgetfilter.evaluate.compare import write_texts
from forgetfilter.evaluate.recipe import Recipe, setup
from forgetfilter.intervals import Estimate, over_seeds
from forgetfilter.report import plots, tables


class Point(NamedTuple):
    """One measurement at one seed. None: not defined there."""

    measure: str  # what `estimate` is; a plot of its own
    series: str  # a line of that plot
    x: float
    seed: int
    estimate: Estimate | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a study measured, and how to read it."""

    title: str
    x_label: str
    points: Sequence[Point]
    note: str
    x_words: Mapping[float, str] | None = None  # where x is a name, not a number


def write(recipe: Recipe, found: Found) -> None:
    """points.csv and points.json, an SVG for each measure, report.html."""
    drawn, shown = [], []
    for measure in dict.fromkeys(p.measure for p in found.points):
        chosen = [p for p in found.points if p.measure == measure]
        names, places = dict.fromkeys(p.series for p in chosen), sorted({p.x for p in chosen})
        means = {
            (name, x): over_seeds([p.estimate for p in chosen if (p.series, p.x) == (name, x)])
            for name in names
            for x in places
        }
        drawn.append(
            plots.lines(
                [plots.series_of(name, places, [means[name, x] for x in places]) for name in names],
                title=f"{found.title}: {measure}", x_label=found.x_label, y_label=measure, x_ticks=found.x_words,
            )
        )  # fmt: skip
        words_of = found.x_words or {}
        rows = [{"x": words_of.get(x, f"{x:.3g}")} | {name: means[name, x] for name in names} for x in places]
        columns = [tables.Column("x", found.x_label), *(tables.Column(name, name) for name in names)]
        shown.append(tables.Table(measure, columns, rows, NOTE))
    records = [
        {"measure": p.measure, "series": p.series, "x": p.x, "seed": p.seed}
        | (p.estimate.as_dict() if p.estimate else {"value": None, "low": None, "high": None, "n": 0})
        for p in found.points
    ]
    lines = io.StringIO()
    writer = csv.DictWriter(lines, POINT_FIELDS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(records)
    together = {
        "recipe": recipe.name, "title": found.title, "x_label": found.x_label, "note": found.note,
        "versions": runs.versions(), "commit": runs.source_commit(), "points": records,
    }  # fmt: skip
    text = f"{found.note}\n\n{setup(recipe)}"
    mixed = [section for pair in zip(drawn, shown, strict=True) for section in pair]
    write_texts(recipe.output, {
        "points.csv": lines.getvalue(),
        "points.json": json.dumps(together, ensure_ascii=False, indent=1) + "\n",
        "table.md": "\n".join(tables.to_markdown(table) for table in shown),
        "report.html": tables.page(f"{found.title}: {recipe.name}", [text, *mixed]),
        **{f"plot-{i}.svg": str(plot) for i, plot in enumerate(drawn, start=1)},
    })  # fmt: skip


NOTE = (
    "Means over seeds with the 95 % interval of Student's t; with one seed, its value with the interval of its rows, "
    "where it has one."
)
POINT_FIELDS = ("measure", "series", "x", "seed", "value", "low", "high", "n")
