"""The gradient of alpha behind a step of theta, by a finite difference (DARTS: Liu et al. 2018, Eq. 6 to 8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

RELATIVE_STEP = 0.01
"""How far theta is moved for the difference, as a share of its own norm. Words of the quantisers have to change, so a
step cannot be as small as for smooth functions."""


def gradient_behind_step(
    train_loss: Callable[[], Tensor],
    validation_loss: Callable[[], Tensor],
    alphas: Sequence[Tensor],
    thetas: Sequence[Tensor],
    lr: float,
    relative_step: float = RELATIVE_STEP,
) -> list[Tensor]:
    """Gradient in alpha of the validation loss at theta' = theta - lr * d(training loss)/d(theta), as theta' moves.

    It is d(validation loss)/d(alpha) at theta' minus lr * d2(training loss)/d(alpha)d(theta) * v, where v is
    d(validation loss)/d(theta) at theta'; the product is the difference of d(training loss)/d(alpha) at theta + e * v
    and theta - e * v over 2 * e. Theta is moved meanwhile and put back. No second derivative is asked of any layer.

    Args:
        train_loss, validation_loss: compute the loss with the present alpha and theta.
        relative_step: norm of e * v over that of theta.
    """
    start = [theta.detach().clone() for theta in thetas]
    try:
        _move(thetas, start, _gradients(train_loss(), thetas), -lr)
        both = _gradients(validation_loss(), [*alphas, *thetas])
        found, v = both[: len(alphas)], both[len(alphas) :]
        e = relative_step * float(_norm(start) / _norm(v).clamp_min(torch.finfo(torch.float32).tiny))
        _move(thetas, start, v, e)
        ahead = _gradients(train_loss(), alphas)
        _move(thetas, start, v, -e)
        behind = _gradients(train_loss(), alphas)
    finally:
        _move(thetas, start, start, 0.0)
    return [g - lr * (a - b) / (2 * e) for g, a, b in zip(found, ahead, behind, strict=True)]


def _gradients(loss: Tensor, of: Sequence[Tensor]) -> list[Tensor]:
    """Gradients, zero for what `loss` does not depend on."""
    found = torch.autograd.grad(loss, list(of), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(of, found, strict=True)]


@torch.no_grad()
def _move(thetas: Sequence[Tensor], start: Sequence[Tensor], direction: Sequence[Tensor], by: float) -> None:
    """Sets theta to start + by * direction; to `start`, bit by bit, for 0."""
    for theta, origin, way in zip(thetas, start, direction, strict=True):
        theta.copy_(origin.add(way, alpha=by) if by else origin)


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([t.square().sum() for t in tensors]).sum().sqrt()
