"""Rows that a Python program holds: a list of dicts, a data set of `datasets`, a table of pandas.

Neither library is imported for it: a data set or a table is known by the module of its class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from forgetfilter.data.files import Input, Inputs
from forgetfilter.data.tables import HubRows
from forgetfilter.data.wording import not_an_object
from forgetfilter.errors import DataError

LIMIT = "stands as a column already; rename it, or take it out"


def is_path(rows: Any) -> bool:
    """Whether `rows` names files instead of holding rows: a text, a path, or a list of these."""
    import os

    one = rows[0] if isinstance(rows, list | tuple) and rows else rows
    return isinstance(one, str | os.PathLike)


def held(rows: Any, name: str) -> Any:
    """`rows` as something that has a length and rows by number: what is read only once becomes a list.

    DataError for a data set of several splits, and for what holds no rows.
    """
    kind = _kind(rows)
    if kind in ("DatasetDict", "IterableDatasetDict"):
        if len(rows) != 1:
            splits = ", ".join(rows)
            raise DataError(
                f"{name}: a data set of several splits ({splits}); give one, as in data[{next(iter(rows), '')!r}]"
            )
        return held(next(iter(rows.values())), name)
    if kind in ("Dataset", "DataFrame") or isinstance(rows, list | tuple):
        return rows
    if isinstance(rows, Iterable) and not isinstance(rows, Mapping | bytes):
        return list(rows)
    raise DataError(
        f"{name}: a {type(rows).__name__}; give a list of dicts, a datasets.Dataset, a pandas DataFrame, or a path"
    )


def store(rows: Any, name: str, *, lenient: bool) -> HubRows:
    """What `formats.read` reads of rows that `held` gave. `lenient`: values that JSON cannot hold are no fault.

    DataError, naming the row, where one is no mapping.
    """
    records = _records(rows)
    if isinstance(records, list):
        for index, record in enumerate(records):
            if not isinstance(record, Mapping):
                raise DataError(f"{name} row {index}: {not_an_object(record)}")
    return HubRows(name, records, kind="given", lenient=lenient)


def inputs(of: HubRows) -> Inputs:
    """A data set that lies in no file."""
    return Inputs(of.name, (Input(None, of.name, ".jsonl"),), "hub")


def chosen(rows: Any, indices: Sequence[int]) -> Any:
    """The rows at `indices`, as they were given: a list of the same objects, a Dataset, a DataFrame."""
    kind = _kind(rows)
    if kind == "Dataset":
        return rows.select(indices)
    return rows.iloc[list(indices)] if kind == "DataFrame" else [rows[i] for i in indices]


def with_columns(rows: Any, columns: Mapping[str, Sequence[Any]]) -> Any:
    """`rows` as a `datasets.Dataset` with more columns behind their own. DataError where one is there already."""
    import datasets
    import pyarrow as pa

    kind = _kind(rows)
    try:
        if kind == "Dataset":
            found = rows
        elif kind == "DataFrame":
            found = datasets.Dataset.from_pandas(rows, preserve_index=False)
        else:
            found = datasets.Dataset.from_list([dict(row) for row in rows])
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"these rows make no table: {str(error).splitlines()[0][:200]}. Give each column one type"
        ) from error
    for name, values in columns.items():
        if name in found.column_names:
            raise DataError(f'"{name}" {LIMIT}')
        # Where no value is known, the list alone would make a column without a type.
        kind = datasets.Value("float64") if all(value is None for value in values) else None
        found = found.add_column(name, list(values), feature=kind)
    return found


def _kind(rows: Any) -> str:
    """The name of a class of datasets or pandas; "" for any other."""
    made = type(rows)
    return made.__name__ if made.__module__.split(".")[0] in ("datasets", "pandas") else ""


def _records(rows: Any) -> Any:
    """A sequence of mappings. In a table of pandas a missing value is a number that is none: None here."""
    if _kind(rows) == "Dataset":
        return rows.with_format(None)  # else its rows may be tensors, or small tables
    if _kind(rows) != "DataFrame":
        return rows if _kind(rows) else list(rows)
    names = [str(name) for name in rows.columns]
    return [
        {name: None if _missing(value) else value for name, value in zip(names, row, strict=True)}
        for row in rows.astype(object).itertuples(index=False, name=None)
    ]


def _missing(value: Any) -> bool:
    """NaN, NaT or pandas' NA: what is not equal to itself, or will not say."""
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"
