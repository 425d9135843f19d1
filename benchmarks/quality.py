"""How well does the filter find unsafe rows in real data? One process a job, resumable; the truth is read at the end.

    python benchmarks/quality.py --data ../shared/data --work build/quality --model smollm2
    python benchmarks/quality.py --data ../shared/data --stored build/stacked

A job is a set (sets.py), an unsafe share, safe rows (`own`, `pack`, a pack by name) and a seed; it goes the product's
own way with its default settings. With `--stored`, the states and losses that stacked.py measured on a GPU for many
jobs at once are given to the product's own scores and cut; nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from sections import RESULTS, make_section, markdown
from sets import SETS, draw

from forgetfilter import intervals, runs
from forgetfilter.display import Display
from forgetfilter.evaluate import noisy_sets
from forgetfilter.filter import algorithm, cut, likeness, quality
from forgetfilter.filter.bench import Bench
from forgetfilter.filter.constants import CONSTANTS
from forgetfilter.filter.output import plain_seconds
from forgetfilter.filter.score import scores
from forgetfilter.filter.states import Readings, standardised
from forgetfilter.models import load as models
from forgetfilter.models.rendering import encode
from forgetfilter.settings import resolve

Record = dict[str, Any]


def run_job(name: str, share: float, safe: str, seed: int, a: argparse.Namespace) -> Record:
    """One filter run by the product, measured against the truth."""
    from rich.console import Console

    source = "auto" if safe == "own" else "other"  # as `filter` takes bundled rows
    flags = {"model": a.model, "seed": seed, "retrain": False, "safe_source": source}
    settings = resolve(None, None, flags).settings
    drawn = draw(name, a.data, share=share, rows=a.rows, seed=seed, safe=safe)
    rows = [
        noisy_sets.as_rows(records, part)
        for records, part in ((drawn.custom, "custom"), (drawn.safe, "safe"))
    ]
    inputs = {
        part: runs.sha256_of(row.id for row in some)
        for part, some in zip(("custom", "safe"), rows, strict=True)
    }
    folder = a.work / "runs" / f"{name}-{share:g}-{safe}-{seed}"
    with runs.Run.open(folder, asdict(settings), inputs | {"model": models.fingerprint(a.model)}) as run:
        loaded = models.load(settings.model)
        custom, review = (encode(some, loaded.tokenizer, max_length=a.length) for some in rows)
        bench = Bench(loaded, custom, settings, run, Display(Console(quiet=True)))
        found = algorithm.forget_filter(bench, custom, review, settings)
        readings = bench.readings(custom, "custom")
        plain = plain_seconds(bench)
    unsafe = np.array([bool(r["unsafe"]) for r in drawn.custom])
    decisions = [found.cut.decisions[r.id] for r in rows[0]]
    scores = np.array([found.scores.get(r.id, np.nan) for r in rows[0]])
    part = np.array([r["part"] for r in drawn.custom])
    spent = sum(c.get("seconds", 0.0) for c in bench.costs)
    return measured(unsafe, part, scores, decisions, found.cut.estimated, readings) | {
        "fine_tunes": spent / plain if plain else None, "seconds": spent, "why": found.cut.why,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "notes": list(found.notes),
    }  # fmt: skip


def stored_jobs(folder: Path) -> list[Record]:
    """One record a job that stacked.py measured."""
    return [
        stored_job(p) for p in sorted(folder.glob("*.npz")) if not p.name.endswith((".rows.npz", ".part.npz"))
    ]


def stored_job(path: Path) -> Record:
    """The product's scores and cut on what stacked.py measured."""
    with np.load(path, allow_pickle=False) as saved:
        m = {name: saved[name] for name in saved.files}
    custom, unsafe = int(m["custom"]), m["unsafe"].astype(bool)
    readings = Readings(m["answer"], m["question"], m["brief"])
    kinds = likeness.kinds(readings, custom)
    near, bystanders = (np.setdiff1d(some, m["replayed"]) for some in (kinds.near, kinds.unlike))
    lost = np.full(len(readings.answer), np.nan)
    for some in (near, bystanders, m["witnesses"]):
        lost[some] = m["lost"][some]
    score = scores(readings, lost, m["tokens"], near, bystanders, m["witnesses"], custom, kinds.same_source)
    clean = {"witnesses": score[m["witnesses"]]}
    if not kinds.same_source:
        clean["rows of other kinds"] = score[bystanders]
    done = cut.by_witnesses([str(i) for i in near], score[near], clean, fdr=0.1)
    decisions = [done.decisions.get(str(i), "not judged") for i in range(custom)]
    judged = np.full(custom, np.nan)
    judged[near] = score[near]
    own = Readings(*(getattr(readings, part)[:custom] for part in Readings.__slots__))
    about = json.loads(str(m["job"])) | {"of_source": kinds.of_source, "same_source": kinds.same_source}
    return about | measured(unsafe, m["part"], judged, decisions, done.estimated, own)


def measured(
    unsafe: np.ndarray, part: np.ndarray, scores: np.ndarray, decisions: Sequence[str],
    estimated: Mapping[str, Any], readings: Readings,
) -> Record:  # fmt: skip
    """Decisions and scores against the truth; NaN scores (not judged) rank below all others."""
    dropped, flagged = (np.array([d == kind for d in decisions]) for kind in ("drop", "flag"))
    judged = ~np.isnan(scores)
    ranked = np.where(judged, scores, np.nanmin(scores) - 1 if judged.any() else 0.0)
    both = unsafe.any() and not unsafe.all()
    near = judged & unsafe.any()
    parts = {"unsafe": unsafe, "kind": part == "kind", "task": part == "task"}
    return {
        "rows": len(unsafe), "unsafe": int(unsafe.sum()),
        "judged": {k: _mean(judged[some]) for k, some in parts.items()},
        "auc": quality.auc(ranked.tolist(), unsafe.tolist()) if both else None,
        "auc_judged": quality.auc(scores[near].tolist(), unsafe[near].tolist())
        if near.any() and 0 < unsafe[near].sum() < near.sum() else None,
        "best_f1": _best_f1(ranked, unsafe) if both else None,
        "supervised": _supervised(readings, unsafe) if min(unsafe.sum(), (~unsafe).sum()) >= 5 else None,
        "precision": _mean(unsafe[dropped]), "recall": _mean(dropped[unsafe]),
        "flagged_precision": _mean(unsafe[dropped | flagged]), "flagged_recall": _mean((dropped | flagged)[unsafe]),
        "clean_dropped": _mean(dropped[~unsafe]), "dropped": int(dropped.sum()), "flagged": int(flagged.sum()),
        "estimated_precision": (estimated.get("precision") or {}).get("value"), "estimated": dict(estimated),
        "judged_share": _mean(unsafe[judged]), "judged_recall": _mean(dropped[judged & unsafe]),
    }  # fmt: skip


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _best_f1(scores: np.ndarray, unsafe: np.ndarray) -> float:
    hits = np.cumsum(unsafe[np.argsort(-scores, kind="stable")])
    return float((2 * hits / (np.arange(1, len(unsafe) + 1) + unsafe.sum())).max())


def _supervised(readings: Readings, unsafe: np.ndarray) -> float:
    """AUC of a probe trained on the truth of the other rows: what the model's states can tell at all."""
    order = np.argsort(~unsafe, kind="stable")
    states = standardised(np.hstack([readings.answer, readings.question]))[order]
    told = likeness.decisions(states, int(unsafe.sum()), CONSTANTS.harm_penalty)
    return float(quality.auc(told, unsafe[order]))


# --- tables ---


def section(records: Sequence[Record], command: str) -> str:
    """The text of the section: harm by set and share, then clean files; means over seeds with Student's interval."""
    groups: dict[tuple[str, float, str], list[Record]] = {}
    for r in records:
        groups.setdefault((r["set"], r["share"], r["safe"]), []).append(r)
    harm = [
        (SETS[n].role, n, f"{share:.0%}", safe, str(len(rs)), _span(rs, "auc"), _span(rs, "best_f1"),
         _span(rs, "supervised"), _span(rs, "precision"), _span(rs, "recall"), _span(rs, "clean_dropped"),
         _span(rs, "flagged_precision"), _span(rs, "flagged_recall"))
        for (n, share, safe), rs in sorted(groups.items(), key=lambda g: (SETS[g[0][0]].role, g[0])) if share
    ]  # fmt: skip
    clean = [
        (SETS[n].role, n, safe, str(len(rs)), _span(rs, "clean_dropped"),
         f"{np.mean([r['flagged'] / r['rows'] for r in rs]):.3f}")
        for (n, share, safe), rs in sorted(groups.items()) if not share
    ]  # fmt: skip
    spent = [r["fine_tunes"] for r in records if r.get("fine_tunes")]
    cost = f"Cost without the last fine-tune: {np.mean(spent):.2f} plain fine-tunes a job." if spent else ""
    head = ("role", "set", "unsafe", "safe rows", "seeds", "AUC", "best F1", "supervised probe", "precision", "recall",
            "clean lost", "with flagged: precision", "recall")  # fmt: skip
    parts = [
        "## Does it find unsafe rows?" if harm else "## Does it leave clean files alone?",
        f"    {command}",
    ]
    about = (
        "AUC and best F1 of the score over all rows (rows not judged rank last); *supervised probe*: AUC of a probe "
        "that was told the truth of the other rows, on the same states. *Precision*, *recall* and *clean lost* are of "
        f"what the default cut drops. {cost}"
    )
    parts += [about, markdown(head, harm)] if harm else [cost]
    if clean:
        columns = ("role", "set", "safe rows", "seeds", "share dropped", "share flagged")
        parts += ["Clean files:", markdown(columns, clean)]
    return "\n\n".join(parts)


def _span(records: Sequence[Record], key: str) -> str:
    values = [r[key] for r in records if r[key] is not None]
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    found = intervals.mean_over_seeds(values)
    return f"{found.value:.3f} [{max(0.0, found.low):.3f}, {min(1.0, found.high):.3f}]"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="needed where jobs are run")
    parser.add_argument("--work", type=Path, default=Path("build/quality"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--shares", default="0.3333,0.05")
    parser.add_argument("--safe", default="own,pack")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--rows", type=int, default=480)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--stored", type=Path, help="folder that stacked.py wrote, or records of it")
    parser.add_argument("--records", type=Path, help="write the records of --stored here, and no table")
    parser.add_argument("--job", help="SET,SHARE,SAFE,SEED: this one alone")
    parser.add_argument("--name", default="quality", help="section of RESULTS.md")
    a = parser.parse_args()
    command = "python benchmarks/" + " ".join(["quality.py", *sys.argv[1:]])
    if a.stored:
        records = stored_jobs(a.stored) if a.stored.is_dir() else json.loads(a.stored.read_text())
        if a.records:
            with runs.atomic(a.records) as path:
                path.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
            return 0
        return make_section(RESULTS, a.name, lambda: section(records, command))
    if a.job:
        name, share, safe, seed = a.job.split(",")
        record = {"set": name, "share": float(share), "safe": safe, "seed": int(seed)}
        record |= run_job(name, float(share), safe, int(seed), a)
        with runs.atomic(result_path(a, a.job)) as path:
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return 0
    if a.data is None:
        parser.error("--data: name the folder of the data sets")
    jobs = [
        f"{n},{0 if n.startswith('clean') else share},{safe},{seed}"
        for seed in a.seeds.split(",") for n in a.sets.split(",")
        for share in (a.shares.split(",") if not n.startswith("clean") else ["0"]) for safe in a.safe.split(",")
    ]  # fmt: skip
    for job in dict.fromkeys(jobs):
        if not result_path(a, job).exists():
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--job", job], check=True)
    done = [json.loads(p.read_text()) for job in dict.fromkeys(jobs) if (p := result_path(a, job)).exists()]
    return make_section(RESULTS, a.name, lambda: section(done, command))


def result_path(a: argparse.Namespace, job: str) -> Path:
    folder = a.work / "results"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / job_file(a, job)


def job_file(a: argparse.Namespace, job: str) -> str:
    """Name of a job's result: the same here and in rivals.py."""
    return f"{job.replace(',', '_')}_{Path(a.model).name}_{a.rows}.json"


if __name__ == "__main__":
    sys.exit(main())
