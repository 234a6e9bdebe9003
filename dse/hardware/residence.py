"""The home of a tensor: the outermost memory that keeps it and merges its accesses, which must hold the whole tensor.

No memory further out can supply its words again or take partial results. Timeloop does not check this
(`MaskTiles` in ``src/loop-analysis/tiling.cpp``): if a loop further out moves the tensor, it evaluates, for example, a
buffer of three words that is never filled.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dse.hardware.spec import Spec
from dse.workload.problem import Problem


def resident_words(
    spec: Spec, problem: Problem, keep: Mapping[str, Collection[str]]
) -> Mapping[str, Mapping[str, int]]:
    """Memory -> tensor -> words that each instance of the memory must hold at least, whatever the tile.

    It contains only memories that are homes of tensors; all instances together hold the tensor, in equal parts.

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
        keeping = [s for s in spec.storages if tensor.name in keep[s.name] and tensor.name not in s.no_coalesce]
        home = keeping[0].name if keeping else None
        if home is not None:
            share = -(-problem.tensor_size(tensor.name) // spec.instances[home])
            found.setdefault(home, {})[tensor.name] = share
    return found
