"""The lists of data sets that trainers keep: LLaMA-Factory's dataset_info.json, axolotl's YAML.

What an entry says of fields, roles and what is learned is followed, so that the rows are read as that trainer
reads them. What it says beyond that is named in a note.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgetfilter.data import strictjson
from forgetfilter.data.wording import kind, short
from forgetfilter.errors import DataError, unknown


@dataclass(frozen=True, slots=True)
class Entry:
    """One data set of a job: where it is, and how its rows are to be read."""

    location: str  # a path, or a hub id
    hub: bool
    format: str | None  # a name of `formats.FORMATS`; None: found by the fields
    # Our field -> its name in the file; also "role" and "content" (a turn's keys), "role:NAME" -> our role,
    # "marks" -> the turn key that says what is learned, "label" -> KTO's column ("" for either: the trainer looks at
    # none), "learned" -> roles learned, comma between.
    fields: Mapping[str, str]


@dataclass(slots=True)
class Job:
    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


# --- LLaMA-Factory ---


def is_dataset_info(path: Path) -> bool:
    """Whether a dataset_info.json is LLaMA-Factory's: names -> entries that say where a file is."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(entries, dict) and any(isinstance(e, dict) and WHERE & set(e) for e in entries.values())


def named_entry(name: str) -> tuple[Path, str] | None:
    """`folder/dataset_info.json:my_rows` as (file, entry); None for any other name."""
    file, colon, entry = name.rpartition(":")
    path = Path(file)
    return (path, entry) if colon and path.name == "dataset_info.json" and path.is_file() else None


def llamafactory(path: Path, name: str | None) -> Job:
    """One entry of a dataset_info.json; its files lie beside it. DataError for what cannot be followed."""
    try:
        entries = strictjson.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise strictjson.explained(path.name, error, "Mend the file.") from error
    if not isinstance(entries, dict):
        raise DataError(f"{path.name}: holds {kind(entries)}, not names of data sets with their entries.")
    if name is None and len(entries) != 1:
        raise DataError(
            f"{path.name}: lists {len(entries)} data sets ({', '.join(list(entries)[:8])}). "
            f"Name one: {path}:{next(iter(entries), 'NAME')}."
        )
    name = next(iter(map(str, entries))) if name is None else name
    if name not in entries:
        raise DataError(f"{path.name}: {unknown('data set', name, entries)}")
    entry, place = entries[name], f"{path.name} entry {name}"
    if not isinstance(entry, dict):
        raise DataError(f"{place}: is {kind(entry)}, not an object.")
    format, fields = _llamafactory_fields(place, entry)
    job = Job()
    if entry.get("num_samples"):
        job.notes.append(
            f"{place}: num_samples {entry['num_samples']}: drawn by chance there; all rows are read"
        )
    if "file_name" in entry:
        job.entries.append(Entry(str(path.parent / _text(place, entry, "file_name")), False, format, fields))
        return job
    for key in ("hf_hub_url", "ms_hub_url", "om_hub_url"):
        if key in entry:
            _refuse_parts(place, entry, ("subset", "folder"))
            split = f":{entry['split']}" if entry.get("split") else ""
            job.entries.append(Entry(_text(place, entry, key) + split, True, format, fields))
            return job
    raise DataError(
        f"{place}: no file_name (found: {', '.join(map(str, entry))}). Only files and hub ids are read."
    )


def _llamafactory_fields(place: str, entry: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    formatting = entry.get("formatting", "alpaca")
    columns, tags = _mapping(place, entry, "columns"), _mapping(place, entry, "tags")
    ranking = bool(entry.get("ranking"))
    answers = {ours: columns[ours] for ours in ("chosen", "rejected") if ours in columns} if ranking else {}
    marks = {"label": columns.get("kto_tag", ""), "marks": ""}
    if formatting in ("sharegpt", "openai"):
        names = SHAREGPT_TAGS if formatting == "sharegpt" else OPENAI_TAGS
        roles = {
            f"role:{tags.get(tag, theirs)}": ours for tag, (theirs, ours) in names.items() if ours in ROLES
        }
        keys = {key: tags.get(f"{key}_tag", names[f"{key}_tag"][0]) for key in ("role", "content")}
        turns = columns.get("messages", "conversations" if formatting == "sharegpt" else "messages")
        fields = {"messages": turns, "system": columns.get("system", ""), **keys, **roles, **answers, **marks}
        return "preference" if ranking else "sharegpt", fields
    if formatting != "alpaca":
        raise DataError(
            f"{place}: {unknown('formatting', str(formatting), ('alpaca', 'sharegpt', 'openai'))}"
        )
    if set(columns) == {"prompt"} and not ranking:
        return "text", {"text": columns["prompt"], **marks}
    if "columns" in entry:  # then `input` is read where it is named only
        columns.setdefault("query", "")
    fields = {
        ours: columns.get(theirs, default)
        for ours, (theirs, default) in ALPACA_COLUMNS.items()
        if not (ranking and ours == "completion")
    }
    return "preference" if ranking else "alpaca", {**fields, **answers, **marks}


# --- axolotl ---


def axolotl(path: Path) -> Job:
    """The `datasets:` of an axolotl YAML. DataError for what cannot be followed."""
    import yaml

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or type(error).__name__
        raise DataError(f"{path.name}{line}: not valid YAML ({problem}). Mend the file.") from error
    sets = config.get("datasets") if isinstance(config, dict) else None
    if not isinstance(sets, list) or not sets:
        raise DataError(
            f"{path.name}: no list `datasets:` in it. Name axolotl's YAML of a training, or a file of rows "
            "(a recipe of ours goes with --config)."
        )
    job = Job()
    for number, entry in enumerate(sets, start=1):
        place = f"{path.name} datasets entry {number}"
        if not isinstance(entry, dict):
            raise DataError(f"{place}: is {kind(entry)}, not an object with a path.")
        _axolotl_entry(place, path.parent, entry, job, str(config.get("rl")))
    if config.get("train_on_inputs"):
        job.notes.append(
            f"{path.name}: train_on_inputs: axolotl learns what stands in prompts too; here it is read, not judged"
        )
    if config.get("test_datasets") or config.get("pretraining_dataset"):
        job.notes.append(f"{path.name}: only `datasets:` is read, not test_datasets or pretraining_dataset")
    return job


def _axolotl_entry(place: str, folder: Path, entry: Mapping[str, Any], job: Job, rl: str) -> None:
    where = _text(place, entry, "path")
    files = _names(place, entry, "data_files")
    format, fields = _axolotl_fields(place, entry, job, rl)
    job.notes += [f"{place}: {words}" for words in _axolotl_samples(entry)]
    local = where if Path(where).exists() else str(folder / where)
    if files and (Path(local).is_dir() or where in ("json", "csv", "parquet", "arrow", "text")):
        base = Path(local) if Path(local).is_dir() else folder
        job.entries += [Entry(str(base / name), False, format, fields) for name in files]
    elif (Path(local) / "dataset_dict.json").exists():  # axolotl takes the split named, else train
        split = str(entry.get("split") or "train").partition("[")[0]
        job.notes.append(f"{place}: the split {split}")
        job.entries.append(Entry(str(Path(local) / split), False, format, fields))
    elif Path(local).exists() or not HUB.fullmatch(where):
        job.entries.append(Entry(local, False, format, fields))
    else:
        _refuse_parts(place, entry, ("name", "revision", "data_files"))
        split = entry.get("split")
        job.entries.append(Entry(f"{where}:{split}" if split else where, True, format, fields))


def _axolotl_samples(entry: Mapping[str, Any]) -> list[str]:
    """What axolotl takes fewer rows by."""
    shards, split = entry.get("shards"), entry.get("split")
    said = [f"shards {shards}: axolotl takes one of them; all rows are read"] if shards else []
    if isinstance(split, str) and "[" in split:
        said.append(f"split {split}: axolotl takes these rows; all of {split.partition('[')[0]} are read")
    return said


def _axolotl_fields(
    place: str, entry: Mapping[str, Any], job: Job, rl: str
) -> tuple[str | None, dict[str, str]]:
    how = entry.get("type")
    unread = {} if rl == "kto" else {"label": ""}
    if isinstance(how, dict):  # the user's own template over Alpaca's fields
        fields = {ours: str(how[theirs]) for theirs, ours in AXOLOTL_OWN.items() if how.get(theirs)}
        if how.get("format"):
            job.notes.append(
                f"{place}: its own `format:` is not followed; prompts are put together as Alpaca's"
            )
        pairs = rl in OF_PAIRS or {"chosen", "rejected"} & set(fields)
        format = None if rl == "kto" else "preference" if pairs else "alpaca"
        return format, unread | fields | NO_MARKS
    name = str(how or "")
    types = {} if rl == "kto" else AXOLOTL_TYPES
    format = next((ours for theirs, ours in types.items() if re.match(theirs, name)), None)
    if format == "text":
        return "text", {"text": str(entry.get("field") or "text")}
    fields = unread | (NO_MARKS if format or rl == "kto" or name == "chat_template" else {})
    fields |= (KTO_COLUMNS if rl == "kto" else AXOLOTL_COLUMNS).get(name.removesuffix("_chatml"), {})
    for theirs, ours in (
        ("field_messages", "messages"),
        ("field_chosen", "chosen"),
        ("field_rejected", "rejected"),
    ):
        if entry.get(theirs):
            fields[ours] = str(entry[theirs])
    keys = _mapping(place, entry, "message_property_mappings")
    for key in ("role", "content"):
        if theirs := keys.get(key) or entry.get(f"message_field_{key}"):
            fields[key] = str(theirs)
    roles = _mapping(place, entry, "roles", of_text=False)
    for ours in roles:
        role = "tool" if ours in ("tool", "ipython") else ours
        if role in ROLES:
            fields |= {f"role:{name}": role for name in _names(place, roles, ours)}
    if mark := entry.get("message_field_training"):
        fields["marks"] = str(mark)
    if learned := _names(place, entry, "roles_to_train"):
        fields["learned"] = ",".join(learned)
    if entry.get("train_on_inputs"):
        job.notes.append(
            f"{place}: train_on_inputs: axolotl learns prompts too; here they are read, not judged"
        )
    if entry.get("train_on_eos") == "all":
        job.notes.append(
            f"{place}: train_on_eos all: the ends of other turns than the answers are not learned here"
        )
    return format, fields


def _refuse_parts(place: str, entry: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    """DataError where a data set on the hub is narrowed by more than its split: other rows would be read."""
    if key := next((key for key in keys if entry.get(key)), None):
        raise DataError(
            f"{place}: `{key}` of a data set on the hub is not followed. Export those rows to a file and name that."
        )


def _text(place: str, entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise DataError(f"{place}: `{key}` is {kind(value)}, not the name of a file or data set.")
    return value


def _names(place: str, entry: Mapping[str, Any], key: str) -> list[str]:
    """One name or several; none where nothing is said."""
    value = entry.get(key) or []
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{place}: `{key}` is {kind(value)}, not a name or a list of names.")
    return names


def _mapping(place: str, entry: Mapping[str, Any], key: str, *, of_text: bool = True) -> dict[str, Any]:
    value = entry.get(key) or {}
    if not isinstance(value, dict):
        raise DataError(f"{place}: `{key}` is {kind(value)}, not names with their values.")
    named = {name: v for name, v in value.items() if v is not None}
    if wrong := next((name for name, v in named.items() if of_text and not isinstance(v, str)), None):
        raise DataError(f"{place}: `{key}`: {short(str(wrong))} is {kind(named[wrong])}, not a name.")
    return named


WHERE = {"file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"}
ROLES = ("system", "user", "assistant", "tool")
HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Our field -> (its name among LLaMA-Factory's columns, the file's column where none is named; "": not read there).
ALPACA_COLUMNS = {
    "prompt": ("prompt", "instruction"),
    "input": ("query", "input"),
    "completion": ("response", "output"),
    "system": ("system", ""),
    "history": ("history", ""),
}
SHAREGPT_TAGS = {
    "role_tag": ("from", ""),
    "content_tag": ("value", ""),
    "user_tag": ("human", "user"),
    "assistant_tag": ("gpt", "assistant"),
    "function_tag": ("function_call", "assistant"),
    "observation_tag": ("observation", "tool"),
    "system_tag": ("system", "system"),
}
OPENAI_TAGS = SHAREGPT_TAGS | {
    "role_tag": ("role", ""),
    "content_tag": ("content", ""),
    "user_tag": ("user", "user"),
    "assistant_tag": ("assistant", "assistant"),
    "observation_tag": ("tool", "tool"),
}
AXOLOTL_OWN = {
    "field_instruction": "prompt",
    "field_input": "input",
    "field_output": "completion",
    "field_system": "system",
    "field_prompt": "prompt",
    "field_chosen": "chosen",
    "field_rejected": "rejected",
    "field_completion": "completion",  # of KTO data
    "field_label": "label",
}
# The beginning of an axolotl type -> our format; what is not here is found by the fields.
AXOLOTL_TYPES = {
    r"completion": "text",
    r"input_output": "segments",
    r"alpaca\b|alpaca_": "alpaca",
    r"(chat_template|chatml|llama3|user_defined)\.": "preference",
}
OF_PAIRS = {"dpo", "ipo", "orpo", "simpo"}
# Types that read columns of their own.
AXOLOTL_COLUMNS: dict[str, dict[str, str]] = {
    "alpaca_chat.load_qa": {"prompt": "question", "completion": "answer"},
    "alpaca_chat.load_camel_ai": {"prompt": "message_1", "completion": "message_2"},
    "alpaca_w_system.load_open_orca": {
        "prompt": "question", "completion": "response", "system": "system_prompt",
    },
}  # fmt: skip
KTO_COLUMNS: dict[str, dict[str, str]] = {
    f"{template}.{name}": {"prompt": column}
    for template in ("chatml", "llama3")
    for name, column in (("argilla", "instruction"), ("intel", "question"))
}
NO_MARKS = {"marks": ""}  # neither turns nor rows say what is learned
