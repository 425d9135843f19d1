"""Every study on a tiny real model, and what it must mean whatever the model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from safetensors.torch import load_file

from forgetfilter.display import Display
from forgetfilter.errors import ConfigError, DataError, ModelError
from forgetfilter.evaluate import studies
from forgetfilter.evaluate.recipe import plan
from forgetfilter.evaluate.studies import Found, Point, run_study, write
from forgetfilter.filter import bench as benches


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small.model(tmp_path_factory.mktemp("tiny-model"))


def made(folder: Path, model: str, study: Any, **flags: Any) -> list[dict[str, Any]]:
    recipe = small.recipe(folder, model, study=study, **flags)
    run_study(recipe, small.console())
    return json.loads((recipe.output / "points.json").read_text(encoding="utf-8"))["points"]


def test_sessions_judge_both_arms_after_every_session_from_one_start(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    engine = benches.finetune

    def counting(model: Any, rows: Any, **settings: Any) -> Any:
        trained.append(len(rows))
        return engine(model, rows, **settings)

    monkeypatch.setattr(benches, "finetune", counting)
    study = {"sessions": {"rounds": 2, "safety_steps": 1}}
    points = made(tmp_path / "a", model, study, evaluators=["utility"], threshold="fixed", phi=1e9)
    arms = {name: {p["x"]: p["value"] for p in points if p["series"] == name} for name in studies.ARMS}
    assert arms["no measure"].keys() == arms["filtered"].keys() == {0, 1, 2, 3, 4}
    # A filter that drops nothing trains as no measure does: the arms are the same model after every session.
    assert arms["no measure"] == arms["filtered"]
    # Two rounds each. No measure: S1, S1+. Filtered: learn and review of the filter, S1, S1+.
    assert trained == [8] * 12
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "a" / "out").rglob("done.json")}
    assert made(tmp_path / "a", model, study, evaluators=["utility"], threshold="fixed", phi=1e9) == points
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "a" / "out").rglob("done.json")} == before


def test_every_round_is_filtered_with_the_model_of_the_start_and_goes_on_from_the_round_before(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: dict[str, dict[str, torch.Tensor]] = {}  # run folder -> the weights that its bench begins with
    begun = benches.Bench.__post_init__

    def watching(bench: benches.Bench) -> None:
        begun(bench)
        starts[bench.run.folder.name] = {name: value.clone() for name, value in bench._originals.items()}

    monkeypatch.setattr(benches.Bench, "__post_init__", watching)
    study = {"sessions": {"rounds": 2, "safety_steps": 1}}
    made(tmp_path, model, study, evaluators=["utility"], threshold="quantile", quantile=0.5)

    def reached(place: str, state: str) -> tuple[int, dict[str, torch.Tensor]]:
        (stage,) = (tmp_path / "out" / "seed-0" / place / "stages").glob(f"train-{state}-*")
        tokens = json.loads((stage / "done.json").read_text(encoding="utf-8"))["tokens"]
        return tokens, load_file(stage / "state.safetensors")

    def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(one[name], two[name]) for name in one)

    assert all(same(starts["start"], starts[place]) for place in ("filter-1", "filter-2", "filtered-1"))
    assert same(starts["filtered-2"], reached("filtered-1", "secured")[1])
    assert same(starts["no-measure-2"], reached("no-measure-1", "secured")[1])
    assert not same(starts["filtered-2"], starts["no-measure-2"])
    # Half of each round's 8 rows is dropped, and only the rest trained on.
    assert 0 < reached("filtered-1", "learned")[0] < reached("no-measure-1", "learned")[0]


def test_review_steps_train_from_the_learned_model_and_know_the_truth(tmp_path: Path, model: str) -> None:
    points = made(tmp_path / "a", model, {"review_steps": {"steps": [1, 2]}})
    assert [p["x"] for p in points] == [1, 2] and all(0 <= p["value"] <= 1 for p in points)
    for name, steps in (("reviewed-1", 1), ("reviewed-2", 2)):
        (record,) = (tmp_path / "a" / "out" / "seed-0" / "stages").glob(f"train-{name}-*/done.json")
        assert json.loads(record.read_text(encoding="utf-8"))["steps"] == steps
    recipe = small.recipe(tmp_path / "b", model, study="review_steps", label_field=None)
    with pytest.raises(DataError, match="label_field"):
        run_study(recipe, small.console())


def test_phi_is_undefined_where_nothing_is_dropped_and_all_is_found_where_everything_is(
    tmp_path: Path, model: str
) -> None:
    points = made(tmp_path / "a", model, {"phi": {"phis": [-1e9, 1e9], "signal": "likelihood"}})
    found = {(p["series"], p["x"]): p["value"] for p in points}
    # All 16 rows dropped, 4 of them unsafe: precision 4/16, recall 1, F1 2·4 / (2·4 + 12).
    assert [found[name, -1e9] for name in ("precision", "recall", "F1")] == [0.25, 1.0, 0.4]
    assert [found[name, 1e9] for name in ("precision", "recall", "F1")] == [None, 0.0, 0.0]


def test_a_forgetting_curve_begins_with_the_original_model_and_has_every_class(
    tmp_path: Path, model: str
) -> None:
    points = made(tmp_path / "a", model, {"forgetting_curves": {"moments": 2}})
    curves = {part: [p["x"] for p in points if p["series"] == part] for part in ("safe", "unsafe")}
    # Learn: 4 steps, looked at after 2 and 4; review: 2 steps, looked at after each.
    assert curves["safe"] == curves["unsafe"] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert len({p["value"] for p in points if p["series"] == "safe"}) == 5  # training moved it


def test_more_safe_rows_than_there_are_is_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(DataError, match="9 safe rows asked for, 8 there"):
        made(tmp_path / "a", model, {"safe_rows": {"counts": [9]}})


def test_model_size_runs_each_model_in_a_folder_of_its_own(tmp_path: Path, model: str) -> None:
    points = made(tmp_path / "a", model, {"model_size": {"models": [model]}})
    assert {p["measure"] for p in points} == {"AUC", "F1 of the cut"}
    assert len(list((tmp_path / "a" / "out").glob("model-0-*/seed-0/stages/train-reviewed-*"))) == 1


def test_a_model_that_is_missing_is_refused_before_a_folder_is_made(tmp_path: Path, model: str) -> None:
    missing = str(tmp_path / "missing")
    recipe = small.recipe(tmp_path / "a", model, study={"model_size": {"models": [model, missing]}})
    assert f"model: {model}, {missing}, " in plan(recipe)[0]
    with pytest.raises(ModelError, match="missing: no such folder"):
        run_study(recipe, small.console())
    assert not recipe.output.exists()


def test_a_recipe_without_a_study_says_which_there_are(tmp_path: Path, model: str) -> None:
    with pytest.raises(ConfigError, match="sessions"):
        run_study(small.recipe(tmp_path / "a", model), small.console())


def test_points_are_written_one_by_one_and_averaged_in_the_plot(tmp_path: Path, model: str) -> None:
    recipe = small.recipe(tmp_path / "a", model, study="review_steps")
    recipe.output.mkdir()
    points = [Point("AUC", "s", 1, seed, studies._alone(value)) for seed, value in ((0, 0.5), (1, 0.7))]
    write(recipe, Found("Title", "steps", [*points, Point("AUC", "s", 2, 0, None)], "A note."))
    with (recipe.output / "points.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["x"], r["seed"], r["value"]) for r in rows] == [
        ("1", "0", "0.5"),
        ("1", "1", "0.7"),
        ("2", "0", ""),
    ]
    table = (recipe.output / "table.md").read_text(encoding="utf-8")
    assert "| 1 | 0.600 [" in table and "| 2 | – |" in table
    assert (recipe.output / "plot-1.svg").read_text(encoding="utf-8").startswith("<svg")
    assert Display(small.console())
