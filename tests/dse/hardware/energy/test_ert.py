"""ERT files as Timeloop reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dse.core.errors import InputError
from dse.hardware.energy.ert import Ert, component_name, read_art, read_ert, write_ert
from dse.hardware.spec import Compute, Fanout, LoopConstraint, Spec, Storage

ACCELERGY = """
ERT:
    version: '0.4'
    tables:
      - name: system_top_level.shared_glb[1..1]
        actions:
          - {name: write, arguments: {data_delta: 0}, energy: 2.0}
          - {name: write, arguments: {data_delta: 1}, energy: 14.5}
          - {name: read, arguments: {global_cycle_seconds: 1e-09}, energy: 18}
          - {name: leak, arguments: {}, energy: 5.6e-3}
      - name: system_top_level.column_of_PEs[0..13].PE[0..11].weights_spad[0..167]
        actions:
          - {name: read, arguments: {}, energy: 1.9}
          - {name: random_write, arguments: {}, energy: 1.7}
          - {name: write, arguments: {}, energy: 9.9}
          - {name: update, arguments: {}, energy: 8.8}
      - name: mac
        actions:
          - {name: compute, arguments: {}, energy: 0.2}
          - {name: leak, arguments: {}, energy: 0.7}
"""


@pytest.fixture
def ert(tmp_path: Path) -> Ert:
    (tmp_path / "ERT.yaml").write_text(ACCELERGY)
    return read_ert(tmp_path / "ERT.yaml")


def test_the_dearest_arguments_and_a_write_for_a_missing_update(ert: Any) -> None:
    assert ert.storage("shared_glb") == {"read": 18, "write": 14.5, "update": 14.5, "leak": 5.6e-3}


def test_timeloop_prefers_the_random_actions(ert: Any) -> None:
    assert ert.storage("weights_spad") == {"read": 1.9, "write": 1.7, "update": 1.7, "leak": 0}


def test_arithmetic(ert: Any) -> None:
    assert ert.compute("mac") == 0.2  # its leakage is not charged
    assert Ert({"mac": {"compute": 1.0, "mac_random": 3.0}}).compute("mac") == 3.0


def test_a_missing_action_is_refused() -> None:
    with pytest.raises(InputError, match=r"buffer: has write, leak, no read \(allowed: random_read, read\)"):
        Ert({"buffer": {"write": 3, "leak": 8}}).storage("buffer")


@pytest.mark.parametrize(
    ("full", "name"),
    [
        ("glb", "glb"),
        ("system.glb[1..1]", "glb"),
        ("system.glb", "glb"),
        ("system.PE[0..13].mac", "mac"),
        ("a[0..1].b[10..20]", "b"),
        ("a.b[0..1][0..2]", "b"),
    ],
)
def test_names_of_components(full: Any, name: Any) -> None:
    assert component_name(full) == name


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]\w{0,8}", fullmatch=True),
        st.dictionaries(st.sampled_from(["read", "write", "update", "leak"]), st.floats(0, 1e12), min_size=1),
        min_size=1,
    )
)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, tables: Any) -> None:
    path: Path = tmp_path_factory.mktemp("ert") / "ERT.yaml"
    write_ert(Ert(tables), path)
    assert {name: dict(actions) for name, actions in read_ert(path).tables.items()} == tables
    energies = [a["energy"] for t in yaml.safe_load(path.read_text())["ERT"]["tables"] for a in t["actions"]]
    assert all(isinstance(energy, float) for energy in energies)


def test_missing_tables_and_actions(ert: Any) -> None:
    with pytest.raises(
        InputError, match=r"ERT\.yaml: has no table for 'dram' \(allowed: mac, shared_glb, weights_spad\)"
    ):
        ert.storage("dram")
    with pytest.raises(InputError, match=r"ERT\.yaml: weights_spad: has read, random_write, write, update, no action"):
        ert.compute("weights_spad")
    with pytest.raises(InputError, match="glb: has no action"):
        Ert({"glb": {}}).storage("glb")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ART: {}", "not an energy reference table"),
        ("ERT: {version: 0.4}", "ERT: field 'tables' is missing"),
        ("ERT: {version: 0.1, tables: []}", "ERT.version: found 0.1 (allowed: 0.3, 0.4)"),
        ("ERT: {tables: {glb: 1}}", "ERT.tables: found {'glb': 1} (allowed: a list)"),
        ("ERT: {tables: [glb]}", "ERT.tables[0]: found 'glb' (allowed: a mapping with name, actions)"),
        ("ERT: {tables: [{name: a.x, actions: []}, {name: b.x, actions: []}]}", "a second component is named 'x'"),
        ("ERT: {tables: [{name: x, actions: [{name: read}]}]}", "actions[0]: field 'energy' is missing"),
        ("ERT: {tables: [{name: x, actions: [{name: read, energy: much}]}]}", "actions[0].energy: found 'much'"),
        ("ERT: {tables: [{name: x, actions: [{name: read, energy: -1}]}]}", "actions[0].energy: found -1"),
        ("ERT: {tables: [{name: x, actions: [{name: read, energy: .nan}]}]}", "actions[0].energy: found nan"),
    ],
)
def test_files_that_are_no_ert(tmp_path: Path, text: Any, message: Any) -> None:
    (tmp_path / "ERT.yaml").write_text(text)
    with pytest.raises(InputError) as e:
        read_ert(tmp_path / "ERT.yaml")
    assert str(e.value).startswith(str(tmp_path / "ERT.yaml")) and message in str(e.value)


SUMMARY = """
ART_summary:
  version: '0.4'
  table_summary:
  - {name: "system.glb[1..1]", area: 217363.36892, primitive_estimations: [{name: storage, estimator: CactiSRAM}]}
  - {name: "system.dram[1..1]", area: 0.0, primitive_estimations: CactiDRAM}
"""


def test_areas_of_a_file_and_of_a_runs_folder(tmp_path: Path) -> None:
    (tmp_path / "timeloop-mapper.ART_summary.yaml").write_text(SUMMARY)
    expected = {"glb": 217363.36892, "dram": 0}
    assert read_art(tmp_path) == read_art(tmp_path / "timeloop-mapper.ART_summary.yaml") == expected
    with pytest.raises(InputError, match="has no energy reference table"):
        read_ert(tmp_path)


def test_timeloops_table_of_a_folder_is_taken_before_accelergys(tmp_path: Path) -> None:
    (tmp_path / "ERT.yaml").write_text(ACCELERGY.replace("energy: 18}", "energy: 17}"))
    (tmp_path / "timeloop-mapper.ERT.yaml").write_text(ACCELERGY)
    assert read_ert(tmp_path).storage("shared_glb")["read"] == 18
    (tmp_path / "timeloop-model.ERT.yaml").write_text(ACCELERGY)
    with pytest.raises(InputError, match=r"has 2 tables \*ERT.yaml .*name one file"):
        read_ert(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ERT: {tables: []}", "not an area reference table"),
        ("ART: {tables: [{name: a, area: -1}]}", r"ART\.tables\[0\]\.area: found -1"),
        ("ART: {tables: [{name: a, area: true}]}", r"ART\.tables\[0\]\.area: found True"),
        ("ART: {tables: [{name: a}]}", "'area' is missing"),
        ("ART: {tables: [{name: b.a, area: 1}, {name: a, area: 2}]}", "a second component is named 'a'"),
        ("ART: {version: 0.2, tables: []}", "ART.version: found 0.2"),
    ],
)
def test_files_that_are_no_art(tmp_path: Path, text: Any, message: Any) -> None:
    (tmp_path / "ART.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_art(tmp_path / "ART.yaml")


def test_leakage_of_compute_units_goes_to_the_memory_that_feeds_them() -> None:
    def memory(name: str) -> Storage:
        return Storage(name, "SRAM", {}, 8, 1, None, {}, LoopConstraint())

    rows, lanes = (Fanout(f"inter_{n}_spatial", size, 1, LoopConstraint()) for n, size in (("row", 6), ("lane", 4)))
    spec = Spec((memory("glb"), rows, memory("reg"), lanes), Compute("mac", "intmac", {}))
    prices = {"read": 1.0, "write": 1.0}
    ert = Ert({"glb": {**prices, "leak": 3.0}, "reg": {**prices, "leak": 0.5}, "mac": {"compute": 1.0, "leak": 0.25}})
    counted = ert.with_compute_leakage(spec)
    assert counted.storage("glb")["leak"] == 3.0
    assert counted.storage("reg")["leak"] == 0.5 + 4 * 0.25, "each of 6 memories feeds 4 units"
    assert (ert.compute_leakage("mac"), counted.compute_leakage("mac"), counted.compute("mac")) == (0.25, 0, 1)
    assert Ert({**ert.tables, "mac": {"compute": 1.0}}).with_compute_leakage(spec).storage("reg")["leak"] == 0.5
