"""The mapper: the minimum-energy mapping of a layer, with proof, over Timeloop's perfect-factor mapspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dse.energy.ert import Ert
    from dse.mapping import Mapping
    from dse.model import Evaluation
    from dse.problem import Problem
    from dse.spec import Spec

VERSION = "2"
"""Part of every store key: changes whenever the mapper's or the model's answers may change."""


@dataclass(frozen=True)
class Found:
    """The result of a search: a mapping with its evaluation, or the reason why there is none.

    `optimal` says that no mapping of the mapspace has less energy.
    """

    mapping: Mapping | None
    evaluation: Evaluation | None
    optimal: bool
    reason: str = ""


def search(spec: Spec, problem: Problem, ert: Ert, objective: str = "energy") -> Found:
    """The mapping of least energy.

    Deterministic. `Found.mapping` is None, with a reason, where nothing fits the hardware and its constraints.

    Raises:
        InputError: an unknown objective, or an energy that the table lacks.
    """
    from dse.mapper import explore  # numba takes a while to load, and a warm store needs none of it

    return explore.search(spec, problem, ert, objective)


__all__ = ["VERSION", "Found", "search"]
