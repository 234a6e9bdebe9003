"""The tree of nodes of a v4 specification, as the chain of components and containers that Timeloop makes of it.

`!Hierarchical`, `!Pipelined` and `!Parallel` are flattened in the order of the file. In each branch of a `!Parallel`
the tensors that other branches keep are bypassed. Sources: `version_transpilers/v4_to_v3.py`,
`constraint_attacher.py` and `dataspace2branch.py` of Timeloop's front end (timeloop-python b8aaf2c).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dse.core import fields
from dse.core.documents import TAG
from dse.core.errors import InputError

BRANCHES = ("Hierarchical", "Parallel", "Pipelined")
LEAVES = ("Component", "Container", "Nothing")

GROUPS = ("dataspace", "temporal", "spatial", "max_overbooked_proportion")
"""Kinds of constraints of a node."""

_FIELDS = {
    "Component": ("name", "class", "subclass", "attributes", "constraints", "spatial", "required_actions", "enabled",
                  "area_scale", "energy_scale", "sparse_optimizations"),
    "Container": ("name", "class", "attributes", "constraints", "spatial", "enabled", "networks",
                  "sparse_optimizations"),
    "Nothing": ("name", "class", "constraints"),
}  # fmt: skip
_REQUIRED = {"Component": ("name", "class"), "Container": ("name",), "Nothing": ()}
_SPARSE = "sparse optimisations (Sparseloop) are not modelled"
_UNSUPPORTED = {"networks": "networks as nodes are not modelled", "sparse_optimizations": _SPARSE}

Keeps = Callable[[Mapping[str, Any], str], Mapping[str, bool]]
"""What a `dataspace` group says of each tensor: kept or bypassed. Arguments: the group, and where it stands."""


@dataclass(frozen=True)
class Leaf:
    """A component or container of the chain.

    `constraints` are its groups as they stand in the file, those that are given by the leaf's name elsewhere included.
    `bypassed` are the tensors that other branches of a `!Parallel` keep. A disabled leaf is not in the chain. `turn` is
    its place in the order in which the front end visits leaves: those of a list before those of the list's branches.
    """

    tag: str
    name: str
    component_class: str | None
    subclass: str | None
    attributes: Mapping[str, Any]
    spatial: Mapping[str, Any]
    constraints: Mapping[str, Mapping[str, Any]]
    where: str
    energy_scale: Any = 1
    turn: int = 0
    bypassed: frozenset[str] = frozenset()

    @property
    def is_container(self) -> bool:
        return self.tag == "Container"


@dataclass
class _Branch:
    tag: str
    children: list[_Branch | Leaf]
    where: str

    def leaves(self) -> Iterator[Leaf]:
        for child in self.children:
            yield from child.leaves() if isinstance(child, _Branch) else (child,)


@dataclass
class Tree:
    """The nodes of a specification, and the constraints that name them from outside.

    Args:
        nodes: the list of nodes, outermost first.
        where: the place of this list, for errors.
        targets: constraints as `constraints.targets` gives them, each with the `target` and the `type`.

    Raises:
        InputError: an unknown tag or field, a name that two nodes have, a target that is no node, and what would change
            numbers and is not modelled.
    """

    nodes: Sequence[Any]
    where: str
    targets: Sequence[tuple[Any, str]] = ()
    _root: _Branch = field(init=False)

    def __post_init__(self) -> None:
        extra: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for entry, at in self.targets:
            target, kind, group = _target(entry, at)
            extra.setdefault(target, []).append((kind, group))
        seen: set[str] = set()
        self._root = _branch("Hierarchical", self.nodes, self.where, False, extra, seen)
        _number(self._root, 0)
        if extra:
            raise InputError(self.targets[0][1], f"the target {next(iter(extra))!r} is no node", sorted(seen))

    def leaves(self) -> list[Leaf]:
        """All leaves in the order of the file, as they stand there."""
        return list(self._root.leaves())

    def chain(self, tensors: Sequence[str], keeps: Keeps) -> list[Leaf]:
        """The components and containers that Timeloop sees for problems with these tensors, outermost first.

        Raises:
            InputError: a `!Parallel` of which two branches keep a tensor, or none.
        """
        found = _resolved(self._root, frozenset(tensors), frozenset(tensors), keeps)
        return [leaf for leaf in found if leaf.tag != "Nothing"]


def node_name(node: Any) -> str:
    """The name of a node as it stands in a file; "" if it has none."""
    return str(node.get("name") or "") if isinstance(node, dict) else ""


def named_nodes(nodes: Any) -> Iterator[dict[str, Any]]:
    """All nodes of a list that have a name, those in branches too, in the order of the file."""
    for node in nodes if isinstance(nodes, list) else ():
        if isinstance(node, dict):
            if node.get(TAG) in BRANCHES:
                yield from named_nodes(node.get("nodes"))
            elif node_name(node):
                yield node


def _branch(
    tag: str,
    nodes: Any,
    where: str,
    parallel: bool,
    extra: dict[str, list[tuple[str, dict[str, Any]]]],
    seen: set[str],
) -> _Branch:
    children: list[_Branch | Leaf] = []
    for i, node in enumerate(fields.sequence(nodes, where, fields.anything)):
        at = f"{where}[{i}]"
        kind = node.get(TAG) if isinstance(node, dict) else None
        if kind in BRANCHES:
            inner = {key: value for key, value in node.items() if key != TAG and "ignore" not in str(key)}
            fields.mapping(inner, at, ("nodes", "name"), ("nodes",))
            children.append(_branch(kind, inner["nodes"], f"{at}.nodes", kind == "Parallel", extra, seen))
        elif kind in LEAVES:
            leaf = _leaf(kind, node, at, extra)
            if leaf is None:
                continue
            if leaf.tag != "Nothing":
                if leaf.name in seen:
                    raise InputError(leaf.where, f"a second node is named {leaf.name!r}", "unique names")
                seen.add(leaf.name)
            if parallel and (leaf.is_container or _mesh_given(leaf)):
                what = "a container" if leaf.is_container else "a component with a fan-out"
                raise InputError(leaf.where, f"{what} directly in a !Parallel: Timeloop's front end refuses it",
                                 hint="put it in a !Hierarchical in the !Parallel")  # fmt: skip
            children.append(leaf)
        else:
            raise InputError(at, _unknown_tag(kind), "!Component, !Container, !Hierarchical, !Parallel, !Pipelined, "
                             "!Nothing")  # fmt: skip
    return _Branch(tag, children, where)


def _number(branch: _Branch, first: int) -> int:
    """Gives all leaves of a branch their turns, from `first` on; returns the next one."""
    for i, child in enumerate(branch.children):
        if isinstance(child, Leaf):
            branch.children[i] = replace(child, turn=first)
            first += 1
    for child in branch.children:
        if isinstance(child, _Branch):
            first = _number(child, first)
    return first


def _unknown_tag(kind: Any) -> str:
    return f"the tag {fields.shown(kind)} is not supported" if kind else "an untagged node is not supported"


def _leaf(
    tag: str, node: dict[str, Any], where: str, extra: dict[str, list[tuple[str, dict[str, Any]]]]
) -> Leaf | None:
    """A leaf; None if it is disabled."""
    found = {key: value for key, value in node.items() if key != TAG and "ignore" not in str(key)}
    if name := node_name(node):
        where += f" ({name})"
    fields.mapping(found, where, _FIELDS[tag], _REQUIRED[tag])
    if found.get("enabled") is not None and not fields.boolean(found["enabled"], f"{where}.enabled"):
        return None
    for key, problem in _UNSUPPORTED.items():
        if key in found and not _is_empty(found[key]):
            raise InputError(f"{where}.{key}", problem, "leave it out")
    name = fields.name(found["name"], f"{where}.name") if tag != "Nothing" else "nothing"
    component_class = fields.name(found["class"], f"{where}.class") if tag == "Component" else None
    subclass = found.get("subclass")
    groups = {
        str(key): dict(fields.optional_mapping(group, f"{where}.constraints.{key}"))
        for key, group in fields.optional_mapping(found.get("constraints"), f"{where}.constraints", GROUPS).items()
    }
    for kind, group in extra.pop(name, ()) if tag != "Nothing" else ():
        groups[kind] = _combined(groups.get(kind, {}), group, f"{where}.constraints.{kind}")
    return Leaf(
        tag=tag,
        name=name,
        component_class=component_class,
        subclass=None if subclass is None else fields.name(subclass, f"{where}.subclass"),
        attributes=fields.optional_mapping(found.get("attributes"), f"{where}.attributes"),
        spatial=fields.optional_mapping(found.get("spatial"), f"{where}.spatial", ("meshX", "meshY")),
        constraints=groups,
        where=where,
        energy_scale=1 if found.get("energy_scale") is None else found["energy_scale"],
    )


def _mesh_given(leaf: Leaf) -> bool:
    return any(size != 1 for size in leaf.spatial.values())


def _is_empty(value: Any) -> bool:
    """Whether a part of a document says nothing: None, an empty list or mapping, or mappings of such."""
    if isinstance(value, dict):
        return all(_is_empty(inner) for inner in value.values())
    return value is None or value == []


def _target(entry: Any, where: str) -> tuple[str, str, dict[str, Any]]:
    """Target, kind and content of a constraint that stands outside the nodes."""
    group = dict(fields.mapping(entry, where, required=("target", "type")))
    target = fields.name(group.pop("target"), f"{where}.target")
    kind = fields.text(group.pop("type"), f"{where}.type")
    kind = {"bypass": "dataspace", "datatype": "dataspace"}.get(kind, kind)
    fields.one_of(kind, f"{where}.type", GROUPS, "type")
    return target, kind, group


def _combined(one: Mapping[str, Any], other: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A constraint that is given twice: lists are joined, other values must be equal."""
    found = dict(one)
    for key, value in other.items():
        before = found.get(key)
        if before in (None, []):
            found[key] = value
        elif isinstance(before, list) and isinstance(value, list) and key != "permutation":
            found[key] = before + [item for item in value if item not in before]
        elif value not in (None, [], before):
            problem = f"is given twice: {fields.shown(before)} and {fields.shown(value)}"
            raise InputError(f"{where}.{key}", problem, "once")
    return found


def _resolved(branch: _Branch, here: frozenset[str], tensors: frozenset[str], keeps: Keeps) -> list[Leaf]:
    """The leaves of a branch, of which `here` are the tensors; `tensors` are all."""
    if branch.tag != "Parallel":
        found: list[Leaf] = []
        for child in branch.children:
            found += _resolved(child, here, tensors, keeps) if isinstance(child, _Branch) else [child]
        return found
    kept: list[frozenset[str]] = []
    for child in branch.children:
        leaves = child.leaves() if isinstance(child, _Branch) else (child,)
        names = {tensor for leaf in leaves for tensor, keep in _keeps(leaf, keeps).items() if keep}
        for before, others in enumerate(kept):
            if both := sorted(names & others):
                raise InputError(f"{branch.where}[{len(kept)}]", f"keeps {', '.join(both)}, as branch {before} does",
                                 "each tensor in one branch of a !Parallel")  # fmt: skip
        kept.append(frozenset(names))
    if missing := sorted(here - frozenset().union(*kept)):
        hint = (
            f"add !Nothing {{constraints: {{dataspace: {{keep: [{', '.join(missing)}]}}}}}} if all branches bypass it"
        )
        raise InputError(branch.where, f"no branch of the !Parallel keeps {', '.join(missing)}", hint=hint)
    found = []
    for child, own in zip(branch.children, kept, strict=True):
        inner = _resolved(child, own, tensors, keeps) if isinstance(child, _Branch) else [child]
        found += [_bypassing(leaf, tensors - own) for leaf in inner]
    return found


def _keeps(leaf: Leaf, keeps: Keeps) -> Mapping[str, bool]:
    return keeps(leaf.constraints.get("dataspace", {}), f"{leaf.where}.constraints.dataspace")


def _bypassing(leaf: Leaf, tensors: frozenset[str]) -> Leaf:
    return replace(leaf, bypassed=leaf.bypassed | tensors)
