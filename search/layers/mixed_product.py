"""The mixed product of two activations: the sum over precisions of products of quantised operands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn

from dse.core.errors import InputError
from dse.hardware.candidate import Candidate
from search.layers.accumulators import wrapped
from search.layers.choice import Choice
from search.layers.fused import reduced_type
from search.layers.mixed_layer import LayerOptions
from search.layers.quantisers import input_quantiser
from search.layers.quantize import words_of
from search.layers.tracing import traced

Bilinear = Callable[[Tensor, Tensor], Tensor]
"""A product of two tensors that is linear in each of them, such as `torch.matmul`."""

_GAUSSIAN = 105**0.125
"""Eighth root of the mean eighth power of a Gaussian, in units of its root mean square."""


class Operand(nn.Module):
    """The quantiser of one operand: that of a layer's input, with a wider range for what is not Gaussian.

    The steps of the quantiser ``rms`` suit a Gaussian. The probabilities of an attention are not Gaussian: in a row
    that attends to one position, one of them is 1 and all others are 0, and a range of a few root mean squares would
    cut it off. So the range is wider by the eighth root of the mean eighth power, in units of a Gaussian's, where this
    is above 1. In training it is that of the batch; its running mean is used in evaluation, as in batch normalisation.
    """

    tail: Tensor

    def __init__(self, options: LayerOptions, widths: Collection[int]) -> None:
        super().__init__()
        self.scale = input_quantiser(options.quantiser, set(widths))
        self.heavy = options.quantiser == "rms"
        if self.heavy:
            self.register_buffer("tail", torch.ones(()))

    def forward(self, x: Tensor, widths: Collection[int]) -> dict[int, tuple[Tensor, Tensor]]:
        """Width -> the integer words of `x`, differentiable, and the value of one unit, a scalar."""
        begun = self.scale.signed is not None
        rms = self.scale(x)
        if self.heavy:
            rms = rms * self._tail(x, begun)
        signed = bool(self.scale.signed)
        steps = {bits: self.scale.step(rms, bits) for bits in widths}
        return {bits: (words_of(x, step, bits, signed), step) for bits, step in steps.items()}

    @torch.no_grad()
    def _tail(self, x: Tensor, begun: bool) -> Tensor:
        if begun and not self.training:
            return self.tail.clone()
        tail = tail_of(x).to(self.tail.dtype)
        if not begun:
            self.tail.copy_(tail)
        elif torch._C._current_graph_task_id() == -1:  # not where a checkpoint computes a batch for the second time
            self.tail.lerp_(tail, self.scale.momentum)
        return tail


def tail_of(x: Tensor) -> Tensor:
    """How much farther `x` reaches than a Gaussian of its root mean square: 1 or more, a scalar.

    Example:
        >>> peaked = torch.zeros(64, 64).fill_diagonal_(1)
        >>> round(float(tail_of(peaked)), 2), float(tail_of(torch.tensor([1.0, -1.0])))
        (2.66, 1.0)
    """
    squares = x.detach().to(torch.promote_types(x.dtype, torch.float32)).square()
    mean = squares.mean().clamp_min(torch.finfo(torch.float32).tiny)
    eighth = (squares / mean).square().square().mean() ** 0.125
    return (eighth / _GAUSSIAN).clamp_min(1)


class MixedProduct(Choice):
    """A product of two activations whose output is the softmax-weighted sum of its candidates' products (Eq. 1).

    A candidate is the product of both operands in words of its width, times the steps of both: the second operand is in
    the place of the weights. All candidates are of the typical operator. The operands have no weights of their own, so
    there is nothing else to choose but their precision.

    Args:
        candidates: the choices, in the order of `alpha`.
        options: quantiser and learned scales; the other options are for weights.
        like: a tensor of the type and device of the operator weights.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> typical = [c for c in load_candidates() if c.operator == "typical"]
        >>> product = MixedProduct(typical)
        >>> q, k = torch.randn(2, 4, 8, 16), torch.randn(2, 4, 8, 16)
        >>> product(lambda q, k: q @ k.mT, q, k).shape
        torch.Size([2, 4, 8, 8])
    """

    log_scale: nn.Parameter | None
    _like: Tensor

    def __init__(
        self, candidates: Sequence[Candidate], options: LayerOptions | None = None, like: Tensor | None = None
    ) -> None:
        like = torch.zeros(()) if like is None else like
        super().__init__(candidates, like)
        for c in candidates:
            if c.macro is not None:
                problem = f"{c.name} is computed in memory, where one operand would have to stay in the cells"
                raise InputError("product of two activations", problem, "candidates without a macro")
            if c.overflow == "saturate":
                problem = f"{c.name} saturates, which depends on the order of a product's additions"
                raise InputError("product of two activations", problem, "candidates that wrap")
        self.options = options = options or LayerOptions()
        zeros = torch.zeros(len(self.candidates), dtype=like.dtype, device=like.device)
        self.log_scale = nn.Parameter(zeros) if options.learned_scales else None
        self.register_buffer("_like", zeros[:0], persistent=False)
        self.first = Operand(options, {c.act_bits for c in candidates}).to(like.device)
        self.second = Operand(options, {c.weight_bits for c in candidates}).to(like.device)

    def like(self) -> Tensor:
        return self._like

    def forward(self, product: Bilinear, first: Tensor, second: Tensor) -> Tensor:
        """The mixed product.

        Args:
            product: of two tensors like `first` and `second`, linear in each.
            first: the operand in the place of a layer's input.
            second: the operand in the place of its weights.
        """
        chosen = [self.candidates[i] for i in self.computed()]
        left = self.first(first, dict.fromkeys(c.act_bits for c in chosen))
        right = self.second(second, dict.fromkeys(c.weight_bits for c in chosen))
        shares = self.shares() if len(chosen) > 1 else None
        scales = None if self.log_scale is None else self.log_scale.exp()
        total: Tensor | None = None
        dtype = first.dtype
        for i, candidate in zip(self.computed(), chosen, strict=True):
            (words, step), (other_words, other_step) = left[candidate.act_bits], right[candidate.weight_bits]
            unit = step * other_step
            half = torch.float16 in (first.dtype, reduced_type(first)) and not self._overflows(candidate, first)
            if half:  # its range is too small for sums of words
                words, other_words, unit = words * step, other_words * other_step, torch.ones_like(unit)
            unit = unit if shares is None else unit * shares[i]
            unit = unit if scales is None else unit * scales[i]
            if self._overflows(candidate, first):
                dtype = reduced_type(first) or first.dtype
                with torch.autocast(first.device.type, enabled=False):
                    part = self._wrapped(candidate, product, words.double(), other_words.double())
            else:
                part = product(words, other_words)
                dtype = part.dtype
            part = part.to(torch.promote_types(dtype, torch.float32)) * unit
            total = part if total is None else total + part
        assert total is not None
        return total.to(dtype)

    @staticmethod
    def _wrapped(candidate: Candidate, product: Bilinear, words: Tensor, other_words: Tensor) -> Tensor:
        """The product's sums in the candidate's accumulator; products of ones have as many terms."""
        bits = candidate.psum_bits
        if isinstance(bits, str):
            ones = product(torch.ones_like(words), torch.ones_like(other_words))
            bits = candidate.accumulator_bits(round(float(ones.max())))
        return wrapped(product(words, other_words), bits)

    def _overflows(self, candidate: Candidate, first: Tensor) -> bool:
        """Whether the candidate's overflow is simulated: where it alone is evaluated."""
        return candidate.overflow is not None and len(self.computed()) == 1 and not self.training and not traced(first)

    def single(self, candidate: Candidate) -> MixedProduct:
        """A new product with one of the candidates, and the state that this one has learned for it."""
        index = self.candidates.index(candidate)
        result = MixedProduct([candidate], self.options, self._like)
        state = self.state_dict()
        part = {name: state[name] for name in result.state_dict() if name in state}
        if self.log_scale is not None:
            part["log_scale"] = state["log_scale"][index : index + 1]
        part["_extra_state"] = result.get_extra_state()  # not what is fixed here
        result.load_state_dict(part, strict=True)
        return result.train(self.training)
