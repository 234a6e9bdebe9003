"""A small cost table whose every number can be told from every other one."""

from __future__ import annotations

from typing import Any

from dse.table.cost_table import CostTable

LAYERS = ("stem", "middle", "wide.3x3", "head")
CANDIDATES = (
    ("typical", 8, "T8"),
    ("typical", 4, "T4"),
    ("multiplication_free", 8, "MF8"),
    ("binary_connect", 2, "BC2"),
)
REASON = "glb holds 64 words where <b>96</b> are needed"
NEST = "dram[Q4 P3,1] | glb[M2] | inter_pe_spatial[x: C2 S3, y: R3] | idle[] | spad[Q2]"


def small_table(
    layers: Any = LAYERS,
    *,
    lacking: Any = (("middle", "BC2"),),
    levels: Any = True,
    mapping: Any = NEST,
    scale: Any = 1.0,
) -> CostTable:
    """Energies in pJ grow with the layer and shrink with the candidate; `lacking` have no mapping."""
    rows = []
    for i, layer in enumerate(layers):
        for k, (operator, bits, name) in enumerate(CANDIDATES):
            row = {
                "workload": "small", "layer": layer, "operator": operator, "bits": bits, "candidate": name,
                "n_ops": 1000 * (i + 1), "e_op_pj": scale / (k + 3), "engine": "hand 1",
            }  # fmt: skip
            if (layer, name) in lacking:
                costs = dict.fromkeys(
                    ("e_compute_pj", "e_tx_pj", "e_tx_on_chip_pj", "cycles", "utilisation", "optimal")
                )
                rows.append({**row, **costs, "status": "no_mapping", "reason": REASON, "mapping": ""})
                continue
            spad, glb, dram = (scale * part * (i + 1) / (k + 1.1) for part in (531.7, 268.3, 1977.1))
            rows.append(
                row
                | {
                    "status": "ok", "reason": "", "e_compute_pj": row["n_ops"] * row["e_op_pj"],
                    "e_tx_pj": spad + glb + dram, "e_tx_on_chip_pj": spad + glb, "cycles": 100 * (i + 1) + k,
                    "utilisation": 0.5 + 0.01 * k, "optimal": k != 1, "mapping": mapping,
                }
                | ({"spad.Weights.energy_pj": spad, "glb.Inputs.energy_pj": glb, "dram.Inputs.energy_pj": dram}
                   if levels else {})
            )  # fmt: skip
    return CostTable(tuple(rows))
