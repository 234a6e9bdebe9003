"""Timeloop's Python front end, and the flat form it makes of a v4 specification, which the programs read."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from dse.core.documents import parse_yaml
from dse.core.errors import InputError
from dse.engines.timeloop.v4_documents import capacity_fields, problem_v4, v4_specification
from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Fanout, Spec
from dse.workload.problem import Problem

_VERSION = "0.4"
_LONGEST = 500


def mapper_input(front_end: str, spec: Spec, problem: Problem, ert: Ert, mapper: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that `timeloop-mapper` reads, as one document.

    Args:
        front_end: the module of the front end, ``pytimeloop.timeloopfe.v4`` or ``timeloopfe.v4``.
        mapper: Timeloop's `mapper` section.

    Raises:
        InputError: what the front end refuses; an energy that the table lacks.
    """
    flat = _with_capacities(transpile(front_end, v4_specification(spec, problem, mapper, every_depth=True)), spec)
    kept = ("architecture", "problem", "mapspace", "architecture_constraints")
    document = {key: flat[key] for key in kept if key in flat}
    # The front end adds settings of its own, which differ between its versions; only ours are part of a result's key.
    return document | {"mapper": {"version": _VERSION, **mapper}} | energy_tables(spec, flat, ert)


def model_input(
    front_end: str, spec: Spec, problem: Problem, ert: Ert, directives: list[dict[str, Any]]
) -> dict[str, Any]:
    """Everything that `timeloop-model` reads, as one document; arguments as in `mapper_input`.

    The front end takes no mapping: it splits factors at their commas, and with them the remainders of ``P4,1``.
    """
    flat = _architecture(front_end, spec, problem)
    return {
        "architecture": flat["architecture"],
        "problem": {"version": _VERSION, **problem_v4(problem)},
        "mapping": [with_reuse(entry, spec) for entry in directives],
    } | energy_tables(spec, flat, ert)


def with_reuse(directive: dict[str, Any], spec: Spec) -> dict[str, Any]:
    """A directive with its level's constraints on reuse, of which `timeloop-model` knows nothing else."""
    level = next(level for level in spec.levels if level.name == directive["target"])
    if isinstance(level, Fanout):
        limits = {"spatial": {"no_link_transfer": level.no_link_transfer, "no_reuse": level.no_reuse}}
    else:
        limits = {
            "temporal": {"no_reuse": level.no_reuse, "rmw_first_update": level.rmw_first_update},
            "datatype": {"no_coalesce": level.no_coalesce},
        }
    given = limits.get(directive["type"], {})
    return {**directive, **{name: sorted(tensors) for name, tensors in given.items() if tensors}}


def transpile(front_end: str, text: str) -> dict[str, Any]:
    """The flat form of a v4 specification; InputError with the front end's own words for what it refuses."""
    try:
        module = importlib.import_module(front_end)
        calls = importlib.import_module(f"{front_end.rpartition('.')[0]}.common.backend_calls")
        with _quiet(), tempfile.TemporaryDirectory(prefix="enos-") as folder:
            path = Path(folder) / "specification.yaml"
            path.write_text(text, encoding="utf-8")
            specification = module.Specification.from_yaml_files(str(path))
            flat = calls._specification_to_yaml_string(specification, for_model=False)
    except (Exception, SystemExit) as e:  # whatever the front end or a module it needs raises
        cause: BaseException = e
        while cause.__cause__ is not None:  # the front end wraps an error once for each part of the document around it
            cause = cause.__cause__
        text = " ".join(str(cause).split())[:_LONGEST]
        raise InputError(front_end, f"the front end fails: {type(cause).__name__}: {text}") from e
    document = parse_yaml(flat, front_end)
    if not isinstance(document, dict) or "architecture" not in document:
        raise InputError(front_end, "the front end made no flat specification")
    return document


def _architecture(front_end: str, spec: Spec, problem: Problem) -> dict[str, Any]:
    """The flat form of an accelerator; of the layer only its shape matters."""
    smallest = Problem(problem.dimensions, (1,) * len(problem.dimensions), problem.data_spaces)
    return _with_capacities(_transpiled(front_end, v4_specification(spec, smallest, every_depth=True)), spec)


_transpiled = lru_cache(maxsize=32)(transpile)


def _with_capacities(flat: dict[str, Any], spec: Spec) -> dict[str, Any]:
    """The flat form with the capacities of the specification, which the front end was not told all of."""
    capacities = {storage.name: capacity_fields(storage) for storage in spec.storages}
    (top,) = flat["architecture"]["subtree"]
    local = []
    for entry in top["local"]:
        capacity = capacities.get(str(entry["name"]).partition("[")[0])
        if capacity is not None:
            attributes = {name: value for name, value in entry["attributes"].items() if name != "depth"}
            entry = {**entry, "attributes": attributes | capacity}
        local.append(entry)
    return {**flat, "architecture": {**flat["architecture"], "subtree": [{**top, "local": local}]}}


def energy_tables(spec: Spec, flat: Mapping[str, Any], ert: Ert) -> dict[str, Any]:
    """Timeloop's energy and area tables. Every level has an entry: one without would get built-in energies.

    With both tables no estimator is run. Areas are not asked for; they are 0.
    """
    top = flat["architecture"]["subtree"][0]
    energies = {storage.name: ert.storage(storage.name) for storage in spec.storages}
    energies[spec.compute.name] = {"compute": ert.compute(spec.compute.name), "leak": 0.0}
    tables = []
    for entry in top["local"]:
        name = str(entry["name"]).partition("[")[0]
        dummy = entry["class"] == "dummy_storage"
        if not dummy and name not in energies:
            raise InputError(f"level {name}", "the front end made a level that the specification does not have")
        actions = dict.fromkeys(("read", "write", "update", "leak"), 0.0) if dummy else energies.pop(name)
        tables.append({"name": f"{top['name']}.{name}[1..1]", "actions": [_action(*item) for item in actions.items()]})
    if energies:
        raise InputError(f"level {next(iter(energies))}", "the front end dropped it")
    areas = [{"name": table["name"], "area": 0.0} for table in tables]
    return {"ERT": {"version": _VERSION, "tables": tables}, "ART": {"version": _VERSION, "tables": areas}}


def _action(name: str, energy: float) -> dict[str, Any]:
    return {"name": name, "arguments": {}, "energy": energy}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the front end logs and prints away from the user's output."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
