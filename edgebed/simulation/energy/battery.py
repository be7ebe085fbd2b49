"""A battery that is drawn from and recharged by what is harvested: ``b <- clip(b - used + harvested, 0, capacity)``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MJ_PER_J = 1e-6


def charge_after_mj(charge_mj: FloatArray, used_j: FloatArray, harvested_j: float, capacity_mj: float) -> FloatArray:
    """Charge after a step, in megajoules, as ``charge_mj``."""
    charge: FloatArray = used_j * -MJ_PER_J
    charge += charge_mj
    charge += harvested_j * MJ_PER_J
    return np.clip(charge, 0.0, capacity_mj, out=charge)
