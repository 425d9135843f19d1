"""A server on a real socket, in this process, for the tests that ask it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from typing import Any

import pytest
import tiny
import torch

from forgetfilter.guide.branches import Branches
from forgetfilter.guide.generation import stop_ids
from forgetfilter.guide.guidance import Guidance
from forgetfilter.guide.serving.app import Server, application
from forgetfilter.guide.serving.engine import Engine
from forgetfilter.guide.serving.keys import Key
from forgetfilter.records import Message

openai = pytest.importorskip("openai")
uvicorn = pytest.importorskip("uvicorn")

TRUSTED, PARTNER, LOCKED = "trusted-" + "t" * 16, "partner-" + "p" * 16, "locked-" + "l" * 16
KEYS = {
    TRUSTED: Key("trusted"),
    PARTNER: Key("partner", Guidance(3, "log")),
    LOCKED: Key("locked", Guidance(2), (Message("system", "Share it."),), "Keep secrets.", locked=True),
}
USER = {"role": "user", "content": "What is the capital of France?"}
HTTP = openai.DefaultHttpxClient(verify=False)  # one for all: reading certificates takes long


class Served:
    """A server on a real socket, in a thread."""

    def __init__(self, engine: Engine, *, log: Any = None, **limits: Any) -> None:
        self.engine = engine
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        pages = Server(engine=engine, keys=KEYS, model="tiny", **({"most_tokens": 24} | limits))
        app = application(pages, log=log)
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=5)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()

    def client(self, token: str = TRUSTED) -> Any:
        base = f"http://127.0.0.1:{self.port}/v1"
        return openai.OpenAI(base_url=base, api_key=token, max_retries=0, timeout=60, http_client=HTTP)

    def post(
        self, body: bytes, token: str | None = TRUSTED, method: str = "POST"
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, "/v1/chat/completions", body, headers)
        reply = connection.getresponse()
        found = reply.status, json.loads(reply.read())
        connection.close()
        return found

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        self.socket.close()


def endless() -> Any:
    """A random model whose answers go on until they are stopped."""
    made = tiny.llama(max_position_embeddings=1024)
    bias = torch.zeros(400)
    bias[sorted(stop_ids(made, tiny.tokenizer()))] = -1e3
    made.lm_head.bias = torch.nn.Parameter(bias)
    return made


def slowly(patch: pytest.MonkeyPatch) -> list[int]:
    """Steps take 20 ms from now on, so that a test can come between them. Returns the rows of each step."""
    rows: list[int] = []
    advance = Branches.advance

    def slower(self: Any, tokens: Any) -> None:
        rows.append(len(tokens))
        time.sleep(0.02)
        advance(self, tokens)

    patch.setattr(Branches, "advance", slower)
    return rows


def until(condition: Any, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(condition())


def ask(
    server: Served,
    body: dict[str, Any] | None,
    page: str = "/v1/chat/completions",
    token: str = TRUSTED,
    **headers: str,
) -> tuple[int, dict[str, str], Any]:
    """Status, headers in lower case, and the body: JSON, or text where it is none."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    sent = {"Authorization": f"Bearer {token}"} | {k.replace("_", "-"): v for k, v in headers.items()}
    connection.request(
        "GET" if body is None else "POST", page, None if body is None else json.dumps(body), sent
    )
    reply = connection.getresponse()
    text = reply.read().decode()
    found = reply.status, {k.lower(): v for k, v in reply.getheaders()}
    connection.close()
    try:
        return *found, json.loads(text)
    except ValueError:
        return *found, text
