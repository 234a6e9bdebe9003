"""The mixed layer of Eq. 1 over operators and precisions, computed as one convolution.

Every candidate is linear in its transformed weights. So candidates that read the same transformed input add their
weights, and different transformed inputs lie side by side on the channels: nine candidates cost one convolution of
six times the input channels. The result equals the sum of the candidates' outputs, in values and in gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.candidates import Candidate
from search.operators import View, Weights, operator, view
from search.quantize import ActivationScale, quantise_weight, weight_rms


class MixedLayer(nn.Module):
    """A Conv2d or Linear whose output is the softmax-weighted sum of its candidates' outputs (Eq. 1).

    With one candidate it is that candidate and has no operator weights. Candidates share the layer's latent weights.

    Args:
        layer: the layer to wrap; its parameters become the latent weights. Any groups, stride, padding, dilation.
        candidates: the choices of this layer, in the order of `alpha`.
    """

    alpha: nn.Parameter | None

    def __init__(self, layer: nn.Conv2d | nn.Linear, candidates: Sequence[Candidate]) -> None:
        super().__init__()
        self.layer = layer
        self.candidates = tuple(candidates)
        self.scale = ActivationScale()
        like = layer.weight
        start = torch.zeros(len(self.candidates), dtype=like.dtype, device=like.device)
        self.alpha = nn.Parameter(start) if len(self.candidates) > 1 else None
        self.fixed: int | None = None
        self.relaxed: Tensor | None = None

    def fix(self, candidate: int) -> None:
        """Assigns a candidate for good: from now on only it is computed, and alpha does not matter any more."""
        self.fixed = candidate

    def probabilities(self) -> Tensor:
        """softmax(alpha), shape (candidates,); 1 for a candidate that was fixed."""
        if self.alpha is None:
            return torch.ones(1, dtype=self.layer.weight.dtype, device=self.layer.weight.device)
        if self.fixed is not None:
            chosen = torch.zeros_like(self.alpha)
            chosen[self.fixed] = 1
            return chosen
        return self.alpha.softmax(0)

    def shares(self) -> Tensor:
        """What the candidates' outputs are weighted with: softmax(alpha), or a sample: `relaxed`, if given."""
        return self.probabilities() if self.relaxed is None else self.relaxed

    def get_extra_state(self) -> dict[str, Any]:
        return {"fixed": self.fixed}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.fixed = state["fixed"]

    def choice(self) -> Candidate:
        """The candidate with the highest operator weight; the first of equals."""
        return self.candidates[int(self.probabilities().argmax())]

    def forward(self, x: Tensor) -> Tensor:
        rms = self.scale(x)
        weights = self._summed_weights(rms)
        quantised = {bits: self.scale.quantise(x, rms, bits) for bits, _ in weights}
        inputs = [view(quantised[bits], name, rms) for bits, name in weights]
        return self._convolve(inputs, list(weights.values()))

    def _summed_weights(self, input_rms: Tensor) -> dict[tuple[int, View], Tensor]:
        """What each transformed input (its word width, its view) is convolved with: shares times weights, summed."""
        latent = self.layer.weight
        rms = weight_rms(latent)
        unit = rms.reshape(-1, *[1] * (latent.dim() - 1))
        terms = [(share, c) for i, (share, c) in enumerate(zip(self.shares(), self.candidates, strict=True))
                 if self.fixed in (None, i)]  # fmt: skip
        words = {b: Weights(quantise_weight(latent, b, rms), unit) for b in {c.weight_bits for _, c in terms}}
        known: dict[tuple[str, int], tuple[Tensor, ...]] = {}  # candidates may differ in their inputs' width alone
        summed: dict[tuple[int, View], Tensor] = {}
        for share, candidate in terms:
            kind, key = operator(candidate.operator), (candidate.operator, candidate.weight_bits)
            if key not in known:
                known[key] = kind.weights(words[candidate.weight_bits], input_rms)
            for name, tensor in zip(kind.views, known[key], strict=True):
                # The magnitude of what has no sign is the value itself: one convolution the less.
                target = (candidate.act_bits, "value" if name == "magnitude" and not self.scale.signed else name)
                part = tensor if len(terms) == 1 else share * tensor
                summed[target] = summed[target] + part if target in summed else part
        return summed

    def _convolve(self, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
        """Sum of the layer's products of each input with its weights; the bias counts once."""
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return functional.linear(torch.cat(list(inputs), -1), torch.cat(list(weights), 1), layer.bias)
        if layer.groups == 1:
            x = torch.cat(list(inputs), -3)
        else:  # channels of one group stay together
            grouped = [i.reshape(*i.shape[:-3], layer.groups, -1, *i.shape[-2:]) for i in inputs]
            x = torch.cat(grouped, -3).flatten(-4, -3)
        return cast(Tensor, layer._conv_forward(x, torch.cat(list(weights), 1), layer.bias))
