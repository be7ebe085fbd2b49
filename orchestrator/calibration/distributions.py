"""Statistics of samples that are compared: weighted quantiles, distances between distributions. Pure numpy.

Weights count how often each value was drawn; so a bootstrap sorts once and weighs anew.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


class WeightedSample:
    """Values in order, each of a unit (a cell, say) that may be drawn several times or not at all.

    Args:
        values: ``[n]``, finite.
        units: ``[n]``, index of the unit that each belongs to.
    """

    def __init__(self, values: ArrayLike, units: ArrayLike) -> None:
        unsorted = np.asarray(values, np.float64)
        order = np.argsort(unsorted, kind="stable")
        self.values: FloatArray = unsorted[order]
        self.units = np.asarray(units, np.int64)[order]

    def __len__(self) -> int:
        return len(self.values)

    def quantile(self, probability: float, drawn: FloatArray) -> float:
        """The least value that at least this share of the weight does not exceed; NaN when nothing was drawn.

        Args:
            probability: in (0, 1].
            drawn: ``[units]``, how often each was drawn.
        """
        weight = np.cumsum(drawn[self.units])
        if not len(weight) or weight[-1] <= 0:
            return float("nan")
        # A hair less: the sum of weights is not exact.
        place = int(np.searchsorted(weight, probability * weight[-1] * (1 - 1e-12)))
        return float(self.values[min(place, len(weight) - 1)])

    def mean(self, drawn: FloatArray) -> float:
        """Weighted mean; NaN when nothing was drawn."""
        weight = drawn[self.units]
        total = weight.sum()
        return float(weight @ self.values / total) if total > 0 else float("nan")


def wasserstein(first: ArrayLike, second: ArrayLike) -> float:
    """First Wasserstein distance: the area between the two empirical distribution functions.

    Args:
        first: a sample, in any order, of any length but 0.
        second: likewise.

    Returns:
        In the unit of the values.
    """
    steps, one, other = _distribution_functions(first, second)
    return float(np.abs(one - other)[:-1] @ np.diff(steps))


def kolmogorov_smirnov(first: ArrayLike, second: ArrayLike) -> float:
    """Largest distance between the two empirical distribution functions, 0 to 1."""
    _, one, other = _distribution_functions(first, second)
    return float(np.abs(one - other).max())


def _distribution_functions(first: ArrayLike, second: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Where either function steps, and the value of each from there on."""
    one, other = np.sort(np.asarray(first, np.float64)), np.sort(np.asarray(second, np.float64))
    steps = np.sort(np.concatenate([one, other]))
    return (
        steps,
        np.searchsorted(one, steps, side="right") / len(one),
        np.searchsorted(other, steps, side="right") / len(other),
    )
