"""Verdicts of people on rows <-> files: our own, a column of the data, exports of annotation tools.

Our own file is JSONL, a line for a verdict: `row` (0-based), `sha256` of the row's content, `verdict`, `drawn`
(random or proposed), `time`, and where given `note` and `by`. `row` and `verdict` are enough.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from forgetfilter.data import formats
from forgetfilter.errors import DataError
from forgetfilter.filter.exports import WORDS, Answer, Found, entries, is_empty, word
from forgetfilter.records import Row
from forgetfilter.runs import atomic, put_down

if TYPE_CHECKING:
    import numpy as np

Drawn = Literal["random", "proposed"]

FEWEST = 10  # verdicts, clean and unsafe together, before anything is learned from them
SHOWN = 8  # row numbers in a message


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a person says of one row. `id` is the row's id in its file."""

    row: int  # 0-based
    id: str
    verdict: Answer
    drawn: Drawn = "random"
    note: str | None = None
    by: str | None = None


class Agreement(NamedTuple):
    """How far several people agree. `kappa` is 1 where they do, 0 where chance would, None of fewer than two."""

    kappa: float | None
    method: str  # Cohen or Fleiss
    rows: int  # judged by all who are compared
    differ: tuple[int, ...]  # rows that got different verdicts


def content_hash(row: Row) -> str:
    """SHA-256 of a row's turns, 64 hex digits; the same in another order of the file, under another name."""
    content = json.dumps([list(m) for m in row.messages], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def read(
    path: str | os.PathLike[str],
    rows: Sequence[Row],
    *,
    say: Callable[[str], None] = lambda line: None,
    least: int = FEWEST,
) -> list[Verdict]:
    """The verdicts of a file on `rows`, one a row, by row number.

    Reads our own JSONL, any file with `row` and `verdict`, and exports of Argilla, Label Studio, doccano and
    cleanlab. `say` is told what a person should know: words read as verdicts, rows that changed since and are not
    used, people who differ. Verdicts of several people (`by`) are settled by the majority; a tie is unsure.
    Raises DataError for what contradicts itself or belongs to other data, and for fewer than `least` verdicts.
    """
    file = Path(path)
    found = entries(file.name, _records(file))
    if not found:
        raise DataError(f"{file.name}: holds no verdicts. Make some: forgetfilter vet {_source(rows)}")
    return _settled(file.name, found, rows, say, least)


def from_column(
    rows: Sequence[Row], field: str, *, say: Callable[[str], None] = lambda line: None, least: int = FEWEST
) -> list[Verdict]:
    """The verdicts in a column of the data itself; rows where it is empty have none. Raises DataError as `read`."""
    name = _source(rows)
    if not any(field in row.record for row in rows):
        known = ", ".join(sorted({k for row in rows[:1] for k in row.record}))
        raise DataError(f'{name}: no column "{field}" (found: {known}). Name one with --verdict-field')
    found = [
        Found(f"row {row.index}", row.index, row.record.get(field))
        for row in rows
        if not is_empty(row.record.get(field))
    ]
    if not found:
        raise DataError(f'{name}: the column "{field}" is empty in every row')
    return _settled(f'{name}, column "{field}"', found, rows, say, least)


def states_beside(path: Path) -> Path:
    """Where `vet` keeps what the model read of the rows, beside the verdicts."""
    return path.with_suffix(".states.npz")


def sure(verdicts: Sequence[Verdict]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers, whether unsafe, whether drawn at random; each (verdicts,), without those of unsure."""
    import numpy as np

    known = [v for v in verdicts if v.verdict != "unsure"]
    return (
        np.array([v.row for v in known], int),
        np.array([v.verdict == "unsafe" for v in known], bool),
        np.array([v.drawn == "random" for v in known], bool),
    )


def append(path: Path, verdict: Verdict, row: Row) -> None:
    """Add one line to a verdict file; it is on the disk when this returns."""
    with path.open("a", encoding="utf-8", errors="surrogatepass") as file:
        put_down(file, line(verdict, row))


def line(verdict: Verdict, row: Row | None) -> str:
    """A verdict as a line of our file, with its end; of a row that cannot be read it names the number alone."""
    record = {
        "row": verdict.row,
        **({"sha256": content_hash(row)} if row else {}),
        "verdict": verdict.verdict,
        "drawn": verdict.drawn,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **{k: v for k, v in (("note", verdict.note), ("by", verdict.by)) if v},
    }
    return json.dumps(record) + "\n"


def agreement(people: Mapping[str, Mapping[int, str]]) -> Agreement:
    """Of name -> row -> verdict: Cohen's kappa (1960) of two people, Fleiss' (1971) of more, on shared rows."""
    shared = sorted(set.intersection(*(set(p) for p in people.values()))) if len(people) > 1 else []
    everywhere: dict[int, set[str]] = {}
    for judged in people.values():
        for row, value in judged.items():
            everywhere.setdefault(row, set()).add(value)
    differ = tuple(sorted(r for r, values in everywhere.items() if len(values) > 1))
    method = "Cohen" if len(people) == 2 else "Fleiss"
    if not shared:
        return Agreement(None, method, 0, differ)
    judged = list(people.values())
    pairs = len(judged) * (len(judged) - 1)
    counts = [Counter(p[row] for p in judged) for row in shared]
    agreed = sum(sum(c * (c - 1) for c in count.values()) / pairs for count in counts) / len(shared)
    kinds = {kind for count in counts for kind in count}
    if method == "Cohen":
        shares = [[sum(p[row] == kind for row in shared) / len(shared) for p in judged] for kind in kinds]
        chance = sum(a * b for a, b in shares)
    else:
        chance = sum((sum(c[k] for c in counts) / (len(judged) * len(shared))) ** 2 for k in kinds)
    return Agreement(1.0 if chance == 1 else (agreed - chance) / (1 - chance), method, len(shared), differ)


# --- what a file says -> verdicts on rows ---


def _settled(
    name: str, found: Sequence[Found], rows: Sequence[Row], say: Callable[[str], None], least: int
) -> list[Verdict]:
    answers = _answers(name, found, say)
    if strange := next((e for e in found if e.drawn not in ("random", "proposed")), None):
        raise DataError(
            f'{name} {strange.place}: "drawn" is {str(strange.drawn)[:40]!r}; known: random, proposed'
        )
    places = _places(name, found, rows, say)
    people: dict[str, dict[int, str]] = {}
    kept: dict[int, list[tuple[Found, Answer]]] = {}
    for entry, answer, row in zip(found, answers, places, strict=True):
        if row is None:
            continue
        mine = people.setdefault(entry.by or "", {})
        if mine.setdefault(row, answer) != answer:
            raise DataError(
                f"{name} {entry.place}: row {row} is {answer} here and {mine[row]} before. Delete one of the lines"
            )
        kept.setdefault(row, []).append((entry, answer))
    if len(people) > 1:
        _say_agreement(name, agreement(people), say)
    verdicts = [_one(rows[row], said) for row, said in sorted(kept.items())]
    _check(name, verdicts, least)
    return verdicts


def _answers(name: str, found: Sequence[Found], say: Callable[[str], None]) -> list[Answer]:
    """What each entry says, in our words; other words that are read as ours are said aloud."""
    answers: list[Answer] = []
    words: dict[str, Answer] = {}
    unknown: Counter[str] = Counter()
    for entry in found:
        said = word(entry.value)
        if said in WORDS:
            answers.append(WORDS[said])
            if said != WORDS[said]:
                words[said] = WORDS[said]
        else:
            unknown[repr(entry.value)[:40]] += 1
    if unknown:
        first = next(entry for entry in found if word(entry.value) not in WORDS)
        listed = ", ".join(f"{said} ({count})" for said, count in unknown.most_common(5))
        raise DataError(f"{name} {first.place}: verdicts nobody knows: {listed}. Known: {', '.join(WORDS)}")
    if words:
        say(f"{name}: read as verdicts: " + ", ".join(f"{w} as {a}" for w, a in sorted(words.items())))
    return answers


def _places(
    name: str, found: Sequence[Found], rows: Sequence[Row], say: Callable[[str], None]
) -> list[int | None]:
    """The row number that each entry belongs to; None for a row that is not in the file any more."""
    hashes = [content_hash(row) for row in rows] if any(e.sha256 for e in found) else []
    by_hash = {value: i for i, value in reversed(list(enumerate(hashes)))}
    by_text = _by_text(rows) if any(e.row is None for e in found) else {}
    places: list[int | None] = []
    lost: list[str] = []
    moved = 0
    for entry in found:
        row = _number(name, entry) if entry.row is not None else None
        if entry.sha256 is None and row is None:
            row = next((by_text[t] for t in map(_folded, entry.texts) if t in by_text), None)
        elif entry.sha256 is None:
            if not 0 <= cast(int, row) < len(rows):
                raise DataError(
                    f"{name} {entry.place}: row {row} is not in {_source(rows)}, which has {len(rows)} rows "
                    "(counted from 0). Give the verdicts of this file"
                )
        elif row is None or not 0 <= row < len(rows) or hashes[row] != entry.sha256:
            found_at = by_hash.get(entry.sha256)
            moved += row is not None and found_at is not None
            row = found_at
        places.append(row)
        if row is None:
            lost.append(entry.place if entry.row is None else str(entry.row))
    if lost and len(lost) == len(found):
        raise DataError(
            f"{name}: none of its {len(found)} verdicts is on a row of {_source(rows)}: they belong to another data "
            f"set, or every row was changed. Judge this one: forgetfilter vet {_source(rows)}"
        )
    if moved:
        say(f"{name}: {moved} rows stand elsewhere now; their verdicts went with them")
    if lost:
        say(
            f"{name}: {len(lost)} verdicts are not used, their rows changed since or are gone: {_listed(lost)}"
        )
    return places


def _number(name: str, entry: Found) -> int:
    try:
        if isinstance(entry.row, bool) or not float(entry.row).is_integer():
            raise ValueError
        return int(float(entry.row))
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f'{name} {entry.place}: "row" is {str(entry.row)[:40]!r}; give the number of a row, counted from 0'
        ) from None


def _by_text(rows: Sequence[Row]) -> dict[str, int]:
    """Texts that only one row has -> that row: the whole, the completion, the prompt."""
    found: dict[str, int | None] = {}
    for row in rows:
        apart = "" if row.kind == "text" else "\n"
        fields = {str(v) for v in row.record.values() if isinstance(v, str)}
        for text in {
            f"{row.prompt}{apart}{row.completion}",
            f"{row.prompt} {row.completion}",
            row.completion,
            row.prompt,
            *fields,
        }:
            key = _folded(text)
            found[key] = None if found.get(key, row.index) != row.index else row.index
    return {text: row for text, row in found.items() if text and row is not None}


def _folded(text: str) -> str:
    return " ".join(text.split())


def _one(row: Row, said: Sequence[tuple[Found, Answer]]) -> Verdict:
    """The verdict of all who judged a row: the majority's; a tie is unsure."""
    first, votes = said[0][0], Counter(answer for _, answer in said).most_common()
    tie = len(votes) > 1 and votes[0][1] == votes[1][1]
    drawn = "proposed" if first.drawn == "proposed" else "random"
    return Verdict(row.index, row.id, "unsure" if tie else votes[0][0], drawn, first.note, first.by)


def _say_agreement(name: str, found: Agreement, say: Callable[[str], None]) -> None:
    agreed = "no row was judged by all"
    if found.kappa is not None:
        agreed = f"{found.method}'s kappa {found.kappa:.2f} on {found.rows} rows"
    differ = (
        f"; they differ on {len(found.differ)} rows: {_listed(map(str, found.differ))}"
        if found.differ
        else ""
    )
    say(f"{name}: several people, {agreed}{differ}")


def _check(name: str, verdicts: Sequence[Verdict], least: int) -> None:
    """Raises DataError where nothing can be learned from the verdicts. Clean ones alone are a finding."""
    if not least:
        return
    count = Counter(v.verdict for v in verdicts)
    sure = count["clean"] + count["unsafe"]
    again = "judge more: forgetfilter vet FILE goes on where it stopped"
    if verdicts and not sure:
        raise DataError(
            f"{name}: all {len(verdicts)} verdicts are unsure, so nothing can be learned; {again}"
        )
    if sure < least:
        raise DataError(f"{name}: {sure} verdicts of clean or unsafe, at least {least} are needed; {again}")
    if not count["clean"]:
        raise DataError(
            f"{name}: all {sure} verdicts are unsafe, so nothing says what a clean row looks like; {again}"
        )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _source(rows: Sequence[Row]) -> str:
    return rows[0].source if rows else "FILE"


# --- the files ---


def _records(file: Path) -> list[dict[str, Any]]:
    """The file's records. A last line that was cut off, as a stopped process leaves it, is not one."""
    if file.suffix == ".jsonl" and file.is_file():
        whole, _, rest = file.read_bytes().rpartition(b"\n")
        if rest.strip() and not _is_json(rest):
            lines = [line for line in whole.split(b"\n") if line.strip()]
            if all(map(_is_json, lines)):
                return [json.loads(line) for line in lines]
        elif not (whole + rest).strip():
            return []
    return formats.read_records(file)


def mended(file: Path) -> None:
    """Take away a last line that was cut off, or end it, so that the next verdict gets a line of its own."""
    data = file.read_bytes()
    whole, newline, rest = data.rpartition(b"\n")
    if rest:
        with atomic(file) as path:
            path.write_bytes(data + b"\n" if _is_json(rest) else whole + newline)


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
