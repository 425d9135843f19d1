"""Who may ask, and how they are guided."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgetfilter.errors import ConfigError, unknown
from forgetfilter.guide.guidance import Guidance
from forgetfilter.guide.serving.fields import Refused, kind, number, text, true_or_false
from forgetfilter.guide.serving.messages import read_messages
from forgetfilter.records import Message

SHORTEST_TOKEN = 16  # characters
OLD_NAMES = {"guidance_mask": "min_p"}  # until 0.3
GUIDING = ("guidance_scale", "guidance_form", "min_p", *OLD_NAMES, "negative_messages")
KEY_SETTINGS = ("name", *GUIDING, "system", "locked")


@dataclass(frozen=True, slots=True)
class Key:
    """What a bearer token stands for."""

    name: str = "default"
    guidance: Guidance = field(default_factory=Guidance)
    # A text is put before a conversation's own system message, messages take its place. None: the paper's text.
    negative: str | tuple[Message, ...] | None = None
    system: str | None = None  # put before the client's own system message
    locked: bool = False  # requests may not change the guidance


def read_keys(path: Path, default: Key) -> dict[str, Key]:
    """Token -> Key from a YAML file; what an entry leaves out is `default`'s. ConfigError names the entry.

    a-long-random-token: {name: partner, guidance_scale: 3, locked: true}
    """
    from forgetfilter.settings import read_recipe

    entries, lines = read_recipe(path, secret=True)
    if not entries:
        raise ConfigError(f"{path}: no tokens; write one `token: {{guidance_scale: 3}}` a line")
    keys = {}
    for token, entry in entries.items():
        where = f"{path} line {lines[token]}"  # the token itself is a secret
        if len(token) < SHORTEST_TOKEN or not token.isascii():
            raise ConfigError(f"{where}: a token needs at least {SHORTEST_TOKEN} ASCII characters")
        entry = {} if entry is None else entry
        if not isinstance(entry, dict):
            raise ConfigError(f"{where}: expected settings such as guidance_scale: 3 under the token")
        for setting in entry:
            if setting not in KEY_SETTINGS:
                raise ConfigError(f"{where}: {unknown('setting', setting, KEY_SETTINGS)}")
        try:
            negative = entry.get("negative_messages")
            keys[token] = Key(
                text(entry, "name", f"line {lines[token]}"),
                read_guidance(entry, default.guidance),
                default.negative if negative is None else read_messages(negative, "negative_messages"),
                text(entry, "system", default.system),
                true_or_false(entry, "locked", default.locked),
            )
        except (Refused, ConfigError) as error:
            raise ConfigError(f"{where}: {error}") from error
    return keys


def read_guidance(given: Mapping[str, Any], default: Guidance) -> Guidance:
    """The guidance that the fields say; ConfigError or Refused for values that cannot be meant."""
    form = given.get("guidance_form", default.form)
    if not isinstance(form, str):
        raise ConfigError(f"guidance_form must be a text, not {kind(form)}")
    share = "guidance_mask" if "guidance_mask" in given and "min_p" not in given else "min_p"
    scale = number(given, "guidance_scale", default.scale, -math.inf, math.inf)
    return Guidance(scale, form, number(given, share, default.min_p, -math.inf, math.inf))
