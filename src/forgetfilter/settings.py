"""Settings of `filter`, and the one reader of every verb's: typed, frozen, refusing what they do not know.

The text under a field is its help on the command line, its type says what is allowed, its default stands
nowhere else. Components never see these objects: they take plain arguments.
"""

from __future__ import annotations

import functools
import itertools
import math
import types
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from forgetfilter import replaced
from forgetfilter.errors import ConfigError, nearest, unknown
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


class OneOf(NamedTuple):
    """Allowed names of one kind of thing."""

    kind: str
    known: Collection[str]


S = TypeVar("S")
Elsewhere = Callable[[str], str | None]  # a setting -> what to say where another verb has it
Count = Annotated[int, Between(1)]
Seed = Annotated[int, Between(0, 2**32 - 1)]
Rate = Annotated[float, Between(above=0, high=1)]
Share = Annotated[float, Between(0, 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterSettings:
    """Everything `filter` can be told. A value that is not allowed raises ConfigError."""

    model: str = "nano"
    """The model you are about to fine-tune: nano (embedded), smollm2 (fetched once), a local folder, a .gguf file, or a
    hub id."""
    safe: tuple[str, ...] = ("pack:harmfulness",)
    """Safe rows for the review: a file, or a bundled pack such as pack:harmfulness. Repeat to combine."""
    output_dir: str | None = None
    """Folder for results; one in runs/, named after the input or the recipe, where not given. Never overwritten: the
    same command resumes, another one is refused."""

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
    seed: Seed = 0
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
        check_fields(self)


class Resolved(NamedTuple):
    """Settings, and for each field where its value came from: default, preset paper, recipe.yaml, flag."""

    settings: FilterSettings
    origins: dict[str, str]


class Layer(NamedTuple):
    """Settings from one place; a later layer overrules an earlier one."""

    origin: str
    values: Mapping[str, Any]
    where: Callable[[str], str]  # setting -> what it is called there, for messages


def resolve(
    preset: str | None,
    recipe_path: Path | str | None,
    flags: Mapping[str, Any],
    *,
    say: Callable[[str], None] | None = None,
    called: Callable[[str], str] | None = None,
    size: spec.Size | None = None,
    elsewhere: Elsewhere | None = None,
) -> Resolved:
    """The settings of `filter`: flags over recipe over preset over defaults.

    A recipe may name a `preset`; the flag wins. `called` says what a setting is called where it was typed (its flag,
    unless said otherwise); `size` is that of a model which its name does not tell. The rest as in `gathered`.
    Raises ConfigError for an unknown preset or setting, a value that is not allowed, an unreadable recipe.
    """
    recipe, typed = asked(recipe_path, flags, called)
    chosen = preset_of(preset, recipe)
    model = typed.values.get("model", recipe.values.get("model", PRESETS[chosen].get("model", "nano")))
    named = Layer(f"preset {chosen}", PRESETS[chosen], lambda name: f"preset {chosen}: {name}")
    layers = [_suited(str(model), size), named, recipe, typed]
    values, found = gathered(layers, HINTS, say=say, elsewhere=elsewhere)
    origins = dict.fromkeys(HINTS, "default") | found
    if "algorithm" not in values and (given := next((n for n in VERDICTS if values.get(n)), None)):
        values["algorithm"], origins["algorithm"] = "vetted", typed.where(given)
    quantization = str(values.get("quantization", "none"))
    if quantization != "none" and origins["tuning"].startswith("default"):
        values["tuning"], origins["tuning"] = "lora", typed.where("quantization")
    resolved = FilterSettings(**values)
    refuse_full(resolved.quantization, resolved.tuning)
    return Resolved(resolved, origins)


def read(
    settings: type[S],
    recipe_path: Path | str | None,
    flags: Mapping[str, Any],
    *,
    elsewhere: Elsewhere | None = None,
) -> S:
    """A record of a verb's settings: flags over a recipe over the defaults of its fields. ConfigError as `gathered`."""
    values, _ = gathered(asked(recipe_path, flags), hints_of(settings), elsewhere=elsewhere)
    return settings(**values)


def asked(
    recipe_path: Path | str | None, flags: Mapping[str, Any], called: Callable[[str], str] | None = None
) -> tuple[Layer, Layer]:
    """What a recipe names and what was typed; None counts as not typed."""
    recipe, lines = read_recipe(Path(recipe_path)) if recipe_path is not None else ({}, {})
    return (
        Layer(Path(recipe_path or "").name, recipe, lambda name: f"{recipe_path} line {lines[name]}: {name}"),
        Layer(
            "argument" if called else "flag",
            {name: value for name, value in flags.items() if value is not None},
            called or flag_name,
        ),
    )


def gathered(
    layers: Iterable[Layer],
    hints: Mapping[str, Any],
    *,
    say: Callable[[str], None] | None = None,
    check: Callable[[str, str, Any], Any] | None = None,
    elsewhere: Elsewhere | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The checked value of each setting that a layer names, and that layer's origin.

    `hints` holds the type and range of each setting there is; `check` reads a value, of place and name, where types
    do not say all. `say` hears of settings of 0.1 and what does the same today; `elsewhere` names the verb that has a
    setting. ConfigError, with the place, for a setting that is unknown and a value that is not allowed.
    """
    check = check or (lambda where, name, value: checked(where, value, hints[name]))
    of_filter = "signal" in hints  # presets, and all that is gone, are the filter's
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        for name, value in layer.values.items():
            if of_filter and name == "preset":
                continue  # read by `preset_of`
            where = layer.where(name)
            now = replaced.today(where, name, value, say) if of_filter else None
            if now is None and name not in hints:
                there = elsewhere(name) if elsewhere else None
                known = [*hints, "preset"] if of_filter else hints
                words = there + nearest(name, known) if there else unknown("setting", name, known)
                raise ConfigError(f"{where}: {words}")
            for setting, one in ({name: value} if now is None else now).items():
                values[setting], origins[setting] = check(where, setting, one), layer.origin
    return values, origins


def preset_of(typed: str | None, recipe: Layer) -> str:
    """The preset that was typed, or else the one that the recipe names."""
    named = recipe.values.get("preset", "default")
    chosen = str(named if typed is None else typed)
    if chosen not in PRESETS:
        where = "" if typed is not None else recipe.where("preset").removesuffix("preset")
        raise ConfigError(where + unknown("preset", chosen, PRESETS))
    return chosen


def _suited(model: str, size: spec.Size | None) -> Layer:
    """The defaults for the size of the model; nano's are the fields' own."""
    if size is not None:
        return Layer(f"default for {size} models", spec.DEFAULTS[size], str)
    suited, origin = spec.defaults(model)
    return Layer(origin, suited if model != "nano" else {}, str)


def flag_name(setting: str) -> str:
    """The flag that sets a setting: learning_rate -> --learning-rate."""
    return "--output" if setting == "output_dir" else "--" + setting.replace("_", "-")


@functools.cache
def hints_of(settings: type) -> dict[str, Any]:
    """Setting -> its type and range."""
    return get_type_hints(settings, include_extras=True)


def check_fields(settings: Any) -> None:
    """Put each field of a settings record into the form that it asks for. ConfigError for what is not allowed."""
    for name, hint in hints_of(type(settings)).items():
        object.__setattr__(settings, name, checked(name, getattr(settings, name), hint))


def checked(name: str, value: Any, hint: Any) -> Any:
    """`value` in the form that `hint` asks for, or ConfigError with `name`, the value found, what is allowed.

    A whole number becomes a float where a float is asked, one value or a list becomes a tuple.
    """
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and types.NoneType in options:
        return None
    if tuple[()] in options and value in ((), []):
        return ()
    for option in options:
        if get_origin(option) is tuple and option not in (tuple[()], tuple[str, ...]):
            return _several(name, value, option)
        if get_origin(option) in (Annotated, Literal) or option in (bool, int, float):
            return _one(name, value, option)
    return _texts(name, value, options)


def _one(name: str, value: Any, hint: Any) -> Any:
    """A number, a choice, or yes or no."""
    kind, allowed = get_args(hint) if get_origin(hint) is Annotated else (hint, Between())
    if isinstance(allowed, OneOf) or get_origin(kind) is Literal:
        what, known = allowed if isinstance(allowed, OneOf) else ("value", get_args(kind))
        if not isinstance(value, Hashable) or value not in known:
            raise ConfigError(f"{name}: {unknown(what, str(value), known)}")
        return value
    if kind is bool:
        if type(value) is not bool:
            raise ConfigError(f"{name}: {value!r} is neither true nor false")
        return value
    number = float(value) if kind is float and type(value) is int and abs(value) < 1e300 else value
    if type(number) is not kind:
        word = "whole number" if kind is int else "number"
        raise ConfigError(f"{name}: {value!r} is not a {word}; allowed: {allowed}")
    if not math.isfinite(number) or number not in allowed:
        raise ConfigError(f"{name}: {value!r} is out of range; allowed: {allowed}")
    return number


def _several(name: str, value: Any, hint: Any) -> tuple[Any, ...]:
    """Numbers or choices, none of them twice; on the command line they are joined by commas."""
    (kind, _) = get_args(hint)
    number = {int: int, float: float}.get(get_args(kind)[0] if get_origin(kind) is Annotated else kind)
    parts = []
    for part in listed(name, value):
        with suppress(ValueError):
            part = number(part) if number and isinstance(part, str) else part
        parts.append(checked(name, part, kind))
    if twice := [part for part in parts if parts.count(part) > 1]:
        raise ConfigError(f"{name}: {twice[0]} stands there twice; keep one")
    return tuple(parts)


def listed(where: str, value: Any) -> list[Any]:
    """What a flag or a recipe lists: one thing, or a list, in which a text may join several by commas."""
    found: list[Any] = []
    for one in value if isinstance(value, list | tuple) else [value]:
        found += [part.strip() for part in one.split(",") if part.strip()] if isinstance(one, str) else [one]
    if not found:
        raise ConfigError(f"{where}: an empty list; leave it out, or name one")
    return found


def _texts(name: str, value: Any, options: Collection[Any]) -> Any:
    """One text, or several."""
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


def read_recipe(path: Path, *, secret: bool = False) -> tuple[dict[str, Any], dict[str, int]]:
    """The settings a YAML recipe names, and the line of each.

    Safe-loaded; a key that stands twice is refused; `2e-4` is a number. The names of `secret` settings are not shown.
    """
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except (ValueError, AttributeError):  # what PyYAML raises for a 13th month and such
                raise ConfigError(
                    f"{path} line {node.start_mark.line + 1}: {str(node.value)[:40]!r} looks like a number or a date "
                    "and is none; put it in quotes if it is a text"
                ) from None

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise ConfigError(f"{path} line {line}: the name of a setting must be a plain word")
            if key.value in seen:
                name = "this" if secret else repr(key.value)
                raise ConfigError(
                    f"{path} line {line}: {name} stands here a second time (first: line {seen[key.value]}); keep one"
                )
            seen[key.value] = line
        found = loader.construct_mapping(node, deep=True)
        lines.update(seen)  # the outermost mapping comes last
        return found

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
    except RecursionError:
        raise ConfigError(f"{path}: lists within lists without end") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: not YAML: {getattr(error, 'problem', None) or error}") from None
    if found is None:
        return {}, {}
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected lines of `setting: value`, found a {type(found).__name__}")
    return found, lines


@functools.cache
def help_texts(settings: type = FilterSettings) -> dict[str, str]:
    """The text under each field of a settings class and of those it extends, line breaks taken out."""
    import ast
    import inspect

    texts: dict[str, str] = {}
    for one in reversed([c for c in settings.__mro__ if is_dataclass(c)]):
        module = ast.parse(Path(inspect.getfile(one)).read_text(encoding="utf-8"))
        body = next(n for n in module.body if isinstance(n, ast.ClassDef) and n.name == one.__name__).body
        for field, text in itertools.pairwise(body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    texts[name] = " ".join(words.split())
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

HINTS = hints_of(FilterSettings)
