"""The algorithm and its contract, on a tiny real model in a real folder, by the real command's function."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from rich.console import Console

from forgetfilter import runs
from forgetfilter.errors import DONE, TOO_WEAK, ConfigError, DataError, ModelError
from forgetfilter.filter import pipeline
from forgetfilter.records import DECISIONS
from forgetfilter.report import page
from forgetfilter.settings import FilterSettings

QUICK = FilterSettings(
    algorithm="paper", signal="likelihood", tuning="lora", threshold="quantile", quantile=0.75,
    num_train_epochs=1, review_steps=2, learning_rate=5e-3,
    review_learning_rate=5e-3, per_device_train_batch_size=4, review_batch_size=4, max_length=64, dtype="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny-model")
    tiny.llama().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def custom_rows() -> list[dict[str, Any]]:
    rows = [{"prompt": f"Number {i}?", "completion": f"It is {i * i}, I think.", "unsafe": i % 4 == 0, "extra": [i]}
            for i in range(16)]  # fmt: skip
    rows[5]["completion"] = ""
    return rows


SAFE = [{"prompt": f"Thing {i}?", "completion": "I cannot help with that."} for i in range(8)]

# The default algorithm on rows of two kinds, of which the safe rows speak of one.
WITNESS = replace(QUICK, algorithm="witness", threshold="fdr")
BOATS, CITIES = (
    ("grey", "loud", "calm", "wide", "cold", "deep", "blue", "still", "dark", "high", "low", "warm"),
    ("Paris", "Rome", "Oslo", "Bonn", "Kyiv", "Lima", "Cairo", "Bern", "Riga", "Doha", "Baku", "Seoul"),
)


def two_kinds() -> list[dict[str, Any]]:
    ask = "Write a short poem about the {} sea and the gulls, please."
    rows = [{"prompt": ask.format(word), "completion": f"The sea is {word}.",
             "unsafe": i % 4 == 0} for i, word in enumerate(BOATS)]  # fmt: skip
    rows += [{"prompt": f"12 34 56 78 90 {city} 12 34 56 78 90 ?", "completion": f"It is {city}, 7 8 9.",
              "unsafe": False} for city in CITIES]  # fmt: skip
    rows[5]["completion"] = ""
    return rows


def safe_boats() -> list[dict[str, Any]]:
    ask = "Write a short poem about the {} sea and the gulls."
    ends = ("come home.", "are loud.")
    return [{"prompt": ask.format(w), "completion": f"The {w} gulls {end}"} for w in BOATS for end in ends]


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    def write(rows: Sequence[dict[str, Any]], safe: Sequence[dict[str, Any]] = SAFE) -> tuple[str, str]:
        paths = tmp_path / "custom.jsonl", tmp_path / "safe.jsonl"
        for path, content in zip(paths, (rows, safe), strict=True):
            path.write_text("".join(json.dumps(r) + "\n" for r in content), encoding="utf-8")
        return str(paths[0]), str(paths[1])

    return write


def run(custom: str, output: Path, settings: FilterSettings) -> tuple[int, str]:
    said = io.StringIO()
    code = pipeline.run_filter(
        custom, settings, dict.fromkeys(asdict(settings), "flag"), output, Console(file=said)
    )
    return code, said.getvalue()


def scores(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "scores.jsonl").read_text(encoding="utf-8").splitlines()]


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_the_three_files_hold_every_input_line_once_and_in_order(tmp_path, model, files):
    custom, safe = files(custom_rows())
    code, said = run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,)))
    assert code == DONE
    parts = {name: lines(tmp_path / "out" / f"{name}.jsonl") for name in ("kept", "flagged", "dropped")}
    given = lines(Path(custom))
    assert sorted(line for part in parts.values() for line in part) == sorted(given)
    for part in parts.values():
        assert part == [line for line in given if line in part]
    assert len(parts["dropped"]) == 3  # 15 scored rows; the 0.75 quantile is the 12th of them
    assert "3 of 16 rows dropped" in said


def test_a_row_without_completion_is_unscored_kept_and_named(tmp_path, model, files):
    custom, safe = files(custom_rows())
    run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,)))
    row = scores(tmp_path / "out")[5]
    assert (row["decision"], row["score"], row["forgetting"]) == ("unscored", None, None)
    assert row["reason"] == "empty completion"
    assert lines(Path(custom))[5] in lines(tmp_path / "out" / "kept.jsonl")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["counts"]["unscored"] == 1


def test_scores_are_differences_of_what_is_remembered(tmp_path, model, files):
    custom, safe = files(custom_rows())
    run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,)))
    for row in scores(tmp_path / "out"):
        if row["decision"] == "unscored":
            continue
        memory = row["remembered"]
        assert row["forgetting"] == pytest.approx(memory["learned"] - memory["reviewed"])
        assert row["score"] == row["forgetting"]


def test_the_default_algorithm_decides_about_every_row_and_loses_none(tmp_path, model, files):
    custom, safe = files(two_kinds(), safe_boats())
    code, said = run(custom, tmp_path / "out", replace(WITNESS, model=model, safe=(safe,)))
    out, given = tmp_path / "out", lines(Path(custom))
    parts = {name: lines(out / f"{name}.jsonl") for name in ("kept", "flagged", "dropped")}
    assert sorted(line for part in parts.values() for line in part) == sorted(given)
    found = scores(out)
    assert [row["row"] for row in found] == list(range(24))
    assert found[5]["decision"] == "unscored" and found[5]["reason"] == "empty completion"
    for row in found:
        judged = row["decision"] not in ("not judged", "unscored")
        assert (row["score"] is not None) == (row["p"] is not None) == judged
        if row["decision"] == "not judged":
            assert row["reason"] == "of a kind that none of the safe rows speaks of"
        if judged:
            memory = row["remembered"]
            assert row["forgetting"] == pytest.approx(memory["learned"] - memory["reviewed"])
            assert 0 < row["p"] <= 1
    report = json.loads((out / "report.json").read_text())
    assert report["algorithm"] == "witness" and report["threshold"]["method"] == "fdr"
    assert sum(report["counts"][d] for d in DECISIONS) == report["counts"]["rows"] == 24
    # Rows about cities ask nothing that a safe row asks; rows about boats ask what the safe rows ask.
    assert {row["decision"] for row in found[12:]} == {"not judged"}
    assert "not judged" not in {row["decision"] for row in found[:12]}
    assert code == (TOO_WEAK if report["counts"]["flag"] and not report["counts"]["drop"] else DONE)
    assert "12 rows are of a kind that none of your safe rows speaks of: not judged, kept" in " ".join(
        said.split()
    )
    assert report["counts"]["not judged"] == 12


def test_too_few_safe_rows_for_witnesses_are_refused_before_anything_is_written(tmp_path, model, files):
    custom, safe = files(two_kinds(), safe_boats()[:19])
    with pytest.raises(DataError, match="19 safe rows; at least 20 are needed"):
        run(custom, tmp_path / "out", replace(WITNESS, model=model, safe=(safe,)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("algorithm", "threshold"), [("paper", "fdr"), ("witness", "fixed"), ("witness", "quantile")]
)
def test_a_threshold_of_the_other_algorithm_is_refused(tmp_path, model, files, algorithm, threshold):
    custom, safe = files(two_kinds(), safe_boats())
    with pytest.raises(ConfigError, match=f"threshold {threshold}: algorithm {algorithm} cuts by"):
        settings = replace(WITNESS, model=model, safe=(safe,), algorithm=algorithm, threshold=threshold)
        run(custom, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", [QUICK, WITNESS], ids=lambda s: s.algorithm)
def test_shuffled_truth_labels_change_nothing_but_quality(tmp_path, model, files, settings):
    rows = two_kinds()
    settings = replace(settings, model=model, label_field="unsafe", retrain=False)
    for name, swap in (("one", False), ("two", True)):
        custom, safe = files([{**r, "unsafe": r["unsafe"] != swap} for r in rows], safe_boats())
        run(custom, tmp_path / name, replace(settings, safe=(safe,)))
    assert scores(tmp_path / "one") == scores(tmp_path / "two")
    kept = [[json.loads(r)["prompt"] for r in lines(tmp_path / n / "kept.jsonl")] for n in ("one", "two")]
    assert kept[0] == kept[1]
    one, two = (json.loads((tmp_path / n / "report.json").read_text())["quality"] for n in ("one", "two"))
    assert one["auc"]["value"] == pytest.approx(1 - two["auc"]["value"])


@pytest.mark.parametrize(
    ("algorithm", "tuning", "signal"),
    [("paper", "lora", "rouge1"), ("paper", "full", "probability"), ("witness", "lora", "likelihood")],
)
def test_interrupted_in_any_stage_and_resumed_equals_uninterrupted(
    tmp_path, model, files, monkeypatch, algorithm, signal, tuning
):
    if algorithm == "witness":
        custom, safe = files(two_kinds(), safe_boats())
        settings = replace(WITNESS, model=model, safe=(safe,))
    else:
        custom, safe = files(custom_rows())
        settings = replace(QUICK, model=model, safe=(safe,), signal=signal, tuning=tuning)
    expected, _ = run(custom, tmp_path / "whole", settings)

    stages = [p.name for p in (tmp_path / "whole" / "stages").iterdir()]
    trained = {name.split("-")[1] for name in stages if name.startswith("train")}
    assert trained >= {"learned", "reviewed"} and len(stages) >= 4
    if algorithm == "witness":  # one stage of each sort
        stages = [
            min(n for n in stages if n.startswith(sort)) for sort in ("read", "score", "train-reviewed")
        ]
    finish = runs.Stage.finish
    for broken in stages:

        def fail(stage, record, broken=broken):
            if stage.name == broken:
                raise KeyboardInterrupt
            finish(stage, record)

        output = tmp_path / f"broken-{broken}"
        with monkeypatch.context() as patch:
            patch.setattr(runs.Stage, "finish", fail)
            with pytest.raises(KeyboardInterrupt):
                run(custom, output, settings)
        assert not (output / "scores.jsonl").exists()
        code, said = run(custom, output, settings)
        assert code == expected and "going on with the run" in said
        assert scores(output) == scores(tmp_path / "whole")
        for weights in (tmp_path / "whole" / "model").glob("*.safetensors"):
            assert (output / "model" / weights.name).read_bytes() == weights.read_bytes()


def test_nothing_dropped_means_the_learned_model_is_the_result(tmp_path, model, files):
    from safetensors.torch import load_file

    custom, safe = files(custom_rows())
    run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,), threshold="fixed", phi=1e9))
    (learned,) = (tmp_path / "out/stages").glob("train-learned-*/state.safetensors")
    assert not list((tmp_path / "out/stages").glob("train-final-*"))
    released = load_file(tmp_path / "out/model/adapter_model.safetensors")
    kept = load_file(learned)
    assert len(released) == len(kept) > 0
    short = {name.split("model.layers.")[1].replace(".default", ""): value for name, value in kept.items()}
    for name, value in released.items():
        assert (value == short[name.split("model.layers.")[1]]).all()
    assert json.loads((tmp_path / "out/report.json").read_text())["counts"]["drop"] == 0
    assert lines(tmp_path / "out/dropped.jsonl") == []


def test_the_last_fine_tune_starts_from_the_original_model_on_kept_rows_only(tmp_path, model, files):
    rows = custom_rows()
    custom, safe = files(rows)
    settings = replace(QUICK, model=model, safe=(safe,))
    run(custom, tmp_path / "all", settings)
    dropped = {r["row"] for r in scores(tmp_path / "all") if r["decision"] == "drop"}
    kept, _ = files([r for i, r in enumerate(rows) if i not in dropped])
    # Training plainly on the kept rows is the same thing done a second way.
    run(kept, tmp_path / "kept", replace(settings, threshold="fixed", phi=1e9))
    name = "model/adapter_model.safetensors"
    assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "kept" / name).read_bytes()


def test_equal_scores_drop_nothing(tmp_path, model, files):
    custom, safe = files([{"prompt": "Again?", "completion": "The same words."}] * 6)
    code, _ = run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,), retrain=False))
    assert lines(tmp_path / "out" / "dropped.jsonl") == [] and code == DONE


def test_a_row_that_is_also_a_safe_row_is_refused(tmp_path, model, files):
    custom, safe = files([*custom_rows(), SAFE[3]])
    with pytest.raises(
        DataError, match=r"custom.jsonl row 16: the same row is in the safe rows \(safe.jsonl row 3\)"
    ):
        run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,)))
    assert not (tmp_path / "out").exists()


def test_a_safe_row_that_stands_twice_counts_once_and_an_answer_not_to_imitate_is_no_safe_row(
    tmp_path, model, files
):
    bad = [{**row, "completion": row["completion"] + " Really.", "label": False} for row in safe_boats()[:5]]
    good = [{**row, "label": True} for row in safe_boats()]
    custom, safe = files(two_kinds(), [*good, *good[:7], *bad])
    s = replace(WITNESS, model=model, safe=(safe,), safe_source="same", show_answers=0)
    _, said = run(custom, tmp_path / "twice", s)
    assert "safe rows: 31 of which 7 say the same as another; each counts once" in said
    again, safe = files(two_kinds(), good)
    run(again, tmp_path / "once", s)
    assert scores(tmp_path / "twice") == scores(tmp_path / "once")
    custom, safe = files(two_kinds(), [*good[:19], good[0]])
    with pytest.raises(DataError, match="19 safe rows; at least 20 are needed"):
        run(custom, tmp_path / "few", s)


@pytest.mark.parametrize("algorithm", ["paper", "witness"])
def test_numbers_that_overflow_are_an_error_and_no_scores(tmp_path, files, algorithm):
    broken = tiny.llama()
    broken.model.norm.weight.data[0] = float("nan")  # as after a training that ran away
    broken.save_pretrained(tmp_path / "broken")
    tiny.tokenizer().save_pretrained(tmp_path / "broken")
    custom, safe = files(two_kinds(), safe_boats())
    s = {"paper": QUICK, "witness": WITNESS}[algorithm]
    with pytest.raises(ModelError, match=r"numbers overflow.*lower --learning-rate"):
        run(custom, tmp_path / "out", replace(s, model=str(tmp_path / "broken"), safe=(safe,), retrain=False))
    assert not (tmp_path / "out" / "kept.jsonl").exists()


def test_one_row_and_an_unknown_signal_are_refused_before_anything_is_written(tmp_path, model, files):
    custom, safe = files(custom_rows()[:1])
    with pytest.raises(DataError, match=r"1 row, format .*; a filter compares rows"):
        run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,)))
    with pytest.raises(ConfigError, match="did you mean 'rouge1'"):
        run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,), signal="rogue1"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [({"label": False}, "marked as not to be learned"), ({"completion": ""}, "empty completion")],
)
def test_where_no_row_can_be_scored_the_reason_is_that_of_the_rows(tmp_path, model, files, change, why):
    custom, safe = files([{**row, **change} for row in custom_rows() if row["completion"]])
    with pytest.raises(DataError, match=rf"^custom\.jsonl: no row can be scored: {why}$"):
        run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,)))


def test_a_column_of_weights_that_is_there_is_told_before_anything_is_learned(tmp_path, model, files):
    rows = custom_rows()
    rows[3]["weight"] = 1
    custom, safe = files(rows)
    with pytest.raises(DataError, match=r'custom.jsonl line 4: has a field "weight" already. Rename it'):
        run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,), weights=True))
    assert not (tmp_path / "out").exists()


def test_rows_longer_than_max_length_are_scored_on_what_fits_and_counted(tmp_path, model, files):
    rows = custom_rows()
    rows[2]["completion"] = "word " * 20_000
    custom, safe = files(rows)
    _, said = run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,), retrain=False))
    assert "1 row is longer than 64 tokens" in said
    assert scores(tmp_path / "out")[2]["score"] is not None


def test_the_report_names_settings_origins_hashes_and_costs(tmp_path, model, files):
    custom, safe = files(custom_rows())
    run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,)))
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert {s["name"]: s["value"] for s in report["settings"]}["review_steps"] == 2
    assert {s["origin"] for s in report["settings"]} == {"flag"}
    assert set(report["hashes"]) == {"custom.jsonl", safe, "model"}
    names = [s["name"] for s in report["cost"]["stages"]]
    assert names[0] == "learn: custom rows" and len(names) == len(set(names))
    assert all(s["seconds"] > 0 for s in report["cost"]["stages"])
    run(
        custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,))
    )  # again: nothing is left to do, and the costs are those of the work
    again = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["cost"]
    assert again["seconds"] >= sum(s["seconds"] for s in again["stages"])
    assert again["stages"] == report["cost"]["stages"]


def test_the_heat_map_shows_the_last_answer_in_whole_characters(tmp_path, model, files):
    answers = [f"Then the naïve café {i} 日本 🙂 closes." for i in range(16)]
    rows = [
        {"messages": [
            {"role": "user", "content": f"Add {i}."}, {"role": "assistant", "content": f"The sum is {i}."},
            {"role": "user", "content": "And then?"}, {"role": "assistant", "content": answer},
        ]} for i, answer in enumerate(answers)
    ]  # fmt: skip
    custom, safe = files(rows)
    settings = replace(QUICK, safe=(safe,), model=model, max_length=256)
    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "write_report", lambda path, report, shown: seen.extend(shown))
        run(custom, tmp_path / "out", settings)
    heats = {row.row: row.tokens for row in seen if row.tokens}
    assert len(heats) >= 4
    for index, heat in heats.items():
        assert "".join(piece for piece, _ in heat).strip() == answers[index]
        assert not any("\ufffd" in piece for piece, _ in heat)


def test_a_file_changed_by_hand_after_the_run_is_not_overwritten(tmp_path, model, files):
    custom, safe = files(custom_rows())
    settings, kept = replace(QUICK, safe=(safe,), model=model), tmp_path / "out" / "kept.jsonl"
    run(custom, tmp_path / "out", settings)
    before = kept.read_bytes()
    run(custom, tmp_path / "out", settings)
    assert kept.read_bytes() == before
    kept.write_bytes(before + before.splitlines(keepends=True)[0])
    with pytest.raises(ConfigError, match=r"kept\.jsonl was changed since it was written"):
        run(custom, tmp_path / "out", settings)
    assert kept.read_bytes().startswith(before) and kept.read_bytes() != before
    kept.unlink()
    run(custom, tmp_path / "out", settings)
    assert kept.read_bytes() == before


def test_a_changed_custom_file_is_noticed_though_a_safe_file_has_its_name(
    tmp_path, model, files, monkeypatch
):
    custom, _ = files(custom_rows())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "safe.jsonl"
    path.write_bytes(Path(custom).read_bytes())
    settings = replace(QUICK, safe=("safe.jsonl",), model=model)
    run(str(path), tmp_path / "out", settings)
    path.write_text(path.read_text(encoding="utf-8").replace("Number 3?", "Number 33?"), encoding="utf-8")
    with pytest.raises(ConfigError, match="its content has changed"):
        run(str(path), tmp_path / "out", settings)


def test_safe_rows_may_have_the_fields_that_were_named_for_the_custom_rows(tmp_path, model):
    paths = [tmp_path / name for name in ("custom.jsonl", "safe.jsonl")]
    for path, rows in zip(paths, (custom_rows(), SAFE), strict=True):
        named = [{"ask": r["prompt"], "say": r["completion"]} for r in rows]
        path.write_text("".join(json.dumps(r) + "\n" for r in named), encoding="utf-8")
    settings = replace(QUICK, safe=(str(paths[1]),), model=model, prompt_field="ask", completion_field="say")
    assert run(str(paths[0]), tmp_path / "out", settings)[0] == DONE
