"""A form of personal data: what it looks like, what is checked about it, how sure a finding is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple


class Place(NamedTuple):
    """A match of a pattern: `value` stands at text[start:start + len(value)]; `text` is the folded copy."""

    text: str
    start: int
    value: str
    match: re.Match[str]

    def around(self, before: int = 40, after: int = 14) -> str:
        """The text on both sides, the value itself left out."""
        end = self.start + len(self.value)
        return f"{self.text[max(0, self.start - before) : self.start]} {self.text[end : end + after]}"


# What of a place's value holds, from its start; "" where nothing does.
Check = Callable[[Place], str]


class Pattern(NamedTuple):
    """One form of personal data. The group `value`, where there is one, is the span, else the whole match."""

    kind: str
    regex: re.Pattern[str]
    check: Check
    how: str  # a word of CERTAINTY
    needs: (
        str  # what the text must hold for it to be looked for: a character, or a word of `patterns._present`
    )
    blanked: bool  # whether it reads the copy with other scripts blanked


def whole(p: Place) -> str:
    """Every value holds."""
    return p.value


def only_if(holds: Callable[[Place], bool]) -> Check:
    """All of the value or nothing."""
    return lambda p: p.value if holds(p) else ""


def pattern(
    kind: str,
    regex: str,
    check: Check = whole,
    how: str = "pattern",
    *,
    needs: str = "0",
    blanked: bool = True,
) -> Pattern:
    """A pattern whose form is compiled."""
    return Pattern(kind, re.compile(regex), check, how, needs, blanked)


def blanked(text: str) -> str:
    """The text, as long as it is, with the letters of scripts without spaces or capitals blanked."""
    return text if text.isascii() else OTHER_SCRIPTS.sub(BLANK, text)


BLANK = "\ufffc"  # no letter and no white space
# Scripts written without spaces, or whose endings and little words are written on to what they go with.
OTHER_SCRIPTS = re.compile(
    "[\u0590-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]"
)
