"""Both branches of many answers side by side in one batch, so that a guided step costs one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ModelError
from forgetfilter.guide.guidance import Guidance, combine
from forgetfilter.models.architecture import cache_name, forward_parameters, recurrent, unwrapped

if TYPE_CHECKING:
    import torch

ADAPTER, BASE = "adapter", "__base__"  # names of peft: the one we load, and none


class Branches:
    """Rows being answered, each with one branch or two, side by side in one batch of one model.

    Holds what lives between steps: caches, padding, positions, and the logits of the next token of every branch.
    Branches are padded on the left; positions count a branch's own tokens, so neither rotary nor absolute
    positions notice the padding. `adapters` names the adapter of the positive and of the negative branches
    (BASE: none), all read in one mixed batch; without it, the model is as it is.
    """

    def __init__(self, model: Any, *, adapters: tuple[str, str] | None = None) -> None:
        self.model = model.eval()  # peft mixes only in eval mode
        self.device = next(model.parameters()).device
        self.guidance: list[Guidance] = []  # per row
        self._adapters = adapters
        self._known, self._cache_name = forward_parameters(model), cache_name(model)
        self._recurrent = recurrent(model)
        self._cache: Any = None
        self._mask: torch.Tensor  # (branches, time), 1 where a token stands
        self._logits: torch.Tensor  # (branches, vocab), float32
        self._arrange()

    def __len__(self) -> int:
        return len(self.guidance)

    def join(
        self,
        prompts: Sequence[Sequence[int]],
        negatives: Sequence[Sequence[int] | None],
        guidance: Sequence[Guidance],
    ) -> None:
        """New rows at the end; they are read now, the others stay as they are. None: the prompt itself."""
        import torch

        from forgetfilter.guide.caches import roomy

        fresh = Branches(self.model, adapters=self._adapters)
        fresh.guidance = list(guidance)
        fresh._arrange()
        branches: list[Sequence[int]] = []
        for prompt, negative, how in zip(prompts, negatives, guidance, strict=True):
            branches += [prompt] if how.plain else [prompt, prompt if negative is None else negative]
        if not all(branches):
            raise ValueError("an empty prompt gives the model nothing to go on: begin it with a start token")
        if self._recurrent and (len(branches) > 1 or len(self)):
            kind = unwrapped(self.model).config.model_type
            raise ModelError(
                f"a {kind} model keeps a recurrent state, which cannot skip a batch's padding: it answers one prompt "
                "at a time, without guidance; use a model with attention only"
            )
        width = max(map(len, branches))
        gaps = [width - len(b) for b in branches]
        # Padding is masked out: any token does.
        ids = torch.tensor([[0] * gap + list(b) for gap, b in zip(gaps, branches, strict=True)])
        mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in gaps])
        # Without a sliding window, rows can be padded and joined; a recurrent state is the model's own affair.
        fresh._cache = None if self._recurrent else roomy()
        fresh._mask = mask.to(self.device)
        fresh._read(ids.to(self.device), (fresh._mask.cumsum(-1) - 1).clamp(min=0))
        self._take_in(fresh)

    def scores(self) -> torch.Tensor:
        """What comes next, (rows, vocab): the guided log-probabilities; of an unguided row its plain logits."""
        if not self._groups:
            return self._logits
        logp = self._logits.log_softmax(-1)
        if len(self._groups) == 1 and len(logp) == 2 * len(self):  # all alike: nothing to sort out
            return combine(logp[::2], logp[1::2], self.guidance[0])
        scores = self._logits[self._positive]
        for guidance, (rows, positive, negative) in self._groups.items():
            scores[rows] = combine(logp[positive], logp[negative], guidance)
        return scores

    def advance(self, tokens: Sequence[int]) -> None:
        """Every branch of row i reads tokens[i]."""
        import torch

        ids = torch.tensor(tokens, device=self.device)[self._row_of]  # (branches,)
        positions = self._mask.sum(-1, keepdim=True)  # (branches, 1)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(ids), 1)], dim=1)
        self._read(ids[:, None], positions)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be named more than once. Both branches and caches follow."""
        import torch

        first = self._positive.tolist()
        branches = [b for r in rows for b in range(first[r], first[r] + 2 - self.guidance[r].plain)]
        self.guidance = [self.guidance[r] for r in rows]
        self._arrange()
        if not rows:
            self._cache = None
            return
        if self._recurrent:  # the one row there is; a copy of it would need a copy of its state
            if len(rows) > 1:
                raise ModelError("a model with a recurrent state writes one answer at a time")
            return
        chosen = torch.tensor(branches, device=self.device)
        self._logits, self._mask = self._logits[chosen], self._mask[chosen]
        self._cache.batch_select_indices(chosen)
        spare = self._mask.shape[1] - int(self._mask.sum(-1).max())  # columns that only the others needed
        if spare:
            self._mask = self._mask[:, spare:]
            for layer in self._cache.layers:
                layer.drop_first(spare)

    def _read(self, ids: torch.Tensor, positions: torch.Tensor) -> None:
        import torch

        more: dict[str, Any] = {"position_ids": positions} if "position_ids" in self._known else {}
        if "logits_to_keep" in self._known:
            more["logits_to_keep"] = 1
        if self._adapters:
            more["adapter_names"] = [self._adapters[negative] for negative in self._is_negative]
        more[self._cache_name] = self._cache
        if not self._recurrent:  # a row alone has no padding, and its state no place for a mask
            more["attention_mask"] = self._mask
        with torch.inference_mode():
            output = self.model(input_ids=ids, use_cache=True, **more)
        kept = getattr(output, self._cache_name, None)
        if kept is None:
            raise ModelError(
                f"a {self.model.config.model_type} model keeps nothing of what it read, so it cannot write in a batch"
            )
        self._cache, self._logits = kept, output.logits[:, -1].float()

    def _take_in(self, fresh: Branches) -> None:
        import torch
        from torch.nn.functional import pad

        if not self.guidance:
            self._cache, self._mask, self._logits = fresh._cache, fresh._mask, fresh._logits
        else:
            width = max(self._mask.shape[1], fresh._mask.shape[1])
            both = [pad(each._mask, (width - each._mask.shape[1], 0)) for each in (self, fresh)]
            for mine, new in zip(self._cache.layers, fresh._cache.layers, strict=True):
                mine.join(new)
            self._mask, self._logits = torch.cat(both), torch.cat([self._logits, fresh._logits])
        self.guidance += fresh.guidance
        self._arrange()

    def _arrange(self) -> None:
        """Where each row's branches stand: positive, then negative, row by row."""
        import torch

        positive: list[int] = []
        row_of: list[int] = []
        groups: dict[Guidance, list[int]] = {}
        for row, how in enumerate(self.guidance):
            positive.append(len(row_of))
            row_of += [row] if how.plain else [row, row]
            if not how.plain:
                groups.setdefault(how, []).append(row)
        self._is_negative = [b > 0 and row == row_of[b - 1] for b, row in enumerate(row_of)]
        self._positive = torch.tensor(positive, dtype=torch.long, device=self.device)
        self._row_of = torch.tensor(row_of, dtype=torch.long, device=self.device)
        self._groups = {
            how: (rows, self._positive[rows], self._positive[rows] + 1) for how, rows in groups.items()
        }


def load_adapter(model: Any, folder: Path) -> Any:
    """The model with the low-rank adapter of `folder`, named ADAPTER; ModelError where it is not of this base."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    from forgetfilter.models.library import first_line, quiet

    weights = folder / "adapter_model.safetensors"
    for path in (folder / "adapter_config.json", weights):
        if not path.is_file():
            raise ModelError(f"adapter {folder}: no {path.name} there; name the folder that peft saved")
    other_base = f"adapter {folder}: not an adapter of this base model"
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            adapted = PeftModel.from_pretrained(
                model, str(folder), adapter_name=ADAPTER, autocast_adapter_dtype=False
            )
        with safe_open(weights, framework="pt") as file:
            saved = set(file.keys())
    except Exception as error:
        raise ModelError(f"{other_base}: {first_line(error)}") from error
    if odd := saved ^ set(get_peft_model_state_dict(adapted, adapter_name=ADAPTER)):
        raise ModelError(
            f"{other_base}: {len(odd)} of its weights have no place or are missing, {min(odd)} first"
        )
    return adapted
