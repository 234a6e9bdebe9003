"""The second-order term against exact small cases, and how training computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from search.checkpoint import Checkpoint
from search.config import Training
from search.strategies import STRATEGIES
from search.strategies.learner import unrolled
from search.train import Compute, learn
from tests.search.strategies.helpers import DATA, ignore, make_learner, small_model


def test_the_second_order_term_of_two_parabolas() -> None:
    """Training: (theta - alpha)^2 / 2; validation: theta^2 / 2. One step gives theta + lr (alpha - theta)."""
    theta, alpha = (nn.Parameter(torch.tensor(v, dtype=torch.double)) for v in (3.0, 5.0))
    moved = unrolled((theta - alpha).square() / 2, {"theta": theta}, 0.1)["theta"]
    (gradient,) = torch.autograd.grad(moved.square() / 2, alpha)
    assert moved.item() == pytest.approx(3.2)
    assert gradient.item() == pytest.approx(3.2 * 0.1)


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
        moved = unrolled((model(train) - target).square().mean(), {"theta": model.theta}, lr)
        return (functional_call(model, moved, (held_out,)) - target).square().mean()

    (found,) = torch.autograd.grad(behind_step(), model.alpha)
    start, h = model.alpha.detach().clone(), 1e-6
    for i in range(2):
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                model.alpha.copy_(start)
                model.alpha[i] += sign * h
            sides.append(behind_step().item())
        assert found[i].item() == pytest.approx((sides[0] - sides[1]) / (2 * h), rel=1e-6)


def test_second_order_reaches_alpha_through_all_candidates(tmp_path: Path) -> None:
    learner = make_learner("bilevel", tmp_path / "x.pt", second_order=True)
    train, held_out = ((split.images[:20], split.labels[:20]) for split in (DATA.train, DATA.validation))

    def gradients(lr: float) -> Tensor:
        learner.of_theta.param_groups[0]["lr"] = lr
        loss = learner.loss_after_step(train, held_out)
        return torch.cat(torch.autograd.grad(loss, learner.model.alphas()))

    learner.model(train[0])  # the first batch sets the scales
    learner.model.eval()
    first = torch.cat(torch.autograd.grad(learner.loss(held_out), learner.model.alphas()))
    assert torch.allclose(gradients(0.0), first, atol=1e-6)
    assert gradients(0.1).isfinite().all() and (gradients(0.1) - first).abs().max() > 1e-4


def test_second_order_leaves_theta_where_it_was(tmp_path: Path) -> None:
    learner = make_learner("bilevel", tmp_path / "x.pt", second_order=True)
    before = [theta.detach().clone() for theta in learner.model.thetas()]
    batch = DATA.train.images[:20], DATA.train.labels[:20]
    learner.update_alpha(learner.loss_after_step(batch, batch))
    assert all(torch.equal(a, b) for a, b in zip(before, learner.model.thetas(), strict=True))
    assert all(alpha.any() for alpha in learner.model.alphas())


@pytest.mark.parametrize("mode", list(STRATEGIES))
def test_bfloat16_and_channels_last_learn_too(mode: str, tmp_path: Path) -> None:
    """The path that a GPU takes, as far as a CPU has it."""
    seen: list[torch.dtype] = []
    learner = make_learner(mode, tmp_path / "x.pt", compute=Compute("cpu", channels_last=True, amp=True))
    learner.model.network.norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    history = STRATEGIES[mode](learner)
    assert set(seen) == {torch.bfloat16, torch.float32}  # training, validation
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
