"""The mixed layer of Eq. 1 over operators and precisions, computed as one convolution.

Every candidate is linear in its transformed weights. So the weights of candidates that read the same view of the input
are added, and different views are concatenated along the channels: nine candidates cost one convolution with six times
the input channels. The result equals the sum of the candidates' outputs, in values and in gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from dse.core.errors import unknown
from dse.hardware.candidate import Candidate
from search.layers.accumulators import Accumulators, check_accumulators
from search.layers.choice import Choice
from search.layers.equivalents import TransposedLinear
from search.layers.fused import Layer, convolve_views, outputs_first, reduced_type
from search.layers.in_memory.adc import rounds
from search.layers.in_memory.chips import Chip
from search.layers.in_memory.errors import SAMPLED, ConversionErrors, spread_out
from search.layers.in_memory.layers import Sums, check_in_memory, layer_sums
from search.layers.in_memory.sums import Array, on_chip
from search.layers.in_memory.windows import windows
from search.layers.input_views import Views
from search.layers.operators import Inputs, Surrogates, View, Weights, operator
from search.layers.quantisers import QuantiserName, checked, input_quantiser, weight_quantiser
from search.layers.quantize import captured, weight_rms, words_of
from search.layers.stand_in import StandIn
from search.layers.tracing import eager, traced
from search.layers.weight_kernels import covers, sum_of, summed_weights
from search.layers.weight_sums import summed_by_products


@dataclass(frozen=True)
class LayerOptions:
    """How mixed layers learn.

    Attributes:
        quantiser: quantiser of weights and inputs, a name of `search.layers.quantisers`.
        latent: "shared": a layer's candidates share its latent weights; "own": each candidate has separate ones.
        learned_scales: whether each candidate has a learned positive factor in addition to the operator's scale.
        surrogates: widths of the surrogate gradients.
    """

    quantiser: QuantiserName = "rms"
    latent: Literal["shared", "own"] = "shared"
    learned_scales: bool = False
    surrogates: Surrogates = field(default_factory=Surrogates)

    def __post_init__(self) -> None:
        checked(self.quantiser)
        if self.latent not in ("shared", "own"):
            raise unknown("latent", "value", self.latent, ("shared", "own"))


class MixedLayer(StandIn, Choice):
    """A convolution or linear layer whose output is the softmax-weighted sum of its candidates' outputs (Eq. 1).

    With one candidate its output is that candidate's, and it has no operator weights.

    Args:
        layer: the layer to wrap, of one of the types of `search.layers.fused.Layer`, with any groups, stride, padding
            and dilation. Its parameters become the latent weights.
        candidates: the choices of this layer, in the order of `alpha`.
    """

    log_scale: nn.Parameter | None
    errors: ConversionErrors | None

    def __init__(self, layer: Layer, candidates: Sequence[Candidate], options: LayerOptions | None = None) -> None:
        weight, count = outputs_first(layer, layer.weight.detach()), len(candidates)
        super().__init__(candidates, weight)
        self.layer = layer
        self.options = options = options or LayerOptions()
        zeros = torch.zeros(count, dtype=weight.dtype, device=weight.device)
        self.log_scale = nn.Parameter(zeros) if options.learned_scales else None
        additional = count - 1 if options.latent == "own" else 0  # the first candidate uses the layer's weights
        self.latents = nn.ParameterList(
            nn.Parameter(layer.weight.detach().clone(), layer.weight.requires_grad) for _ in range(additional)
        )
        self.scale = input_quantiser(options.quantiser, {c.act_bits for c in candidates}).to(weight.device)
        widths = [{c.weight_bits for c in candidates if operator(c.operator).uniform}]
        if additional:
            widths = [{c.weight_bits} if operator(c.operator).uniform else set() for c in candidates]
        self.quantisers = nn.ModuleList(weight_quantiser(options.quantiser, weight, w) for w in widths)
        check_in_memory(candidates, options.quantiser)
        check_accumulators(candidates, options.quantiser)
        self.errors = ConversionErrors(count, weight) if any(rounds(c) for c in candidates) else None
        self.chip: tuple[Chip, int] | None = None

    def like(self) -> Tensor:
        return self.layer.weight

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Also reads the weights of the plain layer, from a state dict of the network before it was searched."""
        if f"{prefix}weight" in state_dict and isinstance(self.layer, TransposedLinear):
            self.layer.to_plain(state_dict, prefix)
        for name in ("weight", "bias"):
            if f"{prefix}{name}" in state_dict:
                state_dict[f"{prefix}layer.{name}"] = state_dict.pop(f"{prefix}{name}")
        super()._load_from_state_dict(state_dict, prefix, *args)

    def latent(self, index: int) -> nn.Parameter:
        """The latent weights of a candidate."""
        return cast(nn.Parameter, self.latents[index - 1] if index and len(self.latents) else self.layer.weight)

    def single(self, candidate: Candidate) -> MixedLayer:
        """A new layer with one of the candidates, and the state that this layer has learned for it."""
        index = self.candidates.index(candidate)
        layer = copy.deepcopy(self.layer)
        latent = self.latent(index)
        layer.weight = nn.Parameter(latent.detach().clone(), latent.requires_grad)
        result = MixedLayer(layer, [candidate], self.options)
        result.load_state_dict(self._state_of(index, result), strict=True)
        return result.train(self.training)

    def _state_of(self, index: int, single: MixedLayer) -> dict[str, object]:
        """The part of this layer's state that belongs to `single`, the layer of candidate `index`."""
        shared = len(self.quantisers) == 1
        state = self.state_dict()
        part = dict(single.state_dict())
        for name in part:
            if name == "log_scale":
                part[name] = state[name][index : index + 1]
            elif name.startswith("quantisers.0."):
                part[name] = state[name if shared else name.replace("0", str(index), 1)]
            elif name.startswith("errors."):
                assert self.errors is not None
                part[name] = self.errors.of(index)[name.removeprefix("errors.")]
            elif not name.startswith("layer.") and name != "_extra_state":  # which says what is fixed here
                part[name] = state[name]
        return part

    @eager
    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        rms = self.scale(x)
        signed = bool(self.scale.signed)
        inputs = {
            bits: Inputs(rms, self.scale.step(rms, bits), signed)
            for bits in dict.fromkeys(self.candidates[i].act_bits for i in self.computed())
        }
        found: Tensor | None = None
        if not self.training and len(self.computed()) == 1 and not traced(x):
            found = self._in_integers(x, inputs, output_size)
            if found is not None and not torch.is_grad_enabled():
                return found
        line = self._line(x, inputs, output_size) if found is None else None
        apart = len(self.computed()) == 1 and reduced_type(x) is not None
        names, weight, unit = self._weights_of_views(inputs, rms, apart, None if line is None else line[0])
        steps = {bits: of_width.step for bits, of_width in inputs.items()}
        groups = 1 if isinstance(self.layer, nn.Linear) else self.layer.groups
        views = Views(names, signed, self.options.surrogates, groups, isinstance(self.layer, nn.Linear))
        y = convolve_views(x, steps, rms, views, self.layer, weight, unit, output_size)
        if found is not None:  # the hardware's values, with the gradient of the digital operator
            return y + (found - y).detach()
        return y if line is None else self._with_errors(y, line)

    def arrays(self, inputs: dict[int, Inputs]) -> dict[int, tuple[Array, Tensor]]:
        """Index of each computed candidate in memory -> its array, and the value of one unit of its sums, (out,)."""
        found = {}
        for i, (words, scale) in zip(self.computed(), self.candidate_weights(inputs), strict=True):
            candidate = self.candidates[i]
            if candidate.macro is not None:
                array = Array(candidate, inputs[candidate.act_bits].signed, self._of_groups(words))
                array = array if self.chip is None else on_chip(array, *self.chip)
                found[i] = array, _of_outputs(scale, words)
        return found

    def _of_groups(self, words: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Weights of each view in the shape (groups, outputs of a group, inputs of an output)."""
        groups = 1 if isinstance(self.layer, nn.Linear) else self.layer.groups
        return tuple(w.detach().reshape(groups, len(w) // groups, -1) for w in words)

    @torch.no_grad()
    def _in_integers(self, x: Tensor, inputs: dict[int, Inputs], output_size: Sequence[int] | None) -> Tensor | None:
        """The output of the one computed candidate by the sums of its hardware; None where these are the exact ones."""
        (i,) = self.computed()
        candidate = self.candidates[i]
        in_memory = candidate.macro is not None and (self.chip is not None or rounds(candidate))
        if candidate.overflow is None and not in_memory:
            return None
        of_width = inputs[candidate.act_bits]
        words = words_of(x, of_width.step, candidate.act_bits, of_width.signed)
        adder: Sums
        if in_memory:
            adder, unit = self.arrays(inputs)[i]
        else:
            ((weights, scale),) = self.candidate_weights(inputs)
            adder = core = Accumulators(candidate, of_width.signed, self._of_groups(weights))
            words, unit = core.inputs(words), _of_outputs(scale, weights)
        return layer_sums(self.layer, adder, words, unit, output_size).to(x.dtype)

    def _line(self, x: Tensor, inputs: dict[int, Inputs], output_size: Sequence[int] | None) -> Tensor | None:
        """Gain, offset and variance of the computed candidates, shape (3, computed, out); measured where it is time."""
        chosen = list(self.computed())
        if self.errors is None or traced(x) or not any(rounds(self.candidates[i]) for i in chosen):
            return None
        if captured(x):  # which `search.training.cuda_graphs` takes for a network that has no graph
            raise RuntimeError("layers in memory measure their conversions now and then")
        again = self.training and torch._C._current_graph_task_id() != -1
        if not again and x.numel() > 0:
            due = [i for i in chosen if rounds(self.candidates[i]) and self.errors.due(i, self.training)]
            self._measure(x, inputs, due, output_size)
        return self.errors.used(again)[:, chosen]

    @torch.no_grad()
    def _measure(
        self, x: Tensor, inputs: dict[int, Inputs], due: Sequence[int], output_size: Sequence[int] | None
    ) -> None:
        """Measures the conversions of some candidates on a few outputs of a batch."""
        if not due:
            return
        assert self.errors is not None
        arrays, seen = self.arrays(inputs), dict[int, Tensor]()
        for i in due:
            bits, (array, scale) = self.candidates[i].act_bits, arrays[i]
            if bits not in seen:
                words = words_of(x, inputs[bits].step, bits, inputs[bits].signed)
                of = windows(self.layer, words, output_size)
                index = spread_out(SAMPLED, of.positions, self.errors.calls[i], x.device)
                seen[bits] = of.at(index)
            self.errors.measure(i, array, seen[bits], scale)

    def _with_errors(self, y: Tensor, line: Tensor) -> Tensor:
        """Adds what conversions add to the computed candidates' shares of the output; noise in training only."""
        shares = self.computed_shares() if len(self.computed()) > 1 else line.new_ones(1)
        spread = [-1, *[1] * (0 if isinstance(self.layer, nn.Linear) else self.layer.weight.dim() - 2)]
        y = y + (shares[None].to(line.dtype) @ line[1]).to(y.dtype).reshape(spread)
        if not self.training:
            return y
        variance = shares[None].to(line.dtype).square() @ line[2]
        deviation = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
        return torch.addcmul(y, deviation.to(y.dtype).reshape(spread), torch.randn_like(y))

    def _weights_of_views(
        self, inputs: dict[int, Inputs], rms: Tensor, apart: bool, gains: Tensor | None
    ) -> tuple[tuple[tuple[int, View], ...], Tensor, Tensor | None]:
        """Views of the input, the weights of all of them side by side, and what `_summed_weights` keeps apart."""
        chosen = tuple(self.candidates[i] for i in self.computed())
        if not apart and self._in_one_pass() and covers(chosen):
            of = sum_of(chosen, bool(self.scale.signed))
            shares = self.computed_shares() if len(chosen) > 1 else torch.ones_like(rms)[None]
            latent = outputs_first(self.layer, self.layer.weight)
            sums = summed_weights if latent.device.type == "cpu" else summed_by_products
            weight = sums(latent, shares, rms, inputs, of, self.options.surrogates, gains)
            return of.names, weight, None
        summed, unit = self._summed_weights(inputs, apart, gains)
        names = tuple(name for bits in inputs for name in summed if name[0] == bits)
        return names, torch.cat([summed[name] for name in names], 1) if len(names) > 1 else summed[names[0]], unit

    def _in_one_pass(self) -> bool:
        """Whether the weights can be summed by `search.layers.weight_kernels` or `weight_sums`."""
        weight, learned = self.layer.weight, self.log_scale is not None or len(self.latents) > 0
        plain = not learned and self.options.quantiser == "rms"
        plain = plain and not traced(weight)
        return plain and weight.dtype in (torch.float32, torch.float64)

    def candidate_weights(self, inputs: dict[int, Inputs]) -> list[tuple[tuple[Tensor, ...], Tensor]]:
        """For each computed candidate the integer weights of its views, and the value of one unit of their sum.

        Args:
            inputs: the layer's input at each word width.
        """
        results = []
        words: dict[tuple[int, int], Weights] = {}
        # Candidates that differ only in their inputs share transformed weights.
        transformed: dict[tuple[int, int, str, int | None], tuple[Tensor, ...]] = {}
        scales = None if self.log_scale is None else self.log_scale.exp()
        rms: dict[int, Tensor] = {}
        for i in self.computed():
            candidate = self.candidates[i]
            owner = i if len(self.latents) else 0
            kind, bits = operator(candidate.operator), candidate.weight_bits
            latent = outputs_first(self.layer, self.latent(owner))
            if owner not in rms:
                rms[owner] = weight_rms(latent).reshape(-1, *[1] * (latent.dim() - 1))
            if (owner, bits) not in words:
                words[owner, bits] = Weights(latent, bits, rms[owner], self.quantisers[owner])
            key = (owner, bits, candidate.operator, None if kind.uniform else candidate.act_bits)
            if key not in transformed:
                transformed[key] = kind.words(words[owner, bits], inputs[candidate.act_bits], self.options.surrogates)
            scale = kind.scale(words[owner, bits], inputs[candidate.act_bits])
            results.append((transformed[key], scale if scales is None else scale * scales[i]))
        return results

    def _summed_weights(
        self, inputs: dict[int, Inputs], apart: bool, gains: Tensor | None = None
    ) -> tuple[dict[tuple[int, View], Tensor], Tensor | None]:
        """The weights of each view of the input (word width, name): the sum of shares times weights.

        Args:
            apart: for a single candidate, keep the weights as integer words, which every type represents exactly, and
                return the unit of their sums separately, shape (out,).
            gains: factors of the units of the computed candidates, shape (computed, out); None for 1.
        """
        summed: dict[tuple[int, View], Tensor] = {}
        shares = self.shares()
        apart_unit: Tensor | None = None
        for place, (i, (words, scale)) in enumerate(zip(self.computed(), self.candidate_weights(inputs), strict=True)):
            candidate = self.candidates[i]
            if gains is not None:
                scale = scale * gains[place].reshape(-1, *[1] * (words[0].dim() - 1)).to(scale.dtype)
            unit = scale if len(self.computed()) == 1 else shares[i] * scale
            if apart:
                apart_unit = unit.expand(len(words[0]), *[1] * (words[0].dim() - 1)).flatten()
                unit = torch.ones_like(unit)
            for name, tensor in zip(operator(candidate.operator).views, words, strict=True):
                # The magnitude of an unsigned input is the value itself, which saves a convolution.
                plain = name == "magnitude" and not inputs[candidate.act_bits].signed
                target: tuple[int, View] = (candidate.act_bits, "value" if plain else name)
                summed[target] = torch.addcmul(summed[target], tensor, unit) if target in summed else tensor * unit
        return summed, apart_unit


def _of_outputs(scale: Tensor, words: tuple[Tensor, ...]) -> Tensor:
    """The value of one unit of each output's sums, shape (out,)."""
    return scale.detach().expand(len(words[0]), *[1] * (words[0].dim() - 1)).flatten()


class PlainLayer(MixedLayer):
    """A layer that is left out of the search: it computes in floating point, as it was.

    Its one candidate is what its energy is counted as.
    """

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        result: Tensor = self.layer(x) if output_size is None else self.layer(x, output_size)
        return result

    def single(self, candidate: Candidate) -> MixedLayer:
        """A copy of the layer."""
        self.candidates.index(candidate)
        return copy.deepcopy(self)
