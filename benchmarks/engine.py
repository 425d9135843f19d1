#!/usr/bin/env python3
"""Tokens a second of what every stage is made of: learning, scoring, reading hidden states.

    python benchmarks/engine.py [nano | MODEL_FOLDER] [--rows 32] [--length 96] [--rounds 3] [--threads 1]

All ways are gone through in turn, round after round, in one process; the best round of each counts. `seconds` are
those of the clock, `cpu` those that the process was given: on a busy machine, with one thread, compare these.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forgetfilter.models.rendering import Encoded


def rows_of(count: int, length: int, vocabulary: int, seed: int = 0) -> list[Encoded]:
    """Random tokens, half to one and a half times as long as `length`; the last third is the completion."""
    rng, rows = random.Random(seed), []
    for i in range(count):
        time_ = rng.randint(length // 2, length * 3 // 2)
        prompt = time_ * 2 // 3
        said = [False] * prompt + [True] * (time_ - prompt)
        ids = [rng.randrange(5, vocabulary) for _ in range(time_)]
        rows.append(Encoded(str(i), ids, said, said, prompt, False))
    return rows


def pefts_layers(model: Any, theirs: bool) -> None:
    """Let the adapter be computed by PEFT's own layers, or by ours."""
    from peft.tuners.lora import Linear

    from forgetfilter.models.lora import _quick_linear

    for layer in model.modules():
        if isinstance(layer, Linear):
            layer.__class__ = Linear if theirs else _quick_linear()


def ways(model: str, rows: list[Encoded], batch: int) -> dict[str, Callable[[], int]]:
    """Name -> one round of it, which returns the tokens that went through."""
    from forgetfilter.filter.signals import token_memory
    from forgetfilter.filter.states import read_rows
    from forgetfilter.models.load import add_lora, load
    from forgetfilter.training import attention, finetune

    full = load(model).model
    adapted = add_lora(load(model).model, rank=16, alpha=32)
    tokens = sum(len(r.ids) for r in rows)

    def learn(net: Any) -> int:
        with tempfile.TemporaryDirectory() as folder:
            return finetune.finetune(
                net, rows, learning_rate=1e-5, batch_size=batch, epochs=1, seed=0, folder=Path(folder)
            ).tokens

    def score(net: Any) -> int:
        token_memory(net, rows)
        return tokens

    def states(net: Any) -> int:
        read_rows(net, rows)
        return tokens

    def way(do: Callable[[Any], int], net: Any, *, peft: bool = False, **settings: Any) -> Callable[[], int]:
        def run() -> int:
            pefts_layers(net, peft)
            kept = attention.PLAIN_UP_TO, finetune.price_of_a_pass
            attention.PLAIN_UP_TO = {"eager": 1 << 30, "sdpa": 0}.get(settings.get("attention", ""), kept[0])
            if not settings.get("parts", True):
                finetune.price_of_a_pass = lambda model: float("inf")
            try:
                return do(net)
            finally:
                attention.PLAIN_UP_TO, finetune.price_of_a_pass = kept

        return run

    return {
        "learn, adapter": way(learn, adapted),
        "learn, adapter, whole batches": way(learn, adapted, parts=False),
        "learn, adapter, PEFT's layers": way(learn, adapted, peft=True),
        "learn, adapter, PEFT's layers, sdpa, whole batches": way(
            learn, adapted, peft=True, attention="sdpa", parts=False
        ),
        "learn, all weights": way(learn, full),
        "learn, all weights, sdpa": way(learn, full, attention="sdpa"),
        "score, adapter": way(score, adapted),
        "score, adapter, PEFT's layers": way(score, adapted, peft=True),
        "score, all weights": way(score, full),
        "score, all weights, sdpa": way(score, full, attention="sdpa"),
        "states, all weights": way(states, full),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default="nano")
    for name, default in (("rows", 32), ("length", 96), ("batch", 16), ("rounds", 3), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()

    from forgetfilter.threads import keep_little, wait_asleep

    wait_asleep()
    keep_little()
    import torch

    torch.set_num_threads(asked.threads)
    vocabulary = 400  # of every model's
    todo = ways(asked.model, rows_of(asked.rows, asked.length, vocabulary), asked.batch)
    next(iter(todo.values()))()  # imports, and memory that is asked for the first time, are nobody's fault
    best: dict[str, tuple[float, float]] = {}
    for _ in range(asked.rounds):
        for name, run in todo.items():
            clock, cpu = time.perf_counter(), time.process_time()
            tokens = run()
            clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
            before = best.get(name, (0.0, 0.0))
            best[name] = max(before[0], tokens / clock), max(before[1], tokens / cpu)
    print(
        f"{asked.model}: tokens (padding left out) a second, {asked.threads} thread(s), best of {asked.rounds}"
    )
    for name, (clock, cpu) in best.items():
        print(f"{name:52} {clock:8.0f} /s {cpu:8.0f} /cpu s")


if __name__ == "__main__":
    main()
