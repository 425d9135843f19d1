"""A row as the page shows it: text in pieces that cannot act, numbers in words, evidence beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from forgetfilter.records import Row
from forgetfilter.report.heat import heat_level
from forgetfilter.report.text import HIDDEN, finite, spelled_out
from forgetfilter.report.text import p_in_words as p_counted
from forgetfilter.review.likeness import Twins
from forgetfilter.review.run_files import DECISIONS, NUMBERS, RunFiles

EXCERPT = 180  # characters of a row in the list
LONGEST = 20_000  # characters of a turn that are sent unless all of it is asked for
TWINS = 10  # near-duplicates named beside a row

Segment = tuple[str, int, int, float | None]  # text, whether it is a spelled-out code, heat level, nats


def excerpt(run: RunFiles, number: int) -> str:
    """The beginning of what a row teaches, on one line."""
    row = run.peek(number)
    if row is not None:
        text = row.completion or row.prompt
    else:
        text = json.dumps(run.record(number), ensure_ascii=False, default=str)
    return spelled_out(" ".join(text[: 4 * EXCERPT].split())[:EXCERPT])


def item(run: RunFiles, number: int, outcome: int, given: Mapping[str, str]) -> dict[str, Any]:
    """A row of the list."""
    return {
        "row": number, "decision": DECISIONS[run.decision[number]], "outcome": DECISIONS[outcome],
        "score": finite(run.score[number]), "p": finite(run.numbers["p"][number]),
        "text": excerpt(run, number), "given": given,
    }  # fmt: skip


def detail(run: RunFiles, number: int, twins: Twins, *, whole: bool = False) -> dict[str, Any]:
    """Everything of one row. `whole`: long turns are not cut."""
    row, line = run.row(number), run.line(number)
    remembered = line["remembered"] if isinstance(line.get("remembered"), Mapping) else {}
    longest = None if whole else LONGEST
    turns = _turns(run, row, number, longest)
    return {
        "row": number, "id": run.ids[number], "decision": DECISIONS[run.decision[number]],
        "turns": turns, "readable": row is not None,
        "reason": spelled_out(str(line.get("reason") or "")),
        "numbers": {n: finite(run.numbers[n][number]) for n in NUMBERS},
        "remembered": {spelled_out(state): finite(value) for state, value in remembered.items()},
        "p_words": p_in_words(run, line), "evidence": _evidence(line.get("evidence")),
        "answers": {state: segments(text, longest) for state, text in _answers(run, number, line).items()},
        "twins": _twins(twins, number),
    }  # fmt: skip


def turns_of(row: Row) -> list[tuple[str, str]]:
    """Role and text of what the model reads, in order; plain text is one turn."""
    if row.kind == "text":
        return [("text", row.prompt + row.completion)]
    return [(m.role, m.content) for m in row.messages]


def segments(
    text: str, longest: int | None = None, heat: int = 0, nats: float | None = None
) -> list[Segment]:
    r"""A text in order; characters that are invisible or steer what stands beside them as codes such as `\u202e`."""
    text = text[:longest].replace("\r\n", "\n")
    found, end = list[Segment](), 0
    for hidden in HIDDEN.finditer(text):
        if text[end : hidden.start()]:
            found.append((text[end : hidden.start()], 0, heat, nats))
        found.append((spelled_out(hidden[0]), 1, heat, nats))
        end = hidden.end()
    if text[end:]:
        found.append((text[end:], 0, heat, nats))
    return found


def p_in_words(run: RunFiles, line: Mapping[str, Any]) -> str | None:
    """What a row's p-value says; None of a row without."""
    p = finite(line.get("p"))
    if p is None:
        return None
    if isinstance(line.get("p_of"), str):
        return spelled_out(f"{line['p_of']} (p = {p:.3g})")
    return spelled_out(f"{p_counted(p, str(run.threshold.get('compared') or ''))} (p = {p:.3g})")


def _answers(run: RunFiles, number: int, line: Mapping[str, Any]) -> dict[str, str]:
    """Model state -> its answer: as scores.jsonl has them, else as the run's stages do."""
    noted = line.get("answers")
    if isinstance(noted, Mapping):
        return {spelled_out(str(state)): str(text) for state, text in noted.items()}
    return dict(sorted(run.said_by(number).items()))


def _turns(run: RunFiles, row: Row | None, number: int, longest: int | None) -> list[dict[str, Any]]:
    if row is None:
        text = json.dumps(run.record(number), ensure_ascii=False, indent=1, default=str)
        return [_turn("row as it stands in the file", text, longest, learned=False)]
    turns = [_turn(m.role, m.content, longest, learned=row.learns(i)) for i, m in enumerate(row.messages)]
    tokens = run.tokens(number)
    if tokens and row.completion:
        turns[-1] |= {"segments": _heated(row.completion, tokens, run.ceiling, longest), "heat": True}
    return turns


def _turn(role: str, text: str, longest: int | None, *, learned: bool) -> dict[str, Any]:
    left = 0 if longest is None else max(0, len(text) - longest)
    return {"role": role, "segments": segments(text, longest), "left": left, "learned": learned}


def _heated(
    text: str, tokens: Sequence[tuple[str, float]], most: float, longest: int | None
) -> list[Segment]:
    """The completion with the heat of each token; what was not scored of it follows without."""
    found, place = list[Segment](), 0
    for piece, nats in tokens:
        room = None if longest is None else max(0, longest - place)
        found += segments(
            piece, room, heat_level(nats, most), round(nats, 3) if math.isfinite(nats) else None
        )
        place += len(piece)
    covered = "".join(piece for piece, _ in tokens)
    if len(covered) < len(text) and text.startswith(covered):
        found += segments(text[len(covered) :], None if longest is None else max(0, longest - place))
    return found


def _evidence(found: Any) -> list[dict[str, Any]]:
    """What a row was compared with, as the run noted it: texts, and numbers by name."""
    entries = found if isinstance(found, list) else [] if found is None else [found]
    shown = []
    for entry in islice(entries, 20):
        fields = entry if isinstance(entry, Mapping) else {"text": entry}
        text = "\n".join(str(fields[k]) for k in TEXTS if fields.get(k) is not None)
        facts = {str(k): v for k, v in fields.items() if k not in TEXTS and isinstance(v, str | int | float)}
        shown.append({
            "segments": segments(text, 2_000),
            "facts": {spelled_out(k): spelled_out(v) if isinstance(v, str) else finite(v) for k, v in facts.items()},
        })  # fmt: skip
    return shown


def _twins(twins: Twins, number: int) -> dict[str, Any]:
    kept, dropped = twins.kept_like.get(number, []), twins.dropped_like.get(number, [])
    return {
        "kept": kept[:TWINS], "dropped": dropped[:TWINS], "more": max(0, len(kept) - TWINS),
        "share": round(twins.share, 3),
    }  # fmt: skip


TEXTS = ("prompt", "completion", "text", "answer")
