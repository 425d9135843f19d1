"""The command `generate`: one prompt, a file of rows, or a prompt a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import DONE, ConfigError, DataError
from forgetfilter.guide.decoding import Answer, Request, generate
from forgetfilter.guide.generation import load_guided, precision, stop_ids
from forgetfilter.guide.guidance import NEGATIVE, POSITIVE, Guidance
from forgetfilter.guide.prompts import prepare
from forgetfilter.guide.settings import GenerateSettings
from forgetfilter.records import Message, Row, whole_characters
from forgetfilter.runs import atomic, refuse_unwritable

if TYPE_CHECKING:
    from forgetfilter.models.load import Loaded


@dataclass(frozen=True, slots=True)
class Writer:
    """A loaded model and how it is asked: what every prompt of one command has in common."""

    loaded: Loaded
    model: Any  # with its adapter, if there is one
    asking: Mapping[str, Any]  # limit, temperature, top_p, template
    instruction: str | None = None
    guidance: Guidance = Guidance()  # noqa: RUF009 - frozen
    negative: str | None = None
    adapters: tuple[str, str] | None = None
    samples: int = 1
    beams: int = 1
    seed: int = 0

    def answers(self, conversations: Mapping[str, Sequence[Message]]) -> dict[str, list[Answer] | str]:
        """By id: the answers, or why there are none."""
        from forgetfilter.models.load import quiet

        ready: dict[str, Request] = {}
        result: dict[str, list[Answer] | str] = {}
        for id, messages in conversations.items():
            try:
                with quiet():  # what is too long is said below
                    ready[id] = prepare(
                        messages, self.model, self.loaded.tokenizer, guidance=self.guidance,
                        instruction=self.instruction, negative=self.negative, seed=f"{self.seed} {id}", **self.asking,
                    )  # fmt: skip
            except DataError as error:
                result[id] = str(error)
        made = generate(
            self.model, list(ready.values()), stop_ids=stop_ids(self.model, self.loaded.tokenizer),
            samples=self.samples, beams=self.beams, adapters=self.adapters,
        )  # fmt: skip
        return result | dict(zip(ready, made, strict=True))

    def text(self, answer: Answer) -> str:
        return str(self.loaded.tokenizer.decode(answer.ids, skip_special_tokens=True))

    @property
    def precision(self) -> str:
        return precision(self.loaded)


def run_generate(
    s: GenerateSettings,
    *,
    lines: Iterable[str] = (),
    show: Callable[[str], None],
    say: Callable[[str], None],
) -> int:
    """Answer one prompt, a file of rows, or each of `lines`; `show` gets answers, `say` everything else.

    Guided by adapter: the positive branch has the adapter, the negative one does not. By prompt: POSITIVE stands in
    for a missing system message, NEGATIVE for a missing negative one; both go in front of a conversation's own. A row
    that cannot be answered is written with its reason and counted. Returns the exit code.
    """
    guidance, output = s.guidance, Path(s.output) if s.output else None
    if s.prompt is not None and s.input is not None:
        raise ConfigError("--prompt and --input: give one of them")
    if (s.input is None) != (output is None):
        raise ConfigError("--input and --output go together: rows in, answers out")
    if output is not None and output.exists():
        raise ConfigError(f"{output}: stands there already and is not overwritten; name another file")
    if s.negative is not None and guidance.plain:
        raise ConfigError("--negative has no effect with --guidance-scale 1; give a larger scale, such as 3")
    rows = _rows(Path(s.input)) if s.input else ()  # before the model, which takes longer
    if output is not None:
        refuse_unwritable(output)

    loaded, model, adapters = load_guided(s)
    by_prompt = not guidance.plain and (adapters is None or s.negative is not None)
    against = (NEGATIVE if s.negative is None else s.negative) if by_prompt else None
    writer = Writer(
        loaded, model, guidance=guidance, negative=against, adapters=adapters, samples=s.num_return_sequences,
        instruction=POSITIVE if s.system is None and by_prompt else s.system, beams=s.num_beams, seed=s.seed,
        asking={"limit": s.max_new_tokens, "temperature": s.temperature, "top_p": s.top_p, "template": s.template},
    )  # fmt: skip
    if not guidance.plain:
        away_from = [repr(against)] * by_prompt + ["the model without the adapter"] * (adapters is not None)
        say(
            f"guidance {guidance.scale:g}, {guidance.form} form, min_p {guidance.min_p:g}, in {writer.precision}, "
            f"away from {' and '.join(away_from)}"
        )
    if output is not None:
        return _write_answers(rows, writer, output, say)
    alone = s.prompt is not None
    return _answer_lines([s.prompt] if s.prompt is not None else lines, writer, show, say, alone=alone)


def _answer_lines(
    lines: Iterable[str],
    writer: Writer,
    show: Callable[[str], None],
    say: Callable[[str], None],
    *,
    alone: bool,
) -> int:
    """Answer each line as it comes; one that cannot be answered is said, or, where it stands `alone`, an error."""
    for line in lines:
        if not line.strip():
            continue
        if line == whole_characters(line):
            found = writer.answers({line: [Message("user", line.strip())]})[line]
        else:  # bytes that the terminal could not decode
            found = "the prompt is not UTF-8 text: convert it, or set the terminal to UTF-8"
        if isinstance(found, str):
            if alone:
                raise DataError(found)
            say(f"not answered: {found}")
            continue
        for answer in found:
            show(writer.text(answer))
    return DONE


def _rows(path: Path) -> Sequence[Row]:
    from forgetfilter.data import formats

    first = next(iter(formats.read_records(path)), {})
    return formats.read(path, fields=only_prompts(first)).rows


def only_prompts(first: Mapping[str, Any]) -> dict[str, str] | None:
    """The fields by which rows that hold prompts alone, as `first` does, are read; None for others."""
    return {"completion": "prompt"} if "prompt" in first and "completion" not in first else None


def asked(row: Row) -> tuple[Message, ...]:
    """A row without its last answer, which is the reference."""
    return row.messages[:-1] if row.messages and row.messages[-1].role == "assistant" else row.messages


def _write_answers(rows: Sequence[Row], writer: Writer, output: Path, say: Callable[[str], None]) -> int:
    found = writer.answers({row.id: asked(row) for row in rows})
    with atomic(output) as file, file.open("w", encoding="utf-8") as out:
        for row in rows:
            each = found[row.id]
            answered = [] if isinstance(each, str) else each
            record = {
                "row": row.index,
                "id": row.id,
                "prompt": row.prompt,
                "answers": [writer.text(answer) for answer in answered],
                "finish": [answer.finish for answer in answered],
                "precision": writer.precision,
                "reason": each if isinstance(each, str) else None,
            }
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
    missing = [row for row in rows if isinstance(found[row.id], str)]
    say(f"{output}: {len(rows) - len(missing)} of {len(rows)} rows answered, in {writer.precision}")
    if writer.precision != "float32":
        say(
            f"in {writer.precision} an answer may change with the rows beside it; --dtype float32 prevents that"
        )
    if missing:
        say(f"row {missing[0].index} was not: {found[missing[0].id]}")
    return DONE
