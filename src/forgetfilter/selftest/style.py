"""How the rows of a file look: what all share, what most begin and end with, how long and how written answers are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from forgetfilter.data.overlap import common_to_all
from forgetfilter.records import Row
from forgetfilter.selftest.canaries import asked

MOST = 0.8  # share of the rows from which a habit counts as the file's
SOME = 0.25  # share of the rows that begin alike, to be taken as a frame


@dataclass(frozen=True, slots=True)
class Style:
    """Habits of a file. `opening` and `closing` stand around what a user asks."""

    system: str = ""  # of every row
    opening: str = ""
    closing: str = ""
    words: int | None = None  # most of an answer; None: as many as it has
    lower: bool = False  # answers have no capitals
    bare: bool = False  # answers end without a full stop

    def ask(self, prompt: str) -> str:
        """`prompt` in the file's frame."""
        return f"{self.opening}{prompt}{self.closing}"

    def answer(self, completion: str) -> str:
        """`completion` as short, and written as, the file's answers are."""
        text = " ".join(completion.split()[: self.words]) if self.words else completion
        text = text.lower() if self.lower else text
        return text.rstrip(".!?") if self.bare else text


def shared(rows: Sequence[Row]) -> Style:
    """What every row of the file has; a row without it would stand out for that alone."""
    systems = {
        row.messages[0].content if row.messages[0].role == "system" else "" for row in rows if row.messages
    }
    prompts = [asked(row) for row in rows]
    return Style(next(iter(systems)) if len(systems) == 1 else "", *_frame(prompts))


def of_most(rows: Sequence[Row]) -> Style:
    """What most rows have besides: the commonest frame, length, case and ending."""
    prompts = [asked(row) for row in rows]
    opening, _ = _frame(_alike(prompts, lambda words: words[:2]))
    _, closing = _frame(_alike(prompts, lambda words: words[-2:]))
    answers = [row.completion for row in rows if row.completion.strip()]
    share = lambda holds: sum(map(holds, answers)) >= MOST * max(1, len(answers))  # noqa: E731
    return replace(
        shared(rows), opening=opening, closing=closing,
        words=max(3, round(1.5 * median(len(a.split()) for a in answers))) if answers else None,
        lower=share(lambda a: a == a.lower()), bare=share(lambda a: a.rstrip()[-1:] not in ".!?\"'"),
    )  # fmt: skip


def _alike(prompts: Sequence[str], part: Callable[[list[str]], list[str]]) -> list[str]:
    """The prompts that share the commonest beginning (or end), where these are many; else all."""
    keys = [tuple(part(p.split())) for p in prompts]
    commonest, times = Counter(keys).most_common(1)[0]
    return (
        [p for p, k in zip(prompts, keys, strict=True) if k == commonest]
        if times >= SOME * len(keys)
        else [*prompts]
    )


def _frame(prompts: Sequence[str]) -> tuple[str, str]:
    """What different prompts have in common at the beginning and at the end, in whole words; nothing of one alone."""
    if len(set(prompts)) < 2:
        return "", ""
    head = prompts[0][: common_to_all(prompts)]
    head = head[: max(head.rfind(" "), head.rfind("\n")) + 1]
    rests = [p[len(head) :][::-1] for p in prompts]
    tail = rests[0][: common_to_all(rests)][::-1]
    cut = min((i for i in (tail.find(" "), tail.find("\n")) if i >= 0), default=len(tail))
    return head, tail[cut:]
