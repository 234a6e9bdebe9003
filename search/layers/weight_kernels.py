"""The summed weights of a mixed layer in one pass over its latent weights, for tensors on a CPU.

It covers the operators of Eq. 3 with quantisers that learn nothing (`rms`), where the candidates share their latent
weights. `MixedLayer` composes everything else of torch's operations; for nine candidates these are some hundred small
ones a layer, which take longer than the convolution of a small layer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dse.hardware.candidate import Candidate
from search.layers.operators import Inputs, Surrogates, View, operator
from search.layers.operators.binary_connect import BinaryConnect
from search.layers.operators.multiplication_free import MultiplicationFree
from search.layers.operators.surrogates import sign_slope
from search.layers.operators.typical import Typical
from search.layers.quantisers import mean_magnitude
from search.layers.quantize import clip_ratio, levels, weight_rms

F = TypeVar("F", bound=Callable[..., Any])

UNIFORM, BINARY, MULTIPLICATION_FREE = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Sum:
    """What is added to which view: views as (word width of the inputs, kind), and an entry for each candidate.

    Arrays: kind of its weights, highest word, number of the width of its inputs, steps of its weights as a share of
    their root mean square, and its views; the second one is -1 if it has one.
    """

    names: tuple[tuple[int, View], ...]
    widths: tuple[int, ...]
    kinds: Any
    highs: Any
    width_of: Any
    ratios: Any
    first: Any
    second: Any

    @property
    def arrays(self) -> Any:
        return self.kinds, self.highs, self.width_of, self.ratios, self.first, self.second


def covers(candidates: Sequence[Candidate]) -> bool:
    """Whether the operators of all these candidates are computed here."""
    return all(operator(c.operator) in (Typical, BinaryConnect, MultiplicationFree) for c in candidates)


@functools.cache
def sum_of(candidates: tuple[Candidate, ...], signed: bool) -> Sum:
    """How the weights of `candidates` are added; views of one word width are adjacent.

    Args:
        signed: whether the layer's inputs are. Of inputs without sign, the magnitude is the value.
    """
    views: list[list[tuple[int, View]]] = []
    for c in candidates:
        seen = operator(c.operator).views
        views.append([(c.act_bits, "value" if kind == "magnitude" and not signed else kind) for kind in seen])
    widths = tuple(dict.fromkeys(c.act_bits for c in candidates))
    every = dict.fromkeys(name for of_candidate in views for name in of_candidate)
    names = tuple(name for bits in widths for name in every if name[0] == bits)
    kinds, highs = list[int](), [levels(c.weight_bits, signed=True)[1] for c in candidates]
    for c in candidates:
        binary = c.weight_bits == 1 and operator(c.operator).uniform
        kinds.append(BINARY if binary else UNIFORM if operator(c.operator).uniform else MULTIPLICATION_FREE)
    return Sum(
        names,
        widths,
        np.array(kinds),
        np.array(highs, dtype=np.float64),
        np.array([widths.index(c.act_bits) for c in candidates]),
        np.array([clip_ratio(high) / high for high in highs]),
        np.array([names.index(of[0]) for of in views]),
        np.array([names.index(of[1]) if len(of) > 1 else -1 for of in views]),
    )


def summed_weights(
    latent: Tensor,
    shares: Tensor,
    rms: Tensor,
    inputs: Mapping[int, Inputs],
    of: Sum,
    surrogates: Surrogates,
    gains: Tensor | None = None,
    *,
    by: type[torch.autograd.Function] | None = None,
) -> Tensor:
    """The sum over candidates of share * unit * words, for each view; shape (out, views * in, ...), differentiable.

    Equal to the sum of the operators' own words and scales up to the rounding of floating-point numbers.

    Args:
        latent: shape (out, in, ...), float32 or float64, on a CPU.
        shares: shape (candidates,).
        rms: the root mean square of the inputs, a scalar.
        inputs: word width -> inputs, whose steps are not learned.
        gains: factors of the units, shape (candidates, out), without gradient; None for 1.
        by: what adds, on other devices; None for this module's loops.
    """
    gains = latent.new_empty((0, 0)) if gains is None else gains.detach().to(latent.dtype)
    steps = torch.stack([inputs[bits].step.detach() for bits in of.widths]).to(latent.dtype)
    adds: Any = by or _Summed
    result: Tensor = adds.apply(latent, shares, rms.to(latent.dtype), steps, of, surrogates, gains)
    return result


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latent: Tensor, shares: Tensor, rms: Tensor, steps: Tensor, of: Sum,
                surrogates: Surrogates, gains: Tensor) -> Tensor:  # fmt: skip
        rows = latent.flatten(1).contiguous()
        of_weights, binary = weight_rms(latent), mean_magnitude(latent)
        units = rows.new_empty((len(of.kinds), len(rows)))
        out = rows.new_zeros((len(rows), len(of.names), rows.shape[1]))
        arguments: Any = (
            rows.numpy(), of_weights.numpy(), binary.numpy(), shares.numpy(), steps.numpy(), rms.item(), *of.arrays,
            gains.contiguous().numpy(), units.numpy(), out.numpy(),
        )  # fmt: skip
        _add(*arguments)
        ctx.save_for_backward(latent, shares, steps, of_weights, units)
        ctx.of, ctx.surrogates = of, surrogates
        return out.view(len(rows), len(of.names) * latent.shape[1], *latent.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        latent, shares, steps, of_weights, units = ctx.saved_tensors
        of, rows = ctx.of, latent.flatten(1).contiguous()
        slopes = _slopes(rows, of_weights[:, None], steps, of, ctx.surrogates)
        of_latent, of_shares = torch.zeros_like(rows), np.zeros(len(of.kinds))
        grad = grad.contiguous().view(len(rows), len(of.names), rows.shape[1])
        arguments: Any = (
            rows.numpy(), of_weights.numpy(), shares.numpy(), steps.numpy(), *of.arrays, units.numpy(), grad.numpy(),
            slopes.numpy(), of_latent.numpy(), of_shares,
        )  # fmt: skip
        _differentiate(*arguments)
        found = torch.from_numpy(of_shares).to(shares.dtype)
        return of_latent.view(latent.shape), found, None, None, None, None, None


def _slopes(rows: Tensor, rms: Tensor, steps: Tensor, of: Sum, surrogates: Surrogates) -> Tensor:
    """Surrogate slopes of the sign of each weight, and behind it those of the magnitudes of each width's words."""
    if not (of.kinds == MULTIPLICATION_FREE).any():
        return rows.new_empty((0, *rows.shape))
    slopes = rows.new_zeros((1 + len(of.widths), *rows.shape))
    slopes[0] = sign_slope(rows, surrogates.sign_width_weight * rms)
    for kind, high, width in zip(of.kinds, of.highs, of.width_of, strict=True):
        if kind == MULTIPLICATION_FREE:
            words = (rows / steps[width]).round_().clamp_(-high, high)
            torch.tanh(words.mul_(surrogates.steepness * steps[width] / rms), out=slopes[1 + width])
    return slopes


def _jit(function: F) -> F:
    return cast(F, numba.njit(cache=True, nogil=True)(function))


@_jit
def _add(latent: Any, of_weights: Any, binary: Any, shares: Any, steps: Any, rms: Any, kinds: Any, highs: Any,
         width_of: Any, ratios: Any, first: Any, second: Any, gains: Any, units: Any, out: Any) -> None:  # fmt: skip
    """Fills the units of the candidates' sums, shape (candidates, out), and adds their weights to `out`."""
    for o in range(len(latent)):
        row, size = latent[o], latent.dtype.type(of_weights[o])
        for i in range(len(kinds)):
            of_input, high = steps[width_of[i]], latent.dtype.type(highs[i])
            target = out[o, first[i]]
            gain = gains[i, o] if gains.size else latent.dtype.type(1)
            if kinds[i] == BINARY:
                units[i, o] = binary[o] * of_input * gain
                unit = shares[i] * units[i, o]
                for k in range(row.size):
                    target[k] += unit if row[k] >= 0 else -unit
            elif kinds[i] == UNIFORM:
                step = size * latent.dtype.type(ratios[i])
                units[i, o] = step * of_input * gain
                unit = shares[i] * units[i, o]
                for k in range(row.size):
                    target[k] += unit * min(max(np.rint(row[k] / step), -high), high)
            else:
                clipped = min(size, of_input * high)
                units[i, o] = size * rms / np.sqrt(clipped * clipped + rms * rms) * of_input * gain
                unit, other = latent.dtype.type(shares[i] * units[i, o]), out[o, second[i]]
                for k in range(row.size):
                    target[k] += unit * min(abs(np.rint(row[k] / of_input)), high)
                    other[k] += unit * np.sign(row[k])


@_jit
def _differentiate(latent: Any, of_weights: Any, shares: Any, steps: Any, kinds: Any, highs: Any, width_of: Any,
                   ratios: Any, first: Any, second: Any, units: Any, grad: Any, slopes: Any, of_latent: Any,
                   of_shares: Any) -> None:  # fmt: skip
    """Adds the gradients of the latent weights and of the shares to `of_latent` and `of_shares`."""
    for o in range(len(latent)):
        row, size, total = latent[o], of_weights[o], of_latent[o]
        for i in range(len(kinds)):
            of_input, high = steps[width_of[i]], latent.dtype.type(highs[i])
            unit, above, of_share = latent.dtype.type(shares[i] * units[i, o]), grad[o, first[i]], 0.0
            if kinds[i] == BINARY:
                for k in range(row.size):
                    total[k] += unit * above[k]
                    of_share += above[k] if row[k] >= 0 else -above[k]
            elif kinds[i] == UNIFORM:
                step = size * latent.dtype.type(ratios[i])
                slope = unit / step
                for k in range(row.size):
                    word = np.rint(row[k] / step)
                    total[k] += slope * above[k] if abs(word) <= high else 0 * above[k]
                    of_share += above[k] * min(max(word, -high), high)
            else:
                slope, other = unit / of_input, grad[o, second[i]]
                of_sign, of_magnitude = slopes[0, o], slopes[1 + width_of[i], o]
                for k in range(row.size):
                    word = np.rint(row[k] / of_input)
                    inside = slope * of_magnitude[k] if abs(word) <= high else 0 * of_magnitude[k]
                    total[k] += inside * above[k] + unit * of_sign[k] * other[k]
                    of_share += above[k] * min(abs(word), high) + other[k] * np.sign(row[k])
            of_shares[i] += of_share * units[i, o]
