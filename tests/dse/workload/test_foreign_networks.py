"""Forms of networks that were found in packages of others, each as its smallest example."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.nn import functional as F  # noqa: N812 (its usual name)

from dse.core.errors import InputError
from dse.workload.export import export_network
from dse.workload.layers import Layer, Workload
from dse.workload.networks import Network
from dse.workload.products import products
from dse.workload.record import Call, Operand


class Written(nn.Module):
    """Parts and what is computed with them."""

    def __init__(self, compute: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.compute = compute
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.compute(self, *inputs)


def weights(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape, dtype=dtype))


def export(module: nn.Module, *inputs: torch.Tensor) -> Workload:
    return export_network(Network("net", module, (), lambda _module: (inputs, {})))


def test_an_expert_without_tokens_is_no_layer() -> None:
    module = Written(lambda m, x: torch.cat([m.idle(x[:0]), m.busy(x)]), idle=nn.Linear(8, 8), busy=nn.Linear(8, 8))
    assert [layer.name for layer in export(module, torch.ones(2, 8)).layers] == ["busy"]


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this torch has no grouped products")
def test_experts_in_one_operation_are_a_layer_each_with_its_tokens() -> None:
    ends = torch.tensor([5, 5, 9], dtype=torch.int32)
    experts = weights(3, 16, 8, dtype=torch.bfloat16)
    module = Written(lambda m, x: F.grouped_mm(x, m.experts, offs=ends), experts=experts)
    layers = export(module, torch.ones(9, 16, dtype=torch.bfloat16)).layers
    assert [(layer.name, layer.instance["N"], layer.instance["C"], layer.instance["M"]) for layer in layers] == [
        ("experts", 5, 16, 8), ("experts#2", 4, 16, 8),
    ]  # fmt: skip


def test_traced_and_exported_modules() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    x = torch.ones(1, 3, 8, 8)
    for module in (torch.jit.trace(inner, x), torch.export.export(inner, (x,)).module()):  # type: ignore[no-untyped-call]
        workload = export(module, x)
        assert [layer.name for layer in workload.layers] == ["0", "3"]
        assert workload.macs == 36 * 27 * 4 + 144 * 2


def test_operators_with_functions_are_recorded_by_what_they_run() -> None:
    def branch(m: Any, x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda v: m.taken(v), lambda v: m.other(m.other(v)), (x,))

    workload = export(Written(branch, taken=nn.Linear(8, 8), other=nn.Linear(8, 8)), torch.ones(2, 8))
    assert [layer.name for layer in workload.layers] == ["taken"]


def test_distances_are_products_of_matrices() -> None:
    module = Written(lambda m, x: torch.cdist(x, m.codes), codes=weights(30, 8))
    (layer,) = export(module, torch.ones(40, 8)).layers
    assert (layer.name, layer.kind, layer.macs) == ("codes", "linear", 40 * 30 * 8)


def test_a_product_of_complex_numbers_is_four_real_ones() -> None:
    dense = Written(lambda m, x: x @ m.w, w=weights(8, 4, dtype=torch.complex64))
    spectral = Written(lambda m, x: torch.einsum("bix,iox->box", x, m.w), w=weights(8, 4, 3, dtype=torch.complex64))
    (layer,) = export(dense, torch.ones(2, 8, dtype=torch.complex64)).layers
    assert layer.macs == 4 * 2 * 8 * 4
    assert layer.problem.tensor_size("Outputs") == 2 * 2 * 4
    (layer,) = export(spectral, torch.ones(2, 8, 3, dtype=torch.complex64)).layers
    assert layer.macs == 4 * 2 * 8 * 4 * 3


@pytest.mark.parametrize(
    "scale",
    [
        lambda y: y / 8**0.5,
        lambda y: -y.double(),
        lambda y: y.masked_fill(torch.zeros(8, dtype=torch.bool), 0),
        lambda y: y * torch.tensor(2.0),
    ],
)
def test_a_product_by_broadcasting_that_is_scaled_before_the_sum(scale: Callable[[torch.Tensor], torch.Tensor]) -> None:
    module = Written(lambda m, x: scale(x[:, None] * m.w).sum(-1), w=weights(4, 8))
    (layer,) = export(module, torch.ones(2, 8)).layers
    assert (layer.name, layer.macs) == ("w", 2 * 8 * 4)


def test_what_a_nonlinear_function_separates_from_its_sum_is_no_product() -> None:
    module = Written(lambda m, x: m.f((x[:, None] * m.w).tanh().sum(-1)), w=weights(4, 8), f=nn.Linear(4, 2))
    assert [layer.name for layer in export(module, torch.ones(2, 8)).layers] == ["f"]


def test_sums_of_products_of_activations_are_named_with_their_number() -> None:
    def pooled(m: Any, x: torch.Tensor) -> torch.Tensor:
        return (m.score(x).softmax(1) * x).sum(1)

    workload = export(Written(pooled, score=nn.Linear(8, 1)), torch.ones(2, 5, 8))
    assert [layer.name for layer in workload.layers] == ["score"]
    assert workload.passed_over["sum of products of activations"].startswith("adds up 80 products")
    gated = Written(lambda m, x: (m.gate(x)[..., None] * x[..., None].expand(2, 5, 8, 3)).sum(-1), gate=nn.Linear(8, 8))
    assert "sum of products of activations" not in export(gated, torch.ones(2, 5, 8)).passed_over


def test_a_convolution_by_shifts_is_named_with_its_number_of_products() -> None:
    def shifted(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.linear(sum(x[:, i : i + 6] * m.taps[i] for i in range(3)))

    workload = export(Written(shifted, taps=weights(3), linear=nn.Linear(6, 2)), torch.ones(2, 8))
    assert workload.macs == 2 * 6 * 2
    assert workload.passed_over["sum of products of parameters"].startswith("adds up 36 products")
    rotated = Written(
        lambda m, x: m.linear(x * m.cos + x.flip(1) * m.sin), cos=weights(6), sin=weights(6), linear=nn.Linear(6, 2)
    )
    assert "sum of products of parameters" not in export(rotated, torch.ones(2, 6)).passed_over


def test_queries_that_are_parameters_go_through_layers() -> None:
    """The first layers of a DETR's decoder compute the same for all images, and compute it for each."""

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.queries, self.low = weights(1, 5, 16), weights(16, 2)
            self.own = nn.MultiheadAttention(16, 4, batch_first=True)
            self.cross = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> Any:
            queries = self.own(self.queries, self.queries, self.queries)[0]
            return F.linear(self.cross(queries, x, x)[0], self.low @ self.low.T)

    workload = export(Decoder(), torch.ones(1, 7, 16))
    own = 4 * 5 * 16 * 16 + 2 * 5 * 5 * 16
    cross = 2 * (5 + 7) * 16 * 16 + 2 * 5 * 7 * 16
    assert workload.macs == own + cross + 5 * 16 * 16  # but not the product that makes the last weights
    assert {"own.in_proj", "own.out_proj", "own.matmul_1", "cross.in_proj", "low"} <= {n.name for n in workload.layers}


def test_a_run_leaves_parameters_and_buffers_as_they_were() -> None:
    def compute(m: Any, x: torch.Tensor) -> torch.Tensor:
        m.linear.weight.data.mul_(0.5)
        m.cache[1:3] = m.linear(x)
        return x @ m.cache.T

    module = Written(compute, linear=nn.Linear(8, 8))
    module.register_buffer("cache", torch.zeros(4, 8))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    workload = export(module, torch.ones(2, 8))
    assert [(layer.name, layer.kind) for layer in workload.layers] == [("linear", "linear"), ("matmul_1", "matmul")]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_a_network_in_quantisation_aware_training_is_exported_and_keeps_its_observers() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).train()
    module.qconfig = quantization.get_default_qat_qconfig("fbgemm")  # type: ignore[assignment,no-untyped-call]
    quantization.prepare_qat(module, inplace=True)  # type: ignore[no-untyped-call]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert export(module, torch.ones(1, 3, 8, 8)).macs == 36 * 27 * 4
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_a_quantised_recurrent_layer_is_refused_beside_others() -> None:
    recurrent = Written(lambda m, x: m.rnn(x)[0], rnn=nn.LSTM(8, 8))
    module = quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 8), recurrent), {nn.LSTM})  # type: ignore[no-untyped-call]
    with pytest.raises(InputError, match=r"1\.rnn: quantized_lstm computes with packed weights"):
        export(module, torch.ones(5, 2, 8))


@torch.library.custom_op("test_foreign::scores", mutates_args=())
def scores(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b.T


def _in_a_thread(m: Any, x: torch.Tensor) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(m.second(x)))
    thread.start()
    thread.join()
    return m.first(x) + results[0]


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (
            lambda m, x: scores(m.first(x), m.second(x)),
            "network 'net': the network itself: test_foreign.scores is of another library than torch",
        ),
        (_in_a_thread, "network 'net': second: runs where its operations cannot be recorded"),
        (
            lambda m, x: m.first(torch.nested.nested_tensor([x[:1], x])),
            "network 'net': the network itself: computes with nested tensors (allowed: tensors of one shape)",
        ),
    ],
)
def test_products_that_nobody_could_see_are_refused(compute: Callable[..., Any], message: str) -> None:
    with pytest.raises(InputError) as e:
        export(Written(compute, first=nn.Linear(8, 8), second=nn.Linear(8, 8)), torch.ones(2, 8))
    assert message in str(e.value) and "\n" not in str(e.value)


def test_a_deformable_convolution_of_torchvision_has_the_products_of_a_convolution() -> None:
    image, weight, offset = (
        Operand(shape, parameters, not parameters, False, None)
        for shape, parameters in (
            ((1, 4, 16, 15), frozenset[str]()),
            ((8, 2, 3, 3), frozenset(["deformed.weight"])),
            ((1, 18, 8, 8), frozenset[str]()),
        )
    )
    # deform_conv2d(input, weight, offset, mask, bias, strides, paddings, dilations, groups, offset groups, use_mask)
    arguments = (None, None, None, None, None, 2, 2, 1, 1, 1, 1, 2, 1, True)
    operation = "torchvision.deform_conv2d"
    call = Call(operation, "deformed", 0, (image, weight, offset), arguments, (1, 8, 8, 8), 0, False, False)
    (product,) = products(call)
    assert product.kind == "conv" and product.weights == weight
    assert Layer("deformed", product.kind, product.instance).macs == 64 * 8 * 2 * 9
