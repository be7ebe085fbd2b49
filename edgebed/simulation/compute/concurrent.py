"""A processor a task: nobody waits, ``finish = ready + work``, and nothing is left over.

A queue with no limit of servers (M/G/inf), as an edge server of ample capacity would be; assumed, no paper.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.compute import Served


def processor_each(
    ready_s: NDArray[np.float64], work_s: NDArray[np.float64], backlog_s: NDArray[np.float64], epoch_s: float
) -> Served:
    """See `edgebed.simulation.compute.ServerModel`."""
    return Served(ready_s + work_s, np.zeros_like(backlog_s))


MODEL = processor_each
