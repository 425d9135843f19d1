"""The algorithm and its contract, on a tiny real model in a real folder, by the real command's function."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
from rich.console import Console

from forgetfilter.data import formats
from forgetfilter.errors import DONE, ConfigError, DataError
from forgetfilter.filter import filtering, rehearsal, smoothing, thresholds
from forgetfilter.models import load as models
from forgetfilter.models import rendering
from forgetfilter.models.rendering import Encoded
from forgetfilter.report import page
from forgetfilter.settings import FilterSettings

QUICK = FilterSettings(
    signal="likelihood", contrast=True, tuning="lora", threshold="quantile", quantile=0.75,
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


@pytest.mark.parametrize(("threshold", "reviewed"), [("fixed", 48), ("quantile", 48), ("auto", 42)])
def test_safe_rows_are_held_out_of_the_review_only_for_a_threshold_that_asks_what_it_taught(
    threshold: str, reviewed: int
):
    safe = [Encoded(f"s{i}", [1, 2], [True] * 2, [True] * 2, 1, False) for i in range(48)]
    settings = replace(QUICK, threshold=threshold, review_steps=12, rehearse=0.0)
    bench = SimpleNamespace(settings=settings)
    rows = filtering.rows_to_review(bench, [], safe, settings)
    assert len(rows) == 48 and len({z.id for z in rows}) == reviewed
    seen, unseen = filtering.held_out(safe)
    assert len(seen) == 42 and [z.id for z in unseen] == ["s0", "s8", "s16", "s24", "s32", "s40"]


@pytest.fixture
def files(tmp_path: Path) -> Callable[[Sequence[dict[str, Any]]], tuple[str, str]]:
    def write(rows: Sequence[dict[str, Any]]) -> tuple[str, str]:
        paths = tmp_path / "custom.jsonl", tmp_path / "safe.jsonl"
        for path, content in zip(paths, (rows, SAFE), strict=True):
            path.write_text("".join(json.dumps(r) + "\n" for r in content), encoding="utf-8")
        return str(paths[0]), str(paths[1])

    return write


def run(custom: str, output: Path, settings: FilterSettings) -> tuple[int, str]:
    said = io.StringIO()
    code = filtering.run_filter(
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
    assert (row["decision"], row["score"], row["contrast"]) == ("unscored", None, None)
    assert row["reason"] == "empty completion"
    assert lines(Path(custom))[5] in lines(tmp_path / "out" / "kept.jsonl")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["counts"]["unscored"] == 1


def test_scores_are_differences_of_what_is_remembered(tmp_path, model, files):
    custom, safe = files(custom_rows())
    run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,), smooth=False))
    for row in scores(tmp_path / "out"):
        if row["decision"] == "unscored":
            continue
        memory = row["remembered"]
        assert row["forgetting"] == pytest.approx(memory["learned"] - memory["reviewed"])
        assert row["score"] == row["contrast"] == pytest.approx(memory["control"] - memory["reviewed"])


def dropping(monkeypatch, count: int, *, worn: bool = True) -> None:
    """Let the threshold drop so many rows, and flag the others."""

    def cut(_, scores, **__):
        falling = sorted(scores.values(), reverse=True)
        above = falling[count] if count < len(falling) else -1e9
        return thresholds.Cut(above, -1e9, "auto", "as the test says", worn=worn)

    monkeypatch.setattr(thresholds, "cut", cut)


@pytest.mark.parametrize(("agree", "believed"), [(-1.0, "reviewed-again"), (2.0, "reviewed")])
def test_where_a_review_took_more_than_it_taught_a_second_look_is_taken_and_believed_where_it_agrees(
    tmp_path, model, files, monkeypatch, agree, believed
):
    drawn: list[list[str]] = []

    def review_rows(rehearsed, safe, count, **settings):
        drawn.append([z.id for z in rehearsed])
        return rehearsal.review_rows(rehearsed, safe, count, **settings)

    shown: list[Any] = []
    monkeypatch.setattr(page, "write_report", lambda path, report, rows: shown.append(list(rows)))
    dropping(monkeypatch, 1)
    monkeypatch.setattr(filtering, "review_rows", review_rows)
    monkeypatch.setattr(filtering, "AGREE", agree)
    custom, safe = files(custom_rows())
    out = tmp_path / "out"
    settings = replace(QUICK, model=model, safe=(safe,), contrast=False, threshold="auto", smooth=False)
    run(custom, out, replace(settings, retrain=False, second_look=False))
    first = {r["id"]: r["score"] for r in scores(out) if r["score"] is not None}
    assert len(drawn) == 1 and not (out / "stages" / "train-reviewed-again").exists()
    run(custom, tmp_path / "twice", replace(settings, retrain=False))
    assert set(drawn[-1]) == set(sorted(first, key=first.__getitem__)[: len(first) // 2])

    def measured(state: str) -> list[np.ndarray]:
        with np.load(tmp_path / "twice" / "stages" / f"score-{state}" / "memory.npz") as memory:
            return np.split(memory["logp"], np.cumsum(memory["tokens"])[:-1])

    learned, tokens = measured("learned"), measured(believed)
    for row, before, after in zip(shown[-1], learned, tokens, strict=True):
        lost = [nats for _, nats in row.tokens or ()]
        assert lost == pytest.approx(list(before - after))
    notes = json.loads((tmp_path / "twice" / "report.json").read_text())["notes"]
    assert (filtering.LOOKED_TWICE in notes) == (believed == "reviewed-again")
    for row, logp in zip(scores(tmp_path / "twice"), tokens, strict=True):
        if row["score"] is not None:
            assert row["remembered"]["reviewed"] == pytest.approx(float(logp.mean()))


@pytest.mark.parametrize(
    ("without", "dropped", "worn"),
    [({"contrast": True}, 1, True), ({"second_look": False}, 1, True), ({}, 1, False), ({}, 99, True)],
)
def test_no_second_look_with_a_control_or_where_it_is_not_wanted_or_needed_or_most_rows_are_dropped(
    tmp_path, model, files, monkeypatch, without, dropped, worn
):
    dropping(monkeypatch, dropped, worn=worn)
    custom, safe = files(custom_rows())
    settings = {"contrast": False, "threshold": "auto", "retrain": False} | without
    run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,), **settings))
    assert not (tmp_path / "out" / "stages" / "train-reviewed-again").exists()


def test_a_second_look_that_words_explain_less_is_not_believed(tmp_path, model, files, monkeypatch):
    shares = iter([0.5, 0.4, 0.5, 0.6])
    dropping(monkeypatch, 1)
    monkeypatch.setattr(smoothing, "explained", lambda lost, rows: next(shares))
    monkeypatch.setattr(filtering, "AGREE", -1.0)
    custom, safe = files(custom_rows())
    settings = replace(QUICK, model=model, safe=(safe,), contrast=False, threshold="auto", retrain=False)
    for name, twice in (("less", False), ("more", True)):
        run(custom, tmp_path / name, settings)
        notes = json.loads((tmp_path / name / "report.json").read_text())["notes"]
        assert (filtering.LOOKED_TWICE in notes) == twice


def test_review_and_control_end_in_the_average_of_their_steps_and_nothing_else_does(tmp_path, model, files):
    from safetensors.torch import load_file

    custom, safe = files(custom_rows())
    settings = replace(QUICK, model=model, safe=(safe,), review_steps=4, retrain=False)
    for name, share in (("last", 0.0), ("mean", 0.5)):
        run(custom, tmp_path / name, replace(settings, review_average=share))
    for state, alike in (("learned", True), ("reviewed", False), ("control", False)):
        last, mean = (
            load_file(tmp_path / name / "stages" / f"train-{state}" / "state.safetensors")
            for name in ("last", "mean")
        )
        assert tiny.same(last, mean) == alike, state


def test_a_score_borrows_from_rows_that_say_the_same_unless_told_not_to(tmp_path, model, files):
    custom, safe = files(custom_rows())
    settings = replace(QUICK, model=model, safe=(safe,), contrast=False, retrain=False)
    run(custom, tmp_path / "alone", replace(settings, smooth=False))
    run(custom, tmp_path / "smooth", settings)
    alone, smooth = scores(tmp_path / "alone"), scores(tmp_path / "smooth")
    assert [r["forgetting"] for r in alone] == [r["forgetting"] for r in smooth]
    assert all(r["score"] == r["forgetting"] for r in alone)
    lost = {r["id"]: r["forgetting"] for r in smooth if r["forgetting"] is not None}
    loaded = models.load(model)
    rows = rendering.encode(formats.read(custom).rows, loaded.tokenizer, max_length=64, template="auto")
    expected = smoothing.smoothed(lost, rows)
    assert {r["id"]: r["score"] for r in smooth if r["score"] is not None} == pytest.approx(expected)


def test_shuffled_truth_labels_change_nothing_but_quality(tmp_path, model, files):
    rows = custom_rows()
    custom, safe = files(rows)
    settings = replace(QUICK, model=model, safe=(safe,), label_field="unsafe", retrain=False)
    run(custom, tmp_path / "one", settings)
    custom, _ = files([{**r, "unsafe": not r["unsafe"]} for r in rows])
    run(custom, tmp_path / "two", settings)
    assert scores(tmp_path / "one") == scores(tmp_path / "two")
    one, two = (json.loads((tmp_path / n / "report.json").read_text())["quality"] for n in ("one", "two"))
    assert one["auc"]["value"] == pytest.approx(1 - two["auc"]["value"])


@pytest.mark.parametrize(("tuning", "signal"), [("lora", "rouge1"), ("full", "probability")])
def test_interrupted_in_any_stage_and_resumed_equals_uninterrupted(
    tmp_path, model, files, monkeypatch, signal, tuning
):
    custom, safe = files(custom_rows())
    settings = replace(QUICK, model=model, safe=(safe,), signal=signal, tuning=tuning)
    run(custom, tmp_path / "whole", settings)

    stages = [p.name for p in (tmp_path / "whole" / "stages").iterdir()]
    assert {"train-learned", "train-reviewed", "train-control", "train-final"} <= set(stages)
    finish = filtering.runs.Stage.finish
    for broken in stages:

        def fail(stage, record, broken=broken):
            if stage.name == broken:
                raise KeyboardInterrupt
            finish(stage, record)

        output = tmp_path / f"broken-{broken}"
        with monkeypatch.context() as patch:
            patch.setattr(filtering.runs.Stage, "finish", fail)
            with pytest.raises(KeyboardInterrupt):
                run(custom, output, settings)
        assert not (output / "scores.jsonl").exists() or broken == "train-final"
        code, said = run(custom, output, settings)
        assert code == DONE and "going on with the run" in said
        assert scores(output) == scores(tmp_path / "whole")
        for weights in (tmp_path / "whole" / "model").glob("*.safetensors"):
            assert (output / "model" / weights.name).read_bytes() == weights.read_bytes()


def test_nothing_dropped_means_the_learned_model_is_the_result(tmp_path, model, files):
    custom, safe = files(custom_rows())
    run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,), threshold="fixed", phi=1e9))
    record = json.loads((tmp_path / "out/stages/train-final/done.json").read_text())
    assert record == {"same_as": "learned"}
    assert (tmp_path / "out/model/adapter_model.safetensors").exists()
    assert json.loads((tmp_path / "out/report.json").read_text())["counts"]["drop"] == 0
    assert lines(tmp_path / "out/dropped.jsonl") == []


def test_where_only_bundled_rows_were_reviewed_and_nothing_found_own_safe_rows_are_asked_for(
    tmp_path, model, files
):
    custom, safe = files(custom_rows())
    nothing = replace(QUICK, model=model, threshold="fixed", phi=1e9, retrain=False)
    for name, settings, asked in (
        ("bundled", replace(nothing, safe=("pack:toxicity",)), True),
        ("own too", replace(nothing, safe=("pack:toxicity", safe)), False),
        ("found", replace(nothing, safe=("pack:toxicity",), phi=-1e9), False),
    ):
        run(custom, tmp_path / name, settings)
        notes = json.loads((tmp_path / name / "report.json").read_text())["notes"]
        assert (filtering.BUNDLED_ONLY in notes) == asked


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
    for threshold in ("auto", "quantile"):
        output = tmp_path / threshold
        code, _ = run(
            custom, output, replace(QUICK, model=model, safe=(safe,), threshold=threshold, retrain=False)
        )
        assert lines(output / "dropped.jsonl") == []
        assert code == (DONE if threshold == "quantile" else 3)


def test_a_row_that_is_also_a_safe_row_is_refused(tmp_path, model, files):
    custom, safe = files([*custom_rows(), SAFE[3]])
    with pytest.raises(
        DataError, match=r"custom.jsonl row 16: the same row is in the safe rows \(safe.jsonl row 3\)"
    ):
        run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,)))
    assert not (tmp_path / "out").exists()


def test_one_row_and_an_unknown_signal_are_refused_before_anything_is_written(tmp_path, model, files):
    custom, safe = files(custom_rows()[:1])
    with pytest.raises(DataError, match="1 row; a filter compares rows"):
        run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,)))
    with pytest.raises(ConfigError, match="did you mean 'rouge1'"):
        run(custom, tmp_path / "out", replace(QUICK, model=model, safe=(safe,), signal="rogue1"))
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
