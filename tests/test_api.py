"""The filter from Python: rows in memory and in files, models by name and loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_pipeline import SAFE, custom_rows, safe_boats, two_kinds

import forgetfilter
from forgetfilter import ConfigError, DataError, FilterResult, ModelError, filter_rows

QUICK: dict[str, Any] = {
    "algorithm": "paper", "signal": "likelihood", "tuning": "lora", "threshold": "quantile", "quantile": 0.75,
    "num_train_epochs": 1, "review_steps": 2, "learning_rate": 5e-3, "review_learning_rate": 5e-3,
    "per_device_train_batch_size": 4, "review_batch_size": 4, "max_length": 64, "dtype": "float32",
}  # fmt: skip
WITNESS = {**QUICK, "algorithm": "witness", "threshold": "fdr"}
KEPT = ("keep", "not judged", "unscored")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny-model")
    tiny.llama().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def by_lists(model: str) -> FilterResult:
    return filter_rows(custom_rows(), safe=SAFE, model=model, **QUICK)


def same(one: FilterResult, other: FilterResult) -> bool:
    return (one.scores, one.decisions, one.reasons) == (other.scores, other.decisions, other.reasons)


def test_importing_the_package_loads_nothing_heavy(environment: Mapping[str, str]):
    code = (
        "import sys, forgetfilter; heavy = {'torch', 'transformers', 'datasets', 'numpy', 'pandas'} & set(sys.modules);"
        "assert not heavy, heavy; assert 'filter_rows' in dir(forgetfilter); print(len(forgetfilter.__version__) > 2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "True\n", done.stderr


def test_every_public_name_is_there_and_has_a_docstring():
    for name in forgetfilter.__all__:
        found = getattr(forgetfilter, name)
        assert found and (name == "__version__" or found.__doc__)
    with pytest.raises(AttributeError, match="no attribute 'filter_row'"):
        _ = forgetfilter.filter_row


def test_entries_line_up_with_the_rows_and_every_row_is_in_one_part(by_lists: FilterResult):
    rows = custom_rows()
    assert len(by_lists.scores) == len(by_lists.decisions) == len(by_lists.reasons) == len(rows)
    parts = [*by_lists.kept, *by_lists.flagged, *by_lists.dropped]
    assert sorted(map(str, parts)) == sorted(map(str, rows))
    scored = [s for s in by_lists.scores if s is not None]
    assert by_lists.scores[5] is None and by_lists.decisions[5] == "unscored" and len(scored) == 15
    # Three quarters of 15 scores are 11.25: the twelfth is the quantile, and the three above it are dropped.
    dropped = [s for s, d in zip(by_lists.scores, by_lists.decisions, strict=True) if d == "drop"]
    assert sorted(dropped) == sorted(scored)[12:]
    assert not by_lists.weak and by_lists.report["counts"]["drop"] == 3
    assert by_lists.report["settings"][0]["origin"] == "argument"


def test_python_and_the_command_decide_alike(
    by_lists: FilterResult, model: str, tmp_path: Path, command: Callable[..., Any]
):
    for name, rows in (("rows.jsonl", custom_rows()), ("safe.jsonl", SAFE)):
        (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in QUICK.items()]
    done = command(
        "filter", "rows.jsonl", "--safe", "safe.jsonl", "--model", model, "--no-retrain", "-o", "out", *flags
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines()]
    assert [line["score"] for line in lines] == pytest.approx(by_lists.scores)
    assert [line["decision"] for line in lines] == by_lists.decisions
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report) == set(by_lists.report) and report["counts"] == by_lists.report["counts"]


def test_datasets_tables_and_files_give_what_lists_give(by_lists: FilterResult, model: str, tmp_path: Path):
    datasets, pandas = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    rows = custom_rows()
    data = datasets.Dataset.from_list(rows)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    kinds: dict[str, Any] = {
        "dataset": data, "stream": data.to_iterable_dataset(), "dict": datasets.DatasetDict({"train": data}),
        "table": pandas.DataFrame(rows), "path": tmp_path / "rows.jsonl",
    }  # fmt: skip
    found = {
        kind: filter_rows(given, safe=datasets.Dataset.from_list(SAFE), model=model, **QUICK)
        for kind, given in kinds.items()
    }
    assert all(same(one, by_lists) for one in found.values())
    assert found["dataset"].kept.to_list() == found["dict"].kept.to_list() == by_lists.kept
    assert isinstance(found["table"].dropped, pandas.DataFrame)
    assert found["table"].dropped.to_dict("records") == by_lists.dropped
    assert found["stream"].kept == found["path"].kept == by_lists.kept


def test_to_dataset_is_the_input_with_score_and_decision(by_lists: FilterResult):
    pytest.importorskip("datasets")
    table = by_lists.to_dataset()
    assert table.column_names == [
        "prompt",
        "completion",
        "unsafe",
        "extra",
        "forgetfilter_score",
        "forgetfilter_decision",
    ]
    assert list(table["forgetfilter_score"]) == by_lists.scores
    assert list(table["forgetfilter_decision"]) == by_lists.decisions
    again = FilterResult(by_lists.scores, by_lists.decisions, by_lists.reasons, {}, False, table)
    with pytest.raises(DataError, match='"forgetfilter_score" stands as a column already'):
        again.to_dataset()


def test_the_default_algorithm_runs_and_rows_stay_the_objects_that_were_given(model: str):
    rows = two_kinds()
    found = filter_rows(rows, safe=safe_boats(), model=model, **WITNESS)
    kept = {id(row) for row in found.kept}
    assert kept == {id(r) for r, d in zip(rows, found.decisions, strict=True) if d in KEPT}
    assert set(found.decisions[12:]) == {"not judged"} and found.scores[12:] == [None] * 12


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_loaded_model_gives_the_same_and_comes_back_as_it_was(
    model: str, by_lists: FilterResult, tuning: str
):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    for p in loaded.model.embed_tokens.parameters():
        p.requires_grad_(False)
    loaded.train()
    before = tiny.weights(loaded)
    names, frozen = [n for n, _ in loaded.named_modules()], [p.requires_grad for p in loaded.parameters()]
    classes = [type(m) for m in loaded.modules()]
    how = {**QUICK, "tuning": tuning, "dtype": None}
    found = filter_rows(custom_rows(), safe=SAFE, model=(loaded, tokenizer), **how)
    wanted = (
        by_lists
        if tuning == "lora"
        else filter_rows(custom_rows(), safe=SAFE, model=model, **{**how, "dtype": "float32"})
    )
    assert same(found, wanted)
    assert tiny.same(before, tiny.weights(loaded))
    assert names == [n for n, _ in loaded.named_modules()] and classes == [type(m) for m in loaded.modules()]
    assert frozen == [p.requires_grad for p in loaded.parameters()] and loaded.training
    assert not hasattr(loaded, "peft_config")


def test_a_loaded_model_comes_back_even_where_the_run_breaks_off(model: str, monkeypatch: pytest.MonkeyPatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from forgetfilter.runs import Stage

    loaded = AutoModelForCausalLM.from_pretrained(model)
    before = tiny.weights(loaded)

    def stop(stage: Stage, record: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Stage, "finish", stop)
    with pytest.raises(KeyboardInterrupt):
        filter_rows(
            custom_rows(), safe=SAFE, model=loaded, tokenizer=AutoTokenizer.from_pretrained(model),
            **{**QUICK, "tuning": "full", "dtype": None},
        )  # fmt: skip
    assert tiny.same(before, tiny.weights(loaded))


def test_what_a_loaded_model_has_decided_is_not_decided_again(model: str):
    from transformers import AutoTokenizer

    pair = tiny.llama(), AutoTokenizer.from_pretrained(model)
    with pytest.raises(ConfigError, match=r"^dtype: the model that you have loaded has its own"):
        filter_rows(custom_rows(), safe=SAFE, model=pair, **QUICK)
    with pytest.raises(ModelError, match="give its tokenizer too"):
        filter_rows(custom_rows(), safe=SAFE, model=pair[0])


def test_with_a_folder_the_run_is_kept_and_resumed(model: str, tmp_path: Path, by_lists: FilterResult):
    found = filter_rows(custom_rows(), safe=SAFE, model=model, output_dir=tmp_path / "run", **QUICK)
    again = filter_rows(custom_rows(), safe=SAFE, model=model, output_dir=tmp_path / "run", **QUICK)
    assert same(found, by_lists) and same(again, found)
    assert (tmp_path / "run" / "model").is_dir() and (tmp_path / "run" / "report.html").is_file()
    kept = [json.loads(line) for line in (tmp_path / "run" / "kept.jsonl").read_text().splitlines()]
    assert kept == found.kept
    with pytest.raises(ConfigError, match="run of another command; different: rows"):
        filter_rows(custom_rows()[:-1], safe=SAFE, model=model, output_dir=tmp_path / "run", **QUICK)


def test_verdicts_decide_without_safe_rows(model: str):
    verdicts = [{"row": i, "verdict": "unsafe" if i % 4 == 0 else "clean"} for i in range(16) if i != 5]
    found = filter_rows(custom_rows(), vetted=verdicts, model=model, max_length=64)
    assert [found.decisions[i] for i in (0, 1, 4)] == ["drop", "keep", "drop"]
    assert found.report["algorithm"] == "vetted" and found.report["vetted"]["rows"] == 15


def test_verdicts_come_as_arrays_give_them_or_in_a_table_and_the_same_call_goes_on(
    model: str, tmp_path: Path
):
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    verdicts = [{"row": i, "verdict": "unsafe" if i % 4 == 0 else "clean"} for i in range(16) if i != 5]
    of_numpy = [one | {"row": numpy.int64(one["row"])} for one in verdicts]
    how: dict[str, Any] = {"model": model, "max_length": 64, "retrain": False, "output_dir": tmp_path / "run"}
    found = [
        filter_rows(custom_rows(), vetted=v, **how) for v in (verdicts, of_numpy, pandas.DataFrame(verdicts))
    ]
    assert same(found[0], found[1]) and same(found[0], found[2])
    with pytest.raises(DataError, match=r"^vetted row 0: a number"):
        filter_rows(custom_rows(), vetted=[3], **how)


def test_the_column_of_scores_holds_numbers_also_where_no_row_has_one(model: str):
    datasets = pytest.importorskip("datasets")
    found = filter_rows(custom_rows()[:2], safe=safe_boats(), model=model, **WITNESS)
    assert found.scores == [None, None] and found.weak
    assert found.to_dataset().features["forgetfilter_score"] == datasets.Value("float64")


class Odd:
    """A value that JSON does not know."""


def test_values_that_no_file_can_hold_travel_unless_a_folder_is_to_hold_them(model: str, tmp_path: Path):
    rows = [{**row, "image": Odd()} for row in custom_rows()]
    found = filter_rows(rows, safe=SAFE, model=model, **QUICK)
    assert all(isinstance(row["image"], Odd) for row in found.kept)
    with pytest.raises(DataError, match="rows row 0: a value of type Odd cannot be written as JSON"):
        filter_rows(rows, safe=SAFE, model=model, output_dir=tmp_path / "out", **QUICK)


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"lerning_rate": 1}, ConfigError, "^lerning_rate: unknown setting .*did you mean 'learning_rate'"),
        ({"review_steps": 0}, ConfigError, "^review_steps: 0 is out of range"),
        ({"model": 7}, ConfigError, "^model: a int; give a name"),
        ({"model": "no-such-model"}, ModelError, "no such folder"),
        ({"model": "nano", "tokenizer": object()}, ConfigError, "comes with its own"),
        ({"rows": [{"prompt": "a", "completion": "b"}, "c"]}, DataError, "^rows row 1: text, not an object"),
        ({"rows": []}, DataError, "rows: holds no rows"),
        ({"rows": 3}, DataError, "rows: a int; give a list of dicts"),
        ({"rows": [{"x": "a"}] * 3}, DataError, "^rows row 0: "),
        (
            {"safe": [{"prompt": "a", "completion": ""}]},
            DataError,
            "safe rows: no safe row with a completion",
        ),
        ({"safe": custom_rows()[:1]}, DataError, r"the same row is in the safe rows \(safe rows row 0\)"),
        ({"report_to": "tensorbord"}, ConfigError, "did you mean 'tensorboard'"),
    ],
)
def test_what_the_caller_can_mend_is_said_in_words(given: dict[str, Any], kind: type, said: str):
    given = {"safe": SAFE, **QUICK, **given}
    with pytest.raises(kind, match=said):
        filter_rows(given.pop("rows", custom_rows()), **given)


def test_a_data_set_of_several_splits_is_named_with_its_splits():
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(custom_rows())
    with pytest.raises(DataError, match=r"several splits \(train, test\); give one, as in data\['train'\]"):
        filter_rows(datasets.DatasetDict({"train": data, "test": data}), safe=SAFE)


def test_a_missing_value_in_a_table_is_no_text():
    pandas = pytest.importorskip("pandas")
    from forgetfilter.data import formats, given

    table = pandas.DataFrame(
        {"prompt": ["a", "b"], "completion": ["c", None], "count": [1, 2], "odd": [1.5, None]}
    )
    store = given.store(given.held(table, "rows"), "rows", lenient=False)
    assert [row.record for row in formats.read(store).rows] == [
        {"prompt": "a", "completion": "c", "count": 1, "odd": 1.5},
        {"prompt": "b", "completion": None, "count": 2, "odd": None},
    ]
