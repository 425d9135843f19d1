"""`review` and `apply`: a run is read from its files, people's decisions are kept, the final files follow them."""

import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pages import Served
from reviewed import many, run_folder

from forgetfilter.data import formats, sketches
from forgetfilter.errors import ConfigError, DataError, ForgetfilterError
from forgetfilter.filter import vetted
from forgetfilter.review import likeness, outcome, shown
from forgetfilter.review.app import Review
from forgetfilter.review.apply import run_apply
from forgetfilter.review.decisions import CLEAN, NAME, NONE, UNSAFE, UNSURE, Decisions, OtherwiseError
from forgetfilter.review.run_files import DECISIONS, RunFiles, open_run, refuse_changed

# Seven rows: scores, and what the run decided with a cut at 0.5.
SCORES = [0.9, 0.8, 0.6, 0.4, 0.1, None, 0.7]
DECIDED = ["drop", "drop", "drop", "flag", "keep", "unscored", "not judged"]
RECORDS = [{"prompt": f"Question {i}?", "completion": f"Answer {i}", "extra": i} for i in range(7)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return run_folder(tmp_path / "run", RECORDS, DECIDED, SCORES)


def words(codes: np.ndarray) -> list[str]:
    return [DECISIONS[code] for code in codes]


# --- reading a run ---


def test_rows_come_back_from_the_three_files_in_the_inputs_order(folder: Path):
    run = open_run(folder)
    assert words(run.decision) == DECIDED
    assert [run.row(i).completion for i in range(7)] == [f"Answer {i}" for i in range(7)]
    assert run.cut == 0.5 and run.line(3)["reason"] == "reason 3"
    assert np.isnan(run.score[5]) and run.score[0] == 0.9


def mangled(folder: Path, name: str, change: Callable[[str], str]) -> Path:
    path = folder / name
    path.write_text(change(path.read_text()))
    return folder


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: f / "missing", "missing: no such folder"),
        (lambda f: (f / "report.json").unlink() or f, "the run is not finished .*Run its filter command again"),
        (lambda f: (f / "scores.jsonl").unlink() or f, "the run is not whole .no scores.jsonl"),
        (lambda f: f.parent, "holds no run"),
        (lambda f: mangled(f, "report.json", lambda t: t[:40]), r"report\.json: cannot be read"),
        (lambda f: mangled(f, "report.json", lambda t: t.replace('"forgetfilter": "', '"forgetfilter": "9')),
         r"is a run of forgetfilter 9.*pip install -U forgetfilter"),
        (lambda f: mangled(f, "scores.jsonl", lambda t: t.replace('"flag"', '"doubt"')),
         r"scores\.jsonl line 4: row 3, decision 'doubt'"),
        (lambda f: mangled(f, "scores.jsonl", lambda t: t[:-30]), r"scores\.jsonl line 7: no line of a run"),
        (lambda f: mangled(f, "scores.jsonl", lambda t: t[: t.index("\n") + 1]), "1 lines, report.json says 7 rows"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_reviewed_says_why_and_what_to_do(folder: Path, spoil, words: str):
    with pytest.raises(ConfigError, match=words):
        open_run(spoil(folder))


def test_a_row_that_was_changed_since_is_not_taken_for_the_one_that_was_scored(folder: Path):
    run = open_run(mangled(folder, "dropped.jsonl", lambda t: t.replace("Answer 1", "Answer X")))
    assert run.row(1) is None and run.row(0) is not None
    found = shown.detail(run, 1, likeness.Twins())
    assert not found["readable"] and "Answer X" in found["turns"][0]["segments"][0][0]


# --- what becomes of rows ---


def test_a_moved_cut_drops_judged_rows_above_it_and_keeps_dropped_ones_below(folder: Path):
    run, nobody = open_run(folder), np.zeros(7, np.uint8)
    assert words(outcome.outcomes(run, nobody)) == DECIDED
    assert words(outcome.outcomes(run, nobody, 0.75)) == [
        *("drop", "drop", "keep", "flag", "keep", "unscored", "not judged")
    ]
    assert words(outcome.outcomes(run, nobody, 0.3))[2:5] == ["drop", "drop", "keep"]
    assert words(outcome.outcomes(run, nobody, 0.9))[0] == "keep"  # a row that scores exactly the cut stays


def test_people_overrule_cut_and_run(folder: Path):
    said = np.array([CLEAN, NONE, UNSURE, NONE, UNSAFE, UNSAFE, CLEAN], np.uint8)
    codes = outcome.outcomes(open_run(folder), said, 0.75)
    assert words(codes) == ["keep", "drop", "flag", "flag", "drop", "drop", "keep"]
    assert outcome.changes(open_run(folder), codes) == {
        "drop -> keep": 1, "drop -> flag": 1, "keep -> drop": 1, "unscored -> drop": 1, "not judged -> keep": 1,
    }  # fmt: skip


def test_certainty_counts_the_rows_the_cut_drops_and_their_p_values(tmp_path: Path):
    p = [0.01, 0.02, 0.05, 0.2, 0.8, None, None]
    run = open_run(run_folder(tmp_path / "run", RECORDS, DECIDED, SCORES, p=p))
    said = np.array([UNSAFE, CLEAN, NONE, UNSAFE, NONE, NONE, NONE], np.uint8)
    found = outcome.sureness(run, said)
    assert (found["judged"], found["unsafe"]) == (2, 1)  # row 3 was judged, but the cut does not drop it
    assert found["clean_share"] == pytest.approx(5 * 0.05 / 3)  # five rows compared, three dropped
    assert outcome.sureness(run, said, 0.85)["clean_share"] == pytest.approx(5 * 0.01 / 1)
    assert outcome.sureness(run, said, 2.0) == {
        "judged": 0, "unsafe": 0, "precision": None, "clean_share": None,
    }  # fmt: skip


def test_scores_too_near_to_part_have_a_histogram_too(tmp_path: Path):
    scores = [0.3, 0.1 + 0.2, *[0.3] * 5]  # 0.30000000000000004
    run = open_run(run_folder(tmp_path / "run", RECORDS, ["keep"] * 7, scores, cut=None))
    assert outcome.histogram(run)["counts"] == [7, *[0] * 59]


def test_rows_without_a_number_are_sorted_last_either_way(folder: Path):
    run = open_run(folder)
    everything = np.arange(7)
    assert outcome.order(run, everything, "score", descending=True).tolist() == [0, 1, 6, 2, 3, 4, 5]
    assert outcome.order(run, everything, "score", descending=False).tolist() == [4, 3, 2, 6, 1, 0, 5]
    assert outcome.order(run, everything, "row", descending=True).tolist() == [6, 5, 4, 3, 2, 1, 0]


def test_a_p_value_is_said_as_the_count_it_stands_for(tmp_path: Path):
    run = open_run(run_folder(tmp_path / "run", RECORDS, DECIDED, SCORES))  # compared with 40 clean rows
    assert shown.p_in_words(run, {"p": 4 / 41}) == "3 of 40 clean rows stand out as far (p = 0.0976)"
    assert shown.p_in_words(run, {"p": 1 / 41}) == "0 of 40 clean rows stand out as far (p = 0.0244)"
    assert shown.p_in_words(run, {"p": 0.5}) == "50.0 % of 40 clean rows stand out as far (p = 0.5)"
    words = shown.p_in_words(run, {"p": 0.5, "p_of": "as many clean rows lost as much"})
    assert words == "as many clean rows lost as much (p = 0.5)"
    assert shown.p_in_words(run, {"p": None}) is None
    assert shown.p_in_words(run, {"p": np.inf}) is None  # a file that was changed by hand


# --- near-duplicates ---


def test_a_kept_row_that_repeats_a_dropped_one_is_found_and_another_is_not(tmp_path: Path):
    long = "the parcel that you sent to me on monday never came and nobody answers the telephone any more"
    records = [
        {"prompt": "p", "completion": long},
        {"prompt": "p", "completion": long.upper() + "!!"},
        {
            "prompt": "p",
            "completion": "the weather on the coast is mild in spring and the boats go out at five",
        },
        {"prompt": "p", "completion": long.replace("telephone", "phone")},
    ]
    run = open_run(
        run_folder(tmp_path / "run", records, ["drop", "keep", "keep", "keep"], [0.9, 0.1, 0.1, 0.1])
    )
    twins = likeness.Twins()
    likeness.find(run, twins)
    assert twins.kept_like == {0: [1, 3]} and twins.dropped_like == {1: [0], 3: [0]} and twins.share == 1


def test_the_sketch_estimates_the_share_of_common_word_triples():
    draw = np.random.default_rng(0)
    errors = []
    for _ in range(200):
        common = draw.integers(10, 90)
        one = [f"a{i}" for i in range(100)]
        other = one[:common] + [f"b{i}" for i in range(100 - common)]
        triples = [{" ".join(w[i : i + 3]) for i in range(98)} for w in (one, other)]
        truth = len(triples[0] & triples[1]) / len(triples[0] | triples[1])
        errors.append(
            sketches.alike(sketches.sketch(" ".join(one)), sketches.sketch(" ".join(other))) - truth
        )
    assert abs(np.mean(errors)) < 0.1


# --- decisions ---


def test_a_decision_is_a_line_that_filter_reads_as_a_verdict(folder: Path):
    run = open_run(folder)
    decisions = Decisions(folder / NAME, 7)
    decisions.give(0, "clean", "ada", run.row(0), expects=None)
    decisions.give(4, "unsafe", "ada", run.row(4), expects=None)
    rows = formats.read(folder.parent / "custom.jsonl").rows
    found = vetted.read(folder / NAME, rows, least=1)
    assert [(v.row, v.verdict, v.drawn, v.by) for v in found] == [
        (0, "clean", "proposed", "ada"), (4, "unsafe", "proposed", "ada"),
    ]  # fmt: skip


def test_changing_ones_mind_leaves_one_line_and_undo_brings_the_first_back(folder: Path):
    run, path = open_run(folder), folder / NAME
    decisions = Decisions(path, 7)
    decisions.give(0, "clean", "ada", run.row(0), expects=None)
    decisions.give(1, "unsure", "ada", run.row(1), expects=None)
    decisions.give(0, "unsafe", "ada", run.row(0), expects="clean")
    assert [(e["row"], e["verdict"]) for e in map(json.loads, path.open())] == [(1, "unsure"), (0, "unsafe")]
    assert decisions.undo("ada", run.row) == (0, "unsafe", "clean")
    assert decisions.said[0] == CLEAN
    assert decisions.undo("ada", run.row) == (1, "unsure", None)
    assert Decisions(path, 7).said.tolist() == [CLEAN, 0, 0, 0, 0, 0, 0]
    assert decisions.undo("ada", run.row) == (0, "clean", None) and decisions.undo("ada", run.row) is None


def test_undo_after_a_restart_takes_back_the_reviewers_own_last_line(folder: Path):
    run, path = open_run(folder), folder / NAME
    first = Decisions(path, 7)
    for row, by in ((0, "ada"), (1, "ada"), (2, "bob")):
        first.give(row, "unsafe", by, run.row(row), expects=None)
    assert Decisions(path, 7).undo("ada", run.row) == (1, "unsafe", None)
    assert sorted(Decisions(path, 7).given) == [0, 2]


def test_an_undo_that_others_forestalled_lets_the_next_one_go_on(folder: Path):
    run, path = open_run(folder), folder / NAME
    one, two = Decisions(path, 7), Decisions(path, 7)
    one.give(0, "clean", "ada", run.row(0), expects=None)
    one.give(1, "clean", "ada", run.row(1), expects=None)
    two.give(1, None, "ada", run.row(1), expects="clean")
    with pytest.raises(OtherwiseError):
        one.undo("ada", run.row)
    assert one.undo("ada", run.row) == (0, "clean", None)


def test_what_one_thread_reads_of_the_decisions_does_not_change_in_its_hands(folder: Path):
    run, path = open_run(folder), folder / NAME
    decisions, other = Decisions(path, 7), Decisions(path, 7)
    decisions.give(0, "clean", "ada", run.row(0), expects=None)
    people, said = decisions.given[0], decisions.said
    decisions.give(0, "unsafe", "bob", run.row(0), expects=None)
    assert list(people) == ["ada"] and list(decisions.given[0]) == ["ada", "bob"]
    other.give(1, "unsafe", "cy", run.row(1), expects=None)
    decisions.refresh()
    assert (said[1], decisions.said[1]) == (NONE, UNSAFE)


def test_two_reviewers_keep_both_lines_and_a_tie_is_unsure(folder: Path):
    run, path = open_run(folder), folder / NAME
    one, two = Decisions(path, 7), Decisions(path, 7)
    one.give(0, "unsafe", "ada", run.row(0), expects=None)
    two.give(0, "clean", "bob", run.row(0), expects=None)
    one.refresh()
    assert one.given[0] == {"ada": "unsafe", "bob": "clean"}
    assert one.said[0] == UNSURE
    two.give(0, "unsafe", "bob", run.row(0), expects="clean")
    one.refresh()
    assert one.said[0] == UNSAFE


def test_under_one_name_nobody_overwrites_what_they_did_not_see(folder: Path):
    run, path = open_run(folder), folder / NAME
    one, two = Decisions(path, 7), Decisions(path, 7)
    one.give(0, "unsafe", "ada", run.row(0), expects=None)
    with pytest.raises(OtherwiseError) as refused:
        two.give(0, "clean", "ada", run.row(0), expects=None)
    assert refused.value.found == "unsafe"
    assert Decisions(path, 7).said[0] == UNSAFE


def test_many_at_once_lose_nothing(tmp_path: Path):
    rows = 120
    records = [{"prompt": str(i), "completion": f"c{i}"} for i in range(rows)]
    folder = run_folder(tmp_path / "run", records, ["keep"] * rows, [0.1] * rows)
    run = open_run(folder)
    run.data  # noqa: B018 (put together before the threads ask)

    def judge(by: str) -> None:
        own = Decisions(folder / NAME, rows)  # as a server of one's own
        for row in range(rows):
            own.give(row, "clean", by, run.row(row), expects=None)
            if row % 10 == 0:
                own.undo(by, run.row)

    people = [threading.Thread(target=judge, args=(by,)) for by in ("ada", "bob", "cy")]
    for person in people:
        person.start()
    for person in people:
        person.join()
    given = Decisions(folder / NAME, rows).given
    assert {row: len(by) for row, by in given.items()} == {r: 3 for r in range(rows) if r % 10}


def test_a_line_cut_off_by_a_crash_is_not_one_and_the_next_gets_its_own(folder: Path):
    run, path = open_run(folder), folder / NAME
    Decisions(path, 7).give(0, "clean", "ada", run.row(0), expects=None)
    with path.open("a") as file:
        file.write('{"row": 1, "verd')
    again = Decisions(path, 7)
    assert sorted(again.given) == [0]
    again.give(2, "unsafe", "ada", run.row(2), expects=None)
    assert sorted(Decisions(path, 7).given) == [0, 2]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('{"row": 1, "verdict": "clean"}\nnonsense\n', r"line 2: no verdict \('nonsense'\)"),
        ('{"row": 99, "verdict": "clean"}\n', "line 1: \"row\" is '99'; the run has rows 0 to 6"),
        (
            '{"row": 1, "verdict": "purple"}\n',
            "line 1: \"verdict\" is 'purple'; known: clean, unsafe, unsure",
        ),
        (
            '{"row": 1, "verdict": "clean"}\n{"row": 1, "verdict": "unsafe"}\n',
            "row 1 is unsafe here and clean in line 1",
        ),
    ],
)
def test_a_decision_file_broken_by_hand_names_the_line_and_is_not_touched(
    folder: Path, lines: str, words: str
):
    (folder / NAME).write_text(lines)
    with pytest.raises(DataError, match=words):
        Decisions(folder / NAME, 7)
    assert (folder / NAME).read_text() == lines


def test_a_decision_is_flushed_to_the_disk_before_it_counts_as_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    path, flushed, sync = folder / NAME, list[tuple[int, bytes]](), os.fsync

    def watched(file: int) -> None:
        sync(file)
        flushed.append((os.fstat(file).st_ino, path.read_bytes()))

    monkeypatch.setattr(os, "fsync", watched)
    decisions = Decisions(path, 7)
    decisions.give(3, "unsafe", "ada", None, expects=None)
    assert flushed == [(path.stat().st_ino, path.read_bytes())]
    decisions.give(3, "clean", "ada", None, expects="unsafe")
    assert path.stat().st_ino in [inode for inode, _ in flushed[1:]]  # the file that took its place


def test_decisions_that_cannot_be_read_are_told_and_nothing_is_written(folder: Path):
    (folder / NAME).mkdir()
    for use in (lambda: Decisions(folder / NAME, 7), lambda: run_apply(folder, say=lambda line: None)):
        with pytest.raises(ConfigError, match=r"review\.jsonl: decisions cannot be read .*Move it away"):
            use()
    assert not (folder / "reviewed").exists()


# --- apply ---


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_apply_writes_all_rows_anew_beside_the_old_files(tmp_path: Path, suffix: str):
    folder = run_folder(tmp_path / "run", RECORDS, DECIDED, SCORES, suffix=suffix)
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    (folder / NAME).write_text('{"row": 0, "verdict": "clean"}\n{"row": 4, "verdict": "unsafe"}\n')
    said: list[str] = []
    assert run_apply(folder, weights=True, say=said.append) == 0
    extra = {
        name: [r["extra"] for r in formats.read_records(folder / "reviewed" / f"{name}{suffix}")]
        for name in ("kept", "flagged", "dropped", "weighted")
    }
    assert extra == {"kept": [0, 5, 6], "flagged": [3], "dropped": [1, 2, 4], "weighted": list(range(7))}
    weighted = formats.read_records(folder / "reviewed" / f"weighted{suffix}")
    assert [r["weight"] for r in weighted] == [1, 0, 0, 0, 0, 1, 1]
    assert {name: (folder / name).read_bytes() for name in before} == before
    text = "\n".join(said)
    assert "LLaMA-Factory" in text and "axolotl" in text and "load_dataset" in text
    lines = [json.loads(line) for line in (folder / "reviewed" / "decisions.jsonl").open()]
    assert lines[0]["decision"] == "keep" and lines[0]["was"] == "drop"
    assert lines[0]["verdicts"] == [{"by": None, "verdict": "clean"}] and "was" not in lines[1]


def test_the_summary_counts_before_and_after_and_no_text_of_the_run_is_markup(folder: Path):
    (folder / NAME).write_text('{"row": 0, "verdict": "clean"}\n')
    run_apply(folder, cut=0.75, say=lambda line: None)
    text = (folder / "reviewed" / "summary.md").read_text()
    assert "| dropped | 3 | 1 | 14.3 % |" in text and "| kept | 1 | 3 | 42.9 % |" in text
    assert "- 2 rows: dropped → kept" in text and "moved to 0.75 in the review" in text
    assert "<hidden>" not in text


def test_apply_overwrites_nothing_and_refuses_files_that_changed(folder: Path):
    (folder / "reviewed").mkdir()
    with pytest.raises(ConfigError, match="reviewed is there already and is not overwritten"):
        run_apply(folder, say=lambda line: None)
    mangled(folder, "kept.jsonl", lambda text: text.replace("Answer 4", "Answer X"))
    with pytest.raises(ConfigError, match=r"kept\.jsonl: was changed since the run wrote it"):
        run_apply(folder, output=folder / "other", say=lambda line: None)
    assert not (folder / "other").exists() and list((folder / "reviewed").iterdir()) == []


def test_an_apply_that_fails_half_way_leaves_nothing(tmp_path: Path):
    folder = run_folder(tmp_path / "run", [{**r, "weight": 1} for r in RECORDS], DECIDED, SCORES)
    before = sorted(folder.iterdir())
    with pytest.raises(DataError, match='has a field "weight" already'):
        run_apply(folder, weights=True, say=lambda line: None)  # after kept, flagged and dropped rows
    assert sorted(p for p in folder.iterdir() if not p.name.endswith(".lock")) == before


# --- the server ---


@pytest.fixture
def served(environment) -> Iterator[Callable[..., Served]]:
    servers: list[Served] = []

    def start(folder: Path, *arguments: str) -> Served:
        servers.append(Served(environment, "review", str(folder), *arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def test_data_is_for_the_token_on_this_machines_own_names_alone(folder: Path, served):
    server = served(folder, "--by", "ada")
    assert server.ask("/", method="GET")[0] == 200
    assert "default-src 'none'" in server.headers["content-security-policy"]
    status, said = server.ask("/api/about", host="evil.example:80")
    assert status == 421 and "http://127.0.0.1:" in said and "ssh -L" in said
    assert server.ask("/", method="GET", host="127.0.0.1.evil.example")[0] == 421
    assert server.ask("/api/about", authorization="Bearer wrong")[0] == 401
    assert server.ask("/api/about", authorization="")[0] == 401
    assert server.ask("/api/about", host="localhost:1234")[1]["by"] == "ada"
    assert server.ask("/api/select", {"sort": "nonsense"}) == (
        400,
        {"error": "rows cannot be sorted by 'nonsense'"},
    )
    assert server.ask("/api/decide", {"row": 99})[0] == 400
    assert server.ask("/api/state", {"cut": "x"})[0] == 400
    assert server.ask("/api/select", ["a list"])[0] == 400
    assert server.ask("/api/about", {"x": "y" * 70_000})[0] == 413
    assert server.stop() == 0


def test_the_page_lists_searches_decides_and_undoes(folder: Path, served):
    server = served(folder, "--by", "ada")
    _, found = server.ask("/api/select", {"show": ["drop", "keep"], "descending": False})
    assert found["total"] == 4
    _, page = server.ask("/api/page", {"list": found["list"], "start": 0, "count": 10})
    assert [r["row"] for r in page["rows"]] == [4, 2, 1, 0]
    assert server.ask("/api/select", {"search": "aNSWER 3"})[1]["total"] == 1
    _, said = server.ask("/api/decide", {"row": 0, "verdict": "clean", "by": "ada", "expects": None})
    assert said["counts"]["drop"] == 2 and said["rows"][0]["outcome"] == "keep"
    assert json.loads((folder / NAME).read_text())["verdict"] == "clean"
    status, said = server.ask("/api/decide", {"row": 0, "verdict": "unsafe", "by": "ada", "expects": None})
    assert status == 409 and "judged meanwhile under your name: clean" in said["error"]
    assert server.ask("/api/select", {"judged": "open", "by": "ada"})[1]["total"] == 6
    assert server.ask("/api/undo", {"by": "ada"})[1]["counts"]["drop"] == 3
    assert (folder / NAME).read_text() == ""
    assert server.ask("/api/page", {"list": 999, "start": 0, "count": 10})[0] == 410


def test_the_address_alone_is_on_stdout_and_a_long_name_is_the_one_in_the_file(folder: Path, served):
    server = served(folder, "--by", f"{'a' * 59} \u200bb")
    assert server.ask("/api/about")[1]["by"] == "a" * 59
    said = server.end()  # and that stdout holds no more
    assert "Open in a browser on this machine" in said and "http" not in said


def test_a_port_in_use_is_said_with_the_way_out(folder: Path, served, command):
    server = served(folder)
    done = command("review", str(folder), "--port", str(server.port))
    assert done.returncode == 2 and f"cannot listen on port {server.port}" in done.stderr
    assert "another --port" in done.stderr


def test_a_decision_file_broken_by_hand_ends_the_command_with_2(folder: Path, command):
    (folder / NAME).write_text('{"row": 1}\n')
    done = command("review", str(folder))
    assert done.returncode == 2 and "review.jsonl line 1: no verdict" in done.stderr
    assert command("apply", str(folder)).returncode == 2 and not (folder / "reviewed").exists()


@pytest.mark.slow
def test_a_thousand_decisions_survive_kill_9(tmp_path: Path, served):
    folder = many(tmp_path / "run", 1_200)
    server = served(folder)
    for row in range(1_000):
        status, _ = server.ask("/api/decide", {"row": row, "verdict": "clean", "by": "ada", "expects": None})
        assert status == 200
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    assert sorted(Decisions(folder / NAME, 1_200).given) == list(range(1_000))
    again = served(folder)
    assert again.ask("/api/state")[1]["progress"]["clean"] == 1_000


@pytest.mark.slow
def test_a_moved_cut_is_answered_within_100_ms_with_100_000_rows(tmp_path: Path, served):
    server = served(many(tmp_path / "run", 100_000))
    server.ask("/api/select", {})
    times = []
    for cut in np.linspace(0, 1, 21):
        began = time.perf_counter()
        assert server.ask("/api/state", {"cut": float(cut)})[0] == 200
        times.append(time.perf_counter() - began)
    print(f"a moved cut is answered in {1000 * np.median(times):.0f} ms, at most {1000 * max(times):.0f} ms")
    assert np.median(times) < 0.1


def test_memory_holds_numbers_and_no_text(folder: Path):
    run: RunFiles = open_run(folder)
    held = json.dumps({k: str(v) for k, v in vars(run).items()})
    assert "Answer" not in held and "Question" not in held


# --- damaged folders ---

LOOKED_AT = ("report.json", "scores.jsonl", NAME, "heat.jsonl", "dropped.jsonl")


def spoiled(text: bytes, draw: np.random.Generator) -> bytes:
    """The file with one thing wrong: bytes changed, cut, a line gone or twice, a value of another kind."""
    lines = text.splitlines(keepends=True)
    i, at = int(draw.integers(len(lines))), int(draw.integers(len(text)))
    kinds = [b"null", b"[1]", b"{}", b'"x"', b"-1", b"1e400", b"true"]
    value = kinds[draw.integers(len(kinds))]
    choices = [
        lambda: text[:at] + bytes(draw.integers(0, 256, 3, np.uint8)) + text[at + 3 :],
        lambda: text[:at],
        lambda: b"".join(lines[:i] + lines[i + 1 :]),
        lambda: b"".join(lines[: i + 1] + lines[i:]),
        lambda: re.sub(rb'(?<=: )("[^"]*"|[-\d.]+|null|\{[^{}]*\}|\[[^\[\]]*\])',
                       lambda m: value if draw.random() < 0.3 else m[0], text),
    ]  # fmt: skip
    return choices[draw.integers(len(choices))]()


def use(folder: Path) -> None:
    """Everything the page and `apply` do with a folder."""
    run = open_run(folder)
    refuse_changed(run)
    review = Review(run, Decisions(folder / NAME, len(run)), "token", "ada")
    review.about({})
    review.state({"cut": 0.4})
    review.select({"search": "answer", "count": 10})
    for row in range(len(run)):
        review.row({"row": row})
    likeness.search(run, review.twins, lambda line: None)
    json.dumps(outcome.counted(outcome.outcomes(run, review.decisions.said)))
    run_apply(folder, output=folder / "out", say=lambda line: None)


def test_a_damaged_folder_is_refused_in_words_or_read_but_never_a_defect(tmp_path: Path):
    heat = {i: [["Answer", 0.1], [f" {i}", 0.5]] for i in range(3)}
    folder = run_folder(tmp_path / "run", RECORDS, DECIDED, SCORES, heat=heat)
    (folder / NAME).write_text(
        '{"row": 0, "verdict": "clean", "by": "ada"}\n{"row": 4, "verdict": "unsafe"}\n'
    )
    whole = {name: (folder / name).read_bytes() for name in LOOKED_AT}
    use(folder)
    refused = 0
    for seed in range(300):
        draw = np.random.default_rng(seed)
        shutil.rmtree(folder / "out", ignore_errors=True)
        for name, content in whole.items():
            (folder / name).write_bytes(content)
        name = LOOKED_AT[seed % len(LOOKED_AT)]
        (folder / name).write_bytes(spoiled(whole[name], draw))
        try:
            use(folder)
        except ForgetfilterError:
            refused += 1
            assert not (folder / "out").exists()
    assert refused > 100  # the rest does no harm: a reason, a heat map
