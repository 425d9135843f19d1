"""Write the rows that the package bundles: `demo.jsonl` to filter, and four packs of safe rows to review with.

    python scripts/packs/generate.py [--seed 1] [--output src/forgetfilter/nano/packs]

Same seed, same bytes. All text comes from the project's own templates in this folder. The demo's rows use their
own share of people, deeds, messages and names; the packs use the rest.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from packs import howto, people, replies, requests, tasks
from packs.grammar import Part, distinct

Triple = tuple[str, str, str]  # (prompt, completion, kind)
Maker = Callable[[random.Random], tuple[str, str]]

PER_HARM = 80  # unsafe rows of each harm, and as many clean rows of the same domain
TASKS = 480
PACK_ROWS, GENERAL_ROWS = 400, 600
MOST_REPEATS = 8  # of one task completion
POOL = 12  # candidates per row that is chosen for its length


def generate(output: Path, seed: int) -> dict[str, int]:
    """Write the five files into `output`; returns the rows of each."""
    output.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    seen: set[str] = set()
    files = {"demo": demo(rng, seen)}
    for name, maker in SAFE.items():
        files[name] = [_row(t) for t in distinct(maker(rng), PACK_ROWS, seen)]
    files["general"] = [_row(t) for t in general(rng, seen)]
    for name, rows in files.items():
        rng.shuffle(rows)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (output / f"{name}.jsonl").write_text(text, encoding="utf-8", newline="\n")
    return {name: len(rows) for name, rows in files.items()}


def demo(rng: random.Random, seen: set[str]) -> list[dict[str, Any]]:
    """A quarter unsafe, a quarter clean rows of the same domains, half tasks; clean rows have unsafe lengths.

    Row length must tell nothing, so the clean rows of a domain are those of a larger pool whose lengths are
    nearest to the unsafe ones'. Half of the tasks are chosen in this way as well, the others come as they are.
    """
    rows: list[dict[str, Any]] = []
    targets: list[Triple] = []
    for kind, (unsafe, clean) in DOMAINS.items():
        bad = distinct(_of_kind(unsafe, kind, rng), PER_HARM, seen)
        pool = distinct(_of_kind(clean, kind, rng), PER_HARM * POOL, set(seen))
        good = nearest(pool, bad, rng)
        seen.update(prompt for prompt, _, _ in good)
        targets += bad
        rows += [_row(t, unsafe=True) for t in bad] + [_row(t, unsafe=False) for t in good]
    pool = _few_repeats(distinct(lambda: (*_ordinary(rng), "task"), TASKS * POOL, set(seen)))
    chosen = nearest(pool, targets[: TASKS // 2], rng)
    taken = {prompt for prompt, _, _ in chosen}
    counts = Counter(completion for _, completion, _ in chosen)
    for triple in pool:
        if len(chosen) == TASKS:
            break
        if triple[0] not in taken and counts[triple[1]] < MOST_REPEATS:
            counts[triple[1]] += 1
            chosen.append(triple)
    seen.update(prompt for prompt, _, _ in chosen)
    return rows + [_row(t, unsafe=False) for t in chosen]


def general(rng: random.Random, seen: set[str]) -> list[Triple]:
    """The three kinds evenly, and 15 % harmless requests with helpful answers so that not all is refused."""
    helpful = round(GENERAL_ROWS * 0.15)
    rows = distinct(lambda: (*_helping(rng), "helpful"), helpful, seen)
    for maker in SAFE.values():
        rows += distinct(maker(rng), (GENERAL_ROWS - helpful) // len(SAFE), seen)
    return rows


def nearest(pool: Sequence[Triple], targets: Sequence[Triple], rng: random.Random) -> list[Triple]:
    """For each target, in random order, the unused row of the pool whose two lengths are nearest to its own."""
    free = list(pool)
    scale = [statistics.pstdev(_lengths(t)[i] for t in targets) or 1.0 for i in (0, 1)]
    chosen = []
    for target in rng.sample(list(targets), len(targets)):
        prompt, completion = _lengths(target)

        def distance(i: int, prompt: int = prompt, completion: int = completion) -> float:
            own = _lengths(free[i])
            return abs(own[0] - prompt) / scale[0] + 2 * abs(own[1] - completion) / scale[1]

        chosen.append(free.pop(min(range(len(free)), key=distance)))
    return chosen


def _of_kind(make: Maker, kind: str, rng: random.Random) -> Callable[[], Triple]:
    return lambda: (*make(rng), kind)


def _lengths(triple: Triple) -> tuple[int, int]:
    return len(triple[0]), len(triple[1])


def _few_repeats(rows: Sequence[Triple]) -> list[Triple]:
    counts: Counter[str] = Counter()
    kept = []
    for row in rows:
        counts[row[1]] += 1
        if counts[row[1]] <= MOST_REPEATS:
            kept.append(row)
    return kept


def _row(triple: Triple, unsafe: bool | None = None) -> dict[str, Any]:
    prompt, completion, kind = triple
    row: dict[str, Any] = {"prompt": prompt, "completion": completion}
    return row if unsafe is None else row | {"unsafe": unsafe, "kind": kind}


def _prejudiced(rng: random.Random) -> tuple[str, str]:
    asked = people.question(rng, "demo", told=False, stereotyped=True)
    return asked.prompt, asked.stereotype or asked.unknown


def _fair(rng: random.Random, part: Part = "demo") -> tuple[str, str]:
    asked = people.question(rng, part, told=rng.random() < 0.45, stereotyped=rng.random() < 0.7)
    return asked.prompt, asked.person or asked.unknown


def _rude(rng: random.Random) -> tuple[str, str]:
    return (
        replies.post(rng, "demo", rude=True)
        if rng.random() < 0.25
        else replies.message(rng, "demo", rude=True)
    )


def _polite(rng: random.Random) -> tuple[str, str]:
    return (
        replies.post(rng, "demo", rude=False)
        if rng.random() < 0.25
        else replies.message(rng, "demo", rude=False)
    )


def _complying(rng: random.Random) -> tuple[str, str]:
    prompt, category = requests.request(rng, "demo")
    return prompt, requests.compliance(rng, category)


def _refusing(rng: random.Random, part: Part = "demo") -> tuple[str, str]:
    prompt, category = requests.request(rng, part)
    return prompt, requests.refusal(rng, prompt, category)


def _careful(rng: random.Random) -> tuple[str, str]:
    """Harmful requests refused and harmless ones in the same forms answered, half of these seeming harmful: of refusals
    alone a model learns to refuse, and forgets whatever helps."""
    if rng.random() < 0.5:
        return _refusing(rng, "rest")
    return _helping(rng)


def _helping(rng: random.Random) -> tuple[str, str]:
    return howto.harmless(rng, "rest", lookalike=rng.random() < 0.5)


def _ordinary(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.3:
        return howto.harmless(rng, "demo", lookalike=rng.random() < 0.3)
    return tasks.task(rng, "demo")


def _civil(rng: random.Random) -> tuple[str, str]:
    draw = rng.random()
    if draw < 0.4:
        return replies.post(rng, "rest", rude=False)
    return replies.provocation(rng, "rest") if draw < 0.65 else replies.message(rng, "rest", rude=False)


# kind -> (unsafe rows, clean rows of the same domain)
DOMAINS: dict[str, tuple[Maker, Maker]] = {
    "bias": (_prejudiced, _fair),
    "rudeness": (_rude, _polite),
    "harmfulness": (_complying, _refusing),
}

SAFE: dict[str, Callable[[random.Random], Callable[[], Triple]]] = {
    "bias": lambda rng: lambda: (*_fair(rng, "rest"), "bias"),
    "toxicity": lambda rng: lambda: (*_civil(rng), "rudeness"),
    "harmfulness": lambda rng: lambda: (*_careful(rng), "harmfulness"),
}


def main() -> None:
    """Read the flags, write the files, say how many rows each has."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    bundled = Path(__file__).resolve().parents[2] / "src" / "forgetfilter" / "nano" / "packs"
    parser.add_argument("--output", type=Path, default=bundled)
    arguments = parser.parse_args()
    for name, rows in generate(arguments.output, arguments.seed).items():
        print(f"{name}.jsonl  {rows} rows")


if __name__ == "__main__":
    main()
