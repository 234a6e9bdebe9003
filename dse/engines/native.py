"""The embedded engine: the access model of `dse.model` and the exact mapper of `dse.mapper`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dse.hardware.energy.components import ComponentLibrary
from dse.hardware.energy.ert import Ert
from dse.hardware.instance import embedded_energies
from dse.hardware.spec import Spec
from dse.model.evaluation import Evaluation
from dse.model.mapping import Mapping
from dse.model.physical import physical
from dse.workload.problem import Problem

if TYPE_CHECKING:
    from dse.mapper import Found

# dse.mapper is imported where it is used: its compiled loops take longer to load than a warm `enos map` lasts.


@dataclass(frozen=True)
class NativeEngine:
    """Needs nothing but this package."""

    name: str = "native"
    batches_candidates: bool = True
    has_remainders: bool = True

    @property
    def version(self) -> str:
        """The version of mapper and model."""
        from dse.mapper import VERSION

        return str(VERSION)

    @property
    def settings(self) -> dict[str, object]:
        return {}

    def energies(
        self, spec: Spec, library: ComponentLibrary, where: object, compute_actions: Iterable[tuple[str, float]]
    ) -> Ert:
        return embedded_energies(spec, library, where, compute_actions)

    def evaluate(self, spec: Spec, problem: Problem, mapping: Mapping, ert: Ert) -> Evaluation:
        """Timeloop's counts, of a mapping with remainders the physical ones."""
        return physical(spec, problem, mapping, ert)

    def search(
        self, spec: Spec, problem: Problem, ert: Ert, objective: str, remainders: bool = True, *, slack: float = 0.0
    ) -> Found:
        from dse.mapper import search

        return search(spec, problem, ert, objective, remainders, slack=slack)
