"""What it costs that glibc gives freed memory back: CPU seconds, with and without `keep_freed_memory`.

SqueezeNet at half of its width with its standard stem, all T8, one thread: a forward pass of 250 images, as
sensitivities are measured, and a training step of 64. Each runs in a process of its own, `--repeat` times in turns;
the least is printed.

usage: python benchmarks/freed_memory.py [--repeat N]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable

from measure import print_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--measure", choices=["kept", "given back"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measure(options.measure == "kept")))
        return
    found: dict[str, list[list[float]]] = {"given back": [], "kept": []}
    for _ in range(options.repeat):
        for how, values in found.items():
            command = [sys.executable, __file__, "--measure", how]
            values.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))
    best = {how: [min(column) for column in zip(*values, strict=True)] for how, values in found.items()}
    rows = [
        [what, *(f"{best[how][i]:.2f}" for how in best), f"{best['given back'][i] / best['kept'][i]:.2f}"]
        for i, what in enumerate(("250 images forward, CPU s", "64 images trained, CPU s", "memory at most, GB"))
    ]
    print_table(["", *best, "ratio"], rows)


def _measure(kept: bool) -> list[float]:
    import torch

    from dse import export_network, map_workload
    from dse.hardware.candidates import load_candidates
    from search import searchable
    from search.networks.squeezenet import squeezenet_cifar
    from search.training.allocator import keep_freed_memory

    torch.set_num_threads(1)
    if kept:
        keep_freed_memory()
    network = squeezenet_cifar(width=0.5)
    typical = [candidate for candidate in load_candidates() if candidate.name == "T8"]
    model = searchable(network.module, map_workload(export_network(network), candidates=typical, remainders=False))
    plain = model.discretise(dict.fromkeys(model.assignment(), "T8"))
    images, labels = torch.randn(250, 3, 32, 32), torch.zeros(64, dtype=torch.int64)

    def forward() -> None:
        with torch.no_grad():
            plain(images)

    def step() -> None:
        torch.nn.functional.cross_entropy(plain(images[:64]), labels).backward()  # type: ignore[no-untyped-call]

    plain.eval()
    seconds = [_seconds(forward)]
    plain.train()
    seconds.append(_seconds(step))
    return [*seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]


def _seconds(work: Callable[[], None], times: int = 3) -> float:
    """CPU seconds of the process and of the system for it, the mean of some calls after the first."""
    work()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(times):
        work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / times


if __name__ == "__main__":
    main()
