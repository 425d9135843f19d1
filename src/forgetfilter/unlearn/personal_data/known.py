"""Known values: what the training data is known to hold, found whatever its case, accents, spaces and typos."""

from __future__ import annotations

import itertools
import json
import os
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from forgetfilter.data.overlap import kind_of
from forgetfilter.errors import DataError
from forgetfilter.unlearn.personal_data.spans import Detector, Span

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
    from rapidfuzz.distance import Levenshtein

    if a == b:
        return 0
    letters_a, letters_b = set(a), set(b)
    if len(letters_a - letters_b) > limit or len(letters_b - letters_a) > limit:
        return None
    if [c for c in a if c.isdigit()] != [c for c in b if c.isdigit()]:
        return None
    edits = Levenshtein.distance(a, b, score_cutoff=limit)
    return edits if edits <= limit else None


_UNDECOMPOSED = {
    **dict(zip("łŁøØđĐðÐħĦıŧŦ", "llooddddhhitt", strict=True)),
    **{"æ": "ae", "Æ": "ae", "œ": "oe", "Œ": "oe", "þ": "th", "Þ": "th", "ß": "ss", "ẞ": "ss"},
}
