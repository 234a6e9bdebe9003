"""The page of a run in a real browser: the plane of accuracy and energy, and what follows from a point of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dse.table.cost_table import CostTable
from search.report.run_page import write_report
from tests.dse.page.browser import DARK, Browser, number, start
from tests.search.conftest import RELATIVE
from tests.search.tiny import tiny

pytestmark = pytest.mark.browser

LAYERS = ("conv", "fc")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    found = start(tmp_path_factory.mktemp("profile"))
    yield found
    found.quit()


@pytest.fixture
def table(make_table: Any) -> CostTable:
    found: CostTable = make_table(tiny())
    return found


def baseline(candidate: str, seed: int, accuracy: float) -> dict[str, Any]:
    return {"kind": "baseline", "seed": seed, "candidate": candidate, "energy": RELATIVE[candidate],
            "validation_accuracy": accuracy, "test_accuracy": accuracy}  # fmt: skip


def found(table: CostTable, accuracy: float, *names: str) -> dict[str, Any]:
    """What a search and a population have in common of a network."""
    assignment = dict(zip(LAYERS, names, strict=True))
    unit = table.total_pj(dict.fromkeys(LAYERS, "T8"))
    return {"energy": table.total_pj(assignment) / unit, "validation_accuracy": accuracy + 0.01,
            "test_accuracy": accuracy, "above_line": accuracy - 0.9, "assignment": assignment}  # fmt: skip


@pytest.fixture
def page(table: CostTable, tmp_path: Path) -> Path:
    weights = {layer: {"T8": 0.5, "BC8": 0.3, "MF4": 0.2} for layer in LAYERS}
    search = {"kind": "searched", "lambda": 0.5, "budget": None, "energy_expected": 0.6, "probabilities": weights}
    cycles = [{"cycle": 1, "layer": "fc", "candidate": "MF4", "weight": 0.75},
              {"cycle": 2, "layer": "conv", "candidate": "T4", "weight": 0.5}]  # fmt: skip
    members = [
        {"sample": 1, "count": 2, **found(table, 0.93, "T8", "MF4")},
        {"sample": 3, "count": 1, **found(table, 0.80, "BC2", "BC4")},
    ]
    networks = [
        *(baseline(name, seed, 0.86 + 0.04 * i + 0.003 * seed)
          for seed in (0, 1) for i, name in enumerate(("BC8", "MF8", "T8"))),
        {**search, "seed": 0, **found(table, 0.93, "T8", "MF4")},
        {**search, "seed": 1, **found(table, 0.91, "T4", "MF4"), "cycles": cycles},
    ]  # fmt: skip
    results = {
        "name": "<b>small</b>", "unit_pj": table.total_pj(dict.fromkeys(LAYERS, "T8")), "transmission": "all",
        "networks": networks,
        "populations": [{"seed": 0, "lambda": 0.5, "budget": None, "selected": 1, "networks": members}],
    }  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (tmp_path / "config.yaml").write_text("name: </pre><script>document.title = 'x'</script>\n", encoding="utf-8")
    table.save(tmp_path / "table.csv")
    return write_report(tmp_path)


@pytest.fixture
def browser(driver: Any, page: Path) -> Browser:
    return Browser(driver).open(page)


def mark(browser: Browser, name: str) -> Any:
    (element,) = [m for m in browser.all("#plane .mark") if m.get_attribute("aria-label").startswith(f"{name}:")]
    return element


def figures(browser: Browser) -> dict[str, str]:
    names, values = (browser.all(f"#plane .network-card {tag}") for tag in ("dt", "dd"))
    return {n.text: v.text for n, v in zip(names, values, strict=True)}


def test_the_gain_of_a_found_network_names_what_it_is_over(browser: Browser) -> None:
    browser.hover(mark(browser, "searched, lambda 0.5, seed 0"))
    # T8 and MF4 cost less than all T8 and more than all MF8, which has 90 % on seed 0
    assert figures(browser)["gain over the best uniform one at no more energy"] == "+3.0 points, over all MF8"
    assert "+3.0 (MF8)" in browser.text("#networks")


def strip(browser: Browser) -> list[str]:
    return [column.get_attribute("aria-label").split(",")[0] for column in browser.all("#network [role=option]")]


def total(browser: Browser) -> float:
    return float(browser.one("#what-if output").get_attribute("data-pj"))


def test_it_opens_with_the_best_network_and_without_errors(browser: Browser, page: Path, table: CostTable) -> None:
    assert browser.problems() == [] and browser.requests() == [page.as_uri()]
    assert browser.run("return document.title") == "ENOS: <b>small</b>"
    assert len(browser.all("#plane .mark")) == 9 and len(browser.all("#plane .line")) >= 6  # lines and staircases
    assert strip(browser) == ["conv: T8", "fc: MF4"]
    assert total(browser) == table.total_pj({"conv": "T8", "fc": "MF4"})
    assert "lie above the line" in browser.text("#findings")
    assert browser.shifted() == 0


def test_a_point_shows_its_figures_and_its_assignment_while_it_is_pointed_at(
    browser: Browser, table: CostTable
) -> None:
    browser.hover(mark(browser, "searched, lambda 0.5, seed 0, sample 3"))
    shown = figures(browser)
    assignment = {"conv": "BC2", "fc": "BC4"}
    unit = table.total_pj(dict.fromkeys(LAYERS, "T8"))
    assert number(shown["energy"]) == pytest.approx(table.total_pj(assignment) / 1e3, rel=5e-3)
    assert shown["of all T8"] == f"{table.total_pj(assignment) / unit:.3f}"
    assert (shown["test"], shown["validation"], shown["drawn"]) == ("80.0 %", "81.0 %", "once")
    assert shown["gain over the best uniform one at no more energy"] == "no uniform network is as cheap"
    assert shown["above the uni-operator line"] == "–"  # cheaper than all that the line goes through
    assert strip(browser) == ["conv: BC2", "fc: BC4"]
    browser.hover(browser.one("h1"))
    assert strip(browser) == ["conv: T8", "fc: MF4"]
    assert browser.text("#plane .network-card h3") == "searched, lambda 0.5, seed 0"
    assert browser.shifted() == 0


def test_a_click_keeps_a_network_and_what_if_begins_there(browser: Browser, table: CostTable) -> None:
    browser.hover(mark(browser, "all BC8, seed 1"))
    mark(browser, "all BC8, seed 1").click()
    browser.hover(browser.one("h1"))
    assert strip(browser) == ["conv: BC8", "fc: BC8"]
    assert total(browser) == table.total_pj(dict.fromkeys(LAYERS, "BC8"))
    assert mark(browser, "all BC8, seed 1").get_attribute("aria-pressed") == "true"
    radio = browser.one(f"input[name='layer-1'][value='{table.candidates.index('T2')}']")
    browser.click(radio.find_element("xpath", ".."))
    assert total(browser) == table.total_pj({"conv": "BC8", "fc": "T2"})
    assert "1 changed" in browser.text("#network .caption")
    browser.click(browser.one("#what-if .reset"))
    assert total(browser) == table.total_pj(dict.fromkeys(LAYERS, "BC8"))


def test_points_by_keyboard(browser: Browser) -> None:
    browser.run("document.querySelector('#plane .mark[tabindex=\"0\"]').focus()")
    browser.keys("HOME")
    assert browser.focused().startswith("searched, lambda 0.5, seed 0, sample 3:")
    assert strip(browser) == ["conv: BC2", "fc: BC4"]
    browser.keys("END")
    assert browser.focused().startswith("all T8, seed 0:") and strip(browser) == ["conv: T8", "fc: T8"]
    browser.keys("ENTER", "TAB")
    assert strip(browser) == ["conv: T8", "fc: T8"]
    assert len(browser.all("#plane .mark[tabindex='0']")) == 1


def test_tables_of_networks_weights_cycles_and_the_population(browser: Browser) -> None:
    rows = [row.text.split("\n") for row in browser.all("#networks tbody tr")]
    assert len(rows) == 8 and " ".join(rows[-1]).startswith("searched, lambda 0.5, seed 1 1 ")
    for summary in browser.all("#run details:not([open]) summary"):
        browser.click(summary)
    text = browser.text("#run")
    assert "Cycles of lambda 0.5, seed 1" in text and "Population of lambda 0.5, seed 0" in text
    cycles, population = browser.all("#run details table")
    assert [row.text.split() for row in cycles.find_elements("css selector", "tbody tr")] == [
        ["1", "fc", "MF4", "0.750"], ["2", "conv", "T4", "0.500"]]  # fmt: skip
    decided = cycles.find_elements("css selector", ".mini")[0].get_attribute("aria-label")
    assert decided == "conv open, fc MF4"
    assert [b.text for b in population.find_elements("css selector", "button")] == ["sample 1 *", "sample 3"]
    browser.click(population.find_elements("css selector", "button")[1])
    assert strip(browser) == ["conv: BC2", "fc: BC4"]
    assert [w.text for w in browser.all("#run .weight")] == ["0.50", "0.20", "0.30"] * 2


@pytest.mark.parametrize("width", [360, 768])
def test_it_fits_a_phone_in_the_dark(driver: Any, page: Path, width: int) -> None:
    browser = Browser(driver).open(page, width, 740, features=(DARK,))
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    red, green, blue = browser.run("return getComputedStyle(document.body).backgroundColor")[4:-1].split(",")
    assert int(red) + int(green) + int(blue) < 150
    assert browser.problems() == []
