"""Which layers have inputs that cannot be negative: what is proved must hold on every input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from dse.core.errors import InputError
from dse.workload.export import export_network
from dse.workload.layers import read_workload, write_workload
from dse.workload.networks import Network
from dse.workload.signs import never_negative


class Between(nn.Module):
    """A layer behind some operations; the layer before it has negative and positive outputs."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.between, self.conv = between, nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.between(x)
        self.seen = y
        found: Tensor = F.conv2d(y, torch.zeros(2, y.shape[1], 1, 1) + self.conv.weight.sum())
        return found


def signed(between: Callable[[Tensor], Tensor]) -> bool:
    """Whether the layer may have negative inputs by the proof; a proof that this input refutes fails."""
    torch.manual_seed(0)
    module = Between(between)
    example = torch.randn(2, 4, 8, 8) * 4
    *_, layer = export_network(Network("net", module, (), lambda _: ((example,), {}))).layers
    assert layer.signed or float(module.seen.min()) >= 0
    return layer.signed


def _in_part(x: Tensor) -> Tensor:
    y = x.clone().relu()
    y[:, :1].sub_(5)
    y[:, 1:].relu_()
    return y


def _in_whole(x: Tensor) -> Tensor:
    y = x + 1
    y += x
    return y.relu_()


def _behind_a_view(x: Tensor) -> Tensor:
    y = x.relu()
    view = y.view(-1)
    view.neg_()
    return y


def _by_foreach(x: Tensor) -> Tensor:
    y = x.relu()
    torch._foreach_sub_([y], 3.0)
    return y


NEVER = {
    "relu": F.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "abs": torch.abs,
    "softmax": lambda x: x.softmax(1),
    "exp": torch.exp,
    "square": lambda x: x**2,
    "product with itself": lambda x: x * x,
    "clamp": lambda x: x.clamp(0, 3),
    "clamp_min": lambda x: x.clamp(min=0.5),
    "softplus": F.softplus,
    "threshold": lambda x: F.threshold(x, 0.1, 0.0),
    "pool": lambda x: F.max_pool2d(F.relu(x), 2, padding=1),
    "mean": lambda x: F.adaptive_avg_pool2d(F.relu(x), 2),
    "cat": lambda x: torch.cat([x.relu(), x.abs()], 1),
    "residual": lambda x: F.relu(x) + x.sigmoid() * 2,
    "gate": lambda x: x.relu() * x.sigmoid(),
    "dropout": lambda x: F.dropout(x.relu(), 0.5, training=True),
    "pad": lambda x: F.pad(x.relu(), (1, 1)),
    "upsample": lambda x: F.interpolate(x.relu(), scale_factor=2, mode="bilinear"),
    "in whole": _in_whole,
    "shuffle": lambda x: x.relu().reshape(2, 2, 2, 8, 8).transpose(1, 2).flatten(1, 2),
    "half": lambda x: x.relu().half().float(),
    "branch by the data": lambda x: x.relu() * 2 if (x > 0).any() else x.abs(),
    "mean of a window": lambda x: F.avg_pool2d(x.relu(), 2),
    "product of matrices": lambda x: x.abs() @ x.abs(),
    "chunk": lambda x: x.relu().chunk(2, 1)[1],
    "channels last": lambda x: x.relu().to(memory_format=torch.channels_last),
}
MAY_BE = {
    "nothing": lambda x: x + 0,
    "difference": lambda x: x.relu() - x.sigmoid(),
    "add of -1": lambda x: x.relu() + -1,
    "alpha": lambda x: torch.add(x.relu(), x.abs(), alpha=-2),
    "cubed": lambda x: x**3,
    "clamp": lambda x: x.clamp(-1, 3),
    "clamp below 0": lambda x: x.relu().clamp(max=-1.0),
    "pad": lambda x: F.pad(x.relu(), (1, 1), value=-1.0),
    "one of two": lambda x: torch.cat([x.relu(), x], 1),
    "bicubic": lambda x: F.interpolate(x.relu(), size=5, mode="bicubic"),
    "normalised": lambda x: F.layer_norm(x.relu(), (8, 8)),
    "gelu": F.gelu,
    "silu": F.silu,
    "in part": _in_part,
    "behind a view": _behind_a_view,
    "without a result": _by_foreach,
    "times -1": lambda x: x.relu() * -1,
    "as other bits": lambda x: (x.relu().view(torch.int32) - 2**31).view(torch.float32),
    "masked": lambda x: x.relu().masked_fill(x > 1, -1.0),
    "divisor": lambda x: F.avg_pool2d(x.relu(), 2, divisor_override=-1),
    "sum with product": lambda x: torch.baddbmm(x[0].abs(), x[0].abs(), x[0].abs(), alpha=-1)[None],
    "times a number of the data": lambda x: x.relu() * x.mean().abs().item(),
    "limited by a number of the data": lambda x: x.clamp(min=x.mean().abs().item()),
    "overflow of sums": lambda x: (torch.ones_like(x, dtype=torch.int8) * 100 + (x > 0)).add(100).float(),
    "overflow": lambda x: (x.relu() * 100).to(torch.int8).float(),
}


@pytest.mark.parametrize("between", NEVER.values(), ids=NEVER)
def test_inputs_that_cannot_be_negative_are_found(between: Callable[[Tensor], Tensor]) -> None:
    assert not signed(between)


@pytest.mark.parametrize("between", MAY_BE.values(), ids=MAY_BE)
def test_whatever_is_not_proved_may_be_negative(between: Callable[[Tensor], Tensor]) -> None:
    assert signed(between)


def test_an_operation_that_is_unknown_proves_nothing() -> None:
    assert not never_negative("an_operation_to_come", [None], {}, [True])


def test_all_calls_of_a_layer_have_the_sign_of_one() -> None:
    """Its words have one form: a negative value in one call makes all of them signed."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.other(self.shared(self.shared(x.relu())).relu())
            return found

    layers = export_network(Network("net", Twice(), (3, 4))).layers
    assert {layer.name: layer.signed for layer in layers} == {"shared": True, "shared#2": True, "other": False}


def test_a_file_keeps_signs_and_one_without_them_may_have_negative_inputs(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    workload, path = export_network(Network("net", net, (3, 4))), tmp_path / "net.yaml"
    write_workload(workload, path)
    assert read_workload(path) == workload and [layer.signed for layer in workload.layers] == [True, False]
    path.write_text(path.read_text().replace(", signed: false", ""))
    assert all(layer.signed for layer in read_workload(path).layers)
    path.write_text(path.read_text().replace("kind: linear", "kind: linear, signed: maybe", 1))
    with pytest.raises(InputError, match=r"layers\[0\]\.signed"):
        read_workload(path)


def test_a_sign_is_no_part_of_what_a_mapping_costs() -> None:
    from dataclasses import replace

    from dse.workload.problem import conv_problem

    problem: Any = conv_problem({"C": 4})
    assert problem.signed and replace(problem, signed=False) == problem
    assert replace(problem, signed=False).canonical() == problem.canonical()
