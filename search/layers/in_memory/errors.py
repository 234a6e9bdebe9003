"""What conversions do to a layer's sums, as training sees it: a line and noise for each output channel.

The sums of an array are a step function of its inputs, and take as long as dozens of products to compute. In training
the digital sum stands for them, with the gain, the offset and the variance of a linear regression of the array's sums
on the digital ones. These are measured on a few outputs of a batch, now and then, by the exact arithmetic. So mean and
variance of each channel are those of the array, also where most sums are small against a step and are rounded to 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from search.layers.in_memory.sums import Array, digital_sums

SAMPLED = 256
"""Outputs of a channel that are measured at once."""
EVERY = 8
"""Calls in training mode from one measurement to the next."""
MOMENTUM = 0.25
SMALLEST_GAIN = 0.01
"""So that a layer whose sums the ADC hardly sees still learns."""
_MEANS, _VARIANCES = slice(0, 2), slice(2, 5)


class ConversionErrors(nn.Module):
    """The running statistics of a layer's candidates in memory, in the unit of the layer's output.

    Attributes:
        moments: means and variances of the digital and the array's sums and their covariance, shape (5, candidates,
            channels): mean digital, mean in memory, variance digital, covariance, variance in memory.
        line: gain, offset and variance of the noise, shape (3, candidates, channels); 1, 0 and 0 without conversions.
    """

    moments: Tensor
    line: Tensor

    def __init__(self, candidates: int, like: Tensor) -> None:
        """
        Args:
            like: the layer's weights, output channels first.
        """
        super().__init__()
        moments = torch.zeros(5, candidates, len(like), dtype=like.dtype, device=like.device)
        self.register_buffer("moments", moments)
        self.register_buffer("line", torch.zeros_like(moments[:3]))
        self.line[0] = 1
        self.calls = [0] * candidates
        self._used: Tensor | None = None

    def due(self, index: int, training: bool) -> bool:
        """Whether a candidate is to be measured in this call, which is counted if it is one of training."""
        calls = self.calls[index]
        if training:
            self.calls[index] += 1
        return calls == 0 or (training and calls % EVERY == 0)

    @torch.no_grad()
    def measure(self, index: int, array: Array, words: Tensor, scale: Tensor) -> None:
        """Takes the outputs of some positions into the statistics.

        Args:
            words: of the inputs, shape (positions, groups, inputs of an output).
            scale: the value of one unit of the sums, shape (channels,).
        """
        unit = scale.to(torch.float64)
        digital, found = digital_sums(array, words) * unit, array.sums(words) * unit
        means = torch.stack([digital.mean(0), found.mean(0)])
        digital, found = digital - means[0], found - means[1]
        parts = torch.stack([(a * b).mean(0) for a, b in ((digital, digital), (digital, found), (found, found))])
        measured = torch.cat([means, parts]).to(self.moments.dtype)
        first = bool(self.calls[index] <= 1)
        self.moments[:, index].lerp_(measured, 1.0 if first else MOMENTUM)
        of_digital, both, of_found = self.moments[_VARIANCES, index]
        gain = torch.where(of_digital > 0, both / of_digital.clamp_min(torch.finfo(both.dtype).tiny), 1.0)
        gain = gain.clamp_min(SMALLEST_GAIN)
        mean, mean_found = self.moments[_MEANS, index]
        noise = (of_found - gain.square() * of_digital).clamp_min(0)
        self.line[:, index] = torch.stack([gain, mean_found - gain * mean, noise])

    def used(self, again: bool) -> Tensor:
        """`line` for a call; `again` where a checkpoint computes the last one for the second time."""
        if not again or self._used is None:
            self._used = self.line.clone()
        return self._used

    def of(self, index: int) -> dict[str, object]:
        """The state of one candidate, as that of a layer that has no other."""
        return {
            "moments": self.moments[:, index : index + 1],
            "line": self.line[:, index : index + 1],
            "_extra_state": {"calls": [self.calls[index]]},
        }

    def get_extra_state(self) -> dict[str, Any]:
        return {"calls": list(self.calls)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.calls = list(state["calls"])


def spread_out(number: int, positions: int, turn: int, device: torch.device) -> Tensor:
    """Positions that are spread evenly over all, others in each turn.

    They are the fractional parts of multiples of the golden ratio, a sequence of low discrepancy: all rows of an image
    have nearly equal numbers of them, and so have all columns.

    Example:
        >>> spread_out(4, 1000, 0, torch.device("cpu")).tolist()
        [0, 618, 236, 854]
    """
    if number >= positions:
        return torch.arange(positions, device=device)
    index = torch.arange(turn * number, (turn + 1) * number, dtype=torch.float64, device=device)
    return ((index * 0.6180339887498949 % 1) * positions).long()
