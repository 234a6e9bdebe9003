"""Networks and tables that differ: heads that do not run, other kinds of layers, tables of other networks."""

from __future__ import annotations

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
