"""A netlist in Icarus Verilog: operands in, every transition of every net out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dse.core.errors import InputError
from dse.core.files import system_errors
from dse.core.programs import run_program
from dse.rtl.gates import gate_verilog
from dse.rtl.library import Library
from dse.rtl.synthesis import Netlist, programs_needed
from dse.rtl.timing import Timing

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Transitions:
    """Transitions in order of time: ps, name of the net in the Verilog (an index into `names`), new value."""

    names: tuple[str, ...]
    time_ps: Integers
    net: Integers
    value: Integers
    end_ps: int


def simulate(
    netlist: Netlist,
    library: Library,
    timing: Timing | None,
    inputs: Mapping[str, Integers],
    period_ps: int,
    folder: Path,
) -> tuple[Transitions, Integers]:
    """Runs cycles of a core; inputs change just after the rising edge, as those of registers do.

    Args:
        inputs: a value for each cycle by port, all of one length.
        timing: delays; None for none.

    Returns:
        The transitions and, for each cycle, the value of `acc` at its end (without sign; -1 where it is unknown).

    Raises:
        InputError: Icarus Verilog is not installed or fails.
    """
    programs_needed("iverilog", "vvp")
    with system_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    (folder / "gates.v").write_text(gate_verilog(netlist, library, timing), "utf-8")
    (cycles,) = {len(values) for values in inputs.values()}
    widths = {name: sum(1 for bit in netlist.inputs if bit.partition("[")[0] == name) for name in inputs}
    rows, total = np.zeros(cycles, object), sum(widths.values())
    for name, values in inputs.items():
        rows = (rows << widths[name]) | (values & ((1 << widths[name]) - 1)).astype(object)
    (folder / "inputs.hex").write_text("\n".join(f"{row:x}" for row in rows) + "\n", "utf-8")
    acc = sum(1 for bit in netlist.outputs if bit.partition("[")[0] == "acc")
    ports = ", ".join(f".{name}({name})" for name in [*inputs, "clk", "acc"])
    bench = f"""`timescale 1ps/1ps
module bench;
  reg clk = 0;
  {" ".join(f"reg {f'[{w - 1}:0]' if w > 1 else ''} {n} = 0;" for n, w in widths.items())}
  wire [{acc - 1}:0] acc;
  reg [{total - 1}:0] rows [0:{cycles - 1}];
  integer i, file;
  core dut ({ports});
  initial begin
    $readmemh("inputs.hex", rows);
    file = $fopen("acc.txt", "w");
    $dumpfile("nets.vcd");
    $dumpvars(1, dut);
    for (i = 0; i < {cycles}; i = i + 1) begin
      clk = 1; #20 {{{", ".join(inputs)}}} = rows[i];
      #{period_ps // 2 - 20} clk = 0; #{period_ps - period_ps // 2 - 1} $fdisplay(file, "%b", acc); #1;
    end
    $finish;
  end
endmodule
"""
    (folder / "bench.v").write_text(bench, "utf-8")
    build = ["iverilog", "-g2005", "-s", "bench", "-o", "gates.vvp", "bench.v", "gates.v"]
    for command in (build, ["vvp", "-n", "gates.vvp"]):
        code, text = run_program(command, folder, folder / f"{command[0]}.log")
        if code:
            raise InputError(folder, f"{command[0]} fails: {(text.splitlines() or ['no message'])[0]}")
    lines = (folder / "acc.txt").read_text("utf-8").split()
    values = np.array([int(line, 2) if set(line) <= {"0", "1"} else -1 for line in lines])
    transitions = read_vcd(folder / "nets.vcd", cycles * period_ps)
    (folder / "nets.vcd").unlink()
    return transitions, values


def read_vcd(path: Path, end_ps: int) -> Transitions:
    """Transitions of scalar nets in a value change dump with the unit 1 ps; unknown values count as 0.

    Example:
        >>> text = "$var wire 1 ! n2 $end\\n$enddefinitions $end\\n#0\\nx!\\n#5\\n1!\\n"
        >>> _ = Path("small.vcd").write_text(text)
        >>> found = read_vcd(Path("small.vcd"), 10)
        >>> found.names, found.time_ps.tolist(), found.value.tolist()
        (('n2',), [0, 5], [0, 1])
    """
    names: list[str] = []
    codes: dict[str, int] = {}
    times, nets, values = [], [], []
    now, body = 0, False
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not body:
                words = line.split()
                if words[:1] == ["$var"] and words[2] == "1":
                    codes[words[3]] = len(names)
                    names.append(words[4])
                body = line.startswith("$enddefinitions")
            elif line[0] == "#":
                now = int(line[1:])
            elif line[0] in "01xz":
                net = codes.get(line[1:-1])
                if net is not None:
                    times.append(now)
                    nets.append(net)
                    values.append(int(line[0] == "1"))
    return Transitions(
        tuple(names), np.array(times, np.int64), np.array(nets, np.int64), np.array(values, np.int64), end_ps
    )
