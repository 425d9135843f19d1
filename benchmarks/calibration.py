"""Are the filter's own estimates right? Precision, recall and unsafe share, as estimated and in truth.

    python benchmarks/calibration.py --data ../shared/data --states build/vetted
    python benchmarks/calibration.py --stored build/stacked build/seeds

The first is of estimates from random verdicts of a person (here the truth of a row), on the states that vetted.py
keeps, over all its sets and shares. The second is of those from witnesses, clean rows that the filter holds back, on
the jobs that stacked.py keeps. Nothing is trained. Draws are kept in --work, a file a set, and not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from quality import stored_jobs
from sections import RESULTS, make_section, markdown
from vetted import CHOOSING, HUNDREDTH, REPORTING, THIRD, TWENTIETH, Bench, Ground, Set, against, asked

from forgetfilter import runs
from forgetfilter.filter import certify, probe, propose
from forgetfilter.filter.certify import exact
from forgetfilter.intervals import Estimate
from forgetfilter.report import plots

Record = dict[str, Any]
PLOT = Path(__file__).parents[1] / "docs" / "calibration.svg"
WITHIN = {
    "share": 0.03,
    "precision": 0.07,
    "recall": 0.07,
}  # how far from the truth an estimate should lie at most
WAYS = {
    "50 random verdicts": (50, 50),
    "200 random verdicts": (200, 200),
    "30 random, 70 proposed": (30, 100),
}
DRAWS = 6
BINS = 8


def by_verdicts(ground: Ground, seed: int, random: int, looks: int) -> dict[str, list[float] | None]:
    """What -> [estimated, low, high, true] after so many looks, the first of them random; None: not estimated."""
    truth = ground.unsafe
    seen = np.array(asked(ground, propose.random_order(len(truth), seed)[:random].tolist(), looks))
    scores, held_out = probe.score(ground.states, seen, truth[seen])
    cut = certify.cut(scores, held_out, seen, truth[seen], np.arange(looks) < random)
    real = against(cut.dropped, truth)
    true = {"share": float(truth.mean()), "precision": real["precision"], "recall": real["recall"]}
    found: dict[str, list[float] | None] = {}
    for what, value in true.items():
        estimate: Estimate | None = getattr(cut, what)
        known = estimate is not None and value is not None
        found[what] = [estimate.value, estimate.low, estimate.high, value] if known else None  # ty: ignore
    return found


def draws(bench: Bench, title: str, of: Set) -> list[Record]:
    """Every way and share of one set."""
    found = []
    for share in (THIRD, TWENTIETH, HUNDREDTH):
        for seed in range(DRAWS):
            ground = bench.file(of, share, 5000 + seed)
            for way, (random, looks) in WAYS.items():
                told = by_verdicts(ground, seed, random, looks)
                found.append({"set": title, "share": share, "seed": seed, "way": way, "told": told})
    return found


def by_witnesses(jobs: Sequence[Record]) -> list[Record]:
    """Runs of the filter in the same form."""
    found = []
    for r in jobs:
        pairs = {
            "share": r.get("judged_share"),
            "precision": r["precision"],
            "recall": r.get("judged_recall"),
        }
        estimated = r.get("estimated") or {}
        told = {
            what: [e["value"], e["low"], e["high"], true]
            if true is not None and (e := estimated.get("unsafe_share" if what == "share" else what))
            else None
            for what, true in pairs.items()
        }
        found.append(
            {"set": r["set"], "share": r["share"], "seed": r["seed"], "way": "witnesses", "told": told}
        )
    return found


def table(records: Sequence[Record]) -> str:
    lines = []
    for way in ("witnesses", *WAYS):
        for share in (THIRD, 0.2, TWENTIETH, HUNDREDTH, 0.0):
            of_it = [r for r in records if r["way"] == way and abs(r["share"] - share) < 0.005]
            if of_it:
                lines.append((way, f"{share:.0%}", str(len(of_it)), *cells(of_it)))
        if of_it := [r for r in records if r["way"] == way]:
            lines.append((f"**{way}**", "all", str(len(of_it)), *cells(of_it)))
    head = ["estimates from", "unsafe", "runs"]
    for what, most in WITHIN.items():
        head += [f"{what}: null", f"within ±{most:g}", "interval holds"]
    return markdown(head, lines)


def cells(records: Sequence[Record]) -> list[str]:
    """Per quantity: how often nothing is estimated; of the others, how many are near the truth and held."""
    said = []
    for what, most in WITHIN.items():
        told = [t for r in records if (t := r["told"][what])]
        near = sum(abs(value - true) <= most + 1e-9 for value, _, _, true in told)
        held = sum(low - 1e-9 <= true <= high + 1e-9 for _, low, high, true in told)
        said += [str(len(records) - len(told)), _share(near, len(told)), _share(held, len(told))]
    return said


def _share(count: int, n: int) -> str:
    found = exact(count, n)
    return "–" if found is None else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def plot(records: Sequence[Record]) -> str:
    """Mean estimate over the truth, in bins of the truth, with the middle nine tenths of the estimates."""
    series = [plots.Series("equal", [0.0, 1.0], [0.0, 1.0])]
    for what in WITHIN:
        told = np.array([t for r in records if (t := r["told"][what])], float)
        places, means = [], list[Estimate | None]()
        for some in np.array_split(told[np.argsort(told[:, 3], kind="stable")], BINS):
            value, (low, high) = float(some[:, 0].mean()), np.quantile(some[:, 0], (0.05, 0.95))
            places.append(float(some[:, 3].mean()))
            means.append(Estimate(value, float(low), float(high), len(some)))
        series.append(plots.series_of(what, places, means))
    return plots.lines(
        series, title="Estimated from verdicts, against the truth", x_label="true value",
        y_label="estimated: mean and middle 90 %", y_range=(0, 1), x_ticks=[0, 0.25, 0.5, 0.75, 1],
    )  # fmt: skip


def section(title: str, command: str, note: str, records: Sequence[Record]) -> str:
    return "\n\n".join(
        [f"## {title}", f"    python benchmarks/calibration.py {command}", note, table(records)]
    )


COLUMNS = (
    "*null*: runs in which nothing is estimated, or nothing is there to compare with; they are in no share. Wanted: at "
    "least 0.90 within."
)
NOTE = (
    "Estimated against true precision and recall of what is dropped, and the unsafe share, with a person's verdicts, "
    f"of the whole file, all eleven sets of vetted.py, {DRAWS} draws each. {COLUMNS} Means by true value: "
    "[docs/calibration.svg](../docs/calibration.svg)."
)
NOTE_WITNESSES = (
    "The same of the default filter without verdicts, of the judged rows: its scores, cut and estimates on the stored "
    f"jobs of the tables above, choosing and reporting sets together. {COLUMNS}"
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="public data; for the estimates from verdicts")
    parser.add_argument("--states", type=Path, default=Path("build/vetted"), help="work folder of vetted.py")
    parser.add_argument(
        "--stored", type=Path, nargs="+", help="folders that stacked.py wrote: the estimates from witnesses"
    )
    parser.add_argument("--work", type=Path, default=Path("build/calibration"))
    parser.add_argument("--sets", help="draw for these sets alone, titles joined by semicolons")
    a = parser.parse_args()
    if a.stored:
        command = f"--stored {' '.join(map(str, a.stored))}"
        found = by_witnesses([job for folder in a.stored for job in stored_jobs(folder)])
        title = "Estimates from witnesses"
        return make_section(
            RESULTS, "calibration-witnesses", lambda: section(title, command, NOTE_WITNESSES, found)
        )
    if a.data is None:
        parser.error("--data: name the folder of the data sets")
    a.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(a.data, a.states, "smollm2")
    for title, of in {**CHOOSING, **REPORTING}.items():
        path = a.work / f"{of.unsafe}-{of.tasks[0]}.json"
        if not path.exists() and (a.sets is None or title in a.sets.split(";")):
            with runs.atomic(path) as file:
                file.write_text(json.dumps(draws(bench, title, of)) + "\n", encoding="utf-8")
            print(title, flush=True)
    records = [r for p in sorted(a.work.glob("*.json")) for r in json.loads(p.read_text(encoding="utf-8"))]
    with runs.atomic(PLOT) as file:
        file.write_text(plot(records), encoding="utf-8")
    title, command = "Are the estimates right?", "--data ../shared/data"
    return make_section(RESULTS, "calibration", lambda: section(title, command, NOTE, records))


if __name__ == "__main__":
    sys.exit(main())
