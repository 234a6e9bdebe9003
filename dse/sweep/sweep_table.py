"""Results of a sweep: costs of every layer and network at every point, Pareto fronts, and the best point per layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dse.core.errors import unknown
from dse.hardware.instance import Instance
from dse.hardware.spec import Fanout, Spec
from dse.sweep.axes import Axis, Point
from dse.table.columns import COLUMNS, LevelColumn, Row
from dse.table.cost_table import CostTable
from dse.table.rows import write_rows

LEVEL_ENERGY = ".energy_pj"
"""Suffix of a level's column in the summary: ``glb_ifmap.energy_pj``."""

_NEGLIGIBLE = 1e-9  # share of an energy below which a remainder is rounding


def _least(energies: Sequence[float], delays: Sequence[float]) -> int:
    """The index of the least energy; among energies that differ by rounding only, the fastest."""
    limit = min(energies) * (1 + _NEGLIGIBLE)
    return min((i for i, energy in enumerate(energies) if energy <= limit), key=lambda i: delays[i])


@dataclass(frozen=True, eq=False)
class SweepTable:
    """The tables of all points of a sweep, in their order.

    `rows` has one row for each (point, layer, candidate): ``point`` (the number of the point, from 1), a column for
    each path that varies, and the columns of a cost table (`dse.table.cost_table.COLUMNS`, accesses, energies in pJ).

    `summary` has one row for each (point, candidate), the network with that candidate in all layers: ``energy_pj`` and
    its part on the chip, ``energy_on_chip_pj``; ``energy_per_mac_pj``; ``compute_pj``, ``<level>.energy_pj`` and
    ``leakage_pj``, whose sum is ``energy_pj``; ``cycles``, ``delay_s`` and ``edp_js`` (energy x delay in J s; both
    empty if the specification has no ``global_cycle_seconds``); ``on_chip_bits``, the storage of the chip in bits; and
    ``area_mm2``, the area of the chip, empty if the tables of components lack one of its areas.

    ``status`` is ``ok``, or one of these, with a ``reason`` and without costs: ``no_mapping``; ``no_energy`` if the
    tables have no energy for a component; ``invalid`` if the specification refuses the value.
    """

    workload: str
    axes: tuple[Axis, ...]
    points: tuple[Point, ...]
    rows: tuple[Row, ...]
    summary: tuple[Row, ...]

    @cached_property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row["layer"] for row in self.rows))

    @cached_property
    def candidates(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row["candidate"] for row in self.summary))

    @cached_property
    def levels(self) -> tuple[str, ...]:
        """Levels of the hardware that have a column in the summary, innermost first."""
        columns = dict.fromkeys(c for row in self.summary for c in row if c.endswith(LEVEL_ENERGY))
        return tuple(column.removesuffix(LEVEL_ENERGY) for column in columns)

    def total(self, point: int, candidate: str) -> Row:
        """The summary's row of a point, given by its number; InputError for an unknown candidate."""
        try:
            return self._totals[point, candidate]
        except KeyError:
            raise unknown("candidate", "candidate", candidate, self.candidates) from None

    def totals(self, candidate: str) -> list[Row]:
        """The summary's rows of a candidate at the points where every layer has a mapping."""
        return [row for point in self.points if (row := self.total(point.number, candidate))["status"] == "ok"]

    def row(self, point: int, layer: str, candidate: str) -> Row:
        return self._rows[point, layer, candidate]

    def energy_pj(self, point: int, layer: str, candidate: str) -> float | None:
        """Compute plus transmission energy of a layer; None without a mapping."""
        row = self.row(point, layer, candidate)
        return float(row["e_compute_pj"] + row["e_tx_pj"]) if row["status"] == "ok" else None

    def best(self, candidate: str) -> Row | None:
        """The total of least energy, the fastest if several are equal; None if no point maps every layer."""
        totals = self.totals(candidate)
        if not totals:
            return None
        column = self.delay_column(candidate)
        return totals[_least([row["energy_pj"] for row in totals], [row[column] for row in totals])]

    def pareto(self, candidate: str, against: str = "delay") -> list[Row]:
        """The totals on the Pareto front of energy and another cost, by increasing energy.

        Args:
            against: the other cost: a column of the summary such as ``area_mm2`` or ``on_chip_bits``, or ``delay``
                (seconds if they are known, else cycles).
        """
        column = self.delay_column(candidate) if against == "delay" else against
        totals = [row for row in self.totals(candidate) if row[column] is not None]
        return [totals[i] for i in front([(row["energy_pj"], row[column]) for row in totals])]

    def delay_column(self, candidate: str) -> str:
        """``delay_s`` if it is known at every point, else ``cycles``."""
        return "delay_s" if all(row["delay_s"] is not None for row in self.totals(candidate)) else "cycles"

    def winners(self, candidate: str) -> tuple[Winner, ...]:
        """For each layer the point of least energy, with the energy there and at the network's best point."""
        common = self.best(candidate)
        found = []
        for layer in self.layers:
            rows = [row for p in self.points if (row := self.row(p.number, layer, candidate))["status"] == "ok"]
            point, least = None, None
            if rows:
                energies = [float(row["e_compute_pj"] + row["e_tx_pj"]) for row in rows]
                chosen = _least(energies, [row["cycles"] for row in rows])
                point, least = rows[chosen]["point"], energies[chosen]
            at_common = self.energy_pj(common["point"], layer, candidate) if common else None
            found.append(Winner(layer, point, least, at_common))
        return tuple(found)

    def save(self, path: Path | str) -> None:
        """Writes `rows` as CSV, Parquet or JSON, by the file's suffix."""
        fixed = ["point", *self._paths, *COLUMNS]
        write_rows(self.rows, list(dict.fromkeys([*fixed, *(c for row in self.rows for c in row)])), path)

    def save_summary(self, path: Path | str) -> None:
        """Writes `summary` as CSV, Parquet or JSON, by the file's suffix."""
        write_rows(self.summary, list(dict.fromkeys(c for row in self.summary for c in row)), path)

    @property
    def _paths(self) -> list[str]:
        return [path for axis in self.axes for path in axis.paths]

    @cached_property
    def _totals(self) -> dict[tuple[int, str], Row]:
        return {(row["point"], row["candidate"]): row for row in self.summary}

    @cached_property
    def _rows(self) -> dict[tuple[int, str, str], Row]:
        return {(row["point"], row["layer"], row["candidate"]): row for row in self.rows}


@dataclass(frozen=True)
class Winner:
    """The number of a layer's cheapest point (the fastest if several are equal), the energy in pJ there, and at the
    point that is best for the whole network; None without a mapping."""

    layer: str
    point: int | None
    energy_pj: float | None
    common_pj: float | None

    @property
    def saving(self) -> float | None:
        """Share of the layer's energy at the common point that its own best point saves."""
        if self.energy_pj is None or not self.common_pj:
            return None
        return 1 - self.energy_pj / self.common_pj


def front(costs: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the pairs on the Pareto front (both numbers minimised), by increasing first number.

    Of equal pairs the first is taken.
    """
    found: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: costs[i]):
        if not found or costs[i][1] < costs[found[-1]][1]:
            found.append(i)
    return found


def summary_row(point: Point, table: CostTable, instance: Instance, cycle_seconds: float | None) -> Row:
    """The summary's row of a candidate at a point.

    Args:
        table: costs of all layers under the instance's candidate; it may have other candidates too.
        cycle_seconds: duration of a cycle, if it is known.
    """
    candidate = instance.candidate
    rows = [table.row(layer, candidate.name) for layer in table.layers]
    row = refused_total(point, rows[0]["workload"], candidate.name, candidate.operator, candidate.bits)
    row |= {"n_ops": sum(r["n_ops"] for r in rows), "on_chip_bits": on_chip_bits(instance.spec)}
    row["area_mm2"] = instance.areas.total_mm2
    lacking = [r for r in rows if r["status"] != "ok"]
    if lacking:
        more = f" (and {len(lacking) - 1} more layers)" if len(lacking) > 1 else ""
        return row | {"status": lacking[0]["status"], "reason": f"{lacking[0]['layer']}: {lacking[0]['reason']}{more}"}
    compute = sum(r["e_compute_pj"] for r in rows)
    energy = compute + sum(r["e_tx_pj"] for r in rows)
    levels = level_sums(rows)
    cycles = sum(r["cycles"] for r in rows)
    delay = cycles * cycle_seconds if cycle_seconds else None
    return row | {
        "status": "ok",
        "energy_pj": energy,
        "energy_on_chip_pj": compute + sum(r["e_tx_on_chip_pj"] for r in rows),
        "energy_per_mac_pj": energy / row["n_ops"],
        "cycles": cycles,
        "delay_s": delay,
        "edp_js": energy * 1e-12 * delay if delay else None,
        "compute_pj": compute,
        "leakage_pj": sum(r["leakage_pj"] for r in rows),
        **{f"{level}{LEVEL_ENERGY}": pj for level, pj in levels.items()},
    }


def refused_total(
    point: Point, workload: str, candidate: str, operator: str, bits: int, status: str = "", reason: str = ""
) -> Row:
    """The summary's row of a candidate that has no costs at a point."""
    costs = (
        "n_ops", "on_chip_bits", "area_mm2", "energy_pj", "energy_on_chip_pj", "energy_per_mac_pj", "cycles", "delay_s",
        "edp_js", "compute_pj", "leakage_pj",
    )  # fmt: skip
    head = {"workload": workload, "operator": operator, "bits": bits, "candidate": candidate}
    return {
        "point": point.number,
        **point.settings,
        **head,
        "status": status,
        "reason": reason,
        **dict.fromkeys(costs),
    }


def level_sums(rows: Sequence[Row]) -> dict[str, float]:
    """Energy in pJ of each level over all its tensors and the rows of layers, innermost level first."""
    sums: dict[str, float] = {}
    for row in rows:
        for column, value in row.items():
            parsed = LevelColumn.parse(column)
            if parsed and parsed.quantity == "energy_pj":
                sums[parsed.level] = sums.get(parsed.level, 0.0) + (value or 0.0)
    return sums


def on_chip_bits(spec: Spec) -> int | None:
    """Bits of all memories on the chip, counting every instance in a fan-out; None if one of them has no size."""
    total, copies = 0, 1
    for level in spec.levels:
        if isinstance(level, Fanout):
            copies *= level.mesh_x * level.mesh_y
        elif not level.off_chip:
            if level.capacity is None:
                return None
            buffering = float(level.attributes.get("multiple_buffering") or 1)
            total += copies * round(level.capacity * buffering) * level.datawidth
    return total
