"""Reads Timeloop v4 specifications: expressions, inherited attributes, constraints. Refuses by name what it cannot."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dse.documents import TAG, parse_yaml, read_text
from dse.errors import InputError
from dse.expressions import evaluate
from dse.spec import Compute, Fanout, LoopConstraint, Spec, Storage

_NODE_FIELDS = {TAG, "name", "class", "attributes", "constraints", "spatial", "required_actions", "enabled"}
_CONSTRAINT_FIELDS = {
    "dataspace": {"keep", "bypass"},
    "temporal": {"factors", "permutation", "default_max_factor", "default_min_factor"},
    "spatial": {"factors", "permutation", "split", "no_link_transfer", "default_max_factor", "default_min_factor"},
}
_COMPUTE_CLASSES = {"compute", "intmac", "fpmac", "mac"}
_NEUTRAL_ATTRIBUTES: dict[str, tuple[Any, ...]] = {  # features that are not modelled, and the values that mean "off"
    "min_utilization": (0,),
    "cluster_size": (1,),
    "metadata_storage_depth": (0,),
    "metadata_depth": (0,),
    "metadata_storage_width": (0,),
    "allow_overbooking": (False,),
    "per_dataspace_bandwidth_consumption_scale": ({},),
    "vector_access_energy": (),
    "addr_gen_energy": (0,),
    "reduction_supported": (True,),
}
_TOP_LEVEL = {
    "architecture", "variables", "components", "problem", "mapper", "mapspace", "globals", "mapping", "ERT", "ART",
}  # fmt: skip


class SpecFile:
    """A parsed specification file, from which instances for different variables are made.

    Args:
        document: the parsed YAML with `architecture` and optionally `variables`.
        where: file name, for messages.
    """

    def __init__(self, document: Any, where: object) -> None:
        if not isinstance(document, dict) or "architecture" not in document:
            raise InputError(where, "no `architecture` key", "a Timeloop v4 specification")
        _check_top_level(document, where)
        architecture = document["architecture"]
        if not isinstance(architecture, dict) or not isinstance(architecture.get("nodes"), list):
            raise InputError(f"{where}: architecture.nodes", "is missing", "a list of nodes, outermost first")
        self.where = where
        self.document = document
        self.variables: dict[str, Any] = dict(document.get("variables") or {})
        self.nodes: list[Any] = architecture["nodes"]

    @staticmethod
    def read(path: Path | str, include: Sequence[Path | str] = ()) -> SpecFile:
        """A specification whose top-level keys may lie in several files; `include` names the others.

        Raises:
            InputError: a key that two files have. Only `variables` and classes of `components` are put together.
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
            InputError: an unknown field or variable, a value out of range, or a feature that is not supported.
        """
        for name in variables or {}:
            if name not in self.variables:
                raise InputError(f"{self.where}: variables", f"{name!r} is not declared", sorted(self.variables))
        scope = self.variables | dict(variables or {})
        return _Reader(self.where, scope, dimensions, tensors).chain(self.nodes)


def _top_level(path: Path | str) -> dict[str, Any]:
    document = parse_yaml(read_text(path), path)
    if not isinstance(document, dict):
        raise InputError(path, "has no top-level keys", sorted(_TOP_LEVEL))
    _check_top_level(document, path)
    return document


def _check_top_level(document: dict[str, Any], where: object) -> None:
    for key in document:
        if key not in _TOP_LEVEL:
            raise InputError(where, f"unknown top-level key {key!r}", sorted(_TOP_LEVEL))


def _joined(key: str, before: Any, value: Any, where: object) -> Any:
    """The value of a top-level key that two files have."""
    if key not in ("variables", "components") or not isinstance(before, dict) or not isinstance(value, dict):
        raise InputError(where, f"a second {key!r} beside that of another file", "each key in one file")
    for name in value:
        if name in before and name not in ("version", "classes"):
            raise InputError(f"{where}: {key}", f"a second {name!r} beside that of another file", "each name once")
    classes = [*(before.get("classes") or []), *(value.get("classes") or [])]
    return {**value, **before, **({"classes": classes} if key == "components" else {})}


class _Reader:
    def __init__(self, where: object, scope: dict[str, Any], dimensions: tuple[str, ...], tensors: tuple[str, ...]):
        self.where, self.scope, self.dimensions, self.tensors = where, scope, dimensions, tensors

    def chain(self, nodes: list[Any]) -> Spec:
        levels: list[Storage | Fanout] = []
        inherited: dict[str, Any] = {}
        names: set[str] = set()
        compute: Compute | None = None
        enabled = [(i, n) for i, n in enumerate(nodes) if not (isinstance(n, dict) and n.get("enabled") is False)]
        for position, (i, node) in enumerate(enabled):
            where = f"{self.where}: architecture.nodes[{i}]"
            self._check_node(node, where)
            name = str(node["name"])
            where += f" ({name})"
            if name in names:
                raise InputError(where, f"a second node is named {name!r}", "unique names")
            names.add(name)
            attributes = self._attributes(node, inherited, where)
            last = position == len(enabled) - 1
            fanout = self._fanout(node, name, where)
            if fanout is not None:
                levels.append(fanout)
            if node[TAG] == "Container":
                self._check_container(node, where)
                inherited = attributes
                if last:
                    raise InputError(where, "the last node is a container", "a compute component")
            elif last:
                compute = Compute(name, str(node["class"]), attributes)
            else:
                levels.append(self._storage(node, name, attributes, where))
        if compute is None or not any(isinstance(level, Storage) for level in levels):
            raise InputError(f"{self.where}: architecture.nodes", "needs at least one memory and a compute unit")
        spec = Spec(tuple(levels), compute)
        self._check_keep(spec)
        return spec

    def _check_node(self, node: Any, where: str) -> None:
        tag = node.get(TAG) if isinstance(node, dict) else None
        if tag not in ("Component", "Container"):
            found = f"!{tag}" if tag else "an untagged node"
            raise InputError(where, f"{found} is not supported", "!Component and !Container, in a chain")
        for key in node:
            if key not in _NODE_FIELDS:
                raise InputError(where, f"unknown field {key!r}", sorted(_NODE_FIELDS - {TAG}))
        if "name" not in node:
            raise InputError(where, "field 'name' is missing")
        if tag == "Component" and "class" not in node:
            raise InputError(where, "field 'class' is missing")

    def _check_container(self, node: dict[str, Any], where: str) -> None:
        for kind, fields in self._constraints(node, where).items():
            if kind != "spatial" and any((fields or {}).values()):
                raise InputError(
                    f"{where}.constraints.{kind}", "a container has no loops and stores nothing", "spatial"
                )

    def _attributes(self, node: dict[str, Any], inherited: dict[str, Any], where: str) -> dict[str, Any]:
        own = node.get("attributes") or {}
        if not isinstance(own, dict):
            raise InputError(f"{where}.attributes", f"found {own!r}", "a mapping")
        scope = self.scope | inherited | own
        values = {}
        for key, expression in own.items():
            # An attribute may be written in terms of the variable of its own name (`technology: technology`).
            visible = {k: v for k, v in scope.items() if k != key}
            if key in self.scope:
                visible[key] = self.scope[key]
            values[key] = evaluate(expression, visible, f"{where}.attributes.{key}")
        return inherited | values

    def _fanout(self, node: dict[str, Any], name: str, where: str) -> Fanout | None:
        spatial = node.get("spatial") or {}
        if not isinstance(spatial, dict) or not set(spatial) <= {"meshX", "meshY"}:
            raise InputError(f"{where}.spatial", f"found {spatial!r}", "meshX and meshY")
        mesh = {}
        for axis in ("meshX", "meshY"):
            size = evaluate(spatial.get(axis, 1), self.scope, f"{where}.spatial.{axis}")
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise InputError(f"{where}.spatial.{axis}", f"found {size!r}", "a whole number, at least 1")
            mesh[axis] = size
        constraints = self._constraints(node, where)
        if mesh["meshX"] * mesh["meshY"] == 1:
            return None
        spatial_constraint = constraints.get("spatial") or {}
        return Fanout(
            f"inter_{name}_spatial",
            mesh["meshX"],
            mesh["meshY"],
            self._loops(spatial_constraint, f"{where}.constraints.spatial"),
            frozenset(self._tensors(spatial_constraint, "no_link_transfer", f"{where}.constraints.spatial")),
        )

    def _storage(self, node: dict[str, Any], name: str, attributes: dict[str, Any], where: str) -> Storage:
        for key, value in attributes.items():
            if key in _NEUTRAL_ATTRIBUTES and value is not None and value not in _NEUTRAL_ATTRIBUTES[key]:
                neutral = ", ".join(map(str, _NEUTRAL_ATTRIBUTES[key])) or "leave it out"
                raise InputError(f"{where}.attributes.{key}", f"{value!r} is not supported", neutral)
        if node["class"] in _COMPUTE_CLASSES:
            raise InputError(where, f"compute class {node['class']!r} before the last node", "one compute node, last")
        constraints = self._constraints(node, where)
        dataspace = constraints.get("dataspace") or {}
        keep = dict.fromkeys(self._tensors(dataspace, "keep", f"{where}.constraints.dataspace"), True)
        for tensor in self._tensors(dataspace, "bypass", f"{where}.constraints.dataspace"):
            if tensor in keep:
                raise InputError(f"{where}.constraints.dataspace", f"{tensor} is both kept and bypassed")
            keep[tensor] = False
        number = _Numbers(attributes, f"{where}.attributes")
        datawidth = number.whole("datawidth", "word_bits", "word_width", default=8)
        width = number.whole("width", "memory_width", "data_storage_width", default=None)
        block = number.whole("block_size", "n_words", default=None)
        if width is not None:
            if width % (datawidth * (block or 1)) != 0:
                raise InputError(f"{where}.attributes.width", f"{width} bits is not a multiple of "
                                 f"{datawidth * (block or 1)} (datawidth x block_size)")  # fmt: skip
            block = block or width // datawidth
        block = block or 1
        depth = number.whole("depth", "memory_depth", "data_storage_depth", default=None)
        entries = number.whole("entries", default=None)
        kilobytes = number.whole("sizeKB", default=None)
        if sum(x is not None for x in (depth, entries, kilobytes)) > 1:
            raise InputError(f"{where}.attributes", "more than one size is given", "one of depth, entries, sizeKB")
        capacity = entries
        if depth is not None:
            capacity = depth * block
        elif kilobytes is not None:
            capacity = kilobytes * 1024 * 8 // datawidth
        buffering = number.real("multiple_buffering", 1.0)
        if capacity is not None:
            capacity = math.floor(capacity / buffering)
        bandwidth = {k: number.real(k, None) for k in ("read_bandwidth", "write_bandwidth", "shared_bandwidth")}
        return Storage(
            name=name,
            component=str(node["class"]),
            attributes=attributes,
            datawidth=datawidth,
            block_size=block,
            capacity=capacity,
            keep=keep,
            temporal=self._loops(constraints.get("temporal") or {}, f"{where}.constraints.temporal"),
            **bandwidth,
        )

    def _constraints(self, node: dict[str, Any], where: str) -> dict[str, Any]:
        constraints = node.get("constraints") or {}
        for kind, fields in constraints.items():
            allowed = _CONSTRAINT_FIELDS.get(kind)
            if allowed is None:
                raise InputError(f"{where}.constraints", f"{kind!r} is not supported", sorted(_CONSTRAINT_FIELDS))
            for key, value in (fields or {}).items():
                if key not in allowed and value not in (None, [], {}):
                    raise InputError(f"{where}.constraints.{kind}", f"{key!r} is not supported", sorted(allowed))
        return dict(constraints)

    def _tensors(self, fields: dict[str, Any], key: str, where: str) -> list[str]:
        found = fields.get(key) or []
        for tensor in found:
            if tensor not in self.tensors:
                raise InputError(f"{where}.{key}", f"unknown tensor {tensor!r}", self.tensors)
        return list(found)

    def _loops(self, fields: dict[str, Any], where: str) -> LoopConstraint:
        bounds: dict[str, dict[str, int]] = {"=": {}, "<=": {}, ">=": {}}
        factors = fields.get("factors") or []
        for item in re.split(r"[\s,]+", factors.strip()) if isinstance(factors, str) else factors:
            match = re.fullmatch(r"\s*([A-Za-z]+)\s*(<=|>=|=)\s*(-?\d+)\s*", str(item))
            if not match or match[1] not in self.dimensions:
                raise InputError(f"{where}.factors", f"found {item!r}", f"X=n, X<=n or X>=n with a dimension of "
                                 f"{', '.join(self.dimensions)}")  # fmt: skip
            dimension, relation, value = match[1], match[2], int(match[3])
            if relation == "=" and value == -1:
                continue  # Timeloop's way of writing "whatever remains"
            if value < 1:
                raise InputError(f"{where}.factors", f"found {item!r}", "a factor of at least 1, or -1 for the rest")
            if dimension in bounds[relation]:
                raise InputError(f"{where}.factors", f"{dimension} is given twice")
            bounds[relation][dimension] = value
        for key, relation in (("default_max_factor", "<="), ("default_min_factor", ">=")):
            if fields.get(key) is not None:
                for d in self.dimensions:
                    if d not in bounds["="]:
                        bounds[relation].setdefault(d, int(fields[key]))
        inner, outer = self._permutation(fields.get("permutation") or [], f"{where}.permutation")
        split = fields.get("split")
        if split is not None and (isinstance(split, bool) or not isinstance(split, int) or split < 0):
            raise InputError(f"{where}.split", f"found {split!r}", "a whole number of loops on X")
        return LoopConstraint(bounds["="], bounds["<="], bounds[">="], inner, outer, split)

    def _permutation(self, found: Any, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if isinstance(found, str):
            found = [s for s in (found.split(",") if "," in found else found) if s.strip()]
        names = [str(x).strip() for x in found]
        if "_" in names:
            cut = names.index("_")
            inner, outer = names[:cut], names[cut + 1 :]
        else:
            inner, outer = names, []
        for name in (*inner, *outer):
            if name not in self.dimensions:
                raise InputError(where, f"unknown dimension {name!r}", self.dimensions)
        if len(set(inner + outer)) < len(inner + outer):
            raise InputError(where, f"a dimension is listed twice in {names}")
        return tuple(inner), tuple(outer)

    def _check_keep(self, spec: Spec) -> None:
        for tensor in self.tensors:
            if all(s.keep.get(tensor) is False for s in spec.storages):
                raise InputError(f"{self.where}: architecture", f"{tensor} is bypassed at every level")


class _Numbers:
    """Numeric attributes by any of Timeloop's spellings."""

    def __init__(self, attributes: Mapping[str, Any], where: str) -> None:
        self.attributes, self.where = attributes, where

    def whole(self, *names: str, default: int | None) -> Any:
        for name in names:
            value = self.attributes.get(name)
            if value is None:
                continue
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{self.where}.{name}", f"found {value!r}", "a whole number, at least 1")
            return value
        return default

    def real(self, name: str, default: float | None) -> Any:
        value = self.attributes.get(name, default)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0):
            raise InputError(f"{self.where}.{name}", f"found {value!r}", "a positive number")
        return value
