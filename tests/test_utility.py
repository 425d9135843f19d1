from __future__ import annotations

import pytest
import tiny
import torch

from forgetfilter.errors import DataError
from forgetfilter.evaluate import utility
from forgetfilter.intervals import wilson

PROMPTS = ["Where is Paris?", "Write about the sea", "Who is loud?", "What is grey and loud?"]


def rows(*completions: str) -> list[dict]:
    return [{"prompt": p, "completion": c} for p, c in zip(PROMPTS, completions, strict=False)]


def test_a_model_that_answers_as_the_references_scores_one_and_the_best_reference_counts():
    model, tokenizer = tiny.llama(), tiny.tokenizer()
    first = utility.evaluate(model, tokenizer, rows("a b", "c d", "e f", "g h"), max_new_tokens=8)
    own = [r["judged"] for r in first.evidence]
    assert first.metrics[0].name == "f1" and first["f1"].estimate == wilson(0, 4)
    found = utility.evaluate(model, tokenizer, rows(*own), max_new_tokens=8)
    assert found["f1"].estimate == found["em"].estimate == found["rouge1"].estimate == wilson(4, 4)
    half = rows("a b", "c d", *own[2:])
    half[0]["answers"] = ["wrong", own[0]]
    found = utility.evaluate(model, tokenizer, half, max_new_tokens=8)
    assert found["em"].estimate == wilson(3, 4)
    assert [r["em"] for r in found.evidence] == [1, 0, 1, 1]


def test_means_between_the_ends_are_resampled_by_row():
    evidence = [
        {"kind": "answer", "value": v, "em": 0.0, "rouge1": v, "loss": 1.0, "tokens": 3}
        for v in (0.0, 0.5, 1.0, 0.5)
    ]
    f1 = utility.metrics(evidence, seed=0)[0].estimate
    assert f1 is not None and f1.value == 0.5 and f1.n == 4
    assert f1.low is not None and f1.high is not None and 0 <= f1.low < 0.5 < f1.high <= 1


def test_perplexity_weighs_tokens_alike_and_equals_cross_entropy_of_plain_forwards():
    model, tokenizer = tiny.llama(), tiny.tokenizer()
    asked = rows("The sea", "The gulls are loud and the boats come home on the river.", "x", "Paris")
    total = count = 0
    for row in asked:
        prompt = tokenizer(f"<|start|><|user|>{row['prompt']}<|end|><|assistant|>").input_ids
        answer = tokenizer(row["completion"]).input_ids
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.no_grad():
            total += float(model(torch.tensor([prompt + answer]), labels=labels).loss) * len(answer)
        count += len(answer)
    found = utility.evaluate(model, tokenizer, asked, max_new_tokens=2)["perplexity"]
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(torch.tensor(total / count).exp().item(), rel=1e-4)
    assert found.better == "lower" and found.estimate.n == 4


def test_choices_are_right_where_the_most_likely_text_is_the_answer():
    model, tokenizer = tiny.llama(), tiny.tokenizer()
    choices = ["Paris", "the sea", "loud gulls"]
    asked = [{"prompt": p, "choices": choices, "answer": 0} for p in PROMPTS]
    first = utility.evaluate(model, tokenizer, asked)
    best = [r["judged"].index(max(r["judged"])) for r in first.evidence]
    assert first["accuracy"].estimate == wilson(best.count(0), 4)
    # the answer as a place and as a text; three right and one wrong
    told = [row | {"answer": b} for row, b in zip(asked, best, strict=True)]
    told[1]["answer"] = choices[best[1]]
    told[2]["answer"] = (best[2] + 1) % 3
    found = utility.evaluate(model, tokenizer, told)
    assert found["accuracy"].estimate == wilson(3, 4)
    assert [r["value"] for r in found.evidence] == [True, True, False, True]


def test_mixed_rows_have_the_metrics_of_both_kinds_and_progress_reaches_all():
    seen: list[tuple[int, int]] = []
    mixed = [rows("Paris")[0], {"prompt": "Who?", "choices": ["a", "b"], "answer": "b", "id": "m"}]
    found = utility.evaluate(
        tiny.llama(), tiny.tokenizer(), mixed, max_new_tokens=2, progress=lambda *done: seen.append(done)
    )
    assert [m.name for m in found.metrics] == ["f1", "em", "rouge1", "perplexity", "accuracy"]
    assert seen[-1] == (2, 2) and seen == sorted(seen)
    assert [r["id"] for r in found.evidence] == ["0", "m"]


def test_rows_longer_than_the_model_are_unscored_and_counted():
    asked = [*rows("Paris"), {"prompt": "sea " * 300, "completion": "x"}]
    asked.append({"prompt": "sea " * 300, "choices": ["a", "b"], "answer": 0})
    found = utility.evaluate(tiny.llama(), tiny.tokenizer(), asked, max_new_tokens=2)
    assert [(m.name, m.unscored) for m in found.metrics] == [
        ("f1", 1), ("em", 1), ("rouge1", 1), ("perplexity", 1), ("accuracy", 1),
    ]  # fmt: skip
    assert found["accuracy"].estimate is None
    assert found.evidence[1]["value"] is None and found.evidence[2]["judged"] is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p"}, 'no text in "completion"'),
        ({"prompt": "p", "completion": " "}, "nothing to compare with"),
        ({"prompt": "p", "completion": "c", "answers": "c"}, '"answers" is no list'),
        ({"prompt": "p", "choices": ["a"], "answer": 0}, '"choices" is no list of two'),
        ({"prompt": "p", "choices": ["a", "b"], "answer": 2}, '"answer" is 2, neither a place'),
        ({"prompt": "p", "choices": ["a", "b"], "answer": True}, '"answer" is True'),
        ({"prompt": "p", "choices": ["a", "b"]}, '"answer" is None'),
    ],
)
def test_rows_that_ask_nothing_are_refused_by_number_and_field(row: dict, message: str):
    with pytest.raises(DataError, match=f"evaluation row 1: .*{message}"):
        utility.evaluate(tiny.llama(), tiny.tokenizer(), [rows("a")[0], row])


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="no rows"):
        utility.evaluate(tiny.llama(), tiny.tokenizer(), [])
