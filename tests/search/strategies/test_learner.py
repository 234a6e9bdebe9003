"""The second-order term against exact small cases, and how training computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from search.strategies.modes import STRATEGIES
from search.strategies.second_order import gradient_behind_step
from search.training.checkpoint import Checkpoint
from search.training.settings import Training
from search.training.train import Compute, learn
from tests.search.strategies.helpers import DATA, ignore, make_learner, small_model


def test_the_second_order_term_of_two_parabolas() -> None:
    """Training: (theta - alpha)^2 / 2; validation: theta^2 / 2. One step gives theta + lr (alpha - theta) = 3.2."""
    theta, alpha = (torch.tensor(v, dtype=torch.double, requires_grad=True) for v in (3.0, 5.0))
    (gradient,) = gradient_behind_step(
        lambda: (theta - alpha).square() / 2, lambda: theta.square() / 2, [alpha], [theta], 0.1
    )
    assert gradient.item() == pytest.approx(3.2 * 0.1)
    assert theta.item() == 3.0


class Mixture(nn.Module):
    """A smooth stand-in for a mixed layer, whose finite differences are exact gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.randn(2))
        self.theta = nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.alpha.softmax(0)
        return (a * (x @ self.theta.T) + b * (x @ self.theta.tanh().T)).tanh()


def test_the_gradient_is_that_of_the_validation_loss_behind_the_step() -> None:
    torch.manual_seed(0)
    model, lr = Mixture().double(), 0.3
    train, held_out, target = (torch.randn(5, n, dtype=torch.double) for n in (3, 3, 4))

    def behind_step() -> Tensor:
        """The same by differentiating through the step, exactly."""
        loss = (model(train) - target).square().mean()
        (slope,) = torch.autograd.grad(loss, model.theta, create_graph=True)
        moved = {"theta": model.theta - lr * slope}
        return (functional_call(model, moved, (held_out,)) - target).square().mean()

    (exact,) = torch.autograd.grad(behind_step(), model.alpha)
    first_order, found = (
        gradient_behind_step(
            lambda: (model(train) - target).square().mean(),
            lambda: (model(held_out) - target).square().mean(),
            [model.alpha],
            [model.theta],
            rate,
        )[0]
        for rate in (0.0, lr)
    )
    assert torch.allclose(found, exact, rtol=1e-3)
    assert not torch.allclose(first_order, exact, rtol=0.05)


def test_second_order_moves_alpha_and_leaves_theta_where_it_was(tmp_path: Path) -> None:
    first, second = (make_learner("bilevel", tmp_path / f"{i}.pt", lr=0.5) for i in range(2))
    train, held_out = ((split.images[:20], split.labels[:20]) for split in (DATA.train, DATA.validation))
    before = [theta.detach().clone() for theta in second.model.thetas()]
    first.update_alpha(first.loss(held_out))
    second.update_alpha_behind_step(train, held_out)
    assert all(torch.equal(a, b) for a, b in zip(before, second.model.thetas(), strict=True))
    assert all(alpha.any() and alpha.isfinite().all() for alpha in second.model.alphas())
    assert any(
        not torch.equal(a.grad, b.grad) for a, b in zip(first.model.alphas(), second.model.alphas(), strict=True)
    )


def test_second_order_without_a_step_is_first_order(tmp_path: Path) -> None:
    learner = make_learner("bilevel", tmp_path / "x.pt")
    train, held_out = ((split.images[:20], split.labels[:20]) for split in (DATA.train, DATA.validation))
    learner.model(train[0])  # the first batch sets the scales
    learner.model.eval()
    alphas, thetas = learner.model.alphas(), learner.model.thetas()
    found = gradient_behind_step(lambda: learner.loss(train), lambda: learner.loss(held_out), alphas, thetas, 0.0)
    for a, b in zip(found, torch.autograd.grad(learner.loss(held_out), alphas), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("mode", list(STRATEGIES))
def test_bfloat16_and_channels_last_learn_too(mode: str, tmp_path: Path) -> None:
    """The path that a GPU takes, as far as a CPU has it."""
    seen: list[torch.dtype] = []
    learner = make_learner(mode, tmp_path / "x.pt", compute=Compute("cpu", channels_last=True, amp=True))
    learner.model.network.norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    history = STRATEGIES[mode](learner)
    assert set(seen) == {torch.float32}  # between the layers; products alone are in bfloat16
    assert learner.model.network.conv.layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in learner.model.parameters())
    exact = STRATEGIES[mode](make_learner(mode, tmp_path / "exact.pt"))
    assert [r["loss"] for r in history] == pytest.approx([r["loss"] for r in exact], rel=0.02)
    assert history != exact


def test_a_fixed_network_learns_in_bfloat16(tmp_path: Path) -> None:
    settings = Training(epochs=8, batch_size=20, lr=0.02)
    network = small_model().discretise(dict.fromkeys(("conv", "fc"), "T8"))
    history = learn(network, DATA, settings, 0, Checkpoint(tmp_path / "x.pt"), ignore, Compute(amp=True))
    assert history[-1]["validation_accuracy"] > 0.5
