"""The text nano is pre-trained on: read, held out, tokenised once into flat files of token ids.

Sources are the prose collections and the task prompts of the data folder's `pretrain/`. Task
prompts are taken from an allow-list: only data sets whose authors permit commercial use and
redistribution of derived work, because nano's weights are shipped under Apache-2.0.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zstandard
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 8192
END_OF_TEXT, END, SYSTEM, USER, ASSISTANT, PAD = SPECIAL = (
    "<|endoftext|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|pad|>",
)

# source -> (file stem, share of the training tokens, kind)
PROSE = {
    "openstax": (["openstax_philschatz", "openstax_cnxml"], 0.26),
    "government": (["gsa_digitalgov", "18f_blog"], 0.15),
    "speeches": (["nltk_public_domain"], 0.03),
    "storybooks": (["african_storybook_en"], 0.01),
    "books": (["classic_books_markdown", "english_novels_100"], 0.20),
}
TASK_SHARE = 0.35
# Prefixes of task names, and the licence under which the data set is published. Others are left out: research-only
# (adversarial_qa by its authors' page, dream, race, sciq, quail, samsum, multi_news, ag_news), without a stated
# licence (social_i_qa, wiqa), or of text whose owners' consent is unknown (cnn_dailymail).
TASKS = {
    "common_gen": "MIT",
    "commonsense_qa": "MIT",
    "cosmos_qa": "CC BY 4.0",
    "dbpedia_14": "CC BY-SA 3.0",
    "duorc": "MIT",
    "kilt_tasks_hotpotqa": "CC BY-SA 4.0",
    "qasc": "CC BY 4.0",
    "quarel": "CC BY",
    "quartz": "CC BY 4.0",
    "quoref": "CC BY 4.0",
    "ropes": "CC BY 4.0",
    "wiki_bio": "CC BY-SA 3.0",
    "wiki_hop": "CC BY-SA 3.0",
}


def chat(*turns: tuple[str, str]) -> str:
    """Render (role, text) turns as nano's chat template does, without the end-of-text opener."""
    return "".join(f"<|{role}|>{text.strip()}{END}" for role, text in turns)


def documents(folder: Path, stem: str) -> Iterator[str]:
    """Documents of one prose file; they end with a line `<|doc|>`."""
    raw = zstandard.ZstdDecompressor().stream_reader((folder / f"{stem}.txt.zst").open("rb"))
    lines: list[str] = []
    for line in io.TextIOWrapper(raw, encoding="utf-8"):
        if line.strip() == "<|doc|>":
            yield "".join(lines).strip()
            lines = []
        else:
            lines.append(line)
    if lines:
        yield "".join(lines).strip()


def tasks(folder: Path) -> Iterator[tuple[str, str, bool]]:
    """(task, rendered chat, held out?) of every allowed task prompt of at most 2,200 characters."""
    raw = zstandard.ZstdDecompressor().stream_reader((folder / "t0_tasks.jsonl.zst").open("rb"))
    seen: dict[str, int] = {}
    for line in io.TextIOWrapper(raw, encoding="utf-8"):
        row = json.loads(line)
        index = seen[row["task"]] = seen.get(row["task"], -1) + 1
        if not any(row["task"].startswith(prefix) for prefix in TASKS):
            continue
        answer = row["completion"].removesuffix(END_OF_TEXT).strip()
        if answer and len(row["prompt"]) + len(answer) <= 2200:
            # Templates of one data set share their items in the same order, so the position holds
            # out an item from every template at once.
            yield row["task"], chat(("user", row["prompt"]), ("assistant", answer)), index % 25 == 24


def train_tokenizer(folder: Path, out: Path) -> Tokenizer:
    """Byte-level BPE of 8,192 entries on a sample of every source, saved as `out`."""
    if out.exists():
        return Tokenizer.from_file(str(out))
    draw = random.Random(0)

    def sample() -> Iterator[str]:
        for stems, share in PROSE.values():
            for stem in stems:
                keep = share * 0.9 if "books" in stem or "novels" in stem else 0.6
                for text in documents(folder, stem):
                    for start in range(0, len(text), 4000):
                        if draw.random() < keep * (0.1 if "books" in stem or "novels" in stem else 1):
                            yield text[start : start + 4000]
        for _, text, held_out in tasks(folder):
            if not held_out and draw.random() < 0.4:
                for special in SPECIAL:
                    text = text.replace(special, "\n")
                yield text

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample(), trainer)
    tokenizer.save(str(out))
    return tokenizer


def encode(folder: Path, out: Path, tokenizer: Tokenizer, characters_of_books: int = 40_000_000) -> None:
    """Write `<source>.train.bin` and `<source>.heldout.bin` (uint16 token ids) into `out`, once."""

    def write(name: str, texts: Iterator[tuple[str, bool]]) -> None:
        if (out / f"{name}.heldout.bin").exists():
            return
        parts: dict[bool, list[np.ndarray]] = {True: [], False: []}
        batch: list[tuple[str, bool]] = []

        def flush() -> None:
            encoded = tokenizer.encode_batch([END_OF_TEXT + text for text, _ in batch])
            for (_, held_out), e in zip(batch, encoded, strict=True):
                parts[held_out].append(np.array(e.ids, dtype=np.uint16))
            batch.clear()

        for text, held_out in texts:
            batch.append((text, held_out))
            if len(batch) == 256:
                flush()
        flush()
        for held_out, suffix in ((False, "train"), (True, "heldout")):
            np.concatenate(parts[held_out]).tofile(out / f"{name}.{suffix}.bin")

    for name, (stems, _) in PROSE.items():

        def prose(name: str = name, stems: list[str] = stems) -> Iterator[tuple[str, bool]]:
            total = 0
            for stem in stems:
                budget = characters_of_books // len(stems) if name == "books" else 10**12
                used = 0
                for text in documents(folder, stem):
                    # Long books are cut into chapters' worth of text, so that every book gives some.
                    for start in range(0, min(len(text), 400_000 if name == "books" else 10**9), 20_000):
                        if used >= budget:
                            break
                        piece = text[start : start + 20_000]
                        used += len(piece)
                        total += 1
                        yield piece, total % 100 == 99

        write(name, prose())
    write("tasks", ((text, held_out) for _, text, held_out in tasks(folder)))
