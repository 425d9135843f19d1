"""The report in a real browser: nothing of a row runs, the cut moves, rows are found, and all of it can be read.

Needs Chromium and the Python package playwright (`pip install playwright`; no browser download); skips without.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from forgetfilter.records import Decision
from forgetfilter.report import ReportRow, write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

HOSTILE = [
    "</script><script>window.hit=1</script>",
    "<img src=x onerror='window.hit=1'>",
    "\"><svg onload='window.hit=1'>",
    "</title></style><iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "<a href='javascript:window.hit=1'>x</a>",
]


@pytest.fixture
def show(visit, tmp_path: Path) -> Callable:
    """Write a report and open it."""

    def open_report(report: dict, rows: list[ReportRow], **options):
        path = tmp_path / "report.html"
        write_report(path, report, rows)
        return visit(path, **options)

    return open_report


def row(
    number: int, score: float | None, decision: Decision, text: str = "some words", **fields
) -> ReportRow:
    return ReportRow(
        id=f"id-{number}",
        row=number,
        prompt=fields.get("prompt", f"question {number}"),
        completion=text,
        decision=decision,
        score=score,
        forgetting=score,
        remembered={"learned": -0.5},
        reason=fields.get("reason", f"reason {number}"),
        tokens=fields.get("tokens", [(text, 0.0 if score is None else score)]),
    )


# Ten scores, 0.1 to 1.0; the cut at 0.75 leaves 0.8, 0.9 and 1.0 above it.
TEN = [row(i, (i + 1) / 10, "drop" if i >= 7 else "keep") for i in range(10)]
CUT = {"threshold": {"value": 0.75, "method": "fixed", "why": None}}


def test_hostile_rows_become_text_and_never_elements(show):
    rows = [row(i, 1.0 + i, "drop", text, prompt=text, reason=text) for i, text in enumerate(HOSTILE)]
    report = {
        **CUT,
        "verdict": HOSTILE[0],
        "input": {"file": HOSTILE[3]},
        "notes": HOSTILE,
        "limits": HOSTILE,
    }
    page = show(report, rows)
    page.check("#reveal")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    assert page.locator("img, iframe, svg[onload], a[href^=javascript]").count() == 0
    shown = page.locator(".completion").all_inner_texts()
    assert shown == HOSTILE[::-1]


def test_the_policy_stops_a_script_that_markup_would_have_let_in(browser, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, CUT, TEN)
    evil = "<script>window.hit=1</script><img src=x onerror='window.hit=1'>"
    path.write_text(path.read_text("utf-8").replace("<main>", f"<main>{evil}"), "utf-8")
    page = browser.new_page()
    refused = []
    page.on("console", lambda message: refused.append("Content Security Policy" in message.text))
    page.goto(path.as_uri())
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    assert page.locator("#would").inner_text().startswith("3 of 10")  # the page's own script still runs
    assert refused and all(refused)
    page.close()


def test_direction_overrides_are_shown_as_codes(show):
    page = show(CUT, [row(0, 1.0, "drop", "\u202egnp.exe")])
    assert page.locator(".completion .code").inner_text() == r"\u202e"


def test_the_cut_starts_at_the_runs_own_and_counts_the_rows_above_it(show):
    page = show(CUT, TEN)
    assert page.locator("#would").inner_text() == "3 of 10 scored rows would be dropped (30.0 %)"
    assert page.locator("#flags").inner_text() == "--threshold fixed --phi 0.75"


def test_a_typed_cut_counts_the_rows_above_it_and_names_the_value_to_pass(show):
    page = show(CUT, TEN)
    page.fill("#phi", "0.35")
    assert page.locator("#would").inner_text() == "7 of 10 scored rows would be dropped (70.0 %)"
    assert page.locator("#than").inner_text() == "4 more than lie above the cut of this run"
    assert page.locator("#flags").inner_text() == "--threshold fixed --phi 0.35"
    page.fill("#phi", "0.8")  # a row that scores exactly the cut stays
    assert page.locator("#would").inner_text().startswith("2 of 10")
    page.click("#back")
    assert page.locator("#would").inner_text().startswith("3 of 10")


def test_the_keyboard_moves_the_cut_from_one_end_to_the_other(show):
    page = show(CUT, TEN)
    page.focus("#slide")
    page.keyboard.press("Home")
    assert page.locator("#would").inner_text().startswith("9 of 10")  # 0.1, the lowest, is not above itself
    page.keyboard.press("End")
    assert page.locator("#would").inner_text().startswith("0 of 10")
    before = float(page.input_value("#phi"))
    page.keyboard.press("ArrowLeft")
    assert float(page.input_value("#phi")) < before
    assert page.locator("#would").inner_text().startswith("1 of 10")


def test_dragging_on_the_histogram_moves_the_cut_to_the_pointer(show):
    page = show(CUT, TEN)
    page.locator("#plot").scroll_into_view_if_needed()
    box = page.locator("#plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 100)
    page.mouse.up()
    # The axis runs from 0.1 to 1.0, so its middle is 0.55, below 0.6 to 1.0: five rows.
    assert float(page.input_value("#phi")) == pytest.approx(0.55, abs=0.01)
    assert page.locator("#would").inner_text().startswith("5 of 10")
    at = page.locator("#cut-line").get_attribute("x1")
    assert float(at.removesuffix("%")) == pytest.approx(50, abs=0.2)


def test_rows_say_what_would_become_of_them_at_the_moved_cut(show):
    page = show(CUT, TEN)
    assert page.locator(".change:visible").count() == 0
    page.fill("#phi", "0.95")
    # Dropped rows 0.8 and 0.9 would be kept; 1.0 stays dropped, kept rows stay kept. Rows out of sight are
    # laid out when the browser gets to it, so this waits.
    playwright.expect(page.locator(".change:visible")).to_have_text(["would be kept", "would be kept"])


def test_a_flagged_row_below_the_moved_cut_stays_flagged_and_one_not_judged_as_it_is(show):
    rows = [row(0, 0.9, "drop"), row(1, 0.7, "flag"), row(2, 0.6, "flag"), row(3, 0.95, "not judged")]
    page = show({"threshold": {"value": 0.75, "method": "fdr"}}, rows)
    assert (
        "0 of 0 kept rows, and 1 of 1 that were not judged;" in page.locator("#rows ~ p").first.inner_text()
    )
    page.fill("#phi", "0.65")
    playwright.expect(page.locator(".change:visible")).to_have_text(["would be dropped"])
    page.fill("#phi", "0.8")
    playwright.expect(page.locator(".change:visible")).to_have_count(0)


def test_without_a_cut_no_line_is_drawn_until_one_is_typed(show):
    page = show({"threshold": {"value": None}}, [row(i, i / 10, "keep") for i in range(5)])
    assert page.locator("h1").inner_text() == "Nothing to remove."
    assert page.locator("#would").inner_text() == "This run made no cut"
    assert not page.locator("#cut-text").is_visible()
    page.fill("#phi", "0.25")
    assert page.locator("#would").inner_text().startswith("2 of 5")
    assert page.locator("#cut-text").is_visible()


def test_beyond_the_exact_scores_a_typed_cut_moves_to_a_step_with_an_exact_count(show):
    rows = [row(i, i / 25_000, "keep", tokens=None) for i in range(25_000)]
    page = show({"threshold": {"value": 0.5}}, rows)
    page.fill("#phi", "0.25")
    # Row i scores i/25000; above 0.25 = 6250/25000 lie 25000 - 6251 rows.
    assert page.locator("#would").inner_text().startswith("18,749 of 25,000")


def test_row_text_is_blurred_and_unread_until_asked_for(show):
    page = show(CUT, TEN)
    first = page.locator(".row").first.locator(".completion")
    blur = "element => getComputedStyle(element).filter"
    assert "blur" in first.evaluate(blur) and first.evaluate("element => element.inert")
    page.locator(".peek input").first.check()
    assert first.evaluate(blur) == "none" and not first.evaluate("element => element.inert")
    last = page.locator(".row").last.locator(".completion")
    assert "blur" in last.evaluate(blur)
    page.check("#reveal")
    assert last.evaluate(blur) == "none" and not last.evaluate("element => element.inert")


def test_search_and_filters_leave_only_the_rows_that_match(show):
    rows = [row(0, 0.9, "drop", "Red APPLE"), row(1, 0.8, "drop", "pear"), row(2, 0.2, "keep", "apple pie")]
    page = show(CUT, rows)
    visible = page.locator("#rows-list > .row:visible")
    page.fill("#search", "apple")
    playwright.expect(visible).to_have_count(2)
    assert page.locator("#seen").inner_text() == "2 of the 3 rows on this page match."
    page.uncheck("[name=decision][value=keep]")
    playwright.expect(visible).to_have_count(1)
    page.fill("#search", "")
    playwright.expect(visible).to_have_count(2)


def test_without_javascript_everything_is_still_there_and_can_be_revealed(show):
    page = show(
        CUT,
        [*TEN, row(20, None, "unscored", "", reason="the completion is empty")],
        java_script_enabled=False,
    )
    assert page.locator("#rows-list > .row").count() == 10
    assert page.locator("noscript").inner_text() == "3 of 10 scored rows lie above the cut (30.0 %)."
    assert not page.locator("#search").is_visible() and not page.locator("#slide").is_visible()
    assert page.get_by_text("the completion is empty").is_visible()
    assert page.locator("#cut-text").is_visible()
    page.locator("#reveal").check()
    assert page.locator("#reveal").is_checked()


def test_the_theme_follows_the_system_until_the_reader_chooses(show):
    page = show(CUT, TEN, color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    assert page.locator("#theme").inner_text() == "Light page"
    page.click("#theme")
    light = page.evaluate(paper)
    assert light != dark and page.locator("#theme").inner_text() == "Dark page"
    page.emulate_media(color_scheme="light")
    assert page.evaluate(paper) == light


CONTRAST = """() => {
  const canvas = document.createElement("canvas"); canvas.width = canvas.height = 1;
  const brush = canvas.getContext("2d", {willReadFrequently: true});
  const pixel = (colours) => {
    brush.clearRect(0, 0, 1, 1);
    for (const colour of colours) { brush.fillStyle = colour; brush.fillRect(0, 0, 1, 1); }
    return [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const worst = {};
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !element.checkVisibility() || element.closest("script, style, noscript, title, [disabled]")) continue;
    const under = [];
    for (let e = element; e; e = e.parentElement) under.unshift(getComputedStyle(e).backgroundColor);
    const style = getComputedStyle(element), isSvg = element.namespaceURI.endsWith("svg");
    const [a, b] = [light(pixel(under)), light(pixel([...under, isSvg ? style.fill : style.color]))];
    const name = element.tagName.toLowerCase() + "." + element.className;
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    worst[name] = Math.min(worst[name] ?? 99, ratio);
  }
  return worst;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_at_4_5_to_1_on_every_shade_of_the_heat_map(show, scheme):
    shades = [(f"word{level} ", level / 8) for level in range(9)]
    text = "".join(piece for piece, _ in shades)
    rows = [
        row(0, 0.9, "drop", text, tokens=shades),
        row(1, 0.7, "flag", "a\u202eb", tokens=[("a\u202eb", 1.0)]),
        row(2, 0.1, "keep"),
        row(3, None, "unscored", ""),
    ]
    page = show(CUT, rows, color_scheme=scheme)
    page.check("#reveal")
    ratios = page.evaluate(CONTRAST)
    assert {f"span.h{level}" for level in range(1, 9)} <= set(ratios)
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("width", [320, 375, 1200])
def test_the_page_never_scrolls_sideways(show, width):
    long = "x" * 3000
    rows = [row(0, 0.9, "drop", long, prompt=long, reason=long), row(1, None, "unscored", long)]
    settings = [
        {"name": "a_rather_long_name_of_a_setting", "value": long, "origin": "default for this model"}
    ]
    page = show(
        {**CUT, "command": long, "model": long, "verdict": long, "settings": settings, "hashes": {"a": long}},
        rows,
        viewport={"width": width, "height": 800},
    )
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_printing_unfolds_long_rows_and_leaves_blurred_text_out(show):
    page = show(CUT, [row(0, 0.9, "drop", "word " * 400)])
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.emulate_media(media="print")
    assert not page.locator(".completion").is_visible()
    assert page.locator(".unprinted").is_visible()
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


def test_every_control_is_reached_with_the_tab_key(show):
    page = show(CUT, TEN)
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"theme", "slide", "phi", "reveal", "search"} <= reached
