"""Where training logs its loss: the integrations that transformers' Trainer knows (tensorboard, wandb, …)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forgetfilter.errors import ConfigError, unknown


def refuse_unusable(report_to: str | Sequence[str]) -> None:
    """ConfigError for a name that transformers does not know, and for one whose package is not installed."""
    names = _names(report_to)
    if not names or names == ["all"]:
        return
    from transformers.integrations import integration_utils as known

    for name in names:
        if name not in known.INTEGRATION_TO_CALLBACK:
            listed = ["none", "all", *known.INTEGRATION_TO_CALLBACK]
            raise ConfigError(f"report_to: {unknown('place to report to', name, listed)}")
        if name not in known.get_available_reporting_integrations():
            raise ConfigError(f"report_to {name}: not installed here; pip install {name}, or leave it out")


def arguments(report_to: str | Sequence[str], folder: Path) -> dict[str, Any]:
    """The training arguments that log every step to `report_to`; the run is called by the stage, its folder's parent.

    none logs nothing.
    """
    names = _names(report_to)
    if not names:
        return {"report_to": "none", "logging_strategy": "no"}
    return {
        "report_to": "all" if names == ["all"] else names,
        "run_name": folder.parent.name,
        "logging_strategy": "steps",
        "logging_steps": 1,  # a run takes tens to hundreds of steps
    }


def keep_beside(trainer: Any, folder: Path) -> None:
    """Let TensorBoard's log lie beside `folder`, which is thrown away after the training."""
    for callback in trainer.callback_handler.callbacks:
        if type(callback).__name__ == "TensorBoardCallback" and callback.logging_dir is None:
            callback.logging_dir = str(folder.parent / "logs")


def end(trainer: Any) -> None:
    """Close the run of wandb: the next stage is a training of its own, whose steps begin at 0."""
    for callback in trainer.callback_handler.callbacks:
        if type(callback).__name__ == "WandbCallback":
            callback._wandb.finish()


def _names(report_to: str | Sequence[str]) -> list[str]:
    names = report_to.split(",") if isinstance(report_to, str) else [*report_to]
    return [name for part in names if (name := part.strip()) != "none"]
