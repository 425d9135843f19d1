"""How threads wait for each other, decided before the library that starts them is imported."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_asleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have OpenMP's waiting threads sleep, before torch is imported; what the user set stands.

    By default they spin. On a core that somebody else uses, the thread that is waited for does not run, and the others
    burn the time that it needs: with two cores and seven other programs nano learned 90-170 tokens a second, and
    740-1,280 with threads asleep. One thread alone gave 700-1,120, so their number stays what torch finds: a run then
    does not depend on who else was there when it began.
    """
    if not any(name in environment for name in WAITING):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
