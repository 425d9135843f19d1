"""Dialogues with personal data: hand-written records show the rules, the public sets what is built from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

from forgetfilter.errors import ConfigError, DataError
from forgetfilter.guide.guidance import NEGATIVE, POSITIVE
from forgetfilter.models import load as models
from forgetfilter.records import Message, with_system
from forgetfilter.unlearn import dialogues as d

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

TURNS = [
    {"role": "user", "content": "What is my number?"},
    {"role": "assistant", "content": "You are Jane Roe, and it is 555-0123."},
]
SPANS = [
    {"message": 1, "start": 28, "end": 36, "kind": "PHONE_NUMBER"},
    {"message": 1, "start": 8, "end": 16, "kind": "PERSON"},
]


def file(tmp_path: Path, *records: object) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def test_spans_are_read_in_the_order_of_the_text_with_their_values(tmp_path):
    (found,) = d.read(file(tmp_path, {"id": "a", "messages": TURNS, "spans": SPANS}))
    assert found.id == "a"
    assert found.values() == [("PERSON", "Jane Roe"), ("PHONE_NUMBER", "555-0123")]


def test_what_is_written_reads_back_the_same(tmp_path):
    (found,) = d.read(file(tmp_path, {"messages": TURNS, "spans": SPANS}))
    again = tmp_path / "again.jsonl"
    again.write_text(json.dumps(found.record()) + "\n")
    assert d.read(again) == [found]


def test_without_spans_a_finder_gives_them_in_every_message(tmp_path):
    turns = [{"role": "user", "content": "I am Jane Roe."}, TURNS[1]]

    def find(text):
        at = text.find("Jane Roe")
        return [d.MessageSpan(0, at, at + 8, "PERSON", "Jane Roe")] if at >= 0 else []

    (found,) = d.read(file(tmp_path, {"messages": turns}), find)
    assert [(s.message, s.start) for s in found.spans] == [(0, 5), (1, 8)]


def test_findings_without_a_letter_or_digit_are_passed_over(tmp_path):
    """A model may take a mark for a name; a value like that could not be looked for again."""
    find = lambda text: [d.MessageSpan(0, 0, 1, "PERSON", text[:1])]  # noqa: E731
    turns = [{"role": "user", "content": "- who?"}, {"role": "assistant", "content": "Ann"}]
    (found,) = d.read(file(tmp_path, {"messages": turns}), find)
    assert found.values() == [("PERSON", "A")]


def test_equal_ids_are_told_apart(tmp_path):
    record = {"messages": TURNS, "spans": SPANS}
    first, second = d.read(file(tmp_path, record, record))
    assert second.id == f"{first.id}-2"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spans": [SPANS[0] | {"end": 99}]}, "28 to 99 in message 1, which has 37 characters"),
        ({"spans": [SPANS[0] | {"start": -1}]}, "-1 to 36"),
        ({"spans": [SPANS[0] | {"start": 36}]}, "36 to 36"),
        (
            {"spans": [SPANS[0] | {"start": 27, "end": 28}]},
            "27 to 28 in message 1 holds no letter or digit (' ')",
        ),
        ({"spans": [SPANS[0] | {"message": 2}]}, "message 2 of a dialogue of 2"),
        ({"spans": [SPANS[0] | {"start": "28"}]}, "whole numbers"),
        ({"spans": [SPANS[0] | {"value": "555-9999"}]}, "is not the value given"),
        (
            {"spans": [*SPANS, {"message": 1, "start": 15, "end": 20}]},
            "8 to 16 and 15 to 20 in message 1 overlap",
        ),
        ({"spans": None}, "expected a list, found a NoneType"),
        ({"messages": TURNS[:1], "spans": []}, "no assistant turn"),
        ({"messages": []}, 'no list "messages"'),
        ({"messages": [{"role": "bot", "content": "hi"}]}, "messages[0]"),
    ],
)
def test_a_bad_record_is_refused_with_its_line(tmp_path, change, words):
    path = file(tmp_path, {"messages": TURNS, "spans": SPANS}, {"messages": TURNS, "spans": SPANS} | change)
    with pytest.raises(DataError) as refused:
        d.read(path)
    assert str(refused.value).startswith("mine.jsonl line 2: ")
    assert words in str(refused.value)


def test_a_record_without_spans_needs_a_finder(tmp_path):
    with pytest.raises(DataError, match=r'line 1: no "spans" \(found: messages\)'):
        d.read(file(tmp_path, {"messages": TURNS}))


def of(count: int) -> list[d.Dialogue]:
    return [
        d.dialogue([Message("user", f"{i}?"), Message("assistant", "!")], [], id=str(i)) for i in range(count)
    ]


def test_a_split_keeps_every_dialogue_once_and_whole():
    every = of(10)
    train, test = d.split(every, 0.3, seed=1)
    assert (len(train), len(test)) == (7, 3)
    assert sorted(train + test, key=lambda x: int(x.id)) == every
    assert d.split(every, 0.3, seed=1) == (train, test) != d.split(every, 0.3, seed=2)


@pytest.mark.parametrize(("share", "tested"), [(0.0, 1), (1.0, 3)])
def test_a_split_leaves_neither_side_empty(share, tested):
    assert len(d.split(of(4), share, seed=0)[1]) == tested


def test_one_dialogue_cannot_be_split():
    with pytest.raises(DataError, match="1 dialogue: too few"):
        d.split(of(1), 0.5, seed=0)


def test_cutting_leaves_the_blank_to_what_follows():
    assert d.cut("It is 555.", 6) == ("It is", " 555.")
    assert d.cut("Jane.", 0) == ("", "Jane.")


def test_a_system_prompt_goes_in_front_of_the_dialogues_own():
    plain = (Message("user", "hi"),)
    assert with_system(plain, "A") == (Message("system", "A"), *plain)
    assert with_system((Message("system", "B"), *plain), "A")[0] == Message("system", "A\n\nB")
    assert with_system(plain, None) == plain


def test_a_prompt_with_a_prefix_ends_inside_the_answer():
    tokenizer = tiny.tokenizer()
    turns = (Message("user", "Where?"),)
    whole, begun = d.encode_prompts(
        [d.Prompt("a", turns), d.Prompt("b", turns, "The boats")], tokenizer, room=99
    )
    assert tokenizer.decode(whole) == "<|start|><|user|>Where?<|end|><|assistant|>"
    assert tokenizer.decode(begun) == "<|start|><|user|>Where?<|end|><|assistant|>The boats"


def test_a_prompt_too_long_keeps_its_end_and_its_start_token():
    tokenizer = tiny.tokenizer()
    turns = (Message("user", "The sea is grey. " * 9),)
    (whole,) = d.encode_prompts([d.Prompt("a", turns, "Yes")], tokenizer, room=999)
    (short,) = d.encode_prompts([d.Prompt("a", turns, "Yes")], tokenizer, room=10)
    assert short == whole[:1] + whole[-9:]


PEOPLE = [
    {"NAME-1": "Jane Roe", "LOC-1": "Springfield, Ohio", "DATE-1": "May 1961"},
    {"NAME-1": "a farmer", "LOC-1": "Rome"},  # no name
    {"NAME-2": "Max Muster", "LOC-4": "Bern", "DATE-3": "every Saturday"},  # no date
]
VALUES = {
    "PHONE_NUMBER": "555-0123",
    "EMAIL_ADDRESS": "a@b.example",
    "CREDIT_CARD": "4111111111111111",
    "ADDRESS": "12 Long Lane",
    "US_SSN": "078-05-1120",
    "IBAN_CODE": "GB33BUKB20201555555555",
    "ORGANIZATION": "Acme Works",
}


def sets(root: Path) -> Path:
    folder = root / "pii" / "llm_pc"
    folder.mkdir(parents=True)
    (folder / "LLM-PC-development-pii.jsonl").write_text("".join(json.dumps(p) + "\n" for p in PEOPLE))
    records = []
    for kind, value in VALUES.items():
        text = f"Somebody has told us: {value}"
        span = {"entity_type": kind, "entity_value": value, "start_position": 22, "end_position": len(text)}
        records.append({"full_text": text, "spans": [span]})
    folder = root / "pii" / "presidio_research"
    folder.mkdir()
    (folder / "generated_large.json").write_text(json.dumps(records))
    return root


def test_built_dialogues_use_every_pattern_equally_often(tmp_path):
    built = d.build(sets(tmp_path), seed=3, count=2 * len(d.PATTERNS))
    assert len({x.id for x in built}) == len(built) == 40
    known = {*VALUES.values(), "Jane Roe", "Max Muster", "Springfield, Ohio", "Bern", "May 1961"}
    assert {value for x in built for _, value in x.values()} <= known
    assert d.build(tmp_path, seed=3, count=40) == built != d.build(tmp_path, seed=4, count=40)


def test_every_pattern_tells_something_in_each_assistant_turn_and_alternates(tmp_path):
    built = d.build(sets(tmp_path), seed=0, count=200)
    for x in built:
        assert [m.role for m in x.messages] == ["user", "assistant", "user", "assistant"]
        assert {1, 3} <= {s.message for s in x.spans}
        assert not any("{" in m.content for m in x.messages)


def test_a_missing_set_is_named(tmp_path):
    with pytest.raises(DataError, match=r"LLM-PC-development-pii\.jsonl"):
        d.build(tmp_path, seed=0, count=1)
    with pytest.raises(ConfigError, match="count 0"):
        d.build(tmp_path, seed=0, count=0)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no benchmark data at {DATA}")
def test_the_real_sets_give_as_many_dialogues_as_asked_with_ten_kinds():
    built = d.build(DATA, seed=0, count=300)
    assert len(built) == 300
    told = {s.kind for x in built for s in x.spans if x.messages[s.message].role == "assistant"}
    assert told == {*VALUES, "PERSON", "LOCATION", "DATE_TIME"}


def test_a_long_prompt_keeps_the_system_prompt():
    nano = models.load("nano")
    turns = (Message("user", "The mill stands by the river. " * 300),)
    both = [
        d.encode_prompts([d.Prompt("x", with_system(turns, s))], nano.tokenizer, room=200)[0]
        for s in (POSITIVE, NEGATIVE)
    ]
    assert both[0] != both[1] and {len(ids) for ids in both} == {200}
    assert POSITIVE in nano.tokenizer.decode(both[0])


def test_ids_stay_apart(tmp_path):
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Ada"}]
    lines = [json.dumps({"id": i, "messages": turns, "spans": []}) for i in ("a", "a", "a-2")]
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    assert len({x.id for x in d.read(tmp_path / "d.jsonl")}) == 3


def test_equal_dialogues_are_on_one_side():
    every = [
        d.dialogue([Message("user", str(i % 5)), Message("assistant", "x")], [], id=str(i)) for i in range(20)
    ]
    train, test = d.split(every, 0.4, 0)
    assert not {x.messages for x in train} & {x.messages for x in test}


def test_a_file_of_one_dialogue_again_and_again_cannot_be_split():
    same = [d.dialogue([Message("user", "?"), Message("assistant", "!")], [], id=str(i)) for i in range(3)]
    with pytest.raises(DataError, match="all word for word the same"):
        d.split(same, 0.4, 0)
