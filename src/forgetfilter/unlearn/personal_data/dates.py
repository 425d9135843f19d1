"""Days: in figures, with the month's name, as East Asian calendars write them, and two-digit years beside a birth."""

from __future__ import annotations

import calendar
import re

from forgetfilter.unlearn.personal_data.forms import Pattern, Place, only_if, pattern


def dates() -> tuple[Pattern, ...]:
    """Days that the calendar has."""
    time = r"(?:[T ,]{1,2}\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?"
    return (
        pattern(
            "DATE",
            rf"(?<![\w/.-])(\d{{1,4}})([/.-])(\d{{1,2}})\2(\d{{2,4}}){time}(?![\w/-]|\.\d| ?=)",
            only_if(_date),
        ),
        pattern(  # 12 / 03 / 1985, 12. 3. 1985
            "DATE", r"(?<![\w/.-])(\d{1,2})( / |\. )(\d{1,2})\2(\d{4})(?![\w/-]|\.\d)", only_if(_date)
        ),
        pattern(
            "DATE",
            rf"(?i)(?<!{_LATIN})(?:\d{{1,2}}(?:st|nd|rd|th|er|º|°|\.)?(?: day)?(?: ?[-/] ?| (?:of |de |d')?)?"
            rf"(?=[^\W\d_]){_MONTHS}\.?,?(?: ?[-/] ?| (?:del? |of )?)?(?:\d{{4}}|(?:'|(?<=-))\d\d)|"
            rf"{_ENGLISH}(?:\.? (?:the )?|[-/])\d{{1,2}}(?:st|nd|rd|th)?(?:,? |[-/])\d{{4}}|"
            rf"(?:19|20)\d\d[/-]{_MONTHS}[/-]\d{{1,2}})(?!{_LATIN})",
            blanked=False,
        ),
        pattern(
            "DATE",
            rf"(?i)(?:(?<![^\W_])(?:{_BORN})(?![^\W_])|生年月日|出生|생년월일|تاريخ الميلاد)\D{{0,20}}"
            r"(?P<value>(\d{1,2})([ ./-])(\d{1,2})\3(\d{4}|\d{2})|\d{4} \d\d \d\d|\d{8})(?![\w/-]|\.\d)",
            only_if(_birth),
            blanked=False,
        ),
        pattern(
            "DATE",
            r"(?<!\d)(\d{4}) ?[年년] ?(\d{1,2}) ?[月월] ?(\d{1,2}) ?[日일号]",
            only_if(lambda p: _is_day(*(int(n) for n in p.match.groups()))),
            needs="東",
            blanked=False,
        ),
        pattern(
            "DATE",
            rf"(?<![{_FIGURES}])[{_FIGURES}]{{4}}年[{_FIGURES}]{{1,3}}月[{_FIGURES}]{{1,3}}[日号]",
            needs="年",
            blanked=False,
        ),
        pattern(  # the years of an emperor
            "DATE",
            r"(?:明治|大正|昭和|平成|令和) ?(?:\d{1,2}|元) ?年 ?\d{1,2} ?月 ?\d{1,2} ?日",
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


def _birth(p: Place) -> bool:
    """The same beside a word for a birth, where a two-digit year or none of the marks will do."""
    _, first, _, second, third = p.match.groups()
    if first is None:
        n = p.value.replace(" ", "")
        return any(
            1800 < int(year) < 2100 and _is_day(int(year), int(month), int(day))
            for year, month, day in ((n[:4], n[4:6], n[6:]), (n[4:], n[:2], n[2:4]), (n[4:], n[2:4], n[:2]))
        )
    year = int(third) if len(third) == 4 else 1900 + int(third)
    return _is_day(year, int(first), int(second)) or _is_day(year, int(second), int(first))


def _is_day(year: int, month: int, day: int) -> bool:
    return 1000 <= year < 2200 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]


_BORN = (
    r"born|birth|birthday|birthdate|d\.?o\.?b|geb|geboren|geburtsdatum|geburtstag|née?|naissance|nacid[oa]|nacimiento|"
    r"nat[oa]|nascit[oa]|nascid[oa]|nascimento|geboortedatum|urodzon[ya]|født|född|родил\w{1,3}|рождения"
)
_LATIN = r"[0-9A-Za-z\u00c0-\u024f]"  # other letters may touch a day
_FIGURES = "〇零一二三四五六七八九十"
_ENGLISH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)"
)
# English, German, French, Spanish, Italian, Portuguese, Dutch, Swedish, Danish, Polish, Russian, and as genitives
# Ukrainian, Czech, Finnish, Greek; Turkish, Arabic, Hindi
_NAMES_OF_MONTHS = frozenset(
    re.findall(
        r"\S+",
        """
        january jan february feb march mar april apr may june jun july jul august aug september sept sep
        october oct november nov december dec
        januar jänner februar märz maerz mär mai juni juli oktober okt dezember dez
        janvier janv février févr fevrier mars avril avr juin juillet août aout septembre octobre novembre
        décembre déc
        enero febrero marzo abril mayo junio julio agosto septiembre setiembre octubre noviembre diciembre
        gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre
        janeiro fevereiro março maio junho julho setembro outubro novembro dezembro
        januari februari maart mei augustus augusti maj marts januari
        stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada grudnia
        січня лютого березня квітня травня червня липня серпня вересня жовтня листопада грудня
        ledna února března dubna května června července srpna října listopadu prosince
        tammikuuta helmikuuta maaliskuuta huhtikuuta toukokuuta kesäkuuta heinäkuuta elokuuta syyskuuta
        lokakuuta marraskuuta joulukuuta
        ιανουαρίου φεβρουαρίου μαρτίου απριλίου μαΐου ιουνίου ιουλίου αυγούστου σεπτεμβρίου οκτωβρίου
        νοεμβρίου δεκεμβρίου
        ocak şubat mart nisan mayıs haziran temmuz ağustos eylül ekim kasım aralık
        يناير فبراير مارس أبريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر
        जनवरी फरवरी मार्च अप्रैल मई जून जुलाई अगस्त सितंबर अक्टूबर नवंबर दिसंबर
        января февраля марта апреля мая июня июля августа сентября октября ноября декабря
        """,
    )
)
_MONTHS = f"(?:{'|'.join(sorted(_NAMES_OF_MONTHS, key=lambda name: (-len(name), name)))})"
