"""The command `selftest`: plant canaries in a copy of the job, filter the copy, count what was missed; then judge the
job as a whole by signs. The copy, and every weight trained on it, is gone when the command ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter import ranks, runs
from forgetfilter.data import formats, packs
from forgetfilter.display import Display
from forgetfilter.errors import DONE, TOO_WEAK, ConfigError
from forgetfilter.filter import material, sample
from forgetfilter.filter.algorithm import learn
from forgetfilter.filter.bench import Bench
from forgetfilter.filter.signals import GENERATED_SIGNALS
from forgetfilter.models import load as models
from forgetfilter.models.rendering import encode
from forgetfilter.records import Row
from forgetfilter.selftest import behaviour, job, misses, readable
from forgetfilter.selftest.canaries import Canary, apart, bundled, folded, from_file
from forgetfilter.selftest.planting import KINDS, Planted, plant
from forgetfilter.settings import FilterSettings

if TYPE_CHECKING:
    from rich.console import Console

KNOWN_ROWS = 90  # of a bundled pack, and of the safe rows, that show what ordinary text costs
REPORT = "selftest.json"


def run_selftest(
    input: str | Sequence[str], settings: FilterSettings, origins: Mapping[str, str], output: Path, console: Console,
    unsafe: str | None = None,
) -> int:  # fmt: skip
    """Self-test of a filter's settings on a file of rows; returns the exit code: 0 where the verdict is clear, else 3.

    `unsafe` names a file of the user's own unsafe rows, instead of the bundled plain ones. DataError, ConfigError and
    ModelError say what the user can mend.
    """
    display = Display(console)
    s = _suited(settings)
    read = material.read(input, s, display.say)
    rows = list(read.dataset.rows)
    canaries, standing, notes = _canaries(rows, unsafe, material.fields(s))
    planted = plant(rows, canaries, seed=s.seed)
    for note in notes:
        display.say(note)
    said = runs.sha256_of(f"{c.prompt}\n{c.completion}" for c in canaries)
    inputs = {**read.inputs, "model": models.fingerprint(s.model), "canaries": said}
    with runs.Run.open(output, asdict(s) | {"selftest": True}, inputs, origins) as run:
        if (output / REPORT).is_file():
            report = json.loads((output / REPORT).read_text(encoding="utf-8"))
        else:
            report = _tested(run, s, display, rows, read.safe, planted, canaries, standing)
            report |= {"notes": [*read.notes, *notes], "seconds": time.monotonic() - read.began,
                       "versions": run.versions, "hashes": inputs, "settings": asdict(s)}  # fmt: skip
            runs.discard(output / "stages")  # weights that learned the canaries
            with runs.atomic(output / REPORT) as path:
                path.write_text(
                    json.dumps(report, ensure_ascii=False, indent=1, default=str) + "\n", encoding="utf-8"
                )
    show(report, display, output)
    return DONE if report["verdict"] == "clear" else TOO_WEAK


def _suited(settings: FilterSettings) -> FilterSettings:
    """The filter's own settings, refused where the self-test would leave something of the canaries on disk."""
    if ranks.size() > 1:
        raise ConfigError("selftest runs in one process; start it without torchrun")
    s = material.settled(settings)
    if s.algorithm == "vetted":
        raise ConfigError(
            "selftest tests the filter by safe rows; leave out --vetted and --verdict-field (their report has its own "
            "estimates of what was missed)"
        )
    if s.signal in GENERATED_SIGNALS:
        raise ConfigError(
            f"signal {s.signal}: it writes down what the model says, canaries among it; self-test with --signal "
            "likelihood"
        )
    return s


def _canaries(
    rows: Sequence[Row], unsafe: str | None, named: Mapping[str, str]
) -> tuple[list[Canary], int, list[str]]:
    """What can be planted, how many stand in `rows` already, and what a person should know of it."""
    found, notes = bundled(), []
    if unsafe:
        found = [*from_file(unsafe, named), *(c for c in found if c.kind != "plain")]
        notes.append(
            f"{unsafe}: planted instead of the bundled plain rows; paraphrases and other languages are bundled"
        )
    left, standing = apart(found, rows)
    if standing:
        count = "1 canary stands" if standing == 1 else f"{standing} canaries stand"
        notes.append(f"{count} in your file already, not planted; these rows of yours are unsafe")
    return left, standing, notes


def _tested(
    run: runs.Run, s: FilterSettings, display: Display, rows: Sequence[Row], safe: Sequence[Row], planted: Planted,
    canaries: Sequence[Canary], standing: int,
) -> dict[str, Any]:  # fmt: skip
    """Filter the copy, learn the user's rows alone, and measure."""
    loaded = models.load(s.model, dtype=s.dtype, device=s.device, quantization=s.quantization)
    how: dict[str, Any] = {"max_length": s.max_length, "template": s.template}
    custom, review = (encode(some, loaded.tokenizer, **how) for some in (planted.rows, safe))
    bench = Bench(loaded, custom, s, run, display)
    # The last fine-tune of a filter shows nothing here.
    found = sample.find(bench, custom, review, replace(s, retrain=False))
    ids = {row.id for row in rows}
    if s.retrain:
        learn(bench, "job", [z for z in custom if z.id in ids], s)
    began = time.monotonic()
    signs = [
        *_model_signs(bench, s, rows, safe, canaries),
        job.rows_nobody_judged([found.cut.decisions[row.id] for row in rows]),
        job.what_the_filter_misses(planted.kinds, found.cut.decisions),
        job.rows_known_to_be_unsafe(standing),
    ]
    stages: list[Mapping[str, Any]] = [*bench.costs, {"name": "signs", "seconds": time.monotonic() - began}]
    harms = dict.fromkeys(planted.harms.values())
    return {
        "verdict": job.verdict(signs),
        "signs": [sign.as_dict() for sign in signs],
        "missed": misses.by_group(planted.kinds, found.cut.decisions, list(KINDS)),
        "missed_by_harm": misses.by_group(planted.harms, found.cut.decisions, list(harms)),
        "rows": len(rows), "planted": len(planted.rows) - len(rows), "why": found.cut.why,
        "cost": {"stages": stages, "seconds": sum(float(c.get("seconds", 0.0)) for c in stages),
                 "of_a_filter": None if sample.wanted(custom, s) else cost_of_a_filter(stages, s.num_train_epochs)},
        "limits": list(LIMITS),
    }  # fmt: skip


def _model_signs(
    bench: Bench, s: FilterSettings, rows: Sequence[Row], safe: Sequence[Row], canaries: Sequence[Canary]
) -> list[job.Sign]:
    """Signs of the original model, and of the one that learned the user's rows alone."""
    held_out = _held_out(rows, canaries)

    def behaves(state: str) -> behaviour.Behaviour:
        return behaviour.measure(bench.enter(state), bench.loaded.tokenizer, *held_out, s.template)

    before = behaves("original")
    after = behaves("job") if s.retrain else None
    return [
        _reading(bench, s, rows, safe),
        job.refusals(before, after, s.seed),
        job.safe_answers(before, after, s.seed),
    ]


def _reading(bench: Bench, s: FilterSettings, rows: Sequence[Row], safe: Sequence[Row]) -> job.Sign:
    """What the original model cannot read, beside bundled rows and the safe rows, which are ordinary text."""

    def costs(state: str, some: Sequence[Row]) -> dict[str, float]:
        return readable.nats(
            bench.enter(state), bench.loaded.tokenizer, some, max_length=s.max_length, template=s.template
        )

    mine = costs("original", rows)
    known = [row for some in (formats.read(packs.path("general")).rows, safe) for row in _some(some)]
    limit = readable.limit(list(costs("original", known).values()) or [np.inf])
    odd = [row for row in rows if mine.get(row.id, 0.0) > limit]
    fell = None
    if odd and s.retrain:
        others = _some([row for row in rows if mine.get(row.id, np.inf) <= limit])
        fell = tuple(
            float(np.mean([mine[z] - cost for z, cost in costs("job", some).items()])) if some else None
            for some in (_some(odd), others)
        )
    return job.text_nobody_reads(mine, limit, len(rows), fell)  # ty: ignore[invalid-argument-type]


def _held_out(rows: Sequence[Row], canaries: Sequence[Canary]) -> tuple[list[str], list[str], list[Canary]]:
    """Harmful and harmless requests, and risky questions with a safe answer, none of which stands in the file."""
    known = {folded(row.prompt) for row in rows}

    def requests(pack: str, harm: str) -> list[str]:
        asked = [row.prompt for row in formats.read(packs.path(pack)).rows if row.record["harm"] == harm]
        return [p for p in asked if folded(p) not in known][: behaviour.REQUESTS]

    pairs = [c for c in canaries if c.safe and folded(c.prompt) not in known]
    return requests("harmfulness", "harmfulness"), requests("general", "none"), pairs


def _some(rows: Sequence[Row]) -> list[Row]:
    """KNOWN_ROWS of them, evenly spread."""
    return list(rows)[:: max(1, len(rows) // KNOWN_ROWS)]


def cost_of_a_filter(stages: Sequence[Mapping[str, Any]], epochs: float) -> float | None:
    """This self-test's seconds in units of one filter of the same job without canaries, its last fine-tune included.

    What the canaries cost of learning and reading is told by their tokens; None where the job was not learned alone.
    """
    by_name = {str(c["name"]): c for c in stages}
    read, learned, alone = (by_name.get(n) for n in ("read: custom rows", "learn: custom rows", "train: job"))
    if not (read and learned and alone):
        return None
    planted = read["tokens"] - alone["tokens"] / epochs  # tokens of the canaries
    saved = (
        read["seconds"] * planted / read["tokens"] + learned["seconds"] * planted * epochs / learned["tokens"]
    )
    total = sum(float(c.get("seconds", 0.0)) for c in stages)
    return total / (total - by_name.get("signs", {}).get("seconds", 0.0) - saved)


def show(report: Mapping[str, Any], display: Display, output: Path) -> None:
    """The verdict, its reasons, and what the filter missed of each kind."""
    from rich.table import Table

    display.say("")
    display.say(f"Verdict: {report['verdict']}")
    for sign in report["signs"]:
        display.say(f"  {sign['level']}: {sign['name']}. {sign['reason']}")
    display.say("")
    table = Table(box=None, pad_edge=False)
    for head in ("planted rows", "missed", "95 % interval", "dropped", "flagged", "kept", "not judged"):
        table.add_column(head)
    for kind, found in report["missed"].items():
        missed = found["missed"]
        numbers = (found[k] for k in ("dropped", "flagged", "kept", "not judged"))
        table.add_row(f"{found['planted']} {kind}", f"{missed['value']:.0%}",
                      f"{missed['low']:.0%} to {missed['high']:.0%}", *map(str, numbers))  # fmt: skip
    display.console.print(table)
    display.say(f"{output / REPORT} holds all of it; nothing of the planted rows is kept")


LIMITS = (
    "A kind that hides its harm in another way than the planted rows do is not measured.",
    "Text in which every word is ordinary can carry a code that no sign here sees.",
    "Canaries are mild and mostly short; the harm you fear may be found more or less often (--unsafe FILE).",
)
