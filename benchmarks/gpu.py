"""How much of a GPU does learning and scoring use? Random weights, by the product's own fine-tune and scoring.

    python benchmarks/gpu.py                       # 1B and 7B shapes of Llama on one GPU, about a minute and a half
    python benchmarks/gpu.py --shapes tiny         # anywhere, to see that it runs
    python benchmarks/gpu.py --table gpu.json      # the section of RESULTS.md, from what --output wrote

Model FLOP utilisation counts the work that is needed, not the work that is done: a product with a weight costs two
operations a weight and token; learning an adapter goes forward and takes the gradient of what a layer was given, so
twice that, and three times for the adapter itself; attention counts what a token may see; the head counts where a
token is learned or scored. Rows are equally long, so nothing is padded; the last half of each is learned and scored.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from sections import RESULTS, make_section, markdown

from forgetfilter import runs
from forgetfilter.filter.signals import token_memory
from forgetfilter.models.load import add_lora
from forgetfilter.models.rendering import Encoded
from forgetfilter.training.finetune import finetune

# hidden, layers, heads, key-value heads, intermediate, vocabulary
SHAPES = {
    "tiny": (64, 2, 4, 2, 128, 512),
    "1b": (2048, 16, 32, 8, 8192, 128256),
    "7b": (4096, 32, 32, 32, 11008, 32000),
}
PEAKS = {
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
}  # dense bfloat16 products, from the makers' data sheets
RANK, WARMUP = 16, 3


def model_of(shape: str, device: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, layers, heads, kv, intermediate, vocabulary = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv,
        intermediate_size=intermediate, vocab_size=vocabulary, tie_word_embeddings=shape != "7b",
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def rows_of(count: int, length: int, vocabulary: int) -> list[Encoded]:
    random = torch.Generator().manual_seed(0)
    said = [i >= length // 2 for i in range(length)]
    ids = torch.randint(5, vocabulary, (count, length), generator=random).tolist()
    return [Encoded(str(i), row, said, said, length // 2, False) for i, row in enumerate(ids)]


def needed(model: Any, length: int, learn: bool) -> float:
    """Operations a token of a row: the layers, attention (half of what is behind it, on average), and the head."""
    config, layers = model.config, model.get_decoder().layers
    weights = sum(p.numel() for n, p in layers.named_parameters() if p.dim() == 2 and "lora_" not in n)
    adapter = sum(p.numel() for n, p in layers.named_parameters() if "lora_" in n)
    attention = (
        2 * length * config.num_hidden_layers * config.hidden_size
    )  # products with keys and with values
    head = config.vocab_size * config.hidden_size / 2  # half of the tokens
    both = 2 if learn else 1
    return both * 2 * (weights + head) + (3 if learn else 1) * (2 * adapter + attention)


def timed(step: Callable[[Callable[[], None]], None]) -> list[float]:
    """Seconds between the calls of what `step` is given, the first WARMUP left out."""
    marks: list[float] = []

    def mark() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        marks.append(time.perf_counter())

    step(mark)
    return [b - a for a, b in zip(marks[WARMUP:], marks[WARMUP + 1 :], strict=False)]


def learn(model: Any, rows: Sequence[Encoded], batch: int, steps: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        return timed(
            lambda mark: finetune(
                model, rows, learning_rate=1e-4, batch_size=batch, steps=steps, seed=0, folder=Path(folder),
                progress=lambda *_: mark(),
            )
        )  # fmt: skip


def score(model: Any, rows: Sequence[Encoded], batch: int, steps: int) -> list[float]:
    some = [r for _ in range(steps) for r in rows[:batch]]
    tokens = batch * len(rows[0].ids)
    return timed(lambda mark: token_memory(model, some, batch_tokens=tokens, progress=lambda _: mark()))


def measure(
    shape: str, what: str, batch: int, length: int, a: argparse.Namespace, model: Any
) -> dict[str, Any]:
    """One figure: seconds a step as median, and what follows from it; an error where it does not fit."""
    rows = rows_of(batch * (a.steps if what == "learn" else 1), length, model.config.vocab_size)
    record: dict[str, Any] = {"shape": shape, "what": what, "batch": batch, "length": length}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        took = sorted((learn if what == "learn" else score)(model, rows, batch, a.steps))
    except torch.OutOfMemoryError:
        return record | {"error": "out of memory"}
    seconds, tokens = took[len(took) // 2], batch * length
    flops = needed(model, length, what == "learn") * tokens
    record |= {
        "seconds": seconds, "fastest": took[0], "slowest": took[-1], "steps": len(took),
        "tokens_a_second": tokens / seconds, "rows_a_second": batch / seconds, "tflops": flops / seconds / 1e12,
    }  # fmt: skip
    if peak := a.peak or next((v for k, v in PEAKS.items() if k in a.card), None):
        record["mfu"] = flops / seconds / peak
    if torch.cuda.is_available():
        record["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return record


def profiled(model: Any, rows: Sequence[Encoded], batch: int) -> str:
    """The kernels that take a few steps of learning longest."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        learn(model, rows, batch, 3)
    return found.key_averages().table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=90)


def section(found: Sequence[dict[str, Any]]) -> str:
    rows = [
        (r["shape"], r["what"], f"{r['batch']} x {r['length']}",
         f"{r['seconds']:.3f} [{r['fastest']:.3f}, {r['slowest']:.3f}]",
         f"{r['tokens_a_second']:,.0f}", f"{r['rows_a_second']:.0f}", f"{r['mfu']:.2f}", f"{r['peak_gib']:.1f}")
        for r in found if "mfu" in r
    ]  # fmt: skip
    head = ("shape", "what", "rows x tokens", "seconds a step, median [fastest, slowest]", "tokens/s", "rows/s", "MFU",
            "peak GiB")  # fmt: skip
    return "\n\n".join([
        "### On a GPU",
        "    python benchmarks/gpu.py --output gpu.json",
        f"Random weights in bfloat16, one {found[0]['card']}, rows without padding, the second half of each learned or "
        "scored, LoRA of rank 16 on all linear layers. MFU: the operations that are needed (for an adapter forward and "
        "back to what a layer was given, 4 a weight and token; counted as for all weights, 6, it would be half as much "
        "again) as a share of what the maker states for dense bfloat16 products.",
        markdown(head, rows),
    ])  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="7b,1b")
    parser.add_argument("--batches", default="8x512,16x512,4x1024", help="rows x tokens, in turn")
    parser.add_argument("--steps", type=int, default=11)
    parser.add_argument("--peak", type=float, help="operations a second that the card can do in bfloat16")
    parser.add_argument("--output", type=Path, help="file for the figures, written after each of them")
    parser.add_argument(
        "--profile", type=Path, help="file for the kernels that learning with the first shape takes"
    )
    parser.add_argument(
        "--table", type=Path, help="write the section of RESULTS.md from such a file, and run nothing"
    )
    a = parser.parse_args()
    if a.table:
        return make_section(RESULTS, "gpu", lambda: section(json.loads(a.table.read_text())))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a.card = torch.cuda.get_device_name() if device == "cuda" else device
    print(a.card, torch.__version__, flush=True)
    found: list[dict[str, Any]] = []
    for number, shape in enumerate(a.shapes.split(",")):
        model = model_of(shape, device)
        for what in ("score", "learn"):  # scored as it is, learned with an adapter, scored with it
            if what == "learn":
                model = add_lora(model, rank=RANK, alpha=2 * RANK)
            for batch, length in (map(int, b.split("x")) for b in a.batches.split(",")):
                found.append({"card": a.card, **measure(shape, what, batch, length, a, model)})
                print(
                    {k: round(v, 3) if isinstance(v, float) else v for k, v in found[-1].items()}, flush=True
                )
                if a.output:
                    with runs.atomic(a.output) as path:
                        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        if a.profile and not number:
            batch, length = map(int, a.batches.split(",")[0].split("x"))
            a.profile.write_text(profiled(model, rows_of(3 * batch, length, model.config.vocab_size), batch))
        del model
    return 0


if __name__ == "__main__":
    sys.exit(main())
