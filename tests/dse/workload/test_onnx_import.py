"""ONNX files against the torch modules that they were made of, and against runs of onnxruntime."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from dse.core.errors import InputError
from dse.workload.export import export_network
from dse.workload.layers import Layer, Workload
from dse.workload.networks import Network

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from dse.workload.onnx_import import import_onnx, read_onnx, torch_owner  # noqa: E402


def write_torch(module: nn.Module, example: torch.Tensor, path: Path, new: bool, **options: Any) -> Path:
    """The file of one of torch's two exporters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if new:
            torch.onnx.export(module.eval(), (example,), path, dynamo=True, verbose=False, **options)
        else:
            torch.onnx.export(module.eval(), (example,), path, dynamo=False, **options)
    return path


def of_torch(module: nn.Module, example: torch.Tensor) -> Workload:
    return export_network(Network("net", module, (), lambda _: ((example,), {})))


def shown(workload: Workload) -> list[tuple[str, str, dict[str, int]]]:
    return [(layer.name, layer.kind, dict(layer.instance)) for layer in workload.layers]


class Attention(nn.Module):
    """The parts of a vision transformer, with a class token and a lookup."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.attn, self.head = nn.Conv2d(3, 16, 4, 4), nn.MultiheadAttention(16, 4), nn.Linear(16, 5)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(len(y), -1, -1), y], 1).transpose(0, 1)
        result: torch.Tensor = self.head(self.attn(y, y, y)[0][0])
        return result


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(50, 8), nn.Linear(8, 50, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.words(ids))
        return result


class Recurrent(nn.Module):
    def __init__(self, kind: Any, layers: int, bidirectional: bool) -> None:
        super().__init__()
        self.rnn, self.fc = kind(4, 6, layers, bidirectional=bidirectional), nn.Linear(6 * (1 + bidirectional), 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.fc(self.rnn(x)[0])
        return result


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=2, dilation=2), nn.Conv2d(8, 8, (1, 3), groups=8, padding="same"),
        nn.ConvTranspose2d(8, 4, 3, stride=2, groups=2, output_padding=1), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(16, 4),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Any, torch.Tensor]] = {
    "convolutions": (convolutions, torch.rand(2, 3, 16, 16)),
    "one axis": (lambda: nn.Sequential(nn.Conv1d(2, 4, 3, stride=2), nn.ConvTranspose1d(4, 2, 2)), torch.rand(1, 2, 9)),
    "volumes": (lambda: nn.Sequential(nn.Conv3d(2, 4, 3, stride=(1, 2, 2)), nn.ConvTranspose3d(4, 2, 2)),
                torch.rand(1, 2, 5, 6, 7)),
    "attention": (Attention, torch.rand(2, 3, 8, 8)),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.rand(1, 5, 8)),
    "text": (Text, torch.zeros(1, 7, dtype=torch.int64)),
    "lstm": (lambda: Recurrent(nn.LSTM, 2, True), torch.rand(3, 2, 4)),
    "gru": (lambda: Recurrent(nn.GRU, 1, False), torch.rand(3, 2, 4)),
    "rnn": (lambda: Recurrent(nn.RNN, 1, True), torch.rand(3, 2, 4)),
}  # fmt: skip


@pytest.mark.parametrize("new", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_of_torch_has_the_layers_of_its_module(name: str, new: bool, tmp_path: Path) -> None:
    make, example = NETWORKS[name]
    if name == "encoder" and not new:
        pytest.skip("torch's older exporter does not take it")
    if name == "rnn" and new:
        pytest.skip("torch's newer exporter writes single products, and computes that with the zero state itself")
    module = make()
    found = import_onnx(write_torch(module, example, tmp_path / "net.onnx", new))
    of_module = of_torch(module, example)
    assert shown(found) == shown(of_module)
    images = [layer.image for layer in found.layers]
    assert all(image in ({}, layer.image) for image, layer in zip(images, of_module.layers, strict=True))
    assert any(images) == any(layer.kind == "conv" for layer in found.layers)
    assert found.input_shape == tuple(example.shape)


def model(nodes: Sequence[Any], inputs: dict[str, Any], weights: dict[str, Any] | None = None,
          outputs: Sequence[str] = ("y",), opset: int = 20, **options: Any) -> Any:  # fmt: skip
    """A model of these nodes; inputs are float tensors, or int64 if the shape is followed by "int"."""
    entries = []
    for name, shape in inputs.items():
        whole = shape[-1] == "int" if shape else False
        kind = TensorProto.INT64 if whole else TensorProto.FLOAT
        entries.append(helper.make_tensor_value_info(name, kind, shape[:-1] if whole else shape))
    arrays = {name: a if isinstance(a, np.ndarray) else np.zeros(a, np.float32) for name, a in (weights or {}).items()}
    graph = helper.make_graph(
        nodes, "net", entries, [helper.make_value_info(name, onnx.TypeProto()) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=[*opsets, *options.pop("opsets", ())], **options)


def read(tmp_path: Path, made: Any, *inputs: str) -> Workload:
    onnx.save(made, tmp_path / "model.onnx")
    return import_onnx(tmp_path / "model.onnx", inputs)


def node(operator: str, inputs: Sequence[str], output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(operator, inputs, [output], **attributes)


def linear(rows: int, inner: int, columns: int, groups: int = 1) -> dict[str, int]:
    return {"N": rows, "G": groups, "C": inner, "M": columns, "P": 1, "Q": 1, "R": 1, "S": 1}


@pytest.mark.parametrize(("operator", "inputs", "attributes"), [
    ("MatMulInteger", ["x", "w"], {}),
    ("QLinearMatMul", ["x", "s", "z", "w", "s", "z", "s", "z"], {}),
])  # fmt: skip
def test_integer_products_are_layers(operator: str, inputs: list[str], attributes: Any, tmp_path: Path) -> None:
    weights = {"w": np.zeros((8, 4), np.int8), "s": np.array(1, np.float32), "z": np.array(0, np.int8)}
    made = model([node("QuantizeLinear", ["f", "s", "z"], "x"), node(operator, inputs, name="n", **attributes)],
                 {"f": [3, 8]}, weights)  # fmt: skip
    assert shown(read(tmp_path, made)) == [("n", "linear", linear(3, 8, 4))]


def test_integer_convolutions_and_weights_through_dequantisers(tmp_path: Path) -> None:
    weights = {"conv.weight_quantized": np.zeros((4, 2, 3, 3), np.int8), "s": np.array(1, np.float32),
               "z": np.array(0, np.int8)}  # fmt: skip
    quantised = node("QuantizeLinear", ["x", "s", "z"], "q")
    instance = {"N": 1, "G": 1, "C": 2, "M": 4, "P": 4, "Q": 4, "R": 3, "S": 3}
    integer = node("ConvInteger", ["q", "conv.weight_quantized"])
    assert shown(read(tmp_path, model([quantised, integer], {"x": [1, 2, 6, 6]}, weights))) == [
        ("conv", "conv", instance)
    ]
    linear_one = node("QLinearConv", ["q", "s", "z", "conv.weight_quantized", "s", "z", "s", "z"])
    assert shown(read(tmp_path, model([quantised, linear_one], {"x": [1, 2, 6, 6]}, weights))) == [
        ("conv", "conv", instance)
    ]
    nodes = [quantised, node("DequantizeLinear", ["q", "s", "z"], "d"),
             node("DequantizeLinear", ["conv.weight_quantized", "s", "z"], "w"),
             node("Conv", ["d", "w"], auto_pad="SAME_UPPER", strides=[2, 2])]  # fmt: skip
    (found,) = read(tmp_path, model(nodes, {"x": [1, 2, 6, 6]}, weights)).layers
    assert (found.name, found.instance) == ("conv", instance | {"P": 3, "Q": 3, "Hstride": 2, "Wstride": 2})
    assert found.image == {}  # more zeros on one side than on the other


@pytest.mark.parametrize(("equation", "data", "weights", "expected"), [
    ("bij,jk->bik", [2, 3, 4], [4, 5], ("linear", linear(6, 4, 5))),
    ("...j,jk->...k", [2, 3, 4], [4, 5], ("linear", linear(6, 4, 5))),
    ("bhi,hij->bhj", [2, 3, 4], [3, 4, 5], ("linear", linear(2, 4, 5, 3))),
    ("bi,i->b", [2, 4], [4], ("linear", linear(2, 4, 1))),
    ("bij,bjk->bik", [2, 3, 4], None, ("matmul", {"N": 3, "G": 2, "C": 4, "M": 5})),
    ("bij,bjk", [2, 3, 4], None, ("matmul", {"N": 3, "G": 1, "C": 8, "M": 5})),  # what is there twice is summed
    ("bi,i->bi", [2, 4], [4], None),
])  # fmt: skip
def test_einsum(equation: str, data: Any, weights: Any, expected: Any, tmp_path: Path) -> None:
    inputs = {"x": data} if weights else {"x": data, "z": [2, 4, 5]}
    nodes = [node("Einsum", ["x", "w" if weights else "z"], name="n", equation=equation)]
    made = model(nodes, inputs, {"w": weights} if weights else {})
    if expected is None:
        with pytest.raises(InputError, match="has no layer for the MAC array"):
            read(tmp_path, made)
        return
    assert shown(read(tmp_path, made)) == [("n", *expected)]


@pytest.mark.parametrize(("left", "right", "expected"), [
    ([2, 3, 4], None, ("linear", linear(6, 4, 5))),
    (None, [2, 4, 5], ("linear", linear(10, 4, 3))),  # constant rows: (3, 4) x (2, 4, 5)
    ([2, 1, 3, 4], [1, 7, 4, 5], ("matmul", {"N": 3, "G": 14, "C": 4, "M": 5})),
    ([4], [4, 5], ("matmul", {"N": 1, "G": 1, "C": 4, "M": 5})),
    ([2, 3, 4], [4], ("matmul", {"N": 6, "G": 1, "C": 4, "M": 1})),
])  # fmt: skip
def test_products_of_matrices_broadcast_as_in_numpy(left: Any, right: Any, expected: Any, tmp_path: Path) -> None:
    inputs = {name: shape for name, shape in (("a", left), ("b", right)) if shape}
    weights = {"a": [3, 4]} if left is None else {"b": [4, 5]} if right is None else {}
    assert shown(read(tmp_path, model([node("MatMul", ["a", "b"], name="n")], inputs, weights))) == [("n", *expected)]


def test_gemm_with_both_factors_transposed(tmp_path: Path) -> None:
    made = model([node("Gemm", ["x", "w"], name="n", transA=1, transB=1)], {"x": [8, 3]}, {"w": [4, 8]})
    assert shown(read(tmp_path, made)) == [("n", "linear", linear(3, 8, 4))]


def test_products_by_broadcasting(tmp_path: Path) -> None:
    weights = {"w": [4, 5], "axes": np.array([1]), "scale": [1, 4, 1]}
    nodes = [node("Mul", ["x", "w"], "p"), node("ReduceSum", ["p", "axes"], name="n", keepdims=0)]
    assert shown(read(tmp_path, model(nodes, {"x": [2, 4, 1]}, weights))) == [("n", "linear", linear(2, 4, 5))]
    nodes = [node("Mul", ["x", "w"], "p"), node("Flatten", ["p"], "f"), node("ReduceSum", ["f", "axes"])]
    with pytest.raises(InputError, match="sums, in another shape, what 'p' multiplied by w"):
        read(tmp_path, model(nodes, {"x": [2, 4, 1]}, weights))


def test_fused_attention_of_onnx_and_of_onnxruntime(tmp_path: Path) -> None:
    scores, mixed = {"N": 5, "G": 8, "C": 4, "M": 7}, {"N": 5, "G": 8, "C": 7, "M": 6}
    shapes = {"q": [2, 4, 5, 4], "k": [2, 4, 7, 4], "v": [2, 4, 7, 6]}
    made = model([node("Attention", ["q", "k", "v"], name="n")], shapes, opset=23)
    assert shown(read(tmp_path, made)) == [("n.matmul_1", "matmul", scores), ("n.matmul_2", "matmul", mixed)]
    shapes = {"q": [2, 5, 16], "k": [2, 7, 16], "v": [2, 7, 24]}
    fused = node("MultiHeadAttention", ["q", "k", "v"], name="n", domain="com.microsoft", num_heads=4)
    assert shown(read(tmp_path, model([fused], shapes)))[1] == ("n.matmul_2", "matmul", mixed)
    fused = node("Attention", ["x", "w", "b"], name="n", domain="com.microsoft", num_heads=4)
    found = read(tmp_path, model([fused], {"x": [2, 5, 16]}, {"w": [16, 48], "b": [48]}))
    assert shown(found)[0] == ("n", "linear", linear(10, 16, 48))
    assert found.macs == 10 * 16 * 48 + 2 * (2 * 4 * 5 * 5 * 4)


def test_onnxruntimes_packed_weights(tmp_path: Path) -> None:
    packed = node("MatMulNBits", ["x", "fc.weight_Q4", "s"], domain="com.microsoft", K=32, N=4, bits=4, block_size=32)
    made = model([packed], {"x": [2, 3, 32]}, {"fc.weight_Q4": np.zeros((4, 1, 16), np.uint8), "s": [4]})
    assert shown(read(tmp_path, made)) == [("fc", "linear", linear(6, 32, 4))]


def body(operator: str, *, weights: bool = True) -> Any:
    """One step of a loop: the state times weights."""
    inner = node("MatMul", ["s", "w"], "t", name="step") if weights else node("Relu", ["s"], "t")
    state = helper.make_tensor_value_info("s", TensorProto.FLOAT, [3, 4])
    result = helper.make_tensor_value_info("t", TensorProto.FLOAT, [3, 4])
    if operator == "Scan":
        part, kept = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("p", "r"))
        return helper.make_graph([inner, node("Relu", ["p"], "r")], "body", [state, part], [result, kept])
    first, going = (helper.make_tensor_value_info("i", TensorProto.INT64, []),
                    helper.make_tensor_value_info("c", TensorProto.BOOL, []))  # fmt: skip
    on = helper.make_tensor_value_info("d", TensorProto.BOOL, [])
    return helper.make_graph([inner, node("Identity", ["c"], "d")], "body", [first, going, state], [on, result])


def test_loops_are_counted_step_by_step(tmp_path: Path) -> None:
    weights = {"w": [4, 4], "n": np.array(3)}
    loop = helper.make_node("Loop", ["n", "", "x"], ["y"], body=body("Loop"))
    found = read(tmp_path, model([loop], {"x": [3, 4]}, weights))
    assert shown(found) == [(name, "linear", linear(3, 4, 4)) for name in ("step", "step#2", "step#3")]
    scan = helper.make_node("Scan", ["x", "z"], ["y", "r"], body=body("Scan"), num_scan_inputs=1)
    assert len(read(tmp_path, model([scan], {"x": [3, 4], "z": [5, 2]}, weights)).layers) == 5


def test_a_loop_of_unknown_length_is_refused_if_it_has_products(tmp_path: Path) -> None:
    head = node("MatMul", ["x", "w"], "h", name="head")
    for inner in (True, False):
        loop = helper.make_node("Loop", ["n", "", "h"], ["y"], name="L", body=body("Loop", weights=inner))
        made = model([head, loop], {"x": [3, 4], "n": ["int"]}, {"w": [4, 4]})
        if inner:
            with pytest.raises(
                InputError, match="Loop 'L': nobody knows how often its body runs, and it has MatMul 'step'"
            ):
                read(tmp_path, made)
        else:
            assert [layer.name for layer in read(tmp_path, made).layers] == ["head"]


def test_a_branch_is_chosen_where_its_condition_is_known(tmp_path: Path) -> None:
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [3, 4])
    then = helper.make_graph([node("MatMul", ["x", "w"], "o", name="then")], "then", [], [out])
    other = helper.make_graph([node("Relu", ["x"], "o")], "else", [], [out])
    branch = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=then, else_branch=other)
    known = [node("Shape", ["x"], "s"), node("Gather", ["s", "zero"], "rows"), node("Equal", ["rows", "three"], "c")]
    weights = {"w": [4, 4], "zero": np.array(0), "three": np.array(3)}
    assert [layer.name for layer in read(tmp_path, model([*known, branch], {"x": [3, 4]}, weights)).layers] == ["then"]
    unknown = [node("ReduceMax", ["x"], "m", keepdims=0), node("Greater", ["m", "limit"], "c")]
    made = model([*unknown, branch], {"x": [3, 4]}, {"w": [4, 4], "limit": np.array(0, np.float32)})
    with pytest.raises(InputError, match="If 'choice': nobody knows which branch runs, and it has MatMul 'then'"):
        read(tmp_path, made)


def test_functions_of_the_file_are_taken_apart(tmp_path: Path) -> None:
    inner = [node("MatMul", ["a", "b"], "m"), node("Relu", ["m"], "c")]
    function = helper.make_function("mine", "Layer", ["a", "b"], ["c"], inner, [helper.make_opsetid("", 20)])
    made = model([node("Layer", ["x", "fc.weight"], domain="mine")], {"x": [3, 8]}, {"fc.weight": [8, 4]},
                 functions=[function], opsets=[helper.make_opsetid("mine", 1)])  # fmt: skip
    assert shown(read(tmp_path, made)) == [("fc", "linear", linear(3, 8, 4))]


@pytest.mark.parametrize(("nodes", "message"), [
    ([node("DeformConv", ["x", "w", "offsets"], name="D")], "DeformConv 'D': operator DeformConv is unknown here"),
    ([node("Secret", ["x", "w"], name="S", domain="my.library")], "Secret 'S': operator my.library.Secret is unknown"),
    ([node("Relu", ["x"])], "has no layer for the MAC array"),
    ([node("Conv", ["x", "v"], name="C")], "Conv 'C': its shapes do not fit"),
    ([node("Relu", ["nothing"])], "reads 'nothing', which nothing computes"),
    ([node("NonZero", ["x"], "n"), node("Cast", ["n"], "f", to=1), node("MatMul", ["f", "v"], name="M")],
     "MatMul 'M': the shape of its .* depends on the values of inputs"),
])  # fmt: skip
def test_what_cannot_be_counted_is_refused_by_name(nodes: Any, message: str, tmp_path: Path) -> None:
    made = model(nodes, {"x": [1, 2, 6, 6]}, {"w": [4, 2, 3, 3], "v": [3, 5], "offsets": [1, 18, 4, 4]},
                 opsets=[helper.make_opsetid("my.library", 1)])  # fmt: skip
    with pytest.raises(InputError, match=message):
        read(tmp_path, made)


def test_free_axes_are_given_by_name_or_in_order(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "conv.weight"], "c"), node("Add", ["c", "z"])]
    made = model(nodes, {"x": ["batch", 2, "h", "h"], "z": ["batch", 1, 1, 1]}, {"conv.weight": [4, 2, 3, 3]})
    expected = [("conv", "conv", {"N": 3, "G": 1, "C": 2, "M": 4, "P": 6, "Q": 6, "R": 3, "S": 3})]
    assert shown(read(tmp_path, made, "x=3,2,8,8")) == shown(read(tmp_path, made, "3,2,8,8")) == expected
    for inputs, message in (
        ([], "has inputs with free axes; give numbers for the names: --input x=batch,2,h,h --input z=batch,1,1,1"),
        (["x=3,4,8,8"], r"--input x: found 3,4,8,8 \(allowed: what fits \(batch,2,h,h\)\)"),
        (["x=3,2,8"], "--input x: found 3,2,8"),
        (["y=3"], r"--input y=3: no input is named 'y'.*\(allowed: x, z\)"),
        (["x=3,2,8,8:int8"], "--input x: found the shape '3,2,8,8:int8'"),
        (["x=3,2,8,8", "x=3,2,8,8"], "--input: 'x' is given twice"),
        (["3,2,8,8", "3,1,1,1", "1"], "--input 1: is one too many"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path, made, *inputs)


def test_weights_in_other_files_are_not_read(tmp_path: Path) -> None:
    made = model([node("MatMul", ["x", "fc.weight"])], {"x": [3, 256]}, {"fc.weight": [256, 128]})
    onnx.save(made, tmp_path / "big.onnx", save_as_external_data=True, location="big.data", size_threshold=0)
    (tmp_path / "big.data").unlink()
    assert shown(import_onnx(tmp_path / "big.onnx")) == [("fc", "linear", linear(3, 256, 128))]


@pytest.mark.parametrize("content", [b"", b"version: 1\n", b"\x00\xff" * 40])
def test_another_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(InputError, match="is no ONNX file"):
        import_onnx(tmp_path / "x.onnx")


def test_passed_over_is_grouped_by_operator(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], "a", name="r1"), node("Relu", ["a"], "b", name="r2"), node("MatMul", ["b", "w"], "c"),
             node("Add", ["c", "v"])]  # fmt: skip
    found = read(tmp_path, model(nodes, {"x": [3, 4]}, {"w": [4, 4], "v": [4]}))
    assert found.passed_over == {
        "Relu": "has no weights (2 times: r1, r2)",
        "Add": "no multiply-accumulate over its parameters (y)",
    }


class Detector(nn.Module):
    """Takes its own shapes apart, as detection networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        y = self.up(F.interpolate(y, size=x.shape[-2:]) + F.interpolate(y, scale_factor=2.0))
        result: torch.Tensor = self.head(y.reshape(x.shape[0], 8, -1).transpose(1, 2))
        return result


def test_every_shape_is_that_of_a_run(tmp_path: Path) -> None:
    """Free sizes: shapes go through Shape, Gather, Concat, Reshape; each is compared with onnxruntime's."""
    runtime = pytest.importorskip("onnxruntime")
    axes = {"x": {0: "n", 2: "h", 3: "w"}}
    path = write_torch(Detector(), torch.rand(2, 3, 16, 12), tmp_path / "d.onnx", False, input_names=["x"],
                       dynamic_axes=axes)  # fmt: skip
    network = read_onnx(path, ["3,3,20,8"])
    made = onnx.load(path)
    names = [name for step in network.steps for name in step.node.output]
    made.graph.ClearField("output")
    made.graph.output.extend([helper.make_value_info(name, onnx.TypeProto()) for name in names])
    session = runtime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    results = session.run(None, {"x": np.zeros((3, 3, 20, 8), np.float32)})
    shapes = {
        name: value.shape for step in network.steps for name, value in zip(step.node.output, step.outputs, strict=True)
    }
    assert shapes == {name: result.shape for name, result in zip(names, results, strict=True)}
    assert "Resize" in {step.operator for step in network.steps}
    assert shown(network.workload) == shown(of_torch(Detector(), torch.rand(3, 3, 20, 8)))


def test_names_of_torch() -> None:
    assert torch_owner("features.0.weight") == "features.0"
    assert torch_owner("rnn.weight") == "rnn"
    assert torch_owner("fc.parametrizations.weight.original0") == "fc"
    assert torch_owner("weight") is None and torch_owner("model/conv/Kernel:0") is None


def test_without_the_package_the_message_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"")
    code = "import sys; sys.modules['onnx'] = None; from dse.cli import main; main(['export', 'x.onnx'])"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(root)}, text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: x.onnx: needs the package onnx to be read; pip install 'enos-dse[onnx]'\n"


def test_layers_are_those_of_a_workload_file(tmp_path: Path) -> None:
    from dse.workload.layers import read_workload, write_workload

    found = read(tmp_path, model([node("MatMul", ["x", "fc.weight"])], {"x": [3, 8]}, {"fc.weight": [8, 4]}))
    write_workload(found, tmp_path / "w.yaml")
    assert read_workload(tmp_path / "w.yaml").layers == (Layer("fc", "linear", linear(3, 8, 4)),)


@pytest.mark.parametrize("new", [False, True])
def test_signs_of_inputs_are_those_of_torch(tmp_path: Path, new: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Conv2d(3, 3, 1) for _ in range(3))
            self.fourth, self.fifth = nn.Conv2d(6, 3, 1), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.relu6(self.first(x))
            z = F.max_pool2d(self.second(y), 1)
            y = torch.cat([y, F.relu(self.third(z))], 1)
            y = torch.sigmoid(self.fourth(y)).mean((2, 3))
            result: torch.Tensor = self.fifth(y)
            return result

    module, example = Net(), torch.zeros(1, 3, 4, 4)
    found = import_onnx(write_torch(module, example, tmp_path / "net.onnx", new))
    assert [layer.signed for layer in found.layers] == [True, False, True, False, False]
    assert [layer.signed for layer in of_torch(module, example).layers] == [layer.signed for layer in found.layers]


@pytest.mark.parametrize("zero", [None, 0, 128])
def test_words_have_the_sign_of_their_values_where_zero_is_zero(tmp_path: Path, zero: int | None) -> None:
    arrays = {
        "words": np.full((3, 8), 7, np.uint8),
        "scale": np.array(0.1, np.float32),
        "fc.weight": np.ones((8, 4), np.float32),
    }
    if zero is not None:
        arrays["zero"] = np.array(zero, np.uint8)
    nodes = [
        helper.make_node("DequantizeLinear", ["words", "scale", *(["zero"] if zero is not None else [])], ["offset"]),
        helper.make_node("Relu", ["x"], ["positive"]),
        helper.make_node("Add", ["positive", "offset"], ["y"]),
        helper.make_node("MatMul", ["y", "fc.weight"], ["z"]),
    ]
    (layer,) = read(tmp_path, model(nodes, {"x": [3, 8]}, arrays)).layers
    assert layer.signed == (zero == 128)  # 7 - 128 steps
