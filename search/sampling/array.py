"""What the macro computes: the log density of a mixture on a grid, from quantised weights and column sums.

How the macro is taken to work; the abstract of MC2RAM says that there are random number generators, DACs and ADCs in an
SRAM, not how the work is divided, so this division is ours:

1. The state is one word of `dac_bits` for each coordinate. DACs turn the words into levels on the rows.
2. The cells of column (k, i) hold row i of component k's whitening matrix, as words of `weight_bits`. The column adds
   the products of its cells with the rows: z = sum over j of W[k, i, j] * (x[j] - mean[k, j]). The component's mean
   sets the reference of the column's ADC.
3. The ADC clips z at `adc_range` and gives one of 2 ** adc_bits codes. A table has z * z / 2 for each code.
4. Digital adders sum the table's outputs of a component's columns, and add the logarithm of its weight and
   determinant. A table of log(1 + exp(-d)) joins the components to the log density.
5. A comparator accepts the proposal if the log of a random word is below the difference of log densities.

The words of 4 and 5 are taken to be wide enough not to round.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.sampling.macro import Macro
from search.sampling.mixture import FloatArray, Mixture

IntArray = NDArray[np.int64]


class Array:
    """The grid of a macro's DACs, and the log density that its columns, ADCs and tables give on it.

    Attributes:
        low: shape (D,), the coordinates of the grid's first point.
        step: shape (D,), the distance of its points.
        points: the number of its points in each dimension.

    Example:
        >>> from search.sampling.mixture import mixture
        >>> array = Array(mixture([1.0], [[0.0]], [[[1.0]]]), Macro(dac_bits=4, adc_bits=3))
        >>> array.points, array.values(np.array([[0], [15]])).tolist()
        (16, [[-5.0], [5.0]])
        >>> [round(float(v), 2) for v in array.log_density(np.arange(8)[:, None])]
        [-13.78, -7.03, -7.03, -7.03, -2.53, -2.53, -0.28, -0.28]
    """

    def __init__(self, target: Mixture, macro: Macro) -> None:
        deviations = np.sqrt(np.diagonal(target.covariances, axis1=1, axis2=2))
        self.target, self.macro, self.points = target, macro, 2**macro.dac_bits
        self.low = (target.means - macro.dac_range * deviations).min(0)
        self.step = ((target.means + macro.dac_range * deviations).max(0) - self.low) / (self.points - 1)
        size, dimensions = target.size, target.dimensions
        # In codes of the DAC; each column has a full scale of its own.
        exact = target.whitening * self.step
        scale = np.abs(exact).max(2, keepdims=True) / (2 ** (macro.weight_bits - 1) - 1)
        self.weights = np.rint(exact / scale) * scale
        """Shape (K, D, D): z of a column for each code of a coordinate."""
        centres = (target.means - self.low) / self.step
        offsets = np.einsum("kij,kj->ki", self.weights, centres)
        # Everything below in codes of the ADC: its zero is between the two middle ones.
        lsb = 2 * macro.adc_range / 2**macro.adc_bits
        self._gains = (self.weights / lsb).reshape(size * dimensions, dimensions).T.copy()
        self._offsets = (offsets / lsb).reshape(size * dimensions) - 2 ** (macro.adc_bits - 1)
        codes = np.arange(2**macro.adc_bits) - 2 ** (macro.adc_bits - 1) + 0.5
        self.table = 0.5 * (codes * lsb) ** 2
        """z * z / 2 for each code of an ADC."""

    @property
    def columns(self) -> int:
        """Columns that are read for one log density: K * D."""
        return len(self._offsets)

    def values(self, codes: IntArray) -> FloatArray:
        """The points of codes of shape (..., D)."""
        result: FloatArray = self.low + self.step * codes
        return result

    def codes(self, values: FloatArray) -> IntArray:
        """The codes, shape (..., D), of the grid's points nearest to values."""
        found: IntArray = np.clip(np.rint((values - self.low) / self.step), 0, self.points - 1).astype(np.int64)
        return found

    def log_density(self, codes: IntArray) -> FloatArray:
        """What the macro computes at codes of shape (..., D): shape (...), without the constant of D."""
        read = np.floor(codes @ self._gains - self._offsets)
        read = np.clip(read, 0, len(self.table) - 1, out=read).astype(np.intp)
        squares = self.table[read].reshape(*codes.shape[:-1], self.target.size, self.target.dimensions)
        exponents = self.target.log_factors - squares.sum(-1)
        result: FloatArray = np.logaddexp.reduce(exponents, axis=-1)
        return result
