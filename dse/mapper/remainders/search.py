"""The best mapping, remainders included: that of perfect factors, unless one with remainders is better.

docs/imperfect.md defines the mapspace and proves the search.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping as MappingType
from dataclasses import replace

from dse.core.errors import InputError
from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Fanout, Spec, Storage
from dse.mapper import REMAINDERS, Found, branch_and_bound
from dse.mapper.kernels.labels import DELAY, ENERGY, ENERGY_DELAY, Aim
from dse.mapper.mapspace import keep_choices
from dse.mapper.remainders.chains import TooManyChainsError, Wanted
from dse.mapper.remainders.layer import Layer, UnsupportedError, layer_of, wanted_of
from dse.mapper.remainders.solve import MOST_NODES, Choice, Solver
from dse.mapper.remainders.tables import Tables
from dse.model.mapping import Loops, Mapping
from dse.model.physical import by_iterations, physical
from dse.workload.problem import Problem

LOG = logging.getLogger("enos.mapper")
TIE_NODES = 100_000  # of the search for the fastest of equal energy
MOST_TABLES = 4  # kept for the next candidates
_kept_tables: dict[object, Tables] = {}
EQUAL = 1e-9  # relative: values that differ by less are equal


def best(spec: Spec, problem: Problem, ert: Ert, objective: str, perfect: Found) -> Found:
    """The best mapping for an objective of `dse.mapper.OBJECTIVES`, given the best of perfect factors."""
    operations = float(problem.macs)
    if objective != "delay":
        kind = ENERGY if objective == "energy" else ENERGY_DELAY
        return improved(spec, problem, ert, Aim(kind, operations), perfect)
    fast = improved(spec, problem, ert, Aim(DELAY, operations), perfect)
    if fast.evaluation is None or fast.mapspace != REMAINDERS:
        return fast
    most = fast.evaluation.cycles
    within = (
        perfect if perfect.evaluation is not None and perfect.evaluation.cycles <= most else Found(None, None, True)
    )
    aim = Aim(ENERGY, operations, most_cycles=most - spec.network_latency + 0.5)
    cheap = improved(spec, problem, ert, aim, within)
    if cheap.evaluation is None:
        return replace(fast, optimal=False)
    return replace(cheap, optimal=cheap.optimal and fast.optimal)


def best_under(spec: Spec, problem: Problem, ert: Ert, aim: Aim, *, remainders: bool) -> Found:
    """The best mapping under an aim, among perfect factors or with remainders.

    Args:
        spec: the accelerator, as `dse.hardware.constraints.searchable` returns it.
        problem: the layer.
        ert: pJ for each component and action.
        aim: of any kind but `BOUND_DELAY`; its `most_cycles` are without those that networks add.
        remainders: looks among mappings with remainders, too; where nothing perfect fits an aim without limits, these
            are searched whatever is asked for.
    """
    perfect = branch_and_bound.best(spec, problem, ert, aim)
    limited = math.isfinite(aim.most_cycles) or math.isfinite(aim.most_energy)
    if not remainders and (limited or perfect.mapping is not None):
        return perfect
    found = improved(spec, problem, ert, aim, perfect)
    if perfect.mapping is None and limited and not perfect.optimal:  # perfect factors were not searched to the end
        return replace(found, optimal=False)
    return found


def improved(spec: Spec, problem: Problem, ert: Ert, aim: Aim, perfect: Found) -> Found:
    """The best mapping under an aim, given the best of perfect factors, which may be none.

    The aim's `most_cycles` are without those that networks add, as in `dse.mapper.branch_and_bound`.

    Where remainders are not supported the answer is `perfect`, with its own mapspace.
    """
    if spec.perfect_only:
        LOG.debug("no search with remainders: %s", spec.perfect_only[0])
        return perfect
    try:
        choice, proven = _best(spec, problem, ert, aim, _to_beat(spec, problem, ert, aim, perfect))
    except UnsupportedError as error:
        LOG.debug("no search with remainders: %s", error)
        return perfect
    if choice is None:  # where the search was cut short, what is proven of `perfect` remains so
        return replace(perfect, mapspace=REMAINDERS) if proven else perfect
    answer = _evaluated(choice, ert)
    if aim.kind == ENERGY:
        answer = _evaluated(_fastest(choice, answer, ert, aim), ert)
    # What bandwidths and leakage add together is bounded, not counted, in the search, as is what the children of a
    # fan-out share of a window.
    exact = math.isclose(_value(aim, answer, spec), choice.value, rel_tol=10 * EQUAL)
    kept = _within_limits(aim, answer, spec)
    if not kept or (not exact and not _value(aim, answer, spec) < _value(aim, perfect, spec)):
        return perfect
    return replace(answer, optimal=proven and exact and (perfect.optimal or perfect.mapping is None))


def _within_limits(aim: Aim, found: Found, spec: Spec) -> bool:
    assert found.evaluation is not None
    cycles = found.evaluation.cycles - spec.network_latency
    return cycles <= aim.most_cycles and found.evaluation.energy_pj <= aim.most_energy * (1 + EQUAL)


def _to_beat(spec: Spec, problem: Problem, ert: Ert, aim: Aim, perfect: Found) -> float:
    """The objective that a mapping with remainders must be below: accesses rounded up to blocks do not count."""
    value = _value(aim, perfect, spec)
    if perfect.mapping is None or aim.kind == DELAY:
        return value
    try:
        evaluation = by_iterations(spec, problem, perfect.mapping, ert)
    except InputError as error:
        raise UnsupportedError(str(error)) from error
    return min(value, _value(aim, replace(perfect, evaluation=evaluation), spec))


def _value(aim: Aim, found: Found, spec: Spec) -> float:
    """The objective of an answer; inf where there is none."""
    if found.evaluation is None:
        return math.inf
    evaluation = found.evaluation
    if aim.kind == ENERGY:
        return evaluation.energy_pj
    return evaluation.energy_pj * evaluation.cycles if aim.kind == ENERGY_DELAY else float(evaluation.cycles)


def _best(spec: Spec, problem: Problem, ert: Ert, aim: Aim, value: float) -> tuple[Choice | None, bool]:
    """The best choice below a value, and whether the search was completed."""
    best, room = None, MOST_NODES
    if all(n == 1 for n in problem.bound.values()):  # one choice of factors, and it is perfect
        return None, True
    if not all(level.loops.permits(d, 1) for level in spec.levels for d, n in problem.bound.items() if n == 1):
        return None, True
    aim = _with_latency(aim, spec)
    for keep in keep_choices(spec, problem):
        if not all(any(tensor.name in kept for kept in keep.values()) for tensor in problem.data_spaces):
            continue
        try:
            tables = _tables(spec, problem, keep)
        except TooManyChainsError as error:
            LOG.debug("the search with remainders is not complete: %s", error)
            return best, False
        solver = Solver(tables, ert, aim, value, room)
        solver.run()
        if solver.best is not None:
            best, value = solver.best, solver.value
        room -= solver.looked
        if not solver.proven:
            return best, False
    return best, True


def _with_latency(aim: Aim, spec: Spec) -> Aim:
    """The aim of a `Solver`, whose `most_cycles` include those that networks add."""
    return aim._replace(latency=float(spec.network_latency), most_cycles=aim.most_cycles + spec.network_latency)


def _tables(spec: Spec, problem: Problem, keep: MappingType[str, frozenset[str]]) -> Tables:
    """Tables are kept for the next candidate of a layer, which may differ in energies and word widths only."""
    layer = layer_of(spec, problem, keep)
    wanted = {d: wanted_of(layer, d) for d in layer.dims}
    loops = repr([(s.loops.canonical(), isinstance(s, Storage) or (s.mesh_x, s.mesh_y)) for s in spec.levels])
    reads_first = tuple(storage.rmw_first_update for storage in spec.storages)
    key = (problem, loops, layer.kept, layer.limited, reads_first, tuple(w.key() for w in wanted.values()))
    tables = _kept_tables.pop(key, None)
    if tables is None or not tables.covers(wanted):
        tables = _new_tables(layer, wanted, tables)
    else:
        tables.serve(layer, wanted)
    while len(_kept_tables) >= MOST_TABLES:
        _kept_tables.pop(next(iter(_kept_tables)))
    _kept_tables[key] = tables
    return tables


def _new_tables(layer: Layer, wanted: dict[str, Wanted], before: Tables | None) -> Tables:
    """Tables of what is wanted, and of what was wanted before, too, if both can be told apart again."""
    if before is None:
        return Tables(layer, wanted)
    both = {d: w.roomier(before.most[d]) for d, w in wanted.items()}
    with contextlib.suppress(TooManyChainsError):
        known = {d: before.chains[d] for d, w in both.items() if w.most == before.most[d]}
        tables = Tables(layer, both, known)
        if tables.covers(wanted):
            tables.serve(layer, wanted)
            return tables
    return Tables(layer, wanted, {d: before.chains[d] for d, w in wanted.items() if w.most == before.most[d]})


def _evaluated(choice: Choice, ert: Ert) -> Found:
    layer = choice.tables.layer
    mapping = _mapping(choice)
    try:
        evaluation = physical(layer.spec, layer.problem, mapping, ert)
    except InputError as error:
        raise AssertionError(f"the search and the model disagree about a mapping: {error}") from error
    return Found(mapping, evaluation, True, mapspace=REMAINDERS)


def _fastest(choice: Choice, answer: Found, ert: Ert, aim: Aim) -> Choice:
    """Of the choices of equal energy that keep the same tensors, the fastest that `TIE_NODES` nodes show."""
    assert answer.evaluation is not None
    limited = _with_latency(aim, choice.tables.layer.spec)._replace(kind=DELAY, most_energy=choice.value * (1 + EQUAL))
    solver = Solver(choice.tables, ert, limited, float(answer.evaluation.cycles), TIE_NODES)
    solver.run()
    return choice if solver.best is None else replace(solver.best, value=choice.value)


def _mapping(choice: Choice) -> Mapping:
    """A choice as a mapping, with the orders that its behaviours came from."""
    layer = choice.tables.layer
    temporal: dict[str, Loops] = {}
    x: dict[str, Loops] = {}
    y: dict[str, Loops] = {}
    remainders: dict[tuple[str, str], int] = {}
    chains = {c.name: c for group in choice.tables.groups for c in group.chains}
    for k, stage in enumerate(layer.stages):
        loops = {d: int(c.factors[choice.rows[d], k]) for d, c in chains.items() if c.factors[choice.rows[d], k] > 1}
        order = _ordered(tuple(loops), stage.loops.inner, choice.options[k].order, stage.loops.outer)
        if isinstance(stage, Fanout):
            on_y = {d for d in loops if chains[d].on_y[choice.rows[d], k]}
            x[stage.name] = tuple((d, loops[d]) for d in order if d not in on_y)
            y[stage.name] = tuple((d, loops[d]) for d in order if d in on_y)
        else:
            temporal[stage.name] = tuple((d, loops[d]) for d in order)
    for d, c in chains.items():
        rest = c.size - 1
        looping = [(k, int(n)) for k, n in enumerate(c.factors[choice.rows[d]]) if n > 1]
        for k, n in looping[:-1]:  # the outermost loop has as many iterations as are left
            rest, digit = divmod(rest, n)
            if digit + 1 < n:
                remainders[layer.stages[k].name, d] = digit + 1
    return Mapping(temporal, x, y, _keep(choice), remainders)


def _ordered(
    loops: tuple[str, ...], inner: tuple[str, ...], free: tuple[str, ...], outer: tuple[str, ...]
) -> list[str]:
    """Dimensions innermost first: those fixed innermost, `free` in its order, others, those fixed outermost."""

    def place(d: str) -> tuple[int, int]:
        if d in inner:
            return 0, inner.index(d)
        if d in outer:
            return 3, outer.index(d)
        return (1, free.index(d)) if d in free else (2, 0)

    return sorted(loops, key=place)


def _keep(choice: Choice) -> MappingType[str, frozenset[str]]:
    layer = choice.tables.layer
    names = [tensor.name for tensor in layer.problem.data_spaces]
    return {
        stage.name: frozenset(names[t] for t, kept in enumerate(layer.kept) if k in kept)
        for k, stage in enumerate(layer.stages) if not isinstance(stage, Fanout)
    }  # fmt: skip
