"""Counter-based random numbers for a whole batch of environments at once.

A number is a pure function of (environment's seed, name of who draws, position in that stream), so an environment
draws the same whatever batch it runs in, and nothing loops over the batch. The mixing function is SplitMix64's
(Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"), applied to a keyed Weyl sequence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Uint64Array = NDArray[np.uint64]
FloatArray = NDArray[np.float64]

_WEYL = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53
_SHORT, _MANY = 64, 16_384
"""Streams of at most so many words, for at most so many environments, are worth keeping their positions."""


def stream_keys(seeds: ArrayLike, *names: str | int) -> Uint64Array:
    """Keys of a stream, one an environment.

    Args:
        seeds: ``[B]``, not negative.
        names: who draws, for example ``"tasks"``.

    Returns:
        ``[B]``.
    """
    return _keys(np.asarray(seeds), _salt(names))


def named_keys(seed: int, names: Sequence[tuple[str | int, ...]]) -> Uint64Array:
    """Keys of many streams of one seed: `stream_keys` of each of these names.

    Args:
        seed: not negative.
        names: ``[n]``, who draws.

    Returns:
        ``[n]``.
    """
    return _keys(np.asarray([seed]), b"".join(map(_salt, names)))


def _salt(names: tuple[str | int, ...]) -> bytes:
    return hashlib.sha256("\x1f".join(str(name) for name in names).encode()).digest()[:8]


def _keys(seeds: NDArray[np.generic], salts: bytes) -> Uint64Array:
    salt = np.frombuffer(salts, dtype="<u8").astype(np.uint64)
    return _mixed(_mixed(seeds.astype(np.uint64) * _WEYL + _WEYL) ^ salt)


def words(keys: Uint64Array, first: int | NDArray[np.int64], count: int) -> Uint64Array:
    """Random 64-bit words, at positions ``first`` to ``first + count - 1`` of each stream.

    Args:
        keys: ``[B]``, see `stream_keys`.
        first: position of the first word, for all environments or ``[B]``, one for each.
        count: how many from each stream.

    Returns:
        ``[B, count]``.
    """
    starts = np.asarray(first).astype(np.uint64)
    starts *= _WEYL
    starts = starts + keys
    if count > _SHORT or starts.size > _MANY:
        return _mix(starts[:, None] + _row(count))
    counters = starts.repeat(count).reshape(starts.size, count)
    counters += _rows(starts.size, count)
    return _mix(counters)


def _row(count: int) -> Uint64Array:
    return (np.arange(count, dtype=np.uint64) + np.uint64(1)) * _WEYL


@lru_cache(maxsize=16)
def _rows(batch: int, count: int) -> Uint64Array:
    """``[batch, count]``, the same in every row: adding one row to many short rows takes several times as long."""
    return np.tile(_row(count), (batch, 1))


def uniforms(keys: Uint64Array, first: int | NDArray[np.int64], count: int) -> FloatArray:
    """Uniform numbers in [0, 1), at positions ``first`` to ``first + count - 1`` of each stream.

    Args:
        keys: ``[B]``, see `stream_keys`.
        first: position of the first number, for all environments or ``[B]``, one for each.
        count: how many from each stream.

    Returns:
        ``[B, count]``.
    """
    mixed = words(keys, first, count)
    mixed >>= np.uint64(11)
    # As signed words, which they still fit: those become floats faster.
    numbers: FloatArray = np.multiply(mixed.view(np.int64), _TO_UNIT, dtype=np.float64)
    return numbers


def normals(keys: Uint64Array, first: int | NDArray[np.int64], count: int) -> FloatArray:
    """Standard normal numbers (Box and Muller 1958); ``count`` of them use up ``2 * count`` positions from ``first``.

    Returns:
        ``[B, count]``.
    """
    pairs = uniforms(keys, first, 2 * count)
    numbers: FloatArray = np.cos(2.0 * np.pi * pairs[:, count:])
    numbers *= np.sqrt(-2.0 * np.log1p(-pairs[:, :count]))
    return numbers


def _mixed(words: Uint64Array) -> Uint64Array:
    return _mix(words.copy())


def _mix(words: Uint64Array) -> Uint64Array:
    """SplitMix64's finaliser, in place; a bijection of 64 bits."""
    shifted = words >> np.uint64(30)
    words ^= shifted
    words *= _FIRST
    np.right_shift(words, np.uint64(27), out=shifted)
    words ^= shifted
    words *= _SECOND
    np.right_shift(words, np.uint64(31), out=shifted)
    words ^= shifted
    return words
