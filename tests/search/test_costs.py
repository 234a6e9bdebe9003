from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from search.costs import expected_share, reference_pj, share, shares
from tests.search.conftest import COMPUTE_SHARE, RELATIVE
from tests.search.tiny import tiny


@pytest.fixture
def table(make_table: Any) -> CostTable:  # type: ignore[no-untyped-def]
    return make_table(tiny())


def test_the_unit_is_the_all_typical_network(table: CostTable) -> None:
    for quantity in ("energy", "latency"):
        assert share(table, dict.fromkeys(table.layers, "T8"), quantity) == pytest.approx(1)
    assert reference_pj(table) == pytest.approx(table.total_pj(dict.fromkeys(table.layers, "T8")))
    macs = np.array([table.row(layer, "T8")["n_ops"] for layer in table.layers])
    np.testing.assert_allclose(shares(table)[:, table.candidates.index("MF4")], RELATIVE["MF4"] * macs / macs.sum())


def test_expected_and_decided_costs_agree_where_all_is_decided(table: CostTable) -> None:
    assignment = dict(zip(table.layers, ("BC8", "T4"), strict=True))
    decided = share(table, assignment)
    assert decided == pytest.approx(table.total_pj(assignment) / reference_pj(table))
    certain = {layer: {"T8": 0.0, candidate: 1.0} for layer, candidate in assignment.items()}
    assert expected_share(table, certain) == pytest.approx(decided)
    half = {layer: {"T8": 0.5, candidate: 0.5} for layer, candidate in assignment.items()}
    assert expected_share(table, half) == pytest.approx((1 + decided) / 2)


def test_transmission_decides_which_levels_count(table: CostTable) -> None:
    rows = tuple({**r, "e_tx_on_chip_pj": 0.0} if r["candidate"] == "BC8" else r for r in table.rows)
    on_chip = share(CostTable(rows), dict.fromkeys(table.layers, "BC8"), transmission="on_chip")
    computing, half = COMPUTE_SHARE, (1 - COMPUTE_SHARE) / 2
    assert on_chip == pytest.approx(RELATIVE["BC8"] * computing / (computing + half))


def test_wrong_names_are_refused(table: CostTable) -> None:
    good = dict.fromkeys(table.layers, "T8")
    with pytest.raises(InputError, match=r"layer 'fc' is missing"):
        share(table, {"conv": "T8"})
    with pytest.raises(InputError, match=r"layer 'fd', candidate 'T8'"):
        share(table, {**good, "fd": "T8"})
    with pytest.raises(InputError, match=r"layer 'fc', candidate 'T9'"):
        expected_share(table, {"conv": {"T8": 1.0}, "fc": {"T9": 1.0}})
