"""`self-align`: files in, the file of safe rows and the log of candidates out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetfilter.align import flow
from forgetfilter.align.candidates import Log
from forgetfilter.align.checks import Checker
from forgetfilter.align.prompts import PRIMING, Seed
from forgetfilter.errors import ConfigError, DataError, unknown
from forgetfilter.unlearn.replacements import TEMPERATURE

FIELDS = (
    "prompt",
    "instruction",
    "goal",
    "question",
    "text",
    "code",
)  # where a seed may stand, in this order
KINDS = {
    "risky": "risky",
    "harmful": "risky",
    "harmless": "harmless",
    "code": "code",
}  # as a row may call them


@dataclass(frozen=True, slots=True)
class Aligned:
    """What came of a run."""

    rows: Mapping[str, int]  # source -> rows written
    candidates: Mapping[str, Mapping[str, int]]  # step -> reason, "" for what passed -> candidates
    resumed: int  # candidates that an earlier try had left
    tasks: int
    log: Path


def self_align(
    seeds: Path,
    output: Path,
    *,
    facts: Path | None = None,
    kind: str = "auto",
    prompt_field: str | None = None,
    model: str = "nano",
    concepts: int = 2,
    answers: int = 4,
    fact_share: float = 0.5,
    detectors: Sequence[str] = ("patterns", "names"),
    temperature: float = TEMPERATURE,
    max_new_tokens: int = 128,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    quantization: str = "none",
    progress: Callable[[str, int, int], None] | None = None,
) -> Aligned:
    """Safe rows, written by the model that is to be filtered with, into the JSONL file `output`.

    Every candidate is in NAME.candidates.jsonl beside it, which is only ever appended to: the same command goes on
    from there, with more `answers` too. Raises ConfigError where `output` exists or the log is another command's,
    DataError for seeds or facts that are none, or where nothing passed, ModelError for the model.
    """
    from forgetfilter.guide.generation import load_to_write, precision
    from forgetfilter.models import scorers
    from forgetfilter.models.load import fingerprint
    from forgetfilter.runs import sha256_of
    from forgetfilter.unlearn.personal_data import detector
    from forgetfilter.unlearn.replacements import model_writer

    log_file = output.with_suffix(".candidates.jsonl")
    if output.exists():
        raise ConfigError(f"{output} is there already and is not overwritten; use --output another file")
    _refuse_wrong(concepts, answers, fact_share, temperature, detectors)
    found, known = read_seeds(seeds, prompt_field, kind), read_facts(facts) if facts else []
    checker = Checker(scorers.load("ngram"), [*map(detector, detectors)], [detector("patterns")])
    loaded = load_to_write(model, dtype=dtype, device=device, quantization=quantization)
    settings = {
        "model": model, "weights": fingerprint(model), "precision": precision(loaded),
        "quantization": quantization, "temperature": temperature, "max_new_tokens": max_new_tokens,
        "seed": seed, "concepts": concepts,
        "detectors": list(detectors), "seeds": sha256_of(f"{s.kind} {s.text}" for s in found),
        "facts": sha256_of(json.dumps(fact) for fact in known),
    }  # fmt: skip
    writer = model_writer(
        loaded.model, loaded.tokenizer, temperature=temperature, max_new_tokens=max_new_tokens
    )
    with Log(log_file, settings) as log:
        rows = flow.rows(
            found, known, flow.Asking(writer, log, seed, progress), checker, concepts=concepts, answers=answers,
            fact_share=fact_share, origin={"model": model, "temperature": temperature},
        )  # fmt: skip
        if not rows:
            raise DataError(_nothing(seeds, log))
        _write(output, rows)
        steps = ("concepts", "task", "answer", "question")
        return Aligned(
            Counter(row["source"] for row in rows), {step: log.reasons(step) for step in steps}, log.resumed,
            len({row["provenance"].get("task") for row in rows}), log_file,
        )  # fmt: skip


def run_self_align(seeds: Path, output: Path, *, say: Callable[[str], None], **settings: Any) -> None:
    """`self_align`, told in lines."""

    def told(step: str, done: int, of: int) -> None:
        say(f"{step}: {done} of {of}")

    done = self_align(seeds, output, progress=told, **settings)
    if done.resumed:
        say(f"went on with {done.resumed} candidates of an earlier try")
    tried = done.candidates["answer"]
    say(f"{output}: {', '.join(f'{count} {source}' for source, count in done.rows.items())}")
    say(f"{tried.get('', 0)} of {sum(tried.values())} answers passed; each is in {done.log}")
    rejected = [(reason, count) for reason, count in Counter(tried).most_common() if reason]
    if rejected:
        say(f"rejected: {', '.join(f'{reason} {count}' for reason, count in rejected)}")


def read_seeds(path: Path, field: str | None, kind: str) -> list[Seed]:
    """The seeds of any file of rows. DataError naming row, field and remedy where a row holds none."""
    from forgetfilter.data.formats import read_records

    if kind != "auto" and kind not in PRIMING:
        raise ConfigError(f"--kind: {unknown('kind', kind, ['auto', *PRIMING])}")
    found = []
    for i, record in enumerate(read_records(path)):
        place = f"{path.name} row {i + 1}"
        name = field or next((f for f in FIELDS if isinstance(record.get(f), str)), None)
        text = record.get(name) if name else None
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f'{place}: no text in "{name or FIELDS[0]}" (found: {", ".join(record)}). Name the column with '
                "--prompt-field"
            )
        own = str(record.get("kind") or "risky") if kind == "auto" else kind
        if own not in KINDS:
            raise DataError(
                f'{place}: "kind" is {own!r:.40}; known: {", ".join(KINDS)}. Or say it for all rows with --kind'
            )
        found.append(Seed(f"seed-{i}", text, KINDS[own]))  # ty: ignore[invalid-argument-type]
    if not found:
        raise DataError(f"{path.name}: no seed in it. Give a file with at least one row")
    return found


def read_facts(path: Path) -> list[dict[str, Any]]:
    """Facts as prompt and completion, or as a text alone."""
    from forgetfilter.data.formats import as_prompt_completion, read_records

    facts = []
    for i, record in enumerate(read_records(path)):
        text = record.get("text")
        if set(record) <= {"text", "id", "source"} and isinstance(text, str) and text.strip():
            facts.append({"text": text.strip()})
            continue
        try:
            row = as_prompt_completion(record)
        except DataError as error:
            raise DataError(
                f"{path.name} row {i + 1}: {error}. Give prompt and completion, or a text"
            ) from None
        facts.append({"prompt": row["prompt"], "completion": row["completion"]})
    return facts


def _refuse_wrong(
    concepts: int, answers: int, fact_share: float, temperature: float, detectors: Sequence[str]
) -> None:
    if concepts < 0:
        raise ConfigError(f"concepts {concepts}: give 0 or more")
    if answers < 1:
        raise ConfigError(f"answers {answers}: try at least one answer for each task")
    if not 0 <= fact_share < 1:
        raise ConfigError(f"fact_share {fact_share}: give a share from 0 to below 1, such as 0.5")
    if temperature <= 0 and answers > 1:
        raise ConfigError("temperature 0 writes the same answer each time; raise it, or use --answers 1")
    if not detectors:
        raise ConfigError("no detector named; use --detectors patterns")


def _nothing(seeds: Path, log: Log) -> str:
    reasons = log.reasons("answer").most_common(3)
    told = ", ".join(f"{reason} ({count})" for reason, count in reasons)
    return (
        f"{seeds.name}: no answer of the model passed all checks; most often: {told}. Every candidate is in "
        f"{log.path}. Use a better model, or raise --answers"
    )


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from forgetfilter.runs import atomic

    with atomic(path) as part, part.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
