"""Who is let in, when more devices offer their tasks than the server of CCM-MADRL has room for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.random_streams import FloatArray
from edgebed.types import BoolArray

_NONE = np.iinfo(np.int64).max


def admitted(offers: BoolArray, size: FloatArray, priority: FloatArray, places: int, storage: float) -> BoolArray:
    """Which offers a server takes.

    All of them, if there are at most ``places`` and their sizes add up to at most ``storage``. Otherwise they are
    visited by falling priority (equal ones by device; priorities count to 46 bits), and each is taken while there is
    a place and its size still fits below the storage; one that does not fit does not stop those after it.

    Args:
        offers: ``[R, N]``.
        size: ``[R, N]``, what a task takes of the storage.
        priority: ``[R, N]``, finite; higher goes first.
        places: how many are taken at most.
        storage: what their sizes may add up to.

    Returns:
        ``[R, N]``.
    """
    crowded = (offers.sum(axis=1) > places) | ((size * offers).sum(axis=1) > storage)
    if not crowded.any():
        return offers
    if crowded.all():
        return _filled(offers, size, priority, places, storage)
    taken = offers.copy()
    rows = np.flatnonzero(crowded)
    taken[rows] = _filled(offers[rows], size[rows], priority[rows], places, storage)
    return taken


def _filled(offers: BoolArray, size: FloatArray, priority: FloatArray, places: int, storage: float) -> BoolArray:
    order, exists = _by_falling_priority(offers, priority)
    flat = order + np.arange(offers.shape[1] * len(offers), step=offers.shape[1])
    sizes = size.ravel().take(flat)
    taken = np.zeros(offers.shape, np.bool_)
    count = np.zeros(len(offers), np.int64)
    used = np.zeros(len(offers))
    for rank in range(len(order)):
        fits = exists[rank] & (count < places) & (used + sizes[rank] < storage)
        if not fits.any() and (not exists[rank].any() or (count >= places).all()):
            break
        taken.ravel()[flat[rank][fits]] = True
        count += fits
        used += fits * sizes[rank]
    return taken


def _by_falling_priority(offers: BoolArray, priority: FloatArray) -> tuple[NDArray[np.int64], BoolArray]:
    """Devices by falling priority, ``[K, R]``, and which of these entries are offers at all.

    One sort of integers that carry the device in their last bits is several times as fast as a stable `argsort`.
    """
    devices = offers.shape[1]
    mask = (1 << max(1, (devices - 1).bit_length())) - 1
    bits = (0.0 - priority).view(np.int64)
    keys = bits ^ ((bits >> 63) & _NONE)  # now integers compare as the floats did
    keys &= ~mask
    keys |= np.arange(devices)
    keys[~offers] = _NONE
    keys.sort(axis=1)
    ranked = np.ascontiguousarray(keys[:, : int(offers.sum(axis=1).max(initial=0))].T)
    exists = ranked != _NONE
    return np.where(exists, ranked & mask, 0), exists
