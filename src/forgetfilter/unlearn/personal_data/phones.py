"""Phone numbers: international, in the groups of a country, and any digits beside a word for a phone.

Rules of every country come from phonenumbers (extra `pii`).
"""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import Any

from forgetfilter.unlearn.personal_data.forms import Pattern, Place, pattern


def phones() -> tuple[Pattern, ...]:
    """Phone numbers in four forms, from the surest to bare digits."""
    extension = r"(?i:(?:[ ,;]{0,2}(?:x|#|ext(?:ension)?[.=:]? ?)\d{1,6})?)"
    left = r"(?:(?<![\w+])|(?<=(?i:tel)))(?<!\d[.,/-])"
    gap = "(?: - |[ .-])"
    return (
        pattern(
            "PHONE",
            rf"{left}(?:[(\[](?=(?:\+ ?|00)\d{{1,3}}[)\]]))?(?:\+ ?|00|(?<!:)00 )[1-9](?:[] ./()-]{{0,3}}\d){{6,14}}"
            rf"{extension}(?!\w|-\d|\.\d)",
            _international,
        ),
        pattern(
            "PHONE",
            rf"{left}(?:0[1-9](?:/\d\d){{4}}|0\d{{1,4}}\(\d{{1,4}}\)\d{{4}}|"
            rf"(?:(?:[178][ .-]?)?\(\d{{1,5}}\)(?: ?- |[ -])?|(?:[178]{gap}(?=\d{{3}}{gap}))?\d{{2,6}}{gap}|"
            rf"0 ?\d{{1,5}} ?/ ?|\d{{3}}/(?=\d{{3}}[ .-]?\d{{4}}))\d{{2,9}}(?:{gap}\d{{2,7}}){{0,4}}){extension}"
            r"(?!\w|-\d|\.\d| ?[%°€$£])",
            _national,
        ),
        pattern("PHONE", rf"{left}\d{{7,12}}(?!\w|-\d|\.\d)", _said_to_be_one, needs="phone"),
        pattern(
            "PHONE",
            rf"{left}(?:\(\d{{1,6}}\)|\d{{1,6}})(?:[ -]\d{{1,9}}){{1,5}}(?!\w|[.-]\d| ?[%°€$£])",
            _in_the_groups_of_a_country,
            needs="phone",
        ),
    )


_EXTENSION = re.compile(r"[ ,;]{0,2}(?:x|#|ext)", re.IGNORECASE)


def _international(p: Place) -> str:
    """The beginning of the value that may be a number of the country whose code it begins with.

    Without phonenumbers, all of it where it has 7 to 15 digits (ITU-T E.164), extension aside.
    """
    library = _phonenumbers()
    # Another number behind it may have been taken for its last groups.
    for end in (len(p.value), *(m.start() for m in reversed([*re.finditer(r"[] ./()-]+\d", p.value)]))):
        number = _EXTENSION.split(p.value[:end])[0]
        if not 7 <= len(re.sub(r"\D", "", number)) <= 15 + 2 * number.startswith("00"):
            continue
        if library is None or _possible(library, number):
            return p.value[:end]
    return ""


def _possible(library: Any, number: str) -> bool:
    digits = re.sub(r"\D", "", number.replace("(0)", "")).removeprefix("00")
    plain = "+" + re.sub(r"\A521(?=\d{10}\Z)", "52", digits)  # Mexican mobile numbers had a 1 until 2019
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


def _national(p: Place) -> str:
    """Groups of digits that are a phone number by their form, or by a word beside them."""
    number = _EXTENSION.split(p.value)[0]
    groups = re.findall(r"\d+", number)
    sizes, digits = [len(g) for g in groups], "".join(groups)
    if not 7 <= len(digits) <= 15 or len(set(digits)) == 1 or _other_groups(sizes, groups):
        return ""
    before, after = p.text[max(0, p.start - 2) : p.start], p.text[p.start + len(p.value) :][:1]
    glued = re.search(r"[^\W\d_][./-]\Z", before) or (after == "/" and sizes[-3:] != [3, 3, 4])  # RFC-2119 …
    if not glued and (number != p.value or _looks_like_one(number, sizes, groups)):
        return p.value
    return p.value if CUE.search(p.around()) else ""


def _other_groups(sizes: list[int], groups: list[str]) -> bool:
    """Whether these are the groups of something else: a social security number, two years, a date."""
    if sizes == [3, 2, 4] or (sizes == [4, 4] and all("1" <= g[0] <= "2" for g in groups)):
        return True
    return len(groups) == 3 and 4 in (sizes[0], sizes[2]) and sorted(sizes)[1] <= 2


def _looks_like_one(number: str, sizes: list[int], groups: list[str]) -> bool:
    year = sizes[0] == 4 and re.match(r"\((?:1[5-9]|20)", number)  # a volume's year, (1995) 123-456
    if (number[0] in "(0" and not year) or sizes[-3:] == [3, 3, 4]:
        return True
    if sizes == [1, 3, 3, 2, 2] or (sizes == [3, 4, 4] and re.match("1[3-9]", number)):  # Russian, Chinese
        return True
    if sizes == [3, 4]:  # and not the years of somebody's life, 973-1050
        return " " not in number and not 0 < int(groups[1]) - int(groups[0]) < 130
    return " " not in number and sizes == [2] * len(sizes) and len(sizes) in (4, 5)


def _said_to_be_one(p: Place) -> str:
    """Bare digits with a word beside them, and no round number."""
    return p.value if CUE.search(p.around()) and not re.fullmatch(r"\d{1,3}0{4,}", p.value) else ""


def _in_the_groups_of_a_country(p: Place) -> str:
    """Digits with a word beside them, valid in a country that writes its numbers in these groups."""
    library = _phonenumbers()
    if library is None or not CUE.search(p.around()):
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


# An underscore ends a word, and so does a capital behind a small letter: phone_number, homePhoneNumber.
CUE = re.compile(
    r"(?i)(?:(?<![^\W_])|(?-i:(?<=[a-z])(?=[A-Z])))(?:"
    r"(?:tele)?(?:phones?|fax|tel|mob|mobile|cell|call|dial|ring|whatsapp|sms|text|reach|answering|contact|office|hotline)|"
    r"(?:my|his|her|their|our) (?:(?:new|other|private|home|work|direct) )?(?:number|line)(?! of)|"
    r"(?:telefon|handy|mobil|rufnummer|durchwahl|telefoon)[^\W\d_]{0,12}|tlf|puh|telemóvel|ruf|rufen|anrufen|erreichbar|bel|gsm|"
    r"(?:meine|seine|ihre|unsere) (?:nummer|nr)|"
    r"téléphone|tél|portable|appel(?:er|ez|le)|joindre|(?:mon|son|notre) numéro(?! de)|"
    r"teléfono|móvil|celular|llám[^\W\d_]{1,5}|llama[^\W\d_]{0,3}|telefone|ligue|ligar|telefono|cellulare|"
    r"(?:mi|su|nuestro|mio|suo|meu) n[úu]mero(?! d[ei])|"
    r"телефон[^\W\d_]{0,2}|тел|моб|(?:по)?звони(?:те|ть)?|мой номер|komórk[aię]|zadzwoń|dzwonić|"
    r"cep|numaram|ara(?:yın|yabilirsiniz)|τηλ|τηλέφωνο|κινητό"
    r")(?:(?![^\W_])|(?-i:(?<=[a-z])(?=[A-Z])))|"
    r"☎|📞|📱|電話|携帯|ケータイ|ファックス|FAX|电话|手机|手機|拨打|致电|微信|전화|휴대폰|핸드폰|연락처|"
    r"هاتف|جوال|موبايل|اتصل|اتصال|تواصل|واتساب|رقمي|फोन|फ\u093cोन|मोबाइल"
)
