"""A whole run over a folder of packed shards: the outputs mirror it, and what was left out is in the report."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import small

from forgetfilter import runs
from forgetfilter.filter.pipeline import run_filter
from forgetfilter.settings import FilterSettings


def test_a_folder_of_packed_shards_is_filtered_into_folders_of_packed_shards(tmp_path: Path) -> None:
    rows = [{"prompt": f"Number {i}?", "completion": f"It is {i * i}.", "label": i != 3} for i in range(8)]
    shards = tmp_path / "shards"
    shards.mkdir()
    lines = [json.dumps(row) + "\n" for row in rows]
    for i in range(2):
        (shards / f"train-{i}.jsonl.gz").write_bytes(
            gzip.compress("".join(lines[4 * i : 4 * i + 4]).encode())
        )
    settings = FilterSettings(
        **small.PRESS,
        model=small.model(tmp_path / "model"),
        safe=(small.jsonl(tmp_path / "safe.jsonl", small.SAFE),),
    )
    console = small.console()
    code = run_filter(str(shards), settings, {}, tmp_path / "out", console)
    assert code == 0
    parts = {name: tmp_path / "out" / name for name in ("kept", "flagged", "dropped")}
    for i in range(2):
        found = [gzip.decompress((part / f"train-{i}.jsonl.gz").read_bytes()) for part in parts.values()]
        assert sorted(b"".join(found).splitlines(True)) == sorted(
            line.encode() for line in lines[4 * i : 4 * i + 4]
        )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["left_out"][0] | {"words": ""} == {
        "what": "unwanted", "rows": 1, "times": 1, "first": ["train-0.jsonl.gz line 4"], "words": "",
    }  # fmt: skip
    assert report["counts"]["unscored"] == 1
    assert {name: runs.sha256(tmp_path / "out" / name) for name in report["files"]} == report["files"]
    assert len(report["files"]) == 6
    # The same command on the finished folder does it again, to the byte.
    assert run_filter(str(shards), settings, {}, tmp_path / "out", console) == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["files"] == report["files"]
