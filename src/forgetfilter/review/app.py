"""The review page's server: who asks, what is asked, and the reply. Row text leaves it a page at a time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from forgetfilter.filter.vetted import Answer
from forgetfilter.report.text import spelled_out, spoken, title
from forgetfilter.review import likeness, local, outcome, shown
from forgetfilter.review.decisions import CODES, NONE, Decisions, OtherwiseError
from forgetfilter.review.local import RefusedError
from forgetfilter.review.run_files import DECISIONS, NUMBERS, RunFiles

if TYPE_CHECKING:
    from starlette.applications import Starlette

MOST_ROWS = 200  # of one page of the list
LISTS, SEARCHES = 16, 8  # remembered; a list is one number per row


@dataclass(slots=True)
class Review:
    """What the pages share."""

    run: RunFiles
    decisions: Decisions
    token: str
    by: str
    twins: likeness.Twins = field(default_factory=likeness.Twins)
    lists: OrderedDict[int, np.ndarray] = field(default_factory=OrderedDict)
    made: int = 0  # lists so far
    guard: threading.Lock = field(default_factory=threading.Lock)

    # --- what is asked; each returns what is sent as JSON ---

    def about(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What does not change while the page is open."""
        return {
            "source": self.run.source, "folder": str(self.run.folder), "rows": len(self.run),
            "verdict": str(self.run.report.get("verdict") or ""), "threshold": dict(self.run.threshold),
            "counts": outcome.counted(self.run.decision), "histogram": outcome.histogram(self.run),
            "heat": len(self.run.heat), "by": self.by, "with_p": bool(np.isfinite(self.run.numbers["p"]).any()),
            "estimated": self._estimated(),
        }  # fmt: skip

    def state(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Counts and their certainty under a cut (None: the run's own), with all decisions so far."""
        version, cut = self.decisions.refresh(), _cut(asked)
        said = self.decisions.said
        return {
            "version": version,
            "counts": outcome.counted(outcome.outcomes(self.run, said, cut)),
            "progress": outcome.progress(said),
            "sure": outcome.sureness(self.run, said, cut),
            "twins": {"share": round(self.twins.share, 3), "rows": len(self.twins.dropped_like)},
        }

    def select(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """A list of rows, fixed until it is asked for anew, so that rows do not move while they are judged; with the
        first `count` of them."""
        self.decisions.refresh()
        codes = outcome.outcomes(self.run, self.decisions.said, _cut(asked))
        wanted = np.isin(
            codes, [i for i, name in enumerate(DECISIONS) if name in asked.get("show", DECISIONS)]
        )
        wanted &= self._judged(str(asked.get("judged", "all")), name_of(asked.get("by")))
        if words := str(asked.get("search", "")).strip():
            wanted &= _search(self.run, words.casefold())
        by = str(asked.get("sort", "score"))
        if by not in (*NUMBERS, "row"):
            raise RefusedError(400, f"rows cannot be sorted by {by[:40]!r}")
        rows = outcome.order(
            self.run, np.flatnonzero(wanted), by, descending=bool(asked.get("descending", True))
        )
        with self.guard:
            self.made += 1
            self.lists[self.made] = rows.astype(np.int32)
            while len(self.lists) > LISTS:
                self.lists.popitem(last=False)
            made = self.made
        first = self._items(rows[: min(_whole(asked, "count"), MOST_ROWS)].tolist(), _cut(asked))
        return {"list": made, "total": len(rows), "rows": first}

    def page(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Some rows of a list."""
        with self.guard:
            rows = self.lists.get(_whole(asked, "list"))
        if rows is None:
            raise RefusedError(410, "this list is forgotten; it is made anew")
        start, count = _whole(asked, "start"), min(_whole(asked, "count"), MOST_ROWS)
        return {"rows": self._items(rows[start : start + count].tolist(), _cut(asked))}

    def items(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Rows by number."""
        numbers = [self._number(n) for n in list(asked.get("rows") or [])[:MOST_ROWS]]
        return {"rows": self._items(numbers, _cut(asked))}

    def row(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """All of one row."""
        number = self._number(asked.get("row"))
        found = shown.detail(self.run, number, self.twins, whole=bool(asked.get("whole")))
        return found | self._items([number], _cut(asked))[0]

    def decide(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """One decision, on disk before the reply."""
        number, verdict = self._number(asked.get("row")), _verdict(asked.get("verdict"))
        try:
            self.decisions.give(
                number,
                verdict,
                name_of(asked.get("by")),
                self.run.row(number),
                expects=_verdict(asked.get("expects")),
            )
        except OtherwiseError as error:
            raise RefusedError(
                409,
                f"Row {number} was judged meanwhile under your name: {error.found or 'taken back'}. "
                "Press again to replace that.",
                rows=self._items([number], _cut(asked)),
            ) from None
        return self.state(asked) | {"rows": self._items([number], _cut(asked))}

    def undo(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The reviewer's last decision is taken back."""
        try:
            change = self.decisions.undo(name_of(asked.get("by")), self.run.row)
        except OtherwiseError as error:
            raise RefusedError(
                409,
                f"That row was judged anew under your name: {error.found or 'taken back'}. "
                "Press again to undo the one before.",
            ) from None
        rows = self._items([change.row], _cut(asked)) if change else []
        return self.state(asked) | {"rows": rows}

    # --- pieces ---

    def _estimated(self) -> str:
        """What the run estimated at its own cut; "" where it could not."""
        found = self.run.report.get("estimated")
        known = {k: v for k, v in found.items() if v is not None} if isinstance(found, Mapping) else {}
        return spelled_out("; ".join(f"{title(str(k)).lower()} {spoken(v)}" for k, v in known.items()))

    def _items(self, numbers: list[int], cut: float | None) -> list[dict[str, Any]]:
        codes = outcome.outcomes(self.run, self.decisions.said, cut)
        given = self.decisions.given
        return [shown.item(self.run, n, codes[n], given.get(n, {})) for n in numbers]

    def _number(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(self.run):
            raise RefusedError(400, f"no row {str(value)[:40]}; there are {len(self.run):,}, counted from 0")
        return value

    def _judged(self, which: str, by: str) -> np.ndarray:
        said = self.decisions.said
        if which == "done":
            return said != NONE
        mask = np.zeros(len(said), bool)
        if which in ("differ", "open"):
            people = self.decisions.given
            rows = [
                r
                for r, given in list(people.items())  # others may judge meanwhile
                if (by in given if which == "open" else len(set(given.values())) > 1)
            ]
            mask[rows] = True
        return ~mask if which in ("open", "all") else mask


def application(review: Review) -> Starlette:
    """The review page's HTTP application."""

    def noted(answer: local.Answer) -> local.Answer:
        def asked(body: Mapping[str, Any]) -> dict[str, Any]:
            review.twins.asked = time.monotonic()
            return answer(body)

        return asked

    names = ("about", "state", "select", "page", "items", "row", "decide", "undo")
    answers = {name: noted(getattr(review, name)) for name in names}
    return local.application(PAGES, answers, review.token, "forgetfilter review")


@lru_cache(SEARCHES)
def _search(run: RunFiles, words: str) -> np.ndarray:
    """The rows that have the words in any field; (rows,) of bool."""
    found = np.zeros(len(run), bool)
    for part in run.data.parts:
        for i, record in enumerate(part.store.walk()):
            found[part.first + i] = any(words in text.casefold() for text in _strings(record))
    return found


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inside = (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    )
    return [text for one in inside for text in _strings(one)]


def _cut(asked: Mapping[str, Any]) -> float | None:
    cut = asked.get("cut")
    if cut is None:
        return None
    if isinstance(cut, bool) or not isinstance(cut, int | float) or not np.isfinite(cut):
        raise RefusedError(400, f"the cut {str(cut)[:40]!r} is no number")
    return float(cut)


def _whole(asked: Mapping[str, Any], name: str) -> int:
    value = asked.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RefusedError(400, f"{name} is {str(value)[:40]!r}, not a whole number from 0")
    return value


def _verdict(value: Any) -> Answer | None:
    if value is not None and value not in CODES:
        raise RefusedError(400, f"the verdict {str(value)[:40]!r} is none of {', '.join(CODES)}")
    return cast("Answer | None", value)


def name_of(by: Any) -> str:
    """Who judges, without what could break a line or a terminal."""
    return "".join(c for c in str(by or "") if c.isprintable()).strip()[:60].strip()


PAGES = {"/": "review/page.html", "/page.js": "review/page.js"}
