"""A recorded cell that someone drives from outside, epoch by epoch; queues are computed event by event."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgebed.errors import WorkFailed
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.hosts import Testbed
from edgebed.simulation.testbed.ingredients import Ended, FloatArray, IndexArray, Ingredients
from edgebed.simulation.testbed.pipeline import Pipeline
from edgebed.types import Decision, Float32Array, IntArray, Observation, ObservationSpec
from orchestrator.replay.cell import LANES, CellReplay, layout_of
from orchestrator.replay.day import RecordedDay
from orchestrator.replay.deciders import Choices, choices_of
from orchestrator.replay.judged import MODELLED, RECOMPUTED, RECORDED, Judged
from orchestrator.replay.missing import Missing
from orchestrator.replay.observing import REPLAY, Observer, RecordedViews, Seen, waiting_in


@dataclass(frozen=True, slots=True)
class Heard:
    """A task of which there is news.

    Attributes:
        at: its position in the batch.
        is_decided: somebody decided about it.
    """

    judged: Judged
    at: int
    is_decided: bool


class SteppedCell(CellReplay):
    """The same replay as of `edgebed replay --mode reevaluate`, but whoever calls decides, and says when.

    Args:
        day: the recorded one.
        cell: the recorded one's.
        testbed: the hosts as stated, for the layout of queues and what observations say of hosts.
        missing: where ingredients come from that nobody recorded.
        views: what hosts saw.

    Attributes:
        heard: news that nobody has taken.
    """

    def __init__(
        self, day: RecordedDay, cell: CellSpec, testbed: Testbed, missing: Missing, views: RecordedViews
    ) -> None:
        layout = layout_of(testbed, cell)
        self._pipeline = Pipeline(layout, LANES)
        super().__init__(day, cell, layout, self._pipeline, missing, None, _nobody_waits, _nobody_waits)
        spec = ObservationSpec(tuple(cell.devices), tuple(cell.servers), cell.channels.count)
        self._observer, self._recorded = Observer(testbed, spec, layout.channel_alone_bps), views
        self._batches = day.batches()
        self._current: Judged | None = None
        self._shown_then: dict[int, Seen] = {}
        self._not_before_s = -math.inf
        self._delayed: set[int] = set()
        self.heard: list[Heard] = []
        self._advance(day.start_s)

    @property
    def now_s(self) -> float:
        """The run clock."""
        return self._pipeline.now_s

    @property
    def next_s(self) -> float:
        """When something will happen next; infinite when nothing will."""
        return self._pipeline.next_s

    def tick_s(self, epoch: int) -> float:
        """When an epoch is decided, run clock."""
        return self._tick_s(epoch)

    def advance(self, until_s: float) -> None:
        """Let time pass."""
        self._advance(until_s)
        self._let_go()

    def observe(self, epoch: int) -> tuple[Observation, Float32Array]:
        """Go on to a tick.

        Returns:
            What everyone sees, and ``[slots, server features]`` what each device knows of the servers.
        """
        self.advance(self._tick_s(epoch))
        judged, rows = self._begin(epoch)
        waiting = waiting_in(judged.batch, rows, self._tick_s(epoch), len(self._cell.devices))
        return self._observer.show(epoch, waiting, self._pipeline.load(), self._shown_then.get(epoch))

    def decide(self, epoch: int, decision: Decision, late_s: float = 0.0) -> IntArray:
        """Carry out what was decided for the tasks of an epoch, from the instant at which its decision was known then.

        Args:
            epoch: the one that was observed last.
            decision: for every slot.
            late_s: that is known on the devices so much later than its tick, if it was not later then.

        Returns:
            How many tasks of each slot it covers.
        """
        judged, rows = self._begin(epoch)
        batch = judged.batch
        is_decided = batch.is_decided[rows]
        decided = rows[is_decided]
        choices = choices_of(decision, batch.slot[decided])
        self._enter(judged, decided, choices)
        self._not_before_s = self._tick_s(epoch) + late_s
        self._submit(judged, decided, choices)
        # Nobody decided about the others on the recorded day: their device was down, say.
        self.heard += [Heard(judged, at, is_decided=False) for at in rows[~is_decided].tolist()]
        return np.bincount(batch.slot[decided], minlength=len(self._cell.devices)).astype(np.int32)

    def status(self, judged: Judged) -> IndexArray:
        """What each row of a batch may claim; one that was decided later than then is not the recorded one."""
        status = judged.status()
        if self._delayed:
            numbers = judged.batch.first + np.arange(len(judged.batch))
            is_delayed = np.isin(numbers, np.fromiter(self._delayed, np.int64)) & (status == RECORDED)
            status = np.where(is_delayed, np.where(judged.is_modelled, MODELLED, RECOMPUTED), status)
        return status

    def _begin(self, epoch: int) -> tuple[Judged, IndexArray]:
        """The batch that an epoch is in, and its tasks there."""
        judged = self._current
        if judged is None or (epoch >= judged.batch.epochs[1] and epoch < self._cell.epochs):
            batch = next(self._batches, None)
            if batch is None:
                raise WorkFailed(f"cell {self._cell.cell_id}: nothing is recorded of its epoch {epoch}")
            judged = self._current = self._take(batch)
            judged.is_anew = True
            self._shown_then = self._recorded.of_epochs(batch.epochs[0], batch.epochs[1] + 1)
        if epoch >= judged.batch.epochs[1]:
            return judged, np.zeros(0, np.int64)
        where = judged.batch.of_epoch(epoch)
        return judged, np.arange(where.start, where.stop)

    def _ingredients(self, judged: Judged, rows: IndexArray, choices: Choices, lane: int) -> Ingredients:
        found = super()._ingredients(judged, rows, choices, lane)
        if lane == REPLAY:
            ready_s: FloatArray = np.maximum(found.ready_s, self._not_before_s)
            self._delayed.update((judged.batch.first + rows[ready_s > found.ready_s]).tolist())
            found.ready_s = ready_s
        return found

    def _note(self, ended: Ended) -> None:
        super()._note(ended)
        lane = ended.device // self._layout.devices
        for judged in self._window:
            first, last = judged.batch.first, judged.batch.first + len(judged.batch)
            mine = (lane == REPLAY) & (ended.task >= first) & (ended.task < last)
            news = dict.fromkeys((ended.task[mine] - first).tolist())  # unknown and then done: the last word counts
            self.heard += [Heard(judged, at, is_decided=True) for at in news]


def _nobody_waits(_: object) -> None:
    """Outcomes are taken as they become known; nothing is written."""
