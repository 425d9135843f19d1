"""Toxicity of continuations, with models of a few thousand weights and scorers whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import tiny
import torch

from forgetfilter.errors import ConfigError, DataError, EvaluationError
from forgetfilter.evaluate import EVALUATORS, read, write
from forgetfilter.evaluate.toxicity import evaluate
from forgetfilter.models.scorers import Scorer

TOKENIZER = tiny.tokenizer()
ROWS = [
    {"id": "a", "text": "The sea is grey, the gulls are loud"},
    {"id": "b", "text": "two words"},
    {"id": "c", "text": "  What is\nthe capital of France?"},
    {"id": "d", "text": ""},
    {"id": "e", "text": "only three words"},
]


def known(*answers: float | None) -> tuple[Scorer, list[str]]:
    """A scorer that gives these answers in turn, and the list of what it was shown."""
    seen: list[str] = []

    def judge(texts: Sequence[str]) -> list[float | None]:
        seen.extend(texts)
        return list(answers[: len(texts)])

    return Scorer("known", "1", 0.5, judge), seen


def continued(model: torch.nn.Module, text: str, n: int) -> str:
    """The greedy continuation, one whole forward pass a token."""
    ids = [TOKENIZER.bos_token_id, *TOKENIZER(text, add_special_tokens=False)["input_ids"]]
    start = len(ids)
    with torch.inference_mode():
        while len(ids) < start + n:
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token in (TOKENIZER.eos_token_id, TOKENIZER.pad_token_id):
                break
            ids.append(token)
    return TOKENIZER.decode(ids[start:], skip_special_tokens=True)


def test_the_scorer_sees_what_the_model_adds_to_the_first_three_words_and_nothing_else():
    model = tiny.llama()
    scorer, seen = known(0.1, 0.2, 0.3)
    found = evaluate(model, TOKENIZER, ROWS, scorer=scorer, max_new_tokens=6)
    openings = ["The sea is", "What is\nthe", "only three words"]
    assert seen == [continued(model, text, 6) for text in openings]
    assert [e["prompt"] for e in found.evidence] == [openings[0], None, openings[1], None, openings[2]]
    assert [e["judged"] for e in found.evidence] == [seen[0], None, seen[1], None, seen[2]]


def test_the_share_counts_from_the_threshold_on_and_the_mean_is_the_mean():
    scorer, _ = known(0.5, 0.2, 0.8)
    found = evaluate(tiny.llama(), TOKENIZER, ROWS, scorer=scorer)
    share, mean = found.metrics
    assert (share.name, mean.name) == ("toxic_share", "mean_toxicity")
    assert share.estimate is not None and mean.estimate is not None
    assert share.estimate.value == pytest.approx(2 / 3)  # 0.5 counts
    assert mean.estimate.value == pytest.approx(0.5)
    assert share.estimate.n == mean.estimate.n == 3
    assert (share.unscored, share.better, mean.better) == (2, "lower", "lower")
    stricter = evaluate(tiny.llama(), TOKENIZER, ROWS, scorer=scorer, threshold=0.6)
    assert stricter["toxic_share"].estimate.value == pytest.approx(1 / 3)  # ty: ignore
    assert stricter.settings["threshold"] == 0.6


def test_what_cannot_be_judged_is_unscored_and_says_why():
    scorer, _ = known(None, 0.2, 0.8)
    found = evaluate(tiny.llama(), TOKENIZER, ROWS, scorer=scorer)
    assert found["mean_toxicity"].estimate.value == pytest.approx(0.5)  # ty: ignore
    assert found["toxic_share"].unscored == 3
    why = {e["id"]: e["why"] for e in found.evidence}
    assert why["a"] == "known could not judge it"
    assert why["b"] == why["d"] == "fewer than 3 words"
    assert why["e"] == "at or above 0.5"
    assert why["c"] == "below 0.5"


def test_a_model_that_adds_nothing_has_no_toxicity_rather_than_none():
    model = tiny.llama()
    with torch.no_grad():
        model.lm_head.weight.zero_()  # always token 0, a control token: no text
    found = evaluate(model, TOKENIZER, ROWS)
    assert found["toxic_share"].estimate is None
    assert found["mean_toxicity"].estimate is None
    assert found["toxic_share"].unscored == 5
    assert found.evidence[0]["why"] == "the model added nothing"


def test_an_instruction_stands_in_front_of_the_text():
    model = tiny.llama()
    scorer, seen = known(0.1, 0.2, 0.3)
    found = evaluate(model, TOKENIZER, ROWS[:1], scorer=scorer, instruction="Be kind.", max_new_tokens=6)
    assert seen == [continued(model, "Be kind.\n\nThe sea is", 6)]
    assert seen != [continued(model, "The sea is", 6)]
    assert found.settings["instruction"] == "Be kind."


def test_batches_change_nothing():
    together, alone = (
        evaluate(tiny.llama(), TOKENIZER, ROWS, batch_tokens=batch_tokens) for batch_tokens in (4096, 1)
    )
    assert together == alone


def test_a_row_without_room_for_an_answer_is_unscored():
    rows = [{"text": "a b " + "c" * 400}, ROWS[0]]
    found = evaluate(tiny.llama(), TOKENIZER, rows, scorer=known(0.9)[0])
    assert [e["value"] for e in found.evidence] == [None, 0.9]
    assert found["toxic_share"].unscored == 1
    assert "positions" in found.evidence[0]["why"]


def test_progress_ends_with_the_rows_that_were_asked():
    calls: list[tuple[int, int]] = []
    evaluate(tiny.llama(), TOKENIZER, ROWS, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (3, 5)


def test_the_table_runs_it_with_the_shipped_scorer_and_its_record_survives_the_disk(tmp_path):
    found = EVALUATORS["toxicity"](tiny.llama(), TOKENIZER, ROWS, words=2, max_new_tokens=8)
    assert found.settings["scorer"] == "ngram"
    assert found.evidence[1]["prompt"] == "two words"
    write(found, tmp_path)
    assert read(tmp_path) == found


def test_bad_input_is_refused():
    model = tiny.llama()
    with pytest.raises(DataError, match=r'row 1: no text in "text" \(found: prompt\)'):
        evaluate(model, TOKENIZER, [ROWS[0], {"prompt": "x"}])
    with pytest.raises(ConfigError, match="words is 0"):
        evaluate(model, TOKENIZER, ROWS, words=0)
    with pytest.raises(EvaluationError, match="gave 1 scores for 3 texts"):
        evaluate(model, TOKENIZER, ROWS, scorer=known(0.5)[0])
