"""Guided answers over HTTP, in the manner of OpenAI's chat completions.

One thread writes all answers side by side; a new request joins the others at the next token. Who asks is told
by a bearer token, and each token may have its own guidance, so that traffic of different trust is guided
differently. What a request may hold beyond OpenAI's fields: guidance_scale, guidance_form, guidance_mask,
negative_messages.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from forgetfilter.errors import DONE, ConfigError, ForgetfilterError, unknown
from forgetfilter.guide.guidance import (
    ADAPTER,
    BASE,
    NEGATIVE,
    POSITIVE,
    Branches,
    Draft,
    Guidance,
    load_adapter,
    prepare,
    stop_ids,
    write,
    writing,
)
from forgetfilter.guide.guidance import Request as Prompt
from forgetfilter.records import Message

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from transformers import PreTrainedTokenizerBase

TOKEN_VARIABLE = "FORGETFILTER_TOKEN"
SHORTEST_TOKEN = 16  # characters
MOST_WAITING = 256  # requests that have not begun; more are told to come back
MOST_CHOICES, MOST_STOPS = 16, 4


class Refused(Exception):
    """A request that is answered with an error, in OpenAI's form."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        message, param = _whole_characters(message[:500]), param and _whole_characters(param[:100])
        super().__init__(message)
        self.status = status
        kinds = {429: "rate_limit_error", 401: "authentication_error", 403: "permission_error"}
        kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _whole_characters(text: str) -> str:
    """What a client sent may hold half a character, which no reply can."""
    return text.encode(errors="replace").decode()


# --- who may ask, and how they are guided ---


@dataclass(frozen=True, slots=True)
class Key:
    """What a bearer token stands for."""

    name: str = "default"
    guidance: Guidance = field(default_factory=Guidance)
    negative: tuple[Message, ...] | None = None  # None: the paper's negative prompt
    system: str | None = None  # put before the client's own system message
    locked: bool = False  # requests may not change the guidance


def read_keys(path: Path, default: Key) -> dict[str, Key]:
    """Token -> Key from a YAML file; what an entry leaves out is `default`'s. ConfigError names the entry.

    a-long-random-token: {name: partner, guidance_scale: 3, locked: true}
    """
    from forgetfilter.settings import read_recipe

    entries, lines = read_recipe(path)
    if not entries:
        raise ConfigError(f"{path}: no tokens; write one `token: {{guidance_scale: 3}}` a line")
    keys = {}
    for token, entry in entries.items():
        where = f"{path} line {lines[token]}"  # the token itself is a secret
        if len(token) < SHORTEST_TOKEN or not token.isascii():
            raise ConfigError(f"{where}: a token needs at least {SHORTEST_TOKEN} ASCII characters")
        entry = {} if entry is None else entry
        if not isinstance(entry, dict):
            raise ConfigError(f"{where}: expected settings such as guidance_scale: 3 under the token")
        for setting in entry:
            if setting not in KEY_SETTINGS:
                raise ConfigError(f"{where}: {unknown('setting', setting, KEY_SETTINGS)}")
        try:
            negative = entry.get("negative_messages")
            keys[token] = Key(
                _text(entry, "name", f"line {lines[token]}"),
                _guidance(entry, default.guidance),
                default.negative if negative is None else _messages(negative, "negative_messages"),
                _text(entry, "system", default.system),
                _true_or_false(entry, "locked", default.locked),
            )
        except (Refused, ConfigError) as error:
            raise ConfigError(f"{where}: {error}") from error
    return keys


# --- the thread that writes ---


class Choice(Draft):
    """A draft and its text so far. Written by the engine's thread alone, read by the server's."""

    def __init__(self, job: Job, sample: int, tokenizer: PreTrainedTokenizerBase) -> None:
        from tokenizers.decoders import DecodeStream

        super().__init__(job.prompt, sample)
        self.job = job
        self.ready = ""  # text that stays as it is
        self.ended: str | None = None  # set once `ready` is whole
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._text = ""
        self._read = 0

    def update(self) -> None:
        """Take the tokens that have come since into the text; a stop sequence ends it."""
        for token in self.ids[self._read :]:
            self._text += self._stream.step(self._tokenizer.backend_tokenizer, token) or ""
        self._read = len(self.ids)
        if self.finish:  # what the stream held back, such as half a character
            whole = str(self._tokenizer.decode(self.ids, skip_special_tokens=True))
            self._text = whole if whole.startswith(self._text) else self._text
        found = [at for stop in self.job.stops if (at := self._text.find(stop)) >= 0]
        if found:
            self._text, self.finish = self._text[: min(found)], "stop"
        held = 0 if self.finish else max((_begun(self._text, stop) for stop in self.job.stops), default=0)
        self.ready = self._text[: len(self._text) - held]
        self.ended = self.finish


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


class Job:
    """One request on its way: its choices, and the bell that rings when they have grown."""

    def __init__(
        self, prompt: Prompt, count: int, stops: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.prompt, self.stops = prompt, stops
        self.choices = [Choice(self, sample, tokenizer) for sample in range(count)]
        longest = max(len(prompt.prompt), len(prompt.negative or ()))
        self.room = count * (2 - prompt.guidance.plain) * (longest + prompt.limit)  # tokens of cache, at most
        self.cancelled = False
        self.error: Exception | None = None
        self._loop, self._grown = asyncio.get_running_loop(), asyncio.Event()

    @property
    def over(self) -> bool:
        return self.error is not None or all(choice.ended for choice in self.choices)

    async def grown(self) -> None:
        """Wait until there is more. Raises the error that ended the job."""
        await self._grown.wait()
        self._grown.clear()
        if self.error is not None:
            raise self.error

    def ring(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._grown.set)
        except RuntimeError:
            self.cancelled = True  # the loop is closed: nobody waits any more


class Engine:
    """Answers jobs side by side in a thread of its own. `batch_tokens` bounds the caches of all open jobs together;
    a job that alone is larger is answered alone."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_tokens: int = 65536,
        adapters: tuple[str, str] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.adapters = model, tokenizer, adapters
        self._batch_tokens = batch_tokens
        self._stop_ids = frozenset(stop_ids(model, tokenizer))
        self._waiting: deque[Job] = deque()
        self._open: list[Choice] = []  # being written
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        Branches(model, adapters=adapters)  # refuses a model that cannot be batched, before anything listens

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Finish what is open and waiting, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def submit(self, job: Job) -> None:
        with self._changed:
            if self._closing or len(self._waiting) >= MOST_WAITING:
                raise Refused(
                    429, "too many requests are waiting; try again later", code="rate_limit_exceeded"
                )
            self._waiting.append(job)
            self._changed.notify()

    @property
    def idle(self) -> bool:
        """Nothing is open, nothing waits."""
        return not self._open and not self._waiting

    def _run(self) -> None:
        import torch

        branches, tokens = Branches(self.model, adapters=self.adapters), list[int]()
        with writing(self.model), torch.inference_mode():
            while True:
                new = self._admit(self._open)
                if not new and not self._open:
                    return
                try:
                    self._open, tokens = self._step(branches, self._open, tokens, new)
                except Exception as error:  # out of memory, say: those in the batch fail, the server goes on
                    for job in {choice.job: None for choice in self._open} | dict.fromkeys(new):
                        if not job.over:
                            job.error = Refused(500, f"the model failed: {_first_line(error)}")
                            job.ring()
                    branches, self._open, tokens = Branches(self.model, adapters=self.adapters), [], []

    def _admit(self, open_: Sequence[Choice]) -> list[Job]:
        """Jobs that join now, first come first served; waits while there is nothing to do. None and nothing open:
        it is over."""
        used, new = sum({c.job: c.job.room for c in open_}.values()), list[Job]()
        with self._changed:
            while True:
                while self._waiting:
                    first = self._waiting[0]
                    if not first.cancelled:
                        if used + first.room > self._batch_tokens and (open_ or new):
                            break
                        used += first.room
                        new.append(first)
                    self._waiting.popleft()
                if new or open_ or self._closing:
                    return new
                self._changed.wait()

    def _step(
        self, branches: Branches, open_: list[Choice], tokens: list[int], new: Sequence[Job]
    ) -> tuple[list[Choice], list[int]]:
        """The open choices read their last token, new jobs join, and each gets one token more."""
        stay = [i for i, c in enumerate(open_) if not c.finish and not c.job.cancelled]
        if len(stay) < len(open_):
            branches.select(stay)
            open_, tokens = [open_[i] for i in stay], [tokens[i] for i in stay]
        if open_:
            branches.advance(tokens)
        if new:
            before = len(open_)
            prompts = [job.prompt for job in new]
            branches.join(
                [p.prompt for p in prompts], [p.negative for p in prompts], [p.guidance for p in prompts]
            )
            copies = [before + i for i, job in enumerate(new) for _ in job.choices]
            if len(copies) > len(new):  # several choices of one prompt, which is read once
                branches.select([*range(before), *copies])
            open_ = open_ + [choice for job in new for choice in job.choices]
        if not open_:
            return [], []
        going_on, tokens = write(branches, open_, self._stop_ids)
        for choice in open_:
            choice.update()
        for job in {choice.job: None for choice in open_}:
            job.ring()
        return going_on, tokens


# --- what a request asks for ---


class Asked(NamedTuple):
    """A chat completion request, checked."""

    messages: tuple[Message, ...]
    guidance: Guidance
    instruction: str | None  # in front of it
    negative: str | tuple[Message, ...] | None  # None: the positive prompt (guidance by adapter)
    limit: int
    temperature: float
    top_p: float
    seed: str
    count: int
    stops: tuple[str, ...]
    stream: bool
    stream_usage: bool


def parse(body: bytes, key: Key, *, model: str, most_tokens: int, by_adapter: bool = False) -> Asked:
    """A request's body as Asked, with what its key sets. Raises Refused, which names the field."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {_first_line(error)}") from None
    if not isinstance(asked, dict):
        raise Refused(400, f"the body must be a JSON object, not {_kind(asked)}")
    asked = {name: value for name, value in asked.items() if value is not None}  # null: not given
    for name, value in asked.items():
        if name not in FIELDS and name not in IGNORED and name not in ONLY_AS:
            raise Refused(
                400, unknown("field", name, [*FIELDS, *ONLY_AS]), param=name, code="unknown_parameter"
            )
        if name in ONLY_AS and value not in ONLY_AS[name]:
            raise Refused(
                400, f"{name} is not supported by this server", param=name, code="unsupported_parameter"
            )
    if asked.get("model", model) != model:
        raise Refused(
            404, f"no model {asked['model']!r} here; this is {model!r}", param="model", code="model_not_found"
        )
    own = [name for name in GUIDING if name in asked]
    if own and key.locked:
        raise Refused(403, f"{own[0]}: the guidance of this key is set by the server", param=own[0])
    if "messages" not in asked:
        raise Refused(400, "messages is missing", param="messages")
    messages = _messages(asked["messages"], "messages")
    try:
        guidance = _guidance(asked, key.guidance)
    except ConfigError as error:
        raise Refused(400, str(error), param=own[0] if own else None) from error
    negative: str | tuple[Message, ...] | None = key.negative
    if "negative_messages" in asked:
        negative = _messages(asked["negative_messages"], "negative_messages")
    elif negative is None and not by_adapter:
        negative = NEGATIVE
    stops = asked.get("stop", [])
    stops = [stops] if isinstance(stops, str) else stops
    if (
        not isinstance(stops, list)
        or len(stops) > MOST_STOPS
        or not all(isinstance(s, str) and s for s in stops)
    ):
        raise Refused(400, f"stop must be a text or at most {MOST_STOPS} of them", param="stop")
    usage = asked.get("stream_options", {})
    if not isinstance(usage, dict):
        raise Refused(400, f"stream_options must be an object, not {_kind(usage)}", param="stream_options")
    seed = _whole(asked, "seed", None, -(2**63), 2**64)
    most = _whole(asked, "max_completion_tokens", _whole(asked, "max_tokens", most_tokens, 1), 1)
    # Negative messages are the client's whole say: against them stands its own system message, if there is one.
    bare = messages[0].role != "system"
    ours = not guidance.plain and (isinstance(negative, str) or (negative is not None and bare))
    return Asked(
        messages=messages,
        instruction=POSITIVE if key.system is None and ours else key.system,
        guidance=guidance,
        negative=negative,
        limit=min(most or most_tokens, most_tokens),
        temperature=_number(asked, "temperature", 1.0, 0, 2),
        top_p=_number(asked, "top_p", 1.0, 1e-9, 1),
        seed=secrets.token_hex(8) if seed is None else str(seed),
        count=_whole(asked, "n", 1, 1, MOST_CHOICES) or 1,
        stops=tuple(stops),
        stream=_true_or_false(asked, "stream", False),
        stream_usage=_true_or_false(usage, "include_usage", False),
    )


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise Refused(400, f"{where} must be a list of at least one message", param=where)
    found = []
    for i, message in enumerate(value):
        place = f"{where}[{i}]"
        if not isinstance(message, dict):
            raise Refused(400, f"{place} must be an object, not {_kind(message)}", param=place)
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or role not in ROLES:
            raise Refused(400, f"{place}.role must be one of {', '.join(ROLES)}", param=f"{place}.role")
        if isinstance(content, list) and all(
            isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
            for part in content
        ):
            content = "".join(part["text"] for part in content)
        if not isinstance(content, str):
            raise Refused(400, f"{place}.content must be a text or a list of texts", param=f"{place}.content")
        found.append(Message(ROLES[role], content))
    return tuple(found)


def _guidance(given: Mapping[str, Any], default: Guidance) -> Guidance:
    form = given.get("guidance_form", default.form)
    if not isinstance(form, str):
        raise ConfigError(f"guidance_form must be a text, not {_kind(form)}")
    scale = _number(given, "guidance_scale", default.scale, -math.inf, math.inf)
    return Guidance(scale, form, _number(given, "guidance_mask", default.mask, -math.inf, math.inf))


def _number(given: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(400, f"{name} must be a number, not {_kind(value)}", param=name)
    try:
        value = float(value)
    except OverflowError:
        value = math.inf
    if value < low or value > high or (math.isfinite(low) and math.isnan(value)):
        raise Refused(400, f"{name} must be between {low:g} and {high:g}, not {value:g}", param=name)
    return value


def _whole(
    given: Mapping[str, Any], name: str, default: int | None, low: int, high: int | None = None
) -> int | None:
    value = given.get(name, default)
    if value is not default and (isinstance(value, bool) or not isinstance(value, int)):
        raise Refused(400, f"{name} must be a whole number, not {_kind(value)}", param=name)
    if value is not None and (value < low or (high is not None and value > high)):
        allowed = f"at least {low}" if high is None else f"between {low} and {high}"
        raise Refused(400, f"{name} must be {allowed}", param=name)
    return value


def _true_or_false(given: Mapping[str, Any], name: str, default: bool) -> bool:
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise Refused(400, f"{name} must be true or false, not {_kind(value)}", param=name)
    return value


def _text(given: Mapping[str, Any], name: str, default: Any) -> Any:
    value = given.get(name, default)
    if value is not default and not isinstance(value, str):
        raise ConfigError(f"{name} must be a text, not {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


# --- the server ---


def application(
    engine: Engine,
    keys: Mapping[str, Key],
    *,
    model: str,
    most_tokens: int = 512,
    most_bytes: int = 1 << 20,
    seconds: float = 300,
    template: str = "auto",
) -> Starlette:
    """The HTTP application. `most_tokens` of one answer, `most_bytes` of one body, `seconds` for a whole request."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Route

    born = int(time.time())
    preparing = asyncio.Lock()  # a tokenizer at a time, out of the way of the answers being sent
    card = {"id": model, "object": "model", "created": born, "owned_by": "forgetfilter"}

    def key_of(request: Request) -> Key:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        found = None
        for token, key in keys.items():  # all of them: the time taken tells nothing
            if secrets.compare_digest(token.encode(), given.strip().encode()):
                found = key
        if scheme.lower() != "bearer" or found is None:
            raise Refused(401, "no such token; send `Authorization: Bearer TOKEN`", code="invalid_api_key")
        return found

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def models(request: Request) -> Response:
        key_of(request)
        return JSONResponse({"object": "list", "data": [card]})

    async def one_model(request: Request) -> Response:
        key_of(request)
        if request.path_params["name"] != model:
            raise Refused(
                404, f"no such model here; this is {model!r}", param="model", code="model_not_found"
            )
        return JSONResponse(card)

    async def begin(request: Request, key: Key) -> tuple[Asked, Job]:
        asked = parse(
            await _body(request, most_bytes), key, model=model, most_tokens=most_tokens,
            by_adapter=engine.adapters is not None,
        )  # fmt: skip
        drawing = {"temperature": asked.temperature, "top_p": asked.top_p, "seed": asked.seed}
        try:
            async with preparing:
                prompt = await asyncio.to_thread(
                    prepare, asked.messages, engine.model, engine.tokenizer, guidance=asked.guidance,
                    instruction=asked.instruction, negative=asked.negative, limit=asked.limit,
                    template=template, **drawing,
                )  # fmt: skip
        except ForgetfilterError as error:
            param = "negative_messages" if isinstance(error, ConfigError) else "messages"
            code = "context_length_exceeded" if "reads at most" in str(error) else None
            raise Refused(400, str(error), param=param, code=code) from error
        job = Job(prompt, asked.count, asked.stops, engine.tokenizer)
        engine.submit(job)
        return asked, job

    async def chat(request: Request) -> Response:
        key = key_of(request)
        until = asyncio.get_running_loop().time() + seconds
        late = Refused(408, f"the request took longer than {seconds:g} s", code="timeout")
        try:
            async with asyncio.timeout_at(until):
                asked, job = await begin(request, key)
        except TimeoutError:
            raise late from None
        head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        if asked.stream:
            events = _events(job, head, asked.stream_usage, until, late)
            return StreamingResponse(
                events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
            )
        gone = asyncio.create_task(_gone(request))
        try:
            async with asyncio.timeout_at(until):
                while not job.over and not gone.done():
                    await _first_of(job.grown(), gone)
                if job.error is not None:
                    raise job.error
        except TimeoutError:
            raise late from None
        finally:
            gone.cancel()
            job.cancelled = True  # over, late, or nobody waits: it leaves the batch
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": choice.ready, "refusal": None},
                "logprobs": None,
                "finish_reason": choice.ended,
            }
            for i, choice in enumerate(job.choices)
        ]
        return JSONResponse(head | {"object": "chat.completion", "choices": choices, "usage": _usage(job)})

    async def refused(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):  # no such page, wrong method
            error = Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
        assert isinstance(error, Refused)
        headers = {}
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if error.status in (408, 413):  # the rest of the body is not read
            headers["Connection"] = "close"
        if error.status == 408:  # OpenAI's client would ask twice more
            headers["x-should-retry"] = "false"
        return JSONResponse(error.body, error.status, headers)

    async def failed(request: Request, error: Exception) -> Response:
        return JSONResponse(Refused(500, "a defect of the server").body, 500)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        engine.start()
        yield
        await asyncio.to_thread(engine.close)

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", one_model),
            Route("/v1/chat/completions", chat, methods=["POST"]),
        ],
        exception_handlers={Refused: refused, HTTPException: refused, Exception: failed},
        lifespan=lifespan,
    )


async def _body(request: Request, most: int) -> bytes:
    too_large = Refused(413, f"the body is larger than {most} bytes", code="request_too_large")
    body = bytearray()
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > most:
        raise too_large
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise too_large
    return bytes(body)


async def _gone(request: Request) -> None:
    """Returns when the client has left; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _first_of(waiting: Any, other: asyncio.Task[None]) -> None:
    task = asyncio.ensure_future(waiting)
    try:
        await asyncio.wait({task, other}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        task.cancel()


async def _events(
    job: Job, head: Mapping[str, Any], with_usage: bool, until: float, late: Refused
) -> AsyncGenerator[str]:
    """Server-sent events: what has come since the last one, so a slow reader gets fewer and longer ones."""

    def event(choices: Sequence[Mapping[str, Any]], **more: Any) -> str:
        chunk = {**head, "object": "chat.completion.chunk", "choices": choices, **more}
        return f"data: {json.dumps(chunk)}\n\n"

    def delta(index: int, content: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {"index": index, "delta": content, "logprobs": None, "finish_reason": finish}

    sent, ended = [0] * len(job.choices), [False] * len(job.choices)
    try:
        yield event([delta(i, {"role": "assistant", "content": ""}) for i in range(len(job.choices))])
        while not all(ended):
            async with asyncio.timeout_at(until):
                await job.grown()
            for i, choice in enumerate(job.choices):
                over, text = choice.ended, choice.ready  # in this order: a text is whole before it has ended
                if len(text) > sent[i]:
                    yield event([delta(i, {"content": text[sent[i] :]})])
                    sent[i] = len(text)
                if over and not ended[i]:
                    yield event([delta(i, {}, over)])
                    ended[i] = True
        if with_usage:
            yield event([], usage=_usage(job))
        yield "data: [DONE]\n\n"
    except (TimeoutError, Refused) as error:
        yield f"data: {json.dumps((error if isinstance(error, Refused) else late).body)}\n\n"
    finally:
        job.cancelled = True  # also where the client has left


def _usage(job: Job) -> dict[str, int]:
    read, written = len(job.prompt.prompt), sum(len(choice.ids) for choice in job.choices)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


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
    dtype: str = "auto",
    device: str = "auto",
    say: Callable[[str], None],
    **limits: Any,
) -> int:
    """Serve until stopped (Ctrl-C, SIGTERM): open answers are finished first, for up to 30 seconds.

    Tokens: those of the file `keys`, else the one in FORGETFILTER_TOKEN, else a new one, which is said.
    `limits`: most_tokens, most_bytes, seconds, template of `application`.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ConfigError(f"serve needs {error.name}: pip install 'forgetfilter[serve]'") from error
    if guide_by == "adapter" and adapter is None:
        raise ConfigError("--guide-by adapter: name the adapter with --adapter")
    token = os.environ.get(TOKEN_VARIABLE)
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii()):
        raise ConfigError(f"{TOKEN_VARIABLE}: a token needs at least {SHORTEST_TOKEN} ASCII characters")
    made = secrets.token_urlsafe(32)
    known = read_keys(keys, default) if keys else {token or made: default}
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error}; try another --port") from error

    from forgetfilter.models.load import load

    with listening:
        loaded = load(name, dtype=dtype, device=device)
        model = load_adapter(loaded.model, adapter) if adapter else loaded.model
        adapters = (ADAPTER, BASE) if guide_by == "adapter" else None
        engine = Engine(model, loaded.tokenizer, batch_tokens=batch_tokens, adapters=adapters)
        shown = Path(name).name if Path(name).is_dir() else name
        app = application(engine, known, model=shown, **limits)
        at, bound = listening.getsockname()[:2]
        say(f"serving {shown} at http://{f'[{at}]' if ':' in at else at}:{bound}/v1")
        if keys is None and token is None:
            say(f"token: {made}")
        if not (at.startswith("127.") or at == "::1"):
            say("this address is open to other machines, and nothing is encrypted: put a TLS proxy in front")
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=30
        )
        with suppress(KeyboardInterrupt):  # uvicorn shuts down in good order and passes the signal on
            uvicorn.Server(config).run(sockets=[listening])
    return DONE


ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
GUIDING = ("guidance_scale", "guidance_form", "guidance_mask", "negative_messages")
KEY_SETTINGS = ("name", *GUIDING, "system", "locked")
FIELDS = (
    *(
        "model",
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "n",
        "seed",
        "stop",
    ),
    *("stream", "stream_options", *GUIDING),
)
IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
ONLY_AS: dict[str, tuple[Any, ...]] = {  # accepted only with values that change nothing
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
