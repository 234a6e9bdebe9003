"""Areas of an accelerator's components, from tables of areas; what no table has is not guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dse.hardware.energy.components import ComponentLibrary
from dse.hardware.spec import Compute, Spec, Storage

_UM2 = 1e-6  # mm^2


@dataclass(frozen=True)
class Areas:
    """Area in mm^2 of every component on the chip, all its instances together; None where no table has it."""

    mm2: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether there is the area of any component."""
        return any(area is not None for area in self.mm2.values())

    @property
    def lacking(self) -> tuple[str, ...]:
        """Names of the components without an area."""
        return tuple(name for name, area in self.mm2.items() if area is None)

    @property
    def total_mm2(self) -> float | None:
        """The sum of all components; None if one of them has no area.

        Example:
            >>> Areas({"buffer": 0.5, "mac": 0.25}).total_mm2, Areas({"buffer": 0.5, "mac": None}).total_mm2
            (0.75, None)
        """
        known = [area for area in self.mm2.values() if area is not None]
        return sum(known) if known and len(known) == len(self.mm2) else None


def areas_of(spec: Spec, library: ComponentLibrary, where: object) -> Areas:
    """Areas of a specification's memories on the chip and of its compute units, outermost first.

    An area reference table of the library answers before its tables. Memories off the chip are left out, as are
    networks and control, which have no component.

    Args:
        where: the specification's file, for errors.

    Raises:
        InputError: a class whose attributes cannot be evaluated.

    Example:
        >>> from dataclasses import replace
        >>> from dse.hardware.spec import LoopConstraint
        >>> memory = Storage("buffer", "SRAM", {}, 8, 1, 512, {}, LoopConstraint())
        >>> library = replace(ComponentLibrary.shipped(), areas_of={"buffer": 5000.0})
        >>> areas_of(Spec((memory,), Compute("mac", "aladdin_adder", {})), library, "mine.yaml").mm2
        {'buffer': 0.005, 'mac': None}
    """
    copies = {**spec.instances, spec.compute.name: spec.pe_count}
    components: list[Storage | Compute] = [*(s for s in spec.storages if not s.off_chip), spec.compute]
    found: dict[str, float | None] = {}
    for component in components:
        area = library.areas_of.get(component.name)
        # Where an ERT gives the energies of a component, its class need not have a table.
        if area is None and library.actions(component.component) is not None:
            area = library.area(component.component, component.attributes, f"{where}: {component.name}")
        found[component.name] = None if area is None else area * copies[component.name] * _UM2
    return Areas(found)
