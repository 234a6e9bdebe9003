"""The binary-connect operator, Eq. 3c."""

from __future__ import annotations

from search.layers.operators.typical import Typical


class BinaryConnect(Typical):
    """Sum of x * binarize(w), times the mean magnitude of the output channel's weights.

    Its weights are words of one bit, +1 or -1, whose step is that mean. So it is the typical operator on these words.
    """
