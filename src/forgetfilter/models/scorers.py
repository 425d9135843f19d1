"""How likely a text is toxic, from 0 to 1: the judge behind the toxicity evaluation and the classifier defence.

    scorer = load("ngram")                       # shipped with the package, no network
    scorer = load("models/toxic-bert")           # any sequence classifier of transformers, folder or hub id
    scorer(["Have a nice day.", ""])             # [0.03, None]; None: could not be judged

The shipped scorer is a logistic regression on hashed words, word pairs and parts of words, trained by
scripts/scorer/train.py; its card, ngram/README.md, holds what was measured.
"""

from __future__ import annotations

import hashlib
import html
import itertools
import math
import re
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from forgetfilter.errors import ModelError, unknown
from forgetfilter.models import classifiers
from forgetfilter.models.batches import length_batches
from forgetfilter.records import whole_characters
from forgetfilter.runs import sha256

NGRAM = Path(__file__).parent / "ngram"
BUCKETS = 1 << 20  # a feature is known by its place only: the weights hold no list of words
HELD_OUT = 1 / 3  # share of every source that the shipped scorer was not trained on

_WEB = re.compile(r"https?://\S*|www\.\S+|@\w+|^\s*rt\b")  # of tweets: says who and where, not what
_WORD = re.compile(r"[^\W_]+(?:['’*$!@]+[^\W_]+)*\**")
_LATIN = re.compile(r"[a-zA-Z]")
_DIGIT, _DRAWL = re.compile(r"\d"), re.compile(r"(.)\1{2,}")


@dataclass(frozen=True, slots=True)
class Scorer:
    """Judges texts: `scorer(texts)` gives one probability of being toxic each, None where it cannot tell."""

    name: str
    version: str  # tells one set of weights from another
    threshold: float  # a text counts as toxic from here on
    judge: Callable[[Sequence[str]], list[float | None]]

    def __call__(self, texts: Sequence[str]) -> list[float | None]:
        return self.judge(texts)


def load(
    name: str = "ngram", *, label: str | int | None = None, device: str = "auto", batch_tokens: int = 8192
) -> Scorer:
    """The scorer of this name: `ngram`, the folder of a sequence classifier, or its hub id.

    A classifier's probability is that of `label`, a name or a number in its config; where none is given, the
    label that names toxicity. It is a sigmoid of its own where the labels do not exclude each other
    (`problem_type` multi_label_classification, or a single label), else a softmax over all. What is longer
    than the model reads is cut. `batch_tokens` bounds texts × longest text of a batch and changes only speed.

    Raises ModelError for what cannot be loaded (safetensors only, no code from the model) or has no such
    label, ConfigError for a device that is not there.
    """
    if name == "ngram":
        if label is not None:
            raise ModelError("scorer ngram: has one label only; leave out the label")
        return ngram()
    return _classifier(name, label, device, batch_tokens)


def ngram(folder: Path = NGRAM) -> Scorer:
    """The shipped scorer, or one that scripts/scorer/train.py wrote elsewhere. English only.

    A text without a Latin letter cannot be judged. ModelError where the weights are missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / "weights.safetensors"
    try:
        with safe_open(path, framework="numpy") as file:
            header, weights = file.metadata(), file.get_tensor("weights").astype(np.float32)  # (BUCKETS,)
        bias, threshold = float(header["bias"]), float(header["threshold"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"scorer {path}: not the weights of an n-gram scorer ({error}); reinstall"
        ) from error
    if weights.shape != (BUCKETS,):
        raise ModelError(
            f"scorer {path}: {weights.shape} weights, {BUCKETS} expected; reinstall forgetfilter"
        )

    def judge(texts: Sequence[str]) -> list[float | None]:
        return [_probability(weights, bias, text) for text in texts]

    return Scorer("ngram", sha256(path)[:12], threshold, judge)


def words(text: str) -> list[str]:
    """The words the shipped scorer sees: folded, without addresses and names of accounts, digits alike."""
    text = unicodedata.normalize("NFKC", html.unescape(text)).casefold()
    text = _DRAWL.sub(r"\1\1", _DIGIT.sub("0", _WEB.sub(" ", text)))
    return _WORD.findall(text)


def held_out(text: str) -> bool:
    """Whether a text was kept from the shipped scorer's training, if it belongs to one of its sources.

    Decided by the text's words alone, so that repeated and re-posted texts fall on one side.
    """
    digest = hashlib.sha256(" ".join(words(text)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT * 2**32


def features(text: str) -> np.ndarray:
    """Places, in a table of BUCKETS weights, of a text's words, word pairs and parts of words; each once."""
    found = words(text)
    pairs = [_place(f"{a} {b}") for a, b in itertools.pairwise(found)]
    return np.unique(np.array([place for word in found for place in _word(word)] + pairs, np.int64))


@lru_cache(maxsize=1 << 16)
def _word(word: str) -> tuple[int, ...]:
    """The whole word, and its runs of 3 to 5 characters with its ends marked."""
    marked = f"<{word}>"
    parts = {marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)}
    return (_place(f"={word}"), *sorted(map(_place, parts)))


def _place(feature: str) -> int:
    return zlib.crc32(feature.encode("utf-8", "surrogatepass")) % BUCKETS


def _probability(weights: np.ndarray, bias: float, text: str) -> float | None:
    if not _LATIN.search(text):
        return None
    places = features(text)
    if not len(places):  # an address, and no word beside it
        return None
    # Over √n, not n: one hostile word among ten still shows, and a long text is not hostile by its length.
    logit = float(weights[places].sum()) / math.sqrt(len(places)) + bias
    return 0.5 + 0.5 * math.tanh(logit / 2)  # the logistic function, without its overflow


def _classifier(name: str, label: str | int | None, device: str, batch_tokens: int) -> Scorer:
    """A sequence classifier of transformers."""
    import torch

    model, tokenizer, fingerprint = classifiers.load(name, device=device, role="scorer")
    config = model.config
    chosen = _label(name, config.id2label, label)
    if config.problem_type == "regression":
        raise ModelError(f"scorer {name}: a regression model, whose output is no probability")
    alone = config.problem_type == "multi_label_classification" or config.num_labels == 1
    longest = min(tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or 512, 512)

    def judge(texts: Sequence[str]) -> list[float | None]:
        scores: list[float | None] = [None] * len(texts)
        ids = {
            i: tokenizer(whole_characters(text), truncation=True, max_length=longest)["input_ids"]
            for i, text in enumerate(texts)
            if text.strip()
        }
        places = list(ids)
        with torch.inference_mode():
            for some in length_batches([*map(len, ids.values())], batch_tokens):
                batch = [places[k] for k in some]
                padded = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt")
                logits = model(**padded.to(model.device)).logits.float()  # (batch, labels)
                all_labels = logits.sigmoid() if alone else logits.softmax(-1)
                for i, p in zip(batch, all_labels[:, chosen].tolist(), strict=True):
                    scores[i] = p if math.isfinite(p) else None
        return scores

    return Scorer(name, f"{fingerprint[:12]} {config.id2label[chosen]}", 0.5, judge)


def _label(name: str, labels: dict[int, str], asked: str | int | None) -> int:
    """The number of the label asked for, or of the one that names toxicity."""
    numbers = {text.lower(): number for number, text in labels.items()}
    listed = ", ".join(f"{number} {text}" for number, text in labels.items())
    if isinstance(asked, int):
        if asked not in labels:
            raise ModelError(f"scorer {name}: no label {asked}; its labels: {listed}")
        return asked
    if asked is not None:
        if asked.lower() not in numbers:
            raise ModelError(f"scorer {name}: {unknown('label', asked, labels.values())}")
        return numbers[asked.lower()]
    for wanted in TOXIC_LABELS:
        if wanted in numbers:
            return numbers[wanted]
    if len(labels) == 1:
        return next(iter(labels))
    raise ModelError(
        f"scorer {name}: none of its labels names toxicity ({listed}); say which one it is, by name or number"
    )


# Names that public classifiers give to what we look for, the likeliest first.
TOXIC_LABELS = (
    "toxic",
    "toxicity",
    "hate",
    "hateful",
    "hate_speech",
    "offensive",
    "abusive",
    "unsafe",
    "harmful",
)
