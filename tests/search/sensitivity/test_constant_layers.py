"""Networks with layers that sensitivities are not measured of: products of activations and lookups count as T8."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dse.core.errors import InputError
from dse.workload.inputs import parse_input, tensors
from dse.workload.networks import Network
from search.costs import share
from search.networks.vit import Attention
from search.sensitivity.own_loop import assignment_front, sensitivities
from search.sensitivity.sensitivities import Sensitivities
from search.supernet import SearchableNetwork, searchable
from tests.search.conftest import synthetic_table


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.attention, self.head = nn.Embedding(9, 8), Attention(8, 2), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        result: Tensor = self.head(self.attention(self.words(ids)).mean(1))
        return result


@pytest.fixture
def model() -> SearchableNetwork:
    torch.manual_seed(0)
    network = Reader()
    table = synthetic_table(Network("reader", network, (), tensors([parse_input("2,5:int64")])))
    return searchable(network, table)


IDS = torch.randint(9, (40, 5), generator=torch.Generator().manual_seed(0))
CONSTANT = {"words": "T8", "attention.matmul_1": "T8", "attention.matmul_2": "T8"}


def test_what_is_not_measured_has_the_reference_and_costs_what_it_costs(
    model: SearchableNetwork, tmp_path: Path
) -> None:
    before = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    found = sensitivities(model, IDS, IDS.sum(1) % 3)
    assert found.layers == ("attention.qkv", "attention.proj", "head") and found.constant == CONSTANT
    assert [choice.fixed for choice, _ in model.choices()] == [None] * 6
    assert all(before[name].equal(value) for name, value in model.state_dict().items() if name in before)
    front = assignment_front(model, found)
    table = synthetic_table(Network("reader", Reader(), (), tensors([parse_input("2,5:int64")])))
    for i in range(len(front)):
        chosen = front.assignment(i)
        assert chosen == chosen | CONSTANT
        assert front.costs[i] == pytest.approx(share(table, chosen))
        assert model.discretise(chosen)(IDS[:2]).isfinite().all()
    found.save(tmp_path / "s.json")
    again = Sensitivities.load(tmp_path / "s.json")
    assert again.constant == CONSTANT
    text = (tmp_path / "s.json").read_text()
    (tmp_path / "s.json").write_text(text.replace('"words": "T8"', '"words": "T9"'))
    with pytest.raises(InputError, match=r"s.json: constant.words: found 'T9'"):
        Sensitivities.load(tmp_path / "s.json")


def test_the_reference_is_computed_with_products_at_eight_bits(model: SearchableNetwork) -> None:
    # A mixture of T8, T4 and T2 would be measured if they were left undecided.
    labels = IDS.sum(1) % 3
    found = sensitivities(model, IDS, labels)
    fixed = model.discretise(dict.fromkeys(model.assignment(), "T8"))
    fixed.train()(IDS)  # learns the range of each input
    with torch.no_grad():
        loss = nn.functional.cross_entropy(fixed.eval()(IDS), labels)
    assert found.reference_loss == pytest.approx(float(loss), rel=0.02)
