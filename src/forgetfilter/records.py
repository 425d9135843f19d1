"""The records that travel between the stages. Everything about a row joins by its id, never by position."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Decision = Literal["keep", "flag", "drop", "unscored"]
KEPT: tuple[Decision, ...] = ("keep", "unscored")  # trained on: neither dropped nor in doubt


class Message(NamedTuple):
    """One turn: `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Row:
    """One training row, whatever format it came in.

    A `chat` row's assistant turns are what a model learns from it; the last one is its completion. A
    `text` row is one running text: a user turn with its first words, an assistant turn with the rest,
    rendered without a template.
    """

    id: str
    index: int  # 0-based position in its file
    source: str  # file name or hub id, without folders
    messages: tuple[Message, ...]
    kind: Literal["chat", "text"]
    record: Mapping[str, Any]  # the row as it stood in the file, every field

    @property
    def completion(self) -> str:
        """The last assistant turn, "" if there is none."""
        return self.messages[-1].content if self.messages and self.messages[-1].role == "assistant" else ""

    @property
    def prompt(self) -> str:
        """The text of everything before the completion, turns joined by a line break."""
        turns = self.messages[:-1] if self._ends_with_assistant else self.messages
        return "\n".join(m.content for m in turns)

    @property
    def _ends_with_assistant(self) -> bool:
        return bool(self.messages) and self.messages[-1].role == "assistant"


def row_id(source: str, messages: Sequence[Message]) -> str:
    """16 hex digits from content and source: the same row keeps its id when the file is reordered or moved."""
    content = json.dumps([source, [list(m) for m in messages]], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def with_system(messages: Sequence[Message], instruction: str | None) -> tuple[Message, ...]:
    """The messages under a system prompt: put in front of the dialogue's own one where it has one."""
    if not instruction:
        return tuple(messages)
    if messages and messages[0].role == "system":
        return (Message("system", f"{instruction}\n\n{messages[0].content}"), *messages[1:])
    return (Message("system", instruction), *messages)
