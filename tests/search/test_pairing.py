"""Networks and tables that differ: heads that do not run, other kinds of layers, tables of other networks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dse import Network, export_network, map_workload
from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from dse.workload.inputs import parse_input, tensors
from search.costs import share
from search.pairing import Unsearched
from search.supernet import searchable, uniform
from tests.search.conftest import synthetic_table


class Reader(nn.Module):
    """Ids and a mask, a lookup, layers of every searched type, a head for training only; a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.wide, self.up = nn.Conv1d(8, 8, 3, padding=1), nn.ConvTranspose1d(8, 4, 2, stride=2)
        self.head, self.auxiliary = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, ids: Tensor, *, mask: Tensor | None = None) -> dict[str, Tensor]:
        x = self.words(ids)
        x = (x if mask is None else x * mask[..., None]).transpose(1, 2)
        x = self.up(self.wide(x).relu()).mean(-1)
        return {"scores": self.head(x)} | ({"auxiliary": self.auxiliary(x)} if self.training else {})


@pytest.fixture(scope="module")
def table() -> CostTable:
    return map_workload(export_network(_network(Reader())), jobs=1)


def _network(module: nn.Module) -> Network:
    return Network("reader", module, (), tensors([parse_input("2,6:int64")]))


IDS, MASK = torch.arange(12).reshape(2, 6), torch.ones(2, 6, dtype=torch.bool)


def test_a_lookup_stays_a_head_for_training_is_named_and_arguments_are_passed_on(table: CostTable) -> None:
    assert [table.kind(layer) for layer in table.layers] == ["embedding", "conv", "transposed_conv", "linear"]
    network = Reader()
    with pytest.warns(UserWarning, match="the table has no rows for auxiliary: left as they are"):
        model = searchable(network, table)
    assert model.undecided() == ["wide", "up", "head"]
    output = model(IDS, mask=MASK)
    assert set(output) == {"scores", "auxiliary"}
    (output["scores"].square().sum() + model.energy()).backward()
    assert all(alpha.grad.any() for alpha in model.alphas())
    assignment = {"words": "T8", "wide": "MF4", "up": "BC8", "head": "T2"}
    fixed = model.discretise(assignment).eval()
    assert type(fixed.words) is nn.Embedding and type(fixed.auxiliary) is nn.Linear
    assert set(fixed(IDS, mask=MASK)) == {"scores"}
    assert share(table, uniform(table, "T8")) == pytest.approx(1)
    assert uniform(table, "BC2") == {"words": "T8", "wide": "BC2", "up": "BC2", "head": "BC2"}
    with pytest.raises(InputError, match=r"assignment.words: unknown candidate 'T4' \(allowed: T8\)"):
        model.discretise(assignment | {"words": "T4"})


def test_the_expected_energy_counts_what_is_not_searched(table: CostTable) -> None:
    with pytest.warns(UserWarning):
        model = searchable(Reader(), table, ["T4"])
    expected = share(table, {"words": "T8", "wide": "T4", "up": "T4", "head": "T4"})
    assert float(model.energy().detach()) == pytest.approx(expected)
    assert isinstance(model.choices()[-1][0], Unsearched)
    assert model.assignment() == {"words": "T8", "wide": "T4", "up": "T4", "head": "T4"}


class Other(Reader):
    """Layers of the same names, with other weights."""

    def __init__(self, layer: str, module: nn.Module) -> None:
        super().__init__()
        setattr(self, layer, module)


@pytest.mark.filterwarnings("ignore:the table has no rows")
@pytest.mark.parametrize(
    ("layer", "module", "message"),
    [
        ("wide", nn.Conv1d(8, 9, 3), "table: layer 'wide' has weights of C8 M8 S3, in the network they are C8 M9 S3"),
        ("wide", nn.Conv1d(8, 8, 5), "they are C8 M8 S5"),
        ("wide", nn.Conv1d(8, 8, 3, groups=2), "they are G2 C4 M4 S3"),
        ("up", nn.ConvTranspose1d(4, 8, 2), "has weights of C8 M4 S2, in the network they are C4 M8 S2"),
        ("head", nn.Linear(5, 3), "they are C5 M3; export and map this network"),
        ("head", nn.Identity(), "layer 'head' is no module that can be searched"),
    ],
)
def test_the_table_of_another_network_is_refused(table: CostTable, layer: str, module: Any, message: str) -> None:
    with pytest.raises(InputError) as e:
        searchable(Other(layer, module), table)
    assert message in str(e.value)


@pytest.mark.filterwarnings("ignore:the table has no rows")
def test_what_no_module_computes_can_be_excluded_and_a_table_can_be_a_file(table: CostTable, tmp_path: Path) -> None:
    table.save(tmp_path / "table.csv")
    with pytest.raises(InputError, match=r"no such file|cannot be read"):
        searchable(Reader(), "nowhere.csv")
    model = searchable(Other("head", nn.Identity()), tmp_path / "table.csv", exclude=["head"])
    assert model.undecided() == ["wide", "up"] and model.assignment()["head"] == "T8"
    assert model(IDS)["scores"].shape == (2, 4)


class Audio(nn.Module):
    """A recurrent layer and cell, a product with the weights of a lookup, and layers that are searched."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.stem, self.head = nn.Conv1d(8, 8, 3, padding=1), nn.Linear(6, 8)
        self.recurrent, self.cell = nn.LSTM(8, 3, bidirectional=True, batch_first=True), nn.GRUCell(6, 6)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.stem(self.words(ids).transpose(1, 2)).transpose(1, 2)
        x, _ = self.recurrent(x)
        return nn.functional.linear(self.head(self.cell(x[:, 0])), self.words.weight)


class Pooled(nn.Module):
    """Attention with learned queries, of torch or written out."""

    def __init__(self, of_torch: bool) -> None:
        super().__init__()
        self.queries, self.of_torch = nn.Parameter(torch.randn(1, 3, 8)), of_torch
        if of_torch:
            self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        else:
            self.q, self.kv = nn.Linear(8, 8), nn.Linear(8, 16)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        queries = self.queries.expand(x.shape[0], -1, -1)
        if self.of_torch:
            y, _ = self.attn(queries, x, x)
        else:
            q = self.q(queries).unflatten(-1, (2, 4)).transpose(1, 2)
            k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.kv(x).chunk(2, -1))
            y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        result: Tensor = self.head(y)
        return result


@pytest.mark.parametrize(
    ("make", "inputs", "named", "searched"),
    [
        (
            Audio, torch.arange(12).reshape(2, 6), r"recurrent.weight_ih_l0, .*, cell.weight_hh, words#2",
            ["stem", "head"],
        ),
        (
            lambda: Pooled(True), torch.randn(2, 5, 8), r"attn.in_proj#3, attn.matmul_1",
            ["attn.in_proj", "attn.in_proj#2", "attn.out_proj", "head"],
        ),
        (lambda: Pooled(False), torch.randn(2, 5, 8), r"queries, matmul_1", ["q", "kv", "head"]),
    ],
)  # fmt: skip
def test_products_that_no_module_computes_as_a_layer_stay_as_they_are_and_count_as_t8(
    make: Any, inputs: Tensor, named: str, searched: list[str]
) -> None:
    torch.manual_seed(0)
    network = make()
    table = synthetic_table(Network("net", network, (), lambda _: ((inputs,), {})))
    with pytest.warns(UserWarning, match=f"^no module that can be searched computes {named}: left as they are, and"):
        model = searchable(network, table)
    assert model.undecided() == searched
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of products that are not those of the table
        (model(inputs).square().sum() + model.energy()).backward()
    assert all(alpha.grad.any() for alpha in model.alphas())
    chosen = uniform(table, "T4")
    assert {row: c for row, c in chosen.items() if c == "T8"}.keys() == set(table.layers) - set(searched)
    for row, candidate in chosen.items():
        model.fix(row, candidate)
    assert float(model.energy().detach()) == pytest.approx(share(table, chosen))
    model.eval()
    torch.testing.assert_close(model.discretise(chosen)(inputs), model(inputs))
