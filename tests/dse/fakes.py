"""An engine for tests: every loop runs at the outermost memory, which is quick and never optimal."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.core.errors import InputError
from dse.hardware.instance import embedded_energies
from dse.hardware.spec import Fanout
from dse.model.evaluation import Evaluation, evaluate
from dse.model.mapping import Mapping


@dataclass(frozen=True)
class FakeFound:
    mapping: Mapping | None
    evaluation: Evaluation | None
    optimal: bool = False
    reason: str = ""
    mapspace: str = "perfect factors"


@dataclass(frozen=True)
class FakeEngine:
    """`seconds` is how long a search lasts; `log` a file that gets one line a search.

    With `halts` searches last for ever from that line on, until the process is killed.
    """

    name: str = "fake"
    version: str = "1"
    seconds: float = 0.0
    log: str = ""
    halts: int = 0
    batches_candidates: bool = True
    has_remainders: bool = True

    @property
    def settings(self) -> Any:
        return {}

    def energies(self, spec: Any, library: Any, where: Any, compute_actions: Any) -> Any:
        return embedded_energies(spec, library, where, compute_actions)

    def evaluate(self, spec: Any, problem: Any, mapping: Any, ert: Any) -> Any:
        return evaluate(spec, problem, mapping, ert)

    def search(self, spec: Any, problem: Any, ert: Any, objective: Any, remainders: Any = True, **_: Any) -> Any:
        time.sleep(self.seconds)
        if self.log:
            with open(self.log, "a") as f:  # noqa: PTH123
                f.write("searched\n")
            while self.halts and Path(self.log).read_text().count("\n") >= self.halts:
                time.sleep(60)
        loops = tuple((d, n) for d, n in problem.bound.items() if n > 1)
        fanouts = {level.name: () for level in spec.levels if isinstance(level, Fanout)}
        tensors = {t.name for t in problem.data_spaces}
        mapping = Mapping(
            {s.name: loops if s is spec.storages[0] else () for s in spec.storages},
            fanouts,
            fanouts,
            {s.name: frozenset(t for t in tensors if s.keep.get(t, True)) for s in spec.storages},
        )
        try:
            return FakeFound(mapping, evaluate(spec, problem, mapping, ert))
        except InputError as e:
            return FakeFound(None, None, reason=str(e))
