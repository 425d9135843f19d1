"""Results of `unlearn` over seeds, as a record and as the paper's tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from forgetfilter.evaluate.results import Evaluation, Metric
from forgetfilter.intervals import over_seeds
from forgetfilter.runs import Run
from forgetfilter.unlearn.materials import Material
from forgetfilter.unlearn.recipe import UnlearnRecipe
from forgetfilter.unlearn.trials import Trial


def results(
    r: UnlearnRecipe,
    trials: Sequence[Trial],
    found: Mapping[int, Mapping[str, Mapping[str, Evaluation]]],
    materials: Mapping[int, Material],
    run: Run,
) -> dict[str, Any]:
    rows = []
    for t in trials:
        per_seed = [found[seed][t.slug] for seed in r.seeds]
        numbers: dict[str, Any] = {}
        for evaluator in per_seed[0]:
            for metric in per_seed[0][evaluator].metrics:
                numbers[metric.name] = {
                    **seeds_together([each[evaluator][metric.name] for each in per_seed]),
                    "better": metric.better,
                }
        rows.append(
            {
                "table": t.table, "model": t.state.name, "data": t.state.data or None, "cfg": t.state.cfg,
                "epochs": t.state.epochs or None, "scale": t.scale, "form": t.form or None, "attack": t.attack,
                "samples": t.samples, "answers": per_seed[0]["leakage"].settings["rows"],
                "precision": per_seed[0]["leakage"].settings.get("precision"), "metrics": numbers,
            }
        )  # fmt: skip
    pairs = {}
    for seed in r.seeds:
        for data in ("own", "other"):
            stage = run.folder / "stages" / f"seed{seed}-pairs-{data}" / "done.json"
            if stage.exists():
                pairs[f"seed {seed}, {data}"] = json.loads(stage.read_text(encoding="utf-8"))
    return {
        "settings": asdict(r),
        "versions": dict(run.versions),
        "dialogues": {str(s): {"train": len(m.train), "test": len(m.test)} for s, m in materials.items()},
        "replacements": pairs,
        "rows": rows,
    }


def seeds_together(metrics: Sequence[Metric]) -> dict[str, Any]:
    """One seed: its own interval, over rows. Several: the mean over seeds with Student's t interval."""
    estimate = over_seeds([m.estimate for m in metrics])
    return {
        "estimate": None if estimate is None else estimate.as_dict(),
        "per_seed": [None if m.estimate is None else m.estimate.value for m in metrics],
        "unscored": sum(m.unscored for m in metrics),
    }


TITLES = {
    1: "Table 1: what each step does",
    2: "Table 2: replacements of the model's own family against others",
    3: "Table 3: both forms of guidance on the larger test set",
    4: "Table 4: does it hold",
    5: "Table 5: beside other methods",
}
COLUMNS = {  # metric -> heading, digits
    "pii_count": ("PII found ↓", 1),
    "training_pii_count": ("of training ↓", 1),
    "pii_count_worst": ("PII, worst ↓", 0),
    "leaking_share": ("answers that leak ↓", 3),
    "degenerate_share": ("degenerate ↓", 3),
    "task_f1": ("task F1 ↑", 3),
    "perplexity": ("perplexity ↓", 2),
}


def markdown(results: Mapping[str, Any]) -> str:
    """The tables of a results record; each number with its interval, – where it was not measured."""
    lines = ["# Unlearning personal data", ""]
    for name, counts in results["replacements"].items():
        passed = counts["candidates_passed"] / counts["candidates"] if counts["candidates"] else 0
        lines.append(
            f"Replacements, {name}: {sum(counts['pairs'].values())} pairs for {counts['samples']} samples "
            f"({', '.join(f'{n} {source}' for source, n in counts['pairs'].items())}); {passed:.0%} of "
            f"{counts['candidates']} candidates passed; {counts['unanswered']} samples without a pair."
        )
    if written := sorted({row.get("precision") for row in results["rows"]} - {None}):
        lines += ["", f"Answers written in {', '.join(written)}."]
    for table in sorted({row["table"] for row in results["rows"]}):
        rows = [row for row in results["rows"] if row["table"] == table]
        shown = {m: c for m, c in COLUMNS.items() if any(m in row["metrics"] for row in rows)}
        head = ["model", "data", "epochs", "γ", "form", "asked", "answers", *(c[0] for c in shown.values())]
        lines += ["", f"## {TITLES[table]}", "", _line(head), _line(["---"] * len(head))]
        lines += [_line([*_labels(row), *(_cell(row, m, c[1]) for m, c in shown.items())]) for row in rows]
    return "\n".join(lines) + "\n"


def _labels(row: Mapping[str, Any]) -> Iterator[str]:
    asked = [row["attack"]] * (row["attack"] != "none") + [f"{row['samples']} samples"] * bool(row["samples"])
    yield row["model"]
    yield row["data"] or "–"
    yield f"{row['epochs']:g}" if row["epochs"] else "–"
    yield f"{row['scale']:g}" if row["cfg"] or row["form"] else "–"
    yield row["form"] or "–"
    yield ", ".join(asked) or "greedy"
    yield str(row["answers"])


def _cell(row: Mapping[str, Any], metric: str, digits: int) -> str:
    estimate = row["metrics"].get(metric, {}).get("estimate")
    if estimate is None:
        return "–"
    if estimate["low"] is None:
        return f"{estimate['value']:.{digits}f}"
    return f"{estimate['value']:.{digits}f} [{estimate['low']:.{digits}f}, {estimate['high']:.{digits}f}]"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
