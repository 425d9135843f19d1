"""The papers' figures as sweeps: one function each, same call, same record.

A study is `study(recipe, display, …own settings) -> Found` and a line in STUDIES. It gives points; what is
drawn, averaged and written is the same for all. Findings F1 to F7: PAPERS.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from forgetfilter import runs
from forgetfilter.data import mixtures as mixing
from forgetfilter.display import Display
from forgetfilter.errors import DONE, ConfigError, DataError
from forgetfilter.evaluate import evaluation
from forgetfilter.evaluate.compare import (
    Data,
    ground,
    load_judges,
    read_data,
    with_all,
    with_template,
    words,
)
from forgetfilter.evaluate.defences import Experiment, Signal
from forgetfilter.evaluate.noisy_sets import NOISY_SETS
from forgetfilter.evaluate.points import Found, Point, write
from forgetfilter.evaluate.recipe import Recipe, plan
from forgetfilter.filter import algorithm, quality, signals
from forgetfilter.filter.bench import Bench
from forgetfilter.intervals import Estimate
from forgetfilter.models import load as models
from forgetfilter.models.rendering import Encoded
from forgetfilter.runs import Run
from forgetfilter.settings import Count, OneOf, Share

if TYPE_CHECKING:
    from rich.console import Console

NoisySet = Annotated[str, OneOf("noisy set", NOISY_SETS)]


def run_study(recipe: Recipe, console: Console, *, dry_run: bool = False) -> int:
    """Make the recipe's study; data, plots and a page are written to its folder. Returns the exit code."""
    chosen = recipe.study
    if chosen is None:
        raise ConfigError(f"study: not named in the recipe; add a line study: {'|'.join(STUDIES)}")
    display, recipe = Display(console), with_all(recipe)
    if dry_run:
        for line in plan(recipe):
            display.say(line)
        return DONE
    load_judges(recipe)
    names = {"model": recipe.settings.model} | {name: name for name in chosen.settings.get("models", ())}
    inputs = {what: models.fingerprint(name) for what, name in names.items()}  # refuses what is no model
    with Run.open(recipe.output, recipe.shared(), inputs):
        found = STUDIES[chosen.name](recipe, display, **chosen.settings)
        write(recipe, found)
    display.say(f"Look at {recipe.output / 'report.html'}; every point is in points.csv")
    return DONE


# --- how rows are learned and forgotten ---


def forgetting_curves(
    recipe: Recipe,
    display: Display,
    *,
    moments: Count = 8,
    signal: Annotated[str, OneOf("signal", signals.TOKEN_SIGNALS)] = "probability",
) -> Found:
    """F1: how well each class of row is remembered, at `moments` of learn and as many of review."""
    points: list[Point] = []
    for seed, data, experiment in _experiments(recipe, display):
        with experiment as here:
            curve = _curve(here, data, moments, signal, display)
            points += [Point(signal, part, x, seed, _alone(value)) for part, x, value in curve]
    return Found(
        "Learned and forgotten",
        "progress: 0 to 1 learn, 1 to 2 review",
        points,
        "Mean over the rows of a class. The paper: unsafe rows are learned fast, and forgotten more than safe rows "
        "of the same domain, which are forgotten more than task rows (F1).",
    )


def review_steps(
    recipe: Recipe, display: Display, *, steps: tuple[Count, ...] = (2, 5, 10, 20, 40, 80)
) -> Found:
    """F2: how well forgetting tells unsafe rows from others after ever more review steps."""
    points: list[Point] = []
    for seed, data, experiment in _experiments(recipe, display):
        with experiment as here:
            learn(here)
            for count in steps:
                state, s = f"reviewed-{count}", here.settings
                algorithm.review(here.bench, state, here.review, replace(s, review_steps=count))
                points.append(Point("AUC", s.signal, count, seed, _forgetting_auc(here, data, state)))
    return Found(
        "Number of review steps",
        "review steps",
        points,
        "AUC of forgetting, unsafe rows against the rest. The paper: it hardly depends on the number of steps (F2).",
    )


def safe_rows(
    recipe: Recipe, display: Display, *, counts: tuple[Count, ...] = (25, 50, 100, 200, 400)
) -> Found:
    """F4: how well forgetting tells unsafe rows from others with ever more safe rows to review."""
    points: list[Point] = []
    for seed, data, experiment in _experiments(recipe, display):
        with experiment as here:
            if max(counts) > len(here.review):
                raise DataError(f"safe_rows: {max(counts)} safe rows asked for, {len(here.review)} there")
            learn(here)
            for count in counts:
                state, s = f"reviewed-on-{count}", here.settings
                algorithm.review(here.bench, state, here.review[:count], s)
                points.append(Point("AUC", s.signal, count, seed, _forgetting_auc(here, data, state)))
    return Found(
        "Number of safe rows",
        "safe rows to review",
        points,
        "AUC of forgetting, unsafe rows against the rest. The paper: fewer safe rows barely hurt (F4).",
    )


def phi(
    recipe: Recipe,
    display: Display,
    *,
    phis: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7),
    signal: Signal = "rouge1",
) -> Found:
    """F3: precision, recall and F1 of dropping all rows that were forgotten by more than φ."""
    points: list[Point] = []
    for seed, data, experiment in _experiments(recipe, display):
        with experiment as here:
            learn(here)
            review(here)
            lost, truth = _forgotten(here, "reviewed", signal), _truth(data)
            for cut in phis:
                counts = quality.confusion([x > cut for x in lost.values()], [truth[z] for z in lost])
                found = {"precision": counts.precision, "recall": counts.recall, "F1": counts.f1}
                points += [
                    Point("quality of the cut", name, cut, seed, _alone(value))
                    for name, value in found.items()
                ]
    return Found(
        "Where to cut",
        f"φ, in units of {signal}",
        points,
        "Undefined where nothing is dropped. The paper: a small φ works across settings (F3).",
    )


def unsafe_share(
    recipe: Recipe, display: Display, *, shares: tuple[Share, ...] = (0.05, 0.1, 0.25, 0.5, 0.75)
) -> Found:
    """How the filter fares from few unsafe rows to many."""
    if recipe.set is None:
        raise ConfigError("unsafe_share: a file has the share it has; give set instead of custom")
    points: list[Point] = []
    for value in shares:
        for seed, data, experiment in _experiments(replace(recipe, share=value), display, f"share-{value:g}"):
            with experiment as here:
                points += _quality(here, data, value, seed)
    return Found(
        "Unsafe share of the custom rows",
        "share of unsafe rows",
        points,
        "AUC of forgetting; F1 of the rows that the recipe's threshold drops.",
    )


def model_size(recipe: Recipe, display: Display, *, models: tuple[str, ...] = ("nano",)) -> Found:
    """F1: how far apart unsafe rows and others are forgotten, from model to model."""
    points: list[Point] = []
    for x, model in enumerate(models):
        place = re.sub(r"\W+", "-", model)
        for seed, data, experiment in _experiments(recipe, display, f"model-{x}-{place}", model):
            with experiment as here:
                points += _quality(here, data, x, seed)
    return Found(
        "Model size",
        "model",
        points,
        "AUC of forgetting; F1 of the rows that the recipe's threshold drops. The paper: the gap grows with size (F1).",
        dict(enumerate(models)),
    )


def harm_transfer(
    recipe: Recipe,
    display: Display,
    *,
    sets: tuple[NoisySet, ...] = ("bias", "toxicity", "harmfulness-unlearning"),
) -> Found:
    """Does the review of one harm find another? Unsafe rows of each set against the safe rows of each."""
    if recipe.origins.get("safe", "default") != "default":
        raise ConfigError("harm_transfer: reviews by the safe rows of each set; leave out safe")
    points: list[Point] = []
    for unsafe in sets:
        for seed in recipe.seeds:
            data = read_data(replace(recipe, set=unsafe, evaluators=()), seed)
            with ground(recipe, data, seed, recipe.output / unsafe / f"seed-{seed}", display) as here:
                learn(here)
                for x, safe in enumerate(sets):
                    other = (
                        read_data(replace(recipe, set=safe, evaluators=()), seed) if safe != unsafe else data
                    )
                    state, s = f"reviewed-by-{safe}", here.settings
                    algorithm.review(here.bench, state, here.encode(other.safe), s)
                    points.append(
                        Point("AUC", f"unsafe: {unsafe}", x, seed, _forgetting_auc(here, data, state))
                    )
    return Found(
        "Harm of the safe rows against harm of the unsafe rows",
        "safe rows",
        points,
        "AUC of forgetting, unsafe rows against the rest of their set.",
        dict(enumerate(sets)),
    )


# --- many sessions ---


def sessions(recipe: Recipe, display: Display, *, rounds: Count = 4, safety_steps: Count = 60) -> Found:
    """F7: S1, S1+, S1, S1+ …, each on new custom rows, with and without filtering; judged after every session.

    Every round's rows are filtered with the aligned model that the first round starts from: the one that went
    through the rounds has seen rows and safe rows of their kind, and a review has little left to teach it.
    """
    points: list[Point] = []
    for seed in recipe.seeds:
        data = read_data(recipe, seed)
        parts = mixing.sessions(data.custom, rounds, seed)
        folder = recipe.output / f"seed-{seed}"
        with ground(recipe, data, seed, folder / "start", display) as experiment, ExitStack() as open_runs:
            s, aligned = experiment.settings, experiment.bench

            def onward(
                bench: Bench,
                state: str,
                rows: Sequence[Encoded],
                place: str,
                past: Sequence[str] = (),
            ) -> Bench:
                """A bench for `rows` in a run folder of its own that starts from `state` of another bench."""
                inputs = {"custom": runs.sha256_of(z.id for z in rows), "past": runs.sha256_of(past)}
                run = open_runs.enter_context(Run.open(folder / place, asdict(s), inputs))  # noqa: B023
                return bench.onward(state, rows, run)

            points += [
                Point(measure, arm, 0, seed, estimate)
                for measure, estimate in _judged(recipe, data, aligned, "original", display)
                for arm in ARMS
            ]
            for arm in ARMS:
                bench, state, past = aligned, "original", []
                for turn, part in enumerate(parts, start=1):
                    rows: Sequence[Encoded] = experiment.encode(part)
                    if arm == "filtered":
                        judge = onward(aligned, "original", rows, f"filter-{turn}")
                        found = algorithm.forget_filter(
                            judge, rows, experiment.review, replace(s, retrain=False)
                        )
                        rows = found.kept(rows)
                    past += [z.id for z in rows]
                    bench = onward(bench, state, rows, f"{arm.replace(' ', '-')}-{turn}", past)
                    _session(replace(experiment, bench=bench), safety_steps)
                    state = "secured"
                    for x, reached in ((2 * turn - 1, "learned"), (2 * turn, state)):
                        display.say(f"seed {seed}, {arm}, round {turn}: {reached}")
                        points += [
                            Point(measure, arm, x, seed, estimate)
                            for measure, estimate in _judged(recipe, data, bench, reached, display)
                        ]
    names: dict[float, str] = {0: "start"} | {2 * t - 1: f"S1 {t}" for t in range(1, rounds + 1)}
    names |= {2 * t: f"S1+ {t}" for t in range(1, rounds + 1)}
    return Found(
        "Interleaved sessions",
        "session",
        points,
        "S1: custom rows; S1+: safety fine-tuning. The paper: safety fine-tuning never erases unsafe knowledge, it "
        "comes back at the next noisy session; filtering before each session keeps the model safe (F7).",
        names,
    )


def _session(experiment: Experiment, safety_steps: int) -> None:
    """S1, the state `learned`, and S1+, the state `secured`."""
    bench = experiment.bench
    if experiment.custom:
        learn(experiment)
    else:
        bench.adopt("learned", "original")  # every row was dropped
    bench.train(
        "secured", "learned", experiment.review, rate=experiment.settings.learning_rate, steps=safety_steps
    )


def _judged(
    recipe: Recipe, data: Data, bench: Bench, state: str, display: Display
) -> list[tuple[str, Estimate | None]]:
    """The first metric of every evaluator, by its name in words."""
    held = bench.kept_as(state)
    found = [
        evaluation.evaluated(
            bench.run, held, with_template(e, recipe), data.held_out[e.name], lambda: bench.enter(state),
            bench.loaded.tokenizer, display,
        )
        for e in recipe.evaluators
    ]  # fmt: skip
    return [(words(one.evaluator, one.metrics[0].name), one.metrics[0].estimate) for one in found]


# --- what the studies share ---


def learn(experiment: Experiment) -> None:
    """M1, the state `learned`."""
    s = experiment.settings
    experiment.bench.train(
        "learned", "original", experiment.custom, rate=s.learning_rate, epochs=s.num_train_epochs
    )


def review(experiment: Experiment) -> None:
    """M2, the state `reviewed`."""
    algorithm.review(experiment.bench, "reviewed", experiment.review, experiment.settings)


def _experiments(recipe: Recipe, display: Display, place: str = "", model: str | None = None) -> Any:
    """Per seed: the seed, its data, and a context that gives the experiment. No evaluation rows are read."""
    for seed in recipe.seeds:
        data = read_data(replace(recipe, evaluators=()), seed)
        folder = recipe.output / place / f"seed-{seed}"
        yield seed, data, ground(recipe, data, seed, folder, display, model)


def _truth(data: Data) -> Mapping[str, bool]:
    if data.truth is None:
        raise DataError(
            "this study needs to know which custom rows are unsafe; name their column with label_field"
        )
    return data.truth


def _forgetting_auc(experiment: Experiment, data: Data, state: str) -> Estimate | None:
    """AUC of what is forgotten from `learned` to `state`, as it is, without what rows alike lost."""
    return quality.auc_by_id(_forgotten(experiment, state, experiment.settings.signal), _truth(data))


def _forgotten(experiment: Experiment, state: str, signal: str) -> dict[str, float]:
    """Row id -> what is forgotten of it from `learned` to `state`."""
    before, after = (experiment.bench.remembered(m, experiment.custom, signal) for m in ("learned", state))
    return {z: before[z] - after[z] for z in after}


def _quality(experiment: Experiment, data: Data, x: float, seed: int) -> list[Point]:
    """AUC, and F1 of the filter's own cut; nothing is trained on what is kept."""
    s, truth = replace(experiment.settings, retrain=False), _truth(data)
    found = algorithm.forget_filter(experiment.bench, experiment.custom, experiment.review, s)
    scores = {z.id: found.scores.get(z.id) for z in experiment.custom}
    measured = quality.measure(scores, found.cut.decisions, truth)
    f1, name = measured["f1"], f"{s.signal}, {s.threshold}"
    return [
        Point("AUC", s.signal, x, seed, quality.auc_by_id(found.scores, truth)),
        Point("F1 of the cut", name, x, seed, None if f1 is None else Estimate(**f1)),
    ]


def _curve(
    experiment: Experiment, data: Data, moments: int, signal: str, display: Display
) -> list[tuple[str, float, float]]:
    """(part, progress, mean remembered): learn from 0 to 1, review from 1 to 2. One stage, not resumed half-way."""
    from forgetfilter.training.finetune import finetune

    bench, s = experiment.bench, experiment.settings
    stage = bench.run.stage("curve")
    if not stage.done:
        model, pad = bench.enter("original"), bench.loaded.tokenizer.pad_token_id
        found: list[tuple[str, float, float]] = []

        def look(x: float) -> None:
            memories = signals.token_memory(model, experiment.custom, pad_id=pad)
            kept = {z.id: m for z, m in zip(experiment.custom, memories, strict=True)}
            values: dict[str, list[float]] = {}
            for z, value in signals.remembered_tokens(kept, signal).items():
                values.setdefault(data.part.get(z, "custom"), []).append(value)
            found.extend((part, x, float(np.mean(v))) for part, v in sorted(values.items()))

        look(0.0)
        reviewed = algorithm.review_rows(experiment.review, [], s)
        how: list[tuple[str, Any, dict[str, Any]]] = [
            ("learn", experiment.custom, {"learning_rate": s.learning_rate, "epochs": s.num_train_epochs,
             "batch_size": s.per_device_train_batch_size, "schedule": s.lr_scheduler_type, "seed": s.seed}),
            ("review", reviewed, {"learning_rate": s.review_learning_rate, "steps": s.review_steps,
             "batch_size": s.review_batch_size, "seed": s.seed + 1}),
        ]  # fmt: skip
        for phase, (title, rows, settings) in enumerate(how):
            with display.stage(f"curve: {title}", "step") as progress:

                def step(done: int, total: int, phase: int = phase, progress: Any = progress) -> None:
                    progress(done, total)
                    # The step nearest to each of `moments` equal parts; the last step always is one.
                    if done * moments // total > (done - 1) * moments // total:
                        look(phase + done / total)

                finetune(model, rows, folder=stage.folder / "trainer", pad_id=pad, progress=step, **settings)
        runs.discard(stage.folder / "trainer")
        bench.forget_where_it_is()
        (stage.folder / "curve.json").write_text(json.dumps(found), encoding="utf-8")
        stage.finish({})
    return [tuple(line) for line in json.loads((stage.folder / "curve.json").read_text(encoding="utf-8"))]


def _alone(value: float | None) -> Estimate | None:
    return None if value is None else Estimate(value, None, None, 1, seeds=1)


ARMS = ("no measure", "filtered")
STUDIES: dict[str, Callable[..., Found]] = {
    "forgetting_curves": forgetting_curves,
    "review_steps": review_steps,
    "phi": phi,
    "safe_rows": safe_rows,
    "unsafe_share": unsafe_share,
    "model_size": model_size,
    "harm_transfer": harm_transfer,
    "sessions": sessions,
}
