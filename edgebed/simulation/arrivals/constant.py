"""A task a device and epoch, every one the same: the middle of both ranges. For closed forms and sanity checks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.arrivals import TaskRanges, Tasks


def constant_tasks(
    keys: NDArray[np.uint64], epoch: NDArray[np.int64], devices: int, ranges: TaskRanges, epochs: int = 1
) -> Tasks:
    """See `edgebed.simulation.arrivals.ArrivalModel`; draws nothing."""
    shape = (len(keys), epochs * devices)
    return Tasks(
        np.full(shape, (ranges.cycles_min + ranges.cycles_max) / 2.0),
        np.full(shape, (ranges.input_min_bytes + ranges.input_max_bytes) / 2.0),
    )


MODEL = constant_tasks
