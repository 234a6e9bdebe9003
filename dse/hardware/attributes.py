"""Attributes of a specification's nodes: which are read, which cannot change a number, and which are refused.

A name that is in none of these lists is an error, whatever its value, because Timeloop silently ignores a misspelt
name. The lists follow `ParseSpecs` of NVlabs/timeloop 4cf6d4c (`src/model/buffer.cpp`, `network-legacy.cpp`,
`arithmetic.cpp`) and `StorageAttributes` of its Python front end.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from dse.core import fields
from dse.core.errors import InputError, did_you_mean
from dse.hardware.energy.components import ComponentLibrary
from dse.hardware.energy.tables import PRIMITIVE_CLASSES, selecting_attributes

DATAWIDTH = ("datawidth", "word_bits", "word_width")
WIDTH = ("width", "memory_width", "data_storage_width")
BLOCK = ("block_size", "n_words")
DEPTH = ("depth", "memory_depth", "data_storage_depth")
DEFAULT_DATAWIDTH = 16  # Timeloop's `kDefaultWordBits`
GATING = ("has_power_gating", "power_gated_at")

MEMORY = (
    *DATAWIDTH, *WIDTH, *BLOCK, *DEPTH, "entries", "sizeKB", "multiple_buffering",
    "bandwidth", "read_bandwidth", "write_bandwidth", "shared_bandwidth",
    "read_bandwidth_bits", "write_bandwidth_bits", "shared_bandwidth_bits",
    "network_fill_latency", "network_drain_latency", *GATING, "cluster_size",
    "per_dataspace_bandwidth_consumption_scale",
)  # fmt: skip
"""Attributes of a memory that determine counts, capacity, cycles or leakage."""

ESTIMATOR = ("technology", "global_cycle_seconds", "type", "n_banks", "num_banks")
"""Attributes that determine only energies: the embedded tables and Accelergy read them."""

NEUTRAL: Mapping[str, tuple[Any, ...] | None] = {
    # Only energies that Timeloop computes itself depend on these; here all energies come from a table. Any value.
    "n_ports": None,
    "num_ports": None,
    "n_rdwr_ports": None,
    "n_rd_ports": None,
    "n_wr_ports": None,
    # Features that are not modelled, at the value that turns them off.
    "min_utilization": (0,),
    "allow_overbooking": (False,),
    "reduction_supported": (True,),
    "addr_gen_energy": (0,),
    # Sizes of compressed data: not used without sparse optimisations.
    "metadata_block_size": (1,),
    "metadata_datawidth": (0,),
    "metadata_word_bits": (0,),
    "metadata_storage_width": (0,),
    "metadata_width": (0,),
    "metadata_storage_depth": (0,),
    "metadata_depth": (0,),
    "concordant_compressed_tile_traversal": (False,),
    "tile_partition_supported": (False,),
    "decompression_supported": (False,),
    "compression_supported": (False,),
}
"""Attributes that Timeloop reads and that change no result here at these values; None: at any value."""

UNSUPPORTED: Mapping[str, str] = {
    "min_utilization": "a minimum utilisation of a memory is not modelled",
    "allow_overbooking": "tiles larger than their memory are not modelled",
    "reduction_supported": "memories that cannot update are not modelled",
    "addr_gen_energy": "the generation of addresses costs nothing here",
    "vector_access_energy": "the energy of an access comes from a table of energies",
    "cluster_area": "areas are not modelled",
    "instances": "the instances of a node follow from the fan-outs outside it (`spatial: {meshX, meshY}`)",
    "meshX": "a fan-out is written as `spatial: {meshX, meshY}`, a field of the node",
    "meshY": "a fan-out is written as `spatial: {meshX, meshY}`, a field of the node",
    **dict.fromkeys(
        ("network_read", "network_fill", "network_drain", "network_update", "network_operand", "network_result"),
        "networks between levels are not modelled",
    ),
    **dict.fromkeys(
        ("network_type", "network_word_bits", "router_energy", "wire_energy", "tile_width", "energy_per_hop",
         "energy-per-ingress", "fill_latency", "drain_latency"),
        "networks between levels cost nothing here",
    ),
    **dict.fromkeys(("energy", "area"), "the energy of an operation comes from a table of energies"),
}  # fmt: skip
"""Attributes that Timeloop reads and that are not modelled."""

_CLUSTERS = ("cluster_size", "per_dataspace_bandwidth_consumption_scale")
NOT_INHERITED = ("n_banks", "reduction_supported", "multiple_buffering", "min_utilization", "allow_overbooking",
                 *_CLUSTERS)  # fmt: skip
"""Attributes that Timeloop's front end sets at every memory, so a container's value has no effect."""

SPARSE = (
    "metadata_block_size", "metadata_datawidth", "metadata_word_bits", "metadata_storage_width", "metadata_width",
    "metadata_storage_depth", "metadata_depth", "concordant_compressed_tile_traversal", "tile_partition_supported",
    "decompression_supported", "compression_supported",
)  # fmt: skip
"""Attributes of compressed data, without effect where there are no sparse optimisations."""

_MISSPELT = 0.85
"""Likeness of two names (`difflib`) from which on one is taken for the other, misspelt."""

_log = logging.getLogger(__name__)

_MEMORY_WORDS = ("DRAM", "SRAM", "regfile", "smartbuffer", "storage")
_COMPUTE_WORDS = ("mac", "compute")
_NETWORK_WORDS = ("XY_NoC", "Legacy", "ReductionTree", "SimpleMulticast")
_NAME = re.compile(r"[A-Za-z_]\w*")


class Known:
    """Names that a specification's component classes and expressions define, in addition to the lists above."""

    def __init__(self, library: ComponentLibrary, expressions: Iterable[Any]) -> None:
        self._library = library
        self._variables = frozenset(
            name for text in expressions if isinstance(text, str) for name in _NAME.findall(text)
        )

    def kind(self, component_class: str, where: str) -> str:
        """``memory`` or ``compute``; InputError for a class that is neither.

        As in the front end, a word in the name of a class decides. Without such a word, the actions decide, if the
        specification's `components`, the shipped classes or the tables declare the class.
        """
        if any(word in component_class for word in _NETWORK_WORDS):
            raise InputError(where, f"network class {component_class!r} is not supported", "memories, one compute unit")
        for kind, words in (("memory", _MEMORY_WORDS), ("compute", _COMPUTE_WORDS)):
            if any(word in component_class for word in words):
                return kind
        actions = self._library.actions(component_class)
        if actions is not None:
            stores = {"read", "write"} <= set(actions) and not self._library.own.computes(component_class)
            return "memory" if stores else "compute"
        allowed = (
            f"a class of `components`, or a name with {', '.join((*_MEMORY_WORDS, *_COMPUTE_WORDS[:1], 'compute'))}"
        )
        near = did_you_mean(component_class, (*self._library.classes, *_MEMORY_WORDS, *_COMPUTE_WORDS))
        hint = "or give its table by --tables FILE"
        raise InputError(where, f"unknown class {component_class!r}{near}", allowed, hint)

    def check(
        self, attributes: Mapping[str, Any], component_class: str | None, subclass: str | None, where: str
    ) -> None:
        """Raises an InputError for attributes that are not modelled, or whose name is nearly one that is read.

        An attribute that nothing reads and that is like no other gets a warning: Timeloop ignores it, and so does this.

        Args:
            attributes: the node's own attributes, evaluated.
            component_class: class of a component; None for a container, which may have attributes of any class.
            subclass: the class of its energies, if it is another one.
            where: the node, for errors.
        """
        listed = self._listed(component_class, subclass, where)
        for name, value in attributes.items():
            if component_class is None and name in NOT_INHERITED:
                problem = "Timeloop's front end does not pass this attribute of a container to its memories"
                raise InputError(f"{where}.{name}", problem, "the attribute at each memory")
            if listed is not None and name in listed:
                continue
            if name in NEUTRAL:
                _check_neutral(name, value, f"{where}.{name}")
            elif name in UNSUPPORTED:
                raise InputError(f"{where}.{name}", f"found {fields.shown(value)}: {UNSUPPORTED[name]}")
            elif listed is not None and name not in self._variables:
                near = did_you_mean(name, sorted({*listed, *NEUTRAL}), _MISSPELT)
                if near and not any(repr(neutral) in near for neutral in NEUTRAL):
                    raise InputError(where, f"unknown attribute {name!r}{near}", sorted({*listed, *NEUTRAL}))
                _log.warning("%s.%s is read by nothing", where, name)

    @property
    def inherited(self) -> set[str]:
        """Names of attributes that a node takes from a container or from a variable, if it has none of its own."""
        return (self._listed(None, None, "") or set()).difference(_CLUSTERS)

    def _listed(self, component_class: str | None, subclass: str | None, where: str) -> set[str] | None:
        """The attributes that a class reads; None for a compute unit of which only the name is known."""
        if component_class is None:
            classes = [attribute for declared in self._library.classes.values() for attribute in declared.attributes]
            primitives = [attribute for name in PRIMITIVE_CLASSES for attribute in selecting_attributes(name)]
            return {*MEMORY, *ESTIMATOR, *classes, *primitives}
        memory = self.kind(component_class, where) == "memory"
        own = self._library.attributes(subclass or component_class)
        if own is None:
            if not memory:
                return None
            own = ()
        return {*(MEMORY if memory else (*DATAWIDTH, *GATING)), *ESTIMATOR, *own}


def _check_neutral(name: str, value: Any, where: str) -> None:
    values = NEUTRAL[name]
    if values is None or value is None or any(value == off and type(value) is type(off) for off in values):
        return
    off = ", ".join(str(v).lower() if isinstance(v, bool) else str(v) for v in values)
    raise InputError(where, f"found {fields.shown(value)}: {UNSUPPORTED.get(name, 'compressed data are not modelled')}",
                     f"{off}, or leave it out")  # fmt: skip


class Numbers:
    """Numeric attributes of a node by any of Timeloop's spellings; None means that an attribute is not given."""

    def __init__(self, attributes: Mapping[str, Any], where: str) -> None:
        self._attributes, self._where = attributes, where

    def whole(self, *names: str, least: int = 1) -> int | None:
        """A whole number; InputError if it is not one, or if two spellings are given."""
        given = [name for name in names if self._attributes.get(name) is not None]
        if len(given) > 1:
            raise InputError(self._where, f"{given[1]} and {given[0]} are the same attribute", f"only {given[0]}")
        return fields.integer(self._attributes[given[0]], f"{self._where}.{given[0]}", least) if given else None

    def unlimited(self, *names: str) -> bool:
        """Whether any of these is ``INF``."""
        return any(self._attributes.get(name) == math.inf for name in names)

    def bandwidth(self, kind: str, datawidth: int) -> float | None:
        """Words per cycle of ``read_bandwidth`` or the like, or of its bits per cycle; InputError if both are given."""
        name, in_bits = f"{kind}_bandwidth", f"{kind}_bandwidth_bits"
        words, bits = self.real(name), self.real(in_bits)
        if words is not None and bits is not None:
            raise InputError(self._where, f"{in_bits} and {name} are the same bandwidth", "one of them")
        return words if bits is None else bits / datawidth

    def real(self, name: str) -> float | None:
        """A number above 0."""
        value = self._attributes.get(name)
        return None if value is None else fields.number(value, f"{self._where}.{name}", above=True)
