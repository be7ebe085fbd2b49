"""Planned tasks as columns, made once: a plan is checked with them, and simulated cells are made of the same ones."""

from __future__ import annotations

from collections.abc import Sequence

from workloads.arrivals import ArrivalSettings, PlannedColumns, planned_of_devices

MOST_TASKS = 4_000_000
"""So many are kept, about 130 MB; then the oldest lists go."""

_Key = tuple[ArrivalSettings, int, tuple[str, ...], int, float]


class PlannedOnce:
    """The tasks of devices in cells, kept. They are a pure function of what they are asked by.

    Args:
        most_tasks: to keep.
    """

    def __init__(self, most_tasks: int = MOST_TASKS) -> None:
        self._most_tasks = most_tasks
        self._kept: dict[_Key, list[PlannedColumns]] = {}

    def of_devices(
        self, settings: ArrivalSettings, seed: int, devices: Sequence[str], *, epochs: int, epoch_s: float
    ) -> list[PlannedColumns]:
        """As `workloads.arrivals.planned_of_devices`; not to be changed."""
        key = (settings, seed, tuple(devices), epochs, epoch_s)
        found = self._kept.get(key)
        if found is None:
            found = planned_of_devices(settings, seed, devices, epochs=epochs, epoch_s=epoch_s)
            self._keep(key, found)
        return found

    def _keep(self, key: _Key, found: list[PlannedColumns]) -> None:
        self._kept[key] = found
        while self._kept and sum(map(_tasks, self._kept.values())) > self._most_tasks:
            del self._kept[next(iter(self._kept))]


def _tasks(found: list[PlannedColumns]) -> int:
    return sum(map(len, found))


PLANNED = PlannedOnce()
"""Of this process."""
