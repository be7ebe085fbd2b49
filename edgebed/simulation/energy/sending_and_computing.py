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
    edge_share: NDArray[np.float64], upload_s: NDArray[np.float64], cycles: NDArray[np.float64], power: DevicePower
) -> NDArray[np.float64]:
    """See `edgebed.simulation.energy.EnergyModel`."""
    energy_j = upload_s * (power.transmit_w * edge_share)
    energy_j += computing_j(cycles * (1.0 - edge_share), power.cpu_hz, power.switched_capacitance)
    return energy_j


MODEL = energy_of_both_j
