"""The sums of `search.layers.weight_kernels` in a few dozen operations of torch, for tensors that are not on a CPU.

All candidates' words are computed together, and added to the views by one product of matrices for each output channel.
Composed of the operators' own words, the weights of nine candidates take several hundred operations a layer, most of
them on a few numbers, and on a GPU each takes as long as a larger one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd.function import once_differentiable

from search.layers.operators import Inputs, Surrogates
from search.layers.operators.surrogates import sign_slope
from search.layers.quantisers import mean_magnitude
from search.layers.quantize import weight_rms
from search.layers.weight_kernels import BINARY, MULTIPLICATION_FREE, UNIFORM, Sum, summed_weights


@dataclass(frozen=True)
class _Constants:
    """A `Sum` on a device: columns of shape (candidates, 1), masks of the kinds, and who is added to which view.

    `first` and `second` have shape (views, candidates); they are 1 for the views of a candidate's words and signs.
    """

    highs: Tensor
    ratios: Tensor
    width_of: Tensor
    binary: Tensor
    multiplication_free: Tensor
    uniform: Tensor
    first: Tensor
    second: Tensor


_KEPT: dict[tuple[Sum, torch.dtype, torch.device], _Constants] = {}
_MOST_KEPT = 256


def _constants(of: Sum, like: Tensor) -> _Constants:
    """Kept, because copies to a device wait, and cannot be in a CUDA graph; but not the stand-ins of a trace."""
    key = (of, like.dtype, like.device)
    found = _KEPT.get(key) if _is_real(like) else None
    if found is None:
        found = _new_constants(*key)
        if _is_real(like) and _is_real(found.highs):
            if len(_KEPT) >= _MOST_KEPT:
                _KEPT.clear()
            _KEPT[key] = found
    return found


def _is_real(tensor: Tensor) -> bool:
    return not isinstance(tensor, FakeTensor | FunctionalTensor)


def _new_constants(of: Sum, dtype: torch.dtype, device: torch.device) -> _Constants:
    views = np.arange(len(of.names))[:, None]
    with torch.inference_mode(False):

        def there(values: Any, kind: torch.dtype = dtype) -> Tensor:
            return torch.as_tensor(values, dtype=kind, device=device)

        return _Constants(
            there(of.highs)[:, None], there(of.ratios)[:, None], there(of.width_of, torch.int64),
            there(of.kinds == BINARY, torch.bool)[:, None], there(of.kinds == MULTIPLICATION_FREE, torch.bool)[:, None],
            there(of.kinds == UNIFORM, torch.bool)[:, None],
            there(views == of.first), there(views == of.second),
        )  # fmt: skip


def summed_by_products(
    latent: Tensor,
    shares: Tensor,
    rms: Tensor,
    inputs: Mapping[int, Inputs],
    of: Sum,
    surrogates: Surrogates,
    gains: Tensor | None = None,
) -> Tensor:
    """As `search.layers.weight_kernels.summed_weights`, on any device.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> from search.layers.weight_kernels import sum_of
        >>> latent, step = torch.tensor([[0.4, -0.4]]), torch.tensor(0.5)
        >>> inputs = {8: Inputs(torch.tensor(1.0), step, True)}
        >>> of = sum_of(tuple(c for c in load_candidates() if c.name == "BC8"), True)
        >>> summed_by_products(latent, torch.ones(1), torch.tensor(1.0), inputs, of, Surrogates()).tolist()
        [[0.20000000298023224, -0.20000000298023224]]
    """
    return summed_weights(latent, shares, rms, inputs, of, surrogates, gains, by=_Summed)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latent: Tensor, shares: Tensor, rms: Tensor, steps: Tensor, of: Sum,
                surrogates: Surrogates, gains: Tensor) -> Tensor:  # fmt: skip
        rows, c = latent.flatten(1), _constants(of, latent)
        of_weights, of_inputs = weight_rms(latent), steps[c.width_of][:, None]
        clipped = torch.minimum(of_weights, of_inputs * c.highs)
        units = torch.where(c.binary, mean_magnitude(latent), of_weights * c.ratios)
        free = of_weights * rms / (clipped.square() + rms.square()).sqrt()
        units = torch.where(c.multiplication_free, free, units) * of_inputs
        units = units * gains if gains.numel() else units
        words, _, _ = _words(rows, of_weights, of_inputs, c)
        added = _added(shares[:, None].to(units.dtype) * units, c)
        with _without_autocast(latent.device.type):
            out = added @ words
        ctx.save_for_backward(latent, shares, of_inputs, of_weights, units)
        ctx.of, ctx.surrogates = of, surrogates
        return out.reshape(len(rows), len(of.names) * latent.shape[1], *latent.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        latent, shares, of_inputs, of_weights, units = ctx.saved_tensors
        rows, c = latent.flatten(1), _constants(ctx.of, latent)
        words, rounded, divisor = _words(rows, of_weights, of_inputs, c)
        grad = grad.reshape(len(rows), len(ctx.of.names), rows.shape[1])
        with _without_autocast(latent.device.type):
            of_words = _added(shares[:, None].to(units.dtype) * units, c).mT @ grad
            of_added = grad @ words.mT
        highs = c.highs[..., None]
        steepness = (ctx.surrogates.steepness * of_inputs / of_weights)[..., None]
        slopes = (rounded.clamp(-highs, highs) * steepness).tanh_().masked_fill_(c.uniform[..., None], 1)
        slopes = slopes.div_(divisor).masked_fill_(rounded.abs_() > highs, 0).masked_fill_(c.binary[..., None], 1)
        of_sign = sign_slope(rows, ctx.surrogates.sign_width_weight * of_weights[:, None])
        of_rows = (of_words[:, :-1].transpose(0, 1) * slopes).sum(0) + of_words[:, -1] * of_sign
        of_units = (c.first * of_added[..., :-1]).sum(1) + of_added[..., -1] @ c.second
        of_shares = (of_units * units.T).sum(0).to(shares.dtype)
        return of_rows.view(latent.shape), of_shares, None, None, None, None, None


def _without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Sums of words are float32; a device without autocast needs nothing."""
    return torch.autocast(device_type, enabled=False) if torch.amp.is_autocast_available(device_type) else nullcontext()


def _words(rows: Tensor, of_weights: Tensor, of_inputs: Tensor, c: _Constants) -> tuple[Tensor, Tensor, Tensor]:
    """Words of each output channel, (out, candidates + 1, elements), the signs of the weights last.

    Also the words before they are clipped, and what the weights were divided by: (candidates, out, elements or 1).
    """
    divisor = torch.where(c.multiplication_free, of_inputs, of_weights * c.ratios)[..., None]
    rounded, highs = (rows / divisor).round_(), c.highs[..., None]
    clipped = rounded.clamp(-highs, highs)
    words = torch.where(c.multiplication_free[..., None], clipped.abs(), clipped)
    words = torch.where(c.binary[..., None], torch.where(rows >= 0, 1.0, -1.0).to(rows.dtype), words)
    return torch.cat([words, rows.sign()[None]]).transpose(0, 1), rounded, divisor


def _added(weights: Tensor, c: _Constants) -> Tensor:
    """What each view has of each candidate's words, and of the signs: shape (out, views, candidates + 1).

    Args:
        weights: share * unit, shape (candidates, out).
    """
    columns = weights.T[:, None]
    return torch.cat([c.first * columns, (c.second * columns).sum(-1, keepdim=True)], -1)
