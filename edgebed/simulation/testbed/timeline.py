"""What happens when: the events of one lane in virtual time, and the time-outs that hardly ever matter."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from edgebed.simulation.testbed.parts import READY, TIMED_OUT, Part

_RECALLS = 8
"""So often time-outs are looked through while one of them is waited for."""

_LEAST_AHEAD_S = 0.001


class Timeline:
    """Events in the order of their instants, and of their kinds at one instant.

    Attributes:
        now_s: how far it has come.
    """

    _handlers: tuple[Callable[[Any], None], ...]
    """What is done about an event, by its kind."""

    def __init__(self) -> None:
        self.now_s = 0.0
        # What becomes ready comes in batches and what times out hardly ever matters: neither is kept in the heap.
        self._events: list[tuple[float, int, int, Any]] = []
        self._coming: list[tuple[float, int, int, Part]] = []
        self._is_sorted = True
        self._limits: list[tuple[float, int, int, Part]] = []
        self._limits_from_s = 0.0
        self._last_limit_s = 0.0
        self._count = 0

    def advance(self, until_s: float) -> None:
        """Let everything happen up to and at ``until_s``."""
        self._sort_coming()
        if until_s >= self._limits_from_s:
            self._recall_limits(until_s)
        events, coming, handlers = self._events, self._coming, self._handlers
        begin = handlers[READY]
        while True:
            if coming and (not events or coming[-1] < events[0]):
                if coming[-1][0] > until_s:
                    break
                self.now_s, _, _, part = coming.pop()
                begin(part)
            elif events and events[0][0] <= until_s:
                self.now_s, kind, _, what = heappop(events)
                handlers[kind](what)
            else:
                break
        self.now_s = until_s if until_s < math.inf else max(self.now_s, self._last_limit_s)

    @property
    def next_s(self) -> float:
        """Nothing happens before; infinite when nothing will happen any more."""
        self._sort_coming()
        event_s = self._events[0][0] if self._events else math.inf
        ready_s = self._coming[-1][0] if self._coming else math.inf
        return min(event_s, ready_s, self._limits_from_s if self._limits else math.inf)

    def _sort_coming(self) -> None:
        if not self._is_sorted:
            self._coming.sort(reverse=True)
            self._is_sorted = True

    def _recall_limits(self, until_s: float) -> None:
        """Put the time-outs that come next among the events; most tasks have been told of by then."""
        # A while ahead, so that whoever goes in small steps does not look through all of them at every one.
        # And never less than so far that the sum is another number, or it would go in steps of nothing.
        ahead_s = until_s + max(_LEAST_AHEAD_S, (self._last_limit_s - until_s) / _RECALLS)
        later = []
        for limit in self._limits:
            if limit[3].is_told:
                continue
            if limit[0] <= ahead_s:
                heappush(self._events, limit)
            else:
                later.append(limit)
        self._limits, self._limits_from_s = later, ahead_s

    def _limit(self, part: Part) -> None:
        """Have the part time out."""
        self._count += 1
        limit = (part.limit_s, TIMED_OUT, self._count, part)
        if part.limit_s <= self._limits_from_s:
            heappush(self._events, limit)
        else:
            self._limits.append(limit)
        self._last_limit_s = max(self._last_limit_s, part.limit_s)

    def _at(self, instant_s: float, kind: int, what: Any) -> None:
        self._count += 1
        heappush(self._events, (instant_s, kind, self._count, what))
