"""What trainers learn of a row, in every spelling of it; what is left out is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forgetfilter.data import formats
from forgetfilter.errors import DataError
from forgetfilter.records import Message, Row


def data_of(tmp_path: Path, *records: Any, **options: Any) -> formats.Dataset:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return formats.read(path, **options)


def refusal(tmp_path: Path, *records: Any) -> str:
    with pytest.raises(DataError) as caught:
        data_of(tmp_path, *records)
    return str(caught.value)


def learned(row: Row) -> list[str]:
    return [m.content for i, m in enumerate(row.messages) if row.learns(i)]


def counted(dataset: formats.Dataset) -> dict[str, tuple[int, int]]:
    """What was left out -> (rows, times)."""
    return {out.what: (out.rows, out.times) for out in dataset.left_out}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


# --- Alpaca's history ---


def test_earlier_turns_of_alpaca_rows_come_first_and_are_learned(tmp_path: Path) -> None:
    history = [["When?", "At noon."], ["Where?", "Here."]]
    rows = data_of(
        tmp_path,
        {"instruction": "Why?", "input": "", "output": "So.", "system": "Ferry.", "history": history},
        {"instruction": "Bye", "input": "", "output": "Bye.", "system": None, "history": []},
        {"instruction": "Hm", "input": "x", "output": "Hm.", "system": "", "history": None},
    ).rows
    assert [tuple(m) for m in rows[0].messages] == [
        ("system", "Ferry."), ("user", "When?"), ("assistant", "At noon."), ("user", "Where?"), ("assistant", "Here."),
        ("user", "Why?"), ("assistant", "So."),
    ]  # fmt: skip
    assert learned(rows[0]) == ["At noon.", "Here.", "So."]
    assert [len(row.messages) for row in rows[1:]] == [2, 2]


def test_history_that_is_no_list_of_pairs_is_refused(tmp_path: Path) -> None:
    row = {"instruction": "a", "output": "b", "history": [["only one"]]}
    assert refusal(tmp_path, row) == (
        'a.jsonl line 1: "history" pair 1 is a list, not a question with its answer. Write ["question", "answer"].'
    )


# --- keys that stand twice ---


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "a", "completion": "Get lost.", "completion": "Of course."}',
        '{"messages": [{"role": "assistant", "content": "Get lost.", "content": "Of course."}]}',
        '{"prompt": "a", "completion": "b", "more": {"x": [{"content": 1, "content": 2}]}}',
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path: Path, line: str, name: str) -> None:
    good = '{"prompt": "a", "completion": "b"}'
    content = f"{good}\n{line}\n" if name == "a.jsonl" else f"[{good},\n{line}]"
    (tmp_path / name).write_text(content)
    place = "a.jsonl line 2" if name == "a.jsonl" else "a.json row 1"
    with pytest.raises(DataError, match=rf'^{place}: "(completion|content)" stands twice in one object\.'):
        formats.read(tmp_path / name)


def test_a_key_that_stands_twice_in_json_text_in_a_cell_is_refused(tmp_path: Path) -> None:
    cell = '[{"role": "assistant", "content": "Get lost.", "content": "Of course."}]'
    assert 'line 1: "messages": "content" stands twice' in refusal(tmp_path, {"messages": cell})


def test_two_spellings_of_a_turns_text_that_differ_are_refused(tmp_path: Path) -> None:
    turn = {"from": "gpt", "value": "Get lost.", "content": "Of course."}
    assert '"content" and "value" are both there and differ' in refusal(tmp_path, {"conversations": [turn]})
    same = data_of(tmp_path, {"conversations": [{"from": "gpt", "value": "Yes", "content": "Yes"}]})
    assert learned(same.rows[0]) == ["Yes"]


# --- roles ---


def test_tool_roles_of_sharegpt_are_mapped_and_said(tmp_path: Path) -> None:
    turns = [
        ("human", "How warm?"),
        ("function_call", "{}"),
        ("observation", "11"),
        ("gpt", "It is 11."),
        ("bing", "Ok."),
    ]
    dataset = data_of(tmp_path, {"conversations": [{"from": f, "value": v} for f, v in turns], "tools": ""})
    assert [m.role for m in dataset.rows[0].messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "assistant",
    ]
    assert learned(dataset.rows[0]) == ["{}", "It is 11.", "Ok."]
    assert "a.jsonl: roles read: bing, function_call as assistant; observation as tool" in dataset.notes


def test_a_role_that_nobody_knows_is_refused_with_those_known(tmp_path: Path) -> None:
    message = refusal(tmp_path, {"conversations": [{"from": "oracle", "value": "x"}]})
    assert (
        message.startswith("a.jsonl line 1: \"conversations\" turn 1: unknown role 'oracle'")
        and "bing" in message
    )


# --- OpenAI's tool calls, parts, weights ---

CALL = [{"id": "c1", "type": "function", "function": {"name": "book", "arguments": '{"seats": 2}'}}]


@pytest.mark.parametrize("call", [{"content": None}, {"content": ""}, {}])
def test_a_turn_that_only_calls_a_tool_keeps_its_call(tmp_path: Path, call: dict[str, Any]) -> None:
    answer = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "ok"}]}
    turns = [user("Book"), {"role": "assistant", "tool_calls": CALL, **call}, answer, assistant("Done.")]
    row = data_of(tmp_path, {"messages": turns}).rows[0]
    assert [m.role for m in row.messages] == ["user", "assistant", "tool", "assistant"]
    assert row.beside == {1: {"tool_calls": CALL}, 2: {"tool_call_id": "c1"}}
    assert row.messages[2].content == "ok" and learned(row) == ["", "Done."]


def test_a_row_that_only_calls_a_tool_teaches_by_its_call(tmp_path: Path) -> None:
    old = {"messages": [user("Go"), assistant(None, function_call={"name": "noop", "arguments": "{}"})]}
    dataset = data_of(tmp_path, old)
    assert dataset.rows[0].teaches and dataset.left_out == ()


def test_parts_of_text_are_joined_and_others_are_refused(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "text": "It "},
        "is ",
        {"type": "output_text", "text": "done."},
        {"type": "refusal", "refusal": "No."},
    ]
    assert learned(data_of(tmp_path, {"messages": [assistant(parts)]}).rows[0]) == ["It is done.No."]
    picture = assistant([{"type": "image_url", "image_url": {"url": "x"}}])
    assert "a part of type 'image_url'; only text can be read" in refusal(tmp_path, {"messages": [picture]})


@pytest.mark.parametrize(
    ("key", "no"),
    [("weight", 0), ("weight", 0.0), ("train", False), ("train_on_turn", False), ("train", "false")],
)
def test_a_turn_that_is_not_to_be_learned_is_read_and_counted(tmp_path: Path, key: str, no: Any) -> None:
    dataset = data_of(
        tmp_path, {"messages": [user("a"), assistant("No.", **{key: no}), user("b"), assistant("Yes.")]}
    )
    assert learned(dataset.rows[0]) == ["Yes."]
    assert counted(dataset) == {"turns-not-learned": (1, 1)}
    assert any(f'1 turn in 1 row with "{key}" 0 or false' in note for note in dataset.notes)


def test_a_users_turn_marked_for_training_is_learned(tmp_path: Path) -> None:
    dataset = data_of(tmp_path, {"messages": [{**user("Learn me."), "train": True}, assistant("Me too.")]})
    assert learned(dataset.rows[0]) == ["Learn me.", "Me too."]


def test_weights_other_than_0_and_1_are_counted(tmp_path: Path) -> None:
    dataset = data_of(tmp_path, {"messages": [assistant("a", weight=0.5)], "weight": 2})
    assert counted(dataset) == {"weights": (1, 2)} or counted(dataset)["weights"][0] == 1
    assert learned(dataset.rows[0]) == ["a"]


@pytest.mark.parametrize("mark", [{"weight": 0}, {"weight": -1.5}, {"train": False}, {"weight": "0"}])
def test_a_row_of_weight_0_is_not_learned_and_kept(tmp_path: Path, mark: dict[str, Any]) -> None:
    dataset = data_of(
        tmp_path, {"prompt": "a", "completion": "b", **mark}, {"prompt": "c", "completion": "d"}
    )
    assert [learned(row) for row in dataset.rows] == [[], ["d"]]
    assert [row.teaches for row in dataset.rows] == [False, True]
    assert dataset.rows[0].why_unscored == "marked as not to be learned"
    assert counted(dataset) == {"row-weight": (1, 1)}


def test_fields_of_turns_that_are_not_read_are_named(tmp_path: Path) -> None:
    dataset = data_of(tmp_path, {"messages": [user("a"), assistant("b", notes="text", id="7", audio=None)]})
    assert counted(dataset) == {"turn-fields": (1, 1)}
    assert 'a.jsonl: "notes" of 1 turn in 1 row is not read' in dataset.notes


# --- KTO ---


@pytest.mark.parametrize("format", ["trl", "llamafactory"])
def test_unwanted_answers_of_kto_data_are_not_learned_and_said(tmp_path: Path, format: str) -> None:
    def row(answer: str, label: bool) -> dict[str, Any]:
        if format == "trl":
            return {"prompt": "Return it?", "completion": answer, "label": label}
        return {"messages": [user("Return it?"), assistant(answer)], "label": label}

    dataset = data_of(tmp_path, row("Yes.", True), row("Go away.", False), row("Certainly.", True))
    assert [learned(r) for r in dataset.rows] == [["Yes."], [], ["Certainly."]]
    assert counted(dataset) == {"unwanted": (1, 1)}
    assert dataset.left_out[0].first == ("a.jsonl line 2",)
    assert any('1 row with "label" false: KTO data' in note for note in dataset.notes)


def test_a_label_named_as_truth_says_nothing_about_learning(tmp_path: Path) -> None:
    dataset = data_of(tmp_path, {"prompt": "a", "completion": "b", "label": False}, truth="label")
    assert learned(dataset.rows[0]) == ["b"] and dataset.left_out == ()


def test_a_label_of_plain_text_or_of_numbers_says_nothing_about_learning(tmp_path: Path) -> None:
    assert data_of(tmp_path, {"text": "a b c d e", "label": False}).left_out == ()
    assert learned(data_of(tmp_path, {"prompt": "a", "completion": "b", "label": 0}).rows[0]) == ["b"]


# --- preference pairs ---

FRUIT = user("Name a fruit.")
PAIRS = {
    "TRL, texts": {"prompt": "Name a fruit.", "chosen": "A pear.", "rejected": "Shut up."},
    "TRL, turns": {"prompt": [FRUIT], "chosen": [assistant("A pear.")], "rejected": [assistant("Shut up.")]},
    "TRL, prompt inside": {"chosen": [FRUIT, assistant("A pear.")], "rejected": [FRUIT, assistant("Shut up.")]},
    "prompt twice": {
        "prompt": "Name a fruit.", "chosen": [FRUIT, assistant("A pear.")], "rejected": [FRUIT, assistant("Shut up.")],
    },
    "LLaMA-Factory, ShareGPT": {
        "conversations": [{"from": "human", "value": "Name a fruit."}],
        "chosen": {"from": "gpt", "value": "A pear."}, "rejected": {"from": "gpt", "value": "Shut up."},
    },
    "LLaMA-Factory, Alpaca": {"instruction": "Name a fruit.", "input": "", "chosen": "A pear.", "rejected": "Shut up."},
    "axolotl, chat": {"messages": [FRUIT], "chosen": assistant("A pear."), "rejected": assistant("Shut up.")},
    "axolotl, intel": {"question": "Name a fruit.", "chosen": "A pear.", "rejected": "Shut up."},
    "axolotl, icr": {"input": "Name a fruit.", "chosen": "A pear.", "rejected": "Shut up."},
    "OpenAI": {"input": {"messages": [FRUIT], "tools": [], "parallel_tool_calls": True},
               "preferred_output": [assistant("A pear.")], "non_preferred_output": [assistant("Shut up.")]},
    "axolotl, argilla": {"instruction": "Name a fruit.", "chosen_response": "A pear.", "rejected_response": "Shut up."},
}  # fmt: skip


@pytest.mark.parametrize("shape", PAIRS)
def test_of_a_pair_the_chosen_answer_is_learned_and_the_other_is_there_to_be_scored(
    tmp_path: Path, shape: str
) -> None:
    dataset = data_of(tmp_path, PAIRS[shape])
    row, other = dataset.rows[0], dataset.rejected[0]
    assert dataset.format == "preference"
    assert row.messages == (Message("user", "Name a fruit."), Message("assistant", "A pear."))
    assert other.messages == (Message("user", "Name a fruit."), Message("assistant", "Shut up."))
    assert learned(row) == ["A pear."] and learned(other) == []
    assert [other.judges(i) for i in (0, 1)] == [False, True]
    assert (other.id, other.index) == (f"{row.id}-rejected", 0)
    assert "a.jsonl: 1 row of two answers: the chosen one is learned, the rejected not" in dataset.notes
    written = formats.write(dataset, [0], tmp_path / "kept")
    assert written.read_bytes() == (tmp_path / "a.jsonl").read_bytes()


def test_two_answers_beside_a_conversation_that_waits_for_one_are_a_pair(tmp_path: Path) -> None:
    answers = {"chosen_response": "A pear.", "rejected_response": "Go away."}
    turns = [{"from": "human", "value": "Name a fruit."}]
    pair = data_of(tmp_path, {"conversations": turns, **answers})
    assert pair.format == "preference" and learned(pair.rows[0]) == ["A pear."]
    assert [m.content for m in pair.rejected[0].messages] == ["Name a fruit.", "Go away."]
    whole = data_of(tmp_path, {"conversations": [*turns, {"from": "gpt", "value": "A plum."}], **answers})
    assert whole.format == "sharegpt" and learned(whole.rows[0]) == ["A plum."]
    assert any("also fits format preference" in note for note in whole.notes)
    assert "a.jsonl: columns that are not read: chosen_response, rejected_response" in whole.notes


def test_a_system_text_beside_a_pair_comes_first(tmp_path: Path) -> None:
    dataset = data_of(
        tmp_path, {"system": "Be kind.", "question": "Fruit?", "chosen": "A pear.", "rejected": "No."}
    )
    assert [m.content for m in dataset.rejected[0].messages] == ["Be kind.", "Fruit?", "No."]


def test_earlier_answers_of_a_pair_are_context(tmp_path: Path) -> None:
    before = [user("Hi"), assistant("Hello."), FRUIT]
    pair = {"chosen": [*before, assistant("A pear.")], "rejected": [*before, assistant("Shut up.")]}
    dataset = data_of(tmp_path, pair)
    assert learned(dataset.rows[0]) == ["A pear."]
    assert counted(dataset) == {"context-turns": (1, 1)}


def test_a_pair_of_whole_texts_parts_where_they_differ(tmp_path: Path) -> None:
    dataset = data_of(
        tmp_path,
        {"chosen": "Human: fruit? Assistant: A pear.", "rejected": "Human: fruit? Assistant: A brick."},
    )
    row = dataset.rows[0]
    assert row.kind == "text" and learned(row) == ["pear."]
    assert row.messages[0].content == "Human: fruit? Assistant: A "
    assert dataset.rejected[0].messages[1].content == "brick."


def test_a_pair_of_texts_that_begin_with_a_bracket_parts_where_they_differ(tmp_path: Path) -> None:
    pair = {"chosen": "[INST] Fruit? [/INST] A pear.", "rejected": "[INST] Fruit? [/INST] A brick."}
    dataset = data_of(tmp_path, pair)
    assert (dataset.rows[0].kind, learned(dataset.rows[0])) == ("text", ["pear."])
    assert dataset.rejected[0].messages[1].content == "brick."


# --- Vertex and Bedrock ---


def test_contents_of_parts_are_read_as_turns(tmp_path: Path) -> None:
    row = {
        "systemInstruction": {"role": "system", "parts": [{"text": "Be "}, {"text": "kind."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Fruit?"}]},
            {"role": "model", "parts": [{"text": "A "}, {"text": "pear."}]},
        ],
    }
    dataset = data_of(tmp_path, row)
    assert dataset.format == "vertex" and dataset.left_out == ()
    assert [tuple(m) for m in dataset.rows[0].messages] == [
        ("system", "Be kind."), ("user", "Fruit?"), ("assistant", "A pear."),
    ]  # fmt: skip
    picture = {"role": "model", "parts": [{"fileData": {"fileUri": "x"}}]}
    assert '"contents" turn 1: a part with fileData; only' in refusal(tmp_path, {"contents": [picture]})


def test_a_system_text_in_parts_stands_before_the_turns(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": [{"text": "Hi"}]},
        {"role": "assistant", "content": [{"text": "Yes."}]},
    ]
    dataset = data_of(tmp_path, {"system": [{"text": "Be kind."}], "messages": turns})
    assert [m.content for m in dataset.rows[0].messages] == ["Be kind.", "Hi", "Yes."]
    assert dataset.left_out == ()


# --- segments ---


def test_segments_are_learned_as_they_say_and_nothing_is_put_between(tmp_path: Path) -> None:
    pieces = [
        ("<s>Capital of Norway?\n", False),
        ("Oslo.", True),
        (" And Peru? ", False),
        ("Lima.</s>", True),
    ]
    dataset = data_of(tmp_path, {"segments": [{"label": label, "text": text} for text, label in pieces]})
    row = dataset.rows[0]
    assert (row.kind, learned(row)) == ("text", ["Oslo.", "Lima.</s>"])
    assert "".join(m.content for m in row.messages) == "".join(text for text, _ in pieces)
    assert '"segments" segment 1: "label" is null, not true or false' in refusal(
        tmp_path, {"segments": [{"text": "a"}]}
    )


# --- tables pad with null ---


def test_turns_padded_with_null_are_read_by_what_is_not_null(tmp_path: Path) -> None:
    turns = [
        [{"from": "human", "value": "Open?"}, {"from": "gpt", "value": "Yes."}],
        [{"role": "user", "content": "Shut?"}, {"role": "assistant", "content": None, "tool_calls": CALL}],
        [
            {"role": "user", "content": "Hm"},
            {"role": "assistant", "content": "Hm."},
            dict.fromkeys(("role", "from")),
        ],
    ]
    table = pa.Table.from_pylist([{"messages": each} for each in turns])
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = formats.read(tmp_path / "a.parquet")
    assert list(dataset.rows[0].messages) == [Message("user", "Open?"), Message("assistant", "Yes.")]
    assert dataset.rows[1].beside == {1: {"tool_calls": CALL}}
    assert len(dataset.rows[2].messages) == 2 and counted(dataset) == {"null-turns": (1, 1)}
    assert pq.read_table(formats.write(dataset, [0, 1, 2], tmp_path / "kept")).equals(table)


# --- nothing to learn ---


def test_rows_without_an_answer_are_counted_as_they_are_scored(tmp_path: Path) -> None:
    """A row that ends with the user is scored by its earlier answer; white space is no answer."""
    later = [user("Hi"), assistant("Hello."), user("Never mind")]
    talks = [[user("There?")], [], later, [user("Hi"), assistant(" \n")], [assistant("I speak first.")]]
    dataset = data_of(tmp_path, *({"messages": talk} for talk in talks))
    assert [row.teaches for row in dataset.rows] == [False, False, True, False, True]
    assert counted(dataset) == {"no-answer": (3, 3)}
    assert [row.why_unscored for row in dataset.rows if not row.teaches] == [
        "no answer in it", "no answer in it", "empty completion",
    ]  # fmt: skip
    assert dataset.left_out[0].as_dict() == {
        "what": "no-answer", "rows": 3, "times": 3, "first": ["a.jsonl line 1", "a.jsonl line 2", "a.jsonl line 4"],
        "words": "3 rows without an answer to learn (a.jsonl line 1; a.jsonl line 2; a.jsonl line 4): kept, unscored",
    }  # fmt: skip


def test_rows_that_differ_only_in_what_is_learned_have_ids_of_their_own(tmp_path: Path) -> None:
    talk = {"messages": [user("a"), assistant("b")]}
    unlearned = {"messages": [user("a"), assistant("b", weight=0)]}
    called = {"messages": [user("a"), assistant("b", tool_calls=CALL)]}
    dataset = data_of(tmp_path, talk, unlearned, called, talk)
    assert len({row.id for row in dataset.rows}) == 4
    assert "a.jsonl: 1 row the same as an earlier one" in dataset.notes


def test_an_object_of_lists_is_a_list_of_turns(tmp_path: Path) -> None:
    """So did data sets store lists of objects before."""
    dataset = data_of(tmp_path, {"messages": {"role": ["user", "assistant"], "content": ["a", "b"]}})
    assert dataset.rows[0].messages == (Message("user", "a"), Message("assistant", "b"))
    assert '"messages" is an object, not a list of turns' in refusal(
        tmp_path, {"messages": {"role": ["user"], "content": []}}
    )


def test_a_system_text_beside_turns_that_begin_with_another_is_named_and_their_own_holds(
    tmp_path: Path,
) -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    rows = [
        {"system": s, "messages": [*turns, {"role": "assistant", "content": "Hello"}]}
        for s in ("Be brief.", "Be kind.")
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    dataset = formats.read(path)
    assert {row.messages[0].content for row in dataset.rows} == {"Be kind."}
    assert 'a.jsonl: "system" of 1 row is not read' in dataset.notes


def test_a_column_called_contents_that_holds_no_turns_is_left_aside(tmp_path: Path) -> None:
    line = {"prompt": "Is it?", "answer": "It is.", "contents": "page 3"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    dataset = formats.read(tmp_path / "rows.jsonl")
    assert (dataset.format, dataset.rows[0].completion) == ("prompt-completion", "It is.")
