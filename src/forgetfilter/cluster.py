"""Losses and answers of many rows on a cluster, by Ray Data; each of its processes keeps a model.

    rows = ray.data.read_json("rows.jsonl")
    cluster.score(rows, model="run/model", processes=8, num_gpus=1).write_parquet("scores")

What a process does with a batch of rows is what the commands do: `signals.token_memory` as in `filter`,
`guide.command.Writer` as in `generate`. Ray starts a process that has died anew and gives its batches away again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from forgetfilter.data import formats, given
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.records import Row

if TYPE_CHECKING:
    import pyarrow
    from ray.data import Dataset

LOSS, TOKENS, ANSWER = "forgetfilter_loss", "forgetfilter_tokens", "forgetfilter_answer"
REFUSED = "forgetfilter_refused"  # why a row could not be read
BATCH = 256  # rows
ROW = "a row of Ray"


def score(
    rows: Dataset,
    model: str = "nano",
    *,
    processes: int = 1,
    max_length: int | None = None,
    template: str = "auto",
    fields: Mapping[str, str] | None = None,
    dtype: str = "auto",
    device: str = "auto",
    quantization: str = "none",
    batch_size: int = BATCH,
    **resources: Any,
) -> Dataset:
    """How well `model` knows the answers of each row: the rows with three columns more.

    `forgetfilter_loss` is the mean negative log-probability of the answers' tokens, in nats, and
    `forgetfilter_tokens` how many these are; null and 0 where there is nothing to score. A row that cannot be read has
    null in both, and why in `forgetfilter_refused`; the others are scored. Rows come in any order, with all columns
    they had: join by an id of your own.

    Args:
        rows: A data set of Ray in any known format (prompt and completion, messages, Alpaca …).
        model: A name, folder, .gguf file, hub id or folder of an adapter, the same on every machine.
        processes: How many work side by side at most, each with the model in its memory. They become more where Ray
            has processors left; one has to be left for reading and writing.
        max_length: Longest row in tokens; where not given, what `filter` takes for a model of this size.
        template: `chat`, `paper`, `plain`, or `auto`: the model's own where it has one.
        fields: Field -> its name in these rows, where it has another: {"prompt": "question"}.
        dtype: Precision: `auto`, float32, bfloat16 or float16.
        device: `auto`, cpu, cuda …
        quantization: `none`, or hold the model in 4 bits (nf4) or 8 (int8).
        batch_size: Rows that a process is given at a time.
        **resources: What each process takes, as `map_batches` names it: num_cpus (1 where not given), num_gpus, memory.

    Returns:
        A data set that is computed when it is read or written.

    Raises:
        ConfigError: Ray is not installed.
        DataError: No rows, rows in no known format, or with such a column already.
        ModelError: A model that is not there.
    """
    from forgetfilter.models.spec import DEFAULTS, resolve

    _refuse_without_ray()
    reading = _reading(_first(rows, LOSS, TOKENS, REFUSED), fields)
    loading = {"dtype": dtype, "device": device, "quantization": quantization}
    encoding = {
        "max_length": max_length or DEFAULTS[resolve(model).size]["max_length"],
        "template": template,
    }
    return _mapped(rows, Scores, model, (loading, reading, encoding), processes, batch_size, resources)


def answer(
    rows: Dataset,
    model: str = "nano",
    *,
    processes: int = 1,
    max_new_tokens: int = 256,
    system: str | None = None,
    template: str = "auto",
    fields: Mapping[str, str] | None = None,
    dtype: str = "auto",
    device: str = "auto",
    quantization: str = "none",
    batch_size: int = BATCH,
    **resources: Any,
) -> Dataset:
    """What `model` answers to each row's prompt, always its likeliest token: the rows with `forgetfilter_answer`.

    Null where a prompt leaves no room for an answer, or a row cannot be read (`forgetfilter_refused`). An answer that
    a row has already is not shown to the model; rows may also have a `prompt` alone. Arguments, what is returned and
    what is raised are those of `score`, with:

    Args:
        max_new_tokens: Most tokens of an answer.
        system: System prompt, in front of the row's own.
    """
    from forgetfilter.guide.command import only_prompts

    _refuse_without_ray()
    first = _first(rows, ANSWER, REFUSED)
    reading = _reading(first, fields or only_prompts(first))
    loading = {"dtype": dtype, "device": device, "quantization": quantization}
    asking = {"limit": max_new_tokens, "template": template}
    return _mapped(rows, Answers, model, (loading, reading, system, asking), processes, batch_size, resources)


class Scores:
    """Adds their losses to rows; the model is loaded when a process makes one of these."""

    def __init__(self, model: str, loading: Any, reading: Any, encoding: Any) -> None:
        from forgetfilter.models import load

        self.loaded = load.load(model, **loading)
        self.reading, self.encoding = reading, encoding

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        from forgetfilter.filter.signals import likelihood, token_memory
        from forgetfilter.models.rendering import encode

        rows, refused = _rows(batch, self.reading)
        encoded = encode(rows, self.loaded.tokenizer, **self.encoding)
        memories = token_memory(self.loaded.model, encoded, pad_id=self.loaded.tokenizer.pad_token_id)
        counts = [len(m.logp) for m in memories]
        losses = [-likelihood(m) if len(m.logp) else None for m in memories]
        return _with(batch, refused, {LOSS: (losses, "float64"), TOKENS: (counts, "int64")})


class Answers:
    """Adds answers to rows; the model is loaded when a process makes one of these."""

    def __init__(self, model: str, loading: Any, reading: Any, system: str | None, asking: Any) -> None:
        from forgetfilter.guide.command import Writer
        from forgetfilter.guide.generation import load_to_write

        loaded = load_to_write(model, **loading)
        self.writer = Writer(loaded, loaded.model, instruction=system, asking=asking)
        self.reading = reading

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        from forgetfilter.guide.command import asked

        rows, refused = _rows(batch, self.reading)
        found = self.writer.answers({row.id: asked(row) for row in rows})
        said = [found[row.id] for row in rows]
        texts = [None if isinstance(each, str) else self.writer.text(each[0]) for each in said]
        return _with(batch, refused, {ANSWER: (texts, "string")})


def _refuse_without_ray() -> None:
    if find_spec("ray") is None or find_spec("pandas") is None:
        raise ConfigError("Ray Data is not installed: pip install 'forgetfilter[ray]'")


def _first(rows: Dataset, *new: str) -> dict[str, Any]:
    """The first row. DataError where there is none, or where a `new` column is there already."""
    found = rows.take(1)
    if not found:
        raise DataError("this data set of Ray holds no rows")
    if taken := [name for name in new if name in found[0]]:
        raise DataError(f'"{taken[0]}" {given.LIMIT}')
    return found[0]


def _reading(first: Mapping[str, Any], fields: Mapping[str, str] | None) -> dict[str, Any]:
    """How `formats.read` reads all rows: in the first one's format."""
    found = formats.read(given.store([first], "Ray", lenient=True), fields=fields)
    return {"format": found.format, "fields": fields}


def _mapped(
    rows: Dataset, work: type, model: str, more: Sequence[Any], processes: int, batch_size: int,
    resources: Mapping[str, Any],
) -> Dataset:  # fmt: skip
    import ray.data

    from forgetfilter.models import load

    load.folder(model)  # what is not there is told, or fetched, once and before anything starts
    return rows.map_batches(
        work, fn_constructor_args=(model, *more), batch_size=batch_size, batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=processes), **resources,
    )  # fmt: skip


def _rows(batch: pyarrow.Table, reading: Mapping[str, Any]) -> tuple[list[Row], list[str | None]]:
    """The rows that can be read, and for each row of the batch why it cannot, None where it can."""
    records = batch.to_pylist()
    try:
        return _read(records, reading), [None] * len(records)
    except DataError:  # of one of them; it is not worth the others
        pass
    rows: list[Row] = []
    refused: list[str | None] = []
    for record in records:
        try:
            rows += _read([record], reading)
            refused.append(None)
        except DataError as error:
            refused.append(str(error).removeprefix(f"{ROW} row 0: "))
    return rows, refused


def _read(records: list[dict[str, Any]], reading: Mapping[str, Any]) -> list[Row]:
    return list(formats.read(given.store(records, ROW, lenient=True), **reading).rows) if records else []


def _with(
    batch: pyarrow.Table, refused: Sequence[str | None], columns: Mapping[str, tuple[Sequence[Any], str]]
) -> pyarrow.Table:
    """The batch with `columns` (name -> values of the rows that were read, and their type), null in the others."""
    import pyarrow as pa

    for name, (values, kind) in columns.items():
        left = iter(values)
        spread = [next(left) if reason is None else None for reason in refused]
        batch = batch.append_column(name, pa.array(spread, pa.type_for_alias(kind)))
    return batch.append_column(REFUSED, pa.array(refused, pa.string()))
