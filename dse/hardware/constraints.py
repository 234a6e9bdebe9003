"""Constraints of a specification's nodes: their reader, and their meaning for one layer.

The meaning is that of Timeloop's v4 front end (`constraints.py`, `constraint_macro.py`, `permutation_optimizer.py` of
timeloop-python b8aaf2c) and of `src/mapping/constraints.cpp` of NVlabs/timeloop 4cf6d4c.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

from dse.core import fields
from dse.core.errors import InputError
from dse.hardware.spec import Fanout, LoopConstraint, Spec, Storage
from dse.workload.problem import Problem

_LOOPS = (
    "factors", "factors_only", "permutation", "default_max_factor", "default_min_factor",
    "no_iteration_over_dataspaces", "must_iterate_over_dataspaces", "maximize_dims", "maximize_dims_capacity",
)  # fmt: skip
_SUPPORTED: Mapping[str, tuple[str, ...]] = {
    "dataspace": ("keep", "bypass", "keep_only", "bypass_only", "no_coalesce"),
    "temporal": (*_LOOPS, "no_reuse", "rmw_first_update"),
    "spatial": (*_LOOPS, "split", "no_link_transfer", "no_reuse"),
    "max_overbooked_proportion": (),
}
# Constraints that are not modelled. Each is a list of tensors or dimensions; an empty list or null has no effect and is
# accepted.
_OFF: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "dataspace": {},
    "temporal": {"remainders": ()},
    "spatial": {"remainders": ()},
    "max_overbooked_proportion": {"proportion": ()},
}
_FACTOR = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=|=)\s*(\S.*?)\s*")
_WHOLE = re.compile(r"-?\d{1,15}")
_TEXTS = ("(", 'f"', "f'")  # how the expression of a whole factor starts: ("X=" + str(bits)), f"X={bits}"
_ALL = "*"  # every tensor

_log = logging.getLogger(__name__)

Evaluate = Callable[[Any, str], Any]
"""The value of an expression of a constraint. Arguments: the text, and where it stands."""


class ConstraintReader:
    """Reads constraints for problems with the dimensions and tensors of this one."""

    def __init__(self, problem: Problem) -> None:
        self._dimensions = problem.dimensions
        self._tensors = tuple(tensor.name for tensor in problem.data_spaces)
        self._dimensions_of = {
            tensor.name: {d for axis in tensor.axes for d, _ in axis} for tensor in problem.data_spaces
        }

    def groups(self, found: Any, where: str) -> dict[str, dict[str, Any]]:
        """The constraints of a node: `dataspace`, `temporal` and `spatial`, each a mapping, empty if not given.

        Raises:
            InputError: a constraint is unknown, or is not modelled and has an effect.
        """
        groups = fields.optional_mapping(found, where, tuple(_SUPPORTED))
        return {kind: self._group(kind, groups.get(kind), f"{where}.{kind}") for kind in _SUPPORTED}

    def _group(self, kind: str, found: Any, where: str) -> dict[str, Any]:
        off = _OFF[kind]
        group = fields.optional_mapping(found, where, (*_SUPPORTED[kind], *off))
        for key, values in off.items():
            if group.get(key) is not None and group[key] not in values:
                raise InputError(f"{where}.{key}", f"found {fields.shown(group[key])}, which is not supported",
                                 _SUPPORTED[kind] or "leave it out")  # fmt: skip
        return {key: value for key, value in group.items() if key not in off and value is not None}

    def keep(self, group: Mapping[str, Any], where: str) -> dict[str, bool]:
        """Which tensors are kept (True) and bypassed (False); a tensor that is not named is open to the mapper."""
        lists = {
            key: self.tensors(group[key], f"{where}.{key}")
            for key in ("keep", "bypass", "keep_only", "bypass_only")
            if group.get(key) is not None
        }
        found: dict[str, bool] = {}
        for key, named in lists.items():
            others = [t for t in self._tensors if t not in named] if key.endswith("_only") else []
            kept, bypassed = (named, others) if key.startswith("keep") else (others, named)
            for tensor, keeps in [*((t, True) for t in kept), *((t, False) for t in bypassed)]:
                if found.setdefault(tensor, keeps) is not keeps:
                    raise InputError(where, f"{tensor} is both kept and bypassed")
        return found

    def tensors(self, found: Any, where: str) -> list[str]:
        """A list of tensors; ``*`` means all."""
        names = fields.optional_sequence(found, where, fields.text)
        for tensor in names:
            if tensor != _ALL:
                fields.only((tensor,), self._tensors, where, "tensor")
        return list(self._tensors) if _ALL in names else names

    def loops(self, group: Mapping[str, Any], where: str, evaluate: Evaluate, turn: int = 0) -> LoopConstraint:
        """The constraints of a `temporal` or `spatial` group on the loops of a level.

        Args:
            evaluate: gives the value of factors, `split` and `maximize_dims_capacity` that are expressions.
            turn: the leaf's place in the order in which `maximize_dims` are read, the last first.
        """
        bounds: dict[str, dict[str, int]] = {"=": {}, "<=": {}, ">=": {}}
        ones: list[str] = []  # dimensions that the front end treats as loops of one iteration

        def only_one(dimensions: Iterable[str], key: str) -> None:
            for d in dimensions:
                _add(bounds, d, "=", 1, f"{where}.{key}")
                ones.extend([] if d in ones else [d])

        for key in ("factors", "factors_only"):
            for text in _items(group.get(key), f"{where}.{key}"):
                dimension, relation, value = self._factor(text, f"{where}.{key}", evaluate)
                _add(bounds, dimension, relation, value, f"{where}.{key}")
                ones += [dimension] if value == 1 else []
        if "factors_only" in group:
            only_one([d for d in self._dimensions if not any(d in named for named in bounds.values())], "factors_only")
        for key, moves in (("no_iteration_over_dataspaces", True), ("must_iterate_over_dataspaces", False)):
            if key in group:
                named = self.tensors(group[key], f"{where}.{key}")
                moving = set().union(*(self._dimensions_of[tensor] for tensor in named))
                only_one([d for d in self._dimensions if (d in moving) is moves], key)
        for key, relation in (("default_max_factor", "<="), ("default_min_factor", ">=")):
            if key in group:
                value = fields.integer(group[key], f"{where}.{key}")
                for d in self._dimensions:
                    if d not in bounds["="]:
                        bounds[relation].setdefault(d, value)
        maximize, capacity = self._maximized(group, bounds, where, evaluate)
        exact = {d: n for d, n in bounds["="].items() if n != -1}  # -1: the remaining factor
        inner, outer = self._permutation(group.get("permutation"), f"{where}.permutation")
        inner = _first(ones, inner, outer)
        split = None
        if "split" in group:
            split = fields.integer(evaluate(group["split"], f"{where}.split"), f"{where}.split", least=0)
        return LoopConstraint(
            exact, bounds["<="], bounds[">="], inner, outer, split, maximize, capacity, turn if maximize else 0
        )

    def _maximized(
        self, group: Mapping[str, Any], bounds: Mapping[str, Mapping[str, int]], where: str, evaluate: Evaluate
    ) -> tuple[tuple[tuple[str, ...], ...], int | None]:
        """The groups of dimensions of `maximize_dims`, and the capacity that they share; None: that of the fan-out."""
        where_capacity = f"{where}.maximize_dims_capacity"
        capacity = group.get("maximize_dims_capacity")
        if capacity is not None:
            capacity = fields.integer(_whole(evaluate(capacity, where_capacity)), where_capacity)
        found = fields.optional_sequence(group.get("maximize_dims"), f"{where}.maximize_dims", fields.anything)
        if not found:
            return (), capacity
        if capacity is None and where.endswith("temporal"):
            raise InputError(where, "maximize_dims of temporal loops lacks its maximize_dims_capacity", "an integer")
        lists = found if all(isinstance(item, list) for item in found) else [found]
        maximize = tuple(tuple(fields.sequence(one, f"{where}.maximize_dims", fields.name)) for one in lists)
        named = [d for one in maximize for d in one]
        fields.only(named, self._dimensions, f"{where}.maximize_dims", "dimension")
        for d in named:
            if named.count(d) > 1 or any(d in given for given in bounds.values()):
                raise InputError(f"{where}.maximize_dims", f"{d} has a factor already", "each dimension once")
        return maximize, capacity

    def _factor(self, item: Any, where: str, evaluate: Evaluate) -> tuple[str, str, int]:
        text = item
        if isinstance(item, str) and item.strip().startswith(_TEXTS):
            text = evaluate(item.strip(), where)
        match = _FACTOR.fullmatch(text) if isinstance(text, str) else None
        digits = match is not None and match[3].lstrip("-").isdecimal()
        if not match or match[1] not in self._dimensions or (digits and not _WHOLE.fullmatch(match[3])):
            raise InputError(where, f"found {fields.shown(item)}", f"X=n, X<=n or X>=n with a dimension of "
                             f"{', '.join(self._dimensions)}")  # fmt: skip
        value = int(match[3]) if digits else _whole(evaluate(match[3], where))
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(where, f"found {fields.shown(item)}", "a whole number as factor, or an expression of one")
        if value < 1 and not (match[2] == "=" and value in (0, -1)):
            raise InputError(
                where, f"found {item!r}", "a factor of at least 1; with = also 0 for all of it, -1 for the rest"
            )
        return match[1], match[2], value

    def _permutation(self, found: Any, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if isinstance(found, str):
            found = [s for s in (found.split(",") if "," in found else found) if s.strip()]
        names = [name.strip() for name in fields.optional_sequence(found, where, fields.text)]
        cut = names.index("_") if "_" in names else len(names)
        inner, outer = names[:cut], names[cut + 1 :]
        fields.only((*inner, *outer), self._dimensions, where, "dimension")
        if len(set(inner + outer)) < len(inner + outer):
            raise InputError(where, f"a dimension is listed twice in {fields.shown(names)}")
        return tuple(inner), tuple(outer)


def for_layer(spec: Spec, problem: Problem) -> Spec:
    """The specification with the constraints that Timeloop's mapper sees for this layer.

    - A factor of 0 means the whole dimension. A factor above the dimension's size is ignored. A factor above the part
      that inner factors leave is reduced to this part. Both cases give a warning.
    - Dimensions of size 1 that a permutation does not name are innermost, so `split` counts them.
    - An array of one row or column whose permutation is open has its loops in the order of the dimensions if `split`
      is given.

    Example:
        >>> from dse.hardware.instance import read_arch, spec_for
        >>> from dse.workload.problem import conv_problem
        >>> problem = conv_problem({"C": 16, "M": 32, "R": 3, "S": 3})
        >>> spec = spec_for(read_arch(), problem, {"act_bits": 8, "weight_bits": 8, "psum_bits": 20})
        >>> [level.loops.inner for level in for_layer(spec, problem).levels if level.name == "glb_ifmap"]
        [('Q', 'P', 'G', 'N')]
    """
    spec = with_maximized(spec, problem)
    factors: dict[str, dict[str, int]] = {level.name: {} for level in spec.levels}
    for d in problem.dimensions:
        for name, factor in _exact_factors(spec, d, problem.bound[d]):
            factors[name][d] = factor
    levels = tuple(_level_for(level, problem, factors[level.name]) for level in spec.levels)
    return replace(spec, levels=levels)


def with_maximized(spec: Spec, problem: Problem) -> Spec:
    """The specification with the factors that `maximize_dims` gives: fan-outs first, then memories.

    Example:
        >>> from dataclasses import replace
        >>> from dse.hardware.instance import read_arch, spec_for
        >>> from dse.workload.problem import conv_problem
        >>> problem = conv_problem({"C": 16, "M": 32})
        >>> spec = spec_for(read_arch(), problem, {"act_bits": 8, "weight_bits": 8, "psum_bits": 20})
        >>> dram = replace(spec.levels[0], temporal=LoopConstraint(maximize=(("C", "M"),), maximize_capacity=100))
        >>> with_maximized(replace(spec, levels=(dram, *spec.levels[1:])), problem).levels[0].loops.factors
        {'C': 16, 'M': 6}
    """
    if not any(level.loops.maximize for level in spec.levels):
        return spec
    left = dict(problem.bound)
    for level in spec.levels:
        for d, factor in level.loops.factors.items():
            left[d] = -(-left[d] // (factor or problem.bound[d]))
    levels: dict[str, Storage | Fanout] = {level.name: level for level in spec.levels}
    in_turn = sorted(spec.levels, key=lambda x: (isinstance(x, Fanout), x.loops.maximize_turn), reverse=True)
    for level in in_turn:
        constraint = level.loops
        if not constraint.maximize:
            continue
        factors = dict(constraint.factors)
        most = constraint.maximize_capacity
        if most is None:
            most = level.mesh_x * level.mesh_y if isinstance(level, Fanout) else 1
        for named in constraint.maximize:
            capacity = most
            for d, factor in (*factors.items(), *constraint.at_least.items()):
                capacity //= factor or problem.bound[d]
            for d, factor in largest_share({d: left[d] for d in named}, capacity).items():
                factors[d] = factor
                left[d] = -(-left[d] // factor)
        ones = [d for named in constraint.maximize for d in named if factors[d] == 1]
        inner = _first(ones, constraint.inner, constraint.outer)
        changed = replace(
            constraint, factors=factors, inner=inner, maximize=(), maximize_capacity=None, maximize_turn=0
        )
        new = replace(level, spatial=changed) if isinstance(level, Fanout) else replace(level, temporal=changed)
        levels[level.name] = new
    return replace(spec, levels=tuple(levels[level.name] for level in spec.levels))


def largest_share(sizes: Mapping[str, int], capacity: int) -> dict[str, int]:
    """Factors of dimensions whose product is as large as the capacity allows, as the front end chooses them.

    It takes prime factors of the dimensions, or as the last factor an equal part of a dimension that is larger than
    the capacity left, with a remainder; of equal utilisations the first that it comes to (`greedy_allocate` in
    ``constraint_macro.py``).

    Example:
        >>> largest_share({"C": 64, "R": 3}, 100)
        {'C': 32, 'R': 3}
        >>> largest_share({"C": 100}, 64)  # 2 x 2 x 13, with a remainder
        {'C': 52}
    """

    @cache
    def best(left: tuple[int, ...], capacity: int) -> tuple[float, tuple[tuple[int, int], ...]]:
        utilisation = 1.0
        taken: tuple[tuple[int, int], ...] = ()
        if capacity <= 1:
            return utilisation, taken
        for i, size in enumerate(left):
            if size > capacity:
                steps = -(-size // capacity)
                share = -(-size // steps)
                used = (share * (steps - 1) + size % share) / steps
                if used > utilisation:
                    utilisation, taken = used, ((i, share),)
            for prime in set(_primes(size)):
                if prime <= capacity:
                    inner, more = best((*left[:i], size // prime, *left[i + 1 :]), capacity // prime)
                    if inner * prime > utilisation:
                        utilisation, taken = inner * prime, ((i, prime), *more)
        return utilisation, taken

    names = list(sizes)
    factors = dict.fromkeys(names, 1)
    for i, factor in best(tuple(sizes.values()), capacity)[1]:
        factors[names[i]] *= factor
    return factors


def _primes(size: int) -> list[int]:
    found, prime = [], 2
    while prime * prime <= size:
        while size % prime == 0:
            found.append(prime)
            size //= prime
        prime += 1
    return [*found, size] if size > 1 else found


def _whole(value: Any) -> Any:
    """A number without a fraction as an integer; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _exact_factors(spec: Spec, dimension: str, size: int) -> Iterator[tuple[str, int]]:
    """(level, factor) of the exact factors of a dimension, innermost first."""
    rest = size
    for level in reversed(spec.levels):
        if dimension not in level.loops.factors:
            continue
        given = level.loops.factors[dimension] or size
        constraint = f"{level.name}: the constraint {dimension}={given} exceeds"
        if given > size:
            _warn(f"{constraint} the size of {dimension}, {size}: it is ignored")
            continue
        factor = min(given, rest)
        if factor < given:
            _warn(f"{constraint} the {rest} that factors further in leave of {dimension}, {size}: it is {rest}")
        yield level.name, factor
        rest = rest // factor if rest % factor == 0 else size  # no mapping has this factor; the mapper reports it


def searchable(spec: Spec, problem: Problem) -> Spec:
    """The specification with which the native mapper searches the mappings of a layer: see `for_layer`.

    Raises:
        InputError: the mapper's bounds do not hold: memories share a power gate, or a level limits what is reused in a
            way that they do not know. `enos model` supports these specifications.

    Example:
        >>> from dse.hardware.instance import read_arch, spec_for
        >>> from dse.workload.problem import conv_problem
        >>> problem = conv_problem({"C": 16, "M": 32})
        >>> spec = spec_for(read_arch(), problem, {"act_bits": 8, "weight_bits": 8, "psum_bits": 20})
        >>> searchable(spec, problem) == for_layer(spec, problem)  # no memories share a power gate
        True
    """
    for storage in spec.storages:
        if spec.gated_together(storage) > 1:
            problem_found = f"{storage.power_gate}: the native mapper does not support memories that share a power gate"
            raise InputError(
                f"{storage.name}.power_gated_at", problem_found, hint="use enos model, or --engine timeloop"
            )
    for tensor in problem.data_spaces:
        if all(s.keep.get(tensor.name) is False or tensor.name in s.no_coalesce for s in spec.storages):
            raise InputError("architecture", f"no level merges accesses to {tensor.name}, so Timeloop stops",
                             "a level that keeps it and is not no_coalesce")  # fmt: skip
    return for_layer(spec, problem)


def _level_for(level: Storage | Fanout, problem: Problem, factors: Mapping[str, int]) -> Storage | Fanout:
    ones = [d for d, bound in problem.bound.items() if bound == 1]
    inner = _first(ones, level.loops.inner, level.loops.outer)
    if isinstance(level, Storage):
        return replace(level, temporal=replace(level.temporal, factors=factors, inner=inner))
    one_axis = level.mesh_x == 1 or level.mesh_y == 1
    if one_axis and level.spatial.split is not None and not inner and not level.spatial.outer:
        inner = problem.dimensions
    return replace(level, spatial=replace(level.spatial, factors=factors, inner=inner))


def _first(ones: Sequence[str], inner: Sequence[str], outer: Sequence[str]) -> tuple[str, ...]:
    """A permutation's innermost loops, preceded by loops of one iteration that it does not name, in reverse order."""
    missing = dict.fromkeys(d for d in ones if d not in inner and d not in outer)
    return (*reversed(missing), *inner)


def _items(found: Any, where: str) -> list[Any]:
    """Factors as a list; text is split at commas and spaces."""
    if isinstance(found, str):
        return [text for text in re.split(r"[\s,]+", found.strip()) if text]
    return fields.optional_sequence(found, where, fields.anything)


def _add(bounds: dict[str, dict[str, int]], dimension: str, relation: str, value: int, where: str) -> None:
    """Records a factor. As in the front end, a second one is an error, except a lower and an upper limit together."""
    for other, named in bounds.items():
        same = named.get(dimension) == value
        limits = {other, relation} == {"<=", ">="}
        if dimension in named and not same and not limits:
            raise InputError(where, f"{dimension} is given twice: {dimension}{other}{named[dimension]} and "
                             f"{dimension}{relation}{value}")  # fmt: skip
    bounds[relation][dimension] = value


@lru_cache(maxsize=1024)
def _warn(text: str) -> None:
    """Logs each warning once."""
    _log.warning("%s", text)
