"""Settings of `filter`: typed, frozen, documented under the field, refusing what they do not know.

The text under a field is its help on the command line, its type says what is allowed, its default stands
nowhere else. Components never see these objects: they take plain arguments.
"""

from __future__ import annotations

import itertools
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from forgetfilter.errors import ConfigError, unknown
from forgetfilter.models import spec

# Of nano; those of other models are taken by their size (models/spec.py).
_NANO = spec.DEFAULTS["tiny"]


class Between(NamedTuple):
    """Allowed range of a number, both ends allowed; `above` is an end that is not."""

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high and value > self.above

    def __str__(self) -> str:
        ends = [f"more than {self.above:g}"] * (self.above > -math.inf)
        ends += [f"at least {self.low:g}"] * (self.low > -math.inf)
        ends += [f"at most {self.high:g}"] * (self.high < math.inf)
        return " and ".join(ends) or "any number"


Count = Annotated[int, Between(1)]
Rate = Annotated[float, Between(above=0, high=1)]
Share = Annotated[float, Between(0, 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterSettings:
    """Everything `filter` can be told. A value that is not allowed raises ConfigError."""

    model: str = "nano"
    """The model you are about to fine-tune: nano (embedded), smollm2 (fetched once), a local folder, a .gguf file, or a
    hub id."""
    safe: tuple[str, ...] = ("pack:general",)
    """Safe rows for the review: a file, or a bundled pack such as pack:general. Repeat to combine."""
    output_dir: str | None = None
    """Folder for results; runs/<name of the input> where not given. Never overwritten: the same command
    resumes, another one is refused."""

    data_format: str | None = None
    """Format of the rows: prompt-completion, messages, sharegpt, alpaca, preference, segments, text; recognised where
    not given."""
    prompt_field: str | None = None
    """Field that holds the prompt."""
    completion_field: str | None = None
    """Field that holds the completion."""
    messages_field: str | None = None
    """Field that holds the list of messages."""
    text_field: str | None = None
    """Field that holds plain text."""
    label_field: str | None = None
    """Field that tells the truth (true, 1 or "unsafe": unsafe). Read only to measure quality."""

    vetted: str | None = None
    """Verdicts of a person on some of the rows, as `forgetfilter vet` writes them, or an export of Argilla, Label
    Studio, doccano or cleanlab. The rest is judged by them, and nothing is trained to find unsafe rows."""
    verdict_field: str | None = None
    """The same from a column of your file: clean or unsafe (also 0/1, true/false); rows where it is empty have no
    verdict."""
    algorithm: Literal["witness", "paper", "vetted"] = "witness"
    """witness: a row is judged where safe rows of its kind are, and by safe rows that were learned and not reviewed.
    paper: every row, by its own forgetting alone. vetted: by a person's verdicts (--vetted, --verdict-field), taken
    of itself where they are given."""
    safe_source: Literal["auto", "same", "other"] = "auto"
    """Whether the safe rows are of the file's own source: same, other, or as their questions tell (auto). Of the same
    source they show where clean rows end; of another, a row must also stand out of the file's other rows."""
    signal: str = "likelihood"
    """How a row is remembered: likelihood, probability, token_match, rouge1 or exact_match."""
    fdr: Annotated[float, Between(above=0, high=0.5)] = 0.1
    """With threshold fdr: at most this share of the dropped rows is expected to be clean."""
    threshold: Literal["fdr", "fixed", "quantile"] = "fdr"
    """Where to cut: fdr (algorithm witness), fixed at --phi, or a quantile of the scores (algorithm paper)."""
    phi: Annotated[float, Between()] = 0.1
    """With threshold fixed: drop rows that forgot more than this."""
    quantile: Share = 0.8
    """With threshold quantile: drop above this quantile; 0.8 drops the upper fifth."""

    tuning: Literal["lora", "full"] = _NANO["tuning"]
    """Train a low-rank adapter, or all weights."""
    lora_rank: Annotated[int, Between(1, 4096)] = _NANO["lora_rank"]
    """Rank of the adapter."""
    lora_alpha: Count = _NANO["lora_alpha"]
    """Scale of the adapter: its output counts alpha / rank."""
    lora_dropout: Annotated[float, Between(0, 0.9)] = 0.0
    """Dropout in front of the adapter while training."""
    lora_target_modules: str | tuple[str, ...] = "all-linear"
    """Layers that get an adapter: all-linear, or names joined by commas such as q_proj,v_proj."""

    learning_rate: Rate = _NANO["learning_rate"]
    """Peak learning rate of learn and of the last fine-tune."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    """Course of the learning rate in learn and in the last fine-tune; the review's is constant."""
    num_train_epochs: Annotated[float, Between(above=0, high=1000)] = _NANO["num_train_epochs"]
    """Passes over the custom rows in learn and in the last fine-tune."""
    max_train_samples: Annotated[int, Between(0)] = 0
    """Learn at most this many custom rows, drawn from all kinds in proportion; the others are judged by what learned
    rows with like answers lost. 0: learn all."""
    per_device_train_batch_size: Count = 16
    """Custom rows per optimiser step and device."""
    review_learning_rate: Rate = _NANO["review_learning_rate"]
    """Learning rate of the review."""
    review_steps: Count = 24
    """Optimiser steps of a review."""
    review_batch_size: Count = 16
    """Rows per step of a review."""

    max_length: Annotated[int, Between(8)] = _NANO["max_length"]
    """Longest row in tokens; a longer one is trained and scored on what fits, and the report says so."""
    retrain: bool = True
    """Fine-tune the original model on the kept rows at the end."""
    weights: bool = False
    """Also write the whole input with a column weight: 1 for kept rows, 0 for dropped ones."""
    flagged_weight: Share = 0.0
    """With weights: the weight of flagged rows."""
    show_answers: Annotated[int, Between(0, 50)] = 6
    """Dropped and flagged rows of which the report shows what the model answers after learn and after the review."""

    seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    """Seed of everything random: same seed, same result."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights; auto takes what the device does well."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    template: str = "auto"
    """How a chat becomes text: auto (the tokenizer's own template where it has one), chat, paper or plain."""

    def __post_init__(self) -> None:
        for name, hint in HINTS.items():
            object.__setattr__(self, name, checked(name, getattr(self, name), hint))


class Resolved(NamedTuple):
    """Settings, and for each field where its value came from: default, preset paper, recipe.yaml, flag."""

    settings: FilterSettings
    origins: dict[str, str]


def resolve(preset: str | None, recipe_path: Path | str | None, flags: Mapping[str, Any]) -> Resolved:
    """Flags over recipe over preset over defaults.

    `flags` holds only what was typed (None counts as not typed). A recipe may name a `preset`; the flag wins.
    Raises ConfigError for an unknown preset or setting, a value that is not allowed, an unreadable recipe.
    """
    recipe, lines = read_recipe(Path(recipe_path)) if recipe_path is not None else ({}, {})
    in_recipe = recipe.pop("preset", "default")
    chosen = str(in_recipe if preset is None else preset)
    if chosen not in PRESETS:
        where = f"{recipe_path} line {lines['preset']}: " if preset is None else ""
        raise ConfigError(where + unknown("preset", chosen, PRESETS))
    typed = {name: value for name, value in flags.items() if value is not None}
    layers: list[tuple[str, Mapping[str, Any], Callable[[str], str]]] = [
        (f"preset {chosen}", PRESETS[chosen], lambda name: f"preset {chosen}: {name}"),
        (Path(recipe_path or "").name, recipe, lambda name: f"{recipe_path} line {lines[name]}: {name}"),
        ("flag", typed, flag_name),
    ]
    model = typed.get("model", recipe.get("model", PRESETS[chosen].get("model", "nano")))
    suited, origin = spec.defaults(str(model))
    if model != "nano":
        layers.insert(0, (origin, suited, lambda name: name))
    values: dict[str, Any] = {}
    origins = dict.fromkeys(HINTS, "default")
    for origin, layer, where in layers:
        for name, value in layer.items():
            if name not in HINTS:
                raise ConfigError(f"{where(name)}: {unknown('setting', name, [*HINTS, 'preset'])}")
            values[name] = checked(where(name), value, HINTS[name])
            origins[name] = origin
    if "algorithm" not in values and (given := next((n for n in VERDICTS if values.get(n)), None)):
        values["algorithm"], origins["algorithm"] = "vetted", flag_name(given)
    return Resolved(FilterSettings(**values), origins)


def flag_name(setting: str) -> str:
    """The flag that sets a setting: learning_rate -> --learning-rate."""
    return "--output" if setting == "output_dir" else "--" + setting.replace("_", "-")


def checked(name: str, value: Any, hint: Any) -> Any:
    """`value` in the form that `hint` asks for, or ConfigError with `name`, the value found, what is allowed.

    A whole number becomes a float where a float is asked, one string or a list becomes a tuple of strings.
    """
    if get_origin(hint) is Annotated:
        kind, bounds = get_args(hint)
        number = float(value) if kind is float and type(value) is int else value
        if type(number) is not kind:
            word = "whole number" if kind is int else "number"
            raise ConfigError(f"{name}: {value!r} is not a {word}; allowed: {bounds}")
        if not math.isfinite(number) or number not in bounds:
            raise ConfigError(f"{name}: {value!r} is out of range; allowed: {bounds}")
        return number
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{name}: {unknown('value', str(value), get_args(hint))}")
        return value
    if hint is bool:
        if type(value) is not bool:
            raise ConfigError(f"{name}: {value!r} is neither true nor false")
        return value
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    if isinstance(value, str) and str in options and not (tuple[str, ...] in options and "," in value):
        if not value.strip():
            raise ConfigError(f"{name}: found an empty text; leave it out, or name one")
        return value
    if tuple[str, ...] in options:
        parts = [p.strip() for p in value.split(",")] if isinstance(value, str) and str in options else value
        parts = [parts] if isinstance(parts, str) else parts
        if isinstance(parts, list | tuple) and parts and all(isinstance(p, str) and p.strip() for p in parts):
            return tuple(parts)
        raise ConfigError(f"{name}: {value!r} is not one or more texts")
    raise ConfigError(f"{name}: {value!r} is not a text; put it in quotes")


def read_recipe(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The settings a YAML recipe names, and the line of each.

    Safe-loaded; a key that stands twice is refused; `2e-4` is a number.
    """
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise ConfigError(f"{path} line {line}: the name of a setting must be a plain word")
            if key.value in seen:
                raise ConfigError(
                    f"{path} line {line}: {key.value!r} stands here a second time (first: line "
                    f"{seen[key.value]}); keep one"
                )
            seen[key.value] = line
        lines.update(seen)  # the outermost mapping comes last
        return loader.construct_mapping(node, deep=True)

    lines: dict[str, int] = {}
    # YAML 1.1 takes 2e-4, without a point, for a text.
    number = re.compile(r"[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$")
    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the recipe ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}; save the recipe as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: not YAML: {getattr(error, 'problem', None) or error}") from None
    if found is None:
        return {}, {}
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected lines of `setting: value`, found a {type(found).__name__}")
    return found, lines


def help_texts(settings: type = FilterSettings) -> dict[str, str]:
    """The text under each field of a settings class, line breaks taken out."""
    import ast
    import inspect

    body = next(
        node
        for node in ast.parse(Path(inspect.getfile(settings)).read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == settings.__name__
    ).body
    texts: dict[str, str] = {}
    for field, text in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
        ):
            texts[field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return texts


VERDICTS = ("vetted", "verdict_field")  # settings that name a person's verdicts

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # The published method: what the paper and its authors' code state; the rest stays at our defaults.
    "paper": {
        "algorithm": "paper",
        "signal": "rouge1",
        "threshold": "fixed",
        "phi": 0.1,
        "tuning": "lora",
        "lora_rank": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "lora_target_modules": ("q_proj", "v_proj"),
        "learning_rate": 2e-4,
        "per_device_train_batch_size": 32,
        "review_learning_rate": 2e-4,
        "review_batch_size": 32,
        "review_steps": 30,
        "num_train_epochs": 3.0,
        "template": "paper",
    },
}

HINTS: dict[str, Any] = get_type_hints(FilterSettings, include_extras=True)  # setting -> its type and range
