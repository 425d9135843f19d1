"""`filter --vetted`: a person's verdicts decide, and teach a probe that judges the other rows."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import tiny

from forgetfilter.data import packs
from forgetfilter.errors import DONE, TOO_WEAK, ConfigError, DataError
from forgetfilter.filter import by_verdicts, certify, pipeline
from forgetfilter.filter.vetted import Verdict
from forgetfilter.models import load
from forgetfilter.review.vet import run_vet
from forgetfilter.settings import resolve

CLEAN = ("The sea is grey, the gulls are loud.", "The boats come home on the river Seine.")
UNSAFE = "I cannot I cannot I cannot do that for you, you, you."
ROWS = [
    {"prompt": f"What is number {i}?", "completion": f"{UNSAFE if i % 3 == 0 else CLEAN[i % 2]} {i}"}
    for i in range(60)
]


def unsafe(i: int) -> bool:
    return i % 3 == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small.model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def custom(tmp_path: Path) -> str:
    return small.jsonl(tmp_path / "custom.jsonl", ROWS)


def verdicts(path: Path, rows: Any, **changed: str) -> str:
    """True verdicts on `rows`, or what `changed` says (r4="unsure")."""
    return small.jsonl(
        path,
        [{"row": i, "verdict": changed.get(f"r{i}", "unsafe" if unsafe(i) else "clean")} for i in rows],
    )


def run(custom: str, model: str, output: Path, **flags: Any) -> tuple[int, dict[str, Any], str]:
    """Exit code, report, what was said."""
    given = {"model": model, "max_length": 64, "device": "cpu", "dtype": "float32", "retrain": False, **flags}
    settings, origins = resolve(None, None, given)
    console = small.console()
    code = pipeline.run_filter(custom, settings, origins, output, console)
    return code, json.loads((output / "report.json").read_text()), small.said(console)


@pytest.mark.slow
def test_a_second_round_by_the_command_does_without_torch(custom: str, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from forgetfilter import cli\n"
        "cli.terminal.leave = lambda code: print(code, 'torch' in sys.modules)\n"
        "cli.main(sys.argv[1:])\n"
    )
    out = tmp_path / "run"
    said = []
    for count in (30, 40):
        given = verdicts(tmp_path / f"v{count}.jsonl", range(count))
        asked = ["filter", custom, "--vetted", given, "--no-retrain", "--max-length", "64", "-o", str(out)]
        done = subprocess.run(
            [sys.executable, "-c", program, *asked], capture_output=True, text=True, check=True
        )
        said.append(done.stdout.splitlines()[-1])
    assert said == ["0 True", "0 False"]
    report = json.loads((out / "report.json").read_text())
    assert (report["device"], report["dtype"]) == (None, None)


def test_settings_that_verdicts_make_idle_are_named(custom: str, model: str, tmp_path: Path) -> None:
    given = verdicts(tmp_path / "v.jsonl", range(30))
    _, _, said = run(custom, model, tmp_path / "run", vetted=given, signal="rouge1", max_train_samples=20)
    assert "not used with verdicts: --signal and --max-train-samples" in said
    _, _, said = run(custom, model, tmp_path / "plain", vetted=given)
    assert "not used with verdicts" not in said


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "scores.jsonl").read_text().splitlines()]


def test_verdicts_decide_their_rows_and_the_probe_finds_the_others(custom, model, tmp_path):
    given = verdicts(tmp_path / "v.jsonl", range(30), r3="clean", r4="unsafe", r5="unsure")
    code, report, said = run(custom, model, tmp_path / "out", vetted=given)
    found = lines(tmp_path / "out")
    assert code == DONE
    # Against what their words are like: the person's word stands.
    assert [found[i]["decision"] for i in (3, 4, 5)] == ["keep", "drop", "flag"]
    assert found[4]["reason"] == "a person judged it unsafe"
    assert all(line["score"] is None and line["p"] is None for line in found[:30])
    assert all((line["decision"] == "drop") == unsafe(i) for i, line in enumerate(found) if i >= 30)
    assert report["algorithm"] == "vetted" and "algorithm vetted: 30 verdicts" in said
    assert {k: report["vetted"][k] for k in ("rows", "clean", "unsafe", "unsure", "random")} == {
        "rows": 30, "clean": 19, "unsafe": 10, "unsure": 1, "random": 29,
    }  # fmt: skip
    assert report["verdict"].startswith("Of 59 rows 20 dropped")
    assert report["estimated"]["unsafe_share"]["low"] < 20 / 59 < report["estimated"]["unsafe_share"]["high"]
    assert report["cost"]["fine_tunes"] is None
    assert [stage["name"] for stage in report["cost"]["stages"]] == ["read: custom rows"]
    assert not (tmp_path / "out" / "model").exists()
    assert "a person judged it unsafe" in (tmp_path / "out" / "report.html").read_text()
    dropped = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert len(dropped) == 20 and ROWS[4] in dropped and ROWS[3] not in dropped


def test_more_verdicts_go_on_in_the_same_folder_without_the_model(custom, model, tmp_path, monkeypatch):
    path = tmp_path / "v.jsonl"
    _, first, _ = run(custom, model, tmp_path / "out", vetted=verdicts(path, range(20)))
    monkeypatch.setattr(load, "load", lambda *a, **k: pytest.fail("the model was loaded"))
    _, second, _ = run(custom, model, tmp_path / "out", vetted=verdicts(path, range(30)))
    assert (first["vetted"]["rows"], second["vetted"]["rows"]) == (20, 30)
    assert first["hashes"]["verdicts"] != second["hashes"]["verdicts"]
    assert first["hashes"]["custom.jsonl"] == second["hashes"]["custom.jsonl"]


def vet(custom: str, model: str, tmp_path: Path) -> str:
    """The file that `vet` writes when true verdicts answer it."""
    path, truth = tmp_path / "custom.vetted.jsonl", verdicts(tmp_path / "truth.jsonl", range(60))
    given = {"max_length": 64, "device": "cpu", "answers": Path(truth)}
    assert run_vet(custom, output=path, rows=40, model=model, say=[].append, **given) == DONE
    return str(path)


def test_what_vet_read_is_not_read_again_and_decides_alike(custom, model, tmp_path, monkeypatch):
    given = vet(custom, model, tmp_path)
    monkeypatch.setattr(load, "load", lambda *a, **k: pytest.fail("the model was loaded"))
    _, report, said = run(custom, model, tmp_path / "out", vetted=given, dtype="auto")
    assert report["cost"]["stages"] == [] and "they are not read again" in said
    monkeypatch.undo()
    Path(tmp_path / "custom.vetted.states.npz").unlink()
    _, other, _ = run(custom, model, tmp_path / "read", vetted=given, dtype="auto")
    assert [s["name"] for s in other["cost"]["stages"]] == ["read: custom rows"]
    one, two = (lines(tmp_path / name) for name in ("out", "read"))
    assert [z["decision"] for z in one] == [z["decision"] for z in two]
    scores = [[z["score"] for z in found if z["score"] is not None] for found in (one, two)]
    assert len(scores[0]) == 20 and scores[0] == pytest.approx(scores[1], abs=0.05)


@pytest.mark.parametrize(
    "other",
    [
        lambda custom, path: {"max_length": 63},
        lambda custom, path: {"template": "plain"},
        lambda custom, path: {"dtype": "float16"},
        lambda custom, path: Path(custom).write_text(
            json.dumps(ROWS[1]) + "\n" + json.dumps(ROWS[0]) + "\n"
            + "".join(json.dumps(row) + "\n" for row in ROWS[2:])
        ) and {},
        lambda custom, path: path.write_bytes(path.read_bytes()[:5000]) and {},
    ],
    ids=["another length", "another template", "another precision", "another order", "a damaged file"],
)  # fmt: skip
def test_what_vet_read_otherwise_is_read_again(custom, model, tmp_path, other):
    given = vet(custom, model, tmp_path)
    flags = other(custom, tmp_path / "custom.vetted.states.npz")
    _, report, _ = run(custom, model, tmp_path / "out", vetted=given, **{"dtype": "auto", **flags})
    assert [stage["name"] for stage in report["cost"]["stages"]] == ["read: custom rows"]


def test_a_file_changed_by_hand_is_not_overwritten_by_a_second_round(custom, model, tmp_path):
    path = tmp_path / "v.jsonl"
    run(custom, model, tmp_path / "out", vetted=verdicts(path, range(20)))
    (tmp_path / "out" / "kept.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"kept\.jsonl was changed"):
        run(custom, model, tmp_path / "out", vetted=verdicts(path, range(30)))


def test_a_column_of_the_file_is_read_and_may_grow(model, tmp_path):
    def write(n: int) -> str:
        return small.jsonl(
            tmp_path / "custom.jsonl",
            [row | {"ok": str(int(unsafe(i))) if i < n else ""} for i, row in enumerate(ROWS)],
        )

    _, first, said = run(write(20), model, tmp_path / "out", verdict_field="ok")
    assert first["vetted"]["unsafe"] == 7 and "read as verdicts: 0 as clean, 1 as unsafe" in said
    _, second, _ = run(write(30), model, tmp_path / "out", verdict_field="ok")
    assert second["vetted"]["unsafe"] == 10


def test_other_rows_are_another_command(custom, model, tmp_path):
    run(custom, model, tmp_path / "out", vetted=verdicts(tmp_path / "v.jsonl", range(20)))
    small.jsonl(tmp_path / "custom.jsonl", [*ROWS[:-1], ROWS[-1] | {"completion": "changed"}])
    with pytest.raises(ConfigError, match="another command"):
        run(custom, model, tmp_path / "out", vetted=str(tmp_path / "v.jsonl"))


def test_all_clean_drops_nothing_and_says_so(custom, model, tmp_path):
    clean = verdicts(tmp_path / "v.jsonl", [i for i in range(36) if not unsafe(i)])
    code, report, said = run(custom, model, tmp_path / "out", vetted=clean)
    assert code == DONE and report["counts"]["drop"] == 0 and report["counts"]["flag"] == 0
    assert "none is dropped" in said and "0 unsafe rows were seen" in report["threshold"]["why"]


def test_one_unsafe_verdict_drops_its_row_alone_and_is_too_weak(custom, model, tmp_path):
    few = verdicts(tmp_path / "v.jsonl", [0, *(i for i in range(36) if not unsafe(i))])
    code, report, _ = run(custom, model, tmp_path / "out", vetted=few)
    assert code == TOO_WEAK
    assert [line["row"] for line in lines(tmp_path / "out") if line["decision"] == "drop"] == [0]
    assert "only verdicts drop" in report["threshold"]["why"].replace("\n", " ")


def test_every_row_judged_is_decided_by_the_person_alone(custom, model, tmp_path):
    code, report, _ = run(custom, model, tmp_path / "out", vetted=verdicts(tmp_path / "v.jsonl", range(60)))
    assert code == DONE and report["counts"]["drop"] == 20 and report["counts"]["keep"] == 40


def test_a_row_without_an_answer_is_unscored_unless_judged(model, tmp_path):
    rows = [row | ({"completion": ""} if i in (2, 40) else {}) for i, row in enumerate(ROWS)]
    custom = small.jsonl(tmp_path / "custom.jsonl", rows)
    run(custom, model, tmp_path / "out", vetted=verdicts(tmp_path / "v.jsonl", range(30)))
    found = lines(tmp_path / "out")
    assert (found[2]["decision"], found[40]["decision"]) == ("keep", "unscored")


@pytest.mark.parametrize(
    ("rows", "changed", "message"),
    [
        (range(50, 70), {}, "row 60 is not in custom.jsonl"),
        (range(9), {}, "9 verdicts of clean or unsafe, at least 10"),
        (range(12), {f"r{i}": "unsure" for i in range(12)}, "all 12 verdicts are unsure"),
        (range(12), {f"r{i}": "unsafe" for i in range(12)}, "all 12 verdicts are unsafe"),
        ([*range(12), 3], {}, None),
    ],
)  # fmt: skip
def test_verdicts_nothing_can_be_learned_from_are_refused(custom, model, tmp_path, rows, changed, message):
    given = verdicts(tmp_path / "v.jsonl", rows, **changed)
    if message is None:  # row 3 a second time, otherwise
        with Path(given).open("a") as file:
            file.write(json.dumps({"row": 3, "verdict": "clean"}) + "\n")
        message = "row 3 is clean here and unsafe before"
    with pytest.raises(DataError, match=message):
        run(custom, model, tmp_path / "out", vetted=given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"algorithm": "vetted"}, "algorithm vetted needs verdicts"),
        ({"algorithm": "witness", "vetted": "v.jsonl"}, "algorithm witness does not read verdicts"),
        ({"verdict_field": "ok", "vetted": "v.jsonl"}, "two sources of verdicts"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(custom, model, tmp_path, flags, message):
    with pytest.raises(ConfigError, match=message):
        run(custom, model, tmp_path / "out", **flags)


def test_the_last_fine_tune_learns_the_kept_rows(custom, model, tmp_path):
    given = verdicts(tmp_path / "v.jsonl", range(30))
    _, report, _ = run(
        custom, model, tmp_path / "out", vetted=given, retrain=True, num_train_epochs=1.0, learning_rate=1e-3
    )
    assert (tmp_path / "out" / "model").is_dir()
    assert [s["name"] for s in report["cost"]["stages"]] == ["read: custom rows", "train on kept rows"]


def test_rows_in_doubt_are_flagged_those_above_even_odds_that_the_bound_spares():
    # One feature: clean rows around -1, unsafe ones around 1, verdicts on the first 120 of 400.
    draw = np.random.default_rng(0)
    is_unsafe = np.arange(400) % 4 == 0
    row = (np.where(is_unsafe, 1.0, -1.0) + draw.normal(0, 0.8, 400))[:, None].astype(np.float32)
    encoded = [tiny.encoded(2, 3, seed=i, id=f"z{i}") for i in range(400)]
    given = [Verdict(i, f"z{i}", "unsafe" if is_unsafe[i] else "clean") for i in range(120)]
    found = by_verdicts.decide(row, encoded, given, fdr=0.04)
    flagged = {z: found.scores[z] for z, d in found.cut.decisions.items() if d == "flag"}
    dropped = [found.scores[f"z{i}"] for i in range(120, 400) if found.cut.decisions[f"z{i}"] == "drop"]
    assert found.cut.method == "fdr" and flagged and dropped
    assert max(flagged.values()) < min(dropped) == found.cut.drop_above
    assert min(flagged.values()) == found.cut.flag_above


def test_ten_more_verdicts_narrow_by_the_formula_of_the_interval():
    share = certify.exact(10, 40)
    assert share is not None
    nothing = np.zeros(0, bool)
    found = certify.Certified(np.inf, nothing, "nothing", "", None, share, None, None, None, None)
    # Clopper-Pearson of 10 in 40: 0.127 to 0.412, of 12.5 in 50: 0.139 to 0.392.
    assert "from 29 to about 25 points" in by_verdicts.ten_more(found, 40)
    without = certify.Certified(np.inf, nothing, "nothing", "", None, None, None, None, None, None)
    assert "first estimate" in by_verdicts.ten_more(without, 0)


@pytest.mark.slow
@pytest.mark.real
def test_a_real_model_finds_unsafe_rows_of_the_demo_by_fifty_verdicts(smollm2, tmp_path):
    rows = [json.loads(line) for line in packs.path("demo").read_text().splitlines()]
    looked_at = set(random.Random(0).sample(range(len(rows)), 50))
    custom = small.jsonl(
        tmp_path / "demo.jsonl",
        [row | {"ok": row["unsafe"] if i in looked_at else None} for i, row in enumerate(rows)],
    )
    _, report, _ = run(custom, smollm2, tmp_path / "out", verdict_field="ok", label_field="unsafe")
    assert report["quality"]["auc"]["value"] > 0.8
