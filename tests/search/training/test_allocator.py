"""Memory of freed tensors is used for new ones, without page faults."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from search.training.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "kept" else None
for _ in range(8):  # 64 MB each; a small block may come to lie in what the first ones leave
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(2**24)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 2**26 // 4096


def faults(how: str, **environment: str) -> tuple[str, int]:
    """What was returned, and how many pages four tensors of 64 MB needed from the system."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], env={**plain, **environment}, capture_output=True, text=True, check=True
    )
    kept, count = done.stdout.split()
    return kept, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc's allocator")
def test_large_tensors_take_no_new_pages() -> None:
    kept, count = faults("kept")
    assert kept == "True" and count < PAGES / 4
    assert count < faults("as it is")[1]


def test_a_setting_of_ones_own_is_kept() -> None:
    assert faults("kept", MALLOC_MMAP_THRESHOLD_="67108864")[0] == "False"
