"""One cell in virtual time: tasks arrive, ticks come, policies decide, and the queues of a testbed do the rest."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_server.controller.deciding import Decided
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.random_streams import uniforms
from edgebed.simulation.testbed.chance import device_keys, task_chances
from edgebed.simulation.testbed.features import device_features, server_features, waiting_of
from edgebed.simulation.testbed.hosts import Testbed, Work
from edgebed.simulation.testbed.ingredients import Ended, IndexArray
from edgebed.simulation.testbed.pipeline import Pipeline
from edgebed.trace.schema import EventRecord
from edgebed.types import DecidedBy, Observation, ObservationSpec
from orchestrator.backends.simulated_deciding import JointDecider, flat
from orchestrator.backends.simulated_decisions import Decisions
from orchestrator.backends.simulated_outages import Outages
from orchestrator.backends.simulated_record import EpochRow, Record
from orchestrator.backends.simulated_silences import Hindrances
from orchestrator.backends.simulated_tasks import CellTasks, tasks_of
from orchestrator.faults.happening import happening
from orchestrator.faults.schedule import PlannedFault
from orchestrator.faults.silences import silences_of
from orchestrator.faults.virtual import disturbances_of, outages_of
from orchestrator.faults.virtual_events import fault_events
from orchestrator.interrupts import Interrupted


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
        pipeline: the queues.
        outages, hindrances, disturbances: what its faults come to.
        decisions: what becomes of those that are taken.
        next_epoch: the epoch that `step` decides next.
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
        self.disturbances = disturbances_of(spec, happenings)
        layout = replace(testbed.layout_of(spec), disturbances=self.disturbances)
        self.channel_bps = layout.channel_alone_bps
        self.tasks: CellTasks = tasks_of(spec)
        self.record = Record.of(len(self.tasks))
        self.epoch_rows: list[EpochRow] = []
        self.events: list[EventRecord] = []
        self._fault_events = fault_events(spec, start_s, happenings, silences)
        self.pipeline = Pipeline(layout)
        self.outages = Outages(outages_of(spec, happenings), self.tasks, self.record, self.pipeline)
        self.hindrances = Hindrances(spec, silences, self.pipeline)
        acts = (*self.outages.acts(), *self.hindrances.acts())
        self._acts = deque(sorted(acts, key=lambda act: act[:2]))
        self._controllers = 0
        self.task_keys = device_keys(spec.seed, spec.devices, f"task{again}")
        self.cpu_keys = self.testbed.cpu_keys(spec.seed)
        self.next_epoch = 0
        self.on_ended: Callable[[Ended], None] = _nobody_hears
        self.decisions = Decisions(self, content)

    @property
    def undecided(self) -> int:
        """Tasks that nobody has decided yet."""
        return int((self.record.decided_by < 0).sum())

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

    def event(self, kind: str, host: str, **detail: object) -> None:
        """Note something that happened now."""
        t_s = self.start_s + self.pipeline.now_s
        self.events.append(EventRecord(t_s=t_s, host=host, kind=kind, detail=json.dumps(detail)))

    # -- observing ----------------------------------------------------------------------------------------------------

    def observe(self, epoch: int, rows: IndexArray) -> Observation:
        """What everyone knows now.

        Args:
            epoch: its number.
            rows: of the tasks that wait for this decision.
        """
        load, work, slots = self.pipeline.load(), self.work(rows), len(self.cell.devices)
        chance = uniforms(self.cpu_keys, epoch, 1).T
        here, there = chance[:, :slots], chance[:, slots:]
        waiting = waiting_of(work, self.tasks.deadline_s[rows], self.pipeline.now_s, 1, slots)
        seen = Observation(
            values=device_features(self.testbed, waiting, load, here)[0],
            present=np.ones(slots, np.bool_),
            age_s=np.zeros(slots, np.float32),
            server=server_features(self.testbed, load, self.cell.channels.count, self.channel_bps, there)[0],
            allowed_actions=np.ones((slots, self.spec.actions), np.bool_),
            epoch=epoch,
        )
        if self.outages:
            self.outages.hide(seen)
        if self.hindrances:
            self.hindrances.mask(seen)
        return seen

    def observe_end(self) -> Observation:
        """How things stand now for whoever decides jointly, when the next decision is not taken any more."""
        seen = self.observe(self.next_epoch, np.zeros(0, np.int64))
        self.hindrances.hide(seen)
        return seen

    # -- whole cells --------------------------------------------------------------------------------------------------

    def conclude(self) -> Observation:
        """How things stand a tick after the last decision; it goes into the trace."""
        self.next_epoch = self.cell.epochs
        self.advance(max(self.tick_s(self.next_epoch), self.pipeline.now_s))
        nothing = np.zeros(0, np.float32)
        if self.cell.placement != "device":
            seen = self.observe_end()
            self.epoch_rows.append(EpochRow(seen.epoch, "", flat(seen), nothing))
            return seen
        seen = self.observe(self.next_epoch, np.zeros(0, np.int64))
        last = {row.device: row.epoch for row in self.epoch_rows}
        for slot, name in enumerate(self.cell.devices):
            shown = np.concatenate([seen.values[slot], seen.server])
            self.epoch_rows.append(EpochRow(last.get(name, -1) + 1, name, shown, nothing))
        return seen

    def step(self, decider: JointDecider | None) -> bool:
        """Go on to the next decision and take it; False when all are taken.

        Args:
            decider: decides for all devices; None: devices decide.

        Raises:
            Interrupted: someone has asked to stop while the decider was waited for; nothing was decided.
        """
        epoch = self.next_epoch
        if epoch >= self.cell.epochs:
            return False
        self.next_epoch += 1
        if self.cell.decide_at == "arrival":
            self._decide_arrivals(epoch)
            return True
        self.advance(self.tick_s(epoch))
        rows = self.outages.waiting(self.tasks.of_epoch(epoch))
        seen = self.observe(epoch, rows)
        if decider is None:
            self.decisions.by_each(seen, rows, np.flatnonzero(seen.present).tolist())
            return True
        decided = self._decided(decider, seen)
        if decided is None:
            self.decisions.jointly(seen, None, DecidedBy.FALLBACK, "")
        else:
            self.decisions.jointly(seen, decided.decision, DecidedBy(decided.decided_by), decided.policy_version)
        return True

    def _decided(self, decider: JointDecider, seen: Observation) -> Decided | None:
        """What is decided this tick. A controller sees what reaches it, and begins anew where it was restarted."""
        self.hindrances.hide(seen)
        if self._controllers < self.hindrances.controllers:
            self._controllers = self.hindrances.controllers
            decider.restart()
        if not self.hindrances.is_decided(seen):
            return None
        try:
            return decider.decide(seen)
        except Interrupted:
            raise
        except Exception as error:  # a policy is someone's research code: it may raise anything
            self.event("policy_failed", "controller", policy=self.cell.policy, epoch=seen.epoch, error=repr(error))
            return None

    def _decide_arrivals(self, epoch: int) -> None:
        rows = self.tasks.of_epoch(epoch)
        order = np.lexsort((self.tasks.slot[rows], self.tasks.offset_s[rows]))
        for row in rows[order]:
            self.advance(float(self.tasks.offset_s[row]))
            one = self.outages.waiting(np.array([row]))
            if not len(one):
                continue  # its device is down
            self.decisions.by_each(self.observe(epoch, one), one, [int(self.tasks.slot[row])])


def _nobody_hears(ended: Ended) -> None:
    """What is in the record is enough."""
