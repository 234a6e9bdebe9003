"""Trained weights from a file: read safely, and loaded into a network with every mismatch named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dse.core.errors import InputError

_INSIDE = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the state dict among other things."""

_PARALLEL = "module."
"""Prefix of all entries that were saved from inside a DataParallel."""

_ALLOWED = "a state dict that torch.save wrote"
_SHOWN = 3


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The state dict in a file that ``torch.save`` wrote; nothing in the file is executed.

    The file holds the state dict itself, or a mapping that has it as ``state_dict``, ``model_state_dict`` or ``model``.
    The prefix ``module.`` of a `DataParallel` is removed.

    Returns:
        Name of each parameter and buffer -> its value, on the CPU.

    Raises:
        InputError: a file that cannot be read, or that holds something else.

    Example:
        >>> torch.save({"state_dict": {"module.fc.bias": torch.zeros(2)}, "epoch": 3}, "trained.pt")
        >>> read_weights("trained.pt")
        {'fc.bias': tensor([0., 0.])}
    """
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as e:
        raise InputError(path, f"cannot be read: {(e.strerror or str(e)).lower()}", _ALLOWED) from None
    except Exception as e:  # torch raises UnpicklingError, RuntimeError, EOFError, KeyError, ValueError ...
        hint = ""
        if "weights_only" in str(e) or "Unsupported" in str(e):
            hint = "save network.state_dict(), not the network: other objects are not loaded, for they could run code"
        raise InputError(path, "holds no weights that can be read safely", _ALLOWED, hint) from None
    for key in _INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not found:
        raise InputError(path, f"holds {_kind(found)}", _ALLOWED)
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(path, f"entry {name!r} is {_kind(value)}, not a tensor", _ALLOWED)
    prefix = _PARALLEL if all(name.startswith(_PARALLEL) for name in found) else ""
    return {name.removeprefix(prefix): value.detach() for name, value in found.items()}


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: object) -> None:
    """Loads weights into a network, in place; nothing is changed if they do not fit.

    Counts of batches (``num_batches_tracked``), which old files lack, may be missing.

    Args:
        weights: name of each parameter and buffer -> value of the same shape, as `read_weights` returns it. Values of
            another floating type are converted.
        where: what errors name, such as the file.

    Raises:
        InputError: entries that are missing, unexpected, of another shape or not finite; one line names them.

    Example:
        >>> load_weights(nn.ReLU(), {"weights": torch.zeros(3)}, "trained.pt")
        Traceback (most recent call last):
        dse.core.errors.InputError: trained.pt: does not fit the network: unexpected weights
    """
    own = network.state_dict()
    missing = [n for n in own if n not in weights and not n.endswith("num_batches_tracked")]
    unexpected = [name for name in weights if name not in own]
    common = {name: value for name, value in weights.items() if name in own and isinstance(own[name], Tensor)}
    shaped = [name for name, value in common.items() if value.shape != own[name].shape]
    infinite = [name for name, value in common.items() if not bool(value.isfinite().all())]
    problems = []
    if missing:
        problems.append(f"missing {_some(missing)}")
    if unexpected:
        problems.append(f"unexpected {_some(unexpected)}")
    if shaped:
        texts = [f"{n} has shape {tuple(common[n].shape)}, not {tuple(own[n].shape)}" for n in shaped]
        problems.append(_some(texts))
    if infinite:
        problems.append(f"not finite: {_some(infinite)}")
    if problems:
        raise InputError(where, f"does not fit the network: {'; '.join(problems)}")
    network.load_state_dict(common, strict=False)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _kind(value: object) -> str:
    return "an empty mapping" if isinstance(value, Mapping) and not value else f"a {type(value).__name__}"
