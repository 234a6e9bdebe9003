"""Our energies are the real Accelergy's: recorded runs everywhere, runs of today where it is installed."""

from __future__ import annotations

import copy
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import dse.engines.timeloop.accelergy as driver
from dse.core.documents import parse_yaml, read_yaml
from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.engines.timeloop.accelergy import (
    EnergyDifference,
    check_estimators,
    differences,
    energies,
    raw_energies,
    read_outputs,
)
from dse.engines.timeloop.component_files import architecture_file, class_files
from dse.engines.timeloop.estimator_tables import Query, table_files
from dse.engines.timeloop.installation import Installation, PlugIn
from dse.hardware.energy.classes import read_classes
from dse.hardware.energy.components import ComponentLibrary
from dse.hardware.energy.ert import Ert
from dse.hardware.instance import embedded_energies, spec_for
from dse.hardware.spec_reader import SpecFile
from tests.dse.engines.timeloop.random_classes import disagreements
from tests.dse.engines.timeloop.record_ert import FOLDER, OWN_CLASSES, PROBLEM, cases

CASES = cases()
SHIPPED = ComponentLibrary.load()


def spec_of(nodes: str, mac: str = "{name: mac, class: aladdin_adder, attributes: {width: 8}}") -> Any:
    """A specification of 45 nm with these memories."""
    lines = [f"  - !Component {node}" for node in (*nodes.strip().splitlines(), mac)]
    text = "variables: {technology: '45nm'}\narchitecture:\n  nodes:\n"
    text += "  - !Container {name: system, attributes: {technology: technology}}\n" + "\n".join(lines)
    return spec_for(SpecFile(parse_yaml(text, "arch.yaml"), "arch.yaml"), PROBLEM)


# Energies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_recorded_energies_are_the_embedded_ones(case: Any) -> None:
    spec, library, actions = CASES[case]
    recorded = read_outputs(FOLDER / case, "", case)
    storages = {
        s.name: {"update": recorded.storage(s.name)["update"], **recorded.tables[s.name]} for s in spec.storages
    }
    operation = {"compute": sum(times * recorded.tables["mac"][action] for action, times in actions)}
    embedded = embedded_energies(spec, library, case, actions)
    assert differences(embedded, Ert(storages | {"mac": operation})) == []


@pytest.mark.timeloop
@pytest.mark.parametrize("case", CASES)
def test_energies_are_the_embedded_ones(real_accelergy: Any, case: Any) -> None:
    spec, library, actions = CASES[case]
    assert differences(embedded_energies(spec, library, case, actions), energies(spec, library, case, actions)) == []


@pytest.mark.timeloop
def test_classes_as_a_user_wrote_them_and_as_we_write_them_are_the_same(
    real_accelergy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, library, actions = CASES["own"]
    monkeypatch.setattr(driver, "class_files", lambda *_: {"own.yaml": OWN_CLASSES.read_text()})
    assert differences(embedded_energies(spec, library, "own", actions), energies(spec, library, "own", actions)) == []


@pytest.mark.timeloop
@pytest.mark.parametrize("as_written", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_random_nested_classes(real_accelergy: Any, tmp_path: Path, seed: Any, as_written: Any) -> None:
    assert disagreements(seed, tmp_path, as_written) == []


@pytest.mark.timeloop
def test_accelergy_rounds_to_six_digits_unless_asked(real_accelergy: Any) -> None:
    spec, library, _ = CASES["T8"]
    exact, rounded = raw_energies(spec, library, "T8"), raw_energies(spec, library, "T8", digits=6)
    assert rounded.tables["mac"]["compute"] == float(f"{exact.tables['mac']['compute']:.6g}")
    assert [d.action for d in differences(exact, rounded) if d.component == "mac"] == ["compute"]
    assert differences(exact, rounded, tolerance=5e-6) == []


@pytest.mark.timeloop
def test_a_second_call_does_not_run_it_again(real_accelergy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, library, actions = CASES["BC4"]
    first = energies(spec, library, "BC4", actions)
    monkeypatch.setattr(driver, "_call", lambda *_: pytest.fail("ran again"))
    assert energies(spec, library, "BC4", actions) == first


@pytest.mark.timeloop
def test_the_users_files_stay_as_they_are(real_accelergy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    spec = spec_of("{name: ram, class: SRAM, attributes: {width: 64, depth: 4096}}")
    energies(spec, SHIPPED, "arch.yaml", [("add", 1)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeloop
def test_an_attribute_that_one_memory_has_and_another_lacks_tells_them_apart(real_accelergy: Any) -> None:
    spec = spec_of(
        "{name: banked, class: SRAM, attributes: {width: 64, depth: 4096, n_banks: 8}}\n"
        "{name: plain, class: SRAM, attributes: {width: 64, depth: 4096}}\n"
        "{name: lpddr4, class: DRAM, attributes: {width: 64}}\n"
        "{name: hbm2, class: DRAM, attributes: {width: 64, type: HBM2}}"
    )
    found = energies(spec, SHIPPED, "arch.yaml", [("add", 1)])
    assert differences(embedded_energies(spec, SHIPPED, "arch.yaml", [("add", 1)]), found) == []
    assert found.tables["plain"]["read"] != found.tables["banked"]["read"]
    assert found.tables["lpddr4"]["read"] != found.tables["hbm2"]["read"]


@pytest.mark.timeloop
def test_technologies_spelled_in_two_ways_and_none_at_all(real_accelergy: Any) -> None:
    spec = spec_of(
        "{name: a, class: SRAM, attributes: {width: 64, depth: 4096, technology: 45}}\n"
        "{name: b, class: regfile_spad, attributes: {width: 16, depth: 12, technology: '45 nm'}}"
    )
    found = energies(spec, SHIPPED, "arch.yaml", [("add", 1)])
    assert differences(embedded_energies(spec, SHIPPED, "arch.yaml", [("add", 1)]), found) == []


@pytest.mark.timeloop
def test_a_wrong_number_would_be_seen(real_accelergy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelergy's count of parts is its own: tables with another energy for one primitive change just what has it."""
    spec, library, actions = CASES["T8"]
    real = driver.queries  # type: ignore[attr-defined]

    def tampered(*arguments: Any) -> Any:
        return [
            Query(q.component_class, q.technology, q.action, q.cells, q.energy_pj * 1.000001)
            if (q.component_class, q.action) == ("aladdin_comparator", "compare")
            else q
            for q in real(*arguments)
        ]

    monkeypatch.setattr(driver, "queries", tampered)
    found = differences(embedded_energies(spec, library, "T8", actions), energies(spec, library, "T8", actions))
    assert {d.component for d in found} == {"ifmap_spad", "psum_spad"}


@pytest.mark.timeloop
def test_the_reason_that_accelergy_gives_is_one_line(real_accelergy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "queries", lambda *_: [])  # as if we had evaluated an expression to another value
    spec, library, actions = CASES["T8"]
    with pytest.raises(InputError) as refusal:
        energies(spec, library, "arch.yaml", actions)
    line = str(refusal.value)
    assert line.startswith("arch.yaml: Accelergy gave no energies: Can not find an energy estimator for DRAM(")
    assert "\n" not in line


def test_the_embedded_estimators_refusals_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_call", lambda *_: pytest.fail("ran"))
    spec = spec_of("{name: ram, class: SRAM, attributes: {width: 64, depth: 1}}")
    with pytest.raises(InputError, match=r"arch.yaml: ram: SRAM.depth: 1 is outside the table"):
        energies(spec, SHIPPED, "arch.yaml")


# Differences -------------------------------------------------------------------------------------------------------


def test_every_kind_of_difference_is_found() -> None:
    ours = Ert({"a": {"read": 1.0, "write": 2.0}, "mac": {"compute": 1.0}, "b": {"read": 0.0}})
    theirs = Ert({"a": {"read": 1.0 + 1e-9, "leak": 0.0}, "mac": {"compute": 1.0}, "b": {"read": 1e-30}})
    assert differences(ours, theirs) == [
        EnergyDifference("a", "read", 1.0, 1.0 + 1e-9),
        EnergyDifference("a", "write", 2.0, None),
        EnergyDifference("a", "leak", None, 0.0),
        EnergyDifference("b", "read", 0.0, 1e-30),
    ]
    assert differences(ours, ours) == []


# Files -------------------------------------------------------------------------------------------------------------


def test_shipped_classes_are_given_as_they_are() -> None:
    spec, library, _ = CASES["T8"]
    files = class_files(spec, library)
    assert set(files) == {f"shipped_{name}.yaml" for name in ("cim", "compute", "rtl", "storage")}
    assert 'technology: "45nm"' in files["shipped_storage.yaml"]


def test_a_file_with_a_replaced_class_is_not_the_shipped_one(tmp_path: Path) -> None:
    storage = (data_dir("arch_specs") / "components" / "storage.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(storage.replace("n_banks: 1}", "n_banks: 2}"))
    spec, _, _ = CASES["T8"]
    files = class_files(spec, ComponentLibrary.load([tmp_path]))
    assert set(files) == {"shipped_cim.yaml", "shipped_compute.yaml", "shipped_rtl.yaml", "own_classes.yaml"}
    (tmp_path / "written.yaml").write_text(files["own_classes.yaml"])
    written = read_classes(tmp_path / "written.yaml")
    assert set(written) == {"regfile_spad", "SRAM_spad", "SRAM_buffer"}
    assert written["SRAM_spad"].subcomponents["memory"].attributes["n_banks"] == 2


def test_own_classes_are_read_back_as_they_were(tmp_path: Path) -> None:
    spec, library, _ = CASES["own"]
    (tmp_path / "own.yaml").write_text(class_files(spec, library)["own_classes.yaml"])
    written, original = read_classes(tmp_path / "own.yaml"), read_classes(OWN_CLASSES)
    assert {n: (dict(c.attributes), set(c.actions)) for n, c in written.items()} == {
        n: (dict(c.attributes), set(c.actions)) for n, c in original.items()
    }
    again = ComponentLibrary.load([tmp_path / "own.yaml"])
    assert embedded_energies(spec, again, "own").tables == embedded_energies(spec, library, "own").tables


def test_text_is_quoted_and_expressions_are_not(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "components: {version: 0.4, classes: [{name: box_SRAM, attributes: {technology: 45nm, width: must_specify},"
        " subcomponents: [{name: ram, class: DRAM, attributes: {type: HBM2, width: width * 2}}],"
        " actions: [{name: read, subcomponents: [{name: ram, actions: [{name: read}]}]}]}]}"
    )
    library = ComponentLibrary.load([tmp_path / "own.yaml"])
    spec = spec_of("{name: box, class: box_SRAM, attributes: {width: 16, depth: 4}}")
    text = class_files(spec, library)["own_classes.yaml"]
    styles = {n.value: n.style for n in scalars(yaml.compose(text))}
    assert (styles["45nm"], styles["HBM2"]) == ('"', '"')
    assert (styles["width * 2"], styles["must_specify"]) == ("|", "|")
    technology = [n for n in scalars(yaml.compose(architecture_file(spec, library))) if n.value == "45nm"]
    assert {n.style for n in technology} == {'"'}


def scalars(node: Any) -> Any:
    if isinstance(node, yaml.ScalarNode):
        yield node
    else:
        for child in node.value:
            for part in child if isinstance(child, tuple) else (child,):
                yield from scalars(part)


def test_rows_with_fewer_cells_come_first() -> None:
    banked = Query("SRAM", "45nm", "read", (("width", "64"), ("n_banks", "8")), 2.0)
    plain = Query("SRAM", "45nm", "read", (("width", "64"),), 1.0)
    files = table_files([banked, plain])
    assert files["set0/data/SRAM.csv"] == "width,n_banks,action,energy\n64,,read,1.0\n64,8,read,2.0\n"
    assert yaml.safe_load(files["set0/enos.table.yaml"]) == {
        "name": "enos_set0", "technology": "45nm", "accuracy": 100, "path_to_data_dir": "./data",
    }  # fmt: skip


# Estimators --------------------------------------------------------------------------------------------------------


def test_an_estimate_of_another_plug_in_is_refused() -> None:
    summary = read_yaml(FOLDER / "T8" / "ERT_summary.yaml")
    check_estimators(summary, "arch.yaml")
    dummy = copy.deepcopy(summary)
    dummy["ERT_summary"]["table_summary"][3]["primitive_estimation(s)"][0]["estimator"] = "dummy_table"
    with pytest.raises(
        InputError, match=r"arch.yaml: glb_psum: Accelergy took memory from its estimator 'dummy_table'"
    ):
        check_estimators(dummy, "arch.yaml")
    with pytest.raises(InputError, match="does not name its estimators"):
        check_estimators({"ERT_summary": {"table_summary": [{"name": "system.a"}]}}, "arch.yaml")


# Failures ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """An Accelergy that is a program of a few lines, for failures."""

    def make(script: Any) -> Any:
        program = tmp_path / "accelergy"
        program.write_text(f"#!{sys.executable}\n{script}")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        plug_in = PlugIn("tables", tmp_path / "plug" / "table.estimator.yaml", table_based=True)
        found = Installation(None, None, program, None, plug_ins=(plug_in,))
        monkeypatch.setattr(driver, "find", lambda: found)
        driver._run.cache_clear()
        spec, library, actions = CASES["T8"]
        with pytest.raises(InputError) as refusal:
            energies(spec, library, "arch.yaml", actions)
        return str(refusal.value)

    yield make
    driver._run.cache_clear()


def recorded(changes: str) -> str:
    return (
        "from pathlib import Path\n"
        f"for f in ('ERT.yaml', 'ERT_summary.yaml'):\n"
        f"    text = (Path({str(FOLDER / 'T8')!r}) / f).read_text()\n"
        f"    {changes}\n"
        "    (Path('outputs') / f).write_text(text)\n"
    )


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("", "arch.yaml: Accelergy gave no energies: it said nothing"),
        ("print('x'); raise ValueError('no such key')", "Accelergy gave no energies: ValueError: no such key"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "Accelergy gave no energies: it said nothing"),
        (recorded("text = ''"), "Accelergy gave no energies"),
        (recorded("text = text[:700] + ' : ['"), "not readable as YAML"),
        (recorded("text = text.replace('table-based', 'dummy')"), "from its estimator 'DEPRECATED dummy-plug-ins."),
        (
            recorded("text = text.replace('system.psum_spad', 'system.other')"),
            "psum_spad: Accelergy's table of energies",
        ),
        (
            recorded("text = text.replace('name: compute', 'name: computing')"),
            "mac: Accelergy's table of energies has no action",
        ),
    ],
)
def test_failures_are_one_line(stand_in: Any, script: Any, message: Any) -> None:
    line = stand_in(script)
    assert message in line
    assert "\n" not in line


def test_a_run_that_hangs_is_ended(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "SECONDS", 0.2)
    assert stand_in("import time; time.sleep(60)") == "arch.yaml: Accelergy did not end within 0.2 s"


def test_a_missing_installation_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "find", lambda: Installation(None, None, None, None))
    driver._run.cache_clear()
    spec, library, actions = CASES["T8"]
    with pytest.raises(InputError, match="but neither its Python package nor the program `accelergy` is found; to"):
        energies(spec, library, "arch.yaml", actions)
    package = Installation(None, None, None, None, Path("accelergy"))
    monkeypatch.setattr(driver, "find", lambda: package)
    with pytest.raises(InputError, match="but its table-based plug-in is not found; to install"):
        energies(spec, library, "arch.yaml", actions)
