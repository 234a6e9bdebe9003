from __future__ import annotations

import copy
import random
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from search.sensitivity import faster_ops
from search.sensitivity.faster_ops import FasterOps


def random_norm(rng: random.Random) -> tuple[nn.Module, torch.Tensor]:
    dims, channels = rng.choice([1, 2, 3]), rng.randint(1, 9)
    kind = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims]
    norm = kind(channels, eps=rng.choice([1e-5, 1e-3]), momentum=rng.choice([0.1, 1.0, None]),
                affine=rng.random() < 0.7, track_running_stats=rng.random() < 0.8)  # fmt: skip
    x = torch.randn(rng.randint(1, 40), channels, *(rng.randint(1, 9) for _ in range(dims)))
    x = x * 10 ** rng.uniform(-3, 3) + rng.choice([0.0, 1.0, 30.0]) * torch.randn(channels).view(-1, *[1] * dims)
    return norm, x


@pytest.mark.parametrize("seed", range(60))
def test_batch_norm_is_that_of_torch(seed: int) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    norm, x = random_norm(rng)
    if x.numel() == x.shape[1]:
        x = x.repeat(2, *[1] * (x.dim() - 1))
    other = copy.deepcopy(norm)
    with torch.no_grad():
        expected = norm(x)
        with FasterOps():
            found = other(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for (name, a), b in zip(other.state_dict().items(), norm.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)


def test_the_cases_above_reach_the_faster_batch_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = []
    own = faster_ops._batch_norm
    monkeypatch.setitem(faster_ops._OWN, functional.batch_norm, lambda *a, **k: answered.append(own(*a, **k)))
    for seed in range(60):
        torch.manual_seed(seed)
        norm, x = random_norm(random.Random(seed))
        with torch.no_grad(), FasterOps():
            if x.numel() > x.shape[1]:
                norm(x)
    assert sum(a is not None for a in answered) > 20
    assert sum(a is None for a in answered) > 5


@pytest.mark.parametrize("mean", [1e3, 1e5])
def test_a_mean_far_above_the_variance_is_left_to_torch(mean: float) -> None:
    x = mean + torch.randn(64, 3, 8, 8)
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        expected = norm(x)
        with FasterOps():
            torch.testing.assert_close(norm(x), expected, rtol=0, atol=0)


def test_what_is_not_a_number_stays() -> None:
    x = torch.randn(4, 2, 6, 6)
    x[0, 0, 0, 0] = torch.nan
    with torch.no_grad(), FasterOps():
        normalised, pooled = nn.BatchNorm2d(2)(x), nn.MaxPool2d(2)(x)
    assert normalised[:, 0].isnan().all()
    assert not normalised[:, 1].isnan().any()
    assert pooled.isnan().sum() == 1


@pytest.mark.parametrize("seed", range(60))
def test_maxima_are_those_of_torch(seed: int) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    kernel = (rng.randint(1, 4), rng.randint(1, 4)) if rng.random() < 0.5 else rng.randint(1, 4)
    least = min(kernel) if isinstance(kernel, tuple) else kernel
    pool = nn.MaxPool2d(kernel, rng.choice([None, 1, 2, (3, 1)]), padding=rng.randint(0, least // 2),
                        dilation=rng.choice([1, 1, 2]), ceil_mode=rng.random() < 0.3)  # fmt: skip
    x = torch.randn(*([3] if rng.random() < 0.8 else []), rng.randint(1, 4), rng.randint(8, 14), rng.randint(8, 14))
    if rng.random() < 0.2 and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = pool(x)
        with FasterOps():
            found = pool(x)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("kernel", "size"),
    [(1, (4, 4)), (1, (1, 4)), (1, (4, 1)), (2, (4, 4)), (2, (2, 2)), ((1, 2), (1, 4)), ((2, 1), (4, 1))],
)
def test_what_is_given_is_not_the_input(kernel: int | tuple[int, int], size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    before = x.clone()
    with torch.no_grad(), FasterOps():
        functional.max_pool2d(x, kernel, 1).zero_()
    assert torch.equal(x, before)


def outcome(call: Callable[[Tensor], Tensor], x: Tensor, *, fast: bool) -> Tensor | str:
    try:
        with torch.no_grad(), FasterOps() if fast else nullcontext():
            return call(x)
    except Exception as e:  # what torch says of wrong arguments: errors of many kinds
        return f"{type(e).__name__}: {e}"


ODD: dict[str, Callable[[Tensor], Tensor]] = {
    "numbers of NumPy": lambda x: functional.max_pool2d(x, np.int64(2)),  # type: ignore[call-overload]
    "a tuple of one": lambda x: functional.max_pool2d(x, (2,)),  # type: ignore[arg-type]
    "a tuple of three": lambda x: functional.max_pool2d(x, (2, 2, 2)),  # type: ignore[arg-type]
    "no steps": lambda x: torch.max_pool2d(x, 2, ()),
    "a float": lambda x: functional.max_pool2d(x, 2.0),  # type: ignore[call-overload]
    "a kernel of nothing": lambda x: functional.max_pool2d(x, 0),
    "steps of nothing": lambda x: functional.max_pool2d(x, 2, 0),
    "steps back": lambda x: functional.max_pool2d(x, 2, -1),
    "too large": lambda x: functional.max_pool2d(x, 7),
    "negative padding": lambda x: functional.max_pool2d(x, 2, padding=-1),
    "no dilation": lambda x: functional.max_pool2d(x, 2, dilation=0),
    "two dimensions": lambda x: functional.max_pool2d(x[0, 0], 2),
    "five dimensions": lambda x: functional.max_pool2d(x[None], 2),
    "one value a channel": lambda x: functional.batch_norm(x[:1, :, :1, :1], None, None, training=True),
    "eps of zero": lambda x: functional.batch_norm(x, None, None, training=True, eps=0.0),
    "no momentum": lambda x: functional.batch_norm(x, None, None, training=True, momentum=None),  # type: ignore[arg-type]
    "others' statistics": lambda x: functional.batch_norm(x, torch.zeros(3), torch.ones(3), training=True),
    "others' weights": lambda x: functional.batch_norm(x, None, None, torch.ones(3), training=True),
    "infinite": lambda x: functional.batch_norm(x.index_fill(3, torch.tensor(1), torch.inf), None, None, training=True),
    "very large": lambda x: functional.batch_norm(x * 1e20, None, None, training=True),
    "very small": lambda x: functional.batch_norm(x * 1e-25, None, None, training=True),
    "constant": lambda x: functional.batch_norm(torch.full_like(x, 3.0), None, None, training=True),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_arguments_give_what_torch_gives(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 2, 6, 6)
    expected, found = (outcome(ODD[name], x, fast=fast) for fast in (False, True))
    if isinstance(expected, str):
        assert found == expected
    else:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_indices_are_those_of_torch() -> None:
    with torch.no_grad(), FasterOps():
        _, places = functional.max_pool2d(torch.randn(1, 2, 4, 4), 2, return_indices=True)
    assert places.dtype == torch.int64


def test_gradients_are_recorded_as_ever() -> None:
    x = torch.randn(2, 3, 6, 6, requires_grad=True)
    network = nn.Sequential(nn.BatchNorm2d(3), nn.MaxPool2d(2))
    with FasterOps():
        network(x).sum().backward()
    assert x.grad is not None
    assert network[0].weight.grad is not None
