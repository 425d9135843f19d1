"""Reading a large file: seconds and peak memory of the product's own reader, and of writing half of it back.

    python benchmarks/reading.py --rows 1000000

Rows are chats of about two kilobytes of made-up words. Each part runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

from sections import RESULTS, make_section, markdown

from forgetfilter.data import formats

WORDS, TURNS = 5000, (("system", 20), ("user", 60), ("assistant", 100), ("user", 40), ("assistant", 80))


def make(path: Path, rows: int) -> None:
    random.seed(1)
    words = ["".join(random.choices("abcdefghijklmnop", k=random.randint(2, 9))) for _ in range(WORDS)]
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            turns = [{"role": r, "content": " ".join(random.choices(words, k=k))} for r, k in TURNS]
            file.write(json.dumps({"id": i, "messages": turns, "lang": "en"}) + "\n")


def part(name: str, path: Path) -> dict[str, float]:
    """What one part takes: `read` the file, or read it and `write` every second row back."""
    began = time.monotonic()
    dataset = formats.read(str(path))
    if name == "write":
        began = time.monotonic()
        formats.write(dataset, range(0, len(dataset.rows), 2), path.with_name("half"))
    seconds = time.monotonic() - began
    return {"seconds": seconds, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def section(a: argparse.Namespace) -> str:
    path = a.work / f"{a.rows}.jsonl"
    if not path.exists():
        make(path, a.rows)
    lines = []
    for name, words in (("read", "read"), ("write", "write every second row back")):
        told = subprocess.run(
            [sys.executable, __file__, "--part", name, "--rows", str(a.rows), "--work", str(a.work)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        found = json.loads(told.stdout)
        lines.append((words, f"{found['seconds']:.1f}", f"{found['mib']:.0f}"))
    size = path.stat().st_size / 1e9
    return "\n\n".join([
        "### A large file", f"    python benchmarks/reading.py --rows {a.rows}",
        f"{a.rows:,} chats, {size:.2f} GB of JSON lines; one run.",
        markdown(("part", "seconds", "peak memory, MiB"), lines),
    ])  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, default=Path("build/reading"))
    parser.add_argument("--part", choices=("read", "write"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.part:
        print(json.dumps(part(a.part, a.work / f"{a.rows}.jsonl")))
        return 0
    a.work.mkdir(parents=True, exist_ok=True)
    return make_section(RESULTS, "reading", lambda: section(a))


if __name__ == "__main__":
    sys.exit(main())
