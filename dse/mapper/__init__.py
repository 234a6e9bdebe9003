"""The mapper: the best mapping of a layer, with proof, over Timeloop's perfect-factor mapspace.

As an option also mappings with remainders, without proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dse.core.errors import InputError
from dse.hardware.constraints import searchable

if TYPE_CHECKING:
    from dse.hardware.energy.ert import Ert
    from dse.hardware.spec import Spec
    from dse.model.evaluation import Evaluation
    from dse.model.mapping import Mapping
    from dse.workload.problem import Problem

OBJECTIVES = ("energy", "edp", "delay")
"""What can be minimised: energy; energy x delay; delay, and among the fastest mappings energy."""

VERSION = "5"
"""Part of every store key: changes whenever the mapper's or the model's answers may change."""

ANSWERS = "5:4be104c144e54895"
"""The version and a digest of a few answers; `tests/dse/mapper/test_version.py` compares it and says what to write."""


@dataclass(frozen=True)
class Found:
    """The result of a search: a mapping with its evaluation, or the reason why there is none.

    `optimal` says that no mapping without remainders is better, and that none with remainders was looked for.
    """

    mapping: Mapping | None
    evaluation: Evaluation | None
    optimal: bool
    reason: str = ""


def search(spec: Spec, problem: Problem, ert: Ert, objective: str = "energy", imperfect: bool = False) -> Found:
    """The best mapping.

    Args:
        objective: one of `OBJECTIVES`.
        imperfect: also looks among mappings with remainders, where fan-outs do more with them; docs/imperfect.md.

    Where exact factors of the constraints do not divide the layer, and nothing else fits, the mapping has a remainder,
    as in Timeloop, and is not proven.

    `Found.mapping` is None, with a reason, where nothing fits the hardware and its constraints. Which of several
    equally good mappings is found does not depend on what was searched before.

    Raises:
        InputError: an unknown objective, or an energy that the table lacks.
    """
    check_objective(objective)
    spec = searchable(spec, problem)
    from dse.mapper import branch_and_bound  # numba takes a while to load, and a warm store needs none of it
    from dse.mapper.remainders import padded

    if imperfect:
        return padded.search(spec, problem, ert, objective, branch_and_bound.search)
    result = branch_and_bound.search(spec, problem, ert, objective)
    if result.mapping is None:
        return padded.where_factors_do_not_divide(spec, problem, ert, objective, branch_and_bound.search) or result
    return result


def check_objective(objective: str) -> None:
    """Refuses what the mapper cannot minimise."""
    if objective not in OBJECTIVES:
        raise InputError("objective", f"found {objective!r}", OBJECTIVES)


__all__ = ["ANSWERS", "OBJECTIVES", "VERSION", "Found", "check_objective", "search"]
