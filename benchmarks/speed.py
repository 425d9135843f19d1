"""How fast is it, beside the simple ways of doing the same?

    python benchmarks/speed.py --quick              # both models, under ten minutes on two idle cores
    python benchmarks/speed.py --parts filter,rows  # some of it, at full length

Ratios first: scoring against writing an answer to one row at a time; the whole filter in plain fine-tunes; learning
against TRL's SFTTrainer; time and memory a row as rows become many. Each measurement is made in a process of its own.
What is measured is kept in the work folder and not measured again. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sections import RESULTS, markdown, write_section

from forgetfilter import runs
from forgetfilter.data import formats, packs
from forgetfilter.errors import DONE, TOO_WEAK, DataError, ForgetfilterError
from forgetfilter.models import load as models
from forgetfilter.models import rendering
from forgetfilter.records import Message, Row

ROWS, TOKENS = 1000, 80
LONGEST_ANSWER = 500  # new tokens that the paper's authors let a model write
# A child starts with its parent's peak memory on its account, so a small process must be the parent.
WATCH = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.call(sys.argv[1:])
seconds = time.perf_counter() - began
print()
print(json.dumps([code, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))
"""


class Spent(NamedTuple):
    """What one child process took."""

    code: int
    seconds: float  # wall time
    peak_mib: float  # of resident memory
    said: str = ""


class Sizes(NamedTuple):
    """How much of each is measured."""

    answers: int  # rows that are answered one at a time
    filtered: tuple[int, ...]  # rows of whole filters
    learned: int  # rows that are learned, here and by TRL
    scored: tuple[int, ...]  # rows of the growing files


FULL = {
    "nano": Sizes(20, (1000, 10_000), 200, (1000, 10_000, 100_000)),
    "smollm2": Sizes(6, (600,), 96, (1000,)),
}
QUICK = {"nano": Sizes(6, (240,), 96, (1000, 4000)), "smollm2": Sizes(2, (), 24, ())}


def recombined(
    tokenizer: Any, *, rows: int = ROWS, tokens: int = TOKENS, seed: int = 0
) -> list[dict[str, str]]:
    """Rows of `tokens` tokens each, template included, made of the demo pack; no two are equal.

    A row is a bundled prompt and its answer, followed by sentences of other bundled answers until it is long
    enough, without the words that are too many; a row is at most as long as asked and rarely much shorter.
    """
    rng = random.Random(seed)
    bundled = [
        row
        for row in formats.read(packs.path("nano-demo")).rows
        if _length(tokenizer, row.prompt, row.completion.split()[0]) <= tokens
    ]
    if not bundled:
        raise DataError(f"no bundled prompt leaves room for an answer in {tokens} tokens")
    sentences = sorted({s for row in bundled for s in re.findall(r"[^.!?]+[.!?]+", row.completion)})
    made: dict[tuple[str, str], None] = {}
    while len(made) < rows:
        row = rng.choice(bundled)
        words = f"{row.completion} {' '.join(s.strip() for s in rng.sample(sentences, tokens // 4))}".split()
        low, high = 1, len(words)  # the most words that fit; more words are never fewer tokens
        while low < high:
            middle = (low + high + 1) // 2
            fits = _length(tokenizer, row.prompt, " ".join(words[:middle])) <= tokens
            low, high = (middle, high) if fits else (low, middle - 1)
        made[row.prompt, " ".join(words[:low])] = None
    return [{"prompt": prompt, "completion": completion} for prompt, completion in made]


def _length(tokenizer: Any, prompt: str, completion: str) -> int:
    messages = (Message("user", prompt), Message("assistant", completion))
    row = Row("", 0, "", messages, "chat", {})
    return len(rendering.encode([row], tokenizer, max_length=4096)[0].ids)


def timed(command: Sequence[str], environment: Mapping[str, str]) -> Spent:
    """Run a command to its end; what it printed is shown where it fails."""
    watched = subprocess.run(
        [sys.executable, "-S", "-c", WATCH, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        check=True,
        text=True,
        errors="replace",
    )
    *said, last = watched.stdout.splitlines()
    spent = Spent(*json.loads(last), said="\n".join(said).strip())
    if spent.code not in (DONE, TOO_WEAK):
        print(spent.said, file=sys.stderr)
    return spent


# --- what a child process measures: model, rows of a file -> numbers ---


def encoded(model: Any, rows: Sequence[Mapping[str, str]]) -> list[rendering.Encoded]:
    made = [
        Row(str(i), i, "", (Message("user", r["prompt"]), Message("assistant", r["completion"])), "chat", {})
        for i, r in enumerate(rows)
    ]
    return rendering.encode(made, model.tokenizer, max_length=256)


def generation(name: str, rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """One row at a time as a plain loop writes them, against the batches of `rouge1`, in float32; and scoring."""
    import torch

    from forgetfilter.data.overlap import rouge1
    from forgetfilter.filter.signals import token_memory
    from forgetfilter.guide.generation import greedy, stop_ids

    loaded = models.load(name, dtype="float32", device="cpu")
    model, todo = loaded.model, encoded(loaded, rows)
    stops = stop_ids(model, loaded.tokenizer)

    def alone(z: rendering.Encoded, limit: int) -> list[int]:
        ids = torch.tensor([z.ids[: z.prompt_length]])
        with torch.inference_mode():
            made = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False,
                eos_token_id=[*stops], pad_token_id=loaded.tokenizer.pad_token_id,
            )  # fmt: skip
        return [t for t in made[0, ids.shape[1] :].tolist() if t not in stops]

    def text(ids: Sequence[int]) -> str:
        return str(loaded.tokenizer.decode(list(ids), skip_special_tokens=True))

    limits = [len(z.completion_ids) for z in todo]
    prompts = [z.ids[: z.prompt_length] for z in todo]
    token_memory(model, todo[:1])
    score, _ = clocked(lambda: token_memory(model, todo))
    long, _ = clocked(lambda: [alone(z, LONGEST_ANSWER) for z in todo])
    short, one = clocked(lambda: [alone(z, n) for z, n in zip(todo, limits, strict=True)])
    batched, many = clocked(lambda: greedy(model, prompts, limits, stop_ids=stops))
    truth = [text(z.completion_ids) for z in todo]
    equal = sum(
        rouge1(text(a), t) == rouge1(text([x for x in b if x not in stops]), t)
        for a, b, t in zip(one, many, truth, strict=True)
    )
    return {
        "rows": len(rows), "score": score, "long": long, "short": short, "batched": batched, "equal": equal
    }  # fmt: skip


def learning(name: str, rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """Our engine: one epoch over the rows."""
    from forgetfilter.training.finetune import finetune

    loaded = adapted(name)
    todo = encoded(loaded, rows)
    with tempfile.TemporaryDirectory() as folder:
        how: dict[str, Any] = {"learning_rate": 1e-4, "batch_size": 8, "seed": 0, "folder": Path(folder)}
        finetune(loaded.model, todo[:8], steps=1, **how)
        seconds, done = clocked(lambda: finetune(loaded.model, todo, epochs=1, **how))
    return {"rows": len(rows), "seconds": seconds, "tokens": done.tokens}


def learning_by_trl(name: str, rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """TRL's SFTTrainer, at its defaults: the same model, adapter, rows, batch and precision."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    loaded = adapted(name, quick=False)
    turns = [
        {"prompt": [{"role": "user", "content": r["prompt"]}],
         "completion": [{"role": "assistant", "content": r["completion"]}]}
        for r in rows
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, models.quiet():
        arguments = SFTConfig(
            output_dir=folder, per_device_train_batch_size=8, num_train_epochs=1, learning_rate=1e-4,
            max_length=256, report_to="none", save_strategy="no", disable_tqdm=True, bf16=False, use_cpu=True,
            gradient_checkpointing=False,
        )  # fmt: skip
        trainer = SFTTrainer(
            loaded.model, args=arguments, train_dataset=Dataset.from_list(turns),
            processing_class=loaded.tokenizer,
        )  # fmt: skip
        seconds, _ = clocked(trainer.train)
    return {"rows": len(rows), "seconds": seconds, "tokens": sum(len(z.ids) for z in encoded(loaded, rows))}


def scoring(name: str, rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """Token memory of every row."""
    from forgetfilter.filter.signals import token_memory

    loaded = models.load(name, device="cpu")
    todo = encoded(loaded, rows)
    token_memory(loaded.model, todo[:8])
    seconds, _ = clocked(lambda: token_memory(loaded.model, todo))
    return {"rows": len(rows), "seconds": seconds}


def adapted(name: str, quick: bool = True) -> models.Loaded:
    """A model as it is fine-tuned by default: nano whole, a larger one with an adapter (PEFT's layers if not quick)."""
    loaded = models.load(name, device="cpu")
    if name == "nano":
        return loaded
    loaded.model = models.add_lora(loaded.model, rank=16, alpha=32)
    if not quick:
        from engine import pefts_layers

        pefts_layers(loaded.model, True)
    return loaded


def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


CHILDREN = {f.__name__: f for f in (generation, learning, learning_by_trl, scoring)}


# --- parts: a model and sizes -> lines of the table: what, ratio, wanted, how ---


class Place(NamedTuple):
    """Where measurements are kept and made."""

    work: Path
    environment: Mapping[str, str]

    def rows(self, model: str, count: int) -> Path:
        path = self.work / f"rows-{model}-{count}.jsonl"
        if not path.exists():
            tokenizer = models.without_weights(model).tokenizer
            distinct = recombined(tokenizer, rows=min(count, 10_000))
            lines = [json.dumps(distinct[i % len(distinct)]) + "\n" for i in range(count)]
            with runs.atomic(path) as unfinished:
                unfinished.write_text("".join(lines), encoding="utf-8")
        return path

    def measured(self, key: str, command: Sequence[str]) -> dict[str, Any]:
        """What a child took and said in its last line; measured once."""
        file = self.work / "results.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        if key not in known:
            print(f"… {key}", flush=True)
            spent = timed(command, self.environment)
            if spent.code not in (DONE, TOO_WEAK):
                raise ForgetfilterError(f"{key}: exit code {spent.code}")
            last = spent.said.splitlines()[-1] if spent.said else ""
            said = json.loads(last) if last.startswith("{") else {}
            known[key] = {"wall": spent.seconds, "peak": spent.peak_mib} | said
            with runs.atomic(file) as path:
                path.write_text(json.dumps(known, indent=1) + "\n")
        return known[key]

    def child(self, what: str, model: str, count: int) -> dict[str, Any]:
        command = [sys.executable, __file__, "--child", what, model, str(self.rows(model, count))]
        return self.measured(f"{what} {model} {count}", command)


Line = list[str]


def generation_part(place: Place, model: str, sizes: Sizes) -> list[Line]:
    m = place.child("generation", model, sizes.answers)
    n, about = m["rows"], f"{m['rows']} rows"
    return [
        ["scoring against one row at a time, up to 500 new tokens", f"{m['long'] / m['score']:.0f} ×", "≥ 100 ×",
         f"{about}: {m['long'] / n:.2f} s against {m['score'] / n:.4f} s a row"],
        ["`rouge1` in batches against the same", f"{m['long'] / m['batched']:.1f} ×", "≥ 15 ×",
         f"{about}, {m['batched'] / n:.3f} s a row; {m['short'] / m['batched']:.1f} × at the same lengths, ROUGE-1 "
         f"identical in {m['equal']}"],
    ]  # fmt: skip


def filter_part(place: Place, model: str, sizes: Sizes) -> list[Line]:
    lines = []
    for count in sizes.filtered:
        rows, wall = str(place.rows(model, count)), {}
        for verb, more in (("filter", ["--no-retrain"]), ("finetune", [])):
            output = place.work / f"{verb}-{model}-{count}"
            runs.discard(output)  # a resumed run would be timed from its middle
            command = [*program(), verb, rows, "--model", model, "--output", str(output), *more]
            wall[verb] = place.measured(f"{verb} {model} {count}", command)
        f, t = wall["filter"], wall["finetune"]
        lines.append(
            [f"filter of {count:,} rows in plain fine-tunes, last one left out", f"{f['wall'] / t['wall']:.2f}",
             "≤ 1.35" if count >= 10_000 else "≤ 1.6",
             f"{f['wall']:.0f} s against {t['wall']:.0f} s, start included; peak {f['peak']:.0f} MiB"]
        )  # fmt: skip
    return lines


def learning_part(place: Place, model: str, sizes: Sizes) -> list[Line]:
    ours = place.child("learning", model, sizes.learned)
    about = (
        f"{ours['rows']} rows: {ours['tokens'] / ours['seconds']:.0f} tokens/s, peak {ours['peak']:.0f} MiB"
    )
    if importlib.util.find_spec("trl") is None:
        return [["learning against TRL's SFTTrainer", "–", "", f"{about}; trl is not installed"]]
    theirs = place.child("learning_by_trl", model, sizes.learned)
    return [
        ["learning against TRL's SFTTrainer", f"{theirs['seconds'] / ours['seconds']:.2f} ×",
         "≥ 2.5 ×" if model == "nano" else "≥ 4 ×",
         f"{about}; TRL {theirs['tokens'] / theirs['seconds']:.0f} tokens/s, {theirs['peak']:.0f} MiB"]
    ]  # fmt: skip


def rows_part(place: Place, model: str, sizes: Sizes) -> list[Line]:
    found = [place.child("scoring", model, count) for count in sizes.scored]
    each = [m["seconds"] / m["rows"] for m in found]
    return [
        [f"seconds a row, {m['rows']:,} rows against {found[0]['rows']:,}", f"{one / each[0]:.2f}", "≤ 1.1",
         f"scoring: {1000 * one:.2f} ms a row; peak {m['peak']:.0f} MiB"]
        for m, one in zip(found, each, strict=True)
    ]  # fmt: skip


PARTS = {"generation": generation_part, "filter": filter_part, "learning": learning_part, "rows": rows_part}


def section(lines: Sequence[Line], command: str, threads: int) -> str:
    """The section of RESULTS.md."""
    about = (
        f"Rows of up to {TOKENS} tokens; threads {threads} on {os.cpu_count()} cores ({platform.machine()}); each "
        f"measured once, in a process of its own. Code: {runs.source_commit() or 'unknown'}."
    )
    table = markdown(["model", "what", "measured", "wanted", "how"], lines)
    return f"## Speed\n\n    {command}\n\n{table}\n\n{about}"


def program() -> list[str]:
    """The installed command where there is one, as a user starts it."""
    script = Path(sys.executable).with_name("forgetfilter")
    return [str(script)] if script.exists() else [sys.executable, "-m", "forgetfilter"]


def child(what: str, model: str, rows: str) -> None:
    """What `Place.child` starts."""
    from forgetfilter.threads import keep_little, wait_asleep

    wait_asleep()
    keep_little()
    lines = Path(rows).read_text(encoding="utf-8").splitlines()
    print(json.dumps(CHILDREN[what](model, [json.loads(line) for line in lines])))


def main(given: Sequence[str] | None = None) -> int:
    """The command; 0, or the exit code of what failed."""
    given = list(sys.argv[1:] if given is None else given)
    if given[:1] == ["--child"]:
        child(*given[1:])
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--work", type=Path, default=Path("build/speed"), help="what is measured is kept there"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    parser.add_argument("--models", default="nano,smollm2")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="few rows: under ten minutes")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    asked = parser.parse_args(given)
    environment = os.environ | {
        "OMP_NUM_THREADS": str(asked.threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    work = asked.work / ("quick" if asked.quick else "full")
    work.mkdir(parents=True, exist_ok=True)
    place, lines = Place(work, environment), list[Line]()
    try:
        for part in asked.parts.split(","):
            for model in asked.models.split(","):
                table = QUICK if asked.quick else FULL
                sizes = table.get(model, table["smollm2"])
                lines += [[model, *line] for line in PARTS[part](place, model, sizes)]
        text = section(lines, shlex.join(["python", "benchmarks/speed.py", *given]), asked.threads)
        write_section(asked.results, "speed", text)
        print(text)
    except ForgetfilterError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
