"""`forgetfilter vet`: asking, going back, going on, and what is on the disk meanwhile."""

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

from forgetfilter.data import formats
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.filter import propose, vet, vetted


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

    def wait(self, say):
        return self.states


def session(custom, path):
    rows = formats.read(custom).rows
    states = np.random.default_rng(0).normal(size=(len(rows), 4))
    return vet.Session(rows, path, [int(r) for r in propose.random_order(len(rows), 0)[:5]], Read(states))


def test_random_rows_come_first_then_proposed_ones_and_each_verdict_is_on_disk(custom, tmp_path):
    path, on_disk = tmp_path / "v.jsonl", []
    asked = session(custom, path)

    def judge(screen):
        on_disk.append(len(path.read_text().splitlines()) if path.exists() else 0)
        return "clean"

    vet._ask(asked, 12, judge, None, lambda line: None)
    assert on_disk == list(range(12))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["drawn"] for line in lines] == ["random"] * 5 + ["proposed"] * 7
    assert len({line["row"] for line in lines}) == 12


def test_back_takes_the_last_verdict_from_the_disk_and_asks_the_row_again(custom, tmp_path):
    path, shown = tmp_path / "v.jsonl", []
    answers = iter(["clean", "unsafe", "back", "clean:a note", "quit"])

    def judge(screen):
        shown.append((screen.row.index, screen.drawn))
        return next(answers)

    vet._ask(session(custom, path), 12, judge, "ann", lambda line: None)
    assert shown[1] == shown[3] and shown[2] == shown[4]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["verdict"], line.get("note"), line["by"]) for line in lines] == [
        ("clean", None, "ann"), ("clean", "a note", "ann"),
    ]  # fmt: skip


def test_back_before_the_first_verdict_says_so(custom, tmp_path):
    said, answers = [], iter(["back", "quit"])
    vet._ask(session(custom, tmp_path / "v.jsonl"), 5, lambda screen: next(answers), None, said.append)
    assert said == ["There is no verdict to go back to."]


def test_a_round_says_whether_going_on_pays(custom, tmp_path):
    said, asked = [], session(custom, tmp_path / "v.jsonl")
    vet._ask(asked, 16, lambda screen: "unsafe" if screen.drawn == "proposed" else "clean", None, said.append)
    assert said == ["The last 10 held 10 unsafe rows: going on pays."]


def test_the_share_comes_from_the_random_part_alone(custom, tmp_path):
    asked = session(custom, tmp_path / "v.jsonl")
    asked.random = list(range(12))
    for i in range(20):
        drawn = "random" if i < 12 else "proposed"
        asked.add(vetted.Verdict(i, asked.rows[i].id, "unsafe" if i > 8 else "clean", drawn))
    assert asked.so_far() == "11 unsafe seen; 25% of the file (5% to 57%)"  # 3 of 12, Clopper and Pearson


@pytest.mark.slow
def test_answers_from_a_file_resume_and_reuse_the_states(custom, tmp_path):
    answers, said = tmp_path / "truth.jsonl", []
    answers.write_text(
        "".join(f'{{"row": {i}, "verdict": "{["clean", "unsafe"][i % 4 == 0]}"}}\n' for i in range(40))
    )
    output = tmp_path / "v.jsonl"
    assert vet.run_vet(str(custom), output=output, rows=32, answers=answers, say=said.append) == 0
    assert f"Verdicts come from {answers}, not from a person." in said
    first = output.read_text()
    kept = (tmp_path / "v.states.npz").stat().st_mtime_ns
    assert vet.run_vet(str(custom), output=output, rows=36, answers=answers, say=said.append) == 0
    assert output.read_text().startswith(first) and len(output.read_text().splitlines()) == 36
    assert (tmp_path / "v.states.npz").stat().st_mtime_ns == kept
    found = vetted.read(output, formats.read(custom).rows)
    assert all((v.verdict == "unsafe") == (v.row % 4 == 0) for v in found)


def test_random_rows_alone_need_no_model_and_none_is_proposed(custom, tmp_path):
    answers, output = tmp_path / "truth.jsonl", tmp_path / "v.jsonl"
    answers.write_text("".join(f'{{"row": {i}, "verdict": "clean"}}\n' for i in range(40)))
    asked = {"output": output, "rows": 38, "random": True, "answers": answers}
    assert vet.run_vet(str(custom), model="no/such-model", say=[].append, **asked) == 0
    found = vetted.read(output, formats.read(custom).rows)
    assert len({v.row for v in found}) == 38 and {v.drawn for v in found} == {"random"}
    assert not (tmp_path / "v.states.npz").exists()


def test_without_a_terminal_the_way_out_is_named(custom):
    with pytest.raises(ConfigError, match=r"there is no terminal.*--answers FILE"):
        vet.run_vet(str(custom))


def test_a_run_of_other_rows_is_refused(custom, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    rows = formats.read(custom).rows
    with pytest.raises(ConfigError, match=r"no scores\.jsonl there"):
        vet._rankings(rows, run, print)
    (run / "scores.jsonl").write_text('{"id": "other", "score": 1.0}\n')
    with pytest.raises(DataError, match="its scores are of other rows"):
        vet._rankings(rows, run, print)
    (run / "scores.jsonl").write_text(json.dumps({"id": rows[3].id, "score": 2.5}) + "\n")
    assert vet._rankings(rows, run, lambda line: None)[0][3] == 2.5


def test_long_turns_are_folded_to_the_width_and_control_characters_spelled_out(tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "word " * 500, "completion": "red \x1b[31m text"}) + "\n")
    row = formats.read(path).rows[0]
    folded, whole = list(vet.row_lines(row, 38, True)), list(vet.row_lines(row, 38, False))
    assert max(map(len, folded)) <= 38 and len(folded) < 25 < len(whole)
    assert any("lines more (m)" in line for line in folded)
    assert not any("\x1b" in line for line in whole) and any("\\x1b[31m" in line for line in whole)


@pytest.mark.slow
def test_keys_in_a_terminal_and_a_kill_lose_only_the_row_on_screen(custom, tmp_path):
    output = tmp_path / "v.jsonl"
    command = [sys.executable, "-m", "forgetfilter", "vet", str(custom), "-o", str(output), "--rows", "20"]

    def sitting(keys, end):
        us, them = pty.openpty()
        process = subprocess.Popen(
            command, stdin=them, stdout=them, stderr=them, env={**os.environ, "TERM": "dumb"}
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
    assert [json.loads(x)["verdict"] for x in output.read_text().splitlines()] == ["clean", "unsafe"]
    code, seen = sitting([b"s"], lambda us, process: os.write(us, b"q"))
    assert code == 0 and "2 verdicts so far" in seen
    assert [json.loads(x)["verdict"] for x in output.read_text().splitlines()] == [
        "clean",
        "unsafe",
        "unsure",
    ]
