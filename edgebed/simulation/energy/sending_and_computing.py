"""Energy of sending, ``p t_up``, and of computing locally, ``k f^2`` joules a cycle.

Dynamic power of CMOS, ``k f^3`` (Burd and Brodersen 1996, "Processor design for portable systems"), over ``c / f``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.energy import DevicePower


def computing_j(cycles: NDArray[np.float64], cpu_hz: float, switched_capacitance: float) -> NDArray[np.float64]:
    """``k f^2 c``, as ``cycles``."""
    return cycles * (switched_capacitance * cpu_hz**2)


def energy_of_both_j(
    offloads: NDArray[np.bool_], upload_s: NDArray[np.float64], cycles: NDArray[np.float64], power: DevicePower
) -> NDArray[np.float64]:
    """See `edgebed.simulation.energy.EnergyModel`."""
    local_j = computing_j(cycles, power.cpu_hz, power.switched_capacitance)
    return np.where(offloads, upload_s * power.transmit_w, local_j)


MODEL = energy_of_both_j
