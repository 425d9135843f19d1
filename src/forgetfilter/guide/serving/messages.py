"""The messages and tools of a request: read from what OpenAI's clients send, tool calls and null contents too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from forgetfilter.guide.serving.fields import Refused, kind, wrong
from forgetfilter.guide.tools import Call, Turn

ROLES = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
    "function": "tool",  # the older name
}  # fmt: skip
MOST_TOOLS = 128
TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
JSON_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
DEEPEST = 32  # levels of a tool's schema


def read_messages(value: Any, where: str) -> tuple[Turn, ...]:
    """Turns of a conversation; Refused names the place of what is wrong. An assistant's content may be null."""
    if not isinstance(value, list) or not value:
        raise wrong(where, "a list of at least one message")
    return tuple(_message(message, f"{where}[{i}]") for i, message in enumerate(value))


def _message(message: Any, place: str) -> Turn:
    if not isinstance(message, dict):
        raise wrong(place, f"an object, not {kind(message)}")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise wrong(f"{place}.role", f"one of {', '.join(ROLES)}")
    if isinstance(content, list) and all(
        isinstance(part, dict)
        and part.get("type") in ("text", "refusal")
        and isinstance(part.get(part["type"]), str)
        for part in content
    ):
        content = "".join(part[part["type"]] for part in content)
    if content is None and role == "assistant":
        content = message.get("refusal") or ""
    if not isinstance(content, str):
        raise wrong(f"{place}.content", "a text or a list of texts")
    calls = _calls(message, place) if role == "assistant" else ()
    return Turn(ROLES[role], content).using(calls, _text(message, "name"), _text(message, "tool_call_id"))


def _text(given: Mapping[str, Any], name: str) -> str | None:
    return value if isinstance(value := given.get(name), str) else None


def _calls(message: Mapping[str, Any], place: str) -> tuple[Call, ...]:
    listed, place = message.get("tool_calls"), f"{place}.tool_calls"
    if listed is None and (older := message.get("function_call")) is not None:
        listed = [{"function": older}]
    if listed is None:
        return ()
    if not isinstance(listed, list):
        raise wrong(place, f"a list, not {kind(listed)}")
    calls = []
    for i, call in enumerate(listed):
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str):
            raise Refused(400, f"{place}[{i}] must hold a function with a name", param=f"{place}[{i}]")
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):  # JSON in a text; what is none stays the text it is
            with suppress(ValueError, RecursionError):
                arguments = json.loads(arguments or "{}")
        calls.append(Call(name, arguments, _text(call, "id")))
    return tuple(calls)


def read_tools(asked: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The tools that may be called: none where tool_choice is none. Refused where they are none, or must be called."""
    tools, choice = asked.get("tools", []), asked.get("tool_choice", "auto")
    if not isinstance(tools, list) or len(tools) > MOST_TOOLS:
        raise wrong("tools", f"a list of at most {MOST_TOOLS} tools")
    for i, tool in enumerate(tools):
        _check_tool(tool, f"tools[{i}]")
    if choice not in ("auto", "none"):
        never = "auto or none: this server does not make a model call a tool"
        raise wrong("tool_choice", never, code="unsupported_value")
    return () if choice == "none" else tuple(tools)


def _check_tool(tool: Any, place: str) -> None:
    if not isinstance(tool, dict):
        raise wrong(place, f"an object, not {kind(tool)}")
    if tool.get("type", "function") != "function":
        raise wrong(f"{place}.type", "function")
    function = tool.get("function")
    if not isinstance(function, dict):
        raise wrong(f"{place}.function", "an object with a name")
    name, description = function.get("name"), function.get("description")
    if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
        raise wrong(f"{place}.function.name", "1 to 64 letters, digits, dots, dashes or _")
    if description is not None and not isinstance(description, str):
        raise wrong(f"{place}.function.description", f"a text, not {kind(description)}")
    if function.get("parameters") is not None:
        _check_schema(function["parameters"], f"{place}.function.parameters")


def _check_schema(schema: Any, place: str, depth: int = 0) -> None:
    """The parts of JSON Schema that tools use must have the form it gives them; keywords beyond are let through."""

    def refuse(where: str, what: str) -> Refused:
        return Refused(400, f"not a JSON schema: {where} must be {what}", param=where, code="invalid_schema")

    if depth > DEEPEST:
        raise refuse(place, f"at most {DEEPEST} levels deep")
    if isinstance(schema, bool) and depth:
        return
    if not isinstance(schema, dict):
        raise refuse(place, f"an object, not {kind(schema)}")
    types = schema.get("type", [])
    if not all(t in JSON_TYPES for t in (types if isinstance(types, list) else [types])):
        raise refuse(f"{place}.type", f"one of {', '.join(JSON_TYPES)}")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise refuse(f"{place}.required", "a list of names")
    if not isinstance(schema.get("enum", []), list):
        raise refuse(f"{place}.enum", "a list")
    for word in ("properties", "$defs", "definitions"):
        inner = schema.get(word, {})
        if not isinstance(inner, dict):
            raise refuse(f"{place}.{word}", f"an object of schemas, not {kind(inner)}")
        for name, one in inner.items():
            _check_schema(one, f"{place}.{word}.{name}", depth + 1)
    for word in ("items", "additionalProperties", "not"):
        if word in schema and not isinstance(schema[word], list):
            _check_schema(schema[word], f"{place}.{word}", depth + 1)
    for word in ("anyOf", "oneOf", "allOf"):
        several = schema.get(word, [])
        if not isinstance(several, list):
            raise refuse(f"{place}.{word}", f"a list of schemas, not {kind(several)}")
        for i, one in enumerate(several):
            _check_schema(one, f"{place}.{word}[{i}]", depth + 1)
