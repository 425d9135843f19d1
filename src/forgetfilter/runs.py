"""A run folder is a record: settings, versions, hashes; finished stages are skipped, nothing is overwritten.

    with Run.open(folder, settings, inputs) as run:
        stage = run.stage("learn")
        if not stage.done:
            ...                      # write into stage.folder
            stage.finish({"loss": 1.2})

Whatever ends the process (Ctrl-C, kill -9, a full disk), the same command resumes: a stage counts only
once its `done.json` stands, and every file that others read appears whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from forgetfilter import ranks
from forgetfilter.errors import ConfigError, DataError, ForgetfilterError

_LOCK, _SETTINGS, _STAGES, _DONE, _UNFINISHED = (
    ".lock",
    "settings.yaml",
    "stages",
    "done.json",
    ".unfinished-",
)
_VERSIONED = ("forgetfilter", "torch", "transformers", "peft")
# Where results, logs and verdicts lie does not change them, so a moved folder still resumes.
_NOT_COMPARED = frozenset({"output_dir", "report_to", "vetted"})


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a run. `folder` exists; `record` is what `finish` was given, {} while unfinished."""

    name: str
    folder: Path
    done: bool
    record: Mapping[str, Any]

    def finish(self, record: Mapping[str, Any]) -> None:
        """Declare the stage done. Its files reach the disk before the mark does."""
        ranks.led(lambda: self._finish(record))

    def _finish(self, record: Mapping[str, Any]) -> None:
        with disk_full_explained():
            for path in self.folder.rglob("*"):
                if path.is_file():
                    flush(path)
        with atomic(self.folder / _DONE) as path:
            path.write_text(json.dumps(dict(record), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


@dataclass(slots=True)
class Run:
    """An output folder that this command alone writes to, until it is closed or the process ends.

    Of several processes the first holds it; the others see it.
    """

    folder: Path
    resumed: bool
    versions: Mapping[str, str | None]  # of the process that began the run
    _lock: IO[str] | None = field(repr=False)

    @classmethod
    def open(
        cls,
        folder: Path | str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        origins: Mapping[str, str] | None = None,
    ) -> Run:
        """Begin a run in `folder`, or go on with the one that has the same settings and inputs.

        `inputs` maps the name of each input to the SHA-256 of its content. Raises ConfigError where
        the folder holds something else, a run with other settings or inputs, or one being written elsewhere.
        """
        folder = Path(folder)
        settings, inputs = _plain(settings), _plain(inputs)
        if ranks.started() > 1 == ranks.size():
            raise ConfigError(
                f"{ranks.started()} processes were started (WORLD_SIZE), and this command uses one; several work at "
                "filter and finetune"
            )
        # Where results lie is part of it: processes that write to two folders would wait for each other for ever.
        ranks.agree(
            sha256_of([str(folder), json.dumps([settings, inputs], sort_keys=True)]), "settings or files"
        )
        opened: list[Run] = []

        def begin() -> list[Any]:
            opened.append(cls._begin(folder, settings, inputs, origins))
            return [opened[0].resumed, dict(opened[0].versions)]

        resumed, found = ranks.led(begin)
        if not opened and not (folder / _SETTINGS).exists():
            raise ConfigError(
                f"{folder}: process {ranks.rank() + 1} does not see it; all need one shared folder"
            )
        return opened[0] if opened else cls(folder, resumed, found, None)

    @classmethod
    def _begin(
        cls, folder: Path, settings: dict[str, Any], inputs: dict[str, Any], origins: Mapping[str, str] | None
    ) -> Run:
        with disk_full_explained():
            try:
                refuse_foreign(folder)
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # rows and what a model says of them
                lock = _take_lock(folder)
            except OSError as error:
                if is_disk_full(error):
                    raise
                raise ConfigError(
                    f"{folder}: cannot write here ({error.strerror}); use --output another folder"
                ) from None
            try:
                for left_over in folder.glob(f"{_UNFINISHED}*"):
                    left_over.unlink()
                found = _read_settings(folder)
                record: dict[str, Any] = found or {}
                if found is None:
                    record = {
                        "settings": settings,
                        "origins": dict(origins or {}),
                        "inputs": inputs,
                        "versions": versions(),
                        "commit": source_commit(),
                    }
                    _write_settings(folder, record)
                elif differing := _differences(record, settings, inputs):
                    raise ConfigError(
                        f"{folder} holds a run of another command; different: {'; '.join(differing)}. "
                        "Use --output another folder, or repeat the first command to resume it"
                    )
            except BaseException:
                lock.close()
                raise
        return cls(folder, found is not None, record.get("versions") or {}, lock)

    def stage(self, name: str, *, keep_unfinished: bool = False) -> Stage:
        """The stage of this name: finished, with its record, or with an empty folder to start in.

        `keep_unfinished` leaves an unfinished folder as it is, for work that resumes from own checkpoints.
        """
        folder = self.folder / _STAGES / name
        record = ranks.led(lambda: self._record(folder, keep_unfinished))
        return Stage(name, folder, record is not None, record or {})

    def _record(self, folder: Path, keep_unfinished: bool) -> dict[str, Any] | None:
        try:
            return json.loads((folder / _DONE).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            pass
        with disk_full_explained():
            if not keep_unfinished:
                discard(folder)
            folder.mkdir(parents=True, exist_ok=True)
        return None

    def close(self) -> None:
        """Let another command have the folder."""
        if self._lock:
            self._lock.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is None:
            return
        stages = self.folder / _STAGES
        nothing_done = not self.resumed and not any(path.is_file() for path in stages.rglob("*"))
        if isinstance(error, ForgetfilterError) and nothing_done:  # the command, mended, may use the folder
            discard(stages)
            (self.folder / _SETTINGS).unlink(missing_ok=True)
        self.close()


@contextmanager
def atomic(path: Path | str) -> Generator[Path]:
    """A path to write to; when the block ends well, its file becomes `path` in one step, else it goes away.

    The temporary file lies in the same folder and keeps the suffix. A full disk raises ForgetfilterError.
    """
    path = Path(path)
    unfinished = path.with_name(f"{_UNFINISHED}{os.getpid()}-{path.name}")
    try:
        with disk_full_explained():
            yield unfinished
            flush(unfinished)
            unfinished.replace(path)
            flush(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def refuse_unwritable(path: Path) -> None:
    """ConfigError where no file can be written at `path`, told before the work and not after it. Makes its folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot write here ({error.strerror}); use --output another file"
        ) from None


@contextmanager
def disk_full_explained() -> Generator[None]:
    """Turns the many faces of a full disk into one ForgetfilterError that says what to do."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ForgetfilterError) or not is_disk_full(error):
            raise
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        raise ForgetfilterError(
            f"disk full{where}: what is finished is kept; free space and run the same command again"
        ) from error


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, is a full disk or quota; native writers only say it in words."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(seen) or "Disk quota exceeded" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def sha256(path: Path | str) -> str:
    """SHA-256 of a file's content, 64 hex digits. DataError where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def sha256_of(texts: Iterable[str]) -> str:
    """SHA-256 of texts in their order, 64 hex digits; ["ab", "c"] differs from ["a", "bc"]."""
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def discard(folder: Path) -> None:
    """Remove a folder and what is in it; none there is fine."""
    if folder.exists():
        shutil.rmtree(folder)


def versions() -> dict[str, str | None]:
    """Versions of what decides a result, None where not installed; nothing is imported for it."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def source_commit() -> str | None:
    """The git commit this code was checked out at, "(changed)" behind it where files differ; else None."""
    import subprocess

    package = Path(__file__).resolve().parent
    checkout = package.parents[1]
    # An installed copy may lie inside somebody else's repository, whose commit would say nothing.
    if not (checkout / ".git").exists() or package.parent.name != "src":
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (" (changed)" if git("status", "--porcelain", "--", "src") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _take_lock(folder: Path) -> IO[str]:
    """An exclusive lock that the system lifts when this process ends, however it ends."""
    import fcntl

    # No `with`: the lock lives as long as the file is open.
    lock = (folder / _LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise ConfigError(
            f"{folder}: process {holder} is writing here now; wait for it, or use --output another folder"
        ) from None
    lock.seek(0)
    lock.truncate()
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def refuse_foreign(folder: Path) -> None:
    """ConfigError where a run cannot begin in `folder`, because something else is there."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, not a folder; use --output another folder")
    if not folder.exists() or (folder / _SETTINGS).exists():
        return
    others = sorted(
        p.name for p in folder.iterdir() if p.name != _LOCK and not p.name.startswith(_UNFINISHED)
    )
    if others:
        shown = ", ".join(others[:3] + ["…"] * (len(others) > 3))
        raise ConfigError(
            f"{folder} holds files that are not from a run ({shown}); use --output another folder"
        )


def _read_settings(folder: Path) -> dict[str, Any] | None:
    import yaml

    path = folder / _SETTINGS
    if not path.exists():
        return None
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        record = None
    if not isinstance(record, dict) or not all(
        isinstance(record.get(k), dict) for k in ("settings", "inputs")
    ):
        raise ConfigError(f"{path} is not the record of a run; use --output another folder")
    return record


def _write_settings(folder: Path, record: Mapping[str, Any]) -> None:
    import yaml

    with atomic(folder / _SETTINGS) as path:
        path.write_text(yaml.safe_dump(record, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _differences(
    record: Mapping[str, Any], settings: Mapping[str, Any], inputs: Mapping[str, Any]
) -> list[str]:
    """What the recorded run has otherwise, in words."""
    old, new = record["settings"], settings
    found = [
        f"{name} (there {old.get(name)!r}, now {new.get(name)!r})"
        for name in dict.fromkeys([*old, *new])
        if name not in _NOT_COMPARED and old.get(name) != new.get(name)
    ]
    for name in dict.fromkeys([*record["inputs"], *inputs]):
        there, now = record["inputs"].get(name), inputs.get(name)
        if there != now:
            how = "its content has changed" if there and now else "only there" if there else "only now"
            found.append(f"{name} ({how})")
    return found


def _plain(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """As it reads back from YAML: tuples as lists, paths as text."""
    return {
        name: [*value] if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        for name, value in mapping.items()
    }


def put_down(file: IO[Any], data: str | bytes) -> None:
    """Write to an open file; it is on the disk when this returns. A full disk raises ForgetfilterError."""
    with disk_full_explained():
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def flush(path: Path) -> None:
    """Make a file or a folder's entries survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
