"""A sweep's summary as curves, and summaries that are none."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.page import sweep_data

SHIPPED = data_dir("arch_specs").parent / "results" / "squeezenet_cifar" / "sweep" / "summary.csv"


def test_the_shipped_sweep() -> None:
    data = sweep_data(SHIPPED)
    assert (data["workload"], data["axes"], data["candidates"]) == (
        "squeezenet_cifar", ["glb_ifmap.depth"], ["T8", "MF8", "BC8"])  # fmt: skip
    assert data["parts"][0] == "compute" and "dram_weights" in data["parts"] and "leakage" not in data["parts"]
    assert sorted({p["x"][0] for p in data["points"]}) == [2.0**n for n in range(9, 17)]
    for point in data["points"]:
        assert sum(point["parts"]) == pytest.approx(point["energy_pj"])


def changed(tmp_path: Path, change: Any) -> Any:
    with SHIPPED.open(newline="") as f:
        rows = change(list(csv.DictReader(f)))
    path = tmp_path / "summary.csv"
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_points_without_a_total_are_named(tmp_path: Path) -> None:
    def refuse(rows: Any) -> Any:
        rows[0] |= {"status": "no_energy", "reason": "SRAM is known from 64 words"}
        return rows

    data = sweep_data(changed(tmp_path, refuse))
    assert data["missing"] == ["T8 at glb_ifmap.depth = 512: SRAM is known from 64 words"]
    assert len(data["points"]) == 23


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda rows: [{k: v for k, v in r.items() if k != "energy_pj"} for r in rows],
            "column 'energy_pj' is missing",
        ),
        (lambda rows: [r | {"glb_ifmap.depth": "512"} for r in rows], "has no numeric setting that varies"),
        (lambda rows: [rows[0] | {"cycles": "many"}, *rows[1:]], "row 1: cycles: found 'many' (allowed: a number)"),
        (lambda rows: [rows[0] | {"energy_pj": "inf"}, *rows[1:]], "row 1: energy_pj: found 'inf'"),
    ],
)
def test_what_is_no_summary_is_refused(tmp_path: Path, change: Any, problem: Any) -> None:
    with pytest.raises(InputError) as refused:
        sweep_data(changed(tmp_path, change))
    assert problem in str(refused.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.csv: cannot be read"):
        sweep_data(tmp_path / "none.csv")
