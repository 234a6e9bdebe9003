"""Mappings: loop factors and orders of every level, and Timeloop's YAML form of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dse.core import fields
from dse.core.errors import InputError
from dse.hardware.spec import Fanout, Spec, Storage
from dse.workload.problem import Problem

_KINDS = {name: name for name in ("temporal", "spatial", "datatype")} | dict.fromkeys(
    ("bypass", "dataspace"), "datatype"
)
_FACTOR = re.compile(r"([A-Za-z]+)=?(\d{1,15})(?:,(\d{1,15}))?")
_DIRECTIVE_FIELDS = {
    "temporal": ("target", "type", "factors", "permutation"),
    "spatial": ("target", "type", "factors", "permutation", "split"),
    "datatype": ("target", "type", "keep", "bypass"),
}

Loops = tuple[tuple[str, int], ...]  # (dimension, factor), innermost first, factors above 1 only


@dataclass(frozen=True)
class Mapping:
    """Where every loop of a problem runs.

    `temporal[storage]`, `x[fanout]` and `y[fanout]` hold the non-trivial loops of a level, innermost first; `keep`
    holds the tensors each storage keeps. `remainders[level, dimension]` is given for imperfect loops only: the
    iterations of their last run, fewer than the factor (Timeloop's residual).
    """

    temporal: MappingType[str, Loops] = field(hash=False)
    x: MappingType[str, Loops] = field(hash=False)
    y: MappingType[str, Loops] = field(hash=False)
    keep: MappingType[str, frozenset[str]] = field(hash=False)
    remainders: MappingType[tuple[str, str], int] = field(default_factory=dict, hash=False)

    def loops(self, level: Storage | Fanout) -> Loops:
        """All loops of a level, innermost first."""
        return self.x[level.name] + self.y[level.name] if isinstance(level, Fanout) else self.temporal[level.name]

    def covered(self, spec: Spec, dimension: str) -> int:
        """Indices of a dimension that all its loops cover; equals its bound in a complete mapping."""
        covered = 1
        for level in spec.levels:
            for d, n in self.loops(level):
                if d == dimension:
                    covered = (covered - 1) * n + self.remainders.get((level.name, d), n)
        return covered


def directives(spec: Spec, problem: Problem, mapping: Mapping) -> list[dict[str, Any]]:
    """The mapping as Timeloop's directives, the form `timeloop-model` and `enos model` read."""
    out: list[dict[str, Any]] = []
    for level in spec.levels:
        if isinstance(level, Fanout):
            bypass = [t.name for t in problem.data_spaces]
            out.append({"target": level.name, "type": "datatype", "keep": [], "bypass": bypass})
        else:
            kept = [t.name for t in problem.data_spaces if t.name in mapping.keep[level.name]]
            bypass = [t.name for t in problem.data_spaces if t.name not in kept]
            out.append({"target": level.name, "type": "datatype", "keep": kept, "bypass": bypass})
    for level in reversed(spec.levels):
        last = {d: n for (name, d), n in mapping.remainders.items() if name == level.name}
        if isinstance(level, Fanout):
            x, y = mapping.x[level.name], mapping.y[level.name]
            # Loops of factor 1 follow the others of their axis; `split` counts the loops that lie on X.
            trivial_on_x = not y
            factors, order = _directive_loops(problem, last, x, y)
            split = len(problem.dimensions) if trivial_on_x and level.mesh_y == 1 else len(x)
            out.append(
                {"target": level.name, "type": "spatial", "factors": factors, "permutation": order, "split": split}
            )
            factors, order = _directive_loops(problem, {})
        else:
            factors, order = _directive_loops(problem, last, mapping.temporal[level.name])
        out.append({"target": level.name, "type": "temporal", "factors": factors, "permutation": order})
    return out


def _directive_loops(problem: Problem, last: MappingType[str, int], *parts: Loops) -> tuple[str, str]:
    """`factors` and `permutation` of a directive; `last` are the remainders of its loops."""
    loops = [loop for part in parts for loop in part]
    factor: dict[str, int] = {}
    for d, n in loops:
        factor[d] = factor.get(d, 1) * n
    order = list(dict.fromkeys([d for d, _ in loops] + list(problem.dimensions)))
    factors = {d: f"{factor.get(d, 1)},{last[d]}" if d in last else f"{factor.get(d, 1)}" for d in problem.dimensions}
    return " ".join(f"{d}{n}" for d, n in factors.items()), "".join(order)


def parse_directives(spec: Spec, problem: Problem, entries: Any, where: object) -> Mapping:
    """Reads Timeloop mapping directives.

    A tensor that no directive mentions is kept where the specification does not bypass it, as in `timeloop-model`.

    Raises:
        InputError: an unknown target, field or dimension; factors that do not multiply up to the problem; a
            remainder that no loop further out makes possible; a fan-out or split that the hardware does not have.
    """
    if isinstance(entries, dict) and "mapping" in entries:
        entries = fields.mapping(entries, where, ("mapping",))["mapping"]
    if not isinstance(entries, list):
        raise InputError(where, "not a mapping", "a list of directives under `mapping`")
    storages = {s.name: s for s in spec.storages}
    fanouts = {f.name: f for f in spec.levels if isinstance(f, Fanout)}
    temporal: dict[str, Loops] = dict.fromkeys(storages, ())
    x: dict[str, Loops] = dict.fromkeys(fanouts, ())
    y: dict[str, Loops] = dict.fromkeys(fanouts, ())
    remainders: dict[str, dict[str, int]] = {}
    keep = {s.name: {t.name for t in problem.data_spaces if s.keep.get(t.name, True)} for s in spec.storages}
    seen: set[tuple[str, str]] = set()
    for i, entry in enumerate(entries):
        here = f"{where}: mapping[{i}]"
        kind, target = _directive(entry, [*storages, *fanouts], here)
        if (kind, target) in seen:
            raise InputError(here, f"a second {kind} directive for {target}", "one for each level")
        seen.add((kind, target))
        if kind == "datatype":
            _set_keep(keep.get(target), entry, problem, here)
        elif kind == "temporal":
            loops, _, last_runs = _loops(entry, problem, here)
            if target in fanouts and loops:
                raise InputError(f"{here}.factors", f"{target} is a fan-out", "temporal loops at a storage level")
            if target in storages:
                temporal[target], remainders[target] = loops, last_runs
        else:
            loops, order, last_runs = _loops(entry, problem, here)
            split = fields.integer(entry.get("split", len(order)), f"{here}.split", least=0)
            if target not in fanouts:
                if loops:
                    raise InputError(f"{here}.target", f"{target} has no fan-out", list(fanouts))
                continue
            remainders[target] = last_runs
            x[target] = tuple((d, n) for d, n in loops if order.index(d) < split)
            y[target] = tuple((d, n) for d, n in loops if order.index(d) >= split)
            _check_mesh(fanouts[target], x[target], y[target], here)
    last = {(target, d): n for target, of in remainders.items() for d, n in of.items()}
    mapping = Mapping(temporal, x, y, {name: frozenset(k) for name, k in keep.items()}, last)
    _check_covered(spec, problem, mapping, where)
    return mapping


def _directive(entry: Any, levels: list[str], where: str) -> tuple[str, str]:
    """What a directive is about, and its level; its fields are those of its kind."""
    fields.mapping(entry, where, required=("target", "type"))
    kind = _KINDS.get(fields.text(entry["type"], f"{where}.type"))
    if kind is None:
        fields.one_of(entry["type"], f"{where}.type", tuple(_KINDS), "type")
    fields.only(entry, _DIRECTIVE_FIELDS[kind or ""], where)
    target = fields.name(entry["target"], f"{where}.target").rsplit(".", 1)[-1].split("[")[0]
    fields.only((target,), levels, f"{where}.target", "level")
    return kind or "", target


def _check_covered(spec: Spec, problem: Problem, mapping: Mapping, where: object) -> None:
    """Refuses a mapping that keeps a tensor nowhere, or whose factors do not make up a dimension."""
    for tensor in problem.data_spaces:
        if not any(tensor.name in kept for kept in mapping.keep.values()):
            raise InputError(where, f"no memory keeps {tensor.name}", hint="keep it at one at least")
    for d, bound in problem.bound.items():
        covered = mapping.covered(spec, d)
        if covered != bound:
            kind = "cover" if any(dimension == d for _, dimension in mapping.remainders) else "multiply to"
            raise InputError(where, f"the factors of {d} {kind} {covered}", f"{bound}, its size")
        loops = ((level.name, n) for level in spec.levels for x, n in mapping.loops(level) if x == d)
        name, factor = next(loops, ("", 1))
        if (name, d) in mapping.remainders:
            last = mapping.remainders[name, d]
            raise InputError(
                where, f"{d}{factor},{last} at {name}: no loop of {d} further out has a last run",
                f"{d}{last}, or a remainder where {d} has a loop further out",
            )  # fmt: skip


def _set_keep(kept: set[str] | None, entry: MappingType[str, Any], problem: Problem, where: str) -> None:
    names = [t.name for t in problem.data_spaces]
    for key in ("keep", "bypass"):
        for tensor in fields.optional_sequence(entry.get(key), f"{where}.{key}", fields.text):
            fields.only((tensor,), names, f"{where}.{key}", "tensor")
            if kept is None:
                if key == "keep":
                    raise InputError(f"{where}.keep", "a fan-out stores nothing", hint="leave it to bypass")
            elif key == "keep":
                kept.add(tensor)
            else:
                kept.discard(tensor)


def _loops(entry: MappingType[str, Any], problem: Problem, where: str) -> tuple[Loops, list[str], dict[str, int]]:
    """Loops, innermost first; the order of all dimensions; remainders: ``P4,1`` is 4 iterations, 1 in the last run."""
    factors: dict[str, int] = {}
    remainders: dict[str, int] = {}
    given = entry.get("factors")
    items = fields.optional_sequence(_separated(given, r"\s+|,(?!\d)"), f"{where}.factors", fields.anything)
    for item in items:
        match = (
            re.fullmatch(r"([A-Za-z]+)=?(\d{1,15})(?:,(\d{1,15}))?", item.strip()) if isinstance(item, str) else None
        )
        if not match or match[1] not in problem.bound:
            raise InputError(f"{where}.factors", f"found {fields.shown(item)}", f"dimension and factor, such as "
                             f"{problem.dimensions[0]}2; dimensions: {', '.join(problem.dimensions)}")  # fmt: skip
        d = match[1]
        factor = int(match[2]) or problem.bound[d]  # 0 is all of the dimension
        last = int(match[3] or factor)
        if d in factors:
            raise InputError(f"{where}.factors", f"{d} is given twice")
        if not 1 <= last <= factor:
            raise InputError(f"{where}.factors", f"{item}: a last run of {last}", f"1 to {factor}, the factor")
        factors[d] = factor
        if last < factor:
            remainders[d] = last
    order = _order(entry.get("permutation"), problem, f"{where}.permutation")
    order += [d for d in problem.dimensions if d not in order]
    return tuple((d, factors[d]) for d in order if factors.get(d, 1) > 1), order, remainders


def _separated(value: Any, separators: str) -> Any:
    """Text cut at separators; anything else as it is."""
    return [part for part in re.split(separators, value) if part.strip()] if isinstance(value, str) else value


def _order(value: Any, problem: Problem, where: str) -> list[str]:
    """The dimensions of a permutation: a list, or text in which each letter is one."""
    letters = [c for c in value if c not in ", \t"] if isinstance(value, str) else value
    names = [n.strip() for n in fields.optional_sequence(letters, where, fields.text)]
    fields.only(names, problem.dimensions, where, "dimension")
    if len(set(names)) < len(names):
        raise InputError(where, f"a dimension is listed twice in {fields.shown(value)}")
    return names


def _check_mesh(fanout: Fanout, x: Loops, y: Loops, where: str) -> None:
    for axis, loops, size in (("X", x, fanout.mesh_x), ("Y", y, fanout.mesh_y)):
        used = math.prod(n for _, n in loops)
        if used > size:
            raise InputError(f"{where}.factors", f"{fanout.name} uses {used} instances on {axis}", f"at most {size}")


def loop_nest(spec: Spec, mapping: Mapping) -> str:
    """The mapping in one line, the outermost loop first; ``Q14,13`` is a loop whose last run has 13 iterations.

    Such as ``glb_ifmap[P2 C4] | inter_row_spatial[x: S3] | weights_spad[R3]``.
    """
    parts: list[str] = []

    def text(level: str, loops: Sequence[tuple[str, int]]) -> str:
        last = mapping.remainders
        return " ".join(f"{d}{n},{last[level, d]}" if (level, d) in last else f"{d}{n}" for d, n in reversed(loops))

    for level in spec.levels:
        name = level.name
        if isinstance(level, Fanout):
            axes = [f"{a}: {text(name, m[name])}" for a, m in (("x", mapping.x), ("y", mapping.y)) if m[name]]
            parts.append(f"{name}[{', '.join(axes)}]")
        elif mapping.temporal[name]:
            parts.append(f"{name}[{text(name, mapping.temporal[name])}]")
    return " | ".join(parts)
