"""Energy of sending only: ``p t_up`` for what is offloaded, whole uploads also where they miss. Qiu et al. 2021."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.energy import DevicePower


def energy_of_sending_j(
    edge_share: NDArray[np.float64], upload_s: NDArray[np.float64], cycles: NDArray[np.float64], power: DevicePower
) -> NDArray[np.float64]:
    """See `edgebed.simulation.energy.EnergyModel`."""
    energy_j = upload_s * power.transmit_w
    energy_j *= edge_share
    return energy_j


MODEL = energy_of_sending_j
