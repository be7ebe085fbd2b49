"""Energy that a task added on this device, by the one rule of `edgebed.metering.energy`.

With a sensor on the board, computing is what the sensor saw. A sensor cannot tell sending from the rest, so time on air
is always the board's model, and whoever has both says so in the source.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from device_agent.task import Part, Used
from edgebed.metering.base import Energy, Reading
from edgebed.metering.board import Board
from edgebed.metering.energy import TaskEnergy, share_window_energy, task_energy_estimate

READINGS_KEPT = 1200
"""Meter readings that are remembered: two minutes of ten a second. An older task is estimated instead."""

_JOBS_KEPT = 256


class EnergyRule(Protocol):
    """What parts of a task added in joules."""

    def of_parts(self, parts: Sequence[Part]) -> Energy | None:
        """Joules of finished parts together; None where nothing is known of this board."""
        ...


class NoEnergy:
    """Of a board that nobody described."""

    def of_parts(self, parts: Sequence[Part]) -> Energy | None:
        """Not known."""
        return None


class EstimatedEnergy:
    """The board's model: busy core-seconds and seconds on air."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def of_parts(self, parts: Sequence[Part]) -> Energy | None:
        """As `task_energy_estimate` has it; waiting that emulates a slower board counts as busy."""
        return added(task_energy_estimate(self._board, part.used.busy_s, part.used.air_s) for part in parts)


class MeasuredEnergy:
    """What a sensor saw above idle while a task computed, shared with whatever else computed in that window.

    Args:
        read: takes a reading now; None when the sensor cannot be read.
        idle_w, idle_error_w: power while the device had nothing to do, from the same sensor, and its error.
    """

    def __init__(self, board: Board, read: Callable[[], Reading | None], idle_w: float, idle_error_w: float) -> None:
        self._board = board
        self._read = read
        self._idle_w, self._idle_error_w = idle_w, idle_error_w
        self._readings: deque[Reading] = deque(maxlen=READINGS_KEPT)
        self._jobs: deque[Used] = deque(maxlen=_JOBS_KEPT)

    def note(self, reading: Reading) -> None:
        """Remember a reading that was taken in passing; windows begin at these."""
        self._readings.append(reading)

    def of_parts(self, parts: Sequence[Part]) -> Energy | None:
        """Computing as measured, sending as estimated; all estimated where the sensor did not see it."""
        return added(each for part in parts for each in self._of_part(part.used))

    def _of_part(self, used: Used) -> list[TaskEnergy]:
        if used.busy_s <= 0:
            return [task_energy_estimate(self._board, 0.0, used.air_s)]
        if used not in self._jobs:
            self._jobs.append(used)
        measured = self._measured(used)
        if measured is None:
            return [task_energy_estimate(self._board, used.busy_s, used.air_s)]
        if used.air_s <= 0:
            return [measured]
        return [measured, task_energy_estimate(self._board, 0.0, used.air_s)]

    def _measured(self, used: Used) -> TaskEnergy | None:
        start = next((reading for reading in reversed(self._readings) if reading.t_s <= used.started_s), None)
        end = self._read()
        if start is None or end is None or start.source != end.source:
            return None
        self.note(end)
        busy_s = [used.busy_s]
        busy_s += [_overlap_s(other, start.t_s, end.t_s) for other in self._jobs if other is not used]
        return share_window_energy(start, end, idle_w=self._idle_w, idle_error_w=self._idle_error_w, busy_s=busy_s)[0]


def _overlap_s(used: Used, start_s: float, end_s: float) -> float:
    """Busy seconds of a job within a window, taken as spread evenly over the job."""
    length_s = used.finished_s - used.started_s
    if length_s <= 0:
        return 0.0
    return used.busy_s * max(0.0, min(end_s, used.finished_s) - max(start_s, used.started_s)) / length_s


def added(energies: Iterable[TaskEnergy]) -> Energy:
    """The sum; errors add up, and every source is named, those of models first."""
    energy_j = error_j = 0.0
    sources: set[str] = set()
    for each in energies:
        energy_j += each.device_energy_j
        error_j += each.error_j
        sources.add(each.source)
    return Energy(energy_j, error_j, joined_sources(sources))


def joined_sources(sources: Iterable[str]) -> str:
    """Where an amount comes from when it comes from several places: models first, as the weaker claim."""
    return "+".join(sorted({source for source in sources if source}))
