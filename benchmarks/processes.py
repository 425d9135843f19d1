"""Do two processes score rows twice as fast as one, each with one thread?

    python benchmarks/processes.py [nano | smollm2] [--rows 4000] [--rounds 3]

As `filter` scores: pieces of the rows divided among the processes and kept as files. One and two processes by turns,
the best round of each counts; loading the model is left out. Only on an idle machine with a core for each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from engine import rows_of
from sections import RESULTS, markdown, write_section

from forgetfilter import ranks
from forgetfilter.filter import shards

WANTED = 1.7
LENGTH = 80  # tokens of a row, on average


def child(model: str, count: str, folder: str) -> None:
    """One of the processes: scores its part; the first says how long all of them took."""
    from forgetfilter.filter.signals import token_memory
    from forgetfilter.models.load import load
    from forgetfilter.training.memory import READ_ON_CPU

    rows, work = rows_of(int(count), LENGTH, 400), Path(folder)

    def score(some: Sequence[int]) -> shards.Columns:
        found = token_memory(net, [rows[i] for i in some], batch_tokens=READ_ON_CPU)
        return {"mean": np.array([m.logp.mean() for m in found])}

    with ranks.joined():
        net = load(model, device="cpu").model
        score(range(8))
        parts, ids = shards.pieces([len(r.ids) for r in rows], READ_ON_CPU), [r.id for r in rows]
        ranks.wait()
        began = time.perf_counter()
        shards.measure(work, ids, parts, score, lambda done: None)
        seconds = time.perf_counter() - began
        if ranks.rank() == 0:
            means = np.concatenate([columns["mean"] for columns in shards.kept(work, ids, parts)])
            print(json.dumps([seconds, means.tolist()]))


def measured(model: str, count: int, processes: int) -> tuple[float, np.ndarray]:
    """Seconds, and the mean log-probability of each row in the order of the pieces."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, *launch, __file__, "--child", model, str(count), folder],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    seconds, means = json.loads(done.stdout.splitlines()[-1])
    return seconds, np.array(means)


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    asked = parser.parse_args()
    rounds = [[measured(asked.model, asked.rows, n) for n in (1, 2)] for _ in range(asked.rounds)]
    one, two = (min(seconds for seconds, _ in some) for some in zip(*rounds, strict=True))
    apart = max(float(np.abs(both[0][1] - both[1][1]).max()) for both in rounds)
    ratio = one / two
    line = [asked.model, f"{ratio:.2f} ×", f"≥ {WANTED} ×", f"{one:.1f} s", f"{two:.1f} s", f"{apart:.1e}"]
    table = markdown(["model", "two against one", "wanted", "one", "two", "scores apart by"], [line])
    about = f"{asked.rows} rows of about {LENGTH} tokens, one thread a process, best of {asked.rounds} rounds by turns."
    command = f"python benchmarks/processes.py {asked.model} --rows {asked.rows} --rounds {asked.rounds}"
    text = f"### Two processes score\n\n    {command}\n\n{table}\n\n{about}"
    write_section(asked.results, f"processes-{asked.model}", text)
    print(text)
    return 0 if ratio >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
