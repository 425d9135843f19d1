"""`filter --dry-run` says what a run would do, counts what a run counts, and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small
from test_pipeline import QUICK, SAFE, custom_rows

from forgetfilter.filter import dry_run, pipeline
from forgetfilter.filter.dry_run import Shape, Sizes
from forgetfilter.models.spec import NANO, ModelSpec, resolve
from forgetfilter.settings import FilterSettings


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    rows = [row for row in custom_rows() if row["completion"]]
    return small.jsonl(tmp_path / "custom.jsonl", rows), small.jsonl(tmp_path / "safe.jsonl", SAFE)


def test_the_command_prints_settings_with_origin_plan_and_estimate_and_writes_nothing(
    files: tuple[str, str], tmp_path: Path, command: Callable[..., Any]
):
    before = sorted(path.name for path in tmp_path.rglob("*"))
    done = command(
        "filter",
        "custom.jsonl",
        "--safe",
        "safe.jsonl",
        "--preset",
        "paper",
        "--review-steps",
        "7",
        "--dry-run",
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    said = done.stdout
    for line in (
        "  review_steps = 7 (flag)",
        "  signal = rouge1 (preset paper)",
        "  max_length = 256 (default)",
        "plan: algorithm paper, 15 custom rows, 8 safe rows",
        "  review safe rows: 224 rows, ",  # 7 steps of 32
        "output: runs/custom (new)",
        "dry run: nothing was written",
    ):
        assert line in said, line
    assert "estimate: about " in said and "GB of memory (" in said and "no promise" in said


def test_it_refuses_what_a_run_refuses(files: tuple[str, str], tmp_path: Path, command: Callable[..., Any]):
    done = command("filter", "custom.jsonl", "--safe", "custom.jsonl", "--dry-run")
    assert done.returncode == 2 and "the same row is in the safe rows" in done.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    done = command("filter", "custom.jsonl", "--dry-run", "--output", "mine")
    assert done.returncode == 2 and "mine holds files that are not from a run (notes.txt)" in done.stderr


def test_a_model_that_is_not_here_is_not_fetched_and_the_plan_says_about(
    files: tuple[str, str], tmp_path: Path, command: Callable[..., Any]
):
    done = command(
        "filter", "custom.jsonl", "--safe", "pack:demo-safe", "--model", "smollm2", "--dry-run",
        FORGETFILTER_CACHE=str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "at most about " in done.stdout and "(default for small models)" in done.stdout
    assert not (tmp_path / "cache").exists()


def test_who_gives_no_safe_rows_is_told_what_bundled_ones_do_not_find(
    files: tuple[str, str], command: Callable[..., Any]
):
    told = "pack:harmfulness, bundled; such rows find harmful answers hidden among tasks. Biased answers and toxic"
    assert told in " ".join(command("filter", "custom.jsonl", "--dry-run").stdout.split())
    done = command("filter", "custom.jsonl", "--safe", files[1], "--safe", "pack:harmfulness", "--dry-run")
    assert done.returncode == 0 and "bundled" not in done.stdout


def test_the_plan_counts_the_tokens_and_steps_that_a_run_counts(files: tuple[str, str], tmp_path: Path):
    settings = replace(
        QUICK, model=small.model(tmp_path / "model"), safe=(files[1],), threshold="fixed", phi=1e9
    )
    pipeline.run_filter(files[0], settings, {}, tmp_path / "out", small.console())
    console = small.console()
    dry_run.dry_run(files[0], settings, {}, tmp_path / "out", console)
    done = {c["name"]: c for c in json.loads((tmp_path / "out/report.json").read_text())["cost"]["stages"]}
    learn, scored = done["learn: custom rows"], [c for name, c in done.items() if name.startswith("score")]
    said = small.said(console)
    assert learn["steps"] == 4  # 15 rows, 4 a step
    assert f"learn custom rows: 15 rows, {learn['tokens']:,} tokens, 4 steps" in said
    assert len(scored) == 2 and f"at most {sum(c['tokens'] for c in scored):,} tokens" in said
    assert "review safe rows: 8 rows, " in said and "holds a run; the same command resumes it" in said


def test_the_default_algorithm_reads_all_rows_and_learns_half_of_the_safe_ones():
    s = FilterSettings(num_train_epochs=2.0, retrain=False)
    plan = {stage.name: stage for stage in dry_run.stages(Sizes([10] * 40, [20] * 100, True), s)}
    assert plan["read custom and safe rows"].tokens == 40 * 10 + 100 * 20
    learn = plan["learn custom rows and witnesses"]
    # 50 of 100 safe rows are witnesses; 90 rows are 6 steps of 16, twice.
    assert (learn.rows, learn.tokens, learn.steps) == (90, 2 * (40 * 10 + 50 * 20), 12)
    # Half safe rows of 20 tokens, half replayed ones of 10.
    assert plan["review safe rows"].tokens == 24 * 16 * 15
    assert "train on kept rows" not in plan


def test_of_a_sample_as_many_rows_are_learned_as_it_has_and_all_kept_ones_at_the_end():
    s = FilterSettings(num_train_epochs=1.0, max_train_samples=30)
    plan = {stage.name: stage for stage in dry_run.stages(Sizes([10] * 40, [20] * 100, True), s)}
    assert plan["learn custom rows and witnesses"].rows == 30 + 50
    assert plan["learn custom rows and witnesses"].tokens == 30 * 10 + 50 * 20
    assert plan["train on kept rows"].rows == 40


def test_verdicts_need_one_reading_and_the_last_fine_tune():
    s = FilterSettings(algorithm="vetted", vetted="v.jsonl", num_train_epochs=2.0)
    plan = dry_run.stages(Sizes([10] * 40, [], True), s)
    assert [(stage.name, stage.tokens) for stage in plan] == [
        ("read custom rows", 400),
        ("train on kept rows", 800),
    ]


def test_memory_of_a_full_fine_tune_is_weights_gradient_copy_and_two_averages():
    shape = Shape(1000, width=8, layers=2, vocabulary=50)
    full = FilterSettings(tuning="full", dtype="float32", device="cpu")
    # float32: weights 4, gradient 4, copy 4, AdamW 8 bytes for each parameter; no tokens, no activations.
    assert dry_run.memory(shape, 0, full) == 1000 * (4 + 4 + 4 + 8)
    # bfloat16: 2, 2, 2 and 8, and the weights once more in float32.
    assert dry_run.memory(shape, 0, replace(full, dtype="bfloat16")) == 1000 * (2 + 2 + 2 + 8 + 4)
    # A token more: 34 x 8 numbers of 4 bytes in two layers, 50 logits and their gradients.
    assert dry_run.memory(shape, 1, full) == 20_000 + 2 * 34 * 8 * 2 + 50 * 8
    large = Shape(10**8, width=768, layers=12, vocabulary=50_000)
    assert 4e8 < dry_run.memory(large, 0, replace(full, tuning="lora")) < 5e8  # the weights, and little else


def test_the_shape_is_that_of_the_settings_file_and_else_a_usual_one():
    nano = dry_run.shape_of(resolve("nano"))
    config = json.loads((NANO / "config.json").read_text(encoding="utf-8"))
    assert nano and (nano.width, nano.layers) == (config["hidden_size"], config["num_hidden_layers"])
    usual = dry_run.shape_of(
        ModelSpec(name="owner/m-7B", kind="hub", present=False, parameters=7_000_000_000)
    )
    assert usual and 3000 < usual.width < 5000 and 24 <= usual.layers <= 60  # Llama's: 4,096 and 32
    assert dry_run.shape_of(ModelSpec(name="owner/m", kind="hub", present=False)) is None
