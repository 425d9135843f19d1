"""Programs as models may write them, for real: what they must not do ends them, and nothing of them stays."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from forgetfilter.align import sandbox

DOUBLE = "def double(x):\n    return 2 * x\n"
LAYERS = [
    pytest.param(
        True, marks=pytest.mark.skipif(not sandbox.separable(), reason="this kernel gives no namespaces")
    ),
    False,
]


@pytest.fixture(autouse=True)
def nothing_left(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """No process of the sandbox and none of its folders outlives a test; tests beside this one have their own."""
    own = tmp_path_factory.mktemp("sandboxes")
    monkeypatch.setattr(tempfile, "tempdir", str(own))

    def left() -> set[str]:
        listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
        running = {line for line in listed.splitlines() if str(sandbox.CHILD) in line and str(own) in line}
        return running | {str(p) for p in own.glob("forgetfilter-sandbox-*")}

    before = left()
    yield
    for _ in range(50):  # a killed process stays listed until its parent has looked at it
        if not left() - before:
            return
        time.sleep(0.05)
    assert left() - before == set()


@pytest.mark.parametrize("apart", LAYERS)
def test_a_program_passes_where_its_tests_do_and_fails_with_their_reason(apart: bool):
    assert sandbox.run(DOUBLE, "assert double(2) == 4", namespaces=apart) == sandbox.Ran(True, "")
    ran = sandbox.run(DOUBLE, "assert double(2) == 5, 'not five'", namespaces=apart)
    assert (ran.passed, ran.reason) == (False, "AssertionError: not five")
    assert sandbox.run("print('seen')", namespaces=apart).output == "seen"


# What it does -> the program, and why it was stopped. All are caught although the program hides the error.
FORBIDDEN = {
    "fork": ("import os\nwhile True:\n    os.fork()", "refused: starts a process"),
    "multiprocessing": (
        "import multiprocessing as m\nm.get_context('spawn').Process(target=print).start()",
        "refused: starts a program",
    ),
    "subprocess": ("import subprocess\nsubprocess.run(['ls'])", "refused: starts a program"),
    "os.system": ("import os\nos.system('true')", "refused: starts a program"),
    "socket": ("import socket\nsocket.socket()", "refused: opens a socket"),
    "lookup": ("import socket\nsocket.getaddrinfo('localhost', 80)", "refused: opens a socket"),
    "reads": ("open('/etc/hostname').read()", "refused: reads outside its folder"),
    "lists": ("import os\nos.listdir('/')", "refused: reads outside its folder"),
    "native code": ("import ctypes", "refused: calls native code"),
    "database": ("import sqlite3\nsqlite3.connect('a.db')", "refused: opens a database"),
    "kill": ("import os\nos.kill(os.getppid(), 9)", "refused: sends a signal"),
    "pidfd": (
        "import os, signal\nsignal.pidfd_send_signal(os.pidfd_open(os.getppid() or 1), 0)",
        "refused: sends a signal",
    ),
    "limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
        "refused: changes its limits",
    ),
    "fifo": ("import posix\nposix.mkfifo('a')", "refused: makes a special file"),
    "many files": (
        "for i in range(1000):\n    open(str(i), 'w').close()",
        "refused: writes more than 100 files",
    ),
}


@pytest.mark.parametrize("apart", LAYERS)
@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_a_program_may_not_do_ends_it_whatever_it_catches(what: str, apart: bool):
    program, reason = FORBIDDEN[what]
    hidden = "try:\n" + "".join(f"    {line}\n" for line in program.splitlines())
    ran = sandbox.run(hidden + "except BaseException:\n    pass", namespaces=apart)
    assert (ran.passed, ran.reason) == (False, reason)


@pytest.mark.parametrize(
    "program",
    [
        "open({path!r}, 'w').write('x')",
        "import os\nos.symlink({folder!r}, 'link')\nopen('link/evil', 'w')",
        "import os\nos.chdir({folder!r})\nopen('evil', 'w')",
        "import os\nos.open({path!r}, os.O_CREAT | os.O_WRONLY)",
        "import os\nos.remove({there!r})",
        "import os\nos.rename({there!r}, 'mine')",
        "import shutil\nshutil.rmtree({folder!r})",
        "import os\nos.mknod({path!r})",
    ],
)
def test_a_program_changes_nothing_outside_its_folder(program: str, tmp_path: Path):
    there = tmp_path / "there"
    there.write_text("mine")
    text = program.format(path=str(tmp_path / "evil"), folder=str(tmp_path), there=str(there))
    ran = sandbox.run(text)
    assert not ran.passed and ran.reason.endswith(("outside its folder", "special file"))
    assert [p.name for p in tmp_path.iterdir()] == ["there"] and there.read_text() == "mine"


def test_a_program_may_write_and_read_in_its_own_folder():
    text = "import tempfile\nopen('a', 'w').write('x')\nassert open('a').read() == 'x'\n"
    text += "with tempfile.TemporaryFile() as f:\n    f.write(b'x')"
    assert sandbox.run(text).passed


def test_a_folder_without_rights_is_removed_too():
    assert sandbox.run("import os\nos.mkdir('d')\nopen('d/x', 'w').close()\nos.chmod('d', 0)").passed


@pytest.mark.parametrize("apart", LAYERS)
@pytest.mark.parametrize(
    "program",
    [
        "while True:\n    pass",
        "sum(range(10**12))",  # inside the interpreter, where no Python handler runs
        "import time\ntime.sleep(60)",
        "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except BaseException:\n        pass",
        "import signal, time\nfor n in (14, 15, 24):\n    signal.signal(n, signal.SIG_IGN)\ntime.sleep(60)",
    ],
)
def test_a_program_that_runs_forever_is_stopped(program: str, apart: bool):
    begun = time.monotonic()
    ran = sandbox.run(program, seconds=1, namespaces=apart)
    assert (ran.passed, ran.reason) == (False, "not finished after 1 s")
    assert time.monotonic() - begun < 20


def test_memory_and_output_are_limited():
    eats = "kept = []\nwhile True:\n    kept.append(bytearray(1 << 24))"
    assert sandbox.run(eats, megabytes=128).reason == "MemoryError"
    assert "File too large" in sandbox.run("while True:\n    print('x' * 1000)").reason
    assert (
        "File too large" in sandbox.run("f = open('a', 'wb')\nwhile True:\n    f.write(b'x' * 9999)").reason
    )


@pytest.mark.parametrize("program", ["import sys\nsys.exit(0)", "import os\nos._exit(0)", "raise SystemExit"])
def test_a_program_that_ends_before_its_tests_has_not_passed(program: str):
    assert sandbox.run(program, "assert False").reason == "ended before its tests did"


def test_a_report_that_the_program_writes_itself_does_not_pass_it():
    forged = 'import os\nfor fd in range(3, 32):\n    try:\n        os.write(fd, b\'{"done": "1"}\\n\')\n'
    forged += "    except OSError:\n        pass\nos._exit(0)"
    assert sandbox.run(forged, "assert False").passed is False


def test_what_is_no_python_says_so():
    assert sandbox.run("def (").reason.startswith("SyntaxError")
    assert sandbox.run("a\0b").reason.startswith(("SyntaxError", "ValueError"))
    assert sandbox.run("def f():\n    return f()\nf()").reason.startswith("RecursionError")


def test_the_users_environment_and_packages_are_not_the_programs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_TOKEN", "1")
    assert sandbox.run("import os", "assert 'SECRET_TOKEN' not in os.environ").passed
    assert sandbox.run("import numpy").reason.startswith("ModuleNotFoundError")


@pytest.mark.skipif(not sandbox.separable(), reason="this kernel gives no namespaces")
def test_without_the_hook_the_system_alone_keeps_a_program_off_the_network_and_its_children_die():
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    asks = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)"
    assert "unreachable" in sandbox.run(asks, hook=False).reason
    server.close()
    leaves = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)"
    assert sandbox.run(leaves, hook=False).passed  # and `nothing_left` finds no child


def test_interrupted_it_leaves_nothing():
    """The parent is stopped while the program runs: what is left of it goes with it."""
    code = (
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "from forgetfilter.align import sandbox\nsandbox.run('import time; time.sleep(60)', seconds=50)"
    )
    source = str(Path(sandbox.__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": source}, stderr=subprocess.DEVNULL
    )
    threading.Timer(2, child.terminate).start()
    assert child.wait(30) == 3
