"""Settings and values of 0.1 that are gone: what does the same today, or what to use instead.

One row each in OLD: the setting, the values meant, the settings that do the same now (none: it is passed over), and a
sentence for the user, who is told in either case. A recipe of 0.1 runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Old(NamedTuple):
    """One setting of 0.1 that is gone, with the values meant."""

    name: str
    meant: Callable[[Any], bool]
    now: Mapping[str, Any]  # what does the same; empty: the setting is passed over
    words: str


def today(where: str, name: str, value: Any, say: Callable[[str], None] | None) -> Mapping[str, Any] | None:
    """The settings that do today what `name: value` did in 0.1, said aloud; None where it is not of OLD.

    `where` names file and line, or the flag.
    """
    old = next((old for old in OLD if old.name == name and old.meant(value)), None)
    if old is None:
        return None
    if say:
        say(f"note: {where}: {_shown(value)} is gone since 0.2; {old.words}")
    return old.now


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is(wanted: Any) -> Callable[[Any], bool]:
    return lambda value: value == wanted


def _any(value: Any) -> bool:
    return True


# Settings with no field of FilterSettings left, and the type that their flags take.
GONE: Mapping[str, type] = {
    "contrast": bool,
    "smooth": bool,
    "second_look": bool,
    "rehearse": float,
    "review_average": float,
}
OLD: tuple[Old, ...] = (
    Old("threshold", _is("auto"), {"threshold": "fdr"},
        "fdr takes its place: it bounds the share of clean rows among the dropped (--fdr)"),
    Old("signal", _is("weighted_likelihood"), {"signal": "likelihood"}, "likelihood takes its place"),
    Old("contrast", _is(False), {}, "leave it out"),
    Old("contrast", _any, {},
        "leave it out: witnesses and rows of other kinds show what ordinary rows lose, in every run"),
    Old("smooth", _is(False), {}, "passed over: algorithm paper scores each row by its own forgetting alone"),
    Old("smooth", _any, {}, "leave it out: rows with similar answers always count with the default algorithm"),
    Old("second_look", _any, {}, "leave it out: there is one review, and half of its rows are replayed custom rows"),
    Old("rehearse", _is(0), {}, "passed over: algorithm paper reviews safe rows alone"),
    Old("rehearse", _any, {}, "leave it out: half of each review is replayed custom rows"),
    Old("review_average", _any, {}, "passed over: the weights of the review's last step are used"),
)  # fmt: skip
DEFENCES: Mapping[str, str] = {
    "forgetfilter_contrast": "use forgetfilter: its witnesses show what ordinary rows lose",
}
