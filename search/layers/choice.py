"""The choice among candidates that a searched part of a network makes, whatever it computes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dse.hardware.candidate import Candidate
from dse.table.cost_table import FloatArray


class Choice(nn.Module):
    """A module with several candidates and an operator weight for each; with one candidate it has none.

    Attributes:
        alpha: operator weights, shape (candidates,), or None.
        fixed: index of the candidate that is decided for good, or None.
        relaxed: weights that take the place of softmax(alpha) meanwhile, or None.
        sampled: indices of the candidates that are computed meanwhile, or None for all.
    """

    alpha: nn.Parameter | None

    def __init__(self, candidates: Sequence[Candidate], like: Tensor) -> None:
        """
        Args:
            like: a tensor with the type and the device of the operator weights.
        """
        super().__init__()
        self.candidates = tuple(candidates)
        zeros = torch.zeros(len(self.candidates), dtype=like.dtype, device=like.device)
        self.alpha = nn.Parameter(zeros) if len(self.candidates) > 1 else None
        self.fixed: int | None = None
        self.relaxed: Tensor | None = None
        self.sampled: tuple[int, ...] | None = None

    @abstractmethod
    def single(self, candidate: Candidate) -> Choice:
        """A new module with one of the candidates, and the state that this one has learned for it."""

    @abstractmethod
    def like(self) -> Tensor:
        """A tensor with the present type and device."""

    def fix(self, candidate: int) -> None:
        """Fixes the choice: from now on only this candidate is computed, and alpha has no effect."""
        self.fixed = candidate

    def probabilities(self) -> Tensor:
        """softmax(alpha), shape (candidates,); 1 for a fixed candidate and 0 for the others."""
        if self.alpha is None:
            like = self.like()
            return torch.ones(1, dtype=like.dtype, device=like.device)
        if self.fixed is not None:
            chosen = torch.zeros_like(self.alpha)
            chosen[self.fixed].fill_(1)  # an assignment would copy the number from the host
            return chosen + 0 * self.alpha  # its gradient is 0: distributed training waits for one
        return self.alpha.softmax(0)

    def computed(self) -> Sequence[int]:
        """Indices of the candidates that are computed: the fixed one, those `sampled` if it is set, or all."""
        if self.fixed is not None:
            return (self.fixed,)
        return range(len(self.candidates)) if self.sampled is None else self.sampled

    def shares(self) -> Tensor:
        """The weights of the candidates' outputs: the sample `relaxed` if it is set, else softmax(alpha).

        If only some are computed, their weights are scaled to a sum of 1, and those of the others are 0.
        """
        if self.sampled is None or self.fixed is not None or self.alpha is None:
            return self.probabilities() if self.relaxed is None else self.relaxed
        logs = self.alpha if self.relaxed is None else self.relaxed.log()
        absent = torch.ones_like(logs, dtype=torch.bool)
        absent[list(self.sampled)] = False
        return logs.masked_fill(absent, -torch.inf).softmax(0)

    def computed_shares(self) -> Tensor:
        """`shares` of the candidates that are computed, in their order."""
        shares, chosen = self.shares(), self.computed()
        if len(chosen) == len(self.candidates):
            return shares
        return torch.stack([shares[i] for i in chosen])  # a list as index would be copied to the device, and wait

    @torch.no_grad()
    def drawn(self, number: int) -> tuple[int, ...]:
        """Indices of some candidates, in their order: the largest of alpha plus Gumbel noise, or of `relaxed`."""
        if len(self.candidates) <= number:
            return tuple(range(len(self.candidates)))
        if self.relaxed is not None:
            scores = self.relaxed.cpu()
        else:
            assert self.alpha is not None
            noise = -torch.empty(len(self.candidates)).exponential_().log()  # the CPU's: as on any device
            scores = self.alpha.cpu() + noise
        return tuple(sorted(scores.topk(number).indices.tolist()))

    @torch.no_grad()
    def noticeable(self, share: float) -> tuple[int, ...]:
        """Indices of the candidates, in their order, whose weight is at least `share` of an equal one; at least two."""
        weights = (self.probabilities() if self.relaxed is None else self.relaxed).tolist()
        largest = sorted(range(len(weights)), key=lambda i: -weights[i])[:2]
        return tuple(i for i, w in enumerate(weights) if i in largest or w >= share / len(weights))

    def log_weights(self) -> FloatArray:
        """log(softmax(alpha)), shape (candidates,); -inf beside a candidate that was fixed."""
        if self.alpha is None or self.fixed is not None:
            return self.probabilities().detach().double().log().cpu().numpy()
        return self.alpha.detach().double().log_softmax(0).cpu().numpy()

    def get_extra_state(self) -> dict[str, Any]:
        return {"fixed": self.fixed}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.fixed = state["fixed"]

    def choice(self) -> Candidate:
        """The candidate with the highest operator weight; the first one if several are equal."""
        return self.candidates[int(self.probabilities().argmax())]
