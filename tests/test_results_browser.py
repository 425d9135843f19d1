"""The results page in a real browser: tables sort, plots are read at any width and theme, nothing is fetched.

Needs Chromium and the Python package playwright (`pip install playwright`; no browser download); skips without.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import pytest
from test_report_browser import CONTRAST, HOSTILE

from forgetfilter.intervals import Estimate, wilson
from forgetfilter.report import plots
from forgetfilter.report.svg import Svg
from forgetfilter.report.tables import Column, Table, page

TABLE = Table(
    "Defences",
    [
        Column("name", "Defence"),
        Column("toxic", "Toxic", "lower"),
        Column("f1", "Task F1", "higher"),
        Column("rows", "Rows"),
    ],
    [
        {"name": "none", "toxic": wilson(40, 100), "f1": 0.61, "rows": 2000},
        {"name": "self_correction", "toxic": None, "f1": None, "rows": None},
        {"name": "classifier", "toxic": wilson(9, 100), "f1": 0.59, "rows": 900},
        {"name": "forgetfilter", "toxic": wilson(5, 100), "f1": 0.62, "rows": 10000},
    ],
)
ROUNDS = dict(enumerate(["start", *(f"after {kind} {i}" for i in (1, 2, 3) for kind in ("noisy", "safe"))]))
PLOTS = [
    plots.lines(
        [
            plots.Series(
                f"class {i}",
                range(9),
                [0.5 + i / 50 - x / 99 for x in range(9)],
                [0.4] * 9,
                [0.7] * 9,
            )
            for i in range(7)
        ],
        title="Curves that end close together, under a title that needs more than a line",
        x_label="Review steps",
        y_label="Remembered (larger is better remembered)",
        y_range=(0, 1),
    ),
    plots.lines(
        [plots.Series("without filtering, as a long name", list(ROUNDS), [0.1, 0.4, 0.1, 0.4, None, 0.4, 0.1])],
        title="Rounds",
        x_label="After session",
        y_label="Share unsafe",
        x_ticks=ROUNDS,
    ),
    plots.lines([plots.Series("one", [5e9], [12345.6])], title="One", x_label="tokens", y_label="loss"),
    plots.bars(
        {
            metric: {
                "none": Estimate(0.4, 0.3, 0.5, 90),
                "self_correction (trained)": -0.1,
                "forgetfilter": None,
            }
            for metric in ("Toxic", "Biased")
        },
        title="Bars",
        value_label="Share",
        emphasis=["none"],
    ),
]  # fmt: skip


@pytest.fixture
def show(visit, tmp_path: Path) -> Callable:
    """Write a page and open it."""

    def open_results(sections: Sequence[Table | Svg | str], title: str = "Results", **options):
        path = tmp_path / "results.html"
        path.write_text(page(title, sections, subtitle=title), "utf-8")
        return visit(path, **options)

    return open_results


def names(shown) -> list[str]:
    return [text.split("_")[0] for text in shown.locator("tbody th").all_inner_texts()]


GIVEN = ["none", "self", "classifier", "forgetfilter"]


def test_a_click_sorts_the_best_first_then_last_and_then_restores_the_order(show):
    shown = show([TABLE])
    head = shown.locator("thead th", has_text="Toxic")
    head.locator("button").click()
    assert names(shown) == ["forgetfilter", "classifier", "none", "self"]
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert names(shown) == ["none", "classifier", "forgetfilter", "self"]  # not measured is last both ways
    assert head.get_attribute("aria-sort") == "descending"
    head.locator("button").click()
    assert names(shown) == GIVEN and head.get_attribute("aria-sort") is None


def test_where_higher_is_better_the_first_click_puts_the_highest_first(show):
    shown = show([TABLE])
    shown.locator("thead th", has_text="Toxic").locator("button").click()
    head = shown.locator("thead th", has_text="Task F1")
    head.locator("button").click()
    assert names(shown) == ["forgetfilter", "none", "classifier", "self"]
    assert shown.locator("th[aria-sort]").count() == 1 and head.get_attribute("aria-sort") == "descending"


def test_numbers_sort_as_numbers_and_names_as_words(show):
    shown = show([TABLE])
    shown.locator("thead th", has_text="Rows").locator("button").click()
    assert names(shown) == ["classifier", "none", "forgetfilter", "self"]  # 900, 2,000, 10,000, none
    shown.locator("thead th", has_text="Defence").locator("button").click()
    assert names(shown) == ["classifier", "forgetfilter", "none", "self"]


def test_the_keyboard_reaches_every_header_and_sorts(show):
    shown = show([TABLE])
    reached = []
    for _ in range(8):
        shown.keyboard.press("Tab")
        reached.append(shown.evaluate("document.activeElement.textContent.slice(0, 5)"))
        if reached[-1] == "Toxic":
            shown.keyboard.press("Enter")
            assert names(shown)[0] == "forgetfilter"
            assert shown.evaluate("document.activeElement.textContent").startswith("Toxic")
    assert {"Defen", "Toxic", "Task ", "Rows"} <= set(reached)


def test_without_javascript_the_table_and_the_plots_are_all_there(show):
    shown = show([TABLE, *PLOTS], java_script_enabled=False)
    assert names(shown) == GIVEN
    assert not shown.locator("th button").count() and not shown.locator("#theme").is_visible()
    assert shown.locator("figure svg.wide:visible").count() == len(PLOTS)


def test_hostile_text_becomes_text_and_never_elements(show):
    everywhere: list[Table | Svg | str] = []
    for text in HOSTILE:
        table = Table(
            text, [Column("a", text, "lower"), Column("b", text)], [{"a": text, "b": 1}, {"a": text}]
        )
        series = plots.Series(text, [0, 1], [0, 1])
        plot = plots.lines([series], title=text, x_label=text, y_label=text, x_ticks={0: text})
        everywhere += [text, table, plot, plots.bars({text: {text: 1.0}}, title=text, value_label=text)]
    shown = show(everywhere, title=HOSTILE[0])
    shown.wait_for_timeout(200)
    assert shown.evaluate("window.hit") is None
    assert shown.locator("img, iframe, svg[onload], a[href^=javascript]").count() == 0
    assert shown.locator("main > p").all_inner_texts() == HOSTILE


def test_the_policy_stops_a_script_that_markup_would_have_let_in(browser, tmp_path):
    path = tmp_path / "results.html"
    evil = "<main><script>window.hit=1</script><img src=x onerror='window.hit=1'>"
    path.write_text(page("t", [TABLE]).replace("<main>", evil), "utf-8")
    shown = browser.new_page()
    shown.goto(path.as_uri())
    shown.wait_for_timeout(200)
    assert shown.evaluate("window.hit") is None
    assert shown.locator("th button").count() == 4  # the page's own script still runs
    shown.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_at_4_5_to_1(show, scheme):
    shown = show(["Some words.", TABLE, *PLOTS], color_scheme=scheme)
    ratios = shown.evaluate(CONTRAST)
    assert len(ratios) > 8
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_the_page_never_scrolls_sideways_and_shows_one_drawing_of_each_plot(show, width):
    long = "x" * 3000
    table = Table(long, [Column("a", long, "lower"), Column("b", long)], [{"a": long, "b": long}, {"a": "y"}])
    plot = plots.lines([plots.Series(long, [0, 1], [0, 1])], title=long, x_label=long, y_label=long)
    shown = show([long, table, plot, TABLE, *PLOTS], title=long, viewport={"width": width, "height": 800})
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    kind = "narrow" if width <= 640 else "wide"
    assert shown.locator("figure > svg:visible").count() == 1 + len(PLOTS)
    assert shown.locator(f"figure > svg.{kind}:visible").count() == 1 + len(PLOTS)


BOXES = """() => [...document.querySelectorAll("figure")].map((figure) => {
  const svg = [...figure.children].find((child) => child.checkVisibility()), frame = svg.getBoundingClientRect();
  const box = (r) => [r.left, r.top, r.right, r.bottom];
  return [box(frame), [...svg.querySelectorAll("text")].map((t) => [t.textContent, box(t.getBoundingClientRect()),
    parseFloat(getComputedStyle(t).fontSize) * frame.width / svg.viewBox.baseVal.width])];
})"""


@pytest.mark.parametrize("width", [390, 1200])
def test_no_word_of_a_plot_leaves_it_or_covers_another_or_is_too_small(show, width):
    shown = show(PLOTS, viewport={"width": width, "height": 800})
    for (left, top, right, bottom), texts in shown.evaluate(BOXES):
        for words, (x0, y0, x1, y1), size in texts:
            assert x0 >= left - 1 and x1 <= right + 1 and y0 >= top - 1 and y1 <= bottom + 1, words
            assert size >= 11, words
        for (one, a, _), (two, b, _) in combinations(texts, 2):
            wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            # Boxes of lines hold the room above and below the letters: they may meet by a few pixels.
            assert wide <= 0 or high <= 5, (one, two)


def colour(shown, selector: str, place: str) -> str:
    return shown.locator(selector).first.evaluate(f"e => getComputedStyle(e).{place}")


def test_plots_follow_the_theme_that_the_reader_chooses(show):
    shown = show([PLOTS[0]], color_scheme="light")
    light = colour(shown, ".line.c0", "stroke")
    assert light == "rgb(20, 79, 201)"  # #144fc9
    shown.click("#theme")
    assert colour(shown, ".line.c0", "stroke") == "rgb(90, 141, 243)"  # #5a8df3
    shown.emulate_media(media="print")
    assert colour(shown, ".line.c0", "stroke") == light


@pytest.mark.parametrize(
    ("scheme", "paper", "soft"),
    [("light", "252, 252, 250", "86, 94, 101"), ("dark", "20, 23, 26", "162, 171, 177")],
)
def test_a_plot_alone_as_a_file_follows_the_system(browser, tmp_path, scheme, paper, soft):
    path = tmp_path / "plot.svg"
    path.write_text(PLOTS[0], "utf-8")
    context = browser.new_context(color_scheme=scheme)
    shown = context.new_page()
    shown.goto(path.as_uri())
    assert colour(shown, "svg.ff", "backgroundColor") == f"rgb({paper})"
    assert colour(shown, "text:not([class])", "fill") == f"rgb({soft})"
    context.close()


def test_a_phone_scrolls_the_table_under_its_names(show):
    shown = show([TABLE], viewport={"width": 320, "height": 800})
    box = shown.locator(".scroll")
    assert box.evaluate("e => e.scrollWidth > e.clientWidth")
    before = shown.locator("tbody th").first.bounding_box()["x"]
    box.evaluate("e => { e.scrollLeft = 80; }")
    assert box.evaluate("e => e.scrollLeft") > 0
    assert shown.locator("tbody th").first.bounding_box()["x"] == before


def test_paper_shows_the_wide_plots_in_light_and_no_controls(show):
    shown = show([TABLE, *PLOTS], color_scheme="dark", viewport={"width": 390, "height": 800})
    shown.emulate_media(media="print", color_scheme="dark")
    assert colour(shown, "body", "backgroundColor") == "rgb(255, 255, 255)"
    assert shown.locator("figure > svg.wide:visible").count() == len(PLOTS)
    assert not shown.locator("#theme").is_visible()
