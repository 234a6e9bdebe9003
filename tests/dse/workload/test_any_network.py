"""Networks of every form against torch's own count of products, taken from the network as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.ao import nn as quantised_nn
from torch.nn import functional as F  # noqa: N812 (its usual name)
from torch.nn.utils import parametrizations, prune, spectral_norm
from torch.utils.flop_counter import FlopCounterMode

from dse.core.errors import InputError
from dse.workload.export import export_network
from dse.workload.inputs import parse_input, tensors
from dse.workload.layers import Layer, Workload
from dse.workload.networks import Network


def export(module: nn.Module, *inputs: str) -> Workload:
    return export_network(Network("net", module, (), tensors([parse_input(text) for text in inputs])))


def counted(module: nn.Module, *inputs: str) -> int:
    """Multiply-accumulates by torch, of a run that nothing else observes."""
    arguments, keywords = tensors([parse_input(text) for text in inputs])(module)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(*arguments, **keywords)
    return counter.get_total_flops() // 2


def named(workload: Workload) -> dict[str, str]:
    return {layer.name: layer.kind for layer in workload.layers}


class Attention(nn.Module):
    """Self-attention with a class token, in the forms that are written."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.qkv, self.proj = form, nn.Linear(16, 48), nn.Linear(16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, 4).permute(2, 0, 3, 1, 4)
        if self.form == "fused":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.form == "einsum":
            y = torch.einsum("bhij,bhjd->bhid", torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1), v)
        else:
            y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        result: torch.Tensor = self.proj(y.transpose(1, 2).reshape(b, n, 16))
        return result


@pytest.mark.parametrize("form", ["fused", "einsum", "matmul"])
def test_attention_has_its_two_products_as_layers(form: str) -> None:
    workload = export(Attention(form), "2,5,16")
    assert named(workload) == {"qkv": "linear", "matmul_1": "matmul", "matmul_2": "matmul", "proj": "linear"}
    assert workload.layers[1].instance == {"N": 6, "G": 8, "C": 4, "M": 6}
    assert workload.layers[2].instance == {"N": 6, "G": 8, "C": 6, "M": 4}
    assert workload.macs == counted(Attention("matmul"), "2,5,16")


def test_the_transformer_of_torch() -> None:
    module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    workload = export(module, "1,5,8")
    assert list(named(workload)) == [
        "self_attn.in_proj", "self_attn.matmul_1", "self_attn.matmul_2", "self_attn.out_proj", "linear1", "linear2",
    ]  # fmt: skip
    assert workload.macs == 5 * 8 * 24 + 2 * (2 * 5 * 5 * 4) + 5 * 8 * 8 + 2 * 5 * 8 * 16
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers_have_a_product_a_step(kind: Any, gates: int, bidirectional: bool) -> None:
    workload = export(nn.Sequential(kind(4, 6, bidirectional=bidirectional)), "3,2,4")
    steps = [layer for layer in workload.layers if layer.name.startswith("0.weight_hh_l0")]
    assert len(steps) == 3 * (1 + bidirectional) and "0.weight_hh_l0#3" in named(workload)
    assert all(layer.instance["N"] == 2 and layer.instance["M"] == 6 * gates for layer in steps)
    assert workload.macs == (1 + bidirectional) * 3 * 2 * 6 * gates * (4 + 6)
    assert torch.backends.mkldnn.is_available() == torch._C._get_mkldnn_enabled()


@settings(max_examples=40, deadline=None)
@given(
    axes=st.integers(1, 3), transposed=st.booleans(), groups=st.integers(1, 2), channels=st.integers(1, 3),
    kernel=st.integers(1, 3), stride=st.integers(1, 3), padding=st.integers(0, 1), dilation=st.integers(1, 2),
    data=st.data(),
)  # fmt: skip
def test_convolutions_of_every_form_have_torchs_count(
    axes: int, transposed: bool, groups: int, channels: int, kernel: int, stride: int, padding: int, dilation: int,
    data: Any,
) -> None:  # fmt: skip
    kinds = (
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
        if transposed
        else (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    )
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    layer: nn.Module = kinds[axes - 1](groups * channels, 2 * groups, kernel, **options)
    sizes = data.draw(st.lists(st.integers(dilation * (kernel - 1) + 3, 7), min_size=axes, max_size=axes))
    text = ",".join(map(str, (2, groups * channels, *sizes)))
    (found,) = export(nn.Sequential(layer), text).layers
    assert found.kind == ("transposed_" if transposed else "") + ("conv3d" if axes == 3 else "conv")
    assert found.macs == counted(nn.Sequential(layer), text)
    weight: Any = layer.weight
    assert found.problem.tensor_size("Weights") == weight.numel()
    # Without padding, the outputs of the problem are those of torch.
    unpadded = kinds[axes - 1](groups * channels, 2 * groups, kernel, **(options | {"padding": 0}))
    (bare,) = export(nn.Sequential(unpadded), text).layers
    outputs = unpadded(torch.zeros([2, groups * channels, *sizes]))
    assert bare.problem.tensor_size("Outputs") == outputs.numel()


class Text(nn.Module):
    """Integer ids, a keyword argument, a dictionary, and weights shared between the embedding and the head."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(50, 8), nn.Linear(8, 50, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor, *, mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        x = self.words(ids)
        return {"logits": self.head(x if mask is None else x * mask[..., None])}


def test_ids_keywords_dictionaries_and_shared_weights() -> None:
    workload = export(Text(), "1,7:int64", "mask=1,7:bool")
    assert workload.layers == (
        Layer("words", "embedding", {"N": 7, "M": 8}),
        Layer("head", "linear", {"N": 7, "G": 1, "C": 8, "M": 50, "P": 1, "Q": 1, "R": 1, "S": 1}),
    )
    assert workload.macs == 7 * 8 * 50
    assert workload.input_shape == (1, 7)


class Branches(nn.Module):
    """Takes another path where it is traced symbolically."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: Any) -> torch.Tensor:
        if isinstance(x, torch.Tensor):
            x = self.encoder(x)
        for _ in range(int(x.abs().sum() >= 0)):
            x = self.conv(x)
        return x  # type: ignore[no-any-return]


def test_the_path_that_really_runs_is_exported() -> None:
    assert list(named(export(Branches(), "1,3,9,9"))) == ["encoder", "conv"]


class Functional(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.bias = form, nn.Parameter(torch.zeros(4))
        self.weight, self.low = (
            nn.Parameter(torch.zeros(6, 4)),
            nn.ParameterList([torch.zeros(6, 1), torch.zeros(1, 4)]),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        match self.form:
            case "linear":
                return F.linear(x, self.weight * 2)
            case "matmul":
                return x @ self.weight.T
            case "left":
                return self.weight @ x.T
            case "vector":
                return torch.mv(self.weight, x[0])
            case "einsum":
                return torch.einsum("bc,mc->bm", x, self.weight)
            case "broadcast":
                return (x[:, None] * self.weight).sum(-1)
            case "bias":
                return (x[:, None] * self.weight + self.bias).sum(-1)
            case "scaled":
                return ((x[:, None] * self.weight) / 8 + 1).mean(-1)
            case "addcmul":
                return torch.addcmul(self.bias, x[:, None], self.weight).sum(-1)
            case "low rank":
                return F.linear(x, self.weight + self.low[0] @ self.low[1])
            case "inference":
                with torch.inference_mode():
                    return F.linear(x, self.weight)
        raise AssertionError


FORMS = (
    "linear", "matmul", "left", "vector", "einsum", "broadcast", "bias", "scaled", "addcmul", "low rank", "inference",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_linear_layer_however_it_is_written(form: str) -> None:
    rows = 1 if form == "vector" else 3
    (layer,) = export(Functional(form), f"{rows},4").layers
    assert (layer.name, layer.kind) == ("weight", "linear")
    assert layer.instance == {"N": rows, "G": 1, "C": 4, "M": 6, "P": 1, "Q": 1, "R": 1, "S": 1}


class Experts(nn.Module):
    """A weight for each group, and one that is expanded over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.experts, self.shared = nn.Parameter(torch.zeros(3, 4, 5)), nn.Parameter(torch.zeros(5, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.bmm(torch.bmm(x, self.experts), self.shared.expand(3, 5, 2))


def test_products_of_batches_with_weights() -> None:
    first, second = export(Experts(), "3,7,4").layers
    assert first.instance | {"name": first.name} == {
        "name": "experts", "N": 7, "G": 3, "C": 4, "M": 5, "P": 1, "Q": 1, "R": 1, "S": 1,
    }  # fmt: skip
    assert (second.name, second.instance["N"], second.instance["G"]) == ("shared", 21, 1)


class Dynamic(nn.Module):
    """Its kernel is a mixture, decided by the input, written by broadcasting."""

    def __init__(self) -> None:
        super().__init__()
        self.route, self.kernels = nn.Linear(3, 4), nn.Parameter(torch.zeros(4, 8, 3, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares = self.route(x.mean((2, 3))).softmax(1)
        return F.conv2d(x, (shares.view(-1, 4, 1, 1, 1, 1) * self.kernels).sum(1)[0])


def test_a_convolution_with_weights_from_data() -> None:
    workload = export(Dynamic(), "1,3,8,8")
    assert named(workload) == {"route": "linear", "kernels": "linear", "convolution_1": "conv"}
    assert workload.macs == 3 * 4 + 4 * 8 * 27 + 8 * 27 * 36


def test_normalised_pruned_and_lazy_layers_keep_their_names() -> None:
    layers = [
        parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)),
        spectral_norm(nn.Conv2d(4, 4, 3)),
        parametrizations.weight_norm(nn.Conv2d(4, 4, 1)),
        nn.LazyConv2d(5, 1),
        nn.Flatten(),
    ]
    prune.random_unstructured(layers[2], "bias", 0.5)  # type: ignore[no-untyped-call]
    pruned: nn.Module = prune.random_unstructured(nn.Linear(5 * 16, 2), "weight", 0.5)  # type: ignore[no-untyped-call]
    workload = export(nn.Sequential(*layers, pruned), "1,3,8,8")
    assert list(named(workload)) == ["0", "1", "2", "3", "5"]
    assert workload.macs == 36 * 4 * 27 + 16 * 4 * 36 + 16 * 16 + 16 * 20 + 160


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_wrapped_scripted_and_compiled_modules() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    for wrapped, names in [
        (nn.Sequential(torch.jit.script(inner), nn.Flatten(), nn.Linear(64, 2)), ["0.0", "0.2", "2"]),
        (nn.DataParallel(inner), ["module.0", "module.2"]),
        (torch.compile(inner), ["_orig_mod.0", "_orig_mod.2"]),
    ]:
        workload = export(wrapped, "1,3,8,8")  # type: ignore[arg-type]
        assert list(named(workload)) == names
        assert sum(layer.macs for layer in workload.layers[:2]) == 36 * 27 * 4 + 16 * 36 * 4


def test_a_fixed_filter_is_a_layer_and_what_is_written_into_a_buffer_is_data() -> None:
    class Blur(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("filter", torch.ones(3, 1, 3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            padded = torch.zeros(1, 3, 10, 10)
            padded[:, :, 1:-1, 1:-1] = x
            y = F.conv2d(padded, self.filter, groups=3)  # type: ignore[arg-type]
            return y @ padded[..., :8, :]

    workload = export(Blur(), "1,3,8,8")
    assert named(workload) == {"filter": "conv", "matmul_1": "matmul"}


class Unknown(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.weight, self.linear = form, nn.Parameter(torch.ones(4, 4)), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        if self.form == "distance":
            return torch.cdist(x, self.weight, p=1)
        if self.form == "cumsum":
            return (x[:, None] * self.weight).cumsum(-1)[..., -1]
        if self.form == "pool":
            return F.avg_pool2d(x[:, None, None] * self.weight, 4)
        return (x[:, None] * self.weight).view(-1, 16).sum(-1)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("distance", "network 'net': the network itself: _cdist_forward computes with parameters in a way"),
        ("view", "network 'net': the network itself: multiplies by weight and sums in another shape"),
        ("cumsum", "multiplies by weight and sums in another shape; write it as a product of matrices"),
        ("pool", "multiplies by weight and sums in another shape"),
    ],
)
def test_products_that_cannot_be_read_are_refused_by_name(form: str, message: str) -> None:
    with pytest.raises(InputError) as e:
        export(Unknown(form), "3,4")
    assert message in str(e.value) and "\n" not in str(e.value)


def test_quantised_modules_of_torch_are_refused_by_name() -> None:
    module = nn.Sequential(quantised_nn.quantized.dynamic.Linear(4, 3), nn.Linear(3, 2))
    with pytest.raises(
        InputError, match=r"0: quantized.linear_dynamic computes with packed weights; export the network"
    ):
        export(module, "1,4")


class Scaled(nn.Module):
    """A gain and a shift for each channel before the mean over all positions: no product of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gain, self.shift = nn.Conv2d(3, 4, 3), nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x).permute(0, 2, 3, 1) * self.gain + self.shift
        return F.adaptive_avg_pool2d(y.permute(0, 3, 1, 2), 1).flatten(1) + y.mean((1, 2)) + y.flatten(1, 2).mean(1)


def test_gains_and_shifts_before_a_mean_are_no_layers() -> None:
    assert list(named(export(Scaled(), "2,3,8,8"))) == ["conv"]
