"""What the server has done, in Prometheus's text form, and one line of log for each request."""

from __future__ import annotations

import secrets
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from forgetfilter.guide.serving.engine import Engine

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.1, 0.3, 1, 3, 10, 30, 100, 300)  # upper bounds of the classes of requests by time
ANSWERING = ("/v1/chat/completions", "/v1/completions")
PAGES = ("/health", "/metrics", "/v1/models", *ANSWERING)
PROBED = ("/health", "/metrics")  # every few seconds: not worth a line of log
LONGEST_ID = 128  # characters of a request id that a client may choose
GONE = 499  # the client has left before an answer


class Metrics:
    """Counts since the start. Written in the server's loop alone."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # page, status
        self.tokens: Counter[str] = Counter()  # prompt, completion
        self.within = [0] * len(SECONDS)
        self.seconds = 0.0
        self.timed = 0

    def count(self, page: str, status: int, seconds: float, tokens: Mapping[str, int]) -> None:
        self.requests[page, status] += 1
        self.tokens.update(tokens)
        if page in ANSWERING:
            self.timed += 1
            self.seconds += seconds
            at = bisect_left(SECONDS, seconds)
            if at < len(SECONDS):
                self.within[at] += 1

    def text(self, engine: Engine) -> str:
        """The page that Prometheus reads."""
        open_, waiting = engine.load
        within = zip(SECONDS, accumulate(self.within), strict=True)
        families: list[tuple[str, str, str, list[tuple[str, object]]]] = [  # name, kind, what, values by their labels
            ("requests_total", "counter", "Requests answered.",
             [(f'{{page="{page}",status="{status}"}}', n) for (page, status), n in sorted(self.requests.items())]),
            ("tokens_total", "counter", "Tokens read and written.",
             [(f'{{kind="{kind}"}}', self.tokens[kind]) for kind in ("prompt", "completion")]),
            ("request_seconds", "histogram", "Time from request to the end of its answer.",
             [*((f'_bucket{{le="{bound}"}}', count) for bound, count in within),
              ('_bucket{le="+Inf"}', self.timed), ("_sum", f"{self.seconds:.6f}"), ("_count", self.timed)]),
            ("answers_open", "gauge", "Answers being written.", [("", open_)]),
            ("prompts_waiting", "gauge", "Prompts that have not begun.", [("", waiting)]),
        ]  # fmt: skip
        lines = []
        for name, kind, what, values in families:
            lines += [f"# HELP forgetfilter_{name} {what}", f"# TYPE forgetfilter_{name} {kind}"]
            lines += [f"forgetfilter_{name}{labels} {value}" for labels, value in values]
        return "\n".join(lines) + "\n"


class Watched:
    """Around the application: gives each request an id, counts it, and writes its line of log when it is over.

    What the handlers have to tell of a request they put into `scope["told"]`: key, ignored, notes, asked (its jobs,
    which end here however the request does).
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, log: Callable[[str], None] | None) -> None:
        self.app, self.metrics, self.log = app, metrics, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), GONE
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        sane = 0 < len(given) <= LONGEST_ID and given.isascii() and given.isprintable()
        own = given if sane else f"req_{secrets.token_hex(12)}"
        told: dict[str, Any] = scope.setdefault("told", {})

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = [(b"x-request-id", own.encode())]
                for name, header in (("ignored", b"x-ignored-fields"), ("notes", b"x-notes")):
                    if told.get(name):
                        more.append((header, _plain(told[name]).encode()))
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception:
            status = 500 if status == GONE else status
            raise
        finally:
            seconds, usage = time.monotonic() - began, {}
            if "asked" in told:
                told["asked"].leave()
                usage = told["asked"].usage()
            tokens = {kind: usage.get(f"{kind}_tokens", 0) for kind in ("prompt", "completion")}
            path = scope["path"]
            page = next((p for p in PAGES if path == p or path.startswith(f"{p}/")), "other")
            self.metrics.count(page, status, seconds, tokens)
            if self.log is not None and (status >= 400 or page not in PROBED):
                said = [
                    f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {_plain([own])} {told.get('key', '-')}",
                    f"{scope['method']} {_plain([path])} {status} in {seconds:.2f} s,",
                    f"{tokens['prompt']} tokens read, {tokens['completion']} written",
                ]
                said += [f"; ignored: {_plain(told['ignored'])}"] if told.get("ignored") else []
                said += [f"; note: {_plain(told['notes'])}"] if told.get("notes") else []
                self.log(" ".join(said).replace(" ;", ";"))


def _plain(names: Any) -> str:
    """Texts of a client for a header or a line of log: printable ASCII, not too long."""
    shown = ["".join(c if " " <= c <= "~" else "?" for c in name)[:100] for name in names]
    return ", ".join(shown[:20])
