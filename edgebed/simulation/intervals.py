"""Student's t intervals, with nothing but the standard library; tested against SciPy's quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

LEVEL = 0.95
_SERIES_LIMIT = 400


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """``mean -+ t(n - 1) s / sqrt(n)``; None with fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = t_quantile(n - 1, 0.5 + level / 2.0) * math.sqrt(variance / n)
    return mean - half, mean + half


@cache
def t_quantile(degrees: int, probability: float) -> float:
    """What a t-distributed number stays below with this probability, in [0.5, 1); relative error below 1e-9."""
    if degrees > _SERIES_LIMIT:
        return _expansion(degrees, NormalDist().inv_cdf(probability))
    low, high = 0.0, 1.0
    while _within(degrees, high) < 2.0 * probability - 1.0:
        high *= 2.0
    for _ in range(200):
        middle = (low + high) / 2.0
        if _within(degrees, middle) < 2.0 * probability - 1.0:
            low = middle
        else:
            high = middle
    return high


def _within(degrees: int, t: float) -> float:
    """``P(|T| < t)``: the finite series of Abramowitz and Stegun 1964, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= square * k / (k + 1)
    return 2.0 / math.pi * (angle + sine * total) if odd else sine * total


def _expansion(degrees: int, x: float) -> float:
    """Abramowitz and Stegun 1964, 26.7.5, four terms."""
    terms = (
        (x**3 + x) / 4.0,
        (5.0 * x**5 + 16.0 * x**3 + 3.0 * x) / 96.0,
        (3.0 * x**7 + 19.0 * x**5 + 17.0 * x**3 - 15.0 * x) / 384.0,
        (79.0 * x**9 + 776.0 * x**7 + 1482.0 * x**5 - 1920.0 * x**3 - 945.0 * x) / 92160.0,
    )
    quantile: float = x + math.fsum(term / float(degrees) ** (order + 1) for order, term in enumerate(terms))
    return quantile
