"""What the user names -> the files that hold the rows: a file, several, a folder of shards, a pattern, a job's list.

Nothing is read here but the job's own file; each `Input` says how its file is opened.
"""

from __future__ import annotations

import difflib
import errno
import glob
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from forgetfilter.data import jobs, packing
from forgetfilter.errors import DataError

TEXTS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
TABLES = (".parquet", ".arrow")
CONTAINERS = (*TEXTS, *TABLES)


@dataclass(frozen=True, slots=True)
class Input:
    """One file, and what is known of it before it is read."""

    path: Path | None  # None: a hub data set
    name: str  # for messages: the file's name, or the hub id
    suffix: str  # of CONTAINERS, in small letters
    packing: str = ""  # .gz, .bz2 or .zst
    format: str | None = None  # named by a job
    fields: Mapping[str, str] = field(default_factory=dict)
    hub: str = ""  # owner/name or owner/name:split, where it lies on the hub

    @property
    def endings(self) -> str:
        """`.jsonl.gz` as the file spells it."""
        if self.path is None:
            return ".jsonl"
        plain = self.path.name.removesuffix(self.path.suffix) if self.packing else self.path.name
        return Path(plain).suffix + (self.path.suffix if self.packing else "")


@dataclass(frozen=True, slots=True)
class Inputs:
    """All files of one data set, in order."""

    source: str  # file or folder name without the folders above, or hub id
    files: tuple[Input, ...]
    shape: str  # file, folder (of shards), saved (by save_to_disk), list or hub
    notes: tuple[str, ...] = ()


def find(name: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], folder: Path) -> Inputs:
    """The files meant by a name or by several; `folder` takes what comes in through standard input.

    DataError, in words, where there is nothing to read.
    """
    if not isinstance(name, str | os.PathLike):
        return _several([os.fspath(one) for one in name], folder)
    name = os.fspath(name)
    if not name:
        raise DataError(NONE_NAMED)
    if name == "-":
        path = packing.standard_input(folder)
        made = _input(path)
        return Inputs("stdin", (replace(made, name="stdin"),), "file")
    path = Path(name)
    try:
        if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
            return _job(path.name, jobs.axolotl(path))
        if path.name == "dataset_info.json" and jobs.is_dataset_info(path):
            return _job(path.name, jobs.llamafactory(path, None))
        if not os.path.lexists(path) and (entry := jobs.named_entry(name)) is not None:
            return _job(f"{entry[0].name}:{entry[1]}", jobs.llamafactory(*entry))
        return _rows(name, path)
    except OSError as error:
        raise DataError(f"{name}: {_loop_or(error, 'cannot be read')}") from error


def _rows(name: str, path: Path) -> Inputs:
    """The files of what is no trainer's list: an entry of such a list may not name another one, or itself."""
    if os.path.lexists(path):
        path.stat()  # raises for a link that leads nowhere or to itself
        return _folder(path) if path.is_dir() else Inputs(path.name, (_input(path),), "file")
    if is_hub_id(name):
        return Inputs(name, (_on_hub(name),), "hub")
    if "://" in name:
        raise DataError(
            f"{name}: is an address, not a file. Download it, or pipe it in and write - for its name."
        )
    if glob.has_magic(name):
        return _pattern(name)
    raise DataError(f"{path}: no such file.{_nearest_file(path)}")


def _on_hub(name: str) -> Input:
    return Input(None, name, ".jsonl", hub=name)


def _input(path: Path) -> Input:
    plain, packed = path.name, ""
    if path.suffix.lower() in packing.PACKED:
        packed, plain = path.suffix.lower(), path.name.removesuffix(path.suffix)
    suffix = Path(plain).suffix.lower()
    if suffix not in CONTAINERS:
        raise DataError(
            f"{path.name}: {suffix or 'no suffix'!r} is no known kind of file; known: "
            f"{', '.join(CONTAINERS)}, and the first five with {', '.join(packing.PACKED)} behind. "
            + ("Unpack it." if suffix in PACKERS else "Rename it or convert it to one of them.")
        )
    if packed and suffix in TABLES:
        raise DataError(f"{path.name}: {suffix} is packed already. Unpack it once.")
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {_loop_or(error, 'cannot be read')}") from error
    if not path.is_file():
        raise DataError(f"{path}: is no regular file. Pipe its content in and write - for its name.")
    if status.st_size == 0 and suffix in TABLES:
        raise DataError(f"{path.name}: is empty. Give a file with at least one row.")
    _refuse_pointer(path, status.st_size)
    return Input(path, path.name, suffix, packed)


def _refuse_pointer(path: Path, size: int) -> None:
    """DataError for what `git clone` leaves in a large file's place where Git LFS is not installed."""
    if size < MOST_OF_POINTER:
        with path.open("rb") as file:
            if file.read(len(POINTER)) == POINTER:
                raise DataError(
                    f"{path.name}: is a pointer of Git LFS, not the rows. Fetch them: git lfs pull."
                )


def _folder(path: Path) -> Inputs:
    names = {entry.name for entry in path.iterdir()}
    if "dataset_dict.json" in names:
        splits = sorted(p.name for p in path.iterdir() if (p / "state.json").exists())
        if len(splits) == 1:
            return _folder(path / splits[0])
        raise DataError(
            f"{path}: a data set saved with save_to_disk, of several splits ({', '.join(splits)}). "
            f"Name one, such as {path / (_train(splits) if splits else 'train')}."
        )
    if "state.json" in names and "dataset_info.json" in names:
        return Inputs(path.name, tuple(map(_input, _saved(path))), "saved")
    shards, others = [], []
    for entry in sorted(path.iterdir(), key=lambda p: p.name):
        if entry.name.startswith((".", "_")) or entry.name in BESIDE:
            continue
        if _is_container(entry.name) and not entry.is_dir():
            shards.append(entry)
        else:
            others.append(entry.name)
    if not shards:
        raise DataError(f"{path}: is a folder without files of rows.{_hint_below(path)}")
    _refuse_mixture(path, shards)
    notes = [*_passed_over(others), *_missing_shards([p.name for p in shards])]
    return Inputs(
        path.name, tuple(map(_input, shards)), "folder", tuple(f"{path.name}: {words}" for words in notes)
    )


def _saved(path: Path) -> list[Path]:
    """The .arrow files that a folder of save_to_disk says it has: others in it are left from earlier times."""
    try:
        listed = json.loads((path / "state.json").read_text(encoding="utf-8"))["_data_files"]
        found = [path / one["filename"] for one in listed]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path / 'state.json'}: does not name its .arrow files. Save the data set again."
        ) from error
    if gone := [file.name for file in found if not os.path.lexists(file)]:
        raise DataError(
            f"{path}: a data set saved with save_to_disk without its file {gone[0]}. Copy or save it again."
        )
    return found


def _passed_over(names: Sequence[str]) -> list[str]:
    """What is said of files that hold no rows."""
    return [f"passed over: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"] if names else []


def _missing_shards(names: Sequence[str]) -> list[str]:
    """What is said of shards that number themselves `00001-of-00003` where some are not there."""
    there: dict[tuple[str, str, str], set[int]] = {}
    for name in names:
        if found := NUMBERED.fullmatch(name):
            there.setdefault((found[1], found[3], found[4]), set()).add(int(found[2]))
    said = []
    for (before, of, after), numbers in there.items():
        gone = sorted(set(range(min(int(of), MOST_SHARDS))) - numbers)
        if gone:
            first = f"{before}{gone[0]:0{len(of)}d}-of-{of}{after}"
            said.append(
                f"{len(gone):,} of {int(of):,} shards not there, such as {first}: their rows are not read"
            )
    return said


def _refuse_mixture(path: Path, shards: Sequence[Path]) -> None:
    endings = {p: p.suffixes[-2:] if p.suffix.lower() in packing.PACKED else [p.suffix] for p in shards}
    kinds = sorted({"".join(ending).lower() for ending in endings.values()})
    if len(kinds) > 1:
        raise DataError(
            f"{path}: holds files of several kinds ({', '.join(kinds)}), perhaps the same rows twice. "
            f"Name those to read: '{path}/*{kinds[0]}'."
        )
    splits = {m[1].lower(): "*" * (m.start() > 0) + m[1] for p in shards if (m := SPLIT.search(p.name))}
    if len(splits) > 1:
        named = ", ".join(sorted(splits))
        raise DataError(
            f"{path}: holds several splits ({named}). Name the one to read: '{path}/{splits[_train(splits)]}*'."
        )


def _train(splits: Iterable[str]) -> str:
    """The split to suggest: the one that is trained on, where there is one."""
    return max(splits, key=lambda name: (name == "train", name))


def _pattern(pattern: str) -> Inputs:
    names = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    found = [Path(name) for name in names]
    files = [p for p in found if _is_container(p.name) and not p.is_dir()]
    if not files:
        raise DataError(f"{pattern}: no file of rows fits this pattern. Look in {_above(pattern)}.")
    seen: dict[tuple[int, int], Path] = {}
    others = [p.name for p in found if not _is_container(p.name) and not p.is_dir()]
    notes = [f"{pattern}: {words}" for words in _passed_over(others)]
    for file in files:
        status = file.stat()
        first = seen.setdefault((status.st_dev, status.st_ino), file)
        if first is not file:
            notes.append(f"{pattern}: {file} is {first} by another name: read once")
    shape = "file" if len(seen) == 1 else "folder"
    above = Path(pattern).parent.name
    source = above if above and not glob.has_magic(above) else Path(pattern).name
    return Inputs(source, _apart([_input(p) for p in seen.values()]), shape, tuple(notes[:3]))


def _several(names: Sequence[str], folder: Path) -> Inputs:
    if len(names) == 1:
        return find(names[0], folder)
    parts = [find(name, folder) for name in names]
    files = [file for part in parts for file in part.files]
    if not files:
        raise DataError(NONE_NAMED)
    seen: set[Path | str] = set()
    for file in files:
        if (at := file.path.resolve() if file.path else file.name) in seen:
            raise DataError(f"{file.name}: is named twice. Name every file once.")
        seen.add(at)
    source = f"{parts[0].source}+{len(files) - 1}"
    return Inputs(source, _apart(files), "list", tuple(note for part in parts for note in part.notes))


def _job(source: str, job: jobs.Job) -> Inputs:
    """The files of a trainer's own list."""
    files: list[Input] = []
    notes, shape = [*job.notes], "list"
    for entry in job.entries:
        if entry.hub:
            found = Inputs(entry.location, (_on_hub(entry.location),), "file")
        else:
            found = _rows(entry.location, Path(entry.location))
        files += [replace(f, format=entry.format, fields=entry.fields) for f in found.files]
        notes += found.notes
        shape = found.shape if len(job.entries) == 1 else "list"
    return Inputs(source, _apart(files), shape, tuple(notes))


def _apart(files: Sequence[Input]) -> tuple[Input, ...]:
    """Files of one name get the folder above in front of theirs: messages and outputs tell them apart."""
    names = [f.name for f in files]
    if len(set(names)) == len(names):
        return tuple(files)
    longer = [f.path.parent.name + "-" + f.name if f.path else f.name for f in files]
    if len(set(longer)) < len(longer):
        longer = [f"{i}-{name}" for i, name in enumerate(names)]
    return tuple(replace(f, name=name) for f, name in zip(files, longer, strict=True))


def is_hub_id(name: str) -> bool:
    """Looks like owner/name or owner/name:split, and cannot be meant as a file."""
    if not HUB_ID.fullmatch(name) or Path(name).exists():
        return False
    # A mistyped data/custom.jsonl must not turn into a download.
    return not _is_container(name) and not Path(name).parent.is_dir()


def _is_container(name: str) -> bool:
    path = Path(name.lower())
    if path.suffix in packing.PACKED:
        return Path(path.stem).suffix in TEXTS
    return path.suffix in CONTAINERS


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" There is no folder {path.parent} either."
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1, cutoff=0.6)
    return f" Did you mean {path.with_name(near[0])}?" if near else f" Look in {path.parent.resolve()}."


def _hint_below(path: Path) -> str:
    below = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    with_rows = [p for p in below if any(_is_container(inside.name) for inside in p.iterdir())]
    return f" Name one in it, such as {with_rows[0]}." if with_rows else " Name a file."


def _above(pattern: str) -> Path:
    fixed = Path(pattern).parts
    upto = next(i for i, part in enumerate(fixed) if glob.has_magic(part))
    return Path(*fixed[:upto]).resolve() if upto else Path.cwd()


def _loop_or(error: OSError, otherwise: str) -> str:
    if error.errno == errno.ELOOP:
        return "is a link that leads back to itself. Name the file it should lead to."
    if error.errno == errno.ENOENT:
        return "is a link to a file that is not there. Name the file it should lead to."
    return f"{otherwise} ({error.strerror or error})."


HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?::[\w.\[\]%:-]+)?")
# As `datasets` finds splits in the names of a folder's files.
SPLIT = re.compile(r"(?<![a-z0-9])(train|test|validation|valid|val|dev|eval)(?![a-z])", re.IGNORECASE)
PACKERS = (".xz", ".lzma", ".zip", ".7z", ".tar", ".tgz", ".rar", ".lz4", ".br")  # not unpacked here
POINTER, MOST_OF_POINTER = b"version https://git-lfs.github.com/", 1024  # its first bytes; bytes
NUMBERED = re.compile(r"(.*?)(\d{3,6})-of-(\d{3,6})(.*)")
MOST_SHARDS = 100_000
NONE_NAMED = "no file is named. Name at least one."
BESIDE = {"dataset_info.json", "dataset_infos.json", "state.json", "metadata.json"}
