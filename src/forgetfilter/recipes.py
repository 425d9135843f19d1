"""A recipe: one experiment in one YAML file. Typed, frozen, documented under the field, refusing unknown keys.

A recipe is flat. It may hold every setting of `filter` (model, learning_rate, review_steps …, `preset: paper`)
and the fields of `Recipe`. What can be chosen by name and told more is a name, or a name with its settings:

    defences:
      - none
      - sequential: {steps: 60}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forgetfilter import replaced
from forgetfilter.errors import ConfigError, unknown
from forgetfilter.evaluate.recipe import Named, Recipe, joined, own_settings
from forgetfilter.guide.settings import GenerateSettings, ServeSettings
from forgetfilter.settings import HINTS as FILTER_HINTS
from forgetfilter.settings import asked, checked, gathered, hints_of, listed, preset_of, resolve
from forgetfilter.unlearn.recipe import UnlearnRecipe

HINTS = {name: h for name, h in hints_of(Recipe).items() if name not in ("settings", "origins", "name")}
# A recipe has `seeds`, and every defence trains its model.
NOT_IN_RECIPES = {
    "seed": "use seeds: [0, 1, 2]",
    "retrain": "every defence trains its model; leave it out",
    "vetted": "verdicts are on the rows of one file; use forgetfilter filter",
    "weights": "no file of yours is cut; use forgetfilter filter",
    "flagged_weight": "no file of yours is cut; use forgetfilter filter",
    "max_train_samples": "defences learn all rows; use forgetfilter filter",
    "show_answers": "answers are shown of one run; use forgetfilter filter",
    "verdict_field": "verdicts are on the rows of one file; use forgetfilter filter",
}
FIELDS = HINTS | {name: hint for name, hint in FILTER_HINTS.items() if name not in NOT_IN_RECIPES}
VERBS: dict[str, Mapping[str, Any]] = {
    "filter": FILTER_HINTS,
    "compare and study": HINTS,
    "unlearn": hints_of(UnlearnRecipe),
    "generate": hints_of(GenerateSettings),
    "serve": hints_of(ServeSettings),
}


def elsewhere(setting: str) -> str | None:
    """The words for a setting that another verb has."""
    verbs = [verb for verb, hints in VERBS.items() if setting in hints]
    return f"a setting of {', '.join(verbs)}, not of this command" if verbs else None


def read(
    path: Path | str | None,
    flags: Mapping[str, Any] | None = None,
    *,
    say: Callable[[str], None] | None = None,
) -> Recipe:
    """The recipe in `path` (None: defaults alone), overruled by `flags`, of which None counts as not typed.

    `say` hears of settings of 0.1 and what does the same today.

    Raises ConfigError, naming file and line or flag, for an unknown key, defence, evaluator, study or signal, a value
    that is not allowed, and data that is named twice or not at all.
    """
    recipe, typed = asked(path, flags or {})
    preset = preset_of(None, recipe) if "preset" in recipe.values else None
    values, origins = gathered([recipe, typed], FIELDS, say=say, check=_checked, elsewhere=_elsewhere)
    own = {name: values.pop(name) for name in HINTS if name in values}
    settings, found = resolve(preset, None, values)
    origins = found | ({} if preset is None else {"preset": preset}) | origins
    made = Recipe(
        **own,
        settings=settings,
        origins=origins,
        name=Path(path).stem if path is not None else "recipe",
    )
    _refuse_contradictions(made, str(path or "recipe"))
    return made


def _elsewhere(setting: str) -> str | None:
    """The same, of a recipe of compare or study."""
    remedy = NOT_IN_RECIPES.get(setting)
    return f"no setting of a recipe; {remedy}" if remedy else elsewhere(setting)


def named(where: str, kind: str, value: Any, known: Mapping[str, Callable[..., Any]]) -> Named:
    """`value` as a name of `known` with settings that its function takes; ConfigError otherwise."""
    if isinstance(value, Named):
        name, settings = value
    elif isinstance(value, Mapping) and len(value) == 1:
        name, settings = next(iter(value.items()))
    else:
        name, settings = value, None
    if not isinstance(name, str) or not isinstance(settings or {}, Mapping):
        raise ConfigError(f"{where}: {value!r} is neither a name nor `name: {{setting: value}}`")
    if name not in known:
        if kind == "defence" and name in replaced.DEFENCES:
            raise ConfigError(f"{where}: {name} is gone since 0.2; {replaced.DEFENCES[name]}")
        raise ConfigError(f"{where}: {unknown(kind, name, known)}")
    allowed = own_settings(known[name])
    if kind == "evaluator":
        allowed = {setting: hint for setting, hint in allowed.items() if setting not in COMMON}
    checked_settings: dict[str, Any] = {}
    for setting, given in (settings or {}).items():
        if setting not in allowed:
            takes = unknown("setting", str(setting), allowed) if allowed else f"{kind} {name} has no settings"
            raise ConfigError(f"{where}: {name}: {takes}")
        hint = allowed[setting]  # None: not one of ours, the function checks it
        place = f"{where}: {name}: {setting}"
        checked_settings[setting] = given if hint is None else checked(place, given, hint)
    return Named(name, checked_settings)


COMMON = ("instruction", "batch_tokens", "progress")  # what every evaluator is given


def evaluators_named(where: str, value: Any) -> tuple[Named, ...]:
    """Evaluators, each by name or by name with settings."""
    from forgetfilter.evaluate import EVALUATORS

    found = _several(where, "evaluator", value, EVALUATORS)
    names = [one.name for one in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(
            f"{where}: {twice[0]} stands here twice, with other settings; a result holds one of each evaluator. "
            "Make two recipes with an output of their own"
        )
    return found


def files_named(where: str, value: Any) -> dict[str, str]:
    """Evaluator -> file of rows, from a mapping or from texts such as toxicity=FILE."""
    from forgetfilter.evaluate import EVALUATORS

    if isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        texts = value if isinstance(value, list | tuple) else [value]
        pairs = [str(text).partition("=")[::2] for text in texts]
    for evaluator, file in pairs:
        if evaluator not in EVALUATORS:
            raise ConfigError(f"{where}: {unknown('evaluator', str(evaluator), EVALUATORS)}")
        if not isinstance(file, str) or not file:
            raise ConfigError(f"{where}: {evaluator}: name a file of rows, as in {evaluator}=FILE")
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ConfigError(f"{where}: one file for an evaluator; join the files of one that stands here twice")
    return found


def _checked(where: str, name: str, value: Any) -> Any:
    """The value of a setting of a recipe: what is chosen by name is looked up in its table."""
    if name == "study":
        from forgetfilter.evaluate.studies import STUDIES

        return named(where, "study", value, STUDIES)
    if name == "defences":
        from forgetfilter.evaluate.defences import DEFENCES

        return _several(where, "defence", value, DEFENCES)
    if name == "evaluators":
        return evaluators_named(where, value)
    if name == "evaluation":
        return tuple(f"{evaluator}={file}" for evaluator, file in files_named(where, value).items())
    return checked(where, value, FIELDS[name])


def _several(where: str, kind: str, value: Any, known: Mapping[str, Callable[..., Any]]) -> tuple[Named, ...]:
    found = [named(where, kind, one, known) for one in listed(where, value)]
    if twice := [one.title for one in found if found.count(one) > 1]:
        raise ConfigError(f"{where}: {twice[0]} stands here twice; keep one")
    return tuple(found)


def _refuse_contradictions(recipe: Recipe, where: str) -> None:
    from forgetfilter.evaluate.noisy_sets import NOISY_SETS
    from forgetfilter.filter.signals import SIGNALS

    if (recipe.set is None) == (recipe.custom is None):
        raise ConfigError(
            f"{where}: give either set (one of {joined(NOISY_SETS)}) or custom (a file of rows)"
        )
    if recipe.set is not None and recipe.set not in NOISY_SETS:
        raise ConfigError(f"{where}: {unknown('noisy set', recipe.set, NOISY_SETS)}")
    from forgetfilter.evaluate.defences import CEILINGS

    if recipe.settings.signal not in SIGNALS:
        raise ConfigError(f"{where}: {unknown('signal', recipe.settings.signal, SIGNALS)}")
    blind = recipe.set is None and recipe.settings.label_field is None
    if blind and (ceilings := [d.name for d in recipe.defences if d.name in CEILINGS]):
        raise ConfigError(f"{where}: {ceilings[0]} reads the truth; name its column with label_field")
