"""A measurement of all layers' sensitivities with torch's batch normalisation and pooling, and with `FasterOps`.

SqueezeNet at half of its width with its standard stem, random weights and images, one thread: every layer with each of
`--candidates` in turn, on one batch. Both are measured in turns, layer by layer; CPU seconds are those of all layers.

usage: python benchmarks/sensitivity.py [--images N] [--candidates T4,MF4,BC4]
"""

from __future__ import annotations

import argparse
import math
import time
from unittest import mock

import torch
from measure import print_table

from dse import export_network, map_workload
from dse.hardware.candidates import load_candidates
from search import searchable
from search.networks.squeezenet import squeezenet_cifar
from search.sensitivity import faster_ops
from search.sensitivity.measure import Bench
from search.sensitivity.subject import Subject
from search.training.allocator import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--candidates", default="T4,MF4,BC4")
    options = parser.parse_args()
    names = options.candidates.split(",")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    keep_freed_memory()
    network = squeezenet_cifar(width=0.5)
    declared = [candidate for candidate in load_candidates() if candidate.name in ("T8", *names)]
    table = map_workload(export_network(network), candidates=declared, remainders=False)
    subject = Subject(searchable(network.module, table))
    images, labels = torch.randn(options.images, 3, 32, 32), torch.randint(0, 10, (options.images,))
    bench = Bench(subject, [(images, labels)])
    seconds, difference = {"torch": 0.0, "FasterOps": 0.0}, 0.0
    for layer in bench.order():
        losses = []
        for how in seconds:
            with mock.patch.dict(faster_ops._OWN, clear=how == "torch"):
                before = time.process_time()
                found = bench.layer(0, layer, [(name, False) for name in names])
                seconds[how] += time.process_time() - before
            losses.append([found.own[name][0] for name in names])
        difference = max(difference, *(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True)))
    assert math.isfinite(difference)
    ratio = seconds["torch"] / seconds["FasterOps"]
    print_table([*(f"{how}, CPU s" for how in seconds), "ratio", "largest difference of a loss"],
                [[*(f"{s:.1f}" for s in seconds.values()), f"{ratio:.2f}", f"{difference:.1e}"]])  # fmt: skip


if __name__ == "__main__":
    main()
