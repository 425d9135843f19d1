"""The verb `self-align`, and `safe-data`, as it was called before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forgetfilter import options
from forgetfilter.terminal import say, stay_offline_unless_named


def self_align(
    seeds: Annotated[
        Path, typer.Argument(metavar="SEEDS", help="Requests, texts or code: JSON, JSONL, CSV or Parquet.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL file to write.")] = Path("safe.jsonl"),
    facts: Annotated[
        Path | None, typer.Option(help="Knowledge to mix in: prompt and completion, or a text.")
    ] = None,
    prompt_field: Annotated[
        str | None, typer.Option(help="Column of the seeds. [default: prompt, text, code …]")
    ] = None,
    kind: Annotated[
        str,
        typer.Option(help="What all seeds are: risky, harmless, code; auto: a row's own kind, else risky."),
    ] = "auto",
    model: options.ModelFlag = "nano",
    concepts: Annotated[int, typer.Option(help="Topics of a seed to make tasks of; 0: the seeds alone.")] = 2,
    answers: Annotated[int, typer.Option(help="Answers tried for each task.")] = 4,
    fact_share: Annotated[float, typer.Option(help="Share of factual rows, 0 to below 1.")] = 0.5,
    detectors: Annotated[
        str,
        typer.Option(
            help="What finds personal data, joined by commas: patterns, names, presidio, known:FILE, ner:MODEL."
        ),
    ] = "patterns,names",
    temperature: Annotated[float, typer.Option(help="Temperature of what is drawn.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest text in tokens.")] = 128,
    quantized: options.Quantized = "none",
    device: options.Device = "auto",
    seed: Annotated[int, typer.Option(help="Same seed, same rows.")] = 0,
) -> None:
    """Safe rows written by the very model you filter with: refusals where due, help where not, code whose tests pass.

    Each candidate is checked and logged; the same command goes on where it was stopped.
    """
    found_by = [d.strip() for d in detectors.split(",") if d.strip()]
    stay_offline_unless_named(model, *found_by)
    from forgetfilter.align.command import run_self_align

    run_self_align(
        seeds, output, say=say, facts=facts, prompt_field=prompt_field, kind=kind, model=model, concepts=concepts,
        answers=answers, fact_share=fact_share, detectors=found_by,
        temperature=temperature, max_new_tokens=max_new_tokens, quantization=quantized, device=device, seed=seed,
    )  # fmt: skip


def safe_data(
    requests: Annotated[
        Path, typer.Argument(metavar="REQUESTS", help="Risky requests: JSON, JSONL, CSV or Parquet.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL file to write.")] = Path("safe.jsonl"),
    facts: Annotated[Path | None, typer.Option(help="Factual rows to mix in: prompt and completion.")] = None,
    prompt_field: Annotated[str, typer.Option(help="Column of the requests.")] = "prompt",
    model: options.ModelFlag = "nano",
    fact_share: Annotated[float, typer.Option(help="Share of factual rows, 0 to below 1.")] = 0.5,
    candidates: Annotated[int, typer.Option(help="Answers tried per request.")] = 4,
    quantized: options.Quantized = "none",
    seed: Annotated[int, typer.Option(help="Same seed, same rows.")] = 0,
) -> None:
    """Safe rows written by the very model you filter with, checked, mixed with facts."""
    say("note: safe-data is now self-align --kind risky --concepts 0; the old name goes with 0.3")
    stay_offline_unless_named(model)
    from forgetfilter.align.command import run_self_align

    run_self_align(
        requests, output, say=say, facts=facts, prompt_field=prompt_field, kind="risky", model=model, concepts=0,
        answers=candidates, fact_share=fact_share, max_new_tokens=64, quantization=quantized, seed=seed,
    )  # fmt: skip
