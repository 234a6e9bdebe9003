"""What the figures of a sweep show, and that they can be drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dse.plots.sweep import draw_figures
from dse.plots.sweep_series import curve_info, pareto_info, point_labels, winners_info
from dse.sweep import sweep
from tests.dse.fakes import FakeEngine
from tests.dse.table.test_fill import ARCH, NET


@pytest.fixture
def found(tmp_path: Path) -> Any:
    def make(settings: Any, **changes: Any) -> Any:
        arguments = {"only": ["T8", "BC8"], "engine": FakeEngine(), "store": tmp_path / "s.sqlite", "jobs": 1} | changes
        return sweep(NET, settings, **arguments)

    return make


def test_the_curve_of_one_setting(found: Any) -> None:
    table = found({"weights_spad.depth": [448, 32, 112, 224]})
    info = curve_info(table, "T8", table.axes[0])
    assert (info.x_label, info.missing) == ("weights_spad.depth", (32,))
    (panel,) = info.panels
    assert panel.x == (112, 224, 448)  # rising, in whichever order they were given
    assert next(iter(panel.parts)) == "compute" and "weights_spad" in panel.parts and "leakage" not in panel.parts
    for i, total in enumerate(panel.totals):
        assert sum(part[i] for part in panel.parts.values()) == pytest.approx(total)
    by_depth = {r["weights_spad.depth"]: r for r in table.totals("T8")}
    assert panel.totals == tuple(by_depth[x]["energy_per_mac_pj"] for x in panel.x)
    assert panel.totals[panel.best] == min(panel.totals)


def test_a_second_setting_of_few_values_gives_panels(found: Any) -> None:
    table = found({"glb_ifmap.depth": [1024, 2048, 4096], "weights_spad.depth": [112, 224]})
    info = curve_info(table, "T8", table.axes[0])
    assert [panel.title for panel in info.panels] == ["weights_spad.depth = 112", "weights_spad.depth = 224"]
    assert info.panels[1].totals == tuple(table.total(n, "T8")["energy_per_mac_pj"] for n in (2, 4, 6))
    other = curve_info(table, "T8", table.axes[1])
    assert [panel.x for panel in other.panels] == [(112, 224)] * 3


def test_of_more_settings_the_others_are_at_their_best(found: Any) -> None:
    table = found({"glb_ifmap.depth": [1024, 2048], "weights_spad.depth": [112, 224], "ifmap_spad.depth": [12, 24]})
    info = curve_info(table, "T8", table.axes[0])
    (panel,) = info.panels
    assert "other settings at their best" in info.title
    for x, total in zip(panel.x, panel.totals, strict=True):
        assert total == min(r["energy_per_mac_pj"] for r in table.totals("T8") if r["glb_ifmap.depth"] == x)


def test_no_curve_through_a_single_size(found: Any) -> None:
    table = found({"weights_spad.depth": [32, 112], "glb_ifmap.depth": [1024]})
    assert curve_info(table, "T8", table.axes[0]) is None
    assert curve_info(table, "T8", table.axes[1]) is None


def test_sizes_of_settings_that_vary_in_step(found: Any) -> None:
    table = found({}, zipped=[{"pe_column.meshX": [14, 14, 7], "pe_row.meshY": [12, 6, 12.0]}])
    assert curve_info(table, "T8", table.axes[0]).x_label == "step of pe_column.meshX, pe_row.meshY"
    table = found({}, zipped=[{"pe_column.meshX": [7, 14], "pe_row.meshY": [24, 12]}])
    info = curve_info(table, "T8", table.axes[0])
    assert info.x_label == "pe_column.meshX (others in step)" and info.panels[0].x == (7, 14)
    table = found({"pe_column.meshX,pe_row.meshY": [7, 14]})
    assert curve_info(table, "T8", table.axes[0]).x_label == "pe_column.meshX, pe_row.meshY"
    assert point_labels(table) == ["7", "14"]


def test_fronts(found: Any) -> None:
    table = found({"weights_spad.depth": [32, 112, 224]})
    info = pareto_info(table, ["T8", "BC8"])
    assert [panel.x_label for panel in info.panels] == ["delay (ms)", "on-chip storage (KB)"]
    delay, storage = info.panels
    assert [series.candidate for series in storage.series] == ["T8", "BC8"]
    for column, unit, panel in (("delay_s", 1e3, delay), ("on_chip_bits", 1 / 8192, storage)):
        series = panel.series[0]
        assert series.x == tuple(table.total(n, "T8")[column] * unit for n in (2, 3))
        assert series.energy_uj == tuple(table.total(n, "T8")["energy_pj"] / 1e6 for n in (2, 3))
        assert series.labels == ("112", "224") and series.front == (0,)
    assert info.label_meaning == "weights_spad.depth"


def test_delay_in_cycles_where_the_duration_of_one_is_not_known(found: Any, tmp_path: Path) -> None:
    arch = tmp_path / "arch.yaml"
    arch.write_text(ARCH.read_text().replace("  global_cycle_seconds: 1e-9\n", ""))
    table = found({"weights_spad.depth": [112, 224]}, arch=arch)
    assert {(r["delay_s"], r["edp_js"]) for r in table.summary} == {(None, None)}
    panel = pareto_info(table, ["T8"]).panels[0]
    assert panel.x_label == "cycles (millions)"
    assert panel.series[0].x == pytest.approx([r["cycles"] / 1e6 for r in table.totals("T8")])


def test_winners(found: Any) -> None:
    table = found({"glb_ifmap.depth": [1024, 2048], "weights_spad.depth": [32, 112]})
    info = winners_info(table, "T8")
    assert info.layers == ("first", "second", "like_first")
    assert (info.points, info.points_label) == (
        ("1024 / 32", "1024 / 112", "2048 / 32", "2048 / 112"),
        "glb_ifmap.depth / weights_spad.depth",
    )
    assert info.common == table.best("T8")["point"] - 1
    for relative, winner in zip(info.relative, info.winners, strict=True):
        assert relative[0] is None and relative[2] is None
        assert relative[winner] == 1 and min(relative[1], relative[3]) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"weights_spad.depth": [32, 112, 224]},
        {"glb_ifmap.depth": "1024:16384:x2", "weights_spad.depth": [112, 224]},
        {"pe_row.meshY": [12]},
        {"psum_spad.multiple_buffering": [100]},
    ],
)
def test_figures_are_drawn(found: Any, tmp_path: Path, settings: Any) -> None:
    table = found(settings, only=["T8"])
    candidates = [c for c in table.candidates if table.totals(c)]
    files = draw_figures(table, candidates, tmp_path)
    curves = sum(len(axis.steps) > 1 for axis in table.axes)
    assert len(files) == 2 * (curves + 2 if candidates else 0)
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG" if file.suffix == ".png" else b"<?xml")


def test_the_same_sweep_gives_the_same_figures(found: Any, tmp_path: Path) -> None:
    table = found({"weights_spad.depth": [112, 224]})
    first = [file.read_bytes() for file in draw_figures(table, ["BC8"], tmp_path)]
    assert [file.read_bytes() for file in draw_figures(table, ["BC8"], tmp_path)] == first
