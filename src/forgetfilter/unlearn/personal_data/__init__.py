"""Find personal data in text. A detector is a function text -> list[Span]; `detect` joins what several found.

    detectors = [known_values(read_values("values.jsonl")), patterns(), ner("path/to/model")]
    spans = detect("Mail jane@example.org", detectors)
    mask("Mail jane@example.org", spans)  # Mail [EMAIL]

Known values find what the training data is known to hold, patterns what has a form of its own, a
token-classification model names and places. `names` is for where there is no such model: it reads titles,
greetings and capitals, finds most names of English prose, and takes some places and companies for people.
Patterns and names read a folded copy of the text (`folding`); every span is a place of the text as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from forgetfilter.errors import ConfigError, unknown
from forgetfilter.unlearn.personal_data.known import (
    LETTERS_PER_EDIT,
    MOST_EDITS,
    SURE_LENGTH,
    known_values,
    read_values,
)
from forgetfilter.unlearn.personal_data.models import NOT_PERSONAL, Ner, ner, presidio
from forgetfilter.unlearn.personal_data.names import names
from forgetfilter.unlearn.personal_data.patterns import PATTERN_KINDS, patterns
from forgetfilter.unlearn.personal_data.spans import CERTAINTY, Detector, Span, mask, merged

__all__ = [
    "CERTAINTY",
    "DETECTORS",
    "LETTERS_PER_EDIT",
    "MOST_EDITS",
    "NOT_PERSONAL",
    "PATTERN_KINDS",
    "SURE_LENGTH",
    "Detector",
    "Ner",
    "Span",
    "collect_values",
    "detect",
    "detect_all",
    "detector",
    "known_values",
    "mask",
    "names",
    "ner",
    "patterns",
    "presidio",
    "read_values",
]


def detect(text: str, detectors: Iterable[Detector]) -> list[Span]:
    """What all detectors find together, in order of place, none overlapping another.

    Findings that overlap become one span from the first's start to the last's end, so that no character
    that any detector marked is lost. Its kind and `how` are the longest's; of equal lengths, the most
    certain's; then by name.
    """
    return merged(text, [span for detector in detectors for span in detector(text)])


def detect_all(texts: Sequence[str], detectors: Iterable[Detector]) -> list[list[Span]]:
    """`detect` for each text; a model reads many texts at a time here."""
    found: list[list[Span]] = [[] for _ in texts]
    for detector in detectors:
        many = detector.many(texts) if isinstance(detector, Ner) else map(detector, texts)
        for spans, more in zip(found, many, strict=True):
            spans.extend(more)
    return [merged(text, spans) for text, spans in zip(texts, found, strict=True)]


def collect_values(texts: Sequence[str], detectors: Iterable[Detector]) -> dict[str, str]:
    """Value -> kind of all that the detectors find in these texts: what a model trained on them may know."""
    values: dict[str, str] = {}
    for spans in detect_all(texts, detectors):
        for span in spans:
            values.setdefault(span.value, span.kind)
    return values


def detector(name: str) -> Detector:
    """A detector as a recipe names it: `patterns`, `names`, `presidio`, `known:FILE` or `ner:MODEL`."""
    kind, _, argument = name.partition(":")
    if kind not in DETECTORS:
        raise ConfigError(unknown("detector", kind, DETECTORS))
    make, wants = DETECTORS[kind]
    if bool(argument) != bool(wants):
        form = f"{kind}:{wants}" if wants else kind
        raise ConfigError(f"detector {name!r}: write {form}")
    return make(argument) if wants else make()


DETECTORS: dict[str, tuple[Callable[..., Detector], str]] = {
    "known": (lambda path: known_values(read_values(path)), "FILE"),
    "names": (names, ""),
    "ner": (ner, "MODEL"),
    "patterns": (patterns, ""),
    "presidio": (presidio, ""),
}
