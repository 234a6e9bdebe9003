"""Reading problems: each wrong field is refused in one line that names it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.core.fields import shown
from dse.workload.problem import CONV_SHAPE, problem_from_document

MATMUL = {
    "version": 0.4,
    "instance": {"M": 4, "K": 6, "N": 3},
    "shape": {
        "name": "matmul",
        "dimensions": ["M", "K", "N"],
        "coefficients": [{"name": "stride", "default": 2}],
        "data_spaces": [
            {"name": "W", "projection": [[["M"]], [["K", "stride"]]]},
            {"name": "I", "projection": [[["K"]], [["N"]]]},
            {"name": "Z", "projection": [[["M"]], [["N"]]], "read_write": True},
        ],
    },
}


def changed(path: str, value: object) -> Any:
    """The problem above with one field replaced; ``-`` removes it."""
    document = copy.deepcopy(MATMUL)
    *outer, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    at = document
    for key in outer:
        at = at[key]
    if value == "-":
        del at[last]
    else:
        at[last] = value
    return document


def test_coefficients_take_their_default_or_the_instance() -> None:
    assert problem_from_document(MATMUL, "p").data_space("W").axes == ((("M", 1),), (("K", 2),))
    given = problem_from_document(changed("instance/stride", 3), "p")
    assert given.data_space("W").axes == ((("M", 1),), (("K", 3),))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("shape", "text", "p.shape: found 'text' (allowed: a mapping with version, name"),
        ("instance", "-", "p: field 'instance' is missing"),
        ("instance", [], "p.instance: found []"),
        ("instance/k", 3, "p.instance: unknown key 'k'; did you mean 'K'? (allowed: M, K, N, stride)"),
        ("instance/M", 10**5000, "p.instance.M: found a value of type int that is too long"),
        ("instance/M", True, "p.instance.M: found True (allowed: a whole number"),
        ("instance/M", "-", "p.instance: dimension M has no size"),
        ("shape/dimensions", "MKN", "p.shape.dimensions: found 'MKN' (allowed: a list)"),
        ("shape/dimensions", ["M", "K", "N", "K"], "p.shape.dimensions: a second dimension is named 'K'"),
        ("shape/dimensions", ["M", ["K"], "N"], "p.shape.dimensions[1]: found ['K'] (allowed: a name"),
        ("shape/coefficients", [{"name": "s", "defualt": 2}], "unknown field 'defualt'; did you mean 'default'?"),
        ("shape/coefficients", [{"name": "stride", "default": "2"}], "coefficients[0].default: found '2'"),
        ("shape/coefficients", [{"name": "stride", "default": None}], "coefficients[0].default: found None"),
        ("shape/coefficients", [{"name": "M"}], "p.shape.coefficients: a second name is named 'M'"),
        ("shape/data_spaces", {}, "p.shape.data_spaces: found {} (allowed: a list)"),
        ("shape/data_spaces/1/name", "W", "p.shape.data_spaces: a second tensor is named 'W'"),
        ("shape/data_spaces/2/read_write", "no", "data_spaces[2].read_write: found 'no' (allowed: true or false)"),
        ("shape/data_spaces/2/read_wirte", True, "unknown field 'read_wirte'; did you mean 'read_write'?"),
        ("shape/data_spaces/0/projection", "MK", "projection: found 'MK' (allowed: a list)"),
        ("shape/data_spaces/0/projection/0", [[{"M": 1}]], "projection[0]: found [{'M': 1}]"),
        ("shape/data_spaces/0/projection/1", [["K", "strode"]], "unknown coefficient 'strode'; did you mean 'stride'?"),
        ("shape/densities", {}, "p.shape: unknown field 'densities'"),
    ],
    ids=shown,
)
def test_what_is_wrong_is_named(path: Any, value: Any, message: Any) -> None:
    with pytest.raises(InputError) as e:
        problem_from_document(changed(path, value), "p")
    assert message in str(e.value) and len(str(e.value)) < 400


def test_the_shipped_shape_is_read() -> None:
    sizes = dict.fromkeys("NGCMPQRS", 2)
    assert problem_from_document({"shape": CONV_SHAPE, "instance": sizes | {"Hstride": 2}}, "p").macs == 2**8


def with_instance(**values: Any) -> Any:
    return {**MATMUL, "instance": {**MATMUL["instance"], **values}}  # type: ignore[dict-item]


@pytest.mark.parametrize("given", [{"Stride": 3}, {"STRIDE": 3, "stride": 2}])
def test_a_coefficient_in_another_case_is_read_as_it_is_meant(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert problem_from_document(with_instance(**given), "p") == problem_from_document(with_instance(stride=3), "p")
    assert "is read as stride; Timeloop ignores this spelling and takes the default" in caplog.text


def test_a_coefficient_in_two_spellings_that_both_say_something_is_refused() -> None:
    with pytest.raises(InputError, match=r"p.instance: unknown key 'Stride'; did you mean 'stride'\?"):
        problem_from_document(with_instance(Stride=3, stride=4), "p")


def test_sizes_are_expressions_over_variables() -> None:
    found = problem_from_document(with_instance(M="bits // 2", K="1.0e+1"), "p", {"bits": 8})
    assert found.bounds == (4, 10, 3)
    with pytest.raises(InputError, match=r"p.instance.M: unknown name words in expression 'words \* 2'"):
        problem_from_document(with_instance(M="words * 2"), "p", {"bits": 8})


def test_the_size_and_padding_of_inputs_change_nothing() -> None:
    given = with_instance(H=9, W=9, Hpad=1, Wpad=1, name="conv", densities={"W": 1, "I": {"density": 1.0}})
    assert problem_from_document(given, "p") == problem_from_document(MATMUL, "p")


def test_densities_below_one_are_refused_or_left_out_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    sparse = with_instance(densities={"W": {"density": 0.5, "distribution": "hypergeometric"}})
    with pytest.raises(
        InputError, match=r"densities.W: is below 1: sparse tensors are not modelled; read the layer as"
    ):
        problem_from_document(sparse, "p")
    assert problem_from_document(sparse, "p", dense=True) == problem_from_document(MATMUL, "p")
    assert "read as dense, without the densities of W" in caplog.text
