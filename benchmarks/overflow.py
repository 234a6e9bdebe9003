"""How often the accumulators of the cores overflow on a layer with inputs behind a ReLU and random weights.

Weights are Gaussian (Kaiming), inputs the positive part of a Gaussian; both are quantised as the search does it.

usage: python benchmarks/overflow.py [--operators FILE] [--channels C] [--kernel K] [--outputs M]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout that is not installed

import numpy as np
import torch
from measure import print_table
from torch import nn

from dse.hardware.candidate import Candidate
from dse.hardware.candidates import load_candidates
from search.layers.mac_cores import IntegerLayer, core_sums, integer_layer
from search.layers.mixed_layer import MixedLayer

EXACT_BITS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--operators", default="operators_published_widths", help="operators file")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--kernel", type=int, default=3)
    parser.add_argument("--outputs", type=int, default=32, help="output channels")
    options = parser.parse_args()
    rows = []
    for candidate in load_candidates(options.operators):
        torch.manual_seed(0)
        rows.append([candidate.name, *_row(candidate, _layer(candidate, options))])
    header = ["candidate", "bits", "bits needed", "wrong, wrap", "wrong, saturate"]
    print_table([*header, "error, wrap", "error, saturate"], rows)


def _layer(candidate: Candidate, options: argparse.Namespace) -> IntegerLayer:
    layer = MixedLayer(nn.Conv2d(options.channels, options.outputs, options.kernel, bias=False), [candidate])
    nn.init.kaiming_normal_(layer.layer.weight)
    return integer_layer(layer, torch.randn(4, options.channels, 8, 8).relu())


def _row(candidate: Candidate, layer: IntegerLayer) -> list[str]:
    """Width, width that would do for these sums, share of wrong sums and their error against what the sums tell apart.

    The error is the root mean square of the differences, over that of the exact sums around their channel's mean.
    """
    exact = core_sums(layer, width=EXACT_BITS)
    needed = 1 + int(np.ceil(np.log2(np.abs(exact).max() + 1)))
    found = [core_sums(layer, "wrap"), core_sums(layer, "saturate")]
    signal = (exact - exact.mean((0, 2, 3), keepdims=True)).std()
    return [
        str(candidate.accumulator_bits(layer.weights[0].size)),
        str(needed),
        *(f"{(sums != exact).mean():.1%}" for sums in found),
        *(f"{np.sqrt(np.square(sums - exact).mean()) / signal:.2f}" for sums in found),
    ]


if __name__ == "__main__":
    main()
