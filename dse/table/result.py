"""The answer of a mapping search as the store keeps it and the cost table shows it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from dse.model.mapping import directives, loop_nest
from dse.model.real_iterations import steps
from dse.table.columns import LevelColumn

if TYPE_CHECKING:
    from dse.hardware.instance import Instance
    from dse.hardware.spec import Spec
    from dse.mapper import Found
    from dse.model.evaluation import Evaluation
    from dse.model.mapping import Mapping
    from dse.table.columns import Row
    from dse.workload.problem import Problem

ACCESSES = ("reads", "fills", "updates")


@dataclass(frozen=True)
class Result:
    """The best mapping of a layer, or why there is none.

    `levels[level][tensor]` holds tile and instances, accesses in words per instance, and energy in pJ over all.
    """

    status: str  # "ok" or "no_mapping"
    reason: str = ""
    optimal: bool = False
    energy_pj: float = 0.0
    compute_pj: float = 0.0
    leakage_pj: float = 0.0
    cycles: int = 0
    compute_instances: float = 0  # in use on average, while there are no stalls
    levels: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict, hash=False)
    mapping: list[dict[str, Any]] = field(default_factory=list, hash=False)  # Timeloop's directives
    nest: str = ""  # the same in one line

    @property
    def payload(self) -> dict[str, Any]:
        """JSON data from which `from_payload` makes an equal result."""
        return asdict(self)

    @staticmethod
    def from_payload(payload: Any) -> Result | None:
        """The stored result; None for data of another form, which must be computed again."""
        if not isinstance(payload, dict) or set(payload) != set(Result.__dataclass_fields__):
            return None
        sound = all(type(payload[name]) in kinds for name, kinds in _KINDS.items()) and _sound_levels(payload["levels"])
        return Result(**payload) if sound and payload["status"] in ("ok", "no_mapping") else None


_KINDS: dict[str, tuple[type, ...]] = {
    "status": (str,), "reason": (str,), "optimal": (bool,), "energy_pj": (int, float), "compute_pj": (int, float),
    "leakage_pj": (int, float),
    "cycles": (int,), "compute_instances": (int, float), "levels": (dict,), "mapping": (list,), "nest": (str,),
}  # fmt: skip


def _sound_levels(levels: dict[str, Any]) -> bool:
    """Whether stored levels have the accesses and the energy of every tensor, as numbers."""
    needed = (*ACCESSES, "instances", "energy_pj")
    tensors = [t for level in levels.values() for t in (level.values() if isinstance(level, dict) else [None])]
    return all(isinstance(t, dict) and all(type(t.get(n)) in (int, float) for n in needed) for t in tensors)


def result_of(found: Found, instance: Instance, problem: Problem) -> Result:
    """What is kept of a search's answer."""
    if found.mapping is None or found.evaluation is None:
        return Result("no_mapping", found.reason)
    evaluation = found.evaluation
    return Result(
        status="ok",
        optimal=found.optimal,
        energy_pj=evaluation.energy_pj,
        compute_pj=evaluation.compute_energy_pj,
        leakage_pj=evaluation.leakage_pj,
        cycles=evaluation.cycles,
        compute_instances=_busy(instance.spec, problem, found.mapping, evaluation),
        levels={level: {t: asdict(a) for t, a in tensors.items()} for level, tensors in evaluation.levels.items()},
        mapping=directives(instance.spec, problem, found.mapping),
        nest=loop_nest(instance.spec, found.mapping),
    )


def evaluation_of(result: Result, spec: Spec, problem: Problem) -> Evaluation:
    """The evaluation of a result that has a mapping; the compute units in use may be an average."""
    from dse.model.evaluation import Accesses, Evaluation

    levels = {level: {t: Accesses(**a) for t, a in tensors.items()} for level, tensors in result.levels.items()}
    return Evaluation(
        energy_pj=result.energy_pj,
        cycles=result.cycles,
        computes=problem.macs,
        compute_instances=result.compute_instances,
        compute_energy_pj=result.compute_pj,
        leakage_pj=result.leakage_pj,
        levels=levels,
        compute_name=spec.compute.name,
    )


def _busy(spec: Spec, problem: Problem, mapping: Mapping, evaluation: Evaluation) -> float:
    """Compute units that work in an average step: all that are used, but for remainders."""
    if not mapping.remainders:
        return evaluation.compute_instances
    return problem.macs / steps(spec, problem, mapping)


def table_row(
    workload: str, layer: str, kind: str, shape: str, n_ops: int, instance: Instance, engine: str, result: Result
) -> Row:
    """The cost table's row of a layer under a candidate; without a mapping it has a reason and no costs."""
    candidate = instance.candidate
    ok = result.status == "ok"
    row: Row = {
        "workload": workload,
        "layer": layer,
        "kind": kind,
        "shape": shape,
        "operator": candidate.operator,
        "bits": candidate.bits,
        "candidate": candidate.name,
        "status": result.status,
        "reason": result.reason,
        "n_ops": n_ops,
        "e_op_pj": instance.e_op_pj,
        "e_compute_pj": result.compute_pj if ok else None,
        "e_tx_pj": result.energy_pj - result.compute_pj if ok else None,
        "e_tx_on_chip_pj": result.energy_pj - result.compute_pj - _off_chip_pj(instance, result) if ok else None,
        "leakage_pj": result.leakage_pj if ok else None,
        "cycles": clock_cycles(result.cycles, instance.cycles if n_ops else 1.0) if ok else None,
        "utilisation": result.compute_instances / instance.spec.pe_count if ok else None,
        "engine": engine,
        "optimal": result.optimal if ok else None,
        "mapping": result.nest,
    }
    for level, tensors in result.levels.items():
        for tensor, accesses in tensors.items():
            for count in ACCESSES:
                row[LevelColumn(level, tensor, count).name] = accesses[count] * accesses["instances"]
            row[LevelColumn(level, tensor, "energy_pj").name] = accesses["energy_pj"]
    return row


def clock_cycles(steps: int, of_step: float) -> int:
    """Clock cycles of a layer from those of a mapping, in which every compute unit does an operation.

    Args:
        of_step: clock cycles of an operation, `Instance.cycles`; 1 where nothing is computed.

    Example:
        >>> clock_cycles(100, 90.0), clock_cycles(3, 0.5)
        (9000, 2)
    """
    return steps if of_step == 1 else math.ceil(steps * of_step)


def _off_chip_pj(instance: Instance, result: Result) -> float:
    """Energy in pJ of the levels outside the chip: their accesses and their leakage."""
    total = 0.0
    for storage in instance.spec.storages:
        if storage.off_chip:
            tensors = result.levels.get(storage.name, {}).values()
            used = max((a["instances"] for a in tensors), default=1)
            # A lookup is the one result that is in clock cycles; it has no compute unit that takes several.
            scale = 1.0 if result.mapping else 1 / instance.cycles
            leakage = instance.ert.storage(storage.name)["leak"] * scale * result.cycles * used
            total += leakage + sum(a["energy_pj"] for a in tensors)
    return total
