"""Makes a network searchable: wraps its layers, sums their energy, fixes an assignment."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from dse.candidates import Candidate, load_candidates
from dse.errors import InputError
from dse.table import CostTable, Transmission
from search.mixed import MixedLayer
from search.objective import ExpectedEnergy


class SearchableNetwork(nn.Module):
    """A network with a `MixedLayer` for every row of a cost table; made by `searchable`.

    A training loop adds one term: ``loss = task_loss + lam * model.energy()``.
    """

    def __init__(self, network: nn.Module, mixed: Mapping[str, MixedLayer], rows: Mapping[str, str],
                 energy: ExpectedEnergy) -> None:  # fmt: skip
        super().__init__()
        self.network = network
        self._mixed = dict(mixed)  # module name -> its mixed layer, which `network` owns
        self._rows = dict(rows)  # layer of the table -> module name
        self._energy = energy

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.network(x)
        return result

    def energy(self) -> Tensor:
        """Expected energy over the all-typical 8-bit energy (both regularisers of Eq. 2a); a differentiable scalar."""
        result: Tensor = self._energy([layer.probabilities() for layer in self._mixed.values()])
        return result

    def alphas(self) -> list[nn.Parameter]:
        """The operator weights alpha, one vector a layer."""
        return [layer.alpha for layer in self._mixed.values() if layer.alpha is not None]

    def thetas(self) -> list[nn.Parameter]:
        """The network's own weights theta: every parameter that is no operator weight."""
        alphas = {id(alpha) for alpha in self.alphas()}
        return [p for p in self.parameters() if id(p) not in alphas]

    def assignment(self) -> dict[str, str]:
        """Layer -> name of its candidate with the highest operator weight (Algorithm 1, step 2)."""
        return {row: self._mixed[module].choice().name for row, module in self._rows.items()}

    def probabilities(self) -> dict[str, dict[str, float]]:
        """Layer -> candidate name -> softmax(alpha), for reports."""
        found = {}
        for row, module in self._rows.items():
            layer = self._mixed[module]
            shares = layer.probabilities().tolist()
            found[row] = {c.name: share for c, share in zip(layer.candidates, shares, strict=True)}
        return found

    def discretise(self, assignment: Mapping[str, str]) -> nn.Module:
        """A copy of the network, with its present weights, that has one fixed candidate a layer.

        Raises:
            InputError: a layer without candidate, an unknown layer, or a candidate that is not one of the layer's.
        """
        _check_names(assignment, self._rows)
        fixed = copy.deepcopy(self.network)
        chosen: dict[str, Candidate] = {}
        for row, module in self._rows.items():
            candidates = {c.name: c for c in self._mixed[module].candidates}
            if assignment[row] not in candidates:
                raise InputError(f"assignment.{row}", f"found {assignment[row]!r}", candidates)
            if chosen.setdefault(module, candidates[assignment[row]]).name != assignment[row]:
                problem = (
                    f"found {assignment[row]!r}, but module {module!r} computes several layers with one set of weights"
                )
                raise InputError(f"assignment.{row}", problem, chosen[module].name)
        for module, candidate in chosen.items():
            mixed = fixed.get_submodule(module)
            assert isinstance(mixed, MixedLayer)
            _replace(fixed, module, mixed.single(candidate))
        return fixed


def searchable(
    model: nn.Module,
    table: CostTable,
    candidates: Sequence[str] | None = None,
    transmission: Transmission = "all",
) -> SearchableNetwork:
    """Wraps every layer of `model` that the table has energies for; `model` itself is left as it is.

    Args:
        model: a network whose Conv2d and Linear modules are the table's layers, under their names in
            `named_modules()`; a further call of a module is the layer ``name#2``, as `enos export` writes it.
        table: energies of every layer under every candidate. A candidate without mapping is no choice of that layer.
        candidates: names of the candidates to choose from; None takes all of the table's.
        transmission: which levels' transmission energy counts.

    Raises:
        InputError: naming a layer of the model that the table lacks, or one that only the table has; an unknown
            candidate; a layer left without candidate.
    """
    wrapped = copy.deepcopy(model)
    layers = {n: m for n, m in wrapped.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    rows = {row: row if row in layers else row.rpartition("#")[0] or row for row in table.layers}
    for name in layers:
        if name not in rows.values():
            raise InputError("table", f"has no rows for layer {name!r} of the network", table.layers)
    for row, name in rows.items():
        if name not in layers:
            raise InputError("table", f"layer {row!r} is no Conv2d or Linear of the network", layers)
    known = _candidates(table, candidates)
    mixed, choices = {}, []
    for name, module in layers.items():
        own_rows = [row for row, owner in rows.items() if owner == name]
        own = [c for c in known if all(table.row(row, c.name)["status"] == "ok" for row in own_rows)]
        if not own:
            raise InputError(f"table: layer {name!r}", "no candidate has a mapping")
        mixed[name] = MixedLayer(module, own)
        choices.append((own_rows, own))
    for name, layer in mixed.items():
        _replace(wrapped, name, layer)
    energy = ExpectedEnergy(table, choices, transmission).to(next(iter(layers.values())).weight.device)
    return SearchableNetwork(wrapped, mixed, rows, energy)


def uniform(table: CostTable, candidate: str) -> dict[str, str]:
    """The assignment of a uni-operator baseline: the same candidate in every layer of the table."""
    return dict.fromkeys(table.layers, candidate)


def _candidates(table: CostTable, names: Sequence[str] | None) -> list[Candidate]:
    declared = {c.name: c for c in load_candidates()}
    for name in names if names is not None else table.candidates:
        if name not in table.candidates:
            raise InputError("candidates", f"{name!r} is not in the table", table.candidates)
        if name not in declared:
            raise InputError("candidates", f"{name!r} is not declared in arch_specs/operators.yaml", declared)
    return [declared[name] for name in table.candidates if names is None or name in names]


def _check_names(assignment: Mapping[str, str], rows: Mapping[str, str]) -> None:
    for name in assignment:
        if name not in rows:
            raise InputError("assignment", f"has no layer {name!r} to assign", rows)
    for name in rows:
        if name not in assignment:
            raise InputError("assignment", f"layer {name!r} is missing")


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
