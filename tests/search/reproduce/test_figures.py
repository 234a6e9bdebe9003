"""What the figures show is what the runs found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dse.table.cost_table import CostTable
from search.reproduce.figures import assignments, fig4, planes
from search.reproduce.panels import compared, difference, panel_data, saving, summary_rows
from search.reproduce.protocol import Panel

TABLE = Path(__file__).parents[3] / "results" / "squeezenet_cifar" / "table.csv"
PANEL = Panel("Two layers", "base", {"one": "base", "other": "other"})


def baseline(candidate: str, seed: int, energy: float, accuracy: float) -> dict[str, Any]:
    return {"kind": "baseline", "seed": seed, "candidate": candidate, "energy": energy, "test_accuracy": accuracy,
            "validation_accuracy": accuracy}  # fmt: skip


def found(seed: int, energy: float, accuracy: float, lam: float | None = None, **more: Any) -> dict[str, Any]:
    return {"kind": "searched", "seed": seed, "lambda": lam, "budget": None if lam else 0.7, "energy": energy,
            "energy_expected": energy, "test_accuracy": accuracy, "validation_accuracy": accuracy,
            "assignment": {"a": "T8", "b": "BC8"}, **more}  # fmt: skip


@pytest.fixture
def results() -> dict[str, Any]:
    lines = [baseline(c, s, e, acc + 0.1 * s) for s in (0, 1) for c, e, acc in (("T8", 1, 0.6), ("BC8", 0.5, 0.4))]
    sample = {"sample": 1, "count": 2, "energy": 0.6, "test_accuracy": 0.45, "validation_accuracy": 0.4,
              "assignment": {"a": "T8", "b": "BC4"}}  # fmt: skip
    populations = [{"seed": 0, "lambda": lam, "budget": None, "selected": 1,
                    "networks": [{**sample, "energy": 0.6 / lam}, {**sample, "sample": 2, "energy": 0.5 / lam}]}
                   for lam in (1.0, 2.0)]  # fmt: skip
    cycles = [{"cycle": 1, "layer": "b", "candidate": "BC8", "weight": 0.9},
              {"cycle": 2, "layer": "a", "candidate": "T8", "weight": 0.8}]  # fmt: skip
    return {
        "base": {"networks": [*lines, found(0, 0.75, 0.6), found(1, 0.75, 0.5)], "populations": []},
        "other": {"networks": [found(0, 0.75, 0.5, cycles=cycles), found(1, 0.7, 0.6)], "populations": populations},
    }


def test_distance_from_the_line_of_the_own_seed(results: dict[str, Any]) -> None:
    data = panel_data(PANEL, results)
    assert [p["above_line"] for p in data.series["one"]] == pytest.approx([0.1, -0.1])
    assert difference(data.series["one"], data.series["other"]) == pytest.approx([10, -10])
    row = next(row for row in summary_rows(data) if row[0] == "one")
    assert row[1:] == ["2", "0.750", "55.0% (60.0, 50.0)", "+0.0 (+10.0, -10.0)", "+10.0 (+20.0, +0.0)"]
    assert [p["over"] for p in data.series["one"]] == ["BC8", "BC8"]
    assert planes.mean_line(data.baselines) == [(0.5, pytest.approx(0.45)), (1, pytest.approx(0.65))]


def test_left_of_the_line_there_is_no_distance(results: dict[str, Any]) -> None:
    lines = results["base"]["networks"][:4]  # the cheapest, all BC8, needs 0.5
    results["base"]["networks"] = [*lines, found(0, 0.49, 0.9), found(1, 0.75, 0.5)]
    data = panel_data(PANEL, results)
    assert [p["above_line"] for p in data.series["one"]] == [None, pytest.approx(-0.1)]
    row = next(row for row in summary_rows(data) if row[0] == "one")
    assert row[-2:] == ["-10.0", "+0.0"], "a network without a distance does not count in the mean"
    assert next(r for r in data.table() if r["series"] == "one")["above_line"] is None
    (claim,) = (c for c in planes.fig8([PANEL], results).claims if "one against the uni-operator line" in c.claim)
    assert claim.ours == "-10.0 points"
    results["base"]["networks"] = [*lines, found(0, 0.49, 0.9)]
    assert not [c for c in planes.fig8([PANEL], results).claims if "one against the uni-operator line" in c.claim]


def test_a_direction_is_clear_beyond_its_standard_error_only() -> None:
    assert compared("", "", []) is None
    for points, agrees in (([3, 4, 5], True), ([-3, -4, -5], False), ([-3, 4, 1], None), ([9.0], None)):
        claim = compared("x", "y", points)
        assert claim is not None and claim.agrees is agrees
    claim = compared("x", "y", [3.0, 4.0])
    assert claim is not None and claim.ours == "+3.5 points (+3.0, +4.0)"


@pytest.mark.parametrize(
    ("accuracies", "agrees"),
    [((0.59, 0.69), True), ((0.5, 0.6), False), ((0.56, 0.68), None), ((0.59,), None)],
    ids=["small loss", "large loss", "within the standard error", "one seed"],
)
def test_a_loss_is_small_or_not_beyond_its_standard_error_only(
    results: dict[str, Any], accuracies: tuple[float, ...], agrees: bool | None
) -> None:
    lines = results["base"]["networks"][:4]  # all T8 has 60 % on seed 0 and 70 % on seed 1
    results["base"]["networks"] = [*lines, *(found(seed, 0.75, a) for seed, a in enumerate(accuracies))]
    assert saving(panel_data(PANEL, results), "", "", limit=3.0).agrees is agrees


def test_every_plane_has_a_row_a_network(results: dict[str, Any]) -> None:
    for make, rows in ((planes.fig7, 8), (planes.fig8, 8), (planes.fig10, 8), (planes.fig9, 10)):
        artefact = make([PANEL], results)
        assert len(artefact.rows) == rows
        assert artefact.texts["title"].startswith("Fig. ") and artefact.ours
    fall = planes.fig9([PANEL], results).claims[0]
    assert fall.agrees and fall.ours == "0.55, 0.28"


def test_data_that_are_not_the_official_set_are_named(results: dict[str, Any]) -> None:
    assert not any("Note:" in text for text in planes.fig10([PANEL], results).ours)
    results["base"]["data"] = {"notice": "emnist on disk is not the official set"}
    assert "Note: emnist on disk is not the official set." in planes.fig10([PANEL], results).ours


def test_fig5_has_a_coloured_row_a_network(results: dict[str, Any]) -> None:
    artefact = assignments.fig5([Panel("Two layers", "base", {"one": "base"})], results)
    labels = [t.get_text() for t in artefact.figure.axes[0].get_yticklabels()]
    assert labels == ["all T8: 65.0% at 1.00", "all BC8: 45.0% at 0.50", "budget 0.7, seed 0: 60.0% at 0.75",
                      "budget 0.7, seed 1: 50.0% at 0.75"]  # fmt: skip
    assert [t.get_text() for t in artefact.figure.axes[0].texts] == ["T8", "T8", "BC8", "BC8", "T8", "BC8", "T8", "BC8"]
    loss, ends = artefact.claims
    assert loss.ours == "10.0 points (0.0, 20.0) at 0.75 (one)" and loss.agrees is None
    assert ends.ours == "a in 2, b in 0 of 2 networks" and not ends.agrees


def test_fig6_fills_a_layer_a_cycle(results: dict[str, Any]) -> None:
    artefact = assignments.fig6([Panel("x", "base", {"sequential": "other", "stochastic": "other"})], results)
    cycles, samples = artefact.figure.axes
    assert [t.get_text() for t in cycles.texts] == ["BC8", "T8", "BC8"]
    assert [t.get_text() for t in samples.get_yticklabels()] == [
        "sample 1 (best): 45.0% at 0.60",
        "sample 2: 45.0% at 0.50",
    ]
    assert "the first layers assigned are b, a" in artefact.ours[0]


def test_fig4_adds_up_to_the_table() -> None:
    table = CostTable.load(TABLE)
    operations = {o.candidate: o for o in fig4.per_operation(table)}
    for name, o in operations.items():
        total = (o.compute + o.on_chip + o.off_chip) * float(table.n_ops.sum())
        assert total == pytest.approx(table.total_pj(dict.fromkeys(table.layers, name)), rel=1e-12)
    rows = fig4.fire_layers(table, "expand3x3")
    assert len(rows) == 8 * 3
    fire4 = next(r for r in rows if (r["layer"], r["candidate"]) == ("fire4", "MF8"))
    layer = table.energy_pj()[table.layers.index("fire4.expand3x3"), table.candidates.index("MF8")]
    assert float(fire4["compute_uj"]) + float(fire4["on_chip_uj"]) + float(fire4["off_chip_uj"]) == pytest.approx(
        layer * 1e-6
    )
    ratio = next(c for c in fig4.reproduce(table).claims if c.paper == "about 11.5")
    assert ratio.ours == f"{operations['T8'].compute / operations['BC8'].compute:.1f}"
