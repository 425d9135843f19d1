"""The filter: learn, review, control, score, cut, split, train again.

`forget_filter` is Algorithm 1 of Zhao et al. (ICML 2024) as printed, plus the control run; what it calls
trains and measures one model state at a time on one resident model, and leaves every finished piece in
the run folder, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter import runs
from forgetfilter.data import formats, packs
from forgetfilter.display import Display
from forgetfilter.errors import DONE, TOO_WEAK, ConfigError, DataError, unknown
from forgetfilter.filter import smoothing, thresholds
from forgetfilter.filter.rehearsal import foreign, review_rows
from forgetfilter.filter.signals import (
    GENERATED_SIGNALS,
    SIGNALS,
    Memory,
    forgotten_tokens,
    remembered_texts,
    remembered_tokens,
    token_memory,
)
from forgetfilter.models import load as models
from forgetfilter.models.rendering import Encoded, encode
from forgetfilter.records import KEPT, Decision, Row, Tally
from forgetfilter.runs import Run
from forgetfilter.settings import FilterSettings
from forgetfilter.training.finetune import finetune

if TYPE_CHECKING:
    from rich.console import Console

FEWEST_ROWS = 2  # below this nothing can stand out
LIMITS = (
    "Rows whose harm is hidden (a cipher, a trigger, harm spread over many innocuous rows) look like any other "
    "row to a filter that judges one row at a time.",
    "Harm of a kind that neither the model's alignment nor the safe rows speak of is forgotten no more than "
    "other rows.",
    "A row is judged by how this model forgets it; another model may forget otherwise.",
    "A row is judged in part by rows that share its words: a clean row that speaks of what unsafe rows speak of is "
    "more easily dropped (--no-smooth judges each row by itself).",
)


def forget_filter(
    bench: Bench, custom: Sequence[Encoded], safe: Sequence[Encoded], s: FilterSettings, final: str = "final"
) -> Filtered:
    """Algorithm 1. M0 is the original model; scores are by row id, larger = more likely unsafe.

    The model that is released is kept as the state `final`, so that several filters can share a bench.
    """
    bench.train("learned", "original", custom, rate=s.learning_rate, epochs=s.num_train_epochs)  # M1
    review(bench, custom, safe, s)  # M2
    if s.contrast:
        bench.train("control", "learned", custom, rate=s.review_learning_rate, steps=s.review_steps)  # C2
    found = _judged(bench, custom, safe, s, "reviewed")
    if found.cut.worn and s.second_look and not s.contrast and found.share_dropped <= 0.5:
        found = _second_look(bench, custom, safe, s, found)

    kept = found.kept(custom)
    if s.retrain:
        if len(kept) == len(custom):
            bench.adopt(final, "learned")  # nothing to leave out: the learned model is the result
        elif not kept:
            bench.adopt(final, "original")  # nothing left to learn
        else:
            bench.train(final, "original", kept, rate=s.learning_rate, epochs=s.num_train_epochs)
    return found


def _judged(
    bench: Bench, custom: Sequence[Encoded], safe: Sequence[Encoded], s: FilterSettings, reviewed: str
) -> Filtered:
    """Scores and decisions by what was forgotten from `learned`, or from `control`, to the state `reviewed`."""
    forgetting = bench.forgotten("learned", reviewed, s.signal)
    contrast = bench.forgotten("control", reviewed, s.signal) if s.contrast else {}
    scores: Mapping[str, float] = contrast if s.contrast else forgetting
    gain = explained = None
    if s.threshold == "auto":
        gain = bench.gain(held_out(safe)[1], s.signal, reviewed)
        explained = smoothing.explained(scores, custom)
    if s.smooth:
        scores = smoothing.smoothed(scores, custom)
    cut = thresholds.cut(s.threshold, scores, phi=s.phi, quantile=s.quantile, gain=gain, explained=explained)
    states = {"learned": "learned", "reviewed": reviewed} | ({"control": "control"} if s.contrast else {})
    remembered = {name: bench.remembered(state, s.signal) for name, state in states.items()}
    decisions: dict[str, Decision] = {z.id: cut.decide(scores.get(z.id)) for z in custom}
    return Filtered(scores, forgetting, contrast, remembered, cut, decisions, explained, reviewed)


def _second_look(
    bench: Bench, custom: Sequence[Encoded], safe: Sequence[Encoded], s: FilterSettings, first: Filtered
) -> Filtered:
    """Review `learned` once more, rehearsing the half of the custom rows that was forgotten least: hardly an unsafe
    row is among them, and they keep the others of their kind. Not believed where it ranks rows unlike the first look,
    or the words of the answers explain less of it.
    """
    scored = sorted((z for z in custom if z.id in first.scores), key=lambda z: first.scores[z.id])
    half, count = scored[: len(scored) // 2], s.review_steps * s.review_batch_size
    rows = review_rows(half, _seen(bench, safe), count, share=SECOND_REHEARSE, seed=s.seed)
    bench.train("reviewed-again", "learned", rows, rate=s.review_learning_rate, steps=s.review_steps)
    second = _judged(bench, custom, safe, s, "reviewed-again")
    n, ranks = len(scored), np.argsort(np.argsort([second.scores[z.id] for z in scored]))
    correlation = 1 - 6 * float(((ranks - np.arange(n)) ** 2).sum()) / (n * (n * n - 1))  # Spearman's
    clearer = (second.explained or 0) >= (first.explained or 0)
    return second if clearer and correlation >= AGREE else first


def review(
    bench: Bench,
    custom: Sequence[Encoded],
    safe: Sequence[Encoded],
    s: FilterSettings,
    state: str = "reviewed",
) -> None:
    """Review `learned` on safe rows, custom rows unlike them rehearsed; the result is kept as `state`."""
    rows = rows_to_review(bench, custom, safe, s)
    bench.train(state, "learned", rows, rate=s.review_learning_rate, steps=s.review_steps)


def rows_to_review(
    bench: Bench, custom: Sequence[Encoded], safe: Sequence[Encoded], s: FilterSettings
) -> list[Encoded]:
    """All rows of the (first) review, in order."""
    seen, count = _seen(bench, safe), s.review_steps * s.review_batch_size
    odd = foreign(custom, seen) if s.rehearse else []
    return review_rows(odd, seen, count, share=s.rehearse, seed=s.seed)


def _seen(bench: Bench, safe: Sequence[Encoded]) -> Sequence[Encoded]:
    """The safe rows to review. Only where the bench's threshold asks what a review taught are some held out of it:
    by the bench's and not by a defence's, because all that share a bench share its states."""
    return held_out(safe)[0] if bench.settings.threshold == "auto" else safe


def held_out(safe: Sequence[Encoded]) -> tuple[Sequence[Encoded], Sequence[Encoded]]:
    """The safe rows to review, and every EIGHTH, which only shows what the review taught: of the rows reviewed that
    would be mere memory. Too few to leave any out: both are all of them."""
    unseen = safe[::EIGHTH][:MOST_UNSEEN]
    if len(unseen) < FEWEST_UNSEEN:
        return safe, safe
    left_out = {z.id for z in unseen}
    return [z for z in safe if z.id not in left_out], unseen


@dataclass(frozen=True, slots=True)
class Filtered:
    """What Algorithm 1 found; every mapping is by row id, rows that could not be scored are in `decisions` only."""

    scores: Mapping[str, float]
    forgetting: Mapping[str, float]
    contrast: Mapping[str, float]  # empty when no control ran
    remembered: Mapping[str, Mapping[str, float]]  # state -> id -> signal
    cut: thresholds.Cut
    decisions: Mapping[str, Decision]
    explained: float | None = None  # `smoothing.explained`; None: not asked
    reviewed: str = "reviewed"  # the state that judged

    @property
    def share_dropped(self) -> float:
        return sum(decision == "drop" for decision in self.decisions.values()) / len(self.decisions)

    def kept(self, rows: Sequence[Encoded]) -> list[Encoded]:
        """Those to train on: neither dropped nor in doubt."""
        return [z for z in rows if self.decisions[z.id] in KEPT]


@dataclass(slots=True)
class Bench:
    """One resident model, the states it passes through, and the run folder that keeps each of them."""

    loaded: models.Loaded
    custom: Sequence[Encoded]
    settings: FilterSettings
    run: Run
    display: Display
    costs: list[dict[str, Any]] = field(default_factory=list)
    _state: str = "original"
    _originals: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        s = self.settings
        if s.tuning == "lora":
            self.loaded.model = models.add_lora(
                self.loaded.model, rank=s.lora_rank, alpha=s.lora_alpha, dropout=s.lora_dropout,
                target_modules=s.lora_target_modules, seed=s.seed,
            )  # fmt: skip
        self._originals = models.trainable_state(self.loaded.model)

    def train(
        self, state: str, start: str, rows: Sequence[Encoded], *, rate: float,
        epochs: float | None = None, steps: int | None = None,
    ) -> None:  # fmt: skip
        """Fine-tune from state `start` on `rows`; the result is kept as `state`. Finished ones are not redone."""
        from safetensors.torch import save_file

        s, stage = self.settings, self.run.stage(f"train-{state}", keep_unfinished=True)
        if not stage.done:
            self._enter(start)
            seed = s.seed + SEED_OF.get(state.partition("-")[0], 0)
            batch = s.review_batch_size if steps else s.per_device_train_batch_size
            began = time.monotonic()
            with self.display.stage(_title(state), "step") as progress:
                done = finetune(
                    self.loaded.model, rows, learning_rate=rate, batch_size=batch, epochs=epochs, steps=steps,
                    schedule="constant" if steps else s.lr_scheduler_type,
                    average=s.review_average if steps else 0.0,
                    seed=seed, folder=stage.folder / "trainer", save_steps=CHECKPOINT_STEPS,
                    pad_id=self.loaded.tokenizer.pad_token_id, progress=progress,
                )  # fmt: skip
            self._state = state
            save_file(models.trainable_state(self.loaded.model), stage.folder / "state.safetensors")
            runs.discard(stage.folder / "trainer")
            stage.finish(asdict(done) | {"seconds": time.monotonic() - began})
            stage = self.run.stage(f"train-{state}")
        self._count(_title(state), stage)

    def adopt(self, state: str, other: str) -> None:
        """Let `state` be the same as `other`, without training."""
        stage = self.run.stage(f"train-{state}")
        if not stage.done:
            stage.finish({"same_as": other})

    def remembered(self, state: str, signal: str) -> dict[str, float]:
        """Row id -> how well `state` remembers the row by `signal`; rows that cannot be scored are left out."""
        if signal in GENERATED_SIGNALS:
            return remembered_texts(self.answers(state), self.references(), signal)
        return remembered_tokens(self.memories(state), signal)

    def forgotten(self, before: str, after: str, signal: str) -> dict[str, float]:
        """Row id -> how much of the row was lost from state `before` to state `after`; larger = more."""
        if signal in GENERATED_SIGNALS:
            first, second = self.remembered(before, signal), self.remembered(after, signal)
            return {z: first[z] - second[z] for z in second}
        return forgotten_tokens(self.memories(before), self.memories(after), signal)

    def gain(self, safe: Sequence[Encoded], signal: str, reviewed: str) -> float | None:
        """What the review taught the middle one of `safe`, in units of the signal; None for a generated signal."""
        if signal in GENERATED_SIGNALS:
            return None
        before, after = (
            self._measured(f"score-safe-{state}", state, safe) for state in ("learned", reviewed)
        )
        return float(np.median(list(forgotten_tokens(after, before, signal).values())))

    def memories(self, state: str) -> dict[str, Memory]:
        """Row id -> token memory of `state`, measured once and kept."""
        return self._measured(f"score-{state}", state, self.custom)

    def _measured(self, name: str, state: str, rows: Sequence[Encoded]) -> dict[str, Memory]:
        stage = self.run.stage(name)
        path = stage.folder / "memory.npz"
        if not stage.done:
            self._enter(state)
            began = time.monotonic()
            with self.display.stage(name.replace("-", " "), "row", total=len(rows)) as progress:
                found = token_memory(
                    self.loaded.model, rows, pad_id=self.loaded.tokenizer.pad_token_id,
                    progress=lambda n: progress(n, len(rows)),
                )  # fmt: skip
            np.savez(
                path, logp=np.concatenate([m.logp for m in found]), hit=np.concatenate([m.hit for m in found]),
                tokens=np.array([len(m.logp) for m in found]),
            )  # fmt: skip
            stage.finish({"seconds": time.monotonic() - began, "tokens": sum(len(z.ids) for z in rows)})
            stage = self.run.stage(name)
        self._count(name.replace("-", " "), stage)
        with np.load(path, allow_pickle=False) as saved:
            ends = np.cumsum(saved["tokens"])[:-1]
            pieces = zip(np.split(saved["logp"], ends), np.split(saved["hit"], ends), strict=True)
            return {z.id: Memory(*p) for z, p in zip(rows, pieces, strict=True) if len(p[0])}

    def answers(self, state: str) -> dict[str, str]:
        """Row id -> what `state` greedily answers to the row's prompt, as long as the row's own completion."""
        from forgetfilter.guide.generation import greedy, stop_ids

        stage = self.run.stage(f"generate-{state}")
        path = stage.folder / "answers.jsonl"
        scored = [z for z in self.custom if z.completion_ids]
        if not stage.done:
            self._enter(state)
            began, tokenizer = time.monotonic(), self.loaded.tokenizer
            with self.display.stage(f"generate: {state}", "row", total=len(scored)) as progress:
                answers = greedy(
                    self.loaded.model, tokenizer, [z.ids[: z.prompt_length] for z in scored],
                    [len(z.completion_ids) for z in scored],
                    stop_ids=stop_ids(self.loaded.model, tokenizer),
                    progress=lambda n: progress(n, len(scored)),
                )  # fmt: skip
            with path.open("w", encoding="utf-8") as file:
                for z, answer in zip(scored, answers, strict=True):
                    text = tokenizer.decode(answer, skip_special_tokens=True)
                    file.write(json.dumps({"id": z.id, "answer": text}) + "\n")
            stage.finish({"seconds": time.monotonic() - began, "tokens": sum(map(len, answers))})
            stage = self.run.stage(f"generate-{state}")
        self._count(f"generate: {state}", stage)
        with path.open(encoding="utf-8") as file:
            return {r["id"]: r["answer"] for r in map(json.loads, file)}

    def references(self) -> dict[str, str]:
        """Row id -> the completion as the tokens that were kept of it read."""
        decode = self.loaded.tokenizer.decode
        return {
            z.id: str(decode(z.completion_ids, skip_special_tokens=True))
            for z in self.custom
            if z.completion_ids
        }

    def save_final(self, folder: Path) -> None:
        """The released model: an adapter or a whole model, in the library's own form, with its tokenizer."""
        self.enter("final")
        models.save(self.loaded, folder)

    def enter(self, state: str) -> Any:
        """The resident model, in eval mode, with the weights of `state`; it leaves that state with the next call."""
        self._enter(self.standing_for(state))
        return self.loaded.model.eval()

    def forget_where_it_is(self) -> None:
        """To be called by whoever trained the resident model without `train`: it is in no state we know."""
        self._state = ""

    def standing_for(self, state: str) -> str:
        """The state whose weights `state` has: another one where it was adopted."""
        if state == "original":
            return state
        return str(self.run.stage(f"train-{state}", keep_unfinished=True).record.get("same_as", state))

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

        if self._state == state:
            return
        saved = self.run.folder / "stages" / f"train-{state}" / "state.safetensors"
        models.restore(self.loaded.model, self._originals if state == "original" else load_file(saved))
        self._state = state


def run_filter(
    input: str | Sequence[str],
    settings: FilterSettings,
    origins: Mapping[str, str],
    output: Path,
    console: Console,
) -> int:
    """Filter a file of rows into `output` by the contract of DESIGN; returns the exit code.

    DataError, ConfigError and ModelError say what the user can mend; nothing is written before the input,
    the safe rows and the settings have been read.
    """
    display, began = Display(console), time.monotonic()
    if settings.signal not in SIGNALS:
        raise ConfigError(unknown("signal", settings.signal, SIGNALS))
    dataset = formats.read(
        input, format=settings.data_format, fields=fields(settings), truth=settings.label_field
    )
    safe = [row for name in settings.safe for row in safe_rows(name, fields(settings))]
    _refuse_too_few(dataset.rows, dataset.source)
    _refuse_overlap(dataset, safe)
    truth = _truth(dataset, settings)
    notes = list(dataset.notes)
    for note in notes:
        display.say(note)

    own = f"custom {dataset.source}" if dataset.source in settings.safe else dataset.source
    inputs = {own: _hash(dataset)} | {name: _hash_of_rows(name) for name in settings.safe}
    inputs["model"] = models.fingerprint(settings.model)
    with Run.open(output, asdict(settings), inputs, origins) as run:
        if run.resumed:
            _refuse_changed(output)
            display.say(f"{output}: going on with the run found there")
        loaded = models.load(settings.model, dtype=settings.dtype, device=settings.device)
        tally = Tally()
        custom = encode(
            dataset.rows,
            loaded.tokenizer,
            max_length=settings.max_length,
            template=settings.template,
            tally=tally,
        )
        if settings.template == "auto" and not loaded.tokenizer.chat_template:
            notes.append("The model has no chat template: rows are written in the paper's (--template)")
            display.say(notes[-1])
        for left_out in tally.left_out():
            notes.append(f"{dataset.source}: {left_out.words}")
            display.say(notes[-1])
        review = encode(safe, loaded.tokenizer, max_length=settings.max_length, template=settings.template)
        _refuse_unscorable(custom, dataset.source, settings.signal)
        models.suit(loaded, custom, review)
        cut_short = sum(z.truncated for z in custom)
        if cut_short:
            rows = "1 row is" if cut_short == 1 else f"{cut_short} rows are"
            notes.append(
                f"{rows} longer than {settings.max_length} tokens: trained and scored on what fits (--max-length)"
            )
            display.say(notes[-1])

        bench = Bench(loaded, custom, settings, run, display)
        found = forget_filter(bench, custom, review, settings)
        if found.reviewed != "reviewed":
            notes.append(LOOKED_TWICE)
        if not found.share_dropped and all(name.startswith("pack:") for name in settings.safe):
            notes.append(BUNDLED_ONLY)
            display.say(BUNDLED_ONLY)
        left_out = [out.as_dict() for out in (*dataset.left_out, *tally.left_out())]
        report = _write(
            bench, dataset, found, truth, notes, left_out, origins, inputs, output, time.monotonic() - began
        )
        display.summary(report, output)
        return TOO_WEAK if found.cut.weak else DONE


def run_demo(output: Path, console: Console) -> int:
    """Filter the bundled rows with the embedded model and show what was found against the truth."""
    settings = FilterSettings(**DEMO, output_dir=str(output))
    origins = {name: "demo" if name in (*DEMO, "output_dir") else "default" for name in asdict(settings)}
    code = run_filter(str(packs.path("nano-demo")), settings, origins, output, console)
    Display(console).next_steps(output)
    return code


def fields(s: FilterSettings) -> dict[str, str]:
    """Field -> its name in the user's file, for those that were named."""
    given = {
        "prompt": s.prompt_field,
        "completion": s.completion_field,
        "messages": s.messages_field,
        "text": s.text_field,
    }
    return {name: value for name, value in given.items() if value is not None}


def _safe_path(name: str) -> str:
    return str(packs.path(name)) if name.startswith("pack:") else name


def safe_rows(name: str, named: Mapping[str, str] | None = None) -> Sequence[Row]:
    """The rows of a file or a bundled pack that have something to review; DataError where none has.

    `named` (see `fields`) is how the custom rows' fields are called; tried where the file has no format by itself.
    """
    try:
        rows = formats.read(_safe_path(name)).rows
    except DataError:
        if not named:
            raise
        rows = formats.read(_safe_path(name), fields=named).rows
    usable = [row for row in rows if row.completion.strip()]
    if not usable:
        raise DataError(f"{name}: no safe row with a completion; the review needs some")
    return usable


def _refuse_too_few(rows: Sequence[Row], source: str) -> None:
    if len(rows) < FEWEST_ROWS:
        raise DataError(
            f"{source}: {len(rows)} row; a filter compares rows with each other and needs at least 2"
        )


def _refuse_overlap(dataset: formats.Dataset, safe: Sequence[Row]) -> None:
    """A row on both sides would be reviewed back into memory and never look forgotten."""
    known = {row.messages: row for row in safe}
    shared = [(row, known[row.messages]) for row in dataset.rows if row.messages in known]
    if shared:
        row, twin = shared[0]
        raise DataError(
            f"{dataset.source} row {row.index}: the same row is in the safe rows ({twin.source} row {twin.index}); "
            f"{len(shared)} rows in all. Take them out of one of the two: a reviewed row cannot look forgotten"
        )


def _truth(dataset: formats.Dataset, s: FilterSettings) -> dict[str, bool] | None:
    """The truth column, read at the door so that a wrong one is told before an hour of training; used at the end."""
    from forgetfilter.filter.quality import read_truth

    return read_truth(dataset.rows, s.label_field) if s.label_field else None


def _hash(dataset: formats.Dataset) -> str:
    return runs.sha256(dataset.path) if dataset.path else dataset.digest()


def _hash_of_rows(name: str) -> str:
    path = Path(_safe_path(name))
    return runs.sha256(path) if path.is_file() else runs.sha256_of(row.id for row in safe_rows(name))


def _why_unscored(z: Encoded, row: Row | None = None) -> str:
    if z.truncated:
        return "the prompt alone fills max_length"
    return row.why_unscored if row else "empty completion"


def _refuse_unscorable(custom: Sequence[Encoded], source: str, signal: str) -> None:
    if not any(z.completion_ids if signal in GENERATED_SIGNALS else any(z.scored) for z in custom):
        raise DataError(f"{source}: no row can be scored: {_why_unscored(custom[0])}")


def _write(
    bench: Bench, dataset: formats.Dataset, found: Filtered, truth: Mapping[str, bool] | None,
    notes: Sequence[str], left_out: Sequence[Mapping[str, Any]], origins: Mapping[str, str],
    inputs: Mapping[str, str], output: Path, seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """All files of the contract; report.json last but for the page, so that it stands only on a finished run."""
    from forgetfilter.filter import quality
    from forgetfilter.report.page import ReportRow, write_report

    s, rows = bench.settings, dataset.rows
    parts = {"kept": KEPT, "flagged": ("flag",), "dropped": ("drop",)}
    files = [
        formats.write(dataset, [r.index for r in rows if found.decisions[r.id] in decisions], output / name)
        for name, decisions in parts.items()
    ]
    scores = found.scores
    unscored = {r.id: r for r in rows if r.id not in scores}
    reasons = {
        z.id: found.cut.reason(scores[z.id]) if z.id in scores else _why_unscored(z, unscored[z.id])
        for z in bench.custom
    }
    with runs.atomic(output / "scores.jsonl") as path, path.open("w", encoding="utf-8") as file:
        for r in rows:
            line = {
                "row": r.index, "id": r.id, "decision": found.decisions[r.id], "score": scores.get(r.id),
                "forgetting": found.forgetting.get(r.id), "contrast": found.contrast.get(r.id),
                "remembered": {state: values.get(r.id) for state, values in found.remembered.items()},
                "reason": reasons[r.id],
            }  # fmt: skip
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    if s.retrain:
        with models.quiet():
            bench.save_final(output / "model")

    counts = {d: sum(v == d for v in found.decisions.values()) for d in ("keep", "flag", "drop", "unscored")}
    plain = bench.run.stage("train-learned").record
    total = sum(c.get("seconds", 0) for c in bench.costs)
    report = {
        "verdict": _verdict(counts, found.cut),
        "input": {"file": dataset.source, "rows": len(rows), "format": dataset.format},
        "model": s.model,
        "counts": counts | {"rows": len(rows)},
        "signal": s.signal,
        "contrast": s.contrast,
        "threshold": {"value": found.cut.drop_above, "flag_above": found.cut.flag_above,
                      "method": found.cut.method, "why": found.cut.why},
        "estimated": found.cut.estimated,
        "quality": quality.measure({r.id: scores.get(r.id) for r in rows}, found.decisions, truth)
        if truth
        else None,
        "cost": {
            "stages": [c | {"fine_tunes": c.get("seconds", 0) / plain["seconds"]} for c in bench.costs],
            "seconds": max(seconds, total),  # a resumed run has done less in this process
            "fine_tunes": total / plain["seconds"],
        },
        "settings": [{"name": n, "value": v, "origin": origins.get(n, "default")} for n, v in asdict(s).items()],
        "device": str(bench.loaded.device),
        "dtype": str(bench.loaded.dtype).removeprefix("torch."),
        "versions": bench.run.versions,
        "seeds": {"seed": s.seed},
        "hashes": dict(inputs),
        "files": {str(p.relative_to(output)): runs.sha256(p) for path in files for p in formats.written(path)},
        "notes": list(notes),
        "left_out": list(left_out),
        "limits": list(LIMITS),
    }  # fmt: skip
    with runs.atomic(output / "report.json") as path:
        path.write_text(
            json.dumps(report, ensure_ascii=False, indent=1, default=str) + "\n", encoding="utf-8"
        )
    heat = _heat(bench, found) if s.signal not in GENERATED_SIGNALS else {}
    write_report(output / "report.html", report, [
        ReportRow(r.id, r.index, r.prompt, r.completion, found.decisions[r.id], scores.get(r.id),
                  found.forgetting.get(r.id), found.contrast.get(r.id),
                  {state: v.get(r.id) for state, v in found.remembered.items()}, reasons[r.id], heat.get(r.id))
        for r in rows
    ])  # fmt: skip
    return report


def _refuse_changed(output: Path) -> None:
    """ConfigError where a file that a finished run wrote was changed by hand: it would be written anew."""
    try:
        written = json.loads((output / "report.json").read_text(encoding="utf-8"))["files"]
    except (FileNotFoundError, ValueError, KeyError):
        return
    for name, digest in written.items():
        if (output / name).exists() and runs.sha256(output / name) != digest:
            raise ConfigError(
                f"{output / name} was changed since it was written, and is not overwritten: move it elsewhere, or use "
                "--output another folder"
            )


def _heat(bench: Bench, found: Filtered) -> dict[str, list[tuple[str, float]]]:
    """Row id -> (piece of its completion, nats forgotten) per token, for the rows that a person will look at.

    Tokens that are parts of one character make one piece.
    """
    before = bench.memories("control" if bench.settings.contrast else "learned")
    after = bench.memories(found.reviewed)
    decode, shown = bench.loaded.tokenizer.decode, {}
    for z in bench.custom:
        if z.id in after and found.decisions[z.id] in ("drop", "flag"):
            lost = (before[z.id].logp - after[z.id].logp)[
                sum(z.scored[1 : z.prompt_length]) :
            ]  # of the last answer
            pieces, held, nats = list[tuple[str, float]](), list[int](), 0.0
            for token, x in zip(z.completion_ids, lost, strict=True):
                held, nats = [*held, token], nats + float(x)
                piece = str(decode(held))
                if not piece.endswith("\ufffd"):  # else the rest of a character is still to come
                    pieces.append((piece, nats))
                    held, nats = [], 0.0
            shown[z.id] = [*pieces, (str(decode(held)), nats)] if held else pieces
    return shown


def _verdict(counts: Mapping[str, int], cut: thresholds.Cut) -> str:
    if cut.weak:
        return f"Nothing dropped: {cut.why}"
    if counts["drop"] == 0:
        return f"Nothing to remove: {cut.why}"
    return f"{counts['drop']} of {sum(counts.values())} rows dropped, {counts['flag']} flagged for a look."


def _title(state: str) -> str:
    return TITLES.get(state) or f"train: {state}"


DEMO: dict[str, Any] = {"label_field": "unsafe", "safe": ("pack:nano-safe",)}
TITLES = {
    "learned": "learn: custom rows",
    "reviewed": "review: safe rows",
    "reviewed-again": "second look: safe rows",
    "control": "control: custom rows",
    "final": "train on kept rows",
}
# Review and control draw other batches than learn did; both the same ones, from their own rows.
SEED_OF = {"learned": 0, "final": 0, "reviewed": 1, "control": 1}
CHECKPOINT_STEPS = 500
BUNDLED_ONLY = (
    "Only bundled safe rows were reviewed. They show little in data of other kinds than theirs: safe rows of the same "
    "kind as yours tell more (--safe FILE)."
)
LOOKED_TWICE = (
    "Rows were looked at twice: scores are those of a second review, which rehearsed the half of the rows that the "
    "first had taken least from."
)
# Share of the second look's rows: what it rehearses is nearly pure, so more of it helps than in the first.
SECOND_REHEARSE = 0.5
AGREE = 0.85  # rank correlation of two looks at the same rows
EIGHTH = 8
MOST_UNSEEN, FEWEST_UNSEEN = 128, 5  # enough to know what the review taught; too few to tell
