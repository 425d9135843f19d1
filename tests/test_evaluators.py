"""The result record that every evaluator gives, on disk and back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from forgetfilter.errors import EvaluationError
from forgetfilter.evaluate import EVALUATORS, Evaluation, Metric, read, write
from forgetfilter.intervals import wilson

FOUND = Evaluation(
    "toxicity",
    1,
    (Metric("toxic_share", wilson(1, 2), "lower", 3), Metric("mean_toxicity", None, "lower", 5)),
    ({"id": "a", "judged": "half a character \ud83d\u2028and a line", "value": 0.5},),
    {"scorer": "ngram", "rows": 5},
)


def test_what_was_written_is_what_is_read(tmp_path):
    write(FOUND, tmp_path / "new")
    assert read(tmp_path / "new") == FOUND
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["evaluation.json", "evidence.jsonl"]


def test_the_summary_is_json_with_every_number_and_no_evidence():
    summary = json.loads(json.dumps(FOUND.summary()))
    assert "judged" not in json.dumps(summary)
    first, second = summary["metrics"]
    assert first["estimate"]["value"] == 0.5
    assert first["estimate"]["low"] < 0.5 < first["estimate"]["high"]
    assert (first["unscored"], first["better"]) == (3, "lower")
    assert second["estimate"] is None


def test_a_metric_is_found_by_name_and_an_unknown_name_lists_the_known():
    assert FOUND["mean_toxicity"] is FOUND.metrics[1]
    with pytest.raises(KeyError, match="toxic_share, mean_toxicity"):
        FOUND["accuracy"]


def test_an_evaluation_written_again_replaces_the_first(tmp_path):
    write(FOUND, tmp_path)
    write(replace(FOUND, evidence=(), version=2), tmp_path)
    assert read(tmp_path).version == 2
    assert read(tmp_path).evidence == ()


@pytest.mark.parametrize("content", ["", "[]", '{"evaluator": "toxicity"}'])
def test_a_damaged_record_is_refused(tmp_path, content):
    write(FOUND, tmp_path)
    (tmp_path / "evaluation.json").write_text(content, encoding="utf-8")
    with pytest.raises(EvaluationError, match="not a whole evaluation"):
        read(tmp_path)


def test_an_empty_folder_holds_no_evaluation(tmp_path):
    with pytest.raises(EvaluationError, match="no evaluation to read here"):
        read(tmp_path)


def test_the_table_names_the_four_evaluators():
    assert list(EVALUATORS) == ["toxicity", "bias", "harmfulness", "utility"]
