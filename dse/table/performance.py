"""What a network takes beside energy: cycles, time, use of the array, memory for its weights, traffic of the chip."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dse.core.errors import unknown
from dse.table.columns import Row
from dse.table.cost_table import CostTable
from dse.table.shapes import EMBEDDING, weights

DEFAULT_CYCLE_SECONDS = 1e-9
"""The duration of a cycle, that of a clock of 1 GHz, where neither specification nor user gives one."""

FEW = 0.25
"""Of the PEs: where fewer work, a layer is named, if it takes a notable part of the network's cycles."""
NOTABLE = 0.05
"""Of a network's cycles."""

_AGAIN = re.compile(r"(.+)#[0-9]+")  # the name of a further call of a layer, which has the same weights


@dataclass(frozen=True)
class Performance:
    """What a network takes, its layers one after the other; None where a layer has no mapping, or the table is silent.

    `utilisation` is the share of the PEs that work while the array computes, `utilisation_with_stalls` that over all
    cycles: operations / (PEs x cycles). `weight_bytes` are those of all weights in the words of their candidates. The
    tables of embeddings are no part of it, for a workload does not say how many rows they have. `off_chip_bytes` are
    read and written by the memories outside the chip.
    """

    operations: int
    cycles: int | None
    utilisation: float | None
    utilisation_with_stalls: float | None
    weight_bytes: int | None
    off_chip_bytes: int | None


@dataclass(frozen=True)
class Idle:
    """A layer where few of the array's PEs work, on average, though it takes a notable `share` of the cycles."""

    layer: str
    pes: float
    of: int | None  # None where the table does not say how many there are
    utilisation: float
    share: float


def performance(table: CostTable, assignment: Mapping[str, str] | str) -> Performance:
    """What a network takes under an assignment (layer -> candidate), or with one candidate in all layers.

    Raises:
        InputError: a layer or candidate that the table does not have.

    Example:
        >>> table = CostTable.load("table.csv")
        >>> found = performance(table, "T8")
        >>> f"{found.operations:,}, {found.utilisation:.2f}"
        '202,211,328, 0.18'
    """
    chosen = _chosen(table, assignment)
    rows = [table.row(layer, candidate) for layer, candidate in chosen.items()]
    mapped = all(row["status"] == "ok" for row in rows)
    operations = sum(row["n_ops"] for row in rows)
    busy = sum(row["n_ops"] / row["utilisation"] for row in rows if row["n_ops"]) if mapped else 0.0
    cycles = sum(row["cycles"] for row in rows) if mapped else None
    return Performance(
        operations=operations,
        cycles=cycles,
        utilisation=operations / busy if busy else None,
        utilisation_with_stalls=_with_stalls(table, rows) if mapped else None,
        weight_bytes=_weight_bytes(table, chosen),
        off_chip_bytes=_off_chip_bytes(table, rows) if mapped else None,
    )


@dataclass(frozen=True)
class LayerTime:
    """Cycles of a layer, and the share of the PEs that work: while the array computes, and over all cycles.

    `network_cycles` of the cycles are those in which networks fill and drain. None where the table does not say it, and
    all None where the layer has no mapping.
    """

    layer: str
    cycles: int | None
    network_cycles: int | None
    utilisation: float | None
    utilisation_with_stalls: float | None


def layer_times(table: CostTable, assignment: Mapping[str, str] | str) -> tuple[LayerTime, ...]:
    """The times of all layers under an assignment (layer -> candidate), or with one candidate in all layers.

    Raises:
        InputError: a layer or candidate that the table does not have.

    Example:
        >>> table = CostTable.load("table.csv")
        >>> first = layer_times(table, "T8")[0]
        >>> first.layer, first.cycles, first.network_cycles, f"{first.utilisation:.1%}"
        ('conv1', 73728, 0, '21.4%')
    """
    found = []
    for layer, candidate in _chosen(table, assignment).items():
        row = table.row(layer, candidate)
        if row["status"] != "ok":
            found.append(LayerTime(layer, None, None, None, None))
            continue
        searched = row["n_ops"] > 0  # a lookup in a table of words goes through no network
        filling = (table.provenance.network_cycles.get(candidate, 0) if searched else 0) if table.provenance else None
        found.append(LayerTime(layer, row["cycles"], filling, row["utilisation"], _with_stalls(table, [row])))
    return tuple(found)


def idle_layers(table: CostTable, assignment: Mapping[str, str] | str) -> tuple[Idle, ...]:
    """The layers that take at least `NOTABLE` of the cycles on less than `FEW` of the PEs, the slowest first.

    Empty where a layer has no mapping: shares are then unknown. Embeddings use no PE and are left out.

    Raises:
        InputError: a layer or candidate that the table does not have.
    """
    rows = [table.row(layer, candidate) for layer, candidate in _chosen(table, assignment).items()]
    if any(row["status"] != "ok" for row in rows):
        return ()
    cycles = sum(row["cycles"] for row in rows)
    found = []
    for row in rows:
        pes, share = _pes(table, row), row["cycles"] / cycles
        if row["n_ops"] and row["utilisation"] < FEW and share >= NOTABLE:
            found.append(Idle(row["layer"], row["utilisation"] * (pes or 0), pes, row["utilisation"], share))
    return tuple(sorted(found, key=lambda idle: -idle.share))


def _chosen(table: CostTable, assignment: Mapping[str, str] | str) -> dict[str, str]:
    if isinstance(assignment, str):
        if assignment not in table.candidates:
            raise unknown("candidate", "candidate", assignment, table.candidates)
        return dict.fromkeys(table.layers, assignment)
    return {layer: assignment[layer] for layer in table.layers}


def _pes(table: CostTable, row: Row) -> int | None:
    return table.provenance.pes.get(row["candidate"]) if table.provenance else None


def _with_stalls(table: CostTable, rows: list[Row]) -> float | None:
    """Operations over those that the array could do in all cycles; arrays may differ between candidates."""
    possible = 0.0
    for row in rows:
        pes = _pes(table, row)
        if pes is None:
            return None
        about = table.provenance
        of_operation = about.cycles_of_operation(row["layer"], row["candidate"]) if about else 1.0
        possible += row["cycles"] / of_operation * pes
    return float(sum(row["n_ops"] for row in rows) / possible)


def _weight_bytes(table: CostTable, chosen: Mapping[str, str]) -> int | None:
    bits = 0
    for layer, candidate in chosen.items():
        of_layer = weight_bits(table, layer, candidate)
        if of_layer is None:
            return None
        bits += of_layer
    return math.ceil(bits / 8)


def weight_bits(table: CostTable, layer: str, candidate: str) -> int | None:
    """Bits of a layer's weights; 0 for a further call of a layer, whose weights are the first one's.

    None in a table of an earlier schema.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> from dse.table.fill import map_workload
        >>> from dse.workload.layers import Layer, Workload
        >>> net = Workload("net", (Layer("fc", "linear", {"C": 64, "M": 10}),))
        >>> table = map_workload(net, candidates=load_candidates()[:2], jobs=1)
        >>> weight_bits(table, "fc", "T8"), weight_bits(table, "fc", "T4")
        (5120, 2560)
    """
    again = _AGAIN.fullmatch(layer)
    if again and again[1] in table.layers:
        return 0
    kind, shape = table.kind(layer), table.shape(layer)
    bits = table.provenance.weight_bits.get(candidate) if table.provenance else None
    return None if kind is None or shape is None or bits is None else weights(kind, shape) * bits


def _off_chip_bytes(table: CostTable, rows: list[Row]) -> int | None:
    bits = 0
    for row in rows:
        of_row = off_chip_bits(table, row)
        if of_row is None:
            return None
        bits += of_row
    return math.ceil(bits / 8)


def off_chip_bits(table: CostTable, row: Row) -> int | None:
    """Bits that the memories outside the chip read and write in a layer, as words of their width; None if not known.

    Example:
        >>> from dse.table.fill import map_workload
        >>> from dse.workload.layers import Layer, Workload
        >>> table = map_workload(Workload("net", (Layer("wte", "embedding", {"N": 3, "M": 64}),)), jobs=1)
        >>> off_chip_bits(table, table.row("wte", "T8"))  # 192 words of 8 bits are read, and written
        3072
    """
    counts = table.off_chip_counts
    word_bits, candidate = table.provenance.word_bits if table.provenance else {}, row["candidate"]
    if not counts or not all(candidate in word_bits.get(level, {}) for _, level in counts):
        return None
    return sum((row.get(name) or 0) * word_bits[level][candidate] for name, level in counts)


@dataclass(frozen=True)
class Clock:
    """The duration of a cycle, the clock as text (``200 MHz``), and where it comes from."""

    seconds: float
    text: str
    origin: str


def clock_of(table: CostTable, given: float | None = None) -> Clock:
    """The clock for the times of a table: the given duration of a cycle, else the specification's, else 1 GHz.

    Example:
        >>> clock_of(CostTable.load("table.csv"))
        Clock(seconds=1e-09, text='1 GHz', origin='global_cycle_seconds')
        >>> clock_of(CostTable.load("table.csv"), 5e-9).text
        '200 MHz'
    """
    told = table.provenance.cycle_seconds if table.provenance else None
    if given is not None:
        seconds, origin = given, "given"
    elif told is not None:
        seconds, origin = told, "global_cycle_seconds"
    else:
        seconds, origin = DEFAULT_CYCLE_SECONDS, "for the specification names no clock"
    hertz = 1 / seconds
    units = (("GHz", 1e9), ("MHz", 1e6), ("kHz", 1e3))
    name, size = next((u for u in units if hertz >= u[1] * (1 - 1e-9)), ("Hz", 1.0))
    return Clock(seconds, f"{hertz / size:.4g} {name}", origin)


def has_embeddings(table: CostTable) -> bool:
    """Whether the network looks words up in tables, whose size no table of costs has."""
    return any(table.kind(layer) == EMBEDDING for layer in table.layers)
