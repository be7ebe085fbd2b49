"""Who is let in, when more devices offer their tasks than the server of CCM-MADRL has room for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.random_streams import FloatArray
from edgebed.types import BoolArray

_MOST = np.iinfo(np.int64).max


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
    flat, exists = _by_falling_priority(offers, priority)
    sizes = size.ravel().take(flat)
    fits = np.zeros(flat.shape, np.bool_)
    count = np.zeros(len(offers), np.int64)
    used = np.zeros(len(offers))
    for rank in range(len(flat)):
        if rank >= places and (count >= places).all():
            break
        fits[rank] = exists[rank] & (count < places) & (used + sizes[rank] < storage)
        count += fits[rank]
        used += fits[rank] * sizes[rank]
    taken = np.zeros(offers.shape, np.bool_)
    taken.ravel()[flat] = fits
    return taken


def _by_falling_priority(offers: BoolArray, priority: FloatArray) -> tuple[NDArray[np.int64], BoolArray]:
    """Entries of the flattened ``offers`` by falling priority, ``[K, R]``, and which of them are offers at all.

    One sort of integers that carry the device in their last bits is several times as fast as a stable `argsort`.
    """
    devices = offers.shape[1]
    mask = (1 << max(1, (devices - 1).bit_length())) - 1
    none = _MOST & ~mask
    bits = np.subtract(0.0, priority).view(np.int64)
    keys = bits ^ ((bits >> 63) & _MOST)  # now integers compare as the floats did
    keys &= ~mask
    np.copyto(keys, none, where=~offers)
    keys |= np.arange(devices)
    keys.sort(axis=1)
    ranked = np.ascontiguousarray(keys[:, : int(offers.sum(axis=1).max(initial=0))].T)
    return (ranked & mask) + np.arange(0, offers.size, devices), ranked < none
