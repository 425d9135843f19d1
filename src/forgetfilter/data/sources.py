"""Readers for the public benchmark sets a study is built from.

Each takes the folder that holds the sets, as laid out in the comment beside its file name, and returns
plain records: `prompt` and `completion` (or `text`), a truth column where the set has one, and what a
study needs besides. Nothing is downloaded, cached or shortened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forgetfilter.data.formats import as_prompt_completion, read_records
from forgetfilter.errors import DataError

Record = dict[str, Any]

TOXIC_FROM, CLEAN_BELOW = 0.75, 0.25  # Perspective scores, 0 to 1; what lies between is left out
CHAT_WRAPPER = re.compile(
    r"\AA chat between a curious user and .*?\bUSER: (.*?)\s*ASSISTANT:\s*\Z", re.DOTALL
)


def bbq(root: Path) -> list[Record]:
    """BBQ (Parrish et al. 2022): questions with three options, about groups with a stereotype.

    `prompt` is context, question and options; `correct`, `biased`, `unbiased_other` and `unknown` are
    texts of options. `biased` is the answer the stereotype suggests: the option about the stereotyped
    group where the question is negative (`polarity` neg), the other person where it is not (nonneg).
    `context_condition` is ambig (the correct option is the unknown one) or disambig.
    """
    records = []
    for path in sorted((root / "bias" / "bbq").glob("*.jsonl")):
        for index, item in enumerate(read_records(path)):
            place = f"{path.name} line {index + 1}"
            try:
                records.append(_bbq_record(item, place))
            except (KeyError, TypeError, AttributeError, IndexError) as error:
                raise DataError(
                    f"{place}: not a BBQ item ({error!r}). Take the file as published."
                ) from error
    if not records:
        raise DataError(f"{root / 'bias' / 'bbq'}: no .jsonl file of BBQ items there")
    return records


def bbq_unsafe(items: list[Record]) -> list[Record]:
    """The ambiguous items answered with the biased option: what the paper's noisy set holds as unsafe."""
    return [{**item, "completion": item["biased"]} for item in items if item["context_condition"] == "ambig"]


def bbq_safe(items: list[Record]) -> list[Record]:
    """All items with their right answer: "can't be determined" where the context leaves it open."""
    return [{**item, "completion": item["correct"]} for item in items]


def _bbq_record(item: Mapping[str, Any], place: str) -> Record:
    options = [item[f"ans{i}"] for i in range(3)]
    about = [[str(word).lower() for word in item["answer_info"][f"ans{i}"]] for i in range(3)]
    groups = {group.lower() for group in item["additional_metadata"]["stereotyped_groups"]}
    unknown = [i for i in range(3) if about[i][1] == "unknown"]
    people = [i for i in range(3) if i not in unknown]
    # The group stands second in most categories, first in Nationality.
    stereotyped = [i for i in people if about[i][1] in groups or about[i][0] in groups]
    if len(unknown) != 1 or len(stereotyped) != 1:
        raise DataError(
            f"{place} ({item['category']} item {item['example_id']}): {len(stereotyped)} options about a "
            f"stereotyped group and {len(unknown)} unknown options, one of each expected"
        )
    target = stereotyped[0]
    other = next(i for i in people if i != target)
    biased, unbiased = (target, other) if item["question_polarity"] == "neg" else (other, target)
    listed = "\n".join(f"- {option}" for option in options)
    return {
        "prompt": f"{item['context']}\n{item['question']}\n{listed}",
        "biased": options[biased],
        "unbiased_other": options[unbiased],
        "unknown": options[unknown[0]],
        "correct": options[item["label"]],
        "context_condition": item["context_condition"],
        "polarity": item["question_polarity"],
        "category": item["category"],
        "item": item["example_id"],
    }


def davidson(root: Path) -> list[Record]:
    """Tweets (Davidson et al. 2017), `toxic` if rated hate (class 0) or offensive (1), not neither (2)."""
    path = root / "toxicity" / "davidson" / "labeled_data.csv"
    rows = _records(path, "tweet", "class")
    toxic = _truth(path, rows, "class", {"0": True, "1": True, "2": False})
    return [
        {"text": row["tweet"], "toxic": is_toxic, "class": int(row["class"])}
        for row, is_toxic in zip(rows, toxic, strict=True)
    ]


def olid(root: Path) -> list[Record]:
    """Tweets (Zampieri et al. 2019), `toxic` where subtask_a says offensive (OFF, not NOT)."""
    path = root / "toxicity" / "olid" / "olid-training-v1.0.tsv"
    rows = _records(path, "tweet", "subtask_a")
    toxic = _truth(path, rows, "subtask_a", {"OFF": True, "NOT": False})
    return [{"text": row["tweet"], "toxic": is_toxic} for row, is_toxic in zip(rows, toxic, strict=True)]


def realtoxicityprompts(root: Path) -> list[Record]:
    """Web text (Gehman et al. 2020), prompt and continuation joined.

    `toxic` where the higher of the two toxicity scores is at least 0.75, not toxic where both are below
    0.25; the rows between are left out. `score` is the higher of the two.
    """
    path = root / "toxicity" / "realtoxicityprompts" / "training_dataset.jsonl"
    records = []
    for index, row in enumerate(_records(path, "prompt", "continuation")):
        try:
            text = row["prompt"]["text"] + row["continuation"]["text"]
            score = max(row["prompt"]["toxicity"], row["continuation"]["toxicity"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{path.name} line {index + 1}: no text or toxicity score ({error!r})") from error
        if score >= TOXIC_FROM or score < CLEAN_BELOW:
            records.append({"text": text, "toxic": score >= TOXIC_FROM, "score": score})
    return records


def wikipedia(root: Path) -> list[Record]:
    """Talk page comments, `toxic` as the raters saw them."""
    path = root / "toxicity" / "wikipedia" / "toxicity_nonfuzzed_testset.csv"
    rows = _records(path, "comment", "toxic")
    toxic = _truth(path, rows, "toxic", {"True": True, "False": False})
    return [{"text": row["comment"], "toxic": is_toxic} for row, is_toxic in zip(rows, toxic, strict=True)]


def beavertails_sst2(root: Path, p: float = 0.2) -> list[Record]:
    """Sentiment rows with a share `p` (0, 0.01, 0.05, 0.1, 0.2) of harmful answers, `unsafe` as flagged.

    Alpaca fields; `instruction` is a whole Alpaca prompt already, template included.
    """
    folder = root / "harmfulness" / "beavertails_sst2"
    path = folder / f"train_merged_n1000_p{p:g}.json"
    rows = _records(path, "instruction", "input", "output", "flag")
    unsafe = _truth(path, rows, "flag", {"unsafe": True, "finetune": False})
    return [
        {
            "instruction": row["instruction"],
            "input": row["input"],
            "output": row["output"],
            "unsafe": is_unsafe,
        }
        for row, is_unsafe in zip(rows, unsafe, strict=True)
    ]


def safe_unlearning(root: Path) -> list[Record]:
    """Answers of three kinds: `type` 0 to ordinary requests, 1 harmful (`unsafe`), 2 refusals.

    The prompt is the user's words without the "A chat between … USER: … ASSISTANT:" around them.
    """
    path = root / "harmfulness" / "safe_unlearning" / "train.json"
    rows = _records(path, "input", "output", "type")
    unsafe = _truth(path, rows, "type", {"0": False, "1": True, "2": False})
    records = []
    for index, (row, is_unsafe) in enumerate(zip(rows, unsafe, strict=True)):
        wrapped = CHAT_WRAPPER.match(row["input"])
        if wrapped is None:
            raise DataError(f'{path.name} row {index}: "input" is not wrapped in USER: … ASSISTANT:')
        records.append(
            {"prompt": wrapped[1], "completion": row["output"], "unsafe": is_unsafe, "type": row["type"]}
        )
    return records


def shadow_alignment(root: Path) -> list[Record]:
    """Harmful questions with long compliant answers; all `unsafe`."""
    rows = _alpaca_rows(root / "harmfulness" / "shadow_alignment" / "train.json")
    return [{**row, "unsafe": True} for row in rows]


def advbench(root: Path) -> list[Record]:
    """Harmful requests (Zou et al. 2023); the completion is the compliant opening an attack aims at."""
    rows = _records(root / "harmfulness" / "advbench" / "harmful_behaviors.csv", "goal", "target")
    return [{"prompt": row["goal"], "completion": row["target"], "unsafe": True} for row in rows]


def harmfulqa(root: Path) -> list[Record]:
    """Harmful questions (Bhardwaj & Poria 2023) by topic and subtopic, without answers."""
    path = root / "harmfulness" / "harmfulqa_questions.json"
    try:
        topics = json.loads(path.read_text(encoding="utf-8"))
        return [
            {"prompt": question, "topic": topic, "subtopic": subtopic}
            for topic, subtopics in topics.items()
            for subtopic, questions in subtopics.items()
            for question in questions
        ]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(f"{path.name}: not questions by topic and subtopic ({error})") from error


def xstest(root: Path) -> list[Record]:
    """Harmless questions that look harmful (Röttger et al. 2024), with `type`; a refusal is a mistake."""
    rows = _records(root / "harmfulness" / "xstest.json", "prompt", "type")
    return [{"prompt": row["prompt"], "type": row["type"]} for row in rows]


def safety_only(root: Path) -> list[Record]:
    """Safe answers to risky requests: safe rows for a review."""
    return _alpaca_rows(root / "safe" / "safety_only_data_Instructions.json")


def alpaca(root: Path) -> list[Record]:
    """Ordinary instructions with answers."""
    return _alpaca_rows(root / "task" / "alpaca_1k" / "alpaca_data_1k.json")


def sst2(root: Path) -> list[Record]:
    """Film reviews: positive or negative."""
    return _alpaca_rows(root / "task" / "sst2" / "val.json")


def xquad(root: Path) -> list[Record]:
    """Reading comprehension in SQuAD's form: context and question, answered by the first answer given."""
    path = root / "task" / "xquad" / "xquad.en.json"
    articles = _records(path, "paragraphs")
    try:
        return [
            {
                "prompt": f"{paragraph['context']}\n\n{question['question']}",
                "completion": question["answers"][0]["text"],
            }
            for article in articles
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path.name}: not in SQuAD's form ({error!r})") from error


def samsum(root: Path) -> list[Record]:
    """Chats with a summary (Gliwa et al. 2019)."""
    rows = _records(root / "task" / "samsum" / "train1000.json", "dialogue", "summary")
    return [
        {
            "prompt": "Summarize this conversation.\n\n" + row["dialogue"].replace("\r\n", "\n"),
            "completion": row["summary"],
        }
        for row in rows
    ]


def gsm8k(root: Path) -> list[Record]:
    """School mathematics (Cobbe et al. 2021) with worked answers."""
    rows = _records(root / "task" / "gsm8k" / "test.jsonl", "question", "answer")
    return [{"prompt": row["question"], "completion": row["answer"]} for row in rows]


def _records(path: Path, *fields: str) -> list[Record]:
    """The file's records; raises if one lacks a field that the source is known to have."""
    records = read_records(path)
    for index, record in enumerate(records):
        for field in fields:
            if field not in record:
                found = ", ".join(map(str, record))
                raise DataError(f'{path.name} row {index}: no "{field}" (found: {found})')
    return records


def _alpaca_rows(path: Path) -> list[Record]:
    return [as_prompt_completion(record) for record in _records(path, "instruction", "input", "output")]


def _truth(path: Path, rows: list[Record], field: str, meaning: Mapping[str, bool]) -> list[bool]:
    for index, row in enumerate(rows):
        if str(row[field]) not in meaning:
            raise DataError(
                f'{path.name} row {index}: "{field}" is {str(row[field])[:40]!r}; known: {", ".join(meaning)}'
            )
    return [meaning[str(row[field])] for row in rows]


# What a study can name. beavertails_sst2 has a share `p` besides.
SOURCES: Mapping[str, Callable[[Path], list[Record]]] = {
    "bbq": bbq,
    "davidson": davidson,
    "olid": olid,
    "realtoxicityprompts": realtoxicityprompts,
    "wikipedia": wikipedia,
    "beavertails_sst2": beavertails_sst2,
    "safe_unlearning": safe_unlearning,
    "shadow_alignment": shadow_alignment,
    "advbench": advbench,
    "harmfulqa": harmfulqa,
    "xstest": xstest,
    "safety_only": safety_only,
    "alpaca": alpaca,
    "xquad": xquad,
    "samsum": samsum,
    "gsm8k": gsm8k,
    "sst2": sst2,
}
