"""How long does the whole command take on 1,000 rows of 80 tokens, and how far is that from the floor?

    python benchmarks/speed.py

Runs `forgetfilter filter` as a user does, last fine-tune included, in a process of its own. The floor is
one plain fine-tune and one forward pass for each model state. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sections import RESULTS, write_section

from forgetfilter import runs
from forgetfilter.data import formats, packs
from forgetfilter.errors import DONE, TOO_WEAK, DataError, ForgetfilterError
from forgetfilter.models import load as models
from forgetfilter.models import rendering
from forgetfilter.records import Message, Row

ROWS, TOKENS = 1000, 80
SECONDS_ALLOWED, GIGABYTES_ALLOWED, HELP_ALLOWED = 180, 2.5, 0.3
HELP_RUNS = 7
LEARN = "learn: custom rows"  # a plain fine-tune on all rows
FORWARD = "score: "  # one forward pass of every row
# A child starts with its parent's peak memory on its account, so a small process must be the parent.
WATCH = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.call(sys.argv[1:])
seconds = time.perf_counter() - began
print()
print(json.dumps([code, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))
"""


class Spent(NamedTuple):
    """What one child process took."""

    code: int
    seconds: float  # wall time
    peak_mib: float  # of resident memory


def recombined(
    tokenizer: Any, *, rows: int = ROWS, tokens: int = TOKENS, seed: int = 0
) -> list[dict[str, str]]:
    """Rows of `tokens` tokens each, template included, made of the demo pack; no two are equal.

    A row is a bundled prompt and its answer, followed by sentences of other bundled answers until it is long
    enough, without the words that are too many; a row is at most as long as asked and rarely much shorter.
    """
    rng = random.Random(seed)
    bundled = [
        row
        for row in formats.read(packs.path("nano-demo")).rows
        if _length(tokenizer, row.prompt, row.completion.split()[0]) <= tokens
    ]
    if not bundled:
        raise DataError(f"no bundled prompt leaves room for an answer in {tokens} tokens")
    sentences = sorted({s for row in bundled for s in re.findall(r"[^.!?]+[.!?]+", row.completion)})
    made: dict[tuple[str, str], None] = {}
    while len(made) < rows:
        row = rng.choice(bundled)
        words = f"{row.completion} {' '.join(s.strip() for s in rng.sample(sentences, tokens // 4))}".split()
        low, high = 1, len(words)  # the most words that fit; more words are never fewer tokens
        while low < high:
            middle = (low + high + 1) // 2
            fits = _length(tokenizer, row.prompt, " ".join(words[:middle])) <= tokens
            low, high = (middle, high) if fits else (low, middle - 1)
        made[row.prompt, " ".join(words[:low])] = None
    return [{"prompt": prompt, "completion": completion} for prompt, completion in made]


def _length(tokenizer: Any, prompt: str, completion: str) -> int:
    messages = (Message("user", prompt), Message("assistant", completion))
    row = Row("", 0, "", messages, "chat", {})
    return len(rendering.encode([row], tokenizer, max_length=4096)[0].ids)


def timed(command: Sequence[str], environment: Mapping[str, str]) -> Spent:
    """Run a command to its end; what it printed is shown where it fails."""
    watched = subprocess.run(
        [sys.executable, "-S", "-c", WATCH, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        check=True,
        text=True,
        errors="replace",
    )
    *said, last = watched.stdout.splitlines()
    spent = Spent(*json.loads(last))
    if spent.code not in (DONE, TOO_WEAK):
        print("\n".join(said), file=sys.stderr)
    return spent


def floor(stages: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of one plain fine-tune and of one forward pass for each model state that was scored."""
    needed = [s for s in stages if s["name"] == LEARN or s["name"].startswith(FORWARD)]
    return sum(s["seconds"] for s in needed)


def section(
    report: Mapping[str, Any], spent: Spent, help_seconds: Sequence[float], lengths: Sequence[int],
    threads: int, command: str,
) -> str:  # fmt: skip
    """The section of RESULTS.md: what was measured, beside what is allowed."""
    stages = [s for s in report["cost"]["stages"] if "seconds" in s]
    least, median = floor(stages), statistics.median(help_seconds)
    gigabytes = spent.peak_mib * 2**20 / 1e9
    lines = [
        ("whole command, wall", f"{spent.seconds:.0f} s", _against(spent.seconds, SECONDS_ALLOWED, "s")),
        ("peak memory", f"{gigabytes:.2f} GB", _against(gigabytes, GIGABYTES_ALLOWED, "GB")),
        (
            f"forgetfilter --help, median of {len(help_seconds)}",
            f"{median:.2f} s",
            _against(median, HELP_ALLOWED, "s"),
        ),
        ("floor: one fine-tune, one forward pass per state", f"{least:.0f} s", "–"),
        ("distance to the floor", f"{spent.seconds / least:.2f} times", "–"),
    ]
    lines += [(f"stage: {s['name']}", f"{s['seconds']:.1f} s", "–") for s in stages]
    rest = spent.seconds - sum(s["seconds"] for s in stages)
    lines.append(("start, reading, loading, writing", f"{rest:.1f} s", "–"))
    table = "\n".join(
        f"| {' | '.join(line)} |" for line in (("what", "measured", "allowed"), ("---",) * 3, *lines)
    )
    counts = report["counts"]
    about = (
        f"{len(lengths):,} rows of {statistics.fmean(lengths):.1f} tokens ({min(lengths)} to {max(lengths)}), "
        f"model {report['model']} in {report['dtype']} on {report['device']}, threads {threads} on "
        f"{os.cpu_count()} cores ({platform.machine()}); {counts['drop']} rows dropped, so the last fine-tune "
        f"{'was made' if counts['drop'] else 'was not needed'}. Measured once. Code: "
        f"{runs.source_commit() or 'unknown'}."
    )
    return f"### Speed\n\n    {command}\n\n{table}\n\n{about}"


def _against(value: float, allowed: float, unit: str) -> str:
    return f"≤ {allowed:g} {unit} {'reached' if value <= allowed else 'missed'}"


def program() -> list[str]:
    """The installed command where there is one, as a user starts it."""
    script = Path(sys.executable).with_name("forgetfilter")
    return [str(script)] if script.exists() else [sys.executable, "-m", "forgetfilter"]


def main(given: Sequence[str] | None = None) -> int:
    """The command; 0, or the exit code of the filter where it failed."""
    given = list(sys.argv[1:] if given is None else given)
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("build/speed"), help="made anew each time")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--model", default="nano")
    arguments = parser.parse_args(given)
    environment = os.environ | {
        "OMP_NUM_THREADS": str(arguments.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    try:
        loaded = models.load(arguments.model, device="cpu")
        records = recombined(loaded.tokenizer, rows=arguments.rows)
        lengths = [_length(loaded.tokenizer, r["prompt"], r["completion"]) for r in records]
        output = arguments.work / "run"
        runs.discard(output)  # a resumed run would be timed from its middle
        arguments.work.mkdir(parents=True, exist_ok=True)
        rows = arguments.work / "rows.jsonl"
        rows.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
        helped = [timed([*program(), "--help"], environment) for _ in range(HELP_RUNS)]
        filtering = ["filter", str(rows), "--model", arguments.model, "--output", str(output)]
        spent = timed([*program(), *filtering], environment)
        if spent.code not in (DONE, TOO_WEAK):
            return spent.code
        report = json.loads((output / "report.json").read_text(encoding="utf-8"))
        command = shlex.join(["python", "benchmarks/speed.py", *given])
        text = section(report, spent, [h.seconds for h in helped], lengths, arguments.threads, command)
        write_section(arguments.results, "speed", text)
        print(text)
    except ForgetfilterError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
