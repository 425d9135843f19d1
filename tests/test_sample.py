"""A sample is learned, all rows are scored."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from rich.console import Console

from forgetfilter.filter import pipeline, sample
from forgetfilter.settings import FilterSettings

HOW: dict[str, Any] = {
    "num_train_epochs": 1.0, "review_steps": 2, "learning_rate": 5e-3, "review_learning_rate": 5e-3,
    "per_device_train_batch_size": 4, "review_batch_size": 4, "max_length": 96, "dtype": "float32", "device": "cpu",
    "retrain": False, "show_answers": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny.llama().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def run(tmp_path: Path, count: int, **settings: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Lines of scores.jsonl, and report.json."""
    for name, ask, size in (("safe", "Where does boat", 24), ("custom", "When does boat", count)):
        rows = [{"prompt": f"{ask} {i} sail?", "completion": f"Boat {i} sails at noon."} for i in range(size)]
        if name == "custom":
            rows[3]["completion"] = ""
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
    given = FilterSettings(**{"safe": (str(tmp_path / "safe.jsonl"),), **HOW, **settings})
    output = tmp_path / "out"
    pipeline.run_filter(str(tmp_path / "custom.jsonl"), given, {}, output, Console(file=io.StringIO()))
    lines = [json.loads(line) for line in (output / "scores.jsonl").read_text("utf-8").splitlines()]
    return lines, json.loads((output / "report.json").read_text("utf-8"))


def test_every_kind_is_drawn_from_in_proportion() -> None:
    random = np.random.default_rng(0)
    middles = random.normal(size=(4, 8)) * 20
    kind = np.repeat(np.arange(4), [400, 200, 100, 4])
    chosen = sample.draw(middles[kind] + random.normal(size=(704, 8)) * 0.01, 88, seed=0)
    assert len(set(chosen.tolist())) == 88 and list(chosen) == sorted(chosen)
    drawn = np.bincount(kind[chosen], minlength=4)
    assert np.all(np.abs(drawn - np.array([50, 25, 12.5, 0.5])) <= 4) and drawn[3] >= 1
    assert list(sample.draw(middles[kind], 88, seed=0)) == list(sample.draw(middles[kind], 88, seed=0))


def test_as_many_rows_are_learned_as_asked_for_and_all_are_decided(tmp_path: Path, model: str) -> None:
    lines, report = run(tmp_path, 60, model=model, max_train_samples=24, fdr=0.5)
    assert len(lines) == 60 and lines[3]["decision"] == "unscored"
    learned = [line for line in lines if line["forgetting"] is not None]
    assert 0 < len(learned) <= 24
    scored = [line for line in lines if line["score"] is not None]
    assert len(scored) > len(learned) and all(line["p"] is not None for line in scored)
    assert sum(report["counts"][d] for d in ("keep", "flag", "drop", "not judged", "unscored")) == 60
    assert any(note.startswith("Learned a sample of 24 of 59 rows") for note in report["notes"])


def test_the_papers_cut_of_the_sample_decides_about_the_others(tmp_path: Path, model: str) -> None:
    lines, report = run(
        tmp_path,
        40,
        model=model,
        max_train_samples=16,
        algorithm="paper",
        threshold="quantile",
        quantile=0.75,
    )
    cut = report["threshold"]["value"]
    for line in lines:
        if line["score"] is not None:
            assert line["decision"] == ("drop" if line["score"] > cut else "keep")
    assert sum(line["score"] is not None for line in lines) == 39


def test_a_sample_as_large_as_the_file_is_the_file(tmp_path: Path, model: str) -> None:
    _, report = run(tmp_path, 30, model=model, max_train_samples=30)
    assert not any("sample" in note for note in report["notes"])
