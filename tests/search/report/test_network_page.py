"""The page of networks of one's own training loop has their numbers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from search import PageNetwork, write_network_page
from search.costs import share
from search.training.measures import Measure
from tests.search.tiny import tiny


@pytest.fixture
def table(make_table: Any) -> CostTable:
    found: CostTable = make_table(tiny())
    return found


def uniform(table: CostTable, name: str, value: float, **more: Any) -> PageNetwork:
    return PageNetwork(f"mine {name}", dict.fromkeys(table.layers, name), value, value, **more)


def mixed(table: CostTable, value: float, **more: Any) -> PageNetwork:
    names = ["T4" if i else "BC4" for i in range(len(table.layers))]
    return PageNetwork("my <network>", dict(zip(table.layers, names, strict=True)), value, value, **more)


def written(path: Path, table: CostTable, networks: list[PageNetwork], **more: Any) -> tuple[Any, str]:
    text = write_network_page(path, table, networks, **more).read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(data), text


def test_the_page_has_energies_gains_and_passes(tmp_path: Path, table: CostTable) -> None:
    networks = [uniform(table, "T8", 0.9), uniform(table, "BC4", 0.7), mixed(table, 0.8, image_passes=1000)]
    data, text = written(tmp_path / "page.html", table, networks, title="Mine")
    t8, bc4, found = data["networks"]
    assert [n["label"] for n in data["networks"]] == ["all T8", "all BC4", "my <network>"]
    assert found["energy"] == pytest.approx(share(table, networks[2].assignment)) and t8["energy"] == pytest.approx(1)
    assert found["gain"] == pytest.approx(0.1) and found["over"] == "BC4" and found["passes"] == 1000
    assert found["test"] == 0.8 and found["assignment"] == [table.candidates.index(c) for c in
                                                             networks[2].assignment.values()]  # fmt: skip
    assert data["start"] == 2 and found["weights"] is None and data["run"]["weights"] == []
    assert [p[0] for p in data["run"]["stairs"][0]["points"]][:1] == [pytest.approx(bc4["energy"])]
    assert "<title>Mine</title>" in text and "over the uniform network" in text.lower()
    assert "the gain on test images is +10.0 percentage points" in text


def test_uniform_networks_alone_have_a_page(tmp_path: Path, table: CostTable) -> None:
    data, _ = written(tmp_path / "page.html", table, [uniform(table, "T4", 0.8), uniform(table, "T8", 0.9)])
    assert data["start"] == 1, "it first shows the best one"


def test_each_seed_has_uniform_networks_of_its_own(tmp_path: Path, table: CostTable) -> None:
    networks = [uniform(table, "BC4", 0.7), mixed(table, 0.8), uniform(table, "BC4", 0.5, seed=1),
                mixed(table, 0.8, seed=1)]  # fmt: skip
    data, _ = written(tmp_path / "page.html", table, networks)
    assert [n.get("gain") for n in data["networks"]] == [None, pytest.approx(0.1), None, pytest.approx(0.3)]
    assert data["networks"][3]["label"] == "my <network>, seed 1"


def test_another_measure_and_layers_that_were_left_out(tmp_path: Path, table: CostTable) -> None:
    left_out = table.layers[0]
    networks = [uniform(table, "BC4", 3.0), mixed(table, 2.0)]
    networks = [replace(n, assignment={**n.assignment, left_out: "T8"}) for n in networks]
    data, text = written(tmp_path / "page.html", table, networks, exclude=[left_out],
                         measure=Measure("mae", higher_is_better=False, percent=False))  # fmt: skip
    assert [n["label"] for n in data["networks"]] == ["all BC4", "all T4"], "the rest of each is uniform"
    assert data["run"]["measure"] == {"name": "mae", "percent": False} and "mae of 3" not in text
    assert data["start"] == 1, "the smaller error is better"


def test_wrong_networks_are_one_line(tmp_path: Path, table: CostTable) -> None:
    t8 = uniform(table, "T8", 0.9)
    layer = table.layers[0]
    for networks, problem in [
        ([], r"^networks: is empty"),
        ([t8, uniform(table, "T4", 90.0)], r"^networks\[1\].validation: found 90.0 \(allowed: accuracy as a share"),
        ([uniform(table, "T4", True)], r"^networks\[0\].validation: found True"),
        ([replace(t8, assignment={layer: "T8"})], r"^networks\[0\].assignment: layer .* is missing"),
        ([replace(t8, assignment={**t8.assignment, "x": "T8"})], r"^networks\[0\].assignment: unknown layer 'x'"),
        ([replace(t8, assignment={**t8.assignment, layer: "T9"})], r"^networks\[0\].*T9"),
        ([t8, t8], r"^networks\[1\]: 'T8' of seed 0 is there twice"),
    ]:
        with pytest.raises(InputError, match=problem):
            write_network_page(tmp_path / "page.html", table, networks)
    with pytest.raises(InputError, match=r"no/page\.html"):
        write_network_page(tmp_path / "no" / "page.html", table, [t8])
