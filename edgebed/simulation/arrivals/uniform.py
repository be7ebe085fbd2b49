"""A task a device and epoch; cycles and bytes uniform in their ranges, redrawn every epoch, independent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.arrivals import TaskRanges, Tasks
from edgebed.simulation.random_streams import words

_HALF = np.uint64(32)
_LOWER = np.uint64(2**32 - 1)


def uniform_tasks(
    keys: NDArray[np.uint64], epoch: NDArray[np.int64], devices: int, ranges: TaskRanges, epochs: int = 1
) -> Tasks:
    """See `edgebed.simulation.arrivals.ArrivalModel`. A task takes one random word, 32 bits each for both numbers."""
    drawn = words(keys, epoch * devices, epochs * devices)
    cycles = _between(drawn >> _HALF, ranges.cycles_min, ranges.cycles_max)
    drawn &= _LOWER
    return Tasks(cycles, _between(drawn, ranges.input_min_bytes, ranges.input_max_bytes))


def _between(below_2_32: NDArray[np.uint64], low: float, high: float) -> NDArray[np.float64]:
    # As signed words, which become floats faster.
    numbers: NDArray[np.float64] = np.multiply(below_2_32.view(np.int64), (high - low) * 2.0**-32, dtype=np.float64)
    numbers += low
    return numbers


MODEL = uniform_tasks
