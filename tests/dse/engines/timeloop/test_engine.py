"""The engine's decisions without Timeloop: what is a result, what is tried again, what is part of a key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dse.cli.common import remainders_wanted
from dse.core.errors import InputError
from dse.engines.timeloop.engine import Programs, TimeloopEngine
from dse.hardware.instance import embedded_energies
from dse.table.fill import missing_batches
from dse.table.plan import make_plan
from dse.workload.layers import Layer, Workload
from tests.conftest import refused
from tests.dse.engines.timeloop.recordings import FOLDER, nothing_installed, program, recorded, small_inputs

SPEC, PROBLEM, ERT = small_inputs()
LAYER = {"N": 1, "G": 1, "C": 4, "M": 8, "P": 6, "Q": 6, "R": 3, "S": 3}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """An engine whose mapper and model are a failing script; what the front end would make is the mapper's section."""
    monkeypatch.setattr(
        "dse.engines.timeloop.engine.front_end.mapper_input",
        lambda front_end, spec, problem, ert, mapper: {"mapper": mapper},
    )
    monkeypatch.setattr("dse.engines.timeloop.engine.front_end.model_input", lambda *args: {})
    monkeypatch.setattr("dse.engines.timeloop.accelergy.energies", embedded_energies)

    def make(script: Any, **settings: Any) -> Any:
        path = program(tmp_path, script)
        return TimeloopEngine(**{"seconds": 5.0, "grace": 0.3, **settings}, programs=Programs(path, path, "none"))

    return make


def search(engine: Any, remainders: Any = False) -> Any:
    return engine.search(SPEC, PROBLEM, ERT, "energy", remainders)


def replay(name: Any) -> Any:
    """A script that leaves what a recorded run left."""
    folder = FOLDER / name
    return f"cp {folder}/timeloop-* . 2>/dev/null; cat {folder}/log.txt; exit {max(0, recorded(name).code)}"


@pytest.mark.parametrize("name", ["accelergy_fails", "bad_mapping", "unknown_algorithm"])
def test_a_failure_is_an_error_in_one_line_and_no_result(stand_in: Any, name: Any) -> None:
    with pytest.raises(InputError) as caught:
        search(stand_in(replay(name)))
    line = str(caught.value)
    assert "\n" not in line
    assert f"ended without a result (exit code {recorded(name).code})" in line
    assert recorded(name).log.splitlines()[-1].strip() in line


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("exit 0", r"without a result \(exit code 0\): no output"),
        ("touch timeloop-mapper.stats.txt", r"without a result \(exit code 0\)"),
        ("kill -ABRT $$", r"without a result \(killed by signal 6\)"),
        ("echo garbage > timeloop-mapper.stats.txt", "stats.txt: is incomplete"),
        ("head -c 9000 {search}/timeloop-mapper.stats.txt > timeloop-mapper.stats.txt", "stats.txt: is incomplete"),
        ("cp {search}/*.stats.txt .", "map.yaml: not a mapping"),
        ("cp {search}/*.stats.txt .; head -c 900 {search}/*.map.yaml > timeloop-mapper.map.yaml", "map.yaml"),
        ("cp {search}/timeloop-* .; exit 1", r"without a result \(exit code 1\)"),
        ("cp {search}/timeloop-* .; sed -i s/ERT/internal/ *.stats.txt", "not from the energy table"),
    ],
)
def test_nothing_but_a_whole_result_is_one(stand_in: Any, script: Any, line: Any) -> None:
    with pytest.raises(InputError, match=line):
        search(stand_in(script.format(search=FOLDER / "search")))


def test_a_program_that_does_not_stop_is_no_answer(stand_in: Any) -> None:
    script = f"trap '' INT; cp {FOLDER}/search/timeloop-* .; while :; do sleep 0.05; done"
    with pytest.raises(InputError, match=r"did not stop after 4 s and was killed"):
        search(stand_in(script, seconds=4))


def test_a_program_that_dies_at_its_limit_says_so(stand_in: Any) -> None:
    with pytest.raises(InputError, match=r"\(exit code 9 at its limit of 4 s\)"):
        search(stand_in("trap 'exit 9' INT; while :; do sleep 0.05; done", seconds=4))


def test_a_search_that_finds_nothing_is_repeated_wider_and_says_why(stand_in: Any, tmp_path: Path) -> None:
    script = f'cat "$1" >> {tmp_path}/inputs; echo >> {tmp_path}/inputs; {replay("no_mapping")}'
    found = search(stand_in(script))
    assert found.mapping is None and found.evaluation is None and not found.optimal
    assert found.reason.startswith("timeloop-mapper: no valid mappings found; 5000 invalid mappings")
    assert "register: mapped tile size 4 exceeds buffer capacity 1" in found.reason
    first, second = (json.loads(line)["mapper"] for line in (tmp_path / "inputs").read_text().splitlines())
    assert first["optimization_metrics"] == second["optimization_metrics"] == ["energy"]
    assert first["num_threads"] == second["num_threads"] == 1
    assert "optimization_metric" not in first
    assert 0 < first["timeout"] < second["timeout"]
    assert (first["algorithm"], second["algorithm"]) == ("random_pruned", "linear_pruned")
    assert second["diagnostics"]


def test_remainders_need_mappings_of_the_native_mapper(stand_in: Any) -> None:
    with pytest.raises(InputError, match="--imperfect: timeloop-mapper has no mappings with remainders"):
        search(stand_in("exit 0"), remainders=True)
    with pytest.raises(InputError, match="--imperfect: timeloop-mapper has no mappings with remainders"):
        remainders_wanted(False, stand_in("exit 0"))
    assert remainders_wanted(False, stand_in("exit 0", mapping="native"))


def test_timeloops_mapper_searches_perfect_factors(stand_in: Any) -> None:
    plan = make_plan(Workload("net", (Layer("one", "conv", LAYER),)), engine=stand_in("exit 0"))
    assert not plan.remainders and plan.provenance is not None and not plan.provenance.remainders
    assert remainders_wanted(None, plan.engine) is None
    assert keys(stand_in("exit 0")) == keys(stand_in("exit 0"), remainders=False)


@pytest.mark.parametrize(
    "settings", [{"seconds": 0}, {"seconds": -1}, {"seconds": float("nan")}, {"mapping": "random"}, {"threads": 0}]
)
def test_wrong_settings(stand_in: Any, settings: Any) -> None:
    with pytest.raises(InputError, match=f"{next(iter(settings))}"):
        stand_in("exit 0", **settings)


def keys(engine: Any, **settings: Any) -> Any:
    return {
        job.key for job in make_plan(Workload("net", (Layer("one", "conv", LAYER),)), engine=engine, **settings).jobs
    }


def test_everything_that_decides_an_answer_is_in_the_key(stand_in: Any) -> None:
    engines = [
        stand_in("exit 0"),
        stand_in("exit 0", seconds=6.0),
        stand_in("exit 0", threads=2),
        stand_in("exit 0", algorithm="hybrid"),
        stand_in("exit 0", victory_condition=100),
        stand_in("exit 0", mapping="native"),
    ]
    found = [keys(engine) for engine in engines] + [keys("native"), keys(engines[0], objective="edp")]
    assert all(len(of) == 9 for of in found)
    assert len(set.union(*found)) == sum(map(len, found))
    assert keys(stand_in("exit 0", grace=9.0)) == keys(engines[0])


def test_another_build_of_the_program_has_other_keys(stand_in: Any, tmp_path: Path) -> None:
    before = keys(stand_in("exit 0"))
    (tmp_path / "newer").mkdir()
    newer = program(tmp_path / "newer", "exit 1")
    assert before.isdisjoint(keys(TimeloopEngine(seconds=5.0, programs=Programs(newer, newer, "none"))))


def test_a_kill_loses_only_the_searches_under_way(stand_in: Any) -> None:
    workload = Workload("net", (Layer("one", "conv", LAYER),))
    batches = {
        mapping: missing_batches([make_plan(workload, engine=stand_in("exit 0", mapping=mapping))], {})
        for mapping in ("timeloop", "native")
    }
    assert [len(b.jobs) for b in batches["timeloop"]] == [1] * 9
    assert [len(b.jobs) for b in batches["native"]] == [9]


@pytest.fixture
def without_timeloop(monkeypatch: pytest.MonkeyPatch) -> None:
    found = nothing_installed()
    monkeypatch.setattr("dse.engines.timeloop.installation.find", lambda: found)


@pytest.mark.parametrize("mapping", [(), ("--mapping", "native")])
def test_without_timeloop_there_is_one_line_and_no_work(
    run: Any, workload: Any, own_store: Any, without_timeloop: Any, mapping: Any
) -> None:
    line = refused(run("map", workload, "--engine", "timeloop", *mapping))
    assert "timeloop-mapper" in line and "https://" in line
    assert not own_store.exists()


def test_options_of_the_engine_need_it(run: Any, workload: Any) -> None:
    assert "--seconds: does not go with --engine native" in refused(run("map", workload, "--seconds", "5"))
    assert "--mapping: does not go with --engine native" in refused(run("map", workload, "--mapping", "native"))
    assert "'random' is not one of" in refused(run("map", workload, "--engine", "timeloop", "--mapping", "random"))


def test_a_failure_under_the_command_line_is_one_line(
    run: Any, workload: Any, own_store: Any, stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = stand_in(replay("unknown_algorithm"))
    monkeypatch.setattr("dse.cli.common.load_engine", lambda name, **settings: engine)
    assert "unsupported search algorithm: best" in refused(run("map", workload, "--engine", "timeloop", "--jobs", "1"))
