"""`vet --page`: the questions of the terminal on a page for this machine alone, one row at a time."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from forgetfilter.filter.propose import ROUND
from forgetfilter.filter.vet import Say, Session
from forgetfilter.guide.serving.command import listen, refuse_missing
from forgetfilter.report.text import spelled_out
from forgetfilter.review import local
from forgetfilter.review.decisions import CODES
from forgetfilter.review.local import RefusedError
from forgetfilter.review.shown import segments, turns_of

HEAD, TAIL = 1600, 600  # characters of a long turn's beginning and end that are shown before it is unfolded
LONGEST_NOTE = 500


def serve(session: Session, source: str, by: str | None, port: int, say: Say, show: Say) -> None:
    """Ask on the page until the person quits there or stops the command; its address is shown, all else is said."""
    refuse_missing("vet --page")
    token = secrets.token_urlsafe(32)
    page = Page(session, source, by)
    names = ("now", "judge", "back", "more", "quit")
    answers = {name: getattr(page, name) for name in names}
    server = local.server(local.application(PAGES, answers, token, "forgetfilter vet"))
    page.stop = lambda: setattr(server, "should_exit", True)
    with listen("127.0.0.1", port) as listening:
        say(f"{source}: {len(session.rows):,} rows. Open in a browser on this machine:")
        show(f"http://127.0.0.1:{listening.getsockname()[1]}/#{token}")
        say(
            f"Verdicts are written to {session.path} as they are given. Quit on the page, or Ctrl-C here, ends."
        )
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


@dataclass(slots=True)
class Page:
    """The session as the page asks for it; each method returns what is sent as JSON: what to show now."""

    session: Session
    source: str
    by: str | None
    stop: Callable[[], None] = lambda: None
    guard: threading.Lock = field(default_factory=threading.Lock)  # two windows may ask at once

    def now(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What to show; with `whole` long turns are not folded."""
        with self.guard:
            return self._now(bool(asked.get("whole")))

    def judge(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """A verdict on the row that is on screen, on disk before the reply."""
        answer: Any = asked.get("verdict")
        note = " ".join(str(asked.get("note") or "").split())
        if answer not in CODES:
            raise RefusedError(400, f"the verdict {str(answer)[:40]!r} is none of {', '.join(CODES)}")
        with self.guard:
            if asked.get("row") is None or asked["row"] != self.session.row():
                raise RefusedError(409, "That row was judged in another window.", now=self._now())
            self.session.judge(answer, note[:LONGEST_NOTE], self.by)
            return self._now()

    def back(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The last verdict is taken away and its row asked again."""
        with self.guard:
            if not self.session.back():
                raise RefusedError(409, "There is no verdict to go back to.", now=self._now())
            return self._now()

    def more(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Another round, where as many rows as wanted have a verdict."""
        with self.guard:
            if len(self.session.verdicts) >= self.session.wanted:
                self.session.wanted = len(self.session.verdicts) + ROUND
            return self._now()

    def quit(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The command goes on to its end."""
        self.stop()
        return {}

    def _now(self, whole: bool = False) -> dict[str, Any]:
        session = self.session
        waits = session.waits()
        screen = None if waits else session.screen()
        shown: dict[str, Any] = {
            "source": self.source, "rows": len(session.rows), "judged": len(session.verdicts),
            "wanted": session.wanted, "so_far": session.so_far(), "pays": session.pays(), "file": str(session.path),
            "read": session.states.done if waits else None, "row": None,
        }  # fmt: skip
        if screen is not None:
            turns = [turn(role, text, whole) for role, text in turns_of(screen.row)]
            shown |= {"row": screen.row.index, "drawn": screen.drawn, "turns": turns}
        return shown


def turn(role: str, text: str, whole: bool) -> dict[str, Any]:
    """One turn in pieces that cannot act; a long one is folded in its middle, `left` characters of it, unless all of
    it is asked for."""
    left = 0 if whole else max(0, len(text) - HEAD - TAIL)
    head, tail = (text[:HEAD], text[-TAIL:]) if left else (text, "")
    return {"role": spelled_out(role), "head": segments(head), "left": left, "tail": segments(tail)}


PAGES = {"/": "review/vet.html", "/vet.js": "review/vet.js"}
