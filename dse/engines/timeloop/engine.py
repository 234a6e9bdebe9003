"""The real Timeloop as the engine: `timeloop-mapper` searches, `timeloop-model` evaluates."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dse.core.errors import InputError, unknown
from dse.engines import MAPPINGS
from dse.engines.timeloop import front_end, logs, process, stats
from dse.engines.timeloop.installation import require
from dse.engines.timeloop.v4_documents import METRICS
from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Spec
from dse.mapper import VERSION as NATIVE_VERSION
from dse.mapper import Found, check_objective
from dse.model.evaluation import Evaluation
from dse.model.mapping import Mapping, directives
from dse.workload.problem import Problem

if TYPE_CHECKING:
    from dse.engines.timeloop.process import Run
    from dse.hardware.energy.components import ComponentLibrary

ADAPTER_VERSION = 1
"""Part of every store key: changes whenever what is given to Timeloop, or how its output is read, changes."""

SECONDS = 60.0
_MODEL_SECONDS = 600.0
_MODEL_STATS, _MAPPER_STATS = "timeloop-model.stats.txt", "timeloop-mapper.stats.txt"
_MAPPER_MAPPING = "timeloop-mapper.map.yaml"
_PRINTED_PJ = 0.2  # what rounding to two decimals can make of a sum of some tens of energies
_FIRST_TIMEOUT = 200_000
_NO_TIMEOUT = 2**32 - 1


@dataclass(frozen=True)
class Programs:
    """What a search or an evaluation runs; `front_end` is a module, such as ``pytimeloop.timeloopfe.v4``."""

    mapper: Path
    model: Path
    front_end: str

    @staticmethod
    def installed() -> Programs:
        """Those of this machine; InputError that names what is missing."""
        found = require("--engine timeloop")
        assert found.mapper is not None and found.model is not None and found.front_end is not None
        return Programs(found.mapper, found.model, found.front_end)


@dataclass(frozen=True)
class TimeloopEngine:
    """Drives an installed Timeloop.

    Args:
        mapping: ``timeloop`` lets `timeloop-mapper` search; ``native`` has `timeloop-model` evaluate the mappings of
            the native mapper.
        seconds: wall-clock limit of one search by `timeloop-mapper`; a search that found nothing is repeated once.
        threads: of one search. The mapspace is split by it, so that another number gives other mappings.
        victory_condition: a thread stops after this many valid mappings in a row that are no better; 0 for never.
        grace: how long `timeloop-mapper` may take to write its results after the limit.
    """

    mapping: str = "timeloop"
    seconds: float = SECONDS
    algorithm: str = "random_pruned"
    threads: int = 1
    victory_condition: int = 0
    grace: float = process.GRACE_SECONDS
    programs: Programs = field(default_factory=Programs.installed)
    name: str = "timeloop"

    def __post_init__(self) -> None:
        if self.mapping not in MAPPINGS:
            raise unknown("--mapping", "mapper", self.mapping, MAPPINGS)
        if not 0 < self.seconds < float("inf"):
            raise InputError("--seconds", f"found {self.seconds!r}", "a number above 0")
        if self.threads < 1:
            raise InputError("threads", f"found {self.threads!r}", "a whole number, at least 1")

    @property
    def version(self) -> str:
        """This adapter's version, and the native mapper's where that finds the mappings."""
        return f"{ADAPTER_VERSION}+native{NATIVE_VERSION}" if self.mapping == "native" else str(ADAPTER_VERSION)

    @property
    def settings(self) -> dict[str, object]:
        """What else decides an answer, for the store's key: the program, and how it searches."""
        if self.mapping == "native":
            return {"mapping": "native", "program": program_digest(self.programs.model)}
        return {
            "mapping": "timeloop",
            "program": program_digest(self.programs.mapper),
            "seconds": self.seconds,
            "attempts": self._attempts("energy"),  # the objective has its own place in the key
        }

    @property
    def batches_candidates(self) -> bool:
        """Searches of `timeloop-mapper` have nothing in common."""
        return self.mapping == "native"

    @property
    def has_remainders(self) -> bool:
        """`timeloop-mapper` searches perfect factors only."""
        return self.mapping == "native"

    def energies(
        self, spec: Spec, library: ComponentLibrary, where: object, compute_actions: Iterable[tuple[str, float]]
    ) -> Ert:
        """Energies of the components of `spec` from the real Accelergy."""
        from dse.engines.timeloop import accelergy

        return accelergy.energies(spec, library, where, compute_actions)

    def evaluate(self, spec: Spec, problem: Problem, mapping: Mapping, ert: Ert) -> Evaluation:
        """Timeloop's accesses, energy and cycles of a mapping; InputError with its words if it refuses the mapping."""
        program = self.programs.model
        entries = directives(spec, problem, mapping)
        document = front_end.model_input(self.programs.front_end, spec, problem, ert, entries)
        run = process.run(program, document, (_MODEL_STATS,), _MODEL_SECONDS, self.grace)
        text = _result(run, program, _MODEL_STATS, _MODEL_SECONDS)
        return stats.parse_stats(text, spec, problem, _MODEL_STATS)

    def search(
        self, spec: Spec, problem: Problem, ert: Ert, objective: str, remainders: bool = False, *, slack: float = 0.0
    ) -> Found:
        """The best mapping found within the limits; it is never known to be optimal.

        Raises:
            InputError: Timeloop fails, or `remainders` or a slack are asked of `timeloop-mapper`.
        """
        if self.mapping == "native":
            return self._search_natively(spec, problem, ert, objective, remainders, slack)
        self.check_remainders(remainders)
        if slack:
            raise InputError("--slack", "timeloop-mapper cannot be asked for it", hint="use --mapping native")
        check_objective(objective)
        reason = ""
        for mapper in self._attempts(objective):
            run = self._run_mapper(spec, problem, ert, mapper)
            if not logs.found_no_mapping(run.log):
                return self._found(run, spec, problem)
            reason = logs.no_mapping_reason(run.log)
            if run.stopped:
                reason += f"; stopped after {self.seconds:g} s"
        return Found(None, None, False, f"timeloop-mapper: {reason}")

    def check_remainders(self, remainders: bool) -> None:
        """Refuses remainders where `timeloop-mapper` searches: its mapspace has none."""
        if remainders and not self.has_remainders:
            raise InputError(
                "--imperfect", "timeloop-mapper has no mappings with remainders", hint="use --mapping native"
            )

    def _search_natively(
        self, spec: Spec, problem: Problem, ert: Ert, objective: str, remainders: bool, slack: float
    ) -> Found:
        from dse.mapper import search

        found = search(spec, problem, ert, objective, remainders, slack=slack)
        if found.mapping is None or found.evaluation is None:
            return found
        evaluation = self.evaluate(spec, problem, found.mapping, ert)
        # The proof is one over the native model: it holds where that and Timeloop agree, as far as digits are printed.
        # They do not on mappings with remainders, of which the native search compares physical counts.
        agree = math.isclose(evaluation.energy_pj, found.evaluation.energy_pj, rel_tol=1e-6, abs_tol=_PRINTED_PJ)
        return Found(
            found.mapping,
            evaluation,
            found.optimal and agree and evaluation.cycles == found.evaluation.cycles,
            mapspace=found.mapspace,
        )

    def _attempts(self, objective: str) -> list[dict[str, Any]]:
        """Timeloop's `mapper` section of each try: the wider search comes if the one before found nothing.

        `timeout` counts invalid mappings in a row; the second try has none and says what was in the way.
        """
        first = {
            "optimization_metrics": METRICS[objective],
            "algorithm": self.algorithm,
            "num_threads": self.threads,
            "victory_condition": self.victory_condition,
            "timeout": _FIRST_TIMEOUT,
            "max_permutations_per_if_visit": 16,
            "live_status": False,
            "diagnostics": False,
        }
        wider = {**first, "algorithm": "linear_pruned", "timeout": _NO_TIMEOUT, "diagnostics": True}
        return [first, wider]

    def _run_mapper(self, spec: Spec, problem: Problem, ert: Ert, mapper: MappingType[str, Any]) -> Run:
        document = front_end.mapper_input(self.programs.front_end, spec, problem, ert, mapper)
        return process.run(self.programs.mapper, document, (_MAPPER_STATS, _MAPPER_MAPPING), self.seconds, self.grace)

    def _found(self, run: Run, spec: Spec, problem: Problem) -> Found:
        text = _result(run, self.programs.mapper, _MAPPER_STATS, self.seconds)
        evaluation = stats.parse_stats(text, spec, problem, _MAPPER_STATS)
        mapping = stats.parse_mapping(run.files.get(_MAPPER_MAPPING, ""), spec, problem, _MAPPER_MAPPING)
        return Found(mapping, evaluation, False)


@cache
def program_digest(program: Path) -> str:
    """Names the content of a program, of which no version can be asked: another build may answer otherwise."""
    return hashlib.sha256(program.read_bytes()).hexdigest()[:16]


def _result(run: Run, program: Path, output: str, seconds: float) -> str:
    """The text of a result; exit code 0 alone means nothing, so a result is a file with content.

    Raises:
        InputError: no result, with the program's own words.
    """
    if run.killed:
        raise InputError(program, f"did not stop after {seconds:g} s and was killed")
    text = run.files.get(output, "")
    if run.code == 0 and text.strip():
        return text
    end = f"exit code {run.code}" if run.code >= 0 else f"killed by signal {-run.code}"
    limit = f" at its limit of {seconds:g} s" if run.stopped else ""
    raise InputError(program, f"ended without a result ({end}{limit}): {logs.failure(run.log)}")
