"""A training step on a GPU: plain network and supernet, under each way to compute them; time, memory, where it goes.

Times are of forward and backward pass and Adam, by events of the device around `--repeat` steps; the median of three.
On a CPU the same steps are computed once, on a narrow network, so that the script itself is tried.

usage: python benchmarks/gpu.py [--network squeezenet|shufflenet] [--batch N] [--repeat N] [--only WHAT] [--profile]
                                [--side-by-side N] [--device cuda|cpu] [--json FILE]
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

import torch
from measure import print_head, print_row, print_table
from torch import nn

from dse.hardware.candidates import load_candidates
from search.layers.mixed_layer import MixedLayer
from search.networks.shufflenet import shufflenet_cifar
from search.networks.squeezenet import squeezenet_cifar
from search.training.cuda_graphs import EAGER_STEPS, GraphedLoss
from search.training.epochs import Batch
from search.training.train import Compute

MIB = 2**20
WAYS = {
    "float32": Compute(),
    "float32, channels last": Compute(channels_last=True),
    "bfloat16": Compute(amp=True),
    "bfloat16, channels last": Compute(channels_last=True, amp=True),
    "float32, channels last, graph": Compute(channels_last=True, graphs=True),
    "bfloat16, graph": Compute(amp=True, graphs=True),
    "bfloat16, channels last, graph": Compute(channels_last=True, amp=True, graphs=True),
}
NETWORKS = {"squeezenet": squeezenet_cifar, "shufflenet": shufflenet_cifar}
BEST = "bfloat16, channels last, graph"
Step = Callable[[], None]


def main() -> None:
    options = _options()
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{options.network}, batches of {options.batch}, torch {torch.__version__}, {name}")
    if options.side_by_side:
        _side_by_side(options)
        return
    candidates = load_candidates()
    spaces = {"plain": [], "T8": ["T8"], "MF8": ["MF8"], "3 candidates": [c.name for c in candidates if c.bits == 8],
              "9 candidates": [c.name for c in candidates]}  # fmt: skip
    plain: dict[str, float] = {}
    measured: list[dict[str, object]] = []
    print_head(["network", "computed in", "ms a step", "/ plain", "peak, MiB"])
    for what, names in spaces.items():
        for way, compute in WAYS.items():
            if options.only and options.only not in (what, way):
                continue
            step = make_step(options.network, names, replace(compute, device=options.device), options.batch)
            seconds, memory = measure(step, options.repeat, options.device)
            if what == "plain":
                plain[way] = seconds
            ratio = f"{seconds / plain[way]:.2f}" if way in plain else ""
            print_row([what, way, f"{1000 * seconds:.2f}", ratio, f"{memory / MIB:.0f}"])
            del step
            measured.append({"network": what, "way": way, "seconds": seconds, "peak_bytes": memory})
            if options.json:  # after each, so that a limit of time leaves what was measured
                document = {"of": options.network, "batch": options.batch, "device": name, "torch": torch.__version__}
                options.json.write_text(json.dumps({**document, "steps": measured}, indent=1), encoding="utf-8")
    if options.profile:
        for what in ("T8", "9 candidates"):
            print(f"\n{what}, {BEST}: kernels of one step")
            best = replace(WAYS[BEST], device=options.device)
            _profile(make_step(options.network, spaces[what], best, options.batch), options.device)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--network", default="squeezenet", choices=list(NETWORKS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cuda", "cpu"])
    parser.add_argument("--batch", type=int, help="images; 128 on a GPU, else 4")
    parser.add_argument("--repeat", type=int, help="steps of a measurement; 20 on a GPU, else 1")
    parser.add_argument("--json", type=Path, help="file that also gets what is measured")
    parser.add_argument("--only", help="one of the networks or ways, as the table names them")
    parser.add_argument("--profile", action="store_true", help="list the kernels that take most time")
    parser.add_argument("--side-by-side", type=int, help="steps of the T8 network in this many processes at once")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.batch = options.batch or (128 if on_gpu else 4)
    options.repeat = options.repeat or (20 if on_gpu else 1)
    return options


def make_step(network: str, candidates: Sequence[str], compute: Compute, batch_size: int) -> Step:
    """One training step of a network: plain without candidates, else with a mixed layer of them everywhere."""
    torch.manual_seed(0)
    device = compute.device
    model = NETWORKS[network](width=1.0 if device == "cuda" else 0.125).module
    if candidates:
        chosen = [c for c in load_candidates() if c.name in candidates]
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Conv2d | nn.Linear):
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, MixedLayer(copy.deepcopy(module), chosen))
    compute.place(model)
    loss_of, optimiser = compute.losses(model), compute.adam(model.parameters(), 0.001)
    batch: Batch = (torch.randn(batch_size, 3, 32, 32).to(device), torch.randint(0, 10, (batch_size,)).to(device))

    def step() -> None:
        loss = loss_of(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    for _ in range(EAGER_STEPS + 2 if device == "cuda" else 1):
        step()
    if isinstance(loss_of, GraphedLoss) and loss_of.refused:
        print(f"no graph: {loss_of.refused}")
    return step


def measure(step: Step, repeat: int, device: str) -> tuple[float, int]:
    """Seconds of a step, and the most bytes that torch held on the device, graphs included."""
    found = []
    for _ in range(3 if device == "cuda" else 1):
        _wait(device)
        start = time.perf_counter()
        for _ in range(repeat):
            step()
        _wait(device)
        found.append((time.perf_counter() - start) / repeat)
    if device == "cpu":
        return found[0], 0
    memory = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return statistics.median(found), memory


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _profile(step: Step, device: str) -> None:
    from torch.profiler import ProfilerActivity, profile

    activity = ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as seen:
        step()
        _wait(device)
    by = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    print(seen.key_averages().table(sort_by=by, row_limit=22, max_name_column_width=70))


def _side_by_side(options: argparse.Namespace) -> None:
    """Steps a second of 1, 2, ... processes that train at once on the one device."""
    rows = []
    for count in range(1, options.side_by_side + 1):
        command = [sys.executable, __file__, "--network", options.network, "--batch", str(options.batch),
                   "--repeat", str(options.repeat), "--device", options.device, "--only", "T8"]  # fmt: skip
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        times = []
        for process in processes:
            output, _ = process.communicate()
            lines = [line for line in output.splitlines() if f"| {BEST} " in line]
            times.append(float(lines[0].split("|")[3]) / 1000)
        rows.append([str(count), f"{1000 * statistics.mean(times):.2f}", f"{sum(1 / t for t in times):.0f}"])
    print_table(["processes", "ms a step", "steps a second, all"], rows)


if __name__ == "__main__":
    main()
