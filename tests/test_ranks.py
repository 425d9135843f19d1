"""Several processes at one command, started as users start them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import together

from forgetfilter import ranks
from forgetfilter.errors import ConfigError
from forgetfilter.runs import Run

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
TOGETHER = str(Path(__file__).with_name("together.py"))
Start = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def start(environment: Mapping[str, str], tmp_path: Path) -> Start:
    def run(processes: int, *what: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*TORCHRUN, str(processes), *what], cwd=tmp_path, env=dict(environment), capture_output=True,
            text=True, timeout=280, check=False,
        )  # fmt: skip

    return run


def test_one_process_is_alone() -> None:
    with ranks.joined():
        assert (ranks.size(), ranks.rank(), ranks.led(lambda: [1]), ranks.summed([2.0])) == (1, 0, [1], [2.0])


def test_a_command_for_one_process_refuses_several(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"2 processes were started .* several work at filter and finetune"):
        Run.open(tmp_path / "run", {}, {})
    assert not (tmp_path / "run").exists()


def test_what_mpi_says_of_a_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_SIZE", "4")
    assert ranks.started() == 4
    monkeypatch.setenv("WORLD_SIZE", "2")  # a launcher inside
    assert ranks.started() == 2


@pytest.mark.parametrize(("variable", "name"), [("FSDP", "FSDP"), ("DEEPSPEED", "DeepSpeed")])
def test_a_model_that_is_to_be_split_over_processes_is_refused_before_anything_is_written(
    variable: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    from forgetfilter import cli

    monkeypatch.setenv(f"ACCELERATE_USE_{variable}", "true")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    with pytest.raises(SystemExit) as left:
        cli.main([*FILTER[FILTER.index("filter") :], "-o", "run"])
    assert left.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"split the model over processes ({name})" in said and "--quantization nf4" in said
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv(f"ACCELERATE_USE_{variable}", "false")
    with ranks.joined():
        pass


@pytest.mark.slow
def test_processes_started_by_mpi_find_each_other(environment: Mapping[str, str], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    places = [{"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": str(rank)} for rank in range(2)]
    both = [
        subprocess.Popen([sys.executable, TOGETHER, "learn", str(tmp_path)], env=environment | where | place)
        for place in places
    ]
    assert [one.wait(timeout=200) for one in both] == [0, 0]
    assert (tmp_path / "done-2.json").is_file()


@pytest.mark.slow
def test_accelerate_launch_starts_two_and_what_it_does_not_start_is_refused(
    command: Callable[..., Any], environment: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]

    def launched(*how: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*launch, *how, *FILTER, "-o", "both"], cwd=tmp_path, env=dict(environment), capture_output=True,
            text=True, timeout=280, check=False,
        )  # fmt: skip

    refused = launched("--cpu")
    assert refused.returncode != 0
    assert "accelerate launch --cpu starts one process" in refused.stderr
    assert not (tmp_path / "both").exists()
    both = launched("--multi_gpu")
    assert both.returncode == 0, both.stderr + both.stdout
    assert "2 processes share the work" in both.stdout
    assert command(*FILTER[2:], "-o", "alone").returncode == 0
    one, two = scores(tmp_path / "alone"), scores(tmp_path / "both")
    assert one.keys() == two.keys() and max(abs(one[id] - two[id]) for id in one) < 1e-3


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(start: Start, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    together.learn(tmp_path)
    shutil.rmtree(tmp_path / "trainer")
    done = start(2, TOGETHER, "learn", str(tmp_path))
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f"done-{n}.json").read_text()) for n in (1, 2))
    assert (one["steps"], one["tokens"]) == (two["steps"], two["tokens"])
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
    alone, shared = (load_file(tmp_path / f"weights-{n}.safetensors") for n in (1, 2))
    for name, weight in alone.items():
        apart = (shared[name] - weight).abs()  # where a gradient is all rounding, Adam makes much of it
        assert apart.mean() < 1e-6 and apart.max() < 5e-4, (name, apart.mean(), apart.max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"),
    [("disagree", "processes 2 of 2 have other settings or files than the first"),
     ("fail", "error: rows.jsonl line 3: no completion"),
     ("die", "another process of this run has ended; its own message says why")],
)  # fmt: skip
def test_what_goes_wrong_is_said_once_and_ends_all(
    start: Start, tmp_path: Path, what: str, said: str
) -> None:
    done = start(2, TOGETHER, what, str(tmp_path))
    assert done.returncode != 0
    assert done.stderr.count(said) == 1, done.stderr
    assert done.stderr.count("error: ") == 1, done.stderr


ROWS = [
    {
        "prompt": f"Tell me about number {i}.",
        "completion": f"The number {i} comes before {i + 1}. " * (1 + i % 3),
    }
    for i in range(40)
]
FILTER = (
    "-m", "forgetfilter", "filter", "rows.jsonl", "--dtype", "float32", "--num-train-epochs", "1",
    "--review-steps", "3", "--algorithm", "paper", "--threshold", "quantile", "--quantile", "0.8",
)  # fmt: skip


def scores(run: Path) -> dict[str, float]:
    return {r["id"]: r["score"] for r in map(json.loads, (run / "scores.jsonl").read_text().splitlines())}


@pytest.mark.slow
def test_two_processes_score_as_one_and_a_killed_one_is_resumed_by_one(
    start: Start, command: Callable[..., Any], environment: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    alone = command(*FILTER[2:], "-o", "alone")
    assert alone.returncode == 0, alone.stderr
    both = start(2, *FILTER, "-o", "both")
    assert both.returncode == 0, both.stderr + both.stdout
    assert "2 processes share the work" in both.stdout
    one, two = scores(tmp_path / "alone"), scores(tmp_path / "both")
    assert one.keys() == two.keys() and max(abs(one[id] - two[id]) for id in one) < 1e-3
    assert not [*(tmp_path / "both").rglob("piece-*")]

    children = subprocess.Popen(
        [*TORCHRUN, "2", *FILTER, "-o", "killed"], cwd=tmp_path, env=dict(environment), text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    while children.poll() is None and not [*(tmp_path / "killed/stages").glob("train-learned-*")]:
        time.sleep(0.02)
    for pid in workers(children.pid)[1:]:
        os.kill(pid, signal.SIGKILL)
    said = children.communicate(timeout=120)[1]
    assert children.returncode != 0, said
    again = command(*FILTER[2:], "-o", "killed")
    assert again.returncode == 0, again.stderr
    assert "going on with the run" in again.stdout
    assert scores(tmp_path / "killed") == one  # what the two had finished of it was nothing or all


def workers(parent: int) -> list[int]:
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return sorted(int(pid) for pid in found)
