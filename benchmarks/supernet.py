"""A training step of the supernet against one of the plain network: CPU time and memory, fused and naive.

Times are CPU seconds of forward and backward on one thread, in turns, so that other work on the machine counts as
little as possible; a ratio is the median over the turns: to the network in floating point (`plain`) and to the one that
is T8 in every layer, as found networks are trained. `kept` is what the graph holds between the passes,
parameters apart, as `torch.autograd.graph.saved_tensors_hooks` shows it.

usage: python benchmarks/supernet.py [--width W] [--stem-stride N] [--image N] [--batch N] [--repeat N]
           [--channels-last]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

import torch
from measure import against, print_table
from torch import Tensor, nn
from torch.nn import functional

from dse.hardware.candidate import Candidate
from dse.hardware.candidates import load_candidates
from search.layers.mixed_layer import LayerOptions, MixedLayer
from search.layers.naive import naive_
from search.networks.squeezenet import SqueezeNet

MIB = 2**20
TARGETS = {"3, fused": 2.0, "9, fused": 3.0, "9, 2 drawn": 3.0}
"""Of the ratio to T8."""


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    candidates = load_candidates()
    spaces = {3: [c for c in candidates if c.bits == 8], 9: list(candidates)}
    plain = SqueezeNet(width=options.width, stem_stride=options.stem_stride)
    cases: dict[str, nn.Module] = {"plain": plain, "T8": mixed(plain, candidates[:1])}
    for count, space in spaces.items():
        cases[f"{count}, fused"] = mixed(plain, space)
        for number in (2, 3) if count > 3 else ():
            cases[f"{count}, {number} drawn"] = draw(mixed(plain, space), number)
        cases[f"{count}, naive"] = naive_(mixed(plain, space))
    cases["9, fused, bfloat16"] = mixed(plain, candidates)
    cases["9, fused, own weights"] = mixed(plain, candidates, LayerOptions(latent="own"))
    cases["9, fused, LSQ"] = mixed(plain, candidates, LayerOptions("lsq"))
    x, labels = torch.randn(options.batch, 3, options.image, options.image), torch.randint(0, 10, (options.batch,))
    if options.channels_last:
        x = x.to(memory_format=torch.channels_last)
        cases = {name: network.to(memory_format=torch.channels_last) for name, network in cases.items()}
    kept = {name: kept_bytes(network, x) for name, network in cases.items()}  # also the first batch, that compiles
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(options.repeat):
        for name, network in cases.items():
            if name.endswith("drawn"):
                draw(network, int(name.split()[1]))
            seconds[name].append(step(network, x, labels, reduced=name.endswith("bfloat16")))
    _report(seconds, kept)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--width", type=float, default=0.5, help="of SqueezeNet")
    parser.add_argument("--stem-stride", type=int, default=1)
    parser.add_argument("--image", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels-last", action="store_true")
    return parser.parse_args()


def mixed(network: nn.Module, candidates: Sequence[Candidate], options: LayerOptions | None = None) -> nn.Module:
    """A copy of the network with a mixed layer for every convolution."""
    result = copy.deepcopy(network)
    for name, module in list(result.named_modules()):
        if isinstance(module, nn.Conv2d):
            parent, _, child = name.rpartition(".")
            setattr(result.get_submodule(parent), child, MixedLayer(module, candidates, options))
    return result


def draw(network: nn.Module, number: int) -> nn.Module:
    """Each layer computes `number` of its candidates from now on, as `SearchableNetwork.some_paths` draws them."""
    for layer in network.modules():
        if isinstance(layer, MixedLayer):
            layer.sampled = tuple(sorted(torch.randperm(len(layer.candidates))[:number].tolist()))
    return network


def step(network: nn.Module, x: Tensor, labels: Tensor, *, reduced: bool = False) -> float:
    """CPU seconds of one forward and backward pass, with products in bfloat16 if `reduced`."""
    network.zero_grad()
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
        scores = network(x)
    functional.cross_entropy(scores.float(), labels).backward()
    return time.process_time() - start


def kept_bytes(network: nn.Module, x: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass, each memory once, without parameters and the images."""
    known = {p.untyped_storage().data_ptr() for p in (*network.parameters(), x)}
    found: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in known:
            found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        output = network(x)
    output.sum().backward()
    return sum(found.values())


def _report(seconds: dict[str, list[float]], kept: dict[str, int]) -> None:
    rows = []
    for name, times in seconds.items():
        ratios = [t / p for t, p in zip(times, seconds["plain"], strict=True)]
        ratio = statistics.median(t / q for t, q in zip(times, seconds["T8"], strict=True))
        target = TARGETS.get(name)
        rows.append(
            [
                name,
                f"{statistics.median(times):.3f}",
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
                f"{ratio:.2f}" if target is None else against(ratio, target, f"{ratio:.2f}"),
                "" if target is None else f"{target:g}",
                f"{kept[name] / MIB:.0f}",
                f"{kept[name] / kept['plain']:.2f}",
            ]
        )
    print_table(["candidates", "CPU s a step", "/ plain", "range", "/ T8", "target", "kept, MiB", "/ plain"], rows)


if __name__ == "__main__":
    main()
