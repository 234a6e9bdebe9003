"""The ONNX file is read by onnxruntime and has to give the scores that torch gives."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dse.core.errors import InputError
from dse.hardware.candidate import Macro
from dse.workload.export import export_network
from dse.workload.networks import Network
from search.export.qdq import ASSIGNMENT_KEY, MACROS_KEY, quantised_layers, write_onnx
from search.layers.mixed_layer import MixedLayer
from search.networks.shufflenet import ChannelShuffle
from search.supernet import searchable

pytest.importorskip("onnxscript", reason="ONNX export needs onnx and onnxscript (pip install 'enos-dse[onnx]')")


class Net(nn.Module):
    """A convolution that sees signed inputs, a grouped and a depth-wise one behind ReLU, shuffle, concat, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.grouped = nn.Conv2d(6, 6, 1, groups=3)
        self.shuffle = ChannelShuffle(3)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        y = self.depthwise(torch.relu(self.shuffle(self.grouped(x))))
        return self.fc(
            torch.cat([nn.functional.avg_pool2d(x, 3, 2, 1), nn.functional.max_pool2d(y, 2)], 1).mean((2, 3))
        )


LAYERS = ("conv", "grouped", "depthwise", "fc")
INPUT = (1, 3, 8, 8)


def trained(make_table: Any, assignment: dict[str, str]) -> nn.Module:  # type: ignore[no-untyped-def]
    """A discretised network that has seen some batches."""
    torch.manual_seed(0)
    network = Net()
    table = make_table(Network("net", network, INPUT), "operators_extended")
    fixed = searchable(network, table, operators="operators_extended").discretise(assignment)
    for _ in range(3):
        fixed(torch.randn(16, 3, 8, 8))
    return fixed.eval()


def assigned(*candidates: str) -> dict[str, str]:
    return dict(zip(LAYERS, candidates, strict=True))


@pytest.mark.parametrize(
    "assignment",
    [
        assigned("T8", "T4", "T2", "T8"),
        assigned("MF8", "MF4", "MF2", "MF4"),
        assigned("BC8", "BC4", "BC2", "T2"),
        assigned("DS8", "DS4", "DS2", "DS8"),
        assigned("XN1", "XN1", "XN1", "XN1"),
    ],
    ids=["T", "MF", "BC", "DS", "XN"],
)
def test_onnxruntime_gives_torchs_scores(tmp_path: Path, make_table: Any, assignment: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime", reason="the check of ONNX files needs onnxruntime")
    fixed = trained(make_table, assignment)
    path = tmp_path / "net.onnx"
    write_onnx(fixed, assignment, INPUT, path)

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert json.loads({p.key: p.value for p in model.metadata_props}[ASSIGNMENT_KEY]) == assignment
    levels = runtime.GraphOptimizationLevel
    for batch in (1, 7):  # the batch size is free
        x = torch.randn(batch, 3, 8, 8)
        with torch.no_grad():
            expected = fixed(x)
        for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL):
            options = runtime.SessionOptions()
            options.graph_optimization_level = level
            options.intra_op_num_threads = 1
            session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            (scores,) = session.run(["scores"], {"images": x.numpy()})
            torch.testing.assert_close(torch.from_numpy(scores), expected, rtol=1e-4, atol=1e-5)
    assert expected.std(0).min() > 0.01  # the scores tell the images apart, so agreement says something


def test_weights_of_deep_shift_are_stored_in_16_bits_where_they_need_them(tmp_path: Path, make_table: Any) -> None:  # type: ignore[no-untyped-def]
    onnx = pytest.importorskip("onnx")
    assignment = assigned("DS8", "DS2", "XN1", "T8")
    write_onnx(trained(make_table, assignment), assignment, INPUT, tmp_path / "net.onnx")
    graph = onnx.load(tmp_path / "net.onnx").graph
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    words = [stored[makers[n.input[1]].input[0]] for n in graph.node if n.op_type == "Conv"]
    shifts, short, binary = words
    assert [w.dtype.name for w in words] == ["int16", "int8", "int8"]
    assert abs(shifts).max() == 128 and set(abs(shifts).flatten()) <= {2**i for i in range(8)}
    assert set(abs(short).flatten()) <= {1, 2} and set(binary.flatten()) == {-1, 1}


def test_every_layer_reads_dequantised_words_and_its_weights_are_int8(tmp_path: Path, make_table: Any) -> None:  # type: ignore[no-untyped-def]
    onnx = pytest.importorskip("onnx")
    assignment = assigned("T8", "MF4", "BC2", "T4")
    write_onnx(trained(make_table, assignment), assignment, INPUT, tmp_path / "net.onnx")
    graph = onnx.load(tmp_path / "net.onnx").graph
    makers = {output: node for node in graph.node for output in node.output}
    stored = {i.name: i for i in graph.initializer}

    def source(name: str, *through: str) -> str:
        """Operator that computes a value, looking through some others."""
        node = makers[name]
        return source(node.input[0], *through) if node.op_type in through else node.op_type

    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 4  # MF4 is two
    for node in convolutions:
        assert makers[node.input[0]].op_type == "DequantizeLinear"
        assert source(makers[node.input[0]].input[0], "Sign", "Abs") == "QuantizeLinear"
        weight = makers[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert stored[weight.input[0]].data_type == onnx.TensorProto.INT8
    read = {makers[makers[n.input[0]].input[0]].op_type for n in convolutions}
    assert read == {"QuantizeLinear", "Sign", "Abs"}  # of integers
    quantisers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantisers) == 4
    binary = next(n for n in convolutions if {a.name: a.i for a in n.attribute}["group"] == 6)
    words = onnx.numpy_helper.to_array(stored[makers[binary.input[1]].input[0]])
    assert set(words.flatten().tolist()) == {-1, 1}


def test_the_network_itself_stays_as_it_is(make_table: Any) -> None:  # type: ignore[no-untyped-def]
    fixed = trained(make_table, assigned("T8", "MF4", "BC2", "T4")).train()
    layers = quantised_layers(fixed)
    assert fixed.training and sum(isinstance(m, MixedLayer) for m in fixed.modules()) == 4
    assert not any(isinstance(m, MixedLayer) for m in layers.modules())
    assert {layer.name for layer in export_network(Network("net", Net(), INPUT)).layers} == set(LAYERS)


def test_a_missing_package_is_one_line(tmp_path: Path, make_table: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    assignment = assigned("T8", "T8", "T8", "T8")
    fixed = trained(make_table, assignment)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"needs the package onnxscript; pip install 'enos-dse\[onnx\]'"):
        write_onnx(fixed, assignment, INPUT, tmp_path / "net.onnx")


def test_what_is_not_discretised_or_cannot_be_written_is_one_line(tmp_path: Path, make_table: Any) -> None:
    with pytest.raises(InputError, match=r"^network: has no layer with a candidate"):
        write_onnx(Net(), {}, INPUT, tmp_path / "x.onnx")
    assignment = assigned("T8", "T4", "T8", "T8")
    with pytest.raises(InputError, match=r"no/x\.onnx"):
        write_onnx(trained(make_table, assignment), assignment, INPUT, str(tmp_path / "no" / "x.onnx"))


@pytest.mark.parametrize(
    ("first", "second", "shape"),
    [
        (lambda: nn.Linear(8, 8), lambda: nn.Linear(8, 4), (6, 8)),
        (lambda: nn.Conv2d(3, 8, 3), lambda: nn.Conv2d(8, 4, 3), (4, 3, 8, 8)),
        (lambda: nn.Conv1d(3, 8, 3), lambda: nn.ConvTranspose1d(8, 4, 3), (4, 3, 16)),
        (lambda: nn.ConvTranspose2d(3, 8, 3), lambda: nn.Conv2d(8, 4, 3), (4, 3, 8, 8)),
    ],
)
def test_onnxruntimes_optimisation_leaves_biases_as_they_are(
    first: Any, second: Any, shape: tuple[int, ...], tmp_path: Path, make_table: Any
) -> None:
    """It rounds the bias of a product of words to multiples of the steps, which are large for words of two bits."""
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    network, x = nn.Sequential(first(), nn.ReLU(), second()), torch.randn(shape)
    model = searchable(network, make_table(Network("net", network, (1, *shape[1:]))))
    model(x)
    assignment = {"0": "T2", "2": "T8"}
    fixed = model.eval().discretise(assignment)
    write_onnx(fixed, assignment, shape, tmp_path / "net.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    (found,) = onnxruntime.InferenceSession(tmp_path / "net.onnx", options).run(None, {"images": x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), fixed(x), rtol=1e-4, atol=1e-5)


def test_a_file_names_the_macros_of_layers_in_memory(tmp_path: Path, make_table: Any) -> None:
    onnx = pytest.importorskip("onnx")
    assignment = assigned("T8", "MF4", "BC4", "T2")
    fixed = trained(make_table, assignment)
    layer = fixed.get_submodule("grouped")
    assert isinstance(layer, MixedLayer)
    layer.candidates = (replace(layer.candidates[0], mode="cim", macro=Macro(31, 4, 31)),)
    write_onnx(fixed, assignment, INPUT, tmp_path / "net.onnx")
    data = {p.key: p.value for p in onnx.load(tmp_path / "net.onnx").metadata_props}
    assert json.loads(data[MACROS_KEY]) == {"grouped": {"mode": "cim", "rows": 31, "adc_bits": 4, "full_scale": 31}}
