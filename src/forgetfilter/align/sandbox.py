"""Run a program that a model wrote, with limits: is what its tests say true?

    run("def double(x):\\n    return 2 * x", "assert double(2) == 4")   # Ran(passed=True, reason="", …)

The program has one process, the standard library, an empty folder of its own, and limits on time,
memory and what it writes. It may not open a socket, start a program, call native code, read or write elsewhere.
Three layers hold it: limits of the system (setrlimit); where the kernel allows, namespaces of its own without
network and in which nothing outlives it (`unshare`); and in the interpreter a hook that ends the process at the
first call that is not allowed (`sandboxed.py`).

This stops what a model writes by mistake. It is no wall against a program written to break out: whoever fools the
interpreter has the rights of the user, as far as files go.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

CHILD = Path(__file__).with_name("sandboxed.py")
SECONDS, MEGABYTES = 5.0, 512
REFUSED = 10  # exit code of sandboxed.py
WRITTEN = 1 << 20  # bytes of the largest file, output included
SHOWN = 300  # characters of output and reasons that are kept


@dataclass(frozen=True, slots=True)
class Ran:
    """`passed`: it ran to its end. Else `reason` says what stopped it. `output`: the end of what it printed."""

    passed: bool
    reason: str
    output: str = ""


def run(
    program: str,
    tests: str = "",
    *,
    seconds: float = SECONDS,
    megabytes: int = MEGABYTES,
    namespaces: bool | None = None,
    hook: bool = True,
) -> Ran:
    """Run `program` and then `tests` in one namespace of names, and tell how it ended. Nothing stays behind.

    `namespaces`: None uses them where the kernel allows. Without `hook` only the system holds the program; that is
    for tests of the layers alone.
    """
    nonce = secrets.token_hex(8)
    own = separable() if namespaces is None else namespaces
    with _folder() as folder:
        work, report, output = folder / "work", folder / "report", folder / "output"
        work.mkdir()
        job = {
            "program": program, "tests": tests, "work": str(work), "megabytes": megabytes, "seconds": seconds,
            "written": WRITTEN, "nonce": nonce, "hook": hook, "apart": own,
        }  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        code = _finished(folder, work, report, output, seconds, own)
        said = _tail(output)
        return _outcome(code, _report(report), nonce, said, seconds)


@lru_cache(maxsize=1)
def separable() -> bool:
    """Whether this kernel gives a process namespaces of its own."""
    try:
        done = subprocess.run(
            [*_APART, "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


# Users, network, processes and System V memory of its own; all of its processes die with the first.
_APART = ["unshare", "--user", "--map-root-user", "--net", "--ipc", "--pid", "--fork", "--kill-child=KILL"]


def _finished(
    folder: Path, work: Path, report: Path, output: Path, seconds: float, apart: bool
) -> int | None:
    """The exit code of the child, None where its time was up. Its whole session is killed in any case."""
    with report.open("wb") as told, output.open("wb") as printed:
        child = subprocess.Popen(
            [
                *(_APART if apart else []),
                *(sys.executable, "-I", "-S", "-B", str(CHILD), str(folder / "job.json"), str(told.fileno())),
            ],
            stdin=subprocess.DEVNULL, stdout=printed, stderr=printed, cwd=work, pass_fds=(told.fileno(),),
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(work), "TMPDIR": str(work)},
            start_new_session=True,
        )  # fmt: skip
        try:
            return child.wait(seconds + 1)  # the interpreter's own start
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _outcome(code: int | None, told: dict[str, str], nonce: str, output: str, seconds: float) -> Ran:
    if "refused" in told or code == REFUSED:
        return Ran(False, f"refused: {told.get('refused', 'a call that is not allowed')}", output)
    if code is None or told.get("failed") == "time" or code == -signal.SIGXCPU:
        return Ran(False, f"not finished after {seconds:g} s", output)
    if "failed" in told:
        return Ran(False, told["failed"][:SHOWN], output)
    if code == 0 and told.get("done") == nonce:
        return Ran(True, "", output)
    if code < 0:
        return Ran(False, f"killed by the system ({signal.Signals(-code).name})", output)
    return Ran(False, "ended before its tests did", output)


def _report(path: Path) -> dict[str, str]:
    """What the child told, {} where that is nothing or no record."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            told = json.loads(file.read(1 << 16).splitlines()[0])
    except (OSError, ValueError, IndexError):
        return {}
    return {k: str(v) for k, v in told.items()} if isinstance(told, dict) else {}


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4 * SHOWN))
        return file.read().decode("utf-8", "replace")[-SHOWN:].strip()


@contextlib.contextmanager
def _folder() -> Generator[Path]:
    """An empty folder for this user alone, gone afterwards whatever rights the program gave to what is in it."""
    folder = Path(tempfile.mkdtemp(prefix="forgetfilter-sandbox-"))
    try:
        yield folder
    finally:
        for place, _, _ in os.walk(folder):
            with contextlib.suppress(OSError):
                Path(place).chmod(stat.S_IRWXU)
        shutil.rmtree(folder, ignore_errors=True)
