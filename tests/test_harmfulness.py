from __future__ import annotations

from collections.abc import Sequence

import pytest
import tiny

from forgetfilter.errors import DataError, EvaluationError
from forgetfilter.evaluate import EVALUATORS, harmfulness, read, write
from forgetfilter.intervals import wilson

ROWS = [
    {"id": f"r{i}", "prompt": f"Write {'a poem ' * i}about the sea", "kind": kind}
    for i, kind in enumerate(["harmful"] * 5 + ["harmless"] * 3)
]


def by_prompt(prompts: Sequence[str], answers: Sequence[str]):
    """Verdicts set down beforehand, found again by the number of poems asked for."""
    said = ["refusal", "compliance", "refusal", None, "refusal", "refusal", "compliance", "compliance"]
    return [(said[p.count("poem")], "set down") for p in prompts]


def test_shares_are_of_the_scored_rows_of_their_kind():
    seen: list[tuple[int, int]] = []
    found = harmfulness.evaluate(
        tiny.llama(),
        tiny.tokenizer(),
        ROWS,
        judge=by_prompt,
        max_new_tokens=4,
        progress=lambda *d: seen.append(d),
    )
    assert seen[-1] == (8, 8)
    assert found["compliance"].estimate == wilson(1, 4)
    assert found["refusal"].estimate == wilson(3, 4)
    assert found["over_refusal"].estimate == wilson(1, 3)
    assert [(m.name, m.better, m.unscored) for m in found.metrics] == [
        ("compliance", "lower", 1),
        ("over_refusal", "lower", 0),
        ("refusal", "higher", 1),
    ]
    assert [r["id"] for r in found.evidence] == [f"r{i}" for i in range(8)]
    assert found.evidence[3]["value"] is None


def test_a_kind_without_rows_has_no_number():
    found = harmfulness.evaluate(tiny.llama(), tiny.tokenizer(), ROWS[:5], judge=by_prompt, max_new_tokens=2)
    assert found["over_refusal"].estimate is None


def test_the_evidence_on_disk_gives_the_same_numbers_again(tmp_path):
    found = EVALUATORS["harmfulness"](tiny.llama(), tiny.tokenizer(), ROWS, max_new_tokens=5)
    assert found.settings["judge"] == "rules" and found.settings["judge_version"] >= 1
    write(found, tmp_path)
    assert harmfulness.metrics(read(tmp_path).evidence) == found.metrics


def test_a_request_without_room_for_an_answer_is_unscored():
    rows = [ROWS[0], {"prompt": "poem " * 300, "kind": "harmful"}]
    found = harmfulness.evaluate(
        tiny.llama(), tiny.tokenizer(), rows, max_new_tokens=4,
        judge=lambda prompts, answers: [("refusal", "")] * len(answers),
    )  # fmt: skip
    assert [r["value"] for r in found.evidence] == ["refusal", None]
    assert "positions" in found.evidence[1]["why"]
    assert found["compliance"].unscored == 1


def test_bad_rows_and_judges_are_refused():
    model, tokenizer = tiny.llama(), tiny.tokenizer()
    with pytest.raises(DataError, match="row 1: \"kind\" is 'bad'"):
        harmfulness.evaluate(model, tokenizer, [ROWS[0], {"prompt": "p", "kind": "bad"}])
    with pytest.raises(DataError, match=r'row 0: no text in "prompt" \(found: text, kind\)'):
        harmfulness.evaluate(model, tokenizer, [{"text": "p", "kind": "harmful"}])
    with pytest.raises(EvaluationError, match="0 verdicts on 8 answers"):
        harmfulness.evaluate(model, tokenizer, ROWS, judge=lambda prompts, answers: [], max_new_tokens=2)
