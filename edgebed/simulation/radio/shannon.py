"""Capacity of a channel, and the power that arrives over a distance. Not a model by itself."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_PER_LN_2 = 1.0 / math.log(2.0)


def shannon_bps(bandwidth_hz: float, signal_to_noise: FloatArray) -> FloatArray:
    """``w log2(1 + s)`` (Shannon 1948, "A mathematical theory of communication"), exact for small ``s`` too.

    Returns:
        As ``signal_to_noise``, bit/s.
    """
    rates: FloatArray = np.log1p(signal_to_noise)
    rates *= bandwidth_hz * _PER_LN_2
    return rates


def power_law_gain(distance_m: FloatArray, exponent: float) -> FloatArray:
    """``max(d, 1)^-a``: share of the sent power that arrives; nearer than 1 m counts as 1 m."""
    gain: FloatArray = np.maximum(distance_m, 1.0) ** -exponent
    return gain


def watts_of_dbm(level_dbm: float) -> float:
    """``10^((dBm - 30) / 10)``."""
    return float(10.0 ** ((level_dbm - 30.0) / 10.0))
