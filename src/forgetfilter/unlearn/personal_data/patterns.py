"""What has a form of its own: addresses of the web and the post, numbers, days.

The table holds kind, form, check and how sure. A form reads a folded copy in which letters of scripts without
capitals are blanked: 电话13800138000请 and 010-1234-5678로 begin and end where their digits do. Repeats are bounded,
and none begins within a run of its own characters: no text makes a search slow.
"""

from __future__ import annotations

import calendar
import ipaddress
import re
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import NamedTuple

from forgetfilter.errors import ConfigError, unknown
from forgetfilter.unlearn.personal_data import numbers
from forgetfilter.unlearn.personal_data.folding import on_the_copy
from forgetfilter.unlearn.personal_data.numbers import Check, Place
from forgetfilter.unlearn.personal_data.spans import Detector, Span


class Pattern(NamedTuple):
    """One form of personal data. The group `value`, where there is one, is the span, else the whole match."""

    kind: str
    regex: re.Pattern[str]
    check: Check
    how: str  # a word of CERTAINTY
    needs: str  # what the text must hold for it to be looked for: a character, or a word of `_present`
    blanked: bool  # whether it reads the copy with other scripts blanked


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
        numbers.say_what_is_missing()
    return on_the_copy(_reader([p for p in table() if kinds is None or p.kind in kinds]))


@cache
def table() -> tuple[Pattern, ...]:
    """All patterns."""
    return (*_web(), *_money(), *_identities(), *_dates(), *_phones(), *_streets(), *_post())


def _reader(chosen: Sequence[Pattern]) -> Detector:
    needs = {pattern.needs for pattern in chosen}

    def find(text: str) -> list[Span]:
        blank = text if text.isascii() else _OTHER_SCRIPTS.sub(_BLANK, text)
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
    """Whether each of these stands in the text: a character as it is, "0" for any digit, "cue" and "phone" for a digit
    and a word for an identity number or a phone, "東" for a digit in a text that is not ASCII alone."""
    present = {needed: needed in text for needed in needs}
    present["0"] = digit = _DIGIT.search(text) is not None
    lowered = text.lower() if digit else ""
    present["cue"] = any(word in lowered for word in numbers.cue_words())
    present["phone"] = digit and numbers.PHONE_CUE.search(text) is not None
    present["東"] = digit and not text.isascii()
    return present


_DIGIT = re.compile(r"[0-9]")
_BLANK = "\ufffc"  # no letter and no white space
# Scripts written without spaces, or whose endings and little words are written on to what they go with.
_OTHER_SCRIPTS = re.compile(
    "[\u0590-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def _whole(p: Place) -> str:
    return p.value


def _if(holds: Callable[[Place], bool]) -> Check:
    return lambda p: p.value if holds(p) else ""


def _pattern(
    kind: str,
    regex: str,
    check: Check = _whole,
    how: str = "pattern",
    *,
    needs: str = "0",
    blanked: bool = True,
) -> Pattern:
    return Pattern(kind, re.compile(regex), check, how, needs, blanked)


# --- the web ---


def _web() -> tuple[Pattern, ...]:
    return (
        _pattern(
            "EMAIL",
            r"(?<![\w.+%'-])[\w.+%'-]{1,64}@(?:[\w-]{1,63}\.){1,6}[^\W\d_]{2,24}(?!\w|-[\w-]{0,62}\.\w)",
            needs="@",
        ),
        _pattern(
            "URL",
            rf"(?i)(?<![\w@.])(?:https?://|www\.)[^\s<>\"'“”)\]}}{_BLANK}]{{3,400}}(?<![.,;:!?])",
            needs="",
        ),
        _pattern(
            "URL",  # a user's page, without https://
            r"(?i)(?<![\w@./-])(?:(?:github|linkedin|facebook|instagram|twitter|tiktok|reddit|x)\.com|t\.me)"
            r"/(?:in/|u/|user/|@)?[\w.-]{2,60}(?<![.])",
            needs="/",
        ),
        _pattern("IP", r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?!\d|\.\d)", _if(_ip)),
        _pattern(
            "IP", r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])", _if(_ip), needs=":"
        ),
    )


def _ip(p: Place) -> bool:
    try:
        address = ipaddress.ip_address(p.value)
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified:
        return False
    if address.version == 6:
        return any(c.isdigit() for c in p.value) and len(p.value) > 6
    seen = p.match.string  # with other scripts blanked: they may touch an address
    before, after = seen[max(0, p.start - 12) : p.start], seen[p.start + len(p.value) :][:8]
    if re.search(
        r"(?i)(?:\b(?:version|release|ver|v|firmware|build|software|kernel)|版本|バージョン)\W{0,3}\Z",
        p.text[: p.start][-12:],
    ):
        return False
    # A word may touch it too (Straße192.0.2.9), a letter or an abbreviation may not: names of versions have them.
    left, right = re.search(r"\w*\Z", before), re.match(r"\w*", after)
    assert left and right
    return (len(left[0]) in (0, *range(4, 13)) or left[0].upper() == "IP") and (
        not right[0] or (len(right[0]) > 1 and not re.match(r"(?i)_|rc|alpha|beta|dev|post", right[0]))
    )


# --- cards, accounts, identity ---


def _money() -> tuple[Pattern, ...]:
    return (
        _pattern(
            "CARD", r"(?<!\w)(?<!\d[.-])[2-6]\d{3}(?:[ -]?\d){9,15}(?!\w|[.-]\d)", numbers.card, "checksum"
        ),
        _pattern(  # in its usual groups, the date it expires or its check number behind it
            "CARD",
            r"(?<!\w)(?<!\d[.-])(?:[2-6]\d{3}([ -])\d{4}\1\d{4}\1\d{4}|3[47]\d\d([ -])\d{6}\2\d{5})"
            r"(?!\w|[ -]?\d{4})",
            numbers.card,
            "checksum",
        ),
        _pattern(
            "IBAN",
            r"(?ai)(?:(?<![A-Z0-9])|(?<=IBAN))(?=(?P<value>[A-Z]{2}\d\d(?:[ -]?[A-Z0-9]){11,30}))",
            numbers.account,
            "checksum",
        ),
    )


def _identities() -> tuple[Pattern, ...]:
    """Every national number in two patterns, the forms that speak for themselves and those that want a cue: one
    pass each, whatever the number of countries."""
    sure = [(f"n{i}", form) for i, form in enumerate(numbers.IDENTITIES) if not form.cue]
    forms = "|".join(f"(?P<{name}>{form.form})" for name, form in sure)
    cues = "|".join(rf"(?P<n{i}>{_words(form.cue)})" for i, form in enumerate(numbers.IDENTITIES) if form.cue)
    return (
        _pattern(
            "NATIONAL_ID", rf"(?ai)(?<!\w)(?<!\d[.-])(?:{forms})(?!\w|[.-]\d)", numbers.identity, "checksum"
        ),
        _pattern(
            "NATIONAL_ID",
            rf"(?i)(?:{cues})[^\d\n]{{0,40}}?(?<![A-Za-z0-9-])(?P<value>[A-Z]{{0,5}}\d(?:[ -]?[A-Z0-9]){{6,14}})",
            numbers.identity,
            "checksum",
            needs="cue",
            blanked=False,
        ),
        _pattern(
            "DOCUMENT",
            r"(?i)\b(?:driver|driving|passport|identity|national id|licen[cs]e plate)(?:'?s)?"
            r"(?: (?:licen[cs]e|card|id))?(?: (?:number|no\.?))?(?: is)?[:#]? {0,3}"
            r"(?P<value>[A-Z0-9-]{6,20})(?!\w)",
            _if(lambda p: any(c.isdigit() for c in p.value)),
        ),
    )


def _words(cue: str) -> str:
    """The cue as a regex; short words count alone only (sin, but not since), where there are spaces between words."""
    return "|".join(
        word if len(word) > 4 or _OTHER_SCRIPTS.match(word) else rf"\b{word}\b" for word in cue.split("|")
    )


# --- days ---


def _dates() -> tuple[Pattern, ...]:
    return (
        _pattern(
            "DATE",
            r"(?<![\w/.-])(\d{1,4})([/.-])(\d{1,2})\2(\d{2,4})(?:[T ,]{1,2}\d\d:\d\d(?::\d\d)?)?(?![\w/-]|\.\d)",
            _if(_date),
        ),
        _pattern(
            "DATE",
            rf"(?i)(?<!\w)(?:\d{{1,2}}(?:st|nd|rd|th|er|º|°|\.)?(?: of| de)? {_MONTHS}\.?,?(?: del?)? \d{{4}}|"
            rf"{_MONTHS}\.? \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}})(?!\w)",
        ),
        _pattern(
            "DATE",
            r"(?<!\d)(\d{4}) ?[年년] ?(\d{1,2}) ?[月월] ?(\d{1,2}) ?[日일]",
            _if(lambda p: _is_day(*(int(n) for n in p.match.groups()))),
            needs="東",
            blanked=False,
        ),
    )


def _date(p: Place) -> bool:
    """A day that the calendar has, year first or last, month before or after the day."""
    first, separator, second, third = p.match.groups()
    a, b, c = int(first), int(second), int(third)
    if len(first) > 2:
        return len(first) == 4 and len(third) == 2 and _is_day(a, b, c)
    if len(third) == 3 or (len(third) == 2 and separator == "."):  # 3.10.12 is a version
        return False
    year = c if len(third) == 4 else 2000 + c
    return _is_day(year, a, b) or _is_day(year, b, a)


def _is_day(year: int, month: int, day: int) -> bool:
    return 1000 <= year < 2200 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]


_MONTHS = (  # English, German, French, Spanish
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?|januar|jänner|februar|märz|mai|juni|juli|oktober|dezember|"
    r"janvier|février|mars|avril|juin|juillet|août|septembre|octobre|novembre|décembre|"
    r"enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre)"
)


# --- phone numbers ---


def _phones() -> tuple[Pattern, ...]:
    extension = r"(?:[ ,]{0,2}(?:x|ext\.? ?)\d{1,6})?"
    left = r"(?<![\w+])(?<!\d[.,/-])"
    return (
        _pattern(
            "PHONE",
            rf"{left}(?:\+|00)[1-9](?:[ ./()-]{{0,3}}\d){{6,14}}{extension}(?!\w|-\d|\.\d)",
            numbers.international,
        ),
        _pattern(
            "PHONE",
            rf"{left}(?:\(\d{{1,5}}\)[ -]?|\d{{2,6}}[ .-]|0\d{{1,5}} ?/ ?)\d{{2,9}}(?:[ .-]\d{{2,7}}){{0,4}}{extension}"
            r"(?![\w/]|-\d|\.\d| ?[%°€$£])",
            numbers.national,
        ),
        _pattern("PHONE", rf"{left}\d{{7,12}}(?!\w|-\d|\.\d)", numbers.said_to_be_a_phone, needs="phone"),
        _pattern(
            "PHONE",
            rf"{left}\(?\d{{1,6}}\)?(?:[ -]\d{{1,9}}){{1,5}}(?!\w|[.-]\d| ?[%°€$£])",
            numbers.in_the_groups_of_a_country,
            needs="phone",
        ),
    )


# --- streets and post ---


def _streets() -> tuple[Pattern, ...]:
    return (
        _pattern(
            "ADDRESS",
            rf"(?<![\w/.-])\d{{1,5}}[A-Za-z]?,? (?:\d{{1,5}} )?(?:{_WORD} ){{1,4}}"
            rf"(?i:(?:{_SHORT_STREETS})\.|(?:{STREETS})(?!\w))"
            rf"(?:[,\s]{{1,3}}{_UNIT})?(?:[,\s]{{1,3}}{_WORD}(?: {_WORD}){{0,2}},? (?:{_STATES}) \d{{5}}(?!\w))?",
            _if(lambda p: _no_little_word(p.value)),
        ),
        _pattern(
            "ADDRESS",
            rf"(?<![\w/.-])(?:\d{{1,5}},? (?:\d{{1,5}} |(?:bis|ter|quater),? )?)?(?i:{_STREETS_BEFORE})(?!\w)\.?"
            rf"(?: {_WORD}){{1,5}}(?:,? \d{{1,5}}[A-Za-z]?(?!\w))?",
            _street_first,
        ),
        _pattern(
            "ADDRESS",
            rf"(?<![\w-])(?:\d{{1,4}} )?(?:[^\W\d_a-z][\w'.-]{{0,24}}+ )?[^\W\d_a-z][\w-]{{1,24}}[- ]?"
            rf"(?i:{_STREET_ENDINGS})\.? \d{{1,4}}[A-Za-z]?(?!\w)",
        ),
        _pattern(
            "ADDRESS",  # Am Alten Markt 7
            rf"(?<![\w-])(?:Am|An der|An den|Auf de[mr]|Im|In der|Zum|Zur|Unter den|Hinter de[mr]) "
            rf"(?:[^\W\d_a-z][\w-]{{2,24}}+ )?(?:{_GERMAN_PLACES}) \d{{1,3}}[A-Za-z]?(?!\w|[.:,]\d)",
        ),
        _pattern(
            "ADDRESS",  # prefecture, or post code and prefecture, to the last number
            r"(?:〒? ?\d{3}-\d{4} {0,2})?(?:東京都|北海道|(?:京都|大阪)府|[\u4e00-\u9fff]{2,3}県)"
            r"[\u4e00-\u9fff\u3041-\u30ff々0-9-]{1,30}\d(?:丁目|番地?|号)?",
            needs="東",
            blanked=False,
        ),
        _pattern("ADDRESS", r"〒 ?\d{3}-\d{4}(?!\d)", needs="東", blanked=False),
    )


def _no_little_word(value: str) -> bool:
    """No little words between number and street: "12 people on the street" is no address."""
    words = re.findall(r"[^\W\d_]+", value)
    return not any(word.lower() in _LITTLE and word.islower() for word in words)


def _street_first(p: Place) -> str:
    """Via Roma 12, rue in 5 rue Foch 75002, 14 rue des Lilas: a number, and a capital or numbers on both sides."""
    found = re.findall(r"\d+", p.value)
    first = re.search(r"[^\W\d_]", p.value)
    capital = first is not None and first[0].isupper()
    if found and _no_little_word(p.value) and (capital or len(found) > 1):
        return p.value
    french = re.match(rf"\d+,? (?:(?:bis|ter|quater),? )?(?i:{_FRENCH_STREETS})\b", p.value)
    if french is None:
        return ""
    # Its name goes to the last capital: 14 rue des Lilas et puis …
    last = re.match(
        r"(?:(?: (?:de|des|du|la|le|les|aux?|et|sur))* (?:[dl]')?[^\W\d_a-zà-ÿ][\w'.-]*)+",
        p.value[french.end() :],
    )
    return (p.value[: french.end()] + last[0]).rstrip(".") if last else ""


def _post() -> tuple[Pattern, ...]:
    return (
        _pattern("ADDRESS", r"(?<!\w)(?:(?i:P\. ?O\. ?Box|PO Box|Postfach)|PSC \d{1,5},? Box) \d{1,6}(?!\w)"),
        _pattern("ADDRESS", r"(?<!\w)[AFD]PO A[AEP],? \d{5}(?:-\d{4})?(?!\w)"),
        _pattern("ADDRESS", rf"(?<!\w){_UNIT}"),
        _pattern("ADDRESS", rf"(?<!\w)(?:{_STATES}),? \d{{5}}(?:-\d{{4}})?(?![\w-])"),
        _pattern(
            "ADDRESS", r"(?<!\w)(?:[A-Z]{1,2}\d[A-Z\d]? \d[ABD-HJLNP-UW-Z]{2}|[A-Z]\d[A-Z] \d[A-Z]\d)(?!\w)"
        ),
        _pattern(
            "ADDRESS", r"(?i)\b(?:zip|postal|post) ?codes?[^\d\n]{0,12}(?P<value>\d{4,6}(?:-\d{4})?)(?![\w-])"
        ),
    )


_LITTLE = frozenset(
    re.findall(
        r"\w+",
        "a an the and or of in on at to down up by from for with into across along is are was were my his her their "
        "our that this there it i you we they he she people",
    )
)
_STATES = (
    "AL|AK|AZ|AR|CA|CO|CT|DE|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|OH|OK|OR|"
    "PA|RI|SC|SD|TN|TX|UT|VT|VA|WA|WV|WI|WY|DC|PR"
)
STREETS = (
    "Street|St|Avenue|Ave|Road|Rd|Drive|Dr|Lane|Ln|Court|Ct|Boulevard|Blvd|Way|Place|Pl|Square|Sq|Terrace|Parkway|Pkwy|"
    "Circle|Crescent|Close|Highway|Hwy|Trail|Alley|Mews|Plaza|Row|Loop|Pike"
)
_SHORT_STREETS = "St|Ave|Rd|Dr|Ln|Ct|Blvd|Pl|Sq|Pkwy|Hwy"
_FRENCH_STREETS = "rue|avenue|boulevard|bd|chemin|allée|quai|place|impasse|route|cours"
_STREETS_BEFORE = (
    rf"{_FRENCH_STREETS}|via|viale|piazza|corso|rua|calle|avenida|avda|av|paseo|camino|"
    r"camiño|praça|plaza|largo|travessa|ul|ulica|ulice|os|jalan|c/"
)
_STREET_ENDINGS = (
    r"straße|strasse|str|straat|laan|plein|kade|steenweg|weg|gatan|gata|vägen|vegen|veien|vej|[srdn]gade|gasse|allee|"
    r"platz|ufer|katu|tie|utca|ulica|tänav"
)
_GERMAN_PLACES = (
    "Markt|Ring|Damm|Hof|Tor|Graben|Park|Bahnhof|Kirche|Ufer|See|Wall|Anger|Linden|Berg|Bach|Mühle"
)
_WORD = r"[^\W\d_][\w'.-]{0,24}+"
_UNIT = r"(?:Suite|Apt\.?|Apartment|apt\.?|suite|Flat) ?#? ?\d{1,5}[A-Za-z]?(?!\w)"
