"""Train the toxicity scorer that the package ships, measure it on held-out parts, write its card.

python scripts/scorer/train.py --data DATA --output src/forgetfilter/models/ngram

`DATA` holds the public sets as forgetfilter.sources describes them, and `pretrain/` as scripts/nano does. Two
minutes on one core. Only sets whose licence lets a derived model ship are learned from; others only measure.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.numpy import save as to_bytes

from forgetfilter.data import sources
from forgetfilter.data.formats import read_records
from forgetfilter.intervals import Estimate, auc_interval, wilson
from forgetfilter.models import scorers
from forgetfilter.runs import atomic

sys.path.append(str(Path(__file__).resolve().parents[1] / "nano"))
from corpus import documents
from sentences import (
    FRIENDLY,
    FRIENDLY_MEASURED,
    HOSTILE,
    HOSTILE_MEASURED,
    TRAINED_TERMS,
    UNSEEN_TERMS,
    fill,
)

THRESHOLD = 0.5
PENALTY = 3e-6  # of the squared weights, beside the mean loss of a text
PROSE = ("openstax_cnxml", "gsa_digitalgov", "18f_blog", "african_storybook_en", "nltk_public_domain")
SNIPPETS = 4000


class Example(NamedTuple):
    text: str
    toxic: float  # 0 to 1: a rating, or the share of raters who said so
    weight: float


def davidson(data: Path) -> list[Example]:
    """Four in five of these tweets are toxic: weighted so that both sides count the same."""
    rows = sources.davidson(data)
    toxic = sum(row["toxic"] for row in rows)
    balance = (len(rows) - toxic) / toxic
    return [Example(row["text"], float(row["toxic"]), balance if row["toxic"] else 1.0) for row in rows]


def realtoxicityprompts(data: Path) -> Iterator[list[Example]]:
    """Per row: prompt, continuation and both joined, with Perspective's score as the share of raters."""
    for row in read_records(data / "toxicity" / "realtoxicityprompts" / "training_dataset.jsonl"):
        parts = [row["prompt"], row["continuation"]]
        joined = Example("".join(p["text"] for p in parts), max(p["toxicity"] for p in parts), 1.0)
        yield [joined, *(Example(p["text"], p["toxicity"], 1.0) for p in parts)]


def prose(data: Path, count: int, seed: int) -> list[str]:
    """Pieces of 6 to 30 words from textbooks, government pages, children's stories and speeches."""
    draw = random.Random(seed)
    pieces: list[str] = []
    for stem in PROSE:
        texts = list(documents(data / "pretrain", stem))
        for _ in range(count // len(PROSE)):
            found = draw.choice(texts).split()
            length = draw.randint(6, 30)
            start = draw.randint(0, max(0, len(found) - length))
            pieces.append(" ".join(found[start : start + length]))
    return pieces


def training_set(data: Path, seed: int) -> list[Example]:
    """Every example that no measurement below looks at."""
    rows = [e for e in davidson(data) if not scorers.held_out(e.text)]
    for group in realtoxicityprompts(data):
        if not scorers.held_out(group[0].text):  # a row is held out whole
            rows += group
    comments = [Example(r["text"], float(r["toxic"]), 1.0) for r in sources.wikipedia(data)]
    rows += [e for e in comments if not scorers.held_out(e.text)]
    rows += [Example(text, 0.0, 0.5) for text in prose(data, SNIPPETS, seed) if not scorers.held_out(text)]
    friendly, hostile = fill(FRIENDLY, TRAINED_TERMS), fill(HOSTILE, TRAINED_TERMS)
    rows += [Example(text, 0.0, 1.0) for _, text in friendly]
    rows += [Example(text, 1.0, len(friendly) / len(hostile)) for _, text in hostile]
    return rows


class Packed(NamedTuple):
    """Texts as one long list of features."""

    places: torch.Tensor  # (features of all texts,) in the table of weights
    owner: torch.Tensor  # (features of all texts,) number of the text
    share: torch.Tensor  # (features of all texts,) 1 / √(features of that text)
    toxic: torch.Tensor  # (texts,)
    weight: torch.Tensor  # (texts,) adds up to 1


def pack(rows: Sequence[Example]) -> Packed:
    found = [scorers.features(row.text) for row in rows]
    counts = np.array([len(f) for f in found])
    owner = torch.from_numpy(np.repeat(np.arange(len(rows)), counts))
    share = torch.from_numpy(1 / np.sqrt(np.maximum(counts, 1))).float()[owner]
    weight = torch.tensor([row.weight for row in rows])
    toxic = torch.tensor([row.toxic for row in rows])
    return Packed(torch.from_numpy(np.concatenate(found)), owner, share, toxic, weight / weight.sum())


def logits(weights: torch.Tensor, bias: torch.Tensor, packed: Packed) -> torch.Tensor:
    """One number a text, above 0 for toxic. Shape (texts,)."""
    parts = weights[packed.places] * packed.share
    return torch.zeros(len(packed.toxic)).index_add(0, packed.owner, parts) + bias


def minimise(loss: Any, parameters: list[torch.Tensor], iterations: int) -> None:
    """L-BFGS on all texts at once: a convex problem, so no seed and no order of rows matters."""
    optimiser = torch.optim.LBFGS(
        parameters, max_iter=iterations, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)  # ty: ignore[invalid-argument-type]


def fit(rows: Sequence[Example]) -> tuple[np.ndarray, float]:
    """Weights (BUCKETS,) and bias: logistic regression, then Platt's scaling (1999) on every eighth text."""
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    learned, kept = pack([r for i, r in enumerate(rows) if i % 8]), pack(rows[::8])
    weights = torch.zeros(scorers.BUCKETS, requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)

    def loss(of: Packed, z: torch.Tensor) -> torch.Tensor:
        return (of.weight * cross_entropy(z, of.toxic, reduction="none")).sum()

    minimise(
        lambda: loss(learned, logits(weights, bias, learned)) + PENALTY * weights.square().sum(),
        [weights, bias],
        80,
    )
    with torch.no_grad():
        z = logits(weights, bias, kept)
    scale, shift = torch.ones(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    minimise(lambda: loss(kept, scale * z + shift), [scale, shift], 50)
    return (scale * weights).detach().numpy(), (scale * bias + shift).item()


def save(weights: np.ndarray, bias: float, path: Path) -> None:
    """float16 weights; the bias and the threshold stand in the file's header."""
    header = {"bias": repr(bias), "threshold": repr(THRESHOLD)}
    with atomic(path) as unfinished:
        unfinished.write_bytes(to_bytes({"weights": weights.astype(np.float16)}, metadata=header))


def measure(data: Path, scorer: scorers.Scorer, seed: int) -> dict[str, Any]:
    """Every figure of the card, on texts that training did not see."""
    sets = {
        "Davidson tweets, held out": [r for r in sources.davidson(data) if scorers.held_out(r["text"])],
        "RealToxicityPrompts, held out": [
            r for r in sources.realtoxicityprompts(data) if scorers.held_out(r["text"])
        ],
        "Wikipedia comments, held out": [r for r in sources.wikipedia(data) if scorers.held_out(r["text"])],
        "OLID tweets, no training on this set": sources.olid(data),
    }
    ordinary = {
        "Alpaca answers": [r["completion"] for r in sources.alpaca(data)],
        "GSM8K questions": [r["prompt"] for r in sources.gsm8k(data)],
        "SAMSum summaries": [r["completion"] for r in sources.samsum(data)],
        "BBQ contexts (about people of many groups)": [r["prompt"].split("\n")[0] for r in sources.bbq(data)],
        "HarmfulQA questions (harmful, politely put)": [r["prompt"] for r in sources.harmfulqa(data)],
        "XSTest prompts (harmless, look harmful)": [r["prompt"] for r in sources.xstest(data)],
        "other pieces of the prose that training saw pieces of": [
            text for text in prose(data, SNIPPETS, seed + 1) if scorers.held_out(text)
        ],
    }
    detection, bins = {}, [[0, 0, 0.0] for _ in range(5)]
    for name, rows in sets.items():
        scored = [
            (p, row["toxic"])
            for p, row in zip(scorer([r["text"] for r in rows]), rows, strict=True)
            if p is not None
        ]
        toxic, clean = [p for p, truth in scored if truth], [p for p, truth in scored if not truth]
        detection[name] = {
            "auc": as_dict(auc_interval(toxic, clean)),
            "toxic_found": share(toxic),
            "clean_taken_for_toxic": share(clean),
            "unscored": len(rows) - len(scored),
        }
        if "held out" in name:
            few = min(len(toxic), len(clean))
            for p, truth in [(p, True) for p in toxic[:few]] + [(p, False) for p in clean[:few]]:
                part = bins[min(4, int(5 * p))]
                part[0] += 1
                part[1] += truth
                part[2] += p
    return {
        "threshold": THRESHOLD,
        "detection": detection,
        "reliability": [
            {"texts": n, "mean_score": round(total / n, 3), "toxic": as_dict(wilson(hits, n))}
            for n, hits, total in bins
        ],
        "ordinary": {name: share(scorer(texts)) for name, texts in ordinary.items()},
        "identity": {
            f"{kind}, terms {when}": {
                "all": share(scorer([text for _, text in fill(templates, terms)])),
                "per_term": {term: share(scorer([t for _, t in fill(templates, (term,))])) for term in terms},
            }
            for when, terms in (("in training", TRAINED_TERMS), ("not in training", UNSEEN_TERMS))
            for kind, templates in (("friendly", FRIENDLY_MEASURED), ("hostile", HOSTILE_MEASURED))
        },
    }


def share(scores: Sequence[float | None]) -> dict[str, Any] | None:
    """Share of the scored texts at or above the threshold."""
    known = [p for p in scores if p is not None]
    return as_dict(wilson(sum(p >= THRESHOLD for p in known), len(known)))


def as_dict(estimate: Estimate | None) -> dict[str, Any] | None:
    return estimate and {k: round(v, 4) if v is not None else v for k, v in estimate.as_dict().items()}


def words_for(estimate: dict[str, Any], digits: int = 3) -> str:
    return f"{estimate['value']:.{digits}f} [{estimate['low']:.{digits}f}, {estimate['high']:.{digits}f}]"


def card(measured: dict[str, Any], examples: int) -> str:
    detection = "\n".join(
        f"| {name} | {d['auc']['n']:,} | {words_for(d['auc'])} | {words_for(d['toxic_found'])} "
        f"| {words_for(d['clean_taken_for_toxic'])} | {d['unscored']} |"
        for name, d in measured["detection"].items()
    )
    ordinary = "\n".join(
        f"| {name} | {d['n']:,} | {words_for(d, 4)} |" for name, d in measured["ordinary"].items()
    )
    reliability = "\n".join(
        f"| {row['mean_score']:.2f} | {row['texts']:,} | {words_for(row['toxic'])} |"
        for row in measured["reliability"]
    )
    identity = "\n".join(
        f"| {name} | {d['all']['n']} | {words_for(d['all'])} |" for name, d in measured["identity"].items()
    )
    wrong = [
        f"{term} {d['value']:.0%}"
        for name, group in measured["identity"].items()
        if name.startswith("friendly")
        for term, d in group["per_term"].items()
        if d["value"] > 0
    ]
    return CARD.format(
        examples=f"{examples:,}", threshold=THRESHOLD, detection=detection, ordinary=ordinary,
        reliability=reliability, identity=identity, each=len(FRIENDLY_MEASURED),
        terms=len(TRAINED_TERMS) + len(UNSEEN_TERMS), wrong=", ".join(wrong) or "none",
    )  # fmt: skip


CARD = """---
license: apache-2.0
language: en
pipeline_tag: text-classification
---

# ngram

The toxicity scorer inside forgetfilter: the probability, 0 to 1, that readers would call a short English text toxic.
A logistic regression on the words, word pairs and runs of 3 to 5 characters of a text, hashed into 1,048,576 float16
weights (2.1 MB): the file holds no list of words. A text counts as toxic from {threshold} on. Trained, measured and
described by `scripts/scorer/train.py`; every figure is in `measured.json`.

## Data and licences

Learned from {examples} texts, two thirds of each set: Davidson et al. 2017 (tweets, MIT; the two classes weighted
alike), RealToxicityPrompts (web text with Perspective scores, Apache-2.0), Wikipedia talk page comments (Apache-2.0),
pieces of OpenStax textbooks and African Storybook (CC BY 4.0), GSA digital.gov and 18F pages (CC0), speeches in the
public domain, and sentences written for the project that mention groups of people, friendly and hostile
(`scripts/scorer/sentences.py`). The other third (`scorers.held_out`, by the text's own words) measures. OLID is
measured on only.

Who compares a defence that uses this scorer on one of these sets should take rows for which `scorers.held_out` is
true: of the others it knows the truth.

## Measured

In brackets, here and below, 95 % intervals.

| texts | n | AUC | toxic ones found | clean ones taken for toxic | unscored |
|---|---|---|---|---|---|
{detection}

What its probabilities are worth, on the three held-out sets together, as many toxic as clean texts of each (in the wild
there are fewer toxic ones, so a score promises less there):

| mean score | texts | share toxic |
|---|---|---|
{reliability}

Ordinary text taken for toxic:

| texts | n | share |
|---|---|---|
{ordinary}

Sentences that mention one of {terms} groups, in templates that training never saw; share taken for toxic, wanted low
for the friendly ones and high for the hostile ones:

| sentences | n | share |
|---|---|---|
{identity}

Terms with a friendly sentence taken for toxic (of {each} each): {wrong}.

## Limits

It reads words, not meaning: hostility without hostile words, irony, politely put harmful requests and languages other
than English pass it (OLID, above, holds much of the first two), and quoted or reclaimed insults do not. Long texts
with a single toxic passage are often missed. It was made for the one-sentence continuations of the toxicity
evaluation; for a finer judge, name a sequence classifier.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the public sets")
    parser.add_argument("--output", type=Path, default=scorers.NGRAM, help="folder of the shipped scorer")
    parser.add_argument("--seed", type=int, default=0, help="of the pieces of prose")
    given = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order: the same weights every time
    rows = training_set(given.data, given.seed)
    weights, bias = fit(rows)
    given.output.mkdir(parents=True, exist_ok=True)
    save(weights, bias, given.output / "weights.safetensors")
    measured = measure(given.data, scorers.ngram(given.output), given.seed)
    with atomic(given.output / "measured.json") as path:
        path.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    with atomic(given.output / "README.md") as path:
        path.write_text(card(measured, len(rows)), encoding="utf-8")
    print(card(measured, len(rows)))


if __name__ == "__main__":
    main()
