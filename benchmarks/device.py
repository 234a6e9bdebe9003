"""What a limited time on a GPU is used for: tests, times of a step, then as much of a protocol as fits; resumable.

Parts run one after the other in processes of their own, each with its share of the time; one that fails or does not
end does not stop the next. The same command later skips the parts that were completed and resumes the protocol.
OUT/summary.json says what was done. With --plan nothing is run: the time of the whole protocol is computed from the
times of a step that OUT has, and what the next period would complete is marked. With --device cpu each part is small.

usage: python benchmarks/device.py --out FOLDER [--device cuda|cpu] [--minutes N] [--data-dir DATA] [--store FILE]
                                   [--protocol SCALE|FILE] [--parts tests,steps,protocol] [--plan] [--images N]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

from measure import ENOS, ROOT, print_table

from search.reproduce.protocol import Protocol, load_protocol, shipped_protocol
from search.runs.config import RunConfig

BEST = "bfloat16, channels last, graph"
"""How a run on a GPU computes its steps."""

SHARES = {"tests": 0.2, "steps": 0.15, "protocol": 1.0}
"""The most that a part may take, of the time that is left when it begins."""

SPACES = {"operators": "3 candidates", "precisions": "3 candidates"}
"""The measured step that is nearest to a step of a search in a space; 9 candidates for others, or if it is missing."""

SHORT = ROOT / "benchmarks" / "gpu_protocol.yaml"
"""The full-size protocol with fewer epochs, budgets and seeds, so that a period completes runs."""

GRACE = 20.0
"""Seconds that a process has to end by itself."""


@dataclass(frozen=True)
class Part:
    """A command and what is done of it already."""

    name: str
    command: Sequence[str]
    repeats: bool = False  # it resumes, and is never skipped

    def done(self, summary: Mapping[str, Any]) -> bool:
        return not self.repeats and summary["parts"].get(self.name, {}).get("status") == "completed"


def main() -> None:
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.plan:
        _plan(options)
        return
    path = options.out / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"periods": 0, "parts": {}}
    summary["periods"] += 1
    summary.update(device=options.device, device_name=_device_name(options.device))
    end = time.monotonic() + 60 * options.minutes
    for name in options.parts:
        left = max(0.0, end - time.monotonic())
        part = _part(name, options, SHARES[name] * left)
        if part.done(summary):
            print(f"{name}: completed before")
            continue
        found = run(part, SHARES[name] * left, options.out / f"{name}.log")
        summary["parts"][name] = found
        path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {found['status']} after {found['seconds']:.0f} s ({found['last_line']})")
    print(f"{path}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder of summary, logs, runs and figures")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets' official files")
    parser.add_argument("--store", type=Path, help="store of mappings, as of `enos reproduce`")
    parser.add_argument("--protocol", help=f"a scale of `enos reproduce` or a file; {SHORT.name} on a GPU, else smoke")
    parser.add_argument("--parts", default=list(SHARES), type=lambda text: text.split(","))
    parser.add_argument("--plan", action="store_true", help="run nothing, say what a period would do")
    parser.add_argument("--images", type=int, default=45_000, help="training images an epoch, for --plan")
    options = parser.parse_args()
    options.protocol = options.protocol or (str(SHORT) if options.device == "cuda" else "smoke")
    for name in options.parts:
        if name not in SHARES:
            parser.error(f"--parts: found {name!r} (allowed: {', '.join(SHARES)})")
    if not 0 < options.minutes < float("inf"):
        parser.error(f"--minutes: found {options.minutes:g} (allowed: above 0)")
    if options.device == "cuda" and not options.plan and _device_name("cuda") is None:
        parser.error("--device: 'cuda' is not available to torch (allowed: cpu)")
    return options


def _device_name(device: str) -> str | None:
    """The device's name; None for a GPU that torch does not have."""
    import torch

    if device == "cpu":
        return "CPU"
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _part(name: str, options: argparse.Namespace, seconds: float) -> Part:
    on_gpu, python = options.device == "cuda", sys.executable
    if name == "tests":
        chosen = (
            ["-m", "cuda", "tests/search"] if on_gpu else ["tests/search/layers/test_reduced.py", "-k", "eight_bits"]
        )
        return Part(name, [python, "-m", "pytest", "-p", "no:cacheprovider", *chosen])
    if name == "steps":
        return Part(name, [python, str(ROOT / "benchmarks/gpu.py"), "--device", options.device, "--only", BEST,
                           "--json", str(options.out / "steps.json")])  # fmt: skip
    scaled = "--protocol" if Path(options.protocol).suffix else "--scale"
    minutes = max(0.01, (seconds - GRACE) / 60)
    figures = list(_protocol(options).panels)
    given = [*figures, scaled, options.protocol, "--device", options.device, "--minutes", f"{minutes:.2f}"]
    for option, value in (("--data-dir", options.data_dir), ("--store", options.store)):
        given += [] if value is None else [option, str(value)]
    return Part(name, [*ENOS, "reproduce", *given, "--out", str(options.out / "reproduced")], repeats=True)


def _protocol(options: argparse.Namespace) -> Protocol:
    given = Path(options.protocol)
    return load_protocol(given if given.suffix else shipped_protocol(options.protocol))


def run(part: Part, seconds: float, log: Path) -> dict[str, Any]:
    """What came of a part: completed, failed with its exit code, or stopped because its time was up."""
    began = time.monotonic()
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(part.command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stdout=file,
                                   stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        try:
            code = process.wait(seconds)
            status = "completed" if code == 0 else "failed"
        except subprocess.TimeoutExpired:
            code, status = _ended(process), "stopped"
        except BaseException:
            _ended(process)
            raise
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return {"status": status, "exit_code": code, "seconds": round(time.monotonic() - began, 1),
            "limit_s": round(seconds, 1), "last_line": last[:200], "command": list(part.command)}  # fmt: skip


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Ends a process with all that it has started, first politely; its exit code."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what has not ended, or what it left behind
    return process.wait()


@dataclass(frozen=True)
class Planned:
    """Stages of one kind in a run of a protocol, and the seconds of one of them."""

    run: str
    kind: str
    stages: int
    epochs: int
    seconds: float


def _plan(options: argparse.Namespace) -> None:
    path = options.out / "steps.json"
    if not path.exists():
        raise SystemExit(f"{path}: is missing; --parts steps measures it")
    document = json.loads(path.read_text(encoding="utf-8"))
    seconds = {step["network"]: step["seconds"] for step in document["steps"] if step["way"] == BEST}
    missing = [name for name in ("T8", "9 candidates") if name not in seconds]
    seconds.setdefault("3 candidates", seconds.get("9 candidates"))
    if missing:
        raise SystemExit(f"{path}: has no times of {', '.join(missing)}; remove summary.json and measure again")
    protocol = _protocol(options)
    needed = dict.fromkeys(name for figure in protocol.panels for name in protocol.needs(figure))
    rows, total, period = [], 0.0, 60 * options.minutes
    for name in needed:
        for p in _planned(protocol.runs[name], seconds, options.images):
            ends = total + p.stages * p.seconds
            first = period - total >= p.seconds > 0
            fits = "all" if ends <= period else f"{int((period - total) / p.seconds)}" if first else ""
            rows.append(
                [p.run, p.kind, str(p.stages), str(p.epochs), f"{p.seconds / 60:.1f}", f"{ends / 3600:.1f}", fits]
            )
            total = ends
    print(f"Times of a step of {document['of']} in batches of {document['batch']} on {document['device']}; "
          f"{options.images:,} training images; evaluation and mapping are not counted.\n")  # fmt: skip
    print_table(["run", "stage", "stages", "epochs", "min each", "h, to its end", f"in {options.minutes:g} min"], rows)
    print(f"\nAll: {total / 3600:.1f} h, {total / period:.0f} periods of {options.minutes:g} min")


def _planned(config: RunConfig, seconds: Mapping[str, float], images: int) -> Iterator[Planned]:
    """The stages of a run, with the times of a step; those of all networks are taken for the same."""
    search, relearn = config.search, config.relearn
    in_space = seconds[SPACES.get(config.space.space, "9 candidates")]
    epochs = _search_epochs(config)
    learning = max(0, epochs - search.warmup_epochs)
    twice = learning if search.mode in ("bilevel", "stochastic", "variational") else 0  # also a validation batch
    searches = len(config.seeds) * (len(config.lambdas) + len(config.energy_budgets) + len(config.latency_budgets))
    samples = getattr(search, "samples", 1)

    def of(kind: str, stages: int, number: int, steps: float, each: float) -> Planned:
        return Planned(config.name, kind, stages, number, steps * each)

    yield of("search", searches, epochs, (epochs + twice) * (images // search.batch_size), in_space)
    steps = relearn.epochs * (images // relearn.batch_size)
    if isinstance(config.baselines, Sequence) and not isinstance(config.baselines, str) and config.baselines:
        yield of("baseline", len(config.seeds) * len(config.baselines), relearn.epochs, steps, seconds["T8"])
    yield of("relearn", searches * samples, relearn.epochs, steps, seconds["T8"])


def _search_epochs(config: RunConfig) -> int:
    """Epochs of a search; the sequential mode has a cycle for each layer."""
    search: Any = config.search
    if search.mode == "sensitivity":
        return 1
    if search.mode != "sequential":
        return int(search.epochs)
    from dse.workload.export import export_network
    from dse.workload.networks import load_network

    chosen = config.network
    network = load_network(chosen.factory, arguments=chosen.args, default_shape=(1, 3, 32, 32))
    return int(search.warmup_epochs + len(export_network(network).layers) * search.cycle_epochs)


if __name__ == "__main__":
    main()
