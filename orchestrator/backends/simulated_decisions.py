"""From decisions to tasks in the queues of a simulated cell: when they are known, who falls back, what is recorded."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgebed.simulation.testbed.chance import decision_chances, device_keys
from edgebed.simulation.testbed.hosts import Chosen
from edgebed.simulation.testbed.ingredients import FloatArray, IndexArray
from edgebed.simulation.testbed.profile import draw
from edgebed.types import BoolArray, DecidedBy, Decision, IntArray, Observation
from orchestrator.backends.simulated_deciding import Answer, OwnPolicies, executable, flat, put
from orchestrator.backends.simulated_record import DECIDERS, EpochRow

if TYPE_CHECKING:
    from orchestrator.backends.simulated_cell import SimulatedCell


class Decisions:
    """The decisions of one cell.

    Args:
        simulated: the cell.
        content: the folder of the files that policies need.
    """

    def __init__(self, simulated: SimulatedCell, content: Path) -> None:
        cell = simulated.cell
        self._simulated, self._cell, self._record = simulated, cell, simulated.record
        self._keys = device_keys(cell.seed, cell.devices, "decision")
        self._controller_key = device_keys(cell.seed, [""], "decision")
        own = partial(OwnPolicies, cell, content)
        self._fallback = own(cell.fallback_policy, {}, "fallback", self._policy_failed)
        self._own = own(cell.policy_name, cell.policy_options, "policy", self._policy_failed)

    def jointly(
        self, seen: Observation, decision: Decision | None, by: DecidedBy, version: str
    ) -> tuple[Decision, IntArray]:
        """One decision for all devices at a tick; where it comes too late, the fallback policy decides.

        Args:
            seen: what it answers.
            decision: None: nobody has decided.
            by: who has.
            version: of the policy.

        Returns:
            What will be executed, and how many tasks each slot has for it.
        """
        epoch, cell, simulated = seen.epoch, self._cell, self._simulated
        rows = simulated.outages.waiting(simulated.tasks.of_epoch(epoch))
        delay_s, compute_s = self._joint_delay(epoch)
        if decision is None:
            delay_s = np.full_like(delay_s, math.inf)
        else:
            action = decision.table().ravel()
            simulated.epoch_rows.append(EpochRow(epoch, "", flat(seen), action, version, by.value, compute_s))
        delay_s, give_up_s = simulated.hindrances.waits(delay_s)
        is_late = delay_s > give_up_s
        executed = executable(decision or Decision.local(len(cell.devices)))
        waiting = np.bincount(simulated.tasks.slot[rows], minlength=len(cell.devices))
        fallback_versions = self._fall_back(seen, executed, is_late & (waiting > 0))
        own_s = self._own_delay(epoch)
        answer = Answer(
            decision=executed,
            ready_s=simulated.tick_s(epoch) + np.where(is_late, give_up_s + own_s, delay_s),
            by=np.where(is_late, DECIDERS.index(DecidedBy.FALLBACK), DECIDERS.index(by)),
            version=np.where(is_late, fallback_versions, self._record.version_code(version) if decision else 0),
            compute_s=np.where(is_late, self._own_compute(epoch), compute_s),
            is_late=is_late,
        )
        self._carry_out(rows, epoch, answer)
        return executed, waiting.astype(np.int32)

    def _fall_back(self, seen: Observation, decision: Decision, where: BoolArray) -> IndexArray:
        """Enter what the fallback policy decides; returns the code of its version, ``[slots]``."""
        versions = np.zeros(len(where), np.int64)
        compute_s = self._own_compute(seen.epoch)
        for slot in np.flatnonzero(where).tolist():
            chosen = self._fallback.choose(seen, slot)
            put(decision, slot, chosen[0] if chosen else None)
            version = chosen[1] if chosen else ""
            versions[slot] = self._record.version_code(version)
            self._note_own(seen, decision, slot, version, DecidedBy.FALLBACK, float(compute_s[slot]))
        return versions

    def by_each(self, seen: Observation, rows: IndexArray, slots: list[int]) -> None:
        """Each of some devices decides for itself, now, for those of these tasks that are its own."""
        devices = len(self._cell.devices)
        decision = Decision.local(devices)
        by, versions = np.zeros(devices, np.int64), np.zeros(devices, np.int64)
        which = self._simulated.tasks.index[rows[0]] if self._cell.decide_at == "arrival" else seen.epoch
        delay_s, compute_s = self._own_delay(which), self._own_compute(which)
        for slot in slots:
            chosen, who = self._own.choose(seen, slot), DecidedBy.DEVICE
            if chosen is None:
                chosen, who = self._fallback.choose(seen, slot), DecidedBy.FALLBACK
            put(decision, slot, chosen[0] if chosen else None)
            version = chosen[1] if chosen else ""
            by[slot], versions[slot] = DECIDERS.index(who), self._record.version_code(version)
            self._note_own(seen, decision, slot, version, who, float(compute_s[slot]))
        ready_s = self._simulated.pipeline.now_s + delay_s
        answer = Answer(executable(decision), ready_s, by, versions, compute_s, np.zeros(devices, np.bool_))
        self._carry_out(rows, seen.epoch, answer)

    def _note_own(
        self, seen: Observation, decision: Decision, slot: int, version: str, by: DecidedBy, compute_s: float
    ) -> None:
        action = np.array(
            [
                decision.site[slot], decision.server[slot], decision.channel[slot], decision.edge_fraction[slot],
                decision.cpu_fraction[slot], decision.power_fraction[slot],
            ],
            np.float32,
        )  # fmt: skip
        shown = np.concatenate([seen.values[slot], seen.server])
        name = self._cell.devices[slot]
        self._simulated.epoch_rows.append(EpochRow(seen.epoch, name, shown, action, version, by.value, compute_s))

    def _carry_out(self, rows: IndexArray, epoch: int, answer: Answer) -> None:
        simulated, record, decision = self._simulated, self._record, answer.decision
        slot = simulated.tasks.slot[rows]
        record.requested_site[rows] = decision.site[slot]
        record.requested_server[rows] = decision.server[slot]
        record.requested_channel[rows] = decision.channel[slot]
        record.decision_epoch[rows] = epoch
        record.decided_by[rows], record.version[rows] = answer.by[slot], answer.version[slot]
        record.decision_compute_s[rows], record.is_late[rows] = answer.compute_s[slot], answer.is_late[slot]
        record.ready_s[rows] = ready_s = simulated.hindrances.awake_s(slot, answer.ready_s[slot])
        chosen = Chosen(
            ready_s=ready_s,
            site=decision.site[slot].astype(np.int64),
            server=decision.server[slot].astype(np.int64),
            channel=decision.channel[slot].astype(np.int64),
            edge_fraction=decision.edge_fraction[slot].astype(np.float64),
        )
        simulated.pipeline.submit(simulated.testbed.ingredients(simulated.work(rows), chosen))

    def _joint_delay(self, epoch: int) -> tuple[FloatArray, float]:
        """From the tick until each device knows, ``[slots]``, and what the decider itself takes."""
        simulated = self._simulated
        decider = simulated.testbed.profile.decider(self._cell.placement)
        chances = decision_chances(self._keys, np.full(len(self._cell.devices), epoch))
        compute = decision_chances(self._controller_key, np.array([epoch]))
        delay_s = draw(decider.delay_s, chances[:, 0])
        if simulated.disturbances is not None:  # what the device sees goes up, and what is decided comes down
            links_s = simulated.disturbances.link_delays_s(len(delay_s), simulated.tick_s(epoch))
            delay_s = delay_s + 2.0 * np.array(links_s)
        delay_s = delay_s + simulated.hindrances.straggling_s(simulated.outages.awaited(len(delay_s)))
        return delay_s, float(draw(decider.compute_s, compute[:, 1])[0])

    def _own_delay(self, which: int) -> FloatArray:
        chances = decision_chances(self._keys, np.full(len(self._cell.devices), which))
        return draw(self._simulated.testbed.profile.decider("device").delay_s, chances[:, 0])

    def _own_compute(self, which: int) -> FloatArray:
        chances = decision_chances(self._keys, np.full(len(self._cell.devices), which))
        return draw(self._simulated.testbed.profile.decider("device").compute_s, chances[:, 1])

    def _policy_failed(self, slot: int, error: Exception) -> None:
        self._simulated.event("policy_failed", self._cell.devices[slot], problem=repr(error))
