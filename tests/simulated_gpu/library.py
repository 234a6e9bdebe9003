"""``guard.cpp``, compiled and loaded. Torch asks once, when it is imported, so this has to come before."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_SOURCE = Path(__file__).with_name("guard.cpp")


def compiler() -> str | None:
    """The C++ compiler; None where there is none."""
    return shutil.which("c++") or shutil.which("g++")


def load() -> None:
    """Gives torch, which is not imported yet, a CUDA device.

    Raises:
        OSError: there is no C++ compiler.
    """
    assert "torch" not in sys.modules
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    torch = Path(spec.origin).parent
    library = _compiled(torch)
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(torch / "lib" / name), ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(library))


def _compiled(torch: Path) -> Path:
    """Kept for the next process with the same torch."""
    key = hashlib.sha256(_SOURCE.read_bytes() + importlib.metadata.version("torch").encode()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"enos-simulated-gpu-{os.getuid()}-{key}.so"
    if library.exists():
        return library
    program = compiler()
    if program is None:
        raise OSError("no C++ compiler")
    own = library.with_suffix(f".{os.getpid()}")
    command = [program, "-std=c++20", "-shared", "-fPIC", f"-I{torch / 'include'}", str(_SOURCE), "-o", str(own),
               f"-L{torch / 'lib'}", "-lc10", "-ltorch_cpu"]  # fmt: skip
    subprocess.run(command, check=True)
    own.replace(library)
    return library
