"""What every test needs: one thread, no network, the real command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

# Before anything imports torch or the hub: threads of parallel processes spin against each other.
os.environ.update(
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
)

SOURCE = Path(__file__).resolve().parents[1] / "src"

try:
    from hypothesis import settings
except ImportError:
    pass
else:
    # The first example may import torch: no deadline.
    settings.register_profile("forgetfilter", deadline=None, derandomize=True)
    settings.load_profile("forgetfilter")


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a child process that finds this source tree."""
    path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "COLUMNS": "110"}


@pytest.fixture
def command(
    environment: Mapping[str, str], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m forgetfilter …` for real, in an empty folder."""

    def run(
        *arguments: str, timeout: float = 300, **environment_too: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "forgetfilter", *arguments],
            cwd=tmp_path,
            env={**environment, **environment_too},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
