"""Reader of Timeloop v4 specifications: expressions, inherited attributes, constraints. Refuses unsupported parts."""

from __future__ import annotations

import copy
import logging
import math
import runpy
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dse.core import fields
from dse.core.errors import InputError
from dse.core.expressions import View, evaluate
from dse.hardware import attributes as names
from dse.hardware.array_containers import array_variables, as_containers
from dse.hardware.constraints import ConstraintReader, Evaluate
from dse.hardware.energy.components import ComponentLibrary
from dse.hardware.energy.table_files import TableFiles
from dse.hardware.nodes import Leaf, Tree
from dse.hardware.spec import Compute, Fanout, Spec, Storage
from dse.hardware.top_level import (
    as_dense,
    check_top_level,
    histograms_of,
    joined,
    read_top_level,
    top_keys,
    variables_of,
)
from dse.workload.problem import Problem

_log = logging.getLogger(__name__)


class SpecFile:
    """A parsed specification file; `instance` gives the accelerator for given variables.

    Args:
        document: the parsed YAML with `architecture` and optionally `variables`, `components`, `constraints`.
        where: name of the file, for errors.
        dense: whether sparse optimisations are left out, with a warning, instead of being refused.
        functions: whether the programs in Python that it names are run, so that expressions can call their functions.
    """

    def __init__(self, document: Any, where: object, dense: bool = False, functions: bool = False) -> None:
        if not isinstance(document, dict) or "architecture" not in document:
            raise InputError(where, "no `architecture` key", "a Timeloop v4 specification")
        document = top_keys(document, where)
        if dense:
            document = as_dense(document, where)
        check_top_level(document, where, functions)
        architecture = fields.mapping(document["architecture"], f"{where}: architecture")
        if not isinstance(architecture.get("nodes"), list):
            raise InputError(f"{where}: architecture.nodes", "is missing", "a list of nodes, outermost first")
        self.where = where
        self.document = document
        self.tables: TableFiles | None = None
        self.variables = variables_of(document.get("variables"), f"{where}: variables") | histograms_of(document)
        self._given_nodes: list[Any] = architecture["nodes"]
        self.nodes: list[Any] = as_containers(architecture["nodes"], self.variables, str(where))

    @staticmethod
    def read(
        path: Path | str,
        include: Sequence[Path | str] = (),
        jinja: Mapping[str, Any] | None = None,
        dense: bool = False,
        functions: bool = False,
    ) -> SpecFile:
        """A specification whose top-level keys may be in several files; `include` names the others.

        Args:
            jinja: values of names, for files that are templates (`dse.core.templates`).
            dense, functions: as of the class.

        Raises:
            InputError: two files have the same key. Only `variables`, classes of `components` and `targets` of
                `constraints` are combined.
        """
        document = read_top_level(path, jinja)
        for other in include:
            for key, value in read_top_level(other, jinja).items():
                document[key] = joined(key, document[key], value, other) if key in document else value
        return SpecFile(document, " + ".join(map(str, (path, *include))), dense, functions)

    def instance(
        self, variables: Mapping[str, Any] | None = None, *, problem: Problem, this_layer: bool = False
    ) -> Spec:
        """The accelerator with `variables` overridden, for layers with the dimensions and tensors of this one.

        Args:
            this_layer: whether it is for this layer only; then expressions may name its sizes, as
                ``spec.problem.instance["R"]``.

        Raises:
            InputError: a field or variable is unknown, a value is out of range, or a feature is not supported.
        """
        for name in variables or {}:
            if name not in self.variables:
                raise InputError(f"{self.where}: variables", f"{name!r} is not declared", sorted(self.variables))
        scope = self.scope(variables, [tensor.name for tensor in problem.data_spaces])
        sizes = self._coefficients() | problem.bound if this_layer else None
        return _Reader(self.where, scope, problem, self._known, sizes).chain(self.tree)

    def _coefficients(self) -> dict[str, Any]:
        """Coefficients of the layer that the specification has itself: their defaults, and what the instance says."""
        problem = self.document.get("problem")
        parts = (problem.get("shape"), problem.get("instance")) if isinstance(problem, dict) else (None, None)
        shape, instance = (part if isinstance(part, dict) else {} for part in parts)
        defaults = {c.get("name"): c.get("default", 1) for c in shape.get("coefficients") or () if isinstance(c, dict)}
        return {**defaults, **instance}

    def scope(self, variables: Mapping[str, Any] | None = None, tensors: Sequence[str] = ()) -> dict[str, Any]:
        """All names that expressions see: functions and variables, some of them overridden.

        Args:
            tensors: names of a layer's tensors, for what an array that computes in memory defines of each.
        """
        found = self._functions | self.variables | dict(variables or {})
        return found | array_variables(self._given_nodes, found, tensors, str(self.where))

    @cached_property
    def tree(self) -> Tree:
        """The nodes, with the constraints that stand outside them."""
        constraints = self.document.get("constraints") or {}
        targets = [
            (entry, f"{self.where}: {part}[{i}]")
            for part, entries in (
                ("constraints.targets", constraints.get("targets")),
                ("mapping", self.document.get("mapping")),
            )
            for i, entry in enumerate(fields.optional_sequence(entries, f"{self.where}: {part}", fields.anything))
        ]
        return Tree(self.nodes, f"{self.where}: architecture.nodes", targets)

    @cached_property
    def _functions(self) -> dict[str, Any]:
        """Functions of the programs that the specification names; the class allows them only if the user does."""
        found: dict[str, Any] = {}
        for file in (self.document.get("globals") or {}).get("expression_custom_functions") or ():
            try:
                found |= {name: f for name, f in runpy.run_path(file).items() if callable(f) and name[0] != "_"}
            except Exception as e:  # whatever the program raises
                raise InputError(file, f"the program fails: {type(e).__name__}: {e}") from e
        return found

    @cached_property
    def library(self) -> ComponentLibrary:
        """The shipped component classes, those of the specification, and the tables that are given beside it."""
        library = ComponentLibrary.shipped()
        if "components" in self.document:
            library = library.with_classes(self.document["components"], f"{self.where}: components")
        return library.with_files(self.tables) if self.tables else library

    def with_tables(self, tables: TableFiles | None) -> SpecFile:
        """This specification with tables of components that are given beside it, before those it had."""
        found = copy.copy(self)
        found.tables = tables
        for cached in ("library", "_known"):
            found.__dict__.pop(cached, None)
        return found

    @cached_property
    def _known(self) -> names.Known:
        expressions = [part for leaf in self.tree.leaves() for part in (leaf.attributes, leaf.spatial)]
        return names.Known(self.library, _texts([*expressions, self.variables]))


def _texts(value: Any) -> Iterator[str]:
    """All text in a part of a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


class _Reader:
    def __init__(self, where: object, scope: dict[str, Any], problem: Problem, known: names.Known, sizes: Any) -> None:
        self.where, self.scope, self.known = where, scope, known
        self.sizes = {"problem": View({"instance": sizes})} if sizes else {}
        self.tensors = tuple(tensor.name for tensor in problem.data_spaces)
        self.constraints = ConstraintReader(problem)

    def chain(self, tree: Tree) -> Spec:
        leaves = tree.chain(self.tensors, self.constraints.keep)
        levels: list[Storage | Fanout] = []
        compute: Compute | None = None
        gates = _PowerGates()
        inherited = {  # the front end gives every top-level variable to every node as an attribute
            name: evaluate(self.scope[name], self.scope, f"{self.where}: variables.{name}")
            for name in sorted(self.known.inherited & self.scope.keys())
        }
        self._see(leaves)
        for position, leaf in enumerate(leaves):
            last = position == len(leaves) - 1
            if leaf.is_container and last:
                problem = "there is no compute unit: the last node is a container"
                raise InputError(leaf.where, problem, "a compute component")
            own = self._attributes(leaf, inherited)
            self.known.check(own, leaf.component_class, leaf.subclass, f"{leaf.where}.attributes")
            # Own attributes first, as in the front end: of two that one column of a table names the first counts.
            attributes = own | {key: value for key, value in inherited.items() if key not in own}
            if leaf.is_container:
                inherited = attributes
            groups = self.constraints.groups(leaf.constraints, f"{leaf.where}.constraints")
            gating = _gating(own, f"{leaf.where}.attributes")
            if leaf.is_container:
                gates.container(own.get("power_gated_at"))
            fanout = self._fanout(leaf, groups, inherited if leaf.is_container else attributes)
            if fanout is not None:
                levels.append(fanout)
                gates.place(fanout.name, gating, None)
            if leaf.component_class is None:
                _check_container(groups, f"{leaf.where}.constraints")
            elif not self._is_compute(leaf.component_class, last, leaf.where):
                gate = gates.place(leaf.name, gating, own.get("power_gated_at"))
                levels.append(self._storage(leaf, attributes, groups, gate))
            else:
                scale = self._scale(leaf, attributes)
                compute = Compute(leaf.name, leaf.subclass or leaf.component_class, attributes, scale)
        if compute is None or not any(isinstance(level, Storage) for level in levels):
            raise InputError(f"{self.where}: architecture.nodes", "needs at least one memory and a compute unit")
        spec = Spec(tuple(levels), compute)
        self._check(spec)
        return spec

    def _see(self, leaves: Sequence[Leaf]) -> None:
        """Lets expressions name nodes and variables as the front end does: ``column.get_fanout()``."""
        variables = View({name: value for name, value in self.scope.items() if name != "version"})
        views = {leaf.name: self._view(leaf) for leaf in leaves if leaf.name not in self.scope}
        spec = View({"variables": variables, **self.sizes, **views})
        self.scope = {**views, "variables": variables, "spec": spec, **self.scope}

    def _view(self, leaf: Leaf) -> View:
        def fanout() -> int:
            mesh = self._mesh(leaf, self.scope | dict(leaf.attributes))
            return mesh["meshX"] * mesh["meshY"]

        spatial = View({"meshX": 1, "meshY": 1, **leaf.spatial}, {"get_fanout": fanout})
        return View({"attributes": dict(leaf.attributes), "spatial": spatial}, {"get_fanout": fanout})

    def _is_compute(self, component_class: str, last: bool, where: str) -> bool:
        compute = self.known.kind(component_class, where) == "compute"
        if compute and not last:
            raise InputError(where, f"compute class {component_class!r} before the last node", "one compute node, last")
        if last and not compute:
            problem = f"there is no compute unit: the last node is a memory of class {component_class!r}"
            raise InputError(where, problem, "a compute component as the last node, such as class intmac")
        return compute

    def _attributes(self, leaf: Leaf, inherited: dict[str, Any]) -> dict[str, Any]:
        """A node's own attributes, evaluated."""
        own = dict(leaf.attributes)
        scope = self.scope | inherited | own
        values = {}
        for key, expression in own.items():
            # An attribute may refer to the variable of the same name (`technology: technology`).
            visible = {k: v for k, v in scope.items() if k != key}
            if key in self.scope:
                visible[key] = self.scope[key]
            values[key] = evaluate(expression, visible, f"{leaf.where}.attributes.{key}")
        return values

    def _scale(self, leaf: Leaf, attributes: dict[str, Any]) -> float:
        where = f"{leaf.where}.energy_scale"
        return fields.number(evaluate(leaf.energy_scale, self.scope | attributes, where), where)

    def _mesh(self, leaf: Leaf, scope: dict[str, Any]) -> dict[str, int]:
        mesh = {}
        for axis in ("meshX", "meshY"):
            size = evaluate(leaf.spatial.get(axis, 1), scope, f"{leaf.where}.spatial.{axis}")
            whole = int(size) if isinstance(size, float) and size.is_integer() else size
            mesh[axis] = fields.integer(whole, f"{leaf.where}.spatial.{axis}")
        return mesh

    def _evaluate(self, attributes: Mapping[str, Any]) -> Evaluate:
        """Expressions of constraints, which see the node's attributes."""
        scope = self.scope | dict(attributes) | {"attributes": View(attributes)}
        return lambda value, where: evaluate(value, scope, where)

    def _fanout(self, leaf: Leaf, constraints: Mapping[str, Any], attributes: dict[str, Any]) -> Fanout | None:
        mesh = self._mesh(leaf, self.scope | attributes)
        group, here = constraints["spatial"], f"{leaf.where}.constraints.spatial"
        loops = self.constraints.loops(group, here, self._evaluate(attributes), leaf.turn)
        no_links = self.constraints.tensors(group.get("no_link_transfer"), f"{here}.no_link_transfer")
        no_reuse = self.constraints.tensors(group.get("no_reuse"), f"{here}.no_reuse")
        if mesh["meshX"] * mesh["meshY"] == 1:
            return None
        latency = _latency(names.Numbers(attributes, f"{leaf.where}.attributes")) if leaf.is_container else 0
        return Fanout(
            f"inter_{leaf.name}_spatial",
            mesh["meshX"],
            mesh["meshY"],
            loops,
            frozenset(no_links),
            latency,
            frozenset(no_reuse),
        )

    def _storage(
        self, leaf: Leaf, attributes: dict[str, Any], constraints: Mapping[str, Any], power_gate: str | None
    ) -> Storage:
        where = f"{leaf.where}.attributes"
        number = names.Numbers(attributes, where)
        datawidth = number.whole(*names.DATAWIDTH) or names.DEFAULT_DATAWIDTH
        cluster = number.whole("cluster_size") or 1
        block = _block_size(number, datawidth, cluster, where)
        scale = "per_dataspace_bandwidth_consumption_scale"
        half = (number.real("bandwidth") or 0) / 2 or None  # an old name for reads and writes together
        dataspace, here = constraints["dataspace"], f"{leaf.where}.constraints"
        keep = self.constraints.keep(dataspace, f"{here}.dataspace")
        for tensor in leaf.bypassed:
            if keep.setdefault(tensor, False):
                raise InputError(f"{here}.dataspace", f"{tensor} is kept here and in another branch of a !Parallel")
        temporal = constraints["temporal"]

        def tensors(group: Mapping[str, Any], kind: str, key: str) -> frozenset[str]:
            return frozenset(self.constraints.tensors(group.get(key), f"{here}.{kind}.{key}"))

        return Storage(
            name=leaf.name,
            component=leaf.subclass or leaf.component_class or "",
            attributes=attributes,
            datawidth=datawidth,
            block_size=block,
            capacity=_capacity(number, datawidth, block, where),
            keep=keep,
            temporal=self.constraints.loops(temporal, f"{here}.temporal", self._evaluate(attributes), leaf.turn),
            read_bandwidth=number.bandwidth("read", datawidth) or half,
            write_bandwidth=number.bandwidth("write", datawidth) or half,
            shared_bandwidth=number.bandwidth("shared", datawidth),
            network_latency=_latency(number),
            power_gate=power_gate,
            no_coalesce=tensors(dataspace, "dataspace", "no_coalesce"),
            no_reuse=tensors(temporal, "temporal", "no_reuse"),
            rmw_first_update=tensors(temporal, "temporal", "rmw_first_update"),
            cluster_size=cluster,
            bandwidth_scale=self._bandwidth_scale(attributes, f"{where}.{scale}", attributes.get(scale)),
            energy_scale=self._scale(leaf, attributes),
        )

    def _bandwidth_scale(self, attributes: dict[str, Any], where: str, found: Any) -> dict[str, float]:
        """Words of bandwidth that a word of a tensor takes; tensors at 1 are left out."""
        given = fields.optional_mapping(found, where)
        fields.only(given, self.tensors, where, "tensor")
        value = self._evaluate(attributes)
        scales = {t: fields.number(value(of, f"{where}.{t}"), f"{where}.{t}") for t, of in given.items()}
        return {tensor: scale for tensor, scale in scales.items() if scale != 1.0}

    def _check(self, spec: Spec) -> None:
        for tensor in self.tensors:
            if all(s.keep.get(tensor) is False for s in spec.storages):
                raise InputError(f"{self.where}: architecture", f"{tensor} is bypassed at every level")
        for storage in spec.storages:
            if spec.instances[storage.name] % storage.cluster_size:
                problem = f"its {spec.instances[storage.name]} instances do not make clusters of {storage.cluster_size}"
                raise InputError(f"{self.where}: {storage.name}.cluster_size", problem)
        levels = [level.name for level in spec.levels]
        for storage in spec.storages:
            if storage.power_gate is not None:
                where = f"{self.where}: {storage.name}.power_gated_at"
                fields.only((storage.power_gate,), levels, where, "level")


class _PowerGates:
    """The level at which each memory is switched on and off, by the rule of Timeloop's front end.

    After a node with `has_power_gating`, the next node is the gate of all following nodes. But below a container
    the front end uses the container's `power_gated_at` instead, even if it is not given, which ends this rule.
    """

    def __init__(self) -> None:
        self._gate: str | None = None
        self._next = False
        self._container: tuple[str | None] | None = None  # `power_gated_at` of the last container, if there is one

    def container(self, gated_at: str | None) -> None:
        self._container = (gated_at,)

    def place(self, name: str, gating: bool, gated_at: str | None) -> str | None:
        """The gate of the next level; None if that is the level itself. `gating`: its node has `has_power_gating`."""
        if self._next:
            self._gate = name
        self._next = gating
        gate = gated_at or (self._gate if self._container is None else self._container[0])
        return None if gate == name else gate


def _gating(own: Mapping[str, Any], where: str) -> bool:
    """Whether a node has `has_power_gating`; InputError if this is not a boolean, or the gate's name is not text."""
    if own.get("power_gated_at") is not None:
        fields.text(own["power_gated_at"], f"{where}.power_gated_at")
    gating = own.get("has_power_gating")
    return gating is not None and fields.boolean(gating, f"{where}.has_power_gating")


def _check_container(constraints: Mapping[str, Any], where: str) -> None:
    for kind, group in constraints.items():
        if kind != "spatial" and any(value != [] for value in group.values()):
            _log.warning("%s.%s has no effect: a container has no loops and stores nothing", where, kind)


def _block_size(number: names.Numbers, datawidth: int, cluster: int, where: str) -> int:
    """Number of words that a physical access moves for each of the instances of a cluster."""
    width, block = number.whole(*names.WIDTH), number.whole(*names.BLOCK)
    if width is None:
        return block or 1
    if width % datawidth != 0:
        default = ", the default" if datawidth == names.DEFAULT_DATAWIDTH else ""
        problem = f"{width} bits is not a multiple of {datawidth} (datawidth{default})"
        hint = "round datawidth up to a part of the row, as psum_slot of eyeriss_168.yaml does"
        raise InputError(f"{where}.width", problem, hint=hint)
    if block is not None and width != datawidth * block * cluster:
        problem = f"{width} bits are not {datawidth} x {block} x {cluster} (datawidth x block_size x cluster_size)"
        raise InputError(f"{where}.width", problem, f"{datawidth * block * cluster}")
    if width < cluster * datawidth:
        problem = f"{width} bits hold no word of {datawidth} bits for each of {cluster} instances (cluster_size)"
        raise InputError(f"{where}.width", problem, f"at least {cluster * datawidth}")
    return width // cluster // datawidth


def _capacity(number: names.Numbers, datawidth: int, block: int, where: str) -> int | None:
    """Capacity in words; None if there is no limit."""
    if number.unlimited(*names.DEPTH, "entries", "sizeKB"):
        return None
    depth, entries, kilobytes = number.whole(*names.DEPTH), number.whole("entries"), number.whole("sizeKB")
    if sum(x is not None for x in (depth, entries, kilobytes)) > 1:
        raise InputError(where, "more than one size is given", "one of depth, entries, sizeKB")
    capacity = entries
    if depth is not None:
        capacity = depth * block
    elif kilobytes is not None:
        capacity = kilobytes * 1024 * 8 // datawidth
    buffering = number.real("multiple_buffering") or 1.0
    return None if capacity is None else math.floor(capacity / buffering)


def _latency(number: names.Numbers) -> int:
    """Cycles to fill and drain the network between a level and the next inner one."""
    latencies = (number.whole(name, least=0) for name in ("network_fill_latency", "network_drain_latency"))
    return sum(cycles or 0 for cycles in latencies)
