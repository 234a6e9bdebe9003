"""Network totals with one operator at one precision throughout, beside what the paper reports, and why they differ."""

from __future__ import annotations

from dataclasses import dataclass

from dse.hardware.energy.area import Areas
from dse.table.cost_table import CostTable, Transmission
from dse.table.performance import Performance, performance

PAPER_RATIOS = {("multiplication_free", 8): 0.34, ("binary_connect", 8): 0.17}
"""Energy of SqueezeNet with one operator throughout, over that with the typical one at 8 bit (paper, Fig. 5)."""

PAPER_NETWORK, PAPER_ARCH = "squeezenet_cifar", "eyeriss_168"
"""The shipped workload and specification that are set beside these ratios; others have others."""

PAPER_E_OP_RATIO = 11.5
"""E_OP of the typical over that of the binary-connect operator at 8 bit (paper, Fig. 4a)."""

REFERENCE = ("typical", 8)
"""What every ratio is relative to."""


@dataclass(frozen=True)
class Total:
    """Energies in pJ of a network with one candidate in all layers, and what else it takes; None without a mapping.

    `e_op_pj` is the mean over all operations. `ratio` and `on_chip_ratio` are relative to the typical operator at 8
    bit, the latter without off-chip levels.
    """

    candidate: str
    operator: str
    bits: int
    e_op_pj: float
    layers_without_mapping: int
    compute_pj: float | None
    transmission_pj: float | None
    on_chip_pj: float | None  # the part of the transmission that stays on the chip
    ratio: float | None
    on_chip_ratio: float | None
    paper_ratio: float | None
    performance: Performance
    area_mm2: float | None = None  # of the chip; None where the table of a component has none

    def compared(self, transmission: Transmission) -> float | None:
        """The ratio that is set beside the paper's."""
        return self.ratio if transmission == "all" else self.on_chip_ratio


def uniform_totals(table: CostTable) -> tuple[Total, ...]:
    """One total for each candidate, in the table's order; SqueezeNet's have the paper's ratio, where it reports one."""
    arch = table.provenance.arch if table.provenance else PAPER_ARCH
    paper = PAPER_RATIOS if (table.rows[0]["workload"], arch) == (PAPER_NETWORK, PAPER_ARCH) else {}
    sums = {candidate: _sums(table, candidate) for candidate in table.candidates}
    reference = next((sums[c] for c in table.candidates if _kind(table, c) == REFERENCE), None)
    totals = []
    for candidate in table.candidates:
        compute, transmission, on_chip = sums[candidate] or (None, None, None)
        operator, bits = _kind(table, candidate)
        totals.append(
            Total(
                candidate=candidate,
                operator=operator,
                bits=bits,
                e_op_pj=table.mean_e_op_pj(candidate),
                layers_without_mapping=sum(table.row(n, candidate)["status"] != "ok" for n in table.layers),
                compute_pj=compute,
                transmission_pj=transmission,
                on_chip_pj=on_chip,
                ratio=_ratio(sums[candidate], reference, 1),
                on_chip_ratio=_ratio(sums[candidate], reference, 2),
                paper_ratio=paper.get((operator, bits)),
                performance=performance(table, candidate),
                area_mm2=areas_of(table, candidate).total_mm2,
            )
        )
    return tuple(totals)


def areas_of(table: CostTable, candidate: str) -> Areas:
    """Areas of the components on the chip under a candidate; without any where no table has them.

    Example:
        >>> areas_of(CostTable.load("table.csv"), "T8").known
        False
    """
    return Areas(table.provenance.areas_mm2.get(candidate, {}) if table.provenance else {})


def e_op_ratio(totals: tuple[Total, ...]) -> float | None:
    """E_OP of the typical over that of the binary-connect operator, both at 8 bit; None where one is missing."""
    typical, binary = _find(totals, "typical"), _find(totals, "binary_connect")
    return typical.e_op_pj / binary.e_op_pj if typical and binary and binary.e_op_pj else None


def explain(totals: tuple[Total, ...], transmission: Transmission) -> list[str]:
    """Sentences that set the totals beside the paper's; every number in them is one of this table's or the paper's."""
    sentences = []
    ratio = e_op_ratio(totals)
    if ratio is not None:
        sentences.append(f"E_OP(T,8) / E_OP(BC,8) = {ratio:.1f}; the paper reports about {PAPER_E_OP_RATIO}.")
    reference, other = _find(totals, "typical"), _find(totals, "multiplication_free")
    compared = [(t, r) for t in totals if t.paper_ratio is not None and (r := t.compared(transmission)) is not None]
    if compared:
        listed = ", ".join(f"{t.candidate} {r:.2f} (paper {t.paper_ratio})" for t, r in compared)
        if transmission == "all":
            on_chip = ", ".join(f"{t.candidate} {t.on_chip_ratio:.2f}" for t, _ in compared)
            levels = f"all levels counted: {listed}. On-chip levels alone, as in the paper's Fig. 4a: {on_chip}."
        else:
            levels = f"on-chip levels counted, as in the paper's Fig. 4a: {listed}."
        sentences.append(f"One operator throughout, over all-T at 8 bit, {levels}")
    if reference and other and any(t.paper_ratio and r > t.paper_ratio for t, r in compared):
        sentences += _why_more(reference, other, transmission)
    return sentences


def _why_more(reference: Total, other: Total, transmission: Transmission) -> list[str]:
    """Why our ratios lie above the paper's, from the totals of the typical and the multiplication-free operator."""
    moved, moved_by_other = (
        (reference.transmission_pj, other.transmission_pj)
        if transmission == "all"
        else (reference.on_chip_pj, other.on_chip_pj)
    )
    if reference.compute_pj is None or moved is None or moved_by_other is None:
        return []
    total = reference.compute_pj + moved
    return [
        f"Why they are higher: compute is {reference.compute_pj / total:.0%} of all-T here and {other.candidate} moves "
        f"{moved_by_other / moved:.2f} times its traffic (weights and activations are no narrower), so even free "
        f"arithmetic would leave {moved_by_other / total:.2f}.",
        "The paper's compute energy comes from a 15 nm synthesis; its share of the energy is larger than here. Nothing "
        "here is fitted to the paper's numbers.",
    ]


def _find(totals: tuple[Total, ...], operator: str) -> Total | None:
    return next((t for t in totals if (t.operator, t.bits) == (operator, 8)), None)


def _kind(table: CostTable, candidate: str) -> tuple[str, int]:
    row = table.row(table.layers[0], candidate)
    return row["operator"], row["bits"]


def _sums(table: CostTable, candidate: str) -> tuple[float, float, float] | None:
    """Compute, transmission and on-chip transmission over all layers; None if a layer has no mapping."""
    rows = [table.row(layer, candidate) for layer in table.layers]
    if any(row["status"] != "ok" for row in rows):
        return None
    compute, transmission, on_chip = (
        sum(row[c] for row in rows) for c in ("e_compute_pj", "e_tx_pj", "e_tx_on_chip_pj")
    )
    return compute, transmission, on_chip


def _ratio(
    sums: tuple[float, float, float] | None, reference: tuple[float, float, float] | None, moved: int
) -> float | None:
    if sums is None or reference is None:
        return None
    return (sums[0] + sums[moved]) / (reference[0] + reference[moved])
