"""What has a form of its own: addresses of the web and the post, numbers, days.

The table holds kind, form, check and how sure. A form reads a folded copy in which letters of scripts without
capitals are blanked: 电话13800138000请 and 010-1234-5678로 begin and end where their digits do. Repeats are bounded,
and none begins within a run of its own characters: no text makes a search slow.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cache

from forgetfilter.errors import ConfigError, unknown
from forgetfilter.unlearn.personal_data import identities, online, phones
from forgetfilter.unlearn.personal_data.dates import dates
from forgetfilter.unlearn.personal_data.folding import on_the_copy
from forgetfilter.unlearn.personal_data.forms import Pattern, Place, blanked
from forgetfilter.unlearn.personal_data.money import money
from forgetfilter.unlearn.personal_data.places import places
from forgetfilter.unlearn.personal_data.spans import Detector, Span

PATTERN_KINDS = (
    "EMAIL", "URL", "CARD", "IBAN", "IP", "NATIONAL_ID", "DOCUMENT", "DATE", "PHONE", "ADDRESS",
)  # fmt: skip


def patterns(kinds: Collection[str] | None = None) -> Detector:
    """A detector of what has a form of its own: the kinds of PATTERN_KINDS, or only those given.

    ConfigError for a kind that there is not. The time is linear in the text's length, whatever stands there.
    Warns where a package is missing that phone numbers are checked with.
    """
    for kind in kinds or ():
        if kind not in PATTERN_KINDS:
            raise ConfigError(unknown("kind of pattern", kind, PATTERN_KINDS))
    if kinds is None or "PHONE" in kinds:
        phones.say_what_is_missing()
    return on_the_copy(_reader([p for p in table() if kinds is None or p.kind in kinds]))


@cache
def table() -> tuple[Pattern, ...]:
    """All patterns."""
    return (*online.online(), *money(), *identities.identities(), *dates(), *phones.phones(), *places())


def _reader(chosen: Sequence[Pattern]) -> Detector:
    needs = {pattern.needs for pattern in chosen}

    def find(text: str) -> list[Span]:
        blank = blanked(text)
        present = _present(text, needs)
        found = []
        for pattern in chosen:
            if not present[pattern.needs]:
                continue
            for match in pattern.regex.finditer(blank if pattern.blanked else text):
                start, end = match.span("value" if "value" in pattern.regex.groupindex else 0)
                value = pattern.check(Place(text, start, text[start:end], match))
                if value:
                    found.append(Span(start, start + len(value), pattern.kind, value, pattern.how))
        return found

    return find


def _present(text: str, needs: Collection[str]) -> dict[str, bool]:
    """Whether each of these stands in the text: a character as it is, "0" for any digit, "phone" for a digit and a word
    for a phone, "東" for a digit in a text that is not ASCII alone, "@%40", "(at)", "dot" and "at" for an e-mail
    address that may be spelled out."""
    present = {needed: needed in text for needed in needs}
    present["0"] = digit = _DIGIT.search(text) is not None
    present["phone"] = digit and phones.CUE.search(text) is not None
    present["東"] = digit and not text.isascii()
    present["@%40"] = "@" in text or "%40" in text
    present["(at)"] = online.AT_IN_BRACKETS.search(text) is not None
    present["dot"] = online.POINTS.search(text) is not None
    present["at"] = online.AT_AFTER_A_CUE.search(text) is not None
    return present


_DIGIT = re.compile(r"[0-9]")
