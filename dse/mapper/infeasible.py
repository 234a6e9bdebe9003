"""Why a layer has no mapping on a specification: the level or fan-out that refuses, and by how much."""

from __future__ import annotations

from dse.problem import Problem
from dse.spec import Fanout, LoopConstraint, Spec, Storage


def explain(spec: Spec, problem: Problem) -> str:
    """One line for a mapspace that is empty: capacity first, then factors that cannot multiply up to the problem."""
    for storage in spec.storages:
        kept = [t.name for t in problem.data_spaces if storage.keep.get(t.name)]
        least = sum(_least_tile(spec, problem, storage, name) for name in kept)
        if storage.capacity is not None and least > storage.capacity:
            return (
                f"{storage.name} holds {storage.capacity} words, the smallest tiles of {', '.join(kept)} that the "
                f"constraints allow need {least}"
            )
    for d, bound in problem.bound.items():
        fixed = 1
        open_levels = 0
        for level in spec.levels:
            constraint = level.spatial if isinstance(level, Fanout) else level.temporal
            if d in constraint.factors:
                fixed *= constraint.factors[d]
            else:
                open_levels += 1
        if bound % fixed or (open_levels == 0 and fixed != bound):
            return f"the factors that constraints fix for {d} multiply to {fixed}, which does not divide into {bound}"
    for level in spec.levels:
        if isinstance(level, Fanout):
            needed = 1
            for n in level.spatial.factors.values():
                needed *= n
            if needed > level.mesh_x * level.mesh_y:
                return f"{level.name} has {level.mesh_x} x {level.mesh_y} instances, its constraints need {needed}"
    return "capacities, fan-outs and constraints together leave no mapping; loosen a factor constraint or a size"


def _least_tile(spec: Spec, problem: Problem, storage: Storage, tensor: str) -> int:
    """Words of the smallest tile of a tensor at a level: factors that no level outside can take stay inside."""
    outside = spec.levels[: spec.levels.index(storage)]
    inside: dict[str, int] = {}
    for d, bound in problem.bound.items():
        inside[d] = bound
        for level in outside:
            constraint: LoopConstraint = level.spatial if isinstance(level, Fanout) else level.temporal
            room = level.mesh_x * level.mesh_y if isinstance(level, Fanout) else bound
            most = constraint.factors.get(d, min(room, constraint.at_most.get(d, bound)))
            inside[d] = max(1, -(-inside[d] // most))
    words = 1
    for axis in problem.data_space(tensor).axes:
        words *= 1 + sum(abs(c) * (inside[d] - 1) for d, c in axis)
    return words
