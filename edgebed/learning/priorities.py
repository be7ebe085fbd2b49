"""Priorities of replayed rows, in proportion to which they are sampled, for all training seeds at once.

Schaul, Quan, Antonoglou and Silver 2016, "Prioritized experience replay", the proportional variant::

    p_i = (abs(delta_i) + 0.001) ** power        a row's priority, delta_i its error when it was last learned from
    P(i) = p_i / sum_k p_k                       how likely it is
    w_i = (N P(i)) ** -correction / max_j w_j    what its error counts in the update, j in the batch

A new row gets the largest priority that there has been, at first 1, so that it is soon looked at. With a correction of
1 the weights undo the bias of the sampling but for a common factor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.random_streams import FloatArray

__all__ = ["LEAST_ERROR", "Priorities"]

LEAST_ERROR = 1e-3
"""Added to every error, so that a row without one is still sampled at times."""


class Priorities:
    """A sum tree for each of ``S`` rings: to set or to draw ``B`` rows takes ``B log2(capacity)`` additions a seed.

    A node is always the sum of its two children, never a running difference, so that the trees are a function of
    their leaves alone, and a training that was resumed draws the same rows.

    Args:
        seeds: S.
        capacity: rows a seed.
        power: 0 makes all rows equally likely.
    """

    def __init__(self, seeds: int, capacity: int, power: float) -> None:
        self._power, self._capacity = power, capacity
        self._depth = (capacity - 1).bit_length()
        self._trees = np.zeros((seeds, 2 << self._depth))  # the root is node 1, the children of k are 2 k and 2 k + 1
        self._largest = np.ones(seeds)
        self._members = np.arange(seeds)[:, None]

    @property
    def _leaves(self) -> FloatArray:
        first = 1 << self._depth
        return self._trees[:, first : first + self._capacity]

    def renew(self, seed: int, rows: NDArray[np.int64], playable: NDArray[np.bool_]) -> None:
        """Rows of one seed have been written: those that can be played get the largest priority so far, others none.

        Args:
            seed: its index.
            rows: ``[T]``.
            playable: ``[T]``.
        """
        self._set(np.full(len(rows), seed), rows, np.where(playable, self._largest[seed], 0.0))

    def learned(self, rows: NDArray[np.int64], errors: NDArray[np.floating]) -> None:
        """Rows have been learned from.

        Args:
            rows: ``[S, B]``.
            errors: their errors before the update, ``[S, B]``, at least 0.
        """
        values = (errors.astype(np.float64) + LEAST_ERROR) ** self._power
        self._largest = np.maximum(self._largest, values.max(axis=1))
        self._set(self._members, rows, values)

    def _set(self, members: NDArray[np.int64], rows: NDArray[np.int64], values: FloatArray) -> None:
        nodes = rows + (1 << self._depth)
        self._trees[members, nodes] = values
        for _ in range(self._depth):
            nodes = nodes >> 1
            self._trees[members, nodes] = self._trees[members, 2 * nodes] + self._trees[members, 2 * nodes + 1]

    def draw(self, uniform: FloatArray) -> NDArray[np.int64]:
        """Rows in proportion to their priorities: one of each of ``B`` equal parts of their sum, as in the paper.

        Args:
            uniform: ``[S, B]``, in [0, 1).

        Returns:
            ``[S, B]``. At least one row of each seed must have a priority.
        """
        trees, members, count = self._trees, self._members, uniform.shape[1]
        left_over = (np.arange(count) + uniform) / count * trees[:, 1:2]
        nodes = np.ones(uniform.shape, np.int64)
        for _ in range(self._depth):
            nodes = 2 * nodes
            left = trees[members, nodes]
            # Rounding may leave more than there is on the left; what has no priority at all is not entered for that.
            goes_right = (left_over >= left) & (trees[members, nodes + 1] > 0.0)
            left_over -= np.where(goes_right, left, 0.0)
            nodes += goes_right
        return nodes - (1 << self._depth)

    def probabilities(self, rows: NDArray[np.int64]) -> FloatArray:
        """How likely each of these rows is, ``[S, B]``."""
        found: FloatArray = self._trees[self._members, rows + (1 << self._depth)] / self._trees[:, 1:2]
        return found

    def weights(self, rows: NDArray[np.int64], sizes: NDArray[np.int64], correction: float) -> FloatArray:
        """What the rows' errors count, the largest of a batch 1.

        Args:
            rows: ``[S, B]``, drawn.
            sizes: N, ``[S]``.
            correction: 0 corrects nothing, 1 all.

        Returns:
            ``[S, B]``, in (0, 1].
        """
        weights = (sizes[:, None] * self.probabilities(rows)) ** -correction
        found: FloatArray = weights / weights.max(axis=1, keepdims=True)
        return found

    def state(self) -> FloatArray:
        """A copy of the priorities, ``[S, capacity + 1]``, the largest so far in the last column."""
        return np.concatenate([self._leaves, self._largest[:, None]], axis=1)

    def load_state(self, stored: FloatArray) -> None:
        """Go on from there."""
        self._leaves[:] = stored[:, :-1]
        self._largest = stored[:, -1].copy()
        for level in reversed(range(self._depth)):
            first, last = 1 << level, 2 << level
            self._trees[:, first:last] = self._trees[:, 2 * first : 2 * last].reshape(-1, first, 2).sum(axis=2)
