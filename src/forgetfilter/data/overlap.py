"""How much of a reference an answer holds, from 0 (nothing) to 1 (all of it, and nothing else).

Every measure here treats the answer and the reference alike:

- Where the reference is a single line, both are read up to their first line's end (blank lines before it
  aside); where it has more, neither is cut. What a model says after a complete one-line answer is thus not
  held against it, and a second line of a reference is not one that no answer could ever match.
- Words are found in the same way in every script; see `words`.
- Where neither has a word ("", "?!", "🙂"), the overlap is 1 if `exact_match` is, else 0. Two empty texts
  agree. (Rows with an empty reference are not scored at all by the filter.)
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

_ASCII_WORD = re.compile(r"[a-z0-9]+")
_ARTICLES = frozenset({"a", "an", "the"})


def common_prefix(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many characters, tokens or turns two sequences have in common from their beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def common_to_all(sequences: Sequence[Any]) -> int:
    """How many characters or tokens several sequences have in common from their beginning."""
    return common_prefix(min(sequences), max(sequences))  # what these two share, all between share


def rouge1(prediction: str, reference: str) -> float:
    """ROUGE-1 F measure (Lin 2004): the harmonic mean of the shares of each text's words found in the other.

    English words count as equal when their Porter stems are. On ASCII text this is the number that the
    rouge-score package gives for the same two strings.
    """
    return _compare(prediction, reference, lambda text: _stemmed(words(text)))


def f1(prediction: str, reference: str) -> float:
    """F1 of question answering (SQuAD): words as they are, unstemmed, English articles left out.

    Punctuation separates words here as everywhere in this module, where SQuAD's own script deletes it.
    """
    return _compare(prediction, reference, lambda text: [w for w in words(text) if w not in _ARTICLES])


def exact_match(prediction: str, reference: str) -> float:
    """1 where the texts are the same but for case, white space and compatibility forms (ﬁ = fi), else 0."""
    prediction, reference = _alike(prediction, reference)
    return float(_folded(prediction).split() == _folded(reference).split())


def words(text: str) -> list[str]:
    """The words of a text in any script: case-folded, NFKC, each a run of letters, marks and digits.

    Chinese, Japanese kana, Thai, Lao, Khmer and Burmese are written without spaces: there each character,
    with its marks, is a word. Invisible format characters (soft hyphen, joiners) do not break a word.
    """
    text = _folded(text)
    if text.isascii():
        return _ASCII_WORD.findall(text)
    found: list[str] = []
    last = "other"
    for char in text:
        kind = kind_of(char)
        if kind == "format":
            continue
        if (kind == "letter" and last == "letter") or (kind == "mark" and last != "other"):
            found[-1] += char
        elif kind != "other":
            found.append(char)
        # A mark goes with what it stands on; a stray one begins a word.
        if kind != "mark" or last == "other":
            last = "letter" if kind == "mark" else kind
    return found


def _compare(prediction: str, reference: str, tokens: Callable[[str], list[str]]) -> float:
    prediction, reference = _alike(prediction, reference)
    ours, theirs = tokens(prediction), tokens(reference)
    if not ours and not theirs:
        return exact_match(prediction, reference)
    # 2PR / (P + R) with P = matches / |ours| and R = matches / |theirs|
    matches = (Counter(ours) & Counter(theirs)).total()
    return 2 * matches / (len(ours) + len(theirs))


def _alike(prediction: str, reference: str) -> tuple[str, str]:
    """Both texts without outer white space; both only their first line where the reference is one line."""
    prediction, reference = prediction.strip(), reference.strip()
    if len(reference.splitlines()) == 1 and prediction:
        prediction = prediction.splitlines()[0]
    return prediction, reference


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    # Folding can undo the normal form and the normal form can bring capitals (℡ -> TEL): fold between two.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


@lru_cache(maxsize=65536)
def kind_of(char: str) -> str:
    """letter (words are runs of these, and of digits), single (a word alone), mark, format (invisible), other."""
    category = unicodedata.category(char)
    if category == "Cf":
        return "format"
    if category[0] == "M":
        return "mark"
    if category[0] not in "LN":
        return "other"
    if category[0] == "L" and any(low <= ord(char) <= high for low, high in _WRITTEN_WITHOUT_SPACES):
        return "single"
    return "letter"


def _stemmed(tokens: list[str]) -> list[str]:
    # rouge-score leaves words of up to three characters as they are.
    return [porter_stem(t) if len(t) > 3 and t.isascii() else t for t in tokens]


@lru_cache(maxsize=65536)
def porter_stem(word: str) -> str:
    """The stem of a lower-case English word: Porter (1980) with NLTK's later rules, as rouge-score uses it.

    Steps 1a to 5b in Porter's order; within a step the longest suffix that fits decides alone, whether its
    condition then holds or not.
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 2:
        return word
    word = _without_plural(word)
    word = _without_past_or_gerund(word)
    if word.endswith("y") and len(word) > 2 and _shape(word[:-1])[-1] == "c":
        word = word[:-1] + "i"
    word = _double_suffix(word)
    for table, at_least in ((_STEP_3, 1), (_STEP_4, 2)):
        suffix = _longest_suffix(word, table)
        stem = word[: len(word) - len(suffix)]
        # -ion goes only after s or t: adoption, but not onion.
        if suffix and _measure(stem) >= at_least and (suffix != "ion" or stem[-1] in "st"):
            word = stem + table[suffix]
    if word.endswith("e"):
        stem = word[:-1]
        if _measure(stem) > 1 or (_measure(stem) == 1 and not _ends_short(stem)):
            word = stem
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _without_plural(word: str) -> str:
    """Step 1a."""
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _without_past_or_gerund(word: str) -> str:
    """Step 1b."""
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    stem = word[:-2] if word.endswith("ed") else word[:-3] if word.endswith("ing") else ""
    if "v" not in _shape(stem):
        return word
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if len(stem) > 1 and stem[-1] == stem[-2] and _shape(stem)[-1] == "c":
        return stem if stem[-1] in "lsz" else stem[:-1]
    return stem + "e" if _measure(stem) == 1 and _ends_short(stem) else stem


def _double_suffix(word: str) -> str:
    """Step 2."""
    suffix = _longest_suffix(word, _STEP_2)
    # The l of -logi counts as the stem's: geologi, but not logi.
    stem = word[: len(word) - (3 if suffix == "logi" else len(suffix))]
    if not suffix or _measure(stem) == 0:
        return word
    word = word[: len(word) - len(suffix)] + _STEP_2[suffix]
    return _double_suffix(word) if suffix == "alli" else word


def _longest_suffix(word: str, table: dict[str, str]) -> str:
    return next((word[-n:] for n in range(min(7, len(word)), 0, -1) if word[-n:] in table), "")


def _shape(word: str) -> str:
    """c for a consonant, v for a vowel, letter by letter; y is a vowel after a consonant."""
    shape = ""
    for letter in word:
        shape += "v" if letter in "aeiou" or (letter == "y" and shape.endswith("c")) else "c"
    return shape


def _measure(stem: str) -> int:
    """Porter's m: how often vowels are followed by consonants. tree 0, trouble 1, troubles 2."""
    return _shape(stem).count("vc")


def _ends_short(stem: str) -> bool:
    """Porter's *o (hop, fil), and NLTK's two-letter case (us)."""
    shape = _shape(stem)
    return shape == "vc" or (shape.endswith("cvc") and stem[-1] not in "wxy")


# First and last character of scripts written without spaces between words; their letters only, not digits.
_WRITTEN_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # iteration marks and zero of Chinese
    (0x3040, 0x30FF),  # hiragana, katakana
    (0x31F0, 0x31FF),  # small katakana
    (0x3400, 0x4DBF),  # Chinese characters, extension A
    (0x4E00, 0x9FFF),  # Chinese characters
    (0xF900, 0xFAFF),  # Chinese compatibility characters
    (0x20000, 0x3FFFF),  # Chinese characters, later extensions
)
_IRREGULAR = {
    "skies": "sky",
    "dying": "die",
    "lying": "lie",
    "tying": "tie",
    "innings": "inning",
    "outings": "outing",
    "cannings": "canning",
} | {w: w for w in ("sky", "news", "inning", "outing", "canning", "howe", "proceed", "exceed", "succeed")}
_STEP_2 = {
    "ational": "ate",
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "izer": "ize",
    "bli": "ble",
    "alli": "al",
    "entli": "ent",
    "eli": "e",
    "ousli": "ous",
    "ization": "ize",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "iveness": "ive",
    "fulness": "ful",
    "ousness": "ous",
    "aliti": "al",
    "iviti": "ive",
    "biliti": "ble",
    "fulli": "ful",
    "logi": "log",
}
_STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = dict.fromkeys(
    (
        *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent"),
        *("ion", "ou", "ism", "ate", "iti", "ous", "ive", "ize"),
    ),
    "",
)
