"""Plots as SVG: where the marks stand, what a gap does, what a hostile name cannot do, and who can read them."""

import math
import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetfilter.intervals import Estimate
from forgetfilter.report import plots, svg
from forgetfilter.report.plots import Series, bars, lines, series_of
from forgetfilter.report.svg import decimal

SVG = "{http://www.w3.org/2000/svg}"
NAMES = {"title": "A title", "x_label": "steps", "y_label": "share"}
HOSTILE = "</text><script>alert(1)</script>]]>&\"'\u202e\x00\ud800"


def parts(plot: str, tag: str, kind: str = "") -> list[ElementTree.Element]:
    """Elements of a tag that carry a class, in the order of drawing; parsing fails on bad XML."""
    root = ElementTree.fromstring(plot.encode("utf-8"))
    found = list(root.iter(SVG + tag))
    return [part for part in found if not kind or kind in part.get("class", "").split()]


def words(plot: str) -> list[str]:
    return [part.text or part[-1].tail or "" for part in parts(plot, "text")]


def marks(plot: str) -> list[tuple[float, float, str]]:
    """Place and tooltip of each value; the samples of a key have none."""
    found = []
    for mark in parts(plot, "path", "mark"):
        title = mark.find(SVG + "title")
        if title is not None:
            x, y = re.fullmatch(r"translate\((\S+) (\S+)\)", mark.get("transform", "")).groups()
            found.append((float(x), float(y), title.text or ""))
    return found


def numbers(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path)]


def strokes(plot: str) -> list[list[float]]:
    """Lines over the frame, without the samples of the key (drawn by `h`)."""
    found = [part.get("d", "") for part in parts(plot, "path", "line")]
    return [numbers(path) for path in found if not re.search("[hv]", path)]


def grid(plot: str) -> dict[str, float]:
    """Words of the y axis and the height of their grid line."""
    heights = [float(line.get("y1", "nan")) for line in parts(plot, "line", "grid")]
    texts = [text for text in parts(plot, "text") if text.get("text-anchor") == "end"]
    return {text.text or "": height for text, height in zip(texts, heights, strict=True)}


def test_values_stand_at_the_height_of_their_tick_and_at_even_steps_of_x():
    plot = lines([Series("a", [0, 10, 20], [0.0, 0.4, 1.0])], y_range=(0, 1), **NAMES)
    (x0, y0, _), (x1, y1, _), (x2, y2, _) = marks(plot)
    ticks = grid(plot)
    assert list(ticks) == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert [y0, y1, y2] == pytest.approx([ticks["0"], ticks["0.4"], ticks["1"]], abs=0.011)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.011)
    assert (y0 - y1) / (y0 - y2) == pytest.approx(0.4, abs=1e-3)


def test_the_order_of_the_points_does_not_matter():
    one = lines([Series("a", [1, 2, 3], [0.1, 0.2, 0.4], [0, 0.1, 0.3], [0.2, 0.3, 0.5])], **NAMES)
    two = lines([Series("a", [3, 1, 2], [0.4, 0.1, 0.2], [0.3, 0, 0.1], [0.5, 0.2, 0.3])], **NAMES)
    assert one == two


@pytest.mark.parametrize("gap", [None, math.nan, math.inf])
def test_a_gap_parts_line_and_band_and_is_said(gap):
    x, y = [0, 1, 2, 3, 4], [0.1, 0.2, gap, 0.4, 0.5]
    plot = lines([Series("a", x, y, [0.0] * 5, [0.6] * 5)], **NAMES)
    assert [len(stroke) for stroke in strokes(plot)] == [4, 4]  # two points each
    assert len(parts(plot, "path", "band")) == 2
    assert len(marks(plot)) == 4
    assert "1 not measured." in parts(plot, "desc")[0].text


def test_the_band_runs_along_the_highs_and_back_along_the_lows():
    plot = lines([Series("a", [0, 1], [0.5, 0.5], [0.25, 0.0], [0.75, 1.0])], y_range=(0, 1), **NAMES)
    (band,) = parts(plot, "path", "band")
    (left, y, _), (right, _, _) = marks(plot)
    full = grid(plot)["0"] - grid(plot)["1"]
    expected = [
        *(left, y - full / 4, right, y - full / 2),  # 0.75, then 1
        *(right, y + full / 2, left, y + full / 4),  # 0, then 0.25
    ]
    assert numbers(band.get("d", "")) == pytest.approx(expected, abs=0.03)


def test_one_point_alone_shows_with_its_interval_and_no_line():
    plot = lines([Series("only", [5], [0.4], [0.3], [0.5])], **NAMES)
    ((x, _, title),) = marks(plot)
    assert title == "only: 0.400 [0.300, 0.500] at 5"
    assert strokes(plot) == [] and not parts(plot, "path", "band")
    (halo,) = parts(plot, "path", "halo")
    ticks = grid(plot)
    ends = [float(y) for y in re.search(r"(\S+)V(\S+?)M", halo.get("d", "")).groups()]
    assert ends == pytest.approx([ticks["0.3"], ticks["0.5"]], abs=0.011)
    assert "5" in words(plot) and svg.WIDE * 0.2 < x < svg.WIDE * 0.8


def test_an_interval_with_one_end_unknown_is_not_drawn():
    plot = lines([Series("a", [0, 1], [0.4, 0.5], [0.3, None], [None, math.nan])], y_range=(0, 1), **NAMES)
    assert not parts(plot, "path", "band") and not parts(plot, "path", "halo")
    assert [title for _, _, title in marks(plot)] == ["a: 0.400 at 0", "a: 0.500 at 1"]


def test_a_value_beyond_the_range_asked_for_widens_the_axis_and_an_interval_does_not():
    beyond = lines([Series("a", [0, 1], [0.5, 1.4])], y_range=(0, 1), **NAMES)
    assert max(map(float, grid(beyond))) == 1.5  # the next round number
    within = lines([Series("a", [0, 1], [0.5, 0.6], [0, 0], [3, 3])], y_range=(0, 1), **NAMES)
    assert max(map(float, grid(within))) == 1


def test_series_of_takes_values_and_intervals_from_estimates_and_leaves_gaps():
    estimates = [Estimate(0.5, 0.4, 0.6, 10), None, Estimate(0.7, None, None, 1, seeds=1)]
    expected = Series("a", [1, 2, 3], [0.5, None, 0.7], [0.4, None, None], [0.6, None, None])
    assert series_of("a", [1, 2, 3], estimates) == expected


def test_a_series_whose_parts_differ_in_length_is_refused():
    with pytest.raises(ValueError, match="'a'"):
        Series("a", [1, 2], [1.0])
    with pytest.raises(ValueError, match="'b'"):
        Series("b", [1], [1.0], low=[0.5])


def test_what_was_never_measured_is_named_and_nothing_at_all_is_said():
    plot = lines([Series("a", [0], [1.0]), Series("lost", [0, 1], [None, None])], **NAMES)
    assert "not measured: lost" in words(plot)
    for empty in (
        lines([], **NAMES),
        lines([Series("a", [], [])], **NAMES),
        bars({}, title="t", value_label="v"),
    ):
        assert "No values were measured." in words(empty)


def test_the_x_axis_has_ticks_at_few_measured_values_and_at_round_numbers_else():
    few = lines([Series("a", [0.1, 0.25, 0.5, 0.75], [1, 2, 3, 4])], **NAMES)
    middles = [t.text for t in parts(few, "text") if t.get("text-anchor") == "middle"]
    assert middles == ["0.1", "0.25", "0.5", "0.75"]
    many = lines([Series("a", list(range(101)), list(range(101)))], **NAMES)
    middles = [t.text for t in parts(many, "text") if t.get("text-anchor") == "middle"]
    assert middles[0] == "0" and middles[-1] == "100" and 5 <= len(middles) <= 13
    assert len({int(b or 0) - int(a or 0) for a, b in pairwise(middles)}) == 1


def test_ticks_may_carry_words_which_tooltips_use_too():
    sessions = {0: "start", 1: "after noisy 1", 2: "after safe 1"}
    plot = lines([Series("a", [0, 1, 2], [0.1, 0.4, 0.2])], x_ticks=sessions, **NAMES)
    assert set(sessions.values()) <= set(words(plot))
    assert marks(plot)[1][2] == "a: 0.400 at after noisy 1"


def test_labels_are_moved_no_further_than_the_gap_needs():
    # 10 and 12 share their middle, 11, and stand 10 apart around it; 50 is far enough away.
    assert plots._apart([10, 12, 50], 10, 0, 100) == [6, 16, 50]
    assert plots._apart([50, 12, 10], 10, 0, 100) == [50, 16, 6]
    assert plots._apart([10, 12, 50], 10, 8, 100) == [8, 18, 50]
    assert plots._apart([95, 99], 10, 0, 100) == [90, 100]


@given(st.lists(st.floats(0, 300), min_size=1, max_size=15))
def test_moved_labels_keep_their_order_their_gap_and_stay_within(wanted):
    places = plots._apart(wanted, 18, 0, 300)
    assert all(-1e-9 <= place <= 300 + 1e-9 for place in places)
    assert all(abs(a - b) >= 18 - 1e-9 for a, b in combinations(places, 2))
    by_wish = [place for _, place in sorted(zip(wanted, places, strict=True))]
    assert by_wish == sorted(places)


def test_line_ends_carry_their_names_apart_from_each_other():
    crowd = [Series(f"name {i}", [0, 1], [0.5, 0.5 + i / 1000]) for i in range(8)]
    texts = parts(lines(crowd, **NAMES), "text", "name")
    heights = sorted(float(t.get("y", "nan")) for t in texts)
    assert [t.text for t in texts] == [f"name {i}" for i in range(8)]
    assert all(b - a >= svg.TEXT for a, b in pairwise(heights))


def test_bars_are_as_long_as_their_values_and_start_at_zero():
    plot = bars({"m": {"a": 0.2, "b": 0.4, "c": -0.1}}, title="t", value_label="v")
    a, b, c = ({k: float(bar.get(k, "nan")) for k in ("x", "width")} for bar in parts(plot, "rect", "bar"))
    assert b["width"] == pytest.approx(2 * a["width"], abs=0.02)
    assert a["x"] == b["x"] == pytest.approx(c["x"] + c["width"], abs=0.02)
    assert c["width"] == pytest.approx(a["width"] / 2, abs=0.02)
    (zero,) = [line for line in parts(plot, "line", "axis") if line.get("y1") != line.get("y2")][:1]
    assert float(zero.get("x1", "nan")) == pytest.approx(a["x"], abs=0.011)


def test_a_bar_carries_its_interval_as_a_whisker_and_in_words():
    plot = bars({"m": {"a": Estimate(0.5, 0.25, 1.0, 30)}}, title="t", value_label="v", value_range=(0, 1))
    (bar,) = parts(plot, "rect", "bar")
    (whisker,) = parts(plot, "path", "whisker")
    start, width = float(bar.get("x", "nan")), float(bar.get("width", "nan"))
    low, high = map(float, re.search(r"M(\S+) \S+H(\S+?)M", whisker.get("d", "")).groups())
    assert [low - start, high - start] == pytest.approx([width / 2, 2 * width], abs=0.03)
    assert "0.500 [0.250, 1.000]" in words(plot)
    assert "m, a: 0.500 [0.250, 1.000]." in parts(plot, "desc")[0].text


@pytest.mark.parametrize("missing", [None, math.nan, Estimate(math.nan, None, None, 0)])
def test_a_bar_that_was_not_measured_is_said_and_not_drawn_as_zero(missing):
    plot = bars({"m": {"a": missing, "b": 0.0}}, title="t", value_label="v")
    assert len(parts(plot, "rect", "bar")) == 1  # of b, which is zero
    assert words(plot).count("not measured") == 1


def test_emphasis_colours_only_the_bars_named():
    plot = bars({"m": {"a": 1.0, "b": 2.0}, "n": {"b": 1.0}}, title="t", value_label="v", emphasis=["b"])
    assert ["main" in bar.get("class", "") for bar in parts(plot, "rect", "bar")] == [False, True, True]


@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_hostile_names_add_no_element_and_no_character_that_xml_forbids(width):
    def both(name: str) -> list[str]:
        drawn = [
            lines(
                [Series(name, [0, 1], [0, 1]), Series(name, [0], [None])],
                title=name,
                x_label=name,
                y_label=name,
                x_ticks={0: name},
            ),
            bars({name: {name: 0.5, "b": None}}, title=name, value_label=name, emphasis=[name]),
        ]
        return [plot if width == "wide" else plot.narrow for plot in drawn]

    for hostile, tame in zip(both(HOSTILE), both("x" * len(HOSTILE)), strict=True):
        tags = [{part.tag for part in ElementTree.fromstring(svg).iter()} for svg in (hostile, tame)]
        assert tags[0] == tags[1]
        assert "\u202e" not in hostile and r"\u202e" in hostile


@given(st.lists(st.tuples(st.floats(), st.none() | st.floats(), st.none() | st.floats()), max_size=8))
def test_any_numbers_make_a_plot_without_a_number_that_is_none(points):
    x, y, end = ([point[k] for point in points] for k in range(3))
    for plot in (
        lines([Series("a", x, y, end, end)], **NAMES),
        bars({"m": {str(i): value for i, value in enumerate(y)}}, title="t", value_label="v"),
    ):
        for part in ElementTree.fromstring(plot).iter():
            values = [value for key, value in part.items() if key != "class"]
            assert not any(re.search(r"nan|inf", value) for value in values)


def test_a_plot_names_no_address_and_holds_no_script():
    plot = lines([Series("a", [0, 1], [0, 1])], **NAMES)
    assert re.findall(r"https?://[^\"']+", plot) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"<script|\bon\w+=|href|@import|url\(", plot)


def test_a_plot_has_a_title_and_a_description_in_words():
    plot = lines([Series("a", [0, 5, 10], [0.2, 0.9, 0.4])], **NAMES)
    root = ElementTree.fromstring(plot)
    assert [part.tag for part in root][:2] == [SVG + "title", SVG + "desc"]
    assert root[0].text == plot.heading == "A title" and root.get("role") == "img"
    assert root[1].text == "share over steps. a: 0.2 at 0, 0.4 at 10, 3 values between 0.2 and 0.9."


def test_the_first_210_series_all_look_different():
    looks = [
        (i % svg.COLOURS, i % len(plots.MARKERS), i % len(plots.DASHES))
        for i in range(svg.COLOURS * len(plots.MARKERS) * len(plots.DASHES))
    ]
    assert len(set(looks)) == len(looks)
    # Neighbours differ without colour too.
    assert all(a[1] != b[1] and a[2] != b[2] for a, b in pairwise(looks))


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2: relative luminances, (lighter + 0.05) / (darker + 0.05)."""
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


# Machado, Oliveira and Fernandes 2009, severity 1: linear RGB as seen with each colour blindness.
SIGHT = {
    "full": np.eye(3),
    "no red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no blue": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("palette", [svg.LIGHT, svg.DARK], ids=["light", "dark"])
def test_colours_stand_out_and_apart_under_every_colour_blindness(palette):
    colours = [palette[f"c{i}"] for i in range(svg.COLOURS)]
    for name in (*(f"c{i}" for i in range(svg.COLOURS)), "bar", "accent"):
        assert contrast(palette[name], palette["paper"]) >= 3, name
    for name in ("ink", "soft"):
        assert contrast(palette[name], palette["paper"]) >= 4.5
    for sight in SIGHT.values():
        for one, other in combinations(colours, 2):
            # 20 in CIELAB: about ten times what the eye just tells apart side by side.
            assert np.linalg.norm(lab(sight @ linear(one)) - lab(sight @ linear(other))) >= 20


def test_a_viewer_without_variables_still_gets_colours():
    for rule in re.findall(r"\{([^{}]*var\([^{}]*)\}", svg.STYLE):
        for place in re.findall(r"(fill|stroke): var", rule):
            assert re.search(rf"{place}: #\w+; {place}: var", rule)
        assert "var(" in rule


def test_numbers_have_fixed_digits_and_what_is_there_never_reads_as_zero():
    assert decimal(0.5, 3) == "0.500"
    assert decimal(-0.25, 2) == "−0.25"
    assert decimal(1234.5, 1) == "1,234.5"
    assert decimal(-0.0, 3) == decimal(0.0, 3) == "0.000"
    assert decimal(0.0004, 3) == "0.0004"
    assert decimal(-0.0004, 2) == "−0.0004"
    assert decimal(2e-9, 3) == "2e-09"
