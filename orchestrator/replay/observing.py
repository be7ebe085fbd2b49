"""What a policy is shown in a replay: what hosts saw on the recorded day, but for the queues that differ by now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.testbed.features import Waiting, device_features, server_features
from edgebed.simulation.testbed.hosts import Testbed
from edgebed.simulation.testbed.pipeline import Load
from edgebed.trace.runs import sql_file, sql_text
from edgebed.types import Observation, ObservationSpec
from orchestrator.plan_file import PlannedCell
from orchestrator.replay.day import Batch

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Floats = NDArray[np.float32]
RECORD, REPLAY = 0, 1
"""The lanes: the recorded decisions, and those of the policy."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was recorded of one epoch; NaN where nothing was.

    Attributes:
        values: ``[slots, features]``. server: ``[slots, server features]``, as each slot's decider knew the servers.
    """

    values: Floats
    server: Floats


class RecordedViews:
    """The observations of a recorded cell, epoch by epoch.

    Args:
        connection: to a database on disk; they are sorted there.
        file: ``epochs.parquet`` of its run.
        cell: the recorded one.
        spec: what observations look like.
    """

    def __init__(self, connection: DuckDBPyConnection, file: Path, cell: PlannedCell, spec: ObservationSpec) -> None:
        self._connection, self._spec = connection, spec
        connection.execute(
            "CREATE OR REPLACE TABLE seen AS SELECT epoch, coalesce(slot, -1) AS slot, observation "  # noqa: S608
            f"FROM read_parquet({sql_file(file)}) LEFT JOIN device ON device.name = device_id "
            f"WHERE cell_id = {sql_text(cell.cell_id)} AND observation IS NOT NULL ORDER BY epoch"
        )

    def of_epochs(self, begin: int, end: int) -> dict[int, Seen]:
        """What was recorded of some epochs."""
        spec = self._spec
        found: dict[int, Seen] = {}
        shape = (len(spec.slots), len(spec.device_features))
        rows = self._connection.execute(
            "SELECT epoch, slot, observation FROM seen WHERE epoch >= ? AND epoch < ?", (begin, end)
        ).fetchnumpy()
        joint_width = shape[0] * shape[1] + len(spec.server_names)
        own_width = shape[1] + len(spec.server_names)
        for epoch, slot, flat in zip(rows["epoch"].tolist(), rows["slot"].tolist(), rows["observation"], strict=True):
            seen = found.get(epoch)
            if seen is None:
                nothing = np.full((shape[0], len(spec.server_names)), np.nan, np.float32)
                seen = found[epoch] = Seen(np.full(shape, np.nan, np.float32), nothing)
            numbers = np.asarray(flat, np.float32)
            if slot < 0 and len(numbers) == joint_width:
                seen.values[:] = numbers[: shape[0] * shape[1]].reshape(shape)
                seen.server[:] = numbers[shape[0] * shape[1] :]
            elif slot >= 0 and len(numbers) == own_width:
                seen.values[slot] = numbers[: shape[1]]
                seen.server[slot] = numbers[shape[1] :]
        return found


class Observer:
    """Builds observations.

    Both lanes are computed by the same rules. A feature that comes out the same in both was not changed by anything
    that was decided differently: it is shown as hosts recorded it. One that differs is shown as computed.

    Args:
        testbed: the run's hosts as stated; only what is the same in both lanes comes from it.
        spec: what observations look like.
        channel_bps: ``[servers]``, of a channel that one upload has for itself; 0: not shaped.
    """

    def __init__(self, testbed: Testbed, spec: ObservationSpec, channel_bps: NDArray[np.float64]) -> None:
        self._testbed, self._spec, self._channel_bps = testbed, spec, channel_bps
        slots = len(spec.slots)
        self._present = np.ones(slots, np.bool_)
        self._age_s = np.zeros(slots, np.float32)
        self._allowed = np.ones((slots, spec.actions), np.bool_)

    def show(self, epoch: int, waiting: Waiting, load: Load, seen: Seen | None) -> tuple[Observation, Floats]:
        """What is shown at a tick: the observation, and the servers' features as each slot knows them."""
        computed = device_features(self._testbed, waiting, load)
        server = server_features(self._testbed, load, self._spec.channels, self._channel_bps)
        values, shared = computed[REPLAY], server[REPLAY]
        views = np.broadcast_to(shared, (len(values), len(shared)))
        if seen is not None:
            is_recorded = (computed[RECORD] == computed[REPLAY]) & ~np.isnan(seen.values)
            values = np.where(is_recorded, seen.values, values)
            is_same = (server[RECORD] == server[REPLAY]) & ~np.isnan(seen.server)
            views = np.where(is_same, seen.server, views)
        known = np.flatnonzero(~np.isnan(views).any(axis=1))
        shown = views[known[0]] if len(known) else shared
        observation = Observation(values, self._present, self._age_s, shown, self._allowed, epoch=epoch)
        return observation, views


def waiting_in(batch: Batch, rows: NDArray[np.int64], now_s: float, slots: int) -> Waiting:
    """The tasks that wait at a tick, the same in both lanes: every feature ``[2, slots]``."""
    slot = batch.slot[rows]

    def both(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.broadcast_to(values.astype(np.float64, copy=False), (2, slots))

    def total(values: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        return both(np.bincount(slot, values, slots))

    least_s, waited_s = np.full(slots, np.inf), np.zeros(slots)
    np.minimum.at(least_s, slot, batch.deadline_s[rows])
    np.maximum.at(waited_s, slot, now_s - batch.arrived_s[rows])
    return Waiting(
        tasks=total(),
        frames=total(batch.frames[rows].astype(np.float64)),
        bytes=total(np.nan_to_num(batch.payload_bytes[rows])),
        deadline_s=both(np.where(np.isfinite(least_s), least_s, 0.0)),
        waited_s=both(waited_s),
    )
