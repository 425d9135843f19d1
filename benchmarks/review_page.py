"""The review page of a large run, in a real browser: how soon it shows and answers, and what a kill leaves.

    python benchmarks/review_page.py --rows 100000

Needs Chromium and the Python package playwright. Times are the browser's own, from what a person does to the first
frame that shows what came of it. The run is made of its files alone, as the tests make it; no model is loaded.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sections import RESULTS, make_section, markdown

from forgetfilter import intervals
from forgetfilter.errors import ConfigError
from forgetfilter.review.decisions import NAME, Decisions

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from conftest import QUIET, chromium
from pages import Served
from reviewed import many

FIRST_ROWS = """
new MutationObserver((_, watching) => {
  if (!document.querySelector(".item")) return;
  watching.disconnect();
  requestAnimationFrame(() => { window.firstRows = performance.now(); });
}).observe(document, { childList: true, subtree: true });
"""
# ACT is done; the frame after the change of what SELECTOR names ends it; milliseconds.
TIMED = """
() => new Promise((done) => {
  const began = performance.now();
  new MutationObserver((_, watching) => {
    watching.disconnect();
    requestAnimationFrame(() => done(performance.now() - began));
  }).observe(document.querySelector("SELECTOR"), { childList: true, subtree: true, characterData: true });
  const named = (id) => document.getElementById(id);
  ACT
})
"""
ACTS: dict[str, tuple[str, Callable[[random.Random], str], float]] = {
    "the cut moved: new counts": (
        "#counts",
        lambda draw: (
            f"named('slide').value = {draw.randint(0, 1000)}; named('slide').dispatchEvent(new Event('input'));"
        ),
        0.6,  # seconds until the list that follows the cut has come too
    ),
    "another page of the list": (
        "#list",
        lambda draw: (
            f"named('number').value = {draw.randint(1, 900)}; named('number').dispatchEvent(new Event('change'));"
        ),
        0.2,
    ),
    "next row opened by key": (
        "#detail",
        lambda draw: "dispatchEvent(new KeyboardEvent('keydown', {key: 'j'}));",
        0.1,
    ),
}


def visits(browser: Any, url: str, times: int) -> list[float]:
    """Milliseconds from asking for the page to the frame that shows rows; nothing is kept between visits."""
    took = []
    for _ in range(times):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.add_init_script(FIRST_ROWS)
        page.goto(url)
        page.wait_for_selector(".item")
        page.wait_for_timeout(200)
        took.append(page.evaluate("window.firstRows"))
        context.close()
    return took


def acts(browser: Any, url: str, times: int) -> dict[str, list[float]]:
    """Milliseconds of each of ACTS."""
    page, draw, took = browser.new_page(), random.Random(0), dict[str, list[float]]()
    page.goto(url)
    page.wait_for_selector("#detail header b")
    for name, (selector, act, pause) in ACTS.items():
        for _ in range(times):
            took.setdefault(name, []).append(
                page.evaluate(TIMED.replace("SELECTOR", selector).replace("ACT", act(draw)))
            )
            page.wait_for_timeout(1000 * pause)
    page.close()
    return took


def killed(folder: Path, rows: int, decisions: int, seed: int) -> tuple[int, int, float]:
    """Decides rows until the server is killed (kill -9) after about so many replies.

    (decisions that were acknowledged, those of them that a new server has, milliseconds of one).
    """
    (folder / NAME).unlink(missing_ok=True)
    server, said = served(folder), list[int]()
    enough = decisions + random.Random(seed).randint(0, 99)

    def kill() -> None:
        while len(said) < enough:
            time.sleep(0.0005)
        os.kill(server.process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    began = time.perf_counter()
    for row in random.Random(seed).sample(range(rows), rows):
        try:
            body = {"row": row, "verdict": "clean", "by": "ada", "expects": None}
            if server.ask("/api/decide", body)[0] == 200:
                said.append(row)
        except OSError:  # it is gone
            break
    took = (time.perf_counter() - began) / len(said)
    killer.join()
    server.end()
    found = Decisions(folder / NAME, rows).given
    return len(said), sum(row in found for row in said), 1000 * took


def served(folder: Path) -> Served:
    return Served(
        {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        "review",
        str(folder),
        "--by",
        "ada",
    )


def measured(a: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """What is timed -> its times, in milliseconds."""
    from playwright.sync_api import sync_playwright

    starts, servers = list[float](), list[Served]()
    for _ in range(a.starts):
        began = time.perf_counter()
        servers.append(served(folder))
        starts.append(1000 * (time.perf_counter() - began))
        if len(servers) > 1:
            servers.pop(0).end()
    (server,) = servers
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium(), args=QUIET)
            early = visits(browser, server.url, a.times)
            time.sleep(a.pause)
            late = visits(browser, server.url, a.times)
            rest = acts(browser, server.url, a.times)
            browser.close()
    finally:
        server.end()
    return {
        "first rows on screen, the server just started": early, "first rows on screen, a minute later": late,
        **rest, "the command, until it prints the address": starts,
    }  # fmt: skip


def line_of(name: str, took: Sequence[float]) -> tuple[str, ...]:
    mean = intervals.mean_over_seeds(took)
    if mean is None:
        raise ConfigError(f"{name}: nothing was measured")
    span = f" ({mean.low:,.0f}-{mean.high:,.0f})" if mean.low is not None and mean.high is not None else ""
    return (
        name,
        f"{mean.value:,.0f}{span}",
        f"{statistics.median(took):,.0f}",
        f"{max(took):,.0f}",
        str(len(took)),
    )


def section(a: argparse.Namespace) -> str:
    folder = a.work / f"run-{a.rows}"
    if not (folder / "report.json").exists():
        many(folder, a.rows)
    (folder / NAME).unlink(missing_ok=True)
    lines = [line_of(name, took) for name, took in measured(a, folder).items()]
    with tempfile.TemporaryDirectory() as work:
        small = many(Path(work) / "run", 2 * a.decisions)
        kills = [killed(small, 2 * a.decisions, a.decisions, seed) for seed in range(a.kills)]
    acknowledged, found = sum(k[0] for k in kills), sum(k[1] for k in kills)
    return "\n\n".join([
        "### The review page", f"    python benchmarks/review_page.py --rows {a.rows}",
        f"A run of {a.rows:,} rows, Chromium without a screen, {os.cpu_count()} cores. Milliseconds; mean with its "
        "95 % interval.",
        markdown(("what", "mean", "median", "slowest", "times"), lines),
        f"Killed with kill -9 while decisions came in, {a.kills} times after {a.decisions:,} or more: of "
        f"{acknowledged:,} acknowledged decisions {found:,} were there afterwards. One took "
        f"{statistics.fmean(k[2] for k in kills):.0f} ms, the request and the write to the disk.",
    ])  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=20, help="How often each thing is timed.")
    parser.add_argument("--starts", type=int, default=5, help="How often the command is started.")
    parser.add_argument("--decisions", type=int, default=1_000, help="Before each kill, at least.")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument(
        "--pause", type=float, default=45.0, help="Seconds between the first visits and the later ones."
    )
    parser.add_argument("--work", type=Path, default=Path("build/review_page"))
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    return make_section(RESULTS, "review-page", lambda: section(a))


if __name__ == "__main__":
    sys.exit(main())
