"""benchmarks/device.py: each part within its time, whatever became of those before; resumable; the plan."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.processes import alive, needs_proc, until

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))  # where scripts find one another

import device  # noqa: E402
from device import Part, run  # noqa: E402

PROTOCOL = """
common: {network: {factory: squeezenet, args: {}}, data: {name: cifar10}, baselines: [], seeds: [0, 1],
         energy_budgets: [0.5], relearn: {epochs: 3, batch_size: 100}}
runs:
  all: {baselines: [T8, T4, MF8], search: {mode: bilevel, epochs: 4, warmup_epochs: 1, batch_size: 100}}
  one: {space: precisions, search: {mode: single_level, epochs: 4, warmup_epochs: 1, batch_size: 100}}
figures:
  fig8: [{title: x, baselines: all, series: {a: all, b: one}}]
"""


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "device.py"), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_part_is_completed_failed_or_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "GRACE", 0.5)
    found = {}
    for name, code, seconds in (("completed", "print('well')", 60), ("failed", "raise SystemExit(3)", 60),
                                ("stopped", "import time; print('on', flush=True); time.sleep(600)", 3)):  # fmt: skip
        found[name] = run(Part(name, [sys.executable, "-c", code]), seconds, tmp_path / "log")
    assert [found[name]["status"] for name in found] == list(found)
    assert found["completed"]["last_line"] == "well" and found["failed"]["exit_code"] == 3


@needs_proc
def test_a_process_that_does_not_listen_is_ended_with_what_it_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "GRACE", 0.1)
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert device._ended(process) == -9
    until(lambda: not alive(child))


def test_completed_parts_are_skipped_and_the_protocol_is_not() -> None:
    summary = {"parts": {name: {"status": "completed"} for name in ("tests", "protocol")}}
    assert Part("tests", []).done(summary)
    assert not Part("protocol", [], repeats=True).done(summary)
    summary["parts"]["tests"]["status"] = "stopped"
    assert not Part("tests", []).done(summary) and not Part("steps", []).done(summary)


def test_the_plan_counts_the_steps_of_every_stage(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PROTOCOL, encoding="utf-8")
    steps = [{"network": name, "way": device.BEST, "seconds": seconds}
             for name, seconds in (("T8", 0.5), ("3 candidates", 1.0), ("9 candidates", 2.0))]  # fmt: skip
    document = {"of": "squeezenet", "batch": 100, "device": "none", "steps": steps}
    (tmp_path / "steps.json").write_text(json.dumps(document), encoding="utf-8")
    found = script("--plan", "--out", tmp_path, "--protocol", tmp_path / "p.yaml", "--images", 6000, "--minutes", 30)
    assert found.returncode == 0, found.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.stdout.splitlines() if line[:1] == "|"]
    # 60 steps an epoch: (4 + 3) * 60 * 2 s; 3 * 60 * 0.5 s; of the other space 4 * 60 * 1 s
    assert [row[:5] for row in rows[2:]] == [
        ["all", "search", "2", "4", "14.0"], ["all", "baseline", "6", "3", "1.5"], ["all", "relearn", "2", "3", "1.5"],
        ["one", "search", "2", "4", "4.0"], ["one", "relearn", "2", "3", "1.5"],
    ]  # fmt: skip
    assert [row[6] for row in rows[2:]] == ["all", "1", "", "", ""]  # 28 of 30 minutes, then one more of 1.5


def test_a_small_period_on_a_cpu_measures_every_kind_of_step(tmp_path: Path) -> None:
    found = script("--device", "cpu", "--minutes", 60, "--parts", "tests,steps", "--out", tmp_path)
    assert found.returncode == 0, found.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {name: part["status"] for name, part in summary["parts"].items()} == {
        "tests": "completed", "steps": "completed"
    }  # fmt: skip
    names = [step["network"] for step in json.loads((tmp_path / "steps.json").read_text())["steps"]]
    assert names == ["plain", "T8", "MF8", "3 candidates", "9 candidates"]
    again = script("--device", "cpu", "--minutes", 1, "--parts", "tests,steps", "--out", tmp_path)
    assert again.stdout.count("completed before") == 2


def test_the_protocol_gets_the_time_that_is_left(tmp_path: Path) -> None:
    options = SimpleNamespace(device="cpu", out=tmp_path, data_dir=None, store=None, protocol=str(device.SHORT))
    command = device._part("protocol", options, 620).command
    assert command[command.index("--minutes") + 1] == "10.00" and "fig8" in command and "--protocol" in command


def test_bad_options_are_one_line(tmp_path: Path) -> None:
    for given, said in ((("--parts", "tests,all"), "--parts"), (("--minutes", "0"), "--minutes"),
                        (("--device", "cuda", "--parts", "steps"), "--device")):  # fmt: skip
        if given[0] == "--device" and device._device_name("cuda") is not None:
            continue
        refused = script("--out", tmp_path, "--device", "cpu", *given)
        assert refused.returncode == 2 and said in refused.stderr.splitlines()[-1]
    assert script("--out", tmp_path, "--plan").returncode == 1
