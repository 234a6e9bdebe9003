"""The whole job's first half for a run's configuration: its network exported, every layer mapped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.candidates import shipped_operators
from dse.table.cost_table import CostTable
from dse.table.fill import Report, map_workload
from dse.workload.trace import export_network
from search.runs.config import RunConfig
from search.runs.stages import network_of


def energies(config: RunConfig, store: Path | None = None, progress: Callable[[Report], None] | None = None
             ) -> CostTable:  # fmt: skip
    """The cost table of a configuration's network on its architecture.

    Args:
        store: where mappings are kept; None for the user's.

    Raises:
        InputError: an unknown network or architecture, or whatever mapping refuses.
    """
    workload = export_network(replace(network_of(config), name=config.name))
    return map_workload(workload, arch=arch_file(config.arch), candidates=config.declared, store=store,
                        progress=progress)  # fmt: skip


def arch_file(name: str) -> Path:
    """A configuration's `arch`: the name of a shipped specification, or a file."""
    shipped = {path.stem: path for path in sorted(data_dir("arch_specs").glob("*.yaml"))}
    shipped = {stem: path for stem, path in shipped.items() if stem not in shipped_operators()}
    found = shipped.get(name, Path(name))
    if not found.is_file():
        raise InputError("arch", f"{name!r} is not a file", [*shipped, "a path"])
    return found
