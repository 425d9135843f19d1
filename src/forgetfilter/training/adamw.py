"""AdamW in float32, whatever the weights' own precision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any


@cache
def master_adamw() -> type:
    import torch

    class MasterAdamW(torch.optim.AdamW):
        """AdamW whose steps happen in float32 beside weights of lower precision, where an update of a
        thousandth of a weight would be rounded away."""

        def __init__(self, parameters: Sequence[torch.nn.Parameter], **kwargs: Any) -> None:
            self._weights = list(parameters)
            self._masters = [
                p if p.dtype == torch.float32 else torch.nn.Parameter(p.detach().float())
                for p in self._weights
            ]
            super().__init__(self._masters, **kwargs)

        def step(self, closure: Any = None) -> Any:
            for weight, master in zip(self._weights, self._masters, strict=True):
                if master is not weight:
                    master.grad = None if weight.grad is None else weight.grad.float()
            result = super().step(closure)
            with torch.no_grad():
                for weight, master in zip(self._weights, self._masters, strict=True):
                    if master is not weight:
                        weight.copy_(master)
            return result

        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "masters": [m.detach() for m in self._masters]}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            super().load_state_dict({k: v for k, v in state_dict.items() if k != "masters"})
            with torch.no_grad():
                for master, saved in zip(self._masters, state_dict["masters"], strict=True):
                    master.copy_(saved)

        def zero_grad(self, set_to_none: bool = True) -> None:
            for weight in self._weights:
                weight.grad = None
            super().zero_grad(set_to_none)

    return MasterAdamW
