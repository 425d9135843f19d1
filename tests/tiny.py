"""Random models of a few thousand weights, a tokenizer learned from a few lines, and rows: what the tests of
rendering, models, fine-tuning and signals run on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from forgetfilter.models.rendering import Encoded
from forgetfilter.records import Message, Row

LINES = (
    "Write a short poem about the sea. The sea is grey, the gulls are loud, the boats come home.",
    "What is the capital of France? The capital of France is Paris, on the river Seine.",
    "I cannot help with that, but here is what I can do for you instead.",
    "### Input:\n### Response:\nuser assistant system",
)
SPECIAL = ("<|start|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|pad|>")
CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'].strip() }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@functools.cache
def _bpe(trim_offsets: bool) -> str:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if trim_offsets:  # as GPT-2 does: a token's leading space is left out of its place in the text
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES * 3, trainer)
    return tokenizer.to_str()


def tokenizer(
    template: str | None = CHAT, *, bos: bool = True, trim_offsets: bool = False
) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 400 tokens with the control tokens of SPECIAL."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_bpe(trim_offsets)),
        bos_token="<|start|>" if bos else None,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
    )
    made.chat_template = template
    return made


def llama(seed: int = 0, dtype: torch.dtype = torch.float32, **settings: Any) -> LlamaForCausalLM:
    """Two layers, drawn wide so that answers differ from row to row."""
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 400,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**(shape | settings))).to(dtype).eval()


def gpt2(seed: int = 0) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=400, n_embd=32, n_layer=2, n_head=2, n_positions=256, initializer_range=0.2
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config).float().eval()


def row(*turns: str | tuple[str, str], kind: Any = "chat", id: str = "z") -> Row:
    """Turns as (role, text); bare texts are user and assistant by turns."""
    roles = ("user", "assistant")
    messages = [Message(roles[i % 2], t) if isinstance(t, str) else Message(*t) for i, t in enumerate(turns)]
    return Row(id, 0, "rows.jsonl", tuple(messages), kind, {})


def encoded(prompt: int, completion: int, *, seed: int, id: str | None = None) -> Encoded:
    """A row of random tokens; the last of the completion stands for the end of turn."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(6, 400, (prompt + completion,), generator=rng).tolist()
    learned = [False] * prompt + [True] * completion
    scored = [False] * prompt + [True] * (completion - 1) + [False] * (completion > 0)
    return Encoded(id or f"r{seed}", ids, learned, scored, prompt, False)


def mixed_rows(n: int, seed: int = 0) -> list[Encoded]:
    """Rows of 4 to 27 tokens."""
    return [encoded(2 + (7 * i) % 12, 2 + (5 * i) % 13, seed=100 * seed + i) for i in range(n)]


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def decoded(tokens: PreTrainedTokenizerFast, ids: Sequence[int], mask: Sequence[bool]) -> str:
    return tokens.decode([t for t, m in zip(ids, mask, strict=True) if m], skip_special_tokens=False)
