"""Prices and a penalty: ``a_local c`` or ``a_edge c + a_energy E``, plus the penalty over the deadline.

``c`` in Gcycles, ``E`` in joules. Qiu et al. 2021 (DC-DRL).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.cost import Prices, TaskResults


def priced(results: TaskResults, prices: Prices) -> NDArray[np.float64]:
    """See `edgebed.simulation.cost.CostModel`."""
    costs = results.edge_share * ((prices.edge_per_gcycle - prices.local_per_gcycle) * 1e-9)
    costs += prices.local_per_gcycle * 1e-9
    costs *= results.cycles
    costs += results.energy_j * prices.energy_per_j
    penalties = results.misses.astype(np.float64)
    penalties *= prices.penalty
    costs += penalties
    return costs


MODEL = priced
