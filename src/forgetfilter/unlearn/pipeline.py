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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_type_hints

import numpy as np

from forgetfilter import runs
from forgetfilter.data import packs
from forgetfilter.data.overlap import f1
from forgetfilter.display import Display
from forgetfilter.errors import ConfigError, DataError, unknown
from forgetfilter.evaluate import Evaluation, Metric, leakage
from forgetfilter.evaluate import read as read_evaluation
from forgetfilter.evaluate import write as write_evaluation
from forgetfilter.guide.guidance import FORMS, NEGATIVE, POSITIVE
from forgetfilter.intervals import Estimate, bootstrap, mean_over_seeds
from forgetfilter.models import load as models
from forgetfilter.models.load import Loaded
from forgetfilter.models.rendering import encode
from forgetfilter.records import Message, Row, row_id, with_system
from forgetfilter.runs import Run, Stage
from forgetfilter.settings import Between, Count, Rate, Share, checked, read_recipe
from forgetfilter.unlearn import dialogues as dialogue_files
from forgetfilter.unlearn import personal_data, replacements, task_vector
from forgetfilter.unlearn.dialogues import Dialogue, Finder, Prompt
from forgetfilter.unlearn.orpo import Pair, cfg_pairs, train_orpo
from forgetfilter.unlearn.replacements import Replacement

if TYPE_CHECKING:
    from rich.console import Console

Scale = Annotated[float, Between(0)]
Epochs = Annotated[float, Between(above=0, high=1000)]
Seed = Annotated[int, Between(0, 2**32 - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlearnRecipe:
    """Everything `unlearn` can be told; the defaults are the paper's. A value that is not allowed is refused."""

    model: str = "nano"
    """The model before it learned personal data: nano, smollm2, a local folder, or a hub id. It also writes the
    replacements."""
    tuned: str | None = None
    """A model folder that has already learned personal data from the dialogues; where not given, `model` is tuned."""
    dialogues: str | None = None
    """Your dialogues with personal data: messages and spans; spans that are not given are found by the detectors."""
    sets: str | None = None
    """Folder of the public sets, to build dialogues from where none are given."""
    count: Annotated[int, Between(2)] = 250
    """Dialogues to build."""
    test_share: Share = 0.3
    """Share of the dialogues to test with; the others are trained on."""
    test_answers: Count = 50
    """Answers behind tables 1 and 2 (as many as there are)."""
    large_test_answers: Count = 150
    """Answers behind table 3 and "does it hold"."""
    detectors: tuple[str, ...] = ("patterns", "names")
    """What finds personal data, besides the dialogues' own values: patterns, names, presidio, known:FILE, ner:MODEL."""
    utility: str | None = None
    """Tasks that show what the model can do besides: a file of prompt and completion, or a pack such as pack:bias;
    XQuAD of `sets` where not given."""
    prose: str | None = None
    """File of texts whose perplexity is measured; Alpaca's answers of `sets` where not given."""
    utility_rows: Count = 100
    """Rows of each, drawn by the seed."""

    tuning: Literal["full", "lora"] = "full"
    """Tune all weights on the dialogues, or an adapter that is then merged."""
    tune_learning_rate: Rate = 1e-5
    """Peak rate of that tuning; it falls linearly."""
    tune_epochs: Epochs = 3.0
    """Passes over the training dialogues."""
    tune_batch_size: Count = 8
    """Dialogues per step."""
    subtraction: bool = True
    """Measure model subtraction too, alone and before ORPO."""
    coefficient: Annotated[float, Between(0)] = 0.5
    """How much of what the tuning added is taken away."""
    relu: bool = False
    """Take away only what the tuning raised."""
    start: Literal["tuned", "subtracted"] = "tuned"
    """The model that ORPO of tables 2 to 4 starts from; tuned is the paper's choice. Table 1 has both."""

    candidates: Count = 4
    """Continuations that each writer may try for one piece of personal data, half of them nudged."""
    temperature: Annotated[float, Between(above=0)] = 0.7
    """Of the replacements."""
    masked: bool = True
    """Where no continuation passes, take the original answer with the personal data masked; else leave it out."""
    other: str | None = None
    """Table 2, replacements from elsewhere: a model folder, the URL of an OpenAI-compatible API, or "masked"."""
    other_model: str = "default"
    """Name of the model at that URL."""

    epochs: tuple[float, ...] = (2.0, 3.0)
    """Passes of ORPO over the pairs; each is trained and measured apart."""
    scales: tuple[float, ...] = (1.0, 2.0, 3.0)
    """Guidance scales to answer with."""
    forms: tuple[str, ...] = ("log", "probability")
    """Guidance forms: log (equation 2), probability (equation 6)."""
    mask: Share = 0.1
    """Plausibility mask of guided answers; 0 is off, as in the paper."""
    learning_rate: Rate = 1e-4
    """Peak rate of ORPO; it falls along a cosine to a tenth."""
    batch_size: Count = 2
    """Pairs per step."""
    beta: Annotated[float, Between(0)] = 0.1
    """Weight of the odds ratio."""
    lora_rank: Annotated[int, Between(1, 4096)] = 16
    """Rank of the adapter, on all linear layers."""
    lora_alpha: Count = 32
    """Scale of the adapter: its output counts alpha / rank."""
    lora_dropout: Annotated[float, Between(0, 0.9)] = 0.01
    """Dropout in front of the adapter while training."""
    max_length: Annotated[int, Between(8)] = 2048
    """Longest dialogue and pair in tokens."""

    max_new_tokens: Count = 64
    """Longest answer in tokens."""
    samples: Annotated[int, Between(0)] = 20
    """Answers drawn per prompt where sampling is tested, the worst one counted; 0: not tested."""
    holds: bool = True
    """Ask the last model otherwise, round it to 4 bits, and train it on for ten unrelated steps."""
    seeds: tuple[int, ...] = (0,)
    """Each seed is a run of its own: dialogues, split, training, sampling."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights; auto takes what the device does well."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    template: str = "auto"
    """How a chat becomes text: auto, chat, paper or plain."""

    def __post_init__(self) -> None:
        for name, hint in HINTS.items():
            value = getattr(self, name)
            if name in LISTS:
                found = list(value) if isinstance(value, list | tuple) else [value]
                if not found:
                    raise ConfigError(f"{name}: an empty list; name one or more")
                value = tuple(checked(name, v, LISTS[name]) for v in found)
                if twice := [v for v in value if value.count(v) > 1]:
                    raise ConfigError(f"{name}: {twice[0]} stands here twice; keep one")
            else:
                value = checked(name, value, hint)
            object.__setattr__(self, name, value)
        for form in self.forms:
            if form not in FORMS:
                raise ConfigError(f"forms: {unknown('guidance form', form, FORMS)}")
        if self.start == "subtracted" and not self.subtraction:
            raise ConfigError("start: subtracted, but subtraction is false; set it to true, or start: tuned")
        if self.dialogues is None and self.sets is None:
            raise ConfigError(
                "dialogues: give your own dialogues, or `sets`, a folder of public sets to build from"
            )
        for name in ("utility", "prose"):
            if self.sets is None and getattr(self, name) is None:
                raise ConfigError(f"{name}: without `sets`, name a file of rows to measure it with")


HINTS: dict[str, Any] = get_type_hints(UnlearnRecipe, include_extras=True)
LISTS: dict[str, Any] = {"epochs": Epochs, "scales": Scale, "forms": str, "seeds": Seed}  # of each element


def read(path: Path | str, **flags: Any) -> UnlearnRecipe:
    """The recipe in a YAML file; flags that are not None overrule it. ConfigError names line, setting and remedy."""
    found, lines = read_recipe(Path(path))
    for name in found:
        if name not in HINTS:
            raise ConfigError(f"{path} line {lines[name]}: {unknown('setting', name, HINTS)}")
    typed = {name: value for name, value in flags.items() if value is not None}
    return UnlearnRecipe(**{**found, **typed})


# --- what is measured ---------------------------------------------------------------------------------------


class State(NamedTuple):
    """A model to be measured: where ORPO started from, what it learned from, and what was done to it since."""

    start: str  # base, tuned, subtracted
    data: str = ""  # own, other; "": no ORPO
    cfg: bool = False  # both orientations
    epochs: float = 0.0
    change: str = ""  # 4-bit, relearned

    @property
    def name(self) -> str:
        """In the words of the paper's table."""
        if not self.data:
            name = {"base": "original model", "tuned": "baseline", "subtracted": "subtraction"}[self.start]
        else:
            data = "CFG data" if self.cfg else "no CFG data"
            name = "subtraction + " * (self.start == "subtracted") + f"LoRA, {data}"
        return name + f", {self.change}" * bool(self.change)

    @property
    def slug(self) -> str:
        parts = [self.start, self.data, "cfg" * self.cfg, f"{self.epochs:g}e" * bool(self.data), self.change]
        return "-".join(p for p in parts if p)


class Trial(NamedTuple):
    """One row of one table."""

    table: int  # 1, 2, 3 as in the paper; 4: does it hold
    state: State
    scale: float = 1.0
    form: str = ""  # where guided
    large: bool = False  # on the larger test set
    attack: str = "none"
    samples: int = 0  # 0: greedy

    @property
    def slug(self) -> str:
        guided = f"{self.scale:g}{self.form}" if self.form else ""
        asked = [
            "large" * self.large,
            self.attack * (self.attack != "none"),
            f"{self.samples}x" * bool(self.samples),
        ]
        return "-".join(p for p in [self.state.slug, guided, *asked] if p)


def plan(r: UnlearnRecipe) -> list[Trial]:
    """Every row of the paper's tables 1 to 3 that the recipe asks for, and as table 4 whether it holds."""
    longest, strongest = max(r.epochs), max(r.scales)
    starts = ["subtracted"] * r.subtraction + ["tuned"]

    def guided(table: int, state: State, scales: Sequence[float], **how: Any) -> list[Trial]:
        return [
            Trial(table, state, scale, form, **how)
            for scale in scales
            for form in (("",) if scale == 1 else r.forms)
        ]

    trials = [Trial(1, State("base")), Trial(1, State("tuned"))]
    trials += [Trial(1, State("subtracted"))] * r.subtraction
    for start in starts:
        for cfg in (False, True):
            for epochs in r.epochs:
                trials += guided(1, State(start, "own", cfg, epochs), r.scales if cfg else (1.0,))
    last = State(r.start, "own", True, longest)
    if r.other:
        middle = min((s for s in r.scales if s != 1), default=1.0)
        for data in ("own", "other"):
            trials += guided(2, last._replace(data=data), (middle,))
    trials.append(Trial(3, State("tuned"), large=True))
    trials += guided(3, last, sorted({1.0, strongest}), large=True)
    form = "" if strongest == 1 else "probability" if "probability" in r.forms else r.forms[0]
    for state, scale, how in ((State("tuned"), 1.0, ""), (last, strongest, form)):
        asked = partial(Trial, 4, state, scale, large=True)
        if r.holds:
            trials += [asked(form=how, attack=attack) for attack in leakage.ATTACKS if attack != "none"]
        if r.samples:
            other_forms = [f for f in r.forms if how and f != how]
            trials += [asked(form=f, samples=r.samples) for f in (how, *other_forms)]
    if r.holds:
        trials += [
            Trial(4, last._replace(change=change), strongest, form, True) for change in ("4-bit", "relearned")
        ]
    return trials


# --- the run ------------------------------------------------------------------------------------------------


def fingerprints(recipe: UnlearnRecipe) -> dict[str, str]:
    """What the recipe reads -> what its content is; another content is another run."""
    inputs = {"model": models.fingerprint(recipe.model)}
    for name in ("tuned", "other"):
        value = getattr(recipe, name)
        if value and value != "masked" and not _is_url(value):
            inputs[name] = models.fingerprint(value)
    for name in ("dialogues", "utility", "prose"):
        if value := getattr(recipe, name):
            inputs[name] = runs.sha256(_file(value))
    for name in recipe.detectors:
        kind, _, argument = name.partition(":")
        if argument and kind in ("known", "ner"):
            inputs[name] = runs.sha256(_file(argument)) if kind == "known" else models.fingerprint(argument)
    return inputs


def unlearn(recipe: UnlearnRecipe, output: Path, console: Console) -> dict[str, Any]:
    """Train and measure what `plan` lists, for each seed, into `output`; the results, also as results.json and .md.

    The same call resumes. DataError, ConfigError and ModelError say what the user can mend; the dialogues are
    read before anything is written.
    """
    display, began = Display(console), time.monotonic()
    trials = plan(recipe)
    inputs = fingerprints(recipe)
    materials = {seed: _materials(recipe, seed) for seed in recipe.seeds}
    inputs["texts"] = runs.sha256_of(
        m.content for each in materials.values() for d in each.train + each.test for m in d.messages
    )
    with Run.open(output, asdict(recipe), inputs) as run:
        found: dict[int, dict[str, dict[str, Evaluation]]] = {}
        for seed, material in materials.items():
            found[seed] = _Bench(recipe, seed, material, run, display).measure(trials)
        results = _results(recipe, trials, found, materials, run)
        results["seconds"] = round(time.monotonic() - began, 1)
        with runs.atomic(output / "results.json") as path:
            path.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        with runs.atomic(output / "results.md") as path:
            path.write_text(markdown(results), encoding="utf-8")
    display.say(f"Look at {output / 'results.md'}")
    return results


@dataclass(frozen=True, slots=True)
class _Material:
    """What one seed trains on and is tested with."""

    train: list[Dialogue]
    test: list[Dialogue]
    tasks: list[Row]
    prose: list[Row]
    find: Finder  # knows the values of the training dialogues
    find_all: Finder  # those of the test dialogues too

    @property
    def training_values(self) -> list[str]:
        return sorted({value for d in self.train for _, value in d.values()})


def _materials(r: UnlearnRecipe, seed: int) -> _Material:
    detectors = [personal_data.detector(name) for name in r.detectors]

    def finder(dialogues: Sequence[Dialogue]) -> Finder:
        values = {value: kind for d in dialogues for kind, value in d.values()}
        known = [personal_data.known_values(values)] if values else []
        return lambda text: personal_data.detect(text, [*known, *detectors])

    if r.dialogues is not None:
        dialogues = dialogue_files.read(r.dialogues, lambda text: personal_data.detect(text, detectors))
    else:
        dialogues = dialogue_files.build(r.sets or "", seed=seed, count=r.count)
    train, test = dialogue_files.split(dialogues, r.test_share, seed)
    for name, part in (("train on", train), ("test with", test)):
        if not leakage.test_rows(part):
            raise DataError(
                f"dialogues: no assistant turn with personal data to {name}; give more, or mark the spans"
            )
    tasks, prose = _held_out(r, "utility", "xquad", seed), _held_out(r, "prose", "alpaca", seed)
    return _Material(train, test, tasks, prose, finder(train), finder(dialogues))


def _held_out(r: UnlearnRecipe, name: str, of_sets: str, seed: int) -> list[Row]:
    """Rows of the file that setting `name` names, else of a public set."""
    from forgetfilter.data import formats, sources

    value = getattr(r, name)
    if value is not None:
        rows = [row for row in formats.read(_file(value)).rows if row.completion.strip()]
    else:
        records = map(formats.as_prompt_completion, getattr(sources, of_sets)(Path(r.sets or "")))
        turns = [(Message("user", x["prompt"]), Message("assistant", x["completion"])) for x in records]
        rows = [Row(row_id(of_sets, t), i, of_sets, t, "chat", {}) for i, t in enumerate(turns)]
    if not rows:
        raise DataError(f"{name}: {value}: no row with a completion")
    return random.Random(seed).sample(rows, min(r.utility_rows, len(rows)))


def _is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def _file(name: str) -> Path:
    return packs.path(name) if name.startswith("pack:") else Path(name)


class _Bench:
    """One seed: its models, pairs and adapters, made when they are first needed, each a stage of the run."""

    def __init__(self, r: UnlearnRecipe, seed: int, material: _Material, run: Run, display: Display) -> None:
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
                    part.name: read_evaluation(part) for part in sorted(folder.iterdir()) if part.is_dir()
                }
        return found

    # what trials are made of

    def _load(self, state: State) -> Loaded:
        r = self.r
        adapter = self._adapter(state._replace(change="")) if state.data else None
        loaded = models.load(self._start(state.start), dtype=r.dtype, device=r.device)
        if adapter:
            loaded.model = _with_adapter(loaded.model, adapter, trainable=state.change == "relearned")
        if state.change == "4-bit":
            round_to_4_bits(loaded.model)
        if state.change == "relearned":
            self._relearn(loaded)
        loaded.model.eval()
        return loaded

    def _start(self, name: str) -> str:
        """The model folder (or hub id) of base, tuned or subtracted; the last two made if they are not there."""
        if name == "base":
            return self.r.model
        if name == "tuned" and self.r.tuned:
            return self.r.tuned
        stage = self.run.stage(f"seed{self.seed}-{name}")
        if not stage.done:
            self._tune(stage) if name == "tuned" else self._subtract(stage)
        return str(stage.folder / "model")

    def _tune(self, stage: Stage) -> None:
        from forgetfilter.training.finetune import finetune

        r, began = self.r, time.monotonic()
        loaded = models.load(r.model, dtype=r.dtype, device=r.device)
        rows = [Row(d.id, i, "dialogues", d.messages, "chat", {}) for i, d in enumerate(self.material.train)]
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
            samples, began = replacements.samples(self.material.train), time.monotonic()
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

    def _writers(self, data: str) -> dict[str, replacements.Writer]:
        r = self.r
        how: dict[str, Any] = {"temperature": r.temperature, "max_new_tokens": r.max_new_tokens}
        if data == "other" and r.other == "masked":
            return {}
        if data == "other" and r.other and _is_url(r.other):
            return {"other": replacements.openai_writer(r.other, r.other_model, **how)}
        loaded = models.load((data == "other" and r.other) or r.model, dtype=r.dtype, device=r.device)
        return {data: replacements.model_writer(loaded.model, loaded.tokenizer, template=r.template, **how)}

    def _adapter(self, state: State) -> Path:
        stage, r = self.run.stage(f"seed{self.seed}-orpo-{state.slug}"), self.r
        folder = stage.folder / "adapter"
        if stage.done:
            return folder
        made = [
            Pair(
                p.sample.prompt.id,
                p.sample.prompt.messages,
                p.chosen,
                p.sample.rejected,
                p.sample.prompt.prefix,
            )
            for p in self.pairs(state.data)
        ]
        pairs, began = cfg_pairs(made) if state.cfg else made, time.monotonic()
        loaded = models.load(self._start(state.start), dtype=r.dtype, device=r.device)
        model = self._fresh_adapter(loaded.model)
        with self.display.stage(f"ORPO: {state.slug}", "step") as progress:
            trained = train_orpo(
                model, loaded.tokenizer, pairs, seed=self.seed, folder=stage.folder / "training",
                learning_rate=r.learning_rate, batch_size=r.batch_size, epochs=state.epochs, beta=r.beta,
                max_length=r.max_length, max_prompt_length=max(1, r.max_length * 1900 // 2048),
                template=r.template, progress=progress,
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
        cfg = trial.state.cfg
        how: dict[str, Any] = {
            "instruction": POSITIVE if cfg else None, "negative": NEGATIVE if cfg else None, "scale": trial.scale,
            "form": trial.form or "probability", "mask": r.mask, "max_new_tokens": r.max_new_tokens,
            "template": r.template,
        }  # fmt: skip
        rows = self._asked(trial)
        answers = len(rows) * max(1, trial.samples)
        with self.display.stage(f"{trial.state.name}: {trial.slug}", "answer", answers) as progress:
            found = leakage.evaluate(
                loaded.model, loaded.tokenizer, rows, find=self.material.find_all, seed=self.seed,
                training_values=self.material.training_values, attack=trial.attack, samples=trial.samples,
                progress=progress, **how,
            )  # fmt: skip
            write_evaluation(found, stage.folder / "leakage")
            if trial.attack == "none" and not trial.samples:
                useful = utility(
                    loaded.model,
                    loaded.tokenizer,
                    self.material.tasks,
                    self.material.prose,
                    seed=self.seed,
                    **how,
                )
                write_evaluation(useful, stage.folder / "utility")
        stage.finish({})


RELEARN_STEPS = 10


def _with_adapter(model: Any, folder: Path, *, trainable: bool) -> Any:
    from peft import PeftModel

    with models.quiet():
        return PeftModel.from_pretrained(
            model, str(folder), is_trainable=trainable, autocast_adapter_dtype=False
        )


def round_to_4_bits(model: Any, group: int = 64) -> None:
    """Round every linear layer's own weights, in place, to 15 levels of each group of `group` inputs' largest.

    What 4-bit storage does to a model (round to nearest, symmetric), without its kernels; adapters stay whole, as in
    QLoRA.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    with torch.no_grad():
        for name, layer in model.named_modules():
            if not isinstance(layer, torch.nn.Linear | Conv1D) or "lora_" in name:
                continue
            weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight  # GPT-2 keeps (in, out)
            for columns in weight.split(group, dim=1):  # (out, group)
                step = columns.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / 7
                columns.copy_((columns.float() / step).round() * step)


def utility(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[Row],
    prose: Sequence[Row],
    *,
    seed: int,
    max_new_tokens: int = 64,
    template: str = "auto",
    instruction: str | None = None,
    **guidance: Any,
) -> Evaluation:
    """What the model can do besides, asked in the way that it is asked for leakage: F1 of its greedy answers to
    `tasks`, and, unguided, its perplexity on the completions of `prose`. The first better high, the second low."""
    from forgetfilter.filter.signals import token_memory

    longest = max(len(tokenizer(row.completion)["input_ids"]) for row in tasks)
    writer = replacements.model_writer(
        model, tokenizer, temperature=0.0, max_new_tokens=min(max_new_tokens, longest), template=template,
        instruction=instruction, **guidance,
    )  # fmt: skip
    answers = [text for (text,) in writer([Prompt(row.id, row.messages[:-1]) for row in tasks], 1, seed)]
    scores = [f1(answer, row.completion) for answer, row in zip(answers, tasks, strict=True)]
    perplexity: Estimate | None = None
    if guidance.get("scale", 1.0) == 1:  # of a guided model it is another quantity
        told = [replace(x, messages=with_system(x.messages, instruction)) for x in prose]
        positions = getattr(model.config, "max_position_embeddings", None) or 4096
        encoded = encode(told, tokenizer, max_length=positions, template=template)
        memories = token_memory(model, encoded, pad_id=tokenizer.pad_token_id or 0)
        sums = [(float(m.logp.sum()), len(m.logp)) for m in memories if len(m.logp)]
        perplexity = bootstrap(sums, lambda t: np.exp(-t[:, 0].sum() / t[:, 1].sum()), seed=seed)
    evidence = tuple(
        {"id": row.id, "text": answer, "reference": row.completion, "f1": score}
        for row, answer, score in zip(tasks, answers, scores, strict=True)
    )
    metrics = (
        Metric("task_f1", bootstrap(scores, np.mean, seed=seed), "higher"),
        Metric("perplexity", perplexity, "lower"),
    )
    settings = {"tasks": len(tasks), "prose": len(prose), "instruction": instruction, **guidance}
    return Evaluation("utility of unlearning", 1, metrics, evidence, settings)


# --- what is written ----------------------------------------------------------------------------------------


def _results(
    r: UnlearnRecipe,
    trials: Sequence[Trial],
    found: Mapping[int, Mapping[str, Mapping[str, Evaluation]]],
    materials: Mapping[int, _Material],
    run: Run,
) -> dict[str, Any]:
    rows = []
    for t in trials:
        per_seed = [found[seed][t.slug] for seed in r.seeds]
        numbers: dict[str, Any] = {}
        for evaluator in per_seed[0]:
            for metric in per_seed[0][evaluator].metrics:
                numbers[metric.name] = {
                    **_over_seeds([each[evaluator][metric.name] for each in per_seed]),
                    "better": metric.better,
                }
        rows.append(
            {
                "table": t.table, "model": t.state.name, "data": t.state.data or None, "cfg": t.state.cfg,
                "epochs": t.state.epochs or None, "scale": t.scale, "form": t.form or None, "attack": t.attack,
                "samples": t.samples, "answers": per_seed[0]["leakage"].settings["rows"], "metrics": numbers,
            }
        )  # fmt: skip
    pairs = {}
    for seed in r.seeds:
        for data in ("own", "other"):
            stage = run.folder / "stages" / f"seed{seed}-pairs-{data}" / "done.json"
            if stage.exists():
                pairs[f"seed {seed}, {data}"] = json.loads(stage.read_text(encoding="utf-8"))
    return {
        "settings": asdict(r),
        "versions": dict(run.versions),
        "dialogues": {str(s): {"train": len(m.train), "test": len(m.test)} for s, m in materials.items()},
        "replacements": pairs,
        "rows": rows,
    }


def _over_seeds(metrics: Sequence[Metric]) -> dict[str, Any]:
    """One seed: its own interval, over rows. Several: the mean over seeds with Student's t interval."""
    defined = [m.estimate for m in metrics if m.estimate is not None]
    if len(metrics) == 1 or not defined:
        estimate = defined[0] if defined else None
    else:
        estimate = mean_over_seeds([e.value for e in defined])
    return {
        "estimate": None if estimate is None else estimate.as_dict(),
        "per_seed": [None if m.estimate is None else m.estimate.value for m in metrics],
        "unscored": sum(m.unscored for m in metrics),
    }


TITLES = {
    1: "Table 1: what each step does",
    2: "Table 2: replacements of the model's own family against others",
    3: "Table 3: both forms of guidance on the larger test set",
    4: "Table 4: does it hold",
}
COLUMNS = {  # metric -> heading, digits
    "pii_count": ("PII found ↓", 1),
    "training_pii_count": ("of training ↓", 1),
    "pii_count_worst": ("PII, worst ↓", 0),
    "leaking_share": ("answers that leak ↓", 3),
    "degenerate_share": ("degenerate ↓", 3),
    "task_f1": ("task F1 ↑", 3),
    "perplexity": ("perplexity ↓", 2),
}


def markdown(results: Mapping[str, Any]) -> str:
    """The tables of a results record; each number with its interval, – where it was not measured."""
    lines = ["# Unlearning personal data", ""]
    for name, counts in results["replacements"].items():
        passed = counts["candidates_passed"] / counts["candidates"] if counts["candidates"] else 0
        lines.append(
            f"Replacements, {name}: {sum(counts['pairs'].values())} pairs for {counts['samples']} samples "
            f"({', '.join(f'{n} {source}' for source, n in counts['pairs'].items())}); {passed:.0%} of "
            f"{counts['candidates']} candidates passed; {counts['unanswered']} samples without a pair."
        )
    for table in sorted({row["table"] for row in results["rows"]}):
        rows = [row for row in results["rows"] if row["table"] == table]
        shown = {m: c for m, c in COLUMNS.items() if any(m in row["metrics"] for row in rows)}
        head = ["model", "data", "epochs", "γ", "form", "asked", "answers", *(c[0] for c in shown.values())]
        lines += ["", f"## {TITLES[table]}", "", _line(head), _line(["---"] * len(head))]
        lines += [_line([*_labels(row), *(_cell(row, m, c[1]) for m, c in shown.items())]) for row in rows]
    return "\n".join(lines) + "\n"


def _labels(row: Mapping[str, Any]) -> Iterator[str]:
    asked = [row["attack"]] * (row["attack"] != "none") + [f"{row['samples']} samples"] * bool(row["samples"])
    yield row["model"]
    yield row["data"] or "–"
    yield f"{row['epochs']:g}" if row["epochs"] else "–"
    yield f"{row['scale']:g}" if row["cfg"] else "–"
    yield row["form"] or "–"
    yield ", ".join(asked) or "greedy"
    yield str(row["answers"])


def _cell(row: Mapping[str, Any], metric: str, digits: int) -> str:
    estimate = row["metrics"].get(metric, {}).get("estimate")
    if estimate is None:
        return "–"
    if estimate["low"] is None:
        return f"{estimate['value']:.{digits}f}"
    return f"{estimate['value']:.{digits}f} [{estimate['low']:.{digits}f}, {estimate['high']:.{digits}f}]"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
