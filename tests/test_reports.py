"""Training tells its loss to whom the user names, as transformers does, and is the same training with or without."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import tiny

from forgetfilter.errors import ConfigError
from forgetfilter.training import reports
from forgetfilter.training.finetune import Trained, finetune


def train(folder: Path, report_to: str) -> tuple[Any, Trained]:
    model = tiny.llama()
    rows = tiny.mixed_rows(12)
    done = finetune(
        model, rows, learning_rate=1e-3, batch_size=4, steps=3, seed=1, folder=folder / "trainer",
        report_to=report_to,
    )  # fmt: skip
    return model, done


def logged(folder: Path) -> dict[tuple[str, int], float]:
    """(name, step) -> value, of the event files in a folder: records of length, checksum, message, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in folder.glob("events.*"):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            found |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
    return found


def test_tensorboard_gets_the_loss_of_each_step_beside_the_training_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("tensorboardX")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    told, done = train(tmp_path / "told", "tensorboard")
    quiet, alone = train(tmp_path / "quiet", "none")
    found = logged(tmp_path / "told" / "logs")
    assert [step for name, step in found if name == "train/loss"] == [1, 2, 3]
    assert found["train/loss", 3] == pytest.approx(
        done.loss, rel=1e-3
    )  # the last tenth of three steps is one
    assert done == alone and tiny.same(tiny.weights(told), tiny.weights(quiet))
    assert not (tmp_path / "quiet" / "logs").exists()


def test_names_nobody_knows_and_packages_not_installed_are_refused_in_words():
    reports.refuse_unusable("none")
    reports.refuse_unusable("all")
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        reports.refuse_unusable("tensorbord")
    with pytest.raises(ConfigError, match="report_to neptune: not installed here; pip install neptune"):
        reports.refuse_unusable(("none", "neptune"))
