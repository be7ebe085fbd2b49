"""Two meters on one host: the first one's joules are used, the second one's are what they are held against."""

from __future__ import annotations

from dataclasses import dataclass

from edgebed.errors import EdgebedError
from edgebed.metering.base import Energy, Meter, Reading, window_energy

WINDOW_S = 10.0
"""Meters are compared over this long at least: sensors step and average, and two of them not alike."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A window in which two meters differ by more than both their errors together.

    Attributes:
        duration_s: of the window.
        used, other: what the first and the second meter say about it.
    """

    duration_s: float
    used: Energy
    other: Energy

    @property
    def detail(self) -> dict[str, object]:
        """For an event of the trace."""
        return {
            "duration_s": round(self.duration_s, 3),
            **{
                f"{name}_{what}": getattr(energy, what) if what == "source" else round(getattr(energy, what), 3)
                for name, energy in (("used", self.used), ("other", self.other))
                for what in ("source", "energy_j", "error_j")
            },
        }


class CheckedMeter:
    """A meter that a second one watches. Its readings are the first one's, whatever the second one says.

    A second meter that cannot be read is passed over: windows with a gap are not compared.

    Args:
        used: whose joules count.
        other: whose joules they are compared with.
        window_s: how long a window is at least.
    """

    def __init__(self, used: Meter, other: Meter, window_s: float = WINDOW_S) -> None:
        self._used, self._other = used, other
        self._window_s = window_s
        self._start: tuple[Reading, Reading] | None = None
        self._found: list[Disagreement] = []
        self.source = used.source
        self.error = used.error

    def read(self) -> Reading:
        """Read both; the first one's reading.

        Raises:
            WorkFailed: the first one cannot be read.
        """
        try:
            reading = self._used.read()
        except EdgebedError:
            self._start = None
            raise
        try:
            other = self._other.read()
        except EdgebedError:
            self._start = None
            return reading
        if self._start is None:
            self._start = (reading, other)
        elif reading.t_s - self._start[0].t_s >= self._window_s:
            self._compare(*self._start, reading, other)
            self._start = (reading, other)
        return reading

    def _compare(self, used_start: Reading, other_start: Reading, used_end: Reading, other_end: Reading) -> None:
        used, other = window_energy(used_start, used_end), window_energy(other_start, other_end)
        if abs(used.energy_j - other.energy_j) > used.error_j + other.error_j:
            self._found.append(Disagreement(used_end.t_s - used_start.t_s, used, other))

    def take_disagreements(self) -> list[Disagreement]:
        """What has been found since this was asked last."""
        found, self._found = self._found, []
        return found
