"""What is found on machines with all, some, none and broken parts of the real tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.engines.timeloop.installation import IMAGE, PAGE, find, require


def test_nothing_is_there(machine: Any) -> None:
    found = find()
    assert (found.model, found.mapper, found.accelergy, found.front_end, found.accelergy_package) == (None,) * 5
    assert found.plug_ins == () and not found.problems and not found.accelergy_works
    with pytest.raises(InputError) as refusal:
        require("--engine timeloop")
    line = str(refusal.value)
    assert line.startswith(
        "--engine timeloop: needs the real Timeloop; not found: timeloop-model (program), timeloop-m"
    )
    assert PAGE in line and "\n" not in line
    assert IMAGE.startswith("timeloopaccelergy/")


def test_everything_is_there_and_nothing_is_imported(machine: Any) -> None:
    machine.complete()
    machine.module("pytimeloop", "raise SystemError")
    found = require("--engine timeloop")
    assert found.model == machine.bin / "timeloop-model" and found.mapper == machine.bin / "timeloop-mapper"
    assert found.front_end == "pytimeloop.timeloopfe.v4"
    assert found.accelergy_package == machine.site / "accelergy"
    assert found.table_plug_in.name == "tables"
    assert not found.missing and not found.problems
    assert not {"pytimeloop", "accelergy"} & set(sys.modules)


@pytest.mark.parametrize(
    ("module", "front_end"),
    [("timeloopfe.v4", "timeloopfe.v4"), ("timeloopfe.v3", None), ("pytimeloop", None)],
)
def test_front_ends(machine: Any, module: Any, front_end: Any) -> None:
    machine.module(module)
    assert find().front_end == front_end


def test_a_part_that_is_missing_is_named(machine: Any) -> None:
    machine.complete()
    (machine.bin / "timeloop-mapper").unlink()
    with pytest.raises(InputError, match=r"not found: timeloop-mapper \(program\); to install it see"):
        require("--engine timeloop")


def test_a_program_that_may_not_be_executed(machine: Any) -> None:
    path = machine.program("timeloop-model", executable=False)
    found = find()
    assert found.model is None
    assert found.problems == (f"{path} is there but not executable.",)


def test_a_folder_that_happens_to_be_called_so_is_no_package(machine: Any) -> None:
    (machine.site / "accelergy").mkdir()
    assert find().accelergy_package is None


def test_plug_ins_of_the_configuration(machine: Any) -> None:
    machine.plug_in("dummy_tables")
    machine.plug_in("cacti")
    machine.plug_in("tables", "SetsOfTables")
    (machine.plug_ins / "mine.py").write_text("")
    machine.config(f"estimator_plug_ins: [{machine.plug_ins}]\npython_plug_ins: [{machine.plug_ins / 'mine.py'}]\n")
    found = find().plug_ins
    assert [p.name for p in found] == ["cacti", "dummy_tables", "tables", "mine"]
    assert [p.name for p in found if p.dummy] == ["dummy_tables"]
    assert [p.name for p in found if p.table_based] == ["tables"]


def test_a_configuration_in_the_working_directory_comes_first(machine: Any, tmp_path: Path) -> None:
    machine.config("estimator_plug_ins: []")
    (tmp_path / "accelergy_config.yaml").write_text("estimator_plug_ins: []")
    assert find().config == tmp_path / "accelergy_config.yaml"


def test_a_stale_configuration_is_said_and_the_installations_own_plug_ins_are_found(machine: Any) -> None:
    machine.complete()
    program = machine.bin / "accelergy"
    machine.plug_in("shared", "SetsOfTables", folder=program.parent.parent / "share/accelergy/estimation_plug_ins")
    config = machine.config("estimator_plug_ins: [/no/such/folder]")
    found = find()
    assert found.problems == (f"{config} names /no/such/folder, which does not exist.",)
    assert found.table_plug_in.name == "shared"


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("{", "not readable as YAML"),
        ("- 1", "is not a configuration of Accelergy"),
        ("estimator_plug_ins: 3", None),
        ("estimator_plug_ins: [{a: 1}]", "which does not exist"),
        ("", "is not a configuration of Accelergy"),
    ],
)
def test_configurations_that_are_none(machine: Any, config: Any, problem: Any) -> None:
    machine.config(config)
    found = find()
    assert found.plug_ins == ()
    assert [problem in p for p in found.problems] == ([True] if problem else [])


def test_plug_ins_that_cannot_be_used(machine: Any) -> None:
    machine.plug_in("gone", "SetsOfTables", module=False)
    (machine.plug_ins / "bad.estimator.yaml").write_text("a: [")
    (machine.plug_ins / "list.estimator.yaml").write_text("- a")
    (machine.plug_ins / "bytes.estimator.yaml").write_bytes(b"\xff\xfe")
    machine.config(f"estimator_plug_ins: [{machine.plug_ins}]")
    found = find()
    assert found.plug_ins == ()
    assert len(found.problems) == 3
    assert any("gone_module.py, which does not exist" in p for p in found.problems)


@pytest.mark.parametrize(
    ("direct_url", "version"),
    [
        ('{"vcs_info": {"commit_id": "6911d15f686d58ab"}}', "0.4 (6911d15)"),
        ('{"dir_info": {}}', "0.4"),
        ("[", "0.4"),
        (None, "0.4"),
    ],
)
def test_versions(machine: Any, direct_url: Any, version: Any) -> None:
    machine.module("accelergy")
    metadata = machine.site / "accelergy-0.4.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: accelergy\nVersion: 0.4\n")
    if direct_url is not None:
        (metadata / "direct_url.json").write_text(direct_url)
    assert find().versions == {"accelergy": version}


@pytest.mark.timeloop
def test_the_real_one(real_accelergy: Any) -> None:
    assert real_accelergy.table_plug_in.name == "sets_of_tables"
    assert real_accelergy.versions["accelergy"].startswith("0.4")
