"""`vet --page`: the real server, asked by HTTP and in a real browser."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import Served

from forgetfilter.data import formats
from forgetfilter.filter import propose
from forgetfilter.review import vet_page

HOSTILE = [
    "</script><script>window.hit=1</script><img src=x onerror='window.hit=1'>",
    "abc \u202egnp.exe \x1b[31mred\x1b[0m",
    "زرافة في الحديقة",
    "word " * 200_000,
]
ROWS = 24


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    path = tmp_path / "custom.jsonl"
    texts = [*HOSTILE, *(f"It is {i + 1}." for i in range(ROWS - len(HOSTILE)))]
    path.write_text(
        "".join(json.dumps({"prompt": f"Question {i}?", "completion": t}) + "\n" for i, t in enumerate(texts))
    )
    return path


@pytest.fixture
def served(environment) -> Iterator[Callable[..., Served]]:
    servers: list[Served] = []

    def start(custom: Path, *arguments: str) -> Served:
        servers.append(Served(environment, "vet", str(custom), "--page", *arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def verdicts(custom: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in custom.with_suffix(".vetted.jsonl").read_text().splitlines()]


def test_the_page_asks_what_the_terminal_would_and_a_kill_loses_the_row_on_screen_alone(custom, served):
    order = propose.random_order(ROWS, 0).tolist()
    server = served(custom, "--random", "--rows", "20", "--by", "ada")
    shown = []
    now = server.ask("/api/now")[1]
    for verdict in ("clean", "unsafe", "unsure"):
        shown.append(now["row"])
        note = "line\n two" if verdict == "unsafe" else ""
        _, now = server.ask("/api/judge", {"row": now["row"], "verdict": verdict, "note": note})
    assert (now["judged"], now["wanted"], now["drawn"]) == (3, 20, "random")
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    assert [(v["row"], v["verdict"], v.get("note"), v["by"]) for v in verdicts(custom)] == [
        (shown[0], "clean", None, "ada"), (shown[1], "unsafe", "line two", "ada"), (shown[2], "unsure", None, "ada"),
    ]  # fmt: skip
    again = served(custom, "--random", "--rows", "20")
    assert again.ask("/api/now")[1]["row"] == order[3] and shown == order[:3]
    assert again.ask("/api/back")[1]["row"] == shown[2] and len(verdicts(custom)) == 2
    assert again.ask("/api/quit")[0] == 200
    assert again.process.wait(20) == 0
    assert "2 verdicts; 1 unsafe seen" in again.end()


def test_nobody_judges_a_row_that_is_not_on_screen(custom, served):
    server = served(custom, "--random", "--rows", "2")
    first = server.ask("/api/now")[1]["row"]
    _, now = server.ask("/api/judge", {"row": first, "verdict": "clean"})
    status, said = server.ask("/api/judge", {"row": first, "verdict": "unsafe"})
    assert status == 409 and "another window" in said["error"] and said["now"]["row"] == now["row"]
    assert server.ask("/api/judge", {"verdict": "clean"})[0] == 409
    assert server.ask("/api/judge", {"row": now["row"], "verdict": "purple"})[0] == 400
    _, done = server.ask("/api/judge", {"row": now["row"], "verdict": "clean"})
    assert done["row"] is None and len(verdicts(custom)) == 2
    assert server.ask("/api/judge", {"row": None, "verdict": "clean"})[0] == 409


def test_rows_are_for_the_token_on_this_machines_own_names_alone(custom, served):
    server = served(custom, "--random")
    assert server.ask("/", method="GET")[0] == 200
    assert "default-src 'none'" in server.headers["content-security-policy"]
    assert server.ask("/api/now", authorization="Bearer wrong")[0] == 401
    assert server.ask("/api/now", host="evil.example:80")[0] == 421


def test_after_the_random_part_rows_are_proposed_and_ten_more_can_be_asked_for(custom, served):
    server = served(custom, "--rows", "24", "--seed", "1")
    now = server.ask("/api/now")[1]
    while now["row"] is not None:
        _, now = server.ask("/api/judge", {"row": now["row"], "verdict": "clean"})
    assert now["judged"] == ROWS and len({v["row"] for v in verdicts(custom)}) == ROWS
    assert server.ask("/api/more")[1]["row"] is None  # no row is left
    server.ask("/api/quit")
    assert "Every row has a verdict." in server.end()


def test_a_long_turn_is_folded_in_its_middle_and_unfolded_when_asked():
    text = "a" * 5000 + "\u202e" + "b" * 5000
    folded = vet_page.turn("user", text, whole=False)
    assert folded["left"] == 10_001 - 2200
    assert (folded["head"][0][0], folded["tail"][0][0]) == ("a" * 1600, "b" * 600)
    whole = vet_page.turn("user", text, whole=True)
    assert whole["left"] == 0 and [s[0] for s in whole["head"]] == ["a" * 5000, "\\u202e", "b" * 5000]


def test_in_a_browser_keys_alone_judge_and_no_row_acts(custom, served, browser):
    playwright = pytest.importorskip("playwright.sync_api")
    server, trouble = served(custom, "--random", "--rows", str(ROWS)), []
    page = browser.new_page()
    page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda message: trouble.append(message.text))
    root = server.url.partition("#")[0]
    page.on("request", lambda r: None if r.url.startswith((root, "data:,")) else trouble.append(r.url))
    page.goto(server.url)
    for count, row in enumerate(propose.random_order(ROWS, 0).tolist()):
        playwright.expect(page.locator("#row")).to_have_text(f"row {row}")
        if row == 1:
            assert page.locator("#turns .code").all_inner_texts() == ["\\u202e", "\\x1b", "\\x1b"]
        if row == 2:
            assert page.locator("#turns .text").last.evaluate("e => getComputedStyle(e).direction") == "rtl"
        if row == 3:
            assert len(page.locator("#turns").inner_text()) < 5_000
            page.keyboard.press("m")
            playwright.expect(page.get_by_role("button", name="more characters")).to_have_count(0)
            assert len(page.locator("#turns").inner_text()) > 900_000
        if count == 2:
            page.keyboard.press("b")
            playwright.expect(page.locator("#counts")).to_contain_text("1 of 24 judged")
            page.keyboard.press("u")
            playwright.expect(page.locator("#row")).to_have_text(f"row {row}")
        if count == 3:
            page.keyboard.press("n")
            page.keyboard.type("unclear, see c")
            page.keyboard.press("Enter")
        page.keyboard.press("s" if count == 3 else "c")
    playwright.expect(page.locator("#done")).to_have_text(
        f"Every row has a verdict. The verdicts are in {custom.with_suffix('.vetted.jsonl')}."
    )
    page.keyboard.press("q")
    playwright.expect(page.locator("#over")).to_contain_text("Your verdicts are on disk")
    assert page.evaluate("window.hit") is None and trouble == []
    assert page.locator("#turns img, #turns script").count() == 0 and "#" not in page.url
    page.close()
    said = verdicts(custom)
    assert [v["verdict"] for v in said[:4]] == ["clean", "unsafe", "clean", "unsure"]
    assert said[3]["note"] == "unclear, see c" and {v["verdict"] for v in said[4:]} == {"clean"}
    assert server.process.wait(20) == 0
    assert [v["row"] for v in said] == propose.random_order(ROWS, 0).tolist()
    assert len(formats.read(custom).rows) == ROWS
