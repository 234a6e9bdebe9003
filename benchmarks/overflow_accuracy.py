"""Test accuracy of a run's trained networks with exact sums, and with accumulators of the published widths.

Nothing is trained: networks that have learned with exact sums are evaluated on the core that the paper describes.

usage: python benchmarks/overflow_accuracy.py RUN [--data-dir DATA] [--images N] [--stage NAME ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

from measure import print_table
from torch import nn

from dse.core.errors import InputError
from dse.hardware.candidate import Candidate
from dse.hardware.candidates import load_candidates
from search.layers.choice import Choice
from search.runs.inputs import dataset
from search.runs.run import read_run
from search.runs.stages import first_network
from search.training.train import accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-dir", help="folder of the data set")
    parser.add_argument("--images", type=int, help="of the test images, the first N; default: all")
    parser.add_argument("--stage", action="append", help="a uniform or found network; default: all")
    options = parser.parse_args()
    run = read_run(options.run)
    config = run.config
    if options.data_dir is not None:
        config = replace(config, data=replace(config.data, dir=options.data_dir))
    published = {c.name: c for c in load_candidates("operators_published_widths")}
    rows = []
    for stage in run.stages:
        if stage.kind == "search" or (options.stage and stage.name not in options.stage):
            continue
        network = first_network(run, stage.seed).discretise(run.assignment(stage))
        if not run.checkpoint(stage).restore(network=network):
            continue
        test = dataset(config, stage.seed).test
        if options.images is not None:
            test = replace(test, images=test.images[: options.images], labels=test.labels[: options.images])
        exact = accuracy(with_overflow(network, published, False), test)
        narrow = accuracy(with_overflow(network, published, True), test)
        rows.append([stage.name, str(len(test)), f"{exact:.1%}", f"{narrow:.1%}"])
        print(rows[-1], file=sys.stderr, flush=True)
    if not rows:
        raise InputError(options.run, "has no finished network of these stages", [s.name for s in run.stages])
    print_table(["network", "test images", "exact sums", "published widths, wrap"], rows)


def with_overflow(network: nn.Module, published: Mapping[str, Candidate], simulated: bool) -> nn.Module:
    """The network on the published core, in place, with or without its overflow."""
    for module in network.modules():
        if isinstance(module, Choice):
            chosen = [published[c.name] for c in module.candidates]
            module.candidates = tuple(c if simulated else replace(c, overflow=None) for c in chosen)
    return network.eval()


if __name__ == "__main__":
    main()
