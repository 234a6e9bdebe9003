"""What a run's configuration names: the data set, the plain network, how it is computed."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import torch

from dse.core.errors import InputError
from dse.workload.networks import Network, load_network
from search.data.datasets import DATASETS, Dataset
from search.data.own import from_factory, from_path
from search.layers.mixed_layer import LayerOptions
from search.layers.operators import Surrogates
from search.runs.config import DataChoice, Layers, RunConfig
from search.training.checkpoint import Record
from search.training.functions import own_function
from search.training.metrics import criterion_of, metric_of
from search.training.train import Compute


def network_of(config: RunConfig, seed: int | None = None) -> Network:
    """The network of a configuration, with weights from torch's present random state.

    Args:
        seed: whose data set is in memory; all have images of the same shape.
    """
    shape = (1, *dataset(config, config.seeds[0] if seed is None else seed).image_shape)
    chosen = config.network
    network = load_network(chosen.factory, arguments=chosen.args, default_shape=shape, where="network.factory")
    if not any(weight.requires_grad for weight in network.module.parameters()):
        raise InputError(f"network.factory {chosen.factory!r}", "has no weight that learns (requires_grad)")
    return network


def layer_options(layers: Layers) -> LayerOptions:
    """A configuration's `layers` as what the layers are made with."""
    surrogates = Surrogates(layers.sign_width_input, layers.sign_width_weight, layers.steepness)
    return LayerOptions(layers.quantiser, layers.latent, layers.learned_scales, surrogates)


@functools.lru_cache(maxsize=1)
def _read_data(chosen: DataChoice, seed: int, device: str) -> Dataset:
    check_device(device)
    folder = Path(chosen.dir) if chosen.dir else None
    if chosen.factory is not None:
        function = own_function(chosen.factory, "data.factory")
        data = from_factory(function, chosen.factory, chosen.args, chosen.subset, seed, chosen.validation)
    elif chosen.path is not None:
        data = from_path(Path(chosen.path), chosen.subset, seed, chosen.validation)
    else:
        data = DATASETS[str(chosen.name)](folder, chosen.subset, seed, chosen.validation)
    data = data.to(device)
    return data if chosen.augment else replace(data, augmentation=None)


def check_device(device: str) -> None:
    """Refuses a device that torch does not have, before anything is placed on it.

    Raises:
        InputError: names the device.
    """
    kind, _, index = device.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise InputError("device", f"{device!r} is not available to torch", "cpu")


def dataset(config: RunConfig, seed: int) -> Dataset:
    """The data set; the seed also decides which images are for training, validation and (digits) test."""
    return _read_data(config.data, seed, config.device)


def data_record(config: RunConfig) -> Record:
    """What results say of the data set: the sizes of its splits, which all seeds share, and its notice."""
    data = dataset(config, config.seeds[0])
    return {"name": config.data.label, "train": len(data.train), "validation": len(data.validation),
            "test": len(data.test), "subset": config.data.subset, "notice": data.notice}  # fmt: skip


def compute(config: RunConfig) -> Compute:
    """How the run's networks are computed: on a GPU as graphs and with channels last."""
    gpu = config.device != "cpu"
    return Compute(config.device, channels_last=gpu, amp=config.reduced, graphs=gpu,
                   criterion=criterion_of(config.loss), metric=metric_of(config.metric, config.loss))  # fmt: skip
