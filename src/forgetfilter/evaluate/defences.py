"""Defences against unsafe rows in fine-tuning data: one function each, same call, same record.

    def mine(experiment: Experiment, name: str, *, strength: Count = 3) -> Defended: ...
    DEFENCES["mine"] = mine

A defence trains on the experiment's bench, where every finished stage is kept by its name: stages that two
defences have in common are trained once. The model it releases is kept as the state `name`, or is another
state that stands already. No defence sees a label; only those in CEILINGS are given the truth.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from forgetfilter.data import mixtures as mixing
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.filter import cut, likeness
from forgetfilter.filter.algorithm import forget_filter
from forgetfilter.filter.bench import Bench
from forgetfilter.filter.constants import CONSTANTS
from forgetfilter.filter.signals import SIGNALS, likelihood
from forgetfilter.filter.states import standardised
from forgetfilter.models.rendering import Encoded, encode
from forgetfilter.records import KEPT, Decision, Message, Row
from forgetfilter.settings import Between, Count, FilterSettings, OneOf, Share

INSTRUCTION = (
    "Please ensure that your answer is unbiased and free of stereotypes, non-toxic and positive, and helps nobody "
    "to do harm."
)

Signal = Annotated[str, OneOf("signal", SIGNALS)]


@dataclass(frozen=True, slots=True)
class Experiment:
    """All that a defence may look at. Rows carry no field of their file, so no label comes along."""

    bench: Bench
    rows: Sequence[Row]  # custom
    safe: Sequence[Row]
    review: Sequence[Encoded]  # the safe rows as the model reads them
    truth: Mapping[str, bool] | None = None  # row id -> unsafe; None but for the defences in CEILINGS

    @property
    def settings(self) -> FilterSettings:
        return self.bench.settings

    @property
    def custom(self) -> Sequence[Encoded]:
        return self.bench.custom

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Rows as the model reads them, under the experiment's settings."""
        s = self.settings
        return encode(rows, self.bench.loaded.tokenizer, max_length=s.max_length, template=s.template)


@dataclass(frozen=True, slots=True)
class Defended:
    """What a defence releases, and what it did to the data."""

    state: str  # of the bench: the released model
    decisions: Mapping[str, Decision] | None = None  # by row id; None: every row was trained on
    instruction: str | None = None  # put in front of every prompt when the model is used
    why: str = ""  # one line


def original(experiment: Experiment, name: str) -> Defended:
    """The floor: the model as it came, nothing learned. What the tasks gain by fine-tuning is told against it."""
    return Defended("original", why="nothing learned")


def none(experiment: Experiment, name: str) -> Defended:
    """No measure: fine-tune on all custom rows."""
    _learn(experiment, "learned", experiment.custom)
    return Defended("learned")


def sequential(experiment: Experiment, name: str, *, steps: Count | None = None) -> Defended:
    """Safety fine-tuning after learning (S1+): `steps` on safe rows, or as many passes as the custom rows get."""
    s = experiment.settings
    _learn(experiment, "learned", experiment.custom)
    epochs = s.num_train_epochs if steps is None else None
    experiment.bench.train(
        name, "learned", experiment.review, rate=s.learning_rate, epochs=epochs, steps=steps
    )
    return Defended(name)


def replay(
    experiment: Experiment, name: str, *, share: Annotated[float, Between(above=0, high=0.99)] = 0.25
) -> Defended:
    """Safe rows mixed into the custom rows while learning: `share` (0 to 1) of the mixture, as far as there are any."""
    custom, safe = len(experiment.custom), len(experiment.review)
    possible = min(share, safe / (custom + safe))
    mixed = mixing.replay(experiment.custom, experiment.review, possible, experiment.settings.seed)
    _learn(experiment, name, mixed)
    fewer = "" if possible == share else f", not {share:.0%}: there are no more safe rows"
    return Defended(name, why=f"{possible:.0%} of the rows learned are safe rows{fewer}")


def self_correction(experiment: Experiment, name: str, *, instruction: str = INSTRUCTION) -> Defended:
    """Moral self-correction: nothing in training, an instruction in front of every prompt in use."""
    _learn(experiment, "learned", experiment.custom)
    return Defended("learned", instruction=instruction)


def self_correction_trained(experiment: Experiment, name: str, *, instruction: str = INSTRUCTION) -> Defended:
    """Moral self-correction whose instruction stands in front of every custom row while learning, too."""
    rows = instructed(
        experiment.rows, instruction, experiment.bench.loaded.tokenizer, experiment.settings.template
    )
    _learn(experiment, name, experiment.encode(rows))
    return Defended(name, instruction=instruction)


def forgetfilter(experiment: Experiment, name: str) -> Defended:
    """The product's filter as the recipe sets it: drop what a short review makes the model forget."""
    return _filtered(experiment, name, experiment.settings)


def forgetfilter_paper(
    experiment: Experiment, name: str, *, phi: Annotated[float, Between()] = 0.1, signal: Signal = "rouge1"
) -> Defended:
    """The published filter to the letter: every custom row learned, safe rows alone reviewed, ROUGE-1 of the model's
    own answers, fixed phi. Rates, batches and template are the experiment's."""
    s = replace(experiment.settings, algorithm="paper", signal=signal, threshold="fixed", phi=phi)
    return _filtered(experiment, name, s)


def original_loss(experiment: Experiment, name: str, *, quantile: Share = 0.8) -> Defended:
    """Drop the rows that the original model finds hardest, above a quantile of their loss."""
    memories = experiment.bench.memories("original", experiment.custom)
    loss = {z: -likelihood(m) for z, m in memories.items()}
    found = cut.above("quantile", loss, quantile=quantile)
    return _dropped(experiment, name, found.decisions, found.why)


def probe(experiment: Experiment, name: str, *, quantile: Share = 0.8) -> Defended:
    """Drop the rows whose hidden states are most unlike the safe rows', by a probe of safe against custom rows."""
    states = [
        experiment.bench.readings(rows, n).answer
        for rows, n in ((experiment.custom, "custom"), (experiment.review, "safe"))
    ]
    unlike = likeness.decisions(
        standardised(np.concatenate(states)), len(experiment.custom), CONSTANTS.harm_penalty
    )
    scored = {z.id: float(v) for z, v in zip(experiment.custom, unlike, strict=False) if any(z.scored[1:])}
    found = cut.above("quantile", scored, quantile=quantile)
    return _dropped(experiment, name, found.decisions, found.why)


def classifier(
    experiment: Experiment, name: str, *, scorer: str = "ngram", above: Share | None = None
) -> Defended:
    """Drop the rows whose answer a scorer finds toxic: the bundled `ngram`, or a sequence classifier by path or id.

    `above` (0 to 1) is the score from which a row is dropped; the scorer's own threshold where not given. Rows that
    the scorer cannot judge stay in, and are counted. ConfigError where a run is resumed with another scorer.
    """
    from forgetfilter.models import scorers

    judge = scorers.load(scorer)
    limit = judge.threshold if above is None else above
    stage = experiment.bench.run.stage(f"scores-{name}")
    if not stage.done:
        began = time.monotonic()
        texts = [
            "".join(m.content for m in r.messages) if r.kind == "text" else r.completion
            for r in experiment.rows
        ]
        scores = dict(zip((r.id for r in experiment.rows), judge(texts), strict=True))
        (stage.folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
        stage.finish({"seconds": time.monotonic() - began, "scorer": judge.version})
        stage = experiment.bench.run.stage(f"scores-{name}")
    if stage.record.get("scorer") != judge.version:
        raise ConfigError(
            f"scorer {scorer}: other weights than those that judged the rows in {experiment.bench.run.folder}; "
            "use --output another folder"
        )
    scores = json.loads((stage.folder / "scores.json").read_text(encoding="utf-8"))
    experiment.bench.costs.append({"name": f"scores: {name}", **stage.record})
    decisions: dict[str, Decision] = {
        z: "unscored" if score is None else "drop" if score >= limit else "keep"
        for z, score in scores.items()
    }
    _train_on_kept(experiment, name, decisions)
    return Defended(name, decisions, why=f"scorer {judge.name} {judge.version}, dropped from {limit:.2f}")


def oracle(experiment: Experiment, name: str) -> Defended:
    """The ceiling: drop the unsafe rows by the truth, which no real defence has."""
    if experiment.truth is None:
        raise DataError("oracle: the truth of the custom rows is not known; name its column with label_field")
    decisions: dict[str, Decision] = {
        z.id: "drop" if experiment.truth[z.id] else "keep" for z in experiment.rows
    }
    _train_on_kept(experiment, name, decisions)
    return Defended(name, decisions, why="a ceiling: reads the truth")


def instructed(rows: Sequence[Row], instruction: str, tokenizer: Any, template: str = "auto") -> list[Row]:
    """The rows with the instruction where the evaluators put it: as the system message, or in front of the user's
    text where the template knows no system role, or in front of a running text."""
    from forgetfilter.evaluate.asking import knows_system

    as_system = any(r.kind == "chat" for r in rows) and knows_system(tokenizer, template)

    def turns(row: Row) -> tuple[Message, ...]:
        if row.kind == "chat" and as_system:
            return (Message("system", instruction), *row.messages)
        first, *others = row.messages
        return (Message(first.role, f"{instruction}\n\n{first.content}"), *others)

    return [replace(row, messages=turns(row)) for row in rows if row.messages]


def _learn(experiment: Experiment, state: str, rows: Sequence[Encoded]) -> None:
    s = experiment.settings
    experiment.bench.train(state, "original", rows, rate=s.learning_rate, epochs=s.num_train_epochs)


def _filtered(experiment: Experiment, name: str, s: FilterSettings) -> Defended:
    found = forget_filter(experiment.bench, experiment.custom, experiment.review, s, final=name)
    return Defended(name, found.cut.decisions, why=found.cut.why)


def _dropped(experiment: Experiment, name: str, decisions: Mapping[str, Decision], why: str) -> Defended:
    whole = {z.id: decisions.get(z.id, "unscored") for z in experiment.custom}
    _train_on_kept(experiment, name, whole)
    return Defended(name, whole, why=why)


def _train_on_kept(experiment: Experiment, name: str, decisions: Mapping[str, Decision]) -> None:
    kept = [z for z in experiment.custom if decisions[z.id] in KEPT]
    if not kept:  # nothing to learn: the released model is the original one
        experiment.bench.adopt(name, "original")
    elif len(kept) == len(experiment.custom):  # nothing to leave out: the same model as without a measure
        _learn(experiment, "learned", experiment.custom)
        experiment.bench.adopt(name, "learned")
    else:
        _learn(experiment, name, kept)


DEFENCES: dict[str, Callable[..., Defended]] = {
    "original": original,
    "none": none,
    "sequential": sequential,
    "replay": replay,
    "self_correction": self_correction,
    "self_correction_trained": self_correction_trained,
    "forgetfilter": forgetfilter,
    "forgetfilter_paper": forgetfilter_paper,
    "original_loss": original_loss,
    "probe": probe,
    "classifier": classifier,
    "oracle": oracle,
}
CEILINGS = frozenset(
    {"oracle"}
)  # read the truth: what a perfect filter would reach, not what a user can have
