"""Several processes at one command, as `torchrun` or `accelerate launch` start them.

Every process does the same things in the same order, with the same rows. What must be done once (open the run folder,
declare a stage done, write results) the first one does for all, by `led`. What can be shared (the rows of a batch,
the rows to score) each takes its part of, by `rank` and `size`. Outside of `joined` a process is alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError, ForgetfilterError

if TYPE_CHECKING:
    import torch

PATIENCE = timedelta(days=7)  # a process may wait while another trains; one that dies is noticed at once
ENDED = (
    "another process of this run has ended; its own message says why. What is finished is kept: the same command "
    "resumes, also with another number of processes"
)


# What PyTorch reads of its place, and what MPI says of it (Open MPI, MPICH, Intel's, MVAPICH).
_PLACE = {
    "WORLD_SIZE": ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"),
    "RANK": ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK"),
    "LOCAL_RANK": ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK"),
}


@dataclass(slots=True)
class _Group:
    size: int = 1
    rank: int = 0
    alone: bool = True  # what is done now is this process's own affair


_group = _Group()


def size() -> int:
    """How many processes work together."""
    return _group.size


def rank() -> int:
    """Which of them this is; 0 is the first, the only one that writes the run folder."""
    return _group.rank


def started() -> int:
    """How many processes were started, whether the command joins them or not."""
    found = _placed("WORLD_SIZE") or "1"
    return int(found) if found.isdigit() else 1


def _placed(name: str) -> str | None:
    return next((os.environ[n] for n in (name, *_PLACE[name]) if n in os.environ), None)


@contextmanager
def joined() -> Generator[None]:
    """Work together inside, where several processes were started; where one ends too early, ForgetfilterError."""
    _refuse_split()
    if started() == 1 or _group.size > 1:
        _refuse_announced()
        yield
        return
    import torch
    import torch.distributed as dist

    os.environ |= {name: found for name in _PLACE if (found := _placed(name))}
    try:
        dist.init_process_group(
            "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo", timeout=PATIENCE
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{started()} processes were announced (WORLD_SIZE) and could not find each other: "
            f"{str(error).splitlines()[0]}. Start them with torchrun --nproc_per_node N -m forgetfilter …"
        ) from error
    _group.size, _group.rank, _group.alone = dist.get_world_size(), dist.get_rank(), False
    try:
        yield
        wait()
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise ForgetfilterError(ENDED) from error
    finally:
        _group.size, _group.rank, _group.alone = 1, 0, True
        dist.destroy_process_group()


# What accelerate sets in the environment of what it launches, and what it calls that.
_SPLITS = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}


def _refuse_split() -> None:
    """ConfigError where accelerate was asked to split one model over processes: each needs the whole here."""
    asked = [name for key, name in _SPLITS.items() if os.environ.get(key, "").lower() in ("true", "1", "yes")]
    if asked:
        raise ConfigError(
            f"accelerate is set to split the model over processes ({asked[0]}), and here each process needs the whole "
            "model. Use accelerate launch --multi_gpu, or torchrun --nproc_per_node N -m forgetfilter …; a model that "
            "does not fit one device may fit in 4 bits (--quantization nf4), with --tuning lora"
        )


def _refuse_announced() -> None:
    """ConfigError where accelerate was asked for several processes on a CPU and left starting them to MPI."""
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ and started() == 1:
        raise ConfigError(
            "accelerate launch --cpu starts one process, whatever --num_processes says, and leaves the others to MPI "
            "(--mpirun_hostfile). Start them with torchrun --nproc_per_node N -m forgetfilter …, or with "
            "--num_processes 1"
        )


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process is not there any more."""
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        word in said for word in ("gloo", "nccl", "connection closed by peer", "connection reset by peer")
    )


def led(work: Callable[[], Any]) -> Any:
    """What `work` gives in the first process, in all of them; it must be what JSON holds.

    Where it fails, the first raises the error, and the others leave with its exit code, without a word.
    """
    if _group.alone:
        return work()
    if _group.rank:
        code, value = _broadcast(None)
        if code:
            raise SystemExit(code)
        return value
    _group.alone = True
    try:
        value = work()
    except Exception as error:
        _broadcast([getattr(error, "exit_code", 1), None])
        raise
    finally:
        _group.alone = False
    return _broadcast([0, value])[1]


def agree(fingerprint: str, on: str) -> None:
    """ConfigError, in the first process, where not all have the same `fingerprint`; the others leave."""
    if _group.alone:
        return
    import torch
    import torch.distributed as dist

    mine = torch.frombuffer(bytearray(fingerprint.encode()), dtype=torch.uint8)
    all_of_them = [torch.empty_like(mine) for _ in range(_group.size)]
    dist.all_gather(all_of_them, mine)
    other = [i + 1 for i, one in enumerate(all_of_them) if not torch.equal(one, all_of_them[0])]

    def refuse() -> None:
        if other:
            raise ConfigError(
                f"processes {', '.join(map(str, other))} of {_group.size} have other {on} than the first; all need the "
                "same command and the same files"
            )

    led(refuse)


def wait() -> None:
    """Until all processes have come to this place."""
    if not _group.alone:
        summed([0.0])


def summed(values: list[float]) -> list[float]:
    """Each value, added up over the processes."""
    if _group.alone:
        return values
    import torch
    import torch.distributed as dist

    total = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(total)
    return total.tolist()


def _broadcast(given: Any) -> Any:
    import torch
    import torch.distributed as dist

    content = json.dumps(given).encode()
    length = torch.tensor([len(content)])
    dist.broadcast(length, 0)
    text: torch.Tensor = torch.zeros(int(length), dtype=torch.uint8)
    if _group.rank == 0:
        text = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    dist.broadcast(text, 0)
    return json.loads(bytes(text.tolist()))
