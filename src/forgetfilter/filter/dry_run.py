"""What `filter --dry-run` says: the settings with their origin, the plan, an estimate of time and memory.

Rows are read and checked as in a run. No model is loaded or fetched, and nothing is written.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from forgetfilter import runs
from forgetfilter.display import Display
from forgetfilter.errors import DONE, ModelError
from forgetfilter.filter import material
from forgetfilter.filter.constants import CONSTANTS
from forgetfilter.filter.signals import GENERATED_SIGNALS
from forgetfilter.models import hardware
from forgetfilter.models.spec import ModelSpec, Size, resolve
from forgetfilter.records import Row
from forgetfilter.settings import FilterSettings

if TYPE_CHECKING:
    import torch
    from rich.console import Console

PROBE_SECONDS = 2.0
CHARACTERS = 4  # a token of English text, where no tokenizer is here to count
# Floating-point operations per token and weight (Kaplan et al. 2020, section 2.1): 2 forward, 2 for the gradient of
# what comes in, 2 for that of a weight, which frozen weights do without.
READ, ADAPTER, WHOLE = 2, 4, 6
GB = 1e9


class Sizes(NamedTuple):
    """Tokens per row of a file, shortened to `max_length`."""

    custom: Sequence[int]
    safe: Sequence[int]
    counted: bool  # False: estimated from characters


class Shape(NamedTuple):
    """What decides how much a model computes and holds."""

    parameters: int
    width: int
    layers: int
    vocabulary: int


class Stage(NamedTuple):
    """One stage of the plan. `rows` and `tokens` are upper bounds where `most` says so."""

    name: str
    rows: int
    tokens: float
    steps: int | None
    work: int  # operations per token and weight
    most: bool = False


def dry_run(
    input: Any, settings: FilterSettings, origins: Mapping[str, str], output: Path, console: Console
) -> int:
    """Say what `run_filter` would do with the same arguments; the exit code. Raises what it would raise at the door."""
    display = Display(console)
    s = material.settled(settings)
    read = material.read(input, s, lambda line: None)
    runs.refuse_foreign(output)
    model = resolve(s.model)
    sizes = tokens(read, s, model)
    plan = stages(sizes, s)
    display.say("settings:")
    if s.safe_source != settings.safe_source:
        origins = {**origins, "safe_source": "bundled packs"}
    for name, value in asdict(s).items():
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        display.say(f"  {name} = {shown} ({origins.get(name, 'default')})")
    for note in read.notes:
        display.say(note)
    display.say(
        f"plan: algorithm {s.algorithm}, {len(sizes.custom)} custom rows, {len(sizes.safe)} safe rows"
    )
    for stage in plan:
        display.say("  " + _line(stage, sizes.counted))
    for line in _estimate(plan, sizes, s, model):
        display.say(line)
    found = "holds a run; the same command resumes it" if (output / "settings.yaml").exists() else "new"
    display.say(f"output: {output} ({found})")
    display.say("dry run: nothing was written")
    return DONE


def tokens(read: material.Material, s: FilterSettings, model: ModelSpec) -> Sizes:
    """Tokens of each row, by the model's tokenizer where it is here, else from the rows' characters."""
    files = (read.dataset.rows, read.safe)
    if model.kind in ("bundled", "folder", "adapter") or (model.kind == "pulled" and model.present):
        from forgetfilter.models import load
        from forgetfilter.models.rendering import encode

        try:
            tokenizer = load.without_weights(s.model, device="cpu").tokenizer
        except ModelError:  # an adapter whose base is elsewhere
            pass
        else:
            counted = [
                [len(z.ids) for z in encode(rows, tokenizer, max_length=s.max_length, template=s.template)]
                for rows in files
            ]
            return Sizes(*counted, counted=True)
    return Sizes(*([_characters(row, s.max_length) for row in rows] for rows in files), counted=False)


def stages(sizes: Sizes, s: FilterSettings) -> list[Stage]:
    """What a run will do, in order; which rows are judged and kept is not known before, so those are upper bounds."""
    custom, safe = len(sizes.custom), len(sizes.safe)
    all_custom, mean_safe = float(sum(sizes.custom)), _mean(sizes.safe)
    train = ADAPTER if s.tuning == "lora" else WHOLE
    reads = "answer" if s.signal in GENERATED_SIGNALS else "score"
    found = []
    if s.algorithm == "vetted":
        found.append(Stage("read custom rows", custom, all_custom, None, READ))
    else:
        witnesses = safe - round(safe * (1 - CONSTANTS.witnesses)) if s.algorithm == "witness" else 0
        if s.algorithm == "witness":
            found.append(
                Stage("read custom and safe rows", custom + safe, all_custom + sum(sizes.safe), None, READ)
            )
        sample = min(custom, s.max_train_samples or custom)
        learned = sample + witnesses, sample * _mean(sizes.custom) + witnesses * mean_safe
        replayed = CONSTANTS.replay if s.algorithm == "witness" else 0.0
        mean = (1 - replayed) * mean_safe + replayed * _mean(sizes.custom)
        reviewed = s.review_steps * s.review_batch_size
        found += [
            _training("learn custom rows" + (" and witnesses" if witnesses else ""), *learned, s, train),
            Stage("review safe rows", reviewed, reviewed * mean, s.review_steps, train),
            Stage(f"{reads} before and after the review", 2 * learned[0], 2 * learned[1], None, READ, True),
        ]
    if s.retrain:
        found.append(_training("train on kept rows", custom, all_custom, s, train, most=True))
    return found


def speed(width: int, device: torch.device, dtype: torch.dtype, seconds: float = PROBE_SECONDS) -> float:
    """Floating-point operations per second of a product (1,024 tokens, width) x (width, 4 width), timed here."""
    import torch

    x, w = (torch.ones(shape, dtype=dtype, device=device) for shape in ((1024, width), (width, 4 * width)))
    done, began = 0, time.monotonic()
    while (spent := time.monotonic() - began) < seconds or not done:
        (x @ w).sum().item()  # waits for the device
        done += 1
        if done == 1:
            began = time.monotonic()  # the first one sets up
    return (done - 1) * 2 * 1024 * width * 4 * width / spent


def memory(shape: Shape, tokens_at_once: float, s: FilterSettings) -> float:
    """Bytes that training takes: weights, gradients, AdamW in float32, a copy of what is trained, activations.

    Activations: 34 numbers of 16 bits per token, width and layer (Korthikanti et al. 2022, equation 1, without its
    term for attention), and the logits of a batch in float32 with their gradient.
    """
    import torch

    size = _dtype(s).itemsize
    adapter = 2 * s.lora_rank * shape.width * 7 * shape.layers  # seven matrices a layer
    trained = shape.parameters if s.tuning == "full" else adapter
    training = trained * (2 * size + 8 + (4 if size < torch.float32.itemsize else 0))
    activations = shape.layers * 34 * shape.width * size / 2 + shape.vocabulary * 8
    held = {"nf4": 0.5, "int8": 1.0}.get(s.quantization, size)  # bytes of a weight
    return shape.parameters * held + training + tokens_at_once * activations


def shape_of(model: ModelSpec) -> Shape | None:
    """The shape of a model by its settings file; what does not stand there is that of a usual model of its size.

    None where not even its size is known before it is here.
    """
    if not model.parameters:
        return None
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        found = dict(json.loads((Path(model.path or "") / "config.json").read_text(encoding="utf-8")))

    def number(usual: int, *names: str) -> int:
        return next((found[n] for n in names if isinstance(found.get(n), int) and found[n] > 0), usual)

    # 12 x width^2 parameters a layer, and a layer for every 64 of width.
    width = number(max(64, round((model.parameters * 64 / 12) ** (1 / 3))), "hidden_size", "n_embd")
    layers = number(max(1, round(model.parameters / (12 * width**2))), "num_hidden_layers", "n_layer")
    return Shape(model.parameters, width, layers, number(50_000, "vocab_size"))


def _estimate(plan: Sequence[Stage], sizes: Sizes, s: FilterSettings, model: ModelSpec) -> list[str]:
    """Time and memory in words. Both are estimates, and said to be."""
    shape = shape_of(model)
    if shape is None:
        return [f"estimate: none, the size of {s.model} is not known before it is here"]
    device = hardware.usable_device(s.device)
    rate = speed(shape.width, device, _dtype(s))
    work = sum(stage.tokens * stage.work for stage in plan) * shape.parameters
    seconds = work / rate * SLOWER[model.size]
    longest = sorted(sizes.custom, reverse=True)[: s.per_device_train_batch_size]
    room = memory(shape, sum(longest), s) + (LIBRARIES if device.type == "cpu" else 0)
    lines = [
        f"estimate: about {_duration(seconds)}, about {max(room / GB, 0.1):.1f} GB of memory ({device}, "
        f"{shape.parameters / 1e6:,.0f} million parameters)",
        f"  A guess from the speed of a matrix product here ({rate / 1e9:,.0f} billion operations a second, timed for "
        f"{PROBE_SECONDS:g} s), and no promise: other programs and short rows make it longer.",
    ]
    if s.signal in GENERATED_SIGNALS:
        lines.append(f"  signal {s.signal} writes answers token by token, which takes longer than this says.")
    return lines


def _training(name: str, rows: int, tokens: float, s: FilterSettings, work: int, most: bool = False) -> Stage:
    steps = math.ceil(math.ceil(rows / s.per_device_train_batch_size) * s.num_train_epochs)
    return Stage(name, rows, tokens * s.num_train_epochs, steps, work, most)


def _line(stage: Stage, counted: bool) -> str:
    most, about = "at most " if stage.most else "", "" if counted else "about "
    steps = f", {most}{stage.steps:,} steps" if stage.steps is not None else ""
    return f"{stage.name}: {most}{stage.rows:,} rows, {most}{about}{round(stage.tokens):,} tokens{steps}"


def _characters(row: Row, max_length: int) -> int:
    return min(max_length, math.ceil(sum(len(m.content) for m in row.messages) / CHARACTERS))


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0


def _dtype(s: FilterSettings) -> torch.dtype:
    return hardware.precision(s.dtype, hardware.usable_device(s.device))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    return f"{round(seconds / 60):,} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"


# How many times longer a run takes than its arithmetic at the speed of the product. Measured on one thread of a shared
# CPU in bfloat16: nano 6 over a whole run and 15 in its first steps, smollm2 3 (reading) to 4 (an adapter). Larger ones
# were not measured.
SLOWER: dict[Size, float] = {"tiny": 8.0, "small": 4.0, "large": 2.0}
LIBRARIES = (
    1.9 * GB
)  # what torch, transformers and the rows take on a CPU beside the model: a run with nano took 2.2
