"""Does a run that is killed anywhere end like one that was left alone?

    python benchmarks/kill.py --rounds 50
    python benchmarks/kill.py --rounds 20 --processes 2     # kills one of two

Each round starts `filter` with nano on a few bundled rows, kills it (SIGKILL) at a moment drawn over the length of a
run, lets the same command go on, and compares `scores.jsonl` and the model byte by byte with those of a run that
nothing befell. Of several processes one is killed, and the others must end, too. What is done is kept: the command,
given again, plays the rounds that are missing.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sections import RESULTS, markdown, write_section

from forgetfilter import ranks, runs
from forgetfilter.data import packs

ROWS, SAFE = 48, 24
WITNESS = ("--review-steps", "4", "--num-train-epochs", "1")
PAPER = (*WITNESS, "--algorithm", "paper", "--threshold", "quantile", "--signal", "rouge1")
WAYS = {"witness": WITNESS, "paper": PAPER}
# Imported once, before children are made: a run then takes seconds, and a kill rarely falls into an import.
GRACE = 30  # seconds that a launcher gives to processes, before it stops them and after
HEADS = {"ended_too": "others end by themselves", "said": "and say why", "equal": "equal"}
FIRST = (
    "forgetfilter.models.library",  # makes the next ones quiet
    "accelerate", "peft", "safetensors.torch", "scipy.stats", "sklearn.linear_model", "transformers",
    "transformers.models.llama.modeling_llama", "transformers.trainer", "forgetfilter.cli",
    "forgetfilter.filter.pipeline", "forgetfilter.filter.quality", "forgetfilter.report.page",
    "forgetfilter.training.finetune",
)  # fmt: skip


def started(arguments: Sequence[str], log: Path, processes: int) -> list[int]:
    """The ids of children that run one command together, as `torchrun` starts them; one is alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    places = [
        where | {"RANK": str(n), "LOCAL_RANK": str(n)} if processes > 1 else {} for n in range(processes)
    ]
    return [forked(arguments, log, place) for place in places]


def forked(arguments: Sequence[str], log: Path, place: Mapping[str, str]) -> int:
    """The id of a child that runs the command as `python -m forgetfilter` does, with a checkpoint every second step."""
    child = os.fork()
    if child:
        return child
    os.environ.update(place)
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


def ended(children: Sequence[int]) -> int:
    """The exit code of the command: the largest of its processes'."""
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def stopped(children: Sequence[int]) -> bool:
    """Whether all end by themselves. Those that do not are stopped as a launcher stops them."""
    left, by_themselves = set(children), True
    for signal_after in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + GRACE
        while left and time.monotonic() < until:
            left -= {child for child in left if os.waitpid(child, os.WNOHANG)[0]}
            time.sleep(0.05)
        for child in left:
            by_themselves = False
            os.kill(child, signal_after)
    for child in left:
        os.waitpid(child, 0)
    return by_themselves


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


def play(work: Path, n: int, way: str, wanted: str, length: float, processes: int) -> dict[str, Any]:
    """One round: killed, resumed, compared."""
    name, log, chance = f"round-{n}", work / f"round-{n}.log", random.Random(n)
    runs.discard(work / name)
    log.unlink(missing_ok=True)
    moment = chance.uniform(0, length)
    children = started(command(work, way, name), log, processes)
    victim = children.pop(chance.randrange(processes))
    time.sleep(moment)
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    killed = ended([victim]) == -signal.SIGKILL
    ended_too = stopped(children)
    said = ranks.ENDED in log.read_text()
    where = place(work / name)
    code = ended(started(command(work, way, name), log, processes))
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
        "ended_too": ended_too,
        "said": said,
        "code": code,
        "equal": equal,
    }


def prepared(work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    demo = packs.path("nano-demo").read_text(encoding="utf-8").splitlines()[:ROWS]
    safe = packs.path("nano-safe").read_text(encoding="utf-8").splitlines()[:SAFE]
    for name, lines in (("rows", demo), ("safe", safe)):
        (work / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def reference(work: Path, way: str, processes: int) -> tuple[str, float]:
    """Result and seconds of a run that nothing befalls."""
    kept = work / f"alone-{way}.json"
    if not kept.exists():
        runs.discard(work / f"alone-{way}")
        began = time.monotonic()
        code = ended(started(command(work, way, f"alone-{way}"), work / f"alone-{way}.log", processes))
        seconds = time.monotonic() - began
        assert code in (0, 3), (work / f"alone-{way}.log").read_text()
        kept.write_text(json.dumps([result(work / f"alone-{way}"), seconds]))
    wanted, seconds = json.loads(kept.read_text())
    return wanted, seconds


def section(rounds: Sequence[dict[str, Any]], said: str, processes: int) -> str:
    places: dict[str, list[dict[str, Any]]] = {}
    for r in rounds:
        places.setdefault(r["where"] if r["killed"] else "after its end", []).append(r)
    counted = ["equal"] if processes == 1 else ["ended_too", "said", "equal"]

    def line(where: str, some: Sequence[dict[str, Any]]) -> list[str]:
        return [where, str(len(some)), *(str(sum(r[what] for r in some)) for what in counted)]

    head = ["killed", "rounds", *(HEADS[what] for what in counted)]
    table = markdown(head, [*(line(*each) for each in sorted(places.items())), line("**all**", rounds)])
    title = "Killed and resumed" if processes == 1 else f"One of {processes} processes killed, and resumed"
    about = "SIGKILL at random moments; equal: scores and weights, byte by byte."
    return f"### {title}\n\n    {said}\n\n{table}\n\n{about}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, help="default: build/kill, or build/kill-2 for two processes")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument(
        "--processes", type=int, default=1, help="that run the command; one of them is killed"
    )
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no round after this many")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="file whose section is written at the end"
    )
    asked = parser.parse_args()
    several = f"-{asked.processes}" if asked.processes > 1 else ""
    work = asked.work or Path(f"build/kill{several}")
    began = time.monotonic()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    for name in FIRST:
        __import__(name)
    prepared(work)
    wanted = {way: reference(work, way, asked.processes) for way in WAYS}
    file = work / "rounds.jsonl"
    played = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for n in range(len(played), asked.rounds):
        if time.monotonic() - began > asked.seconds:
            print(f"{n} of {asked.rounds} rounds; the same command goes on")
            return 0
        way = [*WAYS][n % len(WAYS)]
        played.append(play(work, n, way, *wanted[way], asked.processes))
        print(played[-1], flush=True)
        with file.open("a") as out:
            out.write(json.dumps(played[-1]) + "\n")
    told = f"python benchmarks/kill.py --rounds {asked.rounds}" + f" --processes {asked.processes}" * bool(
        several
    )
    text = section(played, told, asked.processes)
    write_section(asked.results, f"kill{several}", text)
    print(text)
    return 0 if all(r["equal"] for r in played) else 1


if __name__ == "__main__":
    sys.exit(main())
