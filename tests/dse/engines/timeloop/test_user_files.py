"""A user's own v4 files: one specification in several files; what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.spec_reader import SpecFile
from tests.conftest import refused
from tests.dse.engines.timeloop.recordings import GOLDEN

ARCH = (data_dir("arch_specs") / "eyeriss_168.yaml").read_text()
VARIABLES, NODES = ARCH.split("\narchitecture:")
COMPONENTS = """
components:
  version: 0.4
  classes:
  - name: my_spad
    attributes: {technology: "45nm", width: must_specify, depth: must_specify}
    subcomponents:
    - {name: memory, class: SRAM, attributes: {technology: technology, width: width, depth: depth}}
    actions:
    - {name: read, subcomponents: [{name: memory, actions: [{name: read}]}]}
    - {name: write, subcomponents: [{name: memory, actions: [{name: write}]}]}
    - {name: leak, subcomponents: [{name: memory, actions: [{name: leak}]}]}
"""
MAPPER = "mapper: {version: 0.4, optimization_metrics: [energy], algorithm: random, timeout: 100}\n"


@pytest.fixture
def files(tmp_path: Path) -> Any:
    texts = {
        "arch.yaml": "architecture:" + NODES.replace("class: SRAM_spad", "class: my_spad"),
        "variables.yaml": VARIABLES,
        "components.yaml": COMPONENTS,
        "mapper.yaml": MAPPER,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def includes(folder: Any, *names: Any) -> Any:
    return [x for name in names for x in ("--include", folder / f"{name}.yaml")]


def test_a_specification_in_several_files(files: Any, run: Any, workload: Any, own_store: Any, quick: Any) -> None:
    arguments = ["map", workload, "--jobs", "1", "--arch", files / "arch.yaml"]
    code, out, err = run(*arguments, *includes(files, "variables", "components", "mapper"))
    assert (code, err) == (0, "")
    assert "my_spad" in refused(run(*arguments, *includes(files, "variables")))
    assert "depth" not in out  # a table of layers, no complaint
    assert "act_bits" in refused(run(*arguments, *includes(files, "components")))


def test_one_layer_on_files_of_its_own(files: Any, tmp_path: Path, run: Any) -> None:
    text = (GOLDEN / "arch.yaml").read_text()
    variables, nodes = text.split("\narchitecture:")
    (tmp_path / "nodes.yaml").write_text("architecture:" + nodes)
    (tmp_path / "vars.yaml").write_text(variables)
    given = [GOLDEN / "problem.yaml", GOLDEN / "ert.yaml"]
    whole = run("mapper", GOLDEN / "arch.yaml", *given, "--json")
    parts = run("mapper", tmp_path / "nodes.yaml", *given, *includes(tmp_path, "vars"), "--json")
    assert parts == whole
    assert parts[0] == 0


def test_a_key_in_two_files_is_refused_but_variables_and_classes_are_joined(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("architecture: {nodes: []}\nvariables: {version: 0.4, x: 1}\n" + COMPONENTS)
    (tmp_path / "b.yaml").write_text(
        yaml.safe_dump({"variables": {"version": 0.4, "y": 2}, "components": {"classes": [{"name": "other"}]}})
    )
    (tmp_path / "c.yaml").write_text("variables: {x: 3}")
    (tmp_path / "d.yaml").write_text("architecture: {nodes: []}")
    (tmp_path / "e.yaml").write_text("archtecture: {nodes: []}")
    (tmp_path / "f.yaml").write_text("- a list")
    joined = SpecFile.read(tmp_path / "a.yaml", [tmp_path / "b.yaml"])
    assert joined.variables == {"version": 0.4, "x": 1, "y": 2}
    assert [c["name"] for c in joined.document["components"]["classes"]] == ["my_spad", "other"]
    for name, line in (
        ("c", r"c.yaml: variables: another file also has 'x'"),
        ("d", r"d.yaml: .*'architecture'"),
        ("e", "unknown top-level key 'archtecture'"),
        ("f", r"f.yaml: has no top-level keys"),
    ):
        with pytest.raises(InputError, match=line):
            SpecFile.read(tmp_path / "a.yaml", [tmp_path / f"{name}.yaml"])


def test_include_needs_an_architecture(run: Any, workload: Any, files: Any) -> None:
    assert "--include: has nothing to go with" in refused(run("map", workload, *includes(files, "variables")))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "variables:\n  x: 1\n{{include_text('nodes.yaml')}}\n",
            "arch.yaml: includes 'nodes.yaml', which is in none of",
        ),
        ("variables:\n  x: {{ width }}\n", "arch.yaml: line 2: 'width' is undefined; give its value with --jinja"),
    ],
)
def test_a_template_that_lacks_something_is_one_line(run: Any, tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "arch.yaml").write_text(text)
    assert line in refused(run("mapper", tmp_path / "arch.yaml", GOLDEN / "problem.yaml"))


def test_a_workload_is_not_an_include(run: Any, tmp_path: Path, workload: Any, files: Any) -> None:
    assert "net.yaml: unknown top-level key 'version'" in refused(
        run("map", workload, "--arch", files / "arch.yaml", "--include", workload)
    )
