"""Accelerators of several computing modes."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.accelerator import read_accelerator, with_tables
from dse.hardware.candidate import Macro
from dse.hardware.candidates import load_candidates
from dse.hardware.instance import read_arch
from dse.hardware.macro_efficiency import tops_per_watt
from dse.sweep.run import sweep
from dse.sweep.variants import with_mode
from dse.table.cost_table import CostTable
from dse.table.fill import map_workload
from dse.table.provenance import check_network, operators_digest
from dse.workload.layers import Layer, Workload
from dse.workload.problem import conv_problem
from search.layers.in_memory.planes import conversions

SMALL = Workload("small", (Layer("conv", "conv", {"C": 12, "M": 8, "P": 4, "Q": 4, "R": 3, "S": 3}),))


def modes_file(folder: Path, **changes: object) -> Path:
    """A file of the shipped modes, with other fields of the mode in memory."""
    shipped = data_dir("arch_specs")
    digital = {"arch": str(shipped / "eyeriss_168.yaml"), "operators": str(shipped / "operators.yaml")}
    cim = {"arch": "cim_macros", "operators": "operators_cim", **changes}
    path = folder / "modes.yaml"
    path.write_text(yaml.safe_dump({"modes": {"digital": digital, "cim": cim}}, sort_keys=False))
    return path


def test_one_table_has_all_modes_and_the_digital_rows_of_the_array_alone(tmp_path: Path) -> None:
    options = {"store": tmp_path / "store", "jobs": 1, "remainders": False}
    both = map_workload(SMALL, arch="hybrid", **options)  # type: ignore[arg-type]
    alone = map_workload(SMALL, **options)  # type: ignore[arg-type]
    assert both.candidates == (*alone.candidates, *(f"{name}@cim" for name in alone.candidates))
    assert all(row["status"] == "ok" and row["optimal"] for row in both.rows)
    for row in alone.rows:
        same = both.row("conv", row["candidate"])
        assert {name: same[name] for name in row} == row
    saved = tmp_path / "table.csv"
    both.save(saved)
    assert type(both).load(saved).rows[-1]["candidate"] == "BC2@cim"


@pytest.mark.parametrize(("rows", "columns", "macros"), [(31, 64, 16), (4, 3, 2), (9, 1, 1), (36, 8, 3)])
def test_every_sum_of_rows_is_converted_once(tmp_path: Path, rows: int, columns: int, macros: int) -> None:
    sizes = {"macro_rows": rows, "macro_columns": columns, "macros": macros}
    path = modes_file(tmp_path, variables=sizes, candidates=["MF8"])
    table = map_workload(
        SMALL, arch=read_accelerator(path).only(["MF8@cim"]), store=tmp_path / "s", jobs=1, remainders=False
    )
    (row,) = table.rows
    used = math.prod(int(n) for n in _spatial(row["mapping"]))
    assert used <= rows
    assert row["adc.Outputs.updates"] * used == row["n_ops"]
    (instance,) = read_accelerator(path).only(["MF8@cim"]).instances(SMALL.layers[0].problem)
    energy = row["adc.Outputs.updates"] * instance.ert.storage("adc")["update"]
    energy += row["adc.Outputs.reads"] * instance.ert.storage("adc")["read"]
    assert row["adc.Outputs.energy_pj"] == pytest.approx(energy)


def _spatial(nest: str) -> list[str]:
    """The factors over the rows in a mapping's text: ``inter_row_spatial[y: C4 R3]``."""
    part = nest.partition("inter_row_spatial[")[2].partition("]")[0] if "inter_row_spatial" in nest else ""
    return [factor[1:] for factor in part.partition(":")[2].split()]


def test_conversions_of_the_hardware_are_those_of_the_arithmetic() -> None:
    hybrid = read_accelerator("hybrid")
    in_memory = [candidate for candidate in hybrid.candidates if candidate.macro]
    assert len(in_memory) == 9
    for candidate in in_memory:
        for signed in (False, True):
            of_layer, number = candidate.at(1, signed), conversions(candidate, signed)
            assert dict(of_layer.own_variables)["conversions"] == number
            assert dict(of_layer.compute_attributes)["conversions"] == number
            assert of_layer.cycles == candidate.cycles_at(signed) == 6 * number
        assert candidate.by_sign == (candidate.short == "MF")


def test_inputs_that_can_be_negative_cost_more_in_memory_and_the_same_on_the_array(tmp_path: Path) -> None:
    """Of two layers of one shape: neither takes the other's row from the store."""
    (layer,) = SMALL.layers
    both = Workload("both", (layer, replace(layer, name="unsigned", signed=False)))
    options = {"store": tmp_path / "store", "jobs": 1, "remainders": False}
    table = map_workload(both, arch="hybrid", **options)  # type: ignore[arg-type]
    again = map_workload(both, arch="hybrid", **options)  # type: ignore[arg-type]
    assert again.rows == table.rows
    for candidate in table.candidates:
        signed, unsigned = ({k: v for k, v in table.row(name, candidate).items() if k != "layer"}
                            for name in table.layers)  # fmt: skip
        if candidate not in ("MF8@cim", "MF4@cim"):  # at 2 bits, as many conversions
            assert signed == unsigned, candidate
            continue
        bits = signed["bits"]
        ratio = (3 * bits - 3) / (2 * bits - 1)
        assert signed["cycles"] == pytest.approx(ratio * unsigned["cycles"])
        assert signed["e_op_pj"] == pytest.approx(ratio * unsigned["e_op_pj"])
        assert signed["adc.Outputs.energy_pj"] > unsigned["adc.Outputs.energy_pj"]
    about = table.provenance
    assert about is not None and about.signed_layers == ("conv",)
    assert [about.cycles_of_operation(name, "MF8@cim") for name in table.layers] == [6 * 21, 6 * 15]
    array = map_workload(both, **options).provenance  # type: ignore[arg-type]
    assert array is not None and "signed_layers" not in array.document and "signed_cycles" not in array.document
    swapped = Workload("both", (replace(layer, signed=False), replace(layer, name="unsigned")))
    check_network(about, both, "table")
    check_network(array, swapped, "table")
    with pytest.raises(InputError, match="takes inputs of layer 'conv' for possibly negative, and those of the network "
                                         "cannot be"):  # fmt: skip
        check_network(about, swapped, "table")
    table.save(tmp_path / "table.csv")
    assert CostTable.load(tmp_path / "table.csv").provenance == about


@pytest.mark.parametrize(("old", "new", "message"), [
    ("3 * bits - 3 if signed", "bits - bits if signed", "cycles: found 0"),
    ("3 * bits - 3 if signed", "3 * bits - 3 if sign", "conversions: unknown name sign"),
])  # fmt: skip
def test_an_expression_of_signs_must_give_numbers_for_both(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (data_dir("arch_specs") / "operators_cim.yaml").read_text()
    (tmp_path / "own.yaml").write_text(text.replace(old, new))
    scope = {"adc_bits": 5, "macro_rows": 31, "adc_full_scale": 31, "cycles_per_conversion": 6}
    with pytest.raises(InputError, match=message):
        load_candidates(tmp_path / "own.yaml", scope)


def test_a_step_of_the_array_takes_the_cycles_of_its_conversions(tmp_path: Path) -> None:
    table = map_workload(SMALL, arch="hybrid", store=tmp_path / "store", jobs=1, remainders=False)
    row = table.row("conv", "BC2@cim")
    steps = row["n_ops"] / (16 * 64 * 31) / row["utilisation"]
    assert row["cycles"] == round(steps * 2 * 6)


@pytest.mark.parametrize("bandwidth", [0.05, 0.5, 64.0])
def test_a_memory_moves_the_words_of_all_cycles_of_a_step(tmp_path: Path, bandwidth: float) -> None:
    """Clock cycles are those of the computation or of the memory's words, whichever are more."""
    text = (data_dir("arch_specs") / "cim_macros.yaml").read_text()
    (tmp_path / "plain.yaml").write_text(text)
    old = "attributes: {width: 64, depth: 8192,"
    assert old in text
    (tmp_path / "slow.yaml").write_text(text.replace(old, f"{old} read_bandwidth: {bandwidth},"))
    rows = []
    for name in ("plain", "slow"):
        accelerator = read_accelerator(tmp_path / f"{name}.yaml", "operators_cim").only(["BC2"])
        (row,) = map_workload(SMALL, arch=accelerator, store=tmp_path / "s", jobs=1, remainders=False).rows
        rows.append(row)
    plain, slow = rows
    assert slow["glb_ifmap.Inputs.reads"] == plain["glb_ifmap.Inputs.reads"]  # one memory, the mapping of least energy
    needed = plain["glb_ifmap.Inputs.reads"] / bandwidth
    assert slow["cycles"] == pytest.approx(max(plain["cycles"], needed), abs=12)  # of whole steps of 2 * 6 cycles
    assert (needed > plain["cycles"]) == (bandwidth < 1)  # both cases occur


def test_a_sweep_changes_energy_cycles_and_arithmetic_together(tmp_path: Path) -> None:
    accelerator = read_accelerator("hybrid")
    (cim,) = [mode for mode in accelerator.modes if mode.label == "cim"]
    changed = with_mode(accelerator, cim, {"variables.adc_bits": 3, "variables.macro_rows": 9})
    assert changed.candidates[0].macro == Macro(rows=9, adc_bits=3, full_scale=7)
    both = ["T8", "MF8@cim"]
    options = {"arch": "hybrid", "only": both, "store": tmp_path / "store", "jobs": 1, "remainders": False}
    found = sweep(SMALL, {"variables.adc_bits": [3, 8]}, **options)  # type: ignore[arg-type]
    digital, cheap, dear = (found.total(1, "T8"), found.total(1, "MF8@cim"), found.total(2, "MF8@cim"))
    assert digital["energy_pj"] == found.total(2, "T8")["energy_pj"]
    assert cheap["energy_pj"] < dear["energy_pj"]
    assert dear["cycles"] / cheap["cycles"] == 9 / 4


def test_published_macros_have_their_efficiency_and_no_others_are_known(tmp_path: Path) -> None:
    published = read_accelerator("hybrid_published").only(["MF8@cim"])
    (mode,) = published.modes
    for rows, bits, efficiency in ((31, 5, 105), (15, 4, 84)):
        changed = with_mode(published, mode, {"variables.macro_rows": rows, "variables.adc_bits": bits})
        unsigned = replace(conv_problem({}), signed=False)
        assert tops_per_watt(changed.instances(unsigned)[0]) == pytest.approx(efficiency)
        signed = tops_per_watt(changed.instances(conv_problem({}))[0])
        assert signed == pytest.approx(efficiency * 15 / 21)  # as much energy for each conversion
    with pytest.raises(InputError, match="no row of 'compute'"):
        with_mode(published, mode, {"variables.adc_bits": 6}).instances(conv_problem({}))


def test_candidates_of_one_digital_mode_have_the_identity_that_they_had() -> None:
    known = "operator bits short act_bits weight_bits psum_bits compute_class compute_attributes compute_actions"
    assert list(load_candidates()[0].identity) == known.split()
    assert operators_digest(load_candidates()) == operators_digest(reversed(load_candidates()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "nope"}, "arch: unknown file or shipped architecture 'nope'"),
        ({"operators": "nope"}, "unknown file or shipped name 'nope'"),
        (
            {"variables": {"adc_bit": 4}},
            "modes.cim.variables: unknown variable of .* 'adc_bit'",
        ),
        ({"variables": {"adc_bits": 0}}, "macro.adc_bits: found 0"),
        ({"variables": {"adc_bits": 40}}, "macro.adc_bits: found 40 "),
        ({"variables": {"macro_rows": 2.5}}, "macro.rows: found 2.5"),
        ({"candidates": ["MF9"]}, "modes.cim.candidates: unknown candidate 'MF9'"),
        ({"variables": {"global_cycle_seconds": 2e-9}}, "digital has a cycle of 1e-09 s, cim of 2e-09 s"),
        ({"variables": {"adc_bits": True}}, "variables.adc_bits: found True"),
        ({"colour": 1}, "colour"),
    ],
)
def test_wrong_modes_are_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_accelerator(modes_file(tmp_path, **changes))


def test_what_does_not_go_with_modes_is_refused(tmp_path: Path) -> None:
    digital = read_accelerator("cim_macros")
    with pytest.raises(InputError, match="operator typical does not set it"):
        digital.instances(conv_problem({}))
    named = tmp_path / "named.yaml"
    named.write_text("modes: {digital: {arch: eyeriss_168, operators: operators}, 'c@m': {arch: cim_macros, "
                     "operators: operators_cim}}")  # fmt: skip
    with pytest.raises(InputError, match="modes: found 'c@m'"):
        read_accelerator(named)
    named.write_text("modes: {}")
    with pytest.raises(InputError, match="a mapping with at least one entry"):
        read_accelerator(named)
    with pytest.raises(InputError, match="has its operators, beside operators_extended"):
        read_accelerator("hybrid", "operators_extended")
    with pytest.raises(InputError, match="cim: has its own tables"):
        with_tables("hybrid_published", [data_dir("arch_specs") / "tables" / "dram.csv"])
    with pytest.raises(InputError, match="conversions is not declared"):
        read_accelerator("eyeriss_168", load_candidates("operators_cim", {"adc_bits": 5, "macro_rows": 9,
                         "adc_full_scale": 9, "cycles_per_conversion": 6})).instances(conv_problem({}))  # fmt: skip


def test_a_single_specification_may_be_given_the_operators_of_a_mode(tmp_path: Path) -> None:
    copy = tmp_path / "mine.yaml"
    shutil.copy(data_dir("arch_specs") / "cim_macros.yaml", copy)
    accelerator = read_accelerator(read_arch(copy), "operators_cim")
    assert [c.name for c in accelerator.candidates][:4] == ["T8", "T4", "T2", "MF8"]
    assert accelerator.candidates[0].macro == Macro(31, 5, 31)
