"""One recorded cell with other decisions: two lanes of queues side by side, the record's and the replay's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.hosts import Chosen, Testbed
from edgebed.simulation.testbed.ingredients import NOWHERE, Ended, FloatArray, IndexArray, Ingredients, Layout
from edgebed.simulation.testbed.pipeline import Pipeline
from edgebed.types import Site
from orchestrator.replay.ahead import one_ahead
from orchestrator.replay.day import Batch, RecordedDay
from orchestrator.replay.deciders import Choices, PolicyDecider
from orchestrator.replay.judged import Judged, Stock
from orchestrator.replay.missing import Missing
from orchestrator.replay.observing import RECORD, REPLAY, Observer, RecordedViews, Seen, waiting_in
from orchestrator.replay.queues import SteadyQueues

Queues = SteadyQueues | Pipeline
LANES = 2
"""The record's and the replay's, see `orchestrator.replay.observing`."""


def layout_of(testbed: Testbed, spec: CellSpec) -> Layout:
    """A lane of queues of a recorded cell."""
    # Recorded service times have in them what hosts on shared processors did to each other.
    return replace(testbed.layout_of(spec), processors=(), device_processors=(), server_processors=())


@dataclass(slots=True)
class Policy:
    """A policy that decides anew, and what it is shown."""

    decider: PolicyDecider
    observer: Observer
    views: RecordedViews


class CellReplay:
    """Replays a cell.

    Args:
        day: the recorded one.
        cell: of the replay.
        layout: of a lane of queues.
        queues: both lanes, empty.
        missing: where ingredients come from that nobody recorded.
        policy: None: as recorded.
        finished: told of every batch whose tasks have ended.
        told: of how many tasks have been decided so far.

    Raises (from `run`):
        TooCrowded: these queues cannot do it; event by event it can be done.
    """

    def __init__(
        self,
        day: RecordedDay,
        cell: CellSpec,
        layout: Layout,
        queues: Queues,
        missing: Missing,
        policy: Policy | None,
        finished: Callable[[Judged], None],
        told: Callable[[int], None],
    ) -> None:
        self._day, self._cell, self._layout, self._queues = day, cell, layout, queues
        self._missing, self._policy, self._finished, self._told = missing, policy, finished, told
        self._window: list[Judged] = []
        self._seen: dict[int, Seen] = {}
        self._versions: list[str] = []

    @property
    def versions(self) -> tuple[str, ...]:
        """Of the policy, by the index in `Judged.version`."""
        return tuple(self._versions)

    def run(self) -> None:
        """Replay the whole cell.

        Raises:
            TooCrowded: the queues cannot do it.
            WorkFailed: the policy raised an error.
        """
        for batch in one_ahead(self._day.batches()):
            judged = self._take(batch)
            if self._policy is not None:
                self._seen = self._policy.views.of_epochs(*batch.epochs)
            for epoch in range(*batch.epochs):
                self._epoch(judged, epoch)
            self._told(batch.first + len(batch))
            self._let_go()
        self._conclude()

    def _take(self, batch: Batch) -> Judged:
        """Begin with a batch."""
        judged = Judged.of(batch)
        judged.is_anew = self._policy is not None
        judged.open = 2 * int(batch.is_decided.sum())
        judged.over_s = float(np.max(batch.arrived_s, initial=0.0)) + self._cell.timeouts.task_s
        self._window.append(judged)
        return judged

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _epoch(self, judged: Judged, epoch: int) -> None:
        batch = judged.batch
        for rows, now_s in self._decisions(batch, epoch):
            self._advance(now_s)
            decided = rows[batch.is_decided[rows]]
            choices = self._choose(judged, epoch, rows, decided, now_s)
            self._enter(judged, decided, choices)
            self._submit(judged, decided, choices)

    def _decisions(self, batch: Batch, epoch: int) -> Iterator[tuple[IndexArray, float]]:
        """What is decided together in an epoch, and when."""
        where = batch.of_epoch(epoch)
        rows = np.arange(where.start, where.stop)
        if self._cell.decide_at == "arrival" and self._policy is not None:
            for row in rows:
                yield rows[row - where.start : row - where.start + 1], float(batch.arrived_s[row])
        elif self._cell.decide_at == "arrival":
            yield rows, self._day.start_s + epoch * self._cell.epoch_s
        else:
            yield rows, self._tick_s(epoch)

    def _tick_s(self, epoch: int) -> float:
        return self._day.start_s + (epoch + 1) * self._cell.epoch_s

    def _choose(self, judged: Judged, epoch: int, rows: IndexArray, decided: IndexArray, now_s: float) -> Choices:
        batch = judged.batch
        if self._policy is None:
            return Choices(batch.site[decided], batch.server[decided], batch.channel[decided], batch.fraction[decided])
        waiting = waiting_in(batch, rows, now_s, len(self._cell.devices))
        seen, views = self._policy.observer.show(epoch, waiting, self._queues.load(), self._seen.get(epoch))
        return self._policy.decider.decide(seen, views, batch.slot[decided])

    def _enter(self, judged: Judged, rows: IndexArray, choices: Choices) -> None:
        for name in ("site", "server", "channel", "fraction"):
            getattr(judged.choices, name)[rows] = getattr(choices, name)
        if self._policy is not None:
            version = self._policy.decider.version
            if version not in self._versions:
                self._versions.append(version)
            judged.version[rows] = self._versions.index(version)

    # -- what that needs ----------------------------------------------------------------------------------------------

    def _submit(self, judged: Judged, rows: IndexArray, choices: Choices) -> None:
        if not len(rows):
            return
        batch = judged.batch
        recorded = Choices(batch.site[rows], batch.server[rows], batch.channel[rows], batch.fraction[rows])
        if isinstance(self._queues, SteadyQueues):
            lane = np.repeat(np.array((RECORD, REPLAY)), len(rows))
            both = Choices.joined([recorded, choices])
            self._queues.submit(self._of_lanes(judged, np.concatenate([rows, rows]), both, lane))
            return
        # What a refusal takes is told by the recorded lane before ingredients that only the other lacks are filled in.
        parts = [self._ingredients(judged, rows, recorded, RECORD), self._ingredients(judged, rows, choices, REPLAY)]
        self._queues.submit(Ingredients.joined(parts))

    def _ingredients(self, judged: Judged, rows: IndexArray, choices: Choices, lane: int) -> Ingredients:
        return self._of_lanes(judged, rows, choices, np.full(len(rows), lane))

    def _of_lanes(self, judged: Judged, rows: IndexArray, choices: Choices, lane: IndexArray) -> Ingredients:
        """Of tasks, ``[n]`` rows of a batch, each in its lane."""
        batch = judged.batch
        at_edge = choices.site == int(Site.EDGE)
        server = np.where(at_edge, choices.server, NOWHERE)
        near = np.maximum(server, 0)
        stock = judged.stock or Stock.of(batch, self._cell.timeouts.task_s)
        if not judged.is_filled and stock.lacks(rows, at_edge, near):
            self._missing.fill(batch, self._day.record, self._cell.timeouts.task_s)
            judged.is_filled = True
            stock = Stock.of(batch, self._cell.timeouts.task_s)
        judged.stock = stock
        anew = np.flatnonzero(lane == REPLAY)
        new, is_edge = rows[anew], at_edge[anew]
        from_edge = batch.edge_row[new, near[anew]] < 0 if len(self._cell.servers) else is_edge
        judged.is_modelled[new] = np.where(is_edge, from_edge, batch.device_row[new] < 0)
        slot, frames, at = batch.slot[rows], batch.frames[rows], rows * stock.servers + near
        device_s = stock.device_s[rows]
        found = Ingredients(
            task=batch.first + rows,
            device=lane * self._layout.devices + slot,
            server=np.where(at_edge, lane * self._layout.servers + server, NOWHERE),
            channel=np.where(at_edge, np.minimum(np.maximum(choices.channel, 0), self._layout.channels - 1), 0),
            arrived_s=batch.arrived_s[rows],
            ready_s=np.maximum(stock.ready_s[rows], self._queues.now_s),
            limit_s=stock.limit_s[rows],
            frames=frames,
            edge_frames=np.where(at_edge, frames, 0),
            upload_bytes=np.where(at_edge, stock.payload_bytes[rows], 0.0),
            device_compute_s=device_s,
            uplink_s=stock.uplink_s[at],
            uplink_hold_s=stock.hold_s[at],
            server_compute_s=stock.server_s[at],
            downlink_s=stock.downlink_s[at],
            refusal_s=self._refusal_s(batch, rows),
            fallback_compute_s=device_s,
        )
        split = np.flatnonzero(choices.site == int(Site.SPLIT))
        return self._with_splits(found, judged, rows, choices, split, lane) if len(split) else found

    def _refusal_s(self, batch: Batch, rows: IndexArray) -> FloatArray:
        """Recorded refusals have no stages; a small message there and one back take about what a result does, twice."""
        if isinstance(self._queues, SteadyQueues):
            return np.zeros(len(rows))  # nobody is refused there
        known = batch.refusal_s[rows]
        if not np.isnan(known).any():
            return known
        back_s = batch.downlink_s[np.isfinite(batch.downlink_s)]
        return np.where(np.isnan(known), 2 * float(np.median(back_s)) if len(back_s) else 0.0, known)

    def _with_splits(
        self,
        found: Ingredients,
        judged: Judged,
        rows: IndexArray,
        choices: Choices,
        split: IndexArray,
        lane: IndexArray,
    ) -> Ingredients:
        batch, some = judged.batch, rows[split]
        chosen = Chosen(
            ready_s=found.ready_s[split],
            site=choices.site[split],
            server=choices.server[split],
            channel=choices.channel[split],
            edge_fraction=np.nan_to_num(choices.fraction[split]),
        )
        made = self._missing.split(batch, some, chosen, self._day.record, self._cell.timeouts.task_s)
        for name in (
            *("edge_frames", "upload_bytes", "device_compute_s", "uplink_s", "uplink_hold_s", "server_compute_s"),
            *("downlink_s", "refusal_s", "fallback_compute_s"),
        ):
            getattr(found, name)[split] = getattr(made, name)
        found.server[split] = lane[split] * self._layout.servers + choices.server[split]
        found.channel[split] = np.clip(choices.channel[split], 0, self._layout.channels - 1)
        judged.is_modelled[some[lane[split] == REPLAY]] = True
        return found

    # -- time ---------------------------------------------------------------------------------------------------------

    def _advance(self, until_s: float) -> None:
        self._note(self._queues.advance(max(until_s, self._queues.now_s)))

    def _note(self, ended: Ended) -> None:
        if not len(ended):
            return
        lane = ended.device // self._layout.devices
        for judged in self._window:
            first, last = judged.batch.first, judged.batch.first + len(judged.batch)
            inside = (ended.task >= first) & (ended.task < last)
            if inside.all():
                judged.note(lane, ended, self._layout.servers or 1)
            elif inside.any():
                judged.note(lane[inside], ended.take(inside), self._layout.servers or 1)

    def _let_go(self) -> None:
        """Hand on batches of which no word can come any more."""
        while self._window and self._is_over(self._window[0]):
            self._finished(self._window.pop(0))

    def _is_over(self, judged: Judged) -> bool:
        slowest_s = float(np.nanmax(judged.batch.downlink_s, initial=0.0)) if len(judged.batch) else 0.0
        return judged.open == 0 and self._queues.now_s > judged.over_s + slowest_s

    def _conclude(self) -> None:
        last = self._day.epochs
        if self._policy is not None:
            self._advance(self._tick_s(last))
            batch = self._window[-1].batch if self._window else None
            if batch is not None:
                nobody = np.zeros(0, np.int64)
                waiting = waiting_in(batch, nobody, self._tick_s(last), len(self._cell.devices))
                seen = self._policy.views.of_epochs(last, last + 1).get(last)
                self._policy.decider.conclude(*self._policy.observer.show(last, waiting, self._queues.load(), seen))
        self._note(self._queues.advance(math.inf))
        for judged in self._window:
            self._finished(judged)
        self._window.clear()
