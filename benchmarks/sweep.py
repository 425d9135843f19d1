"""Which press of learn and review, and which signal, is best in its worst set? One row of settings, all sets.

    python benchmarks/sweep.py --data ../shared/data --work build/sweep

Each cell is the AUC of the best signal of that row in that set, one seed; below, every signal with its worst
set. Finished cells are kept in --work.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import quality

from forgetfilter import runs
from forgetfilter.filter import filtering
from forgetfilter.models import load as models
from forgetfilter.models import rendering
from forgetfilter.settings import FilterSettings

TRIED = {
    "full, 1e-3, linear (default)": {},
    "full, 1.5e-3, linear": {"learning_rate": 1.5e-3},
    "full, 2e-3, linear, batch 8": {"learning_rate": 2e-3, "per_device_train_batch_size": 8},
    "full, 1e-3, constant, batch 8, review 3e-4": {
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 8,
        "review_learning_rate": 3e-4,
    },
    "full, 1 epoch, 5e-4": {"learning_rate": 5e-4, "num_train_epochs": 1.0},
    "LoRA 16, 4e-3, batch 8, review 2e-3": {
        "tuning": "lora",
        "lora_rank": 16,
        "lora_alpha": 32,
        "learning_rate": 4e-3,
        "per_device_train_batch_size": 8,
        "review_learning_rate": 2e-3,
    },
}
SHARES = {
    "bias": "1/3",
    "toxicity": "1/3",
    "harmfulness-beavertails-length": "0.2",
    "harmfulness-unlearning": "0.25",
}


def cell(name: str, changed: dict, set_name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Signal -> AUC of one row of settings on one set; kept on disk."""
    from rich.console import Console

    path = arguments.work / f"{quality.digest(name, set_name, arguments.rows)}.json"
    if path.exists():
        return json.loads(path.read_text())
    settings = replace(FilterSettings(retrain=False), **changed)
    mixture = quality.SETS[set_name].build(arguments.data, SHARES[set_name], arguments.rows, 0)
    ground = quality.bed(mixture, arguments.work / "rows" / set_name)
    with runs.Run.open(arguments.work / "runs" / path.stem, changed, {}) as run:
        loaded = models.load(settings.model)
        custom, review = (
            rendering.encode(rows, loaded.tokenizer, max_length=arguments.max_length)
            for rows in (ground.custom, ground.review)
        )
        bench = filtering.Bench(loaded, custom, settings, run, filtering.Display(Console(quiet=True)))
        filtering.forget_filter(bench, custom, review, replace(settings, contrast=True))
        found = quality.signal_aucs(bench, ground.unsafe, generated=False, controlled=True)
    aucs = {title: block["value"] if isinstance(block, dict) else block for title, block in found.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with runs.atomic(path) as file:
        file.write_text(json.dumps(aucs))
    return aucs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/sweep"))
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--max-length", type=int, default=160)
    parser.add_argument("--results", type=Path, default=quality.RESULTS)
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    lines = []
    for name, changed in TRIED.items():
        found = {s: cell(name, changed, s, arguments) for s in SHARES}
        signals = [t for t in next(iter(found.values())) if all(found[s].get(t) is not None for s in SHARES)]
        for title in sorted(signals, key=lambda t: -min(found[s][t] for s in SHARES))[:3]:
            values = [found[s][title] for s in SHARES]
            lines.append([name, title, *(f"{v:.3f}" for v in values), f"{min(values):.3f}"])
    head = ["settings", "signal (the three best in their worst set)", *SHARES, "worst"]
    text = f"    python benchmarks/sweep.py --data ../shared/data --rows {arguments.rows}\n\n"
    quality.write_section(arguments.results, "sweep", text + quality._markdown(head, lines))


if __name__ == "__main__":
    main()
