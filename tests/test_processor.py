from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from forgetfilter.errors import ConfigError
from forgetfilter.guide.decoding import Request, generate
from forgetfilter.guide.generation import load_to_write, stop_ids
from forgetfilter.guide.guidance import FORMS, NEGATIVE, POSITIVE, Guidance, combine
from forgetfilter.guide.processor import GuidanceProcessor
from forgetfilter.guide.prompts import prepare
from forgetfilter.records import Message

MODELS = {"llama": tiny.llama, "gpt2": tiny.gpt2}
PROMPTS = [[7, 8, 9, 10, 11], [12], [20, 21, 22]]
NEGATIVES = [[30], [31, 32, 33, 34, 35, 36, 37], [40, 41]]


def padded(prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    """Prompts of a batch as transformers wants them, padded on the left."""
    width = max(map(len, prompts))
    gaps = [width - len(p) for p in prompts]
    ids = [[5] * gap + p for gap, p in zip(gaps, prompts, strict=True)]
    mask = [[0] * gap + [1] * len(p) for gap, p in zip(gaps, prompts, strict=True)]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def theirs(model: Any, guide: GuidanceProcessor, prompts: list[list[int]], **more: Any) -> list[list[int]]:
    batch = padded(prompts)
    asked = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 5, "eos_token_id": None} | more
    found = model.generate(**batch, logits_processor=[guide], **asked)
    return found[:, batch["input_ids"].shape[1] :].tolist()


def ours(model: Any, how: Guidance, **more: Any) -> list[list[int]]:
    pairs = zip(PROMPTS, NEGATIVES, strict=True)
    asked = [Request(prompt=p, negative=n, guidance=how, limit=12) for p, n in pairs]
    return [a.ids for each in generate(model, asked, stop_ids=(), **more) for a in each]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [0.5, 1, 3])
def test_a_padded_batch_in_transformers_generate_gets_our_answers_token_for_token(
    name: str, form: str, scale: float
):
    model, how = MODELS[name](), Guidance(scale, form)
    guide = GuidanceProcessor(model, NEGATIVES, how)
    expected = ours(model, how)
    assert len({tuple(ids) for ids in expected}) == 3
    assert theirs(model, guide, PROMPTS) == expected
    assert theirs(model, guide, PROMPTS) == expected  # the second text begins anew


def test_several_sequences_of_a_prompt_each_have_their_negative_branch():
    model, how = tiny.llama(), Guidance(3, "log")
    guide = GuidanceProcessor(model, NEGATIVES, how)
    seen: list[tuple[list[int], torch.Tensor]] = []

    def watched(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        guided = guide(input_ids, scores)
        seen.append((input_ids.tolist(), guided))
        return guided

    theirs(model, watched, PROMPTS, do_sample=True, num_return_sequences=2, max_new_tokens=6)  # ty: ignore
    texts, guided = seen[-1]
    assert len(texts) == 6 and len({tuple(text) for text in texts}) == 6
    assert all(close(model, how, PROMPTS[i // 2], i // 2, text, guided[i]) for i, text in enumerate(texts))


def close(
    model: Any, how: Guidance, prompt: list[int], place: int, text: list[int], guided: torch.Tensor
) -> bool:
    """The same scores in another way: two whole passes of one row each, without cache or padding."""
    written = text[max(map(len, PROMPTS)) :]
    with torch.inference_mode():
        logp = [
            model(torch.tensor([[*ids, *written]])).logits[0, -1].log_softmax(-1)
            for ids in (prompt, NEGATIVES[place])
        ]
    return torch.allclose(combine(logp[0], logp[1], how).exp(), guided.exp(), atol=1e-5)


def test_beams_that_change_places_take_their_negative_branch_along():
    model, how = tiny.gpt2(), Guidance(2)
    guide = GuidanceProcessor(model, NEGATIVES, how)
    moved, seen = [], []

    def watched(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        before = seen[-1][0] if seen else None
        moved.append(before is not None and [t[:-1] for t in input_ids.tolist()] != before)
        seen.append((input_ids.tolist(), guide(input_ids, scores)))
        return seen[-1][1]

    theirs(model, watched, PROMPTS, num_beams=4, max_new_tokens=8)  # ty: ignore
    assert sum(moved) > 2  # beams did change places
    for texts, guided in seen[2:]:
        assert all(
            close(model, how, PROMPTS[i // 4], i // 4, text, guided[i]) for i, text in enumerate(texts)
        )


def test_it_may_be_adapter_against_none(tmp_path: Any):
    from test_guidance import adapted

    from forgetfilter.guide.branches import ADAPTER, BASE, load_adapter

    model = load_adapter(tiny.llama(), adapted(tmp_path / "adapter", tiny.llama()))
    how = Guidance(2, "log")
    asked = [Request(prompt=PROMPTS[0], guidance=how, limit=8)]
    [[expected]] = generate(model, asked, stop_ids=(), adapters=(ADAPTER, BASE))
    guide = GuidanceProcessor(model, [PROMPTS[0]], how, adapter=BASE)
    assert theirs(model, guide, [PROMPTS[0]], max_new_tokens=8) == [expected.ids]


def test_what_cannot_be_followed_is_said():
    model = tiny.llama()
    for none in ([], [[]]):
        with pytest.raises(ConfigError, match="at least one token"):
            GuidanceProcessor(model, none, Guidance(2))
    guide = GuidanceProcessor(model, NEGATIVES, Guidance(2))
    with pytest.raises(ConfigError, match="3 negative prompts for a batch of 2"):
        theirs(model, guide, PROMPTS[:2])
    guide(torch.tensor(PROMPTS[:1] * 3), torch.zeros(3, 400))
    with pytest.raises(ConfigError, match="assisted"):
        guide(torch.tensor([[*PROMPTS[0], 1, 2]] * 3), torch.zeros(3, 400))


@pytest.mark.slow
def test_nano_in_transformers_generate_says_what_generate_says():
    loaded = load_to_write("nano", device="cpu")
    model, tokens = loaded.model, loaded.tokenizer
    stop = sorted(stop_ids(model, tokens))
    for text in ("Who lives in the white house by the river?", "Write a line about the sea."):
        for how in (Guidance(3), Guidance(2, "log")):
            request = prepare(
                [Message("user", text)], model, tokens, guidance=how, instruction=POSITIVE, negative=NEGATIVE,
                limit=24,
            )  # fmt: skip
            [[expected]] = generate(model, [request], stop_ids=stop)
            guide = GuidanceProcessor(model, [request.negative or ()], how)
            more = {"max_new_tokens": 24, "eos_token_id": stop}
            [found] = theirs(model, guide, [list(request.prompt)], **more)
            assert [token for token in found if token not in stop] == expected.ids
