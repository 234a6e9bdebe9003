"""Pretrained networks kept by content in the user's cache folder, so that other runs need not train them again."""

from __future__ import annotations

import hashlib
import inspect
import io
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import dse
import search.layers
import search.training
from dse.table.store import content_key, default_path
from search.data.datasets import Dataset
from search.training.checkpoint import Record

SCHEMA = 1
"""Form of an entry, which is in its key."""

_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Pretrained:
    """A network after its pretraining: the records of the epochs, and the state of the network on the CPU."""

    history: list[Record]
    state: dict[str, Any]


def cache_folder() -> Path:
    """``pretrained``, beside the store of mappings: `$ENOS_STORE` moves both."""
    return default_path().with_name("pretrained")


def pretraining_key(network: nn.Module, data: Dataset, settings: Mapping[str, Any]) -> str:
    """The SHA-256 of everything that decides a pretraining.

    Args:
        network: as it is before its pretraining: its structure, the source of its classes and its weights count.
        data: images and labels of training and validation, and how they are augmented.
        settings: what else counts, as JSON data.
    """
    splits = {
        name: [_digest({"images": split.images, "labels": split.labels}), repr(split.normalisation)]
        for name, split in (("train", data.train), ("validation", data.validation))
    }
    return content_key(
        {
            "schema": SCHEMA,
            "enos": [dse.__version__, _sources(search.layers), _sources(search.training)],
            "torch": torch.__version__,
            "network": [str(network), _classes(network), _digest(network.state_dict())],
            "data": {**splits, "augmentation": repr(data.augmentation)},
            "settings": dict(settings),
        }
    )


def read_pretrained(key: str) -> Pretrained | None:
    """The pretraining that is kept under a key; None if there is none, or a damaged one."""
    try:
        content = _file(key).read_bytes()
    except OSError:
        return None
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    found = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return Pretrained(found["history"], found["state"])


def keep_pretrained(key: str, pretrained: Pretrained) -> None:
    """Keeps a pretraining under its key, atomically; where the cache cannot be written, nothing is kept."""
    buffer = io.BytesIO()
    torch.save({"history": pretrained.history, "state": pretrained.state}, buffer)
    payload, file = buffer.getvalue(), _file(key)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")  # other processes may write the same entry
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(hashlib.sha256(payload).digest() + payload)
        temporary.replace(file)
    except OSError as e:
        logging.getLogger(__name__).warning("the pretrained network is not kept for other runs: %s", e)


def _file(key: str) -> Path:
    return cache_folder() / f"{key}.pt"


def _digest(state: Mapping[str, Any]) -> str:
    """SHA-256 of tensors, by name, type, shape and content, and of other values by their text."""
    found = hashlib.sha256()
    for name, value in state.items():
        if isinstance(value, Tensor):
            value = value.detach().cpu().contiguous()
            found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            found.update(f"{name} {value!r}\n".encode())
    return found.hexdigest()


def _classes(network: nn.Module) -> list[str]:
    """The classes of a network's modules, except those of torch, with the digest of their source where there is one."""
    found = []
    for kind in {type(module) for module in network.modules()}:
        if kind.__module__.startswith("torch."):
            continue
        try:
            source = inspect.getsource(kind)
        except (OSError, TypeError):
            source = ""
        found.append(f"{kind.__module__}.{kind.__qualname__} {hashlib.sha256(source.encode()).hexdigest()}")
    return sorted(found)


def _sources(package: Any) -> str:
    """The digest of a package's source: what its layers compute is not told by the version alone."""
    found = hashlib.sha256()
    for folder in package.__path__:
        for file in sorted(Path(folder).rglob("*.py")):
            found.update(file.read_bytes())
    return found.hexdigest()
