"""The page's data of a cost table, as JSON; the page itself only adds these numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from dse.page.colours import hatch, shades
from dse.page.nest import parse_nest
from dse.table.columns import LevelColumn, Row, energy_columns
from dse.table.cost_table import CostTable, Transmission
from dse.table.performance import clock_of, off_chip_bits, weight_bits
from dse.table.totals import REFERENCE

Json = dict[str, Any]


def page_data(table: CostTable, transmission: Transmission = "all") -> Json:
    """The data of a table's page.

    Args:
        transmission: the levels whose energy counts, as in `CostTable.total_pj`.

    Returns:
        ``candidates`` and ``layers`` in the table's order. ``layers[i]["cells"][k]`` is a layer under a candidate:
        ``pj`` (the energy that counts), its parts ``compute_pj`` and ``tx_pj``, ``not_counted_pj`` (off chip),
        ``cycles``, ``utilisation``, ``optimal``, ``parts`` (pJ of each of the page's ``parts``), ``rest_pj`` (leakage)
        and ``nest``, the position of its loop nest in ``nests``. Without a mapping it has only ``reason``.
        ``signed`` says whether inputs of a layer can be negative, and is None where no candidate costs more for them.
        ``weight_bits`` and
        ``off_chip_bits`` are memory of the weights and traffic of the chip; like ``kind`` and ``shape`` of a layer and
        ``pes`` of a candidate, they are None in a table of an earlier schema. ``reference`` is the index of
        the candidate that shares are relative to, with ``reference_pj``; both are None if it lacks a mapping.
        ``layer_unit`` and ``total_unit`` are the units in which energies of layers and networks are printed.
    """
    columns = energy_columns(table.rows)
    nests: dict[str, int] = {}
    energy = table.energy_pj(transmission)
    ok = np.isfinite(energy)
    reference = reference_candidate(table)
    signed = None if table.provenance is None else table.provenance.signed_layers
    layers = [
        {
            "name": layer,
            "kind": table.kind(layer),
            "shape": table.row(layer, table.candidates[0]).get("shape"),
            "signed": None if signed is None else layer in signed,
            "n_ops": int(table.n_ops[i]),
            "cells": [
                _cell(table.row(layer, c), columns, nests, transmission)
                | (_more(table, layer, c, float(energy[i, k]), float(table.n_ops[i] * e_op)) if ok[i, k] else {})
                for k, (c, e_op) in enumerate(zip(table.candidates, table.e_op_pj[i], strict=True))
            ],
        }
        for i, layer in enumerate(table.layers)
    ]
    return {
        "workload": table.rows[0]["workload"],
        "transmission": transmission,
        "clock": asdict(clock_of(table)),
        "layer_unit": unit(float(np.max(energy, initial=0.0, where=ok))),
        "total_unit": unit(float(np.max(energy, axis=1, initial=0.0, where=ok).sum())),
        "candidates": _candidates(table),
        "parts": [{"level": c.level, "tensor": c.tensor, "off_chip": c.level in table.off_chip} for c in columns],
        "nests": [_nest(text) for text in nests],
        "layers": layers,
        "reference": reference,
        "reference_pj": None if reference is None else _uniform_pj(table, reference, transmission),
    }


def uniform_networks(table: CostTable, transmission: Transmission = "all") -> list[Json]:
    """The networks with one candidate in all layers, for candidates that have a mapping in every layer."""
    energy = table.energy_pj(transmission)
    return [
        {
            "label": f"all {candidate}",
            "kind": "baseline",
            "candidate": candidate,
            "energy_pj": _uniform_pj(table, k, transmission),
            "assignment": [k] * len(table.layers),
        }
        for k, candidate in enumerate(table.candidates)
        if np.isfinite(energy[:, k]).all()
    ]


def indices(table: CostTable, assignment: Mapping[str, str], transmission: Transmission = "all") -> list[int]:
    """An assignment in the page's form: for each layer the index of its candidate.

    Raises:
        InputError: the table does not have a layer or a candidate of the assignment.
    """
    table.total_pj(assignment, transmission)
    return [table.candidates.index(assignment[layer]) for layer in table.layers]


def reference_candidate(table: CostTable) -> int | None:
    """Index of the typical operator at 8 bits; None if the table lacks it or a layer has no mapping for it."""
    for k, candidate in enumerate(table.candidates):
        rows = [table.row(layer, candidate) for layer in table.layers]
        if (rows[0]["operator"], rows[0]["bits"]) == REFERENCE and all(row["status"] == "ok" for row in rows):
            return k
    return None


def unit(largest_pj: float) -> Json:
    """The largest of the units pJ, nJ and uJ in which the largest energy is at least 1, and its size in pJ."""
    name, size = next((u for u in (("µJ", 1e6), ("nJ", 1e3)) if largest_pj >= u[1]), ("pJ", 1.0))
    return {"name": name, "pj": size}


def _candidates(table: CostTable) -> list[Json]:
    kinds = [(row["operator"], row["bits"]) for row in (table.row(table.layers[0], c) for c in table.candidates)]
    pes = table.provenance.pes if table.provenance else {}
    return [
        {
            "name": name,
            "operator": operator,
            "bits": bits,
            "fill": fill,
            "ink": ink,
            "hatch": hatch(name),
            "pes": pes.get(name),
        }
        for name, (operator, bits), (fill, ink) in zip(table.candidates, kinds, shades(kinds), strict=True)
    ]


def _cell(row: Row, columns: Sequence[LevelColumn], nests: dict[str, int], transmission: Transmission) -> Json:
    """A layer under a candidate, without the energies that `page_data` adds."""
    if row["status"] != "ok":
        return {"reason": row["reason"] or row["status"]}
    parts = [row.get(column.name) or 0.0 for column in columns]
    return {
        "tx_pj": row["e_tx_pj"] if transmission == "all" else row["e_tx_on_chip_pj"],
        "not_counted_pj": 0.0 if transmission == "all" else row["e_tx_pj"] - row["e_tx_on_chip_pj"],
        "cycles": row["cycles"],
        "utilisation": row["utilisation"],
        "optimal": row["optimal"],
        "parts": parts,
        "rest_pj": row.get("leakage_pj") or 0.0,
        "nest": nests.setdefault(row["mapping"], len(nests)) if row["mapping"] else None,
    }


def _more(table: CostTable, layer: str, candidate: str, pj: float, compute_pj: float) -> Json:
    """Energies of a layer under a candidate, and the memory and traffic that it needs."""
    return {
        "pj": pj,
        "compute_pj": compute_pj,
        "weight_bits": weight_bits(table, layer, candidate),
        "off_chip_bits": off_chip_bits(table, table.row(layer, candidate)),
    }


def _nest(text: str) -> Any:
    """Levels with loops as ``[dimension, bound, axis, last]``; the text itself if it is not a loop nest."""
    levels = parse_nest(text)
    if levels is None:
        return text
    return [[level.name, [[x.dimension, x.bound, x.axis, x.last] for x in level.loops]] for level in levels]


def _uniform_pj(table: CostTable, candidate: int, transmission: Transmission) -> float:
    return table.total_pj(dict.fromkeys(table.layers, table.candidates[candidate]), transmission)
