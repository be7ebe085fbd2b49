"""Cells one after another in this process: no start-up, easy to debug, and the reference for the others."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from edgebed.errors import EdgebedError, WorkFailed
from edgebed.learning.base import Cell, CellWorker, Data, Executor, State, TrainingTask


class InlineExecutor(Executor):
    """Runs every cell in the calling thread."""

    def __init__(self) -> None:
        self._workers: list[CellWorker] = []

    @property
    def cells(self) -> int:
        """How many workers there are; 0 before `start`."""
        return len(self._workers)

    def start(self, kind: type[CellWorker], task: TrainingTask, cells: int) -> None:
        """Make the workers, see `Executor.start`."""
        self._workers = [kind(Cell(task, index, cells)) for index in range(cells)]

    def call(self, method: str, payloads: Sequence[Data]) -> list[Data]:
        """Call a method of every worker in turn, see `Executor.call`."""
        answers: list[Data] = []
        for index, (worker, payload) in enumerate(zip(self._workers, payloads, strict=True)):
            try:
                answers.append(getattr(worker, method)(**payload))
            except EdgebedError:
                raise
            except Exception as error:
                raise WorkFailed(failure(index, method, traceback.format_exc())) from error
        return answers

    def states(self) -> list[State]:
        """`CellWorker.state` of every cell."""
        return [worker.state() for worker in self._workers]

    def load_states(self, states: Sequence[State]) -> None:
        """`CellWorker.load_state` of every cell."""
        for worker, state in zip(self._workers, states, strict=True):
            worker.load_state(state)

    def close(self) -> None:
        """Forget the workers."""
        self._workers = []


def failure(cell: int, method: str, trace: str) -> str:
    """The sentence about a worker that raised."""
    return f"cell {cell}: {method} failed; nothing was learned from this call. The worker's traceback:\n{trace}"
