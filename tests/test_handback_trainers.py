"""The lines that name a kept file to LLaMA-Factory and axolotl, read by their own loaders: they learn what was judged.

Each runs where its trainer can be imported (`pip install --no-deps llamafactory axolotl` is enough beside this
package), and skips elsewhere.
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import tiny
import yaml

from forgetfilter.data import formats, handback

ASKED, SAID = "Where is Paris?", "On the Seine."
SHAPES: dict[str, dict[str, Any]] = {
    "prompt-completion": {"prompt": ASKED, "completion": SAID},
    "other names": {"question": ASKED, "response": SAID},
    "messages": {"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]},
    "messages elsewhere": {"dialogue": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]},
    "sharegpt": {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}]},
    "system": {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASKED},
                            {"role": "assistant", "content": SAID}]},
    "tool roles": {"conversations": [{"from": "human", "value": "Is it cold in Paris?"},
                                     {"from": "function_call", "value": "{}"},
                                     {"from": "observation", "value": "7 degrees"}, {"from": "gpt", "value": SAID}]},
    "alpaca": {"instruction": ASKED, "input": "", "output": SAID},
    "alpaca, input": {"instruction": "Where is it?", "input": "Paris", "output": SAID},
    "text": {"text": f"{ASKED} {SAID}"},
}  # fmt: skip
PAIRS: dict[str, dict[str, Any]] = {
    "pair": {"prompt": ASKED, "chosen": SAID, "rejected": "No."},
    "pair of messages": {"messages": [{"role": "user", "content": ASKED}],
                         "chosen": {"role": "assistant", "content": SAID},
                         "rejected": {"role": "assistant", "content": "No."}},
    "pair of sharegpt": {"conversations": [{"from": "human", "value": ASKED}],
                         "chosen": {"from": "gpt", "value": SAID}, "rejected": {"from": "gpt", "value": "No."}},
}  # fmt: skip
# Shape -> how its fields are named to `filter`.
NAMED = {"question": {"prompt": "question", "completion": "response"}, "dialogue": {"messages": "dialogue"}}
KTO = {"prompt": ASKED, "completion": SAID, "label": True}


def kept(folder: Path, record: dict[str, Any]) -> tuple[formats.Dataset, Path]:
    """What is kept of three rows: two, in a folder of their own."""
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for _ in range(3)), encoding="utf-8")
    dataset = formats.read(path, fields=NAMED.get(next(iter(record))))
    (folder / "out").mkdir()
    file, *_ = handback.hand_back(dataset, ["keep", "drop", "keep"], folder / "out")
    return dataset, file


def imported(name: str) -> Any:
    """A module of a trainer; skips, saying why, where it cannot be imported."""
    sound = ModuleType("torchaudio")  # LLaMA-Factory imports it at once, and uses it for audio alone
    sound.__spec__ = ModuleSpec("torchaudio", None)
    missing = find_spec("torchaudio") is None
    try:
        if missing:
            sys.modules["torchaudio"] = sound
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} cannot be imported: {error}")
    finally:
        if missing:
            del sys.modules["torchaudio"]


# --- LLaMA-Factory ---


def factory(folder: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows as its loader gives them to training: prompt, response, system."""
    loader = imported("llamafactory.data.loader")
    dataset, file = kept(folder, record)
    (file.parent / "dataset_info.json").write_text(handback.llamafactory(dataset, file), encoding="utf-8")
    (attr,) = loader.get_dataset_list(["kept"], str(file.parent))
    arguments = SimpleNamespace(
        dataset_dir=str(file.parent), media_dir="", streaming=False, preprocessing_num_workers=None, max_samples=None,
        overwrite_cache=True, cache_dir=str(folder / "cache"), hf_hub_token=None, local_process_index=0,
    )  # fmt: skip
    rows = loader._load_single_dataset(attr, arguments, arguments, arguments)
    assert len(rows) == 2
    return list(rows)


def turns(some: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in some]


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_llamafactory_learns_the_answer_of_the_kept_file(tmp_path: Path, shape: str):
    row = factory(tmp_path, SHAPES[shape])[0]
    if shape == "text":
        assert (turns(row["_prompt"]), row["_response"]) == ([("user", f"{ASKED} {SAID}")], [])
        return
    assert turns(row["_response"]) == [("assistant", SAID)]
    asked = {
        "alpaca, input": [("user", "Where is it?\nParis")],
        "tool roles": [("user", "Is it cold in Paris?"), ("function", "{}"), ("observation", "7 degrees")],
    }
    assert turns(row["_prompt"]) == asked.get(shape, [("user", ASKED)])
    assert row["_system"] == ("Be brief." if shape == "system" else "")


@pytest.mark.slow
@pytest.mark.parametrize("shape", PAIRS)
def test_llamafactory_prefers_the_chosen_answer_of_a_kept_pair(tmp_path: Path, shape: str):
    row = factory(tmp_path, PAIRS[shape])[0]
    assert turns(row["_prompt"]) == [("user", ASKED)]
    assert turns(row["_response"]) == [("assistant", SAID), ("assistant", "No.")]


@pytest.mark.slow
def test_llamafactory_takes_a_kto_label(tmp_path: Path):
    row = factory(tmp_path, KTO)[0]
    assert turns(row["_response"]) == [
        ("assistant", SAID),
        ("assistant", ""),
    ]  # the wanted answer comes first


# --- axolotl ---


def entry(folder: Path, record: dict[str, Any]) -> tuple[dict[str, Any], Any, Path]:
    """The entry of the snippet, the schema's own reading of it, and the kept file."""
    schemas = imported("axolotl.utils.schemas.datasets")
    from pydantic import TypeAdapter

    dataset, file = kept(folder, record)
    (one,) = yaml.safe_load(handback.axolotl(dataset, file))["datasets"]
    return one, TypeAdapter(schemas.DatasetConfig).validate_python(one), file


@pytest.mark.slow
@pytest.mark.parametrize("shape", {**SHAPES, **PAIRS})
def test_axolotls_schema_keeps_every_key_of_the_entry(tmp_path: Path, shape: str):
    given, read, _ = entry(tmp_path, {**SHAPES, **PAIRS}[shape])
    known = read.model_dump(exclude_none=True)
    assert {key: known.get(key) for key in given} == given


@pytest.mark.slow
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "text"])
def test_axolotl_learns_the_answer_of_the_kept_file(tmp_path: Path, shape: str):
    strategies = imported("axolotl.prompt_strategies")
    from axolotl.utils.dict import DictDefault

    _, read, file = entry(tmp_path, SHAPES[shape])
    tokenizer = tiny.tokenizer()
    cfg = DictDefault({"train_on_inputs": False, "sequence_len": 512})
    config = read.model_dump(exclude_none=True)
    own = isinstance(config["type"], dict)
    strategy = strategies.load("user_defined" if own else config["type"], tokenizer, cfg,
                               config["type"] if own else DictDefault(config))  # fmt: skip
    row = json.loads(file.read_text().splitlines()[0])
    read_row = strategy.tokenize_prompt(row)
    learned = [i for i, label in zip(read_row["input_ids"], read_row["labels"], strict=True) if label != -100]
    text = tokenizer.decode(learned, skip_special_tokens=True).strip()
    assert text == ("{}" + SAID if shape == "tool roles" else SAID)
    asked = tokenizer.decode(read_row["input_ids"], skip_special_tokens=True)
    assert ("Paris" in asked) and (shape != "system" or "Be brief." in asked)


@pytest.mark.slow
@pytest.mark.parametrize("shape", PAIRS)
def test_axolotl_prefers_the_chosen_answer_of_a_kept_pair(tmp_path: Path, shape: str):
    pairs = imported("axolotl.prompt_strategies.dpo")
    from axolotl.utils.dict import DictDefault

    _, read, file = entry(tmp_path, PAIRS[shape])
    config = DictDefault({"datasets": [read.model_dump(exclude_none=True)]})
    kind = config["datasets"][0]["type"]
    made = pairs.load("user_defined.default" if isinstance(kind, dict) else kind, config, dataset_idx=0)
    row = json.loads(file.read_text().splitlines()[0])
    told = made(row) if not isinstance(made, tuple) else made[0](row, tokenizer=tiny.tokenizer())
    assert ASKED in told["prompt"]
    assert (told["chosen"].removesuffix("<|end|>"), told["rejected"].removesuffix("<|end|>")) == (SAID, "No.")


def test_pairs_whose_columns_and_turns_both_have_other_names_are_left_to_the_user(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    pair = {f"{name}_response": {"from": "gpt", "value": name} for name in ("chosen", "rejected")}
    path.write_text(json.dumps({"conversations": [{"from": "human", "value": ASKED}], **pair}))
    dataset = formats.read(path, fields={name: f"{name}_response" for name in ("chosen", "rejected")})
    assert handback.axolotl(dataset, path).startswith("# axolotl wants the answers")
