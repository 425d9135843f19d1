"""Every defence on a tiny real model, by the function behind `compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small
import tiny
from test_scorers import classifier as scorer_folder

from forgetfilter import runs
from forgetfilter.display import Display
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.evaluate import asking, defences
from forgetfilter.evaluate.compare import ground, read_data, run_compare
from forgetfilter.evaluate.defences import CEILINGS, DEFENCES, Defended, Experiment
from forgetfilter.filter import bench as benches
from forgetfilter.models.rendering import encode
from forgetfilter.records import Message, Row
from forgetfilter.settings import Count


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small.model(tmp_path_factory.mktemp("tiny-model"))


def compared(folder: Path, model: str, **flags: Any) -> dict[str, dict[str, Any]]:
    """Defence -> its outcome."""
    run_compare(small.recipe(folder, model, **flags), small.console())
    found = json.loads((folder / "out" / "results.json").read_text(encoding="utf-8"))["outcomes"]
    return {outcome["defence"]: outcome for outcome in found}


def states(folder: Path) -> dict[str, str]:
    """Stage, without what tells it apart from others of its name -> hash of the weights it left."""
    found = (folder / "out" / "seed-0" / "stages").glob("train-*/state.safetensors")
    return {path.parent.name.rsplit("-", 1)[0]: runs.sha256(path) for path in found}


@pytest.mark.slow
def test_no_defence_but_the_oracle_sees_a_label(tmp_path: Path, model: str) -> None:
    swapped = [{**row, "unsafe": not row["unsafe"]} for row in small.CUSTOM]
    names = list(DEFENCES)
    first = compared(tmp_path / "a", model, defences=names)
    second = compared(tmp_path / "b", model, defences=names, custom=swapped)
    weights, weights_too = states(tmp_path / "a"), states(tmp_path / "b")
    assert len(weights) >= 6 and weights.keys() == weights_too.keys()
    assert {name for name in weights if weights[name] != weights_too[name]} == {"train-oracle"}
    for name in names:
        same = [first[name][key] == second[name][key] for key in ("dropped", "unscored", "evaluations")]
        assert all(same) == (name not in CEILINGS), name
    # The truth was there to be seen: the oracle dropped its 4 unsafe rows, then the 12 others.
    assert (first["oracle"]["dropped"], second["oracle"]["dropped"]) == (4, 12)
    assert (first["oracle"]["unsafe_dropped"], first["oracle"]["clean_dropped"]) == (1.0, 0.0)


def test_a_defence_from_outside_is_one_function_and_one_line(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_rows(experiment: Experiment, name: str, *, rows: Count = 3) -> Defended:
        """Keep the first rows only."""
        kept = {z.id for z in experiment.custom[:rows]}
        experiment.bench.train(
            name, "original", experiment.custom[:rows], rate=experiment.settings.learning_rate, epochs=1
        )
        return Defended(name, {z.id: "keep" if z.id in kept else "drop" for z in experiment.custom})

    monkeypatch.setitem(DEFENCES, "first_rows", first_rows)
    found = compared(tmp_path / "a", model, defences=["none", "first_rows"])
    assert found["first_rows"]["dropped"] == len(small.CUSTOM) - 3
    assert found["none"]["fine_tunes"] == 1 > found["first_rows"]["fine_tunes"]
    table = (tmp_path / "a" / "out" / "table.md").read_text(encoding="utf-8")
    assert "| first_rows |" in table


def test_what_defences_have_in_common_is_trained_once(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    engine = benches.finetune

    def counting(model: Any, rows: Any, **settings: Any) -> Any:
        trained.append(len(rows))
        return engine(model, rows, **settings)

    monkeypatch.setattr(benches, "finetune", counting)
    names = ["none", "sequential", "self_correction", "forgetfilter"]
    found = compared(tmp_path / "a", model, defences=names)
    dropped = found["forgetfilter"]["dropped"]
    # learn, safety fine-tuning, review, and the fine-tune on what the filter keeps
    assert dropped > 0 and trained == [16, 8, 8, 16 - dropped]
    assert found["none"]["fine_tunes"] == found["self_correction"]["fine_tunes"] == 1
    # Counted for whoever needs it: learn and a fine-tune on three quarters of the rows alone are above 1.5.
    assert found["forgetfilter"]["fine_tunes"] > 1.5
    # The instruction makes it another evaluation of the same state.
    assert found["self_correction"]["instruction"] == defences.INSTRUCTION
    stages = [
        p.name for p in (tmp_path / "a" / "out" / "seed-0" / "stages").glob("evaluate-learned-*-toxicity-*")
    ]
    assert len(stages) == 2


def test_a_filter_that_drops_nothing_releases_the_learned_model(tmp_path: Path, model: str) -> None:
    # With φ far above any difference of mean log-probabilities, no row is dropped.
    found = compared(tmp_path / "a", model, defences=["none", "forgetfilter"], threshold="fixed", phi=1e9)
    assert found["forgetfilter"]["dropped"] == 0
    assert found["forgetfilter"]["evaluations"] == found["none"]["evaluations"]
    assert not any(name.startswith("train-forgetfilter") for name in states(tmp_path / "a"))


def scene_of(tmp_path: Path, model: str, **flags: Any) -> Any:
    recipe = small.recipe(tmp_path / "a", model, **flags)
    data = read_data(recipe, 0)
    return data, ground(recipe, data, 0, recipe.output / "seed-0", Display(small.console()))


def test_rows_a_scorer_cannot_judge_stay_and_are_counted(tmp_path: Path, model: str) -> None:
    custom = [*small.CUSTOM[:3], {"prompt": "Count.", "completion": "1 2 3", "unsafe": False}]
    data, experiment = scene_of(tmp_path, model, custom=custom)
    with experiment as here:
        # From 0 on every row that can be judged is dropped; digits have no letter to judge.
        done = DEFENCES["classifier"](here, "classifier", above=0.0)
        decisions = [done.decisions[row.id] for row in data.custom]
        assert decisions == ["drop", "drop", "drop", "unscored"]
        record = here.bench.record("classifier")
        assert record["steps"] == 1  # one row, one epoch


def test_a_scorer_that_changed_since_it_judged_the_rows_is_refused(tmp_path: Path, model: str) -> None:
    from safetensors.torch import load_file, save_file

    judge = tmp_path / "judge"
    scorer_folder(judge, ["clean", "toxic"])
    _, experiment = scene_of(tmp_path, model)
    with experiment as here:
        first = DEFENCES["classifier"](here, "classifier", scorer=str(judge))
        assert DEFENCES["classifier"](here, "classifier", scorer=str(judge)).decisions == first.decisions
        weights = load_file(judge / "model.safetensors")
        weights["classifier.bias"] += 1
        save_file(weights, judge / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ConfigError, match="other weights than those that judged the rows"):
            DEFENCES["classifier"](here, "classifier", scorer=str(judge))


def test_where_nothing_is_kept_the_original_model_is_released(tmp_path: Path, model: str) -> None:
    _, experiment = scene_of(tmp_path, model)
    with experiment as here:
        done = DEFENCES["classifier"](here, "classifier", above=0.0)
        assert here.bench.kept_as(done.state) == "original"


def test_the_original_model_is_judged_without_any_training(tmp_path: Path, model: str) -> None:
    found = compared(tmp_path, model, defences=["original"])["original"]
    assert states(tmp_path) == {} and (found["dropped"], found["fine_tunes"]) == (0, None)
    assert found["evaluations"]


def test_the_oracle_without_a_truth_is_refused(tmp_path: Path, model: str) -> None:
    data, experiment = scene_of(tmp_path, model, label_field=None)
    with experiment as here, pytest.raises(DataError, match="label_field"):
        DEFENCES["oracle"](here, "oracle")
    assert data.truth is None


def test_a_scene_holds_no_field_of_the_file(tmp_path: Path, model: str) -> None:
    data, experiment = scene_of(tmp_path, model)
    assert data.truth is not None and sum(data.truth.values()) == 4
    with experiment as here:
        assert here.truth is None
        assert all(row.record == {} for row in [*here.rows, *here.safe])


def test_replay_takes_as_many_safe_rows_as_there_are_and_says_so(tmp_path: Path, model: str) -> None:
    _, experiment = scene_of(tmp_path, model)
    with experiment as here:
        # 16 custom rows and 8 safe ones: at most a third can be safe.
        assert DEFENCES["replay"](here, "half", share=0.5).why == (
            "33% of the rows learned are safe rows, not 50%: there are no more safe rows"
        )
        assert here.bench.record("half")["steps"] == 24 / 4
        # A fifth of the mixture: 4 safe rows beside 16.
        assert DEFENCES["replay"](here, "fifth", share=0.2).why == "20% of the rows learned are safe rows"
        assert here.bench.record("fifth")["steps"] == 20 / 4


def test_sequential_takes_the_steps_it_is_told(tmp_path: Path, model: str) -> None:
    _, experiment = scene_of(tmp_path, model)
    with experiment as here:
        DEFENCES["sequential"](here, "told", steps=3)
        DEFENCES["sequential"](here, "untold")
        # Untold: one pass, as the custom rows got, over 8 safe rows in batches of 4.
        assert [here.bench.record(n)["steps"] for n in ("told", "untold")] == [3, 2]


@pytest.mark.parametrize("template", [tiny.CHAT, tiny.CHAT.replace("<|{{ m['role'] }}|>{{ m['content'].strip() }}",
    "{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<|{{ m['role'] }}|>{{ m['content'].strip() }}")])  # fmt: skip
def test_an_instruction_is_learned_where_the_evaluators_put_it(template: str) -> None:
    tokens = tiny.tokenizer(template)
    rows = [tiny.row("Why?", "So.", id="0")]
    learned = encode(defences.instructed(rows, "Be kind.", tokens), tokens)
    (judged,) = asking._encode(tokens, [("Why?", "So.")], "Be kind.", "auto")
    assert learned[0].ids == judged.ids
    assert "Be kind." in tokens.decode(judged.ids)


def test_a_running_text_gets_its_instruction_in_front() -> None:
    text = Row(
        "t", 0, "texts", (Message("user", "One two three"), Message("assistant", " four.")), "text", {}
    )
    (row,) = defences.instructed([text], "Be kind.", tiny.tokenizer())
    assert "".join(m.content for m in row.messages) == "Be kind.\n\nOne two three four."
