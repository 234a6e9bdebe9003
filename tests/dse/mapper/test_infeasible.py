"""Reasons for no mapping: the sizes they name are the smallest, and lines read as they should."""

from __future__ import annotations

import copy
import itertools
import math
import re
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dse.core.errors import InputError
from dse.hardware.constraints import for_layer
from dse.hardware.energy.components import ComponentLibrary
from dse.hardware.energy.ert import Ert
from dse.hardware.instance import embedded_energies, read_arch
from dse.hardware.spec import Fanout, Spec, Storage
from dse.hardware.spec_reader import SpecFile
from dse.mapper import search
from dse.mapper.why_not.infeasible import explain
from dse.mapper.why_not.smallest_fit import FanoutGrowth, Growth, growths
from dse.workload.problem import CONV_DIMENSIONS, Problem, conv_problem
from tests.dse.mapper import brute_force
from tests.dse.mapper.brute_force import search_perfect

TENSORS = ("Weights", "Inputs", "Outputs")
VGG = {"C": 256, "M": 512, "P": 28, "Q": 28, "R": 3, "S": 3}  # conv4_1 of VGG-16

Edit = Callable[[dict[str, Any]], None]


# Against brute force


def any_mapping(spec: Spec, problem: Problem) -> bool:
    """Whether some factors, in any order, satisfy constraints and sizes: all of them, one by one."""
    slots = [(level, axis) for level in spec.levels for axis in (("x", "y") if isinstance(level, Fanout) else ("t",))]
    dims = [d for d, n in problem.bound.items() if n > 1]
    keeps = list(brute_force._keeps(spec, problem))
    for splits in itertools.product(*(allowed_splits(d, problem.bound[d], slots) for d in dims)):
        factors = [{d: s[i] for d, s in zip(dims, splits, strict=True) if s[i] > 1} for i in range(len(slots))]
        if brute_force._allowed(problem, slots, factors) and fits(spec, problem, slots, factors, keeps):
            return True
    return False


def allowed_splits(d: str, bound: int, slots: list) -> list[tuple[int, ...]]:
    """Factors of one dimension at all levels that constraints and meshes allow while all others are 1."""
    alone = SimpleNamespace(dimensions=(d,))
    splits = brute_force._splits(bound, len(slots))
    return [s for s in splits if brute_force._allowed(alone, slots, [{d: n} if n > 1 else {} for n in s])]


def fits(spec: Spec, problem: Problem, slots: list, factors: list[dict[str, int]], keeps: list) -> bool:
    for i, (level, axis) in enumerate(slots):
        sides = tuple(factors[i].items()), tuple(factors[min(i + 1, len(slots) - 1)].items())
        if axis == "x" and not brute_force._split_fits(level, problem, *sides):
            return False
    words: dict[str, dict[str, int]] = {}
    for i, (level, axis) in enumerate(slots):
        tile = {d: math.prod(f.get(d, 1) for f in factors[i:]) for d in problem.dimensions}
        if axis == "t":
            words[level.name] = {
                t.name: math.prod(1 + sum(c * (tile[d] - 1) for d, c in axes) for axes in t.axes)
                for t in problem.data_spaces
            }
    return any(
        all(s.capacity is None or sum(needed(spec, problem, keep, s, words[s.name]).values()) <= s.capacity
            for s in spec.storages)
        for keep in keeps
    )  # fmt: skip


def needed(spec: Spec, problem: Problem, keep: dict, storage: Storage, tile: dict[str, int]) -> dict[str, int]:
    """Words of the kept tensors: of those that no memory outside keeps at least an instance's share of the whole."""
    outside = list(itertools.takewhile(lambda level: level is not storage, spec.levels))
    instances = math.prod(level.mesh_x * level.mesh_y for level in outside if isinstance(level, Fanout))
    kept_outside = {t for level in outside if isinstance(level, Storage) for t in keep[level.name]}
    share = {t: 0 if t in kept_outside else math.ceil(problem.tensor_size(t) / instances) for t in keep[storage.name]}
    return {t: max(tile[t], share[t]) for t in keep[storage.name]}


@st.composite
def cases(draw: Any) -> tuple[Spec, Problem]:
    """A small problem, and hardware that is often too small for it or constrained against it."""
    sizes = {"C": [2, 3, 4], "M": [1, 2, 4, 6], "P": [1, 3, 4], "R": [1, 2, 3], "Hstride": [1, 2]}
    layer = {key: draw(st.sampled_from(values)) for key, values in sizes.items()}
    problem = conv_problem(layer)
    nodes = [memory(draw, layer, "dram", keep=draw(st.booleans()), rows=None)]
    nodes += [memory(draw, layer, "buffer", keep=False, rows=draw(st.integers(1, 12)))]
    if draw(st.integers(0, 3)):
        x, y = draw(st.sampled_from([(2, 1), (3, 2), (1, 4), (2, 2), (4, 1)]))
        loops = constraint(draw, layer)
        if draw(st.booleans()):
            loops["split"] = draw(st.sampled_from([0, 2, 4, 6, 999]))
        if draw(st.booleans()):
            loops["permutation"] = draw(st.permutations(CONV_DIMENSIONS))
        nodes.append({"!": "Container", "name": "pe", "spatial": {"meshX": x, "meshY": y}})
        nodes[-1]["constraints"] = {"spatial": loops}
    for name in draw(st.sampled_from([[], ["spad"]])):
        nodes.append(memory(draw, layer, name, keep=False, rows=draw(st.integers(1, 6))))
    nodes.append({"!": "Component", "name": "mac", "class": "intmac"})
    bypassed = {t for t in TENSORS if all(t in n["constraints"]["dataspace"]["bypass"] for n in nodes if is_memory(n))}
    assume(not bypassed)
    document = {"architecture": {"version": 0.4, "nodes": nodes}}
    return SpecFile(document, "hardware").instance(problem=problem), problem


def is_memory(node: dict[str, Any]) -> bool:
    return node.get("class") == "SRAM"


def memory(draw: Any, layer: dict[str, int], name: str, keep: bool, rows: int | None) -> dict[str, Any]:
    block = draw(st.sampled_from([1, 2, 3]))
    attributes: dict[str, Any] = {"datawidth": 8, "width": 8 * block}
    if rows is not None:
        attributes |= {draw(st.sampled_from(["depth", "depth", "entries"])): rows}
        attributes["multiple_buffering"] = draw(st.sampled_from([1, 1, 2, 1.5]))
        assume(rows * (block if "depth" in attributes else 1) >= 2)
    choices = {t: "keep" if keep else draw(st.sampled_from(["keep", "bypass", "open"])) for t in TENSORS}
    dataspace = {kind: [t for t, c in choices.items() if c == kind] for kind in ("keep", "bypass")}
    loops = constraint(draw, layer) if rows is not None or draw(st.integers(0, 3)) == 0 else {}
    constraints = {"dataspace": dataspace, "temporal": loops}
    return {"!": "Component", "name": name, "class": "SRAM", "attributes": attributes, "constraints": constraints}


def constraint(draw: Any, layer: dict[str, int]) -> dict[str, Any]:
    dims = [d for d in ("C", "M", "P", "R") if layer[d] > 1]
    chosen = draw(st.lists(st.sampled_from(dims), max_size=2, unique=True)) if dims else []
    own = {d: f"={layer[d]}" for d in chosen}
    some = st.sampled_from(["=1", "=2", "=3", "<=1", "<=2", ">=2", ">=3"])
    return {"factors": [d + (own[d] if draw(st.booleans()) else draw(some)) for d in chosen]}


@given(cases())
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
def test_reasons_agree_with_brute_force(case: tuple[Spec, Problem]) -> None:
    given, problem = case
    spec = for_layer(given, problem)
    mapped = any_mapping(spec, problem)
    line = explain(spec, problem)
    assert (line == "") == mapped
    assert "\n" not in line
    ert = Ert({**{s.name: {"read": 1, "write": 1, "leak": 0} for s in spec.storages}, "mac": {"compute": 1}})
    assert search_perfect(given, problem, ert).reason == line
    at_home = all(spec.storages[0].keep.get(t, True) for t in TENSORS)
    for group in growths(spec, problem):
        assert any_mapping(resized(spec, [(g, g.grown) for g in group]), problem)
        # Elsewhere a larger fan-out divides what a memory must hold, so that sizes that fit need not be the least.
        for g in group if at_home else ():
            for less in smaller(g):
                assert not any_mapping(resized(spec, [(h, less if h is g else h.grown) for h in group]), problem)
    if line.startswith("factors of"):
        rest = line.partition(" would do, but then ")[2]
        changed = with_factors(spec, line)
        assert explain(changed, problem) == rest and any_mapping(changed, problem) == (rest == "")


def resized(spec: Spec, sizes: list[tuple[Growth, Storage | Fanout]]) -> Spec:
    levels = list(spec.levels)
    for growth, level in sizes:
        assert levels[growth.index] == growth.level
        levels[growth.index] = level
    return replace(spec, levels=tuple(levels))


def smaller(growth: Growth) -> list[Storage | Fanout]:
    """The grown level with one row less; with one column less and with one row less of a mesh that has grown there."""
    grown = growth.grown
    if isinstance(growth, FanoutGrowth):
        return [
            replace(grown, **{axis: getattr(grown, axis) - 1})
            for axis in ("mesh_x", "mesh_y")
            if getattr(grown, axis) > getattr(growth.level, axis)
        ]
    name = "depth" if "depth" in grown.attributes else "entries"
    rows = grown.attributes[name] - 1
    words = rows * (grown.block_size if name == "depth" else 1)
    return [replace(grown, capacity=math.floor(words / grown.attributes["multiple_buffering"]))]


def with_factors(spec: Spec, line: str) -> Spec:
    """The specification with the change of factors that a line proposes first."""
    proposed = line.split(": ")[1].split(" would ")[0]
    levels = {level.name: level for level in spec.levels}
    for d, sign, n, name in re.findall(r"([A-Z])(=|<=|>=)(\d+) at (\w+)", proposed):
        level = levels[name]
        loops = level.spatial if isinstance(level, Fanout) else level.temporal
        field = {"=": "factors", "<=": "at_most", ">=": "at_least"}[sign]
        loops = replace(loops, **{field: {**getattr(loops, field), d: int(n)}})
        levels[name] = replace(level, **{"spatial" if isinstance(level, Fanout) else "temporal": loops})
    return replace(spec, levels=tuple(levels.values()))


# Lines


def edited(*edits: Edit, layer: dict[str, int] = VGG) -> tuple[Spec, Problem]:
    """A layer on the shipped array after some edits of its nodes, which come by name."""
    document = copy.deepcopy(read_arch().document)
    nodes = {node["name"]: node for node in document["architecture"]["nodes"]}
    for edit in edits:
        edit(nodes)
    problem = conv_problem(layer)
    return SpecFile(document, "arch").instance(problem=problem), problem


def sized(name: str, **attributes: int | None) -> Edit:
    return lambda nodes: nodes[name]["attributes"].update(attributes)


def factors(name: str, *given: str, kind: str = "temporal") -> Edit:
    """Replaces what a level's constraints say about some dimensions (of one letter)."""

    def edit(nodes: dict[str, Any]) -> None:
        loops = nodes[name]["constraints"].setdefault(kind, {})
        loops["factors"] = [f for f in loops.get("factors", []) if f[0] not in {g[0] for g in given}] + list(given)

    return edit


def keeping(name: str, *tensors: str) -> Edit:
    return lambda nodes: nodes[name]["constraints"].update(dataspace={"keep": list(tensors)})


def fixed_everywhere(factor: str) -> list[Edit]:
    temporal = ("dram_weights", "dram_ofmap", "dram_ifmap", "glb_psum", "glb_ifmap", "ifmap_spad", "weights_spad")
    spatial = [factors(name, factor, kind="spatial") for name in ("pe_column", "pe_row")]
    return [factors(name, factor) for name in (*temporal, "psum_spad")] + spatial


SMALL_WEIGHTS = [sized("weights_spad", depth=1), factors("weights_spad", "R=3", "C=2")]

LINES = {
    "capacity": (
        SMALL_WEIGHTS,
        "weights_spad holds 2 words (depth 1), Weights needs at least 6 under the constraints: depth 3 would fit",
    ),
    "capacity that every tile needs": (  # all 256 channels of a 3 x 3 window, as C, R and S are 1 at all levels outside
        [sized("glb_ifmap", depth=1)],
        "glb_ifmap holds 8 words (depth 1), Inputs needs at least 2304 under the constraints: depth 288 would fit",
    ),
    "capacity in other units": (
        [sized("glb_ifmap", depth=None, sizeKB=1, multiple_buffering=2)],
        "glb_ifmap holds 512 words (sizeKB 1), Inputs needs at least 2304 under the constraints: sizeKB 5 would fit",
    ),
    "capacity for several tensors": (
        [sized("ifmap_spad", depth=1), keeping("ifmap_spad", *TENSORS)],
        "ifmap_spad holds 2 words (depth 1), Weights (1), Inputs (1) and Outputs (1) need at least 3 under the "
        "constraints: depth 2 would fit",
    ),
    "one of two levels": (
        [*fixed_everywhere("M=1"), factors("pe_row", "M<=512", kind="spatial"), factors("psum_spad", "M<=512")],
        "inter_pe_row_spatial has 1 x 12 instances, M=32 on Y needs at least 1 x 32 under the constraints: meshY 32 "
        "would fit, or depth 64 of psum_spad",
    ),
    "several levels": (
        [*SMALL_WEIGHTS, sized("psum_spad", depth=3), factors("psum_spad", "M>=4")],
        "weights_spad holds 2 words (depth 1), Weights needs at least 24 under the constraints; psum_spad holds 3 "
        "words (depth 3), Outputs needs at least 4 under the constraints: depth 12 of weights_spad and depth 4 of "
        "psum_spad would fit together, not alone",
    ),
    "memory and fan-out": (
        [*SMALL_WEIGHTS, factors("pe_row", "S=3", "M=8", kind="spatial")],
        "inter_pe_row_spatial has 1 x 12 instances, M=8 x S=3 on Y need at least 1 x 24 under the constraints; "
        "weights_spad holds 2 words (depth 1), Weights needs at least 6 under the constraints: meshY 24 of "
        "inter_pe_row_spatial and depth 3 of weights_spad would fit together, not alone",
    ),
    "fan-out along X": (
        [factors("pe_column", "Q=28", kind="spatial")],
        "inter_pe_column_spatial has 14 x 1 instances, Q=28 on X needs at least 28 x 1 under the constraints: meshX 28 "
        "would fit",
    ),
    "fan-out along X and Y": (
        [lambda nodes: nodes["pe_row"].update(spatial={"meshX": 2, "meshY": 2}),
         lambda nodes: nodes["pe_row"]["constraints"].update(spatial={"factors": ["C=4", "S=3"]})],
        "inter_pe_row_spatial has 2 x 2 instances, C=4 on X and S=3 on Y need at least 4 x 3 under the constraints: "
        "meshX 4 with meshY 3 would fit",
    ),
    "factors all fixed": (
        fixed_everywhere("C=1"),
        "factors of C multiply to 1 under C=1 at every level, the layer has 256: C=256 at dram_weights would fit",
    ),
    "factors at most": (
        [*fixed_everywhere("C=1"), factors("weights_spad", "C<=3"), factors("glb_ifmap", "C<=8")],
        "factors of C multiply to at most 24 under C<=8 at glb_ifmap, C<=3 at weights_spad and C=1 at all other "
        "levels, the layer has 256: C=16 at dram_weights would fit",
    ),
    "a factor that does not divide": (
        [factors("pe_row", "S=11", "M=2", kind="spatial")],
        "factors of S multiply to a multiple of 11 under S=11 at inter_pe_row_spatial, the layer has 3: S=3 at "
        "inter_pe_row_spatial would fit",
    ),
    "factors at least": (
        [factors("pe_row", "S>=2", kind="spatial"), factors("glb_ifmap", "S>=2")],
        "factors of S multiply to at least 4 under S>=2 at glb_ifmap and inter_pe_row_spatial, the layer has 3: S>=1 "
        "at glb_ifmap would fit",
    ),
    "factors between which the bound falls": (
        [*fixed_everywhere("S=1"), factors("pe_row", "S<=2", kind="spatial"), factors("weights_spad", "S<=2")],
        "factors of S never fit S<=2 at inter_pe_row_spatial and weights_spad and S=1 at all other levels, the layer "
        "has 3: S<=3 at inter_pe_row_spatial would fit",
    ),
    "factors that need two changes": (
        [factors("pe_row", "S=2", kind="spatial"), factors("glb_ifmap", "S=5")],
        "factors of S multiply to 10 under S=5 at glb_ifmap, S=2 at inter_pe_row_spatial and S=1 at all other levels, "
        "the layer has 3: S=3 at glb_ifmap and S=1 at inter_pe_row_spatial would fit",
    ),
    "a factor, and then a size": (
        [*SMALL_WEIGHTS, *fixed_everywhere("M=1")],
        "factors of M multiply to 1 under M=1 at every level, the layer has 512: M=512 at dram_weights would do, but "
        "then weights_spad holds 2 words (depth 1), Weights needs at least 6 under the constraints: depth 3 would fit",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_line(name: str) -> None:
    edits, line = LINES[name]
    assert explain(*edited(*edits)) == line


def test_mesh_of_an_11_by_11_filter() -> None:
    alexnet = {"C": 3, "M": 96, "P": 55, "Q": 55, "R": 11, "S": 11, "Hstride": 4, "Wstride": 4}
    spec, problem = edited(factors("pe_row", "S=11", "M=2", kind="spatial"), layer=alexnet)
    assert explain(spec, problem) == (
        "inter_pe_row_spatial has 1 x 12 instances, M=2 x S=11 on Y need at least 1 x 22 under the constraints: "
        "meshY 22 would fit"
    )


@pytest.mark.parametrize(("channels", "depth", "covered"), [(160_000, 20_000, True), (640_000, 80_000, False)])
def test_sizes_that_no_table_covers_are_not_proposed(channels: int, depth: int, covered: bool) -> None:
    """What the line names is followed: it maps where it is proposed, and is refused where the line says so."""
    edits, layer = [factors("dram_ifmap", "C=1")], {"C": channels, "M": 4}
    spec, problem = edited(*edits, layer=layer)
    line = search(spec, problem, embedded_energies(spec, ComponentLibrary.load(), "arch"), remainders=False).reason
    grown, _ = edited(*edits, sized("glb_ifmap", depth=depth), layer=layer)
    start = f"glb_ifmap holds 65536 words (depth 8192), Inputs needs at least {channels} under the constraints: depth "
    if covered:
        assert line == f"{start}{depth} would fit"
        ert = embedded_energies(grown, ComponentLibrary.load(), "arch")
        assert search(grown, problem, ert, remainders=False).mapping is not None
    else:
        assert line.startswith(
            f"{start}{depth} of glb_ifmap would fit, but there is no energy for that: arch: glb_ifmap"
        )
        assert line.endswith(f"depth: {depth} is outside the table (allowed: 64 to 65536)")
        with pytest.raises(InputError, match=f"{depth} is outside the table"):
            embedded_energies(grown, ComponentLibrary.load(), "arch")


def test_size_without_an_attribute_is_in_words() -> None:
    spec, problem = edited(*SMALL_WEIGHTS)
    levels = tuple(replace(s, capacity=1, attributes={}) if s.name == "weights_spad" else s for s in spec.levels)
    assert explain(replace(spec, levels=levels), problem) == (
        "weights_spad holds 1 word, Weights needs at least 6 under the constraints: 6 words would fit"
    )


def test_tensor_that_no_level_keeps() -> None:
    spec, problem = edited()
    levels = tuple(replace(s, keep=s.keep | {"Outputs": False}) if isinstance(s, Storage) else s for s in spec.levels)
    assert explain(replace(spec, levels=levels), problem) == "Outputs is bypassed at every level"


def test_layer_of_one_operation() -> None:
    spec, problem = edited(sized("ifmap_spad", depth=1), keeping("ifmap_spad", *TENSORS), layer={})
    assert explain(spec, problem).endswith("need at least 3 under the constraints: depth 2 would fit")


def test_answers_within_a_second() -> None:
    spec, problem = edited(*SMALL_WEIGHTS, sized("glb_ifmap", depth=1), layer={**VGG, "P": 224, "Q": 224})
    start = time.process_time()
    assert explain(spec, problem)
    assert time.process_time() - start < 1


def test_no_reason_where_there_is_a_mapping() -> None:
    assert explain(*edited()) == "" and growths(*edited()) == []
    assert explain(*edited(*SMALL_WEIGHTS, keeping("weights_spad"))) == ""  # left open, so the mapper may bypass it
