from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forgetfilter.threads import WAITING, wait_asleep

SRC = Path(__file__).resolve().parents[1] / "src"


@pytest.mark.parametrize("name", WAITING)
def test_what_the_user_set_stands(name: str) -> None:
    wait_asleep(given := {name: "1000"})
    assert given == {name: "1000"}


def test_the_command_decides_before_torch_is_there() -> None:
    program = (
        "import os, sys\n"
        "from forgetfilter import cli\n"
        "assert 'torch' not in sys.modules\n"
        "cli.terminal.leave = lambda code: print(os.environ['OMP_WAIT_POLICY'], os.environ['GOMP_SPINCOUNT'])\n"
        "cli.main(['filter', 'no-such-file.jsonl'])\n"
    )
    free = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=free | {"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "PASSIVE 20000"
