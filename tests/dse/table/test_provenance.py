"""A table says what made it, in every form of file; one of something else is refused by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from dse.hardware.instance import read_arch
from dse.hardware.spec_reader import SpecFile
from dse.table.cost_table import CostTable
from dse.table.fill import map_workload
from dse.table.provenance import SCHEMA, Provenance, check_architecture, check_network, check_operators
from dse.workload.layers import Layer, Workload

ARCH = data_dir("arch_specs") / "eyeriss_168.yaml"
OLD = Path(__file__).with_name("schema_1.csv")
WORKLOAD = Workload("net", (Layer("conv", "conv", {"C": 4, "M": 8, "P": 4, "Q": 4, "R": 3, "S": 3}),))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> CostTable:
    store = tmp_path_factory.mktemp("store") / "store.sqlite"
    return map_workload(WORKLOAD, candidates=load_candidates()[:2], store=store, jobs=1)


def made_by(table: CostTable) -> Provenance:
    assert table.provenance is not None
    return table.provenance


def test_a_table_says_what_made_it(table: CostTable) -> None:
    about = made_by(table)
    assert (about.schema_version, about.workload, about.arch, about.objective) == (
        SCHEMA,
        "net",
        "eyeriss_168",
        "energy",
    )
    assert (about.engine, about.remainders) == ("native", True)
    assert f"{about.engine} {about.engine_version}" == table.rows[0]["engine"]
    assert table.off_chip == {"dram_weights", "dram_ofmap", "dram_ifmap"}
    assert [level.name for level in about.levels][-1] == "psum_spad"


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_every_form_of_file_keeps_it(table: CostTable, tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    table.save(tmp_path / f"t{suffix}")
    again = CostTable.load(tmp_path / f"t{suffix}")
    assert again.provenance == table.provenance and again.rows == table.rows


def test_a_table_of_schema_1_is_read(tmp_path: Path) -> None:
    old = CostTable.load(OLD)
    assert old.provenance is None and old.off_chip == {"dram_weights", "dram_ofmap", "dram_ifmap"}
    assert {row["leakage_pj"] for row in old.rows} == {0.0}
    old.save(tmp_path / "new.csv")
    assert CostTable.load(tmp_path / "new.csv").rows == old.rows


@pytest.mark.parametrize("searched", [False, True])
def test_a_table_of_schema_2_is_read(table: CostTable, tmp_path: Path, searched: bool) -> None:
    table.save(tmp_path / "t.csv")
    text = (tmp_path / "t.csv").read_text(encoding="utf-8")
    for new, former in (
        (f"schema_version: {SCHEMA}", "schema_version: 2"),
        ("remainders: true", f"imperfect: {searched}"),
    ):
        assert new in text
        text = text.replace(new, former.lower(), 1)
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    old = CostTable.load(tmp_path / "t.csv")
    assert old.rows == table.rows
    assert made_by(old) == dataclasses.replace(made_by(table), remainders=searched)


def test_a_table_of_schema_3_has_no_shapes(table: CostTable, tmp_path: Path) -> None:
    assert (table.kind("conv"), table.shape("conv")) == ("conv", {"C": 4, "M": 8, "P": 4, "Q": 4, "R": 3, "S": 3})
    table.save(tmp_path / "t.csv")
    text = (tmp_path / "t.csv").read_text(encoding="utf-8")
    former = text.replace(f"schema_version: {SCHEMA}", "schema_version: 3").replace(",kind,shape,", ",")
    former = former.replace(",conv,C4 M8 P4 Q4 R3 S3,", ",")
    assert "C4 M8 P4" not in former and "shape" not in former
    (tmp_path / "t.csv").write_text(former, encoding="utf-8")
    old = CostTable.load(tmp_path / "t.csv")
    assert (old.kind("conv"), old.shape("conv")) == (None, None)
    assert made_by(old) == made_by(table) and old.same_costs(table)
    for suffix in (".csv", ".json", ".parquet"):  # as it is read, it can be written, and read again
        old.save(tmp_path / f"again{suffix}")
        assert CostTable.load(tmp_path / f"again{suffix}").rows == old.rows
    (tmp_path / "t.csv").write_text(former.replace("schema_version: 3", f"schema_version: {SCHEMA}"), encoding="utf-8")
    with pytest.raises(InputError, match="column 'kind' is missing"):
        CostTable.load(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("C4 M8 P4 Q4 R3", "row 1: n_ops: found 4608.*1536, those of shape C4 M8 P4 Q4 R3"),
        ("C4 M8 P4 Q4 R3 S3 S3", "row 1: shape: found"),
        ("C4  M8", "row 1: shape: found"),
        ("C4 M-8", "row 1: shape: found"),
        ("C0 M8", "row 1: shape: found"),
        ("4C", "row 1: shape: found"),
        ("C4 M8 Q4 P4 R3 S3", "row 2: shape: found 'C4 M8 P4.*but 'C4 M8 Q4.*of layer conv"),
    ],
)
def test_a_shape_that_is_none_is_one_line(table: CostTable, tmp_path: Path, shape: str, message: str) -> None:
    rows = [dict(row) for row in table.rows]
    rows[0]["shape"] = shape
    CostTable(tuple(rows), table.provenance).save(tmp_path / "t.csv")
    with pytest.raises(InputError, match=message) as e:
        CostTable.load(tmp_path / "t.csv")
    assert "\n" not in str(e.value)


def test_leakage_of_a_table_of_schema_1_is_what_its_levels_leave(tmp_path: Path) -> None:
    head, first, *others = OLD.read_text(encoding="utf-8").splitlines()
    cells = dict(zip(head.split(","), first.split(","), strict=True))
    more = {c: repr(float(cells[c]) + 50.0) for c in ("e_tx_pj", "e_tx_on_chip_pj")}
    (tmp_path / "t.csv").write_text("\n".join([head, ",".join({**cells, **more}.values()), *others]), encoding="utf-8")
    assert CostTable.load(tmp_path / "t.csv").rows[0]["leakage_pj"] == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f"schema_version: {SCHEMA}", "schema_version: 99", "header: has schema 99, which is newer"),
        ("# objective: energy\n", "", "header: field 'objective' is missing"),
        ("# objective:", "# objectiv:", "header: .*objectiv"),
        ("off_chip: true", "off_chip: maybe", r"header: levels\[0\].off_chip: found 'maybe'"),
        ("# workload: net", "# workload: [", "header: line"),
        (f"schema_version: {SCHEMA}", "schema_version: true", "header: schema_version: found True"),
        ("remainders: true", "remainders: 1", "header: remainders: found 1"),
        ("remainders: true", "imperfect: true", "header: .*remainders.* is missing|header: .*imperfect"),
        ("arch_digest: ", "arch_digest: x", "header: arch_digest: found .*64 hexadecimal digits"),
        ("# ENOS cost table", "# ENOS cost tabel", "line 1: found '# ENOS cost tabel'"),
        ("# ENOS cost table\n", "", f"line 1: found '# schema_version: {SCHEMA}'"),
        ("leakage_pj", "cycle_time", "unknown column 'cycle_time'"),
    ],
)
def test_a_damaged_header_is_one_line(table: CostTable, tmp_path: Path, old: str, new: str, message: str) -> None:
    table.save(tmp_path / "t.csv")
    text = (tmp_path / "t.csv").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "t.csv").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=message) as e:
        CostTable.load(tmp_path / "t.csv")
    assert "\n" not in str(e.value)


def test_another_architecture_is_refused_by_name(table: CostTable, tmp_path: Path) -> None:
    check_architecture(made_by(table), read_arch(), "table")
    with pytest.raises(InputError, match=r"table: is of architecture 'eyeriss_168', not of 'mine'"):
        check_architecture(made_by(table), SpecFile(read_arch().document, tmp_path / "mine.yaml"), "table")
    changed = tmp_path / "eyeriss_168.yaml"
    changed.write_text(ARCH.read_text(encoding="utf-8").replace("depth: 12,", "depth: 24,"), encoding="utf-8")
    with pytest.raises(InputError, match=r"another content of architecture 'eyeriss_168'"):
        check_architecture(made_by(table), SpecFile.read(changed), "table")
    changed.write_text("# a comment\n" + ARCH.read_text(encoding="utf-8"), encoding="utf-8")
    check_architecture(made_by(table), SpecFile.read(changed), "table")


def test_another_network_and_other_operators_are_refused(table: CostTable) -> None:
    check_network(made_by(table), WORKLOAD, "table")
    (layer,) = WORKLOAD.layers
    for other in (dataclasses.replace(layer, name="other"), Layer("conv", "conv", {**layer.instance, "M": 4})):
        with pytest.raises(InputError, match=r"table: is of network 'net', whose layers are not those of 'net2'"):
            check_network(made_by(table), Workload("net2", (other,)), "table")
    candidates = load_candidates()[:2]
    check_operators(made_by(table), reversed(candidates), "table")
    with pytest.raises(InputError, match="other operators"):
        check_operators(made_by(table), [candidates[0], dataclasses.replace(candidates[1], psum_bits=21)], "table")


def test_costs_are_compared_whatever_made_them(table: CostTable) -> None:
    def changed(**cells: Any) -> CostTable:
        return CostTable(tuple({**row, **cells} for row in table.rows))

    assert table.same_costs(changed(engine="timeloop x"))
    assert not table.same_costs(changed(cycles=7))
