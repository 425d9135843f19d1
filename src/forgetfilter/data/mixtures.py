"""Noisy mixtures, replay, interleaved sessions. Pure: the same rows and seed give the same mixture."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from forgetfilter.errors import ConfigError, DataError

Record = dict[str, Any]
T = TypeVar("T")


def noisy(
    unsafe: Sequence[Record],
    safe: Sequence[Record],
    tasks: Mapping[str, Sequence[Record]] | Sequence[Sequence[Record]],
    *,
    rows: int,
    share: float,
    seed: int,
    label_field: str = "unsafe",
) -> list[Record]:
    """The paper's noisy set (ForgetFilter, section 3): `share` of `rows` unsafe, the rest split evenly.

    round(rows * share) unsafe rows; what remains goes in equal parts to the safe rows of the same domain
    and to every task, the first parts taking one more where it does not divide. Each part is drawn
    without replacement, and no safe row has the prompt of a drawn unsafe row, so a question never comes
    with two answers. Every record gets `label_field` (bool, the truth, read only where quality is
    measured) and `part`: unsafe, safe, or the task's name (task1, task2, … if `tasks` is a sequence).
    Raises DataError if a part has too few rows.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share = {share} is no share; give a number from 0 to 1")
    if rows < 1:
        raise ConfigError(f"rows = {rows}; a mixture needs at least one")
    named = tasks if isinstance(tasks, Mapping) else {f"task{i}": t for i, t in enumerate(tasks, start=1)}
    if taken := {"unsafe", "safe"} & set(named):
        raise ConfigError(f"a task cannot be named {sorted(taken)[0]!r}; that is a part of its own")
    rng = random.Random(seed)
    counts = _even(rows - round(rows * share), 1 + len(named))

    drawn = [("unsafe", record) for record in _draw(unsafe, "unsafe", round(rows * share), rng)]
    asked = {repr(record["prompt"]) for _, record in drawn if "prompt" in record}
    free = [record for record in safe if "prompt" not in record or repr(record["prompt"]) not in asked]
    drawn += [("safe", record) for record in _draw(free, "safe", counts[0], rng)]
    for (name, task), count in zip(named.items(), counts[1:], strict=True):
        drawn += [(name, record) for record in _draw(task, name, count, rng)]
    rng.shuffle(drawn)
    return [{**record, label_field: part == "unsafe", "part": part} for part, record in drawn]


def replay(custom: Sequence[T], safe: Sequence[T], share: float, seed: int) -> list[T]:
    """All custom rows, with so many safe rows mixed in that they are `share` (0 up to 1) of the result.

    The defence of the same name: safe rows are rehearsed while the custom rows are learned. Safe rows are
    drawn without replacement; DataError if there are too few.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"share = {share}; give a number from 0 up to, not including, 1")
    rng = random.Random(seed)
    mixed = [*custom, *_draw(safe, "safe", round(len(custom) * share / (1 - share)), rng)]
    rng.shuffle(mixed)
    return mixed


def sessions(records: Sequence[T], count: int, seed: int) -> list[list[T]]:
    """The records in `count` parts for interleaved training, drawn at random; each record is in one of them.

    Parts are of equal size, the first ones a row larger where it does not divide.
    """
    if count < 1:
        raise ConfigError(f"count = {count}; give at least one session")
    if count > len(records):
        raise DataError(f"{count} sessions need as many rows; there are {len(records)}")
    shuffled = list(records)
    random.Random(seed).shuffle(shuffled)
    parts, start = [], 0
    for size in _even(len(shuffled), count):
        parts.append(shuffled[start : start + size])
        start += size
    return parts


def _draw(records: Sequence[T], part: str, count: int, rng: random.Random) -> list[T]:
    if count > len(records):
        raise DataError(f"part {part!r}: {count:,} rows needed, {len(records):,} there. Mix fewer rows.")
    return rng.sample(records, count)


def _even(total: int, parts: int) -> list[int]:
    base, more = divmod(total, parts)
    return [base + (i < more) for i in range(parts)]
