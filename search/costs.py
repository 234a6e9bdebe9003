"""Energy, latency and size of layers and networks as shares of the network with the typical operator at 8 bits."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from dse.core.errors import InputError
from dse.hardware.candidate import Candidate
from dse.table.cost_table import CostTable, FloatArray, Transmission

Quantity = Literal["energy", "latency"]
"""What a network costs: energy in pJ (Eq. 2), or cycles with one layer after the other."""

Held = Literal["energy", "latency", "size"]
"""What an assignment of trained weights can be held to: `Quantity`, or the size of the weights (`size_shares`)."""


def shares(table: CostTable, quantity: Quantity = "energy", transmission: Transmission = "all") -> FloatArray:
    """Cost of each layer under each candidate, of shape (layers, candidates); inf where no mapping exists.

    The unit is the total of the all-typical 8-bit network, so a network's cost is the sum over its layers.

    Raises:
        InputError: a table without that network.

    Example:
        >>> table = CostTable.load("table.csv")  # SqueezeNet: 26 layers, 9 candidates
        >>> costs = shares(table)
        >>> costs.shape, round(float(costs[:, table.candidates.index("T8")].sum()), 6)
        ((26, 9), 1.0)
    """
    if quantity == "energy":
        return table.energy_pj(transmission) / reference_pj(table, transmission)
    name = reference_candidate(table)
    cycles = np.array([[_cycles(table, layer, c) for c in table.candidates] for layer in table.layers])
    return cycles / float(cycles[:, table.candidates.index(name)].sum())


def share(
    table: CostTable, assignment: Mapping[str, str], quantity: Quantity = "energy", transmission: Transmission = "all"
) -> float:
    """Cost of a network whose layers are decided (layer -> candidate): what discretising found, or relearning used.

    Raises:
        InputError: a layer of the table without a candidate, an unknown name, or a table without the unit.

    Example:
        >>> table = CostTable.load("table.csv")
        >>> round(share(table, dict.fromkeys(table.layers, "T4")), 2)
        0.47
    """
    return expected_share(table, {n: {c: 1.0} for n, c in assignment.items()}, quantity, transmission)


def expected_share(
    table: CostTable,
    probabilities: Mapping[str, Mapping[str, float]],
    quantity: Quantity = "energy",
    transmission: Transmission = "all",
) -> float:
    """Expected cost of a network from its probabilities (layer -> candidate -> share), as a search's record has them.

    Raises:
        InputError: a layer of the table without probabilities, an unknown name, or a table without the unit.

    Example:
        >>> table = CostTable.load("table.csv")
        >>> undecided = dict.fromkeys(table.layers, {"T8": 0.5, "T4": 0.5})
        >>> round(expected_share(table, undecided), 2)
        0.73
    """
    for layer, row in probabilities.items():
        for candidate in row:
            table.row(layer, candidate)  # refuses names that are not in the table
    costs, total = shares(table, quantity, transmission), 0.0
    for i, layer in enumerate(table.layers):
        if layer not in probabilities:
            raise InputError("assignment", f"layer {layer!r} is missing")
        total += sum(p * costs[i, table.candidates.index(c)] for c, p in probabilities[layer].items())
    return float(total)


def reference_pj(table: CostTable, transmission: Transmission = "all") -> float:
    """Energy in pJ of the network with the typical operator at 8 bits in every layer, the unit of all energies.

    Raises:
        InputError: a table without that candidate, or with a layer it cannot be mapped for.

    Example:
        >>> f"{reference_pj(CostTable.load('table.csv')) / 1e6:.0f} uJ"
        '679 uJ'
    """
    return table.total_pj(dict.fromkeys(table.layers, reference_candidate(table)), transmission)


def size_shares(
    weights: Sequence[int], candidates: Sequence[Sequence[Candidate]], names: Sequence[str], bits: int = 8
) -> list[FloatArray]:
    """Size of each layer's weights under each candidate: bits of a weight's word times the number of weights.

    The unit is the size with `bits` a weight, those of the all-typical 8-bit network. Biases, normalisation and the
    steps of quantisers are not counted: they are the same for all candidates. Weights of a module count once, however
    often it is called.

    Args:
        weights: number of weights of each layer.
        candidates: those that each layer can have.
        names: the candidates of the result's columns.

    Returns:
        one array a layer, inf for what it cannot have.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> known = [c for c in load_candidates("operators") if c.name in ("T8", "T4", "BC8")]
        >>> [row.tolist() for row in size_shares([30, 10], [known, known[:1]], ["T8", "T4", "BC8"])]
        [[0.75, 0.375, 0.09375], [0.25, inf, inf]]
    """
    unit = bits * sum(weights)
    found = []
    for count, own in zip(weights, candidates, strict=True):
        widths = {c.name: c.weight_bits for c in own}
        found.append(np.array([count * widths[n] / unit if n in widths else np.inf for n in names]))
    return found


UNSEARCHED_KINDS = ("embedding", "conv3d", "transposed_conv3d")
"""Kinds of layers that no operator is searched for: they stay as they are and count as typical at 8 bits."""


_RECURRENT = re.compile(r"(?:.+\.)?weight_(?:ih|hh|hr)(?:_l\d+(?:_reverse)?)?")
_PRODUCT = re.compile(r"(?:(.+)\.)?matmul_\d+")


def unsearched_rows(table: CostTable) -> set[str]:
    """Layers of the table that no module computes which could be searched: they stay as they are.

    These are layers of `UNSEARCHED_KINDS`; the products of recurrent layers; products with the weights of a lookup;
    batched products by parameters, or by what was computed from them, as those of keys and learned queries. The other
    products of such an attention are left out too: their numbers in the table are not those of their execution.

    Example:
        >>> sorted(unsearched_rows(CostTable.load("table.csv")))
        []
    """
    found = {row for row in table.layers if table.kind(row) in UNSEARCHED_KINDS}
    owners = set()
    for row in table.layers:
        name = module_name(row)
        if row in found or table.kind(row) in (None, "matmul"):
            continue
        if _RECURRENT.fullmatch(name):
            found.add(row)
        elif table.kind(row) == "linear" and (table.shape(row) or {}).get("G", 1) > 1:
            found.add(row)
            owners.add(name.rpartition(".")[0])
        elif row != name and name in table.layers and not _of_same_weights(table, row, name):
            found.add(row)
            if table.kind(name) not in UNSEARCHED_KINDS:
                owners.add(name.rpartition(".")[0])
    for row in table.layers:
        product = _PRODUCT.fullmatch(module_name(row))
        if product is not None and (product[1] or "") in owners:
            found.add(row)
    return found


def _of_same_weights(table: CostTable, row: str, first: str) -> bool:
    """Whether a further call of a module has the weights of the first one, or those of another projection of it."""
    shape, own = table.shape(row), table.shape(first)
    if shape is None or own is None or table.kind(first) in UNSEARCHED_KINDS:
        return table.kind(row) == table.kind(first)
    sizes = ("G", "C", "R", "S") if first.rpartition(".")[2] == "in_proj" else ("G", "C", "M", "R", "S")
    if any(shape.get(n, 1) != own.get(n, 1) for n in sizes):
        return False
    return "M" in sizes or shape.get("M", 1) % shape.get("C", 1) == 0


def excluded_rows(table: CostTable, exclude: Sequence[str]) -> dict[str, str]:
    """Layers of the table that are left out of a search -> the candidate that their energy is counted as.

    These are what `exclude` means, and `unsearched_rows`.

    Example:
        >>> table = CostTable.load("table.csv")
        >>> excluded_rows(table, ["conv1"])
        {'conv1': 'T8'}
    """
    found = excluded_layers(exclude, table.layers, strict=False) | unsearched_rows(table)
    left_out = [row for row in table.layers if row in found or module_name(row) in found]
    return dict.fromkeys(left_out, reference_candidate(table)) if left_out else {}


def excluded_layers(exclude: Sequence[str], layers: Sequence[str], *, strict: bool = True) -> set[str]:
    """The layers that names or patterns mean; a layer ``name#2`` is that of the module ``name``.

    Args:
        strict: refuse a pattern that means none.

    Raises:
        InputError: naming that pattern.

    Example:
        >>> sorted(excluded_layers(["stem", "head.*"], ["stem", "body", "head.a", "head.b"]))
        ['head.a', 'head.b', 'stem']
    """
    names = list(dict.fromkeys(map(module_name, layers)))
    found: set[str] = set()
    for i, pattern in enumerate(exclude):
        of_pattern = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not of_pattern and strict:
            raise InputError(f"exclude[{i}]", f"no layer is called {pattern!r}", names)
        found.update(of_pattern)
    return found


def module_name(row: str) -> str:
    """The module that computes a layer of the table: ``name`` of its further call ``name#2`` as well.

    Example:
        >>> module_name("head#2"), module_name("head")
        ('head', 'head')
    """
    return row.rpartition("#")[0] or row


def reference_candidate(table: CostTable) -> str:
    """Name of the typical operator at 8 bits, which every layer has a mapping for.

    Raises:
        InputError: a table without it, or with a layer that it cannot be mapped for.

    Example:
        >>> reference_candidate(CostTable.load("table.csv"))
        'T8'
    """
    name = next((r["candidate"] for r in table.rows if (r["operator"], r["bits"]) == ("typical", 8)), None)
    if name is None:
        raise InputError("table", "has no rows for the typical operator at 8 bits, the unit of energy", "typical, 8")
    for layer in table.layers:
        if table.row(layer, name)["status"] != "ok":
            raise InputError("table", f"layer {layer!r} has no mapping for {name}, the unit of energy")
    return str(name)


def _cycles(table: CostTable, layer: str, candidate: str) -> float:
    row = table.row(layer, candidate)
    return float(row["cycles"]) if row["status"] == "ok" else float("inf")
