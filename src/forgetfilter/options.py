"""What verbs share on the command line: flags made from settings classes, and arguments that several verbs have."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from forgetfilter import replaced
from forgetfilter.models import spec
from forgetfilter.models.quantization import Quantization
from forgetfilter.settings import PRESETS, FilterSettings, flag_name, help_texts, hints_of
from forgetfilter.terminal import say


def flags_from(*classes: Any, leave_out: Iterable[str] = ()) -> Callable[[Callable[..., None]], Any]:
    """Replace `**flags` of a verb by a flag per field of settings classes: name, type and help stand there."""

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(verb, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        flags = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=_flag(name, hint, _help(c, name, default)),
            )
            for c in classes
            for name, hint, default in ((f.name, hints_of(c)[f.name], f.default) for f in fields(c))
            if name in help_texts(c) and name not in leave_out
        ]
        if FilterSettings in classes:
            flags += [
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_hidden(name, kind)
                )
                for name, kind in replaced.GONE.items()
            ]
        verb.__signature__ = signature.replace(parameters=[*own, *flags])  # ty: ignore[missing-attribute]
        verb.__annotations__ = {p.name: p.annotation for p in [*own, *flags]}
        return verb

    return decorate


def _flag(name: str, hint: Any, text: str) -> Any:
    if get_origin(hint) is Literal and any(old.name == name for old in replaced.OLD):
        # As a plain text, so that a value of 0.1 reaches the table that knows it.
        kind, shown = str | None, f"<{'|'.join(get_args(hint))}>"
    else:
        kind, shown = _flag_type(hint), None
    option = typer.Option(*_flag_names(name, hint), help=text, metavar=shown)
    return Annotated[kind, option]


def _hidden(name: str, kind: type) -> Any:
    """A flag of 0.1 that is gone: read, so that it can be answered, and not shown."""
    option = typer.Option(*_flag_names(name, kind), hidden=True)
    return Annotated[kind | None, option]  # ty: ignore[invalid-type-form]


def _flag_type(hint: Any) -> Any:
    """What typer reads from the command line; None means that the flag was not typed."""
    if get_origin(hint) is Annotated:
        return get_args(hint)[0] | None
    if get_origin(hint) is UnionType:  # of a number that may be left out, or of texts
        first = get_args(hint)[0]
        return _flag_type(first) if get_origin(first) is Annotated else str | None
    if get_origin(hint) is Literal or hint is bool:
        return hint | None
    return list[str] | None if get_origin(hint) is tuple else str | None


def _flag_names(name: str, hint: Any) -> list[str]:
    flag = flag_name(name)
    return [f"{flag}/--no-{flag[2:]}" if hint is bool else flag, *ALSO.get(name, ())]


def _help(settings: Any, name: str, default: Any) -> str:
    """The text with the default behind it; where the filter takes it by the size of the model, with that of each."""
    text = help_texts(settings)[name]
    by_size = {size: spec.DEFAULTS[size].get(name) for size in SIZES}
    if settings is FilterSettings and len(set(by_size.values())) > 1:
        same = by_size["small"] == by_size["large"]
        shown = {"for nano": by_size["tiny"], "for other models": by_size["large"]} if same else {
            words: by_size[size] for size, words in SIZES.items()
        }  # fmt: skip
        return f"{text} [default: {', '.join(f'{_shown(v)} {words}' for words, v in shown.items())}]"
    return text if default is None or default == () else f"{text} [default: {_shown(default)}]"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# Sizes of `spec.DEFAULTS`, as help calls them.
SIZES: dict[spec.Size, str] = {
    "tiny": "for nano",
    "small": "up to 500M parameters",
    "large": "for larger models",
}


ALSO: dict[str, tuple[str, ...]] = {  # further names of a flag
    "output_dir": ("-o", "--output-dir"),
    "output": ("-o",),
    "guidance_scale": ("--guidance",),
    "num_return_sequences": ("--samples",),
    "num_beams": ("--beams",),
}
PresetFlag = Annotated[
    str | None,
    typer.Option(
        help=f"Settings to start from: {' or '.join(PRESETS)}. A recipe and flags overrule them. [default: default]"
    ),
]
ConfigFlag = Annotated[Path | None, typer.Option(help="A YAML recipe of settings; flags overrule it.")]
RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML recipe; flags overrule it.")]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and stop.")]
# Of the filter alone: they decide nothing about a fine-tune.
NOT_TO_FINETUNE = (
    "safe", "label_field", "algorithm", "safe_source", "signal", "threshold", "fdr", "phi", "quantile", "retrain",
    "review_learning_rate", "review_steps", "review_batch_size", "vetted", "verdict_field", "weights",
    "flagged_weight", "show_answers", "max_train_samples",
)  # fmt: skip


RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Output folder of a finished filter run.")]


ModelFlag = Annotated[
    str, typer.Option("--model", help="nano, smollm2, a local folder, a .gguf file, or a hub id.")
]
Model = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="nano (embedded), smollm2, a local folder, a .gguf file, or a hub id. [default: nano]",
    ),
]
Mask = Annotated[float | None, typer.Option(hidden=True)]  # what --min-p was called; until 0.3
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Quantized = Annotated[
    Quantization, typer.Option("--quantization", help="Hold the model in 4 bits (nf4) or 8 (int8).")
]


def run_name(inputs: Sequence[str]) -> str:
    """What a run over these inputs is called: the first one's name without its ending."""
    path = Path("stdin" if inputs[0] == "-" else inputs[0])
    packed = path.suffix.lower() in (".gz", ".bz2", ".zst")
    name = Path(path.stem).stem if packed else path.stem
    if set(name) & set("*?["):  # a pattern
        name = path.parent.name
    return name.replace(":", "-") or "rows"


def renamed(flags: dict[str, Any], mask: float | None) -> dict[str, Any]:
    """The flags of generate and serve, --mask under its name of today."""
    if mask is None:
        return flags
    say("note: --mask is now called --min-p; the old name goes with 0.3")
    return flags | {"min_p": mask}
