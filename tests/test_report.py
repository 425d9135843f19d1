"""The report as text: what it contains, what it never contains, and how its numbers are worked out."""

import json
import math
import re
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetfilter.errors import ConfigError
from forgetfilter.report import ReportRow, render_report, write_report
from forgetfilter.report.heat import HEAT_LEVELS, LONGEST, heat_level, passage
from forgetfilter.report.histogram import histogram_of, movable
from forgetfilter.report.text import duration, policy_hash, script_json, share, spelled_out, spoken


def row(number: int, score: float | None, decision: str = "keep", **fields) -> ReportRow:
    given_fields: dict[str, Any] = {
        "id": f"id-{number}",
        "row": number,
        "prompt": f"prompt {number}",
        "completion": f"completion {number}",
        "decision": decision,
        "score": score,
        "forgetting": score,
        "remembered": {},
        "reason": f"reason {number}",
        "tokens": None,
    }
    return ReportRow(**(given_fields | fields))


class Page(HTMLParser):
    """The page as the parser of the standard library reads it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.by_tag: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.by_tag.setdefault(tag, []).append("")
        self._open = tag

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        if self._open in ("script", "style"):
            self.by_tag[self._open][-1] += data
        else:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def embedded(page: str) -> dict:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="scores">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def bin_counts(page: str) -> list[int]:
    table = page[page.index('<table id="bins">') :]
    table = table[: table.index("</table>")]
    rows = re.findall(r"<tr>((?:<td[^>]*>[^<]*</td>){3})</tr>", table)
    return [int(re.findall(r">([^<]*)</td>", cells)[2].replace(",", "")) for cells in rows]


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><iframe src=//evil.example></iframe>',
    "' onmouseover='alert(1)",
    "<!--<script>",
    "]]><svg onload=alert(1)>",
    "{{ 7*7 }}{% raw %}",
    "&lt;b&gt;",
    "\u202etxt.exe\u2066\u200b\u2028\u2029\x00\x1b[31m\ud800",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_string_in_any_field_adds_no_element_and_no_attribute(text):
    def page(word: str) -> Page:
        fields = {"id": word, "prompt": word, "completion": word, "reason": word, "remembered": {word: 1.0}}
        rows = [
            row(0, 2.0, "drop", **fields, tokens=[(word, 1.5)]),
            row(1, 1.0, "flag", **fields),
            row(2, None, "unscored", **fields),
        ]
        report = {
            "command": word,
            "model": word,
            "signal": word,
            "verdict": word,
            "input": {"file": word, "format": word},
            "threshold": {"value": 1.5, "method": word, "why": word},
            "estimated": {word: {"value": 0.1, "low": 0.0, "high": 0.2}},
            "quality": {word: word},
            "cost": {"stages": [{"name": word, "seconds": 1.0}], "seconds": 1.0},
            "settings": [{"name": word, "value": word, "origin": word}],
            "versions": {word: word},
            "seeds": {word: word},
            "hashes": {word: word},
            "notes": [word],
            "limits": [word],
        }
        return Page(render_report(report, rows))

    def shape(page: Page) -> list[tuple[str, tuple[str, ...]]]:
        # The boxes around spelled-out characters are the page's own.
        return [(tag, tuple(sorted(a))) for tag, a in page.tags if a.get("class") != "code"]

    assert shape(page(text)) == shape(page("calm"))


@settings(max_examples=40, deadline=None)
@given(st.text())
def test_no_text_of_a_row_survives_as_markup_or_as_a_hidden_character(text):
    shown = render_report({}, [row(0, 1.0, "drop", completion=text, tokens=[(text, 1.0)])])
    page = Page(shown)
    assert {tag for tag, _ in page.tags}.isdisjoint(
        {"img", "iframe", "object", "embed", "link", "base", "form"}
    )
    assert len(page.all("script")) == 2
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u200b\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff]", shown)
    shown.encode("utf-8")  # lone surrogates are spelled out too


def test_direction_and_zero_width_characters_are_spelled_out():
    assert spelled_out("a\u202eb\u200bc\x00d\ud800e\U000e0041f") == r"a\u202eb\u200bc\x00d\ud800e\U000e0041f"


def test_line_breaks_and_joiners_that_writing_needs_stay():
    family, persian = "👩\u200d👧", "می\u200cخواهم"
    assert spelled_out(f"one\ttwo\nthree {family} {persian}") == f"one\ttwo\nthree {family} {persian}"
    assert spelled_out("in\u200dvisible") == r"in\u200dvisible"


def test_json_in_a_script_cannot_end_the_script_and_reads_back_the_same():
    value = {"text": "</script><!-- & \u2028\u2029\u202e é"}
    text = str(script_json(value))
    assert not set(text) & set("<>&\u2028\u2029\u202e")
    assert json.loads(text) == value


def test_the_policy_allows_exactly_the_inline_script_and_style_of_the_page():
    page = Page(render_report({}, [row(0, 1.0)]))
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    code = [
        text for text, a in zip(page.by_tag["script"], page.all("script"), strict=True) if "type" not in a
    ]
    assert len(code) == len(page.by_tag["style"]) == 1
    assert policy == (
        f"default-src 'none'; script-src '{policy_hash(code[0])}'; "
        f"style-src '{policy_hash(page.by_tag['style'][0])}'; base-uri 'none'; form-action 'none'"
    )
    # Attributes of style or event handlers would be blocked, so there must be none.
    assert not [name for _, a in page.tags for name in a if name == "style" or name.startswith("on")]


def test_the_policy_hash_is_the_published_example():
    # The example of the CSP Level 2 recommendation, section 4.2.5: the element content alert('Hello, world.');
    assert policy_hash("alert('Hello, world.');") == "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng="


def test_the_page_names_no_address_outside_itself():
    page = render_report({"threshold": {"value": 0.5}}, [row(i, i / 10, "drop") for i in range(10)])
    assert "://" not in page and "@import" not in page
    links = re.findall(r"""(?:href|src|action|data|poster|srcset)=["']?([^"'\s>]*)""", page)
    assert links and all(link.startswith("#") for link in links)
    assert set(re.findall(r"url\(([^)]*)\)", page)) == {"#above"}


def test_the_bars_add_up_to_the_scored_rows():
    scores = [math.sin(i) + (i % 7) for i in range(1234)]
    rows = [row(i, s) for i, s in enumerate(scores)] + [row(2000 + i, None, "unscored") for i in range(5)]
    page = render_report({}, rows)
    assert sum(bin_counts(page)) == 1234
    assert embedded(page)["scores"] == sorted(scores)


def test_bars_over_hand_counted_scores():
    # Fifty bars of 0.02 from 0 to 1, each without its lower end: 0.02 is in the first, 0.021 in the second.
    page = render_report({}, [row(i, s) for i, s in enumerate([0.0, 0.01, 0.02, 0.021, 0.5, 1.0])])
    assert bin_counts(page) == [3, 1, 1, 1]


@pytest.mark.parametrize(
    "scores", [[0.3], [0.0] * 9, [1e-300, 2e-300], [-1e308, 1e308], [1.0, 1.0 + 1e-15], [5e-324, 0.0]]
)
def test_scores_that_hardly_or_hugely_differ_still_make_a_histogram(scores):
    page = render_report({"threshold": {"value": 0.1}}, [row(i, s) for i, s in enumerate(scores)])
    assert sum(bin_counts(page)) == len(scores)


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_finite_scores_and_cut_make_a_histogram(scores, cut):
    histogram = histogram_of(sorted(scores), cut)
    assert sum(histogram.counts) == len(scores)
    assert all(low < high for low, high, _ in histogram.bars)
    stops = movable(sorted(scores), histogram, cut)["stops"]
    assert all(low < high for low, high in pairwise(stops))


def test_a_few_extreme_scores_do_not_press_the_rest_into_one_bar_and_are_still_counted():
    page = render_report({}, [row(i, i / 1000) for i in range(999)] + [row(999, 1e6)])
    assert sum(bin_counts(page)) == 1000
    assert len(bin_counts(page)) > 10
    assert "1 row beyond the ends of the axis" in page


def test_a_score_that_is_not_finite_is_in_no_bar_and_said():
    page = render_report({}, [row(0, 0.5), row(1, math.nan), row(2, math.inf)])
    assert sum(bin_counts(page)) == 1
    assert "2 rows with a score that is not a finite number" in page


def test_beyond_twenty_thousand_rows_the_page_carries_exact_counts_at_each_stop_instead_of_scores():
    page = render_report({"threshold": {"value": 0.25}}, (row(i, i / 25_000) for i in range(25_000)))
    data = embedded(page)
    assert "scores" not in data and len(page) < 300_000
    above = dict(zip(data["stops"], data["above"], strict=True))
    # Scores 0, 0.00004 … 0.99996; above 0.25 = 6250/25000 lie the rows 6251 to 24999.
    assert above[0.25] == 18_749
    assert above[0.0] == 24_999 and above[1.0] == 0


def test_the_page_holds_the_highest_scores_of_each_decision_and_says_how_many_there_are():
    rows = [row(i, float(i), "drop") for i in range(600)]
    rows += [row(1000 + i, i / 100, "keep") for i in range(60)]
    rows += [row(2000 + i, None, "unscored") for i in range(201)]
    page = render_report({}, rows)
    words = Page(page).words
    assert "Showing 500 of 600 dropped, 0 of 0 flagged and 50 of 60 kept rows" in words
    assert "Showing 200 of 201" in words
    shown = re.findall(r'<span class="id">id-(\d+)</span>', page)
    assert shown[:500] == [str(i) for i in range(599, 99, -1)]
    assert shown[500:550] == [str(1000 + i) for i in range(59, 9, -1)]
    assert shown[550:] == [str(2000 + i) for i in range(200)]


def test_equal_scores_are_shown_in_the_order_of_the_input():
    page = render_report({}, [row(i, 1.0, "drop") for i in range(5)])
    assert re.findall(r'<span class="id">id-(\d+)</span>', page) == ["0", "1", "2", "3", "4"]


def test_counts_of_the_report_stand_before_counts_of_the_rows_given():
    counts = {"keep": 9_000, "flag": 0, "drop": 1_000, "unscored": 0, "rows": 10_000}
    words = Page(render_report({"counts": counts}, [row(0, 1.0, "drop")])).words
    assert "1,000 of 10,000 rows dropped" in words
    assert "Showing 1 of 1,000 dropped" in words


def test_nothing_dropped_reads_as_nothing_to_remove():
    words = Page(render_report({"threshold": {"value": None}}, [row(i, i / 10) for i in range(3)])).words
    assert "Nothing to remove." in words
    assert "No row was dropped and none was flagged." in words
    assert "Cut none was made" in words


def test_an_empty_report_still_makes_a_page():
    words = Page(render_report({}, [])).words
    assert "There were no rows." in words
    assert "Covert or encoded data" in words


def test_null_entries_read_like_missing_ones():
    keys = "command input model counts signal threshold estimated quality cost settings versions seeds"
    nulls = dict.fromkeys([*keys.split(), "hashes", "notes", "limits", "verdict"])
    assert render_report(nulls, [row(0, 1.0)]) == render_report({}, [row(0, 1.0)])


def test_every_part_of_a_full_report_is_said():
    report = {
        "command": ["forgetfilter", "filter", "my rows.jsonl"],
        "input": {"file": "my rows.jsonl", "rows": 2, "format": "messages"},
        "model": "nano",
        "signal": "likelihood",
        "threshold": {"value": 0.0834, "method": "auto", "why": "a valley between two groups"},
        "estimated": {"unsafe_share": {"value": 0.33, "low": 0.29, "high": 0.37}, "recall": None},
        "quality": {"auc": {"value": 0.991, "low": 0.98, "high": 0.995}, "f1": 0.95},
        "cost": {
            "stages": [{"name": "learn", "seconds": 185, "tokens": 1204}],
            "seconds": 185,
            "fine_tunes": 1.25,
        },
        "settings": [{"name": "batch_size", "value": 32, "origin": "paper"}],
        "versions": {"torch": "2.13.0"},
        "seeds": [0, 1],
        "hashes": {"custom": "abcdef"},
        "notes": ["two rows occur twice"],
        "limits": ["coded text passes"],
        "verdict": "One row dropped.",
    }
    words = Page(render_report(report, [row(0, 0.5, "drop"), row(1, 0.01)])).words
    for said in [
        "forgetfilter filter 'my rows.jsonl'",
        "my rows.jsonl, 2 rows, messages ; model nano",
        "likelihood",
        "a valley between two groups",
        "Unsafe share, estimated 0.33 (0.29 to 0.37)",
        "Recall, estimated cannot be estimated here",
        "AUC 0.991 (0.98 to 0.995) F1 0.95",
        "learn 3 min 05 s 1,204 – All 3 min 05 s 1.25",
        "batch_size 32 (paper) paper",
        "torch (versions) 2.13.0",
        "two rows occur twice",
        "coded text passes",
        "One row dropped.",
    ]:
        assert said.replace(" ", "") in words.replace(" ", ""), said


def test_heat_steps_are_equal_and_what_was_not_forgotten_has_none():
    assert [heat_level(nats, 4.0) for nats in (-1.0, 0.0, 0.5, 0.51, 2.0, 4.0, 9.0, math.inf)] == [
        *(0, 0, 1, 2, 4),
        *[HEAT_LEVELS] * 3,
    ]
    assert heat_level(math.nan, 4.0) == 0


def test_the_heat_map_shows_each_token_with_its_number():
    page = render_report(
        {}, [row(0, 1.0, "drop", completion="so rude", tokens=[("so", -0.25), (" rude", 2.0)])]
    )
    assert '<span title="-0.25 nats">so</span><span class="h8" title="2.00 nats"> rude</span>' in page
    assert "Most forgotten: " in page and "rude</q> 2.00 nats" in page


def test_text_that_was_not_scored_follows_the_heat_map_without_colour():
    shown = passage("one two three", [("one", 1.0), (" two", 0.0)], 1.0)
    assert (
        shown.excerpt
        == '<span class="h8" title="1.00 nats">one</span><span title="0.00 nats"> two</span> three'
    )
    assert shown.unmeasured


def test_a_long_text_is_folded_and_loses_no_character_up_to_what_the_page_carries():
    text = "0123456789" * 1000
    shown = passage(text, None, 1.0)
    assert str(shown.excerpt + shown.rest) == text[:LONGEST]
    assert shown.rest_characters == len(shown.rest)
    assert shown.left_out == len(text) - LONGEST


def test_folding_splits_a_token_without_losing_its_colour():
    shown = passage("a" * 1000, [("a" * 1000, 1.0)], 1.0)
    assert shown.excerpt.startswith('<span class="h8"') and shown.rest.startswith('<span class="h8"')
    assert (shown.excerpt + shown.rest).striptags() == "a" * 1000


def test_numbers_are_written_for_readers():
    assert [spoken(v) for v in (1204, 0.08341, -0.5, 1e-7, None, True)] == [
        *("1,204", "0.08341", "−0.5", "1e-07", "not known", "yes")
    ]
    assert spoken({"value": 0.5, "low": None, "high": None}) == "0.5"
    assert [duration(s) for s in (4.21, 185, 7800, None)] == [
        "4.2 s",
        "3 min 05 s",
        "2 h 10 min",
        "not known",
    ]
    assert [share(*parts) for parts in ((1, 8), (1, 100_000), (99_999, 100_000), (0, 5), (5, 5), (0, 0))] == [
        *("12.5 %", "< 0.1 %", "> 99.9 %", "0 %", "100.0 %", "0 %")
    ]


def test_the_file_appears_whole_with_nothing_beside_it(tmp_path: Path):
    write_report(tmp_path / "report.html", {}, [row(0, 1.0)])
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text("utf-8") == render_report({}, [row(0, 1.0)])


def test_heat_maps_lie_beside_the_report_a_line_for_each_row_that_has_one(tmp_path: Path):
    rows = [row(0, 1.0), row(1, 2.0, tokens=[("a\ud800", 0.5), ("b", -1.0)]), row(2, None, tokens=[])]
    write_report(tmp_path / "report.html", {}, rows)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["heat.jsonl", "report.html"]
    lines = (tmp_path / "heat.jsonl").read_text("ascii").splitlines()
    assert [json.loads(line) for line in lines] == [{"row": 1, "tokens": [["a\ud800", 0.5], ["b", -1.0]]}]


def test_a_failure_while_reading_rows_leaves_the_earlier_report_alone(tmp_path: Path):
    def broken():
        yield row(0, 1.0, tokens=[("a", 1.0)])
        raise RuntimeError("disk gone")

    (tmp_path / "report.html").write_text("earlier")
    with pytest.raises(RuntimeError):
        write_report(tmp_path / "report.html", {}, broken())
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("report.html", "earlier")]


def test_a_folder_that_is_missing_is_said_in_the_users_words(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"missing/report\.html: the report cannot be written"):
        write_report(tmp_path / "missing" / "report.html", {}, [])


def test_importing_the_report_loads_no_heavy_package():
    import subprocess

    code = "import sys, forgetfilter.report; print({'jinja2', 'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
