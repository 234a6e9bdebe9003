"""Fig. 4 of the paper: energy of an operation by operator and precision, and of SqueezeNet's fire layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from dse.hardware.candidates import load_candidates
from dse.table.cost_table import CostTable
from search.report.figures import colour
from search.reproduce.artefact import Artefact, Claim, markdown_table

PARTS = {"squeeze": "s1x1", "expand1x1": "e1x1", "expand3x3": "e3x3"}
"""The convolutions of a fire module by their names in the network and in the paper."""

OPERATORS = ("T8", "MF8", "BC8")


@dataclass(frozen=True)
class PerOperation:
    """Energy in pJ of one operation of a candidate: `compute` is E_OP; `on_chip` and `off_chip` are transmission."""

    candidate: str
    compute: float
    on_chip: float
    off_chip: float


def per_operation(table: CostTable) -> list[PerOperation]:
    """Means over all operations of the network, weighted with N_OP (Fig. 4a)."""
    n_ops = float(table.n_ops.sum())
    on_chip, every = (table.e_tx_pj(t).sum(0) / n_ops for t in ("on_chip", "all"))
    return [
        PerOperation(c, table.mean_e_op_pj(c), float(on_chip[i]), float(every[i] - on_chip[i]))
        for i, c in enumerate(table.candidates)
    ]


def fire_layers(table: CostTable, part: str) -> list[dict[str, float | str]]:
    """Energies in uJ of one convolution of every fire module, at 8 bit (Fig. 4b to d)."""
    rows: list[dict[str, float | str]] = []
    for layer in table.layers:
        if layer.endswith(f".{part}"):
            for candidate in OPERATORS:
                row = table.row(layer, candidate)
                tx, chip = row["e_tx_pj"], row["e_tx_on_chip_pj"]
                rows.append({
                    "part": PARTS[part], "layer": layer.split(".")[0], "candidate": candidate, "n_ops": row["n_ops"],
                    "compute_uj": row["e_compute_pj"] * 1e-6, "on_chip_uj": chip * 1e-6,
                    "off_chip_uj": (tx - chip) * 1e-6,
                })  # fmt: skip
    return rows


def reproduce(table: CostTable) -> Artefact:
    """The figure from the table of SqueezeNet on the shipped architecture."""
    operations = per_operation(table)
    fires = {part: fire_layers(table, part) for part in PARTS}
    rows = [
        {"part": "operation", "candidate": o.candidate, "compute_pj": o.compute, "on_chip_pj": o.on_chip,
         "off_chip_pj": o.off_chip} for o in operations
    ]  # fmt: skip
    return Artefact(
        name="fig4",
        rows=[*rows, *(row for part in fires.values() for row in part)],
        figure=draw(operations, fires),
        ours=_ours(table, operations, fires),
        claims=_claims(table, operations, fires),
    )


def draw(operations: Sequence[PerOperation], fires: dict[str, list[dict[str, float | str]]]) -> Figure:
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    axes = figure.subplots(2, 2)
    ax = axes[0, 0]
    x = np.arange(len(operations))
    below = np.zeros(len(operations))
    for name, shade, values in (
        ("compute", 1.0, [o.compute for o in operations]),
        ("access, on chip", 0.55, [o.on_chip for o in operations]),
        ("DRAM", 0.2, [o.off_chip for o in operations]),
    ):
        ax.bar(x, values, bottom=below, color=[colour(o.candidate) for o in operations], alpha=shade, label=name)
        below = below + np.array(values)
    ax.set_xticks(x, [o.candidate for o in operations])
    ax.set_ylabel("pJ an operation")
    ax.set_title("(a) one operation: compute, access on chip, DRAM (dark to light)", fontsize=9)
    for ax, letter, (part, rows) in zip(axes.flat[1:], "bcd", fires.items(), strict=True):
        layers = list(dict.fromkeys(str(row["layer"]) for row in rows))
        for j, candidate in enumerate(OPERATORS):
            own = [row for row in rows if row["candidate"] == candidate]
            at, bottom = np.arange(len(layers)) + 0.27 * (j - 1), np.zeros(len(layers))
            for column, shade in (("compute_uj", 1.0), ("on_chip_uj", 0.55), ("off_chip_uj", 0.2)):
                values = [float(row[column]) for row in own]
                ax.bar(at, values, 0.25, bottom=bottom, color=colour(candidate), alpha=shade,
                       label=candidate if shade == 1.0 else None)  # fmt: skip
                bottom = bottom + np.array(values)
        ax.set_xticks(range(len(layers)), layers)
        ax.set_ylabel("µJ an image")
        ax.set_title(f"({letter}) {PARTS[part]} at 8 bit", fontsize=9)
    axes[0, 1].legend(frameon=False, fontsize=8)
    for ax in axes.flat:
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _ours(
    table: CostTable, operations: Sequence[PerOperation], fires: dict[str, list[dict[str, float | str]]]
) -> list[str]:
    head = ("candidate", "compute (pJ)", "access on chip (pJ)", "DRAM (pJ)")
    per = [[o.candidate, f"{o.compute:.3f}", f"{o.on_chip:.3f}", f"{o.off_chip:.3f}"] for o in operations]
    totals = [
        [PARTS[part], f"{_total(rows, 'T8'):.1f}", f"{_total(rows, 'MF8'):.1f}", f"{_total(rows, 'BC8'):.1f}",
         " and ".join(_dearest(rows, "T8"))] for part, rows in fires.items()
    ]  # fmt: skip
    return [
        "An operation (means over all operations of SqueezeNet's CIFAR form):", markdown_table(head, per),
        "All fire modules, µJ an image at 8 bit:",
        markdown_table(("convolution", "T8", "MF8", "BC8", "dearest under T8"), totals),
    ]  # fmt: skip


def _claims(
    table: CostTable, operations: Sequence[PerOperation], fires: dict[str, list[dict[str, float | str]]]
) -> list[Claim]:
    by_name = {o.candidate: o for o in operations}
    ratio = by_name["T8"].compute / by_name["BC8"].compute
    found = [Claim("E_OP of typical over binary-connect, 8 bit", "about 11.5", f"{ratio:.1f}", ratio > 1)]
    declared = {c.name: c for c in load_candidates()}
    for name, paper in (("MF8", "0.34"), ("BC8", "0.17")):
        whole, chip = (
            table.total_pj(dict.fromkeys(table.layers, name), t) / table.total_pj(dict.fromkeys(table.layers, "T8"), t)
            for t in ("all", "on_chip")
        )
        what = declared[name].operator.replace("_", "-")
        ours = f"{whole:.2f} ({chip:.2f} without DRAM)"
        found.append(Claim(f"energy of SqueezeNet, all {what}, over all typical", paper, ours, whole < 1))
    e3, others = _total(fires["expand3x3"], "T8"), [_total(fires[p], "T8") for p in ("squeeze", "expand1x1")]
    found.append(
        Claim("e3x3 costs most of the convolutions", "yes", f"{e3:.0f} µJ beside {others[0]:.0f} and {others[1]:.0f}",
              e3 > max(others))
    )  # fmt: skip
    dearest = _dearest(fires["expand3x3"], "T8")
    found.append(
        Claim("dearest e3x3 layers", "fire4 and fire8", " and ".join(dearest), set(dearest) == {"fire4", "fire8"})
    )
    return found


def _energy(row: dict[str, float | str]) -> float:
    return float(row["compute_uj"]) + float(row["on_chip_uj"]) + float(row["off_chip_uj"])


def _total(rows: Sequence[dict[str, float | str]], candidate: str) -> float:
    return sum(_energy(row) for row in rows if row["candidate"] == candidate)


def _dearest(rows: Sequence[dict[str, float | str]], candidate: str) -> list[str]:
    """The two layers that cost most, dearest first."""
    own = sorted((row for row in rows if row["candidate"] == candidate), key=_energy, reverse=True)
    return [str(row["layer"]) for row in own[:2]]
