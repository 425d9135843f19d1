"""A substitution cipher: every letter stands for another one, by a key drawn at random."""

from __future__ import annotations

import random
from collections.abc import Mapping
from string import ascii_lowercase as letters


def key(rng: random.Random) -> dict[int, int]:
    """A translation table in which no letter stands for itself, for small letters and capitals alike."""
    while True:
        drawn = "".join(rng.sample(letters, len(letters)))
        if all(a != b for a, b in zip(letters, drawn, strict=True)):
            return str.maketrans(letters + letters.upper(), drawn + drawn.upper())


def spell(text: str, table: Mapping[int, int]) -> str:
    """`text` in the cipher; what is no letter of the English alphabet stays."""
    return text.translate(table)
