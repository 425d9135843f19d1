from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forgetfilter.threads import _listed, free_cores, share_the_machine

SRC = Path(__file__).resolve().parents[1] / "src"


@pytest.mark.parametrize(
    ("cores", "idle", "free"),
    [
        ([{0}, {1}], {0: 1.0, 1: 1.0}, 2),
        ([{0}, {1}], {0: 0.02, 1: 0.97}, 1),
        ([{0}, {1}], {0: 0.0, 1: 0.0}, 1),  # one thread runs wherever it gets time
        ([{0, 4}, {1, 5}], {0: 1.0, 4: 1.0, 1: 1.0, 5: 0.0}, 1),  # half of a core is no free core
        ([{n} for n in range(8)], dict.fromkeys(range(8), 0.8), 6),  # 6.4
        ([{3}], {}, 1),
    ],
)
def test_a_core_is_free_where_none_of_its_threads_is_used(
    cores: list[set[int]], idle: dict[int, float], free: int
) -> None:
    assert free_cores([frozenset(core) for core in cores], idle) == free


def test_a_list_of_hardware_threads_is_read() -> None:
    assert _listed("0-1,4\n") == {0, 1, 4}
    assert _listed("7") == {7}


def test_what_the_user_set_stands() -> None:
    mine = {"OMP_NUM_THREADS": "7", "GOMP_SPINCOUNT": "100"}
    share_the_machine(given := dict(mine))
    assert given == mine
    share_the_machine(given := {"MKL_NUM_THREADS": "3"})
    assert given == {"MKL_NUM_THREADS": "3", "OMP_WAIT_POLICY": "PASSIVE"}


def test_the_number_is_between_one_and_the_cores() -> None:
    share_the_machine(found := {})
    assert 1 <= int(found.get("OMP_NUM_THREADS", "1")) <= len(os.sched_getaffinity(0))


def test_the_command_decides_before_torch_is_there_and_help_does_not_wait() -> None:
    program = (
        "import os, sys\n"
        "from forgetfilter import cli\n"
        "assert 'torch' not in sys.modules\n"
        "cli._leave = lambda code: print(os.environ.get('OMP_WAIT_POLICY'))\n"
        "cli.main(sys.argv[1:])\n"
    )
    free = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_", "MKL_"))}
    said = [
        subprocess.run(
            [sys.executable, "-c", program, *words],
            env=free | {"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=True,
        ).stdout.splitlines()[-1]
        for words in (["filter", "no-such-file.jsonl"], ["filter", "--help"])
    ]  # fmt: skip
    assert said == ["PASSIVE", "None"]
