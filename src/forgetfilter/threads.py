"""How many threads to compute with, decided before the library that starts them is imported.

OpenMP's threads spin while they wait for each other. On a core that somebody else uses, the one that is waited for
does not run, and the others burn the time that it needs: beside two busy programs a run took twenty times longer.
"""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping
from pathlib import Path

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
LOOK = 0.15  # seconds; the kernel counts in hundredths


def share_the_machine(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have waiting threads sleep, and no more threads than there are free cores; what the user set stands.

    For torch to notice, this comes before its import. Another number of threads changes results by rounding.
    """
    if not any(name in environment for name in WAITING):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    if any(name in environment for name in COUNTS):
        return
    try:
        cores = _cores()
        before = _idle_seconds()
        time.sleep(LOOK)
        after = _idle_seconds()
    except (OSError, ValueError, AttributeError):
        return  # no Linux: the library's own number
    free = free_cores(cores, {cpu: (after[cpu] - before[cpu]) / LOOK for cpu in after if cpu in before})
    if free < len(cores):
        environment["OMP_NUM_THREADS"] = str(free)


def free_cores(cores: list[frozenset[int]], idle: dict[int, float]) -> int:
    """How many of `cores` (each the set of its hardware threads) nobody uses, one at least.

    `idle`: hardware thread -> its idle share of the time, 0 to 1. A core is as free as its busiest thread.
    """
    return max(1, round(sum(min(1.0, *(idle.get(cpu, 1.0) for cpu in core)) for core in cores)))


def _cores() -> list[frozenset[int]]:
    """The cores that this process may use."""
    allowed = os.sched_getaffinity(0)
    siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    cores = set()
    for cpu in allowed:
        path = Path(siblings.format(cpu))
        cores.add((_listed(path.read_text()) if path.exists() else frozenset({cpu})) & allowed)
    return list(cores)


def _listed(text: str) -> frozenset[int]:
    """`0-1,4` -> {0, 1, 4}."""
    ends = [part.split("-") for part in text.strip().split(",")]
    return frozenset(cpu for first, *last in ends for cpu in range(int(first), int((last or [first])[0]) + 1))


def _idle_seconds() -> dict[int, float]:
    """Hardware thread -> seconds it has been idle or waiting for a disk since the machine started."""
    ticks, idle = os.sysconf("SC_CLK_TCK"), {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *counts = line.split()
        if name.startswith("cpu") and name[3:].isdigit():
            idle[int(name[3:])] = (int(counts[3]) + int(counts[4])) / ticks
    return idle
