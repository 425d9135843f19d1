"""Everything a user can fix is raised as one of these, in the user's words; the CLI prints it and exits."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

DONE, WRONG_INPUT, TOO_WEAK, INTERRUPTED = 0, 2, 3, 130  # exit codes of every command


class ForgetfilterError(Exception):
    """Root of the tree. The message says what was found, where, and what to do."""

    exit_code = WRONG_INPUT


class ConfigError(ForgetfilterError):
    """A command, flag, setting or recipe that cannot be followed."""


class DataError(ForgetfilterError):
    """A file of rows that cannot be used as it is: names file, line, field, what was found, remedy."""


class ModelError(ForgetfilterError):
    """A model or tokenizer that cannot be loaded or used."""


class EvaluationError(ForgetfilterError):
    """A measurement that cannot be made, or results that must not be compared."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """`unknown signal 'rogue1'; did you mean 'rouge1'? known: …` — the words for a name not in a table."""
    known = sorted(known)
    return f"unknown {kind} {name!r}{nearest(name, known) or ';'} known: {', '.join(known)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'rouge1'?`, or nothing where no name is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
