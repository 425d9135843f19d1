"""Text and numbers as pages and plots print them: hidden characters spelled out, values in words."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from forgetfilter.display import HIDDEN, spelled_out

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup


def marked(text: str) -> Markup:
    """`text` escaped, spelled-out characters in a `<span class="code">`, so that no text passes for one."""
    from markupsafe import Markup, escape

    text = text.replace("\r\n", "\n")
    parts, end = [], 0
    for found in HIDDEN.finditer(text):
        parts.append(f'{escape(text[end : found.start()])}<span class="code">{spelled_out(found[0])}</span>')
        end = found.end()
    return Markup("".join(parts) + str(escape(text[end:])))


def script_json(value: Any) -> Markup:
    """Compact JSON that may stand in a script element: ASCII only, no character that ends or opens markup."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def policy_hash(text: str) -> str:
    """The source expression by which a content security policy allows exactly this inline script or style."""
    digest = hashlib.sha256(str(text).encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def spoken(value: Any) -> str:
    """A value of report.json as one would write it: `1,204`, `0.0834`, `0.33 (0.29 to 0.37)`, `not known`."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
        return text.replace("e-", "e~").replace("-", "−").replace("e~", "e-")
    if isinstance(value, Mapping):
        if "value" in value:
            low, high = value.get("low"), value.get("high")
            between = "" if None in (value["value"], low, high) else f" ({spoken(low)} to {spoken(high)})"
            return spoken(value["value"]) + between
        return ", ".join(f"{key} {spoken(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(spoken(item) for item in value)
    return str(value)


def p_in_words(p: float, compared: str) -> str:
    """`2 of 119 witnesses stand out as far`; a share where the count cannot be told.

    A conformal p-value of n rows is (1 + how many of them score as high) / (1 + n). `compared` names the rows with
    their number; of several groups, p is the largest of theirs, and the group whose count fits is named.
    """
    for count, name in COUNTS.findall(compared):
        times = p * (int(count) + 1) - 1
        if abs(times - round(times)) < 0.01 and times > -0.01:
            return f"{max(0, round(times)):,} of {int(count):,} {name} stand out as far"
    return f"{100 * p:.1f} % of {compared or 'clean rows'} stand out as far"


def in_rows(count: int) -> str:
    """`1 row`, `1,204 rows`."""
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def duration(seconds: Any) -> str:
    """`4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    known = finite(seconds)
    if known is None:
        return "not known"
    if known < 60:
        return f"{known:.1f} s"
    whole = round(known)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def share(part: int, whole: int) -> str:
    """`12.3 %`; a part that is there never reads as 0.0 %, one that is not all never as 100.0 %."""
    if not part:
        return "0 %"
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "< 0.1 %"
    if 99.95 <= percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %"


def title(name: str) -> str:
    """`unsafe_share` as a heading: `Unsafe share`."""
    text = str(name).replace("_", " ")
    return NAMES.get(str(name), text[:1].upper() + text[1:])


def finite(value: Any) -> float | None:
    """`value` as a float; None where it is none, or not finite."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


COUNTS = re.compile(r"(\d+) (\D+?)(?= and \d|$)")
NAMES = {"auc": "AUC", "f1": "F1"}


FILTERS: dict[str, Callable[..., Any]] = {
    "duration": duration,
    "in_rows": in_rows,
    "marked": marked,
    "policy_hash": policy_hash,
    "script_json": script_json,
    "share": share,
    "spoken": spoken,
    "title": title,
}


@cache
def page_template(name: str, **filters: Callable[..., Any]) -> Template:
    """A page of this folder; what is put into it is escaped and its invisible characters are spelled out."""
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: spelled_out(value) if type(value) is str else value,
    )
    environment.filters |= FILTERS | filters
    folder = files("forgetfilter.report")
    theme = Markup(folder.joinpath("theme.js").read_text("utf-8"))
    return environment.from_string(folder.joinpath(name).read_text("utf-8"), globals={"theme": theme})
