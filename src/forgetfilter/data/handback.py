"""What a trainer takes: the input with a weight per row instead of a cut, and the lines that name a file to it."""

from __future__ import annotations

import glob
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from forgetfilter.data import formats, jobs, tables
from forgetfilter.data.containers import HAS_COLUMN
from forgetfilter.data.files import Inputs
from forgetfilter.data.packing import PACKED, appearing
from forgetfilter.data.readers import HISTORY
from forgetfilter.data.turns import ROLES, Reading
from forgetfilter.data.wording import is_list
from forgetfilter.errors import DataError
from forgetfilter.records import Decision

LOOKED_AT = 200  # rows of which the names of roles are taken
TRL_READS = {"prompt", "completion", "messages", "conversations", "text", "chosen", "rejected"}
TAG_OF = {
    "function_call": "function_tag",
    "user": "user_tag",
    "assistant": "assistant_tag",
    "tool": "observation_tag",
    "system": "system_tag",
}
# Rows in doubt weigh nothing, as they are left out of the last fine-tune.
WEIGHTS: dict[Decision, float] = {
    "keep": 1.0,
    "not judged": 1.0,
    "unscored": 1.0,
    "flag": 0.0,
    "drop": 0.0,
}


def write_weights(
    dataset: formats.Dataset, weights: Sequence[float], stem: Path, *, column: str = "weight"
) -> Path:
    """The whole input, in its own form, with `column` behind the other fields; returns where.

    `weights` has one number per row, in the rows' order (see WEIGHTS). All other bytes of JSON, JSONL and CSV
    stay. DataError where a row has the column already, or it cannot be written.
    """
    if len(weights) != len(dataset.rows):
        raise ValueError(f"{len(weights)} weights for {len(dataset.rows)} rows")
    if dataset.inputs.shape == "saved":
        with appearing(stem) as partial:
            tables.save_to_disk(
                [
                    part.store.with_column(column, weights[part.first : part.first + len(part.store)])
                    for part in dataset.parts
                    if isinstance(part.store, tables.Table)
                ],
                partial,
            )
        return stem

    def put(part: formats.Part, target: Path) -> None:
        part.store.write_column(column, weights[part.first : part.first + len(part.store)], target)

    return formats.write_parts(dataset, stem, put)


def refuse_column(dataset: formats.Dataset, column: str) -> None:
    """DataError where `write_weights` would find that rows have the column already: told before anything is learned.

    Of a large file the first rows of its parts are asked; `write_weights` asks all.
    """
    rows = dataset.rows
    asked = range(len(rows)) if isinstance(rows, tuple) else [p.first for p in dataset.parts if len(p.store)]
    for index in asked:
        if column in rows[index].record:
            raise DataError(f"{rows[index].place}: {HAS_COLUMN.format(column)}")


def hand_back(
    dataset: formats.Dataset,
    decisions: Sequence[str],
    folder: Path,
    *,
    weights: bool = False,
    flagged: float = 0.0,
) -> list[Path]:
    """Write kept, flagged and dropped rows, in the input's format, into `folder`; returns where.

    `decisions` has a word for each row, in the rows' order; those neither dropped nor flagged are kept. With `weights`
    the whole input follows, with a column `weight`: 1 for kept rows, 0 for dropped and `flagged` for flagged ones.
    """
    chosen: dict[str, list[int]] = {"kept": [], "flagged": [], "dropped": []}
    for row, decision in enumerate(decisions):
        chosen[{"flag": "flagged", "drop": "dropped"}.get(decision, "kept")].append(row)
    written = [formats.write(dataset, rows, folder / name) for name, rows in chosen.items()]
    if weights:
        numbers = [{"drop": 0.0, "flag": flagged}.get(decision, 1.0) for decision in decisions]
        written.append(write_weights(dataset, numbers, folder / "weighted"))
    return written


def snippets(dataset: formats.Dataset, file: Path, name: str = "kept") -> dict[str, str]:
    """Trainer -> the text to paste so that it reads `file`, which `formats.write` wrote of this data set."""
    each = _of_one_kind(dataset, file)
    return {
        "LLaMA-Factory": _one_object(
            [llamafactory(one, at, name if len(each) == 1 else f"{name}-{at.name}") for one, at in each]
        ),
        "axolotl": _one_list([axolotl(one, at) for one, at in each]),
        "TRL": "\n".join(trl(one, at) for one, at in each),
    }


def _of_one_kind(dataset: formats.Dataset, file: Path) -> list[tuple[formats.Dataset, Path]]:
    """The data set; where files of several kinds were named together, each of them by itself."""
    parts = [part for part in dataset.parts if len(part.keys)]
    if all((p.format, p.columns, p.store.kind) == (parts[0].format, parts[0].columns, parts[0].store.kind)
           for p in parts):  # fmt: skip
        return [(dataset, file)]
    return [
        (
            replace(
                dataset, format=part.format, columns=part.columns, container=part.store.kind, parts=(part,),
                rows=dataset.rows[part.first : part.first + min(LOOKED_AT, len(part.keys))],
                inputs=Inputs(part.input.name, (part.input,), "file"),
            ),
            file / formats.name_of(part),
        )
        for part in parts
    ]  # fmt: skip


def _one_object(texts: Sequence[str]) -> str:
    """Entries of dataset_info.json as one object, what is said in words before it."""
    if len(texts) == 1:
        return texts[0]
    made: dict[str, Any] = {}
    for text in texts:
        made |= {} if text.startswith("#") else json.loads(text)
    said = [text for text in texts if text.startswith("#")]
    return "\n".join([*said, json.dumps(made, ensure_ascii=False, indent=2)])


def _one_list(texts: Sequence[str]) -> str:
    """Lists of `datasets:` as one, what is said in words before it. Pairs are another training's, so a list apart."""
    import yaml

    said = [line for text in texts for line in text.splitlines() if line.startswith("#")]
    lists: dict[str, dict[str, Any]] = {}
    for made in filter(None, map(yaml.safe_load, texts)):
        lists.setdefault(made.get("rl", ""), {**made, "datasets": []})["datasets"] += made["datasets"]
    shown = [yaml.safe_dump(one, sort_keys=False, allow_unicode=True) for one in lists.values()]
    return "".join(f"{line}\n" for line in dict.fromkeys(said)) + "---\n".join(shown)


def llamafactory(dataset: formats.Dataset, file: Path, name: str = "kept") -> str:
    """An entry for dataset_info.json, in the folder of `file`."""
    trainer = "LLaMA-Factory"
    if remedy := _not_read(dataset, trainer) or _not_for_it(dataset, file, trainer):
        return remedy
    c = _columns(dataset)
    entry: dict[str, Any] = {"file_name": file.name}
    columns: dict[str, str] = {}
    if dataset.format in ("messages", "sharegpt") or (dataset.format == "preference" and "messages" in c):
        entry["formatting"] = "sharegpt"
        columns["messages"] = c["messages"]
        if keys := _turn_keys(dataset):
            entry["tags"] = {"role_tag": keys[0], "content_tag": keys[1], **_role_tags(dataset, keys)}
    elif dataset.format == "text":
        columns["prompt"] = c["text"]
    else:
        if "prompt" not in c:
            return "# LLaMA-Factory wants the prompt of a preference pair in a column of its own."
        names = {"prompt": "prompt", "input": "query", "completion": "response", "history": "history"}
        columns = {theirs: c[ours] for ours, theirs in names.items() if c.get(ours)}
    columns |= {"system": c["system"]} if c.get("system") else {}
    if dataset.format == "preference":
        entry["ranking"] = True
        columns |= {"chosen": c["chosen"], "rejected": c["rejected"]}
    first = dataset.rows[0].record
    columns |= {"tools": "tools"} if "tools" in first else {}
    if dataset.format != "preference" and (
        label := next((k for k in ("label", "kto_tag") if k in first), None)
    ):
        columns |= {"kto_tag": label} if isinstance(first[label], bool) else {}
    entry["columns"] = columns
    return json.dumps({name: entry}, ensure_ascii=False, indent=2)


def axolotl(dataset: formats.Dataset, file: Path) -> str:
    """A `datasets:` list for axolotl's YAML."""
    import yaml

    if remedy := _not_read(dataset, "axolotl"):
        return remedy
    c = _columns(dataset)
    entry: dict[str, Any] = {"path": str(file)}
    if file.is_dir() is False:
        entry["ds_type"] = {"csv": "csv", "parquet": "parquet", "arrow": "arrow"}.get(
            dataset.container, "json"
        )
    if dataset.format in ("messages", "sharegpt"):
        entry |= {"type": "chat_template", "field_messages": c["messages"]}
        if tags := _turn_keys(dataset):
            entry["message_property_mappings"] = {"role": tags[0], "content": tags[1]}
            entry |= _axolotl_roles(
                dataset, tags, known=("user", "human", "assistant", "gpt", "system", "tool")
            )
    elif dataset.format == "preference":
        return _axolotl_pairs(dataset, entry)
    elif dataset.format == "text":
        entry |= {"type": "completion", "field": c["text"]}
    elif dataset.format == "segments":
        entry["type"] = "input_output"
    else:
        entry["type"] = {
            "field_instruction": c["prompt"],
            "field_output": c["completion"],
            "format": "{instruction}",
        }
        if c.get("input"):
            entry["type"] |= {"field_input": c["input"], "format": "{instruction}\n\n{input}"}
            entry["type"]["no_input_format"] = "{instruction}"
        if c.get("system"):
            entry["type"]["field_system"] = c["system"]
    system = () if dataset.format in ("alpaca", "prompt-completion") else ("system",)
    said = _left_to_the_user(dataset, "axolotl", ("history", *system))
    return said + yaml.safe_dump({"datasets": [entry]}, sort_keys=False, allow_unicode=True)


def _axolotl_pairs(dataset: formats.Dataset, entry: dict[str, Any]) -> str:
    """An entry of pairs. axolotl reads it as the kind of data set that knows most of its keys and drops the others;
    so a key that says what is so anyway is left out, lest it be taken for another kind."""
    import yaml

    c = _columns(dataset)
    entry.pop("ds_type", None)
    if "messages" in c:
        keys = _turn_keys(dataset) or ("role", "content")
        turns = _axolotl_roles(dataset, keys, known=("user", "assistant", "system", "tool"))
        if turns or keys != ("role", "content"):
            turns["message_property_mappings"] = {"role": keys[0], "content": keys[1]}
        answers = {f"field_{name}": c[name] for name in ("chosen", "rejected") if c[name] != name}
        if turns and answers:
            return "# axolotl wants the answers of such pairs in columns called chosen and rejected."
        entry |= {"type": "chat_template.default", "field_messages": c["messages"], **turns, **answers}
    elif "prompt" in c:
        entry["type"] = {
            "field_prompt": c["prompt"], "field_chosen": c["chosen"], "field_rejected": c["rejected"],
            "prompt_format": "{prompt}", "chosen_format": "{chosen}", "rejected_format": "{rejected}",
        }  # fmt: skip
    else:
        return "# axolotl wants the prompt of a preference pair in a column of its own."
    said = _left_to_the_user(dataset, "axolotl", ("input", "history", "system"))
    return said + yaml.safe_dump({"rl": "dpo", "datasets": [entry]}, sort_keys=False, allow_unicode=True)


def _axolotl_roles(
    dataset: formats.Dataset, keys: tuple[str, str], *, known: tuple[str, ...]
) -> dict[str, Any]:
    """The `roles` of an entry where the turns have other names for them than those that axolotl knows by itself."""
    seen, role_of = _roles_seen(dataset, keys), Reading(dataset.columns).role_of
    if set(seen) <= set(known):
        return {}
    named: dict[str, list[str]] = {}
    for name in sorted({*seen, *known}):
        if role := role_of(name):
            named.setdefault(role, []).append(name)
    return {"roles": named}


def trl(dataset: formats.Dataset, file: Path) -> str:
    """Python that gives TRL's trainers their `train_dataset`."""
    if remedy := _not_read(dataset, "TRL"):
        return remedy
    said = (
        _left_to_the_user(dataset, "TRL", ("history", "system"))
        + _trl_unread(dataset)
        + _trl_columns(dataset)
    )
    if dataset.inputs.shape == "saved":
        return f"from datasets import load_from_disk\n\ntrain_dataset = load_from_disk({str(file)!r})\n{said}"
    builder = {"csv": "csv", "parquet": "parquet", "arrow": "arrow"}.get(dataset.container, "json")
    files = glob.escape(str(file)) + ("/*" if file.is_dir() else "")  # it is read as a pattern
    more = _csv_options(dataset) if builder == "csv" else ""
    if _one_list_below(dataset):
        more += f", field={_one_list_below(dataset)!r}"
    line = f"train_dataset = load_dataset({builder!r}, data_files={files!r}, split='train'{more})\n"
    return "from datasets import load_dataset\n\n" + line + said


def _trl_unread(dataset: formats.Dataset) -> str:
    """The line that takes out columns that were not read here and that TRL would read by their names."""
    there = {name for row in islice(dataset.rows, LOOKED_AT) for name in row.record}
    unread = sorted((there & TRL_READS) - set(_columns(dataset).values()))
    return f"train_dataset = train_dataset.remove_columns({unread!r})\n" if unread else ""


def _trl_columns(dataset: formats.Dataset) -> str:
    """The lines that give the columns the names and shapes that TRL wants; "" where they have them."""
    c, first = _columns(dataset), dataset.rows[0].record
    if dataset.format == "preference" and (lines := _trl_turns(dataset, c)):
        return lines
    if dataset.format in ("messages", "sharegpt"):
        keys = _turn_keys(dataset) or ("role", "content")
        # TRL takes from and value too, but human and gpt for roles of their own, which many templates leave out.
        if keys != ("role", "content") or not set(_roles_seen(dataset, keys)) <= set(jobs.ROLES):
            return (
                f"{_as_turn(dataset, *keys)}train_dataset = train_dataset.map(\n"
                f"    lambda r: {{'messages': [turn(t) for t in r[{c['messages']!r}]]}},\n"
                f"    remove_columns={sorted({c['messages']} - {'messages'})!r},\n)\n"
            )
    lines, renamed = "", {"prompt", "completion", "text", "chosen", "rejected"}
    if dataset.format == "preference" and is_list(first[c["chosen"]]):  # the prompt stands in it
        beside = "prompt" in first and "prompt" in c.values()
        lines = "train_dataset = train_dataset.remove_columns(['prompt'])\n" if beside else ""
        renamed -= {"prompt"}
    elif "prompt" in c and (dataset.format == "alpaca" or c.get("input")):
        more = f"r[{c.get('input')!r}]"
        joined = f" + ({more} and '\\n\\n' + {more} or '')" if c.get("input") else ""
        lines = f"train_dataset = train_dataset.map(lambda r: {{'prompt': r[{c['prompt']!r}]{joined}}})\n"
        renamed -= {"prompt"}
    renames = {c[ours]: ours for ours in sorted(renamed) if c.get(ours, ours) != ours}
    if dataset.format in ("messages", "sharegpt") and c["messages"] != "messages":
        renames[c["messages"]] = "messages"
    return lines + (f"train_dataset = train_dataset.rename_columns({renames!r})\n" if renames else "")


def _trl_turns(dataset: formats.Dataset, c: Mapping[str, str]) -> str:
    """The lines that make lists of role and content, as TRL wants them, of a prompt and two answers.

    "" where all are texts, and where the answers hold the prompt in TRL's own terms: it takes it from there.
    """
    first = dataset.rows[0].record
    columns = {
        "prompt": c.get("messages") or c.get("prompt", ""),
        "chosen": c["chosen"],
        "rejected": c["rejected"],
    }
    values: dict[str, Any] = {ours: first.get(theirs) for ours, theirs in columns.items()}
    if all(isinstance(value, str | None) for value in values.values()):
        return ""
    turns = [t for v in values.values() for t in (v if is_list(v) else [v]) if isinstance(t, dict)]
    role, text = ("from", "value") if any("from" in turn for turn in turns) else ("role", "content")
    there = set(filter(None, columns.values()))
    if is_list(values["chosen"]) and any(ROLES.get(str(t.get(role))) == "user" for t in values["chosen"]):
        if role == "role" and set(_roles_seen(dataset, (role, text))) <= set(jobs.ROLES):
            return ""
        columns.pop("prompt")
    made = []
    for ours, theirs in columns.items():
        said, as_role = f"r[{theirs!r}]", "user" if ours == "prompt" else "assistant"
        spoken = f"[{{'role': {as_role!r}, 'content': {said}}}]"
        each = f"[turn(t) for t in {said}]" if is_list(values[ours]) else f"[turn({said})]"
        made.append(f"{ours!r}: {spoken if isinstance(values[ours], str) else each}")
    return (
        f"{_as_turn(dataset, role, text)}train_dataset = train_dataset.map(\n    lambda r: {{{', '.join(made)}}},\n"
        f"    remove_columns={sorted(there - set(columns))!r},\n)\n"
    )


def _as_turn(dataset: formats.Dataset, role: str, text: str) -> str:
    """The line that makes a turn one of role and content."""
    ours = {
        name: Reading(dataset.columns).role_of(name) for name in sorted(_roles_seen(dataset, (role, text)))
    }
    names = {name: known for name, known in ours.items() if known not in (None, name)}
    kept = f"{{k: v for k, v in t.items() if k not in ({role!r}, {text!r})}}"
    beside = "t" if (role, text) == ("role", "content") else kept
    return f"turn = lambda t: {{**{beside}, 'role': {names!r}.get(t[{role!r}], t[{role!r}]), 'content': t[{text!r}]}}\n"


def _csv_options(dataset: formats.Dataset) -> str:
    mark = _other_mark(dataset)
    return (f", sep={mark}" if mark else "") + ", keep_default_na=False"


def _other_mark(dataset: formats.Dataset) -> str:
    """What divides the cells of a CSV file where it is no comma, in quotes; else ""."""
    if dataset.parts[0].input.suffix == ".tsv":
        return repr("\t")
    said = (note.partition("cells divided by ")[2] for note in dataset.parts[0].store.notes)
    return next(filter(None, said), "")


def _one_list_below(dataset: formats.Dataset) -> str | None:
    """The name of the list that holds the rows of a JSON file that is an object."""
    store = dataset.parts[0].store
    if store.kind != "json" or not isinstance(store, formats.containers.Text):
        return None
    head = store.head.decode("utf-8").strip()
    if not head.startswith("{"):
        return None
    return json.loads(
        '"' + head.removesuffix("[").rstrip().removesuffix(":").rstrip().rsplit('"', 2)[-2] + '"'
    )


def _turn_keys(dataset: formats.Dataset) -> tuple[str, str] | None:
    """What the turns of the first row call role and text."""
    c = dataset.columns
    turns = dataset.rows[0].record.get(c["messages"])
    first = next((t for t in turns if isinstance(t, dict)), {}) if isinstance(turns, list | tuple) else {}
    role = c.get("role") or next((k for k in ("role", "from") if first.get(k) is not None), None)
    content = c.get("content") or next((k for k in ("content", "value") if first.get(k) is not None), None)
    return (role, content) if role and content else None


def _role_tags(dataset: formats.Dataset, keys: tuple[str, str]) -> dict[str, str]:
    """LLaMA-Factory's tag of each role -> what the first rows call it most often, or would by the names of the keys."""
    human = ("human", "gpt", "observation") if keys == ("from", "value") else ("user", "assistant", "tool")
    tags = dict(zip(("user_tag", "assistant_tag", "observation_tag"), human, strict=True)) | {
        "system_tag": "system"
    }
    seen, role_of = dict[str, Counter[str]](), Reading(dataset.columns).role_of
    for name, count in _roles_seen(dataset, keys).items():
        if tag := TAG_OF.get(name) or TAG_OF.get(str(role_of(name))):
            seen.setdefault(tag, Counter())[name] += count
    tags |= {tag: names.most_common(1)[0][0] for tag, names in seen.items()}
    return tags


def _roles_seen(dataset: formats.Dataset, keys: tuple[str, str]) -> Counter[str]:
    """What the first rows call the roles of their turns, those of a pair's two answers too."""
    c, seen = dataset.columns, Counter[str]()
    for row in islice(dataset.rows, LOOKED_AT):
        asked = c.get("messages") or c.get("prompt", "")
        said = [row.record.get(column) for column in (asked, c.get("chosen"), c.get("rejected")) if column]
        for turn in [t for one in said for t in (one if isinstance(one, list | tuple) else [one])]:
            name = turn.get(keys[0]) if isinstance(turn, dict) else None
            if isinstance(name, str):
                seen[name] += 1
    return seen


def _columns(dataset: formats.Dataset) -> dict[str, str]:
    """Where the fields are. A pair with `input` alone has its prompt there."""
    c = dict(dataset.columns)
    if dataset.format == "preference" and not {"prompt", "messages"} & set(c) and c.get("input"):
        c["prompt"] = c.pop("input")
    if dataset.format == "prompt-completion" and any(is_list(v) for v in _values(dataset, HISTORY)):
        c["history"] = HISTORY
    return c


def _values(dataset: formats.Dataset, column: str) -> list[Any]:
    """What the first rows have in a column, where they have anything."""
    return [v for row in islice(dataset.rows, LOOKED_AT) if (v := row.record.get(column))]


def _left_to_the_user(dataset: formats.Dataset, trainer: str, fields: Sequence[str]) -> str:
    """A comment that names the fields that were read here and that the trainer leaves out; "" for none."""
    c = _columns(dataset)
    left = [c[field] for field in fields if c.get(field) and _values(dataset, c[field])]
    return f"# {trainer} leaves out {' and '.join(left)}: put it into the prompts first.\n" if left else ""


def _not_read(dataset: formats.Dataset, trainer: str) -> str:
    """What is said where a trainer reads no rows of this shape; "" where it reads them."""
    if dataset.format == "vertex":
        return f"# {trainer} reads no turns of parts: write them as messages of role and content first."
    if dataset.format == "segments" and trainer != "axolotl":
        return f"# {trainer} does not read segments."
    if dataset.format == "preference" and any(isinstance(v, dict) for v in _values(dataset, "input")):
        return f"# {trainer} does not read OpenAI's pairs: write them as prompt, chosen and rejected first."
    turns = dataset.columns.get("messages", "")
    if turns and not all(map(is_list, _values(dataset, turns))):  # JSON text of them, or an object of lists
        return f"# {trainer} reads the turns in {turns} as a list of objects: write them so first."
    answer = {"prompt-completion": "completion", "preference": "chosen"}.get(dataset.format, "")
    if trainer != "TRL" and answer and any(is_list(v) for v in _values(dataset, dataset.columns[answer])):
        return f"# {trainer} reads no list of turns in {dataset.columns[answer]}."
    if trainer != "TRL" and (mark := _other_mark(dataset)):
        return f"# {trainer} reads cells divided by commas, not by {mark}: write them so first."
    if trainer != "TRL" and _one_list_below(dataset):
        return f"# {trainer} reads a JSON list or JSON lines, not an object that holds the list."
    return ""


def _not_for_it(dataset: formats.Dataset, file: Path, trainer: str) -> str:
    if dataset.inputs.shape == "saved":
        return f"# {trainer} reads no folder of save_to_disk: export it with to_json first."
    if file.suffix in PACKED:
        return f"# {trainer} reads no {file.suffix} files: unpack {file.name} first."
    if file.suffix == ".ndjson":
        return f"# {trainer} reads no .ndjson files: call {file.name} .jsonl first."
    return ""
