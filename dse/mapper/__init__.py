"""The mapper: the best mapping of a layer in Timeloop's perfect-factor mapspace, with proof.

Optionally it also looks among mappings with remainders, without proof. docs/mapper.md explains how it searches, and
which function does what.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dse.core.errors import unknown
from dse.hardware.constraints import searchable
from dse.mapper.slack import check_slack

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

    `optimal` means that no mapping without remainders is better, and that none with remainders was looked for.
    """

    mapping: Mapping | None
    evaluation: Evaluation | None
    optimal: bool
    reason: str = ""


def search(
    spec: Spec,
    problem: Problem,
    ert: Ert,
    objective: str = "energy",
    imperfect: bool = False,
    *,
    slack: float = 0.0,
) -> Found:
    """The best mapping of a layer, and what it costs.

    Of several equally good mappings it always returns the same one, whatever was searched before. If exact factors of
    the constraints do not divide the layer, and nothing else fits, the mapping has a remainder, as in Timeloop, and is
    not proven.

    Args:
        spec: the accelerator.
        problem: the layer.
        ert: pJ for each component and action.
        objective: one of `OBJECTIVES`.
        imperfect: also looks among mappings with remainders, which leave fewer units idle; docs/imperfect.md.
        slack: with objective energy, a share of the least energy, 0 to 1. Above 0 the mapping is the one of fewest
            cycles among those of at most (1 + slack) x the least energy. It is then optimal if both are proven.

    Returns:
        The mapping, or None with the reason if nothing fits the hardware and its constraints.

    Raises:
        InputError: an unknown objective, an energy that the table lacks, or a slack that is no share, or that is given
            with another objective or with `imperfect`.

    >>> from dse.hardware.candidates import load_candidates
    >>> from dse.hardware.instance import instance_for, library_for, read_arch
    >>> from dse.workload.problem import conv_problem
    >>> arch, layer = read_arch(), conv_problem({"C": 4, "M": 8, "P": 8, "Q": 8, "R": 3, "S": 3})
    >>> chip = instance_for(arch, load_candidates()[0], layer, library_for(arch))
    >>> result = search(chip.spec, layer, chip.ert)
    >>> result.optimal, result.evaluation.cycles
    (True, 1536)
    >>> fast = search(chip.spec, layer, chip.ert, slack=0.01)
    >>> fast.evaluation.cycles, round(fast.evaluation.energy_pj / result.evaluation.energy_pj, 4)
    (192, 1.0041)
    """
    check_objective(objective)
    slack = check_slack(slack, objective, imperfect)
    spec = searchable(spec, problem)
    from dse.mapper import branch_and_bound  # numba takes a while to load, and a warm store needs none of it
    from dse.mapper.remainders import padded

    if imperfect:
        return padded.search(spec, problem, ert, objective, branch_and_bound.search)
    if slack:
        from dse.mapper.front import fastest_within

        result = fastest_within(spec, problem, ert, slack)
    else:
        result = branch_and_bound.search(spec, problem, ert, objective)
    if result.mapping is None:
        return padded.where_factors_do_not_divide(spec, problem, ert, objective, branch_and_bound.search) or result
    return result


def check_objective(objective: str) -> None:
    """Refuses an objective that the mapper cannot minimise.

    Raises:
        InputError: an unknown objective.
    """
    if objective not in OBJECTIVES:
        raise unknown("objective", "objective", objective, OBJECTIVES)


__all__ = ["ANSWERS", "OBJECTIVES", "VERSION", "Found", "check_objective", "search"]
