"""The workers of servers: first come, first served, many tasks at a time."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapreplace

import numpy as np

from edgebed.simulation.testbed.ingredients import FloatArray, IndexArray


class Workers:
    """When each worker of each server is free.

    Args:
        counts: how many each server has.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._free_s: list[FloatArray] = [np.zeros(count) for count in counts]

    def take(self, server: IndexArray, received_s: FloatArray, limit_s: FloatArray, base_s: FloatArray) -> FloatArray:
        """Let workers take tasks, ``[n]`` each, in order of their receipt.

        Args:
            server: of each.
            received_s: when it has come; not later than its limit.
            limit_s: who could only begin later is not begun with.
            base_s: how long it is served.

        Returns:
            ``[n]``, when each begins, or would.
        """
        begin_s = received_s.copy()
        for number in range(len(self._free_s)):
            rows = np.flatnonzero(server == number)
            if not len(rows):
                continue
            come_s, takes_s = received_s[rows], base_s[rows]
            if self._take_at_once(number, come_s, takes_s):
                continue
            begin_s[rows] = self._take_in_turn(number, come_s, limit_s[rows], takes_s)
        return begin_s

    def _take_at_once(self, server: int, received_s: FloatArray, base_s: FloatArray) -> bool:
        """Take all of them, if each finds a worker free when it comes; else nothing has changed."""
        free_s = self._free_s[server]
        end_s = received_s + base_s
        if not (end_s > received_s).all():  # what takes no time would count as over before it has come
            return False
        over = np.searchsorted(np.sort(end_s), received_s, side="right")
        busy = np.arange(len(end_s)) - over + len(free_s) - np.searchsorted(free_s, received_s, side="right")
        if busy.max() >= len(free_s):
            return False
        # Each takes the worker that has been free for longest; so in the end those are left that are free last.
        self._free_s[server] = np.sort(np.concatenate([free_s, end_s]))[-len(free_s) :]
        return True

    def _take_in_turn(
        self, server: int, received_s: FloatArray, limit_s: FloatArray, base_s: FloatArray
    ) -> list[float]:
        free_s, begins_s = self._free_s[server].tolist(), []  # sorted, and so a heap
        for come_s, last_s, takes_s in zip(received_s.tolist(), limit_s.tolist(), base_s.tolist(), strict=True):
            begin_s = come_s if come_s > free_s[0] else free_s[0]
            begins_s.append(begin_s)
            if begin_s <= last_s:
                heapreplace(free_s, begin_s + takes_s)
        self._free_s[server] = np.sort(np.array(free_s))
        return begins_s
