"""Reader of Timeloop v4 specifications: expressions, inherited attributes, constraints. Refuses unsupported parts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dse.core import fields
from dse.core.documents import TAG, parse_yaml, read_text
from dse.core.errors import InputError
from dse.core.expressions import evaluate
from dse.hardware import attributes as names
from dse.hardware.constraints import ConstraintReader
from dse.hardware.energy.components import ComponentLibrary
from dse.hardware.energy.table_files import TableFiles
from dse.hardware.spec import Compute, Fanout, Spec, Storage

_NODE_FIELDS = (TAG, "name", "class", "attributes", "constraints", "spatial", "required_actions", "enabled")
_TOP_LEVEL: Mapping[str, tuple[str, ...] | None] = {  # keys, and their allowed fields; None: checked elsewhere
    "architecture": ("version", "nodes"),
    "variables": None,
    "components": None,
    "problem": None,  # ignored: commands take the layer from another file
    "mapper": None,  # ignored: settings of the search are options of commands
    "ART": None,  # areas are not modelled
    "mapspace": ("version", "template"),
    "globals": ("version", "environment_variables", "expression_custom_functions", "accelergy_plug_ins"),
    "mapping": None,
    "ERT": None,
}
_EMPTY: Mapping[str, str] = {  # keys that would change results unless they are empty
    "mapping": "to Timeloop's mapper it is a constraint; give it to `enos model` as a file of its own",
    "ERT": "give the table of energies as a file of its own",
}


class SpecFile:
    """A parsed specification file; `instance` gives the accelerator for given variables.

    Args:
        document: the parsed YAML with `architecture` and optionally `variables`.
        where: name of the file, for errors.
        tables: tables of components that are given beside the specification.
    """

    def __init__(self, document: Any, where: object, tables: TableFiles | None = None) -> None:
        if not isinstance(document, dict) or "architecture" not in document:
            raise InputError(where, "no `architecture` key", "a Timeloop v4 specification")
        _check_top_level(document, where)
        architecture = fields.mapping(document["architecture"], f"{where}: architecture")
        if not isinstance(architecture.get("nodes"), list):
            raise InputError(f"{where}: architecture.nodes", "is missing", "a list of nodes, outermost first")
        self.where = where
        self.document = document
        self.tables = tables
        self.variables = dict(fields.optional_mapping(document.get("variables"), f"{where}: variables"))
        self.nodes: list[Any] = architecture["nodes"]

    @staticmethod
    def read(path: Path | str, include: Sequence[Path | str] = ()) -> SpecFile:
        """A specification whose top-level keys may be in several files; `include` names the others.

        Raises:
            InputError: two files have the same key. Only `variables` and classes of `components` are combined.
        """
        document = _top_level(path)
        for other in include:
            for key, value in _top_level(other).items():
                document[key] = _joined(key, document[key], value, other) if key in document else value
        return SpecFile(document, " + ".join(map(str, (path, *include))))

    def instance(
        self,
        variables: Mapping[str, Any] | None = None,
        *,
        dimensions: tuple[str, ...],
        tensors: tuple[str, ...],
    ) -> Spec:
        """The accelerator with `variables` overridden, for problems with these dimensions and tensors.

        Raises:
            InputError: a field or variable is unknown, a value is out of range, or a feature is not supported.
        """
        for name in variables or {}:
            if name not in self.variables:
                raise InputError(f"{self.where}: variables", f"{name!r} is not declared", sorted(self.variables))
        scope = self.variables | dict(variables or {})
        return _Reader(self.where, scope, dimensions, tensors, self._known).chain(self.nodes)

    @cached_property
    def library(self) -> ComponentLibrary:
        """The shipped component classes, those of the specification, and the tables that are given beside it."""
        library = ComponentLibrary.shipped()
        if "components" in self.document:
            library = library.with_classes(self.document["components"], f"{self.where}: components")
        return library.with_files(self.tables) if self.tables else library

    @cached_property
    def _known(self) -> names.Known:
        nodes = [node for node in self.nodes if isinstance(node, dict)]
        expressions = [node.get(field) for node in nodes for field in ("attributes", "spatial")]
        return names.Known(self.library, _texts([*expressions, self.variables]))


def _top_level(path: Path | str) -> dict[str, Any]:
    document = parse_yaml(read_text(path), path)
    if not isinstance(document, dict):
        raise InputError(path, "has no top-level keys", sorted(_TOP_LEVEL))
    _check_top_level(document, path)
    return document


def _check_top_level(document: dict[str, Any], where: object) -> None:
    fields.mapping(document, where)
    fields.only(document, tuple(_TOP_LEVEL), where, "top-level key")
    for key, value in document.items():
        allowed = _TOP_LEVEL[key]
        if allowed is not None:
            fields.optional_mapping(value, f"{where}: {key}", allowed)
        if key in _EMPTY and value not in (None, [], {}):
            raise InputError(f"{where}: {key}", "is not read from a specification", hint=_EMPTY[key])
    template = (document.get("mapspace") or {}).get("template", "uber")
    fields.one_of(template, f"{where}: mapspace.template", ("uber",))
    for key in ("environment_variables", "expression_custom_functions"):
        value = (document.get("globals") or {}).get(key)
        if value not in (None, [], {}):
            raise InputError(f"{where}: globals.{key}", "is not supported", hint="leave it out")


def _texts(value: Any) -> Iterator[str]:
    """All text in a part of a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _joined(key: str, before: Any, value: Any, where: object) -> Any:
    """The value of a top-level key that two files have."""
    if key not in ("variables", "components") or not isinstance(before, dict) or not isinstance(value, dict):
        raise InputError(where, f"another file also has {key!r}", "each key in one file")
    for name in value:
        if name in before and name not in ("version", "classes"):
            raise InputError(f"{where}: {key}", f"another file also has {name!r}", "each name once")
    lists = [fields.optional_sequence(part.get("classes"), f"{where}: {key}.classes", fields.anything)
             for part in (before, value)]  # fmt: skip
    classes = [*lists[0], *lists[1]]
    return {**value, **before, **({"classes": classes} if key == "components" else {})}


class _Reader:
    def __init__(
        self,
        where: object,
        scope: dict[str, Any],
        dimensions: tuple[str, ...],
        tensors: tuple[str, ...],
        known: names.Known,
    ) -> None:
        self.where, self.scope, self.tensors, self.known = where, scope, tensors, known
        self.constraints = ConstraintReader(dimensions, tensors)

    def chain(self, nodes: list[Any]) -> Spec:
        levels: list[Storage | Fanout] = []
        inherited: dict[str, Any] = {}
        compute: Compute | None = None
        gates = _PowerGates()
        enabled = [node for node in enumerate(nodes) if self._enabled(*node)]
        seen: set[str] = set()
        for position, (i, node) in enumerate(enabled):
            where = f"{self.where}: architecture.nodes[{i}]"
            name = self._check_node(node, where)
            where += f" ({name})"
            if name in seen:
                raise InputError(where, f"a second node is named {name!r}", "unique names")
            seen.add(name)
            last = position == len(enabled) - 1
            container = node[TAG] == "Container"
            if container and last:
                raise InputError(where, "there is no compute unit: the last node is a container", "a compute component")
            component_class = None if container else fields.name(node["class"], f"{where}.class")
            own = self._attributes(node, inherited, where)
            self.known.check(own, component_class, f"{where}.attributes")
            # Own attributes first, as in the front end: of two that one column of a table names the first counts.
            attributes = own | {key: value for key, value in inherited.items() if key not in own}
            if container:
                inherited = attributes
            constraints = self.constraints.groups(node.get("constraints"), f"{where}.constraints")
            gating = _gating(own, f"{where}.attributes")
            if container:
                gates.container(own.get("power_gated_at"))
            fanout = self._fanout(node, name, constraints, inherited, where)
            if fanout is not None:
                levels.append(fanout)
                gates.place(fanout.name, gating, None)
            if component_class is None:
                _check_container(constraints, f"{where}.constraints")
            elif not self._is_compute(component_class, last, where):
                gate = gates.place(name, gating, own.get("power_gated_at"))
                levels.append(self._storage(name, component_class, attributes, constraints, gate, where))
            else:
                compute = Compute(name, component_class, attributes)
        if compute is None or not any(isinstance(level, Storage) for level in levels):
            raise InputError(f"{self.where}: architecture.nodes", "needs at least one memory and a compute unit")
        spec = Spec(tuple(levels), compute)
        self._check(spec)
        return spec

    def _enabled(self, i: int, node: Any) -> bool:
        enabled = node.get("enabled") if isinstance(node, dict) else None
        return enabled is None or fields.boolean(enabled, f"{self.where}: architecture.nodes[{i}].enabled")

    def _check_node(self, node: Any, where: str) -> str:
        """The name of a node."""
        tag = node.get(TAG) if isinstance(node, dict) else None
        if tag not in ("Component", "Container"):
            found = f"the tag {fields.shown(tag)}" if tag else "an untagged node"
            raise InputError(where, f"{found} is not supported", "!Component and !Container, in a chain")
        required = ("name", "class") if tag == "Component" else ("name",)
        fields.mapping(node, where, _NODE_FIELDS, required)
        return fields.name(node["name"], f"{where}.name")

    def _is_compute(self, component_class: str, last: bool, where: str) -> bool:
        compute = self.known.kind(component_class, where) == "compute"
        if compute and not last:
            raise InputError(where, f"compute class {component_class!r} before the last node", "one compute node, last")
        if last and not compute:
            problem = f"there is no compute unit: the last node is a memory of class {component_class!r}"
            raise InputError(where, problem, "a compute component as the last node, such as class intmac")
        return compute

    def _attributes(self, node: dict[str, Any], inherited: dict[str, Any], where: str) -> dict[str, Any]:
        """A node's own attributes, evaluated."""
        own = fields.optional_mapping(node.get("attributes"), f"{where}.attributes")
        scope = self.scope | inherited | own
        values = {}
        for key, expression in own.items():
            # An attribute may refer to the variable of the same name (`technology: technology`).
            visible = {k: v for k, v in scope.items() if k != key}
            if key in self.scope:
                visible[key] = self.scope[key]
            values[key] = evaluate(expression, visible, f"{where}.attributes.{key}")
        return values

    def _fanout(
        self, node: dict[str, Any], name: str, constraints: Mapping[str, Any], inherited: dict[str, Any], where: str
    ) -> Fanout | None:
        spatial = fields.optional_mapping(node.get("spatial"), f"{where}.spatial", ("meshX", "meshY"))
        mesh = {}
        for axis in ("meshX", "meshY"):
            size = evaluate(spatial.get(axis, 1), self.scope, f"{where}.spatial.{axis}")
            mesh[axis] = fields.integer(size, f"{where}.spatial.{axis}")
        group, here = constraints["spatial"], f"{where}.constraints.spatial"
        loops = self.constraints.loops(group, here)
        no_links = self.constraints.tensors(group.get("no_link_transfer"), f"{here}.no_link_transfer")
        if mesh["meshX"] * mesh["meshY"] == 1:
            return None
        latency = _latency(names.Numbers(inherited, f"{where}.attributes"))
        return Fanout(f"inter_{name}_spatial", mesh["meshX"], mesh["meshY"], loops, frozenset(no_links), latency)

    def _storage(
        self,
        name: str,
        component_class: str,
        attributes: dict[str, Any],
        constraints: Mapping[str, Any],
        power_gate: str | None,
        where: str,
    ) -> Storage:
        number = names.Numbers(attributes, f"{where}.attributes")
        datawidth = number.whole(*names.DATAWIDTH) or names.DEFAULT_DATAWIDTH
        block = _block_size(number, datawidth, f"{where}.attributes")
        half = (number.real("bandwidth") or 0) / 2 or None  # an old name for reads and writes together
        return Storage(
            name=name,
            component=component_class,
            attributes=attributes,
            datawidth=datawidth,
            block_size=block,
            capacity=_capacity(number, datawidth, block, f"{where}.attributes"),
            keep=self.constraints.keep(constraints["dataspace"], f"{where}.constraints.dataspace"),
            temporal=self.constraints.loops(constraints["temporal"], f"{where}.constraints.temporal"),
            read_bandwidth=number.real("read_bandwidth") or half,
            write_bandwidth=number.real("write_bandwidth") or half,
            shared_bandwidth=number.real("shared_bandwidth"),
            network_latency=_latency(number),
            power_gate=power_gate,
        )

    def _check(self, spec: Spec) -> None:
        for tensor in self.tensors:
            if all(s.keep.get(tensor) is False for s in spec.storages):
                raise InputError(f"{self.where}: architecture", f"{tensor} is bypassed at every level")
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
        if kind != "spatial" and group:
            raise InputError(f"{where}.{kind}", "a container has no loops and stores nothing", "spatial")


def _block_size(number: names.Numbers, datawidth: int, where: str) -> int:
    """Number of words that a physical access moves."""
    width, block = number.whole(*names.WIDTH), number.whole(*names.BLOCK)
    if width is None:
        return block or 1
    if width % datawidth != 0:
        default = ", the default" if datawidth == names.DEFAULT_DATAWIDTH else ""
        raise InputError(f"{where}.width", f"{width} bits is not a multiple of {datawidth} (datawidth{default})")
    if block is not None and width != datawidth * block:
        problem = f"{width} bits are not {datawidth} x {block} (datawidth x block_size): several clusters of instances"
        raise InputError(f"{where}.width", f"{problem} are not modelled", f"{datawidth * block}")
    return width // datawidth


def _capacity(number: names.Numbers, datawidth: int, block: int, where: str) -> int | None:
    """Capacity in words; None if there is no limit."""
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
