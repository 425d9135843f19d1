"""Does Ray Data lose a row, or give one twice, when a process dies in the middle?

    python benchmarks/cluster.py --rows 1000000                 # by the n-gram scorer
    python benchmarks/cluster.py --model nano --rows 20000      # by `cluster.score`

Short rows go through two processes of a local Ray. Half way the process that gave the last rows is killed (SIGKILL).
Every row is then counted by its id.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sections import RESULTS, markdown, write_section

BATCH = 2048


class Ngram:
    """Adds how toxic the shipped scorer finds each prompt."""

    def __init__(self) -> None:
        from forgetfilter.models import scorers

        self.judge = scorers.load("ngram")

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        return batch.append_column("toxic", pa.array(self.judge(batch["prompt"].to_pylist()), pa.float64()))


def told(work: type) -> type:
    """The same with the id of the process that did it."""

    class Told(work):
        def __call__(self, batch: Any) -> Any:
            import pyarrow as pa

            return super().__call__(batch).append_column("pid", pa.array([os.getpid()] * len(batch)))

    return Told


def texts(batch: dict[str, np.ndarray]) -> dict[str, Any]:
    """Rows of about thirty tokens."""
    ids = batch["id"]
    return {
        "id": ids,
        "prompt": [f"Which number comes after {i}?" for i in ids],
        "completion": [f"The number {i + 1}." for i in ids],
    }


def counted(measured: Any, count: int) -> tuple[np.ndarray, int, int]:
    """How often each row came, after how many a process was killed, and how many processes there were."""
    seen, killed, pids = np.zeros(count, int), 0, set[int]()
    for batch in measured.iter_batches(batch_format="numpy", batch_size=None):
        np.add.at(seen, batch["id"], 1)
        pids |= {*batch["pid"].tolist()}
        if not killed and seen.sum() >= count // 2:
            os.kill(int(batch["pid"][-1]), signal.SIGKILL)
            killed = int(seen.sum())
    return seen, killed, len(pids)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--model", help="scores the rows; the n-gram scorer where not given")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    asked = parser.parse_args()
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",
        RAY_AUTH_TOKEN=secrets.token_hex(32),
        RAY_worker_niceness="0",
        PYTHONPATH=os.pathsep.join(filter(None, sys.path)),
    )
    import ray.data

    from forgetfilter import cluster

    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        ray.init(
            num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.2", _temp_dir=folder,
            object_store_memory=500_000_000, log_to_driver=False, logging_level="ERROR",
        )  # fmt: skip
        rows = ray.data.range(asked.rows, override_num_blocks=max(2, asked.rows // 20_000))
        rows = rows.map_batches(texts, batch_size=BATCH)
        began = time.monotonic()
        if asked.model:
            cluster.Scores = told(cluster.Scores)  # ty: ignore[invalid-assignment]
            measured = cluster.score(rows, model=asked.model, processes=2, batch_size=BATCH)
        else:
            pool = ray.data.ActorPoolStrategy(min_size=1, max_size=2)
            measured = rows.map_batches(told(Ngram), compute=pool, batch_size=BATCH, batch_format="pyarrow")
        seen, killed, processes = counted(measured, asked.rows)
        seconds = time.monotonic() - began
        ray.shutdown()
    lost, twice = int((seen == 0).sum()), int((seen > 1).sum())
    name = asked.model or "n-gram scorer"
    line = [name, f"{asked.rows:,}", f"{killed:,}", str(processes), str(lost), str(twice), f"{seconds:.0f}"]
    table = markdown(["by", "rows", "killed after", "processes seen", "lost", "twice", "seconds"], [line])
    command = f"python benchmarks/cluster.py --rows {asked.rows}" + f" --model {asked.model}" * bool(
        asked.model
    )
    text = f"### Ray Data, a process killed half way: {name}\n\n    {command}\n\n{table}"
    write_section(asked.results, f"cluster-{asked.model or 'ngram'}", text)
    print(text)
    return 1 if lost or twice else 0


if __name__ == "__main__":
    sys.exit(main())
