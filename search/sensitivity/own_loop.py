"""What a training loop of one's own asks of a `SearchableNetwork` besides training: sensitivities, and the front."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from dse.core.errors import InputError, unknown
from search.costs import Quantity
from search.data.sets import Split
from search.knapsack import Front, check_budget, front
from search.sensitivity.measure import LossOf, Task, held_out, measure, right
from search.sensitivity.sensitivities import FloatArray, Sensitivities
from search.sensitivity.subject import Subject, choice_costs, measured_choices
from search.supernet import SearchableNetwork


def sensitivities(
    model: SearchableNetwork,
    inputs: Tensor,
    targets: Tensor,
    *,
    loss: LossOf = functional.cross_entropy,
    metric: LossOf = right,
    reference: str = "T8",
    name: str = "network",
) -> Sensitivities:
    """How the loss on held-out inputs changes when one layer alone has another candidate; nothing is trained.

    Inputs are read in batches of about 250, and statistics of normalisation are those of each batch. The model is left
    as it is. Weights are those that the model has: `enos assign` also fits them to operators that do not approximate
    the typical one (docs/assign.md).

    Args:
        model: with trained weights.
        inputs: as the network takes them, the first dimension counts them; a few hundred, none of the training.
        targets: as many, what `loss` compares with outputs.
        loss: outputs, targets -> the mean over the inputs, a scalar.
        metric: outputs, targets -> a share from 0 to 1, the higher the better; accuracy.
        reference: the candidate of all other layers.
        name: of the network, for the file that `Sensitivities.save` writes.

    Returns:
        Losses and metrics of each layer and candidate.

    Raises:
        InputError: no inputs, another number of targets, or a reference that no layer has.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from dse import Network, export_network, map_workload
        >>> from search import searchable, sensitivities
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> model = searchable(network, map_workload(export_network(Network("small", network, (1, 1, 4, 4)))))
        >>> found = sensitivities(model, torch.randn(100, 1, 4, 4), torch.arange(100) % 2)
        >>> found.layers, found.losses.shape  # (layers, candidates)
        (('0', '3'), (2, 9))
    """
    if not len(inputs):
        raise InputError("inputs", "are empty", "a few hundred")
    if len(inputs) != len(targets):
        raise InputError("targets", f"are {len(targets)} for {len(inputs)} inputs", "as many of both")
    device = next(model.parameters()).device
    batches = held_out(Split(inputs.to(device), targets.to(device)), len(inputs))
    return measure(Subject(model, reference), batches, Task(loss, metric), name=name)


@dataclass(frozen=True, eq=False)
class AssignmentFront:
    """Assignments of which none is better in both cost and predicted increase of the loss, from cheap to dear.

    Attributes:
        quantity: what costs are: energy or latency.
        costs: shares of the all-typical 8-bit network's, strictly increasing, shape (points,).
        increases: the sum of the layers' increases of the loss, strictly decreasing, of the same shape.

    Example: see `assignment_front`, which makes it.
    """

    quantity: Quantity
    costs: FloatArray
    increases: FloatArray
    _front: Front
    _found: Sensitivities

    def __len__(self) -> int:
        """The number of assignments."""
        return len(self.costs)

    def assignment(self, index: int) -> dict[str, str]:
        """Layer of the cost table -> candidate, of one point of the front."""
        return self._found.assignment([int(i) for i in self._front.choices[index]])

    def within(self, budget: float) -> dict[str, str]:
        """The assignment of the least predicted loss that costs no more than `budget`.

        Raises:
            InputError: no positive number, or a budget below the cheapest assignment; it names the smallest one.
        """
        if isinstance(budget, bool) or not isinstance(budget, int | float) or not 0 < budget < math.inf:
            raise InputError(f"{self.quantity} budget", f"found {budget!r}", "a number above 0")
        check_budget([self.costs[:1]], budget, f"{self.quantity} budget")
        return self._found.assignment(self._front.within(budget))


def assignment_front(model: SearchableNetwork, found: Sensitivities, quantity: Quantity = "energy") -> AssignmentFront:
    """The whole front of cost against the predicted loss, at once: for each budget the best assignment.

    Increases of the loss by single layers are added up, which is a prediction: measure what you choose. Costs are those
    of the model: of its table, and of the memory levels and candidates that `searchable` was given.

    Args:
        found: what `sensitivities` measured of this network.
        quantity: what costs are: energy, or latency (cycles).

    Raises:
        InputError: sensitivities of other layers or of other candidates.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from dse import Network, export_network, map_workload
        >>> from search import assignment_front, searchable, sensitivities
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> model = searchable(network, map_workload(export_network(Network("small", network, (1, 1, 4, 4)))))
        >>> front = assignment_front(model, sensitivities(model, torch.randn(100, 1, 4, 4), torch.arange(100) % 2))
        >>> list(front.within(0.5)), bool(front.costs[-1] <= 1)
        (['0', '3'], True)
        >>> front.within(0.01)
        Traceback (most recent call last):
        dse.core.errors.InputError: energy budget: 0.01 is below the cheapest assignment (allowed: at least 0...)
    """
    choices = measured_choices(model)
    if odd := sorted(set(choices) ^ set(found.layers)):
        raise InputError("sensitivities", f"do not fit the network in {', '.join(odd)}", list(choices))
    for choice in choices.values():
        for candidate in choice.candidates:
            if candidate.name not in found.candidates:
                raise unknown("sensitivities", "candidate", candidate.name, found.candidates)
    costs = choice_costs(model, found.layers, found.candidates, found.reference, quantity)
    solved = front(found.increases(), costs)
    return AssignmentFront(quantity, solved.costs, solved.values, solved, found)
