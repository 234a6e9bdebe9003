"""`enos cost` as users type it: assignments and quantised ONNX files, against the table's own totals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dse.table.cost_table import CostTable
from dse.workload.layers import Layer, Workload, write_workload

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

LAYERS = ("first", "second", "third")


@pytest.fixture
def table(tmp_path: Path, run: Any, own_store: Path, quick: None) -> Path:
    """A table of three linear layers of different sizes."""
    sizes = ((8, 16), (16, 32), (32, 4))
    layers = tuple(
        Layer(name, "linear", {"N": 2, "G": 1, "C": c, "M": m, "P": 1, "Q": 1, "R": 1, "S": 1})
        for name, (c, m) in zip(LAYERS, sizes, strict=True)
    )
    write_workload(Workload("net", layers, (2, 8)), tmp_path / "net.yaml")
    path = tmp_path / "table.csv"
    code, _, err = run("map", tmp_path / "net.yaml", "--output", path, "--jobs", 1)
    assert code == 0, err
    return path


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document) if path.suffix == ".json" else yaml.safe_dump(document))
    return path


def cost(run: Any, *arguments: Any) -> dict[str, Any]:
    code, out, err = run("cost", *arguments, "--json")
    assert code == 0, err
    document: dict[str, Any] = json.loads(out)
    return document


def refused(run: Any, *arguments: Any) -> str:
    code, out, err = run("cost", *arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1
    return str(err)


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_an_assignment_has_the_totals_of_the_table(suffix: str, table: Path, tmp_path: Path, run: Any) -> None:
    chosen = {"first": "T8", "second": "BC4", "third": "T2"}
    found = cost(run, table, "--assignment", write(tmp_path / f"a{suffix}", chosen))
    costs = CostTable.load(table)
    assert found["assignment"] == chosen
    assert found["networks"]["as it is"]["energy_pj"] == pytest.approx(costs.total_pj(chosen), rel=1e-12)
    for candidate in costs.candidates:
        uniform = found["networks"][f"all {candidate}"]
        assert uniform["energy_pj"] == pytest.approx(costs.total_pj(dict.fromkeys(LAYERS, candidate)), rel=1e-12)
    assert found["networks"]["as it is"]["cycles"] == sum(costs.row(n, c)["cycles"] for n, c in chosen.items())
    # Words of 8 bits in the first layer, of 1 bit in the second, of 2 bits in the third.
    assert found["networks"]["as it is"]["weight_bytes"] == (8 * 16 * 8 + 16 * 32 * 1 + 32 * 4 * 2) // 8
    assert sum(found["levels_pj"].values()) == pytest.approx(costs.total_pj(chosen))
    groups = {g["candidate"]: (g["layers"], g["operations"]) for g in found["candidates"]}
    assert groups == {"T8": (1, 2 * 8 * 16), "T2": (1, 2 * 32 * 4), "BC4": (1, 2 * 16 * 32)}


def test_the_text_has_the_network_beside_the_uniform_ones(table: Path, tmp_path: Path, run: Any) -> None:
    file = write(tmp_path / "a.yaml", dict.fromkeys(LAYERS, "T8"))
    code, out, err = run("cost", table, "--assignment", file, "--clock", "200MHz")
    assert code == 0, err
    rows = {line.split("  ")[0]: line for line in out.splitlines()}
    assert out.startswith("net: 3 layers, 1,536 operations\n")
    assert rows["as it is"].split()[3:] == rows["all T8"].split()[2:] and rows["all T8"].split()[3] == "1.000"
    assert rows["all T4"].split()[2:] != rows["all T8"].split()[2:]
    assert "Time at 200 MHz" in out and "Energy of the network as it is by level, uJ: compute" in out


def test_what_does_not_fit_the_table_is_one_line(table: Path, tmp_path: Path, run: Any) -> None:
    file = tmp_path / "a.yaml"
    write(file, {"first": "T8"})
    expected = "has no candidate for 2 layers: second, third; --default T8 gives them one"
    assert expected in refused(run, table, "--assignment", file)
    assert cost(run, table, "--assignment", file, "--default", "T4")["assignment"]["third"] == "T4"
    assert "--default: unknown candidate 'X'" in refused(run, table, "--assignment", file, "--default", "X")
    write(file, {"first": "T8", "fourth": "T8"})
    assert "the table lacks layer fourth" in refused(run, table, "--assignment", file)
    write(file, {"first": "T9"})
    assert "a.yaml: first: unknown candidate 'T9'" in refused(run, table, "--assignment", file)
    documents: tuple[Any, ...] = ([], {}, "text", {"first": 8}, {"first": True})
    for document in documents:
        write(file, document)
        assert "a.yaml" in refused(run, table, "--assignment", file)
    assert "--input: goes with an ONNX file only" in refused(run, table, "--assignment", file, "--input", "1,2")


def weight(name: str, shape: tuple[int, int], kind: int) -> Any:
    return helper.make_tensor(name, kind, shape, np.ones(shape, np.int8).reshape(-1).tolist())


def quantised(path: Path, names: Sequence[str] = LAYERS, metadata: dict[str, str] | None = None) -> Path:
    """QDQ of int8, QDQ of int4 words with 8-bit inputs, and QONNX of 4 bits."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w1", "s"], ["w1d"]),
        helper.make_node("MatMul", ["xd", "w1d"], ["y1"], name=names[0]),
        helper.make_node("QuantizeLinear", ["y1", "s", "z"], ["y1q"]),
        helper.make_node("DequantizeLinear", ["y1q", "s", "z"], ["y1d"]),
        helper.make_node("Relu", ["y1d"], ["r1"]),
        helper.make_node("DequantizeLinear", ["w2", "s"], ["w2d"]),
        helper.make_node("MatMul", ["r1", "w2d"], ["y2"], name=names[1]),
        helper.make_node("Quant", ["y2", "s", "o", "four"], ["y2q"], domain="qonnx.custom_op.general"),
        helper.make_node("Quant", ["w3", "s", "o", "four"], ["w3q"], domain="qonnx.custom_op.general"),
        helper.make_node("MatMul", ["y2q", "w3q"], ["y"], name=names[2]),
    ]
    constants = [
        weight("w1", (8, 16), TensorProto.INT8), weight("w2", (16, 32), TensorProto.INT4),
        numpy_helper.from_array(np.ones((32, 4), np.float32), "w3"),
        numpy_helper.from_array(np.array(0.5, np.float32), "s"), numpy_helper.from_array(np.array(0, np.int8), "z"),
        numpy_helper.from_array(np.array(0, np.float32), "o"), numpy_helper.from_array(np.array(4, np.float32), "four"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])], constants,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("qonnx.custom_op.general", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def test_a_quantised_file_gives_the_typical_candidates_of_its_widths(table: Path, tmp_path: Path, run: Any) -> None:
    file = quantised(tmp_path / "q.onnx")
    found = cost(run, table, "--assignment", file, "--input", "x=2,8")
    assert found["assignment"] == {"first": "T8", "second": "T8", "third": "T4"}
    assert found["remarks"] == ["The next wider candidate was taken for second (w4 a8) as T8."]
    assert "has inputs with free axes" in refused(run, table, "--assignment", file)


def test_layers_of_other_names_are_matched_by_order_and_shape(table: Path, tmp_path: Path, run: Any) -> None:
    file = quantised(tmp_path / "q.onnx", ("a", "b", "c"))
    found = cost(run, table, "--assignment", file, "--input", "2,8")
    assert found["assignment"] == {"first": "T8", "second": "T8", "third": "T4"}
    assert found["remarks"][0].startswith("The layers of the file have other names")
    # With another batch, the shapes are others.
    assert "the table lacks 3 layers: a, b, c" in refused(run, table, "--assignment", file, "--input", "3,8")


def test_a_layer_that_is_not_quantised_needs_the_default(table: Path, tmp_path: Path, run: Any) -> None:
    model = onnx.load(quantised(tmp_path / "q.onnx"))
    for node in model.graph.node:
        if node.name == "first":
            node.input[0] = "x"
        if node.name == "third":
            node.input[0], node.input[1] = "y2", "w3"
    onnx.save(model, tmp_path / "q.onnx")
    given = (table, "--assignment", tmp_path / "q.onnx", "--input", "2,8")
    error = refused(run, *given)
    assert "no candidate for 2 layers: first, third (not quantised; only one factor is: w8 a-); --default" in error
    assert cost(run, *given, "--default", "T2")["assignment"] == {"first": "T2", "second": "T8", "third": "T2"}


def test_words_of_one_bit_and_words_that_are_clipped(table: Path, tmp_path: Path, run: Any) -> None:
    model = onnx.load(quantised(tmp_path / "q.onnx"))
    nodes = list(model.graph.node)
    clip = helper.make_node("Clip", ["w1", "low", "high"], ["w1c"])
    narrow = helper.make_node("Clip", ["xq", "low", "high"], ["xc"])
    nodes[1].input[0], nodes[2].input[0] = "xc", "w1c"  # 4-bit words in int8
    bipolar = helper.make_node("BipolarQuant", ["w3", "s"], ["w3q"], domain="qonnx.custom_op.general")
    del model.graph.node[:]
    model.graph.node.extend([nodes[0], narrow, nodes[1], clip, *nodes[2:10], bipolar, nodes[11]])
    for name, value in (("low", -8), ("high", 7)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int8), name))
    onnx.save(model, tmp_path / "q.onnx")
    found = cost(run, table, "--assignment", tmp_path / "q.onnx", "--input", "2,8")
    assert found["assignment"] == {"first": "T4", "second": "T8", "third": "BC4"}


def test_the_file_of_a_found_network_names_its_candidates(table: Path, tmp_path: Path, run: Any) -> None:
    chosen = {"first": "MF4", "second": "BC2", "third": "T8"}
    file = quantised(tmp_path / "q.onnx", metadata={"enos.assignment": json.dumps(chosen)})
    assert cost(run, table, "--assignment", file)["assignment"] == chosen
    quantised(file, metadata={"enos.assignment": "[1]"})
    assert "metadata enos.assignment: is no assignment" in refused(run, table, "--assignment", file)


def test_an_exported_file_is_mapped_and_costed(tmp_path: Path, run: Any, own_store: Path, quick: None) -> None:
    file, workload, output = quantised(tmp_path / "q.onnx"), tmp_path / "w.yaml", tmp_path / "t.csv"
    code, out, err = run("export", file, "--input", "x=1,8", "--output", workload)
    assert code == 0 and out.endswith("w.yaml: 3 layers, 768 MACs\n"), err
    assert run("map", workload, "--output", output, "--jobs", 1)[0] == 0
    assert cost(run, output, "--assignment", file, "--input", "1,8")["assignment"]["third"] == "T4"
    for option, value in (("--arg", "width=1"), ("--inputs", "module:factory")):
        code, _, err = run("export", file, option, value, "--output", workload)
        assert code == 2 and f"{option}: does not go with an ONNX file" in err
