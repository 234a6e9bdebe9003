"""`enos check`: every difference between the engines is found, and none where there is none."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dse.hardware.energy.ert import Ert
from dse.table.check import agreement, contestants, write_differences
from dse.table.fill import map_plans, read_results
from dse.table.plan import make_plan
from dse.table.store import Store
from tests.conftest import refused
from tests.dse.engines.timeloop.test_real import missing


@pytest.fixture
def two(workload: Any, own_store: Any, tmp_path: Path) -> Any:
    """A native plan, and a second one with keys and results of its own, which are those of the first."""
    plan = make_plan(workload)
    map_plans([plan], jobs=1)
    with Store(None, create=False) as store:
        results = read_results([plan], store)
    other = replace(plan, rows=tuple(replace(job, key=f"other {job.key}") for job in plan.jobs))
    return plan, other, results | {f"other {key}": result for key, result in results.items()}


def test_engines_that_agree(two: Any) -> None:
    plan, other, results = two
    found = agreement(plan, other, results)
    assert found.complete
    assert (found.rows, found.searches) == (18, 18)
    assert found.actions == sum(len(actions) for job in plan.jobs[:9] for actions in job.instance.ert.tables.values())


def altered(result: Any, level: Any, tensor: Any, **changes: Any) -> Any:
    levels = {name: {t: dict(a) for t, a in tensors.items()} for name, tensors in result.levels.items()}
    levels[level][tensor] |= changes
    return replace(result, levels=levels)


def test_one_count_more_is_a_difference(two: Any, tmp_path: Path) -> None:
    plan, other, results = two
    key = other.jobs[4].key
    reads = results[key].levels["glb_ifmap"]["Inputs"]["reads"]
    found = agreement(plan, other, results | {key: altered(results[key], "glb_ifmap", "Inputs", reads=reads + 1)})
    ((layer, candidate, difference),) = found.differences
    assert (layer, candidate) == (other.jobs[4].layer, other.jobs[4].instance.candidate.name)
    assert (difference.level, difference.tensor, difference.quantity) == ("glb_ifmap", "Inputs", "reads")
    assert (difference.native, difference.timeloop) == (reads, reads + 1)
    write_differences(found, tmp_path / "differences.csv")
    with (tmp_path / "differences.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["quantity"] == "reads" and float(row["timeloop"]) == reads + 1


def test_a_worse_mapping_and_a_missing_one_are_differences(two: Any) -> None:
    plan, other, results = two
    cheaper, lost = other.jobs[0].key, other.jobs[1].key
    native = replace(results[plan.jobs[0].key], energy_pj=results[cheaper].energy_pj * 0.999)
    changed = {plan.jobs[0].key: native, lost: replace(results[lost], status="no_mapping", reason="none")}
    found = agreement(plan, other, results | changed)
    quantities = [(candidate, d.quantity) for _, candidate, d in found.differences]
    assert quantities == [("T8", "energy_pj of the mapping found"), ("T4", "status: ok, no_mapping")]


def test_an_energy_of_a_component_that_differs(two: Any) -> None:
    plan, other, results = two
    ert = other.jobs[0].instance.ert
    tables = {name: dict(actions) for name, actions in ert.tables.items()}
    tables["weights_spad"]["read"] *= 1 + 1e-6
    instance = replace(other.jobs[0].instance, ert=Ert(tables))
    jobs = (replace(other.jobs[0], instance=instance), *other.jobs[1:])
    ((candidate, difference),) = agreement(plan, replace(other, rows=jobs), results).energies
    assert (candidate, difference.component, difference.action) == ("T8", "weights_spad", "read")


def test_the_largest_layers_are_mapped_by_both(two: Any) -> None:
    jobs = contestants(two[0], 5)
    assert [(job.layer, job.instance.candidate.name) for job in jobs] == [("first", "T8"), ("second", "T4")]


def test_without_timeloop_it_is_one_line(run: Any, workload: Any, own_store: Any, machine: Any) -> None:
    assert "needs the real Timeloop; not found: timeloop-model (program)" in refused(run("check", workload))
    assert not own_store.exists()


@pytest.mark.timeloop
@pytest.mark.skipif(bool(missing()), reason=missing() or "Timeloop is installed")
def test_the_real_engines_agree(run: Any, workload: Any, own_store: Any) -> None:
    code, out, _ = run("check", workload, "--mapper", "1", "--seconds", "2")
    assert code == 0, out
    assert "18 searches" in out and out.count("no difference") == 2
    ratio = float(out.splitlines()[-1].split()[4])
    assert 0 < ratio <= 1 + 1e-6
