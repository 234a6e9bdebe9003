"""The energy of an operation of every candidate, on the reconfigurable core and on the core of one operator."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from dse.core.errors import InputError
from dse.hardware.candidate import Candidate
from dse.rtl.energy import Energy, Slot, energy
from dse.rtl.library import Library
from dse.rtl.operands import OPERATIONS, PRECISIONS, Accumulator, Integers, lanes, pack, weight_codes
from dse.rtl.simulation import simulate
from dse.rtl.streams import Stream
from dse.rtl.synthesis import Netlist
from dse.rtl.timing import Timing, analyse

WARM_UP = 8
"""Cycles before energy is counted: a reset, and operations that give all registers a value."""


@dataclass(frozen=True)
class Core:
    """A core that was synthesised, with its timing."""

    name: str
    netlist: Netlist
    timing: Timing
    area: float
    folder: Path
    parameters: Mapping[str, int]


@dataclass(frozen=True)
class Row:
    """One measurement; energies are pJ per operation, `e_op_pj` is logic and clock without leakage."""

    core: str
    candidate: str
    accumulator_bits: int
    operands: str
    operations_per_cycle: int
    operations: int
    internal_pj: float
    switching_pj: float
    clock_pj: float
    leakage_pj: float
    e_op_pj: float
    toggles_per_operation: float
    zero_inputs: float
    mean_input: float
    zero_weights: float
    mean_weight: float


def analysed(
    name: str, netlist: Netlist, library: Library, wire_ff: float, folder: Path, parameters: Mapping[str, int]
) -> Core:  # fmt: skip
    """A netlist with its area and timing.

    Raises:
        InputError: the library lacks what is needed.
    """
    area = sum(library.cell(i.cell).area for i in netlist.instances)
    return Core(name, netlist, analyse(netlist, library, wire_ff), area, folder, parameters)


def has_product(core: str) -> bool:
    """Whether a core's source has a product written as ``*``, which is proved from the word level on."""
    return core == "mac_typical"


def cycles_of(candidate: Candidate, stream: Stream, cycles: int, parallel: int) -> dict[str, Integers]:
    """The inputs of the reconfigurable core (`parallel` operations a cycle) or of a core of one operator (1).

    The sums of the stream follow one another. The last cycle of a sum has zeros in lanes that are left over.
    """
    length = stream.x.shape[1]
    missing = -length % parallel
    codes = weight_codes(candidate.operator, stream.w, candidate.bits)
    x, w = (np.pad(a, ((0, 0), (0, missing))).reshape(-1, parallel)[:cycles] for a in (stream.x, codes))
    first = (np.arange(len(x)) % ((length + missing) // parallel) == 0).astype(np.int64)
    if parallel == 1:
        mask = (1 << candidate.bits) - 1
        inputs = {"x": x[:, 0] & mask, "w": w[:, 0]}
    else:
        width = 1 if candidate.operator == "binary_connect" else candidate.bits
        inputs = {"x": pack(x, candidate.bits, candidate.bits), "w": pack(w, candidate.bits, width)}
    inputs = {n: np.concatenate([np.ones(WARM_UP, np.int64), v]) for n, v in inputs.items()}
    valid = np.ones(len(first) + WARM_UP, np.int64)
    first = np.concatenate([np.ones(WARM_UP, np.int64), first])
    reset = (np.arange(len(valid)) < 2).astype(np.int64)
    return {"reset": reset, "valid": valid, "first": first, **inputs}


def measure(
    core: Core, candidate: Candidate, width: int, stream: Stream, operands: str, library: Library, period_ns: float,
    cycles: int, folder: Path, label: str, accumulator: Accumulator,
) -> tuple[Row, Energy]:  # fmt: skip
    """Simulates a core with a stream; `folder` gets the netlist and the bench, and the row the core's `label`.

    Args:
        width: the accumulator's bits, one of the two of `accumulator`.

    Raises:
        InputError: the period is shorter than the core's critical path, or Icarus Verilog fails.
    """
    if core.timing.critical_ns > period_ns:
        raise InputError("--period", f"{period_ns:g} ns is less than the critical path of {core.name}",
                         f"{core.timing.critical_ns:.3f} ns or more")  # fmt: skip
    reconfigurable = core.name == "mac_core"
    parallel = lanes(candidate.bits) if reconfigurable else 1
    inputs = cycles_of(candidate, stream, cycles, parallel)
    if reconfigurable:
        codes = {
            "operation": OPERATIONS.index(candidate.operator),
            "precision": PRECISIONS.index(candidate.bits),
            "signed_x": int(stream.signed),
            "wide": int(width == accumulator.long),
        }
        inputs |= {name: np.full(len(inputs["x"]), code, np.int64) for name, code in codes.items()}
    period_ps = round(period_ns * 1000)
    transitions, _ = simulate(core.netlist, library, core.timing, inputs, period_ps, folder)
    found = energy(core.netlist, library, core.timing, transitions, WARM_UP * period_ps)
    operations = (len(inputs["x"]) - WARM_UP) * parallel
    internal, switching, clock, leakage = (
        fj / operations / 1000 for fj in (found.internal_fj, found.switching_fj, found.clock_fj, found.leakage_fj)
    )
    row = Row(label, candidate.name, width, operands, parallel, operations, internal, switching, clock, leakage,
              internal + switching + clock, found.toggles / operations, **stream.statistics())  # fmt: skip
    return row, found


def single_core(candidate: Candidate, accumulator: Accumulator) -> tuple[str, dict[str, int]]:
    """Module and parameters of the core that has only this candidate, for inputs without sign."""
    return f"mac_{candidate.operator}", {"BITS": candidate.bits, "WIDTH": accumulator.width(candidate.operator)}


def write_rows(rows: Sequence[Row], path: Path, comments: Sequence[str]) -> None:
    """A CSV of measurements; `comments` come first, each behind a #."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(f"# {line}\n" for line in comments)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f.name for f in fields(Row)])
        for row in rows:
            writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in asdict(row).values()])


def write_slots(slots: Sequence[Slot], path: Path) -> None:
    """Every arc and net with its transitions and what one takes, from which the energy can be computed again."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["instance", "cell", "pin_or_net", "related_pin", "when", "part", "load_ff", "transition_ns",
                         "rises", "falls", "rise_fj", "fall_fj", "total_fj"])  # fmt: skip
        for s in slots:
            if any(s.count):
                writer.writerow([s.instance, s.cell, s.pin, s.related, s.when, s.part, f"{s.load_ff:.4f}",
                                 f"{s.transition_ns:.5f}", *s.count, *(f"{e:.6f}" for e in s.energy_fj),
                                 f"{s.total_fj:.4f}"])  # fmt: skip
