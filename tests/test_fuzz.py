"""Relations that hold for any rows in any file, and files that were damaged in any way.

FORGETFILTER_FUZZ sets how many damaged files are tried (300 by default).
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_templates import FAMILIES
from tiny import tokenizer

from forgetfilter.data import containers, formats, handback
from forgetfilter.errors import ForgetfilterError
from forgetfilter.models.rendering import encode
from forgetfilter.records import Tally
from forgetfilter.settings import resolve

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


def as_jsonl(path: Path, records: Sequence[Any]) -> None:
    content = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()
    path.write_bytes(PACKED.get(path.suffix, bytes)(content))


def as_json(path: Path, records: Sequence[Any]) -> None:
    path.write_text(json.dumps({"version": 1, "rows": records}, indent=1), encoding="utf-8")


def as_csv(path: Path, records: Sequence[Any]) -> None:
    out = io.StringIO()
    marks = "\t" if ".tsv" in path.name else ","
    writer = csv.writer(out, delimiter=marks, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    cells = [
        [r[k] if isinstance(r[k], str) else json.dumps(r[k], ensure_ascii=False) for k in records[0]]
        for r in records
    ]
    writer.writerows([list(records[0]), *cells])
    path.write_bytes(PACKED.get(path.suffix, bytes)(out.getvalue().encode()))


def as_parquet(path: Path, records: Sequence[Any]) -> None:
    pq.write_table(pa.Table.from_pylist(list(records)), path, row_group_size=2)


def as_arrow(path: Path, records: Sequence[Any]) -> None:
    table = pa.Table.from_pylist(list(records))
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table, max_chunksize=2)


def as_shards(path: Path, records: Sequence[Any]) -> None:
    path.mkdir(exist_ok=True)
    for old in path.iterdir():
        old.unlink()
    cut = max(1, len(records) // 2)
    for i, shard in enumerate((records[:cut], records[cut:])):
        if shard:
            as_jsonl(path / f"train-0000{i}.jsonl", shard)


def as_saved(path: Path, records: Sequence[Any]) -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset(pa.Table.from_pylist(list(records))).save_to_disk(path)


def zst(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


PACKED: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zst}
STORED: dict[str, Callable[[Path, Sequence[Any]], None]] = {
    "in.jsonl": as_jsonl, "in.json": as_json, "in.csv": as_csv, "in.tsv": as_csv, "in.parquet": as_parquet,
    "in.arrow": as_arrow, "in.jsonl.gz": as_jsonl, "in.csv.bz2": as_csv, "shards": as_shards, "saved": as_saved,
}  # fmt: skip


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

ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"Größe {i}?"},
                  {"role": "assistant", "content": "x" * i, "weight": i % 2}],
     "n": i, "label": bool(i % 3)}
    for i in range(12)
]  # fmt: skip
PAIRS: list[dict[str, Any]] = [
    {"prompt": f"a{i}", "chosen": 'b, "c"', "rejected": "d\ne", "n": i} for i in range(12)
]
BASES: dict[str, tuple[Callable[[Path, Sequence[Any]], None], Sequence[Any]]] = {
    "a.jsonl": (as_jsonl, ROWS), "b.jsonl": (as_jsonl, PAIRS), "a.json": (as_json, ROWS), "a.csv": (as_csv, PAIRS),
    "b.csv": (as_csv, ROWS), "a.tsv": (as_csv, PAIRS), "a.parquet": (as_parquet, ROWS),
    "b.parquet": (as_parquet, PAIRS),
    "a.arrow": (as_arrow, ROWS), "a.jsonl.gz": (as_jsonl, ROWS), "a.csv.bz2": (as_csv, PAIRS),
    "b.jsonl.zst": (as_jsonl, PAIRS),
}  # fmt: skip
LISTS: dict[str, bytes] = {
    "dataset_info.json": json.dumps(
        {"a": {"file_name": "rows.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"},
               "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user",
                        "assistant_tag": "assistant"}}}
    ).encode(),
    "axolotl.yaml": yaml.safe_dump(
        {"datasets": [{"path": "rows.jsonl", "type": "chat_template", "roles": {"user": ["user"]},
                       "message_property_mappings": {"role": "role", "content": "content"}}]}
    ).encode(),
    "recipe.yaml": b"preset: paper\nreview_steps: 50\nsafe: [pack:general, mine.jsonl]\nlearning_rate: 1e-3\n",
}  # fmt: skip
TOKENS = [b'"', b"{", b"}", b"[", b"]", b",", b"\n", b"\r", b"\0", b"\xff", b"null", b"1e999", b"\\ud800", b": ", b"'",
          b"\xef\xbb\xbf", b"- ", b"&a ", b"*a", b"-1", b"NaN", b"\x1f\x8b", b"role", b"content", b"true"]  # fmt: skip


def damaged(content: bytes, chance: random.Random) -> bytes:
    """One to four bytes or pieces changed, taken out, doubled, put in or cut off."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(content) + 1)
        to = min(len(content), at + chance.choice([1, 1, 2, 8, 100]))
        kind = chance.randrange(6)
        if kind == 0:
            content = content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at] + content[to:]
        elif kind == 2:
            content = content[:to] + content[at:]
        elif kind == 3:
            content = content[:at] + chance.choice(TOKENS) + content[at:]
        elif kind == 4:
            content = content[:at]
        else:
            content = content[:at] + chance.choice(TOKENS) * chance.choice([1, 3, 200]) + content[to:]
    return content


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError(f"not done in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def try_one(folder: Path, name: str, content: bytes, chance: random.Random) -> bool:
    """Read, and write half; True where the file was still readable. Only our own errors may come out."""
    path = folder / name
    path.write_bytes(content)
    out = folder / "out"
    try:
        with within(60):
            if name == "recipe.yaml":
                resolve(None, path, {})
                return True
            dataset = formats.read(path)
            chosen = [i for i in range(len(dataset.rows)) if chance.random() < 0.5]
            formats.write(dataset, chosen, out / "kept")
            handback.write_weights(dataset, [0.5] * len(dataset.rows), out / "weighted", column="w2")
            assert sum(1 for _ in dataset.rows) == len(dataset.rows) >= len(dataset.rejected)
            return True
    except ForgetfilterError as error:
        assert str(error) and "Traceback" not in str(error)
        return False
    finally:
        assert not out.exists() or not [p for p in out.iterdir() if p.name.startswith(".")]


def test_damaged_files_are_rows_or_words_and_leave_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = dict(LISTS)
    for name, (store, records) in BASES.items():
        store(tmp_path / name, records)
        whole[name] = (tmp_path / name).read_bytes()
    as_jsonl(tmp_path / "rows.jsonl", ROWS)
    for name, content in whole.items():
        assert try_one(tmp_path, name, content, random.Random(0)), name
    names = sorted(whole)
    for seed in range(TRIES):
        chance = random.Random(seed)
        name = names[seed % len(names)]
        monkeypatch.setattr(containers, "HELD", chance.choice([0, 2**26]))
        try:
            try_one(tmp_path, name, damaged(whole[name], chance), chance)
        except Exception as error:
            raise AssertionError(f"seed {seed}, {name}: {type(error).__name__}: {error}") from error


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
