"""The readers that `fuzz.py` runs, and the files that it changes for each."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dse.core import fields
from dse.core.documents import read_yaml
from dse.hardware.candidates import load_candidates
from dse.hardware.energy.ert import read_ert
from dse.hardware.instance import instance_for, library_for, read_arch, spec_for
from dse.mapper import search
from dse.model.mapping import directives, parse_directives
from dse.page.sweep_data import sweep_data
from dse.sweep.sweep_file import read_sweep
from dse.table.cost_table import CostTable
from dse.table.store import Store
from dse.workload.layers import read_workload
from dse.workload.problem import conv_problem, problem_from_document

ROOT = Path(__file__).resolve().parents[1]
SPECS, GOLDEN = ROOT / "arch_specs", ROOT / "tests" / "golden"
TABLE = ROOT / "results" / "squeezenet_cifar" / "table.csv"

SWEEP = """\
workload: squeezenet
candidates: [T8, BC8]
set: {glb_ifmap.depth: "1024:65536:x2", weights_spad.depth: [112, 224, 448]}
zip:
- {pe_column.meshX: [7, 14], pe_row.meshY: [24, 12]}
objective: energy
imperfect: true
"""


@dataclass(frozen=True)
class Reader:
    """What reads a file, the files it is tried with, and the keys under which names are the author's choice."""

    read: Callable[[Path], object]
    originals: Callable[[], list[Path]]
    free: frozenset[str] = frozenset()


@functools.cache
def _made() -> Path:
    """A folder with those originals that are not shipped as files."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    table = CostTable.load(TABLE)
    assert table.provenance is not None
    for suffix in ("csv", "json", "parquet"):
        CostTable(table.rows[:18], table.provenance).save(folder / f"table.{suffix}")
    with Store(folder / "store.sqlite") as store:
        for i in range(40):
            store.write(f"key{i}", {"status": "ok", "i": i, "text": "x" * 50})
    (folder / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    spec, problem = _golden()
    found = search(spec, problem, read_ert(GOLDEN / "ert.yaml"), remainders=False)
    assert found.mapping is not None
    (folder / "mapping.yaml").write_text(yaml.safe_dump(directives(spec, problem, found.mapping)), encoding="utf-8")
    return folder


def _files(*names: str | Path) -> Callable[[], list[Path]]:
    return lambda: [name if isinstance(name, Path) else _made() / name for name in names]


@functools.cache
def _layer() -> Any:
    return read_workload(ROOT / "workloads" / "squeezenet_cifar.yaml").layers[3].problem


def _specification(path: Path) -> object:
    arch = read_arch(path)
    return instance_for(arch, load_candidates()[0], _layer(), library_for(arch))


def _problem(path: Path) -> object:
    document = fields.mapping(read_yaml(path), path, ("problem",), required=("problem",))
    return problem_from_document(document["problem"], path)


def _operators(path: Path) -> object:
    arch = read_arch(None)
    return [instance_for(arch, candidate, _layer(), library_for(arch)) for candidate in load_candidates(path)]


@functools.cache
def _golden() -> tuple[Any, Any]:
    """Specification and problem of the golden cases."""
    problem = conv_problem({"C": 8, "M": 8, "P": 4, "Q": 4, "R": 3, "S": 3})
    return spec_for(read_arch(GOLDEN / "arch.yaml"), problem), problem


def _mapping(path: Path) -> object:
    spec, problem = _golden()
    return parse_directives(spec, problem, read_yaml(path), path)


def _golden_specification(path: Path) -> object:
    return spec_for(read_arch(path), _golden()[1])


def _store(path: Path) -> object:
    with Store(path) as store:
        found = store.read(f"key{i}" for i in range(40))
        store.write("new", {"a": len(found) + len(store)})
        return found


def _run_file(path: Path) -> object:
    from search.runs.config import load_config  # torch takes its time

    return load_config(path)


def _results(path: Path) -> object:
    from search.runs.records import read_results

    return read_results(path)


def _protocol(path: Path) -> object:
    from search.reproduce.protocol import load_protocol

    return load_protocol(path)


_SPECIFICATION_NAMES = frozenset({"variables", "attributes"})

READERS: dict[str, Reader] = {
    "specification": Reader(_specification, _files(SPECS / "eyeriss_168.yaml"), _SPECIFICATION_NAMES),
    "problem": Reader(_problem, _files(GOLDEN / "problem.yaml")),
    "ert": Reader(read_ert, _files(GOLDEN / "ert.yaml"), frozenset({"*"})),
    "operators": Reader(_operators, _files(SPECS / "operators.yaml"), frozenset({"operators", "attributes"})),
    "workload": Reader(
        read_workload, lambda: sorted((ROOT / "workloads").glob("*.yaml")), frozenset({"passed_over", "instance"})
    ),
    "sweep": Reader(read_sweep, _files("sweep.yaml"), frozenset({"set", "zip"})),
    "summary": Reader(
        sweep_data, _files(ROOT / "results" / "squeezenet_cifar" / "sweep" / "summary.csv"), frozenset({"*"})
    ),
    "run": Reader(_run_file, lambda: sorted((ROOT / "search" / "configs").glob("*.yaml")), frozenset({"args", "pins"})),
    "protocol": Reader(
        _protocol,
        lambda: sorted((ROOT / "search" / "reproduce" / "protocols").glob("*.yaml")),
        frozenset({"args", "pins", "shared", "runs", "series"}),
    ),
    "results": Reader(_results, lambda: sorted((ROOT / "results").glob("*/results.json")), frozenset({"*"})),
    "golden": Reader(_golden_specification, _files(GOLDEN / "arch.yaml"), _SPECIFICATION_NAMES),
    "mapping": Reader(_mapping, _files("mapping.yaml")),
    "table": Reader(CostTable.load, _files("table.csv", "table.json", "table.parquet")),
    "store": Reader(_store, _files("store.sqlite")),
}
