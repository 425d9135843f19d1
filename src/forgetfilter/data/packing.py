"""Compressed files and standard input -> plain files in a temporary folder, and back; files that appear whole."""

from __future__ import annotations

import bz2
import gzip
import os
import re
import shutil
import sys
import tempfile
import weakref
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from forgetfilter.errors import DataError

# What unpacks to more than this, and to more than BOMB times its size, is taken for an archive bomb. Text
# packs to a tenth, a file of one row repeated to a hundredth.
ALWAYS_FINE = 256 * 2**20  # bytes
BOMB = 200


def unpack(path: Path, suffix: str, folder: Path) -> Path:
    """The unpacked file, in `folder`; DataError for a broken file, an archive bomb, a full disk."""
    target = folder / f"{len(list(folder.iterdir()))}-{path.name.removesuffix(path.suffix)}"
    packed = path.stat().st_size
    try:
        with path.open("rb") as raw, target.open("wb") as out:
            written = 0
            for piece in UNPACKED[suffix](raw):
                written += len(piece)
                refuse_bomb(path.name, packed, written, "unpack it")
                out.write(piece)
    except (EOFError, OSError, zlib.error, ValueError) as error:
        _refuse_full_disk(path.name, error)
        raise DataError(f"{path.name}: cannot be unpacked ({_reason(error)}). Copy it again.") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "zstandard":
            raise DataError(f"{path.name}: cannot be unpacked ({_reason(error)}). Copy it again.") from error
        raise
    return target


def refuse_bomb(name: str, packed: int, unpacked: int, remedy: str) -> None:
    """DataError where so many bytes of a file have unpacked to more than any honest file does."""
    if unpacked > max(ALWAYS_FINE, BOMB * packed):
        raise DataError(
            f"{name}: {packed:,} bytes that unpack to more than {unpacked:,}: taken for an archive bomb and not read "
            f"on. If it is none, {remedy}, and name that file."
        )


@contextmanager
def packed(target: Path, suffix: str) -> Generator[Path]:
    """A path to write the plain file to; it stands packed at `target` when the block ends. "": not packed."""
    if not suffix:
        yield target
        return
    plain = target.with_name(target.name + ".plain")
    try:
        yield plain
        with plain.open("rb") as source, target.open("wb") as raw, PACKED[suffix](raw) as out:
            shutil.copyfileobj(source, out, 2**20)
    finally:
        plain.unlink(missing_ok=True)


class appearing:
    """A path to write a file or folder to, which becomes `target` in one step when the block ends well."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.partial = target.with_name(f".{target.name}.{os.getpid()}.partial")

    def __enter__(self) -> Path:
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refusal(error) from error
        self._clear(self.partial)
        return self.partial

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            if error is None:
                for path in sorted(self.partial.rglob("*")) if self.partial.is_dir() else [self.partial]:
                    if path.is_file():
                        with path.open("rb") as file:
                            os.fsync(file.fileno())
                if self.partial.is_dir() and self.target.is_dir():
                    self._clear(self.target)
                self.partial.replace(self.target)
            elif isinstance(error, OSError):
                raise self._refusal(error) from error
        except OSError as failed:
            raise self._refusal(failed) from failed
        finally:
            self._clear(self.partial)

    def _refusal(self, error: OSError) -> DataError:
        return DataError(
            f"{self.target}: cannot be written ({error.strerror or error}). Free space or name another folder."
        )

    def _clear(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def standard_input(folder: Path) -> Path:
    """What comes in through standard input, as a file named by what its first bytes are."""
    if sys.stdin is None or sys.stdin.isatty():
        raise DataError("-: nothing is piped in. Write `… | forgetfilter filter -`, or name a file.")
    plain = folder / "stdin"
    with plain.open("wb") as out:
        shutil.copyfileobj(sys.stdin.buffer, out, 2**20)
    with plain.open("rb") as file:
        start = file.read(2**16)
    if not start.strip():
        raise DataError("-: nothing came in through standard input. Pipe rows in, or name a file.")
    suffix = _suffix_of(start)
    if suffix in PACKED:
        suffix = _suffix_of(_unpacked_start(plain, suffix)) + suffix
    return plain.rename(folder / f"stdin{suffix}")


def _unpacked_start(path: Path, suffix: str) -> bytes:
    """The first bytes of what is packed; of a damaged file none: `unpack` tells of it."""
    try:
        with path.open("rb") as file:
            return next(UNPACKED[suffix](file), b"")
    except Exception:
        return b""


def _suffix_of(start: bytes) -> str:
    for magic, suffix in SUFFIX_OF.items():
        if start.startswith(magic):
            return suffix
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if LINES.match(text):
        return ".jsonl"
    return ".json" if text[:1] in (b"[", b"{") else ".csv"


class Folder:
    """A temporary folder that goes away with the object, and at the latest with the process."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="forgetfilter-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _refuse_full_disk(name: str, error: Exception) -> None:
    from forgetfilter.runs import is_disk_full

    if is_disk_full(error):
        raise DataError(
            f"{name}: no room to unpack it in {tempfile.gettempdir()}. Free space, or name a roomier folder in the "
            "variable TMPDIR."
        ) from error


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


def _gunzipped(raw: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=raw, mode="rb") as source:
        while piece := source.read(2**20):
            yield piece


def _bunzipped(raw: BinaryIO) -> Iterator[bytes]:
    with bz2.BZ2File(raw, "rb") as source:
        while piece := source.read(2**20):
            yield piece


def _unzstandarded(raw: BinaryIO) -> Iterator[bytes]:
    """Frame by frame, since the library's own reader takes a file cut short for a whole one."""
    reader = _zstandard().ZstdDecompressor().decompressobj()
    fresh = True
    while data := raw.read(2**11):  # a few bytes may unpack to 128 kB
        while data:
            if reader.eof:
                reader, fresh = _zstandard().ZstdDecompressor().decompressobj(), True
            piece = reader.decompress(data)
            fresh = False
            if piece:
                yield piece
            data = reader.unused_data if reader.eof else b""
    if fresh or not reader.eof:
        raise EOFError("it ends too early")


def _gzipped(raw: BinaryIO) -> Any:
    # Neither name nor time go into the file: equal rows give equal files.
    return gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0)


def _bzipped(raw: BinaryIO) -> Any:
    return bz2.BZ2File(raw, "wb")


def _zstandarded(raw: BinaryIO) -> Any:
    return _zstandard().ZstdCompressor().stream_writer(raw, closefd=False)


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise DataError(
            ".zst files need the package zstandard: pip install zstandard, or unpack the file with unzstd."
        ) from error
    return zstandard


UNPACKED: dict[str, Callable[[BinaryIO], Iterator[bytes]]] = {
    ".gz": _gunzipped,
    ".bz2": _bunzipped,
    ".zst": _unzstandarded,
}
PACKED: dict[str, Callable[[BinaryIO], Any]] = {".gz": _gzipped, ".bz2": _bzipped, ".zst": _zstandarded}
LINES = re.compile(rb"\{[^\n]*\}[ \t\r]*\n\s*\{")  # two objects on lines of their own
SUFFIX_OF = {
    b"\x1f\x8b": ".gz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"BZh": ".bz2",
    b"PAR1": ".parquet",
    b"ARROW1": ".arrow",
}
