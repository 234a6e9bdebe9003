"""The energy-delay front of a network: its layers one after the other, each mapped by a point of its own front.

docs/mapper.md says what is exact about it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dse.core.errors import InputError
from dse.hardware.accelerator import AcceleratorLike, CandidatesLike, read_accelerator
from dse.hardware.candidate import Candidate
from dse.table.columns import Row
from dse.table.fill import Progress, Report, stored
from dse.table.plan import Job, Lookup, WorkloadLike, make_plan
from dse.table.result import Result, clock_cycles, result_of
from dse.table.rows import write_rows
from dse.table.store import Store, content_key
from dse.table.totals import REFERENCE
from dse.table.workers import Pool, pool_of

if TYPE_CHECKING:  # numpy is imported where sums are made
    import numpy as np
    import numpy.typing as npt

MOST_SUMS = 10_000
"""Points that a network's front keeps while layers are added; beyond it, it is thinned."""

_EQUAL = 1e-11  # relative: energies that differ by less are equal, as in the mapper


@dataclass(frozen=True)
class LayerFront:
    """The front of one layer shape, that of least energy first; `reason` says why there is no point."""

    points: tuple[Result, ...]
    complete: bool  # all points of the front, all proven
    reason: str = ""

    @property
    def payload(self) -> dict[str, Any]:
        """JSON data from which `from_payload` makes an equal front."""
        return {"points": [p.payload for p in self.points], "complete": self.complete, "reason": self.reason}

    @staticmethod
    def from_payload(payload: Any) -> LayerFront | None:
        """The stored front; None for data of another form, which must be computed again."""
        if not isinstance(payload, dict) or set(payload) != {"points", "complete", "reason"}:
            return None
        points, complete, reason = payload["points"], payload["complete"], payload["reason"]
        if not isinstance(points, list) or not isinstance(complete, bool) or not isinstance(reason, str):
            return None
        results = [Result.from_payload(point) for point in points]
        known = tuple(result for result in results if result is not None and result.status == "ok")
        return LayerFront(known, complete, reason) if len(known) == len(points) and (points or reason) else None


@dataclass(frozen=True)
class Sums:
    """The Pareto-optimal sums of one point of each front, that of least energy first.

    `chosen[point][front]` is the index of a front's point; `thinned` says that not all sums were kept.
    """

    energies_pj: tuple[float, ...]
    cycles: tuple[int, ...]
    chosen: tuple[tuple[int, ...], ...]
    thinned: bool


@dataclass(frozen=True)
class NetworkFront:
    """The energy-delay front of a network under one candidate.

    `fronts` are those of the layers, in their order; layers of the same shape have the same.
    """

    workload: str
    candidate: str
    layers: tuple[str, ...]
    fronts: tuple[LayerFront, ...]
    sums: Sums

    @property
    def complete(self) -> bool:
        """Whether these are all Pareto-optimal points, all proven."""
        return not self.sums.thinned and all(front.complete for front in self.fronts)

    @property
    def rows(self) -> list[Row]:
        """One row for each point: totals, and for each layer the number of its point, counted from 1."""
        least_energy, most_cycles = self.sums.energies_pj[0], self.sums.cycles[0]
        points = zip(self.sums.energies_pj, self.sums.cycles, self.sums.chosen, strict=True)
        return [
            {
                "workload": self.workload,
                "candidate": self.candidate,
                "point": number,
                "energy_pj": energy,
                "cycles": cycles,
                "energy_ratio": energy / least_energy if least_energy else 1.0,
                "cycles_ratio": cycles / most_cycles,
                **{f"{layer}.point": i + 1 for layer, i in zip(self.layers, chosen, strict=True)},
            }
            for number, (energy, cycles, chosen) in enumerate(points, 1)
        ]

    def save(self, path: Path | str) -> None:
        """Writes the rows as CSV, Parquet or JSON, by the file's suffix."""
        rows = self.rows
        write_rows(rows, list(rows[0]), path)


@dataclass(frozen=True)
class _Task:
    key: str
    job: Job
    most: int | None
    remainders: bool


def network_front(
    workload: WorkloadLike,
    *,
    arch: AcceleratorLike = None,
    candidates: CandidatesLike = None,
    store: Path | str | None = None,
    jobs: int | Pool = -1,
    most: int | None = 10,
    remainders: bool = True,
    progress: Progress | None = None,
) -> NetworkFront:
    """The front of a network's total energy and cycles: every Pareto-optimal choice of one mapping for each layer.

    All layers run with the reference candidate, the typical operator at 8 bit, or with the first candidate where there
    is none such; to choose another, give it alone. Fronts of layer shapes are kept in the store, each when it is known.

    Args:
        workload, arch, candidates, store, jobs, remainders, progress: as in `dse.table.fill.map_workload`.
        most: points of a layer's front (`dse.mapper.front.front`); None for all, of which alone the sums are complete.

    Raises:
        InputError: a wrong file, field or name, or a layer that has no mapping.

    Example:
        >>> from dse.workload.layers import Layer, Workload
        >>> layer = Layer("conv", "conv", {"C": 4, "M": 8, "P": 8, "Q": 8, "R": 3, "S": 3})
        >>> small = Workload("small", (layer, Layer("again", "conv", layer.instance)))
        >>> found = network_front(small, jobs=1, remainders=False)
        >>> found.candidate, found.complete, found.sums.cycles
        ('T8', True, (3072, 2304, 1536, 1152, 768, 576, 384))
        >>> found.sums.chosen[:4]
        ((0, 0), (0, 1), (1, 1), (1, 2))
    """
    accelerator = read_accelerator(arch, candidates)
    candidate = _reference(accelerator.candidates)
    plan = make_plan(workload, arch=accelerator.only([candidate.name]), engine="native", remainders=remainders)
    keys = {job.layer: content_key({"front": "all" if most is None else most, "of": job.key}) for job in plan.jobs}
    with Store(store) as opened:
        parsed = {key: LayerFront.from_payload(payload) for key, payload in opened.read(keys.values()).items()}
        known = {key: front for key, front in parsed.items() if front is not None}
        tasks = {keys[job.layer]: _Task(keys[job.layer], job, most, remainders) for job in plan.jobs}
        left = sorted((t for key, t in tasks.items() if key not in known), key=lambda task: -task.job.problem.macs)
        reused = sum(key in known for key in keys.values())
        report = Report(len(plan.jobs), reused, len(plan.jobs) - reused - len(left))
        if progress:
            progress(report)
        with closing(_searched(left, jobs)) as answers:
            known.update(stored(answers, opened, report, progress))
    fronts = tuple(  # an embedding has one point: there is nothing to choose
        LayerFront((row.result,), True) if isinstance(row, Lookup) else known[keys[row.layer]] for row in plan.rows
    )
    for row, front in zip(plan.rows, fronts, strict=True):
        if not front.points:
            raise InputError(f"{plan.workload}: {row.layer}, {candidate.name}", f"no mapping: {front.reason}")
    steps = [1.0 if isinstance(row, Lookup) else row.instance.cycles for row in plan.rows]
    sums = add(
        [
            [(p.energy_pj, clock_cycles(p.cycles, of_step)) for p in front.points]
            for of_step, front in zip(steps, fronts, strict=True)
        ]
    )
    return NetworkFront(plan.workload, candidate.name, tuple(row.layer for row in plan.rows), fronts, sums)


def _reference(candidates: Sequence[Candidate]) -> Candidate:
    return next((c for c in candidates if (c.operator, c.bits) == REFERENCE), candidates[0])


def _searched(tasks: Sequence[_Task], jobs: int | Pool) -> Generator[tuple[str, LayerFront], None, None]:
    """Key and front of each task, in the order in which they are found; close it where it is left early."""
    pool = pool_of(jobs)
    if pool.alone(len(tasks)):
        for task in tasks:
            yield task.key, _search(task)
        return
    refused: InputError | None = None
    with closing(pool.answers(_answer, tasks)) as answers:
        for key, answer in answers:
            if isinstance(answer, InputError):
                refused = answer  # answers of other workers come first, so that they are stored
            else:
                yield key, answer
    if refused:
        raise refused


def _answer(task: _Task) -> tuple[str, LayerFront | InputError]:
    try:
        return task.key, _search(task)
    except InputError as e:
        return task.key, e


def _search(task: _Task) -> LayerFront:
    from dse.mapper.front import front  # numba takes a while to load, and a warm store needs none of it

    instance, problem = task.job.instance, task.job.problem
    found = front(instance.spec, problem, instance.ert, task.most, remainders=task.remainders)
    return LayerFront(tuple(result_of(p, instance, problem) for p in found.points), found.complete, found.reason)


def add(fronts: Sequence[Sequence[tuple[float, int]]], most: int = MOST_SUMS) -> Sums:
    """Adds fronts of (energy in pJ, cycles): all sums of one point of each that no other sum dominates.

    Fronts are added one after the other, and dominated sums left out after each, which loses none: adding the same
    point to two sums does not change which of them is lower. Where more than `most` are left, as many are kept, evenly
    spread in log cycles, with both ends.

    Args:
        fronts: at least one, each with a point at least.
        most: sums that are kept, at least 2.

    Example:
        >>> add([[(1.0, 8), (2.0, 4)], [(1.0, 8), (5.0, 4)]])
        Sums(energies_pj=(2.0, 3.0, 7.0), cycles=(16, 12, 8), chosen=((0, 0), (1, 0), (1, 1)), thinned=False)
    """
    import numpy as np

    energies, cycles, thinned = np.zeros(1), np.zeros(1, np.int64), False
    chosen = np.zeros((1, 0), np.int32)
    for front in fronts:
        more_energy = np.array([energy for energy, _ in front])
        more_cycles = np.array([count for _, count in front], np.int64)
        sums = (energies[:, None] + more_energy).ravel()
        steps = (cycles[:, None] + more_cycles).ravel()
        order = np.lexsort((sums, steps))
        kept = order[_lower(sums[order])][::-1]  # that of least energy, which is the slowest, first
        if len(kept) > most:
            kept, thinned = kept[spread(steps[kept].tolist(), most)], True
        before, index = np.divmod(kept, len(front))
        energies, cycles = sums[kept], steps[kept]
        chosen = np.concatenate([chosen[before], index[:, None].astype(np.int32)], axis=1)
    return Sums(tuple(energies.tolist()), tuple(cycles.tolist()), tuple(map(tuple, chosen.tolist())), thinned)


def _lower(energies: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which energies are below all before them, by more than rounding."""
    import numpy as np

    least = np.minimum.accumulate(energies)
    return np.concatenate([[True], energies[1:] < least[:-1] * (1 - _EQUAL)])


def spread(cycles: Sequence[int], most: int) -> list[int]:
    """Indices of at most so many points of a front, evenly spread in log cycles, with both ends.

    Args:
        cycles: falling, each at least 1.
        most: at least 2.

    Example:
        >>> spread([1000, 990, 500, 250, 130, 125], 4)
        [0, 2, 3, 5]
    """
    import numpy as np

    if len(cycles) <= most:
        return list(range(len(cycles)))
    logs = np.log(np.asarray(cycles, np.float64))
    wanted = np.linspace(logs[0], logs[-1], most)
    after = np.clip(np.searchsorted(-logs, -wanted), 1, len(logs) - 1)
    nearer = np.where(np.abs(logs[after - 1] - wanted) <= np.abs(logs[after] - wanted), after - 1, after)
    return sorted({0, len(cycles) - 1, *map(int, nearer)})
