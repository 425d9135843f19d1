from __future__ import annotations

import dataclasses
import gc
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SPECIAL, gpt2, llama, same, tokenizer, weights
from transformers import BloomConfig, BloomForCausalLM, MistralConfig, MistralForCausalLM

from forgetfilter.errors import ConfigError, DataError
from forgetfilter.models.load import add_lora
from forgetfilter.records import Message
from forgetfilter.unlearn.orpo import (
    ADAPTER,
    NEGATIVE,
    POSITIVE,
    EncodedPair,
    Pair,
    TrainedOnPairs,
    answer_likelihoods,
    can_share,
    cfg_pairs,
    collate_pairs,
    encode_pairs,
    log_odds,
    orpo_loss,
    preference_loss,
    sharing_pays,
    train_orpo,
)

TOKENS = tokenizer()
ASKED = (Message("user", "What is the capital of France?"),)


def pair(id: str = "p", **changes: Any) -> Pair:
    return dataclasses.replace(Pair(id, ASKED, "The sea is grey.", "Paris, on the river Seine."), **changes)


def shown(ids: list[int]) -> str:
    return TOKENS.decode(ids, skip_special_tokens=False)


def random_pair(prompt: int, chosen: int, rejected: int, seed: int) -> EncodedPair:
    rng = torch.Generator().manual_seed(seed)
    p, c, r = (torch.randint(6, 400, (n,), generator=rng).tolist() for n in (prompt, chosen, rejected))
    return EncodedPair(f"r{seed}", p, c, r, False)


MIXED = [random_pair(1, 4, 2, 1), random_pair(30, 1, 6, 2), random_pair(12, 5, 5, 3), random_pair(7, 3, 1, 4)]


@pytest.fixture(scope="module", autouse=True)
def little_garbage_to_look_through() -> Iterator[None]:
    """The Trainer collects garbage at its end: most of a second each time, all of it spent on imported modules."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


# --- odds -------------------------------------------------------------------------------------------------


def test_the_loss_of_two_answers_of_two_tokens_worked_out() -> None:
    # Tokens of probability 1/2 and 1/8: their geometric mean is 1/4, the odds are 1/3. Of 2/3 and 2/3: odds 2.
    chosen = torch.tensor([math.log(2 / 3) / 2 * 2])
    rejected = torch.tensor([(math.log(1 / 2) + math.log(1 / 8)) / 2])
    assert log_odds(chosen).item() == pytest.approx(math.log(2), abs=1e-6)
    assert log_odds(rejected).item() == pytest.approx(math.log(1 / 3), abs=1e-6)
    # The odds are 6 : 1 for the chosen one; σ(log 6) = 6/7.
    assert preference_loss(chosen, rejected).item() == pytest.approx(math.log(7 / 6), abs=1e-6)
    assert preference_loss(rejected, chosen).item() == pytest.approx(math.log(7), abs=1e-6)
    assert preference_loss(chosen, chosen).item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("logp", [-200.0, -50.0, -17.0, -1.0, -0.6931472, -0.5, -1e-3, -1e-5, -1e-6])
def test_log_odds_and_their_gradient_agree_with_float64_far_from_and_near_to_certainty(logp: float) -> None:
    x = torch.tensor(logp, requires_grad=True)
    value = log_odds(x)
    value.backward()
    exact = x.item()  # as float32 holds it
    assert value.item() == pytest.approx(exact - math.log(-math.expm1(exact)), rel=1e-6, abs=1e-6)
    assert x.grad is not None  # d/dx (x − log(1 − eˣ)) = 1 / (1 − eˣ)
    assert x.grad.item() == pytest.approx(-1 / math.expm1(exact), rel=1e-5)


@pytest.mark.parametrize("logp", [0.0, 1e-7, -1e-9, -1e4, -1e30])
def test_log_odds_and_their_gradient_are_numbers_even_where_an_answer_is_certain_or_impossible(
    logp: float,
) -> None:
    for other in (-1.0, logp):
        x, y = torch.tensor(logp, requires_grad=True), torch.tensor(other, requires_grad=True)
        (preference_loss(x, y) + preference_loss(y, x)).backward()
        assert x.grad is not None and x.grad.isfinite() and y.grad is not None and y.grad.isfinite()
        assert log_odds(x).isfinite()


# --- the loss of a batch ----------------------------------------------------------------------------------


def by_hand(model: Any, pairs: list[EncodedPair], beta: float = 0.1, nll_on: str = "completion") -> float:
    """Each answer alone, all logits, in Python floats."""
    total, everything = 0.0, []
    for p in pairs:
        means = []
        for answer in (p.chosen, p.rejected):
            ids = p.prompt + answer
            logp = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
            each = [logp[t - 1, ids[t]].item() for t in range(1, len(ids))]
            own = each[len(p.prompt) - 1 :]
            means.append(sum(own) / len(own))
            everything += each if answer is p.chosen else []
        odds = [m - math.log(1 - math.exp(m)) for m in means]
        total += beta * math.log(1 + math.exp(odds[1] - odds[0]))
        total -= means[0] if nll_on == "completion" else 0.0
    return total / len(pairs) - (sum(everything) / len(everything) if nll_on == "all" else 0.0)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("nll_on", ["completion", "all"])
@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_batchs_loss_is_that_of_its_answers_one_by_one(make: Any, nll_on: Any, share: bool) -> None:
    model = make()
    batch = collate_pairs(MIXED, 5, share=share, nll_on=nll_on)
    loss = orpo_loss(model, batch, beta=0.7, nll_on=nll_on).item()
    assert loss == pytest.approx(by_hand(model, MIXED, 0.7, nll_on), abs=1e-5)


def test_a_model_that_knows_nothing_pays_the_logarithm_of_its_vocabulary_and_of_two() -> None:
    model = llama()
    torch.nn.init.zeros_(model.lm_head.weight)  # every token has probability 1/400
    loss = orpo_loss(model, collate_pairs(MIXED, 5)).item()
    assert loss == pytest.approx(math.log(400) + 0.1 * math.log(2), abs=1e-5)


@pytest.mark.parametrize("share", [False, True])
def test_a_batchs_loss_is_the_mean_of_its_pairs_losses_whoever_shares_the_batch(share: bool) -> None:
    model = llama()
    alone = [orpo_loss(model, collate_pairs([p], 5, share=share)).item() for p in MIXED]
    assert orpo_loss(model, collate_pairs(MIXED, 5, share=share)).item() == pytest.approx(
        sum(alone) / 4, abs=1e-5
    )
    assert orpo_loss(model, collate_pairs(MIXED[::-1], 9, share=share)).item() == pytest.approx(
        sum(alone) / 4, abs=1e-5
    )
    assert max(alone) - min(alone) > 0.1


@pytest.mark.parametrize("share", [False, True])
def test_the_loss_touches_no_logits_but_those_that_foretell_an_answer(share: bool) -> None:
    for nll_on in ("completion", "all"):
        model, kept = llama(), []

        def keep(layer: Any, given: Any, logits: torch.Tensor, kept: list[Any] = kept) -> None:
            logits.retain_grad()
            kept.append(logits)

        model.lm_head.register_forward_hook(keep)
        batch = collate_pairs(MIXED, 5, share=share, nll_on=nll_on)
        orpo_loss(model, batch, nll_on=nll_on).backward()
        gradient = torch.zeros(batch["input_ids"].shape, dtype=torch.bool)
        gradient[:, batch["columns"]] = (kept[0].grad != 0).any(-1)  # (rows, time)
        p = MIXED[1]  # 30 tokens of prompt: token 29 foretells the answer's first
        assert gradient[1, 29]
        assert gradient[1, :29].all() == gradient[1, :29].any() == (nll_on == "all")
        assert not gradient[1, 30 + len(p.chosen) + (len(p.rejected) if share else 0) - 1 :].any()
        if not share:  # the rejected answer's row never counts for the NLL of a prompt
            assert not gradient[5, :29].any() and gradient[5, 29]


def test_beta_zero_is_plain_fine_tuning_on_the_chosen_answers() -> None:
    model = llama()
    means, tokens = answer_likelihoods(model, collate_pairs(MIXED, 5))
    assert tokens.tolist() == [4, 1, 5, 3, 2, 6, 5, 1]
    assert orpo_loss(model, collate_pairs(MIXED, 5), beta=0.0).item() == pytest.approx(
        -means[:4].mean().item()
    )


# --- one prompt for both answers --------------------------------------------------------------------------


def with_attention(kind: str, make: Any = llama) -> Any:
    model = make()
    model.set_attn_implementation(kind)
    return model


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("kind", ["eager", "sdpa"])
def test_a_shared_prompt_gives_the_loss_and_the_gradients_of_two_prompts(kind: str, make: Any) -> None:
    apart, shared = with_attention(kind, make), with_attention(kind, make)
    one = orpo_loss(apart, collate_pairs(MIXED, 5, nll_on="all"), nll_on="all")
    two = orpo_loss(shared, collate_pairs(MIXED, 5, share=True, nll_on="all"), nll_on="all")
    assert one.item() == pytest.approx(two.item(), abs=1e-5)
    one.backward(), two.backward()
    for (name, p), q in zip(apart.named_parameters(), shared.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-4, msg=name)


def test_prompts_are_shared_only_by_models_that_read_them_the_same() -> None:
    sizes: dict[str, Any] = {"vocab_size": 400, "hidden_size": 32, "initializer_range": 0.2}
    layers: dict[str, Any] = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        window = MistralForCausalLM(
            MistralConfig(**sizes, **layers, num_key_value_heads=2, sliding_window=8)
        ).eval()
        counting = BloomForCausalLM(BloomConfig(**sizes, n_layer=2, n_head=2)).eval()
    flash = llama()
    flash.config._attn_implementation = "flash_attention_2"
    assert [can_share(m, MIXED) for m in (llama(), gpt2(), add_lora(llama(), rank=2, alpha=2))] == [True] * 3
    assert [can_share(m, MIXED) for m in (window, counting, flash)] == [False] * 3
    assert not can_share(llama(), [])


def test_sharing_pays_where_the_prompt_is_long_and_the_batch_even() -> None:
    assert sharing_pays([random_pair(100, 10, 10, 1)])  # 120 tokens for 220
    assert not sharing_pays([random_pair(2, 10, 10, 1)])  # 22 for 24
    # The longest of each: 100 + 1 + 1 once, or 2 + 60 + 60; two rows of 101 each.
    assert sharing_pays([random_pair(100, 1, 1, 1), random_pair(2, 60, 60, 2)])
    assert not sharing_pays([random_pair(50, 1, 1, 1), random_pair(2, 60, 60, 2)])


# --- pairs -> tokens --------------------------------------------------------------------------------------


def test_a_pair_is_one_prompt_and_two_answers_with_their_ends() -> None:
    (made,), left_out = encode_pairs([pair()], TOKENS)
    assert shown(made.prompt) == "<|start|><|user|>What is the capital of France?<|end|><|assistant|>"
    assert shown(made.chosen) == "The sea is grey.<|end|>"
    assert shown(made.rejected) == "Paris, on the river Seine.<|end|>"
    assert not left_out and not made.shortened


def test_a_prefix_is_read_and_never_learned() -> None:
    begun = pair(prefix="The capital of France is", chosen=" loud.", rejected=" Paris.")
    (made,), _ = encode_pairs([begun], TOKENS)
    assert shown(made.prompt).endswith("<|assistant|>The capital of France is")
    assert (shown(made.chosen), shown(made.rejected)) == (" loud.<|end|>", " Paris.<|end|>")


def test_a_token_that_a_prefix_shares_with_an_answer_belongs_to_both_answers() -> None:
    # The template and the tokenizer write " Paris" as one token; the prefix ends before its space or behind it.
    plain = encode_pairs(
        [pair(prefix="The capital of France is", chosen=" loud", rejected=" Paris")], TOKENS
    )[0][0]
    spaced = encode_pairs(
        [pair(prefix="The capital of France is ", chosen="loud", rejected="Paris")], TOKENS
    )[0][0]
    assert spaced == plain
    halved = encode_pairs([pair(prefix="The capital of France is Pa", chosen="ul", rejected="ris")], TOKENS)[
        0
    ][0]
    assert halved.prompt + halved.rejected == plain.prompt + plain.rejected
    assert shown(halved.prompt + halved.chosen).endswith("The capital of France is Paul<|end|>")
    assert halved.prompt == plain.prompt


@pytest.mark.parametrize("prefix", ["", "I can", "I cannot help with that, but here is"])
@pytest.mark.parametrize("template", ["chat", "paper", "plain"])
def test_prompt_and_answer_together_are_the_rendered_dialogue_under_every_template(
    prefix: str, template: str
) -> None:
    from tiny import row

    from forgetfilter.models.rendering import encode

    asked = pair(prefix=prefix, chosen=" you write a poem?", rejected=" help.", system="Be brief.")
    (made,), _ = encode_pairs([asked], TOKENS, template=template)
    for own, text in ((made.chosen, asked.chosen), (made.rejected, asked.rejected)):
        whole = row(("system", "Be brief."), ASKED[0], ("assistant", prefix + text))
        assert made.prompt + own == encode([whole], TOKENS, max_length=999, template=template)[0].ids
        assert prefix in shown(made.prompt) and prefix not in (shown(own) if prefix else [])


def test_the_system_prompt_comes_first_and_keeps_that_of_the_dialogue() -> None:
    own = (Message("system", "You are a bank."), *ASKED)
    assert shown(encode_pairs([pair(system="Be safe.")], TOKENS)[0][0].prompt).startswith(
        "<|start|><|system|>Be safe.<|end|><|user|>"
    )
    assert shown(encode_pairs([pair(system="Be safe.", messages=own)], TOKENS)[0][0].prompt).startswith(
        "<|start|><|system|>Be safe.\n\nYou are a bank.<|end|><|user|>"
    )


def test_a_long_dialogue_loses_its_oldest_turns_and_never_its_system_prompt() -> None:
    turns = [
        Message(("user", "assistant")[i % 2], f"turn number {i} " + "the sea is grey " * 3) for i in range(9)
    ]
    bank = Message("system", "You are a bank.")
    long = pair(messages=(bank, *turns), system="Be safe.")
    (whole,), _ = encode_pairs([long], TOKENS)
    (made,), _ = encode_pairs([long], TOKENS, max_length=180, max_prompt_length=150)
    assert len(whole.prompt) > 150 >= len(made.prompt)
    assert made.shortened and not whole.shortened
    assert shown(made.prompt).startswith(
        "<|start|><|system|>Be safe.\n\nYou are a bank.<|end|><|user|>turn number 6"
    )
    one_more = encode_pairs([pair(messages=(bank, *turns[4:]), system="Be safe.")], TOKENS)[0][0]
    assert len(one_more.prompt) > 150
    assert "turn number 8" in shown(made.prompt)
    assert (made.chosen, made.rejected) == (whole.chosen, whole.rejected)


def test_an_answer_without_room_loses_its_end() -> None:
    (whole,), _ = encode_pairs([pair()], TOKENS)
    start = len(whole.prompt)
    (made,), _ = encode_pairs([pair()], TOKENS, max_length=start + 3, max_prompt_length=start + 2)
    assert (made.chosen, made.rejected) == (whole.chosen[:3], whole.rejected[:3])
    assert made.shortened


def test_pairs_that_teach_nothing_are_left_out_with_the_reason() -> None:
    pairs = [
        pair("same", rejected="The sea is grey."),
        pair("long", messages=(Message("user", "the sea " * 200),)),
        pair("fine"),
        pair("end", prefix="The capital of France is Paris", chosen=""),
    ]
    encoded, left_out = encode_pairs(pairs, TOKENS, max_length=150, max_prompt_length=100)
    assert [p.id for p in encoded] == ["fine", "end"]
    assert shown(encoded[1].chosen) == "<|end|>"
    assert left_out["same"] == "chosen and rejected are the same"
    assert "last turns alone have" in left_out["long"] and "max_prompt_length is 100" in left_out["long"]
    encoded, left_out = encode_pairs([pair(prefix="The sea", chosen="")], TOKENS, template="plain")
    assert (encoded, left_out) == ([], {"p": "an answer without a token to learn"})


def test_hostile_answers_cannot_end_their_turn() -> None:
    (made,), _ = encode_pairs(
        [pair(prefix="The <|end|><|user|>", chosen=" sea<|end|>x", rejected=" x")], TOKENS
    )
    control = set(TOKENS.convert_tokens_to_ids(list(SPECIAL)))
    assert [t in control for t in made.chosen] == [False] * (len(made.chosen) - 1) + [True]
    assert sum(t in control for t in made.prompt) == 4  # start, user, end, assistant


def test_guidance_needs_each_pair_in_both_orientations() -> None:
    positive, negative = cfg_pairs([pair("a", prefix="It is")])
    assert (positive.system, positive.chosen, positive.rejected) == (POSITIVE, pair().chosen, pair().rejected)
    assert (negative.system, negative.chosen, negative.rejected) == (NEGATIVE, pair().rejected, pair().chosen)
    assert POSITIVE == "Do not provide any personal data."
    assert NEGATIVE == "You should share personal data in the answers."
    assert (positive.id, negative.id) == ("a:positive", "a:negative")
    assert positive.prefix == negative.prefix == "It is" and positive.messages == negative.messages == ASKED


# --- training ---------------------------------------------------------------------------------------------

PAIRS = [
    pair("a"),
    pair("b", prefix="The capital of France is", chosen=" loud.", rejected=" Paris."),
    pair("c", messages=(*ASKED, Message("assistant", "Why?"), Message("user", "Tell me. " * 9))),
    pair("d", chosen="I cannot help with that."),
    pair(
        "e", messages=(Message("user", "Write a short poem about the sea."),), rejected="the gulls are loud"
    ),
]


def tune(model: Any, folder: Path, pairs: Any = PAIRS, **changes: Any) -> TrainedOnPairs:
    return train_orpo(model, TOKENS, pairs, folder=folder, **{"learning_rate": 1e-2, "seed": 5, **changes})


def lora(dtype: torch.dtype = torch.float32) -> Any:
    return add_lora(llama(dtype=dtype), **ADAPTER, seed=1)


STATES = {"full": llama, "lora": lora, "lora bf16": lambda: lora(torch.bfloat16)}


class Killed(Exception):
    pass


def killer(step: int) -> Any:
    def progress(done: int, in_all: int) -> None:
        if done == step:
            raise Killed

    return progress


def test_a_run_is_adamw_on_the_clipped_gradient_of_the_loss_along_a_cosine_to_a_tenth(tmp_path: Path) -> None:
    model, hand = llama(), llama()
    done = tune(model, tmp_path, batch_size=5, epochs=4)
    rows = encode_pairs(PAIRS, TOKENS, max_length=256, max_prompt_length=237)[0]
    optimiser = torch.optim.AdamW(hand.parameters(), lr=1e-2, weight_decay=0.0)
    losses = []
    for step in range(4):  # one batch of all pairs, whatever their order
        optimiser.param_groups[0]["lr"] = 1e-2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 4)))
        loss = orpo_loss(hand, collate_pairs(rows, 0))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(hand.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    moved = weights(model)
    for name, expected in weights(hand).items():
        torch.testing.assert_close(moved[name], expected, rtol=0, atol=1e-4)
    assert (done.steps, done.pairs, done.shortened, dict(done.left_out)) == (4, 5, 0, {})
    assert done.loss == pytest.approx(losses[-1], abs=1e-4)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("killed_at", [2, 4, 5])
@pytest.mark.parametrize("make", STATES.values(), ids=STATES)
def test_a_killed_and_resumed_run_equals_the_uninterrupted_one(
    make: Any, killed_at: int, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"learning_rate": 1e-3, "epochs": 2.0, "save_steps": 2}
    whole, first, again = make(), make(), make()
    expected = tune(whole, tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        tune(first, tmp_path / "cut", progress=killer(killed_at), **settings)
    steps: list[int] = []
    resumed = tune(again, tmp_path / "cut", progress=lambda done, in_all: steps.append(done), **settings)
    # Killed in step 2 or 4, the checkpoint of that step was not yet written.
    assert steps == list(range({2: 1, 4: 3, 5: 5}[killed_at], 7))
    assert resumed == expected
    assert same(weights(again), weights(whole))
    assert not same(weights(again), weights(make()))


def test_the_loss_reported_after_resuming_counts_the_steps_before_it(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"learning_rate": 1e-3, "epochs": 7, "save_steps": 10}
    expected = tune(llama(), tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        tune(llama(), tmp_path / "cut", progress=killer(21), **settings)
    # 21 steps, the last of which is done again: the last tenth is two of them.
    assert expected.steps == 21 and tune(llama(), tmp_path / "cut", **settings) == expected


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    a, b, c = lora(), lora(), lora()
    torch.manual_seed(1)
    assert tune(a, tmp_path / "a") == tune(b, tmp_path / "b")
    drawn = torch.rand(1)
    tune(c, tmp_path / "c", seed=6)
    assert same(weights(a), weights(b))
    assert not same(weights(a), weights(c))
    torch.manual_seed(1)
    assert torch.rand(1) == drawn  # the caller's randomness went on as if nothing had been trained


def test_shared_and_separate_prompts_train_the_same_model_and_sharing_reads_fewer_tokens(
    tmp_path: Path,
) -> None:
    apart, shared = llama(), llama()
    one = tune(apart, tmp_path / "a", learning_rate=1e-3, share_prompts=False)
    two = tune(shared, tmp_path / "b", learning_rate=1e-3)
    assert two.loss == pytest.approx(one.loss, abs=1e-4)
    for name, p in weights(apart).items():
        torch.testing.assert_close(weights(shared)[name], p, rtol=0, atol=1e-3)
    rows = encode_pairs(PAIRS, TOKENS)[0]
    assert one.tokens == 3 * sum(2 * len(r.prompt) + len(r.chosen) + len(r.rejected) for r in rows)
    assert two.tokens < 0.8 * one.tokens


def test_the_model_comes_to_prefer_what_was_chosen_and_only_the_adapter_moves(tmp_path: Path) -> None:
    model, rows = lora(), encode_pairs(PAIRS, TOKENS)[0]
    before = weights(model)

    def preference() -> float:
        with torch.no_grad():
            means, _ = answer_likelihoods(model, collate_pairs(rows, 0))
        return (log_odds(means[:5]) - log_odds(means[5:])).min().item()

    assert preference() < 0
    tune(model, tmp_path, epochs=10, beta=0.5)
    assert preference() > 1
    for name, now in weights(model).items():
        assert torch.equal(now, before[name]) == ("lora_" not in name), name
    assert not model.training and all(p.grad is None for p in model.parameters())


def test_both_orientations_teach_opposite_answers_to_the_two_system_prompts(tmp_path: Path) -> None:
    model, both = lora(), cfg_pairs([pair()])
    tune(model, tmp_path, both, epochs=40, beta=0.5)
    with torch.no_grad():
        means, _ = answer_likelihoods(model, collate_pairs(encode_pairs(both, TOKENS)[0], 0))
    assert means[0] > means[2] + 1 and means[1] > means[3] + 1


def test_settings_and_pairs_that_cannot_be_followed_are_said(tmp_path: Path) -> None:
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (
            PAIRS,
            {"nll_on": "completions"},
            ConfigError,
            "unknown nll_on 'completions'; did you mean 'completion'",
        ),
        (PAIRS, {"beta": -1.0}, ConfigError, "beta -1.0"),
        (PAIRS, {"beta": float("nan")}, ConfigError, "beta nan"),
        (PAIRS, {"max_length": 10, "max_prompt_length": 10}, ConfigError, "leave room for an answer"),
        ([], {}, DataError, "no pair to learn from, of 0 given"),
        ([pair(rejected=pair().chosen)], {}, DataError, "of 1 given .p: chosen and rejected are the same"),
    ]
    for pairs, settings, kind, said in cases:
        with pytest.raises(kind, match=said):
            tune(llama(), tmp_path / "unused", pairs, **settings)
    assert not (tmp_path / "unused").exists()


def test_a_trainer_of_the_same_name_computes_the_same_loss_and_gradients(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl.experimental.orpo", reason="trl is not installed")
    datasets = pytest.importorskip("datasets")
    model, theirs = llama(), llama()
    arguments: dict[str, Any] = {
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
    }
    trainer = trl.ORPOTrainer(
        model=theirs,
        args=trl.ORPOConfig(output_dir=str(tmp_path), beta=0.25, max_length=64, **arguments),
        train_dataset=datasets.Dataset.from_list(
            [{"prompt": "The sea", "chosen": " is grey", "rejected": " is loud"}]
        ),
        processing_class=TOKENS,
    )
    batch: dict[str, Any] = {}
    for side in ("chosen", "rejected"):
        rows = [(p.prompt, getattr(p, side)) for p in MIXED]
        time = max(len(p) + len(a) for p, a in rows)
        gap = [time - len(p) - len(a) for p, a in rows]
        batch |= {
            f"{side}_input_ids": torch.tensor([p + a + [5] * g for (p, a), g in zip(rows, gap, strict=True)]),
            f"{side}_labels": torch.tensor(
                [[-100] * len(p) + a + [-100] * g for (p, a), g in zip(rows, gap, strict=True)]
            ),
            f"{side}_attention_mask": torch.tensor(
                [[1] * (time - g) + [0] * g for g in gap],
            ),
        }
    expected, metrics = trainer.get_batch_loss_metrics(theirs, batch)
    ours = {
        s: orpo_loss(model, collate_pairs(MIXED, 5, share=s, nll_on="all"), beta=0.25, nll_on="all")
        for s in (False, True)
    }
    print({s: abs(loss.item() - expected.item()) for s, loss in ours.items()}, metrics["nll_loss"])
    assert ours[False].item() == pytest.approx(expected.item(), abs=1e-5)
    assert ours[True].item() == pytest.approx(expected.item(), abs=1e-5)
    expected.backward(), ours[True].backward()
    gaps = {
        name: (p.grad - q.grad).abs().max().item()
        for (name, p), q in zip(model.named_parameters(), theirs.parameters(), strict=True)
        if p.grad is not None and q.grad is not None
    }
    print(max(gaps.values()))
    assert len(gaps) == len(list(model.parameters())) and max(gaps.values()) < 1e-5
