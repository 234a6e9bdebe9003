"""Sensitivities as a value and as a file. Needs numpy alone, so that commands of the hardware half can read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Len
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from dse.core.documents import read_json
from dse.core.errors import InputError, unknown
from dse.core.files import write_json
from dse.core.schema import CONFIG, UNIQUE, Text, exactly, number, validated, whole

FloatArray = npt.NDArray[np.float64]
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Sensitivities:
    """Loss and accuracy on held-out images when one layer alone has another candidate than the reference.

    Attributes:
        network: its name.
        reference: the candidate that all other layers have.
        reference_loss: of the network with the reference in every layer; reference_accuracy: likewise, 0 to 1.
        layers: modules and products of activations that have a candidate, in the order in which they are computed.
        candidates: names.
        losses: shape (layers, candidates); inf where a layer cannot have a candidate.
        accuracies: of the same shape, nan where a layer cannot have a candidate.
        rows: layer of a cost table -> its module. They differ where a module is called several times (``name#2``).
        images: held-out images per measurement.
        settings: what else decided the numbers: seed, calibration, data, weights, energies' origin.
        loss, metric: their names; `losses` and `accuracies` are of them.
        constant: layer of a cost table -> candidate, for what is not measured and always has this one: lookups,
            layers of volumes. They are no part of `rows`.
    """

    network: str
    reference: str
    reference_loss: float
    reference_accuracy: float
    layers: tuple[str, ...]
    candidates: tuple[str, ...]
    losses: FloatArray
    accuracies: FloatArray
    rows: Mapping[str, str]
    images: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "cross_entropy"
    metric: str = "accuracy"
    constant: Mapping[str, str] = field(default_factory=dict)

    def increases(self) -> list[FloatArray]:
        """For each layer the increase of the loss by each candidate, in nats; inf where it cannot have it.

        An increase measured on a sample is noisy, so an apparent decrease counts as none.
        """
        return [np.maximum(row - self.reference_loss, 0.0) for row in self.losses]

    def costs(self, shares: FloatArray, rows: Sequence[str], candidates: Sequence[str]) -> list[FloatArray]:
        """The costs of `increases`, summed over the calls of a module.

        What `constant` layers cost is added to every candidate of the first layer, so that sums are those of networks.

        Args:
            shares: as `search.costs.shares` returns them, shape (rows, candidates); inf where there is no mapping.
            rows, candidates: of the cost table.

        Raises:
            InputError: a layer or a candidate that only one of both has.
        """
        self.check_rows(rows)
        for name in self.candidates:
            if name not in candidates:
                raise unknown("sensitivities", "candidate", name, candidates)
        columns = [list(candidates).index(name) for name in self.candidates]
        own = {layer: [i for i, row in enumerate(rows) if self.rows.get(row) == layer] for layer in self.layers}
        found = [shares[own[layer]][:, columns].sum(0) for layer in self.layers]
        for row, candidate in self.constant.items():
            found[0] = found[0] + shares[list(rows).index(row), list(candidates).index(candidate)]
        return found

    def check_rows(self, rows: Sequence[str], where: str = "table") -> None:
        """Refuses costs of other layers.

        Args:
            rows: names of the layers that costs are of.
            where: what has them, for errors.

        Raises:
            InputError: a layer that only one of both has.
        """
        for row in rows:
            if row not in self.rows and row not in self.constant:
                raise unknown(where, "layer", row, [*self.rows, *self.constant])
        for row in (*self.rows, *self.constant):
            if row not in rows:
                raise InputError(where, f"has no rows for layer {row!r} of the sensitivities", rows)

    def assignment(self, choice: Sequence[int]) -> dict[str, str]:
        """Layer of the table -> candidate, from the index of a candidate for each of `layers`."""
        names = {layer: self.candidates[i] for layer, i in zip(self.layers, choice, strict=True)}
        return {row: names[layer] for row, layer in self.rows.items()} | dict(self.constant)

    def choice(self, assignment: Mapping[str, str]) -> list[int]:
        """The index of a candidate for each of `layers`, from an assignment; the opposite of `assignment`."""
        first: dict[str, str] = {}
        for row, layer in self.rows.items():
            first.setdefault(layer, assignment[row])
        return [self.candidates.index(first[layer]) for layer in self.layers]

    def save(self, path: Path) -> None:
        """Writes JSON, atomically."""
        document = {
            "schema_version": SCHEMA,
            "network": self.network,
            "reference": self.reference,
            "reference_loss": self.reference_loss,
            "reference_accuracy": self.reference_accuracy,
            "layers": list(self.layers),
            "candidates": list(self.candidates),
            "losses": _plain(self.losses),
            "accuracies": _plain(self.accuracies),
            "rows": dict(self.rows),
            "images": self.images,
            "settings": dict(self.settings),
            "loss": self.loss,
            "metric": self.metric,
            "constant": dict(self.constant),
        }
        write_json(path, document)

    @staticmethod
    def load(path: Path | str) -> Sensitivities:
        """Reads what `save` wrote.

        Raises:
            InputError: a file that cannot be read, or with a wrong field; it names file, field and what is allowed.
        """
        document = validated(_Document, read_json(path), path)
        d, shape = document, (len(document.layers), len(document.candidates))
        for name in ("losses", "accuracies"):
            rows = getattr(d, name)
            if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
                raise InputError(f"{path}: {name}", "lacks a row for each layer or a column for each candidate",
                                 f"{shape[0]} rows of {shape[1]}")  # fmt: skip
        if d.reference not in d.candidates:
            raise unknown(f"{path}: reference", "candidate", d.reference, d.candidates)
        if d.metric == "accuracy":
            _check_share(d.reference_accuracy, f"{path}: reference_accuracy")
            for k, row in enumerate(d.accuracies):
                for j, value in enumerate(row):
                    _check_share(value, f"{path}: accuracies[{k}][{j}]")
        for name, layer in d.rows.items():
            if layer not in d.layers:
                raise unknown(f"{path}: rows.{name}", "layer", layer, d.layers)
        for name, candidate in d.constant.items():
            if name in d.rows or candidate not in d.candidates:
                raise InputError(
                    f"{path}: constant.{name}", f"found {candidate!r}", "layers that rows lack, candidates"
                )
        for layer in d.layers:
            if layer not in d.rows.values():
                raise InputError(f"{path}: rows", f"lacks layer {layer!r}")
        for layer, losses in zip(d.layers, d.losses, strict=True):
            if all(loss is None for loss in losses):
                raise InputError(f"{path}: losses", f"layer {layer!r} has no candidate")
        return Sensitivities(
            d.network, d.reference, d.reference_loss, d.reference_accuracy, d.layers, d.candidates,
            _array(d.losses, math.inf), _array(d.accuracies, math.nan), d.rows, d.images, d.settings,
            d.loss, d.metric, d.constant,
        )  # fmt: skip


_Names = Annotated[tuple[Text, ...], Len(1), UNIQUE]
_Loss = Annotated[float, number(-1e9, 1e9)]


@checked_dataclass(frozen=True, config=CONFIG)
class _Document:
    """A file of sensitivities; null stands for what was not measured."""

    schema_version: Annotated[int, exactly(SCHEMA)]
    network: Text
    reference: Text
    reference_loss: _Loss
    reference_accuracy: _Loss
    layers: _Names
    candidates: _Names
    losses: tuple[tuple[_Loss | None, ...], ...]
    accuracies: tuple[tuple[_Loss | None, ...], ...]
    rows: dict[str, Text]
    images: Annotated[int, whole(1)]
    settings: dict[str, Any] = Field(default_factory=dict)
    loss: Text = "cross_entropy"
    metric: Text = "accuracy"
    constant: dict[str, Text] = Field(default_factory=dict)


def _check_share(value: float | None, where: str) -> None:
    if value is not None and not 0 <= value <= 1:
        raise InputError(where, f"found {value:g}", "a number from 0 to 1")


def _plain(values: FloatArray) -> list[list[float | None]]:
    return [[float(v) if math.isfinite(v) else None for v in row] for row in values]


def _array(rows: Sequence[Sequence[float | None]], missing: float) -> FloatArray:
    return np.array([[missing if v is None else v for v in row] for row in rows], dtype=float)
