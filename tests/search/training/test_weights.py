"""Weights from files: what is read, and that nothing that does not fit is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dse.core.errors import InputError
from search.training.weights import load_weights, read_weights
from tests.search.tiny import tiny


def trained() -> nn.Module:
    torch.manual_seed(7)
    network = tiny().module
    network.get_submodule("norm").running_mean.fill_(0.5)  # type: ignore[union-attr, operator]
    return network


@pytest.mark.parametrize("inside", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_dict_is_found_in_its_usual_places(tmp_path: Path, inside: str | None, prefix: str) -> None:
    network = trained()
    state = {prefix + name: value for name, value in network.state_dict().items()}
    torch.save(state if inside is None else {"epoch": 3, inside: state}, tmp_path / "x.pt")
    other = tiny().module
    assert not torch.equal(other.get_parameter("conv.weight"), network.get_parameter("conv.weight"))
    load_weights(other, read_weights(tmp_path / "x.pt"), "x.pt")
    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_a_prefix_that_only_some_entries_have_belongs_to_their_names(tmp_path: Path) -> None:
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "x.pt")
    assert list(read_weights(tmp_path / "x.pt")) == ["module.a", "b"]


class Harmful:
    """Would run a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "x.pt: cannot be read: no such file or directory"),
        (b"", "x.pt: holds no weights"),
        (b"PK\3\4 damaged", "x.pt: holds no weights"),
        ([1, 2], "x.pt: holds a list"),
        ({}, "x.pt: holds an empty mapping"),
        ({"state_dict": {}}, "x.pt: holds an empty mapping"),
        ({"a": 1.5}, "x.pt: entry 'a' is a float, not a tensor"),
        (Harmful(), r"x.pt: holds no weights that can be read safely .*save network.state_dict\(\)"),
        (tiny().module, r"x.pt: holds no weights that can be read safely .*save network.state_dict\(\)"),
    ],
)
def test_other_files_are_refused_in_one_line_and_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if isinstance(content, bytes):
        Path("x.pt").write_bytes(content)
    elif content is not None:
        torch.save(content, "x.pt")
    with pytest.raises(InputError, match=problem) as found:
        read_weights("x.pt")
    assert "\n" not in str(found.value)
    assert not Path("harmed").exists()


def test_every_mismatch_is_named_and_nothing_is_loaded() -> None:
    network, weights = tiny().module, dict(trained().state_dict())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    del weights["fc.bias"]
    weights["head.weight"] = torch.zeros(2)
    weights["fc.weight"] = torch.zeros(3, 4)
    weights["norm.weight"] = torch.full((6,), float("nan"))
    problem = (
        r"^x.pt: does not fit the network: missing fc.bias; unexpected head.weight; "
        r"fc.weight has shape \(3, 4\), not \(10, 96\); not finite: norm.weight$"
    )
    with pytest.raises(InputError, match=problem):
        load_weights(network, weights, "x.pt")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_many_missing_entries_are_counted() -> None:
    with pytest.raises(InputError, match=r"missing conv.weight, norm.weight, norm.bias and 4 more; unexpected a$"):
        load_weights(tiny().module, {"a": torch.zeros(1)}, "x.pt")


def test_counts_of_batches_may_be_missing_and_types_are_converted() -> None:
    weights = {n: v.double() for n, v in trained().state_dict().items() if not n.endswith("num_batches_tracked")}
    network = tiny().module
    load_weights(network, weights, "x.pt")
    assert network.get_parameter("conv.weight").dtype == torch.float32
    assert torch.equal(network.get_parameter("conv.weight"), trained().get_parameter("conv.weight"))
