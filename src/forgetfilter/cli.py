"""The command `forgetfilter`: one function per verb, no logic; heavy imports inside, for a fast --help."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin

import typer

from .config import HINTS, PRESETS, FilterSettings, flag_name, help_texts, resolve
from .errors import DONE, INTERRUPTED, ForgetfilterError
from .models import is_hub_id

DEFECT = 1  # exit code of what only we can fix
INTERRUPTED_LINE = "interrupted; run the same command again to resume"
DATA_SUFFIXES = {".json", ".jsonl", ".csv", ".parquet"}

# Without rich markup: help comes faster, and text out of a user's file is never taken for formatting.
app = typer.Typer(
    name="forgetfilter",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
)


def flags_from_settings(verb: Callable[..., None]) -> Callable[..., None]:
    """Replace `**flags` of a verb by a flag per field of FilterSettings: name, type and help stand there."""
    signature = inspect.signature(verb, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    texts, defaults = help_texts(), FilterSettings()
    flags = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=_flag(name, hint, _help(texts[name], getattr(defaults, name))),
        )
        for name, hint in HINTS.items()
    ]
    verb.__signature__ = signature.replace(parameters=[*own, *flags])  # ty: ignore[missing-attribute]
    verb.__annotations__ = {p.name: p.annotation for p in [*own, *flags]}
    return verb


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


def _help(text: str, default: Any) -> str:
    if isinstance(default, bool):
        default = "yes" if default else "no"
    shown = ", ".join(default) if isinstance(default, tuple) else default
    return text if shown is None else f"{text} [default: {shown}]"


def _version(asked: bool) -> None:
    if asked:
        from .runs import versions

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
@flags_from_settings
def filter_(
    input: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="Your rows: a JSON, JSONL, CSV or Parquet file, or a hub id."),
    ],
    preset: Annotated[
        str | None, typer.Option(help=f"Settings to start from: {' or '.join(PRESETS)}. [default: default]")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A YAML recipe of settings; flags overrule it, it overrules the preset."),
    ] = None,
    **flags: Any,
) -> None:
    """Split your rows into kept, flagged and dropped, each with its reason."""
    settings, origins = resolve(preset, config, flags)
    _stay_offline_unless_named(input, *settings.safe, settings.model)
    from .filtering import run_filter

    output = Path(settings.output_dir or Path("runs") / Path(input).stem)
    raise typer.Exit(run_filter(input, settings, origins, output, _console()))


@app.command(short_help="The whole job on bundled rows: offline, embedded model.")
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for results.")] = Path("runs/demo"),
) -> None:
    """The whole job on bundled rows with the embedded model, offline, compared with the truth at the end."""
    _stay_offline_unless_named()
    from .filtering import run_demo

    raise typer.Exit(run_demo(output, _console()))


@app.command()
def packs() -> None:
    """List the bundled packs of safe rows; use one with --safe pack:NAME."""
    from .packs import NAMES, path

    for name in NAMES:
        if name != "demo":  # custom rows to filter, not safe ones
            with path(name).open("rb") as lines:
                typer.echo(f"pack:{name}  {sum(1 for line in lines if line.strip())} rows")


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

    return Console(markup=False, highlight=False, emoji=False)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit with its code; an error is one line on stderr, never a traceback."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "1"
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

    from .runs import disk_full_explained, is_disk_full

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


def _say(line: str) -> None:
    """One line on stderr as plain text; control characters could steer a terminal, so they are escaped."""
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in line)
    try:
        sys.stderr.write(shown.encode(sys.stderr.encoding or "utf-8", "backslashreplace").decode() + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody listens


def _leave(code: int) -> NoReturn:
    """Exit; a reader who has closed the pipe gets no complaint from the interpreter's last flush."""
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)
