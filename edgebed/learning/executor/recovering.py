"""Executors whose workers may die: snapshots, what was asked since, and starting over from there.

A worker is a function of its cell and of what it was asked. So one that died is made again, given the last snapshot of
its state, and asked the same things in the same order; then it is where the dead one was, to the bit.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from edgebed.errors import WorkFailed
from edgebed.learning.base import Cell, CellWorker, Data, Executor, State, TrainingTask
from edgebed.learning.executor.serving import LOAD_STATE, STATE, answer_of, request

_log = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Deaths in a row within one call; then it is the work that kills the worker (memory, a crash in a library)."""

SNAPSHOT_AFTER_S = 120.0
SNAPSHOT_AFTER_BYTES = 256 << 20
"""A snapshot is taken when the last one is so old, or when so much was asked since. Results do not depend on it."""


class WorkerLostError(Exception):
    """A worker's process has ended, or its node cannot be reached."""


class Handle(ABC):
    """A worker in another process."""

    @abstractmethod
    def submit(self, content: bytes) -> None:
        """Send a request; a dead worker shows in `result`."""

    @abstractmethod
    def result(self) -> bytes:
        """The answer to the oldest request that has none; the first is to having been made, without a request.

        Raises:
            WorkerLostError: the worker has died.
        """

    @abstractmethod
    def stop(self) -> None:
        """End the worker, and wait until it has ended."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """Process id, on whatever machine; None when it is not known."""


@dataclass(slots=True)
class _Slot:
    """A cell, its worker, and what makes the worker again.

    Attributes:
        snapshot: a request to load the state; None before there is one.
        journal: requests answered since.
    """

    cell: Cell
    handle: Handle
    snapshot: bytes | None = None
    journal: list[bytes] = field(default_factory=list)


class RecoveringExecutor(Executor):
    """Base of the executors with processes.

    Attributes:
        restarts: workers that were made again.
    """

    def __init__(self) -> None:
        self.restarts = 0
        self._slots: list[_Slot] = []
        self._kind: type[CellWorker] | None = None
        self._snapshot_s = 0.0
        self._asked_bytes = 0

    @abstractmethod
    def make_handle(self, kind: type[CellWorker], cell: Cell) -> Handle:
        """Start a worker; does not wait for it."""

    @property
    def cells(self) -> int:
        """How many workers there are; 0 before `start`."""
        return len(self._slots)

    @property
    def pids(self) -> list[int | None]:
        """Process ids of the workers, each on its own machine."""
        return [slot.handle.pid for slot in self._slots]

    def start(self, kind: type[CellWorker], task: TrainingTask, cells: int) -> None:
        """Make the workers, all at the same time; see `Executor.start`."""
        self._kind = kind
        for index in range(cells):
            cell = Cell(task, index, cells)
            self._slots.append(_Slot(cell, self.make_handle(kind, cell)))
        self._snapshot_s = time.monotonic()
        for slot in self._slots:
            answer_of(self._answer(slot, None))

    def call(self, method: str, payloads: Sequence[Data]) -> list[Data]:
        """Call a method of every worker at the same time, see `Executor.call`."""
        answers = self._ask(method, payloads)
        too_old = time.monotonic() - self._snapshot_s > SNAPSHOT_AFTER_S
        if too_old or self._asked_bytes > SNAPSHOT_AFTER_BYTES:
            self.states()
        return answers

    def states(self) -> list[State]:
        """`CellWorker.state` of every cell; what was asked before is forgotten."""
        states: list[State] = self._ask(STATE, [{}] * self.cells)
        self._keep(states)
        return states

    def load_states(self, states: Sequence[State]) -> None:
        """`CellWorker.load_state` of every cell."""
        self._ask(LOAD_STATE, states)
        self._keep(states)

    def close(self) -> None:
        """End the workers."""
        slots, self._slots = self._slots, []
        for slot in slots:
            slot.handle.stop()

    def _keep(self, states: Sequence[State]) -> None:
        for slot, state in zip(self._slots, states, strict=True):
            slot.snapshot, slot.journal = request(LOAD_STATE, state), []
        self._snapshot_s, self._asked_bytes = time.monotonic(), 0

    def _ask(self, method: str, payloads: Sequence[Data]) -> list[Any]:
        requests = _requests(method, payloads)
        for slot, content in zip(self._slots, requests, strict=True):
            slot.handle.submit(content)
        # All answers are read before any is opened: an error of one cell must not leave another's answer in its pipe.
        contents = [self._answer(slot, sent) for slot, sent in zip(self._slots, requests, strict=True)]
        answers = [answer_of(content) for content in contents]
        for slot, sent in zip(self._slots, requests, strict=True):
            slot.journal.append(sent)
            self._asked_bytes += len(sent)
        return answers

    def _answer(self, slot: _Slot, sent: bytes | None) -> bytes:
        """The answer to the request that was sent, or to having been made (None), whatever dies meanwhile."""
        deaths = 0
        while True:
            try:
                return slot.handle.result()
            except WorkerLostError as error:
                deaths += 1
                if deaths > MAX_DEATHS:
                    raise WorkFailed(_dies_again(slot.cell.index, deaths, error)) from None
                self._revive(slot, str(error), sent)

    def _revive(self, slot: _Slot, reason: str, sent: bytes | None) -> None:
        """Make a worker again, as it was, and ask it what it was asked; should it die meanwhile, its handle says so."""
        assert self._kind is not None
        self.restarts += 1
        _log.warning("cell %d: %s; it is started again, and the run goes on", slot.cell.index, reason)
        slot.handle.stop()
        slot.handle = self.make_handle(self._kind, slot.cell)
        if sent is None:
            return
        earlier = [content for content in (slot.snapshot, *slot.journal) if content is not None]
        with suppress(WorkerLostError):
            answer_of(slot.handle.result())
            for content in earlier:
                slot.handle.submit(content)
                answer_of(slot.handle.result())
        slot.handle.submit(sent)


def _dies_again(cell: int, deaths: int, error: WorkerLostError) -> str:
    return (
        f"cell {cell}: its worker died {deaths} times in a row at the same work ({error}); is there enough memory? "
        "Fewer seeds at once need less, and --executor inline shows a crash where it happens"
    )


def _requests(method: str, payloads: Sequence[Data]) -> list[bytes]:
    """Requests, one a cell; the same payload for all of them is encoded once."""
    encoded: dict[int, bytes] = {}
    for payload in payloads:
        if id(payload) not in encoded:
            encoded[id(payload)] = request(method, payload)
    return [encoded[id(payload)] for payload in payloads]
