"""Time as an argument: everything that waits or stamps is handed a `Clock`.

Durations and stamps inside one host come from the monotonic clock. The wall clock is read only to name things.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """A source of time in seconds."""

    def now_s(self) -> float:
        """Seconds on a clock that never goes back; its zero means nothing."""
        ...

    def sleep(self, duration_s: float) -> None:
        """Wait at least ``duration_s`` seconds; returns at once when it is not positive."""
        ...


class MonotonicClock:
    """The host's monotonic clock."""

    def now_s(self) -> float:
        """Seconds of `time.monotonic`."""
        return time.monotonic()

    def sleep(self, duration_s: float) -> None:
        """Wait with `time.sleep`."""
        if duration_s > 0:
            time.sleep(duration_s)


@dataclass(slots=True)
class ManualClock:
    """A clock that only moves when it is told to. For tests and for virtual time."""

    time_s: float = 0.0

    def now_s(self) -> float:
        """The time it was last set to."""
        return self.time_s

    def sleep(self, duration_s: float) -> None:
        """Advance by ``duration_s``."""
        self.advance(duration_s)

    def advance(self, duration_s: float) -> None:
        """Move on; a negative duration is ignored, as a monotonic clock never goes back."""
        self.time_s += max(0.0, duration_s)


def utc_now() -> datetime:
    """The wall clock, only for names and for the manifest."""
    return datetime.now(UTC)
