"""ONNX files of networks with any arguments and results: onnxruntime gives what torch gives."""

from __future__ import annotations

import collections
import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from dse.core.errors import InputError
from dse.hardware.candidates import load_candidates
from dse.workload.export import export_network
from dse.workload.inputs import Call, returned
from dse.workload.networks import Network
from dse.workload.onnx_import import import_onnx
from search.export.qdq import write_onnx
from search.layers.mixed_layer import LayerOptions
from search.layers.mixed_product import MixedProduct
from search.networks.vit import vit_cifar
from search.supernet import SearchableNetwork, searchable, uniform

pytest.importorskip("onnxscript", reason="ONNX export needs onnx and onnxscript (pip install 'enos-dse[onnx]')")
runtime = pytest.importorskip("onnxruntime", reason="the check of ONNX files needs onnxruntime")
onnx = pytest.importorskip("onnx")

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


class Attention(nn.Module):
    """Two heads of 8; `how` computes it from queries, keys, values of shape (batch, heads, positions, 8) and a mask."""

    def __init__(self, how: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]) -> None:
        super().__init__()
        self.how, self.qkv, self.out = how, nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        return self.out(self.how(q, k, v, mask).transpose(1, 2).flatten(2))


def written_out(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    scores = q @ k.transpose(-2, -1) / 8**0.5
    return (scores if mask is None else scores.masked_fill(~mask, -1e9)).softmax(-1) @ v


def by_einsum(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return torch.einsum("bhqk,bhkd->bhqd", torch.einsum("bhqd,bhkd->bhqk", q, k).softmax(-1), v)


def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def causal(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Convolutions(nn.Module):
    """Convolutions of one axis, strided and grouped; transposed ones with and without groups and an output size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 8, 5, padding=2, padding_mode="circular")
        self.down = nn.Conv1d(8, 8, 4, stride=2, groups=4, bias=False)
        self.up = nn.ConvTranspose1d(8, 6, 4, stride=2)
        self.grouped = nn.ConvTranspose1d(6, 4, 3, stride=2, groups=2, padding=1)

    def forward(self, audio: Tensor) -> Tensor:
        x = torch.relu(self.first(audio))
        y = self.up(torch.relu(self.down(x)), output_size=x.shape[-1:])
        return cast(Tensor, self.grouped(torch.tanh(y + x.mean(1, keepdim=True))))


class Upsampling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 6, 3, stride=2), nn.ConvTranspose2d(6, 4, (3, 2), (2, 1), bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        y = self.conv(x)
        return y, [self.up(y.relu()), y]


class Volume(nn.Module):
    """A convolution of volumes stays as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv3d(1, 4, 3, stride=2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc(self.conv(x).relu().mean((2, 3, 4))))


@dataclasses.dataclass
class Answer:
    scores: Tensor
    hidden: tuple[Tensor, ...] = ()
    loss: Tensor | None = None


class Text(nn.Module):
    """A small encoder: ids, a mask of the positions that count, an offset of the positions; several results."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 16), nn.Embedding(32, 16)
        self.attention, self.norm, self.fc = Attention(fused), nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, offset: int = 0, form: str = "dict"
    ) -> Any:
        x = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]) + offset)
        mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        y = self.norm(x + self.attention(x, mask))
        scores = self.fc(y[:, 0])
        if form == "dataclass":
            return Answer(scores, (x, y))
        return collections.OrderedDict(scores=scores, hidden=y, again=y, loss=None)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.table, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(5, 8), nn.Linear(8, 8)

    def forward(self, image: Tensor, table: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        x = self.image(image).mean((2, 3)) + self.table(table)
        return x.unsqueeze(1) @ self.fc(x.relu()).unsqueeze(2), sum(others, x)


class Whole(nn.Module):
    """A module around an attention, so that the network itself is not the owner of the products."""

    def __init__(self, how: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]) -> None:
        super().__init__()
        self.attention = Attention(how)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return cast(Tensor, self.attention(x, mask))


def ids(batch: int) -> Tensor:
    return torch.randint(50, (batch, 7))


def counted(batch: int) -> Tensor:
    """Ones for the first 1 to 7 positions."""
    return (torch.arange(7) < torch.randint(1, 8, (batch, 1))).long()


TRIANGLE = torch.ones(6, 6, dtype=torch.bool).tril()
VIT = partial(vit_cifar, in_channels=1, image=8, patch=4, width=16, depth=1, heads=2)
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any], list[str], list[str]]] = {
    "conv1d": (Convolutions, lambda n: torch.randn(n, 2, 16), ["audio"], ["output"]),
    "transposed": (Upsampling, lambda n: torch.randn(n, 3, 9, 9), ["x"], ["output.0", "output.1.0", "output.1.1"]),
    "volume": (Volume, lambda n: torch.randn(n, 1, 7, 7, 7), ["x"], ["output"]),
    "written out": (lambda: Whole(written_out), lambda n: torch.randn(n, 6, 16), ["x"], ["output"]),
    "root": (lambda: Attention(written_out), lambda n: torch.randn(n, 6, 16), ["x"], ["output"]),
    "einsum": (lambda: Whole(by_einsum), lambda n: torch.randn(n, 6, 16), ["x"], ["output"]),
    "causal": (lambda: Whole(causal), lambda n: torch.randn(n, 6, 16), ["x"], ["output"]),
    "mask": (lambda: Whole(fused), lambda n: (torch.randn(n, 6, 16), TRIANGLE), ["x", "mask"], ["output"]),
    "bias": (lambda: Whole(fused), lambda n: {"mask": torch.randn(6, 6), "x": torch.randn(n, 6, 16)}, ["mask", "x"],
             ["output"]),
    "ids": (Text, ids, ["input_ids"], ["scores", "hidden", "again"]),
    "multiplication-free": (Text, ids, ["input_ids"], ["scores", "hidden", "again"]),
    "keywords": (Text, lambda n: {"input_ids": ids(n), "attention_mask": counted(n), "offset": 3},
                 ["input_ids", "attention_mask"], ["scores", "hidden", "again"]),
    "dataclass": (Text, lambda n: ((ids(n),), {"attention_mask": counted(n), "form": "dataclass"}),
                  ["input_ids", "attention_mask"], ["scores", "hidden.0", "hidden.1"]),
    "vit": (lambda: cast(nn.Module, VIT().module), lambda n: torch.randn(n, 1, 8, 8), ["x"], ["output"]),
    "two inputs": (Two, lambda n: (torch.randn(n, 3, 6, 6), torch.randn(n, 5), torch.randn(n, 8)),
                   ["image", "table", "others.0"], ["output.0", "output.1"]),
}  # fmt: skip


def call(inputs: Any) -> Call:
    return returned(lambda: inputs, "inputs")(None)


def trained(
    make_table: Any, network: nn.Module, make: Callable[[int], Any], candidate: str, options: LayerOptions | None = None
) -> tuple[nn.Module, dict[str, str]]:
    """A discretised network that has seen some batches; products are typical with as many bits."""
    table = make_table(Network("net", network, example=returned(lambda: make(1), "inputs")), "operators_extended")
    model = searchable(network, table, operators="operators_extended", options=options)
    assignment = uniform(table, candidate)
    fixed = model.discretise(assignment)
    for _ in range(3):
        arguments, keywords = call(make(8))
        fixed(*arguments, **keywords)
    return fixed.eval(), assignment


LEVELS = (runtime.GraphOptimizationLevel.ORT_DISABLE_ALL, runtime.GraphOptimizationLevel.ORT_ENABLE_ALL)
"""Of onnxruntime's changes to a graph; the default is all of them."""


def run(path: Path, inputs: Any, names: list[str], level: Any = LEVELS[0]) -> list[Tensor]:
    """What onnxruntime computes of the tensors of a call, in the order of `names`."""
    options = runtime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    arguments, keywords = call(inputs)
    given = [t for t in (*arguments, *keywords.values()) if isinstance(t, Tensor)]
    assert [i.name for i in session.get_inputs()] == names
    return [torch.from_numpy(y) for y in session.run(None, {n: t.numpy() for n, t in zip(names, given, strict=True)})]


def tensors_of(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    if dataclasses.is_dataclass(result):
        result = vars(result)
    parts = result.values() if isinstance(result, dict) else () if result is None else result
    return [tensor for part in parts for tensor in tensors_of(part)]


@pytest.mark.parametrize("case", CASES)
def test_onnxruntime_gives_what_torch_gives(case: str, tmp_path: Path, make_table: Any) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(3)
    make, inputs, names, outputs = CASES[case]
    bits = {"written out": "T8", "mask": "T4", "causal": "T2", "transposed": "MF8",
            "multiplication-free": "MF8"}  # fmt: skip
    fixed, assignment = trained(make_table, make(), inputs, bits.get(case, "T4"))
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a batch that is not free is a warning
        write_onnx(fixed, assignment, inputs(1), path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [o.name for o in model.graph.output] == outputs
    for batch in (1, 5):
        given = inputs(batch)
        arguments, keywords = call(given)
        with torch.no_grad():
            expected = tensors_of(fixed(*arguments, **keywords))
        for level in LEVELS:
            for mine, reference in zip(run(path, given, names, level), expected, strict=True):
                torch.testing.assert_close(mine, reference, **CLOSE)
                assert reference.abs().max() > 1e-3
    assert max(reference.std(0).max() for reference in expected) > 1e-3  # it tells the inputs apart


@pytest.mark.parametrize("quantiser", ["rms", "lsq", "dorefa"])
@pytest.mark.parametrize("candidate", ["T8", "T4", "T2"])
def test_products_read_dequantised_words_of_their_width(quantiser: Any, candidate: str, tmp_path: Path,
                                                        make_table: Any) -> None:  # fmt: skip
    """The words that onnxruntime computes are those of the network, each of them."""
    torch.manual_seed(1)
    options = LayerOptions(quantiser, learned_scales=True)
    network = Whole(written_out)
    table = make_table(Network("net", network, (1, 6, 16)))
    products_of = ("attention.matmul_1", "attention.matmul_2")
    assignment = {**uniform(table, "T4"), **dict.fromkeys(products_of, candidate)}
    fixed = searchable(network, table, options=options).discretise(assignment)
    with torch.no_grad():
        fixed.get_submodule("attention.matmul_1").log_scale.fill_(0.3)  # type: ignore[operator, union-attr]
    fixed(torch.randn(8, 6, 16))
    fixed.eval()
    path = tmp_path / "net.onnx"
    write_onnx(fixed, assignment, torch.randn(2, 6, 16), path)
    model = onnx.load(path)
    makers = {output: node for node in model.graph.node for output in node.output}
    quantisers = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert len(quantisers) == 6  # of two layers and of the operands of two products
    for node in quantisers:
        model.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))
    products = [n for n in model.graph.node if n.op_type == "MatMul" and makers[n.input[1]].op_type != "Transpose"]
    operands = [makers[name].op_type for node in products for name in node.input]
    assert operands == ["DequantizeLinear"] * 4
    onnx.save(model, path)

    expected: list[Tensor] = []

    def note(mixed: Any, arguments: Any) -> None:
        for operand, x in zip((mixed.first, mixed.second), arguments[1:], strict=True):
            expected.extend(words for words, _ in operand(x, [bits]).values())

    for name in products_of:
        fixed.get_submodule(name).register_forward_pre_hook(note)
    x, bits = torch.randn(4, 6, 16), int(candidate[1:])
    y, _, *words, _ = run(path, x, ["x"])
    with torch.no_grad():
        torch.testing.assert_close(y, fixed(x), **CLOSE)
    for mine, reference in zip(words, expected, strict=True):
        assert torch.equal(mine.float(), reference)
    tops = [2 ** (bits - 1) - 1, 2 ** (bits - 1) - 1, 2**bits - 1, 2 ** (bits - 1) - 1]
    for mine, top in zip(words, tops, strict=True):
        assert len(mine.unique()) > 1 and mine.abs().max() <= top
    assert [w.dtype for w in words] == [torch.int8, torch.int8, torch.uint8, torch.int8]  # shares have no sign


@pytest.mark.parametrize("case", ["written out", "causal", "keywords", "two inputs", "transposed"])
def test_layers_of_the_file_are_those_of_the_table(case: str, tmp_path: Path, make_table: Any) -> None:  # type: ignore[no-untyped-def]
    """`enos export` reads the file as it reads the network, so that `enos cost` finds the widths of its layers."""
    make, inputs, names, _ = CASES[case]
    network = make()
    fixed, assignment = trained(make_table, network, inputs, "T4")
    path = tmp_path / "net.onnx"
    write_onnx(fixed, assignment, inputs(2), path)
    arguments, keywords = call(inputs(1))
    shapes = [t.shape for t in (*arguments, *keywords.values()) if isinstance(t, Tensor)]
    workload = import_onnx(path, [f"{n}={','.join(map(str, s))}" for n, s in zip(names, shapes, strict=True)])
    expected = export_network(Network("net", network, example=returned(lambda: inputs(1), "inputs")))
    assert {x.name: x.macs for x in workload.layers} == {x.name: x.macs for x in expected.layers}
    assert b"Traceback" not in path.read_bytes() and str(Path(__file__).parent).encode() not in path.read_bytes()


def test_a_searchable_network_is_discretised(tmp_path: Path, make_table: Any) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    network = Two()
    make = CASES["two inputs"][1]
    table = make_table(Network("net", network, example=returned(lambda: make(1), "inputs")))
    model = searchable(network, table)
    model(*make(4))
    model.eval()
    assignment = {**uniform(table, "T4"), "fc": "MF8"}
    write_onnx(model, assignment, make(2), tmp_path / "net.onnx")
    given = make(3)
    with torch.no_grad():
        expected = model.discretise(assignment)(*given)
    for mine, reference in zip(run(tmp_path / "net.onnx", given, CASES["two inputs"][2]), expected, strict=True):
        torch.testing.assert_close(mine, reference, **CLOSE)
    assert isinstance(model, SearchableNetwork) and model.undecided()


class Shared(nn.Module):
    """One layer under two names, with a hook that changes its output; it reads the weight of the other one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second, self.head = self.first, nn.Linear(8, 8)
        self.first.register_forward_hook(lambda module, inputs, output: output * 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x).relu()).to(self.head.weight.dtype)
        return cast(Tensor, self.head(y[:, : self.head.in_features]))


def test_shared_layers_and_hooks_are_those_of_the_network(tmp_path: Path, make_table: Any) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    fixed, assignment = trained(make_table, Shared(), lambda n: torch.randn(n, 8), "T4")
    write_onnx(fixed, assignment, (1, 8), tmp_path / "net.onnx")
    x = torch.randn(5, 8)
    with torch.no_grad():
        torch.testing.assert_close(run(tmp_path / "net.onnx", x, ["images"]), [fixed(x)], **CLOSE)
    stored = onnx.load(tmp_path / "net.onnx").graph.initializer
    assert {i.name for i in stored if i.data_type == onnx.TensorProto.INT8 and i.dims} == {
        "first.weight",
        "head.weight",
    }


class Twice(nn.Module):
    """Attention with a norm of two names: torch.export calls the modules of such a network by stand-ins."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(16), Attention(by_einsum)
        self.last = self.norm

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.last(self.attention(self.norm(x))))


def test_products_are_found_beside_shared_modules(tmp_path: Path, make_table: Any) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    fixed, assignment = trained(make_table, Twice(), lambda n: torch.randn(n, 6, 16), "T2")
    write_onnx(fixed, assignment, (1, 6, 16), tmp_path / "net.onnx")
    x = torch.randn(5, 6, 16)
    with torch.no_grad():
        torch.testing.assert_close(run(tmp_path / "net.onnx", x, ["images"]), [fixed(x)], **CLOSE)
    nodes = onnx.load(tmp_path / "net.onnx").graph.node
    assert sum(n.op_type == "QuantizeLinear" for n in nodes) == 6


class Odd(nn.Module):
    """Arguments with the names of operations, one of which it does not read and one that it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, linear: Tensor, clamp: Tensor) -> dict[str, Tensor]:
        return {"linear": linear, "add": self.fc(linear) + 1}


def test_names_are_those_of_the_arguments_whatever_torch_calls_its_values(tmp_path: Path, make_table: Any) -> None:
    torch.manual_seed(0)
    fixed, assignment = trained(make_table, Odd(), lambda n: (torch.randn(n, 8), torch.zeros(n, 2)), "T4")
    given = (torch.randn(5, 8), torch.zeros(5, 2))
    write_onnx(fixed, assignment, given, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [o.name for o in model.graph.output] == ["linear_out", "add"]
    with torch.no_grad():
        expected = list(fixed(*given).values())
    for mine, reference in zip(run(tmp_path / "net.onnx", given, ["linear", "clamp"]), expected, strict=True):
        torch.testing.assert_close(mine, reference, **CLOSE)


@pytest.mark.parametrize("positive", [False, True])
def test_words_of_one_bit_are_those_of_the_network(positive: bool, tmp_path: Path, make_table: Any) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    network = Whole(lambda q, k, v, mask: (q.abs() if positive else q) @ k.transpose(-2, -1) @ v)
    table = make_table(Network("net", network, (1, 6, 16)))
    model = searchable(network, table)
    fixed = model.discretise(uniform(table, "T8"))
    typical = next(c for c in load_candidates() if c.name == "T8")
    narrow = MixedProduct([replace(typical, bits=1, act_bits=1, weight_bits=1)])
    fixed.get_submodule("attention").add_module("matmul_1", narrow)
    fixed(torch.randn(8, 6, 16))
    write_onnx(fixed.eval(), {}, (1, 6, 16), tmp_path / "net.onnx")
    x = torch.randn(5, 6, 16)
    with torch.no_grad():
        expected = fixed(x)
    assert narrow.first.scale.signed is not positive
    for level in LEVELS:
        torch.testing.assert_close(run(tmp_path / "net.onnx", x, ["images"], level), [expected], **CLOSE)


class Branches(nn.Module):
    """It computes something else where it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc(x if torch.compiler.is_compiling() else self.fc(x)))


def test_a_trace_that_leaves_out_a_layer_is_an_error(tmp_path: Path, make_table: Any) -> None:  # type: ignore[no-untyped-def]
    make = returned(lambda: torch.randn(2, 8), "inputs")
    table = make_table(Network("net", Branches(), example=make))
    fixed = searchable(Branches(), table).discretise(uniform(table, "T4"))
    fixed(torch.randn(2, 8))
    with pytest.raises(InputError, match=r"^layer 'fc': is computed 2 times by the network, but 1 times in its trace"):
        write_onnx(fixed, uniform(table, "T4"), (1, 8), tmp_path / "net.onnx")


class Chunks(nn.Module):
    """It runs with two images only."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.unbind(0)
        return cast(Tensor, self.fc(first + second))


class Once(nn.Module):
    """It runs with one image only."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc(x.view(8)))


class Long(Once):
    """It asks for the length of a tensor, which torch's trace takes for a number."""

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc(x.view(len(x), 8)))


@pytest.mark.parametrize(
    ("network", "size", "why"),
    [(Chunks, 2, ""), (Once, 1, "with twice as many the network fails: RuntimeError"),
     (Long, 2, r"its code makes a number of the batch, as len\(x\) does; x.shape\[0\] does not$")],
)  # fmt: skip
def test_a_batch_that_cannot_be_free_is_fixed_with_a_word(network: Any, size: int, why: str, tmp_path: Path,
                                                         make_table: Any) -> None:  # fmt: skip
    torch.manual_seed(0)
    make = returned(lambda: torch.randn(size, 8), "inputs")
    table = make_table(Network("net", network(), example=make))
    assignment = uniform(table, "T4")
    fixed = searchable(network(), table).discretise(assignment)
    fixed(torch.randn(size, 8))
    fixed.eval()
    with pytest.warns(UserWarning, match=rf"^the ONNX file has a fixed batch, that of the inputs: {why or '.'}"):
        write_onnx(fixed, assignment, (size, 8), tmp_path / "net.onnx")
    x = torch.randn(size, 8)
    with torch.no_grad():
        torch.testing.assert_close(run(tmp_path / "net.onnx", x, ["images"]), [fixed(x)], **CLOSE)


class Held:
    """Something that is no tensor."""


class Result(nn.Module):
    """Its result is whatever it is given beside the input."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor, other: Any = None) -> Any:
        if other == "control":
            return self.fc(x) if x.sum() > 0 else x
        if other == "held":
            return {"a": Held(), "b": self.fc(x)}
        return self.fc(x) if other is None else None


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((torch.zeros(2, 8), Held()), r"^inputs: other: is a Held \(allowed: tensors, numbers"),
        ({"other": None}, r"^inputs: have no tensor"),
        ((0, 8), r"^inputs: found the shape \(0, 8\)"),
        ((), r"^inputs: returned no arguments"),
        ((torch.zeros(2, 7),), r"^network: fails with these inputs: RuntimeError: "),
        ((torch.zeros(2, 8), "control"), r"^ONNX export: cannot trace the network: "),
        ((torch.zeros(2, 8), "held"), r"^output 'a': is a Held, which ONNX has no form for"),
        ((torch.zeros(2, 8), "none"), r"^network: returns a NoneType without tensors"),
    ],
)
def test_what_cannot_be_written_is_one_line(inputs: Any, message: str, tmp_path: Path, make_table: Any) -> None:  # type: ignore[no-untyped-def]
    fixed, assignment = trained(make_table, Result(), lambda n: torch.randn(n, 8), "T4")
    with pytest.raises(InputError, match=message) as caught:
        write_onnx(fixed, assignment, inputs, tmp_path / "net.onnx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "net.onnx").exists()


def test_types_and_unseen_products_are_named(tmp_path: Path, make_table: Any) -> None:  # type: ignore[no-untyped-def]
    make = CASES["written out"][1]
    fixed, assignment = trained(make_table, Whole(written_out), make, "T4")
    with pytest.raises(InputError, match=r"^layer 'attention.qkv': is of torch.float64 \(allowed: torch.float32\)"):
        write_onnx(fixed.double(), assignment, make(1), tmp_path / "net.onnx")
    table = make_table(Network("net", Whole(written_out), example=returned(lambda: make(1), "inputs")))
    fixed = searchable(Whole(written_out), table, exclude=["*.qkv", "*.out"]).discretise(uniform(table, "T8"))
    with pytest.raises(InputError, match=r"^layer 'attention.matmul_1': has not seen an input yet"):
        write_onnx(fixed, uniform(table, "T8"), make(1), tmp_path / "net.onnx")
