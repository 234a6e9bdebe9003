"""Where two evaluations of one mapping differ: the native engine's and the real Timeloop's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dse.hardware.spec import Spec
from dse.model.evaluation import Accesses, Evaluation

COUNTS = ("tile", "instances", "reads", "fills", "updates")
PRINTED_PJ = 0.005
"""Half of the last digit of an energy in ``stats.txt``, which has two decimals."""
_NOISE = 1e-12  # of the energy: sums in another order


@dataclass(frozen=True)
class Difference:
    """One number that differs; None where an engine does not have it at all.

    `level` and `tensor` are empty for the whole layer, `tensor` also for the compute unit.
    """

    level: str
    tensor: str
    quantity: str
    native: float | None
    timeloop: float | None


def compare(spec: Spec, native: Evaluation, timeloop: Evaluation) -> list[Difference]:
    """Every difference, from the outermost level to the compute unit, then those of the whole layer.

    Counts and cycles have to be equal. An energy that Timeloop printed has to be ours rounded as it prints; leakage
    and total are sums of printed energies, whose roundings add up.

    Args:
        native: with energies of full precision.
        timeloop: read from ``stats.txt``, of the same mapping on `spec`.
    """
    return list(_differences(spec, native, timeloop))


def _differences(spec: Spec, native: Evaluation, timeloop: Evaluation) -> Iterator[Difference]:
    known = [s.name for s in spec.storages]
    for level in (*known, *(name for name in timeloop.levels if name not in known)):
        ours, theirs = native.levels.get(level, {}), timeloop.levels.get(level, {})
        for tensor in dict.fromkeys((*ours, *theirs)):
            yield from _accesses(level, tensor, ours.get(tensor), theirs.get(tensor))
    compute = spec.compute.name
    yield from _exactly(compute, "", "instances", native.compute_instances, timeloop.compute_instances)
    yield from _printed(compute, "", "energy_pj", native.compute_energy_pj, timeloop.compute_energy_pj)
    printed = len(known) + 1 + sum(map(len, native.levels.values()))
    yield from _exactly("", "", "computes", native.computes, timeloop.computes)
    yield from _exactly("", "", "cycles", native.cycles, timeloop.cycles)
    yield from _printed("", "", "leakage_pj", native.leakage_pj, timeloop.leakage_pj, len(known))
    yield from _printed("", "", "energy_pj", native.energy_pj, timeloop.energy_pj, printed)


def _accesses(level: str, tensor: str, native: Accesses | None, timeloop: Accesses | None) -> Iterator[Difference]:
    if native is None or timeloop is None:
        for quantity in (*COUNTS, "energy_pj"):
            ours = None if native is None else getattr(native, quantity)
            theirs = None if timeloop is None else getattr(timeloop, quantity)
            yield Difference(level, tensor, quantity, ours, theirs)
        return
    for quantity in COUNTS:
        yield from _exactly(level, tensor, quantity, getattr(native, quantity), getattr(timeloop, quantity))
    yield from _printed(level, tensor, "energy_pj", native.energy_pj, timeloop.energy_pj)


def _exactly(level: str, tensor: str, quantity: str, native: float, timeloop: float) -> Iterator[Difference]:
    if native != timeloop:
        yield Difference(level, tensor, quantity, native, timeloop)


def _printed(
    level: str, tensor: str, quantity: str, native: float, timeloop: float, numbers: int = 1
) -> Iterator[Difference]:
    """A difference of more than the rounding of as many printed numbers."""
    if not abs(native - timeloop) <= PRINTED_PJ * numbers + _NOISE * abs(native):
        yield Difference(level, tensor, quantity, native, timeloop)
