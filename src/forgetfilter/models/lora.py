"""LoRA layers that cost little beside the layer they adapt: the same adapter, names and files as PEFT's.

PEFT computes W x and (alpha / r) B A x apart and lets autograd keep and revisit every stage between them: on a CPU
the thin products and the additions around them take as long as the whole model does. Here one function does a
layer's forward and one its backward, and adds the thin products into the wide ones in place. The weight W itself
gets no gradient at all, which is the dearest product of a full step. Where nothing is learned, W + (alpha / r) B A
may be built once and kept until A, B or W change.
"""

from __future__ import annotations

from functools import cache
from typing import Any

KEEP_BELOW = 2 << 30  # bytes of adapted weights that may be held a second time


def quicken(model: Any) -> Any:
    """Let the LoRA layers of a PEFT model, in place, compute in one step what PEFT computes in many.

    Only the class of a layer changes: its tensors, their names, merging, saving and loading remain PEFT's. Layers of
    another kind (quantised, DoRA, embeddings, convolutions) are left alone.
    """
    import torch
    from peft.tuners.lora import Linear

    layers = [layer for layer in model.modules() if type(layer) is Linear]
    weights: list[Any] = [layer.base_layer.weight for layer in layers]
    # A second copy of the weights saves the thin products of scoring. With billions of weights, and on a GPU, memory
    # is dearer than that. And bfloat16 would round most of a young adapter away in the sum: after four steps on 28
    # rows SmolLM2-135M's mean log-probability of a row was off by 0.11, and by 0.02 with the products apart.
    exact = all(w.device.type == "cpu" and w.dtype.itemsize >= 4 for w in weights)
    keep = exact and sum(w.nbytes for w in weights) < KEEP_BELOW
    for layer in layers:
        layer.__class__ = _quick_linear()
        layer.keep_whole = keep and isinstance(layer.base_layer, torch.nn.Linear)
    return model


@cache
def _quick_linear() -> type:
    import torch
    from peft.tuners.lora import Linear
    from transformers.pytorch_utils import Conv1D

    class QuickLinear(Linear):
        """PEFT's layer; its forward is one step where one plain adapter is active, else PEFT's own."""

        keep_whole = False
        _whole: tuple[Any, torch.Tensor] | None = None  # what it was built of, and W + k B A (out, in)

        def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            name = None if args or kwargs else self._plain_adapter(x)
            if name is None:
                self._whole = None
                return super().forward(x, *args, **kwargs)
            base: Any = self.base_layer
            a: Any = self.lora_A[name].weight
            b: Any = self.lora_B[name].weight
            if torch.is_grad_enabled() or not self.keep_whole:
                self._whole = None
                return _low_rank().apply(x, base, a, b, self.scaling[name])
            whole = self._built(base.weight, a, b, self.scaling[name])
            return torch.nn.functional.linear(x, whole, base.bias)

        def _plain_adapter(self, x: torch.Tensor) -> str | None:
            """The one adapter that W x + k B A x describes in full, or None."""
            if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
                return None
            (name,) = self.active_adapters
            if name not in self.lora_A or name in self.lora_variant or self.lora_bias[name]:
                return None
            if self.training and not isinstance(self.lora_dropout[name], torch.nn.Identity):
                return None  # what is dropped of x differs between W and A
            base: Any = self.base_layer
            if type(base) not in (torch.nn.Linear, Conv1D) or base.weight.requires_grad:
                return None
            if base.bias is not None and base.bias.requires_grad:
                return None
            one_format = x.dtype == base.weight.dtype == self.lora_A[name].weight.dtype
            return name if one_format and not torch.is_autocast_enabled(x.device.type) else None

        def _built(self, weight: Any, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
            # A tensor counts what is written into it; what takes its place lies elsewhere.
            now = scale, *((t.data_ptr(), t._version) for t in (weight, a, b))
            if self._whole is None or self._whole[0] != now:
                whole = torch.addmm(weight.float(), b.float(), a.float(), alpha=scale)
                self._whole = now, whole.to(weight.dtype)
            return self._whole[1]

    return QuickLinear


@cache
def _low_rank() -> Any:
    import torch
    from transformers.pytorch_utils import Conv1D

    class LowRank(torch.autograd.Function):
        """y = base(x) + k (x Aᵀ) Bᵀ, with gradients for x, A and B alone."""

        @staticmethod
        def forward(
            ctx: Any,
            x: torch.Tensor,  # (..., in)
            base: Any,  # Linear or Conv1D, frozen
            a: torch.Tensor,  # (rank, in)
            b: torch.Tensor,  # (out, rank)
            scale: float,
        ) -> torch.Tensor:
            y = base(x)  # (..., out)
            inner = x.reshape(-1, x.shape[-1]) @ a.T  # (tokens, rank)
            y.view(-1, y.shape[-1]).addmm_(inner, b.T, alpha=scale)
            ctx.save_for_backward(x, base.weight, a, b, inner)
            ctx.scale, ctx.turned = scale, isinstance(base, Conv1D)
            return y

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            x, weight, a, b, inner = ctx.saved_tensors
            flat, dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
            d_inner = (dy @ b).mul_(ctx.scale)  # (tokens, rank)
            da = d_inner.T @ flat  # (rank, in)
            # The narrow factor first: transposed afterwards it costs half of dyᵀ times the narrow one.
            db = (inner.T @ dy).mul_(ctx.scale).T.contiguous()  # (out, rank)
            dx = None
            if ctx.needs_input_grad[0]:
                # GPT-2 keeps its weights as (in, out).
                dx = (dy @ (weight.T if ctx.turned else weight)).addmm_(d_inner, a).view_as(x)
            return dx, None, da, db, None

    return LowRank
