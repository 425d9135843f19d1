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

if TYPE_CHECKING:
    from forgetfilter.guide.serving.engine import Engine

TOKEN_VARIABLE = "FORGETFILTER_TOKEN"


def serve(
    name: str,
    default: Key,
    *,
    keys: Path | None = None,
    adapter: Path | None = None,
    guide_by: str = "prompt",
    host: str = "127.0.0.1",
    port: int = 8000,
    batch_tokens: int = 65536,
    most_waiting: int = 256,
    drain_seconds: float = 30,
    dtype: str = "auto",
    device: str = "auto",
    quantization: str = "none",
    log_requests: bool = True,
    say: Callable[[str], None],
    **limits: Any,
) -> int:
    """Serve until stopped (Ctrl-C, SIGTERM): open answers are finished first, for up to `drain_seconds`.

    Tokens: those of the file `keys`, else the one in FORGETFILTER_TOKEN, else a new one, which is said.
    `limits`: most_tokens, most_bytes, seconds, template, strict of `application`.
    """
    refuse_missing("serve")
    if guide_by == "adapter" and adapter is None:
        raise ConfigError("--guide-by adapter: name the adapter with --adapter")
    token = os.environ.get(TOKEN_VARIABLE)
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii()):
        raise ConfigError(f"{TOKEN_VARIABLE}: a token needs at least {SHORTEST_TOKEN} ASCII characters")
    made = secrets.token_urlsafe(32)
    known = read_keys(keys, default) if keys else {token or made: default}
    listening = listen(host, port)

    import uvicorn

    from forgetfilter.guide.branches import ADAPTER, BASE, load_adapter
    from forgetfilter.guide.generation import load_to_write, precision
    from forgetfilter.guide.serving.app import application
    from forgetfilter.guide.serving.engine import Engine

    with listening:
        loaded = load_to_write(name, dtype=dtype, device=device, quantization=quantization)
        model = load_adapter(loaded.model, adapter) if adapter else loaded.model
        adapters = (ADAPTER, BASE) if guide_by == "adapter" else None
        engine = Engine(
            model, loaded.tokenizer, batch_tokens=batch_tokens, most_waiting=most_waiting, adapters=adapters
        )
        shown = Path(name).name if Path(name).is_dir() else name
        app = application(
            engine,
            known,
            model=shown,
            precision=precision(loaded),
            log=say if log_requests else None,
            **limits,
        )
        at, bound = listening.getsockname()[:2]
        say(f"serving {shown} at http://{f'[{at}]' if ':' in at else at}:{bound}/v1")
        if keys is None and token is None:
            say(f"token: {made}")
        if precision(loaded) != "float32":
            say(f"in {precision(loaded)} an answer may change with those written beside it")
        if not (at.startswith("127.") or at == "::1"):
            say("this address is open to other machines, and nothing is encrypted: put a TLS proxy in front")
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False,
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
        )  # fmt: skip
        server = uvicorn.Server(config)
        _drain_when_stopped(server, engine, drain_seconds, say)
        with suppress(KeyboardInterrupt):  # uvicorn shuts down in good order and passes the signal on
            server.run(sockets=[listening])
    return DONE


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
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"cannot listen on port {port} of {host}: {error}. Name another --port; 0 is any free one"
        ) from error
