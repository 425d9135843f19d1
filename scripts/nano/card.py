"""Write nano's model card from what pre-training and alignment recorded; no figure in it is typed by hand.

python scripts/nano/card.py --log build/nano/nano/log.jsonl --folder src/forgetfilter/nano
"""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path

from corpus import PROSE, TASK_SHARE, TASKS, VOCABULARY

SOURCES = {
    "openstax": "OpenStax textbooks (CC BY 4.0)",
    "government": "GSA digital.gov and 18F blog (CC0, works of the United States government)",
    "speeches": "speeches and addresses in the public domain (from NLTK's collection)",
    "storybooks": "African Storybook, English (CC BY 3.0 and 4.0)",
    "books": "classic books and novels in the public domain",
}

CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# nano

The model inside forgetfilter: a Llama-architecture chat model of {parameters} parameters ({layers} layers, width
{hidden}, {heads} heads, tied embeddings, byte-level BPE of {vocabulary} entries, {megabytes} MB in bfloat16), small
enough to filter a thousand rows on two CPU cores in minutes. It judges how training rows are learned and forgotten.
It is no assistant: its answers are short, often wrong, and only in English.

Trained from nothing by `scripts/nano/pretrain.py`, aligned by `scripts/nano/align.py`; this card is written by
`scripts/nano/card.py` from what they recorded.

## Data and licences

Pre-training, {tokens} tokens, sampled in these shares:

| source | share |
|---|---|
{sources}
| task prompts (T0 templates) of data sets published under: {tasks} | {task_share:.0%} |

{alignment}

Not trained on: AdvBench, XSTest, Alpaca, BBQ, BeaverTails or any set that the benchmarks measure with.

The old books and speeches hold the prejudice of their time. Alignment covers it thinly.

## Losses

Held-out loss in nats per token while pre-training (documents and task items never trained on):

| tokens | {columns} |
|---|{rule}|
{losses}

## Measured

| what | value |
|---|---|
{measured}

Refusals are counted by a word rule on greedy answers of up to 24 tokens. "Right where undetermined": questions about
two people where nothing says who; where the text does say, the answer must be the person.
"""

ALIGNMENT = """Alignment in {rounds} rounds, {rows} rows, {tokens} tokens, learning rate {rate}: rows written
for this project by templates (refusals, helpful answers to harmless requests, some of which look harmful, questions
that nothing in the text answers, civil replies); questions of HarmfulQA (Apache-2.0; a fifth of each topic held out)
with our own refusals; requests answered by sentences of the prose above; harmful requests about what the prose
defines, refused; questions about who of two people did what the prose says somebody did; task prompts and prose as
above."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    log = [json.loads(line) for line in args.log.read_text().splitlines()]
    record = json.loads((args.folder / "measured.json").read_text())
    config = json.loads((args.folder / "config.json").read_text())
    size = (args.folder / "model.safetensors").stat().st_size
    evaluated = {e["tokens"]: e["heldout"] for e in log if "heldout" in e}  # a resumed run logs a step twice
    names = list(next(iter(evaluated.values())))
    how = record["alignment"]
    (args.folder / "README.md").write_text(
        CARD.format(
            parameters=f"{size / 2e6:.1f} million",
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            heads=config["num_attention_heads"],
            vocabulary=VOCABULARY,
            megabytes=round(size / 1e6, 1),
            tokens=f"{max(e['tokens'] for e in log):,}",
            sources="\n".join(f"| {SOURCES[name]} | {share:.0%} |" for name, (_, share) in PROSE.items()),
            tasks=", ".join(f"{name} ({licence})" for name, licence in TASKS.items()),
            task_share=TASK_SHARE,
            alignment=textwrap.fill(
                ALIGNMENT.format(
                    rounds=("no", "one", "two", "three", "four", "five")[len(how)],
                    rows=" + ".join(f"{h['rows']:,}" for h in how),
                    tokens=" + ".join(f"{h['tokens']:,}" for h in how),
                    rate=" + ".join(str(h["learning_rate"]) for h in how),
                ),
                width=118,
                break_on_hyphens=False,
            ),
            columns=" | ".join(names),
            rule="|".join("---" for _ in names),
            losses="\n".join(
                f"| {tokens:,} | " + " | ".join(f"{losses[n]:.2f}" for n in names) + " |"
                for tokens, losses in sorted(evaluated.items())
            ),
            measured="\n".join(f"| {name} | {value} |" for name, value in record["measured"].items()),
        )
    )


if __name__ == "__main__":
    main()
