"""Trainers' own lists of data sets, read and written."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from forgetfilter.data import formats, handback, tables
from forgetfilter.errors import DataError


def rows(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def said(dataset: formats.Dataset, index: int = 0) -> list[tuple[str, str]]:
    return [tuple(m) for m in dataset.rows[index].messages]


def entry(folder: Path, **content: Any) -> str:
    """A dataset_info.json with this entry and one more; returns what names the first."""
    (folder / "dataset_info.json").write_text(json.dumps({"mine": content, "other": {"file_name": "b.json"}}))
    return f"{folder / 'dataset_info.json'}:mine"


def refusal(path: Any) -> str:
    with pytest.raises(DataError) as caught:
        formats.read(path)
    return str(caught.value)


# --- LLaMA-Factory's dataset_info.json ---


def test_an_entry_names_file_columns_roles_and_keys(tmp_path: Path) -> None:
    rows(
        tmp_path / "a.jsonl",
        {"talk": [{"who": "Kunde", "says": "Hallo"}, {"who": "Bot", "says": "Guten Tag"}]},
    )
    name = entry(
        tmp_path, file_name="a.jsonl", formatting="sharegpt", columns={"messages": "talk"},
        tags={"role_tag": "who", "content_tag": "says", "user_tag": "Kunde", "assistant_tag": "Bot"},
    )  # fmt: skip
    dataset = formats.read(name)
    assert said(dataset) == [("user", "Hallo"), ("assistant", "Guten Tag")]
    assert formats.write(dataset, [0], tmp_path / "kept").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


def test_history_and_system_are_read_where_the_entry_names_them_only(tmp_path: Path) -> None:
    row = {"instruction": "Why?", "output": "So.", "history": [["a", "b"]], "system": "S."}
    rows(tmp_path / "a.jsonl", row)
    assert said(formats.read(entry(tmp_path, file_name="a.jsonl"))) == [
        ("user", "Why?"),
        ("assistant", "So."),
    ]
    named = entry(tmp_path, file_name="a.jsonl", columns={"history": "history", "system": "system"})
    assert [text for _, text in said(formats.read(named))] == ["S.", "a", "b", "Why?", "So."]


def test_an_unnamed_column_is_not_read_for_one_that_the_entry_does_not_name(tmp_path: Path) -> None:
    # pandas writes its row numbers into a column without a name.
    (tmp_path / "a.csv").write_text(",q,a\n0,Why?,So.\n")
    name = entry(tmp_path, file_name="a.csv", columns={"prompt": "q", "response": "a"})
    assert said(formats.read(name)) == [("user", "Why?"), ("assistant", "So.")]


def test_pairs_and_kto_labels_are_read_as_the_entry_says(tmp_path: Path) -> None:
    rows(tmp_path / "a.jsonl", {"q": "Fruit?", "good": "A pear.", "bad": "No."})
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    dataset = formats.read(entry(tmp_path, file_name="a.jsonl", ranking=True, columns=columns))
    assert said(dataset) == [("user", "Fruit?"), ("assistant", "A pear.")]
    assert dataset.rejected[0].messages[-1].content == "No."
    rows(tmp_path / "a.jsonl", {"messages": [{"from": "gpt", "value": "No."}], "ok": False})
    columns = {"messages": "messages", "kto_tag": "ok"}
    dataset = formats.read(entry(tmp_path, file_name="a.jsonl", formatting="sharegpt", columns=columns))
    assert [out.what for out in dataset.left_out] == ["unwanted"]


def test_what_an_entry_asks_for_and_is_not_there_is_told(tmp_path: Path) -> None:
    rows(tmp_path / "a.jsonl", {"instruction": "a", "output": "b"})
    name = entry(tmp_path, file_name="a.jsonl")
    assert "lists 2 data sets (mine, other). Name one" in refusal(name.removesuffix(":mine"))
    assert "unknown data set 'mime'; did you mean 'mine'?" in refusal(name.replace(":mine", ":mime"))
    assert 'line 1: no "reply" (found: instruction, output)' in refusal(
        entry(tmp_path, file_name="a.jsonl", columns={"response": "reply"})
    )
    assert "unknown formatting 'sharegtp'" in refusal(
        entry(tmp_path, file_name="a.jsonl", formatting="sharegtp")
    )
    assert "gone.jsonl: no such file" in refusal(entry(tmp_path, file_name="gone.jsonl"))
    assert "no file_name (found: script_url)" in refusal(entry(tmp_path, script_url="x"))
    assert "`file_name` is a number (3)" in refusal(entry(tmp_path, file_name=3))


def test_input_is_read_where_an_entry_without_columns_or_its_columns_name_it(tmp_path: Path) -> None:
    rows(tmp_path / "a.jsonl", {"instruction": "Why?", "input": "Tell me.", "output": "So."})
    asked = {"prompt": "instruction", "response": "output"}
    for more, prompt in (
        ({}, "Why?\n\nTell me."),
        ({"columns": asked}, "Why?"),
        ({"columns": {**asked, "query": None}}, "Why?"),
        ({"columns": {**asked, "query": "input"}}, "Why?\n\nTell me."),
    ):
        assert said(formats.read(entry(tmp_path, file_name="a.jsonl", **more)))[0] == ("user", prompt)
    wrong = entry(tmp_path, file_name="a.jsonl", columns={"prompt": ["instruction"]})
    assert "entry mine: `columns`: prompt is a list, not a name." in refusal(wrong)


def test_a_list_that_has_the_same_file_read_otherwise_gives_other_data(tmp_path: Path) -> None:
    rows(tmp_path / "a.jsonl", {"instruction": "Why?", "output": "So.", "better": "So it is."})
    digests = {
        formats.read(entry(tmp_path, file_name="a.jsonl", **more)).digest()
        for more in ({}, {"columns": {"response": "better"}}, {"num_samples": 1})
    }
    assert len(digests) == 2


def test_a_sample_drawn_by_chance_is_read_whole_and_said(tmp_path: Path) -> None:
    rows(tmp_path / "a.jsonl", *[{"instruction": str(i), "output": "b"} for i in range(3)])
    dataset = formats.read(entry(tmp_path, file_name="a.jsonl", num_samples=2))
    assert len(dataset.rows) == 3 and any("num_samples 2: drawn by chance" in note for note in dataset.notes)


# --- axolotl's YAML ---


def config(folder: Path, *datasets: Any, **more: Any) -> Path:
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump({"base_model": "x", "datasets": list(datasets), **more}))
    return path


def test_the_data_sets_of_a_yaml_are_read_in_order(tmp_path: Path) -> None:
    rows(tmp_path / "a.jsonl", {"instruction": "A?", "output": "a"})
    rows(
        tmp_path / "b.jsonl", {"turns": [{"speaker": "Kunde", "text": "B?"}, {"speaker": "Bot", "text": "b"}]}
    )
    rows(tmp_path / "c.jsonl", {"body": "one two three four"})
    rows(tmp_path / "d.jsonl", {"segments": [{"label": False, "text": "D?"}, {"label": True, "text": "d"}]})
    path = config(
        tmp_path,
        {"path": "a.jsonl", "type": "alpaca"},
        {"path": "b.jsonl", "type": "chat_template", "field_messages": "turns",
         "roles": {"user": ["Kunde"], "assistant": ["Bot"]},
         "message_property_mappings": {"role": "speaker", "content": "text"}},
        {"path": "c.jsonl", "type": "completion", "field": "body"},
        {"path": "d.jsonl", "type": "input_output"},
        train_on_inputs=True,
    )  # fmt: skip
    dataset = formats.read(path)
    assert [row.completion for row in dataset.rows] == ["a", "b", "four", "d"]
    assert any("train_on_inputs: axolotl learns what stands in prompts too" in note for note in dataset.notes)
    kept = formats.write(dataset, [1, 3], tmp_path / "kept")
    assert [len(p.read_text()) > 0 for p in sorted(kept.iterdir())] == [False, True, False, True]


def test_fields_of_ones_own_marks_and_roles_to_train_are_followed(tmp_path: Path) -> None:
    rows(tmp_path / "a.jsonl", {"q": "Q?", "a": "A."})
    own = {"field_instruction": "q", "field_output": "a", "format": "{instruction}"}
    dataset = formats.read(config(tmp_path, {"path": "a.jsonl", "type": own}))
    assert said(dataset) == [("user", "Q?"), ("assistant", "A.")]
    assert any("its own `format:` is not followed" in note for note in dataset.notes)
    turns = [
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "V", "learn": False},
        {"role": "assistant", "content": "W"},
    ]
    rows(tmp_path / "a.jsonl", {"messages": turns})
    how = {
        "path": "a.jsonl",
        "type": "chat_template",
        "message_field_training": "learn",
        "roles_to_train": ["assistant", "user"],
    }
    row = formats.read(config(tmp_path, how)).rows[0]
    assert [row.learns(i) for i in range(3)] == [True, False, True]


def test_data_files_and_a_type_we_do_not_know_are_read_by_their_fields(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    rows(tmp_path / "d" / "a.jsonl", {"conversations": [{"from": "gpt", "value": "a"}]})
    rows(tmp_path / "d" / "b.jsonl", {"conversations": [{"from": "gpt", "value": "b"}]})
    dataset = formats.read(config(tmp_path, {"path": "d", "data_files": ["b.jsonl"], "type": "sharegpt"}))
    assert [row.completion for row in dataset.rows] == ["b"]


def axolotl(folder: Path, **entry: Any) -> formats.Dataset:
    (folder / "train.yaml").write_text(yaml.safe_dump({"datasets": [entry]}), encoding="utf-8")
    return formats.read(folder / "train.yaml")


def test_a_packed_file_and_a_saved_folder_of_a_yaml_are_read_as_axolotl_does(tmp_path: Path) -> None:
    import datasets

    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"instruction": "Why?", "output": "So."}\n'))
    packed = axolotl(tmp_path, path="a.jsonl.gz", ds_type="json", type="alpaca")
    assert said(packed) == [("user", "Why?"), ("assistant", "So.")]
    assert formats.write(packed, [0], tmp_path / "kept").name == "kept.jsonl.gz"
    splits = {name: datasets.Dataset.from_list([{"text": f"{name} a b c"}]) for name in ("test", "train")}
    splits["train"].save_to_disk(tmp_path / "saved")
    assert axolotl(tmp_path, path="saved", type="completion").rows[0].prompt == "train a b "
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "both")
    assert axolotl(tmp_path, path="both", type="completion").rows[0].prompt == "train a b "
    named = axolotl(tmp_path, path="both", type="completion", split="test")
    assert (
        named.rows[0].prompt == "test a b " and "train.yaml datasets entry 1: the split test" in named.notes
    )


def test_what_is_said_of_a_folder_is_said_of_it_in_a_list(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    rows(tmp_path / "d" / "a-00001-of-00002.jsonl", {"instruction": "Why?", "output": "So."})
    (tmp_path / "d" / "read.me").write_text("")
    for dataset in (axolotl(tmp_path, path="d", type="alpaca"), formats.read(entry(tmp_path, file_name="d"))):
        assert "d: passed over: read.me" in dataset.notes
        assert any(
            "1 of 2 shards not there, such as a-00000-of-00002.jsonl" in note for note in dataset.notes
        )


def test_a_folder_in_a_list_is_written_as_a_folder(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list([{"text": f"{i} a b c"} for i in range(3)]).save_to_disk(tmp_path / "saved")
    kept = formats.write(axolotl(tmp_path, path="saved", type="completion"), [0, 2], tmp_path / "kept")
    assert datasets.load_from_disk(kept)["text"] == ["0 a b c", "2 a b c"]


def test_a_list_that_names_itself_is_refused(tmp_path: Path) -> None:
    assert "train.yaml: '.yaml' is no known kind of file" in refusal(config(tmp_path, {"path": "train.yaml"}))
    assert "b.json: no such file" in refusal(entry(tmp_path, file_name="b.json"))
    named = entry(tmp_path, file_name="dataset_info.json")
    assert "dataset_info.json: " in refusal(named)
    assert "no such file" in refusal(entry(tmp_path, file_name="dataset_info.json:mine"))


def test_marks_are_followed_where_the_trainer_of_the_list_follows_them(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "U"}, {"role": "assistant", "content": "V", "weight": 0}]
    rows(tmp_path / "a.jsonl", {"messages": talk, "weight": 0, "label": False})
    assert not formats.read(tmp_path / "a.jsonl").rows[0].teaches
    openai = {"file_name": "a.jsonl", "formatting": "openai", "columns": {"messages": "messages"}}
    for dataset in (
        axolotl(tmp_path, path="a.jsonl", type="chat_template"),
        formats.read(entry(tmp_path, **openai)),
    ):
        assert dataset.rows[0].learns(1)
        assert {(out.what, out.words.split('"')[1]) for out in dataset.left_out} == {
            ("turn-fields", "weight"), ("columns", "weight"), ("columns", "label"),
        }  # fmt: skip


@pytest.mark.parametrize(
    ("how", "row"),
    [
        ("llama3.argilla", {"instruction": "Q?", "completion": "A.", "label": False}),
        ("chatml.intel", {"question": "Q?", "completion": "A.", "label": False}),
        ("llama3.ultra", {"prompt": "Q?", "completion": "A.", "label": False}),
        (
            {"field_prompt": "q", "field_completion": "a", "field_label": "good"},
            {"q": "Q?", "a": "A.", "good": False},
        ),
    ],
)
def test_axolotls_kto_rows_are_read_with_their_label(tmp_path: Path, how: Any, row: dict[str, Any]) -> None:
    rows(tmp_path / "a.jsonl", row, {**row, list(row)[2]: True})
    dataset = formats.read(config(tmp_path, {"path": "a.jsonl", "type": how}, rl="kto"))
    assert said(dataset) == [("user", "Q?"), ("assistant", "A.")]
    assert [row.teaches for row in dataset.rows] == [False, True]


@pytest.mark.parametrize(
    ("how", "row"),
    [
        ("alpaca_chat.load_qa", {"question": "Q?", "answer": "A."}),
        ("alpaca_w_system.load_open_orca_chatml", {"system_prompt": "", "question": "Q?", "response": "A."}),
    ],
)
def test_axolotls_types_with_columns_of_their_own_are_read(
    tmp_path: Path, how: str, row: dict[str, Any]
) -> None:
    rows(tmp_path / "a.jsonl", row)
    dataset = axolotl(tmp_path, path="a.jsonl", type=how)
    assert said(dataset) == [("user", "Q?"), ("assistant", "A.")] and dataset.left_out == ()


def test_roles_to_train_may_be_ones_own_and_a_mark_holds_for_each_of_them(tmp_path: Path) -> None:
    turns = [
        {"role": "Kunde", "content": "U", "learn": False}, {"role": "Experte", "content": "V"},
        {"role": "Kunde", "content": "W"},
    ]  # fmt: skip
    rows(tmp_path / "a.jsonl", {"messages": turns})
    how = {
        "path": "a.jsonl", "type": "chat_template", "message_field_training": "learn",
        "roles": {"user": "Kunde", "assistant": ["Experte"]}, "roles_to_train": ["Experte", "Kunde"],
    }  # fmt: skip
    row = axolotl(tmp_path, **how).rows[0]
    assert [row.learns(i) for i in range(3)] == [False, True, True]


def test_rows_that_axolotl_would_leave_out_are_read_and_said(tmp_path: Path) -> None:
    rows(tmp_path / "a.jsonl", *({"instruction": "Why?", "output": f"{i}"} for i in range(4)))
    few = axolotl(tmp_path, path="a.jsonl", type="alpaca", shards=2, split="train[:50%]")
    assert len(few.rows) == 4
    assert [note.partition("entry 1: ")[2] for note in few.notes if "entry 1" in note] == [
        "shards 2: axolotl takes one of them; all rows are read",
        "split train[:50%]: axolotl takes these rows; all of train are read",
    ]


def test_a_part_of_a_hub_data_set_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="entry 1: `name` of a data set on the hub is not followed"):
        axolotl(tmp_path, path="owner/rows", name="german", type="alpaca")
    assert "`subset` of a data set on the hub" in refusal(entry(tmp_path, hf_hub_url="a/b", subset="german"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("datasets: [a: b", "train.yaml line 1: not valid YAML"),
        ("review_steps: 3", "no list `datasets:` in it"),
        ("datasets: [7]", "datasets entry 1: is a number (7), not an object with a path"),
        ("datasets: [{type: alpaca}]", "datasets entry 1: `path` is null"),
        ("datasets: [{path: a.jsonl, roles: 3}]", "`roles` is a number (3)"),
        (
            "datasets: [{path: a.jsonl, roles: {user: 3}}]",
            "`user` is a number (3), not a name or a list of names",
        ),
        ("datasets: [{path: a.jsonl, roles_to_train: 3}]", "`roles_to_train` is a number (3)"),
        ("datasets: [{path: json, data_files: {train: a.jsonl}}]", "`data_files` is an object"),
        ("datasets: [{path: gone.jsonl}]", "gone.jsonl: no such file"),
    ],
)
def test_a_yaml_that_names_no_rows_is_told(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "train.yaml").write_text(content)
    rows(tmp_path / "a.jsonl", {"prompt": "a", "completion": "b"})
    assert words in refusal(tmp_path / "train.yaml")


# --- handed back ---

SHAPES: dict[str, dict[str, Any]] = {
    "prompt-completion": {"prompt": "Q?", "completion": "A.", "n": 1},
    "other names": {"prompt": "Q?", "answer": "A."},
    "messages": {"messages": [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "A."}], "tools": ""},
    "alpaca": {"instruction": "Q?", "input": "", "output": "A.", "system": "S.", "history": [["a", "b"]]},
    "text": {"text": "one two three four five"},
    "pair": {"prompt": "Q?", "chosen": "A.", "rejected": "B."},
    "pair of turns": {"conversations": [{"from": "human", "value": "Q?"}], "chosen": {"from": "gpt", "value": "A."},
                      "rejected": {"from": "gpt", "value": "B."}},
    "kto": {"prompt": "Q?", "completion": "A.", "label": True},
}  # fmt: skip


def meaning(dataset: formats.Dataset) -> Any:
    rejected = [row.messages for row in dataset.rejected]
    return [(row.messages, row.learned) for row in dataset.rows], rejected


@pytest.mark.parametrize("shape", SHAPES)
def test_the_llamafactory_entry_reads_the_file_back(tmp_path: Path, shape: str) -> None:
    dataset = formats.read(rows(tmp_path / "a.jsonl", SHAPES[shape]))
    kept = formats.write(dataset, [0], tmp_path / "kept")
    text = handback.llamafactory(dataset, kept, "mine")
    (tmp_path / "dataset_info.json").write_text(text)
    made = json.loads(text)["mine"]
    assert set(made) <= {"file_name", "formatting", "columns", "tags", "ranking"}
    assert set(made["columns"]) <= LLAMAFACTORY_COLUMNS and set(made.get("tags", {})) <= LLAMAFACTORY_TAGS
    assert meaning(formats.read(tmp_path / "dataset_info.json")) == meaning(dataset)


@pytest.mark.parametrize("shape", [s for s in SHAPES if s not in ("alpaca", "kto")])
def test_the_axolotl_list_reads_the_file_back(tmp_path: Path, shape: str) -> None:
    dataset = formats.read(rows(tmp_path / "a.jsonl", SHAPES[shape]))
    kept = formats.write(dataset, [0], tmp_path / "kept")
    (tmp_path / "train.yaml").write_text(handback.axolotl(dataset, kept))
    made = yaml.safe_load((tmp_path / "train.yaml").read_text())["datasets"][0]
    assert set(made) <= AXOLOTL_KEYS
    assert meaning(formats.read(tmp_path / "train.yaml")) == meaning(dataset)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_the_line_for_trl_loads_the_columns_that_trl_knows(
    tmp_path: Path, shape: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = rows(tmp_path / "a.jsonl", SHAPES[shape], SHAPES[shape])
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([SHAPES[shape]] * 2), path := tmp_path / "a.parquet")
    elif suffix == ".jsonl.gz":
        import gzip

        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    dataset = formats.read(path)
    kept = formats.write(dataset, [1], tmp_path / "kept")
    there: dict[str, Any] = {}
    exec(handback.trl(dataset, kept), there)  # noqa: S102
    loaded = there["train_dataset"]
    assert len(loaded) == 1
    known = [{"prompt", "completion"}, {"messages"}, {"conversations"}, {"text"}, {"chosen", "rejected"}]
    assert any(fields <= set(loaded.column_names) for fields in known)
    if {"prompt", "completion"} <= set(loaded.column_names):
        assert (loaded[0]["prompt"], loaded[0]["completion"]) == ("Q?", "A.")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz"])
def test_a_weight_stands_behind_every_row_and_all_else_as_it_was(tmp_path: Path, name: str) -> None:
    import gzip

    contents = {
        "a.jsonl": '{"prompt":"é" , "completion": "b"}\r\n{"completion": "d","prompt":"c" }',
        "a.json": '{"data": [ {"prompt": "é", "completion": "b"},\n {"prompt": "c", "completion": "d"} ]}',
        "a.csv": "prompt;completion\né;b\nc;d",
        "a.tsv": "prompt\tcompletion\r\né\tb\r\nc\td\r\n",
    }
    path = tmp_path / name
    if name == "a.parquet":
        pq.write_table(pa.table({"prompt": ["é", "c"], "completion": ["b", "d"]}), path)
    elif name == "a.jsonl.gz":
        path.write_bytes(gzip.compress(contents["a.jsonl"].encode()))
    else:
        path.write_bytes(contents[name].encode())
    dataset = formats.read(path)
    written = handback.write_weights(dataset, [1.0, 0.0], tmp_path / "weighted")
    again = formats.read(written)
    assert [dict(row.record) for row in again.rows] == [
        {**dataset.rows[0].record, "weight": again.rows[0].record["weight"]},
        {**dataset.rows[1].record, "weight": again.rows[1].record["weight"]},
    ]
    assert [float(row.record["weight"]) for row in again.rows] == [1.0, 0.0]
    assert [row.teaches for row in again.rows] == [True, False]
    if name == "a.jsonl":
        assert written.read_bytes().decode() == (
            '{"prompt":"é" , "completion": "b", "weight": 1.0}\r\n{"completion": "d","prompt":"c" , "weight": 0.0}\r\n'
        )
    if name == "a.csv":
        assert written.read_text(encoding="utf-8") == "prompt;completion;weight\né;b;1.0\nc;d;0.0\n"


def test_a_weight_that_is_there_already_is_not_written_over(tmp_path: Path) -> None:
    dataset = formats.read(rows(tmp_path / "a.jsonl", {"prompt": "a", "completion": "b", "weight": 1}))
    with pytest.raises(DataError, match=r'^a\.jsonl line 1: has a field "weight" already'):
        handback.write_weights(dataset, [1.0], tmp_path / "weighted")
    assert not (tmp_path / "weighted.jsonl").exists()
    handback.write_weights(dataset, [0.5], tmp_path / "weighted", column="loss_weight")
    assert json.loads((tmp_path / "weighted.jsonl").read_text())["loss_weight"] == 0.5


# The documented names of LLaMA-Factory's dataset_info.json and of axolotl's `datasets:`.
LLAMAFACTORY_COLUMNS = {
    "prompt", "query", "response", "history", "messages", "system", "tools", "images", "videos", "audios", "chosen",
    "rejected", "kto_tag",
}  # fmt: skip
LLAMAFACTORY_TAGS = {
    "role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag",
}  # fmt: skip
AXOLOTL_KEYS = {
    "path", "type", "ds_type", "data_files", "field", "field_messages", "field_chosen", "field_rejected",
    "message_property_mappings", "roles",
}  # fmt: skip


def test_the_llamafactory_entry_names_roles_as_the_rows_do(tmp_path: Path) -> None:
    turns = [
        {"role": "human", "content": "Q?"},
        {"role": "function_call", "content": "{}"},
        {"role": "ipython", "content": "1"},
        {"role": "bot", "content": "A."},
    ]
    dataset = formats.read(rows(tmp_path / "a.jsonl", {"messages": turns}))
    kept = formats.write(dataset, [0], tmp_path / "kept")
    tags = json.loads(handback.llamafactory(dataset, kept, "mine"))["mine"]["tags"]
    assert tags == {
        "role_tag": "role", "content_tag": "content", "user_tag": "human", "assistant_tag": "bot",
        "observation_tag": "ipython", "system_tag": "system", "function_tag": "function_call",
    }  # fmt: skip


def test_roles_in_spellings_of_their_own_are_named_to_trainers(tmp_path: Path) -> None:
    turns = [{"role": "User", "content": "Q?"}, {"role": "Chatbot", "content": "A."}]
    dataset = formats.read(rows(tmp_path / "a.jsonl", {"messages": turns}))
    kept = formats.write(dataset, [0], tmp_path / "kept")
    tags = json.loads(handback.llamafactory(dataset, kept, "mine"))["mine"]["tags"]
    assert (tags["user_tag"], tags["assistant_tag"]) == ("User", "Chatbot")
    roles = yaml.safe_load(handback.axolotl(dataset, kept))["datasets"][0]["roles"]
    assert "User" in roles["user"] and "Chatbot" in roles["assistant"]


def test_the_line_for_trl_finds_a_folder_whose_name_looks_like_a_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "run [2]").mkdir()
    dataset = formats.read(rows(tmp_path / "a.jsonl", SHAPES["prompt-completion"]))
    there: dict[str, Any] = {}
    exec(handback.trl(dataset, formats.write(dataset, [0], tmp_path / "run [2]" / "kept")), there)  # noqa: S102
    assert there["train_dataset"]["completion"][:] == ["A."]


def test_the_same_hub_data_set_named_twice_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def open_hub(name: str, cache_dir: Any) -> tables.HubRows:
        asked.append(name)
        return tables.HubRows(name, [{"instruction": "Why?", "output": "So."}])

    monkeypatch.setattr(tables, "open_hub", open_hub)
    dataset = formats.read(config(tmp_path, *[{"path": "owner/rows", "type": "alpaca"}] * 2))
    assert asked == ["owner/rows", "owner/rows"]
    kept = formats.write(dataset, [0, 1], tmp_path / "kept")
    assert [path.name for path in sorted(kept.iterdir())] == ["0-owner--rows.jsonl", "1-owner--rows.jsonl"]


def test_files_of_several_kinds_are_named_one_by_one(tmp_path: Path) -> None:
    rows(tmp_path / "a.jsonl", {"prompt": "Q?", "completion": "A."})
    rows(tmp_path / "b.jsonl", SHAPES["sharegpt"])
    dataset = formats.read([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    kept = formats.write(dataset, [0, 1], tmp_path / "kept")
    texts = handback.snippets(dataset, kept)
    (tmp_path / "train.yaml").write_text(texts["axolotl"])
    assert meaning(formats.read(tmp_path / "train.yaml")) == meaning(dataset)
    (kept / "dataset_info.json").write_text(texts["LLaMA-Factory"])
    for i, name in enumerate(("a.jsonl", "b.jsonl")):
        alone = formats.read(f"{kept / 'dataset_info.json'}:kept-{name}")
        assert alone.rows[0].messages == dataset.rows[i].messages


def test_a_shape_that_a_trainer_does_not_read_is_said_to_be_one(tmp_path: Path) -> None:
    turn = {"role": "model", "parts": [{"text": "A."}]}
    pair = {"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []}
    segments = {"segments": [{"label": True, "text": "A."}]}
    for row, trainers in (
        ({"contents": [turn]}, ["LLaMA-Factory", "axolotl", "TRL"]),
        (pair, ["LLaMA-Factory", "axolotl", "TRL"]),
        (segments, ["LLaMA-Factory", "TRL"]),
    ):
        dataset = formats.read(rows(tmp_path / "a.jsonl", row))
        texts = handback.snippets(dataset, tmp_path / "a.jsonl")
        assert [
            trainer for trainer, text in texts.items() if "read" in text and text.startswith("#")
        ] == trainers


@pytest.mark.parametrize(
    ("name", "content", "trainers"),
    [
        ("a.csv", "prompt;completion\nWhy?;So.\n", ["LLaMA-Factory", "axolotl"]),
        ("a.tsv", "prompt\tcompletion\nWhy?\tSo.\n", ["LLaMA-Factory", "axolotl"]),
        ("a.json", '{"rows": [{"prompt": "Why?", "completion": "So."}]}', ["LLaMA-Factory", "axolotl"]),
        ("a.ndjson", '{"prompt": "Why?", "completion": "So."}\n', ["LLaMA-Factory"]),
        ("b.jsonl", '{"messages": "[{\\"role\\": \\"user\\", \\"content\\": \\"Why?\\"}]"}\n',
         ["LLaMA-Factory", "axolotl", "TRL"]),
        ("b.csv", ",prompt,completion\n1,Why?,So.\n", []),
    ],
)  # fmt: skip
def test_a_file_that_a_trainer_would_read_otherwise_is_said_to_be_one(
    tmp_path: Path, name: str, content: str, trainers: list[str]
) -> None:
    (tmp_path / name).write_text(content)
    texts = handback.snippets(formats.read(tmp_path / name), tmp_path / name)
    assert [trainer for trainer, text in texts.items() if text.startswith("#")] == trainers


def test_what_a_trainer_leaves_out_of_prompts_is_said(tmp_path: Path) -> None:
    dataset = formats.read(rows(tmp_path / "a.jsonl", SHAPES["alpaca"]))
    texts = handback.snippets(dataset, tmp_path / "a.jsonl")
    assert "# TRL leaves out history and system" in texts["TRL"]
    assert "# axolotl leaves out history" in texts["axolotl"]
    plain = formats.read(rows(tmp_path / "a.jsonl", {**SHAPES["alpaca"], "history": [], "system": ""}))
    assert not any("leaves out" in text for text in handback.snippets(plain, tmp_path / "a.jsonl").values())


def test_roles_and_keys_of_ones_own_are_handed_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    turns = [{"who": "Kunde", "says": "Q?"}, {"who": "Bot", "says": "A."}]
    rows(tmp_path / "a.jsonl", {"talk": turns})
    dataset = formats.read(
        entry(
            tmp_path, file_name="a.jsonl", formatting="sharegpt", columns={"messages": "talk"},
            tags={"role_tag": "who", "content_tag": "says", "user_tag": "Kunde", "assistant_tag": "Bot"},
        )
    )  # fmt: skip
    kept = formats.write(dataset, [0], tmp_path / "kept")
    (tmp_path / "dataset_info.json").write_text(handback.llamafactory(dataset, kept, "mine"))
    (tmp_path / "train.yaml").write_text(handback.axolotl(dataset, kept))
    for name in ("dataset_info.json", "train.yaml"):
        assert said(formats.read(tmp_path / name)) == [("user", "Q?"), ("assistant", "A.")]
    there: dict[str, Any] = {}
    exec(handback.trl(dataset, kept), there)  # noqa: S102
    assert there["train_dataset"]["messages"] == [
        [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]
    ]
