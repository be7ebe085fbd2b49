"""A weighted sum of delay and energy, plus the penalty over the deadline: ``a_delay T + a_energy E + penalty``.

The objective of most of the offloading literature (Mao et al. 2017, "A survey on mobile edge computing", section III).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.cost import Prices, TaskResults


def weighted(results: TaskResults, prices: Prices) -> NDArray[np.float64]:
    """See `edgebed.simulation.cost.CostModel`."""
    costs = results.delay_s * prices.delay_per_s
    costs += results.energy_j * prices.energy_per_j
    costs += results.misses * prices.penalty
    return costs


MODEL = weighted
