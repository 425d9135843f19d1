"""What one seed of `unlearn` trains on and is tested with, and fingerprints of all that a recipe reads."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from forgetfilter import runs
from forgetfilter.data import formats, packs, sources
from forgetfilter.errors import DataError
from forgetfilter.models import load as models
from forgetfilter.records import Message, Row, row_id
from forgetfilter.unlearn import dialogues as dialogue_files
from forgetfilter.unlearn import leakage, personal_data, replacements
from forgetfilter.unlearn.dialogues import Dialogue, Finder
from forgetfilter.unlearn.recipe import UnlearnRecipe


def fingerprints(recipe: UnlearnRecipe) -> dict[str, str]:
    """What the recipe reads -> what its content is; another content is another run."""
    inputs = {"model": models.fingerprint(recipe.model)}
    for name in ("tuned", "other"):
        value = getattr(recipe, name)
        if value and value != "masked" and not is_url(value):
            inputs[name] = models.fingerprint(value)
    for name in ("dialogues", "utility", "prose", "retain"):
        if value := getattr(recipe, name):
            inputs[name] = runs.sha256(_file(value))
    for name in recipe.detectors:
        kind, _, argument = name.partition(":")
        if argument and kind in ("known", "ner"):
            inputs[name] = runs.sha256(_file(argument)) if kind == "known" else models.fingerprint(argument)
    return inputs


@dataclass(frozen=True, slots=True)
class Material:
    """What one seed trains on and is tested with."""

    train: list[Dialogue]
    test: list[Dialogue]
    tasks: list[Row]
    prose: list[Row]
    retained: list[Row]  # learned to be kept, by methods that do so; none of `prose`
    find: Finder  # knows the values of the training dialogues
    find_all: Finder  # those of the test dialogues too

    @property
    def training_values(self) -> list[str]:
        return sorted({value for d in self.train for _, value in d.values()})


def materials(r: UnlearnRecipe, seed: int) -> Material:
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
    drawn = partial(_held_out, r, seed=seed, find=lambda text: personal_data.detect(text, detectors))
    tasks, prose = drawn("utility", "xquad"), drawn("prose", "alpaca")
    retained = drawn("retain", "alpaca", apart_from=prose) if r.retains else []
    return Material(train, test, tasks, prose, retained, finder(train), finder(dialogues))


def masked(d: Dialogue) -> Dialogue:
    """The same dialogue with MASK for every piece of personal data, whoever tells it."""
    turns = []
    for i, m in enumerate(d.messages):
        text = m.content
        for span in sorted((s for s in d.spans if s.message == i), key=lambda s: -s.start):
            text = text[: span.start] + replacements.MASK + text[span.end :]
        turns.append(m._replace(content=text))
    return Dialogue(d.id, tuple(turns), ())


def _held_out(
    r: UnlearnRecipe, name: str, of_sets: str, *, seed: int, find: Finder, apart_from: Sequence[Row] = ()
) -> list[Row]:
    """Rows of the file that setting `name` names, else of a public set: tasks whose answer is no personal data."""
    value = getattr(r, name)
    if value is not None:
        rows = [row for row in formats.read(_file(value)).rows if row.completion.strip()]
    else:
        records = map(formats.as_prompt_completion, getattr(sources, of_sets)(Path(r.sets or "")))
        turns = [(Message("user", x["prompt"]), Message("assistant", x["completion"])) for x in records]
        rows = [Row(row_id(of_sets, t), i, of_sets, t, "chat", {}) for i, t in enumerate(turns)]
        if name == "utility":  # what the answers should not hold any more says nothing of what is kept
            rows = [row for row in rows if not list(find(row.completion))]
    used = {row.messages for row in apart_from}
    rows = [row for row in rows if row.messages not in used]
    if not rows:
        raise DataError(
            f"{name}: {value or of_sets}: no row with a completion" + " that is not measured" * bool(used)
        )
    return random.Random(seed).sample(rows, min(r.utility_rows, len(rows)))


def is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def _file(name: str) -> Path:
    return packs.path(name) if name.startswith("pack:") else Path(name)
