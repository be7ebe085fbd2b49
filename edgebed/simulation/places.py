"""Positions in flattened ``[B, N]`` arrays, made once a shape: adding a column to each row is slow for short rows."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=64)
def row_starts(batch: int, devices: int, width: int) -> NDArray[np.int64]:
    """Where row ``b`` of a ``[batch, width]`` array starts when flattened, ``[batch, devices]``; read only."""
    starts = np.repeat(np.arange(batch, dtype=np.int64) * width, devices).reshape(batch, devices)
    starts.flags.writeable = False
    return starts


@lru_cache(maxsize=64)
def device_numbers(batch: int, devices: int) -> NDArray[np.int64]:
    """``0 .. devices - 1`` in every row, ``[batch, devices]``; read only."""
    numbers = np.tile(np.arange(devices, dtype=np.int64), (batch, 1))
    numbers.flags.writeable = False
    return numbers
