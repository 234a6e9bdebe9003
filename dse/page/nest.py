"""Loop nests of a cost table's `mapping` column, read back from the line that `dse.model.mapping.loop_nest` writes."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LEVEL = re.compile(r"(?P<name>.+?)\[(?P<loops>[^\[\]]*)\]")
_LOOP = re.compile(r"([A-Za-z]+)(\d+)(?:,(\d+))?")
_AXIS = re.compile(r"([xy]): ")


@dataclass(frozen=True)
class Loop:
    """One loop; `axis` is ``x`` or ``y`` for a loop over instances, `last` the iterations of a shorter last run."""

    dimension: str
    bound: int
    axis: str = ""
    last: int | None = None


@dataclass(frozen=True)
class NestLevel:
    """A level of the hardware with its loops, outermost first."""

    name: str
    loops: tuple[Loop, ...]


def parse_nest(text: str) -> tuple[NestLevel, ...] | None:
    """The levels that have loops, outermost first; None if the text is not a loop nest."""
    levels = []
    for part in text.split(" | "):
        match = _LEVEL.fullmatch(part)
        loops = _loops(match["loops"]) if match else None
        if match is None or loops is None:
            return None
        levels.append(NestLevel(match["name"], loops))
    return tuple(level for level in levels if level.loops)


def _loops(text: str) -> tuple[Loop, ...] | None:
    loops = []
    for group in text.split(", "):
        axis = _AXIS.match(group)
        for item in group[axis.end() if axis else 0 :].split():
            match = _LOOP.fullmatch(item)
            if match is None:
                return None
            loops.append(Loop(match[1], int(match[2]), axis[1] if axis else "", int(match[3]) if match[3] else None))
    return tuple(loops)
