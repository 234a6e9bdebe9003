"""Losses and metrics by name, against plain computations; and what does not fit its targets."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.core.errors import InputError
from search.data.sets import Dataset, Split
from search.training.functions import own_function
from search.training.measures import LOSSES, METRICS
from search.training.metrics import check_targets, criterion_of, metric_of
from search.training.train import PLAIN, Compute, accuracy

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def whole(most: int, *shape: int) -> Tensor:
    return torch.randint(0, most, shape, generator=GENERATOR)


class Fixed(nn.Module):
    """Gives its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def value(name: str, outputs: Tensor, targets: Tensor, loss: str = "cross_entropy", batch: int = 7) -> float:
    return metric_of(name, loss).of(Fixed(), Split(outputs, targets), batch)


def test_the_defaults_are_cross_entropy_and_accuracy() -> None:
    scores, labels = random(50, 4), whole(4, 50)
    assert PLAIN.loss(Fixed(), (scores, labels)).equal(functional.cross_entropy(scores, labels))
    split = Split(scores, labels)
    assert PLAIN.measured(Fixed(), split, "test") == {"test_accuracy": accuracy(Fixed(), split)}
    assert Compute(metric=metric_of("mse")).measured(Fixed(), Split(scores, scores), "test") == {"test_metric": 0.0}


@pytest.mark.parametrize("loss", list(LOSSES))
def test_losses_are_what_their_names_say(loss: str) -> None:
    outputs, labels = random(6, 5, 3), whole(3, 6, 5)
    expected = {
        "cross_entropy": functional.cross_entropy(outputs.movedim(2, 1), labels),
        "next_token": functional.cross_entropy(outputs.reshape(30, 3), labels.reshape(30)),
        "mse": ((outputs - 0.5) ** 2).mean(),
        "l1": (outputs - 0.5).abs().mean(),
        "bce": -((0.5 * outputs.sigmoid().log()) + 0.5 * (1 - outputs.sigmoid()).log()).mean(),
    }[loss]
    targets = labels if LOSSES[loss] == "labels" else torch.full_like(outputs, 0.5)
    found = criterion_of(loss)(outputs.movedim(2, 1) if loss == "cross_entropy" else outputs, targets)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_accuracy_is_counted_per_pixel_and_ignores_what_has_no_label() -> None:
    outputs, labels = random(20, 4, 3, 3), whole(4, 20, 3, 3)
    labels[:, 0] = -100
    right = (outputs.argmax(1) == labels)[:, 1:]
    assert value("accuracy", outputs, labels) == pytest.approx(float(right.float().mean()))
    answers = (whole(2, 20, 3)).float()
    assert value("accuracy", random(20, 3).sign() * 0 + answers - 0.5, answers, "bce") == 1.0
    tokens = whole(6, 20, 5)
    assert value("accuracy", functional.one_hot(tokens, 6).float(), tokens, "next_token") == 1.0


def test_mean_iou_is_the_mean_of_overlap_over_union() -> None:
    outputs, labels = random(20, 5, 4, 4), whole(3, 20, 4, 4)
    labels[0] = -100
    found, counted = outputs.argmax(1), labels != -100
    ratios = []
    for c in range(5):
        ours, theirs = (found == c) & counted, labels == c
        if bool((ours | theirs).any()):
            ratios.append(float((ours & theirs).sum() / (ours | theirs).sum()))
    assert value("mean_iou", outputs, labels) == pytest.approx(sum(ratios) / len(ratios))
    perfect = functional.one_hot(whole(3, 4, 2, 2), 9).movedim(-1, 1).float()
    assert value("mean_iou", perfect, perfect.argmax(1)) == 1.0  # classes that do not occur are not counted


def test_errors_are_means_over_all_numbers_whatever_the_batches() -> None:
    outputs, targets = random(20, 3), random(20, 3)
    assert value("mse", outputs, targets, "mse") == pytest.approx(float((outputs - targets).square().mean()))
    assert value("mae", outputs, targets, "mse") == pytest.approx(float((outputs - targets).abs().mean()))
    assert value("mse", outputs, targets, "mse", batch=1) == pytest.approx(value("mse", outputs, targets, "mse"))


def test_perplexity_is_the_exponential_of_the_mean_surprise() -> None:
    outputs, tokens = random(20, 5, 6), whole(6, 20, 5)
    surprise = functional.cross_entropy(outputs.reshape(100, 6), tokens.reshape(100))
    assert value("perplexity", outputs, tokens, "next_token") == pytest.approx(math.exp(float(surprise)), rel=1e-5)
    assert value("perplexity", torch.zeros(20, 5, 6), tokens, "next_token") == pytest.approx(6)


def test_directions_and_units() -> None:
    assert {name: m.higher_is_better for name, m in METRICS.items()} == {
        "accuracy": True, "mean_iou": True, "mse": False, "mae": False, "perplexity": False,
    }  # fmt: skip
    assert METRICS["mean_iou"].text(0.5) == "50.0%" and METRICS["mse"].gain(1.0, 3.0) == 2.0


def worst(outputs: Tensor, targets: Tensor) -> Tensor:
    """The largest error of all images."""
    return (outputs - targets).abs().max()


worst.higher_is_better = False  # type: ignore[attr-defined]


def no_direction(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.mean()


def not_a_number(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs


def test_functions_of_ones_own_see_the_whole_split() -> None:
    outputs, targets = random(20, 3), random(20, 3)
    name = f"{__name__}:worst"
    assert value(name, outputs, targets) == float((outputs - targets).abs().max())
    assert not metric_of(name).measure.higher_is_better and metric_of(name).measure.name == "worst"
    assert float(criterion_of(name)(outputs, targets)) == value(name, outputs, targets)
    with pytest.raises(InputError, match=r"does not say its direction; set its attribute higher_is_better"):
        metric_of(f"{__name__}:no_direction")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("mse2", r"loss: found 'mse2' \(allowed: package.module:function\)"),
        ("nothing_here:f", r"loss 'nothing_here:f': module nothing_here cannot be imported: ModuleNotFoundError"),
        ("math:cosine", r"loss 'math:cosine': module math: has no 'cosine'"),
        ("math:pi", r"loss 'math:pi': module math: pi is a float \(allowed: a function\)"),
    ],
)
def test_functions_that_are_not_there_are_one_line(name: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        own_function(name, "loss")
    assert "\n" not in str(caught.value)


LABELS, MASKS, NUMBERS = whole(4, 8), whole(4, 8, 3, 3), random(8, 2)


@pytest.mark.parametrize(
    ("outputs", "targets", "loss", "metric", "problem"),
    [
        (random(2, 5), LABELS, "cross_entropy", "accuracy", r"network: gives \(2, 5\) for 2 images of x .*\(2, 4\)"),
        (random(2, 4), MASKS, "cross_entropy", "mean_iou", r"allowed: \(2, 4, 3, 3\): one score a class"),
        (random(2, 3), NUMBERS, "mse", "mse", r"gives \(2, 3\) for 2 images of x .*\(2, 2\), as targets"),
        (random(2, 3, 4), MASKS, "next_token", "perplexity", r"gives .* for 2 texts of x"),
        (random(2, 2), NUMBERS, "cross_entropy", "mse",
         r"loss: found 'cross_entropy', but the targets of x are numbers \(allowed: mse, l1, bce, package"),
        (random(2, 4), LABELS, "cross_entropy", "mse",
         r"metric: found 'mse', but the targets of x are labels \(allowed: accuracy, mean_iou, perplexity, package"),
        (random(2, 2), NUMBERS, f"{__name__}:not_a_number", "mse", r"does not give one number for a batch"),
        (random(2, 3), NUMBERS, f"{__name__}:worst", "mae", r"loss '.*:worst': fails on 2 images: RuntimeError"),
        (random(2, 3), NUMBERS, f"{__name__}:no_direction", f"{__name__}:worst", r"metric '.*' ?: ?fails on 2 images"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_targets_is_one_line(
    outputs: Tensor, targets: Tensor, loss: str, metric: str, problem: str
) -> None:
    split = Split(random(8, 1), targets)
    data = Dataset(split, split, split, 0 if targets.is_floating_point() else 4, None)
    with pytest.raises(InputError, match=problem) as caught:
        check_targets(data, outputs, loss, metric, "x")
    assert "\n" not in str(caught.value)


def test_what_fits_is_accepted() -> None:
    for outputs, targets, loss, metric in [
        (random(2, 4), LABELS, "cross_entropy", "accuracy"), (random(2, 4, 3, 3), MASKS, "cross_entropy", "mean_iou"),
        (random(2, 2), NUMBERS, "bce", "accuracy"), (random(2, 2), NUMBERS, f"{__name__}:worst", f"{__name__}:worst"),
        (random(2, 3, 3, 4), MASKS, "next_token", "perplexity"),
    ]:  # fmt: skip
        split = Split(random(8, 1), targets)
        check_targets(Dataset(split, split, split, 4, None), outputs, loss, metric, "x")
