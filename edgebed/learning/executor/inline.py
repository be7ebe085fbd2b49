"""Cells one after another in this process: no start-up, easy to debug, and the reference for the others."""

from __future__ import annotations

from collections.abc import Sequence

from edgebed.learning.base import Cell, CellWorker, Data, Executor, State, TrainingTask
from edgebed.learning.executor.serving import LOAD_STATE, STATE, Server, answer_of, request


class InlineExecutor(Executor):
    """Runs every cell in the calling thread."""

    def __init__(self) -> None:
        self._servers: list[Server] = []

    @property
    def cells(self) -> int:
        """How many workers there are; 0 before `start`."""
        return len(self._servers)

    def start(self, kind: type[CellWorker], task: TrainingTask, cells: int) -> None:
        """Make the workers, see `Executor.start`."""
        self._servers = [Server(kind, Cell(task, index, cells)) for index in range(cells)]
        for server in self._servers:
            answer_of(server.first_answer)

    def call(self, method: str, payloads: Sequence[Data]) -> list[Data]:
        """Call a method of every worker in turn, see `Executor.call`."""
        pairs = zip(self._servers, payloads, strict=True)
        # Through bytes, as everywhere: a learner that shares an array with its cells must not come to depend on it.
        return [answer_of(server.answer(request(method, payload))) for server, payload in pairs]

    def states(self) -> list[State]:
        """`CellWorker.state` of every cell."""
        return self.call_all(STATE)

    def load_states(self, states: Sequence[State]) -> None:
        """`CellWorker.load_state` of every cell."""
        self.call(LOAD_STATE, states)

    def close(self) -> None:
        """Forget the workers."""
        self._servers = []
