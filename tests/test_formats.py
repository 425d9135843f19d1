"""Reading and writing rows: every container, every format, every way in which a file can be wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forgetfilter.data import files, formats, readers
from forgetfilter.data.turns import Reading
from forgetfilter.errors import DataError
from forgetfilter.records import Message, row_id

# The tmp_path folder is reused between examples; every example writes its file anew.
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SOURCE = Path(formats.__file__).parents[2]
PAIR = {"prompt": "What is a fig?", "completion": "A fruit."}


def save(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def only_row(tmp_path: Path, record: Any, **options: Any):
    return formats.read(str(save(tmp_path / "one.jsonl", jsonl(record))), **options).rows[0]


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        formats.read(str(path), **options)
    return str(caught.value)


# --- what the formats mean ---


def test_a_prompt_and_completion_are_a_user_and_an_assistant_turn(tmp_path):
    row = only_row(tmp_path, PAIR)
    assert row.messages == (Message("user", "What is a fig?"), Message("assistant", "A fruit."))
    assert (row.index, row.source, row.kind, row.record) == (0, "one.jsonl", "chat", PAIR)


@pytest.mark.parametrize("name", ["response", "answer", "output"])
def test_one_other_name_of_the_completion_is_taken_and_said(tmp_path, name):
    data = formats.read(str(save(tmp_path / "a.jsonl", jsonl({"prompt": "Hi", name: "Hello"}))))
    assert data.rows[0].completion == "Hello"
    assert data.notes == (f"a.jsonl: 1 row, format prompt-completion (prompt, completion = {name})",)


def test_two_possible_completions_are_refused(tmp_path):
    path = save(tmp_path / "a.jsonl", jsonl({"prompt": "Hi", "answer": "a", "output": "b"}))
    assert error_of(path) == (
        'a.jsonl line 1: no "completion" (found: prompt, answer, output). '
        "Map it with --completion-field answer."
    )


def test_trl_conversational_pairs_are_joined_turn_by_turn(tmp_path):
    row = only_row(
        tmp_path,
        {
            "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
            "completion": [{"role": "assistant", "content": "A"}],
        },
    )
    assert [tuple(m) for m in row.messages] == [("system", "S"), ("user", "U"), ("assistant", "A")]


def test_messages_keep_every_turn(tmp_path):
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": [{"type": "text", "text": "Tw"}, {"type": "text", "text": "o?"}]},
        {"role": "assistant", "content": "2"},
    ]
    row = only_row(tmp_path, {"messages": turns})
    assert [m.content for m in row.messages] == ["Be kind.", "One?", "1", "Two?", "2"]
    assert (row.completion, row.prompt) == ("2", "Be kind.\nOne?\n1\nTwo?")


def test_sharegpt_and_messages_of_one_conversation_read_alike(tmp_path):
    names = [("system", "system"), ("human", "user"), ("gpt", "assistant")]
    share = {"conversations": [{"from": theirs, "value": theirs.upper()} for theirs, _ in names]}
    plain = {"messages": [{"role": ours, "content": theirs.upper()} for theirs, ours in names]}
    assert only_row(tmp_path, share).messages == only_row(tmp_path, plain).messages


def test_a_system_field_beside_the_conversation_comes_first(tmp_path):
    row = only_row(tmp_path, {"system": "Be brief.", "conversations": [{"from": "human", "value": "Hi"}]})
    assert row.messages == (Message("system", "Be brief."), Message("user", "Hi"))


@pytest.mark.parametrize(
    ("given", "user"), [("some text", "Sum up:\n\nsome text"), ("", "Sum up:"), (None, "Sum up:")]
)
def test_an_alpaca_prompt_is_instruction_then_input_where_there_is_one(tmp_path, given, user):
    row = only_row(tmp_path, {"instruction": "Sum up:", "input": given, "output": "Done."})
    assert row.messages == (Message("user", user), Message("assistant", "Done."))


def test_alpaca_input_may_be_missing_in_the_first_row_and_there_in_the_second(tmp_path):
    records = [{"instruction": "A", "output": "1"}, {"instruction": "B", "input": "b", "output": "2"}]
    data = formats.read(str(save(tmp_path / "a.jsonl", jsonl(*records))))
    assert [row.prompt for row in data.rows] == ["A", "B\n\nb"]


@pytest.mark.parametrize(
    ("text", "prompt", "completion"),
    [
        ("The sun  rose\n early today", "The sun  rose\n ", "early today"),
        ("  The sun rose early", "  The sun rose ", "early"),
        ("only three words", "only three words", ""),
        ("only three words \n", "only three words \n", ""),
        ("two words", "two words", ""),
        ("", "", ""),
    ],
)
def test_the_first_three_words_of_a_text_are_its_prompt(tmp_path, text, prompt, completion):
    row = only_row(tmp_path, {"text": text})
    assert row.kind == "text"
    assert row.messages == (Message("user", prompt), Message("assistant", completion))


@many
@given(st.text(st.characters(codec="utf-8")))
def test_the_turns_of_a_text_joined_are_the_text(text):
    first, rest = readers.text({"text": text}, Reading({"text": "text"})).messages
    assert first.content + rest.content == text


def test_a_row_without_an_answer_is_a_row(tmp_path):
    records = [{"messages": [{"role": "user", "content": "Hi"}]}, {"messages": []}]
    data = formats.read(str(save(tmp_path / "a.jsonl", jsonl(*records))))
    assert [row.completion for row in data.rows] == ["", ""]
    assert (
        "a.jsonl: 2 rows without an answer to learn (a.jsonl line 1; a.jsonl line 2): kept, unscored"
    ) in data.notes
    assert only_row(tmp_path, {"prompt": "Hi", "completion": None}).completion == ""


# --- detection, mapping, notes ---


def test_what_was_detected_is_said(tmp_path):
    record = {"instruction": "A", "input": "", "output": "B", "id": 7}
    data = formats.read(str(save(tmp_path / "custom.jsonl", jsonl(record, {**record, "output": "C"}))))
    assert data.notes == ("custom.jsonl: 2 rows, format alpaca (instruction, input, output)",)
    assert (data.format, data.container, data.source) == ("alpaca", "jsonl", "custom.jsonl")


def test_another_fitting_format_is_said_and_can_be_named(tmp_path):
    path = save(tmp_path / "a.jsonl", jsonl({**PAIR, "text": "a b c d"}))
    data = formats.read(str(path))
    assert data.format == "prompt-completion"
    assert data.notes[1] == (
        "a.jsonl: also fits format text (text); choose it with --data-format text if prompt-completion is wrong"
    )
    assert formats.read(str(path), format="text").rows[0].completion == "d"


@pytest.mark.parametrize("format", [None, "prompt-completion"])
def test_fields_can_be_mapped(tmp_path, format):
    record = {"question": "Q", "answer": "A", "level": 3}
    row = only_row(tmp_path, record, format=format, fields={"prompt": "question", "completion": "answer"})
    assert (row.prompt, row.completion, row.record) == ("Q", "A", record)


def test_a_mapped_completion_finds_the_format_whose_other_fields_are_there(tmp_path):
    record = {"instruction": "I", "input": "x", "response": "R"}
    row = only_row(tmp_path, record, fields={"completion": "response"})
    assert (row.prompt, row.completion) == ("I\n\nx", "R")


# The first is the remedy that the message about such a file names.
@pytest.mark.parametrize("fields", [{"prompt": "input"}, {"prompt": "input", "completion": "output"}])
def test_a_mapped_column_is_not_read_a_second_time_under_its_own_name(tmp_path, fields):
    row = only_row(tmp_path, {"input": "Why?", "output": "So."}, fields=fields)
    assert (row.prompt, row.completion) == ("Why?", "So.")
    pair = only_row(
        tmp_path, {"input": "Why?", "chosen": "So.", "rejected": "No."}, fields={"prompt": "input"}
    )
    assert (pair.prompt, pair.completion) == ("Why?", "So.")


def test_turns_under_another_name_can_be_mapped(tmp_path):
    row = only_row(tmp_path, {"chat": [{"from": "human", "value": "Hi"}]}, fields={"messages": "chat"})
    assert row.messages == (Message("user", "Hi"),)


def test_a_csv_cell_may_hold_the_turns(tmp_path):
    cell = json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}])
    out = io.StringIO()
    csv.writer(out).writerows([["messages"], [cell]])
    row = formats.read(str(save(tmp_path / "a.csv", out.getvalue()))).rows[0]
    assert (row.prompt, row.completion, row.record) == ("Hi", "Ho", {"messages": cell})


# --- ids ---


def test_ids_come_from_source_and_content_and_repeats_are_numbered(tmp_path):
    data = formats.read(str(save(tmp_path / "a.jsonl", jsonl(PAIR, {**PAIR, "prompt": "x"}, PAIR, PAIR))))
    first = row_id("a.jsonl", (Message("user", "What is a fig?"), Message("assistant", "A fruit.")))
    assert [row.id for row in data.rows][0::2] == [first, f"{first}-2"]
    assert data.rows[3].id == f"{first}-3"
    assert "a.jsonl: 2 rows the same as an earlier one" in data.notes


@many
@given(st.data())
def test_reordering_a_file_keeps_its_ids(tmp_path, data):
    records = data.draw(
        st.lists(st.builds(lambda p: {"prompt": p, "completion": p}, st.text(max_size=2)), min_size=1)
    )
    shuffled = data.draw(st.permutations(records))
    before = formats.read(str(save(tmp_path / "a.jsonl", jsonl(*records)))).rows
    after = formats.read(str(save(tmp_path / "a.jsonl", jsonl(*shuffled)))).rows
    assert {row.id for row in before} == {row.id for row in after}
    assert len({row.id for row in after}) == len(records)


def test_moving_a_file_keeps_its_ids(tmp_path):
    (tmp_path / "deeper").mkdir()
    here = formats.read(str(save(tmp_path / "a.jsonl", jsonl(PAIR))))
    there = formats.read(str(save(tmp_path / "deeper" / "a.jsonl", jsonl(PAIR))))
    assert here.rows[0].id == there.rows[0].id


# --- writing back ---

# What a cell or a JSON string may hold: no NUL (refused in files), no halves of surrogate pairs.
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
json_records = st.lists(
    st.builds(
        lambda prompt, completion, others: {"prompt": prompt, "completion": completion, **others},
        words,
        words,
        st.dictionaries(
            words.filter(lambda w: w not in ("messages", "conversations", "prompt", "completion")),
            json_values,
        ),
    ),
    min_size=1,
    max_size=6,
)


def halves(data: formats.Dataset, folder: Path, picked: set[int]) -> tuple[Path, Path]:
    """The picked rows in one file, the others in a second."""
    others = [i for i in range(len(data.rows)) if i not in picked]
    return (
        formats.write(data, sorted(picked), folder / "kept"),
        formats.write(data, others, folder / "dropped"),
    )


@many
@given(st.data())
def test_a_partition_of_a_jsonl_file_holds_exactly_its_lines(tmp_path, data):
    records, style = data.draw(json_records), data.draw(st.sampled_from([(", ", ": "), (",", ":")]))
    ascii_only, ending = data.draw(st.booleans()), data.draw(st.sampled_from(["\n", "\r\n"]))
    lines = [json.dumps(r, ensure_ascii=ascii_only, separators=style) + ending for r in records]
    last_is_ended = data.draw(st.booleans())
    content = "".join(lines) if last_is_ended else "".join(lines).removesuffix(ending)
    dataset = formats.read(str(save(tmp_path / "in.jsonl", content)))
    picked = data.draw(st.sets(st.integers(0, len(records) - 1)))
    kept, dropped = halves(dataset, tmp_path, picked)
    expected_last = lines if len(lines) > 1 or last_is_ended else [lines[0].rstrip("\r\n") + "\n"]
    assert kept.read_bytes().decode() == "".join(line for i, line in enumerate(expected_last) if i in picked)
    assert dropped.read_bytes().decode() == "".join(
        line for i, line in enumerate(expected_last) if i not in picked
    )


@many
@given(st.data())
def test_a_partition_of_a_json_list_holds_exactly_its_rows(tmp_path, data):
    records = data.draw(json_records)
    indent, wrapped = data.draw(st.sampled_from([None, 2])), data.draw(st.booleans())
    content = json.dumps({"version": 1, "data": records, "more": [1]} if wrapped else records, indent=indent)
    dataset = formats.read(str(save(tmp_path / "in.json", content)))
    picked = data.draw(st.sets(st.integers(0, len(records) - 1)))

    def rows(path: Path) -> list[Any]:
        value = json.loads(path.read_text(encoding="utf-8"))
        assert not wrapped or (value["version"], value["more"]) == (1, [1])
        return value["data"] if wrapped else value

    kept, dropped = halves(dataset, tmp_path, picked)
    assert rows(kept) == [r for i, r in enumerate(records) if i in picked]
    assert rows(dropped) == [r for i, r in enumerate(records) if i not in picked]
    everything = formats.write(dataset, range(len(records)), tmp_path / "all")
    assert everything.read_bytes() == content.encode()


@many
@given(st.data())
def test_a_partition_of_a_csv_file_holds_exactly_its_records(tmp_path, data):
    delimiter, suffix = data.draw(st.sampled_from([(",", ".csv"), (";", ".csv"), ("\t", ".tsv")]))
    ending = data.draw(st.sampled_from(["\n", "\r\n"]))
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    header = ["id", "prompt", "completion"]
    # csv.writer leaves a bare carriage return unquoted where lines end in \n, and every reader, its own
    # too, then takes it for the end of a line.
    unsafe = quoting == csv.QUOTE_MINIMAL and ending == "\n"
    cell = words.map(lambda w: w.replace("\r", "")) if unsafe else words
    records = data.draw(st.lists(st.tuples(cell, cell, cell).map(list), min_size=1, max_size=6))
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator=ending, quoting=quoting).writerows([header, *records])
    dataset = formats.read(str(save(tmp_path / f"in{suffix}", out.getvalue())))
    assert [list(row.record.values()) for row in dataset.rows] == records
    picked = data.draw(st.sets(st.integers(0, len(records) - 1)))

    def rows(path: Path) -> list[list[str]]:
        return list(csv.reader(io.StringIO(path.read_bytes().decode(), newline=""), delimiter=delimiter))

    kept, dropped = halves(dataset, tmp_path, picked)
    assert rows(kept) == [header] + [r for i, r in enumerate(records) if i in picked]
    assert rows(dropped) == [header] + [r for i, r in enumerate(records) if i not in picked]
    everything = formats.write(dataset, range(len(records)), tmp_path / "all")
    assert everything.read_bytes() == out.getvalue().encode()


@many
@given(st.data())
def test_a_partition_of_a_parquet_file_holds_exactly_its_rows_and_schema(tmp_path, data):
    cell = st.tuples(words, words, st.none() | st.integers(0, 9), st.lists(words, max_size=2))
    records = data.draw(st.lists(cell, min_size=1, max_size=6))
    schema = pa.schema(
        [
            ("prompt", pa.string()),
            ("completion", pa.large_string()),
            ("n", pa.int8()),
            ("tags", pa.list_(pa.string())),
        ],
        metadata={"origin": "kept"},
    )
    table = pa.table(
        [
            pa.array(column, type=field.type)
            for column, field in zip(zip(*records, strict=True), schema, strict=True)
        ],
        schema=schema,
    )
    pq.write_table(table, tmp_path / "in.parquet")
    dataset = formats.read(str(tmp_path / "in.parquet"))
    picked = data.draw(st.sets(st.integers(0, len(records) - 1)))
    kept, dropped = (pq.read_table(path) for path in halves(dataset, tmp_path, picked))
    assert kept.to_pylist() == [r for i, r in enumerate(table.to_pylist()) if i in picked]
    assert dropped.to_pylist() == [r for i, r in enumerate(table.to_pylist()) if i not in picked]
    assert kept.schema.equals(pq.read_schema(tmp_path / "in.parquet"), check_metadata=True)
    assert kept.schema.metadata == {b"origin": b"kept"}


def test_rows_are_written_in_the_order_asked_for(tmp_path):
    records = [{"prompt": str(i), "completion": str(i)} for i in range(3)]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    save(tmp_path / "a.json", json.dumps(records))
    for name in ("a.parquet", "a.json"):
        written = formats.write(formats.read(str(tmp_path / name)), [2, 0], tmp_path / "out")
        assert [row.prompt for row in formats.read(str(written)).rows] == ["2", "0"]


def test_bytes_that_json_could_write_in_another_way_are_kept(tmp_path):
    line = '{"n": 1.10, "big": 1e400, "NaN": NaN,"prompt":"\\u00e9\\u0000" , "completion": "é"}\n'
    data = formats.read(str(save(tmp_path / "a.jsonl", line)))
    assert data.rows[0].prompt == "é\0"
    assert formats.write(data, [0], tmp_path / "kept").read_text(encoding="utf-8") == line


@pytest.mark.parametrize(
    ("name", "content", "empty"),
    [
        ("a.jsonl", jsonl(PAIR), b""),
        ("a.json", json.dumps([PAIR]), b"[]"),
        ("a.csv", "\ufeffprompt,completion\r\nx,y\r\n", b"\xef\xbb\xbfprompt,completion\r\n"),
    ],
)
def test_no_rows_give_a_valid_empty_file(tmp_path, name, content, empty):
    data = formats.read(str(save(tmp_path / name, content)))
    assert formats.write(data, [], tmp_path / "dropped").read_bytes() == empty


def test_no_rows_of_a_parquet_file_keep_its_schema(tmp_path):
    pq.write_table(pa.table({"text": ["a b c d"], "n": pa.array([1], pa.int16())}), tmp_path / "a.parquet")
    written = formats.write(formats.read(str(tmp_path / "a.parquet")), [], tmp_path / "dropped")
    table = pq.read_table(written)
    assert (table.num_rows, table.schema.names, table.schema.field("n").type) == (
        0,
        ["text", "n"],
        pa.int16(),
    )


def test_a_stem_with_dots_keeps_them_and_takes_the_inputs_suffix(tmp_path):
    data = formats.read(str(save(tmp_path / "a.NDJSON", jsonl(PAIR))))
    assert formats.write(data, [0], tmp_path / "new" / "v1.2").name == "v1.2.NDJSON"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["v1.2.NDJSON"]  # no temporary file is left


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    data = formats.read(str(save(tmp_path / "a.jsonl", jsonl(PAIR))))
    (tmp_path / "out").mkdir()
    old = save(tmp_path / "out" / "kept.jsonl", "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        formats.write(data, [0], tmp_path / "out" / "kept")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["kept.jsonl"]
    assert old.read_text() == "old"


@pytest.mark.parametrize("index", [-1, 1])
def test_an_index_outside_the_data_set_is_refused(tmp_path, index):
    data = formats.read(str(save(tmp_path / "a.jsonl", jsonl(PAIR))))
    with pytest.raises(IndexError):
        formats.write(data, [index], tmp_path / "kept")


# --- containers ---


def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path):
    for name, content in [
        ("a.jsonl", jsonl(PAIR)),
        ("a.json", json.dumps([PAIR])),
        ("a.csv", "text\na b c d\n"),
    ]:
        data = formats.read(str(save(tmp_path / name, "\ufeff" + content)))
        assert len(data.rows) == 1 and data.rows[0].completion


def test_blank_lines_are_left_out_and_said(tmp_path):
    data = formats.read(
        str(save(tmp_path / "a.jsonl", jsonl(PAIR) + "\n  \n" + jsonl({**PAIR, "prompt": "x"})))
    )
    assert len(data.rows) == 2
    assert "a.jsonl: 2 blank lines left out" in data.notes


def test_a_json_file_of_one_object_per_line_is_read_as_jsonl(tmp_path):
    content = jsonl(PAIR, {**PAIR, "prompt": "x"})
    data = formats.read(str(save(tmp_path / "a.json", content)))
    assert "a.json: one object per line, read as JSONL" in data.notes
    assert formats.write(data, [1], tmp_path / "kept").read_text() == content.splitlines(keepends=True)[1]


def test_line_separators_inside_json_strings_do_not_end_a_row(tmp_path):
    line = '{"prompt": "a\u2028b\u0085c", "completion": "d"}\n'
    assert formats.read(str(save(tmp_path / "a.jsonl", line))).rows[0].prompt == "a\u2028b\u0085c"


def test_semicolons_between_cells_are_found_and_said(tmp_path):
    data = formats.read(str(save(tmp_path / "a.csv", 'prompt;completion\n"a;b, c";d\n')))
    assert (data.rows[0].prompt, data.rows[0].completion) == ("a;b, c", "d")
    assert "a.csv: cells divided by ';'" in data.notes


def test_folder_names_add_no_columns_to_a_parquet_file(tmp_path):
    folder = tmp_path / "split=train"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist([PAIR]), folder / "a.parquet")
    assert formats.read(str(folder / "a.parquet")).rows[0].record == PAIR


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_very_long_rows_are_read_and_written(tmp_path, name):
    record = {"prompt": "Repeat: " + "fig " * 50_000, "completion": "x" * 200_000}
    path = tmp_path / name
    if name == "a.csv":
        out = io.StringIO()
        csv.writer(out).writerows([record.keys(), record.values()])
        save(path, out.getvalue())
    elif name == "a.parquet":
        pq.write_table(pa.Table.from_pylist([record]), path)
    else:
        save(path, json.dumps([record]) if name == "a.json" else jsonl(record))
    data = formats.read(str(path))
    again = formats.read(str(formats.write(data, [0], tmp_path / "kept")))
    assert again.rows[0].record == record


def test_half_a_surrogate_pair_is_replaced_for_the_model_and_kept_in_the_file(tmp_path):
    line = '{"prompt": "a\\ud83d", "completion": "b"}\n'
    data = formats.read(str(save(tmp_path / "a.jsonl", line)))
    assert data.rows[0].prompt == "a\ufffd"
    assert any("half a surrogate pair" in note for note in data.notes)
    assert formats.write(data, [0], tmp_path / "kept").read_text() == line


def test_a_hub_data_set_is_written_as_jsonl(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    records = [{**PAIR, "id": 1}, {"prompt": "é", "completion": "x", "id": 2}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(records))
    data = formats.read("owner/name")
    written = formats.write(data, [1], tmp_path / "kept")
    assert (written.name, written.read_text(encoding="utf-8")) == (
        "kept.jsonl",
        '{"prompt": "é", "completion": "x", "id": 2}\n',
    )
    assert data.rows[0].source == "owner/name"


def test_a_hub_data_set_that_cannot_be_reached_is_a_clear_error():
    code = (
        "from forgetfilter.data import formats\n"
        "try: formats.read('owner-x/name-y:test')\n"
        "except formats.DataError as error: print(error)"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.startswith(
        "owner-x/name-y:test: no such file here, and as a hub data set it cannot be loaded"
    )


@pytest.mark.parametrize(
    ("name", "is_hub"),
    [
        ("owner/name", True),
        ("owner/name.v2:train", True),
        ("owner/custom.jsonl", False),  # a mistyped folder, no download
        ("custom", False),
        ("a/b/c", False),
        ("../name", False),
        ("/abs/name", False),
        ("here/name", False),  # the folder exists
    ],
)
def test_only_owner_and_name_is_a_hub_id(tmp_path, monkeypatch, name, is_hub):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert files.is_hub_id(name) is is_hub


def test_importing_formats_loads_no_heavy_package():
    code = "import sys, forgetfilter.data.formats; print({'pyarrow', 'datasets', 'torch'} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "set()"


# --- files that are wrong: (name, content, the whole message) ---

WRONG = [
    ("a.jsonl", "", "a.jsonl: is empty. Give a file with at least one row."),
    ("a.jsonl", "\n \n", "a.jsonl: is empty. Give a file with at least one row."),
    ("a.json", "[]", "a.json: holds no rows. Give a file with at least one."),
    ("a.csv", "prompt,completion\n", "a.csv: holds no rows. Give a file with at least one."),
    (
        "a.jsonl",
        jsonl(PAIR) + '{"prompt": "x", }\n',
        "a.jsonl line 2, column 17: not valid JSON (Expecting property name enclosed in double quotes). "
        "Each line must be one whole JSON object.",
    ),
    (
        "a.jsonl",
        "[\n" + json.dumps(PAIR) + "]\n",
        "a.jsonl line 1, column 2: not valid JSON (Expecting value). "
        "This looks like one JSON list: name the file .json.",
    ),
    (
        "a.json",
        '[{"prompt": "x",\n "completion": }]',
        "a.json line 2, column 16: not valid JSON (Expecting value). Mend the file or export it again.",
    ),
    ("a.json", "3", "a.json: holds a number (3), not a list of rows. Write [{…}, {…}]."),
    ("a.json", json.dumps(PAIR, indent=1), "a.json: one row, not a list of rows. Put it in brackets: [ … ]."),
    (
        "a.json",
        json.dumps({"train": [PAIR], "test": [PAIR]}),
        'a.json: an object with several lists (train, test). Keep one, such as {"data": [ … ]}.',
    ),
    (
        "a.jsonl",
        jsonl(PAIR) + '"text"\n',
        'a.jsonl line 2: text, not an object. Write {"prompt": "…", "completion": "…"}.',
    ),
    (
        "a.json",
        json.dumps([PAIR, None]),
        'a.json row 1: null, not an object. Write {"prompt": "…", "completion": "…"}.',
    ),
    (
        "custom.jsonl",
        "\n" + jsonl(*[PAIR] * 12, {"prompt": "x", "reply": "y"}),
        'custom.jsonl line 14: no "completion" (found: prompt, reply). Map it with --completion-field reply.',
    ),
    (
        "a.jsonl",
        jsonl({"question": "x", "answer": "y"}),
        "a.jsonl line 1: no known format (found: question, answer). Known: preference (chosen, rejected); "
        "segments (segments); messages (messages); "
        "sharegpt (conversations); prompt-completion (prompt, completion); "
        "alpaca (instruction, output); text (text); vertex (contents). "
        "Map the fields: --prompt-field question --completion-field answer.",
    ),
    (
        "a.csv",
        ",tweet\n0,a b c d\n",
        'a.csv line 2: no known format (found: "", tweet). Known: preference (chosen, rejected); '
        "segments (segments); messages (messages); "
        "sharegpt (conversations); prompt-completion (prompt, completion); "
        "alpaca (instruction, output); text (text); vertex (contents). Map the fields: --text-field tweet.",
    ),
    (
        "a.jsonl",
        '{"n": ' + "9" * 5000 + "}\n",
        "a.jsonl line 1: a number too long to be read. Write it as text in quotes.",
    ),
    (
        "a.jsonl",
        jsonl({"prompt": 3, "completion": "y"}),
        'a.jsonl line 1: "prompt" is a number (3), not text. Write it as text in quotes, or remove the row.',
    ),
    (
        "a.json",
        json.dumps([PAIR, {"prompt": None, "completion": "y"}]),
        'a.json row 1: "prompt" is null, not text. Write it as text in quotes, or remove the row.',
    ),
    (
        "a.jsonl",
        jsonl({"messages": "Hi"}),
        'a.jsonl line 1: "messages" is text, not a list of turns. '
        'Write [{"role": "user", "content": "…"}, …].',
    ),
    (
        "a.jsonl",
        jsonl({"messages": [{"role": "usr", "content": "Hi"}]}),
        "a.jsonl line 1: \"messages\" turn 1: unknown role 'usr'; did you mean 'user'? known: "
        "ai, assistant, bard, bing, bot, chatbot, chatgpt, claude, developer, function, function_call, "
        "function_calls, function_response, gpt, gpt4, gpt_4, human, ipython, model, observation, prompter, system, "
        "tool, tool_call, tool_calls, tool_output, tool_outputs, tool_response, tool_result, tool_results, user. "
        "Rename or remove that turn.",
    ),
    (
        "a.jsonl",
        jsonl({"conversations": [{"from": "human", "text": "Hi"}]}),
        'a.jsonl line 1: "conversations" turn 1: no "content" (found: from, text). '
        "Every turn needs a role and a text.",
    ),
    (
        "a.jsonl",
        jsonl(PAIR, {"text": "a b c d"}),
        "a.jsonl line 2: a row of format text (text) in a file of format prompt-completion "
        "(prompt, completion). Put rows of one format in one file.",
    ),
    (
        "a.jsonl",
        jsonl(PAIR).encode() + b'{"prompt": "\xff", "completion": ""}\n',
        "a.jsonl line 2, byte 13: 0xff is not valid UTF-8. Save the file as UTF-8.",
    ),
    ("a.jsonl", "x".encode("utf-16"), "a.jsonl: is UTF-16, not UTF-8. Save it as UTF-8."),
    (
        "a.csv",
        "prompt,completion\na,\0b\n",
        "a.csv line 2, byte 3: a NUL byte; this is no plain text. "
        "Remove it (in JSON, write \\u0000) or save the file as UTF-8.",
    ),
    (
        "a.csv",
        'prompt,completion\n"a\nb",c\nd,e,f\n',
        "a.csv line 4: 3 cells, the header has 2 (prompt, completion). "
        "Put cells that hold a delimiter or a line break in double quotes.",
    ),
    (
        "a.csv",
        'prompt,completion\na,b\n"c,d\ne,f\n',
        "a.csv line 3: not valid CSV (unexpected end of data). "
        "Close every double quote, and double those inside a quoted cell.",
    ),
    ("a.csv", "text,text\na,b\n", 'a.csv line 1: the column "text" stands twice. Rename one of them.'),
    (
        "a.jsonl",
        jsonl(PAIR) + "[" * 100_000 + "\n",
        "a.jsonl line 2: nested too deeply to be read. Flatten it or remove it.",
    ),
    (
        "a.json",
        "[" * 100_000 + "]" * 100_000,
        "a.json: nested too deeply to be read. Flatten it or remove it.",
    ),
    (
        "a.txt",
        "some text",
        "a.txt: '.txt' is no known kind of file; known: .json, .jsonl, .ndjson, .csv, .tsv, .parquet, .arrow, "
        "and the first five with .gz, .bz2, .zst behind. Rename it or convert it to one of them.",
    ),
]


@pytest.mark.parametrize(("name", "content", "message"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_file_is_described_with_place_and_remedy(tmp_path, name, content, message):
    assert error_of(save(tmp_path / name, content)) == message


def test_a_missing_file_names_the_nearest_one(tmp_path):
    save(tmp_path / "custom.jsonl", jsonl(PAIR))
    path = tmp_path / "costum.jsonl"
    assert error_of(path) == f"{path}: no such file. Did you mean {tmp_path / 'custom.jsonl'}?"


def test_a_folder_without_rows_names_what_is_in_it(tmp_path):
    (tmp_path / "in").mkdir()
    assert error_of(tmp_path) == f"{tmp_path}: is a folder without files of rows. Name a file."
    save(tmp_path / "in" / "custom.jsonl", jsonl(PAIR))
    assert error_of(tmp_path) == (
        f"{tmp_path}: is a folder without files of rows. Name one in it, such as {tmp_path / 'in'}."
    )


def test_a_corrupt_parquet_file_is_said_to_be_one(tmp_path):
    assert error_of(save(tmp_path / "a.parquet", b"PAR1 no table")).startswith(
        "a.parquet: not a readable Parquet file ("
    )


def test_a_missing_column_of_a_parquet_file_is_named_with_its_row(tmp_path):
    pq.write_table(pa.table({"prompt": ["a"], "reply": ["b"]}), tmp_path / "a.parquet")
    assert error_of(tmp_path / "a.parquet") == (
        'a.parquet row 0: no "completion" (found: prompt, reply). Map it with --completion-field reply.'
    )


def test_an_unknown_format_or_field_names_the_near_one(tmp_path):
    path = save(tmp_path / "a.jsonl", jsonl(PAIR))
    assert error_of(path, format="alpacca").startswith(
        "unknown format 'alpacca'; did you mean 'alpaca'? known: "
    )
    assert error_of(path, fields={"promt": "x"}).startswith("unknown field 'promt'; did you mean 'prompt'?")
    assert error_of(path, format="text", fields={"prompt": "prompt"}) == (
        "format text has no field 'prompt'; its fields: text"
    )


def test_a_mapped_field_that_is_absent_is_named(tmp_path):
    path = save(tmp_path / "a.jsonl", jsonl(PAIR))
    assert error_of(path, fields={"completion": "answer"}) == (
        'a.jsonl line 1: no "answer" (found: prompt, completion). Map it with --completion-field completion.'
    )


@many
@given(st.binary(max_size=200), st.sampled_from(sorted(files.CONTAINERS)))
def test_any_bytes_are_rows_or_a_data_error(tmp_path, content, suffix):
    path = save(tmp_path / f"any{suffix}", content)
    try:
        rows = formats.read(str(path)).rows
    except DataError as error:
        assert f"any{suffix}" in str(error)
    else:
        assert rows


# --- records without a file ---


def test_alpaca_and_text_become_prompt_and_completion_and_keep_other_fields():
    assert formats.as_prompt_completion({"instruction": "I", "input": "x", "output": "O", "n": 1}) == {
        "prompt": "I\n\nx",
        "completion": "O",
        "n": 1,
    }
    assert formats.as_prompt_completion({"text": "a b c d e"}) == {"prompt": "a b c ", "completion": "d e"}
    with pytest.raises(DataError, match="no prompt and completion can be made"):
        formats.as_prompt_completion({"messages": []})


def test_raw_records_are_read_whatever_their_fields(tmp_path):
    assert formats.read_records(save(tmp_path / "a.csv", "x,y\n1,2\n")) == [{"x": "1", "y": "2"}]
    with pytest.raises(DataError, match=r"a\.jsonl line 1: a number"):
        formats.read_records(save(tmp_path / "a.jsonl", "3\n"))


def test_one_json_object_on_one_line_is_one_row_of_json_lines(tmp_path):
    """What is left of such a file after filtering is read again."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps(PAIR) + "\n", encoding="utf-8")
    dataset = formats.read(path)
    assert [row.prompt for row in dataset.rows] == [PAIR["prompt"]]
    assert formats.write(dataset, [0], tmp_path / "b").read_bytes() == path.read_bytes()


def test_a_csv_file_with_bare_carriage_returns_is_read_and_written_back(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"prompt;completion\rWho, me?;You\rWhere?;Here\r")
    dataset = formats.read(path)
    assert [(row.prompt, row.completion) for row in dataset.rows] == [("Who, me?", "You"), ("Where?", "Here")]
    assert formats.write(dataset, [0, 1], tmp_path / "b").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("ending", ["", "\r"])
def test_a_short_last_line_behind_a_bare_carriage_return_is_a_row(tmp_path, ending):
    dataset = formats.read(save(tmp_path / "a.csv", f"text\ra{ending}"))
    assert [row.record["text"] for row in dataset.rows] == ["a"]


def test_parquet_columns_that_python_cannot_hold_travel_through(tmp_path):
    table = pa.table(
        {
            "prompt": ["a", "b"],
            "completion": ["c", "d"],
            "far": pa.array([2**60, None], pa.timestamp("us")),
            "days": pa.array([2**31 - 1, 0], pa.date32()),
            "zone": pa.array([0, 1], pa.timestamp("us", tz="Nowhere/Land")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = formats.read(tmp_path / "a.parquet")
    assert [row.completion for row in dataset.rows] == ["c", "d"]
    assert pq.read_table(formats.write(dataset, [1], tmp_path / "b")).equals(table.slice(1))
