"""What every mode does with alpha, and what only one of them does."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from search.data.datasets import Split
from search.objective import WeightedEnergy
from search.sampling.macro import Macro
from search.sampling.sampler import InMemory
from search.strategies.modes import STRATEGIES
from search.strategies.sequential import surest
from search.strategies.stochastic import population
from search.strategies.variational import annealed, divergence, relaxed_sample
from search.training import epochs
from search.training.checkpoint import Record
from tests.search.strategies.helpers import DATA, TABLE, learnt, make_learner, settings_of, small_model

MODES = list(STRATEGIES)
LEARNING = [mode for mode in MODES if mode != "sensitivity"]
"""Modes that learn alpha and theta, in several epochs."""
LAYERS = TABLE.layers


@pytest.mark.parametrize("mode", MODES)
def test_a_larger_lambda_finds_a_cheaper_network(mode: str, tmp_path: Path) -> None:
    free, costly = (learnt(mode, tmp_path / f"{lam}.pt", lam=lam) for lam in (0.0, 100.0))
    assert costly.energy() < free.energy()
    assert costly.assignment() == dict.fromkeys(LAYERS, "BC2") != free.assignment()


@pytest.mark.parametrize("mode", LEARNING)
def test_operator_weights_stay_untouched_in_the_warm_up(mode: str, tmp_path: Path) -> None:
    alphas: list[bool] = []

    def look(record: Record) -> None:
        alphas.append(any(bool(alpha.any()) for alpha in learner.model.alphas()))

    learner = make_learner(mode, tmp_path / "x.pt", on_epoch=look)
    STRATEGIES[mode](learner)
    assert alphas[0] is False and all(alphas[1:]) and len(alphas) == 3


@pytest.mark.parametrize(("mode", "reads"), [(mode, mode not in ("single_level", "sequential")) for mode in LEARNING])
def test_alpha_learns_on_the_validation_set_where_the_paper_says_so(mode: str, reads: bool, tmp_path: Path) -> None:
    held_out = DATA.validation
    other = replace(DATA, validation=Split(held_out.images, held_out.labels.flip(0)))
    alphas = [
        torch.cat([a.detach() for a in learnt(mode, tmp_path / f"{i}.pt", data=data).alphas()])
        for i, data in enumerate((DATA, other))
    ]
    assert torch.equal(*alphas) is not reads


def stop_after(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Makes the training end in the middle, when it asks for a further batch."""
    whole, left = epochs.batches, itertools.count(number, -1)

    def batches(*arguments: Any) -> Iterator[Any]:
        for batch in whole(*arguments):
            if next(left) == 0:
                raise InterruptedError
            yield batch

    monkeypatch.setattr("search.training.epochs.batches", batches)


def result(mode: str, path: Path, records: list[Record], **more: Any) -> Any:
    learner = make_learner(mode, path, dropout=True, on_epoch=records.append, **more)
    history = STRATEGIES[mode](learner)
    assert records[-len(history) :] == history
    return [{k: v for k, v in r.items() if k != "seconds"} for r in history], learner.model.state_dict()


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        *((m, {}) for m in LEARNING),
        *((m, {"negligible": 0.95}) for m in LEARNING),  # some candidates are left out in most steps
        ("bilevel", {"second_order": True}),
    ],
)
def test_a_stop_in_any_epoch_changes_nothing(
    mode: str, more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, state = result(mode, tmp_path / "whole.pt", [], **more)
    for number in (2, 7, 6):  # five batches an epoch: in the first one, in the second, in the third
        with monkeypatch.context() as patched, pytest.raises(InterruptedError):
            stop_after(patched, number)
            result(mode, tmp_path / "stopped.pt", [], **more)
    records: list[Record] = []
    torch.manual_seed(12345)  # another process has another random state
    again, state_again = result(mode, tmp_path / "stopped.pt", records, **more)
    assert again == history and len(records) == len(history)
    for name, value in state.items():
        same = torch.equal(value, state_again[name]) if isinstance(value, torch.Tensor) else value == state_again[name]
        assert same, name


@pytest.mark.parametrize(("mode", "more"), [*((m, {}) for m in LEARNING), ("variational", {"sampler": "mc2ram"})])
def test_an_epoch_that_stops_in_the_middle_is_resumed_there(
    mode: str, more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint after each step: what was done before a stop is not done again, and the end is the same."""
    history, state = result(mode, tmp_path / "whole.pt", [], **more)
    monkeypatch.setattr("search.training.epochs.KEPT_EVERY", 0.0)
    for number in (3, 5, 4):  # batches; an epoch has five
        with monkeypatch.context() as patched, pytest.raises(InterruptedError):
            stop_after(patched, number)
            result(mode, tmp_path / "stopped.pt", [], **more)
    torch.manual_seed(12345)
    drawn: list[int] = []
    plain = epochs.batches

    def counted(*arguments: Any) -> Iterator[Any]:
        drawn.append(arguments[6] if len(arguments) > 6 else 0)
        yield from plain(*arguments)

    monkeypatch.setattr("search.training.epochs.batches", counted)
    again, state_again = result(mode, tmp_path / "stopped.pt", [], **more)
    assert again == history
    assert max(drawn) > 0  # the first epoch of the last command had begun before
    assert all(torch.equal(v, state_again[name]) for name, v in state.items() if isinstance(v, torch.Tensor))


def test_sequential_assigns_the_surest_layer_in_each_cycle(tmp_path: Path) -> None:
    weights: list[dict[str, dict[str, float]]] = []
    learner = make_learner("sequential", tmp_path / "x.pt", cycle_epochs=2, warmup_epochs=1)
    model = learner.model
    fix = model.fix

    def look(layer: str, candidate: str) -> None:
        weights.append(model.probabilities())
        assert surest(model, model.assignment())[:2] == (layer, candidate)
        fix(layer, candidate)

    model.fix = look  # type: ignore[method-assign]
    history = STRATEGIES["sequential"](learner)
    assert len(history) == 1 + 2 * len(LAYERS)
    cycles = [r["assigned"] for r in history if "assigned" in r]
    assert [r["epoch"] for r in history if "assigned" in r] == [3, 5]
    assert [c["cycle"] for c in cycles] == [1, 2] and {c["layer"] for c in cycles} == set(LAYERS)
    assert cycles[0]["weight"] == max(share for row in weights[0].values() for share in row.values())
    assert cycles[1]["weight"] == max(weights[1][cycles[1]["layer"]].values())
    assert model.undecided() == [] and model.assignment() == {c["layer"]: c["candidate"] for c in cycles}


def test_sequential_can_open_undecided_layers_anew(tmp_path: Path) -> None:
    first, anew = (
        make_learner("sequential", tmp_path / f"{i}.pt", restart_alpha=bool(i), alpha_lr=0.05, lam=5.0, cycle_epochs=2)
        for i in range(2)
    )
    weights = [[r["assigned"]["weight"] for r in STRATEGIES["sequential"](x) if "assigned" in r] for x in (first, anew)]
    assert weights[0][0] == weights[1][0] and weights[0][1] > weights[1][1]


def test_populations_are_decided_by_the_seed() -> None:
    model = small_model()
    drawn = population(model, WeightedEnergy(1.0), 50, 3)
    assert drawn == population(model, WeightedEnergy(1.0), 50, 3) != population(model, WeightedEnergy(1.0), 50, 4)
    assert len(drawn) == 50 and len({tuple(a.values()) for a in drawn}) > 20
    assert drawn[:5] == population(model, WeightedEnergy(1.0), 5, 3)


def test_the_exact_sampler_leaves_populations_and_noise_as_they_were() -> None:
    model = small_model()
    noise = torch.Generator().manual_seed(3)
    expected = []
    for layer, _ in model.choices():
        gumbel = -torch.log(-torch.log(torch.rand(len(layer.candidates), generator=noise, dtype=torch.float64)))
        expected.append(layer.candidates[int((torch.from_numpy(layer.log_weights()) + gumbel).argmax())].name)
    assert list(population(model, WeightedEnergy(1.0), 1, 3)[0].values()) == expected
    torch.manual_seed(5)
    gumbels = torch.split(
        -torch.empty(sum(map(len, model.alphas()))).exponential_().log(), list(map(len, model.alphas()))
    )
    torch.manual_seed(5)
    for share, alpha, gumbel in zip(relaxed_sample(model, 0.7), model.alphas(), gumbels, strict=True):
        assert torch.equal(share, ((alpha + gumbel) / 0.7).softmax(0))


@pytest.mark.parametrize("mode", ["stochastic", "variational"])
def test_noise_from_inside_sram_is_drawn_and_counted(mode: str, tmp_path: Path) -> None:
    exact, noisy = (
        make_learner(mode, tmp_path / f"{name}.pt", sampler=name, **({"macro": Macro(burn_in=5)} if i else {}))
        for i, name in enumerate(("exact", "mc2ram"))
    )
    histories = [STRATEGIES[mode](learner) for learner in (exact, noisy)]
    assert all("noise" not in record for record in histories[0])
    same = all(map(torch.equal, exact.model.alphas(), noisy.model.alphas()))
    if mode == "stochastic":  # its noise is of the population alone
        assert same and all("noise" not in record for record in histories[1])
    else:
        assert not same
        numbers = [record["noise"]["numbers"] for record in histories[1]]
        candidates = sum(map(len, noisy.model.alphas()))
        assert numbers[0] % candidates == 0 and numbers[1] == numbers[2] == 2 * numbers[0]  # the first is a warm-up
        assert [r["noise"]["iterations"] for r in histories[1]] == [6 * n for n in numbers]
    sampler = InMemory(Macro(burn_in=5))
    drawn = population(noisy.model, WeightedEnergy(1.0), 20, 3, sampler)
    assert drawn == population(noisy.model, WeightedEnergy(1.0), 20, 3, InMemory(Macro(burn_in=5)))
    assert drawn != population(noisy.model, WeightedEnergy(1.0), 20, 3)
    assert sampler.numbers == 20 * sum(len(layer.candidates) for layer, _ in noisy.model.choices())


def test_relaxed_samples_are_near_what_they_stand_for() -> None:
    torch.manual_seed(0)
    model = small_model()
    shares = torch.tensor([0.6, 0.3] + [0.1 / 7] * 7)
    with torch.no_grad():
        model.alphas()[0].copy_(shares.log())
    samples = torch.stack([relaxed_sample(model, 0.05)[0] for _ in range(2000)])
    assert torch.allclose(samples.sum(1), torch.ones(2000), atol=1e-5)
    assert torch.allclose(samples.argmax(1).bincount(minlength=9) / 2000, shares, atol=0.04)
    assert samples.max(1).values.mean() > 0.95
    warm = torch.stack([relaxed_sample(model, 5.0)[0] for _ in range(200)])
    assert warm.max(1).values.mean() < 0.5
    (gradient,) = torch.autograd.grad(relaxed_sample(model, 1.0)[0][0], model.alphas()[0])
    assert gradient[0] > 0 and (gradient[1:] < 0).all()


def test_the_divergence_is_from_a_uniform_choice() -> None:
    model = small_model()
    assert divergence(model).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for alpha in model.alphas():
            alpha[0] = 100
    assert divergence(model).item() == pytest.approx(math.log(9))


def test_the_temperature_falls_in_equal_ratios() -> None:
    settings = settings_of("variational", temperature=4.0, temperature_end=0.25)
    assert [annealed(settings, p) for p in (0, 0.5, 1)] == pytest.approx([4, 1, 0.25])


def test_a_large_kl_keeps_the_choice_open(tmp_path: Path) -> None:
    open_, closed = (
        make_learner("variational", tmp_path / f"{kl}.pt", kl=kl, lam=20.0, alpha_lr=0.1) for kl in (1e4, 0.0)
    )
    found = [STRATEGIES["variational"](x)[-1] for x in (open_, closed)]
    assert found[0]["divergence"] < 0.05 < 0.2 < found[1]["divergence"]
    assert found[0]["temperature"] == found[1]["temperature"] < 0.4


@pytest.mark.parametrize("mode", LEARNING)
def test_candidates_that_are_not_negligible_are_all_computed(mode: str, tmp_path: Path) -> None:
    """What is left out changes what is found, and it is what `negligible` says."""
    found = []
    for i, share in enumerate((0.0, 1e-9, 0.95)):
        learner = make_learner(mode, tmp_path / f"{i}.pt", negligible=share)
        STRATEGIES[mode](learner)
        found.append(learner.model.alphas()[0].detach())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
