"""What `enos map` prints of a whole network: energies, cycles, use of the array and memory of its uniform networks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dse.cli.common import uj
from dse.core.errors import InputError
from dse.core.text import text_table
from dse.table.performance import clock_of, has_embeddings, idle_layers
from dse.table.totals import REFERENCE, Total, areas_of

if TYPE_CHECKING:
    from dse.hardware.energy.area import Areas
    from dse.table.cost_table import CostTable

_Function = TypeVar("_Function", bound=Callable[..., Any])

_FREQUENCY = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+) ?(Hz|kHz|MHz|GHz)")
_HERTZ = {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9}
_BYTES = (("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0))
_SECONDS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))
_MOST_NAMED = 3  # layers in the line on idle PEs


def clock_option(function: _Function) -> _Function:
    """The function gets `clock`, the duration of a cycle in seconds; None where the option is not given."""

    def read(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
        if value is None:
            return None
        match = _FREQUENCY.fullmatch(value.strip())
        if match is None or not float(match[1]):
            raise InputError(
                "--clock", f"found {value[:80]!r}", "a frequency above 0 with its unit, such as 200MHz or 1GHz"
            )
        return 1 / (float(match[1]) * _HERTZ[match[2]])

    return click.option(
        "--clock",
        metavar="FREQUENCY",
        callback=read,
        help="Clock for times, such as 200MHz; default: the specification's global_cycle_seconds, else 1GHz.",
    )(function)


def totals_lines(table: CostTable, totals: Sequence[Total], clock: float | None) -> list[str]:
    """The uniform networks as one table, and a line where few of the PEs work."""
    at = clock_of(table, clock)
    lines = [f"One operator at one precision throughout, energies in uJ, time at {at.text} ({at.origin}):"]
    lines.append(_totals_table(totals, at.seconds))
    lines += network_lines(table)
    lines += area_lines(table)
    lines += leakage_lines(table, totals)
    if has_embeddings(table):
        lines.append("Weights are without the tables of embeddings, whose size the workload does not say.")
    return [*lines, *idle_lines(table)]


def _totals_table(totals: Sequence[Total], seconds: float) -> str:
    reference = next((t.candidate for t in totals if (t.operator, t.bits) == REFERENCE), "T8")
    found = [t.performance for t in totals]
    energies = uj([e for t in totals for e in (t.compute_pj, t.transmission_pj, t.on_chip_pj)])
    time_unit, times = scaled([None if p.cycles is None else p.cycles * seconds for p in found], _SECONDS)
    weight_unit, weights = scaled([p.weight_bytes for p in found], _BYTES)
    traffic_unit, traffic = scaled([p.off_chip_bytes for p in found], _BYTES)
    columns: list[tuple[str, list[str]]] = [
        ("", [f"all {t.candidate}" for t in totals]),
        ("compute", energies[0::3]),
        ("transmission", energies[1::3]),
        ("of it\non chip", energies[2::3]),
        (f"total /\nall {reference}", [_ratio(t.ratio) for t in totals]),
        (f"on-chip /\nall {reference}", [_ratio(t.on_chip_ratio) for t in totals]),
        ("paper", ["" if t.paper_ratio is None else f"{t.paper_ratio:.2f}" for t in totals]),
        ("cycles", ["-" if p.cycles is None else f"{p.cycles:,}" for p in found]),
        (f"time\n{time_unit}", times),
        ("PEs\nbusy", [percent(p.utilisation) for p in found]),
        ("with\nstalls", [percent(p.utilisation_with_stalls) for p in found]),
        (f"weights\n{weight_unit}", weights),
        (f"off chip\n{traffic_unit}", traffic),
        ("area\nmm2", ["" if t.area_mm2 is None else mm2(t.area_mm2) for t in totals]),
    ]  # fmt: skip
    optional = ("paper", "area\nmm2")
    columns = [(name, [c or "-" for c in cells] if name != "paper" else cells) for name, cells in columns
               if name not in optional or any(cells)]  # fmt: skip
    return text_table([name for name, _ in columns], [list(row) for row in zip(*(c for _, c in columns), strict=True)])


def network_lines(table: CostTable) -> list[str]:
    """A line on the cycles in which networks fill and drain, where there are any."""
    cycles = table.provenance.network_cycles if table.provenance else {}
    if not cycles:
        return []
    numbers = set(cycles.values())
    alike = len(numbers) == 1 and set(cycles) == set(table.candidates)
    shown = f"{max(numbers):,}" if alike else ", ".join(f"{n:,} under {name}" for name, n in cycles.items())
    return [f"Networks fill and drain in {shown} of the cycles of each layer that is mapped."]


def mm2(area: float) -> str:
    """An area in mm^2 with four digits."""
    return f"{area:.4g}"


def area_lines(table: CostTable, candidate: str | None = None) -> list[str]:
    """Lines with the area of every component on the chip, under a candidate (None: the reference), and what lacks."""
    if candidate is None:
        row = next((r for r in table.rows if (r["operator"], r["bits"]) == REFERENCE), table.rows[0])
        candidate = row["candidate"]
    return areas_text(areas_of(table, candidate), f"Area of the chip under {candidate}")


def areas_text(areas: Areas, name: str) -> list[str]:
    """Lines with the area of every component on the chip, and what lacks one; none where no area is known."""
    if not areas.known:
        return []
    parts = [f"{component} {mm2(area)}" for component, area in areas.mm2.items() if area is not None]
    total = f"; together {mm2(areas.total_mm2)}" if areas.total_mm2 is not None else ""
    lines = [f"{name}, mm2, all instances: {', '.join(parts)}{total}."]
    if areas.lacking:
        lines.append(f"The tables have no area of {', '.join(areas.lacking)}: the total is not known.")
    return lines


def leakage_lines(table: CostTable, totals: Sequence[Total]) -> list[str]:
    """A line on leakage of compute units that the energies leave out, where the tables have some."""
    about = table.provenance
    if about is None or not about.compute_leakage_pj:
        return []
    most = {
        t.candidate: leak * about.pes[t.candidate] * t.performance.cycles
        for t in totals
        if (leak := about.compute_leakage_pj.get(t.candidate)) and t.performance.cycles is not None
    }
    parts = [f"{name} {energy}" for name, energy in zip(most, uj(list(most.values())), strict=True)]
    shown = f", at most {', '.join(parts)} uJ with all PEs in all cycles," if parts else ""
    return [f"Leakage of compute units{shown} is not counted, as in Timeloop; --leakage all counts it."]


def idle_lines(table: CostTable) -> list[str]:
    """Lines that name layers of many cycles on few of the PEs, under the reference candidate."""
    row = next((r for r in table.rows if (r["operator"], r["bits"]) == REFERENCE), table.rows[0])
    idle = idle_layers(table, row["candidate"])
    if not idle:
        return []
    shown = idle[:_MOST_NAMED]
    working = [f"{layer.pes:.3g}" if layer.of else f"{layer.utilisation:.0%}" for layer in shown]
    named = [f"{layer.layer} {pes} ({layer.share:.0%})" for layer, pes in zip(shown, working, strict=True)]
    sizes = {layer.of for layer in shown}
    of = f"of the {sizes.pop()} PEs" if len(sizes) == 1 and None not in sizes else "PEs"
    more = f" and {len(idle) - len(named)} more" if len(idle) > len(named) else ""
    about = table.provenance
    slower = about is not None and about.objective == "energy" and not about.slack
    hint = ["These mappings need least energy; --slack 5% or --objective edp looks for faster ones."] if slower else []
    first = f"Few {of} work under {row['candidate']} (and share of the cycles): {', '.join(named)}{more}."
    return [first, *hint]


def scaled(values: Sequence[float | None], units: Sequence[tuple[str, float]]) -> tuple[str, list[str]]:
    """Values in the largest unit in which the largest of them is at least 1, three digits of each at least.

    Args:
        units: names and sizes, the largest first.

    Example:
        >>> scaled([726048, 90756, None], (("MiB", 2**20), ("KiB", 2**10), ("B", 1)))
        ('KiB', ['709.0', '88.6', '-'])
    """
    known = [value for value in values if value is not None]
    largest = max(known, default=0.0)
    name, size = next((u for u in units if largest >= u[1]), units[-1])
    return name, ["-" if value is None else _digits(value / size, largest / size) for value in values]


def _digits(value: float, largest: float) -> str:
    """A value with the decimals that give the largest four digits, and itself three."""
    decimals = max(3 - _exponent(largest), 2 - _exponent(value), 0)
    return f"{value:,.{decimals}f}"


def _exponent(value: float) -> int:
    return math.floor(math.log10(value)) if value else 3


def percent(share: float | None) -> str:
    """A share as text with a decimal; - where it is not known."""
    return "-" if share is None else f"{share:.1%}"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"
