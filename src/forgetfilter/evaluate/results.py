"""The record of an evaluation: metrics with their estimate, evidence for each row, on disk and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forgetfilter.errors import EvaluationError

if TYPE_CHECKING:
    from forgetfilter.intervals import Estimate  # imports NumPy, which the command line does without

_SUMMARY, _EVIDENCE = "evaluation.json", "evidence.jsonl"


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of an evaluation."""

    name: str  # "toxic_share"
    estimate: Estimate | None  # None: undefined (nothing scored)
    better: Literal["higher", "lower", "neither"]
    unscored: int = 0  # rows left out of the number, counted

    def as_dict(self) -> dict[str, Any]:
        """What a report holds of it."""
        estimate = None if self.estimate is None else self.estimate.as_dict()
        return {"name": self.name, "estimate": estimate, "better": self.better, "unscored": self.unscored}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one evaluator found out about one model state."""

    evaluator: str  # "toxicity"
    version: int  # raised when the same answers would be scored otherwise
    metrics: tuple[Metric, ...]  # the first one is the headline
    evidence: tuple[Mapping[str, Any], ...]  # one a row: id, what was judged, value, one line of why
    settings: Mapping[str, Any]  # scorer or judge with its version, number of rows, and the like

    def __getitem__(self, name: str) -> Metric:
        """The metric of this name; KeyError with the known ones."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        known = ", ".join(metric.name for metric in self.metrics)
        raise KeyError(f"{self.evaluator} has no metric {name!r}; known: {known}")

    def summary(self) -> dict[str, Any]:
        """Everything but the evidence, ready for JSON."""
        return {
            "evaluator": self.evaluator,
            "version": self.version,
            "metrics": [metric.as_dict() for metric in self.metrics],
            "settings": dict(self.settings),
        }


def write(evaluation: Evaluation, folder: Path | str) -> None:
    """Put an evaluation into `folder`: evidence.jsonl first, then evaluation.json, each whole or not at all."""
    from forgetfilter.runs import atomic

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / _EVIDENCE) as path, path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(dict(record)) + "\n" for record in evaluation.evidence)
    with atomic(folder / _SUMMARY) as path:
        text = json.dumps(evaluation.summary(), ensure_ascii=False, indent=1)
        path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def read(folder: Path | str) -> Evaluation:
    """The evaluation that `write` put into `folder`. EvaluationError where there is none, or a damaged one."""
    from forgetfilter.intervals import Estimate

    folder = Path(folder)
    try:
        found = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
        lines = (folder / _EVIDENCE).read_text(encoding="utf-8").splitlines()
        metrics = tuple(
            Metric(m["name"], m["estimate"] and Estimate(**m["estimate"]), m["better"], m["unscored"])
            for m in found["metrics"]
        )
        evidence = tuple(json.loads(line) for line in lines)
        return Evaluation(found["evaluator"], found["version"], metrics, evidence, found["settings"])
    except OSError as error:
        raise EvaluationError(f"{folder}: no evaluation to read here ({error.strerror})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{folder}: not a whole evaluation ({error!r}); evaluate again") from None
