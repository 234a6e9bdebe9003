"""Streams of operands: uniform random ones, and a file with those of a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dse.core.errors import InputError
from dse.hardware.candidate import Candidate
from dse.rtl.operands import Integers

UNIFORM_SUM = 144
"""Operations of one sum of uniform operands: a 3x3 window of 16 channels."""


@dataclass(frozen=True)
class Stream:
    """Words of inputs and weights in the order in which a core meets them, shape (sums, operations of a sum).

    Weights are words as in `search.layers.mac_cores`.
    """

    x: Integers
    w: Integers
    signed: bool

    def statistics(self) -> dict[str, float]:
        """Shares of zeros, and mean magnitudes.

        Example:
            >>> Stream(np.array([[0, 3]]), np.array([[1, -1]]), False).statistics()["zero_inputs"]
            0.5
        """
        return {
            "zero_inputs": float((self.x == 0).mean()),
            "mean_input": float(np.abs(self.x).mean()),
            "zero_weights": float((self.w == 0).mean()),
            "mean_weight": float(np.abs(self.w).mean()),
        }


def uniform(candidate: Candidate, operations: int, seed: int = 0) -> Stream:
    """Uniform random words, inputs without sign."""
    rng = np.random.default_rng(seed)
    shape = -(-operations // UNIFORM_SUM), UNIFORM_SUM
    half = 1 << candidate.bits - 1
    x = rng.integers(0, 2 * half, shape)
    if candidate.operator == "binary_connect":
        return Stream(x, 2 * rng.integers(0, 2, shape) - 1, False)
    if candidate.operator == "multiplication_free":
        return Stream(x, (2 * rng.integers(0, 2, shape) - 1) * (2 * rng.integers(0, half, shape) + 1), False)
    return Stream(x, rng.integers(-half, half, shape), False)


def save_streams(streams: Mapping[str, Stream], path: Path) -> None:
    """Writes streams by candidate into one file (.npz)."""
    arrays: dict[str, Any] = {}
    for name, stream in streams.items():
        arrays |= {f"{name}.x": stream.x, f"{name}.w": stream.w, f"{name}.signed": np.array(stream.signed)}
    np.savez_compressed(path, **arrays)


def load_streams(path: Path, candidates: Iterable[Candidate]) -> dict[str, Stream]:
    """What `save_streams` wrote.

    Raises:
        InputError: the file cannot be read, or lacks a candidate's stream.
    """
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(path, f"is no file of operands: {error}", "a file of `enos rtl operands`") from error
    streams = {}
    for candidate in candidates:
        names = [f"{candidate.name}.{part}" for part in ("x", "w", "signed")]
        if missing := [name for name in names if name not in arrays]:
            raise InputError(path, f"lacks {', '.join(missing)}")
        x, w, signed = (arrays[name] for name in names)
        if x.ndim != 2 or x.shape != w.shape or x.dtype.kind != "i":
            raise InputError(
                path, f"{names[0]}: has the shape {x.shape}, {names[1]} {w.shape}", "whole numbers of one shape"
            )
        streams[candidate.name] = Stream(x.astype(np.int64), w.astype(np.int64), bool(signed))
    return streams
