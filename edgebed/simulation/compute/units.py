"""A server with several processing units and no memory of the step before: who waits for which unit.

Tasks come in order of their upload times. The first ``U`` find a free unit. A later one starts on the unit that is
free first: ``finish = max(upload, earliest) + work``, and that unit is busy until then. So far it is a plain queue with
``U`` servers. The published code of CCM-MADRL (Gebrekidan et al. 2024) does more before that: for each later task it
adds the work of *every* earlier task, one after another, to the unit that is then earliest, although that work is
counted already. It over-counts; ``over_counts`` says whether to.

Loops run over ranks, never over environments: the units are kept sorted, so that the earliest is the first, and a
changed one is put in its place by comparing neighbours, all units at once.
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
    waits = np.isfinite(upload_s[:, units]) if upload_s.shape[1] > units else np.zeros(0, np.bool_)
    if waits.any():
        rows = slice(None) if waits.all() else np.flatnonzero(waits)
        upload, work = np.array(upload_s[rows, units:].T, order="C"), np.ascontiguousarray(work_s[rows].T)
        busy = np.sort(np.ascontiguousarray(finish_s[rows, :units]), axis=1).T.copy()
        finish_s[rows, units:] = _finish_of_later_s(upload, work, busy, over_counts).T
    return finish_s


def _finish_of_later_s(upload: FloatArray, work: FloatArray, busy: FloatArray, over_counts: bool) -> FloatArray:
    """``[K - U, R]``, of the tasks after the first U, in place of their uploads.

    Args:
        upload: ``[K - U, R]``; overwritten.
        work: ``[K, R]``, of all tasks.
        busy: ``[U, R]``, until when the units are, sorted; overwritten.
        over_counts: as the published code does.
    """
    units, spare = len(busy), np.empty_like(busy)
    for rank, until in enumerate(upload, units):
        for earlier in work[:rank] if over_counts else ():
            earliest = np.add(busy[0], earlier, out=busy[0])
            busy, spare = _earliest_replaced(busy, earliest, spare), busy
        np.maximum(until, busy[0], out=until)
        until += work[rank]
        busy, spare = _earliest_replaced(busy, until, spare), busy
    return upload


def _earliest_replaced(busy: FloatArray, until: FloatArray, out: FloatArray) -> FloatArray:
    """``busy``, ``[U, R]`` and sorted, with ``until`` in the place of the earliest, and sorted again."""
    np.minimum(until, busy[1:], out=out[:-1])
    out[-1] = until
    np.maximum(out[1:], busy[1:], out=out[1:])
    return out
