"""A task a device and epoch; cycles and bytes uniform in their ranges, redrawn every epoch, independent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.arrivals import TaskRanges, Tasks
from edgebed.simulation.random_streams import words

_HALF = np.uint64(32)
_LOWER = np.uint64(2**32 - 1)


def uniform_tasks(keys: NDArray[np.uint64], epoch: NDArray[np.int64], devices: int, ranges: TaskRanges) -> Tasks:
    """See `edgebed.simulation.arrivals.ArrivalModel`. A task takes one random word, 32 bits each for both numbers."""
    drawn = words(keys, epoch * devices, devices)
    cycles = (drawn >> _HALF).view(np.int64) * ((ranges.cycles_max - ranges.cycles_min) * 2.0**-32)
    cycles += ranges.cycles_min
    drawn &= _LOWER
    input_bytes = drawn.view(np.int64) * ((ranges.input_max_bytes - ranges.input_min_bytes) * 2.0**-32)
    input_bytes += ranges.input_min_bytes
    return Tasks(cycles, input_bytes)


MODEL = uniform_tasks
