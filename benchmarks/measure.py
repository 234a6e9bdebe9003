"""What the benchmarks share: commands with their wall time, CPU time and memory, and Markdown tables."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENOS = (sys.executable, "-c", "from dse.cli import main; main()")  # works from a checkout that is not installed
GIB = 2**30

_PROC = Path("/proc")
_SAMPLES_PER_SECOND = 20


@dataclass(frozen=True)
class Usage:
    """What a command took, its children included.

    `peak_rss` is in bytes: the largest sum over the process and its descendants, in which pages that they share count
    in each. Without /proc it is that of the largest process alone.
    """

    wall_s: float
    cpu_s: float
    peak_rss: int
    exit_code: int
    output: str


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Usage:
    """Runs a command of this checkout to its end."""
    inherited = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        env={**inherited, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watch = _Watch(process.pid)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    cpu, peak = watch.stop()
    # Workers that the process has not waited for are missing from `used`, short-lived ones from the samples.
    return Usage(
        wall, max(cpu, used.ru_utime + used.ru_stime), max(peak, _bytes(used.ru_maxrss)), process.returncode, output
    )


def own_peak_rss() -> int:
    """The most memory that this process has had, in bytes."""
    return _bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _bytes(maxrss: int) -> int:
    return maxrss if sys.platform == "darwin" else 1024 * maxrss


class _Watch:
    """Samples memory and CPU time of a process and its descendants from /proc, in a thread."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak, self._cpu = pid, 0, dict[int, float]()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> tuple[float, int]:
        """CPU seconds and peak bytes so far."""
        self._stopped.set()
        self._thread.join()
        return sum(self._cpu.values()), self._peak

    def _sample(self) -> None:
        page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
        while not self._stopped.wait(1 / _SAMPLES_PER_SECOND):
            total = 0
            for pid in _family(self._pid):
                try:
                    total += page * int((_PROC / str(pid) / "statm").read_text().split()[1])
                    # The name of a program may hold spaces and brackets; what follows it has fixed places.
                    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
                    self._cpu[pid] = (int(fields[11]) + int(fields[12])) / tick
                except (OSError, IndexError):  # it has just ended
                    continue
            self._peak = max(self._peak, total)


def _family(pid: int) -> list[int]:
    """A process and its descendants; empty where there is no /proc."""
    found, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        try:
            for task in (_PROC / str(parent) / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:
            continue
        found.append(parent)
    return found


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table, the first column to the left and the others to the right."""
    print_head(header)
    for row in rows:
        print_row(row)


def print_head(header: Sequence[str]) -> None:
    """The beginning of a table whose rows come one by one."""
    print_row(header)
    print_row(["---", *["---:"] * (len(header) - 1)])


def print_row(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def against(value: float, target: float, text: str) -> str:
    """A value as text, in bold and with a mark where it misses its target."""
    return text if value < target else f"**{text} (!)**"
