"""A network's front is that of all choices of one point for each layer."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.table.fill import map_workload
from dse.table.network_front import LayerFront, add, network_front, spread
from dse.table.result import Result
from dse.table.store import Store
from dse.workload.layers import Layer, Workload
from tests.dse.mapper.test_front import pareto

CONV = Layer("conv", "conv", {"C": 4, "M": 8, "P": 8, "Q": 8, "R": 3, "S": 3})
NET = Workload(
    "small", (CONV, Layer("point", "conv", {"C": 8, "M": 8, "P": 8, "Q": 8}), Layer("again", "conv", CONV.instance))
)

POINTS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=5)


@given(st.lists(POINTS, min_size=1, max_size=4))
def test_sums_are_the_front_of_all_choices(fronts: Any) -> None:
    every = [tuple(map(sum, zip(*choice, strict=True))) for choice in itertools.product(*fronts)]
    found = add([[(float(energy), cycles) for energy, cycles in front] for front in fronts])
    assert list(zip(found.energies_pj, found.cycles, strict=True)) == pareto(every)  # type: ignore[arg-type]
    assert not found.thinned
    for energy, cycles, chosen in zip(found.energies_pj, found.cycles, found.chosen, strict=True):
        picked = [front[i] for front, i in zip(fronts, chosen, strict=True)]
        assert (sum(e for e, _ in picked), sum(c for _, c in picked)) == (energy, cycles)


@given(st.lists(POINTS, min_size=1, max_size=4), st.integers(2, 4))
def test_thinned_sums_are_sums_with_both_ends(fronts: Any, most: int) -> None:
    whole, thin = add(fronts), add(fronts, most)
    assert len(thin.cycles) <= most and thin.thinned == (thin != whole)
    assert (thin.energies_pj[0], thin.cycles[-1]) == (whole.energies_pj[0], whole.cycles[-1])
    for energy, cycles, chosen in zip(thin.energies_pj, thin.cycles, thin.chosen, strict=True):
        picked = [front[i] for front, i in zip(fronts, chosen, strict=True)]
        assert (sum(e for e, _ in picked), sum(c for _, c in picked)) == (energy, cycles)


@given(st.lists(st.integers(1, 10**9), min_size=1, unique=True), st.integers(2, 12))
def test_a_selection_has_both_ends_and_no_point_twice(cycles: list[int], most: int) -> None:
    cycles.sort(reverse=True)
    chosen = spread(cycles, most)
    assert chosen == sorted(set(chosen)) and len(chosen) <= most
    assert (chosen[0], chosen[-1]) == (0, len(cycles) - 1)
    assert len(chosen) == len(cycles) or len(cycles) > most


@pytest.fixture
def store(tmp_path: Any) -> Any:
    return tmp_path / "store.sqlite"


def test_workers_and_the_store_give_the_same_front(store: Any, tmp_path: Any) -> None:
    reports: list[Any] = []
    alone = network_front(NET, jobs=1, store=store, progress=reports.append)
    assert (reports[-1].jobs, reports[-1].computed, reports[-1].duplicates) == (3, 2, 1)
    assert network_front(NET, jobs=2, store=tmp_path / "other.sqlite") == alone
    assert network_front(NET, jobs=1, store=store, progress=reports.append) == alone
    assert (reports[-1].reused, reports[-1].to_compute) == (3, 0)
    assert network_front(NET, jobs=1, store=store, most=2, progress=reports.append) != alone
    assert reports[-1].computed == 2  # other points are another answer


def test_an_embedding_is_added_to_every_point(store: Any) -> None:
    table = Layer("wte", "embedding", {"N": 7, "M": 64})
    alone = network_front(NET, jobs=1, store=store)
    found = network_front(Workload("small", (table, *NET.layers)), jobs=1, store=store)
    row = map_workload(Workload("table", (table,)), jobs=1, store=store).row("wte", "T8")
    assert found.layers == ("wte", *alone.layers) and found.complete == alone.complete
    assert found.sums.cycles == tuple(cycles + row["cycles"] for cycles in alone.sums.cycles)
    assert found.sums.energies_pj == pytest.approx([e + row["e_tx_pj"] for e in alone.sums.energies_pj], rel=1e-12)


def test_a_front_in_the_store_of_another_form_is_computed_again(store: Any) -> None:
    first = network_front(NET, jobs=1, store=store)
    keys = _keys(store)
    with Store(store) as opened:
        for key, payload in zip(keys, ({"points": []}, [1]), strict=True):
            opened.write(key, payload)
    reports: list[Any] = []
    assert network_front(NET, jobs=1, store=store, progress=reports.append) == first
    assert reports[-1].computed == 2


def _keys(store: Any) -> list[str]:
    import sqlite3

    with sqlite3.connect(store) as connection:
        return [key for (key,) in connection.execute("SELECT key FROM results")]


@pytest.mark.parametrize(
    "change",
    [{"points": [{}]}, {"points": "none"}, {"points": [], "reason": ""}, {"complete": 1}, {"reason": None},
     {"points": [Result("no_mapping", "too small").payload]}, {"more": 1}],
)  # fmt: skip
def test_a_payload_is_a_front_or_nothing(change: Any) -> None:
    front = LayerFront((Result("ok", energy_pj=2.0, cycles=3, optimal=True),), True)
    assert LayerFront.from_payload(front.payload) == front
    assert LayerFront.from_payload(LayerFront((), False, "too small").payload) == LayerFront((), False, "too small")
    assert LayerFront.from_payload(front.payload | change) is None
