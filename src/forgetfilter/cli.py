"""The command `forgetfilter`: one function per verb, no logic; heavy imports inside, for a fast --help."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from forgetfilter import cli_align, cli_models, options, ranks, terminal
from forgetfilter.errors import DONE
from forgetfilter.evaluate.recipe import Recipe, models_named
from forgetfilter.guide.settings import GenerateSettings, ServeSettings
from forgetfilter.options import flags_from, run_name
from forgetfilter.recipes import NOT_IN_RECIPES, elsewhere, evaluators_named, files_named, read
from forgetfilter.settings import FilterSettings, resolve
from forgetfilter.settings import read as read_settings
from forgetfilter.terminal import console, say, show, stay_offline_unless_named
from forgetfilter.unlearn.recipe import UnlearnRecipe

# Without rich markup: help comes faster, and text out of a user's file is never taken for formatting.
app = typer.Typer(
    name="forgetfilter",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
)


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
    preset: options.PresetFlag = None,
    config: options.ConfigFlag = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print settings, plan and an estimate of time and memory; write nothing."
        ),
    ] = False,
    **flags: Any,
) -> None:
    """Split your rows into kept, flagged and dropped, each with its reason."""
    settings, origins = resolve(preset, config, flags, say=say, elsewhere=elsewhere)
    stay_offline_unless_named(*inputs, *settings.safe, settings.model)
    output = Path(settings.output_dir or Path("runs") / run_name(inputs))
    input = inputs[0] if len(inputs) == 1 else inputs
    if dry_run:
        from forgetfilter.filter import dry_run as dry

        raise typer.Exit(dry.dry_run(input, settings, origins, output, console()))
    from forgetfilter.filter.pipeline import run_filter

    with ranks.joined():
        code = run_filter(input, settings, origins, output, console())
    raise typer.Exit(code)


@app.command(short_help="Measure what the filter misses in your file, and judge the file as a whole.")
@flags_from(FilterSettings, leave_out=("vetted", "verdict_field"))
def selftest(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Your rows, as for filter.")],
    unsafe: Annotated[
        str | None,
        typer.Option(help="Unsafe rows of your own to plant instead of the bundled plain ones."),
    ] = None,
    preset: options.PresetFlag = None,
    config: options.ConfigFlag = None,
    **flags: Any,
) -> None:
    """Plant known-unsafe rows in a copy of your file, filter the copy, and report which kinds were missed.

    One verdict on the file: clear (exit code 0), look or stop (3). The copy reaches no output.
    """
    settings, origins = resolve(preset, config, flags, say=say, elsewhere=elsewhere)
    stay_offline_unless_named(*inputs, *settings.safe, settings.model, *filter(None, [unsafe]))
    from forgetfilter.selftest.command import run_selftest

    output = Path(settings.output_dir or Path("runs") / f"{run_name(inputs)}-selftest")
    input = inputs[0] if len(inputs) == 1 else inputs
    raise typer.Exit(run_selftest(input, settings, origins, output, console(), unsafe))


@app.command(short_help="Fine-tune a model on a file of rows.")
@flags_from(FilterSettings, leave_out=options.NOT_TO_FINETUNE)
def finetune(
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="Rows to learn, such as runs/mine/kept.jsonl.")
    ],
    preset: options.PresetFlag = None,
    config: options.ConfigFlag = None,
    **flags: Any,
) -> None:
    """Fine-tune a model on a file of rows, with the settings the filter fine-tunes with."""
    settings, origins = resolve(preset, config, flags, say=say, elsewhere=elsewhere)
    stay_offline_unless_named(input, settings.model)
    from forgetfilter.evaluate.evaluation import run_finetune

    output = Path(settings.output_dir or Path("runs") / f"{Path(input).stem}-model")
    with ranks.joined():
        code = run_finetune(input, settings, origins, output, console())
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
    quantized: options.Quantized = "none",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for results. [default: runs/evaluate-MODEL]")
    ] = None,
) -> None:
    """Judge a model; every number with its interval, every row judged with its reason on disk."""
    stay_offline_unless_named(model)
    from forgetfilter.evaluate.evaluation import run_evaluate

    chosen, files = evaluators_named("--on", on), files_named("--evaluation", evaluation or [])
    where = output or Path("runs") / f"evaluate-{Path(model).name}"
    raise typer.Exit(
        run_evaluate(model, chosen, files, data_root, rows, instruction, device, where, console(), quantized)
    )


@app.command(short_help="Compare all defences on one noisy set, in one table.")
@flags_from(Recipe, FilterSettings, leave_out=[*NOT_IN_RECIPES, "study"])
def compare(recipe: options.RecipeArgument, dry_run: options.DryRunFlag = False, **flags: Any) -> None:
    """Train and judge every defence of a recipe on one noisy set, over its seeds; one table. Resumes."""
    found = _read_recipe(recipe, flags)
    from forgetfilter.evaluate.compare import run_compare

    raise typer.Exit(run_compare(found, console(), dry_run=dry_run))


@app.command(short_help="Draw one of the paper's figures: a sweep, or sessions.")
@flags_from(Recipe, FilterSettings, leave_out=[*NOT_IN_RECIPES, "defences"])
def study(recipe: options.RecipeArgument, dry_run: options.DryRunFlag = False, **flags: Any) -> None:
    """Make the study that a recipe names; data, plots and a page. Resumes."""
    found = _read_recipe(recipe, flags)
    from forgetfilter.evaluate.studies import run_study

    raise typer.Exit(run_study(found, console(), dry_run=dry_run))


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
    stay_offline_unless_named()
    from forgetfilter.filter.pipeline import run_demo

    raise typer.Exit(run_demo(output, console(), model))


@app.command(short_help="Judge rows yourself, one key each.")
def vet(
    input: Annotated[str, typer.Argument(metavar="INPUT", help="Your rows, as for filter.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Verdicts. [default: INPUT's name, .vetted.jsonl]")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many rows to judge in all.")] = 50,
    random: Annotated[
        bool, typer.Option("--random", help="Draw all of them at random and propose none: tighter intervals.")
    ] = False,
    model: Annotated[str, typer.Option(help="Model whose states propose rows, as for filter.")] = "nano",
    run: Annotated[
        Path | None, typer.Option(help="Folder of a filter run of these rows: its scores help to propose.")
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(help="Take the verdicts from this file instead of a person.")
    ] = None,
    page: Annotated[
        bool, typer.Option("--page", help="Judge on a page in your browser, for this machine alone.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0: any free one.")] = 0,
    by: Annotated[str | None, typer.Option(help="Who judges; kept with each verdict.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same random rows.")] = 0,
    max_length: Annotated[
        int | None, typer.Option(min=8, help="Longest row in tokens that is read. [default: as for filter]")
    ] = None,
    device: options.Device = "auto",
    quantized: options.Quantized = "none",
) -> None:
    """Judge rows of a file, one key each: some drawn at random, then those your verdicts point at. Resumes."""
    stay_offline_unless_named(input, model)
    from forgetfilter.review.vet import run_vet

    raise typer.Exit(
        run_vet(
            input, output=output, rows=rows, random=random, model=model, run=run, answers=answers, page=page,
            port=port, by=by, seed=seed, max_length=max_length, device=device, quantization=quantized,
            say=say if page else show, show=show,
        )
    )  # fmt: skip


@app.command(short_help="Look at the rows of a run and overrule it.")
def review(
    run: options.RunArgument,
    by: Annotated[
        str | None, typer.Option(help="Who judges; kept with each verdict. [default: your user name]")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in your browser.")] = False,
) -> None:
    """Read the rows of a finished run on a page for this machine alone; keep or drop them, move the cut.

    Each decision is on disk (RUN/review.jsonl) before the next. `apply` writes the final files.
    """
    from forgetfilter.review.command import run_review

    raise typer.Exit(run_review(run, by=by, port=port, open_browser=open_browser, say=say, show=show))


@app.command(short_help="Write the final files of a run after a review.")
def apply(
    run: options.RunArgument,
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
    from forgetfilter.review.apply import run_apply

    raise typer.Exit(run_apply(run, output=output, cut=cut, weights=weights, say=show))


@app.command(short_help="Merge an adapter into its base model.")
def merge(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of a low-rank adapter.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the whole model.")],
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> None:
    """Write an adapter and the base model it names as one model, for programs that read no adapters."""
    stay_offline_unless_named(str(adapter))
    from forgetfilter.models.merging import merge

    merge(adapter, output, dtype=dtype, device=device)
    show(f"{output}: the whole model, adapter merged")


@app.command(short_help="List the bundled packs of safe rows.")
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


app.add_typer(cli_models.app, name="models", short_help="List the models there are; pull or remove one.")


@app.command(short_help="Unlearn personal data: every row of the paper's tables from one recipe.")
@flags_from(UnlearnRecipe)
def unlearn(
    recipe: options.RecipeArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for results. [default: runs/RECIPE]")
    ] = None,
    **flags: Any,
) -> None:
    """Unlearn personal data and measure each step. The same command resumes."""
    from forgetfilter.unlearn import pipeline

    settings = read_settings(UnlearnRecipe, recipe, flags, elsewhere=elsewhere)
    others = filter(None, [settings.tuned, settings.other])
    stay_offline_unless_named(settings.model, *others, *settings.detectors)
    pipeline.unlearn(settings, output or Path("runs") / recipe.stem, console())


app.command("self-align", short_help="Let your model write safe rows for the filter, checked.")(
    cli_align.self_align
)
app.command("safe-data", hidden=True, short_help="The old name of self-align --concepts 0.")(
    cli_align.safe_data
)


@app.command(short_help="Answer prompts, guided away from what you name.")
@flags_from(GenerateSettings, leave_out=["model"])
def generate(
    model: options.Model = None,
    config: options.ConfigFlag = None,
    mask: options.Mask = None,
    **flags: Any,
) -> None:
    """Answer a prompt, a file of rows, or what you type, guided away from what the negative prompt asks for."""
    flags = options.renamed(flags, mask) | {"model": model}
    s = read_settings(GenerateSettings, config, flags, elsewhere=elsewhere)
    stay_offline_unless_named(s.model)
    from forgetfilter.guide.command import run_generate

    if s.prompt is None and s.input is None:
        if sys.stdin.isatty():
            say("a prompt a line; Ctrl-D ends")
        # A line that is no text is told by itself.
        sys.stdin.reconfigure(errors="surrogateescape")  # ty: ignore[missing-union-attribute]
    raise typer.Exit(run_generate(s, lines=sys.stdin, show=show, say=say))


@app.command(short_help="Serve a guided model, OpenAI-style.")
@flags_from(ServeSettings, leave_out=["model"])
def serve(
    model: options.Model = None,
    config: options.ConfigFlag = None,
    mask: options.Mask = None,
    **flags: Any,
) -> None:
    """Serve chat completions and completions as OpenAI does, with guidance_scale, guidance_form, min_p and
    negative_messages.

    The flags are the defaults of a request; a token's own settings in --keys overrule them, and a request
    overrules both, unless its token is `locked`.
    """
    flags = options.renamed(flags, mask) | {"model": model}
    s = read_settings(ServeSettings, config, flags, elsewhere=elsewhere)
    stay_offline_unless_named(s.model)
    from forgetfilter.guide.serving.command import serve

    raise typer.Exit(serve(s, say=say))


def _read_recipe(path: Path, flags: dict[str, Any]) -> Recipe:
    """A recipe of compare or study; offline from here on, unless it names a hub id."""
    recipe = read(path, flags, say=say)
    stay_offline_unless_named(
        recipe.custom or "", *recipe.settings.safe, recipe.settings.model, *models_named(recipe)
    )
    return recipe


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit with its code; an error is one line on stderr, never a traceback."""
    terminal.run(lambda: app(arguments, prog_name="forgetfilter"))
