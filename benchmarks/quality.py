"""How well does the filter find unsafe rows in real data? One command, one table per question.

    python benchmarks/quality.py --data ../shared/data --work build/benchmark

Every job (a set, an unsafe share, a seed) is a process of its own that goes the product's own way: files
are written without the truth, read by `formats`, encoded, filtered by `forget_filter` with the default
settings, and only then measured against the truth. A finished job is one small JSON file and is not run
again, unless the settings, the model or the code that decides its result have changed; a killed one goes
on where it stopped.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import os
import random
import resource
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from forgetfilter import intervals, runs
from forgetfilter.data import formats, sources
from forgetfilter.data import mixtures as mixing
from forgetfilter.errors import ConfigError, DataError, ForgetfilterError, unknown
from forgetfilter.evaluate import noisy_sets
from forgetfilter.filter import filtering, quality, rehearsal, signals, smoothing, thresholds
from forgetfilter.models import load as models
from forgetfilter.models import rendering
from forgetfilter.records import Row
from forgetfilter.settings import FilterSettings
from forgetfilter.training import finetune

Record = dict[str, Any]

RESULTS = Path(__file__).with_name("RESULTS.md")
AS_IS = "as is"  # the share of a set that is taken as published
REVIEW_ROWS = 1000
MATCHED = 3  # task rows of like length for each unsafe row
NOT_RUN = "not run"
# Settings that decide where the cut falls, not what is trained or scored: a change needs no new training.
CUT_SETTINGS = frozenset({"signal", "threshold", "phi", "quantile"})
# Where files lie, and what a benchmark job gives by itself.
OWN_SETTINGS = frozenset({"model", "safe", "seed", "output_dir", "retrain", "label_field"})


# --- the noisy sets ---


class Mixture(NamedTuple):
    """Records of `prompt` and `completion`, or `text`; custom ones with `unsafe` (the truth) and `part`."""

    custom: list[Record]
    review: list[Record]


def bias(root: Path, share: str, rows: int, seed: int) -> Mixture:
    """BBQ with Alpaca and SQuAD rows; the review asks by other question templates than the custom rows do."""
    template = noisy_sets.bbq_templates(root)
    ours, theirs = _halves(sorted(set(template.values())), seed)
    items = sources.bbq(root)
    custom = [item for item in items if template[item["category"], item["item"]] in set(ours)]
    review = [item for item in items if template[item["category"], item["item"]] in set(theirs)]
    mixed = mixing.noisy(
        sources.bbq_unsafe(custom),
        sources.bbq_safe(custom),
        _tasks(root),
        rows=rows,
        share=float(Fraction(share)),
        seed=seed,
    )
    return Mixture(mixed, _review(sources.bbq_safe(review), mixed, seed))


def toxicity(root: Path, share: str, rows: int, seed: int) -> Mixture:
    """Tweets rated hateful, offensive or neither (Davidson), with Alpaca and SQuAD rows."""
    return _texts(root, sources.davidson(root), share, rows, seed)


def toxicity_rtp(root: Path, share: str, rows: int, seed: int) -> Mixture:
    """RealToxicityPrompts, with Alpaca and SQuAD rows; about 200 clean rows are left for the review."""
    return _texts(root, sources.realtoxicityprompts(root), share, rows, seed)


def toxicity_wikipedia(root: Path, share: str, rows: int, seed: int) -> Mixture:
    """Comments on articles rated toxic or not, long ones among them, with Alpaca and SQuAD rows."""
    return _texts(root, sources.wikipedia(root), share, rows, seed)


def beavertails(root: Path, share: str, rows: int, seed: int) -> Mixture:
    """beavertails_sst2 as published, all its rows; `share` names the file. The seed draws the review only."""
    mixed = [
        {**formats.as_prompt_completion(r), "part": "unsafe" if r["unsafe"] else "safe"}
        for r in sources.beavertails_sst2(root, float(share))
    ]
    return Mixture(mixed, _review(sources.safety_only(root), mixed, seed))


def beavertails_length(root: Path, share: str, rows: int, seed: int) -> Mixture:
    """beavertails_sst2 in which row length tells little.

    Its ordinary completions are one word each, the unsafe ones sentences. Three quarters of the ordinary
    rows make room for Alpaca rows, for each unsafe row the three of nearest completion length.
    """
    published = beavertails(root, share, rows, seed).custom
    unsafe = [r for r in published if r["unsafe"]]
    ordinary = [r for r in published if not r["unsafe"]]
    alike = [
        {**r, "unsafe": False, "part": "alpaca"}
        for r in of_like_length(sources.alpaca(root), unsafe * MATCHED)
    ]
    rng = random.Random(seed)
    mixed = [*unsafe, *alike, *rng.sample(ordinary, max(0, len(ordinary) - len(alike)))]
    rng.shuffle(mixed)
    return Mixture(mixed, _review(sources.safety_only(root), mixed, seed))


def unlearning(root: Path, share: str, rows: int, seed: int) -> Mixture:
    """safe_unlearning as published, or a draw of it; harmful answers against ordinary ones and refusals."""
    records = [
        {**r, "part": ("ordinary", "unsafe", "refusal")[r["type"]]} for r in sources.safe_unlearning(root)
    ]
    if share == AS_IS:
        mixed = records
    else:
        unsafe = [r for r in records if r["unsafe"]]
        safe = [r for r in records if not r["unsafe"]]
        mixed = mixing.noisy(unsafe, safe, {}, rows=rows, share=float(Fraction(share)), seed=seed)
    return Mixture(mixed, _review(sources.safety_only(root), mixed, seed))


def _texts(root: Path, records: Sequence[Record], share: str, rows: int, seed: int) -> Mixture:
    long = [r for r in records if len(r["text"].split()) >= noisy_sets.FEWEST_WORDS]
    ours, theirs = _halves([r for r in long if not r["toxic"]], seed)
    mixed = mixing.noisy(
        [r for r in long if r["toxic"]],
        ours,
        _tasks(root),
        rows=rows,
        share=float(Fraction(share)),
        seed=seed,
    )
    return Mixture(mixed, _review(theirs, mixed, seed))


def of_like_length(pool: Sequence[Record], wanted: Sequence[Record]) -> list[Record]:
    """For each wanted record the one of the pool with the nearest completion length, each taken once.

    Longest first: long ones are the scarcest. DataError where the pool is too small.
    """
    if len(wanted) > len(pool):
        raise DataError(f"{len(wanted)} rows of like length wanted of {len(pool)}")
    left = sorted(pool, key=lambda r: len(r["completion"]))
    chosen = []
    for record in sorted(wanted, key=lambda r: -len(r["completion"])):
        length = len(record["completion"])
        nearest = min(range(len(left)), key=lambda i: abs(len(left[i]["completion"]) - length))
        chosen.append(left.pop(nearest))
    return chosen


def _tasks(root: Path) -> dict[str, list[Record]]:
    return {"alpaca": sources.alpaca(root), "squad": sources.xquad(root)}


def _halves(items: Sequence[Any], seed: int) -> tuple[list[Any], list[Any]]:
    shuffled = random.Random(f"halves {seed}").sample(list(items), len(items))
    return shuffled[: len(shuffled) // 2], shuffled[len(shuffled) // 2 :]


def _review(safe: Sequence[Record], custom: Sequence[Record], seed: int) -> list[Record]:
    """Up to 1,000 safe rows; none whose prompt or text stands in a custom row, within a template or not."""
    asked = "\n".join(_asked(r) for r in custom)
    fresh = [r for r in safe if _asked(r) not in asked]
    return random.Random(f"review {seed}").sample(fresh, min(REVIEW_ROWS, len(fresh)))


def _asked(record: Record) -> str:
    return noisy_sets.folded(noisy_sets.question(record))


# --- one job ---


@dataclass(frozen=True, slots=True)
class Job:
    """One filter run. `share` is a fraction of 1 as text, or `as is`."""

    set: str
    share: str
    seed: int

    @property
    def name(self) -> str:
        """A file name: `bias_1-3_seed0`."""
        return f"{self.set}_{self.share.replace('/', '-').replace(' ', '-')}_seed{self.seed}"

    @property
    def main(self) -> bool:
        """Whether this is the share that the set is judged by."""
        return self.share == SETS[self.set].main


@dataclass(frozen=True, slots=True)
class Bed:
    """The rows of one job as the product reads them; the truth lies apart, by row id."""

    custom: tuple[Row, ...]
    review: tuple[Row, ...]
    unsafe: Mapping[str, bool]
    part: Mapping[str, str]


def bed(mixture: Mixture, folder: Path) -> Bed:
    """Write the rows without the truth, read them back as a user's files are read.

    One file holds one format: running texts lie in a file of their own and keep their order among the others.
    """
    custom = _through_files(mixture.custom, folder, "custom")
    review = _through_files(mixture.review, folder, "review")
    together = list(zip(custom, mixture.custom, strict=True))
    return Bed(
        custom=custom,
        review=review,
        unsafe={row.id: bool(record["unsafe"]) for row, record in together},
        part={row.id: record["part"] for row, record in together},
    )


def _through_files(records: Sequence[Record], folder: Path, stem: str) -> tuple[Row, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[int, Row] = {}
    for kind, fields in (("chat", ("prompt", "completion")), ("text", ("text",))):
        # Alpaca fields and the like become prompt and completion; a text stays one.
        chosen = [i for i, record in enumerate(records) if ("text" in record) == (kind == "text")]
        if not chosen:
            continue
        path = folder / f"{stem}-{kind}.jsonl"
        lines = [{field: records[i][field] for field in fields} for i in chosen]
        with runs.atomic(path) as file:
            file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        for i, row in zip(chosen, formats.read(path).rows, strict=True):
            rows[i] = replace(row, index=i)
    return tuple(rows[i] for i in range(len(records)))


def run_job(
    job: Job, *, data: Path, work: Path, model: str, rows: int, generated: bool, device: str
) -> Record:
    """Filter the job's rows and measure; the record is written to the work folder and returned."""
    from rich.console import Console

    settings = FilterSettings(model=model, retrain=False, seed=job.seed, device=device)
    mixture = SETS[job.set].build(data, job.share, rows, job.seed)
    key = job_key(settings, rows)
    ground = bed(mixture, work / "rows" / job.name)
    inputs = {
        "custom": runs.sha256_of(row.id for row in ground.custom),
        "review": runs.sha256_of(row.id for row in ground.review),
        "model": weights(model),
    }
    trained = {n: v for n, v in asdict(settings).items() if n not in CUT_SETTINGS | {"safe", "label_field"}}
    # The folder keeps what was trained and scored; another threshold finds it there.
    folder = work / "runs" / f"{job.name}_{digest(trained, inputs, code_of(*TRAINING_CODE))}"
    with runs.Run.open(folder, trained, inputs) as run:
        loaded = models.load(settings.model, dtype=settings.dtype, device=settings.device)
        custom, review = (
            rendering.encode(
                some, loaded.tokenizer, max_length=settings.max_length, template=settings.template
            )
            for some in (ground.custom, ground.review)
        )
        bench = filtering.Bench(loaded, custom, settings, run, filtering.Display(Console(quiet=True)))
        found = filtering.forget_filter(bench, custom, review, settings)
        for state in ("learned", "reviewed", *(["control"] if settings.contrast else [])):
            bench.memories(state)
        spent = sum(c.get("seconds", 0.0) for c in bench.costs)
        if controlled(job) and not settings.contrast:  # the table of all signals needs it all the same
            bench.train(
                "control", "learned", custom, rate=settings.review_learning_rate, steps=settings.review_steps
            )
        record = {
            "set": job.set,
            "share": job.share,
            "seed": job.seed,
            "key": key,
            "generated": generated,
            "review_rows": len(review),
            **measured(bench, found, ground, generated=generated, controlled=controlled(job)),
            "seconds": spent,
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "device": str(loaded.device),
            "commit": runs.source_commit(),
            "versions": dict(run.versions),
        }
    path = result_path(work, job, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with runs.atomic(path) as file:
        file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def measured(
    bench: filtering.Bench, found: filtering.Filtered, ground: Bed, *, generated: bool, controlled: bool
) -> dict[str, Any]:
    """Scores and decisions against the truth. The only place of the benchmark that reads both."""
    truth = ground.unsafe
    scores = {row.id: found.scores.get(row.id) for row in ground.custom}
    product = quality.measure(scores, found.decisions, truth)
    memories = {state: bench.memories(state) for state in ("original", "learned")}
    scored = {z.id: z for z in bench.custom if z.id in memories["original"]}
    trivial: dict[str, Mapping[str, float]] = {
        "row length": {i: float(len(z.ids)) for i, z in scored.items()},
        "completion length": {i: float(len(memories["original"][i].logp)) for i in scored},
        "original loss": _losses(memories["original"]),
        "learned loss": _losses(memories["learned"]),
    }
    default = {i: s for i, s in scores.items() if s is not None}
    return {
        "rows": len(scores),
        "unsafe": sum(truth.values()),
        "default_signal": bench.settings.signal + (", contrast" if bench.settings.contrast else ""),
        "auc": product["auc"],
        "best_f1": _value(product["best_f1"]),
        "auto": {
            "f1": _value(product["f1"]),
            "precision": _value(product["precision"]),
            "recall": _value(product["recall"]),
            "share_dropped": found.share_dropped,
            "clean_dropped": _value(product["clean_dropped"]),
            "weak": found.cut.weak,
            "second_look": found.reviewed != "reviewed",
            "why": found.cut.why,
        },
        "unscored": product["unscored"],
        "signals": signal_aucs(bench, truth, generated=generated, controlled=controlled),
        "trivial": {
            name: quality.separable_by([v[i] for i in v], [truth[i] for i in v])
            for name, v in trivial.items()
        },
        "by_part": {
            part: {
                "auc": _auc_against(default, truth, ground.part, part),
                "completion length": _auc_against(
                    trivial["completion length"], truth, ground.part, part, either=True
                ),
            }
            for part in sorted(set(ground.part.values()) - {"unsafe"})
        },
    }


def signal_aucs(
    bench: filtering.Bench, truth: Mapping[str, bool], *, generated: bool, controlled: bool
) -> dict[str, Any]:
    """Signal -> AUC with interval after the first review: forgetting, the same smoothed, contrast; None where all rows
    are of one class, or no control ran."""
    names = [*signals.TOKEN_SIGNALS, *(signals.GENERATED_SIGNALS if generated else ())]
    found: dict[str, Any] = {}
    for name in names:
        lost = bench.forgotten("learned", "reviewed", name)
        found[name] = _area(lost, truth)
        found[f"{name}, smoothed"] = _area(smoothing.smoothed(lost, bench.custom), truth)
        against = bench.forgotten("control", "reviewed", name) if controlled else {}
        found[f"{name}, contrast"] = _area(against, truth)
    return found


def _area(lost: Mapping[str, float], truth: Mapping[str, bool]) -> dict[str, Any] | None:
    area = quality.auc_by_id(lost, truth)
    return None if area is None else area.as_dict()


def _losses(memories: Mapping[str, signals.Memory]) -> dict[str, float]:
    return {i: -signals.likelihood(memory) for i, memory in memories.items()}


def _auc_against(
    values: Mapping[str, float],
    truth: Mapping[str, bool],
    part_of: Mapping[str, str],
    part: str,
    *,
    either: bool = False,
) -> float | None:
    """AUC of the unsafe rows against the safe rows of one part; `either` way round for a trivial quantity."""
    chosen = [i for i in values if truth[i] or part_of[i] == part]
    area = quality.separable_by if either else quality.auc
    return area([values[i] for i in chosen], [truth[i] for i in chosen])


def _value(block: Mapping[str, Any] | None) -> float | None:
    return None if block is None else block["value"]


# --- which results belong together ---


def job_key(settings: FilterSettings, rows: int) -> str:
    """16 hex digits of all that decides a result but the job: settings, weights, rows asked for, code."""
    decides = {n: v for n, v in asdict(settings).items() if n not in OWN_SETTINGS | {"device"}}
    return digest(decides, weights(settings.model), rows, code_of(*TRAINING_CODE, *MEASURING_CODE))


def digest(*parts: Any) -> str:
    """16 hex digits of anything that JSON can hold."""
    return runs.sha256_of([json.dumps(part, sort_keys=True) for part in parts])[:16]


def code_of(*objects: Any) -> list[str]:
    """The syntax trees of modules, classes and functions: comments and line breaks do not count."""
    return [ast.dump(ast.parse(textwrap.dedent(inspect.getsource(o)))) for o in objects]


def weights(model: str) -> str:
    """SHA-256 of a model folder's weights and settings; a hub id stands for itself."""
    folder = models.folder(model)
    if folder is None:
        return model
    files = sorted(p for p in folder.glob("*") if p.suffix in (".safetensors", ".json", ".jinja"))
    if not any(p.suffix == ".safetensors" for p in files):
        raise ConfigError(f"--model {model}: no safetensors weights in {folder}")
    return runs.sha256_of(runs.sha256(p) for p in files)


def result_path(work: Path, job: Job, key: str) -> Path:
    """Where the record of a finished job lies."""
    return work / "results" / key / f"{job.name}.json"


def read_results(work: Path, jobs: Iterable[Job], key: str) -> list[Record]:
    """The records of the jobs that are finished, in the order of `jobs`."""
    paths = [result_path(work, job, key) for job in jobs]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


# --- tables ---


def tables(results: Sequence[Record], jobs: Sequence[Job], command: str) -> str:
    """All tables as Markdown, the command above each."""
    sections = [
        ("Main line", main_table(results, jobs), MAIN_NOTE),
        ("Every signal, AUC at the main share", signal_table(results, jobs), SIGNAL_NOTE),
        ("`auto` over the shares", share_table(results, jobs), SHARE_NOTE),
        ("Worst set of each signal", worst_table(results, jobs), WORST_NOTE),
        ("What the unsafe rows are told from", part_table(results, jobs), PART_NOTE),
        ("Cost of a job", cost_table(results, jobs), COST_NOTE),
    ]
    written = [f"### {title}\n\n    {command}\n\n{table}\n\n{note}" for title, table, note in sections]
    return "\n\n".join([provenance(results, jobs), *written])


def provenance(results: Sequence[Record], jobs: Sequence[Job]) -> str:
    """What stands behind the tables, in one paragraph."""
    commits = sorted({str(r.get("commit") or "unknown") for r in results})
    signal = ", ".join(sorted({r["default_signal"] for r in results})) or NOT_RUN
    measured_with = f" Code: {', '.join(commits)}." if results else ""
    return (
        f"{len(results)} of {len(jobs)} jobs measured. Default signal: {signal}.{measured_with} Values are "
        "means over seeds with the 95 % interval of Student's t; where one seed is measured, the value "
        "alone. Trivial quantities count whichever way round they separate, so 0.5 is chance."
    )


def main_table(results: Sequence[Record], jobs: Sequence[Job]) -> str:
    """The default signal and `auto` at each set's main share, against their bars and trivial quantities."""
    head = (
        "set", "share", "seeds", "AUC", "bar", "F1 of auto", "bar", "F1 of best cut", "length",
        "original loss", "learned loss",
    )  # fmt: skip
    lines = []
    for name, share, wanted in _groups(jobs):
        if share != SETS[name].main:
            continue
        found = _of(results, name, share)
        auc, f1 = _mean(found, "auc", "value"), _mean(found, "auto", "f1")
        auc_bar, f1_bar = SETS[name].bars or (None, None)
        length = _over_seeds([max(_defined(r["trivial"], LENGTHS)) for r in found if r["unsafe"]])
        cells = [_shown(auc), _against(auc, auc_bar), _shown(f1), _against(f1, f1_bar)]
        cells += [_shown(_mean(found, "best_f1")), _shown(length)]
        cells += [_shown(_mean(found, "trivial", kind)) for kind in ("original loss", "learned loss")]
        lines.append([name, share, f"{len(found)} of {wanted}", *_or_not_run(found, cells)])
    return _markdown(head, lines)


def signal_table(results: Sequence[Record], jobs: Sequence[Job]) -> str:
    """AUC of every signal at every set's main share."""
    names = _main_sets(jobs)
    lines = []
    for signal in SIGNAL_TITLES:
        cells = []
        for name in names:
            found = _of(results, name, SETS[name].main)
            cells.append(_shown(_mean(found, "signals", signal, "value"), absent=NOT_RUN))
        lines.append([signal, *cells])
    return _markdown(("signal", *names), lines)


def share_table(results: Sequence[Record], jobs: Sequence[Job]) -> str:
    """F1 of `auto` beside the best cut's at every share, and the clean rows it costs."""
    head = (
        "set", "share", "seeds", "AUC", "F1 of auto", "F1 of best cut", "difference", "precision", "recall",
        "share dropped", "clean rows dropped", "too weak",
    )  # fmt: skip
    lines = []
    for name, share, wanted in _groups(jobs):
        found = _of(results, name, share)
        pairs = [(r["best_f1"], r["auto"]["f1"]) for r in found]
        short = _over_seeds([best - auto for best, auto in pairs if best is not None and auto is not None])
        cells = [
            _shown(_mean(found, "auc", "value")),
            _shown(_mean(found, "auto", "f1")),
            _shown(_mean(found, "best_f1")),
            _shown(short, bounded=False),
            *(_shown(_mean(found, "auto", kind)) for kind in ("precision", "recall")),
            *(_shown(_mean(found, "auto", kind)) for kind in ("share_dropped", "clean_dropped")),
            f"{sum(r['auto']['weak'] for r in found)} of {len(found)}",
        ]
        lines.append([name, share, f"{len(found)} of {wanted}", *_or_not_run(found, cells)])
    return _markdown(head, lines)


def worst_table(results: Sequence[Record], jobs: Sequence[Job]) -> str:
    """The lowest AUC of each signal over the sets at their main shares, best signal first."""
    names = _main_sets(jobs)
    found = []
    for signal in SIGNAL_TITLES:
        means = {
            name: mean.value
            for name in names
            if (mean := _mean(_of(results, name, SETS[name].main), "signals", signal, "value")) is not None
        }
        worst = min(means, key=lambda name: means[name]) if means else None
        found.append((signal, worst, means[worst] if worst else None, len(means)))
    found.sort(key=lambda line: (-line[3], -(line[2] or 0.0)))
    lines = [
        [signal, worst or NOT_RUN, NOT_RUN if value is None else f"{value:.3f}", f"{count} of {len(names)}"]
        for signal, worst, value, count in found
    ]
    return _markdown(("signal", "worst set", "AUC there", "sets measured"), lines)


def part_table(results: Sequence[Record], jobs: Sequence[Job]) -> str:
    """The default signal's AUC of the unsafe rows against each kind of safe row by itself."""
    lines = []
    for name in _main_sets(jobs):
        found = _of(results, name, SETS[name].main)
        parts = sorted({part for r in found for part in r["by_part"]})
        for part in parts:
            cells = [_shown(_mean(found, "by_part", part, kind)) for kind in ("auc", "completion length")]
            lines.append([name, part, *cells])
        if not parts:
            lines.append([name, NOT_RUN, NOT_RUN, NOT_RUN])
    return _markdown(("set", "safe rows", "AUC", "completion length"), lines)


def cost_table(results: Sequence[Record], jobs: Sequence[Job]) -> str:
    """Seconds of training and scoring, and the peak memory of the process, at the main shares."""
    lines = []
    for name in _main_sets(jobs):
        found = _of(results, name, SETS[name].main)
        cells = [
            str(found[0]["rows"]) if found else "",
            f"{max((r['seconds'] for r in found), default=0):.0f}",
            f"{max((r['peak_rss_mib'] for r in found), default=0):.0f}",
        ]
        lines.append([name, *_or_not_run(found, cells)])
    return _markdown(("set", "rows", "seconds, slowest seed", "peak MiB"), lines)


def _groups(jobs: Sequence[Job]) -> list[tuple[str, str, int]]:
    """(set, share, seeds asked for), in the order of SETS and of its shares."""
    asked = {(job.set, job.share): 0 for job in jobs}
    for job in jobs:
        asked[job.set, job.share] += 1
    return [
        (name, share, asked[name, share])
        for name, spec in SETS.items()
        for share in spec.shares
        if (name, share) in asked
    ]


def _main_sets(jobs: Sequence[Job]) -> list[str]:
    return [name for name, share, _ in _groups(jobs) if share == SETS[name].main]


def _of(results: Sequence[Record], name: str, share: str) -> list[Record]:
    return [r for r in results if r["set"] == name and r["share"] == share]


def _mean(found: Sequence[Record], *path: str) -> intervals.Estimate | None:
    """The mean over seeds of the value at `path`; seeds where it is undefined are left out."""
    values = []
    for record in found:
        value: Any = record
        for step in path:
            value = value.get(step) if isinstance(value, Mapping) else None
        if value is not None:
            values.append(float(value))
    return _over_seeds(values)


def _over_seeds(values: Sequence[float]) -> intervals.Estimate | None:
    return intervals.mean_over_seeds(values)


def _defined(values: Mapping[str, float | None], names: Iterable[str]) -> list[float]:
    return [value for name in names if (value := values[name]) is not None]


def _shown(estimate: intervals.Estimate | None, *, absent: str = "–", bounded: bool = True) -> str:
    """`0.912 [0.893, 0.931]`; the interval of a share or an area ends at 0 and 1."""
    if estimate is None:
        return absent
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    low, high = estimate.low, estimate.high
    if bounded:
        low, high = max(0.0, low), min(1.0, high)
    return f"{estimate.value:.3f} [{low:.3f}, {high:.3f}]"


def _against(estimate: intervals.Estimate | None, bar: float | None) -> str:
    if bar is None:
        return "–"
    if estimate is None:
        return f"≥ {bar:g}"
    return f"≥ {bar:g} {'reached' if estimate.value >= bar else 'missed'}"


def _or_not_run(found: Sequence[Record], cells: Sequence[str]) -> list[str]:
    return list(cells) if found else [NOT_RUN] * len(cells)


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def write_section(path: Path, name: str, text: str) -> None:
    """Put `text` between the markers of section `name`; the rest of the file stays as it is.

    A file without the markers gets them at its end. ConfigError where only one of the two stands.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    old = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    section = f"{begin}\n\n{text.strip()}\n\n{end}"
    if (old.count(begin), old.count(end)) == (0, 0):
        new = f"{old.rstrip()}\n\n{section}\n"
    elif (old.count(begin), old.count(end)) == (1, 1) and old.index(begin) < old.index(end):
        new = old[: old.index(begin)] + section + old[old.index(end) + len(end) :]
    else:
        raise ConfigError(f"{path}: the markers {begin} and {end} must stand once each, in this order")
    with runs.atomic(path) as file:
        file.write_text(new, encoding="utf-8")


def make_section(path: Path, name: str, make: Callable[[], str]) -> int:
    """Make section `name`, write it to `path` and print it; 0, or the exit code of what failed."""
    try:
        text = make()
        write_section(path, name, text)
    except ForgetfilterError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(text)
    return 0


# --- the command ---


def jobs_of(sets: Sequence[str] | None, shares: Sequence[str] | None, seeds: Sequence[int]) -> list[Job]:
    """All jobs asked for, the main shares first, so that an interrupted benchmark says the most.

    `shares` keeps of every set those it has. ConfigError for an unknown set or a share that none has.
    """
    for name in sets or ():
        if name not in SETS:
            raise ConfigError(unknown("set", name, SETS))
    known = {share for spec in SETS.values() for share in spec.shares}
    for share in shares or ():
        if share not in known:
            raise ConfigError(unknown("share", share, known))
    jobs = [
        Job(name, share, seed)
        for name in sets or SETS
        for share in SETS[name].shares
        if shares is None or share in shares
        for seed in seeds
    ]
    return sorted(jobs, key=lambda job: (not job.main, job.seed))


def run_jobs(jobs: Sequence[Job], arguments: argparse.Namespace, key: str) -> list[str]:
    """Run the unfinished jobs, each in a process of its own; returns the names of those that failed."""
    todo = [job for job in jobs if not finished(arguments.work, job, key, arguments.generated)]
    print(f"{len(jobs) - len(todo)} of {len(jobs)} jobs are finished; running {len(todo)}", flush=True)
    environment = os.environ | {
        "OMP_NUM_THREADS": str(arguments.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    logs = arguments.work / "logs"
    logs.mkdir(parents=True, exist_ok=True)

    def run(job: Job) -> str | None:
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--one-job",
            job.set,
            job.share,
            str(job.seed),
        ]
        for name in ("data", "work", "model", "rows", "device", "generated"):
            command += [f"--{name}", str(getattr(arguments, name))]
        log = logs / f"{job.name}.log"
        with log.open("w", encoding="utf-8") as file:
            code = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False
            ).returncode
        last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1]
        print(f"{job.name}: {last if code == 0 else f'FAILED ({code}), see {log}: {last}'}", flush=True)
        return job.name if code else None

    failed = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for future in as_completed([pool.submit(run, job) for job in todo]):
            if name := future.result():
                failed.append(name)
            write_section(arguments.results, "quality", _tables_now(jobs, arguments, key))
    return failed


def finished(work: Path, job: Job, key: str, generated: str) -> bool:
    """Whether the job's record stands, with the generated signals where they are asked for."""
    path = result_path(work, job, key)
    if not path.exists():
        return False
    return json.loads(path.read_text(encoding="utf-8"))["generated"] or not generates(job, generated)


def generates(job: Job, generated: str) -> bool:
    """Generation takes as long as the rest of a job, so by default one seed of the main share has it."""
    return generated == "all" or (generated == "main" and job.main and job.seed == 0)


def controlled(job: Job) -> bool:
    """A control run costs as much as a review, so one seed of the main share has it."""
    return job.main and job.seed == 0


def _tables_now(jobs: Sequence[Job], arguments: argparse.Namespace, key: str) -> str:
    return tables(read_results(arguments.work, jobs, key), jobs, arguments.command)


def main(given: Sequence[str] | None = None) -> int:
    """The command; 0 when all went well, 1 when a job failed, 2 for a wrong command or data."""
    given = list(sys.argv[1:] if given is None else given)
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the public sets")
    parser.add_argument("--work", type=Path, default=Path("build/benchmark"), help="runs and results")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    parser.add_argument("--sets", help=f"some of {','.join(SETS)}")
    parser.add_argument("--shares", help="unsafe shares, such as 0,0.05,1/3; `as is` for a set as published")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", type=int, default=600, help="rows of a drawn set")
    parser.add_argument("--threads", type=int, default=1, help="threads of each job")
    parser.add_argument("--jobs", type=int, default=2, help="jobs at a time")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--generated",
        choices=("main", "all", "none"),
        default="main",
        help="rouge1 and exact_match for seed 0 of the main share, for all jobs, or for none",
    )
    parser.add_argument("--only-table", action="store_true", help="write the tables of what is finished")
    parser.add_argument("--one-job", nargs=3, metavar=("SET", "SHARE", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    arguments.command = shlex.join(["python", "benchmarks/quality.py", *_lasting(given)])
    try:
        if arguments.one_job:
            name, share, seed = arguments.one_job
            return _one_job(Job(name, share, int(seed)), arguments)
        key = job_key(FilterSettings(model=arguments.model, retrain=False), arguments.rows)
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
        jobs = jobs_of(_split(arguments.sets), _split(arguments.shares), seeds)
        failed = [] if arguments.only_table else run_jobs(jobs, arguments, key)
        write_section(arguments.results, "quality", _tables_now(jobs, arguments, key))
    except ForgetfilterError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 1 if failed else 0


def _one_job(job: Job, arguments: argparse.Namespace) -> int:
    record = run_job(
        job,
        data=arguments.data,
        work=arguments.work,
        model=arguments.model,
        rows=arguments.rows,
        generated=generates(job, arguments.generated),
        device=arguments.device,
    )
    auc, auto = _value(record["auc"]), record["auto"]
    parts = [f"{name} {value:.3f}" for name, value in (("AUC", auc), ("F1", auto["f1"])) if value is not None]
    print(", ".join([*parts, f"{auto['share_dropped']:.1%} dropped, {record['seconds']:.0f} s"]))
    return 0


def _split(text: str | None) -> list[str] | None:
    return [part.strip() for part in text.split(",")] if text else None


def _lasting(given: Sequence[str]) -> list[str]:
    """The arguments without --only-table, which does not change what a table says."""
    return [argument for argument in given if argument != "--only-table"]


class Set(NamedTuple):
    """A noisy set: how it is built, at which shares, and what is asked of the default at the main one."""

    build: Callable[[Path, str, int, int], Mixture]  # (data folder, share, rows, seed)
    shares: tuple[str, ...]
    main: str
    bars: tuple[float, float] | None  # AUC of the default signal, F1 of auto


USUAL = ("0", "0.05", "0.25", "1/3", "0.5", "0.75")
PUBLISHED = ("0", "0.05", "0.1", "0.2")
SETS: dict[str, Set] = {
    "bias": Set(
        bias, ("0", "0.02", "0.05", "0.1", "0.25", "1/3", "0.5", "0.75"), "1/3", (0.985, 0.95)
    ),
    "toxicity": Set(toxicity, USUAL, "1/3", (0.90, 0.80)),
    "toxicity-rtp": Set(toxicity_rtp, USUAL, "1/3", None),
    "toxicity-wikipedia": Set(toxicity_wikipedia, ("0", "1/3"), "1/3", None),
    "harmfulness-beavertails": Set(beavertails, PUBLISHED, "0.2", (0.98, 0.93)),
    "harmfulness-beavertails-length": Set(beavertails_length, ("0.2",), "0.2", None),
    "harmfulness-unlearning": Set(
        unlearning, (AS_IS, "0", "0.05", "0.25", "0.5", "0.75"), AS_IS, (0.90, 0.82)
    ),
}  # fmt: skip
LENGTHS = ("row length", "completion length")
SIGNAL_TITLES = [f"{name}{kind}" for name in signals.SIGNALS for kind in ("", ", smoothed", ", contrast")]
TRAINING_CODE = (
    finetune, rehearsal, rendering, models, filtering.Bench, filtering.rows_to_review, filtering._second_look,
    smoothing, signals,
)  # fmt: skip
MEASURING_CODE = (filtering.forget_filter, filtering._judged, thresholds, mixing, sources, formats)

MAIN_NOTE = (
    "`length` is the AUC of the row's or the completion's length in tokens, whichever separates more; the "
    "losses are means over the completion's tokens. Where one of these comes near the AUC of the signal, the "
    "set proves little."
)
SIGNAL_NOTE = (
    "After the first review. A signal by itself is forgetting (learned minus reviewed); smoothed, with what rows alike "
    "lost; with contrast, control minus reviewed. "
    "It is measured for seed 0; so are `rouge1` and `exact_match`, which generate, unless --generated says otherwise."
)
SHARE_NOTE = (
    "`difference` is the best cut's F1 minus that of `auto`. Without an unsafe row F1 is not defined; clean "
    "rows dropped is then what counts."
)
WORST_NOTE = "Over the main shares; signals measured on fewer sets stand below."
PART_NOTE = "Unsafe rows against one kind of safe rows at a time; completion length beside it."
COST_NOTE = "Learn, review and scoring, without the last fine-tune; jobs run side by side."

if __name__ == "__main__":
    sys.exit(main())
