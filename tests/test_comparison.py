"""`compare`: one folder, resumable, one table; bad input is refused before anything is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small

from forgetfilter import evaluate as evaluators
from forgetfilter.errors import DataError, EvaluationError, ModelError
from forgetfilter.evaluate import Evaluation, Metric, bias, evaluation, harmfulness
from forgetfilter.evaluate import compare as comparison
from forgetfilter.evaluate.compare import Outcome, changes, over_seeds, result_tables, run_compare
from forgetfilter.evaluate.defences import DEFENCES
from forgetfilter.evaluate.recipe import Named
from forgetfilter.intervals import Estimate, wilson
from forgetfilter.report.tables import Column, best


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small.model(tmp_path_factory.mktemp("tiny-model"))


def files(folder: Path) -> dict[str, int]:
    """Finished stage -> when it was finished."""
    return {p.parent.name: p.stat().st_mtime_ns for p in folder.glob("seed-*/stages/*/done.json")}


def test_a_table_shows_the_beginning_of_a_long_setting():
    asked = Named("self_correction", {"instruction": "x" * 50, "steps": 3})
    assert comparison.shown(asked) == f"self_correction(instruction={'x' * 40}…, steps=3)"
    assert comparison.shown(Named("oracle")) == "oracle (ceiling: reads the truth)"


def test_an_interrupted_comparison_goes_on_and_ends_as_one_that_was_not(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["none", "sequential"]
    whole = small.recipe(tmp_path / "whole", model, defences=names)
    run_compare(whole, small.console())

    def stopped(*args: Any, **settings: Any) -> Any:
        raise KeyboardInterrupt

    cut = small.recipe(tmp_path / "cut", model, defences=names)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(DEFENCES, "sequential", stopped)
        run_compare(cut, small.console())
    before = files(cut.output)
    assert {name.split("-")[0] for name in before} == {"train", "evaluate"}
    assert not (cut.output / "results.json").exists()
    run_compare(cut, small.console())
    after = files(cut.output)
    assert before.items() < after.items()  # what was finished was left alone
    for table in ("table.md", "table.csv", "table.json"):
        assert (cut.output / table).read_bytes() == (whole.output / table).read_bytes()

    # A further evaluator setting does only what is new; a folder of another press is refused.
    more = small.recipe(tmp_path / "cut", model, defences=[*names, "self_correction"])
    run_compare(more, small.console())
    assert after.items() < files(cut.output).items()
    other = small.recipe(tmp_path / "cut", model, defences=names, review_steps=3)
    with pytest.raises(comparison.runs.ConfigError, match="review_steps"):
        run_compare(other, small.console())


def test_tables_and_evaluations_say_the_precision_that_answers_were_written_in(
    tmp_path: Path, model: str
) -> None:
    recipe = small.recipe(tmp_path / "a", model, defences=["none"], evaluators=["utility"], dtype="float32")
    run_compare(recipe, small.console())
    assert "Answers written in float32." in (recipe.output / "table.md").read_text(encoding="utf-8")
    asked = {"utility": str(tmp_path / "a" / "utility.jsonl")}
    where = tmp_path / "judged"
    evaluation.run_evaluate(
        model, [Named("utility")], asked, tmp_path, 2, None, "cpu", where, small.console()
    )
    (found,) = json.loads((tmp_path / "judged" / "results.json").read_text(encoding="utf-8"))
    assert found["settings"]["precision"] == "float32"


def test_an_evaluation_row_that_is_trained_on_is_refused_and_named(tmp_path: Path, model: str) -> None:
    recipe = small.recipe(tmp_path / "a", model)
    small.jsonl(
        tmp_path / "a" / "utility.jsonl", [small.ASKED[0], {"prompt": "number  7?", "completion": "x"}]
    )
    with pytest.raises(DataError, match=r"utility .*: row 1 is also custom row 7; 1 of 2 rows overlap"):
        run_compare(recipe, small.console())
    assert not (recipe.output / "seed-0").exists()


@pytest.mark.parametrize(
    "named",
    [
        {"defences": [Named("classifier", {"scorer": "absent"})]},
        {"defences": ["none"], "evaluators": [Named("toxicity", {"scorer": "absent"})]},
        {"defences": ["none"], "evaluators": [Named("harmfulness", {"judge": "absent"})]},
    ],
)
def test_a_judge_that_is_not_there_is_told_before_anything_is_trained(
    tmp_path: Path, model: str, named: dict[str, Any]
) -> None:
    recipe = small.recipe(tmp_path / "out", model, **named)
    with pytest.raises(ModelError, match="absent: no such folder"):
        run_compare(recipe, small.console())
    assert not recipe.output.exists()


def test_results_of_two_versions_of_an_evaluator_are_refused(tmp_path: Path, model: str) -> None:
    recipe = small.recipe(tmp_path / "a", model, defences=["none"], evaluators=["utility"])
    run_compare(recipe, small.console())
    (old,) = recipe.output.glob("seed-0/stages/evaluate-learned-*-utility-*/evaluation.json")
    found = json.loads(old.read_text(encoding="utf-8"))
    old.write_text(json.dumps(found | {"version": found["version"] - 1}), encoding="utf-8")
    more = small.recipe(tmp_path / "a", model, defences=["none", "self_correction"], evaluators=["utility"])
    with pytest.raises(
        EvaluationError, match="utility was scored by version 0 for seed 0, none, by version 1"
    ):
        run_compare(more, small.console())


def test_rows_a_judge_fails_on_are_left_out_and_counted(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_blind(model: Any, tokenizer: Any, rows: Any, **settings: Any) -> Evaluation:
        metric = Metric("bad_share", wilson(1, len(rows) - 2), "lower", unscored=2)
        evidence = tuple({"id": str(i), "value": None, "why": "no verdict"} for i in range(2))
        return Evaluation("toxicity", 1, (metric,), evidence, {})

    monkeypatch.setitem(evaluators.EVALUATORS, "toxicity", half_blind)
    recipe = small.recipe(tmp_path / "a", model, defences=["none"], evaluators=["toxicity"])
    run_compare(recipe, small.console())
    (outcome,) = json.loads((recipe.output / "results.json").read_text(encoding="utf-8"))["outcomes"]
    (metric,) = outcome["evaluations"]["toxicity"]["metrics"]
    assert (metric["estimate"]["value"], metric["estimate"]["n"], metric["unscored"]) == (0.5, 2, 2)
    assert "| none | 0.500 [0.095, 0.905] | 2 |" in (recipe.output / "table.md").read_text(encoding="utf-8")


def outcome(defence: str, seed: int, value: float | None, dropped: int = 0) -> Outcome:
    estimate = None if value is None else Estimate(value, value - 0.1, value + 0.1, 10)
    evidence = ({"id": "0", "value": None, "why": "no verdict"},)
    found = {
        "toxicity": Evaluation("toxicity", 1, (Metric("toxic_share", estimate, "lower", 1),), evidence, {})
    }
    return Outcome(Named(defence), seed, 10, dropped, 0, None, None, 1.0, 2.0, None, "", found)


def test_a_change_is_taken_seed_by_seed() -> None:
    some = {
        "none": [outcome("none", 0, 0.4), outcome("none", 1, 0.2)],
        "forgetfilter": [outcome("forgetfilter", 1, 0.1), outcome("forgetfilter", 0, 0.1)],
    }
    _, row = changes(some, [Column("toxicity.toxic_share", "toxic")])
    # Seed 0 falls from 0.4 to 0.1, seed 1 from 0.2 to 0.1: minus three quarters, minus a half.
    assert row["toxicity.toxic_share"].value == pytest.approx(-0.625)
    assert row["toxicity.toxic_share"].seeds == 2


def test_a_single_seed_keeps_the_interval_of_its_rows_and_several_have_their_own() -> None:
    one, other = Estimate(0.2, 0.1, 0.3, 10), Estimate(0.4, 0.3, 0.5, 10)
    assert over_seeds([one]) == one
    both = over_seeds([one, other])
    assert both is not None and both.value == pytest.approx(0.3) and both.seeds == 2
    # Undefined is left out of the mean, not counted as zero.
    left = over_seeds([one, None])
    assert left is not None and (left.value, left.low, left.seeds) == (0.2, None, 1)
    assert over_seeds([None, None]) is None


def test_the_table_counts_unscored_rows_over_all_seeds() -> None:
    main, *_, toxicity = result_tables([outcome("none", 0, 0.4), outcome("none", 1, None)])
    (row,) = toxicity.rows
    assert row["toxicity.unscored"] == 2 and row["seeds"] == 2
    assert main.columns[1].key == "toxicity.toxic_share" and main.columns[1].better == "lower"


def test_rows_left_out_of_either_kind_are_counted():
    evidence = [{"kind": k, "value": None} for k in ("harmful", "harmful", "harmless")]
    found = Evaluation("harmfulness", 1, harmfulness.metrics(evidence), tuple(evidence), {})
    assert (
        comparison.unscored(
            [replace(outcome("none", 0, 0.1), evaluations={"harmfulness": found})], "harmfulness"
        )
        == 3
    )


def test_a_strong_bias_against_the_stereotype_is_not_the_best():
    metric = next(m for m in bias.metrics([]) if m.name == "bias_ambiguous")
    cells = [bias.ambiguous_score(5, 90, 100), bias.ambiguous_score(10, 10, 100)]
    assert best(cells, comparison.BETTER[metric.better]) == [False, False]


def test_seeds_that_agree_leave_the_doubt_of_their_rows():
    found = over_seeds([wilson(0, 8), wilson(0, 8)])
    assert found is not None and found.low == 0 and found.high == pytest.approx(0.324, abs=1e-3)


def test_two_judges_never_share_a_table():
    one, two = (Evaluation("toxicity", 1, (), (), {"scorer": "clf", "scorer_version": v}) for v in "ab")
    with pytest.raises(EvaluationError, match="scorer_version"):
        evaluation.refuse_mixed_versions([("none", one), ("replay", two)], "folder")


def test_flagged_rows_are_counted_and_equal_names_told_apart() -> None:
    twins = [
        replace(
            outcome("self_correction", 0, 0.4),
            flagged=3,
            defence=Named("self_correction", {"instruction": text}),
        )
        for text in (f"{'Be kind. ' * 9}{end}" for end in "ab")
    ]
    main, *_ = result_tables(twins)
    assert [row["share_flagged"] for row in main.rows] == [0.3, 0.3]
    assert len({row["defence"] for row in main.rows}) == 2


@pytest.mark.parametrize("defences", [["replay", "none"], ["none", "replay"]])
def test_what_a_defence_costs_depends_neither_on_its_place_nor_on_a_second_run(
    tmp_path: Path, model: str, defences: list[str]
) -> None:
    recipe = small.recipe(tmp_path / "a", model, defences=defences, evaluators=["utility"])

    def costs() -> dict[str, float]:
        run_compare(recipe, small.console())
        found = json.loads((recipe.output / "results.json").read_text(encoding="utf-8"))["outcomes"]
        return {o["defence"]: o["fine_tunes"] for o in found}

    first = costs()
    assert first["none"] == 1 and first["replay"] > 1
    assert costs() == first
