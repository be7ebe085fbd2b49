"""Tasks of a batch while both lanes work on them: what each lane came to, and in the end what a row may claim.

A row is ``recorded`` when it was decided as on the recorded day and every queue that it met was as long as then;
``recomputed`` when its ingredients were recorded and its queues were not; ``modelled`` when an ingredient was not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgebed.simulation.testbed.ingredients import DONE, NOWHERE, Ended, FloatArray, IndexArray
from edgebed.trace.schema import STAGES
from edgebed.types import BoolArray, Site
from orchestrator.replay.day import NO_ROW, Batch
from orchestrator.replay.deciders import Choices
from orchestrator.replay.observing import RECORD, REPLAY

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

        def codes() -> IndexArray:
            return np.full(tasks, NOWHERE, np.int64)

        stages = np.zeros((tasks, len(STAGES)))
        outcome = np.full(tasks, OPEN, np.int64)
        return cls(
            outcome, codes(), codes(), codes(), codes(), unknown(), unknown(), stages, unknown(), unknown(), unknown()
        )


_FROM_ENDED = (
    *("outcome", "reason", "site", "edge_frames", "decision_s", "latency_s", "stages"),
    *("device_busy_s", "server_busy_s", "air_s"),
)


@dataclass(slots=True)
class Judged:
    """A batch in both lanes.

    Attributes:
        lanes: `RECORD` and `REPLAY`.
        choices: of the replay, by task; -1 until it is decided.
        is_modelled: an ingredient of what the replay chose was not recorded.
        is_filled: the batch's missing ingredients have been filled in.
        version: of the policy, index into the replay's versions.
        over_s: no word about any of its tasks comes later.
        is_anew: somebody decides anew: then a row whose stages nobody recorded does not tell what it would have met.
    """

    batch: Batch
    lanes: tuple[Lane, Lane]
    choices: Choices
    is_modelled: BoolArray
    version: IndexArray
    is_filled: bool = False
    over_s: float = field(default=0.0)
    open: int = 0
    is_anew: bool = True

    @classmethod
    def of(cls, batch: Batch) -> Judged:
        """A batch of which nothing is decided yet."""
        count = len(batch)
        nothing = Choices(_codes(count), _codes(count), np.zeros(count, np.int64), np.full(count, np.nan))
        lanes = (Lane.of(count), Lane.of(count))
        return cls(batch, lanes, nothing, np.zeros(count, np.bool_), _codes(count))

    def note(self, lane: int, ended: Ended, servers: int) -> None:
        """Tasks of this batch have ended in a lane; the last word on one counts."""
        where, found = ended.task - self.batch.first, self.lanes[lane]
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
