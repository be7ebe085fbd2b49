"""One processor, first come first served, by the end of the upload.

``finish_0 = max(ready_0, backlog) + work_0`` and ``finish_k = max(ready_k, finish_{k-1}) + work_k``, k in order of
arrival, equal arrivals in order of device; then ``backlog <- max(0, backlog + sum of work - epoch)``. Qiu et al. 2021
(DC-DRL). Their published code multiplies the processing time by the number of offloaders; the equation does not.

The recursion is Lindley's (1952): with the running sum ``W_k`` of the work,
``finish_k = W_k + max(backlog, max over j <= k of (ready_j - W_{j-1}))``, which needs no loop.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.compute import Served


def first_come_first_served(
    ready_s: NDArray[np.float64], work_s: NDArray[np.float64], backlog_s: NDArray[np.float64], epoch_s: float
) -> Served:
    """See `edgebed.simulation.compute.ServerModel`."""
    place = np.argsort(ready_s, axis=1, kind="stable")
    place += (np.arange(len(place)) * place.shape[1])[:, None]
    work = work_s.take(place)
    done_s = np.cumsum(work, axis=1)
    start_s = ready_s.take(place)
    start_s -= done_s
    start_s += work
    np.maximum(start_s[:, 0], backlog_s, out=start_s[:, 0])
    np.maximum.accumulate(start_s, axis=1, out=start_s)
    start_s += done_s
    finish_s = np.empty_like(start_s)
    finish_s.ravel()[place.ravel()] = start_s.ravel()
    return Served(finish_s, np.maximum(backlog_s + done_s[:, -1] - epoch_s, 0.0))


MODEL = first_come_first_served
