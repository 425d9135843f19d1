"""Rows -> token ids and masks. The only home of templates.

Every row becomes one sequence with two masks: `learned` marks what fine-tuning computes its loss on
(the assistant turns and the end-of-turn tokens behind them), `scored` what the signals judge (the
assistant turns' own tokens). Prompts are read, never learned: a row is what a model is taught to
answer.

A template decides what a trainer learns. What it cuts out of a turn, and turns that it hides, are neither
learned nor scored, and are counted; a row whose roles it refuses is changed as trainers do (`conversation.py`).

Rows are hostile text. A control token spelled out in a row (`<|end|>`, `</s>`) is encoded as the
characters it is written with, so that no row can end its own turn or open another one. One limit: the
paper's template marks turns with ordinary words, which a row may use too.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetfilter.errors import ConfigError, DataError, unknown
from forgetfilter.models.conversation import Refused, Rendered, Span, Turn, chat, turns_of
from forgetfilter.records import Row, Tally

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The template of the ForgetFilter paper, for models that bring none of their own.
PAPER = {"system": "{}\n\n", "user": "### Input:\n{}\n\n"}
PAPER_OPENER = "### Response:\n"


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row as the model sees it. All sequences have the same length (time)."""

    id: str
    ids: list[int]
    learned: list[bool]  # loss is computed on these tokens
    scored: list[bool]  # signals are computed on these tokens; empty of True: the row is unscored
    prompt_length: int  # tokens before the last assistant turn: where generation starts
    truncated: bool  # the row was longer than max_length; what fits is here

    @property
    def completion_ids(self) -> list[int]:
        """Tokens of the last assistant turn's own text: the reference that generation is compared with."""
        start = self.prompt_length
        return [t for t, s in zip(self.ids[start:], self.scored[start:], strict=True) if s]


def encode(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int = 512,
    template: str = "auto",
    tally: Tally | None = None,
) -> list[Encoded]:
    """Encode rows, in order. `template` is a key of TEMPLATES or `auto`: the tokenizer's own chat template
    where it has one, else the paper's. A `text` row needs no template. `tally` counts what a template leaves out.

    A token belongs to a turn when it holds a character of it, so one that reaches over the border between
    prompt and answer is part of the answer. The very first token of a row is neither learned nor scored:
    nothing stands before it to predict it from.

    Raises ConfigError for an unknown template, DataError that counts the rows that the chat template refuses.
    """
    rendered = _render(rows, tokenizer, template, tally or Tally())
    if not rendered:
        return []
    tokens = tokenizer(
        [r.text for r in rendered], add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    control = {t for t, added in tokenizer.added_tokens_decoder.items() if added.special}
    bos = tokenizer.bos_token_id
    encoded = []
    for row, r, ids, offsets in zip(
        rows, rendered, tokens["input_ids"], tokens["offset_mapping"], strict=True
    ):
        if not control.isdisjoint(ids):
            ids, offsets = _spell_out(r, ids, offsets, control, tokenizer)
        extents = _extents(offsets)
        learned, scored = _mark(extents, r.learned), _mark(extents, r.scored)
        start = bisect_right(extents, r.completion_at, key=lambda extent: extent[1])
        if bos is not None and ids[:1] != [bos]:
            # The first token too needs something before it to be predicted from.
            ids, learned, scored, start = [bos, *ids], [False, *learned], [False, *scored], start + 1
        encoded.append(_fit(row.id, ids, learned, scored, start, max_length, bos))
    return encoded


def _render(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, template: str, tally: Tally
) -> list[Rendered]:
    """Every row as text with its spans; all rows that the template refuses are counted before any is told."""
    render = _choose(tokenizer, template)
    rendered: list[Rendered] = []
    refused: list[tuple[str, str]] = []  # where, why
    for row in rows:
        turns = turns_of(row)
        place = row.place or f"{row.source} row {row.index}"
        try:
            made = _text(turns) if row.kind == "text" else render(turns)
        except Refused as error:
            refused.append((place, str(error)))
            continue
        for what, times, name in made.left_out:
            tally.add(what, place, times, name)
        rendered.append(made)
    if refused:
        more = f" and {len(refused) - 1} more ({_first(refused)})" if len(refused) > 1 else ""
        place, why = refused[0]
        mend = (
            f"{len(refused)} of {len(rows)} rows in all. Change or remove them"
            if len(rows) > 1
            else "Change it"
        )
        raise DataError(
            f"{place}{more}: the model's chat template refuses this row: {why}. {mend}, or use --template paper"
        )
    return rendered


def _first(refused: Sequence[tuple[str, str]]) -> str:
    return "; ".join(place for place, _ in refused[1:3]) + (", …" if len(refused) > 3 else "")


def _choose(tokenizer: PreTrainedTokenizerBase, template: str) -> Callable[[Sequence[Turn]], Rendered]:
    if template == "auto":
        template = "chat" if tokenizer.chat_template else "paper"
    if template not in TEMPLATES:
        raise ConfigError(unknown("template", template, [*TEMPLATES, "auto"]))
    if template == "chat" and not tokenizer.chat_template:
        raise ConfigError("template chat: this model's tokenizer has no chat template; use --template paper")
    return TEMPLATES[template](tokenizer)


def _paper(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[Turn]], Rendered]:
    """`### Input:` … `### Response:` …, with the end-of-sequence token behind every response."""

    def render(turns: Sequence[Turn]) -> Rendered:
        made = Rendered()
        for turn in turns:
            if turn.role != "assistant":
                opener, _, closer = PAPER.get(turn.role, "{}\n\n").partition("{}")
                made.text += opener
                _add(made, turn, turn.spoken)
                made.text += closer
                continue
            made.text += PAPER_OPENER
            start = len(made.text)
            made.completion_at = start
            _add(made, turn, turn.spoken.strip(), learn=False)
            made.text += tokenizer.eos_token or ""
            if turn.learned:
                made.learned.append((start, len(made.text)))
        return _ended(made, turns)

    return render


def _add(made: Rendered, turn: Turn, body: str, *, learn: bool = True) -> None:
    """The turn's text behind what there is, marked as the turn says."""
    span = (len(made.text), len(made.text) + len(body))
    made.text += body
    made.contents.append(span)
    if turn.scored and body.strip():
        made.scored.append(span)
    if learn and turn.learned and body.strip():
        made.learned.append(span)


def _ended(made: Rendered, turns: Sequence[Turn]) -> Rendered:
    if not any(turn.role == "assistant" for turn in turns):
        made.completion_at = len(made.text)
    return made


def _plain(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[Turn]], Rendered]:
    """The turns' texts on lines of their own, nothing added."""

    def render(turns: Sequence[Turn]) -> Rendered:
        return _text(turns, between="\n")

    return render


def _text(turns: Sequence[Turn], between: str = "") -> Rendered:
    """One running text: what is marked is learned, no end-of-turn token."""
    made = Rendered()
    for i, turn in enumerate(turns):
        if turn.role == "assistant":
            made.completion_at = len(made.text)
        _add(made, turn, (between if i else "") + turn.spoken)
    made.contents = [(0, len(made.text))]  # a control token across two turns is none either
    return _ended(made, turns)


def _spell_out(
    rendered: Rendered,
    ids: Sequence[int],
    offsets: Sequence[Span],
    control: set[int],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[list[int], list[Span]]:
    """Replace the control tokens that stand in the row's own text by the tokens of their spelling."""
    starts = [start for start, _ in rendered.contents]
    new_ids: list[int] = []
    new_offsets: list[Span] = []
    for token, (a, b) in zip(ids, offsets, strict=True):
        i = bisect_right(starts, a) - 1
        if token not in control or i < 0 or b > rendered.contents[i][1] or a == b:
            new_ids.append(token)
            new_offsets.append((a, b))
            continue
        spelled = tokenizer(
            rendered.text[a:b],
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
        )
        new_ids += spelled["input_ids"]
        new_offsets += [(a + x, a + y) for x, y in spelled["offset_mapping"]]
    return new_ids, new_offsets


def _extents(offsets: Sequence[Span]) -> list[Span]:
    """Offsets without gaps: some tokenizers leave out a token's leading space, which makes a line break empty."""
    extents, end = [], 0
    for a, b in offsets:
        start, end = min(a, end), max(b, end)
        extents.append((start, end))
    return extents


def _mark(extents: Sequence[Span], spans: Sequence[Span]) -> list[bool]:
    """True for the tokens that hold a character of a span."""
    marks = [False] * len(extents)
    for start, end in spans:
        first = bisect_right(extents, start, key=lambda extent: extent[1])
        last = bisect_left(extents, end, key=lambda extent: extent[0])
        marks[first:last] = [True] * (last - first)
    return marks


def _fit(
    id: str,
    ids: list[int],
    learned: list[bool],
    scored: list[bool],
    start: int,
    max_length: int,
    bos: int | None,
) -> Encoded:
    """Cut to max_length. An answer longer than half the room loses its end; the prompt gets what is left
    and loses its beginning, but for the beginning-of-sequence token."""
    truncated = len(ids) > max_length
    if truncated:
        first = min(len(ids) - max_length, max(0, start - max_length // 2))
        window = slice(first, first + max_length)
        keeps_bos = first > 0 and start > first and ids[0] == bos
        ids, learned, scored, start = ids[window], learned[window], scored[window], start - first
        if keeps_bos and bos is not None:
            ids[0] = bos
    if ids:
        learned[0] = scored[0] = False
    return Encoded(id, ids, learned, scored, start, truncated)


TEMPLATES: dict[str, Callable[[PreTrainedTokenizerBase], Callable[[Sequence[Turn]], Rendered]]] = {
    "chat": chat,
    "paper": _paper,
    "plain": _plain,
}
