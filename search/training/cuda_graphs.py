"""The loss and its gradients as one CUDA graph: a training step of small kernels is then one launch, not thousands."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from search.layers.choice import Choice
from search.layers.quantize import ActivationScale

Batch = tuple[Tensor, ...]
EAGER_STEPS = 3
"""Steps computed as usual before a capture: they choose kernels, decide signs of inputs, and warm the allocator."""


class GraphedLoss:
    """A differentiable loss of batches whose forward and backward pass are captured once and replayed.

    All parameters that learn get their gradient in every replay, whichever is asked for; so do relaxed shares of the
    mixed layers. What decides the kernels is watched: other shapes, another layer fixed, or samples where there were
    none, begin again with steps as usual. A network that cannot be captured (it reads a value back to the host, say)
    is computed as usual, and a warning says so.

    Args:
        network: on a CUDA device, with the parameters that stay where they are in memory.
        loss: of the network, or what computes like it, and a batch; a scalar.
    """

    def __init__(self, network: nn.Module, loss: Callable[[Callable[[Tensor], Tensor], Batch], Tensor]) -> None:
        self._network, self._loss = network, loss
        self._mixed = [m for m in network.modules() if isinstance(m, Choice)]
        self._scales = [m for m in network.modules() if isinstance(m, ActivationScale)]
        self._variables = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self._key: Hashable = None
        self._steps = 0
        self._captured: _Captured | None = None
        self.refused: str | None = None
        """Why the network could not be captured, if so."""

    @property
    def captured(self) -> bool:
        """Whether the last batch was computed by a graph."""
        return self._captured is not None

    def __call__(self, batch: Batch) -> Tensor:
        """The loss of a batch, as `loss` gives it."""
        key = self._state(batch)
        if key != self._key:
            self._key, self._steps, self._captured = key, 0, None
        self._steps += 1
        if self.refused is not None or self._steps <= EAGER_STEPS:
            return self._loss(self._network, batch)
        if self._captured is None:
            try:
                self._captured = self._capture(batch)
            except RuntimeError as e:
                self.refused = str(e).splitlines()[0]
                warnings.warn(f"the network is computed without a CUDA graph: {self.refused}", stacklevel=2)
                return self._loss(self._network, batch)
        shares = self._shares()
        result: Tensor = _Replay.apply(self._captured, batch, *self._variables.values(), *shares)  # type: ignore[no-untyped-call]
        return result

    def _state(self, batch: Batch) -> Hashable:
        shapes = tuple((tuple(t.shape), t.dtype) for t in batch)
        signs = tuple(scale.signed for scale in self._scales)
        decided = tuple((m.fixed, m.relaxed is None, m.sampled) for m in self._mixed)
        return shapes, self._network.training, decided, signs

    def _shares(self) -> list[Tensor]:
        return [m.relaxed for m in self._mixed if m.relaxed is not None]

    def _capture(self, batch: Batch) -> _Captured:
        torch.cuda.synchronize()
        inputs = tuple(t.clone(memory_format=torch.preserve_format) for t in batch)
        relaxed = [m for m in self._mixed if m.relaxed is not None]
        before = [m.relaxed for m in relaxed]
        shares = [share.detach().clone().requires_grad_() for share in self._shares()]
        # In the parameters' memory, but leaves of their own: what a caller still holds of an earlier step would tie the
        # parameters themselves to that step's stream, which a capture must not wait for.
        own = {name: p.detach().requires_grad_() for name, p in self._variables.items()}
        graph = torch.cuda.CUDAGraph()
        try:
            for layer, share in zip(relaxed, shares, strict=True):
                layer.relaxed = share
            with torch.cuda.graph(graph):
                loss = self._loss(lambda images: functional_call(self._network, own, (images,)), inputs)
                found = torch.autograd.grad(loss, [*own.values(), *shares], allow_unused=True)
                variables = (*own.values(), *shares)
                gradients = [None if g is None else laid_out(g, v) for g, v in zip(found, variables, strict=True)]
        finally:
            for layer, share_before in zip(relaxed, before, strict=True):
                layer.relaxed = share_before
        return _Captured(graph, inputs, shares, loss.detach(), gradients)


def laid_out(gradient: Tensor, like: Tensor) -> Tensor:
    """A gradient with the strides of its variable, as an optimiser of one kernel needs them."""
    return gradient if gradient.stride() == like.stride() else torch.empty_like(like).copy_(gradient)


@dataclass(frozen=True)
class _Captured:
    """A graph with the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: Batch
    shares: list[Tensor]
    loss: Tensor
    gradients: Sequence[Tensor | None]

    @torch.no_grad()
    def replay(self, batch: Batch, shares: Sequence[Tensor]) -> tuple[Tensor, list[Tensor | None]]:
        """Copies of loss and gradients, which the next replay leaves as they are."""
        for into, given in zip((*self.inputs, *self.shares), (*batch, *shares), strict=True):
            into.copy_(given)
        self.graph.replay()
        there = [g for g in self.gradients if g is not None]
        copies = iter(torch._foreach_mul(there, 1.0))
        return self.loss.clone(), [None if g is None else next(copies) for g in self.gradients]


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, captured: _Captured, batch: Batch, *variables: Tensor) -> Tensor:
        count = len(captured.shares)
        loss, ctx.gradients = captured.replay(batch, variables[len(variables) - count :])
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        there = [g for g in ctx.gradients if g is not None]
        scaled = iter(torch._foreach_mul(there, grad))
        return (None, None, *(None if g is None else next(scaled) for g in ctx.gradients))
