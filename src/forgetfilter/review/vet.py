"""The command `vet`: rows of a file shown one at a time, in the terminal or on a page, a verdict for each by one key.

Each verdict is on the disk before the next row shows; the same command goes on where it stopped, in either.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from forgetfilter.data import formats
from forgetfilter.errors import DONE, ConfigError, DataError
from forgetfilter.filter import vet, vetted
from forgetfilter.filter.vet import Say, Screen, Session
from forgetfilter.records import Row
from forgetfilter.review.run_files import open_run

if TYPE_CHECKING:
    import numpy as np

Judge = Callable[
    [Screen], tuple[str, str]
]  # what is on screen -> clean, unsafe, unsure, back or quit; and a note


def run_vet(
    input: str,
    *,
    output: Path | None = None,
    rows: int = 50,
    random: bool = False,
    model: str = "nano",
    run: Path | None = None,
    answers: Path | None = None,
    page: bool = False,
    port: int = 0,
    by: str | None = None,
    seed: int = 0,
    max_length: int | None = None,
    device: str = "auto",
    quantization: str = "none",
    say: Say = print,
    show: Say = print,
) -> int:
    """Ask for verdicts until `rows` rows have one; returns the exit code. ConfigError without a terminal, unless a
    `page` asks or `answers` does, and where the verdicts could not be written.

    With `random` all rows are drawn at random, and none is proposed. `max_length` is as `filter` has it where None.
    The address of the page is shown, all else is said.
    """
    from forgetfilter.filter.propose import RANDOM, random_order
    from forgetfilter.models.quantization import refuse_unusable
    from forgetfilter.settings import resolve

    path = output or _verdict_file(input)
    _refuse_nobody(path, page, answers)
    _refuse_unwritable(path)
    refuse_unusable(quantization)
    dataset = formats.read(input)
    for note in dataset.notes:
        say(note)
    read = resolve(None, None, {"model": model, "max_length": max_length}).settings
    states = vet.States(
        dataset.rows, model, vetted.states_beside(path), max_length=read.max_length, device=device,
        quantization=quantization,
    )  # fmt: skip
    first = random_order(len(dataset.rows), seed)[: rows if random else min(rows, RANDOM)].tolist()
    rankings = [] if random else _rankings(dataset.rows, run, say)  # of what is proposed
    session = vet.begin(dataset.rows, path, rows, first, states, rankings, say)
    if not random:
        states.start()
    try:
        if page:
            from forgetfilter.review.vet_page import serve

            serve(session, dataset.source, by, port, say, show)
        elif answers is not None:
            _ask(session, _answering(answers, dataset.rows, say), by, say)
        else:
            from forgetfilter.review.vet_terminal import asker

            _ask(session, asker(say), by, say)
    finally:
        states.stop()
    _finish(session, input, model, say)
    return DONE


def _verdict_file(input: str) -> Path:
    """Where verdicts on an input lie unless another file is named: beside it."""
    path = Path("stdin" if input == "-" else input)
    if set("*?[") & set(input):  # a pattern: in its folder it would take the verdicts for rows
        path = Path(re.split(r"[*?[]", input)[0] + "_").parent.resolve()
    elif not path.parent.is_dir():  # a hub id
        path = Path(path.name)
    elif path.name in ("", ".."):
        path = path.resolve()
    return Path(f"{path.with_suffix('')}.vetted.jsonl")


def _refuse_unwritable(path: Path) -> None:
    """ConfigError, before a person has judged anything, where no verdict can be written."""
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        why = (
            "is a folder" if path.is_dir() else f"cannot be written: {path.parent} is not there or not yours"
        )
        raise ConfigError(f"{path} {why}. Name another file with --output")


def _refuse_nobody(path: Path, page: bool, answers: Path | None) -> None:
    if page and answers is not None:
        raise ConfigError("--page and --answers: the verdicts come from a person or from a file; give one")
    if not page and answers is None and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(
            "vet asks a person and there is no terminal. Judge in a browser: add --page. Or write "
            f'{path} yourself, a line for a row: {{"row": 0, "verdict": "clean"}}; or give --answers FILE with such '
            "lines"
        )


def _rankings(rows: Sequence[Row], run: Path | None, say: Say) -> list[np.ndarray]:
    """What proposes rows before two unsafe ones are known: the bundled scorer, and a run's scores."""
    import numpy as np

    from forgetfilter.models import scorers

    toxic = scorers.load("ngram")([f"{r.prompt} {r.completion}" for r in rows])
    rankings = [np.array([np.nan if t is None else t for t in toxic], float)]
    if run is not None:
        found = open_run(run)
        of = dict(zip(found.ids, found.score.tolist(), strict=True))
        known = np.array([of.get(r.id, np.nan) for r in rows])
        if np.isnan(known).all():
            raise DataError(f"--run {run}: its scores are of other rows; name a run of this file")
        rankings.insert(0, known)
        say(f"{run}: its ranking proposes rows too.")
    return rankings


def _ask(session: Session, judge: Judge, by: str | None, say: Say) -> None:
    while screen := session.screen(say):
        answer, note = judge(screen)
        if answer == "quit":
            return
        if answer != "back":
            session.judge(vetted.WORDS[answer], note, by)
        elif not session.back():
            say("There is no verdict to go back to.")


def _answering(path: Path, rows: Sequence[Row], say: Say) -> Judge:
    """A judge that reads a file instead of asking a person."""
    known = {v.row: v.verdict for v in vetted.read(path, rows, say=say, least=0)}
    say(f"Verdicts come from {path}, not from a person.")
    return lambda screen: (known.get(screen.row.index, "unsure"), "")


def _finish(session: Session, input: str, model: str, say: Say) -> None:
    judged = len(session.verdicts)
    say("")
    say(f"{session.path}: {judged} verdicts; {session.so_far()}.")
    if pays := session.pays():
        say(pays)
    if judged == len(session.rows):
        say("Every row has a verdict.")
    else:
        say(f"Go on: the same command with --rows {max(session.wanted, judged + 10)}.")
    by = "" if model == "nano" else f" --model {quote(model)}"
    say(f"Use them: forgetfilter filter {quote(input)} --vetted {quote(str(session.path))}{by}")
