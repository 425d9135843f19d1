"""The header of a GGUF file, read with every length checked against the file.

The sizes in a header are anybody's. They are checked here before a library trusts them.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from forgetfilter.errors import ModelError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LONGEST_TEXT = 1 << 20  # of a key, a name, a licence, a chat template
_MOST_DIMENSIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a GGUF file says of itself, checked against its length."""

    architecture: str
    licence: str | None
    layers: int
    parameters: int  # numbers in its tensors
    bytes: int
    types: frozenset[int]  # of its matrices, by ggml's numbers: 0 float32, 1 float16, the others coarser


def read_header(path: Path, name: str) -> Header:
    """The header of a whole GGUF file. ModelError where it is none, is cut off, or says what cannot be."""
    try:
        with path.open("rb") as file:
            return _header(_Bytes(file, path.stat().st_size))
    except OSError as error:
        raise ModelError(f"model {name}: cannot be read ({error.strerror})") from None
    except _Broken as broken:
        raise ModelError(f"model {name}: {broken}") from None


class _Broken(Exception):
    """Why a header cannot be: the end of a sentence that begins with the model's name."""


@dataclass(slots=True)
class _Bytes:
    """A file, read from its beginning; nothing is taken that the file is too short for."""

    file: IO[bytes]
    size: int
    place: int = 0

    def take(self, count: int) -> bytes:
        self._advance(count)
        found = self.file.read(count)
        if len(found) != count:
            raise _Broken("the GGUF file is cut off in its header; fetch it again")
        return found

    def skip(self, count: int) -> None:
        self._advance(count)
        self.file.seek(self.place)

    def number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def text(self) -> str:
        length = self.number("Q")
        if length > _LONGEST_TEXT:
            self.skip(length)
            return ""
        return self.take(length).decode("utf-8", "replace")

    def _advance(self, count: int) -> None:
        if count > self.size - self.place:
            raise _Broken("the GGUF file is cut off, or a length in its header is wrong; fetch it again")
        self.place += count


def _header(data: _Bytes) -> Header:
    if data.size < 24 or data.take(4) != _MAGIC:
        raise _Broken("not a GGUF file: it does not begin as one")
    version, tensors, entries = data.number("I"), data.number("Q"), data.number("Q")
    if version not in _VERSIONS:
        raise _Broken(f"a GGUF file of version {version}; versions 2 and 3 are read")
    if tensors + entries > data.size // 12:  # an entry takes more bytes than that
        raise _Broken(
            f"a header that announces {tensors + entries:,} entries in {data.size:,} bytes: damaged"
        )
    said: dict[str, Any] = {}
    for _ in range(entries):
        key = data.text()
        said[key] = _value(data, data.number("I"))
    architecture = said.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise _Broken("a GGUF file that does not name its architecture")
    if (kind := said.get("general.type", "model")) != "model":
        raise _Broken(f"a GGUF file of the type {kind!r}, which holds no whole model")
    if (parts := said.get("split.count")) and parts != 1:
        raise _Broken(
            f"one of {parts} parts of a GGUF file; make one file of them (llama-gguf-split --merge)"
        )
    table = [_tensor(data) for _ in range(tensors)]
    alignment = said.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise _Broken(f"an alignment of {alignment!r} in its header: damaged")
    begin = math.ceil(data.place / alignment) * alignment
    end = max((begin + offset + length for _, _, offset, length, _ in table), default=begin)
    if end > data.size:
        raise _Broken(f"cut off: {data.size:,} bytes of at least {end:,}; fetch it again")
    blocks = {name.split(".")[1] for name, *_ in table if name.startswith("blk.")}
    return Header(
        architecture=architecture,
        licence=said.get("general.license") if isinstance(said.get("general.license"), str) else None,
        layers=len(blocks),
        parameters=sum(math.prod(shape) for _, shape, *_ in table),
        bytes=data.size,
        types=frozenset(kind for _, shape, _, _, kind in table if len(shape) > 1),
    )


def _value(data: _Bytes, kind: int) -> Any:
    """A number or a text; None for a list, which is passed over."""
    if kind in _SCALARS:
        return data.number(_SCALARS[kind])
    if kind == _STRING:
        return data.text()
    if kind != _ARRAY:
        raise _Broken(f"a value of the unknown type {kind} in its header: damaged")
    inside, count = data.number("I"), data.number("Q")
    if inside in _SCALARS:
        data.skip(count * struct.calcsize(f"<{_SCALARS[inside]}"))
    elif inside == _STRING:
        if count > data.size // 8:
            raise _Broken(f"a list of {count:,} texts in a file of {data.size:,} bytes: damaged")
        for _ in range(count):
            data.skip(data.number("Q"))
    else:
        raise _Broken("a list of lists in its header, which no model needs: damaged")
    return None


def _tensor(data: _Bytes) -> tuple[str, tuple[int, ...], int, int, int]:
    """Name, shape, place in the data, length in bytes, and type of a tensor."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    name, dimensions = data.text(), data.number("I")
    if dimensions > _MOST_DIMENSIONS:
        raise _Broken(f"a tensor of {dimensions} dimensions in its header: damaged")
    shape = tuple(data.number("Q") for _ in range(dimensions))
    kind, offset = data.number("I"), data.number("Q")
    try:
        block, stored = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError):
        raise _Broken(f"a tensor of the unknown type {kind}; a newer package gguf may know it") from None
    return name, shape, offset, math.ceil(math.prod(shape) / block) * stored, kind
