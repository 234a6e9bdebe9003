"""Synthesis with Yosys: from the Verilog of a core to a netlist of a library's cells."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dse.core.errors import InputError
from dse.core.shipped import data_dir

_MAP = """\
dfflibmap -liberty {liberty}
abc -liberty {liberty} -D {delay_ps}
opt_clean
splitnets -ports
clean
stat -liberty {liberty}
write_json {json}
write_verilog -noattr {verilog}
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


def synthesise(
    top: str, parameters: Mapping[str, int], liberty: Path, folder: Path, *, delay_ps: int = 4000,
    sources: Sequence[Path] | None = None,
) -> Netlist:  # fmt: skip
    """Synthesises a module; the folder gets the script, the log and the netlist as JSON.

    Raises:
        InputError: Yosys is not installed or fails: its message.
    """
    programs_needed("yosys")
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / "cells.lib"
    plain.write_bytes(gzip.decompress(liberty.read_bytes()) if liberty.suffix == ".gz" else liberty.read_bytes())
    chosen = " ".join(f"-set {name} {value}" for name, value in parameters.items())
    files = " ".join(f'"{path}"' for path in (sources or rtl_sources()))
    script = [f"read_verilog {files}"]
    if chosen:
        script.append(f"chparam {chosen} {top}")
    script += [f"hierarchy -check -top {top}", "rename -top core", "synth -flatten -top core"]
    script.append(
        _MAP.format(
            liberty=plain, delay_ps=delay_ps, json=folder / "netlist.json", verilog=folder / "netlist.v"
        ).rstrip()
    )
    run_yosys("\n".join(script), folder, "synthesis")
    return read_netlist(folder / "netlist.json", "core")


def run_yosys(script: str, folder: Path, name: str) -> str:
    """Runs a script of Yosys in `folder`; returns its log.

    Raises:
        InputError: Yosys fails: the first line that says why.
    """
    file, log = folder / f"{name}.ys", folder / f"{name}.log"
    file.write_text(script + "\n", "utf-8")
    ran = subprocess.run(["yosys", "-q", "-l", str(log), "-s", str(file)], capture_output=True, text=True)
    if ran.returncode:
        errors = [line for line in ran.stderr.splitlines() if "ERROR" in line]
        raise InputError(file, f"Yosys fails: {(errors or ran.stderr.splitlines() or ['no message'])[0]}")
    return log.read_text("utf-8")


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
    return Netlist(tuple(instances), ports["input"], ports["output"])


def _net(bit: int | str) -> int:
    return bit if isinstance(bit, int) else int(bit == "1")
