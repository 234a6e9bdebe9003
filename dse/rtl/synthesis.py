"""Synthesis with Yosys: from the Verilog of a core to a netlist of a library's cells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dse.core.errors import InputError
from dse.core.files import system_errors
from dse.core.programs import run_program
from dse.core.shipped import data_dir

_MAP = """\
dfflibmap -liberty {liberty}
abc -liberty {liberty} -D {delay_ps}
opt_clean
splitnets -ports
clean
stat -liberty {liberty}
write_json netlist.json
write_verilog -noattr netlist.v
"""


@dataclass(frozen=True)
class Instance:
    """A cell of the netlist; `nets` by name of pin."""

    name: str
    cell: str
    nets: Mapping[str, int]


@dataclass(frozen=True)
class Netlist:
    """Cells and the nets of the ports' bits; bits of a port are named ``x[3]``."""

    instances: tuple[Instance, ...]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    names: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Net -> its names in the source."""


def programs_needed(*names: str) -> None:
    """Refuses a run whose programs are not installed.

    Raises:
        InputError: one of them is not on the path.

    Example:
        >>> programs_needed("no-such-program")
        Traceback (most recent call last):
        dse.core.errors.InputError: no-such-program: is not installed; see docs/rtl.md
    """
    for name in names:
        if shutil.which(name) is None:
            raise InputError(name, "is not installed", hint="see docs/rtl.md")


def rtl_sources() -> list[Path]:
    """The shipped Verilog.

    Example:
        >>> "mac_core.v" in [path.name for path in rtl_sources()]
        True
    """
    return sorted((data_dir("arch_specs") / "rtl").glob("*.v"))


def specification() -> Path:
    """What `mac_core.v` computes, as Verilog with the operators of the language; module `mac_core_specification`.

    It is apart from the sources, because Yosys names gates by all that it has read, and the netlist depends on names.

    Example:
        >>> specification().exists()
        True
    """
    return data_dir("arch_specs") / "rtl" / "specification" / "mac_core_specification.v"


def synthesise(
    top: str, parameters: Mapping[str, int], liberty: Path, folder: Path, *, delay_ps: int = 4000,
    sources: Sequence[Path] | None = None,
) -> Netlist:  # fmt: skip
    """Synthesises a module; the folder gets the script, the log and the netlist as JSON.

    Args:
        liberty: the cell library, not compressed.

    Raises:
        InputError: Yosys is not installed or fails: its message.
    """
    programs_needed("yosys")
    with system_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    script = [*elaboration(top, parameters, sources), "synth -flatten -top core"]
    script.append(_MAP.format(liberty=f'"{liberty.resolve()}"', delay_ps=delay_ps).rstrip())
    run_yosys("\n".join(script), folder, "synthesis")
    return read_netlist(folder / "netlist.json", "core")


def elaboration(top: str, parameters: Mapping[str, int], sources: Sequence[Path] | None = None) -> list[str]:
    """Commands of Yosys that read the sources and make a module with its parameters the top module `core`.

    Example:
        >>> elaboration("mac_core", {"LONG": 26}, [Path("mac_core.v")])[1:]
        ['chparam -set LONG 26 mac_core', 'hierarchy -check -top mac_core', 'rename -top core']
    """
    files = " ".join(f'"{path.resolve()}"' for path in (sources or rtl_sources()))
    chosen = " ".join(f"-set {name} {value}" for name, value in parameters.items())
    chparam = [f"chparam {chosen} {top}"] if chosen else []
    return [f"read_verilog {files}", *chparam, f"hierarchy -check -top {top}", "rename -top core"]


def run_yosys(script: str, folder: Path, name: str) -> str:
    """Runs a script of Yosys in `folder`; returns its log.

    Raises:
        InputError: Yosys fails: the first line that says why.
    """
    file, log = folder / f"{name}.ys", folder / f"{name}.log"
    file.write_text(script + "\n", "utf-8")
    code, text = run_program(["yosys", "-s", file.name], folder, log)
    if code:
        errors = [line for line in text.splitlines() if "ERROR" in line]
        raise InputError(file, f"Yosys fails: {(errors or text.splitlines()[-1:] or ['no message'])[0]}")
    return text


def read_netlist(path: Path, top: str) -> Netlist:
    """The netlist that Yosys wrote, with constants as the nets 0 and 1.

    Raises:
        InputError: a cell is none of a library, such as a flip-flop that the library does not have.
    """
    module = json.loads(path.read_text("utf-8"))["modules"][top]
    instances = []
    for name, cell in module["cells"].items():
        if cell["type"].startswith("$"):
            raise InputError(path, f"has a cell {cell['type']}, for which the library has none")
        instances.append(Instance(name, cell["type"], {p: _net(bits[0]) for p, bits in cell["connections"].items()}))
    ports: dict[str, dict[str, int]] = {"input": {}, "output": {}}
    for name, port in module["ports"].items():
        ports[port["direction"]][name] = _net(port["bits"][0])
    return Netlist(tuple(instances), ports["input"], ports["output"], names_of_nets(module))


def names_of_nets(module: Mapping[str, Any]) -> dict[int, tuple[str, ...]]:
    """Net -> names that the source gives it, of a module in Yosys's JSON.

    Example:
        >>> names_of_nets({"netnames": {"x": {"bits": [2, 3]}, "$1": {"bits": [3], "hide_name": 1}}})
        {2: ('x[0]',), 3: ('x[1]',)}
    """
    found: dict[int, list[str]] = {}
    for name, net in module["netnames"].items():
        if not net.get("hide_name"):
            bits = net["bits"]
            for i, bit in enumerate(bits):
                if isinstance(bit, int):
                    found.setdefault(bit, []).append(f"{name}[{i}]" if len(bits) > 1 else name)
    return {net: tuple(names) for net, names in found.items()}


def _net(bit: int | str) -> int:
    return bit if isinstance(bit, int) else int(bit == "1")
