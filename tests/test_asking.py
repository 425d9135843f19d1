from __future__ import annotations

import pytest
import tiny
import torch

from forgetfilter.evaluate import asking
from forgetfilter.guide.generation import greedy, stop_ids

REFUSING = tiny.CHAT.replace(
    "{{ bos_token }}",
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}",
)
SILENT = tiny.CHAT.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
HOW = {"batch_tokens": 4096}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (tiny.CHAT, "<|start|><|system|>Be kind.<|end|><|user|>Hello<|end|><|assistant|>"),
        (REFUSING, "<|start|><|user|>Be kind.\n\nHello<|end|><|assistant|>"),
        (SILENT, "<|start|><|user|>Be kind.\n\nHello<|end|><|assistant|>"),
        (None, "<|start|>Be kind.\n\n### Input:\nHello\n\n### Response:\n"),
    ],
)
def test_an_instruction_is_the_system_message_or_stands_before_the_prompt(
    template: str | None, expected: str
):
    tokenizer = tiny.tokenizer(template)
    encoded = asking._encode(tokenizer, [("Hello", "Yes")], "Be kind.", "auto")[0]
    assert tokenizer.decode(encoded.ids[: encoded.prompt_length]) == expected


def test_answers_are_greedy_ones_to_the_rendered_prompt():
    model, tokenizer = tiny.llama(), tiny.tokenizer()
    ids = tokenizer("<|start|><|user|>Hello there<|end|><|assistant|>").input_ids
    expected = greedy(model, [ids], [9], stop_ids={1, tokenizer.pad_token_id})[0]
    said = asking.answers(model, tokenizer, ["Hello there"], instruction=None, max_new_tokens=9, **HOW)
    assert said == [tokenizer.decode(expected, skip_special_tokens=True).strip()]
    told = asking.answers(model, tokenizer, ["Hello there"], instruction="Now.", max_new_tokens=9, **HOW)
    assert told != said


def test_what_does_not_fit_the_positions_is_not_cut_but_left_out():
    model, tokenizer = tiny.llama(), tiny.tokenizer()  # 256 positions
    prompts = ["Short", "long " * 200, "Short"]
    said = asking.answers(model, tokenizer, prompts, instruction=None, max_new_tokens=4, **HOW)
    assert said[1] is None and isinstance(said[0], str) and said[0] == said[2]
    read = asking.memories(model, tokenizer, [(p, "Paris") for p in prompts], instruction=None, **HOW)
    assert [m.logp.size > 0 for m in read] == [True, False, True]


def test_choices_that_share_the_first_place_are_not_decided():
    model, tokenizer = tiny.llama(), tiny.tokenizer()
    with torch.no_grad():
        model.lm_head.weight.zero_()  # every token is as likely as any other
    found = asking.most_likely(model, tokenizer, ["Who?"], [["Paris", "Seine"]], instruction=None, **HOW)
    place, means = found[0]
    assert place is None
    assert means == pytest.approx([-torch.tensor(400.0).log().item()] * 2)


def test_chat_models_stop_at_every_end_that_their_settings_list():
    model, tokenizer = tiny.llama(), tiny.tokenizer()
    model.generation_config.eos_token_id = [7, 8]
    assert stop_ids(model, tokenizer) == {7, 8, tokenizer.eos_token_id, tokenizer.pad_token_id}
