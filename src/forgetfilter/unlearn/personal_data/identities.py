"""National identity numbers and the numbers of documents.

Check digits and country rules come from python-stdnum. A form that many other numbers have too, or a check that
every tenth of them passes, wants a word before it.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from typing import Any, NamedTuple

from forgetfilter.unlearn.personal_data.forms import OTHER_SCRIPTS, Pattern, Place, only_if, pattern


def identities() -> tuple[Pattern, ...]:
    """Every national number in two patterns, the forms that speak for themselves and those that want a cue: one
    pass each, whatever the number of countries."""
    forms = "|".join(f"(?P<n{i}>{form.form})" for i, form in enumerate(IDENTITIES) if not form.cue)
    return (
        pattern("NATIONAL_ID", rf"(?ai)(?<!\w)(?<!\d[.-])(?:{forms})(?!\w|[.-]\d)", _sure, "checksum"),
        pattern(  # a letter or digit after another may begin a number of its own
            "NATIONAL_ID",
            r"(?i)(?<![A-Za-z0-9-])(?<!\d\W)(?<!\d - )"
            r"(?=(?P<value>(?:[A-Z]{0,5}|[A-Z]{2} (?=\d\d ?\d\d ?\d\d ?[A-D]\b))\d(?:(?: - |[ ./-])?[A-Z0-9]){4,14}))",
            _beside_a_cue,
            "checksum",
            blanked=False,
        ),
        pattern(
            "DOCUMENT",
            rf"(?i)(?:(?<![^\W_])(?:{_DOCUMENTS})|{_DOCUMENTS_OF_EAST_ASIA})(?:'?s)?"
            r"(?: ?-?(?:nummer|nr\.?))?(?: (?:licen[cs]e|card|id))?"
            r"(?: ?(?:number|num|n[°ºo.]|no\.?|nr\.?|nummer|numéro|número|numero|numer|numarası|numaram|серия|номер|"
            r"رقم|नंबर|号码?|番号|번호))?"
            r"(?: (?:is|ist|lautet|est|es|è))? ?[:#(是は]{0,2} {0,3}"
            r"(?P<value>\d{2} ?\d{2},? (?:No\.? ?|номер )?\d{6}|[A-Z]{1,3} \d{6,9}|[A-Z0-9-]{6,20})(?![A-Za-z0-9])",
            only_if(lambda p: any(c.isdigit() for c in p.value)),
            blanked=False,
        ),
    )


_DOCUMENTS = (
    "driver|driving|dl|passport|identity|national id|licen[cs]e plate|reisepass|personalausweis|führerschein|passeport|"
    "permis de conduire|carte d'identité|pasaporte|permiso de conducir|passaporto|carta d'identità|passaporte|paspoort|"
    "carnet de conducir|cédula|patente di guida|carta de condução|cartão de cidadão|rijbewijs|"
    "identiteitskaart|dow[óo]d osobisty|paszport|prawo jazdy|pasaport|ehliyet|паспорта?|водительское удостоверение|"
    "جواز السفر|رقم الجواز|पासपोर्ट"
)
_DOCUMENTS_OF_EAST_ASIA = "护照|驾驶证|駕駛證|旅券|パスポート|免許証|여권|운전면허"


def _words(cue: str) -> str:
    """The cue as a regex; short words count alone only (sin, but not since), where there are spaces between words."""
    return "|".join(
        word if len(word) > 4 or OTHER_SCRIPTS.match(word) else rf"(?<![^\W_]){word}(?![^\W_])"
        for word in cue.split("|")
    )


class Identity(NamedTuple):
    """A country's number: `module` of stdnum ("": the form is all there is to check), its form, and words (in small
    letters, between |) before it without which it is not believed."""

    module: str
    form: str
    cue: str = ""


IDENTITIES = (
    Identity("ar.cuit", r"(?:20|2[347]|3[034])-\d{8}-\d"),
    Identity("at.vnr", r"\d{4} ?\d{6}", "svnr|sv-nummer|versicherungsnummer"),
    Identity("au.tfn", r"\d{3}[ -]?\d{3}[ -]?\d{2,3}", "tfn|tax file number"),
    Identity("be.nn", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}"),
    Identity("be.nn", r"\d{11}", "niss|insz|rijksregister|registre national"),
    Identity("bg.egn", r"\d{10}", "егн|egn"),
    Identity("br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}"),
    Identity("br.cpf", r"\d{3}\.?\d{3}\.?\d{3}(?: ?- ?)?\d\d", "cpf"),
    Identity(
        "ca.sin",
        r"\d{3}(?P<gap>[ -]?)\d{3}(?P=gap)\d{3}",
        "sin|social insurance|assurance sociale|nas",
    ),
    Identity("ch.ssn", r"756\.\d{4}\.\d{4}\.\d{2}|756\d{10}"),
    Identity("cl.rut", r"\d{1,2}\.\d{3}\.\d{3}-[\dK]"),
    Identity("cl.rut", r"\d{7,8}-[\dK]", "rut"),
    Identity("cn.ric", r"\d{6} ?\d{8} ?\d{3}[\dX]"),
    Identity("cz.rc", r"\d{6}/?\d{3,4}", "rodné číslo|rodne cislo"),
    Identity(
        "de.idnr", r"\d\d[ /]?\d{3}[ /]?\d{3}[ /]?\d{3}", "steuer-id|steuerid|idnr|identifikationsnummer"
    ),
    Identity("dk.cpr", r"\d{6}-?\d{4}", "cpr|personnummer"),
    Identity("ee.ik", r"\d{11}", "isikukood"),
    Identity("es.dni", r"(?:\d{8}|\d{2}\.\d{3}\.\d{3})[ -]?[A-Z]"),
    Identity("es.nie", r"[XYZ][ -]?\d{7}[ -]?[A-Z]"),
    Identity("fi.hetu", r"\d{6}[-+A]\d{3}[0-9A-Y]"),
    Identity(
        "fr.nir", r"[12][ .-]?\d\d[ .-]?\d\d[ .-]?(?:\d\d|2[AB])[ .-]?\d{3}[ .-]?\d{3}(?: ?/ ?|[ .-])?\d\d"
    ),
    Identity("gb.nhs", r"\d{3}(?P<gap>[ -]?)\d{3}(?P=gap)\d{4}", "nhs"),
    # National Insurance: no check digit; QQ is the prefix of examples.
    Identity(
        "",
        r"(?-i:(?!BG|GB|KN|NK|NT|TN|ZZ)(?:QQ|[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z])) ?\d\d ?\d\d ?\d\d ?(?-i:[A-D])",
    ),
    Identity("", r"[A-Z]{2} ?\d\d ?\d\d ?\d\d ?[A-D]", "nino|national insurance|ni number"),
    Identity("gr.amka", r"\d{11}", "αμκα|amka"),
    Identity("hr.oib", r"\d{11}", "oib"),
    Identity("ie.pps", r"\d{7}[A-W][A-IW]?", "pps"),
    Identity("il.idnr", r"\d{9}", "תעודת זהות|teudat zehut"),
    Identity("in_.aadhaar", r"\d{4}(?P<gap>[ -]?)\d{4}(?P=gap)\d{4}", "aadhaar|aadhar|adhaar|आधार"),
    Identity("in_.pan", r"[A-Z]{5}\d{4}[A-Z]", "pan|पैन"),
    Identity("is_.kennitala", r"\d{6}-?\d{4}", "kennitala"),
    Identity("it.codicefiscale", r"[A-Z]{3} ?[A-Z]{3} ?\d\d[A-EHLMPRST]\d\d ?[A-Z]\d{3}[A-Z]"),
    Identity("jp.in_", r"\d{4}(?P<gap>[ -]?)\d{4}(?P=gap)\d{4}", "マイナンバー|個人番号|my number"),
    Identity("kr.rrn", r"\d{6} ?- ?\d{7}"),
    Identity("lt.asmens", r"\d{11}", "asmens kodas"),
    Identity("mx.curp", r"[A-Z]{4}\d{6}[HM][A-Z]{5}[A-Z\d]\d"),
    Identity("nl.bsn", r"\d{4}\.?\d\d\.?\d{3}", "bsn|burgerservicenummer|sofinummer"),
    Identity("no.fodselsnummer", r"\d{6} ?\d{5}", "fødselsnummer|personnummer|fnr"),
    Identity("pl.pesel", r"\d{11}", "pesel"),
    Identity("pt.nif", r"\d{3} ?\d{3} ?\d{3}", "nif|contribuinte"),
    Identity("ro.cnp", r"\d{13}", "cnp"),
    Identity("ru.inn", r"\d{12}", "инн"),
    Identity("", r"\d{3}-\d{3}-\d{3} \d\d", "снилс"),
    Identity("se.personnummer", r"(?:\d\d)?\d{6}[-+]\d{4}", "personnummer|pnr"),
    Identity("th.pin", r"\d-?\d{4}-?\d{5}-?\d{2}-?\d", "บัตรประชาชน"),
    Identity("tr.tckimlik", r"\d{11}", "kimlik|tckn"),
    Identity("us.itin", r"9\d\d-\d\d-\d{4}"),
    Identity("us.ssn", r"\d{3}(?P<gap>[ -])\d{2}(?P=gap)\d{4}"),
    # With the word before it, a number that was never given out counts too.
    Identity("", r"\d{3}(?P<gap> - |[ .-]?)\d{2}(?P=gap)\d{4}", "ssn|social security"),
    Identity("za.idnr", r"\d{13}", "id number|identity"),
)


def _sure(p: Place) -> str:
    """The value where the check of the country holds whose group n0, n1, … of the match took part."""
    return next(
        (
            _held(p, int(name[1:]))
            for name, found in p.match.groupdict().items()
            if name[1:].isdigit() and found
        ),
        "",
    )


def _beside_a_cue(p: Place) -> str:
    """The beginning of the value that has form and check of a country whose word stands before it."""
    said = _cues().search(re.split(r"\d", p.text[max(0, p.start - 70) : p.start])[-1])
    if said is None:
        return ""
    countries = [i for i, form in enumerate(IDENTITIES) if said[1].lower() in form.cue.split("|")]
    return next(filter(None, (_held(p, country) for country in countries)), "")


def _held(p: Place, country: int) -> str:
    """What stands at the place in the country's form, if its check holds."""
    module, found = IDENTITIES[country].module, _forms()[country].match(p.text, p.start)
    if found is None:
        return ""
    number = re.sub(r"[ ./-]", "", found[0]) if module in _BARE else found[0]
    return found[0] if not module or _stdnum(module).is_valid(number.upper()) else ""


@cache
def _cues() -> re.Pattern[str]:
    """A word for an identity number, and up to forty characters without a digit to the end."""
    cues = "|".join(dict.fromkeys(_words(form.cue) for form in IDENTITIES if form.cue))
    return re.compile(rf"(?i)({cues})\D{{0,40}}\Z")


@cache
def _forms() -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(rf"(?ai)(?:{i.form})(?![A-Z0-9_]|[.-]\d)") for i in IDENTITIES)


@cache
def _stdnum(module: str) -> Any:
    return importlib.import_module(f"stdnum.{module}")


_BARE = {
    "es.dni", "es.nie", "fr.nir", "au.tfn", "in_.aadhaar", "jp.in_", "us.ssn", "de.idnr", "gb.nhs", "nl.bsn", "cz.rc",
    "pt.nif", "th.pin", "at.vnr", "br.cpf", "cn.ric", "it.codicefiscale", "kr.rrn",
}  # fmt: skip
