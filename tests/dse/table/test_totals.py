"""Totals beside the paper's, and figures without pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.plots.breakdown import breakdown_info, draw_breakdown
from dse.table.breakdown import breakdown
from dse.table.cost_table import CostTable
from dse.table.totals import e_op_ratio, explain, uniform_totals

OPERATORS = {"T": "typical", "MF": "multiplication_free", "BC": "binary_connect"}


def row(
    layer: Any,
    short: Any,
    bits: Any,
    compute: Any,
    dram: Any,
    spad: Any,
    leak: Any = 0.0,
    ok: Any = True,
    workload: Any = "squeezenet_cifar",
) -> Any:
    costs = {
        "e_compute_pj": compute,
        "e_tx_pj": dram + spad + leak,
        "e_tx_on_chip_pj": spad + leak,
        "leakage_pj": leak,
        "cycles": 10,
        "utilisation": 1.0,
        "optimal": True,
    }
    levels = {"spad.Inputs.energy_pj": spad / 2, "spad.Outputs.energy_pj": spad / 2, "dram.Inputs.energy_pj": dram}
    return {
        "workload": workload,
        "layer": layer,
        "operator": OPERATORS[short],
        "bits": bits,
        "candidate": f"{short}{bits}",
        "status": "ok" if ok else "no_mapping",
        "reason": "" if ok else "too small",
        "n_ops": 10,
        "e_op_pj": compute / 10,
        "engine": "fake",
        "mapping": "",
        **(costs if ok else dict.fromkeys(costs)),
        **(levels if ok else {}),
    }


def table(**changes: Any) -> Any:
    return CostTable(
        (
            row("a", "T", 8, 60.0, 20.0, 20.0),
            row("a", "MF", 8, 20.0, 20.0, 15.0),
            row("a", "BC", 8, 5.0, 12.0, 9.0),
            row("b", "T", 8, 60.0, 20.0, 20.0),
            row("b", "MF", 8, 20.0, 20.0, 15.0),
            row("b", "BC", 8, 5.0, 12.0, 9.0, **changes),
        )
    )


def test_totals_are_sums_over_layers() -> None:
    typical, mf, bc = uniform_totals(table())
    assert (typical.compute_pj, typical.transmission_pj, typical.on_chip_pj) == (120, 80, 40)
    assert (typical.ratio, typical.on_chip_ratio) == (1, 1)
    assert (mf.ratio, mf.on_chip_ratio, mf.paper_ratio) == (110 / 200, 70 / 160, 0.34)
    assert (bc.ratio, bc.on_chip_ratio, bc.paper_ratio) == (52 / 200, 28 / 160, 0.17)
    assert e_op_ratio((typical, mf, bc)) == 12


def test_a_layer_without_a_mapping_leaves_no_total() -> None:
    *_, bc = uniform_totals(table(ok=False))
    assert (bc.layers_without_mapping, bc.ratio, bc.compute_pj) == (1, None, None)


def test_sentences_have_the_numbers_of_the_table() -> None:
    ratio, compared, why, *_ = explain(uniform_totals(table()), "all")
    assert "= 12.0; the paper reports about 11.5" in ratio
    assert "MF8 0.55 (paper 0.34), BC8 0.26 (paper 0.17)" in compared
    assert "MF8 0.44, BC8 0.17" in compared
    assert "compute is 60% of all-T" in why and "0.88 times its traffic" in why and "would leave 0.35" in why
    _, compared, why, *_ = explain(uniform_totals(table()), "on_chip")
    assert "MF8 0.44 (paper 0.34)" in compared and "compute is 75% of all-T" in why


def test_other_networks_are_not_set_beside_the_papers() -> None:
    other = CostTable(tuple({**r, "workload": "mynet"} for r in table().rows))
    assert {t.paper_ratio for t in uniform_totals(other)} == {None}
    assert explain(uniform_totals(other), "all") == ["E_OP(T,8) / E_OP(BC,8) = 12.0; the paper reports about 11.5."]


def test_nothing_is_compared_without_the_papers_operators() -> None:
    only = CostTable((row("a", "T", 4, 60.0, 20.0, 20.0),))
    assert explain(uniform_totals(only), "all") == []
    assert uniform_totals(only)[0].ratio is None


def test_bars_add_up_to_the_energy_of_the_layer() -> None:
    costs = table(leak=3.0)
    info = breakdown_info(costs, "BC8")
    assert list(info.parts) == ["compute", "spad", "dram", "leakage"]
    totals = [sum(part[i] for part in info.parts.values()) for i in range(2)]
    assert totals == pytest.approx([26e-6, 29e-6])
    assert info.parts["leakage"] == pytest.approx([0, 3e-6])
    assert "leakage" not in breakdown_info(costs, "T8").parts


def test_a_layer_without_a_mapping_has_no_bar(tmp_path: Path) -> None:
    info = breakdown_info(table(ok=False), "BC8")
    assert info.without_mapping == ("b",)
    assert [part[1] for part in info.parts.values()] == [0, 0, 0]
    draw_breakdown(info, tmp_path / "b.svg")
    assert "no mapping" in (tmp_path / "b.svg").read_text()


def test_level_energies() -> None:
    levels = breakdown(table(ok=False), "BC8").levels
    assert {(c.level, c.tensor): energies for c, energies in levels.items()} == {
        ("spad", "Inputs"): (4.5, None),
        ("spad", "Outputs"): (4.5, None),
        ("dram", "Inputs"): (12.0, None),
    }
    with pytest.raises(InputError, match="'T3'"):
        breakdown(table(), "T3")
