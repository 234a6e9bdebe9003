"""Attention of torch, linear layers of transformers, weights that are read without a call: searched as other layers."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from dse.table.cost_table import CostTable
from dse.workload.networks import Network
from search import searchable, write_onnx
from search.costs import share
from search.layers.equivalents import SearchableAttention
from search.layers.mixed_layer import MixedLayer, PlainLayer
from search.supernet import SearchableNetwork, plain_weights, uniform
from tests.search.conftest import synthetic_table
from tests.search.layers.test_equivalents import conv1d

__all__ = ["conv1d"]  # a fixture

pytestmark = [pytest.mark.filterwarnings(f"ignore:{of}") for of in ("enable_nested_tensor", ".* nested tensors is in")]


class Classifier(nn.Module):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, **{"batch_first": True, **settings})
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        result: Tensor = self.head(self.encoder(x, src_key_padding_mask=padding).mean(1))
        return result


def table_of(network: nn.Module, *tensors: Tensor) -> CostTable:
    return synthetic_table(Network("net", network, (), lambda _: (tensors, {})))


def gradients_of_the_loss(model: SearchableNetwork, loss: Tensor) -> dict[str, bool]:
    """Module -> whether its choice has a part in the loss."""
    loss.backward()
    return {
        name: layer.alpha.grad is not None and bool(layer.alpha.grad.any())
        for name, layer in model._mixed.items()
        if layer.alpha is not None
    }


def test_an_encoder_of_torch_is_searched_discretised_and_costs_what_the_table_says() -> None:
    torch.manual_seed(0)
    network, x, classes = Classifier(), torch.randn(6, 5, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    table = table_of(network, x[:1])
    model = searchable(network, table)
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    first = None
    for _ in range(3):
        loss = F.cross_entropy(model(x), classes)
        first = loss.item() if first is None else first
        optimiser.zero_grad()
        (loss + 0.1 * model.energy()).backward()
        optimiser.step()
    assert F.cross_entropy(model(x), classes).item() < first
    optimiser.zero_grad()
    seen = gradients_of_the_loss(model, F.cross_entropy(model(x), classes))
    assert set(seen) == set(table.layers) and all(seen.values())
    found = model.assignment(0.6)
    assert share(table, found) <= 0.6
    for layer, candidate in found.items():
        model.fix(layer, candidate)
    assert float(model.energy().detach()) == pytest.approx(share(table, found))
    fixed = model.eval().discretise()
    torch.testing.assert_close(fixed(x), model(x))
    attention = fixed.get_submodule("encoder.layers.0.self_attn")
    assert isinstance(attention, SearchableAttention)
    in_proj = attention.get_submodule("in_proj")
    assert isinstance(in_proj, MixedLayer)
    assert [c.name for c in in_proj.candidates] == [found["encoder.layers.0.self_attn.in_proj"]]
    other = searchable(network, table)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.eval()(x), model(x))


@pytest.mark.parametrize("settings", [{}, {"norm_first": True}, {"activation": "gelu"}, {"batch_first": False}])
def test_evaluation_without_gradients_computes_the_searched_layers(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network, x = Classifier(**settings), torch.randn(3, 5, 8)
    padding = torch.arange(5) >= torch.tensor([[5], [3], [4]])
    if settings.get("batch_first") is False:
        x = x.transpose(0, 1).contiguous()
    model = searchable(network, table_of(network, x))
    model(x, padding), model(x)
    model.eval()
    for module in (model, model.discretise(), model.discretise(uniform(table_of(network, x), "T4"))):
        for arguments in ((x,), (x, padding)):
            expected = module(*arguments)
            assert expected.requires_grad
            with torch.no_grad():
                torch.testing.assert_close(module(*arguments), expected)
    with torch.no_grad():
        assert not torch.allclose(model(x), network.eval()(x), atol=1e-3)


def test_an_encoder_that_is_left_out_reads_padded_sequences_in_evaluation() -> None:
    torch.manual_seed(0)
    network, x = Classifier(), torch.randn(2, 5, 8)
    padding = torch.arange(5) >= torch.tensor([[5], [3]])
    model = searchable(network, table_of(network, x), exclude=["encoder.*"])
    with torch.no_grad():  # torch would make nested tensors here
        found = model.network.get_submodule("encoder").eval()(x, src_key_padding_mask=padding)
        expected = network.encoder.eval()(x, src_key_padding_mask=padding)
    torch.testing.assert_close(found[~padding], expected[~padding])


def test_encoder_and_decoder_of_torch_with_cross_attention() -> None:
    torch.manual_seed(0)
    network = nn.Transformer(8, 2, 1, 1, 16, 0.0, batch_first=True)
    x, y = torch.randn(3, 5, 8), torch.randn(3, 4, 8)
    table = table_of(network, x, y)
    model = searchable(network, table)
    mask = nn.Transformer.generate_square_subsequent_mask(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a number of products that is not that of the table
        result = model(x, y, tgt_mask=mask, tgt_is_causal=True)
    seen = gradients_of_the_loss(model, result.square().sum())
    assert set(seen) == set(table.layers) and all(seen.values())
    cross = model.network.get_submodule("decoder.layers.0.multihead_attn")
    assert [name for name, _ in cross.named_children()][:3] == ["in_proj", "in_proj#2", "out_proj"]
    names = table.layers
    assignment = {name: ("T8", "T4", "T2")[i % 3] for i, name in enumerate(names)}
    fixed = model.eval().discretise(assignment)
    of_cross = [fixed.get_submodule(f"decoder.layers.0.multihead_attn.{n}") for n in ("in_proj", "in_proj#2")]
    rows = [f"decoder.layers.0.multihead_attn.{n}" for n in ("in_proj", "in_proj#2")]
    assert [m.candidates[0].name for m in of_cross] == [assignment[row] for row in rows]  # type: ignore[union-attr]
    assert len({assignment[row] for row in rows}) == 2
    with torch.no_grad():
        first = fixed(x, y, tgt_mask=mask)
    torch.testing.assert_close(first, fixed(x, y, tgt_mask=mask, tgt_is_causal=True))


def test_the_weights_of_a_discretised_network_are_those_of_the_network() -> None:
    torch.manual_seed(0)
    network = nn.Transformer(8, 2, 1, 1, 16, 0.0, batch_first=True)
    x, y = torch.randn(3, 5, 8), torch.randn(3, 4, 8)
    table = table_of(network, x, y)
    for exclude in ([], ["decoder.*"], ["*.in_proj"]):
        fixed = searchable(network, table, exclude=exclude).discretise(uniform(table, "T4", exclude))
        found = plain_weights(fixed)
        assert found.keys() == network.state_dict().keys()
        for name, value in network.state_dict().items():
            assert torch.equal(found[name], value), name
    again = copy.deepcopy(network)
    again.load_state_dict(found)


def test_a_checkpoint_of_the_network_before_the_search_is_read() -> None:
    torch.manual_seed(0)
    network, trained, x = Classifier(), Classifier(), torch.randn(2, 5, 8)
    table = table_of(network, x)
    model, expected = searchable(network, table), searchable(trained, table)
    missing, unexpected = model.network.load_state_dict(trained.state_dict(), strict=False)
    assert not unexpected
    assert not [n for n in missing if n.endswith(("weight", "bias"))]
    torch.testing.assert_close(model(x), expected(x))


def test_parts_of_an_attention_are_left_out_by_name() -> None:
    torch.manual_seed(0)
    network = nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True)
    x, y = torch.randn(2, 5, 8), torch.randn(2, 4, 8)
    table = table_of(network, x, y)
    exclude = ["multihead_attn.in_proj", "self_attn.matmul_*"]
    model = searchable(network, table, exclude=exclude)
    model(x, y)
    for name in ("in_proj", "in_proj#2"):
        assert isinstance(model.network.get_submodule(f"multihead_attn.{name}"), PlainLayer)
    left = {"multihead_attn.in_proj", "multihead_attn.in_proj#2", "self_attn.matmul_1", "self_attn.matmul_2"}
    assert {name for name, of in model.probabilities().items() if len(of) == 1} == left
    chosen = uniform(table, "BC2", exclude)
    assert {name for name, c in chosen.items() if c == "T8"} == left
    model.discretise(chosen)(x, y)
    encoder, z = Classifier(), torch.randn(2, 5, 8)
    model = searchable(encoder, table_of(encoder, z), exclude=["*.matmul_*"])
    assert not any("forward" in vars(m) for m in model.modules())  # they run as they did
    pinned = searchable(network, table, pins={"multihead_attn.in_proj#2": "MF4"}).probabilities()
    assert pinned["multihead_attn.in_proj#2"] == {"MF4": 1.0} and len(pinned["multihead_attn.in_proj"]) == 9


class Twice(nn.Module):
    """One attention and one layer, called twice; hooks and the weights of the attention are used."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.again = nn.MultiheadAttention(8, 2, batch_first=True), nn.ModuleList()
        self.again.append(self.attn)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.attn(x, x, x)
        result: Tensor = self.again[0](y, y, y, need_weights=False)[0]
        return result


def test_an_attention_that_is_called_twice_has_one_choice_for_both_calls() -> None:
    torch.manual_seed(0)
    network, x = Twice(), torch.randn(2, 5, 8)
    seen: list[str] = []
    table = table_of(network, x)
    network.attn.register_forward_hook(lambda *_: seen.append("called"))
    model = searchable(network, table)
    model(x).sum().backward()
    assert seen == ["called"] * 2
    found = model.assignment()
    assert found["attn.in_proj"] == found["attn.in_proj#2"] and len(found) == len(table.layers) == 8
    assert model.network.get_submodule("again.0") is model.network.get_submodule("attn")
    fixed = model.discretise()
    assert fixed.get_submodule("again.0") is fixed.get_submodule("attn")
    fixed(x)


def test_a_discretised_encoder_is_exported_and_compiled() -> None:
    torch.manual_seed(0)
    network, x = Classifier(), torch.randn(2, 5, 8)
    model = searchable(network, table_of(network, x))
    model(x)
    fixed = model.eval().discretise()
    program = torch.export.export(fixed, (x,), strict=False)
    torch.testing.assert_close(program.module()(x), fixed(x))
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(fixed, backend="eager")(x), fixed(x))


class Attended(nn.Module):
    """One attention of any settings."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, **settings)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.attn(x, x, x)[0])


@pytest.mark.parametrize(
    "settings",
    [{"batch_first": True}, {"batch_first": False}, {"batch_first": True, "add_zero_attn": True, "add_bias_kv": True}],
)
def test_the_first_axis_of_an_attention_stays_free_in_a_trace(settings: dict[str, Any]) -> None:
    """The batch, or where that is the second axis, the positions."""
    torch.manual_seed(0)
    network, x = Attended(**settings), torch.randn(2, 5, 8)
    model = searchable(network, table_of(network, x))
    model(x)
    fixed = model.eval().discretise()
    program = torch.export.export(fixed, (x,), dynamic_shapes=({0: torch.export.Dim("size")},), strict=False)
    other = torch.randn(6, 5, 8)
    torch.testing.assert_close(program.module()(other), fixed(other))


def test_a_discretised_encoder_is_an_onnx_file_with_the_same_outputs(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    network, x = Classifier(), torch.randn(2, 5, 8)
    table = table_of(network, x)
    model = searchable(network, table, exclude=["*.matmul_*"])
    model(x)
    chosen = uniform(table, "T8", ["*.matmul_*"])
    fixed = model.eval().discretise(chosen)
    write_onnx(fixed, chosen, (2, 5, 8), tmp_path / "encoder.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    (found,) = session.run(None, {"images": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), fixed(x), rtol=1e-3, atol=1e-4)


class Gpt2(nn.Module):
    """A block as transformers writes it."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.c_attn, self.c_proj, self.c_fc = kind(24, 8), kind(8, 8), kind(16, 8)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.c_attn(x).view(*x.shape[:2], 2, 12).transpose(1, 2).chunk(3, -1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        result: Tensor = self.head(F.gelu(self.c_fc(x + self.c_proj(y))))
        return result


def test_linear_layers_of_transformers_are_searched(conv1d: Any) -> None:
    torch.manual_seed(0)
    network, x = Gpt2(conv1d), torch.randn(2, 5, 8)
    table = table_of(network, x)
    model = searchable(network, table, exclude=["c_fc"])
    seen = gradients_of_the_loss(model, model(x).square().sum())
    assert set(seen) == {"c_attn", "matmul_1", "matmul_2", "c_proj", "head"} and all(seen.values())
    assert type(model.network.get_submodule("c_fc")) is conv1d
    fixed = model.discretise()
    fixed(x)
    found = plain_weights(fixed)
    assert found.keys() == network.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())
    trained = Gpt2(conv1d)
    model = searchable(network, table, exclude=["c_fc"])
    model.network.load_state_dict(trained.state_dict(), strict=False)
    expected = searchable(trained, table, exclude=["c_fc"])
    torch.testing.assert_close(model(x), expected(x))
    square = model.network.get_submodule("c_proj")
    assert torch.equal(square.layer.weight, trained.c_proj.weight.t())  # type: ignore[union-attr]


class Reader(nn.Module):
    """Calls torch's function with the weights of its layers, as torchvision's windowed attention does."""

    def __init__(self, bias: float | None) -> None:
        super().__init__()
        self.first, self.second, self.bias = nn.Linear(8, 8), nn.Linear(8, 4), bias

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(F.linear(x, self.first.weight, self.first.bias))
        return self.last(x)

    def last(self, x: Tensor) -> Tensor:
        return F.linear(x, self.second.weight, None if self.bias is None else self.second.bias + self.bias)


class Caller(Reader):
    """The same, with calls."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(torch.relu(self.first(x)))
        return y - self.second.bias if self.bias is None else y + self.bias


@pytest.mark.parametrize("bias", [None, 0.0, 3.0])
def test_layers_whose_weights_are_read_are_computed_as_those_that_are_called(bias: float | None) -> None:
    torch.manual_seed(0)
    network, x = nn.Sequential(Reader(bias)), torch.randn(6, 8)
    called = nn.Sequential(Caller(bias))
    called.load_state_dict(network.state_dict())
    table = table_of(network, x)
    assert table.layers == ("0.first", "0.second")
    model, expected = searchable(network, table), searchable(called, table)
    torch.testing.assert_close(model(x), expected(x))
    assert all(gradients_of_the_loss(model, model(x).square().sum()).values())
    fixed = model.eval().discretise()
    torch.testing.assert_close(fixed(x), expected.eval().discretise()(x))
    assert not torch.allclose(fixed(x), network(x), atol=1e-3)
    part = searchable(network, table, exclude=["0.first"])
    torch.testing.assert_close(part(x), searchable(called, table, exclude=["0.first"])(x))


@pytest.mark.parametrize("bias", [None, 3.0])
def test_layers_whose_weights_are_read_are_quantised_in_an_onnx_file(bias: float | None, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    network, x = nn.Sequential(Reader(bias)), torch.randn(6, 8)
    table = table_of(network, x)
    model = searchable(network, table)
    model(x)
    chosen = {"0.first": "T4", "0.second": "MF4"}
    fixed = model.eval().discretise(chosen)
    write_onnx(fixed, chosen, (6, 8), tmp_path / "reader.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "reader.onnx")
    other = torch.randn(3, 8)
    (found,) = session.run(None, {"images": other.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), fixed(other), rtol=1e-4, atol=1e-5)
