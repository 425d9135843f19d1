"""Files as they lie about: packed, in shards, behind patterns and links, half written, much too large."""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forgetfilter.data import containers, files, formats, json_files, packing, tables
from forgetfilter.errors import DataError

PAIRS = [{"prompt": f"Question {i}?", "completion": f"Answer {i}."} for i in range(6)]


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def zst(data: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    return zstandard.ZstdCompressor().compress(data)


def unzst(data: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()


PACKERS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    ".gz": (gzip.compress, gzip.decompress),
    ".bz2": (bz2.compress, bz2.decompress),
    ".zst": (zst, unzst),
}
packed = pytest.mark.parametrize("suffix", PACKERS)


def refusal(path: Any) -> str:
    with pytest.raises(DataError) as caught:
        formats.read(path)
    return str(caught.value)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three files of two rows, and what lies beside them in a download."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for i in range(3):
        (folder / f"train-0000{i}-of-00003.jsonl").write_text(lines(*PAIRS[2 * i : 2 * i + 2]))
    (folder / "README.md").write_text("About.")
    (folder / ".hidden.jsonl").write_text("not rows")
    return folder


# --- packed ---


@packed
def test_a_packed_file_is_read_and_the_rows_kept_are_packed_again(tmp_path: Path, suffix: str) -> None:
    pack, unpack = PACKERS[suffix]
    content = lines(*PAIRS).encode()
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(pack(content))
    dataset = formats.read(path)
    assert [row.record for row in dataset.rows] == PAIRS
    kept = formats.write(dataset, [0, 2], tmp_path / "kept")
    assert kept.name == f"kept.jsonl{suffix}"
    assert unpack(kept.read_bytes()) == lines(PAIRS[0], PAIRS[2]).encode()
    assert unpack(formats.write(dataset, [], tmp_path / "none").read_bytes()) == b""


@packed
def test_several_packed_pieces_behind_each_other_are_one_file(tmp_path: Path, suffix: str) -> None:
    pack = PACKERS[suffix][0]
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(pack(lines(*PAIRS[:3]).encode()) + pack(lines(*PAIRS[3:]).encode()))
    assert [row.record for row in formats.read(path).rows] == PAIRS


@packed
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_packed_file_is_said_to_be_one(tmp_path: Path, suffix: str, damage: str) -> None:
    whole = PACKERS[suffix][0](b"".join(os.urandom(1).hex().encode() for _ in range(5000)))
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"no such thing" + whole)
    message = refusal(path)
    assert message.startswith(f"rows.jsonl{suffix}: cannot be unpacked (")
    assert message.endswith("Copy it again.")


@packed
def test_an_archive_bomb_is_left_alone(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "ALWAYS_FINE", 2**20)
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(PACKERS[suffix][0](b" " * 2**25))
    message = refusal(path)
    assert "archive bomb" in message and message.endswith("unpack it, and name that file.")


def test_a_parquet_file_of_one_value_told_a_million_times_is_a_bomb_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "ALWAYS_FINE", 2**20)
    path = tmp_path / "rows.parquet"
    many = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), ["word " * 200])
    pq.write_table(pa.table({"prompt": many.cast(pa.string()), "completion": many.cast(pa.string())}), path)
    assert path.stat().st_size < 200_000  # of 200 MB
    assert "archive bomb" in refusal(path)


def test_no_byte_of_a_parquet_footer_ends_the_process(tmp_path: Path, environment: dict[str, str]) -> None:
    """pyarrow ends it without an error where a column of a file that it could not read is looked at."""
    path = tmp_path / "rows.parquet"
    table = pa.table({"prompt": ["a", None], "completion": ["b", "c"]})
    pq.write_table(table, path, compression="none", use_dictionary=False)
    script = """if True:
        import sys
        from pathlib import Path
        from forgetfilter.data import formats
        from forgetfilter.errors import DataError
        path, refused = Path(sys.argv[1]), 0
        whole = path.read_bytes()
        begin = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
        for at in range(begin, len(whole) - 8):
            for byte in (0, 1, 0x16, 0x29, 0x2C, whole[at] ^ 1):
                path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
                try:
                    formats.read(path)
                except DataError:
                    refused += 1
        print(refused)
    """
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) > 500


@pytest.mark.parametrize(("suffix", "name"), [(".gz", "gzip"), (".bz2", "bzip2"), (".zst", "zstandard")])
def test_a_packed_file_under_a_plain_name_is_named_by_its_kind(
    tmp_path: Path, suffix: str, name: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(PACKERS[suffix][0](lines(*PAIRS).encode()))
    assert refusal(path).startswith(f"rows.jsonl: is {name}, not plain text. Add {suffix} to its name")


def test_equal_rows_give_equal_packed_files(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(b"prompt,completion\na,b\n"))
    dataset = formats.read(path)
    one, two = (formats.write(dataset, [0], tmp_path / name) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


# --- folders, patterns, several files ---


def test_a_folder_is_read_in_name_order_and_written_as_a_folder(shards: Path, tmp_path: Path) -> None:
    dataset = formats.read(shards)
    assert [row.record for row in dataset.rows] == PAIRS
    assert [row.index for row in dataset.rows] == list(range(6))
    assert dataset.rows[3].place == "train-00001-of-00003.jsonl line 2"
    assert dataset.notes[:2] == (
        "shards: 6 rows in 3 files, format prompt-completion (prompt, completion)",
        "shards: passed over: README.md",
    )
    kept = formats.write(dataset, [0, 2, 3], tmp_path / "kept")
    assert {p.name: p.read_text() for p in kept.iterdir()} == {
        "train-00000-of-00003.jsonl": lines(PAIRS[0]),
        "train-00001-of-00003.jsonl": lines(*PAIRS[2:4]),
        "train-00002-of-00003.jsonl": "",
    }


def test_a_shard_that_is_not_there_is_missed(shards: Path) -> None:
    (shards / "train-00001-of-00003.jsonl").unlink()
    assert (
        f"{shards.name}: 1 of 3 shards not there, such as train-00001-of-00003.jsonl: their rows are not read"
        in formats.read(shards).notes
    )


def test_writing_a_folder_again_replaces_it(shards: Path, tmp_path: Path) -> None:
    dataset = formats.read(shards)
    formats.write(dataset, range(6), tmp_path / "kept")
    kept = formats.write(dataset, [5], tmp_path / "kept")
    assert "".join(p.read_text() for p in sorted(kept.iterdir())) == lines(PAIRS[5])
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_pattern_and_a_list_of_files_read_the_same_rows(shards: Path) -> None:
    by_name = sorted(shards.glob("train*"))
    assert [r.record for r in formats.read(str(shards / "train-*.jsonl")).rows] == PAIRS
    assert [r.record for r in formats.read(by_name).rows] == PAIRS
    assert [r.record for r in formats.read(str(shards / "*00001*")).rows] == PAIRS[2:4]
    assert "no file of rows fits this pattern" in refusal(str(shards / "test-*"))


def test_files_of_other_formats_and_containers_may_be_named_together(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(PAIRS[0]))
    (tmp_path / "b.csv").write_text("instruction,output\nC?,D\n")
    dataset = formats.read([tmp_path / "a.jsonl", tmp_path / "b.csv"])
    assert [row.completion for row in dataset.rows] == ["Answer 0.", "D"]
    assert "b.csv: 1 row, format alpaca (instruction, output)" in dataset.notes
    kept = formats.write(dataset, [1], tmp_path / "kept")
    assert (kept / "a.jsonl").read_text() == ""
    assert (kept / "b.csv").read_text() == "instruction,output\nC?,D\n"


def test_a_file_named_twice_is_told_however_it_is_spelled(shards: Path) -> None:
    one = shards / "train-00000-of-00003.jsonl"
    (shards.parent / "linked.jsonl").symlink_to(one)
    for other in (one, shards / ".." / shards.name / one.name, shards.parent / "linked.jsonl"):
        assert refusal([one, other]) == f"{other.name}: is named twice. Name every file once."


def test_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_text(lines({**PAIRS[0], "from": name}))
    dataset = formats.read([tmp_path / "one" / "a.jsonl", tmp_path / "two" / "a.jsonl"])
    kept = formats.write(dataset, [0, 1], tmp_path / "kept")
    assert sorted(p.name for p in kept.iterdir()) == ["one-a.jsonl", "two-a.jsonl"]
    assert "is named twice" in refusal([tmp_path / "one" / "a.jsonl"] * 2)


def test_a_shard_of_another_format_is_named(shards: Path) -> None:
    (shards / "train-00001-of-00003.jsonl").write_text(lines({"text": "a b c d"}))
    assert refusal(shards) == (
        "train-00001-of-00003.jsonl: holds rows of format text (text), train-00000-of-00003.jsonl beside it of format "
        "prompt-completion (prompt, completion). Shards must be alike: take one of the two away, or name the files "
        "to read."
    )


def test_one_broken_line_in_the_middle_of_a_shard_is_named(shards: Path) -> None:
    broken = lines(*PAIRS[2:4]).replace('"Question 3?"', '"Question 3?')
    (shards / "train-00001-of-00003.jsonl").write_text(broken)
    assert refusal(shards).startswith("train-00001-of-00003.jsonl line 2, column ")


def test_a_folder_with_one_set_in_two_kinds_or_of_several_splits_asks_which(shards: Path) -> None:
    (shards / "train.csv").write_text("prompt,completion\na,b\n")
    assert "holds files of several kinds (.csv, .jsonl), perhaps the same rows twice" in refusal(shards)
    (shards / "train.csv").unlink()
    (shards / "test-00000-of-00001.jsonl").write_text(lines(PAIRS[0]))
    assert refusal(shards).endswith(
        f"holds several splits (test, train). Name the one to read: '{shards}/train*'."
    )


def test_links_that_lead_to_themselves_or_nowhere_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "a.jsonl")
    assert "leads back to itself" in refusal(tmp_path / "a.jsonl")
    assert "leads back to itself" in refusal(tmp_path)
    (tmp_path / "a.jsonl").unlink()
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone.jsonl")
    assert "a link to a file that is not there" in refusal(tmp_path / "b.jsonl")


def test_a_folder_linked_into_itself_is_read_once(shards: Path) -> None:
    (shards / "again").symlink_to(shards)
    assert len(formats.read(shards).rows) == 6
    assert len(formats.read(str(shards / "**" / "train*.jsonl")).rows) == 6


# --- files that change ---


def test_a_file_that_grows_while_it_is_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "HELD", 0)
    path = tmp_path / "a.jsonl"
    path.write_text(lines(*PAIRS))
    store = json_files.open_text(path, ".jsonl", "a.jsonl", lambda _: True)
    with pytest.raises(
        DataError, match=r"a\.jsonl: grew by 5 bytes while it was read\. Wait until it is written"
    ):
        for record in store.scan():
            if record == PAIRS[0]:
                with path.open("a") as file:
                    file.write("12345")


def test_a_large_file_that_changed_after_it_was_read_is_not_written_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "HELD", 0)
    path = tmp_path / "a.jsonl"
    path.write_text(lines(*PAIRS))
    dataset = formats.read(path)
    path.write_text(lines(*PAIRS[:3], *PAIRS))
    with pytest.raises(DataError, match="while it was read"):
        formats.write(dataset, [0], tmp_path / "kept")
    assert not (tmp_path / "kept.jsonl").exists()


def test_a_small_file_may_go_away_after_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,completion\na,b\nc,d\n")
    dataset = formats.read(path)
    path.unlink()
    assert formats.write(dataset, [1], tmp_path / "kept").read_text() == "prompt,completion\nc,d\n"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_rows_left_on_disk_are_those_held_in_memory(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{"prompt": f"é{i}\n,", "completion": "Ünï" * (i % 2), "n": i} for i in range(7)]
    records.append(records[0])
    save(tmp_path / name, records)
    held = formats.read(tmp_path / name)
    monkeypatch.setattr(containers, "HELD", 0)
    monkeypatch.setattr(tables, "MAPPED", 0)
    lazy = formats.read(tmp_path / name)
    assert isinstance(lazy.rows, formats.Rows) and not isinstance(held.rows, formats.Rows)
    assert list(lazy.rows) == list(held.rows) == [lazy.rows[i] for i in range(8)]
    assert lazy.rows[-1] == lazy.rows[7] and list(lazy.rows[2:4]) == list(held.rows[2:4])
    assert [lazy.rows.id(i) for i in range(8)] == [row.id for row in held.rows]
    assert held.rows[7].id == held.rows[0].id + "-2" and held.notes == lazy.notes
    one, two = (formats.write(data, [0, 3, 7], tmp_path / f"kept{i}") for i, data in enumerate((held, lazy)))
    assert one.read_bytes() == two.read_bytes()


def save(path: Path, records: Sequence[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(records)), path, row_group_size=3)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    elif path.suffix == ".csv":
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, records[0])
            writer.writeheader()
            writer.writerows(records)
    else:
        content = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


# --- tables ---


def test_a_folder_of_save_to_disk_is_read_and_written_as_one(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([{**pair, "n": i} for i, pair in enumerate(PAIRS)])
    table.save_to_disk(tmp_path / "saved", num_shards=2)
    dataset = formats.read(tmp_path / "saved")
    assert (len(dataset.rows), dataset.container) == (6, "arrow")
    kept = datasets.load_from_disk(formats.write(dataset, [0, 4], tmp_path / "kept"))
    assert kept.to_list() == [{**PAIRS[0], "n": 0}, {**PAIRS[4], "n": 4}]
    assert kept.features == table.features
    assert len(list((tmp_path / "kept").glob("*.arrow"))) == 2
    assert datasets.load_from_disk(formats.write(dataset, [], tmp_path / "none")).num_rows == 0


def test_of_several_saved_splits_one_is_to_be_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list(PAIRS)
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "both")
    assert refusal(tmp_path / "both").endswith(
        f"saved with save_to_disk, of several splits (test, train). Name one, such as {tmp_path / 'both' / 'train'}."
    )
    assert len(formats.read(tmp_path / "both" / "train").rows) == 6
    assert "Name its folder instead" in refusal(tmp_path / "both" / "train" / "dataset_info.json")
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "one")
    assert len(formats.read(tmp_path / "one").rows) == len(rows)


def test_splits_are_found_wherever_a_name_holds_them(tmp_path: Path) -> None:
    (tmp_path / "talks_test.jsonl").write_text(lines(PAIRS[0]))
    (tmp_path / "talks_train.jsonl").write_text(lines(PAIRS[1]))
    assert refusal(tmp_path).endswith(
        f"holds several splits (test, train). Name the one to read: '{tmp_path}/*train*'."
    )
    (tmp_path / "talks_test.jsonl").rename(tmp_path / "talks_valid.jsonl")
    assert refusal(tmp_path).endswith(f"Name the one to read: '{tmp_path}/*train*'.")
    (tmp_path / "talks_valid.jsonl").rename(tmp_path / "latest.JSONL")  # no split
    assert len(formats.read(tmp_path).rows) == 2


@pytest.mark.parametrize("name", ["https://example.org/a.jsonl", "s3://bucket/a*.jsonl", "file:///a.jsonl"])
def test_an_address_is_said_to_be_none_of_a_file(name: str) -> None:
    assert refusal(name).startswith(f"{name}: is an address, not a file. Download it")


def test_files_of_a_pattern_that_hold_no_rows_are_named(shards: Path) -> None:
    (shards / "train.txt").write_text("")
    (shards / "train-3.jsonl.xz").write_text("")
    assert (
        f"{shards}/train*: passed over: train-3.jsonl.xz, train.txt" in formats.read(f"{shards}/train*").notes
    )


def test_an_empty_name_is_not_the_folder_that_one_is_in(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shards)
    assert refusal("") == "no file is named. Name at least one."


def test_a_file_left_from_an_earlier_save_to_disk_is_not_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(PAIRS).save_to_disk(tmp_path / "saved", num_shards=3)
    datasets.Dataset.from_list(PAIRS[:4]).save_to_disk(tmp_path / "saved", num_shards=1)
    assert len(list((tmp_path / "saved").glob("*.arrow"))) == 4
    assert len(formats.read(tmp_path / "saved").rows) == len(datasets.load_from_disk(tmp_path / "saved")) == 4
    (tmp_path / "saved" / "data-00000-of-00001.arrow").unlink()
    assert "without its file data-00000-of-00001.arrow" in refusal(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text("[]")
    assert "state.json: does not name its .arrow files" in refusal(tmp_path / "saved")


@pytest.mark.parametrize("form", ["stream", "file"])
def test_of_arrows_two_forms_the_one_that_was_read_is_written(tmp_path: Path, form: str) -> None:
    table = pa.Table.from_pylist(PAIRS)
    with getattr(pa.ipc, f"new_{form}")(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    kept = formats.write(formats.read(tmp_path / "a.arrow"), [0, 2], tmp_path / "kept")
    assert getattr(pa.ipc, f"open_{form}")(kept.read_bytes()).read_all().to_pylist() == [PAIRS[0], PAIRS[2]]


@pytest.mark.parametrize("codec", ["snappy", "gzip", "zstd", "none"])
def test_kept_parquet_rows_are_packed_as_the_input_was(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(PAIRS), path, compression=codec)
    kept = formats.write(formats.read(path), [1], tmp_path / "kept")

    def packing_of(file: Path) -> str:
        return pq.ParquetFile(file).metadata.row_group(0).column(0).compression

    assert packing_of(kept) == packing_of(path)


def test_a_dictionary_encoded_column_stays_one(tmp_path: Path) -> None:
    table = pa.table(
        {**{k: [p[k] for p in PAIRS] for k in PAIRS[0]}, "lang": pa.array(["en"] * 6).dictionary_encode()}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    kept = pq.read_table(formats.write(formats.read(tmp_path / "a.parquet"), [2], tmp_path / "kept"))
    assert kept.schema.field("lang").type == table.schema.field("lang").type


# --- standard input ---


@pytest.mark.parametrize(
    ("piped", "suffix"),
    [
        (lines(*PAIRS).encode(), ".jsonl"),
        (lines(PAIRS[0]).encode(), ".json"),
        (json.dumps(PAIRS).encode(), ".json"),
        (b"prompt,completion\nQuestion 0?,Answer 0.\n", ".csv"),
        (gzip.compress(lines(*PAIRS).encode()), ".jsonl.gz"),
        (gzip.compress(b"prompt,completion\nQuestion 0?,Answer 0.\n"), ".csv.gz"),
    ],
    ids=[
        "lines",
        "one line",
        "list",
        "csv",
        "packed lines",
        "packed csv",
    ],  # packed bytes hold the time of day
)
def test_what_is_piped_in_is_known_by_its_first_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piped: bytes, suffix: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))
    dataset = formats.read("-")
    assert (dataset.rows[0].record, dataset.source) == (PAIRS[0], "stdin")
    assert formats.write(dataset, [0], tmp_path / "kept").name == f"kept{suffix}"


def test_a_damaged_packed_stream_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(b"x" * 99)[:15])))
    assert "cannot be unpacked" in refusal("-")


def test_nothing_piped_in_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b" \n")))
    assert refusal("-") == "-: nothing came in through standard input. Pipe rows in, or name a file."


def test_without_zstandard_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "a.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    assert "pip install zstandard, or unpack the file with unzstd" in refusal(tmp_path / "a.jsonl.zst")


def test_a_pipe_under_a_name_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    assert "is no regular file" in refusal(tmp_path / "a.jsonl")


def test_a_large_json_file_of_lines_is_read_line_by_line(tmp_path: Path) -> None:
    """The first line alone decides; the file is never held as one text."""
    path = tmp_path / "a.json"
    path.write_text(lines(*PAIRS))
    assert formats.read(path).container == "jsonl"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """60 MB and 240 MB of rows: the larger takes no more than its index, 40 bytes a row and some."""
    code = (
        "import sys, resource\n"
        "from forgetfilter.data import containers, formats\n"
        "containers.HELD = 0\n"
        "formats.read(sys.argv[1])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(formats.__file__).parents[2])}
    used = []
    for rows in (15_000, 60_000):
        path = tmp_path / f"{rows}.jsonl"
        with path.open("w") as file:
            file.writelines(lines({"prompt": f"{i}", "completion": "word " * 800}) for i in range(rows))
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=env, check=True
        )
        used.append(int(done.stdout))
    assert used[1] - used[0] < 25_000  # kB


def test_only_the_files_named_are_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file is named"):
        formats.read([])
    assert files.is_hub_id("owner/rows.jsonl.gz") is False


def test_an_empty_shard_beside_others_is_said_and_written_again(shards: Path, tmp_path: Path) -> None:
    """Such is what is written where all rows of a shard were dropped."""
    (shards / "train-00000-of-00003.jsonl").write_text("")
    dataset = formats.read(shards)
    assert [row.record for row in dataset.rows] == PAIRS[2:]
    assert "train-00000-of-00003.jsonl: holds no rows" in dataset.notes
    again = formats.read(formats.write(dataset, [0], tmp_path / "kept"))
    assert [row.record for row in again.rows] == PAIRS[2:3]
    for shard in shards.glob("*.jsonl"):
        shard.write_text("")
    assert refusal(shards) == "shards: holds no rows. Give a file with at least one."


def test_what_was_unpacked_goes_away_with_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(containers, "HELD", 0)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(*PAIRS).encode()))
    dataset = formats.read(tmp_path / "a.jsonl.gz")
    assert len(list(tmp_path.glob("forgetfilter-*"))) == 1
    assert dataset.rows[5].record == PAIRS[5]
    del dataset
    gc.collect()
    assert list(tmp_path.glob("forgetfilter-*")) == []
