"""What a person sees in the terminal: progress with rate and ETA, the summary, the next command; and hidden
characters spelled out, wherever text is shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


# Characters that are invisible or steer the text around them: controls except tab and line break, direction
# marks, soft hyphens, zero-width and filler characters, tag characters and the variation selectors that carry
# hidden data, line and paragraph separators, lone surrogates. Joiners stay where scripts and emoji need them.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b"
    "\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufdd0-\ufdef\ufe00-\ufe0d\ufeff\uffa0"
    "\ufff0-\ufffb\ufffe\uffff\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
    "|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)


def spelled_out(text: str) -> str:
    r"""`text` with every hidden or direction-steering character as its code, such as `\u202e`."""
    return HIDDEN.sub(lambda found: _code(found[0]), text.replace("\r\n", "\n"))


def _code(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@dataclass(frozen=True, slots=True)
class Display:
    """Writes to one console. Row texts and file names go out as they are: no markup, no emoji codes, and hidden
    characters spelled out, so that no file can move the cursor, colour the screen or turn the text round."""

    console: Console

    def say(self, line: str) -> None:
        """One line, not broken: a path in it can be copied whole."""
        self.console.print(_literal(line), soft_wrap=True)

    @contextmanager
    def stage(self, title: str, unit: str, total: int | None = None) -> Generator[Callable[[int, int], None]]:
        """A progress bar for one stage; yields a function of (done, in all). Off a terminal: one line at the end."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        width = self.console.width
        wide = width >= 70
        room = width - (46 if wide else 24)  # beside count and times
        shown = spelled_out(title if len(title) <= room else f"{title[: max(room - 1, 7)]}…")
        timing = [TextColumn("{task.fields[rate]}", markup=False), TimeElapsedColumn(), TextColumn("left")]
        columns = (  # what has no room is left out, lest the count be cut
            TextColumn("{task.description}", markup=False), *([BarColumn()] * (width >= 100)),
            MofNCompleteColumn(), *(timing * wide), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(shown.ljust(24 * wide), total=total, rate="")

            def progress(done: int, in_all: int) -> None:
                speed = bar.tasks[task].speed or 0.0
                bar.update(task, completed=done, total=in_all, rate=f"{speed:.1f} {unit}s/s")

            yield progress
        if not self.console.is_terminal:
            self.say(f"{title}: done")

    def summary(self, report: Mapping[str, Any], output: Path) -> None:
        """The table at the end of a run."""
        from rich.table import Table

        table = Table(show_header=False, title=None, box=None, pad_edge=False)
        for name, value in _lines(report):
            table.add_row(name, _literal(value))
        self.say("")
        self.say(report["verdict"])
        self.console.print(table)
        self.say(f"Look at {output / 'report.html'}; the clean rows are in {output}/kept.*")

    def next_steps(self, output: Path) -> None:
        """After the demo: what to type on own data."""
        self.say("")
        self.say("On your own rows:  forgetfilter filter custom.jsonl")
        self.say("With your own safe rows and model:")
        self.say("  forgetfilter filter custom.jsonl --safe safe.jsonl --model PATH --output runs/mine")


def _lines(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    counts, threshold, quality = report["counts"], report["threshold"], report["quality"]
    lines = [
        ("rows", str(counts["rows"])),
        ("kept", str(counts["keep"])),
        ("flagged", str(counts["flag"])),
        ("dropped", str(counts["drop"])),
        ("not judged (kept)", str(counts["not judged"])),
        ("unscored (kept)", str(counts["unscored"])),
        (
            "threshold",
            "none" if threshold["value"] is None else f"{threshold['value']:.4g} ({threshold['method']})",
        ),
        ("why", threshold["why"]),
    ]
    share = (report["estimated"] or {}).get("unsafe_share")
    if share:
        lines.append(
            ("estimated unsafe share", f"{share['value']:.1%} [{share['low']:.1%}, {share['high']:.1%}]")
        )
    if quality:
        for name in ("auc", "precision", "recall", "f1"):
            found = quality.get(name)
            lines.append((f"against truth: {name}", "not defined" if found is None else _interval(found)))
    cost = report["cost"]
    spent = f", {cost['fine_tunes']:.1f} plain fine-tunes" if cost["fine_tunes"] is not None else ""
    lines.append(("time", f"{cost['seconds']:.0f} s{spent}"))
    return lines


def _literal(text: str) -> Text:
    from rich.text import Text

    return Text(spelled_out(text))


def _interval(estimate: Mapping[str, Any]) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
