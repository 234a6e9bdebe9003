"""The mapper: the best mapping of a layer.

It looks among mappings with remainders, or in Timeloop's mapspace of perfect factors. docs/mapper.md explains how it
searches, and which function does what.
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

PERFECT, REMAINDERS = "perfect factors", "remainders"
"""The mapspaces. With remainders the last run of a loop may be shorter than the others."""

VERSION = "6"
"""Part of every store key: changes whenever the mapper's or the model's answers may change."""

ANSWERS = "6:41bc71168d869e66"
"""The version and a digest of a few answers; `tests/dse/mapper/test_version.py` compares it and says what to write."""


@dataclass(frozen=True)
class Found:
    """The result of a search: a mapping with its evaluation, or the reason why there is none.

    `optimal` means that no mapping of `mapspace`, which is `PERFECT` or `REMAINDERS`, is better. What a mapping with
    remainders costs is its physical count (`dse.model.physical`).
    """

    mapping: Mapping | None
    evaluation: Evaluation | None
    optimal: bool
    reason: str = ""
    mapspace: str = PERFECT


def search(
    spec: Spec,
    problem: Problem,
    ert: Ert,
    objective: str = "energy",
    remainders: bool = True,
    *,
    slack: float = 0.0,
) -> Found:
    """The best mapping of a layer, and what it costs.

    Of several equally good mappings it always returns the same one, whatever was searched before. Where no perfect
    factors fit, for example because exact factors of the constraints do not divide the layer, the mapping has
    remainders whatever is asked for, as in Timeloop.

    Args:
        spec: the accelerator.
        problem: the layer.
        ert: pJ for each component and action.
        objective: one of `OBJECTIVES`.
        remainders: looks among mappings with remainders, too, which leave fewer units idle (docs/imperfect.md); else
            among those whose factors divide the layer.
        slack: with objective energy, a share of the least energy, 0 to 1. Above 0 the mapping is the one of fewest
            cycles among those of at most (1 + slack) x the least energy. It is then optimal if both are proven.

    Returns:
        The mapping, or None with the reason if nothing fits the hardware and its constraints.

    Raises:
        InputError: an unknown objective, an energy that the table lacks, or a slack that is no share, or that is given
            with another objective than energy.

    >>> from dse.hardware.candidates import load_candidates
    >>> from dse.hardware.instance import instance_for, library_for, read_arch
    >>> from dse.workload.problem import conv_problem
    >>> arch, layer = read_arch(), conv_problem({"C": 4, "M": 8, "P": 8, "Q": 8, "R": 3, "S": 3})
    >>> chip = instance_for(arch, load_candidates()[0], layer, library_for(arch))
    >>> result = search(chip.spec, layer, chip.ert, remainders=False)
    >>> result.optimal, result.mapspace, result.evaluation.cycles
    (True, 'perfect factors', 1536)
    >>> fast = search(chip.spec, layer, chip.ert, remainders=False, slack=0.01)
    >>> fast.evaluation.cycles, round(fast.evaluation.energy_pj / result.evaluation.energy_pj, 4)
    (192, 1.0041)
    """
    check_objective(objective)
    slack = check_slack(slack, objective)
    spec = searchable(spec, problem)
    from dse.mapper import branch_and_bound  # numba takes a while to load, and a warm store needs none of it
    from dse.mapper.remainders import search as with_remainders

    if slack:
        from dse.mapper.front import fastest_within

        return fastest_within(spec, problem, ert, slack, remainders=remainders)
    perfect = branch_and_bound.search(spec, problem, ert, objective)
    if remainders or perfect.mapping is None:
        return with_remainders.best(spec, problem, ert, objective, perfect)
    return perfect


def check_objective(objective: str) -> None:
    """Refuses an objective that the mapper cannot minimise.

    Raises:
        InputError: an unknown objective.
    """
    if objective not in OBJECTIVES:
        raise unknown("objective", "objective", objective, OBJECTIVES)


__all__ = ["ANSWERS", "OBJECTIVES", "PERFECT", "REMAINDERS", "VERSION", "Found", "check_objective", "search"]
