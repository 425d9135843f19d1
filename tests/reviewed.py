"""Makes the folder of a finished run, by its files alone, as `filter` leaves them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter import runs
from forgetfilter.data import formats

STEMS = {"drop": "dropped", "flag": "flagged"}


def run_folder(
    folder: Path, records: Sequence[dict], decisions: Sequence[str], scores: Sequence[float | None], *,
    suffix: str = ".jsonl", p: Sequence[float | None] | None = None, heat: dict[int, list] | None = None,
    evidence: dict[int, Any] | None = None, cut: float | None = 0.5, version: str | None = None,
) -> Path:  # fmt: skip
    """The run of these rows, all in order."""
    folder.mkdir(parents=True)
    source = folder.parent / f"custom{suffix}"
    if suffix == ".json":
        source.write_text(json.dumps(records), "utf-8")
    elif suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(records)), source)
    else:
        source.write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")
    dataset = formats.read(source)
    stems = [STEMS.get(decision, "kept") for decision in decisions]
    files = [
        formats.write(dataset, [i for i, s in enumerate(stems) if s == stem], folder / stem)
        for stem in ("kept", "flagged", "dropped")
    ]
    with (folder / "scores.jsonl").open("w") as out:
        for i, row in enumerate(dataset.rows):
            line = {
                "row": i, "id": row.id, "decision": decisions[i], "score": scores[i], "forgetting": scores[i],
                "remembered": {"learned": -0.1, "reviewed": -0.9}, "reason": f"reason {i}",
            }  # fmt: skip
            line |= {"p": p[i]} if p else {}
            line |= {"evidence": evidence[i]} if evidence and i in evidence else {}
            out.write(json.dumps(line) + "\n")
    if heat:
        lines = [json.dumps({"row": row, "tokens": tokens}) for row, tokens in heat.items()]
        (folder / "heat.jsonl").write_text("\n".join(lines) + "\n")
    report = {
        "verdict": f"{decisions.count('drop') if isinstance(decisions, list) else 0} rows dropped.",
        "input": {"file": source.name, "rows": len(records), "format": dataset.format},
        "model": "nano",
        "counts": {"rows": len(records)},
        "threshold": {"value": cut, "method": "fixed", "why": "set by hand", "compared": "40 clean rows"},
        "settings": [{"name": "data_format", "value": None}, {"name": "label_field", "value": None}],
        "versions": {"forgetfilter": version or runs.versions()["forgetfilter"]},
        "files": {str(f.relative_to(folder)): runs.sha256(f) for f in files},
        "limits": ["It does not see <hidden> harm."],
    }
    (folder / "settings.yaml").write_text("settings: {}\ninputs: {}\n")
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def many(folder: Path, rows: int, seed: int = 0) -> Path:
    """A run of so many rows: a tenth dropped (score above 0.5), some flagged, not judged, not scored."""
    draw = np.random.default_rng(seed)
    words = np.array([f"word{i}" for i in range(3000)])
    scores = draw.normal(0.2, 0.234, rows)
    records = [
        {
            "prompt": f"Question {i} about {words[i % 3000]}?",
            "completion": " ".join(words[draw.integers(0, 3000, 40)]),
        }
        for i in range(rows)
    ]
    decisions = ["drop" if s > 0.5 else "flag" if s > 0.45 else "keep" for s in scores]
    for i in range(0, rows, 50):
        decisions[i] = "not judged"
    p = [
        float(np.round((scores > s).mean(), 4)) if i < 0 else float(1 / (1 + np.exp(8 * s)))
        for i, s in enumerate(scores)
    ]
    heat = {
        i: [
            (w + " ", float(x))
            for w, x in zip(records[i]["completion"].split(), draw.exponential(0.5, 40), strict=True)
        ]
        for i, d in enumerate(decisions)
        if d in ("drop", "flag")
    }
    return run_folder(folder, records, decisions, scores.tolist(), p=p, heat=heat)
