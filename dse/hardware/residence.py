"""Where a tensor lives: the outermost memory that keeps it, which must hold all of it.

Nothing outside can bring words of it again, or take partial results. Timeloop does not check this and leaves it to its
user (`MaskTiles` in ``src/loop-analysis/tiling.cpp``): with a loop outside that moves the tensor it evaluates a buffer
of three words that is never filled, as if the rest came from nowhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dse.hardware.spec import Spec
from dse.workload.problem import Problem


def resident_words(
    spec: Spec, problem: Problem, keep: Mapping[str, Collection[str]]
) -> Mapping[str, Mapping[str, int]]:
    """Memory -> tensor -> words that each of its instances must hold at least, whatever the tile.

    Only for the memories in which tensors live; all instances together hold a tensor, in equal parts.

    Args:
        keep: the tensors that each memory keeps.

    Example:
        >>> from dse.hardware.instance import read_arch, spec_for
        >>> from dse.workload.problem import conv_problem
        >>> problem = conv_problem({"C": 16, "M": 32})
        >>> spec = spec_for(read_arch(), problem, {"act_bits": 8, "weight_bits": 8, "psum_bits": 20})
        >>> keep = {storage.name: ["Weights"] if storage.name == "weights_spad" else [] for storage in spec.storages}
        >>> resident_words(spec, problem, keep)  # 512 weights in 168 PEs
        {'weights_spad': {'Weights': 4}}
    """
    found: dict[str, dict[str, int]] = {}
    for tensor in problem.data_spaces:
        home = next((s.name for s in spec.storages if tensor.name in keep[s.name]), None)
        if home is not None:
            share = -(-problem.tensor_size(tensor.name) // spec.instances[home])
            found.setdefault(home, {})[tensor.name] = share
    return found
