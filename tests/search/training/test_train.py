from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dse.core.errors import InputError
from search.data.datasets import digits
from search.networks.squeezenet import squeezenet_cifar
from search.training.checkpoint import Checkpoint
from search.training.epochs import batches, set_lr
from search.training.settings import Distillation, Training
from search.training.train import Compute, distilled, learn, renew_statistics
from tests.search.tiny import tiny


def test_a_plain_network_learns_the_digits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = tiny().module
    records = learn(
        network, digits(), Training(epochs=5, lr=0.03), 0, Checkpoint(tmp_path / "x.pt"), lambda record: None
    )
    assert [r["epoch"] for r in records] == [1, 2, 3, 4, 5]
    assert records[-1]["loss"] < records[0]["loss"] and records[-1]["validation_accuracy"] > 0.8


def test_every_image_is_seen_once_an_epoch_in_an_order_of_its_own() -> None:
    split = digits(subset=200).train
    first, again, second = (torch.cat([y for _, y in batches(split, 10, 0, e)]) for e in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert torch.equal(first.sort().values, split.labels.sort().values)


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    optimiser = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    rates = []
    for progress in (0, 0.05, 0.5, 1):
        set_lr(optimiser, 2.0, progress)
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates[0] < rates[1] and rates[1] == pytest.approx(2, rel=0.01)
    assert rates[2] == pytest.approx(1) and rates[3] == pytest.approx(0)


def test_a_constant_learning_rate_stays_behind_its_rise() -> None:
    optimiser = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    rates = []
    for progress in (0, 0.02, 0.05, 0.5, 1):
        set_lr(optimiser, 2.0, progress, "constant")
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(0.2) and rates[0] < rates[1] < 2 and rates[2:] == [2, 2, 2]


def test_distillation_is_the_weighted_divergence_from_the_teacher() -> None:
    torch.manual_seed(0)
    scores, taught = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3)
    distil = Distillation(weight=0.3, temperature=2.0)
    p, q = (taught / 2).softmax(1), (scores / 2).softmax(1)
    expected = 0.7 * 1.5 + 0.3 * 4 * (p * (p / q).log()).sum(1).mean()
    assert distilled(torch.tensor(1.5), scores, taught, distil).item() == pytest.approx(expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(distilled(torch.tensor(1.5), scores, scores.detach(), distil), scores)
    assert gradient.abs().max() < 1e-6  # nothing to learn from a teacher that says the same


def test_the_divergence_is_a_mean_over_pixels_as_the_loss_is() -> None:
    torch.manual_seed(0)
    scores, taught = torch.randn(4, 3), torch.randn(4, 3)
    distil = Distillation(weight=0.3, temperature=2.0)
    of_images = distilled(torch.tensor(1.5), scores, taught, distil).item()

    def agrees(form: Callable[[Tensor], Tensor], dim: int = 1) -> bool:
        found = distilled(torch.tensor(1.5), form(scores), form(taught), distil, dim).item()
        return found == pytest.approx(of_images, rel=1e-5)

    assert agrees(lambda x: x[:, :, None, None].expand(4, 3, 5, 6))  # each pixel as its image
    assert agrees(lambda x: x.T.reshape(1, 3, 2, 2))  # four pixels of one image
    assert agrees(lambda x: x.reshape(2, 2, 3), dim=-1)  # two texts of two tokens, classes last


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 1, 4, 4)])
def test_outputs_that_are_no_scores_of_classes_are_not_distilled(shape: tuple[int, ...]) -> None:
    outputs = torch.zeros(shape)
    with pytest.raises(InputError, match=r"distill: the network gives \(5.*\), no scores of two or more classes"):
        distilled(torch.tensor(1.5), outputs, outputs, Distillation())


def test_a_network_learns_from_a_teacher_alone(tmp_path: Path) -> None:
    data = digits(subset=400)
    torch.manual_seed(0)
    teacher, network = tiny().module, tiny().module
    learn(teacher, data, Training(epochs=8, batch_size=20, lr=0.03), 0, Checkpoint(tmp_path / "t.pt"), lambda r: None)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    wrong = replace(data, train=replace(data.train, labels=torch.zeros_like(data.train.labels)))  # labels say nothing
    how = Compute(distil=Distillation(weight=1.0, temperature=2.0))
    training = Training(epochs=8, batch_size=20, lr=0.03)
    records = learn(network, wrong, training, 0, Checkpoint(tmp_path / "n.pt"), lambda r: None, how, teacher)
    assert records[-1]["validation_accuracy"] > 0.7
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_statistics_are_those_of_the_first_batches() -> None:
    torch.manual_seed(0)
    network, split = tiny().module, digits(subset=200).train
    norm = network.get_submodule("norm")
    assert isinstance(norm, torch.nn.BatchNorm2d)
    norm.running_mean.fill_(7.0)  # type: ignore[union-attr]
    some = list(batches(split, 20, 0, 0))
    renew_statistics(network, some, steps=3)
    with torch.no_grad():
        means = [network.get_submodule("conv")(images).mean((0, 2, 3)) for images, _ in some[:3]]
    assert norm.running_mean is not None and torch.allclose(norm.running_mean, torch.stack(means).mean(0), atol=1e-6)
    assert norm.momentum == 0.1


def test_a_width_that_rounds_to_nothing_keeps_one_channel() -> None:
    assert squeezenet_cifar(width=0.001).module.conv1.out_channels == 1
