"""Rows stored in every kind of file, and files damaged at random, as a user's may be."""

from __future__ import annotations

import bz2
import copy
import csv
import gzip
import io
import json
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
import zstandard

from forgetfilter import recipes
from forgetfilter.data import containers, formats, handback
from forgetfilter.errors import ForgetfilterError
from forgetfilter.settings import resolve
from forgetfilter.unlearn import recipe as unlearn_recipe


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


def unzst(content: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(content)


PACKED: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zst}
UNPACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".zst": unzst,
}
STORED: dict[str, Callable[[Path, Sequence[Any]], None]] = {
    "in.jsonl": as_jsonl, "in.json": as_json, "in.csv": as_csv, "in.tsv": as_csv, "in.parquet": as_parquet,
    "in.arrow": as_arrow, "in.jsonl.gz": as_jsonl, "in.csv.bz2": as_csv, "shards": as_shards, "saved": as_saved,
}  # fmt: skip


# --- whole files, to be damaged ---

ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"Größe {i}?"},
                  {"role": "assistant", "content": "x" * i, "weight": i % 2}],
     "n": i, "label": bool(i % 3)}
    for i in range(12)
]  # fmt: skip
PAIRS: list[dict[str, Any]] = [
    {"prompt": f"a{i}", "chosen": 'b, "c"', "rejected": "d\ne", "n": i} for i in range(12)
]
ALPACA: list[dict[str, Any]] = [
    {"instruction": f"a{i}", "input": "", "output": "b c", "system": "s", "history": [["q", "r"]] * (i % 3)}
    for i in range(12)
]
Stored = tuple[Callable[[Path, Sequence[Any]], None], Sequence[Any]]
BASES: dict[str, Stored] = {
    "a.jsonl": (as_jsonl, ROWS), "b.jsonl": (as_jsonl, PAIRS), "c.jsonl": (as_jsonl, ALPACA),
    "a.json": (as_json, ROWS), "b.json": (as_json, ALPACA),
    "a.csv": (as_csv, PAIRS), "b.csv": (as_csv, ROWS), "a.tsv": (as_csv, PAIRS),
    "a.parquet": (as_parquet, ROWS), "b.parquet": (as_parquet, PAIRS), "c.parquet": (as_parquet, ALPACA),
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
    "compare.yaml": b"set: bias\nrows: 400\nshare: 0.3333\nseeds: [0, 1]\ndefences:\n  - none\n"
                    b"  - sequential: {steps: 60}\n",
    "unlearn.yaml": b"model: nano\nsets: .\ncount: 160 # dialogues\ntest_share: 0.47\nbeta: 0.5\nseeds: [0, 1, 2]\n",
}  # fmt: skip
TOKENS = [b'"', b"{", b"}", b"[", b"]", b",", b"\n", b"\r", b"\0", b"\xff", b"null", b"1e999", b"\\ud800", b": ", b"'",
          b"\xef\xbb\xbf", b"- ", b"&a ", b"*a", b"-1", b"NaN", b"\x1f\x8b", b"role", b"content", b"true"]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 10**30, float("nan"), "", "false", "[", '[{"role": "user"}]', "\ud800", "\0", [], {},
    [None], [[]], [{}], {"a": [1]}, {"role": "user", "content": None}, {"type": "text", "text": "t"},
]  # fmt: skip
NAMES = [
    "role",
    "from",
    "content",
    "value",
    "weight",
    "train",
    "label",
    "messages",
    "chosen",
    "text",
    "tools",
    "",
]


def whole(folder: Path) -> dict[str, bytes]:
    """Every base file and list, by name; what the lists name lies in `folder`."""
    content = dict(LISTS)
    for name, (store, records) in BASES.items():
        store(folder / name, records)
        content[name] = (folder / name).read_bytes()
    as_jsonl(folder / "rows.jsonl", ROWS)
    return content


# --- damage ---


def damaged(content: bytes, chance: random.Random) -> bytes:
    """One to four bytes or pieces changed, taken out, doubled, put in or cut off."""
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
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


def changed(value: Any, chance: random.Random) -> None:
    """Rows with one field or element, at any depth, replaced, renamed, taken out or doubled."""
    while isinstance(value, list | dict) and value:
        at = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if isinstance(value[at], list | dict) and value[at] and chance.random() < 0.8:
            value = value[at]
            continue
        kind = chance.randrange(4)
        if kind == 0:
            value[at] = copy.deepcopy(chance.choice(VALUES))
        elif kind == 1:
            del value[at]
        elif isinstance(value, list):
            value.insert(at, copy.deepcopy(value[at]))
        else:
            value[chance.choice(NAMES)] = value.pop(at) if kind == 2 else copy.deepcopy(value[at])
        return


def make(path: Path, content: bytes, chance: random.Random) -> None:
    """A damaged file of that name: its bytes, its bytes before they were packed, or the rows in it."""
    name, kind = path.name, chance.randrange(3)
    if kind == 0 and name in BASES:
        store, records = BASES[name]
        rows = copy.deepcopy(list(records))
        for _ in range(chance.randint(1, 3)):
            changed(rows, chance)
        try:
            store(path, rows)
            return
        except (pa.ArrowException, OverflowError, UnicodeError, TypeError, LookupError, AttributeError):
            pass  # such rows make no file of this kind
    if kind == 1 and path.suffix in UNPACKED:
        path.write_bytes(PACKED[path.suffix](damaged(UNPACKED[path.suffix](content), chance)))
        return
    path.write_bytes(damaged(content, chance))


# --- trial ---


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


def is_read(path: Path, chance: random.Random) -> bool:
    """Whether the file is still readable: then half of its rows are written, beside it in `out`.

    Only our own errors may come out, in less than a minute, and with nothing half-written.
    """
    out = path.parent / "out"
    try:
        with within(60):
            if path.name in RECIPES:
                RECIPES[path.name](path)
                return True
            dataset = formats.read(path)
            chosen = [i for i in range(len(dataset.rows)) if chance.random() < 0.5]
            kept = formats.write(dataset, chosen, out / "kept")
            handback.write_weights(dataset, [0.5] * len(dataset.rows), out / "weighted", column="w2")
            assert sum(1 for _ in dataset.rows) == len(dataset.rows) >= len(dataset.rejected)
            assert len(formats.read_records(kept) if chosen else []) == len(chosen)
            return True
    except ForgetfilterError as error:
        assert str(error) and "Traceback" not in str(error)
        return False
    finally:
        assert not out.exists() or not [p for p in out.iterdir() if p.name.startswith(".")]


def try_seed(folder: Path, content: dict[str, bytes], seed: int) -> bool:
    """`is_read` of the damaged file of that number."""
    chance = random.Random(seed)
    name = sorted(content)[seed % len(content)]
    containers.HELD = chance.choice([0, 2**26])
    make(folder / name, content[name], chance)
    return is_read(folder / name, chance)


RECIPES: dict[str, Callable[[Path], object]] = {
    "recipe.yaml": lambda path: resolve(None, path, {}),
    "compare.yaml": lambda path: recipes.read(path, {}),
    "unlearn.yaml": lambda path: unlearn_recipe.read(path),
}
