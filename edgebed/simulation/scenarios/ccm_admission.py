"""Who is let in, when more devices offer their tasks than the server of CCM-MADRL has room for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.random_streams import FloatArray
from edgebed.types import BoolArray

_STEPS = 2.0**38
_NO_OFFER = 2.0 * _STEPS + 1.0


def admitted(offers: BoolArray, size: FloatArray, priority: FloatArray, places: int, storage: float) -> BoolArray:
    """Which offers a server takes.

    All of them, if there are at most ``places`` and their sizes add up to at most ``storage``. Otherwise they are
    visited by falling priority (equal ones by device; they are equal within 2^-38), and each is taken while there is
    a place and its size still fits below the storage; one that does not fit does not stop those after it.

    Args:
        offers: ``[R, N]``.
        size: ``[R, N]``, what a task takes of the storage.
        priority: ``[R, N]``, in [-1, 1]; higher goes first.
        places: how many are taken at most.
        storage: what their sizes may add up to.

    Returns:
        ``[R, N]``.
    """
    crowded = counts(offers) > places
    if not crowded.all():
        crowded |= (size * offers).sum(axis=1) > storage
    if not crowded.any():
        return offers
    if crowded.all():
        return _filled(offers, size, priority, places, storage)
    taken = offers.copy()
    rows = np.flatnonzero(crowded)
    taken[rows] = _filled(offers[rows], size[rows], priority[rows], places, storage)
    return taken


def counts(marks: BoolArray) -> NDArray[np.integer]:
    """How many are marked in each row, ``[R]``, of ``[R, N]``; in bytes where that is enough, which is faster."""
    enough = np.uint8 if marks.shape[1] <= np.iinfo(np.uint8).max else np.intp
    counted: NDArray[np.integer] = np.add.reduce(marks.view(np.uint8), axis=1, dtype=enough)
    return counted


def _filled(offers: BoolArray, size: FloatArray, priority: FloatArray, places: int, storage: float) -> BoolArray:
    devices = offers.shape[1]
    width = _power_of_two(devices)
    ranked = _by_falling_priority(offers, priority, width)
    first = np.arange(0, offers.size, devices)
    best = np.ascontiguousarray(ranked[:, :places].T)
    place = _entries(best, first, width)
    taken = np.zeros(offers.shape, np.bool_)
    taken.ravel()[place] = True
    # Nearly always the best are enough and fit all together. Only the other rows go rank by rank.
    fit = np.add.reduce(size.take(place, mode="clip"), axis=0) < storage
    rows = np.flatnonzero(~fit | (best[-1] >= _NO_OFFER))
    if len(rows):
        ranks = np.ascontiguousarray(ranked[rows, : int(counts(offers[rows]).max())].T)
        offer = _entries(ranks, first[rows], width)
        taken[rows] = False
        taken.ravel()[offer] = _fitting(ranks < _NO_OFFER, size.take(offer, mode="clip"), places, storage)
    return taken


def _entries(keys: FloatArray, first: NDArray[np.intp], width: int) -> NDArray[np.int64]:
    """Where keys ``[K, R]`` are in the flattened offers; ``first`` is ``[R]``, where rows begin."""
    return ((keys * width).astype(np.int64) & (width - 1)) + first


def _fitting(exists: BoolArray, sizes: FloatArray, places: int, storage: float) -> BoolArray:
    """Which of the offers in these orders are taken, ``[K, R]`` as the arguments."""
    fits = np.zeros(exists.shape, np.bool_)
    count = np.zeros(exists.shape[1], np.int64)
    used = np.zeros(exists.shape[1])
    for rank, (offered, added) in enumerate(zip(exists, sizes, strict=True)):
        fits[rank] = offered & (count < places) & (used + added < storage)
        count += fits[rank]
        used += added * fits[rank]
    return fits


def _by_falling_priority(offers: BoolArray, priority: FloatArray, width: int) -> FloatArray:
    """Keys by falling priority, ``[R, N]``, first all that is offered; the fraction of a key is its device's.

    One sort of numbers is several times as fast as a stable `argsort`. Doubles hold them exactly: 40 bits of the
    priority, and up to 13 of the device.
    """
    keys = 1.0 - priority
    keys *= _STEPS
    np.floor(keys, out=keys)
    keys += ~offers * _NO_OFFER  # quicker than to select
    keys += np.arange(offers.shape[1]) / width
    keys.view(np.int64).sort(axis=1)  # which orders positive doubles alike, and faster
    return keys


def _power_of_two(count: int) -> int:
    """The least one that is not below ``count``."""
    return 1 << (count - 1).bit_length()
