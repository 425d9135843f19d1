"""Does a run that is killed anywhere end like one that was left alone?

    python benchmarks/kill.py --rounds 50

Each round starts `filter` with nano on a few bundled rows, kills it (SIGKILL) at a moment drawn over the length of a
run, lets the same command go on, and compares `scores.jsonl` and the model byte by byte with those of a run that
nothing befell. What is done is kept: the command, given again, plays the rounds that are missing.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sections import RESULTS, markdown, write_section

from forgetfilter import runs
from forgetfilter.data import packs

ROWS, SAFE = 48, 24
WITNESS = ("--review-steps", "4", "--num-train-epochs", "1")
PAPER = (*WITNESS, "--algorithm", "paper", "--threshold", "quantile", "--signal", "rouge1")
WAYS = {"witness": WITNESS, "paper": PAPER}
# Imported once, before children are made: a run then takes seconds, and a kill rarely falls into an import.
FIRST = (
    "accelerate", "peft", "safetensors.torch", "scipy.stats", "sklearn.linear_model", "transformers",
    "transformers.models.llama.modeling_llama", "transformers.trainer", "forgetfilter.cli",
    "forgetfilter.filter.pipeline", "forgetfilter.filter.quality", "forgetfilter.report.page",
    "forgetfilter.training.finetune",
)  # fmt: skip


def started(arguments: Sequence[str], log: Path) -> int:
    """The id of a child that runs the command as `python -m forgetfilter` does, with a checkpoint every second step."""
    child = os.fork()
    if child:
        return child
    from forgetfilter import cli
    from forgetfilter.filter import bench

    bench.CHECKPOINT_STEPS = 2
    out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    code = 1
    try:
        cli.main([*arguments])
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 1
    finally:
        os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def command(work: Path, way: str, name: str) -> list[str]:
    files = (str(work / "rows.jsonl"), "--safe", str(work / "safe.jsonl"))
    return ["filter", *files, "--model", "nano", *WAYS[way], "--output", str(work / name)]


def result(folder: Path) -> str:
    """What must be equal: scores and the released weights."""
    files = [folder / "scores.jsonl", *sorted((folder / "model").glob("*.safetensors"))]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


def place(folder: Path) -> str:
    """The stage in which a run was cut off."""
    unfinished = [s.name for s in (folder / "stages").glob("*") if not (s / "done.json").exists()]
    finished = len([*(folder / "stages").glob("*/done.json")])
    return f"in {unfinished[0].rsplit('-', 1)[0]}" if unfinished else f"between stages, {finished} done"


def play(work: Path, n: int, way: str, wanted: str, length: float) -> dict[str, Any]:
    """One round: killed, resumed, compared."""
    name, log = f"round-{n}", work / f"round-{n}.log"
    runs.discard(work / name)
    moment = random.Random(n).uniform(0, length)
    child = started(command(work, way, name), log)
    time.sleep(moment)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    killed = ended(child) == -signal.SIGKILL
    where = place(work / name)
    code = ended(started(command(work, way, name), log))
    equal = code in (0, 3) and result(work / name) == wanted
    if equal:
        runs.discard(work / name)
        log.unlink()
    return {
        "round": n,
        "way": way,
        "moment": moment,
        "killed": killed,
        "where": where,
        "code": code,
        "equal": equal,
    }


def prepared(work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    demo = packs.path("nano-demo").read_text(encoding="utf-8").splitlines()[:ROWS]
    safe = packs.path("nano-safe").read_text(encoding="utf-8").splitlines()[:SAFE]
    for name, lines in (("rows", demo), ("safe", safe)):
        (work / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def reference(work: Path, way: str) -> tuple[str, float]:
    """Result and seconds of a run that nothing befalls."""
    kept = work / f"alone-{way}.json"
    if not kept.exists():
        runs.discard(work / f"alone-{way}")
        began = time.monotonic()
        code = ended(started(command(work, way, f"alone-{way}"), work / f"alone-{way}.log"))
        seconds = time.monotonic() - began
        assert code in (0, 3), (work / f"alone-{way}.log").read_text()
        kept.write_text(json.dumps([result(work / f"alone-{way}"), seconds]))
    wanted, seconds = json.loads(kept.read_text())
    return wanted, seconds


def section(rounds: Sequence[dict[str, Any]], said: str) -> str:
    places: dict[str, list[bool]] = {}
    for r in rounds:
        places.setdefault(r["where"] if r["killed"] else "after its end", []).append(r["equal"])
    lines = [[where, str(len(e)), str(sum(e))] for where, e in sorted(places.items())]
    total = ["**all**", str(len(rounds)), str(sum(r["equal"] for r in rounds))]
    table = markdown(["killed", "rounds", "equal"], [*lines, total])
    about = "SIGKILL at random moments; equal: scores and weights, byte by byte."
    return f"### Killed and resumed\n\n    {said}\n\n{table}\n\n{about}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("build/kill"))
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no round after this many")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="file whose section is written at the end"
    )
    asked = parser.parse_args()
    began = time.monotonic()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    for name in FIRST:
        __import__(name)
    prepared(asked.work)
    wanted = {way: reference(asked.work, way) for way in WAYS}
    file = asked.work / "rounds.jsonl"
    played = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for n in range(len(played), asked.rounds):
        if time.monotonic() - began > asked.seconds:
            print(f"{n} of {asked.rounds} rounds; the same command goes on")
            return 0
        way = [*WAYS][n % len(WAYS)]
        played.append(play(asked.work, n, way, *wanted[way]))
        print(played[-1], flush=True)
        with file.open("a") as out:
            out.write(json.dumps(played[-1]) + "\n")
    text = section(played, f"python benchmarks/kill.py --rounds {asked.rounds}")
    write_section(asked.results, "kill", text)
    print(text)
    return 0 if all(r["equal"] for r in played) else 1


if __name__ == "__main__":
    sys.exit(main())
