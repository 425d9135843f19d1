from __future__ import annotations

import functools
import random
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from forgetfilter.errors import ModelError
from forgetfilter.guide import decoding, generation
from forgetfilter.guide.generation import greedy
from forgetfilter.models import architecture

VOCABULARY = 97


def llama(**settings: Any) -> LlamaForCausalLM:
    """Two layers at random, drawn wide so that the answers differ from row to row."""
    torch.manual_seed(3)
    shape: dict[str, Any] = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 32,
    }
    config = LlamaConfig(
        vocab_size=VOCABULARY, intermediate_size=64, initializer_range=0.6, **(shape | settings)
    )
    return LlamaForCausalLM(config).float()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=160, initializer_range=0.6
    )
    return GPT2LMHeadModel(config).float()


MODELS = {"llama": llama, "gpt2": gpt2}


def prompts_and_limits(rows: int = 24) -> tuple[list[list[int]], list[int]]:
    rng = random.Random(1)
    lengths = [1, 2, 90, 3, 61] + [rng.randrange(1, 40) for _ in range(rows - 5)]
    prompts = [[rng.randrange(VOCABULARY) for _ in range(n)] for n in lengths]
    return prompts, [rng.choice([0, 1, 2, 7, 15, 30]) for _ in lengths]


def answers_without_a_cache(
    model: Any, prompts: list[list[int]], limits: list[int], stop_ids: set[int]
) -> list[list[int]]:
    """The plainest way there is: one row, the whole text read anew for each token."""
    answers = []
    for prompt, limit in zip(prompts, limits, strict=True):
        answer: list[int] = []
        while len(answer) < limit:
            with torch.inference_mode():
                token = int(model.eval()(torch.tensor([prompt + answer])).logits[0, -1].argmax())
            if token in stop_ids:
                break
            answer.append(token)
        answers.append(answer)
    return answers


@pytest.mark.parametrize("name", MODELS)
def test_batched_answers_equal_one_by_one_answers_token_for_token(name: str):
    model = MODELS[name]()
    prompts, limits = prompts_and_limits()
    free = answers_without_a_cache(model, prompts, limits, set())
    stop = {answer[4] for answer in free if len(answer) > 6}  # so that rows end at many different steps
    expected = answers_without_a_cache(model, prompts, limits, stop)
    assert len({tuple(a) for a in expected}) > 8  # rows do differ
    ended = [len(a) < limit for a, limit in zip(expected, limits, strict=True)]
    assert any(ended) and not all(ended)
    for batch_tokens in (1, 150, 700, 8192):
        assert greedy(model, prompts, limits, batch_tokens=batch_tokens, stop_ids=stop) == expected
        assert greedy(model, prompts, limits, batch_tokens=batch_tokens, stop_ids=()) == free


def test_a_window_of_attention_shorter_than_the_prompts_changes_nothing_with_the_batch():
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(3)
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        initializer_range=0.6,
    )
    model = MistralForCausalLM(config).float()
    prompts, limits = prompts_and_limits(12)
    expected = answers_without_a_cache(model, prompts, limits, set())
    for batch_tokens in (1, 8192):
        assert greedy(model, prompts, limits, batch_tokens=batch_tokens, stop_ids=()) == expected


def test_a_model_with_a_recurrent_state_answers_row_by_row_as_without_a_cache():
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(3)
    shape = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 2, "initializer_range": 0.6}
    model = MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, **shape)).float()
    prompts, limits = prompts_and_limits(12)
    expected = answers_without_a_cache(model, prompts, limits, set())
    assert len({tuple(a) for a in expected}) > 4
    assert greedy(model, prompts, limits, stop_ids=()) == expected


def test_the_cache_goes_by_the_name_that_the_forward_knows():
    class Older:
        def forward(self, input_ids: Any, past_key_values: Any = None) -> None: ...

    class Newer:
        def forward(self, input_ids: Any, cache: Any = None, past_key_values: Any = None) -> None: ...

    assert [architecture.cache_name(made()) for made in (Older, Newer)] == ["past_key_values", "cache"]


@pytest.mark.parametrize(("asked", "written"), [("auto", "float32"), ("bfloat16", "bfloat16")])
def test_a_small_model_writes_in_float32_on_a_cpu_unless_told_otherwise(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, asked: str, written: str
):
    import tiny

    from forgetfilter.models import load as models

    tiny.llama().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)  # a CPU that multiplies it
    assert models.load(str(tmp_path), device="cpu").dtype == torch.bfloat16
    loaded = generation.load_to_write(str(tmp_path), dtype=asked, device="cpu")
    assert generation.precision(loaded) == written
    monkeypatch.setattr(generation, "SMALL", 1000)
    larger = generation.load_to_write(str(tmp_path), device="cpu")
    assert generation.precision(larger) == "bfloat16"


def test_an_adapter_on_the_model_is_used_and_its_wrapper_does_not_hide_positions():
    from peft import LoraConfig, get_peft_model

    prompts, limits = prompts_and_limits()
    plain = greedy(gpt2(), prompts, limits, stop_ids=())
    model = get_peft_model(
        gpt2(), LoraConfig(r=4, target_modules=["c_attn"], init_lora_weights=False, fan_in_fan_out=True)
    )
    expected = answers_without_a_cache(model, prompts, limits, set())
    assert expected != plain
    assert greedy(model, prompts, limits, stop_ids=()) == expected


def test_finished_rows_leave_the_batch_and_only_the_last_position_gets_logits(
    monkeypatch: pytest.MonkeyPatch,
):
    model = llama()
    shapes: list[tuple[int, int]] = []
    forward = LlamaForCausalLM.forward

    @functools.wraps(forward)
    def watched(self: Any, *args: Any, logits_to_keep: int = 0, **kwargs: Any) -> Any:
        output = forward(self, *args, logits_to_keep=logits_to_keep, **kwargs)
        shapes.append(tuple(output.logits.shape[:2]))
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", watched)
    greedy(model, [[7, 8], [9], [10], [11]], [1, 1, 2, 4], stop_ids=())
    # 4 rows; two end at once, then one of the two left, and the last goes on alone
    assert shapes == [(4, 1), (2, 1), (1, 1), (1, 1)]


def test_batches_hold_like_lengths_and_keep_to_the_token_bound():
    prompts = [[1] * n for n in (10, 2, 10, 3, 2)]
    # longest first: 10+5 and 10+2 -> 2 × 15 = 30; the third row would make 3 × 15 = 45
    assert list(decoding.batches(prompts, [5, 2, 2, 2, 2], 30)) == [[0, 2], [3, 1, 4]]
    # no bound is too small for one row
    assert [len(b) for b in decoding.batches(prompts, [5] * 5, 1)] == [1] * 5


def test_progress_counts_answers_up_to_all_of_them():
    prompts, limits = prompts_and_limits()
    seen: list[int] = []
    greedy(llama(), prompts, limits, batch_tokens=300, stop_ids=(), progress=seen.append)
    assert seen == sorted(set(seen))
    assert seen[-1] == len(prompts)
    assert len(seen) > 3


def test_no_prompts_and_a_limit_of_zero_need_no_answer():
    assert greedy(llama(), [], [], stop_ids=()) == []
    assert greedy(llama(), [[1], [2, 3]], [0, 0], stop_ids=()) == [[], []]


def test_the_model_is_left_in_the_mode_it_came_in():
    for training in (True, False):
        model = llama(attention_dropout=0.5).train(training)
        answers = greedy(model, [[1, 2, 3]] * 4, [20] * 4, stop_ids=())
        assert model.training is training
        assert all(answer == answers[0] for answer in answers)  # no dropout while answering


def test_a_prompt_that_leaves_no_room_is_refused_before_any_work():
    # 160 positions hold 150 + 11 - 1 tokens: the last token of an answer is never read
    assert len(greedy(gpt2(), [[1] * 150], [11], stop_ids=())[0]) == 11
    with pytest.raises(ModelError, match=r"prompt 1 has 150 tokens .* 160 positions"):
        greedy(gpt2(), [[1], [1] * 150], [5, 12], stop_ids=())


def test_calls_that_cannot_be_meant_are_refused():
    with pytest.raises(ValueError, match="empty prompt"):
        greedy(llama(), [[1], []], [5, 5], stop_ids=())
    with pytest.raises(ValueError, match="2 prompts but 1 limits"):
        greedy(llama(), [[1], [2]], [5], stop_ids=())
