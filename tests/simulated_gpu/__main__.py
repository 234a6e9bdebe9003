"""``python -m tests.simulated_gpu FILE|-m MODULE ARGUMENTS`` runs a program with the simulated device."""

from __future__ import annotations

import runpy
import sys

from tests.simulated_gpu import library

library.load()

from tests.simulated_gpu.device import install  # noqa: E402  (torch must not be imported before)

install()
sys.argv = sys.argv[1:]
if sys.argv[0] == "-m":
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
