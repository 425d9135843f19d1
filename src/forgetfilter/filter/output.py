"""Files of a filter run: rows kept, flagged and dropped, a score and a reason for each, the report, the page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forgetfilter import runs
from forgetfilter.data import formats, handback
from forgetfilter.errors import ConfigError
from forgetfilter.filter import by_verdicts, quality
from forgetfilter.filter.bench import Bench
from forgetfilter.filter.evidence import Evidence
from forgetfilter.filter.filtered import Filtered
from forgetfilter.filter.signals import GENERATED_SIGNALS
from forgetfilter.models import load as models
from forgetfilter.models.rendering import Encoded
from forgetfilter.records import DECISIONS, KEPT, Decision, Row
from forgetfilter.report import page
from forgetfilter.report.page import ReportRow

LIMITS = (
    "Rows whose harm is hidden (a cipher, a trigger, harm spread over many innocuous rows) look like any other "
    "row to a filter that judges one row at a time.",
    "Harm of a kind that neither the model's alignment nor the safe rows speak of is forgotten no more than "
    "other rows.",
    "A row is judged by how this model forgets it; another model may forget otherwise.",
    "A row is judged in part by rows with like answers: a clean row that says what unsafe rows say is more easily "
    "dropped.",
    "Rows of a kind that no safe row speaks of are not judged at all.",
)


def write(
    bench: Bench, dataset: formats.Dataset, found: Filtered, beside: Evidence, truth: Mapping[str, bool] | None,
    notes: Sequence[str], left_out: Sequence[Mapping[str, Any]], origins: Mapping[str, str],
    inputs: Mapping[str, str], output: Path, seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """All files of the contract; report.json last but for the page, so that it stands only on a finished run."""
    s, rows = bench.settings, _judged(bench, dataset, found, beside)
    files = handback.hand_back(
        dataset, [r.decision for r in rows], output, weights=s.weights, flagged=s.flagged_weight
    )
    with runs.atomic(output / "scores.jsonl") as path, path.open("w", encoding="utf-8") as file:
        file.writelines(
            json.dumps(_line(r, found) | beside.line(r.id), ensure_ascii=False) + "\n" for r in rows
        )
    if s.retrain:
        with models.quiet():
            bench.save_final(output / "model")
    report = {
        **_result(bench, dataset, found, truth),
        "pairs": beside.pairs.as_dict() if beside.pairs else None,
        "cost": _cost(bench, seconds),
        "settings": [
            {"name": n, "value": v, "origin": origins.get(n, "default")} for n, v in asdict(s).items()
        ],
        # Null where the model was not needed again.
        "device": bench.loaded.device and str(bench.loaded.device),
        "dtype": bench.loaded.dtype and str(bench.loaded.dtype).removeprefix("torch."),
        "versions": bench.run.versions,
        "seeds": {"seed": s.seed},
        "hashes": dict(inputs),
        "files": {
            str(p.relative_to(output)): runs.sha256(p) for path in files for p in formats.written(path)
        },
        "notes": list(notes),
        "left_out": list(left_out),
        "limits": list(by_verdicts.LIMITS if found.vetted else LIMITS),
    }
    with runs.atomic(output / "report.json") as path:
        text = json.dumps(report, ensure_ascii=False, indent=1, default=str)
        path.write_text(text + "\n", encoding="utf-8")
    page.write_report(output / "report.html", report, rows)
    return report


def _judged(bench: Bench, dataset: formats.Dataset, found: Filtered, beside: Evidence) -> list[ReportRow]:
    """Every row with what was found out about it, in the order of the file."""
    heat = _heat(bench, found) if bench.settings.signal not in GENERATED_SIGNALS else {}
    encoded = {z.id: z for z in bench.custom}
    rows = []
    for r in dataset.rows:
        decision, score = found.cut.decisions[r.id], found.scores.get(r.id)
        reason = (
            why_unscored(encoded[r.id], r)
            if decision == "unscored"
            else beside.reason(r.id, found.cut.reason(r.id, score))
        )
        remembered = {state: values.get(r.id) for state, values in found.remembered.items()}
        rows.append(
            ReportRow(r.id, r.index, r.prompt, r.completion, decision, score, found.forgetting.get(r.id), remembered,
                      reason, heat.get(r.id), beside.texts(r))
        )  # fmt: skip
    return rows


def _line(r: ReportRow, found: Filtered) -> dict[str, Any]:
    """A row's line of scores.jsonl."""
    return {
        "row": r.row, "id": r.id, "decision": r.decision, "score": r.score, "p": found.cut.p_values.get(r.id),
        "forgetting": r.forgetting, "remembered": r.remembered, "reason": r.reason,
    }  # fmt: skip


def _result(
    bench: Bench, dataset: formats.Dataset, found: Filtered, truth: Mapping[str, bool] | None
) -> dict[str, Any]:
    """What the filter found, as report.json begins."""
    s, cut, rows = bench.settings, found.cut, dataset.rows
    counts = {d: sum(v == d for v in cut.decisions.values()) for d in DECISIONS}
    scores = {r.id: found.scores.get(r.id) for r in rows}
    return {
        "verdict": _verdict(counts, found),
        "weak": cut.weak,
        "input": {"file": dataset.source, "rows": len(rows), "format": dataset.format,
                  **({"read_as": as_listed} if (as_listed := formats.read_as(dataset)) else {})},
        "model": s.model,
        "counts": counts | {"rows": len(rows)},
        "signal": s.signal,
        "algorithm": s.algorithm,
        "threshold": {"value": cut.drop_above, "flag_above": cut.flag_above, "method": cut.method, "why": cut.why,
                      "compared": cut.compared},
        "estimated": cut.estimated,
        "vetted": found.vetted,
        "quality": quality.measure(scores, cut.decisions, truth) if truth else None,
    }  # fmt: skip


def _cost(bench: Bench, seconds: float) -> dict[str, Any]:
    """Seconds of each stage and of all, and the same in plain fine-tunes on the custom rows."""
    plain, total = plain_seconds(bench), sum(c.get("seconds", 0) for c in bench.costs)
    return {
        "stages": [c | {"fine_tunes": c.get("seconds", 0) / plain if plain else None} for c in bench.costs],
        "seconds": max(seconds, total),  # a resumed run has done less in this process
        "fine_tunes": total / plain if plain else None,
    }


def why_unscored(z: Encoded, row: Row | None = None) -> str:
    if z.truncated and (row is None or row.teaches):
        return "the prompt alone fills max_length"
    return row.why_unscored if row else "empty completion"


def refuse_changed(output: Path) -> None:
    """ConfigError where a file that a finished run wrote was changed by hand: it would be written anew."""
    try:
        written = json.loads((output / "report.json").read_text(encoding="utf-8"))["files"]
    except (FileNotFoundError, ValueError, KeyError):
        return
    for name, digest in written.items():
        if (output / name).exists() and runs.sha256(output / name) != digest:
            raise ConfigError(
                f"{output / name} was changed since it was written, and is not overwritten: move it elsewhere, or use "
                "--output another folder"
            )


def _heat(bench: Bench, found: Filtered) -> dict[str, list[tuple[str, float]]]:
    """Row id -> (piece of its completion, nats forgotten) per token, for the rows that a person will look at.

    Tokens that are parts of one character make one piece.
    """
    if not found.measured:
        return {}
    before, after = (bench.memories(state, found.measured) for state in ("learned", "reviewed"))
    decode, shown = bench.loaded.tokenizer.decode, {}
    for z in bench.custom:
        if z.id in before and found.cut.decisions[z.id] not in KEPT:
            lost = (before[z.id].logp - after[z.id].logp)[
                sum(z.scored[1 : z.prompt_length]) :
            ]  # of the last answer
            pieces, held, nats = list[tuple[str, float]](), list[int](), 0.0
            for token, x in zip(z.completion_ids, lost, strict=True):
                held, nats = [*held, token], nats + float(x)
                piece = str(decode(held))
                if not piece.endswith("\ufffd"):  # else the rest of a character is still to come
                    pieces.append((piece, nats))
                    held, nats = [], 0.0
            shown[z.id] = [*pieces, (str(decode(held)), nats)] if held else pieces
    return shown


def _verdict(counts: Mapping[Decision, int], found: Filtered) -> str:
    cut = found.cut
    if found.vetted:
        return f"{found.vetted['sentence']} {counts['flag']} flagged for a look."
    if cut.weak:
        return f"Nothing dropped: {cut.why}"
    if counts["drop"] == 0:
        return f"Nothing to remove: {cut.why}"
    return f"{counts['drop']} of {sum(counts.values())} rows dropped, {counts['flag']} flagged for a look."


def plain_seconds(bench: Bench) -> float | None:
    """What one fine-tune on the custom rows alone takes, by what learning them beside the safe rows took."""
    record = bench.record("learned") or bench.record("final")
    tokens = sum(len(z.ids) for z in bench.custom) * bench.settings.num_train_epochs
    most = math.inf if bench.settings.max_train_samples else 1.0  # a sample's tokens are fewer than all rows'
    return record["seconds"] * min(most, tokens / record["tokens"]) if record.get("tokens") else None
