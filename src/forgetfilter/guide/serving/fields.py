"""Values of a request, checked: each of a kind and a range, or refused with the field's name in OpenAI's form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from forgetfilter.errors import ConfigError
from forgetfilter.records import whole_characters


class Refused(Exception):
    """A request that is answered with an error, in OpenAI's form. `retry_after`: seconds until a next try."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        message, param = whole_characters(message[:500]), param and whole_characters(param[:100])
        super().__init__(message)
        self.status, self.retry_after = status, retry_after
        kinds = {429: "rate_limit_error", 401: "authentication_error", 403: "permission_error"}
        kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def wrong(place: str, wanted: str, *, code: str | None = None) -> Refused:
    """A field or a part of one, `place`, that is not what is `wanted`."""
    return Refused(400, f"{place} must be {wanted}", param=place, code=code)


def number(given: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(name, f"a number, not {kind(value)}")
    try:
        value = float(value)
    except OverflowError:
        value = math.inf
    if value < low or value > high or (math.isfinite(low) and math.isnan(value)):
        raise wrong(name, f"between {low:g} and {high:g}, not {value:g}")
    return value


def whole(
    given: Mapping[str, Any], name: str, default: int | None, low: int, high: int | None = None
) -> int | None:
    value = given.get(name, default)
    if isinstance(value, float) and value.is_integer():  # to JSON, 4.0 and 4 are one number
        value = int(value)
    if value is not default and (isinstance(value, bool) or not isinstance(value, int)):
        raise wrong(name, f"a whole number, not {f'{value:g}' if isinstance(value, float) else kind(value)}")
    if value is not None and (value < low or (high is not None and value > high)):
        raise wrong(name, f"at least {low}" if high is None else f"between {low} and {high}")
    return value


def true_or_false(given: Mapping[str, Any], name: str, default: bool) -> bool:
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise wrong(name, f"true or false, not {kind(value)}")
    return value


def text(given: Mapping[str, Any], name: str, default: Any) -> Any:
    value = given.get(name, default)
    if value is not default and not isinstance(value, str):
        raise ConfigError(f"{name} must be a text, not {kind(value)}")
    return value


def kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
