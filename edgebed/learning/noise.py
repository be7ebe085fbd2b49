"""Exploration: what is added to decisions while learning, from counted random numbers.

Every number is a pure function of (training seed, names, position), see `edgebed.simulation.random_streams`, so there
is no generator to store in a checkpoint and a seed explores alike alone and in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.random_streams import FloatArray, normals, stream_keys, uniforms

__all__ = ["Counted", "OrnsteinUhlenbeck", "decayed", "gumbel"]


class Counted:
    """A stream of random numbers for each of ``S`` training seeds, read by position.

    Args:
        seeds: ``S`` training seeds.
        names: who draws.
    """

    def __init__(self, seeds: Sequence[int], *names: str | int) -> None:
        self._keys = stream_keys(np.asarray(seeds, np.int64), "learning", *names)

    def uniform(self, draw: int, *shape: int) -> FloatArray:
        """Numbers in [0, 1) of the ``draw``-th time that this shape is asked for: ``[S, *shape]``."""
        count = int(np.prod(shape))
        return uniforms(self._keys, draw * count, count).reshape(len(self._keys), *shape)

    def normal(self, draw: int, *shape: int) -> FloatArray:
        """Standard normal numbers, likewise."""
        count = int(np.prod(shape))
        return normals(self._keys, draw * 2 * count, count).reshape(len(self._keys), *shape)

    def integers(self, draw: int, low: int, high: int) -> NDArray[np.int64]:
        """An integer of [low, high) for each seed: ``[S]``."""
        numbers: NDArray[np.int64] = low + (self.uniform(draw, 1)[:, 0] * (high - low)).astype(np.int64)
        return numbers


def gumbel(uniform: FloatArray) -> FloatArray:
    """Standard Gumbel numbers: added to logits, the largest of them is drawn with softmax's probability."""
    numbers: FloatArray = -np.log(-np.log(np.clip(uniform, 1e-12, 1.0 - 1e-12)))
    return numbers


def decayed(first: float, last: float, progress: float) -> float:
    """From ``first`` to ``last`` in equal ratios while ``progress`` goes from 0 to 1; 0 stays 0."""
    if first <= 0.0:
        return 0.0
    return float(first * (last / first) ** min(max(progress, 0.0), 1.0))


class OrnsteinUhlenbeck:
    """Noise with a memory (Uhlenbeck and Ornstein 1930): ``x <- x - pull x + spread normal``.

    Args:
        shape: of the noise.
        pull: share of the deviation that is lost a step; 0.15 in DDPG.
        spread: standard deviation of what is added a step; 0.2 in DDPG.
    """

    def __init__(self, shape: tuple[int, ...], pull: float = 0.15, spread: float = 0.2) -> None:
        self.value: FloatArray = np.zeros(shape)
        self._pull, self._spread = pull, spread

    def reset(self) -> None:
        """An episode begins: the deviation is 0."""
        self.value = np.zeros_like(self.value)

    def step(self, normal: FloatArray) -> FloatArray:
        """The next noise.

        Args:
            normal: standard normal numbers of the noise's shape.
        """
        self.value = (1.0 - self._pull) * self.value + self._spread * normal
        return self.value
