"""The planned tasks of a cell as columns, in the order in which sealed rows lie: by device name, then by arrival."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.ingredients import FloatArray, IndexArray
from orchestrator.planned_once import PLANNED
from workloads.arrival_files import settings_from_plain


@dataclass(frozen=True, slots=False)
class CellTasks:
    """All planned tasks of a cell, ``[n]`` arrays.

    Attributes:
        devices: names, in slot order.
        slot: of its device. index: on its device. epoch: of its arrival.
        offset_s: of its arrival, from the cell's start.
    """

    devices: tuple[str, ...]
    slot: IndexArray
    index: IndexArray
    offset_s: FloatArray
    frames: IndexArray
    deadline_s: FloatArray
    epoch: IndexArray

    def __len__(self) -> int:
        return len(self.slot)

    @cached_property
    def _by_epoch(self) -> tuple[IndexArray, IndexArray]:
        order = np.argsort(self.epoch, kind="stable")
        bounds = np.searchsorted(self.epoch[order], np.arange(int(self.epoch.max(initial=0)) + 2))
        return order, bounds

    def of_epoch(self, epoch: int) -> IndexArray:
        """Rows of the tasks that arrived in an epoch."""
        order, bounds = self._by_epoch
        if epoch + 1 >= len(bounds):
            return order[:0]
        return order[bounds[epoch] : bounds[epoch + 1]]

    @property
    def in_order_of_arrival(self) -> IndexArray:
        """Rows, by arrival; at one instant by slot."""
        return np.lexsort((self.slot, self.offset_s))

    def name(self, cell_id: str, row: int) -> str:
        """The task's name in the run."""
        return f"{cell_id}/{self.devices[self.slot[row]]}/{self.index[row]}"


def tasks_of(cell: CellSpec) -> CellTasks:
    """The tasks that every device of a cell plans for itself."""
    settings = settings_from_plain(cell.arrivals)
    by_name = sorted(range(len(cell.devices)), key=lambda slot: cell.devices[slot])
    planned = PLANNED.of_devices(settings, cell.seed, cell.devices, epochs=cell.epochs, epoch_s=cell.epoch_s)
    lists = [planned[slot] for slot in by_name]
    counts = [len(found) for found in lists]
    index = np.concatenate([np.arange(count) for count in counts])
    slot = np.repeat(np.array(by_name, np.int64), counts)
    offset_s = np.concatenate([found.offset_s for found in lists])
    order = _sealed_order(slot, index, offset_s)
    return CellTasks(
        devices=tuple(cell.devices),
        slot=slot,
        index=index[order],
        offset_s=offset_s,
        frames=np.concatenate([found.frames for found in lists])[order],
        deadline_s=np.concatenate([found.deadline_s for found in lists])[order],
        epoch=np.concatenate([found.epoch for found in lists])[order],
    )


def _sealed_order(slot: IndexArray, index: IndexArray, offset_s: FloatArray) -> IndexArray:
    """Rows in their sealed order: tasks of one device and instant lie by their names, and names sort as texts do."""
    order: IndexArray = np.arange(len(slot))
    ties = np.flatnonzero((slot[1:] == slot[:-1]) & (offset_s[1:] == offset_s[:-1]))
    if not len(ties):
        return order
    starts: NDArray[np.int64] = ties[np.r_[True, np.diff(ties) > 1]]
    for start in starts:
        end = start + 1
        while end < len(slot) and slot[end] == slot[start] and offset_s[end] == offset_s[start]:
            end += 1
        order[start:end] = sorted(range(start, end), key=lambda row: str(index[row]))
    return order
