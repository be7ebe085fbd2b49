"""Power readings to joules, by the trapezoid rule, with a bound on the error."""

from __future__ import annotations


class PowerIntegral:
    """Adds up the power that a sensor shows.

    ``error_j`` = stated error x energy + half a step of the sensor x time + all energy of the times that nobody saw:
    those in which the sensor could not be read, or was not read for longer than it may be.

    Args:
        error_fraction: the sensor's stated error, as a fraction of what it shows.
        longest_interval_s: two readings further apart than this say little about the time between them.
        now_s, power_w, step_w: the first reading, see `add`.

    Attributes:
        energy_j: joules since the first reading. error_j: bound on their error; both only grow.
        power_w: shown last.
    """

    def __init__(
        self, error_fraction: float, longest_interval_s: float, now_s: float, power_w: float, step_w: float = 0.0
    ) -> None:
        self.energy_j = 0.0
        self.error_j = 0.0
        self.power_w = power_w
        self._error_fraction = error_fraction
        self._longest_interval_s = longest_interval_s
        self._last_s, self._step_w = now_s, step_w
        self._is_unseen = False

    def lose(self) -> None:
        """The sensor could not be read: the time until it can is unseen."""
        self._is_unseen = True

    def add(self, now_s: float, power_w: float, step_w: float = 0.0) -> None:
        """A reading.

        Args:
            now_s: when; not before the reading before.
            power_w: what the sensor shows, 0 or more.
            step_w: the smallest step that it can show.
        """
        interval_s = now_s - self._last_s
        energy_j = (self.power_w + power_w) / 2 * interval_s
        self.energy_j += energy_j
        self.error_j += self._error_fraction * energy_j + max(self._step_w, step_w) / 2 * interval_s
        if self._is_unseen or interval_s > self._longest_interval_s:
            self.error_j += energy_j
        self._last_s, self.power_w, self._step_w = now_s, power_w, step_w
        self._is_unseen = False
