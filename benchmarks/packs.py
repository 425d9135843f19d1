"""How a real model sees the bundled safe rows: beside real clean rows, unsafe rows and tasks.

    python benchmarks/packs.py --data ../shared/data --model ../smollm2

Three measures on the original model's mean hidden states:

- *told apart*: cross-validated AUC of a logistic regression on the answers' states, pack rows against real clean rows
  of the harm. Lower is better.
- *near*: the share of real unsafe rows with a pack row among their 20 nearest prompts, in a pool of the pack and as
  many task rows. Higher is better. The same share of task rows: lower is better.
- *judged*: the same where the pool holds the pack and as many rows of a file that is unsafe by a fifth, clean by a
  fifth and tasks for the rest: what the filter does.

Rows were chosen by looking at the first sets (--sets choosing); the others (reporting) were only measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sections import RESULTS, make_section, markdown

from forgetfilter.data import formats, packs, sources
from forgetfilter.data.sources import Record
from forgetfilter.records import Message, Row

ROWS = 200  # of each source
NEAREST = 20
DRAWS = 5  # of the pool; the majority decides
MAX_LENGTH = 128


class States(NamedTuple):
    """Of some rows, in order."""

    answer: np.ndarray  # (rows, depths * width)
    question: np.ndarray  # (rows, width)


class Source(NamedTuple):
    """Real rows of one harm."""

    name: str
    unsafe: list[Record]
    clean: list[Record]


def real(root: Path, harm: str, kind: str) -> Source:
    """The real rows of a harm to choose by (`choosing`) or to report on (`reporting`)."""
    choosing = kind == "choosing"
    if harm == "toxicity":
        rows = sources.davidson(root) if choosing else sources.olid(root)
        return Source(
            "davidson" if choosing else "olid",
            [r for r in rows if r["toxic"]],
            [r for r in rows if not r["toxic"]],
        )
    if harm == "bias":
        wanted = ("Age", "Nationality") if choosing else ("Disability_status", "Sexual_orientation")
        items = [i for i in sources.bbq(root) if i["category"] in wanted]
        return Source("BBQ " + ", ".join(wanted), sources.bbq_unsafe(items), sources.bbq_safe(items))
    if choosing:
        rows = (formats.as_prompt_completion(r) for r in sources.beavertails_sst2(root) if r["unsafe"])
        unsafe = [{**r, "prompt": _bare(r["prompt"])} for r in rows]
        return Source("beavertails, safety_only", unsafe, sources.safety_only(root))
    rows = sources.safe_unlearning(root)
    return Source("safe_unlearning", [r for r in rows if r["type"] == 1], [r for r in rows if r["type"] == 2])


def _bare(prompt: str) -> str:
    """The user's words of a prompt in Alpaca's template."""
    return prompt.partition("### Instruction:\n")[2].partition("\n\n### Response:")[0] or prompt


def tasks(root: Path, kind: str) -> list[list[Record]]:
    """Ordinary rows of three sources, other ones to choose by than to report on."""
    halves = []
    for records in (sources.gsm8k(root), sources.alpaca(root), sources.sst2(root)):
        shuffled = random.Random("tasks").sample(records, len(records))
        middle = len(shuffled) // 2
        halves.append(shuffled[:middle] if kind == "choosing" else shuffled[middle:])
    return halves


def sampled(records: Sequence[Record], count: int) -> list[Record]:
    """At most `count` of them as prompt and completion, always the same ones."""
    chosen = random.Random("packs").sample(list(records), min(count, len(records)))
    return [
        r if "prompt" in r and "completion" in r else formats.as_prompt_completion(r)
        for r in chosen
        if len(r.get("text", "four words or more").split()) > 3
    ]


class Reader:
    """Hidden states by the content of the rows; what was read once lies in a folder."""

    def __init__(self, model: str, folder: Path) -> None:
        self.model, self.folder, self.loaded = model, folder, None

    def __call__(self, records: Sequence[Record]) -> States:
        from forgetfilter.filter.states import read_rows
        from forgetfilter.models import load
        from forgetfilter.models.rendering import encode

        texts = [(r["prompt"], r["completion"]) for r in records]
        key = hashlib.sha256(json.dumps([self.model, MAX_LENGTH, texts]).encode()).hexdigest()[:16]
        path = self.folder / f"{key}.npz"
        if not path.exists():
            self.loaded: Any = self.loaded or load.load(self.model)
            rows = [_row(i, *text) for i, text in enumerate(texts)]
            encoded = encode(rows, self.loaded.tokenizer, max_length=MAX_LENGTH)
            read = read_rows(self.loaded.model, encoded, pad_id=self.loaded.tokenizer.pad_token_id or 0)
            self.folder.mkdir(parents=True, exist_ok=True)
            np.savez(path, answer=read.answer, question=read.question)
        with np.load(path) as stored:
            return States(stored["answer"], stored["question"])


def _row(index: int, prompt: str, completion: str) -> Row:
    turns = (Message("user", prompt), Message("assistant", completion))
    return Row(str(index), index, "packs", turns, "chat", {})


def told_apart(one: np.ndarray, other: np.ndarray) -> float:
    """AUC of a logistic regression, out of fold, between two sets of states; 0.5: they look the same."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    values = _standard(np.concatenate([one, other]))
    truth = np.repeat([0, 1], [len(one), len(other)])
    probe = LogisticRegression(C=1e-4, max_iter=300, class_weight="balanced")
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return float(
        roc_auc_score(truth, cross_val_predict(probe, values, truth, cv=folds, method="decision_function"))
    )


def near(asked: dict[str, np.ndarray], pack: np.ndarray) -> dict[str, float]:
    """Per part of a file, the share of its rows with a pack row among the nearest.

    The pool holds the pack and, drawn five times, as many of the file's other rows. Cosine of standardised states.
    """
    file = np.concatenate(list(asked.values()))
    values = _standard(np.concatenate([file, pack]))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    alike = values[: len(file)] @ values.T
    np.fill_diagonal(alike, -np.inf)
    hits = np.zeros(len(file))
    for draw in range(DRAWS):
        some = np.random.default_rng(draw).permutation(len(file))[: len(pack)]
        pool = np.concatenate([some, np.arange(len(file), len(values))])
        nearest = pool[np.argsort(-alike[:, pool], axis=1)[:, :NEAREST]]
        hits += (nearest >= len(file)).any(1)
    ends = np.cumsum([len(part) for part in asked.values()])[:-1]
    return {n: float((h > DRAWS / 2).mean()) for n, h in zip(asked, np.split(hits, ends), strict=True)}


def nearness_to_tasks(unsafe: np.ndarray, tasks: np.ndarray, pack: np.ndarray) -> dict[str, float]:
    """The same in a pool of the pack and as many tasks, without the file's other rows."""
    found = near({"tasks": tasks}, pack)
    values = _standard(np.concatenate([unsafe, tasks[: len(pack)], pack[: len(tasks)]]))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    alike = values[: len(unsafe)] @ values[len(unsafe) :].T
    nearest = np.argsort(-alike, axis=1)[:, :NEAREST]
    return {"unsafe": float((nearest >= min(len(tasks), len(pack))).any(1).mean()), **found}


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(0)) / (values.std(0) + 1e-3)


def line(
    read: Reader, root: Path, title: str, rows: Sequence[Record], source: Source, kind: str
) -> list[str]:
    """One line of the table: safe rows against the real rows of their harm."""
    pack = read(sampled(rows, ROWS))
    unsafe, clean = read(sampled(source.unsafe, ROWS)), read(sampled(source.clean, ROWS))
    asked = np.concatenate([read(sampled(some, ROWS // 2)).question for some in tasks(root, kind)])
    mixed = {"unsafe": unsafe.question[:100], "clean": clean.question[:100], "tasks": asked}
    alone, judged = nearness_to_tasks(unsafe.question, asked, pack.question), near(mixed, pack.question)
    return [
        title,
        source.name,
        f"{told_apart(pack.answer, clean.answer):.3f}",
        f"{alone['unsafe']:.2f} / {alone['tasks']:.2f}",
        f"{judged['unsafe']:.2f} / {judged['clean']:.2f} / {judged['tasks']:.2f}",
    ]


def table(arguments: argparse.Namespace) -> str:
    """The section of RESULTS.md."""
    read = Reader(arguments.model, arguments.work)
    root, lines = arguments.data, []
    for kind in arguments.sets.split(","):
        for harm in arguments.harms.split(","):
            source = real(root, harm, kind)
            other = real(root, harm, "reporting" if kind == "choosing" else "choosing")
            rows = {harm: formats.read_records(packs.path(harm)), f"clean rows of {other.name}": other.clean}
            if arguments.before:
                rows[f"{harm}, before"] = formats.read_records(arguments.before / f"{harm}.jsonl")
            lines += [line(read, root, title, some, source, kind) for title, some in rows.items()]
    head = ["safe rows", "real rows", "told apart from clean rows"]
    head += ["near: unsafe / tasks", "judged: unsafe / clean / tasks"]
    command = "python benchmarks/packs.py --data ../shared/data --model SmolLM2-135M-Instruct"
    return f"## Packs\n\n    {command}\n\n{NOTE}\n\n{markdown(head, lines)}"


def main(given: Sequence[str] | None = None) -> int:
    """Read the flags, write the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True, help="a folder, or any name that --model of the tool takes")
    parser.add_argument("--work", type=Path, default=Path("build/packs"), help="where hidden states are kept")
    parser.add_argument("--before", type=Path, help="folder of other packs to set beside the bundled ones")
    parser.add_argument("--sets", default="choosing,reporting")
    parser.add_argument("--harms", default="toxicity,harmfulness,bias")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(given)
    return make_section(arguments.results, "packs", lambda: table(arguments))


NOTE = (
    "The original model's mean hidden states, 200 rows of each source at most. *Told apart*: AUC of a cross-"
    "validated logistic regression on the answers' states, safe rows against real clean rows; lower is better. "
    "*Near*: share of rows with a safe row among the 20 nearest prompts, pool of the safe rows and as many tasks "
    "(GSM8K, Alpaca, SST-2). *Judged*: the same, pool of the safe rows and as many rows of a file of 100 unsafe, "
    "100 clean rows of the harm and 300 tasks. More of the unsafe is better, fewer of the tasks. Rows were chosen"
    " by Davidson, BeaverTails and BBQ Age and Nationality (the first half of the table); the other sets and "
    "other task rows were only measured. Clean rows of the other real source stand beside each pack: what any "
    "rows from elsewhere reach. “Before”: the packs of 0.1, made from templates."
)

if __name__ == "__main__":
    raise SystemExit(main())
