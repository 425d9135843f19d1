"""lm-evaluation-harness rates a served model, with the commands that the docs give: at scale 1 as the plain model."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from forgetfilter.models.spec import NANO

ROOT = Path(__file__).resolve().parents[1]
TASKS = ROOT / "benchmarks" / "lm_eval"
TOKEN = "0123456789abcdef0123"


def harness() -> list[str] | None:
    """How lm-eval is started: as a module of this Python, or as a command of another environment. It needs no torch."""
    if all(map(importlib.util.find_spec, ("lm_eval", "tenacity"))):
        return [sys.executable, "-m", "lm_eval"]
    found = shutil.which("lm_eval")
    return [found] if found else None


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TASKS / f"{name}.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", ["facts", "sentences"])
def test_a_task_names_a_file_whose_rows_have_its_fields(name: str):
    task = yaml.safe_load((TASKS / f"{name}.yaml").read_text("utf-8"))
    assert ROOT / task["dataset_kwargs"]["data_files"]["test"] == TASKS / f"{name}.jsonl"
    for row in rows(name):
        assert all(f"{{{{{field}}}}}" in "".join(map(str, task.values())) for field in row)
        if name == "facts":
            assert len(set(row["choices"])) == 4 and row["answer"] in range(4)


@contextmanager
def served(environment: dict[str, str], folder: Path, *flags: str) -> Iterator[str]:
    """The address of `forgetfilter serve nano`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "forgetfilter", "serve", "nano", "--port", "0", "--min-p", "0", *flags], cwd=folder,
        env=environment | {"FORGETFILTER_TOKEN": TOKEN}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        yield process.stderr.readline().split()[-1]
    finally:
        process.kill()
        process.communicate()


def rated(address: str, folder: Path) -> dict[str, list[list[float]]]:
    """Task -> for each row the log-likelihood of each of its texts, as lm-eval got them from the server."""
    command = harness()
    assert command
    done = subprocess.run(
        [*command, "run", "--model", "local-completions", "--model_args",
         f"model=nano,base_url={address}/completions,tokenizer={NANO},num_concurrent=1", "--batch_size", "4",
         "--tasks", "forgetfilter_facts,forgetfilter_sentences", "--include_path", str(TASKS), "--log_samples",
         "--output_path", str(folder)], cwd=ROOT,
        env=os.environ | {"OPENAI_API_KEY": TOKEN, "HF_HOME": str(folder / "hub")}, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[list[float]]] = {}
    for path in folder.rglob("samples_*.jsonl"):
        samples = sorted(map(json.loads, path.read_text().splitlines()), key=lambda row: row["doc_id"])
        name = path.name.split("_")[2]
        found[name] = [[float(_first(response)) for response in row["resps"]] for row in samples]
    return found


def _first(response: Any) -> Any:
    """The log-likelihood in what lm-eval logs of one request: [value, greedy], [[value, greedy]] or [value]."""
    while isinstance(response, list):
        response = response[0]
    return response


def plain() -> dict[str, list[list[float]]]:
    """The same by one pass of the model over each text, without server and guidance."""
    import torch

    from forgetfilter.guide.generation import load_to_write

    loaded = load_to_write("nano", device="cpu")
    tokenizer = loaded.tokenizer

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def logp(before: list[int], after: list[int]) -> float:
        with torch.inference_mode():
            logits = loaded.model(torch.tensor([before + after])).logits[0].float()  # (time, vocab)
        told = logits.log_softmax(-1)[len(before) - 1 : -1]
        return float(told.gather(1, torch.tensor(after)[:, None]).sum())

    def ending(question: str, choice: str) -> float:
        asked = f"Question: {question}\nAnswer:"
        whole, before = ids(f"{asked} {choice}"), len(ids(asked))
        return logp(whole[:before], whole[before:])

    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return {
        "facts": [[ending(r["question"], choice) for choice in r["choices"]] for r in rows("facts")],
        "sentences": [[logp([start], ids(r["text"]))] for r in rows("sentences")],
    }


@pytest.mark.slow
@pytest.mark.skipif(
    harness() is None, reason="lm-eval is neither importable nor on PATH: pip install 'lm-eval[api]'"
)
def test_lm_evaluation_harness_rates_a_served_model_at_scale_1_as_the_plain_one_and_at_3_otherwise(
    tmp_path: Path, environment: dict[str, str]
):
    alone = plain()
    with served(environment, tmp_path) as address:
        through = rated(address, tmp_path / "plain")
    with served(environment, tmp_path, "--guidance-scale", "3", "--form", "log") as address:
        guided = rated(address, tmp_path / "guided")
    assert alone.keys() == through.keys() == guided.keys()
    for task, there in alone.items():
        assert len(there) == len(rows(task))
        for a, b, c in zip(there, through[task], guided[task], strict=True):
            assert b == pytest.approx(a, abs=1e-3)
            assert all(map(math.isfinite, c)) and c != pytest.approx(b, abs=0.01)
    apart = max(
        abs(a - b)
        for t in alone
        for x, y in zip(alone[t], through[t], strict=True)
        for a, b in zip(x, y, strict=True)
    )
    for name, values in (("plain", alone), ("scale 1", through), ("scale 3", guided)):
        right = sum(
            v.index(max(v)) == r["answer"] for v, r in zip(values["facts"], rows("facts"), strict=True)
        )
        print(
            name,
            "facts right",
            right,
            "of",
            len(rows("facts")),
            "sentences",
            sum(v for [v] in values["sentences"]),
        )
    print("largest difference of a log-likelihood, plain and scale 1:", apart)
