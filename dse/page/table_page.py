"""The page of a cost table without a run: it has energies and no accuracies."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from dse.page.render import render, write_page
from dse.page.sweep_data import sweep_data
from dse.page.table_data import page_data, uniform_networks
from dse.table.cost_table import CostTable, Transmission

LEVELS = {"all": "all memory levels count", "on_chip": "only on-chip levels count"}


def write_table_page(
    path: Path, output: Path | None = None, *, transmission: Transmission = "all", sweep: Path | None = None
) -> Path:
    """Writes the page of a table's file and returns its path.

    Args:
        path: the table.
        output: path of the page; None for the table's path with the suffix ``.html``.
        transmission: the levels whose energy counts.
        sweep: the summary of a sweep, whose curves the page also shows.

    Raises:
        InputError: a file cannot be read or is not a table or summary, or the page cannot be written.
    """
    table = CostTable.load(path)
    data = page_data(table, transmission)
    networks = [*uniform_networks(table, transmission), _least(data)]
    start = next((i for i, n in enumerate(networks) if n["assignment"][0] == data["reference"]), 0)
    data |= {"networks": [_shared(n, data["reference_pj"]) for n in networks], "start": start, "run": None}
    data["sweep"] = sweep_data(sweep) if sweep else None
    page = render(
        data,
        title=f"ENOS: {data['workload']}",
        subtitle=f"{len(table.layers)} layers, {len(table.candidates)} candidates per layer; energies of one "
        f"inference, each layer mapped alone; {LEVELS[transmission]}. Table: {path.name}.",
        commands=_command(path, output, transmission, sweep),
    )
    return write_page(output or path.with_name(f"{path.stem}.html"), page)


def _least(data: dict[str, Any]) -> dict[str, Any]:
    """The network with the cheapest candidate in every layer; the first candidate in a layer without any mapping."""
    assignment = []
    for layer in data["layers"]:
        energies = [cell.get("pj", float("inf")) for cell in layer["cells"]]
        assignment.append(energies.index(min(energies)))
    cells = [layer["cells"][k] for layer, k in zip(data["layers"], assignment, strict=True)]
    total = sum(cell["pj"] for cell in cells) if all("pj" in cell for cell in cells) else None
    return {"label": "least energy in every layer", "kind": "least", "energy_pj": total, "assignment": assignment}


def _shared(network: dict[str, Any], reference_pj: float | None) -> dict[str, Any]:
    """The network, with its energy as a share of the reference's added."""
    known = reference_pj is not None and network["energy_pj"] is not None
    return network | {"energy": network["energy_pj"] / reference_pj if known else None}


def _command(path: Path, output: Path | None, transmission: Transmission, sweep: Path | None) -> str:
    words = ["enos", "report", str(path)]
    words += ["--transmission", transmission] if transmission != "all" else []
    words += ["--sweep", str(sweep)] if sweep else []
    words += ["--output", str(output)] if output else []
    return shlex.join(words)
