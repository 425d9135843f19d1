"""How threads wait for each other and how much is kept for later, decided before torch is imported."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SPIN = "20000"  # turns of a waiting thread before it sleeps


def wait_asleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have OpenMP's waiting threads spin for an instant and then sleep, before torch is imported; what the user set
    stands.

    By default they spin much longer. On a core that somebody else uses, the thread that is waited for does not run, and
    the others burn the time that it needs: with two cores and seven other programs nano learned 90-170 tokens a second,
    and 740-1,280 with threads that sleep at once. But work comes every few microseconds, and waking costs, too. Short
    rows with SmolLM2 on two idle cores: 245-266 tokens a second asleep at once, 263-276 after 2,000 turns, 315-342
    after 20,000, 358 by default; beside two busy programs 151 and, after 20,000 turns, 120.
    """
    if not any(name in environment for name in WAITING):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment["GOMP_SPINCOUNT"] = SPIN


def keep_little(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have oneDNN keep the programs of its last 64 shapes instead of 1,024; what the user set stands.

    Batches of mixed lengths have ever new shapes. A filter of 150 rows of 80 tokens with SmolLM2 came to 4.5 GB, with
    64 to 3.3 GB, in the same processor time. With none kept, learning takes three times as long.
    """
    environment.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
