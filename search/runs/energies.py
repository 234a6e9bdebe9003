"""The whole job's first half for a run's configuration: its network exported, every layer mapped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dse.table.cost_table import CostTable
from dse.table.fill import Report, map_workload
from dse.table.workers import Pool
from dse.workload.export import export_network
from search.runs.config import RunConfig
from search.runs.inputs import network_of


def energies(config: RunConfig, store: Path | None = None, progress: Callable[[Report], None] | None = None,
             jobs: int | Pool = -1) -> CostTable:  # fmt: skip
    """The cost table of a configuration's network on its architecture.

    Args:
        store: where mappings are kept; None for the user's.
        jobs: as in `map_workload`.

    Raises:
        InputError: an unknown network or architecture, or whatever mapping refuses.
    """
    workload = export_network(replace(network_of(config), name=config.name))
    return map_workload(workload, arch=config.arch, candidates=config.declared, store=store,
                        progress=progress, jobs=jobs)  # fmt: skip
