"""Where the devices of `dc-drl` are."""

from __future__ import annotations

import numpy as np

from edgebed.simulation.base import SeedArray
from edgebed.simulation.random_streams import FloatArray, Uint64Array, uniforms


def first_positions_m(devices: int, half_side_m: int, seed: int, keys: Uint64Array | None) -> FloatArray:
    """Places at the beginning of an episode.

    Args:
        devices: N.
        half_side_m: the square reaches this far from the server.
        seed: NumPy's legacy generator draws whole metres from it, the same in all episodes; so did the published code.
        keys: ``[B]``: each episode draws its own places, uniform in the square, instead.

    Returns:
        ``[N, 2]``, or ``[B, N, 2]`` with keys.
    """
    if keys is None:
        places = np.random.RandomState(seed).randint(-half_side_m, half_side_m, (devices, 2))
        return places.astype(np.float64)
    numbers = uniforms(keys, 0, 2 * devices).reshape(len(keys), devices, 2)
    return (2.0 * numbers - 1.0) * half_side_m


def walked_m(
    position_m: FloatArray, keys: Uint64Array, epoch: SeedArray, stride_m: float, half_side_m: float
) -> FloatArray:
    """Where devices are after one more epoch: a stride in a direction of its own each, reflected at the square's sides.

    Args:
        position_m: ``[B, N, 2]``.
        keys: ``[B]``, streams.
        epoch: ``[B]``, the same epoch gives the same directions.
        stride_m: length of a stride; any part beyond a whole crossing of the square counts for nothing.
        half_side_m: the square reaches this far from the server.

    Returns:
        ``[B, N, 2]``.
    """
    devices = position_m.shape[1]
    angle = 2.0 * np.pi * uniforms(keys, epoch * devices, devices)
    moved = position_m + min(stride_m, 2.0 * half_side_m) * np.stack([np.cos(angle), np.sin(angle)], axis=2)
    reflected = np.where(moved > half_side_m, 2.0 * half_side_m - moved, moved)
    return np.where(reflected < -half_side_m, -2.0 * half_side_m - reflected, reflected)
