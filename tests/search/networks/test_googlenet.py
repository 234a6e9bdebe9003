from __future__ import annotations

import pytest
import torch

from dse.workload.export import export_network
from search.networks.googlenet import INCEPTIONS, googlenet_cifar

OPERATIONS = {"3a": 128, "3b": 304, "4a": 73, "4b": 88, "4c": 100, "4d": 119, "4e": 170, "5a": 54, "5b": 71}
"""Millions of multiplications at 28x28, 14x14 and 7x7: column "ops" of the paper's Table 1."""

SIZE, PAPERS_SIZE = {"3": 32, "4": 16, "5": 8}, {"3": 28, "4": 14, "5": 7}


def macs_of(name: str) -> int:
    layers = export_network(googlenet_cifar()).layers
    return sum(layer.problem.macs for layer in layers if layer.name.startswith(f"inception{name}."))


@pytest.mark.parametrize("name", OPERATIONS)
def test_macs_of_every_module_are_those_of_table_1(name: str) -> None:
    at_papers_size = macs_of(name) * (PAPERS_SIZE[name[0]] / SIZE[name[0]]) ** 2 / 1e6
    if name == "5a":  # the table's own channels of 5a give 51 million, not the 54 that it prints
        one, r3, three, r5, five, projection = INCEPTIONS["5a"]
        counted = 49 * (832 * (one + r3 + r5 + projection) + 9 * r3 * three + 25 * r5 * five)
        assert at_papers_size == pytest.approx(counted / 1e6) and round(at_papers_size) == 51
    else:
        assert at_papers_size == pytest.approx(OPERATIONS[name], abs=1)


def test_cifar_form_has_table_1s_channels_behind_a_stem_of_192() -> None:
    """Weights from Table 1's channels; normalisations have 2 parameters a channel, fc a bias."""
    weights, norms, channels = 27 * 192, 192, 192
    for one, r3, three, r5, five, projection in INCEPTIONS.values():
        weights += channels * (one + r3 + r5 + projection) + 9 * r3 * three + 25 * r5 * five
        norms += one + r3 + three + r5 + five + projection
        channels = one + three + five + projection
    assert channels == 1024
    network = googlenet_cifar(num_classes=100)
    workload = export_network(network)
    assert workload.name == "googlenet_cifar" and len(workload.layers) == 2 + 9 * 6
    assert sum(p.numel() for p in network.module.parameters()) == weights + 2 * norms + 1024 * 100 + 100
    assert workload.layers[-1].instance == {"N": 1, "G": 1, "C": 1024, "M": 100, "P": 1, "Q": 1, "R": 1, "S": 1}
    instance = next(layer for layer in workload.layers if layer.name == "inception4a.five.conv").instance
    assert (instance["R"], instance["C"], instance["M"], instance["P"]) == (5, 16, 48, 16)


def test_parameters_shape_the_network() -> None:
    network = googlenet_cifar(num_classes=7, in_channels=1, width=0.125, image=28)
    assert network.input_shape == (1, 1, 28, 28)
    assert network.module.conv1.out_channels == 24
    assert network.module(torch.zeros(2, 1, 28, 28)).shape == (2, 7)
