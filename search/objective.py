"""What the network loss of Eq. 2 adds to accuracy: expected energy and latency, weighted or held to a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from dse.table.cost_table import FloatArray
from search.costs import Quantity
from search.knapsack import check_budget
from search.sampling.sampler import EXACT, Sampler
from search.supernet import SearchableNetwork

STRIDE = 0.02
"""How far a budget moves the expected cost in one step, as a share of the all-typical 8-bit network's."""


class Regulariser(Protocol):
    """What a search adds to the accuracy loss (Eq. 2a), with the state that it keeps from step to step."""

    def __call__(self, model: SearchableNetwork) -> Tensor:
        """The term for the model's present operator weights; a differentiable scalar."""

    def update(self, model: SearchableNetwork) -> None:
        """Is called after each step of the operator weights, while they still have the gradient of that step."""

    def report(self, model: SearchableNetwork) -> dict[str, float]:
        """What an epoch's record says of it: energy and latency (expected, shares of all-typical 8-bit), lambda."""

    def assignment(self, model: SearchableNetwork) -> dict[str, str]:
        """The most probable assignment that it allows: layer -> candidate."""

    def sample(self, model: SearchableNetwork, generator: torch.Generator, sampler: Sampler = EXACT) -> dict[str, str]:
        """An assignment that it allows, drawn from softmax(alpha) with the noise of a sampler."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None: ...


class WeightedEnergy:
    """lam * energy + latency_weight * latency, with fixed weights; both quantities have no dimension."""

    def __init__(self, lam: float, latency_weight: float = 0.0) -> None:
        self.lam, self.latency_weight = lam, latency_weight

    def __call__(self, model: SearchableNetwork) -> Tensor:
        term = self.lam * model.energy()
        return term + self.latency_weight * model.latency() if self.latency_weight else term

    def update(self, model: SearchableNetwork) -> None:
        pass

    def report(self, model: SearchableNetwork) -> dict[str, float]:
        return {**_expected(model), "lambda": self.lam}

    def assignment(self, model: SearchableNetwork) -> dict[str, str]:
        return model.assignment()

    def sample(self, model: SearchableNetwork, generator: torch.Generator, sampler: Sampler = EXACT) -> dict[str, str]:
        return model.sample(generator, sampler=sampler)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        pass


class EnergyBudget:
    """lambda * energy, with the lambda that holds the expected energy at a budget.

    The search solves: least accuracy loss, such that the expected energy is `budget`. Each step of the operator weights
    is followed by two corrections, neither of which has a setting:

    - *The multiplier* (lambda). At a solution the gradient of the whole term, accuracy loss + lambda * energy, vanishes
      along the gradient of energy. So a tenth of what is left along it goes into lambda, which moves towards the
      least-squares multiplier whatever the scale of the loss.
    - *The projection.* Every layer's probabilities p become p * exp(-t * cost) / sum, with one t for all layers that
      brings the expected energy back to the budget. These are the distributions that meet it and are nearest to p (in
      Kullback-Leibler divergence). The first steps go towards the budget without leaping, by at most `STRIDE` each.

    lambda has either sign: a budget is meant to be spent. One that no assignment exceeds is not a constraint, with
    lambda = 0. Layers that are pinned or fixed count, and stay as they are.

    Args:
        budget: share of the energy of the all-typical 8-bit network.

    Example:
        >>> from dse import Network, export_network, map_workload
        >>> from search import EnergyBudget, searchable
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
        >>> model = searchable(network, map_workload(export_network(Network("small", network, (1, 1, 4, 4)))))
        >>> budget = EnergyBudget(0.5)
        >>> optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
        >>> x, y = torch.randn(8, 1, 4, 4), torch.arange(8) % 2
        >>> for _ in range(30):
        ...     loss = torch.nn.functional.cross_entropy(model(x), y) + budget(model)
        ...     optimiser.zero_grad()
        ...     loss.backward()
        ...     optimiser.step()
        ...     budget.update(model)  # after each step of the operator weights
        >>> round(float(model.energy().detach()), 2)
        0.5
    """

    quantity: ClassVar[Quantity] = "energy"
    spent = True
    """Whether the budget is to be spent, or is the most that may be."""

    def __init__(self, budget: float) -> None:
        self.budget, self.lam = budget, 0.0

    def __call__(self, model: SearchableNetwork) -> Tensor:
        return self.lam * model.expected(self.quantity)

    def update(self, model: SearchableNetwork) -> None:
        """Corrects lambda and the operator weights.

        Raises:
            InputError: a budget below the model's cheapest assignment.
        """
        choices = model.choices(self.quantity)
        check_budget([costs for _, costs in choices], self.budget, f"{self.quantity} budget")
        if self.budget >= sum(costs.max() for _, costs in choices):
            return
        pairs = [(m.alpha, costs) for m, costs in choices if m.alpha is not None and m.fixed is None]
        if not pairs:
            return
        alphas, costs = [alpha for alpha, _ in pairs], [c for _, c in pairs]
        gradients = [alpha.grad for alpha in alphas if alpha.grad is not None]
        *read, (expected,) = _on_host([*alphas, *gradients, model.expected(self.quantity).reshape(1)])
        logits, slopes = _rows(read[: len(alphas)], -np.inf), read[len(alphas) :]
        now = _mean(logits, _rows(costs, 0.0))
        if not self.spent and expected < (1 - 1e-3) * self.budget:
            self.lam *= 0.9  # on this side of the budget there is no constraint
            return
        if len(slopes) == len(alphas):
            self._correct_multiplier(_rows(slopes, 0.0), logits, _rows(costs, 0.0))
        tilt = _tilt(logits, costs, now + float(np.clip(self.budget - expected, -STRIDE, STRIDE)))
        if not self.spent:
            self.lam, tilt = max(self.lam, 0.0), max(tilt, 0.0)
        with torch.no_grad():
            moved = torch.as_tensor(np.concatenate([tilt * (c - c.mean()) for c in costs])).to(alphas[0].dtype)
            moved = moved.to(alphas[0].device, non_blocking=True)
            for alpha, by in zip(alphas, torch.split(moved, [len(alpha) for alpha in alphas]), strict=True):
                alpha.sub_(by)

    def _correct_multiplier(self, slopes: FloatArray, logits: FloatArray, costs: FloatArray) -> None:
        p = _softmax(logits)
        normal = p * (costs - (p * costs).sum(1, keepdims=True))  # gradient of the expected cost
        length = float((normal**2).sum())
        if length > 1e-20:
            self.lam -= 0.1 * float((slopes * normal).sum()) / length

    def report(self, model: SearchableNetwork) -> dict[str, float]:
        return {**_expected(model), "lambda": self.lam}

    def assignment(self, model: SearchableNetwork) -> dict[str, str]:
        """The most probable assignment that meets the budget; see `SearchableNetwork.assignment`."""
        return model.assignment(self.budget, self.quantity, spent=self.spent)

    def sample(self, model: SearchableNetwork, generator: torch.Generator, sampler: Sampler = EXACT) -> dict[str, str]:
        """An assignment that meets the budget; see `SearchableNetwork.sample`."""
        return model.sample(generator, self.budget, self.quantity, spent=self.spent, sampler=sampler)

    def state_dict(self) -> dict[str, Any]:
        return {"lambda": self.lam}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self.lam = float(state_dict["lambda"])


class LatencyBudget(EnergyBudget):
    """As `EnergyBudget`, for the expected latency; energy may be a second term, with a fixed weight.

    With that weight the budget is the most that may be spent, for a network that saves energy may well be faster: the
    multiplier of the cycles is never negative, and nothing is done to networks that are faster than the budget.

    Args:
        budget: share of the cycles of the all-typical 8-bit network.
        energy_weight: weight of the expected energy in the loss, the lambda of Eq. 2a; `lam` is that of the cycles.

    Example: as of `EnergyBudget`, with
        >>> budget = LatencyBudget(0.9, energy_weight=0.3)
        >>> budget.budget, budget.quantity
        (0.9, 'latency')
    """

    quantity: ClassVar[Quantity] = "latency"

    def __init__(self, budget: float, energy_weight: float = 0.0) -> None:
        super().__init__(budget)
        self.energy_weight, self.spent = energy_weight, not energy_weight

    def __call__(self, model: SearchableNetwork) -> Tensor:
        term = super().__call__(model)
        return term + self.energy_weight * model.energy() if self.energy_weight else term


def _expected(model: SearchableNetwork) -> dict[str, float]:
    return {"energy": float(model.energy().detach()), "latency": float(model.latency().detach())}


def _tilt(logits: FloatArray, costs: Sequence[FloatArray], target: float) -> float:
    """The t at which softmax(logits - t * costs) costs `target`; 0 where all candidates of a layer cost the same.

    What only a decided network could cost is not asked for: no probability has to become 0 or 1.
    """
    least, most, rows = sum(c.min() for c in costs), sum(c.max() for c in costs), _rows(costs, 0.0)
    margin = 1e-3 * (most - least)
    if not margin:
        return 0.0
    target = float(np.clip(target, least + margin, most - margin))
    reach = 1.0
    while _mean(logits - reach * rows, rows) > target or _mean(logits + reach * rows, rows) < target:
        reach *= 4
    low, high = -reach, reach
    for _ in range(60):  # the cost falls with t
        middle = (low + high) / 2
        low, high = (middle, high) if _mean(logits - middle * rows, rows) > target else (low, middle)
    return (low + high) / 2


def _on_host(vectors: Sequence[Tensor]) -> list[FloatArray]:
    """The vectors in float64; moved at once, for every copy from a device waits for what it computes."""
    together = torch.cat([v.detach() for v in vectors]).double().cpu()
    return [part.numpy() for part in torch.split(together, [len(v) for v in vectors])]


def _mean(logits: FloatArray, costs: FloatArray) -> float:
    return float((_softmax(logits) * costs).sum())


def _softmax(logits: FloatArray) -> FloatArray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    found: FloatArray = powers / powers.sum(1, keepdims=True)
    return found


def _rows(arrays: Sequence[FloatArray], fill: float) -> FloatArray:
    """The arrays as rows of one, filled up to the length of the longest."""
    found = np.full((len(arrays), max(map(len, arrays))), fill)
    for row, array in zip(found, arrays, strict=True):
        row[: len(array)] = array
    return found
