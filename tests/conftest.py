"""What tests share: one thread, no network, the real command, a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

# Before anything imports torch or the hub: threads of parallel processes spin against each other.
os.environ.update(
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    PIP_NO_INDEX="1",  # a model that is not in the cache folder is not fetched by a test
)

SOURCE = Path(__file__).resolve().parents[1] / "src"
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
]

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


@pytest.fixture(scope="session")
def smollm2() -> str:
    """The name of the real model; skips where it is not in the user's cache folder. Tests never fetch it."""
    from forgetfilter.models.spec import resolve

    if not resolve("smollm2").present:
        pytest.skip("smollm2 is not in the cache folder; forgetfilter models pull smollm2")
    return "smollm2"


def chromium() -> str | None:
    """The program, under the names it has."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; skips where it or the Python package playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not chromium():
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a file as a page; a dialog, a script error or a request beyond the file fails the test."""
    contexts, trouble = [], []

    def open_page(path: Path, **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("dialog", lambda dialog: (trouble.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: trouble.append(f"error {error}"))
        page.on("console", lambda message: trouble.append(f"console {message.text}"))
        page.on(
            "request", lambda request: trouble.append(request.url) if request.url != path.as_uri() else None
        )
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert trouble == []
