"""The HTTP application: who asks, what is asked, and the reply, with OpenAI's pages and errors."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError, ForgetfilterError
from forgetfilter.guide.prompts import prepare, raw_prompt
from forgetfilter.guide.serving import replies
from forgetfilter.guide.serving.engine import Bell, Engine, Job
from forgetfilter.guide.serving.fields import Refused
from forgetfilter.guide.serving.keys import Key
from forgetfilter.guide.serving.metrics import PAGES, Metrics, Watched
from forgetfilter.guide.serving.protocol import Chat, Completion, Terms, parse_chat, parse_completion
from forgetfilter.guide.serving.replies import Asked

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response


@dataclass(slots=True, kw_only=True)
class Server:
    """What the pages share. Limits: `most_tokens` of one answer, `most_bytes` of one body, `seconds` for a whole
    request; `strict` refuses fields that would be ignored."""

    engine: Engine
    keys: Mapping[str, Key]
    model: str
    most_tokens: int = 512
    most_bytes: int = 1 << 20
    seconds: float = 300
    template: str = "auto"
    strict: bool = False
    precision: str = "float32"
    metrics: Metrics = field(default_factory=Metrics)
    born: int = field(default_factory=lambda: int(time.time()))
    # A tokenizer at a time, out of the way of the answers being sent.
    preparing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def key_of(self, request: Request) -> Key:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        found = None
        for token, key in self.keys.items():  # all of them: the time taken tells nothing
            if secrets.compare_digest(token.encode(), given.strip().encode()):
                found = key
        if scheme.lower() != "bearer" or found is None:
            raise Refused(401, "no such token; send `Authorization: Bearer TOKEN`", code="invalid_api_key")
        request.scope["told"]["key"] = found.name
        return found

    # --- pages that tell of the server ---

    async def health(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        if self.engine.draining:
            return JSONResponse({"status": "draining"}, 503)
        return JSONResponse({"status": "ok"})

    async def counts(self, request: Request) -> Response:
        from starlette.responses import Response

        self.key_of(request)
        return Response(self.metrics.text(self.engine), media_type="text/plain; version=0.0.4; charset=utf-8")

    @property
    def card(self) -> dict[str, Any]:
        return {"id": self.model, "object": "model", "created": self.born, "owned_by": "forgetfilter"}

    async def models(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        self.key_of(request)
        return JSONResponse({"object": "list", "data": [self.card]})

    async def one_model(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        self.key_of(request)
        if request.path_params["name"] != self.model:
            raise Refused(
                404, f"no such model here; this is {self.model!r}", param="model", code="model_not_found"
            )
        return JSONResponse(self.card)

    # --- pages that answer ---

    async def chat(self, request: Request) -> Response:
        return await self._answer(
            request, self._begin_chat, "chatcmpl", replies.chat_reply, replies.chat_events
        )

    async def completions(self, request: Request) -> Response:
        return await self._answer(
            request, self._begin_completion, "cmpl", replies.completion_reply, replies.completion_events
        )

    async def _answer(
        self,
        request: Request,
        begin: Callable[..., Any],
        prefix: str,
        reply: Callable[[Asked], dict[str, Any]],
        events: Callable[[Asked], AsyncGenerator[str]],
    ) -> Response:
        from starlette.responses import JSONResponse, StreamingResponse

        key = self.key_of(request)
        until = asyncio.get_running_loop().time() + self.seconds
        late = Refused(408, f"the request took longer than {self.seconds:g} s", code="timeout")
        head = {"id": f"{prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": self.model}
        head["system_fingerprint"] = f"forgetfilter-{self.precision}"
        try:
            async with asyncio.timeout_at(until):
                terms, asked = await begin(request, key, {"head": head, "until": until, "late": late})
                self.engine.submit(*asked.jobs)
                request.scope["told"]["asked"] = asked
        except TimeoutError:
            raise late from None
        if terms.stream:
            return StreamingResponse(
                events(asked), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
            )
        await _finished(request, asked)
        return JSONResponse(await asyncio.to_thread(reply, asked))

    async def _begin_chat(self, request: Request, key: Key, common: Mapping[str, Any]) -> tuple[Terms, Asked]:
        chat: Chat = parse_chat(await _body(request, self.most_bytes), key, **self._parsing)
        terms = chat.terms
        self._tell(request, terms)
        prompt = await self._prepare(
            "messages", prepare, chat.messages, self.engine.model, self.engine.tokenizer, tools=chat.tools,
            template=self.template, **_drawing(terms),
        )  # fmt: skip
        bell = Bell()
        job = Job(prompt, terms.count, terms.stops, self.engine.tokenizer, bell=bell)
        names = frozenset(tool["function"]["name"] for tool in chat.tools)
        return terms, Asked(
            (job,),
            bell,
            tokenizer=self.engine.tokenizer,
            names=names,
            with_usage=terms.stream_usage,
            **common,
        )

    async def _begin_completion(
        self, request: Request, key: Key, common: Mapping[str, Any]
    ) -> tuple[Terms, Asked]:
        asked: Completion = parse_completion(await _body(request, self.most_bytes), key, **self._parsing)
        terms, tokenizer = asked.terms, self.engine.tokenizer
        self._tell(request, terms)
        bell, jobs, echoed = Bell(), list[Job](), list[tuple[int, ...]]()
        for text in asked.prompts:
            prompt, own = await self._prepare(
                "prompt", raw_prompt, text, self.engine.model, tokenizer, **_drawing(terms)
            )
            echo = own if asked.echo else None
            jobs.append(Job(prompt, terms.count, terms.stops, tokenizer, bell=bell, echo=echo))
            # The client's own token ids; of a text, without the start token.
            echoed.append(tuple(prompt.prompt[len(prompt.prompt) - own :]) if isinstance(text, str) else text)
        return terms, Asked(
            tuple(jobs), bell, tokenizer=tokenizer, echo=tuple(echoed) if asked.echo else None,
            with_usage=terms.stream_usage, **common,
        )  # fmt: skip

    @property
    def _parsing(self) -> dict[str, Any]:
        by_adapter = self.engine.adapters is not None
        return {
            "model": self.model, "most_tokens": self.most_tokens, "by_adapter": by_adapter, "strict": self.strict,
        }  # fmt: skip

    def _tell(self, request: Request, terms: Terms) -> None:
        request.scope["told"] |= {"ignored": terms.ignored, "notes": terms.notes}

    async def _prepare(self, param: str, work: Callable[..., Any], *args: Any, **drawing: Any) -> Any:
        try:
            async with self.preparing:
                return await asyncio.to_thread(work, *args, **drawing)
        except ForgetfilterError as error:
            param = "negative_messages" if isinstance(error, ConfigError) else param
            code = "context_length_exceeded" if "reads at most" in str(error) else None
            raise Refused(400, str(error), param=param, code=code) from error
        except RecursionError:
            raise Refused(400, f"{param}: nested too deeply", param=param) from None


def _drawing(terms: Terms) -> dict[str, Any]:
    """What a prompt is prepared with."""
    names = ("guidance", "instruction", "negative", "limit", "temperature", "top_p", "seed", "top")
    return {name: getattr(terms, name) for name in names}


def application(server: Server, *, log: Callable[[str], None] | None = None) -> Starlette:
    """The HTTP application. `log` gets a line for each request."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.routing import Route

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        server.engine.start()
        yield
        await asyncio.to_thread(server.engine.close)

    return Starlette(
        routes=[
            Route("/health", server.health),
            Route("/metrics", server.counts),
            Route("/v1/models", server.models),
            Route("/v1/models/", server.models),  # or it would be asked for a model without a name
            Route("/v1/models/{name:path}", server.one_model),
            Route("/v1/chat/completions", server.chat, methods=["POST"]),
            Route("/v1/completions", server.completions, methods=["POST"]),
        ],
        middleware=[Middleware(Watched, metrics=server.metrics, log=log)],
        exception_handlers={Refused: _refused, HTTPException: _refused, Exception: _failed},
        lifespan=lifespan,
    )


async def _refused(request: Request, error: Exception) -> Response:
    from starlette.exceptions import HTTPException
    from starlette.responses import JSONResponse

    headers: dict[str, str] = {}
    if isinstance(error, HTTPException):  # no such page, wrong method
        headers |= error.headers or {}  # which methods there are
        error = Refused(error.status_code, f"{request.method} {request.url.path}: {_detail(error)}")
    assert isinstance(error, Refused)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in (408, 413):  # the rest of the body is not read
        headers["Connection"] = "close"
    if error.status == 408:  # OpenAI's client would ask twice more
        headers["x-should-retry"] = "false"
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return JSONResponse(error.body, error.status, headers)


def _detail(error: HTTPException) -> str:
    """What was wrong, and which page or method there is instead."""
    if error.status_code == 404:
        return f"there is no such page; this server has {', '.join(PAGES)}"
    allowed = (error.headers or {}).get("Allow")
    return f"this page takes {allowed}" if allowed else error.detail


async def _failed(request: Request, error: Exception) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(Refused(500, "a defect of the server").body, 500)


async def _finished(request: Request, asked: Asked) -> None:
    """Wait until the answers are whole. Raises Refused for what ended them early, such as a client that leaves."""
    gone = asyncio.create_task(_gone(request))
    gone.add_done_callback(lambda _: asked.bell.ring())
    try:
        async with asyncio.timeout_at(asked.until):
            while not asked.over:
                await asked.bell.rung()
                if gone.done():
                    raise Refused(499, "the client has left before its answer was whole")
            asked.fail()
    except TimeoutError:
        raise asked.late from None
    finally:
        gone.cancel()


async def _body(request: Request, most: int) -> bytes:
    from starlette.requests import ClientDisconnect

    coding = request.headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise Refused(
            415, f"the body is compressed ({coding}); send it as plain JSON, without Content-Encoding"
        )
    too_large = Refused(413, f"the body is larger than {most} bytes", code="request_too_large")
    body = bytearray()
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > most:
        raise too_large
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise too_large
    except ClientDisconnect:  # nobody reads the reply; it ends the request without a word of a defect
        raise Refused(499, "the client has left before its request was whole") from None
    return bytes(body)


async def _gone(request: Request) -> None:
    """Returns when the client has left; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
