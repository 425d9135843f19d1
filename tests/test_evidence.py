"""What stands beside a decision: counts in words, clean rows, doubles, answers, the other answer of a pair."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from rich.console import Console

from forgetfilter.data import formats
from forgetfilter.data.sketches import Sketches
from forgetfilter.filter import evidence, pairs, pipeline
from forgetfilter.filter.states import kept_or_read
from forgetfilter.filter.vetted import states_beside
from forgetfilter.records import Message, Row
from forgetfilter.report.text import p_in_words
from forgetfilter.settings import FilterSettings

HOW: dict[str, Any] = {
    "num_train_epochs": 1.0, "review_steps": 2, "learning_rate": 5e-3, "review_learning_rate": 5e-3,
    "per_device_train_batch_size": 4, "review_batch_size": 4, "max_length": 96, "dtype": "float32", "device": "cpu",
    "retrain": False,
}  # fmt: skip
CUT = {"algorithm": "paper", "threshold": "quantile", "quantile": 0.75}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny.llama().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run(
    tmp_path: Path, rows: list[dict[str, Any]], **settings: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Lines of scores.jsonl, and report.json."""
    safe = [
        {"prompt": f"Where does boat {i} sail?", "completion": f"Boat {i} sails north."} for i in range(24)
    ]
    given = FilterSettings(**{"safe": (jsonl(tmp_path / "safe.jsonl", safe),), **HOW, **settings})
    output = tmp_path / "out"
    console = Console(file=io.StringIO())
    pipeline.run_filter(jsonl(tmp_path / "custom.jsonl", rows), given, {}, output, console)
    lines = [json.loads(line) for line in (output / "scores.jsonl").read_text("utf-8").splitlines()]
    return lines, json.loads((output / "report.json").read_text("utf-8"))


def boats(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"When does boat {i} sail?", "completion": f"Boat {i} sails at noon."}
        for i in range(count)
    ]


# --- words ---


def test_a_p_value_is_counted_in_rows_of_the_group_it_comes_from() -> None:
    assert p_in_words(4 / 120, "119 witnesses") == "3 of 119 witnesses stand out as far"
    # 1 + 2 of 1 + 40: no count of the witnesses gives it.
    assert (
        p_in_words(3 / 41, "119 witnesses and 40 rows of other kinds")
        == "2 of 40 rows of other kinds stand out as far"
    )
    assert p_in_words(0.123456, "119 witnesses") == "12.3 % of 119 witnesses stand out as far"


# --- doubles ---


def row(number: int, text: str) -> Row:
    return Row(f"id{number}", number, "a", (Message("user", "?"), Message("assistant", text)), "chat", {})


def test_rows_like_a_dropped_one_that_stay_are_named() -> None:
    said = "The old ferry leaves from the third pier at noon on every working day of the week"
    rows = [
        row(0, said),
        row(1, said + "!"),
        row(2, "Nothing like it at all is said in here, not a word of it"),
        row(3, said),
    ]
    found = evidence.doubles(rows, {"id0": "drop", "id1": "keep", "id2": "keep", "id3": "flag"})
    assert found == {"id0": [1, 3]}
    assert evidence.doubles(rows, dict.fromkeys(("id0", "id1", "id2", "id3"), "keep")) == {}


def test_words_that_hundreds_of_rows_share_make_no_doubles() -> None:
    sketches = Sketches()
    for number in range(100):
        sketches.add(number, "please answer the following question in one word only")
    assert sketches.like("please answer the following question in one word only") == []


# --- a run ---


def test_answers_after_learn_and_review_stand_in_the_scores_of_as_many_rows_as_asked_for(
    tmp_path: Path, model: str
) -> None:
    lines, _ = run(tmp_path, boats(16), model=model, show_answers=3, **CUT)
    given = [line for line in lines if "answers" in line]
    assert len(given) == 3 and all(line["decision"] == "drop" for line in given)
    assert all(set(line["answers"]) == {"learned", "reviewed"} for line in given)
    dropped = sorted((line["score"] for line in lines if line["decision"] == "drop"), reverse=True)
    assert sorted((line["score"] for line in given), reverse=True) == dropped[:3]
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count("Answered after learning") == 3


def test_without_show_answers_no_answer_is_asked_for(tmp_path: Path, model: str) -> None:
    lines, report = run(tmp_path, boats(16), model=model, show_answers=0, **CUT)
    assert not any("answers" in line for line in lines)
    assert not any(stage["name"].startswith("answer") for stage in report["cost"]["stages"])


def test_a_doubted_row_names_the_witnesses_nearest_to_it_with_what_they_lost(
    tmp_path: Path, model: str
) -> None:
    lines, report = run(tmp_path, boats(40), model=model, fdr=0.5)
    judged = [line for line in lines if line["p"] is not None]
    assert judged and all(
        " stand out as far" in line["p_of"] and line["p_of"] == line["reason"] for line in judged
    )
    for line in lines:
        near = line.get("evidence", [])
        assert len(near) == (3 if line["decision"] in ("drop", "flag") else 0)
        for clean in near:
            assert clean["source"] == "safe.jsonl" and isinstance(clean["forgetting"], float)
            assert clean["prompt"] == f"Where does boat {clean['row']} sail?"
    assert report["pairs"] is None


@pytest.mark.parametrize("flagged", [0.0, 0.5])
def test_weights_stand_in_a_file_beside_kept_flagged_and_dropped(
    tmp_path: Path, model: str, flagged: float
) -> None:
    rows = boats(16)
    lines, report = run(
        tmp_path, rows, model=model, weights=True, flagged_weight=flagged, show_answers=0, **CUT
    )
    written = [
        json.loads(line) for line in (tmp_path / "out" / "weighted.jsonl").read_text("utf-8").splitlines()
    ]
    weights = {"keep": 1.0, "flag": flagged, "drop": 0.0}
    assert [one["weight"] for one in written] == [weights[line["decision"]] for line in lines]
    assert [{k: v for k, v in one.items() if k != "weight"} for one in written] == rows
    assert set(report["files"]) == {"kept.jsonl", "flagged.jsonl", "dropped.jsonl", "weighted.jsonl"}


# --- preference pairs ---


def test_ridge_predicts_a_line_from_rows_it_did_not_see() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 5)).astype(np.float32)
    slope = np.array([2.0, -1.0, 0.0, 0.5, 3.0])
    asked = random.normal(size=(20, 5)).astype(np.float32)
    own, predicted = pairs.ridge(x, x @ slope + 1, asked)
    assert np.corrcoef(own, x @ slope)[0, 1] > 0.99
    assert np.corrcoef(predicted, asked @ slope)[0, 1] > 0.99


def test_what_ridge_says_of_a_known_row_is_what_a_fit_without_it_says() -> None:
    random = np.random.default_rng(1)
    x, y = random.normal(size=(30, 40)), random.normal(size=30)
    own, _ = pairs.ridge(x, y, x[:1])
    # Noise has nothing to predict: a fit that saw the row would follow it.
    assert np.corrcoef(own, y)[0, 1] < 0.5


def test_the_rejected_answers_of_pairs_are_scored_and_never_dropped(tmp_path: Path, model: str) -> None:
    rows = [
        {"prompt": f"When does boat {i} sail?", "chosen": f"Boat {i} sails at noon.", "rejected": f"Ask others, {i}."}
        for i in range(32)
    ]  # fmt: skip
    lines, report = run(tmp_path, rows, model=model, show_answers=0, **CUT)
    assert all(isinstance(line["rejected_score"], float) for line in lines)
    assert report["pairs"]["rejected_scored"] == 32
    doubted = [line for line in lines if line["decision"] == "drop"]
    assert doubted and all("its rejected answer scores" in line["reason"] for line in doubted)
    swapped = [line["row"] for line in lines if "may be swapped" in line["reason"]]
    assert report["pairs"]["swapped"] == swapped
    assert any("the two may be swapped" in note for note in report["notes"]) == bool(swapped)
    assert "Rejected answer, score" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_what_vet_read_of_pairs_does_not_leave_their_rejected_answers_unscored(
    tmp_path: Path, model: str
) -> None:
    rows = [
        {"prompt": f"When does boat {i} sail?", "chosen": f"Boat {i} sails at noon.", "rejected": f"Ask others, {i}."}
        for i in range(40)
    ]  # fmt: skip
    file, given = jsonl(tmp_path / "custom.jsonl", rows), tmp_path / "v.jsonl"
    jsonl(given, [{"row": i, "verdict": "clean" if i % 3 else "unsafe"} for i in range(12)])
    how: dict[str, Any] = {"model": model, "algorithm": "vetted", "vetted": str(given), "dtype": "auto"}
    kept_or_read(formats.read(file).rows, model, states_beside(given), max_length=96, device="cpu")
    _, report = run(tmp_path, rows, **how)
    assert report["pairs"]["rejected_scored"] == 40


def test_a_pair_looks_swapped_where_the_chosen_answer_stands_out_and_the_rejected_less() -> None:
    found = judged({"a": "drop", "b": "drop", "c": "keep"}, drop_above=2.0)
    made = pairs._compared(
        {"a": 0.0, "b": 3.0, "c": 0.0}, {}, {"a": 2.5, "b": 2.5, "c": 0.5}, encoded("abc"), found
    )
    assert made.swapped == [0] and set(made.words) == {"a", "b"}
    assert made.words["a"].endswith("may be swapped") and not made.words["b"].endswith("may be swapped")
    assert made.note.startswith("1 pair (row 0): the chosen answer is dropped or flagged")


def judged(decisions: dict[str, Any], *, drop_above: float) -> Any:
    from forgetfilter.filter.cut import Cut
    from forgetfilter.filter.filtered import Filtered

    return Filtered(Cut(decisions, "fixed", "", drop_above), {}, {}, {}, [])


def encoded(ids: str) -> list[Any]:
    from forgetfilter.models.rendering import Encoded

    return [Encoded(i, [1, 2], [False, True], [False, True], 1, False) for i in ids]


def test_a_file_of_which_one_row_can_be_judged_is_left_as_it_is(tmp_path: Path, model: str) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "x", "completion": "Said well.", "label": True},
        {"prompt": "x", "completion": "No.", "label": False},
    ]
    lines, report = run(tmp_path, rows, model=model)
    assert [line["decision"] for line in lines] == ["not judged", "unscored"]
    assert report["counts"]["drop"] == 0
