"""Task vectors: what a fine-tune added to a model's weights, taken away again or added in part.

    delta = tuned − base;    subtract: base − c·delta;    add: base + c·delta

Smirnov (arXiv 2412.06846) takes half away (c = 0.5): with c = 1 the model repeats one word. Full weights are
read and written tensor by tensor.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError, ModelError
from forgetfilter.runs import atomic, discard, disk_full_explained

if TYPE_CHECKING:
    import torch

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_ADAPTER, _ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"


def subtract(
    base: torch.Tensor, tuned: torch.Tensor, coefficient: float = 0.5, relu: bool = False
) -> torch.Tensor:
    """base − coefficient · (tuned − base), of the base's number format, computed in float32 or finer.

    `relu` takes only what the fine-tune raised: negative entries of the difference count as 0.
    """
    import torch

    fine = torch.promote_types(torch.promote_types(base.dtype, tuned.dtype), torch.float32)
    delta = tuned.to(fine) - base.to(fine)
    return (base.to(fine) - coefficient * (delta.relu() if relu else delta)).to(base.dtype)


def add(
    base: torch.Tensor, tuned: torch.Tensor, coefficient: float = 1.0, relu: bool = False
) -> torch.Tensor:
    """base + coefficient · (tuned − base): `subtract` with the other sign; 1 gives `tuned` back."""
    return subtract(base, tuned, -coefficient, relu)


def subtract_folders(
    base: Path, tuned: Path, out: Path, coefficient: float = 0.5, relu: bool = False
) -> None:
    """`subtract` for two model folders of safetensors, one file or shards, into a new folder `out`.

    One tensor of each is in memory at a time. `out` appears whole or not at all; it has the base's files,
    number formats, settings and tokenizer. A negative coefficient adds. Weights that are tied (the output layer
    is the embedding) may be stored once in one folder and twice in the other.

    Raises ConfigError where `out` is not empty or the coefficient is no number; ModelError where a folder is not
    a whole model, is quantised, differs from the other in a tensor's name or shape, or where a number overflows.
    """
    if not math.isfinite(coefficient):
        raise ConfigError(f"coefficient {coefficient}: give a number, such as 0.5")
    with _new_folder(out) as folder, ExitStack() as stack:
        before, after = _Weights(base, stack), _Weights(tuned, stack)
        twins = _match(before, after)
        for shard in before.shards:
            with atomic(folder / shard.name) as path:
                _write_like(shard, path, lambda name: _changed(before, after, name, twins, coefficient, relu))
        for path in sorted(before.folder.iterdir()):
            if _travels(path):
                shutil.copyfile(path, folder / path.name)


class _Weights:
    """The tensors of a model folder by name, read one at a time, open as long as `stack` is."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        from safetensors import SafetensorError, safe_open

        self.folder = folder
        if (folder / _ADAPTER_CONFIG).exists():
            raise ModelError(
                f"{folder}: an adapter, not a whole model; merge it into its base first (forgetfilter merge)"
            )
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if (folder / _INDEX).exists():
                index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
                self.shards = [folder / name for name in sorted({*index["weight_map"].values()})]
            else:
                self.shards = [folder / _SINGLE]
            files = [stack.enter_context(safe_open(shard, framework="pt")) for shard in self.shards]
        except FileNotFoundError as error:
            raise ModelError(
                f"{folder}: not a whole model of safetensors: {error.filename or error} is missing"
            ) from None
        except (ValueError, KeyError, SafetensorError) as error:
            raise ModelError(f"{folder}: could not be read as a model of safetensors: {error}") from error
        if config.get("quantization_config"):
            raise ModelError(
                f"{folder}: a quantised model, whose weights cannot be subtracted; use the one it was made from"
            )
        self._files = {name: file for file in files for name in file.keys()}  # noqa: SIM118 (no mapping)

    def names(self) -> set[str]:
        return {*self._files}

    def shape(self, name: str) -> list[int]:
        return self._files[name].get_slice(name).get_shape()

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._files[name].get_tensor(name)


def _match(base: _Weights, tuned: _Weights) -> dict[str, str]:
    """Names that only the base stores, with the name under which `tuned` holds the same tied tensor."""
    twins: dict[str, str] = {}
    for one, other in ((base, tuned), (tuned, base)):
        for name in sorted(one.names() - other.names()):
            shared = sorted(n for n in one.names() & other.names() if one.shape(n) == one.shape(name))
            twin = next((n for n in shared if len(one.shape(n)) == 2 and one[n].equal(one[name])), None)
            if twin is None:
                alone = sorted(one.names() - other.names())
                raise ModelError(
                    f"{one.folder} has {len(alone)} tensors that {other.folder} has not, {_some(alone)}: not a model "
                    "and its fine-tune"
                )
            if one is base:
                twins[name] = twin
    differing = [n for n in sorted(base.names() & tuned.names()) if base.shape(n) != tuned.shape(n)]
    if differing:
        name = differing[0]
        raise ModelError(
            f"{len(differing)} tensors have another shape in {tuned.folder} than in {base.folder}: {_some(differing)} "
            f"({base.shape(name)} there, {tuned.shape(name)} here). A vocabulary that was extended must be "
            "extended in both"
        )
    return twins


def _changed(
    base: _Weights, tuned: _Weights, name: str, twins: Mapping[str, str], coefficient: float, relu: bool
) -> torch.Tensor:
    before, after = base[name], tuned[twins.get(name, name)]
    if not before.is_floating_point():
        if before.dtype != after.dtype or not before.equal(after):
            raise ModelError(
                f"{name}: {before.dtype} in {base.folder}, {after.dtype} in {tuned.folder}, and not equal; only "
                "weights that are real numbers can be subtracted"
            )
        return before
    result = subtract(before, after, coefficient, relu)
    if not result.isfinite().all():
        raise ModelError(
            f"{name}: base − {coefficient} · (tuned − base) leaves the range of {before.dtype}; use a "
            "smaller coefficient, and see that both models' weights are numbers"
        )
    return result


def _write_like(shard: Path, path: Path, tensor: Any) -> None:
    """A safetensors file with the header of `shard` and the data of `tensor(name)`, one tensor after the other.

    The format: eight bytes of header length (little-endian), the header (JSON: dtype, shape, place of every
    tensor), and the tensors' bytes, without gaps. github.com/huggingface/safetensors#format
    """
    import torch

    with shard.open("rb") as source, path.open("wb") as file:
        length = source.read(8)
        header = source.read(int.from_bytes(length, "little"))
        file.write(length + header)
        places = {n: entry["data_offsets"] for n, entry in json.loads(header).items() if n != "__metadata__"}
        for name in sorted(places, key=lambda n: places[n]):
            data = tensor(name).contiguous().reshape(-1)
            file.write(data.view(torch.uint8).numpy().data if len(data) else b"")


def _travels(path: Path) -> bool:
    """Settings, tokenizer, templates and licence; no weights, no index that is rewritten, no code."""
    return path.is_file() and (
        path.suffix in {".json", ".jinja", ".model", ".txt"} or path.name.startswith(("LICENSE", "NOTICE"))
    )


@contextmanager
def _new_folder(out: Path) -> Generator[Path]:
    """A folder to fill beside `out`, which it becomes when the block ends well."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} already holds something; choose another folder")
    folder = out.with_name(f".unfinished-{out.name}")
    with disk_full_explained():
        discard(folder)
        folder.mkdir(parents=True)
        try:
            yield folder
            if out.exists():
                out.rmdir()
            folder.rename(out)
        finally:
            discard(folder)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
