"""One processor, first come first served, by the end of the upload.

``finish_0 = max(ready_0, backlog) + work_0`` and ``finish_k = max(ready_k, finish_{k-1}) + work_k``, k in order of
arrival; then ``backlog <- max(0, backlog + sum of work - epoch)``. Qiu et al. 2021 (DC-DRL). Their published code
multiplies the processing time by the number of offloaders; the equation does not.

The recursion is Lindley's (1952): with the running sum ``W_k`` of the work,
``finish_k = W_k + max(backlog, max over j <= k of (ready_j - W_{j-1}))``, which needs no loop over tasks; where there
are few, going by rank is faster. A task without work delays nobody, so those that do not come need not be taken out.

Arrivals are ordered by a number that has the device's index in place of the last bits of the time: that is much faster
than sorting indices. Arrivals that differ by less (a part in 2^52, times N) count as equal, and go in order of device.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.compute import Served
from edgebed.simulation.compute.backlog import left_over_s
from edgebed.simulation.places import device_numbers, row_starts

FloatArray = NDArray[np.float64]
FEW = 32
"""Up to so many tasks are served rank by rank."""


def arrival_order(ready_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of the tasks in the flattened ``[B, N]`` array, in order of arrival: ``[N, B]``.

    Args:
        ready_s: ``[B, N]``, positive and finite.
    """
    batch, devices = ready_s.shape
    packed = _packed(ready_s)
    packed |= device_numbers(batch, devices)
    packed.sort(axis=1)
    packed &= _index_bits(devices)
    packed += row_starts(batch, devices, devices)
    return np.ascontiguousarray(packed.T)


def first_come_first_served(
    ready_s: NDArray[np.float64], work_s: NDArray[np.float64], backlog_s: NDArray[np.float64], epoch_s: float
) -> Served:
    """See `edgebed.simulation.compute.ServerModel`."""
    added_s = np.einsum("ij->i", work_s)
    if ready_s.shape[0] == 1 and ready_s.shape[1] <= FEW:
        return Served(_served_alone(ready_s, work_s, float(backlog_s[0])), left_over_s(backlog_s, added_s, epoch_s))
    place = arrival_order(ready_s)
    work = work_s.take(place, mode="clip")
    finish_s = np.empty_like(ready_s)
    times_s = ready_s.take(place, mode="clip")
    serve = _served_one_by_one if len(place) <= FEW else _served_at_once
    finish_s.ravel()[place.ravel()] = serve(times_s, work, backlog_s).ravel()
    return Served(finish_s, left_over_s(backlog_s, added_s, epoch_s))


def _served_one_by_one(ready_s: FloatArray, work_s: FloatArray, backlog_s: FloatArray) -> FloatArray:
    """The recursion, rank by rank, for all environments; arrays are ``[N, B]``, in order of arrival."""
    free_s = backlog_s
    for ready, work in zip(ready_s, work_s, strict=True):
        np.maximum(ready, free_s, out=ready)
        ready += work
        free_s = ready
    return ready_s


def _served_alone(ready_s: FloatArray, work_s: FloatArray, free_s: float) -> FloatArray:
    """As `_served_one_by_one`, to the bit, for one environment: ten numbers are not worth forty calls."""
    devices = ready_s.shape[1]
    packed = _packed(ready_s)[0].tolist()
    ready, work = ready_s[0].tolist(), work_s[0].tolist()
    finish_s = [0.0] * devices
    for _, device in sorted(zip(packed, range(devices), strict=True)):
        free_s = finish_s[device] = max(ready[device], free_s) + work[device]
    return np.array([finish_s])


def _served_at_once(ready_s: FloatArray, work_s: FloatArray, backlog_s: FloatArray) -> FloatArray:
    done_s = running(np.add, work_s.copy())
    ready_s += work_s
    ready_s -= done_s
    np.maximum(ready_s[0], backlog_s, out=ready_s[0])
    finish_s = running(np.maximum, ready_s)
    finish_s += done_s
    return finish_s


def _packed(ready_s: FloatArray) -> NDArray[np.int64]:
    """Whole numbers in the order of the times, with room for a device's index: positive floats are ordered as bits."""
    packed: NDArray[np.int64] = ready_s.view(np.int64) & ~_index_bits(ready_s.shape[1])
    return packed


def _index_bits(devices: int) -> int:
    return (1 << (devices - 1).bit_length()) - 1


def running(combine: np.ufunc, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Running sums or maxima along the first axis, in ``log2`` passes (Hillis and Steele 1986).

    Faster than ``ufunc.accumulate``, which goes number by number.

    Args:
        combine: ``np.add`` or ``np.maximum``.
        values: ``[N, B]``; overwritten.
    """
    stride = 1
    spare = np.empty_like(values)
    while stride < len(values):
        combine(values[stride:], values[:-stride], out=spare[stride:])
        spare[:stride] = values[:stride]
        values, spare = spare, values
        stride *= 2
    return values


MODEL = first_come_first_served
