"""Learn and review many noisy sets at once on one GPU: an adapter for each, stacked; `quality.py --stored` judges them.

    python benchmarks/stacked.py prepare --data ../shared/data --model smollm2 --work build/stacked
    python benchmarks/stacked.py run --model smollm2 --work build/stacked        # on the machine with the GPU

A small model leaves a large GPU idle; side by side, twenty sets of 300 rows take a minute of an H100. The steps
are the product's (LoRA r 16 on all linear layers, four steps of warm-up, half of a review replayed), the batches drawn
by this script. What is kept of a job: the original model's hidden states, and what each row lost.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sets import SETS, draw
from torch.nn import functional

RANK, SCALE, RATE, BATCH, EPOCHS, REVIEW, WARMUP, WITNESSES = 16, 2.0, 5e-4, 16, 3, 24, 4, 0.5
THIRD = 1 / 3
JOBS = [  # those that matter most first
    *((n, THIRD, "own", s) for s in range(5) for n in ("bias-b", "web-text", "comments")),
    *(job for s in range(3) for job in (
        ("bias-b", 0.05, "own", s), ("tweets-b", THIRD, "own", s), ("harm-news", 0.05, "pack", s),
        ("harm-sst2", 0.05, "pack", s), ("harm-samsum", 0.05, "own", s), ("harm-news", 0.2, "own", s),
        ("harm-sst2", 0.2, "own", s), ("harm-samsum", 0.2, "pack", s))),
    *((n, 0, ("own", "pack", "own")[s], s) for s in range(3) for n in SETS
      if n.startswith("clean") and SETS[n].role == "report"),
    *(("bias-b", share, "own", 0) for share in (0.02, 0.1, 0.25, 0.5, 0.75)),
    *(("web-text", share, "own", 0) for share in (0.05, 0.1, 0.5)),
]  # fmt: skip


def prepare(a: argparse.Namespace) -> None:
    """One file a job: its rows as token ids, without the truth's leaving the file it is needed in."""
    from transformers import AutoTokenizer

    from forgetfilter.evaluate.noisy_sets import as_rows
    from forgetfilter.filter.states import users_words
    from forgetfilter.models import load as models
    from forgetfilter.models.rendering import encode

    tokenizer = AutoTokenizer.from_pretrained(models.folder(a.model))
    for place, (name, share, safe, seed) in enumerate(JOBS):
        drawn = draw(name, a.data, share=share, rows=a.rows, seed=seed, safe=safe)
        both = [encode(as_rows(some, part), tokenizer, max_length=a.length)
                for some, part in ((drawn.custom, "custom"), (drawn.safe, "safe"))]  # fmt: skip
        rows, words = [*both[0], *both[1]], [*users_words(*both), *users_words(both[1])]
        np.savez_compressed(
            a.work / f"{place:03d}_{name}_{share:.2f}_{safe}_{seed}.rows.npz",
            job=json.dumps({"set": name, "share": share, "safe": safe, "seed": seed}), custom=len(both[0]),
            ids=np.concatenate([r.ids for r in rows]).astype(np.int32), lengths=[len(r.ids) for r in rows],
            scored=np.concatenate([r.scored for r in rows]), words=words,
            brief=[last > r.prompt_length for r, (_, last) in zip(rows, words, strict=True)],
            unsafe=[bool(r["unsafe"]) for r in drawn.custom], part=[str(r["part"]) for r in drawn.custom],
        )  # fmt: skip


class Stacked(torch.nn.Module):
    """A linear layer with an adapter for each job: rows of job j are the j-th part of the batch."""

    now = (0, 0)  # jobs whose rows are in the batch, first and one past the last; equal: the layer alone

    def __init__(self, weight: torch.Tensor, jobs: int, seed: int) -> None:
        super().__init__()
        self.weight = weight.requires_grad_(False)
        random, (outputs, inputs) = torch.Generator(weight.device).manual_seed(seed), weight.shape
        a = torch.rand((1, RANK, inputs), device=weight.device, generator=random) * 2 - 1
        self.a = torch.nn.Parameter((a / inputs**0.5).repeat(jobs, 1, 1))
        self.b = torch.nn.Parameter(torch.zeros(jobs, outputs, RANK, device=weight.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, (first, last) = functional.linear(x, self.weight), Stacked.now
        if first == last:
            return y
        a, b = (p[first:last].to(x.dtype).transpose(1, 2) for p in (self.a, self.b))
        return y + SCALE * torch.bmm(torch.bmm(x.reshape(last - first, -1, x.shape[-1]), a), b).reshape(
            y.shape
        )


class Jobs:
    """All jobs on one model."""

    def __init__(self, model: Any, jobs: Sequence[dict[str, np.ndarray]], group: int) -> None:
        self.model, self.jobs, self.group = model, jobs, group
        ends = [np.cumsum(j["lengths"])[:-1] for j in jobs]
        self.ids = [np.split(j["ids"], e) for j, e in zip(jobs, ends, strict=True)]
        self.scored = [np.split(j["scored"], e) for j, e in zip(jobs, ends, strict=True)]
        linear = (torch.nn.Linear, Stacked)  # those of the jobs before are replaced
        layers = [(n, m) for n, m in model.model.named_modules() if isinstance(m, linear)]
        self.parameters: list[torch.nn.Parameter] = []
        for seed, (name, layer) in enumerate(layers):
            parent, _, leaf = name.rpartition(".")
            stacked = Stacked(layer.weight, len(jobs), seed)
            setattr(model.model.get_submodule(parent), leaf, stacked)
            self.parameters += [stacked.a, stacked.b]

    def batch(
        self, first: int, rows: Sequence[Sequence[int]]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """ids, attention, scored of `rows` of the jobs from `first` on, each (rows, time)."""
        flat = [(first + k, i) for k, some in enumerate(rows) for i in some]
        time = max(len(self.ids[j][i]) for j, i in flat)
        ids, attention, scored = (
            torch.zeros(len(flat), time, dtype=t) for t in (torch.long, torch.long, torch.bool)
        )
        for b, (j, i) in enumerate(flat):
            n = len(self.ids[j][i])
            ids[b, :n] = torch.from_numpy(self.ids[j][i].astype(np.int64))
            attention[b, :n], scored[b, 1:n] = 1, torch.from_numpy(self.scored[j][i][1:])
        device = self.parameters[0].device
        return ids.to(device), attention.to(device), scored.to(device)

    def losses(self, first: int, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every scored token its loss, and the row of the batch it stands in."""
        Stacked.now = (first, first + len(rows))
        ids, attention, scored = self.batch(first, rows)
        states = self.model.model(input_ids=ids, attention_mask=attention, use_cache=False).last_hidden_state
        at, time = scored.nonzero(as_tuple=True)
        logits = functional.linear(states[at, time - 1], self.model.lm_head.weight).float()
        Stacked.now = (0, 0)
        return functional.cross_entropy(logits, ids[at, time], reduction="none"), at

    def train(
        self, pools: Sequence[Sequence[tuple[np.ndarray, int]]], steps: int, falling: bool, seed: int
    ) -> None:
        """`steps` of AdamW for every job; a batch takes as many rows of each pool as stand beside it."""
        optimiser = torch.optim.AdamW(self.parameters, lr=RATE, weight_decay=0.0)
        random, left = [np.random.default_rng(seed) for _ in pools], [[[] for _ in p] for p in pools]
        self.model.train()
        for step in range(steps):
            for first in range(0, len(pools), self.group):
                rows = []
                for j in range(first, min(first + self.group, len(pools))):
                    rows.append([])
                    for k, (pool, n) in enumerate(pools[j]):
                        while len(left[j][k]) < n:
                            left[j][k] += random[j].permutation(pool).tolist()
                        rows[-1] += left[j][k][:n]
                        left[j][k] = left[j][k][n:]
                loss, at = self.losses(first, rows)
                job = at // len(rows[0])
                counts = torch.bincount(job, minlength=len(rows))
                (loss / counts[job]).sum().backward()
            norms = torch.stack([p.grad.flatten(1).norm(dim=1) for p in self.parameters]).norm(dim=0)
            for p in self.parameters:
                p.grad.mul_((1 / norms.clamp(min=1))[:, None, None])
            for settings in optimiser.param_groups:
                settings["lr"] = RATE * min(1, (step + 1) / WARMUP) * (1 - step / steps if falling else 1)
            optimiser.step()
            optimiser.zero_grad()

    @torch.no_grad()
    def remembered(self, rows_at_once: int = 96) -> list[np.ndarray]:
        """Per job (rows,): the mean log-probability of each row's scored tokens."""
        self.model.eval()
        found = [np.full(len(ids), np.nan) for ids in self.ids]
        orders = [sorted(range(len(ids)), key=lambda i, ids=ids: len(ids[i])) for ids in self.ids]
        for first in range(0, len(self.jobs), self.group):
            some = orders[first : first + self.group]
            for start in range(0, max(map(len, some)), rows_at_once):
                rows = [[o[min(i, len(o) - 1)] for i in range(start, start + rows_at_once)] for o in some]
                loss, at = self.losses(first, rows)
                total = torch.zeros(len(some) * rows_at_once, device=loss.device).index_add_(0, at, loss)
                mean = (total / torch.bincount(at, minlength=len(total)).clamp(min=1)).cpu().numpy()
                for k, o in enumerate(rows):
                    found[first + k][o] = -mean[k * rows_at_once : (k + 1) * rows_at_once]
        return found


def run(a: argparse.Namespace) -> None:
    from forgetfilter.models import load as models

    loaded = models.load(a.model)
    left = [path for path in sorted(a.work.glob("*.rows.npz")) if not _measured(path).exists()]
    for start in range(0, len(left), a.together):
        began = time.monotonic()
        together(loaded, left[start : start + a.together], a.group)
        print(f"{start + a.together} of {len(left)}: {time.monotonic() - began:.0f} s", flush=True)


def _measured(path: Path) -> Path:
    return path.with_name(path.name.replace(".rows", ""))


def together(loaded: Any, paths: Sequence[Path], group: int) -> None:
    """Learn and review the jobs of `paths` at once, and write what each of them measured."""
    from forgetfilter.filter import likeness
    from forgetfilter.filter.states import read_rows
    from forgetfilter.models.rendering import Encoded

    jobs = [dict(np.load(path, allow_pickle=False)) for path in paths]
    readings, pools, reviews, kept = [], [], [], []
    for job in jobs:
        n, ends = int(job["custom"]), np.cumsum(job["lengths"])[:-1]
        rows = [
            Encoded(str(i), ids.tolist(), s.tolist(), s.tolist(), int(np.argmax(s)), False)
            for i, (ids, s) in enumerate(
                zip(np.split(job["ids"], ends), np.split(job["scored"], ends), strict=True)
            )
        ]
        found = read_rows(loaded.model, rows, words=[tuple(span) for span in job["words"]])
        random, unlike = np.random.default_rng(0), likeness.kinds(found, n).unlike
        _, replayed = np.array_split(random.permutation(unlike), 2)
        safe = n + random.permutation(len(rows) - n)
        reviewed, witnesses = np.split(safe, [round(len(safe) * (1 - WITNESSES))])
        readings.append(found)
        pools.append([(np.concatenate([np.arange(n), witnesses]), BATCH)])
        again = min(BATCH // 2, len(replayed))
        reviews.append([(reviewed, BATCH - again), *([(replayed, again)] if again else [])])
        tokens = np.array([sum(r.scored[1:]) for r in rows])
        kept.append({"replayed": replayed, "witnesses": witnesses, "tokens": tokens})
    stack = Jobs(loaded.model, jobs, group)
    stack.train(pools, max(round(EPOCHS * len(p[0][0]) / BATCH) for p in pools), True, 1)
    learned = stack.remembered()
    stack.train(reviews, REVIEW, False, 2)
    for path, job, found, before, after, split in zip(
        paths, jobs, readings, learned, stack.remembered(), kept, strict=True
    ):
        part = path.with_name(path.name.replace(".rows", ".part"))
        np.savez(
            part, answer=found.answer, question=found.question, brief=found.brief, lost=before - after, **split,
            **{name: job[name] for name in ("job", "custom", "unsafe", "part")},
        )  # fmt: skip
        part.replace(_measured(path))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("prepare", "run"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/stacked"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--group", type=int, default=10, help="jobs in one forward pass")
    parser.add_argument("--together", type=int, default=20, help="jobs learned together and then kept")
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    (prepare if a.step == "prepare" else run)(a)
    return 0


if __name__ == "__main__":
    sys.exit(main())
