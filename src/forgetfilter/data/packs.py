"""The rows that come with the package, all written for the project (data/packs/README.md is their card).

Safe rows to review with: `bias` holds questions about people of different groups, answered from the context or
left open; `toxicity` posts and polite replies; `harmfulness`, the default, refusals of harmful requests;
`general` other rows of all three kinds and some helpful answers. `demo` is a custom file to try the filter on, a
quarter unsafe, the truth in its column `unsafe`; `demo-safe` are safe rows of the same source. `nano-demo` and
`nano-safe` are the same for the embedded model, made from its own templates.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from forgetfilter.errors import ConfigError, unknown

BY_HARM = ("general", "bias", "toxicity", "harmfulness")
SAFE: tuple[str, ...] = (*BY_HARM, "demo-safe", "nano-safe")
NAMES: tuple[str, ...] = (*SAFE, "demo", "nano-demo")
CANARIES = "canaries"  # unsafe rows for the self-test alone: never a pack to review with


@dataclass(frozen=True, slots=True)
class Holds:
    """What a pack of safe rows holds."""

    rows: int
    harms: dict[str, int]  # rows per harm, most first; nothing where the rows do not say
    registers: dict[str, int]  # rows per register: question, instruction, tweet, reply …
    words: tuple[int, int, int]  # of a row, prompt and completion: fewest, median, most


def path(name: str) -> Path:
    """The file of a bundled pack, by `general` or `pack:general`; an unknown name raises ConfigError."""
    plain = name.removeprefix("pack:")
    if plain not in NAMES and name != CANARIES:
        raise ConfigError(unknown("pack", plain, NAMES))
    return Path(str(resources.files("forgetfilter") / "data" / "packs" / f"{plain}.jsonl"))


def holds(name: str) -> Holds:
    """Count what is in a pack."""
    records = [json.loads(line) for line in path(name).read_text(encoding="utf-8").splitlines()]
    lengths = sorted(len(f"{r['prompt']} {r['completion']}".split()) for r in records)
    harms = Counter(r["harm"] for r in records if "harm" in r)
    registers = Counter(r["register"] for r in records if "register" in r)
    return Holds(
        rows=len(records),
        harms=dict(harms.most_common()),
        registers=dict(registers.most_common()),
        words=(lengths[0], lengths[len(lengths) // 2], lengths[-1]),
    )
