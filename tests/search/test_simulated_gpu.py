"""The paths of a GPU on a simulated one, and the rules of the simulation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.search.conftest import synthetic_table
from tests.search.runs.test_run import TINY
from tests.search.tiny import tiny
from tests.simulated_gpu.library import compiler

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(compiler() is None or sys.platform != "linux", reason="no C++ compiler, or no Linux")


def simulated(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A Python program in a process with a simulated GPU."""
    command = [sys.executable, "-m", "tests.simulated_gpu", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


RULES = """
import warnings
import torch

def refused(what):
    try:
        what()
    except (RuntimeError, TypeError) as e:
        return str(e)
    raise SystemExit("not refused")

x = torch.arange(4.0).to("cuda").requires_grad_()
y = (x * x).sum()
y.backward()
assert x.is_cuda and x.grad.device == torch.device("cuda", 0) and x.grad.tolist() == [0, 2, 4, 6]
assert "same device" in refused(lambda: x + torch.ones(4))
assert (x + torch.tensor(1.0)).tolist() == [1, 2, 3, 4]  # a number of the host may take part
assert refused(lambda: x.detach().numpy())
torch.cuda.set_sync_debug_mode("error")
for waits in (lambda: bool(x.sum() > 0), lambda: x.cpu(), lambda: x[x > 1], lambda: torch.ones(4).to("cuda")):
    assert "synchronizing" in refused(waits)
torch.ones(4).to("cuda", non_blocking=True)
torch.cuda.set_sync_debug_mode("default")

graph, source, total = torch.cuda.CUDAGraph(), torch.ones(2, device="cuda"), torch.zeros(2, device="cuda")
with torch.cuda.graph(graph):
    doubled = source * 2
    total += doubled
assert total.tolist() == [0, 0]  # a capture computes nothing
source.fill_(3)
graph.replay(), graph.replay()
assert doubled.tolist() == [6, 6] and total.tolist() == [12, 12]

def reads():
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        float(source.sum())

assert "capturing" in refused(reads)
print("all rules hold")
"""


def test_the_simulation_has_the_rules_of_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text(RULES, encoding="utf-8")
    found = simulated(tmp_path / "rules.py")
    assert found.stdout == "all rules hold\n", found.stderr


def test_the_tests_for_a_gpu_pass_on_a_simulated_one() -> None:
    """A selection: all take minutes, with ``python -m tests.simulated_gpu -m pytest -m cuda tests/search``."""
    chosen = "(bilevel and wait) or budget or teacher or augmented or product or memory or reads or fixed or rms"
    files = ("tests/search/training/test_device.py", "tests/search/training/test_cuda_graphs.py")
    found = simulated("-m", "pytest", "-m", "cuda", "-k", chosen, "-p", "no:cacheprovider", *files)
    assert found.returncode == 0, found.stdout[-4000:]
    assert " passed" in found.stdout and "skipped" not in found.stdout


def test_one_command_searches_on_a_gpu_stops_and_resumes(tmp_path: Path) -> None:
    """`enos run --device cuda`, with results that say where and in which precision networks learned."""
    synthetic_table(tiny()).save(tmp_path / "table.csv")
    (tmp_path / "tiny.yaml").write_text(TINY.replace("[0, 1]", "[0]"), encoding="utf-8")
    command = ("-m", "dse.cli", "search", tmp_path / "tiny.yaml", "--table", tmp_path / "table.csv", "--device", "cuda",
               "--out", tmp_path / "runs")  # fmt: skip
    stopped = simulated(*command, "--minutes", "0.000001")
    assert stopped.returncode == 0 and "command resumes" in stopped.stdout, stopped.stderr
    assert simulated(*command).returncode == 0
    results = json.loads((tmp_path / "runs" / "tiny" / "results.json").read_text())
    assert results["computed"] == {"device": "cuda", "precision": "bfloat16"}
