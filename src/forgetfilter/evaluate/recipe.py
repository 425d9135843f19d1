"""One experiment: its record, what is going to be done with it in words, and the settings a function of it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from forgetfilter.settings import Count, FilterSettings, Seed, Share


class Named(NamedTuple):
    """A defence, an evaluator or a study, with the settings that the recipe gives it."""

    name: str
    settings: Mapping[str, Any] = {}

    @property
    def title(self) -> str:
        """`sequential(steps=60)`; the name alone where nothing was set."""
        inside = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.name}({inside})" if inside else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One experiment: noisy data, how the model is tuned, what is compared, how it is judged."""

    set: str | None = None
    """Noisy set of public data: toxicity, toxicity-rtp, bias, harmfulness-beavertails, harmfulness-unlearning,
    covert, outliers."""
    custom: str | None = None
    """Your own noisy rows instead of a set: a file, or a hub id; label_field names their truth where known."""
    data_root: str = "data"
    """Folder that holds the public data sets."""
    rows: Count = 600
    """Rows of the noisy set; a file and a published mixture are taken whole."""
    share: Share = 1 / 3
    """Unsafe share of the noisy set, 0 to 1."""
    tasks: tuple[str, ...] = ("alpaca", "xquad")
    """Tasks mixed into the noisy set, by the name of their public source."""
    safe_rows: Count = 400
    """Most safe rows of a noisy set for review, replay and safety fine-tuning; `safe` names files instead."""
    evaluation_rows: Count = 200
    """Held-out rows for each evaluator."""
    evaluation: tuple[str, ...] = ()
    """Files of evaluation rows instead of public ones: toxicity=FILE; in YAML a mapping of evaluator to file."""
    defences: tuple[Named, ...] = ()
    """Defences to compare, each a name or a name with settings; all where not given."""
    evaluators: tuple[Named, ...] = ()
    """Evaluators, each a name or a name with settings; all where not given."""
    seeds: tuple[Seed, ...] = (0,)
    """Seeds; each draws the noisy set and trains anew. Three or more give an interval over seeds."""
    study: Named | None = None
    """The study to make: forgetting_curves, review_steps, phi, safe_rows, unsafe_share, model_size, harm_transfer or
    sessions, by name or with settings."""

    settings: FilterSettings = field(default_factory=FilterSettings)
    origins: Mapping[str, str] = field(default_factory=dict)
    name: str = "recipe"

    @property
    def output(self) -> Path:
        """Folder for results."""
        return Path(self.settings.output_dir or Path("runs") / self.name)

    @property
    def files(self) -> dict[str, str]:
        """Evaluator -> file of evaluation rows."""
        return dict(pair.split("=", 1) for pair in self.evaluation)

    def shared(self) -> dict[str, Any]:
        """What two results must have in common to stand in one folder: all but what is compared, and how often."""
        own = {name: getattr(self, name) for name in DATA_FIELDS}
        return {"study": self.study.title if self.study else None} | own | asdict(self.settings)


def plan(recipe: Recipe, *, compare: bool = False) -> list[str]:
    """What `study`, or with `compare` that, will do with the recipe, one line each, without touching data or model."""
    s, study = recipe.settings, None if compare else recipe.study
    known = recipe.set is not None and recipe.set != "harmfulness-beavertails"
    rows = f"{recipe.rows:,}" if known else "all"
    steps = -(-recipe.rows // s.per_device_train_batch_size)
    where = f"{recipe.set} from {recipe.data_root}" if recipe.set else str(recipe.custom)
    tuned = (
        f"LoRA rank {s.lora_rank} on {joined(s.lora_target_modules)}" if s.tuning == "lora" else "all weights"
    )
    learn = f"learning rate {s.learning_rate:g}, batch {s.per_device_train_batch_size}, {s.num_train_epochs:g} epochs"
    models = study.settings.get("models", ()) if study else ()  # a study of several models names them
    lines = [
        f"model: {joined(models or [s.model])}, {tuned}",
        f"custom rows: {rows} of {where}" + (f", {recipe.share:.1%} unsafe" if known else ""),
        f"safe rows: {joined(s.safe)}" if not recipe.set else f"safe rows: up to {recipe.safe_rows:,}",
        f"stage learn: {learn}" + (f", about {round(steps * s.num_train_epochs):,} steps" if known else ""),
        f"stage review: {s.review_steps} steps, learning rate {s.review_learning_rate:g}, batch {s.review_batch_size}",
        f"evaluation: {joined([e.title for e in recipe.evaluators])}; {recipe.evaluation_rows} rows each",
        f"seeds: {joined(map(str, recipe.seeds))}",
    ]
    jobs = [study] if study else recipe.defences
    lines += [f"job: seed {seed}, {job.title}" for seed in recipe.seeds for job in jobs]
    return [*lines, f"output: {recipe.output}"]


def setup(recipe: Recipe, *, compare: bool = False) -> str:
    """The plan without its jobs, in one paragraph for a results page."""
    lines = plan(recipe, compare=compare)
    return "; ".join(line for line in lines if not line.startswith(("job: ", "output: "))) + "."


def own_settings(function: Callable[..., Any]) -> dict[str, Any]:
    """Setting -> type and range, of a function's keyword-only parameters; None where it is not one we check."""
    function = _behind(function)
    hints = get_type_hints(function, include_extras=True) if function.__module__.startswith(CHECKED) else {}
    return {
        name: hints.get(name)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def _behind(function: Callable[..., Any]) -> Callable[..., Any]:
    """The evaluator's own function behind the one that imports it when it is called."""
    from importlib import import_module

    module, _, name = (function.__doc__ or "").rpartition(".")
    lazy = module.startswith("forgetfilter.evaluate.") and name == "evaluate"
    return import_module(module).evaluate if lazy else function


def models_named(recipe: Recipe) -> list[str]:
    """Scorers, judges and models that a recipe names in the settings of what it runs."""
    jobs = [*recipe.defences, *recipe.evaluators, *([recipe.study] if recipe.study else [])]
    named = [job.settings.get(key) for job in jobs for key in ("scorer", "judge", "models")]
    return [n for some in named for n in (some if isinstance(some, tuple) else [some]) if isinstance(n, str)]


def joined(names: Any) -> str:
    """Names in a row, or the one there is."""
    return names if isinstance(names, str) else ", ".join(names)


# Where the public sets lie changes nothing: what is drawn from them is hashed for each seed.
DATA_FIELDS = ("set", "custom", "rows", "share", "tasks", "safe_rows")
# Modules of ours, whose functions keep what their hints say.
CHECKED = ("forgetfilter.evaluate",)
