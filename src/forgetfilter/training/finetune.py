"""Model + encoded rows + settings -> the same model, fine-tuned in place. One engine for every stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter import ranks
from forgetfilter.data.overlap import common_to_all
from forgetfilter.errors import DataError
from forgetfilter.models.load import quiet, restore, trainable_state
from forgetfilter.models.rendering import Encoded
from forgetfilter.runs import atomic
from forgetfilter.training import memory
from forgetfilter.training.adamw import master_adamw
from forgetfilter.training.attention import attention_by_length
from forgetfilter.training.head import summed_cross_entropy
from forgetfilter.training.prefix import price_of_a_pass

if TYPE_CHECKING:
    import torch

_WEIGHTS, _TALLY = "trainable.safetensors", "tally.json"  # files of a checkpoint


@dataclass(frozen=True, slots=True)
class Trained:
    """What one fine-tune did."""

    steps: int
    tokens: int  # prompt and completion tokens that went through the model, padding left out
    loss: float  # mean over the last tenth of the steps, nats per learned token


def finetune(
    model: Any,
    rows: Sequence[Encoded],
    *,
    learning_rate: float,
    batch_size: int,
    epochs: float | None = None,
    steps: int | None = None,
    seed: int,
    folder: Path,
    pad_id: int = 0,
    schedule: str = "constant",
    warmup_steps: int = 0,
    save_steps: int | None = None,
    report_to: str | Sequence[str] = "none",
    progress: Callable[[int, int], None] | None = None,
) -> Trained:
    """Fine-tune the trainable parameters of `model` on the learned tokens of `rows`, by `transformers.Trainer`.

    Give `epochs` (passes over the rows, each of ceil(rows / batch_size) steps; a fraction is rounded up to a
    whole step) or `steps`. Loss is the mean cross-entropy of a batch's learned tokens; rows without any are
    left out. Optimiser: AdamW in float32 whatever the weights' precision, gradients clipped to norm 1.
    `progress` is called with (step, steps in all).

    Batches are drawn at random, never by length: batches of look-alike rows made the filter's review forget at random
    (bias set: AUC 0.50 instead of 0.86). Padding is saved within a batch: where it pays, its rows go through the model
    in parts of like length, and the step is that of the whole batch but for rounding.

    Every `save_steps` steps a checkpoint replaces the one before it in `folder`; one that is found there is
    resumed, and the result is that of a run that was never interrupted. The caller sees to it that `folder`
    belongs to this very fine-tune. Same seed, same result; the caller's random state is left alone. Several processes
    (see `ranks`) share the rows of each batch: batches, and the result but for rounding, are those of one.

    `report_to` names where each step's loss and learning rate are logged, as in transformers (`training/reports.py`).
    What TensorBoard reads lies in `logs` beside `folder`, unless TENSORBOARD_LOGGING_DIR names another place.
    Raises DataError when no row has anything to learn.
    """
    rows = [r for r in rows if any(r.learned[1:])]
    if not rows:
        raise DataError("no row with a completion to learn")
    if schedule == "constant" and warmup_steps:
        schedule = "constant_with_warmup"  # transformers' "constant" would ignore the warm-up
    price, room = price_of_a_pass(model), memory.learning_room(model)

    def collate(batch: Sequence[Encoded]) -> dict[str, Any]:
        mine, counts = _own_rows(batch)
        shared = shared_prefix(mine)
        again = price + shared if shared * (len(mine) - 1) > price else 0  # each part reads it once
        pieces = memory.cut(parts_of_like_length(mine, price + again), room)
        parts = [collate_right(part, pad_id) for part in pieces]
        learned = [int(part["learned"][:, 1:].sum()) for part in parts]
        # The engine takes the mean over processes of what each of them makes of its rows.
        weight = counts * ranks.size() / sum(sum(r.learned[1:]) for r in batch)
        return {"parts": [part | {"share": n * weight} for part, n in zip(parts, learned, strict=True)]}

    return train(
        model, rows, loss=completion_loss, collate=collate, learning_rate=learning_rate, batch_size=batch_size,
        epochs=epochs, steps=steps, seed=seed, folder=folder, schedule=schedule, warmup_steps=warmup_steps,
        save_steps=save_steps, report_to=report_to, progress=progress, room=room,
    )  # fmt: skip


def train(
    model: Any,
    rows: Sequence[Any],
    *,
    loss: Callable[[Any, dict[str, torch.Tensor]], torch.Tensor],
    collate: Callable[[Sequence[Any]], dict[str, Any]],
    learning_rate: float,
    batch_size: int,
    epochs: float | None = None,
    steps: int | None = None,
    seed: int,
    folder: Path,
    schedule: str,
    schedule_settings: Mapping[str, Any] | None = None,
    warmup_steps: int = 0,
    save_steps: int | None = None,
    report_to: str | Sequence[str] = "none",
    progress: Callable[[int, int], None] | None = None,
    room: memory.Room | None = None,
) -> Trained:
    """The engine of `finetune` for rows of any kind: `collate` makes a batch of them, `loss` judges the model on it.

    A batch holds an `attention_mask`, by which tokens are counted; or it holds `parts`, such batches, that are gone
    through one after the other within one step, each with the `share` that its loss has in the step's. With `room`, a
    step that is out of memory is taken in smaller parts, and so are later ones.
    """
    from transformers import TrainingArguments

    from forgetfilter.training import reports

    if (epochs is None) == (steps is None):
        raise ValueError("give either epochs or steps")
    course = _Course(model, [p for p in model.parameters() if p.requires_grad])
    folder.mkdir(parents=True, exist_ok=True)
    place = course.trainable[0].device.type
    arguments: dict[str, Any] = {
        **_arguments(folder, place, save_steps),
        **reports.arguments(report_to, folder),
        "per_device_train_batch_size": batch_size,
        "learning_rate": learning_rate,
        "lr_scheduler_type": schedule,
        "lr_scheduler_kwargs": dict(schedule_settings or {}),
        "warmup_steps": warmup_steps,
        "seed": seed,
        **({"max_steps": steps} if steps is not None else {"num_train_epochs": epochs}),
    }
    order = _order()(len(rows), batch_size, seed)
    with quiet(), _own_randomness(), attention_by_length(model) as attend:
        trainer = _trainer(course, loss, order, attend, room)(
            model=model,
            args=TrainingArguments(**arguments),
            train_dataset=rows,
            data_collator=collate,
            optimizers=(master_adamw()(course.trainable, lr=learning_rate, weight_decay=0.0), None),
            callbacks=[_steps(course, order, folder, progress)],
        )
        trainer.args._n_gpu = 1  # several GPUs are used by several processes, never by DataParallel
        for callback in [
            c for c in trainer.callback_handler.callbacks if type(c).__name__ == "PrinterCallback"
        ]:
            trainer.remove_callback(callback)
        reports.keep_beside(trainer, folder)
        last = _last_checkpoint(folder) if save_steps else None
        if last:
            course.resume(last)
        model.train()
        try:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        finally:
            reports.end(trainer)
            model.eval()
            model.zero_grad(set_to_none=True)
    tail = [float(x) for x in course.losses[-max(1, len(course.losses) // 10) :]]
    return Trained(trainer.state.global_step, int(course.tokens), sum(tail) / len(tail))


@dataclass(slots=True)
class _Course:
    """What a fine-tune has come to, step by step; goes into its checkpoints, and is taken out of them."""

    model: Any
    trainable: list[Any]
    tokens: Any = 0  # a number, or a tensor that may still be computed
    losses: list[torch.Tensor] = field(default_factory=list)  # one a step

    def save(self, folder: Path) -> None:
        """Exactly what is trained."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file(trainable_state(self.model), folder / _WEIGHTS)

    def tally(self, folder: Path) -> None:
        """Written last, in one go: a checkpoint without it was cut off while being written."""
        with atomic(folder / _TALLY) as path:
            path.write_text(
                json.dumps({"tokens": int(self.tokens), "losses": [float(x) for x in self.losses]})
            )

    def resume(self, folder: Path) -> None:
        """All but the weights, which the trainer loads."""
        import torch

        found = json.loads((folder / _TALLY).read_text())
        self.tokens, self.losses = found["tokens"], [torch.tensor(x) for x in found["losses"]]


def _trainer(
    course: _Course,
    loss: Callable[[Any, dict[str, torch.Tensor]], torch.Tensor],
    order: Any,
    attend: Callable[[int], None],
    room: memory.Room | None,
) -> Any:
    import torch
    from safetensors.torch import load_file
    from transformers import Trainer

    class WithOwnLoss(Trainer):
        """The Trainer with our loss, and checkpoints of exactly what is trained."""

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return loss(model, inputs) * inputs.get("share", 1.0)

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            parts, done = inputs.get("parts", [inputs]), None
            while done is None:
                try:
                    done = self._through(model, parts, *args, **kwargs)
                except RuntimeError as error:
                    if not memory.is_out_of_memory(error):
                        raise
                    left = memory.room_to_halve(parts, room, error)
                if done is None:  # outside of `except`: the error holds what the step had computed
                    parts = memory.smaller_parts(parts, left)
                    for p in course.trainable:
                        p.grad = None
                    memory.release()
            total, read = done
            if ranks.size() > 1:
                summed_loss, read = ranks.summed([float(total), float(read)])
                total = total.new_tensor(summed_loss / ranks.size())
            course.tokens = course.tokens + (int(read) if ranks.size() > 1 else read)
            course.losses.append(total)
            return total

        def _through(self, model: Any, parts: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            """Loss and tokens of all parts; neither is waited for, as a GPU computes behind."""
            total, read = torch.zeros(()), 0
            for part in parts:
                read = read + (part["attention_mask"].sum() if part.get("share", 1.0) else 0)
                attend(part["input_ids"].shape[1])
                # Several processes agree on their gradients once a step, with the last part.
                last = part is parts[-1]
                with nullcontext() if last else self.accelerator.no_sync(model):
                    part_loss = super().training_step(model, part, *args, **kwargs)
                total = total.to(part_loss) + part_loss
            return total, read

        def get_train_dataloader(self) -> Any:
            if ranks.size() == 1:
                return super().get_train_dataloader()
            # Every process is given every batch whole and takes its own rows of it.
            rows: Any = self.train_dataset
            size = self.args.per_device_train_batch_size
            return torch.utils.data.DataLoader(rows, size, sampler=order, collate_fn=self.data_collator)

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return order

        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            if self.args.should_save and output_dir is not None:
                course.save(Path(output_dir))

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            restore(self.model, load_file(Path(resume_from_checkpoint) / _WEIGHTS))

    return WithOwnLoss


def _steps(course: _Course, order: Any, folder: Path, progress: Callable[[int, int], None] | None) -> Any:
    from transformers import TrainerCallback

    class Steps(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            order.set_epoch(int(state.epoch + 1e-6))  # a plain loader would not be told

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step >= state.max_steps:
                control.should_save = False  # done: the caller keeps the model itself
            if progress:
                progress(state.global_step, state.max_steps)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if not ranks.rank():
                course.tally(folder / f"checkpoint-{state.global_step}")

    return Steps()


def _arguments(folder: Path, place: str, save_steps: int | None) -> dict[str, Any]:
    """What every fine-tune tells the Trainer."""
    return {
        "output_dir": str(folder),
        "max_grad_norm": 1.0,
        "use_cpu": place == "cpu",
        "bf16": False,  # the weights' own precision is the one that was asked for
        "save_strategy": "steps" if save_steps else "no",
        "save_steps": save_steps or 500,
        "save_total_limit": 1,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        # All that is learned gets its gradient in each step, though not through what the model returns (see head.py).
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": place == "cuda",
    }


def _order() -> type:
    import torch

    class Order(torch.utils.data.Sampler):
        """Row numbers in an order that depends on seed and epoch alone."""

        def __init__(self, rows: int, batch_size: int, seed: int) -> None:
            self.rows, self.batch_size, self.seed, self.epoch = rows, batch_size, seed, 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __len__(self) -> int:
            return self.rows

        def __iter__(self) -> Iterator[int]:
            rng = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
            order = torch.randperm(self.rows, generator=rng).tolist()
            full = self.rows // self.batch_size
            # Whole batches change places once more; it is no fairer, and a change would move every result.
            for i in torch.randperm(full, generator=rng).tolist():
                yield from order[i * self.batch_size : (i + 1) * self.batch_size]
            yield from order[full * self.batch_size :]

    return Order


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    whole = [tally.parent for tally in folder.glob(f"checkpoint-*/{_TALLY}")]
    return max(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


@contextmanager
def _own_randomness() -> Generator[None]:
    """The Trainer seeds Python, NumPy and torch; outside, they go on as if it had not."""
    import random

    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def collate_right(batch: Sequence[Encoded], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad on the right. input_ids, attention_mask, learned: each (batch, time)."""
    import torch

    time = max(len(r.ids) for r in batch)
    ids = torch.full((len(batch), time), pad_id)
    attention = torch.zeros((len(batch), time), dtype=torch.long)
    learned = torch.zeros((len(batch), time), dtype=torch.bool)
    for i, r in enumerate(batch):
        n = len(r.ids)
        ids[i, :n] = torch.tensor(r.ids)
        attention[i, :n] = 1
        learned[i, :n] = torch.tensor(r.learned)
    return {"input_ids": ids, "attention_mask": attention, "learned": learned}


def _own_rows(batch: Sequence[Encoded]) -> tuple[Sequence[Encoded], bool]:
    """This process's rows of a batch, like in length to those of the others, and whether they count.

    Where there are more processes than rows, one that has none goes through another's for nothing: all have to move
    in step.
    """
    mine = sorted(batch, key=lambda r: len(r.ids))[ranks.rank() :: ranks.size()]
    return (mine, True) if mine else (batch[:1], False)


def shared_prefix(batch: Sequence[Encoded]) -> int:
    """How many leading tokens all rows share before the first one that any of them learns."""
    before = min(list(r.learned).index(True) for r in batch) - 1  # a token is predicted one position earlier
    return max(0, min(before, common_to_all([r.ids for r in batch])))


def parts_of_like_length(batch: Sequence[Encoded], price: float) -> list[list[Encoded]]:
    """The rows, shortest first, cut where that costs least: padded tokens, and `price` of them for each part."""
    rows = sorted(batch, key=lambda r: len(r.ids))
    cheapest: list[tuple[float, int]] = [
        (0.0, 0)
    ]  # for the first n rows: the cost, and where the last part begins
    for end in range(1, len(rows) + 1):
        longest = len(rows[end - 1].ids)
        cheapest.append(min((cheapest[i][0] + (end - i) * longest + price, i) for i in range(end)))
    parts, end = [], len(rows)
    while end:
        first = cheapest[end][1]
        parts.append(rows[first:end])
        end = first
    return parts[::-1]


def completion_loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy, in nats, of the learned tokens of a batch; logits only of these."""
    wanted = inputs["learned"].clone()
    wanted[:, 0] = False  # nothing stands before the first token to predict it from
    return summed_cross_entropy(model, inputs, wanted) / wanted.sum()
