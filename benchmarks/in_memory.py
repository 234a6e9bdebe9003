"""Layers in memory: a training step against that of the same candidates computed digitally, and the exact evaluation.

The network is SqueezeNet for images of 32 x 32 with random weights. Times are CPU seconds of one thread, in turns,
means over all turns, for every eighth step measures the conversions. `--statistics` trains a small network on the
bundled digits instead, digitally, and prints how mean and variance of each layer's training form differ from those of
the exact sums on its activations.

usage: python benchmarks/in_memory.py [--width W] [--batch N] [--repeat N] [--rows N] [--adc N] [--statistics]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

import torch
from measure import print_table
from torch import Tensor, nn
from torch.nn import functional

from dse.hardware.candidate import Candidate, Macro
from dse.hardware.candidates import load_candidates
from search.data.datasets import DATASETS
from search.layers.mixed_layer import MixedLayer
from search.networks.squeezenet import SqueezeNet
from search.training.epochs import batches

TARGET = 1.5
"""Of the ratio of training steps."""


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    macro = Macro(options.rows, options.adc, options.rows)
    if options.statistics:
        compare_statistics(macro)
    else:
        compare_times(options, macro)


def compare_times(options: argparse.Namespace, macro: Macro) -> None:
    """Prints the time of a training step and of an evaluation, digital and in memory."""
    digital = load_candidates()
    spaces = {c.name: [c] for c in digital if c.bits == 8} | {"9 candidates": list(digital)}
    plain = SqueezeNet(width=options.width)
    x, labels = torch.randn(options.batch, 3, 32, 32), torch.randint(0, 10, (options.batch,))
    rows = []
    for name, space in spaces.items():
        cases = [mixed(plain, space), mixed(plain, [in_memory(c, macro) for c in space])]
        steps = timed([lambda n=n: step(n, x, labels) for n in cases], options.repeat)  # type: ignore[misc]
        a, b = map(statistics.fmean, steps)
        row = [name, f"{a:.3f}", f"{b:.3f}", f"{b / a:.2f}"]
        if len(space) == 1:
            found = timed([lambda n=n: evaluate(n, x) for n in cases], 3)  # type: ignore[misc]
            seconds = [statistics.median(s) / options.batch * 1e3 for s in found]
            row += [f"{seconds[0]:.2f}", f"{seconds[1]:.2f}"]
        rows.append([*row, "", ""][:6])
    head = ("candidates", "digital, CPU s per step", "in memory", "ratio", "digital, CPU ms per image", "in memory")
    print(f"{macro.rows} rows, ADC of {macro.adc_bits} bits, batch {options.batch}; target of the ratio: {TARGET}\n")
    print_table(head, rows)


def compare_statistics(macro: Macro) -> None:
    """Prints mean and variance of the training form against the exact sums, layer by layer, of a trained network."""
    data = DATASETS["digits"](None, None, 0, None)
    rows = []
    for candidate in load_candidates():
        network = mixed(small(), [candidate])
        optimiser = torch.optim.Adam(network.parameters(), 0.003)
        for epoch in range(5):
            for images, labels in batches(data.train, 64, 0, epoch):
                optimiser.zero_grad()
                functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        kept = activations(network, data.train.prepared(data.train.images[:512]))
        for number, (layer, x) in enumerate(kept):
            form = MixedLayer(copy.deepcopy(layer.layer), [in_memory(candidate, macro)])
            form.load_state_dict(layer.state_dict(), strict=False)
            mean, variance, explained = differences(form, x)
            rows.append([candidate.name, str(number + 1), f"{mean:.3f}", f"{variance:.3f}", f"{explained:.2f}"])
    print(f"{macro.rows} rows, ADC of {macro.adc_bits} bits; digits, 5 epochs\n")
    print_table(("candidate", "layer", "mean", "variance", "explained"), rows)
    print("""
mean: largest difference of a channel's means, in its standard deviations; variance: that of the layer's training form
over that of its exact sums; explained: share of the variance that is the digital sum's""")


def differences(layer: MixedLayer, x: Tensor) -> tuple[float, float, float]:
    """See `compare_statistics`."""
    with torch.no_grad():
        for _ in range(160):
            layer(x[torch.randperm(len(x))[:64]])
        trained, exact = layer(x), layer.eval()(x)
    dims = (0, *range(2, exact.dim()))
    deviation = exact.std(dims).clamp_min(1e-6)
    mean = ((trained.mean(dims) - exact.mean(dims)).abs() / deviation).max()
    within = [(y - y.mean(dims, keepdim=True)).square().sum() for y in (trained, exact)]
    assert layer.errors is not None
    noise = layer.errors.line[2].mean() / exact.var(dims).mean()
    return float(mean), float(within[0] / within[1]), 1 - float(noise)


def activations(network: nn.Module, images: Tensor) -> list[tuple[MixedLayer, Tensor]]:
    """The layers of a network and their inputs."""
    kept: list[tuple[MixedLayer, Tensor]] = []
    layers = [m for m in network.modules() if isinstance(m, MixedLayer)]
    hooks = [m.register_forward_hook(lambda m, args, _: kept.append((m, args[0].detach().clone()))) for m in layers]
    with torch.no_grad():
        network.eval()(images)
    for hook in hooks:
        hook.remove()
    return kept


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.BatchNorm2d(32),
        nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def in_memory(candidate: Candidate, macro: Macro) -> Candidate:
    return replace(candidate, mode="cim", macro=macro)


def mixed(plain: nn.Module, candidates: Sequence[Candidate]) -> nn.Module:
    """A copy of a network whose layers have these candidates."""
    network = copy.deepcopy(plain)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, MixedLayer(module, candidates))
    return network


def step(network: nn.Module, x: Tensor, labels: Tensor) -> None:
    functional.cross_entropy(network.train()(x), labels).backward()  # type: ignore[no-untyped-call]


@torch.no_grad()
def evaluate(network: nn.Module, x: Tensor) -> None:
    network.eval()(x)


def timed(work: Sequence[Callable[[], None]], repeat: int) -> list[list[float]]:
    """CPU seconds of each, in turns."""
    for job in work:
        job()  # compiles
    seconds: list[list[float]] = [[] for _ in work]
    for _ in range(repeat):
        for of, job in zip(seconds, work, strict=True):
            began = time.process_time()
            job()
            of.append(time.process_time() - began)
    return seconds


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=0.5, help="of the network's channels")
    parser.add_argument("--batch", type=int, default=32, help="images in a step")
    parser.add_argument("--repeat", type=int, default=16, help="turns; every eighth step measures the conversions")
    parser.add_argument("--rows", type=int, default=31, help="rows of the macro, and the full scale of its ADC")
    parser.add_argument("--adc", type=int, default=4, help="bits of the ADC")
    parser.add_argument("--statistics", action="store_true", help="compare mean and variance instead of times")
    return parser.parse_args()


if __name__ == "__main__":
    main()
