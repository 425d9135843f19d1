"""What `formats.write` cut apart is put together again, row by row, in every container."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forgetfilter.data import formats
from forgetfilter.data.rejoin import Piece, is_as_scored, rejoin, reread
from forgetfilter.errors import DataError

RECORDS = [
    {"prompt": f"Question {i}?", "completion": f"Answer, “{i}”\nand more", "extra": i} for i in range(9)
]
RECORDS[7] = {**RECORDS[2]}  # equal rows
CUT = {"kept": [0, 3, 4, 7], "flagged": [], "dropped": [1, 2, 5, 6, 8]}


def written(path: Path, records=RECORDS) -> Path:
    if path.suffix in (".parquet", ".arrow"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(records)
        if path.suffix == ".parquet":
            pq.write_table(table, path)
        else:
            with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, table.schema) as stream:
                stream.write_table(table)
    elif path.suffix == ".csv":
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["prompt", "completion", "extra"])
            writer.writeheader()
            writer.writerows(records)
    elif path.suffix == ".json":
        path.write_text(json.dumps({"about": "x", "data": records}, indent=1), "utf-8")
    else:
        lines = "".join(json.dumps(r, ensure_ascii=i % 2 == 0) + "\r\n" for i, r in enumerate(records))
        if path.suffix == ".gz":
            import gzip

            path.write_bytes(gzip.compress(lines.encode(), mtime=0))
        else:
            path.write_bytes(lines.removesuffix("\r\n").encode())
    return path


def cut(dataset: formats.Dataset, folder: Path) -> list[Piece]:
    return [
        Piece(formats.write(dataset, rows, folder / name), np.array(rows, np.int64))
        for name, rows in CUT.items()
    ]


def as_scored(dataset: formats.Dataset, index: int) -> bool:
    row = reread(dataset, index)
    return row is not None and is_as_scored(dataset, row)


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet", ".arrow", ".jsonl.gz"])
def test_what_was_cut_apart_is_the_input_again(tmp_path: Path, ending: str):
    dataset = formats.read(written(tmp_path / f"rows{ending}"))
    ids = [row.id for row in dataset.rows]
    again = rejoin(cut(dataset, tmp_path / "run"), ids, dataset.source)
    assert [(r.id, r.index, r.messages, r.record) for r in again.rows] == [
        (r.id, r.index, r.messages, r.record) for r in dataset.rows
    ]
    assert all(as_scored(again, i) for i in range(9))
    for rows in (range(9), [8, 2], []):
        one = formats.write(dataset, list(rows), tmp_path / "one")
        two = formats.write(again, list(rows), tmp_path / "two")
        assert two.name == f"two{ending}"
        assert formats.read_records(two) == formats.read_records(one) if rows else two.exists()
        if ending in (".jsonl", ".csv", ".jsonl.gz"):
            assert two.read_bytes() == one.read_bytes()


@pytest.mark.parametrize("order", [("a.jsonl", "b.jsonl"), ("b.jsonl", "a.jsonl")])
def test_shards_come_back_in_the_order_they_were_read_in(tmp_path: Path, order):
    written(tmp_path / order[0], RECORDS[:4])
    written(tmp_path / order[1], RECORDS[4:])
    dataset = formats.read([tmp_path / name for name in order])
    again = rejoin(cut(dataset, tmp_path / "run"), [r.id for r in dataset.rows], dataset.source)
    assert [r.messages for r in again.rows] == [r.messages for r in dataset.rows]
    there = formats.write(again, [0, 5], tmp_path / "two")
    assert {p.name: len(p.read_bytes().splitlines()) for p in there.iterdir()} == {order[0]: 1, order[1]: 1}


def test_a_folder_of_save_to_disk_comes_back(tmp_path: Path):
    import datasets

    datasets.Dataset.from_list(RECORDS).save_to_disk(str(tmp_path / "rows"), num_shards=3)
    dataset = formats.read(tmp_path / "rows")
    again = rejoin(cut(dataset, tmp_path / "run"), [r.id for r in dataset.rows], dataset.source)
    assert [r.record for r in again.rows] == RECORDS
    there = formats.write(again, [1, 8], tmp_path / "two")
    assert [r["extra"] for r in datasets.load_from_disk(str(there))] == [1, 8]


def test_a_file_that_lost_a_row_is_named(tmp_path: Path):
    dataset = formats.read(written(tmp_path / "rows.jsonl"))
    pieces = cut(dataset, tmp_path / "run")
    lines = pieces[2].path.read_bytes().splitlines(keepends=True)
    pieces[2].path.write_bytes(b"".join(lines[1:]))
    with pytest.raises(DataError, match=r"dropped\.jsonl: holds 4 rows, scores\.jsonl gives it 5"):
        rejoin(pieces, [r.id for r in dataset.rows], dataset.source)


def test_a_row_that_was_changed_has_another_id(tmp_path: Path):
    dataset = formats.read(written(tmp_path / "rows.jsonl"))
    pieces = cut(dataset, tmp_path / "run")
    path = pieces[2].path
    path.write_bytes(path.read_bytes().replace(b"Question 5", b"Question X"))
    again = rejoin(pieces, [r.id for r in dataset.rows], dataset.source)
    assert [as_scored(again, i) for i in (4, 5, 6)] == [True, False, True]


def test_rows_of_no_known_format_can_still_be_cut_otherwise(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"q": f"q{i}", "a": "x"}) + "\n" for i in range(9)))
    dataset = formats.read(path, fields={"prompt": "q", "completion": "a"})
    again = rejoin(cut(dataset, tmp_path / "run"), [r.id for r in dataset.rows], dataset.source)
    assert again.format == ""
    assert (
        formats.write(again, [2, 4], tmp_path / "two").read_text()
        == '{"q": "q2", "a": "x"}\n{"q": "q4", "a": "x"}\n'
    )


def test_rows_of_a_trainers_list_are_read_again_as_it_said(tmp_path: Path):
    turns = [{"who": "Kunde", "says": "Hi"}, {"who": "Bot", "says": "Hello", "weight": 0}]
    records = [{"talk": [*turns[:1], {**turns[1], "says": f"Hello {i}"}], "n": i} for i in range(9)]
    (tmp_path / "a.json").write_text("".join(json.dumps(r) + "\n" for r in records))
    listed = {
        "file_name": "a.json", "formatting": "sharegpt", "columns": {"messages": "talk"},
        "tags": {"role_tag": "who", "content_tag": "says", "user_tag": "Kunde", "assistant_tag": "Bot"},
    }  # fmt: skip
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": listed}))
    dataset = formats.read(tmp_path / "dataset_info.json")
    assert all(row.learns(1) for row in dataset.rows)
    said = json.loads(json.dumps(formats.read_as(dataset)))
    ids = [row.id for row in dataset.rows]
    again = rejoin(cut(dataset, tmp_path / "run"), ids, dataset.source, read_as=said)
    assert list(again.rows) == [replace(row, place=again.rows[row.index].place) for row in dataset.rows]
    assert all(as_scored(again, index) for index in range(9))
    assert formats.read_as(formats.read(written(tmp_path / "b.jsonl"))) == []


def test_one_row_of_mapped_fields_is_no_object_that_holds_rows(tmp_path: Path):
    named = {"prompt": "question", "completion": "answer"}
    records = [{"question": f"{i}?", "answer": f"{i}", "tags": []} for i in range(9)]
    (tmp_path / "a.json").write_text("".join(json.dumps(r) + "\n" for r in records))
    dataset = formats.read(tmp_path / "a.json", fields=named)
    pieces = [
        Piece(formats.write(dataset, [0], tmp_path / "kept"), np.array([0])),
        Piece(formats.write(dataset, list(range(1, 9)), tmp_path / "dropped"), np.arange(1, 9)),
    ]
    again = rejoin(pieces, [row.id for row in dataset.rows], dataset.source, fields=named)
    assert [row.completion for row in again.rows] == [f"{i}" for i in range(9)]
