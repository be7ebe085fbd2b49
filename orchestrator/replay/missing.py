"""Ingredients that nobody recorded: from a profile, given or fitted to the very run that is replayed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgebed.errors import BadInput
from edgebed.simulation.testbed.chance import device_keys, task_chances
from edgebed.simulation.testbed.hosts import Chosen, Testbed, Work
from edgebed.simulation.testbed.ingredients import FloatArray, IndexArray, Ingredients
from edgebed.simulation.testbed.profile import Profile
from edgebed.types import Site
from orchestrator.plan_file import PlannedCell
from orchestrator.replay.day import Batch
from orchestrator.replay.source import Source
from orchestrator.simulated_profile import stated_profile

IN_SAMPLE = "in-sample"
OUT_OF_SAMPLE = "out-of-sample"
NOT_FITTED = "not fitted"


@dataclass(slots=True)
class Errors:
    """How a profile's ingredients compare with those that were recorded, of one site.

    Attributes:
        tasks: compared. modelled_s, recorded_s, absolute_s: sums over them.
    """

    tasks: int = 0
    modelled_s: float = 0.0
    recorded_s: float = 0.0
    absolute_s: float = 0.0

    def add(self, modelled_s: FloatArray, recorded_s: FloatArray) -> None:
        """Compare where something was recorded."""
        known = np.isfinite(recorded_s)
        self.tasks += int(known.sum())
        self.modelled_s += float(modelled_s[known].sum())
        self.recorded_s += float(recorded_s[known].sum())
        self.absolute_s += float(np.abs(modelled_s[known] - recorded_s[known]).sum())

    def to_plain(self) -> dict[str, float | int | None]:
        """For manifest and report: relative to the recorded mean; None when nothing was compared."""
        total = self.recorded_s
        return {
            "tasks": self.tasks,
            "recorded_mean_s": total / self.tasks if self.tasks else None,
            "bias": (self.modelled_s - total) / total if total > 0 else None,
            "mean_absolute": self.absolute_s / total if total > 0 else None,
        }


class Missing:
    """Fills in what nobody recorded; the profile is only fitted when something is missing.

    Args:
        source: the run that is replayed.
        given: the profile of ``--profile``; None: fit one to that run.

    Raises:
        SchemaMismatch: the given profile is of another workload, model or board.
    """

    def __init__(self, source: Source, given: Profile | None) -> None:
        self._source, self._given = source, given
        self._profile: Profile | None = None
        self._label, self._note = "", ""
        self._errors = {"device": Errors(), "edge": Errors()}
        if given is not None:
            trace = source.trace
            for workload in trace.workloads:
                given.check_fits(workload, trace.model_sha256, trace.boards)
            Testbed(given, trace.plan.devices, trace.plan.edge_servers)

    @property
    def is_used(self) -> bool:
        """Something was missing."""
        return self._profile is not None

    def to_plain(self) -> dict[str, Any] | None:
        """What was used, and how far it is off; None when nothing was missing."""
        if self._profile is None:
            return None
        origin = self._profile.source
        return {
            "kind": origin.kind,
            "sample": self._label,
            "runs": origin.runs,
            "note": self._note,
            "errors": {site: errors.to_plain() for site, errors in self._errors.items()},
        }

    def testbed(self, cell: PlannedCell) -> Testbed:
        """The profile, on the run's hosts; fitted now when it was not given."""
        plan = self._source.trace.plan
        if self._profile is None:
            self._profile = self._given or self._fitted(cell)
            if not self._label:
                own = self._source.trace.run_id in self._profile.source.runs
                calibrated = self._profile.source.kind == "calibrated"
                self._label = IN_SAMPLE if own else OUT_OF_SAMPLE if calibrated else NOT_FITTED
        return Testbed(self._profile, plan.devices, plan.edge_servers)

    def _fitted(self, cell: PlannedCell) -> Profile:
        from orchestrator.calibration.calibrate import calibrate

        try:
            return calibrate([self._source.trace]).profile
        except BadInput as error:
            # Better a stated profile that says so than no answer: rows are flagged, and the note is in the report.
            self._label = NOT_FITTED
            self._note = f"no profile could be fitted to the run ({error}); what boards state was taken instead"
            return stated_profile(self._source.trace.plan, cell.setting)

    def fill(self, batch: Batch, cell: PlannedCell, task_timeout_s: float) -> None:
        """Fill in a batch's missing ingredients, of whole tasks on the device and at every server."""
        testbed = self.testbed(cell)
        work = work_of(batch, np.arange(len(batch)), cell, self._source, task_timeout_s)
        device = testbed.ingredients(work, _all_at(work, Site.DEVICE, 0))
        self._errors["device"].add(device.device_compute_s, np.where(batch.device_row >= 0, batch.device_s, np.nan))
        batch.device_s = np.where(np.isnan(batch.device_s), device.device_compute_s, batch.device_s)
        batch.refusal_s = np.where(np.isnan(batch.refusal_s), device.refusal_s, batch.refusal_s)
        for server in range(batch.server_s.shape[1]):
            edge = testbed.ingredients(work, _all_at(work, Site.EDGE, server))
            recorded = batch.edge_row[:, server] >= 0
            total_s = batch.uplink_s[:, server] + batch.server_s[:, server] + batch.downlink_s[:, server]
            modelled_s = edge.uplink_s + edge.server_compute_s + edge.downlink_s
            self._errors["edge"].add(modelled_s, np.where(recorded, total_s, np.nan))
            for mine, theirs in (
                (batch.uplink_s, edge.uplink_s),
                (batch.hold_s, edge.uplink_hold_s),
                (batch.server_s, edge.server_compute_s),
                (batch.downlink_s, edge.downlink_s),
            ):
                mine[:, server] = np.where(recorded & ~np.isnan(mine[:, server]), mine[:, server], theirs)

    def split(
        self, batch: Batch, rows: IndexArray, chosen: Chosen, cell: PlannedCell, task_timeout_s: float
    ) -> Ingredients:
        """Ingredients of split tasks: only the slower part of one is ever recorded, so all of it is modelled."""
        work = work_of(batch, rows, cell, self._source, task_timeout_s)
        return self.testbed(cell).ingredients(work, chosen)


def work_of(batch: Batch, rows: IndexArray, cell: PlannedCell, source: Source, task_timeout_s: float) -> Work:
    """Tasks of a batch as a testbed knows them."""
    devices = [host.name for host in source.trace.plan.devices]
    keys = device_keys(cell.seed, devices, "task")
    slot, arrived_s, frames = batch.slot[rows], batch.arrived_s[rows], batch.frames[rows]
    return Work(
        task=rows,
        device=slot,
        arrived_s=arrived_s,
        limit_s=arrived_s + task_timeout_s,
        frames=frames,
        frame_bytes=(batch.payload_bytes[rows] - 4) / frames - 4,  # a packed clip: see `Work.bytes_of`
        chances=task_chances(keys[slot], batch.number[rows]),
    )


def _all_at(work: Work, site: Site, server: int) -> Chosen:
    count = len(work)
    return Chosen(
        ready_s=work.arrived_s,
        site=np.full(count, int(site)),
        server=np.full(count, server),
        channel=np.zeros(count, np.int64),
        edge_fraction=np.full(count, 1.0 if site is Site.EDGE else 0.0),
    )
