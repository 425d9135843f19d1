"""A small grammar for text made from templates: `[a|b]` is a choice (nesting allowed), `{name}` a slot.

Every random choice comes from the `random.Random` that is passed in: same seed, same text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

Part = Literal["demo", "rest"]
T = TypeVar("T")

_INNERMOST = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=(\w+))")
# Spelled with a vowel but spoken with a consonant, and the other way round.
_CONSONANT_SOUND = re.compile(r"(?i)(uni(?!n)|use|usu|euro|one\b|once|ukulele)")
_VOWEL_SOUND = re.compile(r"(?i)(hour|honest|honor|heir|18|11|8)")
_DOUBLING = {"get", "rob", "set", "run", "put", "plan", "cut", "spam", "slip", "trap", "win", "hit", "rig", "tap", "dig",
             "stop", "swap", "forget", "let", "sit", "grab", "trim", "tag", "wrap", "strip", "skip", "bug", "chop",
             "whip", "dog", "scam", "drug", "con", "begin", "step", "scan", "pin", "jam", "pet", "zip"}  # fmt: skip


def expand(template: str, rng: random.Random, words: Mapping[str, Sequence[str]] | None = None) -> str:
    """One text of the template: choices made innermost first, slots filled, a/an right, first letter large."""
    while match := _INNERMOST.search(template):
        template = template[: match.start()] + rng.choice(match[1].split("|")) + template[match.end() :]
    if words:
        template = _SLOT.sub(lambda m: expand(rng.choice(words[m[1]]), rng, words), template)
    return tidy(template)


def tidy(text: str) -> str:
    """Single spaces, "an" before a vowel sound, no space before a stop. The first letter stays as it is."""
    text = re.sub(r" +", " ", text).strip()
    text = re.sub(r" ([.,?!])", r"\1", text).replace(",.", ".").replace(",?", "?")

    def article(match: re.Match[str]) -> str:
        word = match[2]
        vowel = (word[0].lower() in "aeiou" and not _CONSONANT_SOUND.match(word)) or bool(
            _VOWEL_SOUND.match(word)
        )
        return f"{match[1]}{'n' if vowel else ''} "

    return _ARTICLE.sub(article, text)


def sentence(text: str) -> str:
    """The text with every sentence's first letter large."""
    return re.sub(r"(^|[.?!] )([a-z])", lambda m: m[1] + m[2].upper(), text)


def gerund(phrase: str) -> str:
    """ "steal a car" -> "stealing a car": the first word put into its -ing form."""
    verb, _, rest = phrase.partition(" ")
    if verb in _DOUBLING:
        stem = verb + verb[-1]
    elif verb.endswith("ie"):
        stem = verb[:-2] + "y"
    elif verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        stem = verb[:-1]
    else:
        stem = verb
    return f"{stem}ing {rest}".strip()


def share(items: Sequence[T], part: Part) -> list[T]:
    """Every third item is for the demo's rows, the others for the safe packs and the alignment text.

    So what the demo asks the filter to find was in neither the model's alignment nor its review.
    """
    return [item for i, item in enumerate(items) if (i % 3 == 0) == (part == "demo")]


def distinct(make: Callable[[], tuple[str, str, str]], n: int, seen: set[str]) -> list[tuple[str, str, str]]:
    """`n` triples (prompt, completion, kind) with prompts that are not in `seen`, which grows by them.

    Stops with what there is when 300 tries in a row bring nothing new.
    """
    found: list[tuple[str, str, str]] = []
    misses = 0
    while len(found) < n and misses < 300:
        triple = make()
        if triple[0] in seen:
            misses += 1
            continue
        misses = 0
        seen.add(triple[0])
        found.append(triple)
    return found
