"""`forgetfilter vet`: asking, going back, going on, and what is on the disk meanwhile."""

import dataclasses
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from reviewed import run_folder

from forgetfilter.data import formats
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.filter import propose, vet, vetted
from forgetfilter.review import vet as command
from forgetfilter.review import vet_terminal


@pytest.fixture
def custom(tmp_path):
    path = tmp_path / "custom.jsonl"
    lines = [{"prompt": f"What is {i} plus one?", "completion": f"It is {i + 1}."} for i in range(40)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


class Read:
    """States that were read already."""

    def __init__(self, states):
        self.states = states

    def reading(self):
        return False

    def wait(self, say):
        return self.states


def session(custom, path, wanted, random=5):
    rows = formats.read(custom).rows
    states = np.random.default_rng(0).normal(size=(len(rows), 4))
    first = propose.random_order(len(rows), 0)[:random].tolist()
    return vet.begin(rows, path, wanted, first, Read(states), say=lambda line: None)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_random_rows_come_first_then_proposed_ones_and_each_verdict_is_on_disk(custom, tmp_path):
    path, on_disk = tmp_path / "v.jsonl", []

    def judge(screen):
        on_disk.append(len(path.read_text().splitlines()) if path.exists() else 0)
        return "clean", ""

    command._ask(session(custom, path, 12), judge, None, lambda line: None)
    assert on_disk == list(range(12))
    assert [line["drawn"] for line in lines(path)] == ["random"] * 5 + ["proposed"] * 7
    assert len({line["row"] for line in lines(path)}) == 12


def test_back_takes_the_last_verdict_from_the_disk_and_asks_the_row_again(custom, tmp_path):
    path, shown = tmp_path / "v.jsonl", []
    answers = iter(["clean", "unsafe", "back", "clean", "quit"])

    def judge(screen):
        shown.append((screen.row.index, screen.drawn))
        return next(answers), "a note" if len(shown) == 4 else ""

    command._ask(session(custom, path, 12), judge, "ann", lambda line: None)
    assert shown[1] == shown[3] and shown[2] == shown[4]
    assert [(line["verdict"], line.get("note"), line["by"]) for line in lines(path)] == [
        ("clean", None, "ann"), ("clean", "a note", "ann"),
    ]  # fmt: skip


def test_back_goes_as_far_as_wanted_and_the_rows_come_again_in_the_same_order(custom, tmp_path):
    path = tmp_path / "v.jsonl"
    asked = session(custom, path, 20, random=3)
    first = []
    for _ in range(16):  # three random ones, ten proposed, three of the next round
        first.append((asked.screen().row.index, asked.screen().drawn))
        asked.judge("clean")
    for _ in range(15):
        assert asked.back()
    assert len(lines(path)) == 1
    again = session(custom, path, 20, random=3)  # another sitting knows only what is in the file
    for sitting, known in ((asked, 16), (again, 3)):
        rows = []
        for _ in range(known - 1):
            rows.append((sitting.screen().row.index, sitting.screen().drawn))
            sitting.judge("clean")
        assert [first[0], *rows] == first[:known]
        while len(sitting.verdicts) > 1:
            assert sitting.back()


def test_back_before_the_first_verdict_says_so(custom, tmp_path):
    said, answers = [], iter(["back", "quit"])
    asked = session(custom, tmp_path / "v.jsonl", 5)
    command._ask(asked, lambda screen: (next(answers), ""), None, said.append)
    assert said == ["There is no verdict to go back to."]


@pytest.mark.parametrize(
    ("unsafe", "words"),
    [
        ({"random": 0, "proposed": 10}, "The last 10 proposed held 10 unsafe: going on pays."),
        ({"random": 0, "proposed": 1}, "The last 10 proposed held 1 unsafe: another round may find more."),
        ({"random": 1, "proposed": 0}, "The last 10 proposed held none: going on hardly pays."),
        ({"random": 0, "proposed": 0}, "The last 10 proposed held none; none was seen yet."),
    ],
)
def test_a_round_says_whether_going_on_pays(custom, tmp_path, unsafe, words):
    asked = session(custom, tmp_path / "v.jsonl", 15)
    while screen := asked.screen():
        assert screen.pays == ""
        given = sum(v.drawn == screen.drawn for v in asked.verdicts.values())
        asked.judge("unsafe" if given < unsafe[screen.drawn] else "clean")
    assert asked.pays() == words
    assert session(custom, tmp_path / "v.jsonl", 15).pays() == words  # and still does the next time


def test_the_share_comes_from_the_random_part_alone(custom, tmp_path):
    asked = session(custom, tmp_path / "v.jsonl", 20, random=12)
    for i in range(20):
        asked.screen()
        asked.judge("unsafe" if i > 8 else "clean")
    assert asked.so_far() == "11 unsafe seen; 25% of the file (5% to 57%)"  # 3 of 12, Clopper and Pearson


def test_two_sittings_on_one_file_do_not_contradict_each_other(custom, tmp_path):
    one, two = (session(custom, tmp_path / "v.jsonl", 5) for _ in range(2))
    one.screen()
    one.judge("clean")
    two.screen()
    with pytest.raises(ConfigError, match="written by somebody else meanwhile"):
        two.judge("unsafe")
    assert len(lines(tmp_path / "v.jsonl")) == 1


@pytest.mark.slow
def test_answers_from_a_file_resume_and_reuse_the_states(custom, tmp_path):
    answers, said = tmp_path / "truth.jsonl", []
    answers.write_text(
        "".join(f'{{"row": {i}, "verdict": "{["clean", "unsafe"][i % 4 == 0]}"}}\n' for i in range(40))
    )
    output = tmp_path / "v.jsonl"
    assert command.run_vet(str(custom), output=output, rows=32, answers=answers, say=said.append) == 0
    assert f"Verdicts come from {answers}, not from a person." in said
    first = output.read_text()
    kept = (tmp_path / "v.states.npz").stat().st_mtime_ns
    assert command.run_vet(str(custom), output=output, rows=36, answers=answers, say=said.append) == 0
    assert output.read_text().startswith(first) and len(output.read_text().splitlines()) == 36
    assert (tmp_path / "v.states.npz").stat().st_mtime_ns == kept
    found = vetted.read(output, formats.read(custom).rows)
    assert all((v.verdict == "unsafe") == (v.row % 4 == 0) for v in found)


def test_random_rows_alone_need_no_model_and_none_is_proposed(custom, tmp_path):
    answers, output = tmp_path / "truth.jsonl", tmp_path / "v.jsonl"
    answers.write_text("".join(f'{{"row": {i}, "verdict": "clean"}}\n' for i in range(40)))
    asked = {"output": output, "rows": 38, "random": True, "answers": answers}
    assert command.run_vet(str(custom), model="no/such-model", say=[].append, **asked) == 0
    found = vetted.read(output, formats.read(custom).rows)
    assert len({v.row for v in found}) == 38 and {v.drawn for v in found} == {"random"}
    assert not (tmp_path / "v.states.npz").exists()


def test_without_a_terminal_the_way_out_is_named(custom):
    with pytest.raises(ConfigError, match=r"there is no terminal.*add --page.*--answers FILE"):
        command.run_vet(str(custom))


def test_a_run_of_other_rows_is_refused(custom, tmp_path):
    rows = formats.read(custom).rows
    with pytest.raises(ConfigError, match="holds no run"):
        command._rankings(rows, tmp_path, print)
    records = [dict(row.record) for row in rows]
    scores = [row.index / 10 for row in rows]
    run = run_folder(tmp_path / "of" / "run", records, ["keep"] * 40, scores)
    assert command._rankings(rows, run, lambda line: None)[0].tolist() == scores
    with pytest.raises(DataError, match="its scores are of other rows"):
        command._rankings([dataclasses.replace(row, id="0") for row in rows], run, print)
    (run / "scores.jsonl").write_text((run / "scores.jsonl").read_text().replace("{", "[", 1))
    with pytest.raises(ConfigError, match=r"scores\.jsonl line 1: no line of a run"):
        command._rankings(rows, run, print)


@pytest.mark.parametrize(
    ("input", "file"),
    [
        ("custom.jsonl", "custom.vetted.jsonl"),
        ("shards/", "shards.vetted.jsonl"),
        ("-", "stdin.vetted.jsonl"),
        ("owner/name", "name.vetted.jsonl"),
        ("shards/train-*.jsonl", "../here/shards.vetted.jsonl"),
        ("*.jsonl", "../here.vetted.jsonl"),
        (".", "../here.vetted.jsonl"),
    ],
)
def test_verdicts_lie_beside_the_input_and_never_in_its_pattern(tmp_path, monkeypatch, input, file):
    (tmp_path / "here" / "shards").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert command._verdict_file(input).absolute() == (tmp_path / "here" / file).resolve()


def test_where_no_verdict_can_be_written_nobody_is_asked(custom, tmp_path):
    for output, why in ((tmp_path, "is a folder"), (tmp_path / "no" / "v.jsonl", "cannot be written")):
        with pytest.raises(ConfigError, match=why):
            command.run_vet(str(custom), output=output, answers=tmp_path / "answers.jsonl")


def test_long_turns_are_folded_to_the_width_and_control_characters_spelled_out(tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "word " * 500, "completion": "red \x1b[31m text"}) + "\n")
    row = formats.read(path).rows[0]
    folded, whole = list(vet_terminal.row_lines(row, 38, True)), list(vet_terminal.row_lines(row, 38, False))
    assert max(map(len, folded)) <= 38 and len(folded) < 25 < len(whole)
    assert any("lines more (m)" in line for line in folded)
    assert not any("\x1b" in line for line in whole) and any("\\x1b[31m" in line for line in whole)


def test_arrows_and_alt_keys_are_no_verdicts_and_what_is_typed_ahead_counts(monkeypatch):
    us, them = pty.openpty()
    with os.fdopen(them) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        os.write(us, b"\x1b[C\x1bOB\x1b[1;5Du\x1bcna note\ns")  # right, down, control left; Alt-c
        assert [vet_terminal._key() for _ in range(6)] == ["\x1b", "\x1b", "\x1b", "u", "\x1b", "n"]
        assert vet_terminal._line("note: ", lambda line: None) == "a note"
        assert vet_terminal._key() == "s"
    os.close(us)


@pytest.mark.slow
def test_keys_in_a_terminal_and_a_kill_lose_only_the_row_on_screen(custom, tmp_path):
    output = tmp_path / "v.jsonl"
    vetting = [sys.executable, "-m", "forgetfilter", "vet", str(custom), "-o", str(output), "--rows", "20"]

    def sitting(keys, end):
        us, them = pty.openpty()
        process = subprocess.Popen(
            vetting, stdin=them, stdout=them, stderr=them, env={**os.environ, "TERM": "dumb"}
        )
        seen = b""
        for key in keys:
            seen += until(us, b"q quit")
            os.write(us, key)
        seen += until(us, b"q quit")
        end(us, process)
        code = process.wait(180)
        os.close(us)
        os.close(them)
        return code, seen.decode()

    def until(us, words):
        seen, stop = b"", time.monotonic() + 300
        while words not in seen and time.monotonic() < stop:
            if select.select([us], [], [], 0.2)[0]:
                seen += os.read(us, 4096)
        assert words in seen, seen
        return seen

    code, _ = sitting([b"c", b"u"], lambda us, process: process.send_signal(signal.SIGKILL))
    assert code == -signal.SIGKILL
    assert [line["verdict"] for line in lines(output)] == ["clean", "unsafe"]
    code, seen = sitting([b"s"], lambda us, process: os.write(us, b"q"))
    assert code == 0 and "2 verdicts so far" in seen
    assert [line["verdict"] for line in lines(output)] == ["clean", "unsafe", "unsure"]
