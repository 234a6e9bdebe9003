"""The bench that runs inside of the simulator: it drives a program into a core and compares the accumulator."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import Timer


@cocotb.test()  # type: ignore[untyped-decorator, unused-ignore]
async def program(dut: Any) -> None:
    steps = json.loads(Path(os.environ["RTL_PROGRAM"]).read_text("utf-8"))
    expected, short, long = steps.pop("expected"), steps.pop("short"), steps.pop("long")
    inputs = {name: _signal(dut, name) for name in steps}
    clock, reset = dut.clk, dut.reset
    for signals in inputs.values():
        _set(signals, 0)
    for level in (1, 0):  # a reset, and one operation that gives all registers a value
        reset.value = level
        _set(inputs["valid"], 1 - level)
        _set(inputs["first"], 1)
        _set(inputs["x"], 1)
        await _cycle(clock)
    for i in range(len(expected) + 1):
        for name, signals in inputs.items():
            _set(signals, steps[name][i] if i < len(expected) else 0)
        await _cycle(clock)
        if i == 0:
            continue
        width = long if steps.get("wide", [1] * len(expected))[i - 1] else short
        got = _get(_signal(dut, "acc"))  # all bits: those above the short form are 0
        wanted = expected[i - 1] & ((1 << width) - 1)
        cycle = {name: values[i - 1] for name, values in steps.items()}
        assert got == wanted, f"cycle {i - 1}: found {got:x}, expected {wanted:x} after {cycle}"


async def _cycle(clock: Any) -> None:
    clock.value = 0
    await Timer(50, "ns")
    clock.value = 1
    await Timer(50, "ns")


def _signal(dut: Any, name: str) -> list[Any]:
    """The bits of a port, lowest first, of a netlist whose ports are split; or the port."""
    try:
        return [getattr(dut, name)]
    except AttributeError:
        bits: list[Any] = []
        while (bit := dut._id(f"{name}[{len(bits)}]", extended=True)) is not None:
            bits.append(bit)
        return bits


def _set(signals: list[Any], value: int) -> None:
    for i, signal in enumerate(signals):
        signal.value = value if len(signals) == 1 else value >> i & 1


def _get(signals: list[Any]) -> int:
    return int(sum(int(signal.value) << i for i, signal in enumerate(signals)))
