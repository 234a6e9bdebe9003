"""The kernels that are compiled ahead are those that searches call; each is compiled once, whoever needs it."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dse.mapper
from dse.hardware.candidates import load_candidates
from dse.hardware.instance import instance_for, library_for, read_arch
from dse.mapper import OBJECTIVES, search
from dse.mapper.kernels.precompile import KERNELS, types_of
from dse.workload.problem import conv_problem

INLINED = {"cost_slots", "read_slot", "closed_slot"}
"""Places in a label, which take no time to compile."""


def called_from_python() -> list[Any]:
    """The kernels that modules of the mapper, other than kernels themselves, have imported."""
    found: dict[int, Any] = {}
    for module in pkgutil.walk_packages(dse.mapper.__path__, "dse.mapper."):
        if not module.name.startswith(("dse.mapper.kernels", "dse.mapper.kernels.precompile")):
            members = vars(importlib.import_module(module.name))
            found |= {id(v): v for v in members.values() if hasattr(v, "py_func")}
    return [kernel for kernel in found.values() if kernel.__name__ not in INLINED]


def test_every_kernel_that_python_calls_is_compiled_ahead() -> None:
    listed = {kernel.__name__ for kernel, _ in KERNELS}
    assert {kernel.__name__ for kernel in called_from_python()} == listed


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_searches_call_kernels_with_the_types_that_are_compiled_ahead(objective: str) -> None:
    arch, layer = read_arch(), conv_problem({"C": 6, "M": 8, "P": 8, "Q": 8, "R": 3, "S": 3})
    chip = instance_for(arch, load_candidates()[0], layer, library_for(arch))
    kernels: list[Any] = [kernel for kernel, _ in KERNELS]
    before = {kernel.__name__: set(kernel.signatures) for kernel in kernels}  # other tests call with other types
    assert search(chip.spec, layer, chip.ert, objective).optimal
    for kernel, (_, arguments) in zip(kernels, KERNELS, strict=True):
        compiled = set(kernel.signatures)
        assert compiled - before[kernel.__name__] <= {types_of(arguments)}, kernel.__name__


KERNEL = """
import sys
from dse.mapper.kernels import jit
from numba import types

@jit.kernel
def sum_to(n):
    return n * (n + 1) // 2

role = sys.argv[1]
if role == "hold":
    with jit._locked(sum_to):
        print("holds", flush=True)
        sys.stdin.readline()
        sum_to(3)
elif role == "need":
    print("needs", flush=True)
    sum_to(3)
elif role == "skip":
    jit.compile_unless_busy(sum_to, (types.int64,))
elif role == "literal":
    import numba
    numba.njit(lambda n: sum_to(0) + sum_to(n))(3)
print(sum(sum_to.stats.cache_misses.values()), sum(sum_to.stats.cache_hits.values()), flush=True)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a process that needs a kernel. All have one cache; its last line is (compilations, loads)."""
    (tmp_path / "sums.py").write_text(KERNEL)
    root = Path(dse.__file__).parents[1]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(root)}
    command = [sys.executable, str(tmp_path / "sums.py")]
    started: list[subprocess.Popen[str]] = []

    def start(role: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen([*command, role], stdin=pipe, stdout=pipe, text=True, env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


Start = Callable[[str], "subprocess.Popen[str]"]


def test_who_needs_a_kernel_that_another_process_compiles_waits_and_loads_it(start: Start) -> None:
    holder = start("hold")
    assert holder.stdout.readline() == "holds\n"
    needs = start("need")
    assert needs.stdout.readline() == "needs\n"
    assert holder.communicate("go on\n")[0] == "1 0\n"
    assert needs.communicate()[0] == "0 1\n"


def test_who_compiles_ahead_leaves_out_what_another_process_compiles(start: Start) -> None:
    holder = start("hold")
    assert holder.stdout.readline() == "holds\n"
    assert start("skip").communicate()[0] == "0 0\n"
    holder.communicate("go on\n")
    assert start("skip").communicate()[0] == "0 1\n"


def test_a_killed_process_leaves_no_lock(start: Start) -> None:
    holder = start("hold")
    assert holder.stdout.readline() == "holds\n"
    holder.kill()
    assert start("skip").communicate()[0] == "1 0\n"


def test_a_number_that_is_known_when_a_kernel_is_compiled_does_not_compile_it_again(start: Start) -> None:
    assert start("literal").communicate()[0] == "1 0\n"


def test_kernels_run_as_python_where_numba_is_told_so() -> None:
    code = "from dse.mapper.kernels import precompile, slots; precompile.precompile(); print(type(slots.fill_slot))"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(Path(dse.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "<class 'function'>\n"
