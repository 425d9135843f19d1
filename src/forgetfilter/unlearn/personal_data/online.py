"""Addresses of the post and the web: e-mail in the ways that people write it, pages, machines."""

from __future__ import annotations

import ipaddress
import re

from forgetfilter.unlearn.personal_data.forms import BLANK, OTHER_SCRIPTS, Pattern, Place, only_if, pattern


def online() -> tuple[Pattern, ...]:
    """E-mail addresses, addresses of pages and of machines."""
    return (*_email(), *_pages(), *_machines())


# --- e-mail ---


def _email() -> tuple[Pattern, ...]:
    other = OTHER_SCRIPTS.pattern
    word = rf"[\w.+{other[1:-1]}-]"  # their marks too, which are no letters
    at_other = f"(?:(?<={other})@|@(?={other}))"
    return (
        pattern(
            "EMAIL",
            rf"(?<![\w.+%'-])(?!git@){_LOCAL}(?:@|%40)(?:(?:[\w-]{{1,63}}\.){{1,6}}{_TOP}(?!\w|-[\w-]{{0,62}}\.\w)|"
            r"\[(?:\d{1,3}\.){3}\d{1,3}\])",
            needs="@%40",
        ),
        pattern("EMAIL", rf'(?<![\w"])"[^"\n@]{{1,64}}"@(?:[\w-]{{1,63}}\.){{1,6}}{_TOP}(?!\w)', needs="@"),
        # In a script without capitals, on one side of the sign or on both.
        pattern(
            "EMAIL",
            rf"(?<!{word}){word}{{1,64}}{at_other}{word}{{1,100}}(?<=\w)",
            only_if(lambda p: "." in p.value.partition("@")[2]),
            needs="@",
            blanked=False,
        ),
        # With blanks or a line's end in it, and an ending that is in common use.
        pattern(
            "EMAIL",
            rf"(?<![\w.+%'-])(?!git@){_LOCAL}(?: {{1,2}}@\s{{0,2}}|@\s{{0,2}})"
            rf"(?:[\w-]{{1,63}}(?:-\n[\w-]{{1,63}})?(?: ?\.\s?)){{1,4}}(?:{_USUAL_TOPS})(?![\w-]|\.\w)",
            needs="@",
        ),
        # ann (at) example.com, ann [at] example [dot] com
        pattern(
            "EMAIL",
            rf"(?i)(?<![\w.+%'-])(?!{_NO_LOCAL}){_LOCAL}\s?[\[({{<*]\s?(?:{_AT}|@)\s?[\])}}>*]\s?"
            rf"(?:[\w-]{{1,63}}{_DOT}){{1,4}}{_TOP}(?![\w-])",
            needs="(at)",
        ),
        # ann at example dot com
        pattern(
            "EMAIL",
            rf"(?i)(?<![\w.+%'-])(?!{_NO_LOCAL}){_LOCAL}(?: (?:{_POINT}) [\w-]{{1,30}}){{0,2}} {_SPOKEN}"
            rf"(?:{_USUAL_TOPS}|at|be|co|es|in|it|me|no|se|us)(?![\w-])",
            needs="dot",
        ),
        # ann AT example.com
        pattern(
            "EMAIL",
            rf"(?<![\w.+%'-])(?!{_NO_LOCAL})[a-z0-9._+-]{{1,64}} AT (?:[a-z0-9-]{{1,63}}\.){{1,4}}(?:{_USUAL_TOPS})"
            r"(?![\w-]|\.\w)",
            needs=" AT ",
        ),
        # mail me: ann at example.com
        pattern(
            "EMAIL",
            rf"(?i)(?<![^\W_])(?:e-?mail|mail|courriel|correo|adresse|address|schreib\w{{0,3}}|write|contact)[^\n@]{{1,30}}?"
            rf"(?<![\w.+%'-])(?P<value>(?!{_NO_LOCAL}){_LOCAL} (?:{_AT}) (?:[\w-]{{1,63}}\.){{1,4}}(?:{_USUAL_TOPS}))"
            r"(?![\w-]|\.\w)",
            needs="at",
        ),
    )


_LOCAL = r"[\w.+%'-]{1,64}(?:[#!~$/][\w.+%'-]{1,64}){0,2}"
_TOP = r"(?:xn--[a-z0-9-]{2,59}|[^\W\d_]{2,24})"
# Without those that are words of a sentence too, such as at, in, is, it, me, no.
_USUAL_TOPS = (
    "com|org|net|edu|gov|mil|info|biz|io|co\\.uk|org\\.uk|ac\\.uk|com\\.[a-z]{2}|de|fr|uk|nl|eu|pl|ru|ch|jp|cn|br|ca|au|"
    "example|test|dev|app"
)
_AT = "at|ät|arroba|arobase|chiocciola|apenstaartje|małpa|zavináč|snabel-a|собака"
_POINT = "dot|punkt|punto|ponto|point|punt|kropka|tečka|точка"
# at example dot, each language with its own words: in English a point is none
_SPOKEN = (
    "(?:"
    + "|".join(
        rf"(?:{at}) (?:[\w-]{{1,63}} {point} ){{1,4}}"
        for at, point in (
            ("at", "dot"), ("ät|at", "punkt"), ("arroba", "punto"), ("arroba", "ponto"), ("arobase", "point"),
            ("chiocciola", "punto"), ("apenstaartje|at", "punt"), ("małpa", "kropka"), ("zavináč", "tečka"),
            ("snabel-a", "punkt"), ("собака", "точка"),
        )
    )
    + ")"
)  # fmt: skip
POINTS = re.compile(rf" (?:{_POINT}) ", re.IGNORECASE)
AT_IN_BRACKETS = re.compile(rf"[\[({{<*]\s?(?:{_AT}|@)\s?[\])}}>*]", re.IGNORECASE)
AT_AFTER_A_CUE = re.compile(
    rf"(?:mail|courriel|correo|adres|schreib|write|contact).* (?:{_AT}) ", re.IGNORECASE
)
_DOT = rf"(?:\s?[\[({{<]\s?(?:{_POINT}|\.)\s?[\])}}>]\s?| (?:{_POINT}) |\.)"
_NO_LOCAL = (  # words that stand before a page's address: look at example dot com
    r"(?:look|looks|looking|find|visit|found|available|us|me|it|is|are|was|were|shop|buy|site|website|page|blog|live|"
    r"hosted|online|here|more|out|up|work|works|working|mail|email|address|contact|reach|write|meet|see|not|and|or|"
    r"you|him|her|them|download|published|posted|sign|one|stop|check|go|head|now|today|the|a|an)\b(?![.+])"
)


# --- the web ---


def _pages() -> tuple[Pattern, ...]:
    return (
        pattern(
            "URL",
            rf"(?i)(?<![\w@.])(?:https?://|www\.)[^\s<>\"'“”)\]}}{BLANK}]{{3,400}}(?<![.,;:!?])",
            needs="",
        ),
        pattern(
            "URL",  # a user's page, without https://
            r"(?i)(?<![\w@./-])(?:(?:github|linkedin|facebook|instagram|twitter|tiktok|reddit|x)\.com|t\.me)"
            r"/(?:in/|u/|user/|@)?[\w.-]{2,60}(?<![.])",
            needs="/",
        ),
    )


def _machines() -> tuple[Pattern, ...]:
    dot = r"(?:\.|\[\.\]|\(\.\))"  # 192[.]0[.]2[.]44 cannot be clicked on
    return (
        pattern("IP", rf"(?<![\d.])(?:\d{{1,3}}{dot}){{3}}\d{{1,3}}(?!\d|\.\d)", only_if(_ip)),
        pattern(
            "IP",
            r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])",
            only_if(_ip),
            needs=":",
        ),
    )


def _ip(p: Place) -> bool:
    try:
        address = ipaddress.ip_address(re.sub(r"[\[\]()]", "", p.value))
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified:
        return False
    if address.version == 6:
        return any(c.isdigit() for c in p.value) and len(p.value) > 6
    if address.packed[0] == 255:  # a mask of a network
        return False
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
