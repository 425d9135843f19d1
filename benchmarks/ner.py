"""Does the detector that asks a token-classification model find what patterns cannot see? One command.

    python benchmarks/ner.py --data ../shared/data --work build/ner

No such model is at hand offline, so one is trained here: nano with a classification head, on the half of the
synthetic texts (presidio-research) whose templates the patterns were bettered by. It is then loaded from its folder
as any other and measured on the other half, whose templates it never saw. nano reads from left to right only: a
model made for this finds more.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from personal_data import Text, read_gold, rows_per_second, span_table, written_on
from sections import RESULTS, make_section, markdown

from forgetfilter.models import load as models
from forgetfilter.unlearn import personal_data
from forgetfilter.unlearn.personal_data import detect_all

KINDS = ("PERSON", "ADDRESS", "LOCATION", "ORGANIZATION")  # the others have patterns
LABELS = ["O", *(f"{part}-{kind}" for kind in KINDS for part in "BI")]


def labelled(texts: Sequence[Text], tokenizer: Any) -> list[dict[str, list[int]]]:
    """Token ids and a label for each: that of the span in which it begins, white space in front left out."""
    rows = []
    for text, spans in texts:
        encoded = tokenizer(text, return_offsets_mapping=True)
        labels, before = list[int](), None
        for start, end in encoded["offset_mapping"]:
            while start < end and text[start].isspace():
                start += 1
            span = next((s for s in spans if s.kind in KINDS and s.start <= start < s.end), None)
            labels.append(LABELS.index(f"{'I' if span is before else 'B'}-{span.kind}") if span else 0)
            before = span
        rows.append({"input_ids": encoded["input_ids"], "labels": labels})
    return rows


def train(texts: Sequence[Text], folder: Path, *, epochs: float, seed: int) -> None:
    """A token classifier from nano, saved to `folder` as transformers saves models."""
    from transformers import (
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(models.NANO)
    model = AutoModelForTokenClassification.from_pretrained(
        models.NANO, id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)},
        dtype="float32",
    )  # fmt: skip
    settings = TrainingArguments(
        output_dir=str(folder / "trainer"), num_train_epochs=epochs, learning_rate=5e-4, seed=seed,
        per_device_train_batch_size=16, lr_scheduler_type="cosine", warmup_steps=20, weight_decay=0.1,
        save_strategy="no", report_to="none", logging_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    rows: Any = labelled(texts, tokenizer)
    Trainer(model, settings, DataCollatorForTokenClassification(tokenizer), rows).train()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def section(data: Path, work: Path, epochs: float, seed: int, command: str) -> str:
    """The text of the section, measured now; the model is trained where `work` does not hold it yet."""
    large = read_gold(data / "pii" / "presidio_research" / "generated_large.json")
    seen, unseen = (
        [text for template, text in large if written_on(template) is half] for half in (True, False)
    )
    if not (work / "model.safetensors").exists():
        train(seen, work, epochs=epochs, seed=seed)
    name = f"ner:{work}"
    alone = [personal_data.detector(name)]
    ways = {"the model alone": alone, "patterns, names and the model": [
        personal_data.patterns(), personal_data.names(), *alone
    ]}  # fmt: skip
    parts = [
        "### Detector by a token-classification model",
        f"    {command}",
        f"nano with a classification head, {epochs:g} epochs over {len(seen)} synthetic texts (presidio-research), "
        f"measured on {len(unseen)} texts of other templates. It knows {', '.join(KINDS)}; counted as above.",
    ]
    texts = [text for text, _ in unseen]
    for title, detectors in ways.items():
        found = detect_all(texts, detectors)
        parts += [f"#### {title}", span_table(unseen, found, seed)]
    speeds = [(title, f"{rows_per_second(texts, detectors):,.0f}") for title, detectors in ways.items()]
    parts.append(markdown(("detectors", "texts a second (one process)"), speeds))
    return "\n\n".join(parts)


def main(given: Sequence[str] | None = None) -> int:
    """The command; 0, or the exit code of an error."""
    given = list(sys.argv[1:] if given is None else given)
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data catalogue")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of the model; trained where it is not there"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(given)
    command = shlex.join(["python", "benchmarks/ner.py", *given])
    a = arguments
    return make_section(a.results, "ner", lambda: section(a.data, a.work, a.epochs, a.seed, command))


if __name__ == "__main__":
    sys.exit(main())
