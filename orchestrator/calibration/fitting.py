"""The fits that a profile is made of. Pure numpy, and deterministic.

A duration is modelled as ``(overhead_s + slope x size) x ratio``: with the size of the work (frames, bytes) and a ratio
drawn from stored quantiles. Errors grow with the duration, so least squares are weighted by ``1 / fitted^2``
(iteratively), which is what makes the ratio's distribution the same for short and long work.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from orchestrator.calibration.distributions import FloatArray

ROUNDS = 8
POINTS = 101


@dataclass(frozen=True, slots=True)
class LineFit:
    """A duration as a line of the size of the work, and what is left over.

    Attributes:
        overhead_s: at size 0, not negative.
        slope: seconds for each unit of size, not negative.
        ratios: ``[n]``, observed / fitted.
    """

    overhead_s: float
    slope: float
    ratios: FloatArray

    @property
    def relative_rms(self) -> float:
        """Root mean square of ``ratio - 1``."""
        return float(np.sqrt(np.mean((self.ratios - 1.0) ** 2)))

    def at(self, size: ArrayLike) -> FloatArray:
        """The fitted duration, ratio 1."""
        fitted: FloatArray = self.overhead_s + self.slope * np.asarray(size, np.float64)
        return fitted


def fit_line(size: FloatArray, duration_s: FloatArray) -> LineFit:
    """Fit a duration to the size of the work.

    Args:
        size: ``[n]``, positive.
        duration_s: ``[n]``, positive.
    """
    overhead_s, slope = 0.0, float(np.mean(duration_s) / np.mean(size))
    for _ in range(ROUNDS):
        overhead_s, slope = _weighted_line(size, duration_s, overhead_s + slope * size)
    return LineFit(overhead_s, slope, duration_s / (overhead_s + slope * size))


def _weighted_line(size: FloatArray, duration_s: FloatArray, fitted_s: FloatArray) -> tuple[float, float]:
    """Least squares of a line with both coefficients not negative, weighted by 1 / fitted^2."""
    weight = 1.0 / np.maximum(fitted_s, 1e-9) ** 2
    total = weight.sum()
    mean_x, mean_y = weight @ size / total, weight @ duration_s / total
    centred = size - mean_x
    variance = weight @ centred**2
    slope = float(weight @ (centred * (duration_s - mean_y)) / variance) if variance > 1e-12 * total else -1.0
    overhead_s = float(mean_y - slope * mean_x)
    if slope < 0:  # all work of one size, or noise alone: the whole of it is proportional, as a guess that extrapolates
        return 0.0, float(mean_y / mean_x)
    if overhead_s < 0:
        return 0.0, float(weight @ (size * duration_s) / (weight @ size**2))
    return overhead_s, slope


def stored_quantiles(values: ArrayLike, count: int = POINTS) -> list[float]:
    """A sample as a profile stores it: values at evenly spaced probabilities from 0 to 1, to be interpolated.

    The outermost points are not the extremes but lie so that the outermost intervals keep their means: a straight line
    from the 99th percentile to the one slowest of a thousand tasks would make slow tasks far too many. What then is
    left is scaled away, so that the mean of what is drawn is the sample's.

    Args:
        values: ``[n]``, not negative.
        count: of points.
    """
    data = np.sort(np.asarray(values, np.float64))
    points = np.quantile(data, np.linspace(0.0, 1.0, count))
    tail = len(data) // (count - 1)  # values in each of the intervals
    if tail > 1:
        points[-1] = max(points[-2], 2.0 * data[-tail:].mean() - points[-2])
        points[0] = min(points[1], max(0.0, 2.0 * data[:tail].mean() - points[1]))
    drawn_mean = float((points[:-1] + points[1:]).mean() / 2)
    if drawn_mean > 0:
        points = points * (float(data.mean()) / drawn_mean)
    return [float(point) for point in points]


def fit_proportional(amounts: FloatArray, *causes: FloatArray) -> tuple[list[float], float]:
    """Least squares of an amount as a sum of causes times coefficients that are not negative.

    Returns:
        A coefficient for each cause (0 for one that never occurs), and the root mean square error over the mean amount.
    """
    table = np.stack(causes, axis=1)
    active = [index for index in range(table.shape[1]) if np.any(table[:, index] > 0)]
    coefficients = np.zeros(table.shape[1])
    while active:
        solved, *_ = np.linalg.lstsq(table[:, active], amounts, rcond=None)
        if np.all(solved >= 0):
            coefficients[active] = solved
            break
        active = [index for index, value in zip(active, solved, strict=True) if value > 0]
    error = amounts - table @ coefficients
    mean = float(amounts.mean()) if len(amounts) else 0.0
    relative = float(np.sqrt(np.mean(error**2)) / mean) if mean > 0 else 0.0
    return [float(value) for value in coefficients], relative
