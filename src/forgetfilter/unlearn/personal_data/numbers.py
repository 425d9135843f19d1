"""Numbers with a rule of their own: payment cards, accounts, national identity numbers, phone numbers.

Check digits and country rules come from python-stdnum, phone numbers of every country from phonenumbers (extra
`pii`). A check gets a `Place` and gives what of its value holds, from its start; "" where nothing does.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple


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


Check = Callable[[Place], str]


def digits_of(value: str) -> str:
    """The digits alone."""
    return re.sub(r"\D", "", value)


# --- cards and accounts ---


def card(p: Place) -> str:
    """13 to 19 digits, not all alike, whose check digit holds (ISO/IEC 7812-1)."""
    from stdnum import luhn

    digits = digits_of(p.value)
    holds = 13 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn.is_valid(digits)
    return p.value if holds else ""


def account(p: Place) -> str:
    """The beginning of the value that is an IBAN of its country's length and form (ISO 13616)."""
    from stdnum import iban

    length = _iban_length(p.value[:2].upper())
    places = [i for i, c in enumerate(p.value) if c.isalnum()]
    if not length or len(places) < length:
        return ""
    end = places[length - 1] + 1
    follows = p.text[p.start + end : p.start + end + 1]
    if follows.isascii() and follows.isalnum():
        return ""
    return p.value[:end] if iban.is_valid(p.value[:end], check_country=False) else ""


@lru_cache(maxsize=1024)
def _iban_length(country: str) -> int:
    """Letters and digits of the country's IBAN, 0 where it has none."""
    from stdnum import numdb

    _, found = numdb.get("iban").info(country)[0]
    return 4 + sum(int(n) for n in re.findall(r"\d+", found["bban"])) if "bban" in found else 0


# --- national identity numbers ---


class Identity(NamedTuple):
    """A country's number: `module` of stdnum, its form, and words (in small letters, between |) before it without
    which it is not believed."""

    module: str
    form: str
    cue: str = ""


# A form that many other numbers have too, or a check that every tenth of them passes, wants a cue.
IDENTITIES = (
    Identity("au.tfn", r"\d{3} ?\d{3} ?\d{2,3}", "tfn|tax file number"),
    Identity("be.nn", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}"),
    Identity("bg.egn", r"\d{10}", "егн|egn"),
    Identity("br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}"),
    Identity("br.cpf", r"\d{11}", "cpf"),
    Identity(
        "ca.sin",
        r"\d{3}(?P<gap>[ -]?)\d{3}(?P=gap)\d{3}",
        "sin|social insurance|assurance sociale|nas",
    ),
    Identity("ch.ssn", r"756\.\d{4}\.\d{4}\.\d{2}"),
    Identity("cl.rut", r"\d{1,2}\.\d{3}\.\d{3}-[\dK]"),
    Identity("cn.ric", r"\d{17}[\dX]"),
    Identity("de.idnr", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", "steuer-id|steuerid|idnr|identifikationsnummer"),
    Identity("dk.cpr", r"\d{6}-?\d{4}", "cpr|personnummer"),
    Identity("es.dni", r"\d{8}[ -]?[A-Z]"),
    Identity("es.nie", r"[XYZ][ -]?\d{7}[ -]?[A-Z]"),
    Identity("fi.hetu", r"\d{6}[-+A]\d{3}[0-9A-Y]"),
    Identity("fr.nir", r"[12] ?\d\d ?\d\d ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d"),
    Identity("gb.nhs", r"\d{3}(?P<gap>[ -]?)\d{3}(?P=gap)\d{4}", "nhs"),
    Identity("ie.pps", r"\d{7}[A-W][A-IW]?", "pps"),
    Identity("in_.aadhaar", r"\d{4}(?P<gap>[ -]?)\d{4}(?P=gap)\d{4}", "aadhaar|आधार"),
    Identity("in_.pan", r"[A-Z]{5}\d{4}[A-Z]", "pan"),
    Identity("it.codicefiscale", r"[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]"),
    Identity("jp.in_", r"\d{4}(?P<gap>[ -]?)\d{4}(?P=gap)\d{4}", "マイナンバー|個人番号|my number"),
    Identity("kr.rrn", r"\d{6}-\d{7}"),
    Identity("mx.curp", r"[A-Z]{4}\d{6}[HM][A-Z]{5}[A-Z\d]\d"),
    Identity("nl.bsn", r"\d{9}", "bsn|burgerservicenummer|sofinummer"),
    Identity("no.fodselsnummer", r"\d{6} ?\d{5}", "fødselsnummer|personnummer"),
    Identity("pl.pesel", r"\d{11}", "pesel"),
    Identity("ro.cnp", r"\d{13}", "cnp"),
    Identity("se.personnummer", r"(?:\d\d)?\d{6}[-+]\d{4}", "personnummer|pnr"),
    Identity("tr.tckimlik", r"\d{11}", "kimlik|tckn"),
    Identity("us.ssn", r"\d{3}(?P<gap>[ -])\d{2}(?P=gap)\d{4}"),
    Identity("us.ssn", r"\d{9}", "ssn|social security"),
    Identity("za.idnr", r"\d{13}", "id number|identity"),
)


def identity(p: Place) -> str:
    """The beginning of the value that has the form of a country, and its check.

    The country is that whose group n1, n2, … of the match took part, and every other with the same cue.
    """
    name, said = next((n, found) for n, found in p.match.groupdict().items() if found and n[1:].isdigit())
    first = int(name[1:])
    same = [i for i, form in enumerate(IDENTITIES) if said.lower() in form.cue.split("|")]
    for country in [first] if not IDENTITIES[first].cue else same:
        module, whole = IDENTITIES[country].module, _forms()[country].match(p.text, p.start)
        if whole is not None:
            number = re.sub(r"[ -]", "", whole[0]) if module in _BARE else whole[0]
            if _stdnum(module).is_valid(number.upper()):
                return whole[0]
    return ""


@cache
def cue_words() -> tuple[str, ...]:
    """All cues."""
    return tuple(sorted({word for form in IDENTITIES if form.cue for word in form.cue.split("|")}))


@cache
def _forms() -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(rf"(?ai)(?:{i.form})(?![A-Z0-9_]|[.-]\d)") for i in IDENTITIES)


@cache
def _stdnum(module: str) -> Any:
    return importlib.import_module(f"stdnum.{module}")


_BARE = {"es.dni", "es.nie", "fr.nir", "au.tfn", "in_.aadhaar", "jp.in_", "us.ssn", "de.idnr", "gb.nhs"}


# --- phone numbers ---

_EXTENSION = re.compile(r"[ ,]{0,2}(?:x|ext)", re.IGNORECASE)


def international(p: Place) -> str:
    """The beginning of the value that may be a number of the country whose code it begins with.

    Without phonenumbers, all of it where it has 7 to 15 digits (ITU-T E.164), extension aside.
    """
    library = _phonenumbers()
    # Another number behind it may have been taken for its last groups.
    for end in (len(p.value), *(m.start() for m in reversed([*re.finditer(r"[ ./()-]+\d", p.value)]))):
        number = _EXTENSION.split(p.value[:end])[0]
        if not 7 <= len(digits_of(number)) <= 15 + 2 * number.startswith("00"):
            continue
        if library is None or _possible(library, number):
            return p.value[:end]
    return ""


def _possible(library: Any, number: str) -> bool:
    plain = "+" + re.sub(r"\A00|\D", "", re.sub(r"\(0\)", "", number))
    parsed = _parsed(library, plain, None)
    return parsed is not None and library.is_possible_number(parsed)


def _parsed(library: Any, number: str, region: str | None) -> Any:
    try:
        return library.parse(number, region)
    except library.NumberParseException:
        return None


@cache
def _phonenumbers() -> Any:
    try:
        import phonenumbers
    except ImportError:
        return None
    return phonenumbers


def say_what_is_missing() -> None:
    """A warning where phonenumbers is not installed."""
    if _phonenumbers() is None:
        warnings.warn(
            "phonenumbers is not installed: phone numbers are found by their form alone, not by the rules of their "
            "country. Install it with: pip install 'forgetfilter[pii]'",
            stacklevel=3,
        )


def national(p: Place) -> str:
    """Groups of digits that are a phone number by their form, or by a word beside them."""
    number = _EXTENSION.split(p.value)[0]
    groups = re.findall(r"\d+", number)
    digits = "".join(groups)
    if not 7 <= len(digits) <= 15 or len(set(digits)) == 1 or _other_groups([len(g) for g in groups], groups):
        return ""
    glued = re.search(r"[^\W\d_][./-]\Z", p.text[max(0, p.start - 2) : p.start])  # Mobil-0171 …, RFC-2119 …
    if not glued and (number != p.value or _looks_like_one(number, [len(g) for g in groups])):
        return p.value
    return p.value if PHONE_CUE.search(p.around()) else ""


def _other_groups(sizes: list[int], groups: list[str]) -> bool:
    """Whether these are the groups of something else: a social security number, two years, a date."""
    if sizes == [3, 2, 4] or (sizes == [4, 4] and all("1" <= g[0] <= "2" for g in groups)):
        return True
    return len(groups) == 3 and 4 in (sizes[0], sizes[2]) and sorted(sizes)[1] <= 2


def _looks_like_one(number: str, sizes: list[int]) -> bool:
    if number[0] in "(0" or sizes[-3:] == [3, 3, 4]:
        return True
    return " " not in number and (sizes == [3, 4] or (sizes == [2] * len(sizes) and len(sizes) in (4, 5)))


def said_to_be_a_phone(p: Place) -> str:
    """Bare digits with a word beside them."""
    return p.value if PHONE_CUE.search(p.around()) else ""


def in_the_groups_of_a_country(p: Place) -> str:
    """Digits with a word beside them, valid in a country that writes its numbers in these groups."""
    library = _phonenumbers()
    if library is None or not PHONE_CUE.search(p.around()):
        return ""
    shape = tuple(len(group) for group in re.findall(r"\d+", p.value))
    for region in _countries_by_groups().get(shape, ()):
        parsed = _parsed(library, p.value, region)
        if parsed is not None and library.is_valid_number_for_region(parsed, region):
            return p.value
    return ""


@cache
def _countries_by_groups() -> dict[tuple[int, ...], list[str]]:
    """Sizes of the groups of a national number -> the countries whose example numbers have them."""
    library = _phonenumbers()
    found: dict[tuple[int, ...], list[str]] = {}
    for region in sorted(library.SUPPORTED_REGIONS):
        for kind in (library.PhoneNumberType.FIXED_LINE, library.PhoneNumberType.MOBILE):
            if (number := library.example_number_for_type(region, kind)) is not None:
                written = library.format_number(number, library.PhoneNumberFormat.NATIONAL)
                found.setdefault(tuple(len(g) for g in re.findall(r"\d+", written)), []).append(region)
    return found


PHONE_CUE = re.compile(
    r"(?i)\b(?:tele)?(?:phones?|fax|tel|mob|mobile|cell|call|dial|ring|whatsapp|sms|text|reach|answering|"
    r"contact|office|hotline)\b|"
    r"\b(?:telefon|handy|mobil|rufnummer|durchwahl)[^\W\d_]{0,12}\b|\b(?:ruf|rufen|anrufen|erreichbar)\b|"
    r"\b(?:téléphone|tél|portable|appel(?:er|ez|le)|joindre)\b|"
    r"\b(?:teléfono|móvil|celular|llám[^\W\d_]{1,5}|llama[^\W\d_]{0,3}|telefone|ligue|ligar|telefono|cellulare)\b|"
    r"\b(?:телефон[^\W\d_]{0,2}|тел|моб|звоните)\b|"
    r"電話|携帯|ケータイ|ファックス|FAX|电话|手机|手機|拨打|致电|전화|휴대폰|핸드폰|연락처|"
    r"هاتف|جوال|موبايل|اتصل|फोन|फ\u093cोन|मोबाइल"
)
