"""Uniform quantisers for weights and activations, with straight-through gradients.

Values are floating-point numbers on the grid of the hardware's words. Steps follow the tensor's root mean square, so
the quantisers have no learned parameters and cannot diverge.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from dse.core.errors import InputError
from search.layers.tracing import eager, traced

_TINY = 1e-8  # smallest step, so that a tensor of zeros quantises to zeros and not to NaN


def levels(bits: int, signed: bool) -> tuple[int, int]:
    """Lowest and highest integer of a word. Unsigned words use all 2^b codes, signed ones one code less."""
    return (-max(2 ** (bits - 1) - 1, 1), max(2 ** (bits - 1) - 1, 1)) if signed else (0, 2**bits - 1)


def clip_ratio(steps: int) -> float:
    """Where to clip a Gaussian, in standard deviations, with `steps` uniform steps on either side of zero.

    A fit (within 7 % for 1 to 255 steps) of the clipping that minimises the mean square error.
    """
    return 1.22 + 0.57 * math.log(steps)


def binarise(x: Tensor) -> Tensor:
    """+1 where `x` >= 0, else -1 (Eq. 3c); the gradient is passed unchanged."""
    return straight_through(x, torch.where(x >= 0, 1.0, -1.0).to(x.dtype))


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """Exactly `value`; its gradient is passed to `x`."""
    if traced(x):
        return value
    result: Tensor = _StraightThrough.apply(x, value)  # type: ignore[no-untyped-call]
    return result


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def to_words(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """Integer words of a uniform quantiser: x / step, rounded half to even and clipped to low..high.

    Gradients are those of LSQ (Esser et al. 2020): step * words has the derivative 1 with respect to `x` where `x`
    rounds to a word of the range, else 0; with respect to `step` it has words - x / step there, else words.

    Args:
        step: positive, broadcasts against `x`; its gradient is computed only if it requires one.
    """
    if traced(x):
        return (x / step).round().clamp(low, high)
    words: Tensor = _Words.apply(x, step, low, high)  # type: ignore[no-untyped-call]
    return words


class _Words(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x, step)
        ctx.range = low, high
        return (x / step).round_().clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        x, step = ctx.saved_tensors
        low, high = ctx.range
        relative = x / step
        rounded = relative.round()
        of_x = grads[0] * ((rounded >= low) & (rounded <= high)) / step
        of_step = -(of_x * relative).sum_to_size(step.shape) if ctx.needs_input_grad[1] else None
        return of_x, of_step, None, None


def words_of(x: Tensor, step: Tensor, bits: int, signed: bool) -> Tensor:
    """The integer words of a layer's input or of an operand, differentiable in it and in its step."""
    if bits == 1 and signed:  # +1 and -1, with the gradient of words that are clipped beyond 1.5 steps
        inside = to_words(x, step, -1, 1)
        return inside + (binarise(x) - inside).detach()
    return to_words(x, step, *levels(bits, signed))


def weight_rms(weight: Tensor) -> Tensor:
    """Root mean square of each output channel of `weight`, shape (out,); positive, without gradient."""
    return weight.detach().flatten(1).square().mean(1).sqrt().clamp_min(_TINY)


def _rms(x: Tensor) -> Tensor:
    """Root mean square of all elements, image by image, so that no squares are stored and no sum is too long."""
    norms: Tensor = torch.linalg.vector_norm(x, dim=tuple(range(1, x.dim()))) if x.dim() > 1 else x
    total: Tensor = torch.linalg.vector_norm(norms)
    return total / math.sqrt(max(1, x.numel()))


_NOTHING, _ZEROS, _EVALUATED, _TRAINED = range(4)
"""What a layer's statistics come from; only batches in training mode decide for good."""

_EVERY = 64  # calls on a GPU between two looks at what only the device knows; each look waits for the device
_CLIPPED = "its words have no sign, as training had no negative value: they are clipped to 0"
_CALLS = 256  # of which a checkpointed layer may compute the output again


@dataclass(frozen=True)
class _Call:
    """A call in training mode: the batch's root mean square, the running one behind it, whether words were signed.

    On a CPU both are plain numbers. Hundreds of small tensors that outlive their step would lie between the large ones
    that a step frees, and the C library's allocator does not use such memory again: a process grew by 30 MB a step.
    """

    batch: Tensor | float
    rms: Tensor | float
    signed: bool


class ActivationScale(nn.Module):
    """The state that quantisers of a layer's input share: its running root mean square and whether it is signed.

    Inputs after a ReLU are never negative, so all 2^b codes are used for positive values. The first batch in training
    mode decides whether the input is signed. If a later one has a negative value, words are signed from then on, and a
    warning says so. Batches in training mode update the root mean square, as in batch normalisation.

    In evaluation mode nothing changes: negative values are clipped to 0 where training had none, and a warning says so.
    Before any training, the first batch is used, until training begins. Batches of zeros alone decide nothing.

    What is learnt are buffers, so distributed training keeps that of the first process, as of batch normalisation. A
    layer that is computed again for its gradient (`torch.utils.checkpoint`) uses what it used the first time.

    Attributes:
        rms: the running root mean square, a scalar.
        seen: where the statistics come from (0 nothing, 1 zeros, 2 batches of evaluation, 3 training), and 1 if there
            was a negative value: shape (2,), integers.
        signed: whether words were signed in the last call; None before the first.
    """

    rms: Tensor
    seen: Tensor

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.signed: bool | None = None
        self.register_buffer("rms", torch.ones(()))
        self.register_buffer("seen", torch.zeros(2, dtype=torch.int64))
        self._begun = _NOTHING
        self._calls = 0
        self._said: set[str] = set()
        self._recent: deque[_Call] = deque(maxlen=_CALLS)

    @eager
    def forward(self, x: Tensor) -> Tensor:
        """Observes a batch; returns the root mean square for its quantisation, without gradient."""
        if traced(x):
            if self._begun == _NOTHING:
                raise InputError("network", "has not seen an input yet, which decides its quantisers",
                                 hint="train it first")  # fmt: skip
            return self.rms.clone()
        x = x.detach()
        if self.training and torch._C._current_graph_task_id() != -1 and self._recent:
            return self._again(x)
        self._calls += 1
        if self._readable():
            self._look()
        if x.numel() > 0:
            if self.training:
                return self._observe(x)
            elif self._begun < _EVALUATED:
                self._begin(x, _rms(x).clamp_min(_TINY))
            elif not (self.signed or _CLIPPED in self._said) and self._readable() and x.amin() < 0:
                self._say(x, _CLIPPED)
        return self.rms.clone()  # a copy, because the next batch changes the buffer in place

    def _observe(self, x: Tensor) -> Tensor:
        batch = _rms(x).clamp_min(_TINY)
        if self._begun < _TRAINED and not captured(x):
            self._begin(x, batch)
        else:
            self.rms.lerp_(batch.to(self.rms.dtype), self.momentum)
            if not self.signed:
                self._watch(x)
        rms = self.rms.clone()
        self._recent.append(_Call(_kept(batch), _kept(rms), bool(self.signed)))
        return rms

    def _begin(self, x: Tensor, batch: Tensor) -> None:
        """Statistics of one batch; whatever came before is forgotten."""
        source = _TRAINED if self.training else _EVALUATED
        self._begun = source if bool(x.any()) else _ZEROS
        self.signed = bool((x < 0).any())
        self.rms.copy_(batch)
        self.seen.copy_(torch.tensor([self._begun, int(self.signed)]))
        self._start(x)

    def _watch(self, x: Tensor) -> None:
        """Notes on the device whether a batch has negative values, and widens the words if it is known at once."""
        negative = x.amin() < 0
        if x.device.type != "cpu":
            self.seen[1].bitwise_or_(negative)
        elif negative:
            self.seen[1] = 1
            if not several_processes():
                self._look(x)
            else:  # all processes must agree: the next call does what the first process has broadcast
                self._say(x, "its words have no sign until the first process has seen a negative value")

    def _look(self, x: Tensor | None = None) -> None:
        """Follows the buffer, which a broadcast, a state dict or the device may have changed."""
        self._begun, negative = self.seen.tolist()
        before, self.signed = self.signed, None if self._begun == _NOTHING else bool(negative)
        if before is False and self.signed and self._begun == _TRAINED:
            self._widen()
            self._say(x, "words have a sign from now on: earlier batches of training had no negative value")

    def _say(self, x: Tensor | None, what: str) -> None:
        """Warns of each thing once a layer."""
        if what not in self._said:
            of = "" if x is None else f" of shape {tuple(x.shape)}"
            warnings.warn(f"a layer's input{of} has negative values; {what}", stacklevel=2)
        self._said.add(what)

    def _readable(self) -> bool:
        """Whether values may be read now: always on a CPU, else in the first calls and at intervals."""
        if self.seen.device.type == "cpu":
            return True
        if self.seen.is_meta or captured(self.seen):
            return False
        return self._calls < 5 or self._calls % _EVERY == 0

    def _again(self, x: Tensor) -> Tensor:
        """What the call with the same batch returned: a checkpointed layer computes its output a second time."""
        batch = _rms(x).clamp_min(_TINY)
        known = _stacked([call.batch for call in self._recent], batch)
        order = torch.arange(len(known), device=known.device)
        last = (order + len(known) * (known == batch)).argmax()  # of equal ones the latest
        signs = {call.signed for call in self._recent}
        self.signed = signs.pop() if len(signs) == 1 else self._recent[int(last)].signed
        return _stacked([call.rms for call in self._recent], self.rms)[last]

    def train(self, mode: bool = True) -> Self:
        """Also reads what only a GPU knows, at the beginning and the end of an epoch."""
        super().train(mode)
        if self.seen.device.type == "cuda" and self._begun != _NOTHING and not self.signed:
            self._look()
        return self

    def _start(self, x: Tensor) -> None:
        """Called with the first batch, when its sign and root mean square are known."""

    def _widen(self) -> None:
        """Called when words become signed that were not."""

    def step(self, rms: Tensor, bits: int) -> Tensor:
        """The value of one unit of a word of `bits` bits, a scalar; `rms` is the result of `forward`."""
        signed = bool(self.signed)
        high = levels(bits, signed)[1]
        # Values after a ReLU are one half of a Gaussian whose standard deviation is sqrt(2) times their rms.
        ratio = (clip_ratio(high) if bits > 1 else 1.0) * (1.0 if signed else math.sqrt(2))
        return rms * (ratio / high)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        old = state_dict.pop(f"{prefix}_extra_state", None)  # of earlier versions, which kept the sign alone
        if old is not None and f"{prefix}seen" not in state_dict:
            signed = old["signed"]
            state_dict[f"{prefix}seen"] = torch.tensor([_NOTHING if signed is None else _TRAINED, int(bool(signed))])
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.signed, self._said = None, set()
        self._recent.clear()
        if not self.seen.is_meta:
            self._look()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recent": deque(maxlen=_CALLS)}  # a copy has no call to repeat


def _kept(value: Tensor) -> Tensor | float:
    """A scalar that is kept for later steps: a number where reading it does not wait for a device."""
    return value.item() if value.device.type == "cpu" else value


def _stacked(values: Sequence[Tensor | float], like: Tensor) -> Tensor:
    """What `_kept` returned, as a vector of the type and device of `like`."""
    if not any(isinstance(value, Tensor) for value in values):
        return torch.tensor(values, dtype=like.dtype, device=like.device)
    return torch.stack([torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in values])


def captured(x: Tensor) -> bool:
    """Whether a CUDA graph is being made, in which no value can be read."""
    return x.device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def several_processes() -> bool:
    """Whether this is one of several processes that train together."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
