"""Energy against cycles: the Pareto-optimal mappings of a layer, and the fastest within a slack of the least energy.

Every mapping comes from `dse.mapper.branch_and_bound.best`, a search for the least energy under a limit of cycles or
for the fewest cycles under a limit of energy (the epsilon-constraint method). docs/mapper.md says why no point of the
front can be missed.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from dse.core.errors import InputError
from dse.hardware.constraints import searchable
from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Spec
from dse.mapper import Found
from dse.mapper.branch_and_bound import TOLERANCE, best
from dse.mapper.kernels.labels import DELAY, ENERGY, Aim
from dse.mapper.slack import read_slack
from dse.model.evaluation import Evaluation
from dse.workload.problem import Problem

MOST_POINTS = 10
"""Points of a front, unless it is said otherwise."""

_HALF = 0.5  # cycles are whole numbers: half a cycle keeps a limit clear of rounding


@dataclass(frozen=True)
class Front:
    """Pareto-optimal mappings of a layer, the one of least energy first and the fastest last.

    No mapping has both less energy and no more cycles, or fewer cycles and no more energy, than one of the points
    whose `optimal` is true. Energies that differ by rounding only (10⁻¹¹ relatively) are equal.
    """

    points: tuple[Found, ...]
    complete: bool
    """Whether these are all, and all proven."""
    reason: str = ""
    """Why there is no point."""


def front(spec: Spec, problem: Problem, ert: Ert, most: int | None = MOST_POINTS) -> Front:
    """The energy-delay front of a layer: all of it, or its ends and points that are evenly spread between them.

    If the front has at most `most` points, all are returned. Of a longer one, each point has the least energy of all
    mappings that are faster than the point before by a factor, which is chosen so that the points left over reach the
    fastest mapping in even steps of log cycles.

    Args:
        spec: the accelerator.
        problem: the layer.
        ert: pJ for each component and action.
        most: points, at least 2; None for all.

    Raises:
        InputError: fewer than 2 points are asked for, or an energy that the table lacks.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> from dse.hardware.instance import instance_for, library_for, read_arch
        >>> from dse.workload.problem import conv_problem
        >>> arch, layer = read_arch(), conv_problem({"C": 4, "M": 8, "P": 8, "Q": 8, "R": 3, "S": 3})
        >>> chip = instance_for(arch, load_candidates()[0], layer, library_for(arch))
        >>> found = front(chip.spec, layer, chip.ert)
        >>> [point.evaluation.cycles for point in found.points], found.complete
        ([1536, 768, 384, 192], True)
    """
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 2):
        raise InputError("front", f"found {most!r} points", "a whole number, at least 2")
    layer = _Layer(searchable(spec, problem), problem, ert)
    cheapest, fastest = layer.point(math.inf), layer.fastest()
    if cheapest.evaluation is None or fastest.evaluation is None:
        return Front((), False, cheapest.reason or fastest.reason)
    least = fastest.evaluation.cycles
    points = {_cycles(cheapest): cheapest, least: fastest}
    settled: set[int] = set()  # cycles of the points whose next faster one is known
    if most is not None:
        layer.spread(points, settled, least, most)
    while gaps := [(a, b) for a, b in itertools.pairwise(sorted(points, reverse=True)) if a not in settled]:
        slower, faster = max(gaps, key=lambda gap: gap[0] / gap[1])  # the widest first
        between = layer.point(slower - 1)
        if between.evaluation is not None and _cycles(between) > faster:
            if len(points) == most:
                break
            points[_cycles(between)] = between
        settled.add(slower)
    optimal = _pareto([points[cycles] for cycles in sorted(points, reverse=True)])
    closed = all(_cycles(point) in settled for point in optimal[:-1])
    return Front(optimal, closed and all(point.optimal for point in points.values()))


def fastest_within(spec: Spec, problem: Problem, ert: Ert, slack: float) -> Found:
    """Among mappings of at most (1 + slack) x the least energy the one of fewest cycles; of these, of least energy.

    Args:
        spec: the accelerator.
        problem: the layer.
        ert: pJ for each component and action.
        slack: a share of the least energy, 0 to 1.

    `optimal` means that the least energy, the fewest cycles within the slack, and the least energy at these are proven.

    Raises:
        InputError: a slack that is no share, or an energy that the table lacks.
    """
    slack = read_slack(slack)
    layer = _Layer(searchable(spec, problem), problem, ert)
    cheapest = layer.least_energy(math.inf)
    if cheapest.evaluation is None:
        return cheapest
    return layer.polished(cheapest, slack)


@dataclass(frozen=True)
class _Layer:
    """The searches of one layer; cycles are those of evaluations, with the cycles that networks add."""

    spec: Spec
    problem: Problem
    ert: Ert

    def least_energy(self, cycles: float) -> Found:
        """The least energy of mappings of at most so many cycles."""
        most = cycles - self.spec.network_latency + _HALF
        return self._best(Aim(ENERGY, float(self.problem.macs), most_cycles=most))

    def least_cycles(self, energy: float) -> Found:
        """The fewest cycles of mappings of at most so much energy, in pJ."""
        return self._best(Aim(DELAY, float(self.problem.macs), most_energy=energy * (1 + TOLERANCE)))

    def polished(self, cheapest: Found, slack: float) -> Found:
        """The fastest mapping within a slack of the energy of `cheapest`, and of the equally fast the cheapest."""
        assert cheapest.evaluation is not None
        fast = self.least_cycles(cheapest.evaluation.energy_pj * (1 + slack))
        if fast.evaluation is None or fast.evaluation.cycles >= cheapest.evaluation.cycles:
            # The search was cut short, or `cheapest` is among the fastest, and nothing is cheaper.
            return _proven(cheapest, fast.optimal)
        again = self.least_energy(fast.evaluation.cycles) if slack else fast
        if again.evaluation is None or again.evaluation.energy_pj > fast.evaluation.energy_pj:
            again = _proven(fast, again.optimal)
        return _proven(again, cheapest.optimal and fast.optimal)

    def point(self, cycles: float) -> Found:
        """The point of the front of at most so many cycles: least energy, and then fewest cycles."""
        cheapest = self.least_energy(cycles)
        return cheapest if cheapest.evaluation is None else self.polished(cheapest, 0.0)

    def fastest(self) -> Found:
        """The other end: fewest cycles, and then least energy."""
        fast = self.least_cycles(math.inf)
        if fast.evaluation is None:
            return fast
        found = self.least_energy(fast.evaluation.cycles)
        return _proven(found if found.evaluation is not None else fast, fast.optimal)

    def spread(self, points: dict[int, Found], settled: set[int], least: int, most: int) -> None:
        """Adds points between the ends, each faster than the one before by an even share of what is left."""
        slower = max(points)
        while len(points) < most and slower > least:
            left = most - len(points) + 1  # steps to the fastest
            limit = min(slower - 1, math.floor(slower * (least / slower) ** (1 / left)))
            if limit <= least:
                return
            if limit == slower - 1:
                settled.add(slower)
            found = self.point(limit)
            if found.evaluation is None:
                return
            slower = _cycles(found)
            points.setdefault(slower, found)

    def _best(self, aim: Aim) -> Found:
        return best(self.spec, self.problem, self.ert, aim)


def utilisation(found: Found, spec: Spec, problem: Problem) -> float:
    """Compute units that work, of all, over all cycles of a mapping; stalls of memories are included."""
    return problem.macs / spec.pe_count / _cycles(found)


def _evaluation(found: Found) -> Evaluation:
    assert found.evaluation is not None
    return found.evaluation


def _cycles(found: Found) -> int:
    return _evaluation(found).cycles


def _proven(found: Found, also: bool) -> Found:
    """The same answer, proven only if something else is, too."""
    return Found(found.mapping, found.evaluation, found.optimal and also, found.reason)


def _pareto(points: list[Found]) -> tuple[Found, ...]:
    """Points of falling cycles without those that a faster one of no more energy dominates."""
    kept: list[Found] = []
    for point in reversed(points):
        if not kept or _evaluation(point).energy_pj < _evaluation(kept[-1]).energy_pj * (1 - TOLERANCE):
            kept.append(point)
    return tuple(reversed(kept))
