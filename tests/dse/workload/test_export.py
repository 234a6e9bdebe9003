"""The exporter against torch itself: counted MACs, shapes, names, and one clear line for what cannot be exported."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from dse.core.errors import InputError
from dse.model.padding import check_padding
from dse.workload.export import export_network
from dse.workload.layers import Workload, find_workload, read_workload, write_workload
from dse.workload.networks import Network, load_network
from dse.workload.record import record


def export(module: nn.Module, *shape: int) -> Workload:
    return export_network(Network("net", module, shape))


def counted_macs(module: nn.Conv2d, x: torch.Tensor) -> int:
    """MACs by brute force: with ones everywhere and no padding, every output is its number of products."""
    with torch.no_grad():
        module.weight.fill_(1.0)
        return int(module(torch.ones_like(x)).double().sum())


@settings(max_examples=60, deadline=None)
@given(
    groups=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    batch=st.integers(1, 2),
)
def test_macs_of_a_convolution_are_counted(
    groups: Any, channels: Any, kernel: Any, stride: Any, dilation: Any, size: Any, batch: Any
) -> None:
    assume(all(d * (k - 1) < n for d, k, n in zip(dilation, kernel, size, strict=True)))
    conv = nn.Conv2d(groups * channels[0], groups * channels[1], kernel, stride, 0, dilation, groups, bias=False)
    shape = (batch, groups * channels[0], *size)
    (layer,) = export(nn.Sequential(conv), *shape).layers
    assert layer.problem.macs == counted_macs(conv, torch.zeros(shape))
    assert layer.instance.get("Hstride", 1) == stride[0] and layer.instance.get("Wdilation", 1) == dilation[1]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=30, deadline=None)
@given(
    padding=st.one_of(st.sampled_from(["same", "valid"]), st.tuples(st.integers(0, 2), st.integers(0, 2))),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_padded_convolutions_have_torchs_output_size(padding: Any, kernel: Any) -> None:
    conv = nn.Conv2d(2, 3, kernel, padding=padding)
    (layer,) = export(nn.Sequential(conv), 1, 2, 7, 6).layers
    out = conv(torch.zeros(1, 2, 7, 6))
    assert (layer.instance["P"], layer.instance["Q"]) == tuple(out.shape[2:])


@settings(max_examples=20, deadline=None)
@given(leading=st.lists(st.integers(1, 4), max_size=3), c=st.integers(1, 9), m=st.integers(1, 9))
def test_linear_folds_leading_dimensions_into_n(leading: Any, c: Any, m: Any) -> None:
    (layer,) = export(nn.Sequential(nn.Linear(c, m)), *leading, c).layers
    n = torch.Size(leading).numel()
    assert layer.kind == "linear"
    assert layer.instance == {"N": n, "G": 1, "C": c, "M": m, "P": 1, "Q": 1, "R": 1, "S": 1}


def test_depthwise_and_one_dimensional() -> None:
    depthwise, flat = export(
        nn.Sequential(nn.Conv2d(8, 16, 3, groups=8, padding=1), nn.Flatten(2), nn.Conv1d(16, 4, 5, stride=2)),
        1,
        8,
        6,
        6,
    ).layers
    assert depthwise.instance == {"N": 1, "G": 8, "C": 1, "M": 2, "P": 6, "Q": 6, "R": 3, "S": 3}
    assert flat.instance == {"N": 1, "G": 1, "C": 16, "M": 4, "P": 1, "Q": 16, "R": 1, "S": 5, "Wstride": 2}


class Fire(nn.Module):
    def __init__(self, c: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(c, squeeze, 1)
        self.expand1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1(x)), F.relu(self.expand3(x))], 1)


def squeezenet() -> nn.Module:
    """SqueezeNet 1.1's fire modules behind a CIFAR stem, pools after fire4 and fire8."""
    sizes = [(96, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128), (256, 48, 192), (384, 48, 192),
             (384, 64, 256), (512, 64, 256)]  # fmt: skip
    fires = [Fire(*s) for s in sizes]
    return nn.Sequential(nn.Conv2d(3, 96, 3, padding=1), nn.ReLU(), *fires[:3], nn.MaxPool2d(2), *fires[3:7],
                         nn.MaxPool2d(2), fires[7], nn.Conv2d(512, 10, 1), nn.AdaptiveAvgPool2d(1))  # fmt: skip


def test_squeezenet_has_26_layers_and_the_papers_fire4(tmp_path: Path) -> None:
    workload = export(squeezenet(), 1, 3, 32, 32)
    assert len(workload.layers) == 26
    assert [layer.name for layer in workload.layers[:4]] == ["0", "2.squeeze", "2.expand1", "2.expand3"]
    fire4 = sum(layer.problem.macs for layer in workload.layers if layer.name.startswith("4."))
    assert fire4 == 32 * 32 * (128 * 32 + 32 * 128 + 32 * 128 * 9)  # 46 M, Section IV of the paper
    assert workload.passed_over["relu"] == "has no weights (24 times: 2, 3, 4, ...)"
    assert workload.passed_over["MaxPool2d"] == "has no weights (2 times: 5, 10)"
    write_workload(workload, tmp_path / "squeezenet.yaml")
    assert read_workload(tmp_path / "squeezenet.yaml") == workload


def test_the_shipped_squeezenet() -> None:
    pytest.importorskip("search.networks.squeezenet", reason="the network belongs to the search half")
    workload = export_network(load_network("squeezenet"))
    fire4 = [layer.problem.macs for layer in workload.layers if "fire4" in layer.name]
    assert len(workload.layers) == 26 and len(fire4) == 3
    assert round(sum(fire4) / 1e6) == 46
    assert read_workload(find_workload("squeezenet")) == workload, "run: enos export squeezenet"


def test_a_decided_workload_keeps_its_candidates(tmp_path: Path) -> None:
    workload = export(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 1)), 1, 2, 5, 5)
    first, second = workload.layers
    decided = replace(workload, layers=(replace(first, candidate="MF4"), second))
    write_workload(decided, tmp_path / "net.yaml")
    assert read_workload(tmp_path / "net.yaml") == decided
    text = (tmp_path / "net.yaml").read_text()
    assert text.count("candidate") == 1
    (tmp_path / "net.yaml").write_text(text.replace("candidate: MF4", "candidate: 4"))
    with pytest.raises(InputError, match=r"layers\[0\].candidate: found 4 \(allowed: a text"):
        read_workload(tmp_path / "net.yaml")


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.unused = nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.conv(self.act(self.conv(x))))
        return self.unused(x) if self.training else x


def test_a_module_called_twice_gives_two_layers_and_a_training_head_none() -> None:
    module = Twice()
    workload = export(module, 1, 4, 8, 8)
    assert [(layer.name, layer.instance["P"]) for layer in workload.layers] == [("conv", 6), ("conv#2", 4)]
    assert workload.passed_over == {
        "ReLU": "has no weights (2 times: act)",
        "Conv2d": "does not run at inference (unused)",
    }
    assert module.training and module.conv.training  # left as it was


class Residual(nn.Module):
    """Parameters used one operation a value: passed over; weights prepared from parameters too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.gain = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x)) * self.gain.abs()
        return y + torch.matmul(x, x.transpose(2, 3))


def test_products_of_activations_are_layers_and_norms_and_gains_are_passed_over() -> None:
    workload = export(Residual(), 1, 4, 5, 5)
    assert [(layer.name, layer.kind) for layer in workload.layers] == [("conv", "conv"), ("matmul_1", "matmul")]
    assert workload.layers[1].instance == {"N": 5, "G": 4, "C": 5, "M": 5}
    assert workload.passed_over == {
        "BatchNorm2d": "no multiply-accumulate over its parameters (norm)",
        "abs": "prepares parameters (the network itself)",
        "mul": "no multiply-accumulate over its parameters (the network itself)",
        "add": "has no weights (the network itself)",
    }


def test_the_graph_of_a_run_has_shapes_and_edges_in_execution_order() -> None:
    graph = record(Network("net", Twice(), (2, 4, 8, 8))).graph()
    assert [data["operation"] for _, data in graph.nodes(data=True)] == ["convolution", "relu", "convolution", "relu"]
    assert graph.nodes[2]["module"] == "conv" and graph.nodes[2]["module_call"] == 1
    assert graph.nodes[2]["operands"][0].shape == (2, 4, 6, 6)
    assert graph.nodes[2]["output"] == (2, 4, 4, 4)
    assert list(graph.predecessors(2)) == [1]


class Padding(nn.Conv2d):
    """Pads by itself, as the layers of several published networks do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(x, (1, 1, 1, 1)))


class Strided(nn.Conv2d):
    """Does more than its attributes say."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(super().forward(x), scale_factor=4)


def test_what_a_subclass_does_after_its_convolution_is_no_part_of_the_layer() -> None:
    (layer,) = export(nn.Sequential(Strided(3, 4, 3)), 1, 3, 8, 8).layers
    assert layer.name == "0" and (layer.instance["P"], layer.instance["Q"]) == (6, 6)


def test_a_convolution_that_pads_its_input_itself_is_the_padded_one() -> None:
    own, built_in = (export(nn.Sequential(m), 1, 3, 8, 8) for m in (Padding(3, 4, 3), nn.Conv2d(3, 4, 3, padding=1)))
    assert own.layers[0].instance == built_in.layers[0].instance


def test_a_wrong_input_prints_its_cause_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"expected input.* to have 3 channels, but got 4 channels"):
        export(nn.Sequential(nn.Conv2d(3, 4, 3)), 1, 4, 8, 8)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3)), (1, 3, 10**12, 10**12), "does not run on an input of shape"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), (1, 4, 8, 8), "does not run on an input of shape (1, 4, 8, 8)"),
        (nn.Sequential(nn.ReLU()), (1, 4), "has no layer for the MAC array"),
    ],
)
def test_what_cannot_be_exported_is_one_line(module: Any, shape: Any, message: Any) -> None:
    with pytest.raises(InputError) as e:
        export(module, *shape)
    assert message in str(e.value) and "\n" not in str(e.value)


FACTORIES = """
import torch
from dse.workload.networks import Network
size = 3
def bare(): return torch.nn.Sequential(torch.nn.Linear(4, 2))
def full(): return Network("full", bare(), (1, 4))
def text(): return "net"
def broken(): raise KeyError("no weights")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "my_networks.py").write_text(FACTORIES)
    (tmp_path / "my_broken.py").write_text("import not_a_module_anywhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("my_networks", None)


def test_factories_of_the_working_directory_are_found(here: Any) -> None:
    assert load_network("my_networks:bare", (2, 4)).input_shape == (2, 4)
    assert load_network("my_networks:full").input_shape == (1, 4)
    assert load_network("my_networks:full", (3, 4)).input_shape == (3, 4)
    assert export_network(load_network("my_networks:full")).name == "full"


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("resnext", None, "squeezenet, vit, package.module:factory)"),
        ("nowhere_at_all:net", None, "module nowhere_at_all cannot be imported: ModuleNotFoundError"),
        ("my_broken:net", None, "cannot be imported: ModuleNotFoundError: No module named 'not_a_module_anywhere'"),
        ("my_networks:other", None, "my_networks.py) has no 'other'"),
        ("my_networks:size", None, "size is a int (allowed: a callable"),
        ("my_networks:broken", None, "broken() fails: KeyError: 'no weights'"),
        ("my_networks:text", None, "its factory returned a str"),
        ("my_networks:bare", None, "no input shape is given"),
        ("my_networks:bare", (1, 0), "input shape: found (1, 0)"),
    ],
)
def test_networks_that_cannot_be_loaded(here: Any, name: Any, shape: Any, message: Any) -> None:
    with pytest.raises(InputError) as e:
        load_network(name, shape)
    assert e.value.where.startswith("network") and name in str(e.value) and message in str(e.value)


def test_an_input_of_too_many_values_is_not_made(here: Any) -> None:
    with pytest.raises(InputError, match=r"too many values .allowed: at most 134,217,728"):
        load_network("my_networks:bare", (1, 3, 10**6, 10**6))


def test_importing_the_exporter_does_not_import_torch() -> None:
    code = "import sys, dse.workload.export; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0


@pytest.mark.parametrize(
    ("layer", "shape", "image"),
    [
        (nn.Conv2d(2, 4, 3, padding=1), (1, 2, 6, 8), {"H": 6, "Hpad": 1, "W": 8, "Wpad": 1}),
        (nn.Conv2d(2, 4, (3, 1), stride=2), (1, 2, 7, 7), {"H": 7, "Hpad": 0}),
        (nn.Conv2d(2, 4, 1, padding=(0, 1)), (1, 2, 6, 6), {"W": 6, "Wpad": 1}),
        (nn.Conv1d(2, 4, 5, padding=2), (1, 2, 9), {"W": 9, "Wpad": 2}),
        (nn.Conv2d(2, 4, 1), (1, 2, 6, 6), {}),
        (nn.ConvTranspose2d(2, 4, 3, padding=1), (1, 2, 6, 6), {}),
    ],
)
def test_convolutions_say_the_size_of_their_image(
    layer: nn.Module, shape: tuple[int, ...], image: dict[str, int]
) -> None:
    (found,) = export(layer, *shape).layers
    assert found.image == image and not set(image) & set(found.instance)
    check_padding(found.problem)  # sizes and windows fit
