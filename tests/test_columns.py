"""Columns that no format reads are named; those that trainers read are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forgetfilter.data import formats, given
from forgetfilter.errors import DataError

PAIR = {"prompt": "x", "completion": "y"}


def data_of(tmp_path: Path, *records: Any, name: str = "a.jsonl", **options: Any) -> formats.Dataset:
    path = tmp_path / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return formats.read(path, **options)


def unread(dataset: formats.Dataset) -> dict[str, int]:
    """Column -> rows in which it says something and is not read."""
    return {
        one.words.split('"')[1]: one.rows
        for one in dataset.left_out
        if one.what in ("columns", "label-not-read")
    }


def test_columns_of_text_lists_and_objects_are_named_and_short_words_are_not(tmp_path: Path) -> None:
    dataset = data_of(
        tmp_path,
        {**PAIR, "thinking": "first this, then that", "id": "a1", "source": "web", "n": 3, "meta": None},
        {**PAIR, "thinking": "", "meta": {"a": 1}, "images": ["a.png"]},
    )
    assert unread(dataset) == {"thinking": 1, "meta": 1, "images": 1}
    assert dataset.notes[-1] == "a.jsonl: columns that are not read: thinking, meta, images"


def test_a_column_called_like_a_field_is_named_however_short(tmp_path: Path) -> None:
    dataset = data_of(tmp_path, PAIR, {**PAIR, "Completion": "z", "rejected": "w", "text ": "v"})
    assert unread(dataset) == {"Completion": 1, "rejected": 1, "text ": 1}


@pytest.mark.parametrize(
    "mark", [{"mask": True}, {"train": "no"}, {"train": 0}, {"loss_weight": 0}, {"weight": "low"}]
)
def test_a_mark_that_is_not_followed_is_named(tmp_path: Path, mark: dict[str, Any]) -> None:
    assert unread(data_of(tmp_path, {**PAIR, **mark})) == {next(iter(mark)): 1}


@pytest.mark.parametrize("label", [0, 1, "good", "undesirable"])
def test_a_label_that_is_neither_true_nor_false_is_said(tmp_path: Path, label: Any) -> None:
    dataset = data_of(tmp_path, {**PAIR, "label": label})
    assert unread(dataset) == {"label": 1} and dataset.rows[0].teaches
    assert not unread(data_of(tmp_path, {**PAIR, "label": label}, truth="label"))


def test_a_label_of_running_text_is_named_where_it_holds_more_than_a_mark(tmp_path: Path) -> None:
    row = {"text": "Buy a loaf of bread."}
    assert unread(data_of(tmp_path, {**row, "label": ["Ein Brot kaufen."]})) == {"label": 1}
    assert unread(data_of(tmp_path, {**row, "label": 1}, {**row, "label": "safe"})) == {}


def test_what_is_read_is_not_named(tmp_path: Path) -> None:
    row = {"instruction": "a b", "input": "c d", "output": "e f", "system": "g h", "history": [["i", "j"]]}
    assert unread(data_of(tmp_path, {"instruction": "a", "output": "b"}, row)) == {}
    assert unread(data_of(tmp_path, {**PAIR, "truth": "a b"}, truth="truth")) == {}


def test_history_beside_a_prompt_is_read_where_it_is_pairs_and_named_where_it_is_not(tmp_path: Path) -> None:
    dataset = data_of(tmp_path, {**PAIR, "history": [["a", "b"]]}, {**PAIR, "history": "born in 1950"})
    assert [tuple(m) for m in dataset.rows[0].messages] == [
        ("user", "a"), ("assistant", "b"), ("user", "x"), ("assistant", "y"),
    ]  # fmt: skip
    assert len(dataset.rows[1].messages) == 2 and unread(dataset) == {"history": 1}


def test_a_system_that_is_no_text_is_named(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert unread(data_of(tmp_path, {"system": ["be kind"], "messages": turns})) == {"system": 1}


def test_an_answer_that_is_json_of_turns_stays_an_answer(tmp_path: Path) -> None:
    for answer in ('[{"role": "user", "content": "x"}]', '[{"role": "user"}]'):
        row = data_of(tmp_path, {"prompt": "Give JSON", "completion": answer}).rows[0]
        assert row.completion == answer
    row = data_of(tmp_path, {"prompt": "Give JSON", "chosen": '[{"role": "x"}]', "rejected": "no"}).rows[0]
    assert row.completion == '[{"role": "x"}]'


# --- turns ---


def turns_of(tmp_path: Path, *turns: Any) -> formats.Dataset:
    return data_of(tmp_path, {"messages": list(turns)})


@pytest.mark.parametrize(
    ("name", "role"),
    [("AI", "assistant"), ("gpt-4", "assistant"), ("gpt4", "assistant"), ("function-call", "assistant"),
     ("tool_calls", "assistant"), ("Tool Call", "assistant"), ("tool-result", "tool"), ("tool_output", "tool"),
     ("HUMAN", "user"), ("Developer", "system")],
)  # fmt: skip
def test_other_spellings_of_roles_are_mapped_and_said(tmp_path: Path, name: str, role: str) -> None:
    dataset = data_of(
        tmp_path, {"conversations": [{"from": name, "value": "a"}, {"from": "gpt", "value": "b"}]}
    )
    assert dataset.rows[0].messages[0] == (role, "a")
    assert any(f"{name} as {role}" in note for note in dataset.notes)


def test_a_weight_that_is_not_a_number_does_not_hide_a_turn(tmp_path: Path) -> None:
    user, said = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": float("nan")},
    )
    dataset = turns_of(tmp_path, user, said)
    assert dataset.rows[0].learns(1) and [one.what for one in dataset.left_out] == ["weights"]


def test_a_yes_or_no_of_a_turn_that_is_not_followed_is_named(tmp_path: Path) -> None:
    user, said = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "trainable": False}
    assert [one.what for one in turns_of(tmp_path, user, said).left_out] == ["turn-fields"]


@pytest.mark.parametrize(
    "calls", [[{"name": "f", "arguments": {"a": 1}}], {"name": "f", "arguments": {"a": 1}},
              '[{"name": "f", "arguments": {"a": 1}}]', '{"name": "f", "arguments": {"a": 1}}'],
)  # fmt: skip
def test_tool_calls_are_a_list_however_they_are_written(tmp_path: Path, calls: Any) -> None:
    row = turns_of(
        tmp_path, {"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": calls}
    ).rows[0]
    assert row.beside[1]["tool_calls"] == [{"name": "f", "arguments": {"a": 1}}]


def test_tool_calls_that_are_no_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="looks like a list of calls but is not valid JSON"):
        turns_of(tmp_path, {"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": "[f("})


@pytest.mark.parametrize("answer", [{"ok": True}, [1, 2], [{"city": "Oslo"}]])
def test_what_a_tool_answered_is_read_as_json_where_it_is_no_text(tmp_path: Path, answer: Any) -> None:
    row = turns_of(
        tmp_path,
        {"role": "user", "content": "a"},
        {"role": "tool", "content": answer},
        {"role": "assistant", "content": "b"},
    ).rows[0]
    assert json.loads(row.messages[1].content) == answer


# --- files ---


def test_shards_that_differ_in_optional_columns_are_read_together(tmp_path: Path) -> None:
    plain, more = {"instruction": "x", "output": "y"}, {"input": "z", "history": [["a", "b"]]}
    (tmp_path / "a.jsonl").write_text(json.dumps(plain) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps(plain | more) + "\n")
    rows = formats.read(str(tmp_path / "*.jsonl")).rows
    assert [len(row.messages) for row in rows] == [2, 4] and rows[1].messages[2].content == "x\n\nz"


def test_a_number_that_may_say_what_is_learned_is_named(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "loss_mask": 0, "n": 7}]
    notes = data_of(tmp_path, {"messages": turns}).notes
    assert any('"loss_mask" of 1 turn in 1 row is not read' in note for note in notes)
    assert not any('"n"' in note for note in notes)


def test_rows_of_a_table_that_pyarrow_cannot_filter_are_written(tmp_path: Path) -> None:
    views = pa.schema([("prompt", pa.string_view()), ("completion", pa.string_view())])
    table = pa.Table.from_pylist([{"prompt": str(i), "completion": "y"} for i in range(4)], schema=views)
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = formats.read(tmp_path / "a.parquet")
    for indices in ([1, 3], [3, 0], []):
        written = formats.write(dataset, indices, tmp_path / "out")
        assert pq.read_table(written).column("prompt").to_pylist() == [str(i) for i in indices]


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", json.dumps(PAIR) + ",\n", "Take out the ',' at the end of the line."),
        ("a.jsonl", json.dumps(PAIR) + "\n\ufeff" + json.dumps(PAIR), "A byte order mark stands at the beginning"),
        ("a.jsonl", json.dumps(PAIR) + "\r" + json.dumps(PAIR), "bare carriage return"),
        ("a.jsonl", json.dumps(PAIR, indent=1), "This looks like rows of several lines"),
        ("a.jsonl", json.dumps([PAIR, PAIR]), "If the file is one JSON list, name it .json."),
        ("a.json", json.dumps({"prompt": ["x"], "completion": ["y"]}), 'an object of columns'),
        ("a.json", json.dumps({"0": PAIR, "1": PAIR}), 'to_json(…, orient="records")'),
        ("a.jsonl", json.dumps(PAIR).encode("utf-32"), "is UTF-32, not UTF-8"),
        ("a.jsonl", json.dumps({"conversation": [{"role": "user"}]}), "--messages-field conversation"),
        ("a.jsonl", json.dumps({"prompt": "x", "chosen": "y"}), "prompt-completion --completion-field chosen"),
        ("a.jsonl", json.dumps({"prompt": "x", "accepted": "y", "rejected": "z"}), "Rename the column of the better"),
        ("a.csv", "prompt, completion\na,b\n", "--completion-field ' completion'"),
        ("a.jsonl", json.dumps({"Question": "x", "ANSWER": "y"}), "--prompt-field Question --completion-field ANSWER"),
        ("a.jsonl", json.dumps({"messages": "[{'role': 'user'}]"}), "with double quotes, or remove the row."),
        ("a.jsonl", json.dumps([{"role": "user", "content": "x"}]), 'Write {"messages"'),
        ("a.csv", "sep=;\r\nprompt;completion\r\na;b\r\n", "a.csv line 1: a note for spreadsheet programs (sep=)"),
        ("a.jsonl", json.dumps({"prompt": "x", "answers": ["y", "z"]}), "--completion-field NAME"),
        ("a.jsonl.xz", b"\xfd7zXZ", "behind. Unpack it."),
        ("a.parquet", LFS, "a.parquet: is a pointer of Git LFS, not the rows. Fetch them: git lfs pull."),
        ("a.jsonl.gz", LFS, "a.jsonl.gz: is a pointer of Git LFS, not the rows."),
    ],
)  # fmt: skip
def test_the_remedy_fits_what_is_wrong(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        formats.read(path)
    assert words in str(caught.value)


def test_the_remedy_for_a_pair_without_its_rejected_answer_works(tmp_path: Path) -> None:
    row = {"prompt": "x", "chosen": "y"}
    dataset = data_of(tmp_path, row, format="prompt-completion", fields={"completion": "chosen"})
    assert dataset.rows[0].completion == "y"


def test_columns_under_keys_that_are_no_text_are_named_too() -> None:
    dataset = formats.read(given.store([{**PAIR, 7: "some words"}], "data", lenient=True))
    assert unread(dataset) == {"7": 1}


@pytest.mark.parametrize("kind", ["table", "dicts", "numpy format", "arrow format"])
def test_lists_and_marks_that_numpy_or_arrow_hold_are_read_as_lists_and_marks(
    tmp_path: Path, kind: str
) -> None:
    datasets, pandas = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    pq.write_table(pa.table({"messages": [turns, turns], "label": [True, False]}), tmp_path / "a.parquet")
    table = pandas.read_parquet(tmp_path / "a.parquet")  # its turns are arrays
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache"))
    rows = {
        "table": table,
        "dicts": table.to_dict("records"),
        "numpy format": loaded.with_format("numpy"),
        "arrow format": loaded.with_format("arrow"),
    }[kind]
    dataset = formats.read(given.store(given.held(rows, "data"), "data", lenient=False))
    assert [m.content for m in dataset.rows[1].messages] == ["Why?", "So."]
    assert [row.teaches for row in dataset.rows] == [True, False]
    written = formats.write(dataset, [1], tmp_path / "kept")
    assert json.loads(written.read_text()) == {"messages": turns, "label": False}
