"""Makes a network searchable: wraps its layers, sums their costs, fixes an assignment."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dse.core.errors import InputError, unknown
from dse.hardware.candidate import Candidate
from dse.table.cost_table import CostTable, FloatArray, Transmission
from dse.workload.networks import reason
from search.costs import Quantity, excluded_layers, excluded_rows, module_name, reference_candidate, shares
from search.expected_cost import ExpectedCost
from search.knapsack import TOLERANCE, check_budget, choose
from search.layers.choice import Choice
from search.layers.equivalents import SearchableAttention, TransposedLinear, prepare
from search.layers.foreign import RefusesReads, move_hooks, refuse_foreign, without_fast_path
from search.layers.mixed_layer import LayerOptions, MixedLayer, PlainLayer
from search.layers.mixed_product import MixedProduct
from search.layers.products import insert_products, insert_readers, owner_of
from search.pairing import (
    Unsearched,
    any_row,
    candidates_of,
    candidates_of_product,
    costs_of,
    layers_of,
    mapped,
    pair,
    pinned_candidates,
    typical,
)
from search.sampling.sampler import EXACT, Sampler
from search.spaces import Space


class SearchableNetwork(nn.Module):
    """A network with a `MixedLayer` for every row of a cost table; made by `searchable`.

    A training loop adds one term: ``loss = task_loss + lam * model.energy()``.
    """

    def __init__(self, network: nn.Module, mixed: Mapping[str, Choice], rows: Mapping[str, str],
                 costs: Mapping[Quantity, Sequence[FloatArray]]) -> None:  # fmt: skip
        super().__init__()
        self.network = network
        self._mixed = dict(mixed)  # module name -> its mixed layer, which `network` owns
        self._rows = dict(rows)  # layer of the table -> module name
        self._costs = {quantity: list(arrays) for quantity, arrays in costs.items()}
        device = next(iter(mixed.values())).like().device
        self._expected = nn.ModuleDict({q: ExpectedCost(arrays).to(device) for q, arrays in costs.items()})
        self._reads_known = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network returns.

        Raises:
            InputError: in the first call, a layer whose weights are read in a way that cannot be searched.
        """
        if self._reads_known or torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
            return self.network(*args, **kwargs)
        searched = {
            name: layer.layer.weight
            for name, layer in self._mixed.items()
            if isinstance(layer, MixedLayer) and not isinstance(layer, PlainLayer)
        }
        with RefusesReads(searched):
            result = self.network(*args, **kwargs)
        self._reads_known = True
        return result

    def energy(self) -> Tensor:
        """Expected energy over the all-typical 8-bit energy (both regularisers of Eq. 2a); a differentiable scalar."""
        return self.expected("energy")

    def latency(self) -> Tensor:
        """Expected cycles over those of the all-typical 8-bit network, one layer after the other; differentiable."""
        return self.expected("latency")

    def expected(self, quantity: Quantity) -> Tensor:
        """Expected energy or latency, a differentiable scalar in units of the all-typical 8-bit network."""
        result: Tensor = self._expected[quantity]([layer.probabilities() for layer in self._mixed.values()])
        return result

    def choices(self, quantity: Quantity = "energy") -> list[tuple[Choice, FloatArray]]:
        """Each searched module, with the costs of its candidates in the order of its operator weights."""
        return list(zip(self._mixed.values(), self._costs[quantity], strict=True))

    def alphas(self) -> list[nn.Parameter]:
        """The operator weights alpha, one vector a layer."""
        return [layer.alpha for layer in self._mixed.values() if layer.alpha is not None]

    def thetas(self) -> list[nn.Parameter]:
        """The network's own weights theta: every parameter that learns and is not an operator weight."""
        alphas = {id(alpha) for alpha in self.alphas()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in alphas]

    def assignment(
        self, budget: float | None = None, quantity: Quantity = "energy", *, spent: bool = True
    ) -> dict[str, str]:
        """Layer -> name of its candidate with the highest operator weight (Algorithm 1, step 2).

        Args:
            budget: share of the all-typical 8-bit network that the assignment may cost; the highest total of
                log(softmax(alpha)) decides among those that meet it (see `search.knapsack.choose`).
            quantity: what the budget is for.
            spent: whether at least 98 % of it are to be spent, where that is possible.

        Raises:
            InputError: a budget below the cheapest assignment; it names the smallest possible one.
        """
        return self._choose([layer.log_weights() for layer in self._mixed.values()], budget, quantity, spent)

    def check_budget(self, budget: float, quantity: Quantity = "energy") -> None:
        """Raises an InputError that names the smallest possible budget, if no assignment meets this one."""
        check_budget(self._costs[quantity], budget, f"{quantity} budget")

    def undecided(self) -> list[str]:
        """Layers that still have a choice; of the calls of one module, the first."""
        first: dict[str, str] = {}
        for row, module in self._rows.items():
            if self._mixed[module].alpha is not None and self._mixed[module].fixed is None:
                first.setdefault(module, row)
        return list(first.values())

    def fix(self, layer: str, candidate: str) -> None:
        """Assigns `candidate` to `layer` for good (Algorithm 2): it alone is computed, alpha learns there no more.

        Raises:
            InputError: an unknown layer, or a candidate that is not one of the layer's.
        """
        if layer not in self._rows:
            raise unknown("layer", "layer", layer, self._rows)
        mixed = self._mixed[self._rows[layer]]
        names = [c.name for c in mixed.candidates]
        if candidate not in names:
            raise unknown(f"assignment.{layer}", "candidate", candidate, names)
        mixed.fix(names.index(candidate))

    @contextmanager
    def relaxed(self, shares: Sequence[Tensor]) -> Iterator[None]:
        """Meanwhile the candidates' outputs are weighted with `shares`, in the order of `alphas`, not softmax(alpha).

        The energy stays the expected one of softmax(alpha).
        """
        layers = [layer for layer in self._mixed.values() if layer.alpha is not None]
        try:
            for layer, share in zip(layers, shares, strict=True):
                layer.relaxed = share
            yield
        finally:
            for layer in layers:
                layer.relaxed = None

    @contextmanager
    def some_paths(self, number: int) -> Iterator[None]:
        """Meanwhile each undecided layer computes `number` of its candidates only, drawn without replacement.

        The chances are softmax(alpha), or in `relaxed` the shares, of which the largest are taken. The outputs are
        weighted with the shares of the candidates that were drawn, scaled to a sum of 1; the operator weights of the
        others get no gradient of the loss. The energy stays the expected one of all candidates. Draws come from torch's
        random state.

        Args:
            number: from 2: the gradient of one candidate's share alone is zero.
        """
        with self._paths(lambda layer: layer.drawn(number)):
            yield

    @contextmanager
    def without_negligible(self, share: float) -> Iterator[None]:
        """Meanwhile each undecided layer computes only the candidates that have a part in its output.

        Left out are those whose weight is below `share` / (number of candidates); the two largest are always computed.
        Weights are softmax(alpha), or in `relaxed` the shares. Those of the others are scaled to a sum of 1. Nothing is
        decided for good: what is computed follows from the present weights.

        Args:
            share: 0 to 1; with 0 all are computed.

        Example:
            >>> from search.networks.squeezenet import squeezenet_cifar
            >>> model = searchable(squeezenet_cifar().module, CostTable.load("table.csv"))
            >>> with torch.no_grad():
            ...     model.alphas()[0][1:] -= 5.0
            >>> with model.without_negligible(0.1):
            ...     [len(layer.computed()) for layer, _ in model.choices()][:2]
            [2, 9]
        """
        with self._paths(lambda layer: layer.noticeable(share)):
            yield

    @contextmanager
    def _paths(self, of: Callable[[Choice], tuple[int, ...]]) -> Iterator[None]:
        """Meanwhile each undecided layer computes the candidates that `of` says."""
        layers = [layer for layer in self._mixed.values() if layer.alpha is not None and layer.fixed is None]
        try:
            for layer in layers:
                chosen = of(layer)
                layer.sampled = chosen if len(chosen) < len(layer.candidates) else None
            yield
        finally:
            for layer in layers:
                layer.sampled = None

    def sample(self, generator: torch.Generator, budget: float | None = None, quantity: Quantity = "energy",
               *, spent: bool = True, sampler: Sampler = EXACT) -> dict[str, str]:  # fmt: skip
        """An assignment drawn from softmax(alpha), each layer for itself (Algorithm 3, step 2).

        Args:
            generator: a CPU generator.
            budget: the draw then is the most probable assignment that meets it after Gumbel noise is added to the
                operator weights; without budget the same noise draws exactly from softmax(alpha).
            spent: as for `assignment`.
            sampler: draws the noise.

        Raises:
            InputError: a budget below the cheapest assignment.
        """
        noisy = []
        for layer in self._mixed.values():
            uniform_noise = sampler.uniform(len(layer.candidates), generator)
            noisy.append(layer.log_weights() - torch.log(-torch.log(uniform_noise)).numpy())
        return self._choose(noisy, budget, quantity, spent)

    def _choose(
        self, log_weights: Sequence[FloatArray], budget: float | None, quantity: Quantity, spent: bool
    ) -> dict[str, str]:
        if budget is None:
            found = [int(w.argmax()) for w in log_weights]
        else:
            self.check_budget(budget, quantity)
            found = choose(log_weights, self._costs[quantity], budget, TOLERANCE if spent else 1.0)
        names = {
            module: layer.candidates[i].name for (module, layer), i in zip(self._mixed.items(), found, strict=True)
        }
        return {row: names[module] for row, module in self._rows.items()}

    def probabilities(self) -> dict[str, dict[str, float]]:
        """Layer -> candidate name -> softmax(alpha), for reports."""
        found = {}
        for row, module in self._rows.items():
            layer = self._mixed[module]
            shares = layer.probabilities().tolist()
            found[row] = {c.name: share for c, share in zip(layer.candidates, shares, strict=True)}
        return found

    def discretise(self, assignment: Mapping[str, str] | None = None) -> nn.Module:
        """A copy of the network, with its present weights, that has one fixed candidate a layer.

        Args:
            assignment: layer -> candidate; None takes `assignment()`.

        Raises:
            InputError: a layer without candidate, an unknown layer, or a candidate that is not one of the layer's.
        """
        assignment = self.assignment() if assignment is None else assignment
        _check_names(assignment, self._rows)
        fixed = copy.deepcopy(self.network)
        chosen: dict[str, Candidate] = {}
        for row, module in self._rows.items():
            candidates = {c.name: c for c in self._mixed[module].candidates}
            if assignment[row] not in candidates:
                raise unknown(f"assignment.{row}", "candidate", assignment[row], candidates)
            if chosen.setdefault(module, candidates[assignment[row]]).name != assignment[row]:
                problem = (
                    f"found {assignment[row]!r}, but module {module!r} computes several layers with one set of weights"
                )
                raise InputError(f"assignment.{row}", problem, chosen[module].name)
        singles: dict[int, nn.Module] = {}
        for module, candidate in chosen.items():
            if not isinstance(self._mixed[module], Unsearched):
                mixed = fixed.get_submodule(module)
                assert isinstance(mixed, Choice)
                single = mixed.single(candidate)
                if isinstance(mixed, MixedLayer) and isinstance(single, MixedLayer):
                    # Of the copy, not copied once more: shared parameters stay shared.
                    single.layer.weight = mixed.latent(mixed.candidates.index(candidate))
                    single.layer.bias = mixed.layer.bias
                    move_hooks(mixed, single)
                singles[id(mixed)] = single
        _replace_all(fixed, singles)
        return fixed


def searchable(
    model: nn.Module,
    table: CostTable | Path | str,
    candidates: Sequence[str] | None = None,
    transmission: Transmission = "all",
    *,
    space: Space | None = None,
    pins: Mapping[str, str] | None = None,
    operators: Path | str | Sequence[Candidate] | None = None,
    options: LayerOptions | None = None,
    exclude: Sequence[str] = (),
) -> SearchableNetwork:
    """Wraps every layer of `model` that the table has energies for; `model` itself is left as it is.

    Args:
        model: a network whose convolutions of one or two axes (also transposed ones) and linear layers are the table's
            layers, under their names in `named_modules()`; a further call of a module is the layer ``name#2``, as
            `enos export` writes it. Modules without rows in the table stay as they are, with a warning. Layers of
            other kinds (lookups, convolutions of volumes) stay as they are and count as the typical operator at 8 bits.
            Products of two activations (``attn.matmul_1``) choose among typical candidates (docs/operators.md).
        table: energies of every layer under every candidate, or the table's file. Candidates that cannot be mapped are
            not offered for that layer.
        candidates: names of the candidates to choose from; None takes all of the table's.
        transmission: which levels' transmission energy counts.
        space: which of `candidates` may be chosen: all of them, one precision, or one operator (Fig. 7).
        pins: layers that have one candidate from the start, by name, ``first`` or ``last``; any of the table's.
        operators: where candidates are declared: an operators file, or the candidates; None for the shipped file.
        options: quantisers, latent weights, scales and surrogate gradients of the layers.
        exclude: layers that stay as they are, in floating point, by name or pattern (``blocks.0.*``). Their energy
            counts as that of the typical operator at 8 bits if the table has rows for them, else not at all.

    Raises:
        InputError: naming a layer that only the table has, or that has other weights in the model; an unknown
            candidate; a layer left without candidate.

    Example:
        >>> from search.networks.squeezenet import squeezenet_cifar
        >>> model = searchable(squeezenet_cifar().module, CostTable.load("table.csv"), candidates=["T8", "T4"])
        >>> round(float(model.energy().detach()), 2)  # both as probable: the mean of all T8, 1, and all T4
        0.73
    """
    table = CostTable.load(table) if isinstance(table, Path | str) else table
    if candidates is not None and not candidates:
        raise InputError("candidates", "is empty", table.candidates)
    originals = layers_of(model)
    plain = excluded_layers(exclude, [*originals, *table.layers])
    refuse_foreign(model, {name: m for name, m in originals.items() if any_row(table, name)}, plain)
    try:
        wrapped = copy.deepcopy(model)
    except RuntimeError as e:  # weights that hooks compute, of layers that are left out
        raise InputError(
            "network", f"cannot be copied: {reason(e)}", hint="remove the norms or pruning first"
        ) from None
    further = prepare(wrapped, {row: table.shape(row) for row in table.layers}, plain)
    layers = layers_of(wrapped)
    plain |= {name for name in layers if module_name(name) in plain}
    pairing = pair(table, layers, plain, further)
    rows_of = {name: [row for row, owner in pairing.rows.items() if owner == name] for name in pairing.rows.values()}
    if all(name in plain or name in pairing.apart for name in rows_of):
        raise InputError("exclude", "leaves no layer to search", hint="leave out fewer layers")
    known = candidates_of(table, candidates, operators)
    if space is not None:
        known = list(space.of(known))
    own = pinned_candidates(table, pairing.rows, pins or {}, operators)
    (reference,) = candidates_of(table, [reference_candidate(table)], operators)
    mixed: dict[str, Choice] = {}
    for name in [*(name for name in layers if name in rows_of), *pairing.apart]:
        if name in pairing.apart:
            mixed[name] = Unsearched(reference, wrapped)
        elif name in plain:
            mixed[name] = PlainLayer(layers[name], [reference])
        else:
            mixed[name] = MixedLayer(layers[name], mapped(table, rows_of[name], own.get(name, known)), options)
    for name in layers:
        if name in mixed:
            move_hooks(layers[name], mixed[name])
    _replace_all(wrapped, {id(layers[name]): layer for name, layer in mixed.items() if name in layers})
    without_fast_path(wrapped)
    for name in pairing.products:
        offered = candidates_of_product(name, own.get(name, known), name in own) or [reference]
        like = next(iter(mixed.values())).like()
        mixed[name] = MixedProduct(mapped(table, rows_of[name], offered), options, like)
    products = {name: m for name, m in mixed.items() if isinstance(m, MixedProduct)}
    insert_products(wrapped, products, map(module_name, table.layers))
    insert_readers(wrapped, map(module_name, table.layers))
    quantities: tuple[Quantity, Quantity] = ("energy", "latency")
    costs = {q: costs_of(table, shares(table, q, transmission), mixed, pairing.rows) for q in quantities}
    return SearchableNetwork(wrapped, mixed, pairing.rows, costs)


def plain_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights of the plain network that a discretised one was made of, on the CPU: its state dict's names.

    What the quantisers have learned is not a part of it, and quantisers are begun again from the weights.

    Args:
        network: as `SearchableNetwork.discretise` returns it.
    """
    mixed = [f"{n}." for n, m in network.named_modules(remove_duplicate=False) if isinstance(m, MixedLayer)]
    products = tuple(f"{n}." for n, m in network.named_modules(remove_duplicate=False) if isinstance(m, MixedProduct))
    found = {}
    for name, value in network.state_dict().items():
        owner = next((prefix for prefix in mixed if name.startswith(prefix)), None)
        if name.startswith(products):
            continue
        if owner is None:
            found[name] = value.detach().cpu()
        elif name.startswith(f"{owner}layer."):
            found[owner + name.removeprefix(f"{owner}layer.")] = value.detach().cpu()
    for name, module in network.named_modules(remove_duplicate=False):
        prefix = f"{name}." if name else ""
        if isinstance(module, SearchableAttention):
            module.to_plain(found, prefix)
        elif isinstance(module, MixedLayer) and isinstance(module.layer, TransposedLinear):
            module.layer.to_plain(found, prefix)
    return found


def uniform(table: CostTable, candidate: str, exclude: Sequence[str] = ()) -> dict[str, str]:
    """The assignment of a uni-operator baseline: the same candidate in every layer of the table.

    Products of two activations have only typical candidates: there the typical one of the same number of bits stands
    for another operator, or that of 8 bits if the table has none.

    Args:
        exclude: as for `searchable`; these layers have what their energy is counted as.
    """
    products = [row for row in table.layers if owner_of(module_name(row)) is not None]
    in_products = {row: typical(table, row, candidate) for row in products}
    return {**dict.fromkeys(table.layers, candidate), **in_products, **excluded_rows(table, exclude)}


def _check_names(assignment: Mapping[str, str], rows: Mapping[str, str]) -> None:
    for name in assignment:
        if name not in rows:
            raise InputError("assignment", f"has no layer {name!r} to assign", rows)
    for name in rows:
        if name not in assignment:
            raise InputError("assignment", f"layer {name!r} is missing")


def _replace_all(network: nn.Module, replacements: Mapping[int, nn.Module]) -> None:
    """Puts a module in the place of each of these (by id), under all the names that it has."""
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if id(module) in replacements:
            _replace(network, name, replacements[id(module)])


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
