"""The command `apply`: the final files of a run after a review, beside its own, and what to paste into a trainer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forgetfilter.data import handback
from forgetfilter.data.packing import appearing
from forgetfilter.errors import DONE, ConfigError
from forgetfilter.report.text import share, spelled_out
from forgetfilter.review import outcome
from forgetfilter.review.decisions import NAME, Decisions
from forgetfilter.review.run_files import DECISIONS, RunFiles, open_run, refuse_changed


def run_apply(
    folder: Path, *, output: Path | None = None, cut: float | None = None, weights: bool = False,
    say: Callable[[str], None],
) -> int:  # fmt: skip
    """Write what a review made of the run in `folder` to `output` (else its folder `reviewed`); returns the exit code.

    `cut` replaces the run's own cut. `weights`: also the whole input with a weight per row. Nothing is written over:
    ConfigError where `output` exists.
    """
    target = output or folder / "reviewed"
    if target.exists() or target.is_symlink():
        raise ConfigError(
            f"{target} is there already and is not overwritten: move it away, or name another --output"
        )
    if cut is not None and not np.isfinite(cut):
        raise ConfigError(f"--cut {cut}: not a finite number")
    run = open_run(folder)
    refuse_changed(run)
    decisions = Decisions(folder / NAME, len(run))
    final = outcome.outcomes(run, decisions.said, cut)
    with appearing(target) as partial:
        partial.mkdir()
        written = handback.hand_back(run.data, [DECISIONS[code] for code in final], partial, weights=weights)
        _write_decisions(run, decisions, final, partial / "decisions.jsonl")
        summary = markdown(run, decisions.said, final, cut, [path.name for path in written])
        (partial / "summary.md").write_text(summary, encoding="utf-8")
    counts = outcome.counted(final)
    said = ", ".join(f"{n:,} {WORDS[name]}" for name, n in counts.items() if n)
    say(f"{target}: {said}; {outcome.progress(decisions.said)['judged']:,} rows judged by people")
    say(f"For a pull request: {target / 'summary.md'}")
    _say_snippets(run, target / written[0].name, say)
    if weights:
        say(f"Every row with its weight (0: dropped or flagged): {target / written[-1].name}")
    return DONE


def markdown(
    run: RunFiles, said: np.ndarray, final: np.ndarray, cut: float | None, files: Sequence[str]
) -> str:
    """What was done, for a pull request."""
    before, after, judged = outcome.counted(run.decision), outcome.counted(final), outcome.progress(said)
    report, threshold = run.report, run.threshold
    table = [
        f"| {WORDS[name]} | {before[name]:,} | {after[name]:,} | {share(after[name], len(run))} |"
        for name in DECISIONS
        if before[name] or after[name] or name in ("drop", "keep")
    ]
    changes = [
        f"- {n:,} rows: {WORDS[a]} → {WORDS[b]}"
        for change, n in sorted(outcome.changes(run, final).items())
        for a, b in [change.split(" -> ")]
    ]
    how = f"moved to {cut:g} in the review" if cut is not None else "as the run made it"
    facts = {
        "Input": f"{_plain(run.source)}, {len(run):,} rows",
        "Model": _plain(report.get("model")),
        "Cut": f"{_plain(threshold.get('method'))} at {_number(run.cut)}, {how}",
        "Why there": _plain(threshold.get("why")),
        "Judged by people": f"{judged['judged']:,} rows ({judged['unsafe']:,} unsafe, {judged['clean']:,} clean, "
        f"{judged['unsure']:,} unsure)",
        "Of the rows the cut drops": _certainty(outcome.sureness(run, said, cut)),
        "Made with": f"forgetfilter {_plain((report.get('versions') or {}).get('forgetfilter'))}",
    }
    limits = [f"- {_plain(limit)}" for limit in report.get("limits") or []]
    return "\n".join([
        f"## Rows removed from {_plain(run.source)}", "",
        "| | by the filter | after review | share |", "|---|---:|---:|---:|", *table, "",
        *(f"- **{name}:** {value}" for name, value in facts.items()), "",
        *(["What the review changed:", "", *changes, ""] if changes else []),
        f"Files: {', '.join(f'`{_plain(name)}`' for name in files)}. "
        "`decisions.jsonl` has a line for each row: its decision, and who said so.", "",
        *(["What the filter cannot see:", "", *limits, ""] if limits else []),
    ])  # fmt: skip


def _certainty(found: Mapping[str, Any]) -> str:
    said = []
    if found["clean_share"] is not None and found["clean_share"] < 1:
        said.append(
            f"at most about {100 * found['clean_share']:.1f} % are expected to be clean, by their p-values"
        )
    if p := found["precision"]:
        said.append(
            f"{found['unsafe']} of {found['judged']} judged are unsafe ({100 * p['low']:.0f} to {100 * p['high']:.0f} "
            "% if they had been drawn at random)"
        )
    return "; ".join(said) or "nobody judged one, and no p-values tell them from clean rows"


def _write_decisions(run: RunFiles, decisions: Decisions, final: np.ndarray, path: Path) -> None:
    with path.open("w", encoding="ascii") as file:
        for row, code in enumerate(final.tolist()):
            line: dict[str, Any] = {"row": row, "id": run.ids[row], "decision": DECISIONS[code]}
            if DECISIONS[run.decision[row]] != DECISIONS[code]:
                line["was"] = DECISIONS[run.decision[row]]
            if row in decisions.given:
                line["verdicts"] = [
                    {"by": by or None, "verdict": verdict} for by, verdict in decisions.given[row].items()
                ]
            file.write(json.dumps(line) + "\n")


def _say_snippets(run: RunFiles, kept: Path, say: Callable[[str], None]) -> None:
    if not run.data.format or not len(run):
        say("No trainer's settings are shown: the format of the rows is not known from the run's files.")
        return
    for trainer, text in handback.snippets(run.data, kept).items():
        say(f"\n{trainer}:\n{text.rstrip()}")


def _plain(value: Any) -> str:
    """A value of the report in a line of Markdown where it can be neither a link, a tag nor a table."""
    text = " ".join(spelled_out(str(value if value is not None else "not known")).split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#!" else c for c in text)


def _number(value: float | None) -> str:
    return "no score" if value is None else f"{value:.4g}"


WORDS = {"drop": "dropped", "flag": "flagged", "keep": "kept", "not judged": "not judged (kept)",
         "unscored": "not scored (kept)"}  # fmt: skip
