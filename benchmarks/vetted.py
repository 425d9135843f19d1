"""What are a person's verdicts worth? Learning curves, rows found, cuts and intervals against the truth.

    python benchmarks/vetted.py --data ../shared/data --work build/vetted --model smollm2

Each pool of rows is read once by the model; its states are kept in the work folder. What the user said is found over
all pools together: found in each by itself, it would tell the pools apart, and with them the unsafe rows. A file is a
draw of pools, a verdict is the truth of a row. A finished job is a small JSON file and is not run again. Another model
gets a section and a work folder of its own:

    python benchmarks/vetted.py --model nano --work build/vetted-nano --section vetted-nano --jobs curve --draws 3
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sections import RESULTS, write_section

from forgetfilter import runs
from forgetfilter.data import formats, sources
from forgetfilter.evaluate import noisy_sets
from forgetfilter.filter import certify, probe, propose, quality, states
from forgetfilter.filter.states import standardised
from forgetfilter.intervals import Estimate, mean_over_seeds
from forgetfilter.models import load, rendering, scorers
from forgetfilter.models.rendering import Encoded
from forgetfilter.records import Row
from forgetfilter.report import plots

Record = dict[str, Any]

MAX_LENGTH = 144
ROWS = 600
THIRD, TWENTIETH, HUNDREDTH = 1 / 3, 0.05, 0.01
COUNTS = (25, 50, 100, 200)
LOOKS, DRAWS, CURVE_DRAWS, COVERAGE_DRAWS, CLEAN_DRAWS = 100, 12, 10, 15, 20
PLOT = Path(__file__).parents[1] / "docs" / "vetted.svg"


class Set(NamedTuple):
    """Pools of a file: unsafe rows, clean rows of their kind (or none), tasks."""

    unsafe: str
    clean: str | None
    tasks: tuple[str, ...]


CHOOSING = {
    "bias (Age, Nationality)": Set("bbq_an_u", "bbq_an_c", ("alpaca",)),
    "toxicity (Davidson)": Set("dav_u", "dav_c", ("alpaca",)),
    "BeaverTails in Alpaca": Set("bt_u", None, ("alpaca",)),
    "BeaverTails in GSM8K": Set("bt_u", None, ("gsm8k",)),
}
REPORTING = {
    "bias (Disability, Orientation)": Set("bbq_ds_u", "bbq_ds_c", ("samsum",)),
    "toxicity (OLID)": Set("olid_u", "olid_c", ("sst2", "samsum")),
    "toxicity (Wikipedia)": Set("wiki_u", "wiki_c", ("gsm8k",)),
    "toxicity (RealToxicityPrompts)": Set("rtp_u", "rtp_c", ("samsum",)),
    "harmful in GSM8K": Set("su_u", None, ("gsm8k",)),
    "harmful in SST-2": Set("su_u", None, ("sst2",)),
    "harmful in SAMSum": Set("su_u", None, ("samsum",)),
}
TITLES = {t: f"{t} *" if t in CHOOSING else t for t in (*CHOOSING, *REPORTING)}


# --- pools ---


def pools(root: Path) -> dict[str, Callable[[], list[Record]]]:
    """Name -> the records of a pool, some hundreds, the same ones every time."""

    def bbq(*categories: str) -> list[Record]:
        return [i for i in sources.bbq(root) if i["category"] in categories]

    def texts(records: Sequence[Record], toxic: bool) -> list[Record]:
        long = [r for r in records if len(r["text"].split()) >= noisy_sets.FEWEST_WORDS]
        return [r for r in long if r["toxic"] == toxic]

    found: dict[str, Callable[[], list[Record]]] = {}
    for name, kinds in (("an", ("Age", "Nationality")), ("ds", ("Disability_status", "Sexual_orientation"))):
        found[f"bbq_{name}_u"] = lambda kinds=kinds: _some(sources.bbq_unsafe(bbq(*kinds)), 220, "x")
        found[f"bbq_{name}_c"] = lambda kinds=kinds: _some(sources.bbq_safe(bbq(*kinds)), 400, "y")
    for name, read, unsafe, clean in (
        ("dav", sources.davidson, 250, 500), ("olid", sources.olid, 250, 500),
        ("wiki", sources.wikipedia, 220, 400), ("rtp", sources.realtoxicityprompts, 220, 400),
    ):  # fmt: skip
        found[f"{name}_u"] = lambda read=read, n=unsafe: _some(texts(read(root), True), n, "x")
        found[f"{name}_c"] = lambda read=read, n=clean: _some(texts(read(root), False), n, "y")
    found["bt_u"] = lambda: _some(
        [formats.as_prompt_completion(r) for r in sources.beavertails_sst2(root, 0.2) if r["unsafe"]],
        180,
        "x",
    )
    found["su_u"] = lambda: _some([r for r in sources.safe_unlearning(root) if r["type"] == 1], 220, "x")
    for name, read, count in (
        ("alpaca", sources.alpaca, 500), ("gsm8k", sources.gsm8k, 700), ("sst2", sources.sst2, 500),
        ("samsum", sources.samsum, 400),
    ):  # fmt: skip
        found[name] = lambda read=read, n=count: _some(read(root), n, "x")
    return found


def _some(records: Sequence[Record], count: int, key: str) -> list[Record]:
    unique = {
        noisy_sets.folded(noisy_sets.question(r) + str(r.get("completion", ""))): r for r in records
    }.values()
    return random.Random(key).sample(list(unique), min(count, len(unique)))


class Pool(NamedTuple):
    """States (rows, width), texts, and what the bundled scorer says of them, NaN where it cannot tell."""

    states: np.ndarray
    texts: list[str]
    toxic: np.ndarray


class Ground(NamedTuple):
    """One file: standardised states (rows, width), places in `Bench.words`, the scorer's ranking, the truth."""

    states: np.ndarray
    places: np.ndarray
    toxic: np.ndarray
    unsafe: np.ndarray


class Bench:
    """Pools as they are needed."""

    def __init__(self, data: Path, work: Path, model: str) -> None:
        self._pools, self._work, self._model = pools(data), work, model

    @cached_property
    def _rows(self) -> Mapping[str, Sequence[Row]]:
        return {name: noisy_sets.as_rows(records(), name) for name, records in self._pools.items()}

    @cached_property
    def _ready(self) -> tuple[load.Loaded, Mapping[str, tuple[list[Encoded], list[tuple[int, int]]]]]:
        """The model, and by pool its rows as tokens with the places of the user's words."""
        loaded = load.load(self._model)
        encoded = {
            n: rendering.encode(rows, loaded.tokenizer, max_length=MAX_LENGTH)
            for n, rows in self._rows.items()
        }
        words = iter(states.users_words([z for rows in encoded.values() for z in rows]))
        return loaded, {n: (rows, [next(words) for _ in rows]) for n, rows in encoded.items()}

    @cache  # noqa: B019 (one bench a process)
    def pool(self, name: str) -> Pool:
        rows, path = self._rows[name], self._work / "states" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        everything = [r.id for n in self._rows for r in self._rows[n]]
        key = states.key_of([name, *everything], load.fingerprint(self._model), max_length=MAX_LENGTH)
        read = states.kept(path, key)
        if read is None:
            loaded, encoded = self._ready
            some, words = encoded[name]
            pad = loaded.tokenizer.pad_token_id or 0
            read = states.read_rows(loaded.model, some, pad_id=pad, words=words).both()
            states.keep(path, key, read)
        texts = [f"{r.prompt} {r.completion}" for r in rows]
        said = scorers.load("ngram")(texts)
        return Pool(read, texts, np.array([np.nan if s is None else s for s in said], float))

    def file(self, of: Set, share: float, seed: int) -> Ground:
        """About ROWS rows, `share` of them unsafe; clean ones half of the same kind, half tasks."""
        draw = np.random.default_rng([seed, round(1000 * share), len(of.unsafe)])
        unsafe = min(round(ROWS * share), len(self.pool(of.unsafe).texts))
        left = round(unsafe / share * (1 - share)) if share else ROWS
        wanted = {of.unsafe: unsafe}
        if of.clean:
            wanted[of.clean] = min(len(self.pool(of.clean).texts), left // 2)
            left -= wanted[of.clean]
        for i, task in enumerate(of.tasks):
            wanted[task] = min(len(self.pool(task).texts), left // (len(of.tasks) - i))
            left -= wanted[task]
        parts = [(self.pool(n), draw.permutation(len(self.pool(n).texts))[:k]) for n, k in wanted.items()]
        order = draw.permutation(sum(len(rows) for _, rows in parts))
        first = np.cumsum([0, *(len(p.texts) for p, _ in parts)])
        return Ground(
            standardised(np.concatenate([p.states[rows] for p, rows in parts])[order]),
            np.concatenate([start + rows for start, (_, rows) in zip(first, parts, strict=False)])[order],
            np.concatenate([p.toxic[rows] for p, rows in parts])[order],
            (np.arange(len(order)) < unsafe)[order],
        )

    @cache  # noqa: B019
    def words(self, of: Set) -> Any:
        """TF-IDF of character n-grams (all rows of the set's pools, features), sparse."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        names = [of.unsafe, *([of.clean] if of.clean else []), *of.tasks]
        texts = [t for n in names for t in self.pool(n).texts]
        return TfidfVectorizer(
            analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2
        ).fit_transform(texts)


# --- jobs ---


def curve(bench: Bench, of: Set, share: float, seed: int) -> Record:
    """Probe and words, on the same random verdicts: AUC on the other rows; F1 of the default cut on all."""
    ground = bench.file(of, share, seed)
    order = np.random.default_rng([seed, 1]).permutation(len(ground.unsafe))
    words, found = bench.words(of)[ground.places], {}
    for k in COUNTS:
        vetted, others = order[:k], order[k:]
        y = ground.unsafe[vetted]
        if not 2 <= y.sum() <= k - 2:
            continue
        scores, held_out = probe.score(ground.states, vetted, y)
        cut = certify.cut(scores, held_out, vetted, y, np.ones(k, bool))
        found[str(k)] = {
            "probe": _auc(ground.unsafe[others], scores[others]),
            "words": _auc(ground.unsafe[others], _by_words(words, vetted, y)[others]),
            "how": cut.how,
            **against(cut.dropped, ground.unsafe),
        }
    return {"scorer": _auc(ground.unsafe, np.nan_to_num(ground.toxic)), "by_count": found}


def looks(bench: Bench, of: Set, share: float, seed: int) -> Record:
    """A hundred looks, random and proposed: unsafe rows seen; then the cut, and whether its intervals hold."""
    ground = bench.file(of, share, seed)
    order = propose.random_order(len(ground.unsafe), seed)
    seen = asked(ground, order[: propose.RANDOM].tolist(), LOOKS)
    found: Record = {
        "random": float(ground.unsafe[order[:LOOKS]].sum() / ground.unsafe.sum()),
        "proposed": float(ground.unsafe[seen].sum() / ground.unsafe.sum()),
    }
    return {**found, **_certified(ground, seen, propose.RANDOM)}


def unhelped(bench: Bench, of: Set, share: float, seed: int) -> Record:
    """The same looks without the bundled scorer among the proposers: it learned from some of the sets."""
    ground = bench.file(of, share, seed)
    order = propose.random_order(len(ground.unsafe), seed)
    seen = asked(ground, order[: propose.RANDOM].tolist(), LOOKS, scorer=False)
    return {"proposed": float(ground.unsafe[seen].sum() / ground.unsafe.sum())}


def asked(ground: Ground, seen: list[int], count: int, scorer: bool = True) -> list[int]:
    """Rows seen after `count` looks, those of `seen` first, in rounds of ten."""
    others = [ground.toxic] if scorer else []
    while len(seen) < count:
        y = ground.unsafe[seen]
        seen = seen + propose.next_rows(ground.states, np.array(seen), y, others=others)
    return seen[:count]


def coverage(count: int) -> Callable[[Bench, Set, float, int], Record]:
    """A job: do the intervals hold after `count` random verdicts?"""

    def job(bench: Bench, of: Set, share: float, seed: int) -> Record:
        ground = bench.file(of, share, 1000 + seed)
        return _certified(ground, propose.random_order(len(ground.unsafe), seed)[:count].tolist(), count)

    return job


def clean(bench: Bench, of: Set, share: float, seed: int) -> Record:
    """A file without an unsafe row, 50 verdicts: the share of rows dropped."""
    ground = bench.file(of, 0.0, seed)
    seen = np.array(
        asked(ground, propose.random_order(len(ground.unsafe), seed)[: propose.RANDOM].tolist(), 50)
    )
    scores, held_out = probe.score(ground.states, seen, ground.unsafe[seen])
    cut = certify.cut(scores, held_out, seen, ground.unsafe[seen], np.arange(50) < propose.RANDOM)
    return {"dropped": float(cut.dropped.mean()), "share_high": cut.share.high if cut.share else None}


def _certified(ground: Ground, seen: Sequence[int], drawn: int) -> Record:
    """The cut after these verdicts against the truth; per estimate whether its interval holds it."""
    rows, truth = np.asarray(seen), ground.unsafe
    scores, held_out = probe.score(ground.states, rows, truth[rows])
    cut = certify.cut(scores, held_out, rows, truth[rows], np.arange(len(rows)) < drawn)
    real = against(cut.dropped, truth)
    true = {
        "share": truth.mean(), "precision": real["precision"], "recall": real["recall"],
        "left": (truth & ~cut.dropped).sum(),
    }  # fmt: skip
    holds = {}
    for name, value in true.items():
        estimate: Estimate | None = getattr(cut, name)
        if estimate is not None and value is not None:
            holds[name] = {
                "holds": bool(estimate.low - 1e-9 <= value <= estimate.high + 1e-9),
                "width": estimate.high - estimate.low,
            }
    return {"how": cut.how, **real, "intervals": holds}


def against(dropped: np.ndarray, truth: np.ndarray) -> Record:
    hit = int((dropped & truth).sum())
    return {
        "precision": hit / int(dropped.sum()) if dropped.any() else None,
        "recall": hit / int(truth.sum()) if truth.any() else None,
        "f1": 2 * hit / int(dropped.sum() + truth.sum()) if (dropped | truth).any() else None,
        "clean_lost": int((dropped & ~truth).sum()) / int((~truth).sum()),
    }


def _auc(truth: np.ndarray, scores: np.ndarray) -> float | None:
    return quality.auc(scores, truth)


def _by_words(words: Any, vetted: np.ndarray, unsafe: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=10, max_iter=300, class_weight="balanced").fit(words[vetted], unsafe)
    return fit.decision_function(words)


# name -> job, sets, shares, draws
JOBS: Mapping[str, tuple[Callable[[Bench, Set, float, int], Record], Mapping[str, Set], tuple[float, ...], int]] = {
    "curve": (curve, {**CHOOSING, **REPORTING}, (THIRD,), CURVE_DRAWS),
    "looks": (looks, {**CHOOSING, **REPORTING}, (HUNDREDTH, TWENTIETH), DRAWS),
    "thirds": (looks, {**CHOOSING, **REPORTING}, (THIRD,), DRAWS),
    "unhelped": (unhelped, {**CHOOSING, **REPORTING}, (HUNDREDTH, TWENTIETH), DRAWS),
    "coverage50": (coverage(50), REPORTING, (THIRD, TWENTIETH), COVERAGE_DRAWS),
    "coverage200": (coverage(200), REPORTING, (THIRD, TWENTIETH), COVERAGE_DRAWS),
    "clean": (clean, REPORTING, (0.0,), CLEAN_DRAWS),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("build/vetted"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument(
        "--jobs",
        default=",".join(JOBS),
        help="names, joined by commas; empty: write the section from what is there",
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--section", default="vetted", help="name of the section of RESULTS.md")
    parser.add_argument("--draws", type=int, help="at most so many draws of each job")
    parser.add_argument("--sets", choices=["all", "choosing", "reporting"], default="all")
    arguments = parser.parse_args()
    chosen = {"all": {**CHOOSING, **REPORTING}, "choosing": CHOOSING, "reporting": REPORTING}[arguments.sets]
    bench = Bench(arguments.data, arguments.work, arguments.model)
    for name in filter(None, arguments.jobs.split(",")):
        job, sets, shares, draws = JOBS[name]
        wanted = {title: of for title, of in sets.items() if title in chosen}
        draws = min(draws, arguments.draws or draws)
        for seed in range(draws):  # all sets get a draw before any gets two: a run can be stopped at any time
            for (title, of), share in itertools.product(wanted.items(), shares):
                path = arguments.work / "jobs" / f"{name}-{of.unsafe}-{of.tasks[0]}-{share:.3f}-{seed}.json"
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    record = {"set": title, "share": share, "seed": seed, **job(bench, of, share, seed)}
                    with runs.atomic(path) as file:
                        file.write_text(json.dumps(record) + "\n", encoding="utf-8")
            print(name, "draw", seed + 1, "of", draws, flush=True)
    found = {n: _read(arguments.work, n) for n in JOBS}
    write_section(arguments.results, arguments.section, section(found, arguments.model))
    if found["curve"] and arguments.section == "vetted":
        PLOT.parent.mkdir(exist_ok=True)
        with runs.atomic(PLOT) as file:
            file.write_text(plot(found["curve"]), encoding="utf-8")


def _read(work: Path, job: str) -> list[Record]:
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted((work / "jobs").glob(f"{job}-*.json"))]


# --- what was found, in words ---


def _mean(values: Sequence[Any]) -> Estimate | None:
    return mean_over_seeds([float(v) for v in values if v is not None])


def _said(values: Sequence[Any], digits: int = 3) -> str:
    found = _mean(values)
    return "–" if found is None else f"{found.value:.{digits}f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{' --- |' * len(head)}",
        *(f"| {' | '.join(r)} |" for r in rows),
        "",
    ]


def section(found: Mapping[str, list[Record]], model: str) -> str:
    """The section of RESULTS.md: curves, rows found, cuts, intervals, clean files; each where it was measured."""
    title = "Vetted rows" if model == "smollm2" else f"Vetted rows, {model}"
    lines = [f"## {title}", "", f"Files of {ROWS} rows (fewer where a source has fewer), rows cut at "
             f"{MAX_LENGTH} tokens, verdicts from the truth. Sets marked * chose the settings.", ""]  # fmt: skip
    if found["curve"]:
        lines += _curves(found["curve"])
    if found["looks"] or found["thirds"]:
        lines += [*_looks(found), "### Do the intervals hold?", "", *_coverage(found)]
    if dropped := [r["dropped"] for r in found["clean"]]:
        lines += ["### Clean files, 50 verdicts", "", f"{len(dropped)} draws over {len(REPORTING)} sets: "
                  f"{_said(dropped)} of the rows dropped on average, at most {max(dropped):.3f}.", ""]  # fmt: skip
    return "\n".join(lines)


def _curves(records: Sequence[Record]) -> list[str]:
    curves = {t: [r for r in records if r["set"] == t] for t in TITLES}

    def at(title: str, k: int, what: str) -> list[Any]:
        return [r["by_count"][str(k)][what] for r in curves[title] if str(k) in r["by_count"]]

    head = ["set", "0 (bundled scorer)", *map(str, COUNTS), "F1 of the cut, 50", "precision", "recall"]
    rows = [
        [TITLES[t], _said([r["scorer"] for r in curves[t]]),
         *(f"{_said(at(t, k, 'probe'))} / {_said(at(t, k, 'words'))}" for k in COUNTS),
         *(_said(at(t, 50, what), 2) for what in ("f1", "precision", "recall"))]
        for t in TITLES
    ]  # fmt: skip
    return ["### Random verdicts, a third unsafe: AUC on the other rows, probe / TF-IDF", "", *_table(head, rows),
            f"Mean of {_draws(records)} draws a set.", ""]  # fmt: skip


def _looks(found: Mapping[str, list[Record]]) -> list[str]:
    records = [*found["looks"], *found["thirds"]]
    head = ["set", "unsafe", "random", f"{propose.RANDOM} random, then proposed", "the same without the scorer",
            "cut: precision", "recall"]  # fmt: skip
    rows = [
        [TITLES[t], f"{share:.0%}",
         *(_said([r[w] for r in _of(records, t, share)], 2) for w in ("random", "proposed")),
         _said([r["proposed"] for r in _of(found["unhelped"], t, share)], 2),
         *(_said([r[w] for r in _of(records, t, share)], 2) for w in ("precision", "recall"))]
        for t in TITLES for share in (HUNDREDTH, TWENTIETH, THIRD)
        if _of(records, t, share)
    ]  # fmt: skip
    return [
        f"### {LOOKS} looks: share of the unsafe rows seen, then the cut", "", *_table(head, rows),
        f"Mean of {_draws(found['looks'])} draws a set ({_draws(found['thirds'])} at a third). The bundled scorer, a "
        "proposer until two unsafe rows are known, learned from two thirds of Davidson, Wikipedia and "
        "RealToxicityPrompts: there the column without it is the fair one.",
        "",
    ]  # fmt: skip


def _of(records: Sequence[Record], title: str, share: float) -> list[Record]:
    return [r for r in records if r["set"] == title and abs(r["share"] - share) < 1e-6]


def _coverage(found: Mapping[str, list[Record]]) -> list[str]:
    rows = []
    for job, words in (
        ("coverage50", "50 random"),
        ("coverage200", "200 random"),
        ("looks", "30 random, 70 proposed"),
    ):
        for share in (TWENTIETH, THIRD):
            records = [
                r
                for r in [*found[job], *(found["thirds"] if job == "looks" else [])]
                if abs(r["share"] - share) < 1e-6 and r["set"] in REPORTING
            ]
            held = {
                n: [r["intervals"][n] for r in records if n in r["intervals"]]
                for n in ("share", "precision", "recall", "left")
            }
            if not records:
                continue
            bound = [1 - r["precision"] for r in records if r["how"] == "fdr" and r["precision"] is not None]
            rows.append([
                words, f"{share:.0%}", str(len(records)),
                *(_held(held[n], 0 if n == "left" else 2) for n in held),
                f"{_said(bound)} ({len(bound)})",
            ])  # fmt: skip
    head = [
        "verdicts",
        "unsafe",
        "draws",
        "share",
        "precision",
        "recall",
        "left",
        "clean among dropped, bound 0.1",
    ]
    return [*_table(head, rows), "Share of draws whose 95 % interval holds the truth, and its mean width; last: "
            "where the bound chose the cut, in how many draws.", ""]  # fmt: skip


def _draws(records: Sequence[Record]) -> int:
    """The fewest draws that a set was measured with."""
    counts = Counter((r["set"], r["share"]) for r in records)
    return min(counts.values(), default=0)


def _held(intervals: Sequence[Record], digits: int) -> str:
    return f"{_said([i['holds'] for i in intervals], 2)} ({_said([i['width'] for i in intervals], digits)})"


def plot(curves: Sequence[Record]) -> str:
    """AUC over verdicts, mean of the reporting sets: probe and words."""
    series = []
    for what, name in (("probe", "probe on the model's states"), ("words", "TF-IDF")):
        means = [
            _mean(
                [
                    r["by_count"][str(k)][what]
                    for r in curves
                    if r["set"] in REPORTING and str(k) in r["by_count"]
                ]
            )
            for k in COUNTS
        ]
        series.append(plots.series_of(name, [float(np.log(k)) for k in COUNTS], means))
    return plots.lines(
        series, title="What verdicts are worth, mean of seven sets", x_label="random rows with a verdict",
        y_label="AUC on the other rows", y_range=(0.5, 1), x_ticks={float(np.log(k)): str(k) for k in COUNTS},
    )  # fmt: skip


if __name__ == "__main__":
    main()
