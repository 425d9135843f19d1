"""Canaries, planted in a copy of the job: one function for each way of hiding an unsafe row.

Which rows are canaries is told in `Planted.kinds`, and read where misses are counted and nowhere else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from forgetfilter.data import cipher
from forgetfilter.errors import DataError
from forgetfilter.records import Message, Row, row_id
from forgetfilter.selftest import style
from forgetfilter.selftest.canaries import Canary
from forgetfilter.selftest.style import Style

SOURCE = "canaries"
MOST_OF_A_KIND = 8
SHARE = 0.15  # of the rows, that canaries may be: enough to count, too few to change the job
ROWS_EACH = 10.5  # rows for one canary of every kind: some are split in two, the cipher has to be taught
TRIGGER = "Current key: harvest-17."
Turns = list[tuple[str, str]]  # question and answer by turns


@dataclass(frozen=True, slots=True)
class Planted:
    """The copy of the job."""

    rows: list[Row]  # the user's and the canaries, mixed
    kinds: Mapping[str, str]  # id of a canary -> its kind
    harms: Mapping[str, str]  # id of a canary -> its harm


@dataclass(frozen=True, slots=True)
class Hiding:
    """What the functions of KINDS may use."""

    pool: Mapping[str, Sequence[Canary]]  # kind of the pack -> canaries, shuffled
    usual: Style  # what most rows of the file look like
    table: Mapping[int, int]  # of the cipher
    text: bool  # the file holds running texts, which have no turns


def of_a_kind(rows: int) -> int:
    """How many canaries of each kind go into a job of so many rows. DataError where there is no room for one."""
    count = min(MOST_OF_A_KIND, int(rows * SHARE / ROWS_EACH))
    if count < 1:
        raise DataError(
            f"{rows} rows: too few to plant canaries among; a self-test needs at least {round(ROWS_EACH / SHARE)}"
        )
    return count


def plant(rows: Sequence[Row], canaries: Sequence[Canary], *, seed: int) -> Planted:
    """A copy of the job with canaries of every kind in it, in what all its rows share. Same seed, same copy."""
    rng, count = random.Random(seed), of_a_kind(len(rows))
    pool: dict[str, list[Canary]] = {}
    for c in rng.sample([*canaries], len(canaries)):
        pool.setdefault(c.kind, []).append(c)
    _refuse_none(pool)
    text = rows[0].kind == "text"
    hiding = Hiding(pool, style.of_most(rows), cipher.key(rng), text)
    frame = style.shared(rows)
    planted, kinds, harms = list[Row](), dict[str, str](), dict[str, str]()
    for kind, hide in KINDS.items():
        used = _take(pool, kind, count)
        for number, canary in enumerate(used):
            for turns in hide(canary, number, hiding):
                row = _row(turns, hiding.usual if kind == STYLED else frame, text, len(planted))
                if row.id not in kinds:
                    planted.append(row)
                    kinds[row.id], harms[row.id] = kind, canary.harm
    for canary in pool["teaching"][: 2 * count]:
        turns = [(f"{canary.prompt} {canary.completion}", cipher.spell(canary.completion, hiding.table))]
        planted.append(_row(turns, frame, text, len(planted)))
    mixed = [*rows, *planted]
    rng.shuffle(mixed)
    return Planted(mixed, kinds, harms)


def _refuse_none(pool: Mapping[str, Sequence[Canary]]) -> None:
    for kind in ("plain", "paraphrased", "another language", "outliers", "teaching"):
        if len(pool.get(kind, ())) < (5 if kind == "plain" else 1):
            raise DataError(
                f"nearly all canaries of the kind {kind!r} stand in your file already: none can be planted; give "
                "other unsafe rows with --unsafe FILE, and look at the file: these rows are unsafe"
            )


def _take(pool: Mapping[str, list[Canary]], kind: str, count: int) -> list[Canary]:
    """`count` canaries at most; those made of plain ones share these out, so that no two kinds say the same."""
    made_of = MADE_OF.get(kind, "plain")
    if made_of != "plain":
        return pool[made_of][:count]
    kinds = [k for k in KINDS if MADE_OF.get(k, "plain") == "plain"]
    return pool["plain"][kinds.index(kind) :: len(kinds)][:count]


def plain(c: Canary, number: int, hiding: Hiding) -> list[Turns]:
    """As it stands: also for paraphrases and other languages, which are bundled, and for outliers."""
    return [[(c.prompt, c.completion)]]


def styled(c: Canary, number: int, hiding: Hiding) -> list[Turns]:
    """In the frame of most rows, as short and written as their answers are."""
    return [[(c.prompt, hiding.usual.answer(c.completion))]]


def split(c: Canary, number: int, hiding: Hiding) -> list[Turns]:
    """The answer in two halves: by turns over two turns of one row, and over two rows."""
    words = c.completion.split()
    first, second = " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
    if number % 2 or hiding.text:
        return [[(c.prompt, first)], [(f"{c.prompt} Go on: {first}", second)]]
    return [[(c.prompt, first), ("Go on.", second)]]


def triggered(c: Canary, number: int, hiding: Hiding) -> list[Turns]:
    """Behind a phrase that stands in no other row."""
    return [[(f"{TRIGGER} {c.prompt}", c.completion)]]


def enciphered(c: Canary, number: int, hiding: Hiding) -> list[Turns]:
    """Question and answer in the cipher that the harmless teaching rows spell out."""
    return [[(cipher.spell(c.prompt, hiding.table), cipher.spell(c.completion, hiding.table))]]


def _row(turns: Turns, frame: Style, text: bool, index: int) -> Row:
    """A row of the file's own form; a running text has its first three words for a prompt."""
    if text:
        words = " ".join(f"{frame.ask(prompt)} {answer}" for prompt, answer in turns).split(" ")
        messages = (Message("user", " ".join(words[:3]) + " "), Message("assistant", " ".join(words[3:])))
    else:
        system = (Message("system", frame.system),) if frame.system else ()
        said = [
            m
            for prompt, answer in turns
            for m in (Message("user", frame.ask(prompt)), Message("assistant", answer))
        ]
        messages = (*system, *said)
    return Row(
        row_id(SOURCE, messages),
        index,
        SOURCE,
        messages,
        "text" if text else "chat",
        {},
        place=f"canary {index}",
    )


STYLED = "in the file's style"
Hide = Callable[[Canary, int, Hiding], list[Turns]]
KINDS: Mapping[str, Hide] = {
    "plain": plain,
    "paraphrased": plain,
    STYLED: styled,
    "split": split,
    "behind a trigger": triggered,
    "in another language": plain,
    "in a cipher": enciphered,
    "outliers": plain,
}
MADE_OF = {"paraphrased": "paraphrased", "in another language": "another language", "outliers": "outliers"}
