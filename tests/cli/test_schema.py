"""The schemas that editors get describe the files that the program reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dse.cli.schema import FILES
from dse.core.shipped import data_dir

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema checks the shipped files against the schemas")

ROOT = data_dir("arch_specs").parent
SHIPPED = {
    "run": (ROOT / "search" / "configs").glob("*.yaml"),
    "protocol": (ROOT / "search" / "reproduce" / "protocols").glob("*.yaml"),
    "workload": data_dir("workloads").glob("*.yaml"),
    "operators": data_dir("arch_specs").glob("operators*.yaml"),
    "mixture": (ROOT / "search" / "sampling" / "mixtures").glob("*.yaml"),
}
WRONG: dict[str, Any] = {
    "run": {"name": "x", "lamdas": [1]},
    "sweep": {"set": [1]},
    "protocol": {"figures": {"fig5": []}},
    "workload": {"version": 2, "layers": []},
    "operators": {"bits": [64], "operators": {}},
    "mixture": {"weights": [1], "means": [[0]]},
}

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("kind", FILES)
def test_wrong_files_do_not_fit_their_schema(run: Run, kind: str) -> None:
    code, out, _ = run("schema", kind)
    validator = jsonschema.Draft202012Validator(json.loads(out))
    assert code == 0
    validator.check_schema(json.loads(out))
    assert list(validator.iter_errors(WRONG[kind]))


@pytest.mark.parametrize("kind", SHIPPED)
def test_shipped_files_fit_their_schema(run: Run, kind: str) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(run("schema", kind)[1]))
    files: list[Path] = sorted(SHIPPED[kind])
    assert files
    for file in files:
        errors = [error.message for error in validator.iter_errors(yaml.safe_load(file.read_text(encoding="utf-8")))]
        assert not errors, f"{file}: {errors[0]}"


def test_a_sweep_fits_its_schema(run: Run) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(run("schema", "sweep")[1]))
    document = {"workload": "squeezenet", "set": {"glb_ifmap.depth": "1024:65536:x2"}, "zip": [{"a.meshX": [7, 14]}]}
    assert not list(validator.iter_errors(document))


def test_every_field_of_a_run_is_described_for_editors(run: Run) -> None:
    schema = json.loads(run("schema", "run")[1])
    assert schema["properties"]["device"]["type"] == "string" and schema["additionalProperties"] is False
    assert schema["properties"]["data"] and "epochs" in json.dumps(schema["$defs"]["Bilevel"])


def test_fields_are_described_by_their_docstrings(run: Run) -> None:
    """Those of the file's own type, of types within it, and of a field whose name in files is another."""
    schema = json.loads(run("schema", "operators")[1])
    component = schema["$defs"]["ComponentEntry"]["properties"]
    assert schema["properties"]["bits"]["description"] == "Precisions of the operators that name none of their own."
    assert component["class"]["description"] == "Accelergy class, of arch_specs/components or of the specification."
    assert (
        component["attributes"]["description"]
        == "Of the class; expressions over `bits`, `psum_bits`, `reduction` and `signed`."
    )
