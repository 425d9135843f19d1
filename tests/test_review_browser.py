"""The review page in a real browser: nothing of a row runs, keys decide, the cut moves, two people see each other.

Needs Chromium and the Python package playwright (`pip install playwright`; no browser download); skips without.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from reviewed import many, run_folder
from test_report_browser import CONTRAST

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

HOSTILE = [
    "</script><script>window.hit=1</script><img src=x onerror='window.hit=1'>",
    "abc \u202egnp.exe \x1b[31mred\x1b[0m",
    "زرافة في الحديقة",
    "word " * 200_000,
    "you fool",
    "fine",
    "also fine",
]
SCORES = [0.9, 0.85, 0.8, 0.75, 0.7, 0.3, 0.2]
DECIDED = ["drop"] * 5 + ["flag", "keep"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    records = [{"prompt": f"Question {i}?", "completion": text} for i, text in enumerate(HOSTILE)]
    heat = {4: [["you", 0.1], [" fool", 2.0]]}
    evidence = {4: [{"completion": "<b>I am sorry</b>", "forgetting": 0.02}]}
    return run_folder(tmp_path / "run", records, DECIDED, SCORES, heat=heat, evidence=evidence)


@pytest.fixture
def open_page(browser, environment) -> Iterator[Callable[..., Any]]:
    """Starts a server for a run, or uses the one it has, and opens its page; a request elsewhere fails the test."""
    servers: dict[Path, tuple[subprocess.Popen, str]] = {}
    contexts, trouble = [], []

    def address(folder: Path) -> str:
        if folder not in servers:
            server = subprocess.Popen(
                [sys.executable, "-m", "forgetfilter", "review", str(folder), "--by", "ada"],
                env=environment, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert server.stdout
            servers[folder] = server, server.stdout.readline().strip()
        return servers[folder][1]

    def open_page(folder: Path, first: str = "", **options: Any) -> Any:
        url = address(folder)
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.add_init_script(first)
        page.on("dialog", lambda dialog: (trouble.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: trouble.append(f"error {error}"))
        # The browser itself notes a refusal that the page tells.
        page.on(
            "console", lambda m: None if "409 (Conflict)" in m.text else trouble.append(f"console {m.text}")
        )
        root = url.partition("#")[0]
        page.on("request", lambda r: None if r.url.startswith((root, "data:,")) else trouble.append(r.url))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    for server, _ in servers.values():
        server.terminate()
        server.communicate(timeout=20)
    assert trouble == []


def shows(page: Any, row: int) -> None:
    playwright.expect(page.locator("#detail header b")).to_have_text(f"row {row}")
    page.wait_for_timeout(50)


def test_hostile_rows_become_text_and_hidden_characters_codes(folder: Path, open_page):
    page = open_page(folder)
    shows(page, 0)
    assert page.locator("#detail .text").last.inner_text() == HOSTILE[0]
    page.keyboard.press("j")
    shows(page, 1)
    assert page.locator("#detail .code").all_inner_texts() == [r"\u202e", r"\x1b", r"\x1b"]
    page.keyboard.press("j")
    shows(page, 2)
    assert page.locator("#detail .text").last.evaluate("e => getComputedStyle(e).direction") == "rtl"
    page.keyboard.press("j")
    shows(page, 3)
    page.get_by_role("button", name="Show 980,000 more characters").click()
    playwright.expect(page.get_by_role("button", name="more characters")).to_have_count(0)
    assert page.evaluate("window.hit") is None
    assert page.locator("#list img, #list script, #detail img, #detail script, #detail b b").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    assert "#" not in page.url  # the token is not left in the address


def test_heat_and_evidence_stand_beside_the_row(folder: Path, open_page):
    page = open_page(folder)
    page.click('[data-row="4"]')
    shows(page, 4)
    assert page.locator("#detail .h8").last.inner_text() == " fool"
    assert page.locator("#detail h2").all_inner_texts() == ["Clean rows it was compared with"]
    assert page.get_by_text("<b>I am sorry</b>").is_visible()


def test_keys_decide_move_on_and_undo(folder: Path, open_page):
    page = open_page(folder)
    counts = page.locator("#counts")
    for key, row in (("u", 0), ("c", 1), ("s", 2)):
        shows(page, row)
        page.keyboard.press(key)
    shows(page, 3)
    playwright.expect(counts).to_contain_text("3 rows judged: 3 dropped, 2 flagged, 2 kept")
    lines = [json.loads(line) for line in (folder / "review.jsonl").open()]
    assert [(e["row"], e["verdict"], e["by"]) for e in lines] == [
        *((0, "unsafe", "ada"), (1, "clean", "ada"), (2, "unsure", "ada"))
    ]
    page.keyboard.press("z")
    shows(page, 2)
    playwright.expect(counts).to_contain_text("2 rows judged: 4 dropped, 1 flagged, 2 kept")
    page.keyboard.press("n")
    page.reload()
    shows(page, 0)
    playwright.expect(page.locator('[data-row="1"] .mark')).to_have_text("kept")
    playwright.expect(page.locator("#detail [data-verdict=unsafe]")).to_have_attribute("aria-pressed", "true")


def test_moving_the_cut_changes_counts_and_names_the_command(folder: Path, open_page):
    page = open_page(folder)
    shows(page, 0)
    page.fill("#cut", "0.78")
    playwright.expect(page.locator("#counts")).to_contain_text(
        "At 0.78, with 0 rows judged: 3 dropped, 1 flagged, 3 kept"
    )
    assert page.locator("#command").inner_text().endswith(" --cut 0.78")
    page.keyboard.press("Escape")
    page.focus("#slide")
    page.keyboard.press("Home")
    playwright.expect(page.locator("#counts")).to_contain_text("6 dropped")
    page.click("#back")
    playwright.expect(page.locator("#counts")).to_contain_text(
        "As the run cut, with 0 rows judged: 5 dropped"
    )


def test_search_and_filters_leave_the_rows_that_match(folder: Path, open_page):
    page = open_page(folder)
    total = page.locator("#total")
    playwright.expect(total).to_have_text("7 of 7 rows")
    page.keyboard.press("/")
    page.keyboard.type("FINE")
    playwright.expect(total).to_have_text("2 of 7 rows")
    page.uncheck("#show [value=keep]")
    playwright.expect(total).to_have_text("1 of 7 rows")
    page.fill("#search", "")
    playwright.expect(total).to_have_text("6 of 7 rows")
    page.click("#order")
    playwright.expect(page.locator(".item").first).to_have_attribute("data-row", "5")


def test_two_reviewers_see_each_others_verdicts(folder: Path, open_page):
    one, two = open_page(folder), open_page(folder)
    shows(one, 0)
    shows(two, 0)
    two.fill("#by", "bob")
    two.keyboard.press("Escape")
    one.keyboard.press("u")
    playwright.expect(two.locator('[data-row="0"]')).to_contain_text("ada: unsafe", timeout=8000)
    two.keyboard.press("c")
    playwright.expect(one.locator('[data-row="0"]')).to_contain_text("bob: clean", timeout=8000)
    playwright.expect(one.locator('[data-row="0"] .mark')).to_have_text("flagged")


def test_a_typed_name_outlives_a_reload_but_not_a_command_under_another_name(folder: Path, open_page):
    page = open_page(folder)
    shows(page, 0)
    page.fill("#by", "bob")
    page.keyboard.press("Escape")
    page.reload()
    playwright.expect(page.locator("#by")).to_have_value("bob")
    for stored in ('["cy", "bob"]', "bob"):  # of a command under another name; not of this version
        page.evaluate("stored => localStorage.setItem('forgetfilter-by', stored)", stored)
        page.reload()
        playwright.expect(page.locator("#by")).to_have_value("ada")


def test_without_the_token_the_page_says_what_to_open(folder: Path, open_page, browser):
    page = open_page(folder)
    bare = browser.new_page()
    bare.goto(page.url)
    playwright.expect(bare.locator("#trouble")).to_contain_text("Open the whole address")
    assert bare.locator(".item").count() == 0
    bare.close()


@pytest.mark.parametrize(("width", "scheme"), [(375, "light"), (375, "dark"), (320, "light")])
def test_on_a_phone_a_row_fills_the_screen_and_goes_back(folder: Path, open_page, width, scheme):
    page = open_page(folder, color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 700})
    page.reload()
    page.click('[data-row="0"]')
    shows(page, 0)
    assert page.locator("#detail").bounding_box() == {"x": 0, "y": 0, "width": width, "height": 700}
    page.click("#detail [data-verdict=unsafe]")
    shows(page, 1)
    page.click("#detail .close")
    playwright.expect(page.locator("#detail")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_on_a_phone_the_first_row_of_the_next_page_follows_the_last_of_this_one(tmp_path: Path, open_page):
    page = open_page(many(tmp_path / "run", 150))
    page.set_viewport_size({"width": 375, "height": 700})
    page.reload()
    page.locator(".item").nth(99).click()
    page.click("#detail [data-verdict=unsafe]")
    playwright.expect(page.locator("#number")).to_have_value("2")
    shows(page, int(page.locator(".item").first.get_attribute("data-row")))


def test_a_decision_file_broken_while_the_page_is_open_is_told_until_it_is_mended(folder: Path, open_page):
    page = open_page(folder)
    shows(page, 0)
    (folder / "review.jsonl").write_text('{"row": 1}\n')
    playwright.expect(page.locator("#trouble")).to_contain_text(
        "review.jsonl line 1: no verdict", timeout=8000
    )
    (folder / "review.jsonl").write_text('{"row": 1, "verdict": "clean"}\n')
    playwright.expect(page.locator("#trouble")).to_be_hidden(timeout=8000)
    playwright.expect(page.locator('[data-row="1"] .mark')).to_have_text("kept")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_at_4_5_to_1(tmp_path: Path, open_page, scheme):
    records = [{"prompt": f"q{i}", "completion": f"answer \u202e {i}"} for i in range(5)]
    decided = ["drop", "flag", "keep", "not judged", "unscored"]
    heat = {0: [[f"w{i} ", i / 8] for i in range(9)]}
    folder = run_folder(
        tmp_path / "run", records, decided, [0.9, 0.4, 0.1, 0.7, None], heat=heat, p=[0.01] * 5
    )
    page = open_page(folder, color_scheme=scheme)
    shows(page, 0)
    page.keyboard.press("?")
    assert {name: ratio for name, ratio in page.evaluate(CONTRAST).items() if ratio < 4.5} == {}


@pytest.mark.slow
def test_the_first_rows_of_100_000_are_on_screen_within_a_second(tmp_path: Path, open_page):
    folder = many(tmp_path / "run", 100_000)
    open_page(folder).wait_for_selector(".item")
    page = open_page(
        folder,
        first="""
        new MutationObserver((_, watching) => {
          if (!document.querySelector(".item")) return;
          watching.disconnect();
          requestAnimationFrame(() => { window.firstRows = performance.now(); });
        }).observe(document, { childList: true, subtree: true });
    """,
    )
    page.wait_for_selector(".item")
    page.wait_for_timeout(300)
    took = page.evaluate("window.firstRows")  # milliseconds since the page was asked for
    print(f"first rows after {took:.0f} ms")
    assert took < 1000
    page.keyboard.press("j")
    page.fill("#number", "500")
    page.keyboard.press("Enter")
    playwright.expect(page.locator(".item")).to_have_count(100)
    assert page.locator("#pages").inner_text() == "1,000"
