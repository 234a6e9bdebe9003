"""`enos cost`: energy, cycles and weight memory of a network as it is, from a table."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from dse.cli.common import FILE, echo_json, json_option, uj
from dse.cli.network_totals import clock_option, scaled
from dse.core.documents import read_json, read_yaml
from dse.core.errors import InputError, unknown
from dse.core.text import text_table
from dse.table.breakdown import breakdown
from dse.table.columns import energy_columns
from dse.table.cost_table import CostTable
from dse.table.performance import Performance, clock_of, has_embeddings, performance
from dse.table.totals import REFERENCE

_SHOWN = 5
_BYTES = (("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0))
_SECONDS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))
_ASSIGNMENT_KEY = "enos.assignment"  # of the metadata of an ONNX file that `enos export-network` wrote


@dataclass(frozen=True)
class _Read:
    """What a file says: layer -> candidate, layers without one and why, and remarks for the user."""

    assignment: dict[str, str]
    without: dict[str, str]
    remarks: tuple[str, ...] = ()


@click.command()
@click.argument("table", type=FILE)
@click.option("--assignment", "file", type=FILE, required=True,
              help="Layer -> candidate as YAML or JSON, or a quantised ONNX file.")  # fmt: skip
@click.option("--default", metavar="CANDIDATE", help="Of the layers that the file does not decide, such as T8.")
@click.option("--input", "inputs", multiple=True, metavar="[NAME=]SHAPE",
              help="Free axes of an ONNX file, as for enos export.")  # fmt: skip
@clock_option
@json_option
def cost(
    table: Path, file: Path, default: str | None, inputs: tuple[str, ...], clock: float | None, as_json: bool
) -> None:
    """Says what a network needs as it is: energy, cycles and memory for its weights, from a table.

    TABLE is what enos map wrote. The candidates of the layers are in a YAML or JSON file, as enos search, enos assign
    and enos export-network write it, or in a quantised ONNX file (QDQ, operators on integers, QONNX of Brevitas): its
    layers are the typical operator at the bits of their weights and activations.

    \b
    Example:
      enos cost table.csv --assignment assignment.yaml
      enos cost table.csv --assignment quantised.onnx --default T8
    """
    costs = CostTable.load(table)
    if default is not None and default not in costs.candidates:
        raise unknown("--default", "candidate", default, costs.candidates)
    if file.suffix.lower() == ".onnx":
        read = _onnx(file, costs, inputs)
    elif inputs:
        raise InputError("--input", "goes with an ONNX file only")
    else:
        read = _Read(_document(file), {})
    chosen = _complete(read, costs, default, file)
    _check_mapped(costs, chosen)
    if as_json:
        echo_json(_as_document(costs, chosen, read, clock))
    else:
        click.echo("\n".join([*_lines(costs, chosen, clock), *read.remarks]))


def _document(file: Path) -> dict[str, str]:
    document = read_json(file) if file.suffix.lower() == ".json" else read_yaml(file)
    if not isinstance(document, dict) or not document:
        raise InputError(file, "is no assignment", "a mapping of layers to candidates, such as conv1: T8")
    for layer, candidate in document.items():
        if not isinstance(candidate, str):
            raise InputError(f"{file}: {layer}", f"found {candidate!r}", "the name of a candidate, such as T8")
    return {str(layer): candidate for layer, candidate in document.items()}


def _complete(read: _Read, table: CostTable, default: str | None, file: Path) -> dict[str, str]:
    """A candidate for each layer of the table, in its order."""
    extra = [layer for layer in (*read.assignment, *read.without) if layer not in table.layers]
    if extra:
        raise InputError(file, f"the table lacks {_named(extra)}", table.layers, "map this network: enos map")
    for layer, candidate in read.assignment.items():
        if candidate not in table.candidates:
            raise unknown(f"{file}: {layer}", "candidate", candidate, table.candidates)
    missing = [layer for layer in table.layers if layer not in read.assignment]
    if missing and default is None:
        why = {read.without[layer] for layer in missing if layer in read.without}
        reason = f" ({'; '.join(sorted(why))})" if why else ""
        raise InputError(file, f"has no candidate for {_named(missing)}{reason}", hint="--default T8 gives them one")
    return {layer: read.assignment.get(layer, default or "") for layer in table.layers}


def _named(layers: Sequence[str]) -> str:
    shown = ", ".join(layers[:_SHOWN]) + (", ..." if len(layers) > _SHOWN else "")
    return f"layer {shown}" if len(layers) == 1 else f"{len(layers)} layers: {shown}"


def _check_mapped(table: CostTable, chosen: Mapping[str, str]) -> None:
    refused = [f"{n} under {c}" for n, c in chosen.items() if table.row(n, c)["status"] != "ok"]
    if refused:
        raise InputError("table", f"has no mapping for {', '.join(refused[:_SHOWN])}", hint="enos map says why")


# Quantised ONNX files.


def _onnx(file: Path, table: CostTable, inputs: Sequence[str]) -> _Read:
    """The candidates of a quantised file; the file of `enos export-network` names them itself."""
    from dse.workload.onnx_import import load_onnx, read_onnx

    model = load_onnx(file)
    kept = next((entry.value for entry in model.metadata_props if entry.key == _ASSIGNMENT_KEY), None)
    if kept is not None:
        try:
            document = json.loads(kept)
        except ValueError:
            document = None
        if not isinstance(document, dict) or not all(isinstance(c, str) for c in document.values()):
            raise InputError(f"{file}: metadata {_ASSIGNMENT_KEY}", "is no assignment", "layer -> candidate as JSON")
        return _Read(document, {})
    from dse.workload.onnx_widths import Widths, widths

    network = read_onnx(file, inputs)
    found: dict[str, Widths] = widths(network)
    remarks = []
    names = list(found)
    if set(names).isdisjoint(table.layers) and _same_shapes(network.workload.layers, table):
        remarks.append("The layers of the file have other names; their order and shapes are those of the table.")
        found = dict(zip(table.layers, found.values(), strict=True))
    assignment, without, wider = {}, {}, []
    for layer, bits in found.items():
        if bits.weights is None or bits.activations is None:
            without[layer] = "not quantised" if bits.weights is bits.activations else f"only one factor is: {bits.text}"
            continue
        candidate = _candidate(bits.weights, bits.activations, table)
        if candidate is None:
            without[layer] = f"{bits.text} is wider than every candidate"
            continue
        assignment[layer] = candidate
        if bits.text not in _widths_of(table, candidate):
            wider.append(f"{layer} ({bits.text}) as {candidate}")
    if wider:
        shown = ", ".join(wider[:_SHOWN]) + (f" and {len(wider) - _SHOWN} more" if len(wider) > _SHOWN else "")
        remarks.append(f"The next wider candidate was taken for {shown}.")
    return _Read(assignment, without, tuple(remarks))


def _candidate(weights: int, activations: int, table: CostTable) -> str | None:
    """The typical candidate of so many bits, or the next wider one; binary-connect for weights of one bit."""
    operators = ("binary_connect", "typical") if weights == 1 else ("typical",)
    for operator in operators:
        need = activations if operator == "binary_connect" else max(weights, activations)
        rows = [table.row(table.layers[0], c) for c in table.candidates]
        fitting = [r for r in rows if r["operator"] == operator and r["bits"] >= need]
        if fitting:
            return str(min(fitting, key=lambda r: int(r["bits"]))["candidate"])
    return None


def _widths_of(table: CostTable, candidate: str) -> tuple[str, ...]:
    row = table.row(table.layers[0], candidate)
    bits = row["bits"]
    return (f"w1 a{bits}",) if row["operator"] == "binary_connect" else (f"w{bits} a{bits}",)


def _same_shapes(layers: Sequence[Any], table: CostTable) -> bool:
    if len(layers) != len(table.layers):
        return False
    for layer, name in zip(layers, table.layers, strict=True):
        shape = table.shape(name)
        if shape is None or {k: v for k, v in layer.instance.items() if v != 1} != {
            k: v for k, v in shape.items() if v != 1
        }:
            return False
    return True


# What is printed.


def _energy(table: CostTable, assignment: Mapping[str, str]) -> float | None:
    energy = table.total_pj(assignment)
    return energy if math.isfinite(energy) else None


def _reference(table: CostTable) -> str | None:
    rows = (table.row(table.layers[0], c) for c in table.candidates)
    return next((str(r["candidate"]) for r in rows if (r["operator"], r["bits"]) == REFERENCE), None)


def _networks(table: CostTable, chosen: Mapping[str, str]) -> dict[str, tuple[float | None, Performance]]:
    """The network as it is, then the uniform ones: energy in pJ and what else they take."""
    networks = {"as it is": dict(chosen), **{f"all {c}": dict.fromkeys(table.layers, c) for c in table.candidates}}
    return {name: (_energy(table, a), performance(table, a)) for name, a in networks.items()}


def _groups(table: CostTable, chosen: Mapping[str, str]) -> list[tuple[str, int, int, float]]:
    """For each candidate in use: layers, operations, energy in pJ."""
    counts = Counter(chosen.values())
    groups = []
    for candidate in table.candidates:
        layers = [n for n, c in chosen.items() if c == candidate]
        if layers:
            operations = sum(int(table.row(n, candidate)["n_ops"]) for n in layers)
            energy = math.fsum(table.layer_pj(n, candidate) for n in layers)
            groups.append((candidate, counts[candidate], operations, energy))
    return groups


def _levels(table: CostTable, chosen: Mapping[str, str]) -> dict[str, float]:
    """Energy in pJ of computing, of each level and of leakage; empty in a table without levels."""
    if not energy_columns(table.rows):
        return {}
    return {part: math.fsum(energies) for part, energies in breakdown(table, chosen).parts.items()}


def _lines(table: CostTable, chosen: Mapping[str, str], clock: float | None) -> list[str]:
    groups, networks, reference = _groups(table, chosen), _networks(table, chosen), _reference(table)
    operations, total = sum(g[2] for g in groups), math.fsum(g[3] for g in groups)
    rows = [
        [c, str(n), _percent(ops, operations), energy, _percent(pj, total)]
        for (c, n, ops, pj), energy in zip(groups, uj([g[3] for g in groups]), strict=True)
    ]
    header = ["candidate", "layers", "share of\noperations", "energy\nuJ", "share of\nenergy"]
    lines = [f"{table.rows[0]['workload']}: {len(table.layers)} layers, {operations:,} operations", ""]
    lines += [text_table(header, rows), "", *_network_lines(table, networks, reference, clock)]
    if has_embeddings(table):
        lines.append("Weights are without the tables of embeddings, whose size the workload does not say.")
    if levels := _levels(table, chosen):
        texts = zip(levels, uj(list(levels.values())), strict=True)
        shares = [f"{part} {text} ({_percent(levels[part], total)})" for part, text in texts]
        lines += ["", f"Energy of the network as it is by level, uJ: {', '.join(shares)}"]
    return lines


def _network_lines(
    table: CostTable,
    networks: Mapping[str, tuple[float | None, Performance]],
    reference: str | None,
    clock: float | None,
) -> list[str]:
    at = clock_of(table, clock)
    base = networks[f"all {reference}"][0] if reference else None
    energies, found = [e for e, _ in networks.values()], [p for _, p in networks.values()]
    time_unit, times = scaled([None if p.cycles is None else p.cycles * at.seconds for p in found], _SECONDS)
    weight_unit, weights = scaled([p.weight_bytes for p in found], _BYTES)
    columns = [
        ("network", list(networks)),
        ("energy\nuJ", uj(energies)),
        (
            f"energy /\nall {reference or 'T8'}",
            [f"{e / base:.3f}" if e is not None and base else "-" for e in energies],
        ),
        ("cycles", ["-" if p.cycles is None else f"{p.cycles:,}" for p in found]),
        (f"time\n{time_unit}", times),
        (f"weights\n{weight_unit}", weights),
    ]
    rows = [list(row) for row in zip(*(cells for _, cells in columns), strict=True)]
    return [text_table([name for name, _ in columns], rows), f"Time at {at.text} ({at.origin})."]


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _as_document(table: CostTable, chosen: Mapping[str, str], read: _Read, clock: float | None) -> dict[str, Any]:
    return {
        "workload": table.rows[0]["workload"],
        "assignment": dict(chosen),
        "candidates": [
            {"candidate": c, "layers": n, "operations": ops, "energy_pj": pj}
            for c, n, ops, pj in _groups(table, chosen)
        ],
        "reference": _reference(table),
        "cycle_seconds": clock_of(table, clock).seconds,
        "networks": {
            name: {"energy_pj": energy, **asdict(found)} for name, (energy, found) in _networks(table, chosen).items()
        },
        "levels_pj": _levels(table, chosen),
        "remarks": list(read.remarks),
    }
