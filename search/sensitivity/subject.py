"""What is measured: a searchable network, its layers and products with one candidate each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from torch import Tensor, nn

from dse.core.errors import unknown
from search.costs import Quantity
from search.layers.choice import Choice
from search.layers.mixed_layer import MixedLayer
from search.layers.mixed_product import MixedProduct, Operand
from search.sensitivity.faster_ops import FasterOps
from search.sensitivity.sensitivities import FloatArray
from search.supernet import SearchableNetwork

Calibrated = dict[str, dict[str, Tensor]]
"""Module -> candidate -> weights of the layer, fitted for this candidate."""


class Subject:
    """A searchable network under measurement: one candidate per layer, statistics of the batch at hand.

    Normalisation statistics, and the scales of inputs that quantisers keep, are those of each batch: they are renewed
    for whatever is measured, without passes over other images. Batches should have 64 images or more.

    Args:
        model: stays as it is outside `measured`.
        reference: the candidate that layers have unless they are changed; layers that cannot have it have their first.
        calibrated: weights that a layer has with a candidate, instead of its own.

    Raises:
        InputError: a reference that no layer has.
    """

    def __init__(self, model: SearchableNetwork, reference: str = "T8", calibrated: Calibrated | None = None) -> None:
        self.model, self.reference, self.calibrated = model, reference, calibrated or {}
        self.layers = measured_choices(model)
        names = dict.fromkeys(c.name for layer in self.layers.values() for c in layer.candidates)
        if reference not in names:
            raise unknown("reference", "candidate", reference, names)
        self._own = {n: layer.layer.weight.detach().clone() for n, layer in mixed_layers(model).items()}

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Inside, the network computes what is measured; afterwards its state is what it was."""
        state = {k: v.clone() if isinstance(v, Tensor) else v for k, v in self.model.state_dict().items()}
        training = {m: m.training for m in self.model.modules()}
        norms = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        fixed = [(choice, choice.fixed) for choice, _ in self.model.choices()]
        momenta = [(norm, norm.momentum) for norm in norms]
        operands = [m for m in self.model.modules() if isinstance(m, Operand)]
        layers = mixed_layers(self.model).values()
        quantisers = [layer.scale for layer in layers] + [operand.scale for operand in operands]
        scales = [(scale, scale.momentum) for scale in quantisers]
        weights = [(layer.layer.weight, layer.layer.weight.data) for layer in layers]
        self.model.eval()
        try:
            for part in (*norms, *operands):
                part.train()
            for scale, _ in scales:
                scale.train()
                scale.momentum = 1.0
            self.assign({})
            fix_others(self.model, self.reference)
            with FasterOps():
                yield
        finally:
            for norm, momentum in momenta:
                norm.momentum = momentum
            for scale, share in scales:
                scale.momentum = share
            for module, flag in training.items():
                module.training = flag
            for parameter, own in weights:
                parameter.data = own  # before the state is loaded, which would write into calibrated weights
            for choice, decided in fixed:
                choice.fixed = decided
            self.model.load_state_dict(state)

    def set(self, name: str, candidate: str, *, calibrated: bool = True) -> None:
        """Gives a layer a candidate, with the weights that were calibrated for it, or its own.

        Args:
            calibrated: whether calibrated weights may be taken.
        """
        layer = self.layers[name]
        layer.fixed = [c.name for c in layer.candidates].index(candidate)
        if isinstance(layer, MixedProduct):
            return
        fitted = self.calibrated.get(name, {}) if calibrated else {}
        weight = fitted.get(candidate, self._own[name])
        if layer.layer.weight.data_ptr() != weight.data_ptr():
            layer.layer.weight.data = weight

    def reference_of(self, name: str) -> str:
        names = [c.name for c in self.layers[name].candidates]
        return self.reference if self.reference in names else names[0]

    def assign(self, candidates: Mapping[str, str]) -> None:
        """Gives each layer its candidate in `candidates`, by module; the reference where it has none there."""
        for name in self.layers:
            self.set(name, candidates.get(name, self.reference_of(name)))


def mixed_layers(model: SearchableNetwork) -> dict[str, MixedLayer]:
    """Module name in the plain network -> its mixed layer."""
    return {name: layer for name, layer in model.network.named_modules() if isinstance(layer, MixedLayer)}


def measured_choices(model: SearchableNetwork) -> dict[str, MixedLayer | MixedProduct]:
    """Module name -> what is measured there: a mixed layer, or a product of activations (``attn.matmul_1``)."""
    kinds = MixedLayer | MixedProduct
    return {name: choice for name, choice in model.network.named_modules() if isinstance(choice, kinds)}


def rows_of(model: SearchableNetwork) -> dict[str, str]:
    """Layer of the table -> module, of the layers that are measured."""
    layers = measured_choices(model)
    return {row: module for row, module in model._rows.items() if module in layers}


def constant_rows(model: SearchableNetwork, reference: str) -> dict[str, str]:
    """Layer of the table -> its candidate, of what is not measured: the reference, or the first that it can have."""
    layers = measured_choices(model)
    return {
        row: _constant(model._mixed[module], reference) for row, module in model._rows.items() if module not in layers
    }


def constant_cost(model: SearchableNetwork, reference: str, quantity: Quantity) -> float:
    """What the layers of `constant_rows` cost together, in shares of the all-typical 8-bit network."""
    total = 0.0
    for choice, costs in model.choices(quantity):
        if not isinstance(choice, MixedLayer | MixedProduct):
            total += float(costs[[c.name for c in choice.candidates].index(_constant(choice, reference))])
    return total


def choice_costs(
    model: SearchableNetwork,
    layers: Sequence[str],
    candidates: Sequence[str],
    reference: str,
    quantity: Quantity,
) -> list[FloatArray]:
    """What each candidate of each layer costs, in shares of the all-typical 8-bit network; inf for what it cannot have.

    What `constant_rows` cost is added to every candidate of the first layer, so that sums are those of networks.

    Args:
        layers: names of what is measured.
        candidates: the columns; each candidate of a layer is one of them.

    Returns:
        one array a layer, shape (candidates,).
    """
    choices, result = measured_choices(model), []
    costs_of = {id(choice): costs for choice, costs in model.choices(quantity)}
    for name in layers:
        row = np.full(len(candidates), np.inf)
        for candidate, cost in zip(choices[name].candidates, costs_of[id(choices[name])], strict=True):
            row[candidates.index(candidate.name)] = cost
        result.append(row)
    result[0] += constant_cost(model, reference, quantity)
    return result


def fix_others(model: SearchableNetwork, reference: str) -> None:
    """Fixes what is not measured at the candidates of `constant_rows`."""
    for choice, _ in model.choices():
        if not isinstance(choice, MixedLayer | MixedProduct):
            choice.fix([c.name for c in choice.candidates].index(_constant(choice, reference)))


def _constant(choice: Choice, reference: str) -> str:
    names = [c.name for c in choice.candidates]
    return reference if reference in names else names[0]
