"""The whole job's first half for a run's configuration: its network exported, every layer mapped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dse.candidates import shipped_operators
from dse.errors import InputError
from dse.export import export_network
from dse.pipeline import Report, map_workload
from dse.resources import data_dir
from dse.table import CostTable
from search.config import RunConfig
from search.stages import network_of


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
        raise InputError("arch", f"{name!r} is no file", [*shipped, "a path"])
    return found
