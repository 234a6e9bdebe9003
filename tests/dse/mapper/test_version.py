"""The version in every store key changes when answers change: a digest of a few answers is recorded beside it.

The questions are fixed: the recorded architecture and energies of tests/golden, and an array written down here. Their
answers depend on dse.mapper and dse.model alone, not on what this project ships.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dse.mapper
from dse.hardware.energy.ert import Ert, read_ert
from dse.hardware.spec import Spec
from dse.hardware.spec_reader import SpecFile
from dse.mapper import search
from dse.model.mapping import loop_nest
from dse.workload.problem import Problem, conv_problem

GOLDEN = Path(__file__).parents[2] / "golden"
TENSORS = ("Weights", "Inputs", "Outputs")
SQUEEZE = {"C": 64, "M": 16, "P": 8, "Q": 8}
EXPAND = {"C": 16, "M": 64, "P": 8, "Q": 8, "R": 3, "S": 3}
GROUPS = {"G": 4, "C": 2, "M": 4, "P": 6, "Q": 6, "R": 3, "S": 3, "Hstride": 2, "Wstride": 2}
ODD = {"C": 5, "M": 7, "P": 13, "R": 3}


class Question(NamedTuple):
    """What `dse.mapper.search` is asked: the hardware, a layer, an objective, and whether remainders are allowed."""

    hardware: str
    layer: dict[str, int]
    objective: str = "energy"
    remainders: bool = False


QUESTIONS = (
    Question("recorded", {"C": 3, "M": 64, "P": 16, "Q": 16, "R": 3, "S": 3, "Hstride": 2, "Wstride": 2}),
    Question("recorded", SQUEEZE),
    Question("recorded", EXPAND),
    Question("recorded", EXPAND, "edp"),
    Question("recorded", SQUEEZE, "delay"),
    Question("recorded", ODD, "edp", remainders=True),
    Question("array", GROUPS),
    Question("array", SQUEEZE, "edp"),
    Question("array", GROUPS, "delay"),
    Question("array", ODD, "delay", remainders=True),
)


def recorded(problem: Problem) -> tuple[Spec, Ert]:
    """The 168 PEs of tests/golden, 8 bit."""
    bits = {"act_bits": 8, "weight_bits": 8, "psum_bits": 20}
    spec = SpecFile.read(GOLDEN / "arch.yaml").instance(bits, problem=problem)
    return spec, Ert({**read_ert(GOLDEN / "ert.yaml").tables, "mac": {"compute": 0.921875}})


def array(problem: Problem) -> tuple[Spec, Ert]:
    """4 x 3 PEs without constraints, with blocks, a bandwidth, leakage and a buffer that may be bypassed."""
    memory = {"!": "Component", "class": "SRAM"}
    nodes = [
        {**memory, "name": "dram", "attributes": {"datawidth": 8, "width": 32, "shared_bandwidth": 4}},
        {**memory, "name": "buffer", "attributes": {"datawidth": 8, "width": 16, "depth": 512},
         "constraints": {"dataspace": {"keep": ["Inputs", "Outputs"]}}},
        {"!": "Container", "name": "pe", "spatial": {"meshX": 4, "meshY": 3}},
        {**memory, "name": "registers", "attributes": {"datawidth": 8, "width": 8, "depth": 24},
         "constraints": {"dataspace": {"keep": list(TENSORS)}}},
        {"!": "Component", "name": "mac", "class": "intmac"},
    ]  # fmt: skip
    document = {"architecture": {"version": 0.4, "nodes": nodes}}
    spec = SpecFile(document, "array").instance(problem=problem)
    prices = {"dram": (64.0, 64.0, 64.0, 0.5), "buffer": (4.0, 5.0, 5.0, 0.25), "registers": (1.0, 1.25, 1.25, 0.125)}
    tables = {name: dict(zip(("read", "write", "update", "leak"), p, strict=True)) for name, p in prices.items()}
    return spec, Ert({**tables, "mac": {"compute": 0.5}})


def answer(question: Question) -> dict[str, Any]:
    """A mapping and what it costs, as plain data; energies to nine digits, because the order of sums may change."""
    problem = conv_problem(question.layer)
    spec, ert = {"recorded": recorded, "array": array}[question.hardware](problem)
    result = search(spec, problem, ert, question.objective, question.remainders)
    assert result.mapping is not None and result.evaluation is not None
    cost = result.evaluation.document()
    del cost["leakage_pj"]  # a part of energy_pj, which the recorded digest has
    return {
        "nest": loop_nest(spec, result.mapping),
        "keep": {level: sorted(kept) for level, kept in result.mapping.keep.items()},
        "optimal": result.optimal,
        "cost": _nine_digits(cost),
    }


def _nine_digits(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nine_digits(v) for key, v in value.items()}
    return f"{value:.9g}" if isinstance(value, float) else value


def digest(answers: Iterator[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(list(answers), sort_keys=True).encode()).hexdigest()[:16]


def advice(version: str, recorded_answers: str, computed: str) -> str:
    """What to do about answers that are not the recorded ones, "" if they are."""
    if recorded_answers == f"{version}:{computed}":
        return ""
    if recorded_answers.endswith(f":{computed}"):
        return f'VERSION has changed: in dse/mapper/__init__.py write ANSWERS = "{version}:{computed}"'
    if not recorded_answers.startswith(f"{version}:"):
        return f'VERSION and the answers have changed: in dse/mapper/__init__.py write ANSWERS = "{version}:{computed}"'
    new = int(version) + 1
    return (
        "the mapper gives other answers than before. If that is intended, results in stores are out of date: in "
        f'dse/mapper/__init__.py write VERSION = "{new}" and ANSWERS = "{new}:{computed}"'
    )


def test_the_version_belongs_to_the_answers() -> None:
    problem = advice(dse.mapper.VERSION, dse.mapper.ANSWERS, digest(map(answer, QUESTIONS)))
    assert not problem, problem


def test_answers_that_change_ask_for_a_new_version() -> None:
    assert advice("5", "5:abc", "abc") == ""
    assert 'VERSION = "6" and ANSWERS = "6:def"' in advice("5", "5:abc", "def")
    assert advice("6", "5:abc", "abc").endswith('ANSWERS = "6:abc"')
    assert advice("6", "5:abc", "def").endswith('ANSWERS = "6:def"')


def test_the_digest_sees_counts_and_mappings() -> None:
    first = answer(QUESTIONS[6])
    assert first["cost"]["levels"]["buffer"]["Outputs"]["updates"] > 0
    other = copy.deepcopy(first)
    other["cost"]["levels"]["buffer"]["Outputs"]["updates"] += 1
    assert len({digest(iter([a])) for a in (first, other, first | {"nest": first["nest"] + " "})}) == 3
