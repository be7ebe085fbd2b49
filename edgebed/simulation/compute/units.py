"""A server with several processing units and no memory of the step before: who waits for which unit.

Tasks come in order of their upload times. The first ``U`` find a free unit. A later one starts on the unit that is
free first: ``finish = max(upload, earliest) + work``, and that unit is busy until then. So far it is a plain queue with
``U`` servers. The published code of CCM-MADRL (Gebrekidan et al. 2024) does more before that: for each later task it
adds the work of *every* earlier task, one after another, to the unit that is then earliest, although that work is
counted already. It over-counts; ``over_counts`` says whether to.

Loops run over units and ranks, never over environments: the units are kept sorted, so that the earliest is the first,
and a changed one is moved to its place by comparing neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def finish_on_units_s(upload_s: FloatArray, work_s: FloatArray, units: int, over_counts: bool) -> FloatArray:
    """When each task is finished.

    Args:
        upload_s: ``[R, K]``, ascending along the second axis; infinite: there is no such task, and none after it.
        work_s: ``[R, K]``, time on a unit; 0 where there is no task.
        units: how many units there are.
        over_counts: as the published code does.

    Returns:
        ``[R, K]``; infinite where there is no task.
    """
    finish_s: FloatArray = upload_s + work_s
    ranks = upload_s.shape[1]
    rows = np.flatnonzero(np.isfinite(upload_s[:, units])) if ranks > units else np.zeros(0, np.intp)
    if len(rows):
        upload, work = np.ascontiguousarray(upload_s[rows].T), np.ascontiguousarray(work_s[rows].T)
        finish_s[rows, units:] = _finish_of_later_s(upload, work, units, over_counts).T
    return finish_s


def _finish_of_later_s(upload: FloatArray, work: FloatArray, units: int, over_counts: bool) -> FloatArray:
    """``[K - U, R]``, of the tasks after the first U; arguments are ``[K, R]``."""
    busy = list(np.sort(upload[:units] + work[:units], axis=0))
    later = np.empty((len(upload) - units, upload.shape[1]))
    for rank in range(units, len(upload)):
        for earlier in range(rank if over_counts else 0):
            _replace_earliest(busy, busy[0] + work[earlier])
        np.maximum(upload[rank], busy[0], out=later[rank - units])
        later[rank - units] += work[rank]
        _replace_earliest(busy, later[rank - units].copy())
    return later


def _replace_earliest(busy: list[FloatArray], until: FloatArray) -> None:
    """Put ``until`` in the place of the earliest, and sort again; ``busy`` is ``[U]`` arrays ``[R]``, sorted.

    Its arrays are passed on from place to place, and ``until`` becomes one of them: nothing is copied.
    """
    spare = busy[0]
    for unit in range(1, len(busy)):
        np.minimum(until, busy[unit], out=spare)
        np.maximum(until, busy[unit], out=busy[unit])
        busy[unit - 1], spare, until = spare, until, busy[unit]
    busy[-1] = until
