"""Who decides in a reevaluation: the record itself, a policy in the controller, or one on each device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edge_server.controller.deciding import CentralPolicy
from edgebed.errors import WorkFailed
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.ingredients import Columns, FloatArray, IndexArray
from edgebed.types import DecidedBy, Decision, Float32Array, Observation, ObservationSpec, Site
from orchestrator.backends.simulated_deciding import OwnPolicies, put
from orchestrator.backends.simulated_record import EpochRow


@dataclass(slots=True)
class Choices(Columns):
    """What was decided for some tasks, ``[n]`` arrays, as `orchestrator.replay.day.Batch` has it."""

    site: IndexArray
    server: IndexArray
    channel: IndexArray
    fraction: FloatArray


def choices_of(decision: Decision, slot: IndexArray) -> Choices:
    """What a decision says for tasks of these slots."""
    site = decision.site[slot].astype(np.int64)
    return Choices(
        site=site,
        server=np.where(site == int(Site.DEVICE), -1, decision.server[slot]),
        channel=np.where(site == int(Site.DEVICE), 0, decision.channel[slot]),
        fraction=decision.edge_fraction[slot].astype(np.float64),
    )


class PolicyDecider:
    """A policy that decides at ticks.

    Args:
        cell: of the replay; its placement says where the policy decides.
        content: the folder with the files that policies need.

    Attributes:
        rows: of ``epochs.parquet`` since they were last taken.
        version: of the policy.
    """

    def __init__(self, cell: CellSpec, content: Path) -> None:
        self._cell = cell
        self._spec = ObservationSpec(tuple(cell.devices), tuple(cell.servers), cell.channels.count)
        self._is_central = cell.placement != "device"
        self.rows: list[EpochRow] = []
        self.version = ""
        self.by = DecidedBy.CONTROLLER if self._is_central else DecidedBy.DEVICE
        if self._is_central:
            self._central = CentralPolicy(cell, self._spec, content)
        else:
            fail = partial(_fail, cell)
            self._own = OwnPolicies(cell, content, cell.policy_name, cell.policy_options, "policy", fail)

    def decide(self, seen: Observation, views: Float32Array, slot: IndexArray) -> Choices:
        """Decide at a tick, or for a device at an arrival.

        Args:
            seen: by everyone.
            views: ``[slots, server features]``, what each device knows of the servers.
            slot: ``[n]``, of the tasks to be decided.

        Raises:
            WorkFailed: the policy raised an error.
        """
        decision = self._jointly(seen) if self._is_central else self._each(seen, views, slot)
        return choices_of(decision, slot)

    def _jointly(self, seen: Observation) -> Decision:
        try:
            decided = self._central.decide(seen)
        except Exception as error:  # a policy is someone's research code: it may raise anything
            _fail(self._cell, None, error, seen.epoch)
        self.version = decided.policy_version
        action = decided.decision.table().ravel()
        shown: Float32Array = np.concatenate([seen.values.ravel(), seen.server])
        self.rows.append(EpochRow(seen.epoch, "", shown, action, self.version, self.by.value))
        return decided.decision

    def _each(self, seen: Observation, views: Float32Array, slot: IndexArray) -> Decision:
        decision = Decision.local(len(self._cell.devices))
        everyone = range(len(self._cell.devices)) if self._cell.decide_at == "tick" else sorted(set(slot.tolist()))
        for each in everyone:
            own = Observation(
                seen.values, seen.present, seen.age_s, views[each], seen.allowed_actions, epoch=seen.epoch
            )
            chosen = self._own.choose(own, each)
            assert chosen is not None, "a policy that fails ends the replay"
            put(decision, each, chosen[0])
            self.version = chosen[1]
            shown: Float32Array = np.concatenate([seen.values[each], views[each]])
            action = decision.table()[each]
            name = self._cell.devices[each]
            self.rows.append(EpochRow(seen.epoch, name, shown, action, self.version, self.by.value))
        return decision

    def conclude(self, seen: Observation, views: Float32Array) -> None:
        """Note how things stand after the last decision."""
        nothing = np.zeros(0, np.float32)
        if self._is_central:
            shown: Float32Array = np.concatenate([seen.values.ravel(), seen.server])
            self.rows.append(EpochRow(seen.epoch, "", shown, nothing))
            return
        for each, name in enumerate(self._cell.devices):
            own: Float32Array = np.concatenate([seen.values[each], views[each]])
            self.rows.append(EpochRow(seen.epoch, name, own, nothing))


def _fail(cell: CellSpec, slot: int | None, error: Exception, epoch: int | None = None) -> None:
    where = "" if slot is None else f" on {cell.devices[slot]}"
    when = "" if epoch is None else f" in epoch {epoch}"
    raise WorkFailed(f"policy {cell.policy} failed{where}{when} of cell {cell.cell_id}: {error!r}") from error
