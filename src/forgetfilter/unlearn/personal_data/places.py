"""Streets and the post: house numbers with a street, post boxes, post codes."""

from __future__ import annotations

import re

from forgetfilter.unlearn.personal_data.forms import Pattern, Place, only_if, pattern


def places() -> tuple[Pattern, ...]:
    """Addresses, as far as they have a form of their own."""
    return (*_streets(), *_other_scripts(), *_post())


def _streets() -> tuple[Pattern, ...]:
    return (
        pattern(
            "ADDRESS",
            rf"(?<![\w/.$€£-])\d{{1,5}}[A-Za-z]?,? (?:\d{{1,5}} )?(?:{_WORD} ){{1,4}}"
            rf"(?i:(?:{_SHORT_STREETS})\.|(?:{STREETS})(?!\w))"
            rf"(?:[,\s]{{1,3}}{_UNIT})?(?:[,\s]{{1,3}}{_WORD}(?: {_WORD}){{0,2}},? (?:{_STATES}) \d{{5}}(?!\w))?",
            only_if(_of_a_house),
        ),
        pattern(
            "ADDRESS",
            rf"(?<![\w/.-])(?:\d{{1,5}},? (?:\d{{1,5}} |(?:bis|ter|quater),? )?)?(?i:{_STREETS_BEFORE})(?!\w)\.?"
            rf"(?: {_WORD}){{1,5}}(?:,? (?:n[°º.] ?)?\d{{1,5}}[A-Za-z]?(?:/(?:\d{{1,4}}|[A-Za-z]))?(?!\w))?",
            _street_first,
        ),
        pattern(
            "ADDRESS",
            rf"(?<![\w-])(?:\d{{1,4}} )?(?:[^\W\d_a-z][\w'.-]{{0,24}}+ )?[^\W\d_a-z][\w-]{{1,24}}[- ]?"
            rf"(?i:{_STREET_ENDINGS})(?:\.? |\.){_NUMBER}(?:, \d{{4,5}} [^\W\d_a-z][\w-]{{1,24}})?",
        ),
        pattern(
            "ADDRESS",  # Platz der Republik 1, Straße des 17. Juni 135
            rf"(?<!\w)(?:Platz|Straße|Strasse|Allee|Ufer|Weg) (?:de[rsmn]|am|im) (?:\d{{1,2}}\. )?"
            rf"[^\W\d_a-z][\w-]{{2,24}} {_NUMBER}",
        ),
        pattern("ADDRESS", r"(?<![\w-])(?:D|A|F|B|L|I|CH)-\d{4,5} [^\W\d_a-z][\w-]{2,24}"),
        pattern(  # in small letters
            "ADDRESS",
            r"(?<![\w-])[^\W\d_][\w-]{2,24}(?:straße|strasse|str\.|gasse|allee) \d{1,4}[a-z]?(?!\w|[.:,]\d)",
        ),
        pattern(
            "ADDRESS",  # Am Alten Markt 7
            rf"(?<![\w-])(?:Am|An der|An den|Auf de[mr]|Im|In der|Zum|Zur|Unter den|Hinter de[mr]) "
            rf"(?:[^\W\d_a-z][\w-]{{2,24}}+ )?(?:{_GERMAN_PLACES}) \d{{1,3}}[A-Za-z]?(?!\w|[.:,]\d)",
        ),
    )


def _of_a_house(p: Place) -> bool:
    """No little word between number and street (12 people on the street), no year before a comma, and a capital before
    what is a street only sometimes ($3 per square metre)."""
    other = re.search(rf" ([\w'.-]+) (?:{_OTHERWISE})(?!\w)", p.value)
    year = re.match(r"(?:1[5-9]|20)\d\d, ", p.value)
    return _no_little_word(p.value) and not year and (other is None or other[1][0].isupper())


def _no_little_word(value: str) -> bool:
    words = re.findall(r"[^\W\d_]+", value)
    return not any(word.lower() in _LITTLE and word.islower() for word in words)


def _street_first(p: Place) -> str:
    """Via Roma 12, rue in 5 rue Foch 75002, 14 rue des Lilas: a number, and a capital or numbers on both sides."""
    found = re.findall(r"(?<![/\d])\d+", p.value)
    first = re.search(r"[^\W\d_]", p.value)
    capital = first is not None and first[0].isupper()
    capital = capital or re.match(rf"(?:{_SURE_BEFORE})\.? [^\W\d_a-zà-ÿ]", p.value) is not None
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


def _other_scripts() -> tuple[Pattern, ...]:
    kanji = r"[\u4e00-\u9fff]"
    return (
        pattern(  # ул. Ленина, д. 5, кв. 12
            "ADDRESS",
            rf"(?i)(?<!\w)(?:ул|пр|пр-т|просп|пер|бул|б-р|наб|пл|вул|{_RUSSIAN_STREETS})(?:\. ?| )"
            r"[^\W\d_][\w.-]{1,24}(?: [^\W\d_][\w.-]{1,24}){0,2},? ?"
            r"(?:(?:д|дом|буд)\.? ?)?\d{1,4}[а-я]?(?:,? (?:кв|квартира|корп|стр|оф|под)\.? ?\d{1,4}){0,3}(?!\w)",
            needs="東",
        ),
        pattern(  # Невский проспект, 28
            "ADDRESS",
            rf"(?i)(?<!\w)[^\W\d_][\w-]{{2,24}} (?:{_RUSSIAN_STREETS}),? "
            r"(?:(?:д|дом)\.? ?)?\d{1,4}[а-я]?(?!\w)",
            needs="東",
        ),
        pattern(  # Bağdat Caddesi No: 145 D: 4
            "ADDRESS",
            rf"(?<!\w)(?:{_WORD} ){{1,3}}(?:Cad(?:desi|\.)|Cd\.|Sok(?:a[kğ][ıi]?|\.)|Sk\.|Bul(?:var[ıi]|\.)|"
            r"Mah(?:allesi|\.)),? "
            r"(?:(?i:no|numara)[:.]? ?)?\d{1,4}(?:/\d{1,3})?[A-Z]?(?:,? (?:D|Daire|Kat|K)[:.]? ?\d{1,3}){0,2}(?!\w)",
        ),
        pattern(  # شارع الملك فهد 25
            "ADDRESS",
            rf"(?<!\w)(?:شارع|طريق)(?: {_ARABIC}){{1,4}},? (?:رقم )?\d{{1,4}}(?!\w)",
            needs="東",
            blanked=False,
        ),
        pattern(  # a city, without its prefecture
            "ADDRESS",
            rf"{kanji}{{1,6}}市{kanji}{{1,4}}[区町村]{kanji}{{1,8}}\d{{1,4}}(?:-\d{{1,4}}){{1,2}}",
            needs="東",
            blanked=False,
        ),
        pattern(
            "ADDRESS",  # prefecture, or post code and prefecture, to the last number
            r"(?:〒? ?\d{3}-\d{4} {0,2})?(?:東京都|北海道|(?:京都|大阪)府|[\u4e00-\u9fff]{2,3}県)"
            r"[\u4e00-\u9fff\u3041-\u30ff々0-9-]{1,30}\d(?:丁目|番地?|号)?",
            needs="東",
            blanked=False,
        ),
        pattern(  # from the place that is lived in, to the number and what lies behind it
            "ADDRESS",
            rf"(?:(?<=[{_CHINESE_AT}])|(?<!{kanji}))(?:(?![{_CHINESE_AT}]){kanji}){{2,24}}?(?:大道|胡同|[路街道巷弄])\d{{1,5}}[号弄]"
            r"(?:(?:院|楼)?\d{1,4}(?:号楼|[楼栋幢层室号]|单元)){0,4}",
            needs="東",
            blanked=False,
        ),
        pattern(  # province or city, district, road, number
            "ADDRESS",
            r"(?<![가-힣])(?:[가-힣]{1,8}(?:특별시|광역시|시|도|군|구|읍|면|동) ){1,4}[가-힣0-9]{1,12}(?:로|길)"
            r" ?\d{1,4}(?:-\d{1,4})?(?!\d|시간|분|개|명|월|년|번째|원)",
            needs="東",
            blanked=False,
        ),
        pattern("ADDRESS", r"〒 ?\d{3}-\d{4}(?!\d)", needs="東", blanked=False),
    )


# --- the post ---


def _post() -> tuple[Pattern, ...]:
    return (
        pattern(
            "ADDRESS",
            r"(?<!\w)(?:(?i:P\. ?O\. ?Box|PO Box|Postfach)|PSC \d{1,5},? Box) \d{1,6}(?: \d\d){0,2}(?!\w)",
        ),
        pattern("ADDRESS", r"(?<!\w)[AFD]PO A[AEP],? \d{5}(?:-\d{4})?(?!\w)"),
        pattern("ADDRESS", rf"(?<!\w){_UNIT}"),
        pattern("ADDRESS", rf"(?<!\w)(?:{_STATES}),? \d{{5}}(?:-\d{{4}})?(?![\w-])"),
        pattern(
            "ADDRESS", r"(?<!\w)(?:[A-Z]{1,2}\d[A-Z\d]? \d[ABD-HJLNP-UW-Z]{2}|[A-Z]\d[A-Z] \d[A-Z]\d)(?!\w)"
        ),
        pattern(
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
_OTHERWISE = (
    "drive|court|way|place|square|circle|close|trail|row|loop|pike|plaza|alley"  # small, also other things
)
_SHORT_STREETS = "St|Ave|Rd|Dr|Ln|Ct|Blvd|Pl|Sq|Pkwy|Hwy"
_FRENCH_STREETS = "rue|avenue|boulevard|bd|chemin|allée|quai|place|impasse|route|cours"
_STREETS_BEFORE = (
    rf"{_FRENCH_STREETS}|via|viale|piazza|corso|rua|calle|avenida|avda|av|paseo|camino|"
    r"camiño|praça|plaza|largo|travessa|ul|ulica|ulice|os|al(?=\.)|aleja|aleje|alei|plac|placu|"
    r"vicolo|lungomare|strada|jalan|c/"
)
_SURE_BEFORE = (  # in small letters too
    r"al(?=\.)|aleja|aleje|alei|plac|placu|ul|ulica|ulice|calle|avenida|avda|rua|travessa|praça|c/|jalan"
)
_STREET_ENDINGS = (
    r"straße|strasse|str|straat|laan|plein|kade|steenweg|gracht|singel|dijk|weg|gatan|gata|vägen|vegen|veien|vej|"
    r"[srdn]gade|gasse|allee|platz|ufer|katu|tie|utca|ulica|tänav"
)
_GERMAN_PLACES = (
    "Markt|Ring|Damm|Hof|Tor|Graben|Park|Bahnhof|Kirche|Ufer|See|Wall|Anger|Linden|Berg|Bach|Mühle"
)
_CHINESE_AT = "在是到址寄往"  # in, is, to: an address begins behind them
_WORD = r"[^\W\d_][\w'.-]{0,24}+"
_NUMBER = (  # 12, 12-14, 10/5, 3 b, 263-H, 5-III
    r"\d{1,4}(?: ?[-/] ?\d{1,4}|-(?:[A-Za-z]|hs|huis|I{1,3}V?)(?!\w))?(?: ?[a-h](?!\w)|[A-Za-z])?(?!\w)"
)
_RUSSIAN_STREETS = (  # as they stand after in, on and of too
    "улиц(?:а|е|у|ы|ей)|проспект[ауе]?|переул(?:ок|ке|ка)|бульвар[ауе]?|набережн(?:ая|ой|ую)|шоссе|площад[ьи]|"
    "вулиц[яіюе]"
)
_ARABIC = r"[\u0621-\u064a]{2,20}"
_UNIT = r"(?:Suite|Apt\.?|Apartment|apt\.?|suite|Flat) ?#? ?\d{1,5}[A-Za-z]?(?!\w)"
