"""Which module of a network computes which layers of a table, and the candidates that it can have."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from dse.core.errors import InputError, unknown
from dse.hardware.candidate import Candidate
from dse.hardware.candidates import load_candidates
from dse.table.cost_table import CostTable, FloatArray
from dse.table.shapes import shape_text
from search.costs import UNSEARCHED_KINDS, module_name, reference_candidate, unsearched_rows
from search.layers.choice import Choice
from search.layers.fused import Layer
from search.layers.products import owner_of
from search.spaces import pinned

SEARCHED: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)
"""Modules that become mixed layers."""


class Unsearched(Choice):
    """A layer of the table that no searched module computes: it is as it was, and counts as one candidate."""

    def __init__(self, candidate: Candidate, network: nn.Module) -> None:
        super().__init__([candidate], next(network.parameters()))
        self._network = (network,)  # in a tuple: the network is no part of this module

    def like(self) -> Tensor:
        return next(self._network[0].parameters())

    def single(self, candidate: Candidate) -> Unsearched:
        self.candidates.index(candidate)
        return self


@dataclass(frozen=True)
class Pairing:
    """The layers of a table and the modules of a network.

    Attributes:
        rows: layer of the table -> module that computes it, or the layer itself where it is in `apart`.
        apart: layers that stay as they are, because no module that can be searched computes them alone.
        products: products of two activations, of which `rows` gives the first call (``attn.matmul_1``).
    """

    rows: dict[str, str]
    apart: tuple[str, ...]
    products: tuple[str, ...]


def layers_of(network: nn.Module) -> dict[str, Layer]:
    """The modules that can be searched, by name; one that has several names has the first."""
    return {name: cast(Layer, m) for name, m in network.named_modules() if isinstance(m, SEARCHED)}


def any_row(table: CostTable, module: str) -> bool:
    """Whether a module computes a layer of the table."""
    return any(module in (row, module_name(row)) for row in table.layers)


def pair(
    table: CostTable,
    layers: Mapping[str, nn.Module],
    plain: Collection[str],
    further: Mapping[str, str] | None = None,
) -> Pairing:
    """Finds the module of each layer of the table.

    Modules without a layer in the table do not run at inference, as auxiliary heads: they stay as they are, and a
    warning names them. Another one names products that are in the table and not searched.

    Args:
        layers: the modules that can be searched, by name.
        plain: names of layers and modules that are left out of the search.
        further: layers of the table whose module is known, because its name is not theirs.

    Raises:
        InputError: a layer of the table that no module computes, or whose module has other weights.
    """
    if "" in layers:
        raise InputError(
            "network", f"is itself a {type(layers['']).__name__}", hint="wrap it in a module that holds its layers"
        )
    rows: dict[str, str] = {}
    apart = []
    products: dict[str, None] = {}
    unsearched = unsearched_rows(table)
    for row in table.layers:
        name = (further or {}).get(row) or (row if row in layers else module_name(row))
        if name in layers and row not in unsearched:
            check_shape(table, row, layers[name])
        elif name in plain or row in plain or row in unsearched:
            name = row
            apart.append(row)
        elif owner_of(name) is not None:
            products[name] = None
        else:
            kind = table.kind(row)
            what = (
                "no module that can be searched" if kind is None else f"no module that can be searched (it is a {kind})"
            )
            raise InputError(
                "table", f"layer {row!r} is {what}", layers, "export and map this network, or exclude the layer"
            )
        rows[row] = name
    left = [r for r in apart if table.kind(r) not in UNSEARCHED_KINDS and not {r, module_name(r)} & set(plain)]
    if left:
        names = dict.fromkeys(module_name(r) if module_name(r) in left else r for r in left)
        text = f"no module that can be searched computes {', '.join(names)}: left as they are"
        warnings.warn(f"{text}, and counted as {reference_candidate(table)}", stacklevel=3)
    idle = [name for name in layers if name not in rows.values() and name not in plain]
    if idle:
        text = f"the table has no rows for {', '.join(idle)}: left as they are, and their energy is not counted"
        warnings.warn(text, stacklevel=3)
    return Pairing(rows, tuple(apart), tuple(products))


def check_shape(table: CostTable, row: str, module: nn.Module) -> None:
    """Raises an InputError if the weights of a module are not those of a layer of the table."""
    shape, own = table.shape(row), weight_shape(module)
    if shape is None or own is None:  # a table of an earlier schema
        return
    found = {name: shape.get(name, 1) for name in own}
    if found != own:
        problem = f"layer {row!r} has weights of {shape_text(found)}, in the network they are {shape_text(own)}"
        raise InputError("table", problem, hint="export and map this network")


def weight_shape(module: nn.Module) -> dict[str, int] | None:
    """G groups of C inputs and M outputs, and the R x S filter of a module; None if it is not of a searched type."""
    if isinstance(module, nn.Linear):
        return {"G": 1, "C": module.in_features, "M": module.out_features, "R": 1, "S": 1}
    if not isinstance(module, SEARCHED):
        return None
    layer: Any = module
    groups, kernel = layer.groups, layer.kernel_size
    height = kernel[0] if len(kernel) == 2 else 1
    channels = {"C": layer.in_channels // groups, "M": layer.out_channels // groups}
    return {"G": groups, **channels, "R": height, "S": kernel[-1]}


def costs_of(
    table: CostTable, costs: FloatArray, choices: Mapping[str, Choice], rows: Mapping[str, str]
) -> list[FloatArray]:
    """The costs of each module's candidates, summed over the layers that it computes."""
    found = []
    for name, layer in choices.items():
        columns = [table.candidates.index(c.name) for c in layer.candidates]
        own = [i for i, row in enumerate(table.layers) if rows[row] == name]
        found.append(costs[own][:, columns].sum(0))
    return found


def pinned_candidates(
    table: CostTable,
    rows: Mapping[str, str],
    pins: Mapping[str, str],
    operators: Path | str | Sequence[Candidate] | None,
) -> dict[str, list[Candidate]]:
    """Module -> the one candidate it is pinned to; a module that computes several layers has one for all of them."""
    found: dict[str, list[Candidate]] = {}
    unsearched = unsearched_rows(table)
    searched = [row for row in table.layers if row not in unsearched]
    for row, name in pinned(pins, searched).items():
        candidate = candidates_of(table, [name], operators, f"pins.{row}")
        if found.setdefault(rows[row], candidate) != candidate:
            problem = f"found {name!r}, but module {rows[row]!r} computes several layers with one set of weights"
            raise InputError(f"pins.{row}", problem, found[rows[row]][0].name)
    return found


def candidates_of_product(name: str, known: Sequence[Candidate], pinned: bool) -> list[Candidate]:
    """Those of the candidates that a product of two activations can have: the typical ones that are not in memory.

    In memory one operand would have to be written into the cells for each image.

    Raises:
        InputError: it is pinned to another.
    """
    found = [c for c in known if c.operator == "typical" and c.macro is None]
    if pinned and not found:
        problem = f"found {known[0].name!r}, but {name!r} is a product of two activations"
        raise InputError(f"pins.{name}", problem, "candidates of the typical operator without a macro")
    return found


def typical(table: CostTable, row: str, candidate: str) -> str:
    """The typical candidate with the bits of `candidate`, of the first computing mode that has one.

    A product of two activations has it in the place of `candidate`; that of 8 bits if there is none.
    """
    wanted = table.row(row, candidate)
    if wanted["operator"] == "typical" and "@" not in candidate:  # of the first mode, which is not in memory
        return candidate
    of_row = [table.row(row, name) for name in table.candidates]
    key = ("typical", wanted["bits"], "ok")
    same = [str(r["candidate"]) for r in of_row if (r["operator"], r["bits"], r["status"]) == key]
    return same[0] if same else reference_candidate(table)


def candidates_of(
    table: CostTable,
    names: Sequence[str] | None,
    operators: Path | str | Sequence[Candidate] | None,
    where: str = "candidates",
) -> list[Candidate]:
    """The candidates of these names in the table's order; checks that their declarations are those of its rows."""
    source = operators if isinstance(operators, Path | str) else "the given operators"
    source = "arch_specs/operators.yaml" if operators is None else source
    given = load_candidates(operators) if operators is None or isinstance(operators, Path | str) else operators
    declared = {c.name: c for c in given}
    for name in names if names is not None else table.candidates:
        if name not in table.candidates:
            raise unknown(where, "candidate", name, table.candidates)
        if name not in declared:
            raise InputError(where, f"{name!r} is not declared in {source}", declared)
        row, candidate = table.row(table.layers[0], name), declared[name]
        if (row["operator"], row["bits"]) != (candidate.operator, candidate.bits):
            problem = f"{name!r} is {row['operator']} at {row['bits']} bits in the table, but not in {source}"
            raise InputError(where, problem, f"{candidate.operator} at {candidate.bits} bits")
    return [declared[name] for name in table.candidates if names is None or name in names]


def mapped(table: CostTable, rows: Sequence[str], candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those of the candidates that can be mapped for all of these layers.

    Raises:
        InputError: there is none.
    """
    found = [c for c in candidates if all(table.row(row, c.name)["status"] == "ok" for row in rows)]
    if not found:
        tried = ", ".join(c.name for c in candidates)
        raise InputError(f"table: layer {rows[0]!r}", f"no candidate has a mapping; tried: {tried}")
    return found
