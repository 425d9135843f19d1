"""A page for this machine alone: where it listens, who may ask, what is sent. `review` and `vet --page` serve by it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ForgetfilterError

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
MOST_BYTES = 1 << 16  # of a request

Answer = Callable[[Mapping[str, Any]], dict[str, Any]]  # what is asked -> what is sent, both as JSON


class RefusedError(Exception):
    """A request that cannot be followed: HTTP status, and words for the person."""

    def __init__(self, status: int, words: str, **more: Any) -> None:
        super().__init__(words)
        self.status, self.body = status, {"error": words, **more}


def server(app: Starlette) -> uvicorn.Server:
    """To be run on a socket of this machine; `should_exit` ends it."""
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off",
            timeout_graceful_shutdown=2,
        )
    )  # fmt: skip


def application(
    pages: Mapping[str, str], answers: Mapping[str, Answer], token: str, command: str
) -> Starlette:
    """The HTTP application: `pages` (address -> file of this package) for anybody on this machine, and `answers` (name
    below /api/ -> what answers) for who has the token. `command` is what printed the address with the token."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.routing import Route

    return Starlette(
        routes=[
            *(Route(path, _sent(name)) for path, name in {**SHARED, **pages}.items()),
            *(
                Route(f"/api/{name}", _answered(answer, token, command), methods=["POST"])
                for name, answer in answers.items()
            ),
        ],
        middleware=[Middleware(Guarded)],
    )


class Guarded:
    """Only requests that name this machine by a loopback name: a page of another site that has its name point here
    gets nothing. Every reply forbids what the page does not need."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        host = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"host"), "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if name.lower() not in LOOPBACK:
            port = scope["server"][1]
            words = (
                f"This page is for this machine alone and was asked for as {name[:80]!r}. Open "
                f"http://127.0.0.1:{port}/ here; from another machine: ssh -L {port}:127.0.0.1:{port} THIS_MACHINE\n"
            )
            await PlainTextResponse(words, 421)(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await self.app(scope, receive, guarded)


def _answered(answer: Answer, token: str, command: str) -> Any:
    async def endpoint(request: Request) -> Response:
        try:
            _check(request, token, command)
            return _json(200, await asyncio.to_thread(answer, await _body(request)))
        except RefusedError as error:
            return _json(error.status, error.body)
        except ForgetfilterError as error:
            return _json(409, {"error": str(error)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            words = (
                f"The files cannot be read any more ({type(error).__name__}). Were they changed? Start again."
            )
            return _json(500, {"error": words})

    return endpoint


def _check(request: Request, token: str, command: str) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), token.encode()):
        raise RefusedError(401, f"Open the whole address that `{command}` printed: it holds the token.")


async def _body(request: Request) -> dict[str, Any]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise RefusedError(413, f"the request is larger than {MOST_BYTES} bytes")
    try:
        asked = json.loads(bytes(body) or b"{}")
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise RefusedError(400, "the request is no JSON object")
    return asked


def _json(status: int, body: Mapping[str, Any]) -> Response:
    from starlette.responses import Response

    # ASCII: rows may hold halves of surrogate pairs.
    return Response(json.dumps(body), status, media_type="application/json")


def _sent(name: str) -> Any:
    content = files("forgetfilter").joinpath(name).read_bytes()
    if name.endswith(".html"):
        content = files("forgetfilter").joinpath("review/head.html").read_bytes() + content
    kind = KINDS[name.rpartition(".")[2]]

    async def endpoint(request: Request) -> Response:
        from starlette.responses import Response

        return Response(content, media_type=kind)

    return endpoint


SHARED = {
    "/page.css": "review/page.css", "/common.js": "review/common.js", "/theme.js": "report/theme.js"
}  # fmt: skip
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
