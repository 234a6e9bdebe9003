"""What a run's figures and page say, from results made by hand."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dse.errors import InputError
from dse.table import CostTable
from search.networks.squeezenet import squeezenet_cifar
from search.plots import breakdown_info, colour, operator_map_info, trade_off_info
from search.report import best, findings, layer_rows, summary, write_report
from search.results import labels, line_accuracy, uni_operator_line
from tests.search.conftest import COMPUTE_SHARE, PJ_PER_MAC, RELATIVE

DECLARED = labels({})


def baseline(candidate: str, seed: int, accuracy: float) -> dict[str, Any]:
    return {"kind": "baseline", "seed": seed, "candidate": candidate, "energy": RELATIVE[candidate], "energy_pj": 1.0,
            "validation_accuracy": accuracy, "test_accuracy": accuracy}  # fmt: skip


def searched(layers: tuple[str, ...], seed: int, accuracy: float, gap: float) -> dict[str, Any]:
    return {"kind": "searched", "seed": seed, "lambda": 0.5, "energy": 0.5, "energy_pj": 1.0, "energy_expected": 0.55,
            "validation_accuracy": accuracy, "test_accuracy": accuracy, "above_line": gap,
            "assignment": {n: "T4" if i % 2 else "BC8" for i, n in enumerate(layers)},
            "probabilities": {n: {"T4": 0.75 if i % 2 else 0.25, "BC8": 0.25 if i % 2 else 0.75}
                              for i, n in enumerate(layers)}}  # fmt: skip


@pytest.fixture
def table(make_table: Any) -> CostTable:
    found: CostTable = make_table(squeezenet_cifar(width=0.125, in_channels=1, image=8))
    return found


@pytest.fixture
def networks(table: CostTable) -> list[dict[str, Any]]:
    return [
        baseline("T8", 0, 0.96), baseline("MF8", 0, 0.90), baseline("BC8", 0, 0.88), baseline("T4", 0, 0.93),
        baseline("T8", 1, 0.94), baseline("MF8", 1, 0.92), baseline("BC8", 1, 0.86), baseline("T4", 1, 0.95),
        searched(table.layers, 0, 0.95, 0.06), searched(table.layers, 1, 0.85, -0.01),
    ]  # fmt: skip


def test_the_line_joins_the_widest_uni_operator_networks_only(networks: list[dict[str, Any]]) -> None:
    line = uni_operator_line([p for p in networks if p["kind"] == "baseline" and p["seed"] == 0], DECLARED)
    assert line == [(0.49, 0.88), (0.69, 0.90), (1.0, 0.96)]
    assert line_accuracy(line, 0.59) == pytest.approx(0.89)
    assert line_accuracy(line, 0.2) == 0.88
    assert line_accuracy(line, 1.0) == 0.96


def test_breakdown_adds_up_to_the_energy_of_the_assignment(table: CostTable) -> None:
    assignment = dict.fromkeys(table.layers, "MF4")
    info = breakdown_info(table, assignment)
    assert info.parts == ("compute", "dram", "glb")
    assert sum(map(sum, info.energy_uj)) == pytest.approx(table.total_pj(assignment) * 1e-6)
    assert sum(row[0] for row in info.energy_uj) == pytest.approx(
        COMPUTE_SHARE * RELATIVE["MF4"] * PJ_PER_MAC * table.n_ops.sum() * 1e-6
    )


def test_operator_map_has_the_shares_and_the_choice(networks: list[dict[str, Any]]) -> None:
    info = operator_map_info(networks[-1], DECLARED)
    assert info.candidates == ("T4", "BC8")
    assert info.chosen[:2] == (1, 0) and info.shares[0] == (0.25, 0.75)


def test_trade_off_keeps_every_seed_and_joins_means(networks: list[dict[str, Any]]) -> None:
    info = trade_off_info(networks, DECLARED)
    assert info.line == tuple((e, pytest.approx(a)) for e, a in ((0.49, 87), (0.69, 91), (1.0, 95)))
    assert info.baselines["T4"] == ((0.53, pytest.approx(93)), (0.53, pytest.approx(95)))
    assert len(info.searched["lambda 0.5"]) == 2 and info.seeds == (0, 1)


def test_colours_are_distinct() -> None:
    assert len({colour(name, DECLARED) for name in RELATIVE}) == len(RELATIVE)


def test_layer_rows_share_out_the_whole_energy(table: CostTable, networks: list[dict[str, Any]]) -> None:
    rows = layer_rows(table, networks[-1]["assignment"], DECLARED)
    assert len(rows) == 26 and rows[0][0] == "conv1" and rows[0][2] == "8" and "binary connect" in rows[0][1]
    assert sum(float(row[4].rstrip("%")) for row in rows) == pytest.approx(100, abs=1.5)
    assert rows[0][5] == "0.49" and rows[1][5] == "0.53"


def test_layer_rows_count_the_levels_that_the_run_counts(table: CostTable) -> None:
    assignment = dict.fromkeys(table.layers, "T8")
    everything, on_chip = (float(layer_rows(table, assignment, DECLARED, t)[0][3]) for t in ("all", "on_chip"))
    assert on_chip == pytest.approx(everything * (1 + COMPUTE_SHARE) / 2, rel=0.01)


def test_findings_name_savings_and_failures(table: CostTable, networks: list[dict[str, Any]]) -> None:
    text = " ".join(findings(networks, table))
    assert "1 of 2 lie above the line" in text and "mean distance is +2.5 percentage points" in text
    assert "All T8: 95.0% at 1.00" in text
    assert "need 0.50 of the all-T8 energy (expected before discretisation: 0.55)" in text
    costly = table.layers[int(table.n_ops.argmax())]
    assert f"cost most are {costly} " in text


def test_the_shown_network_is_chosen_on_validation(networks: list[dict[str, Any]]) -> None:
    networks[-1]["validation_accuracy"] = 0.99
    assert best(networks) is networks[-1]


class Page(HTMLParser):
    """Collects what a browser would fetch, and the elements left open."""

    void = ("meta", "path", "use", "rect", "br")

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)
        self.fetched += [v or "" for k, v in attributes if k in ("src", "href", "xlink:href") and v and v[0] != "#"]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_self_contained(table: CostTable, networks: list[dict[str, Any]], tmp_path: Path) -> None:
    results = {"name": "x<y", "unit_pj": 1e6, "transmission": "all", "networks": networks}
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "config.yaml").write_text("name: <x>\n")
    table.save(tmp_path / "table.csv")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.fetched == [] and page.open == [] and "<script" not in text and "@import" not in text
    assert text.count("<svg") == 3 and "x&lt;y" in text and "&lt;x&gt;" in text and "prefers-color-scheme" in text
    assert all(layer in text for layer in table.layers)
    for name in ("trade_off", "operator_map", "breakdown"):
        with Image.open(tmp_path / "figures" / f"{name}.png") as image:
            assert image.width > 600
    assert write_report(tmp_path).read_text(encoding="utf-8") == text
    lines = summary(results).splitlines()
    assert len(lines) == 2 + len(networks) and "searched, lambda 0.5" in lines[-1] and "-1.0" in lines[-1]


def test_folders_without_a_finished_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no finished run"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(InputError, match=r"results.json: is damaged"):
        write_report(tmp_path)
