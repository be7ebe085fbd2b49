"""The run clock: seconds since the run began, going on over resumes."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgebed.clock import Clock
from orchestrator.attempts import Attempts


class RunClock:
    """Seconds since a run began.

    Within one program it follows the monotonic clock. A program that resumes a run takes the wall clock's word for how
    long ago the run began, but never goes back behind what the run has seen.

    Args:
        attempts: those of the run so far.
        clock: the monotonic one.
        utc_s: the wall clock, seconds since 1970.
    """

    def __init__(self, attempts: Attempts, clock: Clock, utc_s: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._utc_s = utc_s
        self._began_s = clock.now_s()
        self._base_s = 0.0
        seen = [
            (attempt.started_utc_s, attempt.run_clock_s)
            for cell_id in attempts.cell_ids
            if (attempt := attempts.latest(cell_id)) and attempt.run_clock_s is not None and attempt.started_utc_s
        ]
        if seen:
            utc_of_last_s, last_s = max(seen, key=lambda pair: pair[1] or 0.0)
            self._base_s = (last_s or 0.0) + max(0.0, utc_s() - (utc_of_last_s or 0.0))

    def now_s(self) -> float:
        """The run clock now."""
        return self._base_s + self._clock.now_s() - self._began_s

    def utc_now_s(self) -> float:
        """The wall clock now, seconds since 1970."""
        return self._utc_s()
