from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from forgetfilter.display import Display

HOSTILE = "[red]x[/red] [/] :warning: [link=a]b[/link] \\[c]"


def screen(terminal: bool, width: int = 200) -> tuple[Display, io.StringIO]:
    out = io.StringIO()
    return Display(Console(file=out, force_terminal=terminal, width=width, color_system=None)), out


def report(**changes: Any) -> dict[str, Any]:
    return {
        "verdict": "2 of 10 rows dropped, 1 flagged for a look.",
        "counts": {"rows": 10, "keep": 5, "flag": 1, "drop": 2, "not judged": 1, "unscored": 1},
        "threshold": {"value": 0.08341, "method": "fdr", "why": "two groups"},
        "estimated": {"unsafe_share": {"value": 0.3, "low": 0.125, "high": 0.5}},
        "quality": {"auc": {"value": 0.95, "low": 0.9, "high": 1.0}, "precision": None},
        "cost": {"seconds": 61.4, "fine_tunes": 2.34},
    } | changes


def test_the_summary_says_every_number_of_the_report() -> None:
    display, out = screen(terminal=False)
    display.summary(report(), Path("runs/mine"))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert lines == [
        "",
        "2 of 10 rows dropped, 1 flagged for a look.",
        "rows 10",
        "kept 5",
        "flagged 1",
        "dropped 2",
        "not judged (kept) 1",
        "unscored (kept) 1",
        "threshold 0.08341 (fdr)",
        "why two groups",
        "estimated unsafe share 30.0% [12.5%, 50.0%]",
        "against truth: auc 0.950 [0.900, 1.000]",
        "against truth: precision not defined",
        "against truth: recall not defined",
        "against truth: f1 not defined",
        "time 61 s, 2.3 plain fine-tunes",
        "Look at runs/mine/report.html; the clean rows are in runs/mine/kept.*",
    ]


def test_without_cut_estimate_and_truth_the_summary_says_less() -> None:
    display, out = screen(terminal=False)
    why = {"value": None, "method": "fdr", "why": "one group"}
    display.summary(report(threshold=why, estimated=None, quality=None), Path("out"))
    text = " ".join(out.getvalue().split())
    assert "threshold none why one group time" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_hostile_texts_are_shown_as_they_stand(terminal: bool) -> None:
    display, out = screen(terminal)
    display.say(HOSTILE)
    threshold = {"value": 0.5, "method": HOSTILE, "why": HOSTILE}
    display.summary(report(verdict=HOSTILE, threshold=threshold), Path(HOSTILE))
    with display.stage(HOSTILE, "row", total=2) as progress:
        progress(2, 2)
    # said, verdict, method, why, the stage at least once, the path twice
    assert out.getvalue().count(HOSTILE) >= 7
    assert out.getvalue().count(HOSTILE + "/") == 2


@pytest.mark.parametrize("terminal", [False, True])
def test_no_text_can_steer_the_terminal(terminal: bool) -> None:
    display, out = screen(terminal)
    display.say("a\x1b[2Jb\rc\x9bd\x07")
    display.summary(report(verdict="\x1b]0;title\x07"), Path("out"))
    assert "a\\x1b[2Jb\\x0dc\\x9bd\\x07" in out.getvalue()
    assert "\\x1b]0;title\\x07" in out.getvalue()
    assert not set("\x1b\r\x9b\x07") & set(out.getvalue())


def test_line_breaks_stay_and_long_lines_are_not_broken() -> None:
    display, out = screen(terminal=False, width=40)
    display.say("one\ntwo")
    display.say("x" * 30 + " " + "y" * 30)
    assert out.getvalue() == "one\ntwo\n" + "x" * 30 + " " + "y" * 30 + "\n"


def test_off_a_terminal_a_stage_is_one_line_at_its_end() -> None:
    display, out = screen(terminal=False)
    with display.stage("learn: custom rows", "step") as progress:
        for done in (1, 2, 3):
            progress(done, 3)
        assert out.getvalue() == ""
    assert out.getvalue() == "learn: custom rows: done\n"


def test_on_a_terminal_a_stage_shows_how_far_it_is_and_how_fast() -> None:
    display, out = screen(terminal=True)
    with display.stage("score: learned", "row", total=4) as progress:
        progress(4, 4)
    last = out.getvalue().splitlines()[-2]  # behind it, only the cursor is shown again
    assert "score: learned" in last and "4/4" in last and "rows/s" in last


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_count_is_whole_on_a_narrow_terminal_too(width: int) -> None:
    display, out = screen(terminal=True, width=width)
    with display.stage("learn: custom rows and witnesses", "step") as progress:
        progress(1200, 3000)
    last = out.getvalue().splitlines()[-2]
    assert "learn: custom" in last and "1200/3000" in last and ("steps/s" in last) == (width > 70)


def test_a_stage_that_fails_does_not_say_done() -> None:
    display, out = screen(terminal=False)
    with pytest.raises(RuntimeError), display.stage("learn", "step"):
        raise RuntimeError
    assert out.getvalue() == ""


def test_next_steps_name_the_command() -> None:
    display, out = screen(terminal=False)
    display.next_steps(Path("out"))
    assert "forgetfilter filter custom.jsonl --safe safe.jsonl --model PATH" in out.getvalue()
