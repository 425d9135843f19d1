"""The rows that come with the package, all written for the project from its own templates.

`demo` is a custom file to try the filter on: 960 rows, a quarter unsafe, the truth in its column `unsafe`.
The others are safe rows to review with: `bias` holds questions about two people, answered from the context
or with "can't be determined"; `toxicity` polite replies and friendly posts; `harmfulness` refusals of harmful
requests; `general`, the default, all three kinds and some helpful answers, for data whose unsafe rows may be
of any kind.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from forgetfilter.errors import ConfigError, unknown

NAMES: tuple[str, ...] = ("general", "bias", "toxicity", "harmfulness", "demo")


def path(name: str) -> Path:
    """The file of a bundled pack, by `general` or `pack:general`; an unknown name raises ConfigError."""
    plain = name.removeprefix("pack:")
    if plain not in NAMES:
        raise ConfigError(unknown("pack", plain, NAMES))
    return Path(str(resources.files("forgetfilter") / "nano" / "packs" / f"{plain}.jsonl"))
