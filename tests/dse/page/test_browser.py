"""The page of a table in a real browser: what it shows under pointer and keyboard, and what it adds up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from dse.page import page_data, write_table_page
from dse.table.cost_table import CostTable
from dse.table.fill import map_workload
from dse.table.performance import performance
from dse.workload.layers import Layer, Workload
from tests.dse.fakes import FakeEngine
from tests.dse.page.browser import DARK, STILL, Browser, number, start
from tests.dse.page.tables import CANDIDATES, LAYERS, REASON, small_table

pytestmark = pytest.mark.browser

RESULTS = data_dir("arch_specs").parent / "results" / "squeezenet_cifar"
NAMES = tuple(name for _, _, name in CANDIDATES)
HOSTILE = (
    "<script>document.title='x'</script>",
    "</script><img src=x onerror=\"document.title='x'\">",
    "a&amp;b",
    "d: 'e'",
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Any:
    found = start(tmp_path_factory.mktemp("profile"))
    yield found
    found.quit()


@pytest.fixture
def browser(driver: Any) -> Any:
    return Browser(driver)


@pytest.fixture
def page(tmp_path: Path) -> Any:
    small_table().save(tmp_path / "small.csv")
    return write_table_page(tmp_path / "small.csv")


@pytest.fixture(scope="module")
def real_page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The shipped table of SqueezeNet with its sweep."""
    target = tmp_path_factory.mktemp("real") / "page.html"
    return write_table_page(RESULTS / "table.csv", target, sweep=RESULTS / "sweep" / "summary.csv")


def columns(browser: Any) -> Any:
    return browser.all("#network [role=option]")


def facts(browser: Any) -> Any:
    return dict(
        zip([e.text for e in browser.all("#layer dt")], [e.text for e in browser.all("#layer dd")], strict=True)
    )


def total(browser: Any) -> float:
    return float(browser.one("#what-if output").get_attribute("data-pj"))


def choose(browser: Any, layer: str, candidate: str) -> None:
    radio = browser.one(f"#what-if input[name='layer-{LAYERS.index(layer)}'][value='{NAMES.index(candidate)}']")
    browser.click(radio.find_element("xpath", ".."))


def test_a_real_table_opens_without_errors_requests_or_shifts(browser: Any, real_page: Any) -> None:
    browser.open(real_page)
    assert len(columns(browser)) == 26
    for column in columns(browser)[::5]:
        browser.hover(column)
    assert browser.shifted() == 0
    assert browser.problems() == []
    assert browser.requests() == [real_page.as_uri()]
    assert real_page.stat().st_size < 500_000


def test_nothing_moves_while_it_loads_slowly(browser: Any, real_page: Any) -> None:
    for _ in range(4):  # so slow that it is mostly seen before its script has run
        browser.open(real_page, slowdown=15)
        assert browser.shifted() == 0


def test_pointing_at_a_layer_shows_its_numbers(browser: Any, page: Any) -> None:
    browser.open(page)
    table = small_table()
    for column, layer in zip(columns(browser), LAYERS, strict=True):
        browser.hover(column)
        row = table.row(layer, "T8")
        energy = row["e_compute_pj"] + row["e_tx_pj"]
        assert browser.text("#layer h3") == f"{layer} T8"
        shown = facts(browser)
        assert number(shown["energy"]) == pytest.approx(energy / 1e3, rel=5e-3) and shown["energy"].endswith(" nJ")
        assert number(shown["operations"]) == row["n_ops"] and number(shown["cycles"]) == row["cycles"]
        assert shown["share of the network"] == f"{energy / table.total_pj(dict.fromkeys(LAYERS, 'T8')):.1%}".replace(
            "%", " %"
        )
        bars = {e.find_element("css selector", "span").text: number(e.find_element("css selector", ".number").text)
                for e in browser.all("#layer .spent > div")}  # fmt: skip
        expected = {"compute": row["e_compute_pj"]} | {
            f"{level} {tensor}": row[f"{level}.{tensor}.energy_pj"]
            for level, tensor in (("spad", "Weights"), ("glb", "Inputs"), ("dram", "Inputs"))
        }
        assert bars == {name: pytest.approx(pj / 1e3, rel=5e-3) for name, pj in expected.items()}
        ranked = sorted((c for c in NAMES if table.row(layer, c)["status"] == "ok"),
                        key=lambda c: table.energy_pj()[LAYERS.index(layer), NAMES.index(c)])  # fmt: skip
        cells = [[c.text for c in e.find_elements("css selector", "th, td")] for e in browser.all("#layer .ranking tr")]
        assert [c[0] for c in cells][: len(ranked)] == ranked
        for name, own, difference, _ in cells[: len(ranked)]:
            other = table.energy_pj()[LAYERS.index(layer), NAMES.index(name)]
            assert number(own) == pytest.approx(other / 1e3, rel=5e-3)
            assert (
                difference == "chosen"
                if name == "T8"
                else number(difference) == pytest.approx((other - energy) / 1e3, rel=5e-3)
            )


def test_a_table_with_shapes_shows_them_and_what_the_network_takes(browser: Any, tmp_path: Path) -> None:
    """The page's script and `dse.table.performance` agree, also for a mixture of candidates."""
    conv = Layer("conv", "conv", {"C": 4, "M": 300, "P": 6, "Q": 6, "R": 3, "S": 3})
    net = Workload(
        "net", (Layer("wte", "embedding", {"N": 5000, "M": 64}), conv, Layer("fc", "linear", {"C": 64, "M": 9}))
    )
    table = map_workload(net, engine=FakeEngine(), store=tmp_path / "store", candidates=load_candidates()[::6], jobs=1)
    table.save(tmp_path / "t.json")
    browser.open(write_table_page(tmp_path / "t.json"))
    assert browser.problems() == []
    said = []
    for column in columns(browser):
        browser.hover(column)
        said.append((browser.text("#layer .shape"), browser.text("#layer .nest").startswith("Nothing is mapped")))
    assert said == [("embedding: N5000 M64", True), ("conv: C4 M300 P6 Q6 R3 S3", False), ("linear: C64 M9", False)]
    browser.click(browser.one("#what-if input[name='layer-1'][value='1']").find_element("xpath", ".."))
    found = performance(table, {"wte": "T8", "conv": "BC8", "fc": "T8"})
    shown = {e.text.split("\n")[0]: e.text.split("\n")[1:] for e in browser.all("#what-if .total")}
    assert found.cycles is not None and found.weight_bytes is not None and found.off_chip_bytes is not None
    assert number(shown["cycles"][0]) == found.cycles
    assert number(shown["cycles"][1].split(" at ")[0]) == pytest.approx(found.cycles / 1e3, rel=5e-3)
    assert shown["cycles"][1].endswith(" µs at 1 GHz")
    busy, stalled = (f"{share:.1%}".replace("%", " %") for share in (found.utilisation, found.utilisation_with_stalls))
    assert shown["PEs busy"] == [busy, f"{stalled} with stalls"] and busy != stalled
    assert shown["weights"][0].endswith("KiB")
    assert number(shown["weights"][0]) == pytest.approx(found.weight_bytes / 1024, rel=5e-3)
    assert shown["weights"][1].endswith(" MiB off chip")
    assert number(shown["weights"][1].removesuffix("off chip")) == pytest.approx(found.off_chip_bytes / 2**20, rel=5e-3)


def test_the_loop_nest_has_its_levels_loops_and_axes(browser: Any, page: Any) -> None:
    browser.open(page)
    lines = [line.text.split("\n") for line in browser.all("#layer .nest > div")]
    assert [" ".join(" ".join(line).split()) for line in lines] == [
        "dram for Q in 0..3", "for P in 0..2, last run 1", "glb for M in 0..1",
        "inter_pe_spatial for C in 0..1 across X", "for S in 0..2 across X", "for R in 0..2 across Y",
        "spad for Q in 0..1",
    ]  # fmt: skip


def test_the_keyboard_moves_along_the_strip(browser: Any, page: Any) -> None:
    browser.open(page)
    browser.run("document.querySelector('#network [role=option][tabindex=\"0\"]').focus()")
    browser.keys("HOME")
    assert browser.focused().startswith("stem: T8") and browser.text("#layer h3") == "stem T8"
    browser.keys("ARROW_RIGHT", "ARROW_DOWN")
    assert browser.focused().startswith("wide.3x3: T8") and browser.text("#layer h3") == "wide.3x3 T8"
    browser.keys("END", "ARROW_RIGHT")
    assert browser.text("#layer h3") == "head T8"
    assert len(browser.all("#network [role=option][tabindex='0']")) == 1


def test_what_if_totals_are_the_tables(browser: Any, page: Any) -> None:
    browser.open(page)
    table = small_table()
    assignment = dict.fromkeys(LAYERS, "T8")
    assert total(browser) == table.total_pj(assignment)
    for layer, candidate in (("head", "BC2"), ("middle", "MF8"), ("stem", "T4"), ("head", "MF8")):
        choose(browser, layer, candidate)
        assignment[layer] = candidate
        assert total(browser) == table.total_pj(assignment)
    parts = {e.find_element("css selector", "small").text: e.find_element("css selector", "strong").text
             for e in browser.all("#what-if .total")}  # fmt: skip
    rows = [table.row(n, c) for n, c in assignment.items()]
    assert number(parts["cycles"]) == sum(r["cycles"] for r in rows)
    assert number(parts["compute"]) == pytest.approx(sum(r["e_compute_pj"] for r in rows) / 1e3, rel=5e-3)
    assert number(parts["transmission"]) == pytest.approx(sum(r["e_tx_pj"] for r in rows) / 1e3, rel=5e-3)
    share = table.total_pj(assignment) / table.total_pj(dict.fromkeys(LAYERS, "T8"))
    assert parts["of all T8"] == f"{share:.3f}"
    assert [c.get_attribute("aria-label").split(",")[0] for c in columns(browser)] == [
        f"{n}: {c}" for n, c in assignment.items()]  # fmt: skip
    assert yaml.safe_load(browser.run("return document.querySelector('#what-if pre').textContent")) == assignment
    browser.click(browser.one("#what-if .reset"))
    assert total(browser) == table.total_pj(dict.fromkeys(LAYERS, "T8"))


def test_only_on_chip_energy_counts_where_that_is_asked_for(browser: Any, tmp_path: Path) -> None:
    small_table().save(tmp_path / "t.parquet")
    browser.open(write_table_page(tmp_path / "t.parquet", transmission="on_chip"))
    choose(browser, "stem", "BC2")
    assert total(browser) == small_table().total_pj(dict.fromkeys(LAYERS, "T8") | {"stem": "BC2"}, "on_chip")
    assert [e.find_element("css selector", "span").text for e in browser.all("#layer .spent .skipped")] == [
        "dram Inputs"
    ]


def test_a_choice_without_a_mapping_cannot_be_made_and_says_why(browser: Any, page: Any) -> None:
    browser.open(page)
    (radio,) = browser.all("#what-if input:disabled")
    assert radio.get_attribute("aria-label") == f"middle BC2: no mapping, {REASON}"
    assert f"middle BC2: {REASON}" in browser.text("#what-if .refusals")
    browser.click(browser.one("#what-if [data-all=BC2]"))
    assert total(browser) == small_table().total_pj(dict.fromkeys(LAYERS, "BC2") | {"middle": "T8"})
    assert browser.text("#what-if .note") == "Unchanged, because they have no mapping for BC2: middle."


def test_what_if_by_keyboard(browser: Any, page: Any) -> None:
    browser.open(page)
    browser.run("document.querySelector('#what-if input[name=\"layer-0\"]:checked').focus()")
    browser.keys("ARROW_RIGHT", "ARROW_RIGHT")
    assert total(browser) == small_table().total_pj(dict.fromkeys(LAYERS, "T8") | {"stem": "MF8"})
    browser.keys("TAB", "ARROW_RIGHT")
    assert total(browser) == small_table().total_pj(dict.fromkeys(LAYERS, "T8") | {"stem": "MF8", "middle": "T4"})
    assert browser.text("#layer h3") == "middle T4"


def test_another_network_is_taken_as_the_start(browser: Any, page: Any) -> None:
    browser.open(page)
    button = next(b for b in browser.all("#uniform button") if b.text == "all MF8")
    browser.click(button)
    assert total(browser) == small_table().total_pj(dict.fromkeys(LAYERS, "MF8"))
    assert button.get_attribute("aria-pressed") == "true"
    least = next(b for b in browser.all("#uniform button") if b.text.startswith("least"))
    browser.click(least)
    table = small_table()
    assert total(browser) == pytest.approx(table.energy_pj().min(axis=1).sum(), rel=1e-12)


def test_names_of_layers_stay_text(browser: Any, tmp_path: Path) -> None:
    small_table(HOSTILE, lacking=[]).save(tmp_path / "odd.json")
    browser.open(write_table_page(tmp_path / "odd.json"))
    assert browser.problems() == [] and browser.run("return document.title") == "ENOS: small"
    for column, name in zip(columns(browser), HOSTILE, strict=True):
        browser.hover(column)
        assert browser.text("#layer h3") == f"{name} T8"
    assert browser.all("img") == [] and len(browser.all("script")) == 2
    text = browser.run("return document.querySelector('#what-if pre').textContent")
    assert yaml.safe_load(text) == dict.fromkeys(HOSTILE, "T8")


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(browser: Any, real_page: Any, width: Any) -> None:
    browser.open(real_page, width, 740)
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.run("return window.innerWidth") == width
    browser.hover(columns(browser)[-1])
    assert browser.text("#layer h3").startswith("conv10")
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.shifted() == 0


CONTRASTS = """
const channel = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const parse = (text) => {
  const parts = text.match(/[-.\\d]+(e-?\\d+)?/g).map(Number), unit = text.startsWith("rgb") ? 255 : 1;
  return { rgb: parts.slice(0, 3).map((v) => v / unit), alpha: parts[3] ?? 1 };
};
const luminance = ({ rgb }) => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = parse(getComputedStyle(e).backgroundColor);
    if (colour.alpha === 1) return colour;
  }
  return { rgb: [1, 1, 1] };
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || ["SCRIPT", "NOSCRIPT"].includes(element.tagName) || !element.checkVisibility()) continue;
  const style = getComputedStyle(element);
  const own_colour = parse(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
  const [a, b] = [own_colour, behind(element)].map(luminance);
  found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.textContent.slice(0, 40), element.className]);
}
return found;
"""


@pytest.mark.parametrize("features", [(), (DARK,)], ids=["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(browser: Any, real_page: Any, features: Any) -> None:
    browser.open(real_page, features=features)
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(int(v) for v in background[4:-1].split(",")) < 150) == bool(features)
    found = browser.run(CONTRASTS)
    assert len(found) > 500
    assert [entry for entry in found if entry[0] < 4.5] == []


def test_nothing_moves_for_those_who_do_not_want_it(browser: Any, page: Any) -> None:
    browser.open(page)
    durations = "return getComputedStyle(document.querySelector('.bar')).transitionDuration"
    assert browser.run(durations) == "0.2s"
    browser.open(page, features=(STILL,))
    assert browser.run(durations) == "0s"


def test_the_sweep_shows_its_least_points_and_its_numbers(browser: Any, real_page: Any) -> None:
    browser.open(real_page)
    marks = browser.all("#sweep .mark")
    assert len(marks) == 24
    browser.hover(marks[0])
    least = next(
        m for m in marks if "T8" in m.get_attribute("aria-label") and "(the least)" in m.get_attribute("aria-label")
    )
    browser.hover(least)
    assert browser.text("#sweep .readout") == (
        "T8, glb_ifmap.depth = 8192: 3.359 pJ per MAC, 679.3 µJ, 6\u2009735\u2009360 cycles (the least)")  # fmt: skip
    browser.run(
        "const s = document.querySelector('select[name=lines]'); s.value = 'T8'; s.dispatchEvent(new Event('change'))"
    )
    assert len(browser.all("#sweep .band")) == 9 and len(browser.all("#sweep .mark")) == 8
    browser.click(browser.one("#sweep summary"))
    rows = [r.text.split() for r in browser.all("#sweep tbody tr")]
    assert sum(map(float, rows[0][1:])) == pytest.approx(4.4718, rel=2e-3)
    assert browser.problems() == []


def test_the_page_of_a_table_and_python_agree_on_every_uniform_total(browser: Any, real_page: Any) -> None:
    browser.open(real_page)
    table = CostTable.load(RESULTS / "table.csv")
    for name in table.candidates:
        browser.click(browser.one(f"#what-if [data-all={name}]"))
        assert total(browser) == table.total_pj(dict.fromkeys(table.layers, name))
    assert page_data(table)["layers"][0]["cells"][0]["pj"] == table.energy_pj()[0, 0]
