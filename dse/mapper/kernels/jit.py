"""The one way kernels are compiled: no Python objects, cached on disk beside the module, each once on a machine."""

from __future__ import annotations

import errno
import fcntl
import gc
import hashlib
import os
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.compiler_lock import global_compiler_lock
from numba.core.sigutils import normalize_signature

from dse.model import formulas

F = TypeVar("F", bound=Callable[..., object])

SOURCES = (*sorted(Path(__file__).parent.glob("*.py")), Path(formulas.__file__))
"""The files that the code of kernels depends on. Kernels import nothing else of this project."""

_DISABLED = bool(cast(Any, numba).config.DISABLE_JIT)  # by NUMBA_DISABLE_JIT: kernels run as Python


def digest(sources: Iterable[Path]) -> str:
    """Twelve digits that change with the contents of the files."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


DIGEST = digest(SOURCES)


def kernel(function: F) -> F:
    """Compiles a function with numba at its first call; later processes load it from the cache.

    A compiled kernel contains the code of the kernels it calls, but numba compiles it again only if the kernel's own
    file has changed. Numba also looks for the function's name in the cache, so the digest of all sources is part of it.

    While one process compiles a kernel, others that need it wait and then load it. Numbers that are known when a kernel
    is compiled are taken as any others, or numba would compile a kernel again for a count that starts at 0.
    """
    if _DISABLED:
        return function
    function.__qualname__ = f"{function.__qualname__}_{DIGEST}"
    options = {"cache": True, "nogil": True, "no_cfunc_wrapper": True}  # nothing calls kernels from C
    dispatcher = cast(Any, numba.njit)(**options)(function)
    compile_it = dispatcher.compile

    def compile_once(signature: Any) -> Any:
        arguments = tuple(map(numba.types.unliteral, normalize_signature(signature)[0]))
        if arguments in dispatcher.overloads:
            return dispatcher.overloads[arguments].entry_point
        with global_compiler_lock, _locked(dispatcher), _fewer_collections():
            return compile_it(arguments)

    dispatcher.compile = compile_once
    return cast(F, dispatcher)


def compiled(formula: F) -> F:
    """A formula of `dse.model.formulas` as a kernel; the formula itself stays as it is."""
    copy = types.FunctionType(formula.__code__, formula.__globals__, formula.__name__)
    return cast(F, kernel(copy))


def compile_unless_busy(function: Callable[..., object], arguments: Iterable[numba.types.Type]) -> None:
    """Compiles or loads a kernel for arguments of these types, unless another process is compiling it."""
    if _DISABLED:
        return
    dispatcher = cast(Any, function)
    with global_compiler_lock, _locked(dispatcher, wait=False) as mine:
        if mine:
            dispatcher.compile(tuple(arguments))


@contextmanager
def _fewer_collections() -> Iterator[None]:
    """Numba makes millions of objects that live until a kernel is compiled: looking at them often only takes time."""
    before = gc.get_threshold()
    gc.set_threshold(before[0] and max(before[0], 20_000), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _locked(dispatcher: Any, wait: bool = True) -> Iterator[bool]:
    """Only one process at a time is inside with a kernel; False where another is, and `wait` is false.

    Where files cannot be locked, all are inside at once. The system releases the lock of a process that is killed.
    There is no deadlock: the numba lock lets one thread of a process wait, and a process only waits for kernels that
    those it holds call, which is never a circle.
    """
    number = _number(dispatcher.py_func)
    try:
        file = _lock_file(Path(dispatcher.stats.cache_path))
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, number)
    except OSError as e:
        yield wait or e.errno not in (errno.EAGAIN, errno.EACCES)
        return
    try:
        yield True
    finally:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, number)


def _number(function: Callable[..., object]) -> int:
    """The byte of the lock file that stands for a function: the same in every process, whatever it imports first."""
    name = f"{function.__module__}.{function.__qualname__}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6])


@cache
def _lock_file(folder: Path) -> int:
    """An empty file, whose bytes stand for kernels. It stays open: closing it would release all locks."""
    folder.mkdir(parents=True, exist_ok=True)
    return os.open(folder / f"kernels_{DIGEST}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
