"""Settings of `filter`: typed, frozen, documented under the field, refusing what they do not know.

The text under a field is its help on the command line, its type says what is allowed, its default stands
nowhere else. Components never see these objects: they take plain arguments.
"""

from __future__ import annotations

import itertools
import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from forgetfilter import replaced
from forgetfilter.errors import ConfigError, unknown
from forgetfilter.models import spec
from forgetfilter.models.quantization import Quantization, refuse_full

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
    """Format of the rows: prompt-completion, messages, sharegpt, alpaca, preference, segments, text. Recognised by
    the fields unless you name it."""
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
    """File of a person's verdicts on some of the rows: written by `forgetfilter vet`, or exported from Argilla, Label
    Studio, doccano or cleanlab. They decide about the other rows too, and safe rows are not used."""
    verdict_field: str | None = None
    """Column of your file that holds verdicts: clean or unsafe, also 0/1 or true/false; empty where there is none."""
    algorithm: Literal["witness", "paper", "vetted"] = "witness"
    """How rows are judged. witness: compares rows with safe rows that were learned and never reviewed; rows of kinds
    that no safe row speaks of are not judged. paper: judges every row by its own forgetting. vetted: learns from a
    person's verdicts; chosen by itself when you give some."""
    safe_source: Literal["auto", "same", "other"] = "auto"
    """Where the safe rows come from: the same source as your file, another one, or auto, which tells by the questions.
    With another source a row must also stand out of your file's other rows to be dropped."""
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
    """Peak learning rate of the learn step and of the last fine-tune."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    """Schedule of the learning rate in the learn step and the last fine-tune; the review's rate is constant."""
    num_train_epochs: Annotated[float, Between(above=0, high=1000)] = _NANO["num_train_epochs"]
    """Passes over the custom rows in the learn step and the last fine-tune."""
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

    report_to: str | tuple[str, ...] = "none"
    """Where training logs its loss, as in transformers: none, tensorboard, wandb and others; join several by commas."""
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    """Seed of everything random: same seed, same result."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights; auto takes what the device does well."""
    quantization: Quantization = "none"
    """Hold the model in 4 bits (nf4) or 8 (int8) and train an adapter on it (QLoRA); needs forgetfilter[quantization].
    Saves memory, not time."""
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


def resolve(
    preset: str | None,
    recipe_path: Path | str | None,
    flags: Mapping[str, Any],
    *,
    say: Callable[[str], None] | None = None,
    called: Callable[[str], str] | None = None,
    size: spec.Size | None = None,
) -> Resolved:
    """Flags over recipe over preset over defaults.

    `flags` holds only what was typed (None counts as not typed). A recipe may name a `preset`; the flag wins.
    `say` hears of settings of 0.1 and what does the same today. `called` says what a setting is called where it was
    typed (its flag, unless said otherwise); `size` is that of a model which its name does not tell.
    Raises ConfigError for an unknown preset or setting, a value that is not allowed, an unreadable recipe.
    """
    recipe, lines = read_recipe(Path(recipe_path)) if recipe_path is not None else ({}, {})
    in_recipe = recipe.pop("preset", "default")
    chosen = str(in_recipe if preset is None else preset)
    if chosen not in PRESETS:
        where = f"{recipe_path} line {lines['preset']}: " if preset is None else ""
        raise ConfigError(where + unknown("preset", chosen, PRESETS))
    typed = {name: value for name, value in flags.items() if value is not None}
    model = typed.get("model", recipe.get("model", PRESETS[chosen].get("model", "nano")))
    layers = [
        _suited(str(model), size),
        Layer(f"preset {chosen}", PRESETS[chosen], lambda name: f"preset {chosen}: {name}"),
        Layer(Path(recipe_path or "").name, recipe, lambda name: f"{recipe_path} line {lines[name]}: {name}"),
        Layer("argument" if called else "flag", typed, called or flag_name),
    ]
    values: dict[str, Any] = {}
    origins = dict.fromkeys(HINTS, "default")
    for layer in layers:
        for name, value in _of_today(layer, say):
            values[name], origins[name] = value, layer.origin
    if "algorithm" not in values and (given := next((n for n in VERDICTS if values.get(n)), None)):
        values["algorithm"], origins["algorithm"] = "vetted", (called or flag_name)(given)
    quantization = str(values.get("quantization", "none"))
    if quantization != "none" and origins["tuning"].startswith("default"):
        values["tuning"], origins["tuning"] = "lora", (called or flag_name)("quantization")
    resolved = FilterSettings(**values)
    refuse_full(resolved.quantization, resolved.tuning)
    return Resolved(resolved, origins)


class Layer(NamedTuple):
    """Settings from one place; a later layer overrules an earlier one."""

    origin: str
    values: Mapping[str, Any]
    where: Callable[[str], str]  # setting -> what it is called there, for messages


def _suited(model: str, size: spec.Size | None) -> Layer:
    """The defaults for the size of the model; nano's are the fields' own."""
    if size is not None:
        return Layer(f"default for {size} models", spec.DEFAULTS[size], str)
    suited, origin = spec.defaults(model)
    return Layer(origin, suited if model != "nano" else {}, str)


def _of_today(layer: Layer, say: Callable[[str], None] | None) -> Iterator[tuple[str, Any]]:
    """Each setting of a layer with its checked value; those of 0.1 as what does the same now."""
    for name, value in layer.values.items():
        now = replaced.today(layer.where(name), name, value, say)
        if now is None and name not in HINTS:
            raise ConfigError(f"{layer.where(name)}: {unknown('setting', name, [*HINTS, 'preset'])}")
        for setting, one in ({name: value} if now is None else now).items():
            yield setting, checked(layer.where(name), one, HINTS[setting])


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
    for option in options:
        if get_origin(option) is Annotated:  # a number that may be left out
            return checked(name, value, option)
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
