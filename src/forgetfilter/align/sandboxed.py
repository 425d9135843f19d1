"""The other side of `sandbox.run`: an interpreter of its own that gives up its rights, then runs the program.

Started as a script, with the standard library alone; never imported. Whatever the program does, one line of JSON
in the report says how it ended: done, failed (why) or refused (what).
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NoReturn

FILES = 100  # it may open so many for writing
PROCESSES = 32  # threads counted, in namespaces of its own
REFUSED, FAILED = 10, 11  # exit codes; the report says more
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Call -> what it is, in words. Names that end in a dot stand for all that begin so.
NEVER = {
    "socket.": "opens a socket", "os.fork": "starts a process", "os.forkpty": "starts a process",
    "os.exec": "starts a program", "os.posix_spawn": "starts a program", "os.spawn": "starts a program",
    "os.system": "starts a program", "os.startfile": "starts a program", "subprocess.Popen": "starts a program",
    "pty.spawn": "starts a program", "os.kill": "sends a signal", "os.killpg": "sends a signal",
    "resource.": "changes its limits", "ctypes.": "calls native code",
    "sqlite3.": "opens a database", "urllib.Request": "asks for an address",
}  # fmt: skip
# Calls that change a file or folder: which of their arguments are paths.
CHANGES = {
    "os.remove": (0,), "os.rmdir": (0,), "os.mkdir": (0,), "os.rename": (0, 1), "os.link": (0, 1),
    "os.symlink": (0, 1), "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,),
    "os.setxattr": (0,), "os.removexattr": (0,), "os.chflags": (0,),
}  # fmt: skip
READS = {"os.listdir": (0,), "os.scandir": (0,)}
# Functions that no event speaks of: module, name, what it is. `multiprocessing` and `subprocess` call the first.
UNSPOKEN = (
    ("_posixsubprocess", "fork_exec", "starts a program"),
    *((module, "pidfd_send_signal", "sends a signal") for module in ("signal", "_signal")),
    *((module, name, "makes a special file") for module in ("os", "posix") for name in ("mkfifo", "mknod")),
)  # fmt: skip


Teller = Callable[[dict[str, str], int], NoReturn]  # what is told, exit code


def main(job_file: str, report: int) -> None:
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    tell = teller(report)
    signal.signal(signal.SIGALRM, out_of_time(tell))
    signal.signal(signal.SIGXCPU, out_of_time(tell))
    signal.setitimer(signal.ITIMER_REAL, job["seconds"])
    code = compiled(job["program"] + "\n\n" + job["tests"] + "\n", tell)
    limit(job)
    if job["hook"]:
        sys.addaudithook(guard(job["work"], tell))
    try:
        exec(code, {"__name__": "__main__", "__builtins__": __builtins__})  # noqa: S102 — what this file is for
    except BaseException as error:
        tell({"failed": said(error)}, FAILED)
    tell({"done": job["nonce"]}, 0)


def teller(report: int) -> Teller:
    """Writes the first line of the report and ends the process, without what the program has put in the way."""
    write, end, dumps = os.write, os._exit, json.dumps
    out, err = sys.stdout, sys.stderr

    def tell(what: dict[str, str], code: int) -> NoReturn:
        for last in (lambda: write(report, dumps(what).encode() + b"\n"), out.flush, err.flush):
            try:
                last()
            except BaseException:  # closed, or full: the exit code still tells
                continue
        end(code)

    return tell


def out_of_time(tell: Teller) -> Callable[[int, FrameType | None], None]:
    def stop(number: int, frame: FrameType | None) -> None:
        tell({"failed": "time"}, FAILED)

    return stop


def compiled(text: str, tell: Teller) -> CodeType:
    try:
        return compile(text, "program.py", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        tell({"failed": said(error)}, FAILED)


def said(error: BaseException) -> str:
    """An error as its last line: kind and words. Out of memory it is the kind alone."""
    if isinstance(error, SystemExit):
        return "ended before its tests did"
    try:
        words = str(error).strip().splitlines()
        return f"{type(error).__name__}: {words[0][:200]}" if words else type(error).__name__
    except BaseException:
        return type(error).__name__


def limit(job: dict[str, Any]) -> None:
    """Hard limits of the system; those that it does not know are left out."""
    memory, seconds = int(job["megabytes"]) << 20, int(job["seconds"]) + 1
    wanted = {
        "RLIMIT_AS": (memory, memory), "RLIMIT_CPU": (seconds, seconds + 1), "RLIMIT_CORE": (0, 0),
        "RLIMIT_FSIZE": (job["written"], job["written"]), "RLIMIT_NOFILE": (64, 64),
    }  # fmt: skip
    if job["apart"]:  # elsewhere all processes of the user would count
        wanted["RLIMIT_NPROC"] = (PROCESSES, PROCESSES)
    for name, value in wanted.items():
        try:
            resource.setrlimit(getattr(resource, name), value)
        except (AttributeError, ValueError, OSError):
            continue


def guard(work: str, tell: Teller) -> Callable[[str, tuple[Any, ...]], None]:
    """The hook: ends the process at a call that is not allowed, so that no `except` of the program can hide it."""
    real, decode = os.path.realpath, os.fsdecode
    own = real(work)
    readable = (own, *(real(p) for p in sys.path if p), *map(real, ("/dev/null", "/dev/urandom")))
    written = [0]

    def inside(path: Any, roots: tuple[str, ...]) -> bool:
        if isinstance(path, int):
            return True
        place = real(decode(path))
        return any(place == root or place.startswith(root + "/") for root in roots)

    def refuse(what: str) -> NoReturn:
        tell({"refused": what}, REFUSED)

    def opened(path: Any, flags: int) -> None:
        if not flags & WRITES:
            if not inside(path, readable):
                refuse("reads outside its folder")
        elif not inside(path, (own, real("/dev/null"))):
            refuse("writes outside its folder")
        else:
            written[0] += 1
            if written[0] > FILES:
                refuse(f"writes more than {FILES} files")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        what = NEVER.get(event) or NEVER.get(event.partition(".")[0] + ".")
        if what:
            refuse(what)
        if event == "open":
            opened(arguments[0], arguments[2] or 0)
        for table, words in ((CHANGES, "writes outside its folder"), (READS, "reads outside its folder")):
            for at in table.get(event, ()):
                roots = (own,) if table is CHANGES else readable
                if not inside("." if arguments[at] is None else arguments[at], roots):
                    refuse(words)

    for module, name, what in UNSPOKEN:
        if hasattr(found := importlib.import_module(module), name):  # not every system has them all
            setattr(found, name, lambda *_, what=what, **__: refuse(what))
    return hook


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
