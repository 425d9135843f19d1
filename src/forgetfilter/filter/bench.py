"""One resident model, the states it passes through, and the run folder that keeps each of them.

A state is kept by what made it: where it started, its rows and settings. The name that a caller gives it is for
people; the same name with other rows is another state.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter import ranks, runs
from forgetfilter.display import Display
from forgetfilter.filter import shards
from forgetfilter.filter.signals import (
    GENERATED_SIGNALS,
    Memory,
    refuse_overflow,
    remembered_texts,
    remembered_tokens,
    token_memory,
)
from forgetfilter.filter.states import Readings, read_rows, users_words
from forgetfilter.models import load as models
from forgetfilter.models.quantization import is_quantized, refuse_full
from forgetfilter.models.rendering import Encoded
from forgetfilter.records import Row
from forgetfilter.runs import Run
from forgetfilter.settings import FilterSettings
from forgetfilter.training.finetune import finetune
from forgetfilter.training.memory import READ_ON_CPU

CHECKPOINT_STEPS = 500
NOTHING = Memory(np.zeros(0, np.float32), np.zeros(0, bool))
WARMUP_STEPS = 4  # without, Adam's first step moves every weight by the whole rate


@dataclass(slots=True)
class Bench:
    """One resident model, the states it passes through, and the run folder that keeps each of them."""

    loaded: models.Loaded
    custom: Sequence[Encoded]
    settings: FilterSettings
    run: Run
    display: Display
    kept: np.ndarray | None = None  # answer and question of the custom rows, as `vet` has read and kept them
    costs: list[dict[str, Any]] = field(default_factory=list)
    _state: str = "original"
    _originals: dict[str, Any] = field(default_factory=dict)
    _stages: dict[str, str] = field(default_factory=dict)  # state -> the name it is kept by

    def __post_init__(self) -> None:
        s = self.settings
        if self.loaded.model is None:
            return
        if s.tuning == "lora":
            self.loaded.model = models.add_lora(
                self.loaded.model, rank=s.lora_rank, alpha=s.lora_alpha, dropout=s.lora_dropout,
                target_modules=s.lora_target_modules, seed=s.seed,
            )  # fmt: skip
        elif is_quantized(self.loaded.model) and not hasattr(self.loaded.model, "peft_config"):
            refuse_full("of this model", "full")
        self._originals = models.trainable_state(self.loaded.model)

    def train(
        self, state: str, start: str, rows: Sequence[Encoded], *, rate: float,
        epochs: float | None = None, steps: int | None = None,
        batch_size: int | None = None, schedule: str | None = None, seed: int | None = None,
    ) -> None:  # fmt: skip
        """Fine-tune from state `start` on `rows`; the result is kept as `state`. What was trained is not trained again.

        Batch size, schedule and seed are the settings' own where not given.
        """
        s = self.settings
        how: dict[str, Any] = {
            "learning_rate": rate, "epochs": epochs, "steps": steps, "warmup_steps": WARMUP_STEPS,
            "batch_size": batch_size or s.per_device_train_batch_size,
            "schedule": schedule or s.lr_scheduler_type, "seed": s.seed if seed is None else seed,
        }  # fmt: skip
        made = runs.sha256_of([self.kept_as(start), json.dumps(how, sort_keys=True), *(z.id for z in rows)])[
            :8
        ]
        self._stages[state] = f"{state}-{made}"
        stage = self.run.stage(f"train-{state}-{made}", keep_unfinished=True)
        if not stage.done:
            self._enter(start)
            began = time.monotonic()
            with self.display.stage(_title(state), "step") as progress:
                done = finetune(
                    self.loaded.model, rows, **how, folder=stage.folder / "trainer", save_steps=CHECKPOINT_STEPS,
                    pad_id=self.loaded.tokenizer.pad_token_id, report_to=s.report_to, progress=progress,
                )  # fmt: skip
            self._state = self.kept_as(state)
            ranks.led(lambda: self._keep_weights(stage.folder))
            stage.finish(asdict(done) | {"seconds": time.monotonic() - began})
            stage = self.run.stage(f"train-{state}-{made}")
        self._count(_title(state), stage)

    def _keep_weights(self, folder: Path) -> None:
        from safetensors.torch import save_file

        save_file(models.trainable_state(self.loaded.model), folder / "state.safetensors")
        runs.discard(folder / "trainer")

    def adopt(self, state: str, other: str) -> None:
        """Let `state` be the same as `other`, without training."""
        self._stages[state] = self.kept_as(other)

    def kept_as(self, state: str) -> str:
        """The name that a state is kept by, with what made it; `original` stands for itself."""
        return self._stages.get(state, state)

    def record(self, state: str) -> dict[str, Any]:
        """What training a state took: steps, tokens, loss, seconds; empty where it was not trained."""
        return dict(self.run.stage(f"train-{self.kept_as(state)}", keep_unfinished=True).record)

    def remembered(self, state: str, rows: Sequence[Encoded], signal: str) -> dict[str, float]:
        """Row id -> how well `state` remembers the row by `signal`; rows that cannot be scored are left out."""
        if signal in GENERATED_SIGNALS:
            return remembered_texts(self.answers(state, rows), self.references(rows), signal)
        return remembered_tokens(self.memories(state, rows), signal)

    def memories(self, state: str, rows: Sequence[Encoded]) -> dict[str, Memory]:
        """Row id -> token memory of `state`, measured once and kept. ModelError where the state's numbers overflow."""

        def work(some: Sequence[int]) -> shards.Columns:
            found = token_memory(self._model, [rows[i] for i in some], pad_id=self._pad_id)
            refuse_overflow(m.logp for m in found)
            return {
                "logp": np.concatenate([m.logp for m in found]),
                "hit": np.concatenate([m.hit for m in found]),
                "tokens": np.array([len(m.logp) for m in found]),
            }

        def write(path: Path, parts: Sequence[Sequence[int]], found: Iterator[shards.Columns]) -> int:
            each: list[Memory] = [NOTHING] * len(rows)
            for some, columns in zip(parts, found, strict=True):
                for i, memory in zip(some, _memories(columns), strict=True):
                    each[i] = memory
            np.savez(
                path, logp=np.concatenate([m.logp for m in each]), hit=np.concatenate([m.hit for m in each]),
                tokens=np.array([len(m.logp) for m in each]),
            )  # fmt: skip
            return sum(len(z.ids) for z in rows)

        path = self._measured("score", state, rows, f"score: {_title(state)}", "memory.npz", work, write)
        with np.load(path, allow_pickle=False) as saved:
            memories = _memories({name: saved[name] for name in saved.files})
        return {z.id: memory for z, memory in zip(rows, memories, strict=True) if len(memory.logp)}

    def both_readings(self, custom: Sequence[Encoded], safe: Sequence[Encoded]) -> Readings:
        """`readings` of custom rows, then of the safe rows they are compared with.

        Safe rows of several sources keep what only some of them begin with: where a pack stands beside rows of the
        file's own kind, those would leave no rows of other kinds to compare with.
        """
        return self.readings(custom, "custom", safe).and_then(self.readings(safe, "safe"))

    def readings(self, rows: Sequence[Encoded], name: str, beside: Sequence[Encoded] = ()) -> Readings:
        """Hidden states of the original model on the rows of one file, read once and kept.

        `beside` as of `users_words`.
        """
        words = users_words(rows, beside)

        def work(some: Sequence[int]) -> shards.Columns:
            found = read_rows(
                self._model, [rows[i] for i in some], pad_id=self._pad_id, words=[words[i] for i in some]
            )
            return {part: getattr(found, part) for part in Readings.__slots__}

        def write(path: Path, parts: Sequence[Sequence[int]], found: Iterator[shards.Columns]) -> int:
            order = np.argsort(np.concatenate([np.asarray(some, int) for some in parts]))
            columns = [*found]
            each = {part: np.concatenate([c[part] for c in columns])[order] for part in Readings.__slots__}
            np.savez(path, **each)  # ty: ignore[invalid-argument-type]
            return sum(len(z.ids) for z in rows)

        path = self._measured("read", "original", rows, f"read: {name} rows", "readings.npz", work, write)
        with np.load(path, allow_pickle=False) as saved:
            return Readings(*(saved[part] for part in Readings.__slots__))

    def row_states(self, rows: Sequence[Encoded], name: str) -> np.ndarray:
        """Answer and question of custom rows, not standardised: as `vet` kept them, else from `readings`."""
        return self.readings(rows, name).both() if self.kept is None else self.kept

    def answers(self, state: str, rows: Sequence[Encoded], most: int | None = None) -> dict[str, str]:
        """Row id -> what `state` greedily answers to the row's prompt, as long as the row's own completion.

        `most` bounds the tokens of an answer.
        """
        from forgetfilter.guide.generation import greedy, stop_ids

        scored = [z for z in rows if z.completion_ids]

        def work(some: Sequence[int]) -> shards.Columns:
            answers = greedy(
                self._model, [scored[i].ids[: scored[i].prompt_length] for i in some],
                [min(len(scored[i].completion_ids), most or len(scored[i].ids)) for i in some],
                stop_ids=stop_ids(self._model, self.loaded.tokenizer),
            )  # fmt: skip
            return {
                "answer": np.array([t for a in answers for t in a], int),
                "tokens": np.array([*map(len, answers)]),
            }

        def write(path: Path, parts: Sequence[Sequence[int]], found: Iterator[shards.Columns]) -> int:
            each: list[np.ndarray] = [np.zeros(0, int)] * len(scored)
            for some, columns in zip(parts, found, strict=True):
                ends = np.cumsum(columns["tokens"])[:-1]
                for i, answer in zip(some, np.split(columns["answer"], ends), strict=True):
                    each[i] = answer
            with path.open("w", encoding="utf-8") as file:
                for z, answer in zip(scored, each, strict=True):
                    text = self.loaded.tokenizer.decode(answer.tolist(), skip_special_tokens=True)
                    file.write(json.dumps({"id": z.id, "answer": text}) + "\n")
            return sum(map(len, each))

        path = self._measured(
            "generate" if most is None else f"answer-{most}",
            state,
            scored,
            f"answer: {_title(state)}",
            "answers.jsonl",
            work,
            write,
        )
        with path.open(encoding="utf-8") as file:
            return {r["id"]: r["answer"] for r in map(json.loads, file)}

    def _measured(
        self, what: str, state: str, rows: Sequence[Encoded], title: str, name: str,
        work: Callable[[Sequence[int]], shards.Columns],
        write: Callable[[Path, Sequence[Sequence[int]], Iterator[shards.Columns]], int],
    ) -> Path:  # fmt: skip
        """The file `name` of a measurement of `rows` in `state`; made, where it is not there, in pieces.

        `work` measures some rows, by their places; `write` makes one file of all and says how many tokens they had.
        """
        stage = self._measuring(what, state, rows)
        if not stage.done:
            self._enter(state)
            began, ids = time.monotonic(), [z.id for z in rows]
            parts, folder = shards.pieces([len(z.ids) for z in rows], READ_ON_CPU), stage.folder / "pieces"
            with self.display.stage(title, "row", total=len(rows)) as progress:
                shards.measure(folder, ids, parts, work, lambda n: progress(n, len(rows)))

            def merge() -> int:
                tokens = write(stage.folder / name, parts, shards.kept(folder, ids, parts))
                runs.discard(folder)
                return tokens

            stage.finish({"seconds": time.monotonic() - began, "tokens": ranks.led(merge)})
            stage = self._measuring(what, state, rows)
        self._count(title, stage)
        return stage.folder / name

    @property
    def _model(self) -> Any:
        return self.loaded.model

    @property
    def _pad_id(self) -> Any:
        return self.loaded.tokenizer.pad_token_id

    def references(self, rows: Sequence[Encoded]) -> dict[str, str]:
        """Row id -> the completion as the tokens that were kept of it read."""
        decode = self.loaded.tokenizer.decode
        return {
            z.id: str(decode(z.completion_ids, skip_special_tokens=True)) for z in rows if z.completion_ids
        }

    def _measuring(self, what: str, state: str, rows: Sequence[Encoded]) -> runs.Stage:
        """The stage of a measurement: one for each state and set of rows."""
        return self.run.stage(_measurement(what, self.kept_as(state), rows), keep_unfinished=True)

    def save_final(self, folder: Path) -> None:
        """The released model: an adapter or a whole model, in the library's own form, with its tokenizer."""
        self.enter("final")
        models.save(self.loaded, folder)

    def enter(self, state: str) -> Any:
        """The resident model, in eval mode, with the weights of `state`; it leaves that state with the next call."""
        self._enter(state)
        return self.loaded.model.eval()

    def forget_where_it_is(self) -> None:
        """To be called by whoever trained the resident model without `train`: it is in no state we know."""
        self._state = ""

    def put_back(self) -> None:
        """Give a model that belongs to the caller its own weights again, whatever interrupted the training."""
        if self.loaded.model is not None:
            self.forget_where_it_is()
            self._enter("original")

    def onward(self, state: str, custom: Sequence[Encoded], run: Run) -> Bench:
        """A bench for the next session: its original is `state` of this one, on the same resident model.

        Only one of the two can be in use: go back to this one by `enter` alone.
        """
        self.forget_where_it_is()  # a bench before may have moved the model
        self.enter(state)
        self.forget_where_it_is()  # and the next one will
        # An adapter is there already; what is trainable now is what the next session trains.
        settings = replace(self.settings, tuning="full")
        return Bench(self.loaded, custom, settings, run, self.display)

    def _count(self, name: str, stage: runs.Stage) -> None:
        if not any(cost["name"] == name for cost in self.costs):
            self.costs.append({"name": name, **stage.record})

    def _enter(self, state: str) -> None:
        from safetensors.torch import load_file

        kept = self.kept_as(state)
        if self._state == kept:
            return
        saved = self.run.folder / "stages" / f"train-{kept}" / "state.safetensors"
        models.restore(self.loaded.model, self._originals if kept == "original" else load_file(saved))
        self._state = kept


def was_read(run: Run, rows: Sequence[Row] | Sequence[Encoded]) -> bool:
    """Whether `run` keeps what the original model made of all `rows`, so that `Bench.readings` needs no model."""
    return run.stage(_measurement("read", "original", rows), keep_unfinished=True).done


def _measurement(what: str, kept: str, rows: Sequence[Row] | Sequence[Encoded]) -> str:
    return f"{what}-{kept}-{runs.sha256_of(z.id for z in rows)[:8]}"


def _memories(columns: shards.Columns) -> list[Memory]:
    ends = np.cumsum(columns["tokens"])[:-1]
    pieces = zip(np.split(columns["logp"], ends), np.split(columns["hit"], ends), strict=True)
    return [Memory(*piece) for piece in pieces][: len(columns["tokens"])]


def _title(state: str) -> str:
    return TITLES.get(state) or f"train: {state}"


TITLES = {
    "original": "original model",
    "learned": "learn: custom rows",
    "reviewed": "review: safe rows",
    "final": "train on kept rows",
}
