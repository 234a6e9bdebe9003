"""How energy, leakage and area of a published component follow its attributes: the rules of Accelergy's Library.

Energies and areas between technology nodes follow Stillmaker and Baas, "Scaling equations for the accurate prediction
of CMOS device performance from 180 nm to 7 nm" (Integration 58, 2017); the tables below are theirs, at 0.8 V.
"""

from __future__ import annotations

import math
from collections.abc import Callable

ENERGY, LEAK, AREA = "energy", "leak", "area"

_NODES = (130, 90, 65, 45, 32, 20, 16, 14, 10, 7)  # nm
_VOLTAGE = 0.8
_AREA = (
    (1, 0.44, 0.23, 0.16, 0.072, 0.033, 0.03, 0.027, 0.016, 0.0092),
    (2.3, 1, 0.53, 0.35, 0.16, 0.075, 0.067, 0.061, 0.036, 0.021),
    (4.3, 1.9, 1, 0.66, 0.31, 0.14, 0.13, 0.12, 0.068, 0.039),
    (6.4, 2.8, 1.5, 1, 0.46, 0.21, 0.19, 0.17, 0.1, 0.059),
    (14, 6.1, 3.3, 2.2, 1, 0.46, 0.41, 0.38, 0.22, 0.13),
    (30, 13, 7.1, 4.7, 2.2, 1, 0.89, 0.82, 0.48, 0.28),
    (34, 15, 7.9, 5.3, 2.4, 1.1, 1, 0.91, 0.54, 0.31),
    (37, 16, 8.7, 5.8, 2.7, 1.2, 1.1, 1, 0.59, 0.34),
    (63, 28, 15, 9.8, 4.5, 2.1, 1.9, 1.7, 1, 0.58),
    (110, 48, 25, 17, 7.8, 3.6, 3.2, 2.9, 1.7, 1),
)
"""`_AREA[i][j]`: area at node j over that at node i."""
_ENERGY = (
    (7.171, -6.709, 2.904), (4.762, -4.781, 2.092), (3.755, -4.398, 1.975), (1.103, -0.362, 0.2767),
    (0.9559, -0.7823, 0.471), (0.373, -0.1582, 0.04104), (0.2958, -0.1241, 0.03024), (0.2363, -0.09675, 0.02239),
    (0.2068, -0.09311, 0.02375), (0.1776, -0.09097, 0.02447),
)  # fmt: skip
"""Coefficients of the energy at each node as a polynomial of the voltage, the square first."""

_WIDTHS = ("width", "datawidth", "width_a", "width_b", "datawidth_a", "datawidth_b")
_INPUTS = ("average_input_value", "average_weight_value", "average_output_value")
_COUNTS = ("rows", "cols", "columns")
_NOTHING = ("area_scale", "energy_scale", "n_instances", "no_scale_area", "no_scale_energy", "global_cycle_seconds")
_DEPTH_POWER = 1.56 / 2  # CACTI


def scale(attribute: str, from_: float, to: float, quantity: str) -> float | None:
    """What energy, leakage or area is multiplied by when an attribute changes; None if no rule has this attribute.

    Args:
        quantity: ``energy``, ``leak`` or ``area``.

    Example:
        >>> scale("width", 32, 8, "energy"), scale("resolution", 8, 10, "area"), scale("type", 4, 2, "energy")
        (0.25, 4, None)
        >>> round(scale("technology", 65, 45, "energy"), 4)  # a fall from 65 nm to 45 nm
        0.806
    """
    name = attribute.lower()
    if quantity == LEAK and name in ("voltage", "global_cycle_seconds"):
        return 1.0 if name == "voltage" else to / from_
    rules = _area_rules() if quantity == AREA else _energy_rules()
    rule = rules.get(name)
    if rule is None:
        return None
    found = rule(from_, to)
    return found if isinstance(found, (int, float)) and math.isfinite(found) else None


Rule = Callable[[float, float], float]


def _ratio(from_: float, to: float) -> float:
    return to / from_


def _constant(from_: float, to: float) -> float:
    return 1.0


def _levels(from_: float, to: float) -> float:
    return 2 ** (to - from_)


def _energy_rules() -> dict[str, Rule]:
    return {
        **dict.fromkeys((*_WIDTHS, *_INPUTS, "n_steps"), _ratio),
        **dict.fromkeys((*_COUNTS, *_NOTHING), _constant),
        "depth": lambda from_, to: (to / from_) ** _DEPTH_POWER,
        "technology": _technology_energy,
        "resolution": _levels,
        "voltage": lambda from_, to: (to / from_) ** 2,
    }


def _area_rules() -> dict[str, Rule]:
    return {
        **dict.fromkeys((*_WIDTHS, *_COUNTS, "depth"), _ratio),
        **dict.fromkeys((*_INPUTS, *_NOTHING, "voltage"), _constant),
        "technology": _technology_area,
        "resolution": _levels,
    }


def _technology_area(from_: float, to: float) -> float:
    (x, beyond_x), (y, beyond_y) = _position(from_), _position(to)
    corners = ((i, j, wi * wj) for i, wi in _around(x) for j, wj in _around(y))
    return beyond_y / beyond_x * sum(weight * _AREA[i][j] for i, j, weight in corners)


def _technology_energy(from_: float, to: float) -> float:
    # Below 1 nm energies are assumed to stay.
    (x, beyond_x), (y, beyond_y) = _position(max(from_, 1)), _position(max(to, 1))
    return math.sqrt(beyond_y / beyond_x) * _polynomial(y) / _polynomial(x)


def _polynomial(position: float) -> float:
    """The energy at a position among the nodes, in units that cancel."""
    return sum(
        weight * sum(c * _VOLTAGE ** (2 - power) for power, c in enumerate(_ENERGY[i]))
        for i, weight in _around(position)
    )


def _position(node: float) -> tuple[float, float]:
    """The place of a node in `_NODES`, between two of them a fraction; and how far it lies outside, as a ratio.

    The fraction grows towards the larger node, as it does in Accelergy's Library, so that 22 nm, between 32 and 20, is
    taken closer to 32: energies are to be those that Accelergy gives.
    """
    inside = min(max(node, _NODES[-1]), _NODES[0])
    larger = max(i for i, n in enumerate(_NODES) if n >= inside)
    smaller = min(i for i, n in enumerate(_NODES) if n <= inside)
    if larger == smaller:
        return float(larger), node / inside
    return larger + (inside - _NODES[smaller]) / (_NODES[larger] - _NODES[smaller]), node / inside


def _around(position: float) -> tuple[tuple[int, float], ...]:
    """The two nodes around a position, and their weights."""
    share = position % 1
    return (math.floor(position), 1 - share), (math.ceil(position), share)
