from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from dse.core.errors import InputError
from dse.hardware.candidate import Macro
from dse.hardware.candidates import load_candidates
from search.export.integer_weights import as_words, integer_weights
from search.layers.mixed_layer import LayerOptions, MixedLayer, PlainLayer

CANDIDATES = {c.name: c for c in load_candidates("operators_extended")}


def decided(
    name: str, signed: bool, layer: nn.Conv2d | nn.Linear | None = None, options: LayerOptions | None = None
) -> tuple[MixedLayer, torch.Tensor]:
    torch.manual_seed(0)
    mixed = MixedLayer(layer or nn.Conv2d(6, 4, 3, padding=1, stride=2, groups=2), [CANDIDATES[name]], options)
    x = torch.randn(3, 6, 5, 5) if layer is None else torch.randn(3, 7)
    x = x if signed else x.relu()
    mixed(x)
    return mixed.eval(), x


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("name", CANDIDATES)
def test_terms_add_up_to_the_layer(name: str, signed: bool) -> None:
    mixed, x = decided(name, signed)
    inputs, terms = as_words(mixed, "layer")
    words = (x / inputs.step).round().clamp(inputs.low, inputs.high)
    views = {
        "value": words * inputs.step,
        "sign": words.sign(),
        "magnitude": words.abs() * inputs.step,
        "binary": torch.where(x >= 0 if signed else words > 0, 1.0, -1.0),
    }
    conv = mixed.layer
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    total = conv.bias[:, None, None] + sum(
        conv._conv_forward(views[t.view], t.words * t.scale.reshape(-1, 1, 1, 1), None) for t in terms
    )
    torch.testing.assert_close(total, mixed(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "largest"),
    [("T8", 127), ("T4", 7), ("T2", 1), ("BC8", 1), ("BC2", 1), ("DS8", 128), ("DS2", 2), ("XN1", 1)],
)
def test_words_are_no_wider_than_the_candidates(name: str, largest: int) -> None:
    mixed, _ = decided(name, signed=False)
    inputs, (term,) = as_words(mixed, "layer")
    assert term.words.abs().max() <= largest and (term.words != 0).any()
    assert (inputs.low, inputs.high) == (0, 2 ** int(name[-1]) - 1)
    if name.startswith(("BC", "XN")):
        assert set(term.words.unique().tolist()) == {-1, 1}
    if name.startswith("DS"):
        assert (term.words.abs().log2() % 1 == 0).all()


def test_multiplication_free_is_two_terms() -> None:
    mixed, _ = decided("MF8", signed=True)
    _, (of_sign, of_magnitude) = as_words(mixed, "layer")
    assert (of_sign.view, of_magnitude.view) == ("sign", "magnitude")
    assert of_sign.words.min() >= 0 and of_sign.words.max() > 1
    assert set(of_magnitude.words.unique().tolist()) <= {-1, 0, 1}


def test_words_that_no_core_computes_are_refused() -> None:
    mixed, _ = decided("T8", signed=True, options=LayerOptions(quantiser="dorefa"))
    with pytest.raises(InputError, match=r"layer 'conv': weights of T8 are wider than words of 8 bits"):
        as_words(mixed, "layer 'conv'")


def test_undecided_and_untrained_layers_are_refused() -> None:
    layer = nn.Linear(7, 3)
    with pytest.raises(InputError, match=r"layer 'fc': has 2 candidates"):
        as_words(MixedLayer(layer, [CANDIDATES["T8"], CANDIDATES["T4"]]), "layer 'fc'")
    with pytest.raises(InputError, match=r"layer 'fc': has not seen an input yet"):
        as_words(MixedLayer(layer, [CANDIDATES["T8"]]), "layer 'fc'")


def test_a_network_gives_the_integers_of_each_layer() -> None:
    t4, t8 = (MixedLayer(nn.Linear(7, 7), [CANDIDATES[name]]) for name in ("T4", "T8"))
    network = nn.Sequential(t4, nn.ReLU(), t8, PlainLayer(nn.Linear(7, 2), [CANDIDATES["T8"]]))
    x = torch.randn(20, 7)
    network(x)
    network.eval()
    found = integer_weights(network)
    assert {name: layer.candidate for name, layer in found.items()} == {"0": "T4", "2": "T8"}, "one has none"
    for name, inputs in (("0", x), ("2", network[:2](x))):
        layer = found[name]
        words = (inputs / layer.inputs.step).round().clamp(layer.inputs.low, layer.inputs.high)
        (term,) = layer.terms
        assert layer.bias is not None
        outputs = words @ term.words.T.float() * layer.inputs.step * term.scale + layer.bias
        torch.testing.assert_close(outputs, network[int(name)](inputs), rtol=1e-4, atol=1e-5)


def test_a_network_without_candidates_is_refused() -> None:
    with pytest.raises(InputError, match=r"^network: has no layer with a candidate"):
        integer_weights(nn.Linear(3, 2))
    both = MixedLayer(nn.Linear(7, 7), [CANDIDATES["T4"], CANDIDATES["T8"]])
    with pytest.raises(InputError, match=r"^layer '0': has 2 candidates"):
        integer_weights(nn.Sequential(both))


def test_a_layer_in_memory_has_the_digital_words_and_names_its_macro() -> None:
    macro = Macro(31, 4, 31)
    x = torch.randn(5, 7)
    layers = [MixedLayer(nn.Linear(7, 7), [c]) for c in
              (CANDIDATES["MF8"], replace(CANDIDATES["MF8"], mode="cim", macro=macro))]  # fmt: skip
    layers[1].layer.load_state_dict(layers[0].layer.state_dict())
    for layer in layers:
        layer(x)
    digital, found = (integer_weights(nn.Sequential(layer))["0"] for layer in layers)
    assert (found.candidate, found.mode, found.macro) == ("MF8@cim", "cim", macro) and digital.macro is None
    assert found.inputs == digital.inputs
    for term, other in zip(found.terms, digital.terms, strict=True):
        assert torch.equal(term.words, other.words) and torch.equal(term.scale, other.scale)
