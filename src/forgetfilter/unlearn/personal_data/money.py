"""Numbers of payment cards and accounts, each with a check digit, in the groups that people write them in."""

from __future__ import annotations

import re
from functools import lru_cache

from forgetfilter.unlearn.personal_data.forms import Pattern, Place, pattern


def money() -> tuple[Pattern, ...]:
    """Payment cards (ISO/IEC 7812-1) and accounts (IBAN, ISO 13616)."""
    return (
        pattern("CARD", rf"{_LEFT}[2-6]\d{{3}}(?:[ -]?\d){{9,15}}(?!\w|[.-]\d)", _card, "checksum"),
        pattern(  # in its usual groups, the date it expires or its check number behind it
            "CARD",
            rf"{_LEFT}(?:[2-6]\d{{3}}({_GAP})\d{{4}}(?:\1|\n)\d{{4}}(?:\1|\n)\d{{4}}|3[47]\d\d({_GAP})\d{{6}}\2\d{{5}})"
            r"(?!\w|[ -]?\d{4})",
            _card,
            "checksum",
        ),
        pattern(
            "IBAN",
            rf"(?ai)(?:(?<![A-Z0-9])|(?<=IBAN))(?=(?P<value>[A-Z]{{2}}{_GAP}?\d\d(?:{_GAP}?[A-Z0-9]){{11,30}}))",
            _account,
            "checksum",
        ),
    )


_LEFT = r"(?:(?<!\w)|(?<=(?i:visa|card|amex)))(?<!\d[.-])"
_GAP = r"(?:\s{1,3}| ?[-./_] ?)"  # between groups: white space, a line's end too, or one mark


def _card(p: Place) -> str:
    """13 to 19 digits, not all alike and no four years, whose check digit holds."""
    from stdnum import luhn

    groups = re.findall(r"\d+", p.value)
    digits = "".join(groups)
    years = len(groups) == 4 and all(re.fullmatch(r"(?:19|20)\d\d", group) for group in groups)
    holds = 13 <= len(digits) <= 19 and len(set(digits)) > 1 and not years and luhn.is_valid(digits)
    return p.value if holds else ""


def _account(p: Place) -> str:
    """The beginning of the value that is an IBAN of its country's length and form."""
    from stdnum import iban

    length = _iban_length(p.value[:2].upper())
    places = [i for i, c in enumerate(p.value) if c.isalnum()]
    if not length or len(places) < length:
        return ""
    end = places[length - 1] + 1
    follows = p.text[p.start + end : p.start + end + 1]
    if follows.isascii() and follows.isalnum():
        return ""
    number = "".join(p.value[i] for i in places[:length])
    return p.value[:end] if iban.is_valid(number, check_country=False) else ""


@lru_cache(maxsize=1024)
def _iban_length(country: str) -> int:
    """Letters and digits of the country's IBAN, 0 where it has none."""
    from stdnum import numdb

    _, found = numdb.get("iban").info(country)[0]
    return 4 + sum(int(n) for n in re.findall(r"\d+", found["bban"])) if "bban" in found else 0
