"""Pre-train nano from nothing on prose and task prompts; resumes where it was interrupted.

    python scripts/nano/pretrain.py --data ../shared/data/pretrain --work build/nano

Weights live in bf16 (twice as fast as fp32 on a CPU with bf16 instructions) beside fp32 masters
that the optimisers step: Muon for the matrices of the layers, AdamW for the embedding and norms.
`log.jsonl` records tokens, training loss and held-out loss per source.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

# glibc returns every large buffer to the kernel; half of a step went into page faults.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}
if os.environ.get("MALLOC_TOP_PAD_") is None:
    os.execve(
        sys.executable, [sys.executable, *sys.argv], MALLOC | {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
    )

import numpy as np  # noqa: E402
import torch  # noqa: E402
from corpus import PROSE, SPECIAL, TASK_SHARE, VOCABULARY, encode, train_tokenizer  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

SIZES = {  # layers, hidden, heads, intermediate
    "nano": (6, 256, 4, 704),
    "nano-small": (4, 160, 4, 432),
    "nano-tiny": (3, 96, 3, 256),
}


def build(size: str) -> LlamaForCausalLM:
    layers, hidden, heads, intermediate = SIZES[size]
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=SPECIAL.index("<|endoftext|>"),
        eos_token_id=SPECIAL.index("<|end|>"),
        pad_token_id=SPECIAL.index("<|pad|>"),
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)


def learning_rate(progress: float, warmup: float = 0.02, decay: float = 0.4) -> float:
    """Warm up, hold, fall linearly to 2 %: factor of the peak rate at `progress` in [0, 1]."""
    if progress < warmup:
        return progress / warmup
    if progress < 1 - decay:
        return 1.0
    return 0.02 + 0.98 * (1 - progress) / decay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/nano"))
    parser.add_argument("--size", choices=SIZES, default="nano")
    parser.add_argument("--tokens", type=float, default=26e6, help="training tokens in all")
    parser.add_argument("--matrix-rate", type=float, default=4e-3)
    parser.add_argument("--embedding-rate", type=float, default=4e-3)
    parser.add_argument("--tokens-per-step", type=int, default=4096)
    parser.add_argument("--stop-after", type=float, default=math.inf, help="tokens (for trials)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile (needs a C++ compiler): a fifth more tokens a second; a third more with "
        "OMP_WAIT_POLICY=ACTIVE on idle cores",
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(args.data, args.work / "tokenizer.json")
    encode(args.data, args.work, tokenizer)

    run = args.work / args.size
    run.mkdir(exist_ok=True)
    shares = {name: share for name, (_, share) in PROSE.items()} | {"tasks": TASK_SHARE}
    ids = {name: np.memmap(args.work / f"{name}.train.bin", dtype=np.uint16, mode="r") for name in shares}
    held_out = {name: np.fromfile(args.work / f"{name}.heldout.bin", dtype=np.uint16) for name in shares}
    print({name: len(x) for name, x in ids.items()}, flush=True)

    model = build(args.size).to(torch.bfloat16)
    training = torch.compile(model, dynamic=False) if args.compile else model
    weights = list(model.parameters())
    masters = [torch.nn.Parameter(p.detach().float()) for p in weights]
    names = [n for n, _ in model.named_parameters()]
    matrix = [m for n, m in zip(names, masters, strict=True) if m.ndim == 2 and "embed" not in n]
    rest = [m for n, m in zip(names, masters, strict=True) if not (m.ndim == 2 and "embed" not in n)]
    optimisers = [
        torch.optim.Muon(matrix, lr=args.matrix_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=args.embedding_rate, betas=(0.9, 0.95), weight_decay=0.01),
    ]
    peaks = [args.matrix_rate, args.embedding_rate]

    step, seen = 0, 0
    checkpoint = run / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        step, seen = state["step"], state["tokens"]
        for m, saved in zip(masters, state["masters"], strict=True):
            m.data.copy_(saved)
        for o, saved in zip(optimisers, state["optimisers"], strict=True):
            o.load_state_dict(saved)
        print(f"resumed at step {step}, {seen:,} tokens", flush=True)
    for p, m in zip(weights, masters, strict=True):
        p.data.copy_(m.data)

    def save() -> None:
        part = checkpoint.with_suffix(".part")
        torch.save(
            {
                "step": step,
                "tokens": seen,
                "masters": [m.data for m in masters],
                "optimisers": [o.state_dict() for o in optimisers],
            },
            part,
        )
        part.replace(checkpoint)
        model.save_pretrained(run / "model")

    def windows(at: int, length: int, count: int) -> torch.Tensor:
        """(count, length + 1) token ids; every draw depends on seed and step alone, so a resumed run equals."""
        draw = np.random.default_rng([args.seed, at])
        chosen = draw.choice(len(shares), size=count, p=list(shares.values()))
        rows = []
        for c in chosen:
            source = ids[list(shares)[c]]
            start = draw.integers(0, len(source) - length - 1)
            rows.append(source[start : start + length + 1].astype(np.int64))
        return torch.from_numpy(np.stack(rows))

    def loss_of(batch: torch.Tensor, model: torch.nn.Module = model) -> torch.Tensor:
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits  # (batch, time, vocabulary)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())

    @torch.no_grad()
    def evaluate(windows_per_source: int = 24, length: int = 512) -> dict[str, float]:
        losses = {}
        for name, source in held_out.items():
            n = min(windows_per_source, (len(source) - 1) // length)
            at = np.linspace(0, len(source) - length - 1, n).astype(int)
            batch = torch.from_numpy(np.stack([source[a : a + length + 1].astype(np.int64) for a in at]))
            losses[name] = round(sum(loss_of(b).item() * len(b) for b in batch.split(8)) / n, 4)
        return losses

    log = (run / "log.jsonl").open("a", encoding="utf-8")
    started, saved_at, since, running = time.time(), time.time(), seen, []
    while seen < min(args.tokens, args.stop_after):
        progress = seen / args.tokens
        # Short windows first: attention is dear on a CPU; the last fifth stretches the context.
        length = 256 if progress < 0.8 else 512
        batch = windows(step, length, args.tokens_per_step // length)
        loss = loss_of(batch, training)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for p, m in zip(weights, masters, strict=True):
            m.grad = p.grad.float()
            p.grad = None
        for o, peak in zip(optimisers, peaks, strict=True):
            o.param_groups[0]["lr"] = peak * learning_rate(progress)
            o.step()
        for p, m in zip(weights, masters, strict=True):
            p.data.copy_(m.data)
        step += 1
        seen += batch.shape[0] * length
        running.append(loss.item())
        if step % 50 == 0:
            entry = {
                "step": step,
                "tokens": seen,
                "loss": round(sum(running) / len(running), 4),
                "norm": round(float(norm), 3),
                "tokens_per_second": round((seen - since) / (time.time() - started)),
            }
            running = []
            if step % 500 == 0:
                entry["heldout"] = evaluate()
            print(json.dumps(entry), file=log, flush=True)
            print(json.dumps(entry), flush=True)
        if time.time() - saved_at > 300:
            save()
            saved_at = time.time()
    save()
    entry = {"step": step, "tokens": seen, "heldout": evaluate()}
    print(json.dumps(entry), file=log, flush=True)
    print(json.dumps(entry), flush=True)


if __name__ == "__main__":
    main()
