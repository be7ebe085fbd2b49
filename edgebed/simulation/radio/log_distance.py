"""Gains over a distance: log-distance path loss, log-normal shadowing, Rayleigh fading. Not a model by itself.

Path loss in dB is ``a + b log10(d / km)``; 3GPP TR 36.814 gives 103.8 and 20.9 for a pico cell with line of sight.
Shadowing is normal in dB (Gudmundson 1991); under Rayleigh fading the power is exponential with mean 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def path_loss_db(distance_m: FloatArray, at_1_km_db: float, per_decade_db: float) -> FloatArray:
    """``a + b log10(d / km)``, as ``distance_m``."""
    loss_db: FloatArray = at_1_km_db + per_decade_db * np.log10(distance_m * 1e-3)
    return loss_db


def faded_gains(loss_db: FloatArray, shadowing_db: FloatArray, fading_power: FloatArray) -> FloatArray:
    """Share of the sent power that arrives, ``10^((shadowing - loss) / 10) x fading``; as ``loss_db``."""
    gains: FloatArray = 10.0 ** ((shadowing_db - loss_db) / 10.0)
    gains *= fading_power
    return gains
