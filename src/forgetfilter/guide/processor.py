"""Guidance inside transformers' own `generate`, and whatever else takes a logits processor of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ConfigError
from forgetfilter.guide.branches import Branches
from forgetfilter.guide.guidance import Guidance, combine

if TYPE_CHECKING:
    import torch


class GuidanceProcessor:
    """A LogitsProcessor that guides `generate` away from what the model says under `negatives`.

        ids = tokenizer(prompt, return_tensors="pt")
        guide = GuidanceProcessor(model, [negative_ids], Guidance(3, "log"))
        model.generate(**ids, logits_processor=[guide], do_sample=False)

    `negatives` are the token ids of the negative prompts, one for each prompt of the batch, of any lengths and
    without padding. It keeps the negative branch's cache between steps, with positions that padding does not shift,
    and follows num_return_sequences and beams. One processor serves one `generate` after another. Scores come out as
    log-probabilities; temperature and top-p of `generate` act on them.

    Each step costs a second pass of `model`, where our own `decoding.generate` reads both branches in one. `adapter`
    names the adapter of the negative branch (branches.BASE: none); without it the model is as it is. Not for assisted
    decoding, which asks for several tokens at once: ConfigError.
    """

    def __init__(
        self,
        model: Any,
        negatives: Sequence[Sequence[int]],
        guidance: Guidance,
        *,
        adapter: str | None = None,
    ) -> None:
        if not negatives or not all(negatives):
            raise ConfigError("negatives: one prompt of at least one token for each row of the batch")
        self.guidance = guidance
        self._model, self._negatives = model, [list(map(int, ids)) for ids in negatives]
        self._adapters = None if adapter is None else (adapter, adapter)
        self._branches: Branches | None = None
        self._read: torch.Tensor  # (rows, time), what the last call was given

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Guided log-probabilities of the next token, (rows, vocab), from `scores` of the positive branch."""
        import torch

        if self.guidance.plain:
            return scores
        with torch.inference_mode():
            branches = self._follow(input_ids)
            negative = branches.scores()[:, : scores.shape[-1]].to(scores.device).log_softmax(-1)
            guided = combine(scores.float().log_softmax(-1), negative, self.guidance)
        return guided.clone()  # a tensor that may be changed outside of inference mode

    def _follow(self, input_ids: torch.Tensor) -> Branches:
        """The negative branch of each row, having read what the row has written."""
        origins = None if self._branches is None else self._origins(input_ids)
        if self._branches is None or origins is None:
            self._branches = self._begin(len(input_ids))
        else:
            if origins != list(range(len(self._branches))):
                self._branches.select(origins)
            self._branches.advance(input_ids[:, -1].tolist())
        self._read = input_ids.clone()
        return self._branches

    def _begin(self, rows: int) -> Branches:
        copies, rest = divmod(rows, len(self._negatives))
        if rest:
            raise ConfigError(
                f"{len(self._negatives)} negative prompts for a batch of {rows}: give one for each prompt"
            )
        plain = [Guidance()] * len(self._negatives)
        branches = Branches(self._model, adapters=self._adapters)
        branches.join(self._negatives, [None] * len(self._negatives), plain)
        if copies > 1:  # answers or beams of one prompt stand side by side
            branches.select([i for i in range(len(self._negatives)) for _ in range(copies)])
        return branches

    def _origins(self, input_ids: torch.Tensor) -> list[int] | None:
        """Which row of the last call each row goes on from, for beams change places; None: another text begins.

        Rows with the same text under the same negative prompt are the same to the negative branch.
        """
        rows, time = self._read.shape
        if len(input_ids) != rows or input_ids.shape[1] <= time:
            return None
        before, own = self._read.tolist(), input_ids[:, :time].tolist()
        copies = rows // len(self._negatives)
        origins = []
        for row, text in enumerate(own):
            first = row - row % copies
            found = [row, *range(first, first + copies)]
            origin = next((r for r in found if before[r] == text), None)
            if origin is None:
                return None
            origins.append(origin)
        if input_ids.shape[1] > time + 1:
            raise ConfigError("guidance reads one token a step: it does not go with assisted decoding")
        return origins
