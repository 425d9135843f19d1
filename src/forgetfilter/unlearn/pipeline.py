"""Unlearn personal data, and every row of the paper's tables from one recipe (Smirnov, arXiv 2412.06846).

    base ──tune on dialogues──► tuned ──(subtract half of what was added)──► subtracted
    base ──continue the dialogues without personal data──► pairs ──(both orientations)──► CFG pairs
    tuned or subtracted ──ORPO on pairs──► adapter ──guided answers──► leakage and utility

`plan` lists what is measured; `unlearn` trains and measures what the plan needs, stage by stage in a run folder,
so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter import runs
from forgetfilter.display import Display
from forgetfilter.errors import DataError
from forgetfilter.evaluate import results as evaluations
from forgetfilter.evaluate.results import Evaluation
from forgetfilter.guide.generation import load_to_write
from forgetfilter.guide.guidance import NEGATIVE, POSITIVE
from forgetfilter.models import load as models
from forgetfilter.models.load import Loaded
from forgetfilter.models.rendering import encode
from forgetfilter.records import Row
from forgetfilter.runs import Run, Stage
from forgetfilter.unlearn import leakage, replacements, tables, task_vector
from forgetfilter.unlearn.materials import Material, fingerprints, is_url, masked, materials
from forgetfilter.unlearn.objectives import train_away
from forgetfilter.unlearn.orpo import Pair, cfg_pairs, train_orpo
from forgetfilter.unlearn.recipe import UnlearnRecipe
from forgetfilter.unlearn.replacements import Replacement
from forgetfilter.unlearn.trials import GUIDED, ROUNDED, State, Trial, plan
from forgetfilter.unlearn.usefulness import round_to_4_bits, utility

if TYPE_CHECKING:
    from rich.console import Console


def unlearn(recipe: UnlearnRecipe, output: Path, console: Console) -> dict[str, Any]:
    """Train and measure what `plan` lists, for each seed, into `output`; the results, also as results.json and .md.

    The same call resumes. DataError, ConfigError and ModelError say what the user can mend; the dialogues are
    read before anything is written.
    """
    display, began = Display(console), time.monotonic()
    trials = plan(recipe)
    inputs = fingerprints(recipe)
    by_seed = {seed: materials(recipe, seed) for seed in recipe.seeds}
    inputs["texts"] = runs.sha256_of(
        m.content for each in by_seed.values() for d in each.train + each.test for m in d.messages
    )
    with Run.open(output, asdict(recipe), inputs) as run:
        found: dict[int, dict[str, dict[str, Evaluation]]] = {}
        for seed, material in by_seed.items():
            found[seed] = _Bench(recipe, seed, material, run, display).measure(trials)
        results = tables.results(recipe, trials, found, by_seed, run)
        results["seconds"] = round(time.monotonic() - began, 1)
        with runs.atomic(output / "results.json") as path:
            path.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        with runs.atomic(output / "results.md") as path:
            path.write_text(tables.markdown(results), encoding="utf-8")
    display.say(f"Look at {output / 'results.md'}")
    return results


class _Bench:
    """One seed: its models, pairs and adapters, made when they are first needed, each a stage of the run."""

    def __init__(self, r: UnlearnRecipe, seed: int, material: Material, run: Run, display: Display) -> None:
        self.r, self.seed, self.material, self.run, self.display = r, seed, material, run, display
        self.rows = leakage.test_rows(material.test)

    def measure(self, trials: Sequence[Trial]) -> dict[str, dict[str, Evaluation]]:
        """Trial's slug -> evaluator -> what it found. One model state is in memory at a time."""
        found: dict[str, dict[str, Evaluation]] = {}
        for state in dict.fromkeys(t.state for t in trials):
            mine = [t for t in trials if t.state == state]
            missing = {self._stage(t): t for t in mine if not self.run.stage(self._stage(t)).done}
            if missing:
                loaded = self._load(state)
                for trial in missing.values():
                    self._evaluate(trial, loaded)
            for trial in mine:
                folder = self.run.stage(self._stage(trial)).folder
                found[trial.slug] = {
                    part.name: evaluations.read(part) for part in sorted(folder.iterdir()) if part.is_dir()
                }
        return found

    # what trials are made of

    def _load(self, state: State) -> Loaded:
        r = self.r
        adapter = self._adapter(state._replace(change="")) if state.data else None
        start, kind = self._start(state.start), "none"
        if state.change == "nf4":
            # Beside weights in 4 bits one adapter can stand: what it started from is merged first.
            start, kind = str(self._whole(start, self.run.stage(f"seed{self.seed}-nf4"))), "nf4"
        loaded = load_to_write(start, dtype=r.dtype, device=r.device, quantization=kind)
        if adapter:
            loaded.model = _with_adapter(loaded.model, adapter, trainable=state.change == "relearned")
        if state.change == ROUNDED:
            self.display.say(
                f"bitsandbytes is not installed: {ROUNDED} rounds weights instead of holding them as nf4"
            )
            round_to_4_bits(loaded.model)
        if state.change == "relearned":
            self._relearn(loaded)
        loaded.model.eval()
        return loaded

    def _start(self, name: str) -> str:
        """The model folder (or hub id) of base, clean, tuned or subtracted; the last three made if need be."""
        if name == "base":
            return self.r.model
        if name == "tuned" and self.r.tuned:
            return self.r.tuned
        stage = self.run.stage(f"seed{self.seed}-{name}")
        if not stage.done:
            self._subtract(stage) if name == "subtracted" else self._tune(stage)
        return str(stage.folder / "model")

    def _tune(self, stage: Stage) -> None:
        from forgetfilter.training.finetune import finetune

        r, began = self.r, time.monotonic()
        loaded = models.load(r.model, dtype=r.dtype, device=r.device)
        told = [masked(d) if stage.folder.name.endswith("clean") else d for d in self.material.train]
        rows = [Row(d.id, i, "dialogues", d.messages, "chat", {}) for i, d in enumerate(told)]
        encoded = encode(rows, loaded.tokenizer, max_length=self._positions(loaded), template=r.template)
        if r.tuning == "lora":
            loaded.model = self._fresh_adapter(loaded.model)
        with self.display.stage("tune on the dialogues", "step") as progress:
            trained = finetune(
                loaded.model, encoded, learning_rate=r.tune_learning_rate, batch_size=r.tune_batch_size,
                epochs=r.tune_epochs, seed=self.seed, folder=stage.folder / "training", schedule="linear",
                pad_id=loaded.tokenizer.pad_token_id or 0, progress=progress,
            )  # fmt: skip
        merged = loaded.model.merge_and_unload() if r.tuning == "lora" else loaded.model  # ty: ignore
        with models.quiet():
            merged.save_pretrained(stage.folder / "model")
            loaded.tokenizer.save_pretrained(stage.folder / "model")
        stage.finish({**asdict(trained), "seconds": time.monotonic() - began})

    def _subtract(self, stage: Stage) -> None:
        r = self.r
        base, tuned = (self._whole(name, stage) for name in (r.model, self._start("tuned")))
        task_vector.subtract_folders(base, tuned, stage.folder / "model", r.coefficient, r.relu)
        stage.finish({"coefficient": r.coefficient, "relu": r.relu})

    def _whole(self, name: str, stage: Stage) -> Path:
        """The folder of the whole model; of a hub id, or an adapter with its base, one that is written in `stage`."""
        folder = models.folder(name)
        if folder is None or (folder / "adapter_config.json").exists():
            folder = stage.folder / f"whole-{runs.sha256_of([name])[:8]}"
            loaded = models.load(name, dtype=self.r.dtype, device="cpu")
            with models.quiet():
                models.save(loaded, folder)
        return folder

    def pairs(self, data: str) -> list[Replacement]:
        """The preference pairs from the model's own family, or from elsewhere; every candidate is logged beside."""
        stage, r = self.run.stage(f"seed{self.seed}-pairs-{data}"), self.r
        path = stage.folder / "pairs.jsonl"
        if not stage.done:
            samples, began = self._samples(), time.monotonic()
            mask = replacements.MASK if r.masked or (data, r.other) == ("other", "masked") else None
            with self.display.stage(f"replacements: {data}", "answer", len(samples)) as progress:
                made = replacements.build(
                    samples, self._writers(data), self.material.find, candidates=r.candidates, seed=self.seed,
                    mask=mask, progress=progress,
                )  # fmt: skip
            for file, lines in (
                (path, [p.record() for p in made.pairs]),
                (stage.folder / "candidates.jsonl", made.log),
                (stage.folder / "unanswered.jsonl", [{"id": id} for id in made.unanswered]),
            ):
                with file.open("w", encoding="utf-8") as out:
                    out.writelines(json.dumps(dict(line)) + "\n" for line in lines)
            if not made.pairs:
                raise DataError(
                    f"replacements: none of {len(samples)} samples got an answer without personal data; the candidates "
                    f"and the reasons are in {stage.folder / 'candidates.jsonl'}. Raise candidates, or set masked: true"
                )
            stage.finish({**made.counts(), "seconds": time.monotonic() - began})
        with path.open(encoding="utf-8") as file:
            return [Replacement.of(json.loads(line)) for line in file]

    def _samples(self) -> list[replacements.Sample]:
        found = replacements.samples(self.material.train)
        if self.r.max_samples is None or len(found) <= self.r.max_samples:
            return found
        drawn = sorted(random.Random(self.seed).sample(range(len(found)), self.r.max_samples))
        return [found[i] for i in drawn]

    def _writers(self, data: str) -> dict[str, replacements.Writer]:
        r = self.r
        how: dict[str, Any] = {"temperature": r.temperature, "max_new_tokens": r.max_new_tokens}
        if data == "other" and r.other == "masked":
            return {}
        if data == "other" and r.other and is_url(r.other):
            return {"other": replacements.openai_writer(r.other, r.other_model, **how)}
        loaded = models.load((data == "other" and r.other) or r.model, dtype=r.dtype, device=r.device)
        return {data: replacements.model_writer(loaded.model, loaded.tokenizer, template=r.template, **how)}

    def _adapter(self, state: State) -> Path:
        stage, r = self.run.stage(f"seed{self.seed}-orpo-{state.slug}", keep_unfinished=True), self.r
        folder = stage.folder / "adapter"
        if stage.done:
            return folder
        made = [_pair(p) for p in self.pairs(state.data)]
        pairs, began = cfg_pairs(made) if state.cfg else made, time.monotonic()
        loaded = models.load(self._start(state.start), dtype=r.dtype, device=r.device)
        model = self._fresh_adapter(loaded.model)
        how: dict[str, Any] = {
            "seed": self.seed, "folder": stage.folder / "training", "learning_rate": r.learning_rate,
            "batch_size": r.batch_size, "epochs": state.epochs, "max_length": r.max_length, "template": r.template,
            "save_steps": SAVE_STEPS,
        }  # fmt: skip
        with self.display.stage(f"{state.method or 'ORPO'}: {state.slug}", "step") as progress:
            if state.method:
                kept = encode(
                    self.material.retained,
                    loaded.tokenizer,
                    max_length=self._positions(loaded),
                    template=r.template,
                )
                trained = train_away(
                    state.method, model, loaded.tokenizer, pairs, retain=kept, progress=progress, **how
                )
            else:
                trained = train_orpo(
                    model, loaded.tokenizer, pairs, beta=r.beta, progress=progress,
                    max_prompt_length=max(1, r.max_length * 1900 // 2048), **how,
                )  # fmt: skip
        with models.quiet():
            model.save_pretrained(folder)
        stage.finish({**asdict(trained), "seconds": time.monotonic() - began})
        return folder

    def _fresh_adapter(self, model: Any) -> Any:
        r = self.r
        return models.add_lora(
            model, rank=r.lora_rank, alpha=r.lora_alpha, dropout=r.lora_dropout, seed=self.seed
        )

    def _relearn(self, loaded: Loaded) -> None:
        """Ten more steps of the adapter on rows that have nothing to do with the dialogues."""
        from forgetfilter.training.finetune import finetune

        rows = encode(
            self.material.prose,
            loaded.tokenizer,
            max_length=self._positions(loaded),
            template=self.r.template,
        )
        stage = self.run.stage(f"seed{self.seed}-relearn")
        finetune(
            loaded.model, rows, learning_rate=self.r.learning_rate, batch_size=self.r.batch_size,
            steps=RELEARN_STEPS, seed=self.seed, folder=stage.folder,
            pad_id=loaded.tokenizer.pad_token_id or 0,
        )  # fmt: skip

    def _positions(self, loaded: Loaded) -> int:
        return min(self.r.max_length, getattr(loaded.model.config, "max_position_embeddings", 1 << 20))

    # what is found out about them

    def _stage(self, trial: Trial) -> str:
        """A larger test set that has no more answers to offer is the small one."""
        same = len(self._asked(trial)) == len(self._asked(trial._replace(large=False)))
        return f"seed{self.seed}-evaluate-{trial._replace(large=trial.large and not same).slug}"

    def _asked(self, trial: Trial) -> list[dict[str, Any]]:
        return self.rows[: self.r.large_test_answers if trial.large else self.r.test_answers]

    def _evaluate(self, trial: Trial, loaded: Loaded) -> None:
        r, stage = self.r, self.run.stage(self._stage(trial))
        positive, negative = _prompts(trial)
        how: dict[str, Any] = {
            "instruction": positive, "negative": negative, "scale": trial.scale, "form": trial.form or "probability",
            "mask": r.mask, "max_new_tokens": r.max_new_tokens, "template": r.template,
        }  # fmt: skip
        rows = self._asked(trial)
        answers = len(rows) * max(1, trial.samples)
        with self.display.stage(f"{trial.state.name}: {trial.slug}", "answer", answers) as progress:
            found = leakage.evaluate(
                loaded.model, loaded.tokenizer, rows, find=self.material.find_all, seed=self.seed,
                training_values=self.material.training_values, samples=trial.samples,
                attack="none" if trial.attack == GUIDED else trial.attack, progress=progress, **how,
            )  # fmt: skip
            evaluations.write(found, stage.folder / "leakage")
            if trial.attack == "none" and not trial.samples:
                useful = utility(
                    loaded.model,
                    loaded.tokenizer,
                    self.material.tasks,
                    self.material.prose,
                    seed=self.seed,
                    **how,
                )
                evaluations.write(useful, stage.folder / "utility")
        stage.finish({})


RELEARN_STEPS = 10
SAVE_STEPS = 50  # between checkpoints of an adapter


def _pair(replaced: Replacement) -> Pair:
    prompt = replaced.sample.prompt
    return Pair(prompt.id, prompt.messages, replaced.chosen, replaced.sample.rejected, prompt.prefix)


def _prompts(trial: Trial) -> tuple[str | None, str | None]:
    """The system prompt that a trial answers under, and the one that it is guided away from."""
    if trial.attack == GUIDED:
        return NEGATIVE, POSITIVE
    if trial.state.cfg:
        return POSITIVE, NEGATIVE
    return (POSITIVE if trial.state.method == "prompt" else None), None


def _with_adapter(model: Any, folder: Path, *, trainable: bool) -> Any:
    from peft import PeftModel

    with models.quiet():
        return PeftModel.from_pretrained(
            model, str(folder), is_trainable=trainable, autocast_adapter_dtype=False
        )
