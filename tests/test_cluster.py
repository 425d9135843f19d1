"""Scores and answers under Ray Data: those of the commands, row by row, whatever befalls a process."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SOURCE

from forgetfilter import cluster
from forgetfilter.data import formats
from forgetfilter.errors import ConfigError, DataError, ModelError

DOCS = SOURCE.parent / "docs"
ROWS = [
    {"key": f"k{i}", "prompt": f"Name a number after {i}.", "completion": f"{i + 1} comes after {i}. " * (i % 4)}
    for i in range(60)
]  # fmt: skip


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two processors of this machine, reached over loopback alone."""
    pytest.importorskip("ray.data", reason="Ray Data (forgetfilter[ray]) is not installed")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as folder:
        patch.chdir(tmp_path_factory.mktemp("here"))  # where its processes are, too
        patch.setenv("PYTHONPATH", str(SOURCE))  # of the processes that Ray starts
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else they starve beside other work
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        import ray

        ray.init(
            num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.2", _temp_dir=folder,
            object_store_memory=100_000_000, log_to_driver=False, logging_level="ERROR",
        )  # fmt: skip
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
        ray.shutdown()


@pytest.mark.slow
def test_losses_are_those_that_filter_measures(ray: Any, tmp_path: Path) -> None:
    from forgetfilter.filter.signals import remembered_tokens, token_memory
    from forgetfilter.models import load
    from forgetfilter.models.rendering import encode

    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    rows = formats.read(path).rows
    loaded = load.load("nano", dtype="float32")
    encoded = encode(rows, loaded.tokenizer, max_length=256)
    memories = dict(zip([row.id for row in rows], token_memory(loaded.model, encoded), strict=True))
    known = remembered_tokens(memories, "likelihood")
    wanted = {row.record["key"]: (known.get(row.id), len(memories[row.id].logp)) for row in rows}

    found = cluster.score(ray.data.read_json(str(path)), dtype="float32", batch_size=8).take_all()
    assert Counter(row["key"] for row in found) == Counter(wanted.keys())
    for row in found:
        likelihood, tokens = wanted[row["key"]]
        assert row["forgetfilter_tokens"] == tokens
        if likelihood is None:
            assert row["forgetfilter_loss"] is None and not row["completion"]
        else:
            assert row["forgetfilter_loss"] == pytest.approx(-likelihood, abs=1e-4)


@pytest.mark.slow
def test_answers_are_those_of_generate(ray: Any, command: Any, tmp_path: Path) -> None:
    prompts = [{"key": row["key"], "prompt": row["prompt"]} for row in ROWS[:12]]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    done = command(
        "generate", "nano", "--input", "asked.jsonl", "--output", "said.jsonl", "--max-new-tokens", "8"
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    wanted = {prompts[one["row"]]["key"]: one["answers"][0] for one in said}
    rows = ray.data.from_items(prompts)
    found = cluster.answer(rows, max_new_tokens=8, processes=2, batch_size=4).take_all()
    assert len(found) == 12 and {row["key"]: row["forgetfilter_answer"] for row in found} == wanted


@pytest.mark.slow
def test_a_row_that_cannot_be_read_says_why_and_the_others_are_done() -> None:
    import pyarrow

    good = ROWS[1:3]
    bad = {"key": "bad", "prompt": None, "completion": "Two."}
    batch = pyarrow.Table.from_pylist([good[0], bad, good[1]])
    reading = {"format": "prompt-completion", "fields": None}
    loading = {"dtype": "float32", "device": "cpu", "quantization": "none"}
    scores = cluster.Scores("nano", loading, reading, {"max_length": 64, "template": "auto"})
    found, alone = scores(batch).to_pylist(), scores(pyarrow.Table.from_pylist(good)).to_pylist()
    assert [row["key"] for row in found] == ["k1", "bad", "k2"]
    losses = [row["forgetfilter_loss"] for row in alone]
    assert [row["forgetfilter_loss"] for row in found] == [losses[0], None, losses[1]]
    assert found[1]["forgetfilter_tokens"] is None and found[1]["forgetfilter_refused"].startswith(
        '"prompt" is null'
    )
    assert found[0]["forgetfilter_refused"] is None
    asking = {"limit": 4, "template": "auto"}
    said = cluster.Answers("nano", loading, reading, None, asking)(batch).to_pylist()
    assert [row["forgetfilter_answer"] is None for row in said] == [False, True, False]


@pytest.mark.slow
def test_a_process_killed_in_the_middle_loses_no_row_and_doubles_none(
    ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Told(cluster.Scores):
        """Says who measured a row, and takes its time."""

        def __call__(self, batch: Any) -> Any:
            import pyarrow

            time.sleep(0.1)
            own = pyarrow.array([os.getpid()] * len(batch))
            return super().__call__(batch).append_column("pid", own)

    monkeypatch.setattr(cluster, "Scores", Told)
    rows = ray.data.from_items([{**ROWS[i % 60], "key": i} for i in range(240)])
    found: list[dict[str, Any]] = []
    killed = 0
    for row in cluster.score(rows, processes=2, batch_size=8).iter_rows():
        found.append(row)
        if not killed:
            killed = row["pid"]
            os.kill(killed, signal.SIGKILL)
    by = Counter(row["pid"] for row in found)
    assert Counter(row["key"] for row in found) == Counter(range(240))
    assert len(by) >= 2 and by[killed] < 240  # others did what it left
    each: dict[Any, set[float]] = {}
    for row in found:  # four times the same rows
        each.setdefault(row["key"] % 60, set()).add(round(row["forgetfilter_loss"] or 0, 1))
    assert all(max(losses) - min(losses) < 0.15 for losses in each.values())


@pytest.mark.slow
def test_the_example_of_the_page_runs(ray: Any) -> None:
    Path("custom.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:20]))
    [example] = re.findall(
        r"```python\n(.*?)```", (DOCS / "cluster.md").read_text(encoding="utf-8"), re.DOTALL
    )
    exec(compile(example, "cluster.md", "exec"), {})  # noqa: S102 - our own page
    for folder, column in (("scored", "forgetfilter_loss"), ("answered", "forgetfilter_answer")):
        written = ray.data.read_parquet(folder).take_all()
        assert sorted(row["key"] for row in written) == sorted(row["key"] for row in ROWS[:20])
        assert column in written[0]


@pytest.mark.slow
def test_what_cannot_be_measured_is_told_before_anything_starts(ray: Any) -> None:
    rows = ray.data.from_items(ROWS[:2])
    with pytest.raises(ModelError, match="nanno"):
        cluster.score(rows, model="nanno")
    with pytest.raises(DataError, match="format"):
        cluster.score(ray.data.from_items([{"a": 1}]))
    with pytest.raises(DataError, match='"forgetfilter_loss" stands as a column already'):
        cluster.score(ray.data.from_items([{**ROWS[0], "forgetfilter_loss": 1.0}]))
    with pytest.raises(DataError, match="holds no rows"):
        cluster.score(rows.filter(lambda row: row["key"] == "none"))


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    nothing: Any = None
    for measure in (cluster.score, cluster.answer):
        with pytest.raises(ConfigError, match=r"pip install 'forgetfilter\[ray\]'"):
            measure(nothing)
