"""A task a device and epoch; cycles and bytes uniform in their ranges, redrawn every epoch, independent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.arrivals import TaskRanges, Tasks
from edgebed.simulation.random_streams import uniforms


def uniform_tasks(keys: NDArray[np.uint64], epoch: NDArray[np.int64], devices: int, ranges: TaskRanges) -> Tasks:
    """See `edgebed.simulation.arrivals.ArrivalModel`."""
    numbers = uniforms(keys, epoch * (2 * devices), 2 * devices)
    cycles = numbers[:, :devices] * (ranges.cycles_max - ranges.cycles_min)
    cycles += ranges.cycles_min
    input_bytes = numbers[:, devices:] * (ranges.input_max_bytes - ranges.input_min_bytes)
    input_bytes += ranges.input_min_bytes
    return Tasks(cycles, input_bytes)


MODEL = uniform_tasks
