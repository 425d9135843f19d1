"""Damaged files: none may end in a traceback, hang, or leave anything half-written.

    python benchmarks/fuzz.py --files 10000

Bytes, packed bytes and values of whole files are changed at random, as in tests/test_fuzz.py; file number N is the
same on every machine. What was tried is kept in `--work`: a killed benchmark goes on, `--seconds` ends it early.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from sections import RESULTS, make_section, markdown

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import damage

KINDS = {".jsonl": "JSON lines", ".json": "JSON", ".csv": "CSV, TSV", ".tsv": "CSV, TSV", ".parquet": "Parquet, Arrow",
         ".arrow": "Parquet, Arrow", ".gz": "packed", ".bz2": "packed", ".zst": "packed"}  # fmt: skip


NAMES = {**damage.BASES, **damage.LISTS}


def kind(name: str) -> str:
    return "recipes and lists" if name in damage.LISTS else KINDS[Path(name).suffix]


def one(folder: Path, content: dict[str, bytes], seed: int) -> dict[str, object]:
    """What came of file number `seed`: read, refused in words, or a fault."""
    began = time.monotonic()
    name = sorted(content)[seed % len(content)]
    try:
        end = "read" if damage.try_seed(folder, content, seed) else "refused"
    except Exception as error:
        traceback.print_exc()
        end = f"fault: {type(error).__name__}: {error}"[:300]
    return {"seed": seed, "name": name, "end": end, "seconds": round(time.monotonic() - began, 3)}


def play(work: Path, files: int, seconds: float) -> list[dict]:
    """Tries the files that `work` has no line of, until the time is up; returns all lines.

    In a process of its own: a library that ends the process on a damaged file is a fault, and the next goes on.
    """
    log, began = work / "tried.jsonl", time.monotonic()
    while True:
        lines = [json.loads(line) for line in log.open()] if log.exists() else []
        open_seeds = sorted(set(range(files)) - {line["seed"] for line in lines})
        left = seconds - (time.monotonic() - began)
        if not open_seeds or left <= 0:
            return [line for line in lines if line["seed"] < files]
        child = multiprocessing.Process(target=_play, args=(log, open_seeds, left))
        child.start()
        child.join()
        if child.exitcode:
            tried = {line["seed"] for line in map(json.loads, log.open())}
            at = next(seed for seed in open_seeds if seed not in tried)
            end = f"fault: the process ended with {child.exitcode}"
            _note(log, {"seed": at, "name": sorted(NAMES)[at % len(NAMES)], "end": end, "seconds": 0.0})


def _play(log: Path, seeds: list[int], seconds: float) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        content = damage.whole(Path(name))
        for seed in seeds:
            if time.monotonic() - began > seconds:
                break
            _note(log, one(Path(name), content, seed))
        os.chdir(log.parent)


def _note(log: Path, line: dict[str, object]) -> None:
    with log.open("a") as out:
        out.write(json.dumps(line) + "\n")


def section(a: argparse.Namespace) -> str:
    lines = play(a.work.resolve(), a.files, a.seconds)
    table = []
    for name in [*dict.fromkeys(KINDS.values()), "recipes and lists", "all"]:
        mine = [line for line in lines if name in ("all", kind(line["name"]))]
        ends = Counter(line["end"].partition(":")[0] for line in mine)
        slowest = max((line["seconds"] for line in mine), default=0.0)
        table.append((name, *(f"{ends[end]:,}" for end in ("read", "refused", "fault")), f"{slowest:.1f}"))
    return "\n\n".join([
        "### Damaged files", f"    python benchmarks/fuzz.py --files {a.files}",
        f"{len(lines):,} files, each with bytes, packed bytes or values of its rows changed. A fault is a traceback, "
        "more than 60 seconds, a process that ends, anything half-written, or rows that come back in another number.",
        markdown(("file", "read", "refused in words", "fault", "slowest, seconds"), table),
    ])  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--work", type=Path, default=Path("build/fuzz"))
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="End after so many; go on with the same command."
    )
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    return make_section(RESULTS, "fuzz", lambda: section(a))


if __name__ == "__main__":
    sys.exit(main())
