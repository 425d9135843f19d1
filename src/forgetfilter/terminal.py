"""How a command begins and ends: no network unless asked, lines as plain text, an error in one line, exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from forgetfilter import ranks
from forgetfilter.display import spelled_out
from forgetfilter.errors import DONE, INTERRUPTED, WRONG_INPUT, ForgetfilterError
from forgetfilter.models.spec import is_hub_id
from forgetfilter.runs import disk_full_explained
from forgetfilter.threads import keep_little, wait_asleep

DEFECT = 1  # exit code of what only we can fix
INTERRUPTED_LINE = "interrupted; run the same command again to resume"
# What the system says of a name that the user gave.
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)
DATA_SUFFIXES = {  # what ends so is a file, not a hub id
    ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".gz", ".bz2", ".zst", ".yaml", ".yml",
}  # fmt: skip


def stay_offline_unless_named(*names: str) -> None:
    """No network unless the user named a hub id, that of a detector (`ner:MODEL`) too; what the user's own
    environment says stays."""
    hub = any(
        is_hub_id(name)
        and not name.startswith(("pack:", "known:"))
        and Path(name).suffix not in DATA_SUFFIXES
        for name in (n.removeprefix("ner:") for n in names)
    )
    if not hub:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_DATASETS_OFFLINE", "1")


def console() -> Any:
    """Where results are shown: markup off, for rows and file names are hostile text. Only a first process shows any."""
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False, quiet=ranks.rank() > 0)


def run(command: Callable[[], object]) -> NoReturn:
    """Run a command and exit with its code; an error is one line on stderr, never a traceback."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "1"
    wait_asleep()
    keep_little()
    stopped: list[int] = []

    def stop(number: int, frame: Any) -> NoReturn:
        stopped.append(number)  # a library may turn the interrupt into an error of its own
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)  # a scheduler's stop is Ctrl-C
    code = DEFECT
    try:
        with disk_full_explained():
            command()
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else DONE if done.code is None else DEFECT
        if code == INTERRUPTED:
            say(INTERRUPTED_LINE)
    except KeyboardInterrupt:
        code = INTERRUPTED
        say(INTERRUPTED_LINE)
    except BrokenPipeError:
        pass
    except Exception as error:
        if stopped:
            code = INTERRUPTED
            say(INTERRUPTED_LINE)
        elif isinstance(error, ForgetfilterError):
            code = error.exit_code
            say(f"error: {error}")
        else:
            code = explain(error)
    leave(code)


def explain(error: Exception) -> int:
    """The exit code of an error that no command made words for, after one line about it."""
    import tempfile
    import traceback

    if isinstance(error, OSError) and error.errno in NOT_ALLOWED and error.filename is not None:
        say(f"error: {error.filename}: {error.strerror}. Name another file or folder, or make it yours")
        return WRONG_INPUT
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
    say(f"error: a defect of forgetfilter, {type(error).__name__}: {said} ({where})")
    return DEFECT


def say(line: str, to: Any = None) -> None:
    """One line on stderr as plain text; control characters could steer a terminal, so they are escaped."""
    to = to or sys.stderr
    try:
        to.write(spelled_out(line).encode(to.encoding or "utf-8", "backslashreplace").decode() + "\n")
        to.flush()
    except (OSError, ValueError):
        pass  # nobody listens


def show(line: str) -> None:
    """One line of a result, on stdout, as plain text."""
    say(line, sys.stdout)


def leave(code: int) -> NoReturn:
    """Exit; a reader who has closed the pipe gets no complaint from the interpreter's last flush."""
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    # An interrupt that reached us through a library's exec() leaves a mark in the interpreter, which would then die
    # of the signal instead of exiting with our code; any exec() takes it away.
    exec("")  # noqa: S102
    sys.exit(code)
