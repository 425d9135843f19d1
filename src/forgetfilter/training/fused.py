"""On a GPU: what stands between a layer's products, in one pass over memory for each where the library takes many.

Norms, rotations and gates compute next to nothing and wait for memory. A norm as transformers writes it moves its
input eighteen times in float32 and bfloat16, PyTorch's own once in and once out; rotations and gates can be put into
one kernel each by `torch.compile`. What a model's own module gives is compared first, on random numbers: one that
computes something else keeps its own way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from typing import Any

COMPILE = False  # rotations and gates, too: not measured on a GPU yet (`benchmarks/gpu.py --compile`)


@contextmanager
def fused(model: Any) -> Generator[None]:
    """Inside, norms of a model on a GPU take one pass each, with COMPILE gates and rotations, too; afterwards all is
    as it was."""
    if next(model.parameters()).device.type != "cuda":
        yield
        return
    with replaced(model, COMPILE and compiles()):
        yield


@contextmanager
def replaced(model: Any, compiled: bool) -> Generator[None]:
    """`fused` on any device."""
    kinds: dict[type, bool] = {}  # whether modules of a class compute what they are replaced by
    changed: list[Any] = []
    rotating: dict[Any, Any] = {}
    for module in model.modules():
        made = _norm(module) or (_gated(module) if compiled else None)
        if made and "forward" not in vars(module):
            kind = type(module)
            if kind not in kinds:
                kinds[kind] = _same(module, made)
            if kinds[kind]:
                module.forward = made
                changed.append(module)
        if compiled and type(module).__name__.endswith("Attention"):
            code: Any = sys.modules[type(module).__module__]
            if code not in rotating and hasattr(code, "apply_rotary_pos_emb"):
                rotating[code] = code.apply_rotary_pos_emb
    for code, rotate in rotating.items():
        code.apply_rotary_pos_emb = _once(rotate)
    try:
        yield
    finally:
        for module in changed:
            del module.forward
        for code, rotate in rotating.items():
            code.apply_rotary_pos_emb = rotate


def _norm(module: Any) -> Callable[[Any], Any] | None:
    """The norm of a module that says it is one over the root of the mean square."""
    import torch

    if not type(module).__name__.endswith("RMSNorm") or not hasattr(module, "variance_epsilon"):
        return None
    weight, small = module.weight, module.variance_epsilon
    return lambda x: torch.nn.functional.rms_norm(x, weight.shape, weight, small)


def _gated(module: Any) -> Callable[[Any], Any] | None:
    """The feed-forward part of a layer, with a gate of SiLU."""
    if not all(hasattr(module, f"{name}_proj") for name in ("gate", "up", "down")):
        return None
    multiply = _once(_gate)
    return lambda x: module.down_proj(multiply(module.gate_proj(x), module.up_proj(x)))


def _gate(gate: Any, up: Any) -> Any:
    import torch

    return torch.nn.functional.silu(gate) * up


def _same(module: Any, made: Callable[[Any], Any]) -> bool:
    """Whether a module of the model and what would replace it give the same for a few random vectors."""
    import torch

    weight = module.weight if hasattr(module, "weight") else module.gate_proj.weight
    if weight.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return False  # quantised: left as it is
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, weight.shape[-1], generator=numbers).to(weight)
    with torch.no_grad():
        theirs, ours = type(module).forward(module, x).float(), made(x).float()
    far = 1e-5 if weight.dtype == torch.float32 else 3e-2
    return bool(torch.allclose(theirs, ours, rtol=far, atol=far * float(theirs.abs().max())))


@cache
def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function in as few kernels as can be, for tensors of any size."""
    import torch

    return torch.compile(function, dynamic=True)


@cache
def compiles() -> bool:
    """Whether `torch.compile` works here: it needs Triton and a C compiler."""
    import torch

    try:
        x = torch.ones(64, 64, device="cuda", dtype=torch.bfloat16)
        with torch.no_grad():
            _once(_gate)(x, x)
    except Exception:  # whatever it lacks, the plain way remains
        return False
    return True
