"""The cost table on disk: what is written reads back the same, and a wrong file is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.table.cost_table import CostTable

SHIPPED = data_dir("arch_specs").parent / "results" / "squeezenet_cifar" / "table.csv"


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_written_and_read_again(tmp_path: Path, suffix: Any) -> None:
    table = CostTable.load(SHIPPED)
    table.save(tmp_path / f"table{suffix}")
    again = CostTable.load(tmp_path / f"table{suffix}")
    assert again.rows == table.rows
    table.save(tmp_path / "first.csv")
    again.save(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == (tmp_path / "first.csv").read_text()
    rows = [line for line in SHIPPED.read_text().splitlines() if not line.startswith("#")]
    written = (tmp_path / "table.csv").read_text().splitlines()[-len(rows) :]
    assert written == rows


def test_totals_come_from_the_rows() -> None:
    table = CostTable.load(SHIPPED)
    uniform = dict.fromkeys(table.layers, "MF4")
    expected = sum(r["e_compute_pj"] + r["e_tx_pj"] for r in table.rows if r["candidate"] == "MF4")
    assert table.total_pj(uniform) == pytest.approx(expected)
    assert table.energy_pj().shape == (26, 9)


def test_an_energy_that_is_missing(tmp_path: Path) -> None:
    lines = [line for line in SHIPPED.read_text().splitlines() if not line.startswith("#")]
    first = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    (tmp_path / "table.csv").write_text("\n".join([lines[0], lines[1].replace(first["e_tx_pj"], "", 1), *lines[2:]]))
    with pytest.raises(InputError, match="row 1: e_tx_pj: is empty"):
        CostTable.load(tmp_path / "table.csv")


def _table(tmp_path: Path, suffix: Any, change: Any) -> Any:
    """The shipped table with `change` done to its rows, written in a form."""
    rows = [dict(row) for row in CostTable.load(SHIPPED).rows]
    change(rows)
    CostTable(tuple(rows)).save(tmp_path / f"table{suffix}")
    return tmp_path / f"table{suffix}"


def _set(column: Any, value: Any, row: Any = 7) -> Any:
    return lambda rows: rows[row].update({column: value})


def _double_operations(rows: Any) -> None:
    for row in rows:
        row["kind"] = row["shape"] = None  # a shape tells the operations
    for row in rows[::9]:
        row["n_ops"] *= 2
        row["e_compute_pj"] *= 2


WRONG = {
    "negative": (_set("e_tx_pj", -1e9), "row 8: e_tx_pj: found .*from 0 to"),
    "above all": (_set("e_tx_pj", 1e300), "row 8: e_tx_pj: found"),
    "below its levels": (
        lambda rows: rows[7].update(e_tx_pj=5.0, e_tx_on_chip_pj=5.0),
        "row 8: e_tx_pj: found 5.0.*the energies of the levels and leakage_pj",
    ),
    "more on the chip": (_set("e_tx_on_chip_pj", 1e15), "row 8: e_tx_on_chip_pj.*at most e_tx_pj"),
    "operation": (_set("e_op_pj", 7.0, 100), "row 101: e_compute_pj"),
    "compute": (_set("e_compute_pj", 7.0), "row 8: e_compute_pj: found 7.0.*n_ops times e_op_pj"),
    "operations of some rows": (_double_operations, "row 2: n_ops.*one value for all rows of layer conv1"),
    "no cycle": (_set("cycles", 0), "row 8: cycles"),
    "more than all units": (_set("utilisation", 1.5), "row 8: utilisation"),
    "capitals": (_set("status", "OK"), "row 8: status: found 'OK'.*ok, no_mapping"),
    "no mapping with costs": (_set("status", "no_mapping"), "row 8: e_compute_pj.*no mapping"),
    "another workload": (_set("workload", "other"), "row 8: workload.*one value for all rows"),
    "another operator": (_set("operator", "typical"), "row 17: operator.*one value for all rows of candidate"),
    "a level's energy": (_set("psum_spad.Outputs.energy_pj", -1.0), "row 8: psum_spad.Outputs.energy_pj"),
    "a row twice": (lambda rows: rows.append(rows[3]), "one row for each pair"),
    "a layer's name": (_set("layer", ""), "row 8: layer: is empty"),
    "unknown column": (_set("e_tx_pJ", 1.0), "unknown column 'e_tx_pJ'; did you mean 'e_tx_pj'"),
}


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
@pytest.mark.parametrize("kind", WRONG)
def test_numbers_that_do_not_fit_one_another(tmp_path: Path, suffix: Any, kind: Any) -> None:
    change, message = WRONG[kind]
    with pytest.raises(InputError, match=message):
        CostTable.load(_table(tmp_path, suffix, change))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",True,", ",yes,", "row 1: optimal: found 'yes'"),
        (",8,T8", ",8.5,T8", "row 1: bits"),
        (",8,T8", ",٨,T8", "row 1: bits"),
        (",73728,", ",7_3728,", "row 1: cycles"),
        (",73728,", "," + "7" * 5000 + ",", "row 1: cycles"),
        (",73728,", ",73728,,", "line [0-9]+: has .* cells"),
        (",73728,", ",", "line [0-9]+: has .* cells"),
        ("e_tx_pj,", "cycles,", "column 'cycles' is there twice"),
        (",bits,", ",bits\n,", "has .* cells|line"),
        ("conv1", '"conv1', "not a table|line"),
    ],
)
def test_csv_of_another_form(tmp_path: Path, old: Any, new: Any, message: Any) -> None:
    (tmp_path / "table.csv").write_text(SHIPPED.read_text().replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        CostTable.load(tmp_path / "table.csv")


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet", ".txt"])
def test_files_that_are_no_table(tmp_path: Path, suffix: Any) -> None:
    path = tmp_path / f"table{suffix}"
    path.mkdir()
    with pytest.raises(InputError):
        CostTable.load(path)
    path.rmdir()
    for data in (b"", b"\x00\xff" * 50, b"PAR1" * 9, b"{}", b"[1]", b"[" * 50_000, b'[{"a": Infinity}]', b"a,b\n"):
        path.write_bytes(data)
        with pytest.raises(InputError) as e:
            CostTable.load(path)
        assert "\n" not in str(e.value)
