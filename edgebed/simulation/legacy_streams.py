"""NumPy's legacy random numbers for a whole batch of environments, each as a program of its own would draw them.

Published simulators draw from ``numpy.random`` one number at a time. To repeat them digit by digit, an environment
needs that very stream: `numpy.random.RandomState`, seeded with its seed. Uniform numbers take one double each. Normal
numbers come from Marsaglia's polar method, in pairs, and reject a random number of doubles; a scenario that only has
to get past them never computes them. So the doubles are drawn in blocks, one call an environment, and what becomes of
them is worked out for all environments at once.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from edgebed.simulation.episodes import Rows
from edgebed.simulation.random_streams import FloatArray


class LegacyStreams:
    """A `numpy.random.RandomState` an environment.

    Args:
        batch: how many environments.
        block: doubles drawn at a time; one episode's worth is best.
    """

    def __init__(self, batch: int, block: int) -> None:
        self.batch, self.block = batch, block
        self._doubles: FloatArray = np.empty((batch, block))
        self._next: NDArray[np.intp] = np.zeros(batch, np.intp)
        self._has_second: NDArray[np.bool_] = np.zeros(batch, np.bool_)
        self._seeds: NDArray[np.int64] = np.zeros(batch, np.int64)
        self._drawn: NDArray[np.int64] = np.zeros(batch, np.int64)
        # One generator that draws every stream's first block: the old interface seeds it, the new one draws in place.
        words = np.random.MT19937(0)
        self._seeding, self._drawing = np.random.RandomState(words), np.random.Generator(words)
        self._later: dict[int, np.random.RandomState] = {}  # of those that needed more; making one is slow

    def seed(self, rows: Rows, seeds: NDArray[np.int64]) -> None:
        """Start these environments' streams over, as ``numpy.random.seed`` does."""
        width = self._doubles.shape[1]
        for row, seed in zip(self._numbers(rows), seeds.tolist(), strict=True):
            self._seeding.seed(seed)
            self._drawing.random(out=self._doubles[row])
            self._later.pop(row, None)
        self._seeds[rows] = seeds
        self._drawn[rows] = width
        self._next[rows] = 0
        self._has_second[rows] = False

    def uniforms(self, rows: Rows, count: int) -> FloatArray:
        """What ``random_sample(count)`` gives, ``[R, count]``."""
        drawn = self._ahead(rows, count)
        self._next[rows] += count
        return drawn

    def skip_normals(self, rows: Rows, count: int) -> None:
        """Get past ``count`` normal numbers, as ``normal(size=count)`` would: two a pair, the second kept for later."""
        kept = self._has_second[rows].astype(np.intp)
        pairs = (count - kept + 1) // 2
        self._has_second[rows] = (count - kept) % 2 == 1
        most = int(pairs.max(initial=0))
        if most:
            tries = self._tries(rows, pairs, most)  # which may move what is left to the front
            self._next[rows] += 2 * tries

    def _tries(self, rows: Rows, pairs: NDArray[np.intp], most: int) -> NDArray[np.intp]:
        """How many pairs of doubles have to be tried until ``pairs`` of them lie in the unit disk; ``[R]``."""
        window = most + most // 2 + 8  # pi / 4 of them do, so that this is nearly always enough
        while True:
            doubles = self._ahead(rows, 2 * window)
            doubles -= 0.5
            doubles *= doubles
            inside = doubles[:, ::2] + doubles[:, 1::2] < 0.25  # a radius of 0 does not count, but one in 2^106 is 0
            fitting = np.count_nonzero(inside, axis=1)
            if (fitting >= pairs).all():
                last = np.flatnonzero(inside)[np.cumsum(fitting) - fitting + pairs - 1]  # of all that fit, row by row
                return np.where(pairs > 0, last - np.arange(0, inside.size, window) + 1, 0)
            window *= 2

    def _ahead(self, rows: Rows, count: int) -> FloatArray:
        """The next doubles of each row, ``[R, count]``, which stay where they are."""
        self._provide(rows, count)
        batch, width = self._doubles.shape
        every = as_strided(self._doubles, (batch * width - count + 1, count), (self._doubles.itemsize,) * 2)
        ahead: FloatArray = every[self._next[rows] + np.arange(0, batch * width, width)[rows]]
        return ahead

    def _provide(self, rows: Rows, count: int) -> None:
        """Draw on for the rows that have fewer than ``count`` doubles left."""
        if count > self._doubles.shape[1]:
            self._widen(count)
        short = self._next[rows] + count > self._doubles.shape[1]
        if not short.any():
            return
        for row in np.arange(len(self._next))[rows][short].tolist():
            used = int(self._next[row])
            mine = self._doubles[row]
            mine[:-used] = mine[used:].copy()
            mine[-used:] = self._more(row, used)
            self._next[row] = 0

    def _more(self, row: int, count: int) -> FloatArray:
        """The next doubles of one stream that are not in its block yet."""
        if row not in self._later:
            self._later[row] = np.random.RandomState(self._seeds[row])
            self._later[row].random_sample(self._drawn[row])
        self._drawn[row] += count
        return self._later[row].random_sample(count)

    def _widen(self, width: int) -> None:
        more = width + self.block - self._doubles.shape[1]
        drawn = [self._more(row, more) for row in range(len(self._next))]
        self._doubles = np.concatenate([self._doubles, np.array(drawn)], axis=1)

    def _numbers(self, rows: Rows) -> list[int]:
        numbers: list[int] = np.arange(len(self._next))[rows].tolist()
        return numbers
