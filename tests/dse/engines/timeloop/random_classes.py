"""Random nested component classes, for the embedded estimator and the real Accelergy to agree on.

`python -m tests.dse.engines.timeloop.random_classes FIRST LAST` compares those of these seeds and prints what came out.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import yaml

from dse.core.errors import InputError
from dse.engines.timeloop import accelergy
from dse.hardware.energy.components import ComponentLibrary
from dse.hardware.instance import embedded_energies
from dse.hardware.spec import Compute, LoopConstraint, Spec, Storage

ACTIONS = {
    "aladdin_adder": ["add"],
    "aladdin_comparator": ["compare"],
    "aladdin_multiplier": ["multiply"],
    "aladdin_register": ["read", "write", "leak"],
    "SRAM": ["read", "write", "update"],
    "DRAM": ["read", "write"],
}
FORMS = (
    "({a} + {b})", "({a} * {b})", "max({a}, {b})", "min({a}, {b})", "abs({a} - {b})", "({a} if {a} > {b} else {b})",
    "ceil({a} / 3)", "floor({a})", "({a} // 2 + 1)", "round({a} * 1.25)", "sqrt({a})", "int({a} % 5)", "{a}**0.5",
    "ceil(log2({a} + 1))",
)  # fmt: skip
COMPUTE = [("add", 1)]


class Text(str):
    """Text that is quoted in the file; every other string is an expression."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> Any:
        return True


_Dumper.add_representer(Text, lambda d, text: d.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def random_classes(seed: Any) -> Any:
    """Text of a component file of four classes, each of which may contain the ones before, and a specification."""
    random = Random(seed)
    classes: list[Any] = []
    for i in range(4):
        classes.append(_class(random, f"k{i}_SRAM", classes))
    document = {"compound_components": {"version": 0.4, "classes": classes}}
    storages = []
    for c in classes:
        needed = [name for name, value in c["attributes"].items() if value == "must_specify"]
        attributes = {"technology": "45nm", **{name: random.choice([1, 2, 3, 5, 7.5, 8]) for name in needed}}
        storages.append(Storage(c["name"][:2], c["name"], attributes, 8, 1, None, {}, LoopConstraint()))
    mac = Compute("mac", "aladdin_adder", {"width": 8, "technology": "45nm"})
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=10_000), Spec(tuple(storages), mac)


def _expression(random: Any, names: Any, depth: Any = 0) -> Any:
    if depth > 2 or random.random() < 0.3:
        return random.choice(names)
    if depth and random.random() < 0.3:  # a number alone would be quoted in the file
        return random.choice(["1", "2", "3", "0.5", "1.5"])
    a, b = _expression(random, names, depth + 1), _expression(random, names, depth + 1)
    return random.choice(FORMS).format(a=a, b=b)


def _class(random: Any, name: Any, others: Any) -> Any:
    attributes = {"technology": Text("45nm"), "kind": Text(random.choice(["LPDDR4", "HBM2"]))}
    names: list[str] = []
    for letter in "abcd"[-random.randint(2, 4) :]:
        given = not names or random.random() < 0.5
        attributes[letter] = "must_specify" if given else _expression(random, names)
        names.append(letter)
    parts, actions_of = [], {}
    for i in range(random.randint(1, 3)):
        part, actions_of[f"s{i}"] = _part(random, f"s{i}", names, others)
        parts.append(part)
    actions = [_action(random, action, names, actions_of) for action in ("read", "write", "compute")]
    return {"name": name, "attributes": attributes, "subcomponents": parts, "actions": actions}


def _part(random: Any, name: Any, names: Any, others: Any) -> Any:
    """A part and its actions with their arguments."""
    if others and random.random() < 0.4:
        other = random.choice(others)
        needed = [a for a, value in other["attributes"].items() if value == "must_specify"]
        attributes = {a: f"max(1, min(9, {_expression(random, names)}))" for a in needed}
        component_class, actions = other["name"], [(a["name"], a["arguments"]) for a in other["actions"]]
    else:
        component_class = random.choice(list(ACTIONS))
        attributes = _primitive_attributes(random, component_class, names)
        actions = [(action, {}) for action in ACTIONS[component_class]]
    part = {"name": name, "class": component_class, "attributes": attributes}
    if random.random() < 0.4:
        part["energy_scale"] = f"abs({_expression(random, names)})"
    return part, actions


def _primitive_attributes(random: Any, component_class: Any, names: Any) -> Any:
    def within(low: Any, high: Any) -> Any:
        return f"min({high}, max({low}, {_expression(random, names)}))"

    match component_class:
        case "SRAM":
            depth = f"max(256, min(4096, 100 * {_expression(random, names)}))"
            return {"width": within(16, 64), "depth": depth, **({"n_banks": 2} if random.random() < 0.5 else {})}
        case "DRAM":
            return {"width": within(1, 64), "type": "kind"}
        case "aladdin_comparator":
            return {"n_bits": within(4, 8)}
        case "aladdin_multiplier" if random.random() < 0.5:
            return {"width_a": within(1, 16), "width_b": within(1, 16)}
    return {"width": within(1, 16)}


def _action(random: Any, name: Any, names: Any, actions_of: Any) -> Any:
    arguments = {}
    if random.random() < 0.4:  # also named like an attribute
        arguments = {random.choice(["n", *names]): f"0..{random.randint(0, 3)}", "m": "1..min(3, 1 + floor(d))"}
    scope = [*names, *arguments]
    uses = []
    for part in random.sample(list(actions_of), random.randint(1, len(actions_of))):
        steps = []
        for _ in range(random.randint(1, 2)):
            action, wanted = random.choice(actions_of[part])
            step = {"name": action, "arguments": {a: f"max(0, {_expression(random, scope)})" for a in wanted}}
            if random.random() < 0.5:
                step[random.choice(["repeat", "energy_scale"])] = f"abs({_expression(random, scope)})"
            steps.append(step)
        index = random.choice(["", "[2]", "[0..1]", "[0..d]", "[0..max(1, int(d))]"])
        uses.append({"name": part + index, "actions": steps})
    return {"name": name, "arguments": arguments, "subcomponents": uses}


def disagreements(seed: Any, folder: Any, as_written: Any) -> Any:
    """Where the two differ; `as_written` gives Accelergy the text itself. InputError where one of them refuses."""
    text, spec = random_classes(seed)
    path = folder / f"random{seed}.yaml"
    path.write_text(text)
    library = ComponentLibrary.load([path])
    embedded = embedded_energies(spec, library, path, COMPUTE)
    given = accelergy.class_files  # type: ignore[attr-defined]
    try:
        if as_written:
            accelergy.class_files = lambda *_: {path.name: text}  # type: ignore[attr-defined]
        return accelergy.differences(embedded, accelergy.energies(spec, library, path, COMPUTE))
    finally:
        accelergy.class_files = given  # type: ignore[attr-defined]


def main() -> None:
    first, last = map(int, sys.argv[1:])
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, last):
            for as_written in (False, True):
                try:
                    found = disagreements(seed, Path(folder), as_written)
                except InputError as e:
                    print(seed, e)
                    outcomes["refused"] += 1
                    continue
                outcomes["different" if found else "equal"] += 1
                if found:
                    print(seed, as_written, found)
    print(dict(outcomes))


if __name__ == "__main__":
    main()
