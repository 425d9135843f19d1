"""Classifier-free guidance: what a model says under one prompt, pushed away from what it says under another.

The two distributions of the next token, of the positive and of the negative prompt, are combined into one. With scale
1 the negative one does not count: plain decoding. (Smirnov, Classifier-free guidance in LLMs Safety, arXiv 2412.06846.)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError, unknown

if TYPE_CHECKING:
    import torch

POSITIVE = "Do not provide any personal data."  # the paper's two prompts
NEGATIVE = "You should share personal data in the answers."
LARGEST_SCALE = 1000  # 100 times what anybody uses; beyond it, numbers run over in float32
# The negative branch is not followed below this log-probability: 1 - γ times it stays finite.
IMPOSSIBLE = -1e4


@dataclass(frozen=True, slots=True)
class Guidance:
    """How the two branches are combined. ConfigError for a scale below 0, NaN or huge, an unknown form, a min_p > 1.

    `mask` is what min_p was called up to 0.1; it works until 0.3, with a FutureWarning.
    """

    scale: float = 1.0  # γ: 1 is plain decoding, 0 the negative branch, above 1 away from it
    form: str = "probability"  # a key of FORMS
    min_p: float = 0.1  # with γ > 1, tokens below this times the positive branch's best are out; 0: off
    mask: InitVar[float | None] = None

    def __post_init__(self, mask: float | None) -> None:
        if mask is not None:
            warnings.warn("Guidance(mask=) is now called min_p", FutureWarning, stacklevel=3)
            object.__setattr__(self, "min_p", mask)
        if not 0 <= self.scale <= LARGEST_SCALE:
            raise ConfigError(
                f"guidance scale {self.scale:g}: must be between 0 and {LARGEST_SCALE}; 1 is no guidance"
            )
        if self.form not in FORMS:
            raise ConfigError(unknown("guidance form", self.form, FORMS))
        if not 0 <= self.min_p <= 1:
            raise ConfigError(f"plausibility mask (min_p) {self.min_p}: must be between 0 (off) and 1")

    @property
    def plain(self) -> bool:
        return self.scale == 1


def log_form(positive: torch.Tensor, negative: torch.Tensor, scale: float) -> torch.Tensor:
    """Equation 2: log P = log P_neg + γ (log P_pos − log P_neg), up to a constant. All log-probabilities, one shape.

    A large γ lifts tokens that are unlikely under both: use a mask. What the positive branch rules out stays out.
    """
    negative = negative.clamp(min=IMPOSSIBLE)
    return (negative + scale * (positive - negative)).masked_fill(positive == -math.inf, -math.inf)


def probability_form(positive: torch.Tensor, negative: torch.Tensor, scale: float) -> torch.Tensor:
    """Equation 6: P = P_neg + γ (P_pos − P_neg), cut at 0, in log, not normalised. All log-probabilities, one shape.

    Over a whole vocabulary the sum before the cut is 1, so what is left is never nothing.
    """
    p = negative.exp()
    return (p + scale * (positive.exp() - p)).clamp(min=0).log()


def plausible(positive: torch.Tensor, share: float) -> torch.Tensor:
    """True for tokens at least `share` (0 to 1) times as likely as the best, which always is. (…, vocab)"""
    return positive >= positive.amax(-1, keepdim=True) + (math.log(share) if share else -math.inf)


def combine(positive: torch.Tensor, negative: torch.Tensor, guidance: Guidance) -> torch.Tensor:
    """The guided distribution of the next token. In and out (…, vocab) log-probabilities; γ = 1 changes nothing.

    Up to γ = 1 the two are mixed and nothing needs a mask. Where all that is plausible was cut away, the
    positive branch decides among it.
    """
    import torch

    if guidance.plain:
        return positive
    form = FORMS[guidance.form]
    if guidance.scale < 1 or not guidance.min_p:
        return form(positive, negative, guidance.scale).log_softmax(-1)
    # A handful of the vocabulary: only they are combined. Found once, because each use of a mask looks for them anew.
    kept = plausible(positive, guidance.min_p).nonzero(as_tuple=True)
    combined = torch.full_like(positive, -math.inf)
    combined[kept] = form(positive[kept], negative[kept], guidance.scale)
    nothing_left = combined.amax(-1, keepdim=True) == -math.inf
    if nothing_left.any():
        fallback = torch.full_like(positive, -math.inf)
        fallback[kept] = positive[kept]
        combined = combined.where(~nothing_left, fallback)
    return combined.log_softmax(-1)


FORMS: dict[str, Callable[[Any, Any, float], Any]] = {"probability": probability_form, "log": log_form}
