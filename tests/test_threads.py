from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forgetfilter.threads import WAITING, keep_little, wait_asleep

SRC = Path(__file__).resolve().parents[1] / "src"


@pytest.mark.parametrize("name", WAITING)
def test_what_the_user_set_stands(name: str) -> None:
    wait_asleep(given := {name: "1000"})
    assert given == {name: "1000"}


def test_a_capacity_that_the_user_set_stands() -> None:
    keep_little(given := {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8"})
    assert given == {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8"}


def test_the_command_decides_before_torch_is_there() -> None:
    program = (
        "import os, sys\n"
        "from forgetfilter import cli\n"
        "assert 'torch' not in sys.modules\n"
        "names = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'ONEDNN_PRIMITIVE_CACHE_CAPACITY')\n"
        "cli.terminal.leave = lambda code: print(*map(os.environ.get, names))\n"
        "cli.main(['filter', 'no-such-file.jsonl'])\n"
    )
    free = {
        name: value
        for name, value in os.environ.items()
        if name not in (*WAITING, "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=free | {"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "PASSIVE 20000 64"
