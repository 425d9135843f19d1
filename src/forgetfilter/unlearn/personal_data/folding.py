"""A copy of the text that patterns can read, and the way back from each of its characters.

People, word processors, web pages and file systems write one number or name in many ways: with no-break spaces,
en dashes and full-width digits, with invisible characters in it, with accents apart from their letters, as HTML
(&eacute;, &#64;), between the marks of Markdown. The copy has one spelling for all of them. A place in it maps back to
whole graphemes (user-perceived characters, Unicode Standard Annex 29) or HTML entities of the text as it stands.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from forgetfilter.unlearn.personal_data.spans import Detector, Span


class Folded(NamedTuple):
    """`text[i]` of the copy came from `original[starts[i]:ends[i]]`; both never decrease."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def back(self, start: int, end: int) -> tuple[int, int]:
        """The place in the original that `text[start:end]`, which is not empty, came from."""
        return self.starts[start], self.ends[end - 1]


def on_the_copy(find: Detector) -> Detector:
    """A detector of any text from one of folded copies: its spans, with their places and values in the original."""

    def find_in_original(text: str) -> list[Span]:
        copy = fold(text)
        found = []
        for span in find(copy.text):
            start, end = copy.back(span.start, span.end)
            found.append(Span(start, end, span.kind, text[start:end], span.how))
        return found

    return find_in_original


@lru_cache(maxsize=4)  # several detectors read a text one after the other
def fold(text: str) -> Folded:
    """The copy: NFKC grapheme by grapheme, typographic spaces and dashes as " " and "-", apostrophes as "'",
    digits of other scripts as 0 to 9, HTML entities as what they stand for, underscores around words as "*", invisible
    format characters taken out.

    Case stays. So do superscripts, subscripts, fractions and trademark signs: NFKC would write 5² as 52.
    """
    if text.isascii() and "\r\n" not in text and not ("&" in text and _ENTITY.search(text)):
        return Folded(_without_emphasis(text), range(len(text)), range(1, len(text) + 1))
    out: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for piece in _graphemes().finditer(text):
        place, end = piece.span()
        if piece[0].isascii() and piece[0][0] not in "&\r":
            out.extend(piece[0])
            starts.extend(range(place, end))
            ends.extend(range(place + 1, end + 1))
            continue
        folded = _folded(html.unescape(piece[0]))
        if folded and out and unicodedata.combining(folded[0]):
            # An accent that an invisible character had parted from its letter.
            whole = unicodedata.normalize("NFC", out[-1] + folded[0])
            if len(whole) == 1:
                out[-1], ends[-1], folded = whole, end, folded[1:]
        out.extend(folded)
        starts.extend([place] * len(folded))
        ends.extend([end] * len(folded))
    return Folded(_without_emphasis(_joined("".join(out))), starts, ends)


@lru_cache(maxsize=1)
def _graphemes():  # -> regex.Pattern[str]
    """Runs of plain ASCII (each character a grapheme unless a mark follows), else an HTML entity, else one grapheme."""
    import regex

    joined = r"[\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}]"
    return regex.compile(rf"(?:[\t\n -%'-~](?![^\t\n -~]))+|{_ENTITY.pattern}(?!{joined})|\X")


@lru_cache(maxsize=65536)
def _folded(grapheme: str) -> str:
    """One grapheme's spelling in the copy; "" where nothing of it is to be seen."""
    seen = "".join(c for c in grapheme if not _invisible(c))
    if any(unicodedata.decomposition(c).startswith(_KEPT) for c in seen):
        return seen
    plain = unicodedata.normalize("NFKC", "".join(_PLAIN.get(c, c) for c in seen))
    if plain[:1] == " " and plain.strip():  # a free-standing accent, which NFKC puts on a space
        return seen
    return "".join(_plain(c) for c in plain)


def _plain(char: str) -> str:
    if char in _PLAIN:
        return _PLAIN[char]
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    return " " if unicodedata.category(char) == "Zs" else char


def _invisible(char: str) -> bool:
    if unicodedata.category(char) == "Cf":
        return char not in _SEEN
    code = ord(char)
    return char in _FILLERS or 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF


def _joined(text: str) -> str:
    """Long dashes as "-" and raised dots as "." between digits, full stops of East Asia as "." between what is ASCII:
    elsewhere they part sentences, list things or are Japanese letters."""
    text = _BETWEEN_DIGITS.sub(lambda m: "-" if m[0] in _LONG_DASHES else ".", text)
    return _BETWEEN_ASCII.sub(".", text)


def _without_emphasis(text: str) -> str:
    """Underscores at a word's ends as "*": Markdown's marks are no part of a number or name. Those within a word, and
    in front of an address's sign, stay."""
    return _EMPHASIS.sub(lambda m: "*" * len(m[0]), text) if "_" in text else text


_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_EMPHASIS = re.compile(r"(?<![\w@.+-])_{1,3}(?=[^\W_]|[+(])|(?<=[^\W_])_{1,3}(?![\w@]|\.\w)")
_KEPT = ("<super>", "<sub>", "<fraction>")
_SEEN = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")  # Arabic number signs
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")
_LONG_DASHES = "\u2014\u2015\u30fc"  # em dash, bar, the Japanese sign for a long vowel
_BETWEEN_DIGITS = re.compile(rf"(?<=[0-9])[{_LONG_DASHES}\u00b7\u2022\u2027\u2219\u30fb](?=[0-9])")
_BETWEEN_ASCII = re.compile("(?<=[0-9A-Za-z])[\u3002\uff61](?=[0-9A-Za-z])")
_PLAIN = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2043\u2212\ufe58\ufe63\uff0d\u058a\u1806", "-"),
    **dict.fromkeys("\u2018\u2019\u201b\u02bc\u2032\u00b4\uff07", "'"),
    **dict.fromkeys("\u2044\u2215", "/"),
    **dict.fromkeys("\u2028\u2029\u0085", "\n"),
    "\u1680": " ",
}
