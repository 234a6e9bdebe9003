import torch

from dse.workload.export import export_network
from search.networks.squeezenet import squeezenet_cifar


def test_cifar_form_has_26_convolutions_and_the_papers_fire4() -> None:
    network = squeezenet_cifar()
    macs = {layer.name: layer.problem.macs for layer in export_network(network).layers}
    assert len(macs) == 26
    assert list(macs)[:4] == ["conv1", "fire2.squeeze", "fire2.expand1x1", "fire2.expand3x3"]
    assert list(macs)[-1] == "conv10"
    assert round(sum(n for name, n in macs.items() if name.startswith("fire4.")) / 1e6) == 46
    bounds = export_network(network).layers[-2].instance
    assert (bounds["P"], bounds["Q"]) == (8, 8)


def test_parameters_shape_the_network() -> None:
    network = squeezenet_cifar(num_classes=7, in_channels=1, width=0.25, stem=32, stem_stride=2, image=16)
    assert network.input_shape == (1, 1, 16, 16)
    assert network.module.conv1.out_channels == 8 and network.module.conv1.stride == (2, 2)
    assert network.module(torch.zeros(3, 1, 16, 16)).shape == (3, 7)
