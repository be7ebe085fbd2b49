"""Work that is left at the end of an epoch. Not a model by itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.bounds import not_negative


def left_over_s(backlog_s: NDArray[np.float64], added_s: NDArray[np.float64], epoch_s: float) -> NDArray[np.float64]:
    """``max(0, backlog + added - epoch)``, Lindley's recursion (1952) with a fixed time between epochs.

    Returns:
        As ``backlog_s``.
    """
    left = backlog_s + added_s
    left -= epoch_s
    return not_negative(left)
