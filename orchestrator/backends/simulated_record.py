"""What is known of each planned task of a simulated cell, as arrays; filled in as the cell goes on."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from edgebed.simulation.testbed.ingredients import NOWHERE, Ended, FloatArray, IndexArray
from edgebed.trace.schema import STAGES
from edgebed.types import BoolArray, DecidedBy, Float32Array

DECIDERS = tuple(DecidedBy)
"""The index is the code in `Record.decided_by`."""

OPEN = -1


@dataclass(slots=True)
class Record:
    """``[n]`` arrays, a planned task each; codes and indices are negative, numbers NaN while they are not known.

    Attributes:
        requested_site, requested_server, requested_channel: what was asked for.
        decided_by: code, see `DECIDERS`. version: index into ``versions``.
        outcome: code of `edgebed.simulation.testbed.ingredients.OUTCOMES`; the other results as `Ended` has them.
        versions: of policies that decided.
    """

    requested_site: IndexArray
    requested_server: IndexArray
    requested_channel: IndexArray
    decision_epoch: IndexArray
    decided_by: IndexArray
    version: IndexArray
    decision_compute_s: FloatArray
    ready_s: FloatArray
    is_late: BoolArray
    outcome: IndexArray
    reason: IndexArray
    site: IndexArray
    server: IndexArray
    edge_frames: IndexArray
    latency_s: FloatArray
    stages: FloatArray
    device_busy_s: FloatArray
    server_busy_s: FloatArray
    air_s: FloatArray
    granted_bps: FloatArray
    has_resources: BoolArray
    versions: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, tasks: int) -> Record:
        """Nothing is known of so many tasks."""

        def codes() -> IndexArray:
            return np.full(tasks, NOWHERE, np.int64)

        def unknown() -> FloatArray:
            return np.full(tasks, np.nan)

        return cls(
            codes(), codes(), codes(), codes(), codes(), codes(), unknown(), unknown(), np.zeros(tasks, np.bool_),
            codes(), codes(), codes(), codes(), codes(), unknown(), np.zeros((tasks, len(STAGES))), unknown(),
            unknown(), unknown(), unknown(), np.zeros(tasks, np.bool_),
        )  # fmt: skip

    def at(self, rows: IndexArray) -> Record:
        """The same of some of the tasks; to look at."""
        arrays = (each.name for each in fields(self) if each.name != "versions")
        return Record(**{name: getattr(self, name)[rows] for name in arrays}, versions=self.versions)

    def version_code(self, version: str) -> int:
        """The index of a policy's version."""
        if version not in self.versions:
            self.versions.append(version)
        return self.versions.index(version)

    def forget_decisions(self, rows: IndexArray) -> None:
        """Whoever knew what was decided about some tasks has died."""
        for name in (
            *("requested_site", "requested_server", "requested_channel"),
            *("decision_epoch", "decided_by", "version"),
        ):
            getattr(self, name)[rows] = NOWHERE
        self.decision_compute_s[rows] = self.ready_s[rows] = np.nan
        self.is_late[rows] = False

    def note(self, ended: Ended) -> None:
        """Tasks have ended; the last word on one counts."""
        where = ended.task
        for name in (
            *("outcome", "reason", "site", "server", "edge_frames", "latency_s", "stages"),
            *("device_busy_s", "server_busy_s", "air_s", "granted_bps", "has_resources"),
        ):
            getattr(self, name)[where] = getattr(ended, name)


@dataclass(frozen=True, slots=True)
class EpochRow:
    """A decision for ``epochs.parquet``.

    Attributes:
        device: its name; empty for a joint decision.
        action: empty: nobody decided any more, the cell's last observation.
        decided_by: empty likewise.
    """

    epoch: int
    device: str
    observation: Float32Array
    action: Float32Array
    version: str = ""
    decided_by: str = ""
    compute_s: float = np.nan
