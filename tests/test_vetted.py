"""Verdict files: what is read, what is refused, and in which words."""

import json

import pytest

from forgetfilter.errors import DataError
from forgetfilter.filter import vetted
from forgetfilter.records import Message, Row, row_id


def row(i, text, source="custom.jsonl", **record):
    messages = (Message("user", f"question {text}"), Message("assistant", f"answer {text}"))
    return Row(row_id(source, messages), i, source, messages, "chat", record)


ROWS = [row(i, f"number {i}") for i in range(20)]


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def plain(n=12, unsafe=3):
    return [{"row": i, "verdict": "unsafe" if i < unsafe else "clean"} for i in range(n)]


def test_row_and_verdict_are_enough_and_count_as_random(tmp_path):
    found = vetted.read(write(tmp_path / "v.jsonl", plain()), ROWS)
    assert [(v.row, v.verdict, v.drawn) for v in found[:4]] == [
        (0, "unsafe", "random"), (1, "unsafe", "random"), (2, "unsafe", "random"), (3, "clean", "random"),
    ]  # fmt: skip
    assert found[5].id == ROWS[5].id


def test_what_was_appended_is_read_back(tmp_path):
    path = tmp_path / "v.jsonl"
    given = [vetted.Verdict(i, ROWS[i].id, "clean", "proposed", "a note", "ann") for i in range(3)]
    for v in given:
        vetted.append(path, v, ROWS[v.row])
    assert vetted.read(path, ROWS, least=0) == given


def test_verdicts_follow_their_rows_into_another_order(tmp_path):
    path = tmp_path / "v.jsonl"
    for i in range(12):
        vetted.append(path, vetted.Verdict(i, ROWS[i].id, "unsafe" if i == 4 else "clean"), ROWS[i])
    turned = [row(i, f"number {19 - i}") for i in range(20)]
    said = []
    found = vetted.read(path, turned, say=said.append)
    assert [v.row for v in found if v.verdict == "unsafe"] == [15]
    assert any("stand elsewhere" in line for line in said)


def test_a_changed_row_is_named_and_not_used(tmp_path):
    path = tmp_path / "v.jsonl"
    for i in range(12):
        vetted.append(path, vetted.Verdict(i, ROWS[i].id, "clean"), ROWS[i])
    changed = [row(i, "changed") if i == 7 else ROWS[i] for i in range(20)]
    said = []
    found = vetted.read(path, changed, say=said.append)
    assert 7 not in [v.row for v in found] and len(found) == 11
    assert "changed since or are gone: 7" in said[0]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([*plain(), {"row": 20, "verdict": "clean"}], "row 20 is not in custom.jsonl, which has 20 rows"),
        ([*plain(), {"row": -1, "verdict": "clean"}], "row -1 is not in"),
        ([*plain(), {"row": 0, "verdict": "clean"}], "row 0 is clean here and unsafe before"),
        ([{"row": i, "verdict": "unsure"} for i in range(12)], "all 12 verdicts are unsure"),
        ([{"row": i, "verdict": "unsafe"} for i in range(12)], "all 12 verdicts are unsafe"),
        (plain(9), "9 verdicts of clean or unsafe, at least 10 are needed"),
        ([*plain(), {"row": 15, "verdict": "purple"}], "verdicts nobody knows: 'purple' (1)"),
        ([*plain(), {"row": "x", "verdict": "clean"}], "\"row\" is 'x'"),
        ([*plain(), {"row": 15, "verdict": "clean", "drawn": "lots"}], "\"drawn\" is 'lots'"),
        (
            [{"row": i, "verdict": "clean", "sha256": "0" * 64} for i in range(12)],
            "they belong to another data set",
        ),
        ([{"row": 1, "colour": "red"}], "no verdicts found (fields: row, colour)"),
        ([], "holds no verdicts"),
    ],
)
def test_bad_verdicts_are_refused_in_words(tmp_path, lines, words):
    with pytest.raises(DataError) as error:
        vetted.read(write(tmp_path / "v.jsonl", lines), ROWS)
    assert words in str(error.value) and "v.jsonl" in str(error.value)


def test_what_a_spreadsheet_leaves_empty_is_no_verdict_and_counts_as_random(tmp_path):
    path = tmp_path / "v.csv"
    path.write_text("row,verdict,drawn,note\n0.0,clean,,\n1.0,unsafe,,\n2.0,,,look again\n")
    found = vetted.read(path, ROWS, least=0)
    assert [(v.row, v.verdict, v.drawn) for v in found] == [(0, "clean", "random"), (1, "unsafe", "random")]
    lines = [
        *plain(),
        {"row": 15},
        {"row": 16, "verdict": None},
        {"row": 17, "verdict": "clean", "by": ["ann"]},
    ]
    assert [v.row for v in vetted.read(write(tmp_path / "v.jsonl", lines), ROWS)] == [*range(12), 17]


def test_a_verdict_on_a_row_that_is_gone_falls_on_no_other_row(tmp_path):
    lines = [*plain(), {"row": -5, "sha256": "0" * 64, "verdict": "unsafe"}]
    said = []
    found = vetted.read(write(tmp_path / "v.jsonl", lines), ROWS, say=said.append)
    assert [v.row for v in found if v.verdict == "unsafe"] == [0, 1, 2]
    assert said == ["v.jsonl: 1 verdicts are not used, their rows changed since or are gone: -5"]


def test_rows_known_by_their_content_alone_have_not_moved(tmp_path):
    lines = [{"sha256": vetted.content_hash(one), "verdict": "clean"} for one in ROWS]
    said = []
    assert len(vetted.read(write(tmp_path / "v.jsonl", lines), ROWS, say=said.append)) == 20 and not said


@pytest.mark.parametrize(
    "record",
    [
        {"fields": {}, "metadata": {"row": 1}, "responses": [None]},
        {"fields": {}, "metadata": {"row": 1}, "responses": ["unsafe"]},
        {"fields": {}, "metadata": {"row": 1}, "responses": 5},
        {"data": {"text": "x"}, "annotations": [3]},
        {"data": {"text": "x"}, "annotations": [{"result": ["unsafe"]}]},
    ],
)
def test_a_record_that_no_tool_writes_is_named(tmp_path, record):
    path = tmp_path / "export.json"
    path.write_text(json.dumps([record]))
    with pytest.raises(DataError, match=r"export\.json (Argilla|Label Studio) record 1: not as .* writes it"):
        vetted.read(path, ROWS)


def test_all_clean_is_a_finding_not_an_error(tmp_path):
    assert len(vetted.read(write(tmp_path / "v.jsonl", plain(12, 0)), ROWS)) == 12


def test_a_line_cut_off_by_a_kill_is_no_verdict(tmp_path):
    path = write(tmp_path / "v.jsonl", plain())
    path.write_text(path.read_text() + '{"row": 13, "verd')
    assert len(vetted.read(path, ROWS)) == 12
    vetted.mended(path)
    vetted.append(path, vetted.Verdict(14, ROWS[14].id, "clean"), ROWS[14])
    assert [v.row for v in vetted.read(path, ROWS)] == [*range(12), 14]


@pytest.mark.parametrize(
    "values", [("1", "0"), (True, False), ("Toxic", "not_toxic"), (1.0, 0), ("1.0", "0.0")]
)
def test_known_words_of_a_column_are_read_and_said(values):
    rows = [row(i, str(i), label=values[i > 3] if i < 15 else (None, "", " ")[i % 3]) for i in range(20)]
    said = []
    found = vetted.from_column(rows, "label", say=said.append)
    assert [v.verdict for v in found] == ["unsafe"] * 4 + ["clean"] * 11
    assert "read as verdicts" in said[0]


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(DataError, match='no column "label"'):
        vetted.from_column(ROWS, "label")


def test_argilla_label_studio_and_doccano_exports_say_the_same(tmp_path):
    text = [f"question number {i}\nanswer number {i}" for i in range(12)]
    word = ["unsafe" if i in (2, 5) else "clean" for i in range(12)]
    exports = {
        "argilla.json": [
            {"fields": {"prompt": f"question number {i}", "completion": f"answer number {i}"}, "metadata": {},
             "responses": {"verdict": [{"value": word[i], "user_id": "u1"}]}}
            for i in range(12)
        ],
        "argilla1.json": [
            {"fields": {}, "metadata": {"row": i},
             "responses": [{"values": {"label": {"value": word[i]}}, "user_id": "u1", "status": "submitted"}]}
            for i in range(12)
        ],
        "studio.json": [
            {"id": 100 + i, "data": {"text": text[i]},
             "annotations": [{"completed_by": 1, "result": [{"type": "choices", "value": {"choices": [word[i]]}}]}]}
            for i in range(12)
        ],
        "argilla-table.json": [
            {"id": str(i), "completion": f"answer number {i}", "verdict.responses": [word[i]],
             "verdict.responses.users": ["u1"], "verdict.responses.status": ["submitted"]}
            for i in range(12)
        ],
        "argilla-chat.json": [
            {"fields": {"chat": [{"role": "user", "content": f"question number {i}"},
                                 {"role": "assistant", "content": f"answer number {i}"}]},
             "metadata": {}, "responses": {"verdict": [{"value": word[i], "user_id": "u1"}]}}
            for i in range(12)
        ],
        "studio-min.json": [
            {"id": i, "messages": [{"from": "human", "value": f"question number {i}"},
                                   {"from": "gpt", "value": f"answer number {i}"}], "verdict": word[i]}
            for i in range(12)
        ],
        "doccano.json": [{"id": 7 + i, "text": text[i], "label": [word[i]]} for i in range(12)],
    }  # fmt: skip
    for name, records in exports.items():
        (tmp_path / name).write_text(json.dumps(records))
        found = vetted.read(tmp_path / name, ROWS)
        assert [v.row for v in found] == list(range(12)), name
        assert [v.row for v in found if v.verdict == "unsafe"] == [2, 5], name


def test_argilla_answers_count_where_they_were_submitted_and_to_the_question_that_asks_for_the_verdict(
    tmp_path,
):
    def one(row, **responses):
        return {"fields": {}, "metadata": {"row": row}, "responses": responses}

    def older(row, status, **values):
        return {"fields": {}, "metadata": {"row": row}, "responses": [{"values": values, "status": status}]}

    comment = [{"value": "see above", "user_id": "u1"}]
    exports = {
        "now.json": [one(0, comment=comment, verdict=[{"value": "unsafe", "user_id": "u1"}]),
                     one(1, verdict=[{"value": "unsafe", "user_id": "u1", "status": "discarded"}]), one(2)],
        "older.json": [older(0, "submitted", comment={"value": "see above"}, verdict={"value": "unsafe"}),
                       older(1, "discarded", verdict={"value": "unsafe"}), older(2, "draft")],
        "table.json": [
            {"row": 0, "verdict.responses": ["unsafe"], "verdict.responses.status": ["submitted"]},
            {"row": 1, "verdict.responses": ["unsafe"], "verdict.responses.status": ["discarded"]},
            {"row": 2, "verdict.responses": None, "verdict.responses.status": None},
        ],
    }  # fmt: skip
    for name, records in exports.items():
        (tmp_path / name).write_text(json.dumps(records))
        found = vetted.read(tmp_path / name, ROWS, least=0)
        assert [(v.row, v.verdict) for v in found] == [(0, "unsafe")], name


def test_cleanlab_issues_count_as_proposed_unsafe_rows(tmp_path):
    path = tmp_path / "issues.csv"
    path.write_text("is_label_issue,label_score\n" + "".join(f"{i == 3},0.5\n" for i in range(20)))
    found = vetted.read(path, ROWS, least=0)
    assert [(v.row, v.verdict, v.drawn) for v in found] == [(3, "unsafe", "proposed")]


def test_several_people_are_settled_by_majority_and_their_differences_named(tmp_path):
    lines = [{**line, "by": name} for name in ("ann", "ben", "cy") for line in plain()]
    lines[12 + 4]["verdict"] = "unsafe"  # ben alone on row 4
    said = []
    found = vetted.read(write(tmp_path / "v.jsonl", lines), ROWS, say=said.append)
    assert [v.row for v in found if v.verdict == "unsafe"] == [0, 1, 2]
    assert "Fleiss's kappa" in said[0] and "differ on 1 rows: 4" in said[0]


def test_cohens_kappa_by_hand():
    # 10 rows; both say unsafe on 3, clean on 5; they differ on 2: agreed 0.8, chance 0.4*0.4 + 0.6*0.6 = 0.52.
    a = dict(enumerate(["u"] * 4 + ["c"] * 6))
    b = dict(enumerate(["u"] * 3 + ["c"] * 6 + ["u"]))
    found = vetted.agreement({"a": a, "b": b})
    assert found.kappa == pytest.approx((0.8 - 0.52) / 0.48)
    assert found.method == "Cohen" and found.differ == (3, 9)


def test_fleiss_kappa_by_hand():
    # Two rows, three people: 3-0 agrees 1, 2-1 agrees 1/3; kinds 5/6 and 1/6: chance 26/36.
    people = {"a": {0: "c", 1: "c"}, "b": {0: "c", 1: "c"}, "c": {0: "c", 1: "u"}}
    assert vetted.agreement(people).kappa == pytest.approx((2 / 3 - 26 / 36) / (1 - 26 / 36))
