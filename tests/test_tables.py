"""Tables of results: what is marked as best, what is written where, and what a hostile name cannot do."""

import csv
import io
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetfilter.intervals import Estimate
from forgetfilter.report import plots
from forgetfilter.report.tables import (
    MARKED,
    Column,
    Table,
    best,
    page,
    to_csv,
    to_html_fragment,
    to_json,
    to_markdown,
    written,
)
from forgetfilter.report.text import policy_hash

HOSTILE = "</td></title><script>alert(1)</script><img src=x onerror=alert(1)>|`*_\"'&\u202e\n# x"


def estimate(value: float, low: float | None, high: float | None) -> Estimate:
    return Estimate(value, low, high, 100)


class Page(HTMLParser):
    """Tags with their attributes, and the words outside script and style."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.inline: dict[str, str] = {}
        self.at = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.at = tag

    def handle_endtag(self, tag):
        self.at = ""

    def handle_data(self, data):
        if self.at in ("script", "style"):
            self.inline[self.at] = self.inline.get(self.at, "") + data
        else:
            self.words.append(data)


TWO = Table(
    "Two defences",
    [Column("name", "Defence"), Column("toxic", "Toxic", "lower", 2), Column("rows", "Rows"), Column("ok", "OK")],
    [
        {"name": "none", "toxic": Estimate(0.5, 0.4, 0.6, 1200), "rows": 2000, "ok": True},
        {"name": "ours", "toxic": Estimate(0.125, 0.0625, 0.25, 1200), "rows": None, "ok": False},
    ],
    note="One seed.",
)  # fmt: skip


# ---- the mark ------------------------------------------------------------------------------------


def test_the_best_is_marked_with_all_whose_interval_meets_its_own():
    cells = [estimate(0.10, 0.05, 0.15), estimate(0.14, 0.12, 0.20), estimate(0.30, 0.20, 0.40)]
    assert best(cells, "lower") == [True, True, False]
    # From above, 0.30 is best; its interval meets that of 0.14 at one point, 0.20.
    assert best(cells, "higher") == [False, True, True]


def test_of_plain_numbers_only_ties_with_the_best_are_marked():
    assert best([3, 5, 5.0, 4], "higher") == [False, True, True, False]
    assert best([3, 5, 5.0, 4], "lower") == [True, False, False, False]


def test_no_mark_where_all_would_carry_it():
    assert best([2, 2, 2], "lower") == [False] * 3
    assert best([0.4], "lower") == [False]
    assert best([estimate(0.1, 0.0, 0.5), estimate(0.4, 0.2, 0.6)], "lower") == [False] * 2


def test_an_unknown_interval_cannot_be_told_apart_from_the_best():
    cells = [estimate(0.1, 0.05, 0.15), estimate(0.9, None, None), estimate(0.5, 0.4, 0.6)]
    assert best(cells, "lower") == [True, True, False]
    # As the best value itself it is told apart from nothing, so nothing is marked.
    assert best(cells, "higher") == [False] * 3


def test_what_was_not_measured_is_never_marked_and_takes_no_part():
    assert best([None, 1, 2, "n/a", True], "lower") == [False, True, False, False, False]
    assert best([None, None], "lower") == [False, False]
    assert best([1, 2], None) == [False, False]


def test_of_equal_best_values_the_widest_interval_counts():
    cells = [0.1, estimate(0.1, 0.0, 0.3), 0.25, 0.35]
    assert best(cells, "lower") == [True, True, True, False]


NUMBERS = st.one_of(
    st.none(),
    st.integers(-50, 50),
    st.tuples(st.integers(-50, 50), st.integers(0, 20)).map(
        lambda p: estimate(p[0], p[0] - p[1], p[0] + p[1])
    ),
)


@given(st.lists(NUMBERS, max_size=8), st.randoms())
def test_marks_follow_the_cells_in_any_order_and_mirror_when_signs_turn(cells, random):
    marks = best(cells, "higher")
    order = list(range(len(cells)))
    random.shuffle(order)
    assert best([cells[i] for i in order], "higher") == [marks[i] for i in order]

    def turned(cell):
        if isinstance(cell, Estimate) and cell.low is not None and cell.high is not None:
            return estimate(-cell.value, -cell.high, -cell.low)
        return None if cell is None else -cell

    assert best([turned(cell) for cell in cells], "lower") == marks


# ---- files ---------------------------------------------------------------------------------------


def test_markdown_reads_as_worked_out_by_hand():
    assert to_markdown(TWO) == (
        "### Two defences\n"
        "\n"
        "| Defence | Toxic\N{NO-BREAK SPACE}↓ | Rows | OK |\n"
        "| --- | ---: | ---: | --- |\n"
        "| none | 0.50 [0.40, 0.60] | 2,000 | yes |\n"
        "| ours | **0.12 [0.06, 0.25]** | – | no |\n"
        "\n"
        "One seed.\n"
        "\n"
        f"{MARKED}\n"
    )


def test_csv_gives_an_estimate_three_columns_and_full_precision():
    assert to_csv(TWO) == (
        "name,toxic,toxic_low,toxic_high,rows,ok\n"
        "none,0.5,0.4,0.6,2000,true\n"
        "ours,0.125,0.0625,0.25,,false\n"
    )  # fmt: skip


def test_json_holds_all_an_estimate_knows_and_null_where_nothing_was_measured():
    record = json.loads(to_json(TWO))
    assert record["rows"][1] == {
        "name": "ours",
        "toxic": {"value": 0.125, "low": 0.0625, "high": 0.25, "n": 1200},
        "rows": None,
        "ok": False,
    }
    assert record["columns"][1] == {"key": "toxic", "title": "Toxic", "better": "lower"}
    assert (record["title"], record["note"]) == ("Two defences", "One seed.")


@pytest.mark.parametrize(
    "missing", [None, math.nan, math.inf, np.float32("nan"), Estimate(math.nan, 0, 1, 3)]
)
def test_not_measured_is_a_dash_or_empty_or_null_and_never_zero(missing):
    table = Table("t", [Column("a", "A"), Column("b", "B")], [{"a": "x", "b": missing}, {"a": "y"}])
    assert to_markdown(table).count("| – |") == 2
    assert to_csv(table) == "a,b\nx,\ny,\n"
    assert [row["b"] for row in json.loads(to_json(table))["rows"]] == [None, None]
    assert to_html_fragment(table).count("not measured") == 2


def test_numbers_of_numpy_are_numbers():
    table = Table("t", [Column("a", "A")], [{"a": np.float32(0.5)}, {"a": np.int64(3)}])
    assert [row["a"] for row in json.loads(to_json(table))["rows"]] == [0.5, 3]


def test_a_cell_of_another_kind_is_refused_and_its_column_named():
    with pytest.raises(TypeError, match=r"'b'.*list"):
        to_csv(Table("t", [Column("b", "B")], [{"b": [1]}]))


def test_two_columns_of_one_key_are_refused():
    with pytest.raises(ValueError, match="twice"):
        Table("t", [Column("a", "A"), Column("a", "B")], [])
    clash = Table("t", [Column("a", "A"), Column("a_low", "B")], [{"a": estimate(1, 0, 2), "a_low": 1}])
    with pytest.raises(ValueError, match="a_low"):
        to_csv(clash)


@given(st.lists(st.tuples(st.text(), st.integers() | st.floats(-1e9, 1e9)), min_size=1, max_size=5))
def test_csv_reads_back_the_same_numbers_and_one_field_per_cell(pairs):
    table = Table("t", [Column("name", "N"), Column("v", "V")], [{"name": n, "v": v} for n, v in pairs])
    read = list(csv.reader(io.StringIO(to_csv(table))))
    assert [len(row) for row in read] == [2] * (len(pairs) + 1)
    assert [float(row[1]) for row in read[1:]] == [float(v) for _, v in pairs]


def test_csv_text_that_a_spreadsheet_would_run_is_quoted_and_numbers_are_not():
    table = Table("t", [Column("a", "A"), Column("b", "B")], [{"a": "=1+1", "b": -1}, {"a": "@x", "b": -0.5}])
    assert to_csv(table) == "a,b\n'=1+1,-1\n'@x,-0.5\n"


def test_a_table_without_rows_is_still_a_table():
    empty = Table("t", [Column("a", "A", "lower"), Column("b", "B")], [])
    assert to_markdown(empty) == "### t\n\n| A\N{NO-BREAK SPACE}↓ | B |\n| --- | --- |\n"
    assert to_csv(empty) == "a,b\n"
    assert json.loads(to_json(empty))["rows"] == []
    assert "<tbody>" in to_html_fragment(empty)


def test_cells_are_written_for_readers():
    assert written(Estimate(0.9123, 0.8934, 0.9312, 1200)) == "0.912 [0.893, 0.931]"
    assert written(Estimate(0.5, None, None, 1, seeds=1)) == "0.500 [no interval]"
    assert [written(-1204), written(True), written(0.0), written(None)] == ["−1,204", "yes", "0.000", "–"]


def test_markdown_prints_hostile_text_as_one_cell_without_markup():
    table = Table(HOSTILE, [Column("a", HOSTILE), Column("b", "B")], [{"a": HOSTILE, "b": 1}], note=HOSTILE)
    lines = to_markdown(table).splitlines()
    # Title, header, rule, row, note; in the three rows an unescaped bar stands only between cells.
    assert len([line for line in lines if line]) == 5
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines[2:5]] == [3, 3, 3]
    assert not re.search(r"<|(?<!\\)[`*]|\u202e", to_markdown(table))


def test_markdown_leaves_underscores_within_words_alone():
    table = Table("t", [Column("a", "A")], [{"a": "self_correction _x_"}])
    assert r"| self_correction \_x\_ |" in to_markdown(table)


# ---- HTML ----------------------------------------------------------------------------------------


def test_the_fragment_marks_the_best_says_the_direction_and_carries_sortable_values():
    found = Page(to_html_fragment(TWO))
    cells = [attributes for tag, attributes in found.tags if tag in ("td", "th")]
    assert [cell.get("data-value") for cell in cells[5:7]] == ["0.5", "2000.0"]
    assert [cell.get("class") for cell in cells if "best" in (cell.get("class") or "")] == ["n best"]
    assert ", lower is better" in found.words
    assert [tag for tag, attributes in found.tags if attributes.get("scope") == "row"] == ["th", "th"]


def test_the_count_behind_estimates_stands_once_in_the_header_where_all_share_it():
    def words(*cells: Estimate) -> list[str]:
        table = Table("t", [Column("a", "A")], [{"a": cell} for cell in cells])
        return [word for word in Page(to_html_fragment(table)).words if "n = " in word or "seed" in word]

    assert words(Estimate(1, 0, 2, 1200), Estimate(2, 1, 3, 1200)) == ["n = 1,200"]
    assert words(Estimate(1, 0, 2, 3, seeds=3), Estimate(2, 1, 3, 3, seeds=3)) == ["3 seeds"]
    assert words(Estimate(1, 0, 2, 10), Estimate(2, None, None, 1, seeds=1)) == ["n = 10", "1 seed"]


SECTIONS = [
    "First paragraph.\n\nSecond one.",
    TWO,
    plots.lines([plots.Series("a", [0, 1], [0, 1])], title="A plot", x_label="x", y_label="y"),
    plots.bars({"m": {"a": 1.0}}, title="Bars", value_label="v"),
]


def test_the_page_holds_every_section_in_order_and_its_one_style_and_script_are_those_allowed():
    text = page("Results", SECTIONS, subtitle="nano")
    found = Page(text)
    main = text[text.index("<main>") :]
    places = [
        main.index(mark) for mark in ("First", "Second one.", "<h2>Two", "A plot</title>", "Bars</title>")
    ]
    assert places == sorted(places)
    assert (
        [tag for tag, _ in found.tags].count("style") == [tag for tag, _ in found.tags].count("script") == 1
    )
    (policy,) = [a["content"] for tag, a in found.tags if tag == "meta" and a.get("http-equiv")]
    assert policy and f"script-src '{policy_hash(found.inline['script'])}'" in policy
    assert f"style-src '{policy_hash(found.inline['style'])}'" in policy
    assert policy.startswith("default-src 'none'")


def test_the_page_names_no_address_outside_itself():
    found = Page(page("Results", SECTIONS))
    assert not [a for _, a in found.tags if a.get("src") or a.get("style")]
    assert all((a.get("href") or "#").startswith("#") for _, a in found.tags)
    assert not re.search(r"url\(|@import", found.inline["style"])


@pytest.mark.parametrize(
    "hostile", [HOSTILE, '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"></svg>']
)
def test_hostile_text_anywhere_adds_no_element_and_no_attribute(hostile):
    def names(text: str) -> list[tuple[str, list[str]]]:
        table = Table(text, [Column("a", text, "lower"), Column("b", text)], [{"a": text, "b": 1}], note=text)
        series = plots.Series(text, [0, 1], [0, 1])
        plot = plots.lines([series], title=text, x_label=text, y_label=text)
        found = Page(page(text, [text, table, plot, str(text)], subtitle=text))
        # Words are broken after underscores, and drawn in as many lines as they need.
        return [(tag, sorted(a)) for tag, a in found.tags if tag not in ("wbr", "text")]

    assert names(hostile) == names(re.sub(r"[^\n ]", "x", hostile))


def test_only_a_plot_of_plots_is_printed_unescaped():
    plot = SECTIONS[2]
    assert "<polygon" not in page("t", ["<polygon>"])
    assert page("t", [plot]).count("<svg") > page("t", [str(plot) + " "]).count("<svg") == 0


def test_the_page_has_the_colours_of_the_report():
    report = files("forgetfilter.report").joinpath("template.html").read_text("utf-8")
    style = Page(page("t", [])).inline["style"]
    for name in ("paper", "ink", "soft", "rule", "bar", "accent", "sheet"):
        for scheme in (
            r":root \{\s*color-scheme: light",
            r':root\[data-theme="dark"\] \{\s*color-scheme: dark',
        ):
            there, here = (re.search(rf"{scheme};[^}}]*?--{name}: (#\w+)", css) for css in (report, style))
            assert there and here and there[1] == here[1], (name, scheme)


def test_importing_tables_and_plots_loads_no_heavy_package(environment):
    heavy = "{'torch', 'transformers', 'jinja2', 'datasets'}"
    code = f"import sys, forgetfilter.report.tables, forgetfilter.report.plots; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "set()"
