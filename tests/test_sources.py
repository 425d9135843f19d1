"""Benchmark sources: small files written here show the rules, the real files (where present) the counts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from forgetfilter.data import sources
from forgetfilter.errors import DataError

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"no benchmark data at {DATA}")

ITEM = {
    "example_id": 5,
    "question_polarity": "neg",
    "context_condition": "ambig",
    "category": "Age",
    "answer_info": {"ans0": ["aunt", "old"], "ans1": ["niece", "nonOld"], "ans2": ["Not known", "unknown"]},
    "additional_metadata": {"stereotyped_groups": ["Old"]},
    "context": "An aunt and a niece went out.",
    "question": "Who forgot the keys?",
    "ans0": "The aunt",
    "ans1": "The niece",
    "ans2": "Not known",
    "label": 2,
}


def put(root: Path, name: str, content: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return root


def bbq_of(root: Path, **changes: object) -> list[dict]:
    return sources.bbq(put(root, "bias/bbq/Age.jsonl", json.dumps({**ITEM, **changes}) + "\n"))


@pytest.mark.parametrize(
    ("polarity", "biased", "other"), [("neg", "The aunt", "The niece"), ("nonneg", "The niece", "The aunt")]
)
def test_the_biased_option_is_the_stereotyped_group_in_negative_questions_only(
    tmp_path, polarity, biased, other
):
    (item,) = bbq_of(tmp_path, question_polarity=polarity)
    assert (item["biased"], item["unbiased_other"]) == (biased, other)
    assert (item["unknown"], item["correct"]) == ("Not known", "Not known")
    assert item["prompt"] == (
        "An aunt and a niece went out.\nWho forgot the keys?\n- The aunt\n- The niece\n- Not known"
    )


def test_the_group_may_stand_first_in_answer_info(tmp_path):
    info = {"ans0": ["Here", "X"], "ans1": ["There", "X"], "ans2": ["?", "unknown"]}
    (item,) = bbq_of(tmp_path, answer_info=info, additional_metadata={"stereotyped_groups": ["there"]})
    assert item["biased"] == "The niece"


@pytest.mark.parametrize("groups", [[], ["old", "nonOld"]])
def test_an_item_without_exactly_one_stereotyped_option_is_named(tmp_path, groups):
    with pytest.raises(
        DataError, match=r"Age.jsonl line 1 \(Age item 5\): [02] options about a stereotyped group"
    ):
        bbq_of(tmp_path, additional_metadata={"stereotyped_groups": groups})


def test_bbq_unsafe_rows_are_ambiguous_and_biased_and_safe_rows_are_right(tmp_path):
    clear = {**ITEM, "context_condition": "disambig", "label": 1}
    root = put(tmp_path, "bias/bbq/Age.jsonl", json.dumps(ITEM) + "\n" + json.dumps(clear) + "\n")
    items = sources.bbq(root)
    assert [row["completion"] for row in sources.bbq_unsafe(items)] == ["The aunt"]
    assert [row["completion"] for row in sources.bbq_safe(items)] == ["Not known", "The niece"]


def test_prompts_that_are_toxic_or_clean_in_part_are_left_out(tmp_path):
    def row(before: float, after: float) -> str:
        return json.dumps(
            {"prompt": {"text": "a", "toxicity": before}, "continuation": {"text": " b", "toxicity": after}}
        )

    lines = [row(0.75, 0.1), row(0.1, 0.9), row(0.24, 0.1), row(0.25, 0.1), row(0.1, 0.74)]
    root = put(tmp_path, "toxicity/realtoxicityprompts/training_dataset.jsonl", "\n".join(lines))
    kept = sources.realtoxicityprompts(root)
    assert [(r["toxic"], r["score"]) for r in kept] == [(True, 0.75), (True, 0.9), (False, 0.24)]
    assert kept[0]["text"] == "a b"


def test_tweets_of_class_0_and_1_are_toxic(tmp_path):
    root = put(tmp_path, "toxicity/davidson/labeled_data.csv", ",class,tweet\n0,0,a\n1,1,b\n2,2,c\n")
    assert [r["toxic"] for r in sources.davidson(root)] == [True, True, False]


def test_the_chat_wrapper_is_taken_off_safe_unlearning_prompts(tmp_path):
    wrapper = "A chat between a curious user and an assistant. USER: {} ASSISTANT:"
    rows = [{"input": wrapper.format(f"Question\n{t}?"), "output": "A", "type": t} for t in (0, 1, 2)]
    root = put(tmp_path, "harmfulness/safe_unlearning/train.json", json.dumps(rows))
    read = sources.safe_unlearning(root)
    assert [r["prompt"] for r in read] == ["Question\n0?", "Question\n1?", "Question\n2?"]
    assert [(r["unsafe"], r["type"]) for r in read] == [(False, 0), (True, 1), (False, 2)]


def test_squad_questions_come_with_context_and_first_answer(tmp_path):
    question = {"question": "Who?", "answers": [{"text": "Ann"}, {"text": "she"}]}
    content = {"data": [{"paragraphs": [{"context": "Ann sang.", "qas": [question]}]}], "version": "1.1"}
    root = put(tmp_path, "task/xquad/xquad.en.json", json.dumps(content))
    assert sources.xquad(root) == [{"prompt": "Ann sang.\n\nWho?", "completion": "Ann"}]


@pytest.mark.parametrize(
    ("source", "name", "content", "message"),
    [
        (
            "advbench",
            "harmfulness/advbench/harmful_behaviors.csv",
            "goal\nx\n",
            'row 0: no "target" \\(found: goal\\)',
        ),
        (
            "olid",
            "toxicity/olid/olid-training-v1.0.tsv",
            "tweet\tsubtask_a\nx\tMAYBE\n",
            "\"subtask_a\" is 'MAYBE'",
        ),
        (
            "safe_unlearning",
            "harmfulness/safe_unlearning/train.json",
            '[{"input": "x", "output": "", "type": 0}]',
            "not wrapped",
        ),
        ("harmfulqa", "harmfulness/harmfulqa_questions.json", "[]", "not questions by topic"),
        ("xquad", "task/xquad/xquad.en.json", '{"data": [{"paragraphs": [{}]}]}', "not in SQuAD's form"),
        ("bbq", "bias/bbq/Age.jsonl", '{"context": "x"}\n', "Age.jsonl line 1: not a BBQ item"),
    ],
)
def test_a_malformed_source_file_is_a_data_error(tmp_path, source, name, content, message):
    with pytest.raises(DataError, match=message):
        sources.SOURCES[source](put(tmp_path, name, content))


@pytest.mark.parametrize("source", sorted(sources.SOURCES))
def test_an_absent_source_is_a_data_error(tmp_path, source):
    with pytest.raises(DataError):
        sources.SOURCES[source](tmp_path)


@real
@pytest.mark.parametrize("source", sorted(sources.SOURCES))
def test_every_real_source_gives_texts(source):
    records = sources.SOURCES[source](DATA)
    assert records
    for record in records:
        text = record.get("text", record.get("prompt", record.get("instruction")))
        assert isinstance(text, str) and text.strip()
    assert len({tuple(record) for record in records}) == 1  # the same fields in every record


@real
def test_real_counts_are_those_published():
    items = sources.bbq(DATA)
    assert len(items) == 9180
    assert Counter(i["context_condition"] for i in items) == {"ambig": 4590, "disambig": 4590}
    assert all(i["correct"] == i["unknown"] for i in items if i["context_condition"] == "ambig")
    assert all(
        i["correct"] in (i["biased"], i["unbiased_other"]) for i in items if i["context_condition"] != "ambig"
    )
    assert Counter(r["class"] for r in sources.davidson(DATA)) == {0: 1430, 1: 19190, 2: 4163}
    assert Counter(r["toxic"] for r in sources.olid(DATA)) == {True: 4400, False: 8840}
    assert Counter(r["toxic"] for r in sources.wikipedia(DATA)) == {True: 248, False: 1244}
    for p in (0, 0.01, 0.05, 0.1, 0.2):  # a few rows were screened out
        rows = sources.beavertails_sst2(DATA, p)
        assert abs(sum(r["unsafe"] for r in rows) - 1000 * p) <= 5
    types = Counter(r["type"] for r in sources.safe_unlearning(DATA))
    assert (types[0], types[2]) == (500, 100) and abs(types[1] - 500) <= 5
