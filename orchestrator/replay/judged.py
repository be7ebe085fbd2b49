"""Tasks of a batch while both lanes work on them: what each lane came to, and in the end what a row may claim.

A row is ``recorded`` when it was decided as on the recorded day and every queue that it met was as long as then;
``recomputed`` when its ingredients were recorded and its queues were not; ``modelled`` when an ingredient was not.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from edgebed.simulation.testbed.ingredients import DONE, NOWHERE, Ended, FloatArray, IndexArray
from edgebed.trace.schema import STAGES
from edgebed.types import BoolArray, Site
from orchestrator.replay.day import Batch
from orchestrator.replay.deciders import Choices
from orchestrator.replay.observing import RECORD, REPLAY
from orchestrator.replay.reading import NO_ROW

RECORDED, RECOMPUTED, MODELLED = range(3)
STATUS = ("recorded", "recomputed", "modelled")
"""Flags; the index is the code."""

OPEN = -1
_SAME_FRACTION = 1e-6  # decisions are 32-bit numbers


@dataclass(slots=True)
class QueueError:
    """How queues recomputed with the recorded decisions compare with the recorded ones: latency of done tasks."""

    tasks: int = 0
    recorded_s: float = 0.0
    computed_s: float = 0.0
    absolute_s: float = 0.0

    def add(self, computed_s: FloatArray, recorded_s: FloatArray) -> None:
        """Compare where both are known."""
        known = np.isfinite(computed_s) & np.isfinite(recorded_s)
        self.tasks += int(known.sum())
        self.recorded_s += float(recorded_s[known].sum())
        self.computed_s += float(computed_s[known].sum())
        self.absolute_s += float(np.abs(computed_s[known] - recorded_s[known]).sum())

    def to_plain(self) -> dict[str, float | int | None]:
        """For manifest and report, relative to the recorded mean latency; None when nothing was compared."""
        total = self.recorded_s
        return {
            "tasks": self.tasks,
            "bias": (self.computed_s - total) / total if total > 0 else None,
            "mean_absolute": self.absolute_s / total if total > 0 else None,
        }


def _codes(tasks: int) -> IndexArray:
    return np.full(tasks, NOWHERE, np.int64)


@dataclass(slots=True)
class Lane:
    """What a lane came to, ``[n]`` each; see `edgebed.simulation.testbed.ingredients.Ended`."""

    outcome: IndexArray
    reason: IndexArray
    site: IndexArray
    server: IndexArray
    edge_frames: IndexArray
    decision_s: FloatArray
    latency_s: FloatArray
    stages: FloatArray
    device_busy_s: FloatArray
    server_busy_s: FloatArray
    air_s: FloatArray

    @classmethod
    def of(cls, tasks: int) -> Lane:
        """Nothing is known of so many tasks."""

        def unknown() -> FloatArray:
            return np.full(tasks, np.nan)

        stages, outcome = np.zeros((tasks, len(STAGES))), np.full(tasks, OPEN, np.int64)
        return cls(
            *(outcome, _codes(tasks), _codes(tasks), _codes(tasks), _codes(tasks), unknown(), unknown(), stages),
            *(unknown(), unknown(), unknown()),
        )

    def part(self, rows: slice) -> Lane:
        """Of some of the tasks; the same arrays."""
        return Lane(*(getattr(self, each.name)[rows] for each in fields(self)))


@dataclass(frozen=True, slots=True)
class Stock:
    """What queues ask of a batch again and again, ``[n]``; 0 where it is not known.

    Attributes:
        servers: of which things at the edge are known, 1 at least.
        ready_s: when a decision was known. To the nanosecond: tasks that were decided together queue up in the order of
            their arrival, whatever the last digits of a sum of two instants are.
        device_s: see `Batch`. uplink_s, hold_s, server_s, downlink_s: ``[n * servers]``.
        lacks_device, lacks_edge: it is not known.
    """

    servers: int
    ready_s: FloatArray
    limit_s: FloatArray
    payload_bytes: FloatArray
    device_s: FloatArray
    uplink_s: FloatArray
    hold_s: FloatArray
    server_s: FloatArray
    downlink_s: FloatArray
    lacks_device: BoolArray
    lacks_edge: BoolArray

    @classmethod
    def of(cls, batch: Batch, task_timeout_s: float) -> Stock:
        """That of a batch as it is now."""

        def edge(values: FloatArray) -> FloatArray:
            return np.nan_to_num(values).ravel() if values.shape[1] else np.zeros(len(batch))

        return cls(
            servers=batch.uplink_s.shape[1] or 1,
            ready_s=np.round(batch.arrived_s + batch.decision_s, 9),
            limit_s=batch.arrived_s + task_timeout_s,
            payload_bytes=np.nan_to_num(batch.payload_bytes),
            device_s=np.nan_to_num(batch.device_s),
            uplink_s=edge(batch.uplink_s),
            hold_s=edge(batch.hold_s),
            server_s=edge(batch.server_s),
            downlink_s=edge(batch.downlink_s),
            lacks_device=np.isnan(batch.device_s),
            lacks_edge=np.isnan(batch.uplink_s).ravel(),
        )

    def lacks(self, rows: IndexArray, at_edge: BoolArray, server: IndexArray) -> bool:
        """Is something not known that tasks at the edge, or on their device, take?"""
        if self.lacks_device[rows[~at_edge]].any():
            return True
        return bool(self.lacks_edge[rows[at_edge] * self.servers + server[at_edge]].any())


_FROM_ENDED = (
    *("outcome", "reason", "site", "edge_frames", "decision_s", "latency_s", "stages"),
    *("device_busy_s", "server_busy_s", "air_s"),
)


@dataclass(slots=True)
class Judged:
    """A batch in both lanes.

    Attributes:
        stock: of the batch, once somebody asked for it; as long as nothing is filled in it stays as it is.
        both: the lanes one behind the other. lanes: `RECORD` and `REPLAY`.
        choices: of the replay, by task; -1 until it is decided.
        is_modelled: an ingredient of what the replay chose was not recorded.
        is_filled: the batch's missing ingredients have been filled in.
        version: of the policy, index into the replay's versions.
        over_s: no word about any of its tasks comes later.
        is_anew: somebody decides anew: then a row whose stages nobody recorded does not tell what it would have met.
    """

    batch: Batch
    choices: Choices
    is_modelled: BoolArray
    version: IndexArray
    stock: Stock | None = None
    both: Lane = field(init=False)
    lanes: tuple[Lane, Lane] = field(init=False)
    is_filled: bool = False
    over_s: float = field(default=0.0)
    open: int = 0
    is_anew: bool = True

    @classmethod
    def of(cls, batch: Batch) -> Judged:
        """A batch of which nothing is decided yet."""
        count = len(batch)
        nothing = Choices(_codes(count), _codes(count), np.zeros(count, np.int64), np.full(count, np.nan))
        return cls(batch, nothing, np.zeros(count, np.bool_), _codes(count))

    def __post_init__(self) -> None:
        """Make room for both lanes."""
        count = len(self.batch)
        self.both = Lane.of(2 * count)
        self.lanes = self.both.part(slice(count)), self.both.part(slice(count, 2 * count))

    def note(self, lane: IndexArray, ended: Ended, servers: int) -> None:
        """Tasks of this batch have ended, each in a lane; the last word on one counts."""
        where, found = lane * len(self.batch) + (ended.task - self.batch.first), self.both
        self.open -= int((found.outcome[where] == OPEN).sum())
        for name in _FROM_ENDED:
            getattr(found, name)[where] = getattr(ended, name)
        found.server[where] = np.where(ended.server == NOWHERE, NOWHERE, ended.server % servers)

    def status(self) -> IndexArray:
        """What each row may claim."""
        batch, choices = self.batch, self.choices
        one, other = self.lanes[RECORD], self.lanes[REPLAY]
        is_placed = (choices.server == batch.server) & (choices.channel == batch.channel)
        is_placed &= (choices.site != int(Site.SPLIT)) | (np.abs(choices.fraction - batch.fraction) < _SAME_FRACTION)
        same_choice = (choices.site == batch.site) & (is_placed | (choices.site == int(Site.DEVICE)))
        same_way = (one.outcome == other.outcome) & (one.stages == other.stages).all(axis=1)
        same_way &= (one.site == other.site) & (one.reason == other.reason)
        is_known = batch.is_timed | (not self.is_anew)
        is_recorded = (same_choice & same_way & is_known) | ~batch.is_decided
        return np.where(is_recorded, RECORDED, np.where(self.is_modelled, MODELLED, RECOMPUTED))

    def ingredient_row(self, status: IndexArray) -> IndexArray:
        """In which recorded row the ingredients of a recomputed one were; `NO_ROW` for the others."""
        batch, site = self.batch, self.choices.site
        server = np.maximum(self.choices.server, 0)
        at_edge = batch.edge_row[np.arange(len(batch)), server] if batch.edge_row.shape[1] else batch.device_row
        found = np.where(site == int(Site.EDGE), at_edge, batch.device_row)
        return np.where(status == RECOMPUTED, found, NO_ROW)

    def note_queue_error(self, error: QueueError) -> None:
        """Compare the record's lane with the record."""
        lane = self.lanes[RECORD]
        is_known = (lane.outcome == DONE) & (self.batch.outcome == DONE)
        error.add(np.where(is_known, lane.latency_s, np.nan), self.batch.latency_s)
