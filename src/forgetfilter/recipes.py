"""A recipe: one experiment in one YAML file. Typed, frozen, documented under the field, refusing unknown keys.

A recipe is flat. It may hold every setting of `filter` (model, learning_rate, review_steps …, `preset: paper`)
and the fields of `Recipe`. What can be chosen by name and told more is a name, or a name with its settings:

    defences:
      - none
      - sequential: {steps: 60}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from forgetfilter import replaced
from forgetfilter.errors import ConfigError, unknown
from forgetfilter.evaluate.recipe import Named, Recipe, joined, own_settings
from forgetfilter.settings import HINTS as FILTER_HINTS
from forgetfilter.settings import (
    Between,
    checked,
    flag_name,
    read_recipe,
    resolve,
)

HINTS: dict[str, Any] = {
    name: hint
    for name, hint in get_type_hints(Recipe, include_extras=True).items()
    if name not in ("settings", "origins", "name")
}
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
FILTER_FIELDS = {name: hint for name, hint in FILTER_HINTS.items() if name not in NOT_IN_RECIPES}
NUMBERS: dict[Any, Any] = {int: Annotated[int, Between()], float: Annotated[float, Between()]}
SEED = Annotated[int, Between(0, 2**32 - 1)]


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
    values, lines = read_recipe(Path(path)) if path is not None else ({}, {})
    typed = {name: value for name, value in (flags or {}).items() if value is not None}
    preset = values.pop("preset", None)
    own: dict[str, Any] = {}
    tuning: dict[str, Any] = {}
    origins: dict[str, str] = {}
    layers: list[tuple[str, Mapping[str, Any], Callable[[str], str]]] = [
        (Path(path or "").name, values, lambda name: f"{path} line {lines[name]}: {name}"),
        ("flag", typed, flag_name),
    ]
    for origin, layer, where in layers:
        for name, value in layer.items():
            if (now := replaced.today(where(name), name, value, say)) is not None:
                tuning |= now
                origins |= dict.fromkeys(now, origin)
                continue
            if name in FILTER_FIELDS:
                tuning[name] = checked(where(name), value, FILTER_FIELDS[name])
            elif name in HINTS:
                own[name] = _checked(where(name), name, value)
            elif name in NOT_IN_RECIPES:
                raise ConfigError(f"{where(name)}: no setting of a recipe; {NOT_IN_RECIPES[name]}")
            else:
                known = [*HINTS, *FILTER_FIELDS, "preset"]
                raise ConfigError(f"{where(name)}: {unknown('setting', name, known)}")
            origins[name] = origin
    if preset is not None:
        origins["preset"] = str(preset)
    settings, found = resolve(None if preset is None else str(preset), None, tuning)
    stem = Path(path).stem if path is not None else "recipe"
    recipe = Recipe(**own, settings=settings, origins=found | origins, name=stem)
    _refuse_contradictions(recipe, str(path or "recipe"))
    return recipe


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
        hint = allowed[setting]
        checked_settings[setting] = _setting(f"{where}: {name}: {setting}", given, hint)
    return Named(name, checked_settings)


def _setting(where: str, value: Any, hint: Any) -> Any:
    """`value` as a defence or study declares it: one number or text, or several; unchecked where `hint` is None."""
    if hint is None:
        return value
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    hint = next(option for option in options if option is not type(None))
    if get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        parts = tuple(_setting(where, part, kind) for part in _listed(where, value))
        if twice := [part for part in parts if parts.count(part) > 1]:
            raise ConfigError(f"{where}: {twice[0]} stands there twice; it would count as two")
        return parts
    return checked(where, value, NUMBERS.get(hint, hint))


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

    value = [value] if isinstance(value, str) else value
    pairs = value if isinstance(value, Mapping) else dict(str(p).partition("=")[::2] for p in value)
    for evaluator, file in pairs.items():
        if evaluator not in EVALUATORS:
            raise ConfigError(f"{where}: {unknown('evaluator', str(evaluator), EVALUATORS)}")
        if not isinstance(file, str) or not file:
            raise ConfigError(f"{where}: {evaluator}: name a file of rows, as in {evaluator}=FILE")
    return dict(pairs)


def _checked(where: str, name: str, value: Any) -> Any:
    """The value of a field of Recipe."""
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
    if name == "seeds":
        return seeds_named(where, value)
    return checked(where, value, HINTS[name])


def seeds_named(where: str, value: Any) -> tuple[int, ...]:
    """The seeds that a flag or a recipe lists; ConfigError for one that is none, or stands there twice."""
    seeds = [int(s) if isinstance(s, str) and s.isdecimal() else s for s in _listed(where, value)]
    if len(set(map(str, seeds))) < len(seeds):
        raise ConfigError(f"{where}: a seed stands here twice; the same seed gives the same result")
    return tuple(checked(where, seed, SEED) for seed in seeds)


def _several(where: str, kind: str, value: Any, known: Mapping[str, Callable[..., Any]]) -> tuple[Named, ...]:
    found = [named(where, kind, one, known) for one in _listed(where, value)]
    if twice := [one.title for one in found if found.count(one) > 1]:
        raise ConfigError(f"{where}: {twice[0]} stands here twice; keep one")
    return tuple(found)


def _listed(where: str, value: Any) -> Sequence[Any]:
    """What a flag or a recipe lists: one thing, or a list, in which a text may join several by commas."""
    found: list[Any] = []
    for one in value if isinstance(value, list | tuple) else [value]:
        found += [part.strip() for part in one.split(",") if part.strip()] if isinstance(one, str) else [one]
    if not found:
        raise ConfigError(f"{where}: an empty list; leave it out, or name one")
    return found


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

    jobs = [*recipe.defences, *([recipe.study] if recipe.study else [])]
    for signal in (recipe.settings.signal, *(j.settings["signal"] for j in jobs if "signal" in j.settings)):
        if signal not in SIGNALS:
            raise ConfigError(f"{where}: {unknown('signal', signal, SIGNALS)}")
    blind = recipe.set is None and recipe.settings.label_field is None
    if blind and (ceilings := [d.name for d in recipe.defences if d.name in CEILINGS]):
        raise ConfigError(f"{where}: {ceilings[0]} reads the truth; name its column with label_field")
