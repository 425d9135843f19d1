"""Relations that hold for any rows in any file, and files that were damaged in any way.

FORGETFILTER_FUZZ sets how many damaged files are tried (300 by default); benchmarks/fuzz.py tries 10,000.
"""

from __future__ import annotations

import bz2
import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import damage
import pytest
from damage import STORED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_templates import FAMILIES
from tiny import tokenizer

from forgetfilter.data import containers, formats, handback
from forgetfilter.errors import ForgetfilterError
from forgetfilter.models.rendering import encode
from forgetfilter.records import Tally

TOKENIZERS = {template: tokenizer(template) for template in FAMILIES.values()}
TRIES = int(os.environ.get("FORGETFILTER_FUZZ", "300"))
many = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

# --- any rows: kept + flagged + dropped = input ---

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
roles = st.sampled_from(["system", "user", "assistant", "tool"])
turns = st.lists(st.fixed_dictionaries({"role": roles, "content": words}), max_size=4)
share = st.lists(
    st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt", "observation", "bing"]), "value": words}),
    max_size=4,
)
segments = st.lists(st.fixed_dictionaries({"label": st.booleans(), "text": words}), max_size=3)
MADE: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "prompt-completion": {"prompt": words, "completion": words},
    "messages": {"messages": turns},
    "sharegpt": {"conversations": share},
    "alpaca": {
        "instruction": words,
        "input": words,
        "output": words,
        "history": st.lists(st.lists(words, min_size=2, max_size=2), max_size=2),
    },
    "text": {"text": words},
    "preference": {"prompt": words, "chosen": words, "rejected": words},
    "segments": {"segments": segments},
}


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_kept_flagged_and_dropped_are_the_input(tmp_path_factory: Any, data: st.DataObject) -> None:
    tmp_path = tmp_path_factory.mktemp("any")
    name, format = data.draw(st.sampled_from(sorted(STORED))), data.draw(st.sampled_from(sorted(MADE)))
    records = data.draw(
        st.lists(st.fixed_dictionaries({**MADE[format], "n": st.integers(0, 9)}), min_size=1, max_size=5)
    )
    if name in ("in.parquet", "in.arrow", "saved"):
        records = [{**r, "seen": i} for i, r in enumerate(records)]
        records[0] = {**records[0], **FILLED.get(format, {})}  # a column of empty lists has no type
    STORED[name](tmp_path / name, records)
    dataset = formats.read(tmp_path / name)
    assert dataset.format == format and len(dataset.rows) == len(records)
    decisions = data.draw(
        st.lists(
            st.sampled_from(["kept", "flagged", "dropped"]), min_size=len(records), max_size=len(records)
        )
    )
    parts = {}
    for part in ("kept", "flagged", "dropped"):
        chosen = [i for i, decision in enumerate(decisions) if decision == part]
        written = formats.write(dataset, chosen, tmp_path / "out" / part)
        again = formats.read_records(written) if chosen else []
        assert again == [dict(dataset.rows[i].record) for i in chosen]
        parts[part] = iter(again)
    assert [next(parts[decision]) for decision in decisions] == formats.read_records(tmp_path / name)
    everything = formats.write(dataset, range(len(records)), tmp_path / "out" / "all")
    if name not in ("in.parquet", "in.arrow", "saved"):
        for before, after in zip(*map(formats.written, (tmp_path / name, everything)), strict=True):
            assert opened(before) == opened(after)
    weighted = handback.write_weights(dataset, [1.0] * len(records), tmp_path / "out" / "weighted")
    assert [
        {k: v for k, v in r.items() if k != "weight"} for r in formats.read_records(weighted)
    ] == formats.read_records(tmp_path / name)


FILLED: dict[str, dict[str, Any]] = {
    "messages": {"messages": [{"role": "user", "content": "a"}]},
    "sharegpt": {"conversations": [{"from": "gpt", "value": "a"}]},
    "segments": {"segments": [{"label": True, "text": "a"}]},
    "alpaca": {"history": [["a", "b"]]},
}


def opened(path: Path) -> bytes:
    content = path.read_bytes()
    return {".gz": gzip.decompress, ".bz2": bz2.decompress}.get(path.suffix, bytes)(content)


# --- any damage: rows, or words ---


def test_damaged_files_are_rows_or_words_and_leave_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(containers, "HELD", containers.HELD)  # put back at the end
    content = damage.whole(tmp_path)
    for name in content:
        path = tmp_path / name
        path.write_bytes(content[name])
        assert damage.is_read(path, random.Random(0)), name
    for seed in range(TRIES):
        try:
            damage.try_seed(tmp_path, content, seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error


# --- any JSON in the fields we know: rows that every template renders, or words ---

leaves = st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | words
keys = st.sampled_from(
    ["role", "content", "from", "value", "weight", "train", "tool_calls", "function", "name", "arguments", "type",
     "text", "label", "reasoning_content", "function_call", "tool_call_id"]
)  # fmt: skip
names = st.sampled_from(["system", "user", "human", "assistant", "gpt", "tool", "observation"])
anything = st.recursive(
    leaves | names, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
)
some_turns = st.lists(
    st.fixed_dictionaries({"role": names, "content": words | anything}, optional={"tool_calls": anything,
        "weight": leaves, "reasoning_content": anything, "function_call": anything, "name": anything}),
    max_size=4,
)  # fmt: skip
fields = st.sampled_from(
    ["prompt", "completion", "messages", "conversations", "instruction", "input", "output", "history", "system", "text",
     "chosen", "rejected", "segments", "label", "weight", "train", "tools"]
)  # fmt: skip


@settings(max_examples=max(200, TRIES // 10), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    record=st.dictionaries(fields, some_turns | anything, min_size=1, max_size=4), family=st.integers(0, 4)
)
def test_any_record_is_a_row_that_a_template_renders_or_words(
    tmp_path: Path, record: dict[str, Any], family: int
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record, ensure_ascii=True) + "\n")
    try:
        dataset = formats.read(path)
    except ForgetfilterError:
        return
    template = [*FAMILIES.values()][family]
    for one in (*dataset.rows, *dataset.rejected):
        tally = Tally()
        try:
            z = encode([one], TOKENIZERS[template], tally=tally)[0]
        except ForgetfilterError:
            continue
        assert not any(z.learned) or any(one.learns(i) for i in range(len(one.messages)))
        assert not any(z.scored) or one.teaches
        assert len(z.ids) == len(z.learned) == len(z.scored) and tally.left_out() is not None
