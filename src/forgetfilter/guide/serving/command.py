"""The command `serve`: load, listen, and answer until stopped."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import DONE, ConfigError
from forgetfilter.guide.serving.keys import SHORTEST_TOKEN, Key, read_keys
from forgetfilter.guide.settings import ServeSettings

if TYPE_CHECKING:
    from forgetfilter.guide.serving.engine import Engine

TOKEN_VARIABLE = "FORGETFILTER_TOKEN"


def serve(s: ServeSettings, *, say: Callable[[str], None]) -> int:
    """Serve until stopped (Ctrl-C, SIGTERM): open answers are finished first, for up to `drain_seconds`.

    Tokens: those of the file `keys`, else the one in FORGETFILTER_TOKEN, else a new one, which is said.
    """
    refuse_missing("serve")
    token = os.environ.get(TOKEN_VARIABLE)
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii()):
        raise ConfigError(f"{TOKEN_VARIABLE}: a token needs at least {SHORTEST_TOKEN} ASCII characters")
    made = secrets.token_urlsafe(32)
    default = Key(guidance=s.guidance, negative=s.negative, system=s.system)
    known = read_keys(Path(s.keys), default) if s.keys else {token or made: default}
    listening = listen(s.host, s.port)

    import uvicorn

    from forgetfilter.guide.generation import load_guided, precision
    from forgetfilter.guide.serving.app import Server, application
    from forgetfilter.guide.serving.engine import Engine

    with listening:
        loaded, model, adapters = load_guided(s)
        engine = Engine(
            model,
            loaded.tokenizer,
            batch_tokens=s.batch_tokens,
            most_waiting=s.max_waiting,
            adapters=adapters,
        )
        shown = shown_name(s.model)
        pages = Server(
            engine=engine, keys=known, model=shown, precision=precision(loaded), most_tokens=s.max_new_tokens,
            most_bytes=s.max_request_bytes, seconds=s.max_seconds, template=s.template, strict=s.strict,
        )  # fmt: skip
        app = application(pages, log=say if s.log_requests else None)
        at, bound = listening.getsockname()[:2]
        say(f"serving {shown} at http://{f'[{at}]' if ':' in at else at}:{bound}/v1")
        if s.keys is None and token is None:
            say(f"token: {made}")
        if precision(loaded) != "float32":
            say(f"in {precision(loaded)} an answer may change with those written beside it")
        if not (at.startswith("127.") or at == "::1"):
            say("this address is open to other machines, and nothing is encrypted: put a TLS proxy in front")
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False,
            timeout_graceful_shutdown=max(1, round(s.drain_seconds)),
        )  # fmt: skip
        server = uvicorn.Server(config)
        _drain_when_stopped(server, engine, s.drain_seconds, say)
        with suppress(KeyboardInterrupt):  # uvicorn shuts down in good order and passes the signal on
            server.run(sockets=[listening])
    return DONE


def shown_name(model: str) -> str:
    """What clients call the model: of a file or folder its name, without the way to it."""
    path = Path(model).expanduser().absolute()
    return path.name if path.exists() else model


def _drain_when_stopped(server: Any, engine: Engine, seconds: float, say: Callable[[str], None]) -> None:
    """A signal that stops the server is said, and from then on nothing new is taken."""
    stop = server.handle_exit

    def drain(number: int, frame: Any) -> None:
        if not engine.draining:
            engine.draining = True
            say(f"stopping: open answers ({engine.load[0]}) are finished first, for up to {seconds:g} s")
        stop(number, frame)

    server.handle_exit = drain


def refuse_missing(command: str) -> None:
    """ConfigError where what serves pages is not installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{command} needs {error.name}: pip install 'forgetfilter[serve]'") from error


def listen(host: str, port: int) -> socket.socket:
    """A socket to be served on; port 0: any free one. ConfigError where the port cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"cannot listen on port {port} of {host}: {error}. Name another --port; 0 is any free one"
        ) from error
