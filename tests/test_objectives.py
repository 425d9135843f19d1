"""Other ways to unlearn: each loss worked out by hand, then a small model trained by it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import llama, tokenizer

from forgetfilter.errors import ConfigError, DataError
from forgetfilter.models.load import add_lora
from forgetfilter.models.rendering import encode
from forgetfilter.records import Message, Row
from forgetfilter.training.finetune import collate_right
from forgetfilter.unlearn import objectives as o
from forgetfilter.unlearn.orpo import Pair, answer_likelihoods, collate_pairs, encode_pairs

TOKENS = tokenizer()
ASKED = (Message("user", "What is the capital of France?"),)
PAIRS = [
    Pair("a", ASKED, "The sea is grey.", "Paris, on the river Seine."),
    Pair("b", (Message("user", "Who are you?"),), "A friend.", "I am Ada of London.", prefix="Well, "),
]
KEPT = encode(
    [
        Row(
            "k",
            0,
            "kept",
            (Message("user", "And the sea?"), Message("assistant", "The sea is grey.")),
            "chat",
            {},
        )
    ],
    TOKENS,
    max_length=64,
)


def likelihoods(**changes: float) -> o.Likelihoods:
    """One pair: an answer of four tokens of probability 1/2 that once was 1/4; a chosen one that stayed."""
    values = {
        "chosen": math.log(1 / 8),
        "rejected": 4 * math.log(1 / 2),
        "rejected_tokens": 4.0,
        "chosen_before": math.log(1 / 8),
        "rejected_before": 4 * math.log(1 / 4),
    } | changes
    return o.Likelihoods(**{name: torch.tensor([value]) for name, value in values.items()})


def test_gradient_ascent_is_the_mean_log_likelihood_of_what_is_forgotten():
    assert o.ascent(likelihoods(), 0.0).tolist() == pytest.approx([math.log(1 / 2)])


def test_npo_of_an_answer_sixteen_times_as_likely_as_before():
    # (P / P₀)^β = 16^(1/4) = 2; −(2/β) log σ(−log 2) = 8 log 3.
    assert o.npo(likelihoods(), 0.25).tolist() == pytest.approx([8 * math.log(3)])


def test_npo_starts_at_two_over_beta_times_log_two_and_ends_at_nothing():
    start = likelihoods(rejected=4 * math.log(1 / 4))
    assert o.npo(start, 0.1).tolist() == pytest.approx([20 * math.log(2)])
    assert o.npo(likelihoods(rejected=-1e4), 0.1).tolist() == pytest.approx([0.0], abs=1e-6)


def test_npo_pulls_as_gradient_ascent_where_beta_is_small():
    # The gradient of npo by log P is 2 σ(β log(P / P₀)): 1 as β goes to 0, as that of the log-likelihood.
    p = torch.tensor([-3.0], requires_grad=True)
    made = o.Likelihoods(p, p, torch.tensor([1.0]), p.detach(), torch.tensor([-5.0]))
    o.npo(made, 1e-4).sum().backward()
    assert p.grad is not None and p.grad.item() == pytest.approx(1.0, abs=1e-3)


def test_simnpo_goes_by_the_likelihood_per_token_and_knows_no_model_before():
    # (1/2)^2.5 by the token; −(2/2.5) log σ(2.5 log 2) = 0.8 log(1 + 2^−2.5).
    expected = [0.8 * math.log(1 + 2**-2.5)]
    assert o.simnpo(likelihoods(), 2.5).tolist() == pytest.approx(expected)
    assert o.simnpo(likelihoods(rejected_before=-1.0), 2.5).tolist() == pytest.approx(expected)


def test_dpo_of_a_refusal_that_stayed_against_an_answer_that_grew():
    # β (0 − log 16) = −log 2 at β = 1/4; −log σ(−log 2) = log 3.
    assert o.dpo(likelihoods(), 0.25).tolist() == pytest.approx([math.log(3)])
    unmoved = likelihoods(rejected=4 * math.log(1 / 4))
    assert o.dpo(unmoved, 0.25).tolist() == pytest.approx([math.log(2)])


def by_hand(model: Any, prompt: list[int], answer: list[int]) -> float:
    ids = prompt + answer
    logp = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
    return sum(logp[t - 1, ids[t]].item() for t in range(len(prompt), len(ids)))


def test_a_batchs_loss_is_the_mean_of_its_pairs_and_what_the_kept_rows_cost():
    model = llama().eval()
    rows, _ = encode_pairs(PAIRS, TOKENS, max_length=128, max_prompt_length=100)
    batch: dict[str, Any] = dict(collate_pairs(rows, 0))
    whole = [by_hand(model, r.prompt, r.rejected) for r in rows]
    per_token = [value / len(r.rejected) for value, r in zip(whole, rows, strict=True)]
    with torch.no_grad():
        alone = o.unlearning_loss(model, batch, o.ascent, 0.0)
        kept = o.unlearning_loss(model, batch | {"retain": collate_right(KEPT, 0)}, o.ascent, 0.0, 2.0)
        moved = o.unlearning_loss(
            model, batch | {"before": torch.tensor([[0.0, -9.0], [0.0, -7.0]])}, o.npo, 0.1
        )
    assert alone.item() == pytest.approx(sum(per_token) / 2, abs=1e-4)
    learned = [i for i, yes in enumerate(KEPT[0].learned) if yes]
    nll = -by_hand(model, KEPT[0].ids[: learned[0]], [KEPT[0].ids[i] for i in learned]) / len(learned)
    assert kept.item() - alone.item() == pytest.approx(2 * nll, abs=1e-4)
    ratios = [whole[0] + 9, whole[1] + 7]
    assert moved.item() == pytest.approx(
        sum(20 * math.log(1 + math.exp(0.1 * r)) for r in ratios) / 2, rel=1e-4
    )


def test_a_refusal_answers_a_whole_turn_and_each_turn_once():
    second = Pair("c", ASKED, "Water.", " on the river Seine.", prefix="Paris,")
    made = o.with_refusals([*PAIRS, second])
    assert [(p.prefix, p.rejected) for p in made] == [
        ("", "Paris, on the river Seine."),
        ("", "Well, I am Ada of London."),
    ]
    assert [p.chosen for p in made] == [*o.REFUSALS[:2]]


@pytest.mark.parametrize("name", [*o.OBJECTIVES])
def test_every_objective_makes_what_is_to_be_forgotten_less_likely(name: str, tmp_path: Path):
    model = add_lora(llama(), rank=4, alpha=8, dropout=0.0, seed=0)
    rows, _ = encode_pairs(PAIRS, TOKENS, max_length=128, max_prompt_length=100)

    def likelihood() -> float:
        model.eval()
        with torch.no_grad():
            return answer_likelihoods(model, collate_pairs(rows, 0))[0][2:].mean().item()

    before = likelihood()
    done = o.train_away(
        name, model, TOKENS, PAIRS, retain=KEPT, retain_weight=0.0, beta=0.1, seed=0, folder=tmp_path,
        learning_rate=1e-2, epochs=6, max_length=128,
    )  # fmt: skip
    assert done.steps == 6 and done.pairs == 2
    assert likelihood() < before - 0.05


def test_a_reference_is_the_model_as_it_was_so_that_npo_starts_at_its_start(tmp_path: Path):
    model = add_lora(llama(), rank=4, alpha=8, dropout=0.0, seed=0)
    done = o.train_away(
        "npo", model, TOKENS, PAIRS, retain=KEPT, retain_weight=0.0, seed=0, folder=tmp_path, learning_rate=1e-9,
        epochs=1, max_length=128,
    )  # fmt: skip
    assert done.loss == pytest.approx(20 * math.log(2), rel=1e-5)


def test_what_cannot_be_followed_is_said(tmp_path: Path):
    how: dict[str, Any] = {"seed": 0, "folder": tmp_path}
    with pytest.raises(ConfigError, match="unknown method 'nop'; did you mean 'npo'"):
        o.train_away("nop", llama(), TOKENS, PAIRS, **how)
    with pytest.raises(DataError, match="npo: no row to keep"):
        o.train_away("npo", llama(), TOKENS, PAIRS, **how)
    with pytest.raises(DataError, match="dpo: no pair to learn from, of 0 given"):
        o.train_away("dpo", llama(), TOKENS, [], **how)
