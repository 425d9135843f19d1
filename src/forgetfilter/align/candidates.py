"""The log of everything the model wrote: appended, never overwritten. A killed run goes on from it.

A line is {"run": …} where a command begins, else one candidate: step, id, try, what was asked, the text, the
checks it passed, and the reason it was rejected for, "" where it was not.
"""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from forgetfilter.errors import ConfigError, DataError
from forgetfilter.runs import put_down, refuse_unwritable

Line = dict[str, Any]


class Log:
    """The candidates of a run, those of earlier tries included. ConfigError where the file is another run's."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        refuse_unwritable(path)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ConfigError(
                f"{path}: another command writes to it now; wait for it, or use --output"
            ) from None
        try:
            self._lines = self._read(settings)
            self.resumed = len(self._lines)
            self._put([{"run": dict(settings)}])
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def get(self, step: str, id: str, n: int) -> Line | None:
        """The n-th candidate for this item at this step, None where it was not asked for yet."""
        return self._lines.get((step, id, n))

    def add(self, lines: Sequence[Line]) -> None:
        """Put down candidates; they are on disk when this returns."""
        self._put(lines)
        self._lines |= {_key(line): line for line in lines}

    def reasons(self, step: str) -> Counter[str]:
        """How often each reason was given at a step, "" for what passed."""
        return Counter(
            line["reason"].partition(":")[0] for line in self._lines.values() if line["step"] == step
        )

    def _put(self, lines: Iterable[Mapping[str, Any]]) -> None:
        put_down(self._file, b"".join(json.dumps(dict(line)).encode() + b"\n" for line in lines))

    def _read(self, settings: Mapping[str, Any]) -> dict[tuple[str, str, int], Line]:
        self._file.seek(0)
        content = self._file.read()
        raw = content.splitlines()
        lines = [self._line(raw, i) for i in range(len(raw))]
        headers = [line["run"] for line in lines if line and isinstance(line.get("run"), dict)]
        if raw and (not lines[0] or "run" not in lines[0]):
            raise ConfigError(f"{self.path} is there already, of another command; use --output another file")
        for header in headers:
            if differing := [k for k in settings if header.get(k) != settings[k]]:
                told = "; ".join(f"{k} there {header.get(k)!r}, now {settings[k]!r}" for k in differing)
                raise ConfigError(
                    f"{self.path} holds the candidates of another command ({told}). Use --output another file, or "
                    "repeat the first command to go on with it"
                )
        if content and not content.endswith(b"\n"):
            self._file.write(b"\n")  # a kill has cut a line; the next one begins anew
        return {_key(line): line for line in lines if line and "run" not in line}

    def _line(self, raw: Sequence[bytes], i: int) -> Line | None:
        """A line as a record; None for one that was cut: the last, or one before the beginning of a run."""
        try:
            line = json.loads(raw[i])
            texts = ("step", "id", "text", "reason")
            if isinstance(line, dict) and (
                "run" in line
                or (all(isinstance(line[k], str) for k in texts) and isinstance(line["try"], int))
            ):
                return line
        except (ValueError, KeyError):
            pass
        if i > 0 and (i + 1 == len(raw) or raw[i + 1].startswith(b'{"run": ')):
            return None
        if i == 0:
            raise ConfigError(f"{self.path} is there already, of another command; use --output another file")
        raise DataError(
            f"{self.path} line {i + 1}: no candidate in it. Take the line out, or use --output another file"
        )


def _key(line: Mapping[str, Any]) -> tuple[str, str, int]:
    return line["step"], line["id"], line["try"]
