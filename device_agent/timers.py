"""What is due when. Pure: time goes in, callbacks run."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Timers:
    """Callbacks in order of time; equal times run in the order in which they were set."""

    _heap: list[tuple[float, int, Callable[[float], None]]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def due_s(self) -> float:
        """When the first is due; infinite when there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def at(self, time_s: float, callback: Callable[[float], None]) -> None:
        """Call ``callback(now_s)`` once ``time_s`` has come. It has to find out itself whether it still matters."""
        heapq.heappush(self._heap, (time_s, next(self._order), callback))

    def run(self, now_s: float) -> None:
        """Run all that is due, also what is set meanwhile and due already."""
        while self._heap and self._heap[0][0] <= now_s:
            heapq.heappop(self._heap)[2](now_s)

    def clear(self) -> None:
        """Forget all."""
        self._heap.clear()
