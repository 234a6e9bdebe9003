"""The efficiency of a compute-in-memory macro by itself, as publications give it."""

from __future__ import annotations

from dse.core.errors import InputError
from dse.hardware.instance import Instance


def tops_per_watt(instance: Instance, column: str = "adc") -> float:
    """Operations for an energy, 10^12 / s / W = 1 / pJ, of a macro whose rows are all in use; a position counts as two.

    Of the macro's energy these parts count: the array in each position, and what the memory `column` at the end of a
    column takes for the sum of all rows. Buffers, and the writing of weights, do not, as is usual for such figures.

    Raises:
        InputError: a candidate that is not computed in memory, or an accelerator without this memory.

    Example:
        >>> from dataclasses import replace
        >>> from dse.hardware.accelerator import read_accelerator
        >>> from dse.workload.problem import conv_problem
        >>> unsigned = replace(conv_problem({}), signed=False)
        >>> found = read_accelerator("hybrid_published").only(["MF8@cim"]).instances(unsigned)
        >>> round(tops_per_watt(found[0]), 3)
        105.0
    """
    macro = instance.candidate.macro
    if macro is None:
        raise InputError(f"candidate {instance.candidate.name}", "is not computed in memory", "one with a macro")
    of_sum = instance.ert.storage(column)["update"]
    return 2 / (instance.e_op_pj + of_sum / macro.rows)
