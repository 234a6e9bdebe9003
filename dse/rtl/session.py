"""`enos rtl`: cores, proofs and measurements in a folder, each of them a step that is done once."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from dse.core.files import write_atomically
from dse.hardware.candidate import Candidate
from dse.rtl.equivalence import Proof, elaborate, prove
from dse.rtl.library import Library, read_library
from dse.rtl.machine import netlist_machine
from dse.rtl.measure import Core, Row, analysed, has_product, measure, write_slots
from dse.rtl.operands import Accumulator
from dse.rtl.steps import code_digest, digest, once
from dse.rtl.streams import Stream
from dse.rtl.synthesis import programs_needed, read_netlist, rtl_sources, synthesise


@dataclass(frozen=True)
class Session:
    """A library, a folder and the settings of all measurements; `say` gets a line for each step that is done."""

    library: Library
    out: Path
    accumulator: Accumulator
    period_ns: float
    cycles: int
    wire_ff: float
    say: Callable[[str], object]

    @cached_property
    def _tools(self) -> str:
        """What a result depends on beside its inputs: our code, the sources, and the programs' versions."""
        programs_needed("yosys", "iverilog", "vvp")
        versions = [
            subprocess.run([name, "-V"], capture_output=True, text=True).stdout.splitlines()[:1]
            for name in ("yosys", "iverilog")
        ]
        return digest(code_digest(), *rtl_sources(), versions, self.library.path)

    def core(self, name: str, parameters: Mapping[str, int], folder: str) -> Core:
        """A core of `arch_specs/rtl`, synthesised; `folder` below OUT gets its netlist.

        Raises:
            InputError: Yosys fails, or the library lacks what is needed.
        """
        place = self.out / folder

        def work() -> None:
            self.say(f"synthesis of {folder}")
            synthesise(name, parameters, self.library.path, place)

        key = digest(self._tools, name, sorted(parameters.items()))
        once(self.out / "steps" / f"{folder}.json", key, [place / "netlist.json"], work)
        return analysed(
            name, read_netlist(place / "netlist.json", "core"), self.library, self.wire_ff, place, parameters
        )

    def proof(self, core: Core) -> Proof:
        """Whether a core's netlist, with the functions of the library's cells, computes what its source does."""

        def work() -> dict[str, object]:
            self.say(f"proof of {core.folder.name}")
            source = elaborate(core.name, core.parameters, core.folder, word_level=has_product(core.name))
            return asdict(prove(source, netlist_machine(core.netlist, self.library), core.folder))

        key = digest(self._tools, core.name, sorted(core.parameters.items()), core.folder / "netlist.json")
        return Proof(**once(self.out / "steps" / f"proof_{core.folder.name}.json", key, [], work))

    def row(self, core: Core, label: str, candidate: Candidate, width: int, operands: str, stream: Stream,
            slots: Path | None = None) -> Row:  # fmt: skip
        """Energies of a candidate's operation; `slots` gets all transitions.

        Raises:
            InputError: the period is shorter than the core's critical path, or Icarus Verilog fails.
        """

        def work() -> dict[str, object]:
            self.say(f"{candidate.name} on {core.folder.name}, {width} bits, {operands} operands")
            row, energy = measure(
                core, candidate, width, stream, operands, self.library, self.period_ns, self.cycles,
                self.out / "simulation", label, self.accumulator,
            )  # fmt: skip
            if slots:
                write_atomically(slots, lambda path: write_slots(energy.slots, path))
            return asdict(row)

        key = digest(
            self._tools, core.name, core.folder / "netlist.json", label, asdict(candidate), width, operands, stream.x,
            stream.w, stream.signed, self.period_ns, self.cycles, self.wire_ff, asdict(self.accumulator),
        )  # fmt: skip
        record = self.out / "steps" / f"{candidate.name}_{core.folder.name}_{operands}_{width}.json"
        return Row(**once(record, key, [slots] if slots else [], work))


def open_library(liberty: Path, out: Path) -> Library:
    """A library whose file the programs can read: one that is compressed is unpacked into `out`.

    Raises:
        InputError: the file is not Liberty, or `out` cannot be written.
    """
    library = read_library(liberty)
    if liberty.suffix != ".gz":
        return library
    plain = out / "cells.lib"
    content = gzip.decompress(liberty.read_bytes())
    write_atomically(plain, lambda path: path.write_bytes(content))
    return replace(library, path=plain)
