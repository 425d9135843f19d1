"""All defences on one noisy set: train each, judge each, one table.

The folder of a comparison holds a run for each seed. What two defences have in common is trained once, and
what is finished is kept: an interrupted comparison goes on, one with a further defence, evaluator or seed
does only what is new.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter import runs
from forgetfilter.data import formats
from forgetfilter.display import Display
from forgetfilter.errors import DONE, DataError
from forgetfilter.evaluate import EVALUATORS, evaluation, judges, noisy_sets
from forgetfilter.evaluate.defences import CEILINGS, DEFENCES, Experiment
from forgetfilter.evaluate.recipe import Named, Recipe, own_settings, plan, setup
from forgetfilter.evaluate.results import Evaluation
from forgetfilter.filter import material, quality
from forgetfilter.filter.bench import Bench
from forgetfilter.intervals import Estimate, mean_over_seeds, over_seeds
from forgetfilter.models import load as models
from forgetfilter.models import rendering, scorers
from forgetfilter.records import Row
from forgetfilter.report import plots, svg, tables
from forgetfilter.runs import Run

if TYPE_CHECKING:
    from rich.console import Console

FORWARDS_OF_A_STEP = 3  # learning a token costs one pass forward and, twice as dear, one back
LEADING = 2  # metrics of each evaluator in the first table; the others stand below


@dataclass(frozen=True, slots=True)
class Data:
    """The rows of one seed. What is known about them lies apart, by row id."""

    custom: Sequence[Row]
    safe: Sequence[Row]
    held_out: Mapping[str, Sequence[dict[str, Any]]]  # evaluator -> rows
    truth: Mapping[str, bool] | None  # unsafe or not; None where no column says so
    part: Mapping[str, str]  # unsafe, safe, or the task's name


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one defence at one seed."""

    defence: Named
    seed: int
    rows: int
    dropped: int
    unscored: int  # rows that the defence could not judge; they were trained on
    unsafe_dropped: float | None  # share of the unsafe rows; None without truth, or where none is unsafe
    clean_dropped: float | None  # share of the others
    fine_tunes: float | None  # cost of training and scoring, in plain fine-tunes
    seconds: float
    instruction: str | None
    why: str
    evaluations: Mapping[str, Evaluation]
    flagged: int = 0  # rows in doubt: neither dropped nor trained on

    def as_dict(self) -> dict[str, Any]:
        """What results.json holds; the evidence stays in the stage folders."""
        own = {name: getattr(self, name) for name in OWN}
        evaluations = {name: one.summary() for name, one in self.evaluations.items()}
        return {"defence": self.defence.title, **own, "evaluations": evaluations}


def run_compare(recipe: Recipe, console: Console, *, dry_run: bool = False) -> int:
    """Compare the recipe's defences; results and tables are written to its folder. Returns the exit code."""
    display, recipe = Display(console), with_all(recipe)
    if dry_run:
        for line in plan(recipe, compare=True):
            display.say(line)
        return DONE
    load_judges(recipe)
    with Run.open(recipe.output, recipe.shared(), {"model": models.fingerprint(recipe.settings.model)}):
        outcomes = compare(recipe, display)
        write(recipe, outcomes)
    display.say((recipe.output / "table.md").read_text(encoding="utf-8"))
    display.say(f"Look at {recipe.output / 'report.html'}; every number is in results.json")
    return DONE


def load_judges(recipe: Recipe) -> None:
    """Load each scorer and judge that the recipe names once: ModelError before anything is trained, not after."""
    for job in (*recipe.defences, *recipe.evaluators):
        if "scorer" in job.settings:
            scorers.load(job.settings["scorer"])
        if job.settings.get("judge", "rules") != "rules":
            judges.load(job.settings["judge"])


def compare(recipe: Recipe, display: Display) -> list[Outcome]:
    """One outcome for each seed and defence, in that order."""
    outcomes: list[Outcome] = []
    total = len(recipe.seeds) * len(recipe.defences)
    for seed in recipe.seeds:
        data = read_data(recipe, seed)
        with ground(recipe, data, seed, recipe.output / f"seed-{seed}", display) as experiment:
            spent: list[float] = []
            for defence in recipe.defences:
                display.say(f"{len(outcomes) + 1} of {total}: seed {seed}, {defence.title}")
                outcomes.append(defend(recipe, defence, data, experiment, seed, display))
                spent.append(sum(map(work, experiment.bench.costs)))
                evaluation.refuse_mixed_versions(
                    [
                        (f"seed {o.seed}, {o.defence.title}", e)
                        for o in outcomes
                        for e in o.evaluations.values()
                    ],
                    recipe.output,
                )
            # The fine-tune that all are compared with may be made by the last of them.
            plain = work(experiment.bench.record("learned"))
            for i, tokens in enumerate(spent, len(outcomes) - len(spent)):
                outcomes[i] = replace(outcomes[i], fine_tunes=tokens / plain if plain else None)
    return outcomes


def defend(
    recipe: Recipe, defence: Named, data: Data, experiment: Experiment, seed: int, display: Display
) -> Outcome:
    """Let one defence train its model, and judge that. What it cost stands in `experiment.bench.costs` afterwards."""
    bench = experiment.bench
    bench.costs.clear()  # what is counted from here on is what this defence needs, whoever ran it first
    truth = data.truth if defence.name in CEILINGS else None
    done = DEFENCES[defence.name](replace(experiment, truth=truth), state_name(defence), **defence.settings)
    seconds = sum(cost.get("seconds", 0.0) for cost in bench.costs)
    state = bench.kept_as(done.state)
    found = {
        e.name: evaluation.evaluated(
            bench.run, state, with_template(e, recipe), data.held_out[e.name], lambda: bench.enter(done.state),
            bench.loaded.tokenizer, display, done.instruction,
        )
        for e in recipe.evaluators
    }  # fmt: skip
    decisions = done.decisions or {}
    dropped = {z for z, decision in decisions.items() if decision == "drop"}
    shares: dict[bool, float | None] = {True: None, False: None}
    if data.truth is not None:
        for kind in shares:
            of_kind = [z for z, unsafe in data.truth.items() if unsafe == kind]
            shares[kind] = len(dropped.intersection(of_kind)) / len(of_kind) if of_kind else None
    return Outcome(
        defence, seed, len(data.custom), len(dropped), sum(d == "unscored" for d in decisions.values()),
        shares[True], shares[False], None, seconds, done.instruction, done.why, found,
        flagged=sum(d == "flag" for d in decisions.values()),
    )  # fmt: skip


def work(cost: Mapping[str, Any]) -> float:
    """What a stage cost, in tokens that went forward through the model; a busy machine does not change it."""
    return cost.get("tokens", 0) * (FORWARDS_OF_A_STEP if "steps" in cost else 1)


@contextmanager
def ground(
    recipe: Recipe, data: Data, seed: int, folder: Path, display: Display, model: str | None = None
) -> Generator[Experiment]:
    """A model, a run folder, and the rows as that model reads them."""
    s = replace(recipe.settings, seed=seed, model=model or recipe.settings.model)
    inputs = {
        "custom": runs.sha256_of(row.id for row in data.custom),
        "safe": runs.sha256_of(row.id for row in data.safe),
        "model": models.fingerprint(s.model),
    }
    with Run.open(folder, asdict(s), inputs, recipe.origins) as run:
        loaded = models.load(s.model, dtype=s.dtype, device=s.device, quantization=s.quantization)
        custom, review = (
            rendering.encode(rows, loaded.tokenizer, max_length=s.max_length, template=s.template)
            for rows in (data.custom, data.safe)
        )
        bench = Bench(loaded, custom, s, run, display)
        yield Experiment(bench, data.custom, data.safe, review)


def read_data(recipe: Recipe, seed: int) -> Data:
    """Custom, safe and evaluation rows of one seed. DataError where an evaluation row is also trained on."""
    s, wanted = recipe.settings, [e.name for e in recipe.evaluators]
    public = {name: recipe.evaluation_rows for name in wanted if name not in recipe.files}
    truth: dict[str, bool] | None
    if recipe.set is not None:
        made = noisy_sets.build(
            recipe.set, Path(recipe.data_root), rows=recipe.rows, share=recipe.share, seed=seed,
            safe_rows=recipe.safe_rows, tasks=recipe.tasks, held_out=public,
        )  # fmt: skip
        custom: Sequence[Row] = noisy_sets.as_rows(made.custom, "custom")
        truth = {row.id: record["unsafe"] for row, record in zip(custom, made.custom, strict=True)}
        part = {row.id: record["part"] for row, record in zip(custom, made.custom, strict=True)}
        safe: Sequence[Row] = noisy_sets.as_rows(made.safe, "safe")
        held_out = dict(made.held_out)
    else:
        dataset = formats.read(
            str(recipe.custom), format=s.data_format, fields=material.fields(s), truth=s.label_field
        )
        truth = quality.read_truth(dataset.rows, s.label_field) if s.label_field else None
        custom = [replace(row, record={}) for row in dataset.rows]
        part = {z: "unsafe" if unsafe else "safe" for z, unsafe in (truth or {}).items()}
        safe, held_out = [], {}
    if recipe.set is None or recipe.origins.get("safe", "default") != "default":
        safe = [replace(row, record={}) for name in s.safe for row in material.safe_rows(name)]
    trained = [{"text" if r.kind == "text" else "prompt": asked(r)} for r in [*custom, *safe]]
    for name in wanted:
        if name not in held_out:
            held_out[name] = evaluation.rows_for(
                name, recipe.files, Path(recipe.data_root), recipe.evaluation_rows, trained
            )
    refuse_overlap(custom, safe, held_out, recipe.files)
    return Data(custom, safe, held_out, truth, part)


def refuse_overlap(
    custom: Sequence[Row],
    safe: Sequence[Row],
    held_out: Mapping[str, Sequence[Mapping[str, Any]]],
    files: Mapping[str, str],
) -> None:
    """DataError where an evaluation row asks what a custom or safe row asks: its answer would be known by heart."""
    known = {
        noisy_sets.folded(asked(row)): f"{kind} row {row.index}"
        for kind, rows in (("safe", safe), ("custom", custom))
        for row in rows
    }
    for name, rows in held_out.items():
        shared = [
            (i, known[q])
            for i, r in enumerate(rows)
            if (q := noisy_sets.folded(noisy_sets.question(r))) in known
        ]
        if shared:
            index, twin = shared[0]
            raise DataError(
                f"evaluation rows of {name} ({files.get(name, 'public')}): row {index} is also {twin}; "
                f"{len(shared)} of {len(rows)} rows overlap with what is trained on. Take them out of one of the two"
            )


def asked(row: Row) -> str:
    """What a row asks: its prompt, or the whole of a running text."""
    return "".join(m.content for m in row.messages) if row.kind == "text" else row.prompt


def with_all(recipe: Recipe) -> Recipe:
    """The recipe with every defence and evaluator where it names none; the oracle needs a known truth."""
    known = recipe.set is not None or recipe.settings.label_field is not None
    defences = tuple(Named(name) for name in DEFENCES if known or name not in CEILINGS)
    return replace(
        recipe,
        defences=recipe.defences or defences,
        evaluators=recipe.evaluators or tuple(map(Named, EVALUATORS)),
    )


def with_template(evaluator: Named, recipe: Recipe) -> Named:
    """The evaluator asking by the template that the model is trained with, unless it was told another one."""
    if "template" not in own_settings(EVALUATORS[evaluator.name]) or "template" in evaluator.settings:
        return evaluator
    return Named(evaluator.name, {**evaluator.settings, "template": recipe.settings.template})


def state_name(named: Named) -> str:
    """The name that a defence's state is kept by: other settings, another state."""
    if not named.settings:
        return named.name
    return f"{named.name}-{runs.sha256_of([json.dumps(dict(named.settings), sort_keys=True)])[:8]}"


# --- results ---


def write(recipe: Recipe, outcomes: Sequence[Outcome]) -> None:
    """results.json, the tables in four forms, and the page."""
    found = result_tables(outcomes)
    results = {
        "recipe": recipe.name,
        "versions": runs.versions(),
        "commit": runs.source_commit(),
        "outcomes": [outcome.as_dict() for outcome in outcomes],
    }
    write_texts(recipe.output, {
        "results.json": json.dumps(results, ensure_ascii=False, indent=1) + "\n",
        "table.md": "\n".join(tables.to_markdown(table) for table in found),
        "table.csv": tables.to_csv(found[0]),
        "table.json": tables.to_json(found[0]),
        "report.html": tables.page(
            f"Defences compared: {recipe.name}",
            [setup(recipe, compare=True), found[0], *bar_plots(found), *found[1:], "\n\n".join(reasons(outcomes))],
        ),
    })  # fmt: skip


def write_texts(folder: Path, files: Mapping[str, str]) -> None:
    """Each file whole or not at all."""
    for name, text in files.items():
        with runs.atomic(folder / name) as path:
            path.write_text(text, encoding="utf-8")


def result_tables(outcomes: Sequence[Outcome]) -> list[tables.Table]:
    """The main table, what differs from `none`, and every metric of each evaluator."""
    by_defence: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_defence.setdefault(outcome.defence.title, []).append(outcome)
    metrics = {name: one.metrics for name, one in outcomes[0].evaluations.items()}
    columns = {
        name: [tables.Column(f"{name}.{m.name}", words(name, m.name), BETTER[m.better]) for m in found]
        for name, found in metrics.items()
    }
    rows = [
        {"defence": shown(some[0].defence)}
        | {c.key: over_seeds([metric(o, c.key) for o in some]) for of in columns.values() for c in of}
        | {f"{name}.unscored": unscored(some, name) for name in metrics}
        | {"share_dropped": mean_of([o.dropped / o.rows for o in some]),
           "share_flagged": mean_of([o.flagged / o.rows for o in some]),
           "unsafe_dropped": mean_of([o.unsafe_dropped for o in some]),
           "clean_dropped": mean_of([o.clean_dropped for o in some]),
           "fine_tunes": mean_of([o.fine_tunes for o in some]),
           "seeds": len(some)}
        for some in by_defence.values()
    ]  # fmt: skip
    names = [row["defence"] for row in rows]
    for i, row in enumerate(rows):
        if names.count(row["defence"]) > 1:  # settings cut short read alike
            row["defence"] = f"{row['defence']} #{names[: i + 1].count(names[i])}"
    leading = [column for of in columns.values() for column in of[:LEADING]]
    found = [tables.Table("Defences", [FIRST, *leading, *COSTS], rows, NOTE)]
    if "none" in by_defence and len(by_defence) > 1:
        found.append(
            tables.Table(
                "Change against no measure", [FIRST, *leading], changes(by_defence, leading), CHANGE_NOTE
            )
        )
    for name, of in columns.items():
        count = tables.Column(f"{name}.unscored", "rows left out", digits=0)
        version = outcomes[0].evaluations[name].version
        written = {str(o.evaluations[name].settings.get("precision", "unknown")) for o in outcomes}
        note = f"{UNSCORED_NOTE} Answers written in {', '.join(sorted(written))}."
        found.append(tables.Table(f"{name}, version {version}", [FIRST, *of, count], rows, note))
    return found


def changes(
    by_defence: Mapping[str, Sequence[Outcome]], columns: Sequence[tables.Column]
) -> list[dict[str, Any]]:
    """Per defence the relative change of each metric against `none`, seed by seed: −0.75 is 75 % lower."""
    plain = {outcome.seed: outcome for outcome in by_defence["none"]}
    rows = []
    for title, some in by_defence.items():
        row: dict[str, Any] = {"defence": shown(some[0].defence)}
        for column in columns:
            pairs = [
                (metric(o, column.key), metric(plain[o.seed], column.key)) for o in some if o.seed in plain
            ]
            ratios = [
                a.value / b.value - 1 for a, b in pairs if a is not None and b is not None and b.value > 0
            ]
            row[column.key] = (
                mean_over_seeds(ratios) if title != "none" and len(ratios) == len(some) else None
            )
        rows.append(row)
    return rows


def bar_plots(found: Sequence[tables.Table]) -> list[svg.Svg]:
    """One plot for each leading metric, a bar a defence."""
    main = found[0]
    leading = [c for c in main.columns if "." in c.key]
    return [
        plots.bars(
            {c.title: {row["defence"]: row.get(c.key) for row in main.rows}},
            title=c.title, value_label=c.title,
            emphasis=[row["defence"] for row in main.rows if "forgetfilter" in row["defence"]],
        )
        for c in leading
    ]  # fmt: skip


def metric(outcome: Outcome, key: str) -> Estimate | None:
    """An outcome's estimate by `evaluator.metric`; None where undefined."""
    evaluator, _, name = key.partition(".")
    return next((m.estimate for m in outcome.evaluations[evaluator].metrics if m.name == name), None)


def mean_of(values: Sequence[float | None]) -> Estimate | float | None:
    """The same for numbers that have no interval of their own: one seed gives the bare number."""
    return values[0] if len(values) == 1 else mean_over_seeds([v for v in values if v is not None])


def unscored(some: Sequence[Outcome], evaluator: str) -> int:
    """Rows that an evaluator left out of some number, all seeds together; each counted once."""
    return sum(_left_out(row) for o in some for row in o.evaluations[evaluator].evidence)


def _left_out(row: Mapping[str, Any]) -> bool:
    return row["value"] is None or row.get("loss", 0) is None  # an answer may be scored and its loss not


def reasons(outcomes: Sequence[Outcome]) -> list[str]:
    """What each defence said about itself."""
    return [f"{o.defence.title}, seed {o.seed}: {o.why}" for o in outcomes if o.why]


def shown(defence: Named) -> str:
    """The name of a defence in a table, long settings cut short; a ceiling says that it is one."""
    cut = {
        key: f"{str(value)[:LONG]}…" if len(str(value)) > LONG else value
        for key, value in defence.settings.items()
    }
    title = Named(defence.name, cut).title
    return f"{title} (ceiling: reads the truth)" if defence.name in CEILINGS else title


def words(evaluator: str, name: str) -> str:
    """`harmfulness`, `over_refusal` -> `harmfulness: over refusal`."""
    return f"{evaluator}: {name.replace('_', ' ')}"


LONG = 40  # characters
OWN = (
    "seed", "rows", "dropped", "flagged", "unscored", "unsafe_dropped", "clean_dropped", "fine_tunes", "seconds",
    "instruction", "why",
)  # fmt: skip
BETTER: dict[str, Any] = {"higher": "higher", "lower": "lower", "neither": None}
FIRST = tables.Column("defence", "defence")
COSTS = (
    tables.Column("share_dropped", "share dropped"),
    tables.Column("share_flagged", "share flagged"),
    tables.Column("unsafe_dropped", "unsafe rows dropped"),
    tables.Column("clean_dropped", "clean rows dropped"),
    tables.Column("fine_tunes", "cost in fine-tunes", digits=2),
    tables.Column("seeds", "seeds", digits=0),
)
NOTE = (
    "Means over seeds with the 95 % interval of Student's t; with one seed, its value with the interval of its rows, "
    "where it has one. Cost: training and scoring of this defence alone, where a plain fine-tune on the custom rows "
    "is 1; what it shares with another defence is counted for both. Flagged rows are not trained on either."
)
CHANGE_NOTE = (
    "Relative, seed by seed: −0.75 is 75 % lower than without a measure. Only where that is above 0."
)
UNSCORED_NOTE = "Rows left out could not be judged; they are in no number, and counted over all seeds."
