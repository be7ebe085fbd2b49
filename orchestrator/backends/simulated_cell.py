"""One cell in virtual time: tasks arrive, ticks come, policies decide, and the queues of a testbed do the rest."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from edge_server.controller.deciding import CentralPolicy
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.chance import decision_chances, device_keys, task_chances
from edgebed.simulation.testbed.features import device_features, server_features, waiting_of
from edgebed.simulation.testbed.hosts import Chosen, Testbed, Work
from edgebed.simulation.testbed.ingredients import Ended, FloatArray, IndexArray
from edgebed.simulation.testbed.pipeline import Pipeline
from edgebed.simulation.testbed.profile import draw
from edgebed.trace.schema import EventRecord
from edgebed.types import BoolArray, DecidedBy, Decision, IntArray, Observation, ObservationSpec
from orchestrator.backends.simulated_deciding import Answer, OwnPolicies, executable, flat, put
from orchestrator.backends.simulated_outages import Outages
from orchestrator.backends.simulated_record import DECIDERS, EpochRow, Record
from orchestrator.backends.simulated_silences import Hindrances
from orchestrator.backends.simulated_tasks import CellTasks, tasks_of
from orchestrator.faults.happening import happening
from orchestrator.faults.schedule import PlannedFault
from orchestrator.faults.silences import silences_of
from orchestrator.faults.virtual import disturbances_of, outages_of
from orchestrator.faults.virtual_events import fault_events


class SimulatedCell:
    """A cell and everything that becomes known of it. Who drives it says when time passes.

    Args:
        spec: of the cell.
        testbed: its hosts, in the order of the cell's devices and servers.
        start_s: the run clock at its start.
        content: the folder of the files that policies need.
        replica: above 0 hosts and links draw anew, while arrivals and policies stay as they are.
        faults: of the kinds that `orchestrator.faults.virtual` has.

    Attributes:
        tasks: planned ones.
        record: what is known of them.
        epoch_rows, events: for the trace.
        on_ended: told of the tasks that have ended, whenever time has passed.
    """

    def __init__(
        self,
        spec: CellSpec,
        testbed: Testbed,
        start_s: float = 0.0,
        content: Path = Path(),
        replica: int = 0,
        faults: Sequence[PlannedFault] = (),
    ) -> None:
        again = f" again {replica}" if replica else ""
        self.cell = spec
        self.testbed = testbed.in_cell(spec.seed, spec.policy, replica)
        self.start_s = start_s
        self.spec = ObservationSpec(tuple(spec.devices), tuple(spec.servers), spec.channels.count)
        happenings = list(happening(spec, faults))
        silences = silences_of(spec, happenings)
        self._disturbances = disturbances_of(spec, happenings)
        layout = replace(testbed.layout_of(spec), disturbances=self._disturbances)
        self.channel_bps = layout.channel_alone_bps
        self.tasks: CellTasks = tasks_of(spec)
        self.record = Record.of(len(self.tasks))
        self.epoch_rows: list[EpochRow] = []
        self.events: list[EventRecord] = []
        self._fault_events = fault_events(spec, start_s, happenings, silences)
        self.pipeline = Pipeline(layout)
        self._outages = Outages(outages_of(spec, happenings), self.tasks, self.record, self.pipeline)
        self._hindrances = Hindrances(spec, silences, self.pipeline)
        acts = (*self._outages.acts(), *self._hindrances.acts())
        self._acts = deque(sorted(acts, key=lambda act: act[:2]))
        self._controllers = 0
        self.task_keys = device_keys(spec.seed, spec.devices, f"task{again}")
        self._decision_keys = device_keys(spec.seed, spec.devices, "decision")
        self._controller_key = device_keys(spec.seed, [""], "decision")
        own = partial(OwnPolicies, spec, content)
        self._fallback = own(spec.fallback_policy, {}, "fallback", self._policy_failed)
        self._own = own(spec.policy_name, spec.policy_options, "policy", self._policy_failed)
        self._epoch = 0
        self.on_ended: Callable[[Ended], None] = _nobody_hears

    @property
    def undecided(self) -> int:
        """Tasks that nobody has decided yet."""
        return int((self.record.decided_by < 0).sum())

    @property
    def next_epoch(self) -> int:
        """The epoch that `step` decides next."""
        return self._epoch

    # -- time ---------------------------------------------------------------------------------------------------------

    def tick_s(self, epoch: int) -> float:
        """When an epoch is decided, from the cell's start."""
        return (epoch + 1) * self.cell.epoch_s

    def advance(self, until_s: float) -> Ended:
        """Let time pass; the tasks that have ended meanwhile."""
        while self._fault_events and self._fault_events[0][0] <= until_s:
            self.events.append(self._fault_events.pop(0)[1])
        parts = []
        while self._acts and self._acts[0][0] <= until_s:
            at_s, _, act = self._acts.popleft()
            parts += [self._heard(self.pipeline.advance(at_s)), self._heard(act())]
        ended = self._heard(self.pipeline.advance(until_s))
        return Ended.joined([*parts, ended]) if parts else ended

    def _heard(self, ended: Ended) -> Ended:
        self.record.note(ended)
        self.on_ended(ended)
        return ended

    def work(self, rows: IndexArray) -> Work:
        """Tasks as the queues know them."""
        tasks = self.tasks
        slot, index, arrived_s = tasks.slot[rows], tasks.index[rows], tasks.offset_s[rows]
        chances = task_chances(self.task_keys[slot], index)
        return Work(
            task=rows,
            device=slot,
            arrived_s=arrived_s,
            limit_s=arrived_s + self.cell.timeouts.task_s,
            frames=tasks.frames[rows],
            frame_bytes=self.testbed.frame_bytes(chances),
            chances=chances,
        )

    # -- observing ----------------------------------------------------------------------------------------------------

    def observe(self, epoch: int, rows: IndexArray) -> Observation:
        """What everyone knows now.

        Args:
            epoch: its number.
            rows: of the tasks that wait for this decision.
        """
        load, work, slots = self.pipeline.load(), self.work(rows), len(self.cell.devices)
        waiting = waiting_of(work, self.tasks.deadline_s[rows], self.pipeline.now_s, 1, slots)
        seen = Observation(
            values=device_features(self.testbed, waiting, load)[0],
            present=np.ones(slots, np.bool_),
            age_s=np.zeros(slots, np.float32),
            server=server_features(self.testbed, load, self.cell.channels.count, self.channel_bps)[0],
            allowed_actions=np.ones((slots, self.spec.actions), np.bool_),
            epoch=epoch,
        )
        if self._outages:
            self._outages.hide(seen)
        if self._hindrances:
            self._hindrances.mask(seen)
        return seen

    # -- deciding -----------------------------------------------------------------------------------------------------

    def decide_jointly(
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
        epoch, cell = seen.epoch, self.cell
        rows = self._outages.waiting(self.tasks.of_epoch(epoch))
        delay_s, compute_s = self._joint_delay(epoch)
        if decision is None:
            delay_s = np.full_like(delay_s, math.inf)
        else:
            action = decision.table().ravel()
            self.epoch_rows.append(EpochRow(epoch, "", flat(seen), action, version, by.value, compute_s))
        delay_s, give_up_s = self._hindrances.waits(delay_s)
        is_late = delay_s > give_up_s
        executed = executable(decision or Decision.local(len(cell.devices)))
        waiting = np.bincount(self.tasks.slot[rows], minlength=len(cell.devices))
        fallback_versions = self._fall_back(seen, executed, is_late & (waiting > 0))
        own_s = self._own_delay(epoch)
        answer = Answer(
            decision=executed,
            ready_s=self.tick_s(epoch) + np.where(is_late, give_up_s + own_s, delay_s),
            by=np.where(is_late, DECIDERS.index(DecidedBy.FALLBACK), DECIDERS.index(by)),
            version=np.where(is_late, fallback_versions, self.record.version_code(version) if decision else 0),
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
            versions[slot] = self.record.version_code(version)
            self._note_own(seen, decision, slot, version, DecidedBy.FALLBACK, float(compute_s[slot]))
        return versions

    def decide_each(self, seen: Observation, rows: IndexArray, slots: list[int]) -> None:
        """Each of some devices decides for itself, now, for those of these tasks that are its own."""
        devices = len(self.cell.devices)
        decision = Decision.local(devices)
        by, versions = np.zeros(devices, np.int64), np.zeros(devices, np.int64)
        which = self.tasks.index[rows[0]] if self.cell.decide_at == "arrival" else seen.epoch
        delay_s, compute_s = self._own_delay(which), self._own_compute(which)
        for slot in slots:
            chosen, who = self._own.choose(seen, slot), DecidedBy.DEVICE
            if chosen is None:
                chosen, who = self._fallback.choose(seen, slot), DecidedBy.FALLBACK
            put(decision, slot, chosen[0] if chosen else None)
            version = chosen[1] if chosen else ""
            by[slot], versions[slot] = DECIDERS.index(who), self.record.version_code(version)
            self._note_own(seen, decision, slot, version, who, float(compute_s[slot]))
        ready_s = self.pipeline.now_s + delay_s
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
        name = self.cell.devices[slot]
        self.epoch_rows.append(EpochRow(seen.epoch, name, shown, action, version, by.value, compute_s))

    def _carry_out(self, rows: IndexArray, epoch: int, answer: Answer) -> None:
        record, slot, decision = self.record, self.tasks.slot[rows], answer.decision
        record.requested_site[rows] = decision.site[slot]
        record.requested_server[rows] = decision.server[slot]
        record.requested_channel[rows] = decision.channel[slot]
        record.decision_epoch[rows] = epoch
        record.decided_by[rows], record.version[rows] = answer.by[slot], answer.version[slot]
        record.decision_compute_s[rows], record.is_late[rows] = answer.compute_s[slot], answer.is_late[slot]
        record.ready_s[rows] = ready_s = self._hindrances.awake_s(slot, answer.ready_s[slot])
        chosen = Chosen(
            ready_s=ready_s,
            site=decision.site[slot].astype(np.int64),
            server=decision.server[slot].astype(np.int64),
            channel=decision.channel[slot].astype(np.int64),
            edge_fraction=decision.edge_fraction[slot].astype(np.float64),
        )
        self.pipeline.submit(self.testbed.ingredients(self.work(rows), chosen))

    def _joint_delay(self, epoch: int) -> tuple[FloatArray, float]:
        """From the tick until each device knows, ``[slots]``, and what the policy itself takes."""
        decider = self.testbed.profile.decider("controller")
        chances = decision_chances(self._decision_keys, np.full(len(self.cell.devices), epoch))
        compute = decision_chances(self._controller_key, np.array([epoch]))
        delay_s = draw(decider.delay_s, chances[:, 0])
        if self._disturbances is not None:  # what the device sees goes up, and what is decided comes down
            delay_s = delay_s + 2.0 * np.array(self._disturbances.link_delays_s(len(delay_s), self.tick_s(epoch)))
        delay_s = delay_s + self._hindrances.straggling_s(self._outages.awaited(len(delay_s)))
        return delay_s, float(draw(decider.compute_s, compute[:, 1])[0])

    def _own_delay(self, which: int) -> FloatArray:
        chances = decision_chances(self._decision_keys, np.full(len(self.cell.devices), which))
        return draw(self.testbed.profile.decider("device").delay_s, chances[:, 0])

    def _own_compute(self, which: int) -> FloatArray:
        chances = decision_chances(self._decision_keys, np.full(len(self.cell.devices), which))
        return draw(self.testbed.profile.decider("device").compute_s, chances[:, 1])

    def _policy_failed(self, slot: int, error: Exception) -> None:
        self.event("policy_failed", self.cell.devices[slot], problem=repr(error))

    def event(self, kind: str, host: str, **detail: object) -> None:
        """Note something that happened now."""
        t_s = self.start_s + self.pipeline.now_s
        self.events.append(EventRecord(t_s=t_s, host=host, kind=kind, detail=json.dumps(detail)))

    # -- whole cells --------------------------------------------------------------------------------------------------

    def conclude(self) -> Observation:
        """How things stand a tick after the last decision; it goes into the trace."""
        self.advance(max(self.tick_s(self.cell.epochs), self.pipeline.now_s))
        seen = self.observe(self.cell.epochs, np.zeros(0, np.int64))
        if self.cell.placement != "device":
            self._hindrances.hide(seen)
        nothing = np.zeros(0, np.float32)
        if self.cell.placement == "device":
            last = {row.device: row.epoch for row in self.epoch_rows}
            for slot, name in enumerate(self.cell.devices):
                shown = np.concatenate([seen.values[slot], seen.server])
                self.epoch_rows.append(EpochRow(last.get(name, -1) + 1, name, shown, nothing))
        else:
            self.epoch_rows.append(EpochRow(seen.epoch, "", flat(seen), nothing))
        return seen

    def step(self, policy: CentralPolicy | None) -> bool:
        """Go on to the next decision and take it; False when all are taken.

        Args:
            policy: the controller's; None: devices decide.
        """
        epoch = self._epoch
        if epoch >= self.cell.epochs:
            return False
        self._epoch += 1
        if self.cell.decide_at == "arrival":
            self._decide_arrivals(epoch)
            return True
        self.advance(self.tick_s(epoch))
        rows = self._outages.waiting(self.tasks.of_epoch(epoch))
        seen = self.observe(epoch, rows)
        if policy is None:
            self.decide_each(seen, rows, np.flatnonzero(seen.present).tolist())
            return True
        if not self._is_decided_by(policy, seen):
            self.decide_jointly(seen, None, DecidedBy.FALLBACK, "")
            return True
        try:
            decided = policy.decide(seen)
        except Exception as error:  # a policy is someone's research code: it may raise anything
            self.event("policy_failed", "controller", policy=self.cell.policy, epoch=epoch, error=repr(error))
            self.decide_jointly(seen, None, DecidedBy.FALLBACK, "")
            return True
        self.decide_jointly(seen, decided.decision, DecidedBy.CONTROLLER, decided.policy_version)
        return True

    def _is_decided_by(self, policy: CentralPolicy, seen: Observation) -> bool:
        """Does a controller decide this tick? It sees what reaches it, and begins anew where it was restarted."""
        self._hindrances.hide(seen)
        if self._controllers < self._hindrances.controllers:
            self._controllers = self._hindrances.controllers
            policy.restart()
        return self._hindrances.is_decided(seen)

    def _decide_arrivals(self, epoch: int) -> None:
        rows = self.tasks.of_epoch(epoch)
        order = np.lexsort((self.tasks.slot[rows], self.tasks.offset_s[rows]))
        for row in rows[order]:
            self.advance(float(self.tasks.offset_s[row]))
            one = self._outages.waiting(np.array([row]))
            if not len(one):
                continue  # its device is down
            self.decide_each(self.observe(epoch, one), one, [int(self.tasks.slot[row])])


def _nobody_hears(ended: Ended) -> None:
    """What is in the record is enough."""
