"""What a run's figures and page say, from results made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from search.networks.squeezenet import squeezenet_cifar
from search.report.figures import breakdown_info, colour, operator_map_info, trade_off_info
from search.report.page_data import run_data, staircases, uni_operator_lines
from search.report.run_page import best, findings, summary, write_report
from search.report.text import details
from search.runs.results import better_throughout, labels, line_accuracy, uni_operator_line, with_gains
from tests.search.conftest import COMPUTE_SHARE, PJ_PER_MAC, RELATIVE

DECLARED = labels({})
DATA = {"name": "digits", "train": 90, "validation": 10, "test": 20, "subset": None, "notice": "small"}


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


def test_a_candidate_that_is_better_throughout_is_named(table: CostTable, networks: list[dict[str, Any]]) -> None:
    found = [p for p in networks if p["kind"] == "searched"]
    assert better_throughout(found, networks) == []  # T4 is more accurate and dearer, BC8 cheaper and less accurate
    cheaper = [{**p, "energy": 0.49} if p.get("candidate") == "T4" else p for p in networks]
    assert better_throughout(found, cheaper) == ["T4"]
    assert better_throughout(found[:1], cheaper) == []  # on seed 0 alone 95 % are found and all T4 has 93 %
    assert any("Nothing was gained by searching: all T4" in text for text in findings(cheaper, table))
    assert not any("Nothing was gained" in text for text in findings(networks, table))
    results = {"networks": [{**p, "latency": 1.0} for p in cheaper], "populations": [], "data": DATA}
    assert any(text.startswith("note: all T4 cost no more than what was searched with lambda 0.5") for text in
               details(results))  # fmt: skip


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
    # BC8, T4, T8: all MF8 (91) is beaten by all T4 (94), which is cheaper
    corners = [(0.49, 87), (0.53, 87), (0.53, 94), (1.0, 94), (1.0, 95), (1.0, 95)]
    assert info.stairs == tuple((e, pytest.approx(a)) for e, a in corners)


def test_colours_are_distinct() -> None:
    assert len({colour(name, DECLARED) for name in RELATIVE}) == len(RELATIVE)


def test_findings_name_savings_and_failures(table: CostTable, networks: list[dict[str, Any]]) -> None:
    text = " ".join(findings(networks, table))
    assert "1 of 2 lie above the line" in text and "mean distance is +2.5 percentage points" in text
    assert "all T8 95.0% at 1.00" in text
    assert "need 0.50 of the all-T8 energy (expected before discretisation: 0.55)" in text
    costly = table.layers[int(table.n_ops.argmax())]
    assert f"cost most are {costly} " in text


def test_the_shown_network_is_chosen_on_validation(networks: list[dict[str, Any]]) -> None:
    networks[-1]["validation_accuracy"] = 0.99
    assert best(networks) is networks[-1]


def results_of(networks: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"name": "x<y", "unit_pj": 1e6, "transmission": "all", "networks": networks, "populations": [],
            "data": DATA} | more  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, table: CostTable, networks: list[dict[str, Any]]) -> Path:
    (tmp_path / "results.json").write_text(json.dumps(results_of(networks)))
    (tmp_path / "config.yaml").write_text("name: <x>\n")
    table.save(tmp_path / "table.csv")
    return tmp_path


def data_of(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    start = text.index('id="data">') + len('id="data">')
    found: dict[str, Any] = json.loads(text[start : text.index("</script>", start)])
    return found


def test_the_page_has_every_network_and_its_text(
    table: CostTable, networks: list[dict[str, Any]], folder: Path
) -> None:
    page = write_report(folder)
    text, data = page.read_text(encoding="utf-8"), data_of(page)
    assert "x&lt;y" in text and "&lt;x&gt;" in text and "<x>" not in text
    assert "Data: digits, 90 / 10 / 20 images" in text and "; note: small." in text
    assert "1 of 2 lie above the line" in text and f"enos search {folder / 'config.yaml'}" in text
    assert [n["test"] for n in data["networks"]] == [p["test_accuracy"] for p in networks]
    assert data["start"] == 8 and data["networks"][8]["label"] == "searched, lambda 0.5, seed 0"
    assert data["networks"][0]["assignment"] == [0] * 26
    assert data["networks"][8]["energy_pj"] == table.total_pj(networks[8]["assignment"])
    assert data["run"]["weights"][0][0][table.candidates.index("BC8")] == 0.75
    for name in ("trade_off", "operator_map", "breakdown"):
        with Image.open(folder / "figures" / f"{name}.png") as image:
            assert image.width > 600
    assert write_report(folder).read_text(encoding="utf-8") == text


def test_the_page_goes_where_it_is_told(folder: Path, tmp_path: Path) -> None:
    page = write_report(folder, tmp_path / "elsewhere.html")
    assert page == tmp_path / "elsewhere.html" and page.is_file() and not (folder / "report.html").exists()
    assert f"enos report &#x27;again/x&lt;y&#x27; --output {page}" in page.read_text(encoding="utf-8")


def test_the_summary_has_a_row_a_network(networks: list[dict[str, Any]]) -> None:
    lines = summary(results_of(networks)).splitlines()
    assert len(lines) == 2 + len(networks) and "searched, lambda 0.5" in lines[-1] and "-1.0" in lines[-1]


def test_a_population_adds_its_networks_and_names_the_selected_once(
    table: CostTable, networks: list[dict[str, Any]]
) -> None:
    drawn = searched(table.layers, 1, 0.85, -0.01)
    shared = ("kind", "seed", "lambda", "budget", "energy_expected", "probabilities")
    members: list[dict[str, Any]] = [{k: v for k, v in drawn.items() if k not in shared} for _ in range(2)]
    members[0] |= {"sample": 1, "count": 3}
    members[1] |= {"sample": 4, "count": 1, "test_accuracy": 0.5, "assignment": dict.fromkeys(table.layers, "T4")}
    population = {"seed": 1, "lambda": 0.5, "budget": None, "selected": 1, "networks": members}
    found = run_data(results_of(networks, populations=[population]), table, DECLARED, networks[8])
    assert len(found["networks"]) == len(networks) + 1
    assert found["run"]["populations"] == [{"title": "Population of lambda 0.5, seed 1", "networks": [9, 10]}]
    assert found["networks"][9]["count"] == 3 and found["networks"][9]["selected"]
    other = found["networks"][10]
    assert (other["kind"], other["sample"], other["weights"], other["test"]) == ("sampled", 4, 1, 0.5)
    assert set(other["assignment"]) == {table.candidates.index("T4")}


def test_cycles_become_rows_of_the_page(table: CostTable, networks: list[dict[str, Any]]) -> None:
    networks[8]["cycles"] = [{"cycle": 1, "layer": "fire2.squeeze", "candidate": "BC8", "weight": 0.25}]
    (cycles,) = run_data(results_of(networks), table, DECLARED, networks[8])["run"]["cycles"]
    row = {"cycle": 1, "layer": 1, "candidate": table.candidates.index("BC8"), "weight": 0.25}
    assert cycles == {"title": "Cycles of lambda 0.5, seed 0", "rows": [row]}


def test_a_line_for_each_seed_and_for_the_means(networks: list[dict[str, Any]]) -> None:
    lines = uni_operator_lines(networks, DECLARED)
    assert [line["seed"] for line in lines] == [0, 1, None]
    assert lines[0]["points"] == [[0.49, 88], [0.69, 90], [1.0, 96]]
    assert lines[2]["points"] == [[e, pytest.approx(a)] for e, a in ((0.49, 87), (0.69, 91), (1.0, 95))]
    assert uni_operator_lines([p for p in networks if p["kind"] == "searched"], DECLARED) == []


def test_a_staircase_for_each_seed_and_for_the_means(networks: list[dict[str, Any]]) -> None:
    stairs = staircases(networks)
    assert [s["seed"] for s in stairs] == [0, 1, None]
    # of seed 1, all T4 is better than all T8: there is no step at 1
    assert stairs[1]["points"] == [[0.49, 86], [0.53, 86], [0.53, 95], [1.0, 95]]
    assert staircases([p for p in networks if p["kind"] == "searched"]) == []


def test_the_gain_over_the_best_uniform_network_is_said(table: CostTable, networks: list[dict[str, Any]]) -> None:
    results = results_of(networks)
    lines = summary(results).splitlines()
    assert "gain over uniform" in lines[0] and "+7.0 (BC8)" in lines[-2] and "-1.0 (BC8)" in lines[-1]
    text = " ".join(findings(with_gains(results)["networks"], table))
    assert "no more energy (all BC8), the gain on test images is +3.0 percentage points (mean of 2 of 2)" in text
    cheap = with_gains(results_of([{**p, "energy": 0.2} if p["kind"] == "searched" else p for p in networks]))
    text = " ".join(findings(cheap["networks"], table))
    assert "For 2 of 2 there is no such gain: no uniform network is as cheap." in text
    assert "lie above the line" not in text and "the gain on test" not in text
    assert "none as cheap" in summary(cheap).splitlines()[-1]
    alone = with_gains(results_of([p for p in networks if p["kind"] == "searched"]))
    assert "there is no such gain: no uniform network was trained" in " ".join(findings(alone["networks"], table))
    assert any("no uniform network was trained" in t for t in
               details({**alone, "networks": [{**p, "latency": 1.0} for p in alone["networks"]]}))  # fmt: skip


def test_image_passes_are_shown_where_they_are_known(table: CostTable, networks: list[dict[str, Any]]) -> None:
    assert "image passes" not in summary(results_of(networks))
    own = [{**p, "image_passes": 40_000 if p["kind"] == "baseline" else 60_000} for p in networks]
    lines = summary(results_of(own)).splitlines()
    assert lines[0].rstrip().endswith("image passes") and lines[-1].rstrip().endswith("60,000")
    text = " ".join(findings(with_gains(results_of(own))["networks"], table))
    assert "Image passes are not equal: 60,000 in all for the searched network of seed 0, 40,000 for all BC8." in text
    equal = with_gains(results_of([{**p, "image_passes": 40_000} for p in networks]))
    assert "not equal" not in " ".join(findings(equal["networks"], table))
    assert run_data(equal, table, DECLARED, networks[8])["networks"][0]["passes"] == 40_000


def test_a_run_of_another_measure_is_shown_in_its_unit(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    for p in results["networks"]:
        for split in ("validation", "test"):
            p[f"{split}_metric"] = 10 * (1 - p.pop(f"{split}_accuracy"))
    results["metric"] = {"name": "mse", "higher_is_better": False, "percent": False}
    (folder / "results.json").write_text(json.dumps(results))
    page = write_report(folder)
    text, data = page.read_text(encoding="utf-8"), data_of(page)
    assert "reach a mse of 1 on the test images" in text  # 0.5 and 1.5
    assert "the gain on test images is +0.3 in mse (mean of 2 of 2)" in text  # 0.7 and -0.1
    assert data["run"]["measure"] == {"name": "mse", "percent": False}
    assert data["start"] == 8  # the smaller error is shown first
    assert data["run"]["lines"][0]["points"][0] == [0.49, pytest.approx(1.2)]
    assert "+0.7 (BC8)" in summary(results)


def test_folders_without_a_finished_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no finished run"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(
        InputError, match=r"results.json: line 1: not readable as JSON.*it writes this file from the finished stages"
    ):
        write_report(tmp_path)


def test_results_of_before_the_data_set_was_named_have_a_page(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    del results["data"], results["populations"]
    (folder / "results.json").write_text(json.dumps(results))
    assert "Data:" not in write_report(folder).read_text(encoding="utf-8")


def test_searches_of_two_kinds_of_budget_are_kept_apart(table: CostTable, networks: list[dict[str, Any]]) -> None:
    energy, latency = (searched(table.layers, 0, 0.9, 0.0) | {"lambda": None, "budget": b, "latency_budget": t}
                       for b, t in ((0.4, None), (None, 0.4)))  # fmt: skip
    member = {"sample": 2, "count": 1, "energy": 0.5, "validation_accuracy": 0.9, "test_accuracy": 0.7,
              "latency": 0.6, "assignment": energy["assignment"]}  # fmt: skip
    population = {"seed": 0, "lambda": None, "budget": None, "latency_budget": 0.4, "selected": 2, "networks": [member]}
    found = run_data(results_of([energy, latency], populations=[population]), table, DECLARED, energy)
    assert [n.get("count") for n in found["networks"]] == [None, 1]
    assert [n["setting"] for n in found["networks"]] == ["budget 0.4", "latency budget 0.4"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r.pop("transmission"),
        lambda r: r.update(networks=7),
        lambda r: r["networks"][8].pop("assignment"),
        lambda r: r["networks"][8].update(energy="cheap"),
        lambda r: r["networks"][8].update(energy="0.5"),
        lambda r: r["networks"][8].update(seed=True),
        lambda r: r["networks"][0].update(kind=None),
        lambda r: r["networks"][0].update(test_accuracy=float("nan")),
        lambda r: r.update(networks=r["networks"][:8]),
        lambda r: r.update(populations=[{"seed": 5, "lambda": 0.5, "selected": 1, "networks": [{"sample": 1}]}]),
    ],
)
def test_damaged_results_are_one_line(folder: Path, damage: Any) -> None:
    results = json.loads((folder / "results.json").read_text())
    damage(results)
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(InputError, match=r"results.json: .*it writes this file from the finished stages") as e:
        write_report(folder)
    assert "\n" not in str(e.value)
    assert not (folder / "report.html").exists()


def test_a_defect_in_drawing_is_not_blamed_on_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(info: object) -> None:
        raise KeyError("colour")

    monkeypatch.setattr("search.report.figures.draw_trade_off", defect)
    with pytest.raises(KeyError, match="colour"):
        write_report(folder)


def test_results_of_a_newer_program_are_refused(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**results, "schema_version": 99}))
    with pytest.raises(InputError, match=r"results.json: has schema 99, which is newer"):
        write_report(folder)


def test_a_run_whose_files_do_not_fit_is_refused(folder: Path, table: CostTable) -> None:
    CostTable(table.rows[9:]).save(folder / "table.csv")
    with pytest.raises(InputError, match=r"assignment.conv1: .* no row for candidate"):
        write_report(folder)
    (folder / "table.csv").unlink()
    with pytest.raises(InputError, match=r"table.csv: cannot be read"):
        write_report(folder)


def test_a_layer_that_is_as_it_was_saves_nothing_and_is_not_said_to(
    table: CostTable, networks: list[dict[str, Any]]
) -> None:
    found = [{**p, "assignment": dict.fromkeys(table.layers, "T8")} if "assignment" in p else p for p in networks]
    text = " ".join(findings(found, table))
    assert "of the all-T8 energy, stays)" in text and "saves" not in text
