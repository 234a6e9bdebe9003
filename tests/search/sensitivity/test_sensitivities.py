from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from search.sensitivity.job import _origin
from search.sensitivity.sensitivities import Sensitivities

ROOT = Path(__file__).parents[3]

FOUND = Sensitivities(
    network="net", reference="T8", reference_loss=1.0, reference_accuracy=0.5, layers=("a", "b"),
    candidates=("T8", "BC2"), losses=np.array([[1.0, 1.5], [1.0, np.inf]]),
    accuracies=np.array([[0.5, 0.4], [0.5, np.nan]]),
    rows={"a": "a", "b": "b", "b#2": "b"}, images=100, settings={"seed": 0},
)  # fmt: skip


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    FOUND.save(tmp_path / "s.json")
    loaded = Sensitivities.load(tmp_path / "s.json")
    for name, value in vars(FOUND).items():
        other = getattr(loaded, name)
        assert np.array_equal(other, value, equal_nan=True) if isinstance(value, np.ndarray) else other == value


def test_increases_are_never_negative() -> None:
    noisy = replace(FOUND, losses=np.array([[1.0, 0.9], [1.0, np.inf]]))
    assert [row.tolist() for row in noisy.increases()] == [[0.0, 0.0], [0.0, np.inf]]


def test_costs_are_summed_over_the_calls_of_a_module() -> None:
    shares = np.array([[0.1, 0.2], [0.3, 0.4], [0.05, np.inf]])
    found = FOUND.costs(shares, ["b", "a", "b#2"], ["BC2", "T8"])
    assert (
        found[0].tolist() == [0.4, 0.3] and found[1][0] == pytest.approx(np.inf) and found[1][1] == pytest.approx(0.15)
    )


def test_assignments_and_choices_are_the_same_thing() -> None:
    assert FOUND.assignment([1, 0]) == {"a": "BC2", "b": "T8", "b#2": "T8"}
    assert FOUND.choice(FOUND.assignment([1, 0])) == [1, 0]


def test_costs_of_another_network_are_refused() -> None:
    shares = np.ones((3, 2))
    for rows, names, problem in [
        (["a", "b", "c"], ["T8", "BC2"], "table: unknown layer 'c'"),
        (["a", "b"], ["T8", "BC2"], "table: has no rows for layer 'b#2' of the sensitivities"),
        (["a", "b", "b#2"], ["T8", "T4"], "sensitivities: unknown candidate 'BC2'"),
    ]:
        with pytest.raises(InputError) as error:
            FOUND.costs(shares, rows, names)
        assert str(error.value).startswith(problem)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema_version": 2}, "schema_version: found 2"),
        ({"reference": "T4"}, "reference: unknown candidate 'T4'"),
        ({"losses": [[1.0, 1.5]]}, "losses: lacks a row for each layer or a column for each candidate"),
        ({"losses": [[1.0], [1.0]]}, "losses: lacks a row for each layer or a column for each candidate"),
        ({"losses": [[1.0, True], [1.0, None]]}, "losses[0][1]: found True"),
        ({"losses": [[None, None], [1.0, None]]}, "losses: layer 'a' has no candidate"),
        ({"accuracies": [[0.5, 1.4], [0.5, None]]}, "accuracies[0][1]: found 1.4"),
        ({"rows": {"a": "c"}}, "rows.a: unknown layer 'c'"),
        ({"rows": {"a": "a"}}, "rows: lacks layer 'b'"),
        ({"layers": ["a", "a"]}, "layers[1]: 'a' is in the list twice"),
        ({"images": 0}, "images: found 0"),
        ({"imagse": 0}, "unknown field 'imagse'; did you mean 'images'?"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    file = tmp_path / "s.json"
    FOUND.save(file)
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InputError) as error:
        Sensitivities.load(file)
    assert problem in str(error.value) and "s.json" in str(error.value) and "\n" not in str(error.value)


def test_a_file_is_read_without_torch(tmp_path: Path) -> None:
    FOUND.save(tmp_path / "s.json")
    code = (
        "import sys; from search.sensitivity.sensitivities import Sensitivities; from search.knapsack import front;"
        f"Sensitivities.load({str(tmp_path / 's.json')!r}); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "False"


def test_the_origin_of_energies_is_kept() -> None:
    table = CostTable.load(ROOT / "results" / "squeezenet_cifar" / "table.csv")
    assert _origin(table)["arch"] == table.provenance.arch
    assert _origin(CostTable(table.rows)) == {}
