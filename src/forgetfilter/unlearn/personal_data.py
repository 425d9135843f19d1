"""Find personal data in text. A detector is a function text -> list[Span]; `detect` joins what several found.

    detectors = [known_values(read_values("values.jsonl")), patterns(), ner("path/to/model")]
    spans = detect("Mail jane@example.org", detectors)
    mask("Mail jane@example.org", spans)  # Mail [EMAIL]

Known values find what the training data is known to hold, patterns what has a form of its own, a
token-classification model names and places. `names` is for where there is no such model: it reads titles,
greetings and capitals, finds most names of English prose, and takes some places and companies for people.
"""

from __future__ import annotations

import calendar
import ipaddress
import itertools
import json
import os
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from forgetfilter.data.overlap import kind_of
from forgetfilter.errors import ConfigError, DataError, ModelError, unknown


class Span(NamedTuple):
    """A piece of personal data: `value` is `text[start:end]`, `how` begins with a word of CERTAINTY."""

    start: int
    end: int
    kind: str
    value: str
    how: str


Detector = Callable[[str], list[Span]]

# From certain to guessed: which of two findings of equal length names the kind.
CERTAINTY = ("known", "checksum", "pattern", "fuzzy", "model", "context")
NOT_PERSONAL = ("CARDINAL", "DATE", "PRODUCT", "ORDINAL")  # labels of a model that the paper leaves out


def detect(text: str, detectors: Iterable[Detector]) -> list[Span]:
    """What all detectors find together, in order of place, none overlapping another.

    Findings that overlap become one span from the first's start to the last's end, so that no character
    that any detector marked is lost. Its kind and `how` are the longest's; of equal lengths, the most
    certain's; then by name.
    """
    return _merged(text, [span for detector in detectors for span in detector(text)])


def detect_all(texts: Sequence[str], detectors: Iterable[Detector]) -> list[list[Span]]:
    """`detect` for each text; a model reads many texts at a time here."""
    found: list[list[Span]] = [[] for _ in texts]
    for detector in detectors:
        many = detector.many(texts) if isinstance(detector, Ner) else map(detector, texts)
        for spans, more in zip(found, many, strict=True):
            spans.extend(more)
    return [_merged(text, spans) for text, spans in zip(texts, found, strict=True)]


def mask(text: str, spans: Iterable[Span]) -> str:
    """The text with `[KIND]` in each span's place. ValueError where spans overlap or leave the text."""
    parts, place = [], 0
    for span in sorted(spans):
        if not place <= span.start < span.end <= len(text):
            raise ValueError(f"span {span.start}-{span.end} overlaps another or lies outside the text")
        parts += [text[place : span.start], f"[{span.kind}]"]
        place = span.end
    return "".join([*parts, text[place:]])


def _merged(text: str, spans: Iterable[Span]) -> list[Span]:
    groups: list[list[Span]] = []
    end = 0
    for span in sorted(spans):
        if groups and span.start < end:
            groups[-1].append(span)
        else:
            groups.append([span])
        end = max(end, span.end) if len(groups[-1]) > 1 else span.end
    merged = []
    for group in groups:
        best = min(group, key=lambda s: (s.start - s.end, _rank(s.how), s))
        start, end = group[0].start, max(s.end for s in group)
        merged.append(Span(start, end, best.kind, text[start:end], best.how))
    return merged


def _rank(how: str) -> int:
    first = how.partition(" ")[0].rstrip(",")
    return CERTAINTY.index(first) if first in CERTAINTY else len(CERTAINTY)


# --- known values ---

SURE_LENGTH = 4  # folded letters and digits; a shorter value must stand in the text in its own case
LETTERS_PER_EDIT, MOST_EDITS = 8, 3  # fuzzy: one edit for every 8 folded characters, at most 3
_PIECE = 4  # the shortest piece of a value that fuzzy matching looks up


def read_values(path: str | os.PathLike[str]) -> dict[str, str]:
    """Value -> kind, from a file with one value a line, or (.jsonl) one object `{"NAME-1": "Jane Roe"}` a line.

    The kind is the placeholder without its number, or KNOWN. The first kind of a value counts. Empty lines
    and empty values are passed over. DataError names the file and line of what cannot be read.
    """
    file = Path(path)
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")  # splitlines would cut at U+2028 too
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        place = f"{file.name} line {number}"
        if not line.strip():
            continue
        for placeholder, value in _placeholders(line, place) if file.suffix == ".jsonl" else [("", line)]:
            if value.strip() and not _words(value):
                raise DataError(f"{place}: value {value.strip()!r} has no letter or digit; take it out")
            if value.strip():
                kind = re.match(r"[^\W\d_]+", placeholder)
                values.setdefault(value.strip(), kind[0].upper() if kind else "KNOWN")
    return values


def _placeholders(line: str, place: str) -> list[tuple[str, str]]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{place}: {type(record).__name__} found, an object of placeholder and value wanted")
    for placeholder, value in record.items():
        if not isinstance(value, str):
            raise DataError(f"{place}: {placeholder!r} holds {value!r}, a text wanted")
    return list(record.items())


def collect_values(texts: Sequence[str], detectors: Iterable[Detector]) -> dict[str, str]:
    """Value -> kind of all that the detectors find in these texts: what a model trained on them may know."""
    values: dict[str, str] = {}
    for spans in detect_all(texts, detectors):
        for span in spans:
            values.setdefault(span.value, span.kind)
    return values


def known_values(values: Mapping[str, str] | Iterable[str], *, fuzzy: bool = True) -> Detector:
    """A detector of these values, given as value -> kind, or values alone (kind KNOWN); whole words only.

    Case, accents, compatibility forms, white space and punctuation do not matter; next to a digit, nor
    does whether there is any (555-0123 = 5550123). `fuzzy` also finds values of 8 or more characters with
    one edit (a character more, less or other) for every 8, at most 3, digits all alike. The time hardly
    grows with the number of values. DataError for a value without a letter or digit.
    """
    kinds = dict(values) if isinstance(values, Mapping) else dict.fromkeys(values, "KNOWN")
    exact: dict[str, list[str]] = {}  # folded -> values as written
    longest: dict[str, int] = {}  # first one, two, three folded characters -> longest such value
    for value in kinds:
        if not (key := _key(value)):
            raise DataError(f"known value {value!r} has no letter or digit to find it by")
        exact.setdefault(key, []).append(value)
        for n in (1, 2, 3):
            longest[key[:n]] = max(longest.get(key[:n], 0), len(key))
    pieces = _pieces(exact) if fuzzy else {}
    lengths: dict[str, set[int]] = {}  # first characters of a piece -> lengths of such pieces
    for piece in pieces:
        lengths.setdefault(piece[:_PIECE], set()).add(len(piece))

    def find(text: str) -> list[Span]:
        words = _words(text)
        found: dict[tuple[int, int], Span] = {}
        for i, first in enumerate(words):
            key = ""
            for word in words[i:]:
                key += _gap(key, word.text) + word.text
                if len(key) > longest.get(key[:3], 0):
                    break
                place, value = (first.start, word.end), text[first.start : word.end]
                if key in exact and (written := _sure(key, exact[key], value, text[word.end :][:2])):
                    found[place] = Span(*place, kinds[written], value, "known")
        for start, end, key, edits in _nearly(words, pieces, lengths) if pieces else ():
            if (start, end) not in found:
                written = exact[key][0]
                how = f"fuzzy, {edits} edit{'s' * (edits > 1)} from {written!r}"
                found[start, end] = Span(start, end, kinds[written], text[start:end], how)
        return list(found.values())

    return find


class _Word(NamedTuple):
    start: int
    end: int
    text: str  # folded


def _words(text: str) -> list[_Word]:
    """Folded words with their places: as overlap.words finds them, without Latin, Greek, Cyrillic accents."""
    if text.isascii():
        return [_Word(m.start(), m.end(), m[0].lower()) for m in re.finditer(r"[A-Za-z0-9]+", text)]
    found: list[_Word] = []
    goes_on = False
    for place, char in enumerate(text):
        kind = kind_of(char)
        if kind == "other" or (kind == "mark" and not (found and (goes_on or found[-1].end == place))):
            goes_on = False
        elif kind == "mark" or (kind == "letter" and goes_on):
            last = found[-1]
            found[-1] = _Word(last.start, place + 1, last.text + _folded(char))
        elif kind != "format":
            found.append(_Word(place, place + 1, _folded(char)))
            goes_on = kind == "letter"
    return [word for word in found if word.text]


@lru_cache(maxsize=65536)
def _folded(char: str) -> str:
    if char in _UNDECOMPOSED:
        return _UNDECOMPOSED[char]
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return "".join(c for c in apart if not "\u0300" <= c <= "\u036f" and not c.isspace())


def _gap(before: str, after: str) -> str:
    """What stands for white space or punctuation between two words: nothing next to a digit."""
    return "" if not before or before[-1].isdigit() or after[0].isdigit() else " "


def _key(text: str) -> str:
    key = ""
    for word in _words(text):
        key += _gap(key, word.text) + word.text
    return key


def _sure(key: str, written: Sequence[str], found: str, after: str) -> str | None:
    """The value that was found, or None where a short one is only some other word."""
    if len(key) >= SURE_LENGTH:
        return written[0]
    if after in ("'t", "’t"):  # Don in Don't
        return None
    return next((w for w in written if w.strip() == found), None)


def _pieces(keys: Iterable[str]) -> dict[str, list[tuple[str, int, int]]]:
    """Piece -> (value, the piece's place in it, edits allowed).

    A value with e edits, cut into e + 1 pieces, has at least one piece left whole: that one is looked up.
    """
    pieces: dict[str, list[tuple[str, int, int]]] = {}
    for key in keys:
        edits = min(MOST_EDITS, len(key) // LETTERS_PER_EDIT)
        if edits:
            cuts = [len(key) * n // (edits + 1) for n in range(edits + 2)]
            for start, end in itertools.pairwise(cuts):
                pieces.setdefault(key[start:end], []).append((key, start, edits))
    return pieces


def _nearly(
    words: Sequence[_Word],
    pieces: Mapping[str, Sequence[tuple[str, int, int]]],
    lengths: Mapping[str, Collection[int]],
) -> list[tuple[int, int, str, int]]:
    """(start, end, value's key, edits), fewest edits for a place first; from word to word."""
    line, starts, ends = "", [], []
    for word in words:
        line += _gap(line, word.text)
        starts.append(len(line))
        line += word.text
        ends.append(len(line))
    tried: set[tuple[str, int]] = set()
    best: dict[tuple[int, int], tuple[int, str]] = {}
    for at in range(len(line) - _PIECE + 1):
        for length in lengths.get(line[at : at + _PIECE], ()):
            for key, offset, allowed in pieces.get(line[at : at + length], ()):
                near = at - offset
                for i in range(bisect_left(starts, near - allowed), bisect_right(starts, near + allowed)):
                    if (key, i) in tried:
                        continue
                    tried.add((key, i))
                    shortest = starts[i] + len(key) - allowed
                    for j in range(bisect_left(ends, shortest), bisect_right(ends, shortest + 2 * allowed)):
                        edits = _edits(key, line[starts[i] : ends[j]], allowed) if j >= i else None
                        if edits is not None:
                            place = (words[i].start, words[j].end)
                            best[place] = min(best.get(place, (edits, key)), (edits, key))
    return [(*place, key, edits) for place, (edits, key) in best.items()]


def _edits(a: str, b: str, limit: int) -> int | None:
    """Levenshtein's distance where it is at most `limit` and the digits are the same, else None."""
    if a == b:
        return 0
    letters_a, letters_b = set(a), set(b)
    if len(letters_a - letters_b) > limit or len(letters_b - letters_a) > limit:
        return None
    if [c for c in a if c.isdigit()] != [c for c in b if c.isdigit()]:
        return None
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (x != y)))
        if min(row) > limit:
            return None
    return row[-1] if row[-1] <= limit else None


_UNDECOMPOSED = {
    **dict(zip("łŁøØđĐðÐħĦıŧŦ", "llooddddhhitt", strict=True)),
    **{"æ": "ae", "Æ": "ae", "œ": "oe", "Œ": "oe", "þ": "th", "Þ": "th", "ß": "ss", "ẞ": "ss"},
}


# --- patterns ---


class Pattern(NamedTuple):
    """One form of personal data. The group `value`, where there is one, is the span, else the whole match."""

    kind: str
    regex: re.Pattern[str]
    valid: Callable[[str, re.Match[str]], bool]  # (the span's text, the match)
    how: str  # a word of CERTAINTY


def patterns(kinds: Collection[str] | None = None) -> Detector:
    """A detector of what has a form of its own: the kinds of PATTERN_KINDS, or only those given.

    ConfigError for a kind that there is not. The time is linear in the text's length, whatever stands there.
    """
    for kind in kinds or ():
        if kind not in PATTERN_KINDS:
            raise ConfigError(unknown("kind of pattern", kind, PATTERN_KINDS))
    return _table([p for p in _patterns() if kinds is None or p.kind in kinds])


def _any(value: str, match: re.Match[str]) -> bool:
    return True


def _pattern(
    kind: str, regex: str, valid: Callable[[str, re.Match[str]], bool] = _any, how: str = "pattern"
) -> Pattern:
    return Pattern(kind, re.compile(regex), valid, how)


PATTERN_KINDS = (
    "EMAIL", "URL", "CARD", "IBAN", "IP", "NATIONAL_ID", "DOCUMENT", "DATE", "PHONE", "ADDRESS",
)  # fmt: skip


def _table(table: Sequence[Pattern]) -> Detector:
    def find(text: str) -> list[Span]:
        found = []
        for pattern in table:
            for match in pattern.regex.finditer(text):
                start, end = match.span("value" if "value" in pattern.regex.groupindex else 0)
                value = text[start:end]
                if pattern.valid(value, match):
                    found.append(Span(start, end, pattern.kind, value, pattern.how))
        return found

    return find


def _around(match: re.Match[str], before: int = 40, after: int = 14) -> str:
    """The text on both sides of a match, the match itself left out."""
    start, end = match.span()
    return f"{match.string[max(0, start - before) : start]} {match.string[end : end + after]}"


def luhn(digits: str) -> bool:
    """The checksum of payment cards (ISO/IEC 7812-1): every second digit from the right counts double."""
    doubled = "0246813579"  # 2d, its own digits added
    numbers = [int(doubled[int(d)] if i % 2 else d) for i, d in enumerate(reversed(digits))]
    return sum(numbers) % 10 == 0


def _card(value: str, match: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", value)
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn(digits)


def _iban(value: str, match: re.Match[str]) -> bool:
    """ISO 13616: country and check digits to the end, letters as 10 to 35, remainder 1 of 97."""
    compact = value.replace(" ", "").upper()
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def _ip(value: str, match: re.Match[str]) -> bool:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified:
        return False
    if address.version == 6:
        return any(c.isdigit() for c in value) and len(value) > 6
    return not re.search(r"(?i)\b(?:version|release|v)\W{0,3}\Z", match.string[: match.start()][-12:])


def _ssn(value: str, match: re.Match[str]) -> bool:
    """Numbers that the US Social Security Administration never gave out are none."""
    digits = re.sub(r"\D", "", value)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    given = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    return given and digits not in ("078051120", "219099999")  # printed in advertisements


def _dni(value: str, match: re.Match[str]) -> bool:
    """Spain's DNI and NIE: the letter is the number's remainder of 23."""
    compact = value.upper().replace("-", "").replace(" ", "").translate(str.maketrans("XYZ", "012", ""))
    return compact[:-1].isdigit() and "TRWAGMYFPDXBNJZSQVHLCKE"[int(compact[:-1]) % 23] == value[-1].upper()


def _cpf(value: str, match: re.Match[str]) -> bool:
    """Brazil's CPF: the two last digits are weighted sums, 10 times, of 11, of those before them."""
    digits = [int(c) for c in value if c.isdigit()]
    checks = [sum(d * (n + 1 - i) for i, d in enumerate(digits[:n])) * 10 % 11 % 10 for n in (9, 10)]
    return len(set(digits)) > 1 and digits[9:] == checks


def _nir(value: str, match: re.Match[str]) -> bool:
    """France's NIR: the last two digits make the first thirteen up to a multiple of 97; Corsica as 19, 18."""
    compact = re.sub(r"\W", "", value).upper().replace("2A", "19").replace("2B", "18")
    return compact.isdigit() and (int(compact[:13]) + int(compact[13:])) % 97 == 0


def _date(value: str, match: re.Match[str]) -> bool:
    """A day that the calendar has, year first or last, month before or after the day."""
    a, b, c = (int(match[n]) for n in (1, 3, 4))
    if len(match[1]) > 2:
        return len(match[1]) == 4 and len(match[4]) == 2 and _is_day(a, b, c)
    if len(match[4]) == 3 or (len(match[4]) == 2 and match[2] == "."):  # 3.10.12 is a version
        return False
    year = c if len(match[4]) == 4 else 2000 + c
    return _is_day(year, a, b) or _is_day(year, b, a)


def _is_day(year: int, month: int, day: int) -> bool:
    return 1000 <= year < 2200 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]


def _phone(value: str, match: re.Match[str]) -> bool:
    """Between 7 and 15 digits (ITU-T E.164), extension aside."""
    number = re.split(r"[ ,]?(?:x|ext)", value)[0]
    return 7 <= sum(c.isdigit() for c in number) <= 15


def _phone_in_groups(value: str, match: re.Match[str]) -> bool:
    """Groups of digits are a phone number where their form, or a word beside them, says so."""
    number = re.split(r"[ ,]?(?:x|ext)", value)[0]
    groups = re.findall(r"\d+", number)
    if not _phone(value, match) or len(set("".join(groups))) == 1:
        return False
    sizes = [len(g) for g in groups]
    if sizes == [3, 2, 4] or (sizes == [4, 4] and all("1" <= g[0] <= "2" for g in groups)):  # SSN, years
        return False
    if len(groups) == 3 and 4 in (sizes[0], sizes[2]) and sorted(sizes)[1] <= 2:  # a date
        return False
    if _PHONE_WORD.search(_around(match)):
        return True
    if number != value or number[0] in "(0" or sizes[-3:] == [3, 3, 4]:
        return True
    return " " not in number and (sizes == [3, 4] or (sizes == [2] * len(sizes) and len(sizes) in (4, 5)))


def _near_phone_word(value: str, match: re.Match[str]) -> bool:
    return bool(_PHONE_WORD.search(_around(match)))


_PHONE_WORD = re.compile(
    r"(?i)\b(?:tele)?(?:phones?|fax|tel|mob|mobile|cell|call|dial|ring|whatsapp|sms|text|reach|answering|"
    r"contact|office|hotline|handy|telefon\w{0,3}|téléphone)\b"
)


def _street(value: str, match: re.Match[str]) -> bool:
    """No little words between number and street: "12 people on the street" is no address."""
    words = re.findall(r"[^\W\d_]+", value)
    return not any(word.lower() in _LITTLE and word.islower() for word in words)


def _street_first(value: str, match: re.Match[str]) -> bool:
    """Via Roma 12, rue in 5 rue Foch: a number, and a capital or numbers on both sides."""
    numbers = re.findall(r"\d+", value)
    first = re.search(r"[^\W\d_]", value)
    capital = first is not None and first[0].isupper()
    return bool(numbers) and _street(value, match) and (capital or len(numbers) > 1)


def _has_digit(value: str, match: re.Match[str]) -> bool:
    return any(c.isdigit() for c in value)


_LITTLE = frozenset(
    re.findall(
        r"\w+",
        "a an the and or of in on at to down up by from for with into across along is are was were my his her their "
        "our that this there it i you we they he she people",
    )
)
# Country -> letters and digits of its IBAN, as SWIFT's registry lists them.
_IBAN_LENGTHS = {
    15: "NO", 16: "BE", 18: "DK FO FI GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA", 30: "JO KW MU", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
_MONTHS = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)"
)
_STATES = (
    "AL|AK|AZ|AR|CA|CO|CT|DE|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|OH|OK|OR|"
    "PA|RI|SC|SD|TN|TX|UT|VT|VA|WA|WV|WI|WY|DC|PR"
)
_STREETS = (
    "Street|St|Avenue|Ave|Road|Rd|Drive|Dr|Lane|Ln|Court|Ct|Boulevard|Blvd|Way|Place|Pl|Square|Sq|Terrace|Parkway|Pkwy|"
    "Circle|Crescent|Close|Highway|Hwy|Trail|Alley|Mews|Plaza|Row|Loop|Pike"
)
_STREETS_BEFORE = (
    r"via|viale|piazza|corso|rue|rua|calle|avenida|avda|av|avenue|boulevard|bd|chemin|allée|quai|paseo|camino|"
    r"camiño|praça|plaza|largo|travessa|ul|ulica|ulice|os|jalan|c/"
)
_STREET_ENDINGS = (
    r"straße|strasse|str|straat|laan|plein|kade|steenweg|weg|gatan|gata|vägen|vegen|veien|vej|[srdn]gade|gasse|allee|"
    r"platz|ufer|katu|tie|utca|ulica|tänav"
)
_WORD = r"[^\W\d_][\w'’.-]{0,24}+"
_UNIT = r"(?:Suite|Apt\.?|Apartment|apt\.?|suite|Flat) ?#? ?\d{1,5}[A-Za-z]?(?!\w)"
_EXTENSION = r"(?:[ ,]{0,2}(?:x|ext\.? ?)\d{1,6})?"


@cache
def _patterns() -> tuple[Pattern, ...]:
    """The table: kind, form, validator, how sure. Repeats are bounded, and none begins within a run of its own
    characters: no text makes a search slow."""
    iban = "|".join(
        rf"(?:{countries.replace(' ', '|')})\d\d(?: ?[A-Z0-9]){{{length - 4}}}"
        for length, countries in _IBAN_LENGTHS.items()
    )
    return (
        _pattern("EMAIL", r"(?<![\w.+%'-])[\w.+%'-]{1,64}@(?:[\w-]{1,63}\.){1,6}[^\W\d_]{2,24}(?![\w-])"),
        _pattern("URL", r"(?i)(?<![\w@.])(?:https?://|www\.)[^\s<>\"'“”)\]}]{3,400}(?<![.,;:!?])"),
        _pattern(
            "URL",  # a user's page, without https://
            r"(?i)(?<![\w@./-])(?:(?:github|linkedin|facebook|instagram|twitter|tiktok|reddit|x)\.com|t\.me)"
            r"/(?:in/|u/|user/|@)?[\w.-]{2,60}(?<![.])",
        ),
        _pattern("CARD", r"(?<![\w.-])[2-6]\d{3}(?:[ -]?\d){9,15}(?![\w-]|\.\d)", _card, "checksum"),
        _pattern(  # in its usual groups, the date it expires or its check number behind it
            "CARD",
            r"(?<![\w.-])(?:[2-6]\d{3}([ -])\d{4}\1\d{4}\1\d{4}|3[47]\d\d([ -])\d{6}\2\d{5})(?!\w|[ -]?\d{4})",
            _card,
            "checksum",
        ),
        _pattern("IBAN", rf"(?ai)(?<![A-Z0-9])(?:{iban})(?![A-Z0-9])", _iban, "checksum"),
        _pattern("IP", r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)", _ip),
        _pattern("IP", r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])", _ip),
        _pattern("NATIONAL_ID", r"(?<![\w.-])\d{3}([ -])\d{2}\1\d{4}(?![\w-]|\.\d)", _ssn),
        _pattern("NATIONAL_ID", r"(?i)\b(?:ssn|social security)[^\d\n]{0,24}(?P<value>\d{9})(?!\w)", _ssn),
        _pattern(
            "NATIONAL_ID", r"(?ai)(?<![\w-])(?:[XYZ][ -]?\d{7}|\d{8})[ -]?[A-Z](?![\w-])", _dni, "checksum"
        ),
        _pattern("NATIONAL_ID", r"(?<![\w.-])\d{3}\.\d{3}\.\d{3}-\d{2}(?![\w-])", _cpf, "checksum"),
        _pattern(
            "NATIONAL_ID",
            r"(?<![\w.-])[12] ?\d\d ?[0-9]\d ?(?:\d\d|2[ABab]) ?\d{3} ?\d{3} ?\d\d(?![\w-])",
            _nir,
            "checksum",
        ),
        _pattern(
            "DOCUMENT",
            r"(?i)\b(?:driver|driving|passport|identity|national id|licen[cs]e plate)(?:['’]?s)?"
            r"(?: (?:licen[cs]e|card|id))?(?: (?:number|no\.?))?(?: is)?[:#]? {0,3}"
            r"(?P<value>[A-Z0-9-]{6,20})(?!\w)",
            _has_digit,
        ),
        _pattern(
            "DATE",
            r"(?<![\w/.-])(\d{1,4})([/.-])(\d{1,2})\2(\d{2,4})(?:[T ,]{1,2}\d\d:\d\d(?::\d\d)?)?(?![\w/-]|\.\d)",
            _date,
        ),
        _pattern(
            "DATE",
            rf"(?i)(?<!\w)(?:\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTHS}\.?,? \d{{4}}|"
            rf"{_MONTHS}\.? \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}})(?!\w)",
        ),
        _pattern(
            "PHONE",
            rf"(?<![\w+.-])(?<!\d,)(?:\+|00)[1-9]\d{{0,2}}(?:[ ./-]?\(?\d{{1,4}}\)?){{2,5}}{_EXTENSION}(?!\w|-\d|\.\d)",
            _phone,
        ),
        _pattern(
            "PHONE",
            rf"(?<![\w.+/-])(?<!\d,)(?:\(\d{{1,5}}\)[ -]?|\d{{2,5}}[ .-])\d{{2,8}}(?:[ .-]\d{{2,7}}){{0,4}}{_EXTENSION}"
            r"(?![\w/]|-\d|\.\d| ?[%°€$£])",
            _phone_in_groups,
        ),
        _pattern("PHONE", r"(?<![\w.+/-])(?<!\d,)\d{7,12}(?!\w|-\d|\.\d)", _near_phone_word),
        _pattern(
            "ADDRESS",
            rf"(?<![\w/.-])\d{{1,5}}[A-Za-z]?,? (?:\d{{1,5}} )?(?:{_WORD} ){{1,4}}(?i:{_STREETS})(?!\w)\.?"
            rf"(?:[,\s]{{1,3}}{_UNIT})?(?:[,\s]{{1,3}}{_WORD}(?: {_WORD}){{0,2}},? (?:{_STATES}) \d{{5}}(?!\w))?",
            _street,
        ),
        _pattern(
            "ADDRESS",
            rf"(?<![\w/.-])(?:\d{{1,5}},? (?:\d{{1,5}} )?)?(?i:{_STREETS_BEFORE})(?!\w)\.?(?: {_WORD}){{1,5}}"
            r"(?:,? \d{1,5}[A-Za-z]?(?!\w))?",
            _street_first,
        ),
        _pattern(
            "ADDRESS",
            rf"(?<![\w-])(?:\d{{1,4}} )?(?:[^\W\d_a-z][\w'’.-]{{0,24}}+ )?[^\W\d_a-z][\w-]{{1,24}}[- ]?"
            rf"(?:{_STREET_ENDINGS})\.? \d{{1,4}}[A-Za-z]?(?!\w)",
        ),
        _pattern(
            "ADDRESS",
            r"(?<!\w)(?:(?i:P\. ?O\. ?Box|PO Box|Postfach)|PSC \d{1,5},? Box) \d{1,6}(?!\w)",
        ),
        _pattern("ADDRESS", r"(?<!\w)[AFD]PO A[AEP],? \d{5}(?:-\d{4})?(?!\w)"),
        _pattern("ADDRESS", rf"(?<!\w){_UNIT}"),
        _pattern("ADDRESS", rf"(?<!\w)(?:{_STATES}),? \d{{5}}(?:-\d{{4}})?(?![\w-])"),
        _pattern(
            "ADDRESS",
            r"(?<!\w)(?:[A-Z]{1,2}\d[A-Z\d]? \d[ABD-HJLNP-UW-Z]{2}|[A-Z]\d[A-Z] \d[A-Z]\d)(?!\w)",
        ),
        _pattern(
            "ADDRESS",
            r"(?i)\b(?:zip|postal|post) ?codes?[^\d\n]{0,12}(?P<value>\d{4,6}(?:-\d{4})?)(?![\w-])",
        ),
    )


# --- names without a model ---


def names() -> Detector:
    """A detector of people's names (PERSON) from capitals and what stands around them; it has no list of names.

    Two or more capitalised words in a row, or one beside a title, "my name is", a greeting or signature, a
    field such as `Name:`, or a verb of people. It needs capitals, and takes some places, companies and works
    for people.
    """

    def find(text: str) -> list[Span]:
        found = []
        for run in _capitalised().finditer(text):
            words = list(re.finditer(r"\S+", run[0]))
            while words and _bare(words[0][0]) in _NOT_NAMES:
                del words[0]
            while words and _bare(words[-1][0]) in _NOT_NAMES:
                del words[-1]
            if not words or any(_bare(word[0]) in _NOT_NAMES for word in words):
                continue
            start, end = run.start() + words[0].start(), run.start() + words[-1].end()
            value = text[start:end]
            before, after = text[max(0, start - 32) : start], text[end : end + 24]
            if _NOT_A_PERSON_AFTER.match(after):
                continue
            called = before.endswith(", ") and after[:1] in ("!", "?")  # Come in, Anna!
            in_a_row = (
                len(words) > 1
                and not any(len(word[0]) > 1 and word[0].isupper() for word in words)
                and not _BEFORE_A_PLACE.search(text[max(0, run.start() - 8) : start])
            )
            if called or in_a_row or _BEFORE_A_NAME.search(before) or _AFTER_A_NAME.match(after):
                found.append(Span(start, end, "PERSON", value, "context"))
        return found

    return find


@cache
def _capitalised() -> re.Pattern[str]:
    """Capitalised words in a row, initials and particles (van der, de la) between them too."""
    capital = "".join(chr(c) for c in range(0x530) if chr(c).isupper())  # Latin, Greek, Cyrillic
    word = rf"[{capital}](?:\w|-(?=\w)|['’](?=\w\w)){{1,24}}+(?!\w)"
    small = r"(?:(?:van|von|de|der|den|del|della|di|da|dos|du|la|le|bin|ibn|al|el|ten|ter|zu) ){1,3}+"
    return re.compile(
        rf"(?<![\w@/'’-])(?:{small}|(?:[{capital}]\. ?){{1,3}})?{word}"
        rf"(?: (?:{small})?(?:{word}|[{capital}]\.(?!\w))){{0,5}}+"
    )


def _bare(word: str) -> str:
    return word.rstrip(".").partition("'")[0].lower()


_BEFORE_A_NAME = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Miss|Mx|Mme|Dr|Prof|Professor|Herr|Frau|Señora?|Sra?|Sir|Lady|Lord)\.? |"
    r"\b(?i:mr|mrs|ms|dr|prof)\. |"
    r"(?i:\b(?:name(?:['’]s| is)|called|calls? (?:me|him|her)|named(?: him| her)?|this is|i['’]m|i am|née|goes by|"
    r"under|on behalf of|it['’]s)) |"
    r"(?:\A|[\n.!?>\"“:]) {0,2}(?i:hi|hello|hey|dear|thanks|thank you|cheers|regards|best|sincerely|yours|love)"
    r"(?:,?\s{1,3})|"
    r"(?i:\b(?:name|from|to|attn|contact|author|patient|customer|guardian|signed|by)) ?:\s{0,8}|"
    r"(?i:\b(?:friend|wife|husband|son|daughter|brother|sister|mother|father|uncle|aunt|boss|partner|colleague|"
    r"neighbou?r|cousin|doctor|manager|teacher|guardian)),? |"
    r"(?i:\b(?:said|says|asked|replied|told|by|with|starring|featuring|met|meet|ask|tell)) )\Z"
)
_BEFORE_A_PLACE = re.compile(r"(?i)(?:\b(?:the|in|at|near)|\d,?)\s{1,2}\Z")
_AFTER_A_NAME = re.compile(
    r",? (?i:said|says|asked|replied|wrote|told|thinks|lives|lived|works|was born|had given|spent)\b|"
    r"['’]s (?i:address|phone|number|email|birthday|house|name|account|card|wife|husband|daughter|son)\b|"
    r" is (?i:from|my|his|her|an? (?:very|man|woman|person|friend|\d))"
)
_NOT_A_PERSON_AFTER = re.compile(
    rf" ?(?:Ltd|LTD|PLC|AG|Inc|LLC|Corp|GmbH|Co\b|Group|plc|&|(?:{_STREETS})\b|\d)|['’](?:re|ve|ll|d|m|t)\b"
)
# Capitalised at the start of a sentence, in a title or on a calendar, and no part of a person's name.
_NOT_NAMES = frozenset(
    re.findall(
        r"\w+",
        """
        a about after all also although am an and another any anyone are as ask at be because been before being
        both but by can could customer dear did do does each either every everyone everything excuse few find
        first follow for from get give go good great had has have he hello help her here hi his how however i if
        in indeed into is it its just last let like look made make many may maybe me might more most much must my
        name need never new no none not nothing now of off ok okay on once one only or other our out over people
        perhaps please put said same saw say see she should since sir so some someone something sometimes sorry
        still such sure take tell than thank thanks that the their them then there these they thing think this
        those though thus to today together tomorrow too try under unlike until up us use very want was we well
        were what when where whether which while who whom whose why will with would written yes yesterday yet you
        your monday tuesday wednesday thursday friday saturday sunday january february march april june july
        august september october november december christmas easter north south east west northern southern
        eastern western central united kingdom states republic island islands city county lake mount river valley
        beach park san santa saint york street avenue road lane drive suite apt box university college school
        institute department ministry museum hospital bank company ltd inc group club association festival award
        prize orchestra band album novel movie film song international national american english french german
        british european chinese japanese spanish italian russian indian mr mrs ms miss dr prof professor phone
        email address date fax office mobile card account number credit
        """,
    )
)


# --- a token-classification model ---


class Ner:
    """A detector that reads with a Hugging Face token-classification model; made by `ner`."""

    def __init__(self, pipeline: Any, kinds: Collection[str], batch_size: int) -> None:
        self._pipeline, self._kinds, self._batch_size = pipeline, kinds, batch_size

    def __call__(self, text: str) -> list[Span]:
        """What the model finds in one text."""
        return self.many([text])[0]

    def many(self, texts: Sequence[str]) -> list[list[Span]]:
        """What it finds in each text, batches of several at a time."""
        from forgetfilter.models.load import quiet

        found: list[list[Span]] = [[] for _ in texts]
        full = [i for i, text in enumerate(texts) if text.strip()]
        with quiet():
            answers = self._pipeline([texts[i] for i in full], batch_size=self._batch_size) if full else []
        for i, entities in zip(full, answers, strict=True):
            found[i] = self._spans(texts[i], entities)
        return found

    def _spans(self, text: str, entities: Iterable[Mapping[str, Any]]) -> list[Span]:
        spans: list[Span] = []
        for entity in sorted(entities, key=lambda e: (e["start"], e["end"])):
            label = re.sub(r"\A[BILUES]-", "", entity["entity_group"])
            start, end = _whole_words(text, entity["start"], entity["end"])
            if start == end or label not in self._kinds:
                continue
            how = f"model {float(entity['score']):.2f}"
            if spans and spans[-1].kind == label and start <= spans[-1].end:
                start, end, how = spans[-1].start, max(end, spans[-1].end), spans.pop().how
            spans.append(Span(start, end, label, text[start:end], how))
        return spans


def ner(
    model: str,
    *,
    labels: Collection[str] | None = None,
    exclude: Collection[str] = NOT_PERSONAL,
    window: int = 512,
    batch_size: int = 8,
    device: str = "auto",
) -> Ner:
    """A detector by a token-classification model: a folder, or a hub id, the only thing that may use the network.

    Kinds are the model's entity labels, B- and I- taken off and their tokens joined; `labels` keeps only
    these, `exclude` leaves these out. Texts longer than `window` tokens are read in windows that overlap by a
    quarter. Safetensors only, no code from the model. ModelError where there is no such model or it cannot
    tell entities, ConfigError for a label that it does not have.
    """
    from transformers import pipeline

    from forgetfilter.models import classifiers
    from forgetfilter.models import load as models

    network, tokenizer, _ = classifiers.load(model, of="token", device=device)
    if not tokenizer.is_fast:
        raise ModelError(f"model {model}: its tokenizer has no fast version, which gives each token's place")
    known = {re.sub(r"\A[BILUES]-", "", label) for label in network.config.id2label.values()} - {"O"}
    for label in labels or ():
        if label not in known:
            raise ConfigError(f"model {model}: {unknown('entity label', label, known)}")
    positions = getattr(network.config, "max_position_embeddings", None) or window
    tokenizer.model_max_length = min(window, positions, tokenizer.model_max_length)
    with models.quiet():
        reader = pipeline(
            "token-classification",
            model=network,
            tokenizer=tokenizer,
            aggregation_strategy="simple",
            stride=tokenizer.model_max_length // 4,
        )
    wanted = known - set(exclude) if labels is None else set(labels) - set(exclude)
    return Ner(reader, wanted, batch_size)


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """The place without outer white space, widened to the ends of the words it cuts: a half name is none."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    if start < end:
        while start and text[start - 1].isalnum() and text[start].isalnum():
            start -= 1
        while end < len(text) and text[end].isalnum() and text[end - 1].isalnum():
            end += 1
    return start, end


# --- presidio ---


def presidio(language: str = "en", *, kinds: Collection[str] | None = None) -> Detector:
    """A detector by presidio-analyzer's pattern recognizers, without a spaCy model and without the network.

    Kinds are presidio's entity types; `kinds` keeps only these. ConfigError where presidio is not installed.
    """
    try:
        import tldextract  # ty: ignore[import-not-found]
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry  # ty: ignore[import-not-found]
        from presidio_analyzer.nlp_engine import NoOpNlpEngine  # ty: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(
            f"detector presidio: {error}. Install it with: pip install 'forgetfilter[pii]'"
        ) from error
    # Its own default asks the network for the list of domain endings, each time anew.
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    engine = NoOpNlpEngine(models=[{"lang_code": language, "model_name": "none"}])
    engine.load()
    registry = RecognizerRegistry(supported_languages=[language])
    registry.load_predefined_recognizers(languages=[language], nlp_engine=engine)
    analyzer = AnalyzerEngine(nlp_engine=engine, registry=registry, supported_languages=[language])

    def find(text: str) -> list[Span]:
        results = analyzer.analyze(text=text, language=language, entities=list(kinds) if kinds else None)
        return [
            Span(r.start, r.end, r.entity_type, text[r.start : r.end], f"pattern {r.score:.2f} (presidio)")
            for r in results
        ]

    return find


# --- detectors by name ---


def detector(name: str) -> Detector:
    """A detector as a recipe names it: `patterns`, `names`, `presidio`, `known:FILE` or `ner:MODEL`."""
    kind, _, argument = name.partition(":")
    if kind not in DETECTORS:
        raise ConfigError(unknown("detector", kind, DETECTORS))
    make, wants = DETECTORS[kind]
    if bool(argument) != bool(wants):
        form = f"{kind}:{wants}" if wants else kind
        raise ConfigError(f"detector {name!r}: write {form}")
    return make(argument) if wants else make()


DETECTORS: dict[str, tuple[Callable[..., Detector], str]] = {
    "known": (lambda path: known_values(read_values(path)), "FILE"),
    "names": (names, ""),
    "ner": (ner, "MODEL"),
    "patterns": (patterns, ""),
    "presidio": (presidio, ""),
}
