"""The cost table on disk: what is written reads back the same, and a wrong file is one line."""

from __future__ import annotations

import pytest

from dse.errors import InputError
from dse.resources import data_dir
from dse.table import CostTable

SHIPPED = data_dir("arch_specs").parent / "results" / "squeezenet_cifar" / "table.csv"


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_written_and_read_again(tmp_path, suffix):
    table = CostTable.load(SHIPPED)
    table.save(tmp_path / f"table{suffix}")
    again = CostTable.load(tmp_path / f"table{suffix}")
    assert again.rows == table.rows
    again.save(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == SHIPPED.read_text()


def test_totals_come_from_the_rows():
    table = CostTable.load(SHIPPED)
    uniform = dict.fromkeys(table.layers, "MF4")
    expected = sum(r["e_compute_pj"] + r["e_tx_pj"] for r in table.rows if r["candidate"] == "MF4")
    assert table.total_pj(uniform) == pytest.approx(expected)
    assert table.energy_pj().shape == (26, 9)


def test_an_energy_that_is_missing(tmp_path):
    lines = SHIPPED.read_text().splitlines()
    first = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    (tmp_path / "table.csv").write_text("\n".join([lines[0], lines[1].replace(first["e_tx_pj"], "", 1), *lines[2:]]))
    with pytest.raises(InputError, match="row 1: e_tx_pj: is empty"):
        CostTable.load(tmp_path / "table.csv")
