"""The command `vet`: rows of a file shown one at a time, in the terminal or on a page, a verdict for each by one key.

Each verdict is on the disk before the next row shows; the same command goes on where it stopped, in either.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forgetfilter.data import formats
from forgetfilter.errors import DONE, ConfigError, DataError
from forgetfilter.filter import vet, vetted
from forgetfilter.filter.vet import Say, Screen, Session
from forgetfilter.records import Row

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
) -> int:
    """Ask for verdicts until `rows` rows have one; returns the exit code. ConfigError without a terminal, unless a
    `page` asks or `answers` does.

    With `random` all rows are drawn at random, and none is proposed. `max_length` is as `filter` has it where None.
    """
    from forgetfilter.filter.propose import RANDOM, random_order
    from forgetfilter.models.quantization import refuse_unusable
    from forgetfilter.settings import resolve

    path = output or Path(f"{Path(input).with_suffix('')}.vetted.jsonl")
    _refuse_nobody(path, page, answers)
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

            serve(session, dataset.source, by, port, say)
        elif answers is not None:
            _ask(session, _answering(answers, dataset.rows, say), by, say)
        else:
            from forgetfilter.review.vet_terminal import asker

            _ask(session, asker(say), by, say)
    finally:
        states.stop()
    _finish(session, input, model, say)
    return DONE


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
        path = run / "scores.jsonl"
        if not path.is_file():
            raise ConfigError(f"--run {run}: no scores.jsonl there; name the folder of a finished filter run")
        of = {r.get("id"): r.get("score") for r in formats.read_records(path)}
        known = [of.get(r.id) for r in rows]
        if all(v is None for v in known):
            raise DataError(f"--run {run}: its scores are of other rows; name a run of this file")
        rankings.insert(0, np.array([np.nan if v is None else v for v in known], float))
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
    by = "" if model == "nano" else f" --model {model}"
    say(f"Use them: forgetfilter filter {input} --vetted {session.path}{by}")
