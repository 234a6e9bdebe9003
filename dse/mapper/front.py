"""Energy against cycles: the Pareto-optimal mappings of a layer, and the fastest within a slack of the least energy.

Every mapping comes from `dse.mapper.remainders.search.best_under`, a search for the least energy under a limit of
cycles or for the fewest cycles under a limit of energy (the epsilon-constraint method). docs/mapper.md says why no
point of the front can be missed.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

from dse.core.errors import InputError
from dse.hardware.constraints import searchable
from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Spec
from dse.mapper import PERFECT, REMAINDERS, Found
from dse.mapper.branch_and_bound import TOLERANCE
from dse.mapper.kernels.labels import DELAY, ENERGY, Aim
from dse.mapper.remainders.search import best_under
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
    mapspace: str = PERFECT
    """What all this is true of: `REMAINDERS` only if it is true of every point."""


def front(spec: Spec, problem: Problem, ert: Ert, most: int | None = MOST_POINTS, *, remainders: bool = True) -> Front:
    """The energy-delay front of a layer: all of it, or its ends and points that are evenly spread between them.

    If the front has at most `most` points, all are returned. Of a longer one, each point has the least energy of all
    mappings that are faster than the point before by a factor, which is chosen so that the points left over reach the
    fastest mapping in even steps of log cycles.

    Args:
        spec: the accelerator.
        problem: the layer.
        ert: pJ for each component and action.
        most: points, at least 2; None for all.
        remainders: as in `dse.mapper.search`.

    Raises:
        InputError: fewer than 2 points are asked for, or an energy that the table lacks.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> from dse.hardware.instance import instance_for, library_for, read_arch
        >>> from dse.workload.problem import conv_problem
        >>> arch, layer = read_arch(), conv_problem({"C": 4, "M": 8, "P": 8, "Q": 8, "R": 3, "S": 3})
        >>> chip = instance_for(arch, load_candidates()[0], layer, library_for(arch))
        >>> found = front(chip.spec, layer, chip.ert, remainders=False)
        >>> [point.evaluation.cycles for point in found.points], found.complete
        ([1536, 768, 384, 192], True)
    """
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 2):
        raise InputError("front", f"found {most!r} points", "a whole number, at least 2")
    layer = _layer(spec, problem, ert, remainders=remainders)
    cheapest, fastest = layer.point(math.inf), layer.fastest()
    if cheapest.evaluation is None or fastest.evaluation is None:
        return Front((), False, cheapest.reason or fastest.reason)
    least = fastest.evaluation.cycles
    points = {_cycles(cheapest): cheapest, least: fastest}
    sure = True  # nothing between points was left open
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
        sure = sure and between.optimal
        settled.add(slower)
    optimal = _pareto([points[cycles] for cycles in sorted(points, reverse=True)])
    closed = all(_cycles(point) in settled for point in optimal[:-1])
    spaces = {point.mapspace for point in points.values()}
    complete = closed and sure and len(spaces) == 1 and all(point.optimal for point in points.values())
    return Front(optimal, complete, mapspace=REMAINDERS if spaces == {REMAINDERS} else PERFECT)


def fastest_within(spec: Spec, problem: Problem, ert: Ert, slack: float, *, remainders: bool = True) -> Found:
    """Among mappings of at most (1 + slack) x the least energy the one of fewest cycles; of these, of least energy.

    Args:
        spec: the accelerator.
        problem: the layer.
        ert: pJ for each component and action.
        slack: a share of the least energy, 0 to 1.
        remainders: as in `dse.mapper.search`; the least energy is then that of all mappings, these included.

    `optimal` means that the least energy, the fewest cycles within the slack, and the least energy at these are proven.

    Raises:
        InputError: a slack that is no share, or an energy that the table lacks.
    """
    slack = read_slack(slack)
    layer = _layer(spec, problem, ert, remainders=remainders)
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
    remainders: bool

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
            return _proven(cheapest, fast)
        again = self.least_energy(fast.evaluation.cycles) if slack else fast
        if again.evaluation is None or again.evaluation.energy_pj > fast.evaluation.energy_pj:
            again = _proven(fast, again)
        return _proven(again, cheapest, fast)

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
        return _proven(found if found.evaluation is not None else fast, found, fast)

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
        return best_under(self.spec, self.problem, self.ert, aim, remainders=self.remainders)


def _layer(spec: Spec, problem: Problem, ert: Ert, *, remainders: bool) -> _Layer:
    """The searches among perfect factors, or with remainders where these are asked for or nothing else fits."""
    layer = _Layer(searchable(spec, problem), problem, ert, remainders)
    if not remainders and layer.least_energy(math.inf).mapspace == REMAINDERS:
        return replace(layer, remainders=True)
    return layer


def utilisation(found: Found, spec: Spec, problem: Problem) -> float:
    """Compute units that work, of all, over all cycles of a mapping; stalls of memories are included."""
    return problem.macs / spec.pe_count / _cycles(found)


def _evaluation(found: Found) -> Evaluation:
    assert found.evaluation is not None
    return found.evaluation


def _cycles(found: Found) -> int:
    return _evaluation(found).cycles


def _proven(found: Found, *others: Found) -> Found:
    """The same answer, proven only if other searches have ended in the same mapspace, too."""
    optimal = all(one.optimal and one.mapspace == found.mapspace for one in (found, *others))
    mixed = any(one.mapspace != found.mapspace for one in others)
    return replace(found, optimal=optimal, mapspace=REMAINDERS if mixed else found.mapspace)


def _pareto(points: list[Found]) -> tuple[Found, ...]:
    """Points of falling cycles without those that a faster one of no more energy dominates."""
    kept: list[Found] = []
    for point in reversed(points):
        if not kept or _evaluation(point).energy_pj < _evaluation(kept[-1]).energy_pj * (1 - TOLERANCE):
            kept.append(point)
    return tuple(reversed(kept))
