"""What a request asks for: the body of a chat completion or a completion, checked field by field.

Clients send fields of other servers and of newer models. What this server can leave aside is accepted and said aloud
(`ignored`); in strict mode it is refused. What would make the answer another thing than was asked for, such as JSON
mode, is always refused, and so is a field that looks like a guidance field misspelled.
"""

from __future__ import annotations

import difflib
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from forgetfilter.errors import ConfigError, unknown
from forgetfilter.guide.guidance import NEGATIVE, POSITIVE, Guidance
from forgetfilter.guide.serving.fields import Refused, kind, number, true_or_false, whole, wrong
from forgetfilter.guide.serving.keys import GUIDING, OLD_NAMES, Key, read_guidance
from forgetfilter.guide.serving.messages import read_messages, read_tools
from forgetfilter.models.library import first_line
from forgetfilter.records import Message

MOST_CHOICES = 16
MOST_STOPS = 16  # OpenAI takes 4; tasks of lm-evaluation-harness send up to a dozen
MOST_LOGPROBS = 20  # likeliest tokens told beside each
MOST_PROMPTS = 256  # of one completion request


class Terms(NamedTuple):
    """What chat completions and completions have in common."""

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
    top: int | None  # likeliest tokens told beside each; None: no log-probabilities
    ignored: tuple[str, ...]  # fields that were accepted and do nothing
    notes: tuple[str, ...]


class Chat(NamedTuple):
    """A chat completion request, checked."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    terms: Terms


class Completion(NamedTuple):
    """A completion request, checked: prompts as texts or as token ids."""

    prompts: tuple[str | tuple[int, ...], ...]
    echo: bool
    terms: Terms


def parse_chat(
    body: bytes, key: Key, *, model: str, most_tokens: int, by_adapter: bool = False, strict: bool = False
) -> Chat:
    """A request's body as Chat, with what its key sets. Raises Refused, which names the field."""
    asked, ignored = _fields(body, CHAT_FIELDS, model, strict)
    if "messages" not in asked:
        raise Refused(400, "messages is missing", param="messages")
    messages = read_messages(asked["messages"], "messages")
    tools = read_tools(asked)
    wanted = true_or_false(asked, "logprobs", False)
    top = whole(asked, "top_logprobs", None, 0, MOST_LOGPROBS)
    if top is not None and not wanted:
        raise Refused(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    most = whole(asked, "max_completion_tokens", whole(asked, "max_tokens", most_tokens, 1), 1) or most_tokens
    terms = _terms(
        asked, key, ignored, wanted=most, most=most_tokens, top=(top or 0) if wanted else None,
        by_adapter=by_adapter, bare=messages[0].role != "system",
    )  # fmt: skip
    return Chat(messages, tools, terms)


def parse_completion(
    body: bytes, key: Key, *, model: str, most_tokens: int, by_adapter: bool = False, strict: bool = False
) -> Completion:
    """A request's body as Completion, with what its key sets. Raises Refused, which names the field."""
    asked, ignored = _fields(body, COMPLETION_FIELDS, model, strict)
    echo = true_or_false(asked, "echo", False)
    prompts = _prompts(asked.get("prompt"), echo)
    top = whole(asked, "logprobs", None, 0, MOST_LOGPROBS)
    most = whole(asked, "max_tokens", 16, 0 if echo else 1) or 0
    count = whole(asked, "n", 1, 1, MOST_CHOICES) or 1
    if (whole(asked, "best_of", count, 1) or 1) > count:
        raise Refused(400, "best_of above n is not supported by this server", param="best_of")
    terms = _terms(
        asked, key, ignored, wanted=most, most=most_tokens, top=top, by_adapter=by_adapter, bare=True
    )
    return Completion(prompts, echo, terms)


def _prompts(value: Any, echo: bool) -> tuple[str | tuple[int, ...], ...]:
    """One prompt or several; each a text or token ids."""
    if value is None or value == [] or value == "":
        needs = "echo: true needs a prompt to give back" if echo else "prompt is missing or empty"
        raise Refused(400, needs, param="prompt")
    several = value if isinstance(value, list) and not _are_ids(value) else [value]
    if len(several) > MOST_PROMPTS:
        raise Refused(400, f"prompt: at most {MOST_PROMPTS} in one request", param="prompt")
    if not all(each and (isinstance(each, str) or _are_ids(each)) for each in several):
        raise wrong("prompt", "a text, a list of token ids, or a list of such")
    return tuple(each if isinstance(each, str) else tuple(each) for each in several)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in value
    )


def _fields(
    body: bytes, known: Sequence[str], model: str, strict: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body's fields without those that do nothing, and the names of those that the client should hear of."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {first_line(error)}") from None
    if not isinstance(asked, dict):
        raise Refused(400, f"the body must be a JSON object, not {kind(asked)}")
    asked = {name: value for name, value in asked.items() if value is not None}  # null: not given
    ignored = []
    for name, value in asked.items():
        if name in ONLY_AS and value not in ONLY_AS[name][0]:
            raise Refused(400, f"{name}: {ONLY_AS[name][1]}", param=name, code="unsupported_value")
        if name in known or name in SILENT or name in ONLY_AS or value in CHANGES_NOTHING.get(name, ()):
            continue
        near = difflib.get_close_matches(name, GUIDING, n=1, cutoff=0.75)
        if strict or near or name.startswith(("guid", "negative")):
            listed = GUIDING if near and not strict else known
            said = (
                f"{name} is not supported by this server"
                if name in CHANGES_NOTHING
                else unknown("field", name, listed)
            )
            code = "unsupported_parameter" if name in CHANGES_NOTHING else "unknown_parameter"
            raise Refused(400, said, param=name, code=code)
        ignored.append(name)
    if asked.get("model", model) != model:
        raise Refused(
            404, f"no model {asked['model']!r} here; this is {model!r}", param="model", code="model_not_found"
        )
    return {name: value for name, value in asked.items() if name in known}, tuple(ignored)


def _terms(
    asked: dict[str, Any], key: Key, ignored: tuple[str, ...], *, wanted: int, most: int, top: int | None,
    by_adapter: bool, bare: bool,
) -> Terms:  # fmt: skip
    """`wanted`: tokens of an answer, of which there are at most `most`; `bare`: the conversation has no system message
    of its own."""
    if (
        key.locked and "min_p" in asked
    ):  # as other servers have it, a sampler's field that many clients always send
        del asked["min_p"]
        ignored = (*ignored, "min_p")
    own = [name for name in GUIDING if name in asked]
    if own and key.locked:
        raise Refused(403, f"{own[0]}: the guidance of this key is set by the server", param=own[0])
    try:
        guidance = read_guidance(asked, key.guidance)
    except ConfigError as error:
        raise Refused(400, str(error), param=own[0] if own else None) from error
    if "min_p" in asked and guidance.scale <= 1:
        ignored = (*ignored, "min_p")
    notes = [f"{old} is now called {new}" for old, new in OLD_NAMES.items() if old in asked]
    if wanted > most:
        notes.append(f"this server writes at most {most} tokens; {wanted} were asked for")
    negative: str | tuple[Message, ...] | None = key.negative
    if "negative_messages" in asked:
        negative = read_messages(asked["negative_messages"], "negative_messages")
    elif negative is None and not by_adapter:
        negative = NEGATIVE
    usage = asked.get("stream_options", {})
    if not isinstance(usage, dict):
        raise wrong("stream_options", f"an object, not {kind(usage)}")
    seed = whole(asked, "seed", None, -(2**63), 2**64)
    # Negative messages are the client's whole say: against them stands its own system message, if there is one.
    ours = not guidance.plain and (isinstance(negative, str) or (negative is not None and bare))
    return Terms(
        guidance=guidance,
        instruction=POSITIVE if key.system is None and ours else key.system,
        negative=negative,
        limit=min(wanted, most),
        temperature=number(asked, "temperature", 1.0, 0, 2),
        top_p=number(asked, "top_p", 1.0, 1e-9, 1),
        seed=secrets.token_hex(8) if seed is None else str(seed),
        count=whole(asked, "n", 1, 1, MOST_CHOICES) or 1,
        stops=_stops(asked.get("stop", [])),
        stream=true_or_false(asked, "stream", False),
        stream_usage=true_or_false(usage, "include_usage", False),
        top=top,
        ignored=ignored,
        notes=tuple(notes),
    )


def _stops(stops: Any) -> tuple[str, ...]:
    stops = [stops] if isinstance(stops, str) else stops
    if (
        not isinstance(stops, list)
        or len(stops) > MOST_STOPS
        or not all(isinstance(s, str) and s for s in stops)
    ):
        raise wrong("stop", f"a text or at most {MOST_STOPS} of them, none empty")
    return tuple(stops)


COMMON = (
    *("model", "max_tokens", "temperature", "top_p", "n", "seed", "stop", "stream", "stream_options"),
    *GUIDING,
)
CHAT_FIELDS = (
    *COMMON,
    *("messages", "max_completion_tokens", "tools", "tool_choice", "logprobs", "top_logprobs"),
)
COMPLETION_FIELDS = (*COMMON, "prompt", "echo", "logprobs", "best_of")
# Nothing about the answer depends on these.
SILENT = (
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
    "prompt_cache_retention",
)
# Fields of samplers and newer models that are not followed, and the values of them that need no word.
CHANGES_NOTHING: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "parallel_tool_calls": (True,),
    "top_k": (0, -1),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
}
# Accepted with these values alone: another one would promise what the answer does not keep.
ONLY_AS: dict[str, tuple[tuple[Any, ...], str]] = {
    "response_format": (
        ({"type": "text"},),
        "only text: this server cannot make a model write JSON; ask for it in words and check what comes",
    ),
    "modalities": ((["text"],), "only text"),
    "functions": (([],), "this is the older form; use tools"),
    "function_call": (("auto", "none"), "this is the older form; use tools"),
    "audio": ((), "only text"),
    "suffix": (("",), "this server does not fill in the middle"),
}
# How other servers are told the form of an answer; empty, they ask for none.
SHAPING = (
    *("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"),
    *("json_schema", "grammar", "regex", "ebnf"),
)
UNSHAPED = (
    "this server cannot hold an answer to a schema or a pattern; ask for it in words and check what comes"
)
ONLY_AS |= dict.fromkeys(SHAPING, (("", {}, []), UNSHAPED))
