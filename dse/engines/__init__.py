"""Engines: what evaluates mappings and searches for the best one. Everything downstream is the same for all."""

from __future__ import annotations

from collections.abc import Mapping as Settings
from typing import TYPE_CHECKING, Any, Protocol

from dse.core.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dse.hardware.energy.components import ComponentLibrary
    from dse.hardware.energy.ert import Ert
    from dse.hardware.spec import Spec
    from dse.mapper import Found
    from dse.model.evaluation import Evaluation
    from dse.model.mapping import Mapping
    from dse.workload.problem import Problem


NAMES = ("native", "timeloop")
MAPPINGS = ("timeloop", "native")
"""Who finds the mappings whose costs Timeloop computes."""


class Engine(Protocol):
    """One way to get from a layer and an accelerator to energies.

    `name`, `version` and `settings` are part of every result's key in the store: an engine whose answers change must
    change its version, and what a user can set about it must be in its settings (JSON data).
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def settings(self) -> Settings[str, object]: ...

    @property
    def batches_candidates(self) -> bool:
        """Whether one process should search all candidates of a layer, because they have work in common."""
        ...

    @property
    def has_remainders(self) -> bool:
        """Whether its mapspace has mappings with remainders."""
        ...

    def energies(
        self, spec: Spec, library: ComponentLibrary, where: object, compute_actions: Iterable[tuple[str, float]]
    ) -> Ert:
        """Energies of the components of `spec`, as `dse.hardware.instance.embedded_energies` gives them."""

    def evaluate(self, spec: Spec, problem: Problem, mapping: Mapping, ert: Ert) -> Evaluation:
        """Accesses, energy and cycles of a mapping; InputError if it does not fit the hardware."""

    def search(
        self, spec: Spec, problem: Problem, ert: Ert, objective: str, remainders: bool, *, slack: float = 0.0
    ) -> Found:
        """The best mapping, with `remainders` also of those that have some, or the reason why there is none.

        With a slack, the fastest of those within that share of the least energy (`dse.mapper.search`).
        """


def load_engine(name: str, **settings: Any) -> Engine:
    """The engine called `name`; InputError for an unknown name, a wrong setting, or one that is not installed."""
    if name == "native":
        from dse.engines.native import NativeEngine

        return NativeEngine(**settings)
    if name == "timeloop":
        from dse.engines.timeloop.engine import TimeloopEngine

        return TimeloopEngine(**settings)
    raise unknown("engine", "engine", name, NAMES)
