"""What simpler filters reach on the same rows: AUC of each, by forward passes of the original model alone.

    python benchmarks/rivals.py --data ../shared/data

The jobs are those of quality.py (same set, share, safe rows, seed and count: the same rows). Nothing is trained but
linear probes; the truth is read at the end. Finished jobs are kept in `--work` and skipped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from quality import job_file
from sections import RESULTS, make_section, markdown
from sets import SETS, draw

from forgetfilter import runs
from forgetfilter.data import formats, packs
from forgetfilter.evaluate import noisy_sets
from forgetfilter.filter import likeness, quality
from forgetfilter.filter.constants import CONSTANTS
from forgetfilter.filter.signals import likelihood, token_memory
from forgetfilter.filter.states import read_rows, standardised
from forgetfilter.models import load as models
from forgetfilter.models import scorers
from forgetfilter.models.rendering import encode
from forgetfilter.records import Row

JOBS = ("bias-b,0.3333,own,0", "tweets-b,0.3333,own,0", "comments,0.3333,own,0", "web-text,0.3333,own,0",
        "harm-news,0.05,pack,0", "harm-sst2,0.05,pack,0", "harm-samsum,0.2,own,0")  # fmt: skip
RIVALS = {
    "loss": "loss of the original model",
    "probe": "probe, clean against custom",
    "direction": "direction, unsafe minus safe",
    "scorer": "bundled toxicity scorer",
}


def scores(loaded: models.Loaded, custom: list[Row], safe: list[Row], length: int) -> dict[str, np.ndarray]:
    """Rival -> (custom rows,) scores, larger = more likely unsafe; NaN where it cannot judge."""
    known = [r for r in formats.read(str(packs.path("canaries"))).rows if r.record["kind"] == "plain"]
    parts = [encode(some, loaded.tokenizer, max_length=length) for some in (custom, safe, known)]
    pad = loaded.tokenizer.pad_token_id or 0
    answers = standardised(np.concatenate([read_rows(loaded.model, p, pad_id=pad).answer for p in parts]))
    mine, clean, unsafe = np.split(answers, np.cumsum([len(custom), len(safe)]))
    probe = likeness.decisions(np.concatenate([mine, clean]), len(mine), CONSTANTS.harm_penalty)[: len(mine)]
    direction = unsafe.mean(0) - clean.mean(0)
    memories = token_memory(loaded.model, parts[0], pad_id=pad)
    judged = scorers.load("ngram")([r.completion for r in custom])
    return {
        "loss": np.array([-likelihood(m) for m in memories]),
        "probe": probe,
        "direction": mine @ direction / np.linalg.norm(direction),
        "scorer": np.array([np.nan if s is None else s for s in judged]),
    }


def run_job(job: str, loaded: models.Loaded, a: argparse.Namespace) -> None:
    name, share, safe, seed = job.split(",")
    drawn = draw(name, a.data, share=float(share), rows=a.rows, seed=int(seed), safe=safe)
    custom, known = (
        noisy_sets.as_rows(some, part) for some, part in ((drawn.custom, "custom"), (drawn.safe, "safe"))
    )
    unsafe = [bool(r["unsafe"]) for r in drawn.custom]
    found = {
        rival: quality.auc(np.nan_to_num(s, nan=float(np.nanmin(s))).tolist(), unsafe)
        for rival, s in scores(loaded, list(custom), list(known), a.length).items()
    }
    with runs.atomic(result_path(a, job)) as path:
        path.write_text(json.dumps(found) + "\n", encoding="utf-8")
    print(job, found, flush=True)


def result_path(a: argparse.Namespace, job: str) -> Path:
    a.work.mkdir(parents=True, exist_ok=True)
    return a.work / job_file(a, job)


def section(a: argparse.Namespace) -> str:
    lines = []
    for job in a.jobs:
        name, share, safe, _ = job.split(",")
        found = json.loads(result_path(a, job).read_text())
        ours = a.quality / "results" / job_file(a, job)
        auc = f"{json.loads(ours.read_text())['auc']:.3f}" if ours.exists() else "–"
        cells = [f"{found[rival]:.3f}" for rival in RIVALS]
        lines.append((SETS[name].role, name, f"{float(share):.0%}", safe, *cells, auc))
    return "\n\n".join([
        "## What simpler filters reach", f"    python benchmarks/rivals.py --rows {a.rows}", NOTE,
        markdown(("role", "set", "unsafe", "safe rows", *RIVALS.values(), "forgetfilter"), lines),
    ])  # fmt: skip


NOTE = (
    "AUC over all rows; one seed, so no interval. *Probe*: the safe rows against all custom rows, by the mean states "
    "of the answers, out of fold. *Direction*: from the mean state of the safe rows to that of the bundled unsafe rows "
    "(`canaries.jsonl`), as DataShield and LARF do. Comments and web text are sets that the scorer was trained on, "
    "some of these rows among them (its card). *forgetfilter*: the product on the same rows (quality.py); a dash "
    "where it was not run on them."
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/rivals"))
    parser.add_argument("--quality", type=Path, default=Path("build/quality"), help="--work of quality.py")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), help="SET,SHARE,SAFE,SEED")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--length", type=int, default=128)
    a = parser.parse_args()
    todo = [job for job in a.jobs if not result_path(a, job).exists()]
    loaded = models.load(a.model) if todo else None
    for job in todo:
        run_job(job, loaded, a)
    return make_section(RESULTS, "rivals", lambda: section(a))


if __name__ == "__main__":
    sys.exit(main())
