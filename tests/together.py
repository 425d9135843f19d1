"""What each of several processes does in the tests of `ranks`: `torchrun … together.py WHAT FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tiny import llama, mixed_rows

from forgetfilter import ranks, runs
from forgetfilter.errors import DataError, ForgetfilterError


def learn(folder: Path) -> None:
    """The weights of a model of random numbers after a few steps; the last batch has fewer rows than processes."""
    from safetensors.torch import save_file

    from forgetfilter.models.load import trainable_state
    from forgetfilter.training.finetune import finetune

    model = llama()
    done = finetune(
        model, mixed_rows(9), learning_rate=1e-3, batch_size=4, epochs=2, seed=1, folder=folder / "trainer",
        save_steps=2,
    )  # fmt: skip
    if ranks.rank() == 0:
        save_file(trainable_state(model), folder / f"weights-{ranks.size()}.safetensors")
        found = {"steps": done.steps, "tokens": done.tokens, "loss": done.loss}
        (folder / f"done-{ranks.size()}.json").write_text(json.dumps(found))


def disagree(folder: Path) -> None:
    runs.Run.open(folder / "run", {"epochs": ranks.rank()}, {})


def fail(folder: Path) -> None:
    def work() -> None:
        raise DataError("rows.jsonl line 3: no completion")

    ranks.led(work)


def die(folder: Path) -> None:
    if ranks.rank() == 1:
        os._exit(7)
    ranks.wait()


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    try:
        with ranks.joined():
            {"learn": learn, "disagree": disagree, "fail": fail, "die": die}[what](where)
    except ForgetfilterError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
